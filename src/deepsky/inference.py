"""predict: tile by tile, one file a tile, resumed where it stopped, in memory that does not grow with the survey."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import deepsky
from deepsky.catalogue import BASE, Catalogue, Meta, described
from deepsky.contract import reordered
from deepsky.errors import InputError
from deepsky.io import atomic_write, lock_folder, read_json, write_json
from deepsky.model import Model
from deepsky.progress import Progress
from deepsky.survey import Survey, Tile

DOMAIN_LEVEL = 0.001


def predict(
    model: Model,
    survey: Survey,
    *,
    to: str | Path | None = None,
    prevalence: Mapping[str, float] | None = None,
    batch: int = 256,
    quiet: bool = False,
) -> Catalogue:
    """Apply a model to every object of a survey.

    Parameters
    ----------
    to : the catalogue's folder (``catalogue.parquet``, a file a tile, a manifest); None keeps it in memory.
    prevalence : share of each class among the objects, where it is not that of the training fold; it corrects the
        probabilities, and the catalogue states it.
    batch : objects a forward pass.

    Raises
    ------
    ContractError : the survey does not fit the model; the message says what differs and how to mend it.
    InputError : the folder holds the catalogue of another model, survey or prior.
    """
    order = model.contract.check(survey)
    prior = None if prevalence is None else _prior(model, prevalence)
    provenance = {
        "model": model.hash,
        "deepsky": deepsky.__version__,
        "survey": survey.name,
        "survey_hash": survey.hash,
        "simulation": not survey.schema.real,
        "objects": len(survey),
        "batch": batch,
        "dtype": model.contract.dtype,
        "network": model.network.name,
        "task": model.task.name,
        "prior": {
            c: float(p)
            for c, p in zip(_classes(model), _training_prior(model) if prior is None else prior, strict=True)
        },
    }
    meta = {**BASE, **{n: Meta(o.unit, o.ucd, o.description) for n, o in model.task.outputs().items()}}
    tiles = [t for t in survey.tiles if len(survey.in_tile(t))]
    if to is None:
        with Progress(len(survey), quiet, "predicting") as progress:
            parts = [_tile(model, survey, t, order, prior, batch, progress) for t in tiles]
        held = pa.concat_tables([p[0] for p in parts]) if parts else pa.table({"id": pa.array([], pa.string())})
        children = [p[1] for p in parts if p[1] is not None]
        return Catalogue(meta, provenance, held=held, children=pa.concat_tables(children) if children else None)
    folder = Path(to)
    with lock_folder(folder):
        _begin(folder, provenance)
        with Progress(len(survey), quiet, "predicting") as progress:
            for tile in tiles:
                file = folder / "tiles" / f"{tile.name.replace('/', '_')}.parquet"
                if file.exists():  # written whole or not at all: its name is enough
                    progress.update(tile.start + tile.count, 0)
                    continue
                table, below = _tile(model, survey, tile, order, prior, batch, progress)
                if below is not None:  # first the children: once the object table stands, the tile is done
                    _write(file.with_suffix(".children"), described(below, meta, provenance))
                _write(file, described(table, meta, provenance))
        _finish(folder, [t.name.replace("/", "_") for t in tiles], survey, provenance)
    return Catalogue.read(folder)


def _classes(model: Model) -> tuple[str, ...]:
    return getattr(model.task, "classes", ())


def _training_prior(model: Model) -> np.ndarray:
    return np.asarray(getattr(model.task, "prior", ()))


def _prior(model: Model, prevalence: Mapping[str, float]) -> np.ndarray:
    classes = _classes(model)
    if not classes:
        raise InputError("a prevalence is a matter of classes", found=dict(prevalence), fix="leave prevalence out")
    for name, value in prevalence.items():
        if name not in classes:
            raise InputError("no such class", found=name, known=classes)
        if not 0 < value < 1:
            raise InputError("a prevalence lies between 0 and 1", keyword=name, found=value)
    rest = [c for c in classes if c not in prevalence]
    left = 1 - sum(prevalence.values())
    if (rest and left <= 0) or (not rest and abs(left) > 1e-6):
        raise InputError("prevalences must add up to one", found=sum(prevalence.values()))
    trained = dict(zip(classes, _training_prior(model), strict=True))
    share = sum(trained[c] for c in rest) or 1.0
    return np.array([prevalence.get(c, left * trained[c] / share) for c in classes])


def _begin(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Note what is being made, or refuse to mix it with something else."""
    plan = folder / "plan.json"
    if plan.exists():
        old = read_json(plan)
        for name in ("model", "survey_hash", "survey", "prior", "objects", "batch", "deepsky"):
            if old.get(name) != provenance[name]:
                raise InputError(
                    f"the folder holds a catalogue of another {name}",
                    file=folder,
                    found=provenance[name],
                    expected=old.get(name),
                    fix="choose another folder with --to",
                )
        return
    (folder / "tiles").mkdir(parents=True, exist_ok=True)
    write_json(plan, provenance)


def _finish(folder: Path, names: list[str], survey: Survey, provenance: Mapping[str, Any]) -> None:
    """One file from all tiles, streamed; the manifest last, once every tile is there and every object counted."""
    files = [folder / "tiles" / f"{n}.parquet" for n in names]
    missing = [f.stem for f in files if not f.exists()]
    rows = sum(pq.read_metadata(f).num_rows for f in files if f.exists())
    if missing or rows != len(survey):
        raise InputError(
            "tiles are missing from the catalogue",
            file=folder,
            found=", ".join(missing) or f"{rows} rows",
            expected=f"{len(survey)} rows in {len(files)} tiles",
            fix="run the same command again",
        )

    if files:
        _join(files, folder / "catalogue.parquet")
    below = [c for f in files if (c := f.with_suffix(".children")).exists()]
    if below:
        _join(below, folder / "children.parquet")
    write_json(folder / "manifest.json", {**provenance, "tiles": names, "rows": rows})


def _write(file: Path, table: pa.Table) -> None:
    atomic_write(file, lambda out: pq.write_table(table, out))


def _join(files: list[Path], to: Path) -> None:
    """One file from several, a tile at a time."""

    def joined(out: Any) -> None:
        with pq.ParquetWriter(out, pq.read_schema(files[0])) as writer:
            for file in files:
                writer.write_table(pq.read_table(file))

    atomic_write(to, joined)


def _tile(
    model: Model,
    survey: Survey,
    tile: Tile,
    order: tuple[int, ...] | None,
    prior: np.ndarray | None,
    batch: int,
    progress: Progress,
) -> tuple[pa.Table, pa.Table | None]:
    """The object table of one tile, and the child table of a task that has one.

    Batches are cut from the tile's first row, so that the bytes do not depend on who runs it."""
    positions = survey.in_tile(tile)
    parts: list[dict[str, np.ndarray]] = []
    below: list[pa.Table] = []
    for i in range(0, len(positions), batch):
        at = positions[i : i + batch]
        sample = reordered(survey.gather(at, truth=()), model.contract.observation, order)
        outputs, features = model.outputs(sample)
        columns = dict(model.answer(outputs, survey.key[at], prior))
        measured = sample.observation(model.contract.observation).measured.flatten(1).any(1).numpy()
        p = np.full(len(at), np.nan) if model.domain is None else model.domain.p_value(features.numpy())
        for name, values in columns.items():
            if values.dtype.kind == "f":
                columns[name] = np.where(measured.reshape(-1, *(1,) * (values.ndim - 1)), values, np.nan).astype(
                    values.dtype
                )
        parts.append({**columns, "in_domain": p.astype(np.float32), "flags": _flags(survey, at, p, measured)})
        children = model.children(outputs)
        if children is not None:
            below.append(_child_table(survey, at, *children))
        progress.update(int(positions[i] + len(at)), len(at))
    joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    table = pa.table(
        {
            "id": survey.index["id"].take(positions),
            "ra": survey.index["ra"].take(positions),
            "dec": survey.index["dec"].take(positions),
            **{name: _arrow(values) for name, values in joined.items()},
        }
    )
    return table, pa.concat_tables(below) if below else None


def _child_table(survey: Survey, at: np.ndarray, owner: np.ndarray, columns: Mapping[str, np.ndarray]) -> pa.Table:
    """Rows keyed by (id, number): the number counts the rows of one object from zero."""
    order = np.argsort(owner, kind="stable")
    owner = owner[order]
    number = np.arange(len(owner)) - np.searchsorted(owner, owner)
    ids = survey.index["id"].take(at[owner])
    return pa.table({"id": ids, "number": number.astype(np.int32), **{n: _arrow(v[order]) for n, v in columns.items()}})


def _flags(survey: Survey, at: np.ndarray, p: np.ndarray, measured: np.ndarray) -> np.ndarray:
    names = survey.index.column_names

    def fraction(name: str) -> np.ndarray:
        if name not in names:
            return np.zeros(len(at))
        values: np.ndarray = np.nan_to_num(survey.index[name].take(at).to_numpy().astype(np.float64))
        return values

    flags = 1 * (fraction("edge") > 0) + 2 * (fraction("unmeasured") > 0.1) + 4 * (fraction("saturated") > 0)
    outside = np.nan_to_num(p, nan=1.0) < DOMAIN_LEVEL
    found: np.ndarray = (flags + 8 * outside + 16 * ~measured).astype(np.int16)
    return found


def _arrow(values: np.ndarray) -> pa.Array:
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.array(values, type=pa.string()) if values.dtype == object else pa.array(values)
