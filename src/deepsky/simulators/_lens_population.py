"""Which lenses and sources there are, drawn before anything is seen, and what makes a system count as a lens."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from deepsky.simulators import _colours as colours
from deepsky.simulators._cosmology import einstein_radius
from deepsky.simulators._galaxies import EARLY_DRAWS, EarlyTypes, axis_ratio_shear, cosmos_shapes, early_types
from deepsky.simulators._random import rayleigh, tabulated, truncated_normal
from deepsky.simulators._sie import Clumps, Lens
from deepsky.simulators._surveys import Band

Floats = NDArray[np.float64]

THETA_E: Final = (0.3, 3.0)  # arcsec
SOURCE_MAGNITUDES: Final = (22.0, 27.0)
SHEAR_SCALE: Final = 0.03
MAX_CLUMPS: Final = 5
MAX_Z_SOURCE: Final = 3.0
_KNOTS: Final = MAX_CLUMPS - 1
SYSTEM_DRAWS: Final = EARLY_DRAWS + 16 + 6 * _KNOTS
_REACH: Final = 4.0  # half-light radii of an exponential that are drawn: 99.1% of its flux


@dataclass(frozen=True)
class Selection:
    """What counts as a lens, and how finely it is drawn.

    Attributes
    ----------
    theta_e : least and largest Einstein radius [arcsec].
    magnification : least.
    arc_snr : least matched-filter signal-to-noise ratio of the arcs, all bands together.
    oversample : rays a pixel's side at least.
    """

    theta_e: tuple[float, float] = THETA_E
    magnification: float = 2.0
    arc_snr: float = 5.0
    oversample: int = 4


@dataclass(frozen=True, eq=False)
class Systems:
    """Lens and source, one row a system; angles [rad], lengths [arcsec], pixel frame.

    Attributes
    ----------
    galaxy : the lens galaxy's light.
    theta_e, q, angle, x, y : of the mass (SIE), see `_sie.Lens`.
    shear1, shear2 : external shear.
    z_source : redshift of the source.
    beta : (n, 2) position of the source relative to the lens.
    magnitude_u : uniform number from which the source's magnitude is drawn once its arcs are known.
    host, knots : (n, band) flux relative to the source's flux in the reference band.
    clumps : (n, 5, 6) x, y relative to the source's centre, re, g1, g2, flux share; a share of 0 is no clump.
        The first is the host, the others are knots; shares add to 1 within the host and within the knots.
    """

    galaxy: EarlyTypes
    theta_e: Floats
    q: Floats
    angle: Floats
    x: Floats
    y: Floats
    shear1: Floats
    shear2: Floats
    z_source: Floats
    beta: Floats
    magnitude_u: Floats
    host: Floats
    knots: Floats
    clumps: Floats

    def lens(self, i: int) -> Lens:
        """The lens of row `i`."""
        values = (self.theta_e, self.q, self.angle, self.x, self.y, self.shear1, self.shear2)
        return Lens(*(torch.tensor(float(v[i])) for v in values))

    def source(self, i: int) -> tuple[Clumps, ...]:
        """The clumps of row `i`: the host, and the knots where there are any."""
        c = self.clumps[i]
        groups = []
        for part in (c[:1], c[1:][c[1:, 5] > 0]):
            if len(part):
                x, y, re, g1, g2, share = torch.from_numpy(part.T.copy()).float()
                at = self.beta[i] + (self.x[i], self.y[i])
                groups.append(Clumps(x + float(at[0]), y + float(at[1]), re, g1, g2, share))
        return tuple(groups)

    def reach(self, i: int) -> float:
        """Radius around the source's centre that holds its light [arcsec]."""
        c = self.clumps[i][self.clumps[i][:, 5] > 0]
        g = np.hypot(c[:, 3], c[:, 4])
        return float((np.hypot(c[:, 0], c[:, 1]) + _REACH * c[:, 2] * np.sqrt((1 + g) / (1 - g))).max())

    def rows(self, at: NDArray[np.bool_] | NDArray[np.int64]) -> Systems:
        """Some of the systems."""
        galaxy = replace(self.galaxy, **{f.name: getattr(self.galaxy, f.name)[at] for f in fields(self.galaxy)})
        rest = {f.name: getattr(self, f.name)[at] for f in fields(self) if f.name != "galaxy"}
        return Systems(galaxy=galaxy, **rest)


def join_systems(parts: list[Systems], order: NDArray[np.int64]) -> Systems:
    """All systems of `parts`, in `order`."""
    galaxy = EarlyTypes(
        *(np.concatenate([getattr(p.galaxy, f.name) for p in parts])[order] for f in fields(EarlyTypes))
    )
    rest = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts])[order]
        for f in fields(Systems)
        if f.name != "galaxy"
    }
    return Systems(galaxy=galaxy, **rest)


def systems(u: Floats, bands: tuple[Band, ...], reference: Band, jitter: float) -> Systems:
    """Systems from (n, 46) uniform numbers, of any Einstein radius.

    Mass follows light: its axis ratio scatters by 0.05 and its angle by 10 degrees about those of the lens galaxy.
    The source's redshift has the density z**2 exp(-z**1.5) between 0.2 behind the lens and 3; it lies uniformly
    within the Einstein radius; it is an exponential host with none to four knots, each with a half-light radius of
    0.1 to 0.4 arcsec, knots bluer and smaller.

    Parameters
    ----------
    jitter : the lens lies uniformly within this distance of the stamp's centre, in x and in y [arcsec].
    """
    galaxy = early_types(u[:, :EARLY_DRAWS], bands)
    v, k = u[:, EARLY_DRAWS : EARLY_DRAWS + 16], u[:, EARLY_DRAWS + 16 :].reshape(len(u), _KNOTS, 6)
    z_source = _source_redshift(v[:, 0], galaxy.z)
    theta_e = einstein_radius(galaxy.sigma, galaxy.z, z_source)
    q = np.clip(galaxy.q + truncated_normal(v[:, 1], 0.0, 0.05, -0.15, 0.15), 0.3, 0.99)
    angle = galaxy.angle + truncated_normal(v[:, 2], 0.0, np.radians(10.0), -0.6, 0.6)
    shear = rayleigh(v[:, 3], SHEAR_SCALE, 0.15)
    x, y = jitter * (2 * v[:, 5] - 1), jitter * (2 * v[:, 6] - 1)
    away, where = theta_e * np.sqrt(v[:, 7]), 2 * np.pi * v[:, 8]
    beta = np.stack([away * np.cos(where), away * np.sin(where)], 1)

    kind = np.where(v[:, 10] < 0.1, colours.SBC, colours.SBC + 2.0 * (v[:, 10] - 0.1) / 0.9)
    count = np.floor(MAX_CLUMPS * v[:, 11]).astype(np.int64)  # knots
    in_knots = np.where(count > 0, 0.1 + 0.5 * v[:, 12], 0.0)
    host = (1 - in_knots)[:, None] * colours.relative_flux(kind, z_source, bands, reference)
    blue = in_knots[:, None] * colours.relative_flux(np.minimum(kind + 0.7, colours.IM), z_source, bands, reference)
    clumps = _clumps(v[:, 13:16], k, count)
    two = 2 * np.pi * v[:, 4]
    return Systems(galaxy, theta_e, q, angle, x, y, shear * np.cos(two), shear * np.sin(two), z_source, beta, v[:, 9],
                   host, blue, clumps)  # fmt: skip


def _source_redshift(u: Floats, z_lens: Floats) -> Floats:
    """Density z**2 exp(-z**1.5) between z_lens + 0.2 and 3."""
    grid = np.linspace(0.0, MAX_Z_SOURCE, 301)
    density = grid**2 * np.exp(-(grid**1.5))
    area = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
    below = np.interp(z_lens + 0.2, grid, area / area[-1])
    return tabulated(below + u * (1 - below), grid, density)


def _clumps(host: Floats, k: Floats, count: NDArray[np.int64]) -> Floats:
    """(n, 5, 6) clumps; sizes are log-uniform, shapes those of COSMOS with an axis ratio above 1/3."""
    n = len(host)
    out = np.zeros((n, MAX_CLUMPS, 6))
    re = 0.1 * 4.0 ** host[:, 0]
    out[:, 0, 2] = re
    out[:, 0, 3:5] = np.stack(_moderate(host[:, 1], host[:, 2]), 1)
    out[:, 0, 5] = 1.0
    there = np.arange(_KNOTS)[None] < count[:, None]
    distance, where = 1.5 * re[:, None] * np.sqrt(k[:, :, 0]), 2 * np.pi * k[:, :, 1]
    out[:, 1:, 0], out[:, 1:, 1] = distance * np.cos(where), distance * np.sin(where)
    out[:, 1:, 2] = 0.1 * 2.0 ** k[:, :, 2]
    g1, g2 = _moderate(k[:, :, 3], k[:, :, 4])
    out[:, 1:, 3], out[:, 1:, 4] = g1, g2
    weight = np.where(there, 0.3 + k[:, :, 5], 0.0)
    out[:, 1:, 5] = weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)
    return out


def _moderate(u: Floats, angle: Floats) -> tuple[Floats, Floats]:
    g1, g2 = cosmos_shapes(u, angle)
    shrink = np.minimum(1.0, 0.5 / np.maximum(np.hypot(g1, g2), 1e-12))
    return g1 * shrink, g2 * shrink


def mass_ellipticity(made: Systems) -> Floats:
    """(n, 2) ellipticity (a - b)/(a + b) of the mass."""
    return np.stack(axis_ratio_shear(made.q, made.angle), 1)
