"""Normalisation: the stretches are their formulas, fitted on training objects alone, blind to what was not measured."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from tests import made_up

from deepsky import normalise, tasks
from deepsky.errors import InputError
from deepsky.normalise import WIDTH, Normalise, fit
from deepsky.sample import Image, Row, Sample
from deepsky.training import train


def sample_of(part) -> Sample:
    n = len(part.flux)
    zero = torch.zeros(n, dtype=torch.float64)
    return Sample(tuple(map(str, range(n))), torch.arange(n), zero, zero, {"image": part})


def image(flux, ivar=None, **options) -> Sample:
    flux = torch.as_tensor(flux, dtype=torch.float32)
    ivar = torch.ones(len(flux), 1, 1, 1) if ivar is None else torch.as_tensor(ivar, dtype=torch.float32)
    bands, scale = tuple("ugrizy"[: flux.shape[1]]), torch.full((len(flux),), 0.2)
    return sample_of(Image(flux, ivar, bands=bands, pixel_scale=scale, **options))


@pytest.fixture
def noisy():
    """Sky of one sigma 0.5 and 2 in two bands, under some sources."""
    g = np.random.default_rng(0)
    sigma = np.array([0.5, 2.0])[:, None, None]
    flux = g.normal(size=(300, 2, 16, 16)) * sigma + (g.random((300, 2, 16, 16)) < 0.1) * 30 + 1
    return flux.astype(np.float32), np.broadcast_to(1 / sigma**2, (300, 2, 1, 1)).astype(np.float32)


# -- formulas -------------------------------------------------------------------------------------------------------
FORMULAS = {
    "asinh": lambda f, s: np.arcsinh(f / s),
    "log": lambda f, s: np.sign(f) * np.log(1 + np.abs(f) / s),
    "linear": lambda f, s: f,
}


@pytest.mark.parametrize("stretch", FORMULAS)
def test_a_stretch_is_its_formula_with_zero_mean_and_unit_variance(noisy, stretch):
    flux, ivar = noisy
    sample = image(flux, ivar)
    made = fit([sample], "image", stretch)
    torch.testing.assert_close(made.sigma, torch.tensor([0.5, 2.0]))
    expected = FORMULAS[stretch](flux.astype(np.float64), np.array([0.5, 2.0])[:, None, None])
    mean, std = (f(expected, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
    x = made(sample).numpy()
    np.testing.assert_allclose(x, (expected - mean) / std, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(x.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(x.std((0, 2, 3)), 1, rtol=1e-4)


def test_asinh_is_right_from_the_tiniest_to_the_largest_flux_and_with_gradients():
    x = torch.tensor([0.0, 1e-30, 1e-8, 1e-3, 0.5, 1.0, 30.0, 1e4, 1e12])
    x = torch.cat([x, -x])
    found = normalise._asinh(x.clone())
    np.testing.assert_allclose(found, np.arcsinh(x.numpy().astype(np.float64)), rtol=5e-7, atol=0)
    x.requires_grad_(True)
    normalise._asinh(x).sum().backward()
    np.testing.assert_allclose(x.grad, 1 / np.sqrt(1 + x.detach().numpy().astype(np.float64) ** 2), rtol=1e-5)


def test_many_objects_in_blocks_are_as_one_by_one(noisy, monkeypatch):
    flux, ivar = noisy
    sample = image(flux, ivar)
    made = fit([sample], "image")
    whole = made(sample)
    monkeypatch.setattr(normalise, "BLOCK", 2000)
    assert torch.equal(made(sample), whole)
    assert torch.equal(torch.cat([made(sample[i : i + 1]) for i in range(7)]), whole[:7])


# -- which stretch, and whose sigma -------------------------------------------------------------------------------
def test_auto_is_asinh_where_there_is_a_sky_and_linear_for_pictures_and_rows(noisy):
    flux, ivar = noisy
    assert fit([image(flux, ivar)], "image").stretch == "asinh"
    assert fit([image(flux)], "image").stretch == "asinh"
    eight_bit = np.random.default_rng(1).integers(0, 256, (50, 3, 8, 8))
    assert fit([image(eight_bit)], "image").stretch == "linear"
    counts = np.random.default_rng(1).poisson(900, (50, 3, 8, 8))  # whole numbers too, but of a detector
    assert fit([image(counts)], "image").stretch == "asinh"
    row = Row(torch.randn(60, 3), torch.ones(60, 3), names=("a", "b", "c"), units=("",) * 3)
    assert fit([sample_of(row)], "image").stretch == "linear"


def test_a_sky_that_no_ivar_tells_is_estimated_from_the_pixels(noisy):
    flux, _ = noisy
    flux = flux + np.linspace(0, 50, 300, dtype=np.float32)[:, None, None, None]  # every object on a sky of its own
    ivar = np.ones((300, 2, 16, 16), np.float32)
    ivar[:, :, :2] = 0
    made = fit([image(flux, ivar)], "image")
    # a tenth of the pixels are sources; the median of differences does not mind them much
    np.testing.assert_allclose(made.sigma, [0.5, 2.0], rtol=0.3)
    assert (made.sigma[1] / made.sigma[0]).item() == pytest.approx(4, rel=0.15)


def test_numbers_in_a_row_have_a_robust_sigma():
    g = torch.Generator().manual_seed(0)
    flux = torch.randn(5000, 2, generator=g) * torch.tensor([3.0, 0.1])
    flux[:50] = 1e4
    row = Row(flux, torch.ones(5000, 2), names=("a", "b"), units=("", ""))
    np.testing.assert_allclose(fit([sample_of(row)], "image", "asinh").sigma, [3.0, 0.1], rtol=0.06)


# -- what was not measured ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stretch", ["asinh", "log", "linear"])
@pytest.mark.parametrize("value", [0.0, 1e30, float("nan"), float("inf")])
def test_what_was_not_measured_acts_on_nothing(noisy, stretch, value):
    flux, _ = noisy
    ivar = np.full((300, 2, 16, 16), 4.0, np.float32)
    ivar[:, :, 3:7, 3:7] = 0
    filled = flux.copy()
    filled[:, :, 3:7, 3:7] = value
    zero = flux.copy()
    zero[:, :, 3:7, 3:7] = 0
    made, plain = fit([image(filled, ivar)], "image", stretch), fit([image(zero, ivar)], "image", stretch)
    assert all(torch.equal(a, b) for a, b in zip(made.buffers(), plain.buffers(), strict=True))
    x = made(image(filled, ivar))
    assert torch.equal(x, plain(image(zero, ivar))) and torch.isfinite(x).all()
    assert (x[:, :, 3:7, 3:7] == 0).all() and x[:, :, 8:].abs().min() >= 0


def test_an_object_without_any_measurement_is_all_zero(noisy):
    flux, ivar = noisy
    ivar = ivar.copy()
    ivar[5] = 0
    x = fit([image(flux, ivar)], "image")(image(flux, ivar))
    assert (x[5] == 0).all() and x[6].abs().sum() > 0


def test_a_band_without_any_measurement_is_named():
    ivar = np.ones((20, 3, 1, 1), np.float32)
    ivar[:, 1] = 0
    with pytest.raises(InputError, match="nothing was measured in this band") as error:
        fit([image(np.random.default_rng(0).normal(size=(20, 3, 8, 8)), ivar)], "image")
    assert "keyword g" in str(error.value)


def test_a_feature_that_was_never_measured_is_zero_and_its_mask_says_so():
    flux = torch.randn(30, 3)
    ivar = torch.ones(30, 3)
    ivar[:, 1] = 0
    flux[:, 1] = float("nan")
    row = Row(flux, ivar, names=("a", "b", "c"), units=("",) * 3)
    made = fit([sample_of(row)], "image")
    x = made(sample_of(row))
    assert made.channels == 6 and x.shape == (30, 6) and torch.isfinite(x).all()
    assert (x[:, 1] == 0).all() and (x[:, 4] == 0).all() and (x[:, [3, 5]] == 1).all()


def test_a_constant_band_stays_constant_and_small():
    """0.1 has no exact float32: its variance is rounding, and dividing by it would make noise of order one."""
    flux = np.random.default_rng(0).normal(size=(200, 3, 12, 12)).astype(np.float32)
    flux[:, 1] = 0.1
    flux[:, 2] = 60000 + flux[:, 0] * 100
    x = fit([image(flux)], "image", "linear")(image(flux))
    assert x[:, 1].abs().max() < 1e-3
    assert x[:, 2].std().item() == pytest.approx(1, rel=1e-2)


# -- further channels -----------------------------------------------------------------------------------------------
def test_the_mask_is_a_channel_of_each_band(noisy):
    flux, ivar = noisy
    weight = np.broadcast_to(ivar, flux.shape).copy()
    weight[:, 1, :4] = 0
    sample = image(flux, weight)
    plain, made = fit([sample], "image"), fit([sample], "image", channels="mask")
    x = made(sample)
    assert made.channels == 4 and x.shape == (300, 4, 16, 16)
    assert torch.equal(x[:, :2], plain(sample))
    assert (x[:, 3, :4] == 0).all() and (x[:, 3, 4:] == 1).all() and (x[:, 2] == 1).all()


@pytest.mark.parametrize("size", [9, 10, 16, 21, 24])
def test_the_psf_is_a_channel_with_its_peak_at_one_in_the_middle(noisy, size):
    flux, ivar = noisy
    y, x = np.mgrid[:size, :size] - size // 2
    psf = np.exp(-(x**2 + y**2) / 4.0)[None, None].repeat(2, 1).repeat(300, 0) * 7
    sample = image(flux, ivar, psf=torch.from_numpy(psf).float())
    made = fit([sample], "image", channels="psf")
    found = made(sample)[0, 2]
    assert made.channels == 4 and found.shape == (16, 16)
    peak = np.unravel_index(int(found.argmax()), (16, 16))
    # an odd PSF in an even image cannot have its peak at the exact centre: half a pixel is all it may miss
    assert abs(peak[0] - 7.5) <= 1 and abs(peak[1] - 7.5) <= 1 and found.max() == 1
    with pytest.raises(InputError, match="the survey has none"):
        made(image(flux, ivar))
    with pytest.raises(InputError, match="the survey has none"):
        fit([image(flux, ivar)], "image", channels="psf")


def test_the_detail_channel_is_what_a_gaussian_mean_of_measured_pixels_leaves(noisy):
    flux, ivar = noisy
    flux = flux + 500 * np.exp(-((np.mgrid[:16, :16] - 8.0) ** 2).sum(0) / 8)  # a core of hundreds of sigma
    weight = np.broadcast_to(ivar, flux.shape).copy()
    weight[:, :, 3:5, 2:9] = 0
    flux[:, :, 4, 4] = np.nan
    sample = image(flux, weight)
    made = fit([sample], "image", channels="detail")
    x = made(sample)
    assert made.channels == 4 and x.shape == (300, 4, 16, 16)
    seen = (weight > 0).astype(float)
    blur = {"sigma": (0, 0, WIDTH, WIDTH), "mode": "constant", "radius": (0, 0, 7, 7)}
    around = gaussian_filter(np.where(seen > 0, flux, 0), **blur) / gaussian_filter(seen, **blur)
    wanted = np.where(seen > 0, np.arcsinh((flux - around) / made.sigma.numpy()[:, None, None]), 0)
    np.testing.assert_allclose(x[:, 2:].numpy(), wanted, atol=2e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made(sample)[:, 2:], x[:, 2:])  # half precision would lose what is faint on a core


def test_unknown_words_list_the_known_ones(noisy):
    flux, ivar = noisy
    with pytest.raises(InputError, match="no such stretch") as error:
        fit([image(flux, ivar)], "image", "asin")
    assert "asinh" in str(error.value)
    with pytest.raises(InputError, match="no such channel"):
        fit([image(flux, ivar)], "image", channels="mask,edges")


# -- fitted once, on training objects alone -------------------------------------------------------------------------
def test_a_normalisation_is_rebuilt_from_its_config_and_state(noisy):
    flux, ivar = noisy
    sample = image(flux, ivar)
    for stretch, channels in (("auto", ""), ("log", "mask"), ("linear", "detail")):
        made = fit([sample], "image", stretch, channels)
        again = Normalise(**made.config())
        again.load_state_dict(made.state_dict())
        assert torch.equal(again(sample), made(sample)) and again.channels == made.channels


def test_it_is_fitted_on_the_training_fold_alone(tmp_path):
    """The other folds are a thousand times brighter: nothing of them may be seen."""
    survey = made_up.survey(tmp_path / "blobs", n=240)
    model = train(tasks.Classify("shape"), survey, network="mlp", settings={"hidden": (4,)}, steps=2, baseline=None,
                  quiet=True)  # fmt: skip
    expected = fit([survey.fold("train").gather(slice(None))], "image")
    for name in ("sigma", "mean", "std"):
        torch.testing.assert_close(getattr(model.module.normalise, name), getattr(expected, name))
    others = fit([survey.gather(slice(None))], "image")
    assert not torch.equal(others.mean, expected.mean)


def test_answers_do_not_depend_on_where_the_unit_puts_its_zero(noisy):
    """A survey in micro- instead of nanojansky gives the same input, once both are fitted."""
    flux, ivar = noisy
    a, b = image(flux, ivar), image(flux / 1000, ivar * 1e6)
    torch.testing.assert_close(fit([a], "image")(a), fit([b], "image")(b), rtol=1e-4, atol=1e-4)


def test_gradients_pass_to_the_flux(noisy):
    flux, ivar = noisy
    sample = image(flux[:4], ivar[:4])
    made = fit([image(flux, ivar)], "image")
    here = sample.observations["image"].flux.clone().requires_grad_(True)
    made(replace(sample, observations={"image": replace(sample.observations["image"], flux=here)})).sum().backward()
    slope = 1 / np.sqrt(1 + (flux[:4] / made.sigma.numpy()[:, None, None]) ** 2)
    expected = slope / made.sigma.numpy()[:, None, None] / made.std.numpy()[:, None, None]
    np.testing.assert_allclose(here.grad, expected, rtol=1e-4)
