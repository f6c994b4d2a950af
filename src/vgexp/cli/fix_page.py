"""Prints what a search for a cure found: the override, its proof, its cost, all that was tried."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from vgexp.fixing import process
from vgexp.fixing.probing import HALF_AS_FAR
from vgexp.fixing.process import ENOUGH_TO_TIME
from vgexp.quantities import NUM_STEPS_AVERAGED
from vgexp.report.terminal.layout import Column, show_line, show_table, show_words

if TYPE_CHECKING:
    from rich.console import Console

    from vgexp.fixing import Cure
    from vgexp.fixing.trial import Trial

_RULE = (
    "Chosen: the smallest override (fewest keys, then numbers before names, then the least"
    " change, then the least work a step) whose loss got at least"
    f" {HALF_AS_FAR:.0%} as far below a guess's as the best one's, and whose runs at full length"
    " are all healthy."
)


def show(console: Console, cure: Cure) -> None:
    """Prints the result of a search."""
    _PAGES[cure.status](console, cure)
    show_line(console, f"Written to {cure.folder}")
    names = sorted(path.name for path in cure.folder.iterdir() if not path.name.startswith("."))
    show_words(console, f"  {', '.join(names)}", indent="  ")


def _show_cured(console: Console, cure: Cure) -> None:
    assert cure.change is not None
    console.print()
    show_line(console, f"Cured by {cure.change.override}", "bold")
    console.print()
    _show_proof(console, cure)
    console.print()
    _show_cost(console, cure)
    console.print()
    _show_tried(console, cure)
    show_words(console, _RULE)
    console.print()
    if cure.cured_command:
        show_line(console, "Type")
        show_line(console, f"  {cure.cured_command}")


def _show_not_cured(console: Console, cure: Cure) -> None:
    console.print()
    show_line(console, "No override that was tried cures it.", "bold")
    _show_cause(console, cure)
    console.print()
    _show_budget(console, cure)
    console.print()
    _show_tried(console, cure)
    _show_code(console, cure)


def _show_no_override(console: Console, cure: Cure) -> None:
    console.print()
    show_line(console, "No override touches this cause.", "bold")
    _show_cause(console, cure)
    for each in cure.left_out:
        show_words(console, f"  {' '.join(each.words)}: {each.why}", indent="    ")
    _show_code(console, cure)


def _show_healthy(console: Console, cure: Cure) -> None:
    loss = f", loss {cure.before[0].loss:.3g}" if cure.before else ""
    show_line(console, f"It is healthy{loss}: there is nothing to cure.", "bold")


def _show_undecided(console: Console, cure: Cure) -> None:
    show_line(console, "Undecided: the run was too short to tell.", "bold")
    show_words(
        console,
        f"After {cure.before[0].made} steps nobody can say whether it learns; try"
        f" train.steps={4 * max(cure.full, 100)}.",
    )


_PAGES: dict[str, Callable[[Console, Cure], None]] = {
    process.CURED: _show_cured,
    process.NOT_CURED: _show_not_cured,
    process.NO_OVERRIDE: _show_no_override,
    process.HEALTHY: _show_healthy,
    process.UNDECIDED: _show_undecided,
}
"""Status -> what prints it."""


def _show_proof(console: Console, cure: Cure) -> None:
    rows = {
        "verdict": _names(cure, lambda trial: trial.verdict),
        "cause": _names(cure, lambda trial: trial.cause),
        "loss": _numbers(cure, lambda trial: trial.loss),
        "val accuracy": _numbers(cure, lambda trial: trial.val_accuracy),
        "attenuation, step 0": _factors(cure, lambda trial: trial.attenuation_first),
        f"attenuation, last {NUM_STEPS_AVERAGED}": _factors(cure, lambda trial: trial.attenuation),
    }
    seeds = ", ".join(str(trial.seed) for trial in cure.after)
    of_seeds = (
        f"seeds {seeds} (mean ± std, geometric */)" if len(cure.after) > 1 else f"seed {seeds}"
    )
    show_line(console, f"Proof: {cure.full} steps, {of_seeds}")
    show_table(
        console,
        Column("", list(rows)),
        [
            Column("before", [before for before, _ in rows.values()]),
            Column("after", [after for _, after in rows.values()]),
        ],
    )


def _show_cost(console: Console, cure: Cure) -> None:
    long = [trial for trial in cure.before if trial.made >= ENOUGH_TO_TIME]
    before, after = (_mean([t.seconds_per_step for t in each]) for each in (long, cure.after))
    sizes = [trials[0].num_parameters for trials in (cure.before, cure.after)]
    told = f"{1e3 * before:.3g} ms -> {1e3 * after:.3g} ms ({after / before:.2g} times)"
    if not before > 0:
        told = f"{1e3 * after:.3g} ms (before: not known)"
    show_words(console, f"Cost: a step takes {told}; parameters {sizes[0]} -> {sizes[1]}")
    _show_budget(console, cure)


def _show_budget(console: Console, cure: Cure) -> None:
    show_words(
        console,
        f"Probes: the work of {cure.spent:.0f} steps of the sick run; {cure.allowed:.0f} were"
        f" allowed (fix.budget). Confirmation: {cure.num_confirming} runs of {cure.full} steps, the"
        f" work of {cure.cost_of_confirming:.0f}",
    )


def _show_tried(console: Console, cure: Cure) -> None:
    show_line(console, "Tried")
    overrides = [each.change.override for each in cure.tried]
    show_table(
        console,
        Column("override", overrides),
        [
            Column("steps", [str(each.steps) for each in cure.tried]),
            Column("loss", [_short(each.trial.loss) if each.trial else "" for each in cure.tried]),
            Column("verdict", [f"{each.result}: {each.said}" for each in cure.tried]),
        ],
    )
    kept = [each for each in cure.left_out if each.why.startswith("fix.keep")]
    for each in kept:
        show_words(console, f"left out: {' '.join(each.words)}: {each.why}", indent="  ")
    others = len(cure.left_out) - len(kept)
    if others:
        show_words(console, f"not tried: {others} more, each with its reason in fix.csv")


def _show_cause(console: Console, cure: Cure) -> None:
    if cure.diagnosis is None or not cure.diagnosis.findings:
        return
    cause = cure.diagnosis.findings[0]
    show_words(console, f"Cause: {cause.id}. {cause.sentence}", indent="  ")


def _show_code(console: Console, cure: Cure) -> None:
    """What to change in code, by the cause's remedies."""
    if cure.diagnosis is None or not cure.diagnosis.findings:
        return
    remedies = [each for each in cure.diagnosis.findings[0].remedies if each.code]
    if remedies:
        show_line(console, "In code")
    for remedy in remedies:
        show_words(console, f"  {remedy.words} {remedy.why}", indent="  ")
        show_line(console, f"    {remedy.code}")


def _names(cure: Cure, value: Callable[[Trial], str | None]) -> tuple[str, str]:
    before, after = (
        ", ".join(dict.fromkeys(value(trial) or "none" for trial in trials))
        for trials in (cure.before, cure.after)
    )
    return before, after


def _numbers(cure: Cure, value: Callable[[Trial], float]) -> tuple[str, str]:
    return _mean_and_std(map(value, cure.before)), _mean_and_std(map(value, cure.after))


def _factors(cure: Cure, value: Callable[[Trial], float]) -> tuple[str, str]:
    """As geometric means, with the factor of one standard deviation of the logarithm."""
    before, after = (
        _geometric([value(trial) for trial in trials]) for trials in (cure.before, cure.after)
    )
    return before, after


def _mean_and_std(values: Iterable[float]) -> str:
    found = [value for value in values if math.isfinite(value)]
    if not found:
        return "none"
    std = f" ± {statistics.stdev(found):.2g}" if len(found) > 1 else ""
    return f"{statistics.fmean(found):.3g}{std}"


def _geometric(values: Sequence[float]) -> str:
    logs = [math.log(value) for value in values if math.isfinite(value) and value > 0]
    if not logs:
        return "0" if any(value == 0 for value in values) else "none"
    middle = math.exp(statistics.fmean(logs))
    spread = f" */ {math.exp(statistics.stdev(logs)):.2g}" if len(logs) > 1 else ""
    return f"{middle:.2g}{spread}"


def _mean(values: Sequence[float]) -> float:
    found = [value for value in values if math.isfinite(value)]
    return statistics.fmean(found) if found else math.nan


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "nan"
