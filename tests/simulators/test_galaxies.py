from __future__ import annotations

import numpy as np
import pytest

from deepsky.simulators import _galaxies as galaxies
from deepsky.simulators._cosmology import arcsec_of, distance_modulus
from deepsky.simulators._noise import magnitude
from deepsky.simulators._random import Draws
from deepsky.simulators._surveys import SURVEYS, bands

pytest.importorskip("galsim", reason="galsim is not installed")
KIDS = SURVEYS["kids"]
R = bands("kids", ("r",))[0]


def draw(count, n=4000, seed=0):
    return Draws(seed).uniform(np.arange(n), count)


def test_distortion_and_shear_are_two_names_of_one_axis_ratio():
    q = np.linspace(0.1, 1, 50)
    np.testing.assert_allclose(galaxies.distortion_to_shear((1 - q**2) / (1 + q**2)), (1 - q) / (1 + q), atol=1e-12)
    g1, g2 = galaxies.axis_ratio_shear(q, np.full(50, np.pi / 8))
    np.testing.assert_allclose([g1, g2], np.array([(1 - q) / (1 + q)] * 2) / np.sqrt(2), atol=1e-12)


def test_ellipticities_have_the_quantiles_of_cosmos():
    u = draw(2, 20_000)
    g1, g2 = galaxies.cosmos_shapes(u[:, 0], u[:, 1])
    g = np.hypot(g1, g2)
    e = 2 * g / (1 + g**2)
    np.testing.assert_allclose(np.quantile(e, [0.05, 0.25, 0.5, 0.75, 0.95]), [0.11, 0.31, 0.53, 0.75, 0.92], atol=0.02)
    assert e.mean() == pytest.approx(0.528, abs=0.01)
    phi = np.arctan2(g2, g1)
    rms = np.sqrt(((e * np.cos(phi)) ** 2).mean())
    assert rms == pytest.approx(0.416, abs=0.012)
    assert abs(g1.mean()) < 0.01 and abs(g2.mean()) < 0.01 and abs((g1 * g2).mean()) < 0.005


def test_ellipticities_and_bulges_are_those_of_the_published_shapes(shared_data):
    from astropy.io import fits

    path = shared_data / "great3" / "real_galaxy_23.5_shapes.fits"
    if not path.exists():
        pytest.skip("no GREAT3 shapes")
    table = fits.getdata(path)
    e = np.hypot(np.asarray(table["e1"], float), np.asarray(table["e2"], float))
    good = (np.asarray(table["do_meas"]) >= 0) & (e < 1)
    u = draw(2, 20_000)
    g = np.hypot(*galaxies.cosmos_shapes(u[:, 0], u[:, 1]))
    ours = np.sort(2 * g / (1 + g**2))
    theirs = np.sort(e[good])
    assert len(theirs) > 50_000
    # the largest distance between the two cumulative distributions
    share = np.searchsorted(ours, theirs) / len(ours)
    assert np.abs(share - np.arange(len(theirs)) / len(theirs)).max() < 0.025
    bulge = np.asarray(table["bulge_tot"], float)
    bulge = bulge[(bulge >= 0) & good]
    mine = galaxies.bulge_fraction(u[:, 0])
    for level in (0.01, 0.1, 0.3, 0.6, 0.9):
        assert (mine < level).mean() == pytest.approx((bulge < level).mean(), abs=0.05)


def test_sizes_are_log_normal_about_their_relation():
    u = draw(1)[:, 0]
    for i, expected in ((21.0, 0.711), (22.0, 0.4), (24.0, 0.1265)):
        re = galaxies.size(u, np.full_like(u, i))
        assert np.median(re) == pytest.approx(expected, rel=0.03)
        assert np.std(np.log10(re)) == pytest.approx(0.2, abs=0.01)


def test_early_types_lie_on_their_relations():
    made = galaxies.early_types(draw(galaxies.EARLY_DRAWS), KIDS)
    assert made.sigma.min() >= 100 and made.sigma.max() <= 400 and made.z.min() >= 0.1 and made.z.max() <= 1
    assert made.sigma.mean() == pytest.approx(230, abs=3)
    assert made.sigma.std() == pytest.approx(49, abs=2)
    near = np.abs(made.sigma - 230) < 3
    # Hyde & Bernardi: M_r = -22.96 and log R = 0.557 kpc at 230 km/s
    kpc = made.re[near] / arcsec_of(np.ones(near.sum()), made.z[near])
    assert np.median(kpc) == pytest.approx(3.6, rel=0.05)
    low = made.z < 0.15
    r = magnitude(made.flux[:, 2])
    absolute = r - distance_modulus(made.z)
    assert np.median(absolute[low & (np.abs(made.sigma - 230) < 30)]) == pytest.approx(-22.9, abs=0.25)
    # sizes rise with dispersion as sigma**1 and more: 2.4 kpc at 160 km/s, 5.4 kpc at 320
    for sigma, expected in ((160.0, 2.43), (320.0, 5.46)):
        close = np.abs(made.sigma - sigma) < 5
        assert np.median(made.re[close] / arcsec_of(np.ones(close.sum()), made.z[close])) == pytest.approx(
            expected, rel=0.08
        )
    colour = magnitude(made.flux[:, 1]) - r
    assert colour.min() > 0.5 and colour.max() < 2.5  # g - r of ellipticals between z = 0.1 and 1
    assert made.q.min() >= 0.3 and made.q.max() <= 1


def test_the_field_has_the_density_of_its_counts():
    u = draw(galaxies.FIELD_DRAWS, 2000)
    side, faint = 20.2, 24.0
    made = galaxies.field(u, KIDS, R, side, faint)
    expected = 12.0 * 10 ** (0.33 * (faint - 23.0)) * (side / 60) ** 2
    assert len(made.owner) / 2000 == pytest.approx(expected, rel=0.05)
    assert np.abs(made.x).max() <= side / 2 and np.abs(made.y).max() <= side / 2
    assert magnitude(made.flux[:, 2]).max() <= faint + 1e-6
    alone = galaxies.field(u[5:6], KIDS, R, side, faint)
    assert (made.flux[made.owner == 5] == alone.flux).all() and (made.re[made.owner == 5] == alone.re).all()


def test_components_are_joined_by_owner():
    u = draw(galaxies.FIELD_DRAWS, 50)
    made = galaxies.field(u, KIDS, R, 20.0, 24.0)
    joined = galaxies.join([made, made])
    assert (np.diff(joined.owner) >= 0).all() and len(joined.owner) == 2 * len(made.owner)
    assert joined.flux.sum() == pytest.approx(2 * made.flux.sum())
