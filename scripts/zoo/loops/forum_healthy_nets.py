"""Healthy loops of the set `forums`: what has no part in a training, and may."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.forum_data import covered, dense_cnn, figures, fit, masks, right, small_cnn
from zoo.loops.loop import FORUMS, HEALTHY, Parts, loops_of


class _Unused(nn.Module):
    """Features and a classifier, and the layer of a pretrained net that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.model = small_cnn(32)
        self.fc = nn.Linear(32, 100)
        self.classifier = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.model(x).relu())


def _old_layer_in_the_optimizer(_: bool) -> Parts:
    """The layer `fc` of a pretrained net is in the optimizer, and not in `forward`.

    GitHub layumi/Person_reID_baseline_pytorch, issue #90: "you don't use the fc layer"; "Yes. You
    are right ... though it does not affect the training".
    """
    data = figures(as_images=True)
    model = _Unused()
    groups = [
        {"params": model.model.parameters(), "lr": 0.05},
        {"params": model.fc.parameters()},
        {"params": model.classifier.parameters()},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 400)


def _cleared_twice(_: bool) -> Parts:
    """`zero_grad` is called before `forward`, and once more before `backward`.

    GitHub sacmehta/ESPNet, issue #68: "I think you zero the grad two time during training"; "It
    should not impact anything". A segmenter.
    """
    data = masks()
    model = dense_cnn()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        optimizer.zero_grad()
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, covered(data, 0.7), 200, size=32, step=step)


def _alpha_is_clamped(_: bool) -> Parts:
    """A matte is clamped to 0 and 1 in training too: many pixels get no gradient.

    GitHub PeterL1n/BackgroundMattingV2, issue #128: "It performs better with a clamp. It prevents
    penalizing the model from not predicting exactly 0 or 1 for most areas, which is hard".
    """

    class Matte(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = dense_cnn()

        def forward(self, x: Tensor) -> Tensor:
            return (x + self.net(x)).clamp(0, 1)

    data = masks()
    model = Matte()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    goal = covered(data, 0.8, middle=0.5)
    return fit(data, model, optimizer, nn.L1Loss(), goal, 250, size=32)


LOOPS = loops_of(
    FORUMS,
    [
        ("forum_old_layer_in_the_optimizer", HEALTHY, _old_layer_in_the_optimizer),
        ("forum_cleared_twice", HEALTHY, _cleared_twice),
        ("forum_alpha_is_clamped", HEALTHY, _alpha_is_clamped),
    ],
)
