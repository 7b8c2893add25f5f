"""Positions and pixel scales from FITS headers, with the traps refused: hours, radians, singular coordinates."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deepsky.errors import InputError
from deepsky.gate import WcsReport, check_wcs

Position = Literal["auto", "header", "wcs", "none"]
KEYS = (("RA", "DEC"), ("OBJRA", "OBJDEC"), ("OBJ_RA", "OBJ_DEC"), ("RA_OBJ", "DEC_OBJ"), ("RAOBJ", "DECOBJ"),
        ("RA_DEG", "DEC_DEG"), ("RADEG", "DECDEG"), ("TARG_RA", "TARG_DEC"), ("RA_TARG", "DEC_TARG"))  # fmt: skip
_WCS_CARD = re.compile(
    r"(?:NAXIS[12]?|WCSAXES|(?:CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[12]|(?:CD|PC|PV|PS)[12]_\d{1,2}|LONPOLE|LATPOLE"
    r"|RADESYS|RADECSYS|EQUINOX|(?:A|B|AP|BP)_(?:ORDER|DMAX|\d_\d))\Z"
)
_FRAMES = ("ICRS", "FK5", "FK4", "FK4-NO-E")
_DISTORTED = frozenset(("A_ORDER", "B_ORDER", *(f"PV{axis}_{n}" for axis in (1, 2) for n in range(40))))
_SEXAGESIMAL = re.compile(r"\s*([-+]?)(\d{1,3})[:h d°]\s*(\d{1,2})[:m ′']?\s*(\d{1,2}(?:\.\d*)?)?[s″\"]?\s*\Z")


def angle_unit(path: Path, header: Mapping[str, Any]) -> str:
    """The unit of the RA and DEC of a survey, from the comment beside RA in one of its files: deg, rad or hour."""
    from astropy.io import fits

    key = next((k for k, d in KEYS if k in header and d in header), None)
    if key is None or isinstance(header[key], str):
        return "deg"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, memmap=False) as hdus:
                comment = next((h.header.comments[key].lower() for h in hdus if key in h.header), "")
    except (OSError, ValueError, KeyError):
        return "deg"
    if "radian" in comment or "[rad]" in comment:
        return "rad"
    return "hour" if re.search(r"\bhours?\b|\[h|\bhms\b|hh:mm", comment) else "deg"


def sexagesimal(text: str) -> float | None:
    """Degrees, minutes, seconds (or hours) as one number, None if the text is not of that form."""
    found = _SEXAGESIMAL.match(text)
    if not found:
        return None
    sign, whole, minutes, seconds = found.groups()
    value = int(whole) + int(minutes) / 60 + float(seconds or 0) / 3600
    return -value if sign == "-" else value


def keyword_position(
    header: Mapping[str, Any], *, unit: str = "deg", file: object = None
) -> tuple[float, float] | None:
    """(ra, dec) [deg] that RA and DEC keywords give.

    Raises
    ------
    InputError : the right ascension is a number of hours, or a value is no angle.
    """
    pair = next(((r, d) for r, d in KEYS if header.get(r) is not None and header.get(d) is not None), None)
    if pair is None:
        return None
    values = []
    for key, hours in zip(pair, (True, False), strict=True):
        value = header[key]
        if isinstance(value, str):
            parsed = sexagesimal(value)
            if parsed is not None:
                values.append(parsed * (15 if hours else 1))
                continue
            try:
                value = float(value)
            except ValueError:
                raise InputError(
                    "a position that is no angle",
                    file=file,
                    keyword=key,
                    found=repr(value),
                    expected="degrees or sexagesimal",
                    fix="position='wcs' or 'none'",
                ) from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError("a position that is not finite", file=file, keyword=key, found=value, expected="degrees",
                             fix="position='wcs' or 'none'")  # fmt: skip
        if unit == "hour" and hours:
            raise _hours(file, key, value)
        values.append(math.degrees(value) if unit == "rad" else float(value))
    ra, dec = values
    if not -180 <= ra <= 360 or abs(dec) > 90:
        raise InputError("a position beyond the sky", file=file, keyword="/".join(pair), found=f"{ra:g}, {dec:g}",
                         expected="0..360, -90..90 deg", fix="position='wcs' or 'none'")  # fmt: skip
    return ra % 360, dec


def _hours(file: object, key: str, value: float) -> InputError:
    return InputError("the right ascension is a plain number of hours", file=file, keyword=key, found=value,
                      expected="degrees, or sexagesimal hours", fix="multiply it by 15, or position='wcs'")  # fmt: skip


def position(
    header: Mapping[str, Any],
    shape: tuple[int, int],
    *,
    rule: Position = "auto",
    unit: str = "deg",
    file: object = None,
) -> tuple[float, float]:
    """(ra, dec) [deg] of a cutout, NaN where the header does not say.

    RA and DEC keywords come first, but not where the cutout's coordinates place them outside it: then they are those of
    the telescope, and the cutout's centre is taken.

    Raises
    ------
    InputError : hours as plain numbers, no angle, or coordinates that are singular.
    """
    if rule == "none":
        return math.nan, math.nan
    by_key = keyword_position(header, unit=unit, file=file) if rule != "wcs" else None
    if rule == "header" or (by_key is not None and _unset(header)):
        return by_key or (math.nan, math.nan)
    try:
        report = check_wcs(header, file=file)
    except InputError:
        if by_key is not None:
            return by_key
        raise
    middle = None if report is None else centre(header, report, shape)
    if middle is None or not np.isfinite(middle).all():
        return by_key or (math.nan, math.nan)
    if by_key is None or report is None:
        return middle
    side = report.pixel_scale / 3600 * math.hypot(*shape)
    if separation(*by_key, *middle) <= side:
        return by_key
    if by_key[0] < 24 and separation(by_key[0] * 15, by_key[1], *middle) <= max(side, 0.05):
        raise _hours(file, "RA", by_key[0])
    return middle


def _unset(header: Mapping[str, Any]) -> bool:
    """Coordinates that were never filled in: the reference value is (0, 0)."""
    return bool(header.get("CRVAL1", 0) == 0 and header.get("CRVAL2", 0) == 0)


def separation(ra0: float, dec0: float, ra1: float, dec1: float) -> float:
    """Angle between two positions, all [deg]."""
    a, b, c, d = map(math.radians, (ra0, dec0, ra1, dec1))
    hav = math.sin((d - b) / 2) ** 2 + math.cos(b) * math.cos(d) * math.sin((c - a) / 2) ** 2
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(hav))))


def centre(header: Mapping[str, Any], report: WcsReport, shape: tuple[int, int]) -> tuple[float, float] | None:
    """(ra, dec) [deg] ICRS of the middle of an image."""
    middle = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    plain = (report.ctype == ("RA---TAN", "DEC--TAN") and _DISTORTED.isdisjoint(header)
             and header.get("LONPOLE", 180.0) == 180.0 and abs(report.crval[1]) < 90)  # fmt: skip
    old = str(header.get("RADESYS", header.get("RADECSYS", ""))).strip() in {"FK4", "FK4-NO-E"}
    if plain and not old and header.get("EQUINOX", 2000.0) == 2000.0 and report.axes == (1, 2):
        return _tangent(report, *middle)
    wcs = astropy_wcs(header)
    if wcs is None:
        return None
    ra, dec = to_sky(wcs, np.array([middle[0]]), np.array([middle[1]]))
    return float(ra[0]), float(dec[0])


def _tangent(report: WcsReport, x: float, y: float) -> tuple[float, float]:
    """The inverse of the gnomonic projection (Calabretta & Greisen 2002), pixels counted from 0."""
    dx, dy = x + 1 - report.crpix[0], y + 1 - report.crpix[1]
    (a, b), (c, d) = report.cd
    xi, eta = math.radians(a * dx + b * dy), math.radians(c * dx + d * dy)
    ra0, dec0 = map(math.radians, report.crval)
    across = math.cos(dec0) - eta * math.sin(dec0)
    ra = ra0 + math.atan2(xi, across)
    dec = math.atan2(math.sin(dec0) + eta * math.cos(dec0), math.hypot(xi, across))
    return math.degrees(ra) % 360, math.degrees(dec)


def to_sky(wcs: Any, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ra, dec) [deg] ICRS of pixels counted from 0; NaN where the projection has none."""
    world = wcs.all_pix2world(x, y, 0)
    lon, lat = world[wcs.wcs.lng], world[wcs.wcs.lat]  # the latitude may be the first axis
    frame = celestial(wcs)
    if frame is None:
        return np.asarray(lon), np.asarray(lat)
    from astropy.coordinates import SkyCoord

    good = np.isfinite(lon) & np.isfinite(lat)
    ra, dec = np.full(lon.shape, np.nan), np.full(lat.shape, np.nan)
    there = SkyCoord(lon[good], lat[good], unit="deg", frame=frame).icrs
    ra[good], dec[good] = there.ra.deg, there.dec.deg
    return ra, dec


def celestial(wcs: Any) -> Any:
    """The celestial frame of a WCS, None for ICRS."""
    from astropy.wcs.utils import wcs_to_celestial_frame

    frame = wcs_to_celestial_frame(wcs)
    return None if frame.name == "icrs" else frame


def astropy_wcs(header: Mapping[str, Any]) -> Any:
    """The celestial `astropy.wcs.WCS` of a header that passed `check_wcs`, None if astropy cannot make one."""
    from astropy.io import fits
    from astropy.wcs import WCS

    cards = fits.Header()
    for key, value in header.items():
        if _WCS_CARD.match(key) and value is not None and value == value and value not in (math.inf, -math.inf):
            cards[key] = value
    cards["NAXIS"] = 2
    cards.pop("WCSAXES", None)
    for key in ("RADESYS", "RADECSYS"):
        if str(cards.get(key, "ICRS")).strip().upper() not in _FRAMES:
            cards.remove(key)  # the equinox says it then, as it does where the keyword is missing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = WCS(cards, naxis=2)
    except (ValueError, MemoryError, KeyError, RuntimeError):
        return None
    return wcs if wcs.has_celestial else None


def pixel_scale(header: Mapping[str, Any], file: object = None) -> float:
    """Side of a pixel [arcsec] by the coordinates, or a keyword; NaN where neither says it.

    Raises
    ------
    InputError : singular coordinates, or pixels that are not square.
    """
    report = check_wcs(header, file=file)
    if report is not None:
        (a, b), (c, d) = report.cd
        x, y = 3600 * math.hypot(a, c), 3600 * math.hypot(b, d)
        if max(x, y) > 1.1 * min(x, y):
            raise InputError("pixels that are not square", file=file, keyword="CD1_1",
                             found=f"{x:.4g} x {y:.4g} arcsec", expected="one scale for both axes",
                             fix=f"resample it; pixel_scale={report.pixel_scale:.4g} takes it as it is")  # fmt: skip
        return report.pixel_scale
    for key in ("PIXSCALE", "PIXSCAL1", "PIXELSCL", "PIXSIZE", "PSCALE"):
        value = header.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 1e-4 < value < 1e3:
            return float(value)
    return math.nan


def same_scale(scales: Sequence[float], tolerance: float = 0.01) -> bool:
    """Whether all known pixel scales agree to a hundredth."""
    known = [s for s in scales if math.isfinite(s)]
    return not known or bool(max(known) <= min(known) * (1 + tolerance))
