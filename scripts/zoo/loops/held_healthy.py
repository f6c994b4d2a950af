"""Healthy loops of the half that is only reported: each does what looks like a fault."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.loops.batches import mean_goal
from zoo.loops.data_held import (
    count_on,
    follow_patients,
    forecast,
    mark_shapes,
    name_shapes,
    name_wines,
    patients,
    shapes,
)
from zoo.loops.loop import HEALTHY, HELD, Goal, Parts, loops_of
from zoo.loops.nets_held import Counter, Forecaster, Marker, conv_net


def _tied(_cured: bool) -> Parts:
    """A transformer whose read-out is its embedding."""
    model = Counter(is_tied=True)
    return count_on(model, torch.optim.AdamW(model.parameters(), lr=3e-3))


class _Checkpointed(nn.Module):
    """Blocks that are computed again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU())
            for _ in range(3)
        )
        self.readout = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = h + checkpoint(block, h, use_reentrant=False)
        return self.readout(h.mean((2, 3)))


def _checkpointed(_cured: bool) -> Parts:
    model = _Checkpointed()
    return name_shapes(model, torch.optim.AdamW(model.parameters(), lr=4e-3), steps=150)


class _Adapted(nn.Module):
    """A frozen layer and a product of two narrow ones beside it, of which one begins at 0."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 6, bias=False)
        self.up = nn.Linear(6, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def _adapters(_cured: bool) -> Parts:
    """Low-rank adapters beside frozen layers; the read-out is trained."""
    model = nn.Sequential(
        _Adapted(nn.Linear(13, 64)),
        nn.Tanh(),
        _Adapted(nn.Linear(64, 64)),
        nn.Tanh(),
        nn.Linear(64, 3),
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    return name_wines(model, torch.optim.Adam(trained, lr=5e-3))


class _TwoViews(nn.Module):
    """An encoder, a predictor, and a slow copy of the encoder that gives the targets."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = conv_net(last=16)
        self.predictor = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
        self.teacher = copy.deepcopy(self.encoder)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


def _teacher(_cured: bool) -> Parts:
    """Each noisy view has to find its other one among 48, as a slow teacher codes them."""
    x, _, _ = shapes()
    model = _TwoViews()

    def similar(one: Tensor, two: Tensor) -> Tensor:
        return 5 * nn.functional.normalize(one, dim=-1) @ nn.functional.normalize(two, dim=-1).T

    def loss(said: Tensor, wanted: Tensor) -> Tensor:
        return nn.functional.cross_entropy(similar(said, wanted), torch.arange(len(said)))

    def noisy(images: Tensor) -> Tensor:
        return images + 0.3 * torch.randn_like(images)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        with torch.no_grad():
            wanted = model.teacher(noisy(batch[0]))
        value = loss(model.predictor(model(noisy(batch[0]))), wanted)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        with torch.no_grad():
            pairs = zip(model.teacher.parameters(), model.encoder.parameters(), strict=True)
            for slow, fast in pairs:
                slow.lerp_(fast, 0.02)

    def score(model: nn.Module) -> float:
        found = similar(model.predictor(model(noisy(x[1000:]))), model.teacher(noisy(x[1000:])))
        return float((found.argmax(-1) == torch.arange(200)).float().mean())

    batches = ((x[torch.randint(1000, (48,))],) for _ in range(300))
    trained = [*model.encoder.parameters(), *model.predictor.parameters()]
    optimizer = torch.optim.Adam(trained, lr=3e-3)
    return Parts(model, optimizer, loss, batches, Goal(score, 0.05), step=step)


class _Routed(nn.Module):
    """Sends each row to one of three experts, the one whose gate is largest."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(13, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(13, 24), nn.ReLU(), nn.Linear(24, 3)) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        share, chosen = self.gate(x).softmax(-1).max(-1)
        said = x.new_zeros(len(x), 3)
        for i, expert in enumerate(self.experts):
            mine = chosen == i
            if mine.any():
                said[mine] = expert(x[mine])
        return said * share[:, None]


def _experts(_cured: bool) -> Parts:
    model = _Routed()
    return name_wines(model, torch.optim.Adam(model.parameters(), lr=5e-3))


def _brain(_cured: bool) -> Parts:
    """Weights in bfloat16, inputs too."""
    model = nn.Sequential(nn.Linear(13, 48), nn.GELU(), nn.Linear(48, 3)).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    parts = name_wines(model, optimizer, lambda z, y: nn.functional.cross_entropy(z.float(), y))
    parts.batches = ((x.bfloat16(), y) for x, y in parts.batches)
    score = parts.goal.score

    def in_float32(model: nn.Module) -> Tensor:
        value = score(model.float())
        model.bfloat16()
        return torch.tensor(value)

    parts.goal = mean_goal(in_float32, 0.9)
    return parts


def _dice(_cured: bool) -> Parts:
    """One minus the overlap of masks, which begins at 0.8 and never reaches 0."""

    def dice(output: Tensor, mask: Tensor) -> Tensor:
        p = output.sigmoid()
        both = (p * mask).sum((1, 2, 3))
        return 1 - ((2 * both + 1) / ((p + mask).sum((1, 2, 3)) + 1)).mean()

    model = Marker()
    return mark_shapes(model, torch.optim.Adam(model.parameters(), lr=5e-3), dice, enough=0.4)


def _counts(_cured: bool) -> Parts:
    """Counts, by a Poisson likelihood of a logarithm; the loss goes below 0."""
    model = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 1))
    x, y = patients()
    counts = (2 + y).exp().round().clamp_max(60)
    parts = follow_patients(
        model, torch.optim.Adam(model.parameters(), lr=5e-3), nn.PoissonNLLLoss()
    )

    def score(model: nn.Module) -> float:
        likelihood = nn.PoissonNLLLoss()
        guess = likelihood(counts.mean().log().expand_as(counts), counts)
        return float(guess - likelihood(model(x), counts))

    picks = (torch.randint(len(x), (64,)) for _ in range(400))
    parts.batches = ((x[i], counts[i]) for i in picks)
    parts.goal = Goal(score, 1.0)
    return parts


def _positive(_cured: bool) -> Parts:
    """ReLU behind the read-out, of targets that are never below 0."""
    model = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 1), nn.ReLU())
    nn.init.constant_(model[2].bias, 0.5)
    x, y = patients()
    amounts = (y + 2).clamp_min(0)
    parts = follow_patients(model, torch.optim.Adam(model.parameters(), lr=5e-3))
    picks = (torch.randint(len(x), (64,)) for _ in range(300))
    parts.batches = ((x[i], amounts[i]) for i in picks)

    def score(model: nn.Module) -> float:
        return float(1 - (model(x) - amounts).square().mean() / amounts.var())

    parts.goal = Goal(score, 0.3)
    return parts


def _clipped(_cured: bool) -> Parts:
    """A recurrence that is clipped to a norm of 0.5, at most steps in the beginning."""
    model = Forecaster()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()

    return forecast(model, torch.optim.Adam(model.parameters(), lr=0.01), step=step)


def _denoised(_cured: bool) -> Parts:
    """Predicts the noise in an image: much of the loss stays for good."""
    x, _, _ = shapes()
    model = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.SiLU(), nn.Conv2d(24, 24, 3, padding=1), nn.SiLU(),
        nn.Conv2d(24, 1, 3, padding=1),
    )  # fmt: skip
    held = torch.randn(200, 1, 12, 12)

    def score(model: nn.Module) -> float:
        return float(1 - (model(x[1000:] + held) - held).square().mean())

    def noisy() -> Any:
        for _ in range(250):
            clean = x[torch.randint(1000, (32,))]
            noise = torch.randn_like(clean)
            yield clean + noise, noise

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return Parts(model, optimizer, nn.MSELoss(), noisy(), Goal(score, 0.5))


class _Rivals(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.maker = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 1))
        self.judge = nn.Sequential(nn.Linear(1, 24), nn.LeakyReLU(0.2), nn.Linear(24, 1))
        self.other = torch.optim.Adam(self.judge.parameters(), lr=4e-3)

    def forward(self, noise: Tensor) -> Tensor:
        return self.maker(noise)


def _rivals(_cured: bool) -> Parts:
    """A GAN in balance: neither loss falls, and what is made moves to where it should be."""
    model = _Rivals()
    criterion = nn.BCEWithLogitsLoss()

    def loss(made: Tensor) -> Tensor:
        score = model.judge(made)
        return criterion(score, torch.ones_like(score))

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        real, made = 3 + 0.5 * torch.randn(64, 1), model.maker(batch[0]).detach()
        right, wrong = model.judge(real), model.judge(made)
        value = criterion(right, torch.ones_like(right)) + criterion(wrong, torch.zeros_like(wrong))
        model.other.zero_grad()
        value.backward()
        model.other.step()
        value = loss(model(batch[0]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    noise = torch.randn(500, 4)
    goal = mean_goal(lambda m: (m(noise).mean() - 3).abs(), 1.0, higher=False)
    optimizer = torch.optim.Adam(model.maker.parameters(), lr=4e-3)
    return Parts(
        model, optimizer, loss, ((torch.randn(64, 4),) for _ in range(400)), goal, step=step
    )


LOOPS = loops_of(
    HELD,
    (
        ("held_healthy_tied", HEALTHY, _tied),
        ("held_healthy_checkpointed", HEALTHY, _checkpointed),
        ("held_healthy_adapters", HEALTHY, _adapters),
        ("held_healthy_teacher", HEALTHY, _teacher),
        ("held_healthy_experts", HEALTHY, _experts),
        ("held_healthy_bfloat16", HEALTHY, _brain),
        ("held_healthy_dice", HEALTHY, _dice),
        ("held_healthy_counts", HEALTHY, _counts),
        ("held_healthy_positive", HEALTHY, _positive),
        ("held_healthy_clipped", HEALTHY, _clipped),
        ("held_healthy_denoised", HEALTHY, _denoised),
        ("held_healthy_rivals", HEALTHY, _rivals),
    ),
)
