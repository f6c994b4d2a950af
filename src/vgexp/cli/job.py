"""What Hydra calls: the job of each run, and the doorman who looks at folders before."""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vgexp import folders, sweep
from vgexp.cli import blocks, overrides, schema
from vgexp.cli.questions import translate, unknown_key
from vgexp.config import Config
from vgexp.errors import QuestionError, reason

if TYPE_CHECKING:
    from vgexp.runs import Run

_log = logging.getLogger("vgexp")
_sweeps: ContextVar[list[Path]] = ContextVar("_sweeps")


class Refused(BaseException):
    """A folder that cannot be used. Not an `Exception`: Hydra turns those of callbacks into
    warnings."""

    def __init__(self, question: QuestionError) -> None:
        super().__init__(str(question))
        self.question = question


class Doorman(Callback):
    """Hydra's callback: refuses a used folder before Hydra writes into it, notes a sweep's."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        _admit(_require_free, config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        folder = _admit(sweep.refuse_used, config.hydra.sweep.dir)
        _sweeps.get([]).append(folder)


@contextmanager
def sweep_folders() -> Iterator[list[Path]]:
    """The folders of the sweeps that begin within, wherever a launcher runs their jobs."""
    folders: list[Path] = []
    token = _sweeps.set(folders)
    try:
        yield folders
    finally:
        _sweeps.reset(token)


class Job:
    """The function of one composed configuration; holds how the last one ended."""

    def __init__(self, command: str, flags: Sequence[str]) -> None:
        self.command = command
        self.flags = list(flags)
        self.swept: frozenset[str] = frozenset()
        """The keys that differ from job to job of a sweep."""
        self.folder: Path | None = None
        self.error: Exception | None = None
        self.run: Run | None = None
        """The single run that ended well, unless it was to be quiet."""
        self._unwritten: list[sweep.Row] = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a launcher's other process, where folder names have to be resolved as well."""
        self.__dict__.update(state)
        schema.register()

    def __call__(self, composed: DictConfig) -> None:
        hydra = HydraConfig.get()
        self.folder = _short(Path(hydra.runtime.output_dir))
        if hydra.mode == RunMode.MULTIRUN:
            self._one_of_many(composed, hydra)
        else:
            self._alone(composed)

    def _alone(self, composed: DictConfig) -> None:
        assert self.folder is not None
        config = None
        try:
            config = to_config(composed)
            done = _run(config, self.folder, self.command)
            self.run = None if config.output.quiet else done
        except QuestionError as error:
            self.error = error
            _leave_nothing(self.folder)
        except KeyboardInterrupt:
            _leave_nothing(self.folder)
            raise
        except Exception as error:
            self.error = error
            _record_failure(self.folder, config, error)

    def _one_of_many(self, composed: DictConfig, hydra: Any) -> None:
        assert self.folder is not None
        typed = [str(override) for override in hydra.overrides.task]
        row = sweep.Row(int(hydra.job.num), sweep.FAILED, overrides.values(typed))
        config = None
        try:
            config = to_config(composed)
            quiet = dataclasses.replace(config.output, quiet=True)
            config = dataclasses.replace(config, output=quiet)
            done = _run(config, self.folder, self._own_command(hydra))
            row = _ended(row, done.summary)
        except KeyboardInterrupt:
            row = _ended(row, {"status": "interrupted", **_summary(self.folder)})
            raise
        except Exception as error:
            _record_failure(self.folder, config, error)
            row = dataclasses.replace(row, reason=reason(error))
        finally:
            self._record(Path(str(hydra.sweep.dir)), row)
            # A reader who has left (`| head`) does not end the sweep.
            with suppress(BrokenPipeError):
                _tell(row, typed, self.swept)

    def _own_command(self, hydra: Any) -> str:
        """What to type for this job alone, also where it was its preset that asked for a sweep."""
        asked = "hydra.mode=MULTIRUN" in hydra.overrides.hydra
        mode = [] if asked else ["hydra.mode=RUN"]
        return shlex.join(["vgexp", "train", *self.flags, *hydra.overrides.task, *mode])

    def _record(self, folder: Path, row: sweep.Row) -> None:
        self._unwritten.append(row)
        try:
            sweep.record(folder, self._unwritten)
            self._unwritten.clear()
        except OSError as error:
            # Tried again with the next job's row; the job's own folder has its figures.
            self.error = error
            blocks.show(blocks.block(f"job {row.job} is not in {folder / sweep.FILE}", str(error)))


def to_config(composed: DictConfig) -> Config:
    """The plain configuration. OmegaConf ends here.

    Raises:
        QuestionError: a value out of its range, or a key that was added with `+`.
    """
    try:
        config = cast(Config, OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise translate(error) or error from error
    _refuse_strangers(composed, config, "")
    return config


def _refuse_strangers(composed: DictConfig, config: Any, path: str) -> None:
    known = [field.name for field in dataclasses.fields(config)]
    for key in composed:
        if key not in known:
            raise unknown_key(path, str(key), known)
        inner = getattr(config, str(key))
        if dataclasses.is_dataclass(inner):
            _refuse_strangers(composed[key], inner, str(key))


def _run(config: Config, folder: Path, command: str) -> Run:
    from vgexp import runs

    return runs.run(config, folder, command=command)


def _record_failure(folder: Path, config: Config | None, error: Exception) -> None:
    """The traceback into the job's log, `failed` into its summary, at once, as far as it goes."""
    from vgexp import runs

    _log.error("the job failed", exc_info=error)
    # Where nothing can be written (a full disk), the error itself is all there is to say.
    with suppress(OSError, ValueError):
        for handler in logging.getLogger().handlers:
            handler.flush()
    with suppress(OSError, ValueError):
        runs.write_failure(folder, config, error)


def _ended(row: sweep.Row, summary: Mapping[str, Any]) -> sweep.Row:
    status = str(summary.get("status", "completed"))
    return dataclasses.replace(row, status=status, figures=sweep.figures(summary))


def _summary(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _tell(row: sweep.Row, typed: Sequence[str], swept: Collection[str]) -> None:
    from vgexp.cli import progress
    from vgexp.cli.screen import Screen

    print(progress.line(row, typed, swept, Screen().width), flush=True)


def _leave_nothing(folder: Path) -> None:
    """Removes what Hydra wrote for a run that could not begin, where nothing else is there."""
    log, settings = folder / "train.log", folder / ".hydra"
    if {path.name for path in folder.iterdir()} - {log.name, settings.name}:
        return
    if log.exists() and not log.stat().st_size:
        log.unlink()
    for path in settings.glob("*.yaml"):
        path.unlink()
    for empty in (settings, folder):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()


def _require_free(folder: Path) -> None:
    sweep.refuse_file(folder)
    folders.require_free(folder)


def _admit(refuse: Callable[[Path], None], folder: object) -> Path:
    path = Path(str(folder))
    try:
        refuse(path)
    except QuestionError as error:
        raise Refused(error) from None
    return path


def _short(folder: Path) -> Path:
    """Relative to where the user stands, if that is shorter to read."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
