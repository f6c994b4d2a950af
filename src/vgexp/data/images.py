"""Image sets in files, with a test split of their own."""

from __future__ import annotations

import dataclasses

import torch

from vgexp.config import Cifar10Config, FashionMnistConfig, ImagesConfig, MnistConfig
from vgexp.data import loading, sources, stored
from vgexp.data.examples import Examples
from vgexp.data.stored import Stored
from vgexp.errors import impossible
from vgexp.seeds import generator
from vgexp.tasks import Task


@sources.read.register
def mnist(config: MnistConfig, seed: int) -> Examples:
    """Handwritten digits of 28x28 grey pixels (LeCun 1998); files in ROOT/MNIST/raw."""
    return _read(stored.MNIST, config, seed)


@sources.read.register
def fashion_mnist(config: FashionMnistConfig, seed: int) -> Examples:
    """Clothing of 28x28 grey pixels (Xiao 2017); files in ROOT/FashionMNIST/raw."""
    return _read(stored.FASHION_MNIST, config, seed)


@sources.read.register
def cifar10(config: Cifar10Config, seed: int) -> Examples:
    """Photographs of 32x32 coloured pixels (Krizhevsky 2009); files in ROOT/cifar-10-batches-py.

    The files are Python's pickles, which could run anything as they are read; so they are read only
    where their MD5 is that of the published ones.
    """
    return _read(stored.CIFAR10, config, seed)


def limited(found: Examples, num_examples: int | None, seed: int) -> Examples:
    """So many examples drawn at random, and of a test split at most as many; None: all.

    Raises:
        QuestionError: there are not so many.
    """
    if num_examples is None:
        return found
    if num_examples > len(found.targets):
        raise impossible("data.num_examples", num_examples, f"at most {len(found.targets)}")
    source = generator(seed, "data")
    rows_N = torch.randperm(len(found.targets), generator=source)[:num_examples]
    test = found.test
    if test is not None:
        test_rows_N = torch.randperm(len(test[1]), generator=source)[:num_examples]
        test = test[0][test_rows_N], test[1][test_rows_N]
    inputs, targets = found.inputs[rows_N], found.targets[rows_N]
    return dataclasses.replace(found, inputs=inputs, targets=targets, test=test)


def _read(which: Stored, config: ImagesConfig, seed: int) -> Examples:
    (inputs, targets), test = loading.read(which, config.root, config.download)
    task = Task("image", which.shape, loading.NUM_CLASSES)
    return limited(Examples(inputs, targets, task, test=test), config.num_examples, seed)
