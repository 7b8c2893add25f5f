"""AB colours of galaxies by type and redshift: Coleman, Wu & Weedman (1980) spectra through survey throughputs.

The spectra (E, Sbc, Scd, Im) and the LSST, ACS and WFC3 throughputs are files of galsim; Euclid VIS is tabulated in
`_surveys`. Bands of other surveys take LSST's curve of the same letter, which shifts a colour by up to 0.1 mag.
Hydrogen between us and a source dims it blueward of Lyman alpha (Madau 1995, ApJ 441 18, line blanketing and the
912 A edge).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deepsky.errors import InputError, need
from deepsky.simulators._surveys import EUCLID_VIS_THROUGHPUT, Band

Floats = NDArray[np.float64]

TYPES: Final = ("E", "Sbc", "Scd", "Im")
E, SBC, SCD, IM = 0.0, 1.0, 2.0, 3.0
Z_MAX: Final = 3.2
_Z_STEP: Final = 0.02
_FILES: Final = {"F814W": "ACS_wfc_F814W", "F160W": "WFC3_ir_F160W"}
_LYMAN: Final = ((1215.67, 0.0036), (1025.72, 1.7e-3), (972.537, 1.2e-3), (949.743, 9.3e-4))


def _share() -> Path:
    return Path(need("galsim", "simulate").meta_data.share_dir)


@lru_cache(maxsize=4)
def spectrum(kind: str) -> tuple[Floats, Floats]:
    """Rest-frame spectrum of a type: wavelength [Angstrom], f_lambda in arbitrary units."""
    table = np.loadtxt(_share() / "SEDs" / f"CWW_{kind}_ext_more.sed")
    return table[:, 0], table[:, 1]


@lru_cache(maxsize=16)
def throughput(name: str) -> tuple[Floats, Floats]:
    """Throughput of a band by its short name ("r", "vis", "F814W"): wavelength [Angstrom], photons detected.

    Raises
    ------
    InputError : no curve of that name.
    """
    if name == "vis":
        table = np.array(EUCLID_VIS_THROUGHPUT)
        fine = np.arange(table[0, 0], table[-1, 0], 2.0)
        return fine * 10, np.interp(fine, table[:, 0], table[:, 1])
    path = _share() / "bandpasses" / f"{_FILES.get(name, f'LSST_{name}')}.dat"
    if not path.exists():
        raise InputError(
            "no throughput for this band", found=name, known=["u", "g", "r", "i", "z", "y", "vis", *_FILES]
        )
    table = np.loadtxt(path)
    return table[:, 0] * 10, table[:, 1]


def absorption(wavelength: Floats, z: float) -> Floats:
    """Share of the light at the observed `wavelength` [Angstrom] that intergalactic hydrogen lets through."""
    tau = np.zeros_like(wavelength)
    for line, strength in _LYMAN:
        tau += np.where(wavelength < line * (1 + z), strength * (wavelength / line) ** 3.46, 0.0)
    c, e = wavelength / 911.75, 1 + z  # the photoelectric edge, Madau's approximation to his equation 16
    edge = (
        0.25 * c**3 * (e**0.46 - c**0.46)
        + 9.4 * c**1.5 * (e**0.18 - c**0.18)
        - 0.7 * c**3 * (c**-1.32 - e**-1.32)
        - 0.023 * (e**1.68 - c**1.68)
    )
    return np.asarray(np.exp(-tau - np.where(c < e, np.maximum(edge, 0.0), 0.0)))


def _ab(kind: str, name: str, z: float) -> float:
    """AB magnitude up to a constant that depends on the type alone, the distance left out."""
    wave, curve = throughput(name)
    rest_wave, rest_flux = spectrum(kind)
    flux = np.interp(wave / (1 + z), rest_wave, rest_flux) / (1 + z) * absorption(wave, z)
    # photons against those of a flat f_nu
    return float(-2.5 * np.log10(np.trapezoid(flux * curve * wave, wave) / np.trapezoid(curve / wave, wave)))


@lru_cache(maxsize=16)
def _table(name: str) -> Floats:
    """(type, redshift) magnitudes in a band, relative to the rest-frame LSST r of the same galaxy."""
    redshifts = np.arange(0.0, Z_MAX + _Z_STEP / 2, _Z_STEP)
    return np.array([[_ab(kind, name, float(z)) - _ab(kind, "r", 0.0) for z in redshifts] for kind in TYPES])


def offsets(kind: Floats, z: Floats, bands: tuple[Band, ...]) -> Floats:
    """(n, band) magnitudes relative to the absolute magnitude in r: ``m_b = M_r + distance modulus + offset``.

    Parameters
    ----------
    kind : (n,) spectral type, 0 (E) to 3 (Im); between two types the magnitudes are interpolated.
    z : (n,) redshift, below 3.2.
    """
    k = np.clip(np.asarray(kind, dtype=np.float64), 0.0, len(TYPES) - 1.0)
    i = np.minimum(k.astype(np.int64), len(TYPES) - 2)
    step = np.clip(np.asarray(z) / _Z_STEP, 0.0, Z_MAX / _Z_STEP - 1e-6)
    j = step.astype(np.int64)
    wk, wz = k - i, step - j
    out = np.empty((len(k), len(bands)))
    for b, band in enumerate(bands):
        t = _table(band.name)
        low = t[i, j] * (1 - wz) + t[i, j + 1] * wz
        high = t[i + 1, j] * (1 - wz) + t[i + 1, j + 1] * wz
        out[:, b] = low * (1 - wk) + high * wk
    return out


def relative_flux(kind: Floats, z: Floats, bands: tuple[Band, ...], reference: Band) -> Floats:
    """(n, band) flux relative to the flux in `reference`."""
    colour = offsets(kind, z, (*bands, reference))
    return np.asarray(10 ** (-0.4 * (colour[:, :-1] - colour[:, -1:])))
