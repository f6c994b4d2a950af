"""What the best constant answer costs, against what torch's minimiser finds.

Holds: probe/guesses.py, probe/constant_guess.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vgexp
from vgexp.probe import constant_guess
from vgexp.probe.guesses import Guesses

Loss = Callable[[Tensor, Tensor], Tensor]
R, C, K = 400, 3, 5


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def drawn(kind: str) -> Tensor:
    """Targets, each column with a mean of its own."""
    g = generator()
    normal = torch.randn(R, C, generator=g, dtype=torch.float64) * 2 + torch.tensor([0.0, 1, 5])
    if kind == "numbers":
        return normal
    if kind == "binary":
        return (normal > 1.5).double()
    if kind == "signs":
        return (normal > 1.5).double() * 2 - 1
    if kind == "counts":
        return normal.abs().round()
    if kind == "rows":
        return normal.softmax(1)
    return torch.multinomial(torch.tensor([8.0, 4, 2, 1, 1]), R, True, generator=g)


def least(loss: Loss, target: Tensor) -> float:
    """The least loss of an answer that is the same for all rows, by Newton's kind of steps."""
    size = target.shape[1] if target.is_floating_point() else K
    answer = torch.full((1, size), 0.3, dtype=torch.float64, requires_grad=True)
    minimiser = torch.optim.LBFGS(
        [answer], max_iter=400, tolerance_grad=1e-12, tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        minimiser.zero_grad()
        value = loss(answer.expand(len(target), -1), target)
        value.backward()
        return value

    minimiser.step(closure)
    return float(closure().detach())


def found(loss: Loss, target: Tensor, output_of: Callable[[Tensor], Tensor] = lambda x: x) -> float:
    """What is found by the values of a loss at two calls."""
    guesses = Guesses()
    size = target.shape[1] if target.is_floating_point() else K
    for half in target.chunk(2):
        scores = torch.randn(len(half), size, generator=generator(), dtype=torch.float64)
        output = output_of(scores.requires_grad_())
        guesses.see(loss, [("o", output), ("t", half)], loss(output, half))
    cost = guesses.cost()
    assert cost is not None
    return cost


def by_hand(o: Tensor, t: Tensor) -> Tensor:
    return (o - t).abs().sum(1).mean()


def focal(o: Tensor, t: Tensor, gamma: float = 2.0) -> Tensor:
    cost = F.cross_entropy(o, t, reduction="none")
    return ((1 - (-cost).exp()) ** gamma * cost).mean()


def binary_focal(o: Tensor, t: Tensor) -> Tensor:
    cost = F.binary_cross_entropy_with_logits(o, t, reduction="none")
    right = o.sigmoid() * t + (1 - o.sigmoid()) * (1 - t)
    return ((0.25 * t + 0.75 * (1 - t)) * (1 - right) ** 2 * cost).mean()


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (F.smooth_l1_loss, "numbers"),
        (nn.SmoothL1Loss(beta=0.3), "numbers"),
        (F.huber_loss, "numbers"),
        (nn.HuberLoss(delta=2.5, reduction="sum"), "numbers"),
        (F.binary_cross_entropy_with_logits, "binary"),
        (partial(F.binary_cross_entropy_with_logits, reduction="sum"), "binary"),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 5.0])), "binary"),
        (binary_focal, "binary"),
        (F.poisson_nll_loss, "counts"),
        (F.soft_margin_loss, "signs"),
        (F.cross_entropy, "rows"),
        (lambda o, t: F.kl_div(o.log_softmax(1), t, reduction="batchmean"), "rows"),
        (focal, "labels"),
        (partial(focal, gamma=0.5), "labels"),
    ],
)
def test_what_is_found_is_the_least_that_a_constant_answer_costs(loss: Loss, kind: str) -> None:
    target = drawn(kind)
    halves = R / 2 if getattr(loss, "reduction", "") == "sum" or "sum" in str(loss) else R
    assert found(loss, target) == pytest.approx(least(loss, target) * halves / R, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "is_known"),
    [(lambda o, t: F.mse_loss(o[:, 0], t), True), (lambda o, t: (o - t).square().mean(), False)],
)
def test_a_function_may_leave_out_an_axis_itself_and_one_over_all_pairs_is_not_known(
    loss: Loss, is_known: bool
) -> None:
    guesses, target = Guesses(), drawn("numbers")[:, 0]
    for half in target.chunk(2):
        output = torch.randn(len(half), 1, generator=generator(), dtype=torch.float64)
        guesses.see(loss, [("o", output.requires_grad_()), ("t", half)], loss(output, half))
    assert guesses.cost() == (pytest.approx(float(target.var(correction=0))) if is_known else None)


@pytest.mark.parametrize("reduce", [by_hand, F.l1_loss, lambda o, t: (o - t).abs().sum()])
def test_distances_are_least_at_the_median_of_each_column(reduce: Loss) -> None:
    target = drawn("numbers")
    median = target.quantile(0.5, dim=0).expand_as(target)
    part = 0.5 if reduce(median[:2], target[:2]) * 2 < reduce(median, target) / 10 else 1.0
    assert found(reduce, target) == pytest.approx(part * float(reduce(median, target)), rel=1e-9)


def test_a_hinge_is_least_at_one_of_its_kinks() -> None:
    target = drawn("signs")
    grid = torch.linspace(-2, 2, 81, dtype=torch.float64)
    costs = torch.stack([(1 - target * c).clamp(min=0).mean(0) for c in grid]).amin(0).mean()
    assert found(lambda o, t: (1 - t * o).clamp(min=0).mean(), target) == pytest.approx(
        float(costs), rel=1e-12
    )


@pytest.mark.parametrize(
    ("loss", "output_of"),
    [
        (F.cross_entropy, lambda x: x),
        (F.nll_loss, lambda x: x.log_softmax(1)),
        (lambda o, t: -(o[range(len(t)), t] + 0).log().mean(), lambda x: x.softmax(1)),
        (nn.CrossEntropyLoss(label_smoothing=0.1), lambda x: x),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1, 1, 9, 9]).double()), lambda x: x),
    ],
)
def test_labels_cost_their_entropy_beside_what_few_labels_hide(
    loss: Loss, output_of: Callable[[Tensor], Tensor]
) -> None:
    target = drawn("labels")
    function = F.cross_entropy if output_of(torch.zeros(1, 2)).sum() else loss
    by_minimiser = least(function, target)
    assert found(loss, target, output_of) == pytest.approx(by_minimiser, abs=2 * (K - 1) / (2 * R))
    assert found(loss, target, output_of) > by_minimiser


@pytest.mark.parametrize(
    ("positions", "loss"),
    [
        (8, lambda o, t: F.cross_entropy(o[:, :-1].flatten(0, 1), t[:, 1:].flatten())),
        (9, lambda o, t: F.cross_entropy(o[:, :-1].flatten(0, 1), t.flatten())),
        (9, lambda o, t: F.cross_entropy(o[:, 1:].flatten(0, 1), t.flatten())),
        (7, lambda o, t: F.cross_entropy(o.flatten(0, 1), t[:, 1:].flatten())),
    ],
)
def test_a_loss_of_the_next_token_may_cut_positions_and_labels_itself(
    positions: int, loss: Loss
) -> None:
    guesses, target = Guesses(), drawn("labels").view(-1, 8)
    for half in target.chunk(2):
        scores = torch.randn(len(half), positions, K, generator=generator(), dtype=torch.float64)
        guesses.see(loss, [("o", scores.requires_grad_()), ("t", half)], loss(scores, half))
    assert guesses.cost() == pytest.approx(found(F.cross_entropy, drawn("labels")), rel=0.05)


@pytest.mark.parametrize(
    ("loss", "kind", "expected"),
    [
        (F.binary_cross_entropy_with_logits, "signs", (-1.0, 1.0)),
        (lambda o, t: -(t * o.log() + (1 - t) * (1 - o).log()).mean(), "signs", (-1.0, 1.0)),
        (F.binary_cross_entropy_with_logits, "binary", None),
        (F.mse_loss, "signs", None),
    ],
)
def test_a_binary_cross_entropy_of_targets_that_are_no_shares_has_no_best_answer(
    loss: Loss, kind: str, expected: tuple[float, float] | None
) -> None:
    guesses = Guesses()
    for half in drawn(kind).chunk(2):
        scores = torch.rand(len(half), C, generator=generator(), dtype=torch.float64)
        guesses.see(loss, [("o", scores.requires_grad_()), ("t", half)], loss(scores, half))
    assert guesses.shares() == expected
    assert (guesses.cost() is None) == (expected is not None)


def test_scores_in_place_of_log_probabilities_have_no_best_answer() -> None:
    with pytest.raises(AssertionError):
        found(F.nll_loss, drawn("labels"))


def test_few_labels_of_many_classes_tell_nothing() -> None:
    assert np.isnan(constant_guess.of_labels(np.ones(50)))
    assert np.isnan(constant_guess.of_focal_labels(np.ones(50), 2.0))
    assert constant_guess.of_focal_labels(np.array([40.0, 0]), 2.0) == 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, t: F.mse_loss(o, t) + 0.1 * o.abs().mean(),
        lambda o, t: (o - t).abs().pow(1.3).mean(),
        lambda o, t: F.l1_loss(o, t) * (1 + t.std()),
    ],
)
def test_another_loss_is_not_known(loss: Loss) -> None:
    with pytest.raises(AssertionError):
        found(loss, drawn("numbers"))


def test_a_loss_that_changes_is_not_known() -> None:
    guesses, o = Guesses(), torch.randn(R, C, generator=generator()).double().requires_grad_()
    for loss in (F.l1_loss, F.l1_loss, F.mse_loss):
        guesses.see(loss, [("o", o), ("t", drawn("numbers"))], loss(o, drawn("numbers")))
        assert (guesses.cost() is None) is (loss is F.mse_loss or guesses._num_calls < 2)


@pytest.mark.parametrize(("learns", "health"), [(True, "healthy"), (False, "sick")])
def test_the_health_of_a_loop_follows_from_it(learns: bool, health: str) -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    with vgexp.Probe(net, optimizer) as probe:
        watched = probe.watch_loss(lambda o, t: F.huber_loss(o, t))
        for _ in range(160):
            x = torch.randn(64, 4)
            y = 2 * x[:, :3] if learns else torch.randn(64, 3)
            optimizer.zero_grad()
            watched(net(x), y + torch.tensor([0.0, 1.0, 2.0])).backward()
            optimizer.step()
    table = probe.to_frame("loss")
    costs = table.loc[table["role"] == "loss", "constant_loss"].dropna()
    assert 0.3 < costs.iloc[-1] < 2  # no more than what the columns' own means leave
    assert probe.diagnose().health == health


@pytest.mark.parametrize(("num_passes", "times"), [(1, 2.0), (2, 1.0)])
def test_a_loss_that_is_called_twice_an_update_costs_as_its_update_counts_the_calls(
    num_passes: int, times: float
) -> None:
    """Their sum where one pass goes through both, as of two critics; else their mean. Targets are
    those of both calls."""
    torch.manual_seed(0)
    net = nn.Linear(2, 1)
    given = [torch.full((8, 1), value) for value in (-1.0, 3.0)]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with vgexp.Probe(net, optimizer) as probe:
        watched = probe.watch_loss(nn.MSELoss())
        for _ in range(41):
            optimizer.zero_grad()
            calls = [watched(net(torch.randn(8, 2)), y) for y in given]
            for loss in [sum(calls)] if num_passes == 1 else calls:
                loss.backward()
            optimizer.step()
    table = probe.to_frame("loss")
    assert table["constant_loss"].dropna().iloc[-1] == pytest.approx(4.0 * times)


def test_a_cost_is_found_anew_as_targets_come_and_not_for_each_of_them() -> None:
    guesses, costs = Guesses(), []
    output = torch.zeros(2, 1, requires_grad=True)
    for number in range(1, 101):
        target = torch.full((2, 1), float(number))
        guesses.see(
            F.mse_loss, [("output", output), ("target", target)], F.mse_loss(output, target)
        )
        costs.append(guesses.cost())
    assert costs[-1] == pytest.approx((100**2 - 1) / 12, rel=0.15)
    assert 20 < len(set(costs)) < 60


@pytest.mark.parametrize("few", [False, True])
def test_minus_a_cross_entropy_costs_less_than_nothing_at_its_first_call(few: bool) -> None:
    labels = torch.randint(K, (20 if few else R,), generator=generator())
    scores = torch.randn(len(labels), K, generator=generator(), requires_grad=True)
    for loss, is_turned in ((-F.cross_entropy(scores, labels), True), (scores[:, 0].mean(), False)):
        guesses = Guesses()
        guesses.see(len, [("input", scores), ("target", labels)], loss)
        cost = guesses.cost()
        assert (cost is not None) == is_turned
        assert cost is None or cost == pytest.approx(-np.log(K), rel=0.02)


def test_a_mean_of_scores_is_no_turned_cross_entropy() -> None:
    labels = torch.randint(K, (R,), generator=generator())
    scores = torch.randn(R, K, generator=generator(), requires_grad=True)
    guesses = Guesses()
    guesses.see(len, [("input", scores), ("target", labels)], -F.nll_loss(scores, labels))
    assert guesses.cost() is None
