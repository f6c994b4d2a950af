"""Schoenholz 2017: tanh nets learn to the depth that signals reach, and no deeper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import vgexp
from reproductions.paper import Claim, Paper
from reproductions.readings import between, factor, jobs, main_path, number, percent
from vgexp import theory
from vgexp.report.figures import style

_LEARNED = 0.5
"""Training accuracy, as a mean over 20 steps, from which a net counts as trained."""
_MARGIN = 8
"""Layers at each end in which variances have not settled, left out of slopes."""


def claims(runs: Path) -> Sequence[Claim]:
    start, trained = _start(runs), _trained(runs)
    return [
        _critical(runs, start),
        *(_gradient(start.loc[gain]) for gain in start.index),
        *(_depth(start.loc[gain], trained) for gain in start.index),
        _slower(runs),
    ]


def _slower(runs: Path) -> Claim:
    rows = jobs(runs / "slower").groupby("model.gain")["accuracy_best_mean_20"]
    words = [f"{gain**2:.2f}: {percent(shares)}" for gain, shares in rows]
    return Claim(
        "60 layers at a tenth of the lr: best training accuracy by sigma_w^2",
        "trains near the critical line, not far from it",
        "",
        "; ".join(words),
    )


def _start(runs: Path) -> pd.DataFrame:
    """Of each gain: chi and depth scales of theory, and the measured mean-square factor by seed."""
    rows = []
    for job in jobs(runs / "start").itertuples():
        config = vgexp.load(job.folder).config.model
        end = theory.phase(config).end
        layers = main_path(job.folder)
        inner = layers[layers["layer"].between(_MARGIN + 1, config.depth - _MARGIN)]
        chis = [factor(one) ** 2 for _, one in inner.groupby("seed")]
        rows.append(
            {
                "gain": config.gain,
                "variance": config.gain**2,
                "chi": end.chi,
                "xi_c": end.xi_c,
                "xi_gradient": end.xi_gradient,
                "chis": chis,
                "measured": float(np.exp(np.mean(np.log(chis)))),
            }
        )
    return pd.DataFrame(rows).set_index("gain", drop=False).sort_index()


def _trained(runs: Path) -> pd.DataFrame:
    """Median over seeds of the best training accuracy, a gain a row and a depth a column."""
    table = jobs(runs / "trained")
    return table.pivot_table(
        index="model.gain",
        columns="model.depth",
        values="accuracy_best_mean_20",
        aggfunc="median",
    )


def _critical(runs: Path, start: pd.DataFrame) -> Claim:
    first = jobs(runs / "start")["folder"].iloc[0]
    gain, _ = theory.critical_gain(vgexp.load(first).config.model)
    crossing = np.interp(0.0, np.log(start["measured"]), start["variance"])
    return Claim(
        "sigma_w^2 at which gradients neither vanish nor explode, sigma_b^2 = 0.05",
        "where chi_1 = 1",
        "" if gain is None else f"{gain**2:.2f}",
        f"{crossing:.2f} (between the nets of the sweep)",
    )


def _gradient(row: pd.Series) -> Claim:
    words = "ordered: vanishes" if row["chi"] < 1 else "chaotic: explodes"
    return Claim(
        f"sigma_w^2 = {row['variance']:.2f}: mean-square factor of dL/dz a layer",
        f"chi_1; {words}",
        number(row["chi"]),
        between(row["chis"]),
    )


def _depth(row: pd.Series, trained: pd.DataFrame) -> Claim:
    accuracies = trained.loc[row["gain"]]
    learned = accuracies.index[accuracies >= _LEARNED]
    words = ", ".join(f"{depth}: {share:.0%}" for depth, share in accuracies.items())
    deepest = f"up to {max(learned)}" if len(learned) else "none"
    limit = 6 * row["xi_c"]
    return Claim(
        f"sigma_w^2 = {row['variance']:.2f}: depths that train (accuracy {_LEARNED:g})",
        "up to about 6 xi_c (Fig. 5)",
        number(limit),
        f"{deepest} of {accuracies.index.max()} (best training accuracy at depth"
        f" {words.replace('%', ' %')})",
    )


@style.with_style
def draw(runs: Path) -> Figure:
    figure, panels = style.canvas(1, 2, width=11.0)
    start, trained = _start(runs), _trained(runs)
    first = vgexp.load(jobs(runs / "start")["folder"].iloc[0]).config.model
    variances, ends = _theory(first, math.sqrt(start["variance"].max()))
    look = {**style.choose_line_look(0), "linestyle": "none"}
    panels[0].plot(variances, [end.chi for end in ends], color=look["color"], label="chi, theory")
    panels[0].plot(start["variance"], start["measured"], label="measured", **look)
    panels[0].axhline(1, color=style.INK, linestyle=":", linewidth=1.0)
    panels[0].set_xlabel("sigma_w^2")
    panels[0].set_ylabel("mean-square factor of dL/dz a layer")
    panels[0].set_title("order and chaos")
    panels[0].legend()
    shown = panels[1].scatter(
        np.repeat(trained.index.to_numpy() ** 2, trained.shape[1]),
        np.tile(trained.columns.to_numpy(), trained.shape[0]),
        c=trained.to_numpy().ravel(), cmap=style.SEQUENTIAL, vmin=0, vmax=1, s=160,
        edgecolors=style.INK, linewidths=0.5, zorder=3,
    )  # fmt: skip
    limits = [6 * end.xi_c if end.xi_c is not None else np.nan for end in ends]
    panels[1].plot(variances, limits, color=style.SPIKE, label="6 xi_c, theory")
    panels[1].set_ylim(0, 1.15 * trained.columns.max())
    panels[1].set_xlabel("sigma_w^2")
    panels[1].set_ylabel("hidden layers")
    panels[1].set_title("best training accuracy after 300 steps")
    panels[1].legend(loc="upper right")
    figure.colorbar(shown, ax=panels[1], label="best training accuracy")
    return figure


def _theory(config, largest: float) -> tuple[np.ndarray, list[theory.FixedPoint]]:  # type: ignore[no-untyped-def]
    """Fixed points over sigma_w^2."""
    layer, _ = theory.plain_layer(config)
    assert layer is not None
    variances = np.linspace(0.9, largest**2 * 1.02, 16)
    ends = [
        theory.fixed_point(theory.Plain(layer.phi, float(variance), layer.bias_variance))
        for variance in variances
    ]
    return variances, ends


def verdict(runs: Path) -> str:
    start, trained = _start(runs), _trained(runs)
    deepest = trained.columns.max()
    beyond, short = [], []
    for gain in start.index:
        limit, name = 6 * start.loc[gain, "xi_c"], f"{start.loc[gain, 'variance']:.2f}"
        for depth, accuracy in trained.loc[gain].items():
            words = f"sigma_w^2 = {name} at {depth} layers"
            if accuracy >= _LEARNED and depth > limit:
                beyond.append(words)
            if accuracy < _LEARNED and depth <= limit:
                short.append(words)
    return (
        "**Agrees at initialisation**: chi from Gaussian integrals is the measured mean-square"
        " factor, below 1 in the ordered phase and above it in the chaotic one.\n\n"
        f"**Training**, up to {deepest} layers: beyond 6 xi_c train"
        f" {', '.join(beyond) or 'none'}; within it fail {', '.join(short) or 'none'}."
        " xi_c is the length over which what tells two inputs apart is forgotten, not a limit: at"
        " six of them e^-6 of it is left. How much of that can be learned from depends on steps and"
        " learning rate, and at width 64 initialisations spread around the infinite width that xi_c"
        " is of. The last row asks whether 60 layers fail for want of a signal or because the step"
        " is too long for them: at a tenth of the lr the critical nets get to"
        f" {_at(runs, 1.33)}, those of the ordered phase to {_at(runs, 1.0)}, of the chaotic to"
        f" {_at(runs, 2.0)}, in the same 300 steps."
    )


def _at(runs: Path, gain: float) -> str:
    nets = jobs(runs / "slower")
    return percent(nets[nets["model.gain"] == gain]["accuracy_best_mean_20"])


PAPER = Paper(
    name="schoenholz_2017",
    citation=(
        "S. S. Schoenholz, J. Gilmer, S. Ganguli, J. Sohl-Dickstein: Deep information propagation,"
        " 2017."
    ),
    question=(
        "Weights of variance sigma_w^2/n and biases of variance 0.05 decide whether gradients of a"
        " tanh net vanish or explode, and over how many layers two inputs stay apart: xi_c. Can"
        " nets be trained to about 6 xi_c layers and no deeper? Width 300 as in the paper where"
        " nothing is trained, 64 else; three depths up to 60 instead of up to 300; digits instead"
        " of MNIST, 300 steps with momentum."
    ),
    commands={
        "start": (
            "signal -m +experiment=papers/schoenholz_2017 model.depth=40 model.width=300"
            " model.gain=1,1.2,1.33,1.5,1.75,2 signal.seeds=5"
        ),
        "trained": (
            "train -m +experiment=papers/schoenholz_2017 model.gain=1,1.2,1.33,1.5,1.75,2"
            " model.depth=10,30,60 seed=1,2,3"
        ),
        "slower": (
            "train -m +experiment=papers/schoenholz_2017 model.gain=1,1.33,2 model.depth=60"
            " optimizer.lr=0.001 seed=1,2,3"
        ),
    },
    claims=claims,
    draw=draw,
    verdict=verdict,
)
