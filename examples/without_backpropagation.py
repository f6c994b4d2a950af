"""Gradients without a backward pass: derivatives along random directions, which forward mode gives.

The derivative along v, times v, is on average the gradient (Baydin 2022). How near a mean of K of
them is to it, and what a small net learns from one of them in as many updates.

python examples/without_backpropagation.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp

STEPS, RATE, BATCH = 500, 0.1, 128
DIRECTIONS = (1, 10, 100, 1000)


def make_loss(network: nn.Module):  # type: ignore[no-untyped-def]
    """The loss as a function of parameters, inputs and labels."""

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(network, parameters, (x,)), y)

    return loss


def estimate(loss, parameters, x, y, num_directions: int):  # type: ignore[no-untyped-def]
    """The mean over random directions v of (the derivative along v) times v."""
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for _ in range(num_directions):
        v = {name: torch.randn_like(p) for name, p in parameters.items()}
        _, slope = jvp(lambda p: loss(p, x, y), (parameters,), (v,))
        total = {name: total[name] + slope * v[name] / num_directions for name in total}
    return total


def main(steps: int = STEPS) -> None:
    """Prints cosines to the gradient, and accuracies after training."""
    x, y = map(torch.tensor, load_digits(return_X_y=True))
    x = x.float() / 8 - 1
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    loss, start = make_loss(network), {k: p.detach() for k, p in network.named_parameters()}
    count = sum(p.numel() for p in start.values())
    print(f"{count} parameters")
    true = torch.cat([g.flatten() for g in grad(loss)(start, x[:BATCH], y[:BATCH]).values()])
    for many in DIRECTIONS:
        made = estimate(loss, start, x[:BATCH], y[:BATCH], many)
        cosine = torch.cosine_similarity(torch.cat([g.flatten() for g in made.values()]), true, 0)
        print(f"mean of {many} directions: cosine to the gradient {cosine:.3f}")
    for name, many, rate in (("backpropagation", 0, RATE), ("forward", 1, RATE / 10)):
        parameters = dict(start)
        for _ in range(steps):
            index = torch.randint(1500, (BATCH,))
            batch = x[index], y[index]
            made = (
                estimate(loss, parameters, *batch, many) if many else grad(loss)(parameters, *batch)
            )
            parameters = {k: p - rate * made[k] for k, p in parameters.items()}
        outputs = functional_call(network, parameters, (x[1500:],))
        right = (outputs.argmax(1) == y[1500:]).float().mean()
        print(f"{name}, {steps} updates at rate {rate:g}: {right:.2f} of 297 digits right")


if __name__ == "__main__":
    main()
