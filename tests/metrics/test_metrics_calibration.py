"""Reliability and calibration error against scikit-learn, brute force and samples that are right by construction."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from deepsky.errors import InputError
from deepsky.metrics import calibration as c


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    p = rng.beta(0.7, 0.7, 3000)
    return p, rng.random(3000) < p**1.5


def test_reliability_agrees_with_scikit_learn(sample):
    p, truth = sample
    for equal, strategy in (("width", "uniform"), ("mass", "quantile")):
        share, mean = calibration_curve(truth, p, n_bins=10, strategy=strategy)
        made = c.reliability(p, truth, 10, equal)
        # the two may put the one object on an edge into another bin
        assert [b.mean for b in made] == pytest.approx(mean, abs=2e-3)
        assert [b.share.value for b in made] == pytest.approx(share, abs=4e-3)
        assert sum(b.share.n for b in made) == 3000
    assert {b.share.n for b in c.reliability(p, truth, 10)} == {300}


def test_equal_probabilities_share_a_bin():
    p = np.repeat([0.0, 0.2, 1.0], [500, 300, 200])
    made = c.reliability(p, np.arange(1000) % 2 == 0, bins=10)
    assert [(b.low, b.high, b.share.n) for b in made] == [(0, 0, 500), (0.2, 0.2, 300), (1, 1, 200)]


def test_the_reliability_interval_covers():
    rng = np.random.default_rng(2)
    samples = [rng.random(500) for _ in range(100)]
    fits = [b.fits for p in samples for b in c.reliability(p, rng.random(500) < p, bins=5)]
    assert 0.92 <= np.mean(fits) <= 0.99  # 500 bins at 95%


def test_ece_by_hand_and_by_brute_force(sample):
    assert c.ece([0.2, 0.2, 0.8, 0.8], [0, 1, 1, 1], bins=2) == pytest.approx(0.5 * 0.3 + 0.5 * 0.2)
    p, truth = sample
    edges = np.linspace(0, 1, 11)
    brute = 0.0
    for low, high in pairwise(edges):
        here = (p >= low) & (p < high)
        brute += here.mean() * abs(p[here].mean() - truth[here].mean())
    assert c.ece(p, truth, 10, "width") == pytest.approx(brute)
    assert c.ece(p, truth) > 0.05  # p^1.5 is not p


def test_debiased_squared_error_is_unbiased():
    rng = np.random.default_rng(3)
    p = np.repeat([0.1, 0.3, 0.6, 0.9], 25)
    right = np.repeat([0.2, 0.3, 0.5, 0.9], 25)
    exact = np.mean((p - right) ** 2)
    truths = [rng.random(100) < right for _ in range(2000)]
    made = np.array([c.ece_squared(p, t, 4) for t in truths])
    plain = np.array([c.ece_squared(p, t, 4, debiased=False) for t in truths])
    assert abs(made.mean() - exact) < 4 * made.std() / np.sqrt(2000)
    assert plain.mean() > exact + 10 * plain.std() / np.sqrt(2000)


def test_debiasing_takes_a_known_part_of_the_chance_away_and_none_of_a_large_error():
    rng = np.random.default_rng(4)
    p = rng.random(4000)
    truths = [rng.random(4000) < p for _ in range(100)]
    plain, debiased = (np.mean([c.ece(p, t, debiased=d) for t in truths]) for d in (False, True))
    # a gap of pure noise |Z| becomes 2 |Z| - |Z + Z'|, of mean (2 - sqrt 2) |Z|
    assert debiased / plain == pytest.approx(2 - np.sqrt(2), abs=0.04)
    wrong = np.arange(2000) % 10 < 2
    assert c.ece(np.full(2000, 0.9), wrong, debiased=True) == pytest.approx(0.7, abs=1e-6)


def test_ece_by_chance_is_that_of_a_sample_that_is_right():
    rng = np.random.default_rng(5)
    p = rng.beta(2, 2, 800)
    chance = c.ece_if_calibrated(p)
    right = np.array([c.ece(p, rng.random(800) < p) for _ in range(400)])
    assert chance.value == pytest.approx(right.mean(), rel=0.05)
    assert 0.9 < np.mean(right < chance.high) < 0.99
    assert c.ece(p, rng.random(800) < p**2) > chance.high


def test_classwise_and_top_label(sample):
    p, truth = sample
    both = np.stack([1 - p, p], axis=1)
    # of two classes, both columns are wrong by the same amount
    assert c.classwise_ece(both, truth.astype(int)) == pytest.approx(c.ece(p, truth), abs=2e-3)
    confidence, right = c.top_label(both, truth.astype(int))
    assert confidence == pytest.approx(np.maximum(p, 1 - p))
    assert right.mean() == pytest.approx(np.mean((p > 0.5) == truth))


def test_weights_are_repetitions(sample):
    p, truth = (a[:400] for a in sample)
    times = np.random.default_rng(6).poisson(1, (3, 400)).astype(float)
    made = c.ece(p, truth, 8, "width", weight=times)
    rows = [np.repeat(np.arange(400), w.astype(int)) for w in times]
    assert made == pytest.approx([c.ece(p[r], truth[r], 8, "width") for r in rows])


def test_what_is_no_probability_is_refused():
    with pytest.raises(InputError, match="between 0 and 1"):
        c.ece([0.2, 1.2], [0, 1])
    with pytest.raises(InputError, match="known"):
        c.reliability([0.2], [1], equal="size")
    with pytest.raises(InputError, match="without a label"):
        c.classwise_ece(np.eye(2), [0, -1])
