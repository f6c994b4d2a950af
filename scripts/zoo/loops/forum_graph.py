"""Sick loops of the set `forums`: where no gradient comes through, and what no word names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.loops.batches import accuracy_goal, mean_goal
from zoo.loops.forum_data import (
    explained,
    figures,
    fit,
    mlp,
    next_batch,
    next_goal,
    next_loss,
    stream,
    waves,
)
from zoo.loops.loop import FORUMS, Batch, Parts, loops_of


class _Checkpointed(nn.Module):
    """A causal net whose embeddings are frozen and whose blocks are checkpointed."""

    def __init__(self, *, is_reentrant: bool) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(11, 24)
        self.embeddings.weight.requires_grad = False
        self.mix = nn.Linear(48, 48)
        self.block = mlp(48, 48, 12, act=nn.GELU)
        self.head = nn.Linear(12, 11)
        self.is_reentrant = is_reentrant

    def blocks(self, here: Tensor) -> Tensor:
        last = torch.cat((torch.zeros_like(here[:, :1]), here[:, :-1]), 1)
        return self.block(self.mix(torch.cat((here, last), 2)).relu())

    def forward(self, tokens: Tensor) -> Tensor:
        here = self.embeddings(tokens)
        return self.head(checkpoint(self.blocks, here, use_reentrant=self.is_reentrant))


def _checkpoint_behind_frozen(cured: bool) -> Parts:
    """Blocks are checkpointed in the old way behind frozen embeddings: they get no gradient.

    GitHub huggingface/transformers, issue #21381: "gradient checkpointing disables requires_grad
    when freezing part of models (fix with use_reentrant=False)". In issue #23170 the embeddings'
    flag was set, which helps as well. Here the head is behind the checkpoint.
    """
    model = _Checkpointed(is_reentrant=not cured)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=5e-3)
    return stream(next_batch, model, optimizer, next_loss, next_goal(0.85), 450, size=32)


def _generator_step_detaches(cured: bool) -> Parts:
    """What is made is detached in the generator's step, and only its small second loss is left.

    GitHub nikhilsinghmus/image2reverb, issue #37: "that `.detach()` should not be there for the
    generator step and is a bug". Watched is the generator.
    """
    model = mlp(4, 32, 2)
    judge = mlp(2, 32, 32, 1, act=nn.LeakyReLU)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.5, 0.99))
    judges = torch.optim.SGD(judge.parameters(), lr=0.1, momentum=0.5)
    bce = nn.BCEWithLogitsLoss()
    centre = torch.tensor([2.5, -2.0])

    def draw(num: int) -> Batch:
        return centre + 0.5 * torch.randn(num, 2), torch.randn(num, 4)

    def both_losses(verdict: Tensor, made: Tensor) -> Tensor:
        smooth = made.var(0).sub(0.25).square().mean()
        return nn.functional.mse_loss(verdict.sigmoid(), torch.ones_like(verdict)) + 0.1 * smooth

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        real, noise = batch
        judges.zero_grad()
        found = bce(judge(real), torch.ones(len(real), 1))
        (found + bce(judge(model(noise).detach()), torch.zeros(len(real), 1))).backward()
        judges.step()
        made = model(noise)
        value = loss(judge(made if cured else made.detach()), made)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    def apart(model: Any) -> Tensor:
        return (model(torch.randn(500, 4)).mean(0) - centre).norm()

    goal = mean_goal(apart, 1.2, higher=False)
    return stream(draw, model, optimizer, both_losses, goal, 600, step=step)


def _log_probabilities_as_numbers(cured: bool) -> Parts:
    """Logarithms of probabilities enter the loss by `.item()`; an entropy keeps the graph alive.

    GitHub isayev/ReLeaSE, issue #39: "`rl_loss -= (log_probs[0, top_i].item() * discounted_reward)
    ... My weights don't seem to be changing"; "your changes detach `rl_loss` from the computational
    graph".
    """
    model = mlp(6, 32, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    best = torch.randn(6, 4)

    def draw(num: int) -> Batch:
        x = torch.randn(num, 6)
        return x, (x @ best).argmax(1)

    def policy_loss(logits: Tensor, paid: Tensor) -> Tensor:
        dist = torch.distributions.Categorical(logits=logits)
        actions = dist.sample()
        log_probs = dist.log_prob(actions)
        rewards = (actions == paid).float() - 0.25
        if not cured:
            log_probs = torch.tensor([each.item() for each in log_probs])
        return -(log_probs * rewards).mean() - 0.01 * dist.entropy().mean()

    x, y = draw(500)
    return stream(draw, model, optimizer, policy_loss, accuracy_goal(x, y, 0.75), 500)


class _Vae(nn.Module):
    """Encodes digits by means and deviations; its draw is `torch.normal` or mean plus noise."""

    def __init__(self, *, draws_outside: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 64, 16), mlp(8, 64, 64)
        self.draws_outside = draws_outside

    def forward(self, x: Tensor) -> Tensor:
        """(N, 64 + 8 + 8): what is decoded, and the code's mean and log variance."""
        mean, log_var = self.encoder(x).chunk(2, 1)
        std = (0.5 * log_var).exp()
        z = torch.normal(mean, std) if self.draws_outside else mean + std * torch.randn_like(std)
        return torch.cat((self.decoder(z), mean, log_var), 1)


def _normal_has_no_gradient(cured: bool) -> Parts:
    """The code is drawn by `torch.normal(mean, std)`, which sends nothing to either.

    GitHub pytorch/pytorch, issue #4620: "`torch.normal` accepts Variables but does not propagate
    gradients"; the answer is `rsample`. The encoder learns from the divergence alone.
    """
    (x, _), (kept, _) = figures()
    model = _Vae(draws_outside=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def elbo(output: Tensor, x: Tensor) -> Tensor:
        made, mean, log_var = output.split([64, 8, 8], 1)
        divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1).mean()
        return (made - x).square().sum(1).mean() + 0.05 * divergence

    def share(model: nn.Module) -> Tensor:
        apart = (model(kept)[:, :64] - kept).square().mean()
        return 1 - apart / (kept - x.mean(0)).square().mean()

    def draw(num: int) -> Batch:
        rows = x[torch.randint(len(x), (num,))]
        return rows, rows

    return stream(draw, model, optimizer, elbo, mean_goal(share, 0.5), 400)


class _SentenceCoder(nn.Module):
    """Reads a sentence in both directions and tells its class from the two last states."""

    def __init__(self, *, mixes: bool) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(12, 16)
        self.gru = nn.GRU(16, 24, bidirectional=True, batch_first=True)
        self.readout = mlp(48, 32, 3)
        self.mixes = mixes

    def forward(self, tokens: Tensor) -> Tensor:
        _, hidden = self.gru(self.embeddings(tokens))
        if self.mixes:
            hidden = hidden.view(len(tokens), 48)
        else:
            hidden = hidden.permute(1, 0, 2).reshape(len(tokens), 48)
        return self.readout(hidden)


def _view_mixes_the_batch(cured: bool) -> Parts:
    """States (2, N, H) are viewed as (N, 2 H), which mixes the sentences of a batch.

    GitHub timbmg/Sentence-VAE, issue #15: the two dimensions are mixed up, with a small example
    that shows it; "I found the same issue". What is mixed belongs to no label, and no gradient
    tells that.
    """
    model = _SentenceCoder(mixes=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def draw(num: int) -> Batch:
        tokens = torch.randint(12, (num, 7))
        return tokens, (tokens < 4).sum(1).sub(1).clamp(0, 2)

    x, y = draw(512)
    goal = accuracy_goal(x, y, 0.85)
    return stream(draw, model, optimizer, nn.CrossEntropyLoss(), goal, 400)


def _decay_takes_all(cured: bool) -> Parts:
    """A weight decay of 0.5 in Adam: all weights go to 0, and the output is the mean.

    GitHub tinghuiz/SfMLearner, issue #34: "weight decay is usually around 5e-5 ~ 5e-4 and here it
    is 0.05! When using it, my two networks just go to zero very quickly"; "I think you are right".
    It is ten times that here, since the training is short.
    """
    data = waves()
    model = mlp(8, 48, 48, 1)
    decay = 5e-4 if cured else 0.5
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, weight_decay=decay)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.75), 400)


LOOPS = loops_of(
    FORUMS,
    [
        ("forum_checkpoint_behind_frozen", ("graph_cut", "frozen"), _checkpoint_behind_frozen),
        ("forum_generator_step_detaches", "graph_cut", _generator_step_detaches),
        ("forum_log_probabilities_as_numbers", "graph_cut", _log_probabilities_as_numbers),
        ("forum_normal_has_no_gradient", "graph_cut", _normal_has_no_gradient),
        ("forum_view_mixes_the_batch", ("unknown", "labels_unlearnable"), _view_mixes_the_batch),
        ("forum_decay_takes_all", "unknown", _decay_takes_all),
    ],
)
