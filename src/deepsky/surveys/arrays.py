"""Arrays and tables in memory, and NPY, NPZ and HDF5 files of arrays.

Images are (object, y, x), (object, band, y, x) or (object, y, x, band). Arrays with one value an object are ids,
positions and labels; ``x_train``, ``x_test``, ... are joined, and the split is kept. A table, or arrays without images,
are rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.schema import ImageSchema, Schema
from deepsky.source import Block, Source
from deepsky.surveys import _flat, _held, _rows
from deepsky.surveys._calibration import raised, stated
from deepsky.surveys._held import HDF5, Held
from deepsky.surveys._layout import IMAGES, Plan, quantity_of, understand
from deepsky.surveys._scanned import as_size, place
from deepsky.tables import as_table, columns_of, is_path, is_table
from deepsky.units import unit_factor

ENDINGS = (".npz", *HDF5)  # NPY files have a reader of their own


def claims(path: Path) -> bool:
    """One NPZ or HDF5 file."""
    return path.is_file() and path.suffix.lower() in ENDINGS


def open(
    source: Any,
    *,
    images: str | None = None,
    layout: str | None = None,
    shape: Sequence[int] | None = None,
    bands: Sequence[str] | None = None,
    pixel_scale: float | None = None,
    unit: str | None = None,
    size: int | tuple[int, int] | None = None,
    features: Sequence[str] | None = None,
    label_columns: Sequence[str] | None = None,
    id: str | None = None,
    ra: str | None = None,
    dec: str | None = None,
    ra_unit: str | None = None,
    sentinel: float | None = None,
    name: str = "",
) -> Source:
    """Understand arrays or a table.

    Parameters
    ----------
    source : an array, a dict of arrays, a DataFrame, an astropy Table, or the path of an NPY, NPZ or HDF5 file.
    images : name of the array that holds the images, where that is not plain.
    layout : "bands-first" or "bands-last", where the shape leaves it open.
    shape : (band, y, x) or (y, x) of images that are stored flat.
    bands : their names.
    pixel_scale : [arcsec]; or an array of that name with one a object.
    unit : of the flux, where the array does not say one itself.
    size : (y, x) [pixel], or one number for both: cropped or padded about the centre.
    features, label_columns : columns of a table that a network sees, and that are labels.
    id, ra, dec : arrays or columns of ids and positions; by default found by their names.
    ra_unit : "deg", "hour" or "rad", in place of what the array says.
    sentinel : value that means "not measured".
    name : of the survey.

    Raises
    ------
    InputError : objects instead of numbers, no images and no columns, shapes or units that do not fit each other.
    """
    where = str(source) if is_path(source) else f"a {type(source).__name__} in memory"
    rows = partial(_rows.source_of, where=where, name=name or "table", features=features, label_columns=label_columns,
                   id=id, ra=ra, dec=dec, ra_unit=ra_unit, sentinel=sentinel)  # fmt: skip
    if is_table(source) and not _with_images(source, shape, where):
        return rows(as_table(source))
    held, odd = _usable(_collect(source, where))
    if images in odd or any(k.lower() in IMAGES for k in odd):
        _refuse(odd, images, where)
    plan = understand(held, where, images=images, layout=layout, shape=shape, bands=bands, id=id, ra=ra, dec=dec,
                      ra_unit=ra_unit)  # fmt: skip
    if plan is None and odd:
        _refuse(odd, images, where)
    if plan is None:
        return rows(_flat.table_of(held, where, plain=features is not None))
    told = [f"array {k!r} of {kind} was left out" for k, kind in odd.items()]
    plan = replace(plan, notes=(*told, *plan.notes))
    return _image_source(plan, where, name, pixel_scale, unit, size, sentinel, guarded=is_path(source))


def _with_images(table: Any, shape: Sequence[int] | None, where: str) -> bool:
    """Whether the cells of a column are images; flat ones need a `shape`."""
    axes = {n: _cell_axes(column) for n, column in columns_of(table).items()}
    flat = [n for n, k in axes.items() if k == 1 and n.lower() in _flat.PICTURES]
    if flat and shape is None:
        raise InputError("rows that may be flat images", file=where, keyword=flat[0], found="one axis in a cell",
                         expected="(y, x) or (band, y, x)",
                         fix="shape=(y, x) or shape=(band, y, x) says how a row lies")  # fmt: skip
    return max(axes.values(), default=0) >= (2 if shape is None else 1)


def _cell_axes(column: Any) -> int:
    kind = getattr(column, "type", None)
    if isinstance(kind, pa.DataType):  # Arrow
        depth = 0
        while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            depth, kind = depth + 1, kind.value_type
        return depth
    if column.dtype == object:
        return max((_held.cell_axes(v) for v in column), default=0)
    return int(column.ndim) - 1


def _collect(source: Any, where: str) -> dict[str, Held]:
    """Arrays by name."""
    if is_path(source):
        return _held.arrays_of(Path(source))
    if isinstance(source, Mapping) or is_table(source):
        named = source if isinstance(source, Mapping) else columns_of(source)
        return {str(k): _held.in_memory(v, str(k), where) for k, v in named.items()}
    return {"images": _held.in_memory(source, file=where)}


def _usable(held: Mapping[str, Held]) -> tuple[dict[str, Held], dict[str, str]]:
    """The arrays of numbers and of text, and what the others hold."""
    odd = {}
    for key, one in held.items():
        text = one.dtype.kind in "SUO" and len(one.shape) == 1
        if one.dtype.kind not in "biufSU" and not text:
            odd[key] = (
                "records" if one.dtype.names else "lists or references" if one.dtype.kind == "V" else str(one.dtype)
            )
    return {k: h for k, h in held.items() if k not in odd}, odd


def _refuse(odd: Mapping[str, str], images: str | None, where: str) -> None:
    """Refuse records, objects and complex numbers where they would be the images or all there is."""
    named = [k for k in odd if k == images or k.lower() in IMAGES]
    key = [*named, *odd][0]
    raise InputError("an array of records, objects or complex numbers", file=where, keyword=key, found=odd[key],
                     expected="numbers", fix="save numbers, one array for each shape")  # fmt: skip


def _image_source(
    plan: Plan,
    where: str,
    name: str,
    pixel_scale: float | None,
    unit: str | None,
    size: int | tuple[int, int] | None,
    sentinel: float | None,
    *,
    guarded: bool,
) -> Source:
    target = as_size(size) or plan.size
    padded = any(new > old for new, old in zip(target, plan.size, strict=True))
    kind = plan.dtype
    measured = plan.ivar is not None or plan.sigma is not None or plan.variance is not None
    fine = measured or plan.mask is not None or padded or sentinel is not None or plan.masked
    fine = fine or kind.kind == "f"  # a NaN may stand in any of them, and all are not looked at before
    notes = list(plan.notes)
    flux_unit, quantity = _unit(plan, unit, where, notes)
    if not measured:
        notes.append("no noise: ivar is a mask, and S/N is not known")
    image = ImageSchema(
        plan.bands, target, unit=flux_unit, quantity=quantity,
        pixel_scale=pixel_scale, noise="measured" if measured else "unknown", ivar="pixel" if fine else "object",
        dtype=str(kind), psf=plan.psf_size,
    )  # fmt: skip
    columns = dict(plan.columns)
    if pixel_scale is not None:
        columns.pop("pixel_scale", None)
    schema = Schema(name or Path(where).stem if guarded else name or "arrays", {"image": image}, columns, source=where,
                    reader="arrays", notes=tuple(notes))  # fmt: skip
    listing = {k: v for k, v in plan.listing.items() if k in {"id", "ra", "dec"} or k in columns}
    pixels = int(np.prod(image.shape))
    nbytes = pixels * kind.itemsize + (pixels * (4 if measured else 1) if fine else 4)
    n = len(listing["id"])
    table = pa.table({**listing, "bytes": np.full(n, nbytes, np.int64), "_row": np.arange(n)})
    made = FileArrays if guarded else MemoryArrays
    return made(where, schema, plan, table, sentinel)


def _unit(plan: Plan, given: str | None, where: str, notes: list[str]) -> tuple[str, str]:
    """Unit and quantity of the flux: as given, or as the array says it; its errors must be in the same."""
    own, known = plan.images.unit, True
    try:
        unit, quantity = stated(own, where)
    except InputError as error:
        if error.expected is not None:  # magnitudes
            raise
        unit, quantity, known = "", "relative", False
        if given is None:
            notes.append(f"the unit of the images, {own!r}, is none that astropy knows: unit=... says another")
    if given is not None:
        unit, quantity = stated(str(given), where)
        if own and known and not _same(own, given):
            raise InputError("the images are in another unit", file=where, keyword="unit", found=own, expected=given,
                             fix=f"convert them first, images.to({given!r}), or leave the option away")  # fmt: skip
    for role, held, power in (("sigma", plan.sigma, 1), ("variance", plan.variance, 2), ("ivar", plan.ivar, -2)):
        if held is None or not held.unit or not unit:
            continue
        wanted = raised(unit, power)
        if not _same(held.unit, wanted):
            raise InputError(f"the {role} is in another unit than the images", file=where, found=held.unit,
                             expected=wanted, fix=f"convert it first: {role}.to({wanted!r})")  # fmt: skip
    return unit, quantity_of(quantity, unit, plan.dtype)


def _same(unit: str, other: str) -> bool:
    try:
        return bool(np.isclose(unit_factor(unit, other), 1, rtol=1e-9))
    except InputError:
        return False


@dataclass(frozen=True, eq=False)
class _Arrays(Source):
    """Images in arrays, as a `Plan` describes them."""

    plan: Plan
    listing: pa.Table = field(repr=False)
    sentinel: float | None = None

    def items(self) -> pa.Table:
        """One row an object."""
        return self.listing

    def places(self, items: pa.Table) -> list[str]:
        """The array and the place in it, as Python counts."""
        return [f"{self.path}, {self.plan.name}[{row}]" for row in items["_row"].to_pylist()]

    def read(self, items: pa.Table) -> Block:
        """Images of some rows, in the order (band, y, x)."""
        at = items["_row"].to_numpy()
        image = self.schema.observations["image"]
        assert isinstance(image, ImageSchema)
        raw = self.plan.planes(self.plan.images, at)
        flux, hidden = np.ma.getdata(raw), np.ma.getmaskarray(raw) if np.ma.isMaskedArray(raw) else None
        weight = self._weight(at, flux.shape)
        if hidden is not None:
            weight = np.where(hidden, 0, weight)
        if self.sentinel is not None:
            weight = np.where(flux == self.sentinel, 0, weight)
        if flux.dtype.kind == "f":
            seen = np.isfinite(flux)
            if not seen.all() and image.ivar == "pixel":
                flux, weight = np.where(seen, flux, 0), np.where(seen, weight, 0)
        flux = flux.astype(image.dtype, copy=False)
        if image.ivar == "pixel":
            flux, weight = place(flux, image.size)[0], place(np.broadcast_to(weight, flux.shape), image.size)[0]
        else:
            flux, weight = place(flux, image.size)[0], np.ones(len(at), np.float32)
        arrays = {"image.flux": flux, "image.ivar": weight}
        if self.plan.psf is not None:
            psf = self.plan.psf.rows(at).astype(np.float64).reshape(len(at), -1, *(self.plan.psf_size or (1, 1)))
            psf = np.broadcast_to(psf, (len(at), len(image.bands), *psf.shape[2:]))
            total = psf.sum(axis=(-2, -1), keepdims=True)
            arrays["image.psf"] = psf / np.where(total != 0, total, 1)
        return Block(tuple(items["id"].to_pylist()), arrays)

    def _weight(self, at: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Inverse variance of the pixels, from whichever array says it."""
        plan = self.plan
        weight: np.ndarray = np.ones(shape, np.uint8)
        with np.errstate(divide="ignore", invalid="ignore"):
            if plan.ivar is not None:
                weight = np.broadcast_to(plan.planes(plan.ivar, at), shape)
            elif plan.variance is not None or plan.sigma is not None:
                held = plan.variance if plan.variance is not None else plan.sigma
                assert held is not None
                given = np.broadcast_to(plan.planes(held, at), shape).astype(np.float64)
                square = given if plan.variance is not None else given**2
                weight = np.where(square > 0, 1.0 / np.where(square > 0, square, 1.0), 0.0)
                weight = np.where(given < 0, np.nan, weight)  # a negative error: the object is set aside for it
        if plan.mask is not None:
            weight = np.where(np.broadcast_to(plan.planes(plan.mask, at), shape) != 0, 0, weight)
        return np.asarray(weight)


@final
@dataclass(frozen=True, eq=False)
class MemoryArrays(_Arrays):
    """Arrays that are in memory already."""

    guarded: ClassVar[bool] = False


@final
@dataclass(frozen=True, eq=False)
class FileArrays(_Arrays):
    """Arrays of a file, read by child processes; the listing stays with the parent."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "listing": self.listing.slice(0, 0), "plan": replace(self.plan, listing={})}


def example(path: Path) -> Path:
    """Write an NPZ file with twenty made-up spirals and ellipses of 16x16 pixels in three bands; return it."""
    draw = np.random.default_rng(4)
    y, x = np.mgrid[:16, :16] - 7.5
    kind = np.arange(20) % 2
    r, angle = np.hypot(x, y * (1 + 0.6 * kind[:, None, None])), np.arctan2(y, x)
    arms = 1 + 0.8 * (1 - kind)[:, None, None] * np.cos(2 * angle - r)
    flux = 50 * np.exp(-r / 3)[..., None] * arms[..., None] * np.array([1.0, 0.8, 0.6])
    images = (20 + flux + draw.normal(0, 2, flux.shape)).clip(0, 255).astype(np.uint8)
    where = path / "arrays.npz"
    np.savez(where, images=images, labels=kind, class_names=np.array(["spiral", "elliptical"]),
             ra=150 + np.arange(20) / 100, dec=np.full(20, 2.0))  # fmt: skip
    return where
