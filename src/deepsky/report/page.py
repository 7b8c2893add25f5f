"""page: a report as one HTML file that needs nothing else, and as a part of a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import deepsky
from deepsky.io import atomic_write
from deepsky.report import gallery, plots, plots_classes, plots_values, words
from deepsky.report.plots import Look, Plot, axis, clean

if TYPE_CHECKING:
    from deepsky.evaluation import Report
    from deepsky.judging import Binned, Question
    from deepsky.metrics.intervals import Estimate

STAR = " *"  # few false positives stand behind a figure
DRAWN = 6  # questions that are drawn; of more, tables only
BINNED = ("AUROC", "completeness", "purity", "TPR at FPR 0.01", "accuracy", "balanced accuracy", "bias", "sigma_NMAD",
          "coverage 68%")  # fmt: skip
Bins = tuple[str, Plot | None, str, tuple[str, ...], tuple[tuple[str, ...], ...]]
LEARNT = ("AUROC", "RMSE", "accuracy", "sigma_NMAD", "log loss", "CRPS", "R2")


@dataclass(frozen=True)
class Cell:
    """An estimate in a table: the value, and its interval."""

    value: str
    interval: str = ""


@dataclass(frozen=True)
class Section:
    """What a page says of one question."""

    name: str
    heads: tuple[tuple[str, str], ...]
    table: tuple[tuple[str, tuple[Cell, ...], str, str], ...]
    clean: tuple[tuple[str, tuple[Cell, ...]], ...]
    clean_n: int
    against: str
    first: str
    figures: tuple[Plot, ...]
    bins: tuple[Bins, ...]
    sheets: tuple[gallery.Sheet, ...]
    lists: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]], ...]


def write(report: Report, path: str | Path) -> Path:
    """Write a report as one self-contained HTML file: no scripts, and nothing is fetched."""
    atomic_write(path, _render(report, frame=True))
    return Path(path)


def body(report: Report) -> str:
    """The same as HTML without the frame of a page, for a notebook."""
    return _render(report, frame=False)


def _render(report: Report, *, frame: bool) -> str:
    sections = [_section(report, q, i < DRAWN) for i, q in enumerate(report.questions.values())]
    history = _history(report)
    made: str = template("template.html").render(
        frame=frame,
        title=clean(words.place(report.title), 200),
        kind="real data" if report.survey.schema.real else "simulation",
        version=deepsky.__version__,
        summary=words.summary(report),
        sections=sections,
        checks=list(_checks(report)),
        training=[p for p in (_learning(report), history) if p is not None],
        provenance=words.provenance(report),
        definitions=words.definitions(report).items(),
    )
    return made


@lru_cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def template(name: str) -> Any:
    """A template of this folder; whatever is put into it is escaped."""
    return _environment().get_template(name)


def _checks(report: Report) -> Iterator[tuple[str, str, str]]:
    """Name, words and mark of everything that must be known, of the whole report and of each question."""
    for name, c in report.checks.items():
        yield name, c.words, c.mark
    for q in report.questions.values():
        for name, c in q.checks.items():
            yield name if len(report.questions) == 1 else f"{q.name}: {name}", c.words, c.mark


# -- one question -----------------------------------------------------------------------------------------------
def _section(report: Report, q: Question, drawn: bool) -> Section:
    looks = plots.looks([w for w in q.answers if w != "constant"], report.names)
    first = [q.first, q.second] if report.comparison else ["constant", q.second, q.first]
    order = [w for w in first if w is not None and w in q.figures]
    return Section(
        name=q.name,
        heads=tuple(_head(w, report.names) for w in order),
        table=tuple(_row(q, name, order) for name in q.figures[q.first]),
        clean=tuple((n, tuple(_cell(q.clean[w].get(n)) for w in order)) for n in q.clean.get(q.first, ())),
        clean_n=next((e.n for e in q.clean.get(q.first, {}).values()), 0),
        against=q.second or "",
        first=q.first,
        figures=tuple(_figures(report, q, looks)) if drawn else (),
        bins=tuple(_bins(report, q, looks, drawn)),
        sheets=tuple(gallery.sheets(report, q)) if drawn else (),
        lists=tuple(_lists(q, clean(q.answers[q.first].names[-1], 24))),
    )


def _head(who: str, names: Mapping[str, str]) -> tuple[str, str]:
    """Who, and what that is."""
    name = names.get(who, "")
    return who, "" if name == who else name


def _cell(e: Estimate | None) -> Cell:
    if e is None:
        return Cell("–")
    value, _, rest = str(e).replace("-", "−").partition(" [")
    return Cell(value, f"[{rest}" if rest else "")


def _row(q: Question, name: str, order: Sequence[str]) -> tuple[str, tuple[Cell, ...], str, str]:
    d = q.paired.get(name)
    apart = "" if d is None or not d.estimate.high > d.estimate.low else str(d.estimate).replace("-", "−")
    return name, tuple(_cell(q.figures[w].get(name)) for w in order), "" if d is None else d.verdict, apart


def _figures(report: Report, q: Question, looks: Mapping[str, Look]) -> Iterator[Plot]:
    a = q.answers[q.first]
    yield from {"binary": _binary, "classes": _classes, "values": _values}[a.kind](report, q, looks)
    if q.curves.get("conformal sets"):
        level = f"; the dotted line is their level, {a.level:.0%}" if a.level is not None else ""
        yield Plot(
            plots_classes.sets(q.curves["conformal sets"], looks),
            f"Conformal sets: how many classes they hold (an empty set says that no class fits), and the share that "
            f"holds the true class, with 95% binomial intervals{level}.",
        )


def _who(q: Question, looks: Mapping[str, Look]) -> str:
    if q.second is None:
        return ""
    return f" Solid: {looks[q.first].label}; dashed: {looks[q.second].label}."


def _binary(report: Report, q: Question, looks: Mapping[str, Look]) -> Iterator[Plot]:
    c, a = q.curves, q.answers[q.first]
    n = int((a.truth == 1).sum())
    if any(c["roc"].values()):
        yield Plot(
            plots_classes.ranking(c["roc"], c["precision-recall"], looks),
            f"ROC with a linear and with a logarithmic false positive rate, and purity against completeness, for "
            f"{n:,} {a.names[1]} and {len(a) - n:,} {a.names[0]}. Shaded: 95% of resampled samples; dotted: chance.",
        )
        yield Plot(
            plots_classes.selection(c["threshold"], c["prevalence"], c["follow-up"], looks),
            "Left: completeness and purity of the objects above a threshold, at this sample's prevalence "
            f"({n / len(a):.3g}), with 95% binomial intervals, purity where ten objects or more are. Middle: purity at "
            "declared prevalences. Right: true objects to expect in a follow-up list of the highest scores, drawn from "
            "a survey of that prevalence; dotted: all of them. Faint where fewer than three false positives stand "
            f"behind a line.{_who(q, looks)}",
        )
    yield from _decisions(q, looks, f"probability of {clean(a.names[1], 24)}")


def _decisions(q: Question, looks: Mapping[str, Look], label: str) -> Iterator[Plot]:
    yield Plot(
        plots_classes.reliability(q.curves["reliability"], looks, label),
        "Reliability: the share that is right in bins of equal numbers of objects against the mean predicted "
        "probability, with 95% binomial intervals, and below how the probabilities are distributed. ECE is compared "
        "with what 95% of perfectly calibrated samples of this size stay below.",
    )
    if len(q.answers[q.first].names) <= 40:
        yield Plot(
            plots_classes.confusion(q.curves["confusion"], looks),
            "Confusion: each row holds the objects of one true class; shares of the row, and below them numbers of "
            "objects.",
        )


def _classes(report: Report, q: Question, looks: Mapping[str, Look]) -> Iterator[Plot]:
    yield Plot(
        plots_classes.by_class(q.curves["by class"], looks),
        "Left: ROC of each class against the rest, with its area (AUROC). Middle and right: of each class (number of "
        "objects) the completeness and the purity of the likeliest class, with 95% binomial intervals.",
    )
    yield from _decisions(q, looks, "probability of the likeliest class")


def _values(report: Report, q: Question, looks: Mapping[str, Look]) -> Iterator[Plot]:
    a = q.answers[q.first]
    unit = f" [{a.unit}]" if a.unit else ""
    yield Plot(
        plots_values.against_truth(q.answers, q.curves["residual"], looks),
        f"Predicted {q.name}{unit} (median of the posterior) and residual against truth. Lines: median and central 68% "
        "in bins of truth; dotted: equality. A pull towards the mean at both ends is what any estimate with noise "
        "shows against truth.",
    )
    if q.curves.get("pit"):
        label = axis(f"{q.name}, predicted", a.unit)
        third = (
            " Right: coverage of the conformal interval in bins of the predicted value."
            if "conformal" in q.curves
            else ""
        )
        yield Plot(
            plots_values.calibration(
                q.curves["pit"], q.curves["coverage"], q.curves.get("conformal", {}), looks, label
            ),
            "PIT, the posterior's distribution function at the truth: flat where the posterior is right; grey holds "
            "95% of the counts if it is. A U means too narrow, a hump too wide, a slope biased. Then the share of "
            f"truths inside central intervals against the nominal share, with 95% binomial intervals.{third}",
        )
    columns = {}
    for name in q.bins:
        values = report.survey.column(name)[q.rows]
        if values.dtype.kind in "iuf" and np.isfinite(values.astype(float)).sum() >= 10:
            made = report.survey.schema.columns.get(name)
            columns[name] = (values.astype(np.float64), "" if made is None else made.unit)
    if columns:
        others = f": black or white {looks[q.first].label}, orange {looks[q.second].label}" if q.second else ""
        yield Plot(
            plots_values.against_columns(columns, q.answers, looks),
            f"Residual of {q.name} against other columns, with median and central 68%{others}.",
        )


def _bins(report: Report, q: Question, looks: Mapping[str, Look], drawn: bool) -> Iterator[Bins]:
    """Each column's drawing, what must be said of its bins, and their table."""
    a = q.answers[q.first]
    for column, rows in q.bins.items():
        own = [b.figures[q.first] for b in rows]
        has = {n for figures in own for n, e in figures.items() if np.isfinite(e.value)}
        names = [n for n in BINNED if n in has][:3]
        if a.level is not None and "conformal coverage" in has:
            names.append("conformal coverage")
        made = report.survey.schema.columns.get(column)
        label = axis(column, "" if made is None else made.unit)
        nominal = {"coverage 68%": 0.68, "bias": 0.0} | ({} if a.level is None else {"conformal coverage": a.level})
        plot = None
        if drawn and len(rows) > 1 and names:
            plot = Plot(
                plots.bins(rows, names, looks, label, nominal),
                f"Figures in bins of {clean(column)}, with 95% intervals; grey bars: numbers of objects"
                + ("; dotted: nominal." if set(names) & set(nominal) else ".")
                + (f" {_alone(q, column)}" if column in q.alone else ""),
            )
        yield column, plot, _alone(q, column), *_bin_table(q, rows)


def _alone(q: Question, column: str) -> str:
    """What the bins of a column mean that one class alone has."""
    if column not in q.alone:
        return ""
    name, a = q.alone[column], q.answers[q.first]
    other = next(n for n in a.names if n != name)
    n = next(b.against for b in q.bins[column])
    return (
        f"Only objects of the class “{clean(name, 24)}” have values of {clean(column)}: those of each bin are held "
        f"against all {n:,} objects of the class “{clean(other, 24)}”. Purity and log loss are left out: they would "
        "follow the size of a bin, since no object of the other class belongs to one."
    )


def _bin_table(q: Question, rows: Sequence[Binned]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    names = list(dict.fromkeys(n for b in rows for n in b.figures[q.first]))
    who = [w for w in (q.first, q.second) if w is not None]
    heads = ("bin", "n", *(f"{n}, {w}" if len(who) > 1 else n for n in names for w in who))
    lines = []
    for b in rows:
        cells = [clean(b.label), f"{b.n:,}{' (few)' if b.n < 100 else ''}"]
        for n in names:
            for w in who:
                e = b.figures[w].get(n)
                verdict = b.paired[n].verdict if w == q.first and n in b.paired else ""
                sign = {"ahead": " ▲", "behind": " ▼"}.get(verdict, "") + (" !" if w == q.first and n in b.miss else "")
                cells.append("–" if e is None else f"{e}{sign}")
        lines.append(tuple(cells))
    return heads, tuple(lines)


def _lists(q: Question, positive: str) -> Iterator[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]]:
    """Tables of purity at declared prevalences and of follow-up lists, of the first."""
    made = q.curves.get("prevalence", {}).get(q.first) or {}
    if made.get("figures"):
        shares = sorted({f["completeness"] for f in made["figures"]})
        rows = []
        for p in dict.fromkeys(f["prevalence"] for f in made["figures"]):
            here = {f["completeness"]: f for f in made["figures"] if f["prevalence"] == p}
            rows.append((f"{p:g}", *(_limited(here[s]["purity"], here[s]["false positives"]) for s in shares)))
        yield (
            f"Purity of {positive} at a declared prevalence",
            ("prevalence", *(f"{s:.0%} complete" for s in shares)),
            tuple(rows),
        )
    made = q.curves.get("follow-up", {}).get(q.first) or {}
    if made.get("figures"):
        sizes = list(dict.fromkeys(f["listed"] for f in made["figures"]))
        rows = []
        for p in dict.fromkeys(f["prevalence"] for f in made["figures"]):
            here = {f["listed"]: f for f in made["figures"] if f["prevalence"] == p}
            rows.append((f"{p:g}", *(_limited(here[n]["true"], here[n]["false positives"], 1) for n in sizes)))
        title = (
            f"Expected true objects ({positive}) in a follow-up list of N, from a survey of {made['survey']:,} objects"
        )
        yield title, ("prevalence", *(f"N = {n:,}" for n in sizes)), tuple(rows)


def _limited(e: Mapping[str, Any], behind: float, digits: int | None = None) -> str:
    """A figure with its interval; marked where few false positives of the sample stand behind it.

    Numbers of objects have `digits` decimals below ten; shares as many as their interval is wide.
    """
    value, low, high = (float("nan") if e[k] is None else float(e[k]) for k in ("value", "low", "high"))
    if not np.isfinite(value):
        return "–"
    ranged = low < high
    if digits is None:
        digits = max(0, 1 - int(np.floor(np.log10(high - low)))) if ranged else 3
    elif value >= 10:
        digits = 0
    text = f"{value:,.{digits}f}" + (f" [{low:,.{digits}f}, {high:,.{digits}f}]" if ranged else "")
    return text + (STAR if behind < 3 else "")


# -- training -----------------------------------------------------------------------------------------------------
def _history(report: Report) -> Plot | None:
    if len(report.history) < 2:
        return None
    known = {"step", "epoch", "loss", "lr", "seconds"}
    score = next((k for k in report.history[-1] if k not in known), "")
    if not score:
        return None
    return Plot(
        plots.history(report.history, score),
        f"Training: the loss of the training batches since the last look, and the {words.minus(score)} of the "
        "validation fold; the weights with the best score were kept.",
    )


def _learning(report: Report) -> Plot | None:
    if len(report.learning) < 2:
        return None
    shared = [n for n in report.learning[0][1] if all(n in p[1] for p in report.learning)]
    names = sorted(
        (n for n in shared if n.rpartition(": ")[2] in LEARNT), key=lambda n: LEARNT.index(n.rpartition(": ")[2])
    )[:3]
    if not names:
        return None
    looks = plots.looks(("ours", "classical"), report.names)
    return Plot(
        plots.learning(report.learning, names, looks),
        "Learning curve: figures on the test fold of models trained on nested parts of the training fold, with 95% "
        "intervals of the test sample.",
    )
