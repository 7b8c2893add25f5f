"""Contract: what a saved model was trained on, and whether a survey fits it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import astropy.units as u
import numpy as np
import torch

from deepsky.errors import ContractError, InputError
from deepsky.sample import Image, Sample
from deepsky.schema import ImageSchema, ObservationSchema, RowSchema, Schema
from deepsky.survey import Survey
from deepsky.units import unit_factor

SAME_SCALE = 0.02  # relative difference of pixel scales that counts as none
SAME_RANGE = 0.05  # by which a median may lie outside the range of training: a range of one value has an error too
LOOKED_AT = 256  # objects whose noise and PSF are held against the range of training
FINER = 8  # by how much a PSF is interpolated before its width is read


@dataclass(frozen=True)
class Contract:
    """What the training survey was.

    Attributes
    ----------
    observation : the name of the observation that the network sees; `schema` describes it.
    dtype : in which the network was calibrated and predicts: "float32" or "bfloat16".
    psf_fwhm, depth : (band, (1%, 50%, 99%)) [arcsec], [unit, one sigma a pixel] of the training fold, where measured.
    footprint : HEALPix cells (order 5, nested) that hold training objects.
    real : False if the model was trained on a simulation.
    """

    observation: str
    schema: ObservationSchema
    dtype: str = "float32"
    psf_fwhm: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    depth: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    footprint: tuple[int, ...] = ()
    real: bool = True
    survey: str = ""

    @property
    def size(self) -> tuple[int, ...]:
        """(y, x) of an image; () for rows."""
        return self.schema.size if isinstance(self.schema, ImageSchema) else ()

    def json(self) -> dict[str, Any]:
        """As JSON literals."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Contract:
        """Rebuild from JSON literals."""
        name = data["observation"]
        schema = Schema.from_json({"name": "", "observations": {name: data["schema"]}, "columns": {}}).observations[
            name
        ]
        rest: dict[str, Any] = {k: data[k] for k in ("observation", "dtype", "real", "survey")}
        for k in ("psf_fwhm", "depth"):
            rest[k] = {band: tuple(v) for band, v in data[k].items()}
        return cls(schema=schema, footprint=tuple(data["footprint"]), **rest)

    @classmethod
    def of(cls, survey: Survey, observation: str, some: Sample, dtype: str) -> Contract:
        """The contract of a training fold, its ranges measured on `some` of its objects."""
        part, schema = some.observation(observation), survey.schema.observations[observation]
        made = cls(
            observation, schema, dtype=dtype, real=survey.schema.real, survey=survey.name, footprint=_cells(survey)
        )
        if not isinstance(part, Image) or not isinstance(schema, ImageSchema):
            return made
        return replace(made, **_measured(part, schema))

    def check(self, survey: Survey, model: object = "MODEL") -> tuple[int, ...] | None:
        """The order in which to take the survey's bands, or None where they already fit.

        Parameters
        ----------
        model : the model's folder, for the command in the message.

        Raises
        ------
        ContractError : what differs, and the command that mends it.
        """
        here, mine = survey.schema.observations.get(self.observation), self.schema
        if here is None or here.kind != mine.kind:
            raise ContractError(
                "the survey has no such observation",
                file=survey.path,
                keyword=self.observation,
                found=", ".join(f"{n} ({o.kind})" for n, o in survey.schema.observations.items()),
                expected=mine.kind,
            )
        names, wanted = _names(here), _names(mine)
        places = [_place(here, mine, b) for b in wanted]
        missing = [b for b, at in zip(wanted, places, strict=True) if at is None]
        if missing:
            raise ContractError(
                "bands are missing" if isinstance(mine, ImageSchema) else "columns are missing",
                file=survey.path,
                keyword=", ".join(missing),
                found=", ".join(names),
                expected=", ".join(wanted),
                fix=f"if these are the same filters: deepsky ingest SOURCE --bands {','.join(wanted)} --to NEW"
                if {b.lower() for b in wanted} <= {b.lower() for b in names}
                else "the model needs them all; add them, or train one on those that there are",
            )
        order = tuple(at for at in places if at is not None)
        if isinstance(here, ImageSchema) and isinstance(mine, ImageSchema):
            self._check_meaning(here, mine, order, survey)
            self._check_form(here, mine, survey, shlex.join(["deepsky", "ingest", str(survey.path)]), model)
        elif isinstance(here, RowSchema) and isinstance(mine, RowSchema):
            for name, at, unit in zip(wanted, order, mine.units, strict=True):
                found = here.units[at]
                if _factor(found, unit) != 1:
                    raise ContractError("another unit", file=survey.path, keyword=name, found=found or "(none)",
                                        expected=unit or "(none)", fix="convert that column of the table")  # fmt: skip
        return None if order == tuple(range(len(names))) else order

    def doubts(self, survey: Survey) -> tuple[str, ...]:
        """What `check` could not compare because one side does not say, and sky noise or PSF outside the range of
        training, in words; for a survey that passed it."""
        here, mine = survey.schema.observations[self.observation], self.schema
        found = []
        if mine.noise != "unknown" and here.noise == "unknown":
            found.append("noise: trained where it was known, and this survey does not know it")
        if not (isinstance(here, ImageSchema) and isinstance(mine, ImageSchema)):
            return tuple(found)
        order = [_place(here, mine, b) for b in mine.bands]
        there = ["" if at is None else _filter(here, here.bands[at]) for at in order]
        unsure = [b for b, f in zip(mine.bands, there, strict=True) if not (f and _filter(mine, b))]
        if unsure:
            found.append(f"filters of {', '.join(unsure)}: compared by name only")
        if not len(_scales(survey, here)) or mine.pixel_scale is None:
            found.append("pixel scale: not known, or not one, in this survey or the training survey")
        return (*found, *self._beyond(survey, here, mine))

    def _beyond(self, survey: Survey, here: ImageSchema, mine: ImageSchema) -> Iterator[str]:
        """Bands whose sky noise or PSF, as a median over some objects, lies outside the range of the training fold."""
        if not len(survey) or not (self.depth or self.psf_fwhm):
            return
        some = np.unique(np.linspace(0, len(survey) - 1, min(len(survey), LOOKED_AT)).astype(np.int64))
        part = survey.gather(some, truth=(), observations=(self.observation,)).observation(self.observation)
        assert isinstance(part, Image)
        found = _measured(part, here)
        for name, words, unit in (("depth", "sky noise", f" {mine.unit}".rstrip()), ("psf_fwhm", "PSF FWHM", '"')):
            for band, (low, _, high) in getattr(self, name).items():
                at = _place(here, mine, band)
                median = found[name].get("" if at is None else here.bands[at], (low, low, low))[1]
                if not low / (1 + SAME_RANGE) <= median <= high * (1 + SAME_RANGE):
                    yield (f"{words} of {band}: {median:.3g}{unit} here (median), {low:.3g} to {high:.3g}{unit} in "
                           "training: the answers are extrapolated")  # fmt: skip

    def _check_meaning(self, here: ImageSchema, mine: ImageSchema, order: tuple[int, ...], survey: Survey) -> None:
        """What no conversion can mend: filters and quantity."""
        for band, at in zip(mine.bands, order, strict=True):
            found, expected = _filter(here, here.bands[at]), _filter(mine, band)
            if found and expected and found != expected:
                raise ContractError(
                    "the same name for another filter",
                    file=survey.path,
                    keyword=band,
                    found=found,
                    expected=expected,
                    fix="train on this survey, or fine-tune: a colour in one system is not one in another",
                )
        if here.quantity != mine.quantity:
            unknown = here.quantity == "relative" and not here.unit
            raise ContractError(
                "another quantity",
                file=survey.path,
                found=here.quantity,
                expected=mine.quantity,
                fix=f"say what the files hold: deepsky ingest SOURCE --unit {shlex.quote(mine.unit)} --to NEW"
                if unknown and mine.unit
                else "train on this survey: no factor turns the one into the other",
            )

    def _check_form(self, here: ImageSchema, mine: ImageSchema, survey: Survey, command: str, model: object) -> None:
        """What a conversion can mend, all of it in one message: unit, size and pixel scale."""
        how = f"{command} --like {shlex.quote(str(model))} --to NEW"
        told = []
        factor = _factor(here.unit, mine.unit)
        if factor != 1:
            told.append(("another unit", here.unit or "(none)", mine.unit or "(none)"))
        if factor is None:
            how = f"state the unit of the files: deepsky ingest SOURCE --unit {shlex.quote(mine.unit)} --to NEW"
        if here.size != mine.size:
            one, two = (f"{o.size[0]} x {o.size[1]} pixels" for o in (here, mine))
            told.append(("images of another size", one, two))
        scales = _scales(survey, here)
        if mine.pixel_scale is not None and not np.allclose(scales, mine.pixel_scale, rtol=SAME_SCALE, atol=0):
            ends = sorted({f'{scales.min():.4g}"', f'{scales.max():.4g}"'})
            within = f'{mine.pixel_scale:.4g}" (within {SAME_SCALE:.0%})'
            told.append(("another pixel scale", " to ".join(ends), within))
        if told:
            problems, found, expected = zip(*told, strict=True)
            raise ContractError(", ".join(problems), file=survey.path, found=", ".join(found),
                                expected=", ".join(expected), fix=how)  # fmt: skip


def reordered(sample: Sample, observation: str, order: tuple[int, ...] | None) -> Sample:
    """The sample with its bands taken in another order."""
    if order is None:
        return sample
    part, at = sample.observation(observation), torch.tensor(order)
    ivar = part.ivar if part.ivar.shape[1] == 1 and part.flux.shape[1] > 1 else part.ivar[:, at]
    changes: dict[str, Any] = {"flux": part.flux[:, at], "ivar": ivar}
    if isinstance(part, Image):
        changes |= {"bands": tuple(part.bands[i] for i in order), "psf": None if part.psf is None else part.psf[:, at]}
    else:
        names, units = getattr(part, "names", ()), getattr(part, "units", ())
        changes |= {"names": tuple(names[i] for i in order), "units": tuple(units[i] for i in order)}
    return replace(sample, observations={**sample.observations, observation: replace(part, **changes)})


def psf_fwhm(part: Image, most: int = 256) -> np.ndarray:
    """(n, band) [arcsec] diameter of the circle as large as the area above half the PSF's peak.

    The PSF is interpolated by its Fourier series first, so that a peak between pixels counts for what it is; without
    light, NaN.

    Parameters
    ----------
    most : objects, evenly spread, that are looked at; a sum over all would take longer than it tells.
    """
    assert part.psf is not None
    rows = np.unique(np.linspace(0, len(part.psf) - 1, min(len(part.psf), most)).astype(np.int64))
    psf, scale = part.psf[rows].double(), part.pixel_scale.double().reshape(-1)[rows]
    up = [_finer(n) for n in psf.shape[-2:]]
    areas = []
    for some in torch.split(psf.flatten(0, 1), 64):  # finer images are large: a block at a time
        fine = up[0] @ some @ up[1].T
        peak = fine.amax((-1, -2), keepdim=True)
        area = (fine >= peak / 2).sum((-1, -2)).double() / FINER**2
        areas.append(torch.where(peak[:, 0, 0] > 0, area, torch.nan))
    diameter = 2 * torch.sqrt(torch.cat(areas).reshape(psf.shape[:2]) / np.pi)
    return (diameter * scale[:, None]).numpy()


def _finer(n: int) -> torch.Tensor:
    """(FINER n, n) matrix of the periodic sinc interpolation of n values."""
    x = torch.arange(n * FINER, dtype=torch.float64)[:, None] / FINER - torch.arange(n, dtype=torch.float64)
    top = torch.sin(np.pi * x)
    low = n * torch.sin(np.pi * x / n) if n % 2 else n * torch.tan(np.pi * x / n)
    return torch.where(low.abs() < 1e-9, 1.0, top / torch.where(low.abs() < 1e-9, 1.0, low))


def _sky_sigma(part: Image) -> np.ndarray:
    """(n, band) one sigma a pixel, NaN where nothing was measured."""
    # not expanded first: the median of a tensor with strides of zero reads beyond its memory (torch 2.13)
    ivar = torch.where(part.ivar > 0, part.ivar, torch.nan).flatten(2)
    return torch.rsqrt(torch.nanmedian(ivar, 2).values).expand(part.flux.shape[:2]).numpy()


def _measured(part: Image, schema: ImageSchema) -> dict[str, Any]:
    """`depth` and `psf_fwhm` of some objects, by band, where they are known."""
    return {
        "depth": {} if schema.noise == "unknown" else _ranges(part.bands, _sky_sigma(part)),
        "psf_fwhm": {} if part.psf is None else _ranges(part.bands, psf_fwhm(part)),
    }


def _ranges(bands: tuple[str, ...], values: np.ndarray) -> dict[str, tuple[float, float, float]]:
    found = {}
    for band, column in zip(bands, values.T, strict=True):
        good = column[np.isfinite(column)]
        if len(good):
            low, middle, high = np.quantile(good, [0.01, 0.5, 0.99])
            found[band] = (float(low), float(middle), float(high))
    return found


def _cells(survey: Survey) -> tuple[int, ...]:
    from astropy_healpix import HEALPix

    ra, dec = survey.column("ra"), survey.column("dec")
    known = np.isfinite(ra) & np.isfinite(dec)
    cells = HEALPix(32, order="nested").lonlat_to_healpix(ra[known] * u.deg, dec[known] * u.deg)
    return tuple(int(c) for c in np.unique(cells))


def _filter(schema: ImageSchema, band: str) -> str:
    """The SVO id of a band, "" where it is not known; some simulations call their bands by it."""
    known = schema.filters[schema.bands.index(band)] if schema.filters else ""
    return known or (band if "/" in band else "")


def _place(here: ObservationSchema, mine: ObservationSchema, name: str) -> int | None:
    """Where the band or feature `name` of `mine` stands in `here`: by its name, else by its filter id."""
    names = _names(here)
    if name in names:
        return names.index(name)
    if isinstance(here, ImageSchema) and isinstance(mine, ImageSchema):
        wanted = _filter(mine, name)
        there = [_filter(here, b) for b in here.bands]
        return there.index(wanted) if wanted and wanted in there else None
    return None


def _names(schema: ObservationSchema) -> tuple[str, ...]:
    return schema.bands if isinstance(schema, ImageSchema) else schema.names


def _scales(survey: Survey, schema: ImageSchema) -> np.ndarray:
    """Pixel scales [arcsec] as far as they are known: one for all, or one an object; empty where none is."""
    if schema.pixel_scale is not None:
        return np.array([schema.pixel_scale])
    if "pixel_scale" not in survey.index.column_names:
        return np.zeros(0)
    each = survey.column("pixel_scale").astype(np.float64)
    return each[np.isfinite(each)]


def _factor(unit: str, to: str) -> float | None:
    """What turns a number of one unit into the other, 1 up to rounding; None where nothing does."""
    try:
        factor = unit_factor(unit, to)
    except InputError:
        return None
    return 1.0 if np.isclose(factor, 1.0, rtol=1e-6) else factor
