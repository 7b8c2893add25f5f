"""Recipe: one published system end to end, and the four numbers it ends in: published, classical, ours, limit."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import platform
import shutil
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
from deepsky.metrics.intervals import Estimate
from deepsky.model import Model
from deepsky.model import load as load_model
from deepsky.result import Measure, Published, Result
from deepsky.survey import Survey
from deepsky.task import Task
from deepsky.training import train

__all__ = ["SIZES", "Measure", "Published", "Recipe", "Result", "cache", "code_of", "data", "demo", "find", "fitted",
           "key", "recorded", "run"]  # fmt: skip
SIZES = ("tiny", "quick", "full")
CLASSICAL = ", classical"  # after a name in `Recipe.further`: what the one of that name is held against


@dataclass(frozen=True)
class Recipe:
    """One published system.

    Attributes
    ----------
    survey : (size, folder) -> survey with folds; a simulation is written into `folder` and found there the next time.
    judged : likewise, for another survey whose test fold is judged, made first; by default that of the training survey.
    training : arguments of `train` for every size.
    scores : (catalogue, survey) -> predictions, a row for each of the catalogue's; truth : test fold -> truths, of
        which class codes of -1 are left out.
    classical : (survey, size) -> catalogue of the classical system, fitted on the same training truth.
    folds : that are predicted. Measures see the test fold only; `scores` may calibrate on the others.
    limit : (test fold, size) -> what physics or statistics allows, by measure.
    further : by name, what is measured beside the four numbers: (our model, judged survey, size, folder) -> answers and
        the survey whose test fold they are of, which need not be the judged one. On the judged one it is held against
        our model, elsewhere against what is called "NAME, classical", if there is such.
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
    judged: Callable[[str, Path], Survey] | None = None
    further: Mapping[str, Callable[[Model, Survey, str, Path], tuple[Catalogue, Survey]]] = field(default_factory=dict)


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


def key(recipe: Recipe, file: str | None = None) -> str:
    """Hash of the code of the recipe and of the modules it names: a result is good for this key alone.

    Parameters
    ----------
    file : that the recipe came from, if it is not one of deepsky's.
    """
    home = Path(deepsky.__file__).parent
    made = hashlib.sha256(code_of(registry.where("recipes", file or recipe.name)))
    for name in sorted(recipe.sources):
        path = home / name.replace(".", "/")
        for each in sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            made.update(code_of(each))
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
    InputError : no such recipe or size, no seed, data that are not here, or a folder with models that another recipe,
        size or version of the code made.
    """
    recipe = find(name)
    if size not in SIZES:
        raise InputError("no such size", found=size, known=SIZES)
    if not seeds:
        raise InputError("at least one seed is needed", found=len(seeds), expected="--seeds 1 or more")
    folder = Path(to) if to is not None else Path("runs") / f"{recipe.name}-{size}"
    began = time.monotonic()
    _claim(folder, {"recipe": recipe.name, "size": size, "key": key(recipe, name)})
    made = cache() / "recipes" / f"{recipe.name}-{size}-{key(recipe, name)}"
    # first what is judged, which may be real data that are not here: a simulation takes minutes
    judged_on = None if recipe.judged is None else recipe.judged(size, made)
    survey = recipe.survey(size, made)
    there = survey if judged_on is None else judged_on
    test = there.fold("test")
    truth, groups = _known(recipe, test)
    # frozen before the first network is trained: nothing about ours can leak into what it is held against
    judged = there.select(np.isin(there.column("fold").astype(str), recipe.folds), " + ".join(recipe.folds))
    beside = recipe.classical(judged, size)
    classical = _aligned(recipe, beside, judged)
    limit = dict(recipe.limit(test, size))
    scores, seconds = [], []
    further: dict[str, tuple[Catalogue, Survey]] = {}
    for seed in seeds:
        place = folder / ("model" if seed == seeds[0] else f"model-{seed}")
        model = fitted(recipe, survey, place, seed, size, quiet=quiet)
        seconds.append(round(float(model.history[-1]["seconds"]), 1))  # of a model that was found finished, too
        target = folder / ("catalogue" if seed == seeds[0] else f"catalogue-{seed}")
        catalogue = predict(model, judged, to=target, quiet=True)
        scores.append(_aligned(recipe, catalogue, judged))
        if seed == seeds[0]:
            evaluate(model, test, to=folder, by=recipe.by, catalogue=catalogue, classical=beside)
            further = {who: measure(model, judged, size, folder) for who, measure in recipe.further.items()}
    result = _result(recipe, size, truth, groups, classical, scores, limit)
    for who, (answers, whose) in further.items():
        rival = further.get(f"{who}{CLASSICAL}")
        held = scores[0] if whose is judged else None
        if held is None and rival is not None:
            held = _aligned(recipe, rival[0], whose)
        _beside(recipe, result, who, answers, whose, held)
    result.provenance.update(  # type: ignore[attr-defined]
        key=key(recipe, name),
        command=f"deepsky run {recipe.name}" + ("" if size == "full" else f" --{size}"),
        seeds=list(seeds),
        training_seconds=seconds,
        seconds=round(time.monotonic() - began, 1),
        objects={f: int((survey.column("fold") == f).sum()) for f in ("train", "valid", "calib")} | {"test": len(test)},
        machine=_machine(),
        versions=plan.versions(),
        fold="test",
    )
    write_json(folder / "result.json", result.json())
    return result


def _claim(folder: Path, what: Mapping[str, str]) -> None:
    """Note whose models a folder holds, or refuse it: a finished model is taken as it is.

    Raises
    ------
    InputError : finished models of another recipe, size or key.
    """
    note = folder / "recipe.json"
    if any(folder.glob("model*/checksums.json")):
        # the folders of `benchmarks` have it all in their name
        held = read_json(note) if note.exists() else what if all(v in folder.name for v in what.values()) else {}
        for name, value in what.items():
            if held.get(name) != value:
                words = {"key": "the recipe, or code that its figures rest on, changed since"}
                raise InputError(
                    words.get(name, f"the models here are those of another {name}"), file=folder, keyword=name,
                    found=value, expected=held.get(name, "not noted"), fix="delete the folder, or choose another: --to",
                )  # fmt: skip
    write_json(note, dict(what))


def fitted(recipe: Recipe, survey: Survey, place: Path, seed: int, size: str, *, quiet: bool = False) -> Model:
    """The recipe's model trained on `survey`, or the finished one that lies at `place`."""
    if (place / "checksums.json").exists():
        return load_model(place)
    return train(recipe.task, survey, to=place, seed=seed, quiet=quiet, **recipe.training[size])


def _told(truth: np.ndarray) -> np.ndarray:
    """(n,) bool: the objects that have a truth; a class code of -1 is none."""
    return truth >= 0 if truth.ndim == 1 and truth.dtype.kind == "i" else np.ones(len(truth), bool)


def _known(recipe: Recipe, test: Survey) -> tuple[np.ndarray, np.ndarray]:
    """Truths and groups of the objects of a test fold that have a truth."""
    truth = recipe.truth(test)
    told = _told(truth)
    return truth[told], test.column(recipe.group)[told]


def _aligned(recipe: Recipe, catalogue: Catalogue, judged: Survey) -> np.ndarray:
    """Scores of those objects, in the same order."""
    test = judged.fold("test")
    where = {name: i for i, name in enumerate(catalogue.column("id"))}
    rows = np.array([where[name] for name in test.id])[_told(recipe.truth(test))]
    found: np.ndarray = recipe.scores(catalogue, judged)[rows]
    return found


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


def _beside(
    recipe: Recipe, result: Result, who: str, answers: Catalogue, whose: Survey, held: np.ndarray | None
) -> None:
    """Add what stands beside the four numbers; against the scores `held` of the same objects, where there are some."""
    scores, (truth, groups) = _aligned(recipe, answers, whose), _known(recipe, whose.fold("test"))
    measures = [m for m in recipe.measures if m.applies(truth)]
    result.further[who] = {m.name: m.of(scores, truth, groups) for m in measures}  # type: ignore[index]
    if held is not None:
        paired = {m.name: m.paired(scores, held, truth, groups) for m in measures}
        result.further_paired[who] = paired  # type: ignore[index]


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
        if info.exists()
        else []
    )
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def recorded(name: str) -> Mapping[str, Any] | None:
    """The full result that was recorded under ``benchmarks/results``, which an installed package carries, or None."""
    package = Path(deepsky.__file__).parent
    for folder in (package.parents[1] / "benchmarks" / "results", package / "results"):
        if (folder / f"{name}.json").exists():
            found: Mapping[str, Any] = read_json(folder / f"{name}.json")
            return found
    return None


DEMO = {"catalogue", "found", "model", "recipe.json", "report.html", "report.json", "result.json", "survey"}


def _clear(folder: Path, what: Mapping[str, str]) -> None:
    """Remove what a demonstration of another size or version of the code left; a folder with more in it is kept."""
    names = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    if "model" not in names or not names <= DEMO:
        return
    note = folder / "recipe.json"
    if not note.exists() or read_json(note) != dict(what):
        shutil.rmtree(folder)


def demo(*, size: str = "quick", to: str | Path = "demo", quiet: bool = False) -> str:
    """The strong-lens finder end to end on a small simulation, and a catalogue of a small survey that it never saw.

    Returns
    -------
    str : the four numbers, and where report and catalogue lie.
    """
    folder = Path(to)
    _clear(folder, {"recipe": "lens-ground", "size": size, "key": key(find("lens-ground"), "lens-ground")})
    result = run("lens-ground", size=size, to=folder, quiet=quiet)
    fresh = registry.find("recipes", "lens-ground").fresh(size, folder / "survey")
    catalogue = predict(load_model(folder / "model"), fresh, to=folder / "found", quiet=quiet)
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
