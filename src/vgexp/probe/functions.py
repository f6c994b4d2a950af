"""Shows the calls of torch's functions within a model's forward pass, and which module made them.

A `TorchFunctionMode` is on the stack of modes while an outermost module of the model runs, and at
no other time: it is entered as that module is called and left as it returns or raises. So the order
of the user's own modes is kept, and neither the loss, nor the backward pass, nor the optimizer is
slower.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from vgexp.probe.compiled import runs_uncompiled
from vgexp.probe.hooks import Hook, Note
from vgexp.torch_internals import (
    CONVOLUTIONS,
    DROPOUTS,
    backward_task,
    enter_mode,
    is_compiled,
    leave_mode,
)

COMPILED = "functions within a compiled model are not seen"

_QUIET = (
    *(nn.Linear, nn.Embedding, nn.Identity, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(*CONVOLUTIONS, *DROPOUTS),
)
"""torch's own modules of which it is known that they call nothing that anyone watches."""
_WITH_FAST_PATH = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
"""Modules that ask whether a mode is on, and take another path where it is."""


class FunctionCall(NamedTuple):
    """A call of a function, seen before it is made."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    module: nn.Module
    """The innermost module that is running; modules such as `nn.Linear`, which call nothing that
    is watched, are not looked at."""


After = Callable[[Any], None]
"""What is called with a function's result."""
See = Callable[[FunctionCall], After | None]
"""What is called before a function runs; it may return what to call with the result."""


class FunctionWatcher:
    """Calls back at calls of functions within the forward passes of one model, while it is armed.

    Several users share one: each says with `watch` which functions it wants to see. Callbacks run
    in the user's forward pass, without gradients, and must change nothing; an error of theirs is
    noted. They see the outermost functions only: not `torch.relu` within `F.relu`. They do not see
    calls that checkpointing repeats within a backward pass, nor any in passes that are begun
    without gradients. A first pass of reentrant checkpointing, which records none, is seen.

    Nothing is seen of a compiled model unless it runs uncompiled, as in measured steps, and of
    attention in evaluation mode that is frozen in part, since torch asks there whether a mode is
    on, and gives other last bits.
    """

    def __init__(self, model: nn.Module, note: Note) -> None:
        self._model = model
        self._note = note
        self._watched: dict[int, list[See]] = {}
        self._kept: list[Callable[..., Any]] = []
        self._mode = _Mode(self._watched, note)
        self._handles: list[Any] = []
        self._running: list[nn.Module] = []
        self._suspended_by: nn.Module | None = None
        self._depth = 0
        """How many modules ran as the mode was entered, that one included; 0: it is not on."""
        self._is_pass = False
        self._ran: set[int] = set()
        self._idle: set[int] | None = None
        """The modules that called nothing as they ran; None: that is not known yet."""
        self._thread = 0

    def watch(self, functions: Iterable[Callable[..., Any]], see: See) -> None:
        """Has `see` called before each call of one of the functions, in the order of `watch`."""
        for function in functions:
            # By identity: a function of somebody's need not be hashable.
            self._watched.setdefault(id(function), []).append(see)
            self._kept.append(function)

    def unwatch(self, see: See) -> None:
        """Has `see` called no more. Where nothing is watched, `arm` sets no hooks."""
        for function, watching in list(self._watched.items()):
            watching[:] = [each for each in watching if each != see]
            if not watching:
                del self._watched[function]

    def arm(self) -> None:
        """Sets hooks on the modules, if they are not set and anything is watched."""
        self._leave()
        if self._handles or not self._watched:
            return
        if not runs_uncompiled() and any(is_compiled(m) for m in self._model.modules()):
            self._note(None, COMPILED)
            return
        self._thread = threading.get_ident()
        for module in self._select():
            before = Hook(self._note, None, self._before)
            after = Hook(self._note, None, self._after)
            # The second is called after an error in the module as well.
            handles = (
                before.set_before(module, prepend=True),
                after.set_after(module, always_call=True),
            )
            self._handles += [handle for handle in handles if handle is not None]

    def learn(self) -> None:
        """From now on leaves modules alone that ran and called nothing of what is watched now.

        Every function that is called while the mode is on costs a microsecond or two. Whoever
        watches calls this after an update in which everything was called.
        """
        if self._idle is not None:
            return
        calls = self._mode.calls.items()
        self._idle = self._ran - {m for m, called in calls if called & self._watched.keys()}
        is_armed = bool(self._handles)
        self.disarm()
        if is_armed:
            self.arm()

    def disarm(self) -> None:
        """Removes the hooks, and the mode where an interrupt has left it."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._leave()

    def _select(self) -> list[nn.Module]:
        """The modules to look into, and the model itself if there are any: it shows whether a
        pass records gradients, whatever checkpointing does within."""
        modules = [
            module
            for module in self._model.modules()
            if not (_is_quiet(module) or isinstance(module, torch.jit.ScriptModule))
        ]
        idle = self._idle or set()
        if all(id(module) in idle for module in modules):
            return []
        return [m for m in modules if m is self._model or id(m) not in idle]

    def _before(self, module: nn.Module, _args: Any) -> None:
        if torch.compiler.is_compiling() or threading.get_ident() != self._thread:
            return
        if module is self._model:
            # An interrupt left modules without a word.
            self._leave()
        self._running.append(module)
        self._mode.module = module
        if len(self._running) == 1:
            self._is_pass = torch.is_grad_enabled() and backward_task() == -1
        if self._idle is None:
            self._ran.add(id(module))
        is_idle = self._idle is not None and id(module) in self._idle
        if self._is_pass and not is_idle and not self._depth:
            self._depth = len(self._running)
            enter_mode(self._mode)
        if self._depth and self._suspended_by is None and may_take_fast_path(module):
            self._suspended_by = module
            leave_mode(self._mode)

    def _after(self, module: nn.Module, _args: Any, _output: Any) -> None:
        running = self._running
        if torch.compiler.is_compiling() or threading.get_ident() != self._thread:
            return
        if not any(each is module for each in running):
            return
        # Modules above it were left by an error that no hook was told of.
        while running.pop() is not module:
            pass
        if self._suspended_by is module:
            self._suspended_by = None
            enter_mode(self._mode)
        if len(running) < self._depth:
            self._turn_off()
        self._mode.module = running[-1] if running else None

    def _turn_off(self) -> None:
        if self._depth and self._suspended_by is None:
            leave_mode(self._mode)
        self._depth, self._suspended_by = 0, None

    def _leave(self) -> None:
        self._turn_off()
        self._running.clear()
        self._mode.module = None


class _Mode(TorchFunctionMode):
    """Calls every function as it is, and those that are watched with their callbacks around it."""

    def __init__(self, watched: dict[int, list[See]], note: Note) -> None:
        super().__init__()
        self._watched = watched
        self._note = note
        self.module: nn.Module | None = None
        self.calls: dict[int, set[int]] = {}
        """Module -> the watched functions that it has called; the model keeps both alive."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        watching = self._watched.get(id(function))
        if watching is None or self.module is None or torch.compiler.is_compiling():
            return function(*args, **(kwargs or {}))
        call = FunctionCall(function, args, kwargs or {}, self.module)
        self.calls.setdefault(id(self.module), set()).add(id(function))
        afterwards = [self._told(see, call) for see in watching]
        result = function(*args, **(kwargs or {}))
        for after in afterwards:
            if after is not None:
                self._told(after, result)
        return result

    def _told(self, callback: Callable[[Any], Any], what: Any) -> Any:
        try:
            # Checkpointing counts what a pass saves for its backward pass.
            with torch.no_grad():
                return callback(what)
        except Exception as error:
            self._note(None, f"measuring a function raised {type(error).__name__}: {error}")
            return None


def _is_quiet(module: nn.Module) -> bool:
    return isinstance(module, _QUIET) and type(module).__module__.startswith("torch.nn.modules.")


def may_take_fast_path(module: nn.Module) -> bool:
    """Whether torch may run attention by a path that it leaves where a mode is on.

    It does not in training mode, nor where every parameter records gradients.
    """
    if not isinstance(module, _WITH_FAST_PATH) or all(m.training for m in module.modules()):
        return False
    is_recorded = all(p.requires_grad for p in module.parameters())
    return not (torch.is_grad_enabled() and is_recorded)
