"""Source: the contract of a reader. One file in ``surveys/`` is one kind of input.

A reader module has::

    def claims(path: Path) -> bool              whether it can read `path`; cheap, never raises
    def open(path, *, <options>) -> Source      understands the input without reading pixels
    def example(path: Path) -> Path             writes a few made-up objects in its own format and returns what to open

Units, masks, byte order and sortedness are settled here, at the door: inside there is nothing left to ask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from deepsky.schema import Schema


@dataclass(frozen=True)
class Rejected:
    """An object that was set aside: a line of ``rejected.parquet``."""

    id: str
    reason: str
    file: str = ""


@dataclass(frozen=True, eq=False)
class Block:
    """Objects read from a source, in native form.

    Attributes
    ----------
    ids : (n,) of those that could be read, in the order of the arrays.
    arrays : by name: ``NAME.flux`` (n, band, y, x), ``NAME.ivar`` in the schema's storage (pixel (n, band, y, x), band
        (n, band), object (n,)), optionally ``NAME.psf``, ``truth.NAME``.
    columns : (n,) scalar columns that are known only after reading (unmeasured, saturated and edge fractions, ...).
    rejected : the others, each with its reason.
    """

    ids: tuple[str, ...]
    arrays: Mapping[str, np.ndarray]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class Source(ABC):
    """Input that was understood but not read. Picklable: its `read` runs in child processes.

    Attributes
    ----------
    path : what was opened, in words for messages.
    schema : what its objects will be; the reader's decisions stand in its notes.
    guarded : whether `read` runs in child processes with limits; False for what is in memory or our own.
    """

    path: str
    schema: Schema
    guarded: ClassVar[bool] = True

    @abstractmethod
    def items(self) -> pa.Table:
        """One row an object: ``id`` (string), ``ra``, ``dec`` (float64, NaN where not known), ``bytes`` (int64, of the
        native arrays), the scalar columns known without reading pixels, and private columns (leading underscore) that
        `read` needs."""

    @abstractmethod
    def read(self, items: pa.Table) -> Block:
        """Read the objects of some rows of `items()`; a bad object is a line of `rejected`, never an exception."""

    def places(self, items: pa.Table) -> list[str]:
        """Where each of some objects lies, for messages: its file where there is a column ``_file``, else its row."""
        if "_file" in items.column_names:
            return [str(v) for v in items["_file"].to_pylist()]
        if "_row" in items.column_names:
            return [f"{self.path}, row {row + 1}" for row in items["_row"].to_pylist()]
        return [f"{self.path}, {name}" for name in items["id"].to_pylist()]

    def rejected(self) -> tuple[Rejected, ...]:
        """Objects set aside before any pixel was read."""
        return ()
