"""Rules that end a hopeless run early (`train.stop_on`), judged on the rows that were recorded.

Nothing is measured for them, and no file is read while a run goes on: rows are noted as they are
handed on, and every 100 steps the cheapest question comes first. Has it learned, or does the loss
still fall? Then nothing else is asked, so that a network that learns pays for no rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from vgexp import summaries
from vgexp.config import DIVERGED, Config
from vgexp.errors import reason, unknown
from vgexp.quantities import TABLES, VERDICTS, Quantity
from vgexp.records import Floats, Rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from vgexp.training import Trainer

JUDGED_EVERY = 100
"""Steps between two judgements; as many as a rule has to hold for, where that is less."""
_SIGNALS = ("vanishing", "exploding")
_STALLED, _RELAPSED = "stalled", "relapsed"
_NOT_LIVE = ("unknown",)
"""What is left of a network of which no rule says why it does not learn."""
READ = ("layers", "steps", "evals", "time", "curvature", "wiring", "parameters", "loss")
"""Tables that rules are judged on."""
_HALF = 0.5
"""Share of the first loss below which a loss of unknown kind counts as learned."""


def list_signs() -> list[str]:
    """What `train.stop_on` may name: verdicts that can be told live, and causes but notes."""
    from vgexp.diagnosis.causes import CAUSES

    causes = [id for id, cause in CAUSES.items() if not cause.is_note and id not in _NOT_LIVE]
    verdicts = [name for name in VERDICTS if name not in ("healthy", "undecided")]
    return [*verdicts, *causes]


def require(names: Sequence[str]) -> None:
    """Requires that there are rules of these names.

    Raises:
        QuestionError: a name that does not exist.
    """
    known = list_signs() if names else []
    for name in names:
        if name not in known:
            raise unknown("name in train.stop_on", name, known)


@final
class LiveRules:
    """Says whether a run ends early, from the rows that it was given.

    A rule of `train.stop_on` holds after s updates where s is at least the patience, which is
    longer where the signal at the last measured step is steady (`TrainConfig.patience`), and:

    - `vanishing`, `exploding`: the signal is so at every measured step of the last ones, as many as
      the patience says;
    - `stalled`: the signal is steady;
    - `relapsed`: the network learned, and none of the means over 20 steps within the patience is
      below 0.9 of a constant guess's loss;
    - a cause: the diagnosis of what was recorded so far names it, or as a consequence, and it has
      shown for as long as the patience. It is asked at the patience and at its doubles.

    All but `relapsed` need a network that has not learned, and whose loss does not fall any more
    (`diagnosis.learning`). Where nobody knows what a guess costs, it has learned if a mean over 20
    steps was below half of the first loss. `diverged` is the trainer's own.

    Args:
        warn: is told of an error in the diagnosis, after which causes are not asked for any more.
    """

    def __init__(self, config: Config, trainer: Trainer, warn: Callable[[str], None]) -> None:
        self._config, self._trainer, self._warn = config, trainer, warn
        asked = config.train.stop_on
        num_steps = trainer.facts.num_steps
        self._patience = config.train.patience(num_steps)
        self._long_patience = config.train.patience(num_steps, is_steady=True)
        self._signals = [name for name in _SIGNALS if name in asked]
        self._stalls, self._relapses = _STALLED in asked, _RELAPSED in asked
        verdicts = (*_SIGNALS, _STALLED, _RELAPSED, DIVERGED)
        self._causes = frozenset(asked) - frozenset(verdicts)
        self._rows: dict[str, list[Rows]] = {name: [] for name in READ}
        self._losses: list[NDArray[np.float64]] = []
        self._num_read = 0
        self._is_over = not (self._signals or self._stalls or self._relapses or self._causes)

    @property
    def every(self) -> int:
        """Steps between two judgements."""
        return min(JUDGED_EVERY, self._patience)

    def note(self, rows: Rows) -> None:
        """Notes rows that were handed on."""
        if not self._is_over and rows.table in READ and len(rows):
            self._rows[rows.table].append(rows)

    def note_earlier(self, tables: Mapping[str, pd.DataFrame]) -> None:
        """Notes the rows that a run has which goes on."""
        for name, table in tables.items():
            self.note(_rows_of(name, table))

    def __call__(self, num_steps: int) -> str | None:
        """Why the run ends after so many updates; None: it goes on."""
        if self._is_over or num_steps < self._patience:
            return None
        from vgexp.diagnosis.learning import still_falls

        losses, guess = self._read_losses(), self._trainer.facts.constant_loss
        is_below = _find_learned(losses, guess)
        if is_below.any():
            found = self._judge_relapse(is_below)
        elif still_falls(losses, guess):
            found = None
        else:
            found = self._judge_plateau(num_steps)
        return None if found is None else f"{found} (train.stop_on), after {num_steps} steps"

    # ------------------------------------------------------------ the loss

    def _read_losses(self) -> pd.Series:
        """The losses of all steps."""
        import pandas as pd

        steps = self._rows["steps"]
        self._losses += [_floats(rows.columns["loss"]) for rows in steps[self._num_read :]]
        self._num_read = len(steps)
        self._losses = [_join(self._losses)]
        return pd.Series(self._losses[0])

    def _judge_relapse(self, is_below: NDArray[np.bool_]) -> str | None:
        """Whether it lost what it learned; from here on no other rule has anything to say."""
        self._is_over = not self._relapses
        self._rows = {name: [] for name in READ} | {"steps": self._rows["steps"]}
        if self._is_over:
            self._rows, self._losses = {}, []
            return None
        lost = ~is_below[-self._patience :]
        if len(lost) < self._patience or not lost.all():
            return None
        return f"{_RELAPSED}: it learned, and has lost it for {self._patience} steps"

    # ------------------------------------------------------------ the signal

    def _judge_plateau(self, num_steps: int) -> str | None:
        """Whether a network that has not learned, and whose loss does not fall, is hopeless."""
        signals = self._signals_backwards()
        step, last = next(signals, (None, None))
        is_lost = last in _SIGNALS
        if last is not None and last in self._signals:
            earlier = [(step, last), *signals]
            if all(signal == last for _, signal in earlier):
                since = earlier[-1][0]
                return f"{last} at every measured step since step {since}, and it has not learned"
        patience = self._patience if is_lost else self._long_patience
        if num_steps < patience:
            return None
        if self._stalls and not is_lost:
            return f"{_STALLED}: it has not learned, and the loss does not fall any more"
        return self._judge_causes(num_steps, patience)

    def _signals_backwards(self) -> Iterator[tuple[int, str | None]]:
        """The signals of the measured steps within the patience, the last first."""
        from vgexp.diagnosis.signal import signal_of

        num_layers = self._trainer.facts.num_layers
        least = self._trainer.state.step - self._patience
        for rows in reversed(self._rows["layers"]):
            frame = _frame("layers", [rows])
            for step in sorted({*frame["step"].tolist()}, reverse=True):
                if step < least:
                    return
                table = frame[frame["step"] == step]
                if table["delta_rms"].notna().any():
                    found = signal_of(table, num_layers, is_users=num_layers is None)
                    yield step, found.signal

    # ------------------------------------------------------------ causes

    def _judge_causes(self, num_steps: int, patience: int) -> str | None:
        if not self._causes or not self._is_doubling(num_steps, patience):
            return None
        from vgexp.diagnosis.root import find_root

        present = [name for name in READ if name in self._trainer.facts.tables]
        tables = {name: _frame(name, self._rows[name]) for name in present}
        try:
            _, evidence = summaries.evidence_of(tables, self._config, self._trainer, "interrupted")
            root = find_root(evidence)
        except Exception as error:
            self._causes = frozenset()
            self._warn(f"train.stop_on: causes cannot be told: {reason(error)}")
            return None
        for finding in root.findings:
            since = finding.step or 0
            is_told = finding.kind != "note" and finding.id in self._causes
            if is_told and num_steps - since >= patience:
                at = f" at {finding.layers[0]}" if finding.layers else ""
                return f"{finding.id} since step {since}{at}, and it has not learned"
        return None

    def _is_doubling(self, num_steps: int, at: int) -> bool:
        """Whether this is the first judgement at or after a number, or after one of its doubles."""
        while at <= num_steps - self.every:
            at *= 2
        return at <= num_steps


def _find_learned(losses: pd.Series, guess: float) -> NDArray[np.bool_]:
    """At which means over 20 steps the network had learned."""
    from vgexp.diagnosis.learning import LEARNED_BELOW
    from vgexp.diagnosis.readings import running_means

    limit = _HALF * float(losses.iloc[0]) if math.isnan(guess) else LEARNED_BELOW * guess
    return running_means(losses) < limit


def _join(pieces: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    import numpy as np

    return np.concatenate(pieces)


def _frame(table: str, batches: Sequence[Rows]) -> pd.DataFrame:
    """The rows of a table as one that is read has them."""
    import pandas as pd

    columns = TABLES[table]
    if not batches:
        return pd.DataFrame({column.name: [] for column in columns})
    frames = [
        pd.DataFrame({column.name: _cells(rows, column) for column in columns}) for rows in batches
    ]
    return pd.concat(frames, ignore_index=True)


def _cells(rows: Rows, column: Quantity) -> Any:
    cells = rows.columns.get(column.name)
    if cells is None:
        return [None if column.kind == "text" else math.nan] * len(rows)
    is_whole = not isinstance(cells, Floats) and None not in cells
    return list(cells) if column.kind == "text" or is_whole else _floats(cells)


def _floats(cells: Sequence[Any]) -> NDArray[np.float64]:
    """Cells as float64, an empty one as nan: the numbers that are read from the file of the table.

    Of float32 that is the number of the shortest text, so that a run that goes on, and reads its
    tables once, judges the same numbers.
    """
    import numpy as np
    import orjson

    if not isinstance(cells, Floats):
        return np.array([math.nan if cell is None else cell for cell in cells], dtype="float64")
    values = np.ascontiguousarray(cells.values)
    wide = values.astype("float64")
    if values.dtype != wide.dtype:
        texts = orjson.loads(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY))
        read = np.array(texts, dtype="float64")  # what is not finite is None, which is nan
        wide = np.where(np.isfinite(wide), read, wide)
    return wide if cells.present is None else np.where(cells.present, wide, math.nan)


def _rows_of(name: str, table: pd.DataFrame) -> Rows:
    """A table that was read, as rows."""
    columns: dict[str, Any] = {}
    for column in table:
        cells = table[column]
        if cells.dtype.kind == "f":
            columns[str(column)] = Floats(cells.to_numpy())
        else:
            columns[str(column)] = cells.astype(object).where(cells.notna(), None).tolist()
    return Rows(name, columns)
