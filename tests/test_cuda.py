"""What can only be seen on a GPU; skipped where there is none.

Holds: training/divergence.py
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import require_same_bytes_after_a_cut

import vgexp
from vgexp.assembly import assemble
from vgexp.config import (
    CHOICES,
    DTYPES,
    AdamConfig,
    AddingConfig,
    AgcClipConfig,
    AutoClipConfig,
    Config,
    DigitsConfig,
    GaussianConfig,
    LayerClipConfig,
    MlpConfig,
    MomentumConfig,
    NormClipConfig,
    OutputConfig,
    ProbeConfig,
    RmspropConfig,
    RunConfig,
    SgdConfig,
    TrainConfig,
    ValueClipConfig,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

Case = dict[str, Any]
CASES: dict[str, Case] = {
    "plain": {},
    "accumulated": {"train": {"accumulate": 2}},
    "adam": {"optimizer": AdamConfig(lr=0.01)},
    "momentum": {"optimizer": MomentumConfig(lr=0.01)},
    "rmsprop": {"optimizer": RmspropConfig(lr=0.01)},
    "norm": {"clip": NormClipConfig(0.05)},
    "value": {"clip": ValueClipConfig(0.001)},
    "layer": {"clip": LayerClipConfig(0.01)},
    "agc": {"clip": AgcClipConfig(0.001)},
    "auto": {"clip": AutoClipConfig(50)},
    "residual": {"model": {"skip": "residual", "norm": "batch"}},
    "highway": {"model": {"skip": "highway", "norm": "layer", "activation": "gelu"}},
    "dense": {"model": {"skip": "dense", "activation": "relu"}},
    "lsuv": {"model": {"init": "lsuv", "activation": "prelu"}},
}


def config(device: str, case: Case, dtype: str = "float64") -> Config:
    model = {"activation": "tanh", "init": "xavier_normal", **case.get("model", {})}
    others = {key: value for key, value in case.items() if key not in ("model", "train")}
    return Config(
        model=MlpConfig(depth=6, width=32, **model),
        data=GaussianConfig(num_examples=512, batch_size=32),
        train=TrainConfig(steps=40, eval_every=0, **case.get("train", {})),
        probe=ProbeConfig(every=3, activations_every=2, histograms_every=2),
        output=OutputConfig(quiet=True),
        device=device,
        dtype=dtype,
        **others,
    )


@contextmanager
def no_waiting() -> Iterator[None]:
    """Raises where the program waits for the device."""
    with warnings.catch_warnings(action="ignore"):  # the mode warns that it is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_no_step_waits_for_the_device_until_rows_are_flushed(name: str, dtype: str) -> None:
    trainer = assemble(config("cuda", CASES[name], dtype))
    with trainer.state.stream.lend(), trainer.probe:
        for _ in range(2):  # an optimizer makes its state, and a new shape is learnt, at first
            trainer._make_step(trainer.state.next_batch())
        with no_waiting():
            for _ in range(10):
                trainer._make_step(trainer.state.next_batch())
    assert trainer.flush()


@pytest.mark.parametrize("name", CASES)
def test_tables_of_cuda_and_cpu_agree_in_float64(name: str, tmp_path: Path) -> None:
    runs = {d: vgexp.run(config(d, CASES[name]), tmp_path / d) for d in ("cpu", "cuda")}
    for table in ("layers", "steps", "evals"):
        cpu, cuda = (getattr(runs[device], table) for device in ("cpu", "cuda"))
        assert list(cpu.columns) == list(cuda.columns)
        assert len(cpu) == len(cuda)
        for column in cpu.select_dtypes("float"):
            for a, b in zip(cpu[column], cuda[column], strict=True):
                assert (math.isnan(a) and math.isnan(b)) or a == pytest.approx(
                    b, rel=1e-6, abs=1e-12
                ), column


def test_a_run_that_diverges_on_cuda_names_the_same_step_as_on_cpu(tmp_path: Path) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        sick = config(device, {"model": {"activation": "relu"}, "optimizer": SgdConfig(lr=1e30)})
        found[device] = vgexp.run(sick, tmp_path / device).summary
    assert found["cpu"]["status"] == "diverged"
    assert found["cuda"]["status"] == "diverged"
    assert found["cpu"]["cause"] == found["cuda"]["cause"]


def test_a_gradient_that_float32_cannot_square_has_its_norm_on_cuda(tmp_path: Path) -> None:
    tiny = {"model": {"activation": "linear", "gain": 1e-4}}
    cpu, cuda = (
        vgexp.run(config(d, tiny, "float32"), tmp_path / d).layers.query("step == 0")
        for d in ("cpu", "cuda")
    )
    assert 0 < cpu["grad_norm"].min() < 1e-20
    for column in ("grad_norm", "delta_rms", "act_std"):
        assert cuda[column].tolist() == pytest.approx(cpu[column].tolist(), rel=1e-4, nan_ok=True)


def test_a_run_that_was_cut_short_ends_with_the_same_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(
        model=MlpConfig(depth=4, width=32, activation="tanh"),
        data=GaussianConfig(num_examples=256, batch_size=32),
        optimizer=AdamConfig(lr=0.01),
        train=TrainConfig(steps=40, eval_every=10),
        probe=ProbeConfig(every=3, activations_every=5),
        run=RunConfig(checkpoint_every=7),
        output=OutputConfig(quiet=True),
        device="cuda",
    )
    require_same_bytes_after_a_cut(config, tmp_path, 24, monkeypatch)


@pytest.mark.parametrize("model", ["lstm", "vit", "mlp"])
def test_curvature_is_what_it_is_on_the_cpu(model: str) -> None:
    """Kernels without a second derivative (cuDNN's, fused attention) give way."""
    rows = {}
    for device in ("cpu", "cuda"):
        data = AddingConfig(num_examples=64, seq_len=9) if model == "lstm" else DigitsConfig()
        data.batch_size = 16
        made = Config(
            model=CHOICES["model"][model](width=8),
            data=data,
            train=TrainConfig(steps=3),
            probe=ProbeConfig(curvature_every=1),
            dtype="float64",
            device=device,
        )
        tables = [each for each in assemble(made).rows() if each.table == "curvature"]
        rows[device] = [each.columns["hessian_max"][0] for each in tables]
    assert len(rows["cuda"]) == 3
    assert rows["cuda"] == pytest.approx(rows["cpu"], rel=1e-4)
