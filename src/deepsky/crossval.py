"""crossvalidate: k models, each predicting the fold it never saw; the out-of-fold predictions are a catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from deepsky import folds as groups
from deepsky.catalogue import Catalogue
from deepsky.errors import InputError
from deepsky.inference import predict
from deepsky.survey import Survey
from deepsky.task import Task
from deepsky.training import train


def crossvalidate(
    task: Task,
    survey: Survey,
    *,
    k: int = 5,
    repeats: int = 1,
    seed: int = 0,
    to: str | Path | None = None,
    **arguments: Any,
) -> Catalogue:
    """Predict every object of a survey by a model that never saw its group.

    Parameters
    ----------
    k, repeats : folds, and how often anew; with `repeats` the catalogue has a row for each (id, repeat).
    to : folder of the models (``fold-0/`` ...) and of ``catalogue.parquet``; a stopped run goes on.
    arguments : of `train`.

    Raises
    ------
    InputError : fewer than two folds, or fewer groups than folds.
    """
    if k < 2 or repeats < 1:
        raise InputError(
            "cross-validation needs two folds or more", found=f"k={k}, repeats={repeats}", expected="k >= 2"
        )
    whole = survey.whole or survey
    folder = None if to is None else Path(to)
    parts: list[pa.Table] = []
    meta: Mapping[str, Any] = {}
    provenance: dict[str, Any] = {}
    for repeat in range(repeats):
        numbers = groups.kfold(whole, k, seed=seed + repeat)
        for fold in range(k):
            here = _arranged(whole, numbers, fold, k)
            name = f"fold-{fold}" if repeats == 1 else f"repeat-{repeat}-fold-{fold}"
            model = _trained(task, here, None if folder is None else folder / name, seed + repeat, arguments)
            part = predict(model, here.fold("test"), quiet=True)
            extra = {"cv_fold": np.full(len(part), fold, np.int16), "cv_repeat": np.full(len(part), repeat, np.int16)}
            table = part.table
            for column, values in extra.items():
                table = table.append_column(column, pa.array(values))
            parts.append(table)
            meta, provenance = (
                part.meta,
                {**part.provenance, "model": f"{k}-fold", "k": k, "repeats": repeats, "objects": len(whole)},
            )
    made = Catalogue(meta, provenance, held=pa.concat_tables(parts))
    if folder is not None:
        made.write(folder / "catalogue.parquet")
        made = Catalogue.read(folder / "catalogue.parquet")
    return made


def _arranged(whole: Survey, numbers: np.ndarray, fold: int, k: int) -> Survey:
    """The survey with fold number `fold` as test; the next one, split by group, is valid and calib, the rest train."""
    names = np.full(len(whole), "train", dtype=object)
    names[numbers == fold] = "test"
    beside = (
        numbers == (fold + 1) % k
        if k > 2
        else (numbers != fold) & (whole.column("group").astype(np.uint64) % np.uint64(4) == 0)
    )
    half = (whole.column("group").astype(np.uint64) >> np.uint64(7)) % np.uint64(2) == 0
    names[beside & half] = "valid"
    names[beside & ~half] = "calib"
    table = whole.with_columns({"fold": pa.array(names.tolist(), pa.string())}, {})
    return replace(table, selection="", whole=None)


def _trained(task: Task, survey: Survey, folder: Path | None, seed: int, arguments: Mapping[str, Any]) -> Any:
    from deepsky.model import load

    if folder is not None and (folder / "checksums.json").exists():
        return load(folder)
    return train(task, survey, to=folder, seed=seed, **arguments)
