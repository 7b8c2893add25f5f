from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from deepsky.errors import InputError
from deepsky.simulators._surveys import (
    EUCLID_VIS_THROUGHPUT,
    EUCLID_ZERO_POINT,
    SURVEYS,
    aperture_depth,
    bands,
    depth,
    zero_point_of,
)


def test_zero_point_of_a_top_hat_is_the_photon_rate_of_an_ab_source():
    # 1 m**2, a tenth of the photons between 500 and 600 nm: 5.48e10 photons s**-1 m**-2 per unit of ln(lambda)
    rate = 0.1 * 3631e-26 / 6.62607015e-34 * math.log(600 / 500)
    assert zero_point_of(1.0, ((500.0, 0.1), (600.0, 0.1))) == pytest.approx(2.5 * math.log10(rate), abs=1e-9)
    one, four = (zero_point_of(area, ((5.0, 0.1), (6.0, 0.1))) for area in (1.0, 4.0))
    assert four - one == pytest.approx(2.5 * math.log10(4), abs=1e-9)


def test_euclid_zero_point_decides_between_the_two_sources():
    # the open area of the 1.2 m mirror less its 0.42 m obscuration, and the integral of the table by another rule
    area = math.pi * (0.6**2 - 0.21**2)
    wave, through = np.array(EUCLID_VIS_THROUGHPUT).T
    fine = np.linspace(wave[0], wave[-1], 200_001)
    photons = np.trapezoid(np.interp(fine, wave, through) / fine, fine) * 3631e-26 / 6.62607015e-34
    assert abs(2.5 * math.log10(area * photons) - EUCLID_ZERO_POINT) < 0.02
    assert abs(EUCLID_ZERO_POINT - 25.91) < 0.2
    assert abs(EUCLID_ZERO_POINT - 24.0) > 1.5


@pytest.mark.parametrize(
    ("survey", "name", "published", "tolerance"),
    [
        # quoted for LSST: 27.6 in ten years and 24.8 in one exposure, from constants that leave 0.35 mag
        ("lsst", "r", 27.6, 0.35),
        ("lsst-single", "r", 24.8, 0.35),
        ("euclid", "vis", 27.8, 0.15),  # with a zero point of 25.5; sky-limited, so it hardly matters
        ("sdss", "u", 22.0, 0.65),  # SDSS: the 95% completeness limits
        ("sdss", "g", 22.2, 0.7),
        ("sdss", "r", 22.5, 0.15),
        ("sdss", "i", 21.3, 0.7),
        ("sdss", "z", 20.5, 0.3),
        ("ztf", "r", 20.6, 0.05),
    ],
)
def test_depth_is_the_published_one(survey, name, published, tolerance):
    assert abs(depth(bands(survey, (name,))[0]) - published) < tolerance


def test_a_single_exposure_follows_the_lsst_formula():
    # photerr (jfcrenshaw): m5 = Cm + 0.5 (sky - 21) + 2.5 log(0.7 / theta) + 1.25 log(t / 30), at airmass 1
    for name, cm in {"g": 24.42, "r": 24.44, "i": 24.32, "z": 24.16}.items():
        band = bands("lsst-single", (name,))[0]
        expected = cm + 0.5 * (band.sky - 21) + 2.5 * math.log10(0.7 / band.psf_fwhm)
        assert abs(depth(band) - expected) < 0.2


def test_depth_solves_its_own_equation():
    band = bands("kids", ("r",))[0]
    for snr in (5.0, 20.0):
        count = 10 ** (0.4 * (band.zero_point - depth(band, snr))) * band.total_exposure
        n_eff = 2.266 * (band.psf_fwhm / band.pixel_scale) ** 2
        assert count / math.sqrt(count + n_eff * band.background_variance) == pytest.approx(snr, rel=1e-9)


def test_four_times_the_exposures_are_three_quarters_of_a_magnitude():
    band = bands("des", ("i",))[0]
    assert depth(replace(band, n_exposures=40)) - depth(band) == pytest.approx(2.5 * math.log10(2), abs=0.01)


def test_kids_reaches_the_limits_of_its_fourth_release():
    for name, limit in {"u": 24.23, "g": 25.12, "r": 25.02, "i": 23.68}.items():
        assert aperture_depth(bands("kids", (name,))[0]) == pytest.approx(limit, abs=0.01)


def test_kids_noise_is_that_of_real_images(shared_data):
    from astropy.io import fits

    folder = shared_data / "kids-galaxies"
    if not folder.is_dir():
        pytest.skip("no KiDS images")
    band = bands("kids", ("r",))[0]
    sky, gain = [], []
    for path in sorted(folder.glob("G*sigma.fits")):
        sigma = fits.getdata(path).astype(float)  # in units of magnitude 0
        image = fits.getdata(str(path).replace("sigma", "fitim")).astype(float)
        segments = fits.getdata(str(path).replace("sigma", "segim"))
        bright = image > 0.05 * image.max()
        sky.append(np.median(sigma[segments == 0]))
        gain.append(1 / np.polyfit(image[bright], sigma[bright] ** 2, 1)[0])  # electrons at magnitude 0
    maggie = 10 ** (0.4 * 31.4)
    assert np.median(sky) * maggie == pytest.approx(band.sigma, rel=0.2)
    assert 2.5 * math.log10(np.median(gain) / band.total_exposure) == pytest.approx(band.zero_point, abs=0.1)


def test_every_band_is_physical_and_named_after_its_filter():
    for survey, all_bands in SURVEYS.items():
        assert len({b.name for b in all_bands}) == len(all_bands)
        assert len({b.svo for b in all_bands}) == len(all_bands)
        for band in all_bands:
            assert band.svo.count("/") == 1 and band.svo.split(".")[-1].startswith(band.name[0]), survey
            assert 0.3 < band.psf_fwhm / band.pixel_scale / 2 < 4
            assert 17 < band.sky < 23.5 and 22 < band.zero_point < 30
            assert band.sigma > 0


def test_unknown_names_are_listed():
    with pytest.raises(InputError, match=r"no constants for this survey[\s\S]*kids"):
        bands("kid")
    with pytest.raises(InputError, match="kids has no such band"):
        bands("kids", ("z",))
