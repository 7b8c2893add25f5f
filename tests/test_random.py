"""Draws by counter: held against the definition in plain integers, known values, and statistics."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy import stats

from deepsky import random
from deepsky.errors import InputError

MASK, GOLDEN = 2**64 - 1, 0x9E3779B97F4A7C15
KEYS = np.array([5, -3, 2**62, 0], np.int64)


def mix(z: int) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def word(seed: int, epoch: int, key: int, index: int, stream: str) -> int:
    """The definition in the module's docstring, in integers without a width."""
    name = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")
    state = 0
    for part in (seed, epoch, name, key):
        state = mix(((state ^ part % 2**64) + GOLDEN) & MASK)
    return mix((state + (index + 1) * GOLDEN) & MASK)


def test_published_values_of_splitmix64() -> None:
    """The first words from the state 1234567, as other implementations list them."""
    words = random._words(np.full(5, 1234567, np.uint64), np.arange(1, 6, dtype=np.uint64))
    assert words.tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (42, 7), (-1, 2**40)])
def test_uniform_follows_the_definition(seed: int, epoch: int) -> None:
    found = random.uniform(seed, epoch, KEYS, (2, 3), "shift")
    for row, key in enumerate(KEYS.tolist()):
        expected = [(word(seed, epoch, key, i, "shift") >> 11) * 2.0**-53 for i in range(6)]
        assert found[row].ravel().tolist() == expected


def test_normal_follows_the_definition() -> None:
    found = random.normal(3, 1, KEYS, (5,), "noise")
    assert found.dtype == np.float32 and found.shape == (4, 5)
    for row, key in enumerate(KEYS.tolist()):
        for i in range(5):
            w = word(3, 1, key, i // 2, "noise")
            radius = math.sqrt(-2 * math.log(((w >> 32) + 0.5) / 2**32))
            turn = 2 * math.pi * (w & 0xFFFFFFFF) / 2**32
            assert found[row, i] == pytest.approx(radius * (math.sin(turn) if i % 2 else math.cos(turn)), abs=2e-5)


def test_frozen_values() -> None:
    """Computed once from the definition: a saved run must see the same sky after an update."""
    assert random.uniform(1, 2, [3], (2,), "frozen")[0].tolist() == [
        (word(1, 2, 3, i, "frozen") >> 11) * 2.0**-53 for i in range(2)
    ]
    assert word(1, 2, 3, 0, "frozen") == 1972511622873668523


def test_neighbours_and_order_change_nothing() -> None:
    keys = np.random.default_rng(0).integers(-(2**63), 2**63, 500)
    some = np.random.default_rng(1).permutation(500)[:77]
    for draw in (random.uniform, random.normal):
        whole = draw(1, 4, keys, (3, 67), "a")
        assert np.array_equal(draw(1, 4, keys[some], (3, 67), "a"), whole[some])
        assert np.array_equal(draw(1, 4, torch.from_numpy(keys), (3, 67), "a"), whole)
        for other in (draw(2, 4, keys, (3, 67), "a"), draw(1, 5, keys, (3, 67), "a"), draw(1, 4, keys, (3, 67), "b")):
            assert not np.isclose(other, whole).all(axis=(1, 2)).any()


def test_key_as_signed_or_unsigned() -> None:
    signed = np.array([-1, 7], np.int64)
    assert np.array_equal(random.uniform(0, 0, signed, (2,)), random.uniform(0, 0, signed.view(np.uint64), (2,)))


@pytest.mark.parametrize("keys", [np.arange(20_000), np.arange(20_000) << 40, np.arange(20_000) * (2**63 // 20_000)])
def test_uniform_whatever_the_keys(keys: np.ndarray) -> None:
    u = random.uniform(9, 9, keys, (4,), "test")
    assert u.min() >= 0 and u.max() < 1
    for column in u.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    grid = np.histogram2d(u[:, 0], u[:, 1], bins=16, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(grid.ravel()).pvalue > 1e-4
    # neither an object's own draws nor those of its neighbour, epoch, seed or stream are correlated
    others = [random.uniform(9, 10, keys, (4,), "test"), random.uniform(10, 9, keys, (4,), "test"),
              random.uniform(9, 9, keys, (4,), "tess"), np.roll(u, 1, 0)]  # fmt: skip
    for first, second in [(u[:, 0], u[:, 1]), (u[:, 0], u[:, 3]), *((u.ravel(), o.ravel()) for o in others)]:
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(len(first))


def test_every_bit_is_fair() -> None:
    words = random._words(random._states(1, 1, np.arange(50_000), "bits"), np.ones(50_000, np.uint64))
    ones = np.unpackbits(words.view(np.uint8)).reshape(50_000, 64).mean(0)
    assert (np.abs(ones - 0.5) < 5 * 0.5 / math.sqrt(50_000)).all()


def test_normal_is_normal() -> None:
    z = random.normal(1, 2, np.arange(500), (401,), "noise").ravel().astype(float)
    assert stats.kstest(z, "norm").pvalue > 1e-4
    assert abs(z.mean()) < 5 / math.sqrt(len(z))
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / len(z))
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / len(z))
    assert abs(np.corrcoef(z[:-1:2], z[1::2])[0, 1]) < 5 / math.sqrt(len(z) / 2)
    assert abs(np.corrcoef(z[:-1:2] ** 2, z[1::2] ** 2)[0, 1]) < 5 / math.sqrt(len(z) / 2)


def test_integers() -> None:
    found = random.integers(0, 0, np.arange(16_000), 8, (), "dihedral")
    assert found.dtype == np.int64
    assert stats.chisquare(np.bincount(found, minlength=8)).pvalue > 1e-4 and found.max() == 7


def test_shapes_and_errors() -> None:
    assert random.uniform(0, 0, [], (3,)).shape == (0, 3)
    assert random.normal(0, 0, [], (3, 2)).shape == (0, 3, 2)
    assert random.normal(0, 0, [1, 2]).shape == (2,)
    assert random.normal(0, 0, [1, 2], (0,)).shape == (2, 0)
    with pytest.raises(InputError, match="integers"):
        random.uniform(0, 0, np.array([1.5]))
    with pytest.raises(InputError, match="nothing to choose"):
        random.integers(0, 0, [1], 0)
