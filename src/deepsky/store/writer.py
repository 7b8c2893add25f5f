"""The writer of native surveys: tiles one by one, each under a temporary name until it is whole; ``schema.json`` last.

A folder without ``schema.json`` is unfinished, whatever else it holds. A tile that exists is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from deepsky import folds as fold_rules
from deepsky import labels as label_layer
from deepsky.constants import SURVEY_FORMAT
from deepsky.errors import InputError
from deepsky.io import LOCK, TEMPORARY, blake_keys, read_json, read_parquet, release_memory, write_json
from deepsky.sample import Sample
from deepsky.schema import Schema
from deepsky.store.packing import describe, pack
from deepsky.store.tile import ROWS, SUMS, Part, write_tile
from deepsky.store.tiling import TILE_BYTES, plan
from deepsky.survey import Survey, Tile

PLAN = "plan.json"


def check_new(to: str | Path) -> None:
    """Make sure that a folder can be made, or is an empty one or that of an unfinished survey; nothing is written.

    Raises
    ------
    InputError : there is a file, or a folder that holds something else.
    """
    to = Path(to)
    there = next(p for p in (to, *to.absolute().parents) if p.exists())
    if not there.is_dir():
        raise InputError("a file stands where a folder is to be", file=there, expected="a new folder",
                         fix="name another folder")  # fmt: skip
    if to.exists() and not (to / PLAN).exists() and any(p.name != LOCK for p in to.iterdir()):
        raise InputError("this folder is not empty", file=to, expected="a new folder", fix="name another folder")


def start(to: str | Path, call: Mapping[str, Any]) -> Path:
    """Prepare the folder of a new survey, or go on with one that was begun by the same call.

    Raises
    ------
    InputError : the folder holds something else, or was begun by another call.
    """
    to = Path(to)
    begun = to / PLAN
    if (to / "schema.json").exists():
        raise InputError("there is a survey here already", file=to, fix="name another folder, or delete this one")
    if begun.exists():
        if read_json(begun) != json.loads(json.dumps(call)):
            raise InputError("an unfinished survey of another call lies here", file=to,
                             fix=f"run the same command as before, or delete the folder: rm -r {to}")  # fmt: skip
    else:
        check_new(to)
    (to / "tiles").mkdir(parents=True, exist_ok=True)
    if not begun.exists():
        write_json(begun, dict(call))
    return to


# -- the whole survey -------------------------------------------------------------------------------------
def write(
    samples: Iterable[Sample],
    to: str | Path,
    *,
    name: str = "",
    schema: Schema | None = None,
    dtype: str = "float32",
    real: bool = False,
    source: str = "",
    folds: Mapping[str, Any] | None = None,
    tile_bytes: int = TILE_BYTES,
) -> Survey:
    """Write batches, such as those of a simulator, as a native survey.

    Parameters
    ----------
    samples : batches of any length, read one by one; their truths become columns, or arrays beside the observations.
    to : a new folder; what an interrupted call left there is written anew.
    schema : by default taken from the first batch (`packing.describe`), with units scaled to order one.
    dtype : of the stored flux, "float32" or "float16".
    folds : arguments of `deepsky.folds.columns`; by default folds by object, without a search for near-duplicates.
    tile_bytes : largest size of a tile.

    Raises
    ------
    InputError : the folder is in use, there is no object, or values that the type cannot hold.
    """
    to = Path(to)
    if (to / PLAN).exists() and not (to / "schema.json").exists():  # an iterator cannot be resumed
        shutil.rmtree(to)
    start(to, {"call": "write", "name": name})
    draft = to / f"{TEMPORARY}batches"
    names = []
    batches = _packed(samples, schema, name or to.name, dtype, real, source)
    first = next(batches, None)
    if first is None:
        raise InputError("no object to write", file=to)
    schema = first[0]
    stream = chain([first[1]], (part for _, part in batches))
    for number, parts in enumerate(_cut(stream, tile_bytes)):
        names.append(f"shard-{number:06d}")
        write_tile(draft / names[-1], parts)
    tables = [read_parquet(draft / n / ROWS) for n in names]
    if any(np.isfinite(t["ra"].to_numpy()).any() for t in tables):
        names = _retile(draft, names, tables, to, tile_bytes)
    else:
        for n in names:
            (draft / n).rename(to / "tiles" / n)
    shutil.rmtree(draft)
    return finish(to, schema, names, folds={"near_duplicates": False} if folds is None else folds)


def _packed(
    samples: Iterable[Sample], schema: Schema | None, name: str, dtype: str, real: bool, source: str
) -> Iterator[tuple[Schema, Part]]:
    for sample in samples:
        if len(sample) == 0:
            continue
        schema = schema or describe(sample, name=name, dtype=dtype, real=real, source=source)
        yield schema, pack(sample, schema)


def _cut(parts: Iterator[Part], limit: int) -> Iterator[Iterator[Part]]:
    """Group a stream of parts so that each group holds at most `limit` bytes (or one part)."""
    ahead = next(parts, None)

    def group() -> Iterator[Part]:
        nonlocal ahead
        total = 0
        while ahead is not None:
            size = sum(a.nbytes for a in ahead[0].values())
            if total and total + size > limit:
                return
            total += size
            yield ahead
            ahead = next(parts, None)

    while ahead is not None:
        yield group()


def _retile(draft: Path, names: list[str], tables: list[pa.Table], to: Path, limit: int) -> list[str]:
    """Move objects from shards in the order of their arrival to HEALPix tiles."""
    table = pa.concat_tables(tables, promote_options="permissive").drop_columns(["crc"])
    counts = np.array([t.num_rows for t in tables])
    arrays = {p.name[: -len(".npy")] for p in (draft / names[0]).glob("*.npy")}
    sources = {a: [np.load(draft / n / f"{a}.npy", mmap_mode="r") for n in names] for a in arrays}
    each = sum(s[0].nbytes // max(len(s[0]), 1) for s in sources.values())
    starts = np.concatenate([[0], np.cumsum(counts)])
    cells = plan(table["ra"].to_numpy(), table["dec"].to_numpy(), np.full(table.num_rows, each), limit=limit)

    def parts(rows: np.ndarray) -> Iterator[Part]:
        shard = np.searchsorted(starts, rows, side="right") - 1
        for number in np.unique(shard):
            here = rows[shard == number]
            yield {a: np.asarray(s[number][here - starts[number]]) for a, s in sources.items()}, table.take(here)

    for cell in cells:
        write_tile(to / "tiles" / cell.name, parts(cell.rows))
    return [cell.name for cell in cells]


def finish(
    to: Path,
    schema: Schema,
    names: Iterable[str],
    *,
    folds: Mapping[str, Any] | None = None,
    notes: Iterable[str] = (),
) -> Survey:
    """Write the index and then ``schema.json`` of a folder whose tiles, and labels if any, are all there.

    Parameters
    ----------
    names : of the tiles, in the order of the index; those without objects are dropped.
    folds : arguments of `deepsky.folds.columns`; None leaves the survey without folds.
    notes : added to those of the schema.

    Raises
    ------
    InputError : a tile is missing, or there is no object at all.
    """
    tiles, tables, start_row = [], [], 0
    for name in names:
        folder = to / "tiles" / name
        if not folder.exists():
            raise InputError("a tile is missing", file=to, found=name, fix="run the same command again")
        table = read_parquet(folder / ROWS)
        if table.num_rows == 0:
            continue
        tile = pa.DictionaryArray.from_arrays(np.zeros(table.num_rows, np.int32), pa.array([name], pa.string()))
        table = table.append_column("tile", tile).append_column("row", pa.array(np.arange(len(table)), pa.int64()))
        tables.append(table)
        tiles.append(Tile(name, start_row, table.num_rows))
        start_row += table.num_rows
    if not tiles:
        raise InputError("no object could be used", file=to)
    index = pa.concat_tables(tables, promote_options="permissive")
    keys = [blake_keys(part.to_pylist()) for part in index["id"].chunks]  # a tile's names at a time as Python objects
    index = index.append_column("key", pa.array(np.concatenate(keys)))
    schema = replace(schema, notes=(*schema.notes, *notes))
    survey = Survey(to, schema, tuple(tiles), index, np.arange(start_row, dtype=np.int64))
    if folds is not None:
        whole = survey.with_columns(*label_layer.joined(to, index["id"]))
        index = fold_rules.write(to, index, fold_rules.columns(whole, **folds))
        del whole
    fold_rules.write_index(to, index)
    _write_schema(survey)
    clean(to)
    del index, tables, table, survey
    release_memory()
    return Survey.load(to)


def _write_schema(survey: Survey) -> None:
    """Write ``schema.json``: from now on the survey is finished."""
    data = {"format": SURVEY_FORMAT, **survey.schema.json(), "tiles": [[t.name, t.count] for t in survey.tiles]}
    write_json(survey.path / "schema.json", {**data, "hash": fingerprint(survey)})


def fingerprint(survey: Survey) -> str:
    """Hash of what the arrays hold, of the objects' keys and of what the numbers mean."""
    meaning = {n: asdict(o) for n, o in survey.schema.observations.items()}
    digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
    digest.update(survey.index["key"].to_numpy().tobytes())
    for tile in survey.tiles:
        digest.update(json.dumps(read_json(survey.path / "tiles" / tile.name / SUMS), sort_keys=True).encode())
    return digest.hexdigest()[:32]


def clean(to: Path) -> None:
    """Remove what only an unfinished survey needs."""
    for path in [*to.glob(f"tiles/*/{ROWS}"), *to.glob("tiles/*/rejected.parquet"), to / PLAN]:
        path.unlink(missing_ok=True)
    for folder in to.glob("tiles/*"):
        if not any(folder.glob("*.npy")) or folder.name.startswith("."):
            shutil.rmtree(folder)
