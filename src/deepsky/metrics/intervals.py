"""Intervals: bootstrap by group, paired differences with their verdict, Wilson, permutation tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from deepsky.errors import InputError
from deepsky.metrics._bootstrap import (
    Difference,
    Metric,
    bootstrap,
    centred,
    codes,
    compared,
    definition_of,
    draw,
    evaluate,
    group_sides,
    measure,
)
from deepsky.metrics._estimate import Estimate, check_level, proportion, wilson
from deepsky.metrics._weights import same_length

__all__ = [
    "Difference", "Estimate", "Permutation", "bootstrap", "paired_difference", "permutation_test", "proportion",
    "wilson",
]  # fmt: skip


def paired_difference(
    metric: Metric,
    a: ArrayLike,
    b: ArrayLike,
    truth: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    better: str = "higher",
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    definition: str | None = None,
    biased: bool = False,
) -> Difference:
    """Whether prediction `a` is ahead of `b` on the same objects, by a paired bootstrap of groups.

    Both figures are computed on the same resampled objects, so that what makes an object hard for both cancels. Not for
    figures that hang on one extreme object: for TPR0 use `tpr0.tpr0_difference`.

    Parameters
    ----------
    metric : ``metric(prediction, truth)`` or, much faster, with ``weight``.
    a, b : predictions of the same n objects, in the same order.
    groups : (n,) what is independent: star, supernova, field.
    better : "higher", "lower", or "zero" (the smaller absolute value, as for a bias).
    biased : the figure is a distance such as ECE, which resampling raises; see `bootstrap`.

    Raises
    ------
    InputError : lengths differ, or `better` is none of the three.
    """
    check_level(level)
    size = measure(better)
    first, second, t = np.asarray(a), np.asarray(b), np.asarray(truth)
    same_length(a=first, b=second, truth=t)
    number, count = codes(groups, len(t))
    one, two = float(metric(first, t)), float(metric(second, t))
    values = [
        size(evaluate(metric, (first, t), times)) - size(evaluate(metric, (second, t), times))
        for times in (draw(number, count, replicates, seed) if count > 1 else ())
    ]
    held = np.concatenate(values) if values else np.zeros(0)
    if biased:
        held = centred(held, float(size(one) - size(two)))
    words = "difference of: " + (definition_of(metric) if definition is None else definition)
    return compared(held, one, two, better, level, words, len(t), None if groups is None else count)


@dataclass(frozen=True)
class Permutation:
    """A two-sample permutation test.

    Attributes
    ----------
    value : the statistic of the two samples as they are.
    p_value : chance of one at least as large when the samples are exchangeable: (1 + larger) / (1 + permutations).
    permutations : how many were drawn; the smallest possible p-value is 1 / (1 + permutations).
    """

    value: float
    p_value: float
    permutations: int


def permutation_test(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    a: ArrayLike,
    b: ArrayLike,
    groups_a: ArrayLike | None = None,
    groups_b: ArrayLike | None = None,
    *,
    permutations: int = 999,
    two_sided: bool = True,
    seed: int = 0,
) -> Permutation:
    """Exact level test that two samples come from one population; groups change sides whole.

    Parameters
    ----------
    statistic : ``statistic(a, b)``, e.g. the difference of medians; `two_sided` takes its absolute value.
    groups_a, groups_b : labels of what is independent, both or neither; no group may stand in both samples.

    Source: Phipson & Smyth 2010 for the p-value.
    """
    x, y = np.asarray(a), np.asarray(b)
    if (groups_a is None) != (groups_b is None):
        raise InputError("groups of one sample only", fix="give groups of both, or of none")
    pooled = np.concatenate([x, y])
    side = np.arange(len(pooled)) < len(x)
    number, count = codes(
        None if groups_a is None or groups_b is None else np.concatenate([groups_a, groups_b]), len(pooled)
    )
    of_group = group_sides(number, count, side)
    rng = np.random.default_rng(seed)

    def at(sides: np.ndarray) -> float:
        here = sides[number]
        value = float(statistic(pooled[here], pooled[~here]))
        return abs(value) if two_sided else value

    seen = at(of_group)
    larger = sum(at(rng.permutation(of_group)) >= seen - 1e-12 * abs(seen) for _ in range(permutations))
    return Permutation(seen, (1 + larger) / (1 + permutations), permutations)
