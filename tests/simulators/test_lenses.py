from __future__ import annotations

import numpy as np
import pytest
import torch

from deepsky.errors import InputError
from deepsky.io import blake_key
from deepsky.simulators import lenses
from deepsky.simulators._limits import detection_auroc, likelihood_ratio
from deepsky.simulators._noise import njy
from deepsky.simulators._surveys import bands

pytest.importorskip("galsim", reason="galsim is not installed")


@pytest.fixture(scope="module")
def kids():
    return lenses.simulate(64, seed=1, survey="kids", size=61, keep_noiseless=True)


@pytest.fixture(scope="module")
def lsst():
    return lenses.simulate(300, seed=2, survey="lsst", keep_noiseless=True)


def same(a, b):
    return torch.equal(torch.nan_to_num(a.double(), nan=-9e9), torch.nan_to_num(b.double(), nan=-9e9))


@pytest.mark.parametrize(("first", "n"), [(0, 5), (17, 1), (60, 20), (131, 64)])
def test_an_object_is_the_same_whatever_is_asked_for(lsst, first, n):
    part = lenses.simulate(n, seed=2, first=first, survey="lsst", keep_noiseless=True)
    assert part.id == lsst.id[first : first + n]
    assert torch.equal(part.observations["image"].flux, lsst.observations["image"].flux[first : first + n])
    for name, truth in part.truth.items():
        assert same(truth.value, lsst.truth[name].value[first : first + n]), name


def test_threads_change_nothing(lsst):
    torch.set_num_threads(2)
    try:
        part = lenses.simulate(8, seed=2, survey="lsst")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(part.observations["image"].flux, lsst.observations["image"].flux[:8])


def test_another_seed_is_another_sky(lsst):
    other = lenses.simulate(100, seed=3, survey="lsst")
    assert not (other.truth["kind"].value == lsst.truth["kind"].value[:100]).all()
    edge = torch.stack(
        [s.observations["image"].flux[:100, :, :4].flatten() for s in (other, lsst)]
    )  # nearly noise alone
    assert abs(float(torch.corrcoef(edge.clamp(-40, 40))[0, 1])) < 4 / edge.shape[1] ** 0.5


def test_what_a_sample_says(kids):
    image = kids.observations["image"]
    assert image.flux.shape == (64, 4, 61, 61) and image.flux.dtype == torch.float32
    assert image.ivar.shape == (64, 4, 1, 1) and bool((image.ivar > 0).all())
    assert image.bands == tuple(f"Paranal/OmegaCAM.{b}_SDSS" for b in "ugri") and image.unit == "nJy"
    assert image.pixel_scale.tolist() == pytest.approx([0.2] * 64)
    assert image.psf is not None and image.psf.sum((-2, -1)).flatten().tolist() == pytest.approx([1.0] * 256, abs=1e-5)
    assert bool(torch.isfinite(image.flux).all())
    assert len(set(kids.id)) == 64 and int(np.uint64(kids.key[3].item() & (2**64 - 1))) == blake_key(kids.id[3])
    assert bool(torch.isnan(kids.ra).all())
    one = kids[5]
    assert one.truth["arcs"].value.shape == (4, 61, 61) and one.truth["ellipticity"].moves == "spin2"


def test_truths_are_in_range(lsst):
    t = {name: truth.value for name, truth in lsst.truth.items()}
    is_lens = t["is_lens"] == 1
    assert lsst.truth["is_lens"].classes == ("other", "lens") and torch.equal(is_lens, t["kind"] == 0)
    for name in ("theta_e", "z_lens", "z_source", "magnification", "source_magnitude", "velocity_dispersion"):
        assert torch.equal(torch.isnan(t[name]), ~is_lens), name
    assert (t["snr_arc"][~is_lens] == 0).all()
    lens = {name: value[is_lens] for name, value in t.items()}
    assert lens["theta_e"].min() >= 0.3 and lens["theta_e"].max() <= 3.0
    assert lens["magnification"].min() > 2 and lens["snr_arc"].min() >= 5 * (1 - 1e-4)
    assert lens["source_magnitude"].min() >= 22 and lens["source_magnitude"].max() <= 27
    assert (lens["z_source"] > lens["z_lens"] + 0.19).all() and lens["z_source"].max() <= 3
    assert lens["centre"].abs().max() <= 0.5
    assert torch.hypot(*lens["ellipticity"].T).max() <= (1 - 0.3) / (1 + 0.3) + 1e-6
    assert lens["shear"].square().sum(1).mean().sqrt() == pytest.approx(0.03 * 2**0.5, rel=0.25)


def test_shares_of_lenses_and_of_what_resembles_them():
    kinds = lenses._kinds((np.arange(60_000) + 0.5) / 60_000, 0.5, False)
    share = np.bincount(kinds, minlength=6) / 60_000
    np.testing.assert_allclose(share, [1 / 2, 1 / 6, 1 / 12, 1 / 12, 1 / 12, 1 / 12], atol=1e-4)
    for fraction, expected in ((0.0, 0), (1.0, 16)):
        s = lenses.simulate(16, seed=4, survey="lsst", lens_fraction=fraction)
        assert int(s.truth["is_lens"].value.sum()) == expected


def test_noise_is_what_ivar_says(kids):
    image, noiseless = kids.observations["image"], kids.truth["noiseless"].value
    pull = (image.flux - noiseless) * image.ivar.sqrt()
    faint = noiseless * image.ivar.sqrt() < 0.2
    assert float(pull[faint].std()) == pytest.approx(1.0, abs=0.01)
    assert abs(float(pull[faint].mean())) < 0.01
    bright = noiseless * image.ivar.sqrt() > 50
    assert float(pull[bright].std()) > 1.05  # the photons of the galaxy itself


def test_snr_and_magnification_are_those_of_the_arcs(kids):
    t, ivar = kids.truth, kids.observations["image"].ivar
    lens = (t["is_lens"].value == 1) & (t["theta_e"].value < 1.5)  # within a stamp of 12 arcsec
    arcs = t["arcs"].value
    snr = (arcs.square() * ivar).sum((1, 2, 3)).sqrt()
    np.testing.assert_allclose(snr[lens], t["snr_arc"].value[lens], rtol=5e-3)
    assert (arcs[t["is_lens"].value == 0] == 0).all()
    flux = arcs[:, 2].sum((-2, -1))[lens]  # in r, the band of the source's magnitude
    ratio = flux / torch.from_numpy(njy(t["source_magnitude"].value[lens].double().numpy()))
    np.testing.assert_allclose(ratio / t["magnification"].value[lens], 1.0, atol=0.12)
    assert float((ratio / t["magnification"].value[lens]).median()) == pytest.approx(1.0, abs=0.03)


def test_the_mass_points_where_the_light_does(kids):
    t = kids.truth
    lens = torch.nonzero((t["is_lens"].value == 1) & (torch.hypot(*t["ellipticity"].value.T) > 0.1))[:, 0]
    light = (t["noiseless"].value - t["arcs"].value)[lens, 3]
    axis = (torch.arange(61) - 30.0) * 0.2
    x, y = (
        axis[None] - t["centre"].value[lens, 0, None, None] * 0.2,
        axis[:, None] - t["centre"].value[lens, 1, None, None] * 0.2,
    )
    window = light * torch.exp(-(x**2 + y**2) / 2)
    total = window.sum((-2, -1))
    assert ((window * x).sum((-2, -1)) / total).abs().median() < 0.02  # the galaxy is where it is said to be
    xx, yy, xy = ((window * w).sum((-2, -1)) / total for w in (x * x, y * y, x * y))
    measured = torch.complex(xx - yy, 2 * xy)
    truth = torch.complex(*t["ellipticity"].value[lens].T)
    turn = torch.angle(measured * truth.conj()).abs() / 2
    assert float(turn.median()) < 0.2  # rad; the mass is turned by 10 degrees of scatter


def test_galaxies_without_a_source_are_those_that_lens():
    s = lenses.simulate(400, seed=6, survey="lsst", size=15, keep_noiseless=True)
    galaxy = (s.truth["noiseless"].value - s.truth["arcs"].value)[:, 0, 6:9, 6:9].sum((-2, -1))
    from scipy.stats import ks_2samp

    kind = s.truth["kind"].value
    assert ks_2samp(galaxy[kind == 0].log(), galaxy[kind == 1].log()).pvalue > 0.01


def test_the_likelihood_ratio_reaches_its_closed_form(lsst):
    t, image = lsst.truth, lsst.observations["image"]
    faint = (t["is_lens"].value == 1) & (t["snr_arc"].value < 12)
    arcs, ivar = t["arcs"].value[faint].double(), image.ivar[faint].double()
    noise = (image.flux - t["noiseless"].value)[faint].double()
    without = likelihood_ratio(arcs.numpy(), noise.numpy(), ivar.numpy())
    with_arcs = likelihood_ratio(arcs.numpy(), (noise + arcs).numpy(), ivar.numpy())
    np.testing.assert_allclose(with_arcs - without, t["snr_arc"].value[faint], rtol=1e-2)
    weak = 0.2  # as if the arcs were five times fainter: the statistic is linear
    auroc = (without[None] + weak * (with_arcs - without)[:, None] > without[None]).mean()
    shifted = (weak * (with_arcs - without)[:, None] + without[:, None] > without[None]).mean()
    expected = detection_auroc(weak * t["snr_arc"].value[faint].numpy())
    assert auroc == 1.0  # the same noise in both
    assert shifted == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(("survey", "size", "names"), [("kids", 64, 4), ("euclid", 40, 1), ("lsst-stack", 45, 1)])
def test_surveys_and_sizes(survey, size, names):
    s = lenses.simulate(3, seed=7, survey=survey, size=size)
    assert s.observations["image"].flux.shape == (3, names, size, size)


def test_painting_onto_real_sky():
    sky = torch.zeros(5, 4, 31, 31) + torch.arange(5.0).view(5, 1, 1, 1) * 1000
    ivar = torch.full((5, 4, 31, 31), 0.01)
    ivar[:, :, 0, 0] = 0
    sky[:, :, 0, 0] = torch.nan
    s = lenses.simulate(12, seed=8, size=31, background=(sky, ivar), keep_noiseless=True)
    image = s.observations["image"]
    base = (image.flux - s.truth["noiseless"].value).median(-1).values.median(-1).values
    level = (base / 1000).round()
    assert len(level.unique()) >= 3  # cutouts are taken by chance
    assert (base - 1000 * level).abs().max() < 20
    assert ((image.ivar == 0).sum((-2, -1)) == 1).all()  # what was not measured moves with the cutout
    corners = [image.ivar[:, 0, i, j] == 0 for i in (0, -1) for j in (0, -1)]
    assert sum(bool(c.any()) for c in corners) >= 3 and bool(torch.stack(corners).any(0).all())
    again = lenses.simulate(3, seed=8, first=5, size=31, background=(sky, ivar))
    assert torch.equal(again.observations["image"].flux, image.flux[5:8])


def test_painting_onto_the_sky_of_a_survey(shared_data):
    folder = shared_data / "des-backgrounds"
    if not folder.is_dir():
        pytest.skip("no real sky")
    from astropy.io import fits

    real = np.stack([fits.getdata(folder / f"{b}.fits") for b in "griz"], 1).astype(np.float32)
    real *= njy(30.0)  # the zero point of DES coadds
    spread = 1.4826 * np.median(np.abs(real - np.median(real, (2, 3), keepdims=True)), (2, 3), keepdims=True)
    setup = lenses.Setup(bands("des"), 91, bands("des", ("r",))[0])
    ratio = np.median(spread, 0).ravel() / [b.sigma for b in setup.bands]
    assert (ratio > 0.7).all() and (ratio < 3).all()  # real noise is that of the constants, in fewer exposures
    s = lenses.simulate(12, seed=3, survey=setup, background=(real, spread**-2), keep_noiseless=True)
    rest = s.observations["image"].flux - s.truth["noiseless"].value
    # what is left is one of the real images, turned, but for photons of the painted light
    for image in rest[:4]:
        turned = torch.stack([torch.rot90(x, k, (-2, -1)) for x in (image, image.flip(-1)) for k in range(4)])
        distance = np.abs(turned[:, None, 3].numpy() - real[None, :, 3]).mean((2, 3))
        assert distance.min() < 0.3 * np.median(distance)


def test_painting_onto_real_galaxies():
    real = torch.randn(6, 4, 31, 31, generator=torch.Generator().manual_seed(1)) * 5
    asked = []

    def cutouts(numbers):
        asked.extend(numbers.tolist())
        return real[numbers % 6], torch.full((len(numbers), 4, 1, 1), 0.04)

    s = lenses.simulate(10, seed=9, size=31, deflector=cutouts, keep_noiseless=True)
    is_lens = s.truth["is_lens"].value == 1
    assert asked == list(range(10)) and 0 < int(is_lens.sum()) < 10
    assert set(s.truth["kind"].value.tolist()) == {0, 1}
    plain = s.observations["image"].flux[~is_lens]
    assert torch.equal(plain, real[torch.arange(10) % 6][~is_lens])  # a galaxy as it is
    added = s.observations["image"].flux - real[torch.arange(10) % 6]
    difference = (added - s.truth["arcs"].value)[is_lens]
    assert float(difference.abs().max()) < 0.5 * float(s.truth["arcs"].value.max())


def test_errors_say_what_is_known():
    with pytest.raises(InputError, match=r"no lens simulation of this survey[\s\S]*euclid"):
        lenses.simulate(1, seed=0, survey="euclids")
    with pytest.raises(InputError, match="a background or a deflector"):
        lenses.simulate(1, seed=0, background=(0, 0), deflector=(0, 0))
    with pytest.raises(InputError, match="out of range"):
        lenses.simulate(0, seed=0)
    with pytest.raises(InputError, match="another shape"):
        lenses.simulate(1, seed=0, size=31, background=(torch.zeros(2, 4, 30, 31), torch.ones(2, 4, 1, 1)))
    with pytest.raises(InputError, match="not finite"):
        lenses.simulate(1, seed=0, size=31, background=(torch.full((2, 4, 31, 31), torch.inf), torch.ones(2, 4, 1, 1)))
    with pytest.raises(InputError, match="one pixel scale"):
        lenses.Setup((*bands("kids"), *bands("euclid")), 31, bands("kids")[0])
    with pytest.raises(InputError, match="no such lens after many attempts"):
        lenses.simulate(4, seed=0, survey="lsst", theta_e=(40.0, 50.0))
