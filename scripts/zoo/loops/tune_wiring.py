"""Sick loops of the half by which rules may be set: wiring."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.data_tune import fit_waves, read_digits, recall_first, tell_tumours
from zoo.loops.loop import TUNE, Parts, loops_of


class _Sent(nn.Module):
    """An encoder whose code goes through a function to the head."""

    def __init__(self, encoder: nn.Module, head: nn.Module, sends: Callable[..., Tensor]) -> None:
        super().__init__()
        self.encoder, self.head, self.sends = encoder, head, sends

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.sends(self.encoder, x))


def _plain(encoder: nn.Module, x: Tensor) -> Tensor:
    return encoder(x)


def _encoder(code: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 48), nn.GELU(), nn.Linear(48, code)
    )


def _decoder(code: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(code, 32), nn.ReLU(), nn.Linear(32, 10))


def _forgotten_encoder(cured: bool) -> Parts:
    """The optimizer is given the head alone, of a model that was meant to be trained whole."""
    model = _Sent(_encoder(), _decoder(), _plain)
    trained = model if cured else model.head
    return read_digits(model, torch.optim.Adam(trained.parameters(), lr=3e-3))


def _new_head(cured: bool) -> Parts:
    """Fine-tuning: the backbone is frozen, and the head is replaced once the optimizer is made."""
    model = _Sent(_encoder(24), nn.Linear(24, 7), _plain)
    model.encoder.requires_grad_(False)
    model.head = nn.Linear(24, 10) if cured else model.head
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=0.02)
    if not cured:
        model.head = nn.Linear(24, 10)
    return read_digits(model, optimizer, enough=0.6)


class _Experts(nn.Module):
    """A mixture of experts by a soft gate; the experts may be kept in a plain dictionary."""

    def __init__(self, *, are_registered: bool) -> None:
        super().__init__()
        experts = {
            str(i): nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 2)) for i in range(3)
        }
        self.experts: Any = nn.ModuleDict(experts) if are_registered else experts
        self.gate = nn.Linear(3, 3)
        self.readout = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        shares = self.gate(x).softmax(-1)
        said = torch.stack([expert(x) for expert in self.experts.values()], -1)
        return self.readout((said * shares[:, None]).sum(-1))


def _dict_of_experts(cured: bool) -> Parts:
    model = _Experts(are_registered=cured)
    return fit_waves(model, torch.optim.Adam(model.parameters(), lr=0.01))


def _frozen_trunk(cured: bool) -> Parts:
    """A trunk that begins at random is frozen as if it were pretrained, and is narrow."""
    trunk = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    trunk.append(nn.Linear(16, 1))
    model = _Sent(
        trunk, nn.Sequential(nn.Tanh(), nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1)), _plain
    )
    nn.init.orthogonal_(trunk[4].weight, 0.05)
    trunk.requires_grad_(cured)
    trainable = [p for p in model.parameters() if p.requires_grad]
    return tell_tumours(model, torch.optim.SGD(trainable, lr=0.1, momentum=0.9))


def _features_without_grad(cured: bool) -> Parts:
    """Features are computed under no_grad, left over from an evaluation."""

    @torch.no_grad()
    def silent(encoder: nn.Module, x: Tensor) -> Tensor:
        return encoder(x)

    model = _Sent(_encoder(1), _decoder(1), _plain if cured else silent)
    return read_digits(model, torch.optim.Adam(model.parameters(), lr=4e-3), enough=0.5, steps=400)


def _rounded_code(cured: bool) -> Parts:
    """Codes are rounded, with and without the straight-through estimator."""

    def rounded(encoder: nn.Module, x: Tensor) -> Tensor:
        code = 3 * encoder(x).tanh()
        return code + (code.round() - code).detach() if cured else code.round()

    model = _Sent(_encoder(3), _decoder(3), rounded)
    return read_digits(model, torch.optim.Adam(model.parameters(), lr=4e-3), enough=0.75, steps=400)


class _Hard(nn.Module):
    """A GRU whose last state chooses a row of a table, by argmax or by softmax."""

    def __init__(self, *, is_hard: bool) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 24, batch_first=True)
        self.choice = nn.Linear(24, 4)
        self.table = nn.Linear(4, 4, bias=False)
        self.is_hard = is_hard

    def forward(self, x: Tensor) -> Tensor:
        scores = self.choice(self.rnn(x)[0][:, -1])
        if self.is_hard:
            return self.table(nn.functional.one_hot(scores.argmax(-1), 4).float())
        return self.table(scores.softmax(-1))


def _hard_choice(cured: bool) -> Parts:
    model = _Hard(is_hard=not cured)
    return recall_first(
        model, torch.optim.Adam(model.parameters(), lr=0.01), length=4, steps=400, enough=0.45
    )


def _cleared(cured: bool) -> Parts:
    """zero_grad stands between backward and step."""
    model = nn.Sequential(_encoder(16), nn.ReLU(), nn.Linear(16, 10))

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        if cured:
            optimizer.zero_grad()
        value.backward()
        if not cured:
            optimizer.zero_grad()
        optimizer.step()

    return read_digits(model, torch.optim.Adam(model.parameters(), lr=3e-3), step=step)


def _kept(cured: bool) -> Parts:
    """Nobody clears gradients."""
    model = nn.Sequential(
        nn.Linear(3, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1)
    )

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        loss(model(batch[0]), batch[1]).backward()
        optimizer.step()
        if cured:
            optimizer.zero_grad()

    return fit_waves(model, torch.optim.SGD(model.parameters(), lr=0.2), step=step)


def _rate_of_zero(cured: bool) -> Parts:
    """A warm-up whose share is an integer quotient: 0 for the whole run."""
    model = nn.Sequential(_encoder(16), nn.ReLU(), nn.Linear(16, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    share = (lambda t: min(1.0, (t + 1) / 50)) if cured else (lambda t: min(1, (t + 1) // 1000))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    return read_digits(model, optimizer, step=step)


def _optimizer_of_a_copy(cured: bool) -> Parts:
    """The optimizer is made of the model before it was copied (as .to(device) may do by hand)."""
    model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 1))
    trained = model if cured else copy.deepcopy(model)
    return tell_tumours(model, torch.optim.Adam(trained.parameters(), lr=3e-3))


LOOPS = loops_of(
    TUNE,
    (
        ("wiring_forgotten_encoder", "not_in_optimizer", _forgotten_encoder),
        ("wiring_new_head", "not_in_optimizer", _new_head),
        ("wiring_optimizer_of_a_copy", ("not_in_optimizer", "no_update"), _optimizer_of_a_copy),
        ("wiring_dict_of_experts", "not_registered", _dict_of_experts),
        ("wiring_frozen_trunk", "frozen", _frozen_trunk),
        ("wiring_features_without_grad", "graph_cut", _features_without_grad),
        ("wiring_rounded_code", "graph_cut", _rounded_code),
        ("wiring_hard_choice", "graph_cut", _hard_choice),
        ("wiring_cleared", "gradient_cleared", _cleared),
        ("wiring_kept", "gradient_kept", _kept),
        ("wiring_rate_of_zero", "no_update", _rate_of_zero),
    ),
)
