"""How much measuring costs: a training step with and without it.

`make bench`, or `python scripts/bench.py --help`. One process, one thread; both loops train a
network of the same shape, in turns of a few steps, so that a drift of the machine's speed meets
both: perceptrons here, other families in `bench_networks.py`. A ratio is the median over rounds of
the measured loop's time over the bare loop's. The measured loop is vgexp's trainer (tanh, plain
gradient descent), whose time includes the tables' writing, or, in the rows that say `Probe`, the
bare loop itself with a probe around it (sigmoid, momentum, no table read before the end).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp import metrics
from vgexp.assembly import assemble, device_of
from vgexp.config import (
    Config,
    GaussianConfig,
    MlpConfig,
    ProbeConfig,
    SgdConfig,
    TrainConfig,
)
from vgexp.probe import Probe, moments
from vgexp.probe.block import StepBlock
from vgexp.probe.weights import WeightMeter
from vgexp.sinks.csv_files import CsvFiles

Shape = tuple[int, int, int]
"""(depth, width, batch)"""
Loss = Callable[[Tensor, Tensor], Tensor]

SHAPES: tuple[Shape, ...] = ((50, 256, 128), (20, 64, 64))
CADENCES = (("default cadence (20)", 20), ("every column, every step", 1))
MOMENTUM = 0.9
NEVER = 10**9
GROUPS = (
    ("steps.csv only", ProbeConfig(NEVER, NEVER, 0)),
    ("weight columns, every step", ProbeConfig(1, NEVER, 0)),
    ("activation columns, every step", ProbeConfig(NEVER, 1, 0)),
    ("histograms, every step", ProbeConfig(NEVER, NEVER, 1)),
)
PARTS: tuple[tuple[Any, str, str], ...] = (
    (WeightMeter, "copy_weights", "weight_norm, and the copy for update_ratio"),
    (WeightMeter, "take_gradients", "grad_norm, grad_max, grad_zero_fraction, grad_norm_clipped"),
    (WeightMeter, "after_step", "update_ratio"),
    (StepBlock, "rows", "rows"),
    (CsvFiles, "__call__", "writing"),
    (metrics, "total_norm", "steps.csv: grad_norm, every step"),
)
ROLES = {
    "z": "preact_mean, preact_std",
    "hy": "act_mean, act_std, saturated_fraction, dead_fraction",
    "delta": "delta_rms",
}
CLOCK = time.process_time if os.environ.get("VGEXP_CLOCK") == "processor" else time.perf_counter
"""Wall-clock time, or with VGEXP_CLOCK=processor that of the processor, where others use it too."""
FEATURES, CLASSES, EXAMPLES, LEARNING_RATE = 64, 10, 2048, 0.01
RAW = argparse.RawDescriptionHelpFormatter


def bare_loop(shape: Shape, device: torch.device, fused: bool) -> Callable[[int], int]:
    """A hand-written loop without measurement; it reads its loss, as loops do."""
    model = perceptron(shape, nn.Tanh).to(device)
    return textbook(model, F.cross_entropy, random_examples(device), shape[2], fused)


def perceptron(shape: Shape, activation: type[nn.Module]) -> nn.Sequential:
    """Depth layers of equal width, and a read-out."""
    depth, width, _ = shape
    layers: list[nn.Module] = []
    features = FEATURES
    for _ in range(depth):
        layers += [nn.Linear(features, width), activation()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, CLASSES))


def random_examples(device: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs and targets."""
    inputs = torch.randn(EXAMPLES, FEATURES, device=device)
    return inputs, torch.randint(0, CLASSES, (EXAMPLES,), device=device)


def textbook(
    model: nn.Module, loss_of: Loss, examples: tuple[Tensor, Tensor], batch: int, fused: bool
) -> Callable[[int], int]:
    """The loop that everybody writes, by plain gradient descent."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, fused=fused or None)
    return textbook_by(optimizer, model, loss_of, examples, batch)


def textbook_by(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    loss_of: Loss,
    examples: tuple[Tensor, Tensor],
    batch: int,
) -> Callable[[int], int]:
    """The same by any optimizer."""
    inputs, targets = examples
    batches = endless_batches(batch, targets)

    def run(num_steps: int) -> int:
        for _ in range(num_steps):
            rows = next(batches)
            optimizer.zero_grad()
            loss = loss_of(model(inputs[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            if targets.device.type == "cpu":
                loss.item()
        finish(targets.device)
        return num_steps

    return run


def plain_loop(
    shape: Shape, device: torch.device, fused: bool, every: int | None
) -> Callable[[int], int]:
    """The loop that everybody writes, by momentum; with `every`, a probe is around its steps."""
    model = perceptron(shape, nn.Sigmoid).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=fused or None
    )
    run = textbook_by(optimizer, model, F.cross_entropy, random_examples(device), shape[2])
    if every is None:
        return run
    probe = Probe(model, optimizer, every=every, activations_every=every)

    def measured(num_steps: int) -> int:
        with probe:
            return run(num_steps)

    return measured


def endless_batches(batch: int, targets: Tensor) -> Iterator[Tensor]:
    """Indices of shuffled batches, a permutation an epoch."""
    while True:
        order = torch.randperm(len(targets)).to(targets.device)
        yield from (rows for rows in order.split(batch) if len(rows) == batch)


def vgexp_loop(
    shape: Shape, probe: ProbeConfig, folder: Path, device: torch.device
) -> Callable[[int], int]:
    """vgexp's own trainer with its CSV files; it stops at the first flush after `num_steps`."""
    depth, width, batch = shape
    config = Config(
        model=MlpConfig(depth=depth, width=width, activation="tanh", init="xavier_normal"),
        data=GaussianConfig(num_examples=EXAMPLES, batch_size=batch, val_fraction=0.0),
        optimizer=SgdConfig(lr=LEARNING_RATE),
        train=TrainConfig(steps=10**9, eval_every=0),
        probe=probe,
        device=str(device),
    )
    return recorded(config, folder)


def recorded(config: Config, folder: Path) -> Callable[[int], int]:
    """What a configuration describes, by vgexp's own trainer with its CSV files."""
    trainer = assemble(config)
    facts, rows = trainer.facts, trainer.rows()
    sink = CsvFiles(folder, facts.tables)

    def run(num_steps: int) -> int:
        start = trainer.state.step
        while trainer.state.step < start + num_steps:
            sink(next(rows))
        finish(facts.device)
        return trainer.state.step - start

    return run


def finish(device: torch.device) -> None:
    """Waits for the device, so that a clock read next tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_per_step(run: Callable[[int], int], num_steps: int) -> float:
    """Seconds of a step, over `num_steps` or a few more."""
    start = CLOCK()
    done = run(num_steps)
    return (CLOCK() - start) / done


def compare(
    first: Callable[[int], int], second: Callable[[int], int], num_steps: int, rounds: int
) -> tuple[float, list[float]]:
    """The second's median seconds a step, and first over second round by round."""
    for run in (first, second):
        run(num_steps)
    pairs = [
        (seconds_per_step(first, num_steps), seconds_per_step(second, num_steps))
        for _ in range(rounds)
    ]
    return statistics.median(b for _, b in pairs), [a / b for a, b in pairs]


def steps_of(shape: Shape) -> int:
    """Steps of a turn: a fraction of a second's worth."""
    return 100 if shape[0] * shape[1] ** 2 * shape[2] < 10**8 else 40


def bench(
    shape: Shape, name: str, probe: ProbeConfig, rounds: int, device: torch.device, fused: bool
) -> None:
    """Prints one row of the table: vgexp's trainer."""
    with tempfile.TemporaryDirectory() as folder:
        loop = vgexp_loop(shape, probe, Path(folder), device)
        print_row(
            shape, name, compare(loop, bare_loop(shape, device, fused), steps_of(shape), rounds)
        )


def bench_plain(
    shape: Shape, name: str, every: int, rounds: int, device: torch.device, fused: bool
) -> None:
    """Prints one row of the table: a probe in a user's loop."""
    loop, bare = (plain_loop(shape, device, fused, each) for each in (every, None))
    print_row(shape, f"Probe, {name}", compare(loop, bare, steps_of(shape), rounds))


def print_row(shape: Shape, name: str, compared: tuple[float, list[float]]) -> None:
    """Of what `compare` gives."""
    bare, ratios = compared
    low, high = min(ratios), max(ratios)
    print(
        f"{shape[0]:5d} {shape[1]:5d} {shape[2]:5d}  {name:32s} {1e3 * bare:8.2f} ms"
        f" {statistics.median(ratios):7.3f}  {low:.3f}-{high:.3f}",
        flush=True,
    )


def print_machine(device: torch.device) -> None:
    """Prints what the figures depend on beside the shapes."""
    if device.type == "cuda":
        print(f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}")
        return
    most = os.environ.get("ONEDNN_MAX_CPU_ISA", "not set")
    print(
        f"torch {torch.__version__}, processor capability"
        f" {torch.backends.cpu.get_cpu_capability()}, ONEDNN_MAX_CPU_ISA {most},"
        f" {torch.get_num_threads()} thread"
    )


def bench_parts(shape: Shape, rounds: int, fused: bool) -> None:
    """Prints what each group of columns costs in a step that measures every column (CPU)."""
    spent: dict[str, float] = defaultdict(float)
    every = ProbeConfig(every=1, activations_every=1)
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder, timed_parts(spent):
        loop = vgexp_loop(shape, every, Path(folder), device)
        bare = bare_loop(shape, device, fused)
        loop(20), bare(20)
        spent.clear()
        seconds, bare_seconds, num_steps = 0.0, 0.0, 0
        for _ in range(rounds):
            start = CLOCK()
            done = loop(20)
            seconds += CLOCK() - start
            num_steps += done
            bare_seconds += seconds_per_step(bare, done) * done
    spent["hooks, and everything else"] = seconds - bare_seconds - sum(spent.values())
    print(
        "depth {} width {} batch {}: microseconds of a step, percent of a bare one".format(*shape)
    )
    for name, value in spent.items():
        print(f"  {name:58s} {1e6 * value / num_steps:8.0f} {100 * value / bare_seconds:6.1f} %")


@contextmanager
def timed_parts(spent: dict[str, float]) -> Iterator[None]:
    """Adds up the time in the functions that make each group of columns."""
    with ExitStack() as stack:
        for owner, function, name in PARTS:
            stack.enter_context(timed(owner, function, name, spent))
        for role, name in ROLES.items():
            stack.enter_context(timed_entry(role, name, spent))
        yield


@contextmanager
def timed(owner: Any, function: str, name: str, spent: dict[str, float]) -> Iterator[None]:
    """Times an attribute that is a function."""
    original = getattr(owner, function)
    setattr(owner, function, timing(original, name, spent))
    yield
    setattr(owner, function, original)


@contextmanager
def timed_entry(role: str, name: str, spent: dict[str, float]) -> Iterator[None]:
    """Times the reduction of one role."""
    original = moments.REDUCTIONS
    moments.REDUCTIONS = {**original, role: timing(original[role], name, spent)}
    yield
    moments.REDUCTIONS = original


def timing(function: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    """The function, its time added to `spent[name]`."""

    def timed_function(*arguments: Any) -> Any:
        start = CLOCK()
        result = function(*arguments)
        spent[name] += CLOCK() - start
        return result

    return timed_function


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    parser.add_argument("--rounds", type=int, default=11, help="pairs of timings a row")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--fused", action="store_true", help="the bare loop, too, uses torch's fused optimizer"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = device_of(arguments.device)
    print_machine(device)
    print("depth width batch  measured                          bare step   ratio  min-max")
    for shape in SHAPES:
        for name, every in CADENCES:
            probe = ProbeConfig(every=every, activations_every=every)
            bench(shape, name, probe, arguments.rounds, device, arguments.fused)
        for name, every in CADENCES:
            bench_plain(shape, name, every, arguments.rounds, device, arguments.fused)
        for name, probe in GROUPS:
            bench(shape, name, probe, arguments.rounds, device, arguments.fused)
    if device.type == "cpu":
        for shape in SHAPES:
            bench_parts(shape, arguments.rounds, arguments.fused)


if __name__ == "__main__":
    main()
