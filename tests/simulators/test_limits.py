from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from deepsky.errors import InputError
from deepsky.simulators import _lens_limits as lens_limits
from deepsky.simulators import _limits as limits

# sigma_e, sigma_re/re, sigma_n, flux, centroid [pixel] at S/N 20, e = (0.2, 0.1), all seven free
TABLE = {
    ("lsst", 0.2, 0.7, "moffat"): {
        (0.3, 1): (0.149, 0.19, 1.0, 0.09, 0.17),
        (0.5, 1): (0.098, 0.12, 0.53, 0.10, 0.22),
        (0.5, 4): (0.149, 0.46, 3.2, 0.27, 0.18),
        (1.0, 1): (0.070, 0.11, 0.31, 0.11, 0.35),
    },
    ("great3", 0.2, 0.65, "moffat"): {
        (0.3, 1): (0.139, 0.17, 0.90, 0.09, 0.17),
        (0.5, 1): (0.094, 0.12, 0.50, 0.10, 0.22),
        (0.5, 4): (0.144, 0.46, 3.1, 0.27, 0.17),
        (1.0, 1): (0.069, 0.11, 0.29, 0.11, 0.34),
    },
    ("euclid", 0.1, 0.17, "gaussian"): {
        (0.3, 1): (0.063, 0.11, 0.25, 0.11, 0.19),
        (0.5, 1): (0.058, 0.11, 0.20, 0.11, 0.29),
        (0.5, 4): (0.088, 0.58, 2.0, 0.34, 0.12),
        (1.0, 1): (0.056, 0.11, 0.18, 0.11, 0.54),
    },
    ("sdss", 0.396, 1.3, "moffat"): {
        (0.6, 1): (0.139, 0.17, 0.91, 0.09, 0.17),
        (1.0, 1): (0.094, 0.12, 0.50, 0.10, 0.22),
        (1.0, 4): (0.141, 0.44, 3.2, 0.27, 0.17),
        (2.0, 1): (0.069, 0.11, 0.29, 0.11, 0.35),
    },
    ("hst", 0.06, 0.18, "gaussian"): {
        (0.3, 1): (0.063, 0.11, 0.25, 0.11, 0.32),
        (0.5, 1): (0.058, 0.11, 0.20, 0.11, 0.48),
        (0.5, 4): (0.088, 0.58, 2.0, 0.34, 0.20),
    },
}
ROWS = [(*key, *galaxy, *values) for key, rows in TABLE.items() for galaxy, values in rows.items()]
LSST = {"pixel_scale": 0.2, "fwhm": 0.7}


@pytest.mark.parametrize(("name", "scale", "fwhm", "family", "re", "n", "e", "size", "index", "flux", "centre"), ROWS)
def test_bounds_are_those_computed_before(name, scale, fwhm, family, re, n, e, size, index, flux, centre):
    bound = limits.galaxy_bounds(limits.Galaxy(re=re, n=float(n)), 20.0, pixel_scale=scale, fwhm=fwhm, family=family)
    assert bound["e1"] == pytest.approx(e, rel=0.05)
    assert bound["re"] == pytest.approx(size, rel=0.10)
    assert bound["flux"] == pytest.approx(flux, rel=0.13)
    assert bound["x"] == pytest.approx(centre, rel=0.12)
    # the cusp of n = 4 under a sharp PSF hangs on how finely it is sampled
    assert bound["n"] == pytest.approx(index, rel=0.22 if n == 4 and family == "gaussian" else 0.10)


def test_bounds_scale_with_the_noise_and_resolved_galaxies_follow_the_rule():
    galaxy = limits.Galaxy(re=1.0)
    low, high = (limits.galaxy_bounds(galaxy, snr, **LSST) for snr in (20.0, 200.0))
    assert [high[k] * 10 for k in limits.PARAMETERS] == pytest.approx([low[k] for k in limits.PARAMETERS], rel=1e-6)
    sharp = limits.galaxy_bounds(
        limits.Galaxy(re=1.0, e1=0.0, e2=0.0), 50.0, pixel_scale=0.1, fwhm=0.17, family="gaussian"
    )
    assert sharp["e1"] * 50 == pytest.approx(1.1, abs=0.1)  # 1.1 / SNR
    blurred = limits.galaxy_bounds(limits.Galaxy(re=0.3), 50.0, **LSST)
    assert 2 < blurred["e1"] * 50 < 3.1


def test_a_maximum_likelihood_fit_reaches_the_bound():
    """Linear fits of 2,000 noise draws at high S/N, ellipticity alone free: the scatter is the bound."""
    galaxy, snr = limits.Galaxy(), 100.0

    def image(e1: float):
        return limits.galaxy_image(limits.Galaxy(e1=e1), size=48, **LSST).numpy()

    sigma = np.sqrt((image(0.2) ** 2).sum()) / snr
    bound = limits.cramer_rao(limits.fisher(lambda p: image(p[0]), [galaxy.e1], [1e-3], sigma))[0]
    slope = (image(0.201) - image(0.199)).ravel() / 0.002
    noise = np.random.default_rng(0).normal(0, sigma, (2000, slope.size))
    estimate = noise @ slope / (slope @ slope)
    assert estimate.std() == pytest.approx(bound, rel=0.06)


def test_the_fisher_matrix_of_a_line_is_its_normal_matrix():
    x = np.linspace(-1, 1, 50)
    matrix = limits.fisher(lambda p: p[0] + p[1] * x + 0.5 * p[1] ** 2, [1.0, 2.0], [1e-3, 1e-3], sigma=0.1)
    design = np.stack([np.ones(50), x + 2.0])
    np.testing.assert_allclose(matrix, design @ design.T / 0.01, rtol=1e-8)
    np.testing.assert_allclose(limits.cramer_rao(matrix), np.sqrt(np.diag(np.linalg.inv(matrix))), rtol=1e-8)


def test_parameters_that_cannot_be_told_apart_are_refused():
    with pytest.raises(InputError, match="without information"):
        limits.cramer_rao(np.diag([1.0, 0.0]))
    with pytest.raises((InputError, np.linalg.LinAlgError)):
        limits.cramer_rao(np.ones((2, 2)))


def test_a_prior_adds_its_own_information():
    # a Gaussian parameter measured with Gaussian noise: the posterior mean reaches the bound
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.3, 200_000)
    seen = truth + rng.normal(0, 0.2, 200_000)
    estimate = seen * 0.3**2 / (0.3**2 + 0.2**2)
    assert ((estimate - truth) ** 2).mean() == pytest.approx(float(limits.van_trees(1 / 0.2**2, 0.3**2)), rel=0.02)
    assert limits.van_trees(0.0, 0.3**2) == pytest.approx(0.09)


@pytest.mark.parametrize(
    ("scale", "fwhm", "re", "expected"),
    [
        (0.2, 0.7, 0.1, (0.627, 0.742, 0.948)),
        (0.2, 0.7, 0.2, (0.848, 0.980, 1.0)),
        (0.396, 1.3, 0.2, (0.644, 0.769, 0.967)),
        (0.396, 1.3, 0.6, (0.972, 0.9999, 1.0)),
        (0.187, 0.68, 0.1, (0.635, 0.755, 0.958)),
        (0.187, 0.68, 0.3, (0.966, 0.9999, 1.0)),
    ],
)
def test_ideal_observer_of_stars_and_galaxies(scale, fwhm, re, expected):
    got = [limits.star_galaxy_auroc(snr, re, pixel_scale=scale, fwhm=fwhm) for snr in (10.0, 20.0, 50.0)]
    assert got == pytest.approx(expected, abs=0.02)


def test_detection_follows_the_normal_distribution():
    rng = np.random.default_rng(1)
    snr = np.array([0.5, 1.0, 2.0, 4.0])
    with_arcs, without = rng.normal(np.tile(snr, 50_000), 1), rng.normal(0, 1, 200_000)
    order = np.argsort(np.concatenate([without, with_arcs]))
    ranks = np.empty(400_000)
    ranks[order] = np.arange(1, 400_001)
    auroc = (ranks[200_000:].sum() - 200_000 * 200_001 / 2) / 200_000**2
    assert limits.detection_auroc(snr) == pytest.approx(auroc, abs=3e-3)
    assert limits.detection_auroc(np.array([5.0])) == pytest.approx(norm.cdf(5 / 2**0.5))
    threshold = np.quantile(without, 0.99)
    assert limits.detection_tpr(snr, 0.01) == pytest.approx((with_arcs > threshold).mean(), abs=6e-3)
    assert limits.detection_tpr(np.zeros(3), 0.1) == pytest.approx(0.1)


def test_shear_bias_needs_the_published_number_of_galaxies():
    assert limits.annulus_rms(0.01, 0.05) == pytest.approx(0.0255, abs=1e-4)
    assert limits.shear_bias_error(1.7e6, 0.1) == pytest.approx(0.003, rel=0.01)
    assert limits.shear_bias_error(3.8e6, 0.1) == pytest.approx(2e-3, rel=0.01)


# -- lenses: the table's source is not recorded; a source of 0.25 arcsec near the axis has its arc S/N ---------------
LENS_ROWS = [
    # pixel, FWHM, family, size, theta_E, noise/peak: arc S/N, theta_E, e1, e2, x, y
    (0.04, 0.188, "gaussian", 110, 0.7, 0.10, 225, 0.0013, 0.004, 0.004, 0.003, 0.002),
    (0.2, 0.7, "moffat", 45, 1.0, 0.05, 154, 0.0044, 0.010, 0.010, 0.009, 0.006),
    (0.2, 0.7, "moffat", 45, 1.5, 0.20, 44, 0.014, 0.021, 0.014, 0.023, 0.023),
    (0.1, 0.17, "gaussian", 64, 0.7, 0.05, 178, 0.0017, 0.005, 0.005, 0.004, 0.004),
    (0.1, 0.17, "gaussian", 80, 1.5, 0.20, 57, 0.0054, 0.008, 0.006, 0.010, 0.010),
]


@pytest.mark.parametrize("row", LENS_ROWS)
def test_lens_bounds_are_those_computed_before(row):
    scale, fwhm, family, size, theta_e, noise, snr, *expected = row
    system = lens_limits.LensedSource(theta_e=theta_e, source_x=0.08, source_y=0.04, source_re=0.25)
    got = lens_limits.lens_bounds(system, pixel_scale=scale, fwhm=fwhm, size=size, noise_over_peak=noise, family=family)
    assert got["snr"] == pytest.approx(snr, rel=0.15)
    assert got["theta_e"] == pytest.approx(expected[0], rel=0.15)
    rest = [got[name] / value for name, value in zip(lens_limits.LENS_PARAMETERS[1:], expected[1:], strict=True)]
    assert all(0.5 < ratio < 1.5 for ratio in rest), rest


def test_lens_bounds_scale_with_the_noise_and_do_not_hang_on_the_rays():
    system = lens_limits.LensedSource(source_re=0.25)
    options = {"pixel_scale": 0.2, "fwhm": 0.7, "size": 41}
    low = lens_limits.lens_bounds(system, noise_over_peak=0.05, **options)
    high = lens_limits.lens_bounds(system, noise_over_peak=0.10, **options)
    fine = lens_limits.lens_bounds(system, noise_over_peak=0.05, oversample=8, **options)
    for name in lens_limits.LENS_PARAMETERS:
        assert high[name] == pytest.approx(2 * low[name], rel=1e-6)
        assert fine[name] == pytest.approx(low[name], rel=0.03)


def test_a_lens_image_conserves_brightness_and_converges():
    options = {"pixel_scale": 0.2, "fwhm": 0.7, "size": 61}
    point = lens_limits.LensedSource(theta_e=1.0, e1=1e-4, e2=0.0, source_x=0.3, source_y=0.0, source_re=0.05)
    image = lens_limits.lens_image(point, oversample=12, **options)
    assert image.dtype == torch.float64
    assert float(image.sum()) == pytest.approx(2 / 0.3, rel=0.03)  # the magnification of a point behind a sphere
    system = lens_limits.LensedSource(source_re=0.15)
    few, many = (lens_limits.lens_image(system, oversample=k, **options) for k in (4, 12))
    assert float((few - many).abs().max() / many.max()) < 5e-3
