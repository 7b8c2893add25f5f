"""Casting: what was typed or passed, as the type that a signature or a dataclass asks for, or a refusal in words."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from deepsky.errors import InputError

WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NOTHING = {"", "none", "no", "off", "false"}  # words of a text setting, such as an augmentation, that mean none
ANYTHING = (Any, object, inspect.Parameter.empty)


def kinds(call: Callable[..., Any], *leave: str) -> dict[str, Any]:
    """Name and type of the arguments of a function, or of the fields of a dataclass, without those to `leave` out."""
    try:
        if isinstance(call, type) and is_dataclass(call):
            hints = get_type_hints(call)
            return {f.name: hints[f.name] for f in fields(call) if f.name not in leave}
        found = inspect.signature(call, eval_str=True).parameters
    except NameError:  # a type that is imported for checks alone
        found = inspect.signature(call).parameters
        return {n: Any for n, p in found.items() if p.kind is not p.VAR_KEYWORD and n not in leave}
    return {n: p.annotation for n, p in found.items() if p.kind is not p.VAR_KEYWORD and n not in leave}


def read(text: str, kind: Any, name: str, file: object = None) -> Any:
    """A text as a value of the type `kind`: any case of true, false, yes, no, on, off and none, commas in a tuple.

    Raises
    ------
    InputError : it is none; the message names the setting, and the `file` for which it is meant.
    """
    try:
        return _read(text.strip(), kind)
    except ValueError:
        raise _refusal(text, kind, name, file) from None


def check(value: Any, kind: Any, name: str, file: object = None) -> Any:
    """A value that is of the type `kind`; a list, an array, or one value alone where several may be, becomes a tuple.

    Raises
    ------
    InputError : it is of another type; the message names the setting, and the `file` for which it is meant.
    """
    try:
        return _check(value, kind)
    except ValueError:
        raise _refusal(value, kind, name, file) from None


def literal(text: str) -> Any:
    """A Python literal, a word for true, false or none, or the text itself."""
    if text.lower() == "none" or text.lower() in WORDS:
        return WORDS.get(text.lower())
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _refusal(value: object, kind: Any, name: str, file: object) -> InputError:
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    choices = [get_args(p) for p in parts if p is not NoneType and get_origin(p) is Literal]
    known = choices[0] if len(choices) == len(parts) - (NoneType in parts) else None
    return InputError("a setting has the wrong type", file=file, keyword=name, found=value, known=known,
                      expected=_said(kind) if known is None else None)  # fmt: skip


def _read(text: str, kind: Any) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if kind in ANYTHING:
        return literal(text)
    if origin in (Union, UnionType):
        return None if NoneType in parts and text.lower() == "none" else _first(parts, lambda part: _read(text, part))
    if origin is Literal:
        same = [p for p in parts if str(p).lower() == text.lower()]
        return same[0] if same else _wrong()
    if kind is bool:
        return WORDS[text.lower()] if text.lower() in WORDS else _wrong()
    if kind is int:
        number = float(text)
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else int(number) if number.is_integer() else _wrong()
    if kind is str:
        return text
    if kind is float:
        return float(text)
    if _is_row(kind) and not (parts and _is_row(parts[0]) and not _is_fixed(parts[0])):
        return _check(_split(text, parts), kind, _read)
    if kind is Path:
        return Path(text)
    try:
        return _check(ast.literal_eval(text), kind)
    except SyntaxError:
        return _wrong()


def _first(parts: tuple[Any, ...], of: Callable[[Any], Any]) -> Any:
    """What the first of several types makes of a value, those that take less before those that take more."""
    for part in sorted((p for p in parts if p is not NoneType), key=_width):
        with suppress(ValueError):
            return of(part)
    return _wrong()


def _split(text: str, parts: tuple[Any, ...]) -> list[str]:
    """The values between the commas of a tuple, with or without its parentheses."""
    if parts and _is_fixed(parts[0]):  # tuples in a tuple: they are told apart by their length
        text = re.sub(r"[()\[\]]", "", text)
    elif text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1]
    return [t.strip().strip("'\"") for t in text.split(",") if t.strip()]


def _check(value: Any, kind: Any, of: Callable[[Any, Any], Any] | None = None) -> Any:
    of = of or _check
    origin, parts = get_origin(kind), get_args(kind)
    if kind in ANYTHING:
        return value
    if origin in (Union, UnionType):
        return None if value is None and NoneType in parts else _first(parts, lambda part: _check(value, part))
    if origin is Literal:
        return value if value in parts else _wrong()
    if (kind in (bool, int, float) or _is_row(kind)) and type(
        value
    ).__module__ == "numpy":  # not imported: --help needs this module
        value = value.tolist()
    if kind is bool:
        return bool(value) if isinstance(value, int) and value in (0, 1) else _wrong()
    if kind is int:
        whole = isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())
        return int(value) if whole and not isinstance(value, bool) else _wrong()
    if kind is float:
        return value if isinstance(value, Real) and value is not True and value is not False else _wrong()
    if not _is_row(kind):
        wanted = origin or kind
        return value if not isinstance(wanted, type) or isinstance(value, wanted) else _wrong()
    if not isinstance(value, list | tuple):
        return _wrong() if _is_fixed(kind) else (of(value, parts[0] if parts else Any),)
    if not _is_fixed(kind):
        each = parts[0] if parts else Any
        if _is_fixed(each) and not any(isinstance(v, list | tuple) for v in value):
            long = len(get_args(each))
            value = [value[i : i + long] for i in range(0, len(value), long)]
            return tuple(_check(v, each, of) for v in value)
        return tuple(of(v, each) for v in value)
    return tuple(of(v, k) for v, k in zip(value, parts, strict=True))


def _is_row(kind: Any) -> bool:
    return (get_origin(kind) or kind) in (tuple, list, Sequence)


def _is_fixed(kind: Any) -> bool:
    """Whether it is a tuple of a certain length."""
    return get_origin(kind) is tuple and ... not in get_args(kind)


def _width(kind: Any) -> int:
    """How much a type takes: what takes less is tried first, and text last, which takes anything."""
    return 9 if kind is str else (bool, int, float).index(kind) if kind in (bool, int, float) else 4


def _wrong() -> Any:
    raise ValueError


def _said(kind: Any) -> str:
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "none"}
    origin, parts = get_origin(kind), get_args(kind)
    if kind in plain:
        return plain[kind]
    if origin in (Union, UnionType):
        return ", or ".join(dict.fromkeys(_said(p) for p in parts))
    if origin is Literal:
        return " or ".join(map(str, parts))
    if _is_fixed(kind):
        return ",".join(_said(p).removeprefix("a ") for p in parts)
    if origin is Mapping:
        return "a dict"
    if _is_row(kind):
        return f"{_said(parts[0]) if parts else 'values'}, several with commas between them"
    return getattr(origin or kind, "__name__", str(kind))
