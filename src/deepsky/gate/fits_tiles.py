"""Tile-compressed FITS images: what the table declares about the image inside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from deepsky.gate.fits_header import Value, integer, show
from deepsky.gate.fits_tables import Table
from deepsky.gate.source import RATIO_FLOOR, Place

COMPRESSIONS = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS")
BITPIX = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@final
@dataclass(frozen=True)
class Tiles:
    """A tile-compressed image: shape in numpy order, dtype of the pixels, whether they were quantised."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    lossy: bool


def compressed_image(
    header: Mapping[str, Value], place: Place, table: Table, stored: int, max_inflated: int, max_ratio: float
) -> Tiles:
    """The image inside a tile-compressed table, with its tiles counted against the rows.

    Parameters
    ----------
    stored : bytes of the table and its heap.
    max_inflated, max_ratio : the decoded size may not exceed the first, nor, above 64 MiB, the second times `stored`.
    """
    method = header.get("ZCMPTYPE")
    if not isinstance(method, str) or method not in COMPRESSIONS:
        found = show(method) if "ZCMPTYPE" in header else "no such card"
        raise place.refuse("the compression is not known", keyword="ZCMPTYPE", found=found, known=COMPRESSIONS)
    bitpix = header.get("ZBITPIX")
    if type(bitpix) is not int or bitpix not in BITPIX:
        found, known = show(bitpix), tuple(map(str, BITPIX))
        raise place.refuse("no legal pixel type", keyword="ZBITPIX", found=found, known=known, fix="write it again")
    axes = integer(header, "ZNAXIS", place, low=1, high=8)
    sides = [integer(header, f"ZNAXIS{n}", place) for n in range(1, axes + 1)]
    row = [max(sides[0], 1), *[1] * (axes - 1)]  # without ZTILEn a tile is a row
    tile = [integer(header, f"ZTILE{n}", place, low=1, default=row[n - 1]) for n in range(1, axes + 1)]
    count = math.prod(-(-side // step) for side, step in zip(sides, tile, strict=True))
    if count != table.rows:
        raise place.refuse(
            "the number of tiles is not the number of rows",
            keyword="NAXIS2",
            found=f"{table.rows} rows",
            expected=f"{count} tiles of {tile} in an image of {sides} (ZTILEn, ZNAXISn)",
            fix="the file is damaged: download or compress it again",
        )
    columns = {pointer.name for pointer in table.pointers}
    if "COMPRESSED_DATA" not in columns and count:
        raise place.refuse(
            "the column with the compressed tiles is missing",
            keyword="TTYPE1",
            found=f"variable-length columns {sorted(columns)}",
            expected="a variable-length column COMPRESSED_DATA",
            fix="compress the image again",
        )
    decoded = math.prod(sides) * abs(bitpix) // 8
    if decoded > max_inflated or (decoded > RATIO_FLOOR and decoded > max_ratio * stored):
        raise place.refuse(
            "the compressed image decodes to more than the limit (a decompression bomb?)",
            keyword="ZNAXIS1",
            found=f"{decoded} bytes decoded from {stored}",
            expected=f"at most {max_inflated} bytes and a ratio of at most {max_ratio:g}",
            fix="if you trust the file, decompress it yourself (funpack FILE) and give the result",
        )
    _check_parameters(header, place, method, bitpix)
    quantised = bitpix < 0 and ("ZSCALE" in (table.dtype.names or ()) or "ZSCALE" in header)
    return Tiles(tuple(reversed(sides)), np.dtype(BITPIX[bitpix]), quantised or _hcompress_scale(header, method) > 0)


def _parameters(header: Mapping[str, Value]) -> dict[str, tuple[str, Value]]:
    """ZNAMEn -> (ZVALn, its value)."""
    found: dict[str, tuple[str, Value]] = {}
    for number in range(1, 1000):
        name = header.get(f"ZNAME{number}")
        if not isinstance(name, str):
            break
        found[name] = (f"ZVAL{number}", header.get(f"ZVAL{number}"))
    return found


def _hcompress_scale(header: Mapping[str, Value], method: str) -> float:
    value = _parameters(header).get("SCALE", ("", 0))[1] if method == "HCOMPRESS_1" else 0
    return float(value) if isinstance(value, int | float) else 0.0


def _check_parameters(header: Mapping[str, Value], place: Place, method: str, bitpix: int) -> None:
    """Parameters that the decoders in C take on trust."""
    legal = {"BYTEPIX": (1, 2, 4, 8), "BLOCKSIZE": (16, 32)} if method.startswith("RICE") else {}
    given = _parameters(header)
    for name, values in legal.items():
        keyword, value = given.get(name, ("", values[-1]))
        if type(value) is not int or value not in values:
            found, expected = show(value), f"{name} = " + ", ".join(map(str, values))
            raise place.refuse("no legal parameter of the compression", keyword=keyword, found=found, expected=expected)
    quantise = header.get("ZQUANTIZ", "NO_DITHER")
    known = ("NO_DITHER", "SUBTRACTIVE_DITHER_1", "SUBTRACTIVE_DITHER_2", "NONE")
    if bitpix < 0 and quantise not in known:
        raise place.refuse("the quantisation is not known", keyword="ZQUANTIZ", found=show(quantise), known=known)
