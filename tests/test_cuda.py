"""What can only be seen on a GPU; skipped where there is none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import vgexp
from vgexp.assembly import assemble
from vgexp.config import (
    Config,
    GaussianConfig,
    MlpConfig,
    OutputConfig,
    ProbeConfig,
    SgdConfig,
    TrainConfig,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def config(device: str, **train: int) -> Config:
    return Config(
        model=MlpConfig(depth=6, width=32, activation="tanh", init="xavier_normal"),
        data=GaussianConfig(num_examples=512, batch_size=32),
        train=TrainConfig(steps=40, eval_every=0, **train),
        probe=ProbeConfig(every=3, activations_every=2),
        output=OutputConfig(quiet=True),
        device=device,
        dtype="float64",
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_no_step_waits_for_the_device_until_rows_are_flushed(accumulate: int) -> None:
    trainer = assemble(config("cuda", accumulate=accumulate))
    rows = trainer.rows()
    for _ in range(2):  # the evaluations before training
        next(rows)
    torch.cuda.set_sync_debug_mode("error")
    trainer._attach()
    for _ in range(10):
        trainer._timed_step()
    torch.cuda.set_sync_debug_mode("default")
    trainer._probe.__exit__(None, None, None)
    assert trainer.flush()


def test_tables_of_cuda_and_cpu_agree_in_float64(tmp_path: Path) -> None:
    runs = {d: vgexp.run(config(d), tmp_path / d) for d in ("cpu", "cuda")}
    for table in ("layers", "steps", "evals"):
        cpu, cuda = (getattr(runs[device], table) for device in ("cpu", "cuda"))
        assert list(cpu.columns) == list(cuda.columns)
        assert len(cpu) == len(cuda)
        for column in cpu.select_dtypes("float"):
            for a, b in zip(cpu[column], cuda[column], strict=True):
                assert (math.isnan(a) and math.isnan(b)) or a == pytest.approx(
                    b, rel=1e-6, abs=1e-12
                )


def test_a_run_that_diverges_on_cuda_names_the_same_step_as_on_cpu(tmp_path: Path) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        sick = config(device)
        sick.optimizer = SgdConfig(lr=1e200)
        found[device] = vgexp.run(sick, tmp_path / device).summary
    assert found["cpu"]["status"] == found["cuda"]["status"] == "diverged"
    assert found["cpu"]["cause"] == found["cuda"]["cause"]
