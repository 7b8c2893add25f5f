"""Nearest neighbours in standardised features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from deepsky.baselines._family import Family, Frozen, Kind, rebuild
from deepsky.baselines._truth import Array, Training, tensor, train

CELLS = 8_000_000  # distances at a time


@final
class Neighbours(Frozen):
    """Weighted mean of the truth of the nearest training objects."""

    name = "neighbours"
    points: Tensor
    truth: Tensor
    weight: Tensor

    def raw(self, x: Tensor) -> Tensor:
        """See `Frozen.raw`."""
        k = int(self.literals["k"])
        rows = max(1, CELLS // len(self.points))
        return torch.cat([self._mean(part, _nearest(part, self.points, k)) for part in torch.split(x, rows)])

    def _mean(self, x: Tensor, near: Tensor) -> Tensor:
        w = self.weight[near]
        return (self.truth[near] * w[..., None]).sum(1) / w.sum(1, keepdim=True)


def _nearest(x: Tensor, points: Tensor, k: int) -> Tensor:
    """(n, k) rows of the nearest points: candidates by a matrix product, then their distances without its rounding."""
    rough = points.square().sum(1) - 2 * x @ points.T
    near = rough.topk(min(k + 16, len(points)), largest=False).indices
    exact = (x[:, None].double() - points[near].double()).square().sum(-1)
    return near.gather(1, exact.topk(k, largest=False).indices)


def fit(
    features: Array,
    target: Array,
    *,
    kind: Kind,
    weights: Array | None = None,
    seed: int = 0,
    balanced: bool = False,
    k: int = 15,
    most: int = 50_000,
    smooth: bool = True,
) -> Family:
    """Shares of the classes, or means, of the `k` nearest training objects.

    Parameters
    ----------
    most : training objects kept; of more, so many are drawn at random.
    smooth : let the prior count as one neighbour more, so that no class is excluded by a handful of objects.
    """

    def one(training: Training) -> Neighbours:
        rows = np.arange(len(training.x))
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(training.seed).choice(len(rows), most, replace=False))
        points, w = tensor(training.x[rows]), tensor(training.w[rows])
        w = w.clamp(min=1e-12)  # neighbours that all count nothing still have a mean
        count = min(k, len(rows) - 1) if kind == "values" else min(k, len(rows))
        count = max(count, 1)
        arrays = training.common() | {"points": points, "weight": w}
        literals: dict[str, int | float] = {"k": count}
        if kind == "values":
            truth = tensor(training.y[rows])
            arrays |= {"truth": truth, "sigma": training.sigma(_left_out(training, rows, truth, w, count))}
        else:
            arrays["truth"] = tensor(training.shares[rows])
            literals["shrink"] = 1 / (count + 1) if smooth else 0.0
        return Neighbours(training.kind, training.outputs, arrays, literals)

    return train(one, features, target, kind=kind, weights=weights, balanced=balanced, seed=seed, together=True)


def from_config(config: Mapping[str, Any]) -> Family:
    """Make it again from `config`, its arrays empty."""
    return rebuild(config, Neighbours)


def _left_out(training: Training, rows: Array, truth: Tensor, w: Tensor, k: int) -> Array:
    """Residuals of training objects from neighbours other than themselves, of at most 5,000 of them."""
    found = np.full(training.y.shape, np.nan)
    points = tensor(training.x[rows])
    if len(rows) < 2:
        return np.asarray(training.y - training.y.mean(0))
    step = max(1, len(rows) // 5000)
    for part in torch.split(torch.arange(0, len(rows), step), max(1, CELLS // len(points))):
        near = _nearest(points[part], points, k + 1)
        # the object itself, or the last where equal objects crowd it out
        own = near == part[:, None]
        own[:, -1] |= ~own.any(1)
        others = near[~own].reshape(len(part), k)
        mean = (truth[others] * w[others][..., None]).sum(1) / w[others].sum(1, keepdim=True)
        found[rows[part.numpy()]] = (truth[part] - mean).numpy()
    return found
