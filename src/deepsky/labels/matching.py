"""From a table of labels to labels of a survey's objects: joined by id or position, checked, in long form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsky import registry
from deepsky.errors import InputError
from deepsky.labels import cells, turning
from deepsky.labels import ids as by_id
from deepsky.labels import positions as by_position
from deepsky.schema import Column
from deepsky.tables import as_table, is_path, unit_of

EXTRA = ("refuse", "ignore")
ABOUT = ("labeller", "date", "confidence")  # columns that describe a row and are no labels
OWN = frozenset(  # columns that a survey makes and reads itself: a label of that name would take their place
    ("id", "object_id", "key", "ra", "dec", "tile", "row", "group", "fold", "crc", "pixel_scale",
     "unmeasured", "saturated", "edge", "phash")
)  # fmt: skip
PIXELS = ("", "pix", "pixel")  # units of a vector that moves with the pixels
ERRORS = ("{}_sigma", "{}_err", "{}_error", "e_{}")
LONG = pa.schema([("id", pa.string()), ("name", pa.string()), ("value", pa.string()), ("labeller", pa.string()),
                  ("date", pa.string()), ("confidence", pa.float64())])  # fmt: skip


@final
@dataclass(frozen=True)
class Matched:
    """Labels of objects that a survey holds.

    Attributes
    ----------
    table : a row a label: id, name, value (as text), labeller, date, confidence.
    columns : what each name is.
    notes : what was decided and what was left out.
    """

    table: pa.Table
    columns: Mapping[str, Column]
    notes: tuple[str, ...] = ()

    def without(self, lost: Iterable[str]) -> Matched:
        """The labels of all objects but those that were set aside."""
        gone = pa.array(sorted(lost), pa.string())
        return replace(self, table=self.table.filter(pc.invert(pc.is_in(self.table["id"], value_set=gone))))


def match(
    labels: Any,
    objects: pa.Table,
    *,
    id_column: str | None = None,
    radius_arcsec: float | None = None,
    extra: str = "refuse",
    also_known: Iterable[str] = (),
) -> Matched:
    """Join a table of labels to objects.

    Parameters
    ----------
    labels : path of a table, DataFrame, astropy Table, Arrow table or dict of columns. The header of a column may
        declare how it moves with the image, as ``jet:direction`` (see `deepsky.labels.turning`); ``z:kept`` keeps
        values such as -99, which else are no labels where they lie far beyond the others (`deepsky.labels.sentinels`).
    objects : their ids (``id``, ``object_id``, ``name``) and positions (``ra``, ``dec``).
    id_column : the column of `labels` that holds ids; by default the one that fits best of those with a usual name
        (``id``, ``objid``, ``name``, ``filename``, ...), or, where none is called so, a column of text that names
        nearly all objects. Ids are compared as they are, then as file names without folder and ending, then without
        leading zeros.
    radius_arcsec : join by position within this radius, one to one; by default only where no id fits, within 1 arcsec.
    extra : "refuse" or "ignore" labels of objects that are not there.
    also_known : ids that labels may name although the survey does not hold them: objects that were set aside.

    Raises
    ------
    InputError : an empty table, no label that fits, labels of unknown objects, two labels that contradict each other
        without a column ``labeller`` to tell them apart, infinite numbers, or only a column of ids that may be
        anything, such as running numbers.
    """
    if extra not in EXTRA:
        raise InputError("no such treatment of extra labels", found=extra, known=EXTRA)
    where = str(labels) if is_path(labels) else "labels"
    table = as_table(registry.find("surveys", "table").read_table(labels)[0] if is_path(labels) else labels)
    table, told = _headers(table, where)
    if id_column is not None and id_column not in table.column_names:
        raise InputError("no such column of ids", file=where, found=id_column, known=table.column_names)
    notes: list[str] = []
    if radius_arcsec is None:
        found = by_id.find(table, objects, id_column, where)
        if found is not None:
            used = found.column
            rows, at = by_id.pairs(found, where, extra, frozenset(also_known), notes)
            skip = {used}
        elif id_column is None and _both_placed(table, objects, where):
            rows, at = by_position.pairs(table, objects, 1.0, where, notes)
            skip = set[str]()
        else:
            raise by_id.nothing_fits(table, objects, id_column, where)
    else:
        rows, at = by_position.pairs(table, objects, radius_arcsec, where, notes)
        skip = set() if id_column is None else {id_column}
    names = _label_columns(table, skip, where, notes)
    ids = objects["id"].take(pa.array(at))
    table = table.take(pa.array(rows))
    return _long(table, ids, names, rows, objects.num_rows, where, notes, told)


def _headers(table: pa.Table, where: str) -> tuple[pa.Table, dict[str, turning.Header]]:
    """The table without the declarations in its headers, and these by name."""
    told = [turning.header(n) for n in table.column_names]
    names = [h.name for h in told]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError("two columns of one name, but for what their headers declare", file=where, found=twice)
    return table.rename_columns(names), {h.name: h for h in told}


def from_columns(
    columns: Mapping[str, Any], described: Mapping[str, Column], where: str, *, declared: bool = False
) -> Matched:
    """Labels that a reader found itself: ``id`` and one column a label; `where` is what a message calls the source.

    Parameters
    ----------
    declared : what `described` says of how a label moves is so (a native survey); else names and classes are judged.

    Raises
    ------
    InputError : infinite numbers, or no label at all.
    """
    table = as_table(columns)
    names = [n for n in table.column_names if n != "id"]
    kept = {n: turning.Header(n, kept=declared) for n in names}
    made = _long(table, table["id"], names, np.arange(table.num_rows), 0, where, [], kept)
    found = {free_name(n): (n, c) for n, c in described.items() if free_name(n) in made.columns}
    known = {n: replace(c, role=made.columns[n].role, classes=made.columns[n].classes, dtype=made.columns[n].dtype,
                        moves=c.moves if declared or own == "y" else made.columns[n].moves,  # y: the answers, of arrays
                        description=made.columns[n].description or c.description)
             for n, (own, c) in found.items()}  # fmt: skip
    return replace(made, columns={**made.columns, **known})


def free_name(name: str) -> str:
    """What a label is called in a survey: as its column, unless the survey has a column of that name for itself.

    >>> free_name("kind"), free_name("fold")
    ('kind', 'label_fold')
    """
    return f"label_{name}" if name in OWN else name


def _both_placed(table: pa.Table, objects: pa.Table, where: str) -> bool:
    return by_position.known(by_position.of_objects(objects)) and by_position.known(by_position.degrees(table, where))


def _label_columns(table: pa.Table, skip: set[str], where: str, notes: list[str]) -> list[str]:
    pair = by_position.columns(table) or ()
    positions = set(pair)
    if skip and any("ra" not in n.lower() and "dec" not in n.lower() for n in pair):  # alpha and delta can be labels
        notes.append(f"{' and '.join(map(repr, pair))} are positions, and no labels")
    names = [n for n in table.column_names if n not in skip | positions and n.lower() not in ABOUT
             and not re.fullmatch(r"(Unnamed: \d+|index|level_0|)", n)]  # fmt: skip
    if not names:
        raise InputError("a table without a column of labels", file=where, found=", ".join(table.column_names),
                         expected="a column of ids and one or more of labels")  # fmt: skip
    return names


def _about(table: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    for column in table.column_names:
        if column.lower() == name:
            return pc.cast(table[column], kind).combine_chunks()
    return pa.nulls(table.num_rows, kind)


def _long(
    table: pa.Table,
    ids: pa.ChunkedArray,
    names: list[str],
    rows: np.ndarray,
    objects: int,
    where: str,
    notes: list[str],
    headers: Mapping[str, turning.Header],
) -> Matched:
    """Labels in long form; `rows` are those of the table as it was given, `objects` how many could have a label."""
    labeller, date = (_about(table, n, pa.string()) for n in ABOUT[:2])
    confidence = _about(table, "confidence", pa.float64())
    told_apart = labeller.null_count < len(labeller)
    parts, columns = [], dict[str, Column]()
    for name, values in cells.flat(table, names):
        unit = (unit_of(table, name) if name in names else "") or turning.unit(name)
        text, column = cells.values_of(headers.get(name, turning.Header(name)), values, unit, rows, where, notes)
        if column is None:
            continue
        name = _renamed(name, columns, where, notes)
        has = pc.is_valid(text)
        part = pa.table([ids, pa.repeat(name, table.num_rows), text, labeller, date, confidence], schema=LONG).filter(
            has
        )
        part = _one_each(part, name, told_apart, where, notes)
        labelled = len(pc.unique(part["id"]))
        if labelled < objects:
            notes.append(f"{objects - labelled:,} of {objects:,} objects have no label {name!r}")
        parts.append(part)
        columns[name] = column
    if not parts:
        raise InputError("no column holds a label", file=where, keyword=", ".join(names[:5]),
                         found="every value is missing")  # fmt: skip
    columns = _with_errors(columns, notes)
    for part in parts:
        name, kinds = part["name"][0].as_py(), pc.unique(part["value"])
        if len(kinds) == 1 and columns[name].role == "label":
            what = "class" if columns[name].dtype != "float64" else "value"
            notes.append(
                f"{name!r} has one {what} only ({kinds[0].as_py()!r}): nothing can be learnt from these labels alone"
            )
    made = pa.concat_tables(parts)
    return Matched(made, _paired(columns, made, headers, where, notes), tuple(notes))


def _renamed(name: str, taken: Mapping[str, Column], where: str, notes: list[str]) -> str:
    """The name of a label in the survey, with a note where it is another one than that of its column."""
    new = free_name(name)
    if new in taken:
        raise InputError("two labels of one name", file=where, keyword=name, found=new,
                         expected="each name once", fix=f"rename the column {new!r}")  # fmt: skip
    if new != name:
        split = f"; deepsky split SURVEY --fold-column {new} takes it for a published split" * (name == "fold")
        notes.append(f"a survey has a column {name!r} of its own: the label is called {new!r}{split}")
    return new


def _one_each(part: pa.Table, name: str, told_apart: bool, where: str, notes: list[str]) -> pa.Table:
    """One label for an object (and labeller); contradictions are refused, repetitions dropped."""
    who = pc.fill_null(part["labeller"], "") if told_apart else pa.repeat("", part.num_rows)
    keys = list(zip(part["id"].to_pylist(), who.to_pylist(), strict=True))
    if len(set(keys)) == len(keys):
        return part
    values, dates = part["value"].to_pylist(), part["date"].to_pylist()
    first: dict[tuple[str, str], int] = {}
    clash: dict[str, set[str]] = {}
    for row, key in enumerate(keys):
        old = first.setdefault(key, row)
        if values[old] != values[row]:
            if dates[row] is not None and dates[old] is not None and dates[row] != dates[old]:
                first[key] = row if dates[row] > dates[old] else old
            else:
                clash.setdefault(key[0], {values[old]}).add(values[row])
    if clash:
        shown = "; ".join(f"{i}: {' and '.join(sorted(v))}" for i, v in list(clash.items())[:5])
        who_words = " from one labeller" if told_apart else ""
        raise InputError(f"{len(clash):,} objects have contradicting labels{who_words}", file=where, keyword=name,
                         found=shown, expected="one label an object, or a column 'labeller' that tells them apart",
                         fix="remove one of the rows, or add a column 'labeller'")  # fmt: skip
    notes.append(f"{len(keys) - len(first):,} rows of {name!r} repeat a label")
    return part.take(pa.array(sorted(first.values())))


def _with_errors(columns: dict[str, Column], notes: list[str]) -> dict[str, Column]:
    """Columns such as ``z_sigma`` and ``z_limit`` are the error and the censoring of ``z``, not labels."""
    out = dict(columns)
    for name, column in columns.items():
        if column.dtype == "str" or column.role != "label":
            continue
        sigma = next((e for e in (p.format(name) for p in ERRORS) if e in columns and columns[e].dtype != "str"), "")
        limit = f"{name}_limit" if f"{name}_limit" in columns and columns[f"{name}_limit"].dtype != "str" else ""
        if sigma or limit:
            out[name] = replace(column, sigma=sigma, limit=limit)
            words = [w for w in (sigma and f"errors {sigma!r}", limit and f"limits {limit!r}") if w]
            notes.append(f"{name!r} has {' and '.join(words)}")
            for other in (sigma, limit):
                if other:
                    out[other] = replace(columns[other], role="scalar")
    return out


def _paired(
    columns: dict[str, Column], table: pa.Table, headers: Mapping[str, turning.Header], where: str, notes: list[str]
) -> dict[str, Column]:
    """Two components of one thing, such as ``e1`` and ``e2``, are also one column that turns with the image."""
    out = dict(columns)
    numbers = [n for n, c in columns.items() if c.dtype != "str" and c.role == "label"]
    declared = {n: headers[n].moves for n in numbers if n in headers and headers[n].moves}
    for name, (moves, first, second) in turning.pairs(numbers, declared).items():
        one, two = columns[first], columns[second]
        sigma = one.sigma.removeprefix(first) if one.sigma.startswith(first) else one.sigma
        together = (one.dtype, one.unit) == (two.dtype, two.unit) and two.sigma == (second + sigma if sigma else "")
        known = _most_below_one(table, (first, second)) if moves == "spin2" else one.unit in PIXELS
        meant = first in declared or (one.dtype == "float64" and known)
        if name in columns or one.limit or two.limit or not (together and meant):
            continue
        out[name] = replace(one, moves=moves, parts=(first, second), sigma=sigma)
        out |= {n: replace(columns[n], moves=moves, role="scalar") for n in (first, second)}
        notes[:] = [n for n in notes if not n.startswith((f"{first!r} may turn", f"{second!r} may turn"))]
        notes.append(f"{first!r} and {second!r} are the components of {name!r}, which turns with the image ({moves}); "
                     f"{first}:fixed and {second}:fixed in the header keep them apart")  # fmt: skip
    for name, told in declared.items():
        if told in {"vector", "spin2"} and out[name].role == "label":
            raise InputError(f"a {told} has two components", file=where, keyword=name, found="one column",
                             expected="e1:spin2 and e2:spin2, or dx:vector and dy:vector, alike in unit and errors",
                             fix=f"{name}:fixed in the header forbids the image to turn")  # fmt: skip
    return out


def _most_below_one(table: pa.Table, names: tuple[str, ...]) -> bool:
    """Whether the values are those of ellipticities or shears, and not of magnitudes, say."""
    values = table.filter(pc.is_in(table["name"], value_set=pa.array(names)))["value"]
    return bool(np.quantile(np.abs(pc.cast(values, pa.float64()).to_numpy()), 0.99) <= 1)
