"""Native surveys, to be converted: other bands, size, pixel scale or unit, as given or like those of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.io import read_json
from deepsky.schema import Column, ImageSchema, ObservationSchema, RowSchema, Schema
from deepsky.source import Block, Source
from deepsky.survey import Survey
from deepsky.surveys import _convert
from deepsky.surveys._scanned import as_size
from deepsky.units import unit_factor

OURS = {"key", "tile", "row", "group", "fold", "crc", "unmeasured", "edge", "phash"}  # measured or made anew


def claims(path: Path) -> bool:
    """A folder with ``schema.json`` and ``index.parquet``."""
    return (path / "schema.json").is_file() and (path / "index.parquet").is_file()


def open(
    path: str | Path,
    *,
    like: str | Path | None = None,
    observation: str | None = None,
    bands: Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
    pixel_scale: float | None = None,
    unit: str | None = None,
    where: str | None = None,
    name: str = "",
) -> NativeSurvey:
    """Understand a native survey that is to be converted.

    Folds and labels are kept. Pixel scales change by the area that pixels share; the sum of the flux is conserved.

    Parameters
    ----------
    path : of the survey.
    like : folder of a model or of a survey whose bands, size, pixel scale and unit are wanted.
    observation : the image (or row) to convert, if there are several; the others stay as they are.
    bands : names (of a row: features), in the order wanted; others are left out.
    size : (y, x) [pixel], or one number for both: cropped or padded about the centre.
    pixel_scale : [arcsec].
    unit : of the flux; it must convert, by a factor, from what it is.
    where : expression that objects must fulfil, e.g. ``"mag < 22"``.
    name : of the new survey, by default as it was.

    Raises
    ------
    InputError : a band is missing, the unit does not convert, a scale is not known, or nothing is left.
    """
    survey = Survey.load(path)
    if where is not None:
        survey = survey.where(where)
    if len(survey) == 0:
        raise InputError("no object is left", file=path, found=where)
    chosen, wanted = _like(like) if like is not None else (observation, None)
    chosen = _choose(survey, observation or chosen)
    old = survey.schema.observations[chosen]
    if isinstance(old, RowSchema):
        for option, value in (("size", size), ("pixel_scale", pixel_scale), ("unit", unit)):
            if value is not None:
                raise InputError("rows have no such property", file=path, found=option, expected="an image")
        new: ObservationSchema = _row(old, bands or (wanted.names if isinstance(wanted, RowSchema) else None), path)
    else:
        if isinstance(wanted, ImageSchema):
            bands = bands or wanted.bands
            size = size if size is not None else wanted.size
            pixel_scale = pixel_scale or wanted.pixel_scale
            unit = unit if unit is not None else wanted.unit
        new = _image(survey, old, bands, size, pixel_scale, unit)
    observations = {**survey.schema.observations, chosen: new}
    columns = {n: c for n, c in survey.schema.columns.items() if n not in OURS}
    columns["input_fold"] = Column("string", description="fold of the survey that was converted")
    if isinstance(new, ImageSchema) and new.pixel_scale is not None:
        columns.pop("pixel_scale", None)
    if isinstance(old, ImageSchema) and isinstance(new, ImageSchema):
        for key, column in columns.items():
            if column.array and column.moves == "image" and column.unit == old.unit:
                columns[key] = replace(column, unit=new.unit)
    notes = (*survey.schema.notes, *_changes(old, new))
    schema = replace(survey.schema, name=name or survey.schema.name, observations=observations, columns=columns,
                     source=str(path), reader="native", notes=notes)  # fmt: skip
    return NativeSurvey(str(path), schema, chosen, survey.rows, where or "")


def _like(path: str | Path) -> tuple[str, ObservationSchema]:
    """The observation of a model's contract, or the first of a survey."""
    for file in (Path(path) / "model.json", Path(path) / "schema.json"):
        if file.is_file():
            data: dict[str, Any] = read_json(file)
            if file.name == "model.json":
                name, described = data["contract"]["observation"], data["contract"]["schema"]
            else:
                name, described = next(iter(data["observations"].items()))
            made = Schema.from_json({"name": "", "observations": {name: described}, "columns": {}})
            return name, made.observations[name]
    raise InputError("neither a model nor a survey", file=path, expected="a folder with model.json or schema.json")


def _choose(survey: Survey, name: str | None) -> str:
    names = list(survey.schema.observations)
    if name is None:
        images = [n for n, o in survey.schema.observations.items() if isinstance(o, ImageSchema)]
        return (images or names)[0]
    if name not in names:
        raise InputError("the survey has no such observation", file=survey.path, found=name, known=names)
    return name


def _row(old: RowSchema, names: Sequence[str] | None, path: object) -> RowSchema:
    if names is None:
        return old
    at = _order(old.names, names, path)
    return replace(old, names=tuple(names), units=tuple(old.units[i] for i in at))


def _order(have: Sequence[str], wanted: Sequence[str], path: object) -> list[int]:
    missing = [b for b in wanted if b not in have]
    if missing or len(set(wanted)) < len(wanted):
        raise InputError("bands are missing" if missing else "a band is named twice", file=path,
                         found=", ".join(missing or wanted), known=have)  # fmt: skip
    return [list(have).index(b) for b in wanted]


def _image(
    survey: Survey,
    old: ImageSchema,
    bands: Sequence[str] | None,
    size: int | tuple[int, int] | None,
    pixel_scale: float | None,
    unit: str | None,
) -> ImageSchema:
    at = _order(old.bands, bands, survey.path) if bands is not None else list(range(len(old.bands)))
    if unit is not None:
        unit_factor(old.unit, unit)  # raises here, before anything is read
    if pixel_scale is not None and not pixel_scale > 0:
        raise InputError("a pixel scale is positive", file=survey.path, found=pixel_scale)
    varies = old.pixel_scale is None
    if pixel_scale is not None and varies and "pixel_scale" not in survey.index.column_names:
        raise InputError("the pixel scale of this survey is not known", file=survey.path, expected="arcsec",
                         fix="ingest the files again with --pixel-scale")  # fmt: skip
    changed = pixel_scale is not None and (varies or not np.isclose(pixel_scale, old.pixel_scale or 0, rtol=1e-6))
    ratio = pixel_scale / old.pixel_scale if changed and pixel_scale and old.pixel_scale else 1.0
    target = as_size(size) or (_convert.new_size(old.size, ratio) if changed else old.size)
    padded = any(new * ratio > have for new, have in zip(target, old.size, strict=True))
    factor = unit is not None and unit_factor(old.unit, unit) != 1.0
    whole = old.dtype.startswith(("u", "i"))
    psf = old.psf
    if changed and psf is not None and not varies:
        empty = _convert.resample_psf(np.ones(psf), ratio)
        psf = (empty.shape[0], empty.shape[1])
    return replace(
        old,
        bands=tuple(old.bands[i] for i in at),
        filters=tuple(old.filters[i] for i in at) if old.filters else (),
        size=target,
        pixel_scale=pixel_scale if pixel_scale is not None else old.pixel_scale,
        unit=unit if unit is not None else old.unit,
        ivar="pixel" if padded or changed else old.ivar,
        dtype="float32" if whole and (changed or factor) else old.dtype,
        correlated=old.correlated or changed,
        psf=None if changed and varies else psf,
    )


def _changes(old: ObservationSchema, new: ObservationSchema) -> list[str]:
    words = []
    for key in ("bands", "names", "size", "pixel_scale", "unit"):
        a, b = getattr(old, key, None), getattr(new, key, None)
        if a != b:
            words.append(f"converted: {key} {a} -> {b}")
    return words


@final
@dataclass(frozen=True, eq=False)
class NativeSurvey(Source):
    """Objects of a native survey (`rows` of it), one observation of which is converted to the schema."""

    guarded: ClassVar[bool] = False
    chosen: str
    rows: np.ndarray = field(repr=False)
    where: str = ""

    def _survey(self) -> Survey:
        survey = Survey.load(self.path)
        return survey.where(self.where) if self.where else survey

    def items(self) -> pa.Table:
        """One row an object, with its columns and labels, and its fold as ``input_fold``."""
        survey = self._survey()
        index = survey.index
        nbytes = 0
        for rule in self.schema.observations.values():
            pixels = int(np.prod(rule.shape))
            nbytes += pixels * np.dtype(rule.dtype).itemsize + (4 * pixels if rule.ivar == "pixel" else 4)
        gone = OURS | ({"pixel_scale"} - self.schema.columns.keys())
        keep = [n for n in index.column_names if n not in gone and not n.startswith("input_")]
        table = index.select(keep).append_column("bytes", pa.array(np.full(len(survey), nbytes, np.int64)))
        if "fold" in index.column_names:
            fold = index["fold"].cast(pa.string())
            table = table.append_column("input_fold", fold)
        return table.append_column("_position", pa.array(np.arange(len(survey))))

    def read(self, items: pa.Table) -> Block:
        """Objects as the new schema says."""
        survey = self._survey()
        at = items["_position"].to_numpy()
        arrays: dict[str, np.ndarray] = {}
        columns: dict[str, np.ndarray] = {}
        old, new = survey.schema.observations[self.chosen], self.schema.observations[self.chosen]
        for name in survey.schema.observations:
            stored = {p: survey.array(f"{name}.{p}", at) for p in ("flux", "ivar", "psf")}
            part = {p: a for p, a in stored.items() if a is not None}
            if name == self.chosen:
                part = self._converted(survey, part, old, new, at)
            arrays |= {f"{name}.{p}": a for p, a in part.items()}
        for name, column in survey.schema.columns.items():
            if column.array:
                value = survey.array(f"truth.{name}", at)
                if value is not None:
                    arrays[f"truth.{name}"] = self._truth(survey, value, column, old, new, at)
            elif column.moves == "vector" and len(column.parts) == 2:
                ratio, (dy, dx) = self._geometry(survey, old, new, at)
                for part_name, shift in zip(column.parts, (dx, dy), strict=True):
                    columns[part_name] = survey.column(part_name)[at] / ratio - shift
        return Block(tuple(items["id"].to_pylist()), arrays, columns)

    def _geometry(
        self, survey: Survey, old: ObservationSchema, new: ObservationSchema, at: np.ndarray
    ) -> tuple[np.ndarray, tuple[float, float]]:
        """(n,) new pixel scale over old, and (y, x) [new pixel] by which the centre moves."""
        if not isinstance(old, ImageSchema) or not isinstance(new, ImageSchema):
            return np.ones(len(at)), (0.0, 0.0)
        ratio = self._ratio(survey, old, new, at)
        same = np.allclose(ratio, 1.0, rtol=1e-6)
        return ratio, _convert.crop_shift(old.size, new.size) if same else (0.0, 0.0)

    def _ratio(self, survey: Survey, old: ImageSchema, new: ImageSchema, at: np.ndarray) -> np.ndarray:
        """(n,) new pixel scale over old."""
        if new.pixel_scale is None:
            return np.ones(len(at))
        have = survey.column("pixel_scale")[at] if old.pixel_scale is None else np.full(len(at), old.pixel_scale)
        return np.asarray(new.pixel_scale / have)

    def _converted(
        self,
        survey: Survey,
        part: dict[str, np.ndarray],
        old: ObservationSchema,
        new: ObservationSchema,
        at: np.ndarray,
    ) -> dict[str, np.ndarray]:
        if isinstance(old, RowSchema) or isinstance(new, RowSchema):
            assert isinstance(old, RowSchema) and isinstance(new, RowSchema)
            order = _order(old.names, new.names, self.path)
            return {p: a[:, order] for p, a in part.items()}
        order = _order(old.bands, new.bands, self.path)
        flux, ivar = part["flux"][:, order], part["ivar"]
        ivar = ivar[:, order] if ivar.ndim > 1 else ivar
        factor = unit_factor(old.unit, new.unit)
        ratio = self._ratio(survey, old, new, at)
        same = bool(np.allclose(ratio, 1.0, rtol=1e-6))
        if new.ivar == "pixel" and ivar.ndim < 4:
            ivar = np.broadcast_to(ivar.reshape(*ivar.shape, *(1,) * (4 - ivar.ndim)), flux.shape)
        if same:
            flux = _convert.crop(flux, new.size)
            ivar = _convert.crop(ivar, new.size) if ivar.ndim == 4 else ivar
        else:
            flux, ivar = self._resampled(flux, ivar, ratio, new)
        if factor != 1.0:
            flux, ivar = flux.astype(np.float64) * factor, ivar.astype(np.float64) / factor**2
        out = {"flux": flux, "ivar": ivar}
        if "psf" in part and new.psf is not None:
            psf = part["psf"][:, order]
            out["psf"] = psf if same else _convert.resample_psf(psf, float(ratio[0]))
        return out

    def _resampled(
        self, flux: np.ndarray, ivar: np.ndarray, ratio: np.ndarray, new: ImageSchema
    ) -> tuple[np.ndarray, np.ndarray]:
        out = np.zeros((*flux.shape[:2], *new.size)), np.zeros((*flux.shape[:2], *new.size))
        mean = new.quantity in _convert.MEANS
        for value in np.unique(np.round(ratio, 9)):
            rows = np.flatnonzero(np.isclose(ratio, value, rtol=1e-8))
            if np.isfinite(value):  # an object of unknown scale stays unmeasured, and is set aside
                out[0][rows], out[1][rows] = _convert.resample(flux[rows], ivar[rows], value, new.size, mean=mean)
        return out

    def _truth(
        self,
        survey: Survey,
        value: np.ndarray,
        column: Column,
        old: ObservationSchema,
        new: ObservationSchema,
        at: np.ndarray,
    ) -> np.ndarray:
        """True images and boxes in the new geometry."""
        if not isinstance(old, ImageSchema) or not isinstance(new, ImageSchema):
            return value
        ratio, (dy, dx) = self._geometry(survey, old, new, at)
        if column.moves == "boxes":
            before = np.array([(old.size[1] - 1) / 2, (old.size[0] - 1) / 2] * 2)
            after = np.array([(new.size[1] - 1) / 2 - dx, (new.size[0] - 1) / 2 - dy] * 2)
            return np.asarray((value - before) / ratio.reshape(-1, 1, 1) + after)
        if column.moves != "image" or value.shape[-2:] != old.size:
            return value
        if value.shape[1] == len(old.bands):
            value = value[:, _order(old.bands, new.bands, self.path)]
        if np.allclose(ratio, 1.0, rtol=1e-6):
            value = _convert.crop(value, new.size)
        else:
            value = self._resampled(value, np.ones_like(value), ratio, new)[0]
        return value * unit_factor(old.unit, new.unit) if column.unit == old.unit else value


def example(path: Path) -> Path:
    """Write a native survey of twelve made-up galaxies in two bands; return its folder."""
    import torch

    from deepsky import store
    from deepsky.io import blake_keys
    from deepsky.sample import Image, Sample

    draw = np.random.default_rng(3)
    n, ids = 12, tuple(f"galaxy{i:02d}" for i in range(12))
    y, x = np.mgrid[:20, :20] - 9.5
    width = draw.uniform(2, 4, (n, 1, 1, 1))
    flux = 20 * np.exp(-(x**2 + y**2) / (2 * width**2)) * draw.uniform(0.5, 1.5, (n, 2, 1, 1))
    flux += draw.normal(size=flux.shape)
    sky = torch.from_numpy(150 + np.arange(n) / 50.0), torch.from_numpy(np.full(n, 2.0))
    image = Image(torch.from_numpy(flux).float(), torch.ones(n, 2, 1, 1), unit="nJy", bands=("g", "r"),
                  pixel_scale=torch.full((n,), 0.2))  # fmt: skip
    sample = Sample(ids, torch.from_numpy(blake_keys(ids).view(np.int64)), *sky, {"image": image})
    return store.write([sample], path / "survey", name="made up", real=True).path
