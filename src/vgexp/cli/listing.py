"""`vgexp list [KIND]`: prints the names that can be chosen, one a line."""

from __future__ import annotations

import importlib
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vgexp.cli.error_blocks import WIDTH
from vgexp.config import CHOICES
from vgexp.errors import QuestionError, printable, unknown
from vgexp.quantities import SUMMARY, TABLES, VERDICTS
from vgexp.registry import Registry

Entries = list[tuple[str, str]]

_USAGE = "usage: vgexp list [KIND]; vgexp list metrics [TABLE]"
# Names longer than this have their line below them, so that the lines stay wide enough to read.
_LONGEST_NAME = 24
_STATED = re.compile(r"^# (half|truth): (.+)$", re.MULTILINE)
"""What the head of a configuration of the zoo states."""


def main(argv: Sequence[str]) -> int:
    """Prints the entries of one kind, or all kinds with their names."""
    if argv and argv[0] in ("-h", "--help"):
        print(_USAGE)
        print(_wrap("kinds:", ", ".join(KINDS), 8))
        return 0
    kind = _FORMER_NAMES.get(argv[0], argv[0]) if argv else None
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if len(argv) > 1 and not (kind == _OF_TABLES and len(argv) == 2):
        raise QuestionError(f"vgexp list takes one kind, not {len(argv)}\n{_USAGE}")
    table = argv[1].removesuffix(".csv") if len(argv) > 1 else None
    if table is not None and table not in TABLES:
        raise unknown("table", table, TABLES)
    print(printable(_all() if kind is None else _one(kind, table)))
    return 0


def list_experiments() -> Entries:
    """Lists presets: the name of each file below `experiment`, and its comment's second line."""
    folder = find_configs() / "experiment"
    named = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")
    }
    # Those in folders of their own come last.
    order = sorted(named, key=lambda name: (name.count("/"), name))
    return [(name, _about(named[name])) for name in order]


def list_zoo() -> Entries:
    """Lists `+zoo=` configurations: half, truth, and what each is, by its comments."""
    entries = []
    for path in sorted((find_configs() / "zoo").glob("*.yaml")):
        told = dict(_STATED.findall(path.read_text(encoding="utf-8")))
        truth = told.get("truth", "").removeprefix("sick ").replace(" ", " or ")
        entries.append((path.stem, f"{told.get('half', '')}, {truth}: {_about(path)}"))
    return entries


def find_configs() -> Path:
    """Finds the folder of presets: in the installed package, or else in the repository."""
    import vgexp

    package = Path(vgexp.__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


def _about(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    said = [comment for comment in comments if comment and not comment.startswith("@")]
    return said[1] if len(said) > 1 else ""


def _metrics() -> Entries:
    return [
        (f"{table}.{column.name}", column.meaning)
        for table, columns in TABLES.items()
        for column in columns
    ]


def _summary() -> Entries:
    return [(metric.name, metric.meaning) for metric in SUMMARY.values()]


def _figures() -> Entries:
    from vgexp.report import figures

    return [*_entries(figures.FIGURES), (figures.OVERVIEW, "the most telling of them on one page")]


def _components(module: str, name: str) -> Callable[[], Entries]:
    def entries() -> Entries:
        return _entries(getattr(importlib.import_module(module), name))

    return entries


def _choices(group: str) -> Callable[[], Entries]:
    return lambda: _entries(CHOICES[group])


def _entries(registry: Registry[Any]) -> Entries:
    return [(name, registry.summary(name)) for name in registry]


KINDS: Mapping[str, Callable[[], Entries]] = {
    "experiments": list_experiments,
    "zoo": list_zoo,
    "activations": _components("vgexp.activations", "ACTIVATIONS"),
    "inits": _components("vgexp.inits", "INITS"),
    "norms": _components("vgexp.norms", "NORMS"),
    "skips": _components("vgexp.skips", "SKIPS"),
    "clips": _choices("clip"),
    "optimizers": _choices("optimizer"),
    "schedulers": _choices("scheduler"),
    "models": _choices("model"),
    "data": _choices("data"),
    "sinks": _components("vgexp.sinks", "SINKS"),
    "metrics": _metrics,
    "summary": _summary,
    "verdicts": lambda: [*VERDICTS.items()],
    "figures": _figures,
    "causes": _components("vgexp.diagnosis.causes", "CAUSES"),
}
"""Kind -> what gives its names, each with its line."""

_OF_TABLES = "metrics"
"""The kind whose names begin with that of a table."""
_LONG = ("zoo",)
"""Kinds whose names are counted where all kinds are listed."""
_FORMER_NAMES: Mapping[str, str] = {"pictures": "figures"}
"""What a kind was called before; it still is understood."""
_CLOSINGS: Mapping[str, str] = {
    "figures": "the numbers of summary.json: vgexp list summary",
    "zoo": "vgexp train +zoo=NAME; `held` had no part in setting the limits of rules",
    "metrics": "the numbers of summary.json: vgexp list summary",
}
"""Kind -> the line below its names, where another kind may have been meant."""


def _one(kind: str, table: str | None) -> str:
    entries = KINDS[kind]()
    if table is not None:
        entries = [(name, line) for name, line in entries if name.startswith(f"{table}.")]
    width = max((len(name) for name, _ in entries if len(name) <= _LONGEST_NAME), default=0)
    lines = [_wrap(name.ljust(width), summary, width + 2) for name, summary in entries]
    closing = ["", _CLOSINGS[kind]] if kind in _CLOSINGS else []
    return "\n".join([*lines, *closing])


def _all() -> str:
    width = max(map(len, KINDS))
    lines = [
        _wrap(kind.ljust(width), _names_of(kind, entries()), width + 2)
        for kind, entries in KINDS.items()
    ]
    return "\n".join([*lines, "", "vgexp list KIND: a line each"])


def _names_of(kind: str, entries: Entries) -> str:
    if kind in _LONG:
        return f"{len(entries)} configurations of known health (vgexp list {kind})"
    return ", ".join(name for name, _ in entries)


def _wrap(name: str, text: str, indent: int = 2) -> str:
    own_line = len(name) > indent - 2
    wrapped = textwrap.fill(
        text,
        WIDTH,
        initial_indent=" " * indent if own_line else f"{name}  ",
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"{name}\n{wrapped}" if own_line else wrapped.rstrip() or name
