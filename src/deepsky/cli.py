"""The command line: one function a command, one library call a function, and errors without a traceback."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from deepsky.errors import DeepskyError, InputError

app = typer.Typer(
    name="deepsky",
    help="Deep learning for astronomy: from survey data to a catalogue that can be published.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Labels = Annotated[Path | None, typer.Option(help="table of labels: CSV, ECSV, FITS, VOTable or Parquet")]
To = Annotated[Path, typer.Option(help="folder to write")]
Set = Annotated[list[str] | None, typer.Option("--set", help="any further argument of the library call, as key=value")]
IdColumn = Annotated[str | None, typer.Option(help="column of the label table that holds the ids")]
Extra = Annotated[str, typer.Option(help="labels of objects that are not there: refuse or ignore")]
Quiet = Annotated[bool, typer.Option(help="no progress")]


def main() -> None:
    """Run the command line; exit codes: 0, 1 (user error), 2 (work remains), 130 (cancelled)."""
    try:
        app(standalone_mode=False)
    except DeepskyError as error:
        print(f"deepsky: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, typer.Abort):
        print("deepsky: cancelled", file=sys.stderr)
        raise SystemExit(130) from None
    except typer.Exit as error:
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        if type(error).__name__ in {
            "UsageError",
            "BadParameter",
            "NoSuchOption",
            "MissingParameter",
            "NoArgsIsHelpError",
            "BadArgumentUsage",
        }:
            error.show()  # type: ignore[attr-defined]
            raise SystemExit(1) from None
        raise


def _more(words: list[str] | None, call: Callable[..., Any], extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """``key=value`` words as arguments of `call`, checked against its signature; unknown keys are an error."""
    known = [
        p for p in inspect.signature(call).parameters if p not in {"survey", "source", "to", "task", "model"}
    ] + list(extra)
    found = {}
    for word in words or []:
        key, equals, value = word.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise InputError("--set takes key=value", found=word)
        if extra != ("*",) and key not in known:
            raise InputError("no such argument", found=key, known=known)
        try:
            found[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key] = value
    return found


def _survey(path: Path, labels: Path | None = None, **options: Any) -> Any:
    from deepsky.ingestion import open as open_survey

    return open_survey(path, labels=labels, **options)


def _task(task: str, target: str, words: dict[str, Any]) -> Any:
    from deepsky import tasks

    return tasks.build(task, targets=tuple(t.strip() for t in target.split(",") if t.strip()), **words)


# -- looking ----------------------------------------------------------------------------------------------------
@app.command()
def look(
    path: Path,
    labels: Labels = None,
    catalogue: Annotated[Path | None, typer.Option(help="source table, for full frames")] = None,
    to: Annotated[Path, typer.Option(help="picture to write")] = Path("look.png"),
    sets: Set = None,
) -> None:
    """Say in seconds what was understood of PATH, and draw a contact sheet, before anything is ingested."""
    from deepsky.look import look as run

    options = _more(sets, run, ("*",))
    if catalogue is not None:
        options["catalogue"] = catalogue
    print(run(path, labels=labels, to=to, **options))


@app.command("list")
def list_() -> None:
    """What there is: recipes, tasks, networks, classical baselines, readers and simulators, each with one line."""
    from deepsky import registry

    for kind in ("recipes", "tasks", "networks", "baselines", "surveys", "simulators", "augment"):
        names = registry.names(kind)
        if names:
            print(f"\n{kind}")
        for name in names:
            print(f"  {name:<20} {registry.summary(kind, name)}")


@app.command()
def check(survey: Path, to: Annotated[Path, typer.Option(help="picture to write")] = Path("check.png")) -> None:
    """Report leaks, duplicates, unmeasured pixels, outliers, class balance, and what training would take."""
    from deepsky.check import check as run

    print(run(_survey(survey), to=to))


# -- making a survey --------------------------------------------------------------------------------------------
@app.command()
def ingest(
    source: Path,
    to: To,
    labels: Labels = None,
    catalogue: Annotated[Path | None, typer.Option(help="source table, for full frames")] = None,
    workers: Annotated[int, typer.Option(help="processes; 0 reads in this one")] = 2,
    size: Annotated[int | None, typer.Option(help="crop or pad every image to N x N pixels")] = None,
    unit: Annotated[str | None, typer.Option(help="unit of the flux, where the files do not say")] = None,
    pixel_scale: Annotated[float | None, typer.Option(help="arcsec, where the files do not say")] = None,
    bands: Annotated[str | None, typer.Option(help="names of the bands, in order: g,r,i")] = None,
    id_column: IdColumn = None,
    extra_labels: Extra = "refuse",
    like: Annotated[
        Path | None, typer.Option(help="a model: convert a native survey to what it was trained on")
    ] = None,
    max_rejected: Annotated[float, typer.Option(help="share of bad objects that stops the ingest")] = 0.05,
    sets: Set = None,
) -> None:
    """Turn any supported source into a native survey: resumable, in bounded memory, in parallel."""
    from deepsky.ingestion import ingest as run

    given = {
        "catalogue": catalogue,
        "size": size,
        "unit": unit,
        "pixel_scale": pixel_scale,
        "like": like,
        "id_column": id_column,
        "bands": tuple(b.strip() for b in bands.split(",")) if bands else None,
    }
    options = {k: v for k, v in given.items() if v is not None}
    options |= {"extra_labels": extra_labels, "max_rejected": max_rejected, **_more(sets, run, ("*",))}
    print(run(source, to, labels=labels, workers=workers, **options))


@app.command()
def split(
    survey: Path,
    seed: int = 0,
    radius: Annotated[float | None, typer.Option(help="arcsec within which two objects are one group")] = None,
    block: Annotated[
        float | None, typer.Option(help="side of a sky block in degrees; a block stays in one fold")
    ] = None,
    group: Annotated[str | None, typer.Option(help="column whose equal values stay together")] = None,
    fold_column: Annotated[str | None, typer.Option(help="column with a published split")] = None,
    stratify: Annotated[str | None, typer.Option(help="label to balance over the folds")] = None,
) -> None:
    """Assign folds anew: train, valid, calib and test, by group, and count what would leak."""
    from deepsky import folds

    made = folds.assign(
        _survey(survey),
        seed=seed,
        radius_arcsec=radius,
        block_deg=block,
        group_column=group,
        fold_column=fold_column,
        stratify=stratify,
    )
    print(folds.leaks(made))


@app.command()
def label(
    survey: Path,
    table: Path,
    labeller: str = "",
    id_column: IdColumn = None,
    extra_labels: Extra = "refuse",
    radius: Annotated[float | None, typer.Option(help="join by position within this radius in arcsec")] = None,
) -> None:
    """Add a table of labels as a new version of the label layer; nothing is ingested again, no fold changes."""
    from deepsky import labels

    version = labels.add(
        survey, table, labeller=labeller, id_column=id_column, radius_arcsec=radius, extra=extra_labels
    )
    print("\n".join([f"labels version {version}: {survey}", *(f"note: {n}" for n in labels.notes(survey, version))]))


# -- learning ---------------------------------------------------------------------------------------------------
Target = Annotated[str, typer.Option(help="label or truth column; several with commas")]
TaskName = Annotated[str, typer.Option("--task", help="classify or regress")]
NetworkName = Annotated[str, typer.Option(help="network or classical family; see deepsky list")]
Minutes = Annotated[float | None, typer.Option(help="time budget of the training loop")]
TaskSet = Annotated[list[str] | None, typer.Option("--task-set", help="setting of the task, as key=value")]
NetworkSet = Annotated[list[str] | None, typer.Option("--network-set", help="setting of the network, as key=value")]


@app.command()
def train(
    survey: Path,
    to: To,
    target: Target,
    task: TaskName = "classify",
    network: NetworkName = "resnet",
    seed: int = 0,
    epochs: float = 30,
    minutes: Minutes = None,
    batch: int = 64,
    labels: Labels = None,
    task_set: TaskSet = None,
    network_set: NetworkSet = None,
    sets: Set = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on the training fold of SURVEY; stopped at any moment, the same command goes on."""
    from deepsky.training import train as run

    made = run(
        _task(task, target, _words(task_set)),
        _survey(survey, labels),
        network=network,
        settings=_words(network_set),
        to=to,
        seed=seed,
        epochs=epochs,
        minutes=minutes,
        batch=batch,
        quiet=quiet,
        **_more(sets, run),
    )
    print(made)


def _words(words: list[str] | None) -> dict[str, Any]:
    return _more(words, _words, ("*",))


@app.command()
def crossval(
    survey: Path,
    to: To,
    target: Target,
    task: TaskName = "classify",
    network: NetworkName = "resnet",
    k: Annotated[int, typer.Option(help="folds")] = 5,
    repeats: int = 1,
    seed: int = 0,
    epochs: float = 30,
    minutes: Minutes = None,
    labels: Labels = None,
    task_set: TaskSet = None,
    network_set: NetworkSet = None,
    sets: Set = None,
    quiet: Quiet = False,
) -> None:
    """Train K models and predict every object by the one that never saw its group: a catalogue and a report."""
    from deepsky.crossval import crossvalidate
    from deepsky.evaluation import evaluate as judge
    from deepsky.training import train as run

    here = _survey(survey, labels)
    asked = _task(task, target, _words(task_set))
    made = crossvalidate(
        asked,
        here,
        k=k,
        repeats=repeats,
        seed=seed,
        to=to,
        network=network,
        settings=_words(network_set),
        epochs=epochs,
        minutes=minutes,
        quiet=quiet,
        **_more(sets, run),
    )
    print(judge(made, here, task=asked, to=to))


# -- using a model ----------------------------------------------------------------------------------------------
@app.command()
def predict(
    model: Path,
    survey: Path,
    to: To,
    prevalence: Annotated[list[str] | None, typer.Option(help="CLASS=SHARE among the objects of this survey")] = None,
    write: Annotated[list[str] | None, typer.Option(help="also as .fits, .vot, .ecsv or .csv: a file name")] = None,
    fold: Annotated[str | None, typer.Option(help="only this fold")] = None,
    quiet: Quiet = False,
) -> None:
    """Apply MODEL to every object of SURVEY: a catalogue; stopped at any moment, the same command goes on."""
    from deepsky.inference import predict as run
    from deepsky.model import load

    here = _survey(survey)
    shares = {k: float(v) for k, v in _words(prevalence).items()} or None
    made = run(load(model), here if fold is None else here.fold(fold), to=to, prevalence=shares, quiet=quiet)
    for name in write or []:
        print(made.write(name))
    print(made)


@app.command()
def evaluate(
    model: Path,
    survey: Path,
    fold: str = "test",
    to: Annotated[Path | None, typer.Option(help="folder of report.html and report.json")] = None,
    by: Annotated[str | None, typer.Option(help="columns to bin by, with commas")] = None,
    slice_: Annotated[str | None, typer.Option("--slice", help='only where this holds: "mag > 22 & fwhm > 1"')] = None,
    labels: Labels = None,
) -> None:
    """Hold MODEL's answers against the truth of a fold: report.html and report.json."""
    from deepsky.evaluation import evaluate as run
    from deepsky.model import load

    here = _survey(survey, labels).fold(fold)
    here = here.where(slice_) if slice_ else here
    names = tuple(b.strip() for b in by.split(",")) if by else ()
    print(run(load(model), here, by=names, to=to or model / "report"))


@app.command()
def compare(model_a: Path, model_b: Path, survey: Path, fold: str = "test", to: To = Path("comparison")) -> None:
    """Compare two models on the same objects: paired intervals, change per bin, a gallery of the objects that flip."""
    from deepsky.evaluation import compare as run
    from deepsky.model import load

    print(run(load(model_a), load(model_b), _survey(survey).fold(fold), to=to))


@app.command()
def run(
    recipe: str,
    quick: Annotated[bool, typer.Option("--quick", help="a minute on two cores, for a first look")] = False,
    to: Annotated[Path | None, typer.Option(help="folder of model, report, catalogue and result")] = None,
    seeds: Annotated[int, typer.Option(help="how many seeds to train")] = 1,
) -> None:
    """Run a published system end to end and print its four numbers: published, classical, ours, limit."""
    from deepsky.recipe import run as go

    print(go(recipe, size="quick" if quick else "full", to=to, seeds=tuple(range(seeds))))


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="fewer objects, for a test of the installation")] = False,
    to: To = Path("demo"),
) -> None:
    """Train the strong-lens finder on a small simulation, predict a small survey with it, print the four numbers."""
    from deepsky.recipe import demo as go

    print(go(size="tiny" if quick else "quick", to=to))
