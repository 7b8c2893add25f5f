"""Figures of classes: ROC, precision-recall, declared prevalences, follow-up lists, confusion, reliability, sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepsky.report.plots import (
    FIRST,
    GRID,
    INK,
    PAPER,
    SEVERAL,
    THIRD,
    Look,
    calm,
    clean,
    draw,
    logarithmic,
    panels,
    power,
)

Curves = Mapping[str, Mapping[str, Any]]
FLOOR = 0.02  # purities below which the axis is logarithmic
SELECTED = 10  # objects above a threshold below which their purity is not drawn
DASHES = ("-", "--", "-.", ":")


@draw
def ranking(roc: Curves, pr: Curves, looks: Mapping[str, Look]) -> Figure:
    """ROC with a linear and a logarithmic false positive rate, and precision-recall."""
    figure, (plain, deep, right) = panels(3, 2.75)
    lowest = 0.1
    for who, look in looks.items():
        c = roc.get(who) or {}
        if not c.get("fpr"):
            continue
        x, y, low, high = (np.array(c[k], dtype=float) for k in ("fpr", "tpr", "low", "high"))
        lowest = min(lowest, float(x[x > 0].min()))
        for ax in (plain, deep):
            seen = x >= 0 if ax is plain else x > 0
            ax.plot(x[seen], y[seen], color=look.color, ls=look.dash, label=look.label, drawstyle="steps-post")
            if np.isfinite(low).any():
                ax.fill_between(x[seen], low[seen], high[seen], color=look.color, alpha=0.16, lw=0, step="post")
        p = pr.get(who)
        if p:
            right.plot(p["completeness"], p["purity"], color=look.color, ls=look.dash)
            right.axhline(p["prevalence"], color=THIRD, lw=0.8, ls=":")
    plain.plot([0, 1], [0, 1], color=THIRD, lw=0.8, ls=":")
    grid = np.geomspace(lowest, 1, 60)
    deep.plot(grid, grid, color=THIRD, lw=0.8, ls=":")
    logarithmic(deep)
    deep.set_xlim(lowest, 1)
    for ax in (plain, deep):
        ax.set_xlabel("false positive rate")
        ax.set_ylabel("true positive rate")
        ax.set_ylim(0, 1.02)
    plain.set_xlim(0, 1)
    right.set(xlabel="completeness", ylabel="purity, at this sample's prevalence", xlim=(0, 1), ylim=(0, 1.02))
    for ax in (plain, right):
        calm(ax)
    figure.legend(*plain.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


@draw
def selection(threshold: Curves, prevalence: Curves, follow_up: Curves, looks: Mapping[str, Look]) -> Figure:
    """Completeness and purity against threshold, purity at declared prevalences, true objects in a follow-up list."""
    figure, (left, middle, right) = panels(3, 2.9)
    for who, look in looks.items():
        t = threshold.get(who)
        if t:
            for name, color in (("completeness", SEVERAL[2]), ("purity", SEVERAL[3])):
                y = np.array([[np.nan if v is None else v for v in row] for row in t[name]], dtype=float)
                if name == "purity":
                    y[np.array(t["selected"]) < SELECTED] = np.nan
                first = look.color == FIRST
                left.plot(t["threshold"], y[:, 0], color=color, ls=look.dash, lw=1.5 if first else 1.0,
                          label=name if first else None)  # fmt: skip
                if first:
                    left.fill_between(t["threshold"], y[:, 1], y[:, 2], color=color, alpha=0.16, lw=0)
    left.set(xlabel="threshold on the probability", ylabel="completeness, purity", xlim=(0, 1), ylim=(0, 1.02))
    left.legend(loc="lower center")
    for who, look in looks.items():
        _prevalences(middle, prevalence.get(who) or {}, "completeness", "purity", look)
        _prevalences(right, follow_up.get(who) or {}, "listed", "true", look)
    middle.set(xlabel="completeness", ylabel="purity at a declared prevalence", xlim=(0, 1))
    _pure(middle, prevalence)
    listed = next((f["listed"] for f in follow_up.values() if f), [1, 10])
    survey = next((f["survey"] for f in follow_up.values() if f), 0)
    right.plot(listed, listed, color=THIRD, lw=0.8, ls=":")
    logarithmic(right, "x")
    logarithmic(right, "y")
    right.set(xlabel=f"follow-up list, of {survey:,} objects", ylabel="expected true objects in it", ylim=(0.5, None))
    calm(left)
    calm(middle)
    handles, labels = middle.get_legend_handles_labels()
    figure.legend(handles, [f"prevalence {v}" for v in labels], loc="outside upper right", ncols=4)
    return figure


def _pure(ax: Axes, prevalence: Curves) -> None:
    """A linear axis of purity, or a logarithmic one where the rarest objects would lie on its floor."""
    ends = [c["purity"][-1] for made in prevalence.values() if made for c in made["curves"]]
    lowest = min((p for p in ends if p is not None and p > 0), default=1.0)
    if lowest > FLOOR:
        ax.set_ylim(0, 1.02)
    else:
        logarithmic(ax, "y")
        ax.set_ylim(10 ** np.floor(np.log10(lowest)), 1.2)


def _prevalences(ax: Axes, made: Mapping[str, Any], x: str, y: str, look: Look) -> None:
    """One line a prevalence; faint where fewer than three false positives stand behind it."""
    for i, c in enumerate(made.get("curves", ())):
        value = np.array([np.nan if v is None else v for v in c[y]], dtype=float)
        sure = np.array(c["resolved"], dtype=bool)
        first = look.dash == "-"
        ax.plot(made[x], value, color=SEVERAL[i], ls=look.dash, lw=1.0, alpha=0.35)
        ax.plot(made[x], np.where(sure, value, np.nan), color=SEVERAL[i], ls=look.dash, lw=1.5 if first else 1.0,
                label=power(c["prevalence"]) if first else None)  # fmt: skip


@draw
def confusion(made: Curves, looks: Mapping[str, Look]) -> Figure:
    """Counts, and shares of the true class as shade."""
    asked = [w for w in looks if w in made]
    names = [clean(n, 16) for n in made[asked[0]]["names"]]
    k = len(names)
    side = float(np.clip(0.34 * k + 1.0, 2.2, 3.7))
    figure, axes = panels(len(asked), side + 0.25, width=min(7.6, (side + 0.9) * len(asked)))
    small = 8.0 if k <= 3 else 7.0 if k <= 6 else 5.5
    for ax, who in zip(axes, asked, strict=True):
        counts = np.array(made[who]["counts"], dtype=float)
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        for i in range(k):
            for j in range(k):
                ax.fill_between([j - 0.5, j + 0.5], i - 0.5, i + 0.5, color=looks[who].color, lw=0,
                                alpha=0.06 + 0.84 * share[i, j])  # fmt: skip
                if k <= 12:
                    words = f"{share[i, j]:.0%}\n{counts[i, j]:,.0f}" if k <= 6 else f"{share[i, j]:.0%}"
                    ax.text(j, i, words, ha="center", va="center", fontsize=small, linespacing=1.25,
                            color=PAPER if share[i, j] > 0.72 else INK)  # fmt: skip
        ax.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), aspect="equal")
        ax.set(xlabel="likeliest class", ylabel="true class")
        turned = max(map(len, names)) > 7 or k > 5
        ax.set_xticks(range(k), names, rotation=40 if turned else 0, ha="right" if turned else "center")
        ax.set_yticks(range(k), names)
        ax.tick_params(length=0)
        ax.grid(False)
        for side_ in ax.spines.values():
            side_.set_visible(False)
        ax.set_title(looks[who].label)
    return figure


@draw
def reliability(made: Curves, looks: Mapping[str, Look], label: str) -> Figure:
    """Share of positives against predicted probability with binomial intervals; the histogram of p below."""
    asked = [w for w in looks if w in made]
    figure = Figure(figsize=(3.3 * len(asked) if len(asked) < 3 else 7.6, 3.6), layout="constrained")
    grid = figure.add_gridspec(2, len(asked), height_ratios=(3.2, 1))
    steep = any(max(made[w]["counts"], default=0) > 20 * max(np.median(made[w]["counts"]), 1) for w in asked)
    for i, who in enumerate(asked):
        c, look = made[who], looks[who]
        ax, below = figure.add_subplot(grid[0, i]), figure.add_subplot(grid[1, i])
        ax.plot([0, 1], [0, 1], color=THIRD, lw=0.8, ls=":")
        y = np.array(c["share"], dtype=float).reshape(-1, 3)
        bars = np.clip([y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]], 0, None)
        ax.errorbar(c["mean"], y[:, 0], bars, color=look.color, fmt=look.marker, elinewidth=0.9, ls=look.dash, lw=1.0)
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02), title=look.label)
        ax.tick_params(labelbottom=False)
        edges = np.array(c["edges"])
        below.bar(edges[:-1], c["counts"], np.diff(edges), align="edge", color=look.color, alpha=0.45, lw=0)
        below.set(xlim=(-0.01, 1.01), xlabel=label)
        if steep:
            below.set_yscale("symlog", linthresh=10)
            ticks = [0, 10, *(t for t in (100, 1000, 10_000, 100_000, 1_000_000) if t < 1.5 * max(c["counts"]))]
            below.set_yticks(ticks, [f"{t:,}" for t in ticks])
            below.minorticks_off()
        if i == 0:
            ax.set_ylabel("share that is right" if "likeliest" in label else "share of positives")
            below.set_ylabel("objects")
        words = f"ECE {c['ece']:.3f}"
        if c.get("ece by chance") is not None:
            words += f"\nby chance < {c['ece by chance']:.3f}"
        ax.text(0.04, 0.96, words, transform=ax.transAxes, va="top", fontsize=7.5)
    return figure


@draw
def sets(made: Curves, looks: Mapping[str, Look]) -> Figure:
    """How many classes a conformal set holds, and how often it holds the true one, by true class."""
    asked = [w for w in looks if w in made]
    names = made[asked[0]]["names"]
    figure, (left, right) = panels(2, float(np.clip(0.24 * len(names) + 1.5, 2.2, 5)))
    for i, who in enumerate(asked):
        c, look = made[who], looks[who]
        size = np.array(c["sizes"], dtype=float)
        shift = (i - (len(asked) - 1) / 2) * 0.36
        left.bar(np.arange(len(size)) + shift, size / size.sum(), 0.34, color=look.color, alpha=0.75, label=look.label)
        shares = [*c["coverage"], c["whole"]]
        value = np.array([np.nan if s["value"] is None else s["value"] for s in shares], dtype=float)
        ends = np.array([[s["low"], s["high"]] for s in shares], dtype=float).T
        at = np.arange(len(shares)) + 0.6 * shift
        right.errorbar(value, at, xerr=np.clip([value - ends[0], ends[1] - value], 0, None), fmt=look.marker,
                       color=look.color, elinewidth=0.9, ls="none")  # fmt: skip
    level = made[asked[0]].get("level")
    if level is not None:
        right.axvline(level, color=INK, lw=0.8, ls=":")
    right.set_yticks(range(len(names) + 1), [clean(n, 18) for n in names] + ["all"])
    right.set(xlabel="share of sets that hold the true class", xlim=(None, 1.005), ylim=(len(names) + 0.6, -0.6))
    left.set(xlabel="classes in the set", ylabel="share of objects")
    left.set_xticks(range(len(names) + 1) if len(names) < 12 else range(0, len(names) + 1, 5))
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


@draw
def by_class(made: Curves, looks: Mapping[str, Look]) -> Figure:
    """Each class against the rest: ROC of the first, completeness and purity of everybody."""
    asked = [w for w in looks if w in made]
    c = made[asked[0]]
    names: Sequence[str] = c["names"]
    figure, (left, middle, right) = panels(3, float(np.clip(0.2 * len(names) + 1.9, 2.9, 5.5)))
    lowest = 0.1
    shown = np.argsort([-n for n in c["n"]], kind="stable")[:16]
    for i in sorted(int(s) for s in shown):
        x, y = (np.array(c["roc"][i][k], dtype=float) for k in ("fpr", "tpr"))
        if not len(x):
            continue
        lowest = min(lowest, float(x[x > 0].min(initial=1.0)))
        value = c["auroc"][i]["value"]
        words = f"{clean(names[i], 14)} {value:.3f}" if value is not None else clean(names[i], 14)
        left.plot(x, y, color=SEVERAL[i % 8], ls=DASHES[i // 8 % 4], lw=1.2, drawstyle="steps-post", label=words)
    logarithmic(left)
    left.set(xlim=(lowest, 1), ylim=(0, 1.02), xlabel="false positive rate", ylabel="true positive rate")
    left.set_title("one class against the rest")
    left.legend(fontsize=6.3 if len(names) > 5 else 7.5, loc="lower right", title=None, labelspacing=0.25)
    for i, who in enumerate(asked):
        for ax, name in ((middle, "completeness"), (right, "purity")):
            shares = made[who][name]
            value = np.array([np.nan if s["value"] is None else s["value"] for s in shares], dtype=float)
            ends = np.array([[s["low"], s["high"]] for s in shares], dtype=float).T
            bars = np.clip(np.nan_to_num([value - ends[0], ends[1] - value]), 0, None)
            at = np.arange(len(names)) + (i - (len(asked) - 1) / 2) * 0.25
            ax.errorbar(value, at, xerr=bars, fmt=looks[who].marker, color=looks[who].color, elinewidth=0.9, ls="none",
                        label=looks[who].label)  # fmt: skip
            ax.set(xlabel=f"{name} of the likeliest class", xlim=(0, 1.02), ylim=(len(names) - 0.4, -0.6))
            ticks = [f"{clean(n, 14)} ({m:,})" for n, m in zip(names, c["n"], strict=True)]
            ax.set_yticks(range(len(names)), ticks if ax is middle else [])
            ax.grid(axis="y", visible=False)
            for y0 in range(len(names) - 1):
                ax.axhline(y0 + 0.5, color=GRID, lw=0.5)
    if len(asked) > 1:
        figure.legend(*middle.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure
