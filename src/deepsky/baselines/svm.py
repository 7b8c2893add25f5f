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
    c : ``C`` of scikit-learn. None: the better of 1 and 10 on a quarter that is held out (of at most 4,000 objects).
    gamma : exp(-gamma d^2); None: 1 / number of features.
    exact_to : with more objects than this the kernel is approximated (Nystroem; Williams & Seeger 2001) and the machine
        on top is linear (ridge regression for values): the exact one takes time as the square of their number.
    components : landmarks of that approximation.
    """

    def one(training: Training) -> Kernel:
        machine = _Machine(gamma or 1.0 / training.x.shape[1], exact_to, components)
        strengths = (c,) if c is not None else STRENGTHS
        if kind == "values":
            return _regression(training, machine, strengths)
        return _classification(training.hardened(), machine, strengths)

    return train(one, features, target, kind=kind, weights=weights, balanced=balanced, seed=seed)


def from_config(config: Mapping[str, Any]) -> Family:
    """Make it again from `config`, its arrays empty."""
    return rebuild(config, Kernel)


class _Machine:
    """Estimators of scikit-learn, and their arrays as kernels around support vectors."""

    def __init__(self, gamma: float, exact_to: int, components: int) -> None:
        self.gamma, self.exact_to, self.components = gamma, exact_to, components

    def exact(self, n: int) -> bool:
        return n <= self.exact_to

    def basis(self, training: Training) -> Any:
        """Landmarks fitted on all objects, or None for the exact kernel."""
        if self.exact(len(training.x)):
            return None
        from sklearn.kernel_approximation import Nystroem

        count = min(self.components, len(training.x))
        made = Nystroem(gamma=self.gamma, n_components=count, random_state=training.seed)
        return made.fit(training.x.astype(np.float64))

    def estimator(self, basis: Any, c: float, values: bool, seed: int) -> Any:
        from sklearn.linear_model import Ridge
        from sklearn.svm import SVC, SVR, LinearSVC

        if basis is None:
            if values:
                return SVR(C=c, gamma=self.gamma, epsilon=0.05)
            return SVC(C=c, gamma=self.gamma, random_state=seed)
        return Ridge(alpha=1 / c) if values else LinearSVC(C=c, dual=False, random_state=seed)

    def arrays(self, basis: Any, made: list[Any], x: Array) -> tuple[Array, Array, Array]:
        """Support vectors (m, f), dual coefficients (k, m) and biases (k,); None instead of an estimator gives zero."""
        bias = np.array([0.0 if e is None else np.ravel(e.intercept_)[0] for e in made])
        if basis is not None:
            zero = np.zeros(len(basis.normalization_))
            weight = [zero if e is None else np.ravel(e.coef_) @ basis.normalization_ for e in made]
            return basis.components_, np.array(weight), bias
        dual = np.zeros((len(made), len(x)))
        for k, e in enumerate(made):
            if e is not None:
                dual[k, e.support_] = np.ravel(e.dual_coef_)
        used = (dual != 0).any(0)
        used[0] |= not used.any()
        return x[used], dual[:, used], bias


def _classification(training: Training, machine: _Machine, strengths: tuple[float, ...]) -> Kernel:
    from sklearn.metrics import log_loss

    basis = machine.basis(training)
    inputs = training.x if basis is None else basis.transform(training.x.astype(np.float64))
    codes = np.arange(len(training.seen))[1:] if len(training.seen) == 2 else np.arange(len(training.seen))
    y, w = training.y, training.w

    def loss(c: float, rows: Array, held: Array) -> float:
        rows, total = rows[:3000], 0.0
        for code in codes:
            if len(np.unique(y[rows] == code)) < 2:
                continue
            trial = machine.estimator(basis, c, False, training.seed)
            trial, a, b = _platt(trial, inputs[rows], y[rows] == code, w[rows], training.seed)
            p = 1 / (1 + np.exp(np.clip(trial.decision_function(inputs[held]) * a + b, -30, 30)))
            total += float(log_loss(y[held] == code, p, labels=[False, True], sample_weight=w[held]))
        return total

    made: list[Any] = []
    slope, shift = np.zeros(len(codes)), np.zeros(len(codes))
    with unconverged():
        c = best(strengths, loss, training)
        for k, code in enumerate(codes):
            here = y == code
            if min(here.sum(), (~here).sum()) < 2:  # nothing to hold out: the share of the class is all that is known
                share = np.clip(np.average(here, weights=w), 1e-6, 1 - 1e-6)
                made.append(None)
                shift[k] = np.log((1 - share) / share)
                continue
            e = machine.estimator(basis, c, False, training.seed)
            e, slope[k], shift[k] = _platt(e, inputs, here, w, training.seed)
            made.append(e)
    support, dual, bias = machine.arrays(basis, made, training.x)
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
    basis = machine.basis(training)
    inputs = training.x if basis is None else basis.transform(training.x.astype(np.float64))
    mean, spread = float(training.y.mean()), float(training.y.std()) + 1e-12
    z, w = (training.y[:, 0] - mean) / spread, training.w

    def loss(c: float, rows: Array, held: Array) -> float:
        rows = rows[:3000]
        e = machine.estimator(basis, c, True, training.seed).fit(inputs[rows], z[rows], w[rows])
        return float(np.mean((e.predict(inputs[held]) - z[held]) ** 2))

    def other(x_: Array, y_: Array, w_: Array, to: Array) -> Array:
        seen, new = (x_, to) if basis is None else (basis.transform(t.astype(np.float64)) for t in (x_, to))
        e = machine.estimator(basis, c, True, training.seed).fit(seen, (y_[:, 0] - mean) / spread, w_)
        return np.asarray(e.predict(new) * spread + mean)

    with unconverged():
        c = best(strengths, loss, training)
        made = machine.estimator(basis, c, True, training.seed).fit(inputs, z, w)
        sigma = training.sigma(training.residuals(other))
    support, dual, bias = machine.arrays(basis, [made], training.x)
    arrays = training.common() | {"support": tensor(support), "dual": torch.tensor(dual * spread),
                                  "bias": torch.tensor(bias * spread + mean), "sigma": sigma}  # fmt: skip
    return Kernel("values", training.outputs, arrays, {"gamma": machine.gamma, "c": c})
