"""Training truth made ready for a classical family: weights, unknown labels, unseen classes, one column or several."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepsky.baselines._family import Columns, Constant, Family, Frozen, Kind
from deepsky.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Training:
    """Objects with a known truth.

    Attributes
    ----------
    x : (n, features) float32, finite, standardised unless the family asked not to.
    y : codes (n,) int64 among `seen`, or shares (n, seen) float64; or values (n, targets) float64.
    w : (n,) float64 weights, their mean one.
    seen : codes of the classes that occur; `outputs` counts the others too.
    """

    x: Array
    y: Array
    w: Array
    kind: Kind
    outputs: int
    seen: Array
    typical: Array
    centre: Array
    scale: Array
    seed: int

    @property
    def soft(self) -> bool:
        """The truth of a classification is shares."""
        return self.kind != "values" and self.y.ndim == 2

    @property
    def shares(self) -> Array:
        """(n, seen) the truth of a classification as shares."""
        return self.y if self.soft else np.eye(len(self.seen))[self.y]

    def hardened(self) -> Training:
        """Shares as several objects with one class each, weighted by the share."""
        if not self.soft:
            return self
        rows, codes = np.nonzero(self.y > 0)
        return replace(self, x=self.x[rows], y=codes, w=self.w[rows] * self.y[rows, codes])

    def common(self) -> dict[str, Tensor]:
        """The buffers that every family has."""
        found = {"typical": tensor(self.typical), "centre": tensor(self.centre), "scale": tensor(self.scale)}
        if self.kind != "values":
            prior = np.average(self.shares, axis=0, weights=self.w)
            found |= {"seen": torch.from_numpy(self.seen.copy()), "prior": tensor(prior)}
        return found

    def constant(self) -> Constant:
        """The member that knows nothing of the features."""
        arrays = self.common()
        if self.kind == "values":
            mean = np.average(self.y, axis=0, weights=self.w)
            arrays |= {"value": tensor(mean), "sigma": self.sigma(self.y - mean)}
        else:
            arrays["value"] = arrays["prior"].clone()
        return Constant(self.kind, self.outputs, arrays, {})

    def sigma(self, residuals: Array) -> Tensor:
        """(targets,) root mean square of residuals (n, targets); NaN rows left out, and never zero."""
        known = np.isfinite(residuals).all(1)
        mean = np.average(residuals[known] ** 2, axis=0, weights=self.w[known])
        return tensor(np.maximum(np.sqrt(mean), 1e-6 * self.y.std(0) + 1e-12))

    def folds(self, count: int = 3) -> list[tuple[Array, Array]]:
        """(train, test) rows of a random split into `count` parts."""
        order = np.random.default_rng(self.seed).permutation(len(self.x))
        parts = np.array_split(order, min(count, len(order)))
        return [(np.concatenate([p for p in parts if p is not part]), part) for part in parts if len(parts) > 1]

    def residuals(self, fit_predict: Callable[[Array, Array], Array]) -> Array:
        """(n, targets) truth less prediction of objects held out.

        `fit_predict` maps rows to train on, and rows to predict, to the values of the latter.
        """
        found = np.full(self.y.shape, np.nan)
        for rows, held in self.folds():
            found[held] = self.y[held] - fit_predict(rows, held).reshape(len(held), -1)
        return found if np.isfinite(found).any() else np.asarray(self.y - self.y.mean(0))


def train(
    one: Callable[[Training], Frozen],
    features: Array,
    target: Array,
    *,
    kind: Kind,
    weights: Array | None,
    balanced: bool,
    seed: int,
    standardise: bool = True,
    together: bool = False,
) -> Family:
    """Make the truth ready and fit: one member, or one for every label or target.

    Parameters
    ----------
    one : fits one classification or regression that has at least two classes.
    target : "classes": codes (n,), -1 unknown, or shares (n, classes); "multilabel": zeros, ones or shares (n, labels);
        "values": (n,) or (n, targets). NaN is unknown, and takes the object out of that column only.
    weights : (n,), or None for ones.
    balanced : multiply the weights so that every class has the same sum.
    together : `one` fits several targets at once, where none is unknown.

    Raises
    ------
    InputError : shapes that do not fit, no truth at all, weights that are negative, or `balanced` values.
    """
    x, y, w = _checked(features, target, kind, weights)
    if balanced and kind == "values":
        raise InputError("numbers cannot be balanced", fix="leave balanced out, or give weights")
    finite = np.where(np.isfinite(x), x, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a feature that was never measured
        centre = np.nan_to_num(np.nanmean(finite, 0, dtype=np.float64)).astype(np.float32)
        scale = np.nan_to_num(np.nanstd(finite, 0, dtype=np.float64)).astype(np.float32)
    scale = np.where((scale > 0) & standardise, scale, 1.0).astype(np.float32)
    typical, centre = centre, centre if standardise else np.zeros_like(centre)
    ready = (np.where(np.isnan(finite), typical, finite) - centre) / scale
    base = Training(ready, y, w, kind, 0, np.zeros(0, np.int64), typical, centre, scale, seed)
    if kind == "classes":
        return _member(one, _classes(base, y, balanced))
    if kind == "values" and together and np.isfinite(y).all():
        return one(replace(base, outputs=y.shape[1]))
    if (nothing := ~np.isfinite(y).any(0)).any():
        columns = ", ".join(map(str, np.flatnonzero(nothing)))
        raise InputError("columns of the truth hold nothing", found=f"NaN only in {columns}", fix="leave them out")
    members = []
    for column in y.T:
        known = np.isfinite(column)
        part = replace(base, x=base.x[known], w=base.w[known])
        if kind == "values":
            members.append(one(replace(part, y=column[known, None], outputs=1)))
        else:
            t = column[known].astype(np.float64)
            pair = t.astype(np.int64) if np.isin(t, (0, 1)).all() else np.stack([1 - t, t], 1)
            members.append(_member(one, _classes(replace(part, kind="classes"), pair, balanced, 2)))
    return members[0] if len(members) == 1 and kind == "values" else Columns(kind, list(members))


def _member(one: Callable[[Training], Frozen], training: Training) -> Frozen:
    return one(training) if len(training.seen) > 1 else training.constant()


def _checked(features: Array, target: Array, kind: Kind, weights: Array | None) -> tuple[Array, Array, Array]:
    x = np.asarray(features, dtype=np.float32)
    y = np.asarray(target)
    if kind not in get_args(Kind):
        raise InputError("no such kind of truth", found=kind, known=get_args(Kind))
    if x.ndim != 2 or len(x) != len(y) or len(x) == 0:
        found = f"{x.shape} and {y.shape}"
        raise InputError("features and truth do not fit", found=found, expected="(n, f) and n rows")
    if kind == "values" and y.ndim == 1:
        y = y[:, None]
    if y.ndim != 2 and not (kind == "classes" and y.ndim == 1):
        raise InputError(f"not the truth of {kind}", found=y.shape, expected="(n, columns)")
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(x),) or not np.isfinite(w).all() or (w < 0).any() or not w.sum() > 0:
        raise InputError("weights that cannot be used", found=w.shape, expected=f"({len(x)},) finite, not negative")
    known = y >= 0 if y.ndim == 1 else np.isfinite(y).any(1)  # the rest has no say in the standardisation either
    known &= w > 0
    if not known.any():
        raise InputError("no object has a truth", found=f"{len(x)} objects, all unknown or of weight zero")
    return x[known], y[known], w[known] / w[known].mean()


def _classes(base: Training, y: Array, balanced: bool, outputs: int = 0) -> Training:
    x, w = base.x, base.w
    if y.ndim == 2 and (known := np.isfinite(y).all(1)).any():
        certain = y[known]
        if np.isin(certain, (0, 1)).all() and (certain.sum(1) == 1).all():  # shares of one and zero are codes
            x, w, y, outputs = x[known], w[known], certain.argmax(1), y.shape[1]
    if y.ndim == 1:
        y = y.astype(np.int64)
        outputs = max(outputs, int(y.max()) + 1)
        share = np.bincount(y, w, outputs)
        seen = np.flatnonzero(share > 0)
        y = np.searchsorted(seen, y)
    else:
        known = np.isfinite(y).all(1) & (np.nan_to_num(y) >= 0).all(1) & (np.nansum(y, 1) > 0)
        if not known.any():
            raise InputError("no object has shares of the classes", expected="numbers that are not negative")
        x, w, y = x[known], w[known], y[known] / y[known].sum(1, keepdims=True)
        outputs, share = y.shape[1], (y * w[:, None]).sum(0)
        seen = np.flatnonzero(share > 0)
        y = y[:, seen]
    if balanced:
        factor = share.sum() / (len(seen) * share[seen])
        w = w * (factor[y] if y.ndim == 1 else y @ factor)
    return replace(base, x=x, y=y, w=w / w.mean(), outputs=outputs, seen=seen.astype(np.int64))


def tensor(array: Array) -> Tensor:
    """As a float32 tensor of its own."""
    return torch.tensor(np.asarray(array), dtype=torch.float32)


@contextmanager
def unconverged() -> Iterator[None]:
    """Without scikit-learn's warning that an optimiser stopped early: the figure on held-out data says more."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def best(
    candidates: tuple[float, ...], usual: float, loss: Callable[[float, Array, Array], float], training: Training
) -> float:
    """The candidate with the least loss on a quarter of the objects, looked for until the loss rises.

    `loss` maps a candidate, training rows and test rows to a number. With fewer than forty objects there is no choice:
    it is the usual one.
    """
    if len(candidates) == 1:
        return candidates[0]
    if len(training.x) < 40:
        return usual
    rows, held = training.folds(4)[0]
    losses: list[float] = []
    for candidate in candidates:
        losses.append(loss(candidate, rows, held))
        if losses[-1] > min(losses):
            break
    return candidates[int(np.argmin(losses))]
