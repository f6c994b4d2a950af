"""The callback in Lightning's own loops: automatic and manual, accumulating, clipping, several
optimizers. The example of the documentation runs.

Holds: integrations/lightning.py, integrations/__init__.py
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import vgexp
import vgexp.errors

pl = pytest.importorskip("lightning.pytorch")

from vgexp.integrations.lightning import ProbeCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

NUM_BATCHES, BATCH_SIZE = 6, 4


class Module(pl.LightningModule):  # type: ignore[name-defined,misc]
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, 3)
        self.losses: list[float] = []
        self.norms: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.head(self.net(x)), y)
        self.losses.append(float(loss))
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        self.norms.append(float(torch.cat([g.flatten() for g in grads if g is not None]).norm()))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ByHand(Module):
    """Two optimizers, each with a net of its own, stepped in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        x, y = batch
        for weight, optimizer in zip((100, 1), self.optimizers(), strict=True):
            loss = weight * F.cross_entropy(self.head(self.net(x)), y)
            self.losses.append(float(loss))
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.net, self.head)]


def fit(module: Module, folder: Path, callback: ProbeCallback | None, **options: Any) -> Module:
    torch.manual_seed(0)
    for p in module.parameters():
        nn.init.normal_(p, std=0.5)
    data = TensorDataset(
        torch.randn(NUM_BATCHES * BATCH_SIZE, 5), torch.randint(3, (NUM_BATCHES * BATCH_SIZE,))
    )
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[callback] if callback else [],
        **options,
    )
    trainer.fit(module, DataLoader(data, batch_size=BATCH_SIZE))
    return module


def probe() -> ProbeCallback:
    return ProbeCallback(every=1, activations_every=1)


def require_equal(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_losses_and_norms_are_those_of_the_module_s_own_hooks(
    tmp_path: Path, accumulate: int
) -> None:
    options = {"gradient_clip_val": 0.05, "accumulate_grad_batches": accumulate}
    plain = fit(Module(), tmp_path / "plain", None, **options)
    module = fit(Module(), tmp_path / "probed", probe(), **options)
    require_equal(plain, module)
    run = vgexp.load(tmp_path / "probed" / "vgexp")
    assert run.summary["status"] == "completed"
    num_steps = NUM_BATCHES // accumulate
    means = torch.tensor(module.losses).view(num_steps, accumulate).mean(1)
    assert run.steps["loss"].tolist() == pytest.approx(means.tolist(), rel=1e-6)
    assert run.steps["grad_norm"].tolist() == pytest.approx(module.norms, rel=1e-5)
    assert run.steps["grad_norm_clipped"].tolist() == pytest.approx([0.05] * num_steps, rel=1e-4)
    layers = run.layers[run.layers["step"] == 0].set_index("name")
    assert layers.index.tolist() == ["net.0.weight", "net.2.weight", "head.weight"]
    assert (layers["grad_norm"] > layers["grad_norm_clipped"]).all()
    assert layers.notna()["delta_rms"].all()


def test_each_optimizer_has_the_weights_that_it_holds(tmp_path: Path) -> None:
    callback = probe()
    plain = fit(ByHand(), tmp_path / "plain", None)
    require_equal(plain, fit(ByHand(), tmp_path / "probed", callback))
    names = [
        vgexp.load(tmp_path / "probed" / "vgexp" / f"optimizer_{i}").layers["name"].unique()
        for i in range(2)
    ]
    assert [list(each) for each in names] == [["net.0.weight", "net.2.weight"], ["head.weight"]]
    assert [p.step for p in callback.probes] == [NUM_BATCHES, NUM_BATCHES]
    assert callback.probe is callback.probes[0]


def test_each_optimizer_s_loss_is_its_own(tmp_path: Path) -> None:
    module = fit(ByHand(), tmp_path, probe())
    for number in range(2):
        steps = vgexp.load(tmp_path / "vgexp" / f"optimizer_{number}").steps
        assert steps["loss"].tolist() == pytest.approx(module.losses[number::2], rel=1e-6)


def test_a_second_training_has_a_folder_of_its_own(tmp_path: Path) -> None:
    fit(Module(), tmp_path, probe())
    fit(Module(), tmp_path, probe())
    assert len(vgexp.load(tmp_path / "vgexp_2").steps) == NUM_BATCHES
    taken = ProbeCallback(folder=tmp_path / "vgexp")
    with pytest.raises(vgexp.errors.QuestionError, match="vgexp_3"):
        fit(Module(), tmp_path, taken)


def test_an_optimizer_of_biases_alone_leaves_no_weight_out(tmp_path: Path) -> None:
    class Biases(ByHand):
        def configure_optimizers(self) -> Any:
            biases = [p for p in self.parameters() if p.ndim == 1]
            weights = [p for p in self.parameters() if p.ndim > 1]
            return [torch.optim.SGD(part, lr=0.1) for part in (weights, biases)]

    fit(Biases(), tmp_path, probe())
    assert len(vgexp.load(tmp_path / "vgexp" / "optimizer_1").layers["name"].unique()) == 3


def test_half_precision_and_an_error_in_training_leave_their_tables(tmp_path: Path) -> None:
    fit(Module(), tmp_path / "half", probe(), precision="bf16-mixed")
    assert pd.read_csv(tmp_path / "half" / "vgexp" / "layers.csv")["delta_rms"].notna().all()

    class Failing(Module):
        def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
            if number == 3:
                raise ValueError("no data")
            return super().training_step(batch, number)

    module = Failing()
    with pytest.raises(ValueError, match="no data"):
        fit(module, tmp_path / "failed", probe())
    run = vgexp.load(tmp_path / "failed" / "vgexp")
    assert run.summary["status"] == "failed"
    assert len(run.steps) == 3
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_the_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from with_lightning import main

    main(str(tmp_path))
    assert "vanishes at step 0" in capsys.readouterr().out
    assert vgexp.load(tmp_path / "vgexp").summary["signal"] == "vanishing"


@pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")
def test_of_flat_parameters_the_probe_is_given_the_wrapper_which_knows_them(tmp_path: Path) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    store = f"file://{tmp_path / 'rendezvous'}"
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        module = Module()
        module.forward = lambda x: module.head(module.net(x))
        wrapper = FullyShardedDataParallel(module, device_id=torch.device("cpu"))
        optimizer = torch.optim.SGD(wrapper.parameters(), lr=0.1)
        # Lightning itself has this strategy on GPUs only.
        trainer = SimpleNamespace(
            model=wrapper, optimizers=[optimizer], is_global_zero=True, log_dir=str(tmp_path)
        )
        trainer.precision_plugin = None
        callback = ProbeCallback(every=1)
        callback.on_train_start(trainer, module)
        wrapper(torch.randn(4, 5)).sum().backward()
        optimizer.step()
        assert callback.probe is not None
        names = callback.probe.to_frame()["name"].tolist()
        callback.on_train_end(trainer, module)
    finally:
        distributed.destroy_process_group()
    assert names == [name for name, p in Module().named_parameters() if p.ndim > 1]
