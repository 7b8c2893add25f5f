"""Labels: a layer of its own beside the observations: id, name, value, labeller, date, confidence.

    labels/0001.parquet, labels/0002.parquet, ...    one version a call of `add`; nothing is ever changed in place

Several labellers may label one object; a labeller's later label replaces the earlier one. New labels re-ingest nothing
and never move an object to another fold.
"""

from __future__ import annotations

from deepsky.labels.layer import add, agreed, join, joined, notes, versions, write
from deepsky.labels.matching import Matched, from_columns, match

__all__ = ["Matched", "add", "agreed", "from_columns", "join", "joined", "match", "notes", "versions", "write"]
