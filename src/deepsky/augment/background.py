"""A sky that was subtracted a little wrongly: an offset, and a slope if asked for, in each band.

Both are measured in the noise of a typical pixel of that object and band. ``ivar`` and truth stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from deepsky import random
from deepsky.augment import _parts
from deepsky.sample import Sample

NOISE = True


def apply(sample: Sample, *, seed: int, epoch: int, level: float = 0.5, gradient: float = 0.0) -> Sample:
    """Add a plane to each band of each object.

    Parameters
    ----------
    level : the largest offset, of either sign [sigma of a pixel].
    gradient : the largest slope, from the centre to an edge, in any direction [sigma of a pixel].

    Raises
    ------
    InputError : a setting out of range.
    """
    _parts.at_least(level, 0.0, "level")
    _parts.at_least(gradient, 0.0, "gradient")
    changes = {}
    for name, image in _parts.images(sample).items():
        drawn = random.uniform(seed, epoch, sample.key, (image.flux.shape[1], 3), f"background/{name}")
        u = torch.from_numpy(drawn).to(image.flux.device, torch.float32)[..., None, None]
        ivar = image.ivar.expand(*image.flux.shape[:2], *image.ivar.shape[-2:])
        mean = ivar.sum((-2, -1), keepdim=True) / (ivar > 0).sum((-2, -1), keepdim=True).clamp(min=1)
        sigma = torch.where(mean > 0, mean, torch.inf).rsqrt()
        plane = level * (2 * u[:, :, 0] - 1)
        if gradient:
            y, x = (torch.linspace(-1, 1, n, device=u.device) for n in image.flux.shape[-2:])
            towards = 2 * math.pi * u[:, :, 2]
            plane = plane + gradient * u[:, :, 1] * (towards.cos() * x + towards.sin() * y[:, None])
        changes[name] = replace(image, flux=(image.flux + sigma * plane).to(image.flux.dtype))
    return _parts.changed(sample, changes)
