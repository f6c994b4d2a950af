"""Command lines that are nearly right: the answer says how the thing is typed here.

Holds: cli/arguments.py, cli/hydra_entry.py, cli/overrides.py, errors.py
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import vgexp
from vgexp.activations import ACTIVATIONS
from vgexp.cli import show
from vgexp.cli.keys import list_keys
from vgexp.cli.main import main
from vgexp.config import CHOICES
from vgexp.errors import QuestionError, nearest
from vgexp.report.terminal.live import Counting


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a wrong command line is told, its lines joined; nothing was made."""
    assert main(argv) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert max(map(len, shown.splitlines())) <= 80
    assert not [path for path in Path.cwd().rglob("*") if path.is_file()]
    return " ".join(shown.split())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--experiment", "sigmoid_deep"], "+experiment=sigmoid_deep"),
        (["--experiment=sigmoid_deep"], "+experiment=sigmoid_deep"),
        (["--lr", "0.1"], "optimizer.lr=0.1"),
        (["--model", "resnet"], "model=resnet"),
        (["--seed"], "seed=VALUE"),
        (["--epochs", "3"], "train.epochs=3"),
        (["--batch-size", "8"], "data.batch_size=8"),
        (["--multirn"], "--multirun"),
    ],
)
def test_a_flag_that_is_a_key_is_told_as_the_override_that_it_is(
    typed: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = answer(capsys, "train", *typed)
    assert f"unknown flag: '{typed[0].split('=')[0]}'" in said
    assert said.split("nearest: ")[1].split()[0].rstrip(",") == meant


@pytest.mark.parametrize("verb", ["compare", "show", "resume"])
def test_a_shortened_flag_is_not_taken_for_another(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = {"compare": "--layers", "show": "--metric", "resume": "--failed"}[verb]
    said = answer(capsys, verb, "x", flag[:-1])
    assert f"unknown flag: '{flag[:-1]}'" in said
    assert f"nearest: {flag}" in said


@pytest.mark.parametrize("verb", ["show", "resume"])
def test_a_verb_without_its_folder_asks_for_the_folder_alone(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = answer(capsys, verb)
    headline = said.split(" usage:")[0]
    assert headline.startswith("error: the following arguments are required: RUN")
    assert "hydra/launcher" not in headline


def test_the_further_lines_of_a_usage_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--foo", "x"]) == 2
    _, usage = capsys.readouterr().err.split("  usage: ")
    assert len(usage.splitlines()) > 1
    assert all(line.startswith("    ") for line in usage.splitlines()[1:])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["model.activation=ReLU"], "relu"),
        (["model.activation=LeakyReLU"], "leaky_relu"),
        (["model.activation=leaky-relu"], "leaky_relu"),
        (["optimizer=Adam"], "adam"),
        (["optimizer=SGD"], "sgd"),
        (["model.norm=BatchNorm1d"], "batch"),
        (["Model.depth=3"], "model"),
    ],
)
def test_a_name_in_another_spelling_is_told_its_own(
    typed: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"nearest: {meant}" in answer(capsys, "train", *typed)


@pytest.mark.parametrize("name", [*ACTIVATIONS, *CHOICES["model"], *CHOICES["optimizer"]])
def test_every_name_is_found_in_capitals_and_without_underscores(name: str) -> None:
    names = [*ACTIVATIONS, *CHOICES["model"], *CHOICES["optimizer"]]
    assert nearest(name.upper().replace("_", "-"), names) == name
    assert nearest(name.replace("_", "").title(), names) == name


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("sigmoid_dep", "nearest: +experiment=sigmoid_deep"),
        ("momentun", "nearest: optimizer=momentum"),
        ("networks", None),
    ],
)
def test_a_word_alone_is_taken_for_a_name_only_where_it_nearly_is_one(
    word: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    said = answer(capsys, "train", word)
    assert f"cannot read the override '{word}'" in said
    assert (meant in said) if meant else ("nearest: " not in said)


@pytest.mark.parametrize("word", ["a", "the", "how"])
def test_a_key_is_not_found_by_a_little_word_that_its_meaning_begins_with(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert any(key.meaning.lower().startswith(f"{word} ") for key in list_keys())
    said = answer(capsys, "train", f"{word}=1")
    assert f"unknown key: '{word}'" in said
    assert "nearest: " not in said


@pytest.mark.parametrize(
    "typed", [["model.depth", "=", "5"], ["model.depth=", "5"], ["model.depth", "=5"]]
)
def test_spaces_around_an_equals_sign_are_named(
    typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = answer(capsys, "train", *typed, "train.steps=1")
    assert f"spaces around = in '{' '.join(typed)}'" in said
    assert "nearest: model.depth=5" in said


def test_a_value_of_other_letters_is_told_in_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    said = answer(capsys, "train", "hydra.run.dir=läufe")
    nearest = shlex.split(said.split("nearest: ")[1])
    words = ("--cfg", "job", "--package", "seed")
    assert main(["train", *nearest, *words]) == 0


def test_an_override_with_an_empty_value_stays_one(tmp_path: Path) -> None:
    quick = ["train.steps=1", "model.width=4", "model.depth=1", "output.figures=false"]
    data = ["data=gaussian", "data.num_examples=200"]
    run = ["hydra.job.name=", "output.quiet=true", f"hydra.run.dir={tmp_path / 'run'}"]
    assert main(["train", *run, *quick, *data]) == 0


@pytest.mark.parametrize(
    ("sweep", "allowed"),
    [
        ("optimizer.lr=glob(*)", "glob is for the choices of a group: optimizer=glob(*)"),
        ("optimizer=glob(x*)", "a pattern of sgd, momentum"),
        ("seed=range(5,1)", "at least one value before STOP"),
        ("optimizer.lr=range(0.1,0.01,0.1)", "at least one value before STOP"),
        ("seed=range(1,5,0)", "at least one value before STOP"),
    ],
)
def test_a_sweep_over_no_value_is_refused_before_there_is_a_folder(
    sweep: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = answer(capsys, "train", "-m", sweep, "model.depth=1,2")
    assert said.startswith(f"error: {sweep}")
    assert allowed in said


def test_a_preset_that_sweeps_over_no_value_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    preset = tmp_path / "own" / "experiment" / "none.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n"
        "  sweeper:\n    params:\n      seed: range(5,1)\n"
    )
    argv = ["train", "--config-dir", str(tmp_path / "own"), "+experiment=none"]
    assert main([*argv, f"hydra.sweep.dir={tmp_path / 's'}"]) == 2
    assert "the sweep has no job" in capsys.readouterr().err


def test_a_glob_over_a_group_is_a_sweep_over_its_choices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["optimizer=glob(ada*)", "train.steps=1", "model.depth=1", "model.width=4"]
    assert main(["train", "-m", *argv, "data=gaussian", "data.num_examples=200"]) == 0
    assert "2 jobs, 0 failed" in capsys.readouterr().out


def test_an_override_in_the_place_of_a_verb_is_told_the_verb(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = answer(capsys, "+experiment=sigmoid_deep")
    assert "nearest: vgexp train +experiment=sigmoid_deep" in said


@pytest.mark.parametrize("given", ["layers.csv", None, {}, 3])
def test_diagnose_says_what_it_takes(given: object) -> None:
    with pytest.raises(
        QuestionError, match=r"diagnose was given a \w+\nallowed: a run, a probe, or a DataFrame"
    ):
        vgexp.diagnose(given)  # type: ignore[arg-type]


def test_names_of_figures_are_wrapped_between_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vgexp.report import figures

    names = list(figures.FIGURES)
    paths = [tmp_path / f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    monkeypatch.setattr(figures, "draw", lambda _: paths)
    show._draw(Console(width=80), tmp_path / "run")
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"Drawn in {tmp_path / 'run' / 'figures'}:"
    assert max(map(len, rest)) <= 80
    assert all(line.startswith("  ") for line in rest)
    assert " ".join(" ".join(rest).split()) == ", ".join(names)


@pytest.mark.parametrize("num", [1, 7, 10, 25])
def test_a_count_ends_with_the_last(
    num: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vgexp.report.terminal.live.SILENT_SECONDS", 0.0)
    tell = Counting("seed", num, is_quiet=False)
    for done in range(1, num + 1):
        tell(done)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"seed {num}/{num}"
    assert len(set(lines)) == len(lines) <= 11


def test_a_quiet_count_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vgexp.report.terminal.live.SILENT_SECONDS", 0.0)
    tell = Counting("seed", 2, is_quiet=True)
    tell(1)
    tell(2)
    assert not capsys.readouterr().err


def test_diagnose_still_takes_a_frame() -> None:
    rows = {"step": 0, "layer": [1, 2], "kind": "linear", "name": ["a", "b"], "delta_rms": [0.5, 1]}
    assert vgexp.diagnose(pd.DataFrame(rows)).first.attenuation == pytest.approx(0.5)
