"""The hooks on a network: what the forward and backward passes of one optimizer step show.

The hooks run in the user's forward and backward pass, so they only take references; numbers are
made of them when the step ends, many layers at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vgexp.probe import moments
from vgexp.probe.moments import Cells, Part
from vgexp.probe.passes import Copies, Pass
from vgexp.probe.plan import Plan, first_tensor
from vgexp.watch import Slope

Hook = Callable[..., None]


class Taps:
    """Hooks of one plan; `collect` ends a step, `disarm` takes every hook away."""

    def __init__(
        self, model: nn.Module, plan: Plan, note: Callable[[int | None, str], None]
    ) -> None:
        self._model = model
        self._plan = plan
        self._note = note
        self._copies = Copies()
        self._channels_first = frozenset(i for i, r in enumerate(plan.rows) if r.kind == "conv")
        self._passes: list[Pass] = []
        self._hooks: list[Any] = []
        self._tensor_hooks: list[Any] = []
        self.first_calls: list[tuple[tuple[int, ...], object]] = []
        """(rows of the module, its first input) in calling order, while discovering."""
        self.outputs: list[tuple[Tensor, int]] = []
        """(z, row), while discovering."""
        self.model_output: Tensor | None = None
        """What the model returned, while discovering."""
        self.discovering = any(row.layer is None for row in plan.rows)
        """Whether the order of the weights is still to be learnt from a forward pass."""

    # ------------------------------------------------------------ life

    @property
    def armed(self) -> bool:
        """Whether the hooks are set."""
        return bool(self._hooks)

    def arm(self) -> None:
        """Sets the hooks, if they are not set."""
        if self._hooks:
            return
        hooks, guarded = self._hooks, self._guarded
        begin = guarded(None, self._on_model)
        hooks.append(self._model.register_forward_pre_hook(begin, with_kwargs=True))
        for module, row in self._plan.preacts:
            hooks.append(module.register_forward_hook(guarded(row, self._preact_hook(row))))
        acts = {(id(module), row) for module, row in self._plan.acts}
        for module, activation_row, slope in self._plan.activations:
            is_act = activation_row is None or (id(module), activation_row) in acts
            acts.discard((id(module), activation_row))
            self._arm_activation(module, activation_row, slope, is_act)
        for module, row in self._plan.acts:
            if (id(module), row) in acts:
                hook = self._activation_hook(row, "h", None)
                hooks.append(module.register_forward_hook(guarded(row, hook)))
        if self.discovering:
            for module, rows in self._plan.owners:
                hook = guarded(None, self._call_hook(rows))
                hooks.append(module.register_forward_pre_hook(hook))
            hooks.append(self._model.register_forward_hook(guarded(None, self._on_output)))

    def disarm(self) -> None:
        """Takes every hook away."""
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()

    def end_discovery(self) -> None:
        """Stops looking at the order of calls."""
        self.discovering = False
        self.first_calls.clear()
        self.disarm()

    def collect(self, loss_is_mean: bool, loss_scale: Tensor | float) -> dict[str, Cells]:
        """Ends a step: column -> cells, over all passes that gradients flowed through."""
        used = [p for p in self._passes if p.backward]
        parts: dict[str, list[Part]] = {}
        for each in used:
            each.reduce(backward_too=True)
            for row in each.lost:
                self._note(row, "a tensor was overwritten in place before it was measured")
            for name, more in each.parts.items():
                parts.setdefault(name, []).extend(more)
        self.drop()
        if used:
            self._copies.learnt()
        return _columns(parts, sum(p.examples for p in used) if loss_is_mean else 1, loss_scale)

    def drop(self) -> None:
        """Forgets what the current step showed."""
        for handle in self._tensor_hooks:
            handle.remove()
        self._tensor_hooks.clear()
        self._passes.clear()
        self.outputs.clear()
        self.model_output = None

    def _arm_activation(
        self, module: nn.Module, row: int | None, slope: Slope, is_act: bool
    ) -> None:
        guarded = self._guarded
        if slope.from_output is not None:
            hook = self._activation_hook(row, "hy" if is_act else "y", slope)
            self._hooks.append(module.register_forward_hook(guarded(row, hook)))
            return
        # The input is taken before the call, which may overwrite it in place.
        in_place = bool(getattr(module, "inplace", False))
        before = guarded(row, self._input_hook(row, slope, in_place))
        self._hooks.append(module.register_forward_pre_hook(before))
        if is_act:
            after = guarded(row, self._activation_hook(row, "h", None))
            self._hooks.append(module.register_forward_hook(after))

    def _guarded(self, row: int | None, hook: Hook) -> Hook:
        """A hook that never breaks the user's training: what it cannot do is noted."""

        def guarded(*arguments: Any) -> None:
            try:
                hook(*arguments)
            except Exception as error:
                self._note(row, f"measuring it raised {type(error).__name__}: {error}")

        return guarded

    # ------------------------------------------------------------ what the hooks do

    def _on_model(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and not _in_backward():
            self._begin_pass((args, kwargs))

    def _on_output(self, _: nn.Module, _args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and not _in_backward():
            self.model_output = first_tensor(output)

    def _call_hook(self, rows: tuple[int, ...]) -> Hook:
        def on_call(_: nn.Module, args: tuple[Any, ...]) -> None:
            if not _in_backward():
                self.first_calls.append((rows, args[0] if args else None))

        return on_call

    def _preact_hook(self, row: int) -> Hook:
        def on_preact(_: nn.Module, args: Any, output: Any) -> None:
            current = self._pass("z", row, args)
            z = output if isinstance(output, Tensor) else first_tensor(output)
            if current is None or z is None:
                return
            call = current.num_calls.get(row, 0)
            current.num_calls[row] = call + 1
            current.last_row = row
            current.keep("z", row, call, z)
            if self.discovering:
                self.outputs.append((z, row))
            if z.requires_grad:
                hook = self._delta_hook(current, row, call)
                self._tensor_hooks.append(z.register_hook(hook))  # type: ignore[no-untyped-call]

        return on_preact

    def _delta_hook(self, current: Pass, row: int, call: int) -> Hook:
        def on_delta(delta: Tensor) -> None:
            if not current.backward:
                self._backward_begins(current)
            current.keep("delta", row, call, delta)

        return self._guarded(row, on_delta)

    def _input_hook(self, row: int | None, slope: Slope, in_place: bool) -> Hook:
        def on_input(_: nn.Module, args: tuple[Any, ...]) -> None:
            self._keep_activation(row, "u", args[0].clone() if in_place else args[0], slope)

        return on_input

    def _activation_hook(self, row: int | None, role: str, slope: Slope | None) -> Hook:
        def on_activation(_: nn.Module, _args: Any, output: Tensor) -> None:
            self._keep_activation(row, role, output, slope)

        return on_activation

    def _keep_activation(self, row: int | None, role: str, x: Tensor, slope: Slope | None) -> None:
        if row is None:
            # A stranger's activation belongs to the weight called last, unless that has its own.
            row = self._passes[-1].last_row if self._passes else None
            if row is None:
                return
            current = self._pass(role, row, x)
            if current is None or _has_its_own(current, role, row):
                return
        else:
            current = self._pass(role, row, x)
        if current is not None:
            current.keep(role, row, 0, x, slope)

    # ------------------------------------------------------------ passes

    def _pass(self, role: str, row: int, inputs: Any) -> Pass | None:
        """The pass that a forward call belongs to.

        None where no gradient is being recorded, and where checkpointing repeats the call.
        """
        if not torch.is_grad_enabled():
            return None
        if _in_backward():
            current = self._passes[-1] if self._passes else self._begin_pass(inputs)
            return None if current.repeats(role, row) else current
        if not self._passes or self._passes[-1].backward:
            return self._begin_pass(inputs)
        return self._passes[-1]

    def _begin_pass(self, inputs: Any) -> Pass:
        for earlier in self._passes:
            earlier.reduce(backward_too=False)
        tensor = first_tensor(inputs)
        examples = tensor.shape[0] if tensor is not None and tensor.ndim > 0 else 1
        current = Pass(self._copies, self._channels_first, examples)
        self._passes.append(current)
        return current

    def _backward_begins(self, current: Pass) -> None:
        current.backward = True
        last = self._plan.rows[-1].weight
        if last.requires_grad and last.grad is None:
            # The gradients were cleared since the passes before: no step was taken on them.
            self._passes = [p for p in self._passes if p is current or not p.backward]


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


def _has_its_own(current: Pass, role: str, row: int) -> bool:
    """Whether each call of the weight has its activation already."""
    kept = sum(k.row == row for k in current.kept[role])
    return kept >= current.num_calls.get(row, 0)


def _columns(
    parts: dict[str, list[Part]], examples: int, loss_scale: Tensor | float
) -> dict[str, Cells]:
    columns: dict[str, Cells] = {}
    for quantity, names, combine in (
        ("z", ("preact_mean", "preact_std"), moments.combine_moments),
        ("h", ("act_mean", "act_std"), moments.combine_moments),
        ("slope", ("saturated_fraction", "dead_fraction"), moments.combine_slopes),
    ):
        pair = combine(parts.get(quantity, []))
        if pair is not None:
            columns[names[0]], columns[names[1]] = pair
    delta = moments.combine_rms(parts.get("delta", []))
    if delta is not None:
        columns["delta_rms"] = Cells(delta.rows, delta.values * examples / loss_scale)
    return columns
