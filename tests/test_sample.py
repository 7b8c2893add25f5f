import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.made_up import blobs

from deepsky.errors import InputError
from deepsky.sample import Image, stack


def test_a_batch_is_indexed_as_its_objects():
    batch = blobs(10)
    few = batch[[7, 2]]
    assert few.id == (batch.id[7], batch.id[2])
    assert torch.equal(few.observations["image"].flux, batch.observations["image"].flux[[7, 2]])
    assert torch.equal(few.truth["e"].value, batch.truth["e"].value[[7, 2]])
    assert batch[2:4].id == batch.id[2:4]
    assert batch[torch.tensor([True] + [False] * 9)].id == batch.id[:1]


def test_stacking_single_objects_gives_back_the_batch():
    batch = blobs(5)
    again = stack([batch[i] for i in range(5)])
    assert again.id == batch.id
    for name in ("flux", "ivar"):
        assert torch.equal(getattr(again.observations["image"], name), getattr(batch.observations["image"], name))
    assert torch.equal(stack([batch[:2], batch[2:]]).key, batch.key)


def test_stacking_other_shapes_says_which_and_how_to_mend_it():
    with pytest.raises(InputError, match=r"image.flux differs in shape") as error:
        stack([blobs(2, size=24), blobs(2, size=20)])
    assert "--size" in str(error.value)
    with pytest.raises(InputError, match="image.bands differs"):
        stack([blobs(2), blobs(2, bands=("g", "i"))])
    with pytest.raises(InputError, match="nothing to stack"):
        stack([])


def test_unmeasured_pixels_are_filled_with_zero_even_if_nan():
    batch = blobs(2)
    image = batch.observations["image"]
    flux = image.flux.clone()
    flux[0, 0, 3, 3] = torch.nan
    ivar = image.ivar.expand(flux.shape).clone()
    ivar[0, 0, 3, 3] = 0
    filled = replace(image, flux=flux, ivar=ivar).filled
    assert torch.isfinite(filled).all() and filled[0, 0, 3, 3] == 0


def test_an_error_travels_between_processes_whole():
    error = InputError("bad", file="a.fits", hdu=1, keyword="NAXIS", found=3, expected=2, fix="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is InputError and str(again) == str(error) and again.hdu == 1


# -- which objects ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.array([True, False, True, False]), [0, 2]),
        ([True, False, True, False], [0, 2]),
        (torch.tensor([False, False, False, True]), [3]),
        (np.array([3, 1], np.uint64), [3, 1]),
        (np.arange(4)[::-1], [3, 2, 1, 0]),
        (torch.tensor([2, -1], dtype=torch.uint8), [2, 255]),
        ([-1, 0], [3, 0]),
        ([], []),
        (slice(None, None, -2), [3, 1]),
        (slice(1, 3), [1, 2]),
    ],
)
def test_masks_positions_and_slices(rows, expected):
    batch = blobs(4)
    if 255 in expected:  # a number, and not a mask
        with pytest.raises(IndexError):
            batch[rows]
        return
    few = batch[rows]
    assert few.id == tuple(batch.id[i] for i in expected) and len(few) == len(expected)
    for name in ("flux", "ivar", "pixel_scale"):
        here, whole = (getattr(s.observations["image"], name) for s in (few, batch))
        assert torch.equal(here, whole[expected])
    assert torch.equal(few.truth["e"].value, batch.truth["e"].value[expected])
    assert torch.equal(few.key, batch.key[expected]) and torch.equal(few.ra, batch.ra[expected])


@pytest.mark.parametrize("rows", [np.int64(2), np.uint8(2), torch.tensor(2), 2, -2])
def test_one_object_by_any_whole_number(rows):
    batch = blobs(4)
    one = batch[rows]
    assert one.id == (batch.id[2],) and one.key == batch.key[2] and one.key.ndim == 0
    assert torch.equal(one.observations["image"].flux, batch.observations["image"].flux[2])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([True, False], r"a mask of another length\n.*2\n.*4"),
        (np.ones((4, 1), bool), "no positions"),
        ([0.0, 1.0], "no positions"),
        (True, "no positions"),
        ("id", "no positions"),
        (np.zeros((2, 2), int), "no positions"),
    ],
)
def test_what_names_no_objects_is_refused(rows, message):
    with pytest.raises(InputError, match=message):
        blobs(4)[rows]


def test_iterating_ends():
    assert [s.id[0] for s in blobs(3)] == list(blobs(3).id)


IVARS = {
    "every pixel": torch.rand(3, 2, 24, 24),
    "every band of an object": torch.rand(3, 2, 1, 1),
    "every object": torch.rand(3, 1, 1, 1),
    "every band": torch.rand(1, 2, 1, 1),
    "every band, without an axis of objects": torch.rand(2, 1, 1),
    "every pixel of all": torch.rand(24, 24),
    "one for all": torch.tensor(4.0),
}


@pytest.mark.parametrize("way", IVARS)
@pytest.mark.parametrize("rows", [1, [2, 0], slice(1, None), [False, True, True]])
def test_an_ivar_of_any_shape_goes_with_its_objects(way, rows):
    batch = blobs(3)
    image = replace(batch.observations["image"], ivar=IVARS[way], pixel_scale=torch.tensor(0.3))
    full = IVARS[way].expand(3, 2, 24, 24)
    part = replace(batch, observations={"image": image})[rows].observations["image"]
    assert torch.equal(part.ivar.expand(part.flux.shape), full[rows])
    assert torch.equal(part.measured, (full > 0)[rows])
    assert torch.equal(part.pixel_scale, torch.full((3,), 0.3)[rows])
    again = stack([replace(batch, observations={"image": image})[i] for i in range(3)]).observations["image"]
    assert torch.equal(again.ivar.expand(again.flux.shape), full) and again.pixel_scale.shape == (3,)
    both = stack([replace(batch, observations={"image": image})] * 2).observations["image"]
    assert torch.equal(both.ivar.expand(both.flux.shape), torch.cat([full, full])) and both.pixel_scale.shape == (6,)


def test_the_default_pixel_scale_is_one_an_object():
    batch = blobs(3)
    image = batch.observations["image"]
    bare = replace(batch, observations={"image": Image(image.flux, image.ivar, bands=image.bands, unit="nJy")})
    assert torch.isnan(bare[0].observations["image"].pixel_scale)
    assert bare[[0, 2]].observations["image"].pixel_scale.shape == (2,)
    assert stack([bare, bare]).observations["image"].pixel_scale.shape == (6,)


def test_single_objects_and_batches_stack_in_any_mixture():
    batch = blobs(5)
    again = stack([batch[0], batch[1:3], batch[3], batch[[4]]])
    assert again.id == batch.id and torch.equal(again.key, batch.key)
    assert torch.equal(again.observations["image"].flux, batch.observations["image"].flux)
    assert torch.equal(again.truth["shape"].value, batch.truth["shape"].value)
    assert batch[1][[0]].observations["image"].flux.shape == (1, 2, 24, 24)  # a batch of one
    noise = batch.observations["image"]
    fine = replace(batch, observations={"image": replace(noise, ivar=noise.ivar.expand(noise.flux.shape))})
    mixed = stack([batch, fine]).observations["image"]
    assert torch.equal(mixed.ivar.expand(mixed.flux.shape)[:5], noise.ivar.expand(noise.flux.shape))


def test_samples_that_hold_other_things_do_not_stack():
    batch = blobs(2)
    less = replace(batch, truth={"e": batch.truth["e"]})
    for two in ([batch, less], [less, batch]):
        with pytest.raises(InputError, match=r"truth differ between objects\n(.*\n)*.*fix"):
            stack(two)
    with pytest.raises(InputError, match="observations differ"):
        stack([batch, replace(batch, observations={})])
    image = batch.observations["image"]
    sharp = replace(batch, observations={"image": replace(image, psf=torch.ones(2, 2, 5, 5) / 25)})
    for two in ([batch, sharp], [sharp, batch]):
        with pytest.raises(InputError, match=r"image.psf is missing in some"):
            stack(two)
    wide = replace(batch, truth={**batch.truth, "e": replace(batch.truth["e"], value=torch.zeros(2, 3))})
    with pytest.raises(InputError, match=r"e.value differs in shape") as error:
        stack([batch, wide])
    assert "--size" not in str(error.value)
