"""Two-sample tests keep their level and see shifts; the p-value of an object is uniform in the domain."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import kstest

from deepsky.errors import InputError
from deepsky.metrics import shift as s


def features(rng, n, f=60):
    """Correlated, skewed features of low rank with noise, as a network makes them."""
    mixing = np.random.default_rng(99).normal(0, 1, (8, f))
    return np.maximum(rng.normal(0, 1, (n, 8)) @ mixing, 0) + 0.1 * rng.normal(0, 1, (n, f))


# -- one object ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("f", [5, 60])
def test_p_values_are_uniform_in_the_domain(f):
    rng = np.random.default_rng(0)
    gate = s.DomainGate.fit(features(rng, 3000, f), features(rng, 3000, f))
    p = gate.p_value(features(rng, 3000, f))
    assert kstest(p, "uniform").pvalue > 1e-3
    assert len(gate.axes) == min(f, 32)


def test_the_level_holds_on_average_over_fits():
    rng = np.random.default_rng(1)
    below = [
        (s.DomainGate.fit(features(rng, 200, 10)).p_value(features(rng, 50, 10)) <= 0.1).mean() for _ in range(100)
    ]
    assert np.mean(below) == pytest.approx(0.1, abs=4 * np.std(below) / 10)


def test_objects_outside_get_small_p_values():
    rng = np.random.default_rng(2)
    gate = s.DomainGate.fit(features(rng, 2000))
    strange = features(rng, 200)
    strange[:, 7] += 10.0  # along one feature: seen by the components or by what they leave out
    assert np.median(gate.p_value(strange)) < 0.005
    assert np.median(gate.p_value(features(rng, 200) + 2.0 * rng.normal(0, 1, (200, 60)))) < 0.005
    # exactly where the leading components are blind, ten times as far as objects of the domain go
    away = rng.normal(0, 1, 60)
    away -= gate.axes.T @ (gate.axes @ away)
    blind = features(rng, 200) + 10 * gate.remainder[0] * away / np.linalg.norm(away)
    assert np.median(gate.p_value(blind)) == 1 / 1001
    wrong = features(rng, 2)
    wrong[0, 0] = np.nan
    assert gate.p_value(wrong)[0] == 1 / 1001 and gate.distance(wrong)[0] == np.inf


def test_distance_without_left_out_components_is_mahalanobis():
    rng = np.random.default_rng(3)
    x, y = rng.multivariate_normal([1, 2, 3], [[2, 1, 0], [1, 2, 0.5], [0, 0.5, 1]], 500), rng.normal(0, 2, (40, 3))
    gate = s.DomainGate.fit(x, x[:50])
    exact = cdist(y, x.mean(0)[None], "mahalanobis", VI=np.linalg.inv(np.cov(x.T)))[:, 0]
    assert gate.distance(y) == pytest.approx(exact)
    farther = (gate.distance(x[:50])[None] >= gate.distance(y)[:, None]).sum(1)
    assert gate.p_value(y) == pytest.approx((1 + farther) / 51)


def test_a_gate_is_its_arrays():
    rng = np.random.default_rng(4)
    gate = s.DomainGate.fit(features(rng, 300))
    back = s.DomainGate.from_arrays({k: v.copy() for k, v in gate.arrays().items()})
    x = features(rng, 20)
    np.testing.assert_array_equal(gate.p_value(x), back.p_value(x))
    assert {v.dtype for v in gate.arrays().values()} == {np.dtype(np.float64)}
    again = s.DomainGate.fit(features(np.random.default_rng(4), 300))
    np.testing.assert_array_equal(gate.reference, again.reference)


def test_a_gate_refuses_what_it_cannot_judge():
    rng = np.random.default_rng(5)
    with pytest.raises(InputError, match="20 objects"):
        s.DomainGate.fit(features(rng, 30))
    with pytest.raises(InputError, match="never vary"):
        s.DomainGate.fit(np.full((100, 3), 0.1))
    with pytest.raises(InputError, match="not finite"):
        s.DomainGate.fit(np.full((100, 3), np.nan))
    with pytest.raises(InputError, match="another network"):
        s.DomainGate.fit(features(rng, 100)).p_value(features(rng, 3, 59))


def test_features_with_dead_columns_and_low_rank_are_no_trouble():
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.normal(0, 1, (200, 4)) @ rng.normal(0, 1, (4, 10)), np.zeros((200, 5))], axis=1)
    gate = s.DomainGate.fit(x)
    assert len(gate.axes) == 4 and np.isfinite(gate.distance(x)).all()


# -- one sample ---------------------------------------------------------------------------------------------
def test_the_classifier_test_keeps_its_level():
    rng = np.random.default_rng(7)
    p = [s.two_sample(features(rng, 80, 6), features(rng, 60, 6), permutations=39, seed=k).p_value for k in range(60)]
    assert np.mean(np.array(p) <= 0.1) < 0.25  # 10% is meant; 60 trials have a sigma of 3.9%
    assert 0.35 < np.mean(p) < 0.65


def test_the_classifier_test_sees_a_shift_of_the_mean_and_its_auc_is_that_of_the_ideal_classifier():
    rng = np.random.default_rng(8)
    a, b = rng.normal(0, 1, (2000, 3)), rng.normal(0, 1, (2000, 3)) + np.array([0.8, 0, 0])
    made = s.two_sample(a, b, permutations=99)
    assert made.p_value == 0.01 and made.mark == "warn"
    assert made.statistic.value == pytest.approx(0.7142, abs=0.03)  # Phi(.8 / sqrt 2)
    assert made.statistic.low < made.statistic.value < made.statistic.high


def test_it_sees_a_change_of_width_and_of_dependence_alone():
    rng = np.random.default_rng(9)
    a = rng.normal(0, 1, (800, 3))
    wide = rng.normal(0, 1.5, (800, 3))
    assert s.two_sample(a, wide, permutations=39).p_value == 1 / 40
    linked = rng.normal(0, 1, (800, 3))
    linked[:, 1] = 0.9 * linked[:, 0] + np.sqrt(1 - 0.81) * linked[:, 1]
    assert s.two_sample(a, linked, permutations=39).p_value == 1 / 40


def test_a_far_shift_is_marked_strong_and_the_seed_decides():
    rng = np.random.default_rng(10)
    a, b = rng.normal(0, 1, (200, 40)), rng.normal(1, 1, (150, 40))
    made = s.two_sample(a, b, permutations=39, seed=3)
    assert made.mark == "strong" and made.statistic.value > 0.95
    assert made == s.two_sample(a, b, permutations=39, seed=3)


@pytest.mark.parametrize("test", [s.two_sample, s.energy_distance])
def test_groups_keep_the_level_where_objects_do_not(test):
    by_group, by_object = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(40), 5)
        x = rng.normal(0, 1, (40, 3))[groups] + 0.3 * rng.normal(0, 1, (200, 3))
        a, b, ga, gb = x[:100], x[100:], groups[:100], groups[100:]
        by_group.append(test(a, b, ga, gb, permutations=19, seed=seed).p_value)
        by_object.append(test(a, b, permutations=19, seed=seed).p_value)
    assert np.mean(np.array(by_group) <= 0.1) < 0.3
    assert np.mean(np.array(by_object) <= 0.1) > 0.5


def test_energy_distance_is_the_double_mean_and_has_power():
    rng = np.random.default_rng(11)
    a, b = rng.normal(0, 1, (60, 2)), rng.normal(0.8, 1, (50, 2))
    both = np.concatenate([a, b])
    x, y = ((v - both.mean(0)) / both.std(0) for v in (a, b))
    brute = 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    made = s.energy_distance(a, b)
    assert made.statistic.value == pytest.approx(brute) and made.mark == "warn" and made.p_value == 1 / 200


def test_constant_features_show_no_difference():
    made = s.two_sample(np.ones((50, 3)), np.ones((50, 3)), permutations=9)
    assert made.p_value == 1.0 and made.statistic.value == 0.5 and made.mark == ""


def test_two_samples_that_cannot_be_compared_are_refused():
    rng = np.random.default_rng(12)
    with pytest.raises(InputError, match="too few"):
        s.two_sample(rng.normal(0, 1, (10, 3)), rng.normal(0, 1, (100, 3)))
    with pytest.raises(InputError, match="different features"):
        s.two_sample(rng.normal(0, 1, (50, 3)), rng.normal(0, 1, (50, 4)))
    with pytest.raises(InputError, match="both samples"):
        s.two_sample(rng.normal(0, 1, (50, 3)), rng.normal(0, 1, (50, 3)), np.arange(50), np.arange(49, 99))
