"""The list of the objects of a folder of FITS files: ids, files, HDUs, and what their folders say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pyarrow as pa

from deepsky.errors import InputError
from deepsky.gate import check_fits
from deepsky.schema import Column, Role
from deepsky.surveys import _scan
from deepsky.surveys._names import Groups, is_band, words
from deepsky.surveys._object import Rules
from deepsky.surveys._plan import Plan
from deepsky.surveys._planes import MOST_BANDS, planes, squeezed

FRACTIONS = {
    "saturated": Column("float32", description="fraction of saturated pixels; their ivar is 0"),
}
Objects = Literal["file", "hdu", "plane"]


def kind(files: _scan.Files, groups: Groups) -> Literal["file", "hdu"]:
    """Objects are HDUs where a file has more images than there are bands, and none of them names its band."""
    try:
        layout = check_fits(files.root / next(n for n in groups.files[0] if n))
        images = [h for h in layout.images() if len(squeezed(h.shape)) == 2]
    except InputError:
        return "file"
    unnamed = [h for h in images if not any(map(is_band, words(h.name)))]
    return "hdu" if len(unnamed) > MOST_BANDS else "file"


def listed(root: Path, groups: Groups, objects: str, rules: Rules) -> tuple[pa.Table, Rules, tuple[str, ...]]:
    """One row an object: id, its files by slot, and the HDU and plane it lies in."""
    ids, files, hdus, indices, rows = list(groups.ids), list(groups.files), [], [], list(range(len(groups.ids)))
    notes: tuple[str, ...] = ()
    if objects == "file":
        hdus = indices = [-1] * len(ids)
    else:
        ids, files, rows = [], [], []
        rules = replace(rules, stack=objects == "plane", many=objects == "hdu")
        for row, (base, mine) in enumerate(zip(groups.ids, groups.files, strict=True)):
            layout = check_fits(root / next(n for n in mine if n))
            if objects == "plane":
                found = [(p.hdu, p.index) for p in planes(layout, stack=True, named=rules.named) if p.role == "flux"]
                parts = [
                    (f"{base}-{index}", -1, index) for hdu, index in found if hdu == found[0][0] and index is not None
                ]
            else:
                images = [h for h in layout.images() if len(squeezed(h.shape)) >= 2]
                names = [h.name if h.name not in ("", "PRIMARY", "COMPRESSED_IMAGE") else str(h.index) for h in images]
                if len(set(names)) < len(names):
                    names = [str(h.index) for h in images]
                parts = [(f"{base}-{n}", h.index, -1) for n, h in zip(names, images, strict=True)]
            for key, hdu, index in parts:
                ids.append(key)
                files.append(mine)
                hdus.append(hdu)
                indices.append(index)
                rows.append(row)
        notes = (
            f"{len(ids):,} objects in {len(groups.ids):,} files, one a{'n HDU' if objects == 'hdu' else ' plane'}",
        )
    table = pa.table({
        "id": pa.array(ids, pa.string()), "_files": pa.array([list(f) for f in files], pa.list_(pa.string())),
        "_hdu": pa.array(hdus, pa.int32()), "_plane": pa.array(indices, pa.int32()), "_row": pa.array(rows, pa.int64()),
    })  # fmt: skip
    return table, rules, notes


def columns_of(
    listing: pa.Table, groups: Groups, plan: Plan, class_folders: bool
) -> tuple[dict[str, Column], pa.Table]:  # fmt: skip
    """The columns of the survey, and the listing with those that the folders tell."""
    columns = dict(FRACTIONS)
    if plan.varies:
        columns["pixel_scale"] = Column(unit="arcsec", description="of the pixels of this object")
    rows = listing["_row"].to_pylist()
    if class_folders:
        for column, values in _scan.folder_columns(groups.folders)[0].items():
            role: Role = "label" if column == "class" else "scalar"
            classes = tuple(sorted(set(values)))
            columns[column] = Column("string", role=role, classes=classes, description="from the folders")
            listing = listing.append_column(column, pa.array([values[r] for r in rows], pa.string()))
    return columns, listing.drop_columns(["_row"])


def folder_notes(groups: Groups, class_folders: bool) -> tuple[str, ...]:
    return _scan.folder_columns(groups.folders)[1] if class_folders else ()


def guess_note(groups: Groups, pattern: str | None) -> tuple[str, ...]:
    """A warning where names carry several bands and yet every file is an object of its own."""
    if pattern is not None or len(groups.slots) > 1 or len(groups.ids) < 2:
        return ()
    count = Counter(w for i in groups.ids for w in set(words(i)) if is_band(w))
    several = [b for b, n in count.most_common() if n > len(groups.ids) / 20]
    if len(several) < 2 or sum(count[b] for b in several) < len(groups.ids) * 0.9:
        return ()
    return (f"names carry the bands {', '.join(several)}, but every file is taken for an object: give pattern=...",)


def rows(table: pa.Table) -> Iterator[tuple[str, list[str | None], int, int]]:
    """Id, files by slot, HDU and plane of every object."""
    return zip(*(table[c].to_pylist() for c in ("id", "_files", "_hdu", "_plane")), strict=True)
