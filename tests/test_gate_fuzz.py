"""Whatever the bytes are, a check answers with a layout or an InputError, and never with anything else."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.gate_files import EMPTY, compressed, extension, primary, table

from deepsky.errors import InputError
from deepsky.gate import check_fits, check_image, check_npy, check_npz, check_values, check_wcs

PIXELS = np.arange(60, dtype=np.int16).reshape(6, 10)
SKY = [("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 150.0), ("CRVAL2", 2.2), ("CRPIX1", 5.5),
       ("CRPIX2", 3.5), ("CD1_1", -1e-4), ("CD2_2", 1e-4)]  # fmt: skip
DESCRIPTORS = np.array([[2, 0], [3, 8]], ">i4").tobytes()
FITS = [
    primary(PIXELS, ("BSCALE", 2.0), ("BZERO", 100), *SKY) + extension(PIXELS.astype(np.float32), ("EXTNAME", "IVAR")),
    EMPTY + table(DESCRIPTORS, 2, ["1PE(3)"], ("TTYPE1", "v"), heap=bytes(40)) + compressed(),
]
QUICK = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def _saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, PIXELS)
    elif kind == "npz":
        np.savez_compressed(buffer, a=PIXELS, b=PIXELS)
    else:
        Image.fromarray(PIXELS.astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


OTHERS: list[tuple[Any, bytes]] = [
    (check_npy, _saved("npy")), (check_npz, _saved("npz")), (check_image, _saved("PNG")), (check_image, _saved("JPEG")),
    (check_image, _saved("TIFF")), (check_fits, gzip.compress(FITS[0])),
]  # fmt: skip

# a flip sets one byte: anywhere, or among the values of the first cards, where it hurts
FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6)
DIGITS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(10, 29), st.sampled_from(b"0123456789-+.EDTF '")), max_size=4
)
CUT = st.one_of(st.just(1.0), st.floats(0, 1))


def _damaged(data: bytes, flips: list[tuple[float, int]], cut: float) -> bytearray:
    changed = bytearray(data)
    for place, value in flips:
        changed[int(place * len(changed))] = value
    return changed[: int(cut * len(changed))]


def _answers(check: Any, data: bytes) -> Any:
    try:
        return check(data, file="fuzz")
    except InputError as error:
        assert error.file == "fuzz" and error.fix and str(error)
        return None


@QUICK
@given(st.sampled_from(FITS), FLIPS, DIGITS, st.integers(0, 3), CUT)
def test_damaged_fits(data: bytes, flips: list[tuple[float, int]], digits: Any, hdu: int, cut: float) -> None:
    changed = _damaged(data, flips, cut)
    start = [0, *(n for n in range(0, len(data), 2880) if data[n : n + 8] == b"XTENSION")]
    for card, column, value in digits:
        place = start[hdu % len(start)] + 80 * card + column
        if place < len(changed):
            changed[place] = value
    layout = _answers(check_fits, bytes(changed))
    if layout is None:
        return
    for found in layout.hdus:  # what was accepted lies inside the file
        assert 0 <= found.offset <= found.offset + found.nbytes <= len(changed)
        assert found.kind != "image" or found.nbytes == int(np.prod(found.shape)) * found.dtype.itemsize
        try:
            check_wcs(found.header, file="fuzz", hdu=found.index)
            if found.kind == "image":
                values = np.frombuffer(changed, found.dtype, offset=found.offset, count=int(np.prod(found.shape)))
                check_values(values.reshape(found.shape), file="fuzz", header=found.header)
        except InputError as error:
            assert error.file == "fuzz" and error.fix


@QUICK
@given(st.sampled_from(OTHERS), FLIPS, CUT)
def test_damaged_files_of_other_kinds(good: tuple[Any, bytes], flips: list[tuple[float, int]], cut: float) -> None:
    check, data = good
    _answers(check, bytes(_damaged(data, flips, cut)))


@QUICK
@given(st.sampled_from([check_fits, check_npy, check_npz, check_image]), st.binary(max_size=400), st.integers(0, 5))
def test_arbitrary_bytes_behind_every_magic(check: Any, data: bytes, magic: int) -> None:
    heads = [
        b"",
        b"SIMPLE  =                    T".ljust(80),
        b"\x93NUMPY",
        b"PK\3\4",
        b"\x89PNG\r\n\x1a\n",
        b"II*\0\x08\0\0\0",
    ]
    _answers(check, heads[magic] + data)
    _answers(check_fits, b"\x1f\x8b" + zlib.compress(data))


def test_the_undamaged_files_are_accepted() -> None:
    for data in FITS:
        assert check_fits(data).hdus
    for check, data in OTHERS:
        assert check(data)
