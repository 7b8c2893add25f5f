"""The cells of one column of labels: numbers or classes, what in them is no label, and how they turn with the image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsky.errors import InputError
from deepsky.labels import sentinels, turning
from deepsky.schema import Column
from deepsky.units import FULL_TURN

MAX_CLASSES = 200
NUMBERS = 0.9  # share of the cells of a column that are numbers if it was meant to be one of numbers


def flat(table: pa.Table, names: list[str]) -> Iterable[tuple[str, pa.Array]]:
    """Columns one by one; one with several numbers a row becomes several."""
    for name in names:
        column = table[name].combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            grid = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
            yield from ((f"{name}_{i}", pa.array(grid[:, i])) for i in range(grid.shape[1]))
        else:
            yield name, column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def values_of(
    header: turning.Header, values: pa.Array, unit: str, rows: np.ndarray, where: str, notes: list[str]
) -> tuple[pa.Array, Column | None]:
    """Values as text with nulls where there is no label, and what they are."""
    kind, name = values.type, header.name
    if (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    ):
        whole = not (pa.types.is_floating(kind) or pa.types.is_decimal(kind))
        numbers = pc.cast(pc.cast(values, pa.int64()) if whole else values, pa.float64())
        plain = numbers.to_numpy(zero_copy_only=False)
        if np.isinf(plain).any():
            many = int(np.isinf(plain).sum())
            raise InputError("labels that are not finite", file=where, keyword=name, found=f"{many:,} infinite values",
                             expected="numbers", fix="leave a cell empty where there is no label")  # fmt: skip
        has = np.isfinite(plain)
        _missing(name, has, notes)
        hidden = {} if header.kept else sentinels.found(plain[has])
        has &= ~np.isclose(plain[:, None], np.array(list(hidden))[None], rtol=1e-6).any(1)
        about = _say_hidden(name, hidden, plain[has], notes)
        if not has.any():
            return values, None
        words = [None if not h else str(int(v)) if whole else repr(float(v)) for v, h in zip(plain, has, strict=True)]
        if whole and np.abs(plain[has]).max() >= 2**53:  # an id or a bit mask: floats would not hold it
            words = [None if v is None else str(v) for v in pc.cast(values, pa.int64()).to_pylist()]
        moves: Any = header.moves or turning.of_numbers(name)
        _say_moves(header, moves, unit, notes)
        dtype = "int64" if whole else "float64"
        return pa.array(words, pa.string()), Column(dtype, unit, "label", moves, description=about)
    text = [None if v is None else str(v).strip() or None for v in values.to_pylist()]
    has = np.array([v is not None for v in text])
    _missing(name, has, notes)
    if not has.any():
        return values, None
    _odd_cell(name, text, rows, notes)
    classes = sorted({v for v in text if v is not None}, key=natural)
    if len(classes) > min(MAX_CLASSES, max(2, int(has.sum()) // 2)):
        notes.append(f"{name!r} holds text of {len(classes):,} kinds: a column, and no classes")
        return pa.array(text, pa.string()), Column("str", unit, "scalar")
    if header.moves not in {"", "scalar", "handed", "fixed"}:
        raise InputError("text does not turn with an image", file=where, keyword=name, found=header.moves,
                         expected="scalar, handed or fixed")  # fmt: skip
    moves = header.moves or turning.of_classes(name, classes)
    _say_moves(header, moves, unit, notes)
    return pa.array(text, pa.string()), Column("str", unit, "label", moves, classes=tuple(classes))


def _say_moves(header: turning.Header, moves: str, unit: str, notes: list[str]) -> None:
    """A note where a name or its classes forbid some augmentation, and what to write where they do not mean it."""
    told = {"fixed": "may turn with the image: no rotation is allowed when it is a target",
            "handed": "may change its sense in a mirror: no flips are allowed when it is a target"}  # fmt: skip
    if moves in told and not header.moves:
        # an axis that is judged as a plain number is 178 degrees wrong where 1 is answered for 179
        axis = moves == "fixed" and unit in FULL_TURN
        turned = f"; an axis: {header.name}:angle; with two ends: {header.name}:direction" if axis else ""
        notes.append(f"{header.name!r} {told[moves]} (if it stays: {header.name}:scalar in the header{turned})")


def _say_hidden(name: str, hidden: Mapping[float, int], others: np.ndarray, notes: list[str]) -> str:
    """A note of each sentinel, and in short what the column is to say of them."""
    for value, many in hidden.items():
        notes.append(f"{many:,} values of {name!r} are {value:g}, the others {others.min():.4g} to {others.max():.4g}: "
                     f"{sentinels.TAKEN} (if they are meant: {name}:kept in the header)")  # fmt: skip
    return f"values of {' and '.join(f'{v:g}' for v in hidden)} {sentinels.TAKEN}" if hidden else ""


def _odd_cell(name: str, text: list[str | None], rows: np.ndarray, notes: list[str]) -> None:
    """A note where all but a few cells of text are numbers: those few are why the column is none of numbers."""
    odd = [i for i, v in enumerate(text) if v is not None and not _is_number(v)]
    cells = sum(v is not None for v in text)
    if 0 < len(odd) < (1 - NUMBERS) * cells:
        notes.append(f"{name!r} is text and no numbers because of {len(odd):,} of {cells:,} cells: "
                     f"row {rows[odd[0]] + 1} holds {text[odd[0]]!r}")  # fmt: skip


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _missing(name: str, has: np.ndarray, notes: list[str]) -> None:
    if not has.all():
        notes.append(f"{int((~has).sum()):,} cells of {name!r} are empty, masked or NaN: no label")


def natural(word: str) -> tuple[int, float, str]:
    """Sorts numbers by value and before words."""
    try:
        return (0, float(word), word)
    except ValueError:
        return (1, 0.0, word)
