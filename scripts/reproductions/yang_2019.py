"""Yang 2019: batch norm in deep nets without skips makes gradients explode."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from matplotlib.figure import Figure

from reproductions.measured import (
    Measured,
    by_layer,
    factor,
    geometric_mean,
    runs_below,
    span,
    where,
)
from reproductions.paper import Claim, Paper
from vgexp.report.figures import style
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import log_line, log_scale
from vgexp.theory import function

ACTIVATIONS = ("linear", "tanh", "relu")
GAINS = (0.1, 1.0, 10.0)
DEPTHS = (10, 25, 50, 100)
RATES = (0.1, 0.01)
ENDS = 5
"""Layers at each end that are not part of a factor: the inputs' pattern fades, and the read-out."""


def large_batch_factor(activation: str) -> float:
    """sqrt(E phi'(u)^2 / Var phi(u)), u ~ N(0, 1): an amplitude factor of dL/dz per layer.

    In a large batch each unit's u is standard normal and two examples' are independent. The next z
    has sigma_w^2 Var phi(u) over the batch, and batch norm divides by it: sigma_w cancels. By
    Poincare's inequality Var phi <= E phi'^2, equal where phi is linear: no phi makes it less than
    1. Of relu the square is (1/2) / (1/2 - 1/(2 pi)) = pi / (pi - 1).
    """
    phi = function(activation)
    assert phi is not None
    one = torch.ones(1, dtype=torch.float64)
    mean = float(phi.mean(phi.value, one))
    return math.sqrt(float(phi.slope_square(one)) / (float(phi.square(one)) - mean**2))


def claims(folder: Path) -> list[Claim]:
    """The table."""
    by_activation = _by_activation(folder)
    measured = [factor(by_activation[name].hidden, ENDS) for name in ACTIVATIONS]
    limits = [large_batch_factor(name) for name in ACTIVATIONS]
    relu = by_activation["relu"]
    gains = [where(runs_below(folder / "gains"), model__gain=gain)[0] for gain in GAINS]
    trained = _trained(folder)
    return [
        Claim(
            "A ReLU layer with batch norm multiplies the gradient, on the way back",
            f"mean square π/(π − 1) = {math.pi / (math.pi - 1):.3f} a layer in the limit of large "
            "batches",
            f"amplitude √(π/(π − 1)) = {math.sqrt(math.pi / (math.pi - 1)):.3f}; for these "
            f"examples and this batch {factor(relu.hidden, ENDS, 'predicted_backward_gain'):.3f}",
            f"{measured[2]:.3f} (50 layers of 128 units, 5 seeds)",
        ),
        Claim(
            "No activation avoids it",
            "the gradient grows exponentially whatever the nonlinearity; least near the linear one",
            ", ".join(f"{n} {limit:.3f}" for n, limit in zip(ACTIVATIONS, limits, strict=True))
            + " (√(E φ'² / Var φ), large batches)",
            ", ".join(f"{n} {value:.3f}" for n, value in zip(ACTIVATIONS, measured, strict=True)),
        ),
        Claim(
            "The variance of the weights at the start does not change it",
            "explosion cannot be removed by the initial weight variances",
            "sigma_w cancels: "
            + span(factor(run.hidden, ENDS, "predicted_backward_gain") for run in gains)
            + f" for gains {span(GAINS)}",
            span(factor(run.hidden, ENDS) for run in gains) + f" for gains {span(GAINS)}",
        ),
        Claim(
            "Deep nets with batch norm and without skips do not train",
            "beyond about 50 layers not trainable",
            "layer 1 has, over the last layer, "
            + ", ".join(f"{large_batch_factor('relu') ** (depth - 1):.1g}" for depth in DEPTHS)
            + f" at depths {', '.join(map(str, DEPTHS))}",
            "; ".join(f"depth {depth}: best loss {span(trained[depth], 2)}" for depth in DEPTHS),
        ),
    ]


@style.with_style
def draw(folder: Path) -> Figure:
    """dL/dz by layer, measured and by theory; and the factor of each gain."""
    figure, [left, right] = style.canvas(1, 2)
    for index, (name, run) in enumerate(_by_activation(folder).items()):
        look = style.choose_line_look(index)
        means = by_layer(run.hidden, "delta_rms")
        log_line(left, means.index, means, label=name, **{**look, "linestyle": "none"})
        limit = large_batch_factor(name)
        layers = means.index.to_numpy("float64")
        line = means.iloc[-1 - ENDS] * limit ** (layers[-1 - ENDS] - layers)
        log_line(left, layers, line, color=look["color"], linewidth=1.2)
    log_scale(left)
    left.set_title("Batch norm: dL/dz grows on its way back")
    left.set_xlabel("layer")
    left.set_ylabel("delta_rms; line: factor in large batches")
    legend_below(left)
    for index, gain in enumerate(GAINS):
        run = where(runs_below(folder / "gains"), model__gain=gain)[0]
        means = by_layer(run.hidden, "backward_gain").iloc[:-1]
        look = {**style.choose_line_look(index), "linestyle": "none"}
        right.plot(means.index, means, label=f"measured, gain {gain:g}", **look)
    limit = large_batch_factor("relu")
    right.axhline(limit, color=style.INK, label=f"√(π/(π − 1)) = {limit:.3f}")
    right.set_title("ReLU: the factor, whatever the gain")
    right.set_xlabel("layer")
    right.set_ylabel("backward_gain (amplitude)")
    legend_below(right)
    return figure


def verdict(folder: Path) -> str:
    """What differs."""
    runs = _by_activation(folder)
    tanh, linear = runs["tanh"], runs["linear"]
    own, column = factor(linear.hidden, ENDS), "predicted_backward_gain"
    return (
        f"ReLU agrees, for every gain. tanh grows by {factor(tanh.hidden, ENDS):.3f} a layer; the "
        f"limit of large width has {factor(tanh.hidden, ENDS, column):.3f} for these examples, "
        f"that of large batches {large_batch_factor('tanh'):.3f}. vgexp's prediction is known to "
        "be too small here, and says so: the random correlations that 128 units give the examples "
        "change what batch norm divides by, and the formula leaves that out. A linear net grows "
        f"by {own:.3f}, and by {factor(linear.hidden, ENDS, column):.3f} in the limit of large "
        "width, where batch norm, which divides each unit by its own deviation, makes the pattern "
        "of the inputs fade from layer to layer; here the finite width is the first suspect too. "
        "The paper has (B - 2) / (B - 3) in mean square for linear nets of a batch of B, 1.002 in "
        "amplitude at 256: that is where all examples have come to be equally far from each other, "
        "which takes digits more than 50 layers. That nothing avoids the explosion holds here too, "
        "but of linear nets it is mild."
    )


def _by_activation(folder: Path) -> dict[str, Measured]:
    runs = runs_below(folder / "activations")
    return {name: where(runs, model__activation=name)[0] for name in ACTIVATIONS}


def _trained(folder: Path) -> dict[int, list[float]]:
    """Best loss by seed, of the better learning rate, by depth."""
    runs = runs_below(folder / "training")
    best = {}
    for depth in DEPTHS:
        by_rate = [
            [_best(run) for run in where(runs, model__depth=depth, optimizer__lr=rate)]
            for rate in RATES
        ]
        best[depth] = min(by_rate, key=geometric_mean)
    return best


def _best(run: Measured) -> float:
    """The lowest mean loss over 20 steps."""
    return float(run.table("steps")["loss"].rolling(20).mean().min())


PAPER = Paper(
    "yang_2019",
    "Yang, Pennington, Rao, Sohl-Dickstein, Schoenholz: A Mean Field Theory of Batch "
    "Normalization, 2019.",
    "Does batch norm by itself make the gradient of a deep net without skips explode, by a factor "
    "that no initialisation changes? Perceptrons of 128 units in batches of 256 of 8 × 8 digits, "
    "instead of infinite width and MNIST or CIFAR-10; 100 steps at two learning rates. ε is 1e-5 "
    "and is not varied: a large one takes the explosion off. All factors here are amplitudes.",
    {
        "activations": "signal -m +experiment=papers/yang_2019 model.activation=linear,tanh,relu",
        "gains": "signal -m +experiment=papers/yang_2019 model.gain=0.1,1,10",
        "training": "train -m +experiment=papers/yang_2019 model.depth=10,25,50,100 "
        "optimizer.lr=0.1,0.01 seed=0,1,2 train.steps=100 train.eval_every=0",
    },
    claims,
    draw,
    verdict,
)
