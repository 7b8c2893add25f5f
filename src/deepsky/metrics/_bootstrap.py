"""Resampling by group: what lies beneath every interval."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepsky.errors import InputError
from deepsky.metrics._estimate import Estimate, check_level
from deepsky.metrics._weights import same_length

Metric = Callable[..., Any]
_CELLS = 2_000_000  # weights held at once: 16 MB


def takes_weight(metric: Metric) -> bool:
    """Whether a figure has the parameter `weight`, and so can be resampled many times in one call."""
    return "weight" in inspect.signature(metric).parameters


def codes(groups: ArrayLike | None, n: int) -> tuple[np.ndarray, int]:
    """(n,) group numbers and how many groups there are; without groups every object is one.

    Raises
    ------
    InputError : another length, or a group that is missing (NaN).
    """
    if groups is None:
        return np.arange(n), n
    g = np.asarray(groups)
    if g.shape != (n,):
        raise InputError("a group for every object is needed", found=f"shape {g.shape}", expected=f"({n},)")
    if g.dtype.kind == "f" and np.isnan(g).any():
        raise InputError(
            "objects without a group", found=int(np.isnan(g).sum()), fix="give each of them a group of its own"
        )
    names, numbers = np.unique(g, return_inverse=True)
    return numbers, len(names)


def group_sides(number: np.ndarray, count: int, side: np.ndarray) -> np.ndarray:
    """(groups,) which sample each group belongs to.

    Raises
    ------
    InputError : a group stands in both, or one sample is empty.
    """
    members = np.bincount(number, minlength=count)
    inside = np.bincount(number, weights=side, minlength=count)
    if ((inside > 0) & (inside < members)).any():
        raise InputError("groups stand in both samples", found=int(((inside > 0) & (inside < members)).sum()),
                         fix="leave the shared groups out of one of them")  # fmt: skip
    if not (inside > 0).any() or not (inside == 0).any():
        raise InputError("a sample is empty", found=f"{int(side.sum())} and {int((~side).sum())} objects")
    found: np.ndarray = inside > 0
    return found


def draw(number: np.ndarray, groups: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Weights (rows, n): how often each object stands in each resampled sample; groups are drawn whole."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CELLS // max(len(number), 1))
    for start in range(0, replicates, rows):
        count = min(rows, replicates - start)
        drawn = rng.integers(0, groups, size=(count, groups)) + groups * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups)
        yield times[:, number].astype(np.float64)


def evaluate(metric: Metric, arrays: tuple[np.ndarray, ...], times: np.ndarray) -> np.ndarray:
    """(rows,) the figure on every resampled sample; a figure without weights sees the samples written out."""
    if takes_weight(metric):
        return np.asarray(metric(*arrays, weight=times), dtype=np.float64).reshape(len(times))
    rows = [np.repeat(np.arange(len(row)), row.astype(np.int64)) for row in times]
    return np.array([metric(*(a[r] for a in arrays)) for r in rows], dtype=np.float64)


def interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """Percentile interval of replicates; NaN where fewer than half of them are defined."""
    finite = values[np.isfinite(values)]
    if len(finite) < max(2, len(values) / 2):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def centred(values: np.ndarray, value: float, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """Replicates moved so that their median is the figure, and cut to the figure's range.

    A distance (ECE, Kolmogorov-Smirnov) rises when objects are drawn twice, so that all of its replicates may lie above
    it, and their percentiles exclude it. What is taken off is the bootstrap's estimate of that bias (Efron & Tibshirani
    1993, chapter 10), by the median as in the bias-corrected percentile interval (Efron 1981), which itself does not
    exist where no replicate lies below the figure.
    """
    finite = values[np.isfinite(values)]
    if not len(finite) or not np.isfinite(value):
        return values
    moved: np.ndarray = np.clip(values - (np.median(finite) - value), low, high)
    return moved


def definition_of(metric: Metric) -> str:
    """The first sentence of a figure's docstring, else its name."""
    text = inspect.getdoc(getattr(metric, "func", metric))
    return text.split("\n\n")[0].replace("\n", " ").rstrip(".") if text else str(getattr(metric, "__name__", "figure"))


def bootstrap(
    metric: Metric,
    *arrays: ArrayLike,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    definition: str | None = None,
    biased: bool = False,
) -> Estimate:
    """A figure with its percentile bootstrap interval (Efron 1979), groups resampled whole.

    Parameters
    ----------
    metric : ``metric(*arrays)`` or, much faster, ``metric(*arrays, weight=...)``.
    arrays : each with n rows: prediction and truth, or residuals.
    groups : (n,) any labels; objects of one group (star, supernova, field) are drawn together.
    definition : what the figure is; by default the first sentence of the metric's docstring.
    biased : it is a distance from 0 to 1 such as ECE, which resampling raises; see `centred`.

    Returns
    -------
    Estimate : `low` and `high` are NaN with fewer than two groups, and where every replicate gives the same number:
        then resampling cannot say how far the figure may move (1.0 of 30 objects is not 1.0 of all).
    """
    check_level(level)
    held = tuple(np.asarray(a) for a in arrays)
    same_length(**{f"array {i}": a for i, a in enumerate(held)})
    n = len(held[0])
    number, count = codes(groups, n)
    value = float(metric(*held))
    low = high = float("nan")
    if count > 1 and replicates > 1:
        values = np.concatenate([evaluate(metric, held, times) for times in draw(number, count, replicates, seed)])
        finite = values[np.isfinite(values)]
        if len(finite) and np.ptp(finite) > 1e-12 * np.abs(finite).max():
            low, high = interval(centred(values, value, 0.0, 1.0) if biased else values, level)
    words = definition_of(metric) if definition is None else definition
    return Estimate(value, low, high, n, words, level, None if groups is None else count)


TOO_FEW = "too few to tell"


# -- two predictions ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Difference:
    """Two predictions of the same objects held against each other.

    Attributes
    ----------
    estimate : figure of the first minus figure of the second, with its paired interval.
    verdict : "ahead" or "behind" (of the first) where the interval excludes zero, otherwise "equal"; "too few to tell:
        1 object of rare" where so few objects stand behind it that no interval can be trusted.
    first, second : the figure of each.
    """

    estimate: Estimate
    verdict: str
    first: float
    second: float

    def __str__(self) -> str:
        return f"{self.verdict}: {self.first:.4g} against {self.second:.4g}, difference {self.estimate}"

    def json(self) -> dict[str, Any]:
        """JSON literals."""
        first, second = (v if np.isfinite(v) else None for v in (self.first, self.second))
        return {"estimate": self.estimate.json(), "verdict": self.verdict, "first": first, "second": second}


def measure(better: str) -> Callable[[Any], Any]:
    """What is compared: the figure itself or, where "zero" is best, its absolute value.

    Raises
    ------
    InputError : `better` is none of "higher", "lower" and "zero".
    """
    if better not in ("higher", "lower", "zero"):
        raise InputError("which way is better?", found=better, known=("higher", "lower", "zero"))
    return np.abs if better == "zero" else np.asarray


def compared(
    values: np.ndarray, one: float, two: float, better: str, level: float, words: str, n: int, groups: int | None
) -> Difference:
    """A difference and its verdict from the replicates of the difference."""
    size = measure(better)
    low, high = interval(values, level)
    verdict = "equal"
    if low > 0 or high < 0:
        verdict = "ahead" if (low > 0) == (better == "higher") else "behind"
    estimate = Estimate(float(size(one) - size(two)), low, high, n, words, level, groups)
    return Difference(estimate, verdict, one, two)
