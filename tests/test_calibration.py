"""Temperatures against their truth, priors by Bayes, and the coverage that conformal prediction guarantees."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import norm

from deepsky import calibration as c
from deepsky.errors import InputError


def logits(rng, n, k=4, t=1.0):
    """Logits and codes drawn from their probabilities; a temperature `t` above 1 makes the logits over-confident."""
    x = rng.normal(0, 2, (n, k))
    truth = (softmax(x, axis=1).cumsum(1) > rng.random(n)[:, None]).argmax(1)
    return t * x, truth


# -- temperature --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("t", [0.4, 1.0, 3.0])
def test_the_temperature_that_spoilt_the_logits_is_found(t):
    x, y = logits(np.random.default_rng(0), 20_000, t=t)
    made = c.Temperature.fit(x, y)
    assert math.exp(made.log_t[0]) == pytest.approx(t, rel=0.04)
    assert made.apply(x) == pytest.approx(softmax(x / t, axis=1), abs=0.02)


def test_it_is_the_maximum_of_the_likelihood():
    x, y = logits(np.random.default_rng(1), 500, t=2.0)
    rows = np.arange(500)
    best = minimize_scalar(
        lambda u: -log_softmax(x / math.exp(u), axis=1)[rows, y].sum(), bounds=(-3, 3), method="bounded"
    )
    assert c.Temperature.fit(x, y, shifted=False, prior=None).log_t[0] == pytest.approx(best.x, abs=1e-4)
    assert abs(c.Temperature.fit(x, y, shifted=False).log_t[0] - best.x) < 0.02  # the prior is worth one object in 500


def test_other_shares_of_the_classes_than_training_saw_are_made_good():
    rng = np.random.default_rng(5)
    x, y = logits(rng, 60_000, 3)
    kept = rng.random(60_000) < np.array([1.0, 0.3, 0.1])[y]  # the objects of the survey that it is calibrated for
    x, y = 1.6 * x[kept], y[kept]
    half = len(y) // 2
    made, plain = (c.Temperature.fit(x[:half], y[:half], shifted=s) for s in (True, False))
    # Bayes: the log of the shares that are left, about their mean
    wanted = np.log([1.0, 0.3, 0.1])
    assert made.shift == pytest.approx(wanted - wanted.mean(), abs=0.06)
    assert math.exp(made.log_t[0]) == pytest.approx(1.6, rel=0.04)
    assert len(plain.shift) == 0
    for code in range(3):
        p, share = made.apply(x[half:])[:, code].mean(), (y[half:] == code).mean()
        assert p == pytest.approx(share, abs=0.012)
    assert abs(plain.apply(x[half:])[:, 2].mean() - (y[half:] == 2).mean()) > 0.05


def test_few_objects_hardly_shift():
    x, y = logits(np.random.default_rng(6), 20, 3)
    assert np.abs(c.Temperature.fit(x, y).shift).max() < 1.5
    assert np.abs(c.Temperature.fit(x, np.zeros(20, int)).shift).max() < 3.0  # a class that calibration never saw


def test_few_objects_without_a_mistake_do_not_ask_for_certainty():
    x, y = 2 * np.eye(3)[np.arange(30) % 3], np.arange(30) % 3
    assert c.Temperature.fit(x, y, prior=None).log_t[0] < -3
    assert -2 < c.Temperature.fit(x, y).log_t[0] < 0


def test_one_temperature_keeps_the_order_and_one_a_class_finds_each():
    rng = np.random.default_rng(2)
    x, y = logits(rng, 30_000, 3)
    spoilt = x * np.array([0.5, 1.0, 2.0])
    one, each = (c.Temperature.fit(spoilt, y, per_class=p, shifted=False) for p in (False, True))
    np.testing.assert_array_equal(one.apply(spoilt).argmax(1), spoilt.argmax(1))
    assert np.exp(each.log_t) == pytest.approx([0.5, 1.0, 2.0], rel=0.06)


def test_a_binary_logit_is_that_of_two_columns():
    x, y = logits(np.random.default_rng(3), 2000, 2, t=1.7)
    one = x[:, 1] - x[:, 0]
    both, single = c.Temperature.fit(x, y, shifted=False), c.Temperature.fit(one, y)
    assert single.log_t == pytest.approx(both.log_t, abs=1e-5)
    assert single.apply(one) == pytest.approx(both.apply(x)[:, 1], abs=1e-5)


@pytest.mark.parametrize("shape", ["several", "one"])
def test_the_slope_of_the_loss_is_right(shape):
    """A wrong slope would still end somewhere: the end must be a minimum in every direction."""
    rng = np.random.default_rng(4)
    x, y = logits(rng, 300, 3)
    x, per_class = x * np.array([0.6, 1.0, 1.5]) + np.array([0.0, 0.5, -1.0]), shape == "several"
    fitted = c.Temperature.fit(x, y, per_class=per_class, prior=None)
    made, size = np.concatenate([fitted.log_t, fitted.shift]), len(fitted.log_t)

    def loss(u):
        return -log_softmax(x / np.exp(u[:size]) + u[size:], axis=1)[np.arange(300), y].sum()

    for step in np.eye(len(made)):
        assert loss(made + 0.01 * step) > loss(made) < loss(made - 0.01 * step)


# -- prior --------------------------------------------------------------------------------------------------
def test_correction_of_the_prior_is_bayes():
    rng = np.random.default_rng(5)
    likelihood = rng.random((50, 3))
    old, new = np.array([0.2, 0.3, 0.5]), np.array([0.7, 0.3, 0.0])
    p, q = (likelihood * a / (likelihood * a).sum(1, keepdims=True) for a in (old, new))
    assert c.correct_prior(p, old, new) == pytest.approx(q)
    assert c.correct_prior(p, old, old) == pytest.approx(p)
    assert c.correct_prior(c.correct_prior(p, old, [1, 1, 1]), [1, 1, 1], old) == pytest.approx(p)
    # two classes, given by the share of class 1
    two = likelihood[:, :2] / likelihood[:, :2].sum(1, keepdims=True)
    assert c.correct_prior(two[:, 1], 0.5, 0.001) == pytest.approx(
        c.correct_prior(two, [0.5, 0.5], [0.999, 0.001])[:, 1]
    )


def test_corrected_probabilities_are_calibrated_at_the_new_prevalence():
    rng = np.random.default_rng(6)
    truth = rng.random(200_000) < 0.02
    x = rng.normal(2.0 * truth, 1)
    half = 1 / (1 + np.exp(-(2 * x - 2)))  # the exact posterior at equal shares
    p = c.correct_prior(half, 0.5, 0.02)
    assert p.mean() == pytest.approx(truth.mean(), abs=3e-3)
    for low, high in ((0.1, 0.3), (0.3, 0.6)):
        here = (p > low) & (p < high)
        assert truth[here].mean() == pytest.approx(p[here].mean(), abs=4 * np.sqrt(0.25 / here.sum()))


def test_certainty_and_unseen_classes_survive_the_correction():
    p = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert c.correct_prior(p, [0.5, 0.5], [1.0, 0.0]) == pytest.approx(np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert c.correct_prior([[0.5, 0.5, 0.0]], [0.5, 0.5, 0], [0.2, 0.2, 0.6])[0] == pytest.approx([0.5, 0.5, 0.0])
    with pytest.raises(InputError, match="one share for each class"):
        c.correct_prior(p, [0.5, 0.5], [0.2, 0.3, 0.5])
    with pytest.raises(InputError, match="one share for each class"):
        c.correct_prior(p, [0.5, 0.5], [1.2, -0.2])


def test_the_prior_of_an_unlabelled_sample_is_found():
    rng = np.random.default_rng(7)
    truth = rng.random(20_000) < 0.1
    x = rng.normal(2.0 * truth, 1)
    half = 1 / (1 + np.exp(-(2 * x - 2)))
    assert c.estimate_prior(half, 0.5) == pytest.approx([0.9, 0.1], abs=0.012)


# -- conformal ----------------------------------------------------------------------------------------------
def test_the_conformal_quantile_by_hand():
    s = np.arange(1, 10.0)  # nine scores
    assert c.conformal_quantile(s, 0.5) == 5
    assert c.conformal_quantile(s, 0.9) == 9  # the ninth of nine is the most that nine can promise
    assert c.conformal_quantile(s, 0.91) == math.inf
    assert c.conformal_quantile([], 0.5) == math.inf
    assert c.conformal_quantile(np.arange(99), 0.95) == 94
    with pytest.raises(InputError, match="level"):
        c.conformal_quantile(s, 95)
    with pytest.raises(InputError, match="NaN"):
        c.conformal_quantile([np.nan], 0.9)


def check_guarantee(hits, level, n):
    """Mean coverage over many calibration samples lies between the level and level + 1 / (n + 1)."""
    error = 4 * np.std(hits) / np.sqrt(len(hits))
    assert level - error < np.mean(hits) < level + 1 / (n + 1) + error


@pytest.mark.parametrize("score", ["lac", "aps"])
@pytest.mark.parametrize("level", [0.68, 0.9])
def test_sets_hold_the_class_as_often_as_promised_even_from_wrong_probabilities(score, level):
    rng = np.random.default_rng(8)
    hits = []
    for _ in range(400):
        x, y = logits(rng, 160, 5)
        p = softmax(3 * x + [1, 0, 0, 0, -1], axis=1)
        made = c.ConformalSet.fit(p[:60], y[:60], level, score=score)
        hits.append(made.apply(p[60:])[np.arange(100), y[60:]].mean())
    check_guarantee(hits, level, 60)


def test_mondrian_sets_hold_the_level_in_every_class_where_common_ones_do_not():
    rng = np.random.default_rng(9)
    rare = {True: [], False: []}
    for _ in range(300):
        y = (rng.random(400) < 0.15).astype(int)
        p = softmax(np.stack([np.zeros(400), rng.normal(2.0 * y - 3, 1)], axis=1), axis=1)
        for per_class, found in rare.items():
            made = c.ConformalSet.fit(p[:200], y[:200], 0.9, per_class=per_class)
            inside = made.apply(p[200:])[np.arange(200), y[200:]]
            found.append(inside[y[200:] == 1].mean())
    assert np.mean(rare[True]) > 0.9 - 4 * np.std(rare[True]) / np.sqrt(300)
    assert np.mean(rare[False]) < 0.8
    made = c.ConformalSet.fit(p[y == 0], y[y == 0], 0.9, per_class=True)
    assert made.threshold[1] == math.inf and made.apply(p)[:, 1].all()  # never seen: never excluded


def test_aps_scores_by_hand_with_ties():
    p = np.array([[0.5, 0.2, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]])
    made = c.ConformalSet(0.9, np.array([0.9]), "aps")
    np.testing.assert_array_equal(made.apply(p), [[True, True, True, False], [False] * 4])
    exact = np.array([[q[q >= x].sum() for x in q] for q in p])
    np.testing.assert_allclose(c._class_scores(p, "aps"), exact)


def test_sets_shrink_as_the_classifier_gets_better():
    rng = np.random.default_rng(10)
    sizes = []
    for t in (0.2, 1.0):
        x, y = logits(rng, 2000, 5)
        p = softmax(t * x + (1 - t) * rng.normal(0, 2, x.shape), axis=1)
        sizes.append(c.ConformalSet.fit(p[:1000], y[:1000], 0.9).apply(p[1000:]).sum(1).mean())
    assert sizes[1] < 0.7 * sizes[0]


@pytest.mark.parametrize("kind", ["scaled", "quantiles", "pit"])
def test_intervals_hold_the_truth_as_often_as_promised_even_from_a_wrong_model(kind):
    rng = np.random.default_rng(11)
    hits = []
    for _ in range(400):
        x = rng.uniform(0, 2, 180)
        y = np.sin(3 * x) + (0.1 + x) * rng.standard_t(4, 180)
        centre, sigma = 0.5 * x, 0.2 + 0.3 * x  # a wrong mean and a wrong scatter
        low, high = centre - sigma, centre + sigma
        fit, new = slice(None, 80), slice(80, None)
        if kind == "scaled":
            ends = c.ConformalInterval.fit_scaled(centre[fit], sigma[fit], y[fit], 0.9).apply(centre[new], sigma[new])
        elif kind == "quantiles":
            ends = c.ConformalInterval.fit_quantiles(low[fit], high[fit], y[fit], 0.9).apply(low[new], high[new])
        else:
            made = c.ConformalPIT.fit(norm.cdf(y[fit], centre[fit], sigma[fit]), 0.9)
            ends = [norm.ppf(level, centre[new], sigma[new]) for level in made.levels()[0]]
        hits.append(((y[new] >= ends[0]) & (y[new] <= ends[1])).mean())
    check_guarantee(hits, 0.9, 80)


def test_a_right_posterior_needs_no_correction():
    rng = np.random.default_rng(12)
    made = c.ConformalPIT.fit(rng.random((20_000, 2)), 0.95)
    assert made.reach == pytest.approx([1.96, 1.96], abs=0.06)
    assert made.levels() == pytest.approx(np.array([[0.025, 0.975]] * 2), abs=4e-3)
    pit = rng.random((500, 2))
    inside = (pit >= made.levels()[:, 0]) & (pit <= made.levels()[:, 1])
    np.testing.assert_array_equal(made.apply(pit), inside)


def test_too_few_objects_give_the_whole_line():
    made = c.ConformalPIT.fit([0.1, 0.9], 0.95)
    assert made.reach[0] == math.inf and made.levels()[0] == pytest.approx([0, 1])
    wide = c.ConformalInterval.fit_scaled([0.0], [1.0], [0.5], 0.95).apply([0.0], [1.0])
    assert wide == (-math.inf, math.inf)
    both = c.ConformalInterval.fit_quantiles([0.0], [1.0], [0.5], 0.95).apply([0.0], [1.0])
    assert both == (-math.inf, math.inf)


def test_an_interval_narrowed_past_zero_is_its_middle():
    made = c.ConformalInterval(0.9, np.array([-2.0]), "quantiles")
    low, high = made.apply([0.0, 0.0], [2.0, 10.0])
    assert low == pytest.approx([1.0, 2.0]) and high == pytest.approx([1.0, 8.0])


# -- saving -------------------------------------------------------------------------------------------------
def test_each_is_its_arrays_beside_those_of_others(tmp_path):
    rng = np.random.default_rng(13)
    x, y = logits(rng, 200)
    p = softmax(x, axis=1)
    fitted = (
        (c.Temperature.fit(x, y, per_class=True), (x,)),
        (c.ConformalSet.fit(p, y, 0.8, score="aps", per_class=True), (p,)),
        (c.ConformalInterval.fit_scaled(x[:, 0], np.ones(200), x[:, 1], 0.8), (x[:, 0], np.ones(200))),
        (c.ConformalPIT.fit(p[:, 0], 0.8), (p[:, 0],)),
    )
    for made, arguments in fitted:
        np.savez(tmp_path / "arrays.npz", **made.arrays())
        with np.load(tmp_path / "arrays.npz") as arrays:
            back = type(made).from_arrays({**arrays, "another": np.zeros(3)})
        np.testing.assert_array_equal(made.apply(*arguments), back.apply(*arguments))
        assert all(v.dtype in (np.float64, np.int64) and v.ndim == 1 for v in made.arrays().values())
        with pytest.raises(AttributeError):
            made.level = 0.5
    # a classifier saves both of its parts in one file
    merged = {**fitted[0][0].arrays(), **fitted[1][0].arrays()}
    assert c.ConformalSet.from_arrays(merged).level == 0.8
    np.testing.assert_array_equal(c.Temperature.from_arrays(merged).log_t, fitted[0][0].log_t)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(InputError, match="without a label"):
        c.Temperature.fit(np.zeros((2, 2)), [0, -1])
    with pytest.raises(InputError, match="finite logits"):
        c.Temperature.fit(np.full((2, 2), np.nan), [0, 1])
    with pytest.raises(InputError, match="without NaN"):
        c.ConformalSet.fit(np.full((2, 2), np.nan), [0, 1])
    with pytest.raises(InputError, match="known: lac, aps"):
        c.ConformalSet.fit(np.eye(2), [0, 1], score="raps")
    with pytest.raises(InputError, match="sigma"):
        c.ConformalInterval.fit_scaled([0.0], [0.0], [1.0])
    with pytest.raises(InputError, match="PIT"):
        c.ConformalPIT.fit([1.2])
