"""What vgexp costs on other families: ResNet-20, an LSTM, a transformer, against PyTorch's own.

`make bench`, or `python scripts/bench_networks.py --help`. As `bench.py`: a ratio is the median
over rounds of vgexp's time a step, with tables, over that of a bare loop.
Axes: B examples, C channels, H rows, W columns, T positions.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from bench import LEARNING_RATE, Loss, compare, recorded, textbook
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from vgexp.assembly import device_of
from vgexp.config import (
    AddingConfig,
    Config,
    CustomDataConfig,
    DataConfig,
    LstmConfig,
    ModelConfig,
    ProbeConfig,
    ResnetConfig,
    SgdConfig,
    TextConfig,
    TrainConfig,
    TransformerConfig,
)

EXAMPLES, CLASSES, BATCH = 640, 10, 32


def images(num_examples: int = EXAMPLES) -> tuple[TensorDataset, TensorDataset]:
    """Noise of 3 x 32 x 32 in ten classes, as a user's own data."""
    x, y = torch.randn(num_examples, 3, 32, 32), torch.arange(num_examples) % CLASSES
    return TensorDataset(x, y), TensorDataset(x[:BATCH], y[:BATCH])


class PlainResnet(nn.Module):
    """ResNet-20 as anybody writes it (He 2015, 4.2, option A)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        widths = [16] * 3 + [32] * 3 + [64] * 3
        self.blocks = nn.ModuleList(
            PlainBlock(before, width) for before, width in zip([16, *widths], widths, strict=False)
        )
        self.readout = nn.Linear(64, CLASSES)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW = F.relu(self.norm(self.stem(x_BCHW)))
        for block in self.blocks:
            h_BCHW = block(h_BCHW)
        scores: Tensor = self.readout(h_BCHW.mean((2, 3)))
        return scores


class PlainBlock(nn.Module):
    """Two convolutions around a path."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.stride = 1 if before == width else 2
        self.first = nn.Conv2d(before, width, 3, self.stride, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
        self.padding = (0, 0, 0, 0, 0, width - before)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW = F.relu(self.norms[0](self.first(x_BCHW)))
        branch_BCHW = self.norms[1](self.second(h_BCHW))
        if self.stride == 2:
            x_BCHW = F.pad(x_BCHW[:, :, ::2, ::2], self.padding)
        return F.relu(branch_BCHW + x_BCHW)


class PlainLstm(nn.Module):
    """torch's LSTM and a read-out of its last state."""

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, config.width, config.depth, batch_first=True)
        self.readout = nn.Linear(config.width, 1)

    def forward(self, x_BTI: Tensor) -> Tensor:
        value: Tensor = self.readout(self.lstm(x_BTI)[0][:, -1])
        return value


class PlainTransformer(nn.Module):
    """torch's encoder layers with a causal mask, norms first, learned positions."""

    def __init__(self, config: TransformerConfig, num_tokens: int, length: int) -> None:
        super().__init__()
        width = config.width
        self.tokens, self.positions = nn.Embedding(num_tokens, width), nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(
            width,
            config.heads,
            config.mlp_ratio * width,
            0.0,
            F.gelu,
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(
            layer, config.depth, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.readout = nn.Linear(width, num_tokens)
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        self.register_buffer("mask", mask)

    def forward(self, x_BT: Tensor) -> Tensor:
        x_BTW = self.tokens(x_BT) + self.positions.weight
        scores: Tensor = self.readout(self.blocks(x_BTW, mask=self.mask, is_causal=True))
        return scores


@dataclass(frozen=True)
class Case:
    """One network: vgexp's configuration of it, and the same by hand."""

    name: str
    model: ModelConfig
    data: DataConfig
    bare: Callable[[], tuple[nn.Module, Loss, tuple[Tensor, Tensor]]]
    num_steps: int = 20
    time_points: int | None = 10


def _bare_resnet() -> tuple[nn.Module, Loss, tuple[Tensor, Tensor]]:
    return PlainResnet(), F.cross_entropy, images()[0].tensors  # type: ignore[return-value]


def _bare_lstm() -> tuple[nn.Module, Loss, tuple[Tensor, Tensor]]:
    return PlainLstm(LSTM), F.mse_loss, (torch.randn(EXAMPLES, 100, 2), torch.randn(EXAMPLES, 1))


def _bare_transformer() -> tuple[nn.Module, Loss, tuple[Tensor, Tensor]]:
    def loss_of(scores_BTV: Tensor, y_BT: Tensor) -> Tensor:
        return F.cross_entropy(scores_BTV.flatten(0, 1), y_BT.flatten())

    tokens_BT = torch.randint(NUM_TOKENS, (EXAMPLES, 65))
    model = PlainTransformer(TRANSFORMER, NUM_TOKENS, 64)
    return model, loss_of, (tokens_BT[:, :-1], tokens_BT[:, 1:])


NUM_TOKENS = 110
LSTM = LstmConfig(depth=4, width=128)
TRANSFORMER = TransformerConfig(depth=8, width=256, heads=4)
CASES = (
    Case(
        "ResNet-20, 3 x 32 x 32",
        ResnetConfig(depth=20),
        CustomDataConfig(target="bench_networks.images", batch_size=BATCH),
        _bare_resnet,
    ),
    Case(
        "LSTM, 4 layers of 128, 100 steps",
        LSTM,
        AddingConfig(seq_len=100, num_examples=EXAMPLES, batch_size=BATCH),
        _bare_lstm,
    ),
    Case(
        "the same, every step in time watched",
        LSTM,
        AddingConfig(seq_len=100, num_examples=EXAMPLES, batch_size=BATCH),
        _bare_lstm,
        time_points=None,
    ),
    Case(
        "transformer, 8 blocks of 256, 64 tokens",
        TRANSFORMER,
        TextConfig(seq_len=64, num_examples=EXAMPLES, batch_size=BATCH // 2),
        _bare_transformer,
    ),
)


def bench(case: Case, every: int, rounds: int, device: torch.device) -> None:
    """Prints one row of the table."""
    config = Config(
        model=case.model,
        data=case.data,
        optimizer=SgdConfig(lr=LEARNING_RATE),
        train=TrainConfig(steps=10**9, eval_every=0),
        probe=ProbeConfig(every=every, activations_every=every, time_points=case.time_points),
        device=str(device),
    )
    model, loss_of, examples = case.bare()
    on_device = tuple(part.to(device) for part in examples)
    bare_loop = textbook(model.to(device), loss_of, on_device, case.data.batch_size, fused=False)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        loop = recorded(config, Path(folder))
        bare, ratios = compare(loop, bare_loop, case.num_steps, rounds)
    print(
        f"{case.name:40s} {every:5d} {1e3 * bare:8.1f} ms {statistics.median(ratios):7.3f}"
        f"  {min(ratios):.3f}-{max(ratios):.3f}",
        flush=True,
    )


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="pairs of timings a row")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("network                                  every  bare step   ratio  min-max")
    for case in CASES:
        for every in (20, 1):
            bench(case, every, arguments.rounds, device_of(arguments.device))


if __name__ == "__main__":
    main()
