"""Gradient boosting of histogram trees (Friedman 2001, as in LightGBM)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deepsky.baselines._family import Family, Kind, rebuild
from deepsky.baselines._trees import Trees, pack
from deepsky.baselines._truth import Array, Training, tensor, train

ENOUGH = 400  # objects from which a tenth is held out to stop on


def fit(
    features: Array,
    target: Array,
    *,
    kind: Kind,
    weights: Array | None = None,
    seed: int = 0,
    balanced: bool = False,
    rounds: int = 300,
    rate: float = 0.06,
    leaves: int = 31,
    leaf: int = 20,
    penalty: float = 1.0,
) -> Family:
    """Trees fitted one after the other to the gradient of the log loss, or of the squared error.

    Parameters
    ----------
    rounds, rate : at most so many trees an output, each counted by this much; with 400 objects or more the rounds end
        when a tenth that is held out gains nothing in ten of them.
    leaves, leaf : most leaves of a tree, and least objects of a leaf.
    penalty : L2, on the leaves' values.
    """

    def estimator(values: bool, n: int, rarest: int, seed: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        made = HistGradientBoostingRegressor if values else HistGradientBoostingClassifier
        return made(
            max_iter=rounds,
            learning_rate=rate,
            max_leaf_nodes=leaves,
            min_samples_leaf=max(1, min(leaf, n // 10)),
            l2_regularization=penalty,
            early_stopping=n >= ENOUGH and rarest >= 10,
            random_state=seed,
        )

    def one(training: Training) -> Trees:
        if kind == "values":
            return _regression(training, estimator)
        return _classification(training.hardened(), estimator)

    return train(one, features, target, kind=kind, weights=weights, balanced=balanced, seed=seed, standardise=False)


def from_config(config: Mapping[str, Any]) -> Family:
    """Make it again from `config`, its arrays empty."""
    return rebuild(config, Trees)


def _arrays(made: Any) -> tuple[dict[str, Any], int]:
    """scikit-learn has no public view of these trees: a test holds our predictions equal to its own."""
    trees = [tree.nodes for each_round in made._predictors for tree in each_round]
    arrays, depth = pack(
        [
            {
                "feature": nodes["feature_idx"],
                "threshold": nodes["num_threshold"],
                "left": nodes["left"],
                "right": nodes["right"],
                "value": nodes["value"][:, None],
            }
            for nodes in trees
        ]
    )
    return {**arrays, "base": tensor(made._baseline_prediction.reshape(-1))}, depth


def _classification(training: Training, estimator: Any) -> Trees:
    rarest = int(np.bincount(training.y).min())
    made = estimator(False, len(training.x), rarest, training.seed).fit(training.x, training.y, training.w)
    arrays, depth = _arrays(made)
    link = "sigmoid" if len(training.seen) == 2 else "softmax"
    literals: dict[str, int | str] = {"depth": depth, "join": "sum", "link": link}
    return Trees(training.kind, training.outputs, training.common() | arrays, literals)


def _regression(training: Training, estimator: Any) -> Trees:
    x, y, w = training.x, training.y[:, 0], training.w

    def other(rows: Array, held: Array) -> Array:
        n = len(rows)
        return np.asarray(estimator(True, n, n, training.seed).fit(x[rows], y[rows], w[rows]).predict(x[held]))

    made = estimator(True, len(x), len(x), training.seed).fit(x, y, w)
    arrays, depth = _arrays(made)
    arrays["sigma"] = training.sigma(training.residuals(other))
    literals: dict[str, int | str] = {"depth": depth, "join": "sum", "link": "none"}
    return Trees("values", training.outputs, training.common() | arrays, literals)
