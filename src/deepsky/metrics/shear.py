"""Shear bias: multiplicative m and additive c of an ellipticity or shear estimator.

g_obs - g_true = m g_true + c for each component. Source: Heymans+2006; GREAT3 (Mandelbaum+2014); responses as in
Pujol+2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from deepsky.errors import InputError
from deepsky.metrics._estimate import Estimate, check_level

__all__ = ["ShearBias", "shear_bias", "shear_response"]


@dataclass(frozen=True)
class ShearBias:
    """Multiplicative and additive bias of one component."""

    m: Estimate
    c: Estimate

    @property
    def in_order(self) -> bool:
        """|m| <= 2e-3 and |c| <= 2e-4, the requirement on a weak-lensing survey of the next generation."""
        return abs(self.m.value) <= 2e-3 and abs(self.c.value) <= 2e-4


def shear_bias(
    observed: ArrayLike,
    true: ArrayLike,
    weight: ArrayLike | None = None,
    pairs: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    level: float = 0.95,
) -> tuple[ShearBias, ...]:
    """m and c of each component, by weighted least squares of observed - true on true.

    Parameters
    ----------
    observed : (n, components) estimated shear, or ellipticity already divided by its responsivity.
    true : (n, components) the shear that was applied.
    weight : (n,) weights of the objects; they must not depend on the shear, or the fit is biased.
    pairs : (n,) labels of galaxies turned by 90 degrees against each other. The members of a pair share the true shear;
        they get their mean weight, so that their intrinsic shapes cancel.
    groups : (n,) labels of what is independent (a field, a galaxy drawn several times); default: the pairs.

    Returns
    -------
    One `ShearBias` a component. Intervals are normal ones from the cluster-robust covariance (Liang & Zeger 1986, with
    the factor groups / (groups - 2)).

    Raises
    ------
    InputError : shapes differ, values are not finite, fewer than three groups, a true shear that never varies, or a
        pair with two true shears.
    """
    check_level(level)
    o, t = np.asarray(observed, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if o.ndim != 2 or o.shape != t.shape or not (np.isfinite(o).all() and np.isfinite(t).all()):
        raise InputError("observed and true shear must be finite and of one shape", found=f"{o.shape} and {t.shape}",
                         expected="(n, 2)")  # fmt: skip
    n = len(o)
    w = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
    if w.shape != (n,) or not np.isfinite(w).all() or (w < 0).any():
        raise InputError("a weight of zero or more for every object is needed", found=f"shape {w.shape}")
    if pairs is not None:
        w = _paired(np.unique(np.asarray(pairs), return_inverse=True)[1], w, t)
    labels = pairs if groups is None else groups
    unit = np.arange(n) if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1]
    units = int(unit.max(initial=-1)) + 1
    if unit.shape != (n,) or units < 3:
        raise InputError("m and c need three galaxies, pairs or groups, and a label for each galaxy", found=units)
    return tuple(_fit(o[:, j] - t[:, j], t[:, j], w, unit, units, level, j) for j in range(t.shape[1]))


def _paired(pair: np.ndarray, w: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Each galaxy's weight replaced by the mean of its pair, after a look at the pair's true shear."""
    if pair.shape != w.shape:
        raise InputError(
            "a pair label for every object is needed", found=f"shape {pair.shape}", expected=f"({len(w)},)"
        )
    count = np.bincount(pair)
    for j in range(t.shape[1]):
        average = np.bincount(pair, weights=t[:, j]) / count
        if np.abs(t[:, j] - average[pair]).max() > 1e-6:
            raise InputError("members of one pair were sheared differently", found=f"component {j + 1}",
                             fix="pairs turned by 90 degrees share one true shear")  # fmt: skip
    found: np.ndarray = (np.bincount(pair, weights=w) / count)[pair]
    return found


def _sums(unit: np.ndarray, values: np.ndarray, units: int) -> np.ndarray:
    return np.bincount(unit, weights=values, minlength=units).astype(np.float64)


def _fit(
    y: np.ndarray, x: np.ndarray, w: np.ndarray, unit: np.ndarray, units: int, level: float, component: int
) -> ShearBias:
    design = np.stack([x, np.ones_like(x)], axis=1)
    gram = design.T @ (w[:, None] * design)
    total, spread = gram[1, 1], gram[0, 0] - gram[0, 1] ** 2 / max(gram[1, 1], 1e-300)
    if not (total > 0 and spread > 1e-12 * max(gram[0, 0], 1e-300)):
        raise InputError(
            "the true shear never varies: m and c cannot be told apart", found=f"component {component + 1}"
        )
    inverse = np.linalg.inv(gram)
    best = inverse @ (design.T @ (w * y))
    left = w * (y - design @ best)
    score = np.stack([_sums(unit, left * design[:, i], units) for i in range(2)], axis=1)
    covariance = inverse @ (score.T @ score) @ inverse * units / (units - 2)
    half = float(ndtri(0.5 + level / 2)) * np.sqrt(np.diag(covariance))
    words = ("multiplicative", "additive")
    m, c = (
        Estimate(float(best[i]), float(best[i] - half[i]), float(best[i] + half[i]), len(y),
                 f"{words[i]} shear bias of component {component + 1}: g_obs - g_true = m g_true + c", level, units)
        for i in range(2)
    )  # fmt: skip
    return ShearBias(m, c)


def shear_response(
    plus: ArrayLike, minus: ArrayLike, shear: float, weight: ArrayLike | None = None, level: float = 0.95
) -> ShearBias:
    """m and c of one component from the same galaxies sheared by +g and -g, with the same noise (Pujol+2019).

    Each galaxy gives its own response (plus - minus) / 2g, free of shape noise, and its offset (plus + minus) / 2.

    Parameters
    ----------
    plus, minus : (n,) the estimated component under +shear and -shear.
    weight : (n,) weights, the same for both.
    """
    check_level(level)
    p, q = np.asarray(plus, dtype=np.float64), np.asarray(minus, dtype=np.float64)
    w = np.ones(len(p)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not (p.shape == q.shape == w.shape) or p.ndim != 1 or len(p) < 2 or not np.isfinite(p + q + w).all():
        raise InputError("two finite estimates for each of two or more galaxies", found=f"{p.shape}, {q.shape}")
    if shear == 0 or w.min() < 0 or w.sum() <= 0:
        raise InputError("a shear that is not zero and weights that are not negative", found=f"shear {shear}")
    words = "from the same galaxies and noise under +g and -g"
    return ShearBias(
        _weighted_mean((p - q) / (2 * shear) - 1, w, f"multiplicative shear bias {words}", level),
        _weighted_mean((p + q) / 2, w, f"additive shear bias {words}", level),
    )


def _weighted_mean(x: np.ndarray, w: np.ndarray, words: str, level: float) -> Estimate:
    value = float(w @ x / w.sum())
    n = len(x)
    sigma = float(np.sqrt(np.sum((w * (x - value)) ** 2) * n / (n - 1)) / w.sum())
    half = float(ndtri(0.5 + level / 2)) * sigma
    return Estimate(value, value - half, value + half, n, words, level)
