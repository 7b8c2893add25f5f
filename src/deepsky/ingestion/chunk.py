"""Some objects of a source, read and settled: this runs in child processes and needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from deepsky import quality
from deepsky.errors import InputError
from deepsky.schema import Column, ImageSchema, ObservationSchema, Schema
from deepsky.source import Block, Rejected, Source
from deepsky.units import checksums

MEASURED = {
    "unmeasured": Column("float32", description="fraction of the pixels without a measurement"),
    "saturated": Column("float32", description="fraction of the measured pixels at the ceiling"),
    "edge": Column("float32", description="fraction of the image outside the rectangle of measured pixels"),
    "phash": Column("uint64", description="perceptual hash, for near-duplicates"),
}


@dataclass(frozen=True)
class Chunk:
    """Objects as they go into a tile, and those that were set aside."""

    arrays: Mapping[str, np.ndarray]
    table: pa.Table
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True)
class Reading:
    """What a child process needs to know: the source, the schema as it will be written, and the scale of each flux.

    Attributes
    ----------
    factors : what the flux of an observation is multiplied with, for each feature of a row.
    names : the public columns of the items that are kept, and what they are called in the index.
    """

    source: Source
    schema: Schema
    factors: Mapping[str, float | tuple[float, ...]]
    names: Mapping[str, str]


def read(reading: Reading, file: str, items: pa.Table) -> Chunk:
    """Read some rows of a source's items; `file` is what the guard calls them where none can be read."""
    block = reading.source.read(items)
    ids = [str(i) for i in block.ids]
    unknown = set(ids) - set(items["id"].to_pylist())
    if unknown or len(set(ids)) < len(ids):
        raise InputError("the reader returned objects that it was not asked for", found=sorted(unknown)[:5] or ids[:5])
    reasons: dict[int, str] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, rule in reading.schema.observations.items():
        factor = np.asarray(reading.factors.get(name, 1.0))
        arrays |= _observation(name, rule, block, factor, reasons)
    for name in block.arrays:
        if name.startswith("truth."):
            arrays[name] = np.asarray(block.arrays[name] * reading.factors.get(name, 1.0), np.float32)
    _reject_empty(arrays, reading.schema, reasons)
    keep = np.array([i for i in range(len(ids)) if i not in reasons], dtype=np.int64)
    place = {name: row for row, name in enumerate(items["id"].to_pylist())}
    rows = items.take(pa.array([place[ids[i]] for i in keep], pa.int64()))
    arrays = {n: np.ascontiguousarray(a[keep]) for n, a in arrays.items()}
    given = {n: np.asarray(v)[keep] for n, v in block.columns.items()}
    columns = {**_measure(arrays, reading.schema), **given} if len(keep) else given
    table = rows.select(list(reading.names)).rename_columns(list(reading.names.values()))
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        kind = reading.schema.columns[name].dtype if name in reading.schema.columns else None
        table = table.append_column(name, _column(values, kind))
    files = reading.source.places(items)
    bad = [Rejected(ids[i], reason, files[place[ids[i]]]) for i, reason in sorted(reasons.items())]
    missing = sorted(set(place) - set(ids) - {r.id for r in block.rejected})
    bad += [Rejected(i, "the reader did not return it", str(files[place[i]])) for i in missing]
    table = table.append_column("crc", pa.array(checksums(arrays), pa.uint32()))
    return Chunk(arrays, table, (*block.rejected, *bad))


def _column(values: np.ndarray, kind: str | None) -> pa.Array:
    if values.dtype.kind in "OUS":
        return pa.array([None if v is None else str(v) for v in values], pa.string())
    return pa.array(values if kind is None else values.astype(kind))


def _observation(
    name: str, rule: ObservationSchema, block: Block, factor: np.ndarray, reasons: dict[int, str]
) -> dict[str, np.ndarray]:
    """Flux, ivar and PSF of one observation in native form; a bad object gets its reason."""
    flux, ivar = np.asarray(block.arrays[f"{name}.flux"]), np.asarray(block.arrays[f"{name}.ivar"])
    expected = (len(block.ids), *rule.shape)
    if flux.shape != expected:
        raise InputError(f"the reader returned another shape for {name!r}", found=flux.shape, expected=expected)
    storage = {"pixel": expected, "band": expected[:2], "object": expected[:1]}[rule.ivar]
    ivar = np.broadcast_to(ivar.reshape(*ivar.shape, *(1,) * (len(storage) - ivar.ndim)), storage)
    for problem, bad in _ivar_problems(ivar):
        for i in np.flatnonzero(flat(bad).any(axis=1)):
            reasons.setdefault(int(i), f"ivar of {name} has {problem} values")
    if flux.dtype.kind == "f":
        flux, ivar = _finite(name, flux if (factor == 1).all() else flux.astype(np.float64) * factor, ivar, reasons)
        if (factor != 1).any():
            ivar = np.where(np.isfinite(ivar), ivar, 0.0) / factor**2
    limits = np.finfo(rule.dtype) if np.dtype(rule.dtype).kind == "f" else np.iinfo(rule.dtype)
    high, low = flat(flux).max(axis=1, initial=0), flat(flux).min(axis=1, initial=0)
    for i in np.flatnonzero((high > limits.max) | (low < limits.min)):
        reasons.setdefault(int(i), f"a flux of {name} does not fit {rule.dtype}")
    for i in np.flatnonzero(flat(ivar).max(axis=1, initial=0.0) > np.finfo(np.float32).max):
        reasons.setdefault(int(i), f"an ivar of {name} does not fit float32")
    with np.errstate(over="ignore", invalid="ignore"):
        weight = (ivar > 0).astype(np.uint8) if rule.noise == "unknown" else ivar.astype(np.float32)
        out = {f"{name}.flux": flux.astype(rule.dtype), f"{name}.ivar": weight}
    psf = block.arrays.get(f"{name}.psf")
    if psf is not None:
        out[f"{name}.psf"] = np.nan_to_num(np.asarray(psf, np.float32))
    return out


def flat(values: np.ndarray) -> np.ndarray:
    """(n, ...) as (n, m), also for no rows."""
    return values.reshape(len(values), int(np.prod(values.shape[1:])))


def _ivar_problems(ivar: np.ndarray) -> list[tuple[str, np.ndarray]]:
    if ivar.dtype.kind in "bu" or (ivar.size and ivar.min() >= 0 and np.isfinite(ivar.max())):
        return []
    return [("NaN", np.isnan(ivar)), ("infinite", np.isinf(ivar)), ("negative", ivar < 0)]


def _finite(name: str, flux: np.ndarray, ivar: np.ndarray, reasons: dict[int, str]) -> tuple[np.ndarray, np.ndarray]:
    """Flux without NaN: such a pixel was not measured, and its ivar becomes 0."""
    bad = ~np.isfinite(flux)
    if not bad.any():
        return flux, ivar
    flux = np.where(bad, 0.0, flux)
    if ivar.ndim == flux.ndim:
        return flux, np.where(bad, 0, ivar)
    lost = bad.all(axis=tuple(range(ivar.ndim, flux.ndim)))  # a whole band or object can still be said
    some = bad.any(axis=tuple(range(ivar.ndim, flux.ndim))) & ~lost & (ivar > 0)
    for i in np.flatnonzero(flat(some).any(axis=1)):
        reasons.setdefault(int(i), f"pixels of {name} are not finite, and the reader stores its ivar once an object")
    return flux, np.where(lost, 0, ivar)


def _reject_empty(arrays: Mapping[str, np.ndarray], schema: Schema, reasons: dict[int, str]) -> None:
    """Objects without one measurement, and images of one constant value."""
    measured, varied, images = [], [], False
    for name, rule in schema.observations.items():
        flux, seen = arrays[f"{name}.flux"], measured_of(arrays, name)
        rows, there = flat(flux), flat(seen)
        measured.append(there.any(axis=1))
        if isinstance(rule, ImageSchema) and rows.shape[1] > 1:
            images = True
            planes, shown = (x.reshape(*flux.shape[:2], rule.size[0] * rule.size[1]) for x in (flux, seen))
            top = np.where(shown, planes, -np.inf).max(axis=2)
            low = np.where(shown, planes, np.inf).min(axis=2)
            varied.append((top > low).any(axis=1))
        else:
            varied.append(there.any(axis=1))
    for i in np.flatnonzero(~np.any(measured, axis=0)):
        reasons.setdefault(int(i), "no pixel was measured" if images else "no value was measured")
    for i in np.flatnonzero(~np.any(varied, axis=0)):
        reasons.setdefault(int(i), "the image is constant")


def measured_of(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """(n, ...) bool, the shape of the flux: where an observation was measured."""
    flux, ivar = arrays[f"{name}.flux"], arrays[f"{name}.ivar"]
    return np.broadcast_to((ivar > 0).reshape(*ivar.shape, *(1,) * (flux.ndim - ivar.ndim)), flux.shape)


def _measure(arrays: Mapping[str, np.ndarray], schema: Schema) -> dict[str, np.ndarray]:
    """The columns of `MEASURED`: fractions of all pixels of all observations, the hash of the first image."""
    parts = [(arrays[f"{n}.flux"], measured_of(arrays, n)) for n in schema.observations]
    weight = np.array([flux[0].size if len(flux) else 1 for flux, _ in parts], dtype=np.float64)
    out = {"unmeasured": np.average([quality.unmeasured(m) for _, m in parts], axis=0, weights=weight)}
    images = [p for p, rule in zip(parts, schema.observations.values(), strict=True) if isinstance(rule, ImageSchema)]
    if images:
        out["saturated"] = np.max([quality.saturated(f, m) for f, m in images], axis=0)
        out["edge"] = np.max([quality.edge(m) for _, m in images], axis=0)
        out["phash"] = quality.perceptual_hash(*images[0])
    return out
