"""Means, quantiles and deviations of repeated objects, for many replicates at once.

A weight says how often an object counts. Shape (n,) gives one number, (replicates, n) gives (replicates,) numbers; with
whole weights every number equals that of the written-out sample.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from deepsky.errors import InputError

Figure: TypeAlias = Any
"""A float, or floats (replicates,) where the weights are (replicates, n)."""


def vector(values: ArrayLike, name: str, *, infinite: bool = False) -> np.ndarray:
    """(n,) float64 values.

    Raises
    ------
    InputError : not one axis, NaN, or (unless `infinite`) an infinite value.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise InputError(f"{name} must have one axis", found=f"shape {x.shape}", expected="(n,)")
    bad = np.isnan(x) if infinite else ~np.isfinite(x)
    if bad.any():
        raise InputError(f"{name} is not finite for {int(bad.sum())} of {len(x)} objects", found=x[bad][0],
                         fix="leave out objects without a value before asking for a figure")  # fmt: skip
    return x


def same_length(**arrays: np.ndarray) -> None:
    """Refuse arrays whose first axes differ.

    Raises
    ------
    InputError : names each array and its length.
    """
    if len({len(a) for a in arrays.values()}) > 1:
        raise InputError("arrays of different length", found=", ".join(f"{k}: {len(a)}" for k, a in arrays.items()))


def weights(weight: ArrayLike | None, n: int) -> np.ndarray:
    """(..., n) float64 weights; ones by default.

    Raises
    ------
    InputError : another length, a negative or a non-finite weight.
    """
    if weight is None:
        return np.ones(n)
    w = np.asarray(weight, dtype=np.float64)
    if w.ndim == 0 or w.shape[-1] != n:
        raise InputError("a weight for every object is needed", found=f"shape {w.shape}", expected=f"(..., {n})")
    if w.size and not (np.isfinite(w.sum()) and w.min() >= 0):
        raise InputError("weights must be finite and not negative", found=float(w.min()))
    return w


def plain(x: Any) -> Figure:
    """A Python float from a zero-dimensional array; other arrays as they are."""
    return float(x) if np.ndim(x) == 0 else x


def ratio(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """a / b, NaN where b is not positive."""
    a, b = np.broadcast_arrays(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    found: np.ndarray = np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)
    return found


def mean(values: np.ndarray, weight: ArrayLike | None = None) -> Figure:
    """Weighted mean of values (n,); NaN where nothing counts."""
    w = weights(weight, len(values))
    return plain(ratio(w @ values, w.sum(-1)))


def quantile(values: np.ndarray, q: float, weight: ArrayLike | None = None) -> Figure:
    """Quantile of the written-out sample, linear between order statistics (numpy's default)."""
    if len(values) == 0:
        return plain(np.full(np.shape(weight)[:-1] if weight is not None else (), np.nan))
    if weight is None:
        return float(np.quantile(values, q))
    w = weights(weight, len(values))
    order = np.argsort(values, kind="stable")
    total = np.cumsum(np.atleast_2d(w)[:, order], axis=1)
    position = np.maximum(total[:, -1] - 1, 0) * q
    low = np.floor(position + 1e-9)  # 0.1 * 10 must not become the order statistic below
    part = np.maximum(position - low, 0)
    found = _order_statistic(values[order], total, low)
    above = _order_statistic(values[order], total, np.minimum(low + 1, total[:, -1] - 1))
    result = np.where(total[:, -1] > 0, found + part * (above - found), np.nan)
    return plain(result.reshape(w.shape[:-1]))


def _order_statistic(ordered: np.ndarray, total: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(rows,) value number `index` (from 0) of each written-out sample with cumulative weights `total`."""
    at = [np.searchsorted(row, i, side="right") for row, i in zip(total, index, strict=True)]
    found: np.ndarray = ordered[np.minimum(at, len(ordered) - 1)]
    return found


def median(values: np.ndarray, weight: ArrayLike | None = None) -> Figure:
    """Median of the written-out sample."""
    return quantile(values, 0.5, weight)


def median_deviation(values: np.ndarray, weight: ArrayLike | None = None) -> Figure:
    """median|x - median x| of the written-out sample.

    The order of the deviations differs between replicates. Instead of sorting each of them, the radius that holds half
    of the weight is bisected on the values, sorted once: O(n) a replicate.
    """
    if weight is None:
        return float(np.median(np.abs(values - np.median(values)))) if len(values) else float("nan")
    if len(values) == 0:
        return plain(np.full(np.shape(weight)[:-1], np.nan))
    w = weights(weight, len(values))
    ordered = np.sort(values)
    total = np.cumsum(np.atleast_2d(w)[:, np.argsort(values, kind="stable")], axis=1)
    total = np.concatenate([np.zeros((len(total), 1)), total], axis=1)
    centre = np.atleast_1d(np.asarray(quantile(values, 0.5, np.atleast_2d(w))))
    position = np.maximum(total[:, -1] - 1, 0) / 2
    low, high = (
        _radius(ordered, total, centre, np.floor(position)),
        _radius(ordered, total, centre, np.ceil(position)),
    )
    result = np.where(total[:, -1] > 0, (low + high) / 2, np.nan)
    return plain(result.reshape(w.shape[:-1]))


def _radius(ordered: np.ndarray, total: np.ndarray, centre: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(rows,) smallest radius about `centre` that holds more than `index` objects; `total` has a leading zero."""
    rows = np.arange(len(total))
    centre = np.where(np.isfinite(centre), centre, 0.0)

    def held(radius: np.ndarray) -> np.ndarray:
        right = np.searchsorted(ordered, centre + radius, side="right")
        left = np.searchsorted(ordered, centre - radius, side="left")
        found: np.ndarray = total[rows, right] - total[rows, left]
        return found

    low = np.full(len(total), -1.0)  # a radius below zero holds nothing
    high = np.maximum(ordered[-1] - centre, centre - ordered[0])
    high = np.nextafter(high, np.inf) + 1e-300
    for _ in range(80):
        middle = (low + high) / 2
        enough = (middle >= 0) & (held(np.maximum(middle, 0)) > index)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    # the radius is the distance of one of the two values that stand at the edge of the interval
    right = np.clip(np.searchsorted(ordered, centre + high, side="right") - 1, 0, len(ordered) - 1)
    left = np.clip(np.searchsorted(ordered, centre - high, side="left"), 0, len(ordered) - 1)
    edges = np.stack([np.abs(ordered[right] - centre), np.abs(ordered[left] - centre)])
    nearest: np.ndarray = np.take_along_axis(edges, np.abs(edges - high).argmin(0)[None], 0)[0]
    return nearest
