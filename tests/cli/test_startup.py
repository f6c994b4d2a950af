"""What a short run does not load, what is on the screen meanwhile. No test looks at a clock.

Holds: cli/loading.py, cli/notice.py, optimizers.py
"""

from __future__ import annotations

import copy
import gc
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore
from matplotlib.axes import Axes
from torch import nn

from vgexp import optimizers
from vgexp.cli import error_blocks, loading, notice, schema
from vgexp.cli.actions import find_work
from vgexp.cli.main import main
from vgexp.config import CHOICES
from vgexp.report.figures import style
from vgexp.runs import start

NOT_LOADED = {"torch._dynamo", "torch._inductor", "sklearn", "torchvision", "matplotlib"}
"""What a run of one step without figures has no use for."""
if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14):
    # Older ones load it for other reasons, 2.6 for one.
    NOT_LOADED |= {"sympy"}


class Terminal(io.StringIO):
    """Standard error of somebody who watches."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> str:
        """What is left on the last line."""
        return self.getvalue().rpartition("\r")[2]


def watch(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error becomes a terminal. Before a test's call pytest puts back its own."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    return made


def test_a_short_run_loads_neither_torchs_compiler_nor_libraries_it_has_no_use_for(
    tmp_path: Path,
) -> None:
    words = ["train", "train.steps=1", "output.figures=false", f"hydra.run.dir={tmp_path / 'run'}"]
    code = (
        "import sys; from vgexp.cli.main import main; "
        f"code = main({words!r}); "
        f"loaded = sorted({NOT_LOADED!r} & set(sys.modules)); "
        "sys.exit(f'loaded: {loaded}' if loaded or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "starting" not in done.stderr
    assert "loading" not in done.stderr


@pytest.mark.parametrize("name", CHOICES["optimizer"])
def test_no_optimizer_asks_for_torchs_compiler(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # An entry of None makes the import fail.
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    weight = nn.Parameter(torch.ones(3))
    optimizer = optimizers.build(CHOICES["optimizer"][name](), [weight])
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    weight.grad = torch.ones(3)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()
    assert weight.grad is None


def test_a_method_of_an_optimizer_without_a_wrapper_stays_as_it_is() -> None:
    class Bare(torch.optim.SGD):
        def zero_grad(self, set_to_none: bool = True) -> None:
            raise NotImplementedError

    made = optimizers.skip_compiler(Bare)
    assert made.zero_grad is Bare.zero_grad
    assert issubclass(made, torch.optim.SGD)


def test_the_step_of_an_optimizer_records_no_gradients_and_calls_its_hooks() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = optimizers.Adam([weight], 0.1)
    calls: list[bool] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    weight.grad = torch.ones(3)
    optimizer.step(lambda: calls.append(torch.is_grad_enabled()) or 0.5)
    # The hook is called outside of the step; the closure has gradients again.
    assert calls == [True, True]
    assert weight.is_leaf
    assert not weight.requires_grad or weight.grad_fn is None


def test_hydra_shares_what_is_stored_and_hands_out_copies() -> None:
    schema.register(find_work("train"))
    store = ConfigStore.instance()
    assert copy.deepcopy({"sources": [store]})["sources"][0] is store
    first = store.load("optimizer/sgd.yaml").node
    first.lr = 123.0
    assert store.load("optimizer/sgd.yaml").node.lr != 123.0


def test_a_line_is_there_at_once_and_gone_before_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = watch(monkeypatch)
    seen: list[str] = []

    def enter(_verb: str, _argv: list[str]) -> int:
        seen.append(terminal.screen)
        return 0

    monkeypatch.setattr("vgexp.cli.hydra_entry.enter", enter)
    assert main(["train", "-m", "seed=1,2"]) == 0
    assert seen == ["starting ..."]
    assert terminal.screen == ""


@pytest.mark.parametrize(
    "words",
    [["--help"], ["-c", "job"], ["--cfg=job"], ["-i"], ["--version"], ["output.quiet=True"]],
)
def test_no_line_where_something_is_only_printed_or_quiet_is_asked_for(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = watch(monkeypatch)
    with notice.show_starting(["seed=1", *words]):
        assert terminal.getvalue() == ""


@pytest.mark.parametrize("words", [[], ["-m", "seed=1,2"], ["-cd=x", "-cn", "config"]])
def test_a_line_where_work_begins(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch)
    with notice.show_starting(words):
        assert terminal.screen == "starting ..."
    assert terminal.screen == ""


def test_an_error_block_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch)
    assert main(["train", "model.depth=x"]) == 2
    assert terminal.screen.startswith("error: model.depth is 'x'")


def test_a_block_takes_the_line_back_first(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch)
    notice.put("loading torch ...")
    error_blocks.show("error: interrupted")
    assert terminal.screen == "error: interrupted\n"


def test_nothing_is_written_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with notice.show_starting([]):
        notice.put("loading")
    assert file.getvalue() == ""


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing had been imported yet, and nothing is frozen for the tests that follow."""
    monkeypatch.delitem(sys.modules, "vgexp.assembly", raising=False)
    monkeypatch.setattr(gc, "freeze", lambda: None)


@pytest.mark.usefixtures("unloaded")
def test_an_interrupt_while_torch_is_loaded_is_answered_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = watch(monkeypatch)
    seen: list[str] = []

    def load(stop: Callable[[], None]) -> None:
        seen.append(terminal.screen)
        stop()
        seen.append(terminal.screen)
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "load_libraries", load)
    with pytest.raises(KeyboardInterrupt):
        loading.load_torch(is_quiet=False)
    assert seen[0] == "loading torch ..."
    assert seen[1] == "interrupted: stops as soon as torch is loaded ..."
    assert terminal.screen == ""


@pytest.mark.usefixtures("unloaded")
def test_torch_is_loaded_without_a_word_where_quiet_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = watch(monkeypatch)
    monkeypatch.setattr(start, "load_libraries", lambda _stop: None)
    loading.load_torch(is_quiet=True)
    assert terminal.getvalue() == ""


def test_the_garbage_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    start.load_libraries(lambda: None)
    assert gc.isenabled()
    gc.disable()
    try:
        start.load_libraries(lambda: None)
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.0, 3e6), "×10⁶"),
        ((1e-7, 5e-7), "×10⁻⁷"),
        ((1e8, 1e8 + 3), "+10⁸"),
        ((-1e9, -1e9 + 1e3), "−10⁹"),
        ((0.5, 0.5 + 1e-7), "×10⁻⁷+5.000001×10⁻¹"),
        ((0.0, 3.0), ""),
    ],
)
def test_linear_ticks_are_named_in_letters_not_in_mathematics(
    values: tuple[float, float], expected: str
) -> None:
    axes = _drawn(values)
    assert axes.yaxis.get_offset_text().get_text() == expected
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert any(names)
    assert not any("$" in name for name in names)


def _drawn(values: tuple[float, float]) -> Axes:
    figure, [axes] = style.canvas()
    axes.plot([0, 1], values)
    figure.canvas.draw()
    return axes
