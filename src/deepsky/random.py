"""Random numbers by counter: a draw follows from (seed, epoch, stream, key, index) alone, whatever else is drawn.

So an object gets the same draws in every batch, in every order and with any number of workers. The generator is
SplitMix64 (Steele+14), whose state starts at a hash of (seed, epoch, stream, key) for each object:

    mix(z):   z ^= z >> 30; z *= 0xBF58476D1CE4E5B9; z ^= z >> 27; z *= 0x94D049BB133111EB; z ^= z >> 31
    next(s):  mix(s + G), with G = 0x9E3779B97F4A7C15
    start:    s = next(seed); s = next(s ^ epoch); s = next(s ^ hash of the stream's name); s = next(s ^ key)
    word i:   mix(s + (i + 1) G), i = 0, 1, ...

all modulo 2^64. Not for cryptography.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deepsky.errors import InputError

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BLOCK = 1 << 15  # words at a time: what fits in a processor's cache
Keys = NDArray[np.integer] | Tensor | Sequence[int]
Words = NDArray[np.uint64]


def uniform(seed: int, epoch: int, keys: Keys, shape: tuple[int, ...] = (), stream: str = "") -> NDArray[np.float64]:
    """Draws in [0, 1) for each object: (n, *shape) float64, with 53 random bits each.

    Parameters
    ----------
    seed, epoch : integers, taken modulo 2^64.
    keys : (n,) the objects' keys, int64 or uint64.
    stream : a name for what the draws are for; other names, other draws.

    Raises
    ------
    InputError : keys that are not integers.
    """
    size = math.prod(shape)
    state = _states(seed, epoch, keys, stream)
    words = _words(np.repeat(state, size), np.tile(np.arange(1, size + 1, dtype=np.uint64), len(state)))
    return ((words >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(len(state), *shape)


def normal(seed: int, epoch: int, keys: Keys, shape: tuple[int, ...] = (), stream: str = "") -> NDArray[np.float32]:
    """Draws from the standard normal distribution for each object: (n, *shape) float32.

    Both outcomes of Box and Muller (1958) from the halves of one word: numbers 2i and 2i + 1 of an object come from its
    word i, so that the largest possible draw is 6.76.

    Raises
    ------
    InputError : keys that are not integers.
    """
    size = math.prod(shape)
    pairs = (size + 1) // 2
    state = _states(seed, epoch, keys, stream)
    made = np.empty((len(state), pairs, 2), np.float32)
    flat = made.reshape(-1, 2)
    for low in range(0, len(flat), _BLOCK):  # blocks for speed only: they change no number
        at = np.arange(low, min(low + _BLOCK, len(flat)), dtype=np.uint64)
        owner = at // np.uint64(max(1, pairs))
        words = _words(state[owner.astype(np.intp)], at - owner * np.uint64(pairs) + np.uint64(1))
        high = (words >> np.uint64(32)).astype(np.float32)
        turn = (words & np.uint64(0xFFFFFFFF)).astype(np.float32) * np.float32(2 * math.pi * 2.0**-32)
        radius = np.sqrt(np.float32(-2) * np.log((high + np.float32(0.5)) * np.float32(2.0**-32)))
        flat[low : low + len(words), 0] = radius * np.cos(turn)
        flat[low : low + len(words), 1] = radius * np.sin(turn)
    return made.reshape(len(state), 2 * pairs)[:, :size].reshape(len(state), *shape)


def integers(
    seed: int, epoch: int, keys: Keys, below: int, shape: tuple[int, ...] = (), stream: str = ""
) -> NDArray[np.int64]:
    """Draws from 0, 1, ..., `below` - 1 for each object: (n, *shape) int64.

    Raises
    ------
    InputError : keys that are not integers, or nothing to choose from.
    """
    if below < 1:
        raise InputError("there is nothing to choose from", found=below, expected="1 or more")
    return (uniform(seed, epoch, keys, shape, stream) * below).astype(np.int64)


def _states(seed: int, epoch: int, keys: Keys, stream: str) -> Words:
    """(n,) the state from which each object's words start."""
    given = np.asarray(keys.cpu() if isinstance(keys, Tensor) else keys)
    if given.size == 0:
        return np.zeros(0, np.uint64)
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise InputError("keys are integers in one row", found=f"{given.dtype} {given.shape}", expected="int64 (n,)")
    name = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")
    state = np.zeros(1, np.uint64)
    for part in (seed, epoch, name):
        state = _next(state ^ np.uint64(part % 2**64))
    return _next(
        state ^ given.astype(np.int64).view(np.uint64) if given.dtype.kind == "i" else state ^ given.astype(np.uint64)
    )


def _next(state: Words) -> Words:
    return _mix(state + GOLDEN)


def _words(state: Words, number: Words) -> Words:
    return _mix(state + number * GOLDEN)


def _mix(z: Words) -> Words:
    """The finaliser of SplitMix64, on a fresh array, which it changes."""
    z ^= z >> np.uint64(30)
    z *= _FIRST
    z ^= z >> np.uint64(27)
    z *= _SECOND
    z ^= z >> np.uint64(31)
    return z
