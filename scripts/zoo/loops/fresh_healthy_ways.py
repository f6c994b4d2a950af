"""Healthy loops of the fresh set: networks that look odd, and losses that do not fall."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import batches_of, mean_goal
from zoo.loops.fresh_data import classify, customers, pendulum, regress, spirals, spots, stripes
from zoo.loops.fresh_nets import mlp
from zoo.loops.loop import FRESH, HEALTHY, Parts, loops_of


class _Patches(nn.Module):
    """Images in patches, a class token, and two pre-norm layers of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        self.place = nn.Parameter(0.02 * torch.randn(1, 10, 32))
        self.layers = nn.Sequential(
            *[
                nn.TransformerEncoderLayer(
                    32, 4, 64, 0.1, "gelu", batch_first=True, norm_first=True
                )
                for _ in range(2)
            ]
        )
        self.norm, self.readout = nn.LayerNorm(32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.token.expand(len(x), -1, -1), patches), 1)
        return self.readout(self.norm(self.layers(tokens + self.place)[:, 0]))


def _patches(_cured: bool) -> Parts:
    """A small ViT with a warm-up, label smoothing, and a loss that stays above 0.3."""
    model = _Patches()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=30)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    return classify(stripes(), model, optimizer, loss, enough=0.8, step=step)


class _Skips(nn.Module):
    """A small U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.deep = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(16, 8, 2, 2),
        )
        self.up = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.down(x)
        return self.up(torch.cat((h, self.deep(h)), 1))


def _cleaned_spots(_cured: bool) -> Parts:
    """A U-Net takes the noise off images."""
    images = spots()
    noisy = images + 0.5 * torch.randn_like(images)
    model = _Skips()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return regress((noisy, images), model, optimizer, nn.L1Loss(), enough=0.5)


def _views(_cured: bool) -> Parts:
    """Two noisy views of a row have to find each other, at a temperature of 0.07."""
    x, _ = customers()

    def noisy(rows: Tensor) -> Tensor:
        return rows + 0.5 * torch.randn_like(rows)

    def similar(one: Tensor, two: Tensor) -> Tensor:
        normal = nn.functional.normalize
        return normal(one, dim=1) @ normal(two, dim=1).T / 0.07

    def loss(one: Tensor, two: Tensor) -> Tensor:
        scores, own = similar(one, two), torch.arange(len(one))
        cross = nn.functional.cross_entropy
        return (cross(scores, own) + cross(scores.T, own)) / 2

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(noisy(batch[0])), model(noisy(batch[0])))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    def score(model: nn.Module) -> Tensor:
        rows = x[-300:]
        found = similar(model(noisy(rows)), model(noisy(rows))).argmax(1)
        return (found == torch.arange(300)).float().mean()

    model = mlp(16, 64, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    batches = batches_of(x[:-300], x[:-300], 400)
    return Parts(model, optimizer, loss, batches, mean_goal(score, 0.5), step=step)


class _Scaled(nn.Module):
    """x + a f(x), where a begins at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = mlp(width, width, width)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.branch(x)


def _scales_of_zero(_cured: bool) -> Parts:
    """Thirty residual blocks, each of which begins as the identity; so does the read-out at 0."""
    last = nn.Linear(24, 5)
    nn.init.zeros_(last.weight)
    model = nn.Sequential(nn.Linear(16, 24), *[_Scaled(24) for _ in range(30)], last)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return classify(customers(), model, optimizer, enough=0.65, steps=150)


class _Waves(nn.Module):
    """Random sines of the inputs, fixed for good, and a read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 200).requires_grad_(False)
        nn.init.normal_(self.first.weight, 0, 2.0)
        nn.init.uniform_(self.first.bias, 0, 2 * math.pi)
        self.readout = nn.Linear(200, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.first(x).cos())


def _random_features(_cured: bool) -> Parts:
    """Random features: the layer below is frozen, and should be."""
    model = _Waves()
    wanted = [each for each in model.parameters() if each.requires_grad]
    return classify(spirals(), model, torch.optim.Adam(wanted, lr=0.02), enough=0.85, steps=300)


class _Blocks(nn.Module):
    """A graph of 300 nodes in three groups: each layer takes the mean of a node's neighbours."""

    def __init__(self, adjacency: Tensor) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency)
        self.first, self.last = nn.Linear(300, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.adjacency
        return mean @ self.last((mean @ self.first(x)).relu())


def _few_nodes(_cured: bool) -> Parts:
    """A graph net, all nodes at each update, of which 30 have labels; the loss goes to 0."""
    group = torch.arange(300) % 3
    same = group[:, None] == group[None]
    edges = (torch.rand(300, 300) < torch.where(same, 0.06, 0.01)).triu(1).float()
    edges = edges + edges.T + torch.eye(300)
    model = _Blocks(edges / edges.sum(1, keepdim=True))
    x = torch.eye(300)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output[:30], y[:30])

    def score(model: nn.Module) -> Tensor:
        return (model(x)[30:].argmax(1) == group[30:]).float().mean()

    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=5e-4)
    batches = ((x, group) for _ in range(200))
    return Parts(model, optimizer, loss, batches, mean_goal(score, 0.7), num_classes=3)


class _Critics(nn.Module):
    """A maker of points, and a critic whose weights are clamped."""

    def __init__(self) -> None:
        super().__init__()
        self.maker, self.critic = mlp(4, 32, 32, 2), mlp(2, 48, 48, 1)
        self.other = torch.optim.RMSprop(self.critic.parameters(), lr=3e-3)

    def forward(self, noise: Tensor) -> Tensor:
        return self.maker(noise)


def _critics(_cured: bool) -> Parts:
    """A Wasserstein GAN, whose loss means nothing by itself: points move to their place."""
    model = _Critics()
    noise = torch.randn(400, 4)

    def loss(made: Tensor) -> Tensor:
        return -model.critic(made).mean()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        for _ in range(3):
            real, made = 2 + 0.3 * torch.randn(64, 2), model.maker(batch[0]).detach()
            worse = model.critic(made).mean() - model.critic(real).mean()
            model.other.zero_grad()
            worse.backward()
            model.other.step()
            with torch.no_grad():
                for each in model.critic.parameters():
                    each.clamp_(-0.2, 0.2)
        value = loss(model(batch[0]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    def score(model: nn.Module) -> Tensor:
        return (model(noise).mean(0) - 2).norm()

    optimizer = torch.optim.RMSprop(model.maker.parameters(), lr=2e-3)
    batches = ((torch.randn(64, 4),) for _ in range(250))
    return Parts(model, optimizer, loss, batches, mean_goal(score, 0.8, higher=False), step=step)


def _rounded_weights(_cured: bool) -> Parts:
    """Weights in eight levels in the forward pass, whose gradient goes straight through."""

    class Rounded(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            level = self.weight.detach().abs().max() / 4
            rounded = (self.weight / level).round() * level
            weight = self.weight + (rounded - self.weight).detach()
            return nn.functional.linear(x, weight, self.bias)

    model = nn.Sequential(Rounded(3, 48), nn.Tanh(), Rounded(48, 48), nn.Tanh(), Rounded(48, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return regress(pendulum(), model, optimizer, enough=0.6, steps=400)


def _large_rate(_cured: bool) -> Parts:
    """A large rate that is right: one linear layer of normalised rows, by SGD at 2."""
    x, kind = customers()
    rows = nn.functional.normalize(x, dim=1)
    model = nn.Linear(16, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    return classify((rows, kind), model, optimizer, enough=0.5)


LOOPS = loops_of(
    FRESH,
    [
        ("fresh_healthy_patches", HEALTHY, _patches),
        ("fresh_healthy_cleaned_spots", HEALTHY, _cleaned_spots),
        ("fresh_healthy_views", HEALTHY, _views),
        ("fresh_healthy_scales_of_zero", HEALTHY, _scales_of_zero),
        ("fresh_healthy_random_features", HEALTHY, _random_features),
        ("fresh_healthy_few_nodes", HEALTHY, _few_nodes),
        ("fresh_healthy_critics", HEALTHY, _critics),
        ("fresh_healthy_rounded_weights", HEALTHY, _rounded_weights),
        ("fresh_healthy_large_rate", HEALTHY, _large_rate),
    ],
)
