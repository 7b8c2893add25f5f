"""Full frames: which there are, in which band, with which noise and masks, and where sources fall on them."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepsky.errors import InputError
from deepsky.gate import WcsReport, check_fits, check_wcs
from deepsky.surveys._calibration import Calibration, calibration, to_unit
from deepsky.surveys._filters import band_of
from deepsky.surveys._names import Groups, Role
from deepsky.surveys._object import NOISE, Found, Rules
from deepsky.surveys._planes import Plane, planes
from deepsky.surveys._sky import astropy_wcs, celestial, pixel_scale, to_sky


@dataclass(frozen=True)
class Frame:
    """One image of the sky in one band.

    Attributes
    ----------
    flux, more : its pixels, and the planes of its noise and mask by role.
    scale : [arcsec], NaN where not known.
    known : factor and unit of its values.
    report : its coordinates, None if it has none.
    """

    band: str
    flux: Found
    more: Mapping[Role, Found]
    scale: float
    known: Calibration
    report: WcsReport | None

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self.flux.plane.shape

    @property
    def noise(self) -> Role:
        """Which kind of noise it comes with, "" if none."""
        return next((r for r in NOISE if r in self.more), "")


def collect(root: Path, groups: Groups, rules: Rules) -> tuple[list[Frame], list[str]]:
    """The frames of a folder, and what was left out.

    Raises
    ------
    InputError : no file can be used.
    """
    frames: list[Frame] = []
    failed: list[InputError] = []
    tables = 0
    for mine in groups.files:
        parts = [(slot, root / name) for slot, name in zip(groups.slots, mine, strict=True) if name]
        for slot, path in parts:
            if slot.role != "flux":
                continue
            beside = [(s.role, p) for s, p in parts if s.role not in ("flux", "psf") and s.band in ("", slot.band)]
            try:
                layout = check_fits(path)
                if not any(h.kind in ("image", "compressed") for h in layout.hdus):
                    tables += 1
                    continue
                frames += _of_file(Path(path), slot.band, beside, rules)
            except InputError as error:
                failed.append(error)
    if not frames:
        raise failed[0] if failed else InputError("no image in these files", file=root)
    notes = [f"{tables} files hold tables only and were left out"] if tables else []
    if failed:
        why = "; ".join(line.strip() for line in str(failed[0]).splitlines())
        notes.append(f"{len(failed)} files cannot be used; the first: {why}")
    return frames, notes


def _of_file(path: Path, band: str, beside: Sequence[tuple[Role, Path]], rules: Rules) -> list[Frame]:
    """The frames of one file: one an image of flux, with the noise and mask of the same EXTVER or beside it."""
    layout = check_fits(path)
    found = planes(layout, named=rules.named, bands=rules.bands, apart=True)
    flux = [p for p in found if p.role == "flux"]
    out = []
    for plane in flux:
        more: dict[Role, Found] = {}
        for other in found:
            same = len(flux) == 1 or (_version(other) == _version(plane) and other.index in (None, plane.index))
            if other.role not in ("flux", "psf") and same:
                more.setdefault(other.role, Found(other, path, layout))
        for role, file in beside:
            around = check_fits(file)
            near = [p for p in planes(around, role=role, apart=True) if p.shape == plane.shape]
            match = next((p for p in near if p.hdu == plane.hdu), near[0] if near else None)
            if match is None:
                raise InputError(f"the {role} is no map of this frame", file=file, expected=plane.shape,
                                 found=[p.shape for p in planes(around, role=role, apart=True)])  # fmt: skip
            more.setdefault(role, Found(match, file, around))
        out.append(_frame(plane, Found(plane, path, layout), more, band, rules))
    return out


def _version(plane: Plane) -> object:
    return plane.header.get("EXTVER", 1)


def _frame(plane: Plane, flux: Found, more: dict[Role, Found], band: str, rules: Rules) -> Frame:
    name = band or plane.band or band_of(plane.header)
    if not name and rules.bands is not None and len(rules.bands) == 1:
        name = rules.bands[0]
    report = check_wcs(plane.header, file=flux.path, hdu=plane.hdu)
    scale = rules.pixel_scale or pixel_scale(plane.header, flux.path)
    known = calibration(plane.header, band=name, pixel_scale=scale, zero_point=rules.zero_point)
    return Frame(name or "band1", flux, more, scale, to_unit(known, rules.unit, flux.path), report)


@dataclass(frozen=True, eq=False)
class Falls:
    """Where sources fall in one band: number of the frame or -1, and their pixel there, counted from 0."""

    frame: np.ndarray
    x: np.ndarray
    y: np.ndarray


def assign(frames: Sequence[tuple[int, Frame]], ra: np.ndarray, dec: np.ndarray) -> Falls:
    """Put every source on the frame of a band on which it lies furthest from the edge.

    Parameters
    ----------
    frames : with their numbers.
    ra, dec : (n,) [deg] ICRS.
    """
    best = np.full(len(ra), -np.inf)
    out = Falls(np.full(len(ra), -1, np.int32), np.full(len(ra), np.nan), np.full(len(ra), np.nan))
    direction = _unit(ra, dec)
    for number, frame in frames:
        wcs = wcs_of(frame)
        middle, radius = _circle(wcs, frame.shape)
        near = np.flatnonzero(direction @ middle >= math.cos(min(math.pi, 1.05 * radius + 1e-6)))
        if near.size == 0:
            continue
        x, y = to_pixels(wcs, ra[near], dec[near])
        inside = _margin(x, y, frame.shape)
        with np.errstate(invalid="ignore"):
            better = np.isfinite(inside) & (inside >= 0) & (inside > best[near])
        rows = near[better]
        best[rows] = inside[better]
        out.frame[rows], out.x[rows], out.y[rows] = number, x[better], y[better]
    return out


def on_grid(frames: Sequence[tuple[int, Frame]], x: np.ndarray, y: np.ndarray) -> Falls:
    """Put sources with pixel positions on the only frame of a band."""
    number, frame = frames[0]
    with np.errstate(invalid="ignore"):
        inside = _margin(x, y, frame.shape) >= 0
    return Falls(
        np.where(inside, number, -1).astype(np.int32), np.where(inside, x, np.nan), np.where(inside, y, np.nan)
    )


def _margin(x: np.ndarray, y: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Distance [pixel] to the nearest edge, negative outside."""
    low = np.minimum(x, y) + 0.5
    return np.asarray(np.minimum(low, np.minimum(shape[1] - 0.5 - x, shape[0] - 0.5 - y)))


def _unit(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def _circle(wcs: Any, shape: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Unit vector of a frame's centre, and the angle [rad] to its furthest corner or edge."""
    ny, nx = shape
    edge = np.array([0, 0.5, 1])
    grid = np.stack(np.meshgrid(edge * nx - 0.5, edge * ny - 0.5), axis=-1).reshape(-1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ra, dec = to_sky(wcs, grid[:, 0], grid[:, 1])
    around = _unit(ra, dec)
    middle = around[4]
    dots = np.clip(around @ middle, -1, 1)
    radius = float(np.arccos(dots[np.isfinite(dots)].min())) if np.isfinite(middle).all() else math.pi
    return np.nan_to_num(middle), radius if np.isfinite(dots).all() else math.pi


def centre_of(frame: Frame) -> tuple[float, float]:
    """Right ascension and declination [deg] of the middle of a frame."""
    x, y, z = _circle(wcs_of(frame), frame.shape)[0]
    return math.degrees(math.atan2(y, x)) % 360, math.degrees(math.asin(max(-1.0, min(1.0, z))))


def wcs_of(frame: Frame) -> Any:
    """The coordinates of a frame as an astropy WCS.

    Raises
    ------
    InputError : it has none.
    """
    wcs = None if frame.report is None else astropy_wcs(frame.flux.plane.header)
    if wcs is None:
        raise InputError(
            "a frame without coordinates",
            file=frame.flux.path,
            hdu=frame.flux.plane.hdu,
            keyword="CTYPE1",
            found="no pair such as RA---TAN and DEC--TAN",
            fix="columns x and y in the source table place sources by pixel",
        )
    return wcs


def to_pixels(wcs: Any, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) counted from 0 of ICRS positions [deg]; NaN where the projection or its distortion has no solution."""
    from astropy.coordinates import SkyCoord
    from astropy.wcs import NoConvergence

    frame = celestial(wcs)
    lon, lat = ra, dec
    if frame is not None:
        there = SkyCoord(ra, dec, unit="deg", frame="icrs").transform_to(frame).spherical
        lon, lat = there.lon.deg, there.lat.deg
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            world = (lat, lon) if wcs.wcs.lat == 0 else (lon, lat)
            x, y = wcs.all_world2pix(*world, 0)
        except NoConvergence as error:
            solution = np.array(error.best_solution, dtype=np.float64)
            for bad in (error.divergent, error.slow_conv):
                if bad is not None:
                    solution[bad] = np.nan
            x, y = solution[:, 0], solution[:, 1]
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def one_scale(frames: Sequence[Frame], bands: Sequence[str], *, resample: bool, file: object) -> float | None:
    """The pixel scale of the survey [arcsec], None where no frame says it.

    Raises
    ------
    InputError : frames of one band differ, or bands do and nothing resamples them.
    """
    by_band: dict[str, list[float]] = defaultdict(list)
    for frame in frames:
        if math.isfinite(frame.scale):
            by_band[frame.band].append(frame.scale)
    if not by_band:
        return None
    words = ", ".join(
        f"{b} {min(s):.4g}{f' to {max(s):.4g}' if max(s) > 1.01 * min(s) else ''}" for b, s in by_band.items()
    )
    lowest, highest = min(map(min, by_band.values())), max(map(max, by_band.values()))
    if highest > 1.01 * lowest and not resample:
        raise InputError(
            "frames of different pixel scale",
            file=file,
            keyword="CD1_1",
            found=f"{words} arcsec",
            expected="one scale",
            fix=f"resample=True brings all onto the grid of {bands[0]}, or choose bands=...",
        )
    first = by_band.get(bands[0]) or next(iter(by_band.values()))
    return float(f"{np.median(first):.6g}")
