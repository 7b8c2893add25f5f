"""A look at NPY and NPZ files: the header parsed without pickle, the declared size against the file."""

from __future__ import annotations

import ast
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, final

import numpy as np
from numpy.lib import format as npy_format

from deepsky.errors import InputError
from deepsky.gate.source import RATIO_FLOOR, Place, Source, fix_for, open_bytes, sniff

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 100_000
MAX_MEMBERS = 100_000
_OBJECTS = ("save numbers, not objects: numpy.save(path, numpy.asarray(values, dtype=float)), text with dtype=str, "
            "or one array per shape")  # fmt: skip


@final
@dataclass(frozen=True)
class ArrayLayout:
    """What an NPY array declares.

    Parameters
    ----------
    shape, dtype : of the array.
    fortran : whether it is stored in Fortran order.
    offset : where its bytes start in the file (in an NPZ: in the inflated member).
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def check_npy(source: Source, *, file: str | None = None) -> ArrayLayout:
    """Look at an NPY file.

    Raises
    ------
    InputError : no NPY file, a header that cannot be read, objects (which need pickle, and pickle runs code), or a
        file longer or shorter than the array.
    """
    with open_bytes(source, file) as (handle, size, place):
        return _layout(handle, size, place)


def _layout(handle: BinaryIO, size: int, place: Place) -> ArrayLayout:
    """The layout of an NPY stream of `size` bytes."""
    head = handle.read(12)
    if not head.startswith(MAGIC):
        kind = sniff(head + handle.read(500))
        raise place.refuse("not an NPY file", found=kind, expected="NPY", fix=fix_for(kind, "NPY"))
    version = tuple(head[6:8])
    if version not in ((1, 0), (2, 0), (3, 0)):
        found, expected = f"version {version}", "1.0, 2.0 or 3.0"
        raise place.refuse("no known version of NPY", keyword="version", found=found, expected=expected)
    start, code = (10, "<H") if version == (1, 0) else (12, "<I")
    if len(head) < start:
        raise place.refuse("the NPY header is cut off", found=f"{size} bytes", expected="a header")
    (length,) = struct.unpack(code, head[8:start])
    if length > min(LONGEST_HEADER, size - start):
        expected = f"at most {min(LONGEST_HEADER, size - start)}"
        raise place.refuse("the NPY header is too long", found=f"{length} bytes", expected=expected)
    text = head[start:] + handle.read(length - (len(head) - start))
    shape, dtype, fortran = _parse(text[:length].decode("utf-8" if version == (3, 0) else "latin-1", "replace"), place)
    layout = ArrayLayout(shape, dtype, fortran, start + length)
    if layout.nbytes != size - layout.offset:
        missing = layout.nbytes - (size - layout.offset)
        raise place.refuse(
            f"the file is truncated: {missing} bytes of data are missing"
            if missing > 0
            else f"{-missing} bytes follow the array",
            keyword="shape",
            found=f"{size - layout.offset} bytes of data",
            expected=f"{layout.nbytes} bytes: shape {shape}, dtype {dtype}",
        )
    return layout


def _parse(text: str, place: Place) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    try:
        header = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise place.refuse("the NPY header cannot be read", found=repr(text[:80]), expected="a dictionary") from error
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        expected = "a dictionary of descr, fortran_order and shape"
        raise place.refuse("the NPY header cannot be read", found=repr(text[:80]), expected=expected)
    shape, fortran = header["shape"], header["fortran_order"]
    sides = shape if isinstance(shape, tuple) else ()
    if not isinstance(shape, tuple) or len(shape) > 32 or any(type(n) is not int or n < 0 for n in sides):
        expected = "a tuple of integers >= 0"
        raise place.refuse("no legal shape", keyword="shape", found=repr(shape)[:80], expected=expected)
    if not isinstance(fortran, bool):
        raise place.refuse(
            "no legal order", keyword="fortran_order", found=repr(fortran)[:80], expected="True or False"
        )
    try:
        dtype: np.dtype[Any] = npy_format.descr_to_dtype(header["descr"])
    except Exception as error:  # numpy raises whatever the description happens to trip over
        found, expected = repr(header["descr"])[:80], "a numpy dtype"
        raise place.refuse("no known dtype", keyword="descr", found=found, expected=expected) from error
    if dtype.hasobject:
        raise place.refuse(
            "the array holds Python objects, which only pickle can read, and a pickle can run any code",
            keyword="descr",
            found=f"dtype {dtype}",
            expected="numbers",
            fix=_OBJECTS,
        )
    return shape, dtype, fortran


def check_npz(
    source: Source, *, file: str | None = None, max_inflated: int = 2 << 30, max_ratio: float = 200.0
) -> Mapping[str, ArrayLayout]:
    """Look at an NPZ file: {array name: layout}.

    Parameters
    ----------
    max_inflated : bytes that all arrays together may inflate to.
    max_ratio : inflated over stored size, held above 64 MiB only.

    Raises
    ------
    InputError : no zip file, a damaged or encrypted one, two arrays of one name, a member that is no NPY array, or
        more inflated bytes than the limits allow.
    """
    with open_bytes(source, file) as (handle, size, place):
        kind = sniff(handle.read(512))
        if kind != "zip":
            raise place.refuse("not an NPZ file", found=kind, expected="NPZ (a zip)", fix=fix_for(kind, "NPZ"))
        try:
            with zipfile.ZipFile(handle) as archive:
                members = archive.infolist()
                _check_members(members, size, place, max_inflated, max_ratio)
                return {member.filename.removesuffix(".npy"): _member(archive, member, place) for member in members}
        except InputError:
            raise
        except Exception as error:  # zipfile raises a dozen kinds on damaged archives
            raise place.refuse("the NPZ file cannot be opened", found=str(error), expected="a whole zip") from error


def _check_members(
    members: list[zipfile.ZipInfo], size: int, place: Place, max_inflated: int, max_ratio: float
) -> None:
    names = [member.filename for member in members]
    total = sum(member.file_size for member in members)
    if not members or len(names) > MAX_MEMBERS:
        found, expected = f"{len(names)} members", f"1 to {MAX_MEMBERS}"
        raise place.refuse("the NPZ file holds no usable arrays", found=found, expected=expected)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise place.refuse("two arrays have one name", found=twice, expected="unique names", fix="save it again")
    if total > max_inflated or (total > RATIO_FLOOR and total > max_ratio * size):
        raise place.refuse(
            "the NPZ file inflates beyond the limit (a decompression bomb?)",
            found=f"{total} bytes from {size}",
            expected=f"at most {max_inflated} bytes and a ratio of at most {max_ratio:g}",
            fix="if you trust the file, unzip it and give the NPY files",
        )


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: Place) -> ArrayLayout:
    inside = Place(place.file, member.filename)
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        found = "encrypted" if member.flag_bits & 1 else f"compression {member.compress_type}"
        raise inside.refuse(
            "the array cannot be unpacked", found=found, expected="stored or deflated", fix="save it again"
        )
    with archive.open(member) as stream:
        return _layout(stream, member.file_size, inside)  # type: ignore[arg-type]
