"""What the diagnosis says of each training of the zoo, beside what is true of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from zoo.running import PRESET, Job

LEARNED_BELOW = 0.9
"""Share of a constant guess's loss below which a configuration has learned: the outcome."""


@dataclass(frozen=True)
class Judged:
    """One training with its outcome, its diagnosis, and what peers say of it."""

    job: Job
    learned: bool
    """By the outcome: of a configuration the mean loss of the last 20 steps, of a loop its own
    score. No rule has a part in it."""
    health: str
    cause: str | None
    told: tuple[str, ...]
    """The cause and all that may be the cause instead."""
    peers: dict[str, list[str]]
    """Peer -> its alarms."""
    check: dict[str, str | None] | None = None
    """`health` and `cause` of a loop by `vgexp.check` before training; None: it was not asked."""

    @property
    def is_detected(self) -> bool:
        return self.health == "sick"

    @property
    def is_right(self) -> bool:
        """Whether it is detected, and the cause that is named first is one of the true ones."""
        return self.is_detected and self.cause in self.job.truth


def judge_all(jobs: Iterable[Job]) -> Iterator[Judged]:
    """Judges those that have ended."""
    for job in jobs:
        if job.has_result:
            yield judge(job)


def judge(job: Job) -> Judged:
    """Judges one training that has ended."""
    return _judge_preset(job) if job.kind == PRESET else _judge_loop(job)


def list_unconfirmed(judged: Iterable[Judged]) -> list[str]:
    """The labels that an outcome contradicts, each with how.

    A healthy one has to learn, a sick one must not, and its cured twin has to.
    """
    return [
        f"{each.job.name} seed {each.job.seed}: {words}"
        for each in judged
        if (words := _contradiction(each)) is not None
    ]


def _contradiction(each: Judged) -> str | None:
    if each.job.cured:
        return None if each.learned else "the cured twin does not learn"
    if each.learned == (not each.job.truth):
        return None
    return "it learns" if each.learned else "it does not learn"


def _judge_preset(job: Job) -> Judged:
    from vgexp.past import PastRun
    from vgexp.past.diagnosing import diagnose_run
    from zoo.peers import alarms

    summary: dict[str, Any] = json.loads((job.place / "summary.json").read_text(encoding="utf-8"))
    past = PastRun(job.place, is_strict=False)
    learned = summary.get("status") == "completed" and _has_learned(summary)
    diagnosis = diagnose_run(past)
    if job.cured:
        return Judged(job, learned, diagnosis.health, diagnosis.cause, (), {})
    names = ("layers", "steps", "evals", "loss", "wiring")
    tables = {name: table for name in names if (table := past.table(name)) is not None}
    facts = {"dtype": past.dtype, "num_classes": _num_classes(summary)}
    peers = alarms(tables, facts)
    told = (diagnosis.cause or "", *diagnosis.rivals)
    return Judged(job, learned, diagnosis.health, diagnosis.cause, told, peers)


def _judge_loop(job: Job) -> Judged:
    line = json.loads(job.place.read_text(encoding="utf-8"))
    told, learned = line["diagnosis"], bool(line["outcome"]["learned"])
    rivals = tuple(told.get("rivals") or ())
    named = (told["cause"] or "", *rivals)
    return Judged(
        job, learned, told["health"], told["cause"], named, line["peers"], line.get("check")
    )


def _has_learned(summary: dict[str, Any]) -> bool:
    last, guess = summary.get("loss_last_mean_20"), summary.get("constant_loss")
    return last is not None and guess is not None and last < LEARNED_BELOW * guess


def _num_classes(summary: dict[str, Any]) -> int | None:
    """The number of classes that are equally frequent; a guess's loss is its logarithm."""
    guess = summary.get("constant_loss")
    return None if not guess or guess < math.log(1.5) else round(math.exp(guess))
