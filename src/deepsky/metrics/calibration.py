"""Calibration of probabilities: reliability curve, expected calibration error (plain, debiased, classwise).

A probability p is calibrated where, of all objects given p, the share p is positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from deepsky.errors import InputError
from deepsky.metrics._curve import binary
from deepsky.metrics._estimate import Estimate, proportion
from deepsky.metrics._weights import Figure, plain, ratio, same_length, vector, weights

__all__ = ["ReliabilityBin", "classwise_ece", "ece", "ece_if_calibrated", "ece_squared", "reliability", "top_label"]


@dataclass(frozen=True)
class ReliabilityBin:
    """One point of the reliability curve.

    Attributes
    ----------
    low, high : lowest and highest probability of the bin.
    mean : mean predicted probability.
    share : how many of its objects are positive, with the Wilson interval.
    """

    low: float
    high: float
    mean: float
    share: Estimate

    @property
    def fits(self) -> bool:
        """Whether the mean prediction lies in the interval of the share."""
        return self.share.low <= self.mean <= self.share.high


def _checked(p: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    q, y = vector(p, "probabilities"), binary(truth)
    same_length(probabilities=q, truth=y)
    if len(q) and not (q.min() >= 0 and q.max() <= 1):
        raise InputError("probabilities lie between 0 and 1", found=f"{q.min():g} to {q.max():g}")
    return q, y


def _bins(p: np.ndarray, bins: int, equal: str) -> np.ndarray:
    """(n,) bin numbers 0 .. m-1 without an empty bin; equal probabilities share a bin.

    "mass": as nearly as ties allow the same number of objects in each; "width": the same width.
    """
    if bins < 1 or equal not in {"mass", "width"}:
        raise InputError(
            "bins of equal mass or width are known", found=f"{bins} of equal {equal}", known=("mass", "width")
        )
    if equal == "width":
        number = np.minimum((p * bins).astype(np.int64), bins - 1)
    else:
        inner = np.quantile(p, np.arange(1, bins) / bins, method="lower") if len(p) else np.zeros(0)
        number = np.searchsorted(np.unique(inner), p, side="left")
    packed: np.ndarray = np.unique(number, return_inverse=True)[1]
    return packed


def reliability(
    p: ArrayLike, truth: ArrayLike, bins: int = 10, equal: str = "mass", level: float = 0.95
) -> tuple[ReliabilityBin, ...]:
    """Reliability curve: in bins of predicted probability, the share that is positive with its binomial interval.

    Parameters
    ----------
    p : (n,) probability of being positive.
    bins : at most this many; ties and small samples make fewer.
    equal : "mass" (same number of objects) or "width".
    """
    q, y = _checked(p, truth)
    number = _bins(q, bins, equal)
    curve = []
    for b in range(number.max(initial=-1) + 1):
        here = number == b
        share = proportion(
            int(y[here].sum()), int(here.sum()), "share of positives in a bin of predicted probability", level
        )
        curve.append(ReliabilityBin(float(q[here].min()), float(q[here].max()), float(q[here].mean()), share))
    return tuple(curve)


def _gaps(q: np.ndarray, y: np.ndarray, number: np.ndarray, weight: ArrayLike | None) -> tuple[np.ndarray, ...]:
    """(..., bins) share of the weight, count, mean prediction and mean truth of each bin."""
    w = weights(weight, len(q))
    member = np.eye(number.max(initial=0) + 1)[number] if len(q) else np.zeros((0, 1))
    count = w @ member
    return (
        ratio(count, count.sum(-1, keepdims=True)),
        count,
        ratio((w * q) @ member, count),
        ratio((w * y) @ member, count),
    )


def ece(
    p: ArrayLike,
    truth: ArrayLike,
    bins: int = 15,
    equal: str = "mass",
    debiased: bool = False,
    weight: ArrayLike | None = None,
) -> Figure:
    """Expected calibration error: sum over bins of (share of objects) x |mean prediction - share of positives|.

    Source: Naeini+2015; with several classes use `top_label` (Guo+2017) or `classwise_ece`. A perfectly calibrated
    sample has ECE > 0 by chance: compare with `ece_if_calibrated`, or take `debiased`.

    Parameters
    ----------
    debiased : subtract the estimated bias, E[sum w |p - R|] - ECE with R normal about the observed share with its
        binomial variance (Kumar, Liang & Ma 2019, section 5); not below zero. It takes about 0.41 of what pure chance
        adds, and leaves a large error as it is.
    """
    q, y = _checked(p, truth)
    share, count, predicted, positive = _gaps(q, y, _bins(q, bins, equal), weight)
    gap = np.abs(predicted - positive)
    plainly = np.nansum(share * gap, -1)
    if not debiased:
        return plain(plainly)
    sigma = np.sqrt(ratio(positive * (1 - positive), count))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(sigma > 0, gap / sigma, np.inf)
        folded = sigma * np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2) + gap * (1 - 2 * ndtr(-z))
    expected = np.nansum(share * folded, -1)
    return plain(np.maximum(2 * plainly - expected, 0.0))


def ece_squared(
    p: ArrayLike,
    truth: ArrayLike,
    bins: int = 15,
    equal: str = "mass",
    debiased: bool = True,
    weight: ArrayLike | None = None,
) -> Figure:
    """Squared calibration error: sum over bins of (share) x (mean prediction - share of positives)^2.

    `debiased` subtracts the binomial variance share (1 - share) / (n - 1) of each bin, which makes it unbiased for the
    binned error (Bröcker 2012; Kumar+2019); it may then be below zero.
    """
    q, y = _checked(p, truth)
    share, count, predicted, positive = _gaps(q, y, _bins(q, bins, equal), weight)
    squares = (predicted - positive) ** 2
    if debiased:
        noise = ratio(positive * (1 - positive), count - 1)
        squares = np.where(count > 1, squares - noise, np.nan)
        share = np.where(count > 1, share, 0.0)
        share = ratio(share, share.sum(-1, keepdims=True))
    return plain(np.nansum(share * squares, -1))


def classwise_ece(
    p: ArrayLike,
    truth: ArrayLike,
    bins: int = 15,
    equal: str = "mass",
    debiased: bool = False,
    weight: ArrayLike | None = None,
) -> Figure:
    """Classwise ECE (Kull+2019): mean over classes of the ECE of each class against the rest.

    Parameters
    ----------
    p : (n, k) probabilities.
    truth : (n,) class codes.
    """
    q, y = _several(p, truth)
    each = [ece(q[:, j], y == j, bins, equal, debiased, weight) for j in range(q.shape[1])]
    return plain(np.mean(each, axis=0))


def top_label(p: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Highest probability (n,) and whether its class is the true one (n,): what "confidence" calibration looks at."""
    q, y = _several(p, truth)
    return q.max(1), q.argmax(1) == y


def _several(p: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    q, y = np.asarray(p, dtype=np.float64), np.asarray(truth)
    if q.ndim != 2 or y.shape != q.shape[:1] or (len(y) and not (y.min() >= 0 and y.max() < q.shape[1])):
        raise InputError("probabilities (n, k) and class codes 0 .. k-1 are needed",
                         found=f"shapes {q.shape} and {y.shape}", fix="leave out objects without a label")  # fmt: skip
    return q, y


def ece_if_calibrated(
    p: ArrayLike, bins: int = 15, equal: str = "mass", draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Estimate:
    """ECE that these probabilities would show by chance alone if they were right: mean, and the range it stays below.

    Truth is drawn from the probabilities (consistency resampling, Bröcker & Smith 2007). `low` is 0 and `high` the
    one-sided quantile at `level`: an ECE above it is not chance.
    """
    q = vector(p, "probabilities")
    number = _bins(q, bins, equal)
    rng = np.random.default_rng(seed)
    member = np.eye(number.max(initial=0) + 1)[number]
    count = member.sum(0)
    made = []
    for _ in range(draws):
        positive = np.bincount(number, weights=rng.random(len(q)) < q, minlength=len(count))
        made.append(np.abs(q @ member - positive).sum() / len(q))
    words = "ECE by chance of probabilities that are right"
    return Estimate(float(np.mean(made)), 0.0, float(np.quantile(made, level)), len(q), words, level)
