"""Figures in bins of a column: of everybody, with the paired change, and of columns that only one class has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepsky.judging.answering import Answers, subset
from deepsky.judging.merit import compared, headline
from deepsky.metrics.binning import Bin, quantile_bins, value_bins
from deepsky.metrics.intervals import Difference, Estimate
from deepsky.survey import Survey

SEEN = 10  # objects of a class that must agree before their one value means that the class has none
CELLS = 10_000_000  # resampled objects behind an interval: of a large sample it is narrow anyway
RATES = (1e-2, 1e-3)  # false positive rates that a bin is judged at, where 100 negatives or more are allowed none


@dataclass(frozen=True, eq=False)
class Binned:
    """Figures on some of the objects.

    Attributes
    ----------
    label, low, high : which; NaN ends for a bin of words.
    n : how many objects.
    figures : by who and name; `paired` of the first against the second, by name.
    miss : names of coverages that are off by more than three binomial sigma.
    against : objects of the other class that stand in this bin too, since none of them has a value to bin by.
    """

    label: str
    low: float
    high: float
    n: int
    figures: Mapping[str, Mapping[str, Estimate]]
    paired: Mapping[str, Difference] = field(default_factory=dict)
    miss: tuple[str, ...] = ()
    against: int = 0

    def json(self) -> dict[str, Any]:
        """JSON literals."""
        return {
            "bin": self.label,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "against": self.against,
            "figures": {w: {k: e.json() for k, e in f.items()} for w, f in self.figures.items()},
            "paired": {k: d.json() for k, d in self.paired.items()},
            "coverage off": list(self.miss),
        }


def cut(survey: Survey, column: str, rows: np.ndarray) -> tuple[Bin, ...]:
    """Bins of the survey's objects `rows`, which they number from 0: by value for words and few integers."""
    values = survey.column(column)[rows]
    made = survey.schema.columns.get(column)
    if values.dtype.kind not in "iuf" or (values.dtype.kind in "iu" and len(np.unique(values)) <= 10):
        return value_bins(values, name=column)
    return quantile_bins(values, name=column, unit="" if made is None else made.unit)


def owner(a: Answers, values: np.ndarray) -> int | None:
    """Which of two classes alone has a column: the other has no value at all, or one and the same for every object.

    Einstein radii of objects that are no lenses are missing, or zero. In bins of such a column no figure that needs
    both classes is defined. None where both classes have the column, or neither, and for other kinds of answers.
    """
    if a.kind != "binary" or len(np.unique(a.truth)) < 2:
        return None
    has = [_has(values[a.truth == code]) for code in (0, 1)]
    return int(has[1]) if has[0] != has[1] else None


def _has(values: np.ndarray) -> bool:
    """Whether the objects have values that differ; a few that agree are given the benefit of the doubt."""
    if values.dtype.kind in "iufb":
        numbers = values.astype(np.float64)
        known = numbers[~np.isnan(numbers)]
    else:
        known = np.array([str(v) for v in values if not (v is None or v != v or v == "")], dtype=str)
    return len(known) > 0 and (len(np.unique(known)) > 1 or len(values) < SEEN)


def in_bins(
    answers: Mapping[str, Answers],
    survey: Survey,
    column: str,
    rows: np.ndarray,
    groups: np.ndarray | None,
    *,
    replicates: int = 500,
) -> tuple[tuple[Binned, ...], str]:
    """The headline figures in bins of a column, and the class that alone has the column ("" for both).

    Objects of a class that alone has it are binned, and held in every bin against all objects of the other class.
    """
    first = next(iter(answers.values()))
    own = owner(first, survey.column(column)[rows])
    if own is None:
        return binned(answers, cut(survey, column, rows), groups, replicates=replicates), ""
    mine, others = np.flatnonzero(first.truth == own), np.flatnonzero(first.truth != own)
    made = [Bin(b.label, b.low, b.high, mine[b.rows]) for b in cut(survey, column, rows[mine])]
    return against(answers, made, others, groups, replicates=replicates), first.names[own]


def binned(
    answers: Mapping[str, Answers], bins: Sequence[Bin], groups: np.ndarray | None, *, replicates: int = 500
) -> tuple[Binned, ...]:
    """The headline figures of everybody in every bin; `bins` hold rows of the answers."""
    made = []
    for b in bins:
        here = {who: subset(a, b.rows) for who, a in answers.items()}
        first = next(iter(here.values()))
        own = None if groups is None else groups[b.rows]
        found, paired = compared(here, own, replicates=replicates, only=headline(first))
        missed = _missed(first, found[next(iter(here))])
        made.append(Binned(b.label, b.low, b.high, b.n, found, _beside(paired), missed))
    return tuple(made)


def against(
    answers: Mapping[str, Answers],
    bins: Sequence[Bin],
    others: np.ndarray,
    groups: np.ndarray | None,
    *,
    replicates: int = 500,
) -> tuple[Binned, ...]:
    """Figures of the objects of one class in every bin, held against all objects `others` of the other class.

    Ranking stands on both: AUROC, and the completeness at fixed false positive rates. Completeness and conformal
    coverage stand on the bin's own objects. Purity and log loss are left out: they hang on how many objects of the
    other class a bin holds, and none of them belongs to any.
    """
    ranking = ("AUROC", *(f"TPR at FPR {r:g}" for r in RATES))
    positive = next(iter(answers.values())).truth[others[0]] == 0  # of what is binned
    alone = ("completeness", "conformal coverage") if positive else ("conformal coverage",)
    made = []
    for b in bins:
        rows = np.concatenate([b.rows, others])
        few = min(replicates, max(100, CELLS // len(rows)))
        both, paired = _of(answers, rows, groups, ranking, few)
        own, apart = _of(answers, b.rows, groups, alone, replicates)
        first = next(iter(answers))
        found = {who: {**both[who], **own[who]} for who in answers}
        beside = {**_beside(paired), **_beside(apart)}
        missed = _missed(subset(answers[first], b.rows), own[first])
        made.append(Binned(b.label, b.low, b.high, b.n, found, beside, missed, len(others)))
    return tuple(made)


def _of(
    answers: Mapping[str, Answers], rows: np.ndarray, groups: np.ndarray | None, only: Sequence[str], replicates: int
) -> tuple[dict[str, dict[str, Estimate]], dict[str, dict[str, Difference]]]:
    here = {who: subset(a, rows) for who, a in answers.items()}
    return compared(here, None if groups is None else groups[rows], replicates=replicates, only=only)


def _beside(paired: Mapping[str, dict[str, Difference]]) -> dict[str, Difference]:
    return paired.get("classical", next(iter(paired.values()), {}))


def _missed(a: Answers, found: Mapping[str, Estimate]) -> tuple[str, ...]:
    nominal = {"coverage 68%": 0.68, "coverage 95%": 0.95} | (
        {} if a.level is None else {"conformal coverage": a.level}
    )
    return tuple(
        name
        for name, share in nominal.items()
        if name in found and abs(found[name].value - share) > 3 * np.sqrt(share * (1 - share) / len(a))
    )
