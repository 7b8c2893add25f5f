"""Expressions over columns, such as ``mag > 22 & fwhm > 1``, read from a syntax tree and never executed as code."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deepsky.errors import InputError

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_COMPUTE: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def mask(expression: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n,) bool: where the expression holds. ``&``, ``|`` and ``~`` bind like ``and``, ``or`` and ``not``.

    Raises
    ------
    InputError : the expression cannot be read, names an unknown column, or is not a condition.

    >>> mask("mag > 22 & flag == 0", {"mag": np.array([21.0, 23.0]), "flag": np.array([0, 0])})
    array([False,  True])
    """
    words = re.sub(r"&+", " and ", expression)
    words = re.sub(r"\|+", " or ", words).replace("~", " not ").strip()
    try:
        tree = ast.parse(words, mode="eval").body
    except SyntaxError as error:
        raise InputError(
            "an expression that cannot be read", found=expression, expected="e.g. mag > 22 & fwhm > 1"
        ) from error
    result = np.asarray(_value(tree, columns, expression))
    if result.dtype != bool:
        raise InputError("not a condition", found=expression, expected="a comparison, e.g. mag > 22")
    return result


def _value(node: ast.expr, columns: Mapping[str, np.ndarray], expression: str) -> Any:
    def sub(n: ast.expr) -> Any:
        return _value(n, columns, expression)

    match node:
        case ast.BoolOp(op=op, values=values):
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            return join.reduce([sub(v) for v in values])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return np.logical_not(sub(operand))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -sub(operand)
        case ast.Compare(left=left, ops=ops, comparators=rights) if all(type(o) in _COMPARE for o in ops):
            sides = [sub(left), *(sub(r) for r in rights)]
            steps = [_COMPARE[type(o)](a, b) for o, a, b in zip(ops, sides[:-1], sides[1:], strict=True)]
            return np.logical_and.reduce(steps)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _COMPUTE:
            return _COMPUTE[type(op)](sub(left), sub(right))
        case ast.Name(id=name):
            if name not in columns:
                raise InputError("no such column in the expression", keyword=None, found=name, known=columns)
            return columns[name]
        case ast.Constant(value=value) if isinstance(value, int | float | str):
            return value
    raise InputError(
        "not allowed in an expression", found=ast.unparse(node), expected="columns, numbers, + - * / ** and comparisons"
    )
