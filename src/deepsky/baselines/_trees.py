"""Ensembles of decision trees as arrays, walked for all objects and all trees at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from deepsky.baselines._family import Family, Frozen, Kind
from deepsky.baselines._truth import Array, Training, train

CELLS = 200_000  # objects x trees at a time
BIG = np.finfo(np.float32).max  # threshold of a leaf; finite, since a saved model holds finite numbers only


@final
class Trees(Frozen):
    """Trees (t, nodes), padded. A node sends x[feature] <= threshold to ``left`` and the rest to the node after it.

    A leaf sends everything to itself. ``value`` (t * nodes, k) is averaged over the trees ("mean"), or summed over
    those of one output (t = rounds * k) and added to ``base`` ("sum").
    """

    name = "trees"
    feature: Tensor
    threshold: Tensor
    left: Tensor
    value: Tensor
    base: Tensor

    def raw(self, x: Tensor) -> Tensor:
        """See `Frozen.raw`."""
        trees = len(self.feature)
        found = torch.cat([self._join(self._leaves(part)) for part in torch.split(x, max(1, CELLS // trees))])
        if self.literals["link"] == "sigmoid":
            p = torch.sigmoid(found)
            return torch.cat([1 - p, p], 1)
        return torch.softmax(found, 1) if self.literals["link"] == "softmax" else found

    def _leaves(self, x: Tensor) -> Tensor:
        """(n, trees) the leaf of every object, as a row of ``value``."""
        n, features = x.shape
        trees, nodes = self.feature.shape
        flat, start = x.reshape(-1), torch.arange(n, device=x.device)[:, None] * features
        root = torch.arange(trees, device=x.device) * nodes
        at = root.expand(n, trees).reshape(-1)
        feature, threshold, left = self.feature.reshape(-1), self.threshold.reshape(-1), self.left.reshape(-1)
        row = start.expand(n, trees).reshape(-1)
        for _ in range(int(self.literals["depth"])):
            seen = flat.index_select(0, row + feature.index_select(0, at))
            at = left.index_select(0, at) + (seen > threshold.index_select(0, at))
        return at.reshape(n, trees)

    def _join(self, leaves: Tensor) -> Tensor:
        n, trees = leaves.shape
        found = self.value.index_select(0, leaves.reshape(-1)).reshape(n, trees, self.value.shape[1])
        if self.literals["join"] == "mean":
            return found.mean(1)
        k = self.base.shape[0]
        return found.reshape(n, trees // k, k).sum(1) + self.base


def pack(trees: list[Mapping[str, Array]]) -> tuple[dict[str, Tensor], int]:
    """Arrays of `Trees`, and the depth of the deepest.

    A tree has ``feature``, ``threshold``, ``left`` and ``right`` (-1 or 0 at a leaf), each (nodes,), and ``value``
    (nodes, k).

    Siblings are put beside each other, so that one index serves both.
    """
    ordered = [_breadth_first(t) for t in trees]
    nodes = max(len(o[0]) for o in ordered)
    count, k = len(trees), trees[0]["value"].shape[1]
    feature = np.zeros((count, nodes), np.int64)
    threshold = np.full((count, nodes), BIG, np.float32)
    left = np.arange(count * nodes, dtype=np.int64).reshape(count, nodes)
    value = np.zeros((count, nodes, k), np.float32)
    for i, (tree, (order, child, _)) in enumerate(zip(trees, ordered, strict=True)):
        inner = np.flatnonzero(child >= 0)
        feature[i, inner] = tree["feature"][order[inner]]
        threshold[i, inner] = _below(tree["threshold"][order[inner]])
        left[i, inner] = child[inner] + i * nodes
        value[i, : len(order)] = tree["value"][order]
    arrays = {
        "feature": torch.from_numpy(feature),
        "threshold": torch.from_numpy(threshold),
        "left": torch.from_numpy(left),
        "value": torch.from_numpy(value.reshape(count * nodes, k)),
    }
    return arrays, max(o[2] for o in ordered)


def _breadth_first(tree: Mapping[str, Array]) -> tuple[Array, Array, int]:
    """Old numbers of the nodes in the new order, the new number of each one's left child or -1, and the depth."""
    left, right = (tree[side].astype(np.int64) for side in ("left", "right"))
    order, children = [np.zeros(1, np.int64)], []
    level, count, depth = order[0], 1, 0
    while True:
        inner = left[level] > 0
        child = np.full(len(level), -1)
        child[inner] = count + 2 * np.arange(inner.sum())
        children.append(child)
        if not inner.any():
            return np.concatenate(order), np.concatenate(children), depth
        level = np.stack([left[level[inner]], right[level[inner]]], 1).reshape(-1)
        order.append(level)
        count, depth = count + len(level), depth + 1


def _below(threshold: Array) -> Array:
    """The largest float32 not above a float64 threshold: float32 features then fall on the same side."""
    t = np.clip(np.asarray(threshold, np.float64), -BIG, BIG)
    rounded = t.astype(np.float32)
    return np.where(rounded > t, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def fit_forest(
    kind_of_forest: Literal["random", "extra"],
    features: Array,
    target: Array,
    *,
    kind: Kind,
    weights: Array | None,
    seed: int,
    balanced: bool,
    trees: int,
    leaf: int,
    share: float | None,
    jobs: int,
    smooth: bool,
) -> Family:
    """A forest of scikit-learn, with its out-of-bag residuals as sigma; see `random_forest.fit`."""

    def one(training: Training) -> Trees:
        from sklearn import ensemble

        values = kind == "values" or training.soft  # shares are averaged like numbers
        word = {"random": "RandomForest", "extra": "ExtraTrees"}[kind_of_forest]
        made = getattr(ensemble, word + ("Regressor" if values else "Classifier"))
        out_of_bag = kind == "values" and len(training.x) >= 20
        forest = made(
            n_estimators=trees,
            min_samples_leaf=leaf,
            max_features=share or (1 / 3 if kind == "values" else "sqrt"),
            bootstrap=True,
            random_state=training.seed,
            n_jobs=jobs,
        )
        y = training.y[:, 0] if training.y.ndim == 2 and training.y.shape[1] == 1 else training.y
        # weights that are all one are not the same as none: scikit-learn draws its bootstrap samples by them
        forest.fit(training.x, y, training.w if np.ptp(training.w) > 0 else None)
        arrays, depth = pack([_members(e.tree_, values) for e in forest.estimators_])
        arrays = training.common() | arrays | {"base": torch.zeros(arrays["value"].shape[1])}
        literals: dict[str, int | float | str] = {"depth": depth, "join": "mean", "link": "none"}
        if kind == "values":
            residuals = training.y - forest.predict(training.x).reshape(training.y.shape)
            arrays["sigma"] = training.sigma(_out_of_bag(forest, training) if out_of_bag else residuals)
        else:
            literals["shrink"] = 1 / (trees + 1) if smooth else 0.0
        return Trees(training.kind, training.outputs, arrays, literals)

    return train(one, features, target, kind=kind, weights=weights, balanced=balanced, seed=seed, standardise=False,
                 together=True)  # fmt: skip


def _members(tree: Any, values: bool) -> dict[str, Array]:
    value = tree.value[:, :, 0] if values else tree.value[:, 0, :]
    return {
        "feature": tree.feature,
        "threshold": tree.threshold,
        "left": tree.children_left,
        "right": tree.children_right,
        "value": value if values else value / value.sum(1, keepdims=True),
    }


def _out_of_bag(forest: Any, training: Training) -> Array:
    """Residuals from the trees that did not see an object; NaN where all of them did."""
    n = len(training.x)
    total, count = np.zeros(training.y.shape), np.zeros(n)
    for member, drawn in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        out = np.bincount(drawn, minlength=n) == 0
        total[out] += member.predict(training.x[out]).reshape(out.sum(), -1)
        count += out
    return np.where(count[:, None] > 0, training.y - total / np.maximum(count, 1)[:, None], np.nan)
