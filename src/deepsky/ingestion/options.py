"""Options of a reader, brought to the types of its signature and checked before any file is looked at."""

from __future__ import annotations

import math
import numbers
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from deepsky.errors import InputError

WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a word", Path: "a path"}


def settled(call: Callable[..., Any], options: Mapping[str, Any], file: object) -> dict[str, Any]:
    """Options in the types that a reader's ``open`` gives them; a text is one word, or several with commas.

    Raises
    ------
    InputError : a value of another kind, a choice that there is not, a pixel scale or size that is not positive.

    >>> def open(path, *, mask_bits: Sequence[str | int] = (), size: int | tuple[int, int] = 64): ...
    >>> settled(open, {"mask_bits": "BAD, SAT", "size": "64,48"}, "cutouts/")
    {'mask_bits': ('BAD', 'SAT'), 'size': (64, 48)}
    """
    try:
        hints = get_type_hints(call)
    except (NameError, TypeError):  # a reader from elsewhere, with names that are known to its type checker alone
        hints = {}
    out = {name: _settled(name, value, hints.get(name, Any), file) for name, value in options.items()}
    for name, least in (("pixel_scale", 0.0), ("size", 0.0), ("zero_point", -math.inf)):
        if out.get(name) is not None and not np.all((np.asarray(out[name]) > least) & np.isfinite(out[name])):
            raise _refused(name, options[name], "more than 0" if least == 0 else "a number", file)
    return out


def _settled(name: str, value: Any, hint: Any, file: object) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None:  # as if it were not given
        return None
    for kind in kinds:
        try:
            return _as(value, kind)
        except (ValueError, TypeError):
            continue
    choices = [str(v) for kind in kinds if get_origin(kind) is Literal for v in get_args(kind)]
    if choices:
        raise InputError("not one of the choices of this option", file=file, keyword=name, found=value, known=choices)
    raise _refused(name, value, " or ".join(dict.fromkeys(_word(k) for k in kinds if k is not type(None))), file)


def _refused(name: str, value: Any, expected: str, file: object) -> InputError:
    return InputError("not a value of this option", file=file, keyword=name, found=repr(value), expected=expected)


def _word(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is tuple:
        return f"{len(get_args(kind))} numbers with commas"
    if origin is Mapping:
        return "a dict such as {'SCI': 'flux', 'ERR': 'sigma'}"
    return "several with commas" if origin is Sequence else WORDS.get(kind, str(kind))


def _as(value: Any, kind: Any) -> Any:
    """A value as one kind.

    Raises
    ------
    ValueError, TypeError : it is of another.
    """
    origin = get_origin(kind)
    if kind is Any or (isinstance(kind, type) and kind not in (bool, int, float, str) and isinstance(value, kind)):
        return value
    if origin is Literal and value in get_args(kind):
        return value
    if kind is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, bool | np.bool_):
        raise TypeError
    if kind is int and isinstance(value, numbers.Integral | str):
        return int(value)
    if kind is float and isinstance(value, numbers.Real | str):
        return float(value)
    if kind is str and isinstance(value, str | numbers.Real):
        return str(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if origin is Mapping and isinstance(value, Mapping):
        key, what = get_args(kind)
        return {_as(k, key): _as(v, what) for k, v in value.items()}
    if origin in (tuple, Sequence):
        return _several(value, origin is tuple, get_args(kind))
    raise TypeError


def _several(value: Any, fixed: bool, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    """A text at its commas, a list, or one value alone."""
    if isinstance(value, str):
        value = [v.strip() for v in value.split(",") if v.strip()]
    elif not isinstance(value, Sequence | np.ndarray):
        value = [value]
    if fixed and len(value) != len(kinds):
        raise ValueError
    return tuple(_of(v, kinds[0]) for v in value)


def _of(value: Any, hint: Any) -> Any:
    """A member of a sequence, which may be of several kinds: a number stays one."""
    kinds = get_args(hint) or (hint,)
    if type(value) in kinds:
        return value
    return _as(value, kinds[0] if len(kinds) == 1 or isinstance(value, str) else kinds[-1])
