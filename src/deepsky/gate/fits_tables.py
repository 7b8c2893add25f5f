"""FITS tables from their header alone: columns, row length, scaling, variable-length descriptors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from deepsky.gate.fits_header import Value, integer, show
from deepsky.gate.source import Place

Bytes = npt.NDArray[np.uint8]

_TYPES = {
    "L": "i1", "X": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "A": "S", "E": ">f4", "D": ">f8",
    "C": ">c8", "M": ">c16", "P": ">i4", "Q": ">i8",
}  # fmt: skip
_WIDTHS = {"L": 1, "X": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_BINARY = re.compile(r"\s*([0-9]*)([LXBIJKAEDCMPQ])(.*)\Z", re.DOTALL)
_POINTED = re.compile(r"([LXBIJKAEDCM])")
_ASCII = re.compile(r"\s*(?:(?:A|I)([0-9]+)|(?:F|E|D)([0-9]+)(?:\.[0-9]+)?)\s*\Z")
LONGEST_ROW = (1 << 31) - 1  # bytes; numpy's limit of an itemsize


@final
@dataclass(frozen=True)
class Pointer:
    """A variable-length column: where its descriptors stand in a row, and the bits of one element in the heap."""

    number: int
    name: str
    start: int
    wide: bool
    bits: int

    def check(self, rows: Bytes, first: int, heap: int, place: Place) -> None:
        """Refuse descriptors that point outside the heap.

        Parameters
        ----------
        rows : (row, byte) the table's rows.
        first : number of the first of these rows, for the message.
        heap : bytes of the heap.
        """
        width = 16 if self.wide else 8
        pairs = np.ascontiguousarray(rows[:, self.start : self.start + width]).view(">i8" if self.wide else ">i4")
        count, offset = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
        most = heap * 8 // self.bits  # compared before multiplying, which could overflow
        last = heap - (np.clip(count, 0, most) * self.bits + 7) // 8
        bad = (count < 0) | (count > most) | ((count > 0) & ((offset < 0) | (offset > last)))
        if bad.any():
            row = int(np.argmax(bad))
            raise place.refuse(
                f"a variable-length descriptor of column {self.name!r} points outside the heap",
                keyword=f"TFORM{self.number}",
                found=f"{count[row]} elements at heap offset {offset[row]} in row {first + row + 1}",
                expected=f"elements inside the heap of {heap} bytes",
                fix="the table is damaged: download or write the file again",
            )


@final
@dataclass(frozen=True)
class Table:
    """A table's layout: rows, the dtype of one row, its variable-length columns, where the heap starts."""

    rows: int
    dtype: np.dtype[Any]
    pointers: tuple[Pointer, ...]
    heap_start: int
    heap_bytes: int


def binary_table(header: Mapping[str, Value], place: Place, rows: int, width: int, heap: int) -> Table:
    """The layout of a BINTABLE with `rows` rows of `width` bytes and `heap` bytes behind them."""
    names: list[str] = []
    formats: list[Any] = []
    offsets: list[int] = []
    pointers: list[Pointer] = []
    at = 0
    for number in range(1, integer(header, "TFIELDS", place, high=999) + 1):
        keyword = f"TFORM{number}"
        form = header.get(keyword)
        match = _BINARY.match(form) if isinstance(form, str) else None
        if match is None or len(match[1]) > 18:
            raise place.refuse(
                "the column's format cannot be read",
                keyword=keyword,
                found=show(form) if keyword in header else "no such card",
                expected="a repeat count and one of L X B I J K A E D C M P Q",
                fix="write the table again",
            )
        repeat, code = int(match[1] or 1), match[2]
        size = (repeat + 7) // 8 if code == "X" else repeat * _WIDTHS[code]
        name = _column_name(header, number, names)
        if code in "PQ":
            pointers += _pointer(number, name, at, repeat, code, match[3], place)
        if code not in "ALX":
            check_scale(header, place, f"TSCAL{number}", f"TZERO{number}")
        names.append(name)
        formats.append(_numpy_format(code, repeat, size))
        offsets.append(at)
        at += size
    if at != width:
        raise place.refuse(
            "the columns do not fill a row",
            keyword="NAXIS1",
            found=f"{width} bytes a row",
            expected=f"{at} bytes, the sum over TFORMn",
            fix="write the table again",
        )
    start = integer(header, "THEAP", place, low=rows * width, high=rows * width + heap, default=rows * width)
    dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": width})
    return Table(rows, dtype, tuple(pointers), start, rows * width + heap - start)


def ascii_table(header: Mapping[str, Value], place: Place, rows: int, width: int) -> Table:
    """The layout of an ASCII TABLE: every column is text of its width."""
    names: list[str] = []
    formats: list[Any] = []
    offsets: list[int] = []
    for number in range(1, integer(header, "TFIELDS", place, high=999) + 1):
        keyword = f"TFORM{number}"
        form = header.get(keyword)
        match = _ASCII.match(form) if isinstance(form, str) else None
        if match is None:
            raise place.refuse(
                "the column's format cannot be read",
                keyword=keyword,
                found=show(form) if keyword in header else "no such card",
                expected="Aw, Iw, Fw.d, Ew.d or Dw.d",
                fix="write the table again",
            )
        size, start = int(match[1] or match[2]), integer(header, f"TBCOL{number}", place, low=1) - 1
        if start + size > width:
            raise place.refuse(
                "the column ends behind the row",
                keyword=f"TBCOL{number}",
                found=f"columns {start + 1} to {start + size}",
                expected=f"within NAXIS1 = {width}",
                fix="write the table again",
            )
        names.append(_column_name(header, number, names))
        formats.append(f"S{size}")
        offsets.append(start)
    dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": width})
    return Table(rows, dtype, (), rows * width, 0)


def _column_name(header: Mapping[str, Value], number: int, taken: list[str]) -> str:
    name = header.get(f"TTYPE{number}")
    text = name.strip() if isinstance(name, str) else ""
    while not text or text in taken:  # a name must be unique in the dtype; two equal TTYPEs are legal
        text = text + "_" if text.startswith(f"col{number}") else f"col{number}"
    return text


def _numpy_format(code: str, repeat: int, size: int) -> Any:
    if code == "A":
        return f"S{repeat}"
    if code in "PQ":
        return (_TYPES[code], (2 * repeat,))
    if code == "X":
        return ("u1", (size,))
    return _TYPES[code] if repeat == 1 else (_TYPES[code], (repeat,))


def _pointer(number: int, name: str, at: int, repeat: int, code: str, rest: str, place: Place) -> list[Pointer]:
    match = _POINTED.match(rest)
    if repeat > 1 or (repeat == 1 and match is None):
        raise place.refuse(
            "the variable-length column's format cannot be read",
            keyword=f"TFORM{number}",
            found=f"{repeat}{code}{rest}",
            expected=f"1{code} and one of L X B I J K A E D C M",
            fix="write the table again",
        )
    if repeat == 0 or match is None:
        return []
    return [Pointer(number, name, at, code == "Q", 1 if match[1] == "X" else 8 * _WIDTHS[match[1]])]


def check_scale(header: Mapping[str, Value], place: Place, scale: str, zero: str) -> tuple[float, float]:
    """(scale, zero) of an image or a column: finite numbers, the scale not zero."""
    return _finite(header, place, scale, 1.0, "a finite number other than 0"), _finite(header, place, zero, 0.0)


def _finite(
    header: Mapping[str, Value], place: Place, keyword: str, default: float, expected: str = "a finite number"
) -> float:
    value = header.get(keyword, default)
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or (number == 0 and default != 0):
        raise place.refuse(
            "the stored numbers cannot be scaled by this value",
            keyword=keyword,
            found=show(value),
            expected=expected,
            fix=f"correct {keyword} in the header, or delete the card if the numbers are stored unscaled",
        )
    return number
