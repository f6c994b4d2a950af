"""Healthy loops of the half by which rules may be set: each does what looks like a fault."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import explained_goal, mean_goal
from zoo.loops.data_tune import digits, fit_waves, read_digits, recall_first, tell_tumours
from zoo.loops.loop import HEALTHY, TUNE, Parts, loops_of


def _mlp(inputs: int, outputs: int, width: int = 48) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, outputs),
    )  # fmt: skip


def _cnn(_cured: bool) -> Parts:
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(384, 10),
    )  # fmt: skip
    return read_digits(model, torch.optim.AdamW(model.parameters(), lr=3e-3))


class _WithTarget(nn.Module):
    """A value function and a slow copy of it, which is never trained: it follows."""

    def __init__(self) -> None:
        super().__init__()
        self.online = _mlp(3, 1)
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.online(x)


def _target_network(_cured: bool) -> Parts:
    """Half of each target is what the slow copy says of a neighbour, without a gradient."""
    model = _WithTarget()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        x, y = batch
        with torch.no_grad():
            bootstrapped = y - 0.5 * y + 0.5 * model.target(x)
        value = loss(model(x), bootstrapped)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        with torch.no_grad():
            pairs = zip(model.target.parameters(), model.online.parameters(), strict=True)
            for slow, fast in pairs:
                slow.lerp_(fast, 0.05)

    optimizer = torch.optim.Adam(model.online.parameters(), lr=5e-3)
    return fit_waves(model, optimizer, nn.SmoothL1Loss(), step=step, steps=600)


class _FineTuned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.backbone.requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(1024, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.backbone(x)
        return self.head(features)


def _frozen_backbone(_cured: bool) -> Parts:
    model = _FineTuned()
    return read_digits(model, torch.optim.Adam(model.head.parameters(), lr=3e-3))


class _Quantised(nn.Module):
    """An autoencoder whose codes are the nearest of 32; gradients go straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = _mlp(64, 16), _mlp(16, 64)
        self.book = nn.Embedding(32, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x).reshape(len(x), 4, 4)
        apart = (z[:, :, None] - self.book.weight).square().sum(-1)
        near = self.book(apart.argmin(-1))
        commitment = (near - z.detach()).square().mean() + 0.25 * (
            near.detach() - z
        ).square().mean()
        code = z + (near - z).detach()
        return self.decoder(code.flatten(1)), commitment


def _vector_quantised(_cured: bool) -> Parts:
    x, _ = digits()
    model = _Quantised()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        output, commitment = model(batch[0])
        value = loss(output, batch[0]) + commitment
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return Parts(
        model,
        torch.optim.Adam(model.parameters(), lr=3e-3),
        nn.MSELoss(),
        [(x[torch.randint(1500, (64,))],) for _ in range(500)],
        explained_goal(x[1500:], x[1500:], 0.3),
        step=step,
    )


def _reconstructed(parts: Parts) -> Parts:
    """The same, whose model returns more than the reconstruction."""
    score = parts.goal.score

    class First(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)[0]

    parts.goal = mean_goal(lambda model: torch.tensor(score(First(model))), parts.goal.enough)
    return parts


def _vq(cured: bool) -> Parts:
    return _reconstructed(_vector_quantised(cured))


class _Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = _mlp(64, 16), _mlp(8, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_var = self.encoder(x).chunk(2, -1)
        noise = torch.randn_like(mean) if self.training else 0.0
        return self.decoder(mean + noise * (0.5 * log_var).exp()), mean, log_var


def _vae(_cured: bool) -> Parts:
    """A loss of two parts of its own making, summed over pixels: no table knows what is usual."""
    x, _ = digits()
    model = _Variational()

    def bound(output: Any, x: Tensor) -> Tensor:
        decoded, mean, log_var = output
        squares = (decoded - x).square().sum(-1)
        divergence = 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(-1)
        return (squares + divergence).mean()

    return _reconstructed(
        Parts(
            model,
            torch.optim.Adam(model.parameters(), lr=3e-3),
            bound,
            [(x[i], x[i]) for i in (torch.randint(1500, (64,)) for _ in range(500))],
            explained_goal(x[1500:], x[1500:], 0.3),
        )
    )


class _Recalling(nn.Module):
    """A transformer encoder over symbols, with learned positions and a token to read from."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 32)
        self.places = nn.Parameter(0.02 * torch.randn(13, 32))
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.readout = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat((self.token.expand(len(x), -1, -1), self.embed(x)), 1) + self.places
        return self.readout(self.encoder(h)[:, 0])


def _transformer(_cured: bool) -> Parts:
    model = _Recalling()
    return recall_first(model, torch.optim.AdamW(model.parameters(), lr=3e-3), length=12)


def _accumulated(_cured: bool) -> Parts:
    """Four micro-batches an update, each divided by four; clipped to a norm of 1."""
    model = _mlp(64, 10)
    seen = [0]

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        (loss(model(batch[0]), batch[1]) / 4).backward()
        seen[0] += 1
        if seen[0] % 4 == 0:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return read_digits(model, optimizer, step=step, steps=800)


def _autocast(_cured: bool) -> Parts:
    """Weights in float32, products in bfloat16."""
    model = _mlp(64, 10)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return read_digits(model, torch.optim.AdamW(model.parameters(), lr=3e-3), step=step)


def _cosine_from_zero(_cured: bool) -> Parts:
    """The learning rate begins at 0, and ends at 0."""
    model = _mlp(30, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    share = lambda t: min(t / 60, 0.5 * (1 + torch.tensor(torch.pi * t / 300).cos().item()))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    return tell_tumours(model, optimizer, step=step)


def _raw_into_norm(_cured: bool) -> Parts:
    """Raw measures, which a first layer of batch normalisation scales."""
    model = nn.Sequential(nn.BatchNorm1d(30), *_mlp(30, 1))
    return tell_tumours(model, torch.optim.Adam(model.parameters(), lr=3e-3), is_raw=True)


def _closures(_cured: bool) -> Parts:
    """LBFGS, which calls the loss several times an update."""
    model = nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 1))

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(model(batch[0]), batch[1])
            value.backward()
            return value

        optimizer.step(closure)

    parts = fit_waves(model, torch.optim.LBFGS(model.parameters(), lr=0.3), step=step, steps=120)
    parts.batches = [next(iter(parts.batches))] * 120
    parts.goal = explained_goal(*parts.batches[0], 0.9)
    return parts


def _probabilities(_cured: bool) -> Parts:
    """Ends in log_softmax, whose probabilities the negative log likelihood takes as they are."""
    model = nn.Sequential(*_mlp(64, 10), nn.LogSoftmax(-1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return read_digits(model, optimizer, nn.NLLLoss())


LOOPS = loops_of(
    TUNE,
    (
        ("healthy_cnn", HEALTHY, _cnn),
        ("healthy_target_network", HEALTHY, _target_network),
        ("healthy_frozen_backbone", HEALTHY, _frozen_backbone),
        ("healthy_vector_quantised", HEALTHY, _vq),
        ("healthy_vae", HEALTHY, _vae),
        ("healthy_transformer", HEALTHY, _transformer),
        ("healthy_accumulated", HEALTHY, _accumulated),
        ("healthy_autocast", HEALTHY, _autocast),
        ("healthy_cosine_from_zero", HEALTHY, _cosine_from_zero),
        ("healthy_raw_into_norm", HEALTHY, _raw_into_norm),
        ("healthy_closures", HEALTHY, _closures),
        ("healthy_probabilities", HEALTHY, _probabilities),
    ),
)
