"""The search for a cure: diagnose, probe, confirm, prove."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vgexp import folders
from vgexp.config import Config, flatten, identity
from vgexp.diagnosis import Diagnosis
from vgexp.diagnosis.commands import command_with
from vgexp.fixing import candidates, record
from vgexp.fixing.change import Change, Compose, LeftOut, compose_changes, require_keys
from vgexp.fixing.confirming import FULL, confirm, run_seeds
from vgexp.fixing.cost import Costs
from vgexp.fixing.probing import Budget, Prober, Tried
from vgexp.fixing.runner import BEFORE, Runner
from vgexp.fixing.trial import Trial, read_trial
from vgexp.past import PastRun
from vgexp.past.diagnosing import diagnose_run
from vgexp.runs.start import build_trainer

HEALTHY, UNDECIDED, CURED = "healthy", "undecided", "cured"
NO_OVERRIDE, NOT_CURED, SEARCHING = "no_override", "not_cured", "searching"
_OWN_SHARE = 0.6
"""Share of the budget that the cause's own overrides may spend before the general ones follow."""
ENOUGH_TO_TIME = 20
"""Steps of the sick run from which its time a step is known."""
MOST_WORK = 5.0
"""How many times the work of a step of the sick run a step may be, of a change that is tried at
full length without a probe."""
PICTURE = "fix.png"


@dataclass
class Cure:
    """What a search found; it is filled in as it goes."""

    folder: Path
    sick: Config
    status: str = SEARCHING
    diagnosis: Diagnosis | None = None
    """Of the sick run with the given seed."""
    change: Change | None = None
    """The smallest override that cures."""
    before: list[Trial] = field(default_factory=list)
    """The sick runs, one a seed; the first alone where nothing was cured."""
    after: list[Trial] = field(default_factory=list)
    """The runs that confirm the cure, one a seed."""
    tried: list[Tried] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    full: int = 0
    """Number of steps of a run at full length."""
    command: tuple[str, ...] = ()
    """The words that train the sick configuration."""
    allowed: float = math.nan
    spent: float = 0.0
    """Of the probes, in steps of the sick run."""
    num_confirming: int = 0
    """Runs at full length that confirm a change, or failed to."""
    cost_of_confirming: float = 0.0
    """Of these, in steps of the sick run."""

    @property
    def cured_command(self) -> str | None:
        """What to type to train with the cure."""
        if self.change is None or not self.command:
            return None
        return command_with(self.command, self.change.override)

    @property
    def exit_code(self) -> int:
        """3 where a sickness stays, else 0."""
        return 3 if self.status in (NO_OVERRIDE, NOT_CURED, SEARCHING) else 0

    def to_dict(self) -> dict[str, Any]:
        """What `fix.json` holds."""
        return {
            "status": self.status,
            "cause": None if self.diagnosis is None else self.diagnosis.cause,
            "override": None if self.change is None else self.change.override,
            "command": self.cured_command,
            "steps": self.full,
            "probes": {
                "allowed_steps": self.allowed if math.isfinite(self.allowed) else None,
                "spent_steps": self.spent,
            },
            "confirmation": {
                "runs": self.num_confirming,
                "spent_steps": self.cost_of_confirming,
            },
            "before": [trial.to_dict() for trial in self.before],
            "after": [trial.to_dict() for trial in self.after],
            "tried": [record.row_of(each) for each in self.tried],
            "left_out": [
                {"override": " ".join(each.words), "why": each.why} for each in self.left_out
            ],
            "diagnosis": None if self.diagnosis is None else self.diagnosis.to_dict(),
        }


def fix(
    config: Config,
    folder: Path | str,
    *,
    compose: Compose,
    command: Sequence[str] = (),
    own_run: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Cure:
    """Searches for the smallest override that cures a configuration.

    Everything is written below the folder as it goes; the same call goes on where another was cut
    short, and repeats no run.

    Args:
        compose: makes the configuration of an override's words.
        command: the words that train the sick configuration.
        own_run: a run of this configuration that has ended, whose tables are taken.
        say: is told of what is done, a line at a time.

    Raises:
        QuestionError: an impossible configuration, or an unknown key in `fix.keep`.
        FolderError: the folder holds a search for a cure of another configuration.
        KeyboardInterrupt: what was recorded by then is on disk.
    """
    require_keys(config.fix.keep, config)
    cure = Cure(Path(folder), config, command=tuple(command))
    cure.folder.mkdir(parents=True, exist_ok=True)
    with folders.occupy(cure.folder):
        earlier = record.read_earlier(cure.folder, config)
        return _Search(cure, compose, say, record.keys_of(earlier)).search(own_run)


class _Search:
    """The state of one search."""

    def __init__(
        self,
        cure: Cure,
        compose: Compose,
        say: Callable[[str], None],
        known: frozenset[tuple[str, ...]] | None,
    ) -> None:
        """Runs nothing yet.

        Args:
            known: keys of the rows that an earlier search wrote; None: there was none.
        """
        self.cure, self.config, self._compose, self._say = cure, cure.sick, compose, say
        self._known = known
        self.runner = Runner(
            cure.folder, cure.command, counts_epochs=cure.sick.train.epochs is not None
        )

    def search(self, own_run: Path | None) -> Cure:
        cure = self.cure
        sick = self._run_before(own_run)
        assert cure.diagnosis is not None
        if cure.diagnosis.health != "sick":
            return self._end(HEALTHY if cure.diagnosis.health == "healthy" else UNDECIDED)
        settings = flatten(self.config)
        words = candidates.list_words(cure.diagnosis, settings)
        if not any(words) and cure.diagnosis.cause != candidates.UNKNOWN:
            return self._end(NO_OVERRIDE)
        costs = Costs(self.config, build_trainer, cure.full)
        own = self._changes(words, costs)
        general = self._changes([candidates.list_general_words(settings)], costs, own)
        if not own and not general:
            return self._end(NO_OVERRIDE)
        prober = self._probe(sick, costs, own, general)
        seeds = [self.config.seed + place for place in range(self.config.fix.seeds)]
        self._say(f"At full length, {cure.full} steps, with {_seeds(seeds)}:")
        unprobed = [
            each
            for each in (*own, *general)
            if not prober.has_tried(each) and costs.ratio(each) <= MOST_WORK
        ]
        probed = prober.order()
        hopeful = [each for each in probed if not prober.is_hopeless(each)]
        found = self._confirm(
            [*hopeful, *unprobed, *(each for each in probed if each not in hopeful)], seeds, costs
        )
        while found is not None and (
            smaller := self._confirm(self._reduce(found[0], costs), seeds, costs)
        ):
            found = smaller
        seen = {each.change for each in cure.tried}
        cure.left_out += [
            LeftOut(each.words, _why_not_tried(each, prober, None if found is None else found[0]))
            for each in (*own, *general)
            if each not in seen
        ]
        if found is None:
            return self._end(NOT_CURED)
        cure.change, cure.after = found
        if len(seeds) > 1:
            self._say(f"As it was, with {_seeds(seeds[1:])}:")
            cure.before += run_seeds(self.config, self.runner, BEFORE, seeds[1:], cure.full)
        draw_picture(cure)
        return self._end(CURED)

    # ---------------------------------------------------------------- parts

    def _confirm(
        self, changes: Sequence[Change], seeds: Sequence[int], costs: Costs
    ) -> tuple[Change, list[Trial]] | None:
        return confirm(
            changes,
            self.runner,
            seeds,
            self.cure.full,
            self._note,
            len(self.cure.tried) + 1,
            lambda change, steps: costs.of(change).of(steps),
        )

    def _reduce(self, change: Change, costs: Costs) -> list[Change]:
        """The changes that a change becomes without one of its words, but for those that were
        tried at full length."""
        words = change.words
        if len(words) < 2:
            return []
        fewer = [[w for w in words if w != left_out] for left_out in words]
        found, _ = compose_changes(
            fewer, self.config, self._compose, self.config.fix.keep, group=change.group
        )
        full = {identity(t.change.config) for t in self.cure.tried if t.kind == FULL}
        new = [each for each in found if identity(each.config) not in full]
        return sorted(new, key=costs.rank)

    def _run_before(self, own_run: Path | None) -> Trial:
        cure, config = self.cure, self.config
        if own_run is not None and _is_run_of(own_run, config):
            self._say(f"As it is: {own_run}")
            run = own_run
        else:
            self._say(f"As it is, with seed {config.seed}:")
            run = self.runner.run(config, f"{BEFORE}/{config.seed}", shows=True).folder
        past = PastRun(run, is_strict=False)
        cure.diagnosis = diagnose_run(past)
        cure.full = _full_length(config, past)
        trial = read_trial(run, cure.full, cure.diagnosis)
        cure.before = [trial]
        self._write()
        if cure.diagnosis.cause is not None:
            self._say(f"Cause: {cure.diagnosis.cause}")
        return trial

    def _changes(
        self,
        groups: Sequence[Sequence[Sequence[str]]],
        costs: Costs,
        known: Sequence[Change] = (),
    ) -> list[Change]:
        """Composes groups of overrides, one after the other; none that is known already."""
        seen = {identity(change.config) for change in known}
        told = {each.words for each in self.cure.left_out}
        first = 1 + max((change.group for change in known), default=-1)
        found: list[Change] = []
        for place, group in enumerate(groups, first):
            changes, left_out = compose_changes(
                group, self.config, self._compose, self.config.fix.keep, group=place
            )
            new = [each for each in changes if identity(each.config) not in seen]
            found += sorted(new, key=costs.rank)
            seen |= {identity(each.config) for each in changes}
            self.cure.left_out += [each for each in left_out if each.words not in told]
            told |= {each.words for each in left_out}
        return found

    def _probe(
        self, sick: Trial, costs: Costs, own: Sequence[Change], general: Sequence[Change]
    ) -> Prober:
        cure = self.cure
        allowed = self.config.fix.budget * cure.full
        budget = Budget(allowed, costs)
        cure.allowed = allowed
        self._say(
            f"Probes: {len(own)} override{'s' if len(own) != 1 else ''}; all together may cost"
            f" {allowed:.0f} steps ({self.config.fix.budget:g} runs of {cure.full})"
        )
        seconds = sick.seconds_per_step if sick.made >= ENOUGH_TO_TIME else math.nan
        prober = Prober(
            self.runner, budget, cure.full, lambda each: self._note(each, budget), seconds
        )
        prober.explore(own, _OWN_SHARE)
        if prober.has_learned:
            prober.go_on(1.0)
        else:
            rest = [each for each in (*own, *general) if not prober.has_tried(each)]
            if rest:
                self._say("None of them learns yet; others:")
                prober.explore(rest, 1.0)
        cure.spent = budget.spent
        return prober

    def _note(self, each: Tried, budget: Budget | None = None) -> None:
        self.cure.tried.append(each)
        if budget is not None:
            self.cure.spent = budget.spent
        else:
            self.cure.num_confirming += 1
            self.cure.cost_of_confirming += each.cost
        self._write()
        loss = "" if each.trial is None else f", loss {each.trial.loss:.3g}"
        spent = "" if budget is None else f" ({budget.spent:.0f} of {budget.allowed:.0f} spent)"
        self._say(f"  {each.change.override}: {each.steps} steps{loss}, {each.said}{spent}")

    def _end(self, status: str) -> Cure:
        self.cure.status = status
        self._write()
        return self.cure

    def _write(self) -> None:
        """Writes what is known, once it is more than what an earlier search wrote."""
        rows = {"tried": [record.row_of(each) for each in self.cure.tried]}
        if self.cure.status == SEARCHING and self._known is not None:
            if self._known >= (record.keys_of(rows) or frozenset()):
                return
            self._known = None
        record.write_table(self.cure.folder, self.cure.tried, self.cure.left_out)
        record.write_result(self.cure.folder, self.config, self.cure.to_dict())


def _why_not_tried(change: Change, prober: Prober, cured: Change | None) -> str:
    """Why there was no run of a change, in numbers of the budget."""
    budget = prober.budget
    price, left = budget.price(change, prober.fewest), budget.left()
    told = (
        f"not tried: a probe of {prober.fewest} steps costs {price:.0f} of the {left:.0f} steps"
        f" that were left of {budget.allowed:.0f}"
    )
    if price <= left and prober.has_learned:
        num_learned = len({t.change for t in prober.tried if t.trial and t.trial.has_learned})
        told = (
            f"not tried: a probe of {prober.fewest} steps would have cost {price:.0f}, and"
            f" {num_learned} that are nearer to the cause learned"
        )
    return told if cured is None else f"{told}; {cured.override} cures"


def draw_picture(cure: Cure) -> Path:
    """Draws `fix.png`: gradient by layer and loss, before and after."""
    from vgexp.report import figures
    from vgexp.report.figures import style

    assert cure.change is not None
    before, after = (
        [figures.read_beside(trial.folder, str(trial.seed)) for trial in trials]
        for trials in (cure.before, cure.after)
    )
    figure = figures.before_after(before, after, f"After: {cure.change.override}")
    return style.write(figure, cure.folder / PICTURE)


def _is_run_of(folder: Path, config: Config) -> bool:
    """Whether a run of this configuration has ended in a folder."""
    past = PastRun(folder, is_strict=False)
    there = past.config
    is_same = there is not None and identity(there) == identity(config)
    return is_same and past.outcome.get("status") in ("completed", "diverged", "stopped")


def _full_length(config: Config, past: PastRun) -> int:
    """The number of steps of a whole run, of which the sick one may have made fewer."""
    if config.train.steps is not None:
        return config.train.steps
    if past.outcome.get("status") == "completed":
        return int(past.outcome["steps"])
    return int(build_trainer(config).facts.num_steps)


def _seeds(seeds: Sequence[int]) -> str:
    listed = ", ".join(map(str, seeds))
    return f"seed {listed}" if len(seeds) == 1 else f"seeds {listed}"
