"""What single augmentations promise beyond the contract."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.augment.skies import PSF_SIGMA, SCALE, fitted, gaussian, image_of, sky, with_image
from torch import Tensor

from deepsky.augment import _fourier, background, bands, dihedral, mask, noise, psf, rotation, shift
from deepsky.errors import InputError
from deepsky.sample import Image, Sample, Truth


def white(n: int = 64, pixels: int = 48) -> Tensor:
    return torch.randn(n, 2, pixels, pixels, generator=torch.Generator().manual_seed(8))


def neighbours(x: Tensor) -> float:
    """Correlation of horizontally and vertically neighbouring pixels."""
    pairs = [(x[..., 1:], x[..., :-1]), (x[..., 1:, :], x[..., :-1, :])]
    return max(abs(float((a * b).mean() / x.var())) for a, b in pairs)


def with_truth(sample: Sample, **truth: Truth) -> Sample:
    return replace(sample, truth=truth)


# -- dihedral -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("element", range(8))
def test_dihedral_moves_every_pixel_where_its_vector_goes(element: int) -> None:
    """Pixel by pixel: the value at (x, y) is found at the place that the truth's (x, y) moved to."""
    size = 5
    sample = sky(1, (size, size), (3, 3))
    flux = torch.arange(2.0 * size * size).reshape(1, 2, size, size)
    for row in range(size):
        for col in range(size):
            xy = Truth(torch.tensor([[col - 2.0, row - 2.0]]), moves="vector")
            made = dihedral.view(with_truth(with_image(sample, flux=flux), xy=xy), np.array([element]))
            x, y = (int(v) + 2 for v in made.truth["xy"].value[0])
            assert torch.equal(image_of(made).flux[0, :, y, x], flux[0, :, row, col])


def test_dihedral_views_are_the_group() -> None:
    sample = sky(1)
    seen = [image_of(dihedral.view(sample, np.array([g]))).flux for g in range(8)]
    assert all(not torch.equal(seen[a], seen[b]) for a in range(8) for b in range(a))
    for a in range(8):
        for b in range(8):
            both = dihedral.view(dihedral.view(sample, np.array([a])), np.array([b]))
            matches = [g for g in range(8) if torch.equal(seen[g], image_of(both).flux)]
            assert len(matches) == 1
            once = dihedral.view(sample, np.array(matches))
            for name in ("e", "xy", "box", "phi"):
                assert torch.allclose(once.truth[name].value, both.truth[name].value, atol=1e-6), name


def test_dihedral_draws_all_views_alike() -> None:
    n = 4000
    image = Image(torch.zeros(n, 1, 4, 4), torch.ones(n, 1, 1, 1), pixel_scale=torch.ones(n))
    image.flux[:, 0, 0, 1] = 1  # a single pixel whose place tells the eight views apart
    sample = Sample(("",) * n, torch.arange(n), torch.zeros(n), torch.zeros(n), {"image": image})
    counts = dihedral.apply(sample, seed=0, epoch=0).observations["image"].flux.sum((0, 1)).flatten()
    assert int((counts > 0).sum()) == 8
    assert (counts[counts > 0] - n / 8).abs().max() < 5 * math.sqrt(n / 8)
    for settings, views in (({"flips": False}, 4), ({"turns": False}, 2), ({"flips": False, "turns": False}, 1)):
        counts = dihedral.apply(sample, seed=0, epoch=0, **settings).observations["image"].flux.sum((0, 1))
        assert int((counts > 0).sum()) == views


def test_dihedral_keeps_the_shape_of_oblong_images() -> None:
    n = 200
    image = Image(torch.zeros(n, 1, 4, 6), torch.ones(n, 1, 1, 1), pixel_scale=torch.ones(n))
    image.flux[:, 0, 0, 1] = 1
    sample = Sample(("",) * n, torch.arange(n), torch.zeros(n), torch.zeros(n), {"image": image})
    counts = dihedral.apply(sample, seed=0, epoch=0).observations["image"].flux.sum((0, 1))
    assert counts.shape == (4, 6) and int((counts > 0).sum()) == 4


def test_errors_and_limits_turn_along() -> None:
    """One turn brings (x, y) to (y, -x), and (e1, e2) to (-e1, -e2)."""
    two = torch.tensor([[1.0, 2.0]])
    limit = torch.tensor([[1, 0]])
    sample = with_truth(
        sky(1),
        xy=Truth(two, sigma=two / 10, limit=limit, moves="vector"),
        e=Truth(two / 5, sigma=two / 10, limit=limit, moves="spin2"),
        angle=Truth(torch.tensor([30.0]), limit=torch.tensor([1]), moves="angle", unit="deg"),
        jet=Truth(torch.tensor([30.0]), moves="direction", unit="deg"),
        kind=Truth(torch.tensor([3]), classes=("a", "b", "c", "d")),
    )
    turned = dihedral.view(sample, np.array([1])).truth
    assert turned["xy"].value.tolist() == [[2.0, -1.0]]
    assert turned["xy"].sigma is not None and torch.allclose(turned["xy"].sigma, torch.tensor([[0.2, 0.1]]))
    assert turned["xy"].limit is not None and turned["xy"].limit.tolist() == [[0, -1]]
    assert torch.allclose(turned["e"].value, -two / 5) and turned["e"].limit is not None
    assert turned["e"].limit.tolist() == [[-1, 0]]
    assert turned["angle"].value.tolist() == pytest.approx([120.0])  # an axis: the same after half a turn
    assert turned["jet"].value.tolist() == pytest.approx([300.0]) and turned["kind"].value.tolist() == [3]
    flipped = dihedral.view(sample, np.array([4])).truth
    assert flipped["xy"].value.tolist() == [[-1.0, 2.0]]
    assert torch.allclose(flipped["e"].value, torch.tensor([[0.2, -0.4]]))
    assert flipped["angle"].value.tolist() == pytest.approx([150.0])
    assert flipped["angle"].limit is not None and flipped["angle"].limit.tolist() == [-1]
    with pytest.raises(InputError, match="arbitrary rotation"):
        rotation.rotate(sample, torch.tensor([0.3]))


def test_an_angle_without_a_unit_is_refused() -> None:
    for moves in ("angle", "direction"):
        bare = Truth(torch.tensor([65.0, 103.8]), moves=moves)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"(?s)keyword PA: an angle .* needs a unit.*fix: call it PA_deg"):
            dihedral.apply(with_truth(sky(2), PA=bare), seed=0, epoch=0)


def test_components_that_stand_alone_turn_together() -> None:
    """Two truths of one component each move as the one truth of two does, errors and limits included."""
    whole = with_truth(sky(8), e=sky(8).truth["e"], xy=sky(8).truth["xy"])
    sigma = whole.truth["e"].value.abs() / 10
    whole.truth["e"] = replace(whole.truth["e"], sigma=sigma)  # type: ignore[index]
    apart = {f"e{i + 1}": whole.truth["e"].map(lambda t, i=i: t[:, i]) for i in (0, 1)}
    apart |= {n: whole.truth["xy"].map(lambda t, i=i: t[:, i]) for i, n in enumerate(("dx", "dy"))}
    for move in (dihedral, rotation, shift):
        one, two = (move.apply(with_truth(whole, **t), seed=1, epoch=2).truth for t in (whole.truth, apart))
        assert torch.equal(torch.stack([two["e1"].value, two["e2"].value], -1), one["e"].value)
        assert torch.equal(torch.stack([two["e1"].sigma, two["e2"].sigma], -1), one["e"].sigma)
        assert torch.equal(torch.stack([two["dx"].value, two["dy"].value], -1), one["xy"].value)
    for move, name in ((dihedral, "e2"), (shift, "dx")):
        with pytest.raises(InputError, match=r"has two components(.|\n)*fix: name both"):
            move.apply(with_truth(whole, **{name: apart[name]}), seed=1, epoch=2)
    sky_offset = replace(whole.truth["xy"], unit="arcsec")
    with pytest.raises(InputError, match="counted in pixels"):
        shift.apply(with_truth(whole, xy=sky_offset), seed=1, epoch=2)


def test_what_is_handed_turns_and_is_never_mirrored() -> None:
    sample = with_truth(sky(16), sense=Truth(torch.arange(16) % 2, classes=("CCW", "CW"), moves="handed"))
    made = dihedral.apply(sample, seed=0, epoch=0, flips=False)
    assert torch.equal(made.truth["sense"].value, sample.truth["sense"].value)
    with pytest.raises(InputError, match=r"(?s)keyword sense: .*mirror.*fix: dihedral\(flips=False\)"):
        dihedral.apply(sample, seed=0, epoch=0)


def test_truths_of_the_wrong_shape_are_refused() -> None:
    sample = sky(2)
    for truth in (
        Truth(torch.zeros(2, 3), moves="vector"),
        Truth(torch.zeros(2), moves="spin2"),
        Truth(torch.zeros(2, 1, 3), moves="boxes"),
    ):
        with pytest.raises(InputError, match="keyword shape"):
            dihedral.apply(with_truth(sample, shape=truth), seed=0, epoch=0)


# -- rotation -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("interpolation", ["fourier", "bilinear"])
def test_rotation_by_quarter_turns_is_dihedral(interpolation: str) -> None:
    sample = sky(4)
    made = rotation.rotate(sample, torch.tensor([0, -90, -180, -270]).deg2rad(), interpolation=interpolation)
    expected = dihedral.view(sample, np.arange(4))
    assert torch.allclose(image_of(made).flux, image_of(expected).flux, atol=2e-5)
    for name in ("e", "xy", "box", "light"):
        assert torch.allclose(made.truth[name].value, expected.truth[name].value, atol=2e-5), name
    assert image_of(made).measured.all()


def test_rotation_against_the_formula() -> None:
    """A turned Gaussian, painted from its formula."""
    n, theta = 12, torch.linspace(-math.pi, math.pi, 12, dtype=torch.float64)
    one = sky(1)
    sample = one[[0] * n]
    cos, sin = theta.cos(), theta.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    xy, cov = fitted(image_of(one).flux[:, 0], image_of(one).measured[:, 0])
    expected = gaussian((48, 48), (turn @ xy[0][:, None])[..., 0], turn @ cov[0] @ turn.mT)
    made = image_of(rotation.rotate(sample, theta))
    assert ((made.flux[:, 0] - expected) * made.measured[:, 0]).abs().max() < 5e-5
    assert made.measured[6].float().mean() < 0.95 < made.measured[0].float().mean()  # corners were beyond the edge


def test_fourier_keeps_noise_white_and_bilinear_does_not() -> None:
    sample = with_image(sky(64), flux=white())
    for move in (
        lambda i: rotation.apply(sample, seed=0, epoch=0, interpolation=i),
        lambda i: shift.apply(sample, seed=0, epoch=0, interpolation=i),
    ):
        inner = {i: image_of(move(i)).flux[..., 12:36, 12:36] for i in ("fourier", "bilinear")}
        assert inner["fourier"].var().item() == pytest.approx(1, abs=0.02)
        assert neighbours(inner["fourier"]) < 0.02
        assert inner["bilinear"].var().item() < 0.7
        assert neighbours(inner["bilinear"]) > 0.15


def test_rotation_of_codes_and_oblong_images() -> None:
    codes = torch.zeros(2, 1, 48, 48, dtype=torch.int64)
    codes[:, :, 10:20, 30:40] = 7
    sample = with_truth(sky(2), parts=Truth(codes, moves="image", classes=("sky", *"abcdefg")))
    made = rotation.rotate(sample, torch.tensor([math.pi / 4, -math.pi / 2])).truth["parts"].value
    assert set(made[0].unique().tolist()) == {-1, 0, 7} and int((made[0] == 7).sum()) == pytest.approx(100, abs=8)
    assert torch.equal(made[1], torch.rot90(codes[1], 1, (1, 2)))
    oblong = with_image(sky(2, (32, 48)), psf=None)
    with pytest.raises(InputError, match="only square"):
        rotation.apply(oblong, seed=0, epoch=0)
    turned = rotation.rotate(oblong, torch.full((2,), math.pi), interpolation="bilinear")
    assert torch.allclose(image_of(turned).flux, image_of(oblong).flux.flip((-2, -1)), atol=2e-5)
    with pytest.raises(InputError, match="unknown interpolation"):
        rotation.apply(oblong, seed=0, epoch=0, interpolation="bicubic")


# -- shift ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("interpolation", ["fourier", "bilinear"])
def test_whole_shifts_move_pixels(interpolation: str) -> None:
    sample = with_image(sky(2), flux=white(2), ivar=torch.rand(2, 2, 48, 48) + 0.5)
    made = image_of(shift.shift(sample, torch.tensor([[3.0, 0.0], [0.0, -2.0]]), interpolation=interpolation))
    old = image_of(sample)
    assert torch.allclose(made.flux[0, :, :, 3:], old.flux[0, :, :, :-3], atol=2e-4)
    assert torch.allclose(made.ivar[0, :, :, 3:], old.ivar[0, :, :, :-3], atol=2e-4)
    assert not made.ivar[0, :, :, :3].any() and made.ivar[0, :, :, 3:].all()
    assert torch.allclose(made.flux[1, :, :-2], old.flux[1, :, 2:], atol=2e-4)
    assert not made.ivar[1, :, -2:].any() and made.ivar[1, :, :-2].all()


def test_a_hole_grows_by_what_it_touches() -> None:
    ivar = torch.ones(1, 2, 48, 48)
    ivar[..., 20, 20] = 0
    sample = with_image(sky(1), ivar=ivar)
    holes = [
        (image_of(shift.shift(sample, torch.tensor([offset]))).ivar[0, 0, 4:-4, 4:-4] == 0).nonzero() + 4
        for offset in ([1.0, 0.0], [0.5, 0.0], [0.5, 0.5])
    ]
    assert [h.tolist() for h in holes] == [
        [[20, 21]], [[20, 20], [20, 21]], [[20, 20], [20, 21], [21, 20], [21, 21]],
    ]  # fmt: skip


def test_shift_moves_boxes_and_maps_and_leaves_the_rest() -> None:
    sample = sky(6)
    offset = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(6, 2)
    made = shift.shift(sample, offset).truth
    assert torch.allclose(made["xy"].value, sample.truth["xy"].value + offset.float(), atol=1e-6)
    assert torch.allclose(
        made["box"].value[:, 0], sample.truth["box"].value[:, 0] + offset.float().repeat(1, 2), atol=1e-6
    )
    assert torch.equal(made["e"].value, sample.truth["e"].value)
    half = torch.nn.functional.avg_pool2d(sample.truth["light"].value, 2)
    moved = shift.shift(with_truth(sample, half=Truth(half, moves="image")), offset).truth["half"].value
    expected = torch.nn.functional.avg_pool2d(shift.shift(sample, offset).truth["light"].value, 2)
    both = moved.isfinite() & expected.isfinite()
    assert both.float().mean() > 0.8 and (moved - expected)[both].abs().max() < 1e-4


def test_several_images_move_alike_on_the_sky() -> None:
    sample = sky(3)
    fine = image_of(sample)
    coarse = replace(fine, pixel_scale=fine.pixel_scale * 2)
    both = replace(sample, observations={"fine": fine, "coarse": coarse})
    made = shift.shift(both, torch.full((3, 2), 2.0)).observations
    assert torch.allclose(made["fine"].flux[..., 2:, 2:], fine.flux[..., :-2, :-2], atol=1e-5)
    assert torch.allclose(made["coarse"].flux[..., 1:, 1:], fine.flux[..., :-1, :-1], atol=1e-5)
    blind = replace(coarse, pixel_scale=torch.full((3,), math.nan))
    with pytest.raises(InputError, match="need"):
        shift.shift(replace(sample, observations={"fine": fine, "coarse": blind}), torch.ones(3, 2))
    with pytest.raises(InputError, match="less than half"):
        shift.apply(sample, seed=0, epoch=0, pixels=60)


def test_whole_shifts_are_uniform() -> None:
    sample = with_truth(sky(600, (16, 16), (3, 3)), xy=Truth(torch.zeros(600, 2), moves="vector"))
    steps = shift.apply(sample, seed=3, epoch=0, pixels=2.5, whole=True).truth["xy"].value
    values, counts = steps.unique(return_counts=True)
    assert values.tolist() == [-2, -1, 0, 1, 2]
    assert (counts - 240).abs().max() < 5 * math.sqrt(240)


# -- psf ------------------------------------------------------------------------------------------------------
def test_psf_comes_to_the_width_asked_for() -> None:
    sample = sky(200)
    made = image_of(psf.apply(sample, seed=0, epoch=0, fwhm=2.0))
    assert made.psf is not None
    _, cov = fitted(made.psf[:, 0], torch.ones_like(made.psf[:, 0], dtype=torch.bool))
    widths = cov[:, 0, 0].sqrt() * SCALE * math.sqrt(8 * math.log(2))
    least = PSF_SIGMA[0] * SCALE * math.sqrt(8 * math.log(2))
    assert widths.min() > least - 1e-3 and widths.max() < 2.0 + 5e-3
    assert widths.mean().item() == pytest.approx((least + 2.0) / 2, abs=5 * (2.0 - least) / math.sqrt(12 * 200))
    narrow = image_of(psf.apply(sample, seed=0, epoch=0, fwhm=0.5))  # broader already: not a bit changes
    assert torch.equal(narrow.flux, image_of(sample).flux) and torch.equal(narrow.psf, image_of(sample).psf)  # type: ignore[arg-type]


def test_psf_keeps_flux_and_noise() -> None:
    sample = sky(16)
    made = image_of(psf.apply(sample, seed=0, epoch=0, fwhm=1.6, restore=False))
    assert torch.allclose(made.flux.sum((-2, -1)), image_of(sample).flux.sum((-2, -1)), rtol=2e-3)
    noisy = with_image(sky(64), flux=white(), ivar=torch.ones(64, 2, 1, 1))
    kept = image_of(psf.apply(noisy, seed=0, epoch=0, fwhm=3.0)).flux
    lost = image_of(psf.apply(noisy, seed=0, epoch=0, fwhm=3.0, restore=False)).flux
    assert kept.var().item() == pytest.approx(1, abs=0.02) and neighbours(kept) < 0.02
    assert lost.var() < 0.3 and neighbours(lost) > 0.3
    # what a sum over an aperture has of noise is what it had before, neither lost nor counted twice
    assert kept[..., 12:36, 12:36].sum((-2, -1)).var().item() == pytest.approx(24**2, rel=0.3)


def test_psf_needs_to_know_what_there_is() -> None:
    sample = with_image(sky(2), psf=None)
    with pytest.raises(InputError, match="no PSF to broaden"):
        psf.apply(sample, seed=0, epoch=0, fwhm=2.0)
    made = psf.apply(sample, seed=0, epoch=0, fwhm=2.0, current=PSF_SIGMA[0] * SCALE * 2.3548)
    full = psf.apply(sky(2), seed=0, epoch=0, fwhm=2.0)
    assert torch.allclose(image_of(made).flux[:, 0], image_of(full).flux[:, 0], atol=1e-4)
    with pytest.raises(InputError, match="pixel scale"):
        psf.apply(with_image(sky(2), pixel_scale=torch.full((2,), math.nan)), seed=0, epoch=0, fwhm=2.0)


def test_smoothing_against_the_formula() -> None:
    narrow = gaussian((48, 48), torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2).double() * 4)[:, None]
    for sigma in (0.5, 1.0, 3.0):
        made = _fourier.smoothed(narrow, torch.full((3, 1), sigma), (12, 12))
        wide = gaussian((48, 48), torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2).double() * (4 + sigma**2))[:, None]
        assert torch.allclose(made.double(), wide * 4 / (4 + sigma**2), atol=1e-6)


# -- noise, background, mask, bands ---------------------------------------------------------------------------
def test_noise_has_the_amount_that_ivar_says() -> None:
    n = 400
    empty = with_image(sky(n, (16, 16)), flux=torch.zeros(n, 2, 16, 16), ivar=torch.full((n, 2, 1, 1), 4.0))
    for settings, largest in (({"sigma": 2.0}, 5.0), ({"magnitudes": 1.0}, 10**0.8), ({"depth": 1.5}, 9.0)):
        made = image_of(noise.apply(empty, seed=0, epoch=0, **settings))
        growth = (4 / made.ivar)[:, 0, 0, 0]  # of the variance
        added = made.flux.var((1, 2, 3)) / 0.25
        assert (added / (growth - 1).clamp(min=1e-6))[growth > 1.5].mean().item() == pytest.approx(1, abs=0.02)
        assert growth.min() >= 1 and growth.max() <= largest * 1.001 and growth.max() > 0.95 * largest
        if "depth" in settings:
            assert growth.min().item() == pytest.approx(9.0)
    unchanged = noise.apply(empty, seed=0, epoch=0, depth=0.1)  # noisier than that already
    assert torch.equal(image_of(unchanged).flux, image_of(empty).flux)
    for bad in ({}, {"sigma": 1.0, "depth": 1.0}, {"sigma": -1.0}, {"sigma": math.nan}):
        with pytest.raises(InputError):
            noise.apply(empty, seed=0, epoch=0, **bad)


def test_background_is_a_plane_in_units_of_the_noise() -> None:
    n = 300
    empty = with_image(sky(n, (16, 24)), flux=torch.zeros(n, 2, 16, 24), ivar=torch.full((n, 2, 1, 1), 25.0))
    flat = image_of(background.apply(empty, seed=0, epoch=0, level=0.5)).flux
    assert (flat - flat[..., :1, :1]).abs().max() < 1e-7
    level = flat[..., 0, 0] * 5
    assert level.abs().max() <= 0.5 and level.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.1)
    assert abs(np.corrcoef(level[:, 0], level[:, 1])[0, 1]) < 0.3  # each band on its own
    slope = image_of(background.apply(empty, seed=0, epoch=0, level=0.0, gradient=1.0)).flux * 5
    assert slope.mean((-2, -1)).abs().max() < 1e-6
    assert slope.diff(n=2, dim=-1).abs().max() < 1e-5 and slope.diff(n=2, dim=-2).abs().max() < 1e-5
    assert 0.9 < slope.abs().max() <= math.sqrt(2) + 1e-6


def test_mask_takes_the_share_asked_for() -> None:
    sample = sky(40)
    share = 1 - image_of(mask.apply(sample, seed=0, epoch=0, fraction=0.1)).measured.float().mean().item()
    assert share == pytest.approx(0.1, abs=0.005)
    striped = image_of(mask.apply(sample, seed=0, epoch=0, fraction=0.0, stripes=4.0)).measured
    rows, columns = (~striped).all(3).sum(), (~striped).all(2).sum()
    assert int(rows + columns) / 80 == pytest.approx(4, abs=5 * math.sqrt(4 / 80))
    assert torch.equal(striped, ~((~striped).all(3)[..., None] | (~striped).all(2)[..., None, :]))
    with pytest.raises(InputError):
        mask.apply(sample, seed=0, epoch=0, fraction=1.5)


def test_bands_never_take_the_last_measurement() -> None:
    n = 500
    sample = with_image(sky(n, (16, 16), (3, 3)), flux=torch.zeros(n, 5, 16, 16), psf=None)
    sample = with_image(sample, ivar=torch.ones(n, 5, 1, 1))
    lost = 1 - image_of(bands.apply(sample, seed=0, epoch=0, probability=0.3)).ivar[..., 0, 0]
    assert lost.mean().item() == pytest.approx(0.3, abs=0.03) and lost.sum(1).max() < 5
    ivar = torch.zeros(n, 5, 1, 1)
    ivar[:, 3] = 1  # one band is there: it must stay
    assert image_of(bands.apply(with_image(sample, ivar=ivar), seed=0, epoch=0, probability=1.0)).ivar[:, 3].all()
    single = with_image(sample, flux=torch.zeros(n, 1, 16, 16), ivar=torch.ones(n, 1, 1, 1))
    assert image_of(bands.apply(single, seed=0, epoch=0, probability=1.0)).ivar.all()
