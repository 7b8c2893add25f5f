"""Seen: which objects a model was trained, stopped and calibrated on, told by id and by place on the sky."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from deepsky.labels.positions import chord, unit_vectors
from deepsky.survey import Survey

FOLDS = ("train", "valid", "calib")
NEAR = 1.0  # arcsec: closer is the same object whatever its id
APART = 60.0  # arcsec: farther is another object, even with the same id (many surveys number their objects)
BLOCK = 1_000_000  # objects that are looked up at a time


@dataclass(frozen=True, eq=False)
class Seen:
    """The objects of the folds that made a model.

    Attributes
    ----------
    key : (n,) uint64 keys of the ids, rising.
    ra, dec : (n,) [deg], infinite where not known.
    fold : (n,) uint8, a place in `FOLDS`.
    """

    key: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    fold: np.ndarray

    @classmethod
    def of(cls, folds: Mapping[str, Survey]) -> Self:
        """Of the folds that a model was made from."""
        parts = [(FOLDS.index(name), s) for name, s in folds.items() if name in FOLDS]
        key = np.concatenate([s.key for _, s in parts])
        fold = np.concatenate([np.full(len(s), code, np.uint8) for code, s in parts])
        ra, dec = (np.concatenate([_place(s, name) for _, s in parts]) for name in ("ra", "dec"))
        order = np.argsort(key, kind="stable")
        return cls(key[order], ra[order], dec[order], fold[order])

    def codes(self, survey: Survey) -> np.ndarray:
        """(n,) int8 for the objects of a survey: a place in `FOLDS`, or -1 for one that the model never saw.

        An object is one that was seen if it lies within an arcsecond of it, or has its id and does not lie elsewhere.
        """
        from scipy.spatial import cKDTree  # here: a model that is only loaded needs no scipy

        known = np.isfinite(self.ra) & np.isfinite(self.dec)
        mine = np.zeros((len(self.key), 3))
        mine[known] = unit_vectors(self.ra[known], self.dec[known])
        tree, among = cKDTree(mine[known]), self.fold[known]
        found = np.full(len(survey), -1, np.int8)
        ra, dec = (_place(survey, name) for name in ("ra", "dec"))
        for i in range(0, len(survey), BLOCK):
            here = slice(i, min(i + BLOCK, len(survey)))
            code, key = found[here], survey.key[here]
            placed = np.isfinite(ra[here]) & np.isfinite(dec[here])
            theirs = np.zeros((len(key), 3))
            theirs[placed] = unit_vectors(ra[here][placed], dec[here][placed])
            if len(among) and placed.any():
                limit = chord(NEAR) * (1 + 1e-9)
                far, nearest = map(np.asarray, tree.query(theirs[placed], distance_upper_bound=limit))
                near = np.isfinite(far)
                code[np.flatnonzero(placed)[near]] = among[nearest[near]]
            at = np.minimum(np.searchsorted(self.key, key), len(self.key) - 1)
            same = (self.key[at] == key) & (code < 0)
            elsewhere = placed & known[at] & (np.linalg.norm(theirs - mine[at], axis=1) > chord(APART))
            code[same & ~elsewhere] = self.fold[at[same & ~elsewhere]]
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """What is saved."""
        return {"key": self.key.view(np.int64), "ra": self.ra, "dec": self.dec, "fold": self.fold}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The inverse of `arrays`."""
        return cls(arrays["key"].view(np.uint64), *(arrays[n] for n in ("ra", "dec", "fold")))


def _place(survey: Survey, name: str) -> np.ndarray:
    values = survey.column(name).astype(np.float64)
    return np.where(np.isfinite(values), values, np.inf)
