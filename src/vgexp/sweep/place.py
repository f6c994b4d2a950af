"""Checks the folder of a sweep, and removes what a refused command wrote into it."""

from __future__ import annotations

from pathlib import Path

from vgexp import files, folders
from vgexp.errors import QuestionError
from vgexp.sweep import plan, plan_file, table

HYDRAS = "multirun.yaml"
_SUBMITITS = ".submitit"


def admit(folder: Path) -> plan.Plan | None:
    """Returns the plan of the sweep in a folder, or None where a new sweep may begin.

    Raises:
        QuestionError: it is a file, it holds a sweep of another program, or a link or the like has
            the name of a file that is written there or in a job's folder.
    """
    folders.refuse_file(folder)
    # The whole path, since Hydra would replace `${...}` in it by a value.
    if "${" in str(folder.absolute()):
        raise QuestionError(
            f"the sweep's folder is {folder.absolute()}\nallowed: a name without ${{"
        )
    for name in (plan.FILE, table.FILE):
        folders.require_replaceable(folder / name)
    files.require_regular(folder / HYDRAS)
    files.require_folder(folder / _SUBMITITS)
    if (folder / folders.CONFIG).is_file():
        raise QuestionError(
            f"{folder} holds a run\nallowed: another folder (hydra.sweep.dir) for a sweep"
        )
    known = plan_file.read(folder)
    for entry in known.entries if known is not None else ():
        folders.require_regular_files(folder / entry.folder)
    if known is not None or not folder.is_dir():
        return known
    found = plan_file.rebuild(folder)
    if found.entries or (folder / table.FILE).exists():
        return found
    if (folder / HYDRAS).exists():
        raise QuestionError(
            f"{folder} holds a sweep that is not vgexp's ({HYDRAS} and no {plan.FILE})\n"
            "allowed: another folder (hydra.sweep.dir); nothing was overwritten"
        )
    return None


def require_no_sweep(folder: Path) -> None:
    """Refuses the folder of a sweep for a single run.

    Raises:
        QuestionError: it holds a sweep.
    """
    if (folder / plan.FILE).is_file():
        raise QuestionError(
            f"{folder} holds a sweep\nallowed: another folder (hydra.run.dir) for a run"
        )


def keep(folder: Path, known: plan.Plan) -> None:
    """Writes a plan that was rebuilt, unless the folder has one."""
    if plan_file.read(folder) is None:
        plan_file.write(folder, known)


def record_of(run: Path) -> tuple[Path, plan.Plan] | None:
    """Returns a sweep's folder and plan, if a run is one of its jobs."""
    run = run.absolute()  # not resolved: a job's folder may be a link to another disk
    for folder in run.parents:
        if (folder / plan.FILE).is_file():
            known = plan_file.read(folder)
            name = run.relative_to(folder).as_posix()
            return (folder, known) if known is not None and known.entry_in(name) else None
    return None


def withdraw(folder: Path, command: tuple[str, ...]) -> None:
    """Removes a refused command from the plan, and the folder if it holds nothing else."""
    if (folder / plan.FILE).is_file():
        plan_file.change(folder, lambda now: now.remove_command(command))
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - {HYDRAS, plan.FILE}:
        return
    known = plan_file.read(folder)
    if known is None or not known.entries:
        for name in (HYDRAS, plan.FILE):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
