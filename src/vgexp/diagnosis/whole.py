"""Tables as rules about causes may rely on them: with every declared column, numbers as numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from vgexp.diagnosis.cells import with_numbers
from vgexp.diagnosis.evidence import Evidence
from vgexp.quantities import TABLES


def with_whole_tables(evidence: Evidence) -> Evidence:
    """The same evidence, whose tables have all columns; what a table lacks was not measured.

    A cell that is no number where one belongs is nan, and rows without a step are left out. A layer
    without a name is called by its number. Rules take rows of these tables many times, so they are
    made for that: integers are nullable only in a column that has empty cells.
    """
    tables = {name: _whole(name, table) for name, table in evidence.tables.items()}
    return replace(evidence, tables={name: table for name, table in tables.items() if len(table)})


def _whole(name: str, table: pd.DataFrame) -> pd.DataFrame:
    table = with_numbers(name, table)
    changed: dict[str, Any] = {}
    for column in TABLES.get(name, ()):
        if column.name not in table:
            changed[column.name] = None if column.kind == "text" else np.nan
    if name == "layers" and "name" in changed:
        changed["name"] = "layer " + table["layer"].astype("str")
    changed |= {
        column: table[column].to_numpy(dtype="int64")
        for column, dtype in zip(table.columns, table.dtypes, strict=True)
        if isinstance(dtype, pd.Int64Dtype) and not table[column].hasnans
    }
    whole = table.assign(**changed) if changed else table
    if "step" in whole and whole["step"].isna().any():
        whole = whole[whole["step"].notna()]
    # A copy has the columns of one type in one array, of which pandas takes rows at once.
    return whole.copy()
