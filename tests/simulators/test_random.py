from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from deepsky.errors import InputError
from deepsky.simulators._random import Draws, magnitudes, rayleigh, tabulated, truncated_normal

U = (np.arange(20_000) + 0.5) / 20_000


def test_a_rewound_generator_is_a_new_one():
    draws = Draws(7)
    for number, stream, attempt in ((0, 0, 0), (5, 1, 0), (5, 1, 3), (2**40, 2, 0)):
        fresh = np.random.Generator(np.random.Philox(key=[7, number], counter=[0, 0, attempt, stream]))
        mine = draws.generator(number, stream, attempt)
        assert (mine.random(5) == fresh.random(5)).all()
        assert (mine.standard_normal(3, dtype=np.float32) == fresh.standard_normal(3, dtype=np.float32)).all()


def test_an_object_owns_its_numbers():
    draws, numbers = Draws(3), np.array([4, 9, 2])
    together, alone = draws.uniform(numbers, 6), Draws(3).uniform(np.array([9]), 6)
    assert (together[1] == alone[0]).all()
    assert (draws.uniform(numbers, 3) == together[:, :3]).all()  # and more of them change none
    others = [draws.uniform(numbers, 6, stream=1), draws.uniform(numbers, 6, attempt=1), Draws(4).uniform(numbers, 6)]
    assert all(np.abs(together - other).min() > 0 for other in others)
    noise = draws.normal(numbers, (2, 3))
    assert (noise[2] == Draws(3).normal(np.array([2]), (2, 3))[0]).all() and noise.dtype == np.float32


def test_numbers_of_neighbouring_objects_and_seeds_are_independent():
    u = np.concatenate([Draws(s).uniform(np.arange(2000), 4) for s in range(3)], axis=1)
    assert abs(np.corrcoef(u.T) - np.eye(12)).max() < 4 / np.sqrt(2000)
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 4 / np.sqrt(2000)
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_out_of_range(seed):
    with pytest.raises(InputError, match="seed out of range"):
        Draws(seed)


def test_truncated_normal_and_rayleigh_are_scipys():
    reference = stats.truncnorm((100 - 230) / 50, (400 - 230) / 50, 230, 50)
    np.testing.assert_allclose(truncated_normal(U, 230.0, 50.0, 100.0, 400.0), reference.ppf(U), rtol=1e-9)
    x = rayleigh(U, 0.03, 0.1)
    assert x.max() <= 0.1
    low, high = stats.rayleigh(scale=0.03).cdf([0.0, 0.1])
    np.testing.assert_allclose(x, stats.rayleigh(scale=0.03).ppf(low + U * (high - low)), rtol=1e-6)


def test_counts_rise_by_their_slope():
    m = magnitudes(U, 22.0, 27.0, 0.3)
    assert m.min() >= 22 and m.max() <= 27
    bright, faint = ((m > 24) & (m < 25)).sum(), ((m > 25) & (m < 26)).sum()
    assert np.log10(faint / bright) == pytest.approx(0.3, abs=0.01)


def test_a_tabulated_density_is_drawn():
    x, density = np.array([0.45, 0.55, 0.65, 0.75, 0.85, 0.95]), np.array([0.0, 20.0, 17.0, 13.0, 9.0, 0.0])
    drawn = tabulated(U, x, density)
    area = np.concatenate([[0], np.cumsum(0.5 * (density[1:] + density[:-1]) * 0.1)])
    for point, share in zip(x, area / area[-1], strict=True):
        assert (drawn < point).mean() == pytest.approx(share, abs=1e-3)
    inside = drawn[(drawn > 0.45) & (drawn < 0.55)]  # a ramp: mean at two thirds
    assert inside.mean() == pytest.approx(0.45 + 0.1 * 2 / 3, abs=1e-3)
