"""Every family's tensors say what scikit-learn's estimator says, to 1e-5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, SVR, LinearSVC

from deepsky import registry
from deepsky.baselines import fit_family
from deepsky.baselines._trees import _below

Reference = Callable[[int], Any]  # number of classes, or 0 for values -> scikit-learn's estimator
FOREST: dict[str, Any] = {"n_estimators": 20, "bootstrap": True, "random_state": 5, "min_samples_leaf": 2}
BOOST: dict[str, Any] = {"max_iter": 25, "learning_rate": 0.1, "max_leaf_nodes": 8, "min_samples_leaf": 20,
                         "l2_regularization": 1.0, "early_stopping": False, "random_state": 5}  # fmt: skip
GAMMA = 1 / 6


def svm(classes: int) -> Any:
    if not classes:
        return SVR(C=2.0, gamma=GAMMA, epsilon=0.05)
    folds = StratifiedKFold(3, shuffle=True, random_state=5)
    return OneVsRestClassifier(CalibratedClassifierCV(SVC(C=2.0, gamma=GAMMA), cv=folds, ensemble=False))


def nystroem(classes: int) -> Any:
    kernel = Nystroem(gamma=GAMMA, n_components=40, random_state=5)
    if not classes:
        return make_pipeline(kernel, Ridge(alpha=0.5))
    folds = StratifiedKFold(3, shuffle=True, random_state=5)
    linear = CalibratedClassifierCV(LinearSVC(C=2.0, dual=False, random_state=5), cv=folds, ensemble=False)
    return make_pipeline(kernel, OneVsRestClassifier(linear))


# name: the settings that we are given, the estimator, and whether it sees standardised features
REFERENCES: dict[str, tuple[dict[str, Any], Reference, bool]] = {
    "constant": ({}, lambda k: DummyClassifier(strategy="prior") if k else DummyRegressor(), True),
    "logistic": (
        {"c": 0.5},
        lambda k: LogisticRegression(C=0.5, tol=1e-6, max_iter=300) if k else Ridge(alpha=2.0),
        True,
    ),
    "svm": ({"c": 2.0}, svm, True),
    "svm:nystroem": ({"c": 2.0, "exact_to": 100, "components": 40}, nystroem, True),
    "knn": (
        {"k": 7, "smooth": False},
        lambda k: KNeighborsClassifier(7) if k else KNeighborsRegressor(7),
        True,
    ),
    "random-forest": (
        {"trees": 20, "smooth": False, "jobs": 1},
        lambda k: RandomForestClassifier(**FOREST) if k else RandomForestRegressor(max_features=1 / 3, **FOREST),
        False,
    ),
    "extra-trees": (
        {"trees": 20, "smooth": False, "jobs": 1},
        lambda k: ExtraTreesClassifier(**FOREST) if k else ExtraTreesRegressor(max_features=1 / 3, **FOREST),
        False,
    ),
    "gradient-boosting": (
        {"rounds": 25, "rate": 0.1, "leaves": 8},
        lambda k: HistGradientBoostingClassifier(**BOOST) if k else HistGradientBoostingRegressor(**BOOST),
        False,
    ),
}
rng = np.random.default_rng(1)
X = rng.normal(size=(500, 6)).astype(np.float32) * np.float32([1, 2, 30, 1, 0.1, 1]) + np.float32([0, 0, 900, 0, 0, 0])
NOISY = X[:, 0] + 0.5 * rng.normal(size=500)
VALUES = 3 + 100 * (NOISY + X[:, 3] ** 2)
TRAIN, TEST = slice(0, 300), slice(300, 500)
CODES = {2: (NOISY > 0.2).astype(np.int64), 4: np.digitize(NOISY, [-0.7, 0.2, 1.0])}


def test_every_family_has_a_reference() -> None:
    assert {name.partition(":")[0] for name in REFERENCES} == set(registry.names("baselines"))


def standardised(made: torch.nn.Module, standard: bool) -> np.ndarray:
    """The numbers that the estimator sees, in float64."""
    if not standard:
        return X
    state = made.state_dict()
    return ((X - state["centre"].numpy()) / state["scale"].numpy()).astype(np.float64)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", REFERENCES)
def test_probabilities(name: str, classes: int, weighted: bool) -> None:
    if weighted and name.partition(":")[0] in {"knn", "svm"}:
        pytest.skip("scikit-learn's neighbours know no weights, and its one-against-the-rest does not hand them on")
    settings, reference, standard = REFERENCES[name]
    weights = rng.uniform(0.5, 2, size=300) if weighted else None
    weights = weights / weights.mean() if weights is not None else None
    y = CODES[classes]
    made = fit_family(name.partition(":")[0], X[TRAIN], y[TRAIN], kind="classes", weights=weights, seed=5, **settings)
    seen = standardised(made, standard)
    fit = {} if weights is None else {"sample_weight": weights}
    expected = reference(classes).fit(seen[TRAIN], y[TRAIN], **fit).predict_proba(seen[TEST])
    assert expected.std(0).max() > 0.05 or name == "constant", "a reference that says nothing proves nothing"
    np.testing.assert_allclose(made(torch.from_numpy(X[TEST])).double().exp(), expected, atol=1e-5)


@pytest.mark.parametrize("name", REFERENCES)
def test_values(name: str) -> None:
    settings, reference, standard = REFERENCES[name]
    made = fit_family(name.partition(":")[0], X[TRAIN], VALUES[TRAIN], kind="values", seed=5, **settings)
    seen = standardised(made, standard)
    mean, spread = VALUES[TRAIN].mean(), VALUES[TRAIN].std()  # a kernel machine sees standardised values
    z = (VALUES[TRAIN] - mean) / spread if name.startswith("svm") else VALUES[TRAIN]
    expected = reference(0).fit(seen[TRAIN], z).predict(seen[TEST])
    expected = expected * spread + mean if name.startswith("svm") else expected
    assert expected.std() > 10 or name == "constant"
    np.testing.assert_allclose(made(torch.from_numpy(X[TEST]))[:, 0], expected, rtol=1e-5, atol=1e-5 * spread)


def test_balanced_is_scikit_learns_class_weight() -> None:
    y = CODES[4]
    made = fit_family("logistic", X[TRAIN], y[TRAIN], kind="classes", c=0.5, balanced=True)
    seen = standardised(made, True)
    expected = LogisticRegression(C=0.5, tol=1e-6, max_iter=300, class_weight="balanced").fit(seen[TRAIN], y[TRAIN])
    np.testing.assert_allclose(made(torch.from_numpy(X[TEST])).exp(), expected.predict_proba(seen[TEST]), atol=1e-5)


def test_several_labels_are_one_against_the_rest() -> None:
    y = np.stack([CODES[2], CODES[4] > 1, NOISY > 1], 1).astype(float)
    made = fit_family("logistic", X[TRAIN], y[TRAIN], kind="multilabel", c=0.5)
    seen = standardised(next(iter(made.members)), True)
    expected = OneVsRestClassifier(LogisticRegression(C=0.5, tol=1e-6, max_iter=300)).fit(seen[TRAIN], y[TRAIN])
    output = torch.sigmoid(made(torch.from_numpy(X[TEST])))
    np.testing.assert_allclose(output, expected.predict_proba(seen[TEST]), atol=1e-5)


def test_weighted_neighbours_are_a_weighted_mean() -> None:
    """Against the definition, object by object."""
    weights = rng.uniform(0.1, 3, size=300)
    made = fit_family("knn", X[TRAIN], CODES[4][TRAIN], kind="classes", weights=weights, k=9, smooth=False)
    seen = standardised(made, True)
    for i in range(300, 320):
        near = np.argsort(((seen[TRAIN] - seen[i]) ** 2).sum(1))[:9]
        expected = np.bincount(CODES[4][near], weights[near], 4) / weights[near].sum()
        np.testing.assert_allclose(made(torch.from_numpy(X[i : i + 1]))[0].exp(), expected, atol=1e-5)


def test_a_threshold_in_float32_splits_float32_numbers_alike() -> None:
    numbers = rng.normal(size=3000).astype(np.float32)
    # between neighbouring floats, on one, and just beside it
    between = (numbers.astype(np.float64) + np.nextafter(numbers, np.float32(9e9)).astype(np.float64)) / 2
    for threshold in (between, numbers.astype(np.float64), numbers + 1e-12, numbers - 1e-12):
        rounded = _below(threshold)
        for shift in (-1, 0, 1):
            x = np.roll(numbers, shift)
            assert np.array_equal(x <= threshold, x <= rounded)
            assert np.array_equal(numbers <= threshold, numbers <= rounded)
