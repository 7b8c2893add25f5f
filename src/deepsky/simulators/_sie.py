"""Singular isothermal ellipsoid with external shear: deflection, ray shooting, lensed pictures of clumpy sources."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

EXPONENTIAL_B: float = 1.6783469900166605  # re / scale length of a Sersic profile with n = 1


@dataclass(frozen=True, eq=False)
class Lens:
    """A lens in the pixel frame; every field a tensor of one shape, () for one lens.

    Attributes
    ----------
    theta_e : Einstein radius [arcsec]: pi theta_e**2 is the area within the critical curve.
    q : axis ratio of the mass, below 1.
    angle : of the mass's long axis, from +x towards +y [rad].
    x, y : centre [arcsec].
    shear1, shear2 : external shear.
    """

    theta_e: Tensor
    q: Tensor
    angle: Tensor
    x: Tensor
    y: Tensor
    shear1: Tensor
    shear2: Tensor


@dataclass(frozen=True, eq=False)
class Clumps:
    """Sersic n = 1 clumps in the source plane; every field has the shape (clump,).

    Attributes
    ----------
    x, y : centre [arcsec].
    re : half-light radius [arcsec].
    g1, g2 : ellipticity (a - b)/(a + b).
    flux : [any unit].
    """

    x: Tensor
    y: Tensor
    re: Tensor
    g1: Tensor
    g2: Tensor
    flux: Tensor


def deflection(lens: Lens, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Reduced deflection angle at (x, y) [arcsec] (Kormann+1994; Keeton 2001, equations 34 and 35, without core)."""
    q = lens.q.clamp(max=1 - 1e-6)
    f = torch.sqrt(1 - q * q)
    c, s = torch.cos(lens.angle), torch.sin(lens.angle)
    dx, dy = x - lens.x, y - lens.y
    u, v = dx * c + dy * s, dy * c - dx * s
    psi = torch.sqrt(q * q * u * u + v * v).clamp_min(1e-9)
    scale = lens.theta_e * torch.sqrt(q) / f
    au, av = scale * torch.atan(f * u / psi), scale * torch.atanh(f * v / psi)
    ax = au * c - av * s + lens.shear1 * dx + lens.shear2 * dy
    ay = au * s + av * c + lens.shear2 * dx - lens.shear1 * dy
    return ax, ay


def surface_brightness(clumps: Clumps, x: Tensor, y: Tensor) -> Tensor:
    """Brightness of the sum of the clumps at (x, y) in the source plane [flux arcsec**-2]."""
    shape = (-1, *[1] * x.ndim)
    norm = 1 / torch.sqrt(1 - clumps.g1**2 - clumps.g2**2)
    inverse = EXPONENTIAL_B / clumps.re  # 1 / scale length
    # the inverse of the shear, in units of the scale length
    a = ((1 - clumps.g1) * norm * inverse).view(shape)
    d = ((1 + clumps.g1) * norm * inverse).view(shape)
    b = (-clumps.g2 * norm * inverse).view(shape)
    dx, dy = x - clumps.x.view(shape), y - clumps.y.view(shape)
    u = a * dx
    u.addcmul_(b.expand_as(dy), dy)
    v = dx.mul_(b).addcmul_(d.expand_as(dy), dy)
    r = u.square_().add_(v.square_()).sqrt_()
    central = (clumps.flux * inverse**2 / (2 * math.pi)).view(shape)
    light = r.neg_().exp_().mul_(central)
    return light[0] if len(light) == 1 else light.sum(0)


def lensed(lens: Lens, groups: tuple[Clumps, ...], axis: Tensor) -> Tensor:
    """Pictures of lensed sources, one for each group of clumps.

    Parameters
    ----------
    axis : (m,) centres of the cells along x and along y [arcsec], evenly spaced.

    Returns
    -------
    (group, m, m) flux of each cell; lensing conserves surface brightness, so the sum over a group's picture divided
    by the group's flux is its magnification.
    """
    x, y = axis[None, :].expand(len(axis), -1), axis[:, None].expand(-1, len(axis))
    ax, ay = deflection(lens, x, y)
    bx, by = x - ax, y - ay
    area = (axis[1] - axis[0]) ** 2
    return torch.stack([surface_brightness(clumps, bx, by) for clumps in groups]) * area


def bin_cells(cells: Tensor, factor: int) -> Tensor:
    """(..., m/factor, m/factor): cells (..., m, m) of at most three axes added in blocks."""
    if factor == 1:
        return cells
    return torch.nn.functional.avg_pool2d(cells[None], factor)[0] * float(factor**2)


def extent(theta_e: float, beta: float, reach: float) -> float:
    """Radius that holds the images of a source: offset `beta`, its own radius `reach` [arcsec].

    An isothermal sphere's images end at ``theta_e + beta + reach``; an ellipse and shear move that by up to a fifth.
    """
    return 1.2 * theta_e + beta + reach
