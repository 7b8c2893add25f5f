"""Arrays of one and two axes: a table of features, or images whose rows were written out flat."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.surveys._held import Held
from deepsky.surveys._layout import IMAGES, joined_splits
from deepsky.tables import as_table, with_units

PICTURES = tuple(n for n in IMAGES if n not in {"flux", "data", "x"})  # those may be features as well
MOST = 4096  # features of one array
SMALLEST = 8  # pixels of a side


def flat_shape(width: int) -> tuple[int, ...] | None:
    """(y, x) or (band, y, x) of the square image that a row of so many values can be.

    >>> flat_shape(784), flat_shape(3072), flat_shape(100), flat_shape(1000)
    ((28, 28), (3, 32, 32), (10, 10), None)
    """
    for bands in (1, 3, 4):
        side = math.isqrt(width // bands)
        if side >= SMALLEST and bands * side * side == width:
            return (side, side) if bands == 1 else (bands, side, side)
    return None


def table_of(held: Mapping[str, Held], where: str, *, plain: bool) -> pa.Table:
    """A table whose columns are the arrays; one of two axes becomes a column for each of its values.

    Parameters
    ----------
    plain : nothing is taken for flat images.

    Raises
    ------
    InputError : an image, or rows of flat images, and nothing that says so; nothing that belongs together.
    """
    notes: list[str] = []
    held = joined_splits(held, None, where, notes)
    some = {k: h for k, h in held.items() if len(h.shape) in (1, 2)}
    if not some:
        raise InputError("no array of images or of features", file=where, found=", ".join(held) or "no array")
    if not plain:
        _refuse_singles(some, where)
        for key, one in some.items():
            _refuse_images(key, one, where)
    wide = [h.shape[0] for h in some.values() if len(h.shape) == 2]
    n = wide[0] if wide else Counter(h.shape[0] for h in some.values()).most_common(1)[0][0]
    columns: dict[str, np.ndarray] = {}
    units: dict[str, str] = {}
    for key, one in some.items():
        width, before = one.shape[1] if len(one.shape) == 2 else 1, set(columns)
        if one.shape[0] != n or width > MOST:
            notes.append(f"array {key!r} {one.shape} was left out")
        elif len(one.shape) == 1 or width == 1:
            columns[key] = one.whole().reshape(n)
        else:
            columns |= {f"{key}_{i + 1}": v for i, v in enumerate(one.whole().T)}
        if one.unit:
            units |= {name: one.unit for name in columns if name not in units and name not in before}
    return with_units(as_table(columns), units).replace_schema_metadata({"notes": json.dumps(notes)})


def _refuse_singles(held: Mapping[str, Held], where: str) -> None:
    """Refuse one array an object: arrays of one shape whose names differ in their numbers alone."""
    shapes: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for key, one in held.items():
        if len(one.shape) == 2 and min(one.shape) >= SMALLEST:
            shapes[re.sub(r"\d+", "#", key), one.shape].append(key)
    for (_, shape), keys in shapes.items():
        if len(keys) > 2:
            raise InputError("one array an object", file=where, found=f"{len(keys)} arrays {shape}: {keys[0]}, ...",
                             expected="one array for all: (object, y, x)",
                             fix="images=numpy.stack(...), and their names as the array ids")  # fmt: skip


def _refuse_images(key: str, one: Held, where: str) -> None:
    if len(one.shape) != 2 or one.dtype.kind not in "biuf":
        return
    picture = key.lower().rsplit("/", 1)[-1] in PICTURES
    sides = flat_shape(one.shape[1])
    if sides is not None and one.shape[0] != one.shape[1] and (picture or one.dtype.itemsize == 1):
        text = ",".join(map(str, sides))
        raise InputError("rows that may be flat images", file=where, keyword=key, found=f"{one.dtype} {one.shape}",
                         expected="(object, y, x) or (object, band, y, x)",
                         fix=f"shape=({text}) says how a row lies (--set shape={text})")  # fmt: skip
    if picture:
        raise InputError("one image, and not several objects", file=where, keyword=key, found=one.shape,
                         expected="(object, y, x)", fix="images[None] is one object of shape (1, y, x)")  # fmt: skip
