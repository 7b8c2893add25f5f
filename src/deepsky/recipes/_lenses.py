"""What the lens recipes share: data from the simulator, the classical systems, and the likelihood-ratio limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepsky import plan, store, training
from deepsky.catalogue import Catalogue
from deepsky.inference import predict
from deepsky.metrics import classification, tpr0
from deepsky.metrics.intervals import Estimate
from deepsky.model import Model
from deepsky.recipe import Measure
from deepsky.sample import Image, Sample, Truth
from deepsky.simulators._parallel import simulate_many
from deepsky.survey import FOLDS, Survey
from deepsky.tasks.classify import Classify

SEEDS = {"train": 101, "valid": 111, "calib": 121, "test": 202, "more": 404}
FRESH_SEED = 303
KEPT = ("is_lens", "kind", "theta_e", "snr_arc", "magnification", "z_lens", "z_source", "source_magnitude")
UNIT = 100
TASK = Classify("is_lens", subclasses="kind")  # a simulation knows what each confuser is
NETWORK = {"network": "asymmetry:resnet", "views": 4}  # the lens galaxy is the same on both sides, its arcs are not
TRIED = 20_000  # objects on which ways to fit a classical system are compared
SOURCES = (  # what the figures of a lens recipe rest on
    "simulators",
    "recipes._lenses",
    "tasks.classify",
    "networks.asymmetry",
    "networks.resnet",
    "networks._blocks",
    "normalise",
    "baselines",
)


def survey(
    name: str, folder: Path, train: int, test: int, workers: int = 2, more: int = 0,
    rare: Mapping[str, Any] | None = None, **arguments: Any
) -> Survey:  # fmt: skip
    """`train` objects for training, validation and calibration, 8 : 1 : 1, and `test` objects; each fold its own sky.

    Parameters
    ----------
    more, rare : so many further training objects, simulated with these arguments: the cases a survey asks about can be
        too few in a fair sample to be learnt. Validation, calibration and test stay fair.
    """
    if (folder / "schema.json").exists():
        return Survey.load(folder)
    tenth = max(1, train // 10)
    skies = {"train": (train - 2 * tenth, {}), "valid": (tenth, {}), "calib": (tenth, {}), "more": (more, rare or {}),
             "test": (test, {})}  # fmt: skip
    return store.write(
        _samples(skies, workers, arguments), folder, name=name, dtype="float16", real=False,
        source="deepsky.simulators.lenses",
        folds={"fold_column": "split", "near_duplicates": False},
    )  # fmt: skip


def _samples(
    skies: Mapping[str, tuple[int, Mapping[str, Any]]], workers: int, arguments: Mapping[str, Any]
) -> Iterator[Sample]:
    for sky, (n, given) in skies.items():
        if n:
            for sample in simulate_many("lenses", n, seed=SEEDS[sky], workers=workers, **{**arguments, **given}):
                yield _kept(sample, "train" if sky == "more" else sky)


def _kept(sample: Sample, fold: str) -> Sample:
    """Without PSF stamps and bulky truth, and with the fold it belongs to; ids name survey, seed and number."""
    split = Truth(torch.full((len(sample),), FOLDS.index(fold)), classes=FOLDS)
    # in units of 100 nJy the brightest cores fit into float16, and the sky keeps three digits
    images = {
        n: replace(o, flux=o.flux / UNIT, ivar=o.ivar * UNIT**2, unit=f"{UNIT} {o.unit}", psf=None)
        for n, o in sample.observations.items()
        if isinstance(o, Image)
    }
    return replace(sample, observations=images, truth={**{k: sample.truth[k] for k in KEPT}, "split": split})


def fresh(name: str, folder: Path, n: int, **arguments: Any) -> Survey:
    """A small survey that no model has seen, with far fewer lenses than the training set."""
    if (folder / "schema.json").exists():
        return Survey.load(folder)
    samples = simulate_many("lenses", n, seed=FRESH_SEED, lens_fraction=0.05, **arguments)
    return store.write((_kept(s, "test") for s in samples), folder, name=name, dtype="float16")


def scores(catalogue: Catalogue, survey: Survey) -> np.ndarray:
    """Probability of a lens."""
    return catalogue.column("p_lens").astype(np.float64)


def truth(survey: Survey) -> np.ndarray:
    """1 for a lens."""
    found: np.ndarray = (survey.column("is_lens") == "lens").astype(np.int64)
    return found


def classical(
    settings: Mapping[str, Any],
    metric: Callable[..., Any] = classification.auroc,
    truth: Callable[[Survey], np.ndarray] = truth,
) -> Any:
    """A classical system fitted on the same training truth: ``settings`` names family, features and size by size.

    A network gains from the rare cases added to its training sample and from the kinds of the confusers; a system of a
    few features can lose by either. It is therefore tried with and without each, and the way with the highest `metric`
    on the validation fold is taken.
    """

    def of(model: Model, fold: Survey) -> float:
        return float(metric(scores(predict(model, fold, quiet=True), fold), truth(fold)))

    def run(judged: Survey, size: str) -> Catalogue:
        given = dict(settings[size])
        family = given.pop("family")
        whole = judged.whole or judged
        more = np.array([str(name).split("-")[-2] == str(SEEDS["more"]) for name in whole.id])
        samples = [whole, whole.select(~more, "without the rare cases added")] if more.any() else [whole]

        def fit(task: Classify, sample: Survey) -> Model:
            return training.train(task, sample, network=family, settings=given, quiet=True)

        ways = [(task, sample) for task in (TASK, Classify("is_lens")) for sample in samples]
        tried = [fit(task, _fewer(sample, TRIED)) for task, sample in ways]
        best = int(np.argmax([of(m, whole.fold("valid")) for m in tried]))
        task, sample = ways[best]
        made = tried[best] if _fewer(sample, TRIED) is sample else fit(task, sample)
        return predict(made, judged, quiet=True)

    return run


def _fewer(sample: Survey, most: int) -> Survey:
    """The sample with at most so many training objects, evenly taken."""
    learnt = np.flatnonzero(sample.column("fold") == "train")
    kept = np.ones(len(sample), bool)
    kept[np.setdiff1d(learnt, learnt[plan.spread(len(learnt), most)])] = False
    return sample if kept.all() else sample.select(kept, f"{most:,} training objects")


def limit_scores(survey: Survey) -> tuple[np.ndarray, np.ndarray]:
    """Scores of an observer who knows the lens light and the noiseless arcs, and asks only whether they are there.

    The log likelihood ratio of arcs of matched-filter S/N s is Gaussian with variance s^2 and mean +-s^2 / 2. Each lens
    is held against an empty sky with the same arcs' template, drawn with a fixed seed: what confusers cost is left
    out, so no system can do better.
    """
    snr = survey.column("snr_arc").astype(np.float64)
    lens = truth(survey) == 1
    noise = np.random.default_rng(7).normal(size=len(snr))
    template = np.where(lens, snr, np.resize(snr[lens], len(snr)) if lens.any() else 0.0)
    ratio = template * noise + np.where(lens, 0.5, -0.5) * template**2
    return ratio, lens.astype(np.int64)


def limit(measures: tuple[Measure, ...]) -> Any:
    """The limit as figures of `measures`."""

    def run(test: Survey, size: str) -> Mapping[str, Estimate]:
        ratio, lens = limit_scores(test)
        groups = test.column("group")
        return {m.name: m.of(ratio, lens, groups) for m in measures if m.applies(lens)}

    return run


def _tpr10(s: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Any:
    return classification.tpr_at_false_positives(s, y, 10, weight=weight)


def _tpr0(s: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Any:
    return classification.tpr_at_false_positives(s, y, 0, weight=weight)


def _tpr_at(fpr: float) -> Any:
    def metric(s: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Any:
        return classification.tpr_at_fpr(s, y, fpr, weight=weight)

    return metric


def challenge_measures(auroc: float, tpr10: float) -> tuple[Measure, ...]:
    """The challenge's figures with their targets."""
    many = 40_000
    return (
        Measure("AUROC", classification.auroc, "higher", "area under the ROC curve", auroc),
        Measure(
            "TPR0",
            _tpr0,
            "higher",
            "highest true positive rate with no false positive",
            estimate=tpr0.tpr0,
            difference=tpr0.tpr0_difference,
            negatives=many,
        ),
        Measure(
            "TPR10",
            _tpr10,
            "higher",
            "highest true positive rate with fewer than ten false positives",
            tpr10,
            negatives=many,
        ),
        Measure("TPR at FPR 1%", _tpr_at(0.01), "higher", "true positive rate at a false positive rate of 1%"),
    )
