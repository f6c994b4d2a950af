"""The matrix of an embedding as a read-out that no module stands for: `F.linear(h, tokens.weight)`.

Such a use is taken as a call of a module of its own, within the module that calls the function. So
it has a row, a place among the layers and columns of z as any other use of a shared weight has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakMethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp.probe.flat import FlatWeight, Members
from vgexp.probe.functions import After, FunctionCall, FunctionWatcher
from vgexp.probe.plan import PlanRow, ProbePlan
from vgexp.quantities.layers import READOUT
from vgexp.torch_internals import base_of

FUNCTIONS = (
    *(F.linear, torch.matmul, torch.mm),
    *(Tensor.matmul, Tensor.mm, Tensor.__matmul__),
)
"""Functions of which one argument may be the matrix, or a view of it such as `weight.T`."""


class FunctionUse(nn.Module):
    """Stands for the calls of a function with the matrix. It is never called itself."""


class Use(NamedTuple):
    """A use of a matrix."""

    name: str
    """As if it were a module within the one that calls the function."""
    module: FunctionUse
    row: int


OnUse = Callable[[Use, Tensor, Tensor], None]
"""Is called with a use, what the function read beside the matrix, and its result z."""


class TiedUses:
    """Finds the uses of embeddings' matrices by functions, and has them measured.

    In the first step every such call makes a use, if its module does not own the matrix; later,
    those are seen that the model reads its output off. Others (distances to the vectors of a
    codebook, scores of positions) are no layers.

    Args:
        on_use: told of every use. It is held weakly: what it belongs to holds this object, and a
            cycle would keep the model in memory.
    """

    def __init__(self, model: nn.Module, plan: ProbePlan, on_use: WeakMethod[OnUse]) -> None:
        self._plan = plan
        self._on_use = on_use
        row_of = {
            id(row.weight): index for index, row in enumerate(plan.rows) if row.weight is not None
        }
        self._members = Members(model)
        self._main: dict[int, int] = {}
        self._in_flat: list[tuple[nn.Module, int]] = []
        """Embeddings whose matrix is there in a pass alone, each with the row."""
        for _, module in self._members.modules():
            weight = dict(self._members.own(module)).get("weight")
            if isinstance(module, nn.Embedding) and id(weight) in row_of:
                self._main[id(weight)] = row_of[id(weight)]
                if isinstance(weight, FlatWeight):
                    self._in_flat.append((module, row_of[id(weight)]))
        self._names = {id(module): name for name, module in self._members.modules()}
        self._uses: dict[tuple[int, int], Use] = {}
        self._is_learning = True

    def watch(self, watcher: FunctionWatcher) -> None:
        """Asks to see the calls of functions."""
        if self._main and not self._plan.is_settled:
            watcher.watch(FUNCTIONS, self._see)

    def end_learning(self, watcher: FunctionWatcher) -> None:
        """Ends the first step: where no read-out was found, none is looked for any more."""
        if not self._is_learning:
            return
        self._is_learning = False
        rows = self._plan.rows
        self._uses = {key: u for key, u in self._uses.items() if rows[u.row].kind == READOUT}
        if not self._uses:
            watcher.unwatch(self._see)

    def _see(self, call: FunctionCall) -> After | None:
        given = [*call.args[:2], *call.kwargs.values()]
        tensors = [x for x in given if isinstance(x, Tensor)]
        for place, x in enumerate(tensors[:2]):
            main = self._main.get(id(x), self._main.get(id(base_of(x))))
            if main is None and self._in_flat:
                main = self._main_in_flat(x)
            if main is not None and len(tensors) > 1:
                return partial(self._after, call.module, main, tensors[1 - place])
        return None

    def _main_in_flat(self, x: Tensor) -> int | None:
        """The row of the matrix that a tensor is, or is another form of, while a pass runs."""
        for module, row in self._in_flat:
            weight: Any = module.weight
            if x is weight or (
                x.numel() and x.data_ptr() == weight.data_ptr() and x.numel() == weight.numel()
            ):
                return row
        return None

    def _after(self, module: nn.Module, main: int, read: Tensor, z: Tensor) -> None:
        use = self._uses.get((id(module), main))
        if use is None and self._is_learning and not self._is_owner(module, main):
            use = self._uses[id(module), main] = self._add(module, main)
        on_use = self._on_use()
        if use is not None and on_use is not None:
            with torch.enable_grad():
                on_use(use, read, z)

    def _is_owner(self, module: nn.Module, main: int) -> bool:
        weight = self._plan.rows[main].weight
        return any(weight is p for _, p in self._members.own(module))

    def _add(self, module: nn.Module, main: int) -> Use:
        """Makes the row of a use, beside that of its matrix."""
        plan, caller = self._plan, self._names.get(id(module), "")
        known = {row.name for row in plan.rows}
        name = f"{plan.rows[main].name}.T"
        if name in known:
            name = f"{name} in {caller or type(module).__name__}"
        use = Use(f"{caller}.{len(plan.rows)}".lstrip("."), FunctionUse(), len(plan.rows))
        plan.rows.append(PlanRow(name, None, None, "linear", is_wanted=False))
        plan.twins[use.row] = main
        plan.preacts.append((use.module, use.row))
        plan.owners.append((use.module, [(use.row,)]))
        return use
