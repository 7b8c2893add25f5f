"""The contract of every classical family in the folder, found by name: a new file is tested without being listed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from deepsky import baselines, registry
from deepsky.baselines import fit_family
from deepsky.errors import InputError

KINDS = ("classes", "shares", "multilabel", "values")
# What makes a family quick to fit; a family that is not named here is tested with its own defaults.
QUICK: dict[str, dict[str, Any]] = {
    "random-forest": {"trees": 25, "jobs": 1},
    "extra-trees": {"trees": 25, "jobs": 1},
    "gradient-boosting": {"rounds": 20, "rate": 0.15, "leaves": 6},
    "svm": {"c": 1.0},
    "logistic": {"c": 0.1},
}
rng = np.random.default_rng(0)
X = rng.normal(size=(600, 6)).astype(np.float32) * np.float32([1, 1, 5, 1, 0.1, 1]) + np.float32([0, 0, 9, 0, 0, 0])
CODES = (X[:, 0] + 0.3 * rng.normal(size=600) > 0.3).astype(np.int64) + (X[:, 3] > 0.5)
TRUTH: dict[str, Any] = {
    "classes": CODES,
    "shares": np.eye(3)[CODES] * 0.7 + 0.1,
    "multilabel": np.stack([X[:, 0] > 0, X[:, 1] + X[:, 3] > 0.3], 1).astype(float),
    "values": np.stack([X[:, 0] + 0.3 * rng.normal(size=600), 10 * X[:, 1] + X[:, 2] + 2 * rng.normal(size=600)], 1),
}
TRAIN, TEST = slice(0, 300), slice(300, 600)
FITTED: dict[Any, baselines.Family] = {}

each_family = pytest.mark.parametrize("name", registry.names("baselines"))
each_kind = pytest.mark.parametrize("kind", KINDS)


def fitted(name: str, kind: str) -> baselines.Family:
    """Each family once a kind of truth."""
    if (name, kind) not in FITTED:
        word: Any = "classes" if kind == "shares" else kind
        chosen = QUICK.get(name, {})
        FITTED[name, kind] = fit_family(name, X[TRAIN], TRUTH[kind][TRAIN], kind=word, seed=3, **chosen)
    return FITTED[name, kind]


def loss(output: torch.Tensor, kind: str, truth: np.ndarray) -> float:
    """Negative log-likelihood of an object [nat]."""
    o = output.numpy().astype(np.float64)
    if kind == "classes":
        return float(-o[np.arange(len(o)), truth].mean())
    if kind == "shares":
        return float(-(o * truth).sum(1).mean())
    if kind == "multilabel":
        return float(np.logaddexp(0, -o * (2 * truth - 1)).sum(1).mean())
    mean, log_sigma = o[:, :2], o[:, 2:]
    return float((0.5 * ((truth - mean) / np.exp(log_sigma)) ** 2 + log_sigma).sum(1).mean())


@each_kind
@each_family
def test_it_beats_the_constant_on_held_out_objects(name: str, kind: str) -> None:
    output = fitted(name, kind)(torch.from_numpy(X[TEST]))
    width = {"classes": 3, "shares": 3, "multilabel": 2, "values": 4}[kind]
    assert output.shape == (300, width)
    assert output.dtype == torch.float32
    if kind in {"classes", "shares"}:
        np.testing.assert_allclose(output.double().exp().sum(1), 1, atol=1e-5)
    if name != "constant":
        constant = fitted("constant", kind)(torch.from_numpy(X[TEST]))
        # shares as even as these have an entropy of their own, which no family can go below
        floor = loss(torch.from_numpy(np.log(TRUTH[kind][TEST])), kind, TRUTH[kind][TEST]) if kind == "shares" else 0
        gain = loss(constant, kind, TRUTH[kind][TEST]) - loss(output, kind, TRUTH[kind][TEST])
        assert gain > 0.1 * (loss(constant, kind, TRUTH[kind][TEST]) - floor)


@each_kind
@each_family
def test_state_and_config_rebuild_it_exactly(name: str, kind: str) -> None:
    made = fitted(name, kind)
    assert not list(made.parameters()), "frozen: nothing to train"
    assert all(torch.isfinite(v).all() for v in made.state_dict().values() if v.is_floating_point())
    config = json.loads(json.dumps(made.config()))
    again = registry.find("baselines", name).from_config(config)
    again.load_state_dict(load(save(made.state_dict())), strict=True)
    x = torch.from_numpy(X[TEST])
    assert torch.equal(again(x), made(x))
    assert again.config() == made.config()


@each_kind
@each_family
def test_batches_and_unknown_features(name: str, kind: str) -> None:
    made, x = fitted(name, kind), torch.from_numpy(X[TEST]).clone()
    whole = made(x)
    for rows in (slice(0, 0), slice(0, 1), slice(10, 37)):
        torch.testing.assert_close(made(x[rows]), whole[rows], rtol=1e-5, atol=1e-5)
    typical = X[TRAIN].mean(0)
    x[:20, 1], x[20:40, 3] = torch.nan, torch.inf
    holes = made(x)
    x[:20, 1], x[20:40, 3] = float(typical[1]), float(typical[3])
    assert torch.isfinite(holes).all()
    torch.testing.assert_close(holes, made(x), rtol=1e-4, atol=1e-4)


@each_family
def test_the_seed_fixes_it_and_the_global_generators_are_left_alone(name: str) -> None:
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    chosen = QUICK.get(name, {}) | {"seed": 3, "kind": "classes"}
    first, second = (fit_family(name, X[TRAIN], CODES[TRAIN], **chosen).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.get_rng_state())


@each_family
def test_objects_without_a_label_or_weight_have_no_effect(name: str) -> None:
    wild = np.concatenate([X[TRAIN], np.full((40, 6), 1e4, np.float32)])
    codes = np.concatenate([CODES[TRAIN], np.repeat([-1, 0], 20)])
    weights = np.concatenate([np.ones(320), np.zeros(20)])
    chosen = QUICK.get(name, {})
    made = fit_family(name, wild, codes, kind="classes", weights=weights, seed=3, **chosen)
    alone = fit_family(name, X[TRAIN], CODES[TRAIN], kind="classes", weights=np.ones(300), seed=3, **chosen)
    x = torch.from_numpy(X[TEST])
    torch.testing.assert_close(made(x), alone(x), rtol=1e-5, atol=1e-5)


@each_family
def test_rare_and_absent_classes(name: str) -> None:
    """A class that no object has is impossible, one with a single object is rare, and neither stops the fit."""
    codes = np.where(CODES[TRAIN] == 1, 4, CODES[TRAIN])
    codes[7] = 3
    output = fit_family(name, X[TRAIN], codes, kind="classes", **QUICK.get(name, {}))(torch.from_numpy(X[TEST])).exp()
    assert output.shape == (300, 5)
    assert (output[:, 1] < 1e-5).all()
    assert output[:, 3].mean() < 0.05
    only = fit_family(name, X[:30], np.full(30, 2), kind="classes", **QUICK.get(name, {}))(torch.from_numpy(X[:5]))
    assert (only.argmax(1) == 2).all()


@each_family
def test_shares_of_one_and_zero_are_codes(name: str) -> None:
    """And the columns say how many classes there are, those that no object has included."""
    shares = np.zeros((300, 5))
    shares[np.arange(300), CODES[TRAIN]] = 1
    shares[4] = np.nan
    codes = np.where(np.arange(300) == 4, -1, CODES[TRAIN])
    by_shares, by_codes = (
        fit_family(name, X[TRAIN], y, kind="classes", seed=3, **QUICK.get(name, {}))(torch.from_numpy(X[TEST])).exp()
        for y in (shares, codes)
    )
    assert by_shares.shape == (300, 5)
    torch.testing.assert_close(by_shares[:, :3], by_codes, rtol=1e-5, atol=1e-5)
    assert by_shares[:, 3:].max() < 1e-5


@each_family
def test_targets_known_for_some_objects_only(name: str) -> None:
    truth = TRUTH["values"].copy()
    truth[::3, 0], truth[1::3, 1] = np.nan, np.nan
    output = fit_family(name, X[TRAIN], truth[TRAIN], kind="values", **QUICK.get(name, {}))(torch.from_numpy(X[TEST]))
    constant = fit_family("constant", X[TRAIN], truth[TRAIN], kind="values")(torch.from_numpy(X[TEST]))
    assert output.shape == (300, 4)
    if name != "constant":
        assert loss(output, "values", TRUTH["values"][TEST]) < loss(constant, "values", TRUTH["values"][TEST]) - 0.3


@each_family
def test_sigma_is_the_spread_of_new_objects(name: str) -> None:
    output = fitted(name, "values")(torch.from_numpy(X[TEST])).numpy()
    spread = np.sqrt(((output[:, :2] - TRUTH["values"][TEST]) ** 2).mean(0))
    np.testing.assert_allclose(np.exp(output[0, 2:]), spread, rtol=0.25)


@each_family
def test_balanced_classes_raise_the_rare_one(name: str) -> None:
    # overlapping classes: where they do not, the prior has nothing to say
    codes = (X[:, 0] + 2 * np.random.default_rng(1).normal(size=600) > 2.4).astype(np.int64)
    chosen = QUICK.get(name, {})
    plain, even = (
        fit_family(name, X[TRAIN], codes[TRAIN], kind="classes", balanced=b, **chosen)(torch.from_numpy(X[TEST])).exp()
        for b in (False, True)
    )
    assert even[:, 1].mean() > plain[:, 1].mean() + 0.1


@each_family
def test_what_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no such setting") as caught:
        fit_family(name, X, CODES, kind="classes", depth_of_thought=3)
    assert "balanced" in str(caught.value)
    bad: list[tuple[Any, Any, dict[str, Any]]] = [
        (X, CODES[:5], {"kind": "classes"}),
        (X[:, 0], CODES, {"kind": "classes"}),
        (X, CODES, {"kind": "ordinal"}),
        (X, CODES, {"kind": "multilabel"}),
        (X, np.full(600, -1), {"kind": "classes"}),
        (X, np.full((600, 2), np.nan), {"kind": "values"}),
        (X, np.stack([X[:, 0], np.full(600, np.nan)], 1), {"kind": "values"}),
        (X, X[:, 0], {"kind": "values", "balanced": True}),
        (X, CODES, {"kind": "classes", "weights": -np.ones(600)}),
        (X, CODES, {"kind": "classes", "weights": np.ones(3)}),
    ]
    for x, y, words in bad:
        with pytest.raises(InputError):
            fit_family(name, x, y, **words)


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="random-forest"):
        fit_family("random-forrest", X, CODES, kind="classes")


def test_a_config_cannot_name_what_the_family_does_not_have() -> None:
    config = fitted("logistic", "classes").config()
    module = registry.find("baselines", "logistic")
    for change in ({"type": "trees"}, {"arrays": {"weight": ["object", 3]}}):
        with pytest.raises(InputError):
            module.from_config({**config, **change})
