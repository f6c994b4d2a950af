"""Other tools themselves, where they are installed: they watch the loops as they train.

    pip install torchmortem torch-audit traintools
    python scripts/zoo/peer_tools.py [--half held] [--seed 0]

One line a training, and a table at the end: on how many of the sick and of the healthy each raises
an alarm. A tool that is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo.loops import LOOPS, Loop
from zoo.loops.loop import Parts, watching

Alarms = Callable[[], list[str]]
"""What a tool says once the training is over."""


@contextmanager
def torchmortem(parts: Parts, last_loss: list[float]) -> Iterator[Alarms]:
    """Its findings of severity WARNING and CRITICAL."""
    from torchmortem import Autopsy

    autopsy = Autopsy(parts.model, optimizer=parts.optimizer)
    with autopsy:
        handle = parts.optimizer.register_step_post_hook(
            lambda *_: autopsy.step(loss=last_loss[-1]) if last_loss else None
        )
        yield lambda: [
            f"{each.category} ({each.severity.name.lower()})"
            for each in autopsy.get_report().findings
            if each.severity.name != "INFO"
        ]
        handle.remove()


@contextmanager
def torch_audit(parts: Parts, _last_loss: list[float]) -> Iterator[Alarms]:
    """Its findings of severity WARN and above, of an audit every 20 steps."""
    import torch_audit as tool

    auditor = tool.Auditor(parts.model, optimizer=parts.optimizer, every_n_steps=20)
    auditor.autopatch()
    try:
        yield lambda: sorted(
            {
                f"{each.rule_id} ({each.severity.name.lower()})"
                for each in auditor.findings
                if each.severity.name != "INFO"
            }
        )
    finally:
        auditor.unpatch()


@contextmanager
def traintools(parts: Parts, _last_loss: list[float]) -> Iterator[Alarms]:
    """What its monitor of gradients warns of, asked before every 20th update."""
    from traintools.gradhealth import GradientHealthMonitor

    monitor, steps, found = GradientHealthMonitor(), [0], set()

    def inspect(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if steps[0] % 20 == 0:
            report = monitor.inspect(parts.model, lr=optimizer.param_groups[0]["lr"])
            found.update(re.sub(r"^\S*\.\S* | \(.*", "", words) for words in report.warnings)
        steps[0] += 1

    handle = parts.optimizer.register_step_pre_hook(inspect)
    yield lambda: sorted(found)
    handle.remove()


TOOLS: dict[str, Callable[[Parts, list[float]], Any]] = {
    "torchmortem": torchmortem,
    "torch_audit": torch_audit,
    "traintools": traintools,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--half", default="held", choices=("tune", "held"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    installed = [name for name in TOOLS if importlib.util.find_spec(name)]
    print(f"not installed: {', '.join(set(TOOLS) - set(installed)) or 'none'}")
    counts: dict[tuple[str, bool], list[bool]] = {}
    for loop in LOOPS.values():
        if loop.half == args.half:
            for cured in (False, True) if loop.is_sick else (False,):
                said = _say(loop, args.seed, cured, installed)
                is_sick = loop.is_sick and not cured
                print(f"{'sick' if is_sick else 'healthy':8}{loop.name} {said}", flush=True)
                for name, found in said.items():
                    counts.setdefault((name, is_sick), []).append(bool(found))
    for (name, is_sick), found in counts.items():
        print(f"{name:14}{'sick' if is_sick else 'healthy':8}{sum(found)} of {len(found)} alarmed")


def _say(loop: Loop, seed: int, cured: bool, installed: list[str]) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    asked: dict[str, Alarms] = {}

    @contextmanager
    def watch(parts: Parts) -> Iterator[None]:
        seen: list[float] = []
        parts.loss = _recording(parts.loss, seen)
        with ExitStack() as tools:
            for name in installed:
                asked[name] = tools.enter_context(TOOLS[name](parts, seen))
            yield

    with watching(watch):
        loop.train(seed, cured=cured)
    for name, alarms in asked.items():
        try:
            said[name] = alarms()
        except Exception as error:
            said[name] = [f"raised {type(error).__name__}: {error}"]
    return said


def _recording(loss: Callable[..., Tensor], seen: list[float]) -> Callable[..., Tensor]:
    """The same loss, whose values are kept."""

    class Recorded(nn.Module):
        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            value = loss(*args, **kwargs)
            seen.append(float(value.detach().double().mean()))
            return value

    return Recorded()


if __name__ == "__main__":
    main()
