"""Adaptive moments against GalSim and formulas; regaussianisation against a known shear."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch

from deepsky.baselines import adaptive_moments, hsm_moments, hsm_regauss
from deepsky.errors import InputError

galsim = pytest.importorskip("galsim")


@cache
def stamps() -> np.ndarray:
    """Galaxies of all profiles in unit noise, S/N from 30 to 1,000."""
    rng = np.random.default_rng(8)
    images = []
    for _ in range(60):
        galaxy = galsim.Sersic(rng.uniform(0.7, 4), half_light_radius=rng.uniform(2, 5))
        galaxy = galaxy.shear(q=rng.uniform(0.35, 0.95), beta=rng.uniform(0, 180) * galsim.degrees)
        galaxy = galsim.Convolve(galaxy.shift(*rng.uniform(-0.5, 0.5, 2)), galsim.Gaussian(fwhm=2.5))
        image = galaxy.drawImage(nx=64, ny=64, scale=1).array
        images.append(image * 10 ** rng.uniform(1.5, 3) / np.sqrt((image**2).sum()) + rng.normal(size=image.shape))
    return np.array(images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_are_galsims(dtype: torch.dtype) -> None:
    ours, theirs = adaptive_moments(torch.tensor(stamps()).to(dtype)), hsm_moments(stamps())
    assert ours.converged.all()
    assert (theirs.error == "").all()
    for name, tolerance in (("e1", 1e-4), ("e2", 1e-4), ("x", 2e-4), ("y", 2e-4), ("sigma", 3e-4), ("rho4", 3e-4)):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=tolerance)


def test_a_gaussian_has_its_own_moments() -> None:
    """Exactly: the weight that fits a Gaussian is that Gaussian."""
    q, angle, sigma, flux = 0.55, math.radians(-25), 4.0, 700.0
    y, x = torch.meshgrid(torch.arange(64) - 31.5 + 1.2, torch.arange(60) - 29.5 - 0.7, indexing="ij")
    a, b = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    image = torch.exp(-(a**2 * q + b**2 / q) / (2 * sigma**2)).double() * flux / (2 * math.pi * sigma**2)
    found = adaptive_moments(image[None])
    e = (1 - q**2) / (1 + q**2)
    expected = {"e1": e * math.cos(2 * angle), "e2": e * math.sin(2 * angle), "sigma": sigma, "x": 0.7, "y": -1.2,
                "rho4": 2.0, "amplitude": flux}  # fmt: skip
    for name, value in expected.items():
        assert float(getattr(found, name)) == pytest.approx(value, abs=1e-4 * max(1, abs(value)))


def test_turned_galaxies_have_turned_moments() -> None:
    images = torch.tensor(stamps()[:20])
    found, turned = adaptive_moments(images), adaptive_moments(images.rot90(1, (1, 2)))
    torch.testing.assert_close(turned.e1, -found.e1, rtol=0, atol=1e-4)
    torch.testing.assert_close(turned.e2, -found.e2, rtol=0, atol=1e-4)
    torch.testing.assert_close(turned.sigma, found.sigma, rtol=1e-4, atol=0)


def test_a_batch_says_what_its_objects_say_alone() -> None:
    images = torch.tensor(stamps()[:12])
    whole = adaptive_moments(images)
    alone = torch.cat([adaptive_moments(images[i : i + 1]).e1 for i in range(12)])
    torch.testing.assert_close(alone, whole.e1, rtol=0, atol=1e-9)
    assert len(adaptive_moments(images[:0]).e1) == 0


def test_what_cannot_be_measured_is_nan_and_said_to_be() -> None:
    images = torch.tensor(stamps()[:5])
    images[1], images[3] = -images[1], 0.0
    found = adaptive_moments(images)
    assert found.converged.tolist() == [True, False, True, False, True]
    assert found.e1.isnan().tolist() == [False, True, False, True, False]
    theirs = hsm_moments(images.numpy())
    assert (theirs.error != "").tolist() == [False, False, False, True, False], "GalSim measures a negative image too"
    assert np.isnan(theirs.e1).tolist() == [False, False, False, True, False]


def test_regaussianisation_recovers_gaussian_shapes() -> None:
    """For Gaussians the correction is exact; the observed shape is rounder by the PSF."""
    psf = galsim.Gaussian(sigma=2).shear(g1=0.05).drawImage(nx=48, ny=48, scale=1, method="no_pixel").array
    shapes = [(0.2, 0.0), (0.0, -0.3), (0.1, 0.25)]
    images = np.array(
        [
            galsim.Convolve(
                galsim.Gaussian(sigma=3, flux=1e4).shear(e1=a, e2=b), galsim.Gaussian(sigma=2).shear(g1=0.05)
            )
            .drawImage(nx=64, ny=64, scale=1, method="no_pixel")
            .array
            for a, b in shapes
        ]
    )
    for kernel in (psf, np.stack([psf] * 3)):
        found = hsm_regauss(images, kernel, 1.0)
        np.testing.assert_allclose(np.stack([found.e1, found.e2], 1), shapes, atol=2e-3)
        assert np.all((found.resolution > 0.5) & (found.resolution < 0.8))
        assert np.all(found.sigma_e > 0)
    raw = hsm_moments(images)
    assert abs(raw.e2[1]) < 0.25
    with pytest.raises(InputError):
        hsm_regauss(images, np.stack([psf] * 2), 1.0)
