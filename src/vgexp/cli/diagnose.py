"""`vgexp diagnose`: verdict, one root cause, evidence and remedies of runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgexp.errors import QuestionError

if TYPE_CHECKING:
    from vgexp.diagnosis import Diagnosis
    from vgexp.past import PastRun

DESCRIPTION = "What keeps a run from learning: health, one root cause, evidence, remedies."

SICK = 3
"""The exit code where a sickness was found."""
_ALLOWED = "allowed: run folders, sweep folders, or folders above them"
_MOST_KEYS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="RUN_OR_SWEEP",
        help="run folders, sweep folders, or folders above them; several get a line each",
    )
    parser.add_argument("--json", action="store_true", help="print the diagnosis as JSON")
    parser.add_argument(
        "--all", action="store_true", help="name the rules that found nothing, or were not checked"
    )
    parser.add_argument(
        "--fail-on",
        metavar="CAUSE,...",
        help="exit with 3 for these causes only (`vgexp list causes`; default: for any)",
    )
    parser.add_argument(
        "--baseline",
        metavar="GOOD_RUN",
        help="a run that learned: what differs in the configuration, and since when",
    )


def main(args: argparse.Namespace) -> int:
    """Prints the diagnosis. Returns 3 where a sickness was found, else 0.

    Raises:
        QuestionError: no run there, an unknown cause, or nothing to diagnose.
    """
    from vgexp.past import PastRun
    from vgexp.past.diagnosing import diagnose_run
    from vgexp.tables import find_runs

    causes = _causes(args.fail_on)
    folders = find_runs(args.paths, _ALLOWED)
    baseline = None if args.baseline is None else _one(args.baseline)
    if len(folders) == 1:
        past = PastRun(folders[0], is_strict=False)
        diagnosis = diagnose_run(past)
        _show_one(past, diagnosis, baseline, as_json=args.json, shows_all=args.all)
        return _exit_code([diagnosis], causes)
    found: list[tuple[PastRun, Diagnosis]] = []
    broken: dict[Path, str] = {}
    for folder in folders:
        past = PastRun(folder, is_strict=False)
        try:
            found.append((past, diagnose_run(past)))
        except QuestionError as error:
            broken[folder] = str(error).splitlines()[0]
    if not found:
        raise QuestionError(f"{next(iter(broken.values()))}\n{_ALLOWED}")
    _show_many(found, broken, as_json=args.json)
    return _exit_code([diagnosis for _, diagnosis in found], causes)


def _causes(words: str | None) -> frozenset[str] | None:
    from vgexp.diagnosis.causes import CAUSES

    if words is None:
        return None
    names = [name.strip() for name in words.split(",") if name.strip()]
    if not names:
        raise QuestionError("--fail-on names no cause\nallowed: those of vgexp list causes")
    return frozenset(CAUSES[name].id for name in names)


def _exit_code(found: Sequence[Diagnosis], causes: frozenset[str] | None) -> int:
    is_failed = any(
        each.health == "sick" and (causes is None or each.cause in causes) for each in found
    )
    return SICK if is_failed else 0


def _one(path: str) -> Path:
    from vgexp.tables import find_runs

    found = find_runs([path], "allowed: --baseline RUN, a run that learned")
    if len(found) > 1:
        raise QuestionError(f"{path} holds {len(found)} runs\nallowed: --baseline RUN, one run")
    return found[0]


def _show_one(
    past: PastRun,
    diagnosis: Diagnosis,
    baseline: Path | None,
    *,
    as_json: bool,
    shows_all: bool,
) -> None:
    from vgexp.diagnosis.page import page_of
    from vgexp.errors import printable
    from vgexp.past.diagnosing import command_of, compare, list_next

    against = None if baseline is None else compare(past, baseline)
    if as_json:
        told: dict[str, Any] = {"run": str(past.folder), **diagnosis.to_dict()}
        if against is not None:
            told["baseline"] = against
        print(json.dumps(told, indent=2))
        return
    listed_by = ("--all", "--all")
    page = page_of(diagnosis, command_of(past), shows_all=shows_all, listed_by=listed_by)
    print(printable(page))
    if more := list_next(past, diagnosis):
        print(printable("\n".join(["More", *(f"  {command}" for command in more)])))
    for problem in past.problems:
        print(printable(f"Note: {problem}"))
    if against is not None:
        print(printable(_words_of(against)))


def _show_many(
    found: Sequence[tuple[PastRun, Diagnosis]], broken: Mapping[Path, str], *, as_json: bool
) -> None:
    from vgexp.errors import one_line

    if as_json:
        runs = [{"run": str(past.folder), **each.to_dict()} for past, each in found]
        runs += [{"run": str(folder), "problem": problem} for folder, problem in broken.items()]
        print(json.dumps(runs, indent=2))
        return
    groups: dict[str, list[tuple[PastRun, Diagnosis]]] = {}
    for past, each in found:
        groups.setdefault(each.cause or each.health, []).append((past, each))
    for name, members in groups.items():
        print(f"{name}: {len(members)} of {len(found) + len(broken)} runs")
        for past, each in members:
            since = "" if each.step is None else f"  since step {each.step}"
            at = f" at {each.layer}" if each.layer else ""
            print(one_line(f"  {past.folder}  {each.verdict or each.health}{since}{at}"))
    for folder, problem in broken.items():
        print(one_line(f"not diagnosed: {folder}: {problem}"))


def _words_of(against: Mapping[str, Any]) -> str:
    lines = [f"Against {against['run']}"]
    differs = list(against["differs"].items())
    for key, values in differs[:_MOST_KEYS]:
        lines.append(f"  {key}: {values['here']} here, {values['baseline']} there")
    if len(differs) > _MOST_KEYS:
        lines.append(f"  and {len(differs) - _MOST_KEYS} more keys")
    if not differs:
        lines.append("  the configurations do not differ")
    parts = against["parts"]
    if parts is None:
        lines.append("  the training losses do not part")
    else:
        lines.append(
            f"  the training losses part at step {parts['step']}: {parts['here']:.3g} here,"
            f" {parts['baseline']:.3g} there"
        )
    return "\n".join(lines)
