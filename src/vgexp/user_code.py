"""Makes activations, inits, norms and losses of the user's code, `package.module.name`.

Each is looked up and tried on a few numbers, so that code which does not fit is refused before
anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from vgexp import lookup
from vgexp.errors import QuestionError

_TRIED = ((-2.0, -0.5, 0.25), (0.5, 1.0, 2.0))


# ---------------------------------------------------------------- activations


class Elementwise(nn.Module):
    """A module that calls a function of one tensor."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, u: Tensor) -> Tensor:
        return self.function(u)


def activation(path: str) -> Callable[[], nn.Module]:
    """Makes an activation of a module class, a function that makes one, or a function of a tensor.

    Raises:
        QuestionError: it is none of these, draws random numbers, works in place, changes shapes or
            lets no gradient through.
    """
    key = "model.activation"
    allowed = "a class of nn.Module that needs no argument, or a function of a tensor"
    build = _maker(key, path, allowed)
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        module = build()
        u = torch.tensor(_TRIED, requires_grad=True)
        with torch.enable_grad():
            y, again = (lookup.call(key, path, module, u * 1) for _ in range(2))
            given = u.detach().clone()
            lookup.call(key, path, module, given)
            _require(isinstance(y, Tensor), key, path, f"it returns a {type(y).__name__}", allowed)
            shapes = f"it makes {list(y.shape)} of {list(u.shape)}"
            _require(y.shape == u.shape, key, path, shapes, "an output of its input's shape")
            is_one = torch.equal(y.detach().nan_to_num(), again.detach().nan_to_num())
            _require(is_one, key, path, "it is random", "the same output for the same input")
            _require(torch.equal(given, u), key, path, "it changes its input", "a new tensor")
            slopes = lookup.call(key, path, _slopes, y, u) if y.requires_grad else None
            passes = slopes is not None
            _require(passes, key, path, "no gradient passes it", "what autograd can differentiate")
    return build


def _slopes(y: Tensor, u: Tensor) -> Tensor | None:
    return torch.autograd.grad(y.sum(), u, allow_unused=True)[0]


def derivative(module: nn.Module, u: Tensor) -> Tensor:
    """Computes phi'(u) of an elementwise module by autograd, without calling its hooks."""
    with torch.enable_grad():
        given = u.detach().requires_grad_()
        y = module.forward(given)
        (slope,) = torch.autograd.grad(y, given, torch.ones_like(y))
    return slope


def _maker(key: str, path: str, allowed: str) -> Callable[[], nn.Module]:
    found = lookup.find(key, path)
    what = f"it is a {type(found).__name__}"
    _require(callable(found) and not isinstance(found, nn.Module), key, path, what, allowed)
    if isinstance(found, type):
        what = f"{found.__name__} is no nn.Module"
        _require(issubclass(found, nn.Module), key, path, what, allowed)
    elif lookup.count_required(found) != 0:
        return partial(Elementwise, found)

    def build() -> nn.Module:
        made = lookup.call(key, path, found)
        what = f"it returns a {type(made).__name__}"
        _require(isinstance(made, nn.Module), key, path, what, allowed)
        return made  # type: ignore[no-any-return]

    return build


# ---------------------------------------------------------------- norms


def norm(path: str) -> Callable[[int], nn.Module]:
    """Makes a norm of a module class, or of a function that makes one for a number of features.

    Raises:
        QuestionError: it is neither.
    """
    key, allowed = "model.norm", "a class of nn.Module, called with the number of features"
    found = lookup.find(key, path)
    _require(callable(found), key, path, f"it is a {type(found).__name__}", allowed)

    def build(num_features: int) -> nn.Module:
        made = lookup.call(key, path, found, num_features)
        what = f"called with {num_features} it returns a {type(made).__name__}"
        _require(isinstance(made, nn.Module), key, path, what, allowed)
        return made  # type: ignore[no-any-return]

    return build


# ---------------------------------------------------------------- initialisations


def init(path: str) -> Callable[[Tensor, float, Generator], None]:
    """Makes an init of a function that fills a tensor in place; multiplies by the gain after it.

    The function gets the generator if it takes one. If not, torch's global generator draws the
    numbers of the given one meanwhile.

    Raises:
        QuestionError: it is no function, raised something, or left entries as they were.
    """
    key, allowed = "model.init", "a function that fills a tensor in place, as torch.nn.init's do"
    found = lookup.find(key, path)
    is_function = callable(found) and not isinstance(found, type)
    _require(is_function, key, path, f"it is a {type(found).__name__}", allowed)
    takes_generator = "generator" in (lookup.list_parameters(found) or ())
    is_given_all = (lookup.count_required(found) or 0) <= 1 + takes_generator
    what = "it needs more than the weight and a generator"
    _require(is_given_all, key, path, what, allowed)

    def draw(weight: Tensor, gain: float, generator: Generator) -> None:
        weight.fill_(torch.nan)
        if takes_generator:
            lookup.call(key, path, found, weight, generator=generator)
        else:
            with _draw_from(generator):
                lookup.call(key, path, found, weight)
        num_left = int(weight.isnan().sum())
        what = f"it leaves {num_left:,} of {weight.numel():,} entries of a weight unset or nan"
        _require(not num_left, key, path, what, allowed)
        weight.mul_(gain)

    return draw


@contextmanager
def _draw_from(generator: Generator) -> Iterator[None]:
    """Makes torch's global generator of the CPU draw, within, what the given one would."""
    outside = torch.get_rng_state()
    torch.set_rng_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(torch.get_rng_state())
        torch.set_rng_state(outside)


# ---------------------------------------------------------------- losses


def loss(path: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Makes a loss of a function of (outputs, targets), or of a class that needs no argument.

    Raises:
        QuestionError: it is neither.
    """
    key, allowed = "train.loss", "a function of (outputs, targets) that returns the mean loss"
    found = lookup.find(key, path)
    if isinstance(found, type):
        what = f"{found.__name__} is no nn.Module"
        _require(issubclass(found, nn.Module), key, path, what, allowed)
        found = lookup.call(key, path, found)
    _require(callable(found), key, path, f"it is a {type(found).__name__}", allowed)
    return found  # type: ignore[no-any-return]


def require_loss(
    path: str, function: Callable[[Tensor, Tensor], Any], outputs: Tensor, targets: Tensor
) -> None:
    """Tries a loss on a batch.

    Raises:
        QuestionError: it raises an error, or its result cannot be minimised.
    """
    key, allowed = "train.loss", "a function of (outputs, targets) that returns the mean loss, 0-d"
    with torch.enable_grad():
        value = lookup.call(key, path, function, outputs.detach().requires_grad_(), targets)
    what = f"it returns a {type(value).__name__}"
    _require(isinstance(value, Tensor), key, path, what, allowed)
    shapes = f"it returns {list(value.shape)} for outputs {list(outputs.shape)}"
    _require(value.ndim == 0, key, path, shapes, allowed)
    what = "what it returns has no gradient with respect to the outputs"
    _require(value.requires_grad, key, path, what, allowed)


def _require(is_so: bool, key: str, path: str, what: str, allowed: str) -> None:
    if not is_so:
        raise QuestionError(f"{key} is {path!r}: {what}\nallowed: {allowed}")
