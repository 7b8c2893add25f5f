"""PIT, CRPS and CDE loss of single objects, from samples, quantiles, a grid, or a Gaussian mixture.

PIT is F(truth), uniform where the distributions are right. CRPS is int (F(y) - [y >= truth])^2 dy, in the truth's unit.
A mixture is three arrays (n, k): weights that sum to 1, means and sigmas.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from deepsky.errors import InputError
from deepsky.metrics._weights import same_length, vector

__all__ = [
    "cde_grid", "cde_mixture", "crps_gaussian", "crps_mixture", "crps_quantiles", "crps_samples", "normal_pdf",
    "pit_grid", "pit_mixture", "pit_quantiles", "pit_samples", "quantile_at",
]  # fmt: skip
_TINY = np.finfo(np.float64).tiny


def normal_pdf(x: ArrayLike) -> np.ndarray:
    """Density of the standard normal distribution."""
    found: np.ndarray = np.exp(-np.square(np.asarray(x, dtype=np.float64)) / 2) / np.sqrt(2 * np.pi)
    return found


def _table(values: ArrayLike, truth: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    x, t = np.asarray(values, dtype=np.float64), vector(truth, "truth")
    if x.ndim != 2 or not x.shape[1]:
        raise InputError(f"{name} need one row for each object", found=f"shape {x.shape}", expected="(n, any)")
    same_length(**{name: x, "truth": t})
    if not np.isfinite(x).all():
        raise InputError(f"{name} are not finite", found=int((~np.isfinite(x)).any(1).sum()), expected="0 objects")
    return x, t


# -- samples ------------------------------------------------------------------------------------------------
def pit_samples(samples: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """(n,) PIT as (rank + 1/2) / (s + 1), ties counted half: for right draws of mean 1/2, in equal steps."""
    x, t = _table(samples, truth, "samples")
    below = (x < t[:, None]).sum(1) + 0.5 * (x == t[:, None]).sum(1)
    found: np.ndarray = (below + 0.5) / (x.shape[1] + 1)
    return found


def crps_samples(samples: ArrayLike, truth: ArrayLike, fair: bool = False) -> np.ndarray:
    """(n,) CRPS of the samples' empirical distribution: E|X - y| - E|X - X'| / 2.

    Parameters
    ----------
    fair : unbiased for the distribution that the samples were drawn from (Ferro 2014); needs two samples.
    """
    x, t = _table(samples, truth, "samples")
    s = x.shape[1]
    if fair and s < 2:
        raise InputError("the fair CRPS needs two samples of each object", found=s)
    ordered = np.sort(x, axis=1)
    rank = 2 * np.arange(1, s + 1) - s - 1  # sum over pairs of |x_i - x_j| is 2 sum rank_i x_(i)
    pairs = (ordered - ordered[:, :1]) @ rank
    found: np.ndarray = np.abs(x - t[:, None]).mean(1) - pairs / (s * (s - 1) if fair else s * s)
    return found


# -- Gaussians and their mixtures ---------------------------------------------------------------------------
def _mixture(
    weight: ArrayLike, mean: ArrayLike, sigma: ArrayLike, truth: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    w, t = _table(weight, truth, "weights")
    m, s = (_table(a, t, name)[0] for a, name in ((mean, "means"), (sigma, "sigmas")))
    if not (w.shape == m.shape == s.shape):
        raise InputError("weights, means and sigmas differ in shape", found=f"{w.shape}, {m.shape}, {s.shape}")
    if w.size and not (w.min() >= 0 and np.abs(w.sum(1) - 1).max() < 1e-3 and s.min() > 0):
        raise InputError("a mixture has weights that sum to 1 and sigmas above 0",
                         found=f"sums {w.sum(1).min():g} to {w.sum(1).max():g}, sigma {s.min():g}")  # fmt: skip
    return w / w.sum(1, keepdims=True), m, s, t


def pit_mixture(weight: ArrayLike, mean: ArrayLike, sigma: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """(n,) PIT under a Gaussian mixture (n, k)."""
    w, m, s, t = _mixture(weight, mean, sigma, truth)
    found: np.ndarray = np.clip((w * ndtr((t[:, None] - m) / s)).sum(1), 0.0, 1.0)
    return found


def crps_gaussian(mean: ArrayLike, sigma: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """(n,) CRPS of a normal distribution: sigma (u (2 Phi(u) - 1) + 2 phi(u) - 1/sqrt(pi)), u = (y - mean)/sigma.

    Source: Gneiting+2005.
    """
    m, s, t = vector(mean, "mean"), vector(sigma, "sigma"), vector(truth, "truth")
    same_length(mean=m, sigma=s, truth=t)
    if len(s) and s.min() <= 0:
        raise InputError("sigma must be above 0", found=float(s.min()))
    found: np.ndarray = _spread(t - m, s) - s / np.sqrt(np.pi)
    return found


def crps_mixture(weight: ArrayLike, mean: ArrayLike, sigma: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """(n,) CRPS of a Gaussian mixture (n, k), in closed form (Grimit+2006)."""
    w, m, s, t = _mixture(weight, mean, sigma, truth)
    near = (w * _spread(t[:, None] - m, s)).sum(1)
    apart = _spread(m[:, :, None] - m[:, None, :], np.sqrt(s[:, :, None] ** 2 + s[:, None, :] ** 2))
    found: np.ndarray = near - 0.5 * np.einsum("ni,nij,nj->n", w, apart, w)
    return found


def _spread(m: np.ndarray, s: np.ndarray) -> np.ndarray:
    """E|X| of a normal variable with mean m and sigma s."""
    u = m / s
    found: np.ndarray = m * (2 * ndtr(u) - 1) + 2 * s * normal_pdf(u)
    return found


def cde_mixture(weight: ArrayLike, mean: ArrayLike, sigma: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """(n,) int p^2 - 2 p(truth) of a Gaussian mixture over the whole line, in closed form."""
    w, m, s, t = _mixture(weight, mean, sigma, truth)
    both = np.sqrt(s[:, :, None] ** 2 + s[:, None, :] ** 2)
    square = np.einsum("ni,nij,nj->n", w, normal_pdf((m[:, :, None] - m[:, None, :]) / both) / both, w)
    found: np.ndarray = square - 2 * (w * normal_pdf((t[:, None] - m) / s) / s).sum(1)
    return found


# -- a common grid ------------------------------------------------------------------------------------------
def _grid(grid: ArrayLike, density: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grid (g,), densities (n, g) that integrate to 1 on it, truth (n,)."""
    p, t = _table(density, truth, "densities")
    g = vector(grid, "grid")
    if len(g) != p.shape[1] or len(g) < 2 or not (np.diff(g) > 0).all():
        raise InputError(
            "the grid must rise and have one value for each column", found=f"{len(g)} for {p.shape[1]} columns"
        )
    total = np.trapezoid(p, g, axis=1)
    if len(p) and not (p.min() >= 0 and total.min() > 0):
        raise InputError("densities are not negative and not zero everywhere", found=f"integral {total.min():g}")
    return g, p / total[:, None], t


def _steps(g: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Grid cell of each truth, and how far into it (0 to 1)."""
    cell = np.clip(np.searchsorted(g, t, side="right") - 1, 0, len(g) - 2)
    return cell, (t - g[cell]) / (g[cell + 1] - g[cell])


def pit_grid(grid: ArrayLike, density: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """(n,) PIT under densities (n, g), linear between the points of a common grid (g,) and normalised on it."""
    g, p, t = _grid(grid, density, truth)
    cumulated = np.concatenate(
        [np.zeros((len(p), 1)), np.cumsum((p[:, 1:] + p[:, :-1]) / 2 * np.diff(g), axis=1)], axis=1
    )
    cell, part = _steps(g, np.clip(t, g[0], g[-1]))
    rows, width = np.arange(len(t)), g[cell + 1] - g[cell]
    left, right = p[rows, cell], p[rows, cell + 1]
    found: np.ndarray = np.clip(cumulated[rows, cell] + width * part * (left + part * (right - left) / 2), 0.0, 1.0)
    return found


def cde_grid(grid: ArrayLike, density: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """(n,) int p(z)^2 dz - 2 p(z_true) by the trapezium rule on a common grid.

    Densities (n, g) are normalised on the grid and linear between its points; outside it they are zero. Two figures are
    comparable only on the same grid: state it.
    """
    g, p, t = _grid(grid, density, truth)
    cell, part = _steps(g, t)
    rows = np.arange(len(t))
    at = p[rows, cell] + part * (p[rows, cell + 1] - p[rows, cell])
    at = np.where((t >= g[0]) & (t <= g[-1]), at, 0.0)
    found: np.ndarray = np.trapezoid(p**2, g, axis=1) - 2 * at
    return found


# -- quantiles ----------------------------------------------------------------------------------------------
def _quantiles(levels: ArrayLike, quantiles: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normal scores of the levels, quantiles (n, levels), truth."""
    q, t = _table(quantiles, truth, "quantiles")
    u = vector(levels, "levels")
    if len(u) != q.shape[1] or len(u) < 2 or not ((np.diff(u) > 0).all() and u[0] > 0 and u[-1] < 1):
        raise InputError("two or more levels must rise between 0 and 1, one for each column",
                         found=f"{len(u)} for {q.shape[1]} columns")  # fmt: skip
    if (np.diff(q, axis=1) < 0).any():
        raise InputError(
            "quantiles fall with the level", found=int((np.diff(q, axis=1) < 0).any(1).sum()), fix="sort them"
        )
    return ndtri(u), q, t


def quantile_at(levels: ArrayLike, quantiles: ArrayLike, at: ArrayLike) -> np.ndarray:
    """(n, m) quantiles at other levels `at` (m,), from quantiles (n, levels).

    Linear in normal scores, and straight on beyond the outer levels: exact for a Gaussian. At levels 0 and 1 infinite.
    """
    q = np.asarray(quantiles, dtype=np.float64)
    score, q, _ = _quantiles(levels, q, np.zeros(len(q)))
    wanted = ndtri(np.asarray(at, dtype=np.float64))
    cell = np.clip(np.searchsorted(score, wanted) - 1, 0, len(score) - 2)
    finite = np.where(np.isfinite(wanted), wanted, 0.0)
    part = (finite - score[cell]) / (score[cell + 1] - score[cell])
    found: np.ndarray = q[:, cell] + part * (q[:, cell + 1] - q[:, cell])
    return np.where(np.isfinite(wanted), found, wanted)


def pit_quantiles(levels: ArrayLike, quantiles: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """(n,) PIT under quantiles (n, levels): the inverse of `quantile_at`, and the middle of a jump."""
    score, q, t = _quantiles(levels, quantiles, truth)

    def inverse(below: np.ndarray) -> np.ndarray:
        cell = np.clip(below.sum(1) - 1, 0, len(score) - 2)
        rows = np.arange(len(t))
        low, high = q[rows, cell], q[rows, cell + 1]
        part = (t - low) / np.maximum(high - low, _TINY)
        part = np.where(high > low, np.clip(part, -1e6, 1e6), np.where(t > low, 1e6, np.where(t < low, -1e6, 0.5)))
        found: np.ndarray = ndtr(score[cell] + part * (score[cell + 1] - score[cell]))
        return found

    found: np.ndarray = (inverse(q < t[:, None]) + inverse(q <= t[:, None])) / 2
    return found


def crps_quantiles(levels: ArrayLike, quantiles: ArrayLike, truth: ArrayLike, steps: int = 500) -> np.ndarray:
    """(n,) CRPS from quantiles (n, levels): twice the pinball loss, averaged over `steps` levels of `quantile_at`."""
    q, t = _table(quantiles, truth, "quantiles")
    tau = (np.arange(steps) + 0.5) / steps
    each = np.empty(len(t))
    for start in range(0, len(t), 2000):  # a block at a time: (2000, steps) stays small
        rows = slice(start, start + 2000)
        apart = t[rows, None] - quantile_at(levels, q[rows], tau)
        each[rows] = 2 * (apart * (tau - (apart < 0))).mean(1)
    return each
