"""Logistic regression on standardised features; for values ridge regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deepsky.baselines._family import Family, Frozen, Kind, rebuild
from deepsky.baselines._truth import Array, Training, best, tensor, train, unconverged

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # weak ones last: they take longest


@final
class Linear(Frozen):
    """Linear in the features; a softmax for classes."""

    name = "linear"
    weight: Tensor
    bias: Tensor

    def raw(self, x: Tensor) -> Tensor:
        """See `Frozen.raw`."""
        found = F.linear(x, self.weight, self.bias)
        return found if self.kind == "values" else torch.softmax(found, 1)


def fit(
    features: Array,
    target: Array,
    *,
    kind: Kind,
    weights: Array | None = None,
    seed: int = 0,
    balanced: bool = False,
    c: float | None = None,
    steps: int = 300,
) -> Family:
    """Multinomial logistic regression with an L2 penalty, one against the rest for several labels; or ridge regression.

    Parameters
    ----------
    c : inverse strength of the penalty, ``C`` of scikit-learn (1 / alpha for values). None: the best of .001, .01, .1
        and 1 on a quarter of the objects that is held out for the choice.
    steps : at most so many of the optimiser.
    """

    def one(training: Training) -> Linear:
        if kind == "values":
            return _ridge(training, (c,) if c is not None else STRENGTHS)
        return _logistic(training.hardened(), (c,) if c is not None else STRENGTHS, steps)

    return train(one, features, target, kind=kind, weights=weights, balanced=balanced, seed=seed, together=True)


def from_config(config: Mapping[str, Any]) -> Family:
    """Make it again from `config`, its arrays empty."""
    return rebuild(config, Linear)


def _logistic(training: Training, strengths: tuple[float, ...], steps: int) -> Linear:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    x, y, w = training.x.astype(np.float64), training.y, training.w

    trial = LogisticRegression(max_iter=100, warm_start=True)

    def loss(c: float, rows: Array, held: Array) -> float:
        held = held[np.isin(y[held], y[rows])]
        fitted = trial.set_params(C=c).fit(x[rows], y[rows], w[rows])
        return float(log_loss(y[held], fitted.predict_proba(x[held]), labels=fitted.classes_, sample_weight=w[held]))

    with unconverged():
        c = best(strengths, 0.1, loss, training)
        made = LogisticRegression(C=c, max_iter=steps, tol=1e-6).fit(x, y, w)
    weight, bias = made.coef_, made.intercept_
    if len(weight) == 1:  # of two classes scikit-learn keeps the second only
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    arrays = training.common() | {"weight": tensor(weight), "bias": tensor(bias)}
    return Linear(training.kind, training.outputs, arrays, {"c": c})


def _ridge(training: Training, strengths: tuple[float, ...]) -> Linear:
    from sklearn.linear_model import Ridge

    x, y, w = training.x.astype(np.float64), training.y, training.w
    spread = y.std(0) + 1e-12

    def loss(c: float, rows: Array, held: Array) -> float:
        guess = Ridge(alpha=1 / c).fit(x[rows], y[rows], w[rows]).predict(x[held]).reshape(len(held), -1)
        return float((((guess - y[held]) / spread) ** 2).mean())

    c = best(strengths, 0.1, loss, training)

    def other(rows: Array, held: Array) -> Array:
        return np.asarray(Ridge(alpha=1 / c).fit(x[rows], y[rows], w[rows]).predict(x[held]))

    made = Ridge(alpha=1 / c).fit(x, y, w)
    arrays = training.common() | {
        "weight": tensor(made.coef_.reshape(y.shape[1], -1)),
        "bias": tensor(np.atleast_1d(made.intercept_)),
        "sigma": training.sigma(training.residuals(other)),
    }
    return Linear("values", training.outputs, arrays, {"c": c})
