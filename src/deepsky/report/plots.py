"""Figures as inline SVG: one quiet style, text as text, colours that a page can change for dark screens and print."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

if TYPE_CHECKING:
    from deepsky.judging import Binned
    from deepsky.metrics.intervals import Estimate

WIDE = 7.6  # width of a page's column [inch]
# Drawn in these colours and then named, so that the page decides: light, dark or print.
INK, FIRST, SECOND, THIRD = "#101214", "#0f62ac", "#c4570a", "#75757e"
GRID, PAPER = "#e4e4e9", "#fefefd"
NAMED = {INK: "currentColor", FIRST: "var(--first)", SECOND: "var(--second)", THIRD: "var(--third)",
         GRID: "var(--grid)", PAPER: "var(--paper)"}  # fmt: skip
# Of several classes or prevalences: mid-tones that hold on light and dark, after Okabe and Ito (2008)
SEVERAL = ("#2a7fc4", "#d2691e", "#1f9e78", "#b8609b", "#b08a00", "#5b6bc0", "#c0443c", "#6f8f2f")
STYLE: dict[Any, Any] = {
    "font.size": 8.5, "axes.labelsize": 8.5, "axes.titlesize": 8.5, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5, "legend.frameon": False, "legend.handlelength": 1.8, "legend.borderaxespad": 0.3,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "axes.titlelocation": "left",
    "axes.titlepad": 6.0, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "xtick.major.size": 3, "ytick.major.size": 3, "xtick.major.width": 0.7, "ytick.major.width": 0.7,
    "xtick.minor.size": 1.6, "ytick.minor.size": 1.6, "lines.linewidth": 1.5, "lines.markersize": 3.5,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "svg.fonttype": "none", "svg.hashsalt": "deepsky", "text.parse_math": False, "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True, "font.family": ["DejaVu Sans"],
}  # fmt: skip
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Plot:
    """One figure of a page.

    Attributes
    ----------
    svg : inline markup.
    caption : plain text.
    """

    svg: str
    caption: str


@dataclass(frozen=True)
class Look:
    """How somebody's answers are drawn."""

    label: str
    color: str
    dash: str = "-"
    marker: str = "o"


def looks(who: Sequence[str], names: Mapping[str, str]) -> dict[str, Look]:
    """The first in one colour, the second in another and dashed, whatever they are called."""
    styles = ((FIRST, "-", "o"), (SECOND, "--", "s"), (THIRD, ":", "^"))
    found = {}
    for w, style in zip(who, styles, strict=False):
        name = names.get(w, w)
        found[w] = Look(clean(name if w in ("first", "second") or name == w else f"{w} ({name})", 34), *style)
    return found


def clean(words: object, most: int = 60) -> str:
    """Text from a catalogue as it may stand in a figure: no control characters, and not endless."""
    text = "".join(c if c.isprintable() else "·" for c in str(words))
    return text if len(text) <= most else text[: most - 1] + "…"


def axis(name: str, unit: str = "") -> str:
    """The label of an axis."""
    return f"{clean(name, 40)} [{clean(unit, 20)}]" if unit else clean(name, 40)


@contextmanager
def style() -> Iterator[None]:
    """The page's style; glyphs that the layout font lacks are drawn by the reader's own fonts."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Attempting to set identical low and high")  # one value only
        yield


def draw(function: Callable[..., Figure]) -> Callable[..., str]:
    """Turn a function that makes a Figure into one that gives its SVG, both under the page's style."""

    def drawn(*args: Any, **kwargs: Any) -> str:
        with style():
            return svg(function(*args, **kwargs))

    drawn.__doc__, drawn.__name__ = function.__doc__, function.__name__
    return drawn


def svg(figure: Figure) -> str:
    """A figure as inline SVG that takes its colours and its font from the page."""
    out = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None}, dpi=160)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'(<g) id="[^"]*"', r"\1", text)  # the same names would stand in every figure of a page
    for color, named in NAMED.items():
        text = text.replace(color, named)
    width = figure.get_figwidth() * 96
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
                  rf'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" \1 role="img" '
                  rf'style="max-width:{width:.0f}px">', text, count=1)  # fmt: skip
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--sans)", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", text)
    return re.sub(r"\n\s*", "\n", text)


def panels(columns: int, height: float = 2.5, width: float = WIDE) -> tuple[Figure, list[Axes]]:
    """A figure with a row of equal panels."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False).ravel())


# -- axes -----------------------------------------------------------------------------------------------------
def power(x: float, _: object = None) -> str:
    """Powers of ten as they are written, other numbers plainly."""
    if x <= 0:
        return f"{x:g}"
    e = np.log10(x)
    if abs(e - round(e)) > 1e-6:
        return ""
    return f"{x:g}" if -2 <= e <= 3 else "10" + str(round(e)).translate(_RAISED)


def logarithmic(axes: Axes, which: str = "x", *, between: bool = False) -> None:
    """A logarithmic axis with few, plain labels, at powers of ten, or also `between` them at 2 and 5."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    here = axes.xaxis if which == "x" else axes.yaxis
    here.set_major_locator(LogLocator(10, subs=(1, 2, 5) if between else (1,), numticks=6))
    here.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}") if between else FuncFormatter(power))
    here.set_minor_formatter(NullFormatter())


def calm(axes: Axes, x: int = 5, y: int = 5) -> None:
    """Few ticks, at plain numbers."""
    for axis_, scale, most in ((axes.xaxis, axes.get_xscale(), x), (axes.yaxis, axes.get_yscale(), y)):
        if scale == "linear":
            axis_.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))


def errors(points: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    """Values (n,) and the lengths (2, n) of their error bars; none where there is no interval."""
    value = np.array([p.value for p in points])
    ends = np.array([[p.value - p.low, p.high - p.value] for p in points]).T
    return value, np.clip(np.nan_to_num(ends), 0, None)


# -- figures of every kind ------------------------------------------------------------------------------------
@draw
def bins(
    rows: Sequence[Binned],
    names: Sequence[str],
    looks: Mapping[str, Look],
    label: str,
    nominal: Mapping[str, float] | None = None,
) -> Figure:
    """Figures in the bins of one column, with intervals, and the number of objects as bars below."""
    figure, axes = panels(len(names), 2.35)
    plain = any(np.isfinite(b.low) for b in rows)
    rows = [b for b in rows if np.isfinite(b.low)] if plain else rows  # the unmeasured stand in the table
    wide = plain and _spans_decades(rows)
    edges = _edges(rows, wide) if plain else np.array([[i - 0.4, i + 0.4] for i in range(len(rows))])
    on_axis = _power if wide else np.asarray
    at, span = edges.mean(1), float(edges[-1, 1] - edges[0, 0]) or 1.0
    for ax, name in zip(axes, names, strict=True):
        for i, (who, look) in enumerate(looks.items()):
            has = [j for j, b in enumerate(rows) if name in b.figures.get(who, {})]
            if not has:
                continue
            value, bars = errors([rows[j].figures[who][name] for j in has])
            shift = (i - (len(looks) - 1) / 2) * 0.018 * span
            ax.errorbar(on_axis(at[has] + shift), value, bars, color=look.color, fmt=look.marker, ls=look.dash, lw=1.0,
                        elinewidth=0.9, label=look.label)  # fmt: skip
        if nominal and name in nominal:
            ax.axhline(nominal[name], color=INK, lw=0.8, ls=":")
        ax.set_ylabel(name)
        ax.set_xlabel(label)
        calm(ax, 4)
        if not plain:
            ax.set_xticks(at, [clean(b.label.removeprefix(f"{label} "), 12) for b in rows])
            ax.tick_params(axis="x", rotation=40 if len(rows) > 3 else 0)
        if wide:
            logarithmic(ax, between=edges[-1, 1] - edges[0, 0] < 2.5)
        _counts(ax, edges, rows, on_axis)
    if len(looks) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def _spans_decades(rows: Sequence[Binned]) -> bool:
    """Whether the bins, all of positive values, are better told apart on a logarithmic axis."""
    return len(rows) > 2 and rows[0].low > 0 and rows[-1].low >= 8 * rows[0].high


def _power(x: np.ndarray) -> np.ndarray:
    return np.asarray(10.0 ** np.asarray(x))


def _edges(rows: Sequence[Binned], wide: bool) -> np.ndarray:
    """(bins, 2) ends of the bins, logarithms if `wide`; the outer ones are cut where a few outliers would rule the
    axis."""
    edges = np.array([[b.low, b.high] for b in rows], dtype=float)
    edges = np.log10(edges) if wide else edges
    if len(edges) > 2:
        most = 3 * max(float(np.median(edges[:, 1] - edges[:, 0])), 1e-12)
        edges[0, 0] = max(edges[0, 0], edges[0, 1] - most)
        edges[-1, 1] = min(edges[-1, 1], edges[-1, 0] + most)
    return edges


def _counts(ax: Axes, edges: np.ndarray, rows: Sequence[Binned], on_axis: Callable[[np.ndarray], np.ndarray]) -> None:
    """Numbers of objects as bars in the lowest part of a panel."""
    n = np.array([b.n for b in rows], dtype=float)
    at = edges.mean(1)
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.2 * (high - low), high)
    apart = float(np.diff(at).min()) if len(at) > 1 else 1.0
    width = np.maximum(edges[:, 1] - edges[:, 0], 0.5 * apart)  # a bin of one value has no width of its own
    left, right = at - width / 2, at + width / 2
    ax.bar(on_axis(left), 0.12 * n / n.max(), on_axis(right) - on_axis(left), align="edge", color=THIRD, alpha=0.35,
           transform=ax.get_xaxis_transform(), zorder=0.5, edgecolor=PAPER, linewidth=0.8)  # fmt: skip
    rim = 0.02 * (right.max() - left.min())
    ax.set_xlim(*on_axis(np.array([left.min() - rim, right.max() + rim])))
    words = f"n = {n.min():,.0f}" + (f" to {n.max():,.0f}" if n.max() > n.min() else "")
    ax.text(0.98, 0.06, words, transform=ax.transAxes, ha="right", va="center", fontsize=6.5)


@draw
def history(records: Sequence[Mapping[str, Any]], score: str) -> Figure:
    """Training loss and validation score against step."""
    figure, axes = panels(2, 2.1)
    for ax, name, color in ((axes[0], "loss", THIRD), (axes[1], score, FIRST)):
        here = [(h["step"], h[name]) for h in records if isinstance(h.get(name), int | float)]
        if here:
            x, y = np.array(here, dtype=float).T
            ax.plot(x, y, color=color, marker="o", ms=2.2, lw=1.2)
        ax.set_xlabel("step")
        ax.set_ylabel("training loss" if name == "loss" else f"{name.replace('-', '−')}, validation fold")
        calm(ax)
    return figure


@draw
def learning(
    points: Sequence[tuple[int, Mapping[str, Estimate], Mapping[str, Estimate]]],
    names: Sequence[str],
    looks: Mapping[str, Look],
) -> Figure:
    """Figures on the test fold against the number of training objects."""
    figure, axes = panels(len(names), 2.3)
    for ax, name in zip(axes, names, strict=True):
        for i, look in enumerate(list(looks.values())[:2]):
            here = [(p[0], own[name]) for p in points if name in (own := p[1] if i == 0 else p[2])]
            if here:
                value, bars = errors([e for _, e in here])
                n = np.array([x for x, _ in here], dtype=float)
                ax.errorbar(n * (1 + 0.02 * i), value, bars, color=look.color, fmt=look.marker, ls=look.dash,
                            lw=1.2, elinewidth=0.9, label=look.label)  # fmt: skip
        logarithmic(ax)
        sizes = [p[0] for p in points]
        ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
        ax.minorticks_off()
        ax.set_xlabel("training objects")
        ax.set_ylabel(name)
    axes[0].legend()
    return figure


def sky_map(ra: np.ndarray, dec: np.ndarray, folds: np.ndarray | None = None) -> Figure:
    """Where the objects lie: all-sky where they span more than 60 degrees, else a plain map."""
    good = np.isfinite(ra) & np.isfinite(dec)
    ra, dec = ra[good] % 360, dec[good]
    centre = np.rad2deg(np.angle(np.exp(1j * np.deg2rad(ra)).mean())) % 360
    away = (ra - centre + 180) % 360 - 180
    wide = max(np.ptp(away), np.ptp(dec)) > 60
    figure = Figure(figsize=(3.7, 2.2 if wide else 2.6), layout="constrained")
    shared: Any = {"s": float(np.clip(4000 / max(len(ra), 1), 1.0, 9.0)), "linewidths": 0, "rasterized": len(ra) > 800}
    codes = np.zeros(len(ra), int)
    names: list[str] = []
    if folds is not None:
        names, codes = in_order(folds[good])
    if wide:
        ax = figure.add_subplot(projection="aitoff")
        x = -np.deg2rad((ra + 180) % 360 - 180)  # east is left
        y = np.deg2rad(dec)
        ax.set_xticks(np.deg2rad([-120, -60, 0, 60, 120]), ["120°", "60°", "0°", "300°", "240°"])
        ax.set_yticks(np.deg2rad([-60, -30, 0, 30, 60]), ["−60°", "−30°", "0°", "30°", "60°"])
    else:
        ax = figure.add_subplot()
        x, y = centre + away, dec
        ax.set_xlabel("right ascension [deg]")
        ax.set_ylabel("declination [deg]")
        calm(ax, 4, 4)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{round(x % 360, 6):g}"))
    for i in range(max(len(names), 1)):
        ax.scatter(x[codes == i], y[codes == i], color=SEVERAL[i % len(SEVERAL)], alpha=0.7, **shared,
                   label=f"{clean(names[i], 12)} {(codes == i).sum():,}" if names else None)  # fmt: skip
    if not wide:
        ax.invert_xaxis()
        ax.set_aspect(1 / max(float(np.cos(np.deg2rad(np.median(dec)))), 0.1), adjustable="datalim")
    if len(names) > 1:
        figure.legend(loc="outside lower center", ncols=4, markerscale=2, handletextpad=0.1, columnspacing=0.9)
    return figure


sky = draw(sky_map)


def in_order(words: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of folds in their usual order, and the code (n,) of each object."""
    order = {n: i for i, n in enumerate(("train", "valid", "calib", "test"))}
    names = sorted({str(w) for w in words}, key=lambda n: (order.get(n, 9), n))
    where = {n: i for i, n in enumerate(names)}
    return names, np.array([where[str(w)] for w in words], dtype=int)
