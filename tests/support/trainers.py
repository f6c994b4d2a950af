"""What tests of training share: a small configuration, its tables, a run cut short."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

from vgexp.assembly import assemble
from vgexp.config import (
    Config,
    GaussianConfig,
    MlpConfig,
    SgdConfig,
    TrainConfig,
)
from vgexp.quantities import TABLES
from vgexp.training import Trainer

Table = dict[str, list[Any]]

NEVER = 10**9

DATA = GaussianConfig(num_examples=160, features=6, num_classes=3, batch_size=16, val_fraction=0.2)

MODEL = MlpConfig(depth=3, width=7, activation="tanh", init="xavier_normal", bias_std=0.1)

BASE = Config(
    model=MODEL,
    data=DATA,
    optimizer=SgdConfig(lr=0.3),
    train=TrainConfig(steps=23, eval_every=5),
    dtype="float64",
)


def changed(config: Config, **sections: Any) -> Config:
    """A configuration with other sections; a dict changes fields of one."""
    new = {
        name: dataclasses.replace(getattr(config, name), **value)
        if isinstance(value, dict)
        else value
        for name, value in sections.items()
    }
    return dataclasses.replace(config, **new)


def collected(rows: Iterator[Any]) -> dict[str, Table]:
    """Table -> column -> cells, in the order in which they came; `timing` differs and is left."""
    tables: dict[str, Table] = {
        table: {column.name: [] for column in columns}
        for table, columns in TABLES.items()
        if table != "timing"
    }
    for each in rows:
        if each.table in tables:
            for name, cells in tables[each.table].items():
                cells += each.columns.get(name, [None] * len(each))
    return tables


def tables_of(config: Config) -> dict[str, Table]:
    return collected(assemble(config).rows())


def assert_same(one: dict[str, Table], other: dict[str, Table]) -> None:
    """Cell for cell, nan equal to nan."""
    assert one.keys() == other.keys()
    for table in one:
        for name in one[table]:
            assert list(map(str, one[table][name])) == list(map(str, other[table][name])), (
                table,
                name,
            )


def without_step(table: Table, step: int) -> Table:
    kept = [i for i, s in enumerate(table["step"]) if s != step]
    return {name: [cells[i] for i in kept] for name, cells in table.items()}


def stopped_after(trainer: Trainer, num_steps: int) -> dict[str, Table]:
    """The rows of the first steps: `stop` is called in the last but one, which is not whole."""
    rows = stopped_during(trainer, num_steps - 2)
    assert trainer.state.step == num_steps
    return rows


def stopped_during(trainer: Trainer, step: int) -> dict[str, Table]:
    def counting(*_: object) -> None:
        if trainer.state.step == step:
            trainer.stop()

    trainer.state.optimizer.register_step_pre_hook(counting)
    return collected(trainer.rows())


def require_going_on(config: Config, stop_after: int) -> None:
    """Checks that a loaded state goes on with the rows that follow, for every table and cell.

    Where it stopped every column was measured, whatever the cadence: that step's rows of layers
    and histograms are left out.
    """
    whole, first = tables_of(config), assemble(config)
    head = stopped_after(first, stop_after)
    saved = copy.deepcopy(first.state_dict())
    second = assemble(config)
    second.load_state_dict(saved)
    tail = collected(second.rows())
    joined = {t: {name: head[t][name] + tail[t][name] for name in head[t]} for t in head}
    for tables in (joined, whole):
        for table in {"layers", "histograms"} & tables.keys():
            tables[table] = without_step(tables[table], stop_after - 1)
    assert_same(joined, whole)
