"""Classification: ROC and precision-recall, TPR0 and TPR10, purity at a prevalence, follow-up lists, Brier, log loss.

Binary figures take scores (n,) and truth (n,) of bools or 0 and 1. Figures of several classes take class codes
0 .. k-1 as truth and either codes (n,) or probabilities (n, k). All take `weight`; see the package.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from deepsky.errors import InputError
from deepsky.metrics._curve import Curve, area, binary, curve
from deepsky.metrics._weights import Figure, mean, plain, ratio, same_length, vector, weights

__all__ = [
    "Curve", "accuracy", "auroc", "average_precision", "balanced_accuracy", "brier", "completeness",
    "completeness_at_purity", "confusion", "curve", "expected_true", "f1", "fom_snpcc", "log_loss", "macro_f1",
    "macro_one_vs_rest", "one_vs_rest", "purity", "purity_at_prevalence", "tpr_at_false_positives", "tpr_at_fpr",
]  # fmt: skip


# -- ranking ------------------------------------------------------------------------------------------------
def auroc(scores: ArrayLike, truth: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half.

    Source: Hanley & McNeil 1982. NaN where one of the two classes is missing.
    """
    return area(curve(scores, truth, weight))


def average_precision(scores: ArrayLike, truth: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """Average precision: sum over thresholds of (recall step) x (precision at the lower threshold), not interpolated.

    It depends on the sample's prevalence. NaN where there is no positive.
    """
    c = curve(scores, truth, weight)
    steps = np.diff(c.true, axis=-1) * np.nan_to_num(c.purity[..., 1:])
    return plain(ratio(steps.sum(-1), c.positives))


def tpr_at_false_positives(scores: ArrayLike, truth: ArrayLike, count: int, weight: ArrayLike | None = None) -> Figure:
    """TPR0 (count 0): highest true positive rate with no false positive. TPR10 (count 10): with fewer than ten.

    Source: Metcalf+2019, section 4. Both depend on the number of negatives and are quoted only with about 50,000
    (ground) or 60,000 (space) of them; elsewhere use `tpr_at_fpr` at 2e-4 and 1.7e-4. A positive that ties with a
    forbidden negative is not found. For the interval of TPR0 use `tpr0.tpr0`: a bootstrap of it does not cover.

    Parameters
    ----------
    count : fewer than this many false positives are allowed; 0 and 1 both allow none.
    """
    if count < 0:
        raise InputError(
            "a number of false positives cannot be negative", found=count, expected="0 for TPR0, 10 for TPR10"
        )
    c = curve(scores, truth, weight)
    return _best(c, c.false < max(count, 1))


def tpr_at_fpr(scores: ArrayLike, truth: ArrayLike, fpr: float, weight: ArrayLike | None = None) -> Figure:
    """Highest true positive rate at a false positive rate of at most `fpr`, without interpolation."""
    c = curve(scores, truth, weight)
    # a rate such as 2e-4 of 50,000 is ten negatives: rounding must not lose the tenth
    return _best(c, c.false <= fpr * c.negatives[..., None] * (1 + 1e-12))


def _best(c: Curve, allowed: np.ndarray) -> Figure:
    """Rate of true positives at the lowest allowed threshold; `allowed` falls once along the thresholds."""
    at = allowed.sum(-1, keepdims=True) - 1
    return plain(ratio(np.take_along_axis(c.true, at, -1)[..., 0], c.positives))


# -- at a threshold -----------------------------------------------------------------------------------------
def completeness(
    scores: ArrayLike, truth: ArrayLike, threshold: float = 0.5, weight: ArrayLike | None = None
) -> Figure:
    """Completeness (recall, efficiency): share of the positives with score >= threshold."""
    true, _, positives, _ = _selected(scores, truth, threshold, weight)
    return plain(ratio(true, positives))


def purity(scores: ArrayLike, truth: ArrayLike, threshold: float = 0.5, weight: ArrayLike | None = None) -> Figure:
    """Purity (precision) of the objects with score >= threshold, at the sample's own prevalence; NaN where none is."""
    true, false, _, _ = _selected(scores, truth, threshold, weight)
    return plain(ratio(true, true + false))


def purity_at_prevalence(
    scores: ArrayLike, truth: ArrayLike, threshold: float, prevalence: float, weight: ArrayLike | None = None
) -> Figure:
    """Purity of a selection at a declared prevalence p: p TPR / (p TPR + (1 - p) FPR), both rates from this sample.

    NaN where nothing is selected. With no false positive it is 1, which says only that FPR < 3 / negatives (95%).
    """
    _probability(prevalence)
    true, false, positives, negatives = _selected(scores, truth, threshold, weight)
    found = prevalence * ratio(true, positives)
    return plain(ratio(found, found + (1 - prevalence) * ratio(false, negatives)))


def completeness_at_purity(
    scores: ArrayLike, truth: ArrayLike, purity: float, prevalence: float | None = None, weight: ArrayLike | None = None
) -> Figure:
    """Highest completeness of a selection with at least this purity, at a declared prevalence or the sample's own."""
    c = curve(scores, truth, weight)
    p = ratio(c.positives, c.positives + c.negatives)[..., None] if prevalence is None else _probability(prevalence)
    pure = ratio(p * c.tpr, p * c.tpr + (1 - p) * c.fpr)
    best = np.where(pure >= purity * (1 - 1e-12), c.tpr, 0.0).max(-1)
    return plain(np.where(c.positives > 0, best, np.nan))


def expected_true(
    scores: ArrayLike,
    truth: ArrayLike,
    listed: int,
    survey: int | None = None,
    prevalence: float | None = None,
    weight: ArrayLike | None = None,
) -> Figure:
    """Expected number of true objects among the `listed` highest scores of a survey with a declared prevalence.

    The threshold t solves survey x (p TPR(t) + (1 - p) FPR(t)) = listed; the answer is survey x p x TPR(t), linear
    between thresholds (ties in random order).

    Parameters
    ----------
    listed : length of the follow-up list.
    survey : objects in the survey; default: the sample's own size.
    prevalence : share of true objects in it; default: the sample's own.
    """
    c = curve(scores, truth, weight)
    size = np.asarray(c.positives + c.negatives if survey is None else survey, dtype=np.float64)
    p = ratio(c.positives, c.positives + c.negatives) if prevalence is None else np.asarray(_probability(prevalence))
    if listed < 0 or (size < listed * (1 - 1e-12)).any():
        raise InputError("a follow-up list is no longer than the survey", found=listed, expected=f"0 to {size.min():g}")
    true = np.asarray(size * p)[..., None] * c.tpr
    chosen = true + np.asarray(size * (1 - p))[..., None] * c.fpr
    flat = [np.interp(listed, x, y) for x, y in zip(np.atleast_2d(chosen), np.atleast_2d(true), strict=True)]
    return plain(np.array(flat).reshape(chosen.shape[:-1]))


def _selected(
    scores: ArrayLike, truth: ArrayLike, threshold: float, weight: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True and false positives above a threshold, positives and negatives."""
    s, y = vector(scores, "scores", infinite=True), binary(truth)
    same_length(scores=s, truth=y)
    w = weights(weight, len(s))
    above = s >= threshold
    return w @ (y & above), w @ (~y & above), w @ y, w @ ~y


def _probability(p: float) -> float:
    if not 0 < p < 1:
        raise InputError("a prevalence lies between 0 and 1", found=p, fix="0.001 for one in a thousand")
    return p


# -- decisions ----------------------------------------------------------------------------------------------
def _decided(predicted: ArrayLike, truth: ArrayLike, classes: int | None = None) -> tuple[np.ndarray, np.ndarray, int]:
    """Predicted and true codes (n,) and the number of classes. Floats (n,) are probabilities of class 1."""
    p, y = np.asarray(predicted), np.asarray(truth)
    if p.dtype.kind == "f" and np.isnan(p).any():
        raise InputError(
            "predictions are NaN", found=int(np.isnan(p).sum()), fix="leave out objects without a prediction"
        )
    if p.ndim == 2:
        classes, p = p.shape[1], p.argmax(1)
    elif p.dtype.kind == "f":
        p = p >= 0.5
    if p.dtype.kind not in "buif" or y.dtype.kind not in "buif":
        raise InputError(
            "classes are given by codes", found=f"{p.dtype} and {y.dtype}", fix="map the names to 0, 1, ..."
        )
    y, p = (a.astype(np.int64) if a.dtype.kind in "bui" or np.equal(np.mod(a, 1), 0).all() else a for a in (y, p))
    same_length(predicted=p, truth=y)
    if y.dtype != np.int64 or y.ndim != 1 or (len(y) and y.min() < 0):
        raise InputError("truth must be class codes 0, 1, ...", found=f"{y.dtype}, shape {y.shape}",
                         fix="leave out objects without a label (code -1)")  # fmt: skip
    most = max(int(y.max(initial=1)), int(p.max(initial=1))) + 1
    if classes is not None and most > max(classes, 2):
        raise InputError("a code beyond the classes", found=most - 1, expected=f"0 to {classes - 1}")
    return p, y, classes or most


def confusion(
    predicted: ArrayLike, truth: ArrayLike, classes: int | None = None, weight: ArrayLike | None = None
) -> np.ndarray:
    """Confusion matrix (..., k, k): rows are the true class, columns the predicted one.

    Parameters
    ----------
    predicted : (n,) codes, (n,) floats (probability of class 1, cut at 0.5) or (n, k) probabilities (the highest).
    classes : number of classes k; default: the highest code that occurs, plus one.
    """
    p, y, k = _decided(predicted, truth, classes)
    w = weights(weight, len(y))
    cells = y * k + p
    table = np.zeros((*w.shape[:-1], k * k))
    for cell in np.unique(cells):
        table[..., cell] = w[..., cells == cell].sum(-1)
    return table.reshape(*w.shape[:-1], k, k)


def accuracy(predicted: ArrayLike, truth: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """Accuracy: share of objects whose predicted class is the true one."""
    p, y, _ = _decided(predicted, truth)
    return mean((p == y).astype(np.float64), weight)


def balanced_accuracy(predicted: ArrayLike, truth: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """Balanced accuracy: mean over the classes that occur of the share of each that is predicted right."""
    table = confusion(predicted, truth, weight=weight)
    return _mean_defined(ratio(np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1)))


def macro_f1(predicted: ArrayLike, truth: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """Macro-F1: unweighted mean of the classes' F1, over classes that occur in truth or prediction."""
    table = confusion(predicted, truth, weight=weight)
    return _mean_defined(ratio(2 * np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1) + table.sum(-2)))


def _mean_defined(x: np.ndarray) -> Figure:
    known = np.isfinite(x)
    return plain(ratio(np.where(known, x, 0.0).sum(-1), known.sum(-1)))


def f1(scores: ArrayLike, truth: ArrayLike, threshold: float = 0.5, weight: ArrayLike | None = None) -> Figure:
    """F1 at a threshold: harmonic mean of purity and completeness, 2 TP / (2 TP + FP + FN)."""
    true, false, positives, _ = _selected(scores, truth, threshold, weight)
    return plain(ratio(2 * true, true + false + positives))


def fom_snpcc(
    scores: ArrayLike, truth: ArrayLike, threshold: float = 0.5, penalty: float = 3.0, weight: ArrayLike | None = None
) -> Figure:
    """Figure of merit of the supernova challenge (Kessler+2010): efficiency x TP / (TP + W FP), W = `penalty` = 3.

    It is not F1, and the second factor is a pseudo-purity.
    """
    true, false, positives, _ = _selected(scores, truth, threshold, weight)
    return plain(ratio(true, positives) * ratio(true, true + penalty * false))


# -- probabilities ------------------------------------------------------------------------------------------
def _probabilities(p: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) probabilities and (n, k) zeros and ones; a binary (n,) becomes two columns."""
    q = np.asarray(p, dtype=np.float64)
    if q.ndim == 1:
        q, y = np.stack([1 - q, q], axis=1), binary(truth).astype(np.int64)
    else:
        _, y, _ = _decided(q, truth)
    same_length(probabilities=q, truth=y)
    if q.size and not (q.min() >= -1e-6 and q.max() <= 1 + 1e-6 and np.abs(q.sum(1) - 1).max() < 1e-3):
        raise InputError("probabilities lie between 0 and 1 and sum to 1", found=f"{q.min():g} to {q.max():g}",
                         fix="calibrate the scores first, or use figures of ranking only")  # fmt: skip
    return q, np.eye(q.shape[1])[y]


def brier(p: ArrayLike, truth: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """Brier score (Brier 1950): mean (p - y)^2 of two classes ("MSE" of star-galaxy papers), of more the sum over them.

    A binary (n,) and its two columns (n, 2) give the same number: the sum over two columns is halved.
    """
    q, y = _probabilities(p, truth)
    return mean(((q - y) ** 2).sum(1) / (2 if q.shape[1] == 2 else 1), weight)


def log_loss(p: ArrayLike, truth: ArrayLike, weight: ArrayLike | None = None) -> Figure:
    """Log loss [nat]: mean of -ln p(true class); p is kept above 1e-15."""
    q, y = _probabilities(p, truth)
    return mean(-np.log(np.clip((q * y).sum(1), 1e-15, 1.0)), weight)


# -- one class against the rest -----------------------------------------------------------------------------
def one_vs_rest(
    metric: Callable[..., Figure], p: ArrayLike, truth: ArrayLike, weight: ArrayLike | None = None, **settings: float
) -> np.ndarray:
    """(..., k) a binary figure of each class against the rest, e.g. ``one_vs_rest(auroc, p, truth)``.

    Parameters
    ----------
    p : (n, k) scores; column j ranks class j.
    truth : (n,) class codes.
    """
    q, y = np.asarray(p, dtype=np.float64), np.asarray(truth)
    if q.ndim != 2:
        raise InputError("one column of scores for each class is needed", found=f"shape {q.shape}", expected="(n, k)")
    _, y, _ = _decided(q, y)
    return np.stack(
        [np.asarray(metric(q[:, j], y == j, weight=weight, **settings)) for j in range(q.shape[1])], axis=-1
    )


def macro_one_vs_rest(metric: Callable[..., Figure]) -> Callable[..., Figure]:
    """The unweighted mean over classes of a binary figure, as a figure of (probabilities, truth, weight)."""

    def macro(p: ArrayLike, truth: ArrayLike, weight: ArrayLike | None = None) -> Figure:
        return _mean_defined(one_vs_rest(metric, p, truth, weight))

    name = getattr(metric, "__name__", "figure")
    macro.__name__ = f"macro_{name}"
    macro.__doc__ = f"Mean over classes, each against the rest, of: {(metric.__doc__ or name).splitlines()[0]}"
    return macro
