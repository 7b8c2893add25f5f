"""The gate's look at FITS tables and tile-compressed images: columns, heap, descriptors, tiles."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from tests.gate_files import EMPTY, compressed, header, pad, refused, table

from deepsky.gate import check_fits

ROWS = np.zeros(3, [("a", ">i4"), ("b", ">f8")]).tobytes()


def test_a_table_row_has_the_declared_dtype() -> None:
    rows = np.zeros(3, [("a", ">i4"), ("b", ">f8"), ("c", "S5"), ("d", ">f4", (2,)), ("e", "u1", (2,))])
    cards = [("TTYPE1", "a"), ("TTYPE2", "b"), ("TTYPE3", "c"), ("TTYPE4", "d"), ("TTYPE5", "e")]
    hdu = check_fits(EMPTY + table(rows.tobytes(), 3, ["J", "1D", "5A", "2E", "11X"], *cards)).hdus[1]
    assert (hdu.kind, hdu.shape, hdu.dtype) == ("table", (3,), rows.dtype)


def test_columns_of_one_name_stay_apart() -> None:
    hdu = check_fits(EMPTY + table(ROWS, 3, ["J", "D"], ("TTYPE1", "col2"), ("TTYPE2", "col2"))).hdus[1]
    assert len(set(hdu.dtype.names)) == 2 and hdu.dtype.itemsize == 12


def pointed(count: int, offset: int, form: str = "PE", **more: object) -> bytes:
    """Two rows of one variable-length column; the second descriptor is (count, offset); a heap of 40 bytes."""
    pairs = np.array([[2, 0], [count, offset]], ">i8" if "Q" in form else ">i4")
    return EMPTY + table(pairs.tobytes(), 2, [form], ("TTYPE1", "v"), *more.items(), heap=bytes(40))


@pytest.mark.parametrize(
    ("data", "keyword", "found", "expected"),
    [
        (table(ROWS, 3, ["J", "E"]), "NAXIS1", "12 bytes a row", "8 bytes, the sum over TFORMn"),
        (table(ROWS, 3, ["J", "1Z"]), "TFORM2", "'1Z'", "a repeat count and one of L X B I J K A E D C M P Q"),
        (table(ROWS, 3, ["J", "D"], ("TFORM2", "ABSENT")), "TFORM2", "no such card",
         "a repeat count and one of L X B I J K A E D C M P Q"),
        (table(ROWS, 3, ["J", "D"], ("TFIELDS", "ABSENT")), "TFIELDS", "no such card", "an integer from 0 to 999"),
        (table(ROWS, 3, ["J", "D"], ("TFIELDS", 3)), "TFORM3", "no such card",
         "a repeat count and one of L X B I J K A E D C M P Q"),
        (table(ROWS, 3, ["J", "D"], ("BITPIX", 16), ("NAXIS2", 1)), "BITPIX", 16, 8),
        (table(ROWS, 3, ["J", "D"], ("NAXIS", 1)), "NAXIS", 1, 2),
        (table(ROWS, 3, ["J", "D"], ("GCOUNT", 2), ("NAXIS2", 1)), "GCOUNT", 2, "1"),
        (table(ROWS, 3, ["J", "D"], ("PCOUNT", -1)), "PCOUNT", -1, "an integer >= 0"),
        (table(ROWS, 3, ["J", "D"], ("TSCAL2", 0)), "TSCAL2", "0", "a finite number other than 0"),
        (table(ROWS, 3, ["J", "D"], ("THEAP", 10)), "THEAP", 10, "36"),
        (table(ROWS, 3, ["J", "D"], ("THEAP", 99)), "THEAP", 99, "36"),
        (table(b"", 0, ["99999999999999A"], ("NAXIS1", 2**33)), "NAXIS1", 2**33, "an integer from 0 to 2147483647"),
        (pointed(2, 0, "2PE"), "TFORM1", "2PE", "1P and one of L X B I J K A E D C M"),
        (pointed(2, 0, "1PZ"), "TFORM1", "1PZ", "1P and one of L X B I J K A E D C M"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named(data: bytes, keyword: str, found: object, expected: object) -> None:
    error = refused(data if data.startswith(b"SIMPLE") else EMPTY + data)
    assert (error.hdu, error.keyword, error.found, error.expected) == (1, keyword, found, expected)


@pytest.mark.parametrize("form", ["PE", "QE"])
@pytest.mark.parametrize(("count", "offset"), [(11, 0), (1, 37), (10, 1), (-1, 0), (1, -4), (2**31 - 1, 2**31 - 1)])
def test_descriptors_stay_inside_the_heap(form: str, count: int, offset: int) -> None:
    error = refused(pointed(count, offset, form))
    assert (error.hdu, error.keyword) == (1, "TFORM1")
    assert error.found == f"{count} elements at heap offset {offset} in row 2"
    assert error.expected == "elements inside the heap of 40 bytes"
    assert refused(gzip.compress(pointed(count, offset, form))).found == error.found


def test_descriptors_at_the_heaps_end_are_fine() -> None:
    for data in (pointed(10, 0), pointed(1, 36), pointed(0, 2**31 - 1), pointed(320, 0, "PX"), pointed(0, -1, "QE")):
        assert check_fits(data).hdus[1].shape == (2,)
    assert refused(pointed(321, 0, "PX")).keyword == "TFORM1"
    assert refused(pointed(2**62, 0, "QM")).keyword == "TFORM1"  # count times 16 wraps round in 64 bits
    gap = pointed(9, 0, THEAP=20)  # the heap starts 4 bytes later and is 36 bytes long
    assert check_fits(gap).hdus[1].nbytes == 56
    assert refused(pointed(10, 0, THEAP=20)).expected == "elements inside the heap of 36 bytes"


def test_ascii_tables() -> None:
    def ascii_table(*more: tuple[str, object]) -> bytes:
        cards: dict[str, object] = {
            "XTENSION": "TABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 10, "NAXIS2": 2, "PCOUNT": 0, "GCOUNT": 1,
            "TFIELDS": 2, "TBCOL1": 1, "TFORM1": "I4", "TBCOL2": 6, "TFORM2": "F5.2",
        }  # fmt: skip
        return EMPTY + header(*{**cards, **dict(more)}.items()) + pad(b"  12  1.50" * 2, b" ")

    hdu = check_fits(ascii_table()).hdus[1]
    assert hdu.dtype.fields is not None and hdu.dtype.itemsize == 10
    assert [hdu.dtype.fields[name][1] for name in hdu.dtype.names or ()] == [0, 5]
    error = refused(ascii_table(("TBCOL2", 7)))
    assert (error.keyword, error.found, error.expected) == ("TBCOL2", "columns 7 to 11", "within NAXIS1 = 10")
    assert refused(ascii_table(("TFORM2", "X5"))).keyword == "TFORM2"
    assert refused(ascii_table(("TBCOL1", 0))).keyword == "TBCOL1"


# -- tile-compressed images -----------------------------------------------------------------------------------
def test_a_compressed_image_has_the_shape_of_its_pixels() -> None:
    hdu = check_fits(EMPTY + compressed()).hdus[1]
    assert (hdu.kind, hdu.shape, hdu.dtype, hdu.lossy) == ("compressed", (8, 10), np.dtype(">i2"), False)
    assert check_fits(EMPTY + compressed(("ZBITPIX", -32), ("ZSCALE", 0.1))).hdus[1].lossy
    smooth = (("ZCMPTYPE", "HCOMPRESS_1"), ("ZNAME1", "SCALE"), ("ZVAL1", 2))
    assert check_fits(EMPTY + compressed(*smooth)).hdus[1].lossy


@pytest.mark.parametrize(
    ("cards", "keyword", "found"),
    [
        ([("ZCMPTYPE", "ZIPPED")], "ZCMPTYPE", "'ZIPPED'"),
        ([("ZCMPTYPE", "ABSENT")], "ZCMPTYPE", "no such card"),
        ([("ZBITPIX", 12)], "ZBITPIX", "12"),
        ([("ZNAXIS", 0)], "ZNAXIS", 0),
        ([("ZNAXIS", 9)], "ZNAXIS", 9),
        ([("ZNAXIS2", "ABSENT")], "ZNAXIS2", "no such card"),
        ([("ZNAXIS2", 9)], "NAXIS2", "8 rows"),
        ([("ZNAXIS2", -8)], "ZNAXIS2", -8),
        ([("ZTILE1", 0)], "ZTILE1", 0),
        ([("ZTILE1", 5)], "NAXIS2", "8 rows"),
        ([("TTYPE1", "PIXELS")], "TTYPE1", "variable-length columns ['PIXELS']"),
        ([("ZNAME1", "BLOCKSIZE"), ("ZVAL1", 7)], "ZVAL1", "7"),
        ([("ZNAME1", "BLOCKSIZE"), ("ZVAL1", 32), ("ZNAME2", "BYTEPIX"), ("ZVAL2", 3)], "ZVAL2", "3"),
        ([("ZBITPIX", -32), ("ZQUANTIZ", "MAGIC")], "ZQUANTIZ", "'MAGIC'"),
        ([("BSCALE", 0)], "BSCALE", "0"),
        ([("TFORM1", "1PB(12)"), ("TFORM1", "2J"), ], "TTYPE1", "variable-length columns []"),
    ],
)  # fmt: skip
def test_a_wrong_compressed_image_is_named(cards: list[tuple[str, object]], keyword: str, found: object) -> None:
    error = refused(EMPTY + compressed(*cards))
    assert (error.hdu, error.keyword, error.found) == (1, keyword, found)


def test_a_tile_bomb_is_refused() -> None:
    """One tile that declares gigabytes: every size in the header is consistent, only the ratio is not."""
    sides = [("ZNAXIS1", 20000), ("ZNAXIS2", 20000), ("ZTILE1", 20000), ("ZTILE2", 20000)]
    error = refused(EMPTY + compressed(*sides, tiles=1))
    assert error.keyword == "ZNAXIS1" and error.found == "800000000 bytes decoded from 20"
    assert check_fits(EMPTY + compressed(*sides, tiles=1), max_ratio=1e9).hdus[1].shape == (20000, 20000)
    assert refused(EMPTY + compressed(*sides, tiles=1), max_ratio=1e9, max_inflated=10**8).keyword == "ZNAXIS1"
