"""Measures the numbers of `steps.csv` that a probe can see in somebody's own loop, at every step.

Nothing waits for the device at a step: tensors of a number each are kept, and read many at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from vgexp import metrics
from vgexp.probe.flat import FlatWeight, Members, held_as
from vgexp.probe.optimizers import StepHooks
from vgexp.probe.sharded import is_sharded, squares_of_flat, squares_of_shards
from vgexp.records import Floats, Rows
from vgexp.torch_internals import norm_each

Number = Tensor | float | None
"""A 0-d tensor on any device, a number, or nothing."""


_PLAIN = frozenset({Tensor, torch.float32, torch.float64, torch.strided})
NOTHING: Mapping[int, float] = MappingProxyType({})
_SUDDEN = 10.0
"""Times the norm of the gradient before, from which on it has grown suddenly."""


class _Step(NamedTuple):
    step: int
    lr: Number
    loss: Number
    grad_norm: Number
    grad_norm_clipped: Number
    skipped: Number
    loss_scale: Number
    gradient_scale: Number
    """The factor by which the norms are too large."""
    knows_clipping: bool


@final
class StepMeter:
    """The rows of `steps.csv` of a model and its optimizer.

    Norms are L2, over the model's trainable parameters that the optimizer holds; over all of them
    where it holds copies of its own.
    """

    def __init__(self, model: nn.Module, optimizer: StepHooks) -> None:
        self._model = model
        self._optimizer = optimizer
        self._held: tuple[int, list[nn.Parameter]] = (-1, [])
        self._in_flat: list[FlatWeight] = []
        self._steps: list[_Step] = []
        self._norm: Number = None
        self._norm_clipped: Number = None
        self._before: Number = None
        self.is_measured = True
        """Whether the step is one in which ranks exchange numbers: norms of sharded gradients are
        taken in no other."""

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters whose gradients are measured."""
        groups = self._optimizer.groups()
        num_held = sum(len(group["params"]) for group in groups)
        if num_held != self._held[0]:
            held = {id(p) for group in groups for p in group["params"]}
            every = [p for _, p in Members(self._model).parameters()]
            found = [p for p in every if id(held_as(p)) in held] or every
            self._in_flat = [p for p in found if isinstance(p, FlatWeight)]
            self._held = num_held, found
        return self._held[1]

    def before_clip(self, known: Mapping[int, float] = NOTHING) -> None:
        """Measures the norm before the loop clips the gradient.

        Args:
            known: norms of single gradients that were measured already, by the identity of their
                parameter.
        """
        self._norm = self._total_norm(known)

    def take_gradients(self, known: Mapping[int, float] = NOTHING) -> None:
        """Measures the norm of the gradient that the optimizer gets."""
        self._norm_clipped = self._total_norm(known)

    def end_step(
        self,
        step: int,
        loss: Number,
        loss_scale: Number,
        gradient_scale: Number,
        skipped: Number,
    ) -> bool:
        """Ends a step: its row is made of what was measured since the last.

        Returns whether the gradient's norm is ten times that of the step before, where both can be
        read without waiting for a device.
        """
        groups = self._optimizer.groups()
        lr = groups[0].get("lr") if groups else None
        clipped, self._norm_clipped = self._norm_clipped, None
        norm, self._norm = self._norm, None
        knows_clipping = norm is not None and clipped is not None
        self._steps.append(
            _Step(
                step,
                lr.detach().clone() if isinstance(lr, Tensor) else lr,
                loss,
                clipped if norm is None else norm,
                clipped,
                skipped,
                loss_scale,
                gradient_scale,
                knows_clipping,
            )
        )
        before, self._before = self._before, clipped if norm is None else norm
        if not (isinstance(before, float) and isinstance(self._before, float)):
            return False
        return 0 < _SUDDEN * before <= self._before

    def drain(self) -> Rows | None:
        """Returns the rows since the last call; on CUDA this waits for the device."""
        steps, self._steps = self._steps, []
        if not steps:
            return None
        read = {
            name: read_numbers([getattr(step, name) for step in steps])
            for name in _Step._fields[1:-1]
        }
        for name in ("grad_norm", "grad_norm_clipped"):
            pairs = zip(read[name], read["gradient_scale"], strict=True)
            read[name] = [None if norm is None else _divide(norm, by) for norm, by in pairs]
        norms = zip(read["grad_norm"], read["grad_norm_clipped"], strict=True)
        skipped = [None if value is None else int(value > 0) for value in read["skipped"]]
        columns: dict[str, Sequence[Any]] = {
            "step": [step.step for step in steps],
            "lr": floats(read["lr"], torch.float64),
            "loss": floats(read["loss"], self._dtype),
            "grad_norm": floats(read["grad_norm"], self._dtype),
            "grad_norm_clipped": floats(read["grad_norm_clipped"], self._dtype),
            "clipped": [
                int(norm != clipped) if step.knows_clipping else None
                for step, (norm, clipped) in zip(steps, norms, strict=True)
            ],
            "skipped": skipped,
            "loss_scale": floats(read["loss_scale"], self._dtype),
        }
        return Rows("steps", columns)

    @property
    def _dtype(self) -> torch.dtype:
        is_double = any(p.dtype is torch.float64 for p in self.parameters)
        return torch.float64 if is_double else torch.float32

    def _total_norm(self, known: Mapping[int, float]) -> Number:
        every = self.parameters
        if self._in_flat:
            return self._total_norm_with_flat(every) if self.is_measured else None
        trained = [p for p in every if p.grad is not None]
        grads = [p.grad for p in trained if p.grad is not None]
        if not grads or not (self.is_measured or not any(map(is_sharded, grads))):
            return None
        if known and all(id(p) in known for p in trained) and all(map(_is_plain, grads)):
            norm_of_known = math.hypot(*[known[id(p)] for p in trained])
            # One norm alone may exceed its dtype, though none of its entries does.
            if math.isfinite(norm_of_known):
                return norm_of_known
        norm = total_norm(grads)
        # Read at once where that is free, so that no small tensors stay.
        return float(norm) if isinstance(norm, Tensor) and norm.is_cpu else norm

    def _total_norm_with_flat(self, every: Sequence[nn.Parameter]) -> Number:
        """Every rank has to call it, also one that holds no part of a gradient."""
        grads = [p.grad for p in every if not isinstance(p, FlatWeight) and p.grad is not None]
        of_flat = float(squares_of_flat(self._in_flat)) ** 0.5
        return math.hypot(of_flat, float(total_norm(grads) or 0))


def total_norm(tensors: Sequence[Tensor]) -> Number:
    """L2 norm over all entries of tensors of any kind, on any devices, in float64.

    Of tensors that are sharded over ranks, every rank has to call it.
    """
    kinds = {(x.dtype, x.device) for x in tensors}
    if len(kinds) == 1 and all(map(_is_plain, tensors)):
        return metrics.total_norm(tensors)
    sharded: list[Tensor] = []
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for x in tensors:
        if is_sharded(x):
            sharded.append(x)
            continue
        if x.layout is not torch.strided:
            x = x.coalesce().values() if x.layout is torch.sparse_coo else x.to_dense()
        if x.is_complex():
            x = torch.view_as_real(x)
        if x.numel():
            alike.setdefault((x.dtype, x.device), []).append(x.detach())
    parts = [_norm_of(group, dtype) for (dtype, _), group in alike.items()]
    if sharded:
        parts.append(squares_of_shards(sharded).sqrt())
    if len(parts) == 1:
        return parts[0]
    one = parts[0].device if parts else None
    return torch.linalg.vector_norm(torch.stack([part.to(one) for part in parts])) if parts else 0.0


def _is_plain(x: Tensor) -> bool:
    return _PLAIN.issuperset((type(x), x.dtype, x.layout))


def _norm_of(tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
    if dtype in (torch.float32, torch.float64):
        return metrics.total_norm(tensors)
    # No square of a 16-bit number leaves float64.
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norm_each(tensors, 2, torch.float64)))
    return norm


def read_numbers(values: Sequence[Number]) -> list[float | None]:
    """Reads numbers, those of one device at once."""
    read: list[float | None] = [
        None if value is None or isinstance(value, Tensor) else float(value) for value in values
    ]
    places: dict[torch.device, list[int]] = {}
    for place, value in enumerate(values):
        if isinstance(value, Tensor):
            places.setdefault(value.device, []).append(place)
    for there in places.values():
        stacked = torch.stack([values[i].detach().reshape(()).double() for i in there])  # type: ignore[union-attr]
        for place, number in zip(there, stacked.tolist(), strict=True):
            read[place] = number
    return read


def floats(values: Sequence[float | None], dtype: torch.dtype) -> Floats:
    """Makes a column of numbers in a dtype; None is an empty cell."""
    numbers = torch.tensor([math.nan if v is None else v for v in values], dtype=torch.float64)
    present = torch.tensor([value is not None for value in values])
    return Floats(numbers.to(dtype).numpy(), None if present.all() else present.numpy())


def _divide(norm: float, by: float | None) -> float:
    """A scale that fell to 0 makes inf of a value."""
    if by is None or by == 1:
        return norm
    return norm / by if by else math.inf
