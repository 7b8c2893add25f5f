"""Images from one pixel scale, size, unit and order of bands to another, flux conserved."""

from __future__ import annotations

import numpy as np

from deepsky.surveys._scanned import place

COVERED = 0.5  # share of a new pixel that must have been measured
MEANS = {"surface_brightness", "temperature", "height"}  # quantities that do not add up over pixels


def overlaps(old: int, new: int, ratio: float) -> np.ndarray:
    """(new, old) share of each old pixel that falls into each new one, both grids about one centre.

    Parameters
    ----------
    ratio : new pixel scale over old.
    """
    edges = (np.arange(new + 1) - new / 2) * ratio + old / 2
    low, high = np.arange(old), np.arange(1, old + 1)
    shared = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return np.asarray(np.clip(shared, 0.0, 1.0))


def new_size(size: tuple[int, int], ratio: float) -> tuple[int, int]:
    """(y, x) of the same field in pixels of another scale; the parity is kept, so that the centre stays where it is."""
    out = []
    for old in size:
        new = max(1, int(np.floor(old / ratio + 1e-6)))
        if (new - old) % 2 and new > 1:
            new -= 1
        out.append(new)
    return out[0], out[1]


def resample(
    flux: np.ndarray, ivar: np.ndarray, ratio: float, size: tuple[int, int], *, mean: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Images on a grid of another scale, by the area that pixels share.

    The sum over an object is conserved; with `mean` (brightness, temperature) its level is. Variances add up as if the
    noise of the pixels were independent. A new pixel of which less than half was measured is not measured; else the
    missing part is taken to be like the rest.

    Parameters
    ----------
    flux, ivar : (..., y, x) of one shape.
    ratio : new pixel scale over old.
    size : (y, x) of the result.
    """
    rows, columns = overlaps(flux.shape[-2], size[0], ratio), overlaps(flux.shape[-1], size[1], ratio)
    seen = ivar > 0

    def spread(x: np.ndarray, power: int = 1) -> np.ndarray:
        return np.asarray(np.einsum("ab,...bc,dc->...ad", rows**power, x, columns**power, optimize=True))

    cover = spread(seen.astype(np.float64))
    full = ratio**2  # old pixels in a new one
    good = cover > COVERED * full
    scale = np.where(good, full / np.where(good, cover, 1.0), 0.0)
    variance = spread(np.where(seen, 1.0 / np.where(seen, ivar, 1.0), 0.0), 2) * scale**2
    total = spread(np.where(seen, flux, 0.0).astype(np.float64)) * scale
    if mean:
        total, variance = total / full, variance / full**2
    return np.where(good, total, 0.0), np.where(good & (variance > 0), 1.0 / np.where(variance > 0, variance, 1.0), 0.0)


def resample_psf(psf: np.ndarray, ratio: float) -> np.ndarray:
    """PSFs (..., y, x) on the new scale, with a sum of one and an odd number of pixels."""
    size = [max(1, int(np.ceil(s / ratio))) // 2 * 2 + 1 for s in psf.shape[-2:]]
    rows, columns = overlaps(psf.shape[-2], size[0], ratio), overlaps(psf.shape[-1], size[1], ratio)
    out = np.einsum("ab,...bc,dc->...ad", rows, psf.astype(np.float64), columns, optimize=True)
    total = out.sum(axis=(-2, -1), keepdims=True)
    return np.asarray(out / np.where(total != 0, total, 1.0))


def crop(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images (..., y, x) cropped or padded with zeros about their centre."""
    return place(images, size)[0]


def crop_shift(old: tuple[int, int], new: tuple[int, int]) -> tuple[float, float]:
    """(y, x) [pixel] by which the centre moves when images are cropped or padded: half a pixel where parity changes."""
    y, x = ((o - 1) // 2 - (n - 1) // 2 + (n - 1) / 2 - (o - 1) / 2 for o, n in zip(old, new, strict=True))
    return y, x
