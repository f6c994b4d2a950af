"""A run folder from somebody's own loop: what all of vgexp can do with it, and what it cannot.

Holds: guests/probe.py, guests/recording.py, guests/summary.py, known_facts.py
"""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import vgexp
from vgexp import folders
from vgexp.cli.main import main
from vgexp.errors import QuestionError
from vgexp.guests import Probe, recording, summary
from vgexp.known_facts import facts_in
from vgexp.past import PastRun

assert recording
assert summary


def _train(
    folder: Path | None,
    steps: int = 30,
    *,
    watches: bool = True,
    on_step: Any = id,
    lr: float = 0.1,
    **options: Any,
) -> Probe:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.5)
    probe = Probe(model, optimizer, folder=folder, every=2, activations_every=4, **options)
    loss_of = probe.watch_loss(nn.CrossEntropyLoss()) if watches else nn.CrossEntropyLoss()
    x, y = torch.randn(12, 5), torch.randint(3, (12,))
    with probe:
        for step in range(steps):
            optimizer.zero_grad()
            loss_of(model(x), y).backward()
            optimizer.step()
            on_step(step)
    return probe


def spread(x: Tensor) -> Tensor:
    return x.std()


def test_the_folder_has_the_tables_and_a_summary(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine"
    options: dict[str, Any] = {"histograms_every": 10, "metrics": {"spread": spread}}
    probe = _train(folder, **options)
    bare = _train(None, **options)
    run = vgexp.load(folder)
    for table in ("layers", "steps", "loss", "histograms"):
        frame = bare.to_frame(table)
        pd.testing.assert_frame_equal(probe.to_frame(table), frame, rtol=1e-6)
        assert len(run.table(table)) == len(frame)
    assert probe.is_measured().equals(bare.is_measured())
    assert run.layers["spread"].notna().all()
    found = run.summary
    assert found["status"] == "completed"
    assert found["verdict"] is None
    assert found["cause"].startswith(
        "the loss of a constant guess is not known, hence no verdict: "
    )
    assert found["loss_last"] == pytest.approx(run.steps["loss"].iloc[-1])
    assert (found["steps"], found["dtype"], found["device"]) == (30, "float32", "cpu")
    assert found["num_parameters"] == 5 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3
    assert found["unseen"] == probe.unseen
    assert str(vgexp.diagnose(run)) == str(vgexp.diagnose(probe)) == str(probe.diagnose())
    assert PastRun(folder).settings["optimizer.momentum"] == 0.5
    assert PastRun(folder).settings["optimizer.class"] == "torch.optim.sgd.SGD"


def test_with_the_loss_of_a_constant_guess_there_is_a_verdict(tmp_path: Path) -> None:
    def half(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, target) / 2 + 1

    def trained(folder: Path | None, **options: Any) -> Probe:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3))
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        probe = Probe(model, optimizer, folder=folder, **options)
        loss_of = probe.watch_loss(half)
        x = torch.randn(12, 5)
        with probe:
            for _ in range(120):
                optimizer.zero_grad()
                loss_of(model(x), x.argmax(1) % 3).backward()
                optimizer.step()
        return probe

    # A loss of one's own: nothing tells that a guess of 3 classes costs ln 3 / 2 + 1 = 1.55.
    known = trained(tmp_path / "known", constant_loss=math.log(3) / 2 + 1)
    summary = known.run.summary
    assert summary["verdict"] == "healthy"
    assert summary["constant_loss"] == pytest.approx(1.549, abs=1e-3)
    assert PastRun(tmp_path / "known").settings["probe.constant_loss"] == summary["constant_loss"]
    assert trained(tmp_path / "unknown").run.summary["verdict"] is None
    # A guess at a third of that is not beaten, which only the number says.
    worse = trained(tmp_path / "worse", constant_loss=0.5)
    assert worse.diagnose().health == vgexp.diagnose(worse.run).health == "sick"
    assert known.diagnose().health == vgexp.diagnose(known.run).health == "healthy"


class PostNorm(nn.Module):
    """Blocks that end in a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4, 8)
        self.blocks = nn.Sequential(
            *(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2))
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.read(x)).mean(1))


def constant_weights_net() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    nn.init.constant_(net[0].weight, 0.1)
    nn.init.constant_(net[2].weight, 0.1)
    return net


@pytest.mark.parametrize(
    ("make", "key", "value", "finding"),
    [
        (PostNorm, "model.norm_position", "post", None),
        (constant_weights_net, "model.constant_weights", ["0.weight", "2.weight"], "zero_weights"),
    ],
)
def test_the_folder_keeps_what_only_the_model_shows(
    tmp_path: Path, make: Any, key: str, value: object, finding: str | None
) -> None:
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    probe = Probe(model, optimizer, folder=tmp_path / "mine")
    loss_of = probe.watch_loss(nn.CrossEntropyLoss())
    x = torch.randn(6, 5, 4)
    with probe:
        for _ in range(4):
            optimizer.zero_grad()
            loss_of(model(x if make is PostNorm else x[:, 0]), torch.arange(6) % 3).backward()
            optimizer.step()
    assert PastRun(tmp_path / "mine").settings[key] == value
    own, read = probe.diagnose(), vgexp.diagnose(probe.run)
    assert str(own) == str(read)
    found = [each.id for each in own.findings]
    assert found == [each.id for each in read.findings]
    assert finding is None or finding in found


def test_every_fact_is_read_back_from_its_folder_and_no_value_that_cannot_be_one(
    tmp_path: Path,
) -> None:
    model = nn.Sequential(nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 3))
    stranger = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([*model.parameters(), stranger], 0.1)
    with Probe(model, optimizer, folder=tmp_path / "mine", constant_loss=0.0):
        model(torch.randn(4, 32)).square().mean().backward()
        optimizer.step()
    settings = PastRun(tmp_path / "mine").settings
    assert facts_in(settings) == {
        "constant_loss": 0.0,
        "default_weights": ["0.weight"],
        "foreign_parameters": 1,
    }
    wrong = {"probe.constant_loss": "much", "model.default_weights": [1]}
    assert facts_in({**settings, **wrong}) == {"foreign_parameters": 1}


def test_show_and_compare_take_it_and_figures_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _train(tmp_path / "one")
    _train(tmp_path / "two", lr=0.01)
    assert main(["show", str(tmp_path / "one")]) == 0
    out = capsys.readouterr().out
    assert "layer" in out
    assert "resume" not in out
    assert "Note:" not in out
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert "lr" in capsys.readouterr().out
    assert vgexp.load(tmp_path / "one").plot("learning_curves").axes
    assert "<div>" in vgexp.load(tmp_path / "one")._repr_html_()


@pytest.mark.parametrize(
    "argv", [["resume", "{}"], ["train", "--config-dir", "{}", "--config-name", "config"]]
)
def test_it_cannot_be_resumed_or_repeated(
    tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    with pytest.raises(KeyboardInterrupt):
        _train(folder, on_step=_raise(KeyboardInterrupt()))
    assert vgexp.load(folder).summary["status"] == "interrupted"
    assert main([word.format(folder) for word in argv]) == 2
    # Lines break where the name of the folder has them break.
    told = " ".join(capsys.readouterr().err.split())
    assert "a run of a training loop outside of vgexp" in told
    assert "Traceback" not in told
    with pytest.raises(QuestionError, match="outside of vgexp"):
        vgexp.resume(folder)
    with pytest.raises(QuestionError, match="outside of vgexp"):
        _ = vgexp.load(folder).config


def _raise(error: BaseException, at: int = 9) -> Any:
    def on_step(step: int) -> None:
        if step == at:
            raise error

    return on_step


def test_a_loop_that_failed_says_so_and_keeps_its_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="my own"):
        _train(tmp_path / "mine", on_step=_raise(ValueError("my own")))
    run = vgexp.load(tmp_path / "mine")
    assert (run.summary["status"], run.summary["reason"]) == ("failed", "ValueError: my own")
    assert run.steps["step"].tolist() == list(range(10))


def test_a_loss_that_is_not_finite_is_a_divergence(tmp_path: Path) -> None:
    _train(tmp_path / "mine", lr=1e38, steps=5)
    found = vgexp.load(tmp_path / "mine").summary
    assert (found["status"], found["verdict"]) == ("diverged", "diverged")
    assert "the loss became nan at step" in found["cause"]


def test_without_a_loss_nothing_is_said_of_learning(tmp_path: Path) -> None:
    _train(tmp_path / "mine", watches=False)
    found = vgexp.load(tmp_path / "mine").summary
    assert (found["status"], found["verdict"]) == ("completed", None)
    assert found["cause"].startswith("the loss is not known")
    assert not (tmp_path / "mine" / "loss.csv").exists()


def test_a_folder_with_a_run_is_refused_and_a_free_name_is_told(tmp_path: Path) -> None:
    _train(tmp_path / "mine", steps=1)
    (tmp_path / "mine_2").mkdir()
    with pytest.raises(QuestionError, match=r"holds a run already .*\n.*\nnearest: .*/mine_3$"):
        _train(tmp_path / "mine")


def test_a_second_with_goes_on_in_the_same_tables(tmp_path: Path) -> None:
    probe = _train(tmp_path / "mine", steps=3)
    with probe, probe.paused():
        pass
    assert probe.run.steps["step"].tolist() == [0, 1, 2]
    with pytest.raises(QuestionError, match="written to the probe's folder"):
        probe.drain()


def test_a_folder_in_which_no_table_can_be_made_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recording.CsvFiles

    def fail(folder: Path, tables: list[str], *rest: Any) -> Any:
        if tables == ["steps"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return made(folder, tables, *rest)

    monkeypatch.setattr(recording, "CsvFiles", fail)
    with pytest.raises(OSError, match="No space left"):
        _train(tmp_path / "mine")
    with folders.occupy(tmp_path / "mine"):
        pass


def test_a_full_disk_ends_the_recording_and_not_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vgexp.guests.recording.FLUSH_SECONDS", 0.0)

    def full(step: int) -> None:
        if step == 14:

            def fail(*_: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr("vgexp.sinks.csv_files._File.append", fail)

    probe = _train(tmp_path / "mine", on_step=full)
    assert probe.step == 30
    assert len(probe.to_frame("steps")) == 30
    (line,) = [line for line in probe.unseen if line.startswith("the run folder")]
    assert "No space left on device" in line
    assert " ".join(capsys.readouterr().err.split()).count("is not written any more") == 1


def test_weights_whose_entries_are_all_the_same_are_known_from_the_start() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.LayerNorm(8))
    assert summary.constant_weights(model) == []
    nn.init.constant_(model[0].weight, 0.1)  # type: ignore[arg-type]
    nn.init.zeros_(model[2].weight)  # type: ignore[arg-type]
    assert summary.constant_weights(model) == ["0.weight"]
    probe = Probe(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert probe.gather({}).metrics["constant_weights"] == ["0.weight"]
