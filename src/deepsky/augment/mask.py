"""Bad pixels: some, and dead columns or rows if asked for, get ``ivar`` 0 in each band.

Fluxes are left alone, since nothing reads them there any more. Truth stays as it is.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from deepsky import random
from deepsky.augment import _parts
from deepsky.sample import Sample


def apply(sample: Sample, *, seed: int, epoch: int, fraction: float = 0.02, stripes: float = 0.0) -> Sample:
    """Mark pixels of each band of each object as not measured.

    Parameters
    ----------
    fraction : share of pixels lost, each on its own.
    stripes : mean number of columns and rows lost, together, in a band.

    Raises
    ------
    InputError : a setting out of range.
    """
    _parts.at_least(fraction, 0.0, "fraction", 1.0)
    changes = {}
    for name, image in _parts.images(sample).items():
        bands, height, width = image.flux.shape[1:]
        _parts.at_least(stripes, 0.0, "stripes", (height + width) / 2)
        u = torch.from_numpy(random.uniform(seed, epoch, sample.key, (bands, height, width), f"mask/{name}"))
        dead = u < fraction
        if stripes:
            drawn = random.uniform(seed, epoch, sample.key, (bands, height + width), f"stripes/{name}")
            lost = torch.from_numpy(drawn) < stripes / (height + width)
            dead = dead | lost[:, :, :height, None] | lost[:, :, None, height:]
        changes[name] = replace(image, ivar=torch.where(dead.to(image.ivar.device), 0.0, image.ivar))
    return _parts.changed(sample, changes)
