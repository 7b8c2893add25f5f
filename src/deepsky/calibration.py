"""Calibration: temperatures, prior correction, conformal sets and intervals, fitted on objects that training never saw.

Each is a frozen value with `apply`, `arrays` (what is saved) and `from_arrays`. Where something cannot be calibrated,
None stands in its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_expit, log_softmax, ndtr, ndtri, softmax

from deepsky.errors import InputError

__all__ = [
    "ConformalInterval", "ConformalPIT", "ConformalSet", "Temperature", "conformal_quantile", "correct_prior",
    "estimate_prior",
]  # fmt: skip
Arrays = Mapping[str, np.ndarray]


# -- temperature --------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Temperature:
    """Logits are divided by exp(log_t) and shifted before they become probabilities (Guo+2017; Alexandari+2020).

    A temperature mends how sure a network is; a shift of each class what it learnt of their shares, where training saw
    other shares than the objects that it is calibrated on.

    Attributes
    ----------
    log_t : (1,) one temperature, or (k,) one for each class; these and shifts may change the likeliest class.
    shift : (k,) added to the scaled logits, with a mean of zero; (0,) for none.
    """

    log_t: np.ndarray
    shift: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def fit(
        cls,
        logits: ArrayLike,
        truth: ArrayLike,
        *,
        per_class: bool = False,
        shifted: bool = True,
        prior: float | None = 1.0,
    ) -> Self:
        """The temperature, and the shifts, of the highest likelihood.

        Parameters
        ----------
        logits : (n, k), or (n,) of class 1 against class 0.
        truth : (n,) class codes.
        shifted : fit shifts too, for (n, k) logits.
        prior : sigma of a normal prior on log_t and shifts, worth about one object: it keeps a small sample that is
            classified without a mistake from asking for a temperature of zero. None for the pure maximum of the
            likelihood, with a temperature within exp(-4.6) to exp(4.6).
        """
        x, y = _logits(logits, truth)
        strength = 0.0 if prior is None else 1 / prior**2
        size = x.shape[1] if x.ndim == 2 and per_class else 1
        shifts = x.shape[1] if x.ndim == 2 and shifted else 0

        def loss(given: np.ndarray) -> tuple[float, np.ndarray]:
            log_t, shift = given[:size] if len(given) > 1 else given, given[size:]
            warm = x / np.exp(log_t)
            scaled = warm + shift if len(shift) else warm
            if x.ndim == 1:
                value = -log_expit(np.where(y == 1, scaled, -scaled)).sum()
                slope = np.array([-((expit(scaled) - y) * warm).sum()])
            else:
                logp = log_softmax(scaled, axis=1)
                value = -logp[np.arange(len(y)), y].sum()
                pull = np.exp(logp)
                pull[np.arange(len(y)), y] -= 1
                each = -(pull * warm).sum(0)
                slope = each if len(log_t) > 1 else each.sum(keepdims=True)
                slope = np.concatenate([slope, pull.sum(0)]) if len(shift) else slope
            return float(value + strength * (given**2).sum() / 2), slope + strength * given

        # one temperature: a coarse look first, since in log t the loss need not be convex
        coarse = np.linspace(-4.6, 4.6, 47)
        start = coarse[int(np.argmin([loss(np.array([t]))[0] for t in coarse]))]
        ends = (max(start - 0.4, -4.6), min(start + 0.4, 4.6))
        one = minimize_scalar(lambda t: loss(np.array([t]))[0], bounds=ends, method="bounded", options={"xatol": 1e-8})
        if size + shifts == 1:
            return cls(np.array([float(one.x)]))
        first = np.concatenate([np.full(size, float(one.x)), np.zeros(shifts)])
        bounds = [(-4.6, 4.6)] * size + [(-20.0, 20.0)] * shifts
        found = np.asarray(minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds).x, dtype=np.float64)
        return cls(found[:size], found[size:] - found[size:].mean() if shifts else np.zeros(0))

    def apply(self, logits: ArrayLike) -> np.ndarray:
        """(n, k) logits -> (n, k) probabilities; (n,) logits of class 1 -> (n,) its probability."""
        x = np.asarray(logits, dtype=np.float64) / np.exp(self.log_t)
        x = x + self.shift if len(self.shift) else x
        found: np.ndarray = expit(x) if x.ndim == 1 else softmax(x, axis=1)
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """What is saved."""
        return {"log_t": self.log_t, "shift": self.shift}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The inverse of `arrays`; other entries are left alone."""
        return cls(*(np.asarray(arrays[n], dtype=np.float64) for n in ("log_t", "shift") if n in arrays))


def _logits(logits: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(logits, dtype=np.float64), np.asarray(truth)
    most = x.shape[1] if x.ndim == 2 else 2
    _check_codes(y, len(x), most)
    if x.ndim not in (1, 2) or not len(x) or not np.isfinite(x).all():
        raise InputError("finite logits of one object or more are needed", found=x.shape, expected="(n, k) or (n,)")
    return x, y.astype(np.int64)


def _check_codes(y: np.ndarray, n: int, classes: int) -> None:
    whole = y.dtype.kind in "biu"
    if y.shape != (n,) or not whole or (n and not (y.min() >= 0 and y.max() < classes)):
        raise InputError(f"class codes 0 to {classes - 1} of {n} objects needed", found=f"{y.dtype}, shape {y.shape}",
                         fix="leave out objects without a label (code -1)")  # fmt: skip


# -- prior --------------------------------------------------------------------------------------------------
def _prior(prior: ArrayLike, classes: int) -> np.ndarray:
    p = np.asarray(prior, dtype=np.float64)
    p = np.array([1 - float(p), float(p)]) if p.ndim == 0 else p
    if p.shape != (classes,) or not (np.isfinite(p).all() and p.min() >= 0 and p.sum() > 0):
        raise InputError(
            "a prior has one share for each class", found=f"{p}", expected=f"{classes} numbers of 0 or more"
        )
    found: np.ndarray = p / p.sum()
    return found


def correct_prior(p: ArrayLike, old: ArrayLike, new: ArrayLike) -> np.ndarray:
    """Probabilities under another class prior: p new / old, normalised (Saerens+2002, eq. 4).

    Right where only the shares of the classes change, and not what objects of one class look like.

    Parameters
    ----------
    p : (n, k) probabilities under `old`; or (n,) of class 1 of two.
    old, new : (k,) shares of the classes; for two classes also the share of class 1. A class with an old share of zero
        was never seen, and keeps probability zero.
    """
    q = np.asarray(p, dtype=np.float64)
    if q.ndim == 1:
        both: np.ndarray = correct_prior(np.stack([1 - q, q], axis=1), old, new)[:, 1]
        return both
    before, after = _prior(old, q.shape[1]), _prior(new, q.shape[1])
    lifted = q * np.divide(after, before, out=np.zeros_like(after), where=before > 0)
    total = lifted.sum(1, keepdims=True)
    # certain of a class that the new prior excludes: nothing else is left than the new prior itself
    return np.where(total > 0, lifted / np.where(total > 0, total, 1.0), after)


def estimate_prior(p: ArrayLike, old: ArrayLike, tolerance: float = 1e-8, most: int = 10_000) -> np.ndarray:
    """(k,) shares of the classes in an unlabelled sample, by expectation maximisation (Saerens+2002).

    Parameters
    ----------
    p : (n, k) calibrated probabilities under the prior `old`; or (n,) of class 1.
    """
    q = np.asarray(p, dtype=np.float64)
    q = np.stack([1 - q, q], axis=1) if q.ndim == 1 else q
    if not len(q):
        raise InputError("a sample without objects has no prior")
    before = _prior(old, q.shape[1])
    now = before
    for _ in range(most):
        after = correct_prior(q, before, now).mean(0)
        moved, now = float(np.abs(after - now).max()), after
        if moved < tolerance:
            break
    return now


# -- conformal ----------------------------------------------------------------------------------------------
def conformal_quantile(scores: ArrayLike, level: float) -> float:
    """The ceil((n + 1) level)-th smallest score; infinite where n is too small for the level (Vovk+2005).

    A new exchangeable score lies at or below it with a probability of at least `level`, and, without ties, of less than
    level + 1 / (n + 1).
    """
    s = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    if not 0 < level < 1:
        raise InputError("a level lies between 0 and 1", found=level, fix="0.9 for 90%")
    if np.isnan(s).any():
        raise InputError("conformal scores are NaN", found=int(np.isnan(s).sum()), expected=0)
    rank = math.ceil((len(s) + 1) * level - 1e-9)  # 0.9 * 10 must stay the ninth
    return float(s[rank - 1]) if rank <= len(s) else math.inf


@dataclass(frozen=True, eq=False)
class ConformalSet:
    """The set of classes that holds the true one with a probability of at least `level`.

    Attributes
    ----------
    level : of a new object exchangeable with the calibration objects (Mondrian: of each class).
    threshold : (1,) or, Mondrian, (k,): a class belongs to the set where its score does not exceed it.
    score : "lac": 1 - p(class) (Sadinle+2019), the smallest sets, which may be empty: no class fits. "aps": the summed
        probability of all classes at least as likely (Romano+2020, not randomised), larger and more even.
    """

    level: float
    threshold: np.ndarray
    score: str = "lac"

    @classmethod
    def fit(
        cls, p: ArrayLike, truth: ArrayLike, level: float = 0.9, *, score: str = "lac", per_class: bool = False
    ) -> Self:
        """Split conformal sets from probabilities (n, k) and codes (n,) of objects that nothing else was fitted on.

        Parameters
        ----------
        per_class : a threshold for each class (Mondrian, Vovk+2005): the level then holds in every class. A class with
            too few objects for the level is always in the set.
        """
        scores = _class_scores(p, score)
        y = np.asarray(truth)
        _check_codes(y, *scores.shape)
        own = scores[np.arange(len(y)), y]
        if per_class:
            return cls(level, np.array([conformal_quantile(own[y == k], level) for k in range(scores.shape[1])]), score)
        return cls(level, np.array([conformal_quantile(own, level)]), score)

    def apply(self, p: ArrayLike) -> np.ndarray:
        """(n, k) bool: which classes are in the set of each object."""
        found: np.ndarray = _class_scores(p, self.score) <= self.threshold
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """What is saved."""
        kind = np.array([_SCORES.index(self.score)], dtype=np.int64)
        return {"threshold": self.threshold, "level": np.array([self.level]), "set_score": kind}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The inverse of `arrays`; other entries are left alone."""
        return cls(float(arrays["level"][0]), np.asarray(arrays["threshold"]), _SCORES[int(arrays["set_score"][0])])


_SCORES = ("lac", "aps")


def _class_scores(p: ArrayLike, score: str) -> np.ndarray:
    q = np.asarray(p, dtype=np.float64)
    if score not in _SCORES:
        raise InputError("no such conformal score", found=score, known=_SCORES)
    if q.ndim != 2 or np.isnan(q).any():
        raise InputError("probabilities (n, k) without NaN are needed", found=f"shape {q.shape}")
    if score == "lac":
        return 1 - q
    order = np.argsort(-q, axis=1, kind="stable")
    ranked = np.take_along_axis(q, order, 1)
    summed = np.cumsum(ranked, axis=1)
    for j in range(q.shape[1] - 2, -1, -1):  # classes of equal probability share the larger sum
        summed[:, j] = np.where(ranked[:, j] == ranked[:, j + 1], summed[:, j + 1], summed[:, j])
    found = np.empty_like(q)
    np.put_along_axis(found, order, summed, 1)
    return found


@dataclass(frozen=True, eq=False)
class ConformalInterval:
    """Intervals that hold the truth with a probability of at least `level`, from any estimate.

    Attributes
    ----------
    level : of a new object exchangeable with the calibration objects.
    reach : (1,) "scaled": how many sigma the interval reaches to either side. "quantiles": by how much it is widened
        (or, negative, narrowed), in the unit of the truth.
    kind : "scaled" |y - centre| / sigma (Papadopoulos+2002, Lei+2018), or "quantiles" (CQR, Romano+2019).
    """

    level: float
    reach: np.ndarray
    kind: str

    @classmethod
    def fit_scaled(cls, centre: ArrayLike, sigma: ArrayLike, truth: ArrayLike, level: float = 0.9) -> Self:
        """From point estimates (n,) and any measure of their uncertainty (n,) above 0; ones for a constant width."""
        c, s, t = (np.asarray(a, dtype=np.float64) for a in (centre, sigma, truth))
        if not (c.shape == s.shape == t.shape) or (len(s) and not s.min() > 0):
            raise InputError(
                "sigma must be above 0, and one for every object", found=f"{c.shape}, {s.shape}, {t.shape}"
            )
        return cls(level, np.array([conformal_quantile(np.abs(t - c) / s, level)]), "scaled")

    @classmethod
    def fit_quantiles(cls, low: ArrayLike, high: ArrayLike, truth: ArrayLike, level: float = 0.9) -> Self:
        """From predicted quantiles, at best those at (1 - level) / 2 and (1 + level) / 2."""
        lo, hi, t = (np.asarray(a, dtype=np.float64) for a in (low, high, truth))
        if not (lo.shape == hi.shape == t.shape):
            raise InputError("two quantiles for every object are needed", found=f"{lo.shape}, {hi.shape}, {t.shape}")
        return cls(level, np.array([conformal_quantile(np.maximum(lo - t, t - hi), level)]), "quantiles")

    def apply(self, a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends (n,), from (centre, sigma) or (low, high) as fitted.

        An interval that is narrowed past zero becomes its middle.
        """
        first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        reach = float(self.reach[0])
        if self.kind == "scaled":
            return first - reach * second, first + reach * second
        low, high = first - reach, second + reach
        middle = (low + high) / 2 if math.isfinite(reach) else low
        return np.where(low <= high, low, middle), np.where(low <= high, high, middle)

    def arrays(self) -> dict[str, np.ndarray]:
        """What is saved."""
        kind = np.array([_KINDS.index(self.kind)], dtype=np.int64)
        return {"reach": self.reach, "level": np.array([self.level]), "interval_kind": kind}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The inverse of `arrays`; other entries are left alone."""
        return cls(float(arrays["level"][0]), np.asarray(arrays["reach"]), _KINDS[int(arrays["interval_kind"][0])])


_KINDS = ("scaled", "quantiles")


@dataclass(frozen=True, eq=False)
class ConformalPIT:
    """Which central interval of a predicted distribution holds the truth with a probability of at least `level`.

    Attributes
    ----------
    level : of a new object exchangeable with the calibration objects.
    reach : (d,) for each number, how far the interval reaches in normal scores of the predicted distribution: 1.96 at
        95% if that is right, more if it is too narrow.
    """

    level: float
    reach: np.ndarray

    @classmethod
    def fit(cls, pit: ArrayLike, level: float = 0.9) -> Self:
        """From the PIT (n,) or (n, d) of calibration objects: conformal on |Phi^-1(PIT)| (Chernozhukov+2021)."""
        u = np.asarray(pit, dtype=np.float64)
        u = u[:, None] if u.ndim == 1 else u
        if u.ndim != 2 or not ((u >= 0) & (u <= 1)).all():
            raise InputError("PIT values lie between 0 and 1", found=f"shape {u.shape}", expected="(n,) or (n, d)")
        return cls(level, np.array([conformal_quantile(np.abs(ndtri(column)), level) for column in u.T]))

    def levels(self) -> np.ndarray:
        """(d, 2) levels of the quantiles at the interval's ends; (0, 1) where calibration objects were too few."""
        found: np.ndarray = np.stack([ndtr(-self.reach), ndtr(self.reach)], axis=1)
        return found

    def apply(self, pit: ArrayLike) -> np.ndarray:
        """(n, d) or (n,) bool: whether values with this PIT lie in the interval."""
        u = np.asarray(pit, dtype=np.float64)
        found: np.ndarray = np.abs(ndtri(u)) <= (self.reach if u.ndim == 2 else self.reach[0])
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """What is saved."""
        return {"reach": self.reach, "level": np.array([self.level])}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The inverse of `arrays`; other entries are left alone."""
        return cls(float(arrays["level"][0]), np.asarray(arrays["reach"], dtype=np.float64))
