"""Source tables: ids, positions on the sky or in pixels, and the other columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.schema import Column
from deepsky.surveys import _columns
from deepsky.surveys._frames import Frame, assign, centre_of, wcs_of
from deepsky.surveys._sky import to_sky

_TAKEN = {"id", "ra", "dec", "bytes", "dx", "dy", "saturated"}


@dataclass(frozen=True)
class Wanted:
    """The columns of a source table that the user named; `origin` is the number of the first pixel."""

    id: str | None
    ra: str | None
    dec: str | None
    ra_unit: str | None
    origin: int | None


@dataclass(frozen=True, eq=False)
class Sources:
    """Sources of the table: positions on the sky, or pixels `x`, `y` counted from 0 where there are none."""

    ids: list[str]
    ra: np.ndarray
    dec: np.ndarray
    x: np.ndarray | None
    y: np.ndarray | None
    used: set[str]


def sources_of(table: pa.Table, frames: Sequence[Frame], want: Wanted, where: str) -> tuple[Sources, list[str]]:
    """Ids and positions of the table, and what was decided."""
    notes = []
    column = _columns.find_id(table, want.id, where)
    if column is None:
        ids = [f"source-{i + 1:07d}" for i in range(table.num_rows)]
        notes.append("no column of ids: ids are the numbers of the rows")
    else:
        ids = _columns.ids(table, column, where)
    used = {column} if column else set()
    pair = _columns.find_position(table, want.ra, want.dec, where)
    bare = all(f.report is None for f in frames)
    if pair is not None and not bare:
        ra, dec = _columns.degrees(table, pair, ra_unit=want.ra_unit, file=where)
        ra, dec = (np.where(np.isinf(v), np.nan, v) for v in (ra, dec))  # which no projection takes
        return Sources(ids, ra, dec, None, None, used | set(pair)), notes
    pixels = _columns.find_pixels(table)
    if pixels is None and not bare and (told := _columns.galactic(table.column_names)):
        raise _columns.other_frame(told, where)
    if pixels is None:
        raise InputError(
            "frames without coordinates" if bare else "no positions in the source table",
            file=frames[0].flux.path if bare else where,
            keyword="CTYPE1" if bare else None,
            found=f"a source table of {', '.join(table.column_names)}",
            expected="columns x and y [pixel]" if bare else "columns ra and dec [deg]",
            fix="columns x and y in the source table place sources by pixel (pixel_origin=1 if the first one is 1)"
            if bare
            else "rename them, or name them: ra=..., dec=...",
        )
    _one_grid(frames, where, bare)
    origin = want.origin if want.origin is not None else int(pixels[0].lower().endswith("_image"))
    x, y = (_numbers(table, p, where) - origin for p in pixels)
    notes.append(f"positions are pixels of the frame, counted from {origin}")
    ra, dec = np.full(len(x), np.nan), np.full(len(x), np.nan)
    if frames[0].report is not None:
        ra, dec = to_sky(wcs_of(frames[0]), x, y)
        notes.append("ra and dec are those of the pixels")
    # without a place on the sky, pixels are the only position that a catalogue can quote
    return Sources(ids, ra, dec, x, y, used if frames[0].report is None else used | set(pixels)), notes


def elsewhere(frames: Sequence[tuple[int, Frame]], ra: np.ndarray, dec: np.ndarray, where: str) -> InputError:
    """The error for sources none of which lies on a frame: where both are, and what was meant if that is plain.

    Parameters
    ----------
    frames : of one band, with their numbers.
    """
    known = np.isfinite(ra) & np.isfinite(dec)
    ra, dec = ra[known], dec[known]
    meant = {"right ascensions in hours": (ra * 15, dec, "ra_unit='hour' (--set ra_unit=hour)"),
             "declinations and right ascensions": (dec, ra, "ra=..., dec=... name the columns (--set ra=... dec=...)"),
             "Galactic": (*_equatorial(ra, dec), _columns.ICRS)}  # fmt: skip
    seem, fix = "", "give the frames of these sources, or the sources of these frames"
    for words, (one, other, cure) in meant.items():
        if 2 * (assign(frames, one, other).frame >= 0).sum() > len(ra):
            seem, fix = f"; they seem to be {words}", cure
    middles = np.array([centre_of(f) for _, f in frames])
    return InputError("no source lies on a frame", file=where, found=f"sources at {_range(ra, dec)}{seem}",
                      expected=f"frames, whose centres lie at {_range(*middles.T)}", fix=fix)  # fmt: skip


def _equatorial(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination [deg] if these were Galactic longitude and latitude."""
    from astropy.coordinates import SkyCoord

    found = SkyCoord(l=ra, b=np.clip(dec, -90, 90), unit="deg", frame="galactic").icrs
    return found.ra.deg, found.dec.deg


def _range(ra: np.ndarray, dec: np.ndarray) -> str:
    return f"ra {ra.min():.4f} to {ra.max():.4f}, dec {dec.min():.4f} to {dec.max():.4f} deg"


def _numbers(table: pa.Table, name: str, where: str) -> np.ndarray:
    """(n,) float64 values of a column, NaN where missing."""
    try:
        return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowException as error:
        raise InputError("pixel positions that are no numbers", file=where, keyword=name, found=str(error)[:100],
                         expected="pixels of the frame") from error  # fmt: skip


def _one_grid(frames: Sequence[Frame], where: str, bare: bool) -> None:
    """Refuse pixel positions where a pixel is not the same place in all frames."""
    band, many = Counter(f.band for f in frames).most_common(1)[0]
    if many > 1:
        raise InputError("pixel positions need one frame a band", file=where, found=f"{many} frames in {band}",
                         fix="ingest the frames one by one" if bare else "give ra and dec")  # fmt: skip
    if len({f.shape for f in frames}) > 1:
        shapes = ", ".join(f"{f.band} {f.shape[0]}x{f.shape[1]}" for f in frames)
        other = "coordinates in the headers" if bare else "ra and dec"
        raise InputError("pixel positions need frames of one shape", file=where, found=f"{shapes} (y x x)",
                         fix=f"bands=... of one grid, or {other}")  # fmt: skip


def scalars_of(table: pa.Table, used: set[str]) -> tuple[dict[str, Column], dict[str, pa.Array]]:
    """The other columns of the source table, which become columns of the index."""
    columns: dict[str, Column] = {}
    arrays: dict[str, pa.Array] = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        if name in used | _TAKEN or name.startswith("_") or pa.types.is_nested(kind):
            continue
        dtype = "float64" if pa.types.is_floating(kind) else "int64" if pa.types.is_integer(kind) else "string"
        columns[name] = Column(dtype)
        arrays[name] = table[name] if dtype != "string" else table[name].cast(pa.string())
    return columns, arrays
