"""Papers reproduced: each is well-formed, its presets compose, and its section and figure exist.

Holds: docs/papers.md, scripts/papers.py
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import papers
import pytest
from matplotlib.figure import Figure
from preset_opening import require_opening
from reproductions.paper import Claim, Paper

from vgexp.cli import listing
from vgexp.cli.main import main

ROOT = Path(__file__).parents[2]
PAPERS = papers.discovered()
PRESETS = sorted((listing.find_configs() / "experiment" / "papers").glob("*.yaml"))
MOST_RUNS = 150

by_name = pytest.mark.parametrize("paper", PAPERS.values(), ids=list(PAPERS))
by_preset = pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)


def made_up(name: str = "nobody_1900", **changed: Any) -> Paper:
    fields: dict[str, Any] = {
        "name": name,
        "citation": "N. Obody: A title, 1900.",
        "question": "Why?",
        "commands": {"start": "signal model.depth=2", "trained": "train -m seed=1,2"},
        "claims": lambda folder: [Claim("a | b", "more", "", f"of {folder.name}")],
        "draw": lambda _: Figure(),
        "verdict": lambda _: "All is well.",
    }
    return Paper(**{**fields, **changed})


def test_papers_are_discovered_in_the_order_of_their_years() -> None:
    years = [name.rpartition("_")[2] for name in PAPERS]
    assert len(PAPERS) >= 3
    assert years == sorted(years)


@by_name
def test_a_paper_is_well_formed(paper: Paper) -> None:
    assert re.fullmatch(r"[a-z]+_\d{4}", paper.name)
    assert paper.name.rpartition("_")[2] in paper.citation
    assert paper.citation.endswith(".")
    assert paper.question.strip().endswith((".", "?"))
    for folder, words in paper.commands.items():
        assert re.fullmatch(r"\w+", folder)
        verb, *rest = shlex.split(words)
        assert verb in ("train", "signal")
        assert not any("hydra." in word for word in rest), "its folder is the driver's business"


@by_name
def test_its_commands_compose(paper: Paper, capsys: pytest.CaptureFixture[str]) -> None:
    for words in paper.commands.values():
        verb, *rest = [word for word in shlex.split(words) if word != "-m"]
        swept = [word.partition("=") for word in rest]
        values = [value.split(",") for _, _, value in swept]
        assert papers.is_sweep(words) or all(len(several) == 1 for several in values)
        assert math.prod(map(len, values)) <= MOST_RUNS
        # The last of everything: what Hydra makes of a single run is what it makes of a job.
        last = [f"{key}={several[-1]}" for (key, *_), several in zip(swept, values, strict=True)]
        assert main([verb, *last, "--cfg", "job"]) == 0
        assert "depth:" in capsys.readouterr().out


@by_preset
def test_a_preset_belongs_to_a_paper_and_is_what_its_commands_run(path: Path) -> None:
    words = f"+experiment=papers/{path.stem}"
    assert any(
        words in shlex.split(command)
        for paper in PAPERS.values()
        for command in paper.commands.values()
    )


@by_preset
def test_a_preset_opens_with_its_command_its_sentence_and_what_was_measured(path: Path) -> None:
    require_opening(path, rf"vgexp (train|signal) \+experiment=papers/{path.stem}", r"\d+")


def test_presets_of_papers_are_listed_with_their_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "experiments"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for path in PRESETS:
        sentence = path.read_text(encoding="utf-8").splitlines()[2].removeprefix("# ")
        assert f"papers/{path.stem} {sentence}" in printed


@pytest.mark.parametrize("typed", ["papers/glorot_201", "glorot_2010"])
def test_a_mistyped_preset_of_a_paper_finds_its_nearest(
    typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", f"+experiment={typed}"]) == 2
    said = capsys.readouterr().err
    assert f"unknown experiment: '{typed}'" in said
    assert "nearest: papers/glorot_2010" in said


def test_the_page_has_a_section_and_a_figure_of_each_paper() -> None:
    page = (ROOT / papers.PAGE).read_text(encoding="utf-8")
    assert list(papers.sections(page)) == list(PAPERS)
    there = {path.stem for path in (ROOT / papers.PICTURES).iterdir()}
    assert there == set(PAPERS)


@by_name
def test_a_section_says_what_its_paper_says(paper: Paper) -> None:
    text = papers.sections((ROOT / papers.PAGE).read_text(encoding="utf-8"))[paper.name]
    assert text.startswith(f"## {papers.title(paper)}\n\n{paper.citation}\n\n{paper.question}\n")
    assert f"](papers/{paper.name}.png)" in text
    assert "TODO" not in text
    commands = re.search(r"```sh\n(.*?)\n```", text, re.DOTALL)
    assert commands is not None
    typed = [shlex.split(line) for line in commands[1].splitlines()]
    assert [words[1:-1] for words in typed] == [shlex.split(w) for w in paper.commands.values()]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 2
    assert all(len(re.split(r"(?<!\\)\|", row)) == 6 for row in rows)


def test_what_has_ended_is_gone_on_with_and_what_has_not_begun_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed: list[list[str]] = []
    monkeypatch.setattr(papers, "vgexp_main", lambda words: typed.append(words) or 0)
    for _ in range(2):
        papers.make("signal a=1", tmp_path / "start")
        papers.make("train -m a=1,2", tmp_path / "trained")
        for name in ("start", "trained"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "config.yaml").touch()
    assert [words[0] for words in typed] == ["signal", "train", "resume", "train"]
    assert f"hydra.run.dir={tmp_path / 'start'}" in typed[0]
    assert f"hydra.sweep.dir={tmp_path / 'trained'}" in typed[1]
    assert typed[2] == ["resume", str(tmp_path / "start")]


def test_a_run_that_ended_is_not_measured_again(tmp_path: Path) -> None:
    words = "signal model.depth=2 model.width=5 signal.seeds=1 data=gaussian data.num_examples=200"
    papers.make(words, tmp_path / "start")
    before = (tmp_path / "start" / "summary.json").read_text(encoding="utf-8")
    papers.make(words, tmp_path / "start")
    assert (tmp_path / "start" / "summary.json").read_text(encoding="utf-8") == before
    assert json.loads(before)["status"] == "completed"


def test_a_run_that_fails_ends_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papers, "vgexp_main", lambda _: 1)
    with pytest.raises(SystemExit, match="did not come to its end"):
        papers.make("train", tmp_path / "run")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The driver, with papers that are made up; returns the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(papers, "make", lambda *_: None)
    known = {p.name: p for p in (made_up(), made_up("somebody_1901"))}
    monkeypatch.setattr(papers, "discovered", lambda: known)

    def driven(*names: str) -> str:
        assert papers.main(names) == 0
        return papers.PAGE.read_text(encoding="utf-8")

    return driven


def test_one_paper_made_leaves_the_sections_of_the_others(workplace: Callable[..., str]) -> None:
    whole = workplace()
    assert workplace("somebody_1901") == whole
    assert workplace("nobody_1900") == whole
    assert whole.count("N. Obody") == 2 * 2
    assert r"| a \| b | more |  | of nobody_1900 |" in whole


def test_one_paper_made_alone_is_a_page_of_it(workplace: Callable[..., str]) -> None:
    page = workplace("somebody_1901")
    assert list(papers.sections(page)) == ["somebody_1901"]
    assert "- [Somebody 1901](#somebody_1901): " in page
    assert "nobody_1900" not in page


@pytest.mark.usefixtures("workplace")
def test_an_unknown_paper_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert papers.main(["nobody_190"]) == 2
    assert "nearest: nobody_1900" in capsys.readouterr().err
