"""The FITS checksum: a 32-bit ones' complement sum of big-endian words (FITS standard 4.0, appendix J)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np

from deepsky.gate.fits_header import Value, show
from deepsky.gate.source import Place

ALL_ONES = 0xFFFFFFFF


@final
class OnesSum:
    """A running sum over bytes that arrive in pieces of any length."""

    def __init__(self) -> None:
        self._total, self._rest = 0, b""

    def add(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        whole = len(data) & ~3
        self._rest = data[whole:]
        words = np.frombuffer(data, ">u4", count=whole >> 2)
        self._total = _fold(self._total + int(words.sum(dtype=np.uint64)))

    @property
    def value(self) -> int:
        """The sum so far; bytes short of a word are padded with zeros."""
        return _fold(self._total + int.from_bytes(self._rest.ljust(4, b"\0"), "big"))


def _fold(total: int) -> int:
    while total >> 32:
        total = (total & ALL_ONES) + (total >> 32)
    return total


def check_sums(
    header: Mapping[str, Value], raw_header: bytes, data: OnesSum, place: Place, *, whole: bool = True
) -> None:
    """Compare DATASUM and CHECKSUM with the bytes; a keyword that is absent or empty is not checked.

    Parameters
    ----------
    raw_header : the header's bytes, whole blocks.
    data : the sum over the data and their padding.
    whole : also compare CHECKSUM, which an edit of the header makes wrong, too.
    """
    declared = header.get("DATASUM")
    if declared not in (None, ""):
        number = int(declared) if isinstance(declared, str) and declared.strip().isdecimal() else declared
        if number != data.value:
            raise place.refuse(
                "the data are not those that the checksum was computed for",
                keyword="DATASUM",
                found=f"a sum of {data.value} over the data",
                expected=f"{show(declared)}, as the header says",
                fix="the file was damaged or changed after writing: download or write it again",
            )
    if not whole or header.get("CHECKSUM") in (None, ""):
        return
    both = OnesSum()
    both.add(raw_header)
    total = _fold(both.value + data.value)
    if total not in (0, ALL_ONES):
        raise place.refuse(
            "header and data are not those that the checksum was computed for",
            keyword="CHECKSUM",
            found=f"a sum of {total:#010x} over header and data",
            expected=f"{ALL_ONES:#010x}",
            fix="the header was edited or the file damaged after writing: write it again with a new CHECKSUM",
        )
