"""The numbers behind the drawings of a report, as JSON literals: curves, tables at declared prevalences, histograms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from deepsky.judging.answering import Answers
from deepsky.judging.merit import spread
from deepsky.metrics import calibration, classification, regression
from deepsky.metrics._bootstrap import codes, draw, interval
from deepsky.metrics._curve import Curve
from deepsky.metrics._weights import ratio
from deepsky.metrics.intervals import Estimate, bootstrap, proportion

PREVALENCES = (1e-1, 1e-2, 1e-3, 1e-4)
SURVEY = 100_000  # objects of the survey that a follow-up list is drawn from
LISTS = (10, 30, 100, 300, 1000, 3000)
RESOLVED = 3  # false positives below which a false positive rate rests on next to nothing
POINTS = 300
Plain = dict[str, Any]


def curves(answers: Mapping[str, Answers], groups: np.ndarray | None, *, replicates: int = 200) -> Plain:
    """What a report draws of one question, by drawing and then by who answered."""
    first = next(iter(answers.values()))
    if first.kind == "binary":
        both = {w: ranked(a, groups, replicates) for w, a in answers.items()}
        made = {n: {w: r[n] for w, r in both.items()} for n in ("roc", "prevalence", "follow-up")}
        made |= {
            "precision-recall": {w: precision_recall(a) for w, a in answers.items()},
            "threshold": {w: at_thresholds(a) for w, a in answers.items()},
            "reliability": {w: reliability(a.scores, a.truth) for w, a in answers.items()},
            "confusion": {w: confusion(a) for w, a in answers.items()},
        }
    elif first.kind == "classes":
        made = {
            "by class": {w: by_class(a, groups, replicates) for w, a in answers.items()},
            "reliability": {w: reliability(*calibration.top_label(a.scores, a.truth)) for w, a in answers.items()},
            "confusion": {w: confusion(a) for w, a in answers.items()},
        }
    else:
        made = {"residual": {w: running(a.truth, a.residual) for w, a in answers.items()}}
        drawn = {w: a for w, a in answers.items() if a.pit is not None}
        if drawn:
            made["pit"] = {w: pit(a) for w, a in drawn.items()}
            made["coverage"] = {w: coverage(a) for w, a in drawn.items()}
        bound = {w: a for w, a in answers.items() if a.low is not None and len(a) >= 50}
        if bound:
            made["conformal"] = {w: conformal_intervals(a) for w, a in bound.items()}
    sets = {w: a for w, a in answers.items() if a.member is not None}
    if sets:
        made["conformal sets"] = {w: conformal_sets(a) for w, a in sets.items()}
    return made


def _thin(*arrays: np.ndarray, points: int = POINTS) -> list[list[float]]:
    """Evenly chosen members of long arrays; the ends stay."""
    n = len(arrays[0])
    at = np.unique(np.linspace(0, n - 1, min(n, points)).round().astype(np.int64))
    return [[float(v) for v in a[at]] for a in arrays]


# -- two classes ------------------------------------------------------------------------------------------------
def ranked(a: Answers, groups: np.ndarray | None, replicates: int) -> Plain:
    """ROC with its band, purity at declared prevalences and true objects in follow-up lists, on one set of resamples.

    The ROC stands on a grid that serves a linear and a logarithmic axis. A follow-up list holds the N highest scores of
    a survey of `SURVEY` objects. `resolved` says where at least `RESOLVED` false positives of the sample stand behind
    the false positive rate; with fewer, purity and list rest on next to nothing.
    """
    c = classification.curve(a.scores, a.truth)
    if not (c.positives > 0 and c.negatives > 0):
        return {"roc": {}, "prevalence": {}, "follow-up": {}}
    grid = np.unique(np.concatenate([[0.0], np.geomspace(1 / c.negatives, 1, 120), np.linspace(0, 1, 101)]))
    number, count = codes(groups, len(a))
    rates, drawn = [np.zeros((0, len(grid)))], [np.zeros((0, len(_ASKED) + len(_LISTED)))]
    for times in draw(number, count, replicates, 0) if count > 1 else ():
        r = classification.curve(a.scores, a.truth, times)
        rates.append(np.stack([_highest(f, t, grid) for f, t in zip(r.fpr, r.tpr, strict=True)]))
        drawn.append(_asked(r))
    band = [interval(column, 0.95) for column in np.concatenate(rates).T]
    many = None if groups is None else count
    values = zip(_asked(c), np.concatenate(drawn).T, strict=True)
    found = [Estimate(float(v), *spread(r), len(a), "", 0.95, many) for v, r in values]
    return {
        "roc": {
            "fpr": grid.tolist(),
            "tpr": _highest(c.fpr, c.tpr, grid).tolist(),
            "low": [b[0] for b in band],
            "high": [b[1] for b in band],
        },
        "prevalence": _at_prevalences(c, found[: len(_ASKED)]),
        "follow-up": _follow_up(c, found[len(_ASKED) :]),
    }


_ASKED = tuple((p, share) for p in PREVALENCES for share in (0.5, 0.8))
_LISTED = tuple((p, n) for p in PREVALENCES for n in LISTS)


def _highest(fpr: np.ndarray, tpr: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Highest tpr with a false positive rate of at most each grid point: the curve as a step."""
    if not np.isfinite(fpr[-1] + tpr[-1]):  # a resample without positives or negatives
        return np.full(len(grid), np.nan)
    found: np.ndarray = tpr[np.searchsorted(fpr, grid * (1 + 1e-12), side="right") - 1]
    return found


def _asked(c: Curve) -> np.ndarray:
    """(..., figures) purities at `_ASKED`, then true objects in `_LISTED`."""
    made = [_purity(c, _reaching(c, share), p) for p, share in _ASKED]
    made += [_true(c, p, np.array([n]))[..., 0] for p, n in _LISTED]
    return np.stack(made, axis=-1)


def _reaching(c: Curve, completeness: float) -> np.ndarray:
    """(..., 1) index of the highest threshold with at least this completeness."""
    reached = c.true >= completeness * c.positives[..., None] * (1 - 1e-12)
    found: np.ndarray = np.argmax(reached, axis=-1)[..., None]
    return found


def _purity(c: Curve, at: np.ndarray, prevalence: float) -> np.ndarray:
    """(...) purity at a declared prevalence of what stands above threshold `at` (..., 1)."""
    found = prevalence * ratio(np.take_along_axis(c.true, at, -1)[..., 0], c.positives)
    wrong = (1 - prevalence) * ratio(np.take_along_axis(c.false, at, -1)[..., 0], c.negatives)
    return ratio(found, found + wrong)


def _true(c: Curve, prevalence: float, listed: np.ndarray) -> np.ndarray:
    """(..., lists) expected true objects among the highest scores; see `metrics.classification.expected_true`."""
    true = SURVEY * prevalence * c.tpr
    chosen = true + SURVEY * (1 - prevalence) * c.fpr
    rows = [np.interp(listed, x, y) for x, y in zip(np.atleast_2d(chosen), np.atleast_2d(true), strict=True)]
    found: np.ndarray = np.array(rows).reshape(*chosen.shape[:-1], len(listed))
    return found


def _at_prevalences(c: Curve, found: list[Estimate]) -> Plain:
    grid = np.linspace(0.02, 1, 50)
    at = [_reaching(c, g) for g in grid]
    behind = np.array([float(c.false[i[0]]) for i in at])
    drawn = [
        {"prevalence": p, "purity": [float(_purity(c, i, p)) for i in at], "resolved": (behind >= RESOLVED).tolist()}
        for p in PREVALENCES
    ]
    listed = []
    for (p, share), figure in zip(_ASKED, found, strict=True):
        words = f"Purity at a prevalence of {p:g} of the smallest selection that is {share:.0%} complete."
        few = int(c.false[_reaching(c, share)[0]])
        made = replace(figure, definition=words).json()
        listed.append({"prevalence": p, "completeness": share, "purity": made, "false positives": few})
    return {"completeness": grid.tolist(), "curves": drawn, "figures": listed}


def _follow_up(c: Curve, found: list[Estimate]) -> Plain:
    grid = np.unique(np.geomspace(1, SURVEY / 10, 60).round())

    def behind(listed: Any, true: Any, p: float) -> Any:  # false positives of the sample in such a list
        return (listed - true) / (SURVEY * (1 - p)) * float(c.negatives)

    drawn = []
    for p in PREVALENCES:
        true = _true(c, p, grid)
        drawn.append({"prevalence": p, "true": true.tolist(), "resolved": (behind(grid, true, p) >= RESOLVED).tolist()})
    listed = []
    for (p, n), figure in zip(_LISTED, found, strict=True):
        words = f"Expected true objects among the {n} highest scores of {SURVEY:,} objects at a prevalence of {p:g}."
        few = round(behind(n, figure.value, p), 2)
        made = replace(figure, definition=words).json()
        listed.append({"prevalence": p, "listed": n, "true": made, "false positives": few})
    return {"survey": SURVEY, "listed": grid.tolist(), "curves": drawn, "figures": listed}


def precision_recall(a: Answers) -> Plain:
    """Purity against completeness at the sample's own prevalence."""
    c = classification.curve(a.scores, a.truth)
    recall, purity = _thin(c.tpr[1:], c.purity[1:])
    return {"completeness": recall, "purity": purity, "prevalence": float(np.mean(a.truth == 1))}


def at_thresholds(a: Answers) -> Plain:
    """Completeness and purity with their binomial intervals on a grid of thresholds."""
    grid = np.unique(np.concatenate([np.linspace(0.01, 0.99, 50), [0.001, 0.999]]))
    made: Plain = {"threshold": grid.tolist(), "completeness": [], "purity": [], "selected": []}
    positives = int((a.truth == 1).sum())
    for t in grid:
        above = a.scores >= t
        true, selected = int((above & (a.truth == 1)).sum()), int(above.sum())
        made["selected"].append(selected)
        for name, share in (
            ("completeness", proportion(true, positives, "completeness")),
            ("purity", proportion(true, selected, "purity")),
        ):
            made[name].append([share.value, share.low, share.high])
    return made


# -- classes --------------------------------------------------------------------------------------------------
def confusion(a: Answers) -> Plain:
    """Counts; rows are the true class, columns the likeliest one."""
    names = a.names
    counts = classification.confusion(a.decided, a.truth, len(names))
    return {"names": list(names), "counts": counts.astype(int).tolist()}


def by_class(a: Answers, groups: np.ndarray | None, replicates: int) -> Plain:
    """Of each class against the rest: ROC, AUROC, completeness and purity of the likeliest class."""
    made: Plain = {"names": list(a.names), "n": [], "auroc": [], "completeness": [], "purity": [], "roc": []}
    for j in range(len(a.names)):
        yes, said = a.truth == j, a.decided == j
        made["n"].append(int(yes.sum()))
        figure = bootstrap(
            classification.auroc, a.scores[:, j], yes.astype(np.int64), groups=groups, replicates=min(replicates, 100)
        )
        made["auroc"].append(figure.json())
        for name, whole in (("completeness", yes), ("purity", said)):
            made[name].append(proportion(int((yes & said).sum()), int(whole.sum()), name).json())
        c = classification.curve(a.scores[:, j], yes)
        fpr, tpr = _thin(c.fpr, c.tpr, points=120) if 0 < yes.sum() < len(yes) else ([], [])
        made["roc"].append({"fpr": fpr, "tpr": tpr})
    return made


def reliability(p: np.ndarray, truth: np.ndarray) -> Plain:
    """Reliability curve in bins of equal mass with Wilson intervals, the histogram of p, and ECE beside its chance."""
    bins = 10 if len(p) >= 500 else 5
    found = calibration.reliability(p, truth, bins)
    edges = np.linspace(0, 1, 21)
    chance = calibration.ece_if_calibrated(p, draws=200) if len(p) else None
    return {
        "mean": [b.mean for b in found],
        "share": [[b.share.value, b.share.low, b.share.high] for b in found],
        "n": [b.share.n for b in found],
        "edges": edges.tolist(),
        "counts": np.histogram(p, edges)[0].tolist(),
        "ece": calibration.ece(p, truth),
        "ece debiased": calibration.ece(p, truth, debiased=True),
        "ece by chance": None if chance is None else chance.high,
    }


def conformal_sets(a: Answers) -> Plain:
    """How many classes the conformal sets hold, and how often the true one, by true class."""
    assert a.member is not None
    size = a.member.sum(1)
    inside = np.take_along_axis(a.member, a.truth[:, None], 1)[:, 0]
    share = [
        proportion(int(inside[a.truth == j].sum()), int((a.truth == j).sum()), f"coverage of {n}").json()
        for j, n in enumerate(a.names)
    ]
    return {
        "level": a.level,
        "names": list(a.names),
        "sizes": np.bincount(size, minlength=len(a.names) + 1).tolist(),
        "coverage": share,
        "whole": proportion(int(inside.sum()), len(a), "coverage of all").json(),
    }


# -- values -----------------------------------------------------------------------------------------------------
def running(x: np.ndarray, y: np.ndarray, most: int = 20) -> Plain:
    """16, 50 and 84% of y in bins of x of equal numbers, at least 25 objects each."""
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    order = np.argsort(x, kind="stable")
    parts = [p for p in np.array_split(order, max(1, min(most, len(x) // 25))) if len(p)]
    return {
        "x": [float(np.median(x[p])) for p in parts],
        "n": [len(p) for p in parts],
        "quantiles": [np.quantile(y[p], (0.16, 0.5, 0.84)).tolist() for p in parts],
    }


def pit(a: Answers) -> Plain:
    """Histogram of the PIT, and the range in which each count lies in 95% of samples if it is uniform."""
    from scipy.stats import binom

    assert a.pit is not None
    bins = 20 if len(a) >= 400 else 10
    counts, edges = np.histogram(a.pit, np.linspace(0, 1, bins + 1))
    ends = [float(binom.ppf(q, len(a), 1 / bins)) for q in (0.025, 0.975)]
    return {"edges": edges.tolist(), "counts": counts.tolist(), "low": ends[0], "high": ends[1]}


def coverage(a: Answers) -> Plain:
    """Share of truths inside the central intervals, against what it should be, with Wilson intervals."""
    assert a.pit is not None
    nominal = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68, 0.8, 0.9, 0.95, 0.99)
    found = regression.coverage_of_pit(a.pit, nominal)
    return {
        "nominal": list(nominal),
        "share": [[c.share.value, c.share.low, c.share.high] for c in found],
        "mark": [c.mark for c in found],
    }


def conformal_intervals(a: Answers) -> Plain:
    """How often the conformal interval holds the truth, in bins of the predicted value, with Wilson intervals.

    Not in bins of the truth: an interval cannot know it, so that its coverage must fall at the ends.
    """
    assert a.low is not None and a.high is not None
    inside = (a.truth >= a.low) & (a.truth <= a.high)
    parts = np.array_split(np.argsort(a.scores, kind="stable"), max(1, min(10, len(a) // 50)))
    share = [proportion(int(inside[p].sum()), len(p), "coverage") for p in parts]
    return {
        "level": a.level,
        "x": [float(np.median(a.scores[p])) for p in parts],
        "n": [len(p) for p in parts],
        "share": [[s.value, s.low, s.high] for s in share],
    }
