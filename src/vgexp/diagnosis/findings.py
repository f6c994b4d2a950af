"""What a rule finds, what can be done about it, and what a rule is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from vgexp.diagnosis.needs import UNKNOWN_LOSSES, say_lacking
from vgexp.diagnosis.outcome import bad_loss
from vgexp.errors import QuestionError

if TYPE_CHECKING:
    from vgexp.diagnosis.evidence import Evidence


class Number(NamedTuple):
    """A number that a finding rests on, and the limit that it was compared with."""

    value: float
    limit: float | None = None


@dataclass(frozen=True)
class Remedy:
    """One thing that can be done about a finding."""

    words: str
    """A whole sentence, which the composer puts after the finding's own."""
    why: str
    """Why it helps, in one sentence."""
    override: str | None = None
    """What to type behind `vgexp train`; None where no key of the configuration does it."""
    code: str | None = None
    """The same in PyTorch, for a loop that vgexp does not run."""
    source: str | None = None
    """Author and year of the paper that it comes from."""


@dataclass(frozen=True)
class Finding:
    """What one rule has found."""

    id: str
    """The name of the rule."""
    sentence: str
    """What was found, as a whole sentence with this network's numbers."""
    step: int | None = None
    """The step that it is about; None where it is about none in particular."""
    layers: tuple[str, ...] = ()
    """Names of the layers that it is about, as far as the evidence has names."""
    numbers: Mapping[str, Number] = field(default_factory=dict)
    """Metric -> its value and its limit."""
    remedies: tuple[Remedy, ...] = ()
    """The first is the one to try first."""
    kind: str = "note"
    """`sickness` (the cause), `consequence` of it, or `note`."""
    explains: tuple[str, ...] = ()
    """Ids of the findings beside it that are its consequences."""
    is_fact: bool | None = None
    """Whether it is wrong even in a network that learned; None: as its rule says (`CauseRule`)."""
    scope: str = ""
    """What the sentence is restricted to, such as `On the first seed:`. The composer says it once
    for findings that follow one another."""


@dataclass(frozen=True)
class Rule:
    """A function that judges evidence, and what it needs to do so."""

    judge: Callable[[Evidence], Finding | None]
    needs: tuple[str, ...]
    """Tables (`curvature.csv`), fields of `Evidence` (`dtype`) and metrics of the summary."""

    @property
    def id(self) -> str:
        """The function's name."""
        return self.judge.__name__

    @property
    def summary(self) -> str:
        """The first sentence of the function's docstring."""
        return (inspect.getdoc(self.judge) or "").split("\n\n")[0].replace("\n", " ")

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding; None where there is none, and where the evidence lacks what is needed.

        A rule that ends in an error is unchecked, and no diagnosis and no summary is lost for it.

        Raises:
            QuestionError: a file of the evidence, which is read when it is asked for, is damaged.
        """
        try:
            return None if self.reason_unchecked(evidence) else self.judge(evidence)
        except (QuestionError, OSError):
            raise
        except Exception as error:
            evidence.note_raised(self.id, error)
            return None

    def reason_unchecked(self, evidence: Evidence) -> str | None:
        """Why the rule cannot be checked; None where it can be."""
        if self.id in evidence.withheld:
            return evidence.withheld[self.id]
        if self.id in evidence.raised:
            return evidence.raised[self.id]
        lacking = [need for need in self.needs if evidence.lacks(need)]
        reason = say_lacking(lacking, is_trained_here=evidence.config is not None) or None
        return bad_loss(evidence) or reason if reason == UNKNOWN_LOSSES else reason


def rule(*needs: str) -> Callable[[Callable[[Evidence], Finding | None]], Rule]:
    """Makes a rule of the decorated function, whose name becomes the id."""
    return lambda judge: Rule(judge, needs)


@dataclass(frozen=True)
class CauseRule(Rule):
    """A rule whose finding may be the cause of a sickness (`causes`): its id is that cause's."""

    cause: str = ""
    limit: float | None = None
    """The threshold; None where a law or a fact decides."""
    why_this_limit: str = ""
    source: str | None = None
    is_certain: bool = False
    """Whether what it finds is wrong even in a network that learned, or whose loss nobody knows."""

    least_steps: int = 0
    """Updates below which it finds nothing, whatever the network."""
    without_steps: str = ""
    """A metric with which it needs none of them."""

    @property
    def id(self) -> str:
        """The cause's."""
        return self.cause

    def reason_unchecked(self, evidence: Evidence) -> str | None:
        """As of a `Rule`; too few steps are a reason as well."""
        if (reason := super().reason_unchecked(evidence)) is not None:
            return reason
        if not self.least_steps or evidence.metrics.get(self.without_steps) is not None:
            return None
        known = evidence.num_steps
        is_short = known is not None and known < self.least_steps
        return f"needs {self.least_steps} steps" if is_short else None


def cause_rule(
    cause: str,
    *needs: str,
    limit: float | None = None,
    reason: str,
    source: str | None = None,
    certain: bool = False,
    least_steps: int = 0,
    without_steps: str = "",
) -> Callable[[Callable[[Evidence], Finding | None]], CauseRule]:
    """Makes a rule of the decorated function, with its threshold and the reason for it."""
    more = (limit, reason, source, certain, least_steps, without_steps)
    return lambda judge: CauseRule(judge, needs, cause, *more)
