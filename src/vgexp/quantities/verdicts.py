"""The verdicts on a run, each with the rule that gives it."""

from __future__ import annotations

from collections.abc import Mapping

VERDICTS: Mapping[str, str] = {
    "diverged": "the loss, or a gradient, became non-finite; this comes before all others",
    "healthy": "it learned and still knows it: the best and the last mean of the training loss over"
    " 20 steps are below 0.9 of the loss of the best constant prediction, whatever the signal",
    "relapsed": "it learned and lost it: the best of these means is below that, the last is not",
    "vanishing": "it did not learn, and layer 1 gets less than 1/1000 of what layer L gets at step"
    " 0",
    "exploding": "it did not learn, and layer 1 gets more than 1000 times what layer L gets at"
    " step 0",
    "undecided": "it has not learned, the signal is steady, and the run is too short to tell: fewer"
    " than 100 steps, or a loss that still falls (the median of the last quarter of the steps is"
    " below that of the quarter before by more than 1 % of the constant prediction's loss and by"
    " more than 3 standard errors)",
    "stalled": "it has not learned, the signal is steady, and the loss does not fall any more",
}
"""Verdict -> when it is given, in the order in which they are tried. Where nobody knows the loss of
a constant prediction there is no verdict but `diverged`."""
