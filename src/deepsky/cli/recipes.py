"""Commands that run published systems end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepsky.cli.options import To, app, examples


@app.command(epilog=examples("run lens-ground --quick", "run lens-ground --seeds 3"))
def run(
    recipe: str,
    quick: Annotated[bool, typer.Option("--quick", help="a minute on two cores, for a first look")] = False,
    to: Annotated[Path | None, typer.Option(help="folder of model, report, catalogue and result")] = None,
    seeds: Annotated[int, typer.Option(help="how many seeds to train")] = 1,
) -> None:
    """Run a published system and print its four numbers. Published, classical, ours, limit."""
    from deepsky.recipe import run as go

    typer.echo(go(recipe, size="quick" if quick else "full", to=to, seeds=tuple(range(seeds))))


@app.command(epilog=examples("demo", "demo --quick --to somewhere/"))
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="fewer objects, for a test of the installation")] = False,
    to: To = Path("demo"),
) -> None:
    """Train and try the strong-lens finder, in a few minutes. Predicts a small survey that it never saw, too."""
    from deepsky.recipe import demo as go

    typer.echo(go(size="tiny" if quick else "quick", to=to))
