"""Constant: the shares of the classes, or the mean and spread of the values, whatever is observed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepsky.baselines._family import Constant, Family, Kind, rebuild
from deepsky.baselines._truth import Array, Training, train


def fit(
    features: Array,
    target: Array,
    *,
    kind: Kind,
    weights: Array | None = None,
    seed: int = 0,
    balanced: bool = False,
) -> Family:
    """Weighted shares, or weighted mean and standard deviation; see `deepsky.baselines.fit_family`."""

    def one(training: Training) -> Constant:
        return training.constant()

    return train(one, features, target, kind=kind, weights=weights, balanced=balanced, seed=seed, together=True)


def from_config(config: Mapping[str, Any]) -> Family:
    """Make it again from `config`, its arrays empty."""
    return rebuild(config)
