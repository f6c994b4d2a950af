"""`time.csv` of `nn.RNN`, `nn.LSTM` and `nn.GRU` in anybody's model.

Within a call no state can be seen. At a measured step each layer is therefore run once more as the
backward pass reaches the module, from what it read and with the gradients that came to its outputs,
in segments of time whose last states are tensors of their own.

Axes: B examples, T steps in time, I inputs, H units of a state, D directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from vgexp import metrics
from vgexp.probe.guests.passes import OfPasses, Unseen
from vgexp.probe.hooks import Hook, Note
from vgexp.probe.passes import OVERWRITTEN, Pass
from vgexp.probe.plan import PlanRow
from vgexp.probe.taps import Taps
from vgexp.records import Floats, Rows
from vgexp.torch_internals import backward_task, version_of

TIME_POINTS = 10
"""Number of equally spaced times that are measured, as in vgexp's own models."""

DROPOUT = "time.csv: it has dropout between its layers, which a second run would draw anew"
CALLED_AGAIN = "time.csv: it is called several times in a pass; the first call is measured"
LENGTHS = "time.csv: the reverse direction of sequences of several lengths is not measured"
CELL_LENGTHS = "time.csv: gradients of the last c of sequences of several lengths are left out"

_Key = tuple[int, str, str, int]
"""Module, label of the layer and direction, state, t."""


class _Measured(NamedTuple):
    """Of one call: what is measured, in the order of the two norms [K, 2] and the counts."""

    keys: list[_Key]
    norms_K2: Tensor
    """Norms of the states, and of dL/ds."""
    entries: list[int]


class _Call(NamedTuple):
    """What a module read in a call."""

    number: int
    module: nn.RNNBase
    of: Pass
    x_BTI: Tensor
    version: int
    original: Tensor
    lengths: list[int] | None
    """None: all examples have T steps."""
    batch_sizes: Tensor | None
    """Of a packed sequence."""
    order: Tensor | None
    """Of a packed sequence that was sorted: which example stands where."""
    states: tuple[Tensor, ...] | None
    """The first states [layers x D, B, H], as they were given."""
    autocast: Callable[[], Any]

    @property
    def num_directions(self) -> int:
        return 2 if self.module.bidirectional else 1


class GuestTimeMeter:
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
        self._sites = [
            (name or type(model).__name__, module)
            for name, module in model.named_modules()
            if isinstance(module, nn.RNNBase)
        ]
        self._passes: OfPasses[_Measured] = OfPasses(taps)
        self._rows_of_plan = {row.name: row for row in rows}
        self._note, self._unseen = note, unseen
        self._seen: list[tuple[int, Pass]] = []
        self._handles: list[Any] = []

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

    # ------------------------------------------------------------ calls

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
        if module.dropout and module.training and module.num_layers > 1:
            self._unseen(name, DROPOUT)
            return
        self._seen.append((number, current))
        call = _call_of(number, module, current, args, kwargs)
        ends = last if isinstance(last, tuple) else (last,)
        hook = Hook(self._note, None, partial(self._on_gradients, call))
        torch.autograd.graph.register_multi_grad_hook((y, *ends), hook)

    def _on_gradients(self, call: _Call, gradients: Sequence[Tensor | None]) -> None:
        name = self._sites[call.number][0]
        if version_of(call.original) != call.version:
            self._unseen(name, f"time.csv: {OVERWRITTEN}")
            return
        for reason in _left_out(call, gradients):
            self._unseen(name, reason)
        self._passes.keep(call.of, _measure(call, gradients))

    # ------------------------------------------------------------ rows

    def _rows(
        self,
        step: int,
        found: Sequence[_Measured],
        num_examples: float,
        loss_scale: Tensor | float,
    ) -> Rows:
        sums: dict[_Key, Any] = {}
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


def _order(key: _Key) -> tuple[Any, ...]:
    number, label, state, t = key
    return number, _layer_of(label), label, state != "h", t


def _layer_of(label: str) -> int:
    return int(label.removeprefix("l").partition("_")[0])


def _call_of(
    number: int, module: nn.RNNBase, of: Pass, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> _Call:
    given = dict(zip(("input", "hx"), args, strict=False)) | kwargs
    x, states = given["input"], given.get("hx")
    lengths, sizes, order = None, None, None
    if isinstance(x, PackedSequence):
        original, sizes, order = x.data, x.batch_sizes, x.sorted_indices
        # In the order in which the packed outputs stand.
        plain = PackedSequence(x.data.detach(), sizes)
        x_BTI, lengths_B = pad_packed_sequence(plain, batch_first=True)
        lengths = lengths_B.tolist() if len(set(lengths_B.tolist())) > 1 else None
    else:
        original = x
        x_BTI = _batched(module, x.detach())
    if states is not None:
        states = states if isinstance(states, tuple) else (states,)
        states = tuple(s.detach() if s.ndim == 3 else s.detach().unsqueeze(1) for s in states)
        if order is not None:
            states = tuple(s.index_select(1, order) for s in states)
    device = x_BTI.device.type
    is_on, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    autocast = partial(torch.autocast, device, dtype=dtype, enabled=is_on)
    version = version_of(original)
    return _Call(
        *(number, module, of, x_BTI, version, original, lengths, sizes, order, states, autocast)
    )


def _batched(module: nn.RNNBase, x: Tensor) -> Tensor:
    """A sequence as [B, T, ..]."""
    if x.ndim == 2:
        return x.unsqueeze(0)
    return x if module.batch_first else x.transpose(0, 1)


def _left_out(call: _Call, gradients: Sequence[Tensor | None]) -> list[str]:
    if call.lengths is None:
        return []
    reasons = [LENGTHS] if call.module.bidirectional else []
    if len(gradients) > 2 and gradients[2] is not None:
        reasons.append(CELL_LENGTHS)
    return reasons


# ---------------------------------------------------------------- one call, run once more


class _Run(NamedTuple):
    """A layer in one direction: its states at the watched times, and what it gives."""

    label: str
    h_BTH: Tensor
    watched: list[tuple[int, tuple[Tensor, ...]]]
    """Time, and the states [1, B, H] after it, whose gradients are those of the steps after."""
    last: tuple[Tensor, ...]


def _measure(call: _Call, gradients: Sequence[Tensor | None]) -> _Measured:
    """Runs the module once more, and measures states and dL/ds of all layers."""
    above_BTH, *of_last = gradients
    with torch.enable_grad(), call.autocast(), _plain_kernels(call.x_BTI):
        runs = _run_all(call)
        y_BTH = torch.cat([run.h_BTH for run in runs[-call.num_directions :]], 2)
        outputs, seeds = [y_BTH], [_above(call, above_BTH, y_BTH)]
        for place, gradient in enumerate(of_last):
            if gradient is not None:
                _add_last(call, place, gradient, runs, outputs, seeds)
    states = [s for run in runs for _, each in run.watched for s in each]
    wanted = [*(run.h_BTH for run in runs), *states]
    found = torch.autograd.grad(outputs, wanted, seeds, allow_unused=True)
    above = dict(zip((run.label for run in runs), found, strict=False))
    rest = iter(found[len(runs) :])
    keys: list[_Key] = []
    pairs: list[tuple[Tensor, Tensor]] = []
    for run in runs:
        for t, each in run.watched:
            alive = slice(None) if call.lengths is None else [n > t for n in call.lengths]
            for name, s in zip(("h", "c"), each, strict=False):
                state, back = s.detach()[0], next(rest)
                total = torch.zeros_like(state) if back is None else back[0]
                direct = above[run.label]
                if name == "h" and direct is not None:
                    total = total + direct[:, t]
                keys.append((call.number, run.label, name, t))
                pairs.append((_real(state[alive]), _real(total[alive])))
    return _Measured(keys, _norms(pairs), [state.numel() for state, _ in pairs])


def _run_all(call: _Call) -> list[_Run]:
    """Runs every layer and direction, the first layer first."""
    module, x_BTI = call.module, call.x_BTI.requires_grad_()
    directions = call.num_directions
    runs: list[_Run] = []
    for layer in range(module.num_layers):
        own = []
        for direction in range(directions):
            place = layer * directions + direction
            first = (
                None if call.states is None else tuple(s[place : place + 1] for s in call.states)
            )
            label = f"l{layer}" + ("_reverse" if direction else "")
            own.append(_run(call, label, place, x_BTI, first))
        runs += own
        x_BTI = torch.cat([run.h_BTH for run in own], 2) if len(own) > 1 else own[0].h_BTH
    return runs


def _run(
    call: _Call, label: str, place: int, x_BTI: Tensor, states: tuple[Tensor, ...] | None
) -> _Run:
    """Runs one layer in one direction, in segments that end where a state is measured."""
    num_steps, is_reverse = x_BTI.shape[1], label.endswith("reverse")
    points = min(TIME_POINTS, num_steps)
    times = [k * num_steps // points - 1 for k in range(1, points + 1)]
    if is_reverse:
        x_BTI = _reversed(x_BTI, call.lengths)
        times = [] if call.lengths else [num_steps - 1 - t for t in reversed(times)]
    watched, parts, start = [], [], 0
    for end in sorted({*(t + 1 for t in times), num_steps}):
        h_BSH, states = _call_cell(call.module, place, x_BTI[:, start:end], states)
        parts.append(h_BSH)
        if end - 1 in times:
            watched.append((num_steps - end if is_reverse else end - 1, states))
        start = end
    h_BTH = torch.cat(parts, 1)
    if is_reverse:
        h_BTH = _reversed(h_BTH, call.lengths)
    assert states is not None
    return _Run(label, h_BTH, sorted(watched, key=lambda one: one[0]), states)


def _call_cell(
    module: nn.RNNBase, place: int, x_BSI: Tensor, states: tuple[Tensor, ...] | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One layer over some steps: h [B, S, H], and the last states [1, B, H]."""
    weights = module.all_weights[place]
    is_lstm = isinstance(module, nn.LSTM)
    if states is None:
        sizes = [getattr(module, "proj_size", 0) or module.hidden_size, module.hidden_size]
        states = tuple(
            x_BSI.new_zeros(1, len(x_BSI), size, dtype=weights[0].dtype)
            for size in sizes[: 2 if is_lstm else 1]
        )
    function = _FUNCTIONS[module.mode]
    given: Any = list(states) if is_lstm else states[0]
    y, *last = function(x_BSI, given, weights, module.bias, 1, 0.0, module.training, False, True)
    return y, tuple(last)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}


def _reversed(x_BTI: Tensor, lengths: list[int] | None) -> Tensor:
    """Each example's steps in reverse; what comes after its end stays there."""
    if lengths is None:
        return x_BTI.flip(1)
    t_T = torch.arange(x_BTI.shape[1], device=x_BTI.device)
    ends_B = torch.tensor(lengths, device=x_BTI.device)[:, None]
    index_BT = torch.where(t_T < ends_B, ends_B - 1 - t_T, t_T)
    return x_BTI.gather(1, index_BT[:, :, None].expand_as(x_BTI))


def _above(call: _Call, gradient: Tensor | None, y_BTH: Tensor) -> Tensor:
    """dL/dy [B, T, H] of what came to the module's output; 0 where nothing did."""
    if gradient is None:
        return torch.zeros_like(y_BTH)
    gradient = gradient.detach()
    if call.batch_sizes is not None:
        padded, _ = pad_packed_sequence(
            PackedSequence(gradient, call.batch_sizes), batch_first=True
        )
        return padded.to(y_BTH.dtype)
    return _batched(call.module, gradient).to(y_BTH.dtype)


def _add_last(
    call: _Call,
    place: int,
    gradient: Tensor,
    runs: Sequence[_Run],
    outputs: list[Tensor],
    seeds: list[Tensor],
) -> None:
    """Adds the gradient that came to the last h (place 0) or c (place 1) of all layers."""
    gradient = gradient.detach()
    if gradient.ndim == 2:
        gradient = gradient.unsqueeze(1)
    if call.order is not None:
        gradient = gradient.index_select(1, call.order)
    for own, run in zip(gradient, runs, strict=True):
        if call.lengths is None:
            outputs.append(run.last[place])
            seeds.append(own.unsqueeze(0).to(run.last[place].dtype))
        elif place == 0:
            is_reverse = run.label.endswith("reverse")
            ends = [0 if is_reverse else n - 1 for n in call.lengths]
            outputs.append(run.h_BTH[range(len(ends)), ends])
            seeds.append(own.to(run.h_BTH.dtype))


def _norms(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """[K, 2]: the norms of each pair; of equal shapes all at once."""
    if len({state.shape for state, _ in pairs}) == 1:
        stacked = torch.stack([x for pair in pairs for x in pair]).flatten(1)
        return metrics.row_norms(stacked).view(-1, 2)
    each = [metrics.row_norms(torch.stack(pair).flatten(1)) for pair in pairs]
    return torch.stack(each)


def _real(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _plain_kernels(x: Tensor) -> AbstractContextManager[Any]:
    """On CUDA, kernels that take the weights of one layer, which lie in no chunk of their own."""
    return torch.backends.cudnn.flags(enabled=False) if x.is_cuda else nullcontext()
