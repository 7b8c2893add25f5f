"""The sentences of a report: what was asked, on which objects, how well it was answered, and what to beware of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepsky.evaluation import Report
    from deepsky.judging import Answers, Question
    from deepsky.metrics.intervals import Estimate

MOST_NAMED = 4  # classes or questions that a sentence lists


def summary(report: Report) -> list[str]:
    """Paragraphs of plain text."""
    lines = [" ".join(_asked(report))]
    for q in list(report.questions.values())[:MOST_NAMED]:
        lines.append(" ".join(_found(report, q)))
    if len(report.questions) > MOST_NAMED:
        lines.append(f"The other {len(report.questions) - MOST_NAMED} questions stand below.")
    beware = list(_beware(report))
    if beware:
        lines.append("Beware: " + "; ".join(beware) + ".")
    return lines


def _asked(report: Report) -> Iterator[str]:
    questions = list(report.questions.values())
    first = questions[0].answers[questions[0].first]
    kind = "real data" if report.survey.schema.real else "a simulation"
    if len(questions) == 1:
        yield f"The question is {_question(questions[0].name, first)}."
    else:
        names = ", ".join(q.name for q in questions[:MOST_NAMED]) + (
            " and others" if len(questions) > MOST_NAMED else ""
        )
        yield f"{len(questions)} questions were asked: {names}."
    where = f"held against the truth of {len(report.rows):,} objects of {place(report.survey.name)}, {kind}"
    if report.comparison:
        yield f"The answers of two models, {report.names['first']} and {report.names['second']}, are {where}."
    else:
        name = report.names.get("ours", "ours")
        ours = "Our answers" if name == "ours" else f"The answers of {_article(name)}"
        beside = " and, beside them, of a classical baseline" if questions[0].second is not None else ""
        if beside and report.names.get("classical", "classical") != "classical":
            beside += f" ({report.names['classical']})"
        yield f"{ours}{beside} are {where}."
    if first.kind != "values" and len(questions) == 1:
        counts = [(n, int((first.truth == i).sum())) for i, n in enumerate(first.names)]
        named = ", ".join(f"{c:,} {n}" for n, c in counts[:MOST_NAMED])
        more = f" and {len(counts) - MOST_NAMED} more classes" if len(counts) > MOST_NAMED else ""
        yield f"True classes: {named}{more}."


def place(name: str) -> str:
    """The name of a part of a survey as it is read: "kids[test]" is "kids (test)"."""
    return re.sub(r"\[([^\[\]]*)\]", r" (\1)", name)


def minus(text: str) -> str:
    """Hyphens before numbers and functions as minus signs."""
    return re.sub(r"(^|[\s\[(])-(?=[\w.])", r"\1−", text)


def _question(name: str, a: Answers) -> str:
    if a.kind == "binary":
        return f"whether an object is “{a.names[1]}” rather than “{a.names[0]}” ({name})"
    if a.kind == "classes":
        return f"which of {len(a.names)} classes an object belongs to ({name})"
    return f"the value of {name}" + (f" [{a.unit}]" if a.unit else "")


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _found(report: Report, q: Question) -> Iterator[str]:
    """The headline figures with intervals, those of the baseline beside them, and the verdicts."""
    a, own = q.answers[q.first], q.figures[q.first]
    second = q.second
    heads = {"binary": ("AUROC", "average precision"), "classes": ("accuracy", "macro AUROC"),
             "values": ("sigma_NMAD", "bias", "R2")}[a.kind]  # fmt: skip
    who = report.names.get(q.first, "the model") if report.comparison else "the model"
    place = f"For {q.name}, " if len(report.questions) > 1 else ""
    parts = [_quoted(name, own[name], a.unit) for name in heads if name in own]
    start = f"{place}{who} reaches {_listed(parts)}"
    if second is not None:
        theirs = q.figures[second]
        beside = report.names["second"] if report.comparison else "the classical baseline"
        start += f"; {beside}, {_listed([_quoted(n, theirs[n], a.unit) for n in heads[:1] if n in theirs])}"
    yield start[0].upper() + start[1:] + "."
    if q.paired and second is not None:
        by: dict[str, list[str]] = {"ahead": [], "behind": [], "equal": []}
        for name, d in q.paired.items():
            by.setdefault(d.verdict, []).append(name)
        links = {"ahead": "ahead in", "behind": "behind in", "equal": "equal in"}
        verdicts = "; ".join(f"{links[v]} {_listed(by[v])}" for v in links if by[v])
        beside = "it" if report.comparison else "that baseline"
        if verdicts:
            yield f"Against {beside}, on the same objects (paired 95% intervals), {who} is {verdicts}."
        for rest in (v for v in by if v not in links):
            yield f"Who is ahead in {_listed(by[rest])} cannot be said, {rest}."
    wanted = "log loss" if a.kind != "values" else "RMSE"
    plain = q.over_constant.get(wanted)
    if plain is not None and plain.verdict in ("equal", "behind"):
        verdict = "no better than" if plain.verdict == "equal" else "worse than"
        yield f"In {wanted} it is {verdict} the constant ({report.names.get('constant', 'constant')})."
    if q.clean:
        few = q.clean[q.first]
        n = next(iter(few.values())).n
        parts = [_quoted(name, few[name], a.unit) for name in heads[:1] if name in few]
        yield f"Without objects that were seen, or whose group stands in another fold ({n:,} remain): {_listed(parts)}."


def _quoted(name: str, e: Estimate, unit: str) -> str:
    dimensional = name in ("sigma_NMAD", "bias", "RMSE", "MAE", "CRPS")
    return minus(f"{name} {e}") + (f" {unit}" if unit and dimensional else "")


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" and {words[-1]}" if words else "nothing"


def _beware(report: Report) -> Iterator[str]:
    marked = [(n, c) for n, c in report.checks.items() if c.mark]
    for q in report.questions.values():
        marked += [(n if len(report.questions) == 1 else f"{q.name}, {n}", c) for n, c in q.checks.items() if c.mark]
    for name, check in sorted(marked, key=lambda m: m[1].mark != "strong"):
        yield f"{name}: {check.words}"
    if not report.survey.schema.real:
        yield "these are simulated objects, and say nothing of how the model meets real ones"


# -- definitions and provenance ---------------------------------------------------------------------------------
def definitions(report: Report) -> dict[str, str]:
    """What every figure of the report is."""
    found: dict[str, str] = {}
    kinds = set()
    for q in report.questions.values():
        a = q.answers[q.first]
        kinds.add(a.kind)
        for name, e in q.figures[q.first].items():
            found.setdefault(name, e.definition)
        if a.kind == "values":
            r = "(predicted − true) / (1 + true)" if a.redshift else "predicted − true"
            found["r"] = found.get("r", f"the residual, {r}")
        elif a.kind == "binary":
            name = "the positives" if len(report.questions) == 1 else f"the positives of {q.name}"
            found[name] = (
                f"objects of the class “{a.names[1]}”, of which completeness, purity, true and false positive rates "
                "and follow-up lists are told"
            )
    level = next((e.level for q in report.questions.values() for e in q.figures[q.first].values()), 0.95)
    found["[low, high]"] = (
        f"{level:.0%} percentile bootstrap interval; groups are resampled whole. It covers the finite sample of "
        "objects, not the spread between trainings with other seeds. ECE and PIT KS rise when objects are drawn twice: "
        "their resampled values are moved so that the median is the figure, before the percentiles are read"
    )
    found["ahead, behind, equal"] = (
        "the difference of the two, computed on the same resampled objects, excludes zero or does not; "
        "many figures are compared, and one in twenty of them would be ahead or behind by chance. With fewer than ten "
        "objects of a class there is no verdict"
    )
    if "binary" in kinds:
        found["declared prevalence"] = (
            "the share of positives among the objects of a survey; purities follow from the true and false positive "
            "rates of this sample. Faint lines and stars: fewer than three false positives of the sample stand behind "
            "them"
        )
    found["in_domain"] = (
        "the p-value of an object's features among objects of the training population, of which 5% lie below 0.05"
    )
    return found


def provenance(report: Report) -> list[tuple[str, str]]:
    """Rows of (name, value) in a fixed order: what the figures were made from."""
    p = dict(report.provenance)
    first = ("model", "network", "task", "trained on", "training survey_hash", "training objects",
             "calibration", "baseline", "prior", "survey", "survey_hash", "objects", "dtype", "deepsky", "versions",
             "settings")  # fmt: skip
    order = [k for k in first if k in p] + [k for k in p if k not in first and k != "simulation"]
    return [(k.replace("_", " "), plain(p[k])) for k in order if p[k] not in (None, "", {}, (), [])]


def plain(value: Any) -> str:
    """A JSON literal as a reader would write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        words = [plain(v) for v in value]
        return ("; " if any(", " in w for w in words) else ", ").join(words)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
