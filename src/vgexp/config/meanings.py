"""The docstrings below the fields of a dataclass, read from the source."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
from collections.abc import Mapping
from functools import cache


def meanings(cls: type) -> dict[str, str]:
    """Maps each field of a dataclass to its docstring in one line; '' where it has none."""
    found = {field.name: "" for field in dataclasses.fields(cls)}
    for base in reversed(cls.__mro__):
        found.update(_in_module(base.__module__).get(base.__qualname__, {}))
    return found


@cache
def _in_module(name: str) -> Mapping[str, Mapping[str, str]]:
    """Maps each class of a module of vgexp to its fields and their docstrings."""
    if not name.startswith("vgexp."):
        return {}
    try:
        tree = ast.parse(inspect.getsource(sys.modules[name]))
    except (OSError, KeyError):  # installed without its source
        return {}
    return {node.name: _of_fields(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _of_fields(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, after in zip(node.body, node.body[1:], strict=False):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                value=ast.Constant(value=str(text))
            ):
                found[name] = " ".join(text.split())
    return found
