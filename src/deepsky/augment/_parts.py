"""Shared parts of the augmentations: the images of a batch, and how each kind of truth moves when they are turned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from deepsky.errors import InputError
from deepsky.sample import MOVES, Image, Sample, Truth
from deepsky.units import FULL_TURN


def images(sample: Sample) -> dict[str, Image]:
    """The images of a batch, by name.

    Raises
    ------
    InputError : a single object, or a batch without an image.
    """
    if sample.key.ndim != 1:
        raise InputError("augmentations take a batch, not a single object", fix="sample[[0]] is a batch of one")
    found = {name: part for name, part in sample.observations.items() if isinstance(part, Image)}
    if not found:
        raise InputError("there is no image to augment", known=sample.observations, fix="leave the augmentation out")
    return {name: replace(part, ivar=_whole(part)) for name, part in found.items()}


def _whole(image: Image) -> Tensor:
    """Inverse variances with all of y and x, or with neither."""
    size = image.flux.shape[-2:]
    return image.ivar if image.ivar.shape[-2:] in {size, (1, 1)} else image.ivar.expand(*image.ivar.shape[:-2], *size)


def changed(sample: Sample, changes: Mapping[str, Image], truth: Mapping[str, Truth] | None = None) -> Sample:
    """`sample` with some of its images, and all of its truth, replaced."""
    return replace(
        sample, observations={**sample.observations, **changes}, truth=dict(sample.truth if truth is None else truth)
    )


def at_least(value: float, low: float, name: str, high: float = math.inf) -> None:
    """Check a setting.

    Raises
    ------
    InputError : it is not a number from `low` to `high`.
    """
    if not (low <= value <= high and math.isfinite(value)):
        expected = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
        raise InputError("an augmentation's setting is out of range", keyword=name, found=value, expected=expected)


def column(values: Tensor, like: Tensor) -> Tensor:
    """(n,) as float32 (n, 1, ...), on the device and with as many axes as `like`."""
    return values.to(like.device, torch.float32).reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True, eq=False)
class Turn:
    """A mirroring of y (where `mirror` is -1), then a rotation from +x towards +y, for each object: three (n,) tensors.

    A point at angle phi comes to mirror * phi + theta, hence an ellipse of spin 2 to mirror * 2 phi + 2 theta. The
    cosines and sines of 90 degree turns are whole numbers, and so are those of twice the angle: such turns are exact.
    """

    cos: Tensor
    sin: Tensor
    mirror: Tensor

    def matrix(self, spin: int = 1) -> Tensor:
        """(n, 2, 2): what (x, y), or (e1, e2) for `spin` 2, is multiplied with."""
        c, s = self.cos, self.sin
        if spin == 2:
            c, s = c * c - s * s, 2 * s * c
        return torch.stack([torch.stack([c, -s * self.mirror], -1), torch.stack([s, c * self.mirror], -1)], -2)

    @property
    def exact(self) -> bool:
        """Whether every turn is by a multiple of 90 degrees."""
        return bool(((self.cos * self.sin) == 0).all())


def turned(truths: Mapping[str, Truth], turn: Turn, maps: Callable[[Truth], Truth], what: str) -> dict[str, Truth]:
    """All truths of a batch after `turn`; `maps` turns those that are images.

    Raises
    ------
    InputError : a column whose behaviour is not declared, or whose shape or censoring does not allow the turn.
    """
    return moved(truths, lambda name, truth: _turned(name, truth, turn, maps, what))


def moved(truths: Mapping[str, Truth], move: Callable[[str, Truth], Truth]) -> dict[str, Truth]:
    """All truths of a batch after `move`, which gets the two components of one thing (e1 and e2) as one truth."""
    made = dict(truths)
    together = pairs(truths)
    for name in truths:
        if name in together:
            second = together[name]
            both = move(f"{name}, {second}", _joined(truths[name], truths[second]))
            made[name], made[second] = both.map(lambda t: t[..., 0]), both.map(lambda t: t[..., 1])
        elif name not in together.values():
            made[name] = move(name, truths[name])
    return made


def pairs(truths: Mapping[str, Truth]) -> dict[str, str]:
    """Of components that are truths of their own, the second by the first: names that differ by 1 and 2, or x and y."""
    alone = [n for n, t in truths.items() if t.moves in {"vector", "spin2"} and t.value.ndim == 1]
    return {a: b for a in alone for b in alone if truths[a].moves == truths[b].moves and _follows(a, b)}


def _follows(first: str, second: str) -> bool:
    other = [(a, b) for a, b in zip(first, second, strict=False) if a != b]
    return len(first) == len(second) and other in ([("1", "2")], [("x", "y")], [("X", "Y")])


def _joined(first: Truth, second: Truth) -> Truth:
    """Two components as one truth of two; an error or limit that one of them lacks is 0."""

    def both(one: Tensor | None, two: Tensor | None) -> Tensor | None:
        if one is None or two is None:
            known = two if one is None else one
            return None if known is None else torch.stack([k if k is not None else 0 * known for k in (one, two)], -1)
        return torch.stack([one, two], -1)

    return replace(first, value=torch.stack([first.value, second.value], -1), sigma=both(first.sigma, second.sigma),
                   limit=both(first.limit, second.limit))  # fmt: skip


def _turned(name: str, truth: Truth, turn: Turn, maps: Callable[[Truth], Truth], what: str) -> Truth:
    if truth.moves == "scalar":
        return truth
    if truth.moves == "fixed":
        raise InputError(
            f"{what} would turn the image, and nothing says how the target turns with it", keyword=name, found="fixed",
            expected="a declared behaviour", known=[m for m in MOVES if m != "fixed"],
            fix=f"in the label table call it {name}:scalar if turning the image does not change it, or {name}:angle, "
                f"...; or leave {what} out",
        )  # fmt: skip
    if truth.moves == "handed":
        if bool((turn.mirror < 0).any()):
            raise InputError(f"{what} would mirror the image, and the target with it", keyword=name, found="handed",
                             fix="dihedral(flips=False), or rotation; or in the label table call it "
                             f"{name}:scalar if a mirror does not change it")  # fmt: skip
        return truth
    if truth.moves == "image":
        return maps(truth)
    if truth.moves in {"angle", "direction"}:
        full = period(name, truth)
        theta = torch.atan2(turn.sin.double(), turn.cos.double()) * (_full_turn(name, truth) / (2 * math.pi))
        value = column_like(turn.mirror, truth.value) * truth.value.double() + column_like(theta, truth.value)
        limit = None if truth.limit is None else (truth.limit * column_like(turn.mirror, truth.limit)).to(truth.limit)
        return replace(truth, value=value.remainder(full).to(truth.value.dtype), limit=limit)
    if truth.moves == "boxes":
        return _boxes(name, truth, turn)
    matrix = turn.matrix(2 if truth.moves == "spin2" else 1)
    if truth.value.ndim < 2 or truth.value.shape[-1] != 2:
        components = "e1, e2" if truth.moves == "spin2" else "x, y"
        raise InputError(f"a {truth.moves} has two components", keyword=name, found=tuple(truth.value.shape),
                         expected=f"(n, 2): {components}",
                         fix=f"name both components as targets ({components}), or call it {name}:fixed in the label "
                         "table: then nothing turns the image")  # fmt: skip
    limit = truth.limit
    if limit is not None and bool(limit.any()):
        if not turn.exact:
            raise InputError("a limit on one component means nothing after an arbitrary rotation", keyword=name,
                             fix="use dihedral, which only swaps and mirrors components")  # fmt: skip
        limit = _times(matrix, limit.double()).to(limit.dtype)
    sigma = None if truth.sigma is None else _times(matrix.square(), truth.sigma.double().square()).sqrt()
    return replace(
        truth,
        value=_times(matrix, truth.value.double()).to(truth.value.dtype),
        sigma=None if sigma is None else sigma.to(truth.value.dtype),
        limit=limit,
    )


def period(name: str, truth: Truth) -> float:
    """After how much an angle is the same again, in its unit: half a turn for an axis, a full one for a direction.

    Raises
    ------
    InputError : its unit is not known.
    """
    return _full_turn(name, truth) / (2 if truth.moves == "angle" else 1)


def _full_turn(name: str, truth: Truth) -> float:
    if truth.unit not in FULL_TURN:
        raise InputError(
            "an angle that turns with the image needs a unit", keyword=name, found=truth.unit or "none",
            expected="deg or rad",
            fix=f"call it {name}_deg or {name}_radian in the label table, or give the unit there (ECSV, FITS, VOTable)",
        )  # fmt: skip
    return FULL_TURN[truth.unit]


def column_like(values: Tensor, like: Tensor) -> Tensor:
    """(n,) as float64 (n, 1, ...), with as many axes as `like`."""
    return values.to(like.device, torch.float64).reshape(-1, *[1] * (like.ndim - 1))


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    return torch.einsum("nij,n...j->n...i", matrix.to(vectors), vectors)


def _boxes(name: str, truth: Truth, turn: Turn) -> Truth:
    """The smallest upright boxes around the turned ones: the same boxes for 90 degrees, larger ones between."""
    if truth.sigma is not None or truth.limit is not None or truth.value.ndim < 2 or truth.value.shape[-1] != 4:
        raise InputError("boxes that turn are x0 y0 x1 y1 without errors or limits", keyword=name,
                         found=tuple(truth.value.shape))  # fmt: skip
    corners = truth.value.double()[..., [[0, 1], [2, 1], [0, 3], [2, 3]]]
    moved = _times(turn.matrix(), corners)
    return replace(truth, value=torch.cat([moved.amin(-2), moved.amax(-2)], -1).to(truth.value.dtype))


# -- turns by 90 degrees, which interpolate nothing -------------------------------------------------------------
Groups = list[tuple[int, Tensor]]


def groups(element: np.ndarray) -> Groups:
    """The rows that share an element (0 to 7: a flip of x from 4 on, then element % 4 turns of ``rot90``)."""
    return [(g, torch.from_numpy(rows)) for g in range(8) if len(rows := np.flatnonzero(element == g))]


def quarter_turned(x: Tensor, groups: Groups) -> Tensor:
    """(n, ..., y, x) with the objects of each group turned; what is constant over the pixels is returned as it is."""
    if x.shape[-2:] == (1, 1):
        return x
    made = torch.empty_like(x, memory_format=torch.contiguous_format)
    for element, rows in groups:
        rows = rows.to(x.device)
        some = x.index_select(0, rows)
        seen = torch.rot90(some.flip(-1) if element >= 4 else some, element % 4, (-2, -1))
        made.index_copy_(0, rows, seen.contiguous())
    return made
