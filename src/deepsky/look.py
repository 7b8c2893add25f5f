"""look: what was understood of a source, within seconds and before anything is ingested."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from deepsky import labels as label_layer
from deepsky.errors import InputError
from deepsky.gate import run_guarded
from deepsky.ingestion.chunk import Chunk, Reading
from deepsky.ingestion.chunk import read as read_chunk
from deepsky.ingestion.prepare import Prepared, prepare
from deepsky.ingestion.readers import understand
from deepsky.ingestion.run import commonest
from deepsky.quality import sky_words
from deepsky.report.gallery import contact_sheet
from deepsky.sample import Image, Sample
from deepsky.schema import Column, ImageSchema, ObservationSchema, RowSchema
from deepsky.source import Rejected, Source
from deepsky.surveys._scanned import Scanned

MOST = 96  # objects that are read
LISTED = 400  # objects of a folder whose headers are looked at
SHEET = 48  # of them are drawn
MEMORY = 4 << 30


@dataclass(frozen=True)
class Look:
    """What a source is, judged from some of its objects.

    Attributes
    ----------
    objects : in the whole source; `read` of them were read, `good` of these can be used.
    labels : for each label its classes and their numbers, or the range of its values; "" where it is empty.
    positions : how many of the listed objects have one, and the ranges of ra and dec [deg].
    rejected : (how many of those read, reason, example).
    nbytes : of the native survey it would become, estimated.
    """

    path: str
    reader: str
    objects: int
    read: int
    good: int
    observations: Mapping[str, ObservationSchema]
    columns: Mapping[str, Column]
    labels: Mapping[str, str]
    positions: str
    values: Mapping[str, str]
    rejected: tuple[tuple[int, str, str], ...]
    notes: tuple[str, ...]
    nbytes: int
    seconds: float
    picture: str = ""

    def json(self) -> dict[str, Any]:
        """As JSON literals."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.objects:,} objects, understood by the reader {self.reader!r}"]
        lines += [f"  {n:<10} {_words(o)}" for n, o in self.observations.items()]
        lines += [f"  {'':<10} {words}" for words in self.values.values() if words]
        lines.append(f"  {'positions':<10} {self.positions}")
        lines += [f"  {'label':<10} {n}: {words}" for n, words in self.labels.items()]
        others = [n for n in self.columns if n not in self.labels]
        if others:
            lines.append(f"  {'columns':<10} {', '.join(others[:12])}{', ...' if len(others) > 12 else ''}")
        lines.append(
            f"  {'read':<10} {self.read:,} of them: {self.good:,} good" + (", set aside:" if self.rejected else "")
        )
        lines += [f"  {'':<10} {n:,} times: {reason} ({example})" for n, reason, example in self.rejected]
        lines += [f"  {'note':<10} {note}" for note in self.notes]
        lines.append(f"  {'size':<10} about {self.nbytes / 1e6:,.1f} MB as a native survey")
        if self.picture:
            lines.append(f"  {'picture':<10} {self.picture}")
        return "\n".join(lines)


def _words(rule: ObservationSchema) -> str:
    if isinstance(rule, RowSchema):
        names = ", ".join(f"{n} [{u}]" if u else n for n, u in zip(rule.names[:8], rule.units[:8], strict=True))
        return f"{len(rule.names)} features: {names}{', ...' if len(rule.names) > 8 else ''}; noise {rule.noise}"
    scale = f"{rule.pixel_scale:g} arcsec" if rule.pixel_scale is not None else "a scale that is not known or varies"
    many = f"{len(rule.bands)} bands" if len(rule.bands) > 1 else "one band"
    noise = {"measured": f"noise measured, for every {rule.ivar}", "estimated": "noise estimated",
             "unknown": "noise unknown"}[rule.noise]  # fmt: skip
    unit = f"units of {rule.unit}" if rule.unit[:1].isdigit() else rule.unit or "no unit"
    psf = f"; PSF of {rule.psf[1]} x {rule.psf[0]}" if rule.psf else ""
    return (f"{many} ({', '.join(rule.bands)}); {rule.size[1]} x {rule.size[0]} pixels of {scale}; "
            f"{rule.quantity} in {unit}, {rule.dtype}; {noise}{psf}")  # fmt: skip


def look(
    source: Any,
    *,
    labels: Any = None,
    to: str | Path | None = "look.png",
    reader: str | None = None,
    catalogue: Any = None,
    id_column: str | None = None,
    most: int = MOST,
    guarded: bool = True,
    **options: Any,
) -> Look:
    """Understand a source and read some of its objects, spread evenly.

    Parameters
    ----------
    source, labels, reader, catalogue, id_column, options : as of `deepsky.ingestion.ingest`.
    to : the contact sheet to write (PNG); None writes nothing.
    most : objects to read.
    guarded : read in a child process, with limits.

    Raises
    ------
    InputError : the source cannot be understood, labels do not fit, or no object that was read can be used.
    """
    start = time.monotonic()
    made = understand(source, reader=reader, catalogue=catalogue, **options)
    some, total = _some(made)
    guarded = guarded and made.guarded
    prepared = prepare(some, guarded=guarded, memory_bytes=MEMORY)
    notes = list(prepared.schema.notes)
    described, shown = _labels(made, prepared, labels, id_column, notes)
    chunks = list(_read(prepared, most, guarded))
    good = sum(c.table.num_rows for c in chunks)
    rejected = [r for c in chunks for r in c.rejected]
    asked = good + len(rejected)
    rejected += list(prepared.rejected)
    common = commonest(rejected, 5)
    if good == 0:
        words = "; ".join(f"{n:,} times: {reason}" for n, reason, _ in common[:3])
        raise InputError("none of the objects that were read can be used", file=made.path, found=words)
    sample = _sample(prepared, chunks)
    picture = ""
    if to is not None and any(isinstance(o, Image) for o in sample.observations.values()):
        rows = np.unique(np.linspace(0, len(sample.id) - 1, SHEET).astype(np.int64))
        title = f"{Path(made.path).name}: {len(rows):,} of {total:,} objects"
        picture = str(contact_sheet(sample[torch.from_numpy(rows)], to, n=SHEET, title=title))
    notes += _suspects(prepared, sample)
    return Look(
        path=made.path,
        reader=made.schema.reader or reader or type(made).__name__,
        objects=total,
        read=asked,
        good=good,
        observations=prepared.schema.observations,
        columns={n: c for n, c in {**made.schema.columns, **described}.items() if not c.array},
        labels=shown,
        positions=_positions(prepared.items),
        values=_values(sample),
        rejected=tuple((n, reason, r.file or r.id) for n, reason, r in common),
        notes=tuple(notes),
        nbytes=int(float(prepared.items["bytes"].to_numpy().mean()) * total),
        seconds=time.monotonic() - start,
        picture=picture,
    )


def _suspects(prepared: Prepared, sample: Sample) -> list[str]:
    """A sky that was not subtracted; values that float images of several objects share exactly, and at their edge: such
    are often "not measured"."""
    notes = []
    for name, part in sample.observations.items():
        if not isinstance(part, Image) or not prepared.schema.observations[name].dtype.startswith("float"):
            continue
        notes += sky_words(part.flux.numpy(), part.measured.numpy(), part.bands)
        found: Counter[float] = Counter()
        for flux, seen in zip(part.flux.numpy(), part.measured.numpy(), strict=True):
            values, counts = np.unique(flux[seen], return_counts=True)
            found.update(float(values[i]) for i in {0, len(values) - 1} if len(values) > 1 and counts[i] >= 9)
        for value, objects in found.most_common(2):
            if objects >= 2 and value != 0:
                given = f"{value / float(np.asarray(prepared.factors.get(name, 1.0))):.6g}"
                share = f"{objects} of {len(sample)} images"
                notes.append(f"{share} have their extreme, {given}, in many pixels: saturated, or 'not measured' "
                             f"(then sentinel={given})")  # fmt: skip
    return notes


def _some(source: Source) -> tuple[Source, int]:
    """A source of at most `LISTED` of the objects of a folder, and how many there are: not every header is opened."""
    if not isinstance(source, Scanned):
        return source, source.items().num_rows
    total = source.listing.num_rows
    if total <= LISTED:
        return source, total
    rows = np.unique(np.linspace(0, total - 1, LISTED).astype(np.int64))
    return replace(source, listing=source.listing.take(pa.array(rows))), total


def _labels(
    made: Source, prepared: Prepared, labels: Any, id_column: str | None, notes: list[str]
) -> tuple[dict[str, Column], dict[str, str]]:
    """Labels of the source and of the table that was given: columns, and words about each."""
    whole = made.listing if isinstance(made, Scanned) else prepared.items
    described: dict[str, Column] = {}
    shown = {
        n: _distribution(whole[n])
        for n, c in made.schema.columns.items()
        if c.role == "label" and n in whole.column_names
    }
    if labels is not None:
        objects = prepared.items
        known = [n for n in ("id", "object_id", "name", "ra", "dec") if n in objects.column_names]
        seen = objects.select(known)  # their headers were looked at: they may have positions
        listed = whole if isinstance(made, Scanned) and "id" in whole.column_names else seen
        try:
            found = label_layer.match(labels, listed, id_column=id_column, extra="ignore")
        except InputError as error:
            if listed is seen or not np.isfinite(seen["ra"].to_numpy()).any():
                raise
            try:
                found = label_layer.match(labels, seen, id_column=id_column, extra="ignore")
            except InputError:
                raise error from None
        notes += found.notes
        described = dict(found.columns)
        for name, column in found.columns.items():
            if column.parts:
                shown[name] = f"{column.moves} of {' and '.join(column.parts)}"
                continue
            values = found.table.filter(pc.equal(found.table["name"], name))["value"]
            numbers = column.dtype != "str"
            shown[name] = _distribution(pc.cast(values, pa.float64()) if numbers else values)
    return described, shown


def _distribution(values: pa.ChunkedArray) -> str:
    """Classes and their numbers, or the range of numbers."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    count = Counter(v for v in values.to_pylist() if v is not None and v == v)
    if not count:
        return "no value"
    number = not isinstance(next(iter(count)), str)
    if number and len(count) > 20:
        low, middle, high = np.quantile(list(count.elements()), [0, 0.5, 1])
        return f"{count.total():,} numbers, {low:.4g} to {high:.4g}, median {middle:.4g}"
    if len(count) > 200:
        return f"{count.total():,} values, {len(count):,} different"
    common = count.most_common(10)
    words = ", ".join(f"{k:g} {n:,}" if number else f"{k} {n:,}" for k, n in common)
    return words + (f", and {len(count) - 10} more" if len(count) > 10 else "")


def _read(prepared: Prepared, most: int, guarded: bool) -> list[Chunk]:
    items = prepared.items
    rows = np.unique(np.linspace(0, items.num_rows - 1, min(most, items.num_rows)).astype(np.int64))
    reading = Reading(prepared.source, prepared.schema, prepared.factors, prepared.names)
    pieces = [items.take(pa.array([i])) for i in rows]
    jobs = [(prepared.source.places(piece)[0], piece) for piece in pieces]
    call = partial(read_chunk, reading)
    chunks = []
    for number, answer in run_guarded(call, jobs, workers=int(guarded), memory_bytes=MEMORY):
        if isinstance(answer, InputError):
            name = items["id"][int(rows[number])].as_py()
            answer = Chunk({}, pa.table({}), (Rejected(name, str(answer), jobs[number][0]),))
        chunks.append(answer)
    return chunks


def _sample(prepared: Prepared, chunks: list[Chunk]) -> Sample:
    """What was read, as one batch of images."""
    good = [c for c in chunks if c.table.num_rows]
    arrays = {n: np.concatenate([c.arrays[n] for c in good]) for n in good[0].arrays}
    ids = tuple(i for c in good for i in c.table["id"].to_pylist())
    images = {}
    for name, rule in prepared.schema.observations.items():
        if isinstance(rule, ImageSchema):
            flux = torch.from_numpy(arrays[f"{name}.flux"].astype(np.float32))
            ivar = torch.from_numpy(arrays[f"{name}.ivar"].astype(np.float32))
            ivar = ivar.reshape(*ivar.shape, *(1,) * (4 - ivar.ndim))
            scale = torch.full((len(ids),), float("nan") if rule.pixel_scale is None else rule.pixel_scale)
            images[name] = Image(flux, ivar, unit=rule.unit, bands=rule.bands, pixel_scale=scale)
    blank = torch.full((len(ids),), float("nan"), dtype=torch.float64)
    return Sample(ids, torch.zeros(len(ids), dtype=torch.int64), blank, blank, images)


def _positions(items: pa.Table) -> str:
    ra, dec = items["ra"].to_numpy(), items["dec"].to_numpy()
    known = np.isfinite(ra) & np.isfinite(dec)
    if not known.any():
        return "none: folds are by object, not by sky"
    ra, dec = ra[known], dec[known]
    across = (ra + 180) % 360 - 180
    if np.ptp(across) < 0.5 * np.ptp(ra):  # a field at 0 h
        ra = across
    share = "all" if known.all() else f"{known.mean():.0%} of the objects"
    return f"{share}, ra {ra.min():.4f} to {ra.max():.4f}, dec {dec.min():.4f} to {dec.max():.4f} deg"


def _values(sample: Sample) -> dict[str, str]:
    """The range of the flux, band by band, and how much was measured."""
    out = {}
    for name, part in sample.observations.items():
        if not isinstance(part, Image):
            continue
        seen = part.measured
        words = []
        for band, label in enumerate(part.bands):
            flux = part.flux[:, band][seen[:, band]]
            if len(flux):
                low, middle, high = (float(q) for q in np.quantile(flux.numpy(), [0.001, 0.5, 0.999]))
                words.append(f"{label} {low:.3g} / {middle:.3g} / {high:.3g}")
            else:
                words.append(f"{label} nothing")
        lost = 1 - float(seen.float().mean())
        out[name] = f"flux at 0.1 / 50 / 99.9%: {'; '.join(words)}" + (f"; {lost:.1%} not measured" if lost > 0 else "")
    return out
