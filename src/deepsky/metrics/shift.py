"""Shift: does a sample look like the training sample? Two-sample tests, and a p-value for every object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from deepsky.errors import InputError
from deepsky.metrics._bootstrap import bootstrap, codes, group_sides
from deepsky.metrics._curve import area, curve
from deepsky.metrics._estimate import Estimate

__all__ = ["DomainGate", "Shift", "energy_distance", "two_sample"]


def _features(values: ArrayLike, name: str) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or not x.shape[1]:
        raise InputError(
            f"{name} must have one row for each object", found=f"shape {x.shape}", expected="(n, features)"
        )
    if not np.isfinite(x).all():
        raise InputError(f"{name} are not finite", found=f"{int((~np.isfinite(x)).any(1).sum())} of {len(x)} objects")
    return x


# -- one object ---------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class DomainGate:
    """Tells objects unlike those that it was fitted on, by their distance in a network's features.

    The distance is Mahalanobis' on the leading principal components (Lee+2018, without classes) and, where components
    are left out, the standardised length of the remainder as one more coordinate. Its rank among objects that were
    not used for mean and covariance makes it a p-value (a conformal one, Bates+2023): uniform in the domain, whatever
    the distribution of the features.

    Attributes
    ----------
    mean : (features,) of the fitted sample.
    axes : (components, features) principal axes.
    scale : (components,) standard deviations along them.
    remainder : (2,) mean and standard deviation of the length of what the axes leave out; (0, 0) where unused.
    reference : (m,) rising distances of held-out objects.
    """

    mean: np.ndarray
    axes: np.ndarray
    scale: np.ndarray
    remainder: np.ndarray
    reference: np.ndarray

    @classmethod
    def fit(
        cls, features: ArrayLike, held_out: ArrayLike | None = None, *, components: int = 32, seed: int = 0
    ) -> Self:
        """Fit mean and covariance, and the distances of held-out objects.

        Parameters
        ----------
        features : (n, f) of the training fold.
        held_out : (m, f) of objects of the same population that the network was not trained on (validation,
            calibration). Training features are often tighter than new ones: without `held_out` a random half of
            `features` serves, and p is uniform only for objects like those that were trained on.

        Raises
        ------
        InputError : fewer than 20 objects on either side, values that are not finite, or features that never vary.
        """
        x = _features(features, "features")
        if held_out is None:
            order = np.random.default_rng(seed).permutation(len(x))
            x, held = x[order[: len(x) // 2]], x[order[len(x) // 2 :]]
        else:
            held = _features(held_out, "held-out features")
        if min(len(x), len(held)) < 20 or held.shape[1] != x.shape[1]:
            raise InputError("a domain needs 20 objects to fit and 20 held out, with the same features",
                             found=f"{x.shape} and {held.shape}", fix="train on more objects")  # fmt: skip
        mean = x.mean(0)
        _, singular, axes = np.linalg.svd(x - mean, full_matrices=False)
        variance = singular**2 / (len(x) - 1)
        if not variance[0] > 1e-12 * max(float((mean**2).mean()), 1e-30):
            raise InputError(
                "the features never vary", found=f"variance {variance[0]:g}", fix="look whether training failed"
            )
        # a covariance of c components from few objects is noise: keep at least five objects a component
        keep = max(1, min(components, int((variance > 1e-10 * variance[0]).sum()), len(x) // 5))
        gate = cls(mean, axes[:keep], np.sqrt(variance[:keep]), np.zeros(2), np.zeros(0))
        length = gate._left_out(x)
        if length.std() > 1e-6 * np.sqrt(variance[0]):
            gate = cls(gate.mean, gate.axes, gate.scale, np.array([length.mean(), length.std()]), np.zeros(0))
        return cls(gate.mean, gate.axes, gate.scale, gate.remainder, np.sort(gate.distance(held)))

    def _left_out(self, x: np.ndarray) -> np.ndarray:
        """(n,) length of the part that the axes do not span."""
        centred = x - self.mean
        found: np.ndarray = np.linalg.norm(centred - (centred @ self.axes.T) @ self.axes, axis=1)
        return found

    def distance(self, features: ArrayLike) -> np.ndarray:
        """(n,) distance from the middle of the domain [sigma]; infinite where a feature is not finite."""
        x = np.asarray(features, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise InputError("features of another network", found=f"shape {x.shape}", expected=f"(n, {len(self.mean)})")
        good = np.asarray(np.isfinite(x).all(1))
        x = np.where(good[:, None], x, self.mean)
        squares = (((x - self.mean) @ self.axes.T / self.scale) ** 2).sum(1)
        if self.remainder[1] > 0:
            squares = squares + ((self._left_out(x) - self.remainder[0]) / self.remainder[1]) ** 2
        return np.where(good, np.sqrt(squares), np.inf)

    def p_value(self, features: ArrayLike) -> np.ndarray:
        """(n,) share of in-domain objects that lie at least as far out: (1 + farther) / (1 + m); small is outside."""
        farther = len(self.reference) - np.searchsorted(self.reference, self.distance(features), side="left")
        found: np.ndarray = (1 + farther) / (1 + len(self.reference))
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """What is saved."""
        return {"mean": self.mean, "axes": self.axes, "scale": self.scale, "remainder": self.remainder,
                "reference": self.reference}  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The inverse of `arrays`."""
        return cls(*(np.asarray(arrays[k]) for k in ("mean", "axes", "scale", "remainder", "reference")))


# -- one sample ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Shift:
    """A two-sample test.

    Attributes
    ----------
    statistic : AUC of telling the samples apart (0.5: alike), or energy distance (0: alike).
    p_value : of exchangeable samples, from permutations; at least 1 / (1 + permutations).
    permutations : how many.
    mark : "" (alike), "warn" or "strong".
    """

    statistic: Estimate
    p_value: float
    permutations: int
    mark: str


def two_sample(
    a: ArrayLike,
    b: ArrayLike,
    groups_a: ArrayLike | None = None,
    groups_b: ArrayLike | None = None,
    *,
    permutations: int = 199,
    folds: int = 5,
    most: int = 2000,
    warn: float = 0.6,
    strong: float = 0.8,
    level: float = 0.95,
    seed: int = 0,
) -> Shift:
    """Classifier two-sample test: cross-validated AUC of telling sample a from sample b (Lopez-Paz & Oquab 2017).

    The classifier is least squares with a ridge on the leading 32 principal components, their squares and 96 random
    Fourier features, so that every permutation can be fitted anew: the test is exact whatever the features.

    Parameters
    ----------
    a, b : (n, features) and (m, features).
    groups_a, groups_b : labels of what is independent (star, field), both or neither; groups stay in one fold, and
        change sides whole.
    most : objects of each sample that are looked at, chosen at random.
    warn, strong : AUC above which, with p < 0.05, the mark is set.

    Returns
    -------
    Shift : the interval of the AUC is of the held-out objects given the classifiers, resampled by group.
    """
    x, side, number, of_group = _pooled(a, b, groups_a, groups_b, most, seed)
    count = len(of_group)
    if min(of_group.sum(), (~of_group).sum()) < folds or min(side.sum(), (~side).sum()) < 20:
        raise InputError("too few objects for a two-sample test", found=f"{int(side.sum())} and {int((~side).sum())}",
                         expected=f"20 objects and {folds} groups in each")  # fmt: skip
    rng = np.random.default_rng([seed, 1])
    design = _expanded(x, rng)
    fold = (rng.permutation(count) % folds)[number]
    sides = np.stack([of_group, *(rng.permutation(of_group) for _ in range(permutations))], axis=1)[number]
    scores = np.empty(sides.shape)
    for f in range(folds):
        out = fold == f
        gram = design[~out].T @ design[~out]
        gram[np.diag_indices_from(gram)] += 1e-2 * (~out).sum()
        target = sides[~out] - sides[~out].mean(0)
        scores[out] = design[out] @ np.linalg.solve(gram, design[~out].T @ target)
    aucs = np.nanmean([_auc(scores[fold == f], sides[fold == f]) for f in range(folds)], axis=0)
    p = (1 + int((aucs[1:] >= aucs[0] - 1e-12).sum())) / (1 + permutations)

    def metric(score: np.ndarray, truth: np.ndarray, part: np.ndarray, weight: ArrayLike | None = None) -> np.ndarray:
        rows = [part == f for f in range(folds)]
        w = np.ones(len(score)) if weight is None else np.asarray(weight)
        each = np.stack([np.asarray(area(curve(score[r], truth[r], w[..., r]))) for r in rows])
        found: np.ndarray = np.nanmean(each, axis=0)
        return found

    words = f"cross-validated AUC of telling the samples apart, up to {most} objects of each"
    estimate = bootstrap(metric, scores[:, 0], side, fold, groups=None if groups_a is None else number,
                         replicates=400, level=level, seed=seed, definition=words)  # fmt: skip
    mark = "" if p >= 0.05 or estimate.value <= warn else "strong" if estimate.value > strong else "warn"
    return Shift(estimate, p, permutations, mark)


def _pooled(
    a: ArrayLike, b: ArrayLike, groups_a: ArrayLike | None, groups_b: ArrayLike | None, most: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """At most `most` of each: values (n, f), side (n,), group number (n,), side of each group."""
    x, y = _features(a, "features of the first sample"), _features(b, "features of the second sample")
    if x.shape[1] != y.shape[1]:
        raise InputError("samples with different features", found=f"{x.shape[1]} and {y.shape[1]}")
    if (groups_a is None) != (groups_b is None):
        raise InputError("groups of one sample only", fix="give groups of both, or of none")
    rng = np.random.default_rng([seed, 0])
    rows = [np.sort(rng.permutation(len(s))[:most]) for s in (x, y)]
    side = np.arange(len(rows[0]) + len(rows[1])) < len(rows[0])
    pooled = None
    if groups_a is not None and groups_b is not None:
        pooled = np.concatenate([np.asarray(groups_a)[rows[0]], np.asarray(groups_b)[rows[1]]])
    number, count = codes(pooled, len(side))
    return np.concatenate([x[rows[0]], y[rows[1]]]), side, number, group_sides(number, count, side)


def _standard(x: np.ndarray, limit: float = 5.0) -> np.ndarray:
    """Each column centred and scaled, clipped so that one wild value cannot rule; without constant columns."""
    scale = x.std(0)
    varies = scale > 1e-10 * np.maximum(np.abs(x).max(0), 1e-300)
    found: np.ndarray = np.clip((x[:, varies] - x[:, varies].mean(0)) / scale[varies], -limit, limit)
    return found


def _expanded(x: np.ndarray, rng: np.random.Generator, components: int = 32, waves: int = 96) -> np.ndarray:
    """Components, their squares and random waves of the pooled sample; blind to which object is whose."""
    z = _standard(x)
    if z.shape[1] > components:
        _, _, axes = np.linalg.svd(z, full_matrices=False)
        z = _standard(z @ axes[:components].T)
    if not z.shape[1]:
        return np.zeros((len(x), 1))
    direction = rng.standard_normal((z.shape[1], waves)) / np.sqrt(z.shape[1])
    return _standard(np.concatenate([z, z**2, np.cos(z @ direction + rng.uniform(0, 2 * np.pi, waves))], axis=1))


def _auc(scores: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """(columns,) AUC of each column of scores (n, columns); NaN where a column has one side only."""
    from scipy.stats import rankdata  # a third of a second that opening a model need not wait for

    ranks = rankdata(scores, axis=0)
    ones = sides.sum(0).astype(np.float64)
    zeros = len(sides) - ones
    above = (ranks * sides).sum(0) - ones * (ones + 1) / 2
    found: np.ndarray = np.divide(above, ones * zeros, out=np.full(len(ones), np.nan), where=ones * zeros > 0)
    return found


def energy_distance(
    a: ArrayLike,
    b: ArrayLike,
    groups_a: ArrayLike | None = None,
    groups_b: ArrayLike | None = None,
    *,
    permutations: int = 199,
    most: int = 1000,
    seed: int = 0,
) -> Shift:
    """Energy distance 2 E|X-Y| - E|X-X'| - E|Y-Y'| of standardised features, with a permutation test.

    Source: Székely & Rizzo 2013. Sees any difference, in many dimensions less than `two_sample`. The estimate has no
    interval; the mark is "warn" at p < 0.05.
    """
    from scipy.spatial.distance import cdist  # as above

    x, _, number, of_group = _pooled(a, b, groups_a, groups_b, most, seed)
    scale = x.std(0)
    x = (x - x.mean(0)) / np.where(scale > 0, scale, 1.0)
    apart = cdist(x, x)
    rng = np.random.default_rng([seed, 1])
    sides = np.stack([of_group, *(rng.permutation(of_group) for _ in range(permutations))], axis=1)[number].astype(
        float
    )
    inside, total = (sides * (apart @ sides)).sum(0), (sides * apart.sum(1)[:, None]).sum(0)
    ones = sides.sum(0)
    zeros = len(x) - ones
    across = total - inside
    outside = apart.sum() - inside - 2 * across
    values = 2 * across / (ones * zeros) - inside / ones**2 - outside / zeros**2
    p = (1 + int((values[1:] >= values[0] - 1e-12).sum())) / (1 + permutations)
    nan = float("nan")
    words = f"energy distance of standardised features, up to {most} objects of each"
    return Shift(Estimate(float(values[0]), nan, nan, len(x), words), p, permutations, "warn" if p < 0.05 else "")
