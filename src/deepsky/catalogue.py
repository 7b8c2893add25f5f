"""Catalogue: ids, positions, columns with units, flags and provenance: what is published."""

from __future__ import annotations

import html
import io
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from deepsky.errors import InputError, need
from deepsky.io import atomic_write, read_json, read_parquet, write_parquet

if TYPE_CHECKING:
    import pandas
    from astropy.table import Table

FLAGS = {
    1: "edge: part of the cutout lies outside the frame",
    2: "unmeasured: more than a tenth of the pixels have no measurement",
    4: "saturated: at least one pixel",
    8: "outside the training domain: in_domain below 0.001, or twice as far out as any validation object",
    16: "not predicted: nothing was measured; the answers are NaN or null",
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

    @property
    def _stored(self) -> Path:
        assert self.file is not None  # what is not held lies in a file
        return self.file

    @cached_property
    def table(self) -> pa.Table:
        """All rows as a pyarrow Table."""
        return self.held if self.held is not None else read_parquet(self._stored)

    def __len__(self) -> int:
        return int(self.held.num_rows if self.held is not None else pq.read_metadata(self.file).num_rows)

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return list(self.table.column_names if self.held is not None else pq.read_schema(self.file).names)

    def column(self, name: str) -> np.ndarray:
        """(n,) values; (n, k) for a column of lists. Where nothing was predicted: NaN, "", False or 0.

        Raises
        ------
        InputError : there is no such column.
        """
        return self._column(name)[0]

    def _column(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Values and which of them are null."""
        if name not in self.names:
            raise InputError("no such column in the catalogue", found=name, known=self.names)
        here = self.held is not None or "table" in vars(self)  # else one column is read, and not all
        found = (self.table if here else read_parquet(self._stored, columns=[name]))[name]
        values = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
        null: np.ndarray = values.is_null().to_numpy(zero_copy_only=False)
        if pa.types.is_fixed_size_list(values.type):
            wide = np.full((len(values), values.type.list_size), np.nan, values.type.value_type.to_pandas_dtype())
            wide[~null] = values.flatten().to_numpy(zero_copy_only=False).reshape(-1, values.type.list_size)
            return wide, null
        if pa.types.is_string(values.type) or pa.types.is_dictionary(values.type):
            return np.asarray(["" if v is None else v for v in values.to_pylist()], dtype=object), null
        if null.any():
            empty = float("nan") if pa.types.is_floating(values.type) else False
            values = values.fill_null(pa.scalar(empty).cast(values.type))
        plain: np.ndarray = values.to_numpy(zero_copy_only=False)
        return plain, null

    def _own(self) -> Iterator[tuple[str, Catalogue]]:
        """The object table, and the child table where there is one, by the name of its HDU or table."""
        yield "OBJECTS", self
        if self.children is not None:
            meta = {**self.meta, "id": Meta(ucd="meta.id.parent", description="name of the object"),
                    "number": Meta(ucd="meta.number", description="of the row among those of its object")}  # fmt: skip
            yield "CHILDREN", Catalogue(meta, self.provenance, held=self.children)

    # -- other forms --------------------------------------------------------------------------------------
    def to_pandas(self) -> pandas.DataFrame:
        """As a pandas DataFrame.

        Raises
        ------
        MissingExtra : pandas is not installed.
        """
        need("pandas", "pandas")
        return self.table.to_pandas()

    def to_table(self) -> Table:
        """As an astropy Table with units, descriptions, UCDs (``column.meta["ucd"]``) and the provenance as its meta;
        masked where nothing was predicted."""
        from astropy.table import Column, MaskedColumn, Table

        made = Table(
            meta={k: v if isinstance(v, str | int | float) else json.dumps(v) for k, v in self.provenance.items()}
        )
        for name in self.names:
            (values, null), meta = self._column(name), self.meta.get(name, Meta())
            if values.dtype == object:
                values = np.asarray([str(v) for v in values], dtype=str)
            given = {"unit": meta.unit or None, "description": meta.description or None}
            missing = null.any() and values.dtype.kind != "f"
            made[name] = MaskedColumn(values, mask=null, **given) if missing else Column(values, **given)
            if meta.ucd:
                made[name].meta["ucd"] = meta.ucd
        return made

    def write(self, path: str | Path) -> Path:
        """Write as Parquet, FITS, VOTable (.vot, .xml), ECSV or CSV, by the name's ending.

        A child table becomes a second HDU or table; of the other formats, a file ``NAME.children.ENDING`` beside it.
        FITS gets no nulls (F and 0 stand where the flags say that nothing was predicted), and its text is ASCII, with
        escapes such as ``\\xe9``. Its columns are named by `fits_names`; what another name was stands in a card TORIGn.

        Raises
        ------
        InputError : an ending that is none of these.
        """
        path = Path(path)
        ending = check_name(path)
        kinds = {
            ".parquet": Catalogue._parquet,
            ".fits": Catalogue._fits,
            ".vot": Catalogue._votable,
            ".xml": Catalogue._votable,
            ".csv": Catalogue._csv,
            ".ecsv": Catalogue._ecsv,
        }
        kinds[ending](self, path)
        if ending in {".parquet", ".csv", ".ecsv"}:
            for _, below in list(self._own())[1:]:
                kinds[ending](below, path.with_suffix(f".children{path.suffix}"))
        return path

    def _parquet(self, path: Path) -> None:
        write_parquet(path, described(self.table, self.meta, self.provenance))

    def _fits(self, path: Path) -> None:
        from astropy.io import fits
        from astropy.table import Table

        hdus = [fits.PrimaryHDU()]
        for extension, part in self._own():
            table, renamed = Table(), fits_names(part.names)
            for name, told in renamed.items():
                values, meta = part.column(name), part.meta.get(name, Meta())
                if values.dtype == object:
                    values = np.array([_ascii(str(v)) for v in values], dtype=bytes)
                table[told] = values
                table[told].unit = meta.unit or None
            hdu = fits.table_to_hdu(table)
            hdu.name = extension
            for number, (name, told) in enumerate(renamed.items(), 1):
                meta = part.meta.get(name, Meta())
                cards = (("TUCD", meta.ucd), ("TCOMM", meta.description))  # as TOPCAT reads and writes them
                for key, word in (*cards, ("TORIG", name if name != told else "")):
                    if word:
                        hdu.header[f"{key}{number}"] = _ascii(word)
            hdu.header["MODEL"] = (_ascii(str(self.provenance.get("model", ""))), "hash of the model")
            hdu.header["DEEPSKY"] = json.dumps(self.provenance, default=str)  # long: goes on in CONTINUE cards
            hdus.append(hdu)
        held = io.BytesIO()  # astropy does not write into a file that was opened exclusively
        fits.HDUList(hdus).writeto(held)
        atomic_write(path, held.getvalue())

    def _votable(self, path: Path) -> None:
        from astropy.io.votable import tree
        from astropy.io.votable.converters import get_converter

        made = tree.VOTableFile(version="1.4")
        resource = tree.Resource(type="results")
        made.resources.append(resource)
        resource.coordinate_systems.append(tree.CooSys(ID="icrs", system="ICRS"))
        for key, value in self.provenance.items():
            resource.infos.append(tree.Info(name=key, value=value if isinstance(value, str) else json.dumps(value)))
        for name, part in self._own():
            table = tree.TableElement.from_table(made, part.to_table())
            table.name = name.lower()
            for field_ in table.fields:
                if field_.datatype == "bit":  # a bit cannot be null, a truth value can
                    field_.datatype = "boolean"
                    field_.converter = get_converter(field_, {"version_1_3_or_later": True})
                field_.ucd = part.meta.get(field_.name, Meta()).ucd or None
                if field_.name in {"ra", "dec"}:
                    field_.ref = "icrs"
            resource.tables.append(table)
        atomic_write(path, made.to_xml)

    def _csv(self, path: Path) -> None:
        flat: dict[str, Any] = {}
        for name in self.names:  # CSV has no lists: their members become columns
            kind = self.table.schema.field(name).type
            if pa.types.is_fixed_size_list(kind):
                values = self.column(name)
                flat |= {f"{name}_{i}": pa.array(values[:, i]) for i in range(kind.list_size)}
            else:
                flat[name] = self.table[name]
        atomic_write(path, lambda out: pa_csv.write_csv(pa.table(flat), out))

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
        own = path.with_name("children.parquet") if path.name == "catalogue.parquet" else None
        below = own or path.with_suffix(".children.parquet")
        children = pq.read_table(below) if below.is_file() else None
        return cls(meta, json.loads(words.get(b"deepsky", b"{}")), file=path, children=children)

    def _repr_html_(self) -> str:
        first = self.table if self.held is not None else next(pq.ParquetFile(self.file).iter_batches(10), self.table)
        return f"<p>{html.escape(repr(self))}</p>{_html(first.slice(0, 10))}"

    def __repr__(self) -> str:
        return f"<Catalogue: {len(self):,} objects, model {self.provenance.get('model', '?')}>"


def _html(table: pa.Table | pa.RecordBatch, most: int = 14) -> str:
    """A table for a notebook; of many columns the first and the last ones."""
    names = table.schema.names
    shown = names if len(names) <= most else [*names[: most // 2], *names[-most // 2 :]]
    columns = [[n, *(_cell(v) for v in table.column(n).to_pylist())] for n in shown]
    if shown is not names:
        columns.insert(most // 2, ["..."] * (table.num_rows + 1))
    head, *rows = ([html.escape(word) for word in row] for row in zip(*columns, strict=True))
    lines = [f"<thead><tr>{''.join(f'<th>{word}</th>' for word in head)}</tr></thead><tbody>"]
    lines += [f"<tr>{''.join(f'<td>{word}</td>' for word in row)}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_cell, value))}]"
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def fits_names(names: Sequence[str]) -> dict[str, str]:
    """Names of columns as FITS can hold them: ASCII, and apart where upper and lower case are one.

    Accents are dropped, Greek letters spelt out, other letters told by their number; of names that would be one, the
    later ones get a number.

    >>> fits_names(["p_barré", "p_Hα", "p_SA", "p_Sa"])
    {'p_barré': 'p_barre', 'p_Hα': 'p_Halpha', 'p_SA': 'p_SA', 'p_Sa': 'p_Sa_2'}
    """
    found: dict[str, str] = {}
    plain = {n.lower() for n in names if n.isascii()}
    taken: set[str] = set()
    for name in names:
        told = start = "".join(map(_letter, unicodedata.normalize("NFKD", name)))
        number = 1
        while told.lower() in taken or (not name.isascii() and told.lower() in plain):
            number += 1
            told = f"{start}_{number}"
        taken.add(told.lower())
        found[name] = told
    return found


def _letter(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else "_"
    if unicodedata.combining(character):
        return ""
    words = unicodedata.name(character, "").split()
    if words[:2] in (["GREEK", "SMALL"], ["GREEK", "CAPITAL"]):
        return words[-1].lower() if words[1] == "SMALL" else words[-1].title()
    return f"u{ord(character):x}"


ENDINGS = (".parquet", ".fits", ".vot", ".xml", ".csv", ".ecsv")


def check_name(path: Path) -> str:
    """The ending by which `Catalogue.write` knows the format.

    Raises
    ------
    InputError : an ending that is none of these.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError("no such catalogue format", file=path, found=path.suffix or "(none)", known=ENDINGS)
    return ending


def described(table: pa.Table, meta: Mapping[str, Meta], provenance: Mapping[str, Any]) -> pa.Table:
    """The table with units, UCDs and provenance in its Parquet metadata."""
    fields = [f.with_metadata({"deepsky": json.dumps(vars(meta.get(f.name, Meta())))}) for f in table.schema]
    return table.cast(pa.schema(fields, metadata={"deepsky": json.dumps(provenance, default=str)}))
