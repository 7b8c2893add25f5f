"""Runs the speed benchmarks, one file each, and keeps what they measured in ``results/speed.json``."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._machine import RESULTS, ROOT, origin
from benchmarks._measure import Row
from deepsky.errors import InputError, MissingExtra
from deepsky.io import read_json, write_json


def names() -> list[str]:
    """Of the benchmarks: the files beside this one without a leading underscore."""
    return sorted(p.stem for p in (ROOT / "benchmarks").glob("*.py") if not p.stem.startswith("_"))


def rows_of(kept: Mapping[str, Any]) -> list[Row]:
    """The rows of one benchmark as they are kept."""
    return [Row.from_json(row) for row in kept["rows"]]


def run(wanted: Sequence[str], quick: bool, results: Path = RESULTS) -> dict[str, list[Row]]:
    """Run some benchmarks, or all, and keep each as soon as it is done, beside what others gave before.

    Raises
    ------
    InputError : no benchmark of that name.
    """
    for name in wanted:
        if name not in names():
            raise InputError("no such benchmark", found=name, known=names())
    file = (results / "quick" if quick else results) / "speed.json"
    command = " ".join(["python -m benchmarks", *wanted, *(["--quick"] if quick else [])])
    made: dict[str, list[Row]] = {}
    for name in wanted or names():
        sys.stderr.write(f"{name} ...\n")
        with tempfile.TemporaryDirectory(prefix=f"deepsky-{name}-") as folder:
            try:
                module = importlib.import_module(f"benchmarks.{name}")
                made[name] = module.run(quick, Path(folder))
            except MissingExtra as error:
                sys.stderr.write(f"{name} left out: {error}\n")
                continue
        kept = read_json(file) if file.exists() else {"benchmarks": {}}
        kept["benchmarks"][name] = {
            "origin": {**origin(command), "threads": 1},
            "rows": [row.json() for row in made[name]],
        }
        write_json(file, kept)
    return made
