"""Joining by position on the sky, one to one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from deepsky import registry
from deepsky.errors import InputError

UNITS = "call the columns by their unit: 'ra [deg]' and 'dec [deg]', 'ra [hour]', or 'ra [rad]' and 'dec [rad]'"


def columns(table: pa.Table) -> tuple[str, str] | None:
    """The columns of right ascension and declination, found as a reader of tables finds them, or None."""
    found: tuple[str, str] | None = registry.find("surveys", "table").find_position(table)
    return found


def known(sky: np.ndarray) -> bool:
    """Whether any row has a position."""
    return bool(np.isfinite(sky).all(0).any())


def of_objects(objects: pa.Table) -> np.ndarray:
    """(2, n) right ascension and declination [deg] of a survey's objects, NaN where one has none."""
    if not {"ra", "dec"} <= set(objects.column_names):
        return np.full((2, objects.num_rows), np.nan)
    return np.stack([objects[n].to_numpy(zero_copy_only=False).astype(np.float64) for n in ("ra", "dec")])


def degrees(table: pa.Table, where: str) -> np.ndarray:
    """(2, n) right ascension and declination [deg] of a table's rows, NaN where one has none.

    Raises
    ------
    InputError : right ascensions in hours that nothing declares, text that is no angle, or most values beyond the sky.
    """
    pair = columns(table)
    if pair is None:
        return np.full((2, table.num_rows), np.nan)
    try:
        sky = np.stack(registry.find("surveys", "table").degrees(table, pair, file=where))
    except InputError as error:
        raise InputError(error.problem, file=where, keyword=error.keyword, found=error.found, expected=error.expected,
                         fix=f"{UNITS}; or join by id: --id-column NAME") from error  # fmt: skip
    possible = np.isfinite(sky).all(0) & (np.abs(sky[1]) <= 90) & (sky[0] >= 0) & (sky[0] <= 360)
    return np.where(possible, sky, np.nan)


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
    InputError : a side has no positions, nothing lies within the radius, or see `degrees`.
    """
    a, b = of_objects(objects), degrees(table, where)
    if not known(a) or not known(b):
        lacks = "the table" if not known(b) else "the survey"
        raise InputError(f"{lacks} has no positions", file=where, found=", ".join(table.column_names),
                         expected="columns ra and dec in degrees", fix="join by id: --id-column NAME")  # fmt: skip
    from scipy.spatial import cKDTree  # here: a survey that is only opened needs no scipy

    object_rows, table_rows = np.flatnonzero(np.isfinite(a).all(0)), np.flatnonzero(np.isfinite(b).all(0))
    sky, rows = unit_vectors(*a[:, object_rows]), unit_vectors(*b[:, table_rows])
    limit = chord(radius_arcsec)
    far, nearest = map(np.asarray, cKDTree(sky).query(rows, distance_upper_bound=limit * (1 + 1e-9)))
    near = np.flatnonzero(np.isfinite(far))
    if len(near) == 0:
        raise InputError("no label lies near an object", file=where, found=f"none within {radius_arcsec:g} arcsec",
                         expected="positions in degrees, ICRS",
                         fix=f"raise the radius (deepsky label: --radius), or {UNITS}")  # fmt: skip
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
