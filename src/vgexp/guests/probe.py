"""The probe of `import vgexp`: that of `vgexp.probe`, with a diagnosis and a run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vgexp import probe
from vgexp.errors import QuestionError, impossible, printable, reason
from vgexp.guests.recording import Recording, require_free
from vgexp.guests.summary import (
    constant_weights,
    default_weights,
    flatten,
    of_process,
    settings_of,
    summary_of,
)
from vgexp.known_facts import with_facts
from vgexp.probe import settings as of_settings
from vgexp.probe.settings import require_names
from vgexp.records import Rows
from vgexp.resuming import FAILED, INTERRUPTED

if TYPE_CHECKING:
    import pandas as pd

    from vgexp.diagnosis import Diagnosis, Evidence
    from vgexp.runs import Run


class Probe(probe.Probe):
    __doc__ = f"""{probe.Probe.__doc__}
    Further arguments:
        folder: a run folder to write, as `vgexp train` writes one: tables as the loop goes on, and
            a summary at the end of each `with`. It must hold no run yet. `vgexp show`, `compare`,
            `vgexp.load` and figures take it; it cannot be resumed. An error of the disk ends the
            recording, not the loop: it is told once and is in `unseen`.
        constant_loss: the loss of the best guess that ignores the input, in the loss's own units:
            ln 10 = 2.303 for the cross-entropy of 10 classes that are equally frequent, the
            variance of the targets for a squared error. A run whose loss falls below 0.9 of it has
            learned, and has a verdict. None: it is found where the loss's tensors tell.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        folder: Path | str | None = None,
        constant_loss: float | None = None,
        **options: Any,
    ) -> None:
        require_names(options, (*_DEFAULTS, "constant_loss", "folder"))
        require_constant_loss(constant_loss)
        super().__init__(model, optimizer, **options)
        self._recording: Recording | None = None
        require_folder(folder)
        if folder is not None:
            folder = Path(folder)
            require_free(folder)
            told = self._unseen
            self._recording = Recording(
                folder, self._own.columns, lambda text: told.setdefault("the run folder", text)
            )
        self._at_start: dict[str, Any] = {
            "constant_loss": None if constant_loss is None else float(constant_loss),
            "constant_weights": constant_weights(self._model),
            "default_weights": default_weights(self._model),
        }
        described = {
            "every": self._cadence.every,
            "activations_every": self._cadence.activations_every,
            "histograms_every": self._cadence.histograms_every,
            "layers": options.get("layers"),
            "loss_reduction": options.get("loss_reduction", "mean"),
            "metrics": [column.name for column in self._own.columns],
        }
        self._settings = {
            **settings_of(self._model, self._optimizer.groups(), optimizer),
            "probe": described,
        }

    # ------------------------------------------------------------ life

    def __enter__(self) -> Probe:
        if self._recording is not None and not self._inside:
            self._recording.open(self._settings)
        try:
            super().__enter__()
        except BaseException:
            if self._recording is not None and not self._inside:
                self._finish_recording({"status": INTERRUPTED})
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._recording is not None:
            self._finish_recording(_ending_of(error))

    # ------------------------------------------------------------ results

    @property
    def run(self) -> Run:
        """The run folder, as `vgexp.load` gives it.

        Raises:
            QuestionError: the probe has no folder.
        """
        from vgexp.runs import Run

        if self._recording is None:
            raise QuestionError(
                "the probe writes no run folder\nallowed: Probe(..., folder=FOLDER)"
            )
        self._collect()
        return Run(self._recording.folder)

    def diagnose(self) -> Diagnosis:
        """Health, cause and findings of what was measured so far; as `vgexp.diagnose(probe)`.

        What the probe did not see is in `unchecked`: the loss needs `watch_loss` or `note_loss`.
        """
        from vgexp import diagnosis

        return diagnosis.conclude(self.gather({name: self.to_frame(name) for name in self.tables}))

    def gather(self, frames: Mapping[str, pd.DataFrame]) -> Evidence:
        """What rules judge: these tables of the probe, and what it knows besides."""
        from vgexp import diagnosis

        return diagnosis.evidence_of_tables(
            frames,
            settings=flatten(self._seen_settings),
            unseen=self.unseen,
            dtype=self._dtype_name,
            num_examples=self._measuring.num_examples,
            ending=self._known,
        )

    @property
    def _known(self) -> dict[str, Any]:
        """What the caller, the model and the optimizer tell, and no table has (`known_facts`)."""
        own = {id(p) for p in self._model.parameters()}
        foreign = sum(id(p) not in own for p in self._optimizer.parameters())
        cut = self._taps.cut_states
        known = {
            **self._at_start,
            "foreign_parameters": foreign or None,
            "takes_turns": self._optimizer.takes_turns or None,
            "cut_states": [] if cut is None else [*cut.found],
        }
        return {name: value for name, value in known.items() if value is not None and value != []}

    def drain(self) -> list[Rows]:
        """Returns the rows measured since the last call; with a folder, they are in its tables."""
        if self._recording is not None:
            raise QuestionError(
                "the rows are written to the probe's folder\nallowed: probe.to_frame(TABLE)"
            )
        return super().drain()

    @property
    def _seen_settings(self) -> dict[str, Any]:
        """What is known of the run, with what the first pass showed of the model, by the names that
        a configuration has."""
        settings, position = with_facts(self._settings, self._known), self._plan.norm_position
        if position is not None:
            settings["model"] = {**settings["model"], "norm_position": position}
        return settings

    def to_frame(self, table: str = "layers") -> pd.DataFrame:
        """Returns all rows of a table so far; see `vgexp.probe.Probe.to_frame`.

        With a folder they are read from its files, where float32 numbers are in their shortest
        form.
        """
        frame = super().to_frame(table)  # with a folder: what could not be written
        if self._recording is None or not (self._recording.folder / f"{table}.csv").exists():
            return frame
        import pandas as pd

        from vgexp import tables

        written = tables.read(self._recording.folder, table)
        written = written[list(frame.columns)].astype(frame.dtypes.to_dict())
        return pd.concat([written, frame], ignore_index=True) if len(frame) else written

    def is_measured(self, table: str = "layers") -> pd.DataFrame:
        """Says of each cell of `to_frame(table)` whether it has a value, even if that is nan."""
        frame = super().is_measured(table)
        if self._recording is None or not (self._recording.folder / f"{table}.csv").exists():
            return frame
        import pandas as pd

        from vgexp import tables

        written = ~tables.empty_cells(self._recording.folder, table)[list(frame.columns)]
        return pd.concat([written, frame], ignore_index=True) if len(frame) else written

    # ------------------------------------------------------------ rows

    def _put(self, rows: Rows) -> None:
        if self._recording is None or not self._recording.add(rows):
            super()._put(rows)

    def _collect_many(self) -> None:
        recording = self._recording
        if recording is not None and recording.is_due:
            self._collect()
            recording.wrote(self.step, self._seen_settings)
        else:
            super()._collect_many()

    def _finish_recording(self, ending: Mapping[str, Any]) -> None:
        """Writes what waits and the summary; an error is noted."""
        recording = self._recording
        assert recording is not None
        try:
            self._collect()
            recording.wrote(self.step, self._seen_settings)
        except Exception as error:
            recording.fail(error)
        recording.finish(lambda: self._summary(ending))

    def _summary(self, ending: Mapping[str, Any]) -> dict[str, Any]:
        from vgexp import tables

        assert self._recording is not None
        wanted = ["layers", "steps", *(name for name in ("time", "evals") if name in self.tables)]
        frames = {name: self.to_frame(name) for name in wanted}
        metrics: dict[str, Any] = dict(ending)
        if len(frames["layers"]):
            has_loss = frames["steps"]["loss"].notna()
            if not (has_loss.all() or self._recording.has_failed):
                empty = tables.empty_cells(self._recording.folder, "steps", ["loss"])
                has_loss = ~empty["loss"]
            metrics = summary_of(
                frames,
                ending=ending,
                dtype=self._dtype_name,
                num_examples=self._measuring.num_examples or 1,
                has_loss=has_loss,
                constant_loss=self._at_start["constant_loss"],
            )
            from vgexp import diagnosis

            others = {name: self.to_frame(name) for name in self.tables if name not in frames}
            metrics |= diagnosis.cause_metrics(self.gather({**frames, **others}))
        return {
            **metrics,
            "steps": self.step,
            "seconds": round(self._recording.seconds, 3),
            **of_process(self._model, self.unseen),
        }

    @property
    def _dtype_name(self) -> str:
        first = next((p for p in self._model.parameters() if p.is_floating_point()), None)
        return "float32" if first is None else str(first.dtype).removeprefix("torch.")


def require_settings(settings: Mapping[str, Any]) -> None:
    """Refuses settings that `Probe` would not take, whatever the model; `folder` is none of them.

    Raises:
        QuestionError: a name is unknown, or a value impossible.
    """
    of_settings.require_settings(settings, _DEFAULTS | {"constant_loss": None})
    require_constant_loss(settings.get("constant_loss"))


def require_folder(folder: object) -> None:
    """Refuses what names no folder.

    Raises:
        QuestionError: it is neither a path nor None.
    """
    is_path = isinstance(folder, str | Path) and str(folder) not in ("", ".")
    if folder is not None and not is_path:
        raise QuestionError(
            f"folder is {printable(repr(folder))}\n"
            "allowed: the path of a folder that does not exist yet, or None"
        )


def require_constant_loss(value: object) -> None:
    """Refuses what is no loss.

    Raises:
        QuestionError: it is not a finite number.
    """
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise impossible("constant_loss", value, "a finite number, or None where it is not known")


_DEFAULTS = {
    name: value
    for name, value in of_settings.defaults_of(probe.Probe.__init__).items()
    if name != "is_bare"
}


def _ending_of(error: BaseException | None) -> dict[str, Any]:
    if error is None:
        return {"status": "completed"}
    if isinstance(error, Exception):
        return {"status": FAILED, "reason": reason(error)}
    return {"status": INTERRUPTED}
