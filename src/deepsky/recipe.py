"""Recipe: one published system end to end, and the four numbers it ends in: published, classical, ours, limit."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import platform
import time
import tokenize
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import deepsky
from deepsky import plan, registry
from deepsky.catalogue import Catalogue
from deepsky.errors import InputError
from deepsky.evaluation import evaluate
from deepsky.inference import predict
from deepsky.io import read_json, write_json
from deepsky.metrics.intervals import Difference, Estimate, bootstrap, paired_difference
from deepsky.survey import Survey
from deepsky.task import Task
from deepsky.training import train

SIZES = ("tiny", "quick", "full")


@dataclass(frozen=True)
class Measure:
    """A figure of merit: ``function(scores, truth[, weight])``, which way is better, and its definition in words.

    `estimate` and `difference` stand in where a plain bootstrap does not hold, as for TPR0; figures at the very top of
    a list are quoted only with so many `negatives`.
    """

    name: str
    function: Callable[..., Any]
    better: str
    definition: str
    target: float | None = None
    estimate: Callable[..., Estimate] | None = None
    difference: Callable[..., Difference] | None = None
    negatives: int = 0

    def applies(self, truth: np.ndarray) -> bool:
        """Whether there are enough negatives for the figure to mean what it is known for."""
        return not self.negatives or int((truth == 0).sum()) >= self.negatives

    def of(self, scores: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> Estimate:
        """The figure with its interval."""
        if self.estimate is not None:
            return self.estimate(scores, truth, groups)
        return bootstrap(self.function, scores, truth, groups=groups, definition=self.definition)

    def paired(self, a: np.ndarray, b: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> Difference:
        """Whether `a` is ahead of `b` on the same objects."""
        if self.difference is not None:
            return self.difference(a, b, truth, groups)
        return paired_difference(self.function, a, b, truth, groups, better=self.better, definition=self.definition)


@dataclass(frozen=True)
class Published:
    """A figure from the literature; `same_data` only if ours was measured on the very same objects."""

    measure: str
    value: float
    who: str
    source: str
    same_data: bool = False


@dataclass(frozen=True)
class Recipe:
    """One published system.

    Attributes
    ----------
    survey : (size, folder) -> survey with folds; a simulation is written into `folder` and found there the next time.
    training : arguments of `train` for every size.
    scores : (catalogue, survey) -> predictions, a row for each of the catalogue's; truth : test fold -> truths.
    classical : (survey, size) -> catalogue of the classical system, fitted on the same training truth.
    folds : that are predicted. Measures see the test fold only; `scores` may calibrate on the others.
    limit : (test fold, size) -> what physics or statistics allows, by measure.
    group : column of the index whose equal values are resampled together.
    sources : names of the modules below deepsky whose text, with this recipe's own, decides whether a result holds.
    """

    name: str
    question: str
    data: str
    real: bool
    task: Task
    survey: Callable[[str, Path], Survey]
    training: Mapping[str, Mapping[str, Any]]
    measures: tuple[Measure, ...]
    scores: Callable[[Catalogue, Survey], np.ndarray]
    truth: Callable[[Survey], np.ndarray]
    classical: Callable[[Survey, str], Catalogue]
    limit: Callable[[Survey, str], Mapping[str, Estimate]]
    classical_name: str
    limit_name: str
    published: tuple[Published, ...] = ()
    group: str = "group"
    sources: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    folds: tuple[str, ...] = ("test",)
    notes: str = ""


@dataclass(frozen=True)
class Result:
    """The four numbers of a recipe, by measure, with what they were measured on."""

    recipe: str
    size: str
    real: bool
    data: str
    classical_name: str
    limit_name: str
    published: Mapping[str, Mapping[str, Any]]
    classical: Mapping[str, Estimate]
    ours: Mapping[str, Estimate]
    seeds: Mapping[str, Sequence[float]]
    limit: Mapping[str, Estimate]
    paired: Mapping[str, Difference]
    targets: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """JSON literals, as they are kept under ``benchmarks/results``."""
        made = {k: v for k, v in vars(self).items() if k not in {"classical", "ours", "limit", "paired"}}
        for name in ("classical", "ours", "limit", "paired"):
            made[name] = {k: v.json() for k, v in getattr(self, name).items()}
        return made

    def __str__(self) -> str:
        kind = "real data" if self.real else "simulation"
        lines = [
            f"{self.recipe} ({self.size}, {kind}: {self.data})",
            "",
            f"{'':<22}{'published':>12}  {'classical':<24}{'ours':<24}{'limit':<24}ours against classical",
        ]
        for name, ours in self.ours.items():
            given = self.published.get(name)
            word = "" if given is None else f"{given['value']:g}" if given["same_data"] else f"[{given['value']:g}]"
            paired = self.paired[name].verdict if name in self.paired else ""
            cells = [str(d[name]) if name in d else "-" for d in (self.classical, {name: ours}, self.limit)]
            lines.append(f"{name:<22}{word:>12}  " + "".join(f"{c:<24}" for c in cells) + paired)
        lines += ["", f"classical: {self.classical_name}; limit: {self.limit_name}"]
        if any(not p["same_data"] for p in self.published.values()):
            lines.append("[published]: measured on other data; not to be compared directly")
        if self.size != "full":
            lines.append(f"ours is labelled {self.size}: a first look, not the figure that counts")
        spread = [f"{n} {np.mean(v):.4g} +- {np.std(v, ddof=1):.2g}" for n, v in self.seeds.items() if len(v) > 1]
        if spread:
            lines.append(f"over {len(next(iter(self.seeds.values())))} seeds: " + ", ".join(spread))
        return "\n".join(lines)


def find(name: str) -> Recipe:
    """The recipe called `name`, or the one in a file of the user's.

    Raises
    ------
    InputError : no such recipe.
    """
    made = registry.find("recipes", name).RECIPE
    if not isinstance(made, Recipe):
        raise InputError("RECIPE is not a deepsky.recipe.Recipe", file=name, found=type(made).__name__)
    return made


def key(recipe: Recipe) -> str:
    """Hash of the code of the recipe and of the modules it names: a result is good for this key alone."""
    home = Path(deepsky.__file__).parent
    made = hashlib.sha256(code_of(registry.where("recipes", recipe.name)))
    for name in sorted(recipe.sources):
        path = home / name.replace(".", "/")
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            made.update(code_of(file))
    return made.hexdigest()[:12]


def code_of(file: Path) -> bytes:
    """A module's text without what cannot change a figure: comments, docstrings, empty lines, spaces at ends."""
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            lines[first.lineno - 1 : first.end_lineno] = [""] * ((first.end_lineno or first.lineno) - first.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip()).encode()


def cache() -> Path:
    """The folder for what can be made again: ``DEEPSKY_CACHE``, by default ``~/.cache/deepsky``."""
    return Path(os.environ.get("DEEPSKY_CACHE", Path.home() / ".cache" / "deepsky"))


def data(name: str, where: str) -> Path:
    """The folder of a real data set: ``DEEPSKY_DATA/name``.

    Parameters
    ----------
    where : where it is to be had, for the message.

    Raises
    ------
    InputError : it is not there.
    """
    folder = Path(os.environ.get("DEEPSKY_DATA", "data")) / name
    if not folder.is_dir():
        raise InputError(
            "the data set is not here",
            file=folder,
            fix=f"get it from {where}, and set DEEPSKY_DATA to the folder above",
        )
    return folder


def run(
    name: str, *, size: str = "full", to: str | Path | None = None, seeds: Sequence[int] = (0,), quiet: bool = False
) -> Result:
    """Make the data, fit the classical system, find the limit, then train and judge.

    Parameters
    ----------
    size : "tiny" (seconds), "quick" (a minute), "full" (the figure that counts).
    to : folder of model, catalogue, report and result; by default ``runs/NAME-SIZE``.

    Raises
    ------
    InputError : no such recipe or size.
    """
    recipe = find(name)
    if size not in SIZES:
        raise InputError("no such size", found=size, known=SIZES)
    folder = Path(to) if to is not None else Path("runs") / f"{recipe.name}-{size}"
    began = time.monotonic()
    survey = recipe.survey(size, cache() / "recipes" / f"{recipe.name}-{size}-{key(recipe)}")
    test = survey.fold("test")
    truth, groups = recipe.truth(test), test.column(recipe.group)
    # frozen before the first network is trained: nothing about ours can leak into what it is held against
    judged = survey.select(np.isin(survey.column("fold").astype(str), recipe.folds), " + ".join(recipe.folds))
    beside = recipe.classical(judged, size)
    classical = _aligned(recipe, beside, judged, test)
    limit = dict(recipe.limit(test, size))
    scores, seconds = [], []
    for seed in seeds:
        start = time.monotonic()
        place = folder / ("model" if seed == seeds[0] else f"model-{seed}")
        model = _model(recipe, survey, place, seed, size, quiet)
        seconds.append(round(time.monotonic() - start, 1))
        target = folder / ("catalogue" if seed == seeds[0] else f"catalogue-{seed}")
        catalogue = predict(model, judged, to=target, quiet=True)
        scores.append(_aligned(recipe, catalogue, judged, test))
        if seed == seeds[0]:
            evaluate(model, test, to=folder, by=recipe.by, catalogue=catalogue, classical=beside)
    result = _result(recipe, size, truth, groups, classical, scores, limit)
    result.provenance.update(  # type: ignore[attr-defined]
        key=key(recipe),
        command=f"deepsky run {recipe.name}" + ("" if size == "full" else f" --{size}"),
        seeds=list(seeds),
        training_seconds=seconds,
        seconds=round(time.monotonic() - began, 1),
        objects={f: int((survey.column("fold") == f).sum()) for f in ("train", "valid", "calib", "test")},
        machine=_machine(),
        versions=plan.versions(),
        fold="test",
    )
    write_json(folder / "result.json", result.json())
    return result


def _model(recipe: Recipe, survey: Survey, place: Path, seed: int, size: str, quiet: bool) -> Any:
    from deepsky.model import load

    if (place / "checksums.json").exists():
        return load(place)
    return train(recipe.task, survey, to=place, seed=seed, quiet=quiet, **recipe.training[size])


def _aligned(recipe: Recipe, catalogue: Catalogue, judged: Survey, test: Survey) -> np.ndarray:
    """Scores in the order of the test fold."""
    where = {name: i for i, name in enumerate(catalogue.column("id"))}
    return recipe.scores(catalogue, judged)[[where[name] for name in test.id]]


def _result(
    recipe: Recipe,
    size: str,
    truth: np.ndarray,
    groups: np.ndarray,
    classical: np.ndarray,
    scores: Sequence[np.ndarray],
    limit: Mapping[str, Estimate],
) -> Result:
    figures: dict[str, dict[str, Any]] = {"classical": {}, "ours": {}, "paired": {}, "seeds": {}}
    for m in (m for m in recipe.measures if m.applies(truth)):
        figures["classical"][m.name] = m.of(classical, truth, groups)
        figures["ours"][m.name] = m.of(scores[0], truth, groups)
        figures["paired"][m.name] = m.paired(scores[0], classical, truth, groups)
        figures["seeds"][m.name] = [float(m.function(s, truth)) for s in scores]
    return Result(
        recipe=recipe.name,
        size=size,
        real=recipe.real,
        data=recipe.data,
        classical_name=recipe.classical_name,
        limit_name=recipe.limit_name,
        published={p.measure: vars(p) for p in recipe.published},
        limit=limit,
        targets={m.name: m.target for m in recipe.measures if m.target is not None},
        provenance={},
        **figures,
    )


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
        if info.exists()
        else []
    )
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def recorded(name: str) -> Mapping[str, Any] | None:
    """The full result that is kept beside the code under ``benchmarks/results``, or None where there is none."""
    file = Path(deepsky.__file__).parents[2] / "benchmarks" / "results" / f"{name}.json"
    found: Mapping[str, Any] | None = read_json(file) if file.exists() else None
    return found


def demo(*, size: str = "quick", to: str | Path = "demo", quiet: bool = False) -> str:
    """The strong-lens finder end to end on a small simulation, and a catalogue of a small survey that it never saw.

    Returns
    -------
    str : the four numbers, and where report and catalogue lie.
    """
    folder = Path(to)
    result = run("lens-ground", size=size, to=folder, quiet=quiet)
    from deepsky.model import load

    fresh = registry.find("recipes", "lens-ground").fresh(size, folder / "survey")
    catalogue = predict(load(folder / "model"), fresh, to=folder / "found", quiet=quiet)
    written = catalogue.write(folder / "found" / "lenses.fits")
    lines = [str(result), ""]
    full = recorded("lens-ground")
    if full is not None:
        kept = ", ".join(f"{n} {e['value']:.4g}" for n, e in full["ours"].items() if e["value"] is not None)
        lines += [f"ours at the full setting, as recorded: {kept}", ""]
    lines += [
        f"report:     {folder / 'report.html'}",
        f"model:      {folder / 'model'}  (its card: {folder / 'model' / 'CARD.md'})",
        f"catalogue:  {written}  ({len(catalogue):,} objects that the model never saw)",
    ]
    return "\n".join(lines)
