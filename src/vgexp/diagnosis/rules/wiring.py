"""Rules about what the loss reaches, and what the optimizer moves: facts of `wiring.csv`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import rows_at, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import has_learned_little
from vgexp.diagnosis.phrases import name_layers
from vgexp.diagnosis.rules.flat_losses import saturated_loss
from vgexp.diagnosis.rules.initial_weights import zero_for_good
from vgexp.unseen import unregistered_weights, weights_that_ran_silently

_A_FACT = "it is a fact of the wiring, which no threshold decides"


@cause_rule("no_update", "wiring.csv", reason=_A_FACT, certain=True)
def no_update(evidence: Evidence) -> Finding | None:
    """Whether no parameter ever changed, at all steps at which that was looked at."""
    held = _held(evidence)
    updated = _numbers(held, "updated")
    moved = values_of(evidence.tables.get("layers", pd.DataFrame()), "update_ratio")
    if not len(held) or np.nanmax(updated, initial=0) > 0 or np.nanmax(moved, initial=0) > 0:
        return None
    rates = _numbers(held, "lr")
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
        layers=_weights(held),
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


@cause_rule("not_registered", reason=_A_FACT, certain=True)
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


@cause_rule("not_in_optimizer", "wiring.csv", reason=_A_FACT, certain=True)
def not_in_optimizer(evidence: Evidence) -> Finding | None:
    """Whether parameters get a gradient, are held by no optimizer, and never change.

    A second optimizer, as of a GAN's other network, is known by its steps, or by weights that move
    nevertheless. Where the read-out is trained, and the optimizer holds no tensor of another model,
    the rest may be left as it is by intent: of a network that learned it is no fault, unless it
    learned little, of weights that are as they were drawn.
    """
    wiring = evidence.tables["wiring"]
    of_others = set(wiring.loc[_numbers(wiring, "other_optimizer") == 1, "name"])
    lost = wiring[
        (_numbers(wiring, "in_optimizer") == 0)
        & (_numbers(wiring, "requires_grad") == 1)
        & (_numbers(wiring, "gradient_came") == 1)
        & ~wiring["name"].isin(of_others)
    ]
    if evidence.is_check:  # no other optimizer made a step
        still = _weights(lost[_numbers(lost, "updated") == 0])
    else:
        still = _still(evidence, set(lost["name"]))
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
    return bool(readouts) and readouts <= set(_held(evidence)["name"])


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
    names = wiring.loc[_numbers(wiring, "requires_grad") == 0, "name"]
    used, is_whole = _used(evidence, names), False
    if len(names) == len(wiring) and (evidence.is_check or _is_given_frozen(evidence)):
        used = _weights(wiring)  # a pass that needs no gradient is not seen
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
    is_given = bool((_numbers(wiring, "in_optimizer") == 1).any())
    if not is_given or evidence.metrics.get("foreign_parameters"):
        return False
    layers = evidence.tables.get("layers")
    known = set() if layers is None else set(layers.loc[layers["weight_norm"].notna(), "name"])
    return bool(known) and set(_still(evidence, known)) == known


@cause_rule("gradient_cleared", "wiring.csv", reason=_A_FACT, certain=True)
def gradient_cleared(evidence: Evidence) -> Finding | None:
    """Whether backward passes gave gradients that the optimizer did not find."""
    held = _held(evidence)
    came = held[_numbers(held, "gradient_came") == 1]
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
        layers=_weights(first),
        remedies=(
            Remedy(
                "Clear gradients before the backward pass.",
                "The optimizer's step takes the gradients that are there when it is called.",
                code="optimizer.zero_grad(); loss.backward(); optimizer.step()",
            ),
        ),
    )


@cause_rule("graph_cut", "wiring.csv", reason=_A_FACT, certain=True)
def graph_cut(evidence: Evidence) -> Finding | None:
    """Whether no gradient comes to weights that the forward pass uses.

    None comes at all (detached, no_grad), or exactly 0 behind a layer that gets a signal, has
    units that are not dead, and whose numbers the dtype holds (sign, round); or the graph of the
    loss leads to no output that it was given, or by way of sign or round alone. What runs under
    no_grad may do so by intent, as a pretrained backbone, and a head or a pooler beside the path
    may be for another task: of a network that learned it is no fault.
    """
    if not_registered(evidence) is not None:
        return None
    held, wiring = _held(evidence), evidence.tables["wiring"]
    none = held[(_numbers(held, "gradient_came") == 0) & held["gradient"].eq("none")]
    none = none[~none["name"].isin(evidence.metrics.get("loss_ignores") or ())]
    late = set(held.loc[_numbers(held, "gradient_came") == 1, "name"])
    cut = _used(evidence, [name for name in none["name"] if name not in late])
    why = "no backward pass reached them"
    if not cut and (unseen := _all_hidden(evidence, none["name"])):
        cut, why = unseen, "they run without gradients, or not at all"
    is_fact = bool(cut)
    is_beside = is_fact and not evidence.is_check and set(cut) <= beside_the_path(evidence)
    if is_beside:  # whether the loss needs what they give is not known
        is_fact, why = False, "no backward pass reached them, though it did those in front of them"
    if not cut:
        cut, why = _cut_in_the_loss(evidence, held, [n for n in none["name"] if n not in late])
        is_fact = bool(cut)
    if not cut:
        cut, why = _ran_silently(evidence, none["name"]), "they run under no_grad, and never change"
    if not cut:
        cut, why = _zero_behind(evidence), "what comes back to them is exactly 0 from the start"
        is_fact = True
    trained = wiring[_numbers(wiring, "requires_grad") == 1]
    if evidence.is_check and len(trained) and (_numbers(trained, "gradient_came") == 0).all():
        cut, why = _weights(trained), "the loss has no graph that leads to a parameter"
        is_fact = True
    if not cut and _sees_outputs_alone(evidence, held):
        cut, why = _weights(held), "the loss has no graph that leads back to the model's output"
        is_fact = True
    if not cut:
        return _cut_in_time(evidence)
    return Finding(
        "graph_cut",
        f"{name_layers(cut)} get no gradient"
        f"{'' if is_beside else ' although the loss needs them'}: {why}.",
        step=int(held["step"].min()) if len(held) else evidence.first_step,
        layers=cut,
        numbers={
            "layers_without_gradient": Number(len(cut), 0),
            **({"layers_beside_the_path": Number(len(cut))} if is_beside else {}),
        },
        remedies=(
            Remedy(
                "Take out what cuts the graph behind them: detach, no_grad, .data, or an operation"
                " without a gradient (sign, argmax, round).",
                "A gradient comes back only through what autograd recorded.",
                code="h = encoder(x)  # not encoder(x).detach(); of sign: x + (x.sign() -"
                " x).detach()",
                source="Bengio et al. 2013 (straight-through)",
            ),
        ),
        is_fact=is_fact,
    )


def _cut_in_the_loss(
    evidence: Evidence, held: pd.DataFrame, unreached: Sequence[str]
) -> tuple[tuple[str, ...], str]:
    """The weights that autograd's graph says no loss function's result leads to, and why; none
    where a described call of one leads to them.

    Args:
        held: rows of what the optimizer holds.
        unreached: names of what no backward pass came to.
    """
    table = evidence.tables.get("loss")
    rows = None if table is None else table[table["role"] == "loss"]
    if rows is None or not len(rows):
        return (), ""
    if rows["cut_by"].notna().all():
        function = str(rows["cut_by"].iloc[0]).partition("Backward")[0].lower()
        return _weights(held), (
            f"every path from the loss to them passes {function}, whose derivative is 0"
        )
    layers = evidence.tables.get("layers")
    lost = held[held["name"].isin(unreached)]
    reached = held.loc[_numbers(held, "gradient_came") == 1, "name"]
    if not (_numbers(rows, "reaches_output") == 0).all() or not len(lost):
        return (), ""
    if layers is not None and reached.isin(set(layers["name"])).any():
        return (), ""  # by way of what the loss function was not given
    return _weights(lost), "the loss has no graph that leads back to the outputs that it was given"


def _cut_in_time(evidence: Evidence) -> Finding | None:
    """Whether modules that are called at each step in time read a state without a graph."""
    names = tuple(map(str, evidence.metrics.get("cut_states") or ()))
    if not names:
        return None
    return Finding(
        "graph_cut",
        f"The calls of {name_layers(names)} at each step in time read a state without its graph:"
        " the gradient comes from the last step alone.",
        step=evidence.first_step,
        layers=names,
        numbers={"modules_cut_in_time": Number(len(names), 0)},
        remedies=(
            Remedy(
                "Detach the state between sequences, or between pieces of many steps, alone.",
                "A gradient comes back through time only through what autograd recorded.",
                code="h = cell(x[t], h)  # not h.detach(), h.data or torch.tensor(h)",
                source="Werbos 1990 (backpropagation through time)",
            ),
        ),
        is_fact=True,
    )


def _sees_outputs_alone(evidence: Evidence, held: pd.DataFrame) -> bool:
    """Whether the loss gets outputs, and no backward pass comes to any parameter, at any step."""
    table = evidence.tables.get("loss")
    came = _numbers(held, "gradient_came")
    has_outputs = table is not None and bool(table["role"].eq("output").any())
    return has_outputs and len(held) > 0 and bool((came == 0).all())


@cause_rule("gradient_kept", "wiring.csv", reason=_A_FACT, certain=True)
def gradient_kept(evidence: Evidence) -> Finding | None:
    """Whether the gradients of the update before were not cleared."""
    wiring = evidence.tables["wiring"]
    # The row of a step that was looked at and not measured says no more than that.
    looked = wiring[
        wiring["name"].isin(set(_held(evidence)["name"]))
        & ~np.isnan(_numbers(wiring, "gradient_kept"))
    ]
    # Later on a gradient may be 0, of which nobody can tell whether it was kept.
    first = looked.drop_duplicates("name")
    kept = first[(_numbers(first, "gradient_kept") == 1) & (_numbers(first, "gradient_came") == 1)]
    if not len(kept) or gradient_cleared(evidence) is not None:
        return None  # what was cleared before the step is not there to be added to
    return Finding(
        "gradient_kept",
        f"Gradients of {name_layers(_weights(kept))} are never cleared: each is added to the sum of"
        " all before.",
        step=int(kept["step"].min()),
        layers=_weights(kept),
        remedies=(
            Remedy(
                "Clear gradients before each backward pass.",
                "loss.backward() adds to the gradients that are there.",
                code="optimizer.zero_grad()",
            ),
        ),
    )


def _held(evidence: Evidence) -> pd.DataFrame:
    """The rows of parameters that the optimizer holds and that require a gradient."""
    wiring: pd.DataFrame = evidence.tables["wiring"]
    is_held = (_numbers(wiring, "in_optimizer") == 1) & (_numbers(wiring, "requires_grad") == 1)
    held: pd.DataFrame = wiring[is_held]
    return held


def _numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    return values_of(frame, column)


def _weights(rows: pd.DataFrame) -> tuple[str, ...]:
    """The names in rows, those of weights if there are any."""
    names = [str(name) for name in dict.fromkeys(rows["name"])]
    return tuple([name for name in names if "bias" not in name] or names)


def _used(evidence: Evidence, names: Iterable[object]) -> tuple[str, ...]:
    """Those of the names that have a row with a forward pass in the table of layers."""
    layers = evidence.tables.get("layers")
    if layers is None or "preact_std" not in layers:
        return ()
    ran = {str(name) for name in layers.loc[layers["preact_std"].notna(), "name"]}
    return tuple(dict.fromkeys(str(name) for name in names if str(name) in ran))


def _all_hidden(evidence: Evidence, names: Iterable[object]) -> tuple[str, ...]:
    """The names, if they are all weights that no pass with gradients used, and only the read-out's
    is left beside them: a pass under no_grad is not seen."""
    layers = evidence.tables.get("layers")
    if layers is None or "preact_std" not in layers:
        return ()
    seen = layers[layers["preact_std"].notna()]
    is_readout_alone = len(seen) > 0 and bool((seen["kind"] == "readout").all())
    weights = [str(name) for name in dict.fromkeys(names) if "bias" not in str(name)]
    return tuple(weights) if is_readout_alone else ()


def beside_the_path(evidence: Evidence) -> set[str]:
    """The weights that ran and get no gradient, where all layers that read the data do: nothing
    cuts those off, so that what is not reached gives something that leads to no loss."""
    layers, wiring = evidence.tables.get("layers"), evidence.tables.get("wiring")
    if layers is None or wiring is None:
        return set()
    rows = layers[layers["step"] == layers["step"].min()]
    rows = rows[np.isfinite(values_of(rows, "preact_std"))]
    came = set(wiring.loc[_numbers(wiring, "gradient_came") == 1, "name"])
    trained = rows[rows["name"].isin(set(_held(evidence)["name"]))]
    reached = trained["name"].isin(came)
    numbers = values_of(trained, "layer")
    lowest = trained[numbers == np.nanmin(numbers, initial=math.inf)]
    if not len(lowest) or not lowest["name"].isin(came).all():
        return set()  # layers are numbered along the graph: behind a cut they begin at 1 anew
    return {str(name) for name in trained.loc[~reached, "name"]}


def _ran_silently(evidence: Evidence, names: Iterable[object]) -> tuple[str, ...]:
    """Those of the names whose modules ran under no_grad, and whose weights stayed as they were."""
    return _still(
        evidence, weights_that_ran_silently(evidence.unseen).intersection(map(str, names))
    )


def _still(evidence: Evidence, names: set[str]) -> tuple[str, ...]:
    """Those weights of the names whose norm is the same at all of two or more measured steps."""
    layers = evidence.tables.get("layers")
    if layers is None or "weight_norm" not in layers:
        return ()
    found = []
    for name, rows in layers[layers["name"].isin(names)].groupby("name", sort=False):
        norms = rows["weight_norm"].dropna().to_numpy(dtype="float64")
        if len(norms) > 1 and (norms == norms[0]).all():
            found.append(str(name))
    return tuple(found)


_FAR_ABOVE_ZERO = 1e-12
"""A signal this large does not fall to exactly 0 within one layer by rounding."""


def _zero_behind(evidence: Evidence) -> tuple[str, ...]:
    """The layers that get exactly 0 at the first step, below one that gets a signal for sure."""
    rows = rows_at(evidence, evidence.first_step)
    layers = evidence.tables.get("layers")
    if layers is None or not len(rows):
        return ()
    deltas, dead = values_of(rows, "delta_rms"), values_of(rows, "dead_fraction")
    zero = np.flatnonzero(deltas == 0)
    if not zero.size or _has_weights_of_zero(evidence):
        return ()
    top = int(zero.max())
    readout = layers[(layers["step"] == evidence.first_step) & (layers["kind"] == "readout")]
    of_readout, norms = values_of(readout, "delta_rms"), values_of(readout, "weight_norm")
    is_last = top + 1 == len(deltas)
    above = np.fmax.reduce(of_readout, initial=0.0) if is_last else deltas[top + 1]
    if not is_last:
        norms = values_of(rows, "weight_norm")[top + 1 : top + 2]
    norm = np.fmax.reduce(norms, initial=0.0)
    is_sound = above > _FAR_ABOVE_ZERO and norm > 0
    is_dead = bool((dead[: top + 1] == 1).any())
    saturated = values_of(rows, "saturated_fraction")
    is_flat = bool((np.nan_to_num(saturated) >= 1).any())
    if not is_sound or is_dead or is_flat or evidence.dtype == "float16":
        return ()
    return tuple(str(name) for name in rows["name"].iloc[: top + 1])


def _has_weights_of_zero(evidence: Evidence) -> bool:
    """Whether a weight is exactly 0 at the first step, beside the path as well: what is behind it
    gets exactly 0 without a cut."""
    layers = evidence.tables["layers"]
    at_first = values_of(layers[layers["step"] == evidence.first_step], "weight_norm")
    return bool((at_first == 0).any())


RULES = (
    not_registered,
    not_in_optimizer,
    frozen,
    gradient_cleared,
    graph_cut,
    gradient_kept,
    no_update,
)
