# make help | demo | test | bench | faults | gallery | papers | strangers | zoo | clean.    Another Python: make PYTHON=python3.12 test

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
VERSION_CHECK := import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	"error: vgexp needs Python 3.11 or newer, but $(PYTHON) is %d.%d\n  allowed: make PYTHON=python3.11 ..." % v[:2])
# One line for each file that pip fetches, and one when it begins to unpack them.
PROGRESS := /^ *(Downloading|Using cached)/ && !/metadata/ { n = split($$2, path, "/"); \
	print "  " path[n], $$3, $$4; fflush() } /^Installing collected/ { print "  unpacking"; fflush() }

.PHONY: help demo test bench faults gallery papers strangers zoo clean install

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## install, then watch the gradient of a deep sigmoid net vanish
	@$(BIN)/vgexp train +experiment=sigmoid_deep

test: $(READY) ## format check, lint, types, tests and the slowest ten
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest -n 2 --dist loadfile --durations=10

bench: $(READY) ## what measuring costs a training step, and what a start takes
	@$(BIN)/python scripts/bench.py
	@$(BIN)/python scripts/bench_networks.py
	@$(BIN)/python scripts/bench_guests.py
	@$(BIN)/python scripts/bench_startup.py

faults: $(READY) ## kill, fill, close, break: what runs survive (about 7 minutes)
	@$(BIN)/python scripts/faults.py

gallery: $(READY) ## every picture of README and docs/gallery.md (about 5 minutes)
	@$(BIN)/python scripts/gallery.py

papers: $(READY) ## papers reproduced, docs/papers.md, from real runs (about 35 minutes)
	@$(BIN)/python scripts/papers.py

strangers: $(READY) ## the probe on 40 models of transformers, timm and torchvision, which it installs (about 3 minutes)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[strangers]'
	@$(BIN)/python scripts/strangers.py

zoo: $(READY) ## what the diagnosis says of networks whose health is known, docs/diagnosis.md (about 60 minutes)
	@PYTHONPATH=scripts $(BIN)/python -m zoo

install: $(READY) ## only make .venv

clean: ## remove .venv, builds and caches; runs in outputs/ stay
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find src tests scripts -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "error: no $(PYTHON) on the path; make PYTHON=... names another" >&2; exit 1; }
	@$(PYTHON) -c '$(VERSION_CHECK)'
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing vgexp and what it needs (torch is large: minutes on a slow line)"
	@set -o pipefail; $(BIN)/python -m pip install --progress-bar off --disable-pip-version-check \
		-e '.[dev]' | awk '$(PROGRESS)'
	@touch $(READY)
