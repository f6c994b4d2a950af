"""`time.csv` of `nn.RNN`, `nn.LSTM` and `nn.GRU` in anybody's model.

Within a call no state can be seen. At a measured step each layer is therefore run once more as the
backward pass reaches the module, from what it read and with the gradients that came to its outputs,
in segments of time whose last states are tensors of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.rnn import PackedSequence

from vgexp.probe.flat import Members
from vgexp.probe.hooks import Hook, Note
from vgexp.probe.meters.passes import OfPasses, Unseen
from vgexp.probe.meters.recurrent_calls import (
    Key,
    Measured,
    RecurrentCall,
    call_of,
    measure,
    reasons_left_out,
)
from vgexp.probe.meters.redrawn import Draws, generator_state, has_dropout
from vgexp.probe.passes import OVERWRITTEN, Pass
from vgexp.probe.plan import PlanRow
from vgexp.probe.taps import Taps
from vgexp.records import Floats, Rows
from vgexp.torch_internals import backward_task, version_of

DROPOUT = (
    "time.csv: the dropout between its layers cannot be drawn a second time (cuDNN draws from a"
    " generator of its own)"
)
CALLED_AGAIN = "time.csv: it is called several times in a pass; the first is measured within"
COMPUTED = (
    "time.csv: its weights are computed anew each time that they are read, and what computes them"
    " may change by it, as a spectral norm does"
)


class TorchTimeMeter:
    """N dL/ds_t of each state s at the watched times, of every layer and direction.

    It is the total derivative with respect to the state: for h_t what comes from above at t plus
    what comes back from the step after it in the direction of reading. An LSTM's h_t and c_t are
    two variables, as in the tables of vgexp's own models. Where sequences end at different times,
    the numbers are over the examples that are not at their end by then.
    """

    table = "time"

    def __init__(
        self,
        model: nn.Module,
        taps: Taps,
        rows: Sequence[PlanRow],
        note: Note,
        unseen: Unseen,
    ) -> None:
        self._sites: list[tuple[str, nn.RNNBase]] = []
        for path, module in Members(model).modules():
            name = path or type(model).__name__
            if isinstance(module, nn.RNNBase) and is_parametrized(module):
                unseen(name, COMPUTED)
            elif isinstance(module, nn.RNNBase):
                self._sites.append((name, module))
        self._passes: OfPasses[Measured] = OfPasses(taps)
        self._rows_of_plan = {row.name: row for row in rows}
        self._note, self._unseen = note, unseen
        self._seen: list[tuple[int, Pass]] = []
        self._handles: list[Any] = []
        self._states: dict[int, Tensor] = {}
        """Of the generator before the last call of a module with dropout."""

    @property
    def has_sites(self) -> bool:
        """Whether the model has such modules."""
        return bool(self._sites)

    def arm(self) -> None:
        self._forget()
        if self._handles:
            return
        for number, (_, module) in enumerate(self._sites):
            if isinstance(module, torch.jit.ScriptModule):
                continue
            hook = Hook(self._note, None, partial(self._on_call, number))
            self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
            if module.dropout and module.num_layers > 1:
                before = Hook(self._note, None, partial(self._before_call, number))
                self._handles.append(module.register_forward_pre_hook(before))

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget()

    def take(
        self, step: int, num_examples: float, loss_scale: Tensor | float
    ) -> Callable[[], Rows] | None:
        found = self._passes.of_update()
        self._forget()
        if not found:
            return None
        scale = loss_scale.clone() if isinstance(loss_scale, Tensor) else loss_scale
        return partial(self._rows, step, found, num_examples, scale)

    def _forget(self) -> None:
        self._passes.forget()
        self._seen = []
        self._states.clear()

    # ------------------------------------------------------------ calls

    def _before_call(self, number: int, module: nn.RNNBase, _: object) -> None:
        if has_dropout(module) and torch.is_grad_enabled():
            self._states[number] = generator_state(next(module.parameters()).device)

    def _on_call(
        self, number: int, module: nn.RNNBase, args: tuple[Any, ...], kwargs: Any, output: Any
    ) -> None:
        sequence, last = output
        y = sequence.data if isinstance(sequence, PackedSequence) else sequence
        current = self._passes.current()
        if current is None or torch.compiler.is_compiling() or not y.requires_grad:
            return
        name = self._sites[number][0]
        if any(n == number and each is current for n, each in self._seen):
            # Within a backward pass it is checkpointing that repeats the call.
            if backward_task() == -1:
                self._unseen(name, CALLED_AGAIN)
            return
        self._seen.append((number, current))
        state = self._states.pop(number, None)
        draws = None if state is None else Draws(state, y.detach(), version_of(y))
        call = call_of(number, module, current, args, kwargs, draws)
        ends = last if isinstance(last, tuple) else (last,)
        hook = Hook(self._note, None, partial(self._on_gradients, call))
        torch.autograd.graph.register_multi_grad_hook((y, *ends), hook)

    def _on_gradients(self, call: RecurrentCall, gradients: Sequence[Tensor | None]) -> None:
        name = self._sites[call.number][0]
        if not call.is_intact:
            self._unseen(name, f"time.csv: {OVERWRITTEN}")
            return
        measured = measure(call, gradients)
        if measured is None:
            self._unseen(name, DROPOUT)
            return
        for reason in reasons_left_out(call, gradients):
            self._unseen(name, reason)
        self._passes.keep(call.of, measured)

    # ------------------------------------------------------------ rows

    def _rows(
        self,
        step: int,
        found: Sequence[Measured],
        num_examples: float,
        loss_scale: Tensor | float,
    ) -> Rows:
        sums: dict[Key, Any] = {}
        for one in found:
            host = one.norms_K2.cpu().numpy()
            dtype = host.dtype
            for key, norms, entries in zip(one.keys, host.astype(np.float64), one.entries,
                                           strict=True):  # fmt: skip
                before, count = sums.get(key, (np.zeros(2), 0))
                sums[key] = np.hypot(before, norms), count + entries
        keys = sorted(sums, key=_order)
        rms_K2 = np.array([sums[key][0] / np.sqrt(max(1, sums[key][1])) for key in keys])
        delta = rms_K2[:, 1] * (num_examples / float(loss_scale))
        names = [self._sites[number][0] for number, *_ in keys]
        columns: dict[str, Sequence[Any]] = {
            "step": [step] * len(keys),
            "layer": [self._layer(number, label) for number, label, *_ in keys],
            "name": [f"{n}.{key[1]}.{key[2]}" for n, key in zip(names, keys, strict=True)],
            "t": [key[3] for key in keys],
            "delta_rms": Floats(delta.astype(dtype)),
            "state_rms": Floats(rms_K2[:, 0].astype(dtype)),
        }
        return Rows(self.table, columns)

    def _layer(self, number: int, label: str) -> int:
        """The layer of its weights in `layers.csv`; where they have none, they count on from one
        module to the next."""
        name = self._sites[number][0]
        own = self._rows_of_plan.get(f"{name}.weight_ih_{label}")
        if own is not None and own.layer is not None:
            return own.layer
        before = sum(module.num_layers for _, module in self._sites[:number])
        return 1 + before + _layer_of(label)


def _order(key: Key) -> tuple[Any, ...]:
    number, label, state, t = key
    return number, _layer_of(label), label, state != "h", t


def _layer_of(label: str) -> int:
    return int(label.removeprefix("l").partition("_")[0])
