"""What a split shares: ids, positions, groups and near-duplicate images that stand in two folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deepsky.errors import InputError
from deepsky.folds.assigning import BUFFER
from deepsky.folds.duplicates import near_duplicates
from deepsky.folds.groups import same_id, same_value, within
from deepsky.survey import Survey

EXAMPLES = 5


@dataclass(frozen=True)
class Leak:
    """Links of one kind between folds.

    Attributes
    ----------
    pairs : linked pairs whose objects stand in two folds.
    test : objects of the test fold with such a link to train, valid or calib.
    examples : (id, fold, id, fold).
    """

    pairs: int
    test: int
    examples: tuple[tuple[str, str, str, str], ...] = ()


@dataclass(frozen=True)
class Leaks:
    """What the folds of a survey share, by kind."""

    survey: str
    objects: Mapping[str, int]
    kinds: Mapping[str, Leak]
    clean: int
    radius_arcsec: float

    @property
    def none(self) -> bool:
        """Whether nothing is shared."""
        return all(k.pairs == 0 for k in self.kinds.values())

    def json(self) -> dict[str, Any]:
        """As JSON literals."""
        return asdict(self)

    def __str__(self) -> str:
        sizes = ", ".join(f"{n} {c:,}" for n, c in self.objects.items())
        lines = [f"{self.survey}: {sizes}"]
        for kind, leak in self.kinds.items():
            if leak.pairs:
                lines.append(f"  {kind}: {leak.pairs:,} pairs across folds, {leak.test:,} test objects")
                lines += [f"    {a} ({f}) and {b} ({g})" for a, f, b, g in leak.examples]
            else:
                lines.append(f"  {kind}: none across folds")
        test = self.objects.get("test", 0)
        if self.clean < test:
            lines.append(f"  {self.clean:,} of {test:,} test objects share no group with the other folds")
        return "\n".join(lines)


def leaks(survey: Survey, *, radius_arcsec: float = 1.0, group_column: str | None = None, pixels: bool = True) -> Leaks:
    """Count what the folds share, whoever made them.

    Parameters
    ----------
    radius_arcsec : within which two positions are one object.
    group_column : another column whose values ought to stay together.
    pixels : search for near-duplicate images.

    Raises
    ------
    InputError : the survey has no folds.
    """
    survey = survey.whole or survey
    if "fold" not in survey.index.column_names:
        raise InputError("this survey has no folds", file=survey.path, fix=f"deepsky split {survey.path}")
    kinds = {"same id": same_id(survey)}
    if np.isfinite(survey.column("ra")).any():
        kinds[f"within {radius_arcsec:g} arcsec"] = within(survey, radius_arcsec)
    if group_column is not None:
        kinds[f"same {group_column}"] = same_value(survey, group_column)
    if pixels:
        kinds["near-duplicate"] = near_duplicates(survey)[0]
    if "group" in survey.index.column_names:
        kinds["same group"] = same_value(survey, "group")
    fold = survey.column("fold").astype(str)
    names, counts = np.unique(fold, return_counts=True)
    found = {kind: _leak(survey, fold, pairs) for kind, pairs in kinds.items()}
    sizes = {str(n): int(c) for n, c in zip(names, counts, strict=True)}
    clean = int(clean_test(survey).sum()) if "group" in survey.index.column_names else sizes.get("test", 0)
    return Leaks(survey.name, sizes, found, clean, radius_arcsec)


def _leak(survey: Survey, fold: np.ndarray, pairs: np.ndarray) -> Leak:
    a, b = fold[pairs[:, 0]], fold[pairs[:, 1]]
    across = (a != b) & (a != BUFFER) & (b != BUFFER)
    pairs, a, b = pairs[across], a[across], b[across]
    test = np.unique(np.concatenate([pairs[a == "test", 0], pairs[b == "test", 1]]))
    some = [(survey.id[i], fold[i], survey.id[j], fold[j]) for i, j in pairs[:EXAMPLES]]
    return Leak(len(pairs), len(test), tuple(tuple(map(str, s)) for s in some))  # type: ignore[misc]


def clean_test(survey: Survey) -> np.ndarray:
    """(n,) bool of a survey or selection: objects of the test fold whose group stands in no other fold.

    Raises
    ------
    InputError : the survey has no folds.
    """
    whole = survey.whole or survey
    missing = {"fold", "group"} - set(whole.index.column_names)
    if missing:
        raise InputError("this survey has no folds", file=survey.path, fix=f"deepsky split {survey.path}")
    fold = whole.column("fold").astype(str)
    known = np.unique(whole.column("group")[(fold != "test") & (fold != BUFFER)])
    return np.asarray((survey.column("fold").astype(str) == "test") & ~np.isin(survey.column("group"), known))
