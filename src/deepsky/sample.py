"""Objects as observed: flux, inverse variance and axis, with what is known to be true beside them.

A batch is a Sample with one more leading axis. ``ivar == 0`` is the one and only "not measured".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import index
from typing import Any, ClassVar, Literal, Self, SupportsIndex, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from deepsky.errors import InputError

Moves = Literal["scalar", "vector", "spin2", "angle", "direction", "handed", "image", "boxes", "fixed"]
MOVES: tuple[str, ...] = get_args(Moves)


@dataclass(frozen=True, eq=False)
class Part:
    """What tensors of one batch share: they are indexed, moved and stacked together."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply `function` to every tensor, and to nothing else."""
        changed = {f.name: function(v) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **changed)

    def to(self, device: torch.device | str) -> Self:
        """Move every tensor to `device`."""
        return self.map(lambda t: t.to(device))

    def __getitem__(self, rows: Any) -> Self:
        return self.map(lambda t: t[rows])


@dataclass(frozen=True, eq=False)
class Observation(Part):
    """One measurement of an object: `flux` with its inverse variance, in `unit`."""

    flux: Tensor
    ivar: Tensor
    unit: str = field(default="", kw_only=True)
    singles: ClassVar[frozenset[str]] = frozenset()  # fields with one value an object

    def __getitem__(self, rows: Any) -> Self:
        return self.spread().map(lambda t: t[rows])

    def spread(self) -> Self:
        """A batch of which every tensor has the axis of the objects, also one that was given once for all of them."""
        changed: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                axes = 1 if f.name in self.singles else self.flux.ndim
                full = value.reshape(*(1,) * (axes - value.ndim), *value.shape)
                changed[f.name] = full.expand(len(self.flux), *full.shape[1:])
        return replace(self, **changed)

    @property
    def measured(self) -> Tensor:
        """Where there is a measurement, bool, the shape of `flux`."""
        return (self.ivar > 0).expand(self.flux.shape)

    @property
    def filled(self) -> Tensor:
        """`flux` with zero where nothing was measured, so that no unmeasured value can act."""
        return torch.where(self.ivar > 0, self.flux, 0.0)


@dataclass(frozen=True, eq=False)
class Image(Observation):
    """An image in one or more bands.

    Attributes
    ----------
    flux : (..., band, y, x) float32, in `unit` a pixel.
    ivar : inverse variance [unit**-2], any shape that broadcasts to that of `flux`; 0 is "not measured".
    bands : names of the bands, in the order of the axis.
    pixel_scale : (...) [arcsec]; NaN where it is not known.
    psf : (..., band, y, x) or None, normalised to a sum of one.
    """

    bands: tuple[str, ...] = field(default=(), kw_only=True)
    pixel_scale: Tensor = field(default_factory=lambda: torch.tensor(float("nan")), kw_only=True)
    psf: Tensor | None = field(default=None, kw_only=True)
    singles: ClassVar[frozenset[str]] = frozenset({"pixel_scale"})


@dataclass(frozen=True, eq=False)
class Row(Observation):
    """Named numbers of one object (a line of a catalogue).

    Attributes
    ----------
    flux, ivar : (..., feature) float32.
    names, units : of the features, in the order of the axis.
    """

    names: tuple[str, ...] = field(default=(), kw_only=True)
    units: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True, eq=False)
class Truth(Part):
    """What is known of an object, and how it moves when the observation is turned.

    Attributes
    ----------
    value : (...) or (..., k); class codes are int64 with -1 for "no label", numbers are NaN there.
    sigma : the same shape, one standard deviation of a measured truth, or None.
    limit : the same shape or None: 0 measured, -1 the true value lies below `value`, +1 above it.
    moves : "scalar" stays; "vector" (x, y) in pixels from the centre; "spin2" (e1, e2) in the pixel frame, both also
        as two truths of one component each (e1 and e2);
        "angle" of an axis [rad or deg], counted in the sense from +x towards +y, the same after half a turn, and
        "direction" from +x towards +y, the same after a full one; "handed" stays in a turn and changes in a mirror;
        "image" (..., band, y, x); "boxes" (..., n, 4) as x0 y0 x1 y1 likewise; "fixed" has no declared behaviour and
        forbids whatever turns the image.
    classes : the names behind the codes, empty for numbers.
    """

    value: Tensor
    sigma: Tensor | None = None
    limit: Tensor | None = None
    moves: Moves = "scalar"
    unit: str = ""
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Sample:
    """Objects as observed.

    Attributes
    ----------
    id : names of the objects, one string each (one in all for a single object).
    key : (...) int64, the stable hash of the id from which every random draw about the object comes.
    ra, dec : (...) float64 ICRS [deg]; NaN where the position is not known.
    observations, truth : by name.
    """

    id: tuple[str, ...]
    key: Tensor
    ra: Tensor
    dec: Tensor
    observations: Mapping[str, Observation]
    truth: Mapping[str, Truth] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.id)

    def map(self, function: Callable[[Tensor], Tensor]) -> Sample:
        """Apply `function` to every tensor of the batch."""
        return replace(
            self,
            key=function(self.key),
            ra=function(self.ra),
            dec=function(self.dec),
            observations={name: part.map(function) for name, part in self.observations.items()},
            truth={name: part.map(function) for name, part in self.truth.items()},
        )

    def to(self, device: torch.device | str) -> Sample:
        """Move every tensor to `device`; positions stay float64."""
        return self.map(lambda t: t.to(device))

    def __getitem__(self, rows: SupportsIndex | slice | Sequence[int] | Sequence[bool] | np.ndarray | Tensor) -> Sample:
        if self.key.ndim == 0:
            return stack([self])[rows]
        at: Any = rows
        if isinstance(rows, SupportsIndex) and getattr(rows, "ndim", 0) == 0 and not isinstance(rows, bool):
            at = index(rows)
            ids: tuple[str, ...] = (self.id[at],)
        elif isinstance(rows, slice):
            ids = self.id[rows]
            at = rows if (rows.step or 1) > 0 else torch.tensor(range(len(self))[rows], dtype=torch.int64)
        else:
            at = _positions(rows, len(self))
            ids = tuple(self.id[i] for i in at.tolist())
        return replace(
            self,
            id=ids,
            key=self.key[at],
            ra=self.ra[at],
            dec=self.dec[at],
            observations={name: part[at] for name, part in self.observations.items()},
            truth={name: part[at] for name, part in self.truth.items()},
        )

    def observation(self, name: str) -> Observation:
        """The observation called `name`.

        Raises
        ------
        InputError : there is none of that name.
        """
        if name not in self.observations:
            raise InputError("no such observation", found=name, known=self.observations)
        return self.observations[name]


def _positions(rows: Any, n: int) -> Tensor:
    """(k,) int64 from positions or from a mask of `n` objects."""
    given = rows.cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
    if given.ndim == 1 and given.dtype.kind == "b":
        if len(given) != n:
            raise InputError("a mask of another length", found=len(given), expected=f"{n}, one value an object")
        return torch.from_numpy(np.flatnonzero(given))
    if given.ndim != 1 or (given.dtype.kind not in "iu" and given.size):
        raise InputError("no positions of objects", found=f"{type(rows).__name__} {rows!r}"[:80],
                         expected="a whole number, a slice, whole numbers on one axis, or a mask")  # fmt: skip
    return torch.from_numpy(given.astype(np.int64))


P = TypeVar("P", bound=Part)


def stack(samples: Sequence[Sample]) -> Sample:
    """Join single objects and batches into one batch.

    Raises
    ------
    InputError : nothing to stack, or objects whose observations, truths, shapes, bands or units differ.
    """
    if not samples:
        raise InputError("nothing to stack", expected="at least one Sample")
    batches = [_batch(s) if s.key.ndim == 0 else s for s in samples]
    first = batches[0]
    for what in ("observations", "truth"):
        known = getattr(first, what).keys()
        for other in batches:
            if getattr(other, what).keys() != known:
                raise InputError(f"{what} differ between objects", found=", ".join(getattr(other, what)) or "none",
                                 expected=", ".join(known) or "none", fix="take the same ones of all")  # fmt: skip
    return replace(
        first,
        id=tuple(name for s in batches for name in s.id),
        key=torch.cat([s.key for s in batches]),
        ra=torch.cat([s.ra for s in batches]),
        dec=torch.cat([s.dec for s in batches]),
        observations={n: _join([s.observations[n].spread() for s in batches], n) for n in first.observations},
        truth={n: _join([s.truth[n] for s in batches], n) for n in first.truth},
    )


def _batch(single: Sample) -> Sample:
    """A batch of one."""
    return replace(
        single,
        key=single.key[None],
        ra=single.ra[None],
        dec=single.dec[None],
        observations={n: replace(o, flux=o.flux[None]).spread() for n, o in single.observations.items()},
        truth={n: t.map(lambda v: v[None]) for n, t in single.truth.items()},
    )


def _join(parts: Sequence[P], name: str) -> P:
    first, changed = parts[0], {}
    for f in fields(first):
        values = [getattr(p, f.name) for p in parts]
        if len({type(v) for v in values}) == 1 and isinstance(values[0], Tensor):
            try:
                if f.name == "ivar":  # stored for every pixel of the one, once for all of the other
                    shape = np.broadcast_shapes(*(tuple(v.shape[1:]) for v in values))
                    values = [v.expand(len(v), *shape) for v in values]
                changed[f.name] = torch.cat(values)
            except (RuntimeError, ValueError) as error:
                picture = isinstance(first, Image)
                raise InputError(
                    f"{name}.{f.name} differs in shape between objects",
                    found=", ".join(sorted({str(tuple(v.shape[1:])) for v in values})),
                    expected="one shape",
                    fix="give a size: deepsky ingest ... --size N crops or pads every image to N pixels"
                    if picture
                    else None,
                ) from error
        elif any(isinstance(v, Tensor) for v in values):
            raise InputError(f"{name}.{f.name} is missing in some objects", found="None", expected="a tensor in all")
        elif any(v != values[0] for v in values):
            raise InputError(
                f"{name}.{f.name} differs between objects", found=", ".join(sorted({str(v) for v in values}))
            )
    return replace(first, **changed)
