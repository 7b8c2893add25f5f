"""Tables in text files: the mark between the columns, the line of names, comments and decimal commas are found."""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc

from deepsky.errors import InputError
from deepsky.tables import with_units

NULLS = [
    "",
    "NA",
    "N/A",
    "#N/A",
    "n/a",
    "NaN",
    "nan",
    "NAN",
    "-nan",
    "null",
    "NULL",
    "Null",
    "None",
    "none",
    "--",
    "---",
    "masked",
    "<NA>",
    "\\N",
]
# columns that are read as text whatever they look like: an id must not pass through a float
IDS = (
    "id",
    "objid",
    "obj_id",
    "object_id",
    "objectid",
    "source_id",
    "sourceid",
    "src_id",
    "specobjid",
    "spec_obj_id",
    "dr7objid",
    "dr8objid",
    "galaxyid",
    "galaxy_id",
    "galid",
    "asset_id",
    "image_id",
    "target_id",
    "targetid",
    "gaia_id",
    "tic_id",
    "coadd_object_id",
    "name",
    "filename",
    "file_name",
    "file",
    "iauname",
    "designation",
    "object",
    "path",
    "image",
    "pgc_name",
    "pgcname",
    "oid",
    "ztf_id",
    "snid",
    "dr3_source_id",
    "ident",
    "number",
)
_MARKS = (",", ";", "\t", "|")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?\Z|[-+]?(?:nan|inf)\Z", re.IGNORECASE)
_SEXTRACTOR = re.compile(r"#\s*(\d+)\s+([A-Za-z_]\w*)\s*(.*?)\s*(?:\[([^\]]*)\])?\s*\Z")


def decode(data: bytes, path: Path) -> str:
    """Text of a file, whatever its encoding; zero bytes are none."""
    if b"\0" in data[:4096]:
        raise InputError(
            "not a text file", file=path, found="zero bytes", fix="give a CSV, FITS, VOTable or Parquet file"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_text(text: str, path: Path) -> pa.Table:
    """Read CSV and its relatives, ECSV, or a SExtractor catalogue.

    Raises
    ------
    InputError : an empty file, rows of unequal length (with the line), or column names that repeat.
    """
    if text.lstrip().startswith("# %ECSV"):
        return _ecsv(text, path)
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), None)
    comments = [line for line in lines[: first or 0] if line.strip()]
    named = [m for line in comments if (m := _SEXTRACTOR.match(line))]
    if first is None:
        raise InputError(
            "an empty table", file=path, found="no line that is no comment", expected="a line of names and rows"
        )
    body = [line for line in lines[first:] if line.strip() and not line.lstrip().startswith("#")]
    mark = _mark(body[:200])
    if named and len(named) == len(comments):
        return _numbered(body, named, path)
    head, body = _names(body, comments, mark, path)
    table = _parse(head, body, mark, path)
    if head == [f"c{i + 1}" for i in range(len(head))]:
        told = "the file names no columns: they are called c1, c2, ..."
        return table.replace_schema_metadata({"notes": json.dumps([told])})
    return table


def _mark(lines: list[str]) -> str:
    """What parts the columns: the mark that cuts most lines into the same, largest number; else blanks."""
    best, score = " ", 0
    for mark in _MARKS:
        counts = Counter(_cut(line, mark) for line in lines)
        number, lines_with = counts.most_common(1)[0]
        if number > 1 and lines_with * number > score:
            best, score = mark, lines_with * number
    return best


def _cut(line: str, mark: str) -> int:
    """How many pieces a line has; marks in quotes part nothing."""
    return len(re.sub(r'"[^"]*"', "", line).split(mark))


def _pieces(line: str) -> list[str]:
    """What blanks part; blanks in quotes part nothing."""
    return re.findall(r'"[^"]*"|\S+', line) if '"' in line else line.split()


def _fields(line: str, mark: str) -> list[str]:
    if mark == " ":
        return [f.strip('"') for f in _pieces(line)]
    return [f.strip() for f in next(csv.reader([line], delimiter=mark), [])]


def _names(body: list[str], comments: list[str], mark: str, path: Path) -> tuple[list[str], list[str]]:
    """The names of the columns and the rows below them.

    They stand in the first line; or, where that holds numbers, in the last comment; or nowhere, and are c1, c2, ...
    """
    first = _fields(body[0], mark)
    if not any(_NUMBER.match(f) for f in first if f) and any(first):
        names, rows = first, body[1:]
    else:
        said = _fields(comments[-1].lstrip("# \t"), mark) if comments else []
        named = len(said) == len(first) and not any(_NUMBER.match(f) for f in said)
        names, rows = (said if named else [f"c{i + 1}" for i in range(len(first))]), body
    names = [n.strip().strip('"').strip("'") for n in names]
    blank = [i for i, n in enumerate(names) if not n]
    for i in blank:  # the index that pandas writes without a name
        names[i] = "index" if i == 0 and "index" not in names else f"column{i + 1}"
    twice = [n for n, k in Counter(names).items() if k > 1]
    if twice:
        raise InputError("column names repeat", file=path, found=", ".join(twice), expected="each name once",
                         fix="rename them in the first line of the file")  # fmt: skip
    if not rows:
        raise InputError("an empty table", file=path, found=f"{len(names)} column names and no row")
    return names, rows


def _parse(names: list[str], body: list[str], mark: str, path: Path) -> pa.Table:
    if mark == " ":
        body, mark = ["\t".join(_pieces(line)) for line in body], "\t"
    kinds: dict[str, pa.DataType] = {n: pa.string() for n in names if n.lower() in IDS}
    comma = mark == ";" and any(re.search(r"(?:^|;)\s*-?\d+,\d+\s*(?:;|$)", line) for line in body[:50])
    data = "\n".join(body).encode()
    table = _arrow(data, names, mark, kinds, "," if comma else ".", path)
    times = [f.name for f in table.schema if pa.types.is_temporal(f.type)]
    if times:  # 12:30:00 is a right ascension, too
        kinds |= {n: pa.string() for n in times}
        table = _arrow(data, names, mark, kinds, "," if comma else ".", path)
    return table


def _arrow(data: bytes, names: list[str], mark: str, kinds: dict[str, pa.DataType], point: str, path: Path) -> pa.Table:
    try:
        return pc.read_csv(
            io.BytesIO(data),
            read_options=pc.ReadOptions(column_names=names, block_size=max(1 << 20, min(len(data), 1 << 30))),
            parse_options=pc.ParseOptions(delimiter=mark),
            convert_options=pc.ConvertOptions(
                column_types=kinds, null_values=NULLS, strings_can_be_null=True, decimal_point=point
            ),
        )
    except pa.ArrowInvalid as error:
        raise InputError(
            f"rows that do not fit the columns: {str(error)[:200]}",
            file=path,
            expected=f"{len(names)} columns",
            fix="put text with the mark in it into double quotes",
        ) from error


def _numbered(body: list[str], named: list[Any], path: Path) -> pa.Table:
    """A SExtractor catalogue: ``# number name description [unit]``; columns between two numbers belong to the first."""
    width = len(_pieces(body[0]))
    starts = [int(m[1]) for m in named] + [width + 1]
    names, units = [], {}
    for i, match in enumerate(named):
        count = max(1, starts[i + 1] - starts[i])
        for k in range(count):
            name = match[2] if count == 1 else f"{match[2]}_{k + 1}"
            names.append(name)
            if match[4]:
                units[name] = match[4].strip()
    if len(names) != width:
        raise InputError("a catalogue whose header does not fit its rows", file=path, found=f"{width} columns",
                         expected=f"{len(names)}")  # fmt: skip
    return with_units(_parse(names, body, " ", path), units)


def _ecsv(text: str, path: Path) -> pa.Table:
    from astropy.table import Table

    from deepsky.tables import as_table

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return as_table(Table.read(text, format="ascii.ecsv"))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"not a sound ECSV file: {str(error)[:200]}", file=path) from error
