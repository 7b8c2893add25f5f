"""crossvalidate: k models, each predicting the fold it never saw; the out-of-fold predictions are a catalogue."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import nn

from deepsky import folds as groups
from deepsky import plan
from deepsky.catalogue import Catalogue, Meta
from deepsky.errors import InputError
from deepsky.folds.dividing import uniform
from deepsky.inference import predict
from deepsky.io import LOCK, TEMPORARY, lock_folder, read_json, write_json, write_parquet
from deepsky.model import Model, load
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
    to : folder of the models (``fold-0/`` ...), of ``catalogue.parquet``, and of ``classical.parquet`` with the
        out-of-fold answers of the classical baselines; a stopped run goes on.
    arguments : of `train`, for each fold: ``minutes=1`` and ``k=5`` take five minutes.

    Raises
    ------
    InputError : fewer than two folds, fewer groups than folds, or a folder with another cross-validation.
    Incomplete : stopped by a signal; the same call goes on.
    """
    if k < 2 or repeats < 1:
        raise InputError(
            "cross-validation needs two folds or more", found=f"k={k}, repeats={repeats}", expected="k >= 2"
        )
    whole = replace(survey, whole=None)  # a selection is the whole of what is asked about
    folder = None if to is None else Path(to)
    with nullcontext() if folder is None else lock_folder(folder):
        if folder is not None:
            begin(folder, "crossval", task, whole, {"k": k, "repeats": repeats, "seed": seed, **arguments})
        made, classical = _folds(task, whole, k, repeats, seed, folder, arguments)
        if folder is None:
            return made
        if classical is not None:
            classical.write(folder / "classical.parquet")
        made.write(folder / "catalogue.parquet")
        if made.children is not None:
            write_parquet(folder / "children.parquet", made.children)
        write_json(folder / "manifest.json", {**made.provenance, "rows": len(made)})
        return Catalogue.read(folder)


def _folds(
    task: Task,
    whole: Survey,
    k: int,
    repeats: int,
    seed: int,
    folder: Path | None,
    arguments: Mapping[str, Any],
) -> tuple[Catalogue, Catalogue | None]:
    """Out-of-fold answers of the models, and of their classical baselines where there are any."""
    ours: list[Catalogue] = []
    theirs: list[Catalogue] = []
    for repeat in range(repeats):
        numbers = groups.kfold(whole, k, seed=seed + repeat)
        if len(np.unique(numbers)) < k:
            raise InputError(
                "a fold holds no object: there are too few groups, or they are too unequal",
                file=whole.path,
                found=f"{len(np.unique(numbers))} of {k} folds",
                fix=f"--k {max(2, len(np.unique(numbers)))}",
            )
        for fold in range(k):
            here = _arranged(whole, numbers, fold, k)
            name = f"fold-{fold}" if repeats == 1 else f"repeat-{repeat}-fold-{fold}"
            model = trained(task, here, None if folder is None else folder / name, seed + repeat, arguments)
            for which, found in ((model, ours), (model.baseline, theirs)):
                if which is not None:
                    found.append(_marked(predict(which, here.fold("test"), quiet=True), fold, repeat))
    question = json.loads(json.dumps(task.config()))
    joined = _joined(ours, len(whole), k, repeats, question)
    return joined, _joined(theirs, len(whole), k, repeats, question) if len(theirs) == len(ours) else None


def _marked(part: Catalogue, fold: int, repeat: int) -> Catalogue:
    table = part.table
    for column, value in (("cv_fold", fold), ("cv_repeat", repeat)):
        table = table.append_column(column, pa.array(np.full(len(part), value, np.int16)))
    children = part.children
    if children is not None:
        children = children.append_column("cv_repeat", pa.array(np.full(len(children), repeat, np.int16)))
    return replace(part, held=table, children=children)


def _joined(parts: list[Catalogue], objects: int, k: int, repeats: int, question: Mapping[str, Any]) -> Catalogue:
    """One catalogue; a column that a fold does not have (a class that it never saw) is null there."""
    meta = {name: m for part in reversed(parts) for name, m in part.meta.items()}
    meta |= {"cv_fold": Meta(description="number of the fold that the object was in"),
             "cv_repeat": Meta(description="number of the repeat")}  # fmt: skip
    names = sorted({c for part in parts for c in part.provenance["prior"]})
    rows = sum(len(part) for part in parts)
    prior = {c: sum(p.provenance["prior"].get(c, 0.0) * len(p) for p in parts) / rows for c in names}
    provenance = {
        **parts[0].provenance, "model": f"{k}-fold", "models": [p.provenance["model"] for p in parts], "k": k,
        "repeats": repeats, "question": dict(question), "objects": objects, "prior": prior,
        "survey": parts[0].provenance["survey"].split("[")[0],
    }  # fmt: skip
    provenance.pop("selection")
    below = [part.children for part in parts if part.children is not None]
    table = pa.concat_tables([part.table for part in parts], promote_options="default")
    told = [{c for c in part.names if c.startswith("in_set_") or c.endswith(("_lo", "_hi"))} for part in parts]
    if not all(told):  # a fold with too few objects to calibrate: half a column of sets would read as empty sets
        table = table.drop_columns(sorted(set().union(*told)))
    return Catalogue(meta, provenance, held=table, children=pa.concat_tables(below) if below else None)


KINDS = {"crossval": "cross-validation", "curve": "learning curve"}


def begin(folder: Path, kind: str, task: Task, whole: Survey, arguments: Mapping[str, Any]) -> None:
    """Note what is begun (``KIND.json``), or refuse to mix it with something else: its models saw other objects.

    Raises
    ------
    InputError : the folder holds another one, or something else.
    """
    network = arguments.get("network")
    kept = {n: v for n, v in arguments.items() if n != "quiet"}
    if isinstance(network, nn.Module):
        kept["network"] = f"{type(network).__module__}:{type(network).__qualname__}"
    divided = [whole.column("group").tobytes()]  # what the folds follow from
    if kind == "curve":
        divided.append("\n".join(map(str, whole.column("fold"))).encode())
    seen = plan.data({"all": whole}, task)
    call = {"task": task.config(), "survey_hash": whole.hash, "objects": seen["objects of all"],
            "labels": seen["label values"], "split": hashlib.sha256(b"".join(divided)).hexdigest()[:16],
            **kept}  # fmt: skip
    note = folder / f"{kind}.json"
    if note.exists():
        old, new = read_json(note), json.loads(json.dumps(call))
        for name in sorted({*old, *new}, key=lambda n: (n == "labels", n)):  # those of other objects differ, too
            if old.get(name) != new.get(name):
                raise InputError(
                    f"the folder holds another {KINDS[kind]}",
                    file=folder,
                    keyword=name,
                    found=new.get(name),
                    expected=old.get(name),
                    fix="repeat that call, or choose another folder",
                )
        return
    others = sorted(p.name for p in folder.iterdir() if p.name != LOCK and not p.name.startswith(TEMPORARY))
    if others:
        raise InputError("the folder holds something else", file=folder, found=", ".join(others[:5]),
                         fix="choose a new folder")  # fmt: skip
    write_json(note, call)


def _arranged(whole: Survey, numbers: np.ndarray, fold: int, k: int) -> Survey:
    """The survey with fold number `fold` as test; of the rest the next fold (of two folds: a quarter) is cut by group
    into valid and calib, and what remains is train."""
    names = np.full(len(whole), "train", dtype=object)
    group = whole.column("group").astype(np.uint64)
    chance = uniform(group, 1_000_003 * fold + 1)
    beside = numbers == (fold + 1) % k if k > 2 else (numbers != fold) & (chance < 0.25)
    half = uniform(group, 1_000_003 * fold + 2) < 0.5
    if not (beside & half).any() or not (beside & ~half).any():  # few groups: one fold serves for both
        half = np.ones(len(whole), bool)
    names[beside & half] = "valid"
    names[beside & ~half] = "calib"
    names[numbers == fold] = "test"
    table = whole.with_columns({"fold": pa.array(names.tolist(), pa.string())}, {})
    return replace(table, whole=None)


def trained(task: Task, survey: Survey, folder: Path | None, seed: int, arguments: Mapping[str, Any]) -> Model:
    """A model of a cross-validation or learning curve, or the finished one that lies there."""
    network = arguments.get("network", "")
    if folder is not None and (folder / "checksums.json").exists():
        if isinstance(network, nn.Module):
            return load(folder, network=copy.deepcopy(network))
        return load(folder, trust=network if network.endswith(".py") else None)
    return train(task, survey, to=folder, seed=seed, **arguments)
