"""One call of `nn.RNN`, `nn.LSTM` or `nn.GRU`, run once more in segments of time.

Each layer is run from what the module read and with the gradients that came to its outputs. The
last states of a segment are tensors of their own, so that dL/ds can be asked for.

Axes: B examples, T steps in time, S steps of a segment, I inputs, H units of a state, D directions,
K states at the watched times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from vgexp import metrics
from vgexp.probe.meters.redrawn import Draws, drawing_from, dropped
from vgexp.probe.passes import Pass
from vgexp.torch_internals import version_of

TIME_POINTS = 10
"""Number of equally spaced times that are measured, as in vgexp's own models."""

LENGTHS = "time.csv: the reverse direction of sequences of several lengths is not measured"
CELL_LENGTHS = "time.csv: gradients of the last c of sequences of several lengths are left out"

Key = tuple[int, str, str, int]
"""Module, label of the layer and direction, state, t."""


class Measured(NamedTuple):
    """Of one call: what is measured, in the order of the two norms [K, 2] and the counts."""

    keys: list[Key]
    norms_K2: Tensor
    """Norms of the states, and of dL/ds."""
    entries: list[int]


class RecurrentCall(NamedTuple):
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
    draws: Draws | None
    """Of a call with dropout between its layers."""

    @property
    def is_intact(self) -> bool:
        """Whether what it read, and is compared with, was not written into since."""
        is_read_intact = version_of(self.original) == self.version
        return is_read_intact and (self.draws is None or self.draws.is_intact)

    @property
    def num_directions(self) -> int:
        return 2 if self.module.bidirectional else 1


def call_of(
    number: int,
    module: nn.RNNBase,
    of: Pass,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    draws: Draws | None,
) -> RecurrentCall:
    """Reads what a module is given in a call of a pass, which stays as it is."""
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
    return RecurrentCall(
        *(number, module, of, x_BTI, version, original, lengths, sizes, order, states, autocast),
        draws,
    )


def _batched(module: nn.RNNBase, x: Tensor) -> Tensor:
    """A sequence as [B, T, ..]."""
    if x.ndim == 2:
        return x.unsqueeze(0)
    return x if module.batch_first else x.transpose(0, 1)


def reasons_left_out(call: RecurrentCall, gradients: Sequence[Tensor | None]) -> list[str]:
    """Says what is not measured of a call."""
    if call.lengths is None:
        return []
    reasons = [LENGTHS] if call.module.bidirectional else []
    if len(gradients) > 2 and gradients[2] is not None:
        reasons.append(CELL_LENGTHS)
    return reasons


# ---------------------------------------------------------------- the second run


class _Run(NamedTuple):
    """A layer in one direction: its states at the watched times, and what it gives."""

    label: str
    h_BTH: Tensor
    watched: list[tuple[int, tuple[Tensor, ...]]]
    """Time, and the states [1, B, H] after it, whose gradients are those of the steps after."""
    last: tuple[Tensor, ...]


def measure(call: RecurrentCall, gradients: Sequence[Tensor | None]) -> Measured | None:
    """Runs the module once more, and measures states and dL/ds of all layers.

    None where the second run drew another dropout than the call.
    """
    above_BTH, *of_last = gradients
    with torch.enable_grad(), call.autocast(), _plain_kernels(call.x_BTI):
        runs = _run_all(call)
        y_BTH = torch.cat([run.h_BTH for run in runs[-call.num_directions :]], 2)
        if call.draws is not None and not call.draws.gave(_as_returned(call, y_BTH)):
            return None
        outputs, seeds = [y_BTH], [_above(call, above_BTH, y_BTH)]
        for place, gradient in enumerate(of_last):
            if gradient is not None:
                _add_last(call, place, gradient, runs, outputs, seeds)
    states = [s for run in runs for _, each in run.watched for s in each]
    wanted = [*(run.h_BTH for run in runs), *states]
    found = torch.autograd.grad(outputs, wanted, seeds, allow_unused=True)
    above = dict(zip((run.label for run in runs), found, strict=False))
    rest = iter(found[len(runs) :])
    keys: list[Key] = []
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
    return Measured(keys, _norms(pairs), [state.numel() for state, _ in pairs])


def _run_all(call: RecurrentCall) -> list[_Run]:
    """Runs every layer and direction, with the dropout that the call drew."""
    if call.draws is None:
        return _run_layers(call)
    with drawing_from(call.draws.state, call.x_BTI.device):
        return _run_layers(call)


def _run_layers(call: RecurrentCall) -> list[_Run]:
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
        if call.draws is not None and layer < module.num_layers - 1:
            x_BTI = dropped(x_BTI, module.dropout, call.batch_sizes)
    return runs


def _run(
    call: RecurrentCall, label: str, place: int, x_BTI: Tensor, states: tuple[Tensor, ...] | None
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


def _as_returned(call: RecurrentCall, y_BTH: Tensor) -> Tensor:
    """The module's output in the form that the call returned."""
    if call.batch_sizes is not None:
        lengths = call.lengths or [y_BTH.shape[1]] * len(y_BTH)
        return pack_padded_sequence(y_BTH, torch.tensor(lengths), batch_first=True).data
    assert call.draws is not None
    if call.draws.y.ndim == 2:
        return y_BTH[0]
    return y_BTH if call.module.batch_first else y_BTH.transpose(0, 1)


def _above(call: RecurrentCall, gradient: Tensor | None, y_BTH: Tensor) -> Tensor:
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
    call: RecurrentCall,
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
