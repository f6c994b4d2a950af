"""The README's commands are run, its Python is executed, and what it names exists.

Holds: README.md
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from blank_figures import leave_blank
from short_evaluations import evaluate_few

from vgexp.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """The words of each command line of one program, comments left out."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [each for each in words if each and each[0] == program]


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shortened(words: list[str]) -> list[str]:
    """The command with two steps of few examples, few seeds and this process alone, to be fast."""
    added = []
    if words[1] == "train" and "--help" not in words:
        added += ["train.steps=2", "data.batch_size=16"]
    if words[1] == "signal" and not any(word.startswith("signal.seeds=") for word in words):
        added.append("signal.seeds=2")
    if "hydra/launcher=joblib" in words:
        added.append("hydra.launcher.n_jobs=1")
    added += ["seed=1,2" for word in words if re.fullmatch(r"seed=[\d,]{5,}", word)]
    return [*words[1:], *added]


def without_repeats(words: list[str]) -> list[str]:
    """Hydra takes a key once: the shortened one wins."""
    keys = {word.split("=")[0]: word for word in words if "=" in word}
    return [word for word in words if "=" not in word or keys[word.split("=")[0]] == word]


@pytest.mark.usefixtures("somewhere")
def test_every_vgexp_command_of_the_readme_runs_in_the_order_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_blank(monkeypatch)
    evaluate_few(monkeypatch)
    shown = commands("vgexp")
    assert len(shown) > 10
    for words in shown:
        code = main(without_repeats(shortened(words)))
        captured = capsys.readouterr()
        # Twenty sigmoid layers are sick, which `diagnose` says with its code.
        assert code == (3 if words[1] == "diagnose" else 0), (words, captured.err)
        if words[1] == "diagnose":
            assert "Cause: saturating_activation" in captured.out
    assert Path("depth.csv").exists()
    assert len(list(Path("sweeps/depth").glob("*/layers.csv"))) == 12


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {words[1] for words in commands("make")} | set(re.findall(r"`make (\w+)`", README))
    assert {"demo", "test", "help", "bench"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.usefixtures("somewhere")
def test_the_python_of_the_readme_runs_and_the_probe_sees_everything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for block in blocks("python"):
        names: dict[str, object] = {}
        exec(compile(block, "README.md", "exec"), names)
        if "probe" in names:
            assert names["probe"].unseen == []  # type: ignore[attr-defined]
            assert not names["frame"].empty  # type: ignore[attr-defined]
    assert "healthy" in capsys.readouterr().out


def test_no_figure_is_left_to_be_filled_in() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert not re.search(r"BENCH|PARTS_TABLE|TODO", document.read_text(encoding="utf-8"))


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
