"""The cause of a verdict: the phrase that `summary.json` keeps under that name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vgexp.diagnosis.phrases import UNKNOWN_GUESS, describe_signal, format_loss, why_undecided


def cause_of(summary: Mapping[str, Any], divergence: str, num_steps: int) -> str:
    """What decided the verdict, as one short phrase with numbers."""
    verdict = summary["verdict"]
    if verdict == "diverged":
        return divergence
    if verdict in ("vanishing", "exploding"):
        return describe_signal(summary)
    if verdict is None and summary["loss_first"] is not None:
        return f"{UNKNOWN_GUESS}: {describe_signal(summary)}"
    losses = f"best training loss {format_loss(summary['loss_best_mean_20'])}"
    losses += f", a constant guess's {format_loss(summary['constant_loss'])}"
    if verdict == "healthy":
        despite = (
            ""
            if summary["signal"] in (None, "steady")
            else f"despite the {summary['signal']} signal, "
        )
        return despite + losses
    if verdict == "relapsed":
        last, step = format_loss(summary["loss_last_mean_20"]), summary["relapse_step"]
        return f"it had learned until step {step}: {losses}, the last {last}"
    if summary["loss_first"] is None:
        return "no step was recorded"
    if verdict == "undecided":
        unknown = f"{describe_signal(summary)}; " if summary["attenuation"] is None else ""
        return f"{unknown}too short to tell ({why_undecided(num_steps)}): {losses}"
    if summary["attenuation"] is None:
        return f"{describe_signal(summary)}; no learning: {losses}"
    return f"the signal is steady at step 0, yet no learning: {losses}{_describe_end(summary)}"


def _describe_end(summary: Mapping[str, Any]) -> str:
    if summary["signal_last"] in (None, "steady") or summary["attenuation_last"] is None:
        return ""
    return f"; {summary['signal_last']} at the end ({summary['attenuation_last']:.2g})"
