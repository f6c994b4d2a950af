"""The rules of the diagnosis, in the order in which their findings are told.

To add one, write its function in the module of its subject and enter it in that module's `RULES`.
"""

from __future__ import annotations

from vgexp.diagnosis.findings import Rule
from vgexp.diagnosis.rules import (
    backward_signal,
    initialisation,
    layers,
    theory,
    through_time,
    training,
)
from vgexp.registry import Registry

_SUBJECTS = (backward_signal, theory, through_time, initialisation, layers, training)

RULES: Registry[Rule] = Registry(
    "rule", {rule.id: rule for subject in _SUBJECTS for rule in subject.RULES}
)
