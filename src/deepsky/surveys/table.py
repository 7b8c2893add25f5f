"""Plain tables: CSV, ECSV, SExtractor, IPAC, MRT, FITS, VOTable and Parquet, for labels, sources and rows of features.

`read` gives any of them as an Arrow table; `open` makes a survey of rows out of one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pcompute

from deepsky.errors import InputError
from deepsky.gate import check_fits
from deepsky.schema import Column, Noise, RowSchema, Schema
from deepsky.source import Block, Rejected, Source
from deepsky.surveys import _columns
from deepsky.surveys._columns import degrees, find_position
from deepsky.surveys._scan import ending, stem
from deepsky.surveys._tables import FITS, PARQUET, TEXT, VOTABLE, read, read_table
from deepsky.tables import metadata, unit_of

__all__ = ["claims", "degrees", "example", "find_position", "open", "read", "read_table"]

LABELS = ("class", "label", "target", "classification", "type", "category")
NAMING = re.compile(  # columns of numbers that name something
    r"(?:^|_)[iI][dD]$|[a-z]I[dD]$|^(?:cand|rf|program|field|obj|source|src|obs|chip|ccd|run|star|target|visit)id$"
)
MOST_CLASSES = 100
MOST_VALUES = 16  # in a row of one column
SUSPECT = (99.0, 99.99, 999.0, 9999.0, -1.0, -9.0, -99.0, -99.99, -999.0, -9999.0, 1e20, -1e20, 1e30)


def claims(path: Path) -> bool:
    """One file with the ending of a table, and of a FITS file one that holds no image."""
    last = ending(path.name)
    plain = re.sub(r"\.(?:gz|bz2|xz)\Z", "", last)
    if not path.is_file() or not {last, plain} & {*TEXT, *FITS, *VOTABLE, *PARQUET}:
        return False
    if last not in FITS:
        return True
    try:
        kinds = {h.kind for h in check_fits(path).hdus}
    except InputError:
        return False
    return "table" in kinds and not kinds & {"image", "compressed"}


def open(
    path: str | Path,
    *,
    features: Sequence[str] | None = None,
    label_columns: Sequence[str] | None = None,
    id: str | None = None,
    ra: str | None = None,
    dec: str | None = None,
    ra_unit: str | None = None,
    sentinel: float | Sequence[float] = (),
    name: str = "",
) -> TableRows:
    """Understand a table as a survey of rows.

    Parameters
    ----------
    path : of the table.
    features : columns a network sees; by default every column of numbers that is no id, position, label or error.
    label_columns : columns that are labels; by default ``class``, ``label``, ``target`` and the like.
    id, ra, dec : columns of ids and positions; by default found by their names.
    ra_unit : "deg", "hour" or "rad", in place of what the table says.
    sentinel : values that mean "not measured", such as 99 or -999.
    name : of the survey, by default that of the file.

    Raises
    ------
    InputError : no such column, no feature, ids that were rounded, right ascensions in hours, negative errors.
    """
    table = read(path)
    notes = list(metadata(table, "notes") or ())
    table, more = _spread(table)
    notes += more
    keys, key_column, more = _ids(table, id, path)
    notes += more
    pair = _columns.find_position(table, ra, dec, path)
    sky = _columns.degrees(table, pair, ra_unit=ra_unit, file=path) if pair else None
    labels = _labels(table, label_columns, key_column, path)
    taken = {*labels, *(pair or ()), *([key_column] if key_column else [])}
    whole = table
    table, odd, more = _columns.mended(table, taken, features, path)
    notes += more
    chosen, errors, more = _features(table, features, taken, path)
    notes += more
    keep, refused = _columns.set_aside(odd, [*chosen, *errors.values()], keys, path, notes)
    hidden = tuple(sentinel) if isinstance(sentinel, Sequence) else (float(sentinel),)
    _check_errors(table, list(errors.values()), hidden, path)
    notes += _suspects(table, chosen, hidden)
    noise: Noise = "measured" if errors else "unknown"
    row = RowSchema(tuple(chosen), tuple(unit_of(table, n) for n in chosen), noise=noise)
    columns: dict[str, Column] = {}
    for n in table.column_names:
        if n in labels:
            columns[_columns.kept_as(n)] = labels[n]
        elif n not in {*taken, *chosen, *errors.values()} and not pa.types.is_nested(whole.schema.field(n).type):
            columns[_columns.kept_as(n)] = Column(_kind(whole.schema.field(n).type), unit=unit_of(table, n))
    schema = Schema(name or stem(Path(path).name), {"row": row}, columns, source=str(path), reader="table",
                    notes=tuple(notes))  # fmt: skip
    listing: dict[str, pa.Array] = {"id": pa.array(keys, pa.string())}
    blank = np.full(table.num_rows, np.nan)
    listing["ra"], listing["dec"] = (pa.array(a) for a in (sky or (blank, blank)))
    listing["bytes"] = pa.array(np.full(table.num_rows, 8 * len(chosen), np.int64))
    for n in table.column_names:
        if (name := _columns.kept_as(n)) in columns:
            listing[name] = _listed(whole[n], columns[name])
    listing["_row"] = pa.array(np.arange(table.num_rows))
    values = table.select([*chosen, *(e for e in errors.values())])
    items = pa.table(listing) if not refused else pa.table(listing).take(pa.array(keep))
    names = tuple(errors.get(n, "") for n in chosen)
    return TableRows(str(path), schema, items, values, names, hidden, refused)


def _spread(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """Columns of a few numbers a row, such as one flux a band, as columns of their own; longer ones are left out."""
    columns: dict[str, pa.Array] = {}
    fields, wide = [], []
    for column in table.schema:
        if not (pa.types.is_fixed_size_list(column.type) and _is_number(column.type.value_type)):
            columns[column.name] = table[column.name]
            fields.append(column)
        elif column.type.list_size > MOST_VALUES:
            wide.append(f"{column.name} ({column.type.list_size})")
        else:
            flat, n = table[column.name].combine_chunks().values, column.type.list_size
            for i in range(n):
                name = f"{column.name}_{i + 1}"
                while name in columns or name in table.column_names:
                    name += "_"
                columns[name] = flat.take(pa.array(np.arange(i, len(flat), n)))
                fields.append(pa.field(name, column.type.value_type, metadata=column.metadata))
    notes = [f"columns of many numbers a row were left out: {', '.join(wide)}"] if wide else []
    if len(fields) == len(table.schema):
        return table, notes
    return pa.table(columns, pa.schema(fields, table.schema.metadata)), notes


def _ids(table: pa.Table, wanted: str | None, path: object) -> tuple[list[str], str | None, list[str]]:
    """Ids of the rows; made where there is no column of them, or one that a spreadsheet ruined."""
    column = _columns.find_id(table, wanted, path)
    start = stem(Path(str(path)).name)
    made = [f"{start}-{i + 1:07d}" for i in range(table.num_rows)]
    if column is None:
        return made, None, ["no column of ids: ids are the numbers of the rows"]
    try:
        return _columns.ids(table, column, path), column, []
    except InputError as error:
        if wanted is not None:
            raise
        return (
            made,
            column,
            [f"the column {column!r} is no use as ids ({error.problem}): ids are the numbers of the rows"],
        )


def _labels(table: pa.Table, wanted: Sequence[str] | None, key: str | None, path: object) -> dict[str, Column]:
    """Label columns with their classes."""
    if wanted is None:
        found = [n for n in table.column_names if n.lower() in LABELS and n != key]
    else:
        found = list(wanted)
        for n in found:
            if n not in table.column_names:
                raise InputError(
                    "no such column", file=path, keyword="label_columns", found=n, known=table.column_names
                )
    out = {}
    for n in found:
        kind = table.schema.field(n).type
        if pa.types.is_floating(kind):
            out[n] = Column("float64", unit=unit_of(table, n), role="label")
            continue
        classes = sorted({str(v) for v in pcompute.unique(table[n]).to_pylist() if v is not None}, key=_natural)
        out[n] = Column("string", role="label", classes=tuple(classes) if len(classes) <= MOST_CLASSES else ())
    return out


def _natural(word: str) -> tuple[int, float, str]:
    return (0, float(word), word) if re.fullmatch(r"-?\d+(\.\d+)?", word) else (1, 0.0, word)


def _features(
    table: pa.Table, wanted: Sequence[str] | None, taken: set[str], path: object
) -> tuple[list[str], dict[str, str], list[str]]:
    """Feature columns, their error columns (of all features, or of none), and what was decided."""
    notes: list[str] = []
    numbers = [n for n in table.column_names if _is_number(table.schema.field(n).type)]
    errors = {n: e for n in numbers if (e := _columns.error_of(n, numbers)) is not None}
    if wanted is not None:
        for n in wanted:
            if n not in numbers:
                raise InputError("no such column of numbers", file=path, keyword="features", found=n, known=numbers)
        chosen = list(wanted)
    else:
        names = [n for n in numbers if NAMING.search(n) or _columns.NUMBERING.fullmatch(n)]
        keys = [n for n in names if n not in taken and _is_whole(table[n])]
        keys += [n for n in numbers if n not in {*taken, *keys} and _is_long(table[n])]
        truth = [n for n in numbers if n.lower().startswith("true_")]
        free = [n for n in numbers if n not in {*taken, *keys, *truth}]
        for told, why in ((keys, "name things"), (truth, "hold a simulation's truth")):
            if told:
                notes.append(f"columns that {why} are no features: {', '.join(told)}")
        sigmas = set(errors.values())
        bare = [n for n in free if n not in sigmas]
        whole = bare and all(n in errors for n in bare)
        chosen = bare if whole else free
        if sigmas and not whole:
            notes.append("some features have no error: the errors are features too, and ivar is a mask")
    if not chosen:
        raise InputError("no column of numbers is left for features", file=path, found=", ".join(table.column_names),
                         fix="features=[...]")  # fmt: skip
    kept = {n: errors[n] for n in chosen if n in errors and errors[n] not in chosen}
    return chosen, kept if len(kept) == len(chosen) else {}, notes


def _is_whole(values: pa.ChunkedArray) -> bool:
    """Whether all numbers are whole ones."""
    known = _floats(values)
    known = known[np.isfinite(known)]
    return bool(known.size and (known == np.round(known)).all())


def _is_long(values: pa.ChunkedArray) -> bool:
    """Whole numbers that a float64 would round, such as the id of an alert."""
    if not pa.types.is_integer(values.type) or values.null_count == len(values):
        return False
    low, high = pcompute.min_max(values).as_py().values()
    return bool(max(abs(low), abs(high)) > _columns.EXACT)


def _check_errors(table: pa.Table, errors: Sequence[str], hidden: Sequence[float], path: object) -> None:
    for name in errors:
        sigma = _floats(table[name])
        bad = (sigma < 0) & ~np.isin(sigma, hidden)
        if bad.any():
            raise InputError(
                "a negative error",
                file=path,
                keyword=name,
                found=f"row {np.argmax(bad) + 1}: {sigma[bad][0]:g}",
                expected="> 0, or missing",
                fix=f"sentinel={sigma[bad][0]:g} if it means not measured",
            )


def _suspects(table: pa.Table, features: Sequence[str], hidden: Sequence[float]) -> list[str]:
    """A note for values that look like "not measured" and were not declared so."""
    found: Counter[float] = Counter()
    for n in features:
        values = _floats(table[n])
        values = values[np.isfinite(values)]
        if values.size < 10:
            continue
        low, middle, high = np.percentile(values, [5, 50, 95])
        for value in SUSPECT:
            count = int((values == value).sum())
            far = abs(value - middle) > 3 * max(high - middle, middle - low)
            if count >= 3 and value not in hidden and (far or value in (low, high)) and not low < value < high:
                found[value] += count
    return [f"{k:,} values are exactly {v:g}: sentinel={v:g} if that means not measured" for v, k in found.items()]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_floating(kind):
        return "float64"
    return "int64" if pa.types.is_integer(kind) else "bool" if pa.types.is_boolean(kind) else "string"


def _listed(values: pa.ChunkedArray, column: Column) -> pa.Array:
    """A column of the index; classes are text."""
    if column.dtype == "string":
        return pa.array([None if v is None else str(v) for v in values.to_pylist()], pa.string())
    return values.combine_chunks()


def _floats(values: pa.ChunkedArray) -> np.ndarray:
    """(n,) float64 with NaN for nulls."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


@final
@dataclass(frozen=True, eq=False)
class TableRows(Source):
    """Rows of a table; `values` holds the features and their errors, `errors` the names of these or ""."""

    listing: pa.Table = field(repr=False)
    values: pa.Table = field(repr=False)
    errors: tuple[str, ...]
    sentinel: tuple[float, ...]
    refused: tuple[Rejected, ...] = ()
    guarded: ClassVar[bool] = False  # read whole when it was opened

    def items(self) -> pa.Table:
        """One row an object (see `deepsky.source.Source`)."""
        return self.listing

    def rejected(self) -> tuple[Rejected, ...]:
        """Rows with a cell that is no number in a column of numbers."""
        return self.refused

    def read(self, items: pa.Table) -> Block:
        """Features of some rows: NaN, nulls, infinities and sentinels have ivar 0."""
        values = self.values.take(items["_row"].combine_chunks())
        names = self.schema.observations["row"].names  # type: ignore[union-attr]
        flux = np.stack([_floats(values[n]) for n in names], axis=1).reshape(items.num_rows, len(names))
        ivar = np.ones_like(flux)
        for i, error in enumerate(self.errors):
            if error:
                sigma = _floats(values[error])
                seen = np.isfinite(sigma) & (sigma > 0) & ~np.isin(sigma, self.sentinel)
                ivar[:, i] = np.where(seen, 1 / np.where(seen, sigma, 1) ** 2, 0)
        lost = (
            (ivar == 0) | ~np.isfinite(flux) | np.isin(flux, self.sentinel) | (np.abs(flux) > np.finfo(np.float32).max)
        )
        arrays = {
            "row.flux": np.where(lost, 0, flux).astype(np.float32),
            "row.ivar": np.where(lost, 0, ivar).astype(np.float32),
        }
        return Block(tuple(items["id"].to_pylist()), arrays)


def example(path: Path) -> Path:
    """Write a made-up catalogue of thirty stars and galaxies as ECSV; return the file."""
    from astropy import units as u
    from astropy.table import QTable

    rng = np.random.default_rng(3)
    table = QTable({"id": [f"s{i:03d}" for i in range(30)]})
    table["ra"], table["dec"] = rng.uniform(149, 151, 30) * u.deg, rng.uniform(1, 3, 30) * u.deg
    star = rng.random(30) < 0.5
    for band, colour in (("g", 0.6), ("r", 0.0)):
        table[f"mag_{band}"] = (rng.normal(21, 1, 30) + colour * star) * u.ABmag
        table[f"mag_{band}_err"] = rng.uniform(0.02, 0.1, 30) * u.mag
    table["class"] = np.where(star, "star", "galaxy")
    file = path / "catalogue.ecsv"
    table.write(file, format="ascii.ecsv", overwrite=True)
    return file
