"""predict: tile by tile, one file a tile, resumed where it stopped, in memory that does not grow with the survey."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import deepsky
from deepsky.card import NO_DOMAIN
from deepsky.catalogue import BASE, Catalogue, Meta, described
from deepsky.contract import reordered
from deepsky.errors import Incomplete, InputError
from deepsky.io import LOCK, TEMPORARY, atomic_write, lock_folder, read_json, read_parquet, write_json, write_parquet
from deepsky.model import Model
from deepsky.progress import Progress
from deepsky.survey import Survey, Tile, release

DOMAIN_LEVEL = 0.001
FAR = 2.0  # times the distance of the farthest object of the validation fold


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
    prevalence : share of each class among the objects, where it is not the one that the model assumes (`Model.prior`);
        it corrects the probabilities, and the catalogue states it.
    batch : objects a forward pass.

    Raises
    ------
    ContractError : the survey does not fit the model; the message says what differs and how to mend it.
    InputError : the folder holds the catalogue of another model, survey or prior, or something else.
    Incomplete : tiles are missing at the end; the message names them, and the same call makes them.
    """
    if batch < 1:
        raise InputError("batch is out of range", found=batch, expected="1 or more")
    order = model.contract.check(survey, model.path or "MODEL")
    prior = None if prevalence is None else _prior(model, prevalence)
    shares = model.prior if prior is None else prior
    source = "the calibration objects" if "shares" in model.calibration else "the training fold"
    provenance: dict[str, Any] = {
        "model": model.hash,
        "deepsky": deepsky.__version__,
        "torch": torch.__version__,
        "survey": survey.name,
        "survey_hash": survey.hash,
        "selection": hashlib.sha256(survey.key.tobytes()).hexdigest()[:16],
        "simulation": not survey.schema.real,
        "objects": len(survey),
        "batch": batch,
        "threads": torch.get_num_threads(),
        "dtype": model.contract.dtype,
        "network": model.network.name,
        "task": model.task.name,
        "prior": {c: float(p) for c, p in zip(_classes(model), shares, strict=True)},
        "prior_from": source if prior is None else "prevalence as given",
        "unchecked": _notes(model, survey),
    }
    meta = {**BASE, **{n: Meta(o.unit, o.ucd, o.description) for n, o in model.task.outputs().items()}}
    tiles = [(t, at) for t in survey.tiles if len(at := survey.in_tile(t))]
    model.module.eval()
    if to is None:
        with Progress(len(survey), quiet, "predicting") as progress:
            parts = [_tile(model, survey, at, order, prior, batch, progress) for _, at in tiles]
        held = pa.concat_tables([p[0] for p in parts]) if parts else survey.index.select(["id", "ra", "dec"])
        children = [p[1] for p in parts if p[1] is not None]
        return Catalogue(meta, provenance, held=held, children=pa.concat_tables(children) if children else None)
    folder = Path(to)
    threads = torch.get_num_threads()
    with lock_folder(folder):
        provenance = _begin(folder, provenance)
        torch.set_num_threads(provenance["threads"])  # the last bits depend on it: one number for all tiles
        try:
            with Progress(len(survey), quiet, "predicting") as progress:
                for tile, at in tiles:
                    file = _file(folder, tile)
                    if file.exists():  # written whole or not at all: its name is enough
                        progress.skip(len(at))
                        continue
                    table, below = _tile(model, survey, at, order, prior, batch, progress)
                    if below is not None:  # first the children: once the object table stands, the tile is done
                        write_parquet(file.with_suffix(".children"), described(below, meta, provenance))
                    write_parquet(file, described(table, meta, provenance))
        finally:
            torch.set_num_threads(threads)
        _finish(folder, [(_file(folder, t), at) for t, at in tiles], survey, provenance)
    return Catalogue.read(folder)


def _file(folder: Path, tile: Tile) -> Path:
    return folder / "tiles" / f"{tile.name.replace('/', '_')}.parquet"


def _notes(model: Model, survey: Survey) -> list[str]:
    """What a user of the catalogue must know, in words."""
    found = list(model.contract.doubts(survey))
    if model.domain is None:
        found.append(f"in_domain: empty, no object is marked as unlike those of training; {NO_DOMAIN}")
    used = 0 if model.seen is None else int((model.seen.codes(survey) >= 0).sum())
    if used:
        found.append(f"{used:,} of {len(survey):,} objects are among those that the model was trained, stopped or "
                     "calibrated on: their answers look better than those of new objects")  # fmt: skip
    return found


def _classes(model: Model) -> tuple[str, ...]:
    return getattr(model.task, "classes", ())


def _prior(model: Model, prevalence: Mapping[str, float]) -> np.ndarray:
    classes = _classes(model)
    if not classes:
        raise InputError("a prevalence is a matter of classes", found=dict(prevalence), fix="leave prevalence out")
    for name, value in prevalence.items():
        if name not in classes:
            raise InputError("no such class", found=name, known=classes)
        if not 0 < value < 1:
            raise InputError("a prevalence lies between 0 and 1", keyword=name, found=value)
    if getattr(model.task, "multilabel", False):  # each label is a question of its own
        return np.array([prevalence.get(c, p) for c, p in zip(classes, model.prior, strict=True)])
    rest = [c for c in classes if c not in prevalence]
    left = 1 - sum(prevalence.values())
    if (rest and left <= 0) or (not rest and abs(left) > 1e-6):
        raise InputError("prevalences must add up to one", found=sum(prevalence.values()))
    assumed = dict(zip(classes, model.prior, strict=True))
    share = sum(assumed[c] for c in rest) or 1.0  # those that are not named keep their ratios
    return np.array([prevalence.get(c, left * assumed[c] / share) for c in classes])


SAME = ("model", "survey_hash", "survey", "selection", "prior", "objects", "batch", "deepsky")


def _begin(folder: Path, provenance: dict[str, Any]) -> dict[str, Any]:
    """Note what is being made and go on with what was noted, or refuse to mix it with something else."""
    plan = folder / "plan.json"
    if plan.exists():
        old: dict[str, Any] = read_json(plan)
        other = [name for name in SAME if old.get(name) != provenance[name]]
        if not other:
            return old
        if any((folder / "tiles").glob("*.parquet")) or (folder / "manifest.json").exists():
            raise InputError(f"the folder holds a catalogue of another {other[0]}", file=folder,
                             found=provenance[other[0]], expected=old.get(other[0]),
                             fix="choose another folder with --to")  # fmt: skip
    own = {LOCK, plan.name, "tiles"} if plan.exists() else {LOCK}
    others = sorted(p.name for p in folder.iterdir() if p.name not in own and not p.name.startswith(TEMPORARY))
    if others:
        raise InputError("the folder holds something else", file=folder, found=", ".join(others[:5]),
                         fix="choose a new folder with --to")  # fmt: skip
    (folder / "tiles").mkdir(parents=True, exist_ok=True)
    write_json(plan, provenance)
    return provenance


def _finish(folder: Path, parts: list[tuple[Path, np.ndarray]], survey: Survey, provenance: Mapping[str, Any]) -> None:
    """One file from all tiles, streamed; the manifest last, once every object is found to have its one row.

    Raises
    ------
    Incomplete : tiles are missing, or one does not hold its objects; the message names them.
    """
    missing = [file.stem for file, _ in parts if not file.exists()]
    wrong = []
    for file, at in parts:
        if file.exists() and not read_parquet(file, columns=["id"])["id"].combine_chunks().equals(
            survey.index["id"].take(at).combine_chunks()
        ):
            wrong.append(file.stem)
            file.unlink()  # so that the same command makes it again
    if missing or wrong:
        told = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"other objects in: {', '.join(wrong)}"] * bool(
            wrong
        )
        raise Incomplete(
            f"{folder}: tiles are missing from the catalogue\n  found: {'; '.join(told)}\n"
            f"  expected: {len(survey)} rows in {len(parts)} tiles\n  fix: run the same command again"
        )
    files = [file for file, _ in parts]
    if files:
        _join(files, folder / "catalogue.parquet")
    else:
        nobody = survey.index.select(["id", "ra", "dec"])
        write_parquet(folder / "catalogue.parquet", described(nobody, BASE, provenance))
    below = [c for f in files if (c := f.with_suffix(".children")).exists()]
    if below:
        _join(below, folder / "children.parquet")
    write_json(folder / "manifest.json", {**provenance, "tiles": [f.stem for f in files], "rows": len(survey)})


def _join(files: list[Path], to: Path) -> None:
    """One file from several, a tile at a time."""

    def joined(out: Any) -> None:
        with pq.ParquetWriter(out, pq.read_schema(files[0]), write_page_checksum=True) as writer:
            for file in files:
                writer.write_table(read_parquet(file))

    atomic_write(to, joined)


def _tile(
    model: Model,
    survey: Survey,
    positions: np.ndarray,
    order: tuple[int, ...] | None,
    prior: np.ndarray | None,
    batch: int,
    progress: Progress,
) -> tuple[pa.Table, pa.Table | None]:
    """The object table of the objects of one tile, and the child table of a task that has one.

    Batches are cut from the tile's first row, so that the bytes do not depend on who runs it."""
    parts: list[dict[str, pa.Array]] = []
    below: list[pa.Table] = []
    for i in range(0, len(positions), batch):
        at = positions[i : i + batch]
        sample = reordered(survey.gather(at, truth=()), model.contract.observation, order)
        outputs, features = model.outputs(sample)
        # of ivar as it is stored: where one stands for many pixels, the share is the same
        share = (sample.observation(model.contract.observation).ivar > 0).flatten(1).float().mean(1).double().numpy()
        measured = share > 0
        p, outside = _domain(model, features.numpy(), measured)
        columns = {
            name: _arrow(values, measured) for name, values in model.answer(outputs, survey.key[at], prior).items()
        }
        flags = pa.array(_flags(survey, at, outside, share))
        parts.append({**columns, "in_domain": pa.array(p.astype(np.float32)), "flags": flags})
        children = model.children(outputs)
        if children is not None:
            kept = measured[children[0]]
            rows = {n: v[kept] for n, v in children[1].items()}
            below.append(_child_table(survey, at, children[0][kept], rows))
        progress.update(progress.done + len(at), len(at))
    release()  # this tile is not read again, and the process shall not grow with the survey
    table = pa.table(
        {
            "id": survey.index["id"].take(positions),
            "ra": survey.index["ra"].take(positions),
            "dec": survey.index["dec"].take(positions),
            **{name: pa.concat_arrays([part[name] for part in parts]) for name in parts[0]},
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


def _domain(model: Model, features: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) p-value under the training features, and whether an object lies outside their domain.

    A p-value cannot fall below one over the number of held-out objects; where these are few, only what lies at least
    twice as far out as all of them is called outside."""
    gate = model.domain
    if gate is None:
        return np.full(len(features), np.nan), np.zeros(len(features), bool)
    p = np.where(measured, gate.p_value(features), np.nan)
    far = gate.distance(features) > FAR * gate.reference.max(initial=0.0)
    return p, measured & (far | (np.nan_to_num(p, nan=1.0) < DOMAIN_LEVEL))


def _flags(survey: Survey, at: np.ndarray, outside: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(n,) int16 as `deepsky.catalogue.FLAGS` says; `share` is the measured part of the values that the model saw."""
    names = survey.index.column_names

    def some(name: str) -> np.ndarray:
        if name not in names:
            return np.zeros(len(at), bool)
        values: np.ndarray = survey.column(name)[at].astype(np.float64) > 0
        return values

    flags: np.ndarray = 1 * some("edge") + 2 * (share < 0.9) + 4 * some("saturated") + 8 * outside + 16 * (share == 0)
    found: np.ndarray = flags.astype(np.int16)
    return found


def _arrow(values: np.ndarray, known: np.ndarray | None = None) -> pa.Array:
    """A column; where nothing is `known`, numbers are NaN and anything else is null."""
    if known is None:
        known = np.ones(len(values), bool)
    if values.dtype.kind == "f":
        values = np.where(known.reshape(-1, *(1,) * (values.ndim - 1)), values, np.nan).astype(values.dtype)
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    mask = None if values.dtype.kind == "f" else ~known
    return pa.array(values, type=pa.string() if values.dtype == object else None, mask=mask)
