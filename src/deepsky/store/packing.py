"""From Samples to what a native survey stores: a schema, arrays, and a table of scalar columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch

from deepsky.errors import InputError
from deepsky.sample import Image, Observation, Row, Sample, Truth
from deepsky.schema import Column, ImageSchema, ObservationSchema, RowSchema, Schema

PARTS = {"vector": ("_x", "_y"), "spin2": ("1", "2")}


def describe(sample: Sample, *, name: str, dtype: str = "float32", real: bool = False, source: str = "") -> Schema:
    """The schema of a batch: units scaled by the power of ten that brings the median flux to order one."""
    observations = {n: _observation(part, dtype) for n, part in sample.observations.items()}
    columns: dict[str, Column] = {}
    for n, part in sample.observations.items():
        rule = observations[n]
        if not isinstance(part, Image) or not isinstance(rule, ImageSchema) or rule.pixel_scale is not None:
            continue
        if bool(torch.isfinite(part.pixel_scale).any()):
            columns["pixel_scale"] = Column(unit="arcsec", description="of the pixels of this object")
    scaled = {sample.observations[n].unit: o.unit for n, o in observations.items() if isinstance(o, ImageSchema)}
    for n, truth in sample.truth.items():
        columns |= truth_columns(n, truth, scaled)
    return Schema(name=name, observations=observations, columns=columns, real=real, source=source)


def _observation(part: Observation, dtype: str) -> ObservationSchema:
    if isinstance(part, Row):
        return RowSchema(part.names, part.units or ("",) * len(part.names), noise="measured", dtype=dtype)
    if not isinstance(part, Image):
        raise InputError(
            "not a kind of observation that can be stored", found=type(part).__name__, known=("Image", "Row")
        )
    if part.flux.ndim != 4:
        raise InputError("images have four axes", found=tuple(part.flux.shape), expected="(object, band, y, x)")
    scales = part.pixel_scale.expand(len(part.flux))
    same = bool(torch.isfinite(scales).all()) and bool((scales == scales[0]).all())
    ivar = part.ivar.expand(*part.ivar.shape[:4]) if part.ivar.ndim == 4 else part.ivar.reshape(-1, *(1,) * 3)
    storage = "pixel" if max(ivar.shape[2:]) > 1 else "band" if ivar.shape[1] > 1 else "object"
    return ImageSchema(
        bands=part.bands,
        size=(part.flux.shape[2], part.flux.shape[3]),
        unit=scaled_unit(part.unit, power_of_ten(part.flux.numpy(), part.ivar.expand(part.flux.shape).numpy())),
        pixel_scale=float(str(scales[0].numpy())) if same else None,
        noise="measured",
        quantity="f_nu" if "Jy" in part.unit else "relative",
        ivar=storage,  # type: ignore[arg-type]
        dtype=dtype,
        psf=None if part.psf is None else (part.psf.shape[-2], part.psf.shape[-1]),
    )


def truth_columns(name: str, truth: Truth, scaled: Mapping[str, str] | None = None) -> dict[str, Column]:
    """The schema's columns for one truth; true images take the unit that the observed ones were scaled to."""
    if is_array(truth):
        unit = (scaled or {}).get(truth.unit, truth.unit) if truth.moves == "image" else truth.unit
        return {name: Column("float32", unit, "truth", truth.moves, array=True)}
    if truth.classes:
        return {name: Column("str", role="truth", classes=truth.classes)}
    wide = truth.value.ndim == 2
    parts = tuple(name + suffix for suffix in _suffixes(truth)) if wide else ()
    kind = "float64" if truth.value.is_floating_point() else "int64"
    sigma = ("_sigma" if wide else f"{name}_sigma") if truth.sigma is not None else ""
    limit = f"{name}_limit" if truth.limit is not None else ""
    return {name: Column(kind, truth.unit, "truth", truth.moves, parts=parts, sigma=sigma, limit=limit)}


def is_array(truth: Truth) -> bool:
    """Whether a truth is stored as an array beside the observations."""
    return truth.moves in {"image", "boxes"} or truth.value.ndim > 2


def _suffixes(truth: Truth) -> tuple[str, ...]:
    return PARTS.get(truth.moves) or tuple(f"_{i}" for i in range(truth.value.shape[-1]))


def pack(sample: Sample, schema: Schema) -> tuple[dict[str, np.ndarray], pa.Table]:
    """The arrays and the table of a batch, in the units and types of the schema.

    Raises
    ------
    InputError : values that the schema's type cannot hold, or bands that are not the schema's.
    """
    arrays: dict[str, np.ndarray] = {}
    columns: dict[str, np.ndarray | pa.Array] = {
        "id": pa.array(sample.id, pa.string()), "ra": sample.ra.numpy(), "dec": sample.dec.numpy(),
    }  # fmt: skip
    for name, rule in schema.observations.items():
        part = sample.observation(name)
        factor = 1.0
        if isinstance(part, Image) and isinstance(rule, ImageSchema):
            if part.bands != rule.bands:
                raise InputError("bands differ between batches", found=part.bands, expected=rule.bands)
            factor = unit_factor(part.unit, rule.unit)
            if part.psf is not None and rule.psf is not None:
                arrays[f"{name}.psf"] = part.psf.numpy().astype(np.float32)
            if "pixel_scale" in schema.columns:
                columns["pixel_scale"] = part.pixel_scale.expand(len(sample)).double().numpy()
        arrays[f"{name}.flux"] = cast(part.flux.double().numpy() * factor, rule.dtype)
        arrays[f"{name}.ivar"] = stored_ivar(part.ivar.double().numpy() / factor**2, part.flux.shape, rule)
    for name, truth in sample.truth.items():
        if is_array(truth):
            factor = unit_factor(truth.unit, schema.columns[name].unit) if name in schema.columns else 1.0
            arrays[f"truth.{name}"] = (truth.value.double().numpy() * factor).astype(np.float32)
        else:
            columns |= _truth_values(name, truth)
    return arrays, pa.table(columns)


def _truth_values(name: str, truth: Truth) -> Mapping[str, np.ndarray | pa.Array]:
    if truth.classes:
        names = [truth.classes[c] if c >= 0 else None for c in truth.value.tolist()]
        return {name: pa.array(names, pa.string()).dictionary_encode()}
    parts = [name + s for s in _suffixes(truth)] if truth.value.ndim == 2 else [name]
    out: dict[str, np.ndarray | pa.Array] = {}
    for i, part in enumerate(parts):
        pick = (slice(None), i) if truth.value.ndim == 2 else slice(None)
        value = truth.value[pick]
        out[part] = (value.double() if value.is_floating_point() else value.long()).numpy()
        if truth.sigma is not None:
            out[f"{part}_sigma"] = truth.sigma[pick].double().numpy()
        if truth.limit is not None and i == 0:
            out[f"{name}_limit"] = truth.limit[pick].to(torch.int8).numpy()
    return out


def stored_ivar(ivar: np.ndarray, shape: tuple[int, ...], rule: ObservationSchema) -> np.ndarray:
    """Inverse variance in the schema's storage, float32, refused where it is no inverse variance.

    Raises
    ------
    InputError : it is negative, infinite or NaN, or finer than the schema's storage.
    """
    if not np.isfinite(ivar).all() or (ivar < 0).any():
        raise InputError("ivar is not an inverse variance", found=_worst(ivar), expected="finite, 0 where not measured")
    out = ivar.astype(np.float32)
    if not np.isfinite(out).all():
        raise InputError("ivar does not fit float32", found=float(ivar.max()), expected="less than 3e38",
                         fix="give the flux in a unit in which it is of order one")  # fmt: skip
    if rule.ivar == "pixel":
        return np.ascontiguousarray(np.broadcast_to(out.reshape(*out.shape, *(1,) * (len(shape) - out.ndim)), shape))
    keep = 2 if rule.ivar == "band" else 1
    out = out.reshape(*out.shape, *(1,) * (len(shape) - out.ndim))
    if max(out.shape[keep:], default=1) > 1:
        raise InputError("ivar varies too finely", found=out.shape, expected=f"one value for each {rule.ivar}")
    target = (shape[0], *shape[1:keep])
    return np.ascontiguousarray(np.broadcast_to(out.reshape(out.shape[:keep]), target))


def _worst(ivar: np.ndarray) -> str:
    bad = ivar[~np.isfinite(ivar) | (ivar < 0)]
    return f"{bad.flat[0]} and {bad.size - 1} more"


def cast(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values in another type, refused where it cannot hold them.

    Raises
    ------
    InputError : a finite value becomes infinite or wraps around.
    """
    kind = np.dtype(dtype)
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            out = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf).astype(kind)
        if not np.isfinite(out).all():
            raise InputError(f"a flux does not fit {dtype}", found=float(np.abs(values).max()),
                             expected=f"<= {np.finfo(kind).max}", fix="dtype='float32'")  # fmt: skip
        return np.asarray(out)
    bounds = np.iinfo(kind)
    if values.size and (np.nanmin(values) < bounds.min or np.nanmax(values) > bounds.max):
        raise InputError(f"a flux does not fit {dtype}", found=f"{values.min()} to {values.max()}",
                         expected=f"{bounds.min} to {bounds.max}", fix="dtype='float32'")  # fmt: skip
    return np.asarray(values.astype(kind))


# -- units ------------------------------------------------------------------------------------------------
def power_of_ten(flux: np.ndarray, ivar: np.ndarray | None = None) -> int:
    """The exponent that brings the median of abs(flux) to order one, 0 where it lies within [1e-3, 1e4]."""
    good = np.isfinite(flux) & (flux != 0)
    if ivar is not None:
        good &= np.broadcast_to(ivar, flux.shape) > 0
    if not good.any():
        return 0
    median = float(np.median(np.abs(flux[good])))
    return 0 if 1e-3 <= median <= 1e4 or median == 0 else round(math.log10(median))


def scaled_unit(unit: str, exponent: int) -> str:
    """The unit times a power of ten, as an astropy string."""
    if exponent == 0:
        return unit
    from astropy import units as u

    try:
        return str((u.Unit(f"1e{exponent}") * u.Unit(unit or "")).to_string())
    except ValueError:  # a name that astropy does not know, such as "nanomaggy" of an unknown survey
        return f"1e{exponent} {unit}"


def unit_factor(unit: str, to: str) -> float:
    """What a number in `unit` is multiplied with to be in `to`.

    Raises
    ------
    InputError : the units do not convert into each other.
    """
    if unit == to:
        return 1.0
    if to.endswith(f" {unit}") and to.startswith("1e"):
        return 10.0 ** -int(to.split(" ", 1)[0][2:])
    from astropy import units as u

    try:
        return float(u.Unit(unit or "").to(u.Unit(to or "")))
    except (ValueError, u.UnitConversionError, TypeError) as error:
        raise InputError("a unit that does not convert", found=unit or "(none)", expected=to or "(none)",
                         fix="give the unit of the source: --unit nJy") from error  # fmt: skip


def split_columns(schema: Schema, more: Mapping[str, Column]) -> Schema:
    """The schema with more columns."""
    return replace(schema, columns={**schema.columns, **more})
