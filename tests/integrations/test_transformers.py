"""The callback in the `Trainer` of transformers: accumulating, clipping, half precision,
checkpointing, resuming. The examples of the documentation run.

Holds: integrations/transformers.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vgexp

transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

from vgexp.integrations.transformers import ProbeCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Tokens(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __init__(self) -> None:
        self.tokens = torch.randint(3, 50, (24, 8), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def model() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=8, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def train(
    net: nn.Module, folder: Path, callback: ProbeCallback | None, resume: bool = False, **more: Any
) -> Any:
    settings = {
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "max_grad_norm": 0.25,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    arguments = transformers.TrainingArguments(output_dir=str(folder), **{**settings, **more})
    trainer = transformers.Trainer(
        net, arguments, train_dataset=Tokens(), callbacks=[callback] if callback else []
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def probe() -> ProbeCallback:
    return ProbeCallback(every=1, activations_every=1)


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_accumulation_steps": 2}, {"gradient_checkpointing": True}, {"bf16": True}],
    ids=["plain", "accumulating", "checkpointing", "bf16"],
)
def test_norms_before_clipping_are_those_that_the_trainer_logs(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    plain, probed = model(), model()
    train(plain, tmp_path / "plain", None, **options)
    clip = accelerate.Accelerator.clip_grad_norm_
    trainer = train(probed, tmp_path / "probed", probe(), **options)
    assert accelerate.Accelerator.clip_grad_norm_ is clip
    for a, b in zip(plain.parameters(), probed.parameters(), strict=True):
        assert torch.equal(a, b)
    run = vgexp.load(tmp_path / "probed" / "vgexp")
    assert run.summary["status"] == "completed"
    logged = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    norms = [entry["grad_norm"] for entry in logged]
    assert run.steps["grad_norm"].tolist() == pytest.approx(norms, rel=1e-4)
    assert run.steps["grad_norm_clipped"].tolist() == pytest.approx([0.25] * 3, rel=1e-3)
    at_start = run.layers[run.layers["step"] == 0]
    assert at_start.loc[at_start["kind"] == "stream", "name"].tolist() == [
        "transformer.h.0",
        "transformer.h.1",
    ]
    assert at_start.loc[at_start["kind"] == "readout", "name"].tolist() == ["lm_head.weight"]
    assert not any(m._forward_pre_hooks for m in probed.modules())


def test_the_loss_is_the_one_that_is_logged(tmp_path: Path) -> None:
    trainer = train(model(), tmp_path, probe())
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    run = vgexp.load(tmp_path / "vgexp")
    assert run.steps["loss"].tolist() == pytest.approx([float(x) for x in logged], rel=1e-3)


def test_training_that_is_resumed_has_a_folder_of_its_own(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    train(model(), tmp_path, probe(), **saving)
    train(model(), tmp_path, probe(), resume=True, **{**saving, "max_steps": 4})
    assert len(vgexp.load(tmp_path / "vgexp").steps) == 2
    assert len(vgexp.load(tmp_path / "vgexp-2").steps) == 2


def test_the_examples_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import with_accelerate
    import with_transformers

    with_transformers.main(str(tmp_path / "transformers"))
    assert "steady at step 0" in capsys.readouterr().out
    with_accelerate.main(str(tmp_path / "accelerate"))
    assert "steady at step 0" in capsys.readouterr().out
    steps = vgexp.load(tmp_path / "accelerate").steps
    assert len(steps) == 4
    assert (steps["grad_norm_clipped"] <= 0.5001).all()
