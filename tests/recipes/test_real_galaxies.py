"""Galaxies of a made-up frame: found, told from stars, cut out, and painted on without a pixel of the test set."""

from __future__ import annotations

import importlib.util

import numpy as np
import pyarrow as pa
import pytest
import torch
from astropy.io import fits

from deepsky.errors import InputError
from deepsky.recipes import _real_galaxies as real
from deepsky.recipes import lens_real_sky as recipe
from deepsky.simulators import lenses

SHAPE, FWHM = (440, 480), 2.9
needs_sep = pytest.mark.skipif(importlib.util.find_spec("sep") is None, reason="sep is not installed")


def profile(x, y, size, beta, shape=SHAPE, fine=3):
    """A Moffat profile of unit flux, averaged over each pixel."""
    rows, cols = (np.arange(fine * n) / fine - (fine - 1) / (2 * fine) for n in shape)
    core = size / (2 * np.sqrt(2 ** (1 / beta) - 1))
    r2 = (rows[:, None] - y) ** 2 + (cols[None, :] - x) ** 2
    values = (beta - 1) / (np.pi * core**2) * (1 + r2 / core**2) ** -beta
    return values.reshape(shape[0], fine, shape[1], fine).mean((1, 3))


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Bare frames in four bands, in units of nJy / 2, with 40 stars and 24 galaxies; and where these are."""
    folder = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(3)
    grid = np.array([(x, y) for x in range(35, 460, 55) for y in range(35, 420, 50)], float)[:64]
    x, y = (grid + rng.uniform(-4, 4, grid.shape)).T
    galaxy = np.arange(64) % 8 < 3
    flux = 10 ** (0.4 * (31.4 - rng.uniform(18, 19.3, 64)))
    light = sum(
        f * profile(a, b, 7.0 if g else FWHM, 2.0 if g else 3.5) for a, b, f, g in zip(x, y, flux, galaxy, strict=True)
    )
    for band in "ugri":
        image = light * {"u": 0.3, "g": 0.3, "r": 1.0, "i": 1.2}[band] + rng.normal(0, 15, SHAPE)
        fits.PrimaryHDU((2 * image).astype(np.float32)).writeto(folder / f"{band}.fits")
    return folder, x, y, galaxy, flux


KNOWN = {"pixel_scale": 0.3, "zero_point": 31.4 + 2.5 * np.log10(2)}  # of half a nanojansky


@needs_sep
def test_galaxies_are_told_from_stars_by_their_size(field):
    folder, x, y, galaxy, flux = field
    image = real.frame(folder, "r", **KNOWN)
    assert image.shape == SHAPE
    found = real.detect(image)
    near = np.hypot(found.x[:, None] - x, found.y[:, None] - y)
    assert (near.min(0) < 1).all()  # every one was found
    truth = galaxy[near.argmin(1)]
    star = real.stellar_size(found, (17.5, 20))
    assert star == pytest.approx(0.6 * FWHM, rel=0.1)  # the half-light radius of a Moffat profile of beta 3.5
    assert np.array_equal(real.galaxies(found, star, (17, 20)), truth & (near.min(1) < 1))
    assert np.array_equal(real.stars(found, star, (17, 20)), ~truth & (near.min(1) < 1))
    assert not real.galaxies(found, star, (14, 15)).any()
    stellar = real.stars(found, star, (17, 20))
    true = 31.4 - 2.5 * np.log10(flux[near.argmin(1)][stellar])
    assert np.abs(found.magnitude[stellar] - true).max() < 0.15
    with pytest.raises(InputError, match="too few sources"):
        real.stellar_size(found, (10, 12))


def test_the_seeing_is_that_of_the_stars(field, tmp_path):
    folder, x, y, galaxy, _ = field
    table = pa.table({"id": [f"s{i}" for i in range(64)], "x": x, "y": y})
    stars = real.cut(folder, tmp_path / "s", table.filter(pa.array(~galaxy)), "ugri", 32, **KNOWN)
    np.testing.assert_allclose(real.seeing(stars), FWHM, rtol=0.02)
    _, ivar = real.pixels(stars)
    assert np.median(1 / np.sqrt(ivar)) == pytest.approx(15, rel=0.1)  # the noise in nJy, whatever the unit of the file
    colour = np.diff(real.aperture_magnitudes(stars, 6)[:, 1:3])[:, 0]
    np.testing.assert_allclose(colour, 2.5 * np.log10(0.3), atol=0.15)
    with pytest.raises(InputError, match="too few stars"):
        real.seeing(stars.select(np.arange(3), "three"))


def test_places_that_share_no_pixel(field):
    _, x, y, _, _ = field
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0, 300, (2, 200)), rng.uniform(0, 300, (2, 30))
    shared = real.shares_pixels(a[0], a[1], (b[0], b[1]), 20)
    corners = [np.ceil(v - 10).astype(int) for v in (a[0], a[1], b[0], b[1])]
    overlap = (np.abs(corners[0][:, None] - corners[2]) < 20) & (np.abs(corners[1][:, None] - corners[3]) < 20)
    assert not (overlap.any(1) & ~shared).any() and (~shared).any()  # as the reader cuts them
    assert not real.shares_pixels(a[0], a[1], (np.zeros(0), np.zeros(0)), 20).any()
    assert np.array_equal(real.block(np.array([5.0, 15, 5, 15]), np.array([5.0, 5, 15, 15]), 10), [0, 1, 1, 0])
    sources = real.Sources(x, y, np.full(64, 22.0), np.full(64, 2.0))
    px, py = real.blank(sources, SHAPE, 30, 40, seed=0)
    assert 10 < len(px) <= 40 and real.within(px, py, SHAPE, 30).all()
    assert (np.hypot(px[:, None] - x, py[:, None] - y).min(1) > 5).all()
    again = real.blank(sources, SHAPE, 30, 40, seed=0)
    np.testing.assert_array_equal(again, (px, py))


def test_arcs_are_painted_onto_each_galaxy_and_nothing_else_changes(field, tmp_path):
    folder, x, y, galaxy, _ = field
    table = pa.table({"id": [f"g{i}" for i in range(64)], "x": x, "y": y, "mag_r": np.linspace(18, 19, 64)})
    cuts = real.cut(folder, tmp_path / "g", table.filter(pa.array(galaxy)), "ugri", recipe.PIXELS, **KNOWN)
    assert len(recipe.red(cuts)) == len(cuts)
    rows = np.array([2, 5, 7])
    under = recipe.Painted(cuts, rows, first=100)
    arcs, alone = list(under.galaxies(recipe.nominal(), 2, seed=9, fold="test"))
    assert len(arcs) == len(alone) == 6 and len(set(arcs.id + alone.id)) == 12
    assert arcs.truth["galaxy"].value.tolist() == [102, 105, 107] * 2 == alone.truth["galaxy"].value.tolist()
    flux, ivar = real.pixels(cuts)
    for k, i in enumerate([2, 5, 7]):
        plain, turned = (alone.observation("image").flux[j].numpy() * recipe._lenses.UNIT for j in (k, k + 3))
        np.testing.assert_allclose(plain, flux[i], rtol=1e-5)
        np.testing.assert_allclose(turned, np.rot90(flux[i], 1, (-2, -1)), rtol=1e-5)
    assert (arcs.truth["is_lens"].value == 1).all() and (alone.truth["is_lens"].value == 0).all()
    assert (alone.truth["snr_arc"].value == 0).all()
    added = (arcs.observation("image").flux - alone.observation("image").flux) * recipe._lenses.UNIT
    # the S/N is that in the noise of the frame, which the matched filter of the true arcs gives back
    same = lenses.simulate(6, seed=9, survey=recipe.nominal(), lens_fraction=1.0, keep_noiseless=True, **recipe.ARCS)
    template, weight = same.truth["arcs"].value, torch.from_numpy(np.tile(ivar[rows], (2, 1, 1, 1)))
    snr = (template**2 * weight).sum((1, 2, 3)).sqrt()
    torch.testing.assert_close(arcs.truth["snr_arc"].value, snr, rtol=1e-3, atol=0)
    found = (added * template * weight).sum((1, 2, 3)) / snr
    assert ((found - snr).abs() < 5 * (1 + 0.05 * snr)).all()  # up to the photon noise of the arcs
    assert set(next(iter(under.galaxies(recipe.nominal(), 2, 9, ""))).truth["split"].value.tolist()) == {0}


def test_a_recipe_without_its_data_says_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSKY_DATA", str(tmp_path))
    with pytest.raises(InputError, match="the data set is not here") as error:
        recipe.judged("tiny", tmp_path / "cache")
    assert "ProFound" in str(error.value)
