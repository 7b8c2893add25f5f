import pickle

import pytest
import torch
from tests.made_up import blobs

from deepsky.errors import InputError
from deepsky.sample import stack


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
    from dataclasses import replace

    filled = replace(image, flux=flux, ivar=ivar).filled
    assert torch.isfinite(filled).all() and filled[0, 0, 3, 3] == 0


def test_an_error_travels_between_processes_whole():
    error = InputError("bad", file="a.fits", hdu=1, keyword="NAXIS", found=3, expected=2, fix="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is InputError and str(again) == str(error) and again.hdu == 1
