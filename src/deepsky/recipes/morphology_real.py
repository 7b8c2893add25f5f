"""Four classes of real galaxies, from the colour images and Hubble types of EFIGI (Baillard+2011)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deepsky import training
from deepsky.catalogue import Catalogue
from deepsky.crossval import crossvalidate
from deepsky.inference import predict
from deepsky.ingestion.run import ingest
from deepsky.metrics import classification
from deepsky.metrics.intervals import Estimate, bootstrap
from deepsky.model import Model
from deepsky.recipe import Measure, Recipe, data
from deepsky.survey import Survey
from deepsky.tasks.classify import Classify

WHERE = "the EFIGI catalogue, http://efigi.org (colour images of 88 x 88 pixels and EFIGI_attributes.txt)"
CLASSES, EDGES = ("E", "S0", "S", "Irr"), (-3.5, 0.5, 9.5)  # T <= -4, -3..0, 1..9, 10 and 11
TASK = Classify("T", classes=CLASSES, edges=EDGES)
TRAINING: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"network": "resnet", "steps": 40, "baseline": None},
    "quick": {"network": "resnet", "epochs": 6, "baseline": None},
    "full": {"network": "resnet", "epochs": 30, "baseline": None},
}
FOLDS = 5
Further = Callable[[Model, Survey, str, Path], tuple[Catalogue, Survey]]


def survey(size: str, folder: Path) -> Survey:
    """The images as they lie there, joined with T by the file's name; folds by group of near-duplicate images."""
    if (folder / "schema.json").exists():
        return Survey.load(folder)
    source = data("efigi", WHERE)
    made = ingest(
        source, folder, labels=source / "EFIGI_attributes.txt", folds={"seed": 0, "stratify": "T"}, quiet=True
    )
    return made


def scores(catalogue: Catalogue, judged: Survey) -> np.ndarray:
    """(n, 4) probabilities."""
    p = np.stack([catalogue.column(f"p_{c}").astype(np.float64) for c in CLASSES], axis=1)
    found: np.ndarray = p / p.sum(1, keepdims=True)
    return found


def truth(test: Survey) -> np.ndarray:
    """(n,) codes of the classes, -1 for the few without a type."""
    return TASK.bind(test).truth({"T": test.truth("T")})


def _of_likeliest(metric: Any) -> Any:
    """A figure of the likeliest class."""

    def figure(s: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Any:
        return metric(s.argmax(1), y, weight=weight)

    return figure


MEASURES = (
    Measure("accuracy", _of_likeliest(classification.accuracy), "higher", "share of galaxies in their class", 0.84),
    Measure("balanced accuracy", _of_likeliest(classification.balanced_accuracy), "higher",
            "mean over classes of the share in their class", 0.635),
    Measure("macro F1", _of_likeliest(classification.macro_f1), "higher", "mean over classes of F1", 0.701),
    Measure("log loss", classification.log_loss, "lower", "mean of -ln p(true class)"),
)  # fmt: skip


def _family(size: str) -> dict[str, Any]:
    return {
        "network": "random-forest" if size == "tiny" else "gradient-boosting",
        "settings": {"features": "colour+edges" if size == "tiny" else "colour+shape+edges"},
    }


def classical(judged: Survey, size: str) -> Catalogue:
    """Gradient boosting on colours, shapes and edges of the same images."""
    return predict(training.train(TASK, judged.whole or judged, quiet=True, **_family(size)), judged, quiet=True)


def _out_of_fold(name: str, arguments: Callable[[str], Mapping[str, Any]]) -> Further:
    """Answers for every galaxy, from `FOLDS` models none of which saw its group."""

    def measure(model: Model, judged: Survey, size: str, folder: Path) -> tuple[Catalogue, Survey]:
        whole = judged.whole or judged
        every = replace(whole.with_columns({"fold": np.full(len(whole), "test")}, {}), whole=None)
        k = 2 if size == "tiny" else FOLDS
        return crossvalidate(TASK, whole, k=k, to=folder / name, quiet=True, **arguments(size)), every

    return measure


def limit(test: Survey, size: str) -> Mapping[str, Estimate]:
    """What the labels allow: how often a type drawn between its own bounds falls into the class of T itself.

    EFIGI gives a lower and an upper bound to every type. A type uniform between them is another expert's verdict; the
    share that keeps its class is the accuracy at which a system can no longer be told from an expert.
    """
    t, low, high = (test.column(n).astype(np.float64) for n in ("T", "T_inf", "T_sup"))
    known = np.isfinite(t) & np.isfinite(low) & np.isfinite(high)
    edges = np.array(EDGES)
    kept = np.zeros(int(known.sum()))
    for fraction in (np.arange(20) + 0.5) / 20:
        drawn = np.round(low[known] + fraction * (high[known] - low[known]))
        kept += np.searchsorted(edges, drawn, side="right") == np.searchsorted(edges, t[known], side="right")

    def agreement(x: np.ndarray, weight: np.ndarray | None = None) -> Any:
        """Share of types drawn between their bounds that stay in their class."""
        return np.average(x) if weight is None else (weight * x).sum(-1) / weight.sum(-1)

    return {"accuracy": bootstrap(agreement, kept / 20, groups=test.column("group")[known])}


RECIPE = Recipe(
    name="morphology-real",
    question="elliptical, lenticular, spiral or irregular",
    data="EFIGI: SDSS colour images of 4,458 nearby galaxies, typed by experts",
    real=True,
    task=TASK,
    survey=survey,
    training=TRAINING,
    measures=MEASURES,
    scores=scores,
    truth=truth,
    classical=classical,
    classical_name="gradient boosting on colours, shapes and edges",
    limit=limit,
    limit_name="agreement of the experts' own bounds on T",
    further={
        f"{FOLDS}-fold": _out_of_fold("crossval", TRAINING.__getitem__),
        f"{FOLDS}-fold, classical": _out_of_fold("crossval-classical", _family),
    },
    sources=("tasks.classify", "calibration", "networks.resnet", "networks._blocks", "normalise"),
    notes="No published system was measured on these classes; the targets are a random forest on raw pixels.",
)
