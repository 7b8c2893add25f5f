"""Commands that look at data and make surveys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepsky.cli.options import ANY, Extra, IdColumn, Labels, Set, To, app, examples, more, open_survey

Catalogue = Annotated[Path | None, typer.Option(help="source table, for full frames")]


@app.command(epilog=examples("look cutouts/ --labels labels.csv", "look galaxy.fits --set bands=g,r,i"))
def look(
    path: Path,
    labels: Labels = None,
    id_column: IdColumn = None,
    catalogue: Catalogue = None,
    to: Annotated[Path, typer.Option(help="picture to write")] = Path("look.png"),
    sets: Set = None,
) -> None:
    """Say in seconds what was understood of PATH. Draws a contact sheet, and ingests nothing."""
    from deepsky.look import look as run

    options = more(sets, run, ANY)
    if catalogue is not None:
        options["catalogue"] = catalogue
    typer.echo(run(path, labels=labels, id_column=id_column, to=to, **options))


@app.command("list", epilog=examples("list"))
def list_() -> None:
    """What there is: recipes, tasks, networks, baselines, readers. Each with one line."""
    from deepsky import registry

    for kind in ("recipes", "tasks", "networks", "baselines", "surveys", "simulators", "augment"):
        found = registry.names(kind)
        if found:
            typer.echo(f"\n{kind}")
        for name in found:
            typer.echo(f"  {name:<20} {registry.summary(kind, name)}")


@app.command(epilog=examples("check galaxies/"))
def check(survey: Path, to: Annotated[Path, typer.Option(help="picture to write")] = Path("check.png")) -> None:
    """Report what would spoil a training. Leaks, duplicates, unmeasured pixels, outliers, class balance, damage."""
    from deepsky.check import check as run

    typer.echo(run(open_survey(survey), to=to))


@app.command(epilog=examples("ingest cutouts/ --labels labels.csv --to galaxies/",
                             "ingest 'frames/*.fits' --catalogue sources.fits --size 64 --to galaxies/",
                             "ingest survey/ --like model/ --to converted/"))  # fmt: skip
def ingest(
    source: Path,
    to: To,
    labels: Labels = None,
    catalogue: Catalogue = None,
    workers: Annotated[int, typer.Option(help="processes; 0 reads in this one")] = 2,
    size: Annotated[int | None, typer.Option(help="crop or pad every image to N x N pixels")] = None,
    unit: Annotated[str | None, typer.Option(help="unit of the flux, where the files do not say")] = None,
    pixel_scale: Annotated[float | None, typer.Option(help="arcsec, where the files do not say")] = None,
    bands: Annotated[str | None, typer.Option(help="names of the bands, in order: g,r,i")] = None,
    mask_bits: Annotated[
        str | None, typer.Option(help="mask bits that mean not measured, by name or value: BAD,SAT")
    ] = None,
    id_column: IdColumn = None,
    extra_labels: Extra = "refuse",
    like: Annotated[
        Path | None, typer.Option(help="a model: convert a native survey to what it was trained on")
    ] = None,
    max_rejected: Annotated[float, typer.Option(help="share of bad objects that stops the ingest")] = 0.05,
    simulated: Annotated[bool, typer.Option("--simulated", help="the objects are simulated, not real")] = False,
    sets: Set = None,
) -> None:
    """Turn any supported source into a native survey. Resumable, in bounded memory, in parallel."""
    from deepsky.ingestion import ingest as run
    from deepsky.ingestion import summary

    given = {
        "catalogue": catalogue,
        "size": size,
        "unit": unit,
        "pixel_scale": pixel_scale,
        "like": like,
        "id_column": id_column,
        "bands": bands,
        "mask_bits": mask_bits,
    }
    options = {"workers": workers, "extra_labels": extra_labels, "max_rejected": max_rejected, "simulated": simulated}
    options |= {k: v for k, v in given.items() if v is not None} | more(sets, run, ANY)
    typer.echo(summary(run(source, to, labels=labels, **options)))


@app.command(epilog=examples("split galaxies/ --block 0.5", "split galaxies/ --fold-column published"))
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
    """Assign folds anew, by group: train, valid, calib and test. Counts what would leak."""
    from deepsky import folds

    made = folds.assign(
        open_survey(survey),
        seed=seed,
        radius_arcsec=radius,
        block_deg=block,
        group_column=group,
        fold_column=fold_column,
        stratify=stratify,
    )
    typer.echo(folds.leaks(made))


@app.command(epilog=examples('label galaxies/ more_labels.csv --labeller "M. Wolf"'))
def label(
    survey: Path,
    table: Path,
    labeller: Annotated[str, typer.Option(help="who or what made the labels")] = "",
    id_column: IdColumn = None,
    extra_labels: Extra = "refuse",
    radius: Annotated[float | None, typer.Option(help="join by position within this radius in arcsec")] = None,
) -> None:
    """Add labels as a new version of the label layer. Nothing is ingested again, and no fold changes."""
    from deepsky import labels

    version = labels.add(
        survey, table, labeller=labeller, id_column=id_column, radius_arcsec=radius, extra=extra_labels
    )
    typer.echo(f"labels version {version}: {survey}")
    for note in (*labels.notes(survey, version), *labels.agreed(survey)):
        typer.echo(f"note: {note}")


@app.command(epilog=examples("hats galaxies/ --to galaxies-hats/"))
def hats(
    survey: Path,
    to: To,
    name: Annotated[str, typer.Option(help="of the catalogue; by default the survey's")] = "",
) -> None:
    """Write SURVEY as a HATS catalogue, which LSDB opens. Labels and folds go along; pixels are binary columns."""
    from deepsky.hats import write_hats

    here = open_survey(survey)
    placed = int((here.column("ra") == here.column("ra")).sum())  # NaN is not itself
    left = len(here) - placed
    made = write_hats(here, to, name=name)
    typer.echo(f"{made}: {placed:,} objects" + (f"; {left:,} without a position are left out" if left else ""))
