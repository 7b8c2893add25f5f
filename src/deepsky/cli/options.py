"""What the commands share: the app, options that occur more than once, and words of the form key=value."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import deepsky
from deepsky.errors import InputError

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
Trust = Annotated[
    str | None,
    typer.Option(help="code that you trust, for a model with a network of yours: package.module:Name, or FILE.py"),
]
ANY = ("*",)


def examples(*lines: str) -> str:
    """The end of a command's help: what to type."""
    return "\b\nExamples:\n" + "\n".join(f"  deepsky {line}" for line in lines)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deepsky {deepsky.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and stop")
    ] = False,
) -> None: ...


def more(words: list[str] | None, call: Callable[..., Any], extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """``key=value`` words as arguments of `call`, checked against its signature; unknown keys are an error."""
    unsettable = {"survey", "source", "to", "task", "model"}
    known = [p for p in inspect.signature(call).parameters if p not in unsettable] + list(extra)
    found = {}
    for word in words or []:
        key, equals, value = word.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise InputError("--set takes key=value", found=word)
        if extra != ANY and key not in known:
            raise InputError("no such argument", found=key, known=known)
        found[key] = literal(value.strip())
    return found


def literal(text: str) -> Any:
    """A Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def words(given: list[str] | None) -> dict[str, Any]:
    """``key=value`` words with any keys; names with commas between them are several values."""
    found = more(given, words, ANY)
    return {k: names(v) if isinstance(v, str) and "," in v and "=" not in v else v for k, v in found.items()}


def shares(given: list[str] | None) -> dict[str, float] | None:
    """``CLASS=SHARE`` words; a class is named as it is.

    Raises
    ------
    InputError : a word of another form.
    """
    found = {}
    for word in given or []:
        name, equals, value = word.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError("--prevalence takes CLASS=SHARE", found=word, expected="lens=0.001")
    return found or None


def open_survey(path: Path, labels: Path | None = None, **options: Any) -> Any:
    """A survey from anything."""
    from deepsky.ingestion import open as run

    return run(path, labels=labels, **options)


def load(path: Path, trust: str | None = None) -> Any:
    """A saved model."""
    from deepsky.model import load as run

    return run(path, trust=trust)


def question(task: str, target: str | None, survey: Any, settings: list[str] | None) -> Any:
    """The task that a command asks about.

    Raises
    ------
    InputError : no target, with those that the survey has.
    """
    from deepsky import tasks

    targets = names(target)
    if not targets:
        known = [n for n, c in survey.schema.columns.items() if c.role != "scalar"]
        raise InputError("what is to be learnt is not said", file=survey.path, known=known,
                         fix="--target COLUMN" if known else "--labels TABLE.csv --target COLUMN")  # fmt: skip
    return tasks.build(task, targets=targets, **words(settings))


def names(text: str | None) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(n.strip() for n in (text or "").split(",") if n.strip())
