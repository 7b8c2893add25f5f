"""The gate's look at pixel values, inverse variances and world coordinates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area

from deepsky.errors import InputError
from deepsky.gate import check_ivar, check_values, check_wcs

RNG = np.random.default_rng(7)


def image(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.normal(10, 1, shape or (40, 50)).astype(np.float32)


def refused(call: Any, *args: Any, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        call(*args, file="a.fits", hdu=2, **options)
    assert (caught.value.file, caught.value.hdu) == ("a.fits", 2) and caught.value.fix
    return caught.value


# -- values ---------------------------------------------------------------------------------------------------
def test_a_good_image_has_nothing_to_report() -> None:
    pixels = image(3, 40, 50)
    report = check_values(pixels)
    assert (report.finite, report.infinite, report.blank, report.saturated, report.dead) == (1, 0, 0, 0, ())
    assert report.low == pixels.min() and report.high == pixels.max() and report.plateau == 1 / pixels.size


def test_fractions_are_those_of_the_pixels() -> None:
    pixels = image(40, 50)
    pixels[3, 4:9], pixels[5, 6], pixels[20, :10] = np.nan, np.inf, 50.0
    report = check_values(pixels, saturation=50.0)
    assert report.finite == 1 - 6 / 2000 and report.infinite == 1 / 2000
    assert report.saturated == report.plateau == 10 / 2000
    assert report.low == pixels[np.isfinite(pixels)].min() and report.high == 50.0


def test_integers_saturate_at_the_top_of_their_type() -> None:
    pixels = RNG.integers(0, 200, (30, 30)).astype(np.uint8)
    assert check_values(pixels).saturated == 0
    pixels[:3] = 255
    assert check_values(pixels).saturated == 0.1
    assert check_values(pixels, saturation=300).saturated == 0


def test_blank_blocks_are_told_from_bad_pixels() -> None:
    pixels = image(64, 64)
    pixels[RNG.integers(0, 64, 200), RNG.integers(0, 64, 200)] = np.nan
    pixels[:, 31] = np.nan  # a dead column
    assert check_values(pixels).blank == 0
    pixels[:, :16] = np.nan  # a gap between chips
    assert check_values(pixels).blank == 0.25
    pixels[:, :40] = np.nan
    error = refused(check_values, pixels)
    assert (error.found, error.expected) == ("62.5% of the pixels lie in blocks without a finite value", "at most 50%")
    assert check_values(pixels, max_blank=1).blank == 0.625


@pytest.mark.parametrize(
    ("shape", "gap"), [((11, 21), (3, 5)), ((3,), (1,)), ((2, 5, 9), (2, 5, 1)), ((17, 3), (9, 3))]
)
def test_blank_blocks_of_odd_shapes(shape: tuple[int, ...], gap: tuple[int, ...]) -> None:
    """Against a slow count over blocks."""
    pixels = image(*shape)
    pixels[tuple(slice(n) for n in gap)] = np.nan
    planes = pixels.reshape((-1, *pixels.shape[-2:])) if pixels.ndim > 2 else pixels.reshape((1, 1, *shape)[-3:])
    blank = 0
    for plane in planes:
        for y in range(0, plane.shape[0], 8):
            for x in range(0, plane.shape[1], 8):
                block = plane[y : y + 8, x : x + 8]
                blank += block.size if not np.isfinite(block).any() else 0
    assert check_values(pixels, max_blank=1).blank == blank / pixels.size


def test_images_that_measure_nothing_are_refused() -> None:
    error = refused(check_values, np.full((4, 5), np.nan))
    assert error.problem == "the image holds no measured pixel" and error.found == "20 of 20 pixels are NaN or infinite"
    assert refused(check_values, np.full((4, 5), np.inf)).problem == "the image holds no measured pixel"
    error = refused(check_values, np.full((4, 5), 7, np.int16))
    assert error.problem == "the image is constant" and error.found == "20 finite pixels, all 7"
    almost = np.full((4, 5), 7.0)
    almost[0, 0] = np.nan
    assert refused(check_values, almost).found == "19 finite pixels, all 7"
    assert refused(check_values, np.zeros((0, 5))).found == "shape (0, 5)"
    assert refused(check_values, np.array([["a", "b"]])).found == "dtype <U1"
    assert refused(check_values, np.ones((2, 2), complex)).found == "dtype complex128"
    assert refused(check_values, np.array([[None, 1]])).found == "dtype object"


def test_a_dead_plane_is_reported_and_the_others_kept() -> None:
    cube = image(4, 9, 9)
    cube[1], cube[3] = 0, np.nan
    assert check_values(cube).dead == (1, 3)


def test_a_mask_is_not_lost() -> None:
    masked = np.ma.MaskedArray(image(10, 10), mask=np.arange(100).reshape(10, 10) < 30)
    assert check_values(masked).finite == 0.7
    counts = np.ma.MaskedArray(np.arange(100).reshape(10, 10), mask=np.arange(100).reshape(10, 10) >= 90)
    assert check_values(counts).high == 89


def test_scaling_that_overflows_is_found() -> None:
    pixels = image(9, 9).astype(np.float64) * 1e39
    error = refused(check_values, pixels)
    assert error.problem == "pixel values overflow float32" and error.keyword is None
    header = {"BSCALE": 1e38, "BZERO": 0.0}
    with np.errstate(over="ignore"):
        scaled = image(9, 9) * np.float32(1e38)
    scaled[0] = np.arange(9)
    error = refused(check_values, scaled, header=header)
    assert error.keyword == "BSCALE" and error.found == "72 infinite pixels, with BSCALE = 1e+38, BZERO = 0.0"
    assert check_values(scaled).infinite == 72 / 81  # without a scale they are the detector's


def test_byte_order_does_not_matter() -> None:
    pixels = image(20, 20)
    pixels[3, 3] = np.nan
    assert check_values(pixels.astype(">f4")) == check_values(pixels)


# -- inverse variances ----------------------------------------------------------------------------------------
def test_usable_ivar_passes() -> None:
    check_ivar(np.zeros((4, 4)))
    check_ivar(image(3, 8, 8), shape=(3, 8, 8))
    check_ivar(np.ones((3, 1, 1)), shape=(3, 8, 8))
    check_ivar(4.0, shape=(3, 8, 8))
    check_ivar(np.ma.MaskedArray([1.0, np.nan], mask=[False, True]))  # a masked pixel is not measured


@pytest.mark.parametrize(
    ("value", "name"), [(np.nan, "NaN"), (np.inf, "infinite"), (-1e-9, "negative"), (-np.inf, "infinite")]
)
def test_unusable_ivar_is_refused(value: float, name: str) -> None:
    ivar = np.ones((2, 5, 6), np.float32)
    ivar[1, 2, 3] = ivar[1, 4, 5] = value
    error = refused(check_ivar, ivar)
    assert error.problem == f"ivar has {name} values"
    assert error.found == "2 of 60, the first at pixel (1, 2, 3)"
    assert error.expected == "finite values >= 0, with 0 for 'not measured'"


def test_ivar_must_fit_its_image() -> None:
    error = refused(check_ivar, np.ones((5, 4)), shape=(3, 4, 5))
    assert (error.found, error.expected) == ("shape (5, 4)", "a shape that broadcasts to (3, 4, 5)")
    assert refused(check_ivar, np.array(["x"])).found == "dtype <U1"


# -- world coordinates ----------------------------------------------------------------------------------------
SKY: dict[str, Any] = {
    "NAXIS": 2, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.2,
    "CRPIX1": 32.5, "CRPIX2": 32.5,
}  # fmt: skip
CD = {"CD1_1": -5e-5, "CD1_2": 1e-5, "CD2_1": 1e-5, "CD2_2": 5e-5}
CROTA = {"CDELT1": -5e-5, "CDELT2": 6e-5, "CROTA2": 30.0}
PC = {"CDELT1": -5e-5, "CDELT2": 6e-5, "PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8}


@pytest.mark.parametrize("scale", [CD, CROTA, PC, {"CDELT1": -1e-4, "CDELT2": 1e-4}, {"CD1_1": -1e-4, "CD2_2": 1e-4}])
def test_the_matrix_and_scale_are_astropys(scale: dict[str, float]) -> None:
    report = check_wcs(SKY | scale)
    assert report is not None
    wcs = WCS(fits.Header(SKY | scale))
    np.testing.assert_allclose(report.cd, wcs.pixel_scale_matrix, rtol=1e-12, atol=1e-20)
    assert report.pixel_scale == pytest.approx(math.sqrt(proj_plane_pixel_area(wcs)) * 3600, rel=1e-9)
    assert (report.axes, report.crval, report.crpix) == ((1, 2), (150.0, 2.2), (32.5, 32.5))


def test_axes_in_any_order_and_units_other_than_degrees() -> None:
    swapped = {
        "CTYPE1": "FREQ",
        "CTYPE2": "DEC--SIN",
        "CTYPE3": "RA---SIN",
        "CRVAL1": 1e9,
        "CRVAL2": 5.0,
        "CRVAL3": 100.0,
    }
    rest = {f"{key}{n}": 1.0 if key == "CRPIX" else 1e-4 for key in ("CRPIX", "CDELT") for n in (1, 2, 3)}
    report = check_wcs(swapped | rest)
    assert report is not None and report.axes == (3, 2) and report.crval == (100.0, 5.0)
    assert report.pixel_scale == pytest.approx(0.36)
    seconds = SKY | {
        "CUNIT1": "arcsec",
        "CUNIT2": "arcsec",
        "CRVAL1": 3600.0,
        "CRVAL2": 7200.0,
        "CDELT1": -0.2,
        "CDELT2": 0.2,
    }
    report = check_wcs(seconds)
    assert report is not None and report.crval == pytest.approx((1.0, 2.0)) and report.pixel_scale == pytest.approx(0.2)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"NAXIS": 2, "NAXIS1": 64},
        {"NAXIS": 1, "CTYPE1": "WAVE", "CRVAL1": 4000.0, "CDELT1": 1.5},
        {"NAXIS": 1, "CRVAL1": 40.0, "CRVAL2": 0.0, "CDELT1": 1.5},
        {"NAXIS": 2, "CRVAL1": 1.0, "CRVAL2": 1.0, "CRPIX1": 1.0, "CDELT1": 1.0, "CDELT2": 1.0},
        {"NAXIS": 2, "CTYPE1": "LINEAR", "CTYPE2": "LINEAR", "CRVAL1": 10.0, "CRVAL2": 10.0, "CDELT1": 1.0},
    ],
)
def test_a_header_without_sky_coordinates_is_none(header: dict[str, Any]) -> None:
    assert check_wcs(header) is None


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "keyword", "found"),
    [
        ({"CRVAL1": NAN}, "CRVAL1", "nan"),
        ({"CRVAL2": float("inf")}, "CRVAL2", "inf"),
        ({"CRVAL1": "150.0"}, "CRVAL1", "'150.0'"),
        ({"CRVAL1": None}, "CRVAL1", "no such card"),
        ({"CRPIX2": NAN}, "CRPIX2", "nan"),
        ({"CRPIX1": None}, "CRPIX1", "no such card"),
        ({"CRVAL2": 95.0}, "CRVAL2", "95 deg"),
        ({"CD1_1": NAN}, "CD1_1", "nan"),
        ({"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.0}, "CD1_1",
         "matrix (0.0, 0.0), (0.0, 0.0) deg per pixel, determinant 0"),
        ({"CD1_1": 1e-4, "CD1_2": 2e-4, "CD2_1": 2e-4, "CD2_2": 4e-4}, "CD1_1",
         "matrix (0.0001, 0.0002), (0.0002, 0.0004) deg per pixel, determinant 0"),
        ({"CTYPE2": None}, "CTYPE2", "CTYPE1 = 'RA---TAN'"),
        ({"CTYPE2": "RA---TAN"}, "CTYPE2", "CTYPE1 = 'RA---TAN', CTYPE2 = 'RA---TAN'"),
        ({"CTYPE1": 7}, "CTYPE1", "7"),
        ({"CUNIT1": "km"}, "CUNIT1", "km"),
        ({"CTYPE1": None, "CTYPE2": None}, "CTYPE1", "CRVAL1 = 150.0, CRVAL2 = 2.2, no CTYPE1"),
        ({"PV2_1": NAN}, "PV2_1", "nan"),
        ({"A_2_0": float("inf")}, "A_2_0", "inf"),
        ({"LONPOLE": "north"}, "LONPOLE", "'north'"),
        ({"A_ORDER": 99999, "B_ORDER": 2}, "A_ORDER", "99999"),
        ({"BP_ORDER": 2.5}, "BP_ORDER", "2.5"),
        ({"RADESYS": "GAPPT"}, "RADESYS", "'GAPPT'"),
        (dict.fromkeys(CD), "CDELT1", "no such card"),
        (dict.fromkeys(CD) | {"CDELT1": 0.0, "CDELT2": 1e-4}, "CDELT1",
         "matrix (0.0, -0.0), (0.0, 0.0001) deg per pixel, determinant 0"),
    ],
)  # fmt: skip
def test_broken_coordinates_are_named(changes: dict[str, Any], keyword: str, found: str) -> None:
    header = {key: value for key, value in (SKY | CD | changes).items() if value is not None}
    error = refused(check_wcs, header)
    assert (error.keyword, error.found) == (keyword, found)
    assert error.expected or "known" in str(error)
