"""Half precision by autocast: parameters in float32, the forward pass and the loss in 16 bits.

float16 ends at 6e-5 below and 65504 above, so its loss is multiplied by a scale before the backward
pass and the gradients of the parameters, which are float32, divided by it after. A step whose
scaled gradient overflows is left out and halves the scale (Micikevicius 2018).
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from vgexp.torch_internals import ask_for_every_step

SKIPS_IN_A_ROW = 20
"""So many steps left out one after another are a divergence: it is not the scale."""


@final
class Half:
    """Autocast to one dtype, and for float16 the loss scale.

    Where gradients overflowed, an optimizer step that is left out still calls the optimizer: which
    it is, nobody has to wait for a device to know, and whoever watches the optimizer sees the step.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, optimizer: Optimizer) -> None:
        self.context = torch.autocast(device.type, dtype=dtype)
        """What the model and the loss are called in."""
        self.skips: Tensor | None = None
        """Steps left out in a row up to the one at hand, 0-d; None: none ever is."""
        self._optimizer = optimizer
        self._scaler: torch.amp.GradScaler | None = None
        if dtype is torch.float16:
            self._scaler = torch.amp.GradScaler(device.type)
            self._one = torch.ones((), device=device)
            self._scaler.scale(self._one)  # has it make its tensors
            self.skips = torch.zeros((), device=device)
            self._guard = _Guard(optimizer, self._one)

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """What scales the loss; None: nothing does."""
        return self._scaler

    @property
    def scaling(self) -> tuple[Tensor, Tensor] | None:
        """The loss scale and `skips` of the step at hand; None where there are none."""
        scale = self.loss_scale
        return None if scale is None or self.skips is None else (scale, self.skips)

    @property
    def loss_scale(self) -> Tensor | None:
        """What the loss is multiplied by, 0-d; None: by nothing."""
        return None if self._scaler is None else self._scaler.scale(self._one)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss whose gradient is taken."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def unscale(self) -> None:
        """Divides the scale out of `p.grad`, once all passes of the update are done."""
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)

    def count(self, norm: Tensor) -> None:
        """Counts the step as left out where the norm of its whole gradient is not finite."""
        if self.skips is not None:
            self.skips = (self.skips + 1) * ~torch.isfinite(norm)

    def step(self) -> None:
        """The optimizer's step, left out where a gradient is not finite, and the next scale."""
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._guard.step(self._scaler)
            self._scaler.update()

    def begin_again(self) -> None:
        """Lets the passes of the update at hand be made once more. Waits for the device."""
        if self._scaler is not None:
            self._scaler.update(self._scaler.get_scale())

    def state_dict(self) -> dict[str, Any]:
        """Scale, and what it is moved by; empty where there is none. Waits for the device."""
        if self._scaler is None or self.skips is None:
            return {}
        return {"scaler": self._scaler.state_dict(), "skips": float(self.skips)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state`."""
        if self._scaler is not None:
            self.begin_again()
            self._scaler.load_state_dict(state["scaler"])
            self.skips = torch.full_like(self._one, state["skips"])


class _Guard:
    """Leaves weights and optimizer as they are in a step where `optimizer.found_inf` is 1.

    A `GradScaler` sets this for an optimizer that says it looks at it, as fused ones do; of the
    others it would wait to know. Fused ones too make states in a step that they leave out, and
    momentum's is then memory as it was found: a state made in such a step starts at 0.
    """

    def __init__(self, optimizer: Optimizer, one: Tensor) -> None:
        self._optimizer, self._one = optimizer, one
        self._is_fused = ask_for_every_step(optimizer)
        self._before: dict[int, Tensor] = {}
        self._was_called = False
        optimizer.register_step_pre_hook(self._keep)
        optimizer.register_step_post_hook(self._put_back)

    def step(self, scaler: torch.amp.GradScaler) -> None:
        """Has the scaler call the optimizer; calls it here where the scaler left the step out."""
        self._was_called = False
        scaler.step(self._optimizer)
        if not self._was_called:
            self._optimizer.found_inf = self._one  # type: ignore[attr-defined]
            self._optimizer.grad_scale = None  # type: ignore[attr-defined]
            self._optimizer.step()
            del self._optimizer.found_inf  # type: ignore[attr-defined]
            del self._optimizer.grad_scale  # type: ignore[attr-defined]

    def _keep(self, *_: object) -> None:
        self._was_called = True
        tensors = _moved(self._optimizer)
        self._before = {id(x): x if self._is_fused else x.clone() for x in tensors}

    @torch.no_grad()
    def _put_back(self, *_: object) -> None:
        found_inf = getattr(self._optimizer, "found_inf", None)
        if found_inf is None:  # the scaler has looked, and leaves such steps out itself
            return
        is_found = found_inf.bool()
        for x in _moved(self._optimizer):
            known = self._before.get(id(x))
            if known is None:
                x.masked_fill_(is_found, 0.0)
            elif known is not x:
                x.copy_(torch.where(is_found, known, x))
        self._before.clear()


def _moved(optimizer: Optimizer) -> list[Tensor]:
    """What a step moves: parameters, and the states that are where they are."""
    found = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            states = (s for s in optimizer.state.get(p, {}).values() if torch.is_tensor(s))
            found += [p, *(s for s in states if s.device == p.device)]
    return found
