"""Joining by id: as they are, as file names, as numbers without leading zeros."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError

LIKELY = frozenset(  # names of columns of ids; "number" is none: it counts rows
    ("id", "objid", "obj_id", "object_id", "objectid", "source_id", "sourceid", "src_id", "specobjid", "spec_obj_id",
     "dr7objid", "dr8objid", "galaxyid", "galaxy_id", "galid", "asset_id", "image_id", "target_id", "targetid", "oid",
     "gaia_id", "tic_id", "coadd_object_id", "ztf_id", "snid", "dr3_source_id", "ident", "designation", "iauname",
     "pgc_name", "pgcname", "name", "object", "file", "filename", "file_name", "path", "image")
)  # fmt: skip
OURS = ("id", "object_id", "name")
TRIED = 30  # columns
ENOUGH = 0.9  # share of the ids, or of the objects, that a column of ids names
ENDING = re.compile(r"\.(fits?|fts|jpe?g|png|tiff?|npy|npz|bmp|webp)(\.(gz|fz|bz2))?$|\.fz$", re.IGNORECASE)


def plain(value: object) -> str:
    """An id as text: without outer blanks, in composed Unicode, 17.0 as 17."""
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return (
            str(int(value))
            if np.isfinite(value) and float(value).is_integer()
            else ""
            if np.isnan(value)
            else repr(value)
        )
    return unicodedata.normalize("NFC", str(value)).strip()


def stem(word: str) -> str:
    """A file name without folder and ending.

    >>> stem("cutouts/NGC 224.fits.gz")
    'NGC 224'
    """
    return ENDING.sub("", word.replace("\\", "/").rsplit("/", 1)[-1])


def bare(word: str) -> str:
    """A file name or number without leading zeros (or a point that a float gave it), in lower case.

    >>> bare("PGC0000212.png"), bare("00017"), bare("17.0"), bare("0000")
    ('pgc0000212', '17', '17', '0')
    """
    last = re.sub(r"\A(\d+)\.0+\Z", r"\1", stem(word).lower())
    return (last.lstrip("0") or "0") if last.isdigit() else last


FORMS: dict[str, Callable[[str], str]] = {
    "as they are": str,
    "as file names without folder and ending": stem,
    "without leading zeros, in lower case": bare,
}


@final
@dataclass(frozen=True)
class Found:
    """The best way to join: the table's ids in that form, and for each the rows of the objects it names."""

    column: str
    form: str
    words: list[str]
    rows_of: dict[str, list[int]]
    given: list[str]

    @property
    def matched(self) -> int:
        """How many rows of the table name an object."""
        return sum(w in self.rows_of for w in self.words)

    @property
    def enough(self) -> bool:
        """Whether it names nearly all objects, or nearly all of its ids are objects."""
        words = {w for w in self.words if w}
        return len(words & self.rows_of.keys()) >= ENOUGH * min(len(words), len(self.rows_of)) > 0

    @property
    def counts(self) -> bool:
        """Whether its ids are whole numbers, which may be anything that was counted."""
        return all(w.isdigit() for w in self.given if w)


def find(table: pa.Table, objects: pa.Table, id_column: str | None, where: str) -> Found | None:
    """The column of the table, and the form of its ids, that fit most objects; None where nothing fits.

    Without `id_column` only columns with a usual name of ids are tried. Where there is none a column of text is taken
    if it names nearly all: file names fit by no accident, but running numbers fit whatever is numbered.

    Raises
    ------
    InputError : two columns fit and name different objects.
    """
    if id_column is not None:
        return next(iter(_fitting(table, objects, [id_column])), None)
    usual, others = _candidates(table)
    if usual:
        found = _fitting(table, objects, usual)
        for other in [f for f in found[1:] if f.enough and found[0].enough]:
            _refuse_other(found[0], other, where)
        return found[0] if found else None
    return next((f for f in _fitting(table, objects, others) if f.enough and not f.counts), None)


def _fitting(table: pa.Table, objects: pa.Table, columns: list[str]) -> list[Found]:
    """Columns that name any object, each in the first form in which it names most; the best first."""
    known = {n: [plain(v) for v in objects[n].to_pylist()] for n in OURS if n in objects.column_names}
    best: dict[str, Found] = {}
    for label, form in FORMS.items():
        places = [_places([form(w) for w in words]) for words in known.values()]
        for column in columns:
            if column in best and best[column].enough:
                continue
            given = [plain(v) for v in table[column].to_pylist()]
            words = [form(w) for w in given]
            for rows_of in places:
                found = Found(column, label, words, rows_of, given)
                if found.matched > (best[column].matched if column in best else 0):
                    best[column] = found
    forms = list(FORMS)
    return sorted(best.values(), key=lambda f: (-f.matched, forms.index(f.form)))


def _refuse_other(one: Found, other: Found, where: str) -> None:
    """Refuse a second column of ids that says otherwise in any row."""
    for row, (a, b) in enumerate(zip(one.words, other.words, strict=True)):
        places = set(one.rows_of.get(a, ())), set(other.rows_of.get(b, ()))
        if places[0] and places[1] and not places[0] & places[1]:
            words = ", ".join(f"{f.column} {f.given[row]}" for f in (one, other))
            raise InputError("two columns of ids name different objects", file=where, found=f"row {row + 1}: {words}",
                             fix=f"id_column={one.column!r} (--id-column {one.column}), or the other")  # fmt: skip


def _candidates(table: pa.Table) -> tuple[list[str], list[str]]:
    """Columns with a usual name of ids, and the others that may hold ids."""

    def usable(name: str) -> bool:
        kind = table.schema.field(name).type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)
        return text or pa.types.is_integer(kind) or (pa.types.is_floating(kind) and usual(name))

    def usual(name: str) -> bool:
        return name.strip().lower().replace(" ", "_") in LIKELY

    names = [n for n in table.column_names if usable(n)]
    return [n for n in names if usual(n)][:TRIED], [n for n in names if not usual(n)][:TRIED]


def _places(words: list[str]) -> dict[str, list[int]]:
    """Rows of each id; "" names nothing. An id that several objects were given names them all."""
    rows: dict[str, list[int]] = {}
    for row, word in enumerate(words):
        if word:
            rows.setdefault(word, []).append(row)
    return rows


def pairs(
    found: Found, where: str, extra: str, also_known: frozenset[str], notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the table and the objects that they name.

    Raises
    ------
    InputError : a form other than the plain one names several objects by one id, or ids are unknown.
    """
    if found.form != "as they are":
        double = [w for w in set(found.words) if len(found.rows_of.get(w, ())) > 1]
        if double:
            raise InputError("ids name several objects each", file=where, keyword=found.column,
                             found=", ".join(sorted(double)[:5]), fix="give ids as the survey has them")  # fmt: skip
        notes.append(f"ids of column {found.column!r} were compared {found.form}")
    set_aside = {FORMS[found.form](plain(i)) for i in also_known}
    unknown = [
        g for g, w in zip(found.given, found.words, strict=True) if w and w not in found.rows_of and w not in set_aside
    ]
    empty = sum(not w for w in found.words)
    if empty:
        notes.append(f"{empty:,} rows without an id were left out")
    if unknown:
        words = f"{len(unknown):,} of {len(found.words):,} labels"
        if extra == "refuse":
            raise InputError(f"{words} are of objects that are not there", file=where, keyword=found.column,
                             found=", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else ""),
                             expected=f"ids such as {', '.join(list(found.rows_of)[:3])}",
                             fix="extra_labels='ignore' (--extra-labels ignore) leaves them out")  # fmt: skip
        notes.append(f"{words} are of objects that are not there, and were left out")
    rows, at = [], []
    for row, word in enumerate(found.words):
        for place in found.rows_of.get(word, ()):
            rows.append(row)
            at.append(place)
    notes.append(f"{len(set(at)):,} objects labelled by column {found.column!r}")
    return np.asarray(rows, np.int64), np.asarray(at, np.int64)


def nothing_fits(table: pa.Table, objects: pa.Table, id_column: str | None, where: str) -> InputError:
    """The error for a table of which no row names an object, or only by a column that may be anything."""
    usual, others = _candidates(table)
    ids = "ids such as " + ", ".join(map(str, objects["id"].slice(0, 5).to_pylist()))
    fits = [f for f in _fitting(table, objects, others) if f.enough] if id_column is None else []
    if fits:
        fitting = min(fits, key=lambda f: f.counts)  # text before numbers
        name = fitting.column
        why = "whole numbers, which fit whatever is numbered" if fitting.counts else "which has no usual name of ids"
        lead = f"none of {usual[0]!r}, but " if usual else ""
        return InputError("which column holds the ids is not plain", file=where, keyword=name, expected=ids,
                          found=f"{lead}{fitting.matched:,} of {table.num_rows:,} ids of {name!r}: {why}",
                          fix=f"id_column={name!r} (--id-column {name}) if it names the objects")  # fmt: skip
    column = id_column or next(iter([*usual, *others]), table.column_names[0])
    cells = [plain(v) for v in table[column].slice(0, 5).to_pylist()]
    return InputError("no label is of an object that is there", file=where, keyword=column, found=", ".join(cells),
                      expected=ids,
                      fix=f"name the column of ids (--id-column, one of {', '.join(table.column_names[:12])}), or give "
                          "columns ra and dec in degrees")  # fmt: skip
