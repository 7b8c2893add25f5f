"""What has no Sersic profile: spiral arms, rings and tidal tails, drawn on fine cells in the galaxy's plane.

Each function takes one object's numbers and the cells' centres, and returns a picture of unit flux.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

HARMONICS: Final = 3
KNOTS: Final = 8


@dataclass(frozen=True)
class Plane:
    """How a disk lies in the sky: centre [arcsec], axis ratio and angle [rad] of the long axis."""

    x: float
    y: float
    q: float
    angle: float


def _polar(plane: Plane, axis: Tensor) -> tuple[Tensor, Tensor]:
    """(m, m) radius in the disk's plane [arcsec] and azimuth."""
    c, s = math.cos(plane.angle), math.sin(plane.angle)
    dx, dy = axis[None, :] - plane.x, axis[:, None] - plane.y
    u, v = dx * c + dy * s, (dy * c - dx * s) / plane.q
    return torch.sqrt(u * u + v * v).clamp_min_(1e-3), torch.atan2(v, u)


def _place(plane: Plane, radius: float, azimuth: float) -> tuple[float, float]:
    """Position in the sky of a point in the disk's plane."""
    u, v = radius * math.cos(azimuth), radius * math.sin(azimuth) * plane.q
    c, s = math.cos(plane.angle), math.sin(plane.angle)
    return plane.x + u * c - v * s, plane.y + u * s + v * c


def _on_arm(knot: tuple[float, float, float], arms: int, pitch: float, phase: float) -> float:
    """Azimuth of a knot."""
    return math.log(knot[0]) / math.tan(pitch) + phase + 2 * math.pi * math.floor(knot[1] * arms) / arms


def _unit(picture: Tensor) -> Tensor:
    return picture / picture.sum().clamp_min(1e-12)


def spiral(plane: Plane, axis: Tensor, *, scale: float, arms: int, pitch: float, phase: float, tightness: float,
           knots: list[tuple[float, float, float]]) -> Tensor:  # fmt: skip
    """Logarithmic arms on an exponential disk, with star-forming knots along them.

    Parameters
    ----------
    scale : scale length of the disk [arcsec]; the arms begin at half of it.
    arms, pitch, phase : how many, pitch angle [rad], azimuth of the first at one scale length [rad].
    tightness : concentration of the arms in azimuth (von Mises kappa); 0 is no arms.
    knots : (radius in scale lengths, which arm as 0 to 1, brightness).
    """
    r, azimuth = _polar(plane, axis)
    along = (r / scale).log_() / math.tan(pitch)
    wave = torch.exp(tightness * (torch.cos(arms * (azimuth - along - phase)) - 1))
    inner = 1 - torch.exp(-((r / (0.5 * scale)) ** 2))
    picture = wave * inner * torch.exp(-r / scale)
    if knots:
        # round in the sky, so a knot is the product of a profile along x and one along y
        across, up = zip(*(_place(plane, scale * k[0], _on_arm(k, arms, pitch, phase)) for k in knots), strict=True)
        width = -0.5 / (0.12 * scale) ** 2
        along_x = torch.exp((axis[:, None] - torch.tensor(across)) ** 2 * width)
        along_y = torch.exp((axis[:, None] - torch.tensor(up)) ** 2 * width)
        bright = torch.tensor([k[2] * math.exp(-k[0]) for k in knots])
        picture = picture + (along_y * bright) @ along_x.T
    return _unit(picture)


def ring(plane: Plane, axis: Tensor, *, radius: float, width: float,
         harmonics: list[tuple[float, float]]) -> Tensor:  # fmt: skip
    """A ring of Gaussian width whose brightness varies as ``exp(sum a_m cos(m azimuth - p_m))``, m = 1, 2, ...

    `radius` and `width` [arcsec] are in the disk's plane; harmonics are (a_m, p_m).
    """
    r, azimuth = _polar(plane, axis)
    wave = torch.zeros_like(r)
    for m, (strength, angle) in enumerate(harmonics, start=1):
        wave = wave + strength * torch.cos(m * azimuth - angle)
    return _unit(torch.exp(wave - 0.5 * ((r - radius) / width) ** 2))


def tail(plane: Plane, axis: Tensor, *, radius: float, width: float, start: float, length: float,
         unwinding: float) -> Tensor:  # fmt: skip
    """A tidal tail: an arc that opens outward and fades along its length.

    Parameters
    ----------
    radius, width : where it starts and its Gaussian width there [arcsec].
    start, length : azimuth at which it starts and how far it goes [rad], counter-clockwise.
    unwinding : by how much the radius grows over the length, relative to `radius`.
    """
    r, azimuth = _polar(plane, axis)
    along = torch.remainder(azimuth - start, 2 * math.pi) / length
    ridge = radius * (1 + unwinding * along)
    fade = torch.exp(-1.5 * along) * torch.sigmoid((1 - along) * 12) * (1 - torch.exp(-12 * along))
    spread = width * (1 + 0.8 * along)
    return _unit(fade * torch.exp(-0.5 * ((r - ridge) / spread) ** 2))
