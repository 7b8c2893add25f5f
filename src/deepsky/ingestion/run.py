"""ingest: from a source to a native survey, tile by tile, resumable, in bounded memory, in parallel."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from deepsky import folds as fold_rules
from deepsky import labels as label_layer
from deepsky import store
from deepsky.constants import SURVEY_FORMAT
from deepsky.errors import InputError
from deepsky.gate import processors, run_guarded
from deepsky.ingestion.chunk import Chunk, Reading
from deepsky.ingestion.chunk import read as read_chunk
from deepsky.ingestion.prepare import Prepared, prepare
from deepsky.ingestion.readers import understand
from deepsky.io import lock_folder, read_json, read_parquet, release_memory, write_parquet
from deepsky.progress import Progress
from deepsky.source import Rejected, Source
from deepsky.store import Cell, Part
from deepsky.survey import Survey

REJECTED = "rejected.parquet"
KEPT = "input_fold"  # column with the folds of the input: of a native survey that is converted, of a table
AHEAD = 8  # chunks that wait for an earlier one
PIECE = 4096  # objects that are turned into Python's own types at a time
MOST = 256  # objects in a chunk from files
CHILD_MEMORY = 4 << 30
_PLACE = re.compile(r"\S+\.[A-Za-z]\w*(?:, HDU [^:]+)?(?:, keyword [^:]+)?: ")  # of another file: its noise, its mask
_SIZES = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


def ingest(
    source: Any,
    to: str | Path,
    *,
    labels: Any = None,
    id_column: str | None = None,
    extra_labels: str = "refuse",
    catalogue: Any = None,
    reader: str | None = None,
    workers: int | None = None,
    memory: str | int = "1GB",
    max_rejected: float = 0.05,
    tile_bytes: int = store.TILE_BYTES,
    folds: Mapping[str, Any] | None = None,
    simulated: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Survey:
    """Turn any supported source into a native survey.

    A stopped ingest goes on with the tiles that are missing when it is called again, and ends with the same bytes.

    Parameters
    ----------
    source : path, glob pattern, list of files, arrays, table, or a `Source`.
    to : the folder of the survey, new or left unfinished by the same call.
    labels : table of labels (path, DataFrame, astropy Table, dict), joined by id or position before anything is read.
    id_column : its column of ids, where that is not plain.
    extra_labels : "refuse" or "ignore" labels of objects that the source does not hold.
    catalogue : source table for full frames.
    reader : name of a reader, where several could read the source (``deepsky list``).
    workers : child processes that read; 0 reads in this one, without protection against files that crash a reader.
    memory : budget of the objects on their way, e.g. "1GB".
    max_rejected : the share of objects that may be set aside; a single one never stops an ingest.
    tile_bytes : largest size of a tile.
    folds : arguments of `deepsky.folds.columns`.
    simulated : the objects are simulated: said beside every figure, and a model trained on them is no judge of real
        ones. A native survey that is converted stays what it was.
    options : of the reader (`size`, `bands`, `pixel_scale`, `unit`, ...); an unknown one is an error.

    Raises
    ------
    InputError : the source cannot be understood, an option is unknown, labels do not fit, too many objects are bad, or
        the folder is in use.
    """
    to = Path(to)
    _check(workers, max_rejected, tile_bytes)
    if not (to / "schema.json").exists():
        store.check_new(to)  # before there is a lock in it
    made = understand(source, reader=reader, catalogue=catalogue, **options)
    if (to / "schema.json").exists() and (to / store.PLAN).exists():  # killed while it tidied up
        store.clean(to)
        return Survey.load(to)
    if (to / "schema.json").exists():
        raise InputError("there is a survey here already", file=to, fix="name another folder, or delete this one")
    budget = size_of(memory)
    workers = (processors() if made.guarded else 0) if workers is None else workers if made.guarded else 0
    prepared = prepare(made, guarded=workers > 0, memory_bytes=CHILD_MEMORY)
    release_memory()
    if simulated:
        prepared = replace(prepared, schema=replace(prepared.schema, real=False))
    table = None
    if labels is not None:  # before the long part: a label table that does not fit is known at once
        known = [n for n in ("id", "object_id", "name", "ra", "dec") if n in prepared.items.column_names]
        lost = [r.id for r in prepared.rejected]
        table = label_layer.match(labels, prepared.items.select(known), id_column=id_column, extra=extra_labels,
                                  also_known=lost)  # fmt: skip
    own = [_own_labels(prepared, name) for name in prepared.labels]  # before the long part, as a table of labels
    prepared = _noted(prepared, [note for made in own for note in made.notes])
    if folds is None:
        folds, notes = _kept(prepared)
        prepared = _noted(prepared, notes)
    with lock_folder(to):
        return _ingest(prepared, to, own, table, workers, budget, max_rejected, tile_bytes, folds, quiet)


def _own_labels(prepared: Prepared, name: str) -> label_layer.Matched:
    """Labels that stand in the source itself."""
    columns = {"id": prepared.items["id"], name: prepared.items[name]}
    schema = prepared.source.schema
    return label_layer.from_columns(columns, {name: schema.columns[name]}, prepared.source.path,
                                    declared=schema.reader == "native")  # fmt: skip


def _noted(prepared: Prepared, notes: Iterable[str]) -> Prepared:
    """With notes that are not there yet: a survey that is converted brings its own."""
    known = prepared.schema.notes
    return replace(prepared, schema=replace(prepared.schema, notes=tuple(dict.fromkeys((*known, *notes)))))


def _kept(prepared: Prepared) -> tuple[dict[str, Any], list[str]]:
    """Folds as the input has them, where its column of that name is a split; what was decided.

    A conversion keeps the folds: what was tested stays in the test.
    """
    item = next((i for i, name in prepared.names.items() if name == KEPT), None)
    if item is None:
        return {}, []
    words = prepared.items[item].unique().to_pylist()
    if fold_rules.is_split(words, item, prepared.source.path):
        return {"fold_column": KEPT}, []
    shown = ", ".join(str(w) for w in words[:3]) + ", ..." * (len(words) > 3)
    return {}, [f"the column {item!r} holds no folds ({shown}): it is kept as {KEPT!r}, and folds are made anew"]


def _check(workers: int | None, max_rejected: float, tile_bytes: int) -> None:
    """Refuse numbers that no ingest can work with, before anything is looked at."""
    if not 0 <= max_rejected <= 1:
        raise InputError("a share of objects lies between 0 and 1", keyword="max_rejected", found=max_rejected,
                         expected="0.05 for 5%")  # fmt: skip
    if workers is not None and workers < 0:
        raise InputError("not a number of processes", keyword="workers", found=workers, expected="0 or more")
    if tile_bytes < 1:
        raise InputError("not a size of tiles", keyword="tile_bytes", found=tile_bytes, expected="1 byte or more")


def _ingest(
    prepared: Prepared,
    to: Path,
    own: Sequence[label_layer.Matched],
    labels: label_layer.Matched | None,
    workers: int,
    budget: int,
    max_rejected: float,
    tile_bytes: int,
    folds: Mapping[str, Any],
    quiet: bool,
) -> Survey:
    items = prepared.items
    nbytes = items["bytes"].to_numpy()
    cells = store.plan(items["ra"].to_numpy(), items["dec"].to_numpy(), nbytes, limit=tile_bytes)
    store.start(to, _call(prepared, tile_bytes))
    missing = [c for c in cells if not (to / "tiles" / c.name).exists()]
    state = _State(prepared, len(items), max_rejected, list(prepared.rejected))
    for cell in cells:
        if cell not in missing:
            state.count_rejected(_rejected_of(to / "tiles" / cell.name))
    chunk_bytes = max(1, min(16 << 20, budget // (4 * (AHEAD + 2 * max(workers, 1)))))
    most = MOST if prepared.source.guarded else 32 * MOST
    reading = Reading(prepared.source, prepared.schema, prepared.factors, prepared.names)
    jobs = [(cell, rows) for cell in missing for rows in _chunks(cell, nbytes, chunk_bytes, most)]
    counts = Counter(cell.name for cell, _ in jobs)
    with Progress(len(items), quiet=quiet, what="ingesting") as progress:
        state.done = len(items) - sum(len(c.rows) for c in missing)
        results = _read_all(reading, items, [rows for _, rows in jobs], workers)
        for cell in missing:
            bad: list[Rejected] = []
            parts = _parts(results, counts[cell.name], bad, state, progress)
            store.write_tile(to / "tiles" / cell.name, parts, beside=partial(_write_rejected, bad))
    return _finish(prepared, to, cells, state.rejected, own, labels, folds)


def _call(prepared: Prepared, tile_bytes: int) -> dict[str, Any]:
    """What must be the same when an ingest goes on: the objects, what they become, and how they are cut."""
    digest = hashlib.sha256()
    named = prepared.items.select(["id", "ra", "dec", "bytes"])
    for first in range(0, len(named), PIECE):
        digest.update(repr(named.slice(first, PIECE).to_pydict()).encode())
    return {
        "call": "ingest", "source": prepared.source.path, "objects": digest.hexdigest(), "tile_bytes": tile_bytes,
        "factors": dict(prepared.factors), "schema": prepared.schema.json(), "format": SURVEY_FORMAT,
    }  # fmt: skip


def _parts(
    results: Iterator[tuple[Chunk, ...]], count: int, bad: list[Rejected], state: _State, progress: Progress
) -> Iterator[Part]:
    """The next `count` pieces, for one tile; objects that were set aside go to `bad`."""
    for _ in range(count):
        for chunk in next(results):
            bad.extend(chunk.rejected)
            state.count_rejected(list(chunk.rejected))
            many = chunk.table.num_rows + len(chunk.rejected)
            state.done += many
            progress.update(state.done, many)
            yield chunk.arrays, chunk.table


def _rejected_table(rejected: list[Rejected]) -> pa.Table:
    names = ("id", "file", "reason")
    return pa.table([[getattr(r, n) for r in rejected] for n in names], pa.schema([(n, pa.string()) for n in names]))


def _write_rejected(rejected: list[Rejected], folder: Path) -> None:
    if rejected:
        write_parquet(folder / REJECTED, _rejected_table(rejected))


def _rejected_of(folder: Path) -> list[Rejected]:
    rows = read_parquet(folder / REJECTED).to_pylist() if (folder / REJECTED).exists() else []
    return [Rejected(r["id"], r["reason"], r["file"]) for r in rows]


def _finish(
    prepared: Prepared,
    to: Path,
    cells: list[Cell],
    rejected: list[Rejected],
    own: Sequence[label_layer.Matched],
    labels: label_layer.Matched | None,
    folds: Mapping[str, Any],
) -> Survey:
    """Labels, folds, index, rejected objects, and the schema last."""
    shutil.rmtree(to / "labels", ignore_errors=True)  # of a call that was killed in this very function
    notes = []
    lost = {r.id for r in rejected}
    for made in own:
        label_layer.write(to, made.without(lost), labeller="source")
    if labels is not None:
        label_layer.write(to, labels.without(lost))
        notes += list(labels.notes)
    if rejected:
        table = _rejected_table(rejected)
        write_parquet(to / REJECTED, table)
        notes.append(f"{len(rejected):,} objects were set aside: see {REJECTED}")
    release_memory()
    return store.finish(to, prepared.schema, [c.name for c in cells], folds=folds, notes=notes)


def summary(survey: Survey) -> str:
    """What became of a source, in a few lines: the objects of each fold, what was noted, what was set aside and why."""
    lines = [repr(survey)]
    told = read_json(survey.path / "folds.json") if (survey.path / "folds.json").exists() else {}
    if told:
        lines.append(f"  {'folds':<10} {', '.join(f'{n} {c:,}' for n, c in told['objects'].items())}")
    notes = [n for n in (*survey.schema.notes, *told.get("notes", ())) if REJECTED not in n]
    lines += [f"  {'note':<10} " + note.replace("\n", f"\n{'':<13}") for note in notes]
    rejected = _rejected_of(survey.path)
    if rejected:
        many = f"{len(rejected):,} object{'s' * (len(rejected) > 1)}"
        lines.append(f"  {'set aside':<10} {many}, listed in {survey.path / REJECTED}")
        for n, reason, first in commonest(rejected, 5):
            lines.append(f"  {'':<10} {n:,} times: {reason} ({Path(first.file or first.id).name})")
    return "\n".join(lines)


@final
@dataclass
class _State:
    """How far an ingest has come."""

    prepared: Prepared
    total: int
    max_rejected: float
    rejected: list[Rejected] = field(default_factory=list)
    done: int = 0

    def count_rejected(self, more: list[Rejected]) -> None:
        """Add objects that were set aside.

        Raises
        ------
        InputError : they are too many.
        """
        self.rejected += more
        total = self.total + len(self.prepared.rejected)
        if len(self.rejected) > max(1.0, self.max_rejected * total):
            first = self.rejected[0]
            words = "; ".join(f"{n:,} times: {reason}" for n, reason, _ in commonest(self.rejected, 4))
            raise InputError(
                "too many objects cannot be used", file=self.prepared.source.path,
                found=f"{len(self.rejected):,} of {total:,} so far. {words}. First: {first.file or first.id}",
                expected=f"at most {self.max_rejected:.1%}",
                fix="mend the source, or allow more with --max-rejected 0.5 (a share)",
            )  # fmt: skip


def commonest(rejected: Sequence[Rejected], most: int) -> list[tuple[int, str, Rejected]]:
    """The commonest reasons: how often, which, and the first object that was set aside for it."""
    count, first = Counter[str](), dict[str, Rejected]()
    for r in rejected:
        gist = gist_of(r)
        count[gist] += 1
        first.setdefault(gist, r)
    return [(n, gist, first[gist]) for gist, n in count.most_common(most)]


def gist_of(rejected: Rejected) -> str:
    """A reason without the name of its file, so that the same fault in many files is counted as one."""
    head, _, rest = rejected.reason.partition("\n")
    name = Path(rejected.file).name
    at = head.find(name) if name else -1
    end = head.find(": ", at + len(name)) if at >= 0 else -1
    other = _PLACE.match(head)
    gist = head[end + 2 :] if end >= 0 else head[other.end() :] if other else head
    found = next((line.strip() for line in rest.splitlines() if line.strip().startswith("found:")), "")
    return f"{gist} ({found})" if found and len(found) < 80 else gist


def _chunks(cell: Cell, nbytes: np.ndarray, limit: int, most: int) -> Iterator[np.ndarray]:
    number = (np.cumsum(nbytes[cell.rows]) - 1).clip(0) // limit
    for piece in np.split(cell.rows, np.flatnonzero(np.diff(number)) + 1):
        yield from (piece[i : i + most] for i in range(0, len(piece), most))


def _read_all(reading: Reading, items: pa.Table, pieces: list[np.ndarray], workers: int) -> Iterator[tuple[Chunk, ...]]:
    """The pieces in order; where one fails as a whole its objects are read one by one, so that the good ones live."""
    jobs = (_job(reading.source, items.take(rows)) for rows in pieces)
    call = partial(read_chunk, reading)
    answers = run_guarded(call, jobs, workers=workers, memory_bytes=CHILD_MEMORY, timeout_s=600, ahead=AHEAD)
    for number, answer in answers:
        if isinstance(answer, InputError):
            yield tuple(_read_singly(reading.source, call, items.take(pieces[number]), min(workers, 2)))
        else:
            yield (answer,)


def _read_singly(source: Source, call: Callable[..., Chunk], items: pa.Table, workers: int) -> Iterator[Chunk]:
    singles = [_job(source, items.slice(i, 1)) for i in range(items.num_rows)]
    answers = run_guarded(call, singles, workers=workers, memory_bytes=CHILD_MEMORY, timeout_s=120)
    for number, answer in answers:
        if isinstance(answer, InputError):
            name = items["id"][number].as_py()
            yield Chunk({}, pa.table({}), (Rejected(name, str(answer), singles[number][0]),))
        else:
            yield answer


def _job(source: Source, items: pa.Table) -> tuple[str, pa.Table]:
    name, more = source.places(items.slice(0, 1))[0], items.num_rows - 1
    return (f"{name} and {more} more" if more else name), items


def size_of(memory: str | int) -> int:
    """Bytes from "500MB", "1.5 GB" or a number.

    Raises
    ------
    InputError : it cannot be read as a size.

    >>> size_of("1.5 GB")
    1610612736
    """
    if isinstance(memory, int):
        return memory
    found = re.fullmatch(r"([0-9.]+)\s*([KMGT]?B?)", memory.strip().upper())
    try:
        number, unit = (float(found[1]), found[2]) if found else (0.0, "")
    except ValueError:
        number, unit = 0.0, ""
    if number <= 0:
        raise InputError("not a size of memory", found=memory, expected='e.g. "500MB" or "2GB"')
    return int(number * _SIZES[unit if unit in _SIZES else f"{unit}B"])
