"""Recurrent cells in half precision, where oneDNN has the fused call and where it refuses it.

Axes: B examples, S steps in time, I inputs.

Holds: models/recurrence/fused.py
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import rnn

from vgexp.cli import main
from vgexp.models.recurrence import fused

CELLS: dict[str, tuple[type[nn.RNNBase], str]] = {
    "lstm": (nn.LSTM, "lstm"),
    "gru": (nn.GRU, "gru"),
    "rnn": (nn.RNN, "rnn_tanh"),
}
"""Family -> torch's cell, and the function that it calls."""
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Refusal:
    """Does to a fused call what oneDNN does on a processor that lacks it, and counts.

    Where it refuses nothing it is made without oneDNN, which this processor may lack as well.
    """

    def __init__(self, call: Any, refused: str) -> None:
        self._call, self._refused = call, refused
        self.num_refused = self.num_made = 0

    def __call__(self, *args: Any) -> Any:
        is_onednns = torch._C._get_mkldnn_enabled() and torch.is_autocast_enabled("cpu")
        if is_onednns and self._refused == "forward":
            self._refuse()
        with fused._no_onednn():
            outputs, *states = self._call(*args)
        if is_onednns and outputs.requires_grad:
            outputs.register_hook(self._refuse)
        self.num_made += 1
        return outputs, *states

    def _refuse(self, _: Tensor | None = None) -> None:
        self.num_refused += 1
        raise RuntimeError("could not create a primitive descriptor")


@pytest.fixture(autouse=True)
def _is_tried_anew() -> Iterator[None]:
    """What was found of this processor is forgotten before a test and after it."""
    fused._works.cache_clear()
    yield
    fused._works.cache_clear()


def refuse(monkeypatch: pytest.MonkeyPatch, family: str, refused: str) -> Refusal:
    name = CELLS[family][1]
    refusal = Refusal(getattr(rnn._VF, name), refused)
    monkeypatch.setattr(rnn._VF, name, refusal, raising=False)
    return refusal


def results(cell: nn.RNNBase, x_BSI: Tensor, dtype: torch.dtype | None) -> list[Tensor]:
    """Outputs and all gradients."""
    x_BSI = x_BSI.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        outputs, _ = fused.call(cell, x_BSI, None)
    outputs.square().sum().backward()
    gradients = [x_BSI.grad, *(p.grad for p in cell.parameters())]
    return [outputs, *(g for g in gradients if g is not None)]


@pytest.mark.parametrize("refused", ["forward", "backward"])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", CELLS)
def test_a_cell_that_onednn_refuses_is_called_without_it(
    family: str, dtype: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    cell = CELLS[family][0](5, 7, batch_first=True)
    x_BSI = torch.randn(3, 6, 5)
    exact = results(copy.deepcopy(cell).double(), x_BSI.double(), None)
    refusal = refuse(monkeypatch, family, refused)
    before = torch.get_rng_state()
    for _ in range(2):
        cell.zero_grad()
        found = results(cell, x_BSI, HALVES[dtype])
        assert len(found) == len(exact) == 6
        for mine, other in zip(found, exact, strict=True):
            assert mine.isfinite().all()
            assert (mine.double() - other).norm() < 0.02 * other.norm()
    assert torch.equal(torch.get_rng_state(), before), "a random number was drawn"
    assert refusal.num_refused == 1, "it is tried once"
    assert torch._C._get_mkldnn_enabled(), "only the refused call is made without oneDNN"


def test_a_cell_that_onednn_has_is_called_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def with_any_dtype(x: Tensor, hx: Any, weights: Any, *_: Any) -> Any:
        calls.append(torch._C._get_mkldnn_enabled())
        outputs = x @ weights[0].new_ones(x.shape[-1], weights[1].shape[1]) + sum(
            w.sum() for w in weights
        )
        return outputs, hx[0], hx[1]

    monkeypatch.setattr(rnn._VF, "lstm", with_any_dtype, raising=False)
    for _ in range(2):
        results(nn.LSTM(5, 7, batch_first=True), torch.randn(3, 6, 5), torch.bfloat16)
    # Two that try it, without gradients and with them, and the two of the test.
    assert calls == [True] * 4


def test_a_cell_in_somebody_else_s_model_is_called_without_it_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"cell": nn.LSTM(5, 7, batch_first=True, bidirectional=True)})
    x_BSI = torch.randn(3, 6, 5)
    exact, _ = copy.deepcopy(model)["cell"](x_BSI)
    refusal = refuse(monkeypatch, "lstm", "forward")
    fused.make_work(model)
    for one in (model, copy.deepcopy(model)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, _ = one["cell"](x_BSI)
            with pytest.raises(RuntimeError, match="input"):
                one["cell"](x_BSI[..., :2])
        assert (found.float() - exact).norm() < 0.02 * exact.norm()
        assert torch._C._get_mkldnn_enabled(), "also where the call raised"
    assert refusal.num_refused == 1


def test_a_run_of_somebody_else_s_lstm_in_bfloat16_ends_well(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (user_folder / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.cell, self.last = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 1)\n"
        "    def forward(self, x):\n"
        "        return self.last(self.cell(x)[0][:, -1])\n"
    )
    refusal = refuse(monkeypatch, "lstm", "forward")
    words = ["model=custom", "model.target=mine.Net", "data=adding", "data.num_examples=64"]
    words += ["data.seq_len=12", "data.batch_size=16", "train.steps=2", "dtype=bfloat16"]
    assert main.main(["train", *words, "hydra.run.dir=run"]) == 0, capfd.readouterr().err
    assert refusal.num_refused == 1


def test_without_autocast_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = refuse(monkeypatch, "lstm", "forward")
    for dtype in (torch.float32, torch.float64):
        cell = nn.LSTM(5, 7, batch_first=True, dtype=dtype)
        fused.call(cell, torch.randn(3, 6, 5, dtype=dtype), None)
    assert (refusal.num_made, refusal.num_refused) == (2, 0)


@pytest.mark.parametrize("refused", ["forward", "backward"])
def test_a_run_of_lstms_in_bfloat16_ends_well_where_onednn_has_none(
    refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refusal = refuse(monkeypatch, "lstm", refused)
    # Steps 0 and 2 are measured, 1 and 3 are not; an evaluation has no gradients.
    words = [
        "model=lstm",
        "model.width=8",
        "data=adding",
        "data.num_examples=64",
        "data.seq_len=12",
    ]
    words += ["data.batch_size=16", "train.steps=4", "train.eval_every=2", "dtype=bfloat16"]
    words += ["probe.every=2", "probe.activations_every=2", f"hydra.run.dir={tmp_path / 'run'}"]
    assert main.main(["train", *words]) == 0, capfd.readouterr().err
    assert refusal.num_refused == 1
    assert refusal.num_made > 4
