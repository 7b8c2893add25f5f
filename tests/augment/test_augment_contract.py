"""The contract of every augmentation in the folder, found by name: a new file is tested without being named here.

Turned input with turned truth is the same answer: the shapes measured from the pixels are those the truth now states.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.augment.skies import NOISE, image_of, shape, sky, with_image

from deepsky import registry
from deepsky.errors import InputError
from deepsky.sample import Row, Sample

NAMES = registry.names("augment")
NEEDED: dict[str, dict[str, Any]] = {"psf": {"fwhm": 2.0}, "noise": {"sigma": 1.0}}  # settings without a default
VARIANTS: list[tuple[str, dict[str, Any], float]] = [
    *((name, NEEDED.get(name, {}), 2e-4) for name in NAMES),
    ("dihedral", {"flips": False}, 1e-6),
    ("dihedral", {"turns": False}, 1e-6),
    ("rotation", {"degrees": 40.0}, 1e-5),
    ("rotation", {"interpolation": "bilinear"}, 0.02),  # smooths, and so rounds objects
    ("shift", {"pixels": 3.0, "whole": True}, 1e-5),
    ("shift", {"pixels": 3.0, "interpolation": "bilinear"}, 0.02),
    ("psf", {"fwhm": 2.0, "restore": False}, 2e-4),
    ("noise", {"magnitudes": 1.0}, 2e-4),
    ("noise", {"depth": 2 * NOISE}, 2e-4),
    ("background", {"level": 1.0, "gradient": 1.0}, 2e-4),
    ("mask", {"fraction": 0.1, "stripes": 3.0}, 1e-6),
    ("bands", {"probability": 1.0}, 1e-6),
]


def apply(name: str, sample: Sample, *, seed: int = 1, epoch: int = 2, **settings: Any) -> Sample:
    made: Sample = registry.find("augment", name).apply(
        sample, seed=seed, epoch=epoch, **(settings or NEEDED.get(name, {}))
    )
    return made


def parts(sample: Sample) -> dict[str, torch.Tensor]:
    image = image_of(sample)
    assert image.psf is not None
    return {"flux": image.flux, "ivar": image.ivar, "psf": image.psf, **{n: t.value for n, t in sample.truth.items()}}


@pytest.mark.parametrize(("name", "settings", "tolerance"), VARIANTS)
def test_shapes_in_the_pixels_are_those_of_the_truth(name: str, settings: dict[str, Any], tolerance: float) -> None:
    moved = apply(name, sky(), **settings)
    for band in (0, 1):
        there = image_of(moved).measured[:, band].flatten(1).any(1).nonzero()[:, 0]
        seen = moved[there]
        xy, e = shape(seen, band)
        assert (xy - seen.truth["xy"].value).abs().max() < 10 * tolerance  # pixels, of an object 7 pixels wide
        assert (e - seen.truth["e"].value).abs().max() < tolerance


@pytest.mark.parametrize(("name", "settings", "tolerance"), VARIANTS)
def test_truths_agree_with_each_other(name: str, settings: dict[str, Any], tolerance: float) -> None:
    before = sky()
    after = apply(name, before, **settings)
    e, phi = after.truth["e"].value, after.truth["phi"].value
    stated = e.norm(dim=1, keepdim=True) * torch.stack([(2 * phi).cos(), (2 * phi).sin()], -1)
    assert torch.allclose(stated, e, atol=1e-5)
    assert torch.equal(after.truth["z"].value, before.truth["z"].value)
    box, xy = after.truth["box"].value[:, 0], after.truth["xy"].value
    assert torch.allclose((box[:, :2] + box[:, 2:]) / 2, xy, atol=1e-5)
    assert (box[:, 2:] > box[:, :2]).all()
    light = after.truth["light"].value  # the noiseless image moves with the image
    if not torch.equal(light, before.truth["light"].value):
        inside = light.isfinite()
        assert inside.float().mean() > 0.6
        assert (light - image_of(after).flux)[inside].abs().max() < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_draws_belong_to_the_object(name: str) -> None:
    """The same in every batch and order; others in another epoch or under another seed."""
    sample = sky()
    whole = parts(apply(name, sample))
    rows = torch.tensor([7, 3, 20])
    some = parts(apply(name, sample[rows]))
    for key, value in some.items():
        assert torch.allclose(value, whole[key][rows], rtol=1e-5, atol=1e-6, equal_nan=True), key
    again = parts(apply(name, sample))
    assert all(torch.equal(v.nan_to_num(), again[k].nan_to_num()) for k, v in whole.items())
    for other in (apply(name, sample, epoch=3), apply(name, sample, seed=2)):
        assert any(not torch.equal(v, whole[k]) for k, v in parts(other).items())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_changes(name: str) -> None:
    sample = sky()
    before = {k: v.clone() for k, v in parts(sample).items()}
    after = apply(name, sample)
    assert all(torch.equal(v, before[k]) for k, v in parts(sample).items()), "the input was written to"
    old, new = image_of(sample), image_of(after)
    assert (new.bands, new.unit, after.id) == (old.bands, old.unit, sample.id)
    assert torch.equal(new.pixel_scale, old.pixel_scale) and torch.equal(after.key, sample.key)
    assert {k: (v.shape, v.dtype) for k, v in parts(after).items() if k != "ivar"} == {
        k: (v.shape, v.dtype) for k, v in before.items() if k != "ivar"
    }
    assert new.ivar.dtype == torch.float32 and torch.broadcast_shapes(new.ivar.shape, new.flux.shape) == new.flux.shape
    assert (new.ivar >= 0).all() and new.ivar.isfinite().all()
    assert new.psf is not None and torch.allclose(new.psf.sum((-2, -1)), torch.ones(24, 2), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ivar", ["pixel", "band", "object", "row"])
def test_values_that_were_not_measured_do_nothing(name: str, ivar: str) -> None:
    """Holes may hold anything: the measured pixels come out the same, and no hole turns into a measurement."""
    sample = sky(8)
    flux = image_of(sample).flux
    shapes = {"pixel": flux.shape, "band": (8, 2, 1, 1), "object": (8, 1, 1, 1), "row": (8, 1, 48, 1)}
    weight = torch.full(shapes[ivar], 4.0)
    holes = torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) < (
        0.5 if ivar in {"band", "object"} else 0.03
    )
    weight[holes] = 0
    unmeasured = (weight == 0).expand_as(flux)
    made = []
    for junk in (float("nan"), 1e9, -3.0):
        image = image_of(apply(name, with_image(sample, flux=torch.where(unmeasured, junk, flux), ivar=weight)))
        made.append((image.measured, image.filled))
        assert image.filled.isfinite().all()
        assert 0 < image.measured.float().mean() <= 1 - 0.9 * unmeasured.float().mean()
    for measured, filled in made[1:]:
        assert torch.equal(measured, made[0][0])
        assert torch.equal(filled, made[0][1])


@pytest.mark.parametrize("name", [n for n in NAMES if n != "background"])  # which is a fault in the data, by design
def test_ivar_is_that_of_the_noise(name: str) -> None:
    n, sigma = 64, torch.tensor([0.5, 2.0])[:, None, None]
    noise = torch.randn(n, 2, 48, 48, generator=torch.Generator().manual_seed(4)) * sigma
    ivar = (sigma**-2).expand(n, 2, 1, 1).clone()
    base = sky(n)
    image = image_of(apply(name, with_image(base, flux=noise, ivar=ivar)))
    chi = (image.flux.square() * image.ivar)[image.measured]
    # resampling loses what lies at the highest frequency and in the pixels beside the edge: 2% in all
    assert chi.mean().item() == pytest.approx(1, abs=5 * (2 / len(chi)) ** 0.5 + 0.02)


@pytest.mark.parametrize("name", NAMES)
def test_rows_and_single_objects_are_refused(name: str) -> None:
    sample = sky(2)
    rows = replace(sample, observations={"row": Row(torch.zeros(2, 3), torch.ones(2, 3))}, truth={})
    with pytest.raises(InputError, match="no image to augment"):
        apply(name, rows)
    with pytest.raises(InputError, match="a batch, not a single object"):
        apply(name, sample[0])


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_named_and_have_plain_types(name: str) -> None:
    signature = inspect.signature(registry.find("augment", name).apply, eval_str=True)
    assert list(signature.parameters)[:3] == ["sample", "seed", "epoch"]
    for parameter in list(signature.parameters.values())[1:]:
        assert parameter.kind is parameter.KEYWORD_ONLY and parameter.annotation in {int, float, bool, str}


@pytest.mark.parametrize("name", ["dihedral", "rotation"])
def test_undeclared_targets_forbid_turning(name: str) -> None:
    sample = sky(3)
    target = replace(sample.truth["e"], moves="fixed")
    with pytest.raises(
        InputError, match=r"(?s)keyword shape_from_a_table: .*nothing says how.*known: scalar, vector, spin2"
    ):
        apply(name, replace(sample, truth={"shape_from_a_table": target}))
