"""Support vector machine with a Gaussian kernel on standardised features, its probabilities by Platt's sigmoid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deepsky.baselines._family import Family, Frozen, Kind, rebuild
from deepsky.baselines._truth import Array, Training, best, tensor, train, unconverged

STRENGTHS = (1.0, 10.0)
ROWS = 1024  # objects at a time: a row of kernel values is as long as there are support vectors


@final
class Kernel(Frozen):
    """Sums of Gaussian kernels around support vectors, one a class (against the rest) or target."""

    name = "kernel"
    support: Tensor
    dual: Tensor
    bias: Tensor
    slope: Tensor
    shift: Tensor

    def decision(self, x: Tensor) -> Tensor:
        """(n, machines) of standardised features."""
        gamma, support = float(self.literals["gamma"]), self.support.double()
        length, parts = support.square().sum(1), []
        for part in torch.split(x.double(), ROWS):  # in float64: large coefficients of either sign nearly cancel
            square = part.square().sum(1, keepdim=True) + length - 2 * part @ support.T
            parts.append(F.linear(torch.exp(-gamma * square), self.dual, self.bias))
        return torch.cat(parts)

    def raw(self, x: Tensor) -> Tensor:
        """See `Frozen.raw`."""
        found = self.decision(x)
        if self.kind == "values":
            return found
        p = torch.sigmoid(-(found * self.slope + self.shift))
        if p.shape[1] == 1:
            return torch.cat([1 - p, p], 1)
        return p / p.sum(1, keepdim=True).clamp(min=1e-12)


def fit(
    features: Array,
    target: Array,
    *,
    kind: Kind,
    weights: Array | None = None,
    seed: int = 0,
    balanced: bool = False,
    c: float | None = None,
    gamma: float | None = None,
    exact_to: int = 4000,
    components: int = 1000,
) -> Family:
    """SVC, one class against the rest, with a sigmoid fitted on decisions of three-fold held-out objects; or SVR.

    Parameters
    ----------
    c : ``C`` of scikit-learn. None: the better of 1 and 10, fitted on at most 3,000 objects, on a quarter held out.
    gamma : exp(-gamma d^2); None: 1 / number of features.
    exact_to : with more objects than this the kernel is approximated (Nystroem; Williams & Seeger 2001) and the machine
        on top is linear (ridge regression for values): the exact one takes time as the square of their number.
    components : landmarks of that approximation.
    """

    def one(training: Training) -> Kernel:
        training = training.hardened()
        machine = _Machine(training, gamma or 1.0 / training.x.shape[1], exact_to, components)
        strengths = (c,) if c is not None else STRENGTHS
        return (_regression if kind == "values" else _classification)(training, machine, strengths)

    return train(one, features, target, kind=kind, weights=weights, balanced=balanced, seed=seed)


def from_config(config: Mapping[str, Any]) -> Family:
    """Make it again from `config`, its arrays empty."""
    return rebuild(config, Kernel)


class _Machine:
    """What scikit-learn's estimators see of some objects (kernel values, or landmarks' features), and back again: their
    arrays as kernels around support vectors."""

    def __init__(self, training: Training, gamma: float, exact_to: int, components: int) -> None:
        self.gamma, self.x, self.seed = gamma, training.x.astype(np.float64), training.seed
        self.exact = len(self.x) <= exact_to
        if self.exact:  # once, by a matrix product, for all classes and folds
            length = (self.x**2).sum(1)
            square = length[:, None] + length - 2 * self.x @ self.x.T
            self.seen = np.exp(-gamma * np.maximum(square, 0))
            return
        from sklearn.kernel_approximation import Nystroem

        count = min(components, len(self.x))
        self.landmarks = Nystroem(gamma=gamma, n_components=count, random_state=self.seed).fit(self.x)
        self.seen = self.landmarks.transform(self.x)

    def inputs(self, rows: Array, trained: Array) -> Array:
        """Of `rows`, for an estimator that is or was fitted on the rows `trained`."""
        return np.asarray(self.seen[np.ix_(rows, trained)] if self.exact else self.seen[rows])

    def estimator(self, c: float, values: bool) -> Any:
        from sklearn.linear_model import Ridge
        from sklearn.svm import SVC, SVR, LinearSVC

        if self.exact and values:
            return SVR(C=c, kernel="precomputed", epsilon=0.05)
        if self.exact:
            return SVC(C=c, kernel="precomputed", random_state=self.seed)
        return Ridge(alpha=1 / c) if values else LinearSVC(C=c, dual=False, random_state=self.seed)

    def arrays(self, made: list[Any]) -> tuple[Array, Array, Array]:
        """Support vectors (m, f), dual coefficients (k, m) and biases (k,); None instead of an estimator gives zero."""
        bias = np.array([0.0 if e is None else np.ravel(e.intercept_)[0] for e in made])
        if not self.exact:
            zero = np.zeros(len(self.landmarks.normalization_))
            weight = [zero if e is None else np.ravel(e.coef_) @ self.landmarks.normalization_ for e in made]
            return self.landmarks.components_, np.array(weight), bias
        dual = np.zeros((len(made), len(self.x)))
        for k, e in enumerate(made):
            if e is not None:
                dual[k, e.support_] = np.ravel(e.dual_coef_)
        used = (dual != 0).any(0)
        used[0] |= not used.any()
        return self.x[used], dual[:, used], bias


def _classification(training: Training, machine: _Machine, strengths: tuple[float, ...]) -> Kernel:
    from sklearn.metrics import log_loss

    codes = np.arange(len(training.seen))[1:] if len(training.seen) == 2 else np.arange(len(training.seen))
    y, w = training.y, training.w

    def loss(c: float, rows: Array, held: Array) -> float:
        rows, total = rows[:3000], 0.0
        for code in codes:
            if min((y[rows] == code).sum(), (y[rows] != code).sum()) < 2:
                continue
            e, a, b = _platt(
                machine.estimator(c, False), machine.inputs(rows, rows), y[rows] == code, w[rows], machine.seed
            )
            decision = e.decision_function(machine.inputs(held, rows))
            p = 1 / (1 + np.exp(np.clip(decision * a + b, -30, 30)))
            total += float(log_loss(y[held] == code, p, labels=[False, True], sample_weight=w[held]))
        return total

    made: list[Any] = []
    slope, shift = np.zeros(len(codes)), np.zeros(len(codes))
    with unconverged():
        c = best(strengths, 1.0, loss, training)
        for k, code in enumerate(codes):
            here = y == code
            if min(here.sum(), (~here).sum()) < 2:  # nothing to hold out: the share of the class is all that is known
                share = np.clip(np.average(here, weights=w), 1e-6, 1 - 1e-6)
                made.append(None)
                shift[k] = np.log((1 - share) / share)
                continue
            e, slope[k], shift[k] = _platt(machine.estimator(c, False), machine.seen, here, w, machine.seed)
            made.append(e)
    support, dual, bias = machine.arrays(made)
    arrays = training.common() | {"support": tensor(support), "dual": torch.tensor(dual), "bias": torch.tensor(bias),
                                  "slope": torch.tensor(slope), "shift": torch.tensor(shift)}  # fmt: skip
    return Kernel(training.kind, training.outputs, arrays, {"gamma": machine.gamma, "c": c})


def _platt(estimator: Any, x: Array, y: Array, w: Array, seed: int) -> tuple[Any, float, float]:
    """The machine fitted on all objects, and the sigmoid 1 / (1 + exp(slope f + shift)) of held-out decisions f."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(int(min(3, y.sum(), (~y).sum())), shuffle=True, random_state=seed)
    made = CalibratedClassifierCV(estimator, method="sigmoid", cv=folds, ensemble=False).fit(x, y, sample_weight=w)
    member = made.calibrated_classifiers_[0]
    return member.estimator, float(member.calibrators[0].a_), float(member.calibrators[0].b_)


def _regression(training: Training, machine: _Machine, strengths: tuple[float, ...]) -> Kernel:
    mean, spread = float(training.y.mean()), float(training.y.std()) + 1e-12
    z, w = (training.y[:, 0] - mean) / spread, training.w

    def predicted(c: float, rows: Array, held: Array) -> Array:
        e = machine.estimator(c, True).fit(machine.inputs(rows, rows), z[rows], w[rows])
        return np.asarray(e.predict(machine.inputs(held, rows)))

    def loss(c: float, rows: Array, held: Array) -> float:
        return float(np.mean((predicted(c, rows[:3000], held) - z[held]) ** 2))

    def other(rows: Array, held: Array) -> Array:
        return predicted(c, rows, held) * spread + mean

    with unconverged():
        c = best(strengths, 1.0, loss, training)
        made = machine.estimator(c, True).fit(machine.seen, z, w)
        sigma = training.sigma(training.residuals(other))
    support, dual, bias = machine.arrays([made])
    arrays = training.common() | {"support": tensor(support), "dual": torch.tensor(dual * spread),
                                  "bias": torch.tensor(bias * spread + mean), "sigma": sigma}  # fmt: skip
    return Kernel("values", training.outputs, arrays, {"gamma": machine.gamma, "c": c})
