"""What the rule sets of other tools say of the same run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def alarms(tables: Mapping[str, pd.DataFrame], facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """Peer -> the names of its rules that raise an alarm.

    Args:
        tables: those of a run or a probe, by name (`layers`, `steps`, `evals`, ...).
        facts: what else is known, such as `dtype`, `num_classes`.
    """
    del tables, facts
    return {}
