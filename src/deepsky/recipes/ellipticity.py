"""Ellipticities, and shear bias m and c, of GREAT3-like galaxies (Mandelbaum+2015, control-ground-constant)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from deepsky import store
from deepsky.baselines import hsm_regauss
from deepsky.catalogue import Catalogue, Meta
from deepsky.metrics.intervals import Estimate, bootstrap
from deepsky.metrics.shear import shear_bias
from deepsky.recipe import Measure, Published, Recipe
from deepsky.sample import Image, Sample, Truth
from deepsky.simulators import ellipticity as simulator
from deepsky.simulators._parallel import simulate_many
from deepsky.survey import Survey
from deepsky.tasks.regress import Regress

# training galaxies, and quadruples of galaxies that fix the response, and that test it
SIZES = {"tiny": (400, 200, 200), "quick": (3_000, 1_000, 1_000), "full": (120_000, 120_000, 160_000)}
SEED, BLOCK = 11, 16
FITTED = 20_000  # training galaxies for the classical system
LIMITED, NOISES = {"tiny": 2, "quick": 16, "full": 300}, 16  # blocks of galaxies for the limit, and noises of each
KEPT = ("sheared", "shear", "snr_matched", "re", "bulge_fraction", "psf_fwhm", "pair")
SPLITS = ("train", "calib", "test")


def survey(size: str, folder: Path) -> Survey:
    """Simulated GREAT3-like stamps with their PSFs; three skies for three folds."""
    if (folder / "schema.json").exists():
        return Survey.load(folder)
    return store.write(
        _samples(SIZES[size]), folder, name="great3-like", dtype="float16", source="deepsky.simulators.ellipticity",
        folds={"fold_column": "split", "fractions": (0.9, 0.1, 0.0, 0.0), "group_column": "pair_name",
               "near_duplicates": False, "stratify": ""},
    )  # fmt: skip


def _samples(sizes: tuple[int, ...]) -> Iterator[Sample]:
    for number, n in enumerate(sizes):
        pairs = "none" if number == 0 else "quadruple"
        for sample in simulate_many("ellipticity", n, seed=SEED + number, workers=2, pairs=pairs):
            image = sample.observations["image"]
            assert isinstance(image, Image)
            code = torch.full((len(sample),), number)
            pair = 4 * sample.truth["pair"].value.long() + number  # one name for each pair of each sky
            truth = {k: sample.truth[k] for k in KEPT}
            truth |= {"split": Truth(code, classes=SPLITS), "pair_name": Truth(pair.double())}
            yield replace(sample, truth=truth)


def truth(test: Survey) -> np.ndarray:
    """(n, 5): e1, e2 after shear, g1, g2 applied, name of the pair."""
    columns = [test.column(n).astype(np.float64) for n in ("sheared1", "sheared2", "shear1", "shear2", "pair_name")]
    return np.stack(columns, axis=1)


def scores(catalogue: Catalogue, judged: Survey) -> np.ndarray:
    """(n, 4): e1, e2 as predicted, and shears: the same less the mean, over the response, of the calibration fold.

    The response is half the difference of a pair over its shear; with +g and -g on the same galaxy and the same noise,
    shape noise and most pixel noise drop out of it (Pujol+2019); with the pair turned by 90 degrees, out of the mean.
    """
    e = np.stack([catalogue.column(n).astype(np.float64) for n in ("sheared1", "sheared2")], axis=1)
    where = {name: i for i, name in enumerate(judged.id)}
    rows = np.array([where[name] for name in catalogue.column("id")])
    g = np.stack([judged.column(n).astype(np.float64) for n in ("shear1", "shear2")], axis=1)[rows]
    calib = judged.column("fold")[rows] == "calib"
    slope, offset = np.ones(2), np.zeros(2)
    if calib.any():
        fitted = shear_bias(e[calib], g[calib], groups=judged.column("pair_name")[rows][calib])
        slope = np.array([1 + b.m.value for b in fitted])
        offset = np.array([b.c.value for b in fitted])
    return np.concatenate([e, (e - offset) / slope], axis=1)


def rms(s: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Any:
    """Root mean square error per component of the ellipticity (a - b)/(a + b) after shear."""
    each = ((s[:, :2] - y[:, :2]) ** 2).mean(1)
    return np.sqrt(np.average(each, weights=weight)) if weight is None or np.ndim(weight) == 1 else np.sqrt(
        (weight * each).sum(-1) / weight.sum(-1)
    )  # fmt: skip


def _bias(which: str, columns: slice) -> tuple[Any, Any]:
    def figure(s: np.ndarray, y: np.ndarray) -> float:
        values = [getattr(b, which).value for b in shear_bias(s[:, columns], y[:, 2:4], groups=y[:, 4])]
        return float(max(values, key=abs))

    def estimate(s: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Estimate:
        found = [getattr(b, which) for b in shear_bias(s[:, columns], y[:, 2:4], groups=y[:, 4])]
        worst: Estimate = max(found, key=lambda e: abs(e.value))
        return worst

    return figure, estimate


def _shear_measure(name: str, which: str, columns: slice, words: str, target: float | None) -> Measure:
    figure, estimate = _bias(which, columns)
    return Measure(name, figure, "zero", words, target, estimate)


PLAIN, CORRECTED = slice(0, 2), slice(2, 4)
MEASURES = (
    Measure("rms error", rms, "lower", (rms.__doc__ or "")),
    _shear_measure("m, as predicted", "m", PLAIN, "multiplicative shear bias of the worse component", None),
    _shear_measure("m", "m", CORRECTED, "the same after correction by the response of the calibration fold", 2e-3),
    _shear_measure("c", "c", CORRECTED, "additive shear bias of the worse component, corrected", 2e-4),
)


def classical(judged: Survey, size: str) -> Catalogue:
    """Regaussianisation (Hirata & Seljak 2003; Mandelbaum+2005) by GalSim, its length set by gradient boosting.

    The noise makes one shape in ten longer than any ellipse is; how far to trust a length is learnt from the training
    fold, by size, resolution, concentration and noise. The direction stays as it was measured.
    """
    whole = judged.whole or judged
    train = whole.fold("train")
    train = train.select(np.arange(min(len(train), FITTED)), "for the classical system")
    direction, features = _shapes(train)
    length = (direction * truth(train)[:, :2]).sum(1)
    booster = HistGradientBoostingRegressor(learning_rate=0.05, max_iter=200, min_samples_leaf=40, random_state=0)
    booster.fit(features, length)
    direction, features = _shapes(judged)
    e = direction * booster.predict(features)[:, None]
    table = pa.table({"id": judged.index["id"], "sheared1": pa.array(e[:, 0]), "sheared2": pa.array(e[:, 1])})
    return Catalogue({n: Meta() for n in table.column_names}, {"model": "regaussianisation"}, held=table)


def _shapes(survey: Survey) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) unit vectors of the shapes, 0 where HSM failed, and (n, 6) what tells how far to trust their lengths."""
    directions, features = [], []
    for i in range(0, len(survey), 1000):
        image = survey.gather(slice(i, i + 1000), truth=()).observations["image"]
        assert isinstance(image, Image) and image.psf is not None
        found = hsm_regauss(image.flux[:, 0].numpy(), image.psf[:, 0].numpy(), 1.0)
        distortion = np.nan_to_num(np.stack([found.e1, found.e2], axis=1))
        length = np.hypot(*distortion.T)
        possible = np.minimum(length, 0.99)
        directions.append(distortion / np.maximum(length, 1e-9)[:, None])
        features.append(np.stack([possible / (1 + np.sqrt(1 - possible**2)), length, found.sigma, found.rho4,
                                  found.resolution, found.sigma_e], axis=1))  # fmt: skip
    return np.concatenate(directions), np.concatenate(features)


def limit(test: Survey, size: str) -> Mapping[str, Estimate]:
    """Error of the posterior mean of an observer who knows the PSF, the prior, and all of a galaxy but its ellipticity.

    The prior is the test fold's own distribution, the likelihood the Gaussian of the Fisher information of the
    noiseless image. No estimator that has to find size, flux and centre as well can do better.
    """
    known = truth(test)[:20_000, :2]
    draws = np.random.default_rng(7)
    square = []
    for block in np.unique(np.linspace(0, SIZES[size][2] // BLOCK - 1, LIMITED[size]).astype(int)).tolist():
        for e, information in zip(*_information(block), strict=True):
            seen = e + draws.normal(size=(NOISES, 2)) @ np.linalg.cholesky(np.linalg.inv(information)).T
            away = seen[:, None] - known
            log = -0.5 * ((away @ information) * away).sum(-1)
            weight = np.exp(log - log.max(1, keepdims=True))
            posterior = weight @ known / weight.sum(1, keepdims=True)
            square.append(((posterior - e) ** 2).mean())

    def root(x: np.ndarray, weight: np.ndarray | None = None) -> Any:
        """Root of the mean square error of the posterior mean."""
        return np.sqrt(x.mean() if weight is None else (weight * x).sum(-1) / weight.sum(-1))

    return {"rms error": bootstrap(root, np.array(square))}


def _information(block: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) ellipticities of a block of test galaxies, (n, 2, 2) their Fisher information by differences of shears."""
    step = 1e-2
    images, ellipticities, fluxes = [], [], []
    for shear in ((0.0, 0.0), (step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step)):
        made = simulator.simulate(BLOCK, seed=SEED + 2, first=BLOCK * block, pairs="quadruple",
                                  shear=shear, keep_noiseless=True)[::4]  # fmt: skip
        fluxes.append(made.truth["flux"].value.double().numpy())
        images.append(made.truth["noiseless"].value.double().flatten(1).numpy() / fluxes[-1][:, None])
        ellipticities.append(made.truth["sheared"].value.double().numpy())
    by_shear = np.stack([images[1] - images[2], images[3] - images[4]], 1) * fluxes[0][:, None, None]
    turns = np.stack([ellipticities[1] - ellipticities[2], ellipticities[3] - ellipticities[4]], 1)  # (n, shear, e)
    slopes = np.linalg.solve(turns, by_shear)
    return ellipticities[0], slopes @ slopes.swapaxes(1, 2)


RECIPE = Recipe(
    name="ellipticity",
    question="e1, e2, and shear without bias",
    data="simulated GREAT3-like stamps, 48 x 48 pixels of 0.2 arcsec, S/N 17 to 100, with the PSF",
    real=False,
    task=Regress("sheared", density="mixture", components=3),
    survey=survey,
    training={
        "tiny": {"network": "resnet", "steps": 40, "channels": "psf", "baseline": None},
        "quick": {"network": "resnet", "epochs": 12, "channels": "psf", "baseline": None},
        "full": {"network": "resnet", "epochs": 8, "batch": 128, "channels": "psf", "views": 4, "baseline": None},
    },
    measures=MEASURES,
    scores=scores,
    truth=truth,
    classical=classical,
    classical_name="regaussianisation (GalSim), its length set by gradient boosting on size, resolution and noise",
    limit=limit,
    limit_name="posterior mean of an observer who knows the PSF and all of a galaxy but its ellipticity",
    published=(
        Published("m", 2e-3, "goal of the challenge", "Mandelbaum+2015, MNRAS 450, 2963"),
        Published("c", 2e-4, "goal of the challenge", "Mandelbaum+2015, MNRAS 450, 2963"),
    ),
    group="pair_name",
    sources=(
        "simulators",
        "tasks.regress",
        "tasks._densities",
        "networks.resnet",
        "networks._blocks",
        "normalise",
        "baselines",
    ),
    by=("snr_matched", "re"),
    folds=("calib", "test"),
)
