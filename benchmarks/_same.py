"""Keeps a recipe's figures when code that they rest on was edited without changing them: shown by running both.

A key is a hash of text, and a new option or a rename changes it like a new loss does. The recipe is run with `--quick`
at the commit that was measured and as it stands, on one thread each. Only where all weights, the catalogue and every
figure come out the same to the last bit does the full result get the new key.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks._machine import RESULTS, ROOT, origin
from benchmarks._recipes import DATA
from deepsky import recipe, registry
from deepsky.errors import InputError
from deepsky.io import read_json, write_json

ORIGIN = {"provenance", "size"}  # of a result: what is no figure


def keep(name: str, results: Path = RESULTS) -> str:
    """Give a kept result the key of the code as it stands, if that code makes the same figures.

    Returns
    -------
    str : what was compared.

    Raises
    ------
    InputError : nothing is kept, the recipe itself was edited (a quick run shows nothing of its full setting), a run
        failed, or the figures differ.
    """
    here = recipe.find(name)
    file = results / f"{here.name}.json"
    if not file.exists():
        raise InputError("no result is kept", file=file, fix=f"python -m benchmarks recipe {here.name}")
    kept = read_json(file)
    old, new, commit = kept["provenance"]["key"], recipe.key(here), kept["provenance"].get("commit", "unknown")
    if old == new:
        return f"{here.name}: measured as it stands"
    now = origin(f"python -m benchmarks same {here.name}")
    if now["dirty"]:
        raise InputError("the tree has changes that no commit holds", file=ROOT, fix="commit them first")
    if kept["provenance"].get("dirty"):
        raise InputError("the result was measured with uncommitted changes", file=file, found=commit[:10],
                         fix=f"python -m benchmarks recipe {here.name}")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        before = Path(scratch) / "tree"
        _git("worktree", "add", "--detach", str(before), commit)
        try:
            _refuse_edited(here, before)
            made = [_figures(tree, here.name, Path(scratch) / f"run{i}") for i, tree in enumerate((before, ROOT))]
        finally:
            _git("worktree", "remove", "--force", str(before))
    other = [part for part in made[0] if made[0][part] != made[1].get(part)]
    if other or made[0].keys() != made[1].keys():
        raise InputError("the code makes other figures than the code that was measured", keyword=here.name,
                         found=", ".join(other) or "other files", expected=f"those of {commit[:10]}",
                         fix=f"python -m benchmarks recipe {here.name}")  # fmt: skip
    shown = {"key": old, "commit": now["commit"], "command": now["command"], "date": now["date"]}
    kept["provenance"] |= {"key": new, "same": [*kept["provenance"].get("same", []), shown]}
    write_json(file, kept)
    return f"{here.name}: {', '.join(made[0])} as with {commit[:10]}"


def _refuse_edited(here: recipe.Recipe, before: Path) -> None:
    """Refuse where the texts that set sizes, epochs and measures are not the same."""
    home = ROOT / "src" / "deepsky"
    shared = [home / f"{s.replace('.', '/')}.py" for s in here.sources if s.startswith("recipes.")]
    for now in (registry.where("recipes", here.name), *shared):
        then = before / now.relative_to(ROOT)
        if not then.exists() or recipe.code_of(then) != recipe.code_of(now):
            raise InputError("the recipe was edited since it was measured", file=now,
                             fix=f"python -m benchmarks recipe {here.name}")  # fmt: skip


def _figures(tree: Path, name: str, to: Path) -> dict[str, bytes]:
    """What the code in `tree` makes: the bytes of the weights, the catalogue, and all figures."""
    setting = {"DEEPSKY_DATA": str(DATA), **os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1",
               "DEEPSKY_CACHE": str(to.with_suffix(".cache"))}  # fmt: skip
    words = [sys.executable, "-m", "deepsky", "run", name, "--quick", "--to", str(to)]
    done = subprocess.run(words, env=setting, cwd=to.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError("the run failed", file=tree, found=done.stderr.strip()[-400:] or done.returncode)
    table = pq.read_table(to / "catalogue" / "catalogue.parquet")  # its metadata name the version
    result = {part: value for part, value in read_json(to / "result.json").items() if part not in ORIGIN}
    weights = {"weights": (to / "model" / "weights.safetensors").read_bytes()}  # calibration shows in the catalogue
    return weights | {part: repr(value).encode() for part, value in {"catalogue": table.to_pydict(), **result}.items()}


def _git(*words: str) -> None:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError("git failed", file=ROOT, found=done.stderr.strip()[-300:])
