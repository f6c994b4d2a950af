"""What a probe says that it did not see: the words of its lines, and how they are read again.

A probe writes `weight, weight: reason`, one line a reason; rules about wiring read them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

RAN_SILENTLY = "its module ran without gradients alone"
"""Of a weight that was used under no_grad only."""
NO_STEP = "no optimizer step was seen in a `with`"
UNREGISTERED = (
    "modules ran that are not registered in it, and have no rows; their weights: {}. Modules in a"
    " plain list or dictionary are not registered: nn.ModuleList and nn.ModuleDict do it"
)


_MOST_SHAPES = 8


def list_shapes(weights: Iterable[str]) -> str:
    """What is alike is listed once, with its number: `15 x [64, 64] in linear, [8, 64] in head`."""
    numbers = Counter(weights)
    words = [each if n == 1 else f"{n} x {each}" for each, n in numbers.items()]
    more = sum([*numbers.values()][_MOST_SHAPES:])
    return ", ".join(words[:_MOST_SHAPES]) + (f" and {more} more" if more else "")


def saw_no_step(lines: Iterable[str]) -> bool:
    """Whether the probe saw no step of the optimizer at all."""
    return any(NO_STEP in line for line in lines)


def unregistered_weights(lines: Iterable[str]) -> str | None:
    """The weights of modules that the model does not know as its own, as the probe lists them; None
    where it says nothing of such."""
    before, after = UNREGISTERED.split("{}")
    for line in lines:
        _, is_told, listed = line.partition(before)
        if is_told:
            return listed.removesuffix(after)
    return None


def weights_that_ran_silently(lines: Iterable[str]) -> set[str]:
    """The weights whose modules ran without gradients alone, as far as the probe names them."""
    named: set[str] = set()
    for line in lines:
        names, _, reason = line.partition(": ")
        if reason == RAN_SILENTLY:
            named.update(name.partition(" and ")[0] for name in names.split(", "))
    return named
