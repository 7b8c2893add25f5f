"""Augmentations by words: read, written back, and refused with a reason."""

from __future__ import annotations

import pytest
import torch
from tests.augment.skies import NOISE, image_of, sky, with_image

from deepsky.augment import Augmentation, dihedral, noise, shift
from deepsky.errors import InputError


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ("", ()),
        ("none", ()),
        ("No", ()),
        ("dihedral", (("dihedral", {}),)),
        ("dihedral,shift=1.5,noise=0.2", (("dihedral", {}), ("shift", {"pixels": 1.5}), ("noise", {"sigma": 0.2}))),
        (
            " shift( pixels=2, whole=true ) , psf(fwhm=1.2,restore=False)",
            (("shift", {"pixels": 2.0, "whole": True}), ("psf", {"fwhm": 1.2, "restore": False})),
        ),
        ("rotation(interpolation=bilinear)", (("rotation", {"interpolation": "bilinear"}),)),
    ],
)
def test_words_are_read_and_written(words: str, steps: object) -> None:
    made = Augmentation.parse(words)
    assert made.steps == steps
    assert Augmentation.parse(str(made)) == made


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "dihedrl",
            r"unknown augmentation\n  found: dihedrl\n  known: background, bands, .*\n  fix: did you mean 'dihedral'",
        ),
        ("shift(pixel=1)", r"no such setting.*\n  found: pixel=1\n  known: pixels, interpolation, whole"),
        ("shift(pixels=1,pixels=2)", "has it twice"),
        ("shift()", None),
        ("shift(1)", "no such setting"),
        ("shift=far", r"wrong type\n  found: far\n  expected: a number"),
        ("shift(whole=1)", "wrong type"),
        ("shift=-1", "out of range"),
        ("shift=nan", "out of range"),
        ("rotation=400", "out of range"),
        ("psf", r"needs a value"),
        ("noise", "exactly one measure"),
        ("dihedral dihedral", "cannot be read"),
        ("dihedral,dihedral", "named twice"),
        ("dihedral,,shift=1", "cannot be read"),
        ("shift(pixels=1", "cannot be read"),
    ],
)
def test_words_that_cannot_be_read(words: str, message: str | None) -> None:
    if message is None:
        assert Augmentation.parse(words).steps == (("shift", {}),)
        return
    with pytest.raises(InputError, match=message):
        Augmentation.parse(words)


def test_a_chain_is_its_parts_in_turn() -> None:
    sample = with_image(sky(6), ivar=torch.full((6, 2, 1, 1), NOISE**-2))
    chain = Augmentation.parse("dihedral,shift=1,noise=0.5")(sample, seed=4, epoch=5)
    by_hand = noise.apply(
        shift.apply(dihedral.apply(sample, seed=4, epoch=5), seed=4, epoch=5, pixels=1.0), seed=4, epoch=5, sigma=0.5
    )
    assert torch.equal(image_of(chain).flux, image_of(by_hand).flux)
    assert torch.equal(chain.truth["xy"].value, by_hand.truth["xy"].value)
    assert Augmentation()(sample, seed=0, epoch=0) is sample
