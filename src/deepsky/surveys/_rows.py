"""A table in memory as rows of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.schema import Column, RowSchema, Schema
from deepsky.source import Block, Rejected, Source
from deepsky.surveys import _columns
from deepsky.surveys._text import IDS
from deepsky.tables import metadata, unit_of

LABELS = ("class", "label", "labels", "target", "classification", "type", "category", "y")


def source_of(
    table: pa.Table,
    where: str,
    *,
    name: str,
    features: Sequence[str] | None = None,
    label_columns: Sequence[str] | None = None,
    id: str | None = None,
    ra: str | None = None,
    dec: str | None = None,
    ra_unit: str | None = None,
    sentinel: float | None = None,
) -> Source:
    """Rows of a table: every column of numbers that is no id, position, label or error is a feature.

    Raises
    ------
    InputError : a column is missing, nothing is left for features, or ids were rounded.
    """
    known = table.column_names
    for option, given in (("features", features), ("label_columns", label_columns)):
        for column in given or ():
            if column not in known:
                raise InputError("no such column", file=where, keyword=option, found=column, known=known)
    labels = list(label_columns) if label_columns is not None else [n for n in known if n.lower() in LABELS]
    key = _columns.find_id(table, id, where)
    notes = [*(metadata(table, "notes") or ()),
             *([] if key is not None else ["no column of ids: ids are the numbers of the rows"])]  # fmt: skip
    keys = _columns.ids(table, key, where) if key else [f"{i:07d}" for i in range(table.num_rows)]
    pair = _columns.find_position(table, ra, dec, where)
    sky = _columns.degrees(table, pair, ra_unit=ra_unit, file=where) if pair else (np.full(table.num_rows, np.nan),) * 2
    aside = {*labels, *(pair or ()), key}
    whole = table
    table, odd, told = _columns.mended(table, aside, features, where)
    notes += told
    free = [n for n in known if n not in aside and (features is not None or n.lower() not in IDS)]
    numbers = [n for n in free if _is_number(table.schema.field(n).type)]
    counts = [n for n in numbers if features is None and _columns.NUMBERING.fullmatch(n) and _is_whole(table, n)]
    if counts:
        numbers = [n for n in numbers if n not in counts]
        notes.append(f"columns that name things are no features: {', '.join(counts)}")
    errors = {n: e for n in numbers if (e := _columns.error_of(n, numbers)) is not None}
    plain = [n for n in numbers if n not in errors.values()]
    chosen = list(features) if features is not None else plain if all(n in errors for n in plain) else numbers
    if not chosen:
        raise InputError("no column of numbers is left for features", file=where, found=", ".join(known),
                         fix="features=[...]")  # fmt: skip
    sigma = {n: errors[n] for n in chosen if n in errors and errors[n] not in chosen}
    sigma = sigma if len(sigma) == len(chosen) else {}
    keep, refused = _columns.set_aside(odd, [*chosen, *sigma.values()], keys, where, notes)
    row = RowSchema(tuple(chosen), tuple(unit_of(table, n) for n in chosen), noise="measured" if sigma else "unknown")
    rest = [n for n in known if n not in {*chosen, *sigma.values(), *(pair or ()), key}]
    nested = [n for n in rest if pa.types.is_nested(table.schema.field(n).type)]
    if nested:
        notes.append(f"columns of lists were left out: {', '.join(nested)}")
    rest = [n for n in rest if n not in nested]
    kept = {_columns.kept_as(n): n for n in rest}
    columns = {c: Column(str(whole.schema.field(n).type), unit_of(table, n), "label" if n in labels else "scalar")
               for c, n in kept.items()}  # fmt: skip
    listing = {"id": pa.array(keys, pa.string()), "ra": sky[0], "dec": sky[1],
               "bytes": np.full(table.num_rows, 8 * len(chosen), np.int64),
               **{c: whole[n] for c, n in kept.items()}, "_row": np.arange(table.num_rows)}  # fmt: skip
    schema = Schema(name, {"row": row}, columns, source=where, reader="arrays", notes=tuple(notes))
    grid = [_numbers(table, n) for n in chosen]
    noise = [_numbers(table, sigma[n]) for n in chosen] if sigma else None
    errors_of = None if noise is None else np.stack(noise, 1)
    items = pa.table(listing) if not refused else pa.table(listing).take(pa.array(keep))
    return MemoryRows(where, schema, items, np.stack(grid, 1), errors_of, sentinel, refused)


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_whole(table: pa.Table, name: str) -> bool:
    values = _numbers(table, name)
    values = values[np.isfinite(values)]
    return bool((values == np.round(values)).all())


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


@final
@dataclass(frozen=True, eq=False)
class MemoryRows(Source):
    """Values (n, feature) and their errors, in memory; NaN is "not measured"."""

    guarded: ClassVar[bool] = False
    listing: pa.Table = field(repr=False)
    values: np.ndarray = field(repr=False)
    sigma: np.ndarray | None = field(repr=False)
    sentinel: float | None = None
    refused: tuple[Rejected, ...] = ()

    def rejected(self) -> tuple[Rejected, ...]:
        """Rows with a cell that is no number in a column of numbers."""
        return self.refused

    def items(self) -> pa.Table:
        """One row an object."""
        return self.listing

    def read(self, items: pa.Table) -> Block:
        """Features of some rows."""
        at = items["_row"].to_numpy()
        flux = self.values[at]
        seen = np.isfinite(flux)
        if self.sentinel is not None:
            seen &= flux != self.sentinel
        weight = seen.astype(np.float64)
        if self.sigma is not None:
            sigma = self.sigma[at]
            good = seen & (sigma > 0) & np.isfinite(sigma)
            weight = np.where(good, 1.0 / np.where(good, sigma, 1.0) ** 2, 0.0)
            weight = np.where(sigma < 0, np.nan, weight)  # a negative error: the object is set aside for it
        return Block(tuple(items["id"].to_pylist()), {"row.flux": np.where(weight > 0, flux, 0.0), "row.ivar": weight})
