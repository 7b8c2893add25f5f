"""From what a FITS header says of the flux to a factor and a unit: broad-band images with a zero point become nJy."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deepsky.errors import InputError
from deepsky.surveys._filters import AB_MINUS_VEGA, svo

AB = 3631e9  # [nJy] of magnitude zero
STERADIAN = 4.254517e10  # [arcsec^2]
MAGNITUDE = "magnitude"
C = 2.99792458e18  # [Angstrom / s]
ZERO_POINTS = (
    "MAGZERO",
    "MAGZPT",
    "MAGZP",
    "MAGZEROP",
    "MAGZEROPT",
    "MAG_ZP",
    "ZP_AB",
    "ABZP",
    "ZPAB",
    "PHOTZP",
    "PHOTZPT",
    "ZEROPNT",
    "ZEROPT",
    "ZEROPOINT",
    "ZPT",
    "ZP",
    "MAG0",
    "REFZP",
)
_JANSKY = {"nJy": 1.0, "uJy": 1e3, "microJy": 1e3, "muJy": 1e3, "mJy": 1e6, "Jy": 1e9, "kJy": 1e12, "MJy": 1e15,
           "nanomaggy": AB * 1e-9, "nanomaggies": AB * 1e-9, "nmgy": AB * 1e-9, "maggy": AB, "maggies": AB}  # fmt: skip
_COUNTS = {"adu": "adu", "dn": "DN", "count": "ct", "counts": "ct", "ct": "ct", "cts": "ct", "electron": "electron",
           "electrons": "electron", "e-": "electron", "e": "electron", "photon": "ph", "photons": "ph"}  # fmt: skip
_RATES = {
    "cps": "ct / s",
    "count/s": "ct / s",
    "counts/s": "ct / s",
    "counts/sec": "ct / s",
    "ct/s": "ct / s",
    "electrons/s": "electron / s",
    "electron/s": "electron / s",
    "electrons/sec": "electron / s",
    "e-/s": "electron / s",
    "e-/sec": "electron / s",
    "e/s": "electron / s",
    "adu/s": "adu / s",
    "dn/s": "DN / s",
}
UNITS = ("nJy", "uJy", "mJy", "Jy", "nanomaggy", "adu", "ct", "electron", "electron / s", "erg / (Angstrom cm2 s)",
         "any other that astropy knows")  # fmt: skip


@dataclass(frozen=True)
class Calibration:
    """What stored values are multiplied with, and what they are then.

    Attributes
    ----------
    factor : new value = factor * stored value.
    unit : astropy unit string; "" where nothing is known.
    quantity : f_nu, f_lambda, counts or relative.
    why : how that was found, in words.
    """

    factor: float = 1.0
    unit: str = ""
    quantity: str = "relative"
    why: str = "no unit and no zero point in the header"


def calibration(
    header: Mapping[str, Any], *, band: str = "", pixel_scale: float = math.nan, zero_point: float | None = None
) -> Calibration:
    """Read BUNIT and the zero point of a header.

    Parameters
    ----------
    header : of the image, with the primary header behind it.
    band : for zero points on the Vega system.
    pixel_scale : [arcsec], for surface brightnesses.
    zero_point : AB magnitude of one unit, in place of what the header says.
    """
    unit = str(header.get("BUNIT") or header.get("PHOTUNIT") or "").strip()
    if zero_point is not None:
        return Calibration(AB * 10 ** (-0.4 * zero_point), "nJy", "f_nu", f"zero point {zero_point:g} as given")
    known = _physical(unit, header, pixel_scale)
    if known:
        return known
    for rule in (_fluxmag0, _magnitude, _hubble):
        found = rule(header, unit, band)
        if found:
            return found
    if not unit and str(header.get("SURVEY", "")).lower().startswith("legacysurvey"):
        return Calibration(AB * 1e-9, "nJy", "f_nu", "nanomaggies, as all Legacy Survey images")
    low = unit.lower().replace(" ", "")
    if low in _RATES or low in _COUNTS:
        return Calibration(1.0, _RATES.get(low) or _COUNTS[low], "counts", f"BUNIT {unit!r} without a zero point")
    return _other(unit)


def _physical(unit: str, header: Mapping[str, Any], pixel_scale: float) -> Calibration | None:
    """Units of flux density, a pixel's or a steradian's."""
    scaled = re.match(r"\s*(?:(\d*\.?\d+(?:[eE][-+]?\d+)?)\s*[*x ]?\s*)?([A-Za-z].*)", unit)
    if not scaled:
        return None
    power, rest = float(scaled[1] or 1), scaled[2].replace(" ", "")
    plain = re.sub(r"(?:/pix(?:el)?|/px|\.pix(?:el)?-1)$", "", rest)
    for name in (plain, plain.lower()):
        if name in _JANSKY:
            return Calibration(power * _JANSKY[name], "nJy", "f_nu", f"BUNIT {unit!r}")
    surface = re.match(r"(\w*Jy)(?:/sr|\.sr-1|sr-1|/sr\^?1)$", rest)
    if surface and surface[1] in _JANSKY:
        area = header.get("PIXAR_SR")
        if not isinstance(area, float):
            area = pixel_scale**2 / STERADIAN
        if math.isfinite(area) and area > 0:
            factor = power * _JANSKY[surface[1]] * area
            return Calibration(factor, "nJy", "f_nu", f"BUNIT {unit!r} times the area of a pixel")
    return None


def _number(header: Mapping[str, Any], *keys: str) -> float | None:
    for key in keys:
        value = header.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value != 0:
            return float(value)
    return None


def _fluxmag0(header: Mapping[str, Any], unit: str, band: str) -> Calibration | None:
    value = _number(header, "FLUXMAG0")
    return None if value is None or value < 0 else Calibration(AB / value, "nJy", "f_nu", "FLUXMAG0")


def _magnitude(header: Mapping[str, Any], unit: str, band: str) -> Calibration | None:
    """A zero point in magnitudes, Vega ones turned to AB where the filter is known."""
    key = next((k for k in ZERO_POINTS if _number(header, k) is not None), None)
    if key is None:
        return None
    zero = _number(header, key)
    assert zero is not None
    if not 5 < zero < 45:
        return None
    filter_id = svo(header, band)
    system = str(header.get("MAGSYS") or header.get("ZPSYS") or header.get("PHOTSYS") or "").lower()
    if "vega" in system or ("ab" not in system and filter_id in AB_MINUS_VEGA):
        if filter_id not in AB_MINUS_VEGA:
            return None
        shift = AB_MINUS_VEGA[filter_id]
        return Calibration(AB * 10 ** (-0.4 * (zero + shift)), "nJy", "f_nu", f"{key} (Vega, AB - Vega = {shift} mag)")
    return Calibration(AB * 10 ** (-0.4 * zero), "nJy", "f_nu", key)


def _hubble(header: Mapping[str, Any], unit: str, band: str) -> Calibration | None:
    """PHOTFLAM [erg / s / cm2 / Angstrom] of one electron a second, with PHOTPLAM [Angstrom]; PHOTFNU [Jy]."""
    per_second = 1.0
    if unit and "/s" not in unit.lower().replace(" ", "") and unit.lower() != "cps":
        time = _number(header, "EXPTIME", "EXPOSURE")
        if time is None:
            return None
        per_second = 1 / time
    flam, pivot = _number(header, "PHOTFLAM"), _number(header, "PHOTPLAM")
    if flam and pivot:
        return Calibration(per_second * flam * pivot**2 / C * 1e32, "nJy", "f_nu", "PHOTFLAM and PHOTPLAM")
    fnu = _number(header, "PHOTFNU")
    return Calibration(per_second * fnu * 1e9, "nJy", "f_nu", "PHOTFNU") if fnu else None


def _parsed(unit: str) -> Any:
    """The astropy unit, or None where it knows none of that name."""
    from astropy import units as u

    try:
        return u.Unit(unit, parse_strict="raise")
    except (ValueError, TypeError):
        return None


def _other(unit: str) -> Calibration:
    """A unit of any kind, as far as astropy knows it."""
    if not unit:
        return Calibration()
    from astropy import units as u

    parsed = _parsed(unit)
    if parsed is None:
        return Calibration(why=f"BUNIT {unit!r} is no unit that astropy knows")
    if "mag" in re.findall(r"[a-z]+", parsed.to_string().lower().replace("abmag", "mag").replace("stmag", "mag")):
        return Calibration(1.0, parsed.to_string(), MAGNITUDE, f"BUNIT {unit!r}")
    if parsed.is_equivalent(u.Unit("nJy")):
        return Calibration(float(parsed.to(u.Unit("nJy"))), "nJy", "f_nu", f"BUNIT {unit!r}")
    lam = parsed.is_equivalent(u.Unit("erg / (s cm2 Angstrom)"))
    return Calibration(1.0, parsed.to_string(), "f_lambda" if lam else "relative", f"BUNIT {unit!r}")


def to_unit(found: Calibration, unit: str | None, file: object) -> Calibration:
    """The same in a unit of the user's choice.

    Raises
    ------
    InputError : the units do not convert into each other, or the pixels are magnitudes, which do not add.
    """
    if found.quantity == MAGNITUDE:
        raise InputError("pixels in magnitudes, and not in flux", file=file, keyword="BUNIT", found=found.unit,
                         expected="a unit of flux",
                         fix="convert them, 10**(-0.4 * m), or give zero_point=... if BUNIT is wrong")  # fmt: skip
    if unit is None or unit == found.unit:
        return found
    from astropy import units as u

    try:
        ratio = float(u.Unit(found.unit).to(u.Unit(unit)))
    except (ValueError, TypeError) as error:
        raise InputError(
            "the unit does not convert", file=file, keyword="BUNIT", found=f"{found.unit or '(none)'}: {found.why}",
            expected=unit, fix="give the AB magnitude of one count: zero_point=...",
        ) from error  # fmt: skip
    return Calibration(found.factor * ratio, unit, found.quantity, found.why)


def stated(unit: str, file: object = None) -> tuple[str, str]:
    """Unit and quantity of values that are kept as they are, from the name of their unit.

    Raises
    ------
    InputError : there is no such unit, or it is one of magnitudes.

    >>> stated("uJy"), stated("nanomaggies"), stated("ADU"), stated("")
    (('uJy', 'f_nu'), ('3631 nJy', 'f_nu'), ('adu', 'counts'), ('', 'relative'))
    """
    found, parsed = calibration({"BUNIT": unit}), _parsed(unit)
    if found.quantity == MAGNITUDE:
        raise InputError("pixels in magnitudes, and not in flux", file=file, keyword="unit", found=unit,
                         expected="a unit of flux", fix="convert them: 10**(-0.4 * m)")  # fmt: skip
    if not found.unit and parsed is None:
        raise InputError("no such unit", file=file, keyword="unit", found=unit, known=UNITS)
    if found.factor == 1:
        return found.unit, found.quantity
    from astropy import units as u

    plain = parsed is not None and parsed.is_equivalent(u.Unit("nJy"))
    return parsed.to_string() if plain else f"{found.factor:.10g} {found.unit}", found.quantity


def raised(unit: str, power: int) -> str:
    """A power of a unit.

    >>> raised("nJy", -2)
    '1 / nJy2'
    """
    from astropy import units as u

    return str((u.Unit(unit) ** power).to_string())
