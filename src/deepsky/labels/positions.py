"""Joining by position on the sky, one to one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.tables import unit_of

RA = ("ra", "raj2000", "_raj2000", "ra_deg", "ra_icrs", "right_ascension", "alpha_j2000", "ra_j2000", "target_ra")
DEC = ("dec", "dej2000", "_dej2000", "dec_deg", "de_icrs", "declination", "delta_j2000", "dec_j2000", "target_dec")


def columns(table: pa.Table) -> tuple[str, str] | None:
    """The columns of right ascension and declination [deg], or None."""
    by_name = {n.lower(): n for n in table.column_names}
    ra, dec = (next((by_name[n] for n in names if n in by_name), None) for names in (RA, DEC))
    if ra is None or dec is None:
        return None
    numbers = all(pa.types.is_floating(table.schema.field(n).type) for n in (ra, dec))
    return (ra, dec) if numbers else None


def known(table: pa.Table) -> bool:
    """Whether any row has a position."""
    names = columns(table)
    return names is not None and bool(np.isfinite(_degrees(table, names[1])).any())


def _degrees(table: pa.Table, name: str) -> np.ndarray:
    values = table[name].to_numpy(zero_copy_only=False).astype(np.float64)
    return np.asarray(values * 15.0) if unit_of(table, name) in {"hourangle", "h"} else values


def unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """(n, 3) of positions [deg]."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def chord(arcsec: float) -> float:
    """The distance of two unit vectors that are `arcsec` apart."""
    return float(2.0 * np.sin(np.radians(arcsec / 3600.0) / 2.0))


def pairs(
    table: pa.Table, objects: pa.Table, radius_arcsec: float, where: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the table and the objects that are each other's nearest within the radius.

    Raises
    ------
    InputError : a side has no positions, or nothing lies within the radius.
    """
    ours, theirs = columns(objects), columns(table)
    if ours is None or theirs is None or not known(objects) or not known(table):
        lacks = "the table" if theirs is None or not known(table) else "the survey"
        raise InputError(f"{lacks} has no positions", file=where, found=", ".join(table.column_names),
                         expected="columns ra and dec in degrees", fix="join by id: --id-column NAME")  # fmt: skip
    from scipy.spatial import cKDTree  # here: a survey that is only opened needs no scipy

    here, there = (_degrees(objects, n) for n in ours), (_degrees(table, n) for n in theirs)
    a, b = np.stack(list(here)), np.stack(list(there))
    object_rows, table_rows = np.flatnonzero(np.isfinite(a).all(0)), np.flatnonzero(np.isfinite(b).all(0))
    sky, rows = unit_vectors(*a[:, object_rows]), unit_vectors(*b[:, table_rows])
    limit = chord(radius_arcsec)
    far, nearest = map(np.asarray, cKDTree(sky).query(rows, distance_upper_bound=limit * (1 + 1e-9)))
    near = np.flatnonzero(np.isfinite(far))
    if len(near) == 0:
        raise InputError("no label lies near an object", file=where, found=f"none within {radius_arcsec:g} arcsec",
                         expected="positions in degrees, ICRS", fix="raise --radius, or check the units")  # fmt: skip
    _, back = cKDTree(rows).query(sky[nearest[near]])
    mutual = near[back == near]
    crowded = len(near) - len(mutual)
    notes.append(f"{len(mutual):,} objects labelled by position within {radius_arcsec:g} arcsec")
    if crowded:
        notes.append(
            f"{crowded:,} labels are ambiguous (another label lies nearer to the same object) and were left out"
        )
    if len(near) < table.num_rows:
        notes.append(f"{table.num_rows - len(near):,} labels have no object within {radius_arcsec:g} arcsec")
    return table_rows[mutual], object_rows[nearest[mutual]]
