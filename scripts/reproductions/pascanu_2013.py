"""Pascanu 2013: the recurrent matrix decides whether gradients vanish or explode over time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from reproductions.measured import Measured, chosen, geometric_mean, runs_below, span, where
from reproductions.paper import Claim, Paper
from vgexp.report.figures import style
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import log_line, log_scale
from vgexp.theory import function

RADII = (0.5, 0.9, 1.0, 1.1, 1.5, 2.0)
GAUSSIAN_RADII = (0.5, 0.9, 1.1)
CLIPS = ("none", "norm")
_LATEST = 5
"""Steps at the end of a sequence that are left out of a factor: the read-out's direction fades."""


def saturated_factor(radius: float, state_rms: float) -> float:
    """radius sqrt(E tanh'(u)^2), u ~ N(0, q) with E tanh(u)^2 the measured mean square of states.

    For an orthogonal matrix times the radius, by an argument of large width. tanh' <= 1, so that
    the factor is at most the radius (the paper's gamma = 1).
    """
    phi = function("tanh")
    assert phi is not None
    low, high = -40.0, 12.0
    for _ in range(60):
        middle = (low + high) / 2
        square = float(phi.square(torch.tensor([math.exp(middle)], dtype=torch.float64)))
        low, high = (middle, high) if square < state_rms**2 else (low, middle)
    q = torch.tensor([math.exp(low)], dtype=torch.float64)
    return radius * math.sqrt(float(phi.slope_square(q)))


def claims(folder: Path) -> list[Claim]:
    """The table."""
    linear, tanh = (
        {radius: time_factor(_run(folder, name, radius)) for radius in RADII}
        for name in ("linear", "tanh")
    )
    predicted = {r: saturated_factor(r, _state_rms(_run(folder, "tanh", r))) for r in RADII}
    gaussian = {radius: _gaussian(folder, radius) for radius in GAUSSIAN_RADII}
    training = {clip: _trained(folder, clip) for clip in CLIPS}
    return [
        Claim(
            "Linear net, orthogonal matrix times ρ: gradient kept by a step back in time",
            "largest |eigenvalue| < 1 suffices to vanish, > 1 is needed to explode (section 2.1)",
            _list(RADII, RADII),
            _list(RADII, linear.values()) + " (5 seeds)",
        ),
        Claim(
            "With tanh that is a condition for vanishing, and only a necessary one for exploding",
            "largest singular value < 1/γ suffices to vanish, > 1/γ is needed to explode; γ = 1 "
            "for tanh, the bound of |φ'|",
            _list(RADII, predicted.values()) + " (ρ √(E φ'²) at the measured states)",
            _list(RADII, tanh.values()),
        ),
        Claim(
            "It is the spectral radius that decides, where singular values are not equal",
            "the linear condition is on the largest |eigenvalue|",
            _list(GAUSSIAN_RADII, GAUSSIAN_RADII) + " (largest singular value about 2ρ)",
            _list(GAUSSIAN_RADII, gaussian.values()) + " (Gaussian matrix, linear)",
        ),
        Claim(
            "Clipping the norm keeps nets from diverging whose gradients explode",
            "rescale a gradient whose norm exceeds a threshold (algorithm 1)",
            "",
            "; ".join(
                f"clip={clip}: largest gradient norm {span([norm for norm, _ in found], 2)}, last "
                f"loss {span([loss for _, loss in found], 2)}"
                for clip, found in training.items()
            )
            + f" (tanh, ρ = 1.5, SGD, 5 seeds; guessing {1 / 6:.2f})",
        ),
    ]


@style.with_style
def draw(folder: Path) -> Figure:
    """The gradient by the state over time for each radius, and the factors against the radius."""
    figure, [left, right] = style.canvas(1, 2)
    for index, radius in enumerate(RADII):
        run = _run(folder, "tanh", radius)
        means = run.table("time").groupby("t")["delta_rms"].apply(geometric_mean)
        look = {**style.choose_line_look(index), "marker": None}
        log_line(left, means.index, means / means.iloc[-1], label=f"ρ = {radius:g}", **look)
    log_scale(left)
    left.set(title="tanh: gradient by the state h_t", xlabel="step in time t")
    left.set_ylabel("delta_rms over that of the last step")
    legend_below(left)
    right.axhline(1, color=style.FAINT)
    right.plot(RADII, RADII, color=style.INK, linewidth=1.0, label="ρ (linear theory)")
    predicted = [saturated_factor(r, _state_rms(_run(folder, "tanh", r))) for r in RADII]
    right.plot(RADII, predicted, color=style.INK, linestyle=":", label="ρ √(E φ'²) (tanh theory)")
    for index, name in enumerate(("linear", "tanh")):
        found = [time_factor(_run(folder, name, radius)) for radius in RADII]
        right.plot(
            RADII, found, label=name, **{**style.choose_line_look(index), "linestyle": "none"}
        )
    found = [_gaussian(folder, radius) for radius in GAUSSIAN_RADII]
    look = {**style.choose_line_look(2), "linestyle": "none"}
    right.plot(GAUSSIAN_RADII, found, label="linear, Gaussian matrix", **look)
    right.set(title="What a step back leaves", xlabel="spectral radius ρ")
    right.set_ylabel("factor of delta_rms per step")
    legend_below(right)
    return figure


def verdict(folder: Path) -> str:
    """What differs."""
    edge = [r for r in RADII if time_factor(_run(folder, "tanh", r)) >= 1]
    clipped = [loss for _, loss in _trained(folder, "norm")]
    return (
        "The linear net follows its radius exactly. With tanh saturation takes its share: the "
        f"smallest radius tried at which the gradient grows is {min(edge, default=math.nan):g}. "
        "The condition of the paper is necessary for that, not sufficient. The largest singular "
        "value of a Gaussian matrix is about twice its radius, so that at 0.9 the condition on "
        "singular values says nothing, though the gradient vanishes as the radius says. Clipping "
        "keeps every run from diverging, but does not make it learn: after 300 updates no loss "
        f"is below {min(clipped):.2f}, where the best constant has {1 / 6:.2f}. That is not the "
        "paper's criterion, which is success on longer tasks after many more updates."
    )


def time_factor(run: Measured) -> float:
    """exp(-slope) of ln delta_rms on t, mean over seeds: what a step back in time leaves."""
    table = run.table("time")
    table = table[(table["step"] == 0) & (table["t"] < table["t"].max() - _LATEST)]
    means = np.log(table["delta_rms"]).groupby(table["t"]).mean()
    return float(np.exp(-np.polyfit(means.index, means, 1)[0]))


def _run(folder: Path, activation: str, radius: float) -> Measured:
    runs = runs_below(folder / "radii")
    [run] = where(runs, model__activation=activation, model__spectral_radius=radius)
    return run


def _gaussian(folder: Path, radius: float) -> float:
    [run] = where(runs_below(folder / "gaussian"), model__spectral_radius=radius)
    return time_factor(run)


def _state_rms(run: Measured) -> float:
    table = run.table("time")
    return float(np.sqrt((table["state_rms"] ** 2).mean()))


def _trained(folder: Path, clip: str) -> list[tuple[float, float]]:
    """Largest gradient norm and last loss, by seed."""
    runs = [run for run in runs_below(folder / "training") if chosen(run, "clip") == clip]
    found = []
    for run in runs:
        steps = run.table("steps")
        found.append((float(steps["grad_norm"].max()), float(steps["loss"].iloc[-20:].mean())))
    return found


def _list(radii: tuple[float, ...], factors: object) -> str:
    pairs = zip(radii, factors, strict=True)  # type: ignore[call-overload]
    return ", ".join(f"ρ {radius:g}: {factor:.3f}" for radius, factor in pairs)


PAPER = Paper(
    "pascanu_2013",
    "Pascanu, Mikolov, Bengio: On the difficulty of training recurrent neural networks, 2013.",
    "Does the recurrent matrix decide whether the gradient vanishes or explodes over time, and "
    "what does clipping do? One recurrent layer of 64 units on one of the paper's tasks, the "
    "adding problem, at one length of 100 steps, from an orthogonal matrix times its radius "
    "instead of a Gaussian one; trained for 300 updates at lr 0.1, clipped at a norm of 1. "
    "Temporal order, music, characters and the paper's regulariser are left out.",
    {
        "radii": "signal -m +experiment=papers/pascanu_2013 model.activation=linear,tanh "
        "model.spectral_radius=0.5,0.9,1,1.1,1.5,2",
        "gaussian": "signal -m +experiment=papers/pascanu_2013 model.activation=linear "
        "model.recurrent_init=normal model.spectral_radius=0.5,0.9,1.1",
        "training": "train -m +experiment=papers/pascanu_2013 clip=none,norm "
        "model.spectral_radius=1.5 seed=0,1,2,3,4",
    },
    claims,
    draw,
    verdict,
)
