"""FITS files written byte by byte, so that the tests of the gate trust no library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deepsky.errors import InputError
from deepsky.gate import check_fits

BLOCK = 2880


def card(keyword: str, value: object) -> bytes:
    """One card; without a value (None) the keyword is the whole card."""
    if value is None:
        text = keyword
    elif isinstance(value, bool):
        text = f"{keyword:8}= {'T' if value else 'F':>20}"
    elif isinstance(value, str):
        quoted = value.replace("'", "''")
        text = f"{keyword:8}= '{quoted:8}'"
    elif isinstance(value, Raw):
        text = f"{keyword:8}= {value.text:>20}"
    else:
        text = f"{keyword:8}= {value!r:>20}"
    return text.ljust(80).encode("latin-1")


class Raw:
    """A value written as it stands, legal or not."""

    def __init__(self, text: str) -> None:
        self.text = text


def pad(data: bytes, fill: bytes = b"\0") -> bytes:
    return data + fill * (-len(data) % BLOCK)


def header(*cards: tuple[str, object], end: bool = True) -> bytes:
    return pad(b"".join(card(*c) for c in cards) + (card("END", None) if end else b""), b" ")


def primary(array: np.ndarray, *more: tuple[str, object]) -> bytes:
    return header(("SIMPLE", True), *axes(array), *more) + pad(big_endian(array))


def extension(array: np.ndarray, *more: tuple[str, object]) -> bytes:
    cards = (("XTENSION", "IMAGE"), *axes(array), ("PCOUNT", 0), ("GCOUNT", 1))
    return header(*cards, *more) + pad(big_endian(array))


def axes(array: np.ndarray) -> tuple[tuple[str, object], ...]:
    bits = array.dtype.itemsize * (-8 if array.dtype.kind == "f" else 8)
    sides = [(f"NAXIS{n}", side) for n, side in enumerate(reversed(array.shape), 1)]
    return (("BITPIX", bits), ("NAXIS", array.ndim), *sides)


def big_endian(array: np.ndarray) -> bytes:
    return array.astype(array.dtype.newbyteorder(">")).tobytes()


EMPTY = header(("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0))


def table(rows: bytes, count: int, forms: list[str], *more: tuple[str, object], heap: bytes = b"") -> bytes:
    """A BINTABLE of `count` rows; a keyword in `more` takes the place of the right one."""
    given = dict(more)
    cards: dict[str, object] = {
        "XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": len(rows) // max(count, 1), "NAXIS2": count,
        "PCOUNT": len(heap), "GCOUNT": 1, "TFIELDS": len(forms),
    }  # fmt: skip
    for number, form in enumerate(forms, 1):
        cards[f"TFORM{number}"] = form
    cards.update(given)
    return header(*((k, v) for k, v in cards.items() if v != "ABSENT")) + pad(rows + heap)


def compressed(*more: tuple[str, object], tiles: int = 8) -> bytes:
    """A tile-compressed image of 8 rows of 10 pixels, 12 bytes a tile (which nobody decodes)."""
    rows = b"".join(np.array([12, 12 * n], ">i4").tobytes() for n in range(tiles))
    cards: dict[str, object] = {
        "TTYPE1": "COMPRESSED_DATA", "ZIMAGE": True, "ZCMPTYPE": "RICE_1", "ZBITPIX": 16, "ZNAXIS": 2,
        "ZNAXIS1": 10, "ZNAXIS2": 8, "ZTILE1": 10, "ZTILE2": 1,
    }  # fmt: skip
    cards.update(dict(more))
    return table(rows, tiles, ["1PB(12)"], *cards.items(), heap=b"\1" * 12 * tiles)


def refused(data: bytes, **limits: Any) -> InputError:
    """The refusal of these bytes, which names the file and a fix."""
    with pytest.raises(InputError) as caught:
        check_fits(data, file="bad.fits", **limits)
    assert caught.value.file == "bad.fits"
    assert caught.value.fix, f"no fix: {caught.value}"
    return caught.value
