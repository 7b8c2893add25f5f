"""Folds by group: a stable hash of group and seed, balanced where a survey is small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from deepsky.survey import FOLDS, Survey

FRACTIONS = (0.6, 0.1, 0.1, 0.2)


def columns(
    survey: Survey, *, seed: int = 0, fractions: Sequence[float] = FRACTIONS, near_duplicates: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) group and (n,) fold."""
    group = survey.key
    u = _uniform(group, seed)
    edges = np.cumsum(fractions)[:-1]
    return group, np.asarray(FOLDS, dtype=object)[np.searchsorted(edges, u, side="right")]


def _uniform(group: np.ndarray, seed: int) -> np.ndarray:
    """(n,) numbers in [0, 1) that depend on group and seed alone (splitmix64)."""
    z = group.astype(np.uint64) + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**53


def with_folds(survey: Survey, **options: Any) -> Survey:
    """The survey with its columns group and fold."""
    group, fold = columns(survey, **options)
    words = pa.array(fold.tolist(), pa.string()).dictionary_encode()
    return survey.with_columns({"group": pa.array(group, pa.uint64()), "fold": words}, {})
