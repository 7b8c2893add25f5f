"""Bytes from outside: what they look like, and a forward reader that inflates within limits."""

from __future__ import annotations

import bz2
import codecs
import io
import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import BinaryIO, Protocol, final

from deepsky.errors import InputError

CHUNK = 1 << 18
RATIO_FLOOR = 64 << 20  # bytes; a smaller mask of zeros compresses a thousandfold and does no harm
XZ_MEMORY = 256 << 20
DAMAGED = "the file is damaged or was not written as it should be: download or write it again"

Source = str | os.PathLike[str] | bytes

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"SIMPLE  =", "FITS"),
    (b"XTENSION=", "a FITS extension without its primary HDU"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x1f\x9d", "Unix compress (.Z)"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7-zip"),
    (b"Rar!", "RAR"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "BigTIFF"),
    (b"MM\x00+", "BigTIFF"),
    (b"GIF8", "GIF"),
    (b"\x93NUMPY", "NPY"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"PAR1", "Parquet"),
    (b"%PDF", "PDF"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)
_FIXES = {
    "HTML": "the server sent a web page in place of the file: open it in a browser, then download the file again",
    "a Git LFS pointer": "run `git lfs pull`, which fetches the file itself",
    "a FITS extension without its primary HDU": "write the file again with a primary HDU before the extension",
    "zip": "unzip it first",
    "Unix compress (.Z)": "decompress it first: `gunzip FILE.Z`",
    "xz": "decompress it first: `xz -d FILE`",
    "a Python pickle": "save the arrays with numpy.savez instead; a pickle can run any code and is never opened",
}
ENCODED = {  # texts that are no UTF-8, and what helps
    "UTF-16 text": "convert it to UTF-8: iconv -f UTF-16 -t UTF-8 OLD.csv > NEW.csv, or save it anew as UTF-8",
    "text that is not UTF-8": "convert it to UTF-8, from Cyrillic e.g. iconv -f CP1251 -t UTF-8 OLD.csv > NEW.csv",
}


def sniff(head: bytes) -> str:
    """What a file's first bytes look like, in words ('FITS', 'gzip', 'PNG', 'HTML', 'text', ...).

    Parameters
    ----------
    head : the first bytes of the file; 512 are enough.
    """
    if not head:
        return "an empty file"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[257:262] == b"ustar":
        return "tar"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    if start.startswith(b"<?xml") or start.startswith(b"<votable"):
        return "VOTable (XML)" if b"<votable" in head.lower() else "XML"
    if not head.strip(b"\0"):
        return "zero bytes only"
    return _text(head[:512])


def _text(head: bytes) -> str:
    """Which kind of text, if any: every language in UTF-8; in another encoding a few letters with accents."""
    for mark, zeros in ((codecs.BOM_UTF16_LE, 1), (codecs.BOM_UTF16_BE, 0)):
        plain = not any(head[zeros::2]) and _printable(head[1 - zeros :: 2])  # every second byte is zero
        if head.startswith(mark) or (plain and len(head) > 8):
            return "UTF-16 text"
    if not _printable(head):
        return "unknown binary data"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # whose end may lie inside a letter
    except UnicodeDecodeError:
        return "text" if sum(byte >= 128 for byte in head) <= len(head) // 3 else "text that is not UTF-8"
    return "text"


def _printable(head: bytes) -> bool:
    return all(byte in b"\t\n\r\f" or 32 <= byte < 127 or byte >= 128 for byte in head)


def fix_for(kind: str, wanted: str) -> str:
    """The fix when a file of `kind` stands where `wanted` is expected."""
    return _FIXES.get(kind, f"give a {wanted} file, or name the right reader for {kind}")


@final
@dataclass(frozen=True)
class Place:
    """Where a check stands: the file's name, and the HDU, member or page inside it."""

    file: str
    hdu: int | str | None = None

    def refuse(
        self,
        problem: str,
        *,
        keyword: str | None = None,
        found: object = None,
        expected: object = None,
        known: tuple[str, ...] | None = None,
        fix: str | None = None,
    ) -> InputError:
        """An `InputError` at this place, to be raised by the caller; without a better fix, to get the file anew."""
        if fix is None and not (known and get_close_matches(str(found), known, n=1)):
            fix = DAMAGED
        return InputError(
            problem,
            file=self.file,
            hdu=self.hdu,
            keyword=keyword,
            found=found,
            expected=expected,
            known=known,
            fix=fix,
        )


class Stream(Protocol):
    """Bytes read forward: `read` returns fewer than asked only at the end."""

    position: int
    size: int | None

    def read(self, count: int) -> bytes: ...

    def skip(self, count: int) -> int: ...


@final
class Plain:
    """A stream over an open file whose size is known."""

    size: int | None

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._handle, self._end = handle, size
        self.size, self.position = size, 0

    def read(self, count: int) -> bytes:
        data = self._handle.read(count)
        self.position += len(data)
        return data

    def skip(self, count: int) -> int:
        step = min(count, self._end - self.position)
        self.position += step
        self._handle.seek(self.position)
        return step


@final
class Inflating:
    """A stream over gzip, bzip2 or xz bytes that stops at a size or a ratio that no honest file has."""

    def __init__(self, handle: BinaryIO, kind: str, place: Place, max_inflated: int, max_ratio: float) -> None:
        self._handle, self._kind, self._place = handle, kind, place
        self._max_inflated, self._max_ratio = max_inflated, max_ratio
        self._decoder = _Decoder(kind)
        self._input, self._eaten, self._made = b"", 0, 0
        self._buffer, self._at = b"", 0
        self.position = 0
        self.size: int | None = None

    def read(self, count: int) -> bytes:
        parts, left = [], count
        while left and (data := self._some(left)):
            parts.append(data)
            left -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def skip(self, count: int) -> int:
        left = count
        while left and (data := self._some(left)):
            left -= len(data)
        return count - left

    def _some(self, limit: int) -> bytes:
        if self._at >= len(self._buffer):
            try:
                self._buffer, self._at = self._pull(), 0
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise self._place.refuse(
                    f"the {self._kind} stream is damaged after {self._made} inflated bytes",
                    found=str(error),
                    expected=f"a whole {self._kind} stream",
                    fix="download the file again",
                ) from error
        data = self._buffer[self._at : self._at + limit]
        self._at += len(data)
        self.position += len(data)
        return data

    def _pull(self) -> bytes:
        """The next inflated bytes, at most CHUNK; b"" at the end of the last member."""
        while True:
            if self._decoder.eof:
                # members may follow one another, and zero padding may follow the last
                rest = (self._decoder.unused_data or self._feed()).lstrip(b"\0")
                while not rest and (more := self._feed()):
                    rest = more.lstrip(b"\0")
                if not rest:
                    return b""
                self._decoder, self._input = _Decoder(self._kind), rest
            data = self._input or (self._feed() if self._decoder.hungry else b"")
            starved = not data and self._decoder.hungry
            out, self._input = self._decoder.decompress(data)
            if out:
                self._made += len(out)
                self._check_limits()
                return out
            if starved and not self._decoder.eof:
                raise EOFError("the stream ends before its end mark")

    def _feed(self) -> bytes:
        data = self._handle.read(CHUNK >> 2)
        self._eaten += len(data)
        return data

    def _check_limits(self) -> None:
        ratio = self._made / max(self._eaten, 1)
        if self._made > self._max_inflated:
            found, expected = f"more than {self._max_inflated} inflated bytes", f"at most {self._max_inflated}"
        elif self._made > RATIO_FLOOR and ratio > self._max_ratio:
            found = f"{self._made} bytes inflated from {self._eaten}, a ratio of {ratio:.0f}"
            expected = f"a ratio of at most {self._max_ratio:g}"
        else:
            return
        raise self._place.refuse(
            f"the {self._kind} file inflates beyond the limit (a decompression bomb?)",
            found=found,
            expected=expected,
            fix="if you trust the file, decompress it yourself and give the decompressed file",
        )


@final
class _Decoder:
    """One face for the decoders of zlib, bz2 and lzma, whose ways of limiting the output differ."""

    def __init__(self, kind: str) -> None:
        self._zlib = zlib.decompressobj(wbits=31) if kind == "gzip" else None
        self._other: bz2.BZ2Decompressor | lzma.LZMADecompressor = (
            lzma.LZMADecompressor(memlimit=XZ_MEMORY) if kind == "xz" else bz2.BZ2Decompressor()
        )

    @property
    def eof(self) -> bool:
        return self._other.eof if self._zlib is None else self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._other.unused_data if self._zlib is None else self._zlib.unused_data

    @property
    def hungry(self) -> bool:
        return self._other.needs_input if self._zlib is None else True

    def decompress(self, data: bytes) -> tuple[bytes, bytes]:
        """(inflated bytes, input that was not used yet)."""
        if self._zlib is None:
            return self._other.decompress(data, CHUNK), b""
        out = self._zlib.decompress(data, CHUNK)
        return out, self._zlib.unconsumed_tail


@contextmanager
def open_bytes(source: Source, file: str | None = None) -> Iterator[tuple[BinaryIO, int, Place]]:
    """Open a regular file or bytes in memory: (handle, size in bytes, place).

    Raises
    ------
    InputError : no such file, not a regular file (a directory, a pipe, a device), not readable, or empty.
    """
    if isinstance(source, bytes):
        place = Place(file or "(bytes in memory)")
        handle: BinaryIO = io.BytesIO(source)
        size = len(source)
    else:
        place = Place(file or os.fspath(source))
        try:
            # opening a pipe would wait for ever, so look before opening
            status = os.stat(source)
            if not stat.S_ISREG(status.st_mode):
                kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
                raise place.refuse("cannot be read as a file", found=kind, expected="a regular file")
            handle, size = open(source, "rb"), status.st_size  # noqa: SIM115
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise place.refuse("cannot be opened", found=reason, fix="check the path and its permissions") from error
    with handle:
        if size == 0:
            raise place.refuse(
                "the file is empty", found="0 bytes", expected="at least one byte", fix="download the file again"
            )
        yield handle, size, place


def open_stream(handle: BinaryIO, size: int, place: Place, max_inflated: int, max_ratio: float) -> tuple[Stream, str]:
    """A forward stream of a FITS file and its outer compression ('', 'gzip', 'bzip2', 'xz')."""
    head = handle.read(16)
    handle.seek(0)
    kind = sniff(head)
    if kind in ("gzip", "bzip2", "xz"):
        return Inflating(handle, kind, place, max_inflated, max_ratio), kind
    return Plain(handle, size), ""
