"""Gabor filters (Daugman 1985) by Fourier transform: the strength of waves of a length and direction, in rings."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from deepsky.baselines._images import Pixels, block_mean, radius, zone_names, zones

LEVELS = (1, 2, 4)  # block means: the image is halved, so that the same filters see waves twice as long
FREQUENCY = 0.25  # [1 / pixel]
ORIENTATIONS = 6
RINGS = 4
KINDS = ("mean", "scatter", "aligned", "around")
LARGEST = 64  # a larger image is averaged over blocks first: the transforms are what costs


@lru_cache(maxsize=32)
def bank(y: int, x: int, frequency: float, orientations: int, balanced: bool = True) -> Tensor:
    """(orientations, y, x) transfer functions of complex Gabor filters one octave wide, for ``torch.fft.fft2``.

    Parameters
    ----------
    frequency : of the wave [1 / pixel]; filter k runs along the angle pi k / orientations from +x towards +y.
    balanced : subtract what a constant image would give.
    """
    sigma = math.sqrt(math.log(2) / 2) / math.pi * 3 / frequency  # (2^b + 1) / (2^b - 1) = 3 for b = 1 octave
    ky, kx = torch.fft.fftfreq(y)[:, None], torch.fft.fftfreq(x)[None, :]
    found = []
    for k in range(orientations):
        cos, sin = math.cos(math.pi * k / orientations), math.sin(math.pi * k / orientations)
        # the nearest images of the wave's frequency, since the spectrum of a sampled filter is periodic
        transfer = torch.zeros(y, x)
        for sy in (-1, 0, 1):
            for sx in (-1, 0, 1):
                away = (ky - frequency * sin + sy) ** 2 + (kx - frequency * cos + sx) ** 2
                transfer = transfer + torch.exp(-2 * math.pi**2 * sigma**2 * away)
        if balanced:
            transfer = transfer - transfer[0, 0] * torch.exp(-2 * math.pi**2 * sigma**2 * (ky**2 + kx**2))
        found.append(transfer)
    return torch.stack(found)


def response(images: Tensor, frequency: float, orientations: int, balanced: bool = True) -> Tensor:
    """(..., y, x) -> (..., orientations, y, x) modulus of the filtered image, which wraps around at its border."""
    transfer = bank(images.shape[-2], images.shape[-1], frequency, orientations, balanced).to(images.device)
    found = torch.fft.ifft2(torch.fft.fft2(images)[..., None, :, :] * transfer)
    return torch.addcmul(found.real * found.real, found.imag, found.imag).sqrt()


def values(pixels: Pixels) -> Tensor:
    """(n, level * kind * band * ring), unchanged when the image is turned by 90 degrees.

    Of the responses in a ring: ``mean`` and ``scatter`` (standard deviation), both averaged over directions;
    ``aligned``, how far one direction prevails (modulus of the second harmonic of the means over directions);
    ``around``, how far waves run along the radius (positive, as across an arc) or along the circle (negative).
    """
    images = pixels.stretched
    y, x = images.shape[-2:]
    shrink = -(-max(y, x) // LARGEST)
    parts = [_level(block_mean(images, y // (shrink * k), x // (shrink * k))) for k in LEVELS]
    found = torch.stack(parts, 1)
    return found.masked_fill(pixels.missing[:, None, None, :, None], torch.nan).flatten(1)


def _level(images: Tensor) -> Tensor:
    """(n, band, y, x) -> (n, kind, band, ring)."""
    y, x = images.shape[-2:]
    weights = zones(y, x, RINGS).to(images.device)
    position = radius(y, x)[1].reshape(-1).to(images.device)
    angles = torch.arange(ORIENTATIONS, device=images.device) * (math.pi / ORIENTATIONS)
    strength = response(images, FREQUENCY, ORIENTATIONS).flatten(-2)  # (n, band, direction, pixel)
    mean = F.linear(strength, weights)
    scatter = (F.linear(strength * strength, weights) - mean.square()).clamp(min=0).sqrt()
    waves = torch.polar(torch.ones_like(angles), 2 * angles)[:, None]
    aligned = (mean * waves).mean(2).abs()
    turned = weights * torch.cos(2 * (angles[:, None, None] - position)).nan_to_num(0.0)  # (direction, ring, pixel)
    around = torch.stack([F.linear(strength[:, :, k], turned[k]) for k in range(ORIENTATIONS)]).mean(0)
    return torch.stack([mean.mean(2), scatter.mean(2), aligned, around], 1)


def names(bands: tuple[str, ...], size: tuple[int, int]) -> tuple[str, ...]:
    """Of the columns of `values`."""
    kinds = [f"gabor.{round(level / FREQUENCY)}.{kind}" for level in LEVELS for kind in KINDS]
    return tuple(name for kind in kinds for name in zone_names(kind, bands, RINGS))
