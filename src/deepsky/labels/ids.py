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

LIKELY = ("id", "object_id", "objid", "objectid", "source_id", "name", "object", "file", "filename", "file_name",
          "path", "image", "image_id", "galaxyid", "iauname", "dr7objid", "asset_id")  # fmt: skip
OURS = ("id", "object_id", "name")
TRIED = 30  # columns
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
    """A file name or number without leading zeros, in lower case.

    >>> bare("PGC0000212.png"), bare("00017")
    ('pgc0000212', '17')
    """
    last = stem(word).lower()
    return last.lstrip("0") or last if last.isdigit() else last


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


def find(table: pa.Table, objects: pa.Table, id_column: str | None) -> Found | None:
    """The column of the table, and the form of its ids, that fit most objects; None where nothing fits."""
    candidates = [id_column] if id_column is not None else _candidates(table)
    ours = [n for n in OURS if n in objects.column_names]
    best: Found | None = None
    score = 0
    known = {n: [plain(v) for v in objects[n].to_pylist()] for n in ours}
    for label, form in FORMS.items():
        places = {n: _places([form(w) for w in words]) for n, words in known.items()}
        for column in candidates:
            given = [plain(v) for v in table[column].to_pylist()]
            words = [form(w) for w in given]
            for rows_of in places.values():
                found = Found(column, label, words, rows_of, given)
                if found.matched > score:
                    best, score = found, found.matched
        if best is not None and score >= 0.9 * min(table.num_rows, objects.num_rows):
            break
    return best


def _candidates(table: pa.Table) -> list[str]:
    def usable(name: str) -> bool:
        kind = table.schema.field(name).type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)
        return text or pa.types.is_integer(kind) or (pa.types.is_floating(kind) and name.lower() in LIKELY)

    names = [n for n in table.column_names if usable(n)]
    return sorted(names, key=lambda n: n.lower() not in LIKELY)[:TRIED]


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
    """The error for a table of which no row names an object."""
    column = id_column or next(iter(_candidates(table)), table.column_names[0])
    cells = [plain(v) for v in table[column].slice(0, 5).to_pylist()]
    return InputError("no label is of an object that is there", file=where, keyword=column, found=", ".join(cells),
                      expected="ids such as " + ", ".join(map(str, objects["id"].slice(0, 5).to_pylist())),
                      fix=f"name the column of ids (--id-column, one of {', '.join(table.column_names[:12])}), or give "
                          "columns ra and dec in degrees")  # fmt: skip
