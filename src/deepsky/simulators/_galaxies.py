"""How galaxies are distributed: ellipticities, sizes, counts, colours, and the early types that act as lenses.

What is drawn is an array per property, one inverse cumulative function each, so that an object's properties depend on
its own uniform numbers alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deepsky.simulators import _colours as colours
from deepsky.simulators._cosmology import arcsec_of, distance_modulus
from deepsky.simulators._noise import njy
from deepsky.simulators._random import magnitudes, rayleigh, tabulated, truncated_normal
from deepsky.simulators._surveys import Band

Floats = NDArray[np.float64]

# Distortion |e| = (a**2 - b**2)/(a**2 + b**2) of COSMOS galaxies with I < 23.5, the quantiles of the 54,236 measured
# shapes of the GREAT3 release (Mandelbaum+2014): cumulative share, |e|. Between them a monotone line.
COSMOS_ELLIPTICITY: Final = ((0.0, 0.0), (0.05, 0.11), (0.25, 0.31), (0.50, 0.53), (0.75, 0.75), (0.95, 0.92),
                             (1.0, 0.97))  # fmt: skip
# Bulge-to-total ratio of the same galaxies: 81% have a bulge, the median is 0.11.
COSMOS_BULGE: Final = ((0.0, 0.0), (0.19, 0.0), (0.25, 0.004), (0.50, 0.115), (0.75, 0.427), (0.95, 0.873), (1.0, 1.0))


def _quantile(u: Floats, table: tuple[tuple[float, float], ...]) -> Floats:
    share, value = np.array(table).T
    return np.asarray(np.interp(u, share, value))


def distortion_to_shear(e: Floats) -> Floats:
    """(a - b)/(a + b) of the distortion (a**2 - b**2)/(a**2 + b**2)."""
    return np.asarray(e / (1 + np.sqrt(1 - e**2)))


def cosmos_shapes(u: Floats, angle: Floats) -> tuple[Floats, Floats]:
    """Ellipticities (a - b)/(a + b) with the distribution of COSMOS galaxies, from two uniform numbers each."""
    g = distortion_to_shear(_quantile(u, COSMOS_ELLIPTICITY))
    return g * np.cos(2 * np.pi * angle), g * np.sin(2 * np.pi * angle)


def bulge_fraction(u: Floats) -> Floats:
    """Bulge-to-total flux ratio of COSMOS galaxies."""
    return _quantile(u, COSMOS_BULGE)


def size(u: Floats, i_magnitude: Floats, slope: float = 0.25) -> Floats:
    """Half-light radius [arcsec]: log-normal, median 0.4" at i = 22, `slope` dex smaller a magnitude, scatter 0.2 dex.

    The slope of 0.25 belongs to faint galaxies, i = 21 to 25; over a wider range 0.1 is closer to what COSMOS shows.
    """
    median = 0.4 * 10 ** (-slope * (i_magnitude - 22.0))
    return np.asarray(median * 10 ** truncated_normal(u, 0.0, 0.2, -0.5, 0.5))


def axis_ratio_shear(q: Floats, angle: Floats) -> tuple[Floats, Floats]:
    """Ellipticity (a - b)/(a + b) of axis ratio `q` and the long axis's `angle` [rad]."""
    g = (1 - q) / (1 + q)
    return g * np.cos(2 * angle), g * np.sin(2 * angle)


@dataclass(frozen=True, eq=False)
class Components:
    """Sersic components of many objects, in no order.

    Attributes
    ----------
    owner : (c,) row of the object.
    re, n, g1, g2, x, y : (c,) as `_render.sersic_spectrum` takes them [arcsec].
    flux : (c, band) [nJy].
    """

    owner: NDArray[np.int64]
    re: Floats
    n: Floats
    g1: Floats
    g2: Floats
    x: Floats
    y: Floats
    flux: Floats


def join(parts: list[Components]) -> Components:
    """All components, sorted by owner; the order within an owner is that of `parts`."""
    owner = np.concatenate([p.owner for p in parts])
    order = np.argsort(owner, kind="stable")
    rest = [
        np.concatenate([getattr(p, name) for p in parts])[order] for name in ("re", "n", "g1", "g2", "x", "y", "flux")
    ]
    return Components(owner[order], *rest)


def fluxes(kind: Floats, z: Floats, magnitude: Floats, bands: tuple[Band, ...], reference: Band) -> Floats:
    """(n, band) flux [nJy] of galaxies of a type at `z` whose magnitude in `reference` is given."""
    return np.asarray(njy(magnitude)[:, None] * colours.relative_flux(kind, z, bands, reference))


# -- early-type galaxies that act as lenses -------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class EarlyTypes:
    """Elliptical galaxies, every field (n,).

    Attributes
    ----------
    sigma : velocity dispersion [km/s].
    z : redshift.
    re : half-light radius [arcsec].
    q : axis ratio of the light.
    angle : of the long axis [rad].
    flux : (n, band) [nJy].
    """

    sigma: Floats
    z: Floats
    re: Floats
    q: Floats
    angle: Floats
    flux: Floats


EARLY_DRAWS: Final = 6


def early_types(u: Floats, bands: tuple[Band, ...]) -> EarlyTypes:
    """Lens galaxies from (n, 6) uniform numbers.

    sigma is N(230, 50) within 100 to 400 km/s, z is N(0.5, 0.2) within 0.1 to 1. Luminosity and size follow sigma by
    the early-type relations of Hyde & Bernardi (2009, MNRAS 394 1978), fits to the fundamental plane's projections,
    with 0.15/2.4 mag and 0.11 dex of scatter, as in LensPop (Collett 2015); axis ratios are Collett's; the spectrum
    is the E template, brighter by 0.85 z mag in the past (Bernardi+2003).
    """
    sigma = truncated_normal(u[:, 0], 230.0, 50.0, 100.0, 400.0)
    z = truncated_normal(u[:, 1], 0.5, 0.2, 0.1, 1.0)
    v = np.log10(sigma)
    # log sigma = -2.97 - 0.37 M_r - 0.006 M_r**2
    m_r = (-0.37 + np.sqrt(np.maximum(0.37**2 - 4 * 0.006 * (2.97 + v), 0.0))) / (2 * 0.006)
    m_r = m_r + truncated_normal(u[:, 2], 0.0, 0.15 / 2.4, -0.25, 0.25)
    kpc = 10 ** (2.46 - 2.79 * v + 0.84 * v**2 + truncated_normal(u[:, 3], 0.0, 0.11, -0.33, 0.33))
    q = 1 - rayleigh(u[:, 4], 0.378 - 0.000572 * sigma, 0.7)
    magnitude = (m_r + distance_modulus(z) - 0.85 * z)[:, None] + colours.offsets(np.zeros_like(z), z, bands)
    return EarlyTypes(sigma, z, arcsec_of(kpc, z), q, np.pi * u[:, 5], njy(magnitude))


# -- the field ------------------------------------------------------------------------------------------------------
FIELD_MAX: Final = 12
FIELD_DRAWS: Final = 1 + FIELD_MAX * 9
_COUNTS_23 = 12.0  # galaxies with i < 23 per arcmin**2; 10**(0.33 m) from 18 to the limit
_STARS = 0.12  # share of stars among what lies in the field at high latitude


def field(u: Floats, bands: tuple[Band, ...], reference: Band, side: float, faint: float) -> Components:
    """Unrelated galaxies and stars around an object, from (n, 109) uniform numbers.

    Parameters
    ----------
    side : of the stamp [arcsec].
    faint : magnitude in `reference` down to which they are drawn.
    """
    slope, bright = 0.33, 17.5
    density = _COUNTS_23 * 10 ** (slope * (faint - 23.0))
    expected = density * (side / 60.0) ** 2
    count = _poisson(u[:, 0], expected)
    d = u[:, 1:].reshape(len(u), FIELD_MAX, 9)
    owner, slot = np.nonzero(np.arange(FIELD_MAX)[None] < count[:, None])
    d = d[owner, slot]
    magnitude = magnitudes(d[:, 0], bright, faint, slope)
    star = d[:, 1] < _STARS
    kind = np.where(d[:, 2] < 0.2, 0.0, 1 + 2.0 * (d[:, 2] - 0.2) / 0.8)
    z = np.where(
        star, 0.02, 0.05 + 1.6 * tabulated(d[:, 3], np.linspace(0, 1, 21), np.sin(np.pi * np.linspace(0, 1, 21)))
    )
    g1, g2 = cosmos_shapes(d[:, 4], d[:, 5])
    still = np.where(star, 0.0, 1.0)
    n = np.where(kind < 0.5, 4.0, 1.0)
    re = np.where(star, 1e-3, size(d[:, 6], magnitude, slope=0.1))
    x, y = side * (d[:, 7] - 0.5), side * (d[:, 8] - 0.5)
    light = fluxes(np.where(star, 1.5 * d[:, 2], kind), z, magnitude, bands, reference)
    return Components(owner.astype(np.int64), re, np.where(star, 1.0, n), g1 * still, g2 * still, x, y, light)


def _poisson(u: Floats, mean: float) -> NDArray[np.int64]:
    """Poisson numbers by the inverse cumulative function, at most `FIELD_MAX`."""
    k = np.arange(FIELD_MAX)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, FIELD_MAX)))])
    cumulative = np.cumsum(np.exp(-mean + k * np.log(mean) - log_factorial))
    return np.searchsorted(cumulative, u, side="right").astype(np.int64)
