from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deepsky.simulators import _profiles as profiles

galsim = pytest.importorskip("galsim", reason="galsim is not installed")
K = np.array([0.02, 0.1, 0.35, 1.0, 2.4])


def k_value(profile, kx, ky=0.0):
    return profile.kValue(galsim.PositionD(2 * math.pi * kx, 2 * math.pi * ky)).real


@pytest.mark.parametrize("n", [0.5, 1.0, 2.5, 4.0, 6.0])
def test_logarithmic_hankel_transform_is_the_integral(n):
    log_k, transform = profiles.sersic_transform(n)
    for k in (0.01, 0.1, 0.5, 2.0):
        assert np.interp(math.log(k), log_k, transform) == pytest.approx(profiles.direct_transform(k, n), abs=5e-6)


@pytest.mark.parametrize("n", [0.77, 1.0, 2.53, 4.0, 5.91])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tabulated_sersic_is_galsims(n, dtype):
    re = torch.tensor([0.3, 1.7], dtype=torch.float64)
    got = profiles.sersic(torch.tensor(K**2, dtype=dtype).expand(2, -1), re, torch.full((2,), n))
    assert got.dtype == dtype
    for row, radius in zip(got, re.tolist(), strict=True):
        reference = [k_value(galsim.Sersic(n=n, half_light_radius=radius), k) for k in K]
        np.testing.assert_allclose(row.numpy(), reference, atol=3e-5 if n >= 1 else 1e-4)


def test_the_closed_form_of_an_exponential_is_the_table():
    k2 = torch.linspace(0.001, 20, 500, dtype=torch.float64).expand(2, -1)
    re = torch.tensor([0.4, 0.4])
    both = profiles.sersic(k2, re, torch.tensor([1.0, 2.0]))  # a mixed batch is read from the table
    closed = profiles.sersic(k2, re, torch.ones(2))
    np.testing.assert_allclose(both[0], closed[0], atol=1e-5)


@pytest.mark.parametrize("n", [1.0, 4.0])
def test_sersic_value_holds_half_of_the_flux_within_re(n):
    r = torch.logspace(-6, 3, 20001, dtype=torch.float64)
    value = profiles.sersic_value(r, torch.tensor(0.8, dtype=torch.float64), n)
    shell = 2 * math.pi * value * r * r  # per d(ln r)
    total = torch.trapezoid(shell, r.log())
    inside = torch.trapezoid(torch.where(r < 0.8, shell, 0.0), r.log())
    assert float(total) == pytest.approx(1.0, abs=1e-4)
    assert float(inside) == pytest.approx(0.5, abs=1e-3)
    reference = galsim.Sersic(n=n, half_light_radius=0.8).xValue(galsim.PositionD(0.5, 0.0))
    at = profiles.sersic_value(torch.tensor([0.5]).double(), torch.tensor([0.8]).double(), n)
    assert float(at) == pytest.approx(reference, rel=1e-4)


@pytest.mark.parametrize(
    ("family", "make"),
    [
        ("moffat", lambda f: galsim.Moffat(beta=3.5, fwhm=f)),
        ("gaussian", lambda f: galsim.Gaussian(fwhm=f)),
        ("kolmogorov", lambda f: galsim.Kolmogorov(fwhm=f)),
        ("airy", lambda f: galsim.Airy(lam_over_diam=f / 1.028993969962188)),
    ],
)
def test_psf_transforms_are_galsims(family, make):
    for fwhm in (0.17, 0.8):
        reference = [k_value(make(fwhm), k) for k in K]
        got = profiles.psf_transform(torch.tensor(K**2), fwhm, family)
        np.testing.assert_allclose(got.numpy(), reference, atol=1e-4)


def test_any_moffat_is_galsims():
    got = profiles.psf_transform(torch.tensor(K**2), 0.8, "moffat", beta=2.7)
    np.testing.assert_allclose(got.numpy(), [k_value(galsim.Moffat(beta=2.7, fwhm=0.8), k) for k in K], atol=2e-4)


def test_shear_is_galsims():
    g1, g2 = 0.31, -0.22
    sheared = galsim.Gaussian(half_light_radius=0.5).shear(g1=g1, g2=g2)
    sigma = 0.5 / math.sqrt(2 * math.log(2))
    kx, ky = torch.tensor([0.3, -0.2, 0.5]), torch.tensor([0.1, 0.4, 0.5])
    k2 = profiles.sheared(kx, ky, torch.tensor([g1]), torch.tensor([g2]))[0]
    got = torch.exp(-2 * math.pi**2 * sigma**2 * k2)
    reference = [k_value(sheared, x, y) for x, y in zip(kx.tolist(), ky.tolist(), strict=True)]
    np.testing.assert_allclose(got.numpy(), reference, rtol=1e-4)


def test_combined_shear_is_galsims():
    rng = np.random.default_rng(1)
    for _ in range(5):
        (a1, a2), (g1, g2) = 0.6 * rng.uniform(-1, 1, (2, 2)) / np.sqrt(2)
        total = galsim.Shear(g1=g1, g2=g2) + galsim.Shear(g1=a1, g2=a2)  # the galaxy's own first
        got = profiles.combine_shear(*(torch.tensor(v) for v in (a1, a2, g1, g2)))
        assert (float(got[0]), float(got[1])) == pytest.approx((total.g1, total.g2), abs=1e-9)
