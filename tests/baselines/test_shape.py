"""Shapes against statmorph on simulated galaxies, and against formulas."""

from __future__ import annotations

import math
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from deepsky.baselines._shape import Shapes, _boxed, _segments, measure

galsim = pytest.importorskip("galsim")
statmorph = pytest.importorskip("statmorph")


@cache
def galaxies() -> tuple[Tensor, Shapes, list[object]]:
    """Smooth and clumpy galaxies in unit noise, ours and statmorph's measurements of them."""
    rng = np.random.default_rng(3)
    images = []
    for k in range(10):
        n, radius, q = rng.uniform(0.8, 3), rng.uniform(4, 7), rng.uniform(0.4, 0.95)
        galaxy = galsim.Sersic(n, half_light_radius=radius).shear(q=q, beta=rng.uniform(0, 180) * galsim.degrees)
        if k % 2:  # a clump beside the centre
            d, t = rng.uniform(2, 5), rng.uniform(0, 2 * math.pi)
            galaxy += rng.uniform(0.05, 0.15) * galsim.Gaussian(sigma=1).shift(d * math.cos(t), d * math.sin(t))
        galaxy = galsim.Convolve(galaxy.shift(*rng.uniform(-0.5, 0.5, 2)), galsim.Gaussian(fwhm=2.5))
        image = galaxy.drawImage(nx=96, ny=96, scale=1).array
        images.append(image * 1500 / np.sqrt((image**2).sum()) + rng.normal(size=image.shape))
    stack = torch.tensor(np.array(images), dtype=torch.float32)
    segments, others = _segments(stack)
    theirs = []
    for image, mine, other in zip(images, segments.numpy(), others.numpy(), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # statmorph warns of a Sersic fit that is not asked for here
            found = statmorph.SourceMorphology(
                image, mine.astype(int), label=1, weightmap=np.ones_like(image), mask=other
            )
        theirs.append(found)
    return stack, measure(stack), theirs


# largest and median difference that is allowed; the definitions differ in aperture sums, centre and smoothing box
TOLERANCE = {
    "concentration": ("concentration", 0.25, 0.08),
    "asymmetry": ("asymmetry", 0.06, 0.03),
    "gini": ("gini", 0.02, 0.01),
    "m20": ("m20", 0.15, 0.05),
    "r20": ("r20", 0.15, 0.05),
    "r50": ("r50", 0.2, 0.08),
    "r80": ("r80", 0.6, 0.25),
    "petrosian": ("rpetro_circ", 1.0, 0.4),
}


@pytest.mark.parametrize("name", TOLERANCE)
def test_shapes_are_statmorphs(name: str) -> None:
    _, ours, theirs = galaxies()
    theirs_name, largest, median = TOLERANCE[name]
    expected = np.array([getattr(t, theirs_name) for t in theirs])
    difference = np.abs(getattr(ours, name).numpy() - expected)
    assert difference.max() < largest
    assert np.median(difference) < median
    assert np.corrcoef(getattr(ours, name), expected)[0, 1] > 0.9


def test_smoothness_is_statmorphs_where_its_box_is_odd() -> None:
    """An even box there is shifted by half a pixel, which leaves a residual in every cusp."""
    _, ours, theirs = galaxies()
    odd = np.array([int(0.25 * t.rpetro_circ) % 2 == 1 for t in theirs])
    assert odd.sum() >= 3
    expected = np.array([t.smoothness for t in theirs])
    assert np.abs(ours.smoothness.numpy() - expected)[odd].max() < 0.02


def test_moments_and_centre_are_statmorphs() -> None:
    _, ours, theirs = galaxies()
    e = torch.hypot(ours.e1, ours.e2)
    axis_ratio = ((1 - e) / (1 + e)).sqrt()
    np.testing.assert_allclose(1 - axis_ratio, [t.ellipticity_centroid for t in theirs], atol=0.015)
    np.testing.assert_allclose(ours.x + 47.5, [t.xc_centroid for t in theirs], atol=0.06)
    np.testing.assert_allclose(ours.y + 47.5, [t.yc_centroid for t in theirs], atol=0.06)
    angle = torch.atan2(ours.e2, ours.e1) / 2
    turn = angle.numpy() - np.array([t.orientation_centroid for t in theirs])
    round_ones = e.numpy() < 0.1
    assert np.abs(np.sin(turn))[~round_ones].max() < 0.05


def test_a_gaussian_has_the_radii_of_the_formula() -> None:
    """Shares within r of a round Gaussian: 1 - exp(-r^2 / 2 s^2); C = 5 log10 of the ratio of two of these radii."""
    image = galsim.Gaussian(sigma=5, flux=1e6).drawImage(nx=96, ny=96, scale=1, method="no_pixel").array
    found = measure(torch.tensor(image)[None] + 0.01 * torch.randn(1, 96, 96))
    for share, name in ((0.2, "r20"), (0.5, "r50"), (0.8, "r80")):
        assert float(getattr(found, name)) == pytest.approx(5 * math.sqrt(-2 * math.log(1 - share)), rel=0.02)
    expected = 5 * math.log10(math.sqrt(math.log(0.2) / math.log(0.8)))
    assert float(found.concentration) == pytest.approx(expected, abs=0.05)
    assert float(found.asymmetry) == pytest.approx(0, abs=0.01)
    assert float(found.size) == pytest.approx(5, rel=0.02)


def test_an_ellipse_has_the_distortion_of_its_axes() -> None:
    q, angle = 0.6, math.radians(30)
    y, x = torch.meshgrid(torch.arange(96) - 47.5, torch.arange(96) - 47.5, indexing="ij")
    a, b = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    found = measure(1e4 * torch.exp(-(a**2 + (b / q) ** 2) / (2 * 7**2))[None] + 0.1 * torch.randn(1, 96, 96))
    e = (1 - q**2) / (1 + q**2)
    assert float(found.e1) == pytest.approx(e * math.cos(2 * angle), abs=0.005)
    assert float(found.e2) == pytest.approx(e * math.sin(2 * angle), abs=0.005)


def test_a_neighbour_is_left_out() -> None:
    y, x = torch.meshgrid(torch.arange(96) - 47.5, torch.arange(96) - 47.5, indexing="ij")
    alone = 300 * torch.exp(-(x**2 + y**2) / (2 * 4**2)) + torch.randn(96, 96)
    beside = alone + 900 * torch.exp(-((x - 33) ** 2 + (y - 25) ** 2) / (2 * 3**2))
    found = measure(torch.stack([alone, beside]))
    for name in ("r50", "e1", "e2", "concentration", "x", "gini", "m20"):
        one, other = getattr(found, name).tolist()
        assert other == pytest.approx(one, abs=0.05)
    assert found.neighbours[0] < 0.01 < found.neighbours[1]


def test_a_sky_without_an_object_has_finite_shapes() -> None:
    for image in (
        torch.zeros(1, 32, 32),
        torch.randn(20, 32, 32),
        torch.full((1, 20, 30), 5.0),
        -torch.rand(3, 33, 20),
    ):
        found = measure(image)
        assert all(torch.isfinite(v.float()).all() for v in vars(found).values())


@pytest.mark.parametrize("side", [1, 3, 7])
def test_a_box_mean_is_scipys(side: int) -> None:
    image = np.random.default_rng(5).normal(size=(40, 30))
    found = _boxed(torch.tensor(image)[None], torch.tensor([float(side)]))[0].numpy()
    inner = slice(4, -4), slice(4, -4)
    np.testing.assert_allclose(found[inner], ndimage.uniform_filter(image, side)[inner], atol=1e-12)


def test_a_box_of_two_and_a_half_pixels_is_the_integral() -> None:
    """Against a box of 5 on an image whose pixels are halved."""
    image = np.random.default_rng(6).normal(size=(20, 20))
    fine = ndimage.uniform_filter(image.repeat(2, 0).repeat(2, 1), 5, origin=0)
    found = _boxed(torch.tensor(image)[None], torch.tensor([2.5]))[0].numpy()
    # a pixel's middle lies on an edge of the finer pixels: the mean of the boxes on either side
    middle = (fine[0::2, 0::2] + fine[1::2, 0::2] + fine[0::2, 1::2] + fine[1::2, 1::2]) / 4
    assert np.abs(found - middle)[4:-4, 4:-4].max() < 0.1
    constant = _boxed(torch.full((1, 20, 20), 3.0), torch.tensor([2.5]))
    torch.testing.assert_close(constant, torch.full((1, 20, 20), 3.0))
