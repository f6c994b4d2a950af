"""Sick loops of the set `forums`: gradients that are cleared too soon, or never."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import mean_goal
from zoo.loops.forum_data import covered, dense_cnn, explained, fit, masks, mlp, stream, waves
from zoo.loops.loop import FORUMS, Batch, Parts, loops_of


def _cleared_behind_backward(cured: bool) -> Parts:
    """`zero_grad` stands behind `backward` in the training of a segmenter.

    GitHub sacmehta/EdgeNets, issue #14: "I was having issues until I moved zero_grad() above
    loss.backward()"; taken over.
    """
    data = masks()
    model = dense_cnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        if cured:
            optimizer.zero_grad()
        value.backward()
        if not cured:
            optimizer.zero_grad()
        optimizer.step()

    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, covered(data, 0.7), 200, size=32, step=step)


def _first_loss_is_cleared(cured: bool) -> Parts:
    """Two losses are sent back, and `zero_grad` between them throws the first away.

    After the kind of multi-task loops in which each loss has its own `zero_grad` and `backward`,
    and one `step` comes behind both: the optimizer gets the gradient of the last, a small penalty
    on the size of the outputs.
    """
    data = waves()
    model = mlp(8, 48, 48, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        optimizer.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        if not cured:
            optimizer.zero_grad()
        (1e-3 * model(batch[0]).square().mean()).backward()
        optimizer.step()

    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.75), 400, step=step)


def _discriminator_never_cleared(cured: bool) -> Parts:
    """The generator's gradients are cleared, those of the discriminator never.

    GitHub Hsintien-Ng/idinvert_pytorch-reproduced, issue #1: "Is the optimizer_D.zero_grad()
    missing before the backward() step"; "You're right ... I have fixed it". Watched is the
    discriminator.
    """
    model = mlp(2, 32, 32, 1, act=nn.LeakyReLU)
    maker = mlp(4, 32, 2)
    makes = torch.optim.Adam(maker.parameters(), lr=2e-3, betas=(0.5, 0.99))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    bce = nn.BCEWithLogitsLoss()

    def draw(num: int) -> Batch:
        return torch.tensor([2.5, -2.0]) + 0.5 * torch.randn(num, 2), torch.randn(num, 4)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        real, noise = batch
        if cured:
            optimizer.zero_grad()
        both = torch.cat((real, maker(noise).detach()))
        is_real = torch.cat((torch.ones(len(real), 1), torch.zeros(len(real), 1)))
        loss(model(both), is_real).backward()
        optimizer.step()
        fooled = bce(model(maker(noise)), torch.ones(len(real), 1))
        makes.zero_grad()
        given = torch.autograd.grad(fooled, list(maker.parameters()))
        for parameter, grad in zip(maker.parameters(), given, strict=True):
            parameter.grad = grad
        makes.step()

    def apart(_model: nn.Module) -> Tensor:
        return (maker(torch.randn(500, 4)).mean(0) - torch.tensor([2.5, -2.0])).norm()

    goal = mean_goal(apart, 1.0, higher=False)
    return stream(draw, model, optimizer, bce, goal, 500, step=step)


def _court_without_zero_grad(cured: bool) -> Parts:
    """A net for heat maps is trained, and its gradients are never cleared.

    GitHub yastrebksv/TennisCourtDetector, issue #7: 'Why there is no "optimizer.zero_grad()" in
    base_trainer.py?'; "You are right, thanks! I fixed it."
    """
    data = masks()
    model = dense_cnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        if cured:
            optimizer.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        optimizer.step()

    goal = covered(data, 0.7, middle=0.5)
    return fit(data, model, optimizer, nn.MSELoss(), goal, 250, size=32, step=step)


LOOPS = loops_of(
    FORUMS,
    [
        ("forum_cleared_behind_backward", "gradient_cleared", _cleared_behind_backward),
        ("forum_first_loss_is_cleared", "gradient_cleared", _first_loss_is_cleared),
        ("forum_discriminator_never_cleared", "gradient_kept", _discriminator_never_cleared),
        ("forum_court_without_zero_grad", "gradient_kept", _court_without_zero_grad),
    ],
)
