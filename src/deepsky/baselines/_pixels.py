"""Pixels: block means of the asinh-stretched image, the plainest feature there is."""

from __future__ import annotations

from torch import Tensor

from deepsky.baselines._images import Pixels, block_mean

SIDE = 12


def values(pixels: Pixels) -> Tensor:
    """(n, band * y * x) means over at most 12 x 12 blocks; the noise of a block mean is small beside one sigma."""
    found = block_mean(pixels.stretched, SIDE, SIDE)
    return found.masked_fill(pixels.missing[..., None, None], float("nan")).flatten(1)


def names(bands: tuple[str, ...], size: tuple[int, int]) -> tuple[str, ...]:
    """Of the columns of `values`."""
    y, x = (min(SIDE, s) for s in size)
    return tuple(f"pixels.{b}.{j}.{i}" for b in bands for j in range(y) for i in range(x))
