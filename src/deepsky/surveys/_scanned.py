"""What the readers of many files share: a list of objects that stays behind when the source goes to a child process."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.source import Block, Rejected, Source

SAMPLE = 64  # files that are looked at before an ingest; all of them where there are at most ALL
ALL = 2000
AGREE = 0.95  # share of the files that decide for all; the others are set aside


@dataclass(frozen=True, eq=False)
class Scanned(Source):
    """A source whose objects were listed when it was opened.

    Attributes
    ----------
    listing : private columns of every object; empty in a child process, which gets its rows from `items`.
    """

    listing: pa.Table = field(repr=False)

    @abstractmethod
    def scan(self) -> tuple[pa.Table, tuple[Rejected, ...]]:
        """The table of `items` and the objects that were set aside while it was made."""

    @cached_property
    def _found(self) -> tuple[pa.Table, tuple[Rejected, ...]]:
        return self.scan()

    def items(self) -> pa.Table:
        """One row an object (see `deepsky.source.Source`)."""
        return self._found[0]

    def rejected(self) -> tuple[Rejected, ...]:
        """Objects set aside before any pixel was read."""
        return self._found[1]

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k != "_found"}
        return {**state, "listing": self.listing.slice(0, 0)}


def sample_rows(n: int) -> np.ndarray:
    """Which of `n` files to look at: all of them up to 2,000, else 64 spread evenly."""
    return np.arange(n) if n <= ALL else np.unique(np.linspace(0, n - 1, SAMPLE).astype(np.int64))


def one_shape(shapes: Sequence[tuple[int, int]], file: object) -> tuple[int, int]:
    """(y, x) of the images: of all, or of 95% of them.

    Raises
    ------
    InputError : fewer agree.
    """
    different, counts = np.unique(np.asarray(shapes), axis=0, return_counts=True)
    order = np.argsort(-counts)
    if counts[order[0]] >= AGREE * counts.sum():
        return int(different[order[0], 0]), int(different[order[0], 1])
    found = ", ".join(f"{counts[i]} of {different[i, 0]}x{different[i, 1]}" for i in order[:4])
    more = f" and {len(order) - 4} other shapes" if len(order) > 4 else ""
    side = int(np.percentile(np.repeat(different.min(axis=1), counts), 50, method="lower"))  # the side of some image
    raise InputError(
        "mixed shapes without a rule", file=file, found=f"{found}{more} (y x x)",
        expected=f"one shape, or one of {AGREE:.0%} of them",
        fix=f"size={side} (--size {side}) crops or pads every image about its centre",
    )  # fmt: skip


def as_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """(y, x) of a size option: a number is a square.

    Raises
    ------
    InputError : it is not positive.
    """
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if min(pair) < 1:
        raise InputError("an image needs at least one pixel", keyword="size", found=size, expected="1 or more")
    return pair


def place(image: np.ndarray, size: tuple[int, int], fill: float = 0) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Crop or pad the last two axes about the centre.

    Where the difference is odd the extra row lies at the far end, so that the middle of an odd image stays there.

    Returns
    -------
    image : (..., y, x) of the new size.
    inside : the part of it that came from the input.
    """
    cut, inside = [], []
    for old, new in zip(image.shape[-2:], size, strict=True):
        low = (old - 1) // 2 - (new - 1) // 2
        start, stop = max(low, 0), min(low + new, old)
        cut.append(slice(start, stop))
        inside.append(slice(start - low, stop - low))
    if image.shape[-2:] == size:
        return image, (slice(0, size[0]), slice(0, size[1]))
    out = np.full((*image.shape[:-2], *size), fill, dtype=image.dtype)
    out[..., inside[0], inside[1]] = image[..., cut[0], cut[1]]
    return out, (inside[0], inside[1])


def block(
    ids: Sequence[str], arrays: Mapping[str, list[np.ndarray]], columns: Mapping[str, list[float]],
    rejected: Sequence[Rejected], empty: Mapping[str, np.ndarray],
) -> Block:  # fmt: skip
    """Stack what was read object by object; `empty` gives shape and type where nothing was."""
    return Block(
        tuple(ids),
        {n: np.stack(v) if v else empty[n] for n, v in arrays.items()},
        {n: np.asarray(v, np.float32) for n, v in columns.items()},
        tuple(rejected),
    )
