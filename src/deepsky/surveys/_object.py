"""One object out of its files: which planes it has, and its flux, inverse variance and PSF."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deepsky.errors import InputError
from deepsky.gate import FitsLayout, check_fits, check_ivar, check_values
from deepsky.surveys._calibration import Calibration, calibration, to_unit
from deepsky.surveys._names import Role, Slot
from deepsky.surveys._planes import Plane, array, bad_bits, pick, planes, saturated_bit, stored
from deepsky.surveys._scanned import place
from deepsky.surveys._sky import pixel_scale, same_scale

NOISE: tuple[Role, ...] = ("ivar", "variance", "sigma", "weight")


@dataclass(frozen=True)
class Rules:
    """How files are read: the options of the reader, see `deepsky.surveys.fits_cutouts.open`."""

    named: Mapping[str, str] | None = None
    bands: tuple[str, ...] | None = None
    mask_bits: tuple[str | int, ...] | None = None
    sentinel: tuple[float, ...] = ()
    saturation: float | None = None
    zero_point: float | None = None
    unit: str | None = None
    pixel_scale: float | None = None
    coordinates: bool = True
    stack: bool = False
    many: bool = False


@dataclass(frozen=True)
class Found:
    """A plane and the file it lies in."""

    plane: Plane
    path: Path
    layout: FitsLayout


@dataclass(frozen=True)
class Object:
    """What one object consists of.

    Attributes
    ----------
    flux : by band, in the order of the files.
    more : noise, mask and PSF planes by (role, band); band "" serves all bands.
    """

    flux: Mapping[str, Found]
    more: Mapping[tuple[Role, str], Found] = field(default_factory=dict)

    @property
    def first(self) -> Found:
        """The plane of the first band, whose header speaks for the object."""
        return next(iter(self.flux.values()))

    def other(self, role: Role, band: str) -> Found | None:
        """The plane of a role that serves a band."""
        return self.more.get((role, band)) or self.more.get((role, ""))

    def noise(self) -> Role:
        """Which kind of noise it comes with, "" if none."""
        return next((r for r in NOISE if any(k[0] == r for k in self.more)), "")

    def scale(self, rules: Rules) -> float:
        """Its pixel scale [arcsec], NaN where not known.

        Raises
        ------
        InputError : it differs between the bands.
        """
        if rules.pixel_scale is not None or not rules.coordinates:
            return rules.pixel_scale or math.nan
        scales = {b: pixel_scale(f.plane.header, f.path) for b, f in self.flux.items()}
        if not same_scale(list(scales.values())):
            raise InputError("bands of different pixel scale", file=self.first.path, keyword="CD1_1",
                             found=", ".join(f"{b} {s:.4g}" for b, s in scales.items()), expected="one scale [arcsec]",
                             fix="choose bands=..., or ingest them as surveys of their own")  # fmt: skip
        return next(iter(scales.values()))

    def calibrations(self, rules: Rules) -> dict[str, Calibration]:
        """Factor and unit of every band."""
        out = {}
        for band, found in self.flux.items():
            given = rules.pixel_scale is not None or not rules.coordinates
            scale = (rules.pixel_scale or math.nan) if given else pixel_scale(found.plane.header, found.path)
            known = calibration(found.plane.header, band=band, pixel_scale=scale, zero_point=rules.zero_point)
            out[band] = to_unit(known, rules.unit, found.path)
        return out


def understand(
    files: Sequence[tuple[Slot, Path]], rules: Rules, only: tuple[int, int] = (-1, -1), *, sums: bool = False
) -> Object:
    """Look at the headers of an object's files.

    Parameters
    ----------
    files : with what their names say of them.
    only : (HDU, plane) where a file holds many objects, -1 for all.
    sums : compare DATASUM with the data.

    Raises
    ------
    InputError : the gate refuses a file, or two planes are the same part of the object.
    """
    flux: dict[str, Found] = {}
    more: dict[tuple[Role, str], Found] = {}
    for slot, path in files:
        layout = check_fits(path, checksums="data" if sums else False)
        role: Role = "" if slot.role == "flux" else slot.role
        named = {str(only[0]): "flux"} if only[0] >= 0 and rules.many else rules.named if slot.role == "flux" else None
        for plane in planes(layout, role=role, named=named, bands=rules.bands, stack=rules.stack):
            if only[1] >= 0 and plane.index != only[1]:
                continue
            band = slot.band or plane.band
            found = Found(plane, path, layout)
            if plane.role != "flux":
                more.setdefault((plane.role, band), found)
            elif band in flux:
                raise InputError(
                    "two images of one band",
                    file=path,
                    found=f"{band or 'no band'} in {flux[band].path.name}",
                    expected="one a band",
                    fix="choose with planes={'NAME': 'flux'}",
                )
            else:
                flux[band] = found
    if not flux:
        raise InputError("no image among the files of this object", file=files[0][1])
    if set(flux) == {""}:
        flux = {rules.bands[0] if rules.bands is not None and len(rules.bands) == 1 else "band1": flux[""]}
    serves: dict[tuple[Role, str], Found] = {}
    for (what, band), found in more.items():  # a plane whose band is none of the image's serves all of them
        serves.setdefault((what, band if band in flux else ""), found)
    return Object(flux, serves)


def made_up(band: str) -> bool:
    """Whether a band is a number that stands for a name."""
    return re.fullmatch(r"band\d+", band) is not None


Cache = dict[tuple[Path, int], np.ndarray]


def values(found: Found, cache: Cache) -> np.ndarray:
    """The (y, x) pixels of a plane; an HDU that several planes share is read once."""
    key = (found.path, found.plane.hdu)
    if key not in cache:
        cache[key] = array(found.path, found.layout, found.plane.hdu)
    return pick(cache[key], found.plane)


@dataclass(frozen=True, eq=False)
class Measured:
    """One object in native form: flux and ivar (band, y, x), psf or None, and what it says of its pixels."""

    flux: np.ndarray
    ivar: np.ndarray
    psf: np.ndarray | None
    columns: Mapping[str, float]


def measure(
    this: Object, bands: Sequence[str], size: tuple[int, int], rules: Rules, *, unit: str, noise: str,
    dtype: str, resize: bool, psf: tuple[int, int] | None = None,
) -> Measured:  # fmt: skip
    """Read the pixels of an object.

    Parameters
    ----------
    bands, size : axes of the result; a band that the object lacks has ivar 0.
    unit : of the survey.
    noise : role of the planes that give it, "" for none; then ivar is 1 where there is a measurement.

    Raises
    ------
    InputError : nothing is measured, the unit or shape is another, or the noise is none.
    """
    cache: Cache = {}
    flux = np.zeros((len(bands), *size), dtype)
    ivar = np.zeros((len(bands), *size), np.float64 if noise else np.uint8)  # 1e-20 erg/s/cm2/A need 1e40
    calibrations = this.calibrations(rules)
    _check_number(this, bands, rules.bands is not None)
    saturated_pixels = 0
    problem: InputError | None = None
    for i, band in enumerate(bands):
        found = this.flux.get(band)
        if found is None:
            continue
        if found.plane.shape != size and not resize:
            raise InputError("an image of another shape", file=found.path, hdu=found.plane.hdu, found=found.plane.shape,
                             expected=size, fix="size=N crops or pads every image about its centre")  # fmt: skip
        known = calibrations[band]
        if known.unit != unit:
            raise InputError("an image in another unit", file=found.path, hdu=found.plane.hdu, keyword="BUNIT",
                             found=f"{known.unit or '(none)'}: {known.why}", expected=unit or "(none)",
                             fix="zero_point=... if all files have one")  # fmt: skip
        raw = values(found, cache)
        saturated = _saturated(this, band, raw, rules, cache)
        try:
            seen = _seen(raw, found, rules) & ~saturated & ~_masked(this, band, rules, cache)
        except InputError as error:
            problem = error
            continue
        scale = known.factor
        weight = _inverse_variance(this, band, noise, seen, scale, cache)
        plane, _ = place(np.where(weight > 0, raw * scale if scale != 1 else raw, 0).astype(dtype), size)
        flux[i] = plane
        ivar[i] = place(weight.astype(ivar.dtype), size)[0]
        saturated_pixels += int(np.count_nonzero(place(saturated, size)[0]))
    if not ivar.any():
        raise problem or InputError(
            "no measured pixel", file=this.first.path, found="every pixel is masked, blank or saturated"
        )
    columns = {"saturated": saturated_pixels / flux.size}
    return Measured(flux, ivar, None if psf is None else _psf(this, bands, psf, cache), columns)


def _check_number(this: Object, bands: Sequence[str], chosen: bool) -> None:
    """Bands without names are told apart by their number alone, which then must be that of the survey."""
    made = any(map(made_up, this.flux))
    named = not any(map(made_up, bands))
    if made and (any(b not in this.flux for b in bands) or (len(this.flux) > len(bands) and not chosen)):
        raise InputError("bands without names" if named else "wrong number of bands", file=this.first.path,
                         keyword="BANDS" if named else "NAXIS3", found=len(this.flux),
                         expected=f"{len(bands)}{': ' + ', '.join(bands) if named else ''}",
                         fix="name them in the header: BANDS = 'grz'")  # fmt: skip
    if not any(b in this.flux for b in bands):
        raise InputError("an image in another band than the survey's", file=this.first.path, keyword="FILTER",
                         found=", ".join(this.flux), expected=", ".join(bands),
                         fix="bands=... (--bands g,r) says which bands there are")  # fmt: skip


def _seen(raw: np.ndarray, found: Found, rules: Rules) -> np.ndarray:
    """Where there is a measurement: finite and no sentinel; a blank or constant image is refused."""
    seen = np.isfinite(raw) if raw.dtype.kind == "f" else np.ones(raw.shape, bool)
    for value in rules.sentinel:
        seen &= raw != raw.dtype.type(value) if raw.dtype.kind == "f" else raw != value
    values = raw if seen.all() else np.where(seen, raw, np.nan)
    check_values(values, file=found.path, hdu=found.plane.hdu, max_blank=1.0)
    return seen


def _saturated(this: Object, band: str, raw: np.ndarray, rules: Rules, cache: Cache) -> np.ndarray:
    """Pixels at the saturation level of the option, else of the header, and those a mask calls saturated."""
    header = this.flux[band].plane.header
    level: Any = rules.saturation
    if level is None:
        level = next((header[k] for k in ("SATURATE", "SATLEVEL", "SATUR_LV") if k in header), None)
    out = np.zeros(raw.shape, bool)
    if isinstance(level, int | float) and level > 0:
        with np.errstate(invalid="ignore"):
            out |= raw >= level
    mask = this.other("mask", band)
    if mask is not None and (bit := saturated_bit(mask.plane.header)):
        bits = values(mask, cache)
        if bits.shape == raw.shape:
            out |= (bits.astype(np.int64) & bit) > 0
    return out


def _masked(this: Object, band: str, rules: Rules, cache: Cache) -> np.ndarray:
    mask = this.other("mask", band)
    if mask is None:
        return np.zeros(this.flux[band].plane.shape, bool)
    bits = _fitting(mask, this.flux[band], cache)
    chosen = bad_bits(mask.plane.header, rules.mask_bits, mask.path)
    unknown = ~np.isfinite(bits) if bits.dtype.kind == "f" else np.zeros(bits.shape, bool)
    whole = np.where(unknown, 0, bits).astype(np.int64)
    out: np.ndarray = unknown | ((whole if chosen is None else whole & chosen) != 0)
    return out


def _fitting(plane: Found, flux: Found, cache: Cache) -> np.ndarray:
    """Values of a noise or mask plane, which must have the shape of the image."""
    if plane.plane.shape != flux.plane.shape:
        raise InputError(f"the {plane.plane.role} is no map of this image", file=plane.path, hdu=plane.plane.hdu,
                         found=plane.plane.shape, expected=flux.plane.shape)  # fmt: skip
    return values(plane, cache)


FROM_NOISE: Mapping[Role, Callable[[np.ndarray], np.ndarray]] = {
    "ivar": lambda v: v, "weight": lambda v: v, "variance": lambda v: 1 / v, "sigma": lambda v: 1 / v**2,
}  # fmt: skip


def _inverse_variance(this: Object, band: str, noise: str, seen: np.ndarray, scale: float, cache: Cache) -> np.ndarray:
    """ivar [survey unit**-2] of one band, 0 where not `seen`."""
    if not noise:
        return seen
    found = next((f for r in NOISE if (f := this.other(r, band)) is not None), None)
    if found is None:
        raise InputError("this object has no noise while others have", file=this.flux[band].path, expected=noise,
                         fix=f"give it a plane or file of its {noise}")  # fmt: skip
    raw = _fitting(found, this.flux[band], cache).astype(np.float64)
    good = seen & np.isfinite(raw) & (raw != 0)
    if found.plane.role in ("ivar", "weight"):
        good &= ~seen | (raw != 0)
        check_ivar(np.where(seen, raw, 0), file=found.path, hdu=found.plane.hdu)
    elif (raw[good] < 0).any():
        raise InputError(
            f"a negative {found.plane.role}",
            file=found.path,
            hdu=found.plane.hdu,
            found=float(raw[good].min()),
            expected="> 0, and 0 or NaN where there is no measurement",
        )
    out = np.zeros(raw.shape)
    out[good] = FROM_NOISE[found.plane.role](raw[good])
    if found.plane.role == "weight":
        out *= weight_norm(values(this.flux[band], cache), out)
    return out / scale**2


def weight_norm(flux: np.ndarray, weight: np.ndarray) -> float:
    """What turns a relative weight into an inverse variance: flux * sqrt(weight) has the scatter of one on the sky.

    The scatter is that of the lower half of the values about their median, clipped: the sky, were there no objects.
    """
    good = weight > 0
    if np.count_nonzero(good) < 10:
        return 1.0
    scaled = flux[good].astype(np.float64) * np.sqrt(weight[good])
    sigma = sky_sigma(scaled)
    return 1 / sigma**2 if sigma > 0 else 1.0


def sky_sigma(sample: np.ndarray, rounds: int = 5) -> float:
    """Scatter of the sky in an image with objects: of the values below the median, after clipping at 3 sigma."""
    values = sample[np.isfinite(sample)]
    for _ in range(rounds):
        if values.size < 4:
            return 0.0
        middle = float(np.median(values))
        below = middle - values[values <= middle]
        sigma = float(np.median(below)) / 0.6744897501960817
        if sigma == 0:
            return 0.0
        keep = np.abs(values - middle) < 3 * sigma
        if keep.all():
            break
        values = values[keep]
    return sigma


def _psf(this: Object, bands: Sequence[str], size: tuple[int, int], cache: Cache) -> np.ndarray:
    """(band, y, x) PSFs of sum one."""
    out = np.zeros((len(bands), *size), np.float32)
    for i, band in enumerate(bands):
        if band not in this.flux:
            continue
        found = this.other("psf", band)
        if found is None:
            raise InputError("this object has no PSF while others have", file=this.flux[band].path)
        image = np.nan_to_num(values(found, cache).astype(np.float64), nan=0, posinf=0, neginf=0)
        placed = place(image, size)[0]
        if not placed.sum() > 0:
            raise InputError("a PSF without light", file=found.path, hdu=found.plane.hdu, found=f"sum {placed.sum():g}")
        out[i] = placed / placed.sum()
    return out


def exact_type(this: Object) -> np.dtype[Any] | None:
    """The small integer type that holds all its bands exactly, None if they need a float."""
    kinds = {stored(f.layout.hdus[f.plane.hdu]) for f in this.flux.values()}
    return kinds.pop() if len(kinds) == 1 else None
