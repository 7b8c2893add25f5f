"""Contract: what a saved model was trained on, and whether a survey fits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import astropy.units as u
import numpy as np
import torch

from deepsky.errors import ContractError
from deepsky.sample import Image, Sample
from deepsky.schema import ImageSchema, ObservationSchema, RowSchema, Schema
from deepsky.survey import Survey


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
        depth = {} if schema.noise == "unknown" else _ranges(part.bands, _sky_sigma(part))
        return replace(made, depth=depth, psf_fwhm={} if part.psf is None else _ranges(part.bands, psf_fwhm(part)))

    def check(self, survey: Survey) -> tuple[int, ...] | None:
        """The order in which to take the survey's bands, or None where they already fit.

        Raises
        ------
        ContractError : what differs, and the command that mends it.
        """
        here = survey.schema.observations.get(self.observation)
        how = f"deepsky ingest {survey.path} --like MODEL --to NEW"
        if here is None or here.kind != self.schema.kind:
            raise ContractError(
                "the survey has no such observation",
                file=survey.path,
                keyword=self.observation,
                found=", ".join(survey.schema.observations),
                expected=self.schema.kind,
            )
        mine = self.schema
        names = here.names if isinstance(here, RowSchema) else here.bands
        wanted = mine.names if isinstance(mine, RowSchema) else mine.bands
        missing = [b for b in wanted if b not in names]
        if missing:
            raise ContractError(
                "bands are missing",
                file=survey.path,
                keyword=", ".join(missing),
                found=", ".join(names),
                expected=", ".join(wanted),
                fix="the model needs them all; add them, or train one on the bands that there are",
            )
        if isinstance(here, ImageSchema) and isinstance(mine, ImageSchema):
            self._check_image(here, mine, survey, how)
        order = tuple(names.index(b) for b in wanted)
        return None if order == tuple(range(len(names))) else order

    def _check_image(self, here: ImageSchema, mine: ImageSchema, survey: Survey, how: str) -> None:
        for band, a, b in zip(mine.bands, mine.filters, [_filter(here, n) for n in mine.bands], strict=False):
            if a and b and a != b:
                raise ContractError(
                    "the same name for another filter",
                    file=survey.path,
                    keyword=band,
                    found=b,
                    expected=a,
                    fix="train on this survey, or fine-tune: a colour in one system is not one in another",
                )
        if here.size != mine.size:
            raise ContractError(
                "images of another size",
                file=survey.path,
                found=f"{here.size[0]} x {here.size[1]} pixels",
                expected=f"{mine.size[0]} x {mine.size[1]}",
                fix=how,
            )
        one, two = here.pixel_scale, mine.pixel_scale
        if one is not None and two is not None and not np.isclose(one, two, rtol=0.02):
            raise ContractError(
                "another pixel scale",
                file=survey.path,
                found=f'{here.pixel_scale}"',
                expected=f'{mine.pixel_scale}" (within 2%)',
                fix=how,
            )
        if here.unit != mine.unit and not _same_unit(here.unit, mine.unit):
            raise ContractError(
                "another unit",
                file=survey.path,
                found=here.unit or "(none)",
                expected=mine.unit or "(none)",
                fix=how if _converts(here.unit, mine.unit) else "state the unit: deepsky ingest ... --unit UNIT",
            )
        if here.quantity != mine.quantity:
            raise ContractError("another quantity", file=survey.path, found=here.quantity, expected=mine.quantity)


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


def psf_fwhm(part: Image) -> np.ndarray:
    """(n, band) [arcsec] FWHM of a Gaussian with the second moments of the PSF within twice its half-light radius."""
    assert part.psf is not None
    psf = part.psf.double().clamp(min=0)
    ny, nx = psf.shape[-2:]
    y, x = torch.meshgrid(torch.arange(ny, dtype=psf.dtype), torch.arange(nx, dtype=psf.dtype), indexing="ij")
    total = psf.sum((-1, -2)).clamp(min=1e-30)
    cy, cx = (psf * y).sum((-1, -2)) / total, (psf * x).sum((-1, -2)) / total
    r2 = (y - cy[..., None, None]) ** 2 + (x - cx[..., None, None]) ** 2
    area = (psf >= 0.5 * psf.amax((-1, -2), keepdim=True)).sum((-1, -2)).double()  # pixels above half the peak
    within = torch.where(r2 <= 4 * area[..., None, None] / np.pi, psf, 0.0)
    variance = (within * r2).sum((-1, -2)) / within.sum((-1, -2)).clamp(min=1e-30) / 2
    return (2.3548 * torch.sqrt(variance) * part.pixel_scale.double().reshape(-1, 1)).numpy()


def _sky_sigma(part: Image) -> np.ndarray:
    """(n, band) one sigma a pixel, NaN where nothing was measured."""
    ivar = torch.where(part.ivar > 0, part.ivar, torch.nan).expand(part.flux.shape).flatten(2)
    return torch.rsqrt(torch.nanmedian(ivar, 2).values).numpy()


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
    return schema.filters[schema.bands.index(band)] if schema.filters else ""


def _converts(a: str, b: str) -> bool:
    try:
        return bool(u.Unit(a).is_equivalent(u.Unit(b)))
    except (ValueError, TypeError):
        return False


def _same_unit(a: str, b: str) -> bool:
    return _converts(a, b) and bool(np.isclose(u.Unit(a).to(u.Unit(b)), 1.0, rtol=1e-6))
