"""Greedy layer-wise pretraining: how the first deep nets were trained.

Axes: B examples, F features that a layer reads, W units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor

from vgexp.activations import ACTIVATIONS
from vgexp.data import Split
from vgexp.data.batches import Batches, full
from vgexp.models import Mlp
from vgexp.models.mlp import MlpLayer
from vgexp.optimizers import Adam
from vgexp.records import Floats, Rows
from vgexp.training.evaluation import EVAL_BATCH


@final
class Pretraining:
    """Stacked autoencoders with tied weights (Bengio 2007; Vincent 2010), for a plain perceptron.

    From the first layer to the last, W and b are trained with Adam to reconstruct the layer's input
    a from its output: h = phi(W a + b), r = W^T h + c, where c begins at 0 and is dropped
    afterwards. The weights below stay as they are. If a comes from an activation of bounded range,
    the loss is the cross-entropy between a, scaled to [0, 1], and sigmoid(r); else the mean squared
    error of r over the variance of a in the batch. Both are means over entries.

    Args:
        batches_of: makes an endless stream of batches of a split, from random numbers of its own.
        num_steps: updates of each layer.
    """

    def __init__(
        self,
        model: Mlp,
        train: Split,
        batches_of: Callable[[Split], Batches],
        num_steps: int,
        lr: float,
    ) -> None:
        self._model, self._train = model, train
        self._batches_of = batches_of
        self._num_steps, self._lr = num_steps, lr

    def rows(self, is_stopped: Callable[[], bool]) -> Iterator[Rows]:
        """Trains layer by layer and yields the rows of each; ends early once `is_stopped`."""
        names = {id(p): name for name, p in self._model.named_parameters()}
        reads, bounds = self._train, None
        for each in self._model.layers:
            layer = cast(MlpLayer, each)
            losses: list[Tensor] = []
            for loss in self._fit(layer, reads, bounds):
                losses.append(loss)
                if is_stopped():
                    break
            yield _rows(names[id(layer.linear.weight)], losses)
            if is_stopped():
                return
            reads, bounds = _encode(layer, reads), ACTIVATIONS[self._model.activation_name].bounds

    def _fit(
        self, layer: MlpLayer, reads: Split, bounds: tuple[float, float] | None
    ) -> Iterator[Tensor]:
        """Trains one layer and yields the loss before each update, 0-d."""
        weight_WF, batches = layer.linear.weight, self._batches_of(reads)
        shift_F = torch.zeros_like(weight_WF[0], requires_grad=True)
        optimizer = Adam([*layer.linear.parameters(), shift_F], self._lr, fused=True)
        for _ in range(self._num_steps):
            a_BF, _ = batches.next()
            h_BW = layer.activation(layer.linear(a_BF))
            loss = _error(F.linear(h_BW, weight_WF.T, shift_F), a_BF, bounds)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield loss.detach()
        optimizer.zero_grad()


def _error(r_BF: Tensor, a_BF: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    if bounds is None:
        variance = a_BF.var(0, correction=0).mean()
        return F.mse_loss(r_BF, a_BF) / torch.where(variance > 0, variance, 1.0)
    low, high = bounds
    return F.binary_cross_entropy_with_logits(r_BF, (a_BF - low) / (high - low))


@torch.no_grad()
def _encode(layer: MlpLayer, reads: Split) -> Split:
    """Computes the layer's output for every example."""
    parts = [layer.activation(layer.linear(a)) for a, _ in full(reads, EVAL_BATCH)]
    return Split(torch.cat(parts), reads.targets)


def _rows(name: str, losses: list[Tensor]) -> Rows:
    columns: dict[str, Any] = {
        "step": list(range(len(losses))),
        "name": [name] * len(losses),
        "loss": Floats(torch.stack(losses).cpu().numpy()),
    }
    return Rows("pretraining", columns)
