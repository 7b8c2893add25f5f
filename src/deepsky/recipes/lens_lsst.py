"""Completeness over Einstein radius and S/N in single LSST g exposures (Lanusse+2018, CMU DeepLens)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepsky.metrics import classification
from deepsky.metrics.intervals import Estimate
from deepsky.recipe import Measure, Published, Recipe
from deepsky.recipes import _lenses
from deepsky.survey import Survey

SIZES = {"tiny": (600, 400), "quick": (3_000, 2_000), "full": (60_000, 40_000)}
MORE = {"tiny": 200, "quick": 1_000, "full": 72_000}  # of large, bright arcs, too few to be learnt in a fair sample
RARE = {"theta_e": (1.2, 3.0), "min_arc_snr": 15.0}
LARGE, BRIGHT, FPR = 1.4, 20.0, 0.01  # arcsec, arc S/N, false positive rate


def survey(size: str, folder: Path) -> Survey:
    """Simulated single LSST g exposures."""
    train, test = SIZES[size]
    return _lenses.survey("lsst-lenses", folder, train, test, survey="lsst", more=MORE[size], rare=RARE)


def truth(survey: Survey) -> np.ndarray:
    """(n, 4): 1 for a lens, Einstein radius [arcsec], arc S/N, 1 for a lens galaxy without arcs."""
    columns = [np.nan_to_num(survey.column(n).astype(np.float64)) for n in ("theta_e", "snr_arc")]
    return np.stack([_lenses.truth(survey), *columns, survey.column("kind") == "galaxy"], axis=1)


def completeness(s: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Any:
    """Completeness of lenses with theta_E > 1.4" and arc S/N > 20 at a false positive rate of 1% of all others."""
    return _found(s, y, (y[:, 0] == 0) | _obvious(y), weight)


def against_galaxies(s: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Any:
    """The same lenses at a false positive rate of 1% of lens galaxies without arcs: the paper's negatives."""
    return _found(s, y, (y[:, 3] == 1) | _obvious(y), weight)


def _obvious(y: np.ndarray) -> np.ndarray:
    found: np.ndarray = (y[:, 1] > LARGE) & (y[:, 2] > BRIGHT)
    return found


def _found(s: np.ndarray, y: np.ndarray, kept: np.ndarray, weight: np.ndarray | None) -> Any:
    few = None if weight is None else np.asarray(weight)[..., kept]
    return classification.tpr_at_fpr(s[kept], y[kept, 0].astype(np.int64), FPR, weight=few)


def auroc(s: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Any:
    """Area under the ROC curve of all lenses against all others."""
    return classification.auroc(s, y[:, 0].astype(np.int64), weight=weight)


def all_lenses(s: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Any:
    """Completeness of all lenses at a false positive rate of 1%."""
    return classification.tpr_at_fpr(s, y[:, 0].astype(np.int64), FPR, weight=weight)


MEASURES = (
    Measure("completeness", completeness, "higher", (completeness.__doc__ or ""), 0.90),
    Measure("completeness, galaxies alone", against_galaxies, "higher", (against_galaxies.__doc__ or "")),
    Measure("completeness, all", all_lenses, "higher", (all_lenses.__doc__ or "")),
    Measure("AUROC", auroc, "higher", (auroc.__doc__ or "")),
)


def limit(test: Survey, size: str) -> Mapping[str, Estimate]:
    """The likelihood ratio with known lens light, under the same cuts."""
    ratio, _ = _lenses.limit_scores(test)
    y, groups = truth(test), test.column("group")
    return {m.name: m.of(ratio, y, groups) for m in MEASURES}


RECIPE = Recipe(
    name="lens-lsst",
    question="is it a strong lens, by Einstein radius and S/N",
    data="simulated single LSST g exposures, 45 x 45 pixels of 0.2 arcsec, half of them lenses, with confusers",
    real=False,
    task=_lenses.TASK,
    survey=survey,
    training={
        "tiny": {"network": "resnet", "steps": 60, "channels": "detail", "baseline": None},
        "quick": {"network": "resnet", "epochs": 10, "channels": "detail", "baseline": None},
        "full": {**_lenses.NETWORK, "epochs": 14, "batch": 128, "channels": "detail", "baseline": None},
    },
    measures=MEASURES,
    scores=_lenses.scores,
    truth=truth,
    classical=_lenses.classical(
        {
            "tiny": {"family": "gradient-boosting", "features": "edges"},
            "quick": {"family": "gradient-boosting", "features": "edges"},
            "full": {"family": "gradient-boosting", "features": "edges+gabor"},
        },
        completeness,
        truth,
    ),
    classical_name="gradient boosting on edges and Gabor features (on edges alone in the short settings)",
    limit=limit,
    limit_name="likelihood ratio of the noiseless arcs with known lens light, confusers left out",
    published=(
        Published(
            "completeness, galaxies alone",
            0.90,
            "CMU DeepLens, 46 layers, single epochs",
            "Lanusse+2018, MNRAS 473, 3895",
        ),
    ),
    sources=_lenses.SOURCES,
    by=("theta_e", "snr_arc", "kind"),
    notes="The network is the small pre-activation resnet, shown the asymmetry of each image as well; depth='lanusse' "
    "is the paper's, for a GPU. Both systems learn from 120,000 images, most of them of bright arcs or the same "
    "galaxies without; the paper had 16,000. The classical one is tried without the bright arcs and without the kinds "
    "of the confusers too, and keeps what is better on validation.",
)
