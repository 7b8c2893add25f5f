"""Residuals, PIT, CRPS, CDE loss and coverage against numpy, scikit-learn, closed forms and numerical integration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import kstest, norm
from sklearn.metrics import r2_score

from deepsky.errors import InputError
from deepsky.metrics import distributions as d
from deepsky.metrics import regression as r


@pytest.fixture(scope="module")
def mixtures():
    rng = np.random.default_rng(0)
    n, k = 60, 3
    w = rng.dirichlet(np.ones(k), n)
    return w, rng.normal(0, 1, (n, k)), rng.uniform(0.2, 1.0, (n, k)), rng.normal(0, 1, n)


def test_residuals_by_their_definitions():
    rng = np.random.default_rng(1)
    z = rng.uniform(0, 2, 1001)
    photo = z + rng.standard_t(3, 1001) * 0.03 * (1 + z)
    x = (photo - z) / (1 + z)
    np.testing.assert_allclose(r.dz(photo, z), x)
    assert r.bias(x) == np.median(x)
    assert r.mean_bias(x) == pytest.approx(x.mean())
    assert r.sigma_nmad(x) == pytest.approx(1.4826 * np.median(np.abs(x - np.median(x))))
    assert r.sigma_iqr(x) == pytest.approx(np.subtract(*np.percentile(x, [75, 25])) / 1.349)
    assert r.outlier_fraction(x) == np.mean(np.abs(x) > 0.15)
    assert r.outlier_fraction_dc1(x) == np.mean(np.abs(x) > max(3 * r.sigma_iqr(x), 0.06))
    assert r.rmse(x) == pytest.approx(np.sqrt(np.mean(x**2)))
    assert r.mae(x) == pytest.approx(np.mean(np.abs(x)))
    assert r.r2(photo, z) == pytest.approx(r2_score(z, photo))


def test_scatters_of_a_gaussian_are_its_sigma():
    x = 0.02 * norm.ppf((np.arange(100_001) + 0.5) / 100_001)
    assert r.sigma_nmad(x) == pytest.approx(0.02, rel=1e-3)
    assert r.sigma_iqr(x) == pytest.approx(0.02, rel=1e-3)
    assert r.outlier_fraction(x, 0.04) == pytest.approx(2 * ndtr(-2), rel=1e-3)


def test_r2_survives_a_large_offset():
    rng = np.random.default_rng(2)
    t = rng.normal(0, 1, 500)
    p = t + rng.normal(0, 0.3, 500)
    assert r.r2(p + 1e8, t + 1e8) == pytest.approx(r.r2(p, t), abs=1e-6)
    assert r.r2(np.full(500, t.mean()), t) == pytest.approx(0, abs=1e-12)


FIGURES = [
    r.bias, r.mean_bias, r.sigma_nmad, r.sigma_iqr, r.outlier_fraction, r.outlier_fraction_dc1, r.rmse, r.mae,
]  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 7, 100, 101])
@pytest.mark.parametrize("figure", FIGURES)
def test_a_weight_is_the_same_as_writing_the_object_out(figure, n):
    rng = np.random.default_rng(n)
    x = np.round(rng.normal(0, 0.2, n), 2)  # ties
    times = rng.poisson(1.2, (8, n)).astype(float)
    times[:, 0] += times.sum(1) == 0
    made = figure(x, weight=times)
    rows = [np.repeat(np.arange(n), w.astype(int)) for w in times]
    assert made == pytest.approx([figure(x[i]) for i in rows], abs=1e-12)


def test_r2_and_ks_with_weights():
    rng = np.random.default_rng(3)
    p, t, u = rng.normal(0, 1, 80), rng.normal(0, 1, 80), np.round(rng.random(80), 2)
    times = rng.poisson(1.2, (8, 80)).astype(float)
    rows = [np.repeat(np.arange(80), w.astype(int)) for w in times]
    assert r.r2(p, t, weight=times) == pytest.approx([r.r2(p[i], t[i]) for i in rows])
    assert r.pit_ks(u, weight=times) == pytest.approx([r.pit_ks(u[i]) for i in rows])


def test_on_makes_a_figure_of_prediction_and_truth():
    photo, z = np.array([0.1, 0.5, 1.2]), np.array([0.12, 0.4, 1.0])
    figure = r.on(r.sigma_nmad, r.dz)
    assert figure(photo, z) == r.sigma_nmad(r.dz(photo, z))
    assert "sigma_NMAD" in figure.__doc__ and "z_spec" in figure.__doc__
    assert r.on(r.rmse)(photo, z, weight=np.array([[1, 1, 0.0]])).shape == (1,)


def test_pit_ks_is_that_of_scipy():
    u = np.random.default_rng(4).beta(1.3, 1, 500)
    assert r.pit_ks(u) == pytest.approx(kstest(u, "uniform").statistic)
    assert r.pit_extreme(np.array([0.0, 0.5, 0.99995, 0.2])) == 0.5


# -- distributions ------------------------------------------------------------------------------------------
def integrated_crps(cdf, truth, low=-12.0, high=12.0, steps=240_001):
    y = np.linspace(low, high, steps)
    return np.trapezoid((cdf(y) - (y >= truth)) ** 2, y)


def test_crps_of_a_gaussian_against_integration():
    for m, s, t in ((0.3, 0.7, 1.1), (-2.0, 1.5, -2.0), (0.0, 0.1, 3.0)):
        exact = integrated_crps(lambda y, m=m, s=s: ndtr((y - m) / s), t)
        assert d.crps_gaussian([m], [s], [t])[0] == pytest.approx(exact, abs=1e-4)
    # of the standard normal at its middle: (sqrt 2 - 1) / sqrt pi
    assert d.crps_gaussian([0], [1], [0])[0] == pytest.approx((np.sqrt(2) - 1) / np.sqrt(np.pi), abs=1e-14)


def test_mixture_against_integration_and_a_mixture_of_one(mixtures):
    w, m, s, t = mixtures
    made = d.crps_mixture(w, m, s, t)
    for i in range(5):
        exact = integrated_crps(lambda y, i=i: (w[i] * ndtr((y[:, None] - m[i]) / s[i])).sum(1), t[i], steps=60_001)
        assert made[i] == pytest.approx(exact, abs=3e-4)
    one = np.ones((len(t), 1))
    assert d.crps_mixture(one, m[:, :1], s[:, :1], t) == pytest.approx(d.crps_gaussian(m[:, 0], s[:, 0], t))


def test_crps_of_samples_is_the_double_sum_and_tends_to_the_closed_form():
    rng = np.random.default_rng(5)
    x, t = rng.normal(0, 1, (4, 30)), rng.normal(0, 1, 4)
    pairs = np.abs(x[:, :, None] - x[:, None, :]).sum((1, 2))
    near = np.abs(x - t[:, None]).mean(1)
    assert d.crps_samples(x, t) == pytest.approx(near - pairs / 2 / 30**2)
    assert d.crps_samples(x, t, fair=True) == pytest.approx(near - pairs / 2 / (30 * 29))
    many = norm.ppf((np.arange(20_000) + 0.5) / 20_000)[None]
    assert d.crps_samples(many, [0.4])[0] == pytest.approx(d.crps_gaussian([0], [1], [0.4])[0], abs=1e-4)
    # fair: right on average whatever the number of samples
    small = np.mean(d.crps_samples(rng.normal(0, 1, (20_000, 3)), np.full(20_000, 0.4), fair=True))
    assert small == pytest.approx(d.crps_gaussian([0], [1], [0.4])[0], abs=0.02)


LEVELS = np.array([0.005, 0.025, *np.arange(0.05, 0.96, 0.05), 0.975, 0.995])


def test_quantiles_of_a_gaussian_are_exact():
    q = 2.0 + 0.5 * norm.ppf(LEVELS)[None]
    at = np.array([0.0, 1e-4, 0.16, 0.5, 0.977, 0.9999, 1.0])
    assert d.quantile_at(LEVELS, q, at)[0] == pytest.approx(2.0 + 0.5 * norm.ppf(at))
    t = np.array([0.2, 1.7, 2.0, 3.9])
    q = np.repeat(q, 4, axis=0)
    assert d.pit_quantiles(LEVELS, q, t) == pytest.approx(norm.cdf(t, 2.0, 0.5), abs=1e-12)
    assert d.crps_quantiles(LEVELS, q, t) == pytest.approx(
        d.crps_gaussian(np.full(4, 2.0), np.full(4, 0.5), t), abs=5e-4
    )


def test_quantiles_of_a_mixture_agree_with_its_closed_forms(mixtures):
    w, m, s, t = mixtures
    y = np.linspace(-8, 8, 8001)
    cdf = np.einsum("nk,nky->ny", w, ndtr((y - m[:, :, None]) / s[:, :, None]))
    fine = np.arange(0.001, 1, 0.001)
    q = np.stack([np.interp(fine, c, y) for c in cdf])
    assert d.pit_quantiles(fine, q, t) == pytest.approx(d.pit_mixture(w, m, s, t), abs=1e-3)
    assert d.crps_quantiles(fine, q, t) == pytest.approx(d.crps_mixture(w, m, s, t), abs=2e-3)
    q = np.stack([np.interp(LEVELS, c, y) for c in cdf])
    off = np.abs(d.pit_quantiles(LEVELS, q, t) - d.pit_mixture(w, m, s, t))
    # between two levels the shape is unknown, in a gap of a bimodal density most of all: at worst a whole step is lost
    assert off.max() < 0.05 and off.mean() < 0.002
    assert d.crps_quantiles(LEVELS, q, t) == pytest.approx(d.crps_mixture(w, m, s, t), rel=0.05)


def test_pit_quantiles_of_a_jump_is_its_middle():
    q = np.zeros((3, len(LEVELS)))
    assert d.pit_quantiles(LEVELS, q, [-1.0, 0.0, 1.0]) == pytest.approx([0.0, 0.5, 1.0])


def test_pit_is_uniform_where_the_distributions_are_right_and_not_elsewhere():
    rng = np.random.default_rng(6)
    n = 4000
    m, s = rng.normal(0, 1, n), rng.uniform(0.5, 2, n)
    t = rng.normal(m, s)
    one = np.ones((n, 1))
    grid = np.linspace(-14, 14, 1401)
    density = norm.pdf(grid[None], m[:, None], s[:, None])
    for pit in (
        d.pit_mixture(one, m[:, None], s[:, None], t),
        d.pit_grid(grid, density, t),
        d.pit_quantiles(LEVELS, m[:, None] + s[:, None] * norm.ppf(LEVELS), t),
        d.pit_samples(rng.normal(m[:, None], s[:, None], (n, 200)), t),
    ):
        assert r.pit_ks(pit) < 1.63 / np.sqrt(n) + 0.005  # 99%, and the samples' steps
        low, high = r.coverage_of_pit(pit)
        assert (low.mark, high.mark) == ("", "")
    narrow = d.pit_mixture(one, m[:, None], 0.7 * s[:, None], t)
    assert r.pit_ks(narrow) > 0.05
    assert [c.mark for c in r.coverage_of_pit(narrow)] == ["miss", "miss"]


def test_cde_loss_on_a_grid_tends_to_the_closed_form(mixtures):
    w, m, s, t = mixtures
    grid = np.linspace(-8, 8, 3001)
    density = np.einsum("nk,nkg->ng", w / 1.0, norm.pdf(grid, m[:, :, None], s[:, :, None]))
    exact = d.cde_mixture(w, m, s, t)
    assert d.cde_grid(grid, density, t) == pytest.approx(exact, abs=1e-4)
    assert d.cde_grid(grid, 7.0 * density, t) == pytest.approx(exact, abs=1e-4)  # normalised on the grid
    # one Gaussian: int p^2 = 1 / (2 sqrt pi sigma)
    one = d.cde_mixture([[1.0]], [[0.0]], [[0.5]], [0.0])[0]
    assert one == pytest.approx(1 / (2 * np.sqrt(np.pi) * 0.5) - 2 / (np.sqrt(2 * np.pi) * 0.5))


def test_cde_loss_is_least_for_the_right_density_and_zero_density_outside():
    rng = np.random.default_rng(7)
    t = rng.normal(0, 1, 20_000)
    losses = []
    for s in (0.8, 1.0, 1.25):
        one = np.ones((len(t), 1))
        losses.append(r.cde_loss(d.cde_mixture(one, 0 * one, s * one, t)))
    assert np.argmin(losses) == 1
    grid = np.linspace(0, 1, 11)
    assert d.cde_grid(grid, np.ones((1, 11)), [3.0])[0] == pytest.approx(1.0)  # int 1^2 - 0
    assert d.cde_grid(grid, np.ones((1, 11)), [0.33])[0] == pytest.approx(-1.0)


def test_coverage_marks_what_misses_and_what_is_few():
    hit = np.arange(1000) % 100 < 68
    made = r.coverage(hit, 0.68)
    assert made.share.value == 0.68 and made.share.low < 0.68 < made.share.high and made.mark == ""
    assert r.coverage(np.arange(1000) % 100 < 60, 0.68).mark == "miss"
    assert r.coverage(hit[:99], 0.68).mark == "few"
    assert np.isnan(r.coverage([], 0.68).share.value)


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(InputError, match="residual is not finite"):
        r.bias([0.1, np.nan])
    with pytest.raises(InputError, match="above -1"):
        r.dz([0.1], [-99.0])
    with pytest.raises(InputError, match="different length"):
        r.residual([0.1], [0.1, 0.2])
    with pytest.raises(InputError, match="sum to 1"):
        d.pit_mixture([[0.5, 0.1]], [[0, 0]], [[1, 1]], [0.0])
    with pytest.raises(InputError, match="grid must rise"):
        d.cde_grid([0, 2, 1], np.ones((1, 3)), [0.5])
    with pytest.raises(InputError, match="fall"):
        d.pit_quantiles([0.2, 0.5], [[1.0, 0.0]], [0.5])
    with pytest.raises(InputError, match="levels"):
        d.pit_quantiles([0.5, 0.2], [[0.0, 1.0]], [0.5])
