"""`vgexp train`: overrides, presets, exit codes, sweeps. The work itself is a stub.

Holds: cli/hydra_entry.py, cli/callback.py, cli/hydra_errors.py, cli/hydra_messages.py, cli/job.py,
cli/launcher.py, cli/logs.py, cli/overrides.py, cli/schema.py, cli/session.py, errors.py
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from rich.cells import cell_len

from vgexp import config as configuration
from vgexp import folders, runs, sweep
from vgexp.cli import hydra_errors, progress, schema
from vgexp.cli.actions import WORKS
from vgexp.cli.job import Job
from vgexp.cli.listing import find_configs
from vgexp.cli.main import main
from vgexp.config import Config, MlpConfig
from vgexp.errors import QuestionError

Calls = list[tuple[Config, Path, str]]
SUMMARY = {"status": "completed", "verdict": "healthy", "loss_last": 0.5, "versions": {"a": "1"}}

MEDLEY = """\
# @package _global_
# vgexp train +experiment=medley
# several cures together
defaults:
  - override /optimizer: momentum
model:
  depth: 9
optimizer:
  momentum: 0.5
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      model.norm: none,batch
"""
PLAIN = MEDLEY[: MEDLEY.index("hydra:")]


displays: list[runs.Display] = []


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """The runs that were asked for; an activation that is no activation misbehaves."""
    made: Calls = []

    def begin(_: object, config: Config, folder: Path, command: str, display: runs.Display) -> Any:
        made.append((config, folder, command))
        displays.append(display)
        folders.require_free(folder)
        (folder / "layers.csv").write_text("step\n")
        activation = getattr(config.model, "activation", "")
        if activation == "sigmod":
            (folder / "layers.csv").unlink()
            raise QuestionError("unknown activation: 'sigmod'\nallowed: sigmoid")
        misfortune = MISFORTUNES.get(activation)
        if misfortune:
            (folder / "summary.json").write_text('{"status": "interrupted", "loss_last": 0.7}')
            misfortune()
        (folder / "summary.json").write_text(json.dumps(SUMMARY))
        return SimpleNamespace(folder=folder, summary=SUMMARY)

    displays.clear()
    monkeypatch.setattr("vgexp.runs.making._begin", begin)
    training = dataclasses.replace(WORKS["train"], close=lambda _: None)
    monkeypatch.setitem(WORKS, "train", training)
    monkeypatch.chdir(tmp_path)
    return made


def out_of_memory() -> None:
    raise RuntimeError("CUDA out of memory")


def disk_full() -> None:
    raise OSError(28, "No space left on device")


def ctrl_c() -> None:
    raise KeyboardInterrupt


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def sighup() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


MISFORTUNES: dict[str, Callable[[], None]] = {
    "oom": out_of_memory,
    "full": disk_full,
    "ctrl_c": ctrl_c,
    "sigterm": sigterm,
    "sighup": sighup,
}


def train(*argv: str) -> int:
    return main(["train", *argv])


def preset_folder(tmp_path: Path, **presets: str) -> str:
    folder = tmp_path / "mine"
    (folder / "experiment").mkdir(parents=True)
    for name, text in presets.items():
        (folder / "experiment" / f"{name}.yaml").write_text(text)
    return str(folder)


def only(folder: Path) -> Path:
    (child,) = folder.iterdir()
    return child


# ---------------------------------------------------------------- one run


def test_the_default_is_the_dataclasses_default(calls: Calls) -> None:
    assert train() == 0
    ((config, folder, command),) = calls
    assert config == Config()
    assert command == "vgexp train"
    assert folder.parent == Path("outputs/train/mlp")


def test_nothing_is_printed_by_the_door(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    assert capsys.readouterr() == ("", "")
    assert len(calls) == 1


@pytest.mark.parametrize("group", configuration.CHOICES)
def test_every_choice_of_every_group_composes_to_its_own_defaults(group: str, calls: Calls) -> None:
    for name, cls in configuration.CHOICES[group].items():
        assert train(f"{group}={name}") == 0
        chosen = getattr(calls[-1][0], group)
        assert type(chosen) is cls
        assert chosen == cls()


@pytest.mark.parametrize("spelling", ["experiment=sigmoid_deep", "+experiment=sigmoid_deep"])
def test_both_spellings_of_experiment_work(spelling: str, calls: Calls) -> None:
    assert train(spelling, "model.depth=7", "optimizer=adam") == 0
    ((config, folder, command),) = calls
    assert configuration.flatten(config)["model.activation"] == "sigmoid"
    assert configuration.flatten(config)["model.depth"] == 7
    assert configuration.choices(config)["optimizer"] == "adam"
    assert folder.parent == Path("outputs/train/sigmoid_deep")
    assert command == f"vgexp train {spelling} model.depth=7 optimizer=adam"


@pytest.mark.parametrize("spelling", ["experiment=sigmoid_deep", "+experiment=sigmoid_deep"])
def test_the_users_own_preset_goes_before_one_of_ours_of_that_name(
    spelling: str, calls: Calls, tmp_path: Path
) -> None:
    mine = preset_folder(tmp_path, sigmoid_deep=PLAIN)
    assert train(spelling, "--config-dir", mine) == 0
    assert train("--config-dir", Path(mine).name, spelling) == 0
    for config, _, _ in calls:
        assert configuration.flatten(config)["model.depth"] == 9
        assert configuration.choices(config)["optimizer"] == "momentum"
    assert train("+experiment=relu_he", "--config-dir", mine) == 0
    assert configuration.flatten(calls[-1][0])["model.init"] == "he_normal"


def test_the_users_own_sweep_goes_before_one_of_ours_of_that_name(
    calls: Calls, tmp_path: Path
) -> None:
    mine = preset_folder(tmp_path, sigmoid_deep=MEDLEY, arsenal=PLAIN)
    assert train("+experiment=sigmoid_deep", "--config-dir", mine) == 0
    assert [configuration.flatten(c)["model.norm"] for c, _, _ in calls] == ["none", "batch"]
    assert train("+experiment=arsenal", "--config-dir", mine, "model.norm=layer") == 0
    assert len(calls) == 3


def test_the_users_own_primary_config_goes_before_ours(calls: Calls, tmp_path: Path) -> None:
    mine = preset_folder(tmp_path)
    groups = "".join(
        f"  - {group}: {name}\n" for group, name in configuration.choices(Config()).items()
    )
    text = f"defaults:\n  - schema\n{groups}  - experiment: relu_he\n  - _self_\nseed: 7\n"
    (Path(mine) / "vgexp.yaml").write_text(text)
    assert train("--config-dir", mine) == 0
    assert train("--config-dir", mine, "experiment=sigmoid_deep") == 0
    assert [c.seed for c, _, _ in calls] == [7, 7]
    activations = [configuration.flatten(c)["model.activation"] for c, _, _ in calls]
    assert activations == ["relu", "sigmoid"]


def test_experiment_null_is_no_experiment(calls: Calls) -> None:
    assert train("experiment=null") == 0
    assert calls[0][0] == Config()


def test_flags_and_overrides_mix_in_any_order(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("model.depth=3", "--cfg", "job", "seed=4", "-p", "seed") == 0
    assert capsys.readouterr().out == "4\n"
    assert not calls


def test_help_shows_keys_and_flags_and_runs_nothing(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in ("--help", "-h"):
        assert train(flag) == 0
        shown = capsys.readouterr().out
        assert "--multirun" in shown
        assert "\nmodel.negative_slope=null  " in shown
        assert all(path.stem in shown for path in find_configs().glob("experiment/*.yaml"))
        assert max(map(len, shown.splitlines())) <= 80
    assert not calls


@pytest.mark.parametrize("flags", [["--info", "defaults"], ["--hydra-help"], ["--cfg", "all"]])
def test_hydras_own_flags_answer(
    flags: list[str], calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*flags) == 0
    assert capsys.readouterr().out
    assert not calls


def test_train_epochs_does_not_meet_the_default_number_of_steps(calls: Calls) -> None:
    assert train("train.epochs=3") == 0
    assert (calls[0][0].train.steps, calls[0][0].train.epochs) == (None, 3)


def test_two_runs_of_one_second_have_folders_of_their_own(calls: Calls) -> None:
    assert train() == train() == 0
    assert calls[0][1] != calls[1][1]


def test_logs_go_to_the_run_folder_and_handlers_are_given_back(calls: Calls) -> None:
    import logging

    before = list(logging.getLogger().handlers)
    assert train("hydra.run.dir=here") == 0
    assert logging.getLogger().handlers == before
    assert Path("here/train.log").is_file()
    assert len(calls) == 1


# ---------------------------------------------------------------- a run's own configuration


def recorded(tmp_path: Path) -> Path:
    config = Config(model=configuration.MlpConfig(depth=3), optimizer=configuration.AdamConfig())
    folder = tmp_path / "recorded"
    folder.mkdir()
    folders.write_config(folder, config, "vgexp train ...")
    return folder


def test_a_runs_configuration_repeats_it_with_the_schema_kept(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["--config-dir", str(recorded(tmp_path)), "--config-name", "config"]
    assert train(*again) == 0
    config, folder, _ = calls[0]
    assert configuration.flatten(config)["model.depth"] == 3
    assert configuration.choices(config)["optimizer"] == "adam"
    assert folder.parent == Path("outputs/train/mlp")
    assert train(*again, "model.depth=5") == 0
    assert configuration.flatten(calls[1][0])["model.depth"] == 5
    assert train(*again, "model.dpth=5") == 2
    assert "nearest: depth" in capsys.readouterr().err


def test_a_changed_value_in_a_runs_configuration_counts(calls: Calls, tmp_path: Path) -> None:
    folder = recorded(tmp_path)
    values = yaml.safe_load((folder / "config.yaml").read_text())
    values["model"]["width"] = 17
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    assert train("--config-dir", str(folder), "--config-name", "config") == 0
    assert configuration.flatten(calls[0][0])["model.width"] == 17


def test_another_choice_behind_a_runs_configuration_leaves_out_the_keys_it_lacks(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rnn"
    folder.mkdir()
    model = configuration.RnnConfig(activation="relu", width=9)
    data = configuration.CopyConfig()
    folders.write_config(folder, Config(model=model, data=data), "")
    again = ["--config-dir", str(folder), "--config-name", "config"]
    assert train(*again, "model=lstm", "model.forget_bias=2") == 0
    made = calls[0][0].model
    assert made == configuration.LstmConfig(width=9, forget_bias=2)
    assert train(*again, "optimizer=adam") == 0
    assert calls[1][0].model == model
    assert train("-m", *again, "model=lstm,gru,rnn") == 0
    assert [configuration.choices(call[0])["model"] for call in calls[2:]] == ["lstm", "gru", "rnn"]
    assert calls[-1][0].model == model
    # What nobody's choice has, or somebody typed, is still refused.
    assert train(*again, "model=lstm", "model.activation=relu") == 2
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("activation:", "activatoin:", 1))
    assert train(*again, "model=lstm") == 2
    assert "unknown key of model: 'activatoin'" in capsys.readouterr().err


@pytest.mark.parametrize("spelling", ["experiment", "+experiment"])
@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_both_spellings_work_on_a_runs_configuration(
    spelling: str, mode: list[str], calls: Calls, tmp_path: Path
) -> None:
    again = ["--config-dir", str(recorded(tmp_path)), "--config-name", "config"]
    assert train(*mode, *again, f"{spelling}=sigmoid_deep") == 0
    config, folder, _ = calls[0]
    assert configuration.flatten(config)["model.depth"] == 20
    assert configuration.choices(config)["optimizer"] == "adam"
    assert "sigmoid_deep" in folder.parts


# ---------------------------------------------------------------- wrong questions


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["model.dpth=5"], "unknown key of model: 'dpth' * nearest: depth"),
        (["+model.dpth=5"], "unknown key of model: 'dpth' * nearest: depth"),
        (["+sed=5"], "unknown key: 'sed' * nearest: seed"),
        (["modle.depth=5"], "unknown key: 'modle' * nearest: model"),
        (["depth=3"], "unknown key: 'depth' * nearest: model.depth"),
        (["detph=3"], "unknown key: 'detph' * nearest: model.depth"),
        (["+depth=3"], "unknown key: 'depth' * nearest: model.depth"),
        (["-m", "depth=3,5"], "unknown key: 'depth' * nearest: model.depth"),
        (["threshold=1"], "unknown key: 'threshold' * nearest: clip.threshold"),
        (["layers=1"], "unknown key: 'layers' * nearest: probe.layers"),
        (["train.depth=3"], "unknown key of train: 'depth' * nearest: model.depth"),
        (["sede=3"], "unknown key: 'sede' * nearest: seed"),
        (
            ["clip.threshold=1"],
            "allowed: none, since the chosen clip has no keys"
            " threshold is a key of: norm, value, layer, agc, auto",
        ),
        (["clip.foo=1"], "unknown key of clip: 'foo' allowed: none, since the chosen clip has no"),
        (["train.steps=1e3"], "allowed: a whole number, or null nearest: 1000"),
        (["optimizer=sdg"], "unknown optimizer: 'sdg' * nearest: sgd"),
        (["+experiment=sigmoid_dep"], "unknown experiment: * nearest: sigmoid_deep"),
        (["experiment=sigmoid_dep"], "unknown experiment: * nearest: sigmoid_deep"),
        (["hydra/launcher=foo"], "unknown hydra/launcher: 'foo' * allowed: basic"),
        (["hydra.run.dri=x"], "nearest: dir"),
        (["model.depth=abc"], "model.depth is 'abc' * allowed: a whole number"),
        (["train.steps=1.5"], "train.steps is 1.5 * allowed: a whole number, or null"),
        (["model.bias=maybe"], "model.bias is 'maybe' * allowed: true or false"),
        (["model.depth=0"], "model.depth is 0 * allowed: a whole number of at least 1"),
        (["optimizer.lr=-1"], "optimizer.lr is -1.0"),
        (["clip=norm", "clip.threshold=0"], "clip.threshold is 0.0"),
        (["model.activation=sigmod"], "unknown activation: 'sigmod'"),
        (["+model.depth=5"], "model.depth is a key already"),
        (["model.depth"], "cannot read the override 'model.depth' missing EQUAL"),
        (["model.depth=[1"], "cannot read the override 'model.depth=[1'"),
        (["model.depth=1,2"], "model.depth=1,2 is several values * vgexp train -m"),
        (["model.depth=range(1,3)"], "is several values"),
        (["~model"], "model is missing"),
        (["model.depth=null"], "model.depth is null * allowed: a whole number"),
        (["optimizer.lr=inf"], "optimizer.lr is inf * allowed: a finite number of at least 0.0"),
        (["optimizer.lr=true"], "optimizer.lr is true"),
        (["dtype=float8"], "dtype is 'float8' * allowed: float32, float64, bfloat16, float16"),
        (["learning_rate=1"], "unknown key: 'learning_rate' * nearest: optimizer.lr"),
        (["optimizer.learning_rate=1"], "of optimizer: 'learning_rate' * nearest: optimizer.lr"),
        (["sigmoid_deep"], "cannot read * nearest: +experiment=sigmoid_deep"),
        (["sigmoid_dep"], "cannot read * nearest: +experiment=sigmoid_deep"),
        (["adam"], "cannot read * nearest: optimizer=adam"),
        (["+optimizer=adam"], "optimizer is chosen already * without + * choices: sgd, momentum"),
        (["+model=mlp"], "model is chosen already * without + * choices: mlp"),
        (["optimizer=[adam,sgd]"], "optimizer is several choices at once * choices: sgd"),
        (["model@x=mlp"], "there is no model@x to override * nearest: model"),
        (["--config-name", "vgxp"], "no configuration file 'vgxp' * allowed: vgexp nearest: vgexp"),
        (["--config-name", "confg"], "vgexp train --config-dir RUN --config-name config"),
        (["model=5"], "unknown model: '5' * allowed: "),
        (["experiment=5"], "experiment is 5 * vgexp list experiments"),
        (["hydra.sweep.dir=x"], "not where a single run goes * allowed: hydra.run.dir=x"),
        (["-m", "seed=1,2", "hydra.run.dir=x"], "a sweep goes * allowed: hydra.sweep.dir=x"),
        (["+experiment=adam_rescue", "hydra.run.dir=x"], "allowed: hydra.sweep.dir=x"),
        (["--config-dir", "/nowhere"], "'/nowhere' not found"),
        (["--config-dir"], "--config-dir/-cd: expected one argument"),
        (["--config-name", "nope"], "no configuration file 'nope'"),
        (["--cnfig-dir", "x"], "unknown flag: '--cnfig-dir' * nearest: --config-dir"),
        (["--cfg", "jobs"], "invalid choice: 'jobs'"),
        (["-m", "--cfg", "job"], "Only one of"),
        (["--experimental-rerun", "x"], "is not supported"),
        (["-m", "model.depth=5,abc"], "model.depth is 'abc'"),
        (["-m", "experiment=sigmoid_deep,nope"], "unknown experiment: 'nope'"),
    ],
)
def test_a_wrong_question_is_one_readable_block(
    argv: list[str], said: str, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*argv) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert shown.startswith("error: ")
    assert max(map(len, shown.splitlines())) <= 80
    words = " ".join(shown.split())
    assert all(part in words for part in said.split(" * ")), shown
    assert not list(Path().glob("outputs/train/*/*")), "a wrong question leaves nothing behind"
    assert len(calls) <= 1


def test_the_users_own_full_error_shows_the_traceback(
    calls: Calls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "HYDRA_FULL_ERROR" not in os.environ
    assert train("model.dpth=5") == 2
    assert "HYDRA_FULL_ERROR" not in os.environ, "set for Hydra only, and taken back"
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert train("model.dpth=5") == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "error: unknown key of model: 'dpth'" in shown
    assert not calls


def test_a_preset_with_a_mistake_is_named(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = "# @package _global_\nmodel:\n"
    mine = preset_folder(tmp_path, key=head + "  dpth: 9\n", kind=head + "  depth: x\n", cut="a: [")
    for name, said in (("key", "nearest: depth"), ("kind", "model.depth is 'x'")):
        assert train(f"+experiment={name}", "--config-dir", mine) == 2
        shown = capsys.readouterr().err
        assert said in shown
        assert f"asked by: experiment/{name}" in shown
    assert train("+experiment=cut", "--config-dir", mine) == 2
    assert "a configuration file cannot be read" in capsys.readouterr().err
    assert not calls


def test_a_preset_without_its_first_line_is_told_that_it_lacks_it(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = preset_folder(tmp_path, bare="model:\n  depth: 3\n")
    assert train("+experiment=bare", "--config-dir", mine) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "experiment/bare.yaml does not begin with # @package _global_ allowed:" in said
    assert not calls


def test_a_preset_that_chooses_without_override_is_told_how(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = preset_folder(tmp_path, bold=MEDLEY.replace("override /", "/"))
    assert train("+experiment=bold", "--config-dir", mine) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "optimizer is chosen already" in said
    assert "in a preset's defaults list: - override /optimizer: CHOICE" in said
    assert not calls


@pytest.mark.parametrize("words", [["model=5"], ["clip=null"], ["experiment=5"]])
def test_a_group_takes_names_only(
    words: list[str], calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*words) == 2
    said = capsys.readouterr().err
    assert "allowed:" in said
    assert "must be a string or a list" not in said
    assert not calls


def test_a_misspelt_primary_config_is_looked_for_in_the_users_folder_too(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("defaults: [schema]\n")
    assert train("--config-dir", "mine", "--config-name", "cofig") == 2
    assert "allowed: config, vgexp\n  nearest: config\n" in capsys.readouterr().err
    assert not calls


@pytest.mark.parametrize("below", ["", "/sub"])
@pytest.mark.parametrize("mode", [["hydra.run.dir={}"], ["-m", "hydra.sweep.dir={}", "seed=1,2"]])
def test_a_run_folder_that_is_a_file_is_refused(
    mode: list[str], below: str, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("mine")
    assert train(*(word.format(f"file{below}") for word in mode)) == 2
    assert "file is a file" in capsys.readouterr().err
    assert Path("file").read_text() == "mine"
    assert not calls


def test_a_folder_with_a_run_is_refused_and_nothing_is_overwritten(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("hydra.run.dir=here") == 0
    before = {path: path.read_bytes() for path in Path("here").rglob("*") if path.is_file()}
    assert train("hydra.run.dir=here", "model.depth=3") == 2
    assert "holds a run already" in capsys.readouterr().err
    after = {path: path.read_bytes() for path in Path("here").rglob("*") if path.is_file()}
    assert after == before
    assert len(calls) == 1


# ---------------------------------------------------------------- work that fails


@pytest.mark.parametrize(
    ("activation", "said"),
    [("oom", "RuntimeError: CUDA out of memory"), ("full", "[Errno 28] No space left on device")],
)
def test_failed_work_is_exit_code_1_with_the_traceback_in_the_log(
    activation: str, said: str, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(f"model.activation={activation}", "hydra.run.dir=here") == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert "here/train.log" in shown
    assert "Traceback" not in shown
    assert "Traceback" in Path("here/train.log").read_text()
    assert json.loads(Path("here/summary.json").read_text())["status"] == "failed"
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("activation", "code"), [("ctrl_c", 130), ("sigterm", 143), ("sighup", 129)]
)
def test_an_interrupted_run_says_what_was_saved(
    activation: str, code: int, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(f"model.activation={activation}", "hydra.run.dir=here") == code
    assert "saved in here: layers.csv, summary.json" in capsys.readouterr().err
    assert len(calls) == 1


# ---------------------------------------------------------------- sweeps


def test_a_sweep_runs_every_combination_quietly_and_tells_each(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("-m", "model.depth=5,6", "seed=1,2", "hydra.sweep.dir=s") == 0
    asked = [(configuration.flatten(c)["model.depth"], c.seed) for c, _, _ in calls]
    assert asked == [(5, 1), (5, 2), (6, 1), (6, 2)]
    assert displays == [runs.Display(is_quiet=True, draws=False, remarks=False)] * 4
    # What is shown now is no part of what a job is.
    assert all(config.output == configuration.OutputConfig() for config, _, _ in calls)
    assert [folder for _, folder, _ in calls] == [Path(f"s/{i}") for i in range(4)]
    assert calls[3][2] == "vgexp train model.depth=6 seed=2"
    rows = sweep.read(Path("s"))
    assert rows[2] == {
        "job": "2",
        "status": "completed",
        "model.depth": "6",
        "seed": "1",
        "verdict": "healthy",
        "loss_last": "0.5",
        "reason": "",
    }
    assert list(rows[0]) == list(rows[2])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "#1  model.depth=5 seed=2  healthy"
    assert lines[-2:] == ["4 jobs, 0 failed: s/sweep.csv", "vgexp compare s"]


LONG = ["train.steps=40", "data=gaussian", "model.init=xavier_normal", "optimizer.lr=0.01"]


@pytest.mark.usefixtures("calls")
def test_a_job_too_wide_for_the_terminal_shows_what_is_swept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = [*LONG[:2], "model.activation=relu,oom", *LONG[2:], "model.depth=5,0"]
    assert train("-m", *words, "hydra.sweep.dir=s") == 1
    lines = capsys.readouterr().out.splitlines()[:4]
    assert lines == [
        "#0  ... model.activation=relu ... model.depth=5  healthy",
        "#1  ... activation=relu ... depth=0  failed: model.depth is 0; allowed: a who...",
        "#2  ... activation=oom ... depth=5  failed: RuntimeError: CUDA out of memory",
        "#3  ... activation=oom ... depth=0  failed: model.depth is 0; allowed: a whol...",
    ]
    assert sweep.read(Path("s"))[1]["reason"].endswith("a whole number of at least 1")
    assert sweep.read(Path("s"))[1]["model.init"] == "xavier_normal"


@pytest.mark.parametrize("width", [10, 40, 80, 200])
@pytest.mark.parametrize("swept", [(), ("a", "model.kind"), ("seed",)])
@pytest.mark.parametrize("reason", ["", "nothing " * 20, "漢字" * 30])
def test_a_line_of_a_job_is_never_wider_than_the_terminal(
    width: int, swept: tuple[str, ...], reason: str
) -> None:
    row = sweep.JobRow(7, "failed", reason=reason)
    for typed in ([], ["a=1", "seed=2"], ["a=" + "x" * 300, "model.kind=" + "漢字" * 30, "b=1"]):
        line = progress.format_line(row, typed, swept, width)
        assert line.startswith("#7  ")
        assert cell_len(line) <= width
    assert progress.format_line(row, ["a=1", "seed=2"], swept, 1000).startswith(
        "#7  a=1 seed=2  failed"
    )


@pytest.mark.usefixtures("calls")
def test_a_preset_that_is_a_sweep_has_swept_keys_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    mine = preset_folder(tmp_path, medley=MEDLEY)
    assert train("+experiment=medley", *LONG[:3], "--config-dir", mine) == 0
    assert capsys.readouterr().out.splitlines()[1] == "#1  model.norm=batch ...  healthy"


def test_a_failed_job_is_a_row_and_the_others_run(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model.activation=relu,sigmod,oom", "model.depth=5,0", "hydra.sweep.dir=s"]
    assert train("-m", *words) == 1
    rows = {row["job"]: row for row in sweep.read(Path("s"))}
    assert {job: row["status"] for job, row in rows.items()} == {
        "0": "completed",
        **dict.fromkeys("12345", "failed"),
    }
    assert rows["1"]["reason"] == "model.depth is 0; allowed: a whole number of at least 1"
    assert rows["2"]["reason"] == "unknown activation: 'sigmod'; allowed: sigmoid"
    assert rows["4"]["reason"] == "RuntimeError: CUDA out of memory"
    for job in "12345":
        assert "Traceback" in Path(f"s/{job}/train.log").read_text()
        summary = json.loads(Path(f"s/{job}/summary.json").read_text())
        assert (summary["status"], summary["reason"]) == ("failed", rows[job]["reason"])
    shown = capsys.readouterr()
    assert "error: 5 of 6 jobs failed: 1, 2, 3, 4, 5" in shown.err
    assert "Traceback" not in shown.err
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("activation", "code"), [("ctrl_c", 130), ("sigterm", 143), ("sighup", 129)]
)
def test_an_interrupted_sweep_keeps_its_rows_and_ends(
    activation: str, code: int, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("-m", f"model.activation=relu,{activation},tanh", "hydra.sweep.dir=s") == code
    rows = sweep.read(Path("s"))
    assert [row["status"] for row in rows] == ["completed", "interrupted"]
    assert rows[1]["loss_last"] == "0.7"
    assert "saved in s: sweep.csv" in capsys.readouterr().err
    assert len(calls) == 2


def test_a_row_that_could_not_be_written_comes_with_the_next(
    calls: Calls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, tries = sweep.record, []

    def full_once(folder: Path, rows: Any, keys: Any) -> None:
        tries.append(len(rows))
        if len(tries) == 1:
            raise OSError(28, "No space left on device")
        record(folder, rows, keys)

    monkeypatch.setattr(sweep, "record", full_once)
    assert train("-m", "seed=1,2", "hydra.sweep.dir=s") == 1
    assert tries == [1, 2]
    assert [row["job"] for row in sweep.read(Path("s"))] == ["0", "1"]
    assert "No space left" in capsys.readouterr().err
    assert len(calls) == 2


def test_a_second_sweep_into_the_same_folder_adds_its_jobs(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("-m", "seed=1,2", "hydra.sweep.dir=s") == 0
    before = {path: path.read_bytes() for path in Path("s").glob("?/**/*") if path.is_file()}
    assert train("-m", "seed=2,3", "hydra.sweep.dir=s") == 0
    assert (
        "going on with s: 1 of 2 jobs has ended, 1 to do, 1 of these new" in capsys.readouterr().out
    )
    assert [(config.seed, folder) for config, folder, _ in calls] == [
        (1, Path("s/0")),
        (2, Path("s/1")),
        (3, Path("s/2")),
    ]
    assert (
        before.items() <= {p: p.read_bytes() for p in Path("s").rglob("*") if p.is_file()}.items()
    )
    assert [row["seed"] for row in sweep.read(Path("s"))] == ["1", "2", "3"]


def test_a_sweep_of_another_program_is_left_alone(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s").mkdir()
    Path("s/multirun.yaml").write_text("hydra: {}")
    assert train("-m", "seed=3,4", "hydra.sweep.dir=s") == 2
    assert "holds a sweep that is not vgexp's" in capsys.readouterr().err
    assert [path.name for path in Path("s").iterdir()] == ["multirun.yaml"]
    assert not calls


def test_two_sweeps_of_one_second_do_not_meet(calls: Calls) -> None:
    assert train("-m", "seed=1") == train("-m", "seed=1") == 0
    assert calls[0][1].parent != calls[1][1].parent
    assert calls[0][1].parent.parent == Path("outputs/train/mlp")


def test_keys_of_a_swept_group_are_keys_of_its_jobs(calls: Calls) -> None:
    assert train("-m", "clip=norm,value", "clip.threshold=2", "hydra.sweep.dir=s") == 0
    flat = [configuration.flatten(config) for config, _, _ in calls]
    assert [(f["clip"], f["clip.threshold"]) for f in flat] == [("norm", 2.0), ("value", 2.0)]
    assert [row["clip.threshold"] for row in sweep.read(Path("s"))] == ["2", "2"]


@pytest.mark.parametrize("spelling", ["experiment", "+experiment"])
def test_experiment_itself_can_be_swept(spelling: str, calls: Calls, tmp_path: Path) -> None:
    mine = preset_folder(tmp_path, plain=PLAIN, other=PLAIN.replace("depth: 9", "depth: 4"))
    words = [f"{spelling}=plain,other", "optimizer.momentum=0.25"]
    assert train("-m", *words, "--config-dir", mine) == 0
    flat = [configuration.flatten(config) for config, _, _ in calls]
    assert [(f["model.depth"], f["optimizer"]) for f in flat] == [(9, "momentum"), (4, "momentum")]
    assert [f["optimizer.momentum"] for f in flat] == [0.25, 0.25]
    assert calls[0][1].parent == calls[1][1].parent, "the jobs of one sweep share its folder"
    assert calls[1][2].endswith("experiment=other optimizer.momentum=0.25")


@pytest.mark.parametrize("mode", [[], ["-m"]])
@pytest.mark.parametrize("spelling", ["experiment", "+experiment"])
def test_a_preset_can_be_a_sweep(
    spelling: str, mode: list[str], calls: Calls, tmp_path: Path
) -> None:
    mine = preset_folder(tmp_path, medley=MEDLEY)
    assert train(*mode, f"{spelling}=medley", "seed=3", "--config-dir", mine) == 0
    flat = [configuration.flatten(config) for config, _, _ in calls]
    assert [(f["model.norm"], f["seed"]) for f in flat] == [("none", 3), ("batch", 3)]
    folder = only(Path("outputs/train/medley"))
    assert [row["model.norm"] for row in sweep.read(folder)] == ["none", "batch"]


def test_the_command_of_a_presets_job_repeats_that_job_only(calls: Calls, tmp_path: Path) -> None:
    mine = preset_folder(tmp_path, medley=MEDLEY)
    assert train("+experiment=medley", "--config-dir", mine) == 0
    assert main(calls[1][2].split()[1:]) == 0
    assert len(calls) == 3
    assert configuration.identity(calls[2][0]) == configuration.identity(calls[1][0])
    assert not list(calls[2][1].parent.glob("sweep.csv"))


def test_a_job_works_in_a_launchers_other_process() -> None:
    schema.register(WORKS["train"])
    OmegaConf.clear_resolver("vgexp_label")
    sent = pickle.loads(pickle.dumps(Job("train", "vgexp train", ["--config-name", "config"])))
    assert sent.flags == ["--config-name", "config"]
    assert OmegaConf.has_resolver("vgexp_label")


def test_a_sweep_of_sweeps_is_refused(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = preset_folder(tmp_path, medley=MEDLEY, plain=PLAIN)
    assert train("-m", "experiment=medley,plain", "--config-dir", mine) == 2
    assert "medley is a sweep itself" in capsys.readouterr().err
    assert not calls


def test_a_key_that_several_groups_have_is_found_in_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choices = {"model": {"mlp": MlpConfig}, "scheduler": {"deep": MlpConfig}}
    monkeypatch.setattr(hydra_errors, "CHOICES", choices)
    said = str(hydra_errors.unknown_key("", "depht", ["seed"]))
    assert said.endswith("nearest: model.depth, scheduler.depth")
