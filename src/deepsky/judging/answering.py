"""Answers: what a catalogue says and what is true, of the same objects in the same order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from deepsky.catalogue import Catalogue
from deepsky.errors import InputError
from deepsky.metrics import distributions
from deepsky.survey import Survey
from deepsky.task import Task
from deepsky.tasks._densities import LEVELS

Kind = Literal["binary", "classes", "values"]


@dataclass(frozen=True, eq=False)
class Answers:
    """What somebody says of some objects, and what is true of them.

    Attributes
    ----------
    kind : "binary" (probability of the positive class), "classes" (probabilities (n, k)) or "values" (medians (n,)).
    scores, truth : what the figures are computed from; truth is a code of `names` for classes.
    names : of the classes, the positive one last for two; or of the one number.
    quantiles, levels : (n, levels) of a posterior, and their levels; for values only.
    low, high : (n,) the conformal interval, where there is one; `member` (n, k) the conformal sets.
    level : of the conformal intervals or sets; None where it is not known.
    redshift : the number is a redshift, and residuals are (z_phot - z_spec) / (1 + z_spec).
    """

    kind: Kind
    scores: np.ndarray
    truth: np.ndarray
    names: tuple[str, ...]
    unit: str = ""
    quantiles: np.ndarray | None = None
    levels: tuple[float, ...] = ()
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    member: np.ndarray | None = None
    level: float | None = None
    redshift: bool = False

    def __len__(self) -> int:
        return len(self.truth)

    @cached_property
    def pit(self) -> np.ndarray | None:
        """(n,) probability integral transform, where there is a posterior."""
        if self.quantiles is None:
            return None
        return distributions.pit_quantiles(self.levels, self.quantiles, self.truth)

    @cached_property
    def residual(self) -> np.ndarray:
        """(n,) prediction - truth, for a redshift over (1 + truth); values only."""
        r: np.ndarray = self.scores - self.truth
        return r / (1 + self.truth) if self.redshift else r

    @cached_property
    def decided(self) -> np.ndarray:
        """(n,) code of the likeliest class."""
        found: np.ndarray = (self.scores >= 0.5).astype(np.int64) if self.kind == "binary" else self.scores.argmax(1)
        return found

    @cached_property
    def of_truth(self) -> np.ndarray:
        """(n,) probability that was given to the true class."""
        if self.kind == "binary":
            return np.where(self.truth == 1, self.scores, 1 - self.scores)
        found: np.ndarray = np.take_along_axis(self.scores, self.truth[:, None], 1)[:, 0]
        return found


@dataclass(frozen=True, eq=False)
class Known:
    """One question, and what is true of every object of a survey.

    Attributes
    ----------
    truth : (n,) codes of `names`, or numbers.
    has : (n,) bool, whether there is a truth to judge by: not for a missing label, nor for a mere limit.
    columns : of the catalogue that answer it: one a class in the order of `names`, or the one number.
    limited : (n,) bool, objects of which only a limit is known.
    strange : labels that the task does not know, with their numbers of objects.
    """

    kind: Kind
    truth: np.ndarray
    has: np.ndarray
    names: tuple[str, ...]
    columns: tuple[str, ...]
    unit: str = ""
    limited: np.ndarray = field(default_factory=lambda: np.zeros(1, bool))
    strange: Mapping[str, int] | None = None

    @property
    def censored(self) -> int:
        """How many objects have only a limit."""
        return int(self.limited.sum())


def known(task: Task, survey: Survey, positive: str = "") -> dict[str, Known]:
    """The questions of a task and what the survey knows of them: one for classes, one a number for values.

    Several columns of zeros and ones are a binary question each; several columns of fractions are values.

    Parameters
    ----------
    positive : which of two classes is looked for; "" lets their names and their shares say, see `looked_for`.

    Raises
    ------
    InputError : the survey lacks a target, the task answers neither classes nor numbers, or no such class.
    """
    truths = {t: survey.truth(t) for t in task.targets}
    y = task.truth(truths)
    classes: tuple[str, ...] = getattr(task, "classes", ())
    names: tuple[str, ...] = getattr(task, "names", ())
    if positive and not (len(classes) == 2 and y.ndim == 1):
        raise InputError("only one of two classes can be the positive one", found=positive,
                         expected="a question with two classes", fix="leave positive out")  # fmt: skip
    if classes and y.ndim == 1:
        return {task.targets[0]: _codes(task, survey, y, classes, positive)}
    if classes:
        return {c: _share(y[:, i], c) for i, c in enumerate(classes)}
    if not names:
        raise InputError(
            "there is nothing to judge: the task answers neither classes nor numbers",
            found=task.name,
            expected="classify or regress",
        )
    units: tuple[str, ...] = getattr(task, "units", ("",) * len(names))
    limit = _limits(task, survey, y.shape)
    finite = np.isfinite(y)
    return {
        name: Known("values", y[:, i], finite[:, i] & (limit[:, i] == 0), (name,), (name,), units[i],
                    finite[:, i] & (limit[:, i] != 0))
        for i, name in enumerate(names)
    }  # fmt: skip


def _codes(task: Task, survey: Survey, y: np.ndarray, classes: tuple[str, ...], positive: str) -> Known:
    target = task.targets[0]
    words = np.array(["" if v is None or v != v else str(v) for v in survey.column(target)], dtype=object)
    lost, count = np.unique(words[(y < 0) & (words != "")].astype(str), return_counts=True)
    strange = {str(n): int(c) for n, c in zip(lost, count, strict=True)}
    if len(classes) > 2:
        return Known("classes", y, y >= 0, classes, tuple(f"p_{c}" for c in classes), strange=strange)
    at = looked_for(classes, getattr(task, "prior", ()), positive)
    order = (classes[1 - at], classes[at])
    codes = np.where(y < 0, y, (y == at).astype(np.int64))
    return Known("binary", codes, y >= 0, order, tuple(f"p_{c}" for c in order), strange=strange)


def _share(y: np.ndarray, name: str) -> Known:
    has = np.isfinite(y)
    if np.isin(y[has], (0, 1)).all():
        codes = np.where(has, np.nan_to_num(y), -1).astype(np.int64)
        return Known("binary", codes, has, (f"not {name}", name), (f"p_{name}",))
    return Known("values", y, has, (name,), (f"p_{name}",))


def _limits(task: Task, survey: Survey, shape: tuple[int, ...]) -> np.ndarray:
    """(n, numbers) -1, 0 or +1: where the truth is only a limit."""
    parts = []
    for target in task.targets:
        truth = survey.truth(target)
        flat = truth.value.reshape(len(truth.value), -1)
        limit = np.zeros(tuple(flat.shape)) if truth.limit is None else truth.limit.reshape(flat.shape).numpy()
        parts.append(np.nan_to_num(limit))
    joined: np.ndarray = np.concatenate(parts, axis=1)
    assert joined.shape == shape
    return joined


def answers(
    question: Known, catalogue: Catalogue, places: np.ndarray, rows: np.ndarray, level: float | None = None
) -> Answers:
    """What the catalogue's rows `places` say of the survey's objects `rows`.

    Raises
    ------
    InputError : the catalogue lacks a column that answers the question.
    """
    truth = question.truth[rows]

    def here(column: str) -> np.ndarray:
        values: np.ndarray = catalogue.column(column)[places].astype(np.float64)
        return values

    if question.kind == "values":
        name = question.columns[0]
        q, lo, hi = (here(n) if n in catalogue.names else None
                     for n in (f"{name}_quantiles", f"{name}_lo", f"{name}_hi"))  # fmt: skip
        return Answers("values", here(name), truth, question.names, question.unit, q, LEVELS if q is not None else (),
                       lo, hi, level=level, redshift=is_redshift(question.names[0], question.unit, truth))  # fmt: skip
    p = np.stack([here(c) for c in question.columns], axis=1)
    if p.shape[1] == 1:  # one of several labels that do not exclude each other
        return Answers("binary", p[:, 0], truth, question.names)
    p = p / p.sum(1, keepdims=True)
    sets = [f"in_set_{n}" for n in question.names]
    held = all(n in catalogue.names for n in sets)
    member = np.stack([catalogue.column(n)[places].astype(bool) for n in sets], axis=1) if held else None
    scores = p[:, 1] if question.kind == "binary" else p
    return Answers(question.kind, scores, truth, question.names, member=member, level=level)


def looked_for(classes: tuple[str, ...], prior: Sequence[float] = (), given: str = "") -> int:
    """Which of two classes is the positive one, of which completeness, purity and follow-up lists are told.

    The one that is given; else the one whose name does not say "no" (non-merger, unbarred, other, field, 0), or alone
    says "yes" (true, 1, lens); else the rarer one of the training fold, and of two equal ones the second.

    Raises
    ------
    InputError : the given class is none of the two.
    """
    if given:
        if given not in classes:
            raise InputError("no such class", keyword="positive", found=given, known=classes)
        return classes.index(given)
    one, two = (c.strip().lower() for c in classes)
    for marked in ([not _negative(one, two), not _negative(two, one)], [one in YES, two in YES]):
        if sum(marked) == 1:
            return marked.index(True)
    return int(len(prior) < 2 or prior[1] <= prior[0])


YES = {"1", "true", "yes", "y", "positive", "lens", "real", "transient", "pulsar", "planet", "ia"}
NO = {"0", "-1", "false", "no", "not", "none", "nothing", "negative", "null", "other", "others", "rest", "field",
      "normal", "clean", "background", "empty", "blank", "bogus", "noise", "control", "ordinary"}  # fmt: skip


def _negative(name: str, other: str) -> bool:
    """Whether a class is the absence of something: by its own word, or by a prefix to that of the other class."""
    apart = re.match(r"(non|not|no|un)[\s_-]+\S", name)
    joined = re.match(r"(non|not|no|un)(?=\w{2})", name)  # "unlensed" beside "lens", but not "unicorn" beside "horse"
    return name in NO or apart is not None or (joined is not None and name[joined.end() :][:4] == other[:4])


HIGHEST = 15.0  # redshift; a magnitude in the band z is fainter


def is_redshift(name: str, unit: str, truth: np.ndarray) -> bool:
    """Whether numbers are redshifts: by their name, if they have no unit and are none of a magnitude in the band z."""
    named = name.lower() in {"z", "redshift", "zspec", "z_spec", "specz", "spec_z", "true_redshift", "z_true"}
    return named and not unit and (not len(truth) or float(np.median(truth)) < HIGHEST)


def constant(a: Answers, prior: Mapping[str, float], training: np.ndarray | None = None) -> Answers:
    """What answers that know nothing of the object would score.

    Parameters
    ----------
    prior : share of each class in the training fold.
    training : (m,) values of the training fold: their quantiles are the posterior, their median the answer.
    """
    n = len(a)
    if a.kind == "values":
        values = a.truth if training is None else training
        quantiles = np.tile(np.quantile(values, a.levels), (n, 1)) if a.quantiles is not None else None
        return Answers("values", np.full(n, np.median(values)), a.truth, a.names, a.unit, quantiles, a.levels,
                       redshift=a.redshift)  # fmt: skip
    if a.kind == "binary":
        yes = prior.get(a.names[1], float("nan"))
        total = yes + prior[a.names[0]] if a.names[0] in prior else 1.0
        return Answers("binary", np.full(n, yes / total), a.truth, a.names)
    p = np.array([prior[c] for c in a.names])
    return Answers("classes", np.tile(p / p.sum(), (n, 1)), a.truth, a.names)


def subset(a: Answers, rows: np.ndarray) -> Answers:
    """The answers on some of the objects."""
    arrays = {
        n: v[rows]
        for n in ("scores", "truth", "quantiles", "low", "high", "member")
        if (v := getattr(a, n)) is not None
    }
    return replace(a, **arrays)
