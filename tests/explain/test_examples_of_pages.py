"""The scripts whose numbers pages tell.

Holds: examples/stored_activations.py, examples/without_backpropagation.py
"""

from __future__ import annotations

import re

import pytest
import stored_activations
import torch
from torch import nn
from torch.func import grad

from vgexp.explain import TOPICS


def test_one_activation_a_layer_is_kept_and_checkpoints_keep_fewer() -> None:
    numbers = stored_activations.DEPTH * stored_activations.WIDTH * 16
    whole = stored_activations.bytes_kept(16)
    assert whole == pytest.approx(4 * numbers, rel=0.03)  # and the input
    assert stored_activations.bytes_kept(16, checkpoints=7) < whole / 3


def test_the_page_has_the_bytes_that_the_script_prints() -> None:
    (told,) = (
        each.result
        for each in TOPICS["why_activations_are_stored"].measured
        if each.command.startswith("python")
    )
    kept = [stored_activations.bytes_kept(batch) / 1e6 for batch in (16, 256)]
    assert ", ".join(f"{each:.1f}" for each in kept) in told


# torch warns of its own way of making forward derivatives.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_derivatives_along_random_directions_are_the_gradient_in_the_mean() -> None:
    import without_backpropagation  # it loads torch's compiler

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
    loss = without_backpropagation.make_loss(network)
    start = {name: p.detach() for name, p in network.named_parameters()}
    x, y = torch.randn(8, 2), torch.randint(2, (8,))
    made = without_backpropagation.estimate(loss, start, x, y, 3000)
    true = grad(loss)(start, x, y)
    flat = [torch.cat([g.flatten() for g in each.values()]) for each in (made, true)]
    cosine = float(torch.cosine_similarity(*flat, 0))
    # 12 parameters: sqrt(3000 / (3000 + 13)) = 0.998
    assert cosine == pytest.approx(0.998, abs=0.002)
    assert float(flat[0].norm() / flat[1].norm()) == pytest.approx(1, abs=0.15)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_the_page_has_the_cosines_that_the_script_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import without_backpropagation

    monkeypatch.setattr(without_backpropagation, "DIRECTIONS", (1, 10, 100))
    without_backpropagation.main(2)
    shown = re.findall(r"cosine to the gradient (\S+)", capsys.readouterr().out)
    (told,) = (
        each.result
        for each in TOPICS["without_backprop"].measured
        if each.command.startswith("python")
    )
    assert "cosine {}, {}".format(*(f"{float(each):.2f}" for each in shown[1:])) in told
