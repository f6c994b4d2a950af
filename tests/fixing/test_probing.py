"""Probes: their budget, their rounds, and the order in which changes are confirmed.

Holds: fixing/probing.py, fixing/confirming.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from small_runs import CONFIG

from vgexp.config import Config
from vgexp.errors import QuestionError
from vgexp.fixing.change import Change
from vgexp.fixing.confirming import confirm
from vgexp.fixing.cost import Cost, Costs
from vgexp.fixing.probing import Budget, Prober, Tried
from vgexp.fixing.trial import Trial
from vgexp.folders import FolderError

FULL = 1000


def trial_of(share: float, steps: int, **changes: object) -> Trial:
    health = "healthy" if share < 0.9 else "sick"
    values = {
        "folder": Path("run"), "seed": 0, "steps": steps, "made": steps, "status": "completed",
        "verdict": "healthy" if share < 0.9 else "stalled", "health": health, "cause": None,
        "loss": share, "constant_loss": 1.0, "val_accuracy": 0.5,
        "attenuation_first": 1.0, "attenuation": 1.0, "seconds_per_step": 1.0,
        "num_parameters": 10, **changes,
    }  # fmt: skip
    return Trial(**values)  # type: ignore[arg-type]


class Fake:
    """A runner that trains nothing: override -> loss at each number of steps."""

    def __init__(self, losses: Mapping[str, object]) -> None:
        self.losses = losses
        self.made: list[tuple[str, int, int]] = []
        self.moved: list[tuple[str, str]] = []

    def run(
        self,
        config: Config,
        place: str,
        words: Sequence[str],
        *,
        shows: bool,
        aside: str | None = None,
    ) -> Trial:
        del place, shows, aside
        name, steps = words[0], config.train.steps
        assert steps is not None
        self.made.append((name, steps, config.seed))
        said = self.losses[name]
        if isinstance(said, Exception):
            raise said
        share = said(steps, config.seed) if callable(said) else said
        return trial_of(float(share), steps)  # type: ignore[arg-type]

    def next_number(self, place: str) -> int:
        del place
        return 1

    def settle(self, configs: Sequence[Config], place: str) -> None:
        del configs
        self.moved.append((place, place))

    def folder_of(self, config: Config) -> Path:
        return Path(self.moved[-1][1], str(config.seed))

    def drop(self, configs: Sequence[Config], place: str, aside: str) -> None:
        del configs
        self.moved.append((place, aside))


def change_of(name: str, size: int) -> Change:
    return Change((name,), CONFIG, (1.0, 0.0, float(size)))


def cost(_: Change, steps: int) -> float:
    return float(steps)


class FakeCosts(Costs):
    """Counts nothing: override -> the cost of its runs."""

    def __init__(self, costs: Mapping[str, Cost]) -> None:
        self.costs, self.of_sick = costs, Cost()

    def of(self, change: Change) -> Cost:
        return self.costs.get(change.override, self.of_sick)


def prober_of(
    losses: Mapping[str, object], allowed: float = 2 * FULL, **costs: Cost
) -> tuple[Prober, Fake, list[Change]]:
    fake = Fake(losses)
    changes = [change_of(name, size) for size, name in enumerate(losses)]
    prober = Prober(fake, Budget(allowed, FakeCosts(costs)), FULL, lambda _: None)  # type: ignore[arg-type]
    return prober, fake, changes


def test_all_are_probed_equally_long_and_the_smaller_ones_then_for_longer() -> None:
    prober, fake, changes = prober_of({"a": 1.0, "b": 0.95, "c": 0.5, "d": 1.0})
    prober.explore(changes, 0.6)
    # Half of 1,200 steps; then the better half of a and b, which are smaller than c.
    assert fake.made[:4] == [(name, 150, 0) for name in "abcd"]
    assert fake.made[4:] == [("b", 500, 0)]
    assert prober.budget.spent == 1100
    assert [change.override for change in prober.order()] == ["c", "b", "a", "d"]


def test_work_weighs_the_steps_and_nothing_is_run_beyond_the_budget() -> None:
    a = Cost(step=4.0, start=10.0)
    prober, fake, changes = prober_of(dict.fromkeys("abcdef", 1.0), 900.0, a=a)
    prober.explore(changes, 1.0)
    assert fake.made[0] == ("a", 48, 0)  # half of 900 steps, without a's start, at 9 for a step
    assert prober.tried[0].cost == 10 + 4 * 48
    paid = sum(steps * 4 + 10 if name == "a" else steps for name, steps, _ in fake.made)
    assert prober.budget.spent == paid <= 900


def test_what_costs_more_than_is_left_is_not_tried() -> None:
    prober, fake, changes = prober_of(dict.fromkeys("abc", 1.0), 240.0, b=Cost(step=5.5))
    prober.explore(changes, 1.0)
    assert "b" not in [name for name, _, _ in fake.made]
    assert [each.change for each in prober.tried][:2] == [changes[0], changes[2]]
    assert prober.latest(changes[1]) is None


def test_of_equally_small_changes_that_of_the_least_work_is_first_then_the_cause_s_own() -> None:
    costs = FakeCosts({"b": Cost(step=1.4), "d": Cost(step=1.401)})
    b, c, d, e = (
        Change((name,), CONFIG, (1.0,), group)
        for name, group in zip("bcde", (0, 1, 0, 0), strict=True)
    )
    assert sorted([b, c, d, e], key=costs.rank) == [e, c, b, d]


def test_a_small_budget_tries_fewer_changes() -> None:
    prober, fake, changes = prober_of(dict.fromkeys("abcdefgh", 0.5), 240.0)
    prober.explore(changes, 1.0)
    assert [(name, steps) for name, steps, _ in fake.made] == [(name, 40) for name in "abcd"]


def test_a_short_run_has_shorter_probes() -> None:
    prober, fake, changes = prober_of(dict.fromkeys("abcd", 0.5), 120.0)
    prober.full = 60
    prober.explore(changes, 0.6)
    assert [(name, steps) for name, steps, _ in fake.made] == [("a", 20), ("b", 20)]


def test_a_change_that_fails_or_diverges_does_not_end_the_search() -> None:
    losses = {"a": QuestionError("no such norm\nallowed: others"), "b": math.nan, "c": 0.5}
    prober, _, changes = prober_of(losses)
    prober.explore(changes, 0.6)
    assert prober.tried[0].why == "failed: no such norm; allowed: others"
    assert prober.tried[2].said == "healthy"
    assert prober.tried[2].why == (
        "healthy: loss 0.5 after 200 steps, 0.5 of the 1 of a guess, validation accuracy 0.50,"
        " attenuation 1"
    )
    assert prober.tried[0].trial is None
    assert [change.override for change in prober.order()] == ["c", "b"]
    assert [prober.has_tried(change) for change in changes] == [True, True, True]
    assert len(prober.tried) == 3  # what diverged is not tried for longer


def test_the_smallest_that_gets_half_as_far_as_the_best_is_first() -> None:
    prober, fake, changes = prober_of({"a": 0.8, "b": 0.5, "c": 0.1, "d": 1.0})
    prober.explore(changes, 0.6)
    assert [change.override for change in prober.order()] == ["b", "c", "a", "d"]
    assert fake.made[4:] == [("a", 500, 0)]  # it learned, and might get as far


def test_a_smaller_change_that_needs_longer_is_first_once_it_got_as_far() -> None:
    prober, _, changes = prober_of({"a": lambda steps, _: 0.8 if steps < 300 else 0.2, "b": 0.1})
    prober.explore(changes, 0.6)
    assert [change.override for change in prober.order()] == ["a", "b"]


def test_at_chance_the_signal_tells() -> None:
    near, far = (trial_of(1.0, 10, attenuation=a) for a in (0.5, 1e-6))
    assert near.rank < far.rank
    assert trial_of(1.2, 10).rank < trial_of(math.nan, 10).rank
    assert trial_of(0.96, 10, attenuation=1e-9).rank < near.rank


def test_a_budget_reaches_as_far_as_all_of_the_changes_go_together() -> None:
    budget = Budget(100.0, FakeCosts({"b": Cost(step=2.0, start=4.0)}))
    a, b = change_of("a", 0), change_of("b", 1)
    assert budget.reach([a, b], 34) == 10
    assert budget.reach([b], 3) < 0
    assert budget.pay(a, 10) + budget.pay(b, 10) == 34
    assert budget.left() == 66


def test_the_next_best_is_confirmed_where_one_seed_fails() -> None:
    losses = {"a": lambda _, seed: 1.0 if seed == 1 else 0.1, "b": RuntimeError("no"), "c": 0.2}
    fake, noted = Fake(losses), list[Tried]()
    changes = [change_of(name, size) for size, name in enumerate(losses)]
    found = confirm(changes, fake, [0, 1, 2], FULL, noted.append, 7, cost)  # type: ignore[arg-type]
    assert found is not None
    assert found[0].override == "c"
    assert fake.made == [
        (n, FULL, s) for n, s in (("a", 0), ("a", 1), ("b", 0), ("c", 0), ("c", 1), ("c", 2))
    ]
    assert [each.number for each in noted] == [7, 8, 9, 10, 11, 12]
    assert [each.cost for each in noted] == [FULL, FULL, 0, FULL, FULL, FULL]
    assert [each.said for each in noted][:3] == [
        "healthy, seed 0",
        "stalled, seed 1",
        "failed: RuntimeError: no",
    ]
    assert fake.moved == [("after", "dropped/1")] * 2 + [("after", "after")]
    where = [each.trial.folder for each in noted if each.trial is not None]
    assert where == [Path("dropped/1", seed) for seed in "01"] + [
        Path("after", seed) for seed in "012"
    ]
    assert [trial.folder for trial in found[1]] == [Path("after", str(seed)) for seed in range(3)]


def test_what_is_wrong_with_a_folder_ends_the_search() -> None:
    error = FolderError("after/0 is from another configuration\nallowed: the same")
    fake = Fake({"a": error, "b": 0.1})
    changes = [change_of(name, size) for size, name in enumerate("ab")]
    with pytest.raises(FolderError):
        confirm(changes, fake, [0], FULL, lambda _: None, 1, cost)  # type: ignore[arg-type]
    prober, _, changes = prober_of({"a": error, "b": 0.1})
    with pytest.raises(FolderError):
        prober.explore(changes, 0.6)


def test_what_a_signal_that_is_lost_leaves_at_chance_is_tried_last() -> None:
    prober, _, changes = prober_of({"a": 1.0, "b": math.nan, "c": 0.5})
    prober.explore(changes, 0.6)
    assert [prober.is_hopeless(change) for change in changes] == [False, True, False]
    lost = trial_of(1.0, 10, attenuation=0.0, attenuation_first=0.0)
    assert math.inf in lost.rank
    assert math.inf not in trial_of(1.0, 10, attenuation=0.0, attenuation_first=0.0).rank[:1]


def test_nothing_is_confirmed_where_all_fail() -> None:
    fake = Fake({"a": 1.0})
    assert confirm([change_of("a", 0)], fake, [0], FULL, lambda _: None, 1, cost) is None  # type: ignore[arg-type]
