"""What headers say of bands: their names, their SVO filter ids, and how far Vega magnitudes lie from AB."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deepsky.surveys._names import is_band, words

KEYS = ("FILTER", "FILTER1", "FILTER2", "BAND", "FILTNAM", "FILTNAM1", "FILTERS", "FILT", "FILTERID", "FPA.FILTER",
        "FPA.FILTERID", "ESO INS FILT1 NAME", "ESO INS FILT NAME")  # fmt: skip
_EMPTY = {"", "none", "clear", "n/a", "na", "open", "unknown", "blank", "undefined"}
_CAMERA = r"^(?:sdss|sloan|hsc|des|ps1|decam|megacam)|(?:sdss|decam)$"
_WHO = ("TELESCOP", "INSTRUME", "DETECTOR", "CAMERA", "SURVEY", "ORIGIN", "PROJECT")

# where a header comes from -> SVO Filter Profile Service id (http://svo2.cab.inta-csic.es/theory/fps)
_SVO: tuple[tuple[str, str, str], ...] = (
    (r"\bDECam\b|LegacySurvey", "CTIO/DECam.{}", "u g r i z Y"),
    (r"\bHSC\b|Hyper Suprime", "Subaru/HSC.{}", "g r i z Y"),
    (r"LSST|ComCam", "LSST/LSST.{}", "u g r i z y"),
    (r"Mega(?:Prime|Cam)", "CFHT/MegaCam.{}", "u g r i z"),
    (r"OMEGACAM", "Paranal/OmegaCAM.{}_SDSS", "u g r i z"),
    (r"VIRCAM|VISTA", "Paranal/VISTA.{}", "Z Y J H Ks"),
    (r"\bACS\b", "HST/ACS_WFC.{}", "F*"),
    (r"\bWFC3\b.*\bIR\b", "HST/WFC3_IR.{}", "F*"),
    (r"\bWFC3\b", "HST/WFC3_UVIS1.{}", "F*"),
    (r"NIRCAM", "JWST/NIRCam.{}", "F*"),
    (r"MIRI", "JWST/MIRI.{}", "F*"),
    (r"EUCLID.*VIS|\bVIS\b", "Euclid/VIS.{}", "VIS"),
    (r"NISP", "Euclid/NISP.{}", "Y J H"),
    (r"GPC1|\bPS1\b|Pan-?STARRS", "PAN-STARRS/PS1.{}", "g r i z y"),
    (r"\bZTF\b", "Palomar/ZTF.{}", "g r i"),
    (r"2MASS", "2MASS/2MASS.{}", "J H Ks"),
    (r"WFCAM|UKIDSS|UKIRT", "UKIRT/UKIDSS.{}", "Z Y J H K"),
    (r"\bWISE\b", "WISE/WISE.{}", "W1 W2 W3 W4"),
    (r"GALEX", "GALEX/GALEX.{}", "FUV NUV"),
    (r"SDSS|SLOAN", "SLOAN/SDSS.{}", "u g r i z"),
)
# m_AB - m_Vega: VISTA Gonzalez-Fernandez+2018, 2MASS Blanton & Roweis 2007, UKIDSS Hewett+2006, WISE Jarrett+2011
AB_MINUS_VEGA = {
    "Paranal/VISTA.Z": 0.502, "Paranal/VISTA.Y": 0.600, "Paranal/VISTA.J": 0.916, "Paranal/VISTA.H": 1.366,
    "Paranal/VISTA.Ks": 1.827, "2MASS/2MASS.J": 0.91, "2MASS/2MASS.H": 1.39, "2MASS/2MASS.Ks": 1.85,
    "UKIRT/UKIDSS.Z": 0.528, "UKIRT/UKIDSS.Y": 0.634, "UKIRT/UKIDSS.J": 0.938, "UKIRT/UKIDSS.H": 1.379,
    "UKIRT/UKIDSS.K": 1.900, "WISE/WISE.W1": 2.699, "WISE/WISE.W2": 3.339, "WISE/WISE.W3": 5.174, "WISE/WISE.W4": 6.620,
}  # fmt: skip


def band_of(header: Mapping[str, Any]) -> str:
    """The band that a header names, "" if none: ``g DECam SDSS c0001`` is g, ``HSC-I2`` is i, ``CLEAR1L`` none.

    >>> band_of({"FILTER1": "CLEAR1L", "FILTER2": "F814W"})
    'F814W'
    """
    for key in KEYS:
        value = header.get(key)
        if isinstance(value, str) and (band := tidy(value)):
            return band
    planes = header.get("BANDS")  # of a cube; that of a single plane may name it
    return planes.strip() if isinstance(planes, str) and is_band(planes.strip()) else ""


def tidy(value: str) -> str:
    """The name of a band in the words of a filter keyword.

    >>> [tidy(v) for v in ("g DECam SDSS c0001", "HSC-I2", "sdss_r", "gSDSS", "CLEAR1L", "Halpha")]
    ['g', 'i', 'r', 'g', '', 'Halpha']
    """
    parts = words(value.replace("/", " "))
    if not parts or value.strip().lower() in _EMPTY or parts[0].lower().startswith("clear"):
        return ""
    own = [re.sub(_CAMERA, "", part, flags=re.IGNORECASE) for part in parts]
    named = len("".join(own)) < len("".join(parts))
    for part in own:
        for text in (part, re.sub(r"\d$", "", part)):
            if text and named and text in "UGRIZ":  # the capitals of HSC and others, none of Johnson's
                return text.lower()
            if is_band(text):
                return text
    return "_".join(parts)


def cube_bands(header: Mapping[str, Any], n: int) -> tuple[str, ...]:
    """Names of the `n` planes of a cube, () if the header has none: ``BANDS = 'grz'``, ``BAND0 = 'g'``, ``FILTER1``."""
    for key in ("BANDS", "FILTERS", "FILTER", "BAND"):
        value = header.get(key)
        if not isinstance(value, str):
            continue
        parts = [p for p in re.split(r"[,;/\s]+", value.strip()) if p]
        if len(parts) == n and n > 1:
            return tuple(tidy(p) for p in parts)
        if len(parts) == 1 and len(parts[0]) == n > 1 and all(map(is_band, parts[0])):
            return tuple(parts[0])
    for start, first in (("BAND", 0), ("BAND", 1), ("FILTER", 1), ("FILTER", 0), ("FILT", 1), ("PLANE", 1)):
        values = [header.get(f"{start}{i}") for i in range(first, first + n)]
        if all(isinstance(v, str) and v.strip() for v in values):
            return tuple(tidy(str(v)) for v in values)
    return ()


def svo(header: Mapping[str, Any], band: str, name: str = "") -> str:
    """The SVO id of a band of a known survey or camera, "" otherwise; `name` is that of the file.

    >>> svo({"INSTRUME": "DECam"}, "z")
    'CTIO/DECam.z'
    """
    who = " ".join(str(header[k]) for k in _WHO if isinstance(header.get(k), str))
    if re.search(r"\bHSC-[GRIZY]2?\b", name):  # whose archive says in the names of its files what it leaves out there
        who += " HSC"
    for pattern, name, bands in _SVO:
        if re.search(pattern, who, re.IGNORECASE):
            known = re.match(r"F\d{3,4}", band) if bands == "F*" else band in bands.split()
            return name.format("vis" if band == "VIS" else band) if known else ""
    return ""
