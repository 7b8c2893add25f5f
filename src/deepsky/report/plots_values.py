"""Figures of values: prediction and residual against truth, PIT, coverage, residual against other columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from deepsky.report.plots import FIRST, INK, SECOND, THIRD, Look, axis, calm, draw, panels

if TYPE_CHECKING:
    from deepsky.judging import Answers

Curves = Mapping[str, Mapping[str, Any]]
FEW = 400  # objects up to which each is a point


def _ramp(color: str) -> Colormap:
    """From nearly clear to full: it lies on light and on dark paper."""
    rgb = tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    mid = tuple(0.75 * c + 0.25 for c in rgb)  # lighter: it must be seen on a dark page too
    return LinearSegmentedColormap.from_list("ramp", [(*mid, 0.18), (*mid, 0.95)])


def _cloud(
    ax: Axes, x: np.ndarray, y: np.ndarray, color: str, extent: tuple[float, float, float, float], tall: float,
    across: int = 40,
) -> None:  # fmt: skip
    """Points where there are few, else hexagons by the logarithm of their numbers; `tall` is the panel's y / x."""
    if len(x) <= FEW:
        ax.scatter(x, y, s=7, color=color, alpha=0.55, linewidths=0, rasterized=True)
    else:
        grid = (across, max(4, round(across * tall / 1.73)))
        ax.hexbin(x, y, gridsize=grid, bins="log", mincnt=1, cmap=_ramp(color), extent=extent, linewidths=0.1,
                  rasterized=True)  # fmt: skip
    ax.set_xlim(extent[:2])
    ax.set_ylim(extent[2:])


def _range(*arrays: np.ndarray, wide: float = 0.05, share: float = 0.002) -> tuple[float, float]:
    """Limits that hold all but the outermost few."""
    x = np.concatenate([a[np.isfinite(a)] for a in arrays])
    if not len(x):
        return 0.0, 1.0
    low, high = np.quantile(x, (share, 1 - share))
    pad = wide * (high - low) or abs(low) * 0.1 or 1.0
    return float(low - pad), float(high + pad)


def _band(ax: Axes, made: Mapping[str, Any], color: str = INK) -> None:
    """16, 50 and 84% of the residual in bins."""
    q = np.array(made["quantiles"], dtype=float).reshape(-1, 3)
    if len(q) < 2:
        return
    ax.plot(made["x"], q[:, 1], color=color, lw=1.3)
    for j in (0, 2):
        ax.plot(made["x"], q[:, j], color=color, lw=0.8, ls="--")


@draw
def against_truth(answers: Mapping[str, Answers], made: Curves, looks: Mapping[str, Look]) -> Figure:
    """Prediction (above) and residual (below) against truth, a column each."""
    asked = [w for w in looks if w in answers]
    figure = Figure(figsize=(min(7.6, 3.8 * len(asked)), 5.0), layout="constrained")
    grid = figure.add_gridspec(2, len(asked), height_ratios=(1.7, 1))
    first = answers[asked[0]]
    name, unit = first.names[0], first.unit
    span = _range(first.truth, *(answers[w].scores for w in asked))
    rest = _range(*(answers[w].residual for w in asked), share=0.005)
    reach = max(abs(rest[0]), abs(rest[1]))
    for i, who in enumerate(asked):
        a, look = answers[who], looks[who]
        ax = figure.add_subplot(grid[0, i])
        _cloud(ax, a.truth, a.scores, look.color, (*span, *span), 0.86)
        ax.plot(span, span, color=THIRD, lw=0.9, ls=":")
        q = np.array(made[who]["quantiles"], dtype=float).reshape(-1, 3)
        x = np.array(made[who]["x"])
        scale = (1 + x)[:, None] if a.redshift else 1.0
        _band(ax, {"x": x, "quantiles": x[:, None] + q * scale})
        ax.set(ylabel=axis(f"{name}, predicted", unit), title=look.label)
        ax.tick_params(labelbottom=False)
        below = figure.add_subplot(grid[1, i], sharex=ax)
        _cloud(below, a.truth, a.residual, look.color, (*span, -reach, reach), 0.5)
        below.axhline(0, color=THIRD, lw=0.9, ls=":")
        _band(below, made[who])
        below.set(xlabel=axis(f"{name}, true", unit))
        below.set_ylabel("Δz / (1 + z)" if a.redshift else axis("predicted − true", unit))
        calm(ax)
        calm(below, y=4)
    return figure


@draw
def calibration(pit: Curves, coverage: Curves, conformal: Curves, looks: Mapping[str, Look], label: str) -> Figure:
    """PIT histograms with the band of uniformity, coverage against nominal, conformal coverage by predicted value."""
    asked = [w for w in looks if w in pit]
    bound = [w for w in looks if w in conformal]
    figure, axes = panels(len(asked) + 1 + bool(bound), 2.5)
    for ax, who in zip(axes, asked, strict=False):
        c, look = pit[who], looks[who]
        edges, counts = np.array(c["edges"]), np.array(c["counts"], dtype=float)
        ax.axhspan(c["low"], c["high"], color=THIRD, alpha=0.25, lw=0)
        ax.stairs(counts, edges, color=look.color, fill=True, alpha=0.3, lw=0)
        ax.stairs(counts, edges, color=look.color, lw=1.2)
        ax.set(xlim=(0, 1), ylim=(0, 1.25 * max(counts.max(), c["high"])), xlabel="PIT", title=look.label)
        ax.set_ylabel("objects" if ax is axes[0] else "")
        calm(ax, 3, 4)
    last = axes[len(asked)]
    last.plot([0, 1], [0, 1], color=THIRD, lw=0.9, ls=":")
    for who in asked:
        c, look = coverage[who], looks[who]
        y = np.array(c["share"], dtype=float)
        bars = np.clip([y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]], 0, None)
        last.errorbar(c["nominal"], y[:, 0], bars, color=look.color, fmt=look.marker, ls=look.dash, lw=1.0,
                      elinewidth=0.9)  # fmt: skip
    last.set(xlim=(0, 1), ylim=(0, 1), xlabel="nominal central share", ylabel="share of truths in it")
    calm(last, 3, 4)
    for who in bound:
        c, look = conformal[who], looks[who]
        y = np.array(c["share"], dtype=float)
        bars = np.clip([y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]], 0, None)
        axes[-1].errorbar(c["x"], y[:, 0], bars, color=look.color, fmt=look.marker, ls=look.dash, lw=1.0,
                          elinewidth=0.9)  # fmt: skip
        if c["level"] is not None:
            axes[-1].axhline(c["level"], color=INK, lw=0.8, ls=":")
    if bound:
        axes[-1].set(xlabel=label, ylabel="conformal coverage", ylim=(None, 1.005))
        calm(axes[-1], 3, 4)
    return figure


@draw
def against_columns(
    columns: Mapping[str, tuple[np.ndarray, str]], answers: Mapping[str, Answers], looks: Mapping[str, Look]
) -> Figure:
    """Residual of the first against other columns, with running quantiles of everybody."""
    from_here = list(columns)[:3]
    figure, axes = panels(len(from_here), 2.6)
    first = next(iter(answers.values()))
    rest = _range(first.residual, share=0.005)
    for ax, name in zip(axes, from_here, strict=True):
        x, unit = columns[name]
        good = np.isfinite(x)
        _cloud(ax, x[good], first.residual[good], FIRST, (*_range(x[good]), *rest), 0.28 * len(from_here),
               120 // max(len(from_here), 2))  # fmt: skip
        ax.axhline(0, color=THIRD, lw=0.9, ls=":")
        for who, look in looks.items():
            if who in answers:
                _band(ax, _running(x[good], answers[who].residual[good]), INK if look.color == FIRST else SECOND)
        ax.set_xlabel(axis(name, unit))
        ax.set_ylabel("Δz / (1 + z)" if first.redshift else axis("predicted − true", first.unit))
        calm(ax, 4)
    return figure


def _running(x: np.ndarray, y: np.ndarray, most: int = 15) -> dict[str, Any]:
    order = np.argsort(x, kind="stable")
    parts = [p for p in np.array_split(order, max(1, min(most, len(x) // 25))) if len(p)]
    return {
        "x": [float(np.median(x[p])) for p in parts],
        "quantiles": [np.quantile(y[p], (0.16, 0.5, 0.84)).tolist() for p in parts],
    }
