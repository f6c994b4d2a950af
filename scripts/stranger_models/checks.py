"""Trains a model with and without a probe, and checks what the probe says by other means."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from stranger_models.model import NUM_EXAMPLES, Stranger, Update
from vgexp import Probe, diagnose
from vgexp.errors import QuestionError

NUM_STEPS = 2
TOLERANCE = 1e-3
"""Of sums over float32 entries in another order, relative."""


@dataclass
class Result:
    """What was found of one model."""

    name: str
    is_identical: bool = False
    gradients: tuple[int, int] = (0, 0)
    """Rows whose `grad_norm` is right, and rows that were checked."""
    deltas: tuple[int, int] = (0, 0)
    """Rows whose `delta_rms` is right, and rows that were checked."""
    num_without_delta: int = 0
    readouts: tuple[str, ...] = ()
    expected_readouts: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    expected_blocks: tuple[str, ...] = ()
    said: str = ""
    true_attenuation: float = math.nan
    """dL/d(output) of the first block over that of the last."""
    unseen: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def has_right_verdict(self) -> bool:
        """Whether what is said agrees with the blocks' own gradients, where there are blocks."""
        says_trouble = re.search("vanishes|explodes", self.said) is not None
        if not self.said:
            return False
        if math.isnan(self.true_attenuation):
            return not says_trouble and "cannot be compared" not in self.said
        is_trouble = not 1e-3 <= self.true_attenuation <= 1e3
        return says_trouble == is_trouble and "cannot be compared" not in self.said

    @property
    def is_right(self) -> bool:
        """Whether all that was checked is right."""
        return (
            self.is_identical
            and self.gradients[0] == self.gradients[1] > 0
            and self.deltas[0] == self.deltas[1] > 0
            and sorted(self.readouts) == sorted(self.expected_readouts)
            and sorted(self.blocks) == sorted(self.expected_blocks)
            and self.has_right_verdict
        )


def check(stranger: Stranger) -> Result:
    """Trains the model twice for a few steps, with and without a probe."""
    plain, *_ = _train(stranger, is_probed=False)
    probed, probe, truth = _train(stranger, is_probed=True)
    assert probe is not None
    result = Result(stranger.name, _are_equal(plain, probed), unseen=probe.unseen)
    frame = probe.to_frame()
    frame = frame[frame["step"] == 0]
    result.expected_readouts = stranger.readouts
    result.readouts = tuple(frame.loc[frame["kind"] == "readout", "name"])
    result.blocks = tuple(frame.loc[frame["kind"] == "stream", "name"])
    result.expected_blocks = tuple(truth.blocks)
    _check_rows(result, frame, truth)
    try:
        result.said = diagnose(frame).sentence
    except QuestionError as error:
        result.said = f"cannot be compared: {error}"
    signals = [truth.deltas[name] for name in truth.blocks if truth.deltas.get(name)]
    if len(signals) > 1:
        result.true_attenuation = signals[0] / signals[-1]
    return result


class Truth:
    """Gradients at step 0, by hooks of its own and `p.grad`."""

    def __init__(self, model: nn.Module, blocks: str) -> None:
        self.blocks: list[str] = []
        self.grad_norms: dict[str, float] = {}
        self.deltas: dict[str, float] = {}
        self._grads: dict[str, list[Tensor]] = {}
        self._handles: list[Any] = []
        self._is_block = re.compile(blocks or "(?!)").fullmatch
        self._users: dict[str, list[str]] = {}
        parameters = dict(model.named_parameters(remove_duplicate=False))
        modules = dict(model.named_modules())
        for name, p in parameters.items():
            owner, is_part, _ = name.partition(".parametrizations.")
            if is_part:
                # The module's output is z; its parametrization's output is the weight.
                self._users[name] = [owner]
                continue
            kind = type(modules[name.rpartition(".")[0]])
            self._users[name] = [
                each
                for each, module in modules.items()
                if type(module) is kind
                and any(own is p for own in module.parameters(recurse=False))
            ]
        for name, module in modules.items():
            self._handles.append(module.register_forward_hook(self._hook(name)))

    def _hook(self, name: str) -> Any:
        def keep(_: nn.Module, _args: Any, output: Any) -> None:
            first = output if isinstance(output, Tensor) else _first(output)
            if first is None or not first.requires_grad:
                return
            if self._is_block(name) and name not in self.blocks:
                self.blocks.append(name)
            self._grads.setdefault(name, [])
            first.register_hook(lambda g: self._grads[name].append(g.detach().clone()))

        return keep

    def finish(self, model: nn.Module) -> None:
        """Takes the numbers after the backward pass, and removes the hooks."""
        for handle in self._handles:
            handle.remove()
        for name, grads in self._grads.items():
            if grads:
                self.deltas[name] = _delta_rms(grads)
        for name, p in model.named_parameters():
            if p.grad is not None:
                self.grad_norms[name] = float(p.grad.double().norm())

    def delta_of(self, name: str, *, is_stream: bool) -> float:
        """`delta_rms` of a block, or of a weight over all modules of one class that hold it."""
        if is_stream:
            return self.deltas.get(name, 0.0)
        grads = [g for user in self._users[name] for g in self._grads.get(user, ())]
        return _delta_rms(grads) if grads else 0.0


def _delta_rms(grads: list[Tensor]) -> float:
    entries = torch.cat([g.double().flatten() for g in grads])
    return float(NUM_EXAMPLES * entries.square().mean().sqrt())


def _train(stranger: Stranger, *, is_probed: bool) -> tuple[list[Tensor], Probe | None, Truth]:
    torch.manual_seed(0)
    model, update = stranger.make()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    probe = Probe(model, optimizer, every=1, activations_every=1) if is_probed else None
    truth = Truth(model, stranger.blocks) if is_probed else None
    seen: list[Tensor] = []
    torch.manual_seed(1)
    if probe is not None:
        probe.__enter__()
    try:
        for step in range(NUM_STEPS):
            seen.append(_step(model, update, optimizer, truth if step == 0 else None))
    finally:
        if probe is not None:
            probe.__exit__(None, None, None)
    seen += [p.detach() for p in model.parameters()]
    seen.append(torch.random.get_rng_state())
    return seen, probe, truth or Truth(nn.Module(), "")


def _step(
    model: nn.Module, update: Update, optimizer: torch.optim.Optimizer, truth: Truth | None
) -> Tensor:
    optimizer.zero_grad()
    loss = update(model)
    loss.backward()
    if truth is not None:
        truth.finish(model)
    optimizer.step()
    return loss.detach()


def _are_equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def _check_rows(result: Result, frame: pd.DataFrame, truth: Truth) -> None:
    right_grads = num_grads = right_deltas = num_deltas = 0
    for row in frame.itertuples():
        name = str(row.name)
        if not pd.isna(row.grad_norm):
            num_grads += 1
            expected = truth.grad_norms.get(name, math.nan)
            right_grads += _agrees(result, f"{name} grad_norm", row.grad_norm, expected)
        if pd.isna(row.delta_rms):
            result.num_without_delta += row.kind != "stream" and name in truth.grad_norms
            continue
        num_deltas += 1
        expected = truth.delta_of(name, is_stream=row.kind == "stream")
        right_deltas += _agrees(result, f"{name} delta_rms", row.delta_rms, expected)
    result.gradients, result.deltas = (right_grads, num_grads), (right_deltas, num_deltas)


def _agrees(result: Result, what: str, measured: float, expected: float) -> bool:
    is_right = math.isclose(measured, expected, rel_tol=TOLERANCE, abs_tol=1e-12)
    if not is_right:
        result.wrong.append(f"{what}: {measured:.6g}, by other means {expected:.6g}")
    return is_right


def _first(output: Any) -> Tensor | None:
    values = output.values() if hasattr(output, "values") else output
    if not isinstance(output, tuple | list) and not hasattr(output, "values"):
        return None
    for value in values:
        found = value if isinstance(value, Tensor) else _first(value)
        if found is not None and found.is_floating_point():
            return found
    return None
