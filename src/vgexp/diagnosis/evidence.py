"""All that is known of a network when it is diagnosed: metrics, tables, configuration, facts."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from vgexp.diagnosis.cells import typed, with_numbers
from vgexp.diagnosis.signal import (
    Signal,
    loss_scales,
    main_path,
    require_columns,
    signal_of,
    underflow,
)
from vgexp.errors import QuestionError

if TYPE_CHECKING:
    from vgexp.config import Config

_TABLE = ".csv"
_FACTS = ("config", "dtype", "num_examples", "last_step")
_SETTINGS = "settings"
_OF_A_RUN = ("status", "signal", "verdict")
"""Metrics without which a summary is not that of a run with tables."""


@dataclass(frozen=True)
class Evidence:
    """What rules judge. What nobody measured, or nobody knows, is absent or None.

    Make it with `evidence_of_run`, `evidence_of_start` or `evidence_of_layers`, which compute the
    metrics once for all rules.
    """

    metrics: Mapping[str, Any]
    """Metrics as in `summary.json`. Two of the last measured step are not in that file:
    `num_layers_last` and `unmeasured_ends_last`."""
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Name (`layers`, `steps`, `curvature`, ...) -> rows, of the tables that are at hand. Those
    of a run on disk are read when a rule that needs them is asked."""
    config: Config | None = None
    """None for a network that somebody trains in a loop of their own."""
    dtype: str | None = None
    num_examples: int | None = None
    """Examples of an update, all micro-batches together."""
    first_step: int = 0
    """The first step with a backward signal."""
    last_step: int | None = None
    """The last step with a backward signal; None without a table of layers."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key -> value: the configuration of a run, or what is known of somebody's own loop."""
    unseen: Sequence[str] = ()
    """What the probe could not measure, and why."""
    is_untrained: bool = False
    """Whether these are networks at initialisation, measured by `vgexp signal`."""
    is_check: bool = False
    """Whether it is of one update that was tried on a copy, before training. The metric
    `loss_at_start` is then its loss, nan or infinite too."""
    withheld: Mapping[str, str] = field(default_factory=dict)
    """Rule -> why this evidence cannot decide it, though it has all that the rule needs."""
    raised: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Rule -> the error that it ended in; copies share it."""
    kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What several rules ask for, computed once; a changed copy computes it anew."""

    def lacks(self, need: str) -> bool:
        """Whether something that a rule needs is missing.

        Args:
            need: a table that must have rows (`curvature.csv`), a field of this class, or a metric;
                or several of them with `or` in between, of which one is enough.
        """
        return all(map(self._lacks, need.split(" or ")))

    def _lacks(self, need: str) -> bool:
        if need.endswith(_TABLE):
            table = self.tables.get(need.removesuffix(_TABLE))
            return table is None or not len(table)
        if need == _SETTINGS:
            return not self.settings
        if need in _FACTS:
            return getattr(self, need) is None
        return self.metrics.get(need) is None

    @property
    def num_steps(self) -> int | None:
        """The number of updates; None: nobody knows."""
        known = self.metrics.get("steps")
        if isinstance(known, int):
            return known
        steps, layers = self.tables.get("steps"), self.tables.get("layers")
        if steps is not None and len(steps):
            return len(steps)
        has_steps = layers is not None and "step" in layers and layers["step"].notna().any()
        return int(layers["step"].max()) + 1 if layers is not None and has_steps else None

    def note_raised(self, rule: str, error: Exception) -> None:
        """Notes that a rule ended in an error: it is unchecked, and nothing is lost for it."""
        self.raised[rule] = f"raised {type(error).__name__}: {error}"

    def names_of(self, *numbers: int) -> tuple[str, ...]:
        """Names of the layers with these numbers; those that no table names are left out."""
        layers = self.tables.get("layers")
        if layers is None or "name" not in layers:
            return ()
        names = main_path(layers[layers["step"] == self.first_step]).set_index("layer")["name"]
        return tuple(str(names[number]) for number in dict.fromkeys(numbers) if number in names)


def evidence_of_run(
    summary: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame] | None = None,
    config: Config | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Evidence:
    """The evidence of a run, from its summary and from what else is at hand.

    Args:
        settings: dotted key -> value of the configuration, or of what is known of a loop.

    Raises:
        QuestionError: the summary has no metrics, such as that of a run that failed at its start.
    """
    lacking = [name for name in _OF_A_RUN if name not in summary]
    if lacking:
        raise QuestionError(
            f"the summary lacks {', '.join(lacking)}\nallowed: the summary of a run with tables"
        )
    summary = typed(summary)
    tables = {} if tables is None else tables
    layers = tables.get("layers")
    if layers is not None and (numbers := with_numbers("layers", layers)) is not layers:
        layers, tables = numbers, _with_layers(tables, numbers)
    steps = None if layers is None else _measured_steps(layers)
    of_layers, unseen = {}, summary.get("unseen")
    if layers is not None and steps:
        num_layers, is_users = summary.get("num_layers"), "compared" in summary
        of_layers = _layer_metrics(layers, *steps, num_layers, is_users=is_users)
    return Evidence(
        metrics={**dict.fromkeys(_OF_A_RUN), **of_layers, **summary},
        tables=tables,
        config=config,
        dtype=summary.get("dtype"),
        num_examples=config.data.batch_size * config.train.accumulate if config else None,
        first_step=steps[0] if steps else 0,
        last_step=steps[1] if steps else None,
        settings=settings or {},
        unseen=tuple(map(str, unseen)) if isinstance(unseen, list | tuple) else (),
    )


def _with_layers(
    tables: Mapping[str, pd.DataFrame], layers: pd.DataFrame
) -> Mapping[str, pd.DataFrame]:
    """The same tables with another one of layers; none of the others is read for it."""
    # Nothing is written to the second mapping.
    return ChainMap({"layers": layers}, cast("MutableMapping[str, pd.DataFrame]", tables))


def evidence_of_tables(
    tables: Mapping[str, pd.DataFrame],
    *,
    settings: Mapping[str, Any] | None = None,
    unseen: Sequence[str] = (),
    dtype: str | None = None,
    num_examples: int | None = None,
    ending: Mapping[str, Any] | None = None,
) -> Evidence:
    """The evidence of a loop of somebody's own, or of a run that left no metrics.

    Rows without a backward signal are taken as they are.

    Args:
        tables: those that are at hand, by name.
        settings: what is known of model and optimizer, by dotted key.
        unseen: what the probe could not measure.
        ending: `status` and `reason`, as far as they are known.
    """
    from vgexp.diagnosis.readings import read_metrics
    from vgexp.diagnosis.through_time import time_metrics

    layers = tables.get("layers")
    has_signal = layers is not None and {"step", "delta_rms"} <= {*layers}
    if layers is not None and has_signal and len(layers):
        _with_numbers(layers, ("step", "layer", "delta_rms"))
    measured = {name: with_numbers(name, table) for name, table in tables.items() if len(table)}
    layers = measured.get("layers")
    steps = None if layers is None or not has_signal else _measured_steps(layers)
    found: dict[str, Any] = {**read_metrics(measured), **time_metrics(measured.get("time"))}
    if layers is not None and steps is not None:
        found |= _layer_metrics(layers, *steps, is_users=True)
        if dtype is not None and num_examples is not None and "weight_norm" in layers:
            scales = loss_scales(measured.get("steps", pd.DataFrame()))
            found["underflow"] = underflow(layers, num_examples, dtype, scales)
    numbers = {
        name: _finite(value) if isinstance(value, float) else value for name, value in found.items()
    }
    return Evidence(
        metrics={**numbers, **typed(ending or {})},
        tables=measured,
        dtype=dtype,
        num_examples=num_examples,
        first_step=steps[0] if steps else 0,
        last_step=steps[1] if steps else None,
        settings=settings or {},
        unseen=tuple(unseen),
    )


def evidence_of_start(summary: Mapping[str, Any]) -> Evidence:
    """The evidence of networks at initialisation, from a summary of `vgexp signal`."""
    return Evidence(metrics=summary, dtype=summary.get("dtype"), is_untrained=True)


def evidence_of_layers(
    layers: pd.DataFrame,
    *,
    dtype: str | None = None,
    num_examples: int | None = None,
    ending: Mapping[str, Any] | None = None,
    is_users: bool = False,
) -> Evidence:
    """The evidence of a table of layers alone, as a probe in somebody's own loop gives it.

    Args:
        layers: rows as in `layers.csv` or from `Probe.to_frame()`.
        dtype, num_examples: where they are known; both are needed to count underflow.
        ending: `status` and `reason` of a run that left no other metrics.
        is_users: whether the rows are of a user's model (`signal_of`).

    Raises:
        QuestionError: columns are missing or hold no numbers, or no row has a backward signal.
    """
    require_columns(layers)
    if "step" not in layers.columns:
        raise QuestionError("the table lacks the column step\nallowed: a table of layers")
    layers = with_numbers("layers", _with_numbers(layers, ("step", "layer", "delta_rms")))
    steps = _measured_steps(layers)
    if steps is None:
        raise QuestionError(
            "no row of the table has a backward signal\n"
            "allowed: rows of at least one step with delta_rms (probe.activations_every)"
        )
    metrics = {**(ending or {}), **_layer_metrics(layers, *steps, is_users=is_users)}
    if dtype is not None and num_examples is not None:
        metrics["underflow"] = underflow(layers, num_examples, dtype)
    return Evidence(
        metrics=metrics,
        tables={"layers": layers},
        dtype=dtype,
        num_examples=num_examples,
        first_step=steps[0],
        last_step=steps[1],
    )


def _with_numbers(layers: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The same table, whose columns of text that are numbers are numbers.

    Raises:
        QuestionError: a column holds something else.
    """
    try:
        return layers.assign(**{name: pd.to_numeric(layers[name]) for name in columns})
    except (ValueError, TypeError) as error:
        raise QuestionError(
            f"the table has cells that are no numbers: {error}\n"
            f"allowed: numbers in the columns {', '.join(columns)}"
        ) from None


def _measured_steps(layers: pd.DataFrame) -> tuple[int, int] | None:
    """The first and the last step with a backward signal; None where there is none."""
    measured = layers.loc[layers["delta_rms"].notna(), "step"].dropna()
    return (int(measured.min()), int(measured.max())) if len(measured) else None


def _layer_metrics(
    layers: pd.DataFrame,
    first_step: int,
    last_step: int,
    num_layers: int | None = None,
    *,
    is_users: bool = False,
) -> dict[str, Any]:
    signals = {
        step: signal_of(layers[layers["step"] == step], num_layers, is_users=is_users)
        for step in dict.fromkeys((first_step, last_step))
    }
    first, last = signals[first_step], signals[last_step]
    at_last = {f"{name}_last": value for name, value in _signal_metrics(last).items()}
    ratio = _finite(first.weight_gradient_ratio)
    return {**_signal_metrics(first), **at_last, "weight_gradient_ratio": ratio}


def _signal_metrics(signal: Signal) -> dict[str, Any]:
    return {
        "signal": signal.signal,
        "attenuation": _finite(signal.attenuation),
        "backward_factor_per_layer": _finite(signal.backward_factor_per_layer),
        "num_layers": signal.num_layers,
        "unmeasured_ends": list(signal.unmeasured_ends),
        **path_metrics(signal),
    }


def path_metrics(signal: Signal) -> dict[str, Any]:
    """Which layers of a user's model are compared, and why none are; nothing of other models."""
    if signal.compared is None:
        return {}
    return {"compared": list(signal.compared), "no_path": signal.no_path or None}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
