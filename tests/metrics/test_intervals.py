"""Intervals and tests: coverage by simulation, exact agreement with written-out samples, level of the tests."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binom, binomtest, ttest_ind

from deepsky.errors import InputError
from deepsky.metrics import classification as c
from deepsky.metrics import intervals as i
from deepsky.metrics import regression as r
from deepsky.metrics._bootstrap import draw


# -- Estimate -----------------------------------------------------------------------------------------------
def test_an_estimate_is_quoted_with_two_figures_of_its_width():
    made = i.Estimate(0.98142, 0.97514, 0.98733, 1234, "AUROC", groups=300)
    assert str(made) == "0.981 [0.975, 0.987]"
    assert repr(made) == "0.981 [0.975, 0.987] (95%, n = 1,234 in 300 groups; AUROC)"
    assert str(i.Estimate(12345.6, 11000.0, 13000.0, 5, "")) == "12346 [11000, 13000]"
    nan = float("nan")
    assert str(i.Estimate(0.5, nan, nan, 3, "")) == "0.5"
    assert str(i.Estimate(nan, nan, nan, 0, "")) == "not defined"
    assert str(i.Estimate(1.0, 1.0, 1.0, 3, "")) == "1.00 [1.00, 1.00]"
    assert str(i.Estimate(0.0, 0.0, 0.0, 3, "")) == "0.000 [0.000, 0.000]"
    assert str(i.Estimate(-0.0002, -0.012, -0.0001, 3, "")) == "0.000 [-0.012, 0.000]"


def test_an_estimate_survives_json():
    made = i.Estimate(0.5, float("nan"), float("nan"), 3, "x", 0.68, 2)
    text = json.dumps(made.json(), allow_nan=False)
    back = i.Estimate.from_json(json.loads(text))
    assert (
        back.value == 0.5
        and np.isnan(back.low)
        and (back.n, back.definition, back.level, back.groups) == (3, "x", 0.68, 2)
    )
    with pytest.raises(AttributeError):
        made.value = 1.0


# -- Wilson -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (990, 1000)])
def test_wilson_is_that_of_scipy(k, n):
    theirs = binomtest(k, n).proportion_ci(0.9, method="wilson")
    assert i.wilson(k, n, 0.9) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_covers():
    for n, p in ((100, 0.5), (100, 0.03), (1000, 0.99)):
        k = np.arange(n + 1)
        ends = np.array([i.wilson(x, n) for x in k])
        covered = binom.pmf(k, n, p)[(ends[:, 0] <= p) & (p <= ends[:, 1])].sum()
        assert 0.92 < covered < 0.99  # exact coverage of this n and p
    assert i.wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(InputError, match="successes"):
        i.wilson(3, 2)


# -- bootstrap ----------------------------------------------------------------------------------------------
def test_weights_and_written_out_samples_give_the_same_interval():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 120)
    truth = rng.random(120) < 0.4
    scores = rng.normal(truth, 1)
    fast = i.bootstrap(c.auroc, scores, truth, groups=groups, replicates=200)

    def one_at_a_time(s, t):
        return c.auroc(s, t)

    slow = i.bootstrap(one_at_a_time, scores, truth, groups=groups, replicates=200, definition="AUROC")
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high))
    assert (
        fast.groups == len(np.unique(groups))
        and fast.n == 120
        and fast.definition.startswith("Area under the ROC curve")
    )
    assert fast == i.bootstrap(c.auroc, scores, truth, groups=groups, replicates=200)  # the seed decides


def test_groups_are_drawn_whole():
    groups = np.array(["b", "a", "b", "c", "a", "a"])
    number = np.unique(groups, return_inverse=True)[1]
    times = np.concatenate(list(draw(number, 3, 500, 0)))
    for name in "abc":
        assert (np.ptp(times[:, groups == name], axis=1) == 0).all()
    assert (times[:, [1, 0, 3]].sum(1) == 3).all()  # three groups are drawn
    assert times.mean(0) == pytest.approx(np.ones(6), abs=0.15)


def coverage(make, exact, trials, **settings):
    inside = []
    for seed in range(trials):
        metric, arrays, groups = make(np.random.default_rng(seed))
        e = i.bootstrap(metric, *arrays, groups=groups, replicates=200, seed=seed, **settings)
        inside.append(e.low <= exact <= e.high)
    return np.mean(inside)


def test_bootstrap_intervals_cover():
    def gaussians(rng):
        truth = np.arange(300) < 100
        return c.auroc, (rng.normal(1.0 * truth, 1), truth), None

    def scatter(rng):
        return r.sigma_nmad, (rng.normal(0, 1, 300),), None

    # 200 trials of a 95% interval: the binomial sigma is 1.5%, and percentile intervals are a little short
    assert coverage(gaussians, 0.7602499, 200) > 0.90
    assert coverage(scatter, 1.0, 200) > 0.90


def test_only_intervals_by_group_cover_where_objects_of_a_group_are_alike():
    def clustered(rng, with_groups):
        groups = np.repeat(np.arange(50), 10)
        return r.mean_bias, (rng.normal(0, 1, 50)[groups] + rng.normal(0, 0.3, 500),), groups if with_groups else None

    assert coverage(lambda rng: clustered(rng, True), 0.0, 200) > 0.89
    assert coverage(lambda rng: clustered(rng, False), 0.0, 200) < 0.65


def test_no_interval_where_resampling_says_nothing():
    one = i.bootstrap(r.bias, [0.1, 0.2], groups=[7, 7])
    assert one.value == pytest.approx(0.15) and np.isnan([one.low, one.high]).all() and one.groups == 1
    perfect = i.bootstrap(c.accuracy, np.ones(30, int), np.ones(30, int))
    assert perfect.value == 1.0 and np.isnan([perfect.low, perfect.high]).all()
    undefined = i.bootstrap(c.auroc, np.arange(20.0), np.zeros(20, int))
    assert np.isnan([undefined.value, undefined.low, undefined.high]).all()
    with pytest.raises(InputError, match="without a group"):
        i.bootstrap(r.bias, [0.1, 0.2], groups=[1.0, np.nan])
    with pytest.raises(InputError, match="level"):
        i.bootstrap(r.bias, [0.1, 0.2], level=95)


# -- paired differences -------------------------------------------------------------------------------------
def test_pairing_sees_what_two_intervals_do_not():
    rng = np.random.default_rng(1)
    truth = rng.random(2000) < 0.5
    hard = rng.normal(0, 1, 2000)  # what makes an object hard for both
    a, b = (truth + hard + rng.normal(0, s, 2000) for s in (0.2, 0.5))
    made = i.paired_difference(c.auroc, a, b, truth)
    alone = [i.bootstrap(c.auroc, x, truth) for x in (a, b)]
    assert alone[0].low < alone[1].high  # they overlap
    assert made.verdict == "ahead" and made.estimate.low > 0
    assert made.estimate.value == pytest.approx(made.first - made.second)
    assert i.paired_difference(c.auroc, b, a, truth).verdict == "behind"
    assert i.paired_difference(c.auroc, a, a, truth).verdict == "equal"
    assert "ahead" in str(made) and json.dumps(made.json(), allow_nan=False)


def test_which_way_is_better():
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 1, 1000)
    good, bad = truth + rng.normal(0, 0.1, 1000), truth + rng.normal(-0.2, 0.3, 1000)
    assert i.paired_difference(r.on(r.rmse), good, bad, truth, better="lower").verdict == "ahead"
    assert i.paired_difference(r.r2, good, bad, truth).verdict == "ahead"
    zero = i.paired_difference(r.on(r.bias), bad, good, truth, better="zero")
    assert zero.verdict == "behind" and zero.estimate.value == pytest.approx(0.2, abs=0.03)
    with pytest.raises(InputError, match="which way"):
        i.paired_difference(r.r2, good, bad, truth, better="up")


def test_equal_predictions_are_rarely_called_ahead():
    verdicts = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        truth = np.repeat(rng.random(100) < 0.5, 3)
        groups = np.repeat(np.arange(100), 3)
        shared = rng.normal(truth[::3], 1)[groups]
        a, b = (shared + rng.normal(0, 0.7, 100)[groups] for _ in range(2))
        verdicts.append(i.paired_difference(c.auroc, a, b, truth, groups, replicates=200, seed=seed).verdict)
    assert np.mean(np.array(verdicts) != "equal") < 0.1  # 5% is meant


# -- permutations -------------------------------------------------------------------------------------------
def gap(x, y):
    return x.mean() - y.mean()


def test_permutation_agrees_with_the_t_test():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.25, 1, 80), rng.normal(0, 1, 120)
    made = i.permutation_test(gap, a, b, permutations=4999)
    assert made.p_value == pytest.approx(ttest_ind(a, b).pvalue, abs=0.02)
    one = i.permutation_test(gap, a, b, permutations=4999, two_sided=False)
    assert one.p_value == pytest.approx(ttest_ind(a, b, alternative="greater").pvalue, abs=0.02)


def test_permutation_of_groups_keeps_its_level_and_that_of_objects_does_not():
    by_group, by_object = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(40), 5)
        x = rng.normal(0, 1, 40)[groups] + rng.normal(0, 0.3, 200)
        a, b = x[:100], x[100:]
        by_group.append(i.permutation_test(gap, a, b, groups[:100], groups[100:], permutations=99, seed=seed).p_value)
        by_object.append(i.permutation_test(gap, a, b, permutations=99, seed=seed).p_value)
    assert np.mean(np.array(by_group) <= 0.05) < 0.13
    assert np.mean(np.array(by_object) <= 0.05) > 0.25


def test_shared_groups_and_empty_samples_are_refused():
    with pytest.raises(InputError, match="both samples"):
        i.permutation_test(gap, [1.0, 2.0], [3.0], [0, 1], [1])
    with pytest.raises(InputError, match="empty"):
        i.permutation_test(gap, [], [3.0])
    with pytest.raises(InputError, match="one sample only"):
        i.permutation_test(gap, [1.0], [3.0], [0], None)
