"""Regression and redshift posteriors: bias, scatter, outliers, PIT, CRPS, CDE loss, coverage.

Figures of residuals take r (n,): ``residual(prediction, truth)`` or, for redshifts, ``dz(prediction, truth)``; `on`
turns one into a figure of (prediction, truth): ``on(sigma_nmad, dz)``. Figures of distributions take the numbers of
single objects, which `distributions` makes from samples, quantiles, a grid or a Gaussian mixture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from deepsky.errors import InputError
from deepsky.metrics._estimate import Estimate, proportion
from deepsky.metrics._weights import (
    Figure,
    mean,
    median,
    median_deviation,
    plain,
    quantile,
    ratio,
    same_length,
    vector,
    weights,
)

__all__ = [
    "Coverage", "bias", "cde_loss", "coverage", "coverage_of_pit", "crps", "dz", "mae", "mean_bias", "on",
    "outlier_fraction", "outlier_fraction_dc1", "pit_extreme", "pit_ks", "r2", "residual", "rmse", "sigma_iqr",
    "sigma_nmad",
]  # fmt: skip


# -- residuals ----------------------------------------------------------------------------------------------
def residual(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """(n,) prediction - truth."""
    p, t = vector(prediction, "prediction"), vector(truth, "truth")
    same_length(prediction=p, truth=t)
    found: np.ndarray = p - t
    return found


def dz(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """(n,) (z_phot - z_spec) / (1 + z_spec).

    Raises
    ------
    InputError : a true redshift of -1 or below.
    """
    difference, z = residual(prediction, truth), np.asarray(truth, dtype=np.float64)
    if len(z) and z.min() <= -1:
        raise InputError("a redshift lies above -1", found=float(z.min()), fix="leave out sentinels such as -99")
    return difference / (1 + z)


def on(
    metric: Callable[..., Figure], transform: Callable[[ArrayLike, ArrayLike], np.ndarray] = residual
) -> Callable[..., Figure]:
    """A figure of residuals as one of (prediction, truth, weight), for paired comparisons and bins."""

    def figure(prediction: ArrayLike, truth: ArrayLike, weight: ArrayLike | None = None) -> Figure:
        return metric(transform(prediction, truth), weight=weight)

    figure.__name__ = getattr(metric, "__name__", "figure")
    what = (metric.__doc__ or figure.__name__).splitlines()[0].rstrip(".")
    figure.__doc__ = f"{what}; r = {(transform.__doc__ or transform.__name__).splitlines()[0].removeprefix('(n,) ')}"
    return figure


def bias(r: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """Bias: median of r."""
    return median(vector(r, "residual"), weight)


def mean_bias(r: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """Mean bias: mean of r."""
    return mean(vector(r, "residual"), weight)


def sigma_nmad(r: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """sigma_NMAD: 1.4826 median|r - median r| (Hoaglin+1983, Brammer+2008)."""
    found: Figure = 1.4826 * median_deviation(vector(r, "residual"), weight)
    return found


def sigma_iqr(r: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """sigma_IQR: interquartile range of r / 1.349 (Schmidt+2020)."""
    x = vector(r, "residual")
    found: Figure = (quantile(x, 0.75, weight) - quantile(x, 0.25, weight)) / 1.349
    return found


def outlier_fraction(r: ArrayLike, threshold: float = 0.15, weight: ArrayLike | None = None) -> Figure:
    """Outlier fraction: share of objects with |r| > threshold (0.15 for dz; Hildebrandt+2010)."""
    return mean((np.abs(vector(r, "residual")) > threshold).astype(np.float64), weight)


def outlier_fraction_dc1(r: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """Outlier fraction of DC1: share with |r| > max(3 sigma_IQR, 0.06) (Schmidt+2020)."""
    x = vector(r, "residual")
    w = weights(weight, len(x))
    threshold = np.maximum(3 * np.asarray(sigma_iqr(x, weight)), 0.06)[..., None]
    return plain(ratio(((np.abs(x) > threshold) * w).sum(-1), w.sum(-1)))


def rmse(r: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """Root mean square of r."""
    return plain(np.sqrt(mean(vector(r, "residual") ** 2, weight)))


def mae(r: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """Mean |r|."""
    return mean(np.abs(vector(r, "residual")), weight)


def r2(prediction: ArrayLike, truth: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """R2: 1 - sum (prediction - truth)^2 / sum (truth - mean truth)^2; the constant has 0, worse is below."""
    r, t = residual(prediction, truth), np.asarray(truth, dtype=np.float64)
    w = weights(weight, len(t))
    centred = t - t.mean() if len(t) else t  # keeps the difference of large sums below exact
    total = w @ centred**2 - ratio((w @ centred) ** 2, w.sum(-1))
    return plain(1 - ratio(w @ r**2, total))


# -- figures of distributions -------------------------------------------------------------------------------
def crps(each: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """CRPS: mean of the continuous ranked probability score, in the unit of the truth (Gneiting & Raftery 2007).

    Parameters
    ----------
    each : (n,) scores from `distributions.crps_gaussian`, `crps_mixture`, `crps_samples` or `crps_quantiles`.
    """
    return mean(vector(each, "CRPS of an object"), weight)


def cde_loss(each: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """CDE loss: mean of int p(z)^2 dz - 2 p(z_true) on a common grid; lower is better (Izbicki & Lee 2017).

    Parameters
    ----------
    each : (n,) from `distributions.cde_grid` or `cde_mixture`.
    """
    return mean(vector(each, "CDE loss of an object"), weight)


def pit_ks(pit: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """PIT KS: largest distance between the distribution function of the PIT and the uniform one."""
    u = _unit(pit)
    w = weights(weight, len(u))
    order = np.argsort(u, kind="stable")
    u, w = u[order], w[..., order]
    last = np.flatnonzero(np.append(u[1:] != u[:-1], True)) if len(u) else np.zeros(0, dtype=int)
    if not len(u):
        return plain(np.full(w.shape[:-1], np.nan))
    after = np.cumsum(w, -1)[..., last]
    after = ratio(after, after[..., -1:])
    before = np.concatenate([np.zeros((*after.shape[:-1], 1)), after[..., :-1]], -1)
    return plain(np.maximum(after - u[last], u[last] - before).max(-1))


def pit_extreme(pit: ArrayLike, margin: float = 1e-4, weight: ArrayLike | None = None) -> Figure:
    """PIT outliers: share of objects with PIT < 1e-4 or > 0.9999, 2e-4 if right (Schmidt+2020)."""
    u = _unit(pit)
    return mean(((u < margin) | (u > 1 - margin)).astype(np.float64), weight)


def _unit(pit: ArrayLike) -> np.ndarray:
    u = vector(pit, "PIT")
    if len(u) and not (u.min() >= 0 and u.max() <= 1):
        raise InputError("PIT values lie between 0 and 1", found=f"{u.min():g} to {u.max():g}")
    return u


# -- coverage -----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Coverage:
    """How many intervals hold the truth, beside how many should.

    Attributes
    ----------
    nominal : the share that should.
    share : the share that does, with its Wilson interval; objects are taken as independent.
    mark : "few" below 100 objects, else "miss" where the share is off by more than 3 binomial sigma, else "".
    """

    nominal: float
    share: Estimate
    mark: str


def coverage(inside: ArrayLike, nominal: float, level: float = 0.95) -> Coverage:
    """Share of objects whose truth lies in its interval.

    Parameters
    ----------
    inside : (n,) bool.
    nominal : what the share should be, e.g. 0.68 or 0.95.
    """
    hit = np.asarray(inside, dtype=bool)
    if hit.ndim != 1:
        raise InputError("one flag for every object is needed", found=f"shape {hit.shape}", expected="(n,)")
    n = len(hit)
    share = proportion(int(hit.sum()), n, f"share of objects inside their {nominal:.4g} interval", level)
    far = n > 0 and abs(share.value - nominal) > 3 * np.sqrt(nominal * (1 - nominal) / n)
    return Coverage(nominal, share, "few" if n < 100 else "miss" if far else "")


def coverage_of_pit(
    pit: ArrayLike, nominal: tuple[float, ...] = (0.68, 0.95), level: float = 0.95
) -> tuple[Coverage, ...]:
    """Coverage of the central intervals, from the PIT: truth lies inside where |PIT - 1/2| <= nominal / 2."""
    u = _unit(pit)
    return tuple(coverage(np.abs(u - 0.5) <= c / 2, c, level) for c in nominal)
