"""Arrays that are read by rows, wherever they lie: in memory, in an NPY or NPZ file, in an HDF5 file."""

from __future__ import annotations

import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError, need
from deepsky.gate import check_npy, check_npz, run_guarded

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError)  # what a broken member of an archive raises
UNIT = ("unit", "units", "bunit")  # attributes of an HDF5 array
HDF5 = (".h5", ".hdf5", ".hdf", ".he5")


@dataclass(frozen=True, eq=False)
class Held(ABC):
    """An array of which rows can be read; its `unit` is "" where it does not say one."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    unit: str = field(default="", kw_only=True)

    @abstractmethod
    def rows(self, at: np.ndarray) -> np.ndarray:
        """(n, ...) of the rows `at`, native-endian."""

    def whole(self) -> np.ndarray:
        """All rows."""
        return self.rows(np.arange(self.shape[0]))


@final
@dataclass(frozen=True, eq=False)
class InMemory(Held):
    """An array in memory; the mask of a masked array is kept."""

    data: np.ndarray = field(repr=False)

    def rows(self, at: np.ndarray) -> np.ndarray:
        """Rows of the array."""
        return _native(self.data[at])


@final
@dataclass(frozen=True, eq=False)
class InFile(Held):
    """An array of an NPY, NPZ or HDF5 file, opened anew in each process."""

    path: Path
    key: str
    stamp: int  # time of the file: one that was written anew is another

    def rows(self, at: np.ndarray) -> np.ndarray:
        """Rows of the array; of a compressed NPZ the whole array is inflated, once."""
        if self.path.suffix.lower() in HDF5:
            return _native(_hdf5_rows(_hdf5(self.path, self.stamp)[self.key], at))
        plain = self.path.suffix.lower() == ".npy"
        whole = _npy(self.path, self.stamp) if plain else _npz(self.path, self.key, self.stamp)
        return _native(np.asarray(whole[at]))


@final
@dataclass(frozen=True, eq=False)
class Joined(Held):
    """Arrays one after another, such as ``x_train`` and ``x_test``."""

    parts: tuple[Held, ...]

    def rows(self, at: np.ndarray) -> np.ndarray:
        """Rows of the parts, counted through."""
        starts = np.cumsum([0, *(p.shape[0] for p in self.parts)])
        which = np.searchsorted(starts, at, side="right") - 1
        out: np.ndarray | None = None
        for number in np.unique(which):
            here = which == number
            part = self.parts[number].rows(at[here] - starts[number])
            if out is None:
                out = np.empty((len(at), *part.shape[1:]), self.dtype)
            out[here] = part
        return np.empty((0, *self.shape[1:]), self.dtype) if out is None else out


def _native(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def in_memory(values: Any, name: str = "", file: object = None) -> InMemory:
    """An array, list, tensor or column of a table, with its unit where it has one.

    Raises
    ------
    InputError : a list, or a column of arrays, whose members differ in shape or unit.
    """
    units = [getattr(values, "unit", None)]
    if isinstance(values, list | tuple):
        units = list(dict.fromkeys(getattr(v, "unit", None) for v in values)) or units
    if len(units) > 1:
        raise InputError("members in different units", file=file, keyword=name or None, expected="one unit",
                         found=", ".join(str(v or "none") for v in units))  # fmt: skip
    data = plain(values)
    if data is None:
        data = _stacked(list(values), name, file)
    elif data.dtype.kind == "O" and data.ndim == 1 and any(cell_axes(v) for v in data):
        data = _stacked(data.tolist(), name, file)
    return InMemory(data.shape, data.dtype, data, unit="" if units[0] is None else str(units[0]))


def plain(values: Any) -> np.ndarray | None:
    """Values as a numpy array or masked array without a unit; None for a list of arrays of different shapes."""
    if (bare := getattr(values, "unmasked", None)) is not None:  # a masked quantity of astropy
        return np.ma.MaskedArray(np.asarray(bare), np.asarray(values.mask))
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.asarray(values)
    if isinstance(values, pa.Array | pa.ChunkedArray):
        values = values.to_pylist()
    try:
        return np.asarray(values)
    except ValueError:
        return None


def cell_axes(cell: Any) -> int:
    """Axes of one cell of a table: 0 for a number or a text, 2 for an image."""
    if isinstance(cell, list | tuple):
        return 1 + (cell_axes(cell[0]) if len(cell) else 0)
    return int(getattr(cell, "ndim", 0))


def _stacked(cells: list[Any], name: str, file: object) -> np.ndarray:
    """One array of many of one shape."""
    shapes: Counter[tuple[int, ...]] = Counter()
    parts = []
    for row, cell in enumerate(cells):
        one = plain(cell)
        if one is None or not cell_axes(cell):
            what = f"row {row + 1}: {'a list of unequal parts' if one is None else repr(cell)}"
            raise InputError("a row that holds no array", file=file, keyword=name or None, found=what,
                             expected="an array of the shape of the others", fix="leave these rows out")  # fmt: skip
        shapes[one.shape] += 1
        parts.append(one)
    if len(shapes) > 1:
        fix = "crop or pad them; or save each as a NPY file in one folder and open that with size=N, which does it"
        if len({s[:1] for s in shapes}) == 1 and len({len(s) for s in shapes}) > 1:
            fix = "name several arrays: {'images': ..., 'labels': ...}"
        raise InputError("arrays of different shapes", file=file, keyword=name or None, expected="one shape",
                         found=", ".join(f"{n:,} of {s}" for s, n in shapes.most_common(4)), fix=fix)  # fmt: skip
    return np.stack(parts) if not any(isinstance(p, np.ma.MaskedArray) for p in parts) else np.ma.stack(parts)


def joined(parts: list[Held], name: str, file: object) -> Joined:
    """Arrays one after another.

    Raises
    ------
    InputError : they differ in shape or unit.
    """
    if len({p.shape[1:] for p in parts}) > 1:
        raise InputError("arrays that belong together differ in shape", file=file, keyword=name,
                         found=", ".join(str(p.shape) for p in parts))  # fmt: skip
    if len({p.unit for p in parts}) > 1:
        raise InputError("arrays that belong together differ in unit", file=file, keyword=name,
                         found=", ".join(p.unit or "none" for p in parts))  # fmt: skip
    kind = np.result_type(*(p.dtype for p in parts)) if parts[0].dtype.kind in "biuf" else parts[0].dtype
    widest = max((p.dtype for p in parts), key=lambda d: d.itemsize)
    shape = (sum(p.shape[0] for p in parts), *parts[0].shape[1:])
    return Joined(shape, widest if parts[0].dtype.kind in "SU" else kind, tuple(parts), unit=parts[0].unit)


def arrays_of(path: Path) -> dict[str, Held]:
    """The arrays of an NPY, NPZ or HDF5 file by name, after the gate and without reading them.

    Raises
    ------
    InputError : the file is damaged, holds objects, or is of another kind.
    """
    last, stamp = path.suffix.lower(), path.stat().st_mtime_ns
    if last == ".npy":
        layout = check_npy(path)
        return {"images": InFile(layout.shape, layout.dtype, path, "", stamp)}
    if last == ".npz":
        found = check_npz(path)
        return {key: InFile(one.shape, one.dtype, path, key, stamp) for key, one in found.items()}
    if last not in HDF5:
        raise InputError("not a file of arrays", file=path, found=last, known=(".npy", ".npz", *HDF5))
    return _hdf5_arrays(path)


def _hdf5_arrays(path: Path) -> dict[str, Held]:
    """The arrays of an HDF5 file, which a child process has tried to read before this one does."""
    need("h5py", "hdf5")
    found = next(answer for _, answer in run_guarded(probe, [(str(path),)], workers=1))
    if isinstance(found, InputError):
        raise found
    if not found:
        raise InputError("the HDF5 file holds no array", file=path)
    stamp = path.stat().st_mtime_ns
    held = {n: InFile(shape, np.dtype(kind), path, n, stamp, unit=unit) for n, (shape, kind, unit) in found.items()}
    names = [n.rsplit("/", 1)[-1] for n in held]
    return {b if names.count(b) == 1 else n: one for (n, one), b in zip(held.items(), names, strict=True)}


def probe(file: str) -> dict[str, tuple[tuple[int, ...], np.dtype[Any], str]]:
    """Shape, type and unit of every array of an HDF5 file whose first and last row can be read; runs in a child.

    Text is of type object; what is neither numbers nor text (lists of different length, references) of type void.

    Raises
    ------
    InputError : the file cannot be opened, or an array not read.
    """
    h5py = need("h5py", "hdf5")
    found: dict[str, tuple[tuple[int, ...], np.dtype[Any], str]] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or not item.shape:
            return
        kind = np.dtype("V1") if item.dtype.kind == "O" else item.dtype
        text = h5py.check_string_dtype(item.dtype) is not None
        found[name] = item.shape, np.dtype("O") if text else kind, _hdf5_unit(item.attrs)
        if kind.kind != "V" and item.size:
            _ = item[0], item[-1]

    try:
        with h5py.File(file, "r") as handle:
            handle.visititems(visit)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"the HDF5 file cannot be read: {error}", file=file,
                         fix="download or write it again") from error  # fmt: skip
    return found


def _hdf5_unit(attributes: Mapping[str, Any]) -> str:
    """The unit of an array, "" where its attributes do not say one."""
    for name in attributes:
        if name.lower() in UNIT:
            told = attributes[name]
            told = told.reshape(-1)[0] if isinstance(told, np.ndarray) and told.size == 1 else told
            word = told.decode(errors="replace") if isinstance(told, bytes) else told
            return word.strip() if isinstance(word, str) else ""
    return ""


@lru_cache(maxsize=4)
def _hdf5(path: Path, stamp: int) -> Any:
    return need("h5py", "hdf5").File(path, "r")


def _hdf5_rows(dataset: Any, at: np.ndarray) -> np.ndarray:
    if dataset.dtype.kind == "O":
        dataset = dataset.asstr()
    if len(at) == 0:
        return np.asarray(dataset[:0])
    low, high = int(at.min()), int(at.max()) + 1
    if high - low <= 4 * len(at):  # one slice is far faster than a list of rows
        return np.asarray(np.asarray(dataset[low:high])[at - low])
    order, back = np.unique(at, return_inverse=True)
    return np.asarray(np.asarray(dataset[order])[back])


@lru_cache(maxsize=4)
def _npy(path: Path, stamp: int) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _damaged(path: Path, key: str) -> InputError:
    return InputError("the array was damaged after it was saved", file=path, keyword=key,
                      found="bytes that do not fit the checksum of the archive",
                      fix="download or save it again")  # fmt: skip


@lru_cache(maxsize=16)
def _sound(path: Path, key: str, stamp: int) -> bool:
    """Whether the bytes of an NPZ's member are those of its checksum, for which nobody asks when they are mapped."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
            while member.read(1 << 20):
                pass
    except DAMAGE:
        return False
    return True


@lru_cache(maxsize=4)
def _npz(path: Path, key: str, stamp: int) -> np.ndarray:
    """An array of an NPZ: mapped where it is stored as it is, else inflated.

    Raises
    ------
    InputError : the array is not what was saved.
    """
    with zipfile.ZipFile(path) as archive:
        names: Mapping[str, zipfile.ZipInfo] = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
        info = names[key]
        if info.compress_type != zipfile.ZIP_STORED:
            try:
                with archive.open(info) as member:
                    return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
            except DAMAGE as error:
                raise _damaged(path, key) from error
    if not _sound(path, key, stamp):
        raise _damaged(path, key)
    with path.open("rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
        file.seek(
            info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        )
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject or 0 in shape:
            return np.empty(shape, dtype)
        at = file.tell()
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", offset=at, shape=shape, order="F" if fortran else "C"))
