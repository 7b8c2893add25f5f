"""Draws keyed by (seed, object number): object i is the same whatever n, the first object or the number of workers.

Philox is a function of a key and a counter, so that every object owns its numbers and nothing is carried from one to
the next. The key is (seed, number), the counter's upper words are (attempt, stream).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from deepsky.errors import InputError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PARAMETERS: Final = 0  # streams: what an object is drawn from, and what it is drawn with
NOISE: Final = 1
FIELD: Final = 2
POISSON: Final = 3


class Draws:
    """The random numbers of a sky.

    Parameters
    ----------
    seed : of the sky, 0 to 2**63 - 1.

    Raises
    ------
    InputError : the seed is out of range.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 2**63:
            raise InputError("a seed out of range", found=seed, expected="0 to 2**63 - 1")
        self.seed = seed
        self._bits = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64))
        self._state: Any = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def generator(self, number: int, stream: int, attempt: int = 0) -> np.random.Generator:
        """The generator of one object, valid until the next call (rewinding one is ten times faster than making it)."""
        state = self._state
        state["state"]["key"][:] = (self.seed, number)
        state["state"]["counter"][:] = (0, 0, attempt, stream)
        state["buffer_pos"], state["has_uint32"], state["uinteger"] = 4, 0, 0
        self._bits.state = state
        return self._generator

    def uniform(self, numbers: Integers, count: int, *, stream: int = PARAMETERS, attempt: int = 0) -> Floats:
        """(n, count) uniform numbers in [0, 1), a row for each object."""
        out = np.empty((len(numbers), count))
        for row, number in zip(out, numbers.tolist(), strict=True):
            self.generator(number, stream, attempt).random(out=row)
        return out

    def normal(self, numbers: Integers, shape: tuple[int, ...], *, stream: int = NOISE) -> NDArray[np.float32]:
        """(n, *shape) standard normal numbers, float32."""
        out = np.empty((len(numbers), *shape), np.float32)
        for row, number in zip(out, numbers.tolist(), strict=True):
            self.generator(number, stream).standard_normal(out=row, dtype=np.float32)
        return out

    def poisson(self, numbers: Integers, mean: NDArray[Any], *, stream: int = POISSON) -> NDArray[np.float32]:
        """Poisson numbers with the means `mean` (n, ...), float32."""
        out = np.empty(mean.shape, np.float32)
        for row, number, lam in zip(out, numbers.tolist(), mean, strict=True):
            row[...] = self.generator(number, stream).poisson(np.maximum(lam, 0.0))
        return out


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch has one thread: the number of threads changes the last bits of a sum, and helps little here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# -- from a uniform number to a distribution, by the inverse of its cumulative function ----------------------------
def truncated_normal(u: Floats, mean: float | Floats, sigma: float | Floats, low: float, high: float) -> Floats:
    """A normal distribution between `low` and `high`."""
    a, b = ndtr((low - mean) / sigma), ndtr((high - mean) / sigma)
    return np.asarray(np.clip(mean + sigma * ndtri(a + u * (b - a)), low, high))


def rayleigh(u: Floats, scale: float | Floats, high: float = np.inf) -> Floats:
    """A Rayleigh distribution below `high`."""
    return np.asarray(scale * np.sqrt(-2 * np.log1p(-u * -np.expm1(-0.5 * (high / scale) ** 2))))


def magnitudes(u: Floats, bright: float | Floats, faint: float | Floats, slope: float = 0.3) -> Floats:
    """Magnitudes with counts ``10**(slope m)`` between `bright` and `faint`."""
    low = np.power(10.0, slope * (np.asarray(bright) - np.asarray(faint)))
    return np.asarray(faint + np.log10(low + u * (1 - low)) / slope)


def tabulated(u: Floats, x: Floats, density: Floats) -> Floats:
    """A distribution given by its density at the points `x`, linear between them."""
    area = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(x))])
    i = np.clip(np.searchsorted(area, u * area[-1], side="right") - 1, 0, len(x) - 2)
    step, slope = np.diff(x)[i], (np.diff(density) / np.diff(x))[i]
    rest = u * area[-1] - area[i]
    # the root of slope/2 t**2 + density t = rest that stays finite when the slope vanishes
    root = np.sqrt(np.maximum(density[i] ** 2 + 2 * slope * rest, 0.0))
    return np.asarray(x[i] + np.clip(2 * rest / np.maximum(density[i] + root, 1e-300), 0.0, step))
