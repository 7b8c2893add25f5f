"""Which of several arrays holds the images, their errors, ids, positions and labels, and how the axes lie."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.schema import Column
from deepsky.surveys import _columns
from deepsky.surveys._held import Held, InMemory, in_memory, joined
from deepsky.tables import array, with_units

IMAGES = ("images", "image", "flux", "data", "x", "cutouts", "stamps", "imgs", "img", "pixels")
IVAR = ("ivar", "invvar", "inverse_variance", "weight", "weights", "wht")
SIGMA = ("sigma", "error", "err", "errors", "std", "noise", "rms", "uncertainty")
VARIANCE = ("variance", "var")
MASK = ("mask", "masks", "dq", "bad", "badpix")
PSF = ("psf", "psfs")
IDS = ("id", "ids", "object_id", "objid", "name", "names", "dr7objid", "source_id", "filename", "filenames", "files")
LABELS = ("y", "label", "labels", "target", "targets", "ans", "class", "classes", "fine_labels", "coarse_labels")
NAMES = ("class_names", "label_names", "names_of_classes", "classes_names", "fine_label_names")
BANDS = ("bands", "filters", "filter_names", "band_names")
SCALE = ("pixel_scale", "pxscale", "pixscale", "pixelscale")
SPLIT = re.compile(
    r"^(?:(.*?)[_\-/ ]?)(train|test|valid|validation|val)$|^(train|test|valid|validation|val)[_\-/ ](.*)$", re.I
)
MOST_BANDS = 16


@dataclass(frozen=True, eq=False)
class Plan:
    """What every array is.

    Attributes
    ----------
    name : of the array of images.
    images, ivar, sigma, variance, mask, psf : the arrays.
    last : whether the bands are the last axis.
    shape : (band, y, x), whatever the axes of the array.
    listing : columns of every object: id, ra, dec and the others.
    """

    name: str
    images: Held
    last: bool
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    bands: tuple[str, ...]
    listing: Mapping[str, Any]
    columns: Mapping[str, Column]
    notes: tuple[str, ...]
    masked: bool = False
    ivar: Held | None = None
    sigma: Held | None = None
    variance: Held | None = None
    mask: Held | None = None
    psf: Held | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(y, x)."""
        return self.shape[1], self.shape[2]

    @property
    def psf_size(self) -> tuple[int, int] | None:
        """(y, x) of the PSFs."""
        return None if self.psf is None else (self.psf.shape[-2], self.psf.shape[-1])

    def planes(self, held: Held, at: np.ndarray) -> np.ndarray:
        """(n, band, y, x), or what broadcasts to it, of one of the arrays."""
        values = held.rows(at)
        band, y, x = self.shape
        if values.ndim == 2 and values.shape[1] == band * y * x and held.shape[1] != band:
            values = values.reshape(len(at), y, x, band) if self.last else values.reshape(len(at), band, y, x)
        if values.ndim == 4:
            return values.transpose(0, 3, 1, 2) if self.last else values
        if values.ndim == 3:
            return values[:, None]
        return values.reshape(*values.shape, *(1,) * (4 - values.ndim))


def understand(
    held: Mapping[str, Held],
    where: str,
    *,
    images: str | None = None,
    layout: str | None = None,
    shape: Sequence[int] | None = None,
    bands: Sequence[str] | None = None,
    id: str | None = None,
    ra: str | None = None,
    dec: str | None = None,
    ra_unit: str | None = None,
) -> Plan | None:
    """Find out what each array is; None where there are no images.

    Raises
    ------
    InputError : the choice is open, or arrays do not belong together.
    """
    if images is not None and images not in held:
        raise InputError("no such array", file=where, found=images, known=held)
    notes: list[str] = []
    held = joined_splits(held, images, where, notes)
    key = _images_of(held, images, shape, where)
    if key is None:
        return None
    main = held[key]
    named = _named(held, BANDS)
    if bands is None and named is not None and len(held[named].shape) == 1:
        bands = [str(_text(v)) for v in held[named].whole()]
    if len(main.shape) == 3 and bands is not None and len(bands) == main.shape[0] > 1 and named is not None:
        raise InputError("one object in several bands, and not several objects", file=where, keyword=key,
                         found=main.shape, expected="(object, band, y, x)",
                         fix="images[None] is one object of shape (1, band, y, x)")  # fmt: skip
    _refuse_last(main, held, key, where)
    last, full = _axes(main, layout, shape, bands, key, where)
    chosen = tuple(bands) if bands is not None else band_names(full[0], main.dtype)
    if len(chosen) != full[0]:
        raise InputError("wrong number of bands", file=where, found=", ".join(chosen), expected=f"{full[0]} names")
    n = main.shape[0]
    if n == 0:
        raise InputError("an array without objects", file=where, keyword=key, found=main.shape)
    extra = {}
    for role, words in (("ivar", IVAR), ("sigma", SIGMA), ("variance", VARIANCE), ("mask", MASK), ("psf", PSF)):
        name = _named(held, words)
        if (
            name is not None
            and name != key
            and held[name].shape[0] == n
            and (role != "mask" or len(held[name].shape) > 1)
        ):
            extra[role] = (name, held[name])
            if role not in {"psf"}:
                _fits(held[name], full, last, name, where)
    used = {key, named, *(name for name, _ in extra.values())}
    beside = {k: h for k, h in held.items() if k not in used}
    by_role = {
        "id": _given(id, beside, n, where) or _named(beside, IDS),
        "ra": _given(ra, beside, n, where) or _named(beside, ("ra",)),
        "dec": _given(dec, beside, n, where) or _named(beside, ("dec", "de")),
    }
    listing, columns = _listing(beside, by_role, ra_unit, n, where, notes)
    masked = isinstance(main, InMemory) and np.ma.isMaskedArray(main.data)
    roles = {role: one for role, (_, one) in extra.items()}
    kind = _stored(main.dtype, notes)
    return Plan(key, main, last, full, kind, chosen, listing, columns, tuple(notes), masked=masked, **roles)


def _named(held: Mapping[str, Held], words: Sequence[str]) -> str | None:
    low = {k.lower().rsplit("/", 1)[-1]: k for k in held}
    return next((low[w] for w in words if w in low), None)


def _given(name: str | None, held: Mapping[str, Held], n: int, where: str) -> str | None:
    """The array of a user's choice, with one value an object."""
    if name is None:
        return None
    if name not in held:
        raise InputError("no such array", file=where, found=name, known=held)
    if held[name].shape not in {(n,), (n, 1)}:
        raise InputError("not one value an object", file=where, keyword=name, found=held[name].shape, expected=(n,))
    return name


def joined_splits(held: Mapping[str, Held], images: str | None, where: str, notes: list[str]) -> dict[str, Held]:
    """``x_train`` and ``x_test`` become ``x`` and a column ``split``."""
    groups: dict[str, dict[str, str]] = {}
    for key in held:
        found = SPLIT.match(key)
        if found and key != images:
            stem = (found[1] or found[4] or "").strip("_-/ ")
            groups.setdefault(stem, {})[(found[2] or found[3]).lower()] = key
    groups = {s: g for s, g in groups.items() if len(g) > 1}
    if not groups:
        return dict(held)
    order = max(groups.values(), key=len)
    out = {k: h for k, h in held.items() if k not in {k for g in groups.values() for k in g.values()}}
    lengths: dict[str, int] = {}
    for stem, group in groups.items():
        if group.keys() == order.keys():
            parts = [held[group[s]] for s in order]
            out[stem or "images"] = joined(parts, stem, where)
            lengths |= {s: p.shape[0] for s, p in zip(order, parts, strict=True)}
    out["split"] = in_memory(np.repeat(np.array(list(lengths)), list(lengths.values())))
    notes.append(f"joined {', '.join(lengths)}: the split is the column 'split' (fold_column='split')")
    return out


def _images_of(held: Mapping[str, Held], wanted: str | None, shape: Sequence[int] | None, where: str) -> str | None:
    if wanted is not None and wanted in held:
        return wanted
    flat = {k for k, h in held.items() if shape is not None and len(h.shape) == 2 and h.shape[1] == int(np.prod(shape))}
    numbers = [k for k, h in held.items() if h.dtype.kind in "biuf" and (len(h.shape) in (3, 4) or k in flat)]
    aside = {*IVAR, *SIGMA, *VARIANCE, *MASK, *PSF}
    found = [k for k in numbers if k.lower().rsplit("/", 1)[-1] not in aside] or numbers
    if not found:
        odd = [k for k, h in held.items() if len(h.shape) > 4]
        if odd:
            raise InputError("arrays with too many axes", file=where, keyword=odd[0], found=held[odd[0]].shape,
                             expected="(object, y, x), (object, band, y, x) or (object, y, x, band)")  # fmt: skip
        return None
    plain = _named({k: held[k] for k in found}, IMAGES)
    if plain is not None:
        return plain
    if len(found) > 1:
        shapes = ", ".join(f"{k} {held[k].shape}" for k in found)
        raise InputError("several arrays could be the images", file=where, found=shapes, fix=f"images={found[0]!r}")
    return found[0]


def _refuse_last(main: Held, held: Mapping[str, Held], key: str, where: str) -> None:
    """Refuse images whose objects are the last axis, as MATLAB writes them: the labels tell."""
    counts = {h.shape[0] for k, h in held.items() if h.shape and k.lower().rsplit("/", 1)[-1] in LABELS}
    if len(main.shape) > 2 and main.shape[0] not in counts and main.shape[-1] in counts:
        raise InputError("the objects are the last axis", file=where, keyword=key, found=main.shape,
                         expected=f"({main.shape[-1]}, ...), as many as labels",
                         fix="numpy.moveaxis(images, -1, 0)")  # fmt: skip


def _axes(
    main: Held, layout: str | None, shape: Sequence[int] | None, bands: Sequence[str] | None, key: str, where: str
) -> tuple[bool, tuple[int, int, int]]:
    """Whether the bands are last, and (band, y, x)."""
    known = ("bands-first", "bands-last")
    if layout is not None and layout not in known:
        raise InputError("no such layout", file=where, found=layout, known=known)
    axes = tuple(shape) if len(main.shape) == 2 and shape is not None else main.shape[1:]
    if len(axes) == 2:
        return False, (1, int(axes[0]), int(axes[1]))
    a, b, c = (int(v) for v in axes)
    first, last = a <= MOST_BANDS < min(b, c), c <= MOST_BANDS < min(a, b)
    if bands is not None and layout is None:
        first, last = first or (a == len(bands) != c), last or (c == len(bands) != a)
    if layout is None and first == last:
        if a < min(b, c) or b == c != a:
            first, last = True, False
        elif c < min(a, b) or a == b != c:
            first, last = False, True
    if layout is None and first == last:
        raise InputError("bands first or bands last?", file=where, keyword=key, found=main.shape,
                         fix="layout='bands-first' or layout='bands-last'")  # fmt: skip
    is_last = layout == "bands-last" if layout is not None else last
    return is_last, (c, a, b) if is_last else (a, b, c)


def band_names(n: int, dtype: np.dtype[Any]) -> tuple[str, ...]:
    """Names of bands that have none: three of eight bits are a picture's."""
    if n == 3 and dtype.itemsize == 1:
        return ("R", "G", "B")
    return ("band",) if n == 1 else tuple(f"band{i + 1}" for i in range(n))


def quantity_of(told: str, unit: str, dtype: np.dtype[Any]) -> str:
    """What pixels without a unit are: integers count, but for those of a picture."""
    return "counts" if told == "relative" and not unit and dtype.kind in "iu" and dtype.itemsize > 1 else told


def _stored(dtype: np.dtype[Any], notes: list[str]) -> np.dtype[Any]:
    if dtype.kind == "b":
        return np.dtype("uint8")
    if dtype.kind in "iu" and dtype.itemsize > 2:
        notes.append(f"{dtype} is stored as float32: integers above 16,777,216 are rounded")
        return np.dtype("float32")
    return np.dtype("float32") if dtype.kind == "f" and dtype.itemsize > 4 else np.dtype(dtype.newbyteorder("="))


def _fits(one: Held, full: tuple[int, int, int], last: bool, name: str, where: str) -> None:
    band, y, x = full
    good = {(band, y, x), (y, x), (y, x, band), (band,), (band * y * x,), (), (1, y, x)}
    if one.shape[1:] not in good:
        raise InputError(f"{name!r} does not fit the images", file=where, found=one.shape,
                         expected=f"{(one.shape[0], *((y, x, band) if last else full))}")  # fmt: skip


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _listing(
    held: Mapping[str, Held],
    by_role: Mapping[str, str | None],
    ra_unit: str | None,
    n: int,
    where: str,
    notes: list[str],
) -> tuple[dict[str, Any], dict[str, Column]]:
    """Ids, positions and columns from the arrays with one value (or a few) an object."""
    listing: dict[str, Any] = {}
    columns: dict[str, Column] = {}
    sky: dict[str, Any] = {}
    names = _named(held, NAMES)
    classes = [str(_text(v)) for v in held[names].whole()] if names is not None and held[names].shape[0] != n else None
    for key, one in held.items():
        if key == names and classes is not None:
            continue
        if not one.shape or one.shape[0] != n:
            if (
                one.shape
                and one.shape[0] > 1
                and len(one.shape) == 1
                and one.dtype.kind in "iufb"
                and key.lower() in LABELS
            ):
                raise InputError("labels and images differ in number", file=where, keyword=key, found=one.shape[0],
                                 expected=n, fix="save the labels of these images, a row each")  # fmt: skip
            notes.append(f"array {key!r} {one.shape} was left out")
            continue
        if len(one.shape) > 2 or (len(one.shape) == 2 and one.shape[1] > 64):
            notes.append(f"array {key!r} {one.shape} was left out")
            continue
        values = one.whole()
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        role = next((r for r, k in by_role.items() if k == key), None)
        if role == "id" and values.ndim == 1:
            listing["id"] = pa.array(_columns.ids(pa.table({key: array(values)}), key, where), pa.string())
            continue
        if role is not None and values.ndim == 1:
            sky[key] = array(values, key)
            continue
        low = key.lower().rsplit("/", 1)[-1]
        name = "pixel_scale" if low in SCALE else {"y": "label", "labels": "label", "ans": "label"}.get(low, key)
        name = _columns.kept_as(name)
        if values.ndim == 2:
            values = _one_hot(values, key, classes, notes)
        if classes is not None and low in LABELS and values.ndim == 1 and values.dtype.kind in "iu":
            values = _words(values, classes, key, where)
        listing[name] = array(values, name)
        columns[name] = _column(name, low, listing[name])
    if "id" not in listing:
        width = max(4, len(str(n - 1)))
        listing["id"] = pa.array([f"{i:0{width}d}" for i in range(n)], pa.string())
        notes.append("no ids: they are the numbers of the rows")
    listing["ra"], listing["dec"] = np.full(n, np.nan), np.full(n, np.nan)
    if len(sky) == 2:
        table = with_units(pa.table(sky), {k: held[k].unit for k in sky})
        pair = str(by_role["ra"]), str(by_role["dec"])
        listing["ra"], listing["dec"] = _columns.degrees(table, pair, ra_unit=ra_unit, file=where)
    elif sky:
        notes.append(f"array {next(iter(sky))!r} was left out: a position is ra and dec")
    return listing, columns


def _one_hot(values: np.ndarray, key: str, classes: list[str] | None, notes: list[str]) -> np.ndarray:
    """Rows of zeros and a single one are a class."""
    single = values.dtype.kind in "biuf" and bool(((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all())
    if not single:
        return values
    notes.append(f"{key!r} is one-hot: the class is the column of the one")
    return np.asarray(values.argmax(axis=1))


def _words(codes: np.ndarray, classes: list[str], key: str, where: str) -> np.ndarray:
    if codes.min() < 0 or codes.max() >= len(classes):
        found = f"codes {codes.min()} to {codes.max()}"
        raise InputError("class codes and class names do not fit", file=where, keyword=key, found=found,
                         expected=f"0 to {len(classes) - 1}")  # fmt: skip
    return np.asarray(np.asarray(classes, dtype=object)[codes])


def _column(name: str, low: str, values: pa.Array) -> Column:
    if name in {"split", "pixel_scale"}:
        return Column(str(values.type), "arcsec" if name == "pixel_scale" else "")
    return Column(str(values.type), role="label")
