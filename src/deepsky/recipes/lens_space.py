"""Is it a strong lens, from Euclid VIS images: the space half of the lens-finding challenge (Metcalf+2019)."""

from __future__ import annotations

from pathlib import Path

from deepsky.recipe import Published, Recipe
from deepsky.recipes import _lenses
from deepsky.survey import Survey

SIZES = {"tiny": (600, 300), "quick": (2_000, 1_000), "full": (40_000, 120_000)}
MORE = {"tiny": 0, "quick": 0, "full": 30_000}  # of bright arcs, too few to be learnt in a fair sample
RARE = {"theta_e": (0.5, 3.0), "min_arc_snr": 15.0}
PIXELS = 80  # of 101: the central 8.0"
MEASURES = _lenses.challenge_measures(auroc=0.9325, tpr10=0.36)
SOURCE = "Metcalf+2019, A&A 625, A119"


def survey(size: str, folder: Path) -> Survey:
    """Simulated Euclid VIS images."""
    train, test = SIZES[size]
    return _lenses.survey(
        "euclid-lenses", folder, train, test, survey="euclid", size=PIXELS, more=MORE[size], rare=RARE
    )


RECIPE = Recipe(
    name="lens-space",
    question="is it a strong lens",
    data=f"simulated Euclid VIS, {PIXELS} x {PIXELS} pixels of 0.1 arcsec, half of them lenses, with confusers",
    real=False,
    task=_lenses.TASK,
    survey=survey,
    training={
        "tiny": {"network": "resnet", "steps": 60, "baseline": None},
        "quick": {"network": "resnet", "epochs": 14, "baseline": None},
        "full": {**_lenses.NETWORK, "epochs": 14, "batch": 128, "channels": "detail", "baseline": None},
    },
    measures=MEASURES,
    scores=_lenses.scores,
    truth=_lenses.truth,
    classical=_lenses.classical(
        {
            "tiny": {"family": "logistic", "features": "edges"},
            "quick": {"family": "svm", "features": "edges"},
            "full": {"family": "gradient-boosting", "features": "edges+gabor"},
        }
    ),
    classical_name="gradient boosting on edges and Gabor features (on edges alone in the short settings)",
    limit=_lenses.limit(MEASURES),
    limit_name="likelihood ratio of the noiseless arcs with known lens light, confusers left out",
    published=(
        Published("AUROC", 0.9325, "LASTRO 13b, best of the challenge", SOURCE),
        Published("TPR0", 0.2207, "Lanusse resnet, best of the challenge", SOURCE),
        Published("TPR10", 0.3570, "GAMOCLASS, best of the challenge", SOURCE),
    ),
    sources=_lenses.SOURCES,
    by=("theta_e", "snr_arc", "kind"),
    notes="Both systems learn from 62,000 images, half of them with bright arcs or without; the challenge gave 20,000. "
    "The classical one is tried without the bright arcs and without the kinds of the confusers too, and keeps what is "
    "better on validation.",
)
