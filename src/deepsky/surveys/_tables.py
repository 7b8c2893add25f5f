"""Any table file as an Arrow table: CSV and its relatives, ECSV, SExtractor, IPAC, MRT, FITS, VOTable, Parquet."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepsky.errors import InputError
from deepsky.gate import FitsHdu, check_fits, sniff
from deepsky.gate.source import ENCODED, open_bytes, open_stream
from deepsky.surveys import _archives
from deepsky.surveys._scan import ending
from deepsky.surveys._text import NULLS, decode, read_text
from deepsky.tables import as_table, unit_of

TEXT = (".csv", ".tsv", ".txt", ".dat", ".cat", ".tab", ".asc", ".ecsv", ".csv.gz", ".train", ".test",
        ".tbl", ".ipac", ".mrt")  # fmt: skip
FITS = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz", ".fits.bz2", ".ldac")
VOTABLE = (".vot", ".xml", ".votable", ".vot.gz", ".xml.gz")
PARQUET = (".parquet", ".pq", ".parq")
MOST_BYTES = 4 << 30
PACKED = ("gzip", "bzip2", "xz")


def read_table(path: str | Path) -> tuple[pa.Table, dict[str, str]]:
    """Read a table file.

    Returns
    -------
    table : with missing and masked values as nulls; columns of ids as text.
    units : by column, where the file says them.

    Raises
    ------
    InputError : no such file, a format that has no reader, an empty table, repeated names, rows of unequal length.
    """
    table = read(path)
    return table, {n: unit for n in table.column_names if (unit := unit_of(table, n))}


def read(path: str | Path) -> pa.Table:
    """Read a table file; units stand in the metadata of the fields (`deepsky.tables.unit_of`)."""
    path = Path(path)
    try:
        return as_table(_read(path))
    except InputError as error:
        if error.file is not None:
            raise
        raise InputError(error.problem, file=path, keyword=error.keyword, found=error.found, expected=error.expected,
                         fix=error.fix) from error  # fmt: skip


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise InputError("there is no such table", file=path)
    with path.open("rb") as file:
        head = file.read(1024)
    last, kind = ending(path.name), sniff(head)
    if not head:
        raise InputError("the file is empty", file=path, found="0 bytes", expected="a table")
    if kind == "Parquet" or last in PARQUET:
        table = _parquet(path)
    elif kind == "FITS" or last in FITS:
        table = _fits(path)
    elif kind.startswith("VOTable") or last in VOTABLE:
        table = _votable(path, _inflated(path) if kind in PACKED else None)
    elif kind == "text":
        table = _text(decode(path.read_bytes(), path), path)
    elif kind in PACKED:
        data = _inflated(path)
        inside = sniff(data[:1024])
        table = _votable(path, data) if inside.startswith("VOTable") else _text(decode(data, path), path)
    else:
        raise InputError("a table of a kind that has no reader", file=path, found=kind,
                         known=("CSV", "ECSV", "IPAC", "MRT", "FITS", "VOTable", "Parquet"),
                         fix=ENCODED.get(kind))  # fmt: skip
    return table


def _text(text: str, path: Path) -> pa.Table:
    """A table of an archive where it is one, else CSV and its relatives."""
    readme = _archives.described(path)
    kind = "cds" if readme else _archives.kind_of(text)
    return _archives.read(text, kind, path, readme) if kind else read_text(text, path)


def _inflated(path: Path) -> bytes:
    """The bytes of a compressed file, all members of it, within limits."""
    with open_bytes(path) as (handle, size, place):
        return open_stream(handle, size, place, MOST_BYTES, 200.0)[0].read(MOST_BYTES + 1)


def _parquet(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError, pa.ArrowNotImplementedError) as error:
        raise InputError(f"not a sound Parquet file: {str(error)[:200]}", file=path, fix="write it again") from error
    return table.drop_columns([n for n in table.column_names if re.fullmatch(r"__index_level_\d+__", n)])


def _fits(path: Path) -> pa.Table:
    """The table HDU with most rows, which is the catalogue where there are several."""
    layout = check_fits(path)
    found = [h for h in layout.hdus if h.kind == "table"]
    if not found:
        kinds = ", ".join(f"{h.index} {h.kind}" for h in layout.hdus)
        raise InputError(
            "no HDU of the file holds a table", file=path, found=kinds, expected="a BINTABLE or TABLE extension"
        )
    chosen = max(found, key=lambda h: h.shape[0])
    if chosen.shape[0] == 0:
        raise InputError("an empty table", file=path, hdu=chosen.index, keyword="NAXIS2", found="0 rows")
    if chosen.header.get("ZTABLE") is True:
        raise InputError("a compressed table", file=path, hdu=chosen.index, keyword="ZTABLE", found="T",
                         fix=f"decompress it first: funpack {path.name}")  # fmt: skip
    _repeated(chosen, path)
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            table = Table.read(path, format="fits", hdu=chosen.index, character_as_bytes=False)
        except Exception as error:
            try:
                table = _mended(path, chosen)
            except Exception:
                raise InputError(f"the table cannot be read: {str(error)[:200]}", file=path, hdu=chosen.index,
                                 fix="save it as CSV or Parquet") from error  # fmt: skip
    told = [] if len(found) == 1 else [f"of {len(found)} tables HDU {chosen.index} is read, which has most rows"]
    return _simple(table, told)


def _mended(path: Path, hdu: FitsHdu) -> Any:
    """A table whose columns have no names, or formats or null values that astropy does not read."""
    from astropy.io import fits
    from astropy.table import Table

    with fits.open(path, memmap=False) as hdus:
        header = hdus[hdu.index].header.copy()
    with path.open("rb") as file:
        file.seek(hdu.offset)
        data = file.read(hdu.nbytes)
    for i in range(1, int(header["TFIELDS"]) + 1):
        header.setdefault(f"TTYPE{i}", f"c{i}")
        header.remove(f"TDISP{i}", ignore_missing=True)
        if header["XTENSION"] == "TABLE":  # a text that stands for no value: without it a cell is refused
            header.remove(f"TNULL{i}", ignore_missing=True)
    first = fits.PrimaryHDU().header.tostring()
    whole = (first + header.tostring()).encode("ascii") + data + bytes(-len(data) % 2880)
    with fits.HDUList.fromstring(whole) as made:
        return Table.read(made, hdu=1, character_as_bytes=False)


def _simple(table: Any, told: Sequence[str] = ()) -> pa.Table:
    """An astropy table without what an index cannot hold: complex numbers, lists of text or of different length."""
    kinds = {n: (table[n].dtype.kind, table[n].ndim) for n in table.colnames}
    odd = [n for n, (kind, axes) in kinds.items()
           if kind == "c" or (axes > 1 and kind not in "iufb") or (kind == "O" and _is_array(table[n]))]  # fmt: skip
    if len(odd) == len(kinds) > 0:
        raise InputError("no column of plain values", found=", ".join(odd), expected="one value a row")
    table.remove_columns(odd)
    notes = [*told, *([f"columns of lists were left out: {', '.join(odd[:8])}"] if odd else [])]
    made = as_table(table)
    return made.replace_schema_metadata({**(made.schema.metadata or {}), "notes": json.dumps(notes)}) if notes else made


def _is_array(column: Any) -> bool:
    first = next((v for v in column if v is not None and v is not np.ma.masked), "")
    return not isinstance(first, str | bytes | int | float | np.generic)


def _repeated(hdu: FitsHdu, path: Path) -> None:
    names = [str(v).strip().lower() for k, v in hdu.header.items() if re.fullmatch(r"TTYPE\d+", k)]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError("column names repeat", file=path, hdu=hdu.index, keyword="TTYPEn", found=", ".join(twice),
                         expected="each name once, capitals aside")  # fmt: skip


def _votable(path: Path, data: bytes | None) -> pa.Table:
    """The table with most rows; `data` are its bytes where the file is compressed."""
    from astropy.io.votable import parse

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            tables = list(parse(path if data is None else io.BytesIO(data), verify="warn").iter_tables())
    except Exception as error:
        raise InputError(f"not a sound VOTable: {str(error)[:200]}", file=path) from error
    words = [str(w.message) for w in said]
    lost = [w for w in words if "Invalid literal" in w or "could not convert" in w]
    lost = [w for w in lost if not any(f"'{null}'" in w for null in NULLS)]
    if lost:
        raise InputError(
            "values that are no numbers in a column of numbers",
            file=path,
            found=f"{len(lost)}: {lost[0][:160]}",
            expected="numbers, or empty cells where there is none",
        )
    if not tables:
        raise InputError("no table in the VOTable", file=path)
    chosen = max(tables, key=lambda t: t.nrows or 0)
    return _simple(chosen.to_table(use_names_over_ids=True))
