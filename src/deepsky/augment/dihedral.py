"""Flips and turns by 90 degrees: no pixel changes its value.

Images, inverse variances and PSFs are turned about their centres, each object by one of the eight elements of the
group of the square (four where an image is not square: half turns and flips). Truth: scalars stay; vectors and boxes
turn; (e1, e2) turns by twice the angle, and e2 changes its sign in a mirror; angles of an axis turn modulo half a turn,
directions modulo a full one, and both change their sense in a mirror; maps turn like images. A ``fixed`` column is
refused, and of a ``handed`` one all flips.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Final, TypeVar

import numpy as np
import torch
from torch import Tensor

from deepsky import random
from deepsky.augment import _parts
from deepsky.sample import Part, Sample

P = TypeVar("P", bound=Part)
VIEWS: Final = {1: (0,), 4: (0, 1, 2, 3), 8: tuple(range(8))}  # the image alone, its turns, and its flips too


def apply(sample: Sample, *, seed: int, epoch: int, flips: bool = True, turns: bool = True) -> Sample:
    """Give each object of a batch one of its eight views, each as likely.

    Parameters
    ----------
    flips, turns : leave either out with False, e.g. flips where the sense of a spiral's arms is asked for.

    Raises
    ------
    InputError : a target whose behaviour is not declared.
    """
    images = _parts.images(sample)
    arrays = [t for i in images.values() for t in (i.flux, i.psf) if t is not None]
    arrays += [t.value for t in sample.truth.values() if t.moves == "image"]
    quarter = 1 if all(a.shape[-1] == a.shape[-2] for a in arrays) else 2
    elements = [4 * m + r for m in range(2 if flips else 1) for r in range(0, 4 if turns else 1, quarter)]
    drawn = random.integers(seed, epoch, sample.key, len(elements), stream="dihedral")
    return view(sample, np.asarray(elements, np.int64)[drawn])


def view(sample: Sample, element: np.ndarray) -> Sample:
    """Each object's view number `element` (n,), 0 to 7: a flip of x from 4 on, then `element` % 4 turns.

    One turn brings (x, y) to (y, -x), as ``rot90`` does with rows that run downwards.

    Raises
    ------
    InputError : a target whose behaviour is not declared.
    """
    images = _parts.images(sample)
    groups = _parts.groups(element)
    turn = turn_of(element)
    truth = _parts.turned(sample.truth, turn, lambda t: _view(t, groups), "dihedral")
    return _parts.changed(
        sample, {name: _view(image, groups, keep="pixel_scale") for name, image in images.items()}, truth
    )


def turn_of(element: np.ndarray) -> _parts.Turn:
    """What view number `element` (n,) does to points and to ellipses."""
    cos, sin = np.array([1, 0, -1, 0]), np.array([0, -1, 0, 1])
    sense = np.where(element >= 4, -1, 1)  # to flip x is to flip y and to turn by 180 degrees
    return _parts.Turn(*(torch.from_numpy(v) for v in (sense * cos[element % 4], sense * sin[element % 4], sense)))


def _view(part: P, groups: _parts.Groups, keep: str = "") -> P:
    """All arrays of a part turned by groups of objects that share an element."""
    arrays = {f.name: v for f in fields(part) if f.name != keep and isinstance(v := getattr(part, f.name), Tensor)}
    return replace(part, **{name: _parts.quarter_turned(array, groups) for name, array in arrays.items()})
