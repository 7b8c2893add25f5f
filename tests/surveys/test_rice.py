"""Rice-compressed frames: the quick way gives what astropy gives, bit for bit, and leaves to it what is unusual."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from astropy.io import fits

from deepsky.errors import InputError
from deepsky.gate import check_fits
from deepsky.surveys import _rice
from deepsky.surveys._planes import array

SHAPE = (70, 90)


def image(*, blank=True):
    rng = np.random.default_rng(3)
    values = rng.normal(100, 7, SHAPE).astype(np.float32)
    values[20:22] = 0  # rows that cannot be quantised, and are kept as floats
    if blank:
        values[5, 3:40] = np.nan
        values[60:] = np.nan
    return values


def written(path, values, **how):
    how = {"compression_type": "RICE_1", **how}
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(values, **how)]).writeto(path, overwrite=True)
    return path


def both(path):
    with fits.open(path) as hdus:
        expected = np.asarray(hdus[1].data)
    return _rice.decoded(path, check_fits(path), 1), expected


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("method", [-1, 1, 2])
@pytest.mark.parametrize("rows", [1, 3, 32, 70])
def test_the_values_are_those_of_astropy(tmp_path, method, rows, blank):
    path = written(tmp_path / "f.fits", image(blank=blank), quantize_method=method, dither_seed=17,
                   tile_shape=(rows, SHAPE[1]))  # fmt: skip
    got, expected = both(path)
    assert got is not None
    assert got.dtype == np.float32
    assert np.array_equal(got, expected, equal_nan=True)
    assert np.abs(got - image(blank=blank))[np.isfinite(expected)].max() < 1  # the quantisation, of a quarter sigma


def test_more_pixels_than_are_turned_into_floats_at_once(tmp_path):
    values = np.random.default_rng(0).normal(0, 1, (300, 256)).astype(np.float32)
    got, expected = both(written(tmp_path / "f.fits", values))
    assert values.size > 2 * _rice.PIXELS
    assert np.array_equal(got, expected)


@pytest.mark.parametrize(
    "how",
    [
        {"tile_shape": (16, 16)},
        {"compression_type": "GZIP_2"},
        {"compression_type": "HCOMPRESS_1", "tile_shape": (35, 90)},
    ],
)
def test_other_tiles_and_codes_are_left_to_astropy(tmp_path, how):
    path = written(tmp_path / "f.fits", image(blank=False), **how)
    got, expected = both(path)
    assert got is None
    assert np.array_equal(array(path, check_fits(path), 1), expected)


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.int32])
def test_integers_are_left_to_astropy(tmp_path, kind):
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(kind)
    path = written(tmp_path / "f.fits", values)
    got, _ = both(path)
    assert got is None
    assert np.array_equal(array(path, check_fits(path), 1), values)


def test_doubles_are_left_to_astropy(tmp_path):
    assert both(written(tmp_path / "f.fits", image().astype(np.float64)))[0] is None


def test_a_gzipped_file_is_left_to_astropy(tmp_path):
    path = written(tmp_path / "f.fits", image())
    packed = tmp_path / "f.fits.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert _rice.decoded(packed, check_fits(packed), 1) is None
    assert np.array_equal(array(packed, check_fits(packed), 1), both(path)[1], equal_nan=True)


def test_damaged_tiles_are_what_astropy_makes_of_them(tmp_path):
    path = written(tmp_path / "f.fits", image())
    whole, hdu, rng = path.read_bytes(), check_fits(path).hdus[1], np.random.default_rng(1)
    refused = 0
    for _ in range(20):
        broken = bytearray(whole)
        start = hdu.offset + int(hdu.header["NAXIS1"]) * int(hdu.header["NAXIS2"])
        for at in rng.integers(start, hdu.offset + hdu.nbytes, 5):
            broken[at] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        try:
            with fits.open(path) as hdus:
                expected = np.asarray(hdus[1].data)
        except Exception:
            refused += 1
            with pytest.raises(InputError, match="cannot be decoded"):
                array(path, check_fits(path), 1)
        else:
            assert np.array_equal(array(path, check_fits(path), 1), expected, equal_nan=True)
    assert refused
