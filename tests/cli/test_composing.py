"""How a sweep is planned: composed as Hydra does, once for what jobs share, told of and fast.

Holds: cli/composing.py, cli/progress.py, cli/typed_config.py
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vgexp.cli import progress, schema
from vgexp.cli.actions import find_work
from vgexp.cli.composing import Composer, SharingLoader
from vgexp.cli.hydra_errors import translate
from vgexp.cli.launcher import PlannedLauncher
from vgexp.cli.listing import find_configs
from vgexp.cli.main import main
from vgexp.cli.omegaconf_internals import parse_texts_once
from vgexp.cli.progress import Planning
from vgexp.cli.typed_config import to_config
from vgexp.config import MlpConfig, identity
from vgexp.errors import reason
from vgexp.sweep import plan, plan_file

WORDS = (
    *("seed=3", "seed=${train.eval_every}", "seed=${hydra:job.num}", "seed=${nope}", "seed=-1"),
    *("model.depth=5", "model.depth=two", "model.depth=1.5", "model.depht=5", "++model.depth=6"),
    *("model.gain=${optimizer.lr}", "model.gain=1e-2", "model.init=lsuv", "model=cnn"),
    *("model={depth: 3}", "model={depht: 3}", "model={depth: 4, gain: 0.5}", "model=custom"),
    *("model.kwargs={a: 1}", "+model.kwargs.b=2", "model.stages=2", "model=no_such", "~model"),
    *("optimizer=adam", "optimizer=[adam]", "optimizer=3", "optimizer.lr=0.25", "optimizer.lr=abc"),
    *("optimizer.momentum=0.5", "optimizer@train=adam", "+optimizer=sgd", "++optimizer=sgd"),
    *("clip=norm", "clip.threshold=2", "~clip", "~clip=none", "scheduler=step"),
    *("train.steps=7", "train.steps=null", "train.epochs=2", "+train.extra=3", "++train.extra=4"),
    *("~train.steps", "~train.steps=9", "train.loss=null", "train=null", "train.steps=[1]"),
    *("probe.layers='a,b=c'", "probe.layers=${hydra:job.name}", "probe.layers=${oc.env:NO_SUCH}"),
    *("run.objective=${oc.select:nope,last}", "run.objective=${hydra:job.override_dirname}"),
    *("output={quiet: true, figures: false}", "output.quiet=maybe", "nothing=1", "+nothing=1"),
    *("hydra.job.name=other", "hydra.nothing=1", "dtype=float64", "dtype=${dtype}", "broken=["),
    *("+experiment=sigmoid_deep", "+experiment=no_such", "seed=1,2", "data.batch_size="),
)
"""Of every kind: values that are good and bad, choices, additions, deletions, interpolations."""


@pytest.fixture(scope="module")
def sweep() -> Iterator[tuple[ConfigLoader, DictConfig]]:
    """What Hydra hands a launcher: its loader, and the configuration of a sweep itself."""
    schema.register(find_work("train"))
    with initialize_config_dir(str(find_configs()), job_name="train", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        subdir = "hydra.sweep.subdir=${hydra.job.num}-${hydra.job.override_dirname}-${seed}"
        words = ["seed=1,2", subdir]
        master = loader.load_configuration(schema.PRIMARY, words, RunMode.MULTIRUN)
    with parse_texts_once():  # as in a sweep
        yield loader, master


@contextlib.contextmanager
def by_hydra(
    loader: ConfigLoader, master: DictConfig, words: Sequence[str], number: int
) -> Iterator[DictConfig]:
    """A job's configuration, all of it composed by Hydra for this job alone."""
    composed = loader.load_sweep_config(master, list(words))
    with open_dict(composed.hydra.job):
        composed.hydra.job.num = composed.hydra.job.id = number
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(composed)
    task = copy.deepcopy(composed)
    with read_write(task), open_dict(task):
        del task["hydra"]
    try:
        yield task
    finally:
        HydraConfig.instance().cfg = before


def outcome(composed: Any) -> list[str]:
    """All that is made of a composition: values, configuration, folder, or what is told of it."""
    try:
        with composed as task:
            found = [OmegaConf.to_yaml(task)]
            try:
                found.append(identity(to_config(task)))
            except Exception as error:
                # What Python was at when it had no room left depends on who called.
                found.append(reason(error).partition(" depth exceeded")[0])
            hydra = HydraConfig.instance().cfg
            if hydra is not None:
                found += [_shown(hydra.hydra.sweep, "subdir"), OmegaConf.to_yaml(hydra.hydra.job)]
                found += [OmegaConf.to_yaml(hydra.hydra.overrides)]
                found += [OmegaConf.to_yaml(hydra.hydra.runtime.choices)]
            return found
    except Exception as error:
        return ["refused", str(translate(error)) if translate(error) else repr(error)]


def _shown(node: DictConfig, key: str) -> str:
    try:
        return str(node[key])
    except Exception as error:
        return type(error).__name__


def samples() -> list[tuple[str, ...]]:
    """Each word alone, then some together, but for Hydra's own, which no job of a sweep has."""
    source, ours = random.Random(3), [word for word in WORDS if not word.startswith("hydra.")]
    return [(w,) for w in WORDS] + [tuple(source.sample(ours, 3)) for _ in range(NUM_SAMPLES)]


NUM_SAMPLES = 12


@pytest.fixture(scope="module")
def hydras(sweep: tuple[ConfigLoader, DictConfig]) -> Callable[[int], list[str]]:
    """What Hydra makes of a sample, by its number; composed once."""
    return cache(lambda number: outcome(by_hydra(*sweep, samples()[number], number)))


@pytest.mark.parametrize("lost", ["", "_apply_overrides_to_config", "get_overrides_dirname"])
def test_jobs_are_composed_as_hydra_composes_them(
    lost: str,
    sweep: tuple[ConfigLoader, DictConfig],
    hydras: Callable[[int], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        if lost:
            owner = config_loader_impl if lost.startswith("get") else ConfigLoaderImpl
            patch.delattr(owner, lost)
        composer = Composer(*sweep)
    # Where a part is lost each job is composed whole, as Hydra does: a few jobs show it.
    every = 6 if lost else 1
    for number, words in list(enumerate(samples()))[::every]:
        expected = hydras(number)
        whole = outcome(composer.compose(words, number, with_hydra=True))
        assert whole == expected, words
        # Without Hydra's part what is said of the job is the same.
        assert outcome(composer.compose(words, number))[:2] == expected[:2], words


@pytest.mark.parametrize("lost", ["", "_apply_overrides_to_config"])
def test_a_launcher_in_this_process_gets_what_hydra_would_compose_for_it(
    lost: str, sweep: tuple[ConfigLoader, DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, master = sweep
    with monkeypatch.context() as patch:
        if lost:
            patch.delattr(ConfigLoaderImpl, lost)
        composer = Composer(loader, master)
    shared: Any = SharingLoader(loader, lambda: composer, 2)
    assert shared.get_search_path() is loader.get_search_path()
    places = ["hydra.sweep.dir='a folder'", "hydra.sweep.subdir=7"]
    composed = 0
    for words in samples()[::7]:
        try:
            expected = loader.load_sweep_config(master, [*words, *places])
        except Exception as error:
            with pytest.raises(type(error)):
                shared.load_sweep_config(master, [*words, *places])
            continue
        found = shared.load_sweep_config(master, [*words, *places])
        composed += 1
        for each in (found, expected):  # as the launcher does
            with open_dict(each):
                each.hydra.job.num = each.hydra.job.id = 5
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)
    assert composed > 3


def test_what_jobs_share_is_composed_once(
    sweep: tuple[ConfigLoader, DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, master = sweep
    composed: list[list[str]] = []
    load = loader.load_sweep_config  # type: ignore[attr-defined]

    def noted(given: DictConfig, words: list[str]) -> DictConfig:
        composed.append(words)
        found: DictConfig = load(given, words)
        return found

    monkeypatch.setattr(loader, "load_sweep_config", noted)
    composer = Composer(loader, master)
    found = set()
    for number in range(60):
        choice = ("optimizer=adam", "optimizer=sgd")[number % 2]
        words = (f"seed={number}", choice, "optimizer.lr=0.3", "model={depth: 3}")
        with composer.compose(words, number) as task:
            found.add(identity(to_config(task)))
    assert len(found) == 60
    assert composed == [["optimizer=adam"], ["optimizer=sgd"]]


def test_a_job_leaves_nothing_to_the_next(sweep: tuple[ConfigLoader, DictConfig]) -> None:
    composer = Composer(*sweep)
    for words in (["model={depth: 3}", "+train.extra=1"], []):
        with composer.compose(words, 0) as task:
            values = OmegaConf.to_container(task)
    assert isinstance(values, dict)
    assert values["model"]["depth"] == MlpConfig().depth
    assert "extra" not in values["train"]


# ---------------------------------------------------------------- what is told meanwhile


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def told(clock: list[float], num_jobs: int, seconds: float, *, is_quiet: bool = False) -> None:
    """Plans so many jobs, each of which takes so long."""
    planning = Planning(num_jobs, is_quiet=is_quiet)
    for number in range(num_jobs):
        planning(number)
        clock[0] += seconds


def test_many_jobs_are_told_of_at_once_and_then_at_every_tenth(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    told(clock, 1000, 0.125)
    out, err = capsys.readouterr()
    assert out == ""
    first, *later = err.splitlines()
    assert first == "planning 1000 jobs"
    assert later == [f"planned {16 + 100 * k}/1000 jobs" for k in range(10)]


def test_few_jobs_are_not_told_of_however_long_they_take(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    told(clock, 10, 5.0)
    assert capsys.readouterr().err == ""
    told(clock, 11, 0.0)
    assert capsys.readouterr().err == "planning 11 jobs\n"


def test_between_two_lines_are_two_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    told(clock, 1000, 0.004)
    assert capsys.readouterr().err.splitlines() == [
        "planning 1000 jobs",
        "planned 500/1000 jobs",
    ]


def test_nothing_is_told_where_output_is_quiet(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    told(clock, 1000, 0.1, is_quiet=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("is_quiet", [False, True])
def test_planning_can_be_interrupted_and_goes_on(
    is_quiet: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(_self: PlannedLauncher, _words: tuple[str, ...], number: int) -> plan.Wanted:
        assert number == 0
        raise KeyboardInterrupt

    monkeypatch.setattr(PlannedLauncher, "_read_wanted", interrupted)
    folder = tmp_path / "sweep"
    words = ["seed=range(30)", f"output.quiet={str(is_quiet).lower()}"]
    assert main(["train", "-m", *words, f"hydra.sweep.dir={folder}"]) == 130
    err = capsys.readouterr().err
    assert ("planning 30 jobs" in err) != is_quiet
    assert f"go on: vgexp resume {folder}" in err
    known = plan_file.read(folder)
    assert known is not None
    assert known.entries == ()
    assert len(known.pending) == 1
