"""Figures in bins of magnitude, S/N, redshift, size: quantile bins of at least 100 objects, the unmeasured apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepsky.errors import InputError
from deepsky.metrics._bootstrap import Metric, bootstrap
from deepsky.metrics._estimate import Estimate
from deepsky.metrics._weights import same_length

__all__ = ["Bin", "Binned", "binned", "quantile_bins", "value_bins"]


@dataclass(frozen=True, eq=False)
class Bin:
    """Some of the objects.

    Attributes
    ----------
    label : as it stands in a table, with the unit, e.g. "20.1 to 21.4 mag".
    low, high : range of the values in it; NaN for values that are not numbers, and for the bin of the unmeasured.
    rows : (m,) its objects.
    """

    label: str
    low: float
    high: float
    rows: np.ndarray

    @property
    def n(self) -> int:
        """How many objects."""
        return len(self.rows)


def quantile_bins(by: ArrayLike, bins: int = 10, minimum: int = 100, name: str = "", unit: str = "") -> tuple[Bin, ...]:
    """Bins of equal numbers of objects, each with at least `minimum`; objects with one value stay together.

    Parameters
    ----------
    by : (n,) numbers; NaN is "not measured", and infinite values belong to the outer bins.
    bins : at most this many.
    name, unit : for the labels.

    Returns
    -------
    The bins from low to high, and, where there are any, last the bin of the objects without a value, whatever its size.
    A sample of fewer than `minimum` objects is one bin.
    """
    x = np.asarray(by, dtype=np.float64)
    if x.ndim != 1 or bins < 1 or minimum < 1:
        raise InputError(
            "bins need values (n,), and one bin of one object or more", found=f"{x.shape}, {bins}, {minimum}"
        )
    known = np.flatnonzero(~np.isnan(x))
    order = known[np.argsort(x[known], kind="stable")]
    made = []
    start = 0
    wanted = max(1, min(bins, len(order) // minimum))
    for i in range(1, wanted + 1):
        end = round(len(order) * i / wanted)
        if i < wanted:
            end = int(np.searchsorted(x[order], x[order[end - 1]], side="right"))  # ties stay below the edge
            if end - start < minimum or len(order) - end < minimum:
                continue
        else:
            end = len(order)
        if end > start:
            made.append(order[start:end])
        start = max(start, end)
    words = [_range(x[rows[0]], x[rows[-1]], name, unit) for rows in made]
    if len(set(words)) < len(words):  # narrow bins: more digits
        words = [_range(x[rows[0]], x[rows[-1]], name, unit, 7) for rows in made]
    found = [
        Bin(text, float(x[rows[0]]), float(x[rows[-1]]), np.sort(rows)) for text, rows in zip(words, made, strict=True)
    ]
    missing = np.flatnonzero(np.isnan(x))
    if len(missing):
        found.append(Bin(f"{name} not measured".strip(), float("nan"), float("nan"), missing))
    return tuple(found)


def _range(low: float, high: float, name: str, unit: str, digits: int = 4) -> str:
    span = f"{low:.{digits}g}" if low == high else f"{low:.{digits}g} to {high:.{digits}g}"
    return " ".join(part for part in (name, span, unit) if part)


def value_bins(by: ArrayLike, minimum: int = 100, name: str = "") -> tuple[Bin, ...]:
    """One bin for each value (a band, a field, a class), those with fewer than `minimum` objects in one called "other".

    Empty text and None are "not measured".
    """
    x = np.array(["" if v is None or v != v else str(v) for v in np.asarray(by, dtype=object)], dtype=str)
    nan = float("nan")
    made, rest = [], []
    for value in np.unique(x):
        rows = np.flatnonzero(x == value)
        if value and len(rows) >= minimum:
            made.append(Bin(f"{name} {value}".strip(), nan, nan, rows))
        elif value:
            rest.append(rows)
    if rest:
        made.append(Bin(f"{name} other".strip(), nan, nan, np.sort(np.concatenate(rest))))
    if (x == "").any():
        made.append(Bin(f"{name} not measured".strip(), nan, nan, np.flatnonzero(x == "")))
    return tuple(made)


@dataclass(frozen=True, eq=False)
class Binned:
    """A figure in bins; iterates over (bin, estimate)."""

    bins: tuple[Bin, ...]
    estimates: tuple[Estimate, ...]

    def __iter__(self) -> Iterator[tuple[Bin, Estimate]]:
        return iter(zip(self.bins, self.estimates, strict=True))

    def __len__(self) -> int:
        return len(self.bins)

    def json(self) -> list[dict[str, Any]]:
        """One row a bin: label, low, high and the estimate; NaN is null."""
        ends = [(None if b.low != b.low else b.low, None if b.high != b.high else b.high) for b in self.bins]
        rows = zip(self.bins, ends, self.estimates, strict=True)
        return [{"label": b.label, "from": low, "to": high, **e.json()} for b, (low, high), e in rows]


def binned(
    metric: Metric,
    values: tuple[ArrayLike, ...],
    by: ArrayLike | tuple[Bin, ...],
    groups: ArrayLike | None = None,
    *,
    bins: int = 10,
    minimum: int = 100,
    name: str = "",
    unit: str = "",
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Binned:
    """A figure in every bin of a column, with intervals resampled by group inside the bin.

    Parameters
    ----------
    metric : see `intervals.bootstrap`.
    values : the metric's arrays, each with n rows, e.g. (prediction, truth).
    by : (n,) numbers (quantile bins) or text (one bin a value), or bins made before, to use the same for two models.
    groups : (n,) what is independent.

    Notes
    -----
    A figure that is not defined in a bin (one class only) is NaN there; the bin stays.
    """
    arrays = tuple(np.asarray(v) for v in values)
    same_length(**{f"array {i}": v for i, v in enumerate(arrays)})
    n = len(arrays[0])
    if isinstance(by, tuple) and all(isinstance(b, Bin) for b in by):
        made: tuple[Bin, ...] = by
    else:
        column = np.asarray(by)
        if column.shape != (n,):
            raise InputError(
                "a value to bin by for every object is needed", found=f"shape {column.shape}", expected=f"({n},)"
            )
        numeric = column.dtype.kind in "iuf"
        made = quantile_bins(column, bins, minimum, name, unit) if numeric else value_bins(column, minimum, name)
    held = None if groups is None else np.asarray(groups)
    estimates = [
        bootstrap(metric, *(v[b.rows] for v in arrays), groups=None if held is None else held[b.rows],
                  replicates=replicates, level=level, seed=seed)
        for b in made
    ]  # fmt: skip
    return Binned(made, tuple(estimates))
