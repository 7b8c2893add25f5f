"""Who is judged, and who is not: objects left out and why, targets that were wanting, repeats of a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.compute as pc

from deepsky.catalogue import Catalogue
from deepsky.judging.answering import Answers, Known
from deepsky.judging.caveats import Check
from deepsky.judging.merit import headline, table
from deepsky.labels import turning
from deepsky.sample import Truth
from deepsky.survey import Survey
from deepsky.task import Task
from deepsky.tasks.regress import Regress

NOT_PREDICTED = 16  # see deepsky.catalogue.FLAGS
NO_ANSWER = "no answer (missing in the catalogue, or nothing measured)"
Repeats = dict[str, dict[str, list[float]]]


def places(catalogue: Catalogue, survey: Survey, repeat: int = 0) -> np.ndarray:
    """(n,) row of each object in the catalogue; -1 where it has none, or nothing was measured.

    Parameters
    ----------
    repeat : which one, of a cross-validation that was repeated.
    """
    usable = np.ones(len(catalogue), bool)
    if "flags" in catalogue.names:
        usable &= catalogue.column("flags") & NOT_PREDICTED == 0
    if "cv_repeat" in catalogue.names:
        usable &= catalogue.column("cv_repeat") == repeat
    rows = np.flatnonzero(usable)
    names = catalogue.table["id"].take(rows).cast(survey.index["id"].type)  # pandas writes large strings
    place = pc.index_in(survey.index["id"], value_set=names.combine_chunks())
    at = pc.fill_null(place, -1).to_numpy()
    return np.where(at >= 0, rows[at] if len(rows) else -1, -1)


def counted(known: Mapping[str, Known], at: Mapping[str, np.ndarray], judged: np.ndarray, survey: Survey) -> Check:
    """How many objects are judged, and why the others are not."""
    has = np.any([q.has for q in known.values()], axis=0)
    limit = ~has & np.any([q.limited for q in known.values()], axis=0)
    answered = np.all([p >= 0 for p in at.values()], axis=0)
    lost = {
        "no truth": int((~has & ~limit).sum()),
        "only a limit as truth": int(limit.sum()),
        NO_ANSWER: int((has & ~answered).sum()),
        "an answer that is not finite": int((has & answered & ~judged).sum()),
    }
    words = ", ".join(f"{n:,} with {why}" for why, n in lost.items() if n)
    share = lost[NO_ANSWER] / max(int(has.sum()), 1)
    text = f"{int(judged.sum()):,} of {len(survey):,} objects" + (f"; left out: {words}" if words else "")
    numbers = {"judged": int(judged.sum()), "of": len(survey), "left out": lost}
    return Check(text, "warn" if share > 0.01 else "", numbers)


def wanting(task: Task, survey: Survey, whole: bool) -> Check | None:
    """Objects that training left out because some of several targets are missing, and which; None where none are.

    Parameters
    ----------
    survey : that was trained on.
    whole : all of it, fold after fold, in a cross-validation; else its training fold.
    """
    here = survey.whole or survey
    if not whole and "fold" in here.index.column_names:
        here = here.select(here.column("fold").astype(str) == "train", "train")
    if len(task.targets) < 2 or not len(here):
        return None
    sample = here.gather(slice(None), truth=task.targets, observations=())
    used = task.labelled(sample).numpy()
    missing = {t: _unknown(sample.truth[t]) for t in task.targets}
    lost = ~used & ~np.all(list(missing.values()), axis=0)
    if not lost.any():
        return None
    counts = {t: int((m & lost).sum()) for t, m in missing.items() if (m & lost).any()}
    words = ", ".join(f"{n:,} lack {t}" for t, n in counts.items())
    where = "the survey" if whole else "the training fold"
    text = f"{int(lost.sum()):,} of {len(here):,} objects of {where}: {words}; a model for each target would use them"
    return Check(text, "warn", {"used": int(used.sum()), "of": len(here), "lacking": counts})


def angles(task: Task, survey: Survey) -> Check | None:
    """Targets that are angles, which are learnt and judged as plain numbers; None where there are none."""
    columns = survey.schema.columns
    names = [n for n in task.targets if n in columns and turning.is_angle(columns[n].moves, columns[n].unit)]
    if not isinstance(task, Regress) or not names:
        return None
    return Check(f"{', '.join(names)}: {turning.PLAIN_ANGLE}", "warn", {"targets": names})


def _unknown(truth: Truth) -> np.ndarray:
    """(n,) bool, where a code is -1 or any of the numbers is NaN."""
    value = truth.value.reshape(len(truth.value), -1).numpy()
    return np.asarray(np.any(value < 0 if truth.classes else np.isnan(value.astype(np.float64)), axis=1))


def repeated(made: Mapping[str, Sequence[Mapping[str, Answers]]]) -> Check | None:
    """Figures of every repeat of a cross-validation: mean and scatter; None where there is one only.

    Parameters
    ----------
    made : by question, the answers of everybody in each repeat.
    """
    number = max((len(r) for r in made.values()), default=0)
    if number < 2:
        return None
    figures: dict[str, Repeats] = {}
    said = []
    for question, repeats in made.items():
        found: Repeats = {}
        for answers in repeats:
            for who, a in answers.items():
                for name, (metric, arrays) in table(a).items():
                    found.setdefault(who, {}).setdefault(name, []).append(float(metric(*arrays)))
        figures[question] = found
        for who, own in found.items():
            heads = [n for n in headline(repeats[0][who]) if len(own.get(n, ())) > 1]
            if not heads:  # who answered one repeat alone, such as a model beside a cross-validation
                continue
            words = ", ".join(f"{n} {np.mean(own[n]):.4g} +- {np.std(own[n], ddof=1):.2g}" for n in heads)
            about = [question] * (len(made) > 1) + [who] * (len(found) > 1)
            said.append(f"{', '.join(about)}: {words}" if about else words)
    text = (
        f"mean and standard deviation over {number} repeats: {'; '.join(said)}. "
        "The other figures, their intervals and the drawings are those of the first repeat"
    )
    return Check(text, "", {"repeats": number, "figures": figures})
