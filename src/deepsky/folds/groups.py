"""Which objects must stay in one fold: union-find over ids, positions, sky blocks, a column, and pixels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from deepsky.errors import InputError
from deepsky.folds.duplicates import near_duplicates as search_duplicates
from deepsky.schema import ImageSchema
from deepsky.survey import Survey

GIANT = 0.2  # share of a survey above which one group spoils a split
BLOCKS = 40  # sky blocks that suffice for a split
_log = logging.getLogger("deepsky")
Pairs = np.ndarray  # (m, 2) int64


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of a survey.

    Attributes
    ----------
    group : (n,) uint64, the smallest key of the objects in it.
    close : (m, 2) pairs of objects nearer than the buffer that are in different groups, because sky blocks decide:
        where they come to lie in different folds, one of them is taken out.
    links : number of links of each kind.
    radius_arcsec : within which positions were linked.
    notes : what was decided, in words.
    """

    group: np.ndarray
    close: Pairs
    links: Mapping[str, int]
    radius_arcsec: float
    notes: tuple[str, ...]


def groups(
    survey: Survey,
    *,
    radius_arcsec: float | None = None,
    block_deg: float | None = None,
    group_column: str | None = None,
    near_duplicates: bool = True,
) -> Groups:
    """Find the groups of a survey.

    Parameters
    ----------
    radius_arcsec : objects nearer than this are one group; by default the side of the cutouts, since neighbouring
        cutouts share pixels, and at least 1.
    block_deg : side of sky blocks [deg], each a group.
    group_column : column whose equal values are one group (night, field, star).
    near_duplicates : search for nearly the same pixels.

    Raises
    ------
    InputError : there is no such column.
    """
    notes: list[str] = []
    links: dict[str, Pairs] = {"same id": same_id(survey)}
    if group_column is not None:
        links[f"same {group_column}"] = same_value(survey, group_column)
    if near_duplicates:
        links["near-duplicate"], words = search_duplicates(survey)
        notes += words
    placed = np.isfinite(survey.column("ra")) & np.isfinite(survey.column("dec"))
    side = cutout_side(survey)
    radius = max(1.0, side) if radius_arcsec is None else radius_arcsec
    close = np.zeros((0, 2), np.int64)
    if not placed.any():
        notes.append("no positions: a group is an object with its copies" if group_column is None else "no positions")
        if block_deg is not None or radius_arcsec is not None:
            raise InputError("a split by position needs positions", file=survey.path, expected="ra and dec",
                             fix="--group COLUMN names what stays together")  # fmt: skip
    elif block_deg is not None:
        links["same block"] = blocks(survey, block_deg)
        close = within(survey, radius)
    else:
        links["position"] = within(survey, radius)
        if radius_arcsec is None and radius > 1.0 and giant(labels_of(len(survey), links)):
            links, close = _by_blocks(survey, links, radius, notes)
        elif radius_arcsec is None and radius > 1.0:
            notes.append(f"objects within {radius:g} arcsec, the side of a cutout, are one group")
    label = labels_of(len(survey), links)
    close = close[label[close[:, 0]] != label[close[:, 1]]]
    if giant(label):
        share = np.bincount(label).max() / len(label)
        notes.append(f"one group holds {share:.0%} of all objects: folds cannot have their sizes; "
                     "choose a smaller --radius, or sky blocks with --block")  # fmt: skip
        _log.warning("%s: %s", survey.path, notes[-1])
    return Groups(smallest_key(survey.key, label), close, {k: len(v) for k, v in links.items()}, radius, tuple(notes))


def _by_blocks(
    survey: Survey, links: dict[str, Pairs], radius: float, notes: list[str]
) -> tuple[dict[str, Pairs], Pairs]:
    """In a crowded field cutouts overlap into one chain: cut it into sky blocks with a buffer between the folds."""
    rest = {k: v for k, v in links.items() if k != "position"}
    close = links["position"]
    for order in range(15):
        degrees = block_side(order)
        found = blocks(survey, degrees)
        many = len(np.unique(labels_of(len(survey), {"same block": found})))
        if many >= BLOCKS or degrees * 3600 < 8 * radius:
            break
    if many < 8:
        notes.append("cutouts overlap into one chain in a field too small for sky blocks: objects within 1 arcsec are "
                     "one group, and neighbouring cutouts in different folds may share pixels")  # fmt: skip
        return {**rest, "position": within(survey, 1.0)}, np.zeros((0, 2), np.int64)
    notes.append(f"cutouts overlap into one chain: {many} sky blocks of {degrees:.2g} deg are the groups, and objects "
                 f"within {radius:g} arcsec of another fold are in none")  # fmt: skip
    return {**rest, "position": within(survey, 1.0), "same block": found}, close


# -- links ------------------------------------------------------------------------------------------------
def same_id(survey: Survey) -> Pairs:
    """Objects that came with one id."""
    if "object_id" in survey.index.column_names:
        return same_value(survey, "object_id")
    return chained(np.arange(len(survey)), survey.key)


def same_value(survey: Survey, column: str) -> Pairs:
    """Objects with one value of a column; a missing value (NaN, empty text) links nothing.

    Raises
    ------
    InputError : there is no such column.
    """
    if column not in survey.index.column_names:
        raise InputError("no such column to group by", file=survey.path, found=column, known=survey.index.column_names)
    values = survey.index[column].combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    elif pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = pc.if_else(pc.equal(pc.utf8_trim_whitespace(values), ""), None, values)
    codes = values.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.float64)
    rows = np.flatnonzero(np.isfinite(codes))
    return chained(rows, codes[rows])


def chained(rows: np.ndarray, values: np.ndarray) -> Pairs:
    """Pairs of neighbours among rows of equal value: enough to connect them all."""
    order = np.argsort(values, kind="stable")
    same = np.flatnonzero(np.diff(values[order]) == 0)
    return np.stack([rows[order[same]], rows[order[same + 1]]], axis=-1).astype(np.int64)


def within(survey: Survey, arcsec: float) -> Pairs:
    """All pairs nearer than a radius on the sky."""
    ra, dec = np.radians(survey.column("ra")), np.radians(survey.column("dec"))
    rows = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    a, d = ra[rows], dec[rows]
    xyz = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)
    chord = 2.0 * np.sin(np.radians(arcsec / 3600.0) / 2.0)
    pairs = cKDTree(xyz).query_pairs(chord, output_type="ndarray")
    return np.asarray(rows[pairs], np.int64).reshape(-1, 2)


def block_side(order: int) -> float:
    """The side [deg] of a HEALPix cell."""
    return float(np.degrees(np.sqrt(np.pi / 3.0)) / 2**order)


def blocks(survey: Survey, degrees: float) -> Pairs:
    """Objects in one HEALPix cell of about that side."""
    from astropy import units as u
    from astropy_healpix import lonlat_to_healpix

    if not degrees > 0:
        raise InputError("a sky block has a side", found=degrees, expected="degrees > 0")
    order = int(np.clip(np.round(np.log2(block_side(0) / degrees)), 0, 20))
    ra, dec = survey.column("ra"), survey.column("dec")
    rows = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    cells = lonlat_to_healpix(ra[rows] * u.deg, dec[rows] * u.deg, 2**order, order="nested")
    return chained(rows, np.asarray(cells))


def cutout_side(survey: Survey) -> float:
    """The longest side of an image [arcsec], 0 where no scale is known."""
    sides = [0.0]
    for rule in survey.schema.observations.values():
        if not isinstance(rule, ImageSchema):
            continue
        scale = rule.pixel_scale
        if scale is None and "pixel_scale" in survey.index.column_names:
            values = survey.column("pixel_scale")
            scale = float(np.nanmedian(values)) if np.isfinite(values).any() else None
        if scale is not None:
            sides.append(scale * max(rule.size))
    return float(round(max(sides), 3))


# -- components -------------------------------------------------------------------------------------------
def labels_of(n: int, links: Mapping[str, Pairs]) -> np.ndarray:
    """(n,) number of the connected component of each object."""
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *links.values()])
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def giant(label: np.ndarray) -> bool:
    """Whether one component is so large that folds cannot have their sizes."""
    return len(label) > 0 and int(np.bincount(label).max()) > max(10.0, GIANT * len(label))


def smallest_key(key: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(n,) uint64 name of each component: the smallest key in it, so that it does not depend on the order."""
    least = np.full(label.max() + 1 if len(label) else 0, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, label, key)
    return np.asarray(least[label])
