"""Benchmarks: ``python -m benchmarks [NAME ...] [--quick]``, ``... recipe NAME``, ``... table``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

HELP = """
python -m benchmarks [NAME ...] [--quick]     measure speed; all benchmarks where none is named
python -m benchmarks recipe NAME              measure the four numbers of a recipe
python -m benchmarks same NAME                keep its figures after an edit that leaves them as they are
python -m benchmarks table                    write the tables of README.md and docs/benchmarks.md from what is kept
"""


def main(arguments: Sequence[str]) -> int:
    """One command; the exit code."""
    command = arguments[0] if arguments and arguments[0] in {"recipe", "same", "table"} else "speed"
    parser = argparse.ArgumentParser("python -m benchmarks", description=HELP,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    if command == "speed":
        parser.add_argument("names", nargs="*", metavar="NAME", help="of a benchmark, e.g. loading frames")
        parser.add_argument("--quick", action="store_true", help="smaller sizes, kept under results/quick")
        for name in ("OMP", "OPENBLAS", "MKL"):  # before numpy and torch are loaded
            os.environ[f"{name}_NUM_THREADS"] = "1"
    if command == "recipe":
        parser.add_argument("command")
        parser.add_argument("name")
        parser.add_argument("--seeds", type=int, default=3)
        parser.add_argument("--size", default="full", help="tiny, quick or full")
        parser.add_argument("--again", action="store_true", help="although it was measured as it stands")
    if command == "same":
        parser.add_argument("command")
        parser.add_argument("name")
    if command == "table":
        parser.add_argument("command")
        parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    given = parser.parse_args(arguments)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    from deepsky.errors import DeepskyError

    try:
        return {"speed": _speed, "recipe": _recipe, "same": _same, "table": _table}[command](given)
    except DeepskyError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _speed(given: argparse.Namespace) -> int:
    import torch

    from benchmarks import _speed as speed
    from benchmarks._tables import speed_table

    torch.set_num_threads(1)
    made = speed.run(given.names, given.quick)
    print("\n".join(speed_table(row for rows in made.values() for row in rows)))
    return 0


def _recipe(given: argparse.Namespace) -> int:
    from benchmarks import _recipes as recipes

    print(recipes.run(given.name, seeds=given.seeds, size=given.size, again=given.again))
    return 0


def _same(given: argparse.Namespace) -> int:
    from benchmarks import _same as same

    print(same.keep(given.name))
    return 0


def _table(given: argparse.Namespace) -> int:
    from benchmarks import _tables as tables

    if given.check:
        stale = [p.name for p, text in tables.made().items() if not p.exists() or p.read_text("utf-8") != text]
        print(f"not up to date: {', '.join(stale)}; python -m benchmarks table" if stale else "up to date")
        return bool(stale)
    for path in tables.write():
        print(f"written: {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
