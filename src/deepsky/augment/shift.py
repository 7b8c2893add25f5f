"""Shift by a part of a pixel or by some, so that a network does not lean on objects being centred.

What comes from beyond the edge gets ``ivar`` 0. Truth: vectors and boxes move along, maps like images; scalars,
ellipticities and angles stay. In a survey of several images the shift is the same on the sky, in pixels of the first.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from deepsky import random
from deepsky.augment import _fourier, _parts, _warp
from deepsky.errors import InputError
from deepsky.sample import Image, Sample, Truth


def apply(
    sample: Sample, *, seed: int, epoch: int, pixels: float = 1.0, interpolation: str = "fourier", whole: bool = False
) -> Sample:
    """Shift each object by its own amount, uniform in -`pixels` to `pixels` in x and in y.

    Parameters
    ----------
    pixels : the largest shift on each axis.
    interpolation : "fourier" (exact for images that sample their PSF, noise stays white) or "bilinear" (smooths
        object and noise).
    whole : only whole pixels, for which nothing is interpolated.

    Raises
    ------
    InputError : a setting out of range, or several images whose pixel scales are not known.
    """
    _parts.at_least(pixels, 0.0, "pixels")
    _parts.images(sample)
    u = torch.from_numpy(random.uniform(seed, epoch, sample.key, (2,), "shift"))
    if whole:
        steps = int(pixels)
        return shift(sample, (u * (2 * steps + 1)).floor() - steps, interpolation="bilinear")  # moves, smooths nothing
    return shift(sample, (2 * u - 1) * pixels, interpolation=interpolation)


def shift(sample: Sample, offset: Tensor, *, interpolation: str = "fourier") -> Sample:
    """Shift each object by `offset` (n, 2) pixels of its first image, in x and y.

    Raises
    ------
    InputError : a shift larger than an image, or several images whose pixel scales are not known.
    """
    _warp.known(interpolation)
    images = _parts.images(sample)
    first = next(iter(images.values()))
    offset = offset.double()
    largest = float(offset.abs().max()) if offset.numel() else 0.0
    if largest >= min(first.flux.shape[-2:]) / 2:
        raise InputError("a shift leaves less than half of an image", found=f"{largest:.3g} pixels",
                         expected=f"under {min(first.flux.shape[-2:]) / 2:g} pixels")  # fmt: skip
    changes: dict[str, Image] = {}
    for name, image in images.items():
        mine = offset if image is first else offset * _ratio(first, image, name)[:, None]
        where, move = _mover(image.flux, mine, interpolation)
        changes[name] = _warp.moved(image, where, move)
    truth = _parts.moved(sample.truth, lambda name, t: _moved_truth(name, t, offset, first, interpolation))
    return _parts.changed(sample, changes, truth)


def _ratio(first: Image, other: Image, name: str) -> Tensor:
    ratio = (first.pixel_scale / other.pixel_scale).double()
    if not bool(ratio.isfinite().all()):
        raise InputError("a shift on several images needs their pixel scales", keyword=name, found="pixel_scale nan",
                         expected="arcsec a pixel, for each image")  # fmt: skip
    return ratio


def _mover(x: Tensor, offset: Tensor, interpolation: str) -> tuple[Tensor, _warp.Move]:
    unturned = torch.eye(2, dtype=torch.float64).expand(len(offset), 2, 2)
    where = _warp.grid(unturned, -offset, (x.shape[-2], x.shape[-1]))
    return where, _warp.linear(where) if interpolation == "bilinear" else lambda t: _fourier.shifted(t, offset)


def _moved_truth(name: str, truth: Truth, offset: Tensor, first: Image, interpolation: str) -> Truth:
    if truth.moves == "image":  # a map covers the same sky as the image, on its own pixels
        ratio = truth.value.shape[-1] / first.flux.shape[-1]
        return _warp.moved_map(truth, *_mover(truth.value, offset * ratio, interpolation))
    if truth.moves not in {"vector", "boxes"}:
        return truth
    if truth.value.ndim < 2:
        raise InputError("a vector has two components", keyword=name, found=tuple(truth.value.shape),
                         expected="(n, 2): x, y", fix="name both components as targets")  # fmt: skip
    if truth.unit not in {"", "pix", "pixel"}:
        raise InputError("a shift is counted in pixels, and this target is not", keyword=name, found=truth.unit,
                         expected="pix", fix="give it in pixels, or leave shift out")  # fmt: skip
    step = offset if truth.moves == "vector" else offset.repeat(1, 2)
    step = step.reshape(len(step), *[1] * (truth.value.ndim - 2), -1)
    return replace(truth, value=(truth.value.double() + step).to(truth.value.dtype))
