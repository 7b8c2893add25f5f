"""The files of the label layer: written as versions, joined when a survey is opened."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsky.errors import InputError
from deepsky.io import lock_folder, read_parquet, write_parquet
from deepsky.labels import turning
from deepsky.labels.cells import natural
from deepsky.labels.matching import Matched, match
from deepsky.schema import Column
from deepsky.tables import metadata
from deepsky.units import FULL_TURN

KEY = "deepsky.labels"
DESCRIBED = ("dtype", "unit", "role", "moves", "classes", "parts", "sigma", "limit", "description")


def add(
    path: str | Path,
    table: Any,
    *,
    labeller: str = "",
    date: str | None = None,
    id_column: str | None = None,
    radius_arcsec: float | None = None,
    extra: str = "refuse",
) -> int:
    """Add a table of labels to a native survey as a new version.

    Parameters
    ----------
    path : of the survey.
    table : path of a table, DataFrame, astropy Table, Arrow table or dict of columns: ids (or positions) and one column
        a label; columns called labeller, date and confidence are those of each row.
    labeller : who gave them, where the table does not say.
    date : ISO date, by default today (UTC).
    id_column, radius_arcsec, extra : see `match`.

    Returns
    -------
    The number of the new version.

    Raises
    ------
    InputError : no native survey, or a table that does not fit it (see `match`).
    """
    path = Path(path)
    if not (path / "schema.json").is_file():
        raise InputError("labels are added to a native survey", file=path, expected="a folder with schema.json",
                         fix=f"deepsky ingest {path} --labels TABLE --to NEW")  # fmt: skip
    index = read_parquet(path / "index.parquet")
    known = {"id", "object_id", "name", "ra", "dec"} & set(index.column_names)
    lost = _set_aside(path)
    found = match(table, index.select(sorted(known)), id_column=id_column, radius_arcsec=radius_arcsec, extra=extra,
                  also_known=lost)  # fmt: skip
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return write(path, found, labeller=labeller, date=date or today)


def _set_aside(path: Path) -> list[str]:
    rejected = path / "rejected.parquet"
    return [str(i) for i in read_parquet(rejected)["id"].to_pylist()] if rejected.exists() else []


def write(path: str | Path, labels: Matched, *, labeller: str = "", date: str = "") -> int:
    """Write labels that were matched as the next version of the layer, atomically; return its number."""
    folder = Path(path) / "labels"
    table = labels.table
    for name, value in (("labeller", labeller), ("date", date)):
        filled = pc.fill_null(table[name], value) if value else table[name]
        table = table.set_column(table.column_names.index(name), name, filled)
    columns = {n: {k: getattr(c, k) for k in DESCRIBED} for n, c in labels.columns.items()}
    data = {KEY: json.dumps({"columns": columns, "notes": list(labels.notes)}, sort_keys=True)}
    table = table.replace_schema_metadata(data)
    with lock_folder(folder):
        number = max(versions(path), default=0) + 1
        write_parquet(folder / f"{number:04d}.parquet", table)
    return number


def versions(path: str | Path) -> list[int]:
    """Numbers of the versions of a survey's label layer."""
    files = (Path(path) / "labels").glob("[0-9][0-9][0-9][0-9].parquet")
    return sorted(int(f.stem) for f in files)


def notes(path: str | Path, version: int) -> tuple[str, ...]:
    """What was decided when a version was added: how its ids were matched, what was left out."""
    found = metadata(read_parquet(Path(path) / "labels" / f"{version:04d}.parquet"), KEY) or {}
    return tuple(found.get("notes", ()))


def agreed(path: str | Path) -> tuple[str, ...]:
    """What the versions of a survey's label layer say together, of the classes that several labels were given for."""
    values, columns = joined(Path(path), read_parquet(Path(path) / "index.parquet")["id"])
    found = []
    for name, column in columns.items():
        votes = values.get(f"{name}_votes")
        if votes is None or column.dtype != "str":
            continue
        none = pc.is_null(values[name]).to_numpy(zero_copy_only=False)
        tied = int((none & (np.asarray(votes) > 0)).sum())
        text = f"all versions together: {int((~none).sum()):,} of {len(none):,} objects have a label {name!r}"
        if tied:
            text += (f"; {tied:,} more have contradicting ones of equal weight, which count as none (a third labeller "
                     "or a column 'confidence' decides)")  # fmt: skip
        found.append(text)
    return tuple(found)


def joined(path: Path, ids: pa.ChunkedArray) -> tuple[dict[str, pa.Array | np.ndarray], dict[str, Column]]:
    """The label columns of the survey at `path`, aligned with `ids` (see `join`)."""
    layers = []
    for number in versions(path):
        table = read_parquet(Path(path) / "labels" / f"{number:04d}.parquet")
        stored = (metadata(table, KEY) or {}).get("columns", {})
        columns = {n: Column(**{**c, **{k: tuple(c[k]) for k in ("classes", "parts")}}) for n, c in stored.items()}
        layers.append((table.replace_schema_metadata(None), columns))
    return join(layers, ids)


def join(
    layers: Sequence[tuple[pa.Table, Mapping[str, Column]]], ids: pa.ChunkedArray
) -> tuple[dict[str, pa.Array | np.ndarray], dict[str, Column]]:
    """Label columns aligned with `ids`, from tables in long form, the latest last.

    Classes are the majority of the labellers (weighted by confidence; no label where it is a tie), numbers their mean,
    angles that are declared so the mean on the circle, on which 179 and 1 degree of an axis are 2 apart.
    Where an object has several labels of a name there are also ``NAME_votes``, the number of labels, and
    ``NAME_agreement``, the share of the winning class, or ``NAME_scatter``, the standard deviation of the numbers.
    """
    columns: dict[str, Column] = {}
    for _, described in layers:
        for name, column in described.items():
            columns[name] = _merged(name, columns.get(name), column)
    if not columns:
        return {}, {}
    versions = [t.append_column("version", pa.array(np.full(len(t), i))) for i, (t, _) in enumerate(layers)]
    table = pa.concat_tables(versions)
    table = table.append_column("at", pc.index_in(table["id"], value_set=ids.combine_chunks()))
    table = table.filter(pc.is_valid(table["at"]))
    values: dict[str, pa.Array | np.ndarray] = {}
    made: dict[str, Column] = {}
    for name, column in columns.items():
        if column.parts:  # their values are columns of their own
            made[name] = column
            continue
        own = _latest(table.filter(pc.equal(table["name"], name)))
        new, words = _one(name, column, own, len(ids))
        values |= new
        made |= words
    return values, made


def _merged(name: str, old: Column | None, new: Column) -> Column:
    """What a later version says, with the classes of both; by these it is judged again how a class moves."""
    if old is None:
        return new
    text = "str" in {old.dtype, new.dtype}
    classes = tuple(sorted({*old.classes, *new.classes}, key=natural)) if old.classes or new.classes else ()
    kind = "str" if text else "float64" if old.dtype != new.dtype else new.dtype
    role = new.role if classes or not text else "scalar"
    judged = bool(classes) and new.moves == turning.of_classes(name, new.classes)
    moves = turning.of_classes(name, classes) if judged else new.moves
    return Column(kind, new.unit or old.unit, role, moves, classes, new.parts, new.sigma, new.limit, False,
                  new.description or old.description)  # fmt: skip


def _latest(table: pa.Table) -> pa.Table:
    """The last label that each labeller gave to each object."""
    if table.num_rows == 0:
        return table
    at = table["at"].to_numpy()
    who = pc.fill_null(table["labeller"], "").combine_chunks().dictionary_encode().indices.to_numpy()
    pair = at.astype(np.int64) * (who.max() + 1) + who
    order = np.lexsort((np.arange(len(pair)), table["version"].to_numpy(), pair))
    last = np.append(np.diff(pair[order]) != 0, True)
    return table.take(np.sort(order[last]))


def _one(
    name: str, column: Column, table: pa.Table, n: int
) -> tuple[dict[str, pa.Array | np.ndarray], dict[str, Column]]:
    at = table["at"].to_numpy().astype(np.int64)
    count = np.bincount(at, minlength=n)
    if column.dtype == "str":
        values, described = _words(name, column, table, at, count)
    else:
        values, described = _numbers(name, column, table, at, count)
    if (count > 1).any():
        values[f"{name}_votes"] = count
        described[f"{name}_votes"] = Column("int64", description=f"number of labels of {name}")
    return values, {name: column, **described}


def _weight(table: pa.Table) -> np.ndarray:
    return np.asarray(pc.fill_null(table["confidence"], 1.0).to_numpy(), dtype=np.float64)


def _words(
    name: str, column: Column, table: pa.Table, at: np.ndarray, count: np.ndarray
) -> tuple[dict[str, pa.Array | np.ndarray], dict[str, Column]]:
    """The majority of the labels of each object; no label where it is a tie."""
    words = table["value"].combine_chunks().dictionary_encode()
    codes = np.zeros(len(count), np.int32)
    if (count <= 1).all():
        codes[at] = words.indices.to_numpy()
        return {name: pa.DictionaryArray.from_arrays(pa.array(codes, mask=count == 0), words.dictionary)}, {}
    vote = np.zeros((len(count), len(words.dictionary)))
    np.add.at(vote, (at, words.indices.to_numpy()), _weight(table))
    best, total = vote.max(axis=1), vote.sum(axis=1)
    has = (best > 0) & ((vote == best[:, None]).sum(axis=1) == 1)
    codes[has] = vote.argmax(axis=1)[has]
    share = np.where(total > 0, best / np.where(total > 0, total, 1.0), np.nan)
    described = {f"{name}_agreement": Column(description=f"share of the labels of {name} that agree")}
    return {
        name: pa.DictionaryArray.from_arrays(pa.array(codes, mask=~has), words.dictionary),
        f"{name}_agreement": share,
    }, described


def _numbers(
    name: str, column: Column, table: pa.Table, at: np.ndarray, count: np.ndarray
) -> tuple[dict[str, pa.Array | np.ndarray], dict[str, Column]]:
    """The mean of the labels of each object, and their scatter where there are several."""
    n = len(count)
    if column.dtype == "int64" and (count == 1).all():
        whole = np.empty(n, np.int64)
        whole[at] = pc.cast(table["value"], pa.int64()).to_numpy()
        return {name: whole}, {}
    number = pc.cast(table["value"], pa.float64()).to_numpy()
    weight = _weight(table)
    total = np.bincount(at, weight, n)
    safe = np.where(total > 0, total, 1.0)
    mean = np.where(total > 0, np.bincount(at, weight * number, n) / safe, np.nan)
    if (count <= 1).all():
        return {name: mean}, {}
    period = _period(column)
    if period:
        mean = np.where(count > 1, _angle(number, weight, at, n, period), mean)
    apart = number - mean[at]
    if period:
        apart = (apart + period / 2) % period - period / 2
    square = np.bincount(at, weight * apart**2, n) / safe
    scatter = np.where(count > 1, np.sqrt(square * count / np.maximum(count - 1, 1)), np.nan)
    described = {f"{name}_scatter": Column(unit=column.unit, description=f"scatter of the labels of {name}")}
    return {name: mean, f"{name}_scatter": scatter}, described


def _period(column: Column) -> float:
    """After how much an angle is the same again, in its unit; 0 for what is no angle."""
    return {"angle": 0.5, "direction": 1.0}.get(column.moves, 0.0) * FULL_TURN.get(column.unit, 0.0)


def _angle(number: np.ndarray, weight: np.ndarray, at: np.ndarray, n: int, period: float) -> np.ndarray:
    """(n,) mean of the angles of each object, from 0 to `period`; NaN where they cancel."""
    phase = 2 * np.pi / period * number
    x, y = np.bincount(at, weight * np.cos(phase), n), np.bincount(at, weight * np.sin(phase), n)
    known = np.hypot(x, y) > 1e-6 * np.bincount(at, weight, n)
    return np.where(known, np.arctan2(y, x) * period / (2 * np.pi) % period, np.nan)
