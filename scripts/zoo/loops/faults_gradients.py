"""Sick loops of the set `faults`: graphs that are cut, gradients cleared too early or never."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, mean_goal
from zoo.loops.faults_data import (
    digits,
    explained,
    fit,
    mlp,
    prices,
    right,
    stream,
    waves,
)
from zoo.loops.loop import FAULTS, Batch, Goal, Parts, loops_of


def _loss_of_items(cured: bool) -> Parts:
    """Losses of tasks are collected with `.item()` and made a tensor again.

    Humbatova et al. 2020, Loss function, "wrong loss function calculation"; `requires_grad_` hides
    the error that PyTorch would raise. Ten digits and their parity from one trunk.
    """
    data = digits()
    model = mlp(64, 48, 12)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        output = model(batch[0])
        losses = [loss(output[:, :10], batch[1]), loss(output[:, 10:], batch[1] % 2)]
        if cured:
            total = torch.stack(losses).sum()
        else:
            total = torch.tensor([each.item() for each in losses]).sum().requires_grad_()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    def value(model: nn.Module) -> Tensor:
        x, y = data[1]
        return (model(x)[:, :10].argmax(1) == y).float().mean()

    loss = nn.CrossEntropyLoss()
    return fit(data, model, optimizer, loss, mean_goal(value, 0.85), steps=250, step=step)


class _Spectral(nn.Module):
    """Convolutions, then features that scientific code makes of their output in NumPy."""

    def __init__(self, *, in_numpy: bool) -> None:
        super().__init__()
        self.encoder = mlp(8, 24, 2)
        self.decoder = mlp(4, 24, 1)
        self.in_numpy = in_numpy

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x)
        if self.in_numpy:
            squared = torch.from_numpy(h.detach().cpu().numpy() ** 2)
            h = torch.from_numpy(h.detach().cpu().numpy())
        else:
            squared = h**2
        return self.decoder(torch.cat((h, squared), 1))[:, 0]


def _through_numpy(cured: bool) -> Parts:
    """The code between two networks goes through NumPy and back.

    Islam et al. 2019, a data flow bug; Zhang et al. 2018, confusion with the computation model.
    """
    data = prices()
    model = _Spectral(in_numpy=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.75), steps=700)


class _Quantise(torch.autograd.Function):
    """Rounds to eighths; `slope` is what is sent back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.slope = slope
        return (8 * x).round() / 8

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.slope * grads[0], None


class _Quantised(nn.Module):
    """An autoencoder whose code is quantised."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 48, 10), mlp(10, 48, 64)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(_Quantise.apply(self.encoder(x).tanh(), self.slope))


def _backward_of_zeros(cured: bool) -> Parts:
    """The `backward` of a custom rounding is the true derivative, which is 0 everywhere.

    defects4ML, a wrong gradient of a custom operation; Islam et al. 2019, a logic bug.
    """
    (x, _), (x_test, _) = digits()
    data = (x, x), (x_test, x_test)
    model = _Quantised(1.0 if cured else 0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.6), steps=350)


class _Siamese(nn.Module):
    """Both sides of a pair go through `embed`, which was written for inference."""

    def __init__(self, *, for_inference: bool) -> None:
        super().__init__()
        self.encoder = mlp(64, 48, 6)
        self.compare = nn.Linear(6, 1)
        self.for_inference = for_inference

    def embed(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(not self.for_inference):
            return self.encoder(x)

    def forward(self, pair: Tensor) -> Tensor:
        return self.compare((self.embed(pair[:, 0]) - self.embed(pair[:, 1])).abs())[:, 0]


def _pairs(x: Tensor, y: Tensor, num: int) -> Batch:
    """Half of the pairs (N, 2, 64) are of one class."""
    first = torch.randint(len(x), (num,))
    second = torch.randint(len(x), (num,))
    for k in range(0, num, 2):
        same = (y == y[first[k]]).nonzero()[:, 0]
        second[k] = same[torch.randint(len(same), ())]
    return torch.stack((x[first], x[second]), 1), (y[first] == y[second]).float()


def _embed_of_inference(cured: bool) -> Parts:
    """The training calls `embed`, which computes without gradient.

    Zhang et al. 2018, API misuse; Humbatova et al. 2020, API, "wrong API usage".
    """
    train, test = digits()
    data = _pairs(*train, 3000), _pairs(*test, 800)
    model = _Siamese(for_inference=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def score(model: nn.Module) -> float:
        x, y = data[1]
        return float(((model(x) > 0).float() == y).float().mean())

    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, Goal(score, 0.78), steps=500)


class _Adapted(nn.Module):
    """A body that is called with weights of its own making (`functional_call`), and a head."""

    def __init__(self, *, detaches: bool) -> None:
        super().__init__()
        self.body, self.head = mlp(64, 48, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 10))
        self.detaches = detaches

    def forward(self, x: Tensor) -> Tensor:
        weights = {}
        for name, weight in self.body.named_parameters():
            weights[name] = weight.detach().clone() if self.detaches else weight.clone()
        return self.head(torch.func.functional_call(self.body, weights, (x,)))


def _functional_copies(cured: bool) -> Parts:
    """The body is called with `weight.detach().clone()` of each weight, as for a snapshot.

    Zhang et al. 2018, API misuse; Islam et al. 2019, a data flow bug. Fast weights, as in
    meta-learning.
    """
    data = digits()
    model = _Adapted(detaches=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), steps=400)


class _HandVae(nn.Module):
    """A variational autoencoder of digits; returns the picture, the mean and the log-variance."""

    def __init__(self, *, is_open: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 48, 16), mlp(8, 48, 64)
        self.is_open = is_open

    def forward(self, x: Tensor) -> Tensor:
        mean, log_var = self.encoder(x).chunk(2, 1)
        if self.training:
            drawn = torch.distributions.Normal(mean, (log_var / 2).exp())
            z = drawn.rsample() if self.is_open else drawn.sample()
        else:
            z = mean
        return torch.cat((self.decoder(z), mean, log_var), 1)


def _sample_for_rsample(cured: bool) -> Parts:
    """A variational autoencoder draws by `sample`, which cuts the graph, and not by `rsample`.

    Zhang et al. 2018 and defects4ML, API misuse.
    """
    (x, _), (x_test, _) = digits()
    data = (x, x), (x_test, x_test)
    model = _HandVae(is_open=cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def bound(output: Tensor, x: Tensor) -> Tensor:
        picture, mean, log_var = output.split((64, 8, 8), 1)
        apart = 20 * (picture - x).square().sum(1)
        divergence = (mean.square() + log_var.exp() - 1 - log_var).sum(1) / 2
        return (apart + divergence).mean()

    def score(model: nn.Module) -> float:
        return float(1 - (model(x_test)[:, :64] - x_test).square().mean() / x_test.var(0).mean())

    return fit(data, model, optimizer, bound, Goal(score, 0.4), steps=400)


def _memory_freed_too_early(cured: bool) -> Parts:
    """Gradients are set to None "to save memory" before the optimizer reads them.

    Humbatova et al. 2020, Training process, "wrong management of memory resources". The gradient's
    norm is noted on the way; a convolution over signals.
    """
    model = nn.Sequential(
        nn.Conv1d(1, 12, 5, padding=2),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Conv1d(12, 12, 5, padding=2),
        nn.ReLU(),
        nn.AdaptiveMaxPool1d(1),
        nn.Flatten(),
        nn.Linear(12, 3),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    norms: list[float] = []

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        loss(model(batch[0]), batch[1]).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 5.0)))
        if not cured:
            model.zero_grad(set_to_none=True)
        optimizer.step()
        model.zero_grad(set_to_none=True)

    goal = accuracy_goal(*waves(300), 0.85)
    return stream(waves, model, optimizer, nn.CrossEntropyLoss(), goal, steps=200, step=step)


class _TwoParts(nn.Module):
    """Convolutions, and a classifier behind."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.classifier = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.encoder(x).flatten(1))


def _other_optimizer_cleared(cured: bool) -> Parts:
    """Of two optimizers the same is cleared twice; gradients of the other add up.

    NeuraLint, "gradients are not cleared"; Islam et al. 2019, a logic bug by copy and paste.
    """
    data = digits(as_images=True)
    model = _TwoParts()
    of_encoder = torch.optim.SGD(model.encoder.parameters(), lr=0.05, momentum=0.9)
    of_classifier = torch.optim.SGD(model.classifier.parameters(), lr=0.05, momentum=0.9)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        of_classifier.zero_grad()
        (optimizer if cured else of_classifier).zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        optimizer.step()
        of_classifier.step()

    loss = nn.CrossEntropyLoss()
    return fit(data, model, of_encoder, loss, right(data, 0.85), steps=350, step=step)


def _cleared_once(cured: bool) -> Parts:
    """`zero_grad` stands before the loop over batches, and accumulation hides that.

    NeuraLint, "gradients are not cleared"; Humbatova et al. 2020, API, "missing API call".
    """
    data = prices()
    model = mlp(8, 32, 32, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    count = [0]

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        count[0] += 1
        (loss(model(batch[0])[:, 0], batch[1]) / 2).backward()
        if count[0] % 2 == 0:
            optimizer.step()
            if cured:
                optimizer.zero_grad()

    goal = explained(data, 0.7)
    return fit(data, model, optimizer, nn.MSELoss(), goal, steps=800, size=32, step=step)


LOOPS = loops_of(
    FAULTS,
    [
        ("faults_loss_of_items", "graph_cut", _loss_of_items),
        ("faults_through_numpy", "graph_cut", _through_numpy),
        ("faults_backward_of_zeros", "graph_cut", _backward_of_zeros),
        ("faults_embed_of_inference", "graph_cut", _embed_of_inference),
        ("faults_functional_copies", "graph_cut", _functional_copies),
        ("faults_sample_for_rsample", "graph_cut", _sample_for_rsample),
        ("faults_memory_freed_too_early", "gradient_cleared", _memory_freed_too_early),
        ("faults_other_optimizer_cleared", "gradient_kept", _other_optimizer_cleared),
        ("faults_cleared_once", "gradient_kept", _cleared_once),
    ],
)
