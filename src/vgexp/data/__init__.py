"""Data sets: inputs and labels, split, standardised, in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vgexp import metrics
from vgexp.config import DataConfig, choice
from vgexp.data import digits, generated
from vgexp.errors import impossible
from vgexp.registry import Registry
from vgexp.seeds import generator


@dataclass(frozen=True)
class Split:
    """Examples of one purpose."""

    inputs: Tensor
    """[N, F]"""
    targets: Tensor
    """[N], int64: class numbers."""

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Dataset:
    """A data set in three disjoint splits."""

    name: str
    train: Split
    val: Split
    test: Split
    num_inputs: int
    num_classes: int

    @property
    def constant_loss(self) -> float:
        """Cross-entropy in nats of the best constant prediction on train: the label entropy."""
        count_C = torch.bincount(self.train.targets, minlength=self.num_classes).double()
        return float(torch.special.entr(count_C / len(self.train)).sum())


Source = Callable[[Any, int], tuple[Tensor, Tensor, int]]

DATA: Registry[Source] = Registry(
    "data", {"digits": digits.read, "gaussian": generated.gaussian, "spirals": generated.spirals}
)
"""Name -> function of (configuration, seed): raw inputs [N, F] in float64, targets [N], classes."""


def load(config: DataConfig, seed: int, dtype: torch.dtype) -> Dataset:
    """The configured data set: split at random, then standardised by the training split.

    Of n examples round(val_fraction n) are for validation, as many again for the test. Values and
    splits depend on `seed`, not on `dtype`, which only rounds.

    Raises:
        QuestionError: no example is left for training.
    """
    name = choice("data", config)
    inputs_NF, targets_N, num_classes = DATA[name](config, seed)
    num_held = round(config.val_fraction * len(targets_N))
    if 2 * num_held >= len(targets_N):
        raise impossible(
            "data.val_fraction",
            config.val_fraction,
            f"a share that leaves some of the {len(targets_N)} examples for training",
        )
    order_N = torch.randperm(len(targets_N), generator=generator(seed, "split"))
    val_V, test_V, train_T = order_N.tensor_split((num_held, 2 * num_held))
    inputs_NF = _standardised(inputs_NF, inputs_NF[train_T]).to(dtype)
    train, val, test = (
        Split(inputs_NF[rows], targets_N[rows]) for rows in (train_T, val_V, test_V)
    )
    return Dataset(name, train, val, test, inputs_NF.shape[1], num_classes)


def _standardised(inputs_NF: Tensor, train_TF: Tensor) -> Tensor:
    """Inputs less the training split's one mean, over its one standard deviation (divisor T F).

    Constant training inputs are divided by 1.
    """
    mean, std = (x[0] for x in metrics.row_moments(train_TF.reshape(1, -1)))
    constant = train_TF.amin() == train_TF.amax()
    return (inputs_NF - mean) / torch.where(constant, 1.0, std)
