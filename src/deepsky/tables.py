"""Tables in memory, whatever library they come from, as Arrow tables; masked and missing values become nulls."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError


def as_table(data: Any) -> pa.Table:
    """An Arrow table from one, from a dict of columns, a pandas or Polars DataFrame, an astropy Table or records.

    Columns with several numbers a row become fixed-size lists; units stand in the metadata of the fields (`unit_of`).

    Raises
    ------
    InputError : it is none of these, has no rows or no columns, names a column twice, or has columns of unequal length.
    """
    table = _convert(data)
    if table.num_columns == 0 or table.num_rows == 0:
        raise InputError("an empty table", found=f"{table.num_rows} rows, {table.num_columns} columns")
    names = [str(n) for n in table.column_names]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError("column names repeat", found=", ".join(twice), expected="each name once")
    return table if names == table.column_names else table.rename_columns(names)  # which forgets the table's metadata


def is_table(data: Any) -> bool:
    """Whether `as_table` knows the type."""
    if isinstance(data, pa.Table | pa.RecordBatch):
        return True
    if isinstance(data, np.ndarray):
        return data.dtype.names is not None
    return any(isinstance(data, kind) for kind in _kinds().values())


def columns_of(data: Any) -> dict[str, Any]:
    """The columns of a table as its library holds them; a named index of a DataFrame is one of them.

    Raises
    ------
    InputError : it is no table.
    """
    if isinstance(data, pa.Table | pa.RecordBatch):
        return {str(n): data.column(i) for i, n in enumerate(data.schema.names)}
    if isinstance(data, np.ndarray) and data.dtype.names is not None:
        return {n: data[n] for n in data.dtype.names}
    for module, kind in _kinds().items():
        if isinstance(data, kind):
            return _library_columns(data, module)
    raise InputError("not a table", found=type(data).__name__,
                     expected="a path, dict of columns, DataFrame, astropy Table or Arrow table")  # fmt: skip


def _library_columns(data: Any, module: str) -> dict[str, Any]:
    if module == "polars":
        return columns_of(data.to_arrow())
    if module == "pandas":
        if any(name is not None for name in data.index.names):
            data = data.reset_index()
        names = [str(n) for n in data.columns]
        if len(set(names)) < len(names):
            raise InputError("column names repeat", found=", ".join(sorted({n for n in names if names.count(n) > 1})),
                             expected="each name once")  # fmt: skip
        return {n: data.iloc[:, i] for i, n in enumerate(names)}
    columns: dict[str, Any] = {}
    for n in data.colnames:
        columns |= _sky(n, data[n], data.colnames) if type(data[n]).__name__ == "SkyCoord" else {n: data[n]}
    return columns


def _kinds() -> dict[str, type]:
    """Types of tables whose library is loaded: an object of one cannot come from a library that is not."""
    known = {"pandas": "DataFrame", "polars": "DataFrame", "astropy.table": "Table"}
    return {module: getattr(sys.modules[module], name) for module, name in known.items() if module in sys.modules}


def _convert(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, Mapping):
        return _from_columns({str(n): v for n, v in data.items()})
    return _from_columns(columns_of(data))


def _sky(name: str, values: Any, names: list[str]) -> dict[str, Any]:
    """A column of sky positions as two of angles, called ra and dec where these names are free."""
    here = values.icrs
    free = {"ra", "dec"}.isdisjoint(n.lower() for n in names)
    return {"ra" if free else f"{name}_ra": here.ra.to("deg"), "dec" if free else f"{name}_dec": here.dec.to("deg")}


def _from_columns(columns: Mapping[str, Any]) -> pa.Table:
    lengths = {n: len(c) for n, c in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError("columns of different length", found=", ".join(f"{n} {k}" for n, k in lengths.items()))
    table = pa.table({n: array(c, n) for n, c in columns.items()})
    return with_units(table, {n: str(c.unit) for n, c in columns.items() if getattr(c, "unit", None) is not None})


def array(values: Any, name: str = "") -> pa.Array:
    """One column as an Arrow array: native byte order, bytes as text, masks as nulls.

    Raises
    ------
    InputError : values of different kinds, or with more axes than a table can hold.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if (bare := getattr(values, "unmasked", None)) is not None:  # a masked quantity of astropy
        values = np.ma.MaskedArray(np.asarray(bare), np.asarray(values.mask))
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    plain = np.asarray(values.data if isinstance(values, np.ma.MaskedArray) else values)
    if plain.ndim > 1:
        if plain.dtype.kind not in "iufb":
            raise InputError("a column with several values a row that are no numbers", found=name)
        width = int(np.prod(plain.shape[1:]))
        flat = array(plain.reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, width)
    if mask is not None and mask.ndim > 1:
        mask = None
    if plain.dtype.kind in "iufb":
        return pa.array(plain.astype(plain.dtype.newbyteorder("=")), mask=mask)
    words = [
        None if _missing(v) else v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in plain.tolist()
    ]
    if mask is not None:
        words = [None if m else w for w, m in zip(words, mask, strict=True)]
    try:
        return pa.array(words)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if w is None else str(w) for w in words], pa.string())


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value)) or str(value) in {"<NA>", "NaT"}


def with_units(table: pa.Table, units: Mapping[str, str]) -> pa.Table:
    """The table with units in the metadata of its fields."""
    fields = [f.with_metadata({"unit": units[f.name]}) if f.name in units else f for f in table.schema]
    return table.cast(pa.schema(fields, table.schema.metadata))


def unit_of(table: pa.Table, name: str) -> str:
    """The unit of a column, "" where none is known."""
    data = table.schema.field(name).metadata or {}
    return (data.get(b"unit") or b"").decode()


def metadata(table: pa.Table, key: str) -> Any:
    """JSON that was written into a table's metadata, or None."""
    data = (table.schema.metadata or {}).get(key.encode())
    return None if data is None else json.loads(data)


def is_path(data: Any) -> bool:
    """Whether something names a file."""
    return isinstance(data, str | os.PathLike)
