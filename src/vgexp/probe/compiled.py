"""Has measured steps run uncompiled: code compiled before hooks were set calls none of them, and
hooks that are compiled with a model cost it graph breaks and compilations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vgexp.probe.hooks import Hook, Note
from vgexp.torch_internals import compiler_is_loaded, compiler_stance

RAN_COMPILED = (
    "no call of it was seen in a measured step in which torch's compiler was first loaded: what"
    " runs compiled shows no z, h or dL/dz; the next step was measured instead"
)


class _Stance:
    """The stance of `torch.compiler`, which all probes of a process share.

    It is `force_eager` while any probe measures a step, and then what it was before. A stance that
    the user sets in the meantime stays.
    """

    def __init__(self) -> None:
        self._holders: set[int] = set()
        self._ours: Any = None
        self._is_set = False

    def hold(self, holder: int) -> None:
        """Has compiled code run uncompiled."""
        if not self._is_ours():
            # Fails within a compiled region.
            self._ours = torch.compiler.set_stance("force_eager")
            self._is_set = True
        self._holders.add(holder)

    def release(self, holder: int) -> None:
        """Has it run compiled again, once no probe holds it."""
        self._holders.discard(holder)
        # Also where a user's own `with` has just brought back a stance of ours that had ended.
        if not self._holders and self._is_ours():
            self._ours.__exit__(None, None, None)
            self._is_set = False

    @property
    def is_held(self) -> bool:
        """Whether compiled code runs uncompiled."""
        return bool(self._holders) and self._is_ours()

    def _is_ours(self) -> bool:
        if self._ours is None:
            return False
        stance = compiler_stance()
        return self._is_set if stance is None else stance is self._ours.stance


_STANCE = _Stance()
"""One for the process, as the compiler's own: a probe that ends must not end it for another."""


def runs_uncompiled() -> bool:
    """Whether a probe has compiled code run uncompiled now."""
    return _STANCE.is_held


class EagerSteps:
    """Begins and ends the steps that run uncompiled.

    torch's compiler takes seconds to import, so it is left alone until something has imported it.
    Where that happens within a measured step, the next call of the model finds it out, unless that
    call is compiled itself: then the step shows nothing (`came_too_late`).
    """

    def __init__(self, model: nn.Module, note: Note) -> None:
        self._model = model
        self._note = note
        self._handle: Any = None
        self._holds = False

    def begin(self) -> None:
        """Begins a step that is to run uncompiled."""
        if compiler_is_loaded():
            _STANCE.hold(id(self))
            self._holds = True
        elif self._handle is None:
            # Made anew: an object that kept it would hold itself.
            self._handle = Hook(self._note, None, self._on_model_call).set_before(self._model)

    def end(self) -> None:
        """Ends it."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        if self._holds or compiler_is_loaded():
            _STANCE.release(id(self))
            self._holds = False

    @property
    def came_too_late(self) -> bool:
        """Whether the compiler was loaded after this step began, so that calls may be compiled."""
        return compiler_is_loaded() and not self._holds

    def _on_model_call(self, *_: object) -> None:
        if compiler_is_loaded() and not self._holds:
            self.begin()
