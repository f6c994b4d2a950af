"""Rules about what is worth a word beside the cause, and is no sickness."""

from __future__ import annotations

import numpy as np

from vgexp.diagnosis.depths import values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, cause_rule
from vgexp.diagnosis.learning import LEARNED_BELOW
from vgexp.diagnosis.outcome import constant_loss, has_learned, has_relapsed
from vgexp.diagnosis.phrases import format_loss, name_layers
from vgexp.diagnosis.rules.wiring import frozen
from vgexp.diagnosis.rules.wiring_rows import beside_the_path
from vgexp.unseen import weights_that_ran_silently

_RISE = 1.2


@cause_rule(
    "overfitting",
    "val_loss_last",
    "val_loss_best",
    limit=_RISE,
    reason="a validation loss a fifth above its lowest is beyond the noise of a split",
)
def overfitting(evidence: Evidence) -> Finding | None:
    """Whether the validation loss rises while the training loss falls."""
    metrics = evidence.metrics
    last, best = metrics["val_loss_last"], metrics["val_loss_best"]
    trained = metrics.get("loss_last_mean_20")
    if trained is None or best <= 0 or last <= _RISE * best or trained >= best:
        return None
    return Finding(
        "overfitting",
        f"The validation loss rose from {best:.3g} to {last:.3g} while the training loss fell to"
        f" {trained:.3g}.",
        numbers={"val_loss_last": Number(last, _RISE * best)},
    )


@cause_rule("idle_clip", "clip_fraction", "settings", reason="a share of 0 is a fact")
def idle_clip(evidence: Evidence) -> Finding | None:
    """Whether clipping is switched on and never changed a gradient."""
    if evidence.settings.get("clip", "none") == "none" or evidence.metrics["clip_fraction"] > 0:
        return None
    return Finding(
        "idle_clip",
        "Clipping is switched on and changed no gradient.",
        numbers={"clip_fraction": Number(0.0, 0.0)},
    )


@cause_rule(
    "relapsed",
    "loss_best_mean_20",
    "loss_last_mean_20",
    limit=LEARNED_BELOW,
    reason="the rule of the verdict, at the best 20 steps and at the last, which have to be apart"
    " by more than such means scatter",
)
def relapsed(evidence: Evidence) -> Finding | None:
    """Whether the network learned, and lost it by the end."""
    guess = constant_loss(evidence)
    best, last = (evidence.metrics[f"loss_{end}_mean_20"] for end in ("best", "last"))
    if guess is None or not has_relapsed(evidence):
        return None
    return Finding(
        "relapsed",
        f"It learned and lost it: the loss was {format_loss(best)} over the best 20 steps and"
        f" {format_loss(last)} over the last; guessing gives {format_loss(guess)}.",
        numbers={"loss_last_mean_20": Number(last, LEARNED_BELOW * guess)},
    )


@cause_rule("unused_parameters", "wiring.csv", reason="that no pass uses them is a fact")
def unused_parameters(evidence: Evidence) -> Finding | None:
    """Whether weights that the optimizer holds have neither a forward pass nor a gradient.

    Of weights that require no gradient a pass may not be seen, and nothing is said.
    """
    wiring = evidence.tables["wiring"]
    layers = evidence.tables.get("layers")
    if layers is None or "preact_std" not in layers:
        return None
    without = wiring[(values_of(wiring, "gradient_came") == 0) & wiring["gradient"].eq("none")]
    rows = layers[layers["name"].isin(set(without["name"]))]
    ran = set(rows.loc[rows["preact_std"].notna(), "name"])
    ran |= weights_that_ran_silently(evidence.unseen)
    ran |= set(wiring.loc[values_of(wiring, "requires_grad") == 0, "name"])
    ignored = set(evidence.metrics.get("loss_ignores") or ())
    names = tuple(str(n) for n in dict.fromkeys(rows["name"]) if n not in ran)
    if found := tuple(str(n) for n in dict.fromkeys(rows["name"]) if n in ignored):
        sentence = f"The loss does not depend on {name_layers(found)}."
        return Finding("unused_parameters", sentence, layers=found)
    if not names and (beside := beside_the_path(evidence)):
        sentence = (
            f"No gradient comes to {name_layers([*sorted(beside)])}, which run beside the path."
        )
        return Finding("unused_parameters", sentence, layers=tuple(sorted(beside)))
    if not names:
        return None
    return Finding("unused_parameters", f"No forward pass uses {name_layers(names)}.", layers=names)


@cause_rule("idle_layers", "layers.csv", reason="a gradient of exactly 0 at every step is a fact")
def idle_layers(evidence: Evidence) -> Finding | None:
    """Whether layers got no gradient at any step in a network that learned."""
    layers = evidence.tables["layers"]
    if not has_learned(evidence) or "grad_norm" not in layers:
        return None
    if (found := frozen(evidence)) is not None:
        words = (
            f"It learned while {name_layers(found.layers)} stayed as they were, without a gradient."
        )
        return Finding("idle_layers", words, layers=found.layers)
    largest = layers.groupby("name", sort=False)["grad_norm"].max()
    names = tuple(str(name) for name in largest.index[np.asarray(largest == 0)])
    if not names:
        return None
    return Finding(
        "idle_layers", f"It learned although {name_layers(names)} got no gradient.", layers=names
    )


RULES = (relapsed, overfitting, idle_clip, unused_parameters, idle_layers)
