from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from deepsky.errors import InputError
from deepsky.simulators import ellipticity
from deepsky.simulators._limits import Galaxy, annulus_rms, galaxy_bounds

galsim = pytest.importorskip("galsim", reason="galsim is not installed")


@pytest.fixture(scope="module")
def rotated():
    return ellipticity.simulate(1200, seed=1, keep_noiseless=True)


@pytest.fixture(scope="module")
def plusminus():
    return ellipticity.simulate(400, seed=2, pairs="plusminus", keep_noiseless=True)


def test_images_are_galsims(rotated):
    for i in range(0, 40, 3):
        t = {name: truth.value[i] for name, truth in rotated.truth.items()}
        share, re = float(t["bulge_fraction"]), float(t["re"])
        galaxy = galsim.Exponential(half_light_radius=re, flux=1 - share)
        if share > 0:
            galaxy = galaxy + galsim.Sersic(n=4, half_light_radius=0.5 * re, flux=share)
        for name in ("ellipticity", "shear"):
            galaxy = galaxy.shear(g1=float(t[name][0]), g2=float(t[name][1]))
        psf = galsim.Kolmogorov(fwhm=float(t["psf_fwhm"]))
        psf = psf.shear(g1=float(t["psf_ellipticity"][0]), g2=float(t["psf_ellipticity"][1]))
        seen = galsim.Convolve(galaxy, psf).drawImage(nx=48, ny=48, scale=0.2, offset=t["centre"].tolist()).array
        mine = t["noiseless"][0].numpy()
        assert np.abs(mine / float(t["flux"]) - seen).max() < 1e-3 * seen.max()
        theirs = psf.drawImage(nx=48, ny=48, scale=0.2).array
        stamp = rotated.observations["image"].psf[i, 0].numpy()
        assert np.abs(stamp - theirs / theirs.sum()).max() < 2e-3 * stamp.max()  # each cuts its wings


def test_constants_are_the_challenges(rotated):
    t = {name: truth.value.double().numpy() for name, truth in rotated.truth.items()}
    g = np.hypot(*t["shear"][::2].T)
    assert g.min() >= 0.01 and g.max() <= 0.05
    assert kstest((g**2 - 0.01**2) / (0.05**2 - 0.01**2), "uniform").pvalue > 1e-3  # uniform in area
    assert t["shear"][::2].std() == pytest.approx(annulus_rms(0.01, 0.05), rel=0.05)
    assert t["psf_fwhm"].min() >= 0.45 and t["psf_fwhm"].max() <= 0.95
    assert 0.6 < np.median(t["psf_fwhm"]) < 0.7
    e = np.hypot(*t["psf_ellipticity"].T)
    assert (2 * e / (1 + e**2)).min() >= 0.01 - 1e-6 and (2 * e / (1 + e**2)).max() <= 0.03 + 1e-6
    assert np.abs(t["centre"]).max() <= 1 and kstest(t["centre"][:, 0], "uniform", (-1, 2)).pvalue > 1e-3
    assert t["snr_matched"].min() > 16 and t["snr_matched"].max() < 105
    resolution = t["re"] ** 2 / (t["re"] ** 2 + (t["psf_fwhm"] / 2) ** 2)
    assert resolution.min() >= 1 / 3 - 1e-6
    # counts 10**(0.3 m): numbers above S/N follow S/N**-0.75
    power = t["snr_matched"][::2] ** -0.75
    assert np.median(power) == pytest.approx((17**-0.75 + 100**-0.75) / 2, rel=0.05)


def test_snr_is_that_of_the_image_and_noise_is_one(rotated):
    image, noiseless = rotated.observations["image"], rotated.truth["noiseless"].value
    snr = noiseless.square().sum((1, 2, 3)).sqrt()
    np.testing.assert_allclose(snr, rotated.truth["snr_matched"].value, rtol=1e-5)
    noise = (image.flux - noiseless).double()
    assert float(noise.std()) == pytest.approx(1.0, abs=0.002)
    assert image.flux.shape == (1200, 1, 48, 48) and bool((image.ivar == 1).all())
    edge = noiseless[..., 4:-4, 4:-4].sum((1, 2, 3)) / noiseless.sum((1, 2, 3))
    assert float(edge.quantile(0.05)) > 0.9  # galaxies fit their stamps


def test_a_rotated_pair_has_no_ellipticity_of_its_own(rotated):
    e, pair = rotated.truth["ellipticity"].value, rotated.truth["pair"].value
    assert (e[::2] + e[1::2] == 0).all() and (pair[::2] == pair[1::2]).all() and len(pair.unique()) == 600
    for name in ("shear", "psf_fwhm", "re", "bulge_fraction"):
        value = rotated.truth[name].value
        assert (value[::2] == value[1::2]).all()
    flux = rotated.observations["image"].flux
    assert (
        abs(float(torch.corrcoef(torch.stack([flux[::2, 0, :8].flatten(), flux[1::2, 0, :8].flatten()]))[0, 1])) < 0.01
    )
    seen, g = rotated.truth["sheared"].value, rotated.truth["shear"].value
    mean = 0.5 * (seen[::2] + seen[1::2])
    # the mean of (e + g) / (1 + g* e) over e and -e
    ec, gc = (torch.complex(*v[::2].double().T) for v in (e, g))
    expected = (gc - gc.conj() * ec**2) / (1 - (gc.conj() * ec) ** 2)
    np.testing.assert_allclose(torch.complex(*mean.double().T), expected, atol=1e-6)


def test_plus_and_minus_share_everything_but_the_sign(plusminus):
    t = plusminus.truth
    assert torch.equal(t["shear"].value[::2], -t["shear"].value[1::2])
    for name in ("ellipticity", "centre", "re", "psf_ellipticity"):
        assert torch.equal(t[name].value[::2], t[name].value[1::2])
    noise = plusminus.observations["image"].flux - t["noiseless"].value
    np.testing.assert_allclose(noise[::2], noise[1::2], atol=2e-5)
    flux = t["noiseless"].value.sum((1, 2, 3))
    np.testing.assert_allclose(flux[::2], flux[1::2], rtol=2e-3)  # the flux does not know the shear


def test_a_response_of_one_is_found_from_few_pairs(plusminus):
    """Moments of the noiseless, deconvolved sizes: half the difference of a pair is the shear times the response."""
    t = plusminus.truth
    seen, g, e = t["sheared"].value, t["shear"].value, t["ellipticity"].value
    half = 0.5 * (seen[::2] - seen[1::2])
    # e' = (e + g) / (1 + g* e): the derivative is g - g* e**2
    ec, gc = torch.complex(*e[::2].T), torch.complex(*g[::2].T)
    first = gc - gc.conj() * ec**2
    assert float((torch.complex(*half.T) - first).abs().max()) < 2e-3
    axis = torch.arange(48) - 23.5
    image = t["noiseless"].value[:, 0]
    x, y = axis[None] - t["centre"].value[:, 0, None, None], axis[:, None] - t["centre"].value[:, 1, None, None]
    weight = image * torch.exp(-(x**2 + y**2) / (2 * 3.0**2))
    q = (weight * (x**2 - y**2)).sum((-2, -1)) / (weight * (x**2 + y**2)).sum((-2, -1))
    response = 0.5 * (q[::2] - q[1::2]) / g[::2, 0]
    strong = g[::2, 0].abs() > 0.015
    assert (response[strong] > 0).float().mean() > 0.9  # the image is sheared the way the truth says


def test_a_quadruple_is_a_pair_and_the_pair_turned():
    s = ellipticity.simulate(64, seed=3, pairs="quadruple", keep_noiseless=True)
    first, minus, turned, both = (slice(i, None, 4) for i in range(4))
    t = {name: truth.value for name, truth in s.truth.items()}
    for name in ("psf_ellipticity", "psf_fwhm", "re", "flux", "pair"):
        assert all(torch.equal(t[name][first], t[name][part]) for part in (minus, turned, both))
    assert torch.equal(t["shear"][first], -t["shear"][minus]) and torch.equal(t["shear"][turned], t["shear"][first])
    assert torch.equal(t["ellipticity"][turned], -t["ellipticity"][first])
    x, y = t["centre"][first].T
    assert torch.equal(t["centre"][turned], torch.stack([-y, x], 1))
    noise = s.observations["image"].flux - t["noiseless"]
    np.testing.assert_allclose(torch.rot90(noise[first], 1, (-1, -2)), noise[turned], atol=3e-5)
    np.testing.assert_allclose(noise[turned], noise[both], atol=3e-5)


def test_a_quadruple_turns_galaxy_and_noise_the_same_way():
    s = ellipticity.simulate(64, seed=3, pairs="quadruple", shear=(0.0, 0.0), keep_noiseless=True)
    picture = s.truth["noiseless"].value[:, 0]
    size = picture[::4].square().sum((-2, -1)).sqrt()
    gap = [(torch.rot90(picture[::4], 1, way) - picture[2::4]).square().sum((-2, -1)).sqrt() / size
           for way in ((-1, -2), (-2, -1))]  # fmt: skip
    assert float(gap[0].max()) < 0.05  # the PSF, elongated by 1% to 3%, was not turned
    assert float(gap[1].median()) > 5 * float(gap[0].median())  # the wrong way the centre is elsewhere


@pytest.mark.parametrize(
    ("first", "n", "pairs"),
    [(0, 3, "rotated"), (6, 9, "quadruple"), (29, 40, "rotated"), (5, 1, "plusminus"), (40, 17, "none")],
)
def test_an_object_is_the_same_whatever_is_asked_for(first, n, pairs):
    whole = ellipticity.simulate(80, seed=5, pairs=pairs)
    part = ellipticity.simulate(n, seed=5, first=first, pairs=pairs)
    assert part.id == whole.id[first : first + n]
    assert torch.equal(part.observations["image"].flux, whole.observations["image"].flux[first : first + n])
    for name, truth in part.truth.items():
        assert torch.equal(truth.value, whole.truth[name].value[first : first + n])


def test_fields_share_psf_and_shear():
    s = ellipticity.simulate(64, seed=6, per_field=32)
    g, fwhm = s.truth["shear"].value, s.truth["psf_fwhm"].value
    assert len(g[:32].unique(dim=0)) == 1 and len(fwhm.unique()) == 2
    assert torch.equal(s.observations["image"].psf[0], s.observations["image"].psf[31])
    fixed = ellipticity.simulate(16, seed=6, shear=(0.02, -0.01))
    assert fixed.truth["shear"].value.tolist() == pytest.approx(np.tile([0.02, -0.01], (16, 1)))


def test_the_telescope_blurs_and_keeps_the_flux():
    plain, blurred = (
        ellipticity.simulate(16, seed=7, per_field=16, optics=o).observations["image"].psf for o in (False, True)
    )
    assert (blurred.amax((1, 2, 3)) < plain.amax((1, 2, 3))).all()
    assert blurred.sum((1, 2, 3)).tolist() == pytest.approx([1.0] * 16, abs=1e-4)


def test_the_limit_is_the_bound_of_a_sersic_galaxy_where_there_is_no_bulge():
    s = ellipticity.simulate(64, seed=1)
    t = {name: truth.value for name, truth in s.truth.items()}
    plain = torch.nonzero(t["bulge_fraction"] < 3e-3)[:6, 0]
    assert len(plain) >= 3
    bounds = ellipticity.limit(s[plain])
    for i, bound in zip(plain.tolist(), bounds.tolist(), strict=True):
        e1, e2 = t["sheared"][i].tolist()
        galaxy = Galaxy(re=float(t["re"][i]), n=1.0, e1=e1, e2=e2)
        fwhm, snr = float(t["psf_fwhm"][i]), float(t["snr_matched"][i])
        expected = galaxy_bounds(galaxy, snr, pixel_scale=0.2, fwhm=fwhm, family="kolmogorov")
        assert bound == pytest.approx([expected["e1"], expected["e2"]], rel=0.05)


def test_errors():
    with pytest.raises(InputError, match="great3-ground"):
        ellipticity.simulate(2, seed=0, survey="great3-space")
    with pytest.raises(InputError, match="no such pairs"):
        ellipticity.simulate(2, seed=0, pairs="triples")
    with pytest.raises(InputError, match="a per_field that 2 divides"):
        ellipticity.simulate(2, seed=0, per_field=3)
    with pytest.raises(InputError, match="a per_field that 4 divides"):
        ellipticity.simulate(4, seed=0, per_field=2, pairs="quadruple")
