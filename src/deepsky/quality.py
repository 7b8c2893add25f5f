"""What is measured of every object at its ingest: unmeasured, saturated and edge fractions, a perceptual hash."""

from __future__ import annotations

import warnings

import numpy as np

SIDE = 8  # coefficients of the hash along each axis
HIGH = 5.0  # sigma above zero at which the edges of images are worth a word


def unmeasured(measured: np.ndarray) -> np.ndarray:
    """(n,) fraction of the pixels (n, ...) that were not measured."""
    return 1.0 - np.asarray(measured.reshape(len(measured), -1).mean(axis=1))


def edge(measured: np.ndarray) -> np.ndarray:
    """(n,) fraction of the image that lies outside the rectangle around all measured pixels (n, band, y, x).

    An object near the edge of a frame has a strip without a measurement; scattered bad pixels do not count.
    """
    any_band: np.ndarray = np.asarray(measured.any(axis=1))
    out = np.ones(len(measured))
    for axis in (1, 2):
        seen: np.ndarray = np.asarray(any_band.any(axis=3 - axis))
        first, last = seen.argmax(axis=1), seen.shape[1] - seen[:, ::-1].argmax(axis=1)
        out *= np.where(seen.any(axis=1), (last - first) / seen.shape[1], 0.0)
    return 1.0 - out


def saturated(flux: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(n,) fraction of the measured pixels (n, band, y, x) at the top of an integer type, or on a flat maximum.

    A float image says nothing of its ceiling; four pixels or more that share the maximum of a band exactly are taken
    for clipped ones.
    """
    flat = flux.reshape(*flux.shape[:2], -1)
    seen = measured.reshape(flat.shape)
    if flux.dtype.kind in "iu":
        top = np.full(flat.shape[:2], np.iinfo(flux.dtype).max, dtype=flux.dtype)[..., None]
        count = ((flat == top) & seen).sum(axis=-1)
    else:
        low = np.where(seen, flat, -np.inf)
        top = low.max(axis=-1, keepdims=True)
        count = ((low == top) & seen).sum(axis=-1)
        flat_top = (count >= 4) & (top[..., 0] > np.where(seen, flat, np.inf).min(axis=-1))
        count = np.where(flat_top, count, 0)
    return np.asarray(count.sum(axis=1) / np.maximum(seen.sum(axis=(1, 2)), 1))


def sky_level(flux: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(band,) where the edges of images (n, band, y, x) stand, in sigma of a pixel; NaN where there is no scatter.

    About 0 where the sky was subtracted. Of each image the median of its outermost pixels, in units of the scatter of
    neighbours there; of all images the lower quartile, since an object may fill its image.
    """
    ring = np.ones(flux.shape[2:], bool)
    ring[2:-2, 2:-2] = False
    seen = np.where(measured, flux, np.nan).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN images
        rows = seen[..., :2, :]  # in the flattened ring, not all that stand together are neighbours
        step = np.diff(rows, axis=-1).reshape(*flux.shape[:2], -1)
        sigma = 1.4826 * np.nanmedian(np.abs(step), axis=-1) / np.sqrt(2)
        level = np.nanmedian(seen[..., ring], axis=-1) / np.where(sigma > 0, sigma, np.nan)
        return np.asarray(np.nanquantile(level, 0.25, axis=0))


def sky_words(flux: np.ndarray, measured: np.ndarray, bands: tuple[str, ...]) -> list[str]:
    """What to beware of where the edges of images stand high above zero; pictures of 8 bits have no sky to speak of."""
    if flux.dtype == np.uint8:
        return []
    high = [f"{b} {v:.0f}" for b, v in zip(bands, sky_level(flux, measured), strict=True) if v > HIGH]
    if not high:
        return []
    return [f"the edges of the images stand at {', '.join(high)} sigma of the noise: if that is sky, subtract it "
            "first, or the stretch will hide what is faint"]  # fmt: skip


def perceptual_hash(flux: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(n,) uint64: signs of the lowest 8 x 8 cosine coefficients of the asinh-stretched mean image (n, band, y, x).

    Copies that differ in scale, in compression or by a little noise have hashes that differ in few bits. Flips and
    rotations by 90 degrees act on the bits alone (`orientations`).
    """
    seen: np.ndarray = np.asarray(measured.any(axis=1))
    total = np.where(measured, flux, 0).sum(axis=1, dtype=np.float64)
    mean: np.ndarray = np.where(seen, total / np.maximum(measured.sum(axis=1), 1), np.nan)
    flat = mean.reshape(len(mean), -1)
    empty = ~seen.reshape(flat.shape).any(axis=1)
    flat[empty] = 0.0
    median = np.median if seen.all() else np.nanmedian
    middle = median(flat, axis=1, keepdims=True)
    width = 1.4826 * median(np.abs(flat - middle), axis=1, keepdims=True)
    spread = np.nanstd(flat, axis=1, keepdims=True)
    width = np.where(width > 1e-6 * spread, width, np.where(spread > 0, spread, 1.0))
    image = np.arcsinh(np.nan_to_num((flat - middle) / width)).reshape(mean.shape)
    coefficients = np.einsum("uy,nyx,vx->nuv", _cosines(image.shape[1]), image, _cosines(image.shape[2]), optimize=True)
    bits = (coefficients > 0).reshape(len(mean), SIDE * SIDE)
    bits[:, 0] = False  # the mean
    return np.packbits(bits, axis=1, bitorder="little").view("<u8")[:, 0].astype(np.uint64)


def orientations(hashes: np.ndarray) -> np.ndarray:
    """(8, n) uint64 hashes of the same images in all eight orientations, the first as they are.

    A flip turns the sign of the odd coefficients, a transposition swaps the axes.
    """
    bits = np.unpackbits(hashes.astype("<u8")[:, None].view(np.uint8), axis=1, bitorder="little").astype(bool)
    grid = bits.reshape(-1, SIDE, SIDE)
    odd = (np.arange(SIDE) % 2).astype(bool)
    out = []
    for swap in (False, True):
        base = grid.transpose(0, 2, 1) if swap else grid
        for turn_y in (False, True):
            for turn_x in (False, True):
                sign = (turn_y & odd)[:, None] ^ (turn_x & odd)[None, :]
                turned = (base ^ sign).reshape(-1, SIDE * SIDE)
                out.append(np.packbits(turned, axis=1, bitorder="little").view("<u8")[:, 0])
    return np.asarray(out, dtype=np.uint64)


def orient(images: np.ndarray, number: int) -> np.ndarray:
    """Images (..., y, x) in orientation `number` of `orientations`."""
    out = images.swapaxes(-1, -2) if number >= 4 else images
    out = out[..., ::-1, :] if number % 4 >= 2 else out
    return out[..., ::-1] if number % 2 else out


def _cosines(length: int) -> np.ndarray:
    grid = (np.arange(length) + 0.5) / length
    return np.asarray(np.cos(np.pi * np.arange(SIDE)[:, None] * grid) * np.sqrt(2.0 / length))


def shrunk(flux: np.ndarray, measured: np.ndarray, side: int) -> np.ndarray:
    """(n, side, side) images (n, band, y, x) averaged over bands and over large pixels, with mean zero and norm one."""
    total = np.where(measured, flux, 0).sum(axis=1, dtype=np.float64)
    seen = measured.sum(axis=1)
    rows, columns = (_areas(length, side) for length in flux.shape[2:])
    weight = np.einsum("ay,nyx,bx->nab", rows, seen.astype(np.float64), columns, optimize=True)
    image = np.einsum("ay,nyx,bx->nab", rows, total, columns, optimize=True) / np.maximum(weight, 1e-9)
    image = np.where(weight > 0, image - image.mean(axis=(1, 2), keepdims=True), 0.0)
    norm = np.sqrt((image**2).sum(axis=(1, 2), keepdims=True))
    return np.asarray(image / np.where(norm > 0, norm, 1.0))


def _areas(length: int, side: int) -> np.ndarray:
    """(side, length) share of each pixel in each large pixel; the same from both ends."""
    edges = np.linspace(0, length, side + 1)
    low = np.arange(length)
    shared = np.minimum(edges[1:, None], low + 1) - np.maximum(edges[:-1, None], low)
    return np.asarray(np.clip(shared, 0, 1))
