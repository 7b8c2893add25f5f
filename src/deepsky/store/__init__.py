"""The writer of native surveys: ``store.write(samples, to)`` for batches, and the steps that an ingest is made of."""

from __future__ import annotations

from deepsky.store.tile import Part, verify, write_tile
from deepsky.store.tiling import TILE_BYTES, Cell, plan
from deepsky.store.writer import PLAN, check_new, clean, fingerprint, finish, start, write

__all__ = [
    "PLAN",
    "TILE_BYTES",
    "Cell",
    "Part",
    "check_new",
    "clean",
    "fingerprint",
    "finish",
    "plan",
    "start",
    "verify",
    "write",
    "write_tile",
]
