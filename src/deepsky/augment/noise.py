"""Noise added, as if the exposure had been shorter; ``ivar`` says so.

White noise is added to every measured pixel. Truth stays as it is. ``ivar`` must be that of a noise: where it is only
a mask, since the noise is unknown, its unit means nothing, and training refuses.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from deepsky import random
from deepsky.augment import _parts
from deepsky.errors import InputError
from deepsky.sample import Sample

NOISE = True


def apply(
    sample: Sample, *, seed: int, epoch: int, sigma: float = 0.0, magnitudes: float = 0.0, depth: float = 0.0
) -> Sample:
    """Add noise to each object, by exactly one of three measures.

    Parameters
    ----------
    sigma : up to this many times the noise that a pixel has, the amount uniform from 0 for each object.
    magnitudes : up to this much shallower, the amount uniform from 0 for each object.
    depth : to this noise in a pixel [the images' unit], the same for all; deeper pixels only, others stay.

    Raises
    ------
    InputError : none or several of the three, or one out of range.
    """
    given = {"sigma": sigma, "magnitudes": magnitudes, "depth": depth}
    for name, value in given.items():
        _parts.at_least(value, 0.0, name)
    if sum(value > 0 for value in given.values()) != 1:
        found = ", ".join(name for name, value in given.items() if value) or "none"
        raise InputError("noise is added by exactly one measure", found=found, known=given,
                         fix="for instance noise=0.5, noise(magnitudes=1) or noise(depth=0.1)")  # fmt: skip
    images = _parts.images(sample)
    u = torch.from_numpy(random.uniform(seed, epoch, sample.key, stream="noise"))
    changes = {}
    for name, image in images.items():
        more = _parts.column(1 + (sigma * u).square() if sigma else 10 ** (0.8 * magnitudes * u), image.ivar)
        ivar = torch.where(image.ivar > depth**-2, depth**-2, image.ivar) if depth else image.ivar / more
        z = torch.from_numpy(random.normal(seed, epoch, sample.key, image.flux.shape[1:], f"noise/{name}"))
        flux = image.flux + z.to(image.flux.device) * _added(image.ivar, ivar)
        changes[name] = replace(image, flux=flux.to(image.flux.dtype), ivar=ivar.to(image.ivar.dtype))
    return _parts.changed(sample, changes)


def _added(before: Tensor, after: Tensor) -> Tensor:
    """Standard deviation that takes one inverse variance to the other; 0 where nothing is measured."""
    more = 1 / torch.where(after > 0, after, 1.0) - 1 / torch.where(before > 0, before, 1.0)
    return torch.where(before > 0, more, 0.0).clamp(min=0).sqrt()
