"""Lu 2019: deep and narrow ReLU nets are born dead."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from reproductions.measured import Measured, runs_below, where
from reproductions.paper import Claim, Paper
from vgexp.report.figures import style
from vgexp.report.figures.legends import legend_below

WIDTHS = (2, 3, 4, 5)
DEPTHS = (5, 10, 20, 40)


def most(width: int, depth: int) -> float:
    """Upper bound on the probability that a net is born dead: 1 - (1 - 2^-N)^(L-1).

    `depth` L hidden layers of N units, biases 0, weights of symmetric distributions. At one example
    each unit of a layer that reads something is off with probability 1/2; a net that is alive at
    one example is alive. The first layer is never dead for every input: it reads x and -x.
    """
    return -math.expm1((depth - 1) * math.log1p(-(2.0**-width)))


def least(width: int, depth: int) -> float:
    """Lower bound for inputs of one feature.

    h is known from the rays x > 0 and x < 0. The first layer is dead on one of them, by signs, with
    probability 2^(1-N), and on both never. From then on a ray is dead d_k = 1 - (1 - 2^-N)^k of
    the time after k layers. Of two rays at the angle a < pi/2 a unit is off on both with
    probability 1/2 - a / (2 pi) >= 1/4: deaths are the least together where rays are orthogonal,
    as if independent. So P >= 2^(1-N) d + (1 - 2^(1-N)) d^2 at k = L - 1.
    """
    one_ray = 2.0 ** (1 - width)
    dead = most(width, depth)
    return one_ray * dead + (1.0 - one_ray) * dead**2


def claims(folder: Path) -> list[Claim]:
    """The table."""
    runs = {width: _run(folder, width) for width in WIDTHS}
    shares = {width: dead_shares(run) for width, run in runs.items()}
    deep, narrow = DEPTHS[-1], WIDTHS[0]
    gone = _zero_gradients(runs[narrow])
    return [
        Claim(
            f"Deeper nets die: {narrow} units",
            "the probability to be born dead goes to 1 with depth (theorem 3.1)",
            _bounds([(narrow, depth) for depth in DEPTHS])
            + f" at depth {', '.join(map(str, DEPTHS))}",
            ", ".join(_share(runs[narrow], shares[narrow][depth]) for depth in DEPTHS),
        ),
        Claim(
            f"Wider nets live: {deep} layers",
            "and to 0 with width (theorem 3.3)",
            _bounds([(width, deep) for width in WIDTHS])
            + f" at width {', '.join(map(str, WIDTHS))}",
            ", ".join(_share(runs[width], shares[width][deep]) for width in WIDTHS),
        ),
        Claim(
            "The bounds hold at every depth and width",
            "bounds from both sides, for zero biases and symmetric weights; here our own, tighter "
            "ones",
            "1 − (1 − 2^−N)^(L−1) at the most, for N units in L layers; at the least see "
            "scripts/reproductions/lu_2019.py",
            f"{_inside(runs)} of {sum(map(_num_layers, runs.values()))} shares lie within two "
            "standard errors of the interval",
        ),
        Claim(
            "What is born dead cannot learn",
            "its gradient is 0",
            "0 in every weight before the read-out",
            f"{gone[1]} of {gone[0]} dead nets of {narrow} units have a gradient before the "
            "read-out",
        ),
    ]


@style.with_style
def draw(folder: Path) -> Figure:
    """Share of nets born dead by depth; the band is between the bounds."""
    figure, [axes] = style.canvas(height=4.6)
    for index, width in enumerate(WIDTHS):
        look = style.choose_line_look(index)
        found = dead_shares(_run(folder, width))
        depths = np.array(sorted(found))
        low, high = ([bound(width, depth) for depth in depths] for bound in (least, most))
        axes.fill_between(depths, low, high, color=look["color"], alpha=0.2, linewidth=0)
        values = [found[depth] for depth in depths]
        axes.plot(depths, values, label=f"{width} units", markevery=5, **look)
    axes.set_ylim(0, 1.02)
    axes.set(
        title="ReLU nets born dead (bands: between the two bounds)",
        xlabel="hidden layers",
        ylabel="share of initialisations",
    )
    legend_below(axes)
    return figure


def verdict(folder: Path) -> str:
    """What differs."""
    places = [f"{_place(folder, width):.2f} ({width} units)" for width in WIDTHS[2:]]
    return (
        "No difference: of many shares that depend on each other a few lie outside two standard "
        f"errors. At depth {DEPTHS[-1]}, with the lower bound as 0 and the upper one as 1, the "
        f"shares lie at {', '.join(places)}: layers turn the two rays of the input towards each "
        "other, so that in the end they die together, as one ray would. A net counts as dead here "
        "where a layer gives 0 at all 100 examples, which with one feature is every input. With "
        f"vgexp's 64 units the probability is below {most(64, 1000):.0e} even at 1,000 layers: "
        "this is not how units of usual nets die, which is by large steps "
        "(`+experiment=dying_relu`)."
    )


def _place(folder: Path, width: int) -> float:
    """Where the share at the largest depth lies between the bounds."""
    low, high = least(width, DEPTHS[-1]), most(width, DEPTHS[-1])
    return (dead_shares(_run(folder, width))[DEPTHS[-1]] - low) / (high - low)


def dead_shares(run: Measured) -> dict[int, float]:
    """Depth -> share of initialisations of which a layer up to there is dead throughout."""
    rows = run.hidden.assign(is_dead=run.hidden["dead_fraction"] == 1)
    dead = rows.pivot(index="seed", columns="layer", values="is_dead").sort_index(axis=1)
    ever = dead.to_numpy("bool").cumsum(axis=1) > 0
    return dict(zip(map(int, dead.columns), map(float, ever.mean(axis=0)), strict=True))


def _run(folder: Path, width: int) -> Measured:
    [run] = where(runs_below(folder / "widths"), model__width=width)
    return run


def _num_layers(run: Measured) -> int:
    return int(run.hidden["layer"].nunique())


def _error(run: Measured, share: float) -> float:
    """Standard error of a share, at least that of half a net."""
    count = run.hidden["seed"].nunique()
    return float(max(np.sqrt(share * (1 - share) / count), 0.5 / count))


def _share(run: Measured, share: float) -> str:
    return f"{share:.2f} ± {_error(run, share):.2f}"


def _bounds(places: list[tuple[int, int]]) -> str:
    return ", ".join(f"{least(*place):.2f} to {most(*place):.2f}" for place in places)


def _inside(runs: dict[int, Measured]) -> int:
    inside = 0
    for width, run in runs.items():
        for depth, share in dead_shares(run).items():
            margin = 2 * _error(run, share)
            low, high = least(width, depth), most(width, depth)
            inside += low - margin <= share <= high + margin
    return inside


def _zero_gradients(run: Measured) -> tuple[int, int]:
    """How many nets are dead, and how many of these have a gradient before the read-out."""
    by_seed = run.hidden.groupby("seed")[["dead_fraction", "grad_norm"]].max()
    dead = by_seed[by_seed["dead_fraction"] == 1]
    return len(dead), int((dead["grad_norm"] > 0).sum())


PAPER = Paper(
    "lu_2019",
    "Lu, Shin, Su, Karniadakis: Dying ReLU and Initialization: Theory and Numerical Examples, "
    "2019.",
    "With which probability is a ReLU net a constant before it has learned anything? Inputs of one "
    "feature, zero biases, widths 2 to 5 as in the paper's figures, 400 initialisations of each, "
    "every depth up to 40; a net is dead here where a layer gives 0 at all of 100 examples. The "
    "paper's trained nets and its asymmetric initialisation are left out.",
    {"widths": "signal -m +experiment=papers/lu_2019 model.width=2,3,4,5"},
    claims,
    draw,
    verdict,
)
