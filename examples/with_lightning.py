"""A Lightning module of somebody's own, measured with one line: the callback.

python examples/with_lightning.py [FOLDER]
"""

from __future__ import annotations

import sys

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from vgexp.integrations.lightning import ProbeCallback


class DeepNet(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        layers = [layer for _ in range(12) for layer in (nn.Linear(32, 32), nn.Sigmoid())]
        self.net = nn.Sequential(*layers, nn.Linear(32, 4))

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main(folder: str = "outputs/with_lightning") -> None:
    pl.seed_everything(0, verbose=False)
    data = TensorDataset(torch.randn(256, 32), torch.randint(4, (256,)))
    callback = ProbeCallback()
    trainer = pl.Trainer(
        max_epochs=3,
        callbacks=[callback],
        default_root_dir=folder,
        gradient_clip_val=0.5,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(DeepNet(), DataLoader(data, batch_size=32))
    print(callback.probes[0].diagnose())


if __name__ == "__main__":
    main(*sys.argv[1:])
