"""The rules of the diagnosis.

Some describe the network, in the order in which their findings are told (`RULES`); others find what
may be the cause of a sickness (`CAUSE_RULES`). To add one, write its function in the module of its
subject and enter it in that module's `RULES`.
"""

from __future__ import annotations

from vgexp.diagnosis.findings import CauseRule, Rule
from vgexp.diagnosis.rules import (
    attention,
    backward_signal,
    clipping,
    depth,
    dtypes,
    epsilons,
    flat_losses,
    graph_cuts,
    initial_weights,
    initialisation,
    inputs,
    labels,
    landscapes,
    layers,
    long_steps,
    losses,
    not_finite,
    notes,
    probabilities,
    recurrence,
    short_steps,
    theory,
    through_time,
    training,
    units,
    wiring,
)
from vgexp.registry import Registry

_SUBJECTS = (backward_signal, theory, through_time, initialisation, layers, training)
_CAUSES = (
    *(wiring, graph_cuts, probabilities, losses, not_finite, flat_losses, inputs),
    *(initial_weights, depth, recurrence, attention),
    *(clipping, epsilons, long_steps, short_steps, units, dtypes, landscapes, labels, notes),
)

RULES: Registry[Rule] = Registry(
    "rule", {rule.id: rule for subject in _SUBJECTS for rule in subject.RULES}
)
CAUSE_RULES: Registry[CauseRule] = Registry(
    "cause", {rule.id: rule for subject in _CAUSES for rule in subject.RULES}
)
"""By the cause that they look for. `unknown` is what is left, and `hidden_by_weights` describes."""
