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
"""This many skipped steps in a row are a divergence; no loss scale would help."""


@final
class Half:
    """Autocast to one dtype, and for float16 the loss scale.

    A skipped step still calls the optimizer, which then changes nothing. So no step waits for the
    device to know whether it is skipped, and hooks of the optimizer see every step.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, optimizer: Optimizer) -> None:
        self.context = torch.autocast(device.type, dtype=dtype)
        """The context in which the model and the loss are called."""
        self.skips: Tensor | None = None
        """How many steps in a row were skipped up to the current one, 0-d; None: none ever is."""
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
        """The loss scale and `skips` of the current step; None where there is no scale."""
        scale = self.loss_scale
        return None if scale is None or self.skips is None else (scale, self.skips)

    @property
    def loss_scale(self) -> Tensor | None:
        """The factor of the loss, 0-d; None: there is none."""
        return None if self._scaler is None else self._scaler.scale(self._one)

    def scale(self, loss: Tensor) -> Tensor:
        """Multiplies the loss by the scale."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def unscale(self) -> None:
        """Divides `p.grad` by the scale, once all passes of the update are done."""
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)

    def count(self, norm: Tensor) -> None:
        """Counts the step as skipped where the norm of its whole gradient is not finite."""
        if self.skips is not None:
            self.skips = (self.skips + 1) * ~torch.isfinite(norm)

    def step(self) -> None:
        """Takes the optimizer's step, or skips it if a gradient is not finite; moves the scale."""
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._guard.step(self._scaler)
            self._scaler.update()

    def begin_again(self) -> None:
        """Allows the passes of the current update to be made again. Waits for the device."""
        if self._scaler is not None:
            self._scaler.update(self._scaler.get_scale())

    def state_dict(self) -> dict[str, Any]:
        """The scaler's state; empty where there is none. Waits for the device."""
        if self._scaler is None or self.skips is None:
            return {}
        return {"scaler": self._scaler.state_dict(), "skips": float(self.skips)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from `state`."""
        if self._scaler is not None:
            self.begin_again()
            self._scaler.load_state_dict(state["scaler"])
            self.skips = torch.full_like(self._one, state["skips"])


class _Guard:
    """Makes a step leave weights and optimizer as they are where `optimizer.found_inf` is 1.

    A `GradScaler` sets that number for optimizers that say they read it, as fused ones do; for
    others it would wait for the device. In a skipped step fused optimizers still create states, and
    momentum's holds whatever was in memory: such a state is set to 0.
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
        tensors = _changed_by(self._optimizer)
        self._before = {id(x): x if self._is_fused else x.clone() for x in tensors}

    @torch.no_grad()
    def _put_back(self, *_: object) -> None:
        found_inf = getattr(self._optimizer, "found_inf", None)
        if found_inf is None:  # the scaler has looked, and leaves such steps out itself
            return
        is_found = found_inf.bool()
        for x in _changed_by(self._optimizer):
            known = self._before.get(id(x))
            if known is None:
                x.masked_fill_(is_found, 0.0)
            elif known is not x:
                x.copy_(torch.where(is_found, known, x))
        self._before.clear()


def _changed_by(optimizer: Optimizer) -> list[Tensor]:
    """The tensors that a step changes: parameters, and their states on the same device."""
    found = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            states = (s for s in optimizer.state.get(p, {}).values() if torch.is_tensor(s))
            found += [p, *(s for s in states if s.device == p.device)]
    return found
