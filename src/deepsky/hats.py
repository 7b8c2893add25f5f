"""Write a survey as a HATS catalogue, for LSDB and whatever reads Parquet: pixels are binary columns.

    hats.properties, partition_info.csv
    dataset/_common_metadata, dataset/Norder=1/Dir=0/Npix=13.parquet ...

Standard: IVOA note "HATS: A Standard for the Hierarchical Adaptive Tiling Scheme in the Virtual Observatory".
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepsky.errors import InputError
from deepsky.io import TEMPORARY, atomic_write, sync_folder
from deepsky.schema import ImageSchema
from deepsky.store.tiling import DEEPEST, TILE_BYTES, healpix
from deepsky.survey import Survey

SPATIAL = "_healpix_29"
OURS = {"key", "tile", "row", "crc"}
GROUP_BYTES = 32 << 20  # of a Parquet row group
META = b"deepsky"


def write_hats(survey: Survey, to: str | Path, *, name: str = "", partition_bytes: int = TILE_BYTES) -> Path:
    """Write the objects of a survey or selection that have a position.

    Parameters
    ----------
    survey : its columns, labels, folds and arrays are written; ``image.flux`` becomes the binary column ``image_flux``
        (C order, little-endian), whose shape, type, unit and bands stand in the metadata of the field.
    to : a new folder.
    name : of the catalogue, by default the survey's.
    partition_bytes : size above which a HEALPix cell is split into four.

    Raises
    ------
    InputError : no object has a position, or the folder is not empty.
    """
    to = Path(to)
    if to.exists() and any(to.iterdir()):
        raise InputError("this folder is not empty", file=to, expected="a new folder")
    placed = np.flatnonzero(np.isfinite(survey.column("ra")) & np.isfinite(survey.column("dec")))
    if len(placed) == 0:
        raise InputError("a HATS catalogue needs positions", file=survey.path, found="none", expected="ra and dec")
    deep = healpix(survey.column("ra")[placed], survey.column("dec")[placed])
    order = np.argsort(deep, kind="stable")
    rows, deep = placed[order], deep[order]
    arrays = _arrays(survey, rows[:1])
    each = sum(a.nbytes for a in arrays.values()) + 64
    cells = list(_split(deep, each, partition_bytes))
    draft = to.with_name(TEMPORARY + to.name)
    shutil.rmtree(draft, ignore_errors=True)
    schema = _schema(survey, arrays)
    for level, cell, low, high in cells:
        path = draft / "dataset" / f"Norder={level}" / f"Dir={cell // 10000 * 10000}" / f"Npix={cell}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        step = max(1, GROUP_BYTES // each)
        with pq.ParquetWriter(path, schema, compression="zstd") as file:
            for start in range(low, high, step):
                stop = min(start + step, high)
                file.write_table(
                    _table(survey, rows[start:stop], deep[start:stop], schema), row_group_size=stop - start
                )
    pq.write_metadata(schema, draft / "dataset" / "_common_metadata")
    lines = "".join(f"{level},{cell}\n" for level, cell, _, _ in cells)
    atomic_write(draft / "partition_info.csv", "Norder,Npix\n" + lines)
    words = _properties(survey, name or survey.schema.name, len(rows), max(level for level, *_ in cells), schema)
    for file_name in ("hats.properties", "properties"):  # the second is what HATS 0.4 and older look for
        atomic_write(draft / file_name, words)
    if to.exists():
        to.rmdir()
    draft.rename(to)
    sync_folder(to.parent)
    return to


def _split(deep: np.ndarray, each: int, limit: int) -> Iterator[tuple[int, int, int, int]]:
    """(order, cell, first, last + 1) of cells that hold at most `limit` bytes, in the order of the sky."""

    def go(order: int, cell: int, low: int, high: int) -> Iterator[tuple[int, int, int, int]]:
        if low == high:
            return
        if (high - low) * each <= limit or order == DEEPEST:
            yield order, cell, low, high
            return
        edges = low + np.searchsorted(deep[low:high], (4 * cell + np.arange(5)) << (2 * (DEEPEST - order - 1)))
        for k in range(4):
            yield from go(order + 1, 4 * cell + k, int(edges[k]), int(edges[k + 1]))

    roots = np.searchsorted(deep, np.arange(13) << (2 * DEEPEST))
    for cell in range(12):
        yield from go(0, cell, int(roots[cell]), int(roots[cell + 1]))


def _arrays(survey: Survey, at: np.ndarray) -> dict[str, np.ndarray]:
    """Stored arrays of some objects by column name."""
    names = [f"{n}.{part}" for n in survey.schema.observations for part in ("flux", "ivar", "psf")]
    names += [f"truth.{n}" for n, c in survey.schema.columns.items() if c.array]
    found = {n.replace(".", "_"): survey.array(n, at) for n in names}
    return {n: a for n, a in found.items() if a is not None}


def _schema(survey: Survey, arrays: dict[str, np.ndarray]) -> pa.Schema:
    fields = [pa.field(SPATIAL, pa.int64())]
    for field in survey.index.schema:
        if field.name in OURS:
            continue
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        column = survey.schema.columns.get(field.name)
        unit = "deg" if field.name in {"ra", "dec"} else column.unit if column else ""
        fields.append(pa.field(field.name, kind, metadata={"unit": unit} if unit else None))
    for name, array in arrays.items():
        rule = survey.schema.observations.get(name.rsplit("_", 1)[0])
        about: dict[str, Any] = {"shape": array.shape[1:], "dtype": array.dtype.newbyteorder("<").str}
        if isinstance(rule, ImageSchema):
            about |= {"unit": rule.unit, "bands": rule.bands, "pixel_scale": rule.pixel_scale}
        fields.append(pa.field(name, pa.binary(), metadata={k: json.dumps(v) for k, v in about.items()}))
    described = json.dumps(survey.schema.json(), sort_keys=True)
    return pa.schema(fields, metadata={META: described.encode()})


def _table(survey: Survey, rows: np.ndarray, deep: np.ndarray, schema: pa.Schema) -> pa.Table:
    index = survey.index.take(rows)
    columns: list[Any] = [pa.array(deep)]
    for name in schema.names[1:]:
        if name in index.column_names:
            column = index[name]
            columns.append(column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column)
    for array in _arrays(survey, rows).values():
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        width = plain[0].nbytes if plain.ndim > 1 else plain.itemsize
        offsets = pa.py_buffer((np.arange(len(plain) + 1) * width).astype(np.int32).tobytes())
        columns.append(pa.Array.from_buffers(pa.binary(), len(plain), [None, offsets, pa.py_buffer(plain.tobytes())]))
    return pa.table(columns, schema=schema)


def _properties(survey: Survey, name: str, rows: int, order: int, schema: pa.Schema) -> str:
    plain = [f.name for f in schema if not pa.types.is_binary(f.type) and f.name != SPATIAL]
    words = {
        "obs_collection": "_".join(name.split()) or "survey",
        "dataproduct_type": "object",
        "hats_nrows": rows,
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": SPATIAL,
        "hats_col_healpix_order": DEEPEST,
        "hats_cols_default": " ".join(plain),
        "hats_npix_suffix": ".parquet",
        "hats_order": order,
        "hats_version": "v1.0",
        "hats_builder": "deepsky",
        "obs_description": f"{'real data' if survey.schema.real else 'simulation'}: {survey.schema.name}",
    }
    return "".join(f"{k}={str(v).replace(chr(10), ' ')}\n" for k, v in words.items())
