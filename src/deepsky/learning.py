"""Learning curve: how much better the answers get with more labels, ours beside the classical baseline's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from deepsky.crossval import begin, trained
from deepsky.errors import InputError
from deepsky.evaluation import LearningCurve, Report, evaluate
from deepsky.metrics.intervals import Estimate
from deepsky.random import uniform
from deepsky.survey import Survey
from deepsky.task import Task

FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def learning_curve(
    task: Task,
    survey: Survey,
    sizes: Sequence[float] = FRACTIONS,
    *,
    to: str | Path | None = None,
    seed: int = 0,
    replicates: int = 300,
    **arguments: Any,
) -> LearningCurve:
    """Train on growing parts of the training fold and judge each model on the whole test fold.

    The parts are nested and cut by group; validation, calibration and test fold stay whole. The classical baseline is
    fitted on the same part.

    Parameters
    ----------
    sizes : fractions of the training fold up to 1, or numbers of its objects.
    to : folder of the models (``n-250/`` ...); those that are there already are not trained again, and other arguments
        need another folder.
    seed : of the parts and of training.
    arguments : of `deepsky.train`; `epochs` gives each size as many passes, `steps` as many updates.

    Returns
    -------
    (training objects, figures of ours, figures of the classical baseline) by size, for
    ``evaluate(..., learning_curve=...)``. With several questions a figure's name begins with the question's.

    Raises
    ------
    InputError : no training fold, sizes that it does not hold, or a folder with another learning curve.
    """
    whole = survey.whole or survey
    if to is not None:
        Path(to).mkdir(parents=True, exist_ok=True)
        begin(Path(to), "curve", task, whole, {"seed": seed, **arguments})
    points = []
    for part in parts(task, whole, sizes, seed):
        n = int((part.column("fold") == "train").sum())
        place = None if to is None else Path(to) / f"n-{n}"
        model = trained(task, part, place, seed, arguments)
        # without its path: the fold is opened once for the curve and not once a size
        report = evaluate(replace(model, path=None), part.fold("test"), replicates=replicates)
        points.append((n, _figures(report, "ours"), _figures(report, "classical")))
    return tuple(points)


def parts(task: Task, survey: Survey, sizes: Sequence[float], seed: int) -> list[Survey]:
    """The survey with ever larger, nested parts of its training fold, the rest of which is called "unused".

    Objects without a label count for nothing and are left out; groups are taken whole, in an order that depends on
    `seed` alone.

    Raises
    ------
    InputError : no training fold, or sizes that it does not hold.
    """
    if "fold" not in survey.index.column_names:
        raise InputError("this survey has no folds", file=survey.path, fix=f"deepsky split {survey.path}")
    fold = survey.column("fold").astype(object)
    has = task.bind(survey).labelled(survey.gather(slice(None), truth=task.targets, observations=())).numpy()
    train_rows = np.flatnonzero((fold == "train") & has)
    most = len(train_rows)
    wanted = [round(s * most) if 0 < s <= 1 and not isinstance(s, int) else int(s) for s in sizes]
    if not wanted or min(wanted) < 1 or max(wanted) > most:
        raise InputError("no such part of the training fold", file=survey.path, found=", ".join(map(str, sizes)),
                         expected=f"fractions up to 1.0, or 1 to {most} objects")  # fmt: skip
    group = survey.column("group" if "group" in survey.index.column_names else "key")[train_rows]
    names, number = np.unique(group, return_inverse=True)
    keys = names if names.dtype.kind in "iu" else np.arange(len(names))
    order = np.argsort(uniform(seed, 0, keys.astype(np.uint64), stream="learning curve"), kind="stable")
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    at = rank[number]
    reached = np.cumsum(np.bincount(at, minlength=len(names)))  # objects in the first k + 1 groups
    made = []
    for size in sorted(set(wanted)):
        last = int(np.searchsorted(reached, size))
        here = fold.copy()
        here[fold == "train"] = "unused"
        here[train_rows[at <= last]] = "train"
        column = pa.array(here.tolist(), pa.string())
        made.append(replace(survey.with_columns({"fold": column}, {}), selection="", whole=None))
    return made


def _figures(report: Report, who: str) -> Mapping[str, Estimate]:
    several = len(report.questions) > 1
    return {
        f"{name}: {figure}" if several else figure: e
        for name, q in report.questions.items()
        for figure, e in q.figures.get(who, {}).items()
    }
