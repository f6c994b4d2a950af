"""The convolutional families once more: equations written out over `torch.nn.functional`, and the
columns of `layers.csv` from them, dL/dz by autograd in float64.

Axes: B examples, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import reference
import torch
import torch.nn.functional as F
from reference import EPS, PHI, Batches, Site
from torch import Tensor, nn

from vgexp.config import CnnConfig, ConvConfig, DensenetConfig, ResnetConfig
from vgexp.models import Network
from vgexp.probe import Probe
from vgexp.tasks import Task

Weights = Mapping[str, Tensor]
BATCH = 3
BESIDE = ("gate", "projection")
"""In the names of weights that are not on the main path."""


def images(num_channels: int, height: int, width: int, num_outputs: int) -> Task:
    """The task of naming the class of an image."""
    return Task("image", (num_channels, height, width), num_outputs)


def standardised(x: Tensor, *axes: int) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / ((centred**2).mean(axes, keepdim=True) + EPS).sqrt()


NORMALISED: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "none": lambda x, _groups: x,
    "batch": lambda x, _groups: standardised(x, 0, 2, 3),
    "layer": lambda x, _groups: standardised(x, 1, 2, 3),
    "instance": lambda x, _groups: standardised(x, 2, 3),
    "group": lambda x, groups: torch.cat(
        [standardised(part, 1, 2, 3) for part in x.chunk(groups, 1)], 1
    ),
    "rms": lambda x, _groups: x / ((x**2).mean((1, 2, 3), keepdim=True) + EPS).sqrt(),
}


class Equations:
    """What a family computes; `sites` is what it shows at each weight, in forward order."""

    def __init__(self, config: ConvConfig, parameters: Weights) -> None:
        self.config, self.p = config, parameters
        self.sites: list[Site] = []

    def __call__(self, x: Tensor) -> tuple[list[Site], Tensor]:
        """Sites, and the outputs."""
        match self.config:
            case CnnConfig():
                h = self.cnn(self.config, x)
            case ResnetConfig():
                h = self.resnet(self.config, x)
            case DensenetConfig():
                h = self.densenet(self.config, x)
            case _:
                raise AssertionError
        pooled = h.mean((2, 3)) + self.p.get("shift_of_readout.bias", 0.0)
        out = pooled @ self.p["readout.weight"].T + self.p.get("readout.bias", 0.0)
        last = Site("readout.weight", self.sites[-1].layer + 1, "readout", out)
        return [*self.sites, last], out

    # ------------------------------------------------------------ families

    def cnn(self, config: CnnConfig, x: Tensor) -> Tensor:
        z = h = x
        adds, post = config.skip != "none", config.norm_position == "post"
        num_stages = min(config.stages, config.depth)
        for index in range(config.depth):
            name = f"layers.{index}"
            stage, before = (i * num_stages // config.depth for i in (index, max(index - 1, 0)))
            stride = 2 if stage != before else 1
            branch, gates = self.conv(name, h, stride), len(self.sites)
            if adds and index:
                z = self.joined(name, index + 1, z, branch, h, stride, config.depth)
                z = self.norm(name, z) if post else z
            else:
                z = branch
            u, h = (z, self.phi(name, z)) if adds and post else self.read(name, z)
            self.show(name, index + 1, z, u, h, at=gates)
        return h

    def resnet(self, config: ResnetConfig, x: Tensor) -> Tensor:
        size, adds = 3 if config.bottleneck else 2, config.skip != "none"
        post, number = config.norm_position == "post", 1
        num_blocks = (config.depth - 2) // size
        z = self.conv("layers.0", x)
        u, h = self.phi_of_norm("layers.0", z) if adds else self.read("layers.0", z)
        self.show("layers.0", 1, z, u, h)
        for block in range(num_blocks):
            stride = 2 if block in (num_blocks // 3, 2 * num_blocks // 3) else 1
            path, read = z if config.preactivation else h, h
            for position in range(size):
                name = f"layers.{number}"
                number += 1
                strided = position == (1 if config.bottleneck else 0)
                z = self.conv(name, h, stride if strided else 1)
                at = len(self.sites)
                if not adds:
                    u, h = self.read(name, z)
                elif position < size - 1:
                    u, h = self.phi_of_norm(name, z)
                else:
                    inner = not config.preactivation and not post
                    branch = self.norm(name, z) if inner else z
                    z = self.joined(name, number, path, branch, read, stride, num_blocks)
                    z = self.norm(name, z) if post else z
                    if config.preactivation:
                        u, h = self.phi_of_norm(name, z)
                    else:
                        u = self.shifted(name, z)
                        h = self.phi(name, u)
                self.show(name, number, z, u, h, at=at)
        return h

    def densenet(self, config: DensenetConfig, x: Tensor) -> Tensor:
        per_layer = 2 if config.bottleneck else 1
        num_layers = (config.depth - 4) // 3 // per_layer
        number = 0

        def conv(h: Tensor) -> Tensor:
            nonlocal number
            number += 1
            return self.conv(f"layers.{number - 1}", h)

        def read(z: Tensor, features: Tensor) -> Tensor:
            u, h = self.read(f"layers.{number - 1}", features)
            self.show(f"layers.{number - 1}", number, z, u, h)
            return h

        features = conv(x)
        h = read(features, features)
        for block in range(3):
            if block:
                z = conv(h)
                features = F.avg_pool2d(z, 2)
                h = read(z, features)
            for _ in range(num_layers):
                for _ in range(per_layer - 1):
                    z = conv(h)
                    h = read(z, z)
                z = conv(h)
                features = torch.cat([features, z], 1)
                h = read(z, features)
        return h

    # ------------------------------------------------------------ parts

    def conv(self, name: str, x: Tensor, stride: int = 1, part: str = "conv") -> Tensor:
        kernel = self.p[f"{name}.{part}.weight"]
        bias = self.p.get(f"{name}.{part}.bias")
        if part == "conv":
            x = x + self.p.get(f"{name}.shift_of_conv.bias", 0.0)
        return F.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2)

    def norm(self, name: str, v: Tensor, part: str = "norm") -> Tensor:
        if self.config.norm == "none":
            return v
        y = NORMALISED[self.config.norm](v, self.config.norm_groups)
        shift = self.p.get(f"{name}.{part}.bias", torch.zeros(v.shape[1], dtype=v.dtype))
        return y * self.p[f"{name}.{part}.weight"][:, None, None] + shift[:, None, None]

    def below(self, name: str) -> Any:
        if self.config.activation == "prelu":
            return self.p[f"{name}.activation.weight"]
        return 0.01 if self.config.negative_slope is None else self.config.negative_slope

    def phi(self, name: str, u: Tensor) -> Tensor:
        return PHI[self.config.activation](u, self.below(name))

    def shifted(self, name: str, z: Tensor) -> Tensor:
        return z + self.p.get(f"{name}.shift_of_phi.bias", 0.0)

    def phi_of_norm(self, name: str, z: Tensor) -> tuple[Tensor, Tensor]:
        u = self.shifted(name, self.norm(name, z))
        return u, self.phi(name, u)

    def read(self, name: str, z: Tensor) -> tuple[Tensor, Tensor]:
        """u and h, where nothing is added."""
        if self.config.norm_position == "post":
            return z, self.norm(name, self.phi(name, z))
        return self.phi_of_norm(name, z)

    def joined(
        self, name: str, number: int, path: Tensor, branch: Tensor, h: Tensor, stride: int, num: int
    ) -> Tensor:
        """The sum at the end of a branch that reads h, one of `num`."""
        config = self.config
        branch = branch * self.p.get(f"{name}.multiplier.scale", 1.0)
        if f"{name}.projection.weight" in self.p:
            beside = self.conv(name, path, stride, "projection")
            self.sites.append(Site(f"{name}.projection.weight", number, "conv", beside))
            path = beside
            if f"{name}.projection_norm.weight" in self.p:
                path = self.norm(name, beside, "projection_norm")
        elif path.shape != branch.shape:
            zeros = branch.new_zeros(branch.shape)
            path = path[:, :, ::stride, ::stride]
            zeros[:, : path.shape[1]] = path
            path = zeros
        match config.skip:
            case "residual":
                return path + branch
            case "scaled_residual":
                return path + branch / math.sqrt(num)
            case "rezero":
                return path + self.p[f"{name}.skip.alpha"] * branch
            case "highway":
                gate = self.conv(f"{name}.skip", h, stride, "gate")
                t = 1 / (1 + torch.exp(-gate))
                weight = f"{name}.skip.gate.weight"
                self.sites.append(
                    Site(weight, number, "conv", gate, by_channel(gate), t, "sigmoid")
                )
                return t * branch + (1 - t) * path
        raise AssertionError(f"no equation for skip {config.skip}")

    def show(
        self, name: str, number: int, z: Tensor, u: Tensor, h: Tensor, at: int | None = None
    ) -> None:
        weight, phi = f"{name}.conv.weight", self.config.activation
        site = Site(weight, number, "conv", z, by_channel(u), h, phi, self.below(name))
        self.sites.insert(len(self.sites) if at is None else at, site)


def by_channel(u: Tensor) -> Tensor:
    """[B H W, C]."""
    return u.movedim(1, -1).flatten(0, -2)


def expected_rows(
    config: ConvConfig,
    before: Weights,
    after: Weights,
    batches: Batches,
    torch_grads: Weights,
) -> list[dict[str, Any]]:
    """The rows of one update, but for `step`; zeros of gradients are counted in `torch_grads`."""
    p = {name: value.clone().requires_grad_() for name, value in before.items()}
    forwards = [Equations(config, p)(x.double()) for x, _ in batches]
    total = sum(
        (reference.summed_loss(out, y) for (_, out), (_, y) in zip(forwards, batches, strict=True)),
        torch.zeros((), dtype=torch.float64),
    )
    num_examples = sum(len(y) for _, y in batches)
    zs = [site.z for sites, _ in forwards for site in sites]
    deltas = torch.autograd.grad(total, zs, retain_graph=True)
    delta_of = dict(zip(map(id, zs), deltas, strict=True))
    grads = dict(zip(p, torch.autograd.grad(total / num_examples, list(p.values())), strict=True))
    rows = []
    for sites in zip(*(sites for sites, _ in forwards), strict=True):
        name = sites[0].name
        row: dict[str, Any] = {"layer": sites[0].layer, "name": name, "kind": sites[0].kind}
        row |= reference.weight_numbers(before[name], after[name], grads[name], grads[name])
        row["grad_zero_fraction"] = float((torch_grads[name] == 0).double().mean())
        row |= reference.activation_numbers(sites)
        row["delta_rms"] = reference.rms(reference.flat([delta_of[id(site.z)] for site in sites]))
        rows.append(row)
    main = {r["layer"]: r["delta_rms"] for r in rows if not any(b in r["name"] for b in BESIDE)}
    for row in rows:
        following = main.get(row["layer"] + 1)
        row["backward_gain"] = row["delta_rms"] / following if following else None
    return rows


def batches(task: Task, num: int, seed: int) -> Batches:
    """Micro-batches of images."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(BATCH, *task.shape, generator=generator, dtype=torch.float64),
            torch.randint(task.num_outputs, (BATCH,), generator=generator),
        )
        for _ in range(num)
    ]


def wrong_cells(config: ConvConfig, model: Network, updates: list[Batches]) -> list[str]:
    """Trains on `updates` with the probe; what differs from the reference, in words."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    wrong = []
    with Probe(model, optimizer, every=1, activations_every=1, watches=model.watches()) as probe:
        for step, update in enumerate(updates):
            before = reference.snapshot(model)
            optimizer.zero_grad()
            for x, y in update:
                (F.cross_entropy(model(x), y) / len(update)).backward()
            grads = {name: p.grad.clone() for name, p in model.named_parameters()}
            optimizer.step()
            rows = reference.measured_rows(probe)
            expected = expected_rows(config, before, reference.snapshot(model), update, grads)
            assert [row["name"] for row in rows] == [row["name"] for row in expected]
            for row, wanted in zip(rows, expected, strict=True):
                cells = {"step": step, **wanted}
                wrong += reference.differences(row, cells, rtol=1e-8, atol=1e-12)
    assert probe.unseen == []
    return wrong


def drawn_in_place(model: nn.Module, activation: str) -> None:
    """Puts every parameter off its start, and the first channel of each layer far below 0."""
    generator = torch.Generator().manual_seed(11)
    far = {"relu": -9.0, "hardtanh": -9.0, "sigmoid": -5.0}.get(activation, -2.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            spread = 1 / math.sqrt(max(1, parameter[0].numel())) if parameter.ndim > 1 else 0.4
            parameter.copy_(0.1 + spread * noise if parameter.ndim < 2 else spread * noise)
            if parameter.ndim and name.endswith(("norm.bias", "conv.bias")):
                parameter[0] = far


def require_equations(config: ConvConfig, model: Network, task: Task) -> None:
    """Checks outputs, gradients, and every cell of `layers.csv` against the equations."""
    p = {name: v.requires_grad_() for name, v in reference.snapshot(model).items()}
    ((x, y),) = batches(task, 1, 3)
    _, expected = Equations(config, p)(x)
    out = model(x)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-11)
    F.cross_entropy(out, y).backward()
    F.cross_entropy(expected, y).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, p[name].grad, rtol=1e-8, atol=1e-10)
    model.zero_grad()
    assert wrong_cells(config, model, [batches(task, 1, 1), batches(task, 2, 2)]) == []


def require_twin(model: nn.Module, twin: nn.Module, x: Tensor) -> None:
    """Checks that two models give the same, in training and in evaluation."""
    for training in (True, False):
        model.train(training)
        twin.train(training)
        torch.testing.assert_close(model(x), twin(x), rtol=1e-9, atol=1e-11)


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
