"""Sequences that are drawn, from the generator `data`: two tasks that only a memory solves.

Axes: N examples, T positions in time, L symbols to copy.
"""

from __future__ import annotations

import torch

from vgexp.config import AddingConfig, CopyConfig
from vgexp.data import sources
from vgexp.data.examples import Examples
from vgexp.data.sizes import Size, size_of
from vgexp.seeds import generator
from vgexp.tasks import Task


@sources.read.register
def adding(config: AddingConfig, seed: int) -> Examples:
    """The adding problem: the sum of two marked values (Hochreiter & Schmidhuber 1997, 5.4).

    At each position a value x uniform in [0, 1] and a marker, which is 1 at one position of the
    first half and one of the second, each uniform, and 0 elsewhere. The target is the sum of the
    two marked values; answering its mean, 1, costs a squared error of 1/6.

    Values in [0, 1], the sum and both halves as in Le 2015 and Arjovsky 2016; the paper of 1997 has
    them in [-1, 1], the first marker among the first ten, and the target 0.5 + (x1 + x2) / 4. That
    target is half of this one, so right within 0.04 here is within 0.02 there.

    Values and markers are one channel: one mean and one standard deviation for both. With their
    own, a marker would stand at sqrt(T / 2 - 1), which grows with T.
    """
    source = generator(seed, "data")
    num_examples, seq_len = config.num_examples, config.seq_len
    half = seq_len // 2
    value_NT = torch.rand(num_examples, seq_len, generator=source, dtype=torch.float64)
    first_N = torch.randint(half, (num_examples,), generator=source)
    second_N = torch.randint(half, seq_len, (num_examples,), generator=source)
    marked_N2 = torch.stack([first_N, second_N], dim=1)
    marker_NT = torch.zeros_like(value_NT).scatter_(1, marked_N2, 1.0)
    inputs_NT2 = torch.stack([value_NT, marker_NT], dim=2)
    targets_N1 = value_NT.gather(1, marked_N2).sum(1, keepdim=True)
    task = Task("sequence", (seq_len, 2), num_outputs=1)
    return Examples(inputs_NT2, targets_N1, task, loss="mse")


@sources.read.register
def copy(config: CopyConfig, seed: int) -> Examples:
    """The copy problem: symbols are repeated after a delay (Arjovsky 2016, section 4.1).

    With S symbols (0..S-1), a blank (S), a delimiter (S+1), L symbols to copy and a delay of T:
        inputs   L symbols, T - 1 blanks, the delimiter, L blanks
        targets  T + L blanks, the L symbols
    so T + 2 L positions, each with one of S + 1 answers (the delimiter is none).

    Loss and accuracy are means over all positions, as in the papers. Without memory the best are
    blanks up to the delimiter and a guess after: a loss of L ln S / (T + 2 L) (10 ln 8 / (T + 20)
    as it is mostly set), which is `constant_loss` but for the draw, and an accuracy of
    (T + L + L / S) / (T + 2 L). Only below that loss is anything remembered.
    """
    source = generator(seed, "data")
    num_symbols, copy_len, delay = config.num_symbols, config.copy_len, config.seq_len
    blank, delimiter = num_symbols, num_symbols + 1
    shape = (config.num_examples, copy_len)
    symbols_NL = torch.randint(num_symbols, shape, generator=source)
    inputs_NT = torch.full((config.num_examples, delay + 2 * copy_len), blank)
    targets_NT = inputs_NT.clone()
    inputs_NT[:, :copy_len] = symbols_NL
    inputs_NT[:, copy_len + delay - 1] = delimiter
    targets_NT[:, copy_len + delay :] = symbols_NL
    task = Task(
        "tokens",
        inputs_NT.shape[1:],
        num_outputs=num_symbols + 1,
        num_tokens=num_symbols + 2,
        per_position=True,
        positions_tell=True,
    )
    return Examples(inputs_NT, targets_NT, task)


@size_of.register
def _size_of_adding(config: AddingConfig) -> Size:
    keys = ("num_examples", "seq_len")
    return Size(2 * config.num_examples * config.seq_len, config.num_examples, keys)


@size_of.register
def _size_of_copy(config: CopyConfig) -> Size:
    num_tokens = config.num_examples * (config.seq_len + 2 * config.copy_len)
    return Size(num_tokens, num_tokens, ("num_examples", "seq_len", "copy_len"), num_copies=2)
