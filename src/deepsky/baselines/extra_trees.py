"""Extremely randomised trees (Geurts+2006): faster to grow than a random forest, thresholds at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepsky.baselines._family import Family, Kind, rebuild
from deepsky.baselines._trees import Trees, fit_forest
from deepsky.baselines._truth import Array


def fit(
    features: Array,
    target: Array,
    *,
    kind: Kind,
    weights: Array | None = None,
    seed: int = 0,
    balanced: bool = False,
    trees: int = 200,
    leaf: int = 2,
    share: float | None = None,
    jobs: int = -1,
    smooth: bool = True,
) -> Family:
    """Trees on bootstrap samples, the best of random thresholds in a random share of the features.

    Parameters
    ----------
    leaf : at least so many training objects in a leaf.
    share : of the features tried at a node; None: the root of their number for classes, a third for values.
    jobs : threads that grow trees, -1 for all processors; the forest does not depend on it.
    smooth : let the prior count as one tree more, so that no class is excluded.
    """
    return fit_forest("extra", features, target, kind=kind, weights=weights, seed=seed, balanced=balanced, trees=trees,
                      leaf=leaf, share=share, jobs=jobs, smooth=smooth)  # fmt: skip


def from_config(config: Mapping[str, Any]) -> Family:
    """Make it again from `config`, its arrays empty."""
    return rebuild(config, Trees)
