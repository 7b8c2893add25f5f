"""Survey constants: pixel, PSF, zero point, sky, exposure and read noise of each band, each with its source.

A zero point is the AB magnitude that gives one electron a second; a sky is in AB magnitudes per square arcsecond; an
exposure is one of `n_exposures` equal ones. Sources: [codex] github.com/LSSTDESC/surveycodex, [lenstronomy] its
ObservationConfig, [smtn-002] the LSST note, [M] from memory (fairly sure, not read in the source).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final, Literal

from deepsky.errors import InputError

NJY_ZERO_POINT: Final = 31.4  # AB magnitude of 1 nJy


@dataclass(frozen=True)
class Band:
    """One band of one survey.

    Attributes
    ----------
    name : short name, unique within the survey.
    svo : filter id of the SVO Filter Profile Service.
    pixel_scale : [arcsec].
    psf_fwhm : [arcsec].
    zero_point : AB magnitude of 1 electron a second.
    sky : [AB mag arcsec**-2].
    exposure : of one exposure [s].
    read_noise : [electron] per pixel and exposure.
    gain : [electron/ADU].
    n_exposures : number of exposures added.
    dark : [electron/s] per pixel.
    psf : its family: "moffat" (beta = 3.5, ground) or "gaussian" (space).
    """

    name: str
    svo: str
    pixel_scale: float
    psf_fwhm: float
    zero_point: float
    sky: float
    exposure: float
    read_noise: float = 0.0
    gain: float = 1.0
    n_exposures: int = 1
    dark: float = 0.0
    psf: Literal["moffat", "gaussian"] = "moffat"

    @property
    def total_exposure(self) -> float:
        """All exposures together [s]."""
        return self.exposure * self.n_exposures

    @property
    def sky_electrons(self) -> float:
        """Sky per pixel in all exposures together [electron]."""
        return 10 ** (0.4 * (self.zero_point - self.sky)) * self.pixel_scale**2 * self.total_exposure

    @property
    def background_variance(self) -> float:
        """Variance of a pixel of blank sky: sky, dark current and read noise [electron**2]."""
        return self.sky_electrons + self.dark * self.total_exposure + self.n_exposures * self.read_noise**2

    @property
    def electrons_per_njy(self) -> float:
        """Electrons that 1 nJy gives in all exposures together."""
        return 10 ** (0.4 * (self.zero_point - NJY_ZERO_POINT)) * self.total_exposure

    @property
    def sigma(self) -> float:
        """Standard deviation of a pixel of blank sky [nJy]."""
        return math.sqrt(self.background_variance) / self.electrons_per_njy


def depth(band: Band, snr: float = 5.0) -> float:
    """Magnitude of a point source at signal-to-noise ratio `snr`, by matched filter.

    ``snr = C / sqrt(C + n_eff v)`` with C its electrons, v the background variance of a pixel and
    ``n_eff = 2.266 (FWHM / pixel)**2`` pixels (LSST note SMTN-002).
    """
    n_eff = 2.266 * (band.psf_fwhm / band.pixel_scale) ** 2
    electrons = 0.5 * (snr**2 + math.sqrt(snr**4 + 4 * snr**2 * n_eff * band.background_variance))
    return band.zero_point + 2.5 * math.log10(band.total_exposure / electrons)


def aperture_depth(band: Band, diameter: float = 2.0, snr: float = 5.0) -> float:
    """Magnitude whose flux is `snr` times the background noise in an aperture of `diameter` [arcsec]."""
    pixels = math.pi * (0.5 * diameter / band.pixel_scale) ** 2
    noise = math.sqrt(pixels * band.background_variance)
    return band.zero_point + 2.5 * math.log10(band.total_exposure / (snr * noise))


def zero_point_of(area: float, throughput: tuple[tuple[float, float], ...]) -> float:
    """AB magnitude that gives one electron a second.

    The photons of an AB magnitude 0 source are ``f0 / (h lambda) d lambda`` a second, square metre and wavelength
    with f0 = 3631 Jy, so the electrons are ``area f0/h * integral T d(ln lambda)``.

    Parameters
    ----------
    area : collecting area [m**2].
    throughput : (wavelength in any unit, electrons per photon), linear between the points.
    """
    f0_over_h = 3631e-26 / 6.62607015e-34  # photons s**-1 m**-2 per unit of ln(lambda)
    integral = 0.0
    for (w0, t0), (w1, t1) in pairwise(throughput):
        slope = (t1 - t0) / (w1 - w0)  # exact integral of a straight line over d(ln w)
        integral += (t0 - slope * w0) * math.log(w1 / w0) + slope * (w1 - w0)
    return 2.5 * math.log10(area * f0_over_h * integral)


# Euclid VIS, electrons per photon at 20 nm steps: mean detector quantum efficiency (beginning of life) times the
# transmission of telescope and dichroic (end of life), from the mission data base SPV02 as tabulated in
# github.com/haussel/photometry. The telescope's open area is 9926 cm**2 (euclid-ec.org; 1.2 m less the obscuration).
# lenstronomy's 24.0 and surveycodex's 25.91 stand 1.9 mag apart; this gives 25.76, near the second.
EUCLID_VIS_THROUGHPUT: Final = (
    (538.0, 0.029), (541.8, 0.52), (544.0, 0.686), (560.0, 0.718), (580.0, 0.738), (600.0, 0.751), (620.0, 0.756),
    (640.0, 0.7595), (660.0, 0.757), (680.0, 0.7565), (700.0, 0.7565), (720.0, 0.754), (740.0, 0.749), (760.0, 0.737),
    (780.0, 0.7235), (800.0, 0.700), (820.0, 0.666), (840.0, 0.6215), (860.0, 0.567), (880.0, 0.498), (900.0, 0.423),
    (915.0, 0.361), (921.0, 0.290), (926.0, 0.120), (931.0, 0.010),
)  # fmt: skip
EUCLID_AREA: Final = 0.9926
EUCLID_ZERO_POINT: Final = round(zero_point_of(EUCLID_AREA, EUCLID_VIS_THROUGHPUT), 2)


def _sky_for(limit: float, *, aperture: float | None, zero_point: float, exposure: float, n: int, read_noise: float,
             pixel_scale: float, fwhm: float) -> float:  # fmt: skip
    """The sky brightness with which a point source (or an aperture's noise) reaches a published 5-sigma limit."""
    pixels = math.pi * (0.5 * aperture / pixel_scale) ** 2 if aperture else 2.266 * (fwhm / pixel_scale) ** 2
    electrons = 10 ** (0.4 * (zero_point - limit)) * exposure * n
    own = 0.0 if aperture else electrons  # an aperture limit is quoted against blank sky
    variance = ((electrons / 5) ** 2 - own) / pixels
    per_arcsec = (variance - n * read_noise**2) / (exposure * n * pixel_scale**2)
    return round(zero_point - 2.5 * math.log10(per_arcsec), 2)


# Zero points and skies of LSST: [codex] LSST.yaml; read noise and dark [smtn-002]; 10 years of visits of 30 s.
# FWHM at airmass 1.2. name: (zero point, sky, fwhm, visits)
_LSST = {"u": (26.40, 22.99, 0.90, 56), "g": (28.26, 22.26, 0.86, 80), "r": (28.10, 21.20, 0.81, 184),
         "i": (27.78, 20.48, 0.79, 184), "z": (27.39, 19.60, 0.77, 160), "y": (26.56, 18.61, 0.76, 160)}  # fmt: skip

# DES: [codex] DES.yaml, read noise and gain [lenstronomy]; 10 exposures of 90 s.
_DES = {"g": (26.72, 22.01, 1.12), "r": (26.99, 21.15, 0.96), "i": (26.86, 19.89, 0.88), "z": (26.58, 18.72, 0.84)}

# HSC wide: [codex] HSC.yaml; read noise 4.5 e- [M]. name: (zero point, sky, fwhm, total exposure, exposures)
_HSC = {"g": (28.90, 21.4, 0.79, 600, 4), "r": (28.86, 20.6, 0.75, 600, 4), "i": (28.61, 19.7, 0.61, 1200, 6)}

# CFHTLS wide: [codex] CFHTLS.yaml; read noise 5 e- [M], exposures of about 600 s [M].
_CFHTLS = {"u": (25.78, 21.2, 0.81, 3000, 5), "g": (27.11, 21.3, 0.84, 2500, 5), "r": (26.74, 20.8, 0.73, 2000, 4),
           "i": (26.22, 20.3, 0.66, 4305, 7), "z": (25.05, 19.4, 0.66, 3600, 6)}  # fmt: skip

# SDSS: r zero point 24.8, sky 20.9, one scan of 53.9 s, read noise 5 e- [M]; the other zero points keep the
# differences to r of [codex] SDSS.yaml (throughput), skies and seeing are its DR17 medians.
_SDSS = {"u": (22.76, 22.01, 1.47), "g": (24.91, 21.84, 1.39), "r": (24.80, 20.90, 1.35), "i": (24.46, 20.16, 1.27),
         "z": (22.48, 18.96, 1.23)}  # fmt: skip

# KiDS: exposures and seeing [M]; 5-sigma limits in a 2" aperture u 24.23, g 25.12, r 25.02, i 23.68 (Kuijken+2019,
# A&A 625 A2, DR4), from which the skies follow. No zero point is published for the coadds: the photon noise in the
# sigma maps of KiDS r images (Robotham+2017, MNRAS 466 1513) is that of 2.0e13 electrons at magnitude 0 in 1800 s,
# hence 25.1 in r; u, g and i keep MegaCam's differences to r, a camera with the same detectors. Read noise 5 e- [M].
# name: (zero point, 5-sigma limit, fwhm, exposure, exposures)
_KIDS = {"u": (24.14, 24.23, 1.0, 250, 4), "g": (25.47, 25.12, 0.9, 180, 5), "r": (25.10, 25.02, 0.7, 360, 5),
         "i": (24.58, 23.68, 0.8, 240, 5)}  # fmt: skip

# ZTF: one exposure of 30 s, pixel 1.01", FWHM 2.0", read noise 10 e-, 5-sigma limits g 20.8, r 20.6, i 19.9 [M], from
# which the skies follow; zero points: 26.3, 26.3, 25.7 for one ADU of 6.2 electrons in 30 s [M].
_ZTF = {"g": (24.59, 20.8), "r": (24.59, 20.6), "i": (23.99, 19.9)}


def _kids(name: str) -> Band:
    zero_point, limit, fwhm, exposure, n = _KIDS[name]
    sky = _sky_for(limit, aperture=2.0, zero_point=zero_point, exposure=exposure, n=n, read_noise=5.0, pixel_scale=0.2,
                   fwhm=fwhm)  # fmt: skip
    return Band(name, f"Paranal/OmegaCAM.{name}_SDSS", 0.2, fwhm, zero_point, sky, exposure, 5.0, 2.5, n)


def _ztf(name: str) -> Band:
    zero_point, limit = _ZTF[name]
    sky = _sky_for(limit, aperture=None, zero_point=zero_point, exposure=30.0, n=1, read_noise=10.0, pixel_scale=1.01,
                   fwhm=2.0)  # fmt: skip
    return Band(name, f"Palomar/ZTF.{name}", 1.01, 2.0, zero_point, sky, 30.0, 10.0, 6.2)


def _table() -> dict[str, tuple[Band, ...]]:
    lsst = {k: (zp, sky, fwhm, n) for k, (zp, sky, fwhm, n) in _LSST.items()}
    return {
        "lsst": tuple(Band(k, f"LSST/LSST.{k}", 0.2, fwhm, zp, sky, 30.0, 8.8, 1.0, n, 0.2)
                      for k, (zp, sky, fwhm, n) in lsst.items()),
        "lsst-single": tuple(Band(k, f"LSST/LSST.{k}", 0.2, fwhm, zp, sky, 30.0, 8.8, 1.0, 1, 0.2)
                             for k, (zp, sky, fwhm, n) in lsst.items()),
        # pixel 0.10", FWHM 0.17", sky 22.35, 4 x 565 s, read noise 4.2 e-, gain 3.1 [lenstronomy, codex]
        "euclid": (Band("vis", "Euclid/VIS.vis", 0.1, 0.17, EUCLID_ZERO_POINT, 22.35, 565.0, 4.2, 3.1, 4,
                        psf="gaussian"),),
        "hsc": tuple(Band(k, f"Subaru/HSC.{k}", 0.168, fwhm, zp, sky, t / n, 4.5, 3.0, n)
                     for k, (zp, sky, fwhm, t, n) in _HSC.items()),
        "des": tuple(Band(k, f"CTIO/DECam.{k}", 0.263, fwhm, zp, sky, 90.0, 7.0, 4.0, 10)
                     for k, (zp, sky, fwhm) in _DES.items()),
        "kids": tuple(_kids(k) for k in _KIDS),
        "sdss": tuple(Band(k, f"SLOAN/SDSS.{k}", 0.396, fwhm, zp, sky, 53.9, 5.0, 6.0)
                      for k, (zp, sky, fwhm) in _SDSS.items()),
        "cfhtls": tuple(Band(k, f"CFHT/MegaCam.{k}", 0.187, fwhm, zp, sky, t / n, 5.0, 1.67, n)
                        for k, (zp, sky, fwhm, t, n) in _CFHTLS.items()),
        # [codex] COSMOS.yaml; read noise 5 e- of 4 exposures [M], drizzled from pixels of 0.05" to 0.03"
        "cosmos": (Band("F814W", "HST/ACS_WFC.F814W", 0.03, 0.095, 25.94, 22.0, 507.0, 3.0, 1.0, 4, psf="gaussian"),),
        # zero point, sky, exposure, read noise [lenstronomy HST.py]; 0.06" and 0.18" [M]
        "candels": (Band("F160W", "HST/WFC3_IR.F160W", 0.06, 0.18, 25.96, 22.3, 5400.0, 4.0, psf="gaussian"),),
        "ztf": tuple(_ztf(k) for k in _ZTF),
    }  # fmt: skip


SURVEYS: Final[Mapping[str, tuple[Band, ...]]] = MappingProxyType(_table())


def bands(survey: str, names: tuple[str, ...] | None = None) -> tuple[Band, ...]:
    """The bands of a survey, all of them or those called `names`, in that order.

    Raises
    ------
    InputError : no such survey, or no such band in it.
    """
    if survey not in SURVEYS:
        raise InputError("no constants for this survey", found=survey, known=SURVEYS)
    known = {band.name: band for band in SURVEYS[survey]}
    for name in names or ():
        if name not in known:
            raise InputError(f"{survey} has no such band", found=name, known=known)
    return tuple(known[name] for name in names) if names is not None else SURVEYS[survey]


@dataclass(frozen=True)
class Great3:
    """Constants of a branch of the GREAT3 challenge (Mandelbaum+2014): its noise has no zero point.

    Attributes
    ----------
    size : pixels a side.
    pixel_scale : [arcsec].
    snr : lowest and highest matched-filter signal-to-noise ratio of a galaxy.
    shear : inner and outer radius of the annulus from which the shear g is drawn, uniform in area.
    offset : largest offset of the centre in x and y [pixel].
    resolution : lowest resolution factor, 1 - (PSF size / image size)**2 by the trace of the moments.
    """

    size: int
    pixel_scale: float
    snr: tuple[float, float] = (17.0, 100.0)
    shear: tuple[float, float] = (0.01, 0.05)
    offset: float = 1.0
    resolution: float = 1.0 / 3.0


# github.com/GalSim-developers/GalSim examples/great3/cgc.yaml, great3_reject.py; great3sims/constants.py
GREAT3_GROUND: Final = Great3(48, 0.2)
GREAT3_SPACE: Final = Great3(96, 0.05)
