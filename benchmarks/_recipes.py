"""Measures a recipe and keeps its four numbers in ``results/NAME.json``, with what is needed to measure them again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks._machine import RESULTS, ROOT, origin
from deepsky import recipe
from deepsky.errors import InputError
from deepsky.io import read_json, write_json

DATA = Path(os.environ.get("DEEPSKY_SHARED_DATA", ROOT.parent / "shared" / "data"))  # where the tests look too


def run(name: str, *, seeds: int = 3, size: str = "full", again: bool = False, results: Path = RESULTS,
        runs: Path = ROOT / "runs") -> recipe.Result:  # fmt: skip
    """Measure, unless it was done already with the recipe as it stands; a stopped run goes on.

    Raises
    ------
    InputError : no such recipe or size, or its result is kept already.
    """
    here = recipe.find(name)
    if size not in recipe.SIZES:
        raise InputError("no such size", found=size, known=recipe.SIZES)
    if seeds < 1:
        raise InputError("at least one seed is needed", found=seeds)
    key = recipe.key(here)
    file = (results if size == "full" else results / "quick") / f"{_stem(here, size)}.json"
    kept = read_json(file)["provenance"] if file.exists() else {}
    if kept.get("key") == key and not again:
        raise InputError("the recipe was measured as it stands", file=file, found=f"{len(kept['seeds'])} seeds, "
                         f"{kept['date']}", fix="--again measures it anew")  # fmt: skip
    command = f"python -m benchmarks recipe {here.name} --seeds {seeds}" + ("" if size == "full" else f" --size {size}")
    if "DEEPSKY_DATA" not in os.environ and DATA.is_dir():
        os.environ["DEEPSKY_DATA"] = str(DATA)
    before = origin(command)  # the tree as it was when the measurement began
    # the key in the folder's name: no model that other code made is taken for this one's
    folder = runs / f"bench-{here.name}-{size}-{key}{'-again' if again else ''}"
    if again and (folder / "result.json").exists():
        shutil.rmtree(folder)
    result = recipe.run(name, size=size, to=folder, seeds=tuple(range(seeds)))
    if recipe.key(here) != key:
        raise InputError("the recipe's code changed while it was measured", file=name, fix="measure it again")
    data = result.json()
    data["provenance"] = {**data["provenance"], **before}
    write_json(file, data)
    return result


def _stem(here: recipe.Recipe, size: str) -> str:
    return here.name if size == "full" else f"{here.name}-{size}"
