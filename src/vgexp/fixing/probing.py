"""Short runs of many changes: successive halving within a budget of steps.

A run costs as many steps of the sick run as it is the work of (`cost`), which is counted and not
timed, so that the same changes are tried on every machine. All changes are tried for a few steps;
the better half of those that could be the smallest cure goes on for longer, as far as the budget
reaches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vgexp.config import Config
from vgexp.errors import reason
from vgexp.fixing.change import Change
from vgexp.fixing.cost import Costs
from vgexp.fixing.runner import TRIED, Runner
from vgexp.fixing.trial import MOVED, Trial
from vgexp.folders import FolderError

MOST_CHANGES = 12
"""Changes that are tried of one list, the smallest first."""
_FEWEST_STEPS, _FEWEST_OF_SHORT = 40, 20
"""A probe's length at least: the last 20 steps are beyond the first ones; where a quarter of a full
run is less, that, but 20."""
_FIRST_ROUND, _MOST_OF_FIRST, _ROUND = 0.5, 0.75, 0.6
"""Shares of what is left of the budget: of the first round, of one of the shortest probes, and of
each round that follows."""
_LONGER = 1.5
"""How many times as long as before a probe has to be to tell more."""
HALF_AS_FAR = 0.5
"""Share of the best change's distance below a guess's loss that a change has to get, to be chosen
for being smaller."""
_SILENT_SECONDS = 10.0
"""A probe that is likely to take longer shows its progress."""


@dataclass
class Tried:
    """One run of a change."""

    number: int
    change: Change
    steps: int
    kind: str
    """`probe`, or `full` for a run at full length."""
    trial: Trial | None = None
    cost: float = 0.0
    """In steps of the sick run."""
    result: str = ""
    """`kept` or `dropped`."""
    said: str = ""
    """Why, in a word or two."""
    why: str = ""
    """The same with the numbers of this run."""


@dataclass
class Budget:
    """What probes may cost, in steps of the sick run."""

    allowed: float
    costs: Costs
    spent: float = 0.0

    def left(self, share: float = 1.0) -> float:
        """What is left of a share of it."""
        return self.allowed * share - self.spent

    def price(self, change: Change, steps: int) -> float:
        """What a run of a change costs."""
        return self.costs.of(change).of(steps)

    def pay(self, change: Change, steps: int) -> float:
        """Takes the price of a run from the budget, and returns it."""
        price = self.price(change, steps)
        self.spent += price
        return price

    def reach(self, changes: Sequence[Change], amount: float) -> int:
        """How many steps an amount pays of a run of each of the changes; negative: of none."""
        costs = [self.costs.of(change) for change in changes]
        return math.floor(
            (amount - sum(each.start for each in costs)) / sum(each.step for each in costs)
        )


class Prober:
    """Probes changes, and remembers all of them."""

    def __init__(
        self,
        runner: Runner,
        budget: Budget,
        full: int,
        note: Callable[[Tried], None],
        seconds_per_step: float = math.nan,
    ) -> None:
        """Runs nothing yet.

        Args:
            full: number of steps of a run at full length.
            note: is told of each probe that has ended.
            seconds_per_step: of the sick run, by which the progress of long probes is shown.
        """
        self.runner, self.budget, self.full, self._note = runner, budget, full, note
        self._seconds_per_step = seconds_per_step
        self.tried: list[Tried] = []

    def explore(self, changes: Sequence[Change], share: float) -> None:
        """Probes as many of the changes as a share of the budget allows, the first first.

        Half of it goes to short probes of all, the rest to longer ones of the better half; where
        it allows one alone, all of it.
        """
        left = self.budget.left(share)
        fewest, chosen, price = self.fewest, list[Change](), 0.0
        for change in changes[:MOST_CHANGES]:
            more = self.budget.price(change, fewest)
            if not chosen or price + more <= _MOST_OF_FIRST * left:
                chosen.append(change)
                price += more
        if not chosen:
            return
        reach = self.budget.reach(chosen, left if len(chosen) == 1 else _FIRST_ROUND * left)
        self._probe(chosen, self._length(max(fewest, reach)), share)
        self.go_on(share)

    @property
    def fewest(self) -> int:
        """Number of steps of the shortest probe."""
        return self._length(min(_FEWEST_STEPS, max(_FEWEST_OF_SHORT, self.full // 4)))

    def go_on(self, share: float) -> None:
        """Probes for longer what did not learn yet, until a share of the budget is spent."""
        while True:
            steps, going_on = self._next_round(self._going_on(), share)
            if not going_on:
                return
            self._probe(going_on, steps, share)

    def latest(self, change: Change) -> Tried | None:
        """The longest probe of a change that has ended."""
        found = [t for t in self.tried if t.change is change and t.trial is not None]
        return max(found, key=lambda each: each.steps, default=None)

    def has_tried(self, change: Change) -> bool:
        """Whether there was a probe of a change, even one that failed."""
        return any(each.change is change for each in self.tried)

    def order(self) -> list[Change]:
        """The changes to confirm, in order.

        First those that got at least half as far below guessing as the best one, the smallest
        first; then others that learned, by loss; then the rest, by loss, or where that says
        nothing by how near to 1 the signal's attenuation is.
        """
        changes, far, rank = self._probed(), self._far(), self.budget.costs.rank
        rest = [change for change in changes if change not in far]
        return [
            *sorted(far, key=rank),
            *sorted(rest, key=lambda change: (self._trial(change).rank, rank(change))),
        ]

    def is_hopeless(self, change: Change) -> bool:
        """Whether a change's probe is at chance with a signal that is lost as a whole, or ended in
        numbers that are not finite."""
        latest = self.latest(change)
        return latest is not None and latest.trial is not None and math.inf in latest.trial.rank

    @property
    def has_learned(self) -> bool:
        """Whether some change's probe learned."""
        return any(each.trial is not None and each.trial.has_learned for each in self.tried)

    # ---------------------------------------------------------------- rounds

    def _far(self) -> list[Change]:
        """Those that learned, and got at least half as far below guessing as the best one."""
        learned = [each for each in self._probed() if self._trial(each).has_learned]
        best = min((self._trial(each).loss_share for each in learned), default=1.0)
        return [
            each for each in learned if 1 - self._trial(each).loss_share >= HALF_AS_FAR * (1 - best)
        ]

    def _going_on(self) -> list[Change]:
        """The better half of those that are not far yet, and smaller than the smallest that is."""
        far, rank = self._far(), self.budget.costs.rank
        smallest = min(map(rank, far), default=((math.inf,),))
        waiting = [
            change
            for change in self._probed()
            if change not in far
            and rank(change) < smallest
            and math.isfinite(self._trial(change).loss_share)
        ]
        waiting.sort(key=lambda change: self._trial(change).rank)
        return waiting[: math.ceil(len(waiting) / 2)]

    def _next_round(self, changes: Sequence[Change], share: float) -> tuple[int, list[Change]]:
        """How long the next probes are, and of which changes; of none where the budget ends."""
        left = self.budget.left(share)
        steps = max((each.steps for each in map(self.latest, changes) if each), default=0)
        for number in range(len(changes), 0, -1):
            going_on = list(changes[:number])
            reach = self.budget.reach(going_on, left if number == 1 else _ROUND * left)
            longer = self._length(reach)
            if longer >= min(self.full // 2, _LONGER * steps) and longer > steps:
                return longer, going_on
        return steps, []

    def _probe(self, changes: Sequence[Change], steps: int, share: float) -> None:
        for change in changes:
            if self.budget.price(change, steps) > self.budget.left(share):
                continue
            each = Tried(len(self.tried) + 1, change, steps, "probe")
            self._run(each)
            self.tried.append(each)
            self._note(each)

    def _run(self, each: Tried) -> None:
        config = with_steps(each.change.config, each.steps)
        place = f"{TRIED}/{self.runner.next_number(TRIED)}"
        try:
            each.trial = self.runner.run(
                config, place, each.change.words, shows=self._is_long(each)
            )
        except FolderError:
            raise
        except Exception as error:  # one impossible change is no reason to end the search
            each.result, each.said = "dropped", f"failed: {reason(error)}"
            each.why = each.said
            return
        each.cost = self.budget.pay(each.change, each.trial.made)
        each.result = "kept" if each.trial.has_learned else "dropped"
        each.said = _say(each.trial)
        each.why = f"{each.said}: {each.trial.numbers}"

    def _is_long(self, each: Tried) -> bool:
        """Whether a probe is likely to take so long that its progress is shown."""
        price = self.budget.price(each.change, each.steps)
        return price * self._seconds_per_step > _SILENT_SECONDS

    def _probed(self) -> list[Change]:
        return list(dict.fromkeys(each.change for each in self.tried if each.trial is not None))

    def _trial(self, change: Change) -> Trial:
        latest = self.latest(change)
        assert latest is not None
        assert latest.trial is not None
        return latest.trial

    def _length(self, steps: int) -> int:
        """A number of steps, within the longest probe's."""
        return max(1, min(self.full // 2, steps))


def with_steps(config: Config, steps: int) -> Config:
    """The configuration with another number of steps."""
    return replace(config, train=replace(config.train, steps=steps, epochs=None))


def _say(trial: Trial) -> str:
    """The verdict; beside one that calls a probe too short, what its loss says."""
    verdict = trial.verdict or trial.health
    if verdict not in ("undecided", "stalled"):
        return verdict
    return f"{verdict}, {'chance' if trial.loss_share > MOVED else 'slow'}"
