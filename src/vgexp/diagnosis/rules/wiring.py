"""Rules about what the loss reaches, and what the optimizer moves: facts of `wiring.csv`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import rows_at, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import has_learned_little
from vgexp.diagnosis.phrases import name_layers
from vgexp.diagnosis.rules.flat_losses import saturated_loss
from vgexp.diagnosis.rules.initial_weights import zero_for_good
from vgexp.diagnosis.rules.wiring_rows import (
    A_FACT,
    held_rows,
    still_weights,
    used_weights,
    weights_in,
)
from vgexp.unseen import unregistered_weights


@cause_rule("no_update", "wiring.csv", reason=A_FACT, certain=True)
def no_update(evidence: Evidence) -> Finding | None:
    """Whether no parameter ever changed, at all steps at which that was looked at."""
    held = held_rows(evidence)
    updated = values_of(held, "updated")
    moved = values_of(evidence.tables.get("layers", pd.DataFrame()), "update_ratio")
    if not len(held) or np.nanmax(updated, initial=0) > 0 or np.nanmax(moved, initial=0) > 0:
        return None
    rates = values_of(held, "lr")
    is_zero = np.nanmax(rates, initial=0) == 0
    num_steps = len(np.unique(evidence.tables["layers"]["step"])) if is_zero else 2
    if evidence.is_check and not evidence.settings.get("optimizer.initial_lr"):
        num_steps = 2  # no scheduler holds the optimizer, which could raise the rate
    if num_steps < 2 or not (updated == 0).any():  # a warm-up begins at a rate of 0
        return None
    gradients = held["gradient"]
    if not is_zero and (not gradients.eq("finite").any() or gradients.eq("not_finite").any()):
        return None  # there was nothing to make an update of, or the run ended before it
    if not is_zero and not evidence.lacks("layers.csv") and saturated_loss(evidence) is not None:
        return None  # next to nothing, which changes no digit
    why = "its learning rate is 0" if is_zero else "no update changed a value"
    return Finding(
        "no_update",
        f"The optimizer changed no parameter: {why}.",
        step=int(held["step"].min()),
        layers=weights_in(held),
        numbers={"lr": Number(float(np.nanmax(rates, initial=0)), 0.0)},
        remedies=(
            Remedy(
                "Give the optimizer a learning rate above 0.",
                "An update is the learning rate times a direction.",
                "optimizer.lr=0.01",
                "optimizer.param_groups[0]['lr'] = 0.01",
            ),
        ),
    )


@cause_rule("not_registered", reason=A_FACT, certain=True)
def not_registered(evidence: Evidence) -> Finding | None:
    """Whether modules ran that the model does not know as its own."""
    listed = unregistered_weights(evidence.unseen)
    if listed is None:
        return None
    return Finding(
        "not_registered",
        f"Modules ran that are not registered in the model, with weights {listed}: model.parameters"
        "() does not have them, so that no optimizer trains them.",
        step=0,
        remedies=(
            Remedy(
                "Keep them in nn.ModuleList or nn.ModuleDict.",
                "A module finds its parts among its attributes, not in lists and dictionaries.",
                code="self.hidden = nn.ModuleList(layers)",
                source="PyTorch, nn.ModuleList",
            ),
        ),
    )


@cause_rule("not_in_optimizer", "wiring.csv", reason=A_FACT, certain=True)
def not_in_optimizer(evidence: Evidence) -> Finding | None:
    """Whether parameters get a gradient, are held by no optimizer, and never change.

    A second optimizer, as of a GAN's other network, is known by its steps, or by weights that move
    nevertheless. Where the read-out is trained, and the optimizer holds no tensor of another model,
    the rest may be left as it is by intent: of a network that learned it is no fault, unless it
    learned little, of weights that are as they were drawn.
    """
    wiring = evidence.tables["wiring"]
    of_others = set(wiring.loc[values_of(wiring, "other_optimizer") == 1, "name"])
    lost = wiring[
        (values_of(wiring, "in_optimizer") == 0)
        & (values_of(wiring, "requires_grad") == 1)
        & (values_of(wiring, "gradient_came") == 1)
        & ~wiring["name"].isin(of_others)
    ]
    if evidence.is_check:  # no other optimizer made a step
        still = weights_in(lost[values_of(lost, "updated") == 0])
    else:
        still = still_weights(evidence, set(lost["name"]))
    if not still:
        return None
    may_be_meant = _trains_the_readout(evidence)
    untrained = set(evidence.metrics.get("default_weights") or ()) & set(still)
    is_doubted = evidence.is_check or has_learned_little(evidence)
    is_fact = not may_be_meant or (bool(untrained) and is_doubted)
    how = (
        f" {name_layers(tuple(sorted(untrained)))} are as PyTorch draws them, and have learned"
        " nothing before."
        if may_be_meant and untrained
        else ""
    )
    return Finding(
        "not_in_optimizer",
        f"The optimizer does not hold {name_layers(still)}, which the network uses: gradients come,"
        f" and nothing changes.{how}",
        step=int(lost["step"].min()),
        layers=still,
        remedies=(
            Remedy(
                "Make the optimizer after the model is complete, of all its parameters.",
                "An optimizer changes the tensors that it was given, not those that replaced them.",
                code="optimizer = torch.optim.Adam(model.parameters())",
            ),
        ),
        is_fact=is_fact,
    )


def _trains_the_readout(evidence: Evidence) -> bool:
    """Whether the optimizer holds the weights of the read-out, and no tensor that is none of the
    model's, as one that was made before layers were replaced does."""
    if evidence.metrics.get("foreign_parameters"):
        return False
    layers = evidence.tables.get("layers")
    if layers is None:
        return False
    readouts = set(layers.loc[layers["kind"] == "readout", "name"])
    return bool(readouts) and readouts <= set(held_rows(evidence)["name"])


@cause_rule(
    "frozen",
    "wiring.csv",
    reason="a network may be frozen in part by intent: it is told"
    " of where the network does not learn",
)
def frozen(evidence: Evidence) -> Finding | None:
    """Whether weights that a forward pass uses do not require a gradient.

    Where no parameter of the model requires one, a fact: no update changes it.
    """
    wiring = evidence.tables["wiring"]
    names = wiring.loc[values_of(wiring, "requires_grad") == 0, "name"]
    used, is_whole = used_weights(evidence, names), False
    if len(names) == len(wiring) and (evidence.is_check or _is_given_frozen(evidence)):
        used = weights_in(wiring)  # a pass that needs no gradient is not seen
        is_whole = not evidence.is_check
    if not used:
        return None
    return Finding(
        "frozen",
        f"{name_layers(used)} require{'s' if len(used) == 1 else ''} no gradient"
        f"{', and nothing else of the model does' if is_whole else ''}.",
        step=int(wiring["step"].min()),
        layers=used,
        numbers={"frozen": Number(len(used), 0)},
        remedies=(
            Remedy(
                "Let them require one, and give them to the optimizer.",
                "Autograd computes no gradient of what does not require one.",
                code="model.requires_grad_(True)",
            ),
        ),
        is_fact=True if is_whole else None,
    )


def _is_given_frozen(evidence: Evidence) -> bool:
    """Whether the optimizer was given frozen parameters of the model, and nothing else that it
    could train; and all weights stayed as they were, at two or more measured steps."""
    wiring = evidence.tables["wiring"]
    is_given = bool((values_of(wiring, "in_optimizer") == 1).any())
    if not is_given or evidence.metrics.get("foreign_parameters"):
        return False
    layers = evidence.tables.get("layers")
    known = set() if layers is None else set(layers.loc[layers["weight_norm"].notna(), "name"])
    return bool(known) and set(still_weights(evidence, known)) == known


@cause_rule("gradient_cleared", "wiring.csv", reason=A_FACT, certain=True)
def gradient_cleared(evidence: Evidence) -> Finding | None:
    """Whether backward passes gave gradients that the optimizer did not find."""
    held = held_rows(evidence)
    came = held[values_of(held, "gradient_came") == 1]
    lost = came["gradient"].isin(["none", "zero"])
    first = came[came["step"] == came["step"].min()]
    if not len(first) or not lost.loc[first.index].all():
        return None
    rows = rows_at(evidence, int(first["step"].iloc[0]))
    if first["gradient"].eq("zero").all() and not (values_of(rows, "delta_rms") > 0).any():
        return None
    if (values_of(first, "gradient_left") == 0).any():
        return None  # -0 is a product with 0, as of a clip, and no clearing leaves it
    if first["gradient"].eq("zero").all() and len(zero_for_good(evidence)) > 1:
        return None  # they are 0 because weights are
    return Finding(
        "gradient_cleared",
        "Backward passes gave gradients, and the optimizer found none: they were cleared between"
        " the two.",
        step=int(first["step"].iloc[0]),
        layers=weights_in(first),
        remedies=(
            Remedy(
                "Clear gradients before the backward pass.",
                "The optimizer's step takes the gradients that are there when it is called.",
                code="optimizer.zero_grad(); loss.backward(); optimizer.step()",
            ),
        ),
    )


@cause_rule("gradient_kept", "wiring.csv", reason=A_FACT, certain=True)
def gradient_kept(evidence: Evidence) -> Finding | None:
    """Whether the gradients of the update before were not cleared."""
    wiring = evidence.tables["wiring"]
    # The row of a step that was looked at and not measured says no more than that.
    looked = wiring[
        wiring["name"].isin(set(held_rows(evidence)["name"]))
        & ~np.isnan(values_of(wiring, "gradient_kept"))
    ]
    # Later on a gradient may be 0, of which nobody can tell whether it was kept.
    first = looked.drop_duplicates("name")
    kept = first[
        (values_of(first, "gradient_kept") == 1) & (values_of(first, "gradient_came") == 1)
    ]
    if not len(kept) or gradient_cleared(evidence) is not None:
        return None  # what was cleared before the step is not there to be added to
    often = _how_often_kept(evidence, looked)
    return Finding(
        "gradient_kept",
        f"Gradients of {name_layers(weights_in(kept))} are {often}: each is added to the sum of"
        " those before.",
        step=int(kept["step"].min()),
        layers=weights_in(kept),
        remedies=(
            Remedy(
                "Clear gradients before each backward pass.",
                "loss.backward() adds to the gradients that are there.",
                code="optimizer.zero_grad()",
            ),
        ),
    )


def _how_often_kept(evidence: Evidence, looked: pd.DataFrame) -> str:
    """How often gradients were not cleared, of the steps at which that was looked at: those of the
    table, in which a cell stands until another follows, and the measured ones.

    Args:
        looked: rows of what is held that say whether it was kept.
    """
    layers = evidence.tables.get("layers", pd.DataFrame({"step": []}))
    kept = looked.groupby("step")["gradient_kept"].max().astype("float64")
    steps = {*kept.index, *layers.loc[layers["step"] > kept.index.min(), "step"]}
    shares = kept.reindex(sorted(steps)).ffill()
    number = int(shares.sum())
    if number == len(shares):
        return "never cleared"
    return f"not cleared at {number} of {len(shares)} steps that were looked at"


RULES = (
    not_registered,
    not_in_optimizer,
    frozen,
    gradient_cleared,
    gradient_kept,
    no_update,
)
