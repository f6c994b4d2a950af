"""A run: from a configuration to a folder of tables, whatever happens on the way."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgexp import config as configuration
from vgexp.config import Config
from vgexp.errors import QuestionError

if TYPE_CHECKING:
    import pandas as pd

    from vgexp.sinks import Sink
    from vgexp.training import Trainer

OUTPUTS = Path("outputs/train")


@dataclass(frozen=True)
class Run:
    """A run folder, read when asked: tables as DataFrames, summary, configuration."""

    folder: Path

    @cached_property
    def layers(self) -> pd.DataFrame:
        """`layers.csv`: a row a weight and measured step."""
        return self._table("layers")

    @cached_property
    def steps(self) -> pd.DataFrame:
        """`steps.csv`: a row an optimizer step."""
        return self._table("steps")

    @cached_property
    def evals(self) -> pd.DataFrame:
        """`evals.csv`: a row an evaluation of a split."""
        return self._table("evals")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """`summary.json`."""
        from vgexp import tables

        return tables.read_summary(self.folder)

    @cached_property
    def config(self) -> Config:
        """The resolved configuration, which `vgexp.run` takes again."""
        from vgexp import tables

        return tables.read_config(self.folder)

    def _table(self, name: str) -> pd.DataFrame:
        from vgexp import tables

        return tables.read(self.folder, name)


def load(folder: Path | str) -> Run:
    """The run in a folder.

    Raises:
        QuestionError: there is no run in it.
    """
    from vgexp import tables

    found = tables.find_runs([folder])
    if found != [Path(folder)]:
        raise QuestionError(
            f"{folder} is not a run folder but holds {len(found)}\nnearest: {found[0]}"
        )
    return Run(Path(folder))


def run(config: Config, folder: Path | str | None = None, *, command: str = "") -> Run:
    """Trains what a configuration describes and writes its run folder.

    Args:
        folder: where to; None: outputs/train/<model>/<date_time_microseconds>.
        command: what was typed to get here; the first line of `config.yaml`.

    Raises:
        QuestionError: an impossible configuration, or a folder that holds a run already.
        OSError: the folder cannot be written; what was recorded before stays.
        KeyboardInterrupt: after the tables and a summary with status `interrupted` are on disk.
    """
    from vgexp.assembly import assemble

    folder = _default_folder(config) if folder is None else Path(folder)
    require_free(folder)
    trainer = assemble(config)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, config, command)
    try:
        with _sinks(folder, trainer, config) as sinks:
            try:
                for rows in trainer.rows():
                    _hand_on(sinks, [rows])
                status = "completed" if trainer.divergence is None else "diverged"
            finally:
                _hand_on(sinks, trainer.flush())
    except KeyboardInterrupt:
        write_summary(folder, _summary(folder, config, trainer, "interrupted"))
        raise
    write_summary(folder, _summary(folder, config, trainer, status))
    return Run(folder)


def write_failure(folder: Path, config: Config | None, error: BaseException) -> None:
    """Makes a folder whose run failed say so: configuration, status and reason."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None and not (folder / "config.yaml").exists():
        write_config(folder, config, "")
    known: dict[str, Any] = {}
    if (folder / "summary.json").exists():
        known = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    reason = f"{type(error).__name__}: {error}"
    write_summary(folder, {**known, "status": "failed", "reason": reason})


def require_free(folder: Path) -> None:
    """Refuses a folder that is a file or holds a run.

    Raises:
        QuestionError: nothing may be written there.
    """
    if folder.exists() and not folder.is_dir():
        raise QuestionError(f"run folder {folder} is a file\nallowed: a folder, new or empty")
    for name in ("layers.csv", "summary.json"):
        if (folder / name).exists():
            raise QuestionError(
                f"run folder {folder} holds a run already ({name})\n"
                "allowed: a new folder; a recorded run is never overwritten"
            )


def write_config(folder: Path, config: Config, command: str) -> None:
    """Writes `config.yaml`: a Hydra primary config that composes against the packaged schema."""
    import yaml

    chosen = [{group: name} for group, name in configuration.choices(config).items()]
    content = {"defaults": ["schema", *chosen, "_self_"], **configuration.to_dict(config)}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    head = f"# {command}\n" if command else ""
    (folder / "config.yaml").write_text(head + text, encoding="utf-8")


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes `summary.json`, whole or not at all."""
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    temporary = folder / ".summary.json.new"
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / "summary.json")
    finally:
        temporary.unlink(missing_ok=True)


def _default_folder(config: Config) -> Path:
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    return OUTPUTS / configuration.choice("model", config.model) / now


@contextmanager
def _sinks(folder: Path, trainer: Trainer, config: Config) -> Iterator[list[Sink]]:
    from vgexp.sinks import SinkContext, open_sinks

    sinks = open_sinks(SinkContext(folder, trainer.num_steps, config.output.quiet))
    try:
        yield sinks
    finally:
        for sink in sinks:
            sink.close()


def _hand_on(sinks: list[Sink], batch: list[Any]) -> None:
    for rows in batch:
        for sink in sinks:
            sink(rows)


def _summary(folder: Path, config: Config, trainer: Trainer, status: str) -> dict[str, Any]:
    from vgexp import diagnosis, tables

    figures = diagnosis.summarise(
        tables.read(folder, "layers"),
        tables.read(folder, "steps"),
        tables.read(folder, "evals"),
        constant_loss=trainer.constant_loss,
        num_examples=config.data.batch_size * config.train.accumulate,
        dtype=config.dtype,
        status=status,
        divergence=trainer.divergence,
    )
    return {
        **figures,
        "steps": trainer.state.step,
        "num_parameters": trainer.num_parameters,
        "seconds": round(trainer.clock.seconds, 3),
        "probe_overhead": trainer.clock.probe_overhead,
        "unseen": trainer.unseen,
        "device": str(trainer.device),
        "seed": config.seed,
        "config_hash": configuration.identity(config),
        "versions": _versions(),
        "host": platform.node(),
        "process": os.getpid(),
    }


def _versions() -> dict[str, str]:
    import numpy
    import torch

    from vgexp import __version__

    return {
        "vgexp": __version__,
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }
