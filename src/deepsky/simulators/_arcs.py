"""One lensed source seen through the PSF, drawn in a box no larger than it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor

from deepsky.simulators import _render as render
from deepsky.simulators._sie import Clumps, Lens, bin_cells, deflection, extent, surface_brightness
from deepsky.simulators._surveys import Band

_BOXES: Final = (8, 12, 16, 20, 26, 34, 44, 58, 76, 100, 132, 176)  # half-widths, pixels


@dataclass(frozen=True, eq=False)
class Arcs:
    """A lensed source.

    Attributes
    ----------
    images : (group, band, m, m) noiseless, of unit source flux in each group, centred on the stamp's centre.
    magnification : (group,) flux of the images over that of the source.
    """

    images: Tensor
    magnification: Tensor


@lru_cache(maxsize=64)
def box(half: int, odd: int, bands: tuple[Band, ...]) -> tuple[render.Grid, int]:
    """The grid of a box that holds 2 half + odd pixels of light and what the PSF spreads, and its cells a pixel.

    `odd` is 1 or 0 as the stamp's side is odd or even, so that both have their centre at the same place of a pixel.
    """
    scale = bands[0].pixel_scale
    fine = max(render.samples_per_pixel(scale, b.psf_fwhm, b.psf) for b in bands)
    wings = math.ceil(2.5 * max(b.psf_fwhm for b in bands) / scale)
    return render.grid(2 * (half + wings) + odd, scale, fine, padding=1.0), 2 * fine


def half_width(radius: float, pixel_scale: float) -> int:
    """The smallest box that holds `radius` [arcsec]."""
    need = radius / pixel_scale
    return next((h for h in _BOXES if h >= need), _BOXES[-1])


def lensed_cells(
    lens: Lens, groups: tuple[Clumps, ...], centre: tuple[float, float], reach: float, axis: Tensor
) -> Tensor:
    """(group, m, m) pictures like `_sie.lensed`, the brightness evaluated only where rays end near the source."""
    m = len(axis)
    ax, ay = deflection(lens, axis[None, :].expand(m, m), axis[:, None].expand(m, m))
    bx, by = (axis[None, :] - ax).reshape(-1), (axis[:, None] - ay).reshape(-1)
    near = ((bx - centre[0]).square_() + (by - centre[1]).square_() < reach**2).nonzero()[:, 0]
    bx, by = bx[near], by[near]
    area = float(axis[1] - axis[0]) ** 2
    out = torch.zeros(len(groups), m * m)
    for row, clumps in zip(out, groups, strict=True):
        row[near] = surface_brightness(clumps, bx, by) * area
    return out.view(len(groups), m, m)


def draw(lens: Lens, groups: tuple[Clumps, ...], *, beta: float, reach: float, centre: tuple[float, float],
         bands: tuple[Band, ...], oversample: int, odd: int = 1) -> Arcs:  # fmt: skip
    """Shoot rays and convolve.

    Parameters
    ----------
    beta : distance of the source from the lens [arcsec].
    reach : radius of the source [arcsec].
    centre : of the source [arcsec from the stamp's centre].
    oversample : rays a pixel's side at least.
    odd : 1 or 0 as the stamp's side is odd or even.
    """
    away = float(np.hypot(float(lens.x), float(lens.y)))
    half = half_width(extent(float(lens.theta_e), beta, reach) + away, bands[0].pixel_scale)
    g, per_pixel = box(half, odd, bands)
    factor = max(1, math.ceil(oversample / per_pixel))
    axis = render.cell_axis(2 * half + odd, per_pixel * factor, g.pixel_scale)
    cells = lensed_cells(lens, groups, centre, reach, axis)
    spectrum = render.cells_spectrum(g, bin_cells(cells, factor), per_pixel)
    images = render.stamp(g, spectrum[:, None] * render.band_response(g, bands))
    flux = torch.stack([clumps.flux.sum() for clumps in groups])
    return Arcs(images, cells.sum((-2, -1)) / flux)


def magnification(lens: Lens, groups: tuple[Clumps, ...], *, beta: float, reach: float, centre: tuple[float, float],
                  step: float = 0.08) -> Tensor:  # fmt: skip
    """(group,) flux of the images over that of the source, from rays `step` arcsec apart and without a picture."""
    radius = extent(float(lens.theta_e), beta, reach)
    count = math.ceil(radius / step)
    axis = step * (torch.arange(2 * count, dtype=torch.float32) - count + 0.5)
    cells = lensed_cells(lens, groups, centre, reach, axis)
    return cells.flatten(1).sum(1) / torch.stack([clumps.flux.sum() for clumps in groups])


def paste(stamp: Tensor, picture: Tensor) -> None:
    """Add a picture (..., m, m) to the middle of a stamp (..., size, size), in place; both sides odd or both even."""
    size, m = stamp.shape[-1], picture.shape[-1]
    if m <= size:
        low = (size - m) // 2
        stamp[..., low : low + m, low : low + m] += picture
    else:
        low = (m - size) // 2
        stamp += picture[..., low : low + size, low : low + size]
