"""The bars of a run's own numbers, by the figure that shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vgexp.diagnosis.through_time import last_hidden
from vgexp.explain.bars import Bars, bars_of_numbers

if TYPE_CHECKING:
    from vgexp.explain.own import Own

_AT_FIRST, _AT_LAST = False, True


def bars_of_run(figure: str, own: Own) -> Bars | None:
    """The bars that stand for a figure; None where the run has no numbers of it."""
    made = _MAKERS.get(figure)
    return None if made is None else made(own)


def _of_layers(column: str, words: str, *, last: bool) -> Callable[[Own], Bars | None]:
    def make(own: Own) -> Bars | None:
        values, step = own.layers(column, last=last), own.step_of(column, last=last)
        labelled = {f"layer {layer}": value for layer, value in values.items()}
        return bars_of_numbers(f"{words} ({column}) at step {step}", labelled)

    return make


def _of_steps(column: str, words: str) -> Callable[[Own], Bars | None]:
    def make(own: Own) -> Bars | None:
        values = {f"step {step}": value for step, value in own.by_step(column).items()}
        return bars_of_numbers(f"{words} ({column})", values)

    return make


def _shares(own: Own) -> Bars | None:
    """Of dead units, or of saturated entries where these are the larger share."""
    columns = {"dead_fraction": "dead units", "saturated_fraction": "saturated entries"}
    most = {name: max(own.layers(name, last=True).values(), default=-1.0) for name in columns}
    column = max(columns, key=lambda name: most[name])
    return _of_layers(column, f"share of {columns[column]}", last=_AT_LAST)(own)


def _through_time(own: Own) -> Bars | None:
    time = own.run.table("time", ("step", "layer", "name", "t", "delta_rms"))
    if time is None or not len(time):
        return None
    first = time["step"].min()
    states = last_hidden(time[time["step"] == first]).dropna(subset=["delta_rms"])
    values = {
        f"t {int(t)}": float(x) for t, x in zip(states["t"], states["delta_rms"], strict=True)
    }
    return bars_of_numbers(f"the signal back through time (delta_rms) at step {first}", values)


def _of_table(table: str, column: str, by: str, words: str) -> Callable[[Own], Bars | None]:
    """Of a narrow table: by step, or by layer at the last step."""

    def make(own: Own) -> Bars | None:
        frame: Any = own.run.table(table, tuple(dict.fromkeys(("step", by, column))))
        if frame is None or column not in frame or not len(frame):
            return None
        rows = frame.dropna(subset=[column])
        if by != "step":
            rows = rows[rows["step"] == rows["step"].max()]
        pairs = zip(rows[by], rows[column], strict=True)
        return bars_of_numbers(words, {f"{by} {int(at)}": abs(float(x)) for at, x in pairs})

    return make


_BACKWARD = _of_layers("delta_rms", "the backward signal", last=_AT_FIRST)
_LOSS = _of_steps("loss", "the training loss")
_MAKERS: Mapping[str, Callable[[Own], Bars | None]] = {
    "backward_signal": _BACKWARD,
    "at_start": _BACKWARD,
    "jacobian": _BACKWARD,
    "gradient_map": _of_layers("grad_norm", "the gradient of the weights", last=_AT_FIRST),
    "forward_signal": _of_layers("preact_std", "the spread of z", last=_AT_FIRST),
    "distributions": _of_layers("preact_std", "the spread of z", last=_AT_LAST),
    "shares": _shares,
    "update_ratios": _of_layers("update_ratio", "an update over the weight", last=_AT_LAST),
    "learning_curves": _LOSS,
    "overview": _LOSS,
    "gradient_norms": _of_steps("grad_norm", "the gradient of the whole network"),
    "curvature": _of_table("curvature", "hessian_max", "step", "size of the largest eigenvalue"),
    "attention_entropy": _of_table(
        "attention", "entropy_fraction", "layer", "how widely each block looks, at the last step"
    ),
    "through_time": _through_time,
    "time_at_start": _through_time,
}
"""Figure -> what makes its bars."""
