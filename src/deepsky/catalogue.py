"""Catalogue: ids, positions, columns with units, flags and provenance: what is published."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from deepsky.errors import InputError
from deepsky.io import atomic_write, read_json

if TYPE_CHECKING:
    import pandas
    from astropy.table import Table

FLAGS = {
    1: "edge: part of the cutout lies outside the frame",
    2: "unmeasured: more than a tenth of the pixels have no measurement",
    4: "saturated: at least one pixel",
    8: "outside the training domain: in_domain below 0.001",
    16: "not predicted: nothing was measured; the answers are NaN",
}


@dataclass(frozen=True)
class Meta:
    """What a column is: unit, UCD and a description."""

    unit: str = ""
    ucd: str = ""
    description: str = ""


BASE = {
    "id": Meta(ucd="meta.id;meta.main", description="name of the object"),
    "ra": Meta("deg", "pos.eq.ra;meta.main", "right ascension (ICRS)"),
    "dec": Meta("deg", "pos.eq.dec;meta.main", "declination (ICRS)"),
    "in_domain": Meta(ucd="stat.probability", description="p-value of the object under the training features"),
    "flags": Meta(ucd="meta.code.qual", description="; ".join(f"{b} = {w}" for b, w in FLAGS.items())),
}


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What was predicted.

    Attributes
    ----------
    file : the Parquet file, or None for one that is held in memory.
    meta : unit, UCD and description of every column.
    provenance : model hash, code version, survey, assumed class prior, ...: JSON literals.
    children : rows keyed by (id, number) of a task whose answers vary in number (detections), or None.
    """

    meta: Mapping[str, Meta]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    held: pa.Table | None = None
    children: pa.Table | None = None

    @cached_property
    def table(self) -> pa.Table:
        """All rows as a pyarrow Table."""
        return self.held if self.held is not None else pq.read_table(self.file)

    def __len__(self) -> int:
        return int(self.held.num_rows if self.held is not None else pq.read_metadata(self.file).num_rows)

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return list(self.table.column_names)

    def column(self, name: str) -> np.ndarray:
        """(n,) values; (n, k) for a column of lists.

        Raises
        ------
        InputError : there is no such column.
        """
        if name not in self.table.column_names:
            raise InputError("no such column in the catalogue", found=name, known=self.table.column_names)
        values = self.table[name].combine_chunks()
        if pa.types.is_fixed_size_list(values.type):
            flat: np.ndarray = values.flatten().to_numpy(zero_copy_only=False)
            return flat.reshape(-1, values.type.list_size)
        if pa.types.is_string(values.type) or pa.types.is_dictionary(values.type):
            return np.asarray(values.to_pylist(), dtype=object)
        plain: np.ndarray = values.to_numpy(zero_copy_only=False)
        return plain

    # -- other forms --------------------------------------------------------------------------------------
    def to_pandas(self) -> pandas.DataFrame:
        """As a pandas DataFrame."""
        return self.table.to_pandas()

    def to_table(self) -> Table:
        """As an astropy Table with units, descriptions and UCDs."""
        from astropy.table import Column, Table

        made = Table(
            meta={k: v if isinstance(v, str | int | float) else json.dumps(v) for k, v in self.provenance.items()}
        )
        for name in self.names:
            values, meta = self.column(name), self.meta.get(name, Meta())
            if values.dtype == object:
                values = np.asarray([str(v) for v in values], dtype=str)
            made[name] = Column(values, unit=meta.unit or None, description=meta.description)
            made[name].meta["ucd"] = meta.ucd
        return made

    def write(self, path: str | Path) -> Path:
        """Write as Parquet, FITS, VOTable (.vot, .xml), ECSV or CSV, by the name's ending.

        Raises
        ------
        InputError : an ending that is none of these.
        """
        path = Path(path)
        kinds = {
            ".parquet": self._parquet,
            ".fits": self._fits,
            ".vot": self._votable,
            ".xml": self._votable,
            ".csv": self._csv,
            ".ecsv": self._ecsv,
        }
        if path.suffix not in kinds:
            raise InputError("no such catalogue format", file=path, found=path.suffix or "(none)", known=kinds)
        path.parent.mkdir(parents=True, exist_ok=True)
        kinds[path.suffix](path)
        return path

    def _parquet(self, path: Path) -> None:
        atomic_write(path, lambda out: pq.write_table(described(self.table, self.meta, self.provenance), out))

    def _fits(self, path: Path) -> None:
        table = self.to_table()
        table.meta = {k[:8].upper().replace(" ", "_"): str(v)[:60] for k, v in table.meta.items()}
        held = io.BytesIO()  # astropy does not write into a file that was opened exclusively
        table.write(held, format="fits")
        atomic_write(path, held.getvalue())

    def _votable(self, path: Path) -> None:
        from astropy.io.votable import from_table

        votable = from_table(self.to_table())
        for field_ in votable.get_first_table().fields:
            field_.ucd = self.meta.get(field_.name, Meta()).ucd or None
        atomic_write(path, votable.to_xml)

    def _csv(self, path: Path) -> None:
        flat = self.table
        for name in flat.column_names:  # CSV has no lists: their members become columns
            kind = flat.schema.field(name).type
            if pa.types.is_fixed_size_list(kind):
                values, flat = self.column(name), flat.drop_columns([name])
                for i in range(kind.list_size):
                    flat = flat.append_column(f"{name}_{i}", pa.array(values[:, i]))
        atomic_write(path, lambda out: pa_csv.write_csv(flat, out))

    def _ecsv(self, path: Path) -> None:
        text = io.StringIO()
        self.to_table().write(text, format="ascii.ecsv")
        atomic_write(path, text.getvalue())

    @classmethod
    def read(cls, path: str | Path) -> Catalogue:
        """Open a catalogue: its Parquet file, or the folder that `predict` wrote.

        Raises
        ------
        InputError : no catalogue, or one whose prediction is not finished.
        """
        path = Path(path)
        if path.is_dir():
            if not (path / "manifest.json").is_file():
                done = len(list((path / "tiles").glob("*.parquet"))) if (path / "tiles").is_dir() else 0
                raise InputError(
                    "no finished catalogue",
                    file=path,
                    found=f"{done} tiles of a prediction" if done else "none",
                    fix="run the same `deepsky predict` again: it goes on",
                )
            read_json(path / "manifest.json")
            path = path / "catalogue.parquet"
        if not path.is_file():
            raise InputError("no such catalogue", file=path)
        try:
            stored = pq.read_schema(path)
        except pa.ArrowInvalid as error:
            raise InputError("not a Parquet file", file=path, found=str(error)[:120]) from error
        words = stored.metadata or {}
        meta = {f.name: Meta(**json.loads((f.metadata or {}).get(b"deepsky", b"{}"))) for f in stored}
        below = path.with_name("children.parquet")
        children = pq.read_table(below) if below.is_file() else None
        return cls(meta, json.loads(words.get(b"deepsky", b"{}")), file=path, children=children)

    def _repr_html_(self) -> str:
        head = self.table.slice(0, 10).to_pandas().to_html(index=False, max_cols=14)
        return f"<p>{self!r}</p>{head}"

    def __repr__(self) -> str:
        return f"<Catalogue: {len(self):,} objects, model {self.provenance.get('model', '?')}>"


def described(table: pa.Table, meta: Mapping[str, Meta], provenance: Mapping[str, Any]) -> pa.Table:
    """The table with units, UCDs and provenance in its Parquet metadata."""
    fields = [f.with_metadata({"deepsky": json.dumps(vars(meta.get(f.name, Meta())))}) for f in table.schema]
    return table.cast(pa.schema(fields, metadata={"deepsky": json.dumps(provenance, default=str)}))
