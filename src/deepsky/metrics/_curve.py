"""True and false positives against threshold, ties together, for many replicates at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from deepsky.errors import InputError
from deepsky.metrics._weights import Figure, plain, ratio, same_length, vector, weights


@dataclass(frozen=True, eq=False)
class Curve:
    """What stands above each threshold. An object is selected where ``score >= threshold``.

    Attributes
    ----------
    threshold : (t,) inf (nothing selected), then every score that occurs, falling; objects of one score enter together.
    true, false : (..., t) true and false positives, rising from zero.
    positives, negatives : (...) how many there are.
    """

    threshold: np.ndarray
    true: np.ndarray
    false: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    @property
    def tpr(self) -> np.ndarray:
        """(..., t) true positive rate: completeness, recall, efficiency."""
        return ratio(self.true, self.positives[..., None])

    @property
    def fpr(self) -> np.ndarray:
        """(..., t) false positive rate: contaminants selected over all contaminants."""
        return ratio(self.false, self.negatives[..., None])

    @property
    def purity(self) -> np.ndarray:
        """(..., t) purity, precision, at the sample's own prevalence; NaN where nothing is selected."""
        return ratio(self.true, self.true + self.false)


def binary(truth: ArrayLike) -> np.ndarray:
    """(n,) bool from bools or zeros and ones.

    Raises
    ------
    InputError : anything else stands there.
    """
    y = np.asarray(truth)
    if y.ndim != 1:
        raise InputError("binary truth must have one axis", found=f"shape {y.shape}", expected="(n,)")
    if y.dtype != bool:
        if len(y) and not np.isin(y, (0, 1)).all():
            fix = "leave out objects without a label; hold one class against the rest for several"
            raise InputError("binary truth holds zeros and ones only", found=y[~np.isin(y, (0, 1))][0], fix=fix)
        y = y == 1
    return y


def curve(scores: ArrayLike, truth: ArrayLike, weight: ArrayLike | None = None) -> Curve:
    """True and false positives at every threshold.

    Parameters
    ----------
    scores : (n,) the higher, the more likely positive; infinite ones are allowed.
    truth : (n,) bool or 0 and 1.
    weight : (n,) or (replicates, n).
    """
    s, y = vector(scores, "scores", infinite=True), binary(truth)
    same_length(scores=s, truth=y)
    w = weights(weight, len(s))
    order = np.argsort(-s, kind="stable")
    s, y, w = s[order], y[order], w[..., order]
    last = np.flatnonzero(np.append(s[1:] != s[:-1], True)) if len(s) else np.zeros(0, dtype=int)
    true = np.cumsum(w * y, axis=-1)[..., last]
    false = np.cumsum(w * ~y, axis=-1)[..., last]
    zero = np.zeros((*w.shape[:-1], 1))
    true, false = np.concatenate([zero, true], -1), np.concatenate([zero, false], -1)
    return Curve(np.append(np.inf, s[last]), true, false, true[..., -1], false[..., -1])


def area(c: Curve) -> Figure:
    """Area under the ROC curve, ties counted half; NaN where one class is missing."""
    trapezia = np.diff(c.false, axis=-1) * (c.true[..., 1:] + c.true[..., :-1]) / 2
    return plain(ratio(trapezia.sum(-1), c.positives * c.negatives))
