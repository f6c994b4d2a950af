"""De and Smith 2020: batch norm makes the blocks of a deep residual net nearly the identity."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from reproductions.measured import Measured, by_layer, factor, runs_below, slope, span, where
from reproductions.paper import Claim, Paper
from vgexp.report.figures import style
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import log_line, log_scale

NETS = {
    "plain, batch norm": ("none", "batch"),
    "residual": ("residual", "none"),
    "residual, batch norm": ("residual", "batch"),
    "residual / √L": ("scaled_residual", "none"),
    "α from 0 (SkipInit)": ("rezero", "none"),
}
"""Label -> skip and norm."""
NORMED, BARE, SCALED, SKIPINIT = list(NETS)[2], list(NETS)[1], list(NETS)[3], list(NETS)[4]
TOP = 1e3
"""Where the picture of variances ends: without norms they go far beyond."""


def claims(folder: Path) -> list[Claim]:
    """The table."""
    nets = {label: _net(folder, label) for label in NETS}
    variances = {label: _variances(run) for label, run in nets.items()}
    layers = np.arange(1, len(variances[NORMED]) + 1)
    steps = np.diff(variances[NORMED])
    share = steps / variances[NORMED][1:]
    doubling = float(np.exp(np.diff(np.log(variances[BARE])).mean()))
    late = slice(9, None)
    power = slope(layers[1:][late], share[late])
    gradients = {label: run.summary["attenuation"] for label, run in nets.items()}
    predicted = {label: run.summary.get("predicted_attenuation") for label, run in nets.items()}
    losses = _losses(folder)
    return [
        Claim(
            "With batch norm, the variance of the stream grows linearly with depth",
            "by about the same amount in every block",
            "by σ_w² E relu(u)² = 1",
            f"by {steps[late].mean():.3f} a block (blocks 10 to 99, 5 seeds)",
        ),
        Claim(
            "So a block's branch brings the share 1 / l of the variance after l blocks",
            "branch scaled down by the square root of the depth",
            "power of l: −1",
            f"power of l: {power:.2f}; at the last block {100 * share[-1]:.2f} %",
        ),
        Claim(
            "Without normalisation the variance doubles in every block",
            "grows exponentially with depth",
            "2",
            f"{doubling:.3f}; {variances[BARE][-1]:.1e} in layer {layers[-1]}",
        ),
        Claim(
            "Branches over √L, or times an α that starts at 0, are bounded as well",
            "SkipInit: at the start each block is the identity",
            f"variance of z from first to last layer × e = {math.e:.2f} with 1/√L, × 1 with α = 0",
            f"× {variances[SCALED][-1] / variances[SCALED][0]:.2f} and "
            f"× {variances[SKIPINIT][-1] / variances[SKIPINIT][0]:.2f}",
        ),
        Claim(
            "dL/dz of layer 1 over that of layer 100",
            "",
            "; ".join(f"{label}: {_short(predicted[label])}" for label in NETS),
            "; ".join(f"{label}: {_short(gradients[label])}" for label in NETS),
        ),
        Claim(
            "What trains at 100 layers",
            "residual nets with batch norm, and without it with SkipInit",
            "",
            "; ".join(f"{label}: {_ending(losses[label])}" for label in NETS)
            + f" (100 steps, lr {_rate(folder):g}, 3 seeds; guessing 2.3)",
        ),
    ]


@style.with_style
def draw(folder: Path) -> Figure:
    """Variance of z by layer, and dL/dz."""
    figure, [left, right] = style.canvas(1, 2)
    for index, label in enumerate(NETS):
        run, look = _net(folder, label), {**style.choose_line_look(index), "markevery": 6}
        for axes, column, power in ((left, "preact_std", 2), (right, "delta_rms", 1)):
            means = by_layer(run.hidden, column) ** power
            predicted = by_layer(run.hidden, f"predicted_{column}") ** power
            if axes is left:
                means, predicted = means.where(means < TOP), predicted.where(predicted < TOP)
            log_line(axes, means.index, means, label=label, **look)
            log_line(axes, means.index, predicted, color=style.INK, linewidth=0.7, zorder=5)
    left.plot([], [], color=style.INK, linewidth=0.7, label="theory")
    right.plot([], [], color=style.INK, linewidth=0.7, label="theory")
    log_scale(left)
    log_scale(right)
    left.set(title="Variance of z, below 1,000", xlabel="layer", ylabel="preact_std²")
    right.set(title="Gradient by z", xlabel="layer", ylabel="delta_rms")
    legend_below(left)
    legend_below(right)
    return figure


def verdict(folder: Path) -> str:
    """What differs."""
    losses = _losses(folder)
    nets = {label: _net(folder, label) for label in NETS}
    learnt = [label for label in NETS if max(losses[label]) < 1.15]
    return (
        "At the start paper, theory and measurement agree for the normalised, the scaled and the "
        f"SkipInit net. The bare residual net's backward factor of {factor(nets[BARE].hidden):.3f} "
        f"a layer is √2 ({factor(nets[BARE].hidden, column='predicted_backward_gain'):.3f} "
        "predicted). In a block of vgexp one weight matrix follows one activation, where the "
        "paper's have two or three convolutions: the growth per block is the same, that per "
        "weight is not. After 100 steps at one learning rate, below half of the loss of a guess "
        f"on every seed: {'; '.join(learnt) or 'none'}. The paper searches the learning rate of "
        "each net; here all have one, so that a loss says what this rate does, not what the net "
        "can."
    )


def _net(folder: Path, label: str) -> Measured:
    skip, norm = NETS[label]
    runs = runs_below(folder / "start") + runs_below(folder / "skips")
    [run] = where(runs, model__skip=skip, model__norm=norm)
    return run


def _variances(run: Measured) -> np.ndarray:
    """Of z by hidden layer, geometric mean over seeds."""
    return np.asarray(by_layer(run.hidden, "preact_std") ** 2)


def _losses(folder: Path) -> dict[str, list[float]]:
    """Mean of the last 20 steps, by seed; infinite where the run diverged."""
    runs = runs_below(folder / "training") + runs_below(folder / "training_skips")
    found = {}
    for label, (skip, norm) in NETS.items():
        own = where(runs, model__skip=skip, model__norm=norm)
        found[label] = [
            math.inf
            if run.summary["status"] == "diverged"
            else float(run.summary["loss_last_mean_20"])
            for run in own
        ]
    return found


def _ending(losses: list[float]) -> str:
    if all(math.isinf(loss) for loss in losses):
        return "every seed diverges"
    return f"loss {span(losses, 2)}"


def _rate(folder: Path) -> float:
    return float(runs_below(folder / "training")[0].config["optimizer.lr"])


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


PAPER = Paper(
    "de_2020",
    "De, Smith: Batch Normalization Biases Residual Blocks Towards the Identity Function in Deep "
    "Networks, 2020.",
    "Is what batch norm does for residual nets that it makes each branch small beside what it is "
    "added to? Perceptrons of 100 layers of 64 ReLU units on 8 × 8 digits instead of wide residual "
    "nets on CIFAR-10; 100 steps at one learning rate instead of 200 epochs at the best of a grid.",
    {
        "start": "signal -m +experiment=papers/de_2020 model.norm=none,batch "
        "model.skip=none,residual",
        "skips": "signal -m +experiment=papers/de_2020 model.norm=none "
        "model.skip=scaled_residual,rezero",
        "training": "train -m +experiment=papers/de_2020 model.norm=none,batch "
        "model.skip=none,residual seed=0,1,2",
        "training_skips": "train -m +experiment=papers/de_2020 model.norm=none "
        "model.skip=scaled_residual,rezero seed=0,1,2",
    },
    claims,
    draw,
    verdict,
)
