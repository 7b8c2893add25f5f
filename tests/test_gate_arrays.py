"""The gate's look at PNG, JPEG, TIFF, NPY and NPZ files."""

from __future__ import annotations

import io
import pickle
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from deepsky.errors import InputError
from deepsky.gate import check_image, check_npy, check_npz


def refused(check: Any, data: bytes, **limits: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        check(data, file="bad", **limits)
    assert caught.value.file == "bad" and caught.value.fix and caught.value.found is not None
    return caught.value


def encoded(array: np.ndarray[Any, Any], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


NOISE = np.random.default_rng(1).integers(0, 255, (30, 40, 3)).astype(np.uint8)


# -- pictures -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("array", "channels", "bits"), [(NOISE, 3, 8), (NOISE[..., 0], 1, 8), (NOISE[..., 0].astype(np.uint16), 1, 16)]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_the_declared_shape(kind: str, array: np.ndarray[Any, Any], channels: int, bits: int) -> None:
    if kind == "JPEG" and bits == 16:
        array, bits = array.astype(np.uint8), 8
    layout = check_image(encoded(array, kind))
    assert (layout.kind, layout.shape, layout.bits, layout.pages) == (kind, (30, 40, channels), bits, 1)


def test_progressive_jpeg_and_jpeg_with_a_preview() -> None:
    assert check_image(encoded(NOISE, "JPEG", progressive=True)).shape == (30, 40, 3)
    preview = encoded(NOISE[:8, :8], "JPEG")
    whole = encoded(NOISE, "JPEG", comment=b"\xff\xd9 in a comment", exif=b"Exif\0\0" + preview)
    assert check_image(whole).shape == (30, 40, 3)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_every_kind(tmp_path: Path, order: Any, big: bool) -> None:
    pages = np.random.default_rng(2).normal(size=(3, 64, 48)).astype(np.float32)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pages, bigtiff=big, byteorder=order, photometric="minisblack", tile=(16, 16), metadata=None)
    layout = check_image(path)
    assert (layout.file, layout.kind, layout.shape, layout.bits, layout.pages) == (
        str(path),
        "TIFF",
        (64, 48, 1),
        32,
        3,
    )


def test_a_large_file_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    path.write_bytes(encoded(np.random.default_rng(3).integers(0, 255, (1200, 1200)).astype(np.uint8), "PNG"))
    assert path.stat().st_size > 1 << 20
    assert check_image(path).shape == (1200, 1200, 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_every_truncation_is_refused(kind: str) -> None:
    whole = encoded(NOISE, kind)
    for cut in range(1, len(whole) - 2, 53):
        assert refused(check_image, whole[:cut]).problem
    assert refused(check_image, whole[: len(whole) // 2]).problem == f"the {kind} file ends early"


def test_a_picture_bomb_is_refused_by_its_header() -> None:
    huge = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 6, 0, 0, 0)
    chunk = b"IHDR" + huge
    bomb = encoded(NOISE, "PNG")[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(99)
    start = time.process_time()
    error = refused(check_image, bomb)
    assert time.process_time() - start < 0.05
    assert (error.problem, error.keyword) == ("the PNG file declares too many pixels", "width x height")
    assert (error.found, error.expected) == ("2147483647 x 2147483647", "1 to 89478485 pixels")
    for kind in ("PNG", "JPEG", "TIFF"):
        assert refused(check_image, encoded(NOISE, kind), max_pixels=1199).found == "40 x 30"
        assert check_image(encoded(NOISE, kind), max_pixels=1200)


def test_damaged_pictures_are_named() -> None:
    png = encoded(NOISE, "PNG")
    assert refused(check_image, png[:20] + b"\1" + png[21:]).keyword == "IHDR"  # the CRC no longer fits
    assert refused(check_image, png[:33] + png[-12:]).keyword == "IDAT"
    jpeg = encoded(NOISE, "JPEG")
    second = 4 + int.from_bytes(jpeg[4:6], "big")
    error = refused(check_image, jpeg[:second] + b"\0" + jpeg[second + 1 :])
    assert (error.problem, error.found) == ("the JPEG markers are damaged", f"byte 0x00 at {second}")
    assert refused(check_image, jpeg[:2] + b"\xff\xd9").problem == "the JPEG file has no frame header"
    tiff = bytearray(encoded(NOISE, "TIFF"))
    (at,) = struct.unpack_from("<I", tiff, 4)
    (count,) = struct.unpack_from("<H", tiff, at)
    struct.pack_into("<I", tiff, at + 2 + 12 * count, at)  # the next directory is this one
    error = refused(check_image, bytes(tiff))
    assert error.problem == "the TIFF directories do not end" and error.found == f"a directory at byte {at} again"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"GIF89a" + bytes(50), "GIF"),
        (b"SIMPLE  =" + bytes(50), "FITS"),
        (b"<html>", "HTML"),
        (b"RIFF1234WEBP", "WebP"),
    ],
)
def test_another_format_is_named(data: bytes, found: str) -> None:
    error = refused(check_image, data)
    assert (error.problem, error.found) == ("not an image format that is read here", found)
    assert error.expected == "PNG, JPEG or TIFF"


# -- arrays ---------------------------------------------------------------------------------------------------
def saved(array: Any, version: tuple[int, int] | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), version=version, **options)
    return buffer.getvalue()


def zipped(compressed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24.0).reshape(2, 3, 4), np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)), np.float32(3),
        np.zeros((0, 5)), np.zeros(3, [("a", "<f4"), ("b", "S5", (2,))]), np.array(["x", "yy"]),
    ],
)  # fmt: skip
def test_an_array_is_read_from_its_layout(array: Any, version: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(saved(array, version))
    layout = check_npy(path)
    truth = np.load(path)
    assert (layout.shape, layout.dtype) == (truth.shape, truth.dtype)
    count = int(np.prod(layout.shape))
    values = np.frombuffer(path.read_bytes(), layout.dtype, offset=layout.offset, count=count)
    np.testing.assert_array_equal(values.reshape(layout.shape, order="F" if layout.fortran else "C"), truth)


def header(text: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode("latin-1") + data


class Bomb:
    """What a malicious pickle holds; it must never be loaded."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('a pickle was executed')",)


@pytest.mark.parametrize(
    ("data", "keyword", "problem"),
    [
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"), "shape", "no legal shape"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}"), "shape", "no legal shape"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': [2]}"), "shape", "no legal shape"),
        (header("{'descr': '<f8', 'fortran_order': 0, 'shape': ()}"), "fortran_order", "no legal order"),
        (header("{'descr': 'nonsense', 'fortran_order': False, 'shape': ()}"), "descr", "no known dtype"),
        (header("{'descr': [1, 2], 'fortran_order': False, 'shape': ()}"), "descr", "no known dtype"),
        (header("{'descr': '<f8', 'shape': ()}"), None, "the NPY header cannot be read"),
        (header("__import__('os').abort()"), None, "the NPY header cannot be read"),
        (header("(" * 9000), None, "the NPY header cannot be read"),
        (header("{" * 60000), None, "the NPY header cannot be read"),
        (b"\x93NUMPY\1\0\xff\xff{}", None, "the NPY header is too long"),
        (b"\x93NUMPY\x09\0\2\0{}", "version", "no known version of NPY"),
        (b"\x93NUMPY\1\0", None, "the NPY header is cut off"),
        (b"PK\3\4....", None, "not an NPY file"),
    ],
)  # fmt: skip
def test_a_damaged_npy_is_named(data: bytes, keyword: str | None, problem: str) -> None:
    error = refused(check_npy, data)
    assert (error.problem, error.keyword) == (problem, keyword)


def test_objects_are_refused_without_being_loaded() -> None:
    array = np.empty(1, object)
    array[0] = Bomb()
    for data, check in ((saved(array), check_npy), (zipped(a=array), check_npz)):
        error = refused(check, data)
        assert error.keyword == "descr" and error.found == "dtype object" and "numpy.save" in str(error.fix)
    error = refused(check_npy, pickle.dumps(Bomb()))
    assert error.found == "a Python pickle" and "never opened" in str(error.fix)


def test_the_declared_size_is_held_against_the_file() -> None:
    whole = saved(np.arange(100.0))
    error = refused(check_npy, whole[:-30])
    assert error.problem == "the file is truncated: 30 bytes of data are missing"
    assert (error.keyword, error.expected) == ("shape", "800 bytes: shape (100,), dtype float64")
    assert refused(check_npy, whole + b"xyz").problem == "3 bytes follow the array"
    absurd = header("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4611686018427387904)}")
    assert refused(check_npy, absurd).keyword == "shape"


@pytest.mark.parametrize("compressed", [False, True])
def test_the_arrays_of_an_npz(compressed: bool) -> None:
    layouts = check_npz(zipped(compressed, images=np.zeros((5, 4, 3), np.uint8), labels=np.arange(5)))
    assert {name: (x.shape, x.dtype) for name, x in layouts.items()} == {
        "images": ((5, 4, 3), np.dtype("u1")), "labels": ((5,), np.dtype("i8")),
    }  # fmt: skip


def test_damaged_npz() -> None:
    whole = zipped(True, a=np.random.default_rng(0).normal(size=1000))
    assert refused(check_npz, whole[: len(whole) // 2]).problem == "the NPZ file cannot be opened"
    assert refused(check_npz, saved(np.arange(3))).found == "NPY"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    error = refused(check_npz, buffer.getvalue())
    assert (error.hdu, error.problem, error.found) == ("readme.txt", "not an NPY file", "text")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.npy", saved(np.arange(3)))
        archive.writestr("a.npy", saved(np.arange(4)))
    assert refused(check_npz, buffer.getvalue()).found == "a.npy"
    locked = bytearray(zipped(a=np.arange(3)))
    locked[locked.index(b"PK\1\2") + 8] |= 1  # the flag of an encrypted member
    assert refused(check_npz, bytes(locked)).found == "encrypted"


def test_a_zip_bomb_is_refused_before_it_inflates() -> None:
    bomb = zipped(True, a=np.zeros(70 << 20, np.uint8))
    start = time.process_time()
    error = refused(check_npz, bomb)
    assert time.process_time() - start < 0.1
    assert str(error.found).startswith(f"{(70 << 20) + 128} bytes from") and "a ratio of at most 200" in str(
        error.expected
    )
    assert check_npz(bomb, max_ratio=1e5)["a"].nbytes == 70 << 20
    assert refused(check_npz, bomb, max_ratio=1e5, max_inflated=1 << 20).expected
