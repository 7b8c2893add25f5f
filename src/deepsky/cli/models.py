"""Commands that train models and use them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepsky.cli.options import (
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
    from deepsky.model import Model
    from deepsky.survey import Survey

Target = Annotated[str | None, typer.Option(help="label or truth column; several with commas")]
TaskName = Annotated[str, typer.Option("--task", help="classify or regress")]
NetworkName = Annotated[str, typer.Option(help="network or classical family; see deepsky list")]
Minutes = Annotated[float | None, typer.Option(help="time budget of the training loop")]
TaskSet = Annotated[list[str] | None, typer.Option("--task-set", help="setting of the task, as key=value")]
NetworkSet = Annotated[list[str] | None, typer.Option("--network-set", help="setting of the network, as key=value")]
By = Annotated[str | None, typer.Option(help="columns to bin by, with commas")]
Fold = Annotated[str, typer.Option(help="test, or all of a survey that the model did not learn from")]
Slice = Annotated[str | None, typer.Option("--slice", help='only where this holds: "mag > 22 & fwhm > 1"')]
AS_IT_WAS = {"survey", "to", "labels", "quiet", "run"}  # what may stand beside --from


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
    run: Annotated[Path | None, typer.Option("--from", help="repeat the run of this run.json, as it was")] = None,
    task_set: TaskSet = None,
    network_set: NetworkSet = None,
    sets: Set = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on the training fold of SURVEY. Stopped at any moment, the same command goes on."""
    from deepsky import training

    here = None if survey is None else open_survey(survey, labels)
    if run is not None:
        source = context.get_parameter_source
        told = [n for n in context.params if n not in AS_IT_WAS and getattr(source(n), "name", "") == "COMMANDLINE"]
        if told:
            raise InputError("--from repeats a run as it was", found=", ".join(told), fix="leave these options out")
        typer.echo(_learnt(training.repeat(run, to=to, survey=here, quiet=quiet), here, survey, labels))
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

    here = open_survey(survey, labels)
    asked = question(task, target, here, task_set)
    given = {**chosen(network, network_set), "epochs": epochs, "minutes": minutes, "batch": batch,
             "quiet": quiet, "k": k, "repeats": repeats, "seed": seed}  # fmt: skip
    made = crossvalidate(asked, here, to=to, **{**given, **more(sets, run)})
    beside = to / "classical.parquet"
    classical = Catalogue.read(beside) if beside.exists() else None
    typer.echo(judge(made, here, task=asked, classical=classical, to=to))


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
    from deepsky.catalogue import check_name
    from deepsky.inference import predict as run

    ordered("predict", survey, model)
    for name in write or []:
        check_name(Path(name))  # before an hour of work
    here = open_survey(survey)
    given = {"prevalence": shares(prevalence), "quiet": quiet, **more(sets, run)}
    made = run(load(model, trust), here if fold is None else here.fold(fold), to=to, **given)
    for name in write or []:
        typer.echo(made.write(name))
    for doubt in made.provenance["unchecked"]:
        typer.echo(f"note: {doubt}")
    typer.echo(made)


@app.command(epilog=examples("evaluate model/ galaxies/ --by mag,fwhm",
                             "evaluate model/ other-survey/ --labels labels.csv --fold all",
                             'evaluate model/ galaxies/ --slice "mag > 22 & fwhm > 1"'))  # fmt: skip
def evaluate(
    model: Path,
    survey: Path,
    fold: Fold = "test",
    to: Annotated[Path | None, typer.Option(help="folder of report.html and report.json")] = None,
    by: By = None,
    slice_: Slice = None,
    labels: Labels = None,
    trust: Trust = None,
) -> None:
    """Hold MODEL's answers against the truth of a fold. Writes report.html and report.json."""
    from deepsky.evaluation import evaluate as run

    ordered("evaluate", survey, model)
    here = _folded(open_survey(survey, labels), fold, slice_)
    typer.echo(run(load(model, trust), here, by=names(by), to=to or model / "report"))


@app.command(epilog=examples("compare model_a/ model_b/ galaxies/ --to comparison/"))
def compare(
    model_a: Path,
    model_b: Path,
    survey: Path,
    fold: str = "test",
    to: To = Path("comparison"),
    by: By = None,
    slice_: Slice = None,
    labels: Labels = None,
    trust: Trust = None,
) -> None:
    """Compare two models on the same objects. Paired intervals, change per bin, a gallery of the objects that flip."""
    from deepsky.evaluation import compare as run

    ordered("compare", survey, model_a, model_b)
    here = _folded(open_survey(survey, labels), fold, slice_)
    typer.echo(run(load(model_a, trust), load(model_b, trust), here, by=names(by), to=to))


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
    return here.where(slice_) if slice_ else here
