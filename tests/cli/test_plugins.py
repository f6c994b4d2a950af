"""Sweeps through launchers and sweepers of other packages.

Holds: cli/plugins.py, cli/launcher.py
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal.core_plugins import basic_launcher
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn

from vgexp import sweep
from vgexp.cli import plugins, schema
from vgexp.cli.actions import WORKS
from vgexp.cli.main import main

SMALL = ("data=gaussian", "data.num_examples=128", "data.batch_size=16", "train.steps=3")
GRID = (*SMALL, "model.width=8", "model.depth=2,3", "seed=1,2")
EXACT = ("layers.csv", "steps.csv", "evals.csv")


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*words: str) -> int:
    return main(["train", "-m", *words])


def statuses(folder: str) -> list[tuple[str, str]]:
    return [(row["job"], row["status"]) for row in sweep.read(Path(folder))]


@pytest.mark.parametrize(
    ("launcher", "words", "completed", "failed"),
    [
        ("joblib", ["model.depth=2,3", "model.activation=relu,nonsense"], "02", "13"),
        # Two new interpreters for each job: one is enough.
        ("submitit_local", ["model.depth=2", "model.activation=relu"], "0", ""),
    ],
)
def test_a_sweep_is_the_same_whoever_runs_its_jobs(
    launcher: str,
    words: list[str],
    completed: str,
    failed: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    grid, code = [*SMALL, "model.width=8", "seed=1", *words], int(bool(failed))
    # On one core joblib would run the jobs in this process, and leave it Hydra's state of a job.
    processes = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    assert train(*grid, "hydra.sweep.dir=here") == code
    told = capfd.readouterr()
    there = [f"hydra/launcher={launcher}", *processes, "hydra.sweep.dir=there"]
    assert train(*grid, *there) == code
    told_too = capfd.readouterr()
    for folder in completed:
        for name in EXACT:
            mine, other = (Path(place, folder, name) for place in ("here", "there"))
            assert mine.read_bytes() == other.read_bytes()
    assert statuses("here") == statuses("there")
    assert len(statuses("here")) == len(completed + failed)
    assert sorted(told.out.replace("here", "there").splitlines()) == sorted(
        told_too.out.splitlines()
    )
    if failed:
        assert "2 of 4 jobs failed: 1, 3" in told_too.err


@pytest.mark.filterwarnings("ignore")  # of optuna 2, as it is imported
def test_a_search_that_was_killed_ends_as_if_it_had_not_been(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "+experiment=deepest", "hydra.sweeper.n_trials=5"]
    words.append("hydra.sweeper.sampler.n_startup_trials=2")
    assert train(*words, "hydra.sweep.dir=whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "record", _the_third_time_the_power_goes(sweep.record))
        with pytest.raises(Power):
            train(*words, "hydra.sweep.dir=cut")
    capsys.readouterr()
    assert main(["resume", "cut"]) == 1, "n_startup_trials is not repeated from a file"
    assert "could execute something" in " ".join(capsys.readouterr().err.split())
    assert train(*words, "hydra.sweep.dir=cut") == 0
    same = ("job", "status", "model.depth", "model.gain", "depth_trained", "loss_last")
    mine, other = (sweep.read(Path(folder)) for folder in ("cut", "whole"))
    assert [[row[name] for name in same] for row in mine] == [
        [row[name] for name in same] for row in other
    ]
    found = [
        yaml.safe_load(Path(f, "optimization_results.yaml").read_text()) for f in ("cut", "whole")
    ]
    assert found[0] == found[1]
    assert main(["resume", "cut"]) == 0


class Power(BaseException):
    """The power goes."""


def _the_third_time_the_power_goes(record: Any) -> Any:
    calls: list[int] = []

    def recorded(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Power
        record(*arguments)

    return recorded


def test_a_job_whose_process_is_killed_fails_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Plugins.instance()  # its search for plugins makes the class anew
    launch = basic_launcher.BasicLauncher.launch

    def killed(
        self: basic_launcher.BasicLauncher,
        job_overrides: Sequence[Sequence[str]],
        initial_job_idx: int,
    ) -> Sequence[JobReturn]:
        """As where job 2 has its process killed, which takes the others' with it."""
        before = [words for words in job_overrides if words[-1] < "hydra.sweep.subdir='2'"]
        returned = launch(self, before, initial_job_idx)
        if any("subdir='2'" in words[-1] for words in job_overrides):
            raise BrokenProcessPool("a process died\nThe exit codes are {SIGKILL(-9)}")
        return [*returned, *launch(self, job_overrides[len(before) :], initial_job_idx)]

    monkeypatch.setattr(basic_launcher.BasicLauncher, "launch", killed)
    assert train(*GRID, "hydra.sweep.dir=s") == 1
    assert statuses("s") == [
        ("0", "completed"),
        ("1", "completed"),
        ("2", "failed"),
        ("3", "completed"),
    ]
    reason = sweep.read(Path("s"))[2]["reason"]
    assert "its process was killed: The exit codes are {SIGKILL(-9)}" in reason
    assert "run alone, to see whose" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("choice", plugins.EXTRAS)
def test_an_engine_that_is_not_installed_names_its_extra(
    choice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    group, _, name = choice.rpartition("/")
    schema.register(WORKS["train"])
    store = ConfigStore.instance()
    files = store.repo["hydra"][group.rpartition("/")[2]]
    monkeypatch.delitem(files, f"{name}.yaml")
    assert train(f"{group}={name}", "seed=1,2") == 2
    expected = (
        f"{group}={name} is not installed allowed: pip install 'vgexp[{plugins.EXTRAS[choice]}]'"
    )
    assert expected in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("choice", plugins.PRESETS)
def test_what_suits_vgexp_is_set_in_the_packages_own_settings(choice: str) -> None:
    schema.register(WORKS["train"])
    schema.register(WORKS["train"])
    node = ConfigStore.instance().load(f"{choice}.yaml").node
    for key, value in plugins.PRESETS[choice].items():
        assert node[key] == value
    assert node._target_.startswith("hydra_plugins.hydra_")
