"""One tile of a native survey: arrays that grow by blocks under a temporary name, until the tile is whole."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepsky.errors import InputError, TrainingError
from deepsky.io import TEMPORARY, read_json, sha256, sync_folder, write_json, write_parquet
from deepsky.survey import Survey
from deepsky.units import checksums

ROWS, SUMS = "rows.parquet", "checksums.json"
Part = tuple[Mapping[str, np.ndarray], pa.Table]


@final
class _Growing:
    """An npy file that grows by blocks along its first axis."""

    def __init__(self, path: Path, like: np.ndarray) -> None:
        self._shape, self._dtype, self._count = like.shape[1:], like.dtype.newbyteorder("="), 0
        self._file = path.open("wb+")
        self._header()

    def _header(self) -> None:
        self._file.seek(0)
        shape = (self._count, *self._shape)
        head = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, head)  # of constant length: numpy pads the first axis

    def append(self, block: np.ndarray) -> None:
        """Add (n, ...) rows at the end."""
        if block.dtype != self._dtype:  # a cast here would be silent
            raise InputError("arrays of one survey differ in type", found=block.dtype, expected=self._dtype)
        if block.shape[1:] != self._shape:
            raise InputError("arrays of one survey differ in shape", found=block.shape[1:], expected=self._shape,
                             fix="give a size: --size N crops or pads every image to N pixels")  # fmt: skip
        self._file.seek(0, os.SEEK_END)
        self._file.write(np.ascontiguousarray(block, dtype=self._dtype).data)
        self._count += len(block)

    def close(self) -> None:
        """Write the final length and force it to the disk."""
        self._header()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def write_tile(folder: Path, parts: Iterable[Part], beside: Callable[[Path], None] | None = None) -> int:
    """Write one tile from its parts, and let it appear under its name when it is whole.

    Parameters
    ----------
    folder : of the tile; nothing is done where it exists already.
    parts : arrays by name (n, ...), with a table of n rows: id, ra, dec and scalar columns.
    beside : called with the folder after the last part, to write what else belongs to the tile.

    Returns
    -------
    How many objects it holds.

    Raises
    ------
    TrainingError : the disk is full; what was written before is whole.
    """
    if folder.exists():
        return int(pq.read_metadata(folder / ROWS).num_rows)
    try:
        return _write(folder, parts, beside)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise TrainingError(
            f"{folder}: no room to write it; the tiles before it are whole\n"
            f"  fix: free space in {folder.parent.resolve()} and run the same command again"
        ) from error


def _write(folder: Path, parts: Iterable[Part], beside: Callable[[Path], None] | None) -> int:
    draft = folder.with_name(TEMPORARY + folder.name)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    files: dict[str, _Growing] = {}
    tables = []
    try:
        for arrays, table in parts:
            if table.num_rows == 0:
                continue
            for name, block in arrays.items():
                if name not in files:
                    files[name] = _Growing(draft / f"{name}.npy", block)
                files[name].append(block)
            if "crc" not in table.column_names:
                table = table.append_column("crc", pa.array(checksums(arrays), pa.uint32()))
            tables.append(table)
    finally:
        for file in files.values():
            file.close()
    table = (
        pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({"id": pa.nulls(0, pa.string())})
    )
    write_parquet(draft / ROWS, table)
    write_json(draft / SUMS, {name: sha256(draft / f"{name}.npy") for name in sorted(files)})
    if beside is not None:
        beside(draft)
    sync_folder(draft)
    draft.rename(folder)
    sync_folder(folder.parent)
    return int(table.num_rows)


def verify(survey: Survey) -> Iterator[str]:
    """Compare every array with its checksum; yield the paths of those that differ or are missing."""
    for tile in survey.tiles:
        folder = survey.path / "tiles" / tile.name
        for name, expected in read_json(folder / SUMS).items():
            path = folder / f"{name}.npy"
            if not path.exists() or sha256(path) != expected:
                yield str(path)
