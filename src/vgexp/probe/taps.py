"""The hooks on a network: what the forward and backward passes of one optimizer step show.

The hooks run in the user's forward and backward pass, so they only take references; numbers are
made of them before the optimizer's step, many layers at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vgexp.probe import moments
from vgexp.probe.discovery import Call, number_layers
from vgexp.probe.moments import Cells, Part
from vgexp.probe.passes import Copies, Pass
from vgexp.probe.plan import Plan, first_tensor
from vgexp.watch import Slope

LARGE_ENTRIES = 2**14
"""A gradient of so many entries is looked at as it comes, so that many need not be kept."""

_backward_task: Callable[[], int] = torch._C._current_graph_task_id
# Autograd's number of the backward pass that is running; -1 outside of any.

Note = Callable[[int | None, str], None]
"""Takes a row (None: the model) and what could not be measured of it."""


class Hook:
    """A hook that never breaks the user's training, and that no copy of the model takes along."""

    __slots__ = ("_do", "_note", "_row")

    def __init__(self, note: Note, row: int | None, do: Callable[..., None]) -> None:
        self._note = note
        self._row = row
        self._do = do

    def __call__(self, *arguments: Any) -> None:
        try:
            self._do(*arguments)
        except Exception as error:
            self._note(self._row, f"measuring it raised {type(error).__name__}: {error}")

    def __deepcopy__(self, memo: object) -> Callable[..., None]:
        return ignore

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _ignoring, ()


def ignore(*_: Any) -> None:
    """What stands for a hook in a copied or saved model."""


def _ignoring() -> Callable[..., None]:
    return ignore


class Taps:
    """Hooks of one plan; `collect` ends a step, `disarm` takes every hook away."""

    def __init__(self, model: nn.Module, plan: Plan, note: Note) -> None:
        self._model = model
        self._plan = plan
        self._note = note
        self._measured = plan.measured
        self._copies = Copies()
        self._channels_first = frozenset(i for i, r in enumerate(plan.rows) if r.kind == "conv")
        self._passes: list[Pass] = []
        self._sites: list[tuple[nn.Module, bool, Hook]] = []
        self._hooks: list[Any] = []
        self._tensor_hooks: list[Any] = []
        self._before_backward: list[tuple[int, int]] = []
        self._after_backward: list[tuple[int, int]] = []
        self._discovering = any(row.layer is None for row in plan.rows)
        self._calls: dict[int, Call] = {}
        self._outputs: list[tuple[Tensor, int]] = []
        self._model_output: Tensor | None = None

    # ------------------------------------------------------------ life

    def arm(self) -> None:
        """Sets the hooks, if they are not set."""
        if self._hooks:
            return
        if not self._sites:
            self._plan_sites()
        for module, is_before, hook in self._sites:
            if is_before:
                with_kwargs = hook is self._sites[0][2]
                handle = module.register_forward_pre_hook(hook, with_kwargs=with_kwargs)
            else:
                handle = module.register_forward_hook(hook)
            self._hooks.append(handle)

    def _plan_sites(self) -> None:
        """Which hook goes where: the same at every measured step, until more is discovered."""
        plan, before, after = self._plan, self._before, self._after
        before(self._model, None, self._on_model)
        for module, row in plan.preacts:
            after(module, row, self._preact_hook(row))
        acts = {(id(module), row) for module, row in plan.acts}
        for module, activation_row, slope in plan.activations:
            if activation_row is None:
                self._arm_free_activation(module, slope)
            elif activation_row in self._measured:
                is_act = (id(module), activation_row) in acts
                acts.discard((id(module), activation_row))
                self._arm_activation(module, activation_row, slope, is_act)
        for module, row in plan.acts:
            if (id(module), row) in acts and row in self._measured:
                after(module, row, self._keeping(row, "h", None))
        after(self._model, None, self._on_output)
        if self._discovering:
            for module, layers in plan.owners:
                before(module, None, partial(self._on_call, layers))

    def disarm(self) -> None:
        """Takes every hook away."""
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()

    def reduce(self) -> None:
        """Makes numbers of what the step showed; before the update, which may change a slope."""
        if self._discovering:
            number_layers(self._plan, list(self._calls.values()), self._outputs, self._model_output)
            self._discovering = any(row.layer is None for row in self._plan.rows)
            self._measured = self._plan.measured
            self.disarm()
            self._sites.clear()
        for each in self._passes:
            if each.has_gradients:
                each.reduce()
                each.reduce_gradients()

    def collect(self) -> tuple[dict[str, Cells], int]:
        """Ends a step: column -> cells, and examples, of all passes that had gradients.

        `delta_rms` is still that of dL/dz, without the factor N.
        """
        self.reduce()
        used = [p for p in self._passes if p.has_gradients]
        parts: dict[str, list[Part]] = {}
        lost: set[tuple[str, int]] = set()
        for each in used:
            for (quantity, row), reason in each.lost.items():
                lost.add((quantity, row))
                self._note(row, reason)
            for quantity, more in each.parts.items():
                parts.setdefault(quantity, []).extend(more)
        self.drop()
        if used:
            self._copies.learnt()
        return _columns(parts, lost), sum(p.examples for p in used)

    def drop(self) -> None:
        """Forgets what the current step showed."""
        for handle in self._tensor_hooks:
            handle.remove()
        self._tensor_hooks.clear()
        self._passes.clear()
        self._calls.clear()
        self._outputs.clear()
        self._model_output = None

    def _before(self, module: nn.Module, row: int | None, do: Callable[..., None]) -> None:
        self._sites.append((module, True, Hook(self._note, row, do)))

    def _after(self, module: nn.Module, row: int | None, do: Callable[..., None]) -> None:
        self._sites.append((module, False, Hook(self._note, row, do)))

    def _arm_activation(self, module: nn.Module, row: int, slope: Slope, is_act: bool) -> None:
        from_output = slope.from_output is not None
        if row in self._plan.z_readers and from_output:
            role = "hy" if is_act else "y"

            def keep_both(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
                current = self._pass(row, args)
                if current is not None and not self._repeats(current, "z", row):
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

    def _arm_free_activation(self, module: nn.Module, slope: Slope) -> None:
        """An activation of a stranger's model: its row is found when it is called."""
        rows: list[int | None] = []

        def on_input(_: nn.Module, args: tuple[Any, ...]) -> None:
            row = self._owner(args[0])
            rows.append(row)
            if row is not None and slope.from_output is None:
                # A copy, since the module may work in place.
                self._passes[-1].keep("u", row, args[0].clone(), slope)

        def on_output(_: nn.Module, _args: Any, output: Tensor) -> None:
            row = rows.pop() if rows else None
            if row is not None:
                role, phi = ("h", None) if slope.from_output is None else ("hy", slope)
                self._passes[-1].keep(role, row, output, phi)

        self._before(module, None, on_input)
        self._after(module, None, on_output)

    # ------------------------------------------------------------ what the hooks do

    def _on_model(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not torch.is_grad_enabled():
            return
        task = _backward_task()
        # Within a backward pass, a call of the model is new only where checkpointing ran the
        # first one without gradients: then no pass was opened outside.
        opened = self._passes[-1].opened_in_task if self._passes else -2
        if task == -1 or opened not in (-1, task):
            self._begin_pass((args, kwargs))

    def _on_output(self, _: nn.Module, _args: Any, output: Any) -> None:
        result = first_tensor(output)
        if result is None or not result.requires_grad or not self._passes:
            return
        if _backward_task() != -1:
            return
        begins = Hook(self._note, None, partial(self._backward_begins, self._passes[-1]))
        self._tensor_hooks.append(result.register_hook(begins))  # type: ignore[no-untyped-call]
        if self._discovering:
            self._model_output = result

    def _on_call(
        self, layers: list[tuple[int, ...]], module: nn.Module, args: tuple[Any, ...]
    ) -> None:
        if id(module) not in self._calls and _backward_task() == -1:
            self._calls[id(module)] = layers, args[0] if args else None

    def _preact_hook(self, row: int) -> Callable[..., None]:
        is_free = any(owner is None for _, owner, _ in self._plan.activations)
        is_measured = row in self._measured

        def on_preact(_: nn.Module, args: Any, output: Any) -> None:
            z = output if isinstance(output, Tensor) else first_tensor(output)
            current = self._pass(row, args)
            if z is None or current is None:
                return
            if is_free:
                current.name(z, row)
                current.last_row = row
            if is_measured and not self._repeats(current, "z", row):
                self._keep_z(current, row, z)

        return on_preact

    def _keep_z(self, current: Pass, row: int, z: Tensor) -> None:
        current.keep("z", row, z)
        if self._discovering:
            self._outputs.append((z, row))
        if not z.requires_grad:
            return
        awaited = current.await_gradient(row)
        # A list's own method, called from C++, costs the backward pass next to nothing.
        hook: Callable[..., Any] = awaited.came.append
        if z.numel() >= LARGE_ENTRIES:
            hook = Hook(self._note, row, partial(current.take_gradient, awaited))
        self._tensor_hooks.append(z.register_hook(hook))  # type: ignore[no-untyped-call]

    def _keeping(self, row: int, role: str, slope: Slope | None) -> Callable[..., None]:
        def keep_output(_: nn.Module, _args: Any, output: Tensor) -> None:
            self._keep(row, role, output, slope)

        return keep_output

    def _keep(self, row: int, role: str, x: Tensor, slope: Slope | None) -> None:
        current = self._pass(None, x)
        if current is not None and not self._repeats(current, role, row):
            current.keep(role, row, x, slope)

    def _repeats(self, current: Pass, role: str, row: int) -> bool:
        return _backward_task() != -1 and current.repeats(role, row)

    def _owner(self, x: Tensor) -> int | None:
        """The row whose activation reads `x`, if it has none yet in this pass.

        It is the row whose z `x` is; else, through norms and the like, the weight called last. In
        a recomputation order says nothing.
        """
        current = self._pass(None, x)
        if current is None:
            return None
        row = current.row_of(x)
        if row is None and _backward_task() == -1:
            row = current.last_row
        if row is None or row not in self._measured:
            return None
        if current.num_calls.get(("act", row), 0) >= current.num_calls.get(("z", row), 0):
            return None
        current.num_calls[("act", row)] = current.num_calls.get(("act", row), 0) + 1
        return row

    # ------------------------------------------------------------ passes

    def _pass(self, row: int | None, inputs: Any) -> Pass | None:
        """The pass that a forward call belongs to; None where no gradient is being recorded."""
        if not torch.is_grad_enabled():
            return None
        if not self._passes:
            return self._begin_pass(inputs)
        current = self._passes[-1]
        if _backward_task() != -1:
            return current
        # Where submodules are called without the model, a pass ends with its backward pass.
        called_before = row is not None and ("z", row) in current.num_calls
        if current.backward_tasks or (called_before and current.has_gradients):
            return self._begin_pass(inputs)
        return current

    def _begin_pass(self, inputs: Any) -> Pass:
        for earlier in self._passes:
            earlier.reduce()
        tensor = first_tensor(inputs)
        examples = tensor.shape[0] if tensor is not None and tensor.ndim > 0 else 1
        current = Pass(self._copies, self._channels_first, examples, _backward_task())
        self._passes.append(current)
        return current

    def _backward_begins(self, current: Pass, _gradient: Tensor) -> None:
        task = _backward_task()
        earlier = [
            p
            for p in self._passes
            if p is not current and p.has_gradients and task not in p.backward_tasks
        ]
        if earlier and self._gradients_were_cleared():
            # No step was taken on them: it was skipped, or the gradients were thrown away.
            self._passes = [p for p in self._passes if p not in earlier]
        if task in current.backward_tasks:
            return
        current.backward_tasks.add(task)
        self._before_backward = self._gradient_marks()
        torch.autograd.Variable._execution_engine.queue_callback(self._on_backward_end)

    def _on_backward_end(self) -> None:
        marks = self._gradient_marks()
        # `torch.autograd.grad` goes through the graph too, but adds nothing to a gradient.
        is_of_update = marks != self._before_backward
        for each in self._passes:
            each.accept_gradients(is_of_update)
        self._after_backward = marks

    def _gradients_were_cleared(self) -> bool:
        """Whether `zero_grad` was called since the last backward pass, in either of its ways."""
        gradients = self._gradients()
        if not gradients:
            return True
        if self._gradient_marks() == self._after_backward:
            return False
        # Looked at only where something wrote to them, since on CUDA looking waits.
        return not any(bool(grad.any()) for grad in gradients)

    def _gradient_marks(self) -> list[tuple[int, int]]:
        """What changes when something is added to a gradient, or it is made or cleared."""
        return [(id(grad), grad._version) for grad in self._gradients()]

    def _gradients(self) -> list[Tensor]:
        return [row.weight.grad for row in self._plan.rows if row.weight.grad is not None]


def _columns(parts: dict[str, list[Part]], lost: set[tuple[str, int]]) -> dict[str, Cells]:
    columns: dict[str, Cells] = {}
    for quantity, names, combine in (
        ("z", ("preact_mean", "preact_std"), moments.combine_moments),
        ("h", ("act_mean", "act_std"), moments.combine_moments),
        ("slope", ("saturated_fraction", "dead_fraction"), moments.combine_slopes),
        ("delta", ("delta_rms",), moments.combine_rms),
    ):
        missing = frozenset(row for name, row in lost if name == quantity)
        for name, cells in zip(names, combine(parts.get(quantity, [])), strict=False):
            columns[name] = cells._replace(missing=missing)
    return columns
