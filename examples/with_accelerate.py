"""A loop with accelerate: the probe takes the model and the optimizer that `prepare` returns.

python examples/with_accelerate.py [FOLDER]
"""

from __future__ import annotations

import sys

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from vgexp import Probe


def main(folder: str = "outputs/with_accelerate") -> None:
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    layers = [layer for _ in range(12) for layer in (nn.Linear(32, 32), nn.Tanh())]
    net = nn.Sequential(*layers, nn.Linear(32, 4))
    data = TensorDataset(torch.randn(256, 32), torch.randint(4, (256,)))
    model, optimizer, batches = accelerator.prepare(
        net, torch.optim.SGD(net.parameters(), lr=0.1), DataLoader(data, batch_size=32)
    )
    with Probe(model, optimizer, every=2, activations_every=2, folder=folder) as probe:
        loss_fn = probe.watch_loss(F.cross_entropy)
        for x, y in batches:
            with accelerator.accumulate(model):
                accelerator.backward(loss_fn(model(x), y))
                if accelerator.sync_gradients:
                    probe.before_clip()
                    accelerator.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()
    print(probe.diagnose())


if __name__ == "__main__":
    main(*sys.argv[1:])
