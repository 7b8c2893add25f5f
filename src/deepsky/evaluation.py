"""evaluate: a catalogue held against the truth -> Report; compare: two models on the same objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepsky import judging
from deepsky.catalogue import Catalogue
from deepsky.errors import InputError
from deepsky.inference import predict
from deepsky.io import write_json
from deepsky.judging import Answers, Check, Known, Question, caveats, counting
from deepsky.metrics.intervals import Estimate
from deepsky.model import Model
from deepsky.survey import Survey
from deepsky.task import Task
from deepsky.tasks import from_config

__all__ = ["Answers", "LearningCurve", "Question", "Report", "compare", "evaluate"]

MOST_BINNED = 4  # columns that are binned by where nobody says which
LearningCurve = Sequence[tuple[int, Mapping[str, Estimate], Mapping[str, Estimate]]]


@dataclass(frozen=True, eq=False)
class Report:
    """A catalogue held against the truth.

    Attributes
    ----------
    rows : positions in `survey` of the objects that any question judges.
    names : of everybody who was asked, e.g. "ours" -> "resnet".
    checks : what the folds share, whether the sample looks like the training sample, how often the fold was opened.
    learning : (training objects, figures of ours, figures of the classical baseline) of `deepsky.learning`.
    """

    title: str
    questions: Mapping[str, Question]
    survey: Survey
    rows: np.ndarray
    names: Mapping[str, str] = field(default_factory=dict)
    checks: Mapping[str, Check] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    learning: LearningCurve = ()
    folder: Path | None = None

    @property
    def comparison(self) -> bool:
        """Whether two models are compared."""
        return "first" in self.names

    def json(self) -> dict[str, Any]:
        """Every figure as JSON literals."""
        points = [
            {"n": n, "ours": {k: e.json() for k, e in a.items()}, "classical": {k: e.json() for k, e in b.items()}}
            for n, a, b in self.learning
        ]
        whole = {
            "title": self.title,
            "objects": len(self.rows),
            "simulation": not self.survey.schema.real,
            "names": dict(self.names),
            "questions": {name: q.json() for name, q in self.questions.items()},
            "checks": {n: c.json() for n, c in self.checks.items()},
            "provenance": dict(self.provenance),
            "history": [dict(h) for h in self.history],
            "learning curve": points,
        }
        made: dict[str, Any] = _plain(whole)
        return made

    def __str__(self) -> str:
        kind = "real data" if self.survey.schema.real else "simulation"
        lines = [f"{self.title}: {len(self.rows):,} objects ({kind})"]
        for q in self.questions.values():
            a = q.answers[q.first]
            of = f"{q.name}, of {a.names[1]}" if a.kind == "binary" else q.name
            rows = [(of, *q.figures, "against " + q.second if q.second else "")]
            for name in q.figures[q.first]:
                cells = [str(f[name]) if name in f else "-" for f in q.figures.values()]
                rows.append((name, *cells, q.paired[name].verdict if name in q.paired else ""))
            wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines += ["", *("  ".join(f"{c:<{w}}" for c, w in zip(r, wide, strict=True)).rstrip() for r in rows)]
            for who, figures in q.clean.items():
                n = next(iter(figures.values())).n
                words = ", ".join(f"{k} {e}" for k, e in figures.items() if k in judging.headline(q.answers[who]))
                lines.append(f"{who} without what was seen or shares a group ({n:,} objects): {words}")
            lines += [f"{q.name}, {name}: {check}" for name, check in q.checks.items() if check.mark]
        if self.learning:
            lines += ["", "training objects: figures of ours; of the classical baseline", *self._learnt()]
        named = [f"{who}: {name}" for who, name in self.names.items() if name not in ("", who)]
        lines += ["", *named, *(f"{name}: {check}" for name, check in self.checks.items())]
        if self.folder is not None:
            lines += ["", f"report: {self.folder / 'report.html'}"]
        return "\n".join(lines)

    def _learnt(self) -> Iterator[str]:
        q = next(iter(self.questions.values()))
        start = f"{q.name}: " if len(self.questions) > 1 else ""
        names = [n for n in judging.headline(q.answers[q.first]) if start + n in self.learning[0][1]][:2]
        for n, *both in self.learning:
            words = (", ".join(f"{m} {f[start + m]}" for m in names if start + m in f) for f in both)
            yield f"{n:>16,}: " + "; ".join(w for w in words if w)

    def _repr_html_(self) -> str:
        from deepsky.report.page import body

        return str(body(self))

    def write(self, folder: str | Path) -> Report:
        """Write ``report.html`` and ``report.json``."""
        from deepsky.report.page import write

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        made = replace(self, folder=folder)
        write_json(folder / "report.json", self.json())
        write(made, folder / "report.html")
        return made


def evaluate(
    model: Model | Catalogue,
    survey: Survey,
    *,
    task: Task | None = None,
    catalogue: Catalogue | None = None,
    classical: Catalogue | None = None,
    by: Sequence[str] = (),
    to: str | Path | None = None,
    replicates: int = 500,
    learning_curve: LearningCurve = (),
    positive: str = "",
) -> Report:
    """Hold answers against the truth of `survey`, usually its test fold.

    Parameters
    ----------
    model : a model, which predicts first, or a catalogue; a catalogue needs the `task` that it answers, where it does
        not say so itself as that of a cross-validation does.
    catalogue : the model's answers, if they are there already.
    classical : a classical baseline's answers; by default those of the baseline that was trained with the model.
    by : columns to bin the figures by; by default the scalar columns that astronomers bin by, where there are some.
    to : folder of ``report.html`` and ``report.json``.
    replicates : of the bootstrap behind every interval.
    learning_curve : from `deepsky.learning.learning_curve`, to be drawn.
    positive : which of two classes completeness, purity and follow-up lists are told of; by default the one whose name
        does not say "no" ("merger" beside "non-merger"), else the rarer one of the training fold.

    Raises
    ------
    InputError : no object of the survey has both an answer and a truth, or an unknown column.
    """
    held = model if isinstance(model, Model) else None
    asked = _bound(task if task is not None and held is None else _asked(model), survey)
    columns = _columns(by, survey)
    known = _known(asked, survey, positive)
    given = catalogue or (model if isinstance(model, Catalogue) else predict(model, survey, quiet=True))
    everybody, names = {"ours": given}, {"ours": given.provenance.get("network", "ours")}
    if classical is None and held is not None and held.baseline is not None:
        place = counting.places(given, survey)
        rows = np.flatnonzero((place >= 0) & np.any([q.has for q in known.values()], axis=0))
        classical = predict(held.baseline, survey.select(rows, "judged"), quiet=True)
    if classical is not None:
        everybody["classical"] = classical
        names["classical"] = classical.provenance.get("network", "classical")
    models = {"ours": held, "classical": None if held is None else held.baseline}
    report = _judge(everybody, names, asked, known, survey, columns, replicates, models)
    title = f"{', '.join(asked.targets)} in {survey.name}"
    final = replace(
        report,
        title=title,
        history=() if held is None else held.history,
        learning=learning_curve,
        provenance=_provenance(given, held),
    )
    return final if to is None else final.write(to)


def compare(
    a: Model | Catalogue,
    b: Model | Catalogue,
    survey: Survey,
    *,
    task: Task | None = None,
    by: Sequence[str] = (),
    to: str | Path | None = None,
    replicates: int = 500,
    positive: str = "",
) -> Report:
    """Two models on the same objects: figures of both, paired differences of the first against the second.

    Parameters
    ----------
    a, b : models, or catalogues that answer `task`.
    by, to, replicates, positive : see `evaluate`.

    Raises
    ------
    InputError : the models answer different questions, or see `evaluate`.
    """
    told = [task if task is not None and isinstance(m, Catalogue) else _said(m) for m in (a, b)]
    one, two = told[0] or told[1] or _asked(a), told[1] or told[0] or _asked(b)
    asked, other = _bound(one, survey), _bound(two, survey)
    mine, theirs = ((t.targets, set(getattr(t, "classes", ()))) for t in (asked, other))
    if mine != theirs:
        raise InputError("the models answer different questions", found=_words(asked), expected=_words(other))
    columns, known = _columns(by, survey), _known(asked, survey, positive)
    everybody, names = {}, {}
    for who, m in (("first", a), ("second", b)):
        everybody[who] = m if isinstance(m, Catalogue) else predict(m, survey, quiet=True)
        made = everybody[who].provenance
        names[who] = f"{made.get('network', who)} {str(made.get('model', ''))[:6]}".strip()
    models = {who: m if isinstance(m, Model) else None for who, m in (("first", a), ("second", b))}
    report = _judge(everybody, names, asked, known, survey, columns, replicates, models)
    title = f"{names['first']} against {names['second']}: {', '.join(asked.targets)} in {survey.name}"
    provenance = {**_provenance(everybody["first"], models["first"]), "second": dict(everybody["second"].provenance)}
    final = replace(report, title=title, provenance=provenance)
    return final if to is None else final.write(to)


# -- before anything is predicted -------------------------------------------------------------------------------
def _said(answers: Model | Catalogue) -> Task | None:
    """What a model answers, or a catalogue that says so."""
    if isinstance(answers, Model):
        return answers.task
    told = answers.provenance.get("question")
    return from_config(told) if told else None


def _asked(answers: Model | Catalogue) -> Task:
    found = _said(answers)
    if found is None:
        raise InputError("a catalogue alone does not say what it answers", file=getattr(answers, "file", None),
                         fix="name it: --target COLUMN, in the library task=...")  # fmt: skip
    return found


def _bound(task: Task, survey: Survey) -> Task:
    """The task with its classes or numbers; those of a catalogue's task come from the whole survey."""
    learnt = getattr(task, "prior", ()) or getattr(task, "centre", ())
    return task if learnt else task.bind(survey.whole or survey)


def _words(task: Task) -> str:
    classes = getattr(task, "classes", ())
    return ", ".join(task.targets) + (f" ({', '.join(classes)})" if classes else "")


def _columns(by: Sequence[str], survey: Survey) -> tuple[str, ...]:
    for name in by:
        survey.column(name)  # refuses an unknown one before anything is predicted
    return tuple(by) or _usual(survey)


def _usual(survey: Survey) -> tuple[str, ...]:
    """Scalar columns that astronomers bin by."""
    begin = ("mag", "snr", "s/n", "redshift", "z_", "fwhm", "radius", "re_", "theta_e", "size", "seeing")
    whole = ("z", "s2n", "theta_E")
    found = []
    for name, c in survey.schema.columns.items():
        scalar = not (c.array or c.classes or c.parts) and name in survey.index.column_names
        if scalar and (name.lower().startswith(begin) or name in whole) and survey.column(name).dtype.kind == "f":
            found.append(name)
    return tuple(found[:MOST_BINNED])


def _known(task: Task, survey: Survey, positive: str) -> dict[str, Known]:
    if not len(survey):
        raise InputError("there is no object to judge", file=survey.path, found=survey.name,
                         fix="choose another fold, or a condition that some object fulfils")  # fmt: skip
    known = judging.known(task, survey, positive)
    if not any(q.has.any() for q in known.values()):
        raise InputError(
            "no object has a truth to judge by",
            file=survey.path,
            keyword=", ".join(task.targets),
            found=f"{len(survey)} objects of {survey.name} without a label",
            fix="give labels with --labels TABLE.csv, or choose another fold",
        )
    return known


# -- judging ------------------------------------------------------------------------------------------------------
def _judge(
    everybody: Mapping[str, Catalogue],
    names: Mapping[str, str],
    task: Task,
    known: Mapping[str, Known],
    survey: Survey,
    columns: Sequence[str],
    replicates: int,
    models: Mapping[str, Model | None],
) -> Report:
    places = {who: counting.places(c, survey) for who, c in everybody.items()}
    first = next(iter(everybody))
    whose = {"constant": ""}
    questions, judged = {}, np.zeros(len(survey), bool)
    seen = caveats.seen_by(models.values(), survey)
    repeats: dict[str, list[dict[str, Answers]]] = {}
    for name, question in known.items():
        good = question.has & np.all([p >= 0 for p in places.values()], axis=0)
        for who, c in everybody.items():
            for column in question.columns:
                good &= np.isfinite(c.column(column).astype(np.float64)[places[who]])
        rows = np.flatnonzero(good)
        if not len(rows):
            continue
        judged |= good
        answers = {
            w: judging.answers(question, c, places[w][rows], rows, _level(models.get(w))) for w, c in everybody.items()
        }
        repeats[name] = [dict(answers), *_again(everybody, question, survey, rows)]
        standing, whose["constant"] = judging.standing(next(iter(answers.values())), task, everybody, survey)
        if standing is not None:
            answers["constant"] = standing
        made = judging.judge(name, answers, survey, rows, columns, replicates, seen)
        prior, assumed = judging.priors(task, next(iter(everybody.values())))
        of = caveats.of_answers(made.answers[made.first], question, prior, assumed)
        if len(known) == 1:
            of.pop("limits", None)  # "judged" counts them
        questions[name] = replace(made, checks=of)
    rows = np.flatnonzero(judged)
    if not len(rows):
        has = np.any([q.has for q in known.values()], axis=0)
        raise InputError(
            "no object has both an answer and a truth",
            file=survey.path,
            found=f"{len(next(iter(everybody.values())))} answers, {int(has.sum())} truths",
            fix="evaluate on the survey that was predicted, with its labels",
        )
    model = models.get(first)
    learnt = model is not None and model.provenance.get("survey_hash") == survey.hash
    over_all = "cv_fold" in everybody[first].names
    more = {
        "over repeats": counting.repeated(repeats),
        "angles": counting.angles(task, survey),
        "left out of training": counting.wanting(task, survey, over_all) if learnt or over_all else None,
    }
    checks = {
        "judged": counting.counted(known, places, judged, survey),
        **{n: c for n, c in more.items() if c is not None},
    }
    for who in everybody if "first" in everybody else [first]:  # of two models that are compared, of both
        told = caveats.checks(models.get(who), survey, everybody[who], rows, places[who][rows])
        checks |= {n if who == "ours" or n in caveats.OF_SURVEY else f"{n} ({who})": c for n, c in told.items()}
    return Report("", questions, survey, rows, {**names, **whose}, checks)


def _again(
    everybody: Mapping[str, Catalogue], question: Known, survey: Survey, rows: np.ndarray
) -> Iterator[dict[str, Answers]]:
    """The answers of the further repeats of cross-validations, of those who have as many, to the objects `rows`."""
    count = {w: int(c.column("cv_repeat").max()) + 1 if "cv_repeat" in c.names else 1 for w, c in everybody.items()}
    for repeat in range(1, max(count.values())):
        made = {}
        for who, c in everybody.items():
            if repeat < count[who]:
                at = counting.places(c, survey, repeat)[rows]
                made[who] = judging.answers(question, c, at[at >= 0], rows[at >= 0])
        yield made


def _level(model: Model | None) -> float | None:
    """Of the conformal sets or intervals."""
    return None if model is None or "level" not in model.calibration else float(model.calibration["level"][0])


def _provenance(catalogue: Catalogue, model: Model | None) -> dict[str, Any]:
    if model is None:
        return dict(catalogue.provenance)
    training = {k: v for k, v in model.provenance.items() if k not in catalogue.provenance}
    training["training objects"] = dict(model.provenance.get("objects", {}))
    about = {"baseline": model.baseline.network.name} if model.baseline is not None else {}
    where = {
        "trained on": model.provenance.get("survey", ""),
        "training survey_hash": model.provenance.get("survey_hash"),
    }
    return {**training, **about, **where, **catalogue.provenance}


def _plain(value: Any) -> Any:
    """NaN and infinity as null, arrays as lists: what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
