"""What the backward pass needs of the forward pass: bytes that autograd keeps, and of weights.

python examples/stored_activations.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint_sequential

DEPTH, WIDTH = 50, 256


def bytes_kept(batch_size: int, *, checkpoints: int = 0) -> int:
    """Bytes that autograd holds when the forward pass of a ReLU net has ended.

    Args:
        checkpoints: segments of layers whose inside is computed again; 0: everything is kept.
    """
    torch.manual_seed(0)
    layers = [layer for _ in range(DEPTH) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    network, x = nn.Sequential(*layers), torch.randn(batch_size, WIDTH, requires_grad=True)
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if checkpoints:
            output = checkpoint_sequential(network, checkpoints, x, use_reentrant=False)
        else:
            output = network(x)
    del output
    return sum(kept.values())


def main() -> None:
    """Prints the bytes by batch size."""
    weights = 4 * DEPTH * (WIDTH * WIDTH + WIDTH)
    print(f"weights and biases of {DEPTH} layers of {WIDTH} units: {weights / 1e6:.1f} MB")
    for batch_size in (16, 256, 4096):
        whole, again = bytes_kept(batch_size), bytes_kept(batch_size, checkpoints=7)
        print(
            f"batch of {batch_size}: {whole / 1e6:.1f} MB are kept, "
            f"{again / 1e6:.1f} MB with 7 checkpoints"
        )


if __name__ == "__main__":
    main()
