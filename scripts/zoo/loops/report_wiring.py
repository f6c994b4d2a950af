"""Sick loops of the set `reports`: wiring."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, mean_goal
from zoo.loops.loop import REPORTS, Batch, Parts, loops_of
from zoo.loops.report_data import (
    arms,
    blobs,
    digits,
    fit,
    mlp,
    overlap,
    recall,
    right,
    rings,
    stream,
)
from zoo.loops.report_nets import Denoiser, HandRnn, denoising_goal, names, noised, speech, text


def _backward_then_schedule(cured: bool) -> Parts:
    """`backward`, then `lr_scheduler.step()`, then `zero_grad`: the line between is missing.

    GitHub tedlasai/learn2refocus, issue #5: "add this line, or the weight never gets updated". A
    denoiser as diffusion models are trained.
    """
    model = Denoiser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 20)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        loss(model(batch[0]), batch[1]).backward()
        if cured:
            optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    goal = denoising_goal(0.5)
    return stream(noised, model, optimizer, nn.MSELoss(), goal, steps=400, step=step)


def _made_twice(cured: bool) -> Parts:
    """The net is made twice: the optimizer got the first, and the loop trains the second.

    GitHub spro/practical-pytorch, issue #9 (and pytorch/tutorials #86): "I have the model
    instantiated twice". The recurrent net by hand that tells the language of a name.
    """
    model = HandRnn(12, 32, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    if not cured:
        model = HandRnn(12, 32, 5)
    goal = accuracy_goal(*names(600), 0.75)
    return stream(names, model, optimizer, nn.NLLLoss(), goal, steps=350)


class _ListOfLists(nn.Module):
    """`self.hids` is a list of lists, as the report has it; the classifier is an attribute."""

    def __init__(self, *, is_registered: bool) -> None:
        super().__init__()
        hids: list[Any] = []
        inputs = 2
        for _ in range(3):
            hids.append([nn.Linear(inputs, 20), nn.Tanh()])
            inputs = 20
        self.hids: Any = hids
        if is_registered:
            self.hids = nn.ModuleList(nn.ModuleList(each) for each in hids)
        self.classifier = nn.Linear(20, 2)

    def forward(self, x: Tensor) -> Tensor:
        for linear, act in self.hids:
            x = act(linear(x))
        return self.classifier(x)


def _hidden_layers_in_lists(cured: bool) -> Parts:
    """Hidden layers are appended to a plain list.

    GitHub pytorch/pytorch, issue #715: "The parameters of nn.Linear in the for-loop are not
    included in `parameters`"; the answer: `nn.ModuleList`.
    """
    data = arms(turns=2.4)
    model = _ListOfLists(is_registered=cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=700)


class _TextNet(nn.Module):
    """Three convolutions along the words, the largest value of each, and a read-out."""

    def __init__(self, *, is_registered: bool) -> None:
        super().__init__()
        conv1d = [nn.Conv1d(16, 2, size) for size in (3, 4, 5)]
        self.conv1d: Any = nn.ModuleList(conv1d) if is_registered else conv1d
        self.readout = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        return self.readout(torch.cat([conv(x).relu().amax(2) for conv in self.conv1d], 1))


def _convolutions_in_a_list(cured: bool) -> Parts:
    """The convolutions of a net for text are a plain list.

    GitHub pytorch/pytorch, issue #1053: `self.conv1d = [th.nn.Conv1d(...), ...]`; "This is
    expected. Use `nn.ModuleList`."
    """
    model = _TextNet(is_registered=cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    goal = accuracy_goal(*text(800), 0.85)
    return stream(text, model, optimizer, nn.CrossEntropyLoss(), goal, steps=400)


def _set_requires_grad(model: nn.Module, flag: bool, *, asks_first: bool) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad or not asks_first:
            parameter.requires_grad = flag


def _never_unfrozen(cured: bool) -> Parts:
    """Only what needs a gradient is set to need one: a frozen encoder is never free again.

    GitHub nttcslab/byol-a, issue #7: "Model parameters cannot be trainable once they become
    requires_grad=False. `if p.requires_grad` has to be removed." Here the head is trained first.
    """
    data = arms(turns=2.4)
    encoder = mlp(2, 24, 24, 6, act=nn.Tanh)
    model = nn.Sequential(encoder, nn.Tanh(), nn.Linear(6, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    _set_requires_grad(encoder, False, asks_first=not cured)
    left = [60]

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            _set_requires_grad(encoder, True, asks_first=not cured)
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    loss = nn.CrossEntropyLoss()
    return fit(data, model, optimizer, loss, right(data, 0.85), steps=700, step=step)


class _Captioner(nn.Module):
    """An image encoder whose tokens are taken by an extractor, which clones and detaches them."""

    def __init__(self, *, detaches: bool) -> None:
        super().__init__()
        self.patches = nn.Linear(16, 24)
        self.place = nn.Parameter(0.5 * torch.randn(4, 24))
        self.layer = nn.TransformerEncoderLayer(24, 2, 48, 0.0, batch_first=True)
        self.pool = nn.Linear(4 * 24, 5)
        self.caption = mlp(5, 32, 10)
        self.detaches = detaches

    def forward(self, x: Tensor) -> Tensor:
        cut = x.unfold(2, 4, 4).unfold(3, 4, 4).reshape(len(x), 4, 16)
        tokens = self.pool(self.layer(self.patches(cut) + self.place).flatten(1))
        latents = tokens.clone().detach() if self.detaches else tokens
        return self.caption(latents.tanh())


def _extractor_detaches(cured: bool) -> Parts:
    """What the image encoder sends to the text side is cloned and detached on the way.

    GitHub lucidrains/CoCa-pytorch, issue #6: "The cloned tensor in `Extractor` will be detached.
    So gradient may not propagate back to image encoder"; fixed.
    """
    data = digits(as_images=True)
    model = _Captioner(detaches=not cured)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), steps=500)


_WANTED = torch.tensor([1, 0, 0, 1, 1, 0, 1, 0])


class _FlowPolicy(nn.Module):
    """Says the next of eight bits from those before; holds the logarithm of the flow's sum."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(16, 48, 48, 2, act=nn.LeakyReLU)
        self.log_z = nn.Parameter(torch.zeros(()))

    def forward(self, states: Tensor) -> Tensor:
        return self.net(states)

    def sample(self, num: int) -> tuple[Tensor, Tensor]:
        """States (N, 8, 16) and bits (N, 8)."""
        bits, states = torch.zeros(num, 8), []
        with torch.no_grad():
            for place in range(8):
                known = torch.zeros(8)
                known[: place + 1] = 1
                states.append(torch.cat((bits, known.expand(num, 8)), 1))
                drawn = torch.distributions.Categorical(logits=self.net(states[-1])).sample()
                bits = bits.index_put((torch.arange(num), torch.tensor(place)), drawn.float())
        return torch.stack(states, 1), bits.long()


def _logits_detached(cured: bool) -> Parts:
    """Probabilities of the actions are taken of a detached clone: only log Z is trained.

    GitHub alexhernandezgarcia/gflownet, pull request #251: "The clone of `policy_outputs` into
    `logits` in `get_logprobs()` was incorrectly detached". Trajectory balance.
    """
    model = _FlowPolicy()
    fast = [{"params": model.net.parameters()}, {"params": [model.log_z], "lr": 0.1}]
    optimizer = torch.optim.Adam(fast, lr=5e-3)

    def balance(outputs: Tensor, bits: Tensor) -> Tensor:
        logits = outputs.clone() if cured else outputs.clone().detach()
        log_p = logits.log_softmax(-1).gather(2, bits[..., None]).sum((1, 2))
        log_reward = 3.0 * (bits == _WANTED).sum(1)
        return (model.log_z + log_p - log_reward).square().mean()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        states, bits = model.sample(len(batch[0]))
        value = loss(model(states), bits)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    def value(model: Any) -> Tensor:
        return (model.sample(400)[1] == _WANTED).float().mean()

    def draw(num: int) -> Batch:
        return torch.zeros(num, 1), torch.zeros(num)

    return stream(
        draw, model, optimizer, balance, mean_goal(value, 0.85), steps=400, size=32, step=step
    )


def _dice_of_rounded(cured: bool) -> Parts:
    """The Dice loss is of the mask that the net decides for, a rounded probability.

    GitHub tensorlayer/TensorLayer, issue #891: Dice behind an argmax, "the argmax seems not a
    differentiable function". With one channel the decision is a rounding.
    """
    data = blobs()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 1, 3, padding=1),
    )

    def dice(logits: Tensor, mask: Tensor) -> Tensor:
        found = logits.sigmoid()
        if not cured:
            found = found.round()
        both = 2 * (found * mask).sum((1, 2, 3)) + 1
        return 1 - (both / (found.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)).mean()

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return fit(data, model, optimizer, dice, overlap(data, 0.7), steps=200, size=32)


class _SignStraight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * (x.abs() <= 1)


class _BinaryNet(nn.Module):
    """Two layers whose activations are -1 and 1."""

    def __init__(self, *, is_straight: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 24), nn.Linear(24, 10)
        self.norm_1, self.norm_2 = nn.BatchNorm1d(24), nn.BatchNorm1d(10)
        self.readout = nn.Linear(10, 10)
        self.binarize: Any = _SignStraight.apply if is_straight else torch.sign

    def forward(self, x: Tensor) -> Tensor:
        h = self.binarize(self.norm_1(self.first(x)))
        h = self.binarize(self.norm_2(self.second(h)))
        return self.readout(h)


def _sign_activations(cured: bool) -> Parts:
    """Activations of one bit by `torch.sign`, which is no straight-through estimator.

    GitHub zzzxxxttt/pytorch_DoReFaNet, issue #8: "sign() returns zero gradients".
    """
    data = digits()
    model = _BinaryNet(is_straight=cured)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), steps=400)


class _TwoModules(nn.Module):
    """The first says a symbol, the second reads its embedding."""

    def __init__(self, *, is_hard: bool) -> None:
        super().__init__()
        self.first = mlp(64, 32, 10)
        self.embedding = nn.Embedding(10, 16)
        self.second = nn.Linear(16, 10)
        self.is_hard = is_hard

    def forward(self, x: Tensor) -> Tensor:
        y_p = self.first(x)
        if self.is_hard:
            return self.second(self.embedding(torch.max(y_p, 1)[1]))
        return self.second(y_p.softmax(1) @ self.embedding.weight)


def _argmax_between_modules(cured: bool) -> Parts:
    """The argmax of one module's output is the input of the next.

    GitHub pytorch/pytorch, issue #1339: `y_p = torch.max(y_p, 1)[1]`; "argmax is not
    differentiable".
    """
    data = digits()
    model = _TwoModules(is_hard=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), steps=300)


class _Byol(nn.Module):
    """An online encoder with a predictor, and its moving average."""

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.online.append(nn.Linear(64, 24))
        self.predictor = nn.Sequential(nn.Linear(24, 48), nn.BatchNorm1d(48), nn.ReLU())
        self.predictor.append(nn.Linear(48, 24))
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.predictor(self.online(x))


def _views(num: int) -> Batch:
    (x, _), _ = digits()
    x = x[torch.randint(len(x), (num,))]
    first, second = (x * (torch.rand_like(x) > 0.2) + 0.1 * torch.randn_like(x) for _ in range(2))
    return first, second


def _cleared_right_before(cured: bool) -> Parts:
    """`zero_grad` stands between `backward` and `step`.

    GitHub lucidrains/byol-pytorch, issue #93: "I don't think you can set the gradients to zero
    right before stepping the optimizer."
    """
    model = _Byol()
    optimizer = torch.optim.Adam([*model.online.parameters(), *model.predictor.parameters()], 3e-3)

    def apart(output: Tensor, target: Tensor) -> Tensor:
        return 2 - 2 * nn.functional.cosine_similarity(output, target).mean()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        with torch.no_grad():
            target = model.target(batch[1])
        if cured:
            optimizer.zero_grad()
        loss(model(batch[0]), target).backward()
        if not cured:
            optimizer.zero_grad()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(
                model.target.parameters(), model.online.parameters(), strict=True
            ):
                slow.lerp_(fast, 0.01)

    def value(model: Any) -> Tensor:
        first, second = _views(128)
        said = nn.functional.normalize(model(first))
        meant = nn.functional.normalize(model.target(second))
        return ((said @ meant.T).argmax(1) == torch.arange(128)).float().mean()

    goal = mean_goal(value, 0.25)
    return stream(_views, model, optimizer, apart, goal, steps=350, size=128, step=step)


def _no_zero_grad(cured: bool) -> Parts:
    """The executor steps, and nobody clears.

    GitHub wenet-e2e/wekws, issue #72 and pull request #73: "when optimizer.step() is called,
    optimizer.zero_grad() is not called"; "It's a bug". A spotter of keywords.
    """

    class Spotter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.readout = nn.GRU(8, 24, batch_first=True), nn.Linear(24, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.readout(self.gru(x)[0].amax(1))

    model = Spotter()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        if cured:
            optimizer.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        optimizer.step()

    goal = accuracy_goal(*speech(500), 0.8)
    return stream(speech, model, optimizer, nn.CrossEntropyLoss(), goal, steps=250, step=step)


def _no_zero_grad_sgd(cured: bool) -> Parts:
    """`zero_grad` was put at the start of each epoch instead of each iteration.

    GitHub pytorch/pytorch, issue #47175: "an extremely nasty bug ... calling it at the beginning
    of each epoch instead of the beginning of each iteration".
    """
    data = rings()
    model = mlp(2, 32, 32, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    count = [0]

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        if cured or count[0] % 150 == 0:
            optimizer.zero_grad()
        count[0] += 1
        loss(model(batch[0]), batch[1]).backward()
        optimizer.step()

    loss = nn.CrossEntropyLoss()
    return fit(data, model, optimizer, loss, right(data, 0.85), steps=450, size=32, step=step)


def _accumulates_past_the_end(cured: bool) -> Parts:
    """An update is due at each 64th batch, and an epoch, which begins by clearing, has 40.

    After the kind of loops with `if (i + 1) % accumulation_steps == 0` whose loader is shorter.
    """
    data = digits(as_images=True)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))
    model.extend([nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    accumulation_steps = 2 if cured else 64
    count = [0]

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        i = count[0] % 40
        count[0] += 1
        if i == 0:
            optimizer.zero_grad()
        (loss(model(batch[0]), batch[1]) / accumulation_steps).backward()
        if (i + 1) % accumulation_steps == 0:
            optimizer.step()
            optimizer.zero_grad()

    loss = nn.CrossEntropyLoss()
    return fit(data, model, optimizer, loss, right(data, 0.8), steps=400, size=32, step=step)


class _RecurrentStudent(nn.Module):
    """A memory and a student that reads it, to copy a teacher's actions."""

    def __init__(self) -> None:
        super().__init__()
        self.memory_s = nn.GRU(5, 12, batch_first=True)
        self.student = mlp(12, 24, 4, act=nn.ELU)

    def forward(self, x: Tensor) -> Tensor:
        return self.student(self.memory_s(x)[0][:, -1])


def _memory_not_given(cured: bool) -> Parts:
    """A student policy is recurrent, and the optimizer gets the part behind the memory.

    GitHub leggedrobotics/rsl_rl, pull request #94: "Adds the RNN parameters to the optimizer for
    Distillation"; merged.
    """
    model = _RecurrentStudent()
    given = model.parameters() if cured else model.student.parameters()
    optimizer = torch.optim.Adam(given, lr=0.01)

    def draw(num: int) -> Batch:
        x, y = recall(num, 12)
        return x, nn.functional.one_hot(y, 4).float()

    x, actions = draw(300)

    def value(model: nn.Module) -> Tensor:
        return (model(x).argmax(1) == actions.argmax(1)).float().mean()

    return stream(draw, model, optimizer, nn.MSELoss(), mean_goal(value, 0.8), steps=400)


def _frozen_behind_the_head(cured: bool) -> Parts:
    """The new head is put in before the loop that freezes; `loss.requires_grad_()` hides it.

    After the kind of "element 0 of tensors does not require grad" threads that were answered by a
    flag on the loss: nothing has a gradient, and no error is left.
    """
    data = digits()
    model = mlp(64, 48, 48, 10)
    model[-1] = nn.Linear(48, 10)
    if not cured:
        for parameter in model.parameters():
            parameter.requires_grad = False
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        if not value.requires_grad:
            value.requires_grad_(True)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    loss = nn.CrossEntropyLoss()
    return fit(data, model, optimizer, loss, right(data, 0.85), steps=250, step=step)


LOOPS = loops_of(
    REPORTS,
    [
        ("report_backward_then_schedule", "no_update", _backward_then_schedule),
        ("report_accumulates_past_the_end", "no_update", _accumulates_past_the_end),
        ("report_made_twice", "not_in_optimizer", _made_twice),
        ("report_memory_not_given", "not_in_optimizer", _memory_not_given),
        ("report_hidden_layers_in_lists", "not_registered", _hidden_layers_in_lists),
        ("report_convolutions_in_a_list", "not_registered", _convolutions_in_a_list),
        ("report_never_unfrozen", "frozen", _never_unfrozen),
        ("report_frozen_behind_the_head", "frozen", _frozen_behind_the_head),
        ("report_extractor_detaches", "graph_cut", _extractor_detaches),
        ("report_logits_detached", "graph_cut", _logits_detached),
        ("report_dice_of_rounded", "graph_cut", _dice_of_rounded),
        ("report_sign_activations", "graph_cut", _sign_activations),
        ("report_argmax_between_modules", "graph_cut", _argmax_between_modules),
        ("report_cleared_right_before", "gradient_cleared", _cleared_right_before),
        ("report_no_zero_grad", "gradient_kept", _no_zero_grad),
        ("report_cleared_each_epoch", "gradient_kept", _no_zero_grad_sgd),
    ],
)
