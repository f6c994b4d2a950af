"""Another module's matrix as a read-out that no module stands for: `F.linear(h, tokens.weight)`.

Such a use is taken as a call of a module of its own, within the module that calls the function. So
it has a row, a place among the layers and columns of z as any other use of a shared weight has. A
matrix that is no module's own weight, `h @ self.head`, has these in the row that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple
from weakref import WeakMethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp.probe.flat import Members, leaf_of
from vgexp.probe.functions import After, FunctionCall, FunctionWatcher
from vgexp.probe.graph import only_leaf, place_of
from vgexp.probe.plan import PlanRow, ProbePlan
from vgexp.probe.sharded import is_sharded
from vgexp.quantities.layers import READOUT
from vgexp.torch_internals import base_of

FUNCTIONS = (
    *(F.linear, torch.matmul, torch.mm, torch.bmm, torch.inner, torch.addmm, torch.baddbmm),
    *(torch.einsum, torch.tensordot),
    *(Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.inner, Tensor.__matmul__, Tensor.__rmatmul__),
)
"""Functions of which one factor may be the matrix, or a form of it such as `weight.T`."""
_WITH_SUMMAND = (torch.addmm, torch.baddbmm)
"""Those that add their first argument to the product of the other two."""


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
Site = tuple[nn.Module, bool, Callable[..., None]]
"""Where to set a hook: module, whether before its forward pass, and what to do."""


class TiedUses:
    """Finds the uses of matrices by functions, and has them measured.

    In the first step every such call makes a use, unless it is the call of the module whose weight
    the matrix is; later, those are seen that the model reads its output off. Others (distances to
    the vectors of a codebook, scores of positions) are no layers.

    Args:
        on_use: told of every use. It is held weakly: what it belongs to holds this object, and a
            cycle would keep the model in memory.
    """

    def __init__(self, model: nn.Module, plan: ProbePlan, on_use: WeakMethod[OnUse]) -> None:
        self._plan = plan
        self._on_use = on_use
        self._weights = {
            index: row.weight
            for index, row in enumerate(plan.rows)
            if row.weight is not None and row.weight.ndim == 2
        }
        """Row -> matrix, of those that are looked for."""
        if plan.is_settled:
            self._weights = {}
        members = Members(model)
        self._names = {id(module): name for name, module in members.modules()}
        self._owners = [(m, plan.twins.get(row, row)) for m, row in plan.preacts]
        """The modules that show z of a matrix, each with its row."""
        row_of = {id(weight): row for row, weight in self._weights.items()}
        self._in_parts = [
            (module, name, row_of[id(p)])
            for module, _ in plan.owners
            for name, p in members.own(module)
            if id(p) in row_of and is_sharded(p)
        ]
        """Modules and the names in them of matrices that are whole in a pass alone."""
        self._of_leaves = _of_leaves(plan)
        self._running: dict[int, int] = {}
        """Row -> how many of the modules that show its z run now."""
        self._known: dict[int, int] = {}
        self._sizes: set[int] = set()
        self._uses: dict[tuple[int, int], Use] = {}
        self._is_learning = True

    def watch(self, watcher: FunctionWatcher) -> None:
        """Asks to see the calls of functions."""
        if self._weights:
            watcher.watch(FUNCTIONS, self._see)

    def sites(self) -> Iterator[Site]:
        """Lists where to set hooks that tell which modules run."""
        for module, row in self._owners:
            if row in self._weights and not isinstance(module, nn.Embedding):
                yield module, True, partial(self._count, row, 1)
                yield module, False, partial(self._count, row, -1)

    def begin_pass(self) -> None:
        """Begins a pass of the model: calls that an error ended run no more."""
        self._running.clear()

    def end_learning(self, watcher: FunctionWatcher) -> None:
        """Ends the first step: where no read-out was found, none is looked for any more."""
        if not self._is_learning:
            return
        self._is_learning = False
        rows, merged, twins = self._plan.rows, self._plan.merged, self._plan.twins
        self._uses = {
            key: use
            for key, use in self._uses.items()
            if rows[merged.get(use.row, use.row)].kind == READOUT
        }
        found = {twins[use.row] for use in self._uses.values()}
        self._weights = {row: w for row, w in self._weights.items() if row in found}
        self._in_parts = [each for each in self._in_parts if each[-1] in found]
        self._owners = [(module, row) for module, row in self._owners if row in found]
        self._known.clear()
        if not self._uses:
            watcher.unwatch(self._see)

    def _count(self, row: int, by: int, *_: object) -> None:
        self._running[row] = self._running.get(row, 0) + by

    def _see(self, call: FunctionCall) -> After | None:
        given = [*call.args, *call.kwargs.values()]
        if call.function in _WITH_SUMMAND:
            given = given[1:]
        if given and isinstance(given[0], str) and len(given) == 2:
            given = [*given[1]] if isinstance(given[1], list | tuple) else given
        tensors = [x for x in given if isinstance(x, Tensor)][:2]
        for place, x in enumerate(tensors if len(tensors) == 2 else ()):
            main = self._row_of(x)
            if main is not None and not self._is_its_own(call.module, main):
                return partial(self._after, call.module, main, tensors[1 - place])
        return None

    def _is_its_own(self, module: nn.Module, main: int) -> bool:
        """Whether a call is that of the module whose output is z of the matrix, or is taken for it:
        of a module with several weights and none within it."""
        return self._running.get(main, 0) > 0 or (id(module), main) in self._of_leaves

    def _row_of(self, x: Tensor) -> int | None:
        """The row of the matrix that a tensor is, or is another form of."""
        if not self._known:
            for row, weight in self._weights.items():
                self._known[id(leaf_of(weight))] = row
            self._sizes = {w.numel() for w in self._weights.values()}
        if self._in_parts:
            return self._row_in_parts(x)
        known = self._known.get(id(x), self._known.get(id(base_of(x))))
        if known is not None or x.numel() not in self._sizes:
            return known
        place = place_of(x)
        if place is None:
            every = self._weights.items()
            return next((row for row, w in every if w.data_ptr() == x.data_ptr()), None)
        leaf = only_leaf(place)
        return None if leaf is None else self._known.get(id(leaf))

    def _row_in_parts(self, x: Tensor) -> int | None:
        """As `_row_of`, where matrices are whole in a pass alone."""
        place = place_of(x) if x.numel() in self._sizes else None
        leaf = None if place is None else only_leaf(place)
        for module, name, row in self._in_parts:
            whole = getattr(module, name)
            if x is whole or (leaf is not None and leaf is whole):
                return row
            if x.numel() == whole.numel() > 0 and x.data_ptr() == whole.data_ptr():
                return row
        return None

    def _after(self, module: nn.Module, main: int, read: Tensor, z: Tensor) -> None:
        use = self._uses.get((id(module), main))
        if use is None and self._is_learning:
            use = self._uses[id(module), main] = self._add(module, main)
        on_use = self._on_use()
        if use is not None and on_use is not None:
            with torch.enable_grad():
                on_use(use, read, z)

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


def _of_leaves(plan: ProbePlan) -> set[tuple[int, int]]:
    """(module, row) of the weights of modules within which no other has weights."""
    owning = {id(module) for module, _ in plan.owners}
    return {
        (id(module), row)
        for module, layers in plan.owners
        if not any(id(inner) in owning for inner in module.modules() if inner is not module)
        for layer in layers
        for row in layer
    }
