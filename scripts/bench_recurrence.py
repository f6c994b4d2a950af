"""How much measuring along time costs: vgexp's training step of a recurrent network against a bare
loop over torch's own module with as many layers.

`python scripts/bench_recurrence.py --help`. As `bench.py`: one thread, both loops in turns, the
median over rounds of vgexp's time over the bare loop's, tables written.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from bench import EXAMPLES, LEARNING_RATE, RAW, compare, endless_batches, finish
from torch import Tensor, nn

from vgexp import inits, losses, models
from vgexp.clips import build as build_clip
from vgexp.config import (
    FAMILIES,
    ConstantConfig,
    NoClipConfig,
    ProbeConfig,
    RecurrentConfig,
    SgdConfig,
    TrainConfig,
)
from vgexp.data import Dataset, Split
from vgexp.data.batches import Batches
from vgexp.optimizers import build as build_optimizer
from vgexp.schedulers import build as build_schedule
from vgexp.seeds import GlobalStream, generator
from vgexp.sinks.csv_files import CsvFiles
from vgexp.tasks import Task
from vgexp.training import Trainer, TrainState

FEATURES, CLASSES, STEPS = 2, 10, 10**9


class Bare(nn.Module):
    """torch's stacked module, and a read-out of the last step."""

    def __init__(self, kind: str, depth: int, width: int) -> None:
        super().__init__()
        module = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.stack = module(FEATURES, width, depth, batch_first=True)
        self.readout = nn.Linear(width, CLASSES)

    def forward(self, x_BTF: Tensor) -> Tensor:
        """The outputs [B, C]."""
        outputs: Tensor = self.readout(self.stack(x_BTF)[0][:, -1])
        return outputs


def bare_loop(model: nn.Module, split: Split, batch: int) -> Callable[[int], int]:
    """A hand-written loop without measurement; it reads its loss, as loops do."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    batches = endless_batches(batch, split.inputs.device)

    def run(num_steps: int) -> int:
        for _ in range(num_steps):
            rows = next(batches)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(split.inputs[rows]), split.targets[rows])
            loss.backward()
            optimizer.step()
            if split.inputs.is_cpu:
                loss.item()
        finish(split.inputs.device)
        return num_steps

    return run


def vgexp_loop(
    config: RecurrentConfig, probe: ProbeConfig, data: Dataset, batch: int, folder: Path
) -> Callable[[int], int]:
    """vgexp's own trainer with its CSV files; it stops at the first flush after `num_steps`."""
    device = data.train.inputs.device
    model = models.build(config, data.task, torch.float32)
    model.time_points = probe.time_points
    inits.initialise(model, config, generator(0, "init"), data.train.inputs[:1].cpu())
    model.to(device)
    optimizer = build_optimizer(SgdConfig(lr=LEARNING_RATE), model.parameters())
    state = TrainState(
        model,
        losses.build(data.loss),
        optimizer,
        build_schedule(ConstantConfig(), optimizer, STEPS),
        build_clip(NoClipConfig(), []),
        Batches(data.train, batch, generator(0, "order")),
        GlobalStream(0, "dropout", device),
    )
    train = TrainConfig(steps=STEPS, eval_every=0)
    trainer = Trainer(
        state,
        data,
        model.watches(),
        train,
        probe,
        STEPS,
        deferred=device.type != "cpu",
        meters=model.meters(),
    )
    sink, rows = CsvFiles(folder, trainer.tables), trainer.rows()

    def run(num_steps: int) -> int:
        start = trainer.state.step
        while trainer.state.step < start + num_steps:
            sink(next(rows))
        finish(device)
        return trainer.state.step - start

    return run


def sequences(num_steps: int, device: torch.device) -> Dataset:
    """Noise over time, with random labels."""
    inputs_NTF = torch.randn(EXAMPLES, num_steps, FEATURES, device=device)
    split = Split(inputs_NTF, torch.randint(0, CLASSES, (EXAMPLES,), device=device))
    nothing = Split(split.inputs[:0], split.targets[:0])
    return Dataset("noise", split, nothing, nothing, Task("sequence", (num_steps, 2), CLASSES))


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    parser.add_argument("--rounds", type=int, default=7, help="pairs of timings a row")
    parser.add_argument("--steps", type=int, default=20, help="updates of one timing")
    parser.add_argument("--time", type=int, default=100, help="steps in time")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--model", nargs="+", default=["lstm", "gru", "rnn"])
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    data = sequences(given.time, device)
    probes = {
        "default cadence (20)": ProbeConfig(),
        "every step of training": ProbeConfig(every=1, activations_every=1),
        "default, every step in time": ProbeConfig(time_points=None),
    }
    print("model width  measured                          bare step   ratio  min-max")
    for kind in given.model:
        for width in given.width:
            for name, probe in probes.items():
                config = FAMILIES[kind](depth=given.depth, width=width)
                bare = bare_loop(Bare(kind, given.depth, width).to(device), data.train, given.batch)
                with tempfile.TemporaryDirectory() as folder:
                    loop = vgexp_loop(config, probe, data, given.batch, Path(folder))
                    seconds, ratios = compare(loop, bare, given.steps, given.rounds)
                print(
                    f"{kind:5s} {width:5d}  {name:32s} {1e3 * seconds:8.2f} ms"
                    f" {statistics.median(ratios):7.3f}  {min(ratios):.3f}-{max(ratios):.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
