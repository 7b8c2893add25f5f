"""Is it a strong lens, from u g r i images of the ground: the lens-finding challenge (Metcalf+2019)."""

from __future__ import annotations

from pathlib import Path

from deepsky.recipe import Published, Recipe
from deepsky.recipes import _lenses
from deepsky.survey import Survey

SIZES = {"tiny": (600, 300), "quick": (2_000, 1_000), "full": (60_000, 100_000)}
MORE = {"tiny": 0, "quick": 0, "full": 40_000}  # of bright arcs, too few to be learnt in a fair sample
RARE = {"theta_e": (0.6, 3.0), "min_arc_snr": 15.0}
PIXELS = 64  # of 101: the central 12.8", within which every Einstein radius of up to 3" and its arcs lie
MEASURES = _lenses.challenge_measures(auroc=0.98, tpr10=0.45)
SOURCE = "Metcalf+2019, A&A 625, A119"


def survey(size: str, folder: Path) -> Survey:
    """Simulated KiDS images."""
    train, test = SIZES[size]
    return _lenses.survey("kids-lenses", folder, train, test, survey="kids", size=PIXELS, more=MORE[size], rare=RARE)


def fresh(size: str, folder: Path) -> Survey:
    """A small survey that the model never saw, one object in twenty a lens."""
    return _lenses.fresh("kids-field", folder, 200 if size == "tiny" else 400, survey="kids", size=PIXELS)


RECIPE = Recipe(
    name="lens-ground",
    question="is it a strong lens",
    data=f"simulated KiDS u g r i, {PIXELS} x {PIXELS} pixels of 0.2 arcsec, half of them lenses, with confusers",
    real=False,
    task=_lenses.TASK,
    survey=survey,
    training={
        "tiny": {"network": "resnet", "steps": 60, "baseline": None},
        "quick": {"network": "resnet", "epochs": 14, "baseline": None},
        "full": {**_lenses.NETWORK, "epochs": 12, "batch": 128, "channels": "detail", "baseline": None},
    },
    measures=MEASURES,
    scores=_lenses.scores,
    truth=_lenses.truth,
    classical=_lenses.classical(
        {
            "tiny": {"family": "logistic", "features": "colour+edges"},
            "quick": {"family": "svm", "features": "colour+edges"},
            "full": {"family": "gradient-boosting", "features": "colour+edges"},
        }
    ),
    classical_name="gradient boosting on colours and edges (SVM in the quick, logistic regression in the tiny setting)",
    limit=_lenses.limit(MEASURES),
    limit_name="likelihood ratio of the noiseless arcs with known lens light, confusers left out",
    published=(
        Published("AUROC", 0.9814, "Lanusse resnet, best of the challenge", SOURCE),
        Published("TPR0", 0.2237, "Hartley SVM, best of the challenge", SOURCE),
        Published("TPR10", 0.4534, "Lanusse resnet, best of the challenge", SOURCE),
    ),
    notes="Colours and edges beat the challenge's Gabor and HOG features here; the stronger is quoted. Both systems "
    "learn from 88,000 images, two fifths of them with bright arcs or without; the challenge gave 20,000. The "
    "classical one is tried without the bright arcs and without the kinds of the confusers too, and keeps what is "
    "better on validation.",
    sources=_lenses.SOURCES,
    by=("theta_e", "snr_arc", "kind"),
)
