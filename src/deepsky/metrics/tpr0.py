"""TPR0 with an interval that covers, and its paired difference: what resampling alone cannot give.

TPR0 hangs on the one highest negative. A resampled sample never holds a higher one, so its percentile interval misses
on one side: a 95% interval of a Gaussian example with 5,000 negatives covered 72%. Here each replicate fits the tail of
the negatives and draws the highest one of another sample from it. The tail is that of each negative's rank among the
positives, t, which no rescaling of the scores changes: towards t = 0 the share of negatives below t is a power of t,
with the exponent of Hill (1975).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from deepsky.metrics._bootstrap import Difference, codes, compared, draw, interval
from deepsky.metrics._curve import binary, curve
from deepsky.metrics._estimate import Estimate, check_level
from deepsky.metrics._weights import same_length, vector

__all__ = ["tpr0", "tpr0_difference"]
_WORDS = "TPR0: highest true positive rate with no false positive, of {:,} negatives"


def tpr0(
    scores: ArrayLike,
    truth: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    tail: int = 30,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """TPR0 (Metcalf+2019) of the sample, with the interval in which that of another such sample is expected.

    Parameters
    ----------
    scores : (n,) the higher, the more likely positive.
    truth : (n,) bool or 0 and 1.
    groups : (n,) what is independent.
    tail : how many of the highest negatives the tail is fitted to.

    Returns
    -------
    Estimate : the number of negatives stands in its definition. `low` and `high` are NaN with fewer than 10 x `tail`
        negatives, with no positive, and where no negative reaches any positive.
    """
    check_level(level)
    value, negatives = _point(scores, truth)
    low = high = float("nan")
    number, count = codes(groups, len(np.asarray(truth)))
    if count > 1 and negatives >= 10 * tail and value < 1:
        rng = np.random.default_rng([seed, 1])
        drawn = [_draws(scores, truth, w, tail, rng) for w in draw(number, count, replicates, seed)]
        low, high = interval(np.concatenate(drawn), level)
        low, high = min(low, value), max(high, value)
    n = len(np.asarray(truth))
    return Estimate(value, low, high, n, _WORDS.format(negatives), level, None if groups is None else count)


def tpr0_difference(
    a: ArrayLike,
    b: ArrayLike,
    truth: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    tail: int = 30,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Whether scores `a` have a higher TPR0 than `b` on the same objects; see `intervals.paired_difference`.

    The highest negatives of both are drawn independently, as if they were never one object: a cautious interval.
    """
    check_level(level)
    (one, negatives), (two, _) = _point(a, truth), _point(b, truth)
    number, count = codes(groups, len(np.asarray(truth)))
    values = []
    if count > 1 and negatives >= 10 * tail:
        rng = np.random.default_rng([seed, 1])
        for w in draw(number, count, replicates, seed):
            values.append(_draws(a, truth, w, tail, rng) - _draws(b, truth, w, tail, rng))
    held = np.concatenate(values) if values else np.zeros(0)
    words = "difference of " + _WORDS.format(negatives)
    return compared(held, one, two, "higher", level, words, len(number), None if groups is None else count)


def _point(scores: ArrayLike, truth: ArrayLike) -> tuple[float, int]:
    """TPR0 and the number of negatives."""
    s, y = vector(scores, "scores", infinite=True), binary(truth)
    same_length(scores=s, truth=y)
    highest = s[~y].max(initial=-np.inf)
    above = s[y] > highest if not y.all() else np.ones(int(y.sum()))
    return float(above.mean()) if y.any() else float("nan"), int((~y).sum())


def _draws(scores: ArrayLike, truth: ArrayLike, w: np.ndarray, tail: int, rng: np.random.Generator) -> np.ndarray:
    """(rows,) TPR0 of another sample for each row of weights (rows, n)."""
    s, y = vector(scores, "scores", infinite=True), binary(truth)
    # what stands below the 4 x tail highest negatives plays no part: leave it out early
    negative = np.sort(s[~y])[::-1]
    top = s >= negative[min(4 * tail, len(negative)) - 1]
    positives = w @ y
    c = curve(s[top], y[top], w[:, top])
    share = (c.true + 0.5) / (positives[:, None] + 1)  # never zero: its logarithm is taken
    inside = c.false <= tail
    edge = share[np.arange(len(w)), inside.sum(1) - 1]
    entering = np.diff(c.false, axis=1) * inside[:, 1:]
    count = entering.sum(1)
    known = (count > 0) & (positives > 0)
    logs = (entering * np.log(edge[:, None] / share[:, 1:])).sum(1)
    exponent = np.divide(logs, count, out=np.full(len(w), np.nan), where=known)
    # so many negatives stand in the tail of another sample; the smallest of their uniform ranks decides
    others = np.maximum(rng.poisson(count), 1)
    smallest = 1 - rng.random(len(w)) ** (1 / others)
    found = (edge * smallest**exponent * (positives + 1) - 0.5) / np.maximum(positives, 1)
    return np.where(known, np.clip(found, 0.0, 1.0), np.nan)
