"""Xiong 2020: where the norm stands decides how large the gradient of the last block is."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from reproductions.measured import (
    Measured,
    chosen,
    geometric_mean,
    runs_below,
    slope,
    span,
    where,
)
from reproductions.paper import Claim, Paper
from vgexp.report.figures import style
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import log_line, log_scale

POSITIONS = ("post", "pre")
DEPTHS = (2, 4, 8, 16, 32)
SCHEDULES = ("cosine", "warmup_cosine")
NAMES = {"cosine": "no warm-up", "warmup_cosine": "warm-up"}
DEEP = 32
SEEDS = (0, 1, 2)


def claims(folder: Path) -> list[Claim]:
    """The table."""
    powers = {place: slope(DEPTHS, _last_blocks(folder, place)) for place in POSITIONS}
    profiles = {place: _profile(folder, place) for place in POSITIONS}
    losses = _losses(folder)
    return [
        Claim(
            "Post-LN: gradient of the last block's second weight, at the start",
            "at most of order d √(ln d), whatever the number L of blocks (theorem 1)",
            "power of L of the bound: 0",
            f"power of L: {powers['post']:.2f} (L = 2 to 32, 5 seeds)",
        ),
        Claim(
            "Pre-LN: the same",
            "at most of order d √(ln d / L) (theorem 1)",
            "power of L of the bound: −1/2",
            f"power of L: {powers['pre']:.2f}",
        ),
        Claim(
            "Post-LN: the gradient grows towards the last block; Pre-LN: about equal in all",
            "likely large near the output with Post-LN, about the same over layers with Pre-LN",
            "",
            f"last over first block, L = {DEEP}: "
            + ", ".join(
                f"{place}-LN {profiles[place][-1] / profiles[place][0]:.2g}" for place in POSITIONS
            ),
        ),
        Claim(
            "Post-LN needs warm-up, Pre-LN does not",
            "without warm-up Post-LN trains badly or not at all; Pre-LN does without",
            "",
            "; ".join(
                f"{place}-LN, {NAMES[schedule]}: loss {span(losses[place, schedule], 2)}"
                for place in POSITIONS
                for schedule in SCHEDULES
            )
            + " (12 blocks, Adam, 3 seeds; guessing 2.3)",
        ),
    ]


@style.with_style
def draw(folder: Path) -> Figure:
    """The last block over depth, all blocks of a deep net, and the losses."""
    figure, [left, middle, right] = style.canvas(1, 3, width=14.4)
    for index, place in enumerate(POSITIONS):
        look, found = style.choose_line_look(index), _last_blocks(folder, place)
        log_line(left, DEPTHS, found, label=f"{place}-LN", **{**look, "linestyle": "none"})
        power = {"post": 0.0, "pre": -0.5}[place]
        middle_depth = DEPTHS[len(DEPTHS) // 2]
        level = geometric_mean(found) / geometric_mean(
            [(d / middle_depth) ** power for d in DEPTHS]
        )
        line = [level * (depth / middle_depth) ** power for depth in DEPTHS]
        label = f"bound: L^{power:g}" if power else "bound: no change with L"
        log_line(left, DEPTHS, line, color=look["color"], linewidth=1.2, label=label)
        profile = _profile(folder, place)
        log_line(middle, range(1, DEEP + 1), profile, label=f"{place}-LN", **look)
        for schedule, dashes in zip(SCHEDULES, ("-", (0, (2, 1.5))), strict=True):
            for seed in SEEDS:
                run = _trained(folder, place, schedule, seed)
                loss = run.table("steps")["loss"].rolling(10).mean()
                label = f"{place}-LN, {NAMES[schedule]}" if seed == SEEDS[0] else None
                right.plot(loss, color=look["color"], linestyle=dashes, linewidth=1.2, label=label)
    left.set_xscale("log", base=2)
    left.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
    left.minorticks_off()
    log_scale(left)
    log_scale(middle)
    left.set(title="The last block's mlp.output", xlabel="blocks L", ylabel="gradient norm")
    middle.set(title=f"Every block of {DEEP}", xlabel="block", ylabel="gradient norm of mlp.output")
    right.set(title="Training, 12 blocks", xlabel="step", ylabel="loss (mean of 10 steps)")
    for axes in (left, middle, right):
        legend_below(axes)
    return figure


def verdict(folder: Path) -> str:
    """What differs."""
    losses = _losses(folder)
    post = {schedule: geometric_mean(losses["post", schedule]) for schedule in SCHEDULES}
    helps = post["warmup_cosine"] < 0.9 * post["cosine"]
    profiles = {place: _profile(folder, place) for place in POSITIONS}
    return (
        "The two powers of depth are those of the theorem's bounds, within what five seeds and a "
        "net of 32 units tell. "
        + (
            "Warm-up is what Post-LN needs here as well"
            if helps
            else "Warm-up does not rescue Post-LN here"
        )
        + f" (geometric mean of the last loss {post['cosine']:.2g} without it and "
        f"{post['warmup_cosine']:.2g} with it), in 200 steps on 8 × 8 digits instead of the "
        "paper's translation. Over the blocks it is not as the paper expects (it draws the "
        "expected gradient's norm, and its theory leaves attention out): the first block's "
        f"gradient is {profiles['post'][0] / profiles['post'][-1]:.2g} times the last one's with "
        f"Post-LN and {profiles['pre'][0] / profiles['pre'][-1]:.2g} times with Pre-LN. A norm of "
        "a sum passes back (1 + the branch's gain) / (1 + the branch's variance) in mean square, "
        "which is 1 where a branch gains as much backward as forward: Post-LN need not decay. With "
        "Pre-LN the stream's variance grows with the blocks, and each norm divides what comes back "
        "by it: the gradient of block l goes as l^(-1/2), as the share of a branch in De and "
        "Smith's forward pass does, which few blocks hardly show."
    )


def _last_blocks(folder: Path, place: str) -> list[float]:
    """Gradient norm of the last block's `mlp.output`, by depth, over seeds."""
    runs = runs_below(folder / "start")
    found = []
    for depth in DEPTHS:
        [run] = where(runs, model__norm_position=place, model__depth=depth)
        found.append(_block(run, depth - 1))
    return found


def _profile(folder: Path, place: str) -> list[float]:
    runs = runs_below(folder / "start")
    [run] = where(runs, model__norm_position=place, model__depth=DEEP)
    return [_block(run, block) for block in range(DEEP)]


def _block(run: Measured, block: int) -> float:
    rows = run.hidden
    return geometric_mean(rows[rows["name"] == f"blocks.{block}.mlp.output.weight"]["grad_norm"])


def _trained(folder: Path, place: str, schedule: str, seed: int) -> Measured:
    runs = where(runs_below(folder / "training"), model__norm_position=place, seed=seed)
    [run] = [run for run in runs if chosen(run, "scheduler") == schedule]
    return run


def _losses(folder: Path) -> dict[tuple[str, str], list[float]]:
    """Mean loss of the last 20 steps, by seed."""
    return {
        (place, schedule): [
            float(_trained(folder, place, schedule, seed).summary["loss_last_mean_20"])
            for seed in SEEDS
        ]
        for place in POSITIONS
        for schedule in SCHEDULES
    }


PAPER = Paper(
    "xiong_2020",
    "Xiong, Yang, He, Zheng, Zheng, Xing, Zhang, Lan, Wang, Liu: On Layer Normalization in the "
    "Transformer Architecture, 2020.",
    "Is the gradient of a transformer's last block large at the start when norms follow the sum, "
    "whatever the depth, and does that make warm-up necessary? A vision transformer of 32 units "
    "and up to 32 blocks on 8 × 8 digits, instead of translation and BERT with 6 to 24 blocks; 200 "
    "steps of Adam at lr 0.003 with a cosine, 20 of them warming up, instead of thousands with an "
    "inverse square root.",
    {
        "start": "signal -m +experiment=papers/xiong_2020 model.norm_position=post,pre "
        "model.depth=2,4,8,16,32",
        "training": "train -m +experiment=papers/xiong_2020 model.norm_position=post,pre "
        "scheduler=cosine,warmup_cosine seed=0,1,2",
    },
    claims,
    draw,
    verdict,
)
