"""The causes that a diagnosis can name: what each is, and which others it brings about.

This is the one table of them. Rules look for them (`rules/`), `root` finds the first of several.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vgexp.registry import Registry

_NOT_FINITE = ("nan_from_loss", "nan_in_backward", "overflow")
_NO_SIGNAL = ("saturating_activation", "underflow", "rate_too_small", "flat_landscape")
_UNITS = ("dead_units", "saturated_units")
_TOO_LARGE = (*_UNITS, *_NOT_FINITE, "saturated_loss", "clip_throttles")
"""What activations or weights that are too large bring about."""
_NOTHING_FOUND = "labels_unlearnable"
"""What a network looks like that moves and finds nothing, although there is something to find."""


@dataclass(frozen=True)
class Cause:
    """Something that keeps a network from learning, or, of the group `notes`, that need not."""

    id: str
    group: str
    """wiring, loss, data, initialisation, depth, units, optimizer, dtype, landscape, none, notes"""
    summary: str
    """What it is, in one line."""
    explains: tuple[str, ...] = ()
    """What may follow from it: beside this cause a finding of one of these is its consequence."""

    @property
    def is_note(self) -> bool:
        """Whether it is worth a word, but no sickness."""
        return self.group == "notes"


_CAUSES = (
    # ------------------------------------------------------------ wiring
    Cause(
        "no_update",
        "wiring",
        "the optimizer never changed a weight: it made no step, or its learning rate is 0",
        ("rate_too_small", "flat_landscape"),
    ),
    Cause(
        "not_in_optimizer",
        "wiring",
        "the optimizer does not hold parameters that the network uses",
        ("no_update", "rate_too_small", "flat_landscape"),
    ),
    Cause(
        "not_registered",
        "wiring",
        "modules ran that are no submodules, so that the optimizer was never given their weights",
        ("not_in_optimizer", "no_update", "rate_too_small", "flat_landscape"),
    ),
    Cause(
        "frozen",
        "wiring",
        "parameters that have to learn have requires_grad=False",
        ("graph_cut", "rate_too_small", "flat_landscape"),
    ),
    Cause(
        "graph_cut",
        "wiring",
        "no gradient can come back: detached, under no_grad, or through sign, argmax or round",
        ("no_update", *_NO_SIGNAL),
    ),
    Cause(
        "gradient_cleared",
        "wiring",
        "gradients are cleared between the backward pass and the optimizer's step",
        ("no_update", "graph_cut", "rate_too_small", "flat_landscape"),
    ),
    Cause(
        "gradient_kept",
        "wiring",
        "gradients are not cleared before each backward pass, which adds to what is there",
        ("rate_too_large", *_TOO_LARGE),
    ),
    # ------------------------------------------------------------ loss
    Cause(
        "double_softmax",
        "loss",
        "the loss gets probabilities and applies a softmax to them once more",
        ("rate_too_small", "flat_landscape", "saturated_loss"),
    ),
    Cause(
        "target_shape",
        "loss",
        "output and target differ in shape and are broadcast, so that all are compared with all",
        ("flat_landscape",),
    ),
    Cause(
        "output_range",
        "loss",
        "outputs or targets are out of the range that the other, or the loss, has",
        ("saturated_loss", "flat_landscape", *_UNITS),
    ),
    Cause("nan_from_loss", "loss", "the loss is not finite although what it was given is"),
    Cause(
        "nan_in_backward",
        "loss",
        "the loss is finite and its gradient is not: a branch divides by 0, as sqrt does at 0",
        ("nan_from_loss", "overflow"),
    ),
    Cause(
        "saturated_loss",
        "loss",
        "the activation in front of the loss is flat, so that the loss sends nothing back",
        _NO_SIGNAL,
    ),
    # ------------------------------------------------------------ data
    Cause(
        "inputs_unscaled",
        "data",
        "inputs are far from mean 0 and standard deviation 1",
        ("rate_too_large", "recurrence_exploding", "rate_too_small", _NOTHING_FOUND, *_TOO_LARGE),
    ),
    Cause("inputs_not_finite", "data", "inputs hold nan or infinite values", _NOT_FINITE),
    Cause(
        "labels_unlearnable",
        "data",
        "labels do not depend on the inputs",
        ("flat_landscape", "overfitting"),
    ),
    # ------------------------------------------------------------ initialisation
    Cause(
        "zero_weights",
        "initialisation",
        "weights begin at 0, or all alike, so that units stay equal or get no signal",
        ("dead_at_start", "weights_small", *_NO_SIGNAL),
    ),
    Cause(
        "weights_small",
        "initialisation",
        "weights begin so small that each layer shrinks the signal",
        (*_NO_SIGNAL, "recurrence_vanishing"),
    ),
    Cause(
        "weights_large",
        "initialisation",
        "weights begin so large that each layer makes the signal grow, or saturates its units",
        ("rate_too_large", "residual_growth", *_NO_SIGNAL, *_TOO_LARGE),
    ),
    Cause(
        "dead_at_start",
        "initialisation",
        "units give 0 on every example before the first update",
        ("dead_units", *_NO_SIGNAL),
    ),
    # ------------------------------------------------------------ depth
    Cause(
        "saturating_activation",
        "depth",
        "slopes below 1 multiply from layer to layer, until nothing is left of the gradient",
        ("underflow", "rate_too_small", "flat_landscape", "saturated_units"),
    ),
    Cause(
        "residual_growth",
        "depth",
        "each block of a residual network adds to the variance of the stream",
        ("rate_too_large", *_TOO_LARGE),
    ),
    Cause(
        "batchnorm_depth",
        "depth",
        "batch normalisation without skips makes the gradient grow from layer to layer",
        ("rate_too_large", *_TOO_LARGE),
    ),
    Cause(
        "recurrence_vanishing",
        "depth",
        "the gradient shrinks with each step back in time",
        ("underflow", "rate_too_small", "flat_landscape", _NOTHING_FOUND),
    ),
    Cause(
        "recurrence_exploding",
        "depth",
        "the gradient grows with each step back in time",
        ("rate_too_large", _NOTHING_FOUND, *_TOO_LARGE),
    ),
    Cause(
        "no_warmup",
        "depth",
        "attention with the norm behind the addition is trained at its full rate from the start",
        ("rate_too_large", _NOTHING_FOUND, *_TOO_LARGE),
    ),
    # ------------------------------------------------------------ units
    Cause(
        "dead_units",
        "units",
        "units give 0 on every example, and get no gradient any more",
        _NO_SIGNAL,
    ),
    Cause(
        "saturated_units",
        "units",
        "units are at the flat ends of their activation, and pass next to no gradient",
        _NO_SIGNAL,
    ),
    # ------------------------------------------------------------ optimizer
    Cause(
        "rate_too_small",
        "optimizer",
        "updates are too small beside the weights to change them within the run",
        ("flat_landscape",),
    ),
    Cause(
        "rate_too_large",
        "optimizer",
        "updates are so large that they destroy the weights",
        (_NOTHING_FOUND, *_NO_SIGNAL, *_TOO_LARGE),
    ),
    Cause(
        "clip_throttles",
        "optimizer",
        "clipping makes nearly every gradient many times smaller",
        ("rate_too_small", "flat_landscape"),
    ),
    Cause(
        "optimizer_epsilon",
        "optimizer",
        "the optimizer's epsilon is 0 in the weights' dtype, or larger than the gradients",
        ("rate_too_small", "rate_too_large", "flat_landscape", *_NOT_FINITE),
    ),
    # ------------------------------------------------------------ dtype
    Cause(
        "underflow",
        "dtype",
        "gradients are smaller than the smallest number that the dtype holds",
        ("rate_too_small", "flat_landscape"),
    ),
    Cause(
        "overflow",
        "dtype",
        "values are larger than the largest number that the dtype holds",
        ("nan_from_loss", "nan_in_backward"),
    ),
    # ------------------------------------------------------------ the rest
    Cause(
        "flat_landscape",
        "landscape",
        "signal and update are sound, but the loss is flat where the network is",
    ),
    Cause("unknown", "none", "the network does not learn, and no rule says why"),
    # ------------------------------------------------------------ notes
    Cause("overfitting", "notes", "the loss falls on the training split and rises on the other"),
    Cause("idle_clip", "notes", "clipping is switched on and never changed a gradient"),
    Cause(
        "hidden_by_weights",
        "notes",
        "gradients of weights do not show what becomes of the signal",
    ),
    Cause("relapsed", "notes", "the network learned, and lost it"),
    Cause("unused_parameters", "notes", "parameters that no forward pass uses"),
    Cause("idle_layers", "notes", "layers that get no gradient in a network that learned"),
)

CAUSES: Registry[Cause] = Registry("cause", {cause.id: cause for cause in _CAUSES})
"""Id -> cause, in the order of `vgexp list causes`."""


def list_groups() -> Iterator[tuple[str, list[Cause]]]:
    """Lists the groups, each with its causes."""
    groups: dict[str, list[Cause]] = {}
    for cause in _CAUSES:
        groups.setdefault(cause.group, []).append(cause)
    yield from groups.items()


def explains(one: str, other: str) -> bool:
    """Whether a finding of `other` is to be expected where there is `one`, at once or by way of
    further causes. Two that explain each other are told apart by which came first."""
    seen, waiting = {one}, [one]
    while waiting:
        for following in CAUSES[waiting.pop()].explains:
            if following == other:
                return True
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return False
