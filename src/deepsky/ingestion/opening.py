"""open: a survey from anything; what is not native goes through the cache."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepsky import labels as label_layer
from deepsky.ingestion.readers import is_list_of_paths
from deepsky.ingestion.run import ingest
from deepsky.source import Source
from deepsky.survey import Survey
from deepsky.surveys._held import cell_axes, plain
from deepsky.tables import columns_of, is_path, is_table

HOW = ("workers", "memory", "quiet")  # arguments of `ingest` that do not change what comes out
LIMIT = 50 << 30  # bytes that the cache may hold, unless DEEPSKY_CACHE_LIMIT says otherwise


def open(
    source: Any,
    *,
    labels: Any = None,
    catalogue: Any = None,
    reader: str | None = None,
    id_column: str | None = None,
    **options: Any,
) -> Survey:
    """Open a survey: a native one as it is, anything else by ingesting it into the cache.

    Parameters
    ----------
    source : a native survey; a folder or pattern of files; arrays, a dict of arrays, a DataFrame or an astropy Table.
    labels : table of labels, joined by id or position. Those of a native survey are joined for this session only:
        `deepsky.labels.add` keeps them.
    catalogue, reader, id_column, options : as of `ingest`.

    Raises
    ------
    InputError : see `ingest`.
    """
    if isinstance(source, Survey):
        return source if labels is None else _with_labels(source, labels, id_column)
    if is_path(source) and (Path(source) / "schema.json").is_file() and not options:
        survey = Survey.load(source)
        return survey if labels is None else _with_labels(survey, labels, id_column)
    content = {k: v for k, v in options.items() if k not in HOW}
    key = _key(source, labels, catalogue, {**content, "reader": reader, "id_column": id_column})
    to = cache_folder() / "surveys" / key
    if not (to / "schema.json").exists():
        ingest(source, to, labels=labels, catalogue=catalogue, reader=reader, id_column=id_column, **options)
        _make_room(to)
    os.utime(to)
    return Survey.load(to)


def _with_labels(survey: Survey, labels: Any, id_column: str | None) -> Survey:
    known = [n for n in ("id", "object_id", "name", "ra", "dec") if n in survey.index.column_names]
    found = label_layer.match(labels, survey.index.select(known), id_column=id_column, extra="ignore")
    return survey.with_columns(*label_layer.join([(found.table, found.columns)], survey.index["id"]))


# -- the cache --------------------------------------------------------------------------------------------
def cache_folder() -> Path:
    """``DEEPSKY_CACHE``, by default ``~/.cache/deepsky``."""
    return Path(os.environ.get("DEEPSKY_CACHE", Path.home() / ".cache" / "deepsky")).expanduser()


def _key(source: Any, labels: Any, catalogue: Any, options: Mapping[str, Any]) -> str:
    """Of what a call would ingest: names, sizes and times of files, bytes of arrays, and the options."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=repr).encode())
    for part in (source, labels, catalogue):
        digest.update(b"|")
        files = is_path(part) or is_list_of_paths(part)
        for word in _listing(part) if files else _content(part):
            digest.update(word)
    return digest.hexdigest()[:24]


def _listing(part: Any) -> Iterator[bytes]:
    """Names, sizes and times of files."""
    for path in [part] if is_path(part) else part:
        text = os.path.abspath(os.path.expanduser(path))
        yield text.encode()
        for name in [text] if os.path.exists(text) else sorted(glob.glob(text, recursive=True)):
            yield from _stamps(name)


def _content(part: Any) -> Iterator[bytes]:
    """The values of what is in memory."""
    if part is None:
        return
    if isinstance(part, Source):
        yield repr(part).encode()
    elif isinstance(part, Mapping) or is_table(part):
        for name, values in part.items() if isinstance(part, Mapping) else columns_of(part).items():
            yield str(name).encode()
            yield from _content(values)
    else:
        values = plain(part)
        cells = list(part) if values is None else values.tolist() if values.dtype.kind == "O" else None
        yield f"|{getattr(part, 'unit', None) or ''}|".encode()
        if cells is not None:
            for cell in cells if isinstance(cells, list) else [cells]:
                yield from _content(cell) if cell_axes(cell) else [repr(cell).encode()]
        elif values is not None:
            yield f"{values.dtype.str}{values.shape}".encode()
            yield np.ascontiguousarray(np.ma.getdata(values)).tobytes()
            yield np.ascontiguousarray(np.ma.getmaskarray(values)).tobytes()


def _stamps(name: str) -> Iterator[bytes]:
    if not os.path.isdir(name):
        status = os.stat(name)
        yield f"{name}|{status.st_size}|{status.st_mtime_ns}\n".encode()
        return
    for here, folders, files in os.walk(name):
        folders.sort()
        for file in sorted(files):
            try:
                yield from _stamps(os.path.join(here, file))
            except FileNotFoundError:  # a link that leads nowhere
                continue


def _make_room(keep: Path) -> None:
    """Remove the surveys of the cache that were not used for the longest time, until it is below its limit."""
    limit = int(os.environ.get("DEEPSKY_CACHE_LIMIT", LIMIT))
    folders = sorted((p for p in keep.parent.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    sizes = {p: sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in folders}
    total = sum(sizes.values())
    for folder in folders:
        if total <= limit:
            return
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]


def clear_cache() -> None:
    """Remove everything that `open` ingested."""
    shutil.rmtree(cache_folder() / "surveys", ignore_errors=True)
