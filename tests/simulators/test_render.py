from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deepsky.simulators import _render as render
from deepsky.simulators._surveys import bands

galsim = pytest.importorskip("galsim", reason="galsim is not installed")


def column(*values):
    return torch.tensor(values)


def reference(band, size, re, n, g1, g2, x, y):
    make = galsim.Moffat(beta=3.5, fwhm=band.psf_fwhm) if band.psf == "moffat" else galsim.Gaussian(fwhm=band.psf_fwhm)
    galaxy = galsim.Sersic(n=n, half_light_radius=re).shear(g1=g1, g2=g2).shift(x, y)
    return galsim.Convolve(galaxy, make).drawImage(nx=size, ny=size, scale=band.pixel_scale).array


@pytest.mark.parametrize(
    ("survey", "name", "size"),
    [("kids", "u", 101), ("kids", "r", 100), ("euclid", "vis", 101), ("hsc", "i", 64), ("cosmos", "F814W", 128),
     ("sdss", "r", 64), ("ztf", "g", 63)],
)  # fmt: skip
def test_galaxies_are_galsims(survey, name, size):
    band = bands(survey, (name,))[0]
    fine = render.samples_per_pixel(band.pixel_scale, band.psf_fwhm, band.psf)
    g = render.grid(size, band.pixel_scale, fine, padding=2.0)
    side = size * band.pixel_scale
    for re, n, g1, g2, x, y in ((0.03, 1.0, 0.2, 0.1, 0.01, -0.02), (0.05, 4.0, -0.1, 0.25, -0.06, 0.03)):
        numbers = (re * side, n, g1, g2, x * side, y * side)
        spectrum = render.sersic_spectrum(g, *(column(v) for v in numbers)) * render.band_response(g, (band,))
        mine, theirs = render.stamp(g, spectrum)[0].numpy(), reference(band, size, *numbers)
        assert np.abs(mine - theirs).max() < 1e-3 * theirs.max()


def test_a_centre_lies_where_pixels_are_counted_from():
    band = bands("kids", ("r",))[0]
    for size in (40, 41):
        g = render.grid(size, 0.2)
        numbers = (0.3, 1.0, 0.0, 0.0, 0.6, -1.0)  # three pixels right, five down
        image = render.stamp(
            g, render.sersic_spectrum(g, *(column(v) for v in numbers)) * render.band_response(g, (band,))
        )[0]
        along = torch.arange(size) - 0.5 * (size - 1)
        assert float((image.sum(0) * along).sum() / image.sum()) == pytest.approx(3.0, abs=0.03)
        assert float((image.sum(1) * along).sum() / image.sum()) == pytest.approx(-5.0, abs=0.03)
        assert float(image.sum()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("survey", "size"), [("kids", 61), ("euclid", 60)])
def test_what_is_drawn_on_cells_is_what_its_transform_gives(survey, size):
    band = bands(survey)[0]
    fine = render.samples_per_pixel(band.pixel_scale, band.psf_fwhm, band.psf)
    g, per_pixel = render.grid(size, band.pixel_scale, fine, dtype=torch.float64), 2 * fine
    sigma, x, y = 1.5 * band.pixel_scale, 0.4, -0.7
    for pixels in (size, size - 20):  # cells may cover a part of the stamp
        axis = render.cell_axis(pixels, per_pixel, band.pixel_scale, torch.float64)
        cells = torch.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / (2 * sigma**2))
        spectrum = render.cells_spectrum(g, cells / cells.sum(), per_pixel)
        exact = torch.exp(-2 * math.pi**2 * sigma**2 * g.k2)
        exact = exact * render.phase(g.kx, g.ky, torch.tensor([x]).double(), torch.tensor([y]).double())[0]
        transfer = render.band_response(g, (band,))
        drawn, expected = render.stamp(g, spectrum * transfer), render.stamp(g, exact * transfer)
        assert float((drawn - expected).abs().max() / expected.max()) < 5e-3
        # the cell's own width is undone to second order, so the flux and the size are exact
        assert float(drawn.sum() / expected.sum()) == pytest.approx(1.0, abs=1e-4)


def test_psf_stamps_are_galsims_and_add_to_one():
    pair = bands("kids", ("u", "r"))
    stamps = render.psf_stamps(pair, 25)
    assert stamps.sum((1, 2)).tolist() == pytest.approx([1.0, 1.0])
    for band, stamp in zip(pair, stamps.numpy(), strict=True):
        theirs = galsim.Moffat(beta=3.5, fwhm=band.psf_fwhm).drawImage(nx=25, ny=25, scale=0.2).array
        assert np.abs(stamp - theirs / theirs.sum()).max() < 1e-3 * stamp.max()


def test_samples_per_pixel_rise_where_the_psf_is_sharp():
    assert render.samples_per_pixel(0.2, 0.7) == 1
    assert render.samples_per_pixel(0.1, 0.17, "gaussian") == 2
    assert render.samples_per_pixel(1.0, 0.3, "gaussian") >= 3
