"""Confirms a change at full length, over several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from vgexp.config import Config
from vgexp.errors import reason
from vgexp.fixing.change import Change
from vgexp.fixing.probing import Tried, with_steps
from vgexp.fixing.runner import AFTER, DROPPED, Runner
from vgexp.fixing.trial import Trial
from vgexp.folders import FolderError

FULL = "full"
"""The kind of a run at full length."""
MOST_CONFIRMED = 6
"""Changes that are tried at full length, the most promising first."""


def confirm(
    changes: Sequence[Change],
    runner: Runner,
    seeds: Sequence[int],
    full: int,
    note: Callable[[Tried], None],
    first_number: int,
    cost: Callable[[Change, int], float],
) -> tuple[Change, list[Trial]] | None:
    """The first of the changes that is healthy at full length with every seed, and its runs.

    A change that fails with one seed is not tried with the next, and its runs are dropped. What an
    earlier search confirmed stays where it is until another change is confirmed.

    Args:
        cost: of so many steps of a change.
    """
    number = first_number
    for change in changes[:MOST_CONFIRMED]:
        made: list[Tried] = []
        configs = [with_steps(replace(change.config, seed=seed), full) for seed in seeds]
        aside = f"{DROPPED}/{runner.next_number(DROPPED)}"
        for config in configs:
            each = Tried(number, change, full, FULL)
            number += 1
            _run(each, runner, config, aside)
            each.cost = 0.0 if each.trial is None else cost(change, each.trial.made)
            made.append(each)
            note(each)
            if each.trial is None or not each.trial.is_healthy:
                break
        num_healthy = sum(each.trial is not None and each.trial.is_healthy for each in made)
        is_confirmed = num_healthy == len(seeds)
        if is_confirmed:
            runner.settle(configs, AFTER)
        else:
            runner.drop(configs, AFTER, aside)
        for each, config in zip(made, configs, strict=False):
            if each.trial is not None:
                each.trial = replace(each.trial, folder=runner.folder_of(config))
        if is_confirmed:
            return change, [each.trial for each in made if each.trial is not None]
    return None


def run_seeds(
    config: Config, runner: Runner, place: str, seeds: Sequence[int], full: int
) -> list[Trial]:
    """Full runs of a configuration, one a seed."""
    return [
        runner.run(with_steps(replace(config, seed=seed), full), f"{place}/{seed}", shows=True)
        for seed in seeds
    ]


def _run(each: Tried, runner: Runner, config: Config, aside: str) -> None:
    place, aside = f"{AFTER}/{config.seed}", f"{aside}/{config.seed}"
    try:
        each.trial = runner.run(config, place, each.change.words, shows=True, aside=aside)
    except FolderError:
        raise
    except Exception as error:
        each.result, each.said = "dropped", f"failed: {reason(error)}"
        each.why = each.said
        return
    each.result = "kept" if each.trial.is_healthy else "dropped"
    said = each.trial.verdict or each.trial.health
    each.said = f"{said}, seed {config.seed}" + (
        "" if each.trial.is_healthy or not each.trial.cause else f", {each.trial.cause}"
    )
    each.why = f"{each.said}: {each.trial.numbers}"
