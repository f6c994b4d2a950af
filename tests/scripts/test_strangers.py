"""The check of models of other packages, on small models of the test's own: it is right of sound
and of sick ones, and says what is wrong.

Holds: scripts/strangers.py, scripts/stranger_models/checks.py
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from stranger_models.checks import check
from stranger_models.model import NUM_EXAMPLES, Stranger, Update
from strangers import _line
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Its output is its input times a factor, and a branch."""

    def __init__(self, keep: float) -> None:
        super().__init__()
        self.linear, self.keep = nn.Linear(8, 8), keep

    def forward(self, x: Tensor) -> Tensor:
        return self.keep * x + self.keep * torch.tanh(self.linear(x))


def stranger(keep: float) -> Stranger:
    def make() -> tuple[nn.Module, Update]:
        model = nn.Sequential(nn.Linear(5, 8), *[Block(keep) for _ in range(4)], nn.Linear(8, 3))
        x, y = torch.randn(NUM_EXAMPLES, 5), torch.randint(3, (NUM_EXAMPLES,))
        return model, lambda net: F.cross_entropy(net(x), y)

    return Stranger("own", make, blocks="[1-4]", readouts=("5.weight",))


@pytest.mark.parametrize(("keep", "said"), [(1.0, "steady"), (0.05, "vanishes")])
def test_a_model_is_right_where_rows_structure_and_verdict_agree_with_the_truth(
    keep: float, said: str
) -> None:
    result = check(stranger(keep))
    assert result.is_right
    assert (result.true_attenuation < 1e-3) == (said == "vanishes")
    assert f"4/4     {said} (true" in _line(result)
    assert not dataclasses.replace(result, said="").is_right
    wrong = "explodes" if said == "steady" else "steady"
    assert not dataclasses.replace(result, said=f"The gradient {wrong}").is_right


def test_a_read_out_that_was_not_found_is_wrong() -> None:
    result = check(dataclasses.replace(stranger(1.0), readouts=("4.weight",)))
    assert not result.is_right
    assert "missed" in _line(result)
    assert _line(result).endswith("WRONG")
