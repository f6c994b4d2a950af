"""What a loop of the zoo is, and the training that most of them share."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

import vgexp
from vgexp import Probe
from vgexp.errors import QuestionError

if TYPE_CHECKING:
    import pandas as pd

HEALTHY = "healthy"
TUNE, HELD, FRESH, REPORTS = "tune", "held", "fresh", "reports"
FAULTS, FORUMS = "faults", "forums"

Batch = tuple[Tensor, ...]
LossFunction = Callable[..., Tensor]
Score = Callable[[nn.Module], float]
Check = dict[str, str | None]


class Result(NamedTuple):
    """What came out of one training."""

    diagnosis: dict[str, Any]
    """`Diagnosis.to_dict()`."""
    outcome: dict[str, Any]
    """`learned`, `first`, `last`: the loop's own measure before and after, and whether it is
    enough. No rule of the diagnosis has a part in it."""
    tables: dict[str, pd.DataFrame]
    """Those of the probe, by name."""
    facts: dict[str, Any]
    """What else was known: `dtype`, `num_classes`."""
    check: Check | None = None
    """`health` and `cause` by `vgexp.check` before training; None: the loop has another form."""


@dataclass(frozen=True)
class Goal:
    """How a loop measures whether it learned: a score of the model, and what is enough."""

    score: Score
    enough: float
    higher: bool = True
    """Whether a larger score is better, as of an accuracy; an error is better if smaller."""

    def is_reached(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        return value >= self.enough if self.higher else value <= self.enough


@dataclass(frozen=True)
class Loop:
    """One training whose health is known."""

    name: str
    half: str
    """`tune`: rules may be set by it. `held`: only reported. `fresh`: written after the rules were
    set, by someone who had not read them. `reports`: like `fresh`, after public reports of failed
    trainings whose cause an answer or a fix confirmed. `faults`: like `fresh`, each fault an entry
    of a published catalogue of deep learning faults, planted in a training that works. `forums`:
    after other public questions, by someone who had read neither the rules nor the other sets. Set
    when the loop was written."""
    truth: str | tuple[str, ...]
    """The cause, or those that are all right, or `healthy`."""
    train: Callable[..., Result]
    """`train(seed, cured=False)`. A healthy loop has no cured twin, and ignores `cured`."""
    about: str = ""
    """What it is; of one of the sets `reports` and `forums` also where it was reported, of one of
    `faults` the entry of a catalogue."""

    @property
    def is_sick(self) -> bool:
        return self.truth != HEALTHY


@dataclass
class Parts:
    """A training, ready to run. `step` makes one update, and returns nothing."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: LossFunction
    batches: Iterable[Batch]
    goal: Goal
    step: Callable[..., None] | None = None
    """`step(model, optimizer, loss, batch)`; None: the usual five lines."""
    probe: dict[str, Any] | None = None
    num_classes: int | None = None


_WATCHES: list[Callable[[Parts], AbstractContextManager[Any]]] = []


def run(parts: Parts) -> Result:
    """Checks, then trains under a probe, and measures before and after with the model in eval
    mode."""
    first = measure(parts)
    step = parts.step or usual_step
    parts.model.train()
    batches = iter(parts.batches)
    batch = next(batches)
    check = _check(parts, batch)
    with ExitStack() as others:
        for watch in _WATCHES:
            others.enter_context(watch(parts))
        probe = others.enter_context(Probe(parts.model, parts.optimizer, **(parts.probe or {})))
        loss = probe.watch_loss(parts.loss)
        for each in itertools.chain((batch,), batches):
            step(parts.model, parts.optimizer, loss, each)
    return result_of(probe, parts, first, check)


def _check(parts: Parts, batch: Batch) -> Check | None:
    """What `vgexp.check` says before training, if it takes the loop's batch; it changes nothing."""
    try:
        said = vgexp.check(parts.model, parts.loss, batch, parts.optimizer)
    except QuestionError:  # the loop's own step calls the model or the loss in another form
        return None
    return {"health": said.health, "cause": said.cause}


@contextmanager
def watching(watch: Callable[[Parts], AbstractContextManager[Any]]) -> Iterator[None]:
    """Lets another tool watch the trainings that are made within the `with`."""
    _WATCHES.append(watch)
    try:
        yield
    finally:
        _WATCHES.remove(watch)


def usual_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: LossFunction, batch: Batch
) -> None:
    """One update as most loops make it."""
    x, y = batch
    value = loss(model(x), y)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()


def measure(parts: Parts) -> float:
    """The loop's own score."""
    parts.model.eval()
    with torch.no_grad():
        return float(parts.goal.score(parts.model))


def result_of(probe: Probe, parts: Parts, first: float, check: Check | None = None) -> Result:
    """The result of a training that is over."""
    last = measure(parts)
    outcome = {"learned": parts.goal.is_reached(last), "first": first, "last": last}
    parameter = next(parts.model.parameters())
    facts = {
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "num_classes": parts.num_classes,
    }
    tables = {name: probe.to_frame(name) for name in probe.tables}
    return Result(probe.diagnose().to_dict(), outcome, tables, facts, check)


def loops_of(half: str, makers: Iterable[tuple[str, str | tuple[str, ...], Any]]) -> list[Loop]:
    """Loops of one half, from `(name, truth, make)`: `make(cured)` returns `Parts`.

    It is called after `torch.manual_seed(seed)`, with batches drawn after the weights.
    """
    return [
        Loop(name, half, truth, _trainer(make), inspect.cleandoc(make.__doc__ or ""))
        for name, truth, make in makers
    ]


def _trainer(make: Callable[[bool], Parts]) -> Callable[..., Result]:
    def train(seed: int, cured: bool = False) -> Result:
        torch.manual_seed(seed)
        return run(make(cured))

    return train
