"""Missing bands: some get ``ivar`` 0 throughout, but never all of an object.

Truth stays as it is.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from deepsky import random
from deepsky.augment import _parts
from deepsky.sample import Sample


def apply(sample: Sample, *, seed: int, epoch: int, probability: float = 0.1) -> Sample:
    """Take bands away from each object, so that a model learns to do without.

    Parameters
    ----------
    probability : with which each band goes missing; one that is measured always stays, even at 1.

    Raises
    ------
    InputError : a setting out of range.
    """
    _parts.at_least(probability, 0.0, "probability", 1.0)
    changes = {}
    for name, image in _parts.images(sample).items():
        bands = image.flux.shape[1]
        u = torch.from_numpy(random.uniform(seed, epoch, sample.key, (bands,), f"bands/{name}")).to(image.ivar.device)
        there = (image.ivar > 0).expand(-1, bands, -1, -1).any(-1).any(-1)
        kept = torch.where(there, u, -1.0).argmax(1)  # of those that are there, the last to go
        lost = (u < probability).scatter(1, kept[:, None], False)
        changes[name] = replace(image, ivar=torch.where(lost[:, :, None, None], 0.0, image.ivar))
    return _parts.changed(sample, changes)
