"""FITS cutouts of every family: what the planes mean, positions, units, bands, and what is refused."""

from __future__ import annotations

import gzip
import pickle
import warnings

import astropy.wcs
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from deepsky.errors import InputError
from deepsky.surveys import _scanned, fits_cutouts

SIZE = 16
RNG = np.random.default_rng(5)
WCS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 8.5, "CRPIX2": 8.5,
       "CD1_1": -0.2 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.2 / 3600}  # fmt: skip


def noise(*shape, sigma=1.0):
    return RNG.normal(0, sigma, shape or (SIZE, SIZE)).astype(np.float32)


def write(path, *hdus, **primary):
    """The first array is the primary HDU; others are (name, array, header) extensions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first = fits.PrimaryHDU(None if hdus[0] is None else hdus[0])
    first.header.update(primary)
    rest = [fits.ImageHDU(a, fits.Header(h), name=n) for n, a, h in hdus[1:]]
    fits.HDUList([first, *rest]).writeto(path, overwrite=True)


def read(source):
    items = source.items()
    return items, source.read(items)


# -- families of surveys ------------------------------------------------------------------------------------------
def test_one_image_a_file(tmp_path):
    truth = [noise() for _ in range(3)]
    for i, t in enumerate(truth):
        write(tmp_path / f"obj{i}.fits", t, **WCS, BUNIT="nJy", FILTER="r", INSTRUME="DECam")
    source = fits_cutouts.open(tmp_path)
    image = source.schema.observations["image"]
    assert (image.bands, image.filters, image.unit, image.quantity) == (("r",), ("CTIO/DECam.r",), "nJy", "f_nu")
    assert image.pixel_scale == pytest.approx(0.2) and image.noise == "unknown"
    items, block = read(source)
    assert items["id"].to_pylist() == ["obj0", "obj1", "obj2"]
    np.testing.assert_allclose(items["ra"], 150, atol=1e-9)
    np.testing.assert_allclose(items["dec"], 2, atol=1e-9)
    np.testing.assert_array_equal(block.arrays["image.flux"][:, 0], truth)
    assert block.arrays["image.ivar"].all() and block.arrays["image.flux"].dtype.isnative


def test_legacy_survey_cube_with_invvar(tmp_path):
    flux, ivar = noise(3, SIZE, SIZE), np.full((3, SIZE, SIZE), 4.0, np.float32)
    ivar[1, :2] = 0
    header = {"BANDS": "grz", "SURVEY": "LegacySurvey", "IMAGETYP": "IMAGE"}
    write(tmp_path / "a.fits", flux, ("", ivar, {"IMAGETYP": "INVVAR"}), **WCS, **header)
    source = fits_cutouts.open(tmp_path)
    image = source.schema.observations["image"]
    assert (image.bands, image.unit, image.noise, image.correlated) == (("g", "r", "z"), "nJy", "measured", True)
    _, block = read(source)
    np.testing.assert_allclose(block.arrays["image.ivar"][0], ivar / 3.631**2 / 1e6, rtol=1e-6)
    seen = ivar > 0
    np.testing.assert_allclose(block.arrays["image.flux"][0][seen], flux[seen] * 3631, rtol=1e-6)
    assert not block.arrays["image.flux"][0][~seen].any()


def test_sdss_frame_in_nanomaggies(tmp_path):
    flux = noise()
    path = tmp_path / "frame-r-1.fits"
    calib = fits.ImageHDU(np.ones(SIZE, np.float32))  # one axis: no image
    sky = fits.BinTableHDU.from_columns([fits.Column("ALLSKY", "4E", array=np.ones((1, 4)))])
    first = fits.PrimaryHDU(flux)
    first.header.update({"BUNIT": "nanomaggy", "FILTER": "r", "ORIGIN": "SDSS", **WCS})
    fits.HDUList([first, calib, sky]).writeto(path)
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].filters == ("SLOAN/SDSS.r",)
    _, block = read(source)
    np.testing.assert_allclose(block.arrays["image.flux"][0, 0], flux * 3631, rtol=1e-6)  # 1 nmgy = 3.631 uJy


def test_hst_sci_err_dq(tmp_path):
    flux, err, dq = noise(), np.full((SIZE, SIZE), 0.5, np.float32), np.zeros((SIZE, SIZE), np.int16)
    err[0, 0], dq[3, 4], flux[5, 5] = 0, 4096, np.nan
    header = {"PHOTFLAM": 7.0e-20, "PHOTPLAM": 8045.0, "BUNIT": "ELECTRONS/S", **WCS}
    write(tmp_path / "j.fits", None, ("SCI", flux, header), ("ERR", err, {}), ("DQ", dq, {}),
          INSTRUME="ACS", FILTER1="CLEAR1L", FILTER2="F814W")  # fmt: skip
    source = fits_cutouts.open(tmp_path)
    image = source.schema.observations["image"]
    assert (image.bands, image.filters) == (("F814W",), ("HST/ACS_WFC.F814W",))
    _, block = read(source)
    nano = 7.0e-20 * 8045.0**2 / 2.99792458e18 * 1e32  # f_nu = f_lambda lambda^2 / c, 1 nJy = 1e-32 erg/s/cm2/Hz
    ivar = block.arrays["image.ivar"][0, 0]
    bad = np.zeros((SIZE, SIZE), bool)
    bad[0, 0] = bad[3, 4] = bad[5, 5] = True
    np.testing.assert_array_equal(ivar == 0, bad)
    np.testing.assert_allclose(ivar[~bad], 4 / nano**2, rtol=1e-5)
    np.testing.assert_allclose(block.arrays["image.flux"][0, 0][~bad], flux[~bad] * nano, rtol=1e-5)
    assert fits_cutouts.open(tmp_path, mask_bits=[16]).read(source.items()).arrays["image.ivar"][0, 0, 3, 4] > 0


def test_drizzled_weights_are_scaled_to_the_scatter_of_the_sky(tmp_path):
    flux = noise(64, 64, sigma=3.0)
    weight = np.full((64, 64), 1200.0, np.float32)  # seconds, no inverse variance
    weight[:, 32:] *= 4
    flux[:, 32:] /= 2
    write(tmp_path / "drz.fits", None, ("SCI", flux, WCS), ("WHT", weight, {}), ("CTX", weight, {}))
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].noise == "estimated"
    ivar = read(source)[1].arrays["image.ivar"][0, 0]
    np.testing.assert_allclose(1 / np.sqrt(ivar[:, :32]), 3.0, rtol=0.06)
    np.testing.assert_allclose(1 / np.sqrt(ivar[:, 32:]), 1.5, rtol=0.06)


def test_hsc_mask_bits_by_name(tmp_path):
    flux, variance, mask = noise(), np.full((SIZE, SIZE), 4.0, np.float32), np.zeros((SIZE, SIZE), np.int32)
    mask[0], mask[1], mask[2], variance[3, 0] = 1 << 5, 1 << 1, 1 << 3, np.nan
    bits = {"MP_BAD": 0, "MP_SAT": 1, "MP_CR": 3, "HIERARCH MP_DETECTED": 5}
    write(tmp_path / "hsc.fits", None, ("IMAGE", flux, WCS), ("MASK", mask, bits), ("VARIANCE", variance, {}),
          FLUXMAG0=63095734448.0194, FILTER="HSC-I2", INSTRUME="HSC")  # fmt: skip
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].filters == ("Subaru/HSC.i",)
    _, block = read(source)
    seen = block.arrays["image.ivar"][0, 0] > 0
    assert seen[0].all()  # detected is no defect
    assert not seen[1].any() and not seen[2].any() and not seen[3, 0]
    assert block.columns["saturated"][0] == pytest.approx(1 / SIZE)
    factor = 3631e9 / 63095734448.0194
    np.testing.assert_allclose(block.arrays["image.ivar"][0, 0][0], 0.25 / factor**2, rtol=1e-5)
    chosen = fits_cutouts.open(tmp_path, mask_bits=["detected"])
    seen = read(chosen)[1].arrays["image.ivar"][0, 0] > 0
    assert not seen[0].any() and seen[2].all()
    seen = read(fits_cutouts.open(tmp_path, mask_bits=["8"]))[1].arrays["image.ivar"][0, 0] > 0
    assert seen[0].all() and not seen[2].any()
    with pytest.raises(InputError, match="known: BAD, CR, DETECTED, SAT"):
        fits_cutouts.open(tmp_path, mask_bits=["NOPE"])
    write(tmp_path / "none" / "a.fits", flux)
    assert any("no mask was found" in n for n in fits_cutouts.open(tmp_path / "none", mask_bits=[1]).schema.notes)


@pytest.mark.parametrize("bands", ["GRI", "I", "GRIZY"])
def test_hsc_bands_by_the_names_of_the_files(tmp_path, bands):
    for i in range(3):
        for b in bands:
            write(tmp_path / f"{i}-cutout-HSC-{b}-9813-pdr2_wide.fits", noise(), **WCS)
    expected = tuple(b if b == "Y" else b.lower() for b in bands)
    for pattern in (None, "{id}-cutout-HSC-{band}-9813-pdr2_wide.fits"):
        image = fits_cutouts.open(tmp_path, pattern=pattern).schema.observations["image"]
        assert image.bands == expected and image.filters == tuple(f"Subaru/HSC.{b}" for b in expected)
    for i in range(3):
        write(tmp_path / "johnson" / f"{i}_R.fits", noise(), **WCS)
    assert fits_cutouts.open(tmp_path / "johnson").schema.observations["image"].bands == ("R",)


def test_des_extensions(tmp_path):
    weight = np.full((SIZE, SIZE), 0.25, np.float32)
    mask = np.zeros((SIZE, SIZE), np.int32)
    write(tmp_path / "d.fits", None, ("SCI", noise(), {**WCS, "MAGZERO": 30.0}), ("MSK", mask, {}),
          ("WGT", weight, {}), FILTER="g DECam SDSS c0001 4720.0 1520.0")  # fmt: skip
    image = fits_cutouts.open(tmp_path).schema.observations["image"]
    assert (image.bands, image.noise, image.unit) == (("g",), "estimated", "nJy")


def test_extensions_named_by_band(tmp_path):
    flux = {b: noise() for b in "gri"}
    hdus = [
        (f"{r}_{b}", f if r == "SCI" else np.full_like(f, 2), {}) for b, f in flux.items() for r in ("SCI", "SIGMA")
    ]
    write(tmp_path / "a.fits", None, *hdus)
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].bands == ("g", "r", "i")
    _, block = read(source)
    np.testing.assert_array_equal(block.arrays["image.flux"][0], np.stack([flux[b] for b in "gri"]))
    np.testing.assert_allclose(block.arrays["image.ivar"], 0.25)


def test_cubes_in_another_order_are_reordered_by_name(tmp_path):
    cube = noise(3, SIZE, SIZE)
    write(tmp_path / "a.fits", cube, BAND0="g", BAND1="r", BAND2="z")
    write(tmp_path / "b.fits", cube[::-1], BAND0="z", BAND1="r", BAND2="g")
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].bands == ("g", "r", "z")
    _, block = read(source)
    np.testing.assert_array_equal(block.arrays["image.flux"][0], block.arrays["image.flux"][1])
    chosen = fits_cutouts.open(tmp_path, bands=["z", "g"])
    np.testing.assert_array_equal(read(chosen)[1].arrays["image.flux"][1], cube[[2, 0]])
    with pytest.raises(InputError, match="known: g, r, z"):
        fits_cutouts.open(tmp_path, bands=["g", "i"])


def test_wrong_number_of_bands(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.fits", noise(3 if i else 2, SIZE, SIZE))
    _, block = read(fits_cutouts.open(tmp_path))
    assert block.ids == ("1", "2") and "wrong number of bands" in block.rejected[0].reason
    for i in range(3):
        write(tmp_path / f"{i}.fits", noise(3 if i else 2, SIZE, SIZE), BANDS="grz" if i else "gz")
    source = fits_cutouts.open(tmp_path)
    assert any("1 of 3 objects have no band r" in n for n in source.schema.notes)
    ivar = read(source)[1].arrays["image.ivar"]
    assert not ivar[0, 1].any() and ivar.sum() == 8 * SIZE**2  # no band is taken for another


def test_band_axis_last(tmp_path):
    cube = noise(SIZE, SIZE, 4)
    write(tmp_path / "a.fits", cube)
    source = fits_cutouts.open(tmp_path, bands=["u", "g", "r", "i"])
    np.testing.assert_array_equal(read(source)[1].arrays["image.flux"][0], cube.transpose(2, 0, 1))


# -- several files an object --------------------------------------------------------------------------------------
def test_files_by_band_a_missing_band_has_no_ivar(tmp_path):
    truth = {}
    for i in range(4):
        for b in "gri":
            if (i, b) != (2, "r"):
                truth[i, b] = noise()
                write(tmp_path / f"gal_{i}_{b}.fits", truth[i, b])
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].bands == ("g", "r", "i")
    assert any("1 of 4 objects have no file in band r" in n for n in source.schema.notes)
    _, block = read(source)
    assert block.ids == ("gal_0", "gal_1", "gal_2", "gal_3")
    for (i, b), t in truth.items():
        np.testing.assert_array_equal(block.arrays["image.flux"][i, "gri".index(b)], t)
    ivar = block.arrays["image.ivar"]
    assert not ivar[2, 1].any() and ivar.sum() == 11 * SIZE**2


def test_pattern_as_given(tmp_path):
    for i in range(2):
        for b in ("x1", "x2"):
            write(tmp_path / f"im-{b}-no{i}.fits", noise())
    (tmp_path / "other.fits").write_bytes((tmp_path / "im-x1-no0.fits").read_bytes())
    source = fits_cutouts.open(tmp_path, pattern="im-{band}-{id}.fits")
    assert source.schema.observations["image"].bands == ("x1", "x2")
    assert source.items()["id"].to_pylist() == ["no0", "no1"]
    assert any("1 files do not match" in n for n in source.schema.notes)
    with pytest.raises(InputError, match="no file matches the pattern"):
        fits_cutouts.open(tmp_path, pattern="{id}_{band}.fit")


def test_sibling_planes(tmp_path):
    flux, sigma, mask, psf = noise(), np.full((SIZE, SIZE), 2.0), np.zeros((SIZE, SIZE)), np.ones((5, 5), np.float32)
    mask[4, 4] = 1
    for name, plane in (("", flux), ("_sigma", sigma), ("_mask", mask), ("_psf", psf), ("_seg", mask)):
        write(tmp_path / f"g7{name}.fits", plane)
    write(tmp_path / "g8_sigma.fits", sigma)
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].psf == (5, 5)
    items, block = read(source)
    assert items["id"].to_pylist() == ["g7"]
    assert [r.id for r in source.rejected()] == ["g8_sigma.fits"]
    expected = np.full((SIZE, SIZE), 0.25)
    expected[4, 4] = 0
    np.testing.assert_allclose(block.arrays["image.ivar"][0, 0], expected)
    np.testing.assert_allclose(block.arrays["image.psf"][0, 0], 1 / 25, rtol=1e-6)


def test_noise_that_one_object_lacks(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.fits", noise())
        if i:
            write(tmp_path / f"{i}_sigma.fits", np.ones((SIZE, SIZE)))
    _, block = read(fits_cutouts.open(tmp_path))
    assert block.ids == ("1", "2") and "no noise" in block.rejected[0].reason


def test_class_folders_and_band_folders(tmp_path):
    for kind in ("lens", "nolens"):
        for b, folder in (("R", "Band1"), ("G", "Band2")):
            for i in range(2):
                write(tmp_path / kind / folder / f"image_{b}-{kind}{i}.fits", noise())
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].bands == ("G", "R")
    items = source.items().to_pydict()
    assert items["class"] == ["lens", "lens", "nolens", "nolens"]
    assert source.schema.columns["class"].role == "label"


# -- many objects a file ------------------------------------------------------------------------------------------
def test_one_object_an_hdu(tmp_path):
    stamps = [noise() for _ in range(20)]
    write(tmp_path / "stamps.fits", None, *((f"GAL{i}", s, {}) for i, s in enumerate(stamps)))
    items, block = read(fits_cutouts.open(tmp_path))
    assert items["id"].to_pylist()[:2] == ["stamps-GAL0", "stamps-GAL1"]
    np.testing.assert_array_equal(block.arrays["image.flux"][:, 0], stamps)


def test_one_object_a_plane(tmp_path):
    cube = {b: noise(30, SIZE, SIZE) for b in "gr"}
    for b, c in cube.items():
        write(tmp_path / f"sky_{b}.fits", c)
    with pytest.raises(InputError, match="objects='plane'"):
        fits_cutouts.open(tmp_path)
    source = fits_cutouts.open(tmp_path, objects="plane")
    _, block = read(source)
    np.testing.assert_array_equal(block.arrays["image.flux"], np.stack([cube["g"], cube["r"]], 1))


# -- positions and scales -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"RA": 12.5, "DEC": -3.0}, (12.5, -3.0)),
        ({"RA": "12:30:00", "DEC": "-03:30:00"}, (187.5, -3.5)),
        ({"RA": "12 30 00", "DEC": "+3 30 00"}, (187.5, 3.5)),
        ({"RA": "150.25", "DEC": "2.5"}, (150.25, 2.5)),
        ({"OBJRA": -10.0, "OBJDEC": 1.0}, (350.0, 1.0)),
        ({**WCS, "RA": 150.0001, "DEC": 2.0001}, (150.0001, 2.0001)),
        ({**WCS, "RA": 151.0, "DEC": 2.0}, (150.0, 2.0)),  # of the telescope, outside the cutout
    ],
)
def test_position_from_the_header(tmp_path, header, expected):
    write(tmp_path / "a.fits", noise(), **header)
    items = fits_cutouts.open(tmp_path).items()
    assert (items["ra"][0].as_py(), items["dec"][0].as_py()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("ctype", ["TAN", "SIN", "ZEA"])
def test_position_by_the_coordinates_far_from_the_reference_pixel(tmp_path, ctype):
    from astropy.wcs import WCS as AstropyWCS

    header = {
        **WCS,
        "CTYPE1": f"RA---{ctype}",
        "CTYPE2": f"DEC--{ctype}",
        "CRPIX1": -4000.0,
        "CRPIX2": 3000.0,
        "CRVAL2": 60.0,
    }
    write(tmp_path / "a.fits", noise(), **header)
    items = fits_cutouts.open(tmp_path).items()
    truth = AstropyWCS(header).all_pix2world([[7.5, 7.5]], 0)[0]
    assert (items["ra"][0].as_py(), items["dec"][0].as_py()) == pytest.approx(tuple(truth), abs=1e-8)


@pytest.mark.parametrize(
    "more",
    [
        {"LONPOLE": 180.0, "LATPOLE": 2.0},
        {"LONPOLE": 150.0},
        {"RADESYS": "FK5", "EQUINOX": 2000.0},
        {"RADESYS": "J2000"},
        {"EQUINOX": "J2000"},
        {"RADESYS": "FK4", "EQUINOX": 1950.0},
        {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-3, "B_0_2": 2e-3},
        {"PV1_1": 1.0, "PV2_1": 1.01, "PV1_0": 0.0, "PV2_0": 0.001},
    ],
)
def test_the_centre_is_where_astropy_has_it(tmp_path, more):
    header = WCS | {"CRPIX1": -300.0, "CRPIX2": 411.0} | more
    if "A_ORDER" in more:
        header |= {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"}
    write(tmp_path / "a.fits", noise(), **header)
    items = fits_cutouts.open(tmp_path).items()
    told = {k: v for k, v in header.items() if v != "J2000"}  # of which astropy makes nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = astropy.wcs.WCS(fits.Header(told)).pixel_to_world((SIZE - 1) / 2, (SIZE - 1) / 2).icrs
    found = SkyCoord(items["ra"][0].as_py(), items["dec"][0].as_py(), unit="deg")
    assert found.separation(expected).arcsec < 0.03  # FK5 is taken for ICRS where the projection is plain


def test_data_that_are_not_those_of_their_checksum_are_set_aside(tmp_path):
    for i in range(3):
        fits.PrimaryHDU(noise(), fits.Header(WCS)).writeto(tmp_path / f"obj{i}.fits", checksum=True)
    raw = bytearray((tmp_path / "obj1.fits").read_bytes())
    raw[2880 + 100] ^= 1
    (tmp_path / "obj1.fits").write_bytes(raw)
    whole = (tmp_path / "obj2.fits").read_bytes()
    edited = whole.replace(b" 150.0", b" 151.0")
    assert edited != whole
    (tmp_path / "obj2.fits").write_bytes(edited)  # an edit of the header is no damage
    _, block = read(fits_cutouts.open(tmp_path))
    assert block.ids == ("obj0", "obj2")
    assert "DATASUM" in block.rejected[0].reason


def test_many_headers_are_shared_out_and_say_the_same(tmp_path, monkeypatch):
    for i in range(11):
        write(tmp_path / f"obj{i:02d}.fits", noise(), **WCS | {"CRVAL1": 10.0 * i, "LONPOLE": 179.0})
    (tmp_path / "obj04.fits").write_bytes((tmp_path / "obj05.fits").read_bytes()[:3000])
    write(tmp_path / "obj07.fits", noise(), **WCS | {"CD1_1": 0.0})
    alone = fits_cutouts.open(tmp_path)
    expected = alone.items(), alone.rejected()
    monkeypatch.setattr(fits_cutouts, "ALL", 4)
    monkeypatch.setattr(fits_cutouts, "PIECE", 3)
    shared = fits_cutouts.open(tmp_path)
    assert shared.items().equals(expected[0]) and shared.items().num_rows == 9
    assert shared.rejected() == expected[1] and [r.id for r in shared.rejected()] == ["obj04", "obj07"]


def test_right_ascension_in_hours_is_refused(tmp_path):
    write(tmp_path / "a.fits", noise(), **WCS, RA=10.0, DEC=2.0)  # the coordinates say 150 deg
    source = fits_cutouts.open(tmp_path)
    assert source.items().num_rows == 0
    assert "plain number of hours" in source.rejected()[0].reason and "keyword RA" in source.rejected()[0].reason
    assert fits_cutouts.open(tmp_path, position="wcs").items()["ra"][0].as_py() == pytest.approx(150)


def test_units_of_ra_in_its_comment(tmp_path):
    for name, comment in (("rad", "radians"), ("hour", "[hours] of the target")):
        first = fits.PrimaryHDU(noise())
        first.header["RA"], first.header["DEC"] = (1.0, comment), (0.5, comment)
        (tmp_path / name).mkdir()
        first.writeto(tmp_path / name / "a.fits")
    items = fits_cutouts.open(tmp_path / "rad").items()
    assert items["ra"][0].as_py() == pytest.approx(57.29577951) and items["dec"][0].as_py() == pytest.approx(
        28.64788976
    )
    assert "hours" in fits_cutouts.open(tmp_path / "hour").rejected()[0].reason


def test_singular_coordinates_are_refused(tmp_path):
    write(tmp_path / "good.fits", noise(), **WCS)
    write(tmp_path / "flat.fits", noise(), **{**WCS, "CD1_1": 0.0})
    with pytest.raises(InputError, match=r"flat\.fits.*\n?.*singular") as caught:
        fits_cutouts.open(tmp_path / "flat.fits")
    assert caught.value.keyword == "CD1_1"


def test_one_singular_file_is_set_aside(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.fits", noise(), **(WCS if i else {**WCS, "CD1_1": 0.0}))
    source = fits_cutouts.open(tmp_path)
    assert source.items()["id"].to_pylist() == ["1", "2"] and "singular" in source.rejected()[0].reason
    free = fits_cutouts.open(tmp_path, position="none")
    assert len(read(free)[1].ids) == 3 and np.isnan(free.items()["ra"].to_numpy()).all()


def test_pixel_scales_that_vary_are_a_column(tmp_path):
    for i, scale in enumerate((0.2, 0.3)):
        write(tmp_path / f"{i}.fits", noise(), **{**WCS, "CD1_1": -scale / 3600, "CD2_2": scale / 3600})
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].pixel_scale is None
    np.testing.assert_allclose(source.items()["pixel_scale"], [0.2, 0.3])


def test_bands_of_different_pixel_scale_are_refused(tmp_path):
    for b, scale in (("g", 0.2), ("r", 0.4)):
        write(tmp_path / f"a_{b}.fits", noise(), **{**WCS, "CD1_1": -scale / 3600, "CD2_2": scale / 3600})
    with pytest.raises(InputError, match=r"found: g 0\.2, r 0\.4"):
        fits_cutouts.open(tmp_path)


# -- values -------------------------------------------------------------------------------------------------------
def test_sentinel_nan_saturation(tmp_path):
    flux = noise()
    flux[0, 0], flux[1, 1], flux[2, 2] = 100, np.nan, 5000
    write(tmp_path / "a.fits", flux, SATURATE=4000.0)
    _, block = read(fits_cutouts.open(tmp_path, sentinel=100))
    unmeasured = np.argwhere(block.arrays["image.ivar"][0, 0] == 0).tolist()
    assert unmeasured == [[0, 0], [1, 1], [2, 2]]
    assert np.isfinite(block.arrays["image.flux"]).all()
    assert block.columns["saturated"][0] == pytest.approx(1 / SIZE**2)
    _, block = read(fits_cutouts.open(tmp_path, saturation=1e9))
    assert block.arrays["image.ivar"].sum() == SIZE**2 - 1


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_types_and_byte_order(tmp_path, dtype):
    values = RNG.integers(0, 200, (SIZE, SIZE)).astype(dtype)
    write(tmp_path / "a.fits", values)
    source = fits_cutouts.open(tmp_path)
    flux = read(source)[1].arrays["image.flux"]
    expected = dtype if dtype in ("uint8", "int16", "uint16") else "float32"
    assert flux.dtype == expected == source.schema.observations["image"].dtype and flux.dtype.isnative
    np.testing.assert_array_equal(flux[0, 0], values.astype(expected))


def test_bscale_bzero_blank_as_astropy_reads_them(tmp_path):
    hdu = fits.PrimaryHDU(RNG.integers(-100, 100, (SIZE, SIZE)).astype(np.int16))
    hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = 0.5, 20.0, -7
    hdu.data[3, 3] = -7
    raw = hdu.data.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hdu = fits.PrimaryHDU(raw)
        hdu.writeto(tmp_path / "a.fits")
        fits.setval(tmp_path / "a.fits", "BSCALE", value=0.5)
        fits.setval(tmp_path / "a.fits", "BZERO", value=20.0)
        fits.setval(tmp_path / "a.fits", "BLANK", value=-7)
        truth = fits.getdata(tmp_path / "a.fits")
    _, block = read(fits_cutouts.open(tmp_path))
    seen = block.arrays["image.ivar"][0, 0] > 0
    np.testing.assert_array_equal(seen, np.isfinite(truth))
    np.testing.assert_allclose(block.arrays["image.flux"][0, 0][seen], truth[seen])


def test_compressed_files(tmp_path):
    flux = noise()
    write(tmp_path / "plain" / "a.fits", flux)
    (tmp_path / "zip").mkdir()
    (tmp_path / "zip" / "a.fits.gz").write_bytes(gzip.compress((tmp_path / "plain" / "a.fits").read_bytes()))
    (tmp_path / "tile").mkdir()
    hdu = fits.CompImageHDU(flux, compression_type="RICE_1", quantize_level=100, tile_shape=(8, 8))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "tile" / "a.fits")
    np.testing.assert_array_equal(read(fits_cutouts.open(tmp_path / "zip"))[1].arrays["image.flux"][0, 0], flux)
    source = fits_cutouts.open(tmp_path / "tile")
    assert any("lossy" in n for n in source.schema.notes)
    np.testing.assert_allclose(read(source)[1].arrays["image.flux"][0, 0], flux, atol=0.05)


def test_faint_fluxes_keep_their_weight(tmp_path):
    flux = noise(sigma=1e-20)
    write(tmp_path / "a.fits", flux, ("SIGMA", np.full_like(flux, 1e-20), {}))
    _, block = read(fits_cutouts.open(tmp_path))
    np.testing.assert_array_equal(block.arrays["image.flux"][0, 0], flux)
    np.testing.assert_allclose(block.arrays["image.ivar"], 1e40, rtol=1e-5)  # beyond float32


@pytest.mark.parametrize(
    ("header", "unit", "factor"),
    [
        ({"BUNIT": "nJy"}, "nJy", 1),
        ({"BUNIT": "uJy"}, "nJy", 1e3),
        ({"BUNIT": "mJy"}, "nJy", 1e6),
        ({"BUNIT": "10*nanoJansky"}, "nJy", 10),
        ({"BUNIT": "MJy/sr", "PIXAR_SR": 2.5e-13}, "nJy", 1e15 * 2.5e-13),
        ({"BUNIT": "MJy/sr", **WCS}, "nJy", 1e15 * (0.2 / 206264.806) ** 2),
        ({"MAGZERO": 31.4 + 2.5}, "nJy", 0.1),  # 31.4 is the AB magnitude of 1 nJy
        ({"BUNIT": "adu", "MAGZPT": 31.4}, "nJy", 1),
        ({"MAGZPT": 31.4, "INSTRUME": "VIRCAM", "FILTER": "Ks"}, "nJy", 10 ** (-0.4 * 1.827)),
        ({"MAGZPT": 31.4, "MAGSYS": "Vega"}, "", 1),  # of an unknown filter
        ({"BUNIT": "electrons/s"}, "electron / s", 1),
        ({"BUNIT": "adu"}, "adu", 1),
        ({"PHOTFNU": 1e-9, "BUNIT": "ELECTRONS", "EXPTIME": 10.0}, "nJy", 0.1),
        ({"BUNIT": "K"}, "K", 1),
        ({"BUNIT": "no such unit"}, "", 1),
    ],
)
def test_units(tmp_path, header, unit, factor):
    flux = 10 + noise()
    write(tmp_path / "a.fits", flux, **header)
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].unit == unit
    np.testing.assert_allclose(read(source)[1].arrays["image.flux"][0, 0], flux * factor, rtol=2e-4)


def test_units_that_do_not_convert(tmp_path):
    write(tmp_path / "a.fits", noise(), BUNIT="adu")
    with pytest.raises(InputError, match="does not convert") as caught:
        fits_cutouts.open(tmp_path, unit="nJy")
    assert caught.value.keyword == "BUNIT" and "zero_point" in (caught.value.fix or "")
    source = fits_cutouts.open(tmp_path, unit="uJy", zero_point=23.9)
    assert source.schema.observations["image"].unit == "uJy"


def test_an_object_in_another_unit_is_set_aside(tmp_path):
    for i in range(4):
        write(tmp_path / f"{i}.fits", noise(), BUNIT="nJy" if i else "adu")
    source = fits_cutouts.open(tmp_path)
    _, block = read(source)
    assert block.ids == ("1", "2", "3") and "another unit" in block.rejected[0].reason
    assert any("1 of 4 images are in another unit" in n for n in source.schema.notes)


# -- shapes -------------------------------------------------------------------------------------------------------
def test_mixed_shapes(tmp_path):
    flux = noise(20, 20)
    write(tmp_path / "a.fits", flux)
    write(tmp_path / "b.fits", noise(11, 20))
    with pytest.raises(InputError, match=r"mixed shapes without a rule\n  found: 1 of 11x20, 1 of 20x20"):
        fits_cutouts.open(tmp_path)
    _, block = read(fits_cutouts.open(tmp_path, size=15))
    np.testing.assert_array_equal(block.arrays["image.flux"][0, 0], flux[2:17, 2:17])
    assert (block.arrays["image.ivar"][1, 0] > 0).sum() == 11 * 15


STRAYS = [
    (noise(30, 30), {"FILTER": "r"}, "an image of another shape"),
    (noise(), {"FILTER": "z"}, "another band than the survey's"),
    (noise(), {"FILTER": "r", "CD1_1": -0.4 / 3600, "CD2_2": 0.4 / 3600}, "another pixel scale"),
    (noise(2, SIZE, SIZE), {}, "bands without names"),
]


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(("pixels", "header", "words"), STRAYS)
@pytest.mark.parametrize("name", ["a", "z"])  # the first file looked at, or the last
def test_one_stray_file_is_set_aside_and_changes_nothing(tmp_path, monkeypatch, pixels, header, words, name, many):
    if many:  # a sample is looked at
        monkeypatch.setattr(_scanned, "ALL", 20)
        monkeypatch.setattr(_scanned, "SAMPLE", 24)
    for i in range(39):
        write(tmp_path / f"obj{i:02d}.fits", noise(), **WCS, FILTER="r")
    alone = fits_cutouts.open(tmp_path).schema.observations["image"]
    assert alone.bands == ("r",) and alone.pixel_scale == pytest.approx(0.2)
    write(tmp_path / f"{name}.fits", pixels, **WCS | header)
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"] == alone
    _, block = read(source)
    bad = (*source.rejected(), *block.rejected)
    assert len(block.ids) == 39 and [r.id for r in bad] == [name] and words in bad[0].reason


def test_fewer_than_95_percent_decide_nothing(tmp_path):
    for i in range(10):
        write(tmp_path / f"obj{i}.fits", noise(*((30, 30) if i == 0 else (24, 24))), **WCS, FILTER="z" if i else "r")
    with pytest.raises(InputError, match=r"9 of 24x24, 1 of 30x30.*\n.*95%.*\n.*--size 24\)"):
        fits_cutouts.open(tmp_path)
    assert fits_cutouts.open(tmp_path, size=24).schema.observations["image"].bands == ("r", "z")
    write(tmp_path / "obj0.fits", noise(24, 24), FILTER="z", **WCS | {"CD1_1": -0.3 / 3600, "CD2_2": 0.3 / 3600})
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].pixel_scale is None
    assert any("pixel scales of 0.2 to 0.3 arcsec: column pixel_scale" in n for n in source.schema.notes)


def test_a_band_that_few_objects_have_is_left_out(tmp_path):
    for i in range(40):
        for band in "grz" if i == 3 else "gr":
            write(tmp_path / f"obj{i}_{band}.fits", noise())
    write(tmp_path / "obj40_z.fits", noise())
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].bands == ("g", "r")
    assert any("1 of 40 objects have other bands too (z): left out" in n for n in source.schema.notes)
    assert not any("in band z" in n for n in source.schema.notes)
    _, block = read(source)
    assert len(block.ids) == 40 and block.arrays["image.ivar"].all()
    assert "found: z\n  expected: g, r" in block.rejected[0].reason
    assert fits_cutouts.open(tmp_path, bands=["g", "r", "z"]).schema.observations["image"].bands == ("g", "r", "z")


def test_a_number_in_place_of_a_name_is_no_band_among_named_ones(tmp_path):
    for i, bands in enumerate(("gr", "gr", "gr", "g")):
        pixels = noise(*((len(bands),) if len(bands) > 1 else ()), SIZE, SIZE)
        write(tmp_path / f"{i}.fits", pixels, BANDS=bands)
    write(tmp_path / "none.fits", noise())
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].bands == ("g", "r")
    _, block = read(source)
    seen = block.arrays["image.ivar"].any(axis=(2, 3))
    assert block.ids == ("0", "1", "2", "3") and seen[3].tolist() == [True, False]
    assert "bands without names" in block.rejected[0].reason


@pytest.mark.parametrize(("old", "new"), [(9, 5), (5, 9), (8, 5), (9, 4), (4, 9), (5, 8), (8, 4)])
def test_the_centre_stays_in_the_centre(old, new):
    from deepsky.surveys._scanned import place

    image = np.zeros((old, old))
    image[(old - 1) // 2, (old - 1) // 2] = 1
    out, _ = place(image, (new, new))
    assert np.argwhere(out).tolist() == [[(new - 1) // 2] * 2]


# -- bad files ----------------------------------------------------------------------------------------------------
def edited(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


BAD = {
    "empty": lambda p: p.write_bytes(b""),
    "truncated": lambda p: p.write_bytes(p.read_bytes()[:2880 + 500]),
    "no END": lambda p: edited(p, b"END" + b" " * 77, b" " * 80),
    "BITPIX": lambda p: edited(p, b"-32", b"-31"),
    "NAXIS": lambda p: edited(p, b"NAXIS1  =                   16", b"NAXIS1  =           1999999999"),
    "no image": lambda p: fits.HDUList([fits.PrimaryHDU()]).writeto(p, overwrite=True),
    "NaN": lambda p: write(p, np.full((SIZE, SIZE), np.nan, np.float32)),
    "constant": lambda p: write(p, np.zeros((SIZE, SIZE), np.float32)),
    "html": lambda p: p.write_text("<html>503</html>"),
    "several": lambda p: write(p, noise(), ("", noise(), {}), ("", noise(), {})),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_file_is_set_aside_with_its_name(tmp_path, kind):
    for i in range(3):
        write(tmp_path / f"good{i}.fits", noise())
    write(tmp_path / "bad.fits", noise())
    BAD[kind](tmp_path / "bad.fits")
    source = fits_cutouts.open(tmp_path)
    _, block = read(source)
    rejected = [*source.rejected(), *block.rejected]
    assert block.ids == ("good0", "good1", "good2") and [r.id for r in rejected] == ["bad"]
    assert "bad.fits" in rejected[0].reason and "found:" in rejected[0].reason


def test_nothing_but_bad_files(tmp_path):
    (tmp_path / "a.fits").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.fits: the file is empty"):
        fits_cutouts.open(tmp_path)


def test_gzip_bomb(tmp_path):
    write(tmp_path / "good.fits", noise())
    header = fits.Header({"SIMPLE": True, "BITPIX": 8, "NAXIS": 2, "NAXIS1": 20000, "NAXIS2": 20000})
    with gzip.open(tmp_path / "bomb.fits.gz", "wb", compresslevel=9) as out:
        out.write(header.tostring().encode())
        for _ in range(400):
            out.write(bytes(10**6))
    source = fits_cutouts.open(tmp_path)
    assert "bomb" in source.rejected()[0].reason


def test_nan_blocks_are_allowed(tmp_path):
    flux = noise(32, 32)
    flux[:20] = np.nan
    write(tmp_path / "a.fits", flux)
    _, block = read(fits_cutouts.open(tmp_path))
    assert block.arrays["image.ivar"].mean() == pytest.approx(12 / 32)


def test_a_dead_band_is_not_measured(tmp_path):
    cube = noise(3, SIZE, SIZE)
    cube[1] = 0
    write(tmp_path / "a.fits", cube)
    ivar = read(fits_cutouts.open(tmp_path))[1].arrays["image.ivar"][0]
    assert ivar[0].all() and not ivar[1].any() and ivar[2].all()


@pytest.mark.parametrize(
    ("role", "value"), [("SIGMA", -1.0), ("VARIANCE", -1.0), ("IVAR", -1.0), ("IVAR", np.inf), ("IVAR", np.nan)]
)
def test_noise_that_is_none_is_refused(tmp_path, role, value):
    plane = np.ones((SIZE, SIZE), np.float32)
    plane[2, 3] = value
    write(tmp_path / "a.fits", noise(), (role, plane, {}))
    _, block = read(fits_cutouts.open(tmp_path))
    assert not block.ids and "a.fits" in block.rejected[0].reason


def test_a_mask_of_another_shape(tmp_path):
    write(tmp_path / "a.fits", noise(), ("MASK", np.zeros((8, 8), np.int32), {}))
    assert "no map of this image" in read(fits_cutouts.open(tmp_path))[1].rejected[0].reason


def test_unnamed_images_can_be_named(tmp_path):
    flux = noise()
    write(tmp_path / "a.fits", noise(), ("", flux, {}), ("", np.full_like(flux, 4), {}))
    _, block = read(fits_cutouts.open(tmp_path, planes={"1": "flux", "2": "variance"}))
    np.testing.assert_array_equal(block.arrays["image.flux"][0, 0], flux)
    np.testing.assert_allclose(block.arrays["image.ivar"], 0.25)


def test_a_folder_with_many_other_files(tmp_path):
    write(tmp_path / "deep" / "a.fits", noise())
    for i in range(3000):
        (tmp_path / f"{i}.log").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    source = fits_cutouts.open(tmp_path)
    assert source.items()["id"].to_pylist() == ["a"]
    assert any("3,000 other files ignored (3,000 .log)" in n for n in source.schema.notes)


def test_unicode_names_and_travel(tmp_path):
    write(tmp_path / "银河 α.fits", noise())
    source = fits_cutouts.open(tmp_path)
    items = source.items()
    there = pickle.loads(pickle.dumps(source))
    assert there.read(items).ids == ("银河 α",)


def test_the_example_is_claimed(tmp_path):
    folder = fits_cutouts.example(tmp_path)
    assert fits_cutouts.claims(folder)
    image = fits_cutouts.open(folder).schema.observations["image"]
    assert (image.bands, image.noise) == (("g", "r"), "measured")


# -- real files ---------------------------------------------------------------------------------------------------
def test_lens_challenge_ground(shared_data):
    source = fits_cutouts.open(shared_data / "lens-challenge-samples" / "ground_based", sentinel=100)
    image = source.schema.observations["image"]
    assert (image.bands, image.size, image.pixel_scale) == (
        ("U", "G", "R", "I"),
        (101, 101),
        pytest.approx(0.2, rel=1e-4),
    )
    items, block = read(source)
    assert items.num_rows == 12 and not block.rejected
    assert items["class"].to_pylist().count("lens") == 6
    row = block.ids.index("imageSDSS-100003")
    path = shared_data / "lens-challenge-samples/ground_based/lens/Band1/imageSDSS_R-100003.fits"
    with fits.open(path) as hdus:
        truth, header = hdus[0].data.copy(), hdus[0].header
        np.testing.assert_allclose(items["ra"][row].as_py(), np.degrees(header["RA"]) % 360)  # radians, by its comment
    seen = block.arrays["image.ivar"][row, 2] > 0
    np.testing.assert_array_equal(seen, truth != 100)
    np.testing.assert_allclose(block.arrays["image.flux"][row, 2][seen], truth[seen])


def test_bands_are_spelt_as_the_user_asks(tmp_path):
    for name in ("a_U", "a_R", "b_U", "b_R"):
        write(tmp_path / f"{name}.fits", np.full((SIZE, SIZE), ord(name[-1]), np.float32) + noise(), **WCS)
    source = fits_cutouts.open(tmp_path, bands=["u", "r"])
    assert source.schema.observations["image"].bands == ("u", "r")
    assert any("are called" in n for n in source.schema.notes)
    flux = read(source)[1].arrays["image.flux"]
    np.testing.assert_allclose(flux.mean((0, 2, 3)), (ord("U"), ord("R")), atol=0.3)
    assert fits_cutouts.open(tmp_path).schema.observations["image"].bands == ("U", "R")
    with pytest.raises(InputError, match="a band that no file has"):  # U cannot be both
        fits_cutouts.open(tmp_path, bands=["u", "U"])
    write(tmp_path / "c_u.fits", noise(), **WCS)  # u is another band than U here
    assert set(fits_cutouts.open(tmp_path, bands=["u"]).schema.observations["image"].bands) == {"u"}


def test_lens_challenge_space(shared_data):
    source = fits_cutouts.open(shared_data / "lens-challenge-samples" / "space_based")
    image = source.schema.observations["image"]
    assert image.bands == ("VIS",) and image.pixel_scale == pytest.approx(0.1, rel=1e-4)
    assert len(read(source)[1].ids) == 16


def test_kids_galaxies(shared_data):
    folder = shared_data / "kids-galaxies" / "SDSS"
    with pytest.raises(InputError, match="mixed shapes"):
        fits_cutouts.open(folder)
    source = fits_cutouts.open(folder, size=101)
    image = source.schema.observations["image"]
    assert (image.psf, image.noise) == ((25, 25), "measured")
    _, block = read(source)
    assert len(block.ids) == 10 and not block.rejected
    row = block.ids.index("G265911")
    sigma = fits.getdata(folder / "G265911sigma.fits")
    ivar = block.arrays["image.ivar"][row, 0]
    np.testing.assert_allclose(ivar, 1 / sigma**2, rtol=1e-5)
    np.testing.assert_allclose(block.arrays["image.psf"].sum((1, 2, 3)), 1, rtol=1e-5)


def test_des_backgrounds(shared_data):
    source = fits_cutouts.open(shared_data / "des-backgrounds", objects="plane")
    assert source.schema.observations["image"].bands == ("g", "r", "i", "z", "Y")
    _, block = read(source)
    assert len(block.ids) == 46
    np.testing.assert_array_equal(
        block.arrays["image.flux"][5, 3], fits.getdata(shared_data / "des-backgrounds/z.fits")[5]
    )


def test_real_files_of_the_fits_standard_are_read_or_refused(shared_data):
    read_in = refused = 0
    for path in sorted((shared_data / "fits-conformance").rglob("*.fits*")):
        if path.stat().st_size > 2_000_000:
            continue
        try:
            source = fits_cutouts.open(path)
            block = source.read(source.items())
        except InputError as error:
            assert path.name in str(error)
            refused += 1
            continue
        assert all(np.isfinite(a).all() for a in block.arrays.values())
        read_in += 1
    assert read_in > 10 and refused > 10


def test_a_hundred_thousand_names_take_seconds():
    import time

    from deepsky.surveys._names import group

    def seconds(n):
        names = [f"tile{i % 100}/obj_{i:07d}.fits" for i in range(n)]
        start = time.process_time()
        assert len(group(names).ids) == n
        return time.process_time() - start

    assert seconds(20_000) < 30 * max(seconds(2_000), 0.01)  # linear, not quadratic


def test_band_folders_at_different_depths(tmp_path):
    for i in range(3):
        for kind in ("lens", "nolens"):
            for n, band in enumerate("gr"):
                write(tmp_path / "ground" / kind / f"Band{n}" / f"{kind}{i}_{band}.fits", noise(), **WCS)
            write(tmp_path / "space" / kind / f"far{kind}{i}_VIS.fits", noise(), **WCS)
    items, block = read(fits_cutouts.open(tmp_path))
    assert items.num_rows == 12 and set(items["class"].to_pylist()) == {"lens", "nolens"}
    seen = block.arrays["image.ivar"].any(axis=(2, 3))
    assert block.arrays["image.flux"].shape[1] == 3
    far = np.array([i.startswith("far") for i in block.ids])
    np.testing.assert_array_equal(seen[far], [[False, False, True]] * 6)
    np.testing.assert_array_equal(seen[~far], [[True, True, False]] * 6)


def test_noise_of_a_minority_is_left_out_and_told(tmp_path):
    for i in range(5):
        write(tmp_path / f"obj{i}_sci.fits", noise(), **WCS)
    for i in range(2):
        write(tmp_path / f"obj{i}_sigma.fits", np.ones((SIZE, SIZE), np.float32))
    source = fits_cutouts.open(tmp_path)
    assert source.schema.observations["image"].noise == "unknown"
    assert any("only 2 of 5 objects have noise (sigma)" in n for n in source.schema.notes)
    assert len(read(source)[1].ids) == 5


def test_maps_of_the_background_are_no_objects(tmp_path):
    for name in ("image", "rms", "back"):
        write(tmp_path / f"{name}.fits", np.abs(noise()) + 1, **WCS)
    items, block = read(fits_cutouts.open(tmp_path))
    assert items.num_rows == 1 and fits_cutouts.open(tmp_path).schema.observations["image"].noise == "measured"
    assert len(block.ids) == 1


def test_pixels_that_are_not_square_are_refused(tmp_path):
    write(tmp_path / "a.fits", noise(), **WCS | {"CD1_1": -0.4 / 3600})
    with pytest.raises(InputError, match=r"not square\n.*0.4 x 0.2 arcsec"):
        fits_cutouts.open(tmp_path)
    assert fits_cutouts.open(tmp_path, pixel_scale=0.28).schema.observations["image"].pixel_scale == 0.28


@pytest.mark.parametrize("unit", ["mag/arcsec2", "mag", "mag(AB)"])
def test_magnitudes_are_no_flux(tmp_path, unit):
    write(tmp_path / "a.fits", noise(), **WCS, BUNIT=unit)
    with pytest.raises(InputError, match="pixels in magnitudes"):
        fits_cutouts.open(tmp_path)
    assert fits_cutouts.open(tmp_path, zero_point=25.0).schema.observations["image"].unit == "nJy"


def test_the_latitude_may_be_the_first_axis(tmp_path):
    swapped = {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 2.0, "CRVAL2": 150.0, "CD1_1": 0.0,
               "CD1_2": 0.2 / 3600, "CD2_1": -0.2 / 3600, "CD2_2": 0.0}  # fmt: skip
    write(tmp_path / "a.fits", noise(), **WCS | swapped)
    items = fits_cutouts.open(tmp_path).items()
    assert items["ra"][0].as_py() == pytest.approx(150) and items["dec"][0].as_py() == pytest.approx(2)


def test_noise_goes_with_the_image_of_its_version(tmp_path):
    planes = []
    for version, band in enumerate("gr", 1):
        sigma = np.full((SIZE, SIZE), 2.0**version, np.float32)
        planes += [("SCI", noise(), {"FILTER": band, "EXTVER": version}), ("ERR", sigma, {"EXTVER": version})]
    write(tmp_path / "a.fits", None, *planes)
    _, block = read(fits_cutouts.open(tmp_path))
    assert block.arrays["image.ivar"][0].max(axis=(1, 2)).tolist() == [1 / 4, 1 / 16]
