"""Makes every picture of README.md and docs/gallery.md, and that page, from real runs.

`make gallery`. Runs go below outputs/gallery; those that have ended are not made again, and
a folder with what another command made is refused.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from vgexp.cli.main import main as vgexp_main
from vgexp.folders import CONFIG
from vgexp.report import figures
from vgexp.report.figures import style
from vgexp.report.figures.beside import read_beside, side_by_side
from vgexp.report.figures.comparing import compare_figure
from vgexp.report.figures.sweep_maps import sweep_map
from vgexp.sweep import plan_file

ROOT = Path(__file__).parent.parent
RUNS = Path("outputs/gallery")
PICTURES = Path("docs/gallery")
PAGE = Path("docs/gallery.md")
HEAD = """\
# Gallery

Every picture here was drawn from a real run by `make gallery`; above each stands what to type for
it. Runs are reproducible: equal seeds give equal tables on one machine, and equal tables give equal
pictures.
"""


@dataclass(frozen=True)
class Job:
    """A run or a sweep that pictures are drawn from."""

    words: str
    """Of its command, without its folder."""

    @property
    def is_sweep(self) -> bool:
        return "-m" in self.words.split()

    def into(self, folder: Path) -> list[str]:
        key = "hydra.sweep.dir" if self.is_sweep else "hydra.run.dir"
        return [*shlex.split(self.words), f"{key}={folder}"]


@dataclass(frozen=True)
class Picture:
    """A picture: its file's name, what it shows, what to type, and what draws it."""

    name: str
    title: str
    text: str
    jobs: Sequence[str]
    typed: str
    """What draws it on a command line; runs/NAME stands for a job's folder."""
    draw: Callable[[], Figure]


JOBS = {
    "sigmoid": Job("train +experiment=sigmoid_deep"),
    "relu": Job("train +experiment=relu_he model.depth=20 train.steps=1000"),
    "residual": Job("train +experiment=residual_rescue"),
    "batchnorm": Job("train +experiment=batchnorm_rescue"),
    "exploding": Job("train +experiment=exploding"),
    "clipped": Job("train +experiment=exploding_clipped"),
    "underflow": Job("train +experiment=sigmoid_deep model.depth=70 train.steps=200"),
    "dying": Job("train +experiment=dying_relu seed=1"),
    "rnn": Job(
        "train model=rnn data=adding data.seq_len=100 data.num_examples=2000 optimizer=adam "
        "train.steps=300"
    ),
    "lstm": Job(
        "train model=lstm data=adding data.seq_len=100 data.num_examples=2000 optimizer=adam "
        "train.steps=300"
    ),
    "transformer": Job("train +experiment=pre_ln_deep train.steps=150"),
    "depth": Job(
        "train -m +experiment=sigmoid_deep train.steps=300 model.depth=5,20 "
        "model.activation=sigmoid,tanh,relu seed=1,2,3"
    ),
    "phase": Job(
        "train -m model.activation=tanh model.init=xavier_normal model.width=128 train.steps=100 "
        "model.gain=0.5,0.75,1,1.25,1.5,2,3 model.depth=5,10,20,30,40,50 optimizer.lr=0.01"
    ),
    "start": Job("signal +experiment=sigmoid_deep"),
    "directions": Job(
        "signal model.depth=20 model.skip=residual model.gain=0.5 signal.seeds=1 "
        "signal.jacobian=true signal.paths=true signal.shattering=true"
    ),
    "large_step": Job("train +experiment=flat_step_too_large"),
    "signals": Job(
        "signal -m model.activation=tanh model.init=xavier_normal model.width=128 signal.seeds=1 "
        "probe.histograms_every=0 model.gain=0.5,0.75,1,1.25,1.5,2,3 model.depth=5,10,20,30,40,50"
    ),
}
"""Name of a folder -> what is run in it."""


def run_picture(job: str, figure: str) -> Callable[[], Figure]:
    return lambda: figures.run_figure(RUNS / job, figure)


def _beside(titles: dict[str, str]) -> Figure:
    return side_by_side([read_beside(RUNS / name, title) for name, title in titles.items()])


def _figure_of(job: str, name: str, title: str, text: str) -> Picture:
    typed = f"vgexp show runs/{job} --figures  # runs/{job}/figures/{name}.png"
    return Picture(f"{job}_{name}", title, text, [job], typed, run_picture(job, name))


PICTURES_OF = (
    Picture(
        "disease_and_cures",
        "The disease, and three cures beside it",
        "Gradient norm of every layer at every measured step, on one scale; the loss below. In 20 "
        "sigmoid layers the norm at layer 1 is 3.7e-12 of that at layer 20 at step 0, and nothing "
        "is learned. ReLU with He's initialisation, residual connections, batch norm: it arrives.",
        ["sigmoid", "relu", "residual", "batchnorm"],
        "python scripts/gallery.py  # vgexp.report.figures.side_by_side",
        lambda: _beside(
            {
                "sigmoid": "20 sigmoid layers",
                "relu": "ReLU, He initialisation",
                "residual": "sigmoid, residual",
                "batchnorm": "sigmoid, batch norm",
            }
        ),
    ),
    Picture(
        "sigmoid_overview",
        "A run on one page",
        "What `vgexp.load(RUN).plot()` returns, and a notebook shows of a run.",
        ["sigmoid"],
        "vgexp show runs/sigmoid --figures  # runs/sigmoid/figures/overview.png",
        lambda: figures.run_figure(RUNS / "sigmoid"),
    ),
    _figure_of(
        "sigmoid",
        "backward_signal",
        "Backward signal against depth",
        "A straight line on a logarithmic scale: one factor a layer, 0.24 here, at most 0.25 for a "
        "sigmoid whose weights keep variance.",
    ),
    _figure_of(
        "sigmoid",
        "update_ratios",
        "Update ratios",
        "How far a step moves each layer's weights, against the rule of thumb of 1e-3. The first "
        "layers do not move at all: in float32 their updates are exactly 0.",
    ),
    _figure_of(
        "sigmoid",
        "distributions",
        "Distributions of activations",
        "From layer to layer what the examples are is lost: deep in the net each unit has one "
        "value for all of them, hence the comb.",
    ),
    _figure_of(
        "underflow",
        "gradient_map",
        "Underflow, and exact zeros",
        "Seventy layers: what float32 no longer holds whole is dotted, what it lost is crossed.",
    ),
    _figure_of(
        "exploding",
        "gradient_map",
        "The other disease",
        "Weights too large: the gradient grows towards the input, until a step is not finite.",
    ),
    _figure_of(
        "clipped",
        "gradient_norms",
        "Clipping",
        "The norm before and after clipping, and the steps at which it set in.",
    ),
    _figure_of(
        "dying",
        "shares",
        "Dead units",
        "Units whose slope is 0 at every example of the update, by layer.",
    ),
    _figure_of(
        "rnn",
        "through_time",
        "Back through time: a recurrent net",
        "An RNN multiplies by one matrix at each step; what comes back to the first of 100 steps.",
    ),
    _figure_of(
        "lstm",
        "through_time",
        "Back through time: an LSTM",
        "The same problem: h loses four powers of ten over 90 steps at step 0, where the RNN's "
        "loses five. What gates give beyond that they have to learn.",
    ),
    _figure_of(
        "transformer",
        "attention_entropy",
        "Attention",
        "How widely the heads of each block look, from 0 (one position) to 1 (all alike).",
    ),
    Picture(
        "depth_loss",
        "Seeds as bands",
        "Training loss over steps, mean and deviation over three seeds.",
        ["depth"],
        "vgexp compare runs/depth --seeds --panels model.depth --plot loss.png",
        lambda: compare_figure([RUNS / "depth"], seeds=True, panels="model.depth"),
    ),
    Picture(
        "depth_layers",
        "Over depth",
        "The backward signal of each layer at step 0, geometric mean and deviation over seeds.",
        ["depth"],
        "vgexp compare runs/depth --seeds --layers delta_rms --plot layers.png",
        lambda: compare_figure([RUNS / "depth"], metric="delta_rms", layers_at="first", seeds=True),
    ),
    _figure_of(
        "start",
        "at_start",
        "Theory beside measurement",
        "Networks at initialisation, ten seeds, and over them what mean-field theory says, with "
        "the spread of single seeds that finite width gives.",
    ),
    _figure_of(
        "directions",
        "jacobian",
        "Directions: singular values",
        "Of each layer's Jacobian, and of the product of all from the input on, whose tail is not "
        "lost; the dotted line is the product of the layers' largest, which no product exceeds.",
    ),
    _figure_of(
        "directions",
        "paths",
        "Directions: which paths carry the gradient",
        "Of a residual net: the share of what comes back to layer 1 by how many of 19 branches it "
        "passes, and how many of the paths pass as many. At half of He's gain short ones carry it.",
    ),
    _figure_of(
        "directions",
        "shattering",
        "Directions: do gradients at nearby inputs agree?",
        "The cosine of gradients at two points of a line through input space, by their distance, "
        "and at two examples, at each layer.",
    ),
    _figure_of(
        "large_step",
        "curvature",
        "Curvature",
        "The largest eigenvalue of the Hessian against the stability limit of the step: here most "
        "are above it. And the trace with its error.",
    ),
    Picture(
        "signals_attenuation",
        "A sweep as a map, with theory's boundaries",
        "tanh, Xavier's initialisation times a gain: how much of the backward signal reaches "
        "layer 1. Orange shrinks, violet grows, white keeps. Theory's lines: where a layer passes "
        "on all, and where a thousandth or a thousandfold reaches layer 1.",
        ["signals"],
        "vgexp compare runs/signals --heatmap x=model.gain y=model.depth color=attenuation "
        "--plot map.png",
        lambda: sweep_map([RUNS / "signals"], "model.gain", "model.depth", "attenuation"),
    ),
    Picture(
        "phase_verdict",
        "And what came of it",
        "The verdicts on the same nets after 100 steps of training.",
        ["phase"],
        "vgexp compare runs/phase --heatmap x=model.gain y=model.depth color=verdict "
        "--plot verdicts.png",
        lambda: sweep_map([RUNS / "phase"], "model.gain", "model.depth", "verdict"),
    ),
)


def main() -> int:
    """Brings every run to its end, draws every picture, writes the page."""
    for name, job in JOBS.items():
        _make(job, RUNS / name)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES_OF:
        print(f"drawing {picture.name}", flush=True)
        style.write(picture.draw(), PICTURES / f"{picture.name}.png")
    PAGE.write_text(page(), encoding="utf-8")
    return 0


def _make(job: Job, folder: Path) -> None:
    print(shlex.join(["vgexp", *job.into(folder)]), flush=True)
    # A sweep that is typed again goes on by itself.
    there = (folder / CONFIG).exists() and not job.is_sweep
    quiet = (
        ["output.figures=false"] if job.is_sweep else ["output.figures=false", "output.quiet=true"]
    )
    typed = [*job.into(folder), *quiet]
    others = [command for command in _recorded(folder) if command != shlex.join(["vgexp", *typed])]
    if others:
        sys.exit(f"{folder} holds what another command made: {others[0]}\nallowed: remove it")
    if vgexp_main(["resume", str(folder)] if there else typed) != 0:
        sys.exit(f"{folder} did not come to its end")


def _recorded(folder: Path) -> list[str]:
    """The commands that made the runs of a folder; none where there are none."""
    known = plan_file.read(folder)
    if known is not None:
        return [shlex.join(["vgexp", *command]) for command in known.commands]
    if not (folder / CONFIG).exists():
        return []
    return [(folder / CONFIG).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")]


def page() -> str:
    """docs/gallery.md."""
    parts = [HEAD]
    told: set[str] = set()
    for picture in PICTURES_OF:
        commands = [
            shlex.join(["vgexp", *JOBS[name].into(Path("runs") / name)])
            for name in picture.jobs
            if name not in told
        ]
        told.update(picture.jobs)
        block = "\n".join([*commands, picture.typed])
        parts.append(
            f"## {picture.title}\n\n{picture.text}\n\n```sh\n{block}\n```\n\n"
            f"![{picture.title}](gallery/{picture.name}.png)\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
