"""Healthy loops of the set `forums`: gradients and weights that are treated so on purpose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import mean_goal
from zoo.loops.forum_data import (
    figures,
    fit,
    mlp,
    next_goal,
    right,
    spoken,
    stream,
    waves,
)
from zoo.loops.loop import FORUMS, HEALTHY, Batch, Parts, loops_of


class _Adapted(nn.Module):
    """A frozen layer, and beside it the product of `a`, which is drawn, and `b`, which is 0."""

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.lora_a = nn.Linear(frozen.in_features, rank, bias=False)
        self.lora_b = nn.Linear(rank, frozen.out_features, bias=False)
        nn.init.zeros_(self.lora_b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + self.lora_b(self.lora_a(x))


def _half_of_the_adapter_is_zero(_: bool) -> Parts:
    """A trained classifier is tuned to other labels by adapters whose second half begins at 0.

    GitHub microsoft/LoRA, issue #59: "How to optimize B, which is the all zero matrix"; "You can
    optimize B as usual, e.g., with Adam, since it will get a non-zero gradient in general". The
    first half gets none at the first update.
    """
    (x, y), (kept_x, kept_y) = figures()
    base = mlp(64, 64, 64, 10)
    before = torch.optim.Adam(base.parameters(), lr=3e-3)
    for _ in range(120):
        rows = torch.randint(len(x), (64,))
        before.zero_grad()
        nn.functional.cross_entropy(base(x[rows]), y[rows]).backward()
        before.step()
    model = nn.Sequential(
        _Adapted(base[0], 8), nn.ReLU(), _Adapted(base[2], 8), nn.ReLU(), _Adapted(base[4], 8)
    )
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=3e-3)
    data = (x, (y + 3) % 10), (kept_x, (kept_y + 3) % 10)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 400)


class _Quantised(nn.Module):
    """An autoencoder whose codes are taken from a book, which follows them by averages."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 64, 32), mlp(32, 64, 64)
        self.book = nn.Parameter(0.5 * torch.randn(4, 24, 8), requires_grad=False)
        self.register_buffer("counts", torch.ones(4, 24))
        self.counts: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(N, 64 + 32 + 32): what is made, the codes, and what they were replaced by."""
        code = self.encoder(x).reshape(-1, 4, 8)
        far = (code.detach()[:, :, None] - self.book).square().sum(3)
        chosen = nn.functional.one_hot(far.argmin(2), 24).float()
        taken = torch.einsum("ngk,gkd->ngd", chosen, self.book)
        if self.training:
            with torch.no_grad():
                self.counts.lerp_(chosen.sum(0), 0.1)
                mean = torch.einsum("ngk,ngd->gkd", chosen, code) / (
                    chosen.sum(0)[..., None] + 1e-3
                )
                used = (chosen.sum(0) > 0)[..., None]
                self.book.copy_(torch.where(used, self.book.lerp(mean, 0.1), self.book))
        passed = code + (taken - code).detach()
        made = self.decoder(passed.flatten(1))
        return torch.cat((made, code.flatten(1), taken.flatten(1)), 1)


def _book_follows_by_averages(_: bool) -> Parts:
    """A codebook never gets a gradient; it follows the codes, which pass it straight through.

    GitHub lucidrains/vector-quantize-pytorch, issue #40: "Never update the codebook parameters
    through gradients (only EMA is used)?"; "yes that's correct".
    """
    (x, _), (kept, _) = figures()
    model = _Quantised()
    trained = [*model.encoder.parameters(), *model.decoder.parameters()]
    optimizer = torch.optim.Adam(trained, lr=3e-3)

    def loss(output: Tensor, x: Tensor) -> Tensor:
        made, code, taken = output.split([64, 32, 32], 1)
        far = (made - x).square().sum(1).mean()
        return far + 0.25 * (code - taken.detach()).square().sum(1).mean()

    def share(model: Any) -> Tensor:
        apart = (model(kept)[:, :64] - kept).square().mean()
        return 1 - apart / (kept - x.mean(0)).square().mean()

    data = (x, x), (kept, kept)
    return fit(data, model, optimizer, loss, mean_goal(share, 0.4), 400)


def _gradients_for_the_weights_of_tasks(_: bool) -> Parts:
    """Each task's gradient is taken for its weight and thrown away, and then all are sent back.

    GitHub isl-org/MultiObjectiveOptimization, issue #34: "There are two calls of
    optimizer.zero_grad() ... before optimizer.zero_grad() is called finally"; "both are necessary".
    """
    (x, y), (kept_x, kept_y) = waves()
    y = torch.cat((y, x[:, 4:5] * x[:, 5:6]), 1)
    kept_y = torch.cat((kept_y, kept_x[:, 4:5] * kept_x[:, 5:6]), 1)
    model = mlp(8, 64, 64, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def of_tasks(said: Tensor, y: Tensor, shares: Tensor) -> Tensor:
        return ((said - y).square().mean(0) * shares).sum()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        x, y = batch
        norms = []
        for task in range(2):
            optimizer.zero_grad()
            (model(x) - y)[:, task].square().mean().backward()
            norms.append(sum(each.grad.square().sum() for each in model.parameters()) ** 0.5)
        optimizer.zero_grad()
        inverse = 1 / (torch.stack(norms) + 1e-3)
        loss(model(x), y, inverse / inverse.sum()).backward()
        optimizer.step()

    def least(model: Any) -> Tensor:
        apart = (model(kept_x) - kept_y).square().mean(0)
        return (1 - apart / kept_y.var(0)).min()

    data = (x, y), (kept_x, kept_y)
    return fit(data, model, optimizer, of_tasks, mean_goal(least, 0.7), 500, step=step)


class _Prompted(nn.Module):
    """A frozen reader of tokens, and their embeddings, of which one row is to be learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.input_embeddings = nn.Embedding(12, 24)
        self.reader = mlp(48, 96, 12).requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        return 5 * self.reader(self.input_embeddings(tokens).flatten(1))


def _only_one_row_is_tuned(_: bool) -> Parts:
    """The gradients of all rows but that of a new token are set to 0 before the step.

    GitHub kohjingyu/fromage, issue #6: "This is why we have to zero out the gradients of the
    non-`[RET]` tokens in the training loop, so prevent them from changing"; all else is frozen.
    """
    model = _Prompted()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    new, old = 11, 4

    def draw(num: int) -> Batch:
        after = torch.randint(11, (num,))
        with torch.no_grad():
            meant = model(torch.stack((torch.full((num,), old), after), 1))
        return torch.stack((torch.full((num,), new), after), 1), meant.softmax(1)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        model.input_embeddings.weight.grad[torch.arange(12) != new] = 0
        optimizer.step()

    def same(model: Any) -> Tensor:
        after = torch.arange(11)
        first, second = (
            model(torch.stack((torch.full((11,), each), after), 1)).softmax(1)
            for each in (new, old)
        )
        return (first - second).abs().sum(1).mean()

    goal = mean_goal(same, 0.2, higher=False)
    return stream(draw, model, optimizer, nn.CrossEntropyLoss(), goal, 300, step=step)


class _Spike(torch.autograd.Function):
    """A step forward; on the way back the slope of a fast sigmoid."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] / (4 * x.abs() + 1).square()


class _Spiking(nn.Module):
    """Leaky units that fire and are reset, over ten steps of an input current."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.readout = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        current = 2 * self.hidden(x)
        membrane, total = torch.zeros_like(current), torch.zeros(len(x), 10)
        for _ in range(10):
            spikes: Tensor = _Spike.apply(membrane - 1)
            reset = spikes.detach()
            membrane = (0.8 * membrane + current) * (1 - reset)
            total = total + self.readout(spikes)
        return total / 10


def _resets_are_detached(_: bool) -> Parts:
    """Units fire by a step with a slope of its own, and their reset is detached.

    GitHub fzenke/spytorch, issue #2: "The rst tensor is introduced to prevent gradients from
    flowing through the reset. You can achieve the same by detaching the out tensor".
    """
    data = figures()
    model = _Spiking()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 250)


class _Chunks(nn.Module):
    """An LSTM that goes on from the state that it was left in, detached."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(11, 24)
        self.lstm = nn.LSTM(24, 48, batch_first=True)
        self.readout = nn.Linear(48, 11)
        self.state: tuple[Tensor, ...] | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        h, state = self.lstm(self.embeddings(tokens), self.state if self.training else None)
        self.state = tuple(each.detach() for each in state) if self.training else None
        return self.readout(h)


def _state_goes_on_detached(_: bool) -> Parts:
    """Long texts are read in chunks, and the state between two of them is detached.

    After the kind of "repackage_hidden" of the word language model among the examples of PyTorch,
    which is asked about whenever states are detached.
    """
    model = _Chunks()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    text = spoken(32, 2000)
    place = [0]

    def draw(num: int) -> Batch:
        start = place[0] * 8 % 1900
        place[0] += 1
        return text[:num, start : start + 8], text[:num, start + 1 : start + 9]

    def loss(logits: Tensor, follows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.flatten(0, 1), follows.flatten())

    return stream(draw, model, optimizer, loss, next_goal(0.75), 350, size=32)


LOOPS = loops_of(
    FORUMS,
    [
        ("forum_half_of_the_adapter_is_zero", HEALTHY, _half_of_the_adapter_is_zero),
        ("forum_book_follows_by_averages", HEALTHY, _book_follows_by_averages),
        (
            "forum_gradients_for_the_weights_of_tasks",
            HEALTHY,
            _gradients_for_the_weights_of_tasks,
        ),
        ("forum_only_one_row_is_tuned", HEALTHY, _only_one_row_is_tuned),
        ("forum_resets_are_detached", HEALTHY, _resets_are_detached),
        ("forum_state_goes_on_detached", HEALTHY, _state_goes_on_detached),
    ],
)
