"""Exact zeros of an image: areas of them are its blank parts, zeros that lie scattered are measurements.

Quantised pixels (Rice at a coarse level) and counts of photons are zero by right in one pixel of ten, or in most. To
lose those is to lose the pixels nearest to zero, and with them the mean.
"""

from __future__ import annotations

import math

import numpy as np

LEAST = 4  # pixels: side of the smallest square of zeros that is blank
LARGE = 32  # the same among counts, whose rate may be lower elsewhere
MOST = 128  # a larger one would be needed: no area can be told from chance
COMMON = 0.25  # a share of zeros from which they are counts, whole numbers or not
CHANCE = 23.0  # one such square by chance in exp(23) = 1e10 pixels


def share(first: np.ndarray, second: np.ndarray) -> float:
    """The share of zeros where an image is not blank: of the neighbours of other values.

    An area of zeros adds to them only along its edge. 1 where nothing but zeros is seen.

    Parameters
    ----------
    first, second : values of pixels that lie side by side.

    >>> share(np.array([0.0, 0.0, 0.0, 2.0]), np.array([0.0, 0.0, 1.0, 3.0]))
    0.3333333333333333
    """
    sound = np.isfinite(first) & np.isfinite(second)
    edge = int(np.count_nonzero(((first == 0) != (second == 0)) & sound))
    full = int(np.count_nonzero((first != 0) & (second != 0) & sound))
    return edge / (edge + 2 * full) if edge + full else 1.0


def side_of(share: float, *, whole: bool) -> int:
    """Side [pixel] of the smallest square of zeros that is no chance, 0 if there is none.

    Parameters
    ----------
    share : of zeros among measured pixels. Neighbours may be correlated: half of the pixels are taken for independent.
    whole : all values are whole numbers.
    """
    if share >= 1:
        return 0
    least = LARGE if whole or share > COMMON else LEAST
    side = max(least, math.ceil(math.sqrt(2 * CHANCE / -math.log(share)))) if share > 0 else least
    return side if side <= MOST else 0


def areas(zero: np.ndarray, side: int) -> np.ndarray:
    """(..., y, x) bool: the pixels of squares of `side` pixels that are zero throughout.

    The first and last side - 1 rows and columns serve as surroundings and are not returned.

    >>> areas(np.pad(np.ones((3, 3), bool), 4), 3).sum(), areas(np.pad(np.ones((3, 3), bool), 4), 4).sum()
    (np.int64(9), np.int64(0))
    """
    for axis in (-1, -2):
        zero = _run(zero, side, axis, np.logical_and)
    for axis in (-1, -2):
        zero = _run(zero, side, axis, np.logical_or)
    return zero


def _run(values: np.ndarray, length: int, axis: int, how: np.ufunc) -> np.ndarray:
    """`how` over every run of `length` values along an axis, in steps that double."""
    values, done = values.swapaxes(axis, -1), 1
    while done < length:
        step = min(done, length - done)
        values = how(values[..., :-step], values[..., step:])
        done += step
    return values.swapaxes(axis, -1)
