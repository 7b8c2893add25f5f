"""Shear bias: exact on exact input, intervals that cover, and what pairs buy."""

from __future__ import annotations

import numpy as np
import pytest

from deepsky.errors import InputError
from deepsky.metrics.shear import shear_bias, shear_response

M, C = np.array([0.02, -0.01]), np.array([5e-4, -3e-4])


def pairs(rng, n, noise=0.01, shape=0.25):
    g = rng.uniform(-0.05, 0.05, (n, 2))
    e = rng.normal(0, shape, (n, 2))
    true = np.repeat(g, 2, axis=0)
    turned = np.stack([e, -e], axis=1).reshape(-1, 2)  # spin 2: 90 degrees change the sign
    return (1 + M) * true + C + turned + rng.normal(0, noise, (2 * n, 2)), true, np.repeat(np.arange(n), 2)


def test_exact_input_gives_exact_m_and_c():
    g = np.random.default_rng(0).uniform(-0.05, 0.05, (50, 2))
    for j, made in enumerate(shear_bias((1 + M) * g + C, g)):
        assert made.m.value == pytest.approx(M[j], abs=1e-12) and made.c.value == pytest.approx(C[j], abs=1e-14)
    assert not made.in_order and shear_bias(g, g)[0].in_order


def test_it_is_weighted_least_squares():
    rng = np.random.default_rng(1)
    g, w = rng.uniform(-0.05, 0.05, (200, 2)), rng.uniform(0.1, 3, 200)
    o = g + rng.normal(0, 0.2, (200, 2))
    for j, made in enumerate(shear_bias(o, g, w)):
        slope, offset = np.polyfit(g[:, j], (o - g)[:, j], 1, w=np.sqrt(w))
        assert (made.m.value, made.c.value) == pytest.approx((slope, offset))


def test_intervals_cover_and_pairs_cancel_the_shapes():
    inside, width, alone = [], [], []
    for seed in range(150):
        o, t, label = pairs(np.random.default_rng(seed), 200)
        for j, made in enumerate(shear_bias(o, t, pairs=label)):
            inside += [made.m.low <= M[j] <= made.m.high, made.c.low <= C[j] <= made.c.high]
            width.append(made.m.high - made.m.low)
        alone += [b.m.high - b.m.low for b in shear_bias(o, t)]
    assert 0.92 < np.mean(inside) < 0.98
    # noise .01 a galaxy is left of .25: intervals 25 times as narrow
    assert np.median(alone) / np.median(width) == pytest.approx(25, rel=0.15)


def test_pairs_cancel_with_unequal_weights_too():
    rng = np.random.default_rng(3)
    o, t, label = pairs(rng, 300, noise=0.0)
    made = shear_bias(o, t, rng.uniform(0.5, 2, 600), pairs=label)
    assert [b.m.value for b in made] == pytest.approx(M, abs=1e-10)


def test_groups_are_the_independent_units():
    inside = {True: [], False: []}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        field = np.repeat(np.arange(40), 20)
        g = rng.uniform(-0.05, 0.05, (40, 2))[field]
        o = g + rng.normal(0, 0.01, (40, 2))[field] + rng.normal(0, 0.01, (800, 2))
        for by in inside:
            made = shear_bias(o, g, groups=field if by else None)
            inside[by] += [b.m.low <= 0 <= b.m.high for b in made]
    assert np.mean(inside[True]) > 0.9 and np.mean(inside[False]) < 0.6


def test_the_response_of_the_same_galaxies_is_free_of_shape_noise():
    rng = np.random.default_rng(4)
    shape, noise = rng.normal(0, 0.25, 500), rng.normal(0, 0.1, 500)
    plus, minus = ((1.02 * g + 5e-4) + shape + noise for g in (0.02, -0.02))
    made = shear_response(plus, minus, 0.02)
    assert made.m.value == pytest.approx(0.02, abs=1e-10)
    assert made.c.low < 5e-4 < made.c.high and made.c.high - made.c.low > 0.01


def test_what_cannot_be_fitted_is_refused():
    g = np.random.default_rng(5).uniform(-0.05, 0.05, (10, 2))
    with pytest.raises(InputError, match="never varies"):
        shear_bias(g, np.full_like(g, 0.02))
    with pytest.raises(InputError, match="sheared differently"):
        shear_bias(g, g, pairs=np.repeat(np.arange(5), 2))
    with pytest.raises(InputError, match="three"):
        shear_bias(g, g, groups=np.repeat([0, 1], 5))
    with pytest.raises(InputError, match="not zero"):
        shear_response(g[:, 0], g[:, 1], 0.0)
    with pytest.raises(InputError, match="finite"):
        shear_bias(g * np.nan, g)
