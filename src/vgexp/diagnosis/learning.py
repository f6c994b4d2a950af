"""Whether a network learned, whether it still knows it, and whether its loss still falls."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vgexp.diagnosis.readings import Values, running_means
from vgexp.quantities import NUM_STEPS_AVERAGED

LEARNED_BELOW = 0.9
"""Share of a constant guess's loss below which a network has learned."""
HALF = 0.5
"""Share of the first loss below which a loss of unknown kind counts as learned; one that ends above
this share of a constant guess's has learned little."""
ENOUGH_STEPS = 100
"""Steps that a run must have before it is said that it does not learn."""

_LEAST_FALL = 0.01
"""Share of a constant guess's loss that a quarter of the run must bring, to be a fall."""
_ERRORS = 3.0
"""Standard errors that a fall must exceed, to be more than the scatter of batches."""
_ERROR_OF_MEDIAN = math.sqrt(math.pi / 2)
"""Standard error of a median, over that of a mean, of normal values."""
_DEVIATION_OF_NORMAL = 1.4826
"""Standard deviation of normal values over their median distance from the median."""


@dataclass(frozen=True)
class Learning:
    """What a training loss says, beside that of a constant guess."""

    learned: bool | None
    """Whether the best mean over 20 steps was below 0.9 of a constant guess's loss; None: nobody
    knows what that is."""
    keeps: bool | None
    """Whether the last mean over 20 steps is below it too."""
    is_short: bool
    """Whether there are too few steps, or a loss that still falls, to say that it does not
    learn."""
    relapse_step: int | None
    """The last step of the last 20 whose mean was below it, of a network that learned and lost it;
    else None."""


def learning_of(steps: pd.DataFrame, constant_loss: float) -> Learning:
    """What the training loss says, from rows as in `steps.csv`.

    With fewer than 20 steps a mean over 20 is that over all. A mean with a non-finite loss counts
    as one that is not below anything.

    Args:
        constant_loss: the best loss of a prediction that ignores the input; nan: not known.
    """
    is_short = len(steps) < ENOUGH_STEPS or still_falls(steps["loss"], constant_loss)
    if math.isnan(constant_loss):
        return Learning(None, None, is_short, None)
    means = running_means(steps["loss"])
    below = np.flatnonzero(means < LEARNED_BELOW * constant_loss)
    if not below.size:
        return Learning(False, False, is_short, None)
    keeps = bool(below[-1] == means.size - 1)
    last = below[-1] + min(NUM_STEPS_AVERAGED, len(steps)) - 1
    return Learning(True, keeps, is_short, None if keeps else int(steps["step"].iloc[last]))


def has_learned(steps: pd.DataFrame, constant_loss: float) -> bool | None:
    """Whether the best mean training loss over 20 steps is below 0.9 of a constant guess's.

    A window with a non-finite loss does not count. With fewer than 20 steps it is the mean over
    all. None if the loss of a constant guess is not known (nan).
    """
    return learning_of(steps, constant_loss).learned


def learned_below(first: float, constant_loss: float | None) -> float:
    """The loss below which a network has learned.

    Args:
        first: the first loss, which counts where nobody knows what a guess costs.
        constant_loss: that of a constant guess; None or nan: not known.
    """
    if constant_loss is None or math.isnan(constant_loss):
        return HALF * first
    return LEARNED_BELOW * constant_loss


def still_falls(losses: pd.Series, constant_loss: float) -> bool:
    """Whether a loss still falls at the end of a run.

    The median over the last quarter of the steps is compared with that over the quarter before: it
    has to be lower by more than 1 % of a constant guess's loss, and by more than 3 standard errors
    of the difference. Medians and their errors (from the median distance to the median) are not
    moved by single spikes. A constant loss does not fall, however many steps there are; with fewer
    than 8 finite losses nothing can be told, and it counts as no fall.

    Args:
        constant_loss: where it is not known (nan), 1 % of the quarter before is asked for.
    """
    values = losses.to_numpy(dtype="float64")
    quarter = len(values) // 4
    if quarter < 2 or not np.isfinite(values[-2 * quarter :]).all():
        return False
    before, last = values[-2 * quarter : -quarter], values[-quarter:]
    fall = float(np.median(before) - np.median(last))
    scale = float(np.median(before)) if math.isnan(constant_loss) else constant_loss
    error = math.hypot(_error_of_median(before), _error_of_median(last))
    return fall > max(_LEAST_FALL * abs(scale), _ERRORS * error)


def is_below_guess(losses: pd.Series, constant_loss: float) -> bool:
    """Whether a loss ends below a constant guess's by more than the scatter of batches.

    The mean over the last quarter of the steps has to be lower than the guess by more than 1 % of
    it and by more than 3 standard errors of that mean, and no higher than the mean over the first
    20 steps. With fewer than 100 steps, or where a loss of that quarter is not finite, it is not.

    Args:
        constant_loss: the best loss of a prediction that ignores the input; nan: not known.
    """
    values = losses.to_numpy(dtype="float64")
    last = values[-(len(values) // 4) :]
    if len(values) < ENOUGH_STEPS or not np.isfinite(last).all():
        return False
    mean, error = float(last.mean()), float(last.std()) / math.sqrt(len(last))
    limit = max(_LEAST_FALL * abs(constant_loss), _ERRORS * error)
    return constant_loss - mean > limit and not mean > float(values[:NUM_STEPS_AVERAGED].mean())


def falls_and_rises(losses: pd.Series) -> bool:
    """Whether a loss fell and rose again by more than means over 20 steps scatter.

    The scatter is that of differences between losses one after the other, by their median, which a
    fall and a rise do not move. Of n means the luckiest is sqrt(2 ln n) deviations below that of
    all, and the unluckiest as much above: the last mean has to be 3 deviations and one such range
    above the lowest, and one before the lowest 3 and two of them, or the first loss 3 and one by
    deviations of single losses. An end that is not finite is a rise.
    """
    means = running_means(losses)
    values = losses.to_numpy(dtype="float64")
    if means.size < 2 or not np.isfinite(means).any():
        return False
    at = int(np.nanargmin(np.where(np.isfinite(means), means, np.nan)))
    steps = np.diff(values)
    steps = np.abs(steps[np.isfinite(steps)])
    scatter = _DEVIATION_OF_NORMAL * float(np.median(steps)) / math.sqrt(2) if steps.size else 0.0
    lucky = math.sqrt(2 * math.log(means.size))
    error = scatter / math.sqrt(min(NUM_STEPS_AVERAGED, len(values)))
    low = means[at]
    fell = not values[0] <= low + (_ERRORS + lucky) * scatter
    fell = fell or not (means[:at] <= low + (_ERRORS + 2 * lucky) * error).all()
    return bool(fell and not means[-1] <= low + (_ERRORS + lucky) * error)


def _error_of_median(values: Values) -> float:
    distance = float(np.median(np.abs(values - np.median(values))))
    return _ERROR_OF_MEDIAN * _DEVIATION_OF_NORMAL * distance / math.sqrt(len(values))
