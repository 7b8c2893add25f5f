"""Features by name: what a classical family sees of an image or of a catalogue row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepsky.baselines import _colour, _edges, _gabor, _hog, _moments, _pixels, _shape
from deepsky.baselines._images import Noise, Pixels, prepare
from deepsky.errors import InputError

CHUNK = 32  # images at a time: what a processor's cache holds


@dataclass(frozen=True)
class Feature:
    """`values`: Pixels -> (n, features); `names`: (bands, (y, x)) -> the columns; `doc`: one line."""

    values: Callable[[Pixels], Tensor]
    names: Callable[[tuple[str, ...], tuple[int, int]], tuple[str, ...]]
    doc: str


FEATURES: Mapping[str, Feature] = {
    module.__name__.rsplit("._", 1)[-1]: Feature(module.values, module.names, (module.__doc__ or "").split("\n")[0])
    for module in (_colour, _shape, _moments, _hog, _gabor, _edges, _pixels)
}
ROW = "row"  # the numbers of a catalogue as they stand; not to be joined with features of images


def parts(name: str) -> tuple[str, ...]:
    """("colour", "hog") of "colour+hog".

    Raises
    ------
    InputError : an unknown feature, one named twice, or "row" joined with another.
    """
    found = tuple(p.strip() for p in name.split("+"))
    for p in found:
        if p not in FEATURES and p != ROW:
            raise InputError("no such feature", found=p, known=[*FEATURES, ROW])
    if len(set(found)) < len(found):
        raise InputError("a feature is named twice", found=name)
    if ROW in found and len(found) > 1:
        raise InputError("the numbers of a row cannot be joined with features of images", found=name)
    return found


def names(name: str, shape: tuple[int, ...], bands: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Of the columns of `extract`, for observations of `shape`: (band, y, x), or (feature,) of a row."""
    labels = bands or tuple(f"{'f' if name == ROW else 'b'}{i}" for i in range(shape[0]))
    if len(labels) != shape[0]:
        raise InputError("not as many names as bands", found=len(labels), expected=shape[0])
    if parts(name) == (ROW,):
        return labels
    return tuple(n for p in parts(name) for n in FEATURES[p].names(labels, (shape[1], shape[2])))


@torch.no_grad()
def extract(
    name: str, flux: Tensor | np.ndarray[Any, Any], ivar: Tensor | np.ndarray[Any, Any], noise: Noise = "measured"
) -> Tensor:
    """(n, features) float32 of images (n, band, y, x) or rows (n, feature).

    Parameters
    ----------
    name : one of `FEATURES`, several joined by "+", or "row".
    ivar : broadcastable to `flux`; values where it is 0 have no effect.
    noise : "unknown" if ivar is only a mask of ones and zeros; then the noise is estimated from the pixels.

    Returns
    -------
    Finite numbers, or NaN for what could not be measured (a band that is missing): a family puts the mean of its
    training objects there. Memory grows by the features only: images are read a few at a time, from a memory map too.
    """
    chosen = parts(name)
    if chosen == (ROW,):
        row, weight = _tensor(flux), _tensor(ivar)
        if row.ndim != 2:
            raise InputError("not rows", found=tuple(row.shape), expected="(n, feature)")
        return torch.where((weight > 0).expand(row.shape), row.float(), torch.nan)
    if len(flux) == 0 and flux.ndim == 4:
        return torch.zeros(0, len(names(name, tuple(flux.shape[1:]))))
    whole = ivar.ndim == flux.ndim and ivar.shape[0] == flux.shape[0]
    found = []
    for start in range(0, max(len(flux), 1), CHUNK):
        rows = slice(start, start + CHUNK)
        pixels = prepare(_tensor(flux[rows]), _tensor(ivar[rows] if whole else ivar), noise)
        found.append(torch.cat([FEATURES[p].values(pixels).float() for p in chosen], 1))
    return torch.cat(found)


def _tensor(array: Tensor | np.ndarray[Any, Any]) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach()
    # a memory map that cannot be written is copied; other byte orders and widths become float32
    return torch.from_numpy(np.array(array, dtype=np.float32))
