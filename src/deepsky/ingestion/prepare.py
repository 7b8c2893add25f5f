"""Before the first pixel is read for good: the list of objects made sound, and the scale of each flux."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.gate import run_guarded
from deepsky.ingestion.chunk import MEASURED
from deepsky.schema import Column, ImageSchema, RowSchema, Schema
from deepsky.source import Rejected, Source
from deepsky.units import power_of_ten, scaled_unit

RESERVED = frozenset({"key", "tile", "row", "group", "fold", "crc", "bytes"})
Factor = float | tuple[float, ...]  # of an image; of each feature of a row
LOOK = 32  # objects whose flux decides on the scale


@dataclass(frozen=True)
class Prepared:
    """A source whose objects have one id each.

    Attributes
    ----------
    items : of the source, with unique ids; `names` says how its public columns are called in the index.
    schema : as it will be written.
    labels : columns of the source that are labels: they go to the label layer.
    """

    source: Source
    items: pa.Table
    schema: Schema
    names: Mapping[str, str]
    labels: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    factors: Mapping[str, Factor]


def prepare(source: Source, *, guarded: bool, memory_bytes: int) -> Prepared:
    """List the objects of a source, set aside those that cannot be named or placed, and look at some fluxes.

    Raises
    ------
    InputError : there is no object, or a column that is needed is missing.
    """
    items = source.items()
    missing = {"id", "ra", "dec", "bytes"} - set(items.column_names)
    if missing:
        raise InputError("the reader's list of objects lacks columns", file=source.path, found=sorted(missing))
    items, refused = _placed(items)
    rejected = (*source.rejected(), *refused)
    if items.num_rows == 0:
        common = Counter(r.reason.partition("\n")[0] for r in rejected).most_common(3)
        words = "; ".join(f"{n:,} times: {reason}" for reason, n in common) or "an empty list"
        raise InputError("no object can be ingested", file=source.path, found=words, expected="at least one")
    items, notes = _unique(items)
    labels = tuple(n for n, c in source.schema.columns.items() if c.role == "label" and n in items.column_names)
    names = _public(items, labels)
    columns = {names.get(n, n): c for n, c in source.schema.columns.items() if n not in labels}
    pictures = any(isinstance(o, ImageSchema) for o in source.schema.observations.values())
    columns |= {n: c for n, c in MEASURED.items() if n not in columns and (n == "unmeasured" or pictures)}
    for item, name in names.items():
        if name not in columns and name not in {"id", "ra", "dec"}:
            columns[name] = Column(str(items.schema.field(item).type))
    schema = replace(source.schema, columns=columns, notes=(*source.schema.notes, *notes))
    schema, factors = _scaled(source, schema, items, guarded=guarded, memory_bytes=memory_bytes)
    return Prepared(source, items, schema, names, labels, rejected, factors)


def _placed(items: pa.Table) -> tuple[pa.Table, list[Rejected]]:
    """Rows with an id and a possible position; right ascensions in [0, 360)."""
    ids = items["id"].to_pylist()
    ra, dec = (items[n].to_numpy(zero_copy_only=False).astype(np.float64) for n in ("ra", "dec"))
    reasons: dict[int, str] = {}
    with np.errstate(invalid="ignore"):
        for i in np.flatnonzero((np.abs(dec) > 90) | np.isinf(dec)):
            reasons[int(i)] = f"a declination of {dec[i]:g} deg"
        for i in np.flatnonzero((ra < -180) | (ra > 360) | np.isinf(ra)):
            reasons[int(i)] = f"a right ascension of {ra[i]:g} deg"
    for row, name in enumerate(ids):
        if name is None or not str(name).strip():
            reasons[row] = "no id"
    unknown = np.isnan(ra) | np.isnan(dec)
    ra, dec = np.where(unknown, np.nan, np.mod(np.where(np.isinf(ra), 0.0, ra), 360.0)), np.where(unknown, np.nan, dec)
    for name, values in (("ra", ra), ("dec", dec), ("id", [None if v is None else str(v) for v in ids])):
        column = pa.array(values, pa.string()) if name == "id" else pa.array(values)
        items = items.set_column(items.column_names.index(name), name, column)
    keep = np.array([i for i in range(len(ids)) if i not in reasons], dtype=np.int64)
    bad = [Rejected(str(ids[row] or f"row {row + 1}"), reason) for row, reason in sorted(reasons.items())]
    return (items if not reasons else items.take(keep)), bad


def _unique(items: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """Ids that repeat get a number; the id as given stays in the column ``object_id`` and makes one group."""
    given = items["id"].to_pylist()
    count = Counter(given)
    repeated = sum(n for n in count.values() if n > 1)
    if not repeated:
        return items, ()
    seen: Counter[str] = Counter()
    taken, ids = set(count), []
    for name in given:
        seen[name] += 1
        new = name
        if seen[name] > 1:
            new = f"{name}~{seen[name]}"
            while new in taken:
                new += "~"
            taken.add(new)
        ids.append(new)
    items = items.set_column(items.column_names.index("id"), "id", pa.array(ids, pa.string()))
    note = f"{repeated:,} objects share an id with another: the later ones are called ID~2, ...; each is one group"
    if "object_id" not in items.column_names:
        items = items.append_column("object_id", pa.array(given, pa.string()))
    return items, (note,)


def _public(items: pa.Table, labels: tuple[str, ...]) -> dict[str, str]:
    """The columns that the index keeps, and their names there."""
    names = {}
    for name in items.column_names:
        if name.startswith("_") or name == "bytes" or name in labels:
            continue
        names[name] = f"input_{name}" if name in RESERVED else name
    return names


def _scaled(
    source: Source, schema: Schema, items: pa.Table, *, guarded: bool, memory_bytes: int
) -> tuple[Schema, dict[str, Factor]]:
    """The schema with units that bring the fluxes to order one; ivar for every pixel where some were not measured."""
    rows = np.unique(np.linspace(0, items.num_rows - 1, min(LOOK, items.num_rows)).astype(np.int64))
    pieces = [(source, f"object {items['id'][int(i)]}", items.take(pa.array([i]))) for i in rows]
    looks = run_guarded(peek, pieces, workers=1 if guarded else 0, memory_bytes=memory_bytes)
    seen = [answer for _, answer in looks if not isinstance(answer, InputError)]
    observations, columns, factors = dict(schema.observations), dict(schema.columns), dict[str, Factor]()
    for name, rule in schema.observations.items():
        medians = np.array([s[name][0] for s in seen if name in s])
        floats = np.dtype(rule.dtype).kind == "f" and len(medians) > 0
        if isinstance(rule, RowSchema):  # features only where a square would leave float32
            exponents = [power_of_ten(m, low=1e-12, high=1e12) if floats else 0 for m in np.atleast_2d(medians).T]
            exponents = exponents if floats else [0] * len(rule.names)
            units = tuple(scaled_unit(u, e) for u, e in zip(rule.units, exponents, strict=True))
            factors[name] = tuple(10.0**-e for e in exponents)
            observations[name] = replace(rule, units=units)
            continue
        exponent = power_of_ten(medians) if floats else 0
        unit = scaled_unit(rule.unit, exponent)
        factors[name] = 10.0**-exponent
        holes = rule.ivar != "pixel" and any(s[name][1] for s in seen if name in s)
        observations[name] = replace(rule, unit=unit, ivar="pixel" if holes else rule.ivar)
        for column, what in schema.columns.items():
            if what.array and what.moves == "image" and what.unit == rule.unit:
                columns[column], factors[f"truth.{column}"] = replace(what, unit=unit), factors[name]
    return replace(schema, observations=observations, columns=columns), factors


def peek(source: Source, file: str, items: pa.Table) -> dict[str, tuple[float | np.ndarray, bool]]:
    """For each observation: the median of abs(flux) (of a row: each feature), and whether pixels are missing.

    Runs in a child process.
    """
    block = source.read(items)
    out: dict[str, tuple[float | np.ndarray, bool]] = {}
    for name, rule in source.schema.observations.items():
        if len(block.ids) == 0:
            continue
        flux, ivar = np.asarray(block.arrays[f"{name}.flux"]), np.asarray(block.arrays[f"{name}.ivar"])
        seen = np.broadcast_to(ivar.reshape(*ivar.shape, *(1,) * (flux.ndim - ivar.ndim)), flux.shape) > 0
        good = np.isfinite(flux) & (flux != 0) & seen
        if isinstance(rule, RowSchema):
            out[name] = np.where(good, np.abs(flux.astype(np.float64)), 0.0)[0], False
            continue
        median = float(np.median(np.abs(flux[good].astype(np.float64)))) if good.any() else 0.0
        out[name] = median, bool((~np.isfinite(flux) & seen).any())
    return out
