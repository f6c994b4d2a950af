"""`time.csv` of recurrences that are written by hand: a weight used many times, each on the last.

That is `nn.Linear` or a convolution called in a loop, `nn.RNNCell`, `nn.LSTMCell`, `nn.GRUCell`,
torch's recurrent nets given one step at a time, or a parameter that functions multiply by. A use
follows the one before where a path of autograd's graph leads from its output to that of the other;
uses side by side, as of the weights of what a recurrence reads, are none in time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp import metrics
from vgexp.probe.functions import After, FunctionCall
from vgexp.probe.graph import Place, before, place_of, tensors_in
from vgexp.probe.hooks import Hook, Note
from vgexp.probe.meters.passes import Unseen
from vgexp.probe.passes import TWICE, Pass
from vgexp.probe.plan import PlanRow
from vgexp.probe.steps import Number, read_numbers
from vgexp.probe.taps import Taps
from vgexp.records import Floats, Rows
from vgexp.torch_internals import CONVOLUTIONS, backward_task, base_of

LEAST_USES = 4
"""Uses in a row from which on they are taken for steps in time."""
MOST_KEPT = 32
"""Uses of a row that are measured at most: beyond, every other one is left out, and so on."""
_MOST_NODES = 300
"""Nodes of the graph between two uses that are looked at, the nearest first."""
_MOST_APART = 8
"""Uses that follow none, after which a weight is looked at no more."""

FUNCTIONS = (
    *(F.linear, torch.matmul, torch.mm, torch.addmm, torch.einsum, torch.bmm, torch.baddbmm),
    *(torch.mul, F.conv1d, F.conv2d, F.conv3d, F.bilinear),
    *(Tensor.matmul, Tensor.mm, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mul),
    *(Tensor.__mul__, Tensor.__rmul__, Tensor.addmm, Tensor.bmm),
)
"""Functions of which one argument may be a parameter, or a view of it such as `weight.T`."""
_LOOKED_AT: tuple[Any, ...] = (
    *(nn.Linear, nn.Bilinear, nn.RNNCellBase, nn.RNNBase),
    *CONVOLUTIONS,
)
"""Modules whose calls are uses of their weight."""

_Site = tuple[int, str]
"""The identity of a weight, and what is looked at: z, or the state h or c."""


class _Use:
    __slots__ = ("entries", "is_kept", "norm", "num_gradients", "state_norm")

    def __init__(self, state: Tensor) -> None:
        self.is_kept = True
        self.entries = state.numel()
        self.state_norm = _norm(state)
        self.norm: Number = 0.0
        """Of dL/ds; 0 where no gradient comes."""
        self.num_gradients = 0


class _Row:
    """Uses of one weight, each of which reads what became of the one before."""

    def __init__(self) -> None:
        self.uses: dict[int, _Use] = {}
        self.num_uses = 0
        self.place: Place | None = None
        self.of: Pass | None = None
        """The place and the pass of the last use."""
        self.was_passed = False
        """Whether a backward pass went through it."""
        self.is_double = False
        self._stride = 1

    def add(self, use: _Use, place: Place, of: Pass) -> None:
        """Adds a use; those that are kept stay equally far apart, but for the last."""
        last = self.num_uses - 1
        if last % self._stride and last in self.uses:
            self.uses.pop(last).is_kept = False
        self.uses[self.num_uses] = use
        self.num_uses += 1
        self.place, self.of = place, of
        if len(self.uses) > MOST_KEPT:
            self._stride *= 2
            for number in [n for n in self.uses if n % self._stride and n < self.num_uses - 1]:
                self.uses.pop(number).is_kept = False

    def take(self, use: _Use, gradient: Tensor) -> None:
        """Measures dL/ds of a use, while the backward pass has it."""
        self.was_passed = True
        if use.is_kept:
            use.num_gradients += 1
            self.is_double = self.is_double or use.num_gradients > 1
            use.norm = _norm(gradient)


class UsesMeter:
    """N dL/dz of the uses of a weight, in their order; of a cell, N dL/ds of its states.

    It is the total derivative: what comes from a use's own answer and from all later ones. Numbers
    are made as the backward pass has a gradient, and of at most `MOST_KEPT` uses of a row are any
    kept, so that memory does not grow with time. A weight of which no use follows another is looked
    at for a few uses alone, and functions in the first update.
    """

    table = "time"

    def __init__(
        self, model: nn.Module, taps: Taps, rows: Sequence[PlanRow], note: Note, unseen: Unseen
    ) -> None:
        self._taps, self._note, self._unseen = taps, note, unseen
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._parameters = frozenset(self._names)
        self._modules: list[tuple[int, nn.Module]] = []
        for name, module in model.named_modules():
            if isinstance(module, _LOOKED_AT) and not isinstance(module, torch.jit.ScriptModule):
                weight = _weight_of(module)
                self._modules.append((weight, module))
                self._names[weight] = name or type(module).__name__
        self._rows_of_plan = rows
        self._handles: list[Any] = []
        self._on_tensors: list[Any] = []
        self._last: dict[_Site, _Row] = {}
        self._rows: list[tuple[_Site, _Row]] = []
        self._num_apart: dict[_Site, int] = {}
        self._is_row: set[_Site] = set()
        """Sites of which a use followed another."""
        self._of_modules: set[_Site] = set()
        self._has_breaks: set[_Site] = set()
        self._is_whole: set[_Site] = set()
        """Sites whose uses within a pass follow one another, as the first update has shown."""
        self._is_learning = True
        self._has_found = False
        taps.functions.watch(FUNCTIONS, self._see)

    @property
    def has_sites(self) -> bool:
        """Whether uses in a row were found."""
        return self._has_found

    def arm(self) -> None:
        self._forget()
        if self._handles:
            return
        for weight, module in self._modules:
            if not self._is_learning and all(site[0] != weight for site in self._is_row):
                continue
            hook = Hook(self._note, None, partial(self._on_call, weight))
            handle = hook.set_after(module)
            if handle is not None:
                self._handles.append(handle)

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget()

    def take(
        self, step: int, num_examples: float, loss_scale: Tensor | float
    ) -> Callable[[], Rows] | None:
        found = [(site, row) for site, row in self._rows if self._counts(site, row)]
        if self._taps.has_counted and self._is_learning:
            self._end_learning()
        self._forget()
        if not found:
            return None
        self._has_found = True
        scale = loss_scale.clone() if isinstance(loss_scale, Tensor) else loss_scale
        return partial(self._make, step, found, num_examples, scale)

    def _forget(self) -> None:
        self._last, self._rows = {}, []
        for handle in self._on_tensors:
            handle.remove()
        self._on_tensors.clear()

    def _counts(self, site: _Site, row: _Row) -> bool:
        is_long = row.num_uses >= LEAST_USES and row.was_passed
        if not is_long or row.of is None or not self._taps.counts(row.of):
            return False
        if row.is_double:
            self._unseen(f"time.csv of {self._names[site[0]]}", TWICE)
        return not row.is_double

    def _end_learning(self) -> None:
        """After the first update only what was used in a row is looked at."""
        self._is_learning = False
        self._is_whole = self._is_row - self._has_breaks
        if self._is_row <= self._of_modules:
            self._taps.functions.unwatch(self._see)
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.remove()

    # ------------------------------------------------------------ uses

    def _on_call(self, weight: int, module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(module, nn.RNNBase):
            self._on_call_of_net(weight, module, output)
            return
        is_cell = isinstance(module, nn.RNNCellBase)
        outputs = output if isinstance(output, tuple) else (output,)
        for state, x in zip("hc" if is_cell else "z", outputs, strict=False):
            self._of_modules.add((weight, state))
            self._add((weight, state), x)

    def _on_call_of_net(self, weight: int, module: nn.RNNBase, output: Any) -> None:
        """A call of a net in one direction is a use: the last state of its last layer, to which
        gradients come by both outputs."""
        y, last = output
        h = last[0] if isinstance(last, tuple) else last
        if not isinstance(y, Tensor) or module.bidirectional or module.proj_size:
            return
        self._of_modules.add((weight, "h"))
        added = self._add_use((weight, "h"), h, h[-1])
        if added is None:
            return
        row, use = added
        time = 1 if module.batch_first and y.ndim == 3 else 0

        def on_both(gradients: Sequence[Tensor | None]) -> None:
            of_y, of_h = gradients
            parts = [] if of_h is None else [of_h[-1]]
            parts += [] if of_y is None else [of_y.select(time, -1)]
            if parts:
                row.take(use, parts[0] if len(parts) == 1 else parts[0] + parts[1])

        hook = Hook(self._note, None, on_both)
        handle = torch.autograd.graph.register_multi_grad_hook((y, h), hook)
        self._on_tensors.append(handle)

    def _see(self, call: FunctionCall) -> After | None:
        for x in tensors_in((call.args[:4], call.kwargs)):
            weight = next((i for i in (id(x), id(base_of(x))) if i in self._parameters), None)
            if weight is not None and (self._is_learning or (weight, "z") in self._is_row):
                return partial(self._add, (weight, "z"))
        return None

    def _add(self, site: _Site, x: Any) -> None:
        """Adds a use whose output is z or a state, and has its gradient measured."""
        added = self._add_use(site, x, x)
        if added is not None:
            row, use = added
            hook = Hook(self._note, None, partial(row.take, use))
            self._on_tensors.append(x.register_hook(hook))

    def _add_use(self, site: _Site, x: Any, state: Any) -> tuple[_Row, _Use] | None:
        """Adds a use that ends at the place of `x`; None where it is not looked at, or was added
        already, by a function that a module calls."""
        if not isinstance(x, Tensor) or backward_task() != -1 or self._is_apart(site):
            return None
        place, of = place_of(x), self._taps.current_pass()
        if place is None or of is None or not x.numel() or x.layout is not torch.strided:
            return None
        row = self._last.get(site)
        if row is not None and row.place == place:
            return None
        if row is None or not self._follows(site, row, place, of):
            if row is not None:
                row.place = None  # it keeps a graph, and passes without a backward pass are many
                if row.num_uses < LEAST_USES:
                    self._rows.remove((site, row))
            row = self._last[site] = _Row()
            self._rows.append((site, row))
        use = _Use(state.detach())
        row.add(use, place, of)
        return row, use

    def _is_apart(self, site: _Site) -> bool:
        return self._num_apart.get(site, 0) >= _MOST_APART and site not in self._is_row

    def _follows(self, site: _Site, row: _Row, place: Place, of: Pass) -> bool:
        """Whether a use at a place reads what became of the last of a row."""
        if row.was_passed or row.place is None:
            return False
        if site in self._is_whole and row.of is of:
            return True
        if _leads(place, row.place):
            self._is_row.add(site)
            return True
        self._num_apart[site] = self._num_apart.get(site, 0) + 1
        if row.of is of:
            self._has_breaks.add(site)
        return False

    # ------------------------------------------------------------ rows

    def _make(
        self,
        step: int,
        found: Sequence[tuple[_Site, _Row]],
        num_examples: float,
        loss_scale: Tensor | float,
    ) -> Rows:
        """Rows over all uses of one number, whichever micro-batch they are of."""
        sums: dict[tuple[str, int], tuple[Any, int]] = {}
        layers: dict[str, int] = {}
        for (weight, state), row in found:
            name = f"{self._names[weight]}.{state}"
            layers[name] = self._layer(weight)
            for number, use in row.uses.items():
                norms = read_numbers([use.state_norm, use.norm])
                before_, count = sums.get((name, number), (np.zeros(2), 0))
                both = np.hypot(before_, np.array(norms, dtype=np.float64))
                sums[name, number] = both, count + use.entries
        keys = sorted(sums, key=lambda key: (layers[key[0]], key))
        rms_K2 = np.array([sums[key][0] / np.sqrt(sums[key][1]) for key in keys])
        columns: dict[str, Sequence[Any]] = {
            "step": [step] * len(keys),
            "layer": [layers[name] for name, _ in keys],
            "name": [name for name, _ in keys],
            "t": [number for _, number in keys],
            "delta_rms": Floats(rms_K2[:, 1] * (num_examples / float(loss_scale))),
            "state_rms": Floats(rms_K2[:, 0]),
        }
        return Rows(self.table, columns)

    def _layer(self, weight: int) -> int:
        """The layer of a weight in `layers.csv`; 1 where it has none."""
        own = (row.layer for row in self._rows_of_plan if id(row.weight) == weight)
        return next(own, None) or 1


def _weight_of(module: nn.Module) -> int:
    """The identity of the weight by which a module's uses are known; of a weight that is computed
    anew at each call, the module's own."""
    name = "weight_hh" if isinstance(module, nn.RNNCellBase) else "weight"
    if isinstance(module, nn.RNNBase):
        name = f"weight_hh_l{module.num_layers - 1}"
    weight = dict(module.named_parameters(recurse=False)).get(name)
    return id(module if weight is None else weight)


def _leads(start: Place, goal: Place) -> bool:
    """Whether a path leads back from a place to another, as far as it is looked at."""
    pending, seen = deque([start]), {start}
    for _ in range(_MOST_NODES):
        if not pending:
            return False
        for place in before(pending.popleft()):
            if place == goal:
                return True
            if place not in seen:
                seen.add(place)
                pending.append(place)
    return False


def _norm(x: Tensor) -> Number:
    """The L2 norm of all entries; of those on a CPU read at once, so that no small tensors stay."""
    x = x.detach()
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    norm = metrics.row_norms(wide.reshape(1, -1))[0]
    return float(norm) if norm.is_cpu else norm
