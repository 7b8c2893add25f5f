"""Cutouts of frames: stars stay in the middle in every projection, noise and masks follow, edges and bad frames."""

from __future__ import annotations

import gzip
import pickle
import warnings

import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.wcs import WCS

from deepsky.errors import InputError
from deepsky.ingestion import ingest
from deepsky.surveys import _cut, frames
from deepsky.surveys._frames import collect
from deepsky.surveys._names import group
from deepsky.surveys._object import Rules

SHAPE = (200, 240)
SCALE = 0.25 / 3600


@pytest.fixture(autouse=True)
def _nothing_kept():
    for kept in (_cut._open, _cut._skies, _cut._norms):
        kept.clear()
    yield
    for kept in (_cut._open, _cut._skies, _cut._norms):
        kept.clear()


def header(ctype="TAN", *, ra=150.0, dec=30.0, turn=20.0, scale=SCALE, shape=SHAPE, **more):
    a = np.radians(turn)
    h = {
        "CTYPE1": f"RA---{ctype}",
        "CTYPE2": f"DEC--{ctype}",
        "CRVAL1": ra,
        "CRVAL2": dec,
        "CRPIX1": shape[1] / 2 + 7.3,
        "CRPIX2": shape[0] / 2 - 4.1,
        "CD1_1": -scale * np.cos(a),
        "CD1_2": scale * np.sin(a),
        "CD2_1": scale * np.sin(a),
        "CD2_2": scale * np.cos(a),
    }
    if ctype == "TPV":
        h |= {"PV1_0": 0.0, "PV1_1": 1.0, "PV1_4": 0.6, "PV2_0": 0.0, "PV2_1": 1.0, "PV2_5": -0.4}
    if ctype == "TAN-SIP":
        h |= {"A_ORDER": 2, "A_2_0": 3e-5, "A_0_2": -2e-5, "B_ORDER": 2, "B_1_1": 4e-5, "B_2_0": 1e-5}
    return fits.Header(h | more)


def stars(x, y, shape=SHAPE, *, flux=1000.0, fwhm=3.0, sky=0.0):
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    s = fwhm / 2.3548
    image = np.zeros(shape)
    for a, b in zip(x, y, strict=True):
        image += flux / (2 * np.pi * s**2) * np.exp(-0.5 * ((cols - a) ** 2 + (rows - b) ** 2) / s**2)
    return image + sky


def centroid(stamp):
    rows, cols = np.mgrid[: stamp.shape[0], : stamp.shape[1]]
    return (stamp * cols).sum() / stamp.sum(), (stamp * rows).sum() / stamp.sum()


def spread(n=12, shape=SHAPE, edge=25, seed=0):
    rng = np.random.default_rng(seed)
    grid = [(c, r) for r in np.linspace(edge, shape[0] - edge, 3) for c in np.linspace(edge, shape[1] - edge, 4)]
    x, y = (np.array(v)[:n] + rng.uniform(-0.5, 0.5, n) for v in zip(*grid, strict=True))
    return x, y


def sky_of(h, x, y):
    return WCS(h).all_pix2world(x, y, 0)


def listed(h, x, y, **more):
    ra, dec = sky_of(h, x, y)
    return {"id": [f"s{i}" for i in range(len(x))], "ra": ra, "dec": dec, **more}


def read(source):
    items = source.items()
    return items, source.read(items)


def pixels(path):
    with warnings.catch_warnings():  # of MIDAS keywords
        warnings.simplefilter("ignore")
        return fits.getdata(path)


def by_id(block, name):
    return dict(zip(block.ids, block.arrays[name], strict=True))


@pytest.mark.parametrize("ctype", ["TAN", "SIN", "ZEA", "TPV", "TAN-SIP", "STG", "CAR"])
def test_stars_lie_where_dx_and_dy_say(tmp_path, ctype):
    h = header(ctype)
    x, y = spread()
    fits.PrimaryHDU(stars(x, y).astype(np.float32), h).writeto(tmp_path / "frame.fits")
    source = frames.open(tmp_path, catalogue=listed(h, x, y), size=24)
    items, block = read(source)
    assert len(block.ids) == 12 and not source.rejected()
    offsets = {i: (a, b) for i, a, b in zip(*(items[n].to_pylist() for n in ("id", "dx", "dy")), strict=True)}
    for name, stamp in by_id(block, "image.flux").items():
        cx, cy = centroid(stamp[0])
        dx, dy = offsets[name]
        assert abs(dx) <= 0.5001 and abs(dy) <= 0.5001
        assert np.hypot(cx - 11.5 - dx, cy - 11.5 - dy) < 0.05


def test_cutouts_are_those_of_astropy(tmp_path):
    h = header()
    image = np.random.default_rng(1).normal(100, 5, SHAPE).astype(np.float32)
    x, y = spread()
    fits.PrimaryHDU(image, h).writeto(tmp_path / "frame.fits")
    x[:4], y[:4] = np.round(x[:4]), np.round(y[:4]) + 0.5
    for size in (15, 16):
        _, block = read(frames.open(tmp_path, catalogue=listed(h, x, y), size=size))
        got = by_id(block, "image.flux")
        for i, (a, b) in enumerate(zip(x, y, strict=True)):
            np.testing.assert_array_equal(got[f"s{i}"][0], Cutout2D(image, (a, b), size).data)


@pytest.mark.parametrize("pack", ["rice", "gzip", "hcompress", "bz2"])
def test_compressed_frames(tmp_path, pack):
    h = header()
    x, y = spread()
    image = np.round(stars(x, y, sky=50) + np.random.default_rng(0).normal(0, 3, SHAPE)).astype(np.int32)
    plain = tmp_path / "plain" / "f.fits"
    plain.parent.mkdir()
    fits.PrimaryHDU(image, h).writeto(plain)
    there = tmp_path / "packed"
    there.mkdir()
    if pack == "gzip":
        (there / "f.fits.gz").write_bytes(gzip.compress(plain.read_bytes()))
    elif pack == "bz2":
        import bz2

        (there / "f.fits.bz2").write_bytes(bz2.compress(plain.read_bytes()))
    else:
        kind = {"rice": "RICE_1", "hcompress": "HCOMPRESS_1"}[pack]
        tile = (64, 64) if pack == "rice" else (16, SHAPE[1])
        hdu = fits.CompImageHDU(image, h, compression_type=kind, tile_shape=tile)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(there / "f.fits.fz")
    catalogue = listed(h, x, y)
    one = read(frames.open(plain, catalogue=catalogue, size=16))[1]
    other = read(frames.open(there, catalogue=catalogue, size=16))[1]
    for name in one.arrays:
        np.testing.assert_array_equal(one.arrays[name], other.arrays[name])


def test_scaled_integers_and_blank(tmp_path):
    h = header()
    raw = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
    raw[100, 100:110] = -32768
    hdu = fits.PrimaryHDU(raw, h)
    hdu.writeto(tmp_path / "f.fits")
    for key, value in (("BSCALE", 0.5), ("BZERO", 30.0), ("BLANK", -32768)):
        fits.setval(tmp_path / "f.fits", key, value=value)
    _, block = read(frames.open(tmp_path, catalogue=listed(h, [105.0], [100.0]), size=32))
    truth = fits.getdata(tmp_path / "f.fits")[84:116, 89:121]
    seen = block.arrays["image.ivar"][0, 0] > 0
    np.testing.assert_array_equal(seen, np.isfinite(truth))
    np.testing.assert_allclose(block.arrays["image.flux"][0, 0][seen], truth[seen])


def test_small_integers_stay(tmp_path):
    h = header()
    raw = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)
    fits.PrimaryHDU(raw, h).writeto(tmp_path / "f.fits")
    _, block = read(frames.open(tmp_path, catalogue=listed(h, [105.0], [100.0]), size=8))
    assert block.arrays["image.flux"].dtype == np.uint16
    np.testing.assert_array_equal(block.arrays["image.flux"][0, 0], raw[96:104, 101:109])


# -- noise --------------------------------------------------------------------------------------------------------
def test_noise_of_the_sky_is_found_beneath_the_stars(tmp_path):
    shape = (512, 512)
    h = header(shape=shape)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(20, 490, (2, 300))
    sigma = np.where(np.arange(512) < 256, 2.0, 6.0)
    image = stars(x, y, shape, flux=3000, sky=70) + rng.normal(0, 1, shape) * sigma
    fits.PrimaryHDU(image.astype(np.float32), h).writeto(tmp_path / "f.fits")
    source = frames.open(tmp_path, catalogue=listed(h, [100.0, 410.0], [128.0, 128.0]), size=16)
    assert source.schema.observations["image"].noise == "estimated"
    ivar = by_id(read(source)[1], "image.ivar")
    np.testing.assert_allclose(1 / np.sqrt(ivar["s0"]), 2, rtol=0.1)
    np.testing.assert_allclose(1 / np.sqrt(ivar["s1"]), 6, rtol=0.1)


@pytest.mark.parametrize(
    ("file", "value", "kind"),
    [("f.weight.fits", 7.0, "estimated"), ("f_var.fits", 9.0, "measured"), ("f_rms.fits", 3.0, "measured"),
     ("f_invvar.fits", 1 / 9, "measured")],
)  # fmt: skip
def test_noise_frames_beside(tmp_path, file, value, kind):
    h = header()
    image = np.random.default_rng(0).normal(0, 3, SHAPE).astype(np.float32)
    plane = np.full(SHAPE, value, np.float32)
    plane[100, 100] = 0
    fits.PrimaryHDU(image, h).writeto(tmp_path / "f.fits")
    fits.PrimaryHDU(plane, h).writeto(tmp_path / file)
    source = frames.open(tmp_path, catalogue=listed(h, [100.0], [100.0]), size=16)
    assert source.schema.observations["image"].noise == kind
    ivar = read(source)[1].arrays["image.ivar"][0, 0]
    assert ivar[8, 8] == 0 and (ivar > 0).sum() == 255
    np.testing.assert_allclose(1 / np.sqrt(ivar[ivar > 0]), 3, rtol=0.03 if kind == "estimated" else 1e-5)


def test_mask_and_variance_extensions_of_every_chip(tmp_path):
    hdus = [fits.PrimaryHDU()]
    truth = {}
    for chip in (1, 2):
        h = header(ra=150 + 0.05 * chip, EXTVER=chip)
        flux = np.random.default_rng(chip).normal(chip, 1, SHAPE).astype(np.float32)
        dq = np.zeros(SHAPE, np.int16)
        dq[100, 100 + chip] = 4
        for name, plane in (("SCI", flux), ("ERR", np.full(SHAPE, chip, np.float32)), ("DQ", dq)):
            hdus.append(fits.ImageHDU(plane, h, name=name, ver=chip))
        ra, dec = sky_of(h, 100.0, 100.0)
        truth[f"chip{chip}"] = (float(ra), float(dec), chip)
    fits.HDUList(hdus).writeto(tmp_path / "exposure.fits")
    catalogue = {"id": list(truth), "ra": [t[0] for t in truth.values()], "dec": [t[1] for t in truth.values()]}
    _, block = read(frames.open(tmp_path, catalogue=catalogue, size=16))
    for name, ivar in by_id(block, "image.ivar").items():
        chip = truth[name][2]
        assert ivar[0, 8, 8 + chip] == 0 and (ivar > 0).sum() == 255
        np.testing.assert_allclose(ivar[ivar > 0], 1 / chip**2)


def test_zero_points_of_each_frame(tmp_path):
    flux = np.random.default_rng(0).normal(100, 1, SHAPE).astype(np.float32)
    catalogue = {"id": [], "ra": [], "dec": []}
    for i, zero in enumerate((25.0, 27.5)):
        h = header(ra=150 + i, MAGZERO=zero)
        fits.PrimaryHDU(flux * 10 ** (0.4 * (zero - 25)), h).writeto(tmp_path / f"f{i}.fits")
        ra, dec = sky_of(h, 90.0, 90.0)
        for key, value in (("id", str(i)), ("ra", float(ra)), ("dec", float(dec))):
            catalogue[key].append(value)
    source = frames.open(tmp_path, catalogue=catalogue, size=16)
    assert source.schema.observations["image"].unit == "nJy"
    _, block = read(source)
    np.testing.assert_allclose(block.arrays["image.flux"][0], block.arrays["image.flux"][1], rtol=1e-5)
    np.testing.assert_allclose(block.arrays["image.flux"][0, 0], flux[82:98, 82:98] * 363.1, rtol=1e-5)


# -- where sources fall -------------------------------------------------------------------------------------------
def test_edges_and_outside(tmp_path):
    h = header()
    fits.PrimaryHDU(np.random.default_rng(0).normal(5, 1, SHAPE).astype(np.float32), h).writeto(tmp_path / "f.fits")
    x = np.array([3.0, 236.0, 100.0, -30.0, 500.0])
    y = np.array([100.0, 197.0, 100.0, 100.0, 100.0])
    catalogue = listed(h, x, y)
    catalogue["ra"][4] = np.nan
    source = frames.open(tmp_path, catalogue=catalogue, size=32)
    _, block = read(source)
    assert set(block.ids) == {"s0", "s1", "s2"}
    reasons = {r.id: r.reason for r in source.rejected()}
    assert "outside every frame" in reasons["s3"] and reasons["s4"] == "no position"
    ivar = by_id(block, "image.ivar")
    assert (ivar["s0"] > 0).sum() == 32 * (3 + 16) and (ivar["s1"] > 0).sum() == (200 - 181) * (240 - 220)
    assert (ivar["s2"] > 0).all()
    flux = by_id(block, "image.flux")
    assert not flux["s0"][ivar["s0"] == 0].any()


def test_overlapping_frames_the_one_with_most_margin(tmp_path):
    for i, shift in enumerate((0.0, 0.008)):
        h = header(dec=30 + shift, turn=0)
        fits.PrimaryHDU(np.full(SHAPE, i + 1.0, np.float32) + np.eye(*SHAPE, dtype=np.float32), h).writeto(
            tmp_path / f"{i}.fits"
        )
    h = header(turn=0)
    x, y = np.full(2, 120.0), np.array([80.0, 190.0])
    _, block = read(frames.open(tmp_path, catalogue=listed(h, x, y), size=8))
    flux = by_id(block, "image.flux")
    assert np.median(flux["s0"]) == 1 and np.median(flux["s1"]) == 2


def test_frames_open_once(tmp_path, monkeypatch):
    x, y = spread()
    catalogue = {"id": [], "ra": [], "dec": []}
    for f in range(3):
        h = header(ra=150 + f)
        hdu = fits.CompImageHDU(stars(x, y).astype(np.float32), h, compression_type="RICE_1", tile_shape=(50, 50))
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / f"{f}.fits.fz")
        ra, dec = sky_of(h, x, y)
        catalogue["ra"] += list(ra)
        catalogue["dec"] += list(dec)
    catalogue["id"] = [str(i) for i in range(36)]
    order = np.random.default_rng(0).permutation(36)
    catalogue = {k: [v[i] for i in order] for k, v in catalogue.items()}
    calls = []
    array = _cut.array
    monkeypatch.setattr(_cut, "array", lambda *a: calls.append(a[0]) or array(*a))
    monkeypatch.setattr(_cut, "OPEN_BYTES", 1)  # no room for two
    source = frames.open(tmp_path, catalogue=catalogue, size=16)
    items = source.items()
    for start in range(0, 36, 6):
        source.read(items.slice(start, 6))
    assert len(calls) == 3


def test_galactic_coordinates_and_b1950(tmp_path):
    from astropy.coordinates import SkyCoord

    x, y = spread(4)
    for kind, more in (("GLON", {}), ("RA", {"RADESYS": "FK4", "EQUINOX": 1950.0})):
        h = header(**more)
        if kind == "GLON":
            h["CTYPE1"], h["CTYPE2"] = "GLON-TAN", "GLAT-TAN"
        folder = tmp_path / kind
        folder.mkdir()
        fits.PrimaryHDU(stars(x, y).astype(np.float32), h).writeto(folder / "f.fits")
        lon, lat = sky_of(h, x, y)
        frame = {"frame": "galactic"} if kind == "GLON" else {"frame": "fk4", "equinox": "B1950"}
        sky = SkyCoord(lon, lat, unit="deg", **frame).icrs
        catalogue = {"id": list("abcd"), "ra": sky.ra.deg, "dec": sky.dec.deg}
        _, block = read(frames.open(folder, catalogue=catalogue, size=24))
        assert len(block.ids) == 4
        for stamp in block.arrays["image.flux"]:
            assert np.hypot(*np.subtract(centroid(stamp[0]), 11.5)) < 0.75


# -- bands --------------------------------------------------------------------------------------------------------
def test_bands_on_grids_of_their_own(tmp_path):
    x, y = spread()
    first = header()
    ra, dec = sky_of(first, x, y)
    for band, turn in (("g", 20), ("r", 65)):
        h = header(turn=turn, FILTER=band, INSTRUME="DECam")
        u, v = WCS(h).all_world2pix(ra, dec, 0)
        fits.PrimaryHDU(stars(u, v).astype(np.float32), h).writeto(tmp_path / f"image{band == 'g'}.fits")
    source = frames.open(tmp_path, catalogue=listed(first, x, y), size=24)
    image = source.schema.observations["image"]
    assert image.bands == ("g", "r") and image.filters == ("CTIO/DECam.g", "CTIO/DECam.r")
    _, block = read(source)
    whole = (block.arrays["image.ivar"] > 0).all((2, 3))
    assert whole.all(axis=1).sum() >= 6
    for stamp, seen in zip(block.arrays["image.flux"], whole, strict=True):
        for b in range(2):
            if seen[b]:
                assert np.abs(np.subtract(centroid(stamp[b]), 11.5)).max() < 0.55


def test_a_band_that_does_not_cover_a_source(tmp_path):
    x, y = spread()
    for band, ra in (("g", 150.0), ("r", 150.01)):
        h = header(ra=ra, FILTER=band)
        fits.PrimaryHDU(np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32), h).writeto(
            tmp_path / f"{band}.fits"
        )
    _, block = read(frames.open(tmp_path, catalogue=listed(header(), x, y), size=8))
    seen = (block.arrays["image.ivar"] > 0).any((2, 3))
    assert seen[:, 0].all() and 0 < seen[:, 1].sum() < 12


def test_different_pixel_scales_need_resampling(tmp_path):
    x, y = spread()
    first = header()
    ra, dec = sky_of(first, x, y)
    shapes = {"g": (SHAPE, 1.0), "r": ((400, 480), 0.5), "i": ((130, 150), 2.0)}
    for band, (shape, factor) in shapes.items():
        h = header(turn=50 if band == "r" else 20, scale=SCALE * factor, shape=shape, FILTER=band)
        u, v = WCS(h).all_world2pix(ra, dec, 0)
        image = stars(u, v, shape, fwhm=6 / factor)
        fits.PrimaryHDU(image.astype(np.float32), h).writeto(tmp_path / f"{band}.fits")
    catalogue = listed(first, x, y)
    with pytest.raises(InputError, match=r"g 0\.25, r 0\.125, i 0\.5 arcsec"):
        frames.open(tmp_path, catalogue=catalogue)
    source = frames.open(tmp_path, catalogue=catalogue, size=32, resample=True)
    items, block = read(source)
    whole = (block.arrays["image.ivar"] > 0).all((1, 2, 3))
    assert whole.sum() >= 4 and source.schema.observations["image"].correlated
    for k in np.flatnonzero(whole):
        for b in range(3):
            stamp = block.arrays["image.flux"][k, b]
            assert stamp.sum() == pytest.approx(1000, rel=0.01)  # flux is conserved
            middle = np.array([15.5 + items["dx"][k].as_py(), 15.5 + items["dy"][k].as_py()])
            assert np.hypot(*(centroid(stamp) - middle)) < 0.05


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_noise_of_resampled_pixels(tmp_path, factor):
    first = header(turn=0)
    shape = (int(300 / factor), int(300 / factor))
    fits.PrimaryHDU(
        np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32), header(turn=0, FILTER="g")
    ).writeto(tmp_path / "g.fits")
    h = header(turn=10, scale=SCALE * factor, shape=shape, FILTER="r")
    noise = np.random.default_rng(1).normal(0, 2, shape).astype(np.float32)
    fits.HDUList([fits.PrimaryHDU(noise, h), fits.ImageHDU(np.full(shape, 4, np.float32), h, name="VARIANCE")]).writeto(
        tmp_path / "r.fits"
    )
    _, block = read(frames.open(tmp_path, catalogue=listed(first, [110.0], [100.0]), size=96, resample=True))
    flux, ivar = block.arrays["image.flux"][0, 1], block.arrays["image.ivar"][0, 1]
    seen = ivar > 0
    assert seen.mean() > 0.9
    assert (flux[seen] * np.sqrt(ivar[seen])).std() == pytest.approx(1, rel=0.1 if factor > 0.5 else 0.2)


# -- source tables ------------------------------------------------------------------------------------------------
def test_pixel_positions_without_coordinates(tmp_path):
    x, y = spread()
    for band in ("u", "Ks"):
        fits.PrimaryHDU(stars(x, y).astype(np.float32)).writeto(tmp_path / f"{band}.fits")
    catalogue = {"NUMBER": np.arange(12), "X_IMAGE": x + 1, "Y_IMAGE": y + 1, "MAG": np.arange(12.0)}
    source = frames.open(tmp_path, catalogue=catalogue, size=24)
    assert source.schema.observations["image"].bands == ("u", "Ks")
    items, block = read(source)
    assert items["MAG"].to_pylist() == [float(i) for i in items["id"].to_pylist()]
    for stamp, dx, dy in zip(block.arrays["image.flux"], items["dx"].to_pylist(), items["dy"].to_pylist(), strict=True):
        assert np.hypot(*(np.array(centroid(stamp[1])) - 11.5 - (dx, dy))) < 0.05
    assert pickle.loads(pickle.dumps(source)).read(items.slice(0, 2)).ids == block.ids[:2]
    with pytest.raises(InputError, match="frames without coordinates") as caught:
        frames.open(tmp_path, catalogue={"id": ["a"], "ra": [1.0], "dec": [2.0]})
    assert caught.value.keyword == "CTYPE1"


def test_pixels_are_counted_from_the_origin_that_is_told(tmp_path):
    fits.PrimaryHDU(stars([60.0], [50.0]).astype(np.float32)).writeto(tmp_path / "r.fits")
    for origin, names in ((0, ("x", "y")), (1, ("x", "y")), (None, ("X_IMAGE", "Y_IMAGE"))):
        shift = 1 if origin is None else origin
        catalogue = {"id": ["a"], names[0]: [60.0 + shift], names[1]: [50.0 + shift]}
        items, block = read(frames.open(tmp_path, catalogue=catalogue, size=25, pixel_origin=origin))
        assert np.allclose(centroid(block.arrays["image.flux"][0, 0]), 12, atol=0.01)
        assert np.isnan(items["ra"][0].as_py()) and items[names[0]][0].as_py() == 60.0 + shift  # as the table has it


@pytest.mark.parametrize(
    ("catalogue", "files", "words"),
    [
        ({"id": ["a"], "ra": [1.0], "dec": [2.0]}, {"g": SHAPE}, r"columns x and y in the source table"),
        ({"id": ["a"], "x": [9.0], "y": [9.0]}, {"g": SHAPE, "r": (100, 90)}, r"g 200x240, r 100x90"),
        ({"id": ["a"], "x": [9.0], "y": [9.0]}, {"a_g": SHAPE, "b_g": SHAPE}, r"2 frames in g"),
        ({"id": ["a", "b"], "x": ["9", "left"], "y": [9.0, 9.0]}, {"g": SHAPE}, r"no numbers"),
    ],
)
def test_pixel_positions_that_place_nothing(tmp_path, catalogue, files, words):
    for name, shape in files.items():
        fits.PrimaryHDU(np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)).writeto(
            tmp_path / f"{name}.fits"
        )
    with pytest.raises(InputError, match=words):
        frames.open(tmp_path, catalogue=catalogue)


def test_sources_in_pixels_off_the_frame_are_set_aside(tmp_path):
    fits.PrimaryHDU(np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)).writeto(tmp_path / "r.fits")
    catalogue = {"id": list("abc"), "x": [100.0, 5000.0, np.nan], "y": [100.0, 100.0, 100.0]}
    source = frames.open(tmp_path, catalogue=catalogue, size=16)
    assert source.items()["id"].to_pylist() == ["a"]
    reasons = {r.id: r.reason for r in source.rejected()}
    assert "pixel 5000, 100" in reasons["b"] and reasons["c"] == "no position"


def test_tables_of_every_kind(tmp_path):
    folder = frames.example(tmp_path)
    plain = read(frames.open(folder, catalogue=folder / "sources.csv", size=16))[1]
    table = Table.read(folder / "sources.csv")
    for other in (table, pa.table({n: np.asarray(table[n]) for n in table.colnames}), table.to_pandas()):
        block = read(frames.open(str(folder / "field_*.fits"), catalogue=other, size=16))[1]
        np.testing.assert_array_equal(block.arrays["image.flux"], plain.arrays["image.flux"])


@pytest.mark.parametrize(
    ("catalogue", "words"),
    [
        ({"id": ["a"], "mag": [1.0]}, "no positions in the source table"),
        ({"id": [1e18 * 1.3], "ra": [150.0], "dec": [2.0]}, "rounded by a spreadsheet"),
        ({"id": ["a"], "ra": [150.0], "dec": [95.0]}, "beyond the sky"),
        ({"id": [], "ra": [], "dec": []}, "empty"),
    ],
)
def test_bad_tables(tmp_path, catalogue, words):
    with pytest.raises(InputError, match=words):
        frames.open(frames.example(tmp_path), catalogue=catalogue)


# -- bad frames ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bad", [(150.0, 95.0), (510.0, 2.0), (np.inf, 2.0), (150.0, -np.inf)])
def test_an_impossible_position_sets_its_source_aside(tmp_path, bad):
    folder = frames.example(tmp_path)
    sources = Table.read(folder / "sources.csv")
    sources["ra"][3], sources["dec"][3] = bad
    survey = ingest(folder, tmp_path / "s", catalogue=sources, size=16, workers=0, quiet=True)
    assert len(survey) == 39 and "star3" not in set(survey.id)


def test_singular_coordinates(tmp_path):
    h = header()
    h["CD1_1"] = h["CD2_1"] = 0.0
    fits.PrimaryHDU(np.ones(SHAPE, np.float32), h).writeto(tmp_path / "f.fits")
    with pytest.raises(InputError, match=r"f\.fits.*\n?.*singular"):
        frames.open(tmp_path, catalogue={"id": ["a"], "ra": [150.0], "dec": [30.0]})


def test_a_broken_frame_among_good_ones_is_noted(tmp_path):
    h = header()
    fits.PrimaryHDU(np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32), h).writeto(tmp_path / "good.fits")
    (tmp_path / "broken.fits").write_bytes((tmp_path / "good.fits").read_bytes()[:6000])
    source = frames.open(tmp_path, catalogue=listed(h, [100.0], [100.0]), size=8)
    told = next(n for n in source.schema.notes if "1 files cannot be used" in n)
    assert "broken.fits" in told and "; found: " in told and "\n" not in told
    assert read(source)[1].ids == ("s0",)


def test_units_that_differ(tmp_path):
    for i, unit in enumerate(("nJy", "adu")):
        fits.PrimaryHDU(np.ones(SHAPE, np.float32), header(BUNIT=unit)).writeto(tmp_path / f"{i}.fits")
    with pytest.raises(InputError, match="1 in nJy, 1 in adu|1 in adu, 1 in nJy"):
        frames.open(tmp_path, catalogue={"id": ["a"], "ra": [150.0], "dec": [30.0]})


def test_blank_cutouts_are_set_aside(tmp_path):
    h = header()
    image = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)
    image[:, 120:] = np.nan
    image[:, :60] = 0  # the unexposed part of a mosaic
    fits.PrimaryHDU(image, h).writeto(tmp_path / "f.fits")
    _, block = read(frames.open(tmp_path, catalogue=listed(h, [90.0, 180.0, 30.0], [100.0] * 3), size=16))
    assert block.ids == ("s0",) and {r.id for r in block.rejected} == {"s1", "s2"}
    assert all("no measured pixel" in r.reason and r.file.endswith("f.fits") for r in block.rejected)


def _frame_with_zeros(kind, gap):
    """An image of noise in which zeros lie scattered, with a border, a chip gap and a rotated corner without values."""
    rng = np.random.default_rng(3)
    rows, cols = np.mgrid[:512, :600]
    blank = (rows < 9) | (np.abs(cols - 300) < 5) | (rows + cols < 160) if gap else np.zeros((512, 600), bool)
    if kind == "counts":
        image = rng.poisson(0.3, blank.shape)
        blank = cols < (200 if gap else 0)
    else:
        image = rng.normal(0, 10, blank.shape)
        image = image if kind == "plain" else np.round(image / 2.5) * 2.5  # as Rice at quantize_level=4 leaves it
    return np.where(blank, 0, image).astype(np.float32), blank


@pytest.mark.parametrize("kind", ["plain", "quantised", "counts"])
@pytest.mark.parametrize("gap", [False, True])
def test_areas_of_zeros_are_blank_and_scattered_zeros_are_measurements(tmp_path, kind, gap):
    image, blank = _frame_with_zeros(kind, gap)
    fits.PrimaryHDU(image).writeto(tmp_path / "f.fits")
    x, y = (v.ravel() for v in np.meshgrid(np.arange(1, 590, 37), np.arange(0, 510, 31)))
    catalogue = {"id": np.arange(len(x)), "x": x, "y": y}
    source = frames.open(tmp_path, catalogue=catalogue, size=40, pixel_scale=0.2)
    seen = by_id(read(source)[1], "image.ivar")
    right = unlike = 0
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        if str(i) not in seen:
            continue
        window = np.pad(blank, 50, constant_values=True)[b + 30 : b + 70, a + 30 : a + 70]
        right += window.size
        unlike += np.count_nonzero((seen[str(i)][0] == 0) != window)
    assert right > 180 * 1600
    assert unlike <= (1e-3 * right if gap else 0)  # the tips of the corner; a zero of the image beside an area


def test_noise_beside_blank_areas_and_among_zeros_is_that_of_the_sky(tmp_path):
    for kind, sigma in (("plain", 10.0), ("quantised", 10.0), ("counts", 0.3**0.5)):
        image, _ = _frame_with_zeros(kind, kind != "counts")
        fits.PrimaryHDU(image).writeto(tmp_path / "f.fits", overwrite=True)
        source = frames.open(tmp_path, catalogue={"id": ["a"], "x": [320], "y": [300]}, size=16, pixel_scale=0.2)
        ivar = read(source)[1].arrays["image.ivar"]
        assert 1 / np.sqrt(ivar.max()) == pytest.approx(sigma, rel=0.05)


def test_blank_areas_are_those_of_an_opening_of_the_whole_frame(tmp_path):
    from scipy.ndimage import binary_opening

    image, _ = _frame_with_zeros("quantised", True)
    image[200:206, 100:105] = image[300:303, 100:140] = 0  # one as large as it must be, one too narrow
    fits.PrimaryHDU(image).writeto(tmp_path / "f.fits")
    made, _ = collect(tmp_path, group(("f.fits",)), Rules())
    side = _cut._sky(made[0]).blank
    assert side == 5
    wide = binary_opening(np.pad(image == 0, side, mode="symmetric"), np.ones((side, side)))[side:-side, side:-side]
    y0, x0 = (v.ravel() for v in np.mgrid[0:490:7, 0:570:11])
    got = _cut.cut(made[0], y0, x0, (22, 30), Rules())
    expected = np.stack([wide[a : a + 22, b : b + 30] for a, b in zip(y0, x0, strict=True)])
    np.testing.assert_array_equal(got.ivar == 0, expected)


def test_a_rice_frame_loses_no_pixel_that_the_plain_one_has(tmp_path):
    image = np.random.default_rng(0).normal(0, 10, (256, 256)).astype(np.float32)
    hdu = fits.CompImageHDU(image, compression_type="RICE_1", quantize_level=4)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "f.fits")
    assert (pixels(tmp_path / "f.fits") == 0).mean() > 0.05
    source = frames.open(tmp_path, catalogue={"id": ["a"], "x": [128], "y": [128]}, size=200, pixel_scale=0.2)
    assert (read(source)[1].arrays["image.ivar"] > 0).all()


def test_damaged_tiles_are_a_reason_not_an_error(tmp_path):
    h = header()
    x, y = spread(4)
    hdu = fits.CompImageHDU(stars(x, y).astype(np.float32), h, compression_type="RICE_1", tile_shape=(50, 60))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "f.fits.fz")
    source = frames.open(tmp_path, catalogue=listed(h, x, y), size=16)
    items = source.items()
    data = bytearray((tmp_path / "f.fits.fz").read_bytes())
    data[-4000:-3000] = b"\xff" * 1000
    (tmp_path / "f.fits.fz").write_bytes(data)
    block = source.read(items)
    assert len(block.ids) + len(block.rejected) == 4


def test_claims(tmp_path):
    folder = frames.example(tmp_path)
    assert frames.claims(folder) and frames.claims(folder / "field_g.fits")
    assert not frames.claims(folder / "sources.csv")


# -- real frames --------------------------------------------------------------------------------------------------
def test_multiband_frames_without_coordinates(shared_data):
    folder = shared_data / "viking-frames" / "MultiBand"
    rng = np.random.default_rng(0)
    catalogue = {"id": np.arange(20), "x": rng.uniform(100, 2500, 20), "y": rng.uniform(100, 2500, 20)}
    source = frames.open(folder, catalogue=catalogue, size=48, bands=["g", "Ks"])
    image = source.schema.observations["image"]
    assert image.bands == ("g", "Ks") and image.noise == "estimated"
    assert any("lossy" in n for n in source.schema.notes)
    items, block = read(source)
    with fits.open(folder / "Ks.fits") as hdus:
        truth = hdus[1].data
    k = items["id"].to_pylist().index("7")
    x0, y0 = (int(np.ceil(catalogue[n][7] - 24)) for n in ("x", "y"))
    np.testing.assert_array_equal(block.arrays["image.flux"][k, 1], truth[y0 : y0 + 48, x0 : x0 + 48])


def test_sextractor_field_with_its_weights(shared_data):
    folder = shared_data / "sextractor"
    rng = np.random.default_rng(0)
    catalogue = {"id": np.arange(30), "x": rng.uniform(50, 970, 30), "y": rng.uniform(50, 970, 30)}
    source = frames.open(folder, catalogue=catalogue, size=32)
    assert source.schema.observations["image"].noise == "estimated"
    _, block = read(source)
    weight = pixels(folder / "galaxies.weight.fits")
    k = block.ids.index("3")
    x0, y0 = (int(np.ceil(catalogue[n][3] - 16)) for n in ("x", "y"))
    np.testing.assert_array_equal(block.arrays["image.ivar"][k, 0] > 0, weight[y0 : y0 + 32, x0 : x0 + 32] > 0)


def test_sep_image_with_its_catalogue(shared_data):
    folder = shared_data / "sep"
    source = frames.open(folder / "image.fits", catalogue=folder / "image.cat", size=9)
    items, block = read(source)
    rms = np.median(pixels(folder / "rms.fits"))
    ivar = block.arrays["image.ivar"]
    np.testing.assert_allclose(np.median(1 / np.sqrt(ivar[ivar > 0])), rms, rtol=0.1)  # SExtractor's own
    bright = [i for i, f in zip(items["id"].to_pylist(), items["FLUX_AUTO"].to_pylist(), strict=True) if f > 3e4]
    flux = by_id(block, "image.flux")
    for name in bright:
        peak = np.unravel_index(flux[name][0].argmax(), (9, 9))
        assert np.hypot(*np.subtract(peak, 4)) <= 3


def test_the_only_table_in_the_folder_is_the_catalogue(tmp_path):
    folder = frames.example(tmp_path)
    assert frames.open(folder).items().num_rows == 40
    (folder / "other.csv").write_text("id,ra,dec\na,1,2\n")
    with pytest.raises(InputError, match="full frames need a table of sources"):
        frames.open(folder)


@pytest.mark.parametrize("size", [(16, 16), (7, 31), (60, 20), (70, 90)])
def test_windows_are_slices_of_the_padded_frame_wherever_they_lie(tmp_path, size):
    values = np.random.default_rng(1).normal(0, 1, (40, 50)).astype(np.float32)
    fits.PrimaryHDU(values, header(shape=values.shape)).writeto(tmp_path / "f.fits")
    made, _ = collect(tmp_path, group(("f.fits",)), Rules())
    y0, x0 = (v.ravel() for v in np.mgrid[-75:45:7, -95:55:9])
    got, inside = _cut.stamps(made[0].flux, y0, x0, size)
    wide = np.pad(values, 100)
    expected = np.stack([wide[100 + a : 100 + a + size[0], 100 + b : 100 + b + size[1]]
                         for a, b in zip(y0, x0, strict=True)])  # fmt: skip
    assert np.array_equal(got, expected)
    assert np.array_equal(inside, (y0 >= 0) & (x0 >= 0) & (y0 + size[0] <= 40) & (x0 + size[1] <= 50))


@pytest.mark.parametrize("pack", [False, True])
def test_a_damaged_frame_is_told_by_its_checksum(tmp_path, pack):
    h, (x, y) = header(), spread()
    image = stars(x, y).astype(np.float32)
    hdu = fits.CompImageHDU(image, h) if pack else fits.ImageHDU(image, h)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "f.fits", checksum=True)
    source = frames.open(tmp_path / "f.fits", catalogue=listed(h, x, y), size=16)
    assert len(source.read(source.items()).ids) == len(x)
    raw = bytearray((tmp_path / "f.fits").read_bytes())
    raw[-3000] ^= 255
    (tmp_path / "f.fits").write_bytes(raw)
    _cut._open.clear()
    block = source.read(source.items())
    assert not block.ids and all("DATASUM" in r.reason for r in block.rejected)


def test_a_frame_whose_first_axis_is_the_latitude(tmp_path):
    h, (x, y) = header(turn=20.0), spread()
    image = stars(x, y)
    other = header(turn=20.0)
    for key in ("CTYPE", "CRVAL"):
        other[f"{key}1"], other[f"{key}2"] = h[f"{key}2"], h[f"{key}1"]
    for n in (1, 2):
        other[f"CD1_{n}"], other[f"CD2_{n}"] = h[f"CD2_{n}"], h[f"CD1_{n}"]
    fits.PrimaryHDU(image.astype(np.float32), other).writeto(tmp_path / "f.fits")
    source = frames.open(tmp_path / "f.fits", catalogue=listed(h, x, y), size=21)
    block = source.read(source.items())
    assert len(block.ids) == len(x)
    for stamp, dx, dy in zip(block.arrays["image.flux"][:, 0], *(source.items()[c].to_numpy() for c in ("dx", "dy")),
                             strict=True):  # fmt: skip
        assert centroid(stamp) == pytest.approx((10 + dx, 10 + dy), abs=0.05)


def test_spectra_and_single_pixels_are_no_frames(tmp_path):
    for i, shape in enumerate([(300,), (1, 1), (1, 300), (3, 1, 1)]):
        fits.PrimaryHDU(np.zeros(shape, np.float32)).writeto(tmp_path / f"{i}.fits")
        assert not frames.claims(tmp_path / f"{i}.fits")


# -- positions of another kind -----------------------------------------------------------------------------------------
WAYS = {
    "hours": (lambda ra, dec: {"ra": ra / 15, "dec": dec}, {},
              r"seem to be right ascensions in hours(.*\n)*.*ra_unit=hour"),
    "swapped": (lambda ra, dec: {"ra": dec, "dec": np.minimum(ra, 90)}, {}, "no source lies on a frame"),
    "far": (lambda ra, dec: {"ra": ra + 90, "dec": dec}, {}, r"at ra 239(.*\n)*.*centres lie at ra 150"),
    "galactic": (lambda ra, dec: dict(zip(("GLON", "GLAT"), galactic(ra, dec), strict=True)), {},
                 r"keyword GLON: positions in Galactic(.*\n)*.*SkyCoord"),
    "galactic, named": (lambda ra, dec: dict(zip(("GLON", "GLAT"), galactic(ra, dec), strict=True)),
                        {"ra": "GLON", "dec": "GLAT"}, "positions in Galactic"),
    "galactic, called ra": (lambda ra, dec: dict(zip(("ra", "dec"), galactic(ra, dec), strict=True)), {},
                            "seem to be Galactic"),
}  # fmt: skip


def galactic(ra, dec):
    found = SkyCoord(ra, dec, unit="deg").galactic
    return found.l.deg, found.b.deg


@pytest.mark.parametrize("way", WAYS)
def test_sources_that_lie_elsewhere_are_told_where_and_why(tmp_path, way):
    x, y = spread()
    h = header()
    fits.PrimaryHDU(stars(x, y, sky=5.0).astype(np.float32), h).writeto(tmp_path / "f_r.fits")
    make, options, message = WAYS[way]
    with pytest.raises(InputError, match=message):
        frames.open(tmp_path / "f_r.fits", catalogue=Table(make(*sky_of(h, x, y))), size=15, **options).items()
