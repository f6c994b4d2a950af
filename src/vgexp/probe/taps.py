"""The hooks on a network: what the forward and backward passes of one optimizer step show."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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

    def __init__(self, model: nn.Module, plan: Plan, note: Callable[[int | None, str], None]):
        self._model = model
        self._plan = plan
        self._note = note
        self._copies = Copies()
        self._channels_first = frozenset(i for i, r in enumerate(plan.rows) if r.kind == "conv")
        self._passes: list[Pass] = []
        self._hooks: list[Any] = []
        self._tensor_hooks: list[Any] = []
        self.first_calls: list[tuple[tuple[int, ...], object]] = []
        """(rows of the module, its first input) in calling order; for a stranger's model only."""
        self.outputs: list[tuple[Tensor, int]] = []
        """(z, row) of the first step; for a stranger's model only."""
        self.model_output: Tensor | None = None
        self.discovering = any(row.layer is None for row in plan.rows)
        """Whether the order of the weights is still to be learnt from a forward pass."""

    # ------------------------------------------------------------ life

    def arm(self) -> None:
        """Sets the hooks, if they are not set."""
        if self._hooks:
            return
        self._add(self._model.register_forward_pre_hook, None, self._on_model, with_kwargs=True)
        for module, row in self._plan.preacts:
            self._add(module.register_forward_hook, row, partial(self._on_preact, row))
        acts = {(id(module), row) for module, row in self._plan.acts}
        for module, activation_row, slope in self._plan.activations:
            key = (id(module), activation_row)
            is_act = activation_row is None or key in acts
            acts.discard(key)
            self._arm_activation(module, activation_row, slope, is_act)
        for module, row in self._plan.acts:
            if (id(module), row) in acts:
                self._add(module.register_forward_hook, row, partial(self._on_act, row))
        if self.discovering:
            for module, rows in self._plan.owners:
                self._add(module.register_forward_pre_hook, None, partial(self._on_call, rows))
            self._add(self._model.register_forward_hook, None, self._on_output)

    def disarm(self) -> None:
        """Takes every hook away."""
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()

    @property
    def armed(self) -> bool:
        """Whether the hooks are set."""
        return bool(self._hooks)

    def end_discovery(self) -> None:
        """Stops looking at the order of calls."""
        self.discovering = False
        self.first_calls.clear()
        self.disarm()

    def collect(self, loss_is_mean: bool, loss_scale: Tensor | float) -> dict[str, Cells]:
        """Ends a step: column -> cells, over all passes that gradients flowed through."""
        used = [p for p in self._passes if p.backward]
        for each in used:
            each.reduce()
            for row in each.lost:
                self._note(row, "a tensor was overwritten in place before it was measured")
        parts: dict[str, list[Part]] = {}
        for each in used:
            for role, more in each.parts.items():
                parts.setdefault(role, []).extend(more)
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

    def _add(self, register: Callable[..., Any], row: int | None, hook: Hook, **how: bool) -> None:
        self._hooks.append(register(self._guarded(row, hook), **how))

    def _arm_activation(
        self, module: nn.Module, row: int | None, slope: Slope, is_act: bool
    ) -> None:
        if getattr(module, "inplace", False):
            before = partial(self._on_inplace_input, row, slope)
            self._add(module.register_forward_pre_hook, row, before)
            seen_slope = None
        else:
            seen_slope = slope
        after = partial(self._on_activation, row, seen_slope, is_act)
        self._add(module.register_forward_hook, row, after)

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

    def _on_call(self, rows: tuple[int, ...], _: nn.Module, args: tuple[Any, ...]) -> None:
        if not _in_backward():
            self.first_calls.append((rows, args[0] if args else None))

    def _on_output(self, _: nn.Module, _args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and not _in_backward():
            self.model_output = first_tensor(output)

    def _on_preact(self, row: int, _: nn.Module, args: Any, output: Any) -> None:
        z = first_tensor(output)
        current = self._pass(args)
        if z is None or current is None or not self._counts(current, "z", row):
            return
        current.last_row = row
        call = current.keep("z", row, z)
        if self.discovering:
            self.outputs.append((z, row))
        if z.requires_grad:
            on_delta = self._guarded(row, partial(self._on_delta, current, row, call))
            self._tensor_hooks.append(z.register_hook(on_delta))  # type: ignore[no-untyped-call]

    def _on_delta(self, current: Pass, row: int, call: int, delta: Tensor) -> None:
        if not current.backward:
            current.backward = True
            last = self._plan.rows[-1].weight
            if last.requires_grad and last.grad is None:
                # The gradients were cleared since the passes before: no step was taken on them.
                self._passes = [p for p in self._passes if p is current or not p.backward]
        current.keep_delta(row, call, delta)

    def _on_inplace_input(self, row: int | None, slope: Slope, _: nn.Module, args: Any) -> None:
        self._keep_activation(row, "u", args[0].clone(), slope)

    def _on_activation(
        self, row: int | None, slope: Slope | None, is_act: bool, _: nn.Module, args: Any, h: Tensor
    ) -> None:
        if slope is not None:
            self._keep_activation(row, "u", args[0], slope)
        if is_act:
            self._keep_activation(row, "h", h, None)

    def _on_act(self, row: int, _: nn.Module, _args: Any, output: Any) -> None:
        self._keep_activation(row, "h", output, None)

    def _keep_activation(self, row: int | None, role: str, x: Tensor, slope: Slope | None) -> None:
        current = self._pass(x)
        if current is None:
            return
        if row is None:
            # A stranger's activation belongs to the weight called last, unless that has its own.
            row = current.last_row
            if row is None or current.calls.get((role, row), 0) >= current.calls[("z", row)]:
                return
        if self._counts(current, role, row):
            current.keep(role, row, x, slope)

    # ------------------------------------------------------------ passes

    def _pass(self, inputs: Any) -> Pass | None:
        """The pass that a forward call belongs to; None where no gradient is being recorded."""
        if not torch.is_grad_enabled():
            return None
        if not self._passes or (self._passes[-1].backward and not _in_backward()):
            self._begin_pass(inputs)
        return self._passes[-1]

    def _begin_pass(self, inputs: Any) -> None:
        for earlier in self._passes:
            if earlier.backward:
                earlier.reduce()
        tensor = first_tensor(inputs)
        examples = tensor.shape[0] if tensor is not None and tensor.ndim > 0 else 1
        self._passes.append(Pass(self._copies, self._channels_first, examples))

    def _counts(self, current: Pass, role: str, row: int) -> bool:
        """Whether a call is new: checkpointing repeats calls of the forward pass in backward."""
        if _in_backward():
            return (role, row) not in current.forward_calls
        current.forward_calls.add((role, row))
        return True


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


def _columns(
    parts: dict[str, list[Part]], examples: int, loss_scale: Tensor | float
) -> dict[str, Cells]:
    columns: dict[str, Cells] = {}
    for role, names, combine in (
        ("z", ("preact_mean", "preact_std"), moments.combine_moments),
        ("h", ("act_mean", "act_std"), moments.combine_moments),
        ("u", ("saturated_fraction", "dead_fraction"), moments.combine_slopes),
    ):
        pair = combine(parts.get(role, []))
        if pair is not None:
            columns[names[0]], columns[names[1]] = pair
    delta = moments.combine_rms(parts.get("delta", []))
    if delta is not None:
        columns["delta_rms"] = Cells(delta.rows, delta.values * examples / loss_scale)
    return columns
