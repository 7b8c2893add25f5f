"""What a reader must know before believing a figure: shared objects, shift, openings of the test fold, priors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from deepsky import folds, plan
from deepsky.catalogue import Catalogue
from deepsky.errors import InputError
from deepsky.finishing import run_over
from deepsky.io import read_json, write_json
from deepsky.judging.answering import Answers, Known
from deepsky.metrics import calibration, regression
from deepsky.metrics.shift import two_sample
from deepsky.model import Model
from deepsky.seen import FOLDS
from deepsky.survey import Survey

OF_SURVEY = ("independent groups",)  # the only check that says nothing of whose answers are judged
LOOKED_AT = 1000  # objects of each side that the two-sample test looks at
FEW = 100


@dataclass(frozen=True)
class Check:
    """One thing to know, in words.

    Attributes
    ----------
    mark : "" is as it should be, "warn" a reader must know, "strong" the figures may mislead.
    """

    words: str
    mark: Literal["", "warn", "strong"] = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.words

    def json(self) -> dict[str, Any]:
        """JSON literals."""
        return {"words": self.words, "mark": self.mark, **self.numbers}


def checks(
    model: Model | None, survey: Survey, catalogue: Catalogue, rows: np.ndarray, places: np.ndarray
) -> dict[str, Check]:
    """What can be said of the judged objects `rows` and of their rows `places` in the catalogue.

    Evaluating a saved model on objects of the test fold counts as one more opening of it, in the model's folder.
    """
    found: dict[str, Check | None] = {
        "simulated or real": _reality(model, survey),
        "trained on": None if model is None else _seen(model, survey, rows),
        "shared between folds": _shared(survey, catalogue),
        "openings of the test fold": None if model is None else _opened(model, survey, rows),
        "outside the training domain": _outside(catalogue, places),
        "looks like the training sample": None if model is None else _shift(model, survey, rows),
        "independent groups": _groups(survey, rows),
    }
    return {name: check for name, check in found.items() if check is not None}


def _reality(model: Model | None, survey: Survey) -> Check:
    here = "real data" if survey.schema.real else "a simulation"
    if model is None or model.contract.real == survey.schema.real:
        return Check(f"judged on {here}" + ("" if model is None else ", trained on the like"))
    there = "real data" if model.contract.real else "a simulation"
    return Check(f"judged on {here}, trained on {there}", "warn")


def _same_survey(model: Model, survey: Survey) -> bool:
    return bool(model.provenance.get("survey_hash") == survey.hash)


def _seen(model: Model, survey: Survey, rows: np.ndarray) -> Check:
    """Judged objects that the model was trained, stopped or calibrated on, whatever survey they stand in now."""
    if model.seen is None:
        return Check("not known: the model does not hold which objects it was trained on", "warn")
    codes = model.seen.codes(survey.select(rows, "judged"))
    of = {name: int((codes == code).sum()) for code, name in enumerate(FOLDS)}
    used = sum(of.values())
    if not used:
        return Check("no judged object was trained, stopped or calibrated on", "", {"objects": of})
    beside = "those without them stand beside" if used < len(rows) else "there is no other object to judge by"
    if of["train"]:
        words = f"{of['train']:,} of {len(rows):,} judged objects were trained on: the figures flatter; {beside}"
        return Check(words, "strong", {"objects": of})
    words = f"{used:,} of {len(rows):,} judged objects served for early stopping or calibration; {beside}"
    return Check(words, "warn", {"objects": of})


def seen_by(models: Iterable[Model | None], survey: Survey) -> np.ndarray:
    """(n,) bool: objects of a survey that any of the models was trained, stopped or calibrated on."""
    found = np.zeros(len(survey), bool)
    for model in models:
        if model is not None and model.seen is not None:
            found |= model.seen.codes(survey) >= 0
    return found


def _shared(survey: Survey, catalogue: Catalogue) -> Check | None:
    whole = survey.whole or survey
    if "cv_fold" in catalogue.names:
        return Check("out-of-fold answers of cross-validation: a group stays in one fold")
    if not {"fold", "group"} <= set(whole.index.column_names):
        return None
    leaks = folds.leaks(whole, pixels=False)
    words = [f"{k}: {leak.pairs:,} pairs, {leak.test:,} test objects" for k, leak in leaks.kinds.items() if leak.pairs]
    test = leaks.objects.get("test", 0)
    if not words:
        return Check(f"nothing: looked for {', '.join(leaks.kinds)}")
    shared = f"; {leaks.clean:,} of {test:,} test objects share no group with the other folds" if test else ""
    return Check("; ".join(words) + shared, "warn", {"test": test, "clean": leaks.clean})


def clean(survey: Survey, rows: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray | None:
    """(n,) of the judged objects: those that no model has `seen` (of all objects of the survey) and, in a test fold,
    whose group stands in no other fold; None where all of them, or none, are."""
    good = np.ones(len(rows), bool) if seen is None else ~seen[rows]
    if {"fold", "group"} <= set(survey.index.column_names) and (
        survey.column("fold")[rows].astype(str) == "test"
    ).all():
        good &= folds.clean_test(survey)[rows]
    return None if good.all() or not good.any() else good


def _opened(model: Model, survey: Survey, rows: np.ndarray) -> Check | None:
    """Count an opening of the test fold, in a file beside the model."""
    if model.path is None or not _same_survey(model, survey) or "fold" not in survey.index.column_names:
        return None
    if not (survey.column("fold")[rows].astype(str) == "test").any():
        return None
    file = model.path / "openings.json"
    count = int(read_json(file)["test"] if file.exists() else 0) + 1
    write_json(file, {"test": count})
    if count == 1:
        return Check("the first time with this model", "", {"count": count})
    words = f"{count} times with this model; a choice made after looking at it makes its figures optimistic"
    return Check(words, "warn" if count > 3 else "", {"count": count})


def _outside(catalogue: Catalogue, places: np.ndarray) -> Check | None:
    if "in_domain" not in catalogue.names:
        return None
    p = catalogue.column("in_domain")[places]
    p = p[np.isfinite(p)]
    if not len(p):
        return None
    far, low = int((p < 0.001).sum()), float((p < 0.05).mean())
    words = f"{far:,} of {len(p):,} objects (p < 0.001); {low:.1%} below p = 0.05, where 5% are expected"
    mark: Literal["", "warn", "strong"] = "strong" if low > 0.25 else "warn" if low > 0.1 else ""
    return Check(words, mark, {"outside": far, "below 0.05": low, "objects": len(p)})


def _shift(model: Model, survey: Survey, rows: np.ndarray) -> Check | None:
    """Two-sample test on the network's features, against objects of the training population that it never saw."""
    if model.seen is None:
        return None
    whole = (survey.whole or survey) if _same_survey(model, survey) else _training_survey(model)
    if whole is None:
        return Check("not tested: the training survey no longer lies where it was")
    codes = model.seen.codes(whole)  # its folds may have been assigned anew since
    for names in (("valid",), ("valid", "calib"), ("train",)):  # the network was fitted to the last of them
        reference = np.flatnonzero(np.isin(codes, [FOLDS.index(n) for n in names]))
        if len(reference) >= FEW:
            break
    judged = survey.select(rows, "judged")
    groups = [None, None]
    if "group" in whole.index.column_names:  # a group on both sides would be told apart by nothing
        known = len(reference)
        reference = reference[~np.isin(whole.column("group")[reference], judged.column("group"))]
        if known and not len(reference):
            return Check(f"not tested: all {known:,} {' and '.join(names)} objects are among the judged ones", "warn")
    beside = whole.select(reference, "reference")
    if min(len(beside), len(judged)) < FEW // 2:
        return Check(f"not tested: {len(beside)} and {len(judged)} objects are too few")
    features = [run_over(model, s, most=LOOKED_AT)[1].numpy() for s in (beside, judged)]
    if "group" in whole.index.column_names:
        groups = [s.column("group")[_spread(len(s), LOOKED_AT)] for s in (beside, judged)]
    try:
        made = two_sample(*features, *groups)
    except InputError as error:
        return Check(f"not tested: {error.problem}")
    alike = "they look alike" if not made.mark else "they differ"
    words = (
        f"{alike}: a classifier on the network's features tells {len(features[1]):,} judged from {len(features[0]):,} "
        f"{' and '.join(names)} objects with an AUC of {made.statistic} (0.5 is chance), p = {made.p_value:.2g}"
    )
    mark: Literal["", "warn", "strong"] = "strong" if made.mark == "strong" else "warn" if made.mark else ""
    return Check(words, mark, {"auc": made.statistic.json(), "p": made.p_value, "reference": "+".join(names)})


def _training_survey(model: Model) -> Survey | None:
    """The survey that the model was trained on, if it still lies where it was then."""
    file = None if model.path is None else model.path / "run.json"
    if file is None or not file.is_file():
        return None
    try:
        here = Survey.load(str(plan.Run.read(file).call.get("survey", "")))
    except InputError:
        return None
    return here if _same_survey(model, here) else None


def _spread(n: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _groups(survey: Survey, rows: np.ndarray) -> Check:
    if "group" not in survey.index.column_names:
        return Check("objects are taken as independent: the survey has no groups", "warn", {"groups": None})
    n = len(np.unique(survey.column("group")[rows]))
    if n == len(rows):
        return Check("every object is a group of its own", "", {"groups": n})
    return Check(f"{n:,} groups; intervals resample them whole", "", {"groups": n})


def of_answers(
    a: Answers, question: Known, prior: Mapping[str, float], assumed: Mapping[str, float]
) -> dict[str, Check]:
    """What can be said of one question: objects left out, small classes, the prior that is assumed, calibration."""
    found = {}
    if question.strange:
        words = ", ".join(f"{n} ({c:,})" for n, c in question.strange.items())
        found["classes that the model does not know"] = Check(f"left out: {words}", "warn", dict(question.strange))
    if question.censored:
        found["limits"] = Check(f"{question.censored:,} objects with only a limit are left out of the figures")
    return found | (_of_values(a) if a.kind == "values" else _of_classes(a, prior, assumed))


def _of_values(a: Answers) -> dict[str, Check]:
    found: dict[str, Check] = {}
    if len(a) < FEW:
        found["small sample"] = Check(f"{len(a)} objects: wide intervals, no bins", "warn")
    if a.pit is not None:
        off = [c for c in regression.coverage_of_pit(a.pit) if c.mark == "miss"]
        if off:
            words = ", ".join(f"the {c.nominal:.0%} interval holds {c.share.value:.1%} of the truths" for c in off)
            found["posterior"] = Check(words, "warn")
    return found


def _of_classes(a: Answers, prior: Mapping[str, float], assumed: Mapping[str, float]) -> dict[str, Check]:
    found: dict[str, Check] = {}
    counts = {n: int((a.truth == i).sum()) for i, n in enumerate(a.names)}
    few = [f"{n} ({c})" for n, c in counts.items() if c < 30]
    if few:
        found["small classes"] = Check(f"fewer than 30 objects: {', '.join(few)}", "warn", counts)
    if a.member is not None and a.level is not None:
        inside = np.take_along_axis(a.member, a.truth[:, None], 1)[:, 0]
        missed = [(n, c, float(inside[a.truth == i].mean())) for i, (n, c) in enumerate(counts.items()) if c >= 20]
        low = [m for m in missed if m[2] < a.level - 3 * np.sqrt(a.level * (1 - a.level) / m[1])]
        if low:
            words = ", ".join(f"{n} {share:.0%}" for n, _, share in low)
            text = f"meant for {a.level:.0%} over all classes; the true class stands in too few of those for: {words}"
            found["conformal sets"] = Check(text, "warn")
    p, right = (a.scores, a.truth == 1) if a.kind == "binary" else calibration.top_label(a.scores, a.truth)
    error, chance = calibration.ece(p, right), calibration.ece_if_calibrated(p, draws=200, level=0.999).high
    if error > chance:
        words = f"ECE {error:.3f}, where probabilities that are right stay below {chance:.3f}"
        found["calibration"] = Check(words, "warn", {"ece": error, "by chance": chance})
    shares = {n: c / len(a) for n, c in counts.items()}
    if prior and all(n in prior for n in a.names):
        meant = assumed if all(n in assumed for n in a.names) else prior
        far = max(abs(np.log((shares[n] + 1e-9) / (meant[n] + 1e-9))) for n in a.names)
        words = "class shares: " + ", ".join(
            f"{n} {_part(shares[n])} here, {_part(prior[n])} in the training fold" for n in a.names[:6]
        )
        if assumed and any(abs(assumed.get(n, p) - p) > 1e-6 for n, p in prior.items()):
            named = ", ".join(f"{n} {_part(assumed[n])}" for n in a.names[:6] if n in assumed)
            words += f"; the probabilities assume {named}"
        mark: Literal["", "warn"] = "warn" if far > np.log(1.5) else ""
        found["class prior"] = Check(words, mark, {"here": shares, "training": dict(prior)})
    return found


def _part(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"
