"""Hanin & Nica 2018: at He's scale a ReLU net's gradient is log-normal, in depth over width."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
from matplotlib.figure import Figure

import vgexp
from reproductions.paper import Claim, Paper
from reproductions.readings import jobs, number
from vgexp.report.figures import style
from vgexp.report.figures.logarithmic import log_scale

_EQUAL = ((32, 16), (64, 32), (128, 64))
"""Widths and depths of one ratio."""
_SHOWN = (64, 32)


def claims(runs: Path) -> Sequence[Claim]:
    table = _table(runs)
    return [
        _variance(table, _SHOWN),
        _variance(table, (32, 64)),
        _ratio(table),
        _mean(table),
        _gaussian(runs),
        _batch(runs),
    ]


def _table(runs: Path) -> pd.DataFrame:
    """Of each net: beta, and mean and variance of ln |dL/dz_1|^2 / |dL/dz_L|^2 over seeds."""
    rows = []
    for job in jobs(runs / "widths").itertuples():
        config = vgexp.load(job.folder).config
        width, depth = config.model.width, config.model.depth
        logs = _logs(job.folder)
        mean, variance = _of_layer(width)
        rows.append(
            {
                "width": width,
                "depth": depth,
                "beta": 5 * (depth - 1) / width,
                "mean": logs.mean(),
                "variance": logs.var(ddof=1),
                "exact_mean": (depth - 1) * mean,
                "exact_variance": (depth - 1) * variance,
                "num": len(logs),
            }
        )
    return pd.DataFrame(rows).set_index(["width", "depth"]).sort_index()


def _logs(folder: Path) -> np.ndarray:
    """ln of the mean-square factor from layer L to layer 1, by seed."""
    layers = vgexp.load(folder).layers
    delta = layers[layers["kind"] != "readout"].pivot_table(
        index="seed", columns="layer", values="delta_rms"
    )
    return np.asarray(2 * np.log(delta.iloc[:, 0] / delta.iloc[:, -1]))


def _of_layer(width: int) -> tuple[float, float]:
    """Mean and variance of ln X, X = (2/n) sum_i b_i g_i^2 with fair bits b and Gaussian g.

    That is a layer's mean-square factor at one example, whatever the width: chi^2 with k degrees
    of freedom, k binomial. To first order in 1/n they are -5/(2n) and 5/n.
    """
    k = np.arange(1, width + 1)
    weight = scipy.stats.binom.pmf(k, width, 0.5)
    weight = weight / weight.sum()
    mean_k = np.log(4 / width) + scipy.special.digamma(k / 2)
    mean = float(weight @ mean_k)
    variance = weight @ scipy.special.polygamma(1, k / 2) + weight @ (mean_k - mean) ** 2
    return mean, float(variance)


def _error(row: pd.Series) -> float:
    """Standard error of a variance of as many Gaussian numbers."""
    return float(row["variance"] * np.sqrt(2 / (row["num"] - 1)))


def _variance(table: pd.DataFrame, net: tuple[int, int]) -> Claim:
    row = table.loc[net]
    return Claim(
        f"width {net[0]}, {net[1]} layers: variance of ln |dL/dz_1|^2 / |dL/dz_L|^2",
        f"beta = 5 sum 1/n = {number(row['beta'])}",
        f"{number(row['exact_variance'])} (exact at this width)",
        f"{number(row['variance'])} ± {number(_error(row))}",
    )


def _ratio(table: pd.DataFrame) -> Claim:
    rows = [table.loc[net] for net in _EQUAL]
    return Claim(
        "the same at widths 32, 64, 128 and depths 16, 32, 64",
        "beta decides, not depth or width alone: " + ", ".join(number(row["beta"]) for row in rows),
        ", ".join(number(row["exact_variance"]) for row in rows),
        ", ".join(f"{number(row['variance'])} ± {number(_error(row))}" for row in rows),
    )


def _mean(table: pd.DataFrame) -> Claim:
    row = table.loc[_SHOWN]
    error = np.sqrt(row["variance"] / row["num"])
    return Claim(
        f"width {_SHOWN[0]}, {_SHOWN[1]} layers: mean of that logarithm",
        f"-beta/2 = {number(-row['beta'] / 2)}",
        number(row["exact_mean"]),
        f"{number(row['mean'])} ± {number(error)}",
    )


def _gaussian(runs: Path) -> Claim:
    logs = _shown(runs)
    skewness, limit = float(scipy.stats.skew(logs)), 2 * np.sqrt(6 / len(logs))
    p = float(scipy.stats.shapiro(logs).pvalue)
    return Claim(
        "shape of its distribution",
        "Gaussian in the limit",
        f"skewness within ±{number(limit)} for {len(logs)} Gaussian numbers (two deviations)",
        f"skewness {number(skewness)}; Shapiro-Wilk p = {number(p)}",
    )


def _batch(runs: Path) -> Claim:
    layers = vgexp.load(runs / "batch").layers
    first = layers[layers["layer"] == 1]
    return Claim(
        "a batch of 64 examples instead of one: deviation of ln of the rms of dL/dz_1",
        "",
        number(float(first["predicted_log_delta_std"].mean())),
        number(float(np.log(first["delta_rms"]).std())),
    )


def _shown(runs: Path) -> np.ndarray:
    table = jobs(runs / "widths")
    chosen = table[(table["model.width"] == _SHOWN[0]) & (table["model.depth"] == _SHOWN[1])]
    return _logs(chosen["folder"].iloc[0])


@style.with_style
def draw(runs: Path) -> Figure:
    figure, panels = style.canvas(1, 2, width=11.0)
    table = _table(runs)
    for index, (width, rows) in enumerate(table.groupby(level="width")):
        look = style.choose_line_look(index)
        errors = [_error(row) for _, row in rows.iterrows()]
        panels[0].errorbar(
            rows["beta"], rows["variance"], yerr=errors, label=f"width {width}",
            **{**look, "linestyle": "none"},
        )  # fmt: skip
        panels[0].plot(rows["beta"], rows["exact_variance"], color=look["color"], linewidth=1.0)
    ends = [table["beta"].min(), table["beta"].max()]
    panels[0].plot(ends, ends, color=style.INK, linestyle=":", label="variance = beta")
    panels[0].plot([], [], color=style.INK, linewidth=1.0, label="exact at each width")
    panels[0].set_xscale("log")
    log_scale(panels[0])
    panels[0].set_xlabel("beta = 5 sum 1/n")
    panels[0].set_ylabel("variance of ln of the squared factor")
    panels[0].set_title("spread over initialisations")
    panels[0].legend()
    logs, row = _shown(runs), table.loc[_SHOWN]
    panels[1].hist(logs, bins=24, density=True, color="#9ccbea", label=f"{len(logs)} seeds")
    x = np.linspace(logs.min(), logs.max(), 200)
    for mean, variance, name, index in (
        (-row["beta"] / 2, row["beta"], "N(-beta/2, beta)", 0),
        (row["exact_mean"], row["exact_variance"], "exact mean and variance", 1),
    ):
        look = {**style.choose_line_look(index), "marker": ""}
        panels[1].plot(x, scipy.stats.norm.pdf(x, mean, np.sqrt(variance)), label=name, **look)
    panels[1].set_xlabel("ln of the squared factor from layer L to layer 1")
    panels[1].set_ylabel("density")
    panels[1].set_title(f"width {_SHOWN[0]}, {_SHOWN[1]} layers")
    panels[1].legend()
    return figure


def verdict(runs: Path) -> str:
    table = _table(runs)
    deviations = (table["variance"] - table["exact_variance"]) / table.apply(_error, axis=1)
    beyond = table["exact_variance"] / table["beta"]
    return (
        "**Agrees.** A ReLU net whose mean square is kept keeps exp(-beta/2) of it in the typical"
        " case: what is kept is a mean of rare large nets. For one example the factor of a layer is"
        " (2/n) sum b g^2 with fair bits b and Gaussian g at any width, so that mean and variance"
        " of its logarithm are known without an expansion: the thin lines. Measured variances are"
        f" {deviations.min():.1f} to {deviations.max():.1f} standard errors away from them.\n\n"
        "**Where beta = 5 sum 1/n is off**, the next order in 1/n is why: the exact variance is"
        f" {beyond.max():.2f} times beta at width {beyond.idxmax()[0]} and {beyond.min():.2f} times"
        f" at width {beyond.idxmin()[0]}.\n\n"
        "Over a batch of 64 examples delta_rms spreads less than for one example, since examples"
        " meet different units. The predicted column takes that into account to first order in"
        " depth/width, which at 32 layers of 64 units is not small: what is measured is larger."
    )


PAPER = Paper(
    name="hanin_2018",
    citation=(
        "B. Hanin, M. Nica: Products of many large random matrices and gradients in deep neural"
        " networks, 2018."
    ),
    question=(
        "At He's scale the mean square of a ReLU net's gradient is kept; how far from it is"
        " one net? The squared norm of dL/dz at layer 1 over that at layer L, at one example, over"
        " 200 initialisations of each of twelve nets. The paper's Jacobian goes from output to"
        " input; here the first and the last matrix, whose widths are those of the data, are left"
        " out, weights are Gaussian and biases 0."
    ),
    commands={
        "widths": (
            "signal -m +experiment=papers/hanin_2018 model.width=32,64,128 model.depth=8,16,32,64"
        ),
        "batch": "signal +experiment=papers/hanin_2018 data.batch_size=64",
    },
    claims=claims,
    draw=draw,
    verdict=verdict,
)
