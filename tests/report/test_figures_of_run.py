"""A run draws its figures when it has come to its end, and is whole without them.

Holds: report/figures/of_run.py, cli/after_run.py, cli/show.py, report/notebook.py, runs/past.py,
runs/start.py
"""

from __future__ import annotations

import base64
import dataclasses
import os
import re
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
from blank_figures import leave_blank
from matplotlib.figure import Figure
from small_runs import CONFIG, DIVERGING, summary_of
from trainers import changed

import vgexp
from vgexp.cli.interrupts import Terminated
from vgexp.cli.main import main
from vgexp.config import OutputConfig
from vgexp.errors import QuestionError
from vgexp.report import figures
from vgexp.report.figures import style
from vgexp.runs import start
from vgexp.sinks.csv_files import CsvFiles

pytestmark = pytest.mark.figures
WORDS = ["model.depth=2", "model.width=8", "data=gaussian", "data.num_examples=160"]
DRAWN = dataclasses.replace(CONFIG.output, figures=True)
SHORT = [*WORDS, "train.steps=3"]


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are blank and not rendered, where only their files matter."""
    leave_blank(monkeypatch)

    def write(_: Figure, path: Path) -> Path:
        path.write_bytes(b"picture")
        return path

    monkeypatch.setattr(style, "write", write)


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "figures").glob("*")}


def test_a_run_leaves_each_figure_as_png_and_svg_though_it_diverged(tmp_path: Path) -> None:
    done = vgexp.run(changed(DIVERGING, output=DRAWN), tmp_path / "a")
    drawn = names(done.folder)
    assert {"gradient_map.png", "gradient_map.svg", "learning_curves.png"} <= drawn
    assert {Path(name).stem for name in drawn} <= {*figures.FIGURES, figures.OVERVIEW}
    assert {Path(name).suffix for name in drawn} == {".png", ".svg"}


def test_no_figures_where_they_are_not_wanted(tmp_path: Path) -> None:
    quiet = dataclasses.replace(CONFIG.output, figures=False)
    done = vgexp.run(changed(CONFIG, output=quiet), tmp_path / "a")
    assert not (done.folder / "figures").exists()
    vgexp.run(CONFIG, tmp_path / "b")
    assert not (tmp_path / "b" / "figures").exists(), "Python draws only what it is asked for"


@pytest.mark.parametrize("verb", ["train", "signal"])
@pytest.mark.parametrize(("words", "are_drawn"), [([], True), (["output.figures=false"], False)])
@pytest.mark.usefixtures("stubs")
def test_a_run_alone_on_the_command_line_draws_unless_it_is_not_to(
    verb: str,
    words: list[str],
    are_drawn: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def quick(folder: Path) -> list[Path]:
        (folder / "figures").mkdir()
        return [folder / "figures" / "overview.png"]

    monkeypatch.setattr(figures, "draw", quick)
    assert main([verb, *SHORT, *words, "signal.seeds=2", f"hydra.run.dir={tmp_path / 'a'}"]) == 0
    assert (tmp_path / "a" / "figures").exists() == are_drawn


@pytest.mark.usefixtures("stubs")
def test_the_configuration_of_a_job_is_that_of_the_run_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-m", *SHORT, "seed=1,2", f"hydra.sweep.dir={tmp_path / 's'}"]) == 0
    job = tmp_path / "s" / "0"
    assert vgexp.load(job).config.output == OutputConfig()
    again = ["--config-dir", str(job), "--config-name", "config"]
    capsys.readouterr()
    assert main(["train", *again, f"hydra.run.dir={tmp_path / 'a'}"]) == 0
    assert "Verdict" in capsys.readouterr().out
    assert (tmp_path / "a" / "figures" / "overview.png").exists()


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [(KeyboardInterrupt, 130, "interrupted"), (Terminated, 143, "terminated")],
)
@pytest.mark.parametrize("words", [["train"], ["resume"]])
@pytest.mark.usefixtures("stubs")
def test_a_signal_while_figures_are_drawn_leaves_the_table_and_says_how_to_draw_them(
    words: list[str],
    error: type[KeyboardInterrupt],
    code: int,
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "a"
    asked = ["train", *SHORT, f"hydra.run.dir={folder}"]
    if words == ["resume"]:
        assert main([*asked, "output.quiet=false", "output.figures=null"]) == 0
        (folder / "summary.json").unlink()
        shutil.rmtree(folder / "figures")
        asked = ["resume", str(folder)]

    def struck(_: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT if error is KeyboardInterrupt else signal.SIGTERM)

    monkeypatch.setattr(figures, "draw", struck)
    capsys.readouterr()
    assert main(asked) == code
    shown = capsys.readouterr()
    assert "Verdict: " in shown.out
    assert shown.err.count("error: ") == 1
    assert f"error: {word}" in shown.err
    assert "not every figure was drawn" in shown.err
    assert f"vgexp show {folder} --figures" in shown.err
    assert "vgexp resume" not in shown.err
    assert summary_of(folder)["status"] == "completed"


def test_a_signal_that_is_swallowed_while_drawing_is_loaded_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Swallowing(ModuleType):
        @property
        def figures(self) -> ModuleType:
            with suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            return figures

    done = vgexp.run(CONFIG, tmp_path / "a")
    monkeypatch.setattr(figures, "draw", lambda _: [])
    monkeypatch.setitem(sys.modules, "vgexp.report", Swallowing("vgexp.report"))
    with pytest.raises(KeyboardInterrupt):
        start.draw_figures(done, is_wanted=True)
    assert summary_of(tmp_path / "a")["status"] == "completed"


@pytest.mark.parametrize(("words", "are_drawn"), [([], False), (["output.figures=true"], True)])
@pytest.mark.usefixtures("stubs")
def test_jobs_of_a_sweep_draw_where_they_are_asked_to(
    words: list[str], are_drawn: bool, tmp_path: Path
) -> None:
    assert main(["train", "-m", *SHORT, *words, "seed=1,2", f"hydra.sweep.dir={tmp_path}"]) == 0
    assert [(tmp_path / job / "figures").exists() for job in "01"] == [are_drawn, are_drawn]


def test_a_run_that_cannot_draw_is_whole_and_says_how_to_draw_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures, "draw", full)
    assert main(["train", *SHORT, f"hydra.run.dir={tmp_path / 'a'}"]) == 0
    said = capsys.readouterr().err
    assert "not every figure was drawn: OSError" in said
    assert f"vgexp show {tmp_path / 'a'} --figures" in said
    assert summary_of(tmp_path / "a")["status"] == "completed"


@pytest.mark.usefixtures("stubs")
def test_a_run_that_has_ended_is_not_drawn_again_and_one_that_goes_on_is(tmp_path: Path) -> None:
    done = vgexp.run(changed(CONFIG, output=DRAWN), tmp_path / "a")
    picture = done.folder / "figures" / "gradient_map.png"
    picture.unlink()
    vgexp.resume(done.folder)
    assert not picture.exists()
    (done.folder / "summary.json").unlink()
    vgexp.resume(done.folder)
    assert picture.exists()


def test_an_interrupted_run_ends_without_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CsvFiles, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vgexp.run(changed(CONFIG, output=DRAWN), tmp_path / "a")
    assert summary_of(tmp_path / "a")["status"] == "interrupted"
    assert not (tmp_path / "a" / "figures").exists()


def test_a_run_is_plotted_whole_or_by_the_name_of_a_figure(tmp_path: Path) -> None:
    done = vgexp.run(changed(CONFIG, output=OutputConfig(figures=False)), tmp_path / "a")
    assert len(done.plot().axes) > 3
    (axes, *_) = done.plot("backward_signal").axes
    assert axes.get_yscale() == "log"
    with pytest.raises(QuestionError, match="nearest: backward_signal"):
        done.plot("backward_signall")


def test_a_notebook_shows_a_run_in_one_piece_that_refers_to_nothing_outside(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "<b>run & co"
    html = vgexp.run(changed(CONFIG, output=OutputConfig(figures=False)), folder)._repr_html_()
    assert "&lt;b&gt;run &amp; co" in html
    assert "<b>run" not in html
    assert "attenuation" in html
    assert "http" not in html
    (encoded,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert base64.b64decode(encoded).startswith(b"\x89PNG")


def test_a_notebook_shows_what_there_is_of_a_run_that_was_killed(tmp_path: Path) -> None:
    done = vgexp.run(changed(CONFIG, output=OutputConfig(figures=False)), tmp_path / "a")
    (done.folder / "summary.json").unlink()
    html = vgexp.load(done.folder)._repr_html_()
    assert "summary.json" in html
    assert "base64" in html


def test_every_picture_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "pictures"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*figures.FIGURES, figures.OVERVIEW))


@pytest.mark.usefixtures("stubs")
def test_the_closing_lines_tell_of_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *SHORT, f"hydra.run.dir={tmp_path / 'a'}"]) == 0
    num_pictures = len(list((tmp_path / "a" / "figures").glob("*.png")))
    assert f"figures ({num_pictures} of them)" in capsys.readouterr().out


@pytest.mark.usefixtures("stubs")
def test_pictures_that_are_removed_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = vgexp.run(changed(CONFIG, output=OutputConfig(quiet=True, figures=True)), tmp_path / "a")
    path = done.folder / "layers.csv"
    path.write_text(path.read_text(encoding="utf-8").split("\n")[0] + "\n", encoding="utf-8")
    assert main(["show", str(done.folder), "--figures"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "Removed" in line]
    assert "gradient_map" in line
    assert "learning_curves" not in line
    assert main(["show", str(done.folder), "--figures"]) == 0
    assert "Removed" not in capsys.readouterr().out
