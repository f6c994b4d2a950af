"""The probe on wrapped optimizers and on compiled models: measured all the same, or named in
`probe.unseen`; never an exception in somebody's training.

Holds: probe/optimizers.py, probe/compiled.py, probe/hooks.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgexp import Probe, torch_internals
from vgexp.errors import QuestionError
from vgexp.probe import compiled
from vgexp.probe.compiled import RAN_COMPILED
from vgexp.probe.weights import WeightMeter

# Of torch's compiler, with and without a probe: it looks at gradients of tensors that are no
# leaves, and does not like Python 3.13.0.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0"),
]

NUM_STEPS = 5


class Functional(nn.Module):
    """Its activation is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.inner(x))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), Functional(), nn.Linear(5, 3)).double()


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(NUM_STEPS):
        yield (
            torch.randn(6, 4, generator=generator, dtype=torch.float64),
            torch.randint(3, (6,), generator=generator),
        )


def train(call: Callable[[Tensor], Tensor], optimizer: Any) -> list[float]:
    """Losses of a plain loop."""
    losses = []
    for x, y in batches():
        optimizer.zero_grad()
        loss = F.cross_entropy(call(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def plain() -> tuple[list[float], Any]:
    """Losses and table of the network that nothing wraps."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    with Probe(model, optimizer, every=1, activations_every=3) as probe:
        losses = train(model, optimizer)
    frame = probe.to_frame()
    assert frame["act_std"].count() == 2 * 2
    return losses, frame


# ---------------------------------------------------------------- optimizers


class Unhooked(torch.optim.Optimizer):
    """As those of accelerate and torch_optimizer: it never calls the constructor of its class."""

    def __init__(self, optimizer: Any, name: str = "optimizer") -> None:
        self.name = name
        setattr(self, name, optimizer)

    @property
    def inner(self) -> Any:
        return getattr(self, self.name)

    @property
    def param_groups(self) -> Any:  # type: ignore[override]
        return self.inner.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)


class Holder:
    """As schedulefree's: no torch optimizer by its class, but one in `base`."""

    def __init__(self, base: Any) -> None:
        self.base = base

    @property
    def param_groups(self) -> Any:
        return self.base.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:
        return self.base.step(closure)


class Delegating(Unhooked):
    """As Lightning's: what it lacks it looks up in the optimizer that it wraps."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["optimizer"], name)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "optimizer": Unhooked,
    "base_optimizer": lambda inner: Unhooked(inner, "base_optimizer"),
    "_optimizer": lambda inner: Unhooked(inner, "_optimizer"),
    "base": Holder,
    "two deep": lambda inner: Unhooked(Holder(inner)),
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_wrapper_without_hooks_is_followed_to_the_optimizer_in_it(kind: str) -> None:
    losses, table = plain()
    model = network()
    inner = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    optimizer = WRAPPERS[kind](inner)
    with Probe(model, optimizer, every=1, activations_every=3) as probe:
        assert train(model, optimizer) == losses
    assert probe.to_frame().equals(table)
    assert probe.unseen == [
        f"the optimizer: {type(optimizer).__name__} takes no hooks: what is measured is the step of"
        " the SGD in it"
    ]
    assert hooks_of(inner) == 0


def test_a_wrapper_that_hands_its_hooks_to_the_optimizer_in_it_is_seen_wholly() -> None:
    losses, table = plain()
    model = network()
    inner = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    optimizer = Delegating(inner)
    with Probe(model, optimizer, every=1, activations_every=3) as probe:
        assert train(model, optimizer) == losses
    assert probe.to_frame().equals(table)
    assert probe.unseen == []
    assert hooks_of(inner) == 0


def test_an_optimizer_that_takes_no_hooks_is_named_and_training_goes_on() -> None:
    losses, _ = plain()
    model = network()
    inner = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    optimizer = Unhooked(inner, "kept_elsewhere")
    for _ in range(2):
        with Probe(model, optimizer) as probe:
            pass
    with probe:
        assert train(model, optimizer) == losses
    assert len(probe.to_frame()) == 0
    assert any("Unhooked takes no hooks and holds no optimizer" in line for line in probe.unseen)


class Circular:
    """Holds another, which holds this one."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.param_groups = [{"params": parameters}]
        self.optimizer: Any = None

    def step(self) -> None:
        pass


def test_wrappers_in_a_circle_are_followed_once() -> None:
    model = network()
    optimizer, other = (Circular([*model.parameters()]) for _ in range(2))
    optimizer.optimizer, other.optimizer = other, optimizer
    with Probe(model, optimizer) as probe:  # type: ignore[arg-type]
        optimizer.step()
    assert any("Circular takes no hooks and holds no optimizer" in line for line in probe.unseen)


@pytest.mark.parametrize("thing", [{"optimizer": 1}, torch.optim.SGD, None, "sgd"])
def test_what_is_no_optimizer_is_refused(thing: Any) -> None:
    kind = type(thing).__name__
    with pytest.raises(QuestionError, match=f"optimizer is of type {kind}\nallowed: a torch.optim"):
        Probe(network(), thing)


@pytest.mark.parametrize("name", ["StepLR", "ReduceLROnPlateau", "CosineLRScheduler"])
def test_a_scheduler_is_refused_in_favour_of_its_optimizer(name: str) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler: Any
    if name == "StepLR":
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    elif name == "ReduceLROnPlateau":
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    else:  # as timm has them

        class CosineLRScheduler:
            def __init__(self) -> None:
                self.optimizer = optimizer

            def step(self, epoch: int) -> None: ...

            def get_cycle_length(self) -> int:
                return 1

        scheduler = CosineLRScheduler()
    wanted = rf"optimizer is a {name}, which schedules one\nallowed: .*Probe\(model, scheduler.opt"
    with pytest.raises(QuestionError, match=wanted):
        Probe(model, scheduler)


class HalfHooked(torch.optim.SGD):
    """Refuses the second of the two hooks."""

    refuses = True

    def register_step_post_hook(self, hook: Any) -> Any:
        if self.refuses:
            raise RuntimeError("no hooks after the step")
        return super().register_step_post_hook(hook)


def test_an_optimizer_that_refuses_one_hook_keeps_none_and_can_be_tried_again() -> None:
    model = network()
    optimizer = HalfHooked(model.parameters(), lr=0.1)
    probe = Probe(model, optimizer, every=1)
    with probe:
        assert hooks_of(optimizer) == 0
        train(model, optimizer)
    assert probe.step == 0
    optimizer.refuses = False
    with probe:
        train(model, optimizer)
    assert probe.step == NUM_STEPS
    assert hooks_of(optimizer) == 0


class Failing:
    """A meter that cannot be armed."""

    table = "time"

    def arm(self) -> None:
        raise RuntimeError("cannot be armed")

    def disarm(self) -> None:
        pass


def test_an_enter_that_fails_leaves_no_hook_and_can_be_repeated() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    failing: Any = Failing()
    probe = Probe(model, optimizer, meters=[failing])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="cannot be armed"):
            probe.__enter__()
        assert hooks_of(optimizer) == 0
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class TwoSteps(torch.optim.SGD):
    """As SAM: an update is made by two methods that no hook is called around."""

    def first_step(self) -> None:
        pass

    def second_step(self) -> None:
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.sub_(p.grad, alpha=group["lr"])


def test_updates_by_methods_of_an_optimizers_own_are_named_as_unseen() -> None:
    model = network()
    optimizer = TwoSteps(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        for x, y in batches():
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.first_step()
            optimizer.second_step()
    assert len(probe.to_frame()) == 0
    assert any("updates by first_step and second_step" in line for line in probe.unseen)


def hooks_of(optimizer: torch.optim.Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


class Scaled(Unhooked):
    """As accelerate's: it holds the scaler, and has it call the inner optimizer."""

    def __init__(self, optimizer: Any, scaler: torch.amp.GradScaler) -> None:
        super().__init__(optimizer)
        self.scaler = scaler

    def step(self, closure: Any = None) -> Any:
        assert closure is None
        self.scaler.step(self.inner)
        self.scaler.update()


class Outer(Unhooked):
    """Within the scaler, which is given this one."""

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        self._step_supports_amp_scaling = getattr(optimizer, "_step_supports_amp_scaling", False)

    def step(self, closure: Any = None) -> Any:
        assert closure is None
        if self._step_supports_amp_scaling:
            self.inner.grad_scale, self.inner.found_inf = self.grad_scale, self.found_inf
        return self.inner.step()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", ["holds its scaler", "is given to it"])
def test_the_loss_scale_is_found_and_divided_out_through_wrappers(kind: str, fused: bool) -> None:
    def rows(scale: float) -> list[Any]:
        model = network().float()
        inner = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        held: Any = Scaled(inner, scaler) if kind == "holds its scaler" else Outer(Outer(inner))
        with Probe(model, held, every=1, activations_every=1) as probe:
            for x, y in batches():
                held.zero_grad()
                scaler.scale(F.cross_entropy(model(x.float()), y)).backward()
                if kind == "holds its scaler":
                    held.step()
                else:
                    scaler.step(held)
                    scaler.update()
        frame = probe.to_frame()
        assert len(frame) == 3 * NUM_STEPS
        return [*frame["delta_rms"], *frame["grad_norm"]]

    assert rows(2.0**12) == pytest.approx(rows(1.0), rel=1e-5)


@pytest.mark.parametrize("method", ["copy_weights", "take_gradients"])
def test_what_fails_of_weights_leaves_the_passes_measured(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: WeightMeter) -> None:
        raise RuntimeError("no luck")

    losses, table = plain()
    monkeypatch.setattr(WeightMeter, method, fail)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    with Probe(model, optimizer, every=1, activations_every=3) as probe:
        assert train(model, optimizer) == losses
    frame = probe.to_frame()
    lost = "weight_norm" if method == "copy_weights" else "grad_norm"
    for name in ("layer", "preact_std", "delta_rms", "backward_gain"):
        assert frame[name].equals(table[name])
    assert frame[lost].isna().all()
    assert probe.unseen == ["the model: measuring raised RuntimeError: no luck"]


# ---------------------------------------------------------------- torch.compile


class Counting:
    """A backend that runs graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.num_graphs = 0

    def __call__(self, graph: Any, _inputs: Any) -> Any:
        self.num_graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def _forget_graphs() -> Iterator[None]:
    yield
    if torch_internals.compiler_is_loaded():
        torch.compiler.reset()


def compile_module(model: nn.Module, **options: Any) -> Callable[[Tensor], Tensor]:
    return torch.compile(model, **options)


def compile_in_place(model: nn.Module, **options: Any) -> Callable[[Tensor], Tensor]:
    model.compile(**options)
    return model


def compile_function(model: nn.Module, **options: Any) -> Callable[[Tensor], Tensor]:
    return torch.compile(lambda x: model(x) * 1, **options)


def compile_parts(model: nn.Module, **options: Any) -> Callable[[Tensor], Tensor]:
    for part in list(model.children())[:3]:
        part.compile(**options)
    return model


def compile_a_part_in_its_place(model: nn.Module, **options: Any) -> Callable[[Tensor], Tensor]:
    model[2] = torch.compile(model[2], **options)  # type: ignore[operator,index]
    return model


COMPILING = {
    "the module": compile_module,
    "the module in place": compile_in_place,
    "a function that calls it": compile_function,
    "its parts": compile_parts,
    "a part that it holds": compile_a_part_in_its_place,
}


@pytest.mark.parametrize(
    ("kind", "called_before"), [*((kind, False) for kind in COMPILING), ("the module", True)]
)
def test_a_compiled_model_has_its_graphs_its_losses_and_its_rows(
    kind: str, called_before: bool
) -> None:
    losses, table = plain()

    def run(is_probed: bool) -> int:
        model, backend = network(), Counting()
        call = COMPILING[kind](model, backend=backend, fullgraph=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        if called_before:
            call(next(batches())[0])
        if not is_probed:
            assert train(call, optimizer) == losses
        else:
            outermost = call if isinstance(call, nn.Module) else model
            with Probe(outermost, optimizer, every=1, activations_every=3) as probe:
                assert train(call, optimizer) == losses
            assert probe.to_frame().equals(table)
            assert probe.unseen == []
        return backend.num_graphs

    num_graphs = run(is_probed=False)
    assert num_graphs > 0
    torch.compiler.reset()
    assert run(is_probed=True) == num_graphs


# torch 2.11 loads code of its own that it calls deprecated.
@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_a_compiled_training_step_has_its_graphs_and_every_step_is_counted() -> None:
    losses, table = plain()

    def run(is_probed: bool) -> int:
        model, backend = network(), Counting()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)

        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        compiled_step = torch.compile(step, backend=backend)
        if not is_probed:
            assert [compiled_step(*batch).item() for batch in batches()] == losses
        else:
            with Probe(model, optimizer, every=1, activations_every=3) as probe:
                assert [compiled_step(*batch).item() for batch in batches()] == losses
            assert probe.to_frame().equals(table)
        return backend.num_graphs

    num_graphs = run(is_probed=False)
    torch.compiler.reset()
    # Fewer, since the first step, in which the optimizer makes its state, runs uncompiled.
    assert 0 < run(is_probed=True) <= num_graphs


@pytest.mark.parametrize("kind", ["the module", "the module in place", "a function that calls it"])
def test_what_is_compiled_within_a_measured_step_is_measured_in_the_next(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, table = plain()
    is_loaded = False
    monkeypatch.setattr(compiled, "compiler_is_loaded", lambda: is_loaded)
    model, backend = network(), Counting()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    with Probe(model, optimizer, every=1, activations_every=3) as probe:
        call = COMPILING[kind](model, backend=backend, fullgraph=True)
        is_loaded = True
        assert train(call, optimizer) == losses
    # One more where the hooks that were traced are gone.
    assert backend.num_graphs <= 2
    assert probe.unseen == [f"the model: {RAN_COMPILED}"]
    frame = probe.to_frame()
    shown = frame.groupby("step")["delta_rms"].count()
    assert shown.to_dict() == {0: 0, 1: 3, 2: 0, 3: 3, 4: 0}
    third = frame[frame["step"] == 3].reset_index(drop=True)
    assert third.equals(table[table["step"] == 3].reset_index(drop=True))


def test_the_compilers_stance_is_what_it_was_when_no_probe_measures() -> None:
    import torch._dynamo

    before = torch_internals.compiler_stance()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = next(batches())[0]

    def step() -> str:
        model(x).sum().backward()
        optimizer.step()
        return str(torch_internals.compiler_stance().stance)  # type: ignore[attr-defined]

    with Probe(model, optimizer, activations_every=2), Probe(model, optimizer, activations_every=3):
        # Both measure step 0, the second step 3, the first steps 2 and 4.
        assert [step() for _ in range(4)] == [
            "default",
            "force_eager",
            "force_eager",
            "force_eager",
        ]
    assert torch_internals.compiler_stance() is before

    def fail() -> None:
        with Probe(model, optimizer):
            assert torch_internals.compiler_stance() is not before
            raise KeyError("the user's own")

    with pytest.raises(KeyError):
        fail()
    assert torch_internals.compiler_stance() is before


def test_a_stance_of_the_users_own_is_kept_and_brought_back() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = next(batches())[0]
    probe = Probe(model, optimizer, activations_every=2)
    before = torch_internals.compiler_stance()
    probe.__enter__()
    with torch.compiler.set_stance("eager_on_recompile"):
        own = torch_internals.compiler_stance()
        model(x).sum().backward()
        optimizer.step()
        assert torch_internals.compiler_stance() is own
    # The user's `with` began in a measured step, and brings its stance back after it.
    assert torch_internals.compiler_stance() is not before
    probe.__exit__(None, None, None)
    assert torch_internals.compiler_stance() is before
