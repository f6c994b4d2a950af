"""A user's data, models and losses that cannot be trained: told before a run begins.

Holds: assembly/rehearsal.py, assembly/whole.py, data/__init__.py, data/splits.py, data/user_code.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import vgexp
from vgexp import data, folders
from vgexp.assembly import assemble
from vgexp.cli import error_blocks
from vgexp.cli.main import main
from vgexp.config import (
    Config,
    CustomConfig,
    CustomDataConfig,
    MlpConfig,
    MomentumConfig,
    NormClipConfig,
    OutputConfig,
    ProbeConfig,
    TrainConfig,
)
from vgexp.errors import QuestionError

MINE = """\
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset, TensorDataset


def pair(x, y, x_val=None, y_val=None):
    x_val = torch.randn(20, 5) if x_val is None else x_val
    return TensorDataset(x, y), TensorDataset(x_val, y[:20] if y_val is None else y_val)

CLASSES = torch.arange(64) % 3

def ok():
    return pair(torch.randn(64, 5), CLASSES)

def ignored():
    return pair(torch.randn(64, 5), torch.full((64,), -100))

def some_ignored():
    return pair(torch.randn(64, 5), torch.where(CLASSES == 1, -100, CLASSES))

def column():
    return pair(torch.randn(64, 5), CLASSES[:, None])

def one_position():
    return pair(torch.randn(64, 1, 5), CLASSES[:, None], torch.randn(20, 1, 5))

def empty():
    return pair(torch.zeros(64, 0), CLASSES, torch.zeros(20, 0))

def empty_sequence():
    return pair(torch.zeros(64, 0, 4), CLASSES, torch.zeros(20, 0, 4))

def wide_validation():
    return pair(torch.randn(64, 5), CLASSES, torch.randn(20, 7))

def values_in_validation():
    return pair(torch.randn(64, 5), CLASSES, None, torch.randn(20))

def numbers_in_validation():
    return pair(torch.randint(0, 9, (64, 5)), CLASSES)

def complex_inputs():
    return pair(torch.randn(64, 5, dtype=torch.complex64), CLASSES)

def complex_targets():
    return pair(torch.randn(64, 5), torch.randn(64, 2, dtype=torch.complex64))

def tokens():
    return pair(torch.randint(0, 50, (64, 6)), CLASSES, torch.randint(0, 50, (20, 6)))

def bad():
    x, y = torch.randn(64, 5), torch.randn(64, 2)
    x[17, 2], x[18, 1], y[40, 0] = torch.nan, torch.inf, torch.nan
    x_val = torch.randn(20, 5)
    x_val[3] = -torch.inf
    return pair(x, y, x_val)


class Lazy(Dataset):
    def __init__(self, num, width=5, bad=None):
        self.x, self.y = torch.randn(num, width), torch.arange(num) % 3
        if bad is not None:
            self.x[bad, 0] = torch.nan
    def __len__(self):
        return len(self.x)
    def __getitem__(self, i):
        return self.x[i], self.y[i]

class Told(Lazy):
    @property
    def targets(self):
        return self.y

def lazy_bad():
    return Lazy(64, bad=9), Lazy(20)

def told_bad():
    return Told(64, bad=3), Told(20)

def lazy_wide_validation():
    return Lazy(64), Lazy(20, 7)

def told_wide_validation():
    return Told(64), Told(20, 7)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
    def forward(self, x):
        return self.head(torch.tanh(self.first(x)))

class Detached(Net):
    def forward(self, x):
        return super().forward(x).detach()

class NoGrad(Net):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)

class Leaf(Net):
    def forward(self, x):
        self.first.weight.mul_(0.9)
        return super().forward(x)

class InPlace(Net):
    def forward(self, x):
        h = torch.sigmoid(self.first(x))
        h[h < 0.5] = 0
        return self.head(h)

class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2
    @staticmethod
    def backward(ctx, gradient):
        raise ValueError("nobody knows this slope")

class NoSlope(Net):
    def forward(self, x):
        return Double.apply(super().forward(x))

class Constant(Net):
    def forward(self, x):
        return x[:, :3].clone().requires_grad_() if self.training else super().forward(x)

def scripted():
    return torch.jit.trace(Net(), torch.zeros(2, 5))

class Holds(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = scripted(), nn.Linear(3, 3)
    def forward(self, x):
        return self.head(self.inner(x))

class Draws(nn.Module):
    \"\"\"Everything that a pass may move.\"\"\"
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.register_buffer("count", torch.zeros(()))
        self.calls = 0
    def forward(self, x):
        self.calls += 1
        self.count += 1
        random.random(), np.random.rand()
        return self.head(F.dropout(self.norm(self.first(x)), 0.3, self.training))

class Uncopied(Draws):
    def __deepcopy__(self, memo):
        raise TypeError("no copies")

class Sparse(nn.Module):
    sparse = True
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 8, sparse=self.sparse)
        self.head = nn.Linear(8, 3)
    def forward(self, x):
        return self.head(self.table(x).mean(1))

class Dense(Sparse):
    sparse = False

def stuck(u):
    y = torch.sigmoid(u)
    y.mul_(2)
    return y

def detached_loss(outputs, targets):
    return F.cross_entropy(outputs.detach(), targets) + 0 * outputs.sum().detach()
"""


@pytest.fixture(autouse=True)
def code(user_folder: Path) -> None:
    (user_folder / "mine.py").write_text(MINE)


def config(data_name: str = "ok", model: str | None = None, **sections: Any) -> Config:
    return Config(
        model=MlpConfig(depth=2, width=8)
        if model is None
        else CustomConfig(target=f"mine.{model}"),
        data=CustomDataConfig(target=f"mine.{data_name}", batch_size=16),
        train=sections.pop("train", TrainConfig(steps=4)),
        output=OutputConfig(quiet=True),
        **sections,
    )


def refused(chosen: Config, folder: Path = Path("never")) -> str:
    with pytest.raises(QuestionError) as caught:
        vgexp.run(chosen, folder)
    assert not folder.exists()
    return str(caught.value)


# ---------------------------------------------------------------- data


@pytest.mark.parametrize(
    ("name", "said", "allowed"),
    [
        ("ignored", "class -100: of 64 class numbers 64 are below 0", "class numbers from 0 on"),
        ("some_ignored", "of 64 class numbers 21 are below 0", "no examples without a class"),
        ("column", "class numbers of shape [1]", "targets.squeeze(1)"),
        ("empty", "inputs of shape [0]", "none of these 0"),
        ("empty_sequence", "inputs of shape [0, 4]", "none of these 0"),
        ("wide_validation", "example 0 has shapes [7], []", "examples of one shape"),
        ("lazy_wide_validation", "example 0 has shapes [7], []", "examples of one shape"),
        ("told_wide_validation", "example 0 has shapes [7], []", "examples of one shape"),
        ("values_in_validation", "validation data whose targets are torch.float32", "for none"),
        ("numbers_in_validation", "validation data whose inputs are torch.float32", "for none"),
        ("complex_inputs", "inputs that are complex", "view_as_real"),
        ("complex_targets", "targets that are complex", "view_as_real"),
    ],
)
def test_data_that_nothing_can_be_trained_on_are_refused(
    name: str, said: str, allowed: str
) -> None:
    words = refused(config(name))
    assert said in words.splitlines()[0]
    assert allowed in words.splitlines()[1]


def test_one_position_has_one_class() -> None:
    loaded = data.load(CustomDataConfig(target="mine.one_position"), 1, torch.float32)
    assert loaded.task.per_position


def test_examples_that_hold_nan_or_inf_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = vgexp.run(config("bad"), tmp_path / "a")
    remarks = [
        "data.target: of 64 examples for training, 3 hold nan or inf: the first is example 17",
        "data.target: of 20 examples for validation, 1 holds nan or inf: example 3",
    ]
    assert run.summary["remarks"] == remarks
    shown = capsys.readouterr().err
    assert " ".join(shown.split()).startswith(" ".join(f"warning: {text}" for text in remarks[:2]))
    assert max(map(len, shown.splitlines())) <= 80


def test_bad_examples_of_data_that_are_read_one_by_one_are_counted_and_good_ones_are_no_remark(
    tmp_path: Path,
) -> None:
    (remark,) = assemble(config("lazy_bad")).facts.dataset.remarks
    assert remark == "data.target: of 64 examples for training, 1 holds nan or inf: example 9"
    (remark,) = assemble(config("told_bad")).facts.dataset.remarks
    told = (
        "of the first 16 examples for training, 1 holds nan or inf; the others were not looked at"
    )
    assert remark == f"data.target: {told}"
    assert assemble(config()).facts.dataset.remarks == ()
    assert "remarks" not in vgexp.run(config(), tmp_path / "a").summary


def test_jobs_of_a_sweep_say_what_is_odd_in_their_summaries_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["data=custom", "data.target=mine.bad", "data.batch_size=16", "model.depth=2"]
    words += ["train.steps=2", "seed=1", "-m", "hydra.sweep.dir=s"]
    assert main(["train", *words]) == 0
    assert "hold" not in capsys.readouterr().err
    assert len(json.loads(Path("s/0/summary.json").read_text())["remarks"]) == 2


# ---------------------------------------------------------------- models and losses


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("Detached", "the model's output has no graph"),
        ("NoGrad", "the model's output has no graph"),
        ("Constant", "no gradient reaches a parameter"),
        ("Leaf", "a leaf Variable that requires grad is being used in an in-place operation"),
        ("Leaf", "mine.py:"),
        ("Leaf", "remedy: no in-place operation"),
        ("InPlace", "modified by an inplace operation"),
        ("InPlace", "remedy: no in-place operation"),
        ("NoSlope", "ValueError: nobody knows this slope\nat "),
        ("scripted", "is a ScriptModule, or holds one"),
        ("Holds", "is a ScriptModule, or holds one"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_model_that_no_backward_pass_goes_through_is_refused(model: str, said: str) -> None:
    words = refused(config(model=model))
    assert said in words
    assert f"model.target={'mine.' + model}" in words or f"'mine.{model}'" in words
    assert "torch/autograd" not in words


def test_an_activation_whose_backward_pass_fails_is_refused() -> None:
    chosen = Config(
        model=MlpConfig(depth=2, width=8, activation="mine.stuck"), output=OutputConfig(quiet=True)
    )
    assert "modified by an inplace operation" in refused(chosen)


def test_a_wrong_question_of_ones_own_code_is_exit_code_2_without_a_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["data=custom", "data.target=mine.ok", "data.batch_size=16", "model=custom"]
    assert main(["train", *words, "model.target=mine.Detached", "hydra.run.dir=r"]) == 2
    assert not Path("r").exists()
    told = capsys.readouterr().err
    assert told.startswith("error: tried on one batch (model.target=mine.Detached,")
    assert "go on" not in told


@pytest.mark.parametrize("model", ["Draws", "Uncopied"])
def test_trying_moves_nothing_that_a_run_depends_on(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vgexp.assembly import whole

    def assembled() -> tuple[Any, list[Any]]:
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        torch.manual_seed(3)
        module: Any = assemble(config(model=model)).state.model
        of_numpy: Any = np.random.get_state()  # noqa: NPY002
        draws = [random.getstate(), of_numpy[1].tolist(), torch.get_rng_state().tolist()]
        has_gradients = any(p.grad is not None for p in module.parameters())
        return module, [*draws, module.training, has_gradients]

    tried, after = assembled()
    monkeypatch.setattr(whole, "rehearse", lambda *_: frozenset())
    untried, without = assembled()
    assert after == without
    assert after[-2:] == [True, False]
    values = untried.state_dict()
    assert tried.state_dict().keys() == values.keys()
    for name, value in tried.state_dict().items():
        torch.testing.assert_close(value, values[name], rtol=0, atol=0)
    if model == "Draws":  # a copy was tried
        assert tried.calls == untried.calls


def test_what_is_ours_alone_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    from vgexp.assembly import rehearsal

    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(rehearsal, "_copies", fail)
    assemble(Config(model=MlpConfig(depth=2, width=8)))
    with pytest.raises(AssertionError):
        assemble(config())


# ---------------------------------------------------------------- sparse gradients


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"clip": NormClipConfig(threshold=0.01), "optimizer": MomentumConfig()},
        {"train": TrainConfig(steps=4, accumulate=2, gradient_noise=0.1)},
        {"probe": ProbeConfig(curvature_every=2)},
        {"dtype": "float16"},
    ],
    ids=["plain", "clip", "noise", "curvature", "half"],
)
def test_sparse_gradients_are_measured_and_trained_as_dense_ones(
    sections: dict[str, Any], tmp_path: Path
) -> None:
    runs = [
        vgexp.run(config("tokens", model, **sections), tmp_path / model)
        for model in ("Sparse", "Dense")
    ]
    tables = {path.stem for path in runs[0].folder.glob("*.csv")} - {"timing"}
    assert {"layers", "steps"} <= tables
    for table in tables:
        # Rows are added in another order.
        pd.testing.assert_frame_equal(
            runs[0].table(table), runs[1].table(table), rtol=1e-3, atol=1e-6
        )


def test_the_norm_of_a_sparse_gradient_is_that_of_its_summed_rows() -> None:
    trainer = assemble(config("tokens", "Sparse", probe=ProbeConfig(every=1)))
    x, y = trainer.state.batches.peek(1)[0]
    model = trainer.state.model
    loss = torch.nn.functional.cross_entropy(model(x), y)
    weight = model.table.weight
    (gradient,) = torch.autograd.grad(loss, [weight])
    assert gradient.is_sparse
    assert len(gradient._indices()[0]) > len(set(x.flatten().tolist()))  # rows come repeatedly
    rows = torch.zeros(50, 8, dtype=torch.float64)
    for row, values in zip(gradient._indices()[0].tolist(), gradient._values(), strict=True):
        rows[row] += values.double()
    step = next(rows for rows in trainer.rows() if rows.table == "layers").columns
    at = list(step["layer"]).index(1)
    assert float(step["grad_norm"][at]) == pytest.approx(float(rows.norm()), rel=1e-5)
    absent = 1 - len(set(x.flatten().tolist())) / 50
    assert absent > 0
    assert float(step["grad_zero_fraction"][at]) == pytest.approx(absent)


# ---------------------------------------------------------------- what fails again


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("division by zero"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] tried to allocate 9 bytes"), "go on: "),
        (RuntimeError("CUDA error: unspecified launch failure"), "go on: "),
        (MemoryError(), "go on: "),
        (OSError(28, "No space left on device"), "go on: "),
    ],
)
def test_going_on_is_offered_where_it_may_not_fail_again(
    error: Exception, said: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for names_code in (False, True):
        folder = tmp_path / str(names_code)
        folder.mkdir()
        folders.write_config(folder, config() if names_code else Config(), "")
        (folder / "steps.csv").write_text("step,loss\n0,1.5\n")
        assert error_blocks.show_failure(error, folder=folder) == 1
        lines = capsys.readouterr().err.splitlines()
        told = [line.strip() for line in lines if "go on" in line]
        trust = " --trust" if names_code else ""
        command = f"go on: vgexp resume {folder}{trust}"
        if said is not None:
            assert told == [command]
        else:
            assert told == ([f"after you mend your code, {command}"] if names_code else [])
