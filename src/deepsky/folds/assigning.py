"""From groups to folds, and into the index."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepsky.errors import InputError
from deepsky.folds.dividing import divide
from deepsky.folds.groups import groups
from deepsky.io import atomic_write, lock_folder, read_parquet, sealed, write_json
from deepsky.survey import FOLDS, Survey

FRACTIONS = (0.6, 0.1, 0.1, 0.2)
FEW = 20  # different integers that are taken for classes
BUFFER = "buffer"  # the fold of objects that are too near to another fold
ROWS = 1 << 15  # of a row group of the index
FRONT = ("id", "key", "ra", "dec", "tile", "row", "group", "fold", "crc")
WORDS = {"train": "train", "training": "train", "tr": "train", "valid": "valid", "val": "valid", "validation": "valid",
         "dev": "valid", "calib": "calib", "calibration": "calib", "test": "test", "testing": "test", "te": "test",
         BUFFER: BUFFER, "": BUFFER, "none": BUFFER, "unused": BUFFER}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Assignment:
    """Group (n,) uint64 and fold (n,) of every object, how they were made, and what ought to be known."""

    group: np.ndarray
    fold: np.ndarray
    options: Mapping[str, Any]
    notes: tuple[str, ...]


def assign(survey: Survey | str | Path, **options: Any) -> Survey:
    """Assign folds anew and write them into the index, atomically.

    Parameters
    ----------
    survey : a whole survey, or its path.
    options : see `columns`.

    Raises
    ------
    InputError : `survey` is a selection, or see `columns`.
    """
    survey = survey if isinstance(survey, Survey) else Survey.load(survey)
    if survey.whole is not None:
        raise InputError("folds are assigned to a whole survey", file=survey.path, found=survey.selection,
                         expected="the survey as it was opened")  # fmt: skip
    made = columns(survey, **options)
    with lock_folder(survey.path):
        index = read_parquet(survey.path / "index.parquet")
        write_index(survey.path, write(survey.path, index, made))
    return Survey.load(survey.path)


def columns(
    survey: Survey,
    *,
    seed: int = 0,
    fractions: Sequence[float] | Mapping[str, float] = FRACTIONS,
    radius_arcsec: float | None = None,
    block_deg: float | None = None,
    group_column: str | None = None,
    stratify: str | None = None,
    near_duplicates: bool = True,
    fold_column: str | None = None,
) -> Assignment:
    """Group and fold of every object.

    Parameters
    ----------
    seed : another seed is another split.
    fractions : of train, valid, calib and test.
    radius_arcsec, block_deg, group_column, near_duplicates : see `deepsky.folds.groups`.
    stratify : label to balance over the folds, where the survey is small; by default the first with classes, or with
        few integers; "" for none.
    fold_column : a published split. Where it has no valid or calib, they are cut out of train by group; its leaks are
        counted (`leaks`) and not repaired.

    Raises
    ------
    InputError : fractions that are none, an unknown column, or a split with unknown words.
    """
    share = _shares(fractions)
    options = {"seed": seed, "fractions": list(share), "radius_arcsec": radius_arcsec, "block_deg": block_deg,
               "group_column": group_column, "stratify": stratify, "near_duplicates": near_duplicates,
               "fold_column": fold_column}  # fmt: skip
    found = groups(survey, radius_arcsec=radius_arcsec, block_deg=block_deg, group_column=group_column,
                   near_duplicates=near_duplicates)  # fmt: skip
    notes = list(found.notes)
    strata = _strata(survey, stratify, notes)
    if fold_column is not None:
        fold = _published(survey, fold_column, found.group, strata, share, seed, notes)
    else:
        numbers = divide(found.group, strata, share, seed)
        fold = np.asarray(FOLDS, dtype=object)[numbers]
        if len(np.unique(found.group)) < len(FOLDS):
            notes.append("fewer groups than folds: some folds are empty")
        fold = _apart(fold, found.close, notes)
    options["radius_arcsec"] = found.radius_arcsec if radius_arcsec is None else radius_arcsec
    return Assignment(found.group, fold, options, tuple(notes))


def _shares(fractions: Sequence[float] | Mapping[str, float]) -> tuple[float, ...]:
    if isinstance(fractions, Mapping):
        unknown = set(fractions) - set(FOLDS)
        if unknown:
            raise InputError("no such fold", found=", ".join(unknown), known=FOLDS)
        fractions = [fractions.get(name, 0.0) for name in FOLDS]
    share = tuple(float(f) for f in fractions)
    if len(share) != len(FOLDS) or min(share) < 0 or not 0.999 < sum(share) < 1.001:
        raise InputError("not fractions of train, valid, calib and test", found=share, expected="four, with a sum of 1")
    return share


def _strata(survey: Survey, stratify: str | None, notes: list[str]) -> np.ndarray:
    """(n,) int64 stratum of each object; those without a label are one of their own."""
    none = np.zeros(len(survey), np.int64)
    if stratify == "":
        return none
    if stratify is None:
        known = {
            n: c for n, c in survey.schema.columns.items() if c.role != "scalar" and n in survey.index.column_names
        }
        found = [n for n, c in known.items() if c.classes and not set(split_words(c.classes)) <= WORDS.keys()]
        found += [n for n, c in known.items() if c.dtype == "int64" and len(np.unique(survey.column(n))) <= FEW]
        if not found:
            return none
        stratify = found[0]
    elif stratify not in survey.index.column_names:
        known = survey.index.column_names
        raise InputError("no such label to stratify by", file=survey.path, found=stratify, known=known)
    words = np.asarray([str(v) for v in survey.column(stratify)])
    names, codes = np.unique(words, return_inverse=True)
    if len(names) > max(2, len(survey) // 4):  # numbers: balance their quantiles
        values = survey.column(stratify)
        if values.dtype.kind not in "iuf":
            raise InputError("too many classes to stratify by", file=survey.path, keyword=stratify, found=len(names))
        rank = np.argsort(np.argsort(values, kind="stable"))
        codes = np.where(np.isfinite(values.astype(np.float64)), rank * 10 // len(values), 10)
    notes.append(f"folds balanced by {stratify!r}")
    return np.asarray(codes, np.int64)


def split_words(values: Iterable[object]) -> list[str]:
    """The words of a split as they are compared: in lower case, "" where there is none."""
    return ["" if v is None or v != v else str(v).strip().lower() for v in values]


def is_split(values: Iterable[object], name: str, file: object = None) -> bool:
    """Whether the values of a column are those of a published split.

    Raises
    ------
    InputError : some are folds, and others are not.
    """
    words = set(split_words(values))
    if not any(WORDS.get(w) in FOLDS for w in words):
        return False
    _refuse_unknown(words, name, file)
    return True


def _refuse_unknown(words: set[str], name: str, file: object) -> None:
    unknown = sorted(words - WORDS.keys())
    if unknown:
        raise InputError("a split with unknown words", file=file, keyword=name, found=", ".join(unknown[:5]),
                         known=sorted({w for w in WORDS if w}), fix="rename the values of that column")  # fmt: skip


def _published(
    survey: Survey, column: str, group: np.ndarray, strata: np.ndarray, share: tuple[float, ...], seed: int,
    notes: list[str],
) -> np.ndarray:  # fmt: skip
    """Folds as given; valid and calib are taken from train where the split has none."""
    # the survey's own fold is no published split: a column that was called so was renamed when it came
    names = (f"input_{column}", f"label_{column}", column) if column in FRONT else (column,)
    name = next((n for n in names if n in survey.index.column_names), None)
    if name is None:
        raise InputError("no such column with a split", file=survey.path, found=column, known=survey.index.column_names)
    words = split_words(survey.column(name))
    _refuse_unknown(set(words), name, survey.path)
    fold = np.asarray([WORDS[w] for w in words], dtype=object)
    lacking = [f for f in ("valid", "calib") if not (fold == f).any()]
    train = np.flatnonzero(fold == "train")
    if lacking and len(train):
        parts = {f: share[FOLDS.index(f)] for f in lacking}
        kept = max(share[0], 1e-9)
        total = kept + sum(parts.values())
        numbers = divide(group[train], strata[train], (kept / total, *(p / total for p in parts.values())), seed)
        fold[train] = np.asarray(["train", *lacking], dtype=object)[numbers]
        notes.append(f"the split of {column!r} has no {' and no '.join(lacking)}: taken from train by group")
    else:
        notes.append(f"folds as in {column!r}")
    return fold


def _apart(fold: np.ndarray, close: np.ndarray, notes: list[str]) -> np.ndarray:
    """Take objects out that are too near to one of another fold: those of train rather than those of test."""
    rank = {name: i for i, name in enumerate(FOLDS)}
    order = np.array([rank[f] for f in fold])
    apart = close[order[close[:, 0]] != order[close[:, 1]]]
    if len(apart) == 0:
        return fold
    first = order[apart[:, 0]] < order[apart[:, 1]]
    out = np.unique(np.where(first, apart[:, 0], apart[:, 1]))
    fold = fold.copy()
    fold[out] = BUFFER
    notes.append(f"{len(out):,} objects lie too near to another fold and are in none")
    return fold


def write(path: Path, index: pa.Table, made: Assignment) -> pa.Table:
    """Write how folds were made to ``folds.json``; return the index with its columns group and fold."""
    names, counts = np.unique(made.fold.astype(str), return_counts=True)
    report = {"options": dict(made.options), "notes": list(made.notes), "groups": len(np.unique(made.group)),
              "objects": {n: int(c) for n, c in zip(names, counts, strict=True)}}  # fmt: skip
    write_json(Path(path) / "folds.json", json.loads(json.dumps(report)))
    fold = pa.array(made.fold.tolist(), pa.string()).dictionary_encode()
    for name, values in (("group", pa.array(made.group, pa.uint64())), ("fold", fold)):
        index = index.drop_columns([name]) if name in index.column_names else index
        index = index.append_column(name, values)
    return index


def write_index(path: Path, index: pa.Table) -> None:
    """Write the index of a survey, atomically, in the order of its columns."""
    index = index.unify_dictionaries()
    front = [n for n in FRONT if n in index.column_names]
    index = index.select(front + [n for n in index.column_names if n not in front])

    schema = sealed(index.schema)

    def write(file: BinaryIO) -> None:
        # what is written is held only a row group at a time
        with pq.ParquetWriter(file, schema, write_page_checksum=True) as writer:
            for start in range(0, max(1, len(index)), ROWS):
                writer.write_table(index.slice(start, ROWS).cast(schema), row_group_size=ROWS)

    atomic_write(Path(path) / "index.parquet", write)


def kfold(survey: Survey, k: int = 5, *, seed: int = 0, repeats: int = 1, stratify: str | None = None) -> np.ndarray:
    """(n,) numbers 0 to k - 1, or (repeats, n): each group in one fold, each object tested once a repeat.

    Raises
    ------
    InputError : fewer groups than folds.
    """
    group = survey.column("group").astype(np.uint64) if "group" in survey.index.column_names else groups(survey).group
    many = len(np.unique(group))
    if k < 2 or many < k:
        raise InputError("cross-validation needs as many groups as folds, and two or more", file=survey.path,
                         found=f"k = {k}, {many} groups", fix=f"--k {max(2, min(k, many))}")  # fmt: skip
    strata = _strata(survey, stratify, [])
    numbers = np.stack([divide(group, strata, (1.0 / k,) * k, seed * 1_000_003 + r) for r in range(repeats)])
    return numbers[0] if repeats == 1 else numbers
