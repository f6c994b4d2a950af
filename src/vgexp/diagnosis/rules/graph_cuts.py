"""The rule about weights that no gradient comes to, though the forward pass uses them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import rows_at, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.learning import ENOUGH_STEPS
from vgexp.diagnosis.outcome import column_of, has_learned
from vgexp.diagnosis.phrases import name_layers
from vgexp.diagnosis.rules.wiring import not_registered
from vgexp.diagnosis.rules.wiring_rows import (
    A_FACT,
    beside_the_path,
    held_rows,
    still_weights,
    used_weights,
    weights_in,
)
from vgexp.unseen import weights_that_ran_silently

_LARGE_TERM = 0.1
"""Share of the loss from which on a term that does not train is no small correction."""
_FAR_ABOVE_ZERO = 1e-12
"""A signal this large does not fall to exactly 0 within one layer by rounding."""


@cause_rule("graph_cut", "wiring.csv", reason=A_FACT, certain=True)
def graph_cut(evidence: Evidence) -> Finding | None:
    """Whether no gradient comes to weights that the forward pass uses.

    None comes at all (detached, no_grad), or exactly 0 behind a layer that gets a signal, has
    units that are not dead, and whose numbers the dtype holds (sign, round); or the graph of the
    loss leads to no output that it was given, or by way of sign or round alone; or a term of the
    loss is part of it as a plain number. What runs under
    no_grad may do so by intent, as a pretrained backbone, and a head or a pooler beside the path
    may be for another task: of a network that learned it is no fault.
    """
    if not_registered(evidence) is not None:
        return None
    held = held_rows(evidence)
    cut = _find_cut(evidence, held)
    if not cut.names:
        return _made_a_number(evidence) or _cut_in_time(evidence)
    return Finding(
        "graph_cut",
        f"{name_layers(cut.names)} get no gradient"
        f"{'' if cut.is_beside else ' although the loss needs them'}: {cut.why}.",
        step=int(held["step"].min()) if len(held) else evidence.first_step,
        layers=cut.names,
        numbers={
            "layers_without_gradient": Number(len(cut.names), 0),
            **({"layers_beside_the_path": Number(len(cut.names))} if cut.is_beside else {}),
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
        is_fact=cut.is_fact,
    )


class _Cut(NamedTuple):
    """The weights that no gradient comes to, and why."""

    names: tuple[str, ...]
    why: str
    is_fact: bool = True
    is_beside: bool = False
    """Whether they stand beside the path, where nobody knows whether the loss needs what they
    give."""


def _find_cut(evidence: Evidence, held: pd.DataFrame) -> _Cut:
    """The first that is found of all ways in which the graph may be cut; no names where none is.

    Args:
        held: rows of what the optimizer holds.
    """
    wiring = evidence.tables["wiring"]
    trained = wiring[values_of(wiring, "requires_grad") == 1]
    if evidence.is_check and len(trained) and (values_of(trained, "gradient_came") == 0).all():
        return _Cut(weights_in(trained), "the loss has no graph that leads to a parameter")
    none = held[(values_of(held, "gradient_came") == 0) & held["gradient"].eq("none")]
    none = none[~none["name"].isin(evidence.metrics.get("loss_ignores") or ())]
    late = set(held.loc[values_of(held, "gradient_came") == 1, "name"])
    unreached = [name for name in none["name"] if name not in late]
    cut, why = used_weights(evidence, unreached), "no backward pass reached them"
    if not cut:
        cut = _all_hidden(evidence, none["name"])
        why = "they run without gradients, or not at all"
    if cut and not evidence.is_check and set(cut) <= beside_the_path(evidence):
        why = "no backward pass reached them, though it did those in front of them"
        return _Cut(cut, why, is_fact=False, is_beside=True)
    if cut:
        return _Cut(cut, why)
    cut, why = _cut_in_the_loss(evidence, held, unreached)
    if cut:
        return _Cut(cut, why)
    if cut := _ran_silently(evidence, none["name"]):
        return _Cut(cut, "they run under no_grad, and never change", is_fact=False)
    if cut := _zero_behind(evidence):
        return _Cut(cut, "what comes back to them is exactly 0 from the start")
    cut = weights_in(held) if _sees_outputs_alone(evidence, held) else ()
    return _Cut(cut, "the loss has no graph that leads back to the model's output")


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
        return weights_in(held), (
            f"every path from the loss to them passes {function}, whose derivative is 0"
        )
    layers = evidence.tables.get("layers")
    lost = held[held["name"].isin(unreached)]
    reached = held.loc[values_of(held, "gradient_came") == 1, "name"]
    if not (values_of(rows, "reaches_output") == 0).all() or not len(lost):
        return (), ""
    if layers is not None and reached.isin(set(layers["name"])).any():
        return (), ""  # by way of what the loss function was not given
    return weights_in(
        lost
    ), "the loss has no graph that leads back to the outputs that it was given"


def _made_a_number(evidence: Evidence) -> Finding | None:
    """Whether a term that has a gradient is part of the loss as a plain number alone; or no
    backward pass ever goes through the loss that is watched, though gradients come."""
    table = evidence.tables.get("loss")
    rows = None if table is None else table[table["role"] == "loss"]
    if rows is None or not len(rows) or evidence.is_check:
        return None
    shares = values_of(rows, "number_share")
    found = rows[shares >= _LARGE_TERM]
    if len(found):
        share = float(values_of(found, "number_share").max())
        return Finding(
            "graph_cut",
            f"{share:.0%} of the loss {found['function'].iloc[0]} is a term that was turned into a"
            " number before it was added: no gradient comes back by it, and only the other terms"
            " train.",
            step=evidence.first_step,
            numbers={"number_share": Number(share, _LARGE_TERM)},
            remedies=(_KEEP_TENSOR,),
        )
    losses = column_of(evidence, "steps", "loss")
    norms = column_of(evidence, "steps", "grad_norm")
    is_finite = bool((values_of(rows, "not_finite") == 0).all())
    was_never_seen = losses.size >= ENOUGH_STEPS and np.isnan(losses).all() and is_finite
    if not was_never_seen or not any("watch_loss saw" in line for line in evidence.unseen):
        return None
    if not (np.isfinite(norms) & (norms > 0)).all():
        return None
    return Finding(
        "graph_cut",
        f"No backward pass goes through the loss {rows['function'].iloc[0]}, though gradients come"
        " from elsewhere: what the loop differentiates does not lead to it.",
        step=evidence.first_step,
        numbers={"steps_without_pass": Number(float(losses.size), 0.0)},
        remedies=(_KEEP_TENSOR,),
    )


_KEEP_TENSOR = Remedy(
    "Add the terms of a loss as tensors, and turn what is logged into a number afterwards.",
    "A number has no graph.",
    code="loss = error + 1e-3 * penalty  # not error.item() + ...",
    source="PyTorch, autograd",
)


def _cut_in_time(evidence: Evidence) -> Finding | None:
    """Whether modules that are called at each step in time read a state without a graph.

    Calls side by side, such as those of several views of an example whose copies are detached by
    intent, look the same: a network that learned has no such fault, and one update cannot tell.
    """
    names = tuple(map(str, evidence.metrics.get("cut_states") or ()))
    if not names or evidence.is_check or has_learned(evidence):
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
        is_fact=False,
    )


def _sees_outputs_alone(evidence: Evidence, held: pd.DataFrame) -> bool:
    """Whether the loss gets outputs, and no backward pass comes to any parameter, at any step."""
    table = evidence.tables.get("loss")
    came = values_of(held, "gradient_came")
    has_outputs = table is not None and bool(table["role"].eq("output").any())
    return has_outputs and len(held) > 0 and bool((came == 0).all())


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


def _ran_silently(evidence: Evidence, names: Iterable[object]) -> tuple[str, ...]:
    """Those of the names whose modules ran under no_grad, and whose weights stayed as they were."""
    return still_weights(
        evidence, weights_that_ran_silently(evidence.unseen).intersection(map(str, names))
    )


def _zero_behind(evidence: Evidence) -> tuple[str, ...]:
    """The layers that get exactly 0 at every measured step, below one that gets a signal for sure.

    A factor that begins at 0, as of a branch in ReZero, lets nothing back at the first step, and
    the others get theirs past it. After one update alone it cannot be told from a cut.
    """
    rows = rows_at(evidence, evidence.first_step)
    layers = evidence.tables.get("layers")
    if layers is None or not len(rows):
        return ()
    deltas, dead = values_of(rows, "delta_rms"), values_of(rows, "dead_fraction")
    reached = set(layers.loc[values_of(layers, "delta_rms") > 0, "name"])
    zero = np.flatnonzero((deltas == 0) & ~rows["name"].isin(reached).to_numpy())
    if not zero.size or _has_weights_of_zero(evidence):
        return ()
    top = int(zero.max())
    is_in_branches = bool((deltas[: top + 1] > 0).any())
    if is_in_branches and evidence.first_step == evidence.last_step:
        return ()
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
    return tuple(map(str, rows["name"].iloc[zero if is_in_branches else slice(top + 1)]))


def _has_weights_of_zero(evidence: Evidence) -> bool:
    """Whether a weight is exactly 0 at the first step, beside the path as well: what is behind it
    gets exactly 0 without a cut."""
    layers = evidence.tables["layers"]
    at_first = values_of(layers[layers["step"] == evidence.first_step], "weight_norm")
    return bool((at_first == 0).any())


RULES = (graph_cut,)
