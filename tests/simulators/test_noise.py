from __future__ import annotations

import numpy as np
import pytest
import torch

from deepsky.errors import InputError
from deepsky.simulators._noise import background_ivar, electrons, magnitude, njy, observe
from deepsky.simulators._random import Draws
from deepsky.simulators._surveys import SURVEYS, bands

KIDS = bands("kids", ("u", "g", "r", "i"))
NUMBERS = np.arange(8)


def test_njy_are_ab():
    assert njy(31.4) == pytest.approx(1.0)
    assert njy(0.0) == pytest.approx(3631e9, rel=2e-3)  # AB 0 is 3631 Jy
    np.testing.assert_allclose(magnitude(njy(np.array([18.0, 27.5]))), [18.0, 27.5])
    assert np.isnan(magnitude(-1.0))


def test_electrons_follow_the_zero_point():
    flux = torch.tensor(njy(np.array([b.zero_point for b in KIDS]))).view(1, 4, 1, 1)
    seconds = electrons(flux, KIDS).flatten().tolist()
    assert seconds == pytest.approx([b.total_exposure for b in KIDS], rel=1e-5)  # one electron a second


@pytest.mark.parametrize("survey", ["kids", "euclid", "lsst-single", "sdss"])
@pytest.mark.parametrize("exact", [False, True])
def test_blank_sky_has_the_variance_of_its_ivar(survey, exact):
    b = SURVEYS[survey][:2]
    flux, ivar = observe(torch.zeros(8, len(b), 64, 64), b, Draws(1), NUMBERS, exact=exact)
    assert ivar.shape == (8, len(b), 1, 1)
    pull = (flux * ivar.sqrt()).transpose(0, 1).flatten(1).double()
    n = pull.shape[1]
    assert (pull.var(1) - 1).abs().max() < 5 * np.sqrt(2 / n)
    assert pull.mean(1).abs().max() < 5 / np.sqrt(n)


@pytest.mark.parametrize("exact", [False, True])
def test_flux_is_conserved_and_its_photons_add_to_the_variance(exact):
    level = torch.tensor([30.0, 60.0, 100.0, 400.0]).view(1, 4, 1, 1).expand(8, 4, 48, 48).contiguous()
    flux, ivar = observe(level, KIDS, Draws(2), NUMBERS, variance="total", exact=exact)
    assert ivar.shape == flux.shape
    pull = ((flux - level) * ivar.sqrt()).transpose(0, 1).flatten(1).double()
    n = pull.shape[1]
    assert pull.mean(1).abs().max() < 5 / np.sqrt(n)
    assert (pull.var(1) - 1).abs().max() < 5 * np.sqrt(2 / n)
    # sky + source electrons, by hand
    scale = torch.tensor([b.electrons_per_njy for b in KIDS])
    by_hand = scale**2 / (torch.tensor([b.background_variance for b in KIDS]) + level[0, :, 0, 0] * scale)
    assert ivar[0, :, 0, 0].tolist() == pytest.approx(by_hand.tolist(), rel=1e-5)


def test_counting_and_the_normal_distribution_agree_in_shape_too():
    sky = SURVEYS["cosmos"]  # 69 electrons a pixel
    counted = observe(torch.zeros(8, 1, 64, 64), sky, Draws(1), NUMBERS, exact=True)[0].flatten().double()
    skew = float(((counted - counted.mean()) ** 3).mean() / counted.std() ** 3)
    expected = sky[0].sky_electrons / sky[0].background_variance ** 1.5  # only photons are skewed
    assert skew == pytest.approx(expected, abs=5 * np.sqrt(6 / counted.numel()))


def test_an_object_is_noisy_in_its_own_way():
    flux = torch.ones(8, 4, 5, 5)
    all_of_them, _ = observe(flux, KIDS, Draws(1), NUMBERS)
    one, _ = observe(flux[:1], KIDS, Draws(1), np.array([5]))
    assert (all_of_them[5] == one[0]).all()
    assert (flux == 1).all()  # the noiseless sky is left as it was


def test_painting_adds_the_light_and_its_own_photons_alone():
    level = torch.full((8, 4, 48, 48), 300.0)
    sky, ivar = torch.full_like(level, 7.0), torch.full((8, 4, 1, 1), 0.04)
    flux, same = observe(level, KIDS, Draws(3), NUMBERS, background=(sky, ivar))
    assert same is ivar
    scale = torch.tensor([b.electrons_per_njy for b in KIDS])
    spread = (flux - 307.0).transpose(0, 1).flatten(1)
    expected = (300.0 / scale).sqrt()
    assert (spread.std(1) / expected).tolist() == pytest.approx([1.0] * 4, rel=0.03)
    _, total = observe(level, KIDS, Draws(3), NUMBERS, background=(sky, ivar), variance="total")
    assert (1 / total[0, :, 0, 0]).tolist() == pytest.approx((1 / 0.04 + 300.0 / scale).tolist(), rel=1e-4)
    unmeasured = torch.zeros(8, 4, 1, 1)
    assert (observe(level, KIDS, Draws(3), NUMBERS, background=(sky, unmeasured), variance="total")[1] == 0).all()
    with pytest.raises(InputError, match="another shape"):
        observe(level, KIDS, Draws(3), NUMBERS, background=(sky[:, :1], ivar))


def test_background_ivar_is_the_bands():
    assert background_ivar(3, KIDS)[2, :, 0, 0].tolist() == pytest.approx([b.sigma**-2 for b in KIDS])
