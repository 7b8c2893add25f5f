"""Survey: objects in native form, with tiles, folds and labels, read by one vectorised gather.

A native survey is a folder::

    schema.json        what it holds (deepsky.schema), with an integer format version
    index.parquet      id, key, ra, dec, tile, row, group, fold and the scalar columns, in the order of the tiles
    tiles/TILE/NAME.flux.npy, .ivar.npy, .psf.npy, truth.NAME.npy     raw and memory-mapped
    labels/            a layer of its own (deepsky.labels)
    rejected.parquet   what was set aside, and why
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from deepsky import labels as label_layer
from deepsky.constants import SURVEY_FORMAT
from deepsky.errors import InputError
from deepsky.expressions import mask
from deepsky.io import read_json, read_parquet
from deepsky.sample import Image, Observation, Row, Sample, Truth
from deepsky.schema import Column, ImageSchema, RowSchema, Schema

FOLDS = ("train", "valid", "calib", "test")


@dataclass(frozen=True)
class Tile:
    """A HEALPix cell or a shard: the unit of reading, of a resumable prediction, and of work for a cluster."""

    name: str
    start: int
    count: int


@lru_cache(maxsize=512)
def _memory_map(path: str, stamp: tuple[int, int]) -> np.ndarray:
    # np.asarray drops the memmap subclass: indexing it is several times slower than a plain array
    return np.asarray(np.load(path, mmap_mode="r"))


def release() -> None:
    """Let go of all arrays that are mapped into memory: what was read counts no longer as this process's memory."""
    _memory_map.cache_clear()


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the rows of a batch lie: for each tile its folder, which of the batch it holds, and their rows in it."""

    count: int
    stamp: tuple[int, int]
    pieces: list[tuple[str, slice | np.ndarray, np.ndarray]]


def _floats(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).float()


@dataclass(frozen=True, eq=False)
class Survey:
    """Objects of a native survey, or a selection of them.

    Attributes
    ----------
    path : the folder.
    schema : what it holds, the label columns included.
    tiles : of the whole folder, whatever the selection.
    index : one row an object of the selection.
    rows : (n,) int64, their rows in the whole folder.
    selection : how this selection was made, in words.
    """

    path: Path
    schema: Schema
    tiles: tuple[Tile, ...]
    index: pa.Table
    rows: np.ndarray
    selection: str = ""
    whole: Survey | None = field(default=None, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Survey:
        """Open a native survey.

        Raises
        ------
        InputError : `path` is no native survey, is unfinished, or is of a newer format.
        """
        path = Path(path)
        if (path / "plan.json").is_file() and not (path / "schema.json").is_file():
            raise InputError("an unfinished survey", file=path, expected="schema.json, which is written last",
                             fix="run the command that began it again: it goes on from there")  # fmt: skip
        if not (path / "schema.json").is_file():
            raise InputError(
                "not a native survey",
                file=path,
                expected="a folder with schema.json and index.parquet",
                fix=f"deepsky ingest {path} --to NEW",
            )
        data = read_json(path / "schema.json")
        if data.pop("format") > SURVEY_FORMAT:
            raise InputError(
                "written by a newer deepsky",
                file=path,
                expected=f"format {SURVEY_FORMAT} or older",
                fix="pip install --upgrade deepsky",
            )
        tiles, start = [], 0
        for name, count in data.pop("tiles"):
            tiles.append(Tile(name, start, count))
            start += count
        schema = Schema.from_json({k: v for k, v in data.items() if k != "hash"})
        index = read_parquet(path / "index.parquet")
        if index.num_rows != start:
            raise InputError(
                "the index and the tiles disagree",
                file=path,
                found=f"{index.num_rows} rows",
                expected=f"{start}",
                fix="ingest it again",
            )
        survey = cls(path, schema, tuple(tiles), index, np.arange(start, dtype=np.int64))
        return survey.with_columns(*label_layer.joined(path, index["id"]))

    # -- what it is ---------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self.rows)

    @property
    def name(self) -> str:
        """Of the survey, with the selection."""
        return f"{self.schema.name}[{self.selection}]" if self.selection else self.schema.name

    @cached_property
    def hash(self) -> str:
        """Of what the folder holds, written when it was made."""
        return str(read_json(self.path / "schema.json")["hash"])

    @cached_property
    def id(self) -> np.ndarray:
        """(n,) names of the objects."""
        return np.asarray(self.index["id"].to_pylist(), dtype=object)

    @cached_property
    def key(self) -> np.ndarray:
        """(n,) uint64 stable hashes of the ids."""
        key: np.ndarray = self.index["key"].to_numpy()
        return key

    def column(self, name: str) -> np.ndarray:
        """(n,) values of a column; text as objects, numbers with NaN where there is none.

        Raises
        ------
        InputError : there is no such column.
        """
        if name not in self._columns:
            if name not in self.index.column_names:
                raise InputError("no such column", found=name, known=self.index.column_names)
            column = self.index[name]
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            self._columns[name] = np.asarray(column.to_pylist(), object) if text else column.to_numpy()
        return self._columns[name]

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:  # a gather must not convert the whole index each time
        return {}

    @cached_property
    def _codes(self) -> dict[str, np.ndarray]:
        return {}

    # -- selections ---------------------------------------------------------------------------------------
    def select(self, positions: np.ndarray | Sequence[int], selection: str) -> Survey:
        """The objects at `positions` of this selection, in that order."""
        at = np.asarray(positions)
        at = np.flatnonzero(at) if at.dtype == bool else at.astype(np.int64)
        words = f"{self.selection}, {selection}" if self.selection else selection
        return replace(self, index=self.index.take(at), rows=self.rows[at], selection=words, whole=self.whole or self)

    def where(self, expression: str) -> Survey:
        """The objects for which an expression such as ``"mag > 22 & fwhm > 1"`` holds."""
        return self.select(mask(expression, {n: self.column(n) for n in self.index.column_names}), expression)

    def fold(self, name: str) -> Survey:
        """The objects of one fold: train, valid, calib or test.

        Raises
        ------
        InputError : the survey has no folds, or none of that name.
        """
        if "fold" not in self.index.column_names:
            raise InputError("this survey has no folds", file=self.path, fix=f"deepsky split {self.path}")
        here = self.column("fold")
        if name not in set(here):
            raise InputError("no object is in that fold", found=name, known=sorted(set(map(str, here))))
        return self.select(here == name, name)

    def with_columns(self, table: Mapping[str, np.ndarray | pa.Array], columns: Mapping[str, Column]) -> Survey:
        """Add columns that are aligned with this selection, e.g. labels; the folder stays as it is."""
        index = self.index
        for name, values in table.items():
            new = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
            if name in index.column_names:
                index = index.drop_columns([name])
            index = index.append_column(name, new)
        schema = replace(self.schema, columns={**self.schema.columns, **columns})
        return replace(self, index=index, schema=schema)

    # -- reading ------------------------------------------------------------------------------------------
    def read(self, tile: Tile) -> Sample:
        """All objects of this selection that lie in one tile."""
        return self.gather(self.in_tile(tile))

    def in_tile(self, tile: Tile) -> np.ndarray:
        """Positions in this selection of the objects of one tile."""
        return np.flatnonzero((self.rows >= tile.start) & (self.rows < tile.start + tile.count))

    def gather(
        self,
        positions: np.ndarray | Sequence[int] | slice,
        truth: Sequence[str] | None = None,
        observations: Sequence[str] | None = None,
    ) -> Sample:
        """Read the objects at `positions` as one batch.

        Parameters
        ----------
        positions : in this selection, in any order.
        truth, observations : the names to read; by default every one that the schema declares.
        """
        at = np.arange(len(self))[positions] if isinstance(positions, slice) else np.asarray(positions, dtype=np.int64)
        names = [n for n, c in self.schema.columns.items() if c.role != "scalar"] if truth is None else truth
        seen = self.schema.observations if observations is None else observations
        places = self._places(at)
        return Sample(
            id=tuple(self.id[at].tolist()),
            key=torch.from_numpy(self.key[at].view(np.int64)),
            ra=torch.from_numpy(self._position("ra")[at]),
            dec=torch.from_numpy(self._position("dec")[at]),
            observations={name: self._observation(name, at, places) for name in seen},
            truth={name: self.truth(name, at) for name in names},
        )

    def _position(self, name: str) -> np.ndarray:
        return self.column(name)

    def array(self, name: str, positions: np.ndarray) -> np.ndarray | None:
        """(n, ...) of one stored array such as ``image.flux``, in its stored dtype; None where there is none."""
        return self._taken(name, self._places(positions))

    def _taken(self, name: str, places: _Places) -> np.ndarray | None:
        out: np.ndarray | None = None
        for folder, here, rows in places.pieces:
            try:
                source = _memory_map(f"{folder}/{name}.npy", places.stamp)
            except FileNotFoundError:
                return None
            if out is None:
                out = np.empty((places.count, *source.shape[1:]), source.dtype)
            if isinstance(here, slice):  # mode="clip" lets numpy write straight into `out`; all rows are inside
                np.take(source, rows, axis=0, out=out[here], mode="clip")
            else:
                out[here] = source[rows]
        return out

    def _places(self, positions: np.ndarray) -> _Places:
        rows, starts = self.rows[positions], self._starts
        pieces: list[tuple[str, slice | np.ndarray, np.ndarray]] = []
        if (rows[1:] >= rows[:-1]).all():  # in order, as training and prediction ask: one slice a tile
            cuts = np.searchsorted(rows, starts)
            for k in np.flatnonzero(cuts[1:] > cuts[:-1]).tolist():
                here = slice(int(cuts[k]), int(cuts[k + 1]))
                pieces.append((self._folders[k], here, rows[here] - starts[k]))
        else:
            tile_of = np.searchsorted(starts, rows, side="right") - 1
            for k in np.unique(tile_of).tolist():
                among = np.flatnonzero(tile_of == k)
                pieces.append((self._folders[k], among, rows[among] - starts[k]))
        status = os.stat(f"{self.path}/tiles")  # tells a folder that was written anew apart from the old one
        return _Places(len(rows), (status.st_ino, status.st_mtime_ns), pieces)

    @cached_property
    def _starts(self) -> np.ndarray:
        """(tiles + 1,) first row of each tile, and the number of rows in all."""
        return np.array([0, *(t.start + t.count for t in self.tiles)])

    @cached_property
    def _folders(self) -> tuple[str, ...]:
        return tuple(str(self.path / "tiles" / t.name) for t in self.tiles)

    def _observation(self, name: str, at: np.ndarray, places: _Places) -> Observation:
        schema = self.schema.observations[name]
        flux, ivar = self._taken(f"{name}.flux", places), self._taken(f"{name}.ivar", places)
        if flux is None or ivar is None:  # zeros here would be a silent "not measured"
            raise InputError(
                "arrays of the survey are missing",
                file=self.path,
                found=f"no {name}.flux or {name}.ivar in a tile",
                fix="ingest it again",
            )
        ivar = ivar.reshape(*ivar.shape, *(1,) * (flux.ndim - ivar.ndim))
        if isinstance(schema, RowSchema):
            return Row(_floats(flux), _floats(ivar), names=schema.names, units=schema.units)
        psf = None if schema.psf is None else self._taken(f"{name}.psf", places)
        return Image(
            _floats(flux),
            _floats(ivar),
            unit=schema.unit,
            bands=schema.bands,
            pixel_scale=self._pixel_scale(schema, at),
            psf=None if psf is None else _floats(psf),
        )

    def _pixel_scale(self, schema: ImageSchema, at: np.ndarray) -> Tensor:
        if schema.pixel_scale is None and "pixel_scale" in self.index.column_names:
            return torch.from_numpy(self.column("pixel_scale")[at].astype(np.float32))
        return torch.full((len(at),), schema.pixel_scale if schema.pixel_scale is not None else float("nan"))

    def truth(self, name: str, positions: np.ndarray | None = None) -> Truth:
        """What is known of the objects at `positions` (by default of all), without reading an observation.

        Raises
        ------
        InputError : the survey has no such label or truth.
        """
        at = np.arange(len(self)) if positions is None else positions
        if name not in self.schema.columns:
            known = [n for n, c in self.schema.columns.items() if c.role != "scalar"]
            near = get_close_matches(name.lower(), [n.lower() for n in known], n=1)
            raise InputError(
                "no such label or truth",
                file=self.path,
                found=name,
                known=known,
                fix=None if near else f"--labels TABLE.csv with the columns id and {name}",
            )
        column = self.schema.columns[name]
        if column.array:
            value = self.array(f"truth.{name}", at)
            if value is None:
                raise InputError("the truth's array is missing", file=self.path, found=name, fix="ingest it again")
            return Truth(_floats(value), moves=column.moves, unit=column.unit)
        if column.classes:
            if name not in self._codes:
                codes = {c: i for i, c in enumerate(column.classes)}
                each = [codes.get(str(v), -1) for v in self.column(name)]
                self._codes[name] = np.asarray(each, np.int64)
            return Truth(torch.from_numpy(self._codes[name][at]), moves=column.moves, classes=column.classes)

        def numbers(names: Sequence[str]) -> Tensor:
            stacked = np.stack([self.column(n)[at].astype(np.float64) for n in names], axis=-1)
            return torch.from_numpy(stacked if column.parts else stacked[..., 0])

        parts = column.parts or (name,)
        sigma = (
            numbers([f"{p}{column.sigma}" if column.parts else column.sigma for p in parts]) if column.sigma else None
        )
        limit = numbers([column.limit] * len(parts)) if column.limit else None
        return Truth(numbers(parts), sigma=sigma, limit=limit, moves=column.moves, unit=column.unit)

    def _repr_html_(self) -> str:
        from deepsky.report.notebook import survey_html

        return str(survey_html(self))

    def __repr__(self) -> str:
        parts = ", ".join(f"{n} {'x'.join(map(str, s.shape))}" for n, s in self.schema.observations.items())
        return f"<Survey {self.name}: {len(self):,} objects, {parts}, {len(self.tiles)} tile(s)>"
