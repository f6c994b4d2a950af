"""Saxe 2014: deep linear nets, from orthogonal weights and from Gaussian ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import special

import vgexp
from reproductions.paper import Claim, Paper
from reproductions.readings import between, jobs, main_path, number, time_to
from vgexp.assembly import assemble
from vgexp.report.figures import style
from vgexp.report.figures.logarithmic import log_scale

_INITS = {"orthogonal": "orthogonal", "lecun_normal": "Gaussian"}
_FOLDERS = {"orthogonal": "orthogonal", "lecun_normal": "gaussian"}
_LEARNED = 0.5
"""Training loss that ends the time it takes to learn."""
_SEEDS = 3
_LOST = 1e-14
"""Of the largest singular value: what float64 does not tell from 0."""


def claims(runs: Path) -> Sequence[Claim]:
    best = _fastest(runs)
    return [
        *(_learning_time(best, init) for init in _INITS),
        _learning_rates(best),
        *(_singular_values(runs, init) for init in _INITS),
        *(_spread(runs, init) for init in _INITS),
    ]


def _fastest(runs: Path) -> pd.DataFrame:
    """Per initialisation and depth: the lr that is fastest in the median, and each seed's time."""
    table = jobs(runs / "trained")
    table["time"] = [time_to(folder, _LEARNED) for folder in table["folder"]]
    rows = []
    for (init, depth), nets in table.groupby(["model.init", "model.depth"]):
        medians = nets.groupby("optimizer.lr")["time"].median()
        rate = medians.idxmin()
        times = sorted(nets[nets["optimizer.lr"] == rate]["time"])
        rows.append({"init": init, "depth": depth, "lr": rate, "times": times})
    return pd.DataFrame(rows)


def _learning_time(best: pd.DataFrame, init: str) -> Claim:
    rows = best[best["init"] == init]
    words = [f"{row.depth} layers: {between(row.times)}" for row in rows.itertuples()]
    said = {
        "orthogonal": "independent of depth (Fig. 6)",
        "lecun_normal": "grows with depth (Fig. 6; its caption has uniform weights)",
    }
    return Claim(
        f"steps until the training loss is below {_LEARNED:g}, {_INITS[init]}, best lr",
        said[init],
        "",
        "; ".join(words),
    )


def _learning_rates(best: pd.DataFrame) -> Claim:
    rates = [
        f"{name}: {', '.join(f'{rate:g}' for rate in best[best['init'] == init]['lr'])}"
        for init, name in _INITS.items()
    ]
    depths = ", ".join(map(str, sorted(best["depth"].unique())))
    return Claim(
        f"best learning rate at {depths} layers",
        "falls as 1/depth (Fig. 4, decoupled starts)",
        "",
        "; ".join(rates),
    )


def _singular_values(runs: Path, init: str) -> Claim:
    values = _spectra(runs, init)
    num_layers, width = vgexp.load(runs / _FOLDERS[init]).config.model.depth, len(values[0])
    theory = "1, 1"
    if init != "orthogonal":
        theory = ", ".join(map(number, _gaussian_product(num_layers, width)))
    measured = [
        between(float(np.quantile(spectrum, share)) for spectrum in values) for share in (1, 0.5)
    ]
    said = {
        "orthogonal": "all are 1",
        "lecun_normal": "a few are large, most almost 0",
    }
    return Claim(
        f"{num_layers} hidden weights multiplied, {_INITS[init]}: largest and median"
        " singular value",
        said[init],
        theory,
        ", ".join(measured),
    )


def _gaussian_product(num_layers: int, width: int) -> tuple[float, float]:
    """Largest and median singular value of a product of L Gaussian matrices of variance 1/n.

    The largest: the edge (L + 1)^(L + 1) / L^L of the squares at large n (Fuss-Catalan law). The
    median: exp(L mu) of the middle Lyapunov exponent, exact as L grows at one n (Newman 1986).
    """
    largest = (num_layers + 1) * math.log(num_layers + 1) - num_layers * math.log(num_layers)
    middle = (math.log(2 / width) + special.digamma((width + 1) / 4)) / 2
    return math.exp(largest / 2), math.exp(num_layers * middle)


def _spectra(runs: Path, init: str) -> list[np.ndarray]:
    """Singular values of W_L ... W_1, largest first, of the nets that the first seeds give.

    In float64, where those below 1e-15 of the largest are lost.
    """
    config = vgexp.load(runs / _FOLDERS[init]).config
    spectra = []
    for seed in range(_SEEDS):
        network = assemble(dataclasses.replace(config, seed=seed, dtype="float64")).state.model
        product = np.eye(config.model.width)
        for watch in network.watches():
            if watch.kind != "readout":
                product = watch.weight.detach().numpy() @ product
        spectra.append(np.linalg.svd(product, compute_uv=False))
    return spectra


def _spread(runs: Path, init: str) -> Claim:
    rows = main_path(runs / _FOLDERS[init])
    first = rows[rows["layer"] == 1]
    return Claim(
        f"{rows['layer'].max()} layers, {_INITS[init]}: deviation of ln rms dL/dz at layer 1,"
        " over seeds",
        "",
        number(float(first["predicted_log_delta_std"].mean())),
        f"{number(float(np.log(first['delta_rms']).std()))} ({len(first)} seeds)",
    )


@style.with_style
def draw(runs: Path) -> Figure:
    figure, panels = style.canvas(1, 2, width=11.0)
    best = _fastest(runs)
    longest = max(t for times in best["times"] for t in times if math.isfinite(t))
    for index, (init, name) in enumerate(_INITS.items()):
        rows = best[best["init"] == init]
        finite = rows[[math.isfinite(np.median(times)) for times in rows["times"]]]
        panels[0].plot(
            finite["depth"], [np.median(t) for t in finite["times"]], label=name,
            **style.choose_line_look(index),
        )  # fmt: skip
        for row in rows.itertuples():
            reached = [t for t in row.times if math.isfinite(t)]
            look = {"color": style.choose_line_look(index)["color"], "linestyle": "none"}
            panels[0].plot([row.depth] * len(reached), reached, marker=".", **look)
            missed = len(row.times) - len(reached)
            panels[0].plot([row.depth] * missed, [1.1 * longest] * missed, marker="^", **look)
    panels[0].set_xscale("log")
    depths = sorted(best["depth"].unique())
    panels[0].set_xticks(depths, [str(depth) for depth in depths])
    panels[0].minorticks_off()
    panels[0].set_ylim(bottom=0)
    panels[0].set_xlabel("hidden layers")
    panels[0].set_ylabel(f"steps to a loss of {_LEARNED:g}, best lr")
    panels[0].set_title("learning time (dots: seeds)")
    panels[0].legend()
    for index, (init, name) in enumerate(_INITS.items()):
        for place, spectrum in enumerate(_spectra(runs, init)):
            look = {**style.choose_line_look(index), "marker": ""}
            spectrum = spectrum[spectrum > _LOST * spectrum[0]]
            title = name if place == 0 else None
            panels[1].plot(range(1, len(spectrum) + 1), spectrum, label=title, **look)
    log_scale(panels[1])
    panels[1].set_xlabel("singular value, from the largest")
    num_layers = vgexp.load(runs / "orthogonal").config.model.depth
    panels[1].set_title(f"product of {num_layers} hidden weights, {_SEEDS} seeds")
    panels[1].legend()
    return figure


def verdict(runs: Path) -> str:
    rows = main_path(runs / "orthogonal")
    by_layer = np.log(rows["delta_rms"]).groupby(rows["layer"]).std()
    best = _fastest(runs)
    product = best[best["init"] == "orthogonal"].eval("lr * depth")
    return (
        "**Agrees.** Orthogonal nets take as long at every depth, Gaussian ones ever longer, though"
        " the mean square of both signals is the same: what differs is that most directions of the"
        " Gaussian product are almost 0. Not every seed of the Gaussian nets gets there at a given"
        " learning rate (triangles at the top: not within the run).\n\n"
        "The best learning rate of orthogonal nets falls with depth as the paper says (lr times"
        f" depth: {', '.join(f'{value:.2g}' for value in product)}), as far as a grid of factors of"
        " three can tell.\n\n"
        "**Theory and measurement agree on the spread.** Square orthogonal matrices change no norm:"
        " the deviation of ln rms dL/dz over seeds is"
        f" {by_layer.iloc[0]:.4f} at layer 1 and {by_layer.iloc[-1]:.4f} at the last hidden one."
        " All of it is that of the loss's own gradient, while Gaussian nets gain some in each"
        " layer.\n\n"
        "The Gaussian product's largest singular value is below the edge of the law of wide nets,"
        " since depth and width are about equal here."
    )


PAPER = Paper(
    name="saxe_2014",
    citation=(
        "A. M. Saxe, J. L. McClelland, S. Ganguli: Exact solutions to the nonlinear dynamics of"
        " learning in deep linear neural networks, 2014."
    ),
    question=(
        "How long does a deep linear net take to learn, from orthogonal weights and from Gaussian"
        " ones of the same mean square, with the best learning rate of each depth? And what do"
        " singular values of the product of its weights look like? 64 units and digits instead of"
        " 1,000 and MNIST, cross-entropy instead of squared error, minibatches of 64; 5, 20 and 60"
        " layers, five learning rates and 300 steps. Pretraining is left out. Singular values are"
        " taken of the weights of the nets that the two `signal` commands start, in float64; below"
        " 1e-14 of the largest it does not tell them from 0."
    ),
    commands={
        "orthogonal": "signal +experiment=papers/saxe_2014 model.depth=60",
        "gaussian": "signal +experiment=papers/saxe_2014 model.depth=60 model.init=lecun_normal",
        "trained": (
            "train -m +experiment=papers/saxe_2014 model.init=orthogonal,lecun_normal"
            " model.depth=5,20,60 optimizer.lr=0.003,0.01,0.03,0.1,0.3 seed=1,2,3"
        ),
    },
    claims=claims,
    draw=draw,
    verdict=verdict,
)
