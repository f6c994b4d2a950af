"""Watches the loss of somebody's own loop: its value, and what its function is called with."""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar, final

import torch
from torch import Tensor, nn

from vgexp.errors import QuestionError
from vgexp.probe.hooks import Hook, Note
from vgexp.probe.steps import Number, StepMeter, floats, read_numbers
from vgexp.records import Rows
from vgexp.torch_internals import backward_task

LossFunction = TypeVar("LossFunction", bound=Callable[..., Any])

_NOTED = -1
"""The source of losses that the loop noted itself."""
_MOST_TENSORS = 16
"""Tensors of one call that are described at most."""
_MOST_ENTRIES = 2**22
"""Entries that are described at a time, so that large outputs need no second copy of themselves."""
_NUMBERS = ("min", "max", "mean", "std", "not_finite", "row_sum_min", "row_sum_max")
RESULT = "result"


class _Noted:
    """One loss: its value, and whether it counts for the update."""

    __slots__ = ("counts", "is_in_step", "source", "task", "value")

    def __init__(self, source: int, value: Number, *, counts: bool, is_in_step: bool) -> None:
        self.source = source
        self.value = value
        self.counts = counts
        self.is_in_step = is_in_step
        """Whether the optimizer's own step called for it, by a closure."""
        self.task = -1
        """Autograd's number of the backward pass that began in it."""


class Argument(NamedTuple):
    """What is known of one tensor; `numbers` are those of `_NUMBERS`."""

    function: str
    name: str
    role: str
    shape: str
    dtype: str
    numbers: tuple[Number, ...]


@final
class LossWatch:
    """The losses of one probe. It sees calls between `enter` and `leave` only.

    A loss counts for the update once a backward pass begins in it, so that losses of a validation
    do not; one that the loop notes itself counts at once. If the gradients were cleared since, as
    after a step that a scaler skipped, the losses before count no more.

    Args:
        steps: knows the parameters whose gradients make the update.
        note: is told what could not be measured.
    """

    def __init__(self, steps: StepMeter, note: Note) -> None:
        self._steps = steps
        self._note = note
        self._modules: list[tuple[nn.Module, Callable[..., None]]] = []
        self._num_sources = 0
        self._hooks: list[Any] = []
        self._is_inside = False
        self._losses: list[_Noted] = []
        self._described: dict[int, list[Argument]] = {}
        self._rows: list[tuple[int, list[Argument]]] = []
        self.describes = False
        """Whether the arguments of the next call are described."""
        self.is_in_step = False
        """Whether calls are those of a closure, which clears the gradients between them."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def is_used(self) -> bool:
        """Whether a loss function is watched."""
        return self._num_sources > 0

    # ------------------------------------------------------------ what a loop calls

    def watch(self, function: LossFunction) -> LossFunction:
        """Returns what is to be called instead of a loss function; a module is returned itself."""
        if not callable(function):
            raise QuestionError(
                f"watch_loss: given a {type(function).__name__}\n"
                "allowed: a module or a function that returns the loss"
            )
        source = self._num_sources
        self._num_sources += 1
        if isinstance(function, nn.Module):
            see = partial(self._on_module, source)
            self._modules.append((function, see))
            if self._is_inside:
                self._hook(function, see)
            return function
        watched: Any = _Watched(function, Hook(self._note, None, partial(self._see, source)))
        return watched  # type: ignore[no-any-return]

    def note_loss(self, loss: Tensor | float) -> None:
        """Notes a loss of the update; where it has several, they count by their mean."""
        if not isinstance(loss, Tensor):
            if isinstance(loss, bool) or not isinstance(loss, int | float):
                raise QuestionError(
                    f"note_loss: given a {type(loss).__name__}\nallowed: a tensor or a number"
                )
            self._note_value(float(loss))
        elif loss.numel():
            self._note_value(_value_of(loss))

    def _note_value(self, value: Number) -> None:
        self._losses.append(_Noted(_NOTED, value, counts=True, is_in_step=self.is_in_step))

    # ------------------------------------------------------------ life

    def enter(self) -> None:
        """Begins to see calls."""
        self._is_inside = True
        for module, see in self._modules:
            self._hook(module, see)

    def leave(self) -> None:
        """Sees no more calls, and forgets those of an update that did not come."""
        self._is_inside = False
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()
        self._forget()

    def end_step(self, step: int) -> Number:
        """Ends an update; its loss, or None where none was seen.

        The mean over an update's calls of a function; the sum of these over functions. Losses that
        the loop noted are taken alone. Of the calls of a closure the first is the update's own: the
        others are at other weights. It comes after those of micro-batches before the step.
        """
        counted = [loss for loss in self._losses if loss.counts]
        described = [argument for each in self._described.values() for argument in each]
        if described:
            self._rows.append((step, described))
        self._forget()
        by_source: dict[int, list[Number]] = {}
        closed: set[int] = set()
        for loss in counted:
            if loss.source not in closed:
                by_source.setdefault(loss.source, []).append(loss.value)
            if loss.is_in_step:
                closed.add(loss.source)
        if _NOTED in by_source:
            by_source = {_NOTED: by_source[_NOTED]}
        means = [_mean(values) for values in by_source.values()]
        return sum(means[1:], means[0]) if means else None

    def drain(self) -> Rows | None:
        """Returns the rows of `loss.csv` since the last call; on CUDA it waits for the device."""
        kept, self._rows = self._rows, []
        return rows_of([(step, argument) for step, arguments in kept for argument in arguments])

    # ------------------------------------------------------------ what is seen

    def _hook(self, module: nn.Module, see: Callable[..., None]) -> None:
        handle = Hook(self._note, None, see).set_after(module, with_kwargs=True)
        if handle is not None:
            self._hooks.append(handle)

    def _on_module(
        self, source: int, module: nn.Module, args: Any, kwargs: Any, result: Any
    ) -> None:
        self._see(source, module.forward, args, kwargs, result, type(module).__name__)

    def _see(
        self, source: int, function: Any, args: Any, kwargs: Any, result: Any, name: str = ""
    ) -> None:
        if not self._is_inside or torch.compiler.is_compiling():
            return
        loss = _loss_in(result)
        if loss is None or not loss.requires_grad or not loss.numel():
            return
        with torch.no_grad():
            noted = _Noted(source, _value_of(loss), counts=False, is_in_step=self.is_in_step)
            self._losses.append(noted)
            loss.register_hook(  # type: ignore[no-untyped-call]
                Hook(self._note, None, partial(self._on_backward, noted))
            )
            if self.describes and source not in self._described:
                self._described[source] = []  # even if it fails: of one call alone
                name = name or getattr(function, "__name__", type(function).__name__)
                every = [*_named_tensors(function, args, kwargs)][:_MOST_TENSORS]
                self._described[source] = [
                    *(describe(name, key, x) for key, x in every),
                    describe(name, RESULT, loss),
                ]

    def _on_backward(self, noted: _Noted, _gradient: Tensor) -> None:
        if noted.counts:
            return
        noted.task = backward_task()
        before = [
            loss for loss in self._losses if loss.counts and loss.task not in (-1, noted.task)
        ]
        if before and not self.is_in_step and all(p.grad is None for p in self._steps.parameters):
            self._losses = [loss for loss in self._losses if loss not in before]
        noted.counts = True

    def _forget(self) -> None:
        self._losses = []
        self._described = {}
        self.is_in_step = False


def rows_of(described: Sequence[tuple[int, Argument]]) -> Rows | None:
    """Makes rows of `loss.csv` of steps and arguments; None of none. On CUDA it waits."""
    if not described:
        return None
    num_numbers = len(_NUMBERS)
    read = read_numbers([number for _, argument in described for number in argument.numbers])
    columns = {name: read[i::num_numbers] for i, name in enumerate(_NUMBERS)}
    lost = columns["not_finite"]
    for name in ("min", "max", "mean", "std"):
        pairs = zip(columns[name], lost, strict=True)
        columns[name] = [None if share == 1 else value for value, share in pairs]
    numbers = {name: floats(values, torch.float64) for name, values in columns.items()}
    words = {
        name: [getattr(argument, name) for _, argument in described]
        for name in ("function", "name", "role", "shape", "dtype")
    }
    return Rows("loss", {"step": [step for step, _ in described], **words, **numbers})


_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


class _Watched:
    # Stands for a function: it has its attributes, signature, copies and pickled form; and where
    # it is an object of another class, that class.

    __doc__ = property(lambda self: self._function.__doc__)
    _function: Callable[..., Any]
    _see: Hook

    def __init__(self, function: Callable[..., Any], see: Hook) -> None:
        object.__setattr__(self, "_function", function)
        object.__setattr__(self, "_see", see)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._function(*args, **kwargs)
        if not torch.compiler.is_compiling():
            self._see(self._function, args, kwargs, result)
        return result

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # torch.compile takes what says that it is a function for one, and looks at its code.
        found = type(self._function)
        return _Watched if found in _FUNCTIONS else found

    @property
    def __wrapped__(self) -> Any:
        return self._function

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._function, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._function, name)

    def __dir__(self) -> list[str]:
        return dir(self._function)

    def __repr__(self) -> str:
        return repr(self._function)

    def __copy__(self) -> Any:
        return copy.copy(self._function)

    def __deepcopy__(self, memo: Any) -> Any:
        return copy.deepcopy(self._function, memo)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return _itself, (self._function,)


def _itself(function: Any) -> Any:
    return function


def _value_of(loss: Tensor) -> Number:
    """A loss as a number, or as a copy where reading it would wait: it may change in place."""
    loss = loss.detach()
    value = loss.reshape(()) if loss.numel() == 1 else loss.double().mean()
    return float(value) if value.is_cpu else value.clone()


def _mean(values: Sequence[Any]) -> Any:
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors:
        return sum(values) / len(values)
    device = tensors[0].device
    same = [torch.as_tensor(value, dtype=torch.float64, device=device) for value in values]
    return torch.stack(same).mean()


def _loss_in(result: Any) -> Tensor | None:
    """The loss in what a loss function returned: itself, `loss`, or the first tensor."""
    if isinstance(result, Tensor):
        return result
    found = result.get("loss") if isinstance(result, Mapping) else getattr(result, "loss", None)
    if found is None and isinstance(result, tuple | list):
        found = next((x for x in result if isinstance(x, Tensor)), None)
    return found if isinstance(found, Tensor) else None


def _named_tensors(function: Any, args: Any, kwargs: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a call, by the names of the function's parameters."""
    named: Mapping[str, Any]
    try:
        named = inspect.signature(function).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # it has no signature
        named = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    for name, value in named.items():
        yield from _tensors_in(name, value)


def _tensors_in(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors_in(f"{name}.{key}", inner)
    elif isinstance(value, tuple | list):
        for i, inner in enumerate(value):
            yield from _tensors_in(f"{name}.{i}", inner)


def describe(function: str, name: str, x: Tensor) -> Argument:
    """Describes a tensor of a call: one that requires gradients is an output, else a target."""
    role = "loss" if name == RESULT else "output" if x.requires_grad else "target"
    shape = "x".join(map(str, x.shape)) or "scalar"
    dtype = str(x.dtype).removeprefix("torch.")
    x = x.detach()
    has_rows = role == "output" and x.ndim > 1 and x.is_floating_point()
    if not x.numel() or x.layout is not torch.strided:
        return Argument(function, name, role, shape, dtype, (None,) * len(_NUMBERS))
    numbers: tuple[Number, ...] = (*_moments(x), None, None)
    if has_rows:
        sums = x.sum(1, dtype=torch.float64)
        numbers = (*numbers[:-2], sums.amin(), sums.amax())
    # Read at once where that is free, so that no small tensors stay.
    return Argument(
        function, name, role, shape, dtype, tuple(read_numbers(numbers)) if x.is_cpu else numbers
    )


def _moments(x: Tensor) -> tuple[Number, ...]:
    """Smallest, largest, mean and standard deviation of finite entries, and the share of others."""
    longest = max(range(x.ndim), key=lambda axis: x.shape[axis]) if x.ndim else 0
    size = max(1, x.shape[longest] * _MOST_ENTRIES // x.numel()) if x.ndim else 1
    parts = [_part(each) for each in (torch.split(x, size, longest) if x.ndim else [x])]
    count, mean, std, low, high = (torch.stack(each) for each in zip(*parts, strict=True))
    total = count.sum()
    middle = (count * mean).sum() / total
    spread = ((count * (std.square() + (mean - middle).square())).sum() / total).sqrt()
    lost = 1 - total / x.numel()
    return low.amin(), high.amax(), middle, spread, lost


def _part(x: Tensor) -> tuple[Tensor, ...]:
    """Number, mean, standard deviation, smallest and largest of the finite entries, in float64."""
    wide = (x.abs() if x.is_complex() else x).double()
    finite = torch.isfinite(wide)
    kept = torch.where(finite, wide, 0.0)
    count = finite.sum().double()
    mean = kept.sum() / count
    apart = torch.where(finite, wide - mean, 0.0)
    # Scaled, so that no square leaves float64.
    size = apart.abs().amax()
    unit = torch.where(size > 0, size, 1.0)
    std = unit * ((apart / unit).square().sum() / count).sqrt()
    is_none = count == 0
    low, high = wide.masked_fill(~finite, torch.inf), wide.masked_fill(~finite, -torch.inf)
    zero = torch.zeros_like(mean)
    return (
        count,
        torch.where(is_none, zero, mean),
        torch.where(is_none, zero, std),
        low.amin(),
        high.amax(),
    )
