"""He 2015: thirty ReLU layers, from Xavier's initialisation and from the paper's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import vgexp
from reproductions.paper import Claim, Paper
from reproductions.readings import (
    between,
    draw_beside_theory,
    draw_losses,
    factor,
    jobs,
    main_path,
    number,
    time_to,
    typical,
)
from vgexp.report.figures import style

_INITS = {"he_normal": "He", "xavier_normal": "Xavier"}
_LEARNED = 1.0
"""Training loss below which a net has left the plateau at ln 10 = 2.3."""

_FLAT = 200
"""A measured step before which no net from Xavier's weights at 30 layers leaves the plateau."""


def claims(runs: Path) -> Sequence[Claim]:
    he, xavier = main_path(runs / "he"), main_path(runs / "xavier")
    return [
        _factor("std sqrt(2/n)", "1 (Eq. 14)", he),
        _factor("Xavier, std sqrt(1/n)", "1/sqrt(2) = 0.71", xavier),
        _through_all(xavier),
        _trained(runs / "trained", 29, "He's converges, Xavier's stalls completely (Fig. 3)"),
        _trained(runs / "slower", 29, "as above, at its lr of 0.01"),
        _trained(runs / "trained", 21, "both converge, He's begins to earlier (Fig. 2)"),
    ]


def _factor(init: str, said: str, rows: pd.DataFrame) -> Claim:
    return Claim(
        f"dL/dz, 30 weight layers, {init}: factor per layer",
        said,
        number(factor(rows, "predicted_delta_rms")),
        between(factor(one) for _, one in rows.groupby("seed")),
    )


def _through_all(rows: pd.DataFrame) -> Claim:
    def attenuation(of: pd.DataFrame, column: str = "delta_rms") -> float:
        by_layer = typical(of, column)
        return float(by_layer.iloc[0] / by_layer.iloc[-1])

    return Claim(
        "Xavier: dL/dz at hidden layer 1 over layer 29",
        f"1/sqrt(2) a layer: {number(2 ** (-28 / 2))}",
        number(attenuation(rows, "predicted_delta_rms")),
        between(attenuation(one) for _, one in rows.groupby("seed")),
    )


def _trained(sweep: Path, depth: int, said: str) -> Claim:
    words = [f"{name}: {_outcome(_chosen(sweep, init, depth))}" for init, name in _INITS.items()]
    rate = _chosen(sweep, "he_normal", depth)["lr"].iloc[0]
    return Claim(f"trained, {depth + 1} weight layers, lr {rate:g}", said, "", "; ".join(words))


def _outcome(nets: pd.DataFrame) -> str:
    """Last losses, and when the plateau was left, of the nets that did not diverge."""
    whole = nets[nets["status"] == "completed"]
    words = [f"{len(nets) - len(whole)} of {len(nets)} diverged"] if len(whole) < len(nets) else []
    if len(whole):
        steps = between(time_to(folder, _LEARNED) for folder in whole["folder"])
        words.append(f"loss {between(whole['loss_last_mean_20'])}")
        words.append(f"below {_LEARNED:g} after {steps} steps")
    return ", ".join(words).replace("after never steps", "never")


def _chosen(sweep: Path, init: str, depth: int) -> pd.DataFrame:
    """The nets of a sweep with this initialisation and depth, and their learning rate."""
    nets = jobs(sweep)
    configs = [vgexp.load(folder).config for folder in nets["folder"]]
    nets = nets.assign(depth=[c.model.depth for c in configs], lr=[c.optimizer.lr for c in configs])
    return nets[(nets["model.init"] == init) & (nets["depth"] == depth)]


@style.with_style
def draw(runs: Path) -> Figure:
    figure, panels = style.canvas(1, 2, width=11.0)
    for index, (folder, name) in enumerate({"he": "He", "xavier": "Xavier"}.items()):
        draw_beside_theory(panels[0], main_path(runs / folder), "delta_rms", name, index)
    panels[0].set_title("backward signal at initialisation, 30 weight layers")
    panels[0].set_ylabel("rms of dL/dz")
    panels[0].legend()
    for index, (init, name) in enumerate(_INITS.items()):
        for sweep, dashes in (("trained", "-"), ("slower", (0, (4, 2)))):
            nets = _chosen(runs / sweep, init, 29)
            title = f"{name}, lr {nets['lr'].iloc[0]:g}"
            draw_losses(panels[1], nets["folder"], title, index, linestyle=dashes)
    panels[1].set_title("30 weight layers: median and range over 3 seeds")
    panels[1].set_ylim(0, float(np.log(10)) * 1.15)
    panels[1].legend()
    return figure


def verdict(runs: Path) -> str:
    fast, slow = (_chosen(runs / sweep, "he_normal", 29) for sweep in ("trained", "slower"))
    stuck = _chosen(runs / "slower", "xavier_normal", 29)
    diverged = [int((nets["status"] == "diverged").sum()) for nets in (fast, slow)]
    learned = sum(time_to(folder, _LEARNED) < np.inf for folder in stuck["folder"])
    freed = _chosen(runs / "trained", "xavier_normal", 29)["folder"]
    signal, grown = zip(*(_while_flat(folder) for folder in freed), strict=True)
    return (
        "**Agrees on the signal**, per layer and over all layers; single nets spread by what a"
        " width of 128 gives.\n\n"
        "**Differs in training at the paper's lr of 0.01.** Xavier's nets do not stall for good on"
        " digits. The signal comes back while the loss is still flat: dL/dz at layer 1 over layer"
        f" 29 is {between(one[0] for one in signal)} at step 0 and"
        f" {between(one[1] for one in signal)} at step {_FLAT}, when no hidden weight's norm has"
        f" changed by more than a share of {max(grown):.1e}: few directions of each matrix carry"
        f" it. And from He's weights {diverged[0]} of {len(fast)} nets diverge: a step of this"
        " length, with momentum 0.9, is too long for a net that passes everything on.\n\n"
        f"At a tenth of that lr {diverged[1]} of {len(slow)} of He's nets diverge, and"
        f" {learned} of {len(stuck)} of Xavier's leave the plateau within the same 1,000 steps,"
        " which is the paper's picture. So the factor per layer says how long a net stands still,"
        " in steps times learning rate; on ImageNet, which is harder than digits and where the"
        " paper decays weights too, that presumably is longer than anybody waits."
    )


def _while_flat(folder: Path) -> tuple[tuple[float, float], float]:
    """dL/dz at layer 1 over the last hidden layer, at step 0 and on the plateau; and the largest
    relative change of a hidden weight's norm between the two."""
    layers = vgexp.load(folder).layers
    layers = layers[layers["kind"] != "readout"]
    delta, norm = (
        layers.pivot_table(index="step", columns="layer", values=column)
        for column in ("delta_rms", "weight_norm")
    )
    ratio = delta.iloc[:, 0] / delta.iloc[:, -1]
    change = float((norm.loc[_FLAT] / norm.loc[0] - 1).abs().max())
    return (float(ratio[0]), float(ratio[_FLAT])), change


PAPER = Paper(
    name="he_2015",
    citation=(
        "K. He, X. Zhang, S. Ren, J. Sun: Delving deep into rectifiers: surpassing human-level"
        " performance on ImageNet classification, 2015."
    ),
    question=(
        "Does a ReLU net of 30 weight layers learn from weights of std sqrt(2/n), and stall from"
        " Xavier's? Perceptrons of width 128 on digits, instead of 27 convolutions and three full"
        " layers on ImageNet; 1,000 steps of SGD in batches of 64 with the paper's momentum of 0.9"
        " at lr 0.01, without weight decay, dropout or a schedule."
    ),
    commands={
        "he": "signal +experiment=papers/he_2015",
        "xavier": "signal +experiment=papers/he_2015 model.init=xavier_normal",
        "trained": (
            "train -m +experiment=papers/he_2015 model.init=he_normal,xavier_normal"
            " model.depth=21,29 seed=1,2,3"
        ),
        "slower": (
            "train -m +experiment=papers/he_2015 model.init=he_normal,xavier_normal"
            " optimizer.lr=0.001 seed=1,2,3"
        ),
    },
    claims=claims,
    draw=draw,
    verdict=verdict,
)
