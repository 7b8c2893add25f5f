"""What a recipe ends in: figures of merit with their definitions, and the four numbers side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepsky.metrics.intervals import Difference, Estimate, bootstrap, paired_difference


@dataclass(frozen=True)
class Measure:
    """A figure of merit: ``function(scores, truth[, weight])``, which way is better, and its definition in words.

    `estimate` and `difference` stand in where a plain bootstrap does not hold, as for TPR0; figures at the very top of
    a list are quoted only with so many `negatives`.
    """

    name: str
    function: Callable[..., Any]
    better: str
    definition: str
    target: float | None = None
    estimate: Callable[..., Estimate] | None = None
    difference: Callable[..., Difference] | None = None
    negatives: int = 0

    def applies(self, truth: np.ndarray) -> bool:
        """Whether there are enough negatives for the figure to mean what it is known for."""
        return not self.negatives or int((truth == 0).sum()) >= self.negatives

    def of(self, scores: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> Estimate:
        """The figure with its interval."""
        if self.estimate is not None:
            return self.estimate(scores, truth, groups)
        return bootstrap(self.function, scores, truth, groups=groups, definition=self.definition)

    def paired(self, a: np.ndarray, b: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> Difference:
        """Whether `a` is ahead of `b` on the same objects."""
        if self.difference is not None:
            return self.difference(a, b, truth, groups)
        return paired_difference(self.function, a, b, truth, groups, better=self.better, definition=self.definition)


@dataclass(frozen=True)
class Published:
    """A figure from the literature; `same_data` only if ours was measured on the very same objects."""

    measure: str
    value: float
    who: str
    source: str
    same_data: bool = False


@dataclass(frozen=True)
class Result:
    """The four numbers of a recipe, by measure, with what they were measured on.

    Attributes
    ----------
    further : by whom and measure, what stands beside the four; `further_paired` against ours, on the same objects, or
        against the "NAME, classical" that answered them.
    """

    recipe: str
    size: str
    real: bool
    data: str
    classical_name: str
    limit_name: str
    published: Mapping[str, Mapping[str, Any]]
    classical: Mapping[str, Estimate]
    ours: Mapping[str, Estimate]
    seeds: Mapping[str, Sequence[float]]
    limit: Mapping[str, Estimate]
    paired: Mapping[str, Difference]
    further: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    further_paired: Mapping[str, Mapping[str, Difference]] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """JSON literals, as they are kept under ``benchmarks/results``."""
        plain, nested = ("classical", "ours", "limit", "paired"), ("further", "further_paired")
        made = {k: v for k, v in vars(self).items() if k not in {*plain, *nested}}
        for name in plain:
            made[name] = {k: v.json() for k, v in getattr(self, name).items()}
        for name in nested:
            made[name] = {w: {k: v.json() for k, v in each.items()} for w, each in getattr(self, name).items()}
        return made

    def __str__(self) -> str:
        kind = "real data" if self.real else "simulation"
        rows: list[tuple[str, ...]] = [("", "published", "classical", "ours", "limit", "ours against classical")]
        for name, ours in self.ours.items():
            given = self.published.get(name)
            word = "-" if given is None else f"{given['value']:g}" if given["same_data"] else f"[{given['value']:g}]"
            paired = self.paired[name].verdict if name in self.paired else ""
            cells = [str(d[name]) if name in d else "-" for d in (self.classical, {name: ours}, self.limit)]
            rows.append((name, word, *cells, paired))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines = [f"{self.recipe} ({self.size}, {kind}: {self.data})", "", *table]
        lines += ["", f"classical: {self.classical_name}; limit: {self.limit_name}"]
        for who, figures in self.further.items():
            held = self.further_paired.get(who, {})
            told = [f"{n} {e}" + (f" ({held[n].verdict})" if n in held else "") for n, e in figures.items()]
            lines.append(f"{who}: {', '.join(told)}")
        if any(not p["same_data"] for p in self.published.values()):
            lines.append("[published]: measured on other data; not to be compared directly")
        if self.size != "full":
            lines.append(f"ours is labelled {self.size}: a first look, not the figure that counts")
        spread = [f"{n} {np.mean(v):.4g} +- {np.std(v, ddof=1):.2g}" for n, v in self.seeds.items() if len(v) > 1]
        if spread:
            lines.append(f"over {len(next(iter(self.seeds.values())))} seeds: " + ", ".join(spread))
        return "\n".join(lines)
