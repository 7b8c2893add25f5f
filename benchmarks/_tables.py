"""The tables: of recipes into README.md, of recipes and speed into docs/benchmarks.md; from the kept results alone."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import deepsky
from benchmarks._machine import RESULTS, ROOT, words
from benchmarks._measure import Row
from benchmarks._speed import names, rows_of
from deepsky import recipe, registry
from deepsky.errors import InputError
from deepsky.io import read_json
from deepsky.metrics.intervals import Estimate

BEGIN, END = "<!-- recipes: made by python -m benchmarks table -->", "<!-- /recipes -->"
NOT_MEASURED = "n/m"
STALE = "†"
Result = Mapping[str, Any]
LEGEND = """\
Figures in [brackets] were published for other data. Intervals are 95%, objects resampled by group; *ahead* and
*behind* stand only where the interval of the difference on the same objects excludes zero. Ours is the first seed, with
mean and standard deviation over all of them. n/m: not measured."""
PAGE = """\
# Benchmarks

This page is written by `python -m benchmarks table` from the results that lie under `benchmarks/results`.

## Published systems

`python -m benchmarks recipe NAME` measures one at its full setting with three seeds."""
SPEED = """\
## Speed

`make bench` measures all of it. A ratio is that of the medians of processor seconds with one thread, the two sides in
turn in one process; that of the wall clock stands beside it.
"""


def write(root: Path = ROOT, results: Path = RESULTS) -> list[Path]:
    """Write README.md and docs/benchmarks.md anew; give the files that changed.

    Raises
    ------
    InputError : README.md has not the two marks between which the table belongs.
    """
    changed = []
    for path, text in made(root, results).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def made(root: Path = ROOT, results: Path = RESULTS) -> dict[Path, str]:
    """What the files would hold now."""
    readme, page = root / "README.md", root / "docs" / "benchmarks.md"
    known = load(results)
    speed = read_json(results / "speed.json")["benchmarks"] if (results / "speed.json").exists() else {}
    return {readme: _between(readme, recipes_table(known)), page: _page(known, speed)}


def _between(path: Path, table: Sequence[str]) -> str:
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError("no place for the table of recipes", file=path, expected=f"the lines {BEGIN} and {END}")
    return "\n".join([f"{before}{BEGIN}", *table, f"{END}{after}"])


# -- recipes ----------------------------------------------------------------------------------------------------------
def load(results: Path = RESULTS) -> dict[str, Result | None]:
    """The kept result of every recipe of ours by name, None where there is none; real data first."""
    home = Path(deepsky.__file__).parent
    found = {n for n in registry.names("recipes") if registry.where("recipes", n).is_relative_to(home)}
    kept = {p.stem: read_json(p) for p in sorted(results.glob("*.json")) if p.stem != "speed"}
    lost = sorted(set(kept) - found)
    if lost:
        raise InputError("results of recipes that are not there", file=results, found=lost, known=sorted(found))
    return {n: kept.get(n) for n in sorted(found, key=lambda n: (not recipe.find(n).real, n))}


def recipes_table(known: Mapping[str, Result | None]) -> list[str]:
    """The four numbers of every recipe, a line a figure, and what must be said of them."""
    head = ("recipe", "figure", "published", "classical", "ours", "limit", "ours - classical", "data")
    lines = [cells for name, result in known.items() for cells in _lines(name, result)]
    out = ["", *_markdown(head, lines), "", *LEGEND.splitlines()]
    if any(result and _stale(name, result) for name, result in known.items()):
        out += [f"{STALE} measured before the recipe's code last changed."]
    return [*out, ""]


def _lines(name: str, result: Result | None) -> Iterable[tuple[str, ...]]:
    here = recipe.find(name)
    published = {p.measure: vars(p) for p in here.published} if result is None else result["published"]
    figures = [m.name for m in here.measures] if result is None else list(result["ours"])
    kind = "**real**" if (here.real if result is None else result["real"]) else "simulation"
    first = f"`{name}`{STALE if result and _stale(name, result) else ''}"
    for number, figure in enumerate(figures):
        head = (first if number == 0 else "", figure, _published(published.get(figure)))
        if result is None:
            yield (*head, *[NOT_MEASURED] * 4, kind)
            continue
        ours = result["ours"][figure]
        yield (
            *head,
            _estimate(result["classical"].get(figure)),
            _estimate(ours) + _seeds(result["seeds"].get(figure, ())),
            _estimate(result["limit"].get(figure)),
            _verdict(result["paired"].get(figure)),
            f"{kind}, n = {ours['n']:,}",
        )
    for who in result.get("further", {}) if result else ():
        if _rivalled(result, who):
            classical, paired = (
                result["further"][f"{who}{recipe.CLASSICAL}"],
                result.get("further_paired", {}).get(who, {}),
            )
            for figure, ours in result["further"][who].items():
                cells = (_estimate(classical.get(figure)), _estimate(ours), "-", _verdict(paired.get(figure)))
                yield ("", f"{figure}, {who}", "-", *cells, f"{kind}, n = {ours['n']:,}")


def _published(given: Mapping[str, Any] | None) -> str:
    if given is None:
        return "-"
    return f"{given['value']:g}" if given["same_data"] else f"[{given['value']:g}]"


def _estimate(given: Mapping[str, Any] | None) -> str:
    return "-" if given is None else str(Estimate.from_json(given))


def _verdict(paired: Mapping[str, Any] | None) -> str:
    return "-" if paired is None else f"*{paired['verdict']}*: {_estimate(paired['estimate'])}"


def _seeds(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "; 1 seed"
    spread = np.std(values, ddof=1)
    return f"; {len(values)} seeds {np.mean(values):.4g} ± {spread:.2g}"


def _stale(name: str, result: Result) -> bool:
    return bool(result["provenance"]["key"] != recipe.key(recipe.find(name)))


def _details(name: str, result: Result) -> list[str]:
    """What lies behind the figures of one recipe."""
    p, here = result["provenance"], recipe.find(name)
    better = {m.name: m.better for m in here.measures}
    lines = []
    for figure, ours in result["ours"].items():
        target, value = result["targets"].get(figure), ours["value"]
        reached = "-" if target is None else f"{target:g}: {_reached(value, target, better.get(figure))}"
        source = result["published"].get(figure)
        seeds = ", ".join(f"{v:.4g}" for v in result["seeds"].get(figure, ()))
        who = "-" if source is None else f"{source['who']}, {source['source']}"
        lines.append((figure, ours["definition"], seeds, reached, who))
    folds = ", ".join(f"{count:,} {fold}" for fold, count in p["objects"].items())
    hours = ", ".join(f"{s:,.0f} s" for s in p["training_seconds"])
    note = f" {here.notes}" if here.notes else ""
    return [
        f"### {name}: {here.question}",
        "",
        f"{'Real data' if result['real'] else 'Simulation'}: {result['data']}; {folds}. Classical: "
        f"{result['classical_name']}. Limit: {result['limit_name']}. Training took {hours}.{note}",
        "",
        *_markdown(("figure", "definition", "ours, each seed", "target", "published by"), lines),
        "",
        *_further(result),
        " ".join([words(p), *(_same_since(s) for s in p.get("same", ()))]),
        "",
    ]


def _same_since(shown: Mapping[str, str]) -> str:
    return f"Code was edited since; `{shown['command']}` found nothing changed at commit {shown['commit'][:10]}."


def _further(result: Result) -> list[str]:
    """What was measured beside the four numbers."""
    lines = []
    for who, figures in result.get("further", {}).items():
        paired = result.get("further_paired", {}).get(who, {})
        for figure, estimate in figures.items():
            held = paired.get(figure)
            against = "-" if held is None else f"{who}{recipe.CLASSICAL}" if _rivalled(result, who) else "ours"
            lines.append((who, figure, _estimate(estimate), against, _verdict(held)))
    return [*_markdown(("beside it", "figure", "value", "against", ""), lines), ""] if lines else []


def _rivalled(result: Result, who: str) -> bool:
    """Whether a classical system answered what `who` answered."""
    return f"{who}{recipe.CLASSICAL}" in result.get("further", {})


def _reached(value: float | None, target: float, better: str | None) -> str:
    if value is None or better is None:
        return "not judged"
    if better == "zero":
        return "reached" if abs(value) <= abs(target) else "missed"
    return "reached" if (value >= target if better == "higher" else value <= target) else "missed"


# -- speed ------------------------------------------------------------------------------------------------------------
def speed_table(rows: Iterable[Row]) -> list[str]:
    """What, ours, the peer or limit, the ratio by processor seconds and by the wall clock, target, met or missed."""
    head = ("what", "ours", "peer or limit", "ratio", "by the wall clock", "target", "")
    return _markdown(head, [_speed_cells(row) for row in rows])


def _speed_cells(row: Row) -> tuple[str, ...]:
    ours = f"{row.ours.name}: {_figure(row, row.ours.values)}"
    peer = "-" if row.peer is None else f"{row.peer.name}: {_figure(row, row.peer.values)}"
    wall = "-" if row.ratio_wall is None else _ratio(row, row.ratio_wall)
    sign = "at most" if row.at_most else "at least"
    target = "-" if row.target is None else f"{sign} {row.target:g}{' s' if row.kind == 'value' else ''}"
    ratio = _ratio(row, row.ratio)
    if row.kind == "interval":
        ratio, target = f"{row.ratio:+.4f} [{row.low:+.4f}, {row.high:+.4f}]", "interval reaches zero"
    verdict = {True: "met", False: "**missed**", None: "-"}[row.met]
    return (row.what + (f" ({row.note})" if row.note else ""), ours, peer, ratio, wall, target, verdict)


def _ratio(row: Row, value: float) -> str:
    if row.kind == "value":
        return f"{value:.3f} s"
    return f"{value:.3g}" if value >= 0.1 else f"{value:.2g}"


def _figure(row: Row, values: Sequence[float]) -> str:
    middle = float(np.median(values))
    if row.unit == "MB":
        return f"{middle:,.0f} MB"
    if row.kind == "interval":
        return ", ".join(f"{v:.4f}" for v in values)
    if row.objects and middle > 0:
        return f"{row.objects / middle:,.0f} objects/s"
    return f"{middle:.3g} s"


# -- the page ---------------------------------------------------------------------------------------------------------
def _page(known: Mapping[str, Result | None], speed: Mapping[str, Any]) -> str:
    out = [*PAGE.splitlines(), *recipes_table(known)]
    for name, result in known.items():
        out += _details(name, result) if result else []
    out += [*SPEED.splitlines(), ""]
    for name in names():
        first, _, rest = description(name).partition("\n")
        out += [f"### {first.rstrip('.')}", "", *([rest.strip(), ""] if rest.strip() else [])]
        if name in speed:
            out += [*speed_table(rows_of(speed[name])), "", words(speed[name]["origin"]), ""]
        else:
            out += ["Not measured yet.", ""]
    return "\n".join(out).rstrip() + "\n"


def description(name: str) -> str:
    """What a benchmark says of itself, read without importing it."""
    return ast.get_docstring(ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8"))) or ""


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *(line(cells) for cells in lines)]
