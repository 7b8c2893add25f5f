"""Groups into parts of given sizes: by a stable hash, and balanced over strata where there are few."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SMALL = 20_000  # objects up to which parts are balanced; above, the hash alone is even enough


def uniform(group: np.ndarray, seed: int) -> np.ndarray:
    """(n,) numbers in [0, 1) that depend on group and seed alone (splitmix64; Steele, Lea & Flood 2014)."""
    z = group.astype(np.uint64) + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return np.asarray((z >> np.uint64(11)).astype(np.float64) / 2.0**53)


def divide(group: np.ndarray, strata: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """(n,) number of the part of each object; a group is never cut.

    Parameters
    ----------
    group : (n,) uint64.
    strata : (n,) int64, balanced over the parts where there are at most `SMALL` objects.
    shares : of the parts, with a sum of one.
    """
    chance = uniform(group, seed)
    if len(group) > SMALL:
        return np.searchsorted(np.cumsum(shares)[:-1], chance, side="right")
    _, first, member = np.unique(group, return_index=True, return_inverse=True)
    classes = int(strata.max(initial=0)) + 1
    count = np.zeros((len(first), classes))
    np.add.at(count, (member, strata), 1.0)
    part = _balanced(count, chance[first], np.asarray(shares, dtype=np.float64))
    return np.asarray(part[member])


def _balanced(count: np.ndarray, chance: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(g,) part of each group: large groups first, each where it is missed most; then single objects to the rest."""
    size = count.sum(axis=1)
    target = count.sum(axis=0)[:, None] * shares
    have = np.zeros_like(target)
    part = np.zeros(len(size), np.int64)
    many = np.flatnonzero(size > 1)
    scale = np.where(target > 0, target, np.inf)
    for g in many[np.lexsort((chance[many], -size[many]))]:
        lack = ((target - have) / scale * count[g][:, None]).sum(axis=0)
        lack[shares == 0] = -np.inf
        best = int(lack.argmax())
        part[g] = best
        have[:, best] += count[g]
    single = np.flatnonzero(size == 1)
    stratum = count[single].argmax(axis=1)
    carry = np.zeros(len(shares))
    for c in np.argsort(np.bincount(stratum, minlength=count.shape[1]), kind="stable"):
        rows = single[stratum == c]
        need = np.maximum(target[c] - have[c], 0.0)
        if len(rows) == 0:
            continue
        quota = len(rows) * (need / need.sum() if need.sum() > 0 else shares)
        number = np.floor(quota).astype(np.int64)
        rest = quota - number + carry
        rest[shares == 0] = -np.inf
        for _ in range(len(rows) - int(number.sum())):
            best = int(rest.argmax())
            number[best] += 1
            rest[best] -= 1.0
        carry += quota - number
        part[rows[np.argsort(chance[rows], kind="stable")]] = np.repeat(np.arange(len(shares)), number)
    return part
