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


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_loss_is_the_one_that_is_logged(tmp_path: Path, accumulate: int) -> None:
    trainer = train(model(), tmp_path, probe(), gradient_accumulation_steps=accumulate)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    run = vgexp.load(tmp_path / "vgexp")
    assert run.steps["loss"].tolist() == pytest.approx([float(x) for x in logged], rel=1e-3)


def test_training_that_is_resumed_has_a_folder_of_its_own(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    train(model(), tmp_path, probe(), **saving)
    train(model(), tmp_path, probe(), resume=True, **{**saving, "max_steps": 4})
    assert len(vgexp.load(tmp_path / "vgexp").steps) == 2
    assert len(vgexp.load(tmp_path / "vgexp_2").steps) == 2


def test_several_callbacks_measure_alike_and_leave_nothing(tmp_path: Path) -> None:
    clip = accelerate.Accelerator.clip_grad_norm_
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=4, max_grad_norm=0.25,
        use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    net = model()
    transformers.Trainer(
        net, arguments, train_dataset=Tokens(), callbacks=[probe(), probe()]
    ).train()
    assert accelerate.Accelerator.clip_grad_norm_ is clip
    one, other = (vgexp.load(tmp_path / name).steps for name in ("vgexp", "vgexp_2"))
    assert one.equals(other)
    assert (one["grad_norm"] > one["grad_norm_clipped"]).all()


def test_after_an_error_close_ends_the_tables(tmp_path: Path) -> None:
    clip, net, callback = accelerate.Accelerator.clip_grad_norm_, model(), probe()
    calls = []

    def fail(*_: Any) -> None:
        calls.append(None)
        if len(calls) == 3:
            raise ValueError("no data")

    net.register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="no data"):
        train(net, tmp_path, callback)
    callback.close()
    assert accelerate.Accelerator.clip_grad_norm_ is clip
    assert not any(m._forward_hooks for m in net.modules())
    assert len(vgexp.load(tmp_path / "vgexp").steps) == 2


def test_a_scaled_gradient_is_measured_as_it_is_before_clipping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA float16 brings the scaler; here the trainer is given one."""
    norms = []
    for scale in (None, 1024.0):
        folder = tmp_path / str(scale)

        class Scaled(transformers.Trainer):  # type: ignore[name-defined,misc]
            def create_accelerator_and_postprocess(self, scale: float | None = scale) -> None:
                super().create_accelerator_and_postprocess()
                if scale is not None:
                    self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)

            def _clip_grad_norm(self, net: nn.Module) -> Any:
                with monkeypatch.context() as patch:
                    precision = property(lambda _: "fp16" if self.accelerator.scaler else "no")
                    patch.setattr(accelerate.Accelerator, "mixed_precision", precision)
                    patch.setattr(self.accelerator, "native_amp", True)
                    return super()._clip_grad_norm(net)

        arguments = transformers.TrainingArguments(
            output_dir=str(folder), max_steps=2, per_device_train_batch_size=4, max_grad_norm=0.25,
            use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        Scaled(model(), arguments, train_dataset=Tokens(), callbacks=[probe()]).train()
        steps = vgexp.load(folder / "vgexp").steps
        norms.append(steps["grad_norm"].tolist())
        assert steps["grad_norm_clipped"].tolist() == pytest.approx([0.25] * 2, rel=1e-3)
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


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
