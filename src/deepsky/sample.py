"""Objects as observed: flux, inverse variance and axis, with what is known to be true beside them.

A batch is a Sample with one more leading axis. ``ivar == 0`` is the one and only "not measured".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self, TypeVar, get_args

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

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> Sample:
        if isinstance(rows, int):
            ids: tuple[str, ...] = (self.id[rows],)
            at: Any = rows
        else:
            at = rows if isinstance(rows, slice | Tensor) else torch.as_tensor(rows, dtype=torch.int64)
            positions = torch.arange(len(self.id))[at].tolist()
            ids = tuple(self.id[i] for i in positions)
        return replace(self.map(lambda t: t[at]), id=ids)

    def observation(self, name: str) -> Observation:
        """The observation called `name`.

        Raises
        ------
        InputError : there is none of that name.
        """
        if name not in self.observations:
            raise InputError("no such observation", found=name, known=self.observations)
        return self.observations[name]


P = TypeVar("P", bound=Part)


def stack(samples: Sequence[Sample]) -> Sample:
    """Join single objects, or concatenate batches, into one batch.

    Raises
    ------
    InputError : nothing to stack, or objects whose shapes, bands or units differ.
    """
    if not samples:
        raise InputError("nothing to stack", expected="at least one Sample")
    first = samples[0]
    join: Callable[[list[Tensor]], Tensor] = torch.stack if first.key.ndim == 0 else torch.cat
    return replace(
        first,
        id=tuple(name for s in samples for name in s.id),
        key=join([s.key for s in samples]),
        ra=join([s.ra for s in samples]),
        dec=join([s.dec for s in samples]),
        observations={n: _join([s.observation(n) for s in samples], join, n) for n in first.observations},
        truth={n: _join([s.truth[n] for s in samples], join, n) for n in first.truth},
    )


def _join(parts: Sequence[P], join: Callable[[list[Tensor]], Tensor], name: str) -> P:
    first, changed = parts[0], {}
    for f in fields(first):
        values = [getattr(p, f.name) for p in parts]
        if isinstance(values[0], Tensor):
            try:
                changed[f.name] = join(values)
            except (RuntimeError, TypeError) as error:
                shapes = sorted({str(tuple(v.shape)) if isinstance(v, Tensor) else "None" for v in values})
                raise InputError(
                    f"{name}.{f.name} differs in shape between objects",
                    found=", ".join(shapes),
                    expected="one shape",
                    fix="give a size: deepsky ingest ... --size N crops or pads every image to N pixels",
                ) from error
        elif any(v != values[0] for v in values):
            raise InputError(
                f"{name}.{f.name} differs between objects", found=", ".join(sorted({str(v) for v in values}))
            )
    return replace(first, **changed)
