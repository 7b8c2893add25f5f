"""Any table file as an Arrow table: CSV and its relatives, ECSV, SExtractor, IPAC, MRT, FITS, VOTable, Parquet."""

from __future__ import annotations

import bz2
import re
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepsky.errors import InputError
from deepsky.gate import FitsHdu, check_fits, sniff
from deepsky.surveys import _archives
from deepsky.surveys._scan import ending
from deepsky.surveys._text import decode, read_text
from deepsky.tables import as_table, unit_of

TEXT = (".csv", ".tsv", ".txt", ".dat", ".cat", ".tab", ".asc", ".ecsv", ".csv.gz", ".train", ".test",
        ".tbl", ".ipac", ".mrt")  # fmt: skip
FITS = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz", ".ldac")
VOTABLE = (".vot", ".xml", ".votable", ".vot.gz")
PARQUET = (".parquet", ".pq", ".parq")
MOST_BYTES = 4 << 30


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
        table = _votable(path)
    elif kind in ("text", "gzip", "bzip2"):
        table = _text(decode(_bytes(path, kind), path), path)
    else:
        raise InputError("a table of a kind that has no reader", file=path, found=kind,
                         known=("CSV", "ECSV", "IPAC", "MRT", "FITS", "VOTable", "Parquet"))  # fmt: skip
    try:
        return as_table(table)
    except InputError as error:
        raise InputError(error.problem, file=path, found=error.found, expected=error.expected) from error


def _text(text: str, path: Path) -> pa.Table:
    """A table of an archive where it is one, else CSV and its relatives."""
    readme = _archives.described(path)
    kind = "cds" if readme else _archives.kind_of(text)
    return _archives.read(text, kind, path, readme) if kind else read_text(text, path)


def _bytes(path: Path, kind: str) -> bytes:
    """The bytes of a text file, inflated within a limit."""
    data = path.read_bytes()
    if kind == "text":
        return data
    try:
        if kind == "gzip":
            tool = zlib.decompressobj(wbits=31)
            out = tool.decompress(data, MOST_BYTES)
            whole = not tool.unconsumed_tail
        else:
            packed = bz2.BZ2Decompressor()
            out = packed.decompress(data, MOST_BYTES)
            whole = packed.eof
    except (zlib.error, OSError, EOFError) as error:
        raise InputError(f"the {kind} file is damaged: {error}", file=path, fix="download it again") from error
    if not whole or len(out) > max(64 << 20, 200 * len(data)):
        raise InputError("the file inflates beyond the limit", file=path, found=f"more than {len(out):,} bytes",
                         fix="decompress it yourself if you trust it")  # fmt: skip
    return out


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
    _repeated(chosen, path)
    from astropy.table import Table

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = Table.read(path, format="fits", hdu=chosen.index, character_as_bytes=False)
    except Exception as error:
        raise InputError(f"the table cannot be read: {str(error)[:200]}", file=path, hdu=chosen.index) from error
    return _simple(table)


def _simple(table: Any) -> pa.Table:
    """An astropy table without columns of complex numbers or of arrays of different length."""
    odd = [
        n for n in table.colnames if table[n].dtype.kind == "c" or (table[n].dtype.kind == "O" and _is_array(table[n]))
    ]
    table.remove_columns(odd)
    return as_table(table)


def _is_array(column: Any) -> bool:
    first = next((v for v in column if v is not None and v is not np.ma.masked), "")
    return not isinstance(first, str | bytes | int | float | np.generic)


def _repeated(hdu: FitsHdu, path: Path) -> None:
    names = [str(v).strip().lower() for k, v in hdu.header.items() if re.fullmatch(r"TTYPE\d+", k)]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError("column names repeat", file=path, hdu=hdu.index, keyword="TTYPEn", found=", ".join(twice),
                         expected="each name once, capitals aside")  # fmt: skip


def _votable(path: Path) -> pa.Table:
    from astropy.io.votable import parse

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            tables = list(parse(path, verify="warn").iter_tables())
    except Exception as error:
        raise InputError(f"not a sound VOTable: {str(error)[:200]}", file=path) from error
    lost = [
        str(w.message) for w in said if "Invalid literal" in str(w.message) or "could not convert" in str(w.message)
    ]
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
