"""Numbers as they are stored: units with a power of ten, types that can hold them, inverse variances. No torch here."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np

from deepsky.errors import InputError
from deepsky.schema import ObservationSchema

FULL_TURN = {"deg": 360.0, "degree": 360.0, "degrees": 360.0, "rad": 2 * math.pi, "radian": 2 * math.pi}


def stored_ivar(ivar: np.ndarray, shape: tuple[int, ...], rule: ObservationSchema) -> np.ndarray:
    """Inverse variance in the schema's storage, float32, refused where it is no inverse variance.

    Raises
    ------
    InputError : it is negative, infinite or NaN, or finer than the schema's storage.
    """
    if not np.isfinite(ivar).all() or (ivar < 0).any():
        raise InputError("ivar is not an inverse variance", found=_worst(ivar), expected="finite, 0 where not measured")
    out = ivar.astype(np.float32)
    if not np.isfinite(out).all():
        raise InputError("ivar does not fit float32", found=float(ivar.max()), expected="less than 3e38",
                         fix="give the flux in a unit in which it is of order one")  # fmt: skip
    if rule.ivar == "pixel":
        return np.ascontiguousarray(np.broadcast_to(out.reshape(*out.shape, *(1,) * (len(shape) - out.ndim)), shape))
    keep = 2 if rule.ivar == "band" else 1
    out = out.reshape(*out.shape, *(1,) * (len(shape) - out.ndim))
    if max(out.shape[keep:], default=1) > 1:
        raise InputError("ivar varies too finely", found=out.shape, expected=f"one value for each {rule.ivar}")
    target = (shape[0], *shape[1:keep])
    return np.ascontiguousarray(np.broadcast_to(out.reshape(out.shape[:keep]), target))


def _worst(ivar: np.ndarray) -> str:
    bad = ivar[~np.isfinite(ivar) | (ivar < 0)]
    return f"{bad.flat[0]} and {bad.size - 1} more"


def cast(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values in another type, refused where it cannot hold them.

    Raises
    ------
    InputError : a finite value becomes infinite or wraps around.
    """
    kind = np.dtype(dtype)
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            out = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf).astype(kind)
        if not np.isfinite(out).all():
            raise InputError(f"a flux does not fit {dtype}", found=float(np.abs(values).max()),
                             expected=f"<= {np.finfo(kind).max}", fix="dtype='float32'")  # fmt: skip
        return np.asarray(out)
    bounds = np.iinfo(kind)
    if values.size and (np.nanmin(values) < bounds.min or np.nanmax(values) > bounds.max):
        raise InputError(f"a flux does not fit {dtype}", found=f"{values.min()} to {values.max()}",
                         expected=f"{bounds.min} to {bounds.max}", fix="dtype='float32'")  # fmt: skip
    return np.asarray(values.astype(kind))


# -- units ------------------------------------------------------------------------------------------------
def power_of_ten(flux: np.ndarray, ivar: np.ndarray | None = None, *, low: float = 1e-3, high: float = 1e4) -> int:
    """The exponent that brings the median of abs(flux) to order one, 0 where it lies within [low, high]."""
    good = np.isfinite(flux) & (flux != 0)
    if ivar is not None:
        good &= np.broadcast_to(ivar, flux.shape) > 0
    if not good.any():
        return 0
    median = float(np.median(np.abs(flux[good])))
    return 0 if low <= median <= high or median == 0 else round(math.log10(median))


def scaled_unit(unit: str, exponent: int) -> str:
    """The unit times a power of ten, as an astropy string."""
    if exponent == 0:
        return unit
    from astropy import units as u

    try:
        return str((u.Unit(f"1e{exponent}") * u.Unit(unit or "")).to_string())
    except ValueError:  # a name that astropy does not know, such as "nanomaggy" of an unknown survey
        return f"1e{exponent} {unit}"


def unit_factor(unit: str, to: str) -> float:
    """What a number in `unit` is multiplied with to be in `to`.

    Raises
    ------
    InputError : the units do not convert into each other.
    """
    if unit == to:
        return 1.0
    if to.endswith(f" {unit}") and to.startswith("1e"):
        return 10.0 ** -int(to.split(" ", 1)[0][2:])
    from astropy import units as u

    try:
        return float(u.Unit(unit or "").to(u.Unit(to or "")))
    except (ValueError, u.UnitConversionError, TypeError) as error:
        raise InputError("a unit that does not convert", found=unit or "(none)", expected=to or "(none)",
                         fix="give the unit of the source: --unit nJy") from error  # fmt: skip


def checksums(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n,) uint32 CRC-32 of the bytes of each object, in the order of the arrays' names."""
    blocks = [np.ascontiguousarray(arrays[name]) for name in sorted(arrays)]
    out = np.zeros(len(blocks[0]), np.uint32)
    for i in range(len(out)):
        value = 0
        for block in blocks:
            value = zlib.crc32(block[i : i + 1].data, value)
        out[i] = value
    return out
