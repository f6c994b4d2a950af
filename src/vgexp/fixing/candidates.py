"""The overrides that may cure a cause: those of the rules' remedies, and a table of more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vgexp.diagnosis import Diagnosis, Finding

UNKNOWN = "unknown"
"""The cause for which the general overrides are all there is."""
TIMES = "*"
"""Before a number: the value is multiplied by it, `optimizer.lr=*0.1`."""

_NARROW = 8
"""Units of a layer below which the width itself is suspected: a few of them die together."""
_WIDER = "model.width=*8"
_HE, _XAVIER = "model.init=he_normal model.gain=1", "model.init=xavier_normal model.gain=1"
_SMALLER_RATES = ("optimizer.lr=*0.3", "optimizer.lr=*0.1", "optimizer.lr=*0.01")
_LARGER_RATES = ("optimizer.lr=*3", "optimizer.lr=*10", "optimizer.lr=*100")
_CLIP = "clip=norm clip.threshold=1"
_RELU = f"model.activation=relu {_HE}"
_NORMS = ("model.norm=layer", "model.norm=batch")
_SCALED = ("model.skip=scaled_residual", "model.skip=rezero")
_GATED = ("model=lstm model.forget_bias=1", "model=gru")
_UNITS = (*_SMALLER_RATES, "model.activation=leaky_relu", *_NORMS, _CLIP)

OVERRIDES: Mapping[str, Sequence[str]] = {
    # ------------------------------------------------------------ wiring
    "no_update": ("optimizer.lr=0.01", "optimizer.lr=0.1", "optimizer.lr=0.001"),
    # ------------------------------------------------------------ initialisation
    "zero_weights": (_HE, _XAVIER, "model.gain=1"),
    "weights_small": (
        *("model.gain=1", _HE, _XAVIER, "model.init=orthogonal model.gain=1"),
        *("model.norm=batch", "model.skip=residual", "model.init=lsuv"),
    ),
    "weights_large": (
        *("model.gain=1", _XAVIER, _HE, "model.init=lsuv model.gain=1"),
        *("model.norm=batch", "optimizer.lr=*0.1"),
    ),
    "dead_at_start": (
        *("model.bias_std=0", "model.activation=leaky_relu", _HE, "model.activation=elu"),
        *("model.norm=batch", "model.width=*4", "model.width=64", "model.skip=scaled_residual"),
    ),
    # ------------------------------------------------------------ depth
    "saturating_activation": (
        *("model.activation=tanh", "model.activation=relu", _RELU),
        *("model.skip=residual", *_NORMS, "model.gain=1"),
    ),
    "residual_growth": (
        *_SCALED,
        *_NORMS,
        "model.gain=*0.3",
        "optimizer.lr=*0.1",
        _CLIP,
    ),
    "batchnorm_depth": (
        *("model.skip=residual", "model.norm=none", f"model.norm=none {_HE}"),
        *("model.norm=layer", "optimizer.lr=*0.1"),
    ),
    "recurrence_vanishing": (
        *("model.recurrent_init=identity", "model.recurrent_init=orthogonal model.gain=1"),
        *("model.spectral_radius=1", "model.spectral_radius=1.2", "model.forget_bias=3"),
        *("model.activation=tanh", "model.forget_bias=2"),
        *_GATED,
        *("model.activation=relu model.recurrent_init=identity", "optimizer.lr=*3"),
    ),
    "recurrence_exploding": (
        *("model.spectral_radius=1", "model.recurrent_init=orthogonal model.gain=1"),
        *(_CLIP, "optimizer.lr=*0.1", *_GATED),
    ),
    "no_warmup": (
        *("scheduler=warmup_cosine", "model.norm_position=pre"),
        *("optimizer.lr=*0.3", "optimizer.lr=*0.1"),
    ),
    # ------------------------------------------------------------ units
    "dead_units": _UNITS,
    "saturated_units": (*_UNITS, _RELU),
    # ------------------------------------------------------------ optimizer
    "rate_too_small": (*_LARGER_RATES, "scheduler=constant"),
    "rate_too_large": (*_SMALLER_RATES, "optimizer.lr=*0.001", _CLIP, *_NORMS),
    "clip_throttles": ("clip.threshold=*10", "clip.threshold=*100", "clip.threshold=*1000"),
    # ------------------------------------------------------------ dtype
    "underflow": ("dtype=bfloat16", "dtype=float32"),
    "overflow": ("dtype=bfloat16", "dtype=float32", *_SMALLER_RATES),
    # ------------------------------------------------------------ the rest
    "flat_landscape": (
        *("model.gain=1", _HE, _XAVIER, "optimizer.lr=*10", "optimizer.lr=*100"),
        "optimizer=adam optimizer.lr=0.001",
    ),
    UNKNOWN: (),
}
"""Cause -> overrides beside those of its remedies.

A cause that has neither is one of the code, which no override touches."""

GENERAL: Sequence[str] = (
    *("optimizer.lr=*0.1", "optimizer.lr=*0.3", "optimizer.lr=*3", "optimizer.lr=*10"),
    *("model.norm=batch", "model.norm=layer", "model.skip=residual", _HE, _RELU, _CLIP),
    *("scheduler=warmup_cosine", "optimizer=adam optimizer.lr=0.001"),
)
"""Tried where no override of the cause's own cures."""


def list_words(diagnosis: Diagnosis, settings: Mapping[str, Any]) -> list[list[tuple[str, ...]]]:
    """The overrides against a cause, each as its words, in groups that are tried one after another.

    They are those of the cause's remedies, those of the table, and both of rivals, which may be the
    cause instead.
    """
    width = settings.get("model.width")
    wider = (_WIDER,) if isinstance(width, int) and width < _NARROW else ()
    of_cause = [each for each in diagnosis.findings if each.id == diagnosis.cause]
    of_rivals = [each for each in diagnosis.findings if each.id in diagnosis.rivals]
    groups = (
        list(_of_remedies(of_cause)),
        _with(wider, OVERRIDES.get(str(diagnosis.cause), ())),
        [*_of_remedies(of_rivals), *(o for id in diagnosis.rivals for o in OVERRIDES.get(id, ()))],
    )
    return [_filled(group, settings) for group in groups]


def _with(more: Sequence[str], overrides: Sequence[str]) -> Sequence[str]:
    """Further overrides, of a cause that has some."""
    return (*overrides, *more) if overrides else ()


def list_general_words(settings: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The overrides of `GENERAL`, each as its words."""
    return _filled(GENERAL, settings)


def _of_remedies(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        yield from (each.override for each in finding.remedies if each.override)


def _filled(overrides: Sequence[str], settings: Mapping[str, Any]) -> list[tuple[str, ...]]:
    found = [_fill(override, settings) for override in overrides]
    return list(dict.fromkeys(words for words in found if words))


def _fill(override: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """An override's words with values for multiples; none where there is no number to multiply."""
    words = []
    for word in override.split():
        key, _, value = word.partition("=")
        if value.startswith(TIMES):
            now = settings.get(key)
            if not isinstance(now, int | float) or isinstance(now, bool) or not now:
                return ()
            product = now * float(value.removeprefix(TIMES))
            value = f"{product:.0f}" if isinstance(now, int) else f"{product:.2g}"
        words.append(f"{key}={value}")
    return tuple(words)
