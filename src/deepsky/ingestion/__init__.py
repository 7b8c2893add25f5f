"""From any source to a native survey: ``open`` and ``ingest``.

A child process that reads files imports `deepsky.ingestion.chunk` alone, and with it neither torch nor a survey: hence
the lazy names here.
"""

from __future__ import annotations

import importlib
from typing import Any

_CONTENTS = {
    "open": "opening",
    "understand": "readers",
    "find_reader": "readers",
    "cache_folder": "opening",
    "clear_cache": "opening",
    "ingest": "run",
    "summary": "run",
}
__all__ = ["cache_folder", "clear_cache", "find_reader", "ingest", "open", "summary", "understand"]


def __getattr__(name: str) -> Any:
    if name not in _CONTENTS:
        raise AttributeError(f"module 'deepsky.ingestion' has no attribute {name!r}")
    return getattr(importlib.import_module(f"deepsky.ingestion.{_CONTENTS[name]}"), name)
