"""Figures of merit of one question, for everybody who answered it, on the same resampled objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from deepsky.judging.answering import Answers
from deepsky.metrics import calibration, classification, distributions, regression, tpr0
from deepsky.metrics._bootstrap import TOO_FEW, centred, codes, definition_of, draw, evaluate, interval
from deepsky.metrics._curve import Curve, area
from deepsky.metrics._weights import mean, plain, quantile, ratio, weights
from deepsky.metrics.intervals import Difference, Estimate

Metric = Callable[..., Any]
Table = dict[str, tuple[Metric, tuple[np.ndarray, ...]]]
Figures = dict[str, dict[str, Estimate]]

TPR_NEGATIVES = 40_000  # TPR0 and TPR10 mean what the lens challenge meant only with about as many negatives
EXTREME = "TPR0"  # hangs on one object
LOWER = ("log loss", "Brier", "ECE", "RMSE", "MAE", "CRPS", "PIT KS")
UNJUDGED = ("coverage",)  # nearer to nominal is better, and neither more nor less
BIASED = ("ECE", "PIT KS")  # distances, which rise when objects are drawn twice
FEWEST = 10  # objects of a class, below which one of them would decide who is ahead


# -- which figures --------------------------------------------------------------------------------------------
def table(a: Answers) -> Table:
    """The figures of one question, each as a function and the arrays that it takes."""
    made = {"binary": _binary, "classes": _classes, "values": _values}[a.kind](a)
    if a.low is not None and a.high is not None:
        inside = ((a.truth >= a.low) & (a.truth <= a.high)).astype(np.float64)
        made["conformal coverage"] = (_share("Share of truths inside the conformal interval."), (inside,))
    if a.member is not None:
        inside = np.take_along_axis(a.member, a.truth[:, None], 1)[:, 0].astype(np.float64)
        made["conformal coverage"] = (_share("Share of true classes inside the conformal set."), (inside,))
    return made


@dataclass(frozen=True)
class OfCurve:
    """A figure of the curve of true and false positives, which figures of the same answers share: it is what costs."""

    of: Callable[[Curve], Any]
    words: str

    def __call__(self, scores: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None) -> Any:
        """The figure, as `deepsky.metrics.classification` defines it."""
        return self.of(classification.curve(scores, truth, weight))


def _precision(c: Curve) -> Any:
    return plain(ratio((np.diff(c.true, axis=-1) * np.nan_to_num(c.purity[..., 1:])).sum(-1), c.positives))


def _with_few(c: Curve, fewer: int) -> Any:
    return _best(c, c.false < fewer)


def _at_rate(c: Curve, fpr: float) -> Any:
    return _best(c, c.false <= fpr * c.negatives[..., None] * (1 + 1e-12))


def _best(c: Curve, allowed: np.ndarray) -> Any:
    at = allowed.sum(-1, keepdims=True) - 1
    return plain(ratio(np.take_along_axis(c.true, at, -1)[..., 0], c.positives))


_COMPLETENESS = "Completeness (recall): share of the positives with a probability of at least 0.5."
_PURITY = "Purity (precision) of the objects with a probability of at least 0.5, at this sample's prevalence."


def _binary(a: Answers) -> Table:
    s, y = a.scores, a.truth
    negatives = int((y == 0).sum())
    ranked = {
        "AUROC": OfCurve(area, definition_of(classification.auroc)),
        "average precision": OfCurve(_precision, definition_of(classification.average_precision)),
    }
    if negatives >= TPR_NEGATIVES:
        for name, count in ((EXTREME, 1), ("TPR10", 10)):
            words = f"Highest true positive rate with {'no' if count == 1 else 'fewer than ten'} false positives"
            ranked[name] = OfCurve(partial(_with_few, fewer=count), words)
    for fpr in (1.7e-4, 2e-4, 1e-3, 1e-2):
        if fpr * negatives >= 1:
            words = f"Highest true positive rate at a false positive rate of at most {fpr:g}"
            ranked[f"TPR at FPR {fpr:g}"] = OfCurve(partial(_at_rate, fpr=fpr), words)
    made: Table = {name: (metric, (s, y)) for name, metric in ranked.items()}
    return made | {
        "accuracy": (classification.accuracy, (a.decided, y)),
        "balanced accuracy": (classification.balanced_accuracy, (a.decided, y)),
        "completeness": (_fixed(classification.completeness, _COMPLETENESS, threshold=0.5), (s, y)),
        "purity": (_fixed(classification.purity, _PURITY, threshold=0.5), (s, y)),
        "F1": (_fixed(classification.f1, "F1: harmonic mean of purity and completeness.", threshold=0.5), (s, y)),
        "log loss": (classification.log_loss, (s, y)),
        "Brier": (classification.brier, (s, y)),
        "ECE": (calibration.ece, (s, y)),
    }


def _classes(a: Answers) -> Table:
    top, right = calibration.top_label(a.scores, a.truth)
    return {
        "accuracy": (classification.accuracy, (a.decided, a.truth)),
        "balanced accuracy": (classification.balanced_accuracy, (a.decided, a.truth)),
        "macro F1": (classification.macro_f1, (a.decided, a.truth)),
        "macro AUROC": (classification.macro_one_vs_rest(classification.auroc), (a.scores, a.truth)),
        "log loss": (classification.log_loss, (a.scores, a.truth)),
        "Brier": (classification.brier, (a.scores, a.truth)),
        "ECE": (calibration.ece, (top, right)),
    }


def _values(a: Answers) -> Table:
    r = a.residual
    made: Table = {
        "bias": (regression.bias, (r,)),
        "sigma_NMAD": (regression.sigma_nmad, (r,)),
        "outliers": (regression.outlier_fraction, (r,)) if a.redshift else (outliers, (r,)),
        "RMSE": (regression.rmse, (r,)),
        "MAE": (regression.mae, (r,)),
        "R2": (regression.r2, (a.scores, a.truth)),
    }
    u = a.pit
    if u is not None and a.quantiles is not None:
        each = distributions.crps_quantiles(a.levels, a.quantiles, a.truth)
        made["CRPS"] = (regression.crps, (each,))
        made["PIT KS"] = (regression.pit_ks, (u,))
        for nominal in (0.68, 0.95):
            inside = (np.abs(u - 0.5) <= nominal / 2).astype(np.float64)
            made[f"coverage {nominal:.0%}"] = (_share(f"Share of truths inside the central {nominal:.0%}."), (inside,))
    return made


def outliers(r: np.ndarray, weight: np.ndarray | None = None) -> Any:
    """Outlier fraction: share of objects with |r - median r| > 5 sigma_NMAD (6e-7 of a normal distribution)."""
    x = np.asarray(r, dtype=np.float64)
    w = weights(weight, len(x))
    centre, scale = np.asarray(quantile(x, 0.5, weight)), np.asarray(regression.sigma_nmad(x, weight))
    far = np.abs(x - centre[..., None]) > 5 * scale[..., None]
    found = ratio((far * w).sum(-1), w.sum(-1))
    return float(found) if found.ndim == 0 else found


def _fixed(function: Metric, words: str, **settings: Any) -> Metric:
    """A figure with its settings filled in, that still takes weights."""

    def metric(scores: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None) -> Any:
        return function(scores, truth, weight=weight, **settings)

    metric.__doc__ = words
    return metric


def _share(words: str) -> Metric:
    def share(inside: np.ndarray, weight: np.ndarray | None = None) -> Any:
        return mean(inside, weight)

    share.__doc__ = words
    return share


def headline(a: Answers) -> tuple[str, ...]:
    """The figures that are binned and put into words: what an astronomer quotes first."""
    return {
        "binary": ("AUROC", "completeness", "purity", "log loss"),
        "classes": ("accuracy", "balanced accuracy", "log loss"),
        "values": ("bias", "sigma_NMAD", "outliers", "RMSE", "coverage 68%"),
    }[a.kind] + ("conformal coverage",)


def better(name: str) -> str | None:
    """Which way a figure is better: "higher", "lower" or "zero"; None where it cannot say who is ahead."""
    if any(word in name for word in UNJUDGED):
        return None
    if name == "bias":
        return "zero"
    return "lower" if name in LOWER or name.startswith(("sigma", "outliers")) else "higher"


# -- on resampled objects -------------------------------------------------------------------------------------
def compared(
    answers: Mapping[str, Answers],
    groups: np.ndarray | None,
    *,
    replicates: int = 500,
    only: Sequence[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Figures, dict[str, dict[str, Difference]]]:
    """Every figure of everybody with its interval, and how the first differs from each of the others.

    All figures are computed on the same resampled samples, drawn once: what `metrics.intervals.bootstrap` and
    `paired_difference` give one by one, in a fraction of the time.

    Parameters
    ----------
    answers : by who; the same objects in the same order.
    groups : (n,) what is independent, or None.
    only : names of figures; by default all.

    Returns
    -------
    Figures by who and name, and differences of the first from each other, by who and name; no verdict is given from
    fewer than `FEWEST` objects of a class.
    """
    tables = {who: {n: v for n, v in table(a).items() if only is None or n in only} for who, a in answers.items()}
    n = len(next(iter(answers.values())))
    number, count = codes(groups, n)
    resampled: dict[str, dict[str, list[np.ndarray]]] = {w: {k: [] for k in t} for w, t in tables.items()}
    for times in draw(number, count, replicates, seed) if count > 1 and replicates > 1 else ():
        for who, own in tables.items():
            shared: Curve | None = None
            for name, (metric, arrays) in own.items():
                if isinstance(metric, OfCurve):
                    shared = shared or classification.curve(arrays[0], arrays[1], times)
                    resampled[who][name].append(np.asarray(metric.of(shared), dtype=np.float64))
                else:
                    resampled[who][name].append(evaluate(metric, arrays, times))
    many = None if groups is None else count
    found: Figures = {}
    drawn: dict[str, dict[str, np.ndarray]] = {}
    for who, own in tables.items():
        drawn[who] = {k: np.concatenate(v) if v else np.zeros(0) for k, v in resampled[who].items()}
        found[who] = {k: _estimate(k, *own[k], drawn[who][k], n, level, many) for k in own}
    first, *others = tables
    apart = {who: _differences(found, drawn, first, who, level) for who in others}
    if EXTREME in tables[first] and replicates > 1:  # resampling never draws a higher negative than the highest
        options: dict[str, Any] = {"replicates": replicates, "level": level, "seed": seed}
        for who, a in answers.items():
            found[who][EXTREME] = tpr0.tpr0(a.scores, a.truth, groups, **options)
        ours = answers[first]
        for who in others:
            apart[who][EXTREME] = tpr0.tpr0_difference(ours.scores, answers[who].scores, ours.truth, groups, **options)
    return found, {who: {k: _judged(k, d, answers[first]) for k, d in each.items()} for who, each in apart.items()}


def _judged(name: str, difference: Difference, a: Answers) -> Difference:
    """Without its verdict where too few objects stand behind it."""
    if a.kind == "values":
        counts = {"": len(a)}
    else:
        counts = {f" of {c}": int((a.truth == i).sum()) for i, c in enumerate(a.names)}
        if name == "completeness":
            counts = {f" of {a.names[1]}": counts[f" of {a.names[1]}"]}
        elif a.kind == "classes" and "balanced" not in name and "macro" not in name:
            counts = {"": len(a)}  # a mean over objects, of which those of a rare class are few anyway
    of, least = min(counts.items(), key=lambda c: c[1])
    if least >= FEWEST:
        return difference
    return replace(difference, verdict=f"{TOO_FEW}: {least} object{'' if least == 1 else 's'}{of}")


def figures(a: Answers, groups: np.ndarray | None = None, replicates: int = 500) -> dict[str, Estimate]:
    """The figures of merit of one question, each with its interval."""
    return compared({"": a}, groups, replicates=replicates)[0][""]


def _estimate(
    name: str,
    metric: Metric,
    arrays: tuple[np.ndarray, ...],
    values: np.ndarray,
    n: int,
    level: float,
    groups: int | None,
) -> Estimate:
    value = float(metric(*arrays))
    low, high = spread(centred(values, value, 0.0, 1.0) if name in BIASED else values, level)
    words = metric.words if isinstance(metric, OfCurve) else definition_of(metric)
    return Estimate(value, low, high, n, words, level, groups)


def spread(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of replicates; NaN where all are equal, since then resampling says nothing."""
    finite = values[np.isfinite(values)]
    if not len(finite) or np.ptp(finite) <= 1e-12 * np.abs(finite).max():
        return float("nan"), float("nan")
    return interval(values, level)


def _differences(
    found: Figures, drawn: Mapping[str, Mapping[str, np.ndarray]], first: str, second: str, level: float
) -> dict[str, Difference]:
    made = {}
    for name, one in found[first].items():
        way = better(name)
        if way is None or name not in found[second]:
            continue
        two = found[second][name]
        size: Callable[[Any], Any] = np.abs if way == "zero" else np.asarray
        apart = size(drawn[first][name]) - size(drawn[second][name])
        if name in BIASED:
            apart = centred(apart, one.value - two.value)
        low, high = interval(apart, level) if len(apart) else (float("nan"), float("nan"))
        verdict = "equal"
        if low > 0 or high < 0:
            verdict = "ahead" if (low > 0) == (way == "higher") else "behind"
        words = f"difference of: {one.definition}"
        value = float(size(one.value) - size(two.value))
        made[name] = Difference(
            Estimate(value, low, high, one.n, words, level, one.groups), verdict, one.value, two.value
        )
    return made
