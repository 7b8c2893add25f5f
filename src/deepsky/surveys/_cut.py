"""Cutouts of frames: whole stacks of windows at once, their inverse variance, and the noise of a sky that says none."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepsky.errors import InputError
from deepsky.gate import check_fits
from deepsky.surveys._frames import Frame
from deepsky.surveys._object import Found, Rules, weight_norm
from deepsky.surveys._planes import array, bad_bits, pick, saturated_bit, scaled, squeezed
from deepsky.surveys._zeros import COMMON, areas, share, side_of

OPEN_BYTES = 1 << 30  # of frames that stay mapped or decoded between calls
MESH = 256  # pixels: side of a cell in which the noise of the sky is one
CELL = 1024  # pixels of a cell that are looked at
AT_ONCE = 1 << 22  # pixels of windows that are searched for blank areas together


@dataclass(frozen=True, eq=False)
class Opened:
    """Pixels of a frame: as stored and mapped into memory, or decoded."""

    pixels: np.ndarray
    decoded: bool


_open: OrderedDict[tuple[str, int, int], Opened] = OrderedDict()


def opened(found: Found) -> Opened:
    """The pixels of a plane's HDU; compressed ones are decoded whole, once, and kept while there is room."""
    key = (str(found.path), found.path.stat().st_mtime_ns, found.plane.hdu)
    if key in _open:
        _open.move_to_end(key)
        return _open[key]
    hdu, layout = found.layout.hdus[found.plane.hdu], found.layout
    if "DATASUM" in hdu.header:
        check_fits(found.path, checksums="data")
    if hdu.kind == "image" and not layout.compression:
        raw = np.memmap(found.path, hdu.dtype, "r", hdu.offset, hdu.shape)
        here = Opened(np.asarray(raw).reshape(squeezed(hdu.shape)), decoded=False)
    else:
        here = Opened(array(found.path, layout, found.plane.hdu), decoded=True)
    _open[key] = here
    while len(_open) > 1 and sum(o.pixels.nbytes for o in _open.values()) > OPEN_BYTES:
        _open.popitem(last=False)
    return here


def stamps(found: Found, y0: np.ndarray, x0: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a plane.

    Parameters
    ----------
    y0, x0 : (n,) first row and column of each window; they may lie outside.

    Returns
    -------
    values : (n, y, x) in native byte order, scaled, NaN or 0 outside; a new array.
    inside : (n,) bool, windows that lie wholly on the frame.
    """
    here = opened(found)
    plane = pick(here.pixels, found.plane)
    (ny, nx), (sy, sx) = plane.shape, size
    inside = (y0 >= 0) & (x0 >= 0) & (y0 + sy <= ny) & (x0 + sx <= nx)
    if ny >= sy and nx >= sx:  # one gather; windows that stick out are mended behind it
        out = np.lib.stride_tricks.sliding_window_view(plane, size)[y0.clip(0, ny - sy), x0.clip(0, nx - sx)]
    else:
        out = np.empty((len(y0), sy, sx), plane.dtype)
    for i in np.flatnonzero(~inside):
        out[i] = 0
        a, b = max(int(y0[i]), 0), min(int(y0[i]) + sy, ny)
        c, d = max(int(x0[i]), 0), min(int(x0[i]) + sx, nx)
        if a < b and c < d:
            out[i, a - int(y0[i]) : b - int(y0[i]), c - int(x0[i]) : d - int(x0[i])] = plane[a:b, c:d]
    return (out if here.decoded else scaled(out, found.layout.hdus[found.plane.hdu])), inside


def covered(shape: tuple[int, int], y0: np.ndarray, x0: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, y, x) bool: which pixels of windows lie on the frame."""
    rows = y0[:, None] + np.arange(size[0])
    cols = x0[:, None] + np.arange(size[1])
    return ((rows >= 0) & (rows < shape[0]))[:, :, None] & ((cols >= 0) & (cols < shape[1]))[:, None, :]


@dataclass(frozen=True, eq=False)
class Cut:
    """Windows of one frame in the survey's unit: flux, ivar (0 where not measured) and saturated pixels, (n, y, x).

    What is the same in a whole window may be broadcast; `saturated` is None where nothing can be.
    """

    flux: np.ndarray
    ivar: np.ndarray
    saturated: np.ndarray | None


def joined(parts: Sequence[Cut], order: np.ndarray | None = None) -> Cut:
    """The windows of several, one after the other, or in another order."""
    flux, ivar = (np.concatenate([getattr(p, n) for p in parts]) for n in ("flux", "ivar"))
    full = None
    if any(p.saturated is not None for p in parts):
        full = np.concatenate([np.zeros(p.flux.shape, bool) if p.saturated is None else p.saturated for p in parts])
    if order is None:
        return Cut(flux, ivar, full)
    return Cut(flux[order], ivar[order], None if full is None else full[order])


def cut(frame: Frame, y0: np.ndarray, x0: np.ndarray, size: tuple[int, int], rules: Rules) -> Cut:
    """Cut windows out of a frame.

    Raises
    ------
    InputError : its noise has negative values.
    """
    raw, inside = stamps(frame.flux, y0, x0, size)
    seen = np.isfinite(raw) if raw.dtype.kind == "f" else np.ones(raw.shape, bool)
    out = np.flatnonzero(~inside)
    seen[out] &= covered(frame.shape, y0[out], x0[out], size)
    for value in rules.sentinel:
        seen &= raw != value
    if not frame.more and raw.dtype.kind == "f":
        _drop_blank(frame, raw, y0, x0, seen)
    full = saturated(frame, raw, rules)
    mask = frame.more.get("mask")
    if mask is not None:
        bits, _ = stamps(mask, y0, x0, size)
        unknown = ~np.isfinite(bits) if bits.dtype.kind == "f" else np.zeros(bits.shape, bool)
        whole = np.where(unknown, 0, bits).astype(np.int64)
        chosen = bad_bits(mask.plane.header, rules.mask_bits, mask.path)
        seen &= ~unknown & ((whole if chosen is None else whole & chosen) == 0)
        bit = saturated_bit(mask.plane.header)
        if bit:
            full = ((whole & bit) != 0) | (False if full is None else full)
    if full is not None:
        full[out] &= covered(frame.shape, y0[out], x0[out], size)
        seen &= ~full
    ivar = _noise(frame, y0, x0, size, None if seen.all() else seen)
    scale = frame.known.factor
    if scale != 1:
        raw = raw * np.float64(scale) if raw.dtype.kind != "f" else np.multiply(raw, raw.dtype.type(scale), out=raw)
        ivar = _divided(ivar, scale)
    lit = distinct(ivar) > 0
    return Cut(raw if lit.all() else np.where(lit, raw, 0), ivar, full)


def _drop_blank(frame: Frame, raw: np.ndarray, y0: np.ndarray, x0: np.ndarray, seen: np.ndarray) -> None:
    """Take the areas of zeros out of `seen`; only where a window has zeros are its surroundings read too."""
    some = np.flatnonzero((raw == 0).any(axis=(1, 2)))
    side = _sky(frame).blank if some.size else 0
    if not side:
        return
    here, wide = opened(frame.flux), (raw.shape[1] + 2 * side - 2, raw.shape[2] + 2 * side - 2)
    plane, hdu = pick(here.pixels, frame.flux.plane), frame.flux.layout.hdus[frame.flux.plane.hdu]
    for part in np.array_split(some, math.ceil(some.size * wide[0] * wide[1] / AT_ONCE)):
        first, left = y0[part] - side + 1, x0[part] - side + 1
        around, inside = stamps(frame.flux, first, left, wide)
        for i in np.flatnonzero(~inside):  # mirrored at the edges of the frame: a narrow border is an area too
            rows, cols = (_mirrored(a[i], n, m) for a, n, m in zip((first, left), wide, plane.shape, strict=True))
            around[i] = plane[np.ix_(rows, cols)] if here.decoded else scaled(plane[np.ix_(rows, cols)], hdu)
        seen[part] &= ~areas(around == 0, side)


def _mirrored(start: int, n: int, length: int) -> np.ndarray:
    """Indices start to start + n on an axis, those beyond its ends reflected."""
    at = np.arange(start, start + n) % (2 * length)
    return np.minimum(at, 2 * length - 1 - at)


def distinct(windows: np.ndarray) -> np.ndarray:
    """One pixel of each window where all of a window are one broadcast value, else all of them."""
    return windows[:, :1, :1] if windows.strides[1:] == (0, 0) else windows


def saturated(frame: Frame, raw: np.ndarray, rules: Rules) -> np.ndarray | None:
    """Pixels at the level of the option, else of the header; None where neither says one."""
    header, level = frame.flux.plane.header, rules.saturation
    if level is None:
        level = next((header[k] for k in ("SATURATE", "SATLEVEL", "SATUR_LV") if k in header), None)
    if not isinstance(level, int | float) or level <= 0:
        return None
    with np.errstate(invalid="ignore"):
        return np.asarray(raw >= level)


def _divided(ivar: np.ndarray, scale: float) -> np.ndarray:
    some = distinct(ivar)  # a product of broadcast values would write out every pixel
    with np.errstate(over="ignore"):
        out: np.ndarray = some * some.dtype.type(scale**-2)
    out = out if np.isfinite(out).all() else some.astype(np.float64) * scale**-2
    return np.broadcast_to(out, ivar.shape)


def _noise(frame: Frame, y0: np.ndarray, x0: np.ndarray, size: tuple[int, int], seen: np.ndarray | None) -> np.ndarray:
    """ivar [stored unit**-2] of windows, 0 where not `seen`; None is everywhere, and ivar may then be broadcast."""
    role = frame.noise
    if not role:
        sigma = _sky(frame).at(y0 + (size[0] - 1) / 2, x0 + (size[1] - 1) / 2)
        with np.errstate(divide="ignore"):
            weight = np.where(sigma > 0, sigma**-2.0, 0.0)
        kind = np.float32 if weight.max(initial=0.0) < 1e37 else np.float64
        each = weight.astype(kind)[:, None, None]
        return np.broadcast_to(each, (len(each), *size)) if seen is None else np.where(seen, each, kind(0))
    raw, _ = stamps(frame.more[role], y0, x0, size)
    values = raw if raw.dtype.kind == "f" else raw.astype(np.float32)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(values) & (values != 0) & (True if seen is None else seen)
        if (values[good] < 0).any():
            raise InputError(
                f"a negative {role}",
                file=frame.more[role].path,
                hdu=frame.more[role].plane.hdu,
                found=float(values[good].min()),
                expected="> 0, and 0 or NaN where there is no measurement",
            )
        power = {"ivar": 1, "weight": 1, "variance": -1, "sigma": -2}[role]
        safe = np.where(good, values, 1)
        with np.errstate(over="ignore"):
            out = np.where(good, safe ** np.asarray(power, safe.dtype), 0)
        if not np.isfinite(out).all():
            out = np.where(good, safe.astype(np.float64) ** power, 0)
    return out * out.dtype.type(_weight_norm(frame)) if role == "weight" else out


# -- noise of the sky ---------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Sky:
    """Noise of the sky [stored unit] in the cells of a frame; how large a square of zeros is if it is blank, or 0."""

    sigma: np.ndarray
    cell: tuple[float, float]
    blank: int

    def at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(n,) sigma at pixels, bilinear between the centres of the cells."""
        ny, nx = self.sigma.shape
        v = np.clip(y / self.cell[0] - 0.5, 0, ny - 1)
        u = np.clip(x / self.cell[1] - 0.5, 0, nx - 1)
        j, i = np.minimum(v.astype(int), max(ny - 2, 0)), np.minimum(u.astype(int), max(nx - 2, 0))
        j1, i1 = np.minimum(j + 1, ny - 1), np.minimum(i + 1, nx - 1)
        b, a = v - j, u - i
        s = self.sigma
        low, high = s[j, i] * (1 - a) + s[j, i1] * a, s[j1, i] * (1 - a) + s[j1, i1] * a
        return np.asarray(low * (1 - b) + high * b)


_skies: OrderedDict[tuple[str, int, int, int], Sky] = OrderedDict()
_norms: OrderedDict[tuple[str, int, int, int], float] = OrderedDict()


def _key(frame: Frame) -> tuple[str, int, int, int]:
    plane = frame.flux.plane
    index = -1 if plane.index is None else plane.index
    return str(frame.flux.path), frame.flux.path.stat().st_mtime_ns, plane.hdu, index


def _sky(frame: Frame) -> Sky:
    key = _key(frame)
    if key not in _skies:
        _skies[key] = sky(_values(frame.flux))
        while len(_skies) > 256:
            _skies.popitem(last=False)
    return _skies[key]


def _values(found: Found, step: int = 1) -> np.ndarray:
    """A plane, every `step`-th pixel, scaled."""
    here = opened(found)
    part = pick(here.pixels, found.plane)[::step, ::step]
    if here.decoded or found.layout.hdus[found.plane.hdu].scale == (1.0, 0.0):
        return part
    return scaled(part, found.layout.hdus[found.plane.hdu])


def sky(image: np.ndarray, mesh: int = MESH) -> Sky:
    """Noise of the sky of an image with objects, in cells of about `mesh` pixels.

    In each cell the scatter below the median of what is left after clipping objects at 3 sigma. NaN does not count, nor
    do areas of exact zeros in a float image: the blank parts of a mosaic.
    """
    ny, nx = max(1, round(image.shape[0] / mesh)), max(1, round(image.shape[1] / mesh))
    cy, cx = image.shape[0] // ny, image.shape[1] // nx
    step = max(1, round((cy * cx / CELL) ** 0.5))
    cells = [image[j * cy : (j + 1) * cy : step, i * cx : (i + 1) * cx] for j in range(ny) for i in range(nx)]
    values: np.ndarray = np.stack([c[:, ::step].ravel() for c in cells])
    values = values.astype(np.float64 if image.dtype.itemsize > 4 else np.float32)
    blank = _without_blank(values, cells, step) if image.dtype.kind == "f" else 0
    sigma = _below(np.sort(values, axis=1)).reshape(ny, nx)
    if not (sigma > 0).any():
        spread = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
        return Sky(np.full((ny, nx), spread), (image.shape[0] / ny, image.shape[1] / nx), blank)
    filled = _smooth(np.where(sigma > 0, sigma, float(np.median(sigma[sigma > 0]))))
    return Sky(filled, (image.shape[0] / ny, image.shape[1] / nx), blank)


def _without_blank(values: np.ndarray, cells: Sequence[np.ndarray], step: int) -> int:
    """How large blank areas are at least (`side_of`); zeros beyond their share in a cell of `values` become NaN."""
    zero = values == 0
    part = 0.0
    if zero.any():
        shift = 1 if cells[0].shape[1] > 1 else 0
        pairs = [(c[:, : c.shape[1] - shift : step], c[:, shift::step]) for c in cells]
        part = share(*(np.concatenate([p[i].ravel() for p in pairs]) for i in (0, 1)))
    if zero.any() and part <= COMMON:
        count = zero.sum(axis=1)
        expected = part / (1 - part) * (np.isfinite(values).sum(axis=1) - count)
        most = np.where(count > expected + 5 * np.sqrt(expected + 1), expected, count)
        values[zero & (zero.cumsum(axis=1) > most[:, None])] = np.nan
    good = values[np.isfinite(values)]
    return side_of(part, whole=bool((good == np.rint(good)).all()))


def _smooth(sigma: NDArray[np.float64]) -> np.ndarray:
    """The median of 3 x 3 cells: one in which a large galaxy lies takes after its neighbours."""
    wide = np.pad(sigma, 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3))
    return np.asarray(np.median(windows, axis=(2, 3)))


def _below(ordered: np.ndarray, rounds: int = 4) -> NDArray[np.float64]:
    """(cells,) scatter below the median of sorted values (cells, n), NaN last."""
    rows = np.arange(len(ordered))
    count = np.isfinite(ordered).sum(axis=1)
    sigma: NDArray[np.float64] = np.zeros(len(ordered))
    for _ in range(rounds):
        last = np.maximum(count - 1, 0)
        middle = ordered[rows, last // 2]
        sigma = (middle - ordered[rows, np.round(0.15865525 * last).astype(int)]).astype(np.float64)
        with np.errstate(invalid="ignore"):
            count = np.where(sigma > 0, (ordered <= (middle + 3 * sigma)[:, None]).sum(axis=1), count)
    return np.where((count >= 16) & np.isfinite(sigma), sigma, 0.0)


def _weight_norm(frame: Frame) -> float:
    """What turns the weights of a frame into inverse variances, from every so many-th pixel."""
    key = _key(frame)
    if key not in _norms:
        step = max(1, round((frame.shape[0] * frame.shape[1] / 2e5) ** 0.5))
        flux, weight = (np.asarray(_values(f, step), np.float64) for f in (frame.flux, frame.more["weight"]))
        good = np.isfinite(flux) & np.isfinite(weight) & (weight > 0)
        _norms[key] = weight_norm(np.where(good, flux, 0), np.where(good, weight, 0))
    return _norms[key]


def corners(x: np.ndarray, y: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(y0, x0) of the windows whose middles lie nearest to pixels (x, y); astropy's `Cutout2D` takes the same ones.

    A tie, which the last bits of a projection would settle at random, goes to the lower pixel.
    """
    y0 = np.ceil(y - size[0] / 2 - 1e-6).astype(np.int64)
    x0 = np.ceil(x - size[1] / 2 - 1e-6).astype(np.int64)
    return y0, x0


def groups_of(keys: np.ndarray) -> Sequence[np.ndarray]:
    """Rows of equal keys, in the order in which they first occur."""
    if len(keys) == 0:
        return []
    order = np.argsort(keys, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    return sorted(pieces, key=lambda p: int(p[0]) if len(p) else 0)
