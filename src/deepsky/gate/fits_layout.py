"""A pure-Python look at a FITS file: every HDU's geometry against the file's size, before any C code sees it.

The rules are those of the FITS standard 4.0, plus what readers in C are known to trust blindly: an absurd NAXIS,
tiles that do not fit their table, descriptors that point outside the heap, gzip bombs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

import numpy as np

from deepsky.gate.checksum import OnesSum, check_sums
from deepsky.gate.fits_header import BLOCK, Header, Value, integer, read_header, show
from deepsky.gate.fits_tables import LONGEST_ROW, Table, ascii_table, binary_table, check_scale
from deepsky.gate.fits_tiles import BITPIX, compressed_image
from deepsky.gate.source import CHUNK, DAMAGED, Place, Source, Stream, fix_for, open_bytes, open_stream, sniff

Sums = bool | Literal["data"]
Kind = Literal["image", "table", "compressed", "empty", "groups", "other"]
MAX_AXES = 8
FLOAT32_MAX = float(np.finfo(np.float32).max)


@final
@dataclass(frozen=True)
class FitsHdu:
    """One HDU as its header declares it, found consistent with the file.

    Parameters
    ----------
    index : number of the HDU, 0 is the primary.
    kind : 'image', 'compressed' (a tile-compressed image), 'table', 'empty' (no pixels), 'groups' (random groups),
        'other' (an extension of a type that is not in the standard).
    shape : of the image in numpy order (after decompression), or (rows,) of a table.
    dtype : of the stored pixels (big-endian; after decompression), or of one row of a table.
    offset, nbytes : where the data start and how many bytes they are, heap included, padding not; in a gzip'd file
        both count inflated bytes.
    name : EXTNAME in capitals; 'PRIMARY' for a primary HDU without one.
    header : keyword -> value (the first where repeated); COMMENT and HISTORY left out.
    lossy : the compression changed the pixel values (quantised floats, or HCOMPRESS with a scale).
    """

    index: int
    kind: Kind
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    nbytes: int
    name: str
    header: Mapping[str, Value] = field(repr=False)
    lossy: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """(BSCALE, BZERO): pixel value = BSCALE * stored + BZERO; 1 and 0 where the header has none."""
        return check_scale(self.header, Place("(header)", self.index), "BSCALE", "BZERO")


@final
@dataclass(frozen=True)
class FitsLayout:
    """What a FITS file holds.

    Parameters
    ----------
    file : its name.
    size : bytes of the FITS data, inflated.
    compression : of the file as a whole: '', 'gzip', 'bzip2' or 'xz'.
    hdus : the HDUs in order.
    """

    file: str
    size: int
    compression: str
    hdus: tuple[FitsHdu, ...]

    def images(self) -> tuple[FitsHdu, ...]:
        """The HDUs that hold pixels.

        Raises
        ------
        InputError : there is none.
        """
        found = tuple(hdu for hdu in self.hdus if hdu.kind in ("image", "compressed"))
        if not found:
            kinds = ", ".join(f"{hdu.index} {hdu.name or '(no name)'}: {hdu.kind}" for hdu in self.hdus)
            raise Place(self.file).refuse(
                "no HDU of the file holds an image",
                found=kinds,
                expected="a primary HDU, an IMAGE extension or a tile-compressed image with pixels",
                fix="give the image's own file, or read this one as a table",
            )
        return found


def check_fits(
    source: Source,
    *,
    file: str | None = None,
    checksums: Sums = False,
    max_header_blocks: int = 1000,
    max_inflated: int = 2 << 30,
    max_ratio: float = 200.0,
) -> FitsLayout:
    """Look at every header of a FITS file without touching C code, and hold what it declares against the file.

    Parameters
    ----------
    source : path, or the bytes of a file; plain, gzip'd, bzip2'd or xz'd.
    file : the name to use in messages (default: the path).
    checksums : also compare DATASUM and CHECKSUM, which reads all the data; "data" compares DATASUM alone, since an
        edited header is no damage.
    max_header_blocks : blocks of 2880 bytes after which a header must have ended.
    max_inflated : bytes that a compressed file, or one tile-compressed image, may decode to.
    max_ratio : inflated over compressed size, held above 64 MiB of inflated data only.

    Returns
    -------
    FitsLayout : the HDUs, with shapes, dtypes, offsets and headers.

    Raises
    ------
    InputError : anything about the file that no reader should be given.
    """
    with open_bytes(source, file) as (handle, size, place):
        stream, compression = open_stream(handle, size, place, max_inflated, max_ratio)
        first = stream.read(BLOCK)
        if not first.startswith(b"SIMPLE  ="):
            _refuse_format(first, compression, place)
        hdus: list[FitsHdu] = []
        while first:
            here = Place(place.file, len(hdus))
            header = read_header(stream, here, max_header_blocks, first)
            hdus.append(_hdu(header, here, stream, max_inflated, max_ratio, checksums))
            first = _next_block(stream, here)
        return FitsLayout(place.file, stream.position, compression, tuple(hdus))


def _refuse_format(first: bytes, compression: str, place: Place) -> None:
    kind = sniff(first) if first else "nothing"
    found = f"{kind} inside {compression}" if compression else kind
    raise place.refuse(
        "not a FITS file",
        keyword="SIMPLE",
        found=found,
        expected="a file that begins with 'SIMPLE  ='",
        fix=fix_for(kind, "FITS"),
    )


def _next_block(stream: Stream, place: Place) -> bytes:
    """The first block of the next HDU; b"" at the end of the file, behind which only fill is allowed."""
    block = stream.read(BLOCK)
    if block.startswith(b"XTENSION"):
        return block
    start = stream.position - len(block)
    while block:
        if block.strip(b"\0 \t\r\n"):
            raise place.refuse(
                "what follows this HDU is no HDU",
                keyword="XTENSION",
                found=f"{sniff(block)} at byte {start}",
                expected="an extension that begins with 'XTENSION=', or the end of the file",
                fix="a size in this HDU's header is wrong, or the file is damaged: write it again",
            )
        block = stream.read(CHUNK)
    return b""


def _hdu(header: Header, place: Place, stream: Stream, max_inflated: int, max_ratio: float, checksums: Sums) -> FitsHdu:
    values, index, offset = header.values, int(place.hdu or 0), stream.position
    extension = _extension(values, place)
    sides, bitpix, nbytes = _geometry(values, place, extension)
    if stream.size is not None and nbytes > stream.size - offset:
        raise _truncated(place, sides, bitpix, nbytes, stream.size - offset)
    kind: Kind = "image"
    shape, dtype, table, lossy = tuple(reversed(sides)), np.dtype(BITPIX[bitpix]), None, False
    if extension in ("BINTABLE", "A3DTABLE", "TABLE"):
        kind, table = "table", _table(values, place, extension, sides, bitpix)
        shape, dtype = (table.rows,), table.dtype
        if extension != "TABLE" and values.get("ZIMAGE") is True:
            kind, tiles = "compressed", compressed_image(values, place, table, nbytes, max_inflated, max_ratio)
            shape, dtype, lossy = tiles.shape, tiles.dtype, tiles.lossy
    elif extension not in ("", "IMAGE", "IUEIMAGE"):
        kind = "other"
    elif _is_groups(values, extension, sides):
        kind, shape = "groups", (integer(values, "GCOUNT", place, default=1),)
    if kind in ("image", "compressed", "groups"):
        _check_pixels(values, place, dtype)
    if kind == "image" and (not sides or 0 in sides):
        kind = "empty"
    missing = _walk_data(header, place, stream, table, nbytes, checksums)
    if missing > 0:  # known beforehand except in a compressed file
        raise _truncated(place, sides, bitpix, nbytes, nbytes - missing)
    name = values.get("EXTNAME")
    label = name.strip().upper() if isinstance(name, str) else ""
    return FitsHdu(index, kind, shape, dtype, offset, nbytes, label or ("PRIMARY" if not index else ""), values, lossy)


def _extension(values: Mapping[str, Value], place: Place) -> str:
    """The extension's type; '' for a primary HDU."""
    if place.hdu == 0:
        if values.get("SIMPLE") is not True:
            raise place.refuse(
                "the file does not claim to follow the FITS standard",
                keyword="SIMPLE",
                found=show(values.get("SIMPLE")),
                expected="T",
                fix="write the file again as standard FITS",
            )
        return ""
    kind = values.get("XTENSION")
    if not isinstance(kind, str) or not kind.strip():
        raise place.refuse("the extension's type cannot be read", keyword="XTENSION", found=show(kind), expected="text")
    return kind.strip()


def _is_groups(values: Mapping[str, Value], extension: str, sides: list[int]) -> bool:
    return extension == "" and values.get("GROUPS") is True and len(sides) > 0 and sides[0] == 0


def _geometry(values: Mapping[str, Value], place: Place, extension: str) -> tuple[list[int], int, int]:
    """(sides in FITS order, BITPIX, bytes of data without padding)."""
    bitpix = values.get("BITPIX")
    if type(bitpix) is not int or bitpix not in BITPIX:
        found = show(bitpix) if "BITPIX" in values else "no such card"
        expected = "one of " + ", ".join(map(str, BITPIX))
        raise place.refuse("no legal BITPIX", keyword="BITPIX", found=found, expected=expected)
    axes = integer(values, "NAXIS", place, high=999)
    if axes > MAX_AXES:
        raise place.refuse(
            "more axes than readers can take",
            keyword="NAXIS",
            found=axes,
            expected=f"an integer from 0 to {MAX_AXES} (up to 999 is legal, but makes some readers crash)",
            fix="drop axes of length 1 and write the file again",
        )
    sides = [integer(values, f"NAXIS{n}", place) for n in range(1, axes + 1)]
    groups = _is_groups(values, extension, sides)
    plain = extension in ("", "IMAGE", "IUEIMAGE") and not groups
    extra = integer(values, "PCOUNT", place, high=0 if plain else None, default=0)
    repeats = integer(values, "GCOUNT", place, low=0 if groups else 1, high=1 if plain else None, default=1)
    pixels = math.prod(sides[1:] if groups else sides, start=min(axes, 1))
    return sides, bitpix, abs(bitpix) // 8 * repeats * (extra + pixels) if axes else 0


def _truncated(place: Place, sides: list[int], bitpix: int, nbytes: int, left: int) -> Exception:
    """The refusal of data that end early; data far beyond the file point to the header instead."""
    absurd = nbytes > 1000 * max(left, BLOCK)
    if absurd:
        problem = "the header declares far more data than the file holds"
    else:
        problem = f"the file is truncated: {nbytes - left} bytes of data are missing"
    return place.refuse(
        problem,
        keyword="NAXIS",
        found=f"{left} bytes of data",
        expected=f"{nbytes} bytes: sides {' x '.join(map(str, sides))} with BITPIX {bitpix}",
        fix="the NAXISn cards are wrong, or the file is no image: write it again" if absurd else DAMAGED,
    )


def _table(values: Mapping[str, Value], place: Place, extension: str, sides: list[int], bitpix: int) -> Table:
    for keyword, found, expected in (("BITPIX", bitpix, 8), ("NAXIS", len(sides), 2)):
        if found != expected:
            raise place.refuse("no legal table", keyword=keyword, found=found, expected=expected)
    integer(values, "GCOUNT", place, low=1, high=1, default=1)
    width, heap = integer(values, "NAXIS1", place, high=LONGEST_ROW), integer(values, "PCOUNT", place, default=0)
    if extension == "TABLE":
        return ascii_table(values, place, sides[1], width)
    return binary_table(values, place, sides[1], width, heap)


def _check_pixels(values: Mapping[str, Value], place: Place, dtype: np.dtype[Any]) -> None:
    """BSCALE and BZERO finite, and the scaled values representable; BLANK an integer."""
    scale, zero = check_scale(values, place, "BSCALE", "BZERO")
    if dtype.kind == "f":
        return
    blank = values.get("BLANK", 0)
    if type(blank) is not int:
        expected = "an integer, the stored value of unmeasured pixels"
        raise place.refuse("BLANK matches no pixel", keyword="BLANK", found=show(blank), expected=expected)
    if (scale, zero) == (1.0, 0.0):
        return
    span = 2.0 ** (8 * dtype.itemsize) - 1
    low = zero + scale * (0.0 if dtype.itemsize == 1 else -(span + 1) / 2)
    largest = max(abs(low), abs(low + scale * span))
    if not largest < FLOAT32_MAX:
        raise place.refuse(
            "the scaled pixel values overflow float32",
            keyword="BSCALE",
            found=f"BSCALE = {scale:g}, BZERO = {zero:g}: values up to {largest:g}",
            expected=f"values below {FLOAT32_MAX:g}",
            fix="correct BSCALE and BZERO in the header",
        )
    levels = abs(scale) * span / float(np.spacing(np.float32(largest)))
    if levels < 255:
        raise place.refuse(
            "the scaled pixel values are not representable in float32: the offset swallows them",
            keyword="BZERO",
            found=f"BSCALE = {scale:g}, BZERO = {zero:g}: {span + 1:.0f} stored values become {levels + 1:.0f}",
            expected="at least 256 distinct values",
            fix="correct BSCALE and BZERO in the header, or subtract the offset before writing",
        )


def _walk_data(header: Header, place: Place, stream: Stream, table: Table | None, nbytes: int, checksums: Sums) -> int:
    """Pass over one HDU's data, descriptors checked and sums taken; how many bytes are missing at the end.

    Zero or less is whole: the padding of the last HDU may be missing, data may not.
    """
    wanted_sums = ("DATASUM",) if checksums == "data" else ("DATASUM", "CHECKSUM")
    total = OnesSum() if checksums and any(k in header.values for k in wanted_sums) else None
    left = nbytes
    if table is not None and table.pointers and table.rows:
        width = table.dtype.itemsize
        step = max(1, CHUNK // width)
        for start in range(0, table.rows, step):
            wanted = min(step, table.rows - start) * width
            data = stream.read(wanted)
            left -= len(data)
            if len(data) < wanted:
                return left
            rows = np.frombuffer(data, np.uint8).reshape(-1, width)
            for pointer in table.pointers:
                pointer.check(rows, start, table.heap_bytes, place)
            if total is not None:
                total.add(data)
    padding = -nbytes % BLOCK
    if total is None:
        left -= stream.skip(left + padding)
    else:
        while left > -padding and (data := stream.read(min(CHUNK, left + padding))):
            total.add(data)
            left -= len(data)
    if total is not None and left <= 0:
        check_sums(header.values, header.raw, total, place, whole=checksums is True)
    return left
