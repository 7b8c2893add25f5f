"""Fractions counted by hand, and a hash that flips and rotations act on exactly."""

from __future__ import annotations

import numpy as np
import pytest

from deepsky import quality
from deepsky.folds.duplicates import candidates


def images(n: int, shape: tuple[int, int] = (20, 20), seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    centre = draw.uniform(5, 15, (n, 2, 1, 1))
    blob = 20 * np.exp(-((x - centre[:, 0]) ** 2 + 2 * (y - centre[:, 1]) ** 2) / 30)
    return blob[:, None] * np.array([1.0, 2.0])[None, :, None, None] + draw.normal(size=(n, 2, *shape))


def test_fractions() -> None:
    measured = np.ones((4, 2, 10, 10), bool)
    measured[1, :, :, :3] = False  # the edge of a frame
    measured[2, :, 4, 4] = False  # a bad pixel
    measured[3, 0] = False  # a band is missing, the other is whole
    assert quality.unmeasured(measured) == pytest.approx([0, 0.3, 0.01, 0.5])
    assert quality.edge(measured) == pytest.approx([0, 0.3, 0, 0])
    assert quality.edge(np.zeros((1, 1, 5, 5), bool)) == pytest.approx([1.0])


def test_saturated() -> None:
    flux = images(3)
    seen = np.ones(flux.shape, bool)
    assert quality.saturated(flux, seen).tolist() == [0, 0, 0]
    flux[1, 0] = np.minimum(flux[1, 0], np.sort(flux[1, 0].ravel())[-7])  # clipped at the seventh brightest
    assert quality.saturated(flux, seen) == pytest.approx([0, 7 / 800, 0])
    seen[1, 0] = flux[1, 0] < flux[1, 0].max()
    assert quality.saturated(flux, seen)[1] == 0
    eight = np.full((1, 1, 4, 4), 10, np.uint8)
    eight[0, 0, 0, :3] = 255
    assert quality.saturated(eight, np.ones(eight.shape, bool)) == pytest.approx([3 / 16])


@pytest.mark.parametrize("number", range(8))
def test_orientations_of_a_hash_are_hashes_of_the_orientations(number: int) -> None:
    flux = images(50)
    seen = np.ones(flux.shape, bool)
    seen[:, :, 3, 5] = False
    turned = quality.orientations(quality.perceptual_hash(flux, seen))[number]
    there = quality.perceptual_hash(quality.orient(flux, number), quality.orient(seen, number))
    assert (turned == there).all()


def test_a_hash_survives_scale_offset_and_noise_and_tells_objects_apart() -> None:
    flux = images(200)
    seen = np.ones(flux.shape, bool)
    one = quality.perceptual_hash(flux, seen)
    noisy = 3 * flux + 7 + np.random.default_rng(2).normal(0, 0.1, flux.shape)
    two = quality.perceptual_hash(noisy, seen)
    same, other = np.bitwise_count(one ^ two), np.bitwise_count(one ^ np.roll(two, 1))
    assert np.quantile(same, 0.99) <= 3 < 8 < np.quantile(other, 0.01)
    assert quality.perceptual_hash(np.zeros((1, 1, 9, 9)), np.zeros((1, 1, 9, 9), bool)).shape == (1,)


def test_candidates_against_the_slow_search() -> None:
    draw = np.random.default_rng(3)
    hashes = draw.integers(0, 2**63, 300).astype(np.uint64) & ~np.uint64(1)
    for i in range(60):  # copies with up to two bits changed
        bits = draw.choice(np.arange(1, 64), draw.integers(0, 3), replace=False)
        hashes[300 - 1 - i] = hashes[i] ^ np.uint64(sum(1 << int(b) for b in bits))
    turned = quality.orientations(hashes)
    distance = np.bitwise_count(hashes[None, :, None] ^ turned[:, None, :])
    slow = {(min(i, j), max(i, j)) for _, i, j in np.argwhere(distance <= 2) if i != j}
    fast = {(int(i), int(j)) for i, j in candidates(hashes, 2)[0]}
    assert fast == slow and len(fast) >= 60


def test_shrunk_against_blocks() -> None:
    flux = images(5, (32, 48))
    seen = np.ones(flux.shape, bool)
    blocks = flux.mean(1).reshape(5, 16, 2, 16, 3).mean((2, 4))
    blocks -= blocks.mean((1, 2), keepdims=True)
    expected = blocks / np.sqrt((blocks**2).sum((1, 2), keepdims=True))
    assert np.allclose(quality.shrunk(flux, seen, 16), expected)
    odd = quality.shrunk(flux[..., :19, :19], seen[..., :19, :19], 16)
    flipped = quality.shrunk(flux[..., :19, 18::-1], seen[..., :19, :19], 16)
    assert np.allclose(odd[..., ::-1], flipped)


def test_a_sky_that_was_not_subtracted_is_told_in_sigma_and_a_large_galaxy_is_none() -> None:
    g = np.random.default_rng(0)
    flux = g.normal(0, 3, (40, 2, 24, 24)).astype(np.float32)
    seen = np.ones(flux.shape, bool)
    np.testing.assert_allclose(quality.sky_level(flux, seen), 0, atol=0.3)
    assert quality.sky_words(flux, seen, ("g", "r")) == []
    flux[:, 1] += 60
    flux[:20, 0] += 500  # half of the images are full of a galaxy
    seen[3] = False
    low, high = quality.sky_level(flux, seen)
    assert abs(low) < 0.5 and high == pytest.approx(20, rel=0.15)
    words = quality.sky_words(flux, seen, ("g", "r"))
    assert len(words) == 1 and "stand at r " in words[0] and "g " not in words[0].partition("stand at")[2][:6]
    assert quality.sky_words((flux.clip(0, 255)).astype(np.uint8), seen, ("g", "r")) == []
    assert np.isnan(quality.sky_level(np.full((5, 1, 24, 24), 7.0), np.ones((5, 1, 24, 24), bool))).all()
