"""What the commands share: the app, options that occur more than once, and words of the form key=value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """``key=value`` words as arguments of `call`, each read as its type in the signature; unknown keys are an error.

    Parameters
    ----------
    extra : names of further arguments, or `ANY`: then those that `call` does not have are options of a reader.
    """
    from deepsky import casting

    known = casting.kinds(call, "survey", "source", "to", "task", "model") | dict.fromkeys(extra, Any)
    if extra == ANY:
        known = _reader_options() | known
    found = {}
    for key, text in _pairs(words, "--set"):
        if extra != ANY and key not in known:
            raise InputError("no such argument", found=key, known=known)
        found[key] = casting.read(text, known.get(key, Any), f"--set {key}")
    return found


def words(given: list[str] | None, kinds: Mapping[str, Any], option: str) -> dict[str, Any]:
    """``key=value`` words of an `option`, each read as its type among `kinds`; other keys are left."""
    from deepsky import casting

    pairs = _pairs(given, option)
    return {key: casting.read(text, kinds[key], f"{option} {key}") if key in kinds else text for key, text in pairs}


def _pairs(words: list[str] | None, option: str) -> list[tuple[str, str]]:
    found = []
    for word in words or []:
        key, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"{option} takes key=value", found=word)
        found.append((key.strip().replace("-", "_"), value.strip()))
    return found


def _reader_options() -> dict[str, Any]:
    """The options of all readers: which of them will read is not known before it looks."""
    from deepsky import casting, registry

    found: dict[str, Any] = {}
    for name in registry.names("surveys"):
        for key, kind in casting.kinds(registry.find("surveys", name).open, "path", "source").items():
            found[key] = found[key] | kind if key in found else kind
    return found


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
    """A survey from anything.

    Raises
    ------
    InputError : a model stands there; see `deepsky.open` for the rest.
    """
    from deepsky.ingestion import open as run

    if is_model(path):
        raise InputError("a model, where a survey is expected", file=path, fix="name the survey it was trained on")
    return run(path, labels=labels, **options)


def is_model(path: Path) -> bool:
    """Whether a folder is that of a model, and not of a survey."""
    return (path / "model.json").is_file() and not (path / "schema.json").exists()


def ordered(command: str, survey: Path, *models: Path) -> None:
    """Refuse a survey where a model is expected.

    Raises
    ------
    InputError : with the command in the right order.
    """
    swapped = [m for m in models if (m / "schema.json").is_file() and not is_model(m)]
    if swapped and is_model(survey):
        right = " ".join(str(survey if m == swapped[0] else m) for m in models)
        raise InputError("a survey, where a model is expected: the model comes first", file=swapped[0],
                         fix=f"deepsky {command} {right} {swapped[0]}")  # fmt: skip
    if swapped:
        raise InputError("a survey, where a model is expected", file=swapped[0], fix="deepsky train SURVEY --to MODEL")


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
    return tasks.build(task, targets=targets, **words(settings, tasks.settings(task), "--task-set"))


def chosen(network: str, settings: list[str] | None) -> dict[str, Any]:
    """A network, or classical family, and its settings, as arguments of `training.train`.

    Raises
    ------
    InputError : neither is called so, or a setting that cannot be read or that it does not have.
    """
    from deepsky import resolve

    name = resolve.named(network)
    found = words(settings, resolve.settings(name), "--network-set")
    return {"network": name, "settings": resolve.check_settings(name, found)}


def names(text: str | None) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(n.strip() for n in (text or "").split(",") if n.strip())
