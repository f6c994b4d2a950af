"""A choice is written where its configuration is and where it is made, and nothing branches on it.

The sources are read as syntax trees: what stands in strings and comments does not count.

Holds: models/__init__.py, registry.py
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from vgexp.activations import ACTIVATIONS
from vgexp.config import CHOICES
from vgexp.inits import INITS
from vgexp.losses import LOSSES
from vgexp.models import RECURRENT_INITS
from vgexp.norms import NORMS
from vgexp.registry import Registry
from vgexp.skips import SKIPS

SOURCE = Path(__file__).parents[1] / "src" / "vgexp"

GROUPS: Mapping[str, Registry[Any]] = dict(CHOICES)
PARTS: Mapping[str, Registry[Any]] = {
    "activations.py": ACTIVATIONS,
    "inits/choices.py": INITS,
    "losses.py": LOSSES,
    "models/recurrence/draws.py": RECURRENT_INITS,
    "norms.py": NORMS,
    "skips.py": SKIPS,
}
"""Module -> the registry that it fills."""

ALSO_KNOW: Mapping[str, set[str]] = {
    # The defaults of `Config`.
    "DigitsConfig": {"config/tree.py"},
    "SgdConfig": {"config/tree.py"},
    "ConstantConfig": {"config/tree.py"},
    "NoClipConfig": {"config/tree.py"},
    # What theory predicts, and pretraining trains.
    "MlpConfig": {
        *("config/tree.py", "assembly/predictors.py", "assembly/whole.py", "models/memory.py"),
        *("theory/forward.py", "theory/perceptron.py", "theory/weights.py"),
    },
    "CnnConfig": {"assembly/predictors.py", "models/rehearsal.py"},
    "RnnConfig": {"assembly/predictors.py", "theory/recurrence.py"},
    "LstmConfig": {"assembly/predictors.py"},
    "GruConfig": {"assembly/predictors.py"},
    # Memory that grows with depth by a rule.
    "ResnetConfig": {"models/rehearsal.py"},
    "DensenetConfig": {"models/rehearsal.py"},
    # Models that are tried before anything is trained.
    "CustomConfig": {"assembly/networks.py"},
    "TorchvisionConfig": {"assembly/networks.py"},
}
"""Class -> modules that know it beside the two that every choice has; a new choice needs none."""

OTHER_WORDS = {"auto", "layer", "linear", "none", "norm", "step", "text", "value"}
"""Names of choices that are also words of something else: columns, kinds, scales, devices."""


@cache
def trees() -> dict[str, ast.Module]:
    """File below the package -> its syntax tree; without the pages of `vgexp explain`.

    These are texts about choices: a reader types the names that stand in them.
    """
    return {
        path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
        if "explain/pages/" not in path.as_posix()
    }


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    return [(file, node) for file, tree in trees().items() for node in ast.walk(tree)]


def identifiers(node: ast.AST) -> set[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.ClassDef(name=name):
            return {name}
        case ast.alias(name=name):
            return {name}
    return set()


def literals(node: ast.AST | None) -> set[str]:
    """The text that an expression is, or the texts that it lists."""
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            return set().union(*map(literals, elements))
        case ast.Dict(keys=keys):
            return set().union(*map(literals, keys))
        case ast.MatchValue(value=value):
            return literals(value)
        case ast.MatchOr(patterns=patterns):
            return set().union(*map(literals, patterns))
    return set()


def comparisons(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(Last name of one side, literal of another) of each comparison."""
    match node:
        case ast.Compare(left=left, comparators=others):
            sides = [left, *others]
        case ast.Match(subject=subject, cases=cases):
            sides = [subject, *(case.pattern for case in cases)]
        case _:
            return
    names = set().union(*map(identifiers, sides)) or {"?"}
    for text in set().union(*map(literals, sides)):
        yield from ((name, text) for name in names)


@cache
def files_of_identifiers() -> dict[str, set[str]]:
    """Identifier -> files that have it."""
    found: dict[str, set[str]] = defaultdict(set)
    for file, node in nodes():
        for name in identifiers(node):
            found[name].add(file)
    return found


@cache
def files_of_texts() -> dict[str, list[str]]:
    """Text -> the file of each literal that is this text."""
    found: dict[str, list[str]] = defaultdict(list)
    for file, node in nodes():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found[node.value].append(file)
    return found


@pytest.mark.parametrize("group", CHOICES)
def test_the_class_of_a_choice_is_written_in_two_modules(group: str) -> None:
    for cls in CHOICES[group].values():
        name = cls.__name__
        found = files_of_identifiers()[name]
        assert len(found - ALSO_KNOW.get(name, set())) == 2, f"{name} is written in {found}"
        assert ALSO_KNOW.get(name, set()) <= found, f"{name} is known in fewer modules"


@pytest.mark.parametrize("group", CHOICES)
def test_the_name_of_a_choice_is_written_twice_at_the_most(group: str) -> None:
    for name in set(CHOICES[group]) - OTHER_WORDS:
        found = files_of_texts()[name]
        assert 1 <= len(found) <= 2, f"{name} is written in {found}"


def test_nothing_compares_with_the_name_of_a_choice() -> None:
    registries = [*GROUPS.values(), *PARTS.values()]
    names, keys = set().union(*registries), {registry.kind for registry in registries}
    wrong = [
        f"{file}:{node.lineno}: {name} with {text!r}"
        for file, node in nodes()
        for name, text in comparisons(node)
        if text in names and (text not in OTHER_WORDS or name in keys)
    ]
    assert not wrong, "make an attribute of the registry's entry of it"


def test_no_module_lists_names_of_another_modules_registry() -> None:
    wrong = [
        f"{file}:{node.lineno}: {sorted(found)}"
        for file, node in nodes()
        if len(found := literals(node)) > 1
        for home, registry in {**GROUPS, **PARTS}.items()
        if found <= set(registry) and home != file
    ]
    assert not wrong, "make an attribute of the registry's entry of it"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('config.skip == "residual"', {("skip", "residual")}),
        ('"none" != norm', {("norm", "none")}),
        ('x.norm in ("instance", "group")', {("norm", "instance"), ("norm", "group")}),
        ('a.skip == b.norm == "none"', {("skip", "none"), ("norm", "none")}),
        ('table["step"] == step', set()),
        ('match norm:\n    case "layer" | "rms": pass', {("norm", "layer"), ("norm", "rms")}),
    ],
)
def test_a_comparison_with_a_literal_is_found(source: str, found: set[tuple[str, str]]) -> None:
    met = {pair for node in ast.walk(ast.parse(source)) for pair in comparisons(node)}
    assert met == found
