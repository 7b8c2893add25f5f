"""Shared parts of the augmentations: images shifted, turned and smoothed in Fourier space.

Exact for what the pixels sample well, as stars and galaxies behind a PSF of two pixels or more; white noise stays white
and keeps its variance, which no interpolation does (2% is lost, at the highest frequency and beside the edge).
"""

from __future__ import annotations

import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional as F

MARGIN = 8  # pixels: opposite edges do not match, and what does not match rings


def padded(x: Tensor, margin: tuple[int, int], outside: str = "reflect") -> tuple[Tensor, tuple[int, int]]:
    """(..., y, x) continued on all sides by `margin` (y, x) pixels or a few more; where the first pixel came to lie.

    A mirror image (``reflect``) continues the noise too, as zeros (``constant``) would not. It fades into the mean of
    the border, so that nothing jumps where the far sides meet.
    """
    sides, first, fades = [], [], []
    for size, wanted in ((x.shape[-1], margin[1]), (x.shape[-2], margin[0])):
        low = min(wanted, size - 1)
        high = min(next_fast_len(size + 2 * low, real=True) - size - low, size - 1)
        sides += [low, high]
        first.append(low)
        away = [torch.arange(n, device=x.device) / max(n, 1) * math.pi for n in (low, high)]  # from the seam inwards
        fades.append(
            torch.cat([(1 - away[0].cos()) / 2, torch.ones(size, device=x.device), ((1 - away[1].cos()) / 2).flip(0)])
        )
    if outside != "reflect":
        return F.pad(x, sides, mode=outside), (first[1], first[0])
    border = torch.cat([x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]], -1).mean(-1)[..., None, None]
    return (F.pad(x, sides, mode="reflect") - border) * (fades[1][:, None] * fades[0]) + border, (first[1], first[0])


def cropped(x: Tensor, first: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The part of a padded array that the image had."""
    return x[..., first[0] : first[0] + size[0], first[1] : first[1] + size[1]]


def response(size: tuple[int, int], sigma: Tensor) -> Tensor:
    """(..., y, x / 2 + 1) what a Gaussian of `sigma` (...) pixels does to the amplitudes of ``rfft2``."""
    scale = -2 * math.pi**2 * sigma[..., None, None].square()
    ky, kx = _frequencies(size[0], sigma.device), torch.fft.rfftfreq(size[1], device=sigma.device)
    return torch.exp(scale * ky[:, None].square()) * torch.exp(scale * kx.square())


def smoothed(x: Tensor, sigma: Tensor, margin: tuple[int, int], outside: str = "reflect") -> Tensor:
    """(n, c, y, x) convolved with Gaussians of `sigma` (n, c) pixels."""
    wide, first = padded(x.float(), margin, outside)
    size = (wide.shape[-2], wide.shape[-1])
    made: Tensor = torch.fft.irfft2(torch.fft.rfft2(wide) * response(size, sigma), s=size)
    return cropped(made, first, (x.shape[-2], x.shape[-1]))


def shifted(x: Tensor, offset: Tensor) -> Tensor:
    """(n, c, y, x) moved by `offset` (n, 2) pixels in x and y."""
    wide, first = padded(x.float(), (MARGIN, MARGIN))
    size = (wide.shape[-2], wide.shape[-1])
    ky, kx = _frequencies(size[0], x.device), torch.fft.rfftfreq(size[1], device=x.device)
    dx, dy = (offset[:, i, None].to(x.device, torch.float32) for i in (0, 1))
    phase = _wave(dy * ky)[:, None, :, None] * _wave(dx * kx)[:, None, None, :]
    made: Tensor = torch.fft.irfft2(torch.fft.rfft2(wide) * phase, s=size)
    return cropped(made, first, (x.shape[-2], x.shape[-1])).to(x.dtype)


def turned(x: Tensor, theta: Tensor, outside: str = "reflect") -> Tensor:
    """(n, c, y, y) turned about the centre by `theta` (n,) [rad], at most 45 degrees, from +x towards +y.

    A rotation is three shears (Paeth 1986), and each shear a shift of every row or column by its own amount. Only the
    first and last move anything beyond the image, along x, by less than a quarter of its side.
    """
    side = x.shape[-1]
    wide, first = padded(x.float(), (MARGIN, MARGIN + math.ceil(side * math.tan(math.pi / 8) / 2)), outside)
    y, x_ = (torch.arange(wide.shape[i], device=x.device) - (first[i] + (side - 1) / 2) for i in (-2, -1))
    slant, rise = -torch.tan(theta.to(x.device) / 2).float(), torch.sin(theta.to(x.device)).float()
    wide = _sheared(wide, slant[:, None] * y, -1)
    wide = _sheared(wide, rise[:, None] * x_, -2)
    wide = _sheared(wide, slant[:, None] * y, -1)
    return cropped(wide, first, (side, side)).to(x.dtype)


def _sheared(x: Tensor, amount: Tensor, axis: int) -> Tensor:
    """Each row (`axis` -1) or column (-2) moved along itself by its own `amount` (n, rows) pixels."""
    length = x.shape[axis]
    wave = _wave(amount[..., None] * torch.fft.rfftfreq(length, device=x.device))[:, None]
    if axis == -2:
        wave = wave.transpose(-2, -1)
    made: Tensor = torch.fft.irfft(torch.fft.rfft(x, dim=axis) * wave, n=length, dim=axis)
    return made


def _frequencies(size: int, device: torch.device) -> Tensor:
    found: Tensor = torch.fft.fftfreq(size, device=device)
    return found


def _wave(cycles: Tensor) -> Tensor:
    angle = -2 * math.pi * cycles
    return torch.complex(angle.cos(), angle.sin())
