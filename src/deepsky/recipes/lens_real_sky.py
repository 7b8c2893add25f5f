"""A lens finder trained on simulated KiDS images, on real galaxies of a KiDS field with simulated arcs painted on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import torch

from deepsky import store, training
from deepsky.catalogue import Catalogue
from deepsky.inference import predict
from deepsky.io import blake_keys
from deepsky.metrics import classification
from deepsky.model import Model
from deepsky.recipe import Measure, Recipe, data, fitted
from deepsky.recipes import _lenses
from deepsky.recipes import _real_galaxies as real
from deepsky.sample import Sample, Truth
from deepsky.simulators import lenses
from deepsky.survey import Survey

WHERE = "the examples of the R package ProFound, inst/extdata/MultiBand of github.com/asgr/ProFound"
BANDS = ("u", "g", "r", "i")
# The headers say neither scale nor zero point. Fluxes are maggies; at 0.3" the stars' FWHM of 0.95, 0.73 and 0.78" in
# g, r and i is the survey's, and so is the noise of its 0.2" pixels interpolated onto 0.3".
SCALE, ZERO_POINT, PIXELS = 0.3, 0.0, 44
MAGNITUDES = (17.0, 22.0)  # in r, as nine in ten of the simulated lens galaxies; stars saturate at 15.3
RED = 1.0  # least g - r, as of the early types of all redshifts that lens
STARS = (16.5, 19.5)
ARCS: Mapping[str, Any] = {"theta_e": (0.6, 3.0), "min_arc_snr": 15.0}  # bright enough to be found from the ground
BLOCK = 650.0  # pixels a side of the sky blocks: sixteen of them
SIZES = {"tiny": (600, 300), "quick": (2_000, 1_000), "full": (10_000, 4_000)}  # simulated objects to train and test on
COPIES = {"tiny": 1, "quick": 2, "full": 4}  # of each real galaxy, with arcs and without, each turned another way
REAL = {"tiny": (1, 60), "quick": (8, 600), "full": (24, 2_000)}  # copies of a galaxy, and blank skies, to train on
JUDGED_SEED, LEARNT_SEED, SKY_SEED = 606, 707, 808
MEASURES = (
    Measure("AUROC", classification.auroc, "higher", "area under the ROC curve"),
    Measure("TPR at FPR 1%", _lenses._tpr_at(0.01), "higher", "true positive rate at a false positive rate of 1%"),
)


def nominal() -> lenses.Setup:
    """KiDS as the survey's papers have it, in the pixels of the frame."""
    kids = lenses.SETUPS["kids"]
    bands = tuple(replace(b, pixel_scale=SCALE) for b in kids.bands)
    return lenses.Setup(bands, PIXELS, replace(kids.reference, pixel_scale=SCALE))


def survey(size: str, folder: Path) -> Survey:
    """Simulated KiDS images alone."""
    train, test = SIZES[size]
    return _lenses.survey("kids-lenses", folder / "simulated", train, test, survey=nominal(), **ARCS)


# -- the real sky -----------------------------------------------------------------------------------------------------
def cutouts(folder: Path, skies: int) -> Survey:
    """Galaxies, stars and `skies` empty places of the frame, as the column ``what`` says, cut out."""
    to = folder / "cutouts"
    if (to / "schema.json").exists():
        return Survey.load(to)
    path = data("viking-frames", WHERE) / "MultiBand"
    known = {"pixel_scale": SCALE, "zero_point": ZERO_POINT}
    image = real.frame(path, "r", **known)
    found = real.detect(image)
    star = real.stellar_size(found, STARS)
    whole = real.within(found.x, found.y, image.shape, PIXELS)
    tables = []
    for what, chosen in (
        ("galaxy", real.galaxies(found, star, MAGNITUDES)),
        ("star", real.stars(found, star, STARS)),
    ):
        rows = np.flatnonzero(chosen & whole)
        tables.append(_table(what, found.x[rows], found.y[rows], found.magnitude[rows]))
    x, y = real.blank(found, image.shape, PIXELS, skies, SKY_SEED)
    tables.append(_table("sky", x, y, np.full(len(x), np.nan)))
    return real.cut(path, to, pa.concat_tables(tables), BANDS, PIXELS, **known)


def _table(what: str, x: np.ndarray, y: np.ndarray, magnitude: np.ndarray) -> pa.Table:
    ids = [f"{what}-{i:04d}" for i in range(len(x))]
    return pa.table({"id": ids, "x": x, "y": y, "mag_r": magnitude, "what": [what] * len(x)})


def only(cuts: Survey, what: str) -> Survey:
    """Those cutouts that are galaxies, stars or skies."""
    return cuts.select(cuts.column("what").astype(str) == what, what)


def red(galaxies: Survey) -> np.ndarray:
    """The rows of galaxies with the colour of lenses."""
    magnitudes = real.aperture_magnitudes(galaxies, radius=4)
    return np.flatnonzero(magnitudes[:, BANDS.index("g")] - magnitudes[:, BANDS.index("r")] > RED)


def seen(stars: Survey) -> lenses.Setup:
    """KiDS with the seeing of the frame, so that arcs look as they would have looked there."""
    kids = nominal()
    fwhm = real.seeing(stars) * SCALE
    bands = tuple(replace(b, psf_fwhm=float(f)) for b, f in zip(kids.bands, fwhm, strict=True))
    return lenses.Setup(bands, PIXELS, kids.reference)


@final
class Painted:
    """Cutouts to paint on: object i gets cutout ``i % n``, turned in the ``i // n``-th of eight ways."""

    def __init__(self, survey: Survey, rows: np.ndarray, first: int = 0) -> None:
        self.flux, self.ivar = (a[rows] for a in real.pixels(survey))
        self.magnitude, self.names = survey.column("mag_r")[rows], survey.id[rows]
        self.groups = first + rows

    def __call__(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(flux, ivar) of some objects."""
        return self._turned(self.flux, numbers), self._turned(self.ivar, numbers)

    def _turned(self, images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        out = []
        for i in numbers.tolist():
            ways = i // len(self.names)
            image = np.rot90(images[i % len(self.names)], ways % 4, (-2, -1))
            out.append(image[..., ::-1] if ways // 4 % 2 else image)
        return np.stack(out)

    def galaxies(self, setup: lenses.Setup, copies: int, seed: int, fold: str) -> Iterator[Sample]:
        """Each galaxy `copies` times with arcs, and as often as it is."""
        for word, share in (("arcs", 1.0), ("alone", 0.0)):
            made = lenses.simulate(copies * len(self.names), seed=seed, survey=setup, lens_fraction=share,
                                   deflector=self, keep_noiseless=True, **ARCS)  # fmt: skip
            yield _named(made, self, word, fold)

    def skies(self, setup: lenses.Setup, n: int, seed: int, fold: str) -> Iterator[Sample]:
        """`n` simulated objects of all kinds on these skies."""
        made = lenses.simulate(n, seed=seed, survey=setup, background=self, keep_noiseless=True, **ARCS)
        yield _named(made, self, "simulated", fold)


def _named(sample: Sample, under: Painted, word: str, fold: str) -> Sample:
    """The sample as it is kept: named after what it was painted on, with the arcs' S/N in the noise of the frame.

    Without a fold, groups go to train, valid and calib, 8 : 1 : 1.
    """
    numbers = np.arange(len(sample))
    at = numbers % len(under.names)
    ids = tuple(f"{under.names[a]}-{word}-{i // len(under.names)}" for i, a in zip(numbers, at, strict=True))
    snr = (sample.truth["arcs"].value.square() * sample.observation("image").ivar).sum((1, 2, 3)).sqrt()
    kept = _lenses._kept(sample, fold or "train")
    truth = {**kept.truth, "snr_arc": Truth(snr), **_more(under.magnitude[at], under.groups[at])}
    if not fold:
        truth["split"] = replace(truth["split"], value=torch.from_numpy(np.clip(at % 10 - 7, 0, 2)))
    return replace(kept, id=ids, key=torch.from_numpy(blake_keys(ids).view(np.int64).copy()), truth=truth)


def _more(magnitude: np.ndarray, group: np.ndarray) -> dict[str, Truth]:
    return {"mag_r": Truth(torch.from_numpy(magnitude), unit="mag(AB)"), "galaxy": Truth(torch.from_numpy(group))}


def judged(size: str, folder: Path) -> Survey:
    """Every galaxy of the frame, with simulated arcs and as it is."""
    to = folder / "real"
    if (to / "schema.json").exists():
        return Survey.load(to)
    cuts = cutouts(folder, 2 * REAL[size][1])
    galaxies = only(cuts, "galaxy")
    samples = Painted(galaxies, red(galaxies)).galaxies(seen(only(cuts, "star")), COPIES[size], JUDGED_SEED, "test")
    return store.write(samples, to, name="kids-real-sky", dtype="float16", real=True, folds=_folds(),
                       source="galaxies and sky of a KiDS field; arcs of deepsky.simulators.lenses")  # fmt: skip


def _folds() -> dict[str, Any]:
    return {"fold_column": "split", "group_column": "galaxy", "near_duplicates": False}


def classical(judged: Survey, size: str) -> Catalogue:
    """The classical system of lens-ground, fitted on the simulated training set."""
    family = {"tiny": "logistic", "quick": "svm", "full": "gradient-boosting"}[size]
    model = training.train(_lenses.TASK, Survey.load(judged.path.parent / "simulated"), network=family,
                           settings={"features": "colour+edges"}, quiet=True)  # fmt: skip
    return predict(model, judged, quiet=True)


# -- beside the four numbers ------------------------------------------------------------------------------------------
def at_home(model: Model, judged: Survey, size: str, folder: Path) -> tuple[Catalogue, Survey]:
    """Our model on simulated lens galaxies that it never saw: the same question, without the shift."""
    home = Survey.load(judged.path.parent / "simulated")
    alike = home.select(np.isin(home.column("kind").astype(str), ("lens", "galaxy")), "lens galaxies")
    return predict(model, alike.fold("test"), quiet=True), alike


def halves(cut: Survey) -> np.ndarray:
    """(n,) 0 or 1: the colour of the sky block of each cutout."""
    return real.block(cut.column("x"), cut.column("y"), BLOCK)


def mixed(size: str, folder: Path, half: int) -> Survey:
    """The simulated training set with real sky of the blocks that are not `half`, no pixel of whose galaxies it has."""
    to = folder / f"mixed-{half}"
    if (to / "schema.json").exists():
        return Survey.load(to)
    copies, skies = REAL[size]
    galaxies, stars, empty = (only(cutouts(folder, 2 * skies), what) for what in ("galaxy", "star", "sky"))
    rows = red(galaxies)
    near = rows[halves(galaxies)[rows] == half]
    places = galaxies.column("x")[near], galaxies.column("y")[near]
    grounds = []
    for first, cut, chosen in ((0, galaxies, rows), (1_000_000, empty, np.arange(len(empty)))):
        shared = real.shares_pixels(cut.column("x"), cut.column("y"), places, PIXELS)
        grounds.append(Painted(cut, chosen[((halves(cut) != half) & ~shared)[chosen]], first))
    setup = seen(stars)

    def samples() -> Iterator[Sample]:
        yield from grounds[0].galaxies(setup, copies, LEARNT_SEED, "")
        yield from grounds[1].skies(setup, skies, SKY_SEED, "")
        yield from _simulated(Survey.load(folder / "simulated"), 2_000_000)

    return store.write(samples(), to, name=f"kids-mixed-{half}", dtype="float16", folds=_folds())


def _simulated(survey: Survey, first: int) -> Iterator[Sample]:
    """The simulated training objects once more, each a group of its own."""
    rows = np.flatnonzero(survey.column("fold") != "test")
    for at in np.split(rows, np.arange(512, len(rows), 512)):
        sample = survey.gather(at)
        yield replace(sample, truth={**sample.truth, **_more(np.full(len(at), np.nan), first + at)})


def with_real_sky(model: Model, judged: Survey, size: str, folder: Path) -> tuple[Catalogue, Survey]:
    """Every galaxy judged by a network that learnt with the real sky of the other blocks as well."""
    home = judged.path.parent
    galaxies = only(Survey.load(home / "cutouts"), "galaxy")
    half = halves(galaxies)[judged.column("galaxy").astype(np.int64)]
    parts = []
    for h in (0, 1):
        learnt = fitted(RECIPE, mixed(size, home, h), folder / f"model-real-sky-{h}", 0, size, quiet=True)
        parts.append(predict(learnt, judged.select(half == h, f"blocks {h}"), quiet=True))
    return replace(parts[0], held=pa.concat_tables([p.table for p in parts])), judged


RECIPE = Recipe(
    name="lens-real-sky",
    question="is it a strong lens, on real sky, after training on a simulation",
    data=f"red galaxies and sky of a KiDS u g r i field are real ({PIXELS} x {PIXELS} pixels of {SCALE} arcsec), each "
    "galaxy is there as it is and with arcs that are simulated; trained on simulated KiDS alone",
    real=True,
    task=_lenses.TASK,
    survey=survey,
    judged=judged,
    training={
        "tiny": {"network": "resnet", "steps": 60, "baseline": None},
        "quick": {"network": "resnet", "steps": 400, "channels": "detail", "baseline": None},
        "full": {**_lenses.NETWORK, "steps": 2_000, "channels": "detail", "baseline": None},
    },
    measures=MEASURES,
    scores=_lenses.scores,
    truth=_lenses.truth,
    classical=classical,
    classical_name="gradient boosting on colours and edges (SVM in the quick, logistic regression in the tiny setting)",
    limit=_lenses.limit(MEASURES),
    limit_name="likelihood ratio of the noiseless arcs in the noise of the frame, with known galaxy light",
    sources=(*_lenses.SOURCES, "recipes._real_galaxies"),
    by=("theta_e", "snr_arc", "mag_r"),
    further={
        "ours on simulated galaxies, with arcs and without": at_home,
        "ours after training with real sky of other blocks": with_real_sky,
    },
    notes="Einstein radii and the shape of the mass do not follow the light of the galaxy. The frame's headers are "
    "bare; its scale follows from its seeing and noise.",
)
