"""Counts N, the examples of one call of a model: the factor between dL/dz and its derivative of the
summed loss.

The user may say it. Otherwise it is read off the call's arguments, and where they do not tell it,
the guess is noted.
"""

from __future__ import annotations

import dataclasses
import inspect
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from vgexp.errors import impossible

Given = int | Callable[..., int] | None
"""What a user says of N: a number, a function of the model's arguments, or nothing."""

TIME_FIRST = (nn.RNNBase, nn.MultiheadAttention)
"""Modules that say by `batch_first` which axis of their input is that of examples."""

_WELL_KNOWN = (
    *("input_ids", "pixel_values", "inputs_embeds", "input_features", "input_values"),
    *("decoder_input_ids", "images", "tokens"),
)
"""Arguments whose dim 0 is that of examples, in the libraries that use these names."""
_OF_POSITIONS = {
    *("position_ids", "position_embeddings", "cache_position", "past_key_values", "rope"),
    *("mask", "attn_mask", "src_mask", "tgt_mask", "memory_mask", "is_causal"),
    *("edge_index", "edge_attr", "edge_weight", "freqs_cis", "hx", "h0", "c0"),
}
"""Arguments whose dim 0 is another axis, or 1."""
_CHANNELS = (1, 3, 4)
"""The channels of an image."""
_DEEPEST, _DEEPEST_OBJECT, _MOST_PARTS = 4, 1, 64
"""How far containers and objects are looked into, and how many parts of each."""


class _Size(NamedTuple):
    """A number of examples that one argument tells."""

    name: str
    examples: int
    shape: tuple[int, ...]
    is_told: bool = False
    """Whether the argument says it itself, so that no other one has to agree."""


class Examples:
    """Counts the examples of calls of one model.

    Args:
        given: what the user says.
        tell: is called with a sentence where N is a guess.

    Raises:
        QuestionError: `given` is neither a positive integer nor a function.
    """

    def __init__(self, model: nn.Module, given: Given, tell: Callable[[str], object]) -> None:
        is_count = isinstance(given, int) and not isinstance(given, bool) and given >= 1
        if not (given is None or is_count or callable(given)):
            allowed = "an integer of at least 1, a function of the model's arguments, or None"
            raise impossible("examples", given, allowed)
        self._given = given
        self._tell = tell
        self._names = _argument_names(model)

    @property
    def is_given(self) -> bool:
        """Whether the user says it."""
        return self._given is not None

    def of_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        """N of a call of the model."""
        if self._given is None:
            return self._read(dict(zip(self._names(len(args)), args, strict=True)) | {**kwargs})
        if isinstance(self._given, int):
            return self._given
        try:
            count = operator.index(self._given(*args, **kwargs))
        except Exception as error:
            self._tell(f"examples= raised {type(error).__name__}: {error}; it is guessed")
        else:
            if count >= 1:
                return count
            self._tell(f"examples= returned {count}, allowed: at least 1; it is guessed")
        return self._read(dict(zip(self._names(len(args)), args, strict=True)) | {**kwargs})

    def of_submodule(self, inputs: object) -> int:
        """N of a pass that begins with a submodule, since the model itself was not called."""
        if isinstance(self._given, int):
            return self._given
        if self._given is not None:
            self._tell("the model itself is not called, so examples= is not either; it is guessed")
        arguments = inputs if isinstance(inputs, tuple) else (inputs,)
        return self._read({f"input {i}": value for i, value in enumerate(arguments)})

    def of_time_first(self, current: int, model_shape: Sequence[int], given: object) -> int:
        """N of a pass in which a module whose examples are along dim 1 has got `given`.

        The model's own input is time-first where its two first dims are those of that input.
        """
        if self.is_given or not isinstance(given, Tensor) or given.ndim < 3:
            return current
        time, examples = given.shape[:2]
        if tuple(model_shape[:2]) != (time, examples) or current != time or time == examples:
            return current
        self._tell(
            f"taken as {examples}, dim 1 of the model's input {list(model_shape)}, since a module"
            " that reads it has batch_first=False; if that is not so, pass examples="
        )
        return examples

    def _read(self, arguments: Mapping[str, Any]) -> int:
        sizes = [size for name, value in arguments.items() for size in _sizes(name, value)]
        if not sizes:
            self._tell("no tensor was found in the model's arguments: taken as 1; pass examples=")
            return 1
        told = next((size for size in sizes if size.is_told), None)
        if told is None:
            by_name = {size.name.rpartition(".")[2]: size for size in reversed(sizes)}
            told = next((by_name[name] for name in _WELL_KNOWN if name in by_name), None)
        return told.examples if told is not None else self._most_common(sizes)

    def _most_common(self, sizes: Sequence[_Size]) -> int:
        """The number that most tensors tell; a single row is taken to be repeated."""
        of_examples = [s for s in sizes if _OF_POSITIONS.isdisjoint(s.name.split("."))]
        kept = [s for s in of_examples if s.examples != 1] or of_examples or list(sizes)
        numbers = Counter(size.examples for size in kept)
        examples = numbers.most_common(1)[0][0]
        if len(numbers) > 1 or not of_examples:
            size = next(size for size in kept if size.examples == examples)
            others = sorted({*numbers} - {examples})
            but = f", but others have {', '.join(map(str, others[:4]))}" if others else ""
            self._tell(
                f"guessed as {examples} from dim 0 of {size.name} {list(size.shape)}{but};"
                " pass examples="
            )
        return examples


def input_shape(inputs: object) -> tuple[int, ...]:
    """The shape of the first tensor of arguments that has axes; empty where there is none."""
    found = (size.shape for size in _sizes("", inputs))
    return next((shape for shape in found if shape), ())


def _argument_names(model: nn.Module) -> Callable[[int], list[str]]:
    """Returns a function that names the first arguments of the model's forward pass."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [each.name for each in parameters if each.kind in positional]
    return lambda number: [*known[:number], *(f"input {i}" for i in range(len(known), number))]


def _sizes(name: str, value: object, depth: int = 0) -> Iterator[_Size]:
    """What an argument tells of N: each of its tensors, or the argument itself."""
    if isinstance(value, Tensor):
        if value.ndim > 0:
            shape = (value.size(0),) if value.is_nested else tuple(value.shape)
            yield _Size(name, shape[0], shape)
        return
    if depth == _DEEPEST or value is None or isinstance(value, str | bytes | int | float):
        return
    if isinstance(value, PackedSequence):
        yield _Size(name, int(value.batch_sizes[0]), (), is_told=True)
        return
    if isinstance(value, list) and _is_list_of_records(value):
        yield _Size(name, len(value), (len(value),))
        return
    if isinstance(value, list) and _is_list_of_examples(value):
        yield _Size(name, len(value), (len(value),), is_told=True)
        return
    num_graphs = getattr(value, "num_graphs", None)
    if isinstance(num_graphs, int):
        yield _Size(name, num_graphs, (), is_told=True)
        return
    for inner, item in islice(_parts(value, depth), _MOST_PARTS):
        yield from _sizes(f"{name}.{inner}" if name else str(inner), item, depth + 1)


def _is_list_of_records(values: Sequence[object]) -> bool:
    """Whether each item of a list is a text or has fields, as an example may have."""
    return bool(values) and all(isinstance(value, str | Mapping) for value in values)


def _is_list_of_examples(values: Sequence[object]) -> bool:
    """Whether each tensor of a list is one example: an image, or a sequence of its own length."""
    if not values or not all(isinstance(value, Tensor) and value.ndim > 0 for value in values):
        return False
    shapes = [value.shape for value in values if isinstance(value, Tensor)]
    are_images = all(len(shape) == 3 and shape[0] in _CHANNELS for shape in shapes)
    return are_images or len({shape[0] for shape in shapes}) > 1


def _parts(value: object, depth: int) -> Iterator[tuple[Any, object]]:
    """The named parts of a container, or of an object with tensors in its attributes."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple | list):
        names = getattr(value, "__match_args__", ())  # those of a named tuple
        yield from zip(names, value, strict=True) if names else enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from vars(value).items()
    elif isinstance(x := getattr(value, "x", None), Tensor):
        # A graph: its other tensors are of edges.
        yield "x", x
    elif depth <= _DEEPEST_OBJECT and hasattr(value, "__dict__") and not callable(value):
        yield from vars(value).items()
