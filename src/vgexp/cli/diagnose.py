"""`vgexp diagnose`: verdict, one root cause, evidence and remedies of runs."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgexp.errors import QuestionError, reason

if TYPE_CHECKING:
    from vgexp.diagnosis import Diagnosis
    from vgexp.past import PastRun

DESCRIPTION = "What keeps a run from learning: health, one root cause, evidence, remedies."

SICK = 3
"""The exit code where a sickness was found."""
_ALLOWED = "allowed: run folders, sweep folders, or folders above them"
_MOST_KEYS = 12
_WIDTH = 80
_BY_HEALTH = ("sick", "undecided", "healthy")
"""The order in which runs are shown."""


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
        help=(
            "exit with 3 for these only (`vgexp list causes`; default: for any sickness); a note"
            " that is named counts as well"
        ),
    )
    parser.add_argument(
        "--baseline",
        metavar="GOOD_RUN",
        help="a run that learned: what differs in the configuration of each, and since when",
    )


def main(args: argparse.Namespace) -> int:
    """Prints the diagnosis. Returns 3 where a sickness, or what is named, was found, else 0.

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
        try:
            diagnosis = diagnose_run(past)
        except QuestionError:
            raise
        except Exception as error:  # of what somebody's program wrote into the folder
            raise QuestionError(f"{past.folder} cannot be diagnosed: {reason(error)}") from error
        _show_one(past, diagnosis, baseline, as_json=args.json, shows_all=args.all)
        return _exit_code([diagnosis], causes)
    found: list[tuple[PastRun, Diagnosis]] = []
    broken: dict[Path, str] = {}
    for folder in folders:  # one that cannot be diagnosed does not keep the others from it
        past = PastRun(folder, is_strict=False)
        try:
            found.append((past, diagnose_run(past)))
        except QuestionError as error:
            broken[folder] = str(error).splitlines()[0]
        except Exception as error:  # of what somebody's program wrote into the folder
            broken[folder] = reason(error)
    if not found:
        raise QuestionError(f"{next(iter(broken.values()))}\n{_ALLOWED}")
    _show_many(found, broken, baseline, as_json=args.json)
    return _exit_code([diagnosis for _, diagnosis in found], causes)


def _causes(words: str | None) -> frozenset[str] | None:
    from vgexp.diagnosis.causes import CAUSES
    from vgexp.quantities import VERDICTS

    if words is None:
        return None
    names = [name.strip() for name in words.split(",") if name.strip()]
    if not names:
        raise QuestionError("--fail-on names no cause\nallowed: those of vgexp list causes")
    for name in names:
        if name in VERDICTS and name not in CAUSES:
            raise QuestionError(
                f"{name} is a verdict, and --fail-on takes causes\nallowed: those of vgexp list"
                " causes"
            )
    return frozenset(CAUSES[name].id for name in names)


def _exit_code(found: Sequence[Diagnosis], causes: frozenset[str] | None) -> int:
    return SICK if any(_is_failed(each, causes) for each in found) else 0


def _is_failed(diagnosis: Diagnosis, causes: frozenset[str] | None) -> bool:
    if causes is None:
        return diagnosis.health == "sick"
    is_sick = diagnosis.health == "sick" and diagnosis.cause in causes
    return is_sick or any(each.kind == "note" and each.id in causes for each in diagnosis.findings)


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
    from vgexp.past.diagnosing import command_of, compare, list_next, notes_of

    against = None if baseline is None else compare(past, baseline)
    if as_json:
        told: dict[str, Any] = {"run": str(past.folder), **diagnosis.to_dict()}
        if against is not None:
            told["baseline"] = against
        print(json.dumps(told, indent=2))
        return
    listed_by = ("--all", "--all")
    for note in notes_of(past):
        print(printable(textwrap.fill(f"Note: {note}", _WIDTH, subsequent_indent="  ")))
    page = page_of(diagnosis, command_of(past), shows_all=shows_all, listed_by=listed_by)
    print(printable(page))
    if more := list_next(past, diagnosis):
        print(printable("\n".join(["More", *(f"  {command}" for command in more)])))
    if against is not None:
        print(printable(_words_of(against)))


def _show_many(
    found: Sequence[tuple[PastRun, Diagnosis]],
    broken: Mapping[Path, str],
    baseline: Path | None,
    *,
    as_json: bool,
) -> None:
    from vgexp.errors import one_line, printable
    from vgexp.past.diagnosing import compare
    from vgexp.report.comparing.runs import tell_apart

    against: dict[Path, dict[str, Any]] = {}
    if baseline is not None:
        against = {past.folder: compare(past, baseline) for past, _ in found}
    if as_json:
        runs = [
            {
                "run": str(past.folder),
                **each.to_dict(),
                **({"baseline": against[past.folder]} if against else {}),
            }
            for past, each in found
        ]
        runs += [{"run": str(folder), "problem": problem} for folder, problem in broken.items()]
        print(json.dumps(runs, indent=2))
        return
    groups: dict[str, list[tuple[PastRun, Diagnosis, str]]] = {}
    apart = tell_apart([past for past, _ in found])
    rows = [(past, each, words) for (past, each), words in zip(found, apart, strict=True)]
    for past, each, words in sorted(rows, key=lambda row: _BY_HEALTH.index(row[1].health)):
        name = each.cause or ("cause cannot be told" if each.why_untold else each.health)
        groups.setdefault(name, []).append((past, each, words))
    for name, members in groups.items():
        print(f"{name}: {len(members)} of {len(found) + len(broken)} runs")
        for past, each, words in members:
            print(one_line(f"  {past.folder}  {_state(past, each)}"))
            for line in textwrap.wrap(words, _WIDTH - 4, break_long_words=False):
                print(one_line(f"    {line}"))
            if against:
                print(printable(_in_short(against[past.folder])))
    if baseline is not None:
        print(one_line(f"against {baseline}"))
    for folder, problem in broken.items():
        print(one_line(f"not diagnosed: {folder}: {problem}"))


def _in_short(against: Mapping[str, Any]) -> str:
    """What differs from the good run, by the names of the keys, and since when the losses part."""
    keys = list(against["differs"])
    more = [f"and {len(keys) - _MOST_KEYS} more"] if len(keys) > _MOST_KEYS else []
    differs = ", ".join([*keys[:_MOST_KEYS], *more]) or "no key"
    parts = against["parts"]
    since = "losses do not part" if parts is None else f"losses part at step {parts['step']}"
    return textwrap.fill(
        f"differs: {differs}; {since}", 80, initial_indent="    ", subsequent_indent="      ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _state(past: PastRun, diagnosis: Diagnosis) -> str:
    """The verdict, since when and where the cause is seen, and what is damaged, in a few words."""
    from vgexp.past.diagnosing import lost_files

    parts = [diagnosis.verdict or diagnosis.health]
    if diagnosis.step is not None:
        at = diagnosis.depths.get(diagnosis.layer or "")
        where = f" at layer {at}" if at is not None else ""
        where = where or (f" at {diagnosis.layer}" if diagnosis.layer else "")
        parts.append(f"since step {diagnosis.step}{where}")
    if lost := lost_files(past):
        parts.append(f"damaged: {', '.join(lost)}")
    return "  ".join(parts)


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
