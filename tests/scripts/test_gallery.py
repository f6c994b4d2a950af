"""The gallery's page is the one that its script writes, and every picture of it is there.

Holds: docs/gallery.md, scripts/gallery.py
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import gallery
import pytest

from vgexp import folders
from vgexp.cli.arguments import Parser
from vgexp.cli.compare import add_arguments
from vgexp.config import Config
from vgexp.sweep import plan, plan_file

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_script_writes() -> None:
    assert (ROOT / gallery.PAGE).read_text(encoding="utf-8") == gallery.page()


def test_every_picture_is_there_and_no_other() -> None:
    there = {path.stem for path in (ROOT / gallery.PICTURES).iterdir()}
    assert there == {picture.name for picture in gallery.PICTURES_OF}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme)
    assert shown
    assert all((ROOT / path).is_file() for path in shown)


@pytest.mark.parametrize("picture", gallery.PICTURES_OF, ids=lambda picture: picture.name)
def test_the_folders_of_a_command_are_those_of_its_runs(picture: gallery.Picture) -> None:
    assert set(picture.jobs) <= set(gallery.JOBS)
    words = shlex.split(picture.typed, comments=True)
    if words[:2] == ["vgexp", "compare"]:
        parser = Parser()
        add_arguments(parser)
        args = parser.parse_intermixed_args(words[2:])
        assert [*args.paths, *(args.heatmap or [])][0] == f"runs/{picture.jobs[0]}"
    assert all(f"runs/{name}" in gallery.page() for name in picture.jobs)


def test_a_run_that_has_ended_is_gone_on_with_and_one_that_has_not_begun_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed: list[list[str]] = []
    job, sweep = gallery.Job("train a=1"), gallery.Job("train -m a=1,2")
    monkeypatch.setattr(gallery, "vgexp_main", lambda words: typed.append(words) or 0)
    for _ in range(2):
        gallery._make(job, tmp_path / "run")
        gallery._make(sweep, tmp_path / "sweep")
        recorded(tmp_path, typed[:2])
    assert [words[0] for words in typed] == ["train", "train", "resume", "train"]


@pytest.mark.parametrize(("name", "words"), [("run", "train a=2"), ("sweep", "train -m a=1,2,3")])
def test_a_folder_with_what_another_command_made_is_refused(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed: list[list[str]] = []
    monkeypatch.setattr(gallery, "vgexp_main", lambda words: typed.append(words) or 0)
    gallery._make(gallery.Job("train a=1"), tmp_path / "run")
    gallery._make(gallery.Job("train -m a=1,2"), tmp_path / "sweep")
    recorded(tmp_path, typed)
    with pytest.raises(SystemExit, match="holds what another command made: vgexp train"):
        gallery._make(gallery.Job(words), tmp_path / name)
    assert len(typed) == 2


def recorded(folder: Path, commands: list[list[str]]) -> None:
    """What a run and a sweep leave of their commands."""
    run, sweep = commands
    (folder / "run").mkdir(exist_ok=True)
    (folder / "sweep").mkdir(exist_ok=True)
    folders.write_config(folder / "run", Config(), shlex.join(["vgexp", *run]))
    plan_file.write(folder / "sweep", plan.Plan(commands=(tuple(sweep),)))


def test_what_is_said_of_the_first_picture_is_what_its_run_has() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    norms = {
        layer: float(re.search(rf"^{layer} +\S+ +\S+ +(\S+)", readme, re.MULTILINE)[1])  # type: ignore[index]
        for layer in (1, 20)
    }
    for text in (readme, gallery.page()):
        (said,) = re.findall(r"is ([\d.e-]+) of that (?:of|at) layer 20", text)
        assert float(said) == pytest.approx(norms[1] / norms[20], rel=0.05)
