"""Mishkin & Matas 2016: LSUV against orthonormal, Xavier's and He's weights, by activation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import vgexp
from reproductions.paper import Claim, Paper
from reproductions.readings import between, factor, jobs, main_path, number, percent
from vgexp.report.figures import style

_INITS = {
    "lsuv": "LSUV",
    "orthogonal": "orthonormal",
    "xavier_normal": "Xavier",
    "he_normal": "He",
}
_ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid")


def claims(runs: Path) -> Sequence[Claim]:
    starts = {job.folder: main_path(job.folder) for job in jobs(runs / "start").itertuples()}
    named = {vgexp.load(folder).config.model.activation: rows for folder, rows in starts.items()}
    return [
        _variances(named),
        *(_factor(name, named[name]) for name in _ACTIVATIONS),
        *(_accuracy(runs, name) for name in _ACTIVATIONS),
    ]


def _variances(rows: dict[str, pd.DataFrame]) -> Claim:
    predicted = np.concatenate([of["predicted_preact_std"] ** 2 for of in rows.values()])
    measured = np.concatenate([of["preact_std"] ** 2 for of in rows.values()])
    return Claim(
        "variance of z after LSUV, all layers, activations and seeds",
        "1, within Tol_var (Algorithm 1); here 0.1",
        between(predicted),
        f"{between(measured)} (90 % within {between(np.quantile(measured, [0.05, 0.95]))})",
    )


def _factor(name: str, rows: pd.DataFrame) -> Claim:
    return Claim(
        f"{name}, LSUV: factor of dL/dz a layer",
        "",
        number(factor(rows, "predicted_delta_rms")),
        between(factor(one) for _, one in rows.groupby("seed")),
    )


def _accuracy(runs: Path, activation: str) -> Claim:
    said = {
        "relu": "LSUV learns; so do the others",
        "leaky_relu": "LSUV learns; so do the others",
        "tanh": "LSUV learns; so do the others",
        "sigmoid": "no initialisation learns",
    }
    words = [
        f"{title} {percent(_chosen(runs, activation, init)['val_accuracy_best'])}"
        for init, title in _INITS.items()
    ]
    return Claim(
        f"{activation}, 17 weight layers: best validation accuracy", said[activation], "",
        ", ".join(words),
    )  # fmt: skip


def _chosen(runs: Path, activation: str, init: str) -> pd.DataFrame:
    table = jobs(runs / "trained")
    return table[(table["model.activation"] == activation) & (table["model.init"] == init)]


@style.with_style
def draw(runs: Path) -> Figure:
    figure, panels = style.canvas(1, 2, width=11.0)
    for index, init in enumerate(_INITS):
        look = {**style.choose_line_look(index), "linestyle": "none"}
        accuracies = [_chosen(runs, name, init)["val_accuracy_best"] for name in _ACTIVATIONS]
        x = np.arange(len(_ACTIVATIONS)) + 0.15 * (index - 1.5)
        middle = np.array([of.median() for of in accuracies])
        low = middle - np.array([of.min() for of in accuracies])
        high = np.array([of.max() for of in accuracies]) - middle
        panels[0].errorbar(x, middle, yerr=(low, high), label=_INITS[init], **look)
    panels[0].set_xticks(range(len(_ACTIVATIONS)), _ACTIVATIONS)
    panels[0].axhline(0.1, color=style.INK, linestyle=":", linewidth=1.0, label="chance")
    panels[0].set_ylim(0, 1.02)
    panels[0].set_ylabel("best validation accuracy")
    panels[0].set_title("after 400 steps: median and range over 3 seeds")
    panels[0].legend(loc="center right")
    for index, job in enumerate(jobs(runs / "start").itertuples()):
        name = vgexp.load(job.folder).config.model.activation
        _draw_gain(panels[1], main_path(job.folder), name, index)
    panels[1].set_title("LSUV at initialisation: lines are theory")
    panels[1].set_xlabel("layer")
    panels[1].set_ylabel("factor of dL/dz a layer")
    panels[1].set_ylim(bottom=0)
    panels[1].legend()
    return figure


def _draw_gain(axes: Axes, rows: pd.DataFrame, name: str, index: int) -> None:
    """Without the last hidden layer, which the read-out's shape decides."""
    rows = rows[rows["layer"] < rows["layer"].max()]
    look, groups = style.choose_line_look(index), rows.groupby("layer")
    predicted = groups["predicted_backward_gain"].median()
    axes.plot(predicted.index, predicted, color=look["color"])
    measured = groups["backward_gain"].median()
    axes.plot(measured.index, measured, label=name, **{**look, "linestyle": "none"})


def verdict(runs: Path) -> str:
    xavier, orthonormal = (
        percent(_chosen(runs, "relu", init)["val_accuracy_best"])
        for init in ("xavier_normal", "orthogonal")
    )
    sigmoid = jobs(runs / "start").query("`model.activation` == 'sigmoid'")["folder"].iloc[0]
    slope = factor(main_path(sigmoid))
    return (
        "**Agrees in what LSUV does**: with it every activation but the sigmoid learns, and for"
        " ReLU it does as well as He's initialisation, which knows the activation beforehand."
        " Sigmoids learn from none. Theory says why: LSUV fixes the variance on the way forward,"
        f" and of what comes back a sigmoid layer keeps {slope:.2f}, {number(slope**15)} over 15"
        " layers, whatever the scale of its input. Variances leave 0.9 to 1.1 where they are"
        " measured on another batch than the one that they were fitted on.\n\n"
        "**Differs in degree**: in the paper orthonormal and Xavier's weights train ReLU nets"
        f" nearly as well. Here they get to {orthonormal} and {xavier}: each of 16 layers loses"
        " half of the mean square (no factor of sqrt(2)), and 400 steps are few, while the paper"
        " trains for hundreds of epochs: what is compared here is how soon a net learns."
    )


PAPER = Paper(
    name="mishkin_2016",
    citation="D. Mishkin, J. Matas: All you need is a good init, 2016.",
    question=(
        "Does bringing each layer's output to unit variance let a net of 17 weight layers learn,"
        " whatever its activation? And what does it leave to the slope? Perceptrons of width 64 on"
        " digits instead of FitNets of 17 convolutions on CIFAR-10; 400 steps with momentum, at"
        " one learning rate without weight decay and in batches of 64, instead of hundreds of"
        " epochs; maxout is left out, and leaky_relu has slope 0.01, not the paper's 0.333."
    ),
    commands={
        "start": (
            "signal -m +experiment=papers/mishkin_2016"
            " model.activation=relu,leaky_relu,tanh,sigmoid"
        ),
        "trained": (
            "train -m +experiment=papers/mishkin_2016"
            " model.activation=relu,leaky_relu,tanh,sigmoid"
            " model.init=lsuv,orthogonal,xavier_normal,he_normal seed=1,2,3"
        ),
    },
    claims=claims,
    draw=draw,
    verdict=verdict,
)
