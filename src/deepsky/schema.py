"""What a survey holds: its observations and columns, with units, as they are written in ``schema.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from deepsky.errors import InputError

if TYPE_CHECKING:  # readers in child processes need no torch
    from deepsky.sample import Moves

Noise = Literal["measured", "estimated", "unknown"]
Role = Literal["scalar", "truth", "label"]


@dataclass(frozen=True)
class ImageSchema:
    """One image of every object.

    Attributes
    ----------
    bands : names in the order of the axis; `filters` are their SVO ids, "" where not known.
    size : (y, x) [pixel].
    pixel_scale : [arcsec], or None where it is not known or varies (then the index column ``pixel_scale``).
    unit : astropy unit string; a power of ten in it brings the median flux to order one.
    quantity : f_nu, f_lambda, counts, relative, height, ...
    noise : "measured" or "estimated" ivar, or "unknown": then ivar is only a mask of ones and zeros.
    ivar : how it is stored: for every "pixel", "band" or "object".
    dtype : of the stored flux; the gather casts to float32.
    psf : (y, x) of the stored PSF, or None.
    correlated : neighbouring pixels share noise (coadds, drizzled images).
    """

    bands: tuple[str, ...]
    size: tuple[int, int]
    unit: str = ""
    quantity: str = "relative"
    pixel_scale: float | None = None
    noise: Noise = "unknown"
    ivar: Literal["pixel", "band", "object"] = "object"
    dtype: str = "float32"
    filters: tuple[str, ...] = ()
    psf: tuple[int, int] | None = None
    correlated: bool = False
    kind: Literal["image"] = "image"

    @property
    def shape(self) -> tuple[int, ...]:
        """(band, y, x)."""
        return (len(self.bands), *self.size)


@dataclass(frozen=True)
class RowSchema:
    """Numbers of every object: `names` with their `units`; ivar is stored for every number."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    noise: Noise = "unknown"
    ivar: Literal["pixel"] = "pixel"
    dtype: str = "float32"
    psf: None = None
    kind: Literal["row"] = "row"

    @property
    def shape(self) -> tuple[int, ...]:
        """(feature,)."""
        return (len(self.names),)


ObservationSchema = ImageSchema | RowSchema


@dataclass(frozen=True)
class Column:
    """A column of the index, or a truth made of several.

    Attributes
    ----------
    role : "scalar" describes the observation, "truth" comes with a simulation, "label" from a labeller.
    moves : how a truth turns with the image (see `deepsky.sample.Truth`).
    classes : names of the classes, in the order of their codes; empty for numbers.
    parts : the columns of a truth with several components, e.g. ("e1", "e2").
    sigma, limit : the columns that hold its error and its censoring (-1, 0, +1), or "".
    array : the truth is an array for each object, stored beside the observations.
    """

    dtype: str = "float64"
    unit: str = ""
    role: Role = "scalar"
    moves: Moves = "scalar"
    classes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    sigma: str = ""
    limit: str = ""
    array: bool = False
    description: str = ""


@dataclass(frozen=True)
class Schema:
    """What a survey holds.

    Attributes
    ----------
    name : of the survey, for reports.
    observations, columns : by name.
    real : False for a simulation; stated beside every figure.
    source : where it came from, in words; `reader` the reader that understood it.
    notes : what a user ought to know (lossy compression, ids that were made, noise that was estimated).
    """

    name: str
    observations: Mapping[str, ObservationSchema]
    columns: Mapping[str, Column] = field(default_factory=dict)
    real: bool = True
    source: str = ""
    reader: str = ""
    notes: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """As JSON literals."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """Rebuild from JSON literals.

        Raises
        ------
        InputError : an observation of a kind this version does not know.
        """
        kinds = {"image": ImageSchema, "row": RowSchema}
        observations = {}
        for name, value in data["observations"].items():
            if value["kind"] not in kinds:
                raise InputError("unknown kind of observation", found=value["kind"], known=kinds)
            observations[name] = kinds[value["kind"]](**_tuples(value))
        columns = {name: Column(**_tuples(value)) for name, value in data["columns"].items()}
        rest = {k: v for k, v in _tuples(data).items() if k not in {"observations", "columns"}}
        return cls(observations=observations, columns=columns, **rest)


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
