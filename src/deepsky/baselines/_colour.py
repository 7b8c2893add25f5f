"""Colours: asinh magnitudes in apertures (Lupton+1999), their differences between bands, signal to noise, depth."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from deepsky.baselines._images import Pixels, apertures

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def values(pixels: Pixels) -> Tensor:
    """(n, features) magnitudes [mag, zero point left out], colours [mag], log10 of the total S/N and of sigma.

    The softening of a magnitude is the sky's noise in its aperture, so that it stays finite for negative flux.
    """
    n, b, y, x = pixels.flux.shape
    inside = apertures(y, x, SHARES).to(pixels.flux.device)
    flux = F.linear(pixels.flux.reshape(n, b, -1), inside)
    noise = pixels.sigma[..., None] * inside.square().sum(1).sqrt()
    magnitude = -2.5 / math.log(10) * (torch.asinh(flux / (2 * noise)) + noise.log())
    magnitude = magnitude.masked_fill(pixels.missing[..., None], torch.nan)
    colour = magnitude[:, :-1] - magnitude[:, 1:]
    snr = torch.where(pixels.missing[..., None], 0.0, flux / noise)
    total = snr.square().sum(1).sqrt().clamp(min=1e-3).log10()
    depth = pixels.sigma.log10().masked_fill(pixels.missing, torch.nan)
    return torch.cat([magnitude.flatten(1), colour.flatten(1), total, depth], 1)


def names(bands: tuple[str, ...], size: tuple[int, int]) -> tuple[str, ...]:
    """Of the columns of `values`."""
    k = range(len(SHARES))
    mags = [f"colour.{b}.mag{i}" for b in bands for i in k]
    colours = [f"colour.{b}-{c}.{i}" for b, c in pairwise(bands) for i in k]
    return (*mags, *colours, *(f"colour.snr{i}" for i in k), *(f"colour.{b}.sigma" for b in bands))
