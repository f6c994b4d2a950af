"""Klambauer 2017: SELU layers draw activations to mean 0 and variance 1."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from matplotlib.figure import Figure

from reproductions.measured import Measured, factor, runs_below, span, where
from reproductions.paper import Claim, Paper
from vgexp.report.figures import style
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import log_line, log_scale
from vgexp.theory import function

ACTIVATIONS = ("selu", "elu", "tanh", "relu")
WEIGHT_VARIANCES = (0.95, 1.0, 1.1)
"""tau, the sum of a unit's squared weights: 1 of lecun_normal, times the gain's square."""
_STEP = 1e-3


def next_moments(variance: float) -> tuple[float, float]:
    """Mean and variance of selu(z), z normal with mean 0 (weights of sum 0) and this variance."""
    phi = function("selu")
    assert phi is not None
    q = torch.tensor([variance], dtype=torch.float64)
    mean = float(phi.mean(phi.value, q))
    return mean, float(phi.square(q)) - mean**2


def jacobian() -> tuple[float, float]:
    """d mean / d variance and d variance / d variance at (0, 1); those by the mean are 0."""
    high, low = next_moments(1 + _STEP), next_moments(1 - _STEP)
    return (high[0] - low[0]) / (2 * _STEP), (high[1] - low[1]) / (2 * _STEP)


def iterated(weight_variance: float, start: float, num_layers: int) -> list[tuple[float, float]]:
    """Mean and variance of h, layer by layer, from the variance of the first z on.

    Over random weights z has weight_variance times the second moment of h: the mean counts, which
    is where this differs from the paper's map of given weights of sum 0.
    """
    found, q = [], start
    for _ in range(num_layers):
        mean, variance = next_moments(q)
        found.append((mean, variance))
        q = weight_variance * (variance + mean**2)
    return found


def claims(folder: Path) -> list[Claim]:
    """The table."""
    selu, deep = _activation(folder, "selu"), slice(50, None)
    means, variances = _moments(selu)
    mean, variance = next_moments(1.0)
    to_mean, to_variance = jacobian()
    norm = math.hypot(to_mean, to_variance)
    phi = function("selu")
    assert phi is not None
    slope = math.sqrt(float(phi.slope_square(torch.ones(1, dtype=torch.float64))))
    ends = {tau: _moments(_weighted(folder, tau))[1][-1] for tau in WEIGHT_VARIANCES}
    expected = {tau: iterated(tau, tau, 400)[-1][1] for tau in WEIGHT_VARIANCES}
    others = {name: _moments(_activation(folder, name))[1][-1] for name in ACTIVATIONS[1:]}
    return [
        Claim(
            "Mean 0 and variance 1 are a fixed point of SELU layers",
            "(0, 1) (theorem 1, weights of sum 0 and square sum 1)",
            f"({abs(mean):.1g}, {variance:.4f}) after ({0}, {1})",
            f"means {span(means[deep], 2)}, variances {span(variances[deep], 3)} in layers 51 to "
            "100 (256 units, 5 seeds)",
        ),
        Claim(
            "It attracts",
            "norm of the map's Jacobian there 0.7877 (before theorem 1)",
            f"{norm:.4f}; the variance's own share {to_variance:.4f} a layer, and "
            f"{_expected_approach(folder):.3f} on the way to the end with τ = 1.1",
            f"{_approach(_tilted(folder)):.3f} on that way (geometric mean of 8 layers)",
        ),
        Claim(
            "With weights of square sum τ from 0.95 to 1.1 the variance stays near",
            "within 0.8 to 1.5 (theorem 1)",
            ", ".join(f"τ {tau:g}: {value:.3f}" for tau, value in expected.items()),
            ", ".join(f"τ {tau:g}: {value:.3f}" for tau, value in ends.items()),
        ),
        Claim(
            "Other activations have no such point",
            "SELU is made for it",
            "",
            "variance of h in layer 100, equal weights: "
            + ", ".join(f"{name} {value:.2g}" for name, value in others.items()),
        ),
        Claim(
            "Gradients neither vanish nor explode",
            "impossible (abstract), by bounds on the variance of activations (theorems 2 and 3)",
            f"√(E φ'²) = {slope:.4f} a layer, ×{slope**99:.0f} over 99",
            f"{factor(selu.hidden):.4f} a layer, ×{selu.summary['attenuation']:.0f} over 99",
        ),
    ]


@style.with_style
def draw(folder: Path) -> Figure:
    """Variance of h by layer: of SELU for three tau, and of other activations."""
    figure, [left, right] = style.canvas(1, 2)
    for index, tau in enumerate(WEIGHT_VARIANCES):
        look, run = style.choose_line_look(index), _weighted(folder, tau)
        _, variances = _moments(run)
        layers = range(1, len(variances) + 1)
        start = float(run.hidden[run.hidden["layer"] == 1]["preact_std"].pow(2).mean())
        theory = [variance for _, variance in iterated(tau, start, len(variances))]
        points = {**look, "linestyle": "none"}
        left.plot(layers, variances, label=f"SELU, τ = {tau:g}", markevery=3, **points)
        left.plot(layers, theory, color=look["color"], linewidth=1.2)
    left.set(title="SELU (lines: theory)", xlabel="layer", ylabel="variance of h")
    legend_below(left)
    for index, name in enumerate(ACTIVATIONS):
        _, variances = _moments(_activation(folder, name))
        look = {**style.choose_line_look(index), "markevery": 10}
        log_line(right, range(1, len(variances) + 1), variances, label=name, **look)
    log_scale(right)
    right.set(title="With the same weights, other activations", xlabel="layer")
    right.set_ylabel("variance of h")
    legend_below(right)
    return figure


def verdict(folder: Path) -> str:
    """What differs."""
    selu = _activation(folder, "selu")
    return (
        "Forward, paper and measurement agree. Backward they do not: that activations keep their "
        "variance does not mean that gradients keep theirs. What comes back is multiplied by the "
        "mean of φ'², not by that of φ²; for SELU at the fixed point its root is above 1, and over "
        f"100 layers the gradient grows {selu.summary['attenuation']:.0f} times. At the "
        "depths of the paper (at most 32) that does no harm, but it is exponential growth with a "
        "bounded forward variance. The spread of "
        "the variances over layers and seeds is that of 256 units; it does not add up over layers, "
        "as the point attracts."
    )


def _moments(run: Measured) -> tuple[list[float], list[float]]:
    """Mean and variance of h by layer, means over seeds."""
    rows = run.hidden.assign(variance=run.hidden["act_std"] ** 2)
    found = rows.groupby("layer")[["act_mean", "variance"]].mean()
    return found["act_mean"].tolist(), found["variance"].tolist()


def _tilted(folder: Path) -> list[float]:
    """The variances at the largest tau."""
    return _moments(_weighted(folder, WEIGHT_VARIANCES[-1]))[1]


def _expected_approach(folder: Path) -> float:
    """What theory has for it, from the first z's measured variance on."""
    rows = _weighted(folder, WEIGHT_VARIANCES[-1]).hidden
    start = float(rows[rows["layer"] == 1]["preact_std"].pow(2).mean())
    return _approach([v for _, v in iterated(WEIGHT_VARIANCES[-1], start, 100)])


def _approach(variances: list[float]) -> float:
    """Factor a layer of the variance's distance from where it ends, over the first nine layers."""
    end = sum(variances[50:]) / len(variances[50:])
    return float(((end - variances[8]) / (end - variances[0])) ** (1 / 8))


def _activation(folder: Path, name: str) -> Measured:
    [run] = where(runs_below(folder / "activations"), model__activation=name)
    return run


def _weighted(folder: Path, weight_variance: float) -> Measured:
    if weight_variance == 1:
        return _activation(folder, "selu")
    found = runs_below(folder / "gains")
    return min(found, key=lambda run: abs(run.config["model.gain"] ** 2 - weight_variance))


PAPER = Paper(
    "klambauer_2017",
    "Klambauer, Unterthiner, Mayr, Hochreiter: Self-Normalizing Neural Networks, 2017.",
    "Do SELU layers draw the mean of activations to 0 and the variance to 1, and what does that do "
    "to gradients? 100 layers of 256 units on 8 × 8 digits, where the paper trains up to 32 layers "
    "on 121 data sets of UCI and others; LeCun's normal weights, so that τ is a mean over units "
    "instead of that of given weights. Nothing is trained, and alpha dropout is left out.",
    {
        "activations": "signal -m +experiment=papers/klambauer_2017 "
        "model.activation=selu,elu,tanh,relu",
        "gains": "signal -m +experiment=papers/klambauer_2017 model.gain=0.974679,1.048809",
    },
    claims,
    draw,
    verdict,
)
