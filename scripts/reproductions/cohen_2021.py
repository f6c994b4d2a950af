"""Cohen 2021: full-batch gradient descent goes to the edge of stability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from reproductions.measured import Measured, runs_below, span, where
from reproductions.paper import Claim, Paper
from vgexp.report.figures import style
from vgexp.report.figures.legends import legend_below

RATES = (0.4, 0.6, 0.8)
SEEDS = (0, 1, 2)
HARD_RATE = 0.6
"""Learning rate of the runs without smoothed labels: the preset's."""
NEAR = 0.95
"""Share of 2 / lr from which on a run is at the edge."""


def claims(folder: Path) -> list[Claim]:
    """The table."""
    runs = {rate: where(runs_below(folder / "rates"), optimizer__lr=rate) for rate in RATES}
    hard = [_ratio(run) for run in runs_below(folder / "hard_labels")]
    return [
        Claim(
            "Progressive sharpening: the sharpness rises until 2 / lr",
            "rises as long as it is below 2 / lr",
            "2 / lr is " + _by_rate({rate: [2 / rate] for rate in RATES}),
            "at the start "
            + _by_rate({rate: [_ratio(run)[0] for run in runs[rate]] for rate in RATES})
            + " of it, at the most "
            + _by_rate({rate: [max(_ratio(run)) for run in runs[rate]] for rate in RATES}),
        ),
        Claim(
            "Then it hovers at or just above 2 / lr",
            "just above 2 / lr",
            "1 (a quadratic would diverge above)",
            "median from the first time at the edge on, over 2 / lr: "
            + _by_rate({rate: [_hovering(run) for run in runs[rate]] for rate in RATES}),
        ),
        Claim(
            "At the edge the loss is not monotone over single steps",
            "non-monotone over short times, decreasing over long ones",
            "",
            "share of steps that raise the loss, before the edge "
            + _by_rate({rate: [_rises(run)[0] for run in runs[rate]] for rate in RATES})
            + ", at it "
            + _by_rate({rate: [_rises(run)[1] for run in runs[rate]] for rate in RATES})
            + "; loss at the first time at the edge over that at the end "
            + _by_rate({rate: [_progress(run) for run in runs[rate]] for rate in RATES}),
        ),
        Claim(
            "With cross-entropy the sharpness falls again late in training",
            "falls when the examples are fitted with a margin",
            "",
            f"hard labels (lr {HARD_RATE:g}): at the most {span(map(max, hard), 2)} of 2 / lr, at "
            "the "
            f"end {span([ratio[-1] for ratio in hard], 2)}",
        ),
    ]


@style.with_style
def draw(folder: Path) -> Figure:
    """Sharpness over steps with 2 / lr, and the loss, of every rate and seed."""
    figure, [left, right] = style.canvas(1, 2)
    for index, rate in enumerate(RATES):
        colour = style.choose_line_look(index)["color"]
        for seed in SEEDS:
            [run] = where(runs_below(folder / "rates"), optimizer__lr=rate, seed=seed)
            curvature, steps = run.table("curvature"), run.table("steps")
            label = f"lr {rate:g}" if seed == SEEDS[0] else None
            look = {"color": colour, "linewidth": 1.1}
            left.plot(curvature["step"], curvature["hessian_max"], label=label, **look)
            right.plot(steps["step"], steps["loss"], label=label, **look)
        left.axhline(2 / rate, color=colour, linestyle="--", linewidth=1.0)
    left.plot([], [], color=style.INK, linestyle="--", linewidth=1.0, label="2 / lr")
    left.set_ylim(bottom=0)
    right.set_yscale("log")
    left.set(title="Largest eigenvalue of the Hessian", xlabel="step", ylabel="hessian_max")
    right.set(title="Loss of the whole training split", xlabel="step", ylabel="loss")
    legend_below(left)
    legend_below(right)
    return figure


def verdict(folder: Path) -> str:
    """What differs."""
    runs = runs_below(folder / "rates")
    never = [run for run in runs if _edge(run) is None]
    ends = [_ratio(run)[-1] for run in runs if _edge(run) is not None]
    jump = max(max(_ratio(run)[:3]) for run in where(runs, optimizer__lr=RATES[-1]))
    absent = (
        f"{len(never)} of {len(runs)} runs do not get there in these steps "
        f"(lr {span([run.config['optimizer.lr'] for run in never])}). "
        if never
        else "Every run gets there. "
    )
    return (
        f"{absent}The sharpness of the others ends at {span(ends, 2)} of 2 / lr: at the edge or "
        "below it, where the paper has it just above. What differs is that these runs nearly end: "
        "the paper reports for cross-entropy that the sharpness falls again late in training, and "
        "smoothed labels delay that but do not prevent it. After a spike of the loss the sharpness "
        f"may stay below. At the largest rate it jumps to {jump:.1f} times 2 / lr within the first "
        "40 steps and comes back, before there is an edge to be at. It is measured every 20 "
        "steps; between them it may be higher."
    )


def _ratio(run: Measured) -> np.ndarray:
    """hessian_max over 2 / lr, over time."""
    table = run.table("curvature")
    return np.asarray(table["hessian_max"] * table["lr"] / 2)


def _edge(run: Measured) -> int | None:
    """The row of `curvature.csv` at which the run first is at the edge, the first row left out.

    A start above the edge is not one that has been sharpened to it.
    """
    at_edge = np.flatnonzero(_ratio(run)[1:] >= NEAR)
    return int(at_edge[0]) + 1 if at_edge.size else None


def _hovering(run: Measured) -> float:
    edge = _edge(run)
    return float("nan") if edge is None else float(np.median(_ratio(run)[edge:]))


def _rises(run: Measured) -> tuple[float, float]:
    """Share of steps that raise the loss, before and at the edge."""
    rises = np.diff(run.table("steps")["loss"]) > 0
    step = _edge_step(run)
    if step is None:
        return float(rises.mean()), float("nan")
    return float(rises[:step].mean()), float(rises[step:].mean())


def _progress(run: Measured) -> float:
    step = _edge_step(run)
    losses = run.table("steps")["loss"].to_numpy()
    return float("nan") if step is None else float(losses[step] / losses[-20:].mean())


def _edge_step(run: Measured) -> int | None:
    edge = _edge(run)
    return None if edge is None else int(run.table("curvature")["step"].iloc[edge])


def _by_rate(values: dict[float, Sequence[float]]) -> str:
    """`0.9 to 1.1 (lr 0.1), ...`, without runs that never were at the edge."""
    texts = []
    for rate, found in values.items():
        there = [value for value in found if not np.isnan(value)]
        texts.append(f"{span(there, 2) if there else 'never there'} (lr {rate:g})")
    return ", ".join(texts)


PAPER = Paper(
    "cohen_2021",
    "Cohen, Kaur, Li, Kolter, Talwalkar: Gradient Descent on Neural Networks Typically Occurs at "
    "the Edge of Stability, 2021.",
    "Does full-batch gradient descent raise the largest eigenvalue of the Hessian to 2 / lr and "
    "stay there? Two tanh layers of 128 units on all 1,257 training digits instead of 200 units "
    "and 5,000 images of CIFAR-10; 800 steps at lr 0.4 to 0.8, instead of as many as reach 99 % at "
    "about 0.01; sharpness every 20 steps; and instead of squared error cross-entropy on smoothed "
    "labels: digits are separated within few steps, and with hard labels margins would grow and "
    "flatten the loss before its edge is met. Convolutional nets and momentum are left out.",
    {
        "rates": "train -m +experiment=papers/cohen_2021 optimizer.lr=0.4,0.6,0.8 seed=0,1,2",
        "hard_labels": "train -m +experiment=papers/cohen_2021 train.label_smoothing=0 seed=0,1,2",
    },
    claims,
    draw,
    verdict,
)
