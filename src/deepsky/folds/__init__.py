"""Folds by group: what may leak stays together.

A group holds objects with one id, within a radius on the sky, in one sky block, with one value of a column, or with
nearly the same pixels. `assign` writes the columns group and fold into the index; the fold follows from a stable hash
of group and seed, balanced over the classes where a survey is small. `leaks` counts what a split shares.
"""

from __future__ import annotations

from deepsky.folds.assigning import BUFFER, Assignment, assign, columns, is_split, kfold, write, write_index
from deepsky.folds.groups import Groups, groups
from deepsky.folds.leaking import Leak, Leaks, clean_test, leaks

__all__ = [
    "BUFFER",
    "Assignment",
    "Groups",
    "Leak",
    "Leaks",
    "assign",
    "clean_test",
    "columns",
    "groups",
    "is_split",
    "kfold",
    "leaks",
    "write",
    "write_index",
]
