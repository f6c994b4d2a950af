"""Progress: a bar and a profile in a terminal, lines in a pipe, nothing when quiet; it never ends
a run.

Holds: report/terminal/live.py, records.py, report/terminal/profile.py
"""

from __future__ import annotations

import io
import math
import os
import pty
import re
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from vgexp.records import Floats, Rows
from vgexp.report.terminal import live as live_module
from vgexp.report.terminal.live import Counting, Live
from vgexp.report.terminal.profile import Profile, bands_of, profile_of

BARS = "▁▂▃▄▅▆▇█"
END_OF_FLUSH = Rows("timing", {"step": [0], "seconds": [0.1], "examples_per_second": [1.0]})


def steps(first: int, num: int, **columns: Any) -> Rows:
    numbers = list(range(first, first + num))
    values = [np.float32(0.1 * n) for n in numbers]
    return Rows(
        "steps",
        {"step": numbers, "loss": values, "accuracy": values, "grad_norm": values, **columns},
    )


def layers(norms: Sequence[float | None], step: int = 0) -> Rows:
    """Rows of hidden layers, the last of them the read-out, at one step."""
    num = len(norms)
    return Rows(
        "layers",
        {
            "step": [step] * num,
            "layer": list(range(1, num + 1)),
            "name": [f"w{i}" for i in range(num)],
            "kind": ["linear"] * (num - 1) + ["readout"],
            "grad_norm": Floats(
                np.array([0.0 if norm is None else norm for norm in norms], "float32"),
                np.array([norm is not None for norm in norms]),
            ),
        },
    )


def flush(live: Live, *rows: Rows) -> None:
    for each in (*rows, END_OF_FLUSH):
        live(each)


def shown(profile: Profile, width: int = 80, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=file, width=width).print(profile)
    file.flush()
    return file.buffer.getvalue().decode(encoding).splitlines()  # type: ignore[attr-defined]


# ---------------------------------------------------------------- the profile


def test_a_bar_is_as_high_as_the_layer_is_far_up_the_scale() -> None:
    norms = [1e-8, 3e-8, 1e-6, 2e-4, 1e-3, 1.0]
    caption, bars = shown(Profile(40, ["1", "2", "3", "4", "5", "readout"], norms), width=30)[-2:]
    expected = [min(7, math.floor((math.log10(norm) + 8) / 8 * 8)) for norm in norms]
    assert bars == "".join(BARS[level] * 4 for level in expected)
    assert "1e-08 to 1" in caption


def test_a_steady_gradient_is_shown_as_steady() -> None:
    """Within a factor of two of the largest all bars are the highest, for 8 levels over 10^3."""
    profile = Profile(0, ["1", "2", "3"], [0.5, 1.0, 0.45])
    caption, bars = shown(profile)
    assert set(bars) == {"█"}
    assert "0.001 to 1" in caption


def test_zeros_and_what_is_not_finite_are_marked_as_such() -> None:
    _, bars = shown(Profile(0, ["1", "2", "3", "4"], [0.0, math.nan, math.inf, 1.0]))
    assert bars == "0000!!!!!!!!████"
    assert shown(Profile(0, ["1", "2"], [0.0, 0.0]))[1] == "00000000"
    assert shown(Profile(0, ["1", "2"], [math.nan, math.nan]))[1] == "!!!!!!!!"


@pytest.mark.parametrize("width", [20, 60, 80, 120])
@pytest.mark.parametrize("num_layers", [1, 2, 50, 121, 1000])
def test_no_line_is_wider_than_the_terminal(width: int, num_layers: int) -> None:
    names = [*map(str, range(1, num_layers + 1)), "readout"]
    lines = shown(Profile(3, names, [0.5**i for i in range(num_layers + 1)]), width)
    assert all(cell_len(line) <= width for line in lines)
    a_bar = math.ceil((num_layers + 1) / width)
    num_bars = math.ceil((num_layers + 1) / a_bar)
    assert len(lines[-1]) == num_bars * min(4, width // num_bars)
    said = " ".join(" ".join(lines[:-1]).split())
    assert "readout" in said
    assert (f"a bar {a_bar} layers" in said) == (a_bar > 1)


def test_a_band_shows_the_lower_median_or_that_something_is_not_finite() -> None:
    assert bands_of([3.0, 1.0, 2.0, 5.0, 4.0, 9.0, 7.0], 3) == [2.0, 5.0, 7.0]
    assert bands_of([4.0, 1.0, 2.0, 3.0], 4) == [2.0]
    assert math.isnan(bands_of([1.0, math.inf], 2)[0])


def test_an_encoding_without_bars_gets_ascii() -> None:
    lines = shown(Profile(0, ["1", "2", "3"], [1e-9, 1e-4, 1.0]), encoding="latin-1")
    assert lines[1] == "::::++++@@@@".replace("+", "*")


def test_the_last_step_with_gradients_counts() -> None:
    two = [layers([1.0, 2.0, 3.0], step) for step in (0, 20)]
    both = {
        name: [*two[0].columns[name], *two[1].columns[name]]
        for name in ("step", "layer", "name", "kind")
    }
    rows = Rows("layers", {**both, "grad_norm": [1.0, 2.0, 3.0, 4.0, None, 6.0]})
    profile = profile_of(rows)
    assert profile is not None
    assert (profile.step, profile.names, profile.norms) == (20, ["1", "readout"], [4.0, 6.0])


def test_rows_without_gradients_have_no_profile() -> None:
    assert profile_of(layers([None, None])) is None
    columns = {key: value for key, value in layers([1.0]).columns.items() if key != "grad_norm"}
    assert profile_of(Rows("layers", columns)) is None


def test_a_block_counts_by_all_its_weights_and_what_is_side_by_side_by_the_first() -> None:
    rows = Rows(
        "layers",
        {
            "step": [0] * 8,
            "layer": [1, 1, 1, 2, 2, None, 3, 3],
            "kind": ["stream", "attention", "linear", "linear", "linear", "linear"]
            + ["readout"] * 2,
            "grad_norm": [None, 3e-200, 4e-200, 5.0, 7.0, 1.0, 8.0, 9.0],
        },
    )
    profile = profile_of(rows)
    assert profile is not None
    assert profile.names == ["1", "2", "readout"]
    assert profile.norms == pytest.approx([5e-200, 5.0, 8.0], rel=1e-15, abs=0)


# ---------------------------------------------------------------- in a pipe


def test_progress_in_a_pipe_is_about_ten_lines_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    live = Live(500, quiet=False)
    for first in range(0, 500, 7):
        flush(live, steps(first, min(7, 500 - first)))
    live.close()
    shown = capsys.readouterr()
    assert not shown.out
    told = shown.err.splitlines()
    assert 9 <= len(told) <= 11
    assert told[-1].startswith("step ")
    assert "loss" in told[0]


def test_a_line_in_a_pipe_tells_of_the_first_layer(capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(10, quiet=False)
    flush(live, steps(0, 5), layers([1.25e-9, 0.5, 0.75]))
    flush(live, steps(5, 5))
    live.close()
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("gradient 0.4, of layer 1 1.2e-09")
    assert told[1].endswith("gradient 0.9, of layer 1 1.2e-09"), "the latest that is known"


def test_progress_without_right_answers_has_no_accuracy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = steps(0, 10)
    without = {name: values for name, values in rows.columns.items() if name != "accuracy"}
    live = Live(10, quiet=False)
    flush(live, Rows("steps", without))
    live.close()
    told = capsys.readouterr().err
    assert "loss" in told
    assert "accuracy" not in told


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(10, quiet=True)
    flush(live, steps(0, 10), layers([1.0]))
    live.close()
    assert capsys.readouterr() == ("", "")


def test_a_dumb_terminal_gets_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("FORCE_COLOR", "1")
    live = Live(10, quiet=False)
    flush(live, steps(0, 10))
    live.close()
    assert capsys.readouterr().err.startswith("step 10/10  loss 0.9")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_reader_of_the_progress_who_leaves_does_not_end_the_run(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        encoding = "utf-8"

        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

        def isatty(self) -> bool:
            return is_terminal

    monkeypatch.setenv("TERM", "xterm")
    gone, out = Gone(), sys.stdout
    monkeypatch.setattr(sys, "stderr", gone)
    live = Live(10, quiet=False)
    flush(live, steps(0, 5), layers([1.0, 2.0]))
    flush(live, steps(5, 5))
    live.close()
    assert sys.stderr is gone, "whatever was put in its place is gone"
    assert sys.stdout is out


# ---------------------------------------------------------------- in a terminal


@pytest.fixture
def in_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Has a function run with a terminal of 80 columns as stderr; what it was sent."""

    def run(work: Callable[[int], None]) -> str:
        ours, theirs = pty.openpty()
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("LINES", "40")
        monkeypatch.delenv("NO_COLOR", raising=False)
        parts: list[bytes] = []

        def read() -> None:
            while True:
                try:
                    part = os.read(ours, 65536)
                except OSError:
                    return
                if not part:
                    return
                parts.append(part)

        reader = threading.Thread(target=read)
        reader.start()
        with os.fdopen(theirs, "w", encoding="utf-8") as stderr:
            monkeypatch.setattr(sys, "stderr", stderr)
            work(ours)
            monkeypatch.undo()
        reader.join(10)
        os.close(ours)
        return b"".join(parts).decode()

    return run


def plain(sent: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent)


def test_a_terminal_sees_the_bar_and_the_profile_and_in_the_end_neither(
    in_terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "REFRESH_SECONDS", 0.0)

    def work(_: int) -> None:
        live = Live(40, quiet=False, first_step=10)
        flush(live, steps(10, 10), layers([1e-6, 1e-3, 1.0], 10))
        flush(live, steps(20, 20), layers([1e-9, 1e-3, 1.0], 20))
        live.close()

    sent = in_terminal(work)
    lines = plain(sent).replace("\r", "\n").splitlines()
    assert next(line for line in lines if line).startswith("step 10/40 ")
    assert any("step 20/40 " in line and " 50 %" in line for line in lines)
    assert any(line.startswith("loss 1.9  accuracy 1.900  gradient 1.9") for line in lines)
    assert "gradient of layers 1 to 2 and readout, step 10, log scale 1e-06 to 1" in lines
    assert "▁▁▁▁▅▅▅▅████" in lines
    assert "gradient of layers 1 to 2 and readout, step 20, log scale 1e-09 to 1" in lines
    assert sent.endswith("\x1b[2K"), "the lines are wiped out"
    assert sent.count("\x1b[?25l") == sent.count("\x1b[?25h") == 1, "the cursor is back"
    assert all(cell_len(line) <= 80 for line in lines)


def test_beside_a_million_steps_the_time_left_is_whole_and_a_full_bar_is_no_empty_one(
    in_terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "REFRESH_SECONDS", 0.0)

    def work(_: int) -> None:
        live = Live(1_000_000, quiet=False)
        for done in (100_000, 200_000, 1_000_000):
            flush(live, steps(done - 1, 1), layers([1e-6, 1.0], done - 1))
        live.close()

    sent = in_terminal(work)
    bars = [line for line in sent.replace("\r", "\n").splitlines() if "1000000/" in plain(line)]
    assert bars
    assert "100 %" in plain(bars[-1])
    empty, full = (re.search(r"\x1b\[([0-9;]+)m━", line) for line in (sent, bars[-1]))
    assert empty is not None
    assert full is not None
    assert empty.group(1) != full.group(1)
    assert all(re.search(r"[\d-]:[\d-]{2}:[\d-]{2}$", plain(line).rstrip()) for line in bars)
    assert all(cell_len(plain(line)) <= 80 for line in bars)


def test_a_fast_run_is_not_drawn_at_every_flush(
    in_terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = count(0.0, 0.01)
    monkeypatch.setattr(live_module, "time", SimpleNamespace(monotonic=lambda: next(now)))

    def work(_: int) -> None:
        live = Live(100_000, quiet=False)
        for first in range(1000):
            flush(live, steps(first, 1), layers([1e-6, 1.0], first))
        live.close()

    sent = plain(in_terminal(work))
    assert 20 < sent.count("/100000 ") < 2 + 10 / live_module.REFRESH_SECONDS


def test_a_terminal_that_is_closed_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setattr(live_module, "REFRESH_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        live = Live(100, quiet=False)
        flush(live, steps(0, 10), layers([1.0, 2.0]))
        os.close(ours)
        flush(live, steps(10, 10), layers([1.0, 2.0], 10))
        flush(live, steps(20, 10))
        live.close()
        assert sys.stderr is stderr
        monkeypatch.undo()


def test_what_takes_long_is_counted_ten_times_at_the_most(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = count()
    monkeypatch.setattr(live_module.time, "monotonic", lambda: next(seconds) / 10)
    tell = Counting("seed", 200, is_quiet=False)
    for number in range(1, 200):
        tell(number)
    said = capsys.readouterr().err.splitlines()
    # Two seconds pass before the first.
    assert said[:2] == ["seed 20/200", "seed 40/200"]
    assert len(said) == 9
    quiet = Counting("seed", 200, is_quiet=True)
    for number in range(1, 200):
        quiet(number)
    assert capsys.readouterr().err == ""


def test_a_count_that_nobody_reads_any_more_ends_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Closed(io.StringIO):
        num_tried = 0

        def write(self, _: str) -> int:
            Closed.num_tried += 1
            raise BrokenPipeError

    monkeypatch.setattr(live_module, "SILENT_SECONDS", -1.0)
    monkeypatch.setattr(sys, "stderr", Closed())
    tell = Counting("seed", 10, is_quiet=False)
    for number in range(10):
        tell(number)
    assert Closed.num_tried == 1
