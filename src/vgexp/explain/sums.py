"""Sums as a page shows them: `0.25^19`, and what a sum comes to."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

_BINARY: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "sqrt": math.sqrt,
    "ln": math.log,
    "log10": math.log10,
    "exp": math.exp,
    "tanh": math.tanh,
    "min": min,
    "max": max,
}

_WHOLE_BELOW = 1e6


def evaluate(text: str) -> float:
    """Computes a sum of numbers, `+ - * / ^`, brackets, sqrt, ln, log10, exp, tanh, min and max.

    A result that no float holds is inf, and a division by 0 is nan.
    """
    try:
        return _value(ast.parse(text.replace("^", "**"), mode="eval").body)
    except OverflowError:
        return math.inf
    except ZeroDivisionError:
        return math.nan


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return float(_FUNCTIONS[node.func.id](*map(_value, node.args)))
    raise AssertionError(f"no sum: {ast.unparse(node)}")


def show(value: float, digits: int = 3) -> str:
    """Writes a number in few digits, as a sum shows it: `0.239`, `1.39e-12`; a whole one in all."""
    is_short = value == round(value, 0) if math.isfinite(value) else False
    return f"{value:.0f}" if is_short and abs(value) < _WHOLE_BELOW else f"{value:.{digits}g}"


def show_base(value: float, times: int) -> str:
    """Writes a number that is multiplied by itself, in so many digits that the product holds."""
    return show(value, 4 + len(str(max(1, times))))
