"""Cutouts of one band on the pixel grid of another, flux conserved, by bilinear interpolation."""

from __future__ import annotations

import math

import numpy as np

from deepsky.surveys._cut import Cut, cut, joined
from deepsky.surveys._frames import Frame, to_pixels, wcs_of
from deepsky.surveys._object import Rules
from deepsky.surveys._sky import to_sky

AT_ONCE = 64  # objects whose grids are turned into each other together


def onto(
    frame: Frame, like: Frame, y0: np.ndarray, x0: np.ndarray, size: tuple[int, int], rules: Rules
) -> Cut:  # fmt: skip
    """Windows of `frame` on the grid of the windows of `like`.

    A pixel of the new grid is the mean of k x k bilinear samples, k the ratio of the pixel scales rounded up, times the
    ratio of the pixels' areas; its variance is that of the same weighted mean. It is measured where every pixel that it
    draws on is. Neighbouring pixels then share noise.

    Parameters
    ----------
    y0, x0 : (n,) first row and column of each window on `like`.
    """
    ratio = like.scale / frame.scale if frame.scale > 0 and like.scale > 0 else 1.0
    fine = max(1, math.ceil(ratio - 0.01))
    parts = [
        _some(frame, like, y0[i : i + AT_ONCE], x0[i : i + AT_ONCE], size, rules, fine, ratio**2)
        for i in range(0, len(y0), AT_ONCE)
    ]
    return joined(parts)


def _some(
    frame: Frame,
    like: Frame,
    y0: np.ndarray,
    x0: np.ndarray,
    size: tuple[int, int],
    rules: Rules,
    fine: int,
    area: float,
) -> Cut:
    n, (sy, sx) = len(y0), size
    step = (np.arange(fine) + 0.5) / fine - 0.5
    rows = (np.arange(sy)[:, None] + step).ravel()
    cols = (np.arange(sx)[:, None] + step).ravel()
    y = np.broadcast_to((y0[:, None] + rows)[:, :, None], (n, len(rows), len(cols)))
    x = np.broadcast_to((x0[:, None] + cols)[:, None, :], y.shape)
    u, v = to_pixels(wcs_of(frame), *to_sky(wcs_of(like), x.ravel(), y.ravel()))
    u, v = u.reshape(y.shape), v.reshape(y.shape)
    lost = ~(np.isfinite(u) & np.isfinite(v)).all(axis=(1, 2))
    u, v = np.where(lost[:, None, None], -9.0, u), np.where(lost[:, None, None], -9.0, v)
    first_v, first_u = np.floor(v.min(axis=(1, 2))).astype(int), np.floor(u.min(axis=(1, 2))).astype(int)
    tall = int((np.floor(v.max(axis=(1, 2))) - first_v).max()) + 2
    wide = int((np.floor(u.max(axis=(1, 2))) - first_u).max()) + 2
    source = cut(frame, first_v, first_u, (tall, wide), rules)
    variance = np.where(source.ivar > 0, 1 / np.where(source.ivar > 0, source.ivar, 1), 0)
    return _interpolated(source, variance, v - first_v[:, None, None], u - first_u[:, None, None], fine, area)


def _interpolated(source: Cut, variance: np.ndarray, v: np.ndarray, u: np.ndarray, fine: int, area: float) -> Cut:
    """Bilinear samples at (v, u) of the windows, averaged over fine x fine of them."""
    n = len(v)
    i = np.arange(n)[:, None, None]
    j, k = np.floor(v).astype(int), np.floor(u).astype(int)
    b, a = v - j, u - k
    small = (v.shape[1] // fine, v.shape[2] // fine)
    flux, dark, full = np.zeros((n, *small)), np.zeros((n, *small), bool), np.zeros((n, *small), bool)
    weights = np.zeros((n, *small)) if fine > 1 else None
    spread = np.zeros((n, *small))
    for dj, dk, w in ((0, 0, (1 - b) * (1 - a)), (0, 1, (1 - b) * a), (1, 0, b * (1 - a)), (1, 1, b * a)):
        jj, kk = np.minimum(j + dj, variance.shape[1] - 1), np.minimum(k + dk, variance.shape[2] - 1)
        flux += _mean(source.flux[i, jj, kk] * w, fine)
        used = w > 1e-6
        dark |= _any(used & (source.ivar[i, jj, kk] == 0), fine)
        if source.saturated is not None:
            full |= _any(used & source.saturated[i, jj, kk], fine)
        spread += _mean(variance[i, jj, kk] * w**2, fine)
        if weights is not None:
            weights += _mean(variance[i, jj, kk] * w, fine)
    # samples inside one source pixel share its noise: the variance is that of a mean over `area` pixels
    final = spread if weights is None else weights / max(1.0, area)
    with np.errstate(divide="ignore"):
        ivar = np.where(dark | (final <= 0), 0.0, 1 / np.where(final > 0, final, 1) / area**2)
    return Cut(np.where(ivar > 0, flux * area, 0), ivar, full)


def _blocks(values: np.ndarray, fine: int) -> np.ndarray:
    n, y, x = values.shape
    return values.reshape(n, y // fine, fine, x // fine, fine)


def _mean(values: np.ndarray, fine: int) -> np.ndarray:
    return values if fine == 1 else np.asarray(_blocks(values, fine).mean(axis=(2, 4)))


def _any(values: np.ndarray, fine: int) -> np.ndarray:
    return values if fine == 1 else np.asarray(_blocks(values, fine).any(axis=(2, 4)))
