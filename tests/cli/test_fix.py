"""`vgexp fix` from the command line: what it prints, what it composes, what it refuses.

Holds: cli/fix.py, cli/fix_page.py, diagnosis/commands.py
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import vgexp
from vgexp.cli.completion import candidates
from vgexp.cli.fix import rewrite
from vgexp.cli.fix_page import show
from vgexp.cli.main import main
from vgexp.config import Config, OutputConfig
from vgexp.diagnosis import Diagnosis, Finding, Remedy
from vgexp.diagnosis.commands import keep_words
from vgexp.errors import QuestionError
from vgexp.fixing import Cure
from vgexp.fixing.process import NO_OVERRIDE, UNDECIDED
from vgexp.fixing.trial import Trial
from vgexp.folders import write_config

SICK = [
    *("model.depth=1", "model.width=32", "optimizer=adam", "optimizer.lr=0", "train.steps=60"),
    *("data=spirals", "data.num_examples=300", "data.batch_size=32", "train.eval_every=0"),
]


@pytest.fixture(autouse=True)
def _without_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vgexp.fixing.process.draw_picture", lambda _: None)


@pytest.fixture(scope="module")
def cured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which a cure was found, and what was printed."""
    folder = tmp_path_factory.mktemp("fix") / "cured"
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context():
        printed: list[str] = []
        patch.setattr("vgexp.fixing.process.draw_picture", lambda _: None)
        patch.setattr("vgexp.cli.fix.print", lambda line, **_: printed.append(line), raising=False)
        patch.setattr(
            "vgexp.cli.screen.Screen", lambda: Console(width=80, highlight=False, record=True)
        )
        shown: list[Console] = []
        patch.setattr(
            "vgexp.cli.fix_page.show",
            lambda console, cure: (show(console, cure), shown.append(console)),
        )
        assert main(["fix", *SICK, "fix.seeds=2", f"hydra.run.dir={folder}"]) == 0
    return folder, "\n".join([*printed, shown[0].export_text()])


def test_it_ends_with_the_override_its_proof_and_the_command(cured: tuple[Path, str]) -> None:
    _, said = cured
    assert "Cause: no_update" in said
    assert "Cured by optimizer.lr=0.01" in said
    assert "Proof: 60 steps, seeds 0, 1 (mean ± std, geometric */)" in said
    assert "Cost: a step takes " in said
    words = " ".join(said.split())
    assert "Probes: the work of " in words
    assert (
        " steps of the sick run; 120 were allowed (fix.budget). Confirmation: 2 runs of 60" in words
    )
    assert "at least 50% as far below a guess's as the best one's" in words
    words = " ".join(word for word in SICK if word != "optimizer.lr=0")
    assert f"Type\n  vgexp train {words} optimizer.lr=0.01\n" in said


def test_what_it_prints_fits_the_terminal(cured: tuple[Path, str]) -> None:
    folder, said = cured
    free = ("  vgexp train", "Written to", "As it is: ")
    assert not [
        line for line in said.splitlines() if len(line) > 80 and not line.startswith(free)
    ], folder


def test_the_cured_run_is_what_its_command_gives(cured: tuple[Path, str]) -> None:
    folder, _ = cured
    told = json.loads((folder / "fix.json").read_text())
    assert told["command"].endswith("optimizer.lr=0.01")
    assert vgexp.load(folder / "after" / "0").config.optimizer.lr == 0.01


def test_a_run_is_taken_with_its_own_tables(
    cured: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = cured
    asked = ["fix", str(folder / "after" / "0"), f"hydra.run.dir={tmp_path / 'again'}"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert f"As it is: {folder / 'after' / '0'}" in said
    assert "It is healthy" in said
    assert not (tmp_path / "again" / "before").exists()


def test_another_configuration_in_its_folder_is_refused_and_changes_no_file(
    cured: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = cured
    written = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["fix", *SICK, "model.width=16", f"hydra.run.dir={folder}"]) == 2
    assert "holds a search for a cure of another" in " ".join(capsys.readouterr().err.split())
    run = str(folder / "before" / "0")
    assert main(["fix", run, "seed=3", f"hydra.run.dir={folder}"]) == 2
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == written


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["fix.keep=[optimizer.rl]"], "nearest: optimizer.lr"),
        (["-m", "seed=1,2"], "vgexp fix takes one configuration, and this is a sweep"),
        (["+experiment=spectral_radius"], "hydra.mode=RUN model.spectral_radius=0.5"),
        (["nowhere"], "nowhere is not there"),
        (["fix.seeds=0"], "fix.seeds is 0"),
        (["fix.kep=[seed]"], "nearest: keep"),
    ],
)
def test_a_wrong_question_is_one_readable_block(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["fix", *argv]) == 2
    block = capsys.readouterr().err
    assert block.startswith("error: ")
    assert said in " ".join(block.split())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_of_many_runs_or_a_run_beside_a_configuration_is_refused(
    cured: tuple[Path, str],
) -> None:
    folder, _ = cured
    with pytest.raises(QuestionError, match=r"vgexp fix .*after/0"):
        rewrite([str(folder)])
    with pytest.raises(QuestionError, match="one configuration at a time"):
        rewrite(["--config-dir", "a", "b"])
    run = str(folder / "after" / "0")
    assert rewrite([run, "seed=1"]) == [
        "--config-dir",
        run,
        "--config-name",
        "config",
        "seed=1",
    ]


def test_a_run_without_a_configuration_and_one_of_ones_own_loop_are_refused(
    cured: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, config, said in (
        ("bare", None, "bare has no config.yaml, so that nobody knows what was trained"),
        ("guest", "# verb: guest\n", "vgexp diagnose"),
        ("torn", "model: [", "config.yaml"),
    ):
        run = tmp_path / name
        shutil.copytree(cured[0] / "after" / "0", run)
        (run / "config.yaml").unlink()
        if config is not None:
            (run / "config.yaml").write_text(config)
        assert main(["fix", str(run), f"hydra.run.dir={tmp_path / 'out'}"]) == 2
        block = capsys.readouterr().err
        assert block.startswith("error: ")
        assert said in " ".join(block.split())
        assert not (tmp_path / "out").exists()


def test_one_key_to_keep_needs_no_brackets() -> None:
    assert rewrite(["fix.keep=model.skip"]) == ["fix.keep=[model.skip]"]
    assert rewrite(["+fix.keep=seed,optimizer.lr"]) == ["+fix.keep=[seed,optimizer.lr]"]
    as_they_are = ["fix.keep=[model]", "fix.keep=null", "fix.keep=", "fix.keep=${a}", "seed=1"]
    assert rewrite(as_they_are) == as_they_are


def test_words_typed_behind_a_run_replace_those_of_its_command(
    cured: tuple[Path, str], tmp_path: Path
) -> None:
    run = cured[0] / "before" / "0"
    asked = ["train.steps=50", "fix.seeds=1", "fix.keep=model", f"hydra.run.dir={tmp_path / 'a'}"]
    assert main(["fix", str(run), "output.quiet=true", *asked]) == 0
    told = json.loads((tmp_path / "a" / "fix.json").read_text())["command"].split()
    assert [word for word in told if word.startswith("train.steps=")] == ["train.steps=50"]
    keys = [word.partition("=")[0] for word in told]
    assert len(keys) == len(set(keys))


def test_only_the_run_itself_is_replaced_and_not_the_value_of_a_flag(
    cured: tuple[Path, str],
) -> None:
    run = str(cured[0] / "after" / "0")
    flags = rewrite([run])
    assert rewrite(["--package", run, "seed=1", run]) == [*flags, "--package", run, "seed=1"]
    assert rewrite([run, "--package", run]) == [*flags, "--package", run]


def test_the_run_may_be_quiet_and_the_search_is_not(
    cured: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "quiet"
    shutil.copytree(cured[0] / "after" / "0", run)
    config = vgexp.load(run).config
    write_config(run, replace(config, output=OutputConfig(quiet=True)), "")
    assert main(["fix", str(run), f"hydra.run.dir={tmp_path / 'fix'}"]) == 0
    assert "It is healthy" in capsys.readouterr().out
    asked = ["fix", str(run), "output.quiet=true", f"hydra.run.dir={tmp_path / 'silent'}"]
    assert main(asked) == 0
    assert capsys.readouterr().out == ""


def test_words_of_keys_that_a_choice_does_not_have_are_left_out() -> None:
    words = ["+experiment=a", "model=rnn", "model.activation=relu", "model.width=8", "seed=1"]
    assert keep_words(words, ["model=lstm", "seed=2"]) == ["+experiment=a", "model.width=8"]
    assert keep_words(words, ["model.width=4"]) == [w for w in words if w != "model.width=8"]
    assert keep_words(["vgexp", "~clip", "optimizer.momentum=0.9"], ["optimizer=adam"]) == [
        "vgexp",
        "~clip",
    ]
    assert keep_words(["~clip.threshold", "seed=1"], ["clip=value"]) == [
        "~clip.threshold",
        "seed=1",
    ]
    assert keep_words(["~clip.threshold", "seed=1"], ["clip=none"]) == ["seed=1"]


def test_help_and_completion_know_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "fix [overrides] | RUN" in capsys.readouterr().out
    assert main(["fix", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("vgexp fix [flags] [overrides]")
    assert "fix.keep=[]" in said
    assert candidates("vgexp fi") == ["fix"]


def trial(**changes: object) -> Trial:
    values = {
        "folder": Path("run"), "seed": 0, "steps": 60, "made": 60, "status": "completed",
        "verdict": "stalled", "health": "sick", "cause": "graph_cut", "loss": math.nan,
        "constant_loss": 1.0, "val_accuracy": 0.5, "attenuation_first": 1.0,
        "attenuation": 1.0, "seconds_per_step": 1.0,
        "num_parameters": 10, **changes,
    }  # fmt: skip
    return Trial(**values)  # type: ignore[arg-type]


def page_of(cure: Cure) -> str:
    console = Console(width=80, highlight=False, record=True, quiet=False)
    show(console, cure)
    return console.export_text()


def test_a_cause_of_the_code_is_said_with_what_to_change(tmp_path: Path) -> None:
    remedy = Remedy("Take detach out.", "A gradient needs a graph.", code="h = encoder(x)")
    finding = Finding("graph_cut", "Layers get no gradient.", kind="sickness", remedies=(remedy,))
    diagnosis = Diagnosis(0, 1, None, None, "", (finding,), {}, "sick", "graph_cut")
    said = page_of(Cure(tmp_path, Config(), NO_OVERRIDE, diagnosis, before=[trial()]))
    assert "No override touches this cause.\nCause: graph_cut. Layers get no gradient." in said
    assert "In code\n  Take detach out. A gradient needs a graph.\n    h = encoder(x)\n" in said


def test_a_run_too_short_is_said_to_be_so(tmp_path: Path) -> None:
    said = page_of(Cure(tmp_path, Config(), UNDECIDED, before=[trial(made=20)], full=20))
    assert "Undecided: the run was too short to tell." in said
    assert "train.steps=400" in said
