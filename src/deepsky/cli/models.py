"""Commands that train models and use them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepsky import casting
from deepsky.cli.options import (
    IdColumn,
    Labels,
    Quiet,
    Set,
    To,
    Trust,
    app,
    chosen,
    examples,
    load,
    more,
    names,
    open_survey,
    ordered,
    question,
    shares,
)
from deepsky.errors import InputError

if TYPE_CHECKING:
    from deepsky.catalogue import Catalogue
    from deepsky.model import Model
    from deepsky.survey import Survey

Target = Annotated[str | None, typer.Option(help="label or truth column; several with commas")]
TaskName = Annotated[str, typer.Option("--task", help="classify or regress")]
NetworkName = Annotated[str, typer.Option(help="network or classical family; see deepsky list")]
Minutes = Annotated[float | None, typer.Option(help="time budget of the training loop")]
TaskSet = Annotated[list[str] | None, typer.Option("--task-set", help="setting of the task, as key=value")]
NetworkSet = Annotated[list[str] | None, typer.Option("--network-set", help="setting of the network, as key=value")]
By = Annotated[str | None, typer.Option(help="columns to bin by, with commas")]
Fold = Annotated[
    str, typer.Option(help="by default test; all of a survey that was not learnt from, or that is cross-validated")
]
Asked = Annotated[str | None, typer.Option("--target", help="what a catalogue answers, where it does not say")]
ANSWERS = "a model, or a catalogue: its file, or the folder of deepsky predict or crossval"
Slice = Annotated[str | None, typer.Option("--slice", help='only where this holds: "mag > 22 & fwhm > 1"')]
Positive = Annotated[str, typer.Option(help="of two classes, the one that completeness and purity are told of")]
AS_IT_WAS = {"survey", "to", "labels", "id_column", "quiet", "run"}  # what may stand beside --from


@app.command(epilog=examples("train galaxies/ --target morphology --to model/ --minutes 10",
                             "train galaxies/ --target redshift --task regress --to zmodel/ --set batch=128",
                             "train --from model/run.json --to again/"))  # fmt: skip
def train(
    context: typer.Context,
    to: To,
    survey: Annotated[Path | None, typer.Argument(help="with --from, only where it has moved")] = None,
    target: Target = None,
    task: TaskName = "classify",
    network: NetworkName = "resnet",
    seed: int = 0,
    epochs: float = 30,
    minutes: Minutes = None,
    batch: int = 64,
    labels: Labels = None,
    id_column: IdColumn = None,
    run: Annotated[Path | None, typer.Option("--from", help="repeat the run of this run.json, as it was")] = None,
    task_set: TaskSet = None,
    network_set: NetworkSet = None,
    sets: Set = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on the training fold of SURVEY. Stopped at any moment, the same command goes on."""
    from deepsky import repeating, training

    here = None if survey is None else open_survey(survey, labels, id_column=id_column)
    if run is not None:
        source = context.get_parameter_source
        told = [n for n in context.params if n not in AS_IT_WAS and getattr(source(n), "name", "") == "COMMANDLINE"]
        if told:
            raise InputError("--from repeats a run as it was", found=", ".join(told), fix="leave these options out")
        typer.echo(_learnt(repeating.repeat(run, to=to, survey=here, quiet=quiet), here, survey, labels))
        return
    if here is None:
        raise InputError("no survey is named", fix="deepsky train SURVEY --target COLUMN --to MODEL")
    given = {**chosen(network, network_set), "seed": seed, "epochs": epochs, "minutes": minutes,
             "batch": batch, "quiet": quiet}  # fmt: skip
    asked = question(task, target, here, task_set)
    made = training.train(asked, here, to=to, **{**given, **more(sets, training.train)})
    typer.echo(_learnt(made, here, survey, labels))


@app.command(epilog=examples("crossval galaxies/ --target morphology --k 5 --to crossval/"))
def crossval(
    survey: Path,
    to: To,
    target: Target = None,
    task: TaskName = "classify",
    network: NetworkName = "resnet",
    k: Annotated[int, typer.Option(help="folds")] = 5,
    repeats: int = 1,
    seed: int = 0,
    epochs: float = 30,
    minutes: Annotated[float | None, typer.Option(help="time budget of the training loop of each fold")] = None,
    batch: int = 64,
    labels: Labels = None,
    id_column: IdColumn = None,
    task_set: TaskSet = None,
    network_set: NetworkSet = None,
    sets: Set = None,
    quiet: Quiet = False,
) -> None:
    """Predict every object by a model that never saw its group. Trains K models; ends in a catalogue and a report."""
    from deepsky.catalogue import Catalogue
    from deepsky.crossval import crossvalidate
    from deepsky.evaluation import evaluate as judge
    from deepsky.training import train as run

    here = open_survey(survey, labels, id_column=id_column)
    asked = question(task, target, here, task_set)
    given = {**chosen(network, network_set), "epochs": epochs, "minutes": minutes, "batch": batch,
             "quiet": quiet, "k": k, "repeats": repeats, "seed": seed}  # fmt: skip
    made = crossvalidate(asked, here, to=to, **{**given, **more(sets, run)})
    beside = to / "classical.parquet"
    classical = Catalogue.read(beside) if beside.exists() else None
    typer.echo(judge(made, here, task=asked, classical=classical, to=to))


@app.command(epilog=examples("curve galaxies/ --target morphology --to curve/",
                             "curve galaxies/ --target morphology --sizes 100,300,1.0 --to curve/"))  # fmt: skip
def curve(
    survey: Path,
    to: To,
    target: Target = None,
    task: TaskName = "classify",
    network: NetworkName = "resnet",
    sizes: Annotated[
        str, typer.Option(help="parts of the training fold, as fractions (1.0 is all) or numbers of objects")
    ] = "0.0625,0.125,0.25,0.5,1.0",
    seed: int = 0,
    epochs: float = 30,
    minutes: Annotated[float | None, typer.Option(help="time budget of the training loop of each size")] = None,
    batch: int = 64,
    labels: Labels = None,
    id_column: IdColumn = None,
    task_set: TaskSet = None,
    network_set: NetworkSet = None,
    sets: Set = None,
    quiet: Quiet = False,
) -> None:
    """Train on growing parts of the training fold. Ends in a report that says whether more labels would help."""
    from deepsky.evaluation import evaluate as judge
    from deepsky.learning import learning_curve
    from deepsky.training import train as run

    here = open_survey(survey, labels, id_column=id_column)
    asked = question(task, target, here, task_set)
    wanted = [casting.literal(s) for s in names(sizes)]
    if not all(isinstance(s, int | float) for s in wanted):
        raise InputError("--sizes takes numbers with commas between them", found=sizes, expected="0.25,0.5,1.0")
    given = {**chosen(network, network_set), "epochs": epochs, "minutes": minutes, "batch": batch, "quiet": quiet,
             "seed": seed}  # fmt: skip
    points = learning_curve(asked, here, wanted, to=to, **{**given, **more(sets, run)})
    last = load(to / f"n-{points[-1][0]}", network if network.endswith(".py") else None)
    typer.echo(judge(last, here.fold("test"), learning_curve=points, to=to))


@app.command(epilog=examples("predict model/ survey/ --to catalogue/ --write lenses.fits",
                             "predict model/ survey/ --to catalogue/ --prevalence lens=0.001"))  # fmt: skip
def predict(
    model: Path,
    survey: Path,
    to: To,
    prevalence: Annotated[list[str] | None, typer.Option(help="CLASS=SHARE among the objects of this survey")] = None,
    write: Annotated[list[str] | None, typer.Option(help="also as .fits, .vot, .ecsv or .csv: a file name")] = None,
    fold: Annotated[str | None, typer.Option(help="only this fold")] = None,
    trust: Trust = None,
    sets: Set = None,
    quiet: Quiet = False,
) -> None:
    """Apply MODEL to every object of SURVEY: a catalogue. Stopped at any moment, the same command goes on."""
    from deepsky.catalogue import check_name, fits_names
    from deepsky.inference import predict as run

    ordered("predict", survey, model)
    for name in write or []:
        check_name(Path(name))  # before an hour of work
    here = open_survey(survey)
    given = {"prevalence": shares(prevalence), "quiet": quiet, **more(sets, run)}
    made = run(load(model, trust), here if fold is None else here.fold(fold), to=to, **given)
    for name in write or []:
        typer.echo(made.write(name))
        if name.lower().endswith(".fits"):
            for old, new in fits_names(made.names).items():
                if old != new:
                    typer.echo(f"note: FITS cannot hold the column {old!r}: it is called {new!r} there")
    for doubt in made.provenance["unchecked"]:
        typer.echo(f"note: {doubt}")
    typer.echo(made)


@app.command(epilog=examples("evaluate model/ galaxies/ --by mag,fwhm",
                             "evaluate model/ other-survey/ --labels labels.csv --fold all",
                             'evaluate model/ galaxies/ --slice "mag > 22 & fwhm > 1"',
                             "evaluate catalogue/ galaxies/ --target morphology"))  # fmt: skip
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=ANSWERS)],
    survey: Path,
    fold: Fold = "",
    to: Annotated[Path | None, typer.Option(help="folder of report.html and report.json")] = None,
    by: By = None,
    slice_: Slice = None,
    positive: Positive = "",
    labels: Labels = None,
    id_column: IdColumn = None,
    trust: Trust = None,
    target: Asked = None,
    task: TaskName = "classify",
    task_set: TaskSet = None,
) -> None:
    """Hold the answers of MODEL against the truth of a fold. Writes report.html and report.json."""
    from deepsky.evaluation import evaluate as run

    ordered("evaluate", survey, model)
    whole = open_survey(survey, labels, id_column=id_column)
    held, asked = _answers(model, trust), question(task, target, whole, task_set) if target else None
    fold = fold or _usual_fold(held)
    here = _folded(whole, fold, slice_)
    place = to or _report_folder(model, held, whole, fold, slice_)
    typer.echo(run(held, here, task=asked, by=names(by), to=place, positive=positive))


@app.command(epilog=examples("compare model_a/ model_b/ galaxies/ --to comparison/",
                             "compare crossval_a/ crossval_b/ galaxies/ --to comparison/"))  # fmt: skip
def compare(
    model_a: Annotated[Path, typer.Argument(metavar="MODEL_A", help=ANSWERS)],
    model_b: Annotated[Path, typer.Argument(metavar="MODEL_B", help=ANSWERS)],
    survey: Path,
    fold: Fold = "",
    to: To = Path("comparison"),
    by: By = None,
    slice_: Slice = None,
    positive: Positive = "",
    labels: Labels = None,
    id_column: IdColumn = None,
    trust: Trust = None,
    target: Asked = None,
    task: TaskName = "classify",
    task_set: TaskSet = None,
) -> None:
    """Compare two models on the same objects. Paired intervals, change per bin, a gallery of the objects that flip."""
    from deepsky.evaluation import compare as run

    ordered("compare", survey, model_a, model_b)
    whole = open_survey(survey, labels, id_column=id_column)
    a, b = (_answers(path, trust) for path in (model_a, model_b))
    asked = question(task, target, whole, task_set) if target else None
    folds = {_usual_fold(a), _usual_fold(b)}  # a model is fair on its test fold alone, a cross-validation everywhere
    here = _folded(whole, fold or ("all" if folds == {"all"} else "test"), slice_)
    typer.echo(run(a, b, here, task=asked, by=names(by), to=to, positive=positive))


def _answers(path: Path, trust: str | None) -> Model | Catalogue:
    """A model, or a catalogue: its Parquet file, or the folder of a prediction or cross-validation."""
    from deepsky.catalogue import Catalogue

    is_catalogue = path.suffix == ".parquet" or any((path / n).exists() for n in ("catalogue.parquet", "crossval.json"))
    return Catalogue.read(path) if is_catalogue else load(path, trust)


def _usual_fold(held: Model | Catalogue) -> str:
    """The objects that were not learnt from: all of a cross-validation."""
    return "all" if "cv_fold" in getattr(held, "names", ()) else "test"


def _learnt(model: Model, survey: Survey | None, path: Path | None, labels: Path | None) -> str:
    """What became of a training: where the model lies, how good it is, what it learnt from, and what comes next."""
    from deepsky import finishing, plan, resolve
    from deepsky.survey import Survey

    assert model.path is not None
    call = plan.Run.read(model.path / "run.json").call
    here = Survey.load(call["survey"]) if survey is None else survey
    folds = resolve.folds(here)
    parts = []
    for name, n in model.provenance["objects"].items():
        without = len(folds[name]) - n
        parts.append(f"{name} {n:,}" + (f" ({without:,} more have no label)" if without else ""))
    lines = [repr(model), f"model      {model.path}"]
    if model.task.targets:
        valid = resolve.labelled({"valid": folds["valid"]}, model.task)["valid"]
        outputs, _, truth = finishing.run_over(model, valid, most=5000)
        score = model.task.score(model.module.head, outputs, truth)  # type: ignore[arg-type]
        lines.append(f"score      {score.name} {score.value:.4g} on {len(outputs):,} objects of the validation fold")
    lines.append(f"objects    {', '.join(parts)}")
    augment = model.provenance["settings"].get("augment")  # a classical family has none
    if augment == "dihedral" and call["augment"] == "auto":
        augment += ": images are turned and flipped in training (--set augment=none where the answer depends on it)"
    if augment is not None:
        lines.append(f"augmented  {augment or 'no'}")
    beside = "" if labels is None else f" --labels {labels}"
    return "\n".join([*lines, f"next       deepsky evaluate {model.path} {path or here.path}{beside}"])


def _folded(survey: Survey, fold: str, slice_: str | None) -> Survey:
    """A fold of a survey, or all of it, where an expression holds."""
    here = survey if fold == "all" else survey.fold(fold)
    if not slice_:
        return here
    made = here.where(slice_)
    if not len(made):
        words = dict.fromkeys(re.findall(r"[^\W\d]\w*", slice_))
        held = [f"{n} {_range(here.column(n))}" for n in words if n in here.index.column_names]
        raise InputError(
            "no object fulfils the expression",
            file=survey.path,
            keyword="--slice",
            found=slice_,
            expected="; ".join(held) or "a condition that some object fulfils",
            fix="choose another --slice" + ("" if fold == "all" else " or --fold"),
        )
    return made


def _range(values: Any) -> str:
    """What a column holds, in words."""
    if values.dtype.kind in "iuf":
        finite = values[values == values]
        return f"from {finite.min():.6g} to {finite.max():.6g}" if len(finite) else "not measured"
    held = sorted({str(v) for v in values if v is not None})
    return "one of " + ", ".join(held[:8]) + (" and others" if len(held) > 8 else "")


def _report_folder(path: Path, held: Model | Catalogue, survey: Survey, fold: str, slice_: str | None) -> Path:
    """Where the report goes unasked: ``report`` is that of the model's own test fold (of a cross-validation: of all its
    objects), and every other choice of objects has a name of its own."""
    own = held.provenance.get("survey_hash") == survey.hash and fold == _usual_fold(held) and not slice_
    words = "-".join(re.sub(r"\W+", "-", w).strip("-") for w in (survey.schema.name, fold, slice_ or "") if w)
    sign = hashlib.sha256(repr((survey.hash, fold, slice_)).encode()).hexdigest()[:6]  # x > 1 and x < 1 read alike
    name = "report" if own else f"report-{words[:60]}-{sign}"
    return path / name if path.is_dir() else path.with_name(f"{path.stem}-{name}")
