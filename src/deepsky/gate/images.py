"""A pure-Python look at PNG, JPEG and TIFF files: declared size and completeness, before a decoder sees them."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, final

from deepsky.gate.source import Place, Source, fix_for, open_bytes, sniff

Bytes = bytes | mmap.mmap

MAX_PIXELS = 89_478_485  # 256 MiB of RGB, Pillow's own limit
MAX_PAGES = 10_000
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers: the rest of the row are tables
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@final
@dataclass(frozen=True)
class ImageLayout:
    """What an image file declares.

    Parameters
    ----------
    file : its name.
    kind : 'PNG', 'JPEG' or 'TIFF'.
    shape : (y, x, channel) of the first page; one channel for grey and for palettes.
    bits : per channel, of the first page.
    pages : how many images the file holds (TIFF; else 1).
    """

    file: str
    kind: Literal["PNG", "JPEG", "TIFF"]
    shape: tuple[int, int, int]
    bits: int
    pages: int = 1


def check_image(source: Source, *, file: str | None = None, max_pixels: int = MAX_PIXELS) -> ImageLayout:
    """Look at an image file by its magic bytes and its declared size.

    Parameters
    ----------
    source : path, or the bytes of a file.
    file : the name to use in messages (default: the path).
    max_pixels : pixels above which a page counts as a decompression bomb.

    Raises
    ------
    InputError : another format, a size that is zero or beyond the limit, a header that contradicts itself, or a file
        that ends early.
    """
    with open_bytes(source, file) as (handle, size, place):
        head = handle.read(512)
        kind = sniff(head)
        if kind not in ("PNG", "JPEG", "TIFF", "BigTIFF"):
            expected, fix = "PNG, JPEG or TIFF", fix_for(kind, "PNG, JPEG or TIFF")
            raise place.refuse("not an image format that is read here", found=kind, expected=expected, fix=fix)
        with _mapped(source, handle, size) as data:
            try:
                if kind == "PNG":
                    return _png(data, place, max_pixels)
                if kind == "JPEG":
                    return _jpeg(data, place, max_pixels)
                return _tiff(data, place, max_pixels, kind == "BigTIFF")
            except (struct.error, IndexError) as error:
                raise _truncated(place, kind) from error


class _Mapped:
    """The file's bytes without reading them all; a context so that the map is closed."""

    def __init__(self, data: Bytes) -> None:
        self._data = data

    def __enter__(self) -> Bytes:
        return self._data

    def __exit__(self, *_: object) -> None:
        if isinstance(self._data, mmap.mmap):
            self._data.close()


def _mapped(source: Source, handle: BinaryIO, size: int) -> _Mapped:
    if isinstance(source, bytes):
        return _Mapped(source)
    if size <= 1 << 20:  # a small file is read faster than it is mapped
        handle.seek(0)
        return _Mapped(handle.read())
    return _Mapped(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))


def _truncated(place: Place, kind: str) -> Exception:
    return place.refuse(f"the {kind} file ends early", found="the end of the file", expected="its end mark")


def _check_pixels(place: Place, kind: str, width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1 or width * height > max_pixels:
        raise place.refuse(
            f"the {kind} file declares {'no pixels' if width * height == 0 else 'too many pixels'}",
            keyword="width x height",
            found=f"{width} x {height}",
            expected=f"1 to {max_pixels} pixels",
            fix="if you trust the file, raise max_pixels, or cut it into smaller images",
        )


def _png(data: Bytes, place: Place, max_pixels: int) -> ImageLayout:
    length, name, width, height, bits, colour, _, _, _, check = struct.unpack(">I4sIIBBBBBI", data[8:33])
    if name != b"IHDR" or length != 13 or zlib.crc32(data[12:29]) != check:
        raise place.refuse("the PNG header is damaged", keyword="IHDR", found=repr(name), expected="IHDR, intact")
    _check_pixels(place, "PNG", width, height, max_pixels)
    if bits not in _PNG_BITS.get(colour, ()):
        found = f"colour type {colour} with {bits} bits"
        raise place.refuse("no legal PNG pixel type", keyword="IHDR", found=found, expected="a legal pair")
    at, pixels = 33, False
    while True:
        length, name = struct.unpack(">I4s", data[at : at + 8])
        at += 12 + length
        if at > len(data):
            raise _truncated(place, "PNG")
        pixels |= name == b"IDAT"
        if name == b"IEND":
            break
    if not pixels:
        raise place.refuse("the PNG file holds no pixels", keyword="IDAT", found="no IDAT", expected="IDAT")
    return ImageLayout(place.file, "PNG", (height, width, _PNG_CHANNELS[colour]), bits)


def _jpeg(data: Bytes, place: Place, max_pixels: int) -> ImageLayout:
    at, layout = 2, None
    while True:
        if data[at] != 0xFF:
            found = f"byte {data[at]:#04x} at {at}"
            raise place.refuse("the JPEG markers are damaged", found=found, expected="a marker (0xff)")
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        if marker in (0xD9, 0xDA):
            break
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        if marker in _FRAMES:
            bits, height, width, channels = struct.unpack(">BHHB", data[at + 4 : at + 10])
            _check_pixels(place, "JPEG", width, height, max_pixels)
            layout = ImageLayout(place.file, "JPEG", (height, width, channels), bits)
        at += 2 + max(length, 2)
    if layout is None or marker == 0xD9:
        what = "frame header" if layout is None else "scan"
        raise place.refuse(f"the JPEG file has no {what}", found="none", expected="one before the pixels")
    if data.rfind(b"\xff\xd9", at) < 0:
        raise _truncated(place, "JPEG")
    return layout


def _tiff(data: Bytes, place: Place, max_pixels: int, big: bool) -> ImageLayout:
    order = "<" if data[:2] == b"II" else ">"
    if big and data[4:8] != struct.pack(order + "HH", 8, 0):
        raise place.refuse("the BigTIFF header is damaged", found=data[4:8].hex(), expected="offsets of 8")
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    seen: set[int] = set()
    first: ImageLayout | None = None
    while at:
        if at in seen or len(seen) >= MAX_PAGES:
            found = f"a directory at byte {at} again" if at in seen else f"more than {MAX_PAGES} pages"
            raise place.refuse("the TIFF directories do not end", found=found, expected="a chain that ends")
        seen.add(at)
        page = Place(place.file, f"page {len(seen) - 1}")
        tags, at = _directory(data, order, at, big, page)
        layout = _page(data, order, tags, page, max_pixels)
        first = first or ImageLayout(place.file, "TIFF", layout[0], layout[1])
    if first is None:
        raise place.refuse("the TIFF file holds no image", found="no directory", expected="one page")
    return ImageLayout(first.file, "TIFF", first.shape, first.bits, len(seen))


_Tags = dict[int, tuple[int, int, int]]


def _directory(data: Bytes, order: str, at: int, big: bool, place: Place) -> tuple[_Tags, int]:
    """({tag: (type, count, byte of the values)}, offset of the next directory)."""
    counter, entry, link, inline = ("Q", "HHQ", "Q", 8) if big else ("H", "HHI", "I", 4)
    (count,) = struct.unpack_from(order + counter, data, at)
    at += struct.calcsize(order + counter)
    step = struct.calcsize(order + entry) + inline
    if at + count * step > len(data):
        raise _truncated(place, "TIFF")
    tags: _Tags = {}
    for number in range(count):
        start = at + number * step
        tag, kind, length = struct.unpack_from(order + entry, data, start)
        where = start + step - inline
        size = _TIFF_SIZES.get(kind, 1) * length
        if size > inline:
            (where,) = struct.unpack_from(order + link, data, where)
        if where + size > len(data):
            raise _truncated(place, "TIFF")
        tags[tag] = (kind, length, where)
    (following,) = struct.unpack_from(order + link, data, at + count * step)
    return tags, following


def _values(data: Bytes, order: str, tags: _Tags, tag: int) -> Iterator[int]:
    kind, length, where = tags.get(tag, (0, 0, 0))
    code = _TIFF_INTEGERS.get(kind)
    if code is not None:
        size = struct.calcsize(code)
        for number in range(length):
            yield struct.unpack_from(order + code, data, where + number * size)[0]


def _page(data: Bytes, order: str, tags: _Tags, place: Place, max_pixels: int) -> tuple[tuple[int, int, int], int]:
    """((y, x, channel), bits) of one page, whose strips or tiles lie inside the file."""

    def single(tag: int, default: int) -> int:
        return next(_values(data, order, tags, tag), default)

    width, height = single(256, 0), single(257, 0)
    _check_pixels(place, "TIFF", width, height, max_pixels)
    channels, bits = single(277, 1), single(258, 1)
    if not 1 <= channels <= 4096 or not 1 <= bits <= 64 or width * height * channels > 4 * max_pixels:
        found = f"{channels} channels of {bits} bits"
        raise place.refuse("no usable TIFF pixel type", found=found, expected="1 to 64 bits, few channels")
    offsets, counts = (273, 279) if 273 in tags else (324, 325)
    kinds, numbers, _ = zip(tags.get(offsets, (0, 0, 0)), tags.get(counts, (0, 0, 0)), strict=True)
    most = channels * (height + (width // 16 + 1) * (height // 16 + 1))  # a strip has a row, a tile 16 x 16 pixels
    if not set(kinds) <= _TIFF_INTEGERS.keys() or numbers[0] != numbers[1] or not 1 <= numbers[0] <= most:
        found, expected = f"{numbers[0]} strips or tiles of {numbers[1]} lengths", f"1 to {most} of each"
        raise place.refuse("the TIFF page's pixels cannot be found", found=found, expected=expected)
    pairs = zip(_values(data, order, tags, offsets), _values(data, order, tags, counts), strict=True)
    if any(start + length > len(data) for start, length in pairs):
        raise _truncated(place, "TIFF")
    return (height, width, channels), bits
