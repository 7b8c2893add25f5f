"""A look at the world coordinates that a header declares, before wcslib sees them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from deepsky.gate.fits_header import show
from deepsky.gate.source import Place

_TO_DEGREES = {"": 1.0, "deg": 1.0, "degree": 1.0, "degrees": 1.0, "arcmin": 1 / 60, "arcsec": 1 / 3600,
               "mas": 1 / 3.6e6, "rad": 180 / math.pi}  # fmt: skip
_LONGITUDES = ("RA--", "GLON", "ELON", "SLON", "HLON", "TLON")
_LATITUDES = ("DEC-", "GLAT", "ELAT", "SLAT", "HLAT", "TLAT")
_HIGHEST = 9  # order of SIP: the convention's keywords have one digit
_PARAMETER = re.compile(r"(?:PV[1-9]_\d+|(?:A|B|AP|BP)_\d+_\d+|LONPOLE|LATPOLE)\Z")
_ELEMENTS = {start: frozenset(f"{start}{i}_{j}" for i in range(1, 9) for j in range(1, 9)) for start in ("CD", "PC")}
_MATRIX = "the header needs CDi_j, or CDELTn with PCi_j or CROTA2"


@final
@dataclass(frozen=True)
class WcsReport:
    """The celestial world coordinates of an image, found usable.

    Parameters
    ----------
    axes : numbers of the longitude and the latitude axis, counted from 1 in FITS order.
    ctype : their CTYPEs.
    crval : position of the reference point [deg].
    crpix : its pixel, counted from 1.
    cd : ((dlon/di, dlon/dj), (dlat/di, dlat/dj)) [deg / pixel], i and j the two axes in the order of `axes`.
    """

    axes: tuple[int, int]
    ctype: tuple[str, str]
    crval: tuple[float, float]
    crpix: tuple[float, float]
    cd: tuple[tuple[float, float], tuple[float, float]]

    @property
    def pixel_scale(self) -> float:
        """Side of a pixel at the reference point [arcsec], the root of its area."""
        (a, b), (c, d) = self.cd
        return math.sqrt(abs(a * d - b * c)) * 3600


def check_wcs(header: Mapping[str, Any], *, file: object = None, hdu: int | str | None = None) -> WcsReport | None:
    """Check that a header's celestial coordinates are complete, finite and invertible.

    Parameters
    ----------
    header : keyword -> value; of a compressed image, the table's header serves.

    Returns
    -------
    WcsReport, or None where the header declares no celestial coordinates at all.

    Raises
    ------
    InputError : CTYPE without its partner, CRVALn or CRPIXn missing or not finite, a latitude beyond the pole, no
        scale, a matrix that maps all pixels onto a line (det = 0), or a parameter of the projection or of its
        distortion that is not finite, or of an order that no header can hold.
    """
    place = Place("(header)" if file is None else str(file), hdu)
    types = {n: _type(header.get(f"CTYPE{n}"), n, place) for n in range(1, 9) if f"CTYPE{n}" in header}
    lon = next((n for n, name in types.items() if _is(name, _LONGITUDES, "LN")), None)
    lat = next((n for n, name in types.items() if _is(name, _LATITUDES, "LT")), None)
    if lon is None and lat is None:
        _check_absence(header, types, place)
        return None
    if lon is None or lat is None:
        raise place.refuse(
            "only one of the two celestial axes is declared",
            keyword=f"CTYPE{2 if 1 in types else 1}",
            found=", ".join(f"CTYPE{n} = {name!r}" for n, name in types.items()),
            expected="a pair such as 'RA---TAN' and 'DEC--TAN'",
            fix="correct CTYPE1 and CTYPE2 in the header",
        )
    units = [_unit(header, n, place) for n in (lon, lat)]
    crval = [_finite(header, f"CRVAL{n}", place) * unit for n, unit in zip((lon, lat), units, strict=True)]
    crpix = [_finite(header, f"CRPIX{n}", place) for n in (lon, lat)]
    if abs(crval[1]) > 90:
        raise place.refuse(
            "the latitude of the reference point lies beyond the pole",
            keyword=f"CRVAL{lat}",
            found=f"{crval[1]:g} deg",
            expected="-90 to 90 deg",
            fix="correct CRVAL1 and CRVAL2 (swapped?) in the header",
        )
    rows = _matrix(header, lon, lat, place)
    cd = tuple((row[0] * unit, row[1] * unit) for row, unit in zip(rows, units, strict=True))
    size = max(abs(value) for row in cd for value in row)
    if size == 0 or abs(cd[0][0] * cd[1][1] - cd[0][1] * cd[1][0]) < 1e-12 * size * size:
        raise place.refuse(
            "the coordinates are singular: all pixels fall onto one line or point",
            keyword=f"CD{lon}_{lon}" if _has(header, "CD") else f"CDELT{lon}",
            found=f"matrix {cd[0]}, {cd[1]} deg per pixel, determinant 0",
            expected="a matrix whose determinant is not 0",
            fix=f"correct the matrix; {_MATRIX}",
        )
    _check_parameters(header, place)
    return WcsReport((lon, lat), (types[lon], types[lat]), (crval[0], crval[1]), (crpix[0], crpix[1]), (cd[0], cd[1]))


def _is(name: str, prefixes: tuple[str, ...], ending: str) -> bool:
    """The CTYPE of a celestial axis: one of the prefixes, or a planet's (xyLN-, xyLT-)."""
    return name.startswith(prefixes) or name == prefixes[0].rstrip("-") or name[2:5] == f"{ending}-"


def _type(value: object, n: int, place: Place) -> str:
    if not isinstance(value, str):
        fix = f"write CTYPE{n} as text, 'RA---TAN' for instance"
        raise place.refuse("the axis type is no text", keyword=f"CTYPE{n}", found=show(value), expected="text", fix=fix)
    return value.strip().upper()


def _unit(header: Mapping[str, Any], n: int, place: Place) -> float:
    unit = header.get(f"CUNIT{n}", "")
    factor = _TO_DEGREES.get(unit.strip().lower()) if isinstance(unit, str) else None
    if factor is None:
        known = tuple(name for name in _TO_DEGREES if name)
        raise place.refuse("the unit of a celestial axis is no angle", keyword=f"CUNIT{n}", found=unit, known=known)
    return factor


def _finite(header: Mapping[str, Any], keyword: str, place: Place, default: float | None = None) -> float:
    value = header.get(keyword, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise place.refuse(
            "the header declares coordinates, but this value is missing"
            if value is None
            else "the value is not a finite number",
            keyword=keyword,
            found="no such card" if keyword not in header else show(value),
            expected="a finite number",
            fix=f"correct {keyword}, or delete the coordinates (CTYPEn) from the header and give positions in a table",
        )
    return float(value)


def _check_parameters(header: Mapping[str, Any], place: Place) -> None:
    """What wcslib and astropy would take on trust: a SIP of order 99999 keeps them busy for hours."""
    for key in header:
        if key[:1] in "PABL" and _PARAMETER.match(key) and header[key] is not None:
            _finite(header, key, place)
    if str(header.get("RADESYS", "")).strip().upper() == "GAPPT":
        raise place.refuse(
            "apparent places, which lie up to half a degree from those of a catalogue",
            keyword="RADESYS",
            found="'GAPPT'",
            expected="ICRS, FK5 or FK4",
            fix="fit the coordinates anew (astrometry.net, SCAMP)",
        )
    for key in ("A_ORDER", "B_ORDER", "AP_ORDER", "BP_ORDER"):
        order = header.get(key, 0)
        if type(order) is not int or not 0 <= order <= _HIGHEST:
            raise place.refuse(
                "no legal order of a SIP distortion",
                keyword=key,
                found=show(order),
                expected=f"an integer from 0 to {_HIGHEST}",
                fix="correct the distortion, or delete it (A_i_j, B_i_j) if the image was resampled",
            )


def _has(header: Mapping[str, Any], start: str) -> bool:
    return not _ELEMENTS[start].isdisjoint(header)


def _matrix(header: Mapping[str, Any], lon: int, lat: int, place: Place) -> list[tuple[float, float]]:
    """Rows (longitude, latitude) of the linear part, in the axes' own units: CD, else PC + CDELT, else CROTA."""
    if _has(header, "CD"):
        cd = [[_finite(header, f"CD{i}_{j}", place, 0) for j in (lon, lat)] for i in (lon, lat)]
        return [(row[0], row[1]) for row in cd]
    step = [_finite(header, f"CDELT{n}", place) for n in (lon, lat)]
    if _has(header, "PC"):
        pc = [[_finite(header, f"PC{i}_{j}", place, float(i == j)) for j in (lon, lat)] for i in (lon, lat)]
        return [(step[k] * pc[k][0], step[k] * pc[k][1]) for k in (0, 1)]
    turn = math.radians(_finite(header, f"CROTA{lat}", place, 0))
    cos, sin = math.cos(turn), math.sin(turn)
    return [(step[0] * cos, -step[1] * sin), (step[0] * sin, step[1] * cos)]


def _check_absence(header: Mapping[str, Any], types: Mapping[int, str], place: Place) -> None:
    """No celestial axis: refuse what looks like a position on the sky that lacks its CTYPE, accept the rest."""
    values = [header.get(f"CRVAL{n}") for n in (1, 2)]
    numbers = [float(v) for v in values if isinstance(v, int | float)]
    axes = header.get("ZNAXIS", header.get("NAXIS", 2))
    on_sky = len(numbers) == 2 and 0 <= numbers[0] <= 360 and -90 <= numbers[1] <= 90
    trivial = all(number in (0, 1) for number in numbers)  # pixel numbers, counted from 0 or 1
    scaled = _has(header, "CD") or "CDELT1" in header
    if on_sky and not trivial and scaled and axes != 1 and not any(types.values()):
        raise place.refuse(
            "the header has a reference point but no axis types",
            keyword="CTYPE1",
            found=f"CRVAL1 = {values[0]!r}, CRVAL2 = {values[1]!r}, no CTYPE1",
            expected="a pair such as 'RA---TAN' and 'DEC--TAN'",
            fix="add CTYPE1 and CTYPE2 to the header; without them the coordinates are those of pixels",
        )
