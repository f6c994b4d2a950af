"""Sets hooks on a network to measure the forward and backward passes of an optimizer step.

The hooks run in the user's forward and backward pass, so they only keep references. These are
reduced to numbers before the optimizer's step, many layers at a time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vgexp.probe import moments, stacks
from vgexp.probe.cut_states import CutStates
from vgexp.probe.discovery import Discovery
from vgexp.probe.examples import TIME_FIRST, Examples
from vgexp.probe.free_activations import FreeActivations
from vgexp.probe.functions import FunctionWatcher
from vgexp.probe.histograms import Histograms
from vgexp.probe.hooks import Hook, Note
from vgexp.probe.micro_batches import MicroBatches
from vgexp.probe.moments import ColumnCells, GroupNumbers
from vgexp.probe.own_metrics import OwnMetrics
from vgexp.probe.passes import NO_MEASURES, Pass
from vgexp.probe.plan import ProbePlan, first_tensor
from vgexp.probe.ranks import Lost, Ranks
from vgexp.probe.strangers import Strangers
from vgexp.probe.tied import TiedUses, Use
from vgexp.torch_internals import backward_task, packs_what_is_saved
from vgexp.watch import Slope

USED_AGAIN = (
    "used {} times in a forward pass: one row over all of them, with the layer and kind of the"
    " first; a later use has no layer, delta_rms or backward_gain of its own, and backward_gain of"
    " the weight before it reaches over it to the next"
)


class Taps:
    """The hooks of one plan. `collect` ends a step, `disarm` removes the hooks."""

    def __init__(
        self,
        model: nn.Module,
        plan: ProbePlan,
        examples: Examples,
        note: Note,
        ranks: Ranks | None = None,
        own: OwnMetrics | None = None,
    ) -> None:
        self._ranks = ranks
        self._model = model
        self._plan = plan
        self._note = note
        self._measured = plan.measured
        channels_first = frozenset(i for i, row in enumerate(plan.rows) if row.kind == "conv")
        self._own = own
        measures = NO_MEASURES if own is None else own.of_calls
        parameters = list(model.parameters())
        self._passes = MicroBatches(parameters, channels_first, examples, note, measures)
        self._free = FreeActivations(model, plan, self._passes)
        self._functions = FunctionWatcher(model, note)
        self._free.watch(self._functions)
        self._tied = TiedUses(model, plan, weakref.WeakMethod(self._on_use))
        self._tied.watch(self._functions)
        self.cut_states = None if plan.is_settled else CutStates(model, self._functions, note)
        self._strangers = None if plan.is_settled else Strangers(model)
        self._sites: list[tuple[nn.Module, bool, Hook]] = []
        self._hooks: list[Any] = []
        self._discovery = Discovery(model, plan, note) if not plan.is_settled else None
        self._counted: list[Pass] = []
        self.ran_silently: set[int] = set()
        """Rows whose module was called under no_grad while it was looked at."""
        self.has_seen_packing = False
        """Whether what a layer saves for the backward pass was packed, in any step so far."""

    # ------------------------------------------------------------ life

    def arm(self, *, with_histograms: bool = False) -> None:
        """Sets the hooks, if they are not set, for passes with or without histograms."""
        self._passes.with_histograms = with_histograms
        if self._hooks:
            return
        if not self._sites:
            self._plan_sites()
        for module, is_before, hook in self._sites:
            if is_before:
                handle = hook.set_before(module, with_kwargs=hook is self._sites[0][2])
            else:
                handle = hook.set_after(module)
            if handle is not None:
                self._hooks.append(handle)
        self._functions.arm()
        if self.cut_states is not None:
            self.cut_states.arm()
        if self._discovery is not None:
            self._discovery.arm()

    def _plan_sites(self) -> None:
        """Plans where to set which hook. It stays the same until more of the model is known."""
        plan, before, after = self._plan, self._before, self._after
        before(self._model, None, self._on_model)
        for module, row in plan.preacts:
            after(module, row, self._preact_hook(row))
        for module, row in plan.streams:
            # Which modules are blocks is known after the first pass.
            if row in self._measured and not (plan.is_settled and plan.rows[row].layer is None):
                after(module, row, self._stream_hook(row))
        acts = {(id(module), row) for module, row in plan.acts}
        for module, activation_row, slope in plan.activations:
            if activation_row is not None and activation_row in self._measured:
                is_act = (id(module), activation_row) in acts
                acts.discard((id(module), activation_row))
                self._arm_activation(module, activation_row, slope, is_act)
        for module, is_before, do in (*self._free.sites(), *self._tied.sites()):
            (before if is_before else after)(module, None, do)
        for module, row in plan.acts:
            if (id(module), row) in acts and row in self._measured:
                after(module, row, self._keeping(row, "h", None))
        for module in self._model.modules() if plan.owners else ():
            if isinstance(module, TIME_FIRST) and not module.batch_first:
                before(module, None, self._on_time_first)
        after(self._model, None, self._on_output)

    def disarm(self) -> None:
        """Removes all hooks."""
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()
        self._functions.disarm()
        if self.cut_states is not None:
            self.cut_states.disarm()
        if self._discovery is not None:
            self._discovery.disarm()

    def leave(self) -> None:
        """Removes all hooks, and forgets them."""
        self.disarm()
        self.drop()
        if self.cut_states is not None:
            self.cut_states.forget()
        # They hold this object; they are planned anew if the probe comes back.
        self._sites.clear()

    def reduce(self) -> None:
        """Reduces the step's tensors to numbers, before the update, which may change a slope."""
        self._free.settle()
        if self.cut_states is not None:
            self.cut_states.end_step()
        if self._passes.used():
            self._free.end_learning(self._functions)
        if self._discovery is not None:
            self._discovery.settle()
            self._note_shared()
            self.disarm()
            self._measured = self._plan.measured
            self._sites.clear()
            if not self._discovery.is_needed:
                self._discovery = None
        if self._passes.used():
            self._tied.end_learning(self._functions)
        for each in self._passes.used():
            each.reduce()
            each.reduce_gradients()

    def collect(self) -> tuple[dict[str, ColumnCells], int, Histograms]:
        """Ends a step that was reduced. Returns the columns' cells, the number of examples and the
        histograms of all passes that count.

        `delta_rms` is still that of dL/dz, without the factor N.
        """
        used, merged = self._passes.used(), self._plan.merged
        parts: dict[str, list[GroupNumbers]] = {}
        lost: Lost = {}
        for each in used:
            lost.update({(q, merged.get(row, row)): why for (q, row), why in each.lost.items()})
            for quantity, more in each.parts.items():
                if merged:
                    more = [
                        part._replace(rows=tuple([merged.get(row, row) for row in part.rows]))
                        for part in more
                    ]
                parts.setdefault(quantity, []).extend(more)
        examples = sum(each.examples for each in used)
        self._counted = used
        if self._ranks is not None:
            parts, lost, examples = self._ranks.join(parts, lost, examples)
        for (_, row), reason in lost.items():
            self._note(row, reason)
        self._passes.end_step()
        self.drop()
        columns = _columns(parts, lost)
        if self._own is not None:
            columns |= self._own.columns_of(parts, lost)
        return columns, examples, Histograms(parts, frozenset(lost))

    @property
    def has_passes(self) -> bool:
        """Whether a forward pass was seen in this step."""
        return self._passes.has_any

    @property
    def functions(self) -> FunctionWatcher:
        """What sees the calls of functions while the hooks are set."""
        return self._functions

    def current_pass(self) -> Pass | None:
        """The pass that began last in the step at hand."""
        return self._passes.last if self._passes.has_any else None

    @property
    def has_counted(self) -> bool:
        """Whether a pass counted in the step that was collected last."""
        return bool(self._counted)

    def counts(self, one: Pass) -> bool:
        """Whether this one did."""
        return any(each is one for each in self._counted)

    def drop(self) -> None:
        """Forgets the tensors of the current step."""
        self._passes.drop()
        self._free.drop()
        if self._strangers is not None:
            self._strangers.drop()
        if self._discovery is not None:
            self._discovery.drop()

    @property
    def unregistered(self) -> dict[int, str]:
        """What was used and is no parameter of the model: its identity, shape and what used it."""
        behind = {} if self._strangers is None else self._strangers.found
        return self._free.unregistered or behind

    def _note_shared(self) -> None:
        """Notes weights that a pass uses several times, since their cells are over all uses."""
        plan = self._plan
        not_blocks = {row for _, row in plan.streams if plan.rows[row].layer is None}
        for each in self._passes.used():
            counts: dict[int, int] = {}
            for (role, row), num_calls in each.num_calls.items():
                if role == "z" and row not in not_blocks:
                    row = plan.merged.get(row, row)
                    counts[row] = counts.get(row, 0) + num_calls
            for row, num_calls in counts.items():
                if num_calls > 1:
                    self._note(row, USED_AGAIN.format(num_calls))

    def _before(self, module: nn.Module, row: int | None, do: Callable[..., None]) -> None:
        self._sites.append((module, True, Hook(self._note, row, do)))

    def _after(self, module: nn.Module, row: int | None, do: Callable[..., None]) -> None:
        self._sites.append((module, False, Hook(self._note, row, do)))

    def _arm_activation(self, module: nn.Module, row: int, slope: Slope, is_act: bool) -> None:
        from_output = slope.from_output is not None
        if row in self._plan.z_readers and from_output:
            role = "hy" if is_act else "y"

            passes = self._passes

            def keep_both(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
                current = passes.current(row, args)
                if current is None or (backward_task() != -1 and current.repeats("z", row)):
                    return
                self._keep_z(current, row, args[0])
                current.keep(role, row, output, slope)

            self._after(module, row, keep_both)
            return
        if row in self._plan.z_readers:
            keep_z = self._preact_hook(row)
            self._before(module, row, lambda _, args: keep_z(_, args, args[0]))
        if from_output:
            self._after(module, row, self._keeping(row, "hy" if is_act else "y", slope))
            return

        def keep_input(_: nn.Module, args: tuple[Any, ...]) -> None:
            self._keep(row, "u", args[0], slope)

        self._before(module, row, keep_input)
        if is_act:
            self._after(module, row, self._keeping(row, "h", None))

    # ------------------------------------------------------------ what the hooks do

    def _on_model(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if backward_task() == -1:
            self._free.drop_calls()
            self._tied.begin_pass()
            if self._strangers is not None and not self._strangers.has_looked:
                self._strangers.on_call(args, kwargs)
        self._passes.on_model_call(args, kwargs)

    def _on_time_first(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        if args and backward_task() == -1:
            self._passes.on_time_first(args[0])

    def _on_output(self, _: nn.Module, _args: Any, output: Any) -> None:
        result = first_tensor(output)
        if result is not None:
            self._passes.on_model_output(result)
        if self._discovery is not None:
            self._discovery.on_output(output)
        if self._strangers is not None and not self._strangers.has_looked:
            self._strangers.on_output(output)

    def _preact_hook(self, row: int) -> Callable[..., None]:
        is_free = bool(self._plan.owners)
        is_measured = row in self._measured

        def on_preact(_: nn.Module, args: Any, output: Any) -> None:
            z = output if isinstance(output, Tensor) else first_tensor(output)
            current = self._passes.current(row, args)
            if z is not None and current is None and not torch.is_grad_enabled():
                self.ran_silently.add(row)
            if z is None or current is None:
                return
            if is_free:
                self._free.name(current, z, row)
            if is_measured and not self._repeats(current, "z", row):
                self._keep_z(current, row, z)

        return on_preact

    def _on_use(self, use: Use, read: Tensor, z: Tensor) -> None:
        current = self._passes.current(self._plan.merged.get(use.row, use.row), read)
        if current is None:
            return
        if self._discovery is not None:
            self._discovery.on_use(use, read, z)
            self._measured = self._plan.measured
        row = self._plan.merged.get(use.row, use.row)
        self._free.name(current, z, row)
        if row in self._measured and not self._repeats(current, "z", row):
            self._keep_z(current, row, z)

    def _stream_hook(self, row: int) -> Callable[..., None]:
        def on_stream(_: nn.Module, args: Any, output: Any) -> None:
            z = first_tensor(output)
            current = None if z is None else self._passes.current(row, args)
            if z is None or current is None or not z.is_floating_point():
                return
            if not self._repeats(current, "z", row):
                self._keep_z(current, row, z)

        return on_stream

    def _keep_z(self, current: Pass, row: int, z: Tensor) -> None:
        current.keep("z", row, z)
        if not z.requires_grad:
            return
        self.has_seen_packing = self.has_seen_packing or packs_what_is_saved()
        awaited = current.await_gradient(row)
        # A list's own method, called from C++, costs the backward pass next to nothing.
        hook: Callable[..., Any] = awaited.came.append
        if stacks.is_large(z):
            hook = Hook(self._note, row, partial(current.take_gradient, awaited))
        self._passes.hook(z, hook)

    def _keeping(self, row: int, role: str, slope: Slope | None) -> Callable[..., None]:
        def keep_output(_: nn.Module, _args: Any, output: Tensor) -> None:
            self._keep(row, role, output, slope)

        return keep_output

    def _keep(self, row: int, role: str, x: Tensor, slope: Slope | None) -> None:
        current = self._passes.current(None, x)
        if current is not None and not self._repeats(current, role, row):
            current.keep(role, row, x, slope)

    def _repeats(self, current: Pass, role: str, row: int) -> bool:
        return backward_task() != -1 and current.repeats(role, row)


def _columns(parts: dict[str, list[GroupNumbers]], lost: Lost) -> dict[str, ColumnCells]:
    columns: dict[str, ColumnCells] = {}
    for quantity, names, combine in _COMBINATIONS:
        for name, cells in zip(names, combine(parts.get(quantity, [])), strict=False):
            columns[name] = cells
            if lost:
                missing = frozenset(row for each, row in lost if each == quantity)
                columns[name] = cells._replace(missing=missing)
    return columns


_COMBINATIONS = (
    ("z", ("preact_mean", "preact_std"), moments.combine_moments),
    ("h", ("act_mean", "act_std"), moments.combine_moments),
    ("peak", ("act_max", "act_outlier_fraction"), moments.combine_peaks),
    ("slope", ("saturated_fraction", "dead_fraction"), moments.combine_slopes),
    ("delta", ("delta_rms",), moments.combine_rms),
)
