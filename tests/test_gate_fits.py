"""The gate's look at FITS: every kind of malformed file, and what the message says about it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gate_files import (
    BLOCK,
    EMPTY,
    Raw,
    axes,
    big_endian,
    card,
    extension,
    header,
    pad,
    primary,
    refused,
    table,
)

from deepsky.errors import InputError
from deepsky.gate import check_fits
from deepsky.gate.fits_header import parse_value

IMAGE = np.arange(60, dtype=np.int16).reshape(6, 10)
FLOATS = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
ROWS = np.zeros(3, [("a", ">i4"), ("b", ">f8")]).tobytes()


def changed(keyword: str, value: object, *, array: np.ndarray = IMAGE) -> bytes:
    """A primary image with one card replaced, removed (None) or added."""
    cards: dict[str, object] = {"SIMPLE": True, **dict(axes(array)), keyword: value}
    return header(*((k, v) for k, v in cards.items() if v is not None)) + pad(big_endian(array))


# -- good files -----------------------------------------------------------------------------------------------
def test_an_image_is_read_from_its_layout(tmp_path: Path) -> None:
    path = tmp_path / "good.fits"
    path.write_bytes(primary(IMAGE, ("OBJECT", "it's")) + extension(FLOATS, ("EXTNAME", "ivar")))
    layout = check_fits(path)
    assert layout.file == str(path) and layout.size == path.stat().st_size and layout.compression == ""
    first, second = layout.hdus
    assert (first.index, first.kind, first.shape, first.dtype) == (0, "image", (6, 10), np.dtype(">i2"))
    assert (second.kind, second.shape, second.dtype) == ("image", (6, 10), np.dtype(">f4"))
    assert (first.name, second.name) == ("PRIMARY", "IVAR")
    assert first.header["OBJECT"] == "it's"
    for hdu, truth in ((first, IMAGE), (second, FLOATS)):
        pixels = np.fromfile(path, hdu.dtype, offset=hdu.offset, count=truth.size).reshape(hdu.shape)
        np.testing.assert_array_equal(pixels, truth)
    assert layout.images() == layout.hdus


def test_a_layout_travels_between_processes() -> None:
    layout = check_fits(primary(IMAGE), file="a")
    assert pickle.loads(pickle.dumps(layout)) == layout


@pytest.mark.parametrize(("pack", "name"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_a_compressed_file_has_the_same_layout(pack: Any, name: str) -> None:
    data = primary(IMAGE) + extension(FLOATS)
    inside = check_fits(pack(data), file="a")
    assert inside.compression == name and inside.size == len(data)
    assert inside.hdus == check_fits(data, file="a").hdus
    assert refused(pack(data)[:-20]).problem.startswith(f"the {name} stream is damaged")
    assert refused(pack(data[: 2 * BLOCK - 2780])).problem == "the file is truncated: 20 bytes of data are missing"


def test_gzip_members_follow_one_another_and_padding_may_follow() -> None:
    data = primary(IMAGE) + extension(FLOATS)
    joined = gzip.compress(data[:4000]) + gzip.compress(data[4000:]) + bytes(512)
    assert check_fits(joined, file="a").hdus == check_fits(data, file="a").hdus


def test_the_last_padding_may_be_missing_and_fill_may_follow() -> None:
    data = header(("SIMPLE", True), *axes(IMAGE)) + big_endian(IMAGE)
    assert check_fits(data).hdus[0].nbytes == 120
    assert len(check_fits(pad(data) + bytes(7000)).hdus) == 1
    assert len(check_fits(pad(data) + b"\n").hdus) == 1


def test_a_file_without_pixels_has_no_images() -> None:
    layout = check_fits(EMPTY + table(ROWS, 3, ["J", "D"]), file="table.fits")
    assert [hdu.kind for hdu in layout.hdus] == ["empty", "table"]
    with pytest.raises(InputError, match="no HDU of the file holds an image") as caught:
        layout.images()
    assert caught.value.found == "0 PRIMARY: empty, 1 (no name): table"


def test_random_groups_and_unknown_extensions_keep_their_place() -> None:
    groups = header(("SIMPLE", True), ("BITPIX", 16), ("NAXIS", 2), ("NAXIS1", 0), ("NAXIS2", 4), ("GROUPS", True),
                    ("PCOUNT", 2), ("GCOUNT", 5)) + pad(bytes(2 * 5 * (2 + 4)))  # fmt: skip
    other = extension(IMAGE).replace(b"'IMAGE   '", b"'FOREIGN '")
    layout = check_fits(groups + other + extension(FLOATS))
    assert [(hdu.kind, hdu.nbytes) for hdu in layout.hdus] == [("groups", 60), ("other", 120), ("image", 240)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'it''s / here' / c", "it's / here"), ("  T / c", True), ("F", False), ("-12 / c", -12), ("1.5D3", 1500.0),
        ("  .5e-2", 0.005), ("", None), ("/ only a comment", None), ("(1.0, -2)", 1 - 2j), ("1_000", "1_000"),
        ("'open", "open"), ("IMAGE", "IMAGE"), ("Infinity", float("inf")), ("'trailing  '", "trailing"),
    ],
)  # fmt: skip
def test_card_values(text: str, value: object) -> None:
    assert parse_value(text) == value and type(parse_value(text)) is type(value)


def test_long_texts_and_hierarchical_keywords() -> None:
    cards = [
        ("NOTE", "one &"),
        ("CONTINUE  'two'", None),
        ("HIERARCH ESO DET ID = 7 / x", None),
        ("CRVAL1", Raw("NaN")),
    ]
    values = check_fits(primary(IMAGE, *cards)).hdus[0].header
    assert values["NOTE"] == "one two" and values["ESO DET ID"] == 7
    assert np.isnan(values["CRVAL1"])


# -- not FITS at all ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff\xe0" + bytes(9), "JPEG"), (b"PK\3\4" + bytes(9), "zip"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"), (b"\n <html>", "HTML"), (b"id,ra,dec\n1,2,3\n", "text"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5"), (bytes(3000), "zero bytes only"), (b"\x93NUMPY\1\0", "NPY"),
        (bytes(range(256)), "unknown binary data"), (b"version https://git-lfs.github.com/spec\n", "a Git LFS pointer"),
        (b"\x80\x04\x95" + bytes(90), "a Python pickle"), (b"\x1f\x9d\x90" + bytes(90), "Unix compress (.Z)"),
        (b"<?xml version='1.0'?><VOTABLE>", "VOTable (XML)"),
        (extension(IMAGE), "a FITS extension without its primary HDU"),
        (gzip.compress(b"hello", mtime=0), "text inside gzip"),
    ],
)  # fmt: skip
def test_what_is_no_fits_is_named(head: bytes, kind: str) -> None:
    error = refused(head)
    assert (error.problem, error.keyword, error.found) == ("not a FITS file", "SIMPLE", kind)
    assert error.expected == "a file that begins with 'SIMPLE  ='"


def test_empty_missing_and_unreadable_files(tmp_path: Path) -> None:
    error = refused(b"")
    assert (error.problem, error.found) == ("the file is empty", "0 bytes")
    with pytest.raises(InputError) as caught:
        check_fits(tmp_path / "none.fits")
    assert caught.value.problem == "cannot be opened" and "No such file" in str(caught.value.found)
    with pytest.raises(InputError) as caught:
        check_fits(tmp_path)
    assert caught.value.found == "a directory"
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    with pytest.raises(InputError) as caught:
        check_fits(tmp_path / "pipe")
    assert caught.value.found == "not a regular file"


# -- headers --------------------------------------------------------------------------------------------------
BITPIX = "one of 8, 16, 32, 64, -32, -64"


@pytest.mark.parametrize(
    ("data", "keyword", "found", "expected"),
    [
        (changed("SIMPLE", False), "SIMPLE", "F", "T"),
        (changed("BITPIX", 17), "BITPIX", "17", BITPIX),
        (changed("BITPIX", None), "BITPIX", "no such card", BITPIX),
        (changed("BITPIX", "16"), "BITPIX", "'16'", BITPIX),
        (changed("NAXIS", 9), "NAXIS", 9, "an integer from 0 to 8 (up to 999 is legal, but makes some readers crash)"),
        (changed("NAXIS", 1000), "NAXIS", 1000, "an integer from 0 to 999"),
        (changed("NAXIS", -1), "NAXIS", -1, "an integer from 0 to 999"),
        (changed("NAXIS", True), "NAXIS", "T", "an integer from 0 to 999"),
        (changed("NAXIS", 3), "NAXIS3", "no such card", "an integer >= 0"),
        (changed("NAXIS1", -10), "NAXIS1", -10, "an integer >= 0"),
        (changed("NAXIS2", 6.0), "NAXIS2", "6.0", "an integer >= 0"),
        (changed("NAXIS2", Raw("")), "NAXIS2", "an empty card", "an integer >= 0"),
        (changed("PCOUNT", 5), "PCOUNT", 5, "0"),
        (changed("GCOUNT", 2), "GCOUNT", 2, "1"),
        (changed("BSCALE", 0), "BSCALE", "0", "a finite number other than 0"),
        (changed("BSCALE", 0.0), "BSCALE", "0.0", "a finite number other than 0"),
        (changed("BSCALE", Raw("NaN")), "BSCALE", "nan", "a finite number other than 0"),
        (changed("BSCALE", "2"), "BSCALE", "'2'", "a finite number other than 0"),
        (changed("BZERO", Raw("1E999")), "BZERO", "inf", "a finite number"),
        (changed("BZERO", True), "BZERO", "T", "a finite number"),
        (changed("BLANK", Raw("-32768.")), "BLANK", "-32768.0", "an integer, the stored value of unmeasured pixels"),
    ],
)  # fmt: skip
def test_a_wrong_card_is_named(data: bytes, keyword: str, found: object, expected: str) -> None:
    error = refused(data)
    assert (error.hdu, error.keyword, error.found, error.expected) == (0, keyword, found, expected)


def test_the_scaled_values_must_be_representable() -> None:
    error = refused(changed("BSCALE", 1e38))
    assert (error.problem, error.keyword) == ("the scaled pixel values overflow float32", "BSCALE")
    assert error.found == "BSCALE = 1e+38, BZERO = 0: values up to 3.2768e+42"
    error = refused(changed("BZERO", 1e12))
    assert error.keyword == "BZERO" and error.found == "BSCALE = 1, BZERO = 1e+12: 65536 stored values become 2"
    distinct = np.unique((np.arange(-32768, 32768) + 1e12).astype(np.float32)).size
    assert distinct <= 2  # the claim of the message, measured
    check_fits(changed("BZERO", 32768))  # unsigned integers
    check_fits(changed("BZERO", 2147483648, array=IMAGE.astype(np.int32)))
    check_fits(changed("BZERO", 9223372036854775808, array=IMAGE.astype(np.int64)))
    check_fits(changed("BZERO", -128, array=IMAGE.astype(np.uint8)))


def test_naxis_999_with_all_its_axes_is_refused() -> None:
    """A complete header of 999 axes of length one: consistent with its file, and known to crash readers."""
    sides = [(f"NAXIS{n}", 1) for n in range(1, 1000)]
    error = refused(header(("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 999), *sides) + pad(b"\1"))
    assert (error.problem, error.keyword, error.found) == ("more axes than readers can take", "NAXIS", 999)
    ninth = refused(header(("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 9), *sides[:9]) + pad(b"\1"))
    assert ninth.found == 9
    eight = check_fits(header(("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 8), *sides[:8]) + pad(b"\1"))
    assert eight.hdus[0].shape == (1,) * 8


def test_a_header_without_end() -> None:
    data = header(("SIMPLE", True), *axes(IMAGE), end=False) + pad(big_endian(IMAGE))
    error = refused(data)
    assert (error.hdu, error.keyword, error.found) == (0, "END", "the file ends 5760 bytes into this header")
    error = refused(data[:100])
    assert error.found == "the file ends 100 bytes into this header"
    endless = data[:BLOCK] + card("COMMENT", None) * 36 * 20
    error = refused(endless, max_header_blocks=10)
    assert (error.keyword, error.found) == ("END", "10 blocks of 2880 bytes without END")
    error = refused(data[:400] + card("END", None))  # END is there, but its block is not whole
    assert (error.keyword, error.found, error.expected) == ("END", "480 bytes", "a multiple of 2880 bytes")


@pytest.mark.parametrize(("keyword", "value"), [("NAXIS1", 10), ("NAXIS1", 11), ("BITPIX", 16), ("SIMPLE", True)])
def test_a_keyword_of_structure_may_not_be_repeated(keyword: str, value: object) -> None:
    error = refused(primary(IMAGE, (keyword, value)))
    assert (error.keyword, error.expected) == (keyword, "one card")


def test_a_keyword_of_meaning_may_not_contradict_itself() -> None:
    error = refused(primary(IMAGE, ("CRVAL1", 10.0), ("CRVAL1", 11.0)))
    assert (error.hdu, error.keyword, error.found) == (0, "CRVAL1", "10.0 and 11.0")
    assert check_fits(primary(IMAGE, ("CRVAL1", 10.0), ("CRVAL1", 10.0))).hdus[0].header["CRVAL1"] == 10.0
    assert check_fits(primary(IMAGE, ("DATE", "a"), ("DATE", "b"))).hdus[0].header["DATE"] == "a"


# -- the file's size ------------------------------------------------------------------------------------------
def test_a_truncated_file_says_how_much_is_missing() -> None:
    data = primary(np.zeros((100, 90), np.float32))
    error = refused(data[: BLOCK + 35000])
    assert error.problem == "the file is truncated: 1000 bytes of data are missing"
    assert (error.hdu, error.keyword, error.found) == (0, "NAXIS", "35000 bytes of data")
    assert error.expected == "36000 bytes: sides 90 x 100 with BITPIX -32"
    error = refused(primary(IMAGE) + extension(FLOATS)[: BLOCK + 230])
    assert (error.hdu, error.problem) == (1, "the file is truncated: 10 bytes of data are missing")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_absurd_size_costs_nothing(pack: Any) -> None:
    cards = [("NAXIS1", 2**31), ("NAXIS2", 2**31), ("NAXIS3", 2**62)]
    data = pack(header(("SIMPLE", True), ("BITPIX", -64), ("NAXIS", 3), *cards) + pad(bytes(100)))
    start = time.process_time()
    error = refused(data)
    assert time.process_time() - start < 0.1
    assert error.problem == "the header declares far more data than the file holds"
    assert error.keyword == "NAXIS" and error.found == "2880 bytes of data"


def test_what_follows_an_hdu_must_be_an_hdu() -> None:
    damaged = extension(FLOATS).replace(b"XTENSION", b"XTENSIOM")
    error = refused(primary(IMAGE) + damaged)
    assert (error.hdu, error.keyword, error.found) == (0, "XTENSION", "text at byte 5760")
    error = refused(primary(IMAGE) + extension(FLOATS).replace(b"'IMAGE   '", b"42        "))
    assert (error.hdu, error.keyword, error.found) == (1, "XTENSION", "42")


# -- decompression bombs --------------------------------------------------------------------------------------
def test_a_bomb_is_stopped_while_it_inflates() -> None:
    zeros = np.zeros(70 << 20, np.uint8)
    bomb = gzip.compress(primary(zeros), compresslevel=1)
    error = refused(bomb)
    assert error.problem.startswith("the gzip file inflates beyond the limit")
    assert "a ratio of" in str(error.found) and error.expected == "a ratio of at most 200"
    assert check_fits(bomb, max_ratio=1e6).hdus[0].nbytes == 70 << 20
    start = time.process_time()
    error = refused(bomb, max_inflated=1 << 20)
    assert time.process_time() - start < 0.1  # stopped early: the rest was never inflated
    assert (error.found, error.expected) == ("more than 1048576 inflated bytes", "at most 1048576")


def test_a_small_mask_of_zeros_is_no_bomb() -> None:
    packed = gzip.compress(primary(np.zeros((1000, 1000), np.uint8)))
    assert len(packed) * 200 < 1_000_000  # its ratio alone would refuse it
    assert check_fits(packed).hdus[0].shape == (1000, 1000)


def test_damaged_gzip() -> None:
    packed = bytearray(gzip.compress(primary(IMAGE)))
    packed[-6] ^= 0xFF  # the CRC
    assert refused(bytes(packed)).problem.startswith("the gzip stream is damaged")
    assert refused(gzip.compress(primary(IMAGE)) + b"junk").problem.startswith("the gzip stream is damaged")


# -- checksums ------------------------------------------------------------------------------------------------
def slow_sum(data: bytes) -> int:
    total = 0
    for start in range(0, len(data), 4):
        total += int.from_bytes(data[start : start + 4], "big")
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def with_datasum(value: object) -> bytes:
    return primary(IMAGE, ("DATASUM", value))


def test_the_datasum_is_compared_with_the_data() -> None:
    right = slow_sum(pad(big_endian(IMAGE)))
    assert check_fits(with_datasum(str(right)), checksums=True)
    assert check_fits(with_datasum(right), checksums=True)  # written as a number by some
    wrong = with_datasum(str(right + 1))
    assert check_fits(wrong)  # only on request
    error = refused(wrong, checksums=True)
    assert (error.hdu, error.keyword, error.found) == (0, "DATASUM", f"a sum of {right} over the data")
    assert error.expected == f"'{right + 1}', as the header says"
    assert refused(with_datasum("abc"), checksums=True).keyword == "DATASUM"
    assert refused(gzip.compress(wrong), checksums=True).keyword == "DATASUM"


# -- speed ----------------------------------------------------------------------------------------------------
def test_a_cutout_is_checked_in_well_under_a_millisecond(tmp_path: Path) -> None:
    """Sixty cards of header; the best of several runs, in processor time, since machines are noisy."""
    path = tmp_path / "cutout.fits"
    path.write_bytes(primary(np.zeros((64, 64), np.float32), *[(f"KEY{n}", n * 1.5) for n in range(54)]))
    best = 1.0
    for _ in range(7):
        start = time.process_time()
        for _ in range(50):
            check_fits(path)
        best = min(best, (time.process_time() - start) / 50)
    assert best < 5e-4, f"{best * 1e6:.0f} microseconds"
