"""Question: one thing that was asked, the answers of everybody, their figures, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepsky.catalogue import Catalogue
from deepsky.judging import caveats
from deepsky.judging.answering import Answers, constant, known, subset
from deepsky.judging.bins import Binned, in_bins
from deepsky.judging.drawing import curves
from deepsky.judging.merit import compared
from deepsky.metrics.intervals import Difference, Estimate
from deepsky.survey import Survey
from deepsky.task import Task

CELLS = 10_000_000  # resampled objects behind a band: of a large sample it is narrow anyway


@dataclass(frozen=True, eq=False)
class Question:
    """One question of a report: the answers of everybody who was asked, and their figures.

    Attributes
    ----------
    answers : by who, whose answers are judged first: "ours", "classical", "constant", or "first", "second" of a
        comparison; all of the same objects in the same order.
    figures : by who, then by figure.
    paired : the first against the second, by figure; `over_constant` the first against the constant.
    bins : by column, a row a bin.
    rows : positions in the report's survey of the objects, aligned with the answers.
    curves : what a report draws, by drawing and then by who; JSON literals (see `deepsky.judging.drawing`).
    clean : figures and numbers of objects without those that a model has seen, or whose group stands in another fold;
        empty where there are none of these, or nothing else.
    checks : what must be known of this question alone.
    alone : by column that one class alone has, the name of that class; its bins hold all objects of the other class.
    """

    name: str
    answers: Mapping[str, Answers]
    figures: Mapping[str, Mapping[str, Estimate]]
    paired: Mapping[str, Difference]
    bins: Mapping[str, Sequence[Binned]]
    rows: np.ndarray
    curves: Mapping[str, Any] = field(default_factory=dict)
    over_constant: Mapping[str, Difference] = field(default_factory=dict)
    clean: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    checks: Mapping[str, caveats.Check] = field(default_factory=dict)
    alone: Mapping[str, str] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """Whose answers are judged."""
        return next(iter(self.answers))

    @property
    def second(self) -> str | None:
        """Who stands beside: the classical baseline, or the other model."""
        return next((w for w in self.answers if w not in (self.first, "constant")), None)

    def json(self) -> dict[str, Any]:
        """Every figure as JSON literals."""

        def plain(figures: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
            return {who: {n: e.json() for n, e in f.items()} for who, f in figures.items()}

        return {
            "objects": len(self.rows),
            "names": list(self.answers[self.first].names),
            "positive": self.answers[self.first].names[1] if self.answers[self.first].kind == "binary" else None,
            "unit": self.answers[self.first].unit,
            "figures": plain(self.figures),
            "paired": {n: d.json() for n, d in self.paired.items()},
            "over constant": {n: d.json() for n, d in self.over_constant.items()},
            "without seen or shared": plain(self.clean),
            "bins": {column: [b.json() for b in rows] for column, rows in self.bins.items()},
            "bins of one class": dict(self.alone),
            "curves": dict(self.curves),
            "checks": {n: c.json() for n, c in self.checks.items()},
        }


def judge(
    name: str,
    answers: Mapping[str, Answers],
    survey: Survey,
    rows: np.ndarray,
    columns: Sequence[str],
    replicates: int,
    seen: np.ndarray | None = None,
) -> Question:
    """All that is computed of one question.

    Parameters
    ----------
    answers : by who, the first those that are judged, on the survey's objects `rows`.
    columns : to bin by.
    seen : (n,) of all objects of the survey, which of them a model was trained, stopped or calibrated on.
    """
    groups = survey.column("group")[rows] if "group" in survey.index.column_names else None
    figures, differences = compared(answers, groups, replicates=replicates)
    asked = {who: a for who, a in answers.items() if who != "constant"}
    _, *others = asked
    made = {column: in_bins(asked, survey, column, rows, groups, replicates=replicates) for column in columns}
    good = caveats.clean(survey, rows, seen)
    clean: Mapping[str, Mapping[str, Estimate]] = {}
    if good is not None:
        few = {who: subset(a, np.flatnonzero(good)) for who, a in answers.items()}
        clean, _ = compared(few, None if groups is None else groups[good], replicates=replicates)
    return Question(
        name,
        answers,
        figures,
        differences[others[0]] if others else {},
        {column: bins for column, (bins, _) in made.items()},
        rows,
        curves(asked, groups, replicates=min(replicates, 200, max(50, CELLS // len(rows)))),
        differences.get("constant", {}),
        clean,
        alone={column: name for column, (_, name) in made.items() if name},
    )


def priors(task: Task, catalogue: Catalogue) -> tuple[dict[str, float], dict[str, float]]:
    """Class shares of the training fold, and those that the answers assume."""
    assumed = {str(c): float(p) for c, p in (catalogue.provenance.get("prior") or {}).items()}
    classes, prior = getattr(task, "classes", ()), getattr(task, "prior", ())
    trained = dict(zip(classes, map(float, prior), strict=True)) if len(classes) == len(prior) else {}
    return trained or assumed, assumed


def standing(a: Answers, task: Task, everybody: Mapping[str, Catalogue], survey: Survey) -> tuple[Answers | None, str]:
    """The best answer that knows nothing of the object, and what it is; none beside two models that are compared."""
    if "first" in everybody:
        return None, ""
    prior, _ = priors(task, everybody["ours"])
    if a.kind != "values":
        if a.names[-1] not in prior:
            return None, ""
        return constant(a, prior), "class shares of the training fold"
    whole = survey.whole
    if whole is not None and "fold" in whole.index.column_names and (whole.column("fold") == "train").any():
        here = known(task, whole.fold("train"))[a.names[0]]
        if here.has.any():
            return constant(a, {}, here.truth[here.has]), "median of the training fold"
    return constant(a, {}), "median of the judged objects"
