"""Classical baselines: features by name, and families of estimators whose fitted arrays are tensors.

A family is one file with ``fit(features, target, *, kind, weights, seed, balanced, **settings)`` and
``from_config(config)``. `fit_baseline` joins features and family into one module.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from torch import Tensor

from deepsky import registry
from deepsky.baselines._family import Family, Kind
from deepsky.baselines._features import FEATURES, Feature, extract, names, parts
from deepsky.baselines._hsm import HsmShapes, hsm_moments, hsm_regauss
from deepsky.baselines._images import Noise
from deepsky.baselines._moments import Moments, adaptive_moments
from deepsky.baselines._predictor import ClassicalPredictor, fitted, project
from deepsky.errors import InputError

__all__ = [
    "FEATURES",
    "ClassicalPredictor",
    "Family",
    "Feature",
    "HsmShapes",
    "Moments",
    "adaptive_moments",
    "extract",
    "families",
    "fit_baseline",
    "fit_family",
    "fit_on_features",
    "hsm_moments",
    "hsm_regauss",
    "names",
    "settings",
]

_ARGUMENTS = ("features", "target", "kind", "weights", "seed")


def families() -> list[str]:
    """Names of all families."""
    return registry.names("baselines")


def settings(name: str) -> dict[str, Any]:
    """The settings of a family with their defaults."""
    found = inspect.signature(registry.find("baselines", name).fit).parameters
    return {k: p.default for k, p in found.items() if k not in _ARGUMENTS}


def fit_family(
    name: str,
    features: np.ndarray[Any, Any] | Tensor,
    target: np.ndarray[Any, Any] | Tensor,
    *,
    kind: Kind,
    weights: np.ndarray[Any, Any] | None = None,
    seed: int = 0,
    **chosen: Any,
) -> Family:
    """Fit one family on features (n, f), NaN where unknown.

    Parameters
    ----------
    name : of the family (`families`).
    target : "classes": codes (n,), -1 unknown, or shares (n, classes); "multilabel": zeros, ones or shares (n, labels);
        "values": (n,) or (n, targets). NaN is unknown.
    weights : (n,), or None for ones.
    chosen : settings of the family, ``balanced=True`` among them: every class weighs the same.

    Returns
    -------
    A frozen module (n, f) -> (n, outputs): log-probabilities of the classes; log-odds of the labels; or the values of
    the targets followed by the logarithms of their standard deviations, from residuals of objects held out.

    Raises
    ------
    InputError : an unknown family or setting, or a truth that does not fit.
    """
    known = settings(name)
    for key in chosen:
        if key not in known:
            raise InputError(f"the classical family {name!r} has no such setting", found=key, known=known)
    made: Family = registry.find("baselines", name).fit(
        np.asarray(features), np.asarray(target), kind=kind, weights=weights, seed=seed, **chosen
    )
    return made.eval()


def fit_on_features(
    name: str,
    features_name: str,
    found: Tensor,
    target: np.ndarray[Any, Any] | Tensor,
    *,
    shape: tuple[int, ...],
    kind: Kind,
    weights: np.ndarray[Any, Any] | None = None,
    seed: int = 0,
    noise: Noise = "measured",
    components: int = 0,
    **chosen: Any,
) -> ClassicalPredictor:
    """`fit_baseline` on features that `extract` made batch by batch from observations of `shape`."""
    parts(features_name)
    arrays = fitted(found, components)
    seen = project(found, arrays)
    family = fit_family(name, seen, target, kind=kind, weights=weights, seed=seed, **chosen)
    return ClassicalPredictor(name, features_name, shape, noise, arrays, family).eval()


def fit_baseline(
    name: str,
    features_name: str,
    flux: np.ndarray[Any, Any] | Tensor,
    ivar: np.ndarray[Any, Any] | Tensor,
    target: np.ndarray[Any, Any] | Tensor,
    *,
    kind: Kind,
    weights: np.ndarray[Any, Any] | None = None,
    seed: int = 0,
    noise: Noise = "measured",
    components: int = 0,
    **chosen: Any,
) -> ClassicalPredictor:
    """Fit a family on features of images (n, band, y, x) or rows (n, feature), as one module of flux and ivar.

    Parameters
    ----------
    features_name : of `FEATURES`, several joined by "+" ("colour+shape+hog"), or "row" for the numbers of a catalogue.
    noise : "unknown" if ivar is only a mask of ones and zeros.
    components : principal components of the standardised features that the family sees; 0: the features themselves.
    name, target, kind, weights, chosen : see `fit_family`.

    Raises
    ------
    InputError : unknown names or settings, or arrays that do not fit.
    """
    found = extract(features_name, flux, ivar, noise)
    shape = tuple(flux.shape[1:])
    return fit_on_features(name, features_name, found, target, shape=shape, kind=kind, weights=weights, seed=seed,
                           noise=noise, components=components, **chosen)  # fmt: skip
