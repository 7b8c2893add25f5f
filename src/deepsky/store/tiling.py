"""Tiles: HEALPix cells whose size adapts in bytes, so that nothing ever has to hold more than a few."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy_healpix import lonlat_to_healpix

TILE_BYTES = 256 << 20
DEEPEST = 29  # order of the cells by which positions are sorted, 0.4 mas


@dataclass(frozen=True, eq=False)
class Cell:
    """A tile that is planned: its name and the numbers of its objects, in the order of the source."""

    name: str
    rows: np.ndarray


def healpix(ra: np.ndarray, dec: np.ndarray, order: int = DEEPEST) -> np.ndarray:
    """(n,) int64 nested HEALPix cells at `order` of positions [deg]."""
    cells = lonlat_to_healpix(np.mod(ra, 360.0) * u.deg, dec * u.deg, 2**order, order="nested")
    return np.asarray(cells, dtype=np.int64)


def plan(ra: np.ndarray, dec: np.ndarray, nbytes: np.ndarray, *, limit: int = TILE_BYTES) -> list[Cell]:
    """Cut objects into tiles.

    Objects with a position lie in HEALPix cells, split while they hold more than `limit` bytes; a survey that fits one
    tile is one tile. Objects without a position, and cells that cannot be split, are cut into shards.

    Parameters
    ----------
    ra, dec : (n,) [deg], NaN where not known.
    nbytes : (n,) bytes of each object in native form.
    """
    known = np.isfinite(ra) & np.isfinite(dec)
    cells: list[Cell] = []
    if known.any():
        rows = np.flatnonzero(known)
        deep = healpix(ra[rows], dec[rows])
        order = np.argsort(deep, kind="stable")
        cells += _split(deep[order], rows[order], nbytes, -1, 0, limit)
    cells += _shards("shard", np.flatnonzero(~known), nbytes, limit)
    return cells


def _split(deep: np.ndarray, rows: np.ndarray, nbytes: np.ndarray, order: int, cell: int, limit: int) -> Iterator[Cell]:
    if len(rows) == 0:
        return
    if len(rows) == 1 or nbytes[rows].sum() <= limit or order == DEEPEST:
        name = "sky" if order < 0 else f"Norder={order}-Npix={cell}"
        yield from _shards(name, np.sort(rows), nbytes, limit)
        return
    children = np.arange(12 if order < 0 else 4) + 4 * cell
    shift = 2 * (DEEPEST - order - 1)
    edges = np.searchsorted(deep, np.append(children, children[-1] + 1) << shift)
    for child, low, high in zip(children, edges[:-1], edges[1:], strict=True):
        yield from _split(deep[low:high], rows[low:high], nbytes, order + 1, int(child), limit)


def _shards(name: str, rows: np.ndarray, nbytes: np.ndarray, limit: int) -> Iterator[Cell]:
    if len(rows) == 0:
        return
    number = (np.cumsum(nbytes[rows]) - 1).clip(0) // max(limit, 1)
    pieces = np.split(rows, np.flatnonzero(np.diff(number)) + 1)
    if len(pieces) == 1 and name != "shard":
        yield Cell(name, rows)
        return
    yield from (Cell(f"{name}-{i:06d}", piece) for i, piece in enumerate(pieces))
