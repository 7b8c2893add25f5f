"""From light profiles to pixels: sums of transforms, times the PSF and the pixel, back to a stamp by one FFT.

Positions are in arcsec from the stamp's centre, x along columns and y along rows; flux in, flux per pixel out. What has
no simple transform (arcs, arms, tails) is drawn on cells finer than a pixel and enters through `cells_spectrum`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from deepsky.simulators._profiles import Family, psf_transform, sersic, shear_coefficients
from deepsky.simulators._surveys import Band

_PSF_CUT: Final = 2e-3  # what the PSF may leave at the highest frequency of the grid


@dataclass(frozen=True, eq=False)
class Grid:
    """Frequencies of a stamp.

    Attributes
    ----------
    size : pixels a side of the stamp.
    pixel_scale : [arcsec].
    fine : samples a pixel that the transform back makes; 1 where the PSF leaves nothing above the Nyquist frequency.
    period : pixels after which the image repeats; the stamp is cut from it.
    kx, ky : (1, columns), (rows, 1) frequencies [cycle/arcsec], as `torch.fft.rfft2` orders them.
    """

    size: int
    pixel_scale: float
    fine: int
    period: int
    kx: Tensor
    ky: Tensor

    @cached_property
    def quadratic(self) -> Tensor:
        """(3, rows * columns): kx**2 + ky**2, kx**2 - ky**2 and kx ky, of which a sheared k**2 is a sum."""
        x2, y2 = self.kx**2, self.ky**2
        return torch.stack([x2 + y2, x2 - y2, self.kx * self.ky]).flatten(1)

    @property
    def k2(self) -> Tensor:
        """(rows, columns) squared frequency."""
        return self.kx**2 + self.ky**2

    @property
    def pixel(self) -> Tensor:
        """(rows, columns) transform of the pixel."""
        return torch.sinc(self.kx * self.pixel_scale) * torch.sinc(self.ky * self.pixel_scale)


def samples_per_pixel(pixel_scale: float, fwhm: float, family: Family = "moffat") -> int:
    """How many samples a pixel keep what the PSF passes."""
    for fine in (1, 2, 3, 4, 6):
        k2 = torch.tensor((0.5 * fine / pixel_scale) ** 2, dtype=torch.float64)
        if float(psf_transform(k2, fwhm, family)) < _PSF_CUT:
            return fine
    return 8


@lru_cache(maxsize=64)
def grid(
    size: int, pixel_scale: float, fine: int = 1, *, padding: float = 1.4, dtype: torch.dtype = torch.float32
) -> Grid:
    """The frequencies of a stamp of `size` pixels whose image repeats after about `padding` times its side."""
    period = next_fast_len(math.ceil(size * padding))
    while period % 2 or next_fast_len(period * fine) != period * fine:
        period += 1
    points, spacing = period * fine, pixel_scale / fine
    kx = torch.fft.rfftfreq(points, spacing, dtype=torch.float64)[None]
    ky = torch.fft.fftfreq(points, spacing, dtype=torch.float64)[:, None]
    return Grid(size, pixel_scale, fine, period, kx.to(dtype), ky.to(dtype))


def phase(kx: Tensor, ky: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(c, rows, columns) transform of a point at (x, y) [arcsec], each of shape (c,)."""
    along_x = torch.polar(torch.ones(()).to(kx), -2 * math.pi * x[:, None] * kx[0])
    along_y = torch.polar(torch.ones(()).to(ky), -2 * math.pi * y[:, None] * ky[:, 0])
    return along_y[:, :, None] * along_x[:, None, :]


def sersic_spectrum(g: Grid, re: Tensor, n: Tensor, g1: Tensor, g2: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(c, rows, columns) transforms of Sersic galaxies of unit flux.

    Parameters
    ----------
    re, n : (c,) half-light radius of the circle of equal area [arcsec] and Sersic index.
    g1, g2 : (c,) ellipticity (a - b)/(a + b) in the pixel frame.
    x, y : (c,) centre [arcsec].
    """
    return sersic_of(g, shear_coefficients(g1, g2), re, n, x, y)


def sersic_of(g: Grid, shear: Tensor, re: Tensor, n: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`sersic_spectrum` from the (c, 3) coefficients that `shear_coefficients` gives."""
    k2 = (shear @ g.quadratic).view(-1, len(g.ky), g.kx.shape[1])
    return sersic(k2, re, n) * phase(g.kx, g.ky, x, y)


def response(g: Grid, psf: Tensor) -> Tensor:
    """What turns a sum of transforms into samples of the stamp, (..., rows, columns) complex.

    `psf` is the transform of the point spread function on the grid, of any leading shape.
    """
    corner = torch.full((1,), -0.5 * (g.size - 1) * g.pixel_scale, dtype=g.kx.dtype)
    shift = phase(g.kx, g.ky, corner, corner)[0].conj()  # sample 0 is the first pixel
    return psf * g.pixel * shift * float(g.fine**2)


@lru_cache(maxsize=64)
def band_response(g: Grid, bands: tuple[Band, ...]) -> Tensor:
    """(band, rows, columns) responses with the PSFs of `bands`."""
    k2 = g.k2
    return response(g, torch.stack([psf_transform(k2, band.psf_fwhm, band.psf) for band in bands]))


def stamp(g: Grid, spectrum: Tensor) -> Tensor:
    """(..., size, size) flux per pixel from (..., rows, columns), the transform times `response`."""
    points = g.period * g.fine
    image = torch.fft.irfft2(spectrum, s=(points, points))
    cut: Tensor = image[..., : g.size * g.fine : g.fine, : g.size * g.fine : g.fine]
    return cut


def cells_spectrum(g: Grid, cells: Tensor, per_pixel: int) -> Tensor:
    """(..., rows, columns) transform of a picture drawn on cells around the stamp's centre.

    Parameters
    ----------
    cells : (..., m, m) flux of each cell, `m` cells a side.
    per_pixel : cells a pixel's side, a multiple of the grid's `fine`; twice it suffices.
    """
    points, cells_a_side = g.period * per_pixel, cells.shape[-1]
    raw = torch.fft.rfft2(cells, s=(points, points))
    rows, columns = len(g.ky), g.kx.shape[1]
    half = rows // 2
    if rows < points:
        raw = torch.cat([raw[..., :half, :columns], raw[..., points - half :, :columns]], dim=-2)
    else:
        raw = raw[..., :columns]
    spectrum: Tensor = raw * _cell_factor(g, cells_a_side, per_pixel)
    return spectrum


@lru_cache(maxsize=64)
def _cell_factor(g: Grid, cells_a_side: int, per_pixel: int) -> Tensor:
    """Where the first cell lies, and the cell's own width undone."""
    width = g.pixel_scale / per_pixel
    first = torch.full((1,), -0.5 * (cells_a_side - 1) * width, dtype=g.kx.dtype)
    flat = torch.sinc(g.kx * width) * torch.sinc(g.ky * width)
    return phase(g.kx, g.ky, first, first)[0] / flat


def cell_axis(pixels: int, per_pixel: int, pixel_scale: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Centres of the cells of `pixels` pixels around the centre [arcsec]."""
    count = pixels * per_pixel
    return ((torch.arange(count, dtype=torch.float64) - 0.5 * (count - 1)) * (pixel_scale / per_pixel)).to(dtype)


@lru_cache(maxsize=64)
def psf_stamps(bands: tuple[Band, ...], size: int) -> Tensor:
    """(band, size, size) point spread functions with the pixel, each normalised to a sum of one."""
    fine = max(samples_per_pixel(b.pixel_scale, b.psf_fwhm, b.psf) for b in bands)
    g = grid(size, bands[0].pixel_scale, fine, padding=3.0, dtype=torch.float64)
    images = stamp(g, band_response(g, bands))
    return (images / images.sum((-2, -1), keepdim=True)).float()
