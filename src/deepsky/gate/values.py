"""A look at pixel values: what was measured, constant, saturated, blank; inverse variances that can be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from deepsky.gate.source import Place

BLANK_TILE = 8  # pixels; isolated bad pixels and dead columns are narrower than this, chip gaps are not
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@final
@dataclass(frozen=True)
class ValueReport:
    """What the values of an image (..., y, x) look like; fractions are of all pixels.

    Parameters
    ----------
    finite : fraction that is neither NaN nor infinite.
    infinite : fraction that is +inf or -inf.
    blank : fraction that lies in blocks of 8x8 pixels without one finite value.
    saturated : fraction at or above the saturation level; without a level, at the top of an integer type.
    plateau : fraction that shares the exact maximum; more than a few pixels of a float image hint at saturation.
    low, high : the finite extremes.
    dead : numbers of the planes (leading axes flattened) that are constant or without a finite value.
    """

    finite: float
    infinite: float
    blank: float
    saturated: float
    plateau: float
    low: float
    high: float
    dead: tuple[int, ...]


def check_values(
    array: npt.ArrayLike,
    *,
    file: object = None,
    hdu: int | str | None = None,
    saturation: float | None = None,
    max_blank: float = 0.5,
    header: Mapping[str, Any] | None = None,
) -> ValueReport:
    """Look at an image's values, and refuse an image that measures nothing.

    Parameters
    ----------
    array : (..., y, x) real numbers; masked pixels of a masked array count as NaN.
    saturation : level in the array's unit at which a pixel is saturated.
    max_blank : the largest fraction of pixels that may lie in blank blocks.
    header : the image's header; with BSCALE or BZERO in it, infinite values are an overflow of the scaling.

    Raises
    ------
    InputError : no pixels, no numbers, no finite value, one constant value, values beyond float32, or too many
        blank blocks.
    """
    place = Place("(array)" if file is None else str(file), hdu)
    pixels = _numbers(array, place)
    planes = pixels.reshape((-1, *pixels.shape[-2:])) if pixels.ndim > 2 else pixels.reshape((1, *pixels.shape))
    flat = planes.reshape(len(planes), -1)
    finite = None
    with np.errstate(invalid="ignore"):
        low, high = flat.min(axis=1), flat.max(axis=1)
        if pixels.dtype.kind == "f" and not (np.isfinite(low).all() and np.isfinite(high).all()):
            finite = np.isfinite(planes)
            where = finite.reshape(flat.shape)
            low = np.min(flat, axis=1, where=where, initial=np.inf)
            high = np.max(flat, axis=1, where=where, initial=-np.inf)
    measured = pixels.size if finite is None else int(np.count_nonzero(finite))
    infinite = 0 if finite is None else int(np.count_nonzero(np.isinf(pixels)))
    bottom, top = float(low.min()), float(high.max())
    _check_overflow(bottom, top, infinite, header, place)
    if measured == 0:
        raise place.refuse(
            "the image holds no measured pixel",
            found=f"{pixels.size} of {pixels.size} pixels are NaN or infinite",
            expected="finite values",
            fix="leave the object out, or give this band ivar = 0",
        )
    if bottom == top and pixels.size > 1:
        raise place.refuse(
            "the image is constant",
            found=f"{measured} finite pixels, all {bottom:g}",
            expected="values that differ",
            fix="leave the object out, or give this band ivar = 0",
        )
    blank = 0.0 if finite is None else _blank_fraction(finite)
    if blank > max_blank:
        raise place.refuse(
            "too much of the image is blank",
            found=f"{100 * blank:.1f}% of the pixels lie in blocks without a finite value",
            expected=f"at most {100 * max_blank:g}%",
            fix="leave the object out, or raise max_blank",
        )
    level = float(np.iinfo(pixels.dtype).max) if saturation is None and pixels.dtype.kind in "iu" else saturation
    return ValueReport(
        finite=measured / pixels.size,
        infinite=infinite / pixels.size,
        blank=blank,
        saturated=0.0 if level is None or top < level else _at_least(pixels, level, finite),
        plateau=_at_least(pixels, top, finite),
        low=bottom,
        high=top,
        dead=tuple(int(n) for n in np.flatnonzero(~(low < high))) if pixels[0].size > 1 else (),
    )


def _numbers(array: npt.ArrayLike, place: Place) -> npt.NDArray[Any]:
    """Real numbers with at least one pixel, masks as NaN."""
    if isinstance(array, np.ma.MaskedArray):  # np.asarray would drop the mask
        values = np.ma.getdata(array)
        values = values if values.dtype.kind == "f" else values.astype(np.float64)
        array = np.where(np.ma.getmaskarray(array), np.nan, values)
    pixels = np.asarray(array)
    if pixels.dtype.kind not in "iufb":
        raise place.refuse(
            "the values are not real numbers", found=f"dtype {pixels.dtype}", expected="integers or floats"
        )
    if pixels.size == 0 or pixels.ndim == 0:
        raise place.refuse(
            "the image has no pixels", found=f"shape {pixels.shape}", expected="at least one pixel along each axis"
        )
    return pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels


def _at_least(pixels: npt.NDArray[Any], level: float, finite: npt.NDArray[np.bool_] | None) -> float:
    above = pixels >= level
    if finite is not None:
        above &= finite.reshape(pixels.shape)
    return int(np.count_nonzero(above)) / pixels.size


def _check_overflow(low: float, high: float, infinite: int, header: Mapping[str, Any] | None, place: Place) -> None:
    scaled = header is not None and (header.get("BSCALE", 1) != 1 or header.get("BZERO", 0) != 0)
    if max(-low, high) > _FLOAT32_MAX or (infinite and scaled):
        found = f"{infinite} infinite pixels" if infinite else f"values from {low:g} to {high:g}"
        if header is not None and scaled:
            found += f", with BSCALE = {header.get('BSCALE', 1)!r}, BZERO = {header.get('BZERO', 0)!r}"
        raise place.refuse(
            "pixel values overflow float32",
            keyword="BSCALE" if scaled else None,
            found=found,
            expected=f"absolute values up to {_FLOAT32_MAX:g}",
            fix="correct BSCALE and BZERO in the header, or write the image in another unit",
        )


def _blank_fraction(finite: npt.NDArray[np.bool_]) -> float:
    """Fraction of the pixels (plane, y, x) in blocks without a finite value; blocks at the edge may be smaller."""
    counts = finite.astype(np.int64)
    sizes = np.ones(finite.shape[1:], np.int64)
    for axis in (-2, -1)[-(finite.ndim - 1) :]:
        edges = np.arange(0, finite.shape[axis], BLANK_TILE)
        counts = np.add.reduceat(counts, edges, axis=axis)
        sizes = np.add.reduceat(sizes, edges, axis=axis)
    return float((sizes * (counts == 0)).sum() / finite.size)


def check_ivar(
    ivar: npt.ArrayLike,
    *,
    file: object = None,
    hdu: int | str | None = None,
    shape: tuple[int, ...] | None = None,
) -> None:
    """Refuse an inverse variance that is infinite, NaN or negative, or that does not fit the image.

    Parameters
    ----------
    ivar : inverse variances, in 1 / (flux unit)^2; 0 is the one and only "not measured".
    shape : of the flux, to which ivar must be broadcastable.

    Raises
    ------
    InputError : with the number of offending pixels and the first of them.
    """
    place = Place("(array)" if file is None else str(file), hdu)
    values = np.where(ivar.mask, 0, ivar.data) if isinstance(ivar, np.ma.MaskedArray) else np.asarray(ivar)
    if values.dtype.kind not in "iufb":
        raise place.refuse("ivar does not hold real numbers", found=f"dtype {values.dtype}", expected="floats >= 0")
    if shape is not None and not _broadcasts(values.shape, shape):
        raise place.refuse(
            "ivar does not fit the image",
            found=f"shape {values.shape}",
            expected=f"a shape that broadcasts to {shape}",
            fix="give the ivar plane of this very image",
        )
    with np.errstate(invalid="ignore"):
        if values.size == 0 or (values.min() >= 0 and values.max() < np.inf):
            return
    unmeasured = "set ivar to 0 where a pixel was not measured"
    for name, bad, fix in (
        ("NaN", np.isnan(values), unmeasured),
        ("infinite", np.isinf(values), f"{unmeasured}; an error of 0 is no measurement either"),
        ("negative", values < 0, f"{unmeasured}; is the plane a mask, or sky-subtracted data?"),
    ):
        if bad.any():
            first = tuple(int(n) for n in np.argwhere(bad)[0])
            raise place.refuse(
                f"ivar has {name} values",
                found=f"{int(bad.sum())} of {values.size}, the first at pixel {first}",
                expected="finite values >= 0, with 0 for 'not measured'",
                fix=fix,
            )


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return len(shape) <= len(target) and all(a in (1, b) for a, b in zip(shape[::-1], target[::-1], strict=False))
