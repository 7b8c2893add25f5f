"""From Samples to what a native survey stores: a schema, arrays, and a table of scalar columns."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch

from deepsky.errors import InputError
from deepsky.sample import Image, Observation, Row, Sample, Truth
from deepsky.schema import Column, ImageSchema, ObservationSchema, RowSchema, Schema
from deepsky.units import cast, power_of_ten, scaled_unit, stored_ivar, unit_factor

PARTS = {"vector": ("_x", "_y"), "spin2": ("1", "2")}
_SVO = re.compile(r"[\w-]+/[\w-]+\.(\w+?)(?:_SDSS)?")


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
    bands, filters = named(part.bands)
    return ImageSchema(
        bands=bands,
        filters=filters,
        size=(part.flux.shape[2], part.flux.shape[3]),
        unit=scaled_unit(part.unit, power_of_ten(part.flux.numpy(), part.ivar.expand(part.flux.shape).numpy())),
        pixel_scale=float(str(scales[0].numpy())) if same else None,
        noise="measured",
        quantity="f_nu" if "Jy" in part.unit else "relative",
        ivar=storage,  # type: ignore[arg-type]
        dtype=dtype,
        psf=None if part.psf is None else (part.psf.shape[-2], part.psf.shape[-1]),
    )


def named(bands: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Short names and SVO filter ids of bands that a simulator calls by their ids; other names stay as they are.

    >>> named(("Paranal/OmegaCAM.u_SDSS", "Paranal/OmegaCAM.g_SDSS"))
    (('u', 'g'), ('Paranal/OmegaCAM.u_SDSS', 'Paranal/OmegaCAM.g_SDSS'))
    >>> named(("g", "r"))
    (('g', 'r'), ())
    """
    found = [_SVO.fullmatch(b) for b in bands]
    short = tuple(f[1] for f in found if f is not None)
    return (short, bands) if len(set(short)) == len(bands) > 0 else (bands, ())


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
            if part.bands not in (rule.bands, rule.filters):
                raise InputError("bands differ between batches", found=part.bands, expected=rule.bands)
            factor = unit_factor(part.unit, rule.unit)
            if part.psf is not None and rule.psf is not None:
                arrays[f"{name}.psf"] = part.psf.numpy().astype(np.float32)
            if "pixel_scale" in schema.columns:
                columns["pixel_scale"] = part.pixel_scale.expand(len(sample)).double().numpy()
        if bool((~torch.isfinite(part.flux) & part.measured).any()):
            raise InputError("a flux that is not finite where ivar > 0", found=name, expected="ivar = 0 there")
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
