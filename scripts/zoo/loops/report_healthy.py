"""Healthy loops of the set `reports`: what people asked about, and what was as it should be."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import mean_goal
from zoo.loops.loop import HEALTHY, REPORTS, Batch, Parts, loops_of, usual_step
from zoo.loops.report_data import (
    arms,
    bandit,
    digits,
    explained,
    fit,
    language,
    mlp,
    next_token_goal,
    next_token_loss,
    recall,
    right,
    stream,
    tells,
)
from zoo.loops.report_nets import Denoiser, GruModel, conv_net, denoising_goal, noised

# ---------------------------------------------------------------- losses that look stuck


def _plateau(_: bool) -> Parts:
    """The product of three signs: the loss stays at guessing for a while, and then falls.

    After the kind of "loss does not decrease" threads where more patience was the answer.
    """

    def draw(num: int) -> Batch:
        x = torch.randint(2, (num, 6)).float() * 2 - 1
        return x, (x[:, :3].prod(1, keepdim=True) > 0).float()

    model = mlp(6, 48, 1, act=nn.Tanh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.15, momentum=0.9)
    x, y = draw(300)
    goal = mean_goal(lambda model: ((model(x) > 0).float() == y).float().mean(), 0.95)
    return stream(draw, model, optimizer, nn.BCEWithLogitsLoss(), goal, steps=600)


def _noise_is_predicted(_: bool) -> Parts:
    """A diffusion model's loss hovers, since noise cannot be told in full.

    GitHub PRBonn/LiDiff, issue #27 ("the loss stuck at around 0.9, but the results kept
    improving"): "This is the normal behavior for the diffusion loss during training."
    """
    model = Denoiser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    goal = denoising_goal(0.6)
    return stream(noised, model, optimizer, nn.MSELoss(), goal, steps=400, size=16)


def _contrast_from_log_n(_: bool) -> Parts:
    """A contrastive loss starts at log N and ends well above 0.

    After the kind of questions why InfoNCE "starts at log(N)" and stays high.
    """
    (x, _y), _kept = digits()
    model = mlp(64, 96, 24)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def draw(num: int) -> Batch:
        rows = x[torch.randint(len(x), (num,))]
        one, two = (
            rows * (torch.rand_like(rows) > 0.3) + 0.1 * torch.randn_like(rows) for _ in range(2)
        )
        return one, two

    def loss(first: Tensor, second: Tensor) -> Tensor:
        logits = nn.functional.normalize(first) @ nn.functional.normalize(second).T / 0.2
        return nn.functional.cross_entropy(logits, torch.arange(len(logits)))

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), model(batch[1]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    one, two = draw(128)

    def value(model: nn.Module) -> Tensor:
        said, meant = nn.functional.normalize(model(one)), nn.functional.normalize(model(two))
        return ((said @ meant.T).argmax(1) == torch.arange(128)).float().mean()

    return stream(draw, model, optimizer, loss, mean_goal(value, 0.2), steps=300, step=step)


def _smoothed_labels(_: bool) -> Parts:
    """Labels smoothed by 0.5: the least loss that there is is 1.4 of 2.3.

    After the kind of questions why a loss with label smoothing does not go to 0.
    """
    data = digits(as_images=True)
    model = conv_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    loss = nn.CrossEntropyLoss(label_smoothing=0.5)
    return fit(data, model, optimizer, loss, right(data, 0.85), steps=250)


def _triplets_at_the_margin(_: bool) -> Parts:
    """The loss of hard triplets stays near its margin for long, and gets off it.

    GitHub omoindrot/tensorflow-triplet-loss, issue #6: "it's totally normal that the loss doesn't
    decrease", if not at exactly the margin.
    """
    data = digits()
    model = mlp(64, 64, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def loss(h: Tensor, y: Tensor) -> Tensor:
        apart = ((h[:, None] - h[None]).square().sum(2) + 1e-8).sqrt()
        same = y[:, None] == y[None]
        triplets = (apart[:, :, None] - apart[:, None, :] + 0.5).relu()
        is_hard = same[:, :, None] & ~same[:, None, :] & (triplets > 1e-6)
        return (triplets * is_hard).sum() / is_hard.sum().clamp_min(1)

    (x, y), (shown, labels) = data

    def value(model: nn.Module) -> Tensor:
        near = torch.cdist(model(shown), model(x[:300]))
        return (y[:300][near.argmin(1)] == labels).float().mean()

    return fit(data, model, optimizer, loss, mean_goal(value, 0.88), steps=250, size=40)


def _rare_events(_: bool) -> Parts:
    """Two of a hundred are positive: the loss is small from the start.

    After the kind of questions about imbalanced data whose loss "is already 0.1".
    """
    x = torch.randn(3000, 5)
    score = x[:, 0] * x[:, 1] + x[:, 2]
    y = (score > 2.4).float()[:, None]
    model = mlp(5, 32, 32, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    shown, labels = x[-1000:], y[-1000:]

    def value(model: nn.Module) -> Tensor:
        order = model(shown)[:, 0].argsort(descending=True)
        count = int(labels.sum())
        return labels[order[:count]].mean()

    data = ((x[:-1000], y[:-1000]), (shown, labels))
    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, mean_goal(value, 0.6), steps=500, size=128)


def _noisy_rewards(_: bool) -> Parts:
    """The loss of a policy gradient is noise around 0, and the policy learns.

    After the kind of questions why the loss of REINFORCE "does not decrease".
    """
    model = mlp(6, 48, 4, act=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def loss(logits: Tensor, played: tuple[Tensor, Tensor]) -> Tensor:
        action, reward = played
        log_p = logits.log_softmax(1).gather(1, action[:, None])[:, 0]
        return -(log_p * (reward - reward.mean())).mean()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        x, best = batch
        logits = model(x)
        action = torch.distributions.Categorical(logits=logits.detach()).sample()
        reward = (action == best).float() + torch.randn(len(x))
        value = loss(logits, (action, reward))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    x, best = bandit(500)
    goal = mean_goal(lambda model: (model(x).argmax(1) == best).float().mean(), 0.55)
    return stream(bandit, model, optimizer, loss, goal, steps=500, size=128, step=step)


class _Gan(nn.Module):
    """Called as the generator; holds the discriminator and what steps it."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = mlp(4, 32, 32, 2)
        self.discriminator = mlp(2, 32, 32, 1, act=lambda: nn.LeakyReLU(0.2))
        self.steps = torch.optim.Adam(self.discriminator.parameters(), lr=2e-3, betas=(0.5, 0.99))

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)


def _two_losses_that_stay(_: bool) -> Parts:
    """A GAN that works: neither loss falls.

    After the kind of soumith/ganhacks, issue #36, where a discriminator's loss of 0 is the failure,
    and one that stays is not.
    """
    model = _Gan()
    optimizer = torch.optim.Adam(model.generator.parameters(), lr=1e-3, betas=(0.5, 0.99))
    bce = nn.functional.binary_cross_entropy_with_logits

    def draw(num: int) -> Batch:
        return torch.randn(num, 4), torch.tensor([2.5, -1.5]) + 0.5 * torch.randn(num, 2)

    def fooled(fake: Tensor, _: Tensor) -> Tensor:
        logit = model.discriminator(fake)
        return bce(logit, torch.ones_like(logit))

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        noise, real = batch
        right, wrong = model.discriminator(real), model.discriminator(model(noise).detach())
        value = bce(right, torch.ones_like(right)) + bce(wrong, torch.zeros_like(wrong))
        model.steps.zero_grad()
        value.backward()
        model.steps.step()
        value = loss(model(noise), real)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    def value(model: Any) -> Tensor:
        noise, real = draw(400)
        return (model(noise).mean(0) - real.mean(0)).norm()

    goal = mean_goal(value, 0.9, higher=False)
    return stream(draw, model, optimizer, fooled, goal, steps=600, step=step)


# ---------------------------------------------------------------- wiring on purpose


def _trained(model: nn.Module, steps: int, *, lr: float = 3e-3) -> None:
    (x, y), _ = digits()
    before = torch.optim.Adam(model.parameters(), lr=lr)
    for _step in range(steps):
        index = torch.randint(len(x), (64,))
        usual_step(model, before, nn.functional.cross_entropy, (x[index], y[index]))


def _head_alone(_: bool) -> Parts:
    """A trained trunk is frozen on purpose, and a new head is trained.

    GitHub JIA-Lab-research/PFENet, issue #10: "In our model, only the backbone is fixed".
    """
    (x, y), (shown, labels) = digits()
    trunk = mlp(64, 64, 64, 10)
    _trained(trunk, 150)
    trunk[-1] = nn.Linear(64, 10)
    trunk[:-1].requires_grad_(False)
    data = ((x, 9 - y), (shown, 9 - labels))
    optimizer = torch.optim.SGD(trunk[-1].parameters(), lr=0.1, momentum=0.9)
    return fit(data, trunk, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), steps=200)


def _tiny_rate(_: bool) -> Parts:
    """A net that is trained already is tuned at a rate of 1e-4, and gets better.

    After the kind of questions whether 2e-5 "is not too small" for tuning BERT.
    """
    data = digits()
    model = mlp(64, 96, 96, 10)
    _trained(model, 35, lr=1.5e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.78), steps=400)


class _Student(nn.Module):
    """A student, and a teacher that is its moving average and never gets a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.student = mlp(64, 64, 10)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.student(x)


def _mean_teacher(_: bool) -> Parts:
    """Half of the net never gets a gradient: a teacher that is the student's average.

    After the kind of questions whether it is right that a target network's gradients are None.
    """
    data = digits()
    model = _Student()
    optimizer = torch.optim.Adam(model.student.parameters(), lr=3e-3)

    def loss(said: Tensor, meant: tuple[Tensor, Tensor]) -> Tensor:
        y, target = meant
        agreed = nn.functional.kl_div(said.log_softmax(1), target, reduction="batchmean")
        return nn.functional.cross_entropy(said, y) + 0.5 * agreed

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        x, y = batch
        with torch.no_grad():
            target = model.teacher(x).softmax(1)
        value = loss(model(x + 0.1 * torch.randn_like(x)), (y, target))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(
                model.teacher.parameters(), model.student.parameters(), strict=True
            ):
                slow.lerp_(fast, 0.05)

    return fit(data, model, optimizer, loss, right(data, 0.85), steps=250, step=step)


class _Probed(nn.Module):
    """An autoencoder, and a classifier that reads its code detached."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 64, 16), mlp(16, 64, 64)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder(x)
        return self.decoder(code), self.classifier(code.detach())


def _detached_for_the_classifier(_: bool) -> Parts:
    """What the classifier reads is detached on purpose; another loss trains the encoder.

    GitHub vturrisi/solo-learn, issue #135 ("Is the self.encoder learning even after
    feats.detach()?"): "`.detach()` is not done in-place, so only for `self.classifier()`".
    """
    (x, y), (shown, labels) = digits()
    model = _Probed()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def loss(outputs: tuple[Tensor, Tensor], meant: tuple[Tensor, Tensor]) -> Tensor:
        apart = 20 * (outputs[0] - meant[0]).square().mean()
        return apart + nn.functional.cross_entropy(outputs[1], meant[1])

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    data = ((x, y), (shown, labels))
    goal = mean_goal(lambda m: (m(shown)[1].argmax(1) == labels).float().mean(), 0.75)
    return fit(data, model, optimizer, loss, goal, steps=350, step=step)


def _tied_weights(_: bool) -> Parts:
    """The read-out of a language model is its table of embeddings.

    After the kind of huggingface/pytorch-openai-transformer-lm, pull request #6 ("output is tied to
    the input"): one parameter, two uses.
    """

    class Tied(GruModel):
        def __init__(self) -> None:
            super().__init__(width=32)
            self.embedding = nn.Embedding(7, 32)
            nn.init.normal_(self.embedding.weight, 0, 0.2)
            self.gru = nn.GRU(32, 32, batch_first=True)
            self.readout = nn.Linear(32, 7, bias=False)
            self.readout.weight = self.embedding.weight

    model = Tied()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return stream(language, model, optimizer, next_token_loss, next_token_goal(0.8), steps=250)


def _sparse_rows(_: bool) -> Parts:
    """Most rows of a table get no gradient in a batch, which is sparse.

    After the kind of questions about `nn.Embedding(sparse=True)` whose weights "do not change".
    """
    chosen = torch.randn(400, generator=torch.Generator().manual_seed(9))

    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = nn.EmbeddingBag(400, 8, sparse=True, mode="sum")
            nn.init.normal_(self.bag.weight, 0, 0.1)

        def forward(self, words: Tensor) -> Tensor:
            return self.bag(words).sum(1)

    def draw(num: int) -> Batch:
        words = torch.randint(400, (num, 6))
        return words, (chosen[words].sum(1) > 0).float()

    model = Bags()
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.02)
    words, y = draw(600)
    goal = mean_goal(lambda model: ((model(words) > 0).float() == y).float().mean(), 0.8)
    return stream(draw, model, optimizer, nn.BCEWithLogitsLoss(), goal, steps=500, size=32)


def _gates_of_zero(_: bool) -> Parts:
    """Each block of a deep net is multiplied by a gate that begins at 0, as ReZero does.

    After the kind of questions whether a zero-initialised last layer of a block can learn.
    """

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.gate = mlp(32, 32, 32), nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.gate * self.body(x)

    data = arms(turns=2.4)
    model = nn.Sequential(nn.Linear(2, 32), *(Gated() for _ in range(12)), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.9), steps=300)


def _straight_through_codes(_: bool) -> Parts:
    """Codes of bits by `sign`, with the gradient passed straight through.

    After the kind of es-ude/elastic-ai.creator, issue #253: `x + (sign(x) - x).detach()`.
    """
    (x, _y), (shown, _labels) = digits()

    class Coder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = mlp(64, 64, 24), mlp(24, 64, 64)

        def forward(self, x: Tensor) -> Tensor:
            h = self.into(x).tanh()
            return self.out(h + (h.sign() - h).detach())

    data = ((x, x), (shown, shown))
    model = Coder()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.4), steps=400)


# ---------------------------------------------------------------- updates that look wrong


def _always_clipped(_: bool) -> Parts:
    """Gradients are clipped at each update to a tenth and less of their norm.

    GitHub facebookresearch/detr, issue #198 (`clip_max_norm=0.1` and norms of 10 to 100): it is how
    the model is trained.
    """

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.readout = nn.GRU(5, 32, batch_first=True), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.readout(self.gru(x)[0][:, -1])

    model = Reader()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def draw(num: int) -> Batch:
        return recall(num, 12)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = 20 * loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()

    x, y = draw(300)
    goal = mean_goal(lambda model: (model(x).argmax(1) == y).float().mean(), 0.85)
    return stream(draw, model, optimizer, nn.CrossEntropyLoss(), goal, steps=250, step=step)


def _first_steps_skipped(_: bool) -> Parts:
    """The loss scale is too large at first: a scaler skips updates until it is not.

    GitHub NoamRosenberg/autodeeplab, issue #12 ("Gradient overflow. Skipping step ... Is this
    normal?"): "yes, it is normal."
    """
    data = digits()
    model = mlp(64, 64, 64, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**26, growth_interval=50)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        with torch.autocast("cpu", torch.float16):
            value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()

    loss = nn.CrossEntropyLoss()
    return fit(data, model, optimizer, loss, right(data, 0.85), steps=250, step=step)


def _cleared_each_eighth(_: bool) -> Parts:
    """Gradients of eight small batches are summed before an update, and cleared behind it.

    After the kind of pytorch/pytorch, issue #47175: not clearing may be "intentional (e.g., for
    gradient accumulation)".
    """
    x, y = arms()[0]
    data = ((x[:-300], y[:-300, None].float()), (x[-300:], y[-300:, None].float()))
    model = mlp(2, 32, 32, 1, act=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    count = [0]

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        (loss(model(batch[0]), batch[1]) / 8).backward()
        count[0] += 1
        if count[0] % 8 == 0:
            optimizer.step()
            optimizer.zero_grad()

    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, tells(data, 0.85), steps=1200, size=16, step=step)


def _warm_from_zero(_: bool) -> Parts:
    """A schedule starts at a rate of exactly 0, and ends there.

    GitHub huggingface/transformers, issue #34754: "the effective LR is 0 for the first step".
    """
    model = GruModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def factor(i: int) -> float:
        return i / 60 if i < 60 else max(0.0, 0.5 * (1 + math.cos(math.pi * (i - 60) / 240)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    goal = next_token_goal(0.85)
    return stream(language, model, optimizer, next_token_loss, goal, steps=300, step=step)


LOOPS = loops_of(
    REPORTS,
    [
        ("report_plateau", HEALTHY, _plateau),
        ("report_noise_is_predicted", HEALTHY, _noise_is_predicted),
        ("report_contrast_from_log_n", HEALTHY, _contrast_from_log_n),
        ("report_smoothed_labels", HEALTHY, _smoothed_labels),
        ("report_triplets_at_the_margin", HEALTHY, _triplets_at_the_margin),
        ("report_rare_events", HEALTHY, _rare_events),
        ("report_noisy_rewards", HEALTHY, _noisy_rewards),
        ("report_two_losses_that_stay", HEALTHY, _two_losses_that_stay),
        ("report_head_alone", HEALTHY, _head_alone),
        ("report_tiny_rate", HEALTHY, _tiny_rate),
        ("report_mean_teacher", HEALTHY, _mean_teacher),
        ("report_detached_for_the_classifier", HEALTHY, _detached_for_the_classifier),
        ("report_tied_weights", HEALTHY, _tied_weights),
        ("report_sparse_rows", HEALTHY, _sparse_rows),
        ("report_gates_of_zero", HEALTHY, _gates_of_zero),
        ("report_straight_through_codes", HEALTHY, _straight_through_codes),
        ("report_always_clipped", HEALTHY, _always_clipped),
        ("report_first_steps_skipped", HEALTHY, _first_steps_skipped),
        ("report_cleared_each_eighth", HEALTHY, _cleared_each_eighth),
        ("report_warm_from_zero", HEALTHY, _warm_from_zero),
    ],
)
