"""Bins: every object once, at least a hundred in each, ties together, the unmeasured apart."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepsky.errors import InputError
from deepsky.metrics import binning as b
from deepsky.metrics import classification as c
from deepsky.metrics import regression as r
from deepsky.metrics.intervals import bootstrap


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 700), st.integers(1, 12), st.integers(1, 150), st.integers(0, 3), st.integers(0, 10**6))
def test_every_object_is_in_one_bin_of_the_least_size(n, bins, minimum, digits, seed):
    rng = np.random.default_rng(seed)
    x = np.round(rng.exponential(1, n), digits)
    x[rng.random(n) < 0.1] = np.nan
    made = b.quantile_bins(x, bins, minimum)
    rows = np.concatenate([m.rows for m in made]) if made else np.zeros(0, int)
    assert sorted(rows) == list(range(n))
    measured = [m for m in made if not np.isnan(m.low)]
    assert len(measured) <= bins
    assert len(measured) <= 1 or min(m.n for m in measured) >= minimum
    for left, right in pairwise(measured):
        assert left.high < right.low  # equal values are never parted
    for m in measured:
        assert (m.low, m.high) == (x[m.rows].min(), x[m.rows].max())
    if np.isnan(x).any():
        assert np.isnan(x[made[-1].rows]).all() and made[-1].label == "not measured"


def test_equal_numbers_and_labels_with_units():
    x = np.linspace(18, 24, 1000)
    made = b.quantile_bins(x, 5, name="r", unit="mag")
    assert [m.n for m in made] == [200] * 5
    assert made[0].label == "r 18 to 19.2 mag" and made[-1].label == "r 22.8 to 24 mag"
    close = b.quantile_bins(1 + 1e-5 * x, 2)
    assert len({m.label for m in close}) == 2
    assert [m.n for m in b.quantile_bins(x[:150], 5)] == [150]
    assert [m.label for m in b.quantile_bins(np.full(300, 2.0), 3)] == ["2"]


def test_words_make_a_bin_each():
    made = b.value_bins(np.array(["g"] * 150 + ["r"] * 120 + ["u"] * 20 + ["z"] * 5 + [""] * 3), name="band")
    assert [(m.label, m.n) for m in made] == [
        ("band g", 150),
        ("band r", 120),
        ("band other", 25),
        ("band not measured", 3),
    ]
    assert [m.label for m in b.value_bins(np.array(["a", None, float("nan")], dtype=object), minimum=1)] == [
        "a",
        "not measured",
    ]


def test_a_binned_figure_is_the_figure_of_the_bin():
    rng = np.random.default_rng(0)
    truth = rng.random(600) < 0.5
    scores, mag = rng.normal(truth, 1), rng.uniform(18, 24, 600)
    mag[:40] = np.nan
    groups = rng.integers(0, 100, 600)
    made = b.binned(c.auroc, (scores, truth), mag, groups, bins=3, name="r", unit="mag", replicates=100)
    assert [m.n for m, _ in made] == [187, 186, 187, 40]
    for m, estimate in made:
        here = bootstrap(c.auroc, scores[m.rows], truth[m.rows], groups=groups[m.rows], replicates=100)
        assert estimate == here
    rows = json.loads(json.dumps(made.json(), allow_nan=False))
    assert rows[-1]["label"] == "r not measured" and rows[-1]["from"] is None and rows[-1]["n"] == 40
    # the same bins for another model
    again = b.binned(r.mae, (scores,), made.bins, groups, replicates=10)
    assert [m.label for m, _ in again] == [m.label for m, _ in made] and len(again) == 4


def test_a_bin_of_one_class_stays_and_is_not_defined():
    x = np.arange(400.0)
    made = b.binned(c.auroc, (x, x > 250), x, bins=4, replicates=50)
    assert [np.isnan(e.value) for _, e in made] == [True, True, False, True]


def test_words_are_binned_by_value():
    band = np.repeat(["g", "r"], 150)
    made = b.binned(r.mean_bias, (np.repeat([0.1, 0.3], 150),), band, name="band")
    assert [(m.label, e.value) for m, e in made] == [("band g", pytest.approx(0.1)), ("band r", pytest.approx(0.3))]


def test_a_column_of_another_length_is_refused():
    with pytest.raises(InputError, match="to bin by"):
        b.binned(r.bias, (np.zeros(3),), np.zeros(4))
