"""Features of images: a contract over all of them by name, and each against another package or a formula."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.feature import hog as skimage_hog
from skimage.filters import gabor_kernel
from torch import Tensor

from deepsky.baselines import FEATURES, extract, names
from deepsky.baselines._gabor import response
from deepsky.baselines._hog import hog
from deepsky.baselines._images import asinh, estimated_sigma, prepare
from deepsky.errors import InputError

each_feature = pytest.mark.parametrize("name", FEATURES)


def sky(n: int = 6, bands: int = 3, size: int = 40, seed: int = 0) -> Tensor:
    """Elliptical exponential discs, each with a lopsided clump, in noise of sigma one."""
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(n, bands, 6, 1, 1, generator=g)
    y, x = torch.meshgrid(torch.arange(size) - (size - 1) / 2, torch.arange(size) - (size - 1) / 2, indexing="ij")
    angle, q, scale = math.pi * u[:, :1, 0], 0.4 + 0.5 * u[:, :1, 1], size * (0.04 + 0.04 * u[:, :1, 2])
    a, b = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    disc = torch.exp(-torch.hypot(a, b / q) / scale) * (30 + 60 * u[:, :, 3])
    clump = torch.exp(-((x - size * 0.12) ** 2 + (y - size * 0.05) ** 2) / (size * 0.04) ** 2) * 20 * u[:, :, 4]
    return disc + clump + torch.randn(n, bands, size, size, generator=g)


FLUX = sky()
ONES = torch.ones(1, 1, 1, 1)


# -- the contract ---------------------------------------------------------------------------------------------
@each_feature
def test_columns(name: str) -> None:
    found = extract(name, FLUX, ONES)
    labels = names(name, tuple(FLUX.shape[1:]), ("g", "r", "i"))
    assert found.shape == (6, len(labels))
    assert found.dtype == torch.float32
    assert len(set(labels)) == len(labels)
    assert torch.isfinite(found).all()
    assert all(label.startswith(name) for label in labels)
    assert (found.std(0) > 0).float().mean() > 0.7, "columns that tell objects apart"
    assert extract(name, FLUX[:0], ONES).shape == (0, len(labels))


@each_feature
def test_batches_arrays_and_shapes_of_ivar_change_nothing(name: str) -> None:
    many = sky(40, size=24)
    whole = extract(name, many, ONES)
    for rows in (slice(0, 1), slice(3, 36)):
        torch.testing.assert_close(extract(name, many[rows], ONES), whole[rows], rtol=1e-4, atol=1e-4)
    assert torch.equal(extract(name, many.numpy(), np.ones((40, 3, 24, 24), ">f4")), whole)
    for ivar in (torch.ones(40, 3, 1, 1), torch.ones(3, 1, 1), torch.ones(40, 3, 24, 24)):
        torch.testing.assert_close(extract(name, many, ivar), whole, rtol=1e-5, atol=1e-5)


@each_feature
def test_values_that_were_not_measured_have_no_effect(name: str) -> None:
    ivar = torch.ones_like(FLUX)
    ivar[:, :, 3:6, 30:] = 0
    ivar[1, 0] = 0
    found = extract(name, FLUX, ivar)
    for rubbish in (torch.nan, torch.inf, 1e30):
        again = extract(name, torch.where(ivar > 0, FLUX, rubbish), ivar)
        assert torch.equal(again.nan_to_num(7.0), found.nan_to_num(7.0))
    assert torch.isfinite(found[[0, 2, 3, 4, 5]]).all()
    # a few pixels of sky that are missing change little; what a missing band alone would say is unknown
    whole = extract(name, FLUX, ONES)
    spread = whole.std(0).clamp(min=1e-3)
    assert ((found[2:] - whole[2:]).abs() / spread).median() < 0.1


@each_feature
def test_units_do_not_matter(name: str) -> None:
    """Flux in other units with its ivar: the same, but for magnitudes and the noise, which move by a constant."""
    found = extract(name, FLUX, ONES)
    scaled = extract(name, FLUX * 1000, ONES * 1e-6)
    if name == "colour":
        labels = names(name, tuple(FLUX.shape[1:]))
        shift = torch.tensor([-7.5 if ".mag" in k else 3.0 if k.endswith(".sigma") else 0.0 for k in labels])
        found = found + shift
    torch.testing.assert_close(scaled, found, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["edges", "gabor", "shape", "moments", "colour"])
def test_a_quarter_turn(name: str) -> None:
    """It changes nothing but the sign of a spin-2 number, and the frame of a position."""
    found = extract(name, FLUX, ONES)
    turned = extract(name, FLUX.rot90(1, (2, 3)), ONES)
    labels = names(name, tuple(FLUX.shape[1:]))
    sign = torch.tensor([-1.0 if k.endswith((".e1", ".e2")) else 1.0 for k in labels])
    kept = torch.tensor([not k.endswith((".x", ".y")) for k in labels])
    torch.testing.assert_close((turned * sign)[:, kept], found[:, kept], rtol=3e-3, atol=3e-3)


def test_joined_features_are_their_columns_side_by_side() -> None:
    joined = extract("hog + colour", FLUX, ONES)
    assert torch.equal(joined, torch.cat([extract("hog", FLUX, ONES), extract("colour", FLUX, ONES)], 1))
    assert names("hog+colour", (3, 40, 40)) == names("hog", (3, 40, 40)) + names("colour", (3, 40, 40))


def test_rows_are_their_numbers() -> None:
    row, ivar = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), np.array([[1.0, 0.0], [1.0, 1.0]], np.float32)
    found = extract("row", row, ivar)
    assert found[:, 0].tolist() == [1, 3]
    assert found[0, 1].isnan()
    assert found[1, 1] == 4
    assert names("row", (2,), ("mag", "z")) == ("mag", "z")


def test_what_does_not_fit_is_refused() -> None:
    for name in ("hogg", "hog+hog", "hog+row"):
        with pytest.raises(InputError):
            extract(name, FLUX, ONES)
    with pytest.raises(InputError, match="hog"):
        extract("hogg", FLUX, ONES)
    with pytest.raises(InputError):
        extract("hog", FLUX[0], ONES)
    with pytest.raises(InputError, match="broadcast"):
        extract("hog", FLUX, torch.ones(6, 2, 40, 40))
    with pytest.raises(InputError):
        extract("row", FLUX, ONES)


def test_a_missing_band_is_unknown_and_not_dark() -> None:
    ivar = torch.ones(6, 3, 1, 1)
    ivar[:, 1] = 0
    found = extract("colour", FLUX, ivar)
    labels = names("colour", (3, 40, 40), ("g", "r", "i"))
    about = torch.tensor(["r" in k.split(".")[1].split("-") for k in labels])
    assert found[:, about].isnan().all()
    assert torch.isfinite(found[:, ~about]).all()


def test_importing_baselines_does_not_load_scikit_learn() -> None:
    code = "import deepsky.baselines, sys; sys.exit(any(m in sys.modules for m in ('sklearn', 'galsim', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# -- preparation ----------------------------------------------------------------------------------------------
def test_holes_hold_the_mean_of_their_neighbours() -> None:
    flux = torch.full((2, 1, 30, 30), 5.0)
    ivar = torch.ones_like(flux)
    ivar[0, 0, 4, 5], ivar[0, 0, 10:25, 10:25] = 0, 0
    flux[0, 0, 4, 5], flux[0, 0, 10:25, 10:25] = torch.nan, -99
    flux[1, 0] = torch.arange(30.0)
    pixels = prepare(flux, ivar)
    torch.testing.assert_close(pixels.flux[0], torch.full((1, 30, 30), 5.0))
    assert torch.equal(pixels.flux[1], flux[1])
    assert pixels.fraction[0, 0] == pytest.approx(1 - 226 / 900)


def test_sigma_is_that_of_the_sky() -> None:
    noise = 3 * torch.randn(4, 2, 64, 64, generator=torch.Generator().manual_seed(1))
    noise[:, :, 25:40, 25:40] += 500
    torch.testing.assert_close(prepare(noise, ONES, "unknown").sigma, torch.full((4, 2), 3.0), rtol=0.05, atol=0)
    torch.testing.assert_close(prepare(noise, ONES / 9).sigma, torch.full((4, 2), 3.0))
    assert (estimated_sigma(torch.zeros(1, 1, 9, 9)) == 1).all()


def test_asinh_is_the_inverse_hyperbolic_sine() -> None:
    x = torch.cat([torch.linspace(-30, 30, 2001), torch.tensor([0.0, 1e-6, -1e12, 1e12])])
    torch.testing.assert_close(asinh(x), torch.asinh(x), rtol=1e-6, atol=2e-7)


def test_the_detection_image_has_the_best_signal_to_noise() -> None:
    """Bands of one spectrum and unequal noise: unit noise, and S/N the root of the sum of squares."""
    g = torch.Generator().manual_seed(2)
    sigma = torch.tensor([1.0, 4.0, 0.5])
    noise = torch.randn(200, 3, 16, 16, generator=g) * sigma[:, None, None]
    ivar = (1 / sigma**2)[:, None, None]
    assert prepare(noise, ivar).detection.std() == pytest.approx(1, abs=0.02)
    flat = prepare(torch.ones(1, 3, 16, 16), ivar).detection
    assert flat[0, 0, 0] == pytest.approx(float((1 / sigma**2).sum().sqrt()), rel=1e-5)


# -- each against another package or a formula ----------------------------------------------------------------
@pytest.mark.parametrize(("size", "orientations", "cell", "block"), [(64, 9, 8, 3), (45, 8, 7, 2), (33, 6, 5, 1)])
def test_hog_is_scikit_images(size: int, orientations: int, cell: int, block: int) -> None:
    image = np.random.default_rng(3).normal(size=(3, size, size))
    words = {"orientations": orientations, "pixels_per_cell": (cell, cell), "cells_per_block": (block, block),
             "feature_vector": False}  # fmt: skip
    for norm in ("L2-Hys", "none"):
        ours = hog(torch.tensor(image[None], dtype=torch.float32), orientations, cell, block, norm)[0]
        steepest = skimage_hog(image.transpose(1, 2, 0), channel_axis=-1, block_norm="L2-Hys", **words)
        if norm == "none" and block == 1:  # the histograms themselves, before the norm
            steepest = ours.numpy() / np.sqrt((ours.numpy() ** 2).sum((-1, -2, -3), keepdims=True))
            theirs = skimage_hog(image.transpose(1, 2, 0), channel_axis=-1, block_norm="L2", **words)
            np.testing.assert_allclose(steepest, theirs, atol=1e-4)
        elif norm == "L2-Hys":
            np.testing.assert_allclose(ours, steepest, atol=1e-4)
    grey = hog(torch.tensor(image[:1], dtype=torch.float32), orientations, cell, block)[0]
    np.testing.assert_allclose(grey, skimage_hog(image[0], block_norm="L2-Hys", **words), atol=1e-4)


@pytest.mark.parametrize("frequency", [0.25, 0.125])
def test_gabor_is_a_convolution_with_scikit_images_kernel(frequency: float) -> None:
    image = np.random.default_rng(4).normal(size=(40, 40))
    ours = response(torch.tensor(image, dtype=torch.float32), frequency, 6, balanced=False)
    for k in (0, 1, 4):
        kernel = gabor_kernel(frequency, theta=math.pi * k / 6, bandwidth=1, n_stds=5)
        real, imaginary = (ndimage.convolve(image, part, mode="wrap") for part in (kernel.real, kernel.imag))
        np.testing.assert_allclose(ours[k], np.hypot(real, imaginary), atol=1e-3 * float(ours.max()))
    flat = torch.full((40, 40), 7.0)
    assert response(flat, frequency, 6).max() < 1e-4, "a constant has no waves"


def test_a_wave_answers_in_its_own_direction_and_length() -> None:
    x = torch.arange(64)[None, :].expand(64, 64)
    wave = torch.cos(2 * math.pi * 0.125 * x)
    strength = response(wave, 0.125, 6).mean((-1, -2))
    assert strength.argmax() == 0
    assert strength[0] == pytest.approx(0.5, rel=0.01), "half of the amplitude is in the positive frequency"
    assert strength[0] > 3 * response(wave, 0.25, 6).mean((-1, -2)).max()


def test_magnitudes_are_those_of_the_light_in_the_aperture() -> None:
    """A round Gaussian: the flux within r is F (1 - exp(-r^2 / 2 s^2)); g - r is its difference in magnitudes."""
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    gaussian = torch.exp(-(x**2 + y**2) / (2 * 5.0**2)) / (2 * math.pi * 25)
    flux = torch.stack([1e6 * gaussian, 4e6 * gaussian])[None]
    found = dict(zip(names("colour", (2, 64, 64), ("g", "r")), extract("colour", flux, ONES)[0].tolist(), strict=True))
    for k, r in enumerate((2, 4, 8, 16, 32)):
        expected = -2.5 * math.log10(1e6 * (1 - math.exp(-(r**2) / 50)))
        assert found[f"colour.g.mag{k}"] == pytest.approx(expected, abs=0.04 if r < 4 else 0.01)
        assert found[f"colour.g-r.{k}"] == pytest.approx(2.5 * math.log10(4), abs=1e-3)
    # S/N in the whole circle: flux over sigma sqrt(area), of both bands together
    assert 10 ** found["colour.snr4"] == pytest.approx(math.hypot(1e6, 4e6) / math.sqrt(math.pi * 32**2), rel=0.02)


def test_edges_tell_a_ring_from_a_disc() -> None:
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    r = torch.hypot(x, y)
    cone = 1e-3 * r  # so faint that the stretch is linear: a slope of 1e-3 a pixel, central differences twice that
    images = torch.stack([cone, -cone, torch.full_like(r, 0.4), torch.atan2(y, x).cos() * 1e-3 * r])[:, None]
    found = extract("edges", images, ONES).reshape(4, 7, 6)
    level, scatter, rising, falling, around, edge, _ = found.unbind(1)
    torch.testing.assert_close(rising[0, 2:5], torch.full((3,), 2e-3), rtol=0.02, atol=0)
    torch.testing.assert_close(falling[1, 2:5], torch.full((3,), 2e-3), rtol=0.02, atol=0)
    assert rising[1, 1:5].max() < 1e-6
    assert around[:2, 1:5].max() < 1e-4
    torch.testing.assert_close(level[2], torch.full((6,), math.asinh(0.4)), rtol=1e-5, atol=0)
    assert max(scatter[2].max(), edge[2].max()) < 1e-3
    # the plane z = x has the same slope everywhere: along the circle on average 2 / pi of it
    torch.testing.assert_close(edge[3, 1:5], torch.full((4,), 2e-3), rtol=0.02, atol=0)
    torch.testing.assert_close(around[3, 1:5], torch.full((4,), 2e-3 * 2 / math.pi), rtol=0.05, atol=0)


def test_pixels_are_block_means_of_the_stretched_image() -> None:
    image = torch.randn(2, 1, 48, 48, generator=torch.Generator().manual_seed(5))
    expected = torch.asinh(image).reshape(2, 12, 4, 12, 4).mean((2, 4)).reshape(2, 144)
    torch.testing.assert_close(extract("pixels", image, ONES), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 12, 12), (1, 45, 45), (5, 21, 34), (1, 150, 130)])
@each_feature
def test_images_of_any_size_and_number_of_bands(name: str, shape: tuple[int, int, int]) -> None:
    image = 20 * torch.randn(3, *shape, generator=torch.Generator().manual_seed(6))
    image[..., shape[1] // 2 - 3 : shape[1] // 2 + 3, shape[2] // 2 - 3 : shape[2] // 2 + 3] += 400
    found = extract(name, image, ONES / 400)
    assert found.shape == (3, len(names(name, shape)))
    assert torch.isfinite(found).float().mean() > 0.9
    assert torch.isfinite(extract(name, image, ONES, "unknown")).float().mean() > 0.9
