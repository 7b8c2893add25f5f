"""NPY arrays: one big array of many images, or one array a file.

A big array is mapped into memory and never loaded whole. Beside it in a folder, arrays of one axis and the same length
are columns (``labels.npy``, ``ids.npy``, ``ra.npy``), arrays of its shape its noise (``ivar.npy``, ``sigma.npy``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.gate import ArrayLayout, check_ivar, check_npy
from deepsky.schema import Column, ImageSchema, Noise, Role, Schema
from deepsky.source import Block, Rejected
from deepsky.surveys import _columns, _scan
from deepsky.surveys._calibration import stated
from deepsky.surveys._flat import flat_shape
from deepsky.surveys._layout import band_names, quantity_of
from deepsky.surveys._names import role_of, words
from deepsky.surveys._planes import MOST_BANDS
from deepsky.surveys._scanned import Scanned, as_size, block, one_shape, place, sample_rows
from deepsky.tables import array

LABELS = {"label", "labels", "class", "classes", "target", "targets", "y"}
IDS = {"id", "ids", "name", "names", "objid", "object_id"}
KEPT = {"uint8", "int16", "uint16", "float16", "float32"}  # other types become float32


def claims(path: Path) -> bool:
    """A folder in which NPY files are the most frequent ones, or one such file."""
    found = _scan.dominant(path)
    return found is not None and found[0] == "npy"


def open(
    path: _scan.Paths,
    *,
    axes: str | None = None,
    size: int | tuple[int, int] | None = None,
    bands: Sequence[str] | None = None,
    sentinel: float | Sequence[float] = (),
    pixel_scale: float | None = None,
    unit: str = "",
    class_folders: bool = True,
    name: str = "",
) -> NpyImages:
    """Understand NPY arrays.

    Parameters
    ----------
    path : one file, a folder (with subfolders), glob pattern or list of files.
    axes : order of the axes, such as "nyxb": n objects, b bands. By default the axis of at most 12 is the bands, and an
        axis of objects comes first.
    size : (y, x) [pixel], or one number for both: every image is cropped or padded about its centre.
    bands : names of the bands.
    sentinel : values that mean "not measured".
    pixel_scale, unit : [arcsec] and astropy unit; arrays do not say them.
    class_folders : take the label ``class`` from the folders, where every object lies in one.
    name : of the survey, by default that of the folder or file.

    Raises
    ------
    InputError : nothing to read, an order of axes that cannot be guessed, shapes that differ while no size is given.
    """
    files = _scan.find(path, "npy")
    layouts, broken = _looked(files)
    main, beside = _roles(layouts)
    order = axes or _axes(layouts[main[0]].shape, files.root / main[0])
    if axes is None and len(files.names) == 1:
        _refuse_flat(layouts[main[0]].shape, files.root / main[0])
    _check_axes(order, layouts, main, files.root)
    kept = [n for n in files.names if n in main or n not in layouts]  # broken ones too: `read` sets them aside
    if "n" in order:
        kept = [n for n in kept if n not in broken]
    many = "n" in order
    shapes = [_sides(layouts[n].shape, order) for n in main if len(layouts[n].shape) == len(order)]
    target = as_size(size) or one_shape(shapes, files.root)
    count = layouts[main[0]].shape[order.index("b")] if "b" in order else 1
    kind = layouts[main[0]].dtype.newbyteorder("=")
    names = tuple(bands) if bands else band_names(count, kind)
    if len(names) != count:
        raise InputError(
            "wrong number of bands", file=files.root, keyword="bands", found=names, expected=f"{count} names"
        )
    flux_unit, quantity = stated(str(unit), files.root)
    padded = bool((np.asarray(shapes) < target).any()) or kind.kind == "f" or bool(beside.noise)
    noise: Noise = "measured" if beside.noise and beside.role != "mask" else "unknown"
    image = ImageSchema(
        names,
        target,
        unit=flux_unit,
        quantity=quantity_of(quantity, flux_unit, kind),
        pixel_scale=pixel_scale,
        noise=noise,
        ivar="pixel" if padded else "object",
        dtype=str(kind) if str(kind) in KEPT else "float32",
    )
    listing, columns, told = _listing(files, kept, order, layouts, beside, class_folders)
    notes = [
        *files.notes(),
        f"axes {order} of {layouts[main[0]].shape}{'' if axes else ', guessed: axes=... says otherwise'}",
    ]
    if broken and "n" in order:
        notes.append(f"{len(broken)} files cannot be used; the first: {next(iter(broken.values()))}")
    notes += [*told, "noise from " + beside.noise if noise == "measured" else "no noise: ivar is a mask"]
    hidden = tuple(sentinel) if isinstance(sentinel, Sequence) else (float(sentinel),)
    title = name or (_scan.stem(main[0]) if many and len(main) == 1 else files.root.name)
    schema = Schema(title, {"image": image}, columns, source=str(path), reader="npy", notes=tuple(notes))
    return NpyImages(str(path), schema, listing, files.root, order, beside, hidden, size is not None)


@dataclass(frozen=True)
class Beside:
    """Files beside one big array: its noise and of which `role`, and columns by name."""

    noise: str = ""
    role: str = ""
    columns: tuple[tuple[str, str], ...] = ()


def _looked(files: _scan.Files) -> tuple[dict[str, ArrayLayout], dict[str, InputError]]:
    """Layouts of the files, and those that the gate refuses."""
    good: dict[str, ArrayLayout] = {}
    broken: dict[str, InputError] = {}
    for i in sample_rows(len(files.names)):
        name = files.names[int(i)]
        try:
            good[name] = check_npy(files.root / name)
        except InputError as error:
            broken[name] = error
    if not good:
        raise next(iter(broken.values()))
    return good, broken


def _roles(layouts: dict[str, ArrayLayout]) -> tuple[list[str], Beside]:
    """The arrays that are images, and what lies beside the one of them where there is one."""
    images = [n for n, a in layouts.items() if len(a.shape) >= 2]
    if not images:
        first = next(iter(layouts))
        raise InputError(
            "no array of images", file=first, found=f"shape {layouts[first].shape}", expected="two axes or more"
        )
    noisy = [n for n in images if role_of(words(_scan.stem(n))) in ("ivar", "sigma", "variance", "mask")]
    flux = [n for n in images if n not in noisy]
    columns = tuple((_scan.stem(n), n) for n, a in layouts.items() if len(a.shape) == 1)
    if len(flux) != 1 or not (noisy or columns):
        return images, Beside()
    same = [n for n in noisy if layouts[n].shape == layouts[flux[0]].shape]
    noise = same[0] if same else ""
    return flux, Beside(noise, role_of(words(_scan.stem(noise))) if noise else "", columns)


def _axes(shape: tuple[int, ...], file: object) -> str:
    """The order of the axes by the rule: at most twelve bands, objects first.

    >>> _axes((5000, 3, 64, 64), ""), _axes((5000, 64, 64, 3), ""), _axes((5000, 64, 64), ""), _axes((64, 64, 3), "")
    ('nbyx', 'nyxb', 'nyx', 'yxb')
    """
    if len(shape) == 2:
        return "yx"
    small = [n <= MOST_BANDS for n in shape]
    if len(shape) == 4 and small[1] != small[3]:
        return "nbyx" if small[1] else "nyxb"
    if len(shape) == 3 and not small[1]:
        return "yxb" if small[2] else "byx" if small[0] else "nyx"
    raise InputError("the order of the axes cannot be guessed", file=file, found=f"shape {shape}",
                     expected="(n, band, y, x), (n, y, x, band), (n, y, x), (band, y, x), (y, x, band) or (y, x)",
                     fix="say it: axes='nyxb'")  # fmt: skip


def _refuse_flat(shape: tuple[int, ...], file: object) -> None:
    """Refuse one array of two axes that is rows of flat images as well as an image."""
    sides = flat_shape(shape[1]) if len(shape) == 2 and shape[0] != shape[1] else None
    if sides is not None:
        text = ", ".join(map(str, sides))
        raise InputError("one image, or rows of flat images?", file=file, found=f"shape {shape}",
                         expected="(n, y, x) or (n, band, y, x)",
                         fix=f"images.reshape(-1, {text}), or axes='yx' if it is one image")  # fmt: skip


def _check_axes(order: str, layouts: dict[str, ArrayLayout], main: Sequence[str], root: Path) -> None:
    if len(set(order)) < len(order) or not {"y", "x"} <= set(order) <= set("nbyx"):
        raise InputError("axes are named n, b, y and x", keyword="axes", found=order, expected="e.g. nbyx")
    shape = layouts[main[0]].shape
    if len(shape) != len(order):
        raise InputError(
            "another number of axes", file=root / main[0], keyword="axes", found=f"shape {shape}", expected=order
        )


def _sides(shape: tuple[int, ...], order: str) -> tuple[int, int]:
    return shape[order.index("y")], shape[order.index("x")]


def _listing(
    files: _scan.Files, main: Sequence[str], order: str, layouts: dict[str, ArrayLayout], beside: Beside, folders: bool
) -> tuple[pa.Table, dict[str, Column], tuple[str, ...]]:  # fmt: skip
    """One row an object: id, file, number in the file, and what the folders and the arrays beside say."""
    stems, notes = _scan.unique_ids(main)
    if "n" in order:
        counts = [(layouts.get(n) or check_npy(files.root / n)).shape[order.index("n")] for n in main]
        file = np.repeat(np.arange(len(main)), counts).tolist()
        index = np.concatenate([np.arange(c) for c in counts])
        ids = [f"{stems[f]}-{i:07d}" for f, i in zip(file, index, strict=True)]
    else:
        file, index, ids = list(range(len(main))), np.full(len(main), -1), stems
    table: dict[str, Any] = {"id": ids, "_file": [main[f] for f in file], "_index": index.astype(np.int64)}
    table["ra"], table["dec"] = np.full(len(ids), np.nan), np.full(len(ids), np.nan)
    columns: dict[str, Column] = {}
    if folders:
        found, told = _scan.folder_columns([tuple(main[f].split("/")[:-1]) for f in file])
        for key, values in found.items():
            role: Role = "label" if key == "class" else "scalar"
            table[key] = values
            columns[key] = Column(
                "string", role=role, classes=tuple(sorted(set(values))), description="from the folders"
            )
        notes += told
    for key, path in beside.columns:
        values = np.load(files.root / path, allow_pickle=False)
        if len(values) != len(ids):
            notes += (f"{path} has {len(values)} values for {len(ids)} objects: left out",)
        elif key.lower() in IDS:
            table["id"] = _columns.ids(pa.table({key: array(values)}), key, files.root / path)
        elif key.lower() in ("ra", "dec"):
            table[key.lower()] = values.astype(np.float64)
        else:
            _column(key, values, table, columns)
    return pa.table({**table, "id": pa.array(table["id"], pa.string())}), columns, notes


def _column(key: str, values: np.ndarray, table: dict[str, Any], columns: dict[str, Column]) -> None:
    if key.lower() in LABELS and values.dtype.kind != "f":
        words_ = [str(v) for v in values.tolist()]
        table[key] = words_
        columns[key] = Column("string", role="label", classes=tuple(sorted(set(words_), key=lambda w: (len(w), w))))
        return
    role: Role = "label" if key.lower() in LABELS else "scalar"
    kind = {"f": "float64", "i": "int64", "u": "int64", "b": "bool"}.get(values.dtype.kind, "string")
    table[key] = [str(v) for v in values.tolist()] if kind == "string" else values.astype(kind)
    columns[key] = Column(kind, role=role)


@final
@dataclass(frozen=True, eq=False)
class NpyImages(Scanned):
    """Images in NPY files below `root`; see `open`."""

    root: Path
    order: str
    beside: Beside
    sentinel: tuple[float, ...]
    resize: bool

    @property
    def image(self) -> ImageSchema:
        """What the images are."""
        image = self.schema.observations["image"]
        assert isinstance(image, ImageSchema)
        return image

    def scan(self) -> tuple[pa.Table, tuple[Rejected, ...]]:
        """The listing with the bytes of every object."""
        pixels = math.prod(self.image.shape)
        nbytes = pixels * np.dtype(self.image.dtype).itemsize
        nbytes += 4 if self.image.ivar == "object" else pixels * (4 if self.beside.noise else 1)
        return self.listing.append_column("bytes", pa.array(np.full(len(self.listing), nbytes, np.int64))), ()

    def read(self, items: pa.Table) -> Block:
        """Read the images of some rows; one that is broken, blank or of another shape is set aside."""
        flux: list[np.ndarray] = []
        ivar: list[np.ndarray] = []
        ids, rejected = [], []
        maps: dict[str, np.ndarray] = {}
        for name, file, index in zip(*(items[c].to_pylist() for c in ("id", "_file", "_index")), strict=True):
            try:
                if len(maps) > 8:
                    maps.clear()
                pixels = self._one(maps, file, index)
                noise = self._one(maps, self.beside.noise, index) if self.beside.noise else None
                placed, seen = self._measured(pixels, noise, file)
            except InputError as error:
                rejected.append(Rejected(name, str(error), file))
                continue
            ids.append(name)
            flux.append(placed)
            ivar.append(seen)
        shape = () if self.image.ivar == "object" else self.image.shape
        empty = {
            "image.flux": np.zeros((0, *self.image.shape), self.image.dtype),
            "image.ivar": np.zeros((0, *shape), np.uint8),
        }
        return block(ids, {"image.flux": flux, "image.ivar": ivar}, {}, rejected, empty)

    def _one(self, maps: dict[str, np.ndarray], file: str, index: int) -> np.ndarray:
        """(band, y, x) of one object, as stored."""
        path = self.root / file
        if file not in maps:
            layout = check_npy(path)
            if len(layout.shape) != len(self.order):
                raise InputError(
                    "another number of axes", file=path, found=f"shape {layout.shape}", expected=self.order
                )
            order: Literal["F", "C"] = "F" if layout.fortran else "C"
            maps[file] = np.asarray(np.memmap(path, layout.dtype, "r", layout.offset, layout.shape, order=order))
        whole, axes = maps[file], self.order
        if "n" in axes:
            whole, axes = whole.take(index, axis=axes.index("n")), axes.replace("n", "")
        if "b" not in axes:
            whole, axes = whole[None], "b" + axes
        return whole.transpose([axes.index(a) for a in "byx"])

    def _measured(self, pixels: np.ndarray, noise: np.ndarray | None, file: str) -> tuple[np.ndarray, np.ndarray]:
        """Flux and ivar in the schema's form."""
        image, path = self.image, self.root / file
        if pixels.shape[0] != len(image.bands) or (pixels.shape[1:] != image.size and not self.resize):
            raise InputError("an array of another shape", file=path, found=pixels.shape, expected=image.shape)
        values = pixels.astype(image.dtype)
        seen: np.ndarray = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
        for value in self.sentinel:
            seen &= pixels != value
        weight: np.ndarray = seen.astype(np.uint8)
        if noise is not None:
            weight = self._weight(noise.astype(np.float64), seen)
        lit = weight > 0
        if not lit.any():
            raise InputError("no measured pixel", file=path, found="every value is NaN, masked or a sentinel")
        low, high = values[lit].min(), values[lit].max()
        if low == high:
            raise InputError("a constant image", file=path, found=f"every value is {low}", expected="an image")
        placed, _ = place(np.where(lit, values, 0).astype(image.dtype), image.size)
        if image.ivar == "object":
            if not lit.all() or min(pixels.shape[1] - image.size[0], pixels.shape[2] - image.size[1]) < 0:
                raise InputError(
                    "smaller than the others, or with sentinels", file=path, found=pixels.shape, expected=image.shape
                )
            return placed, np.ones((), np.uint8)
        return placed, place(weight, image.size)[0]

    def _weight(self, noise: np.ndarray, seen: np.ndarray) -> np.ndarray:
        role, path = self.beside.role, self.root / self.beside.noise
        if role == "mask":
            return np.asarray(seen & (noise == 0), np.uint8)
        good = seen & np.isfinite(noise) & (noise != 0)
        if role == "ivar":
            check_ivar(np.where(seen, noise, 0), file=path)
        elif (noise[good] < 0).any():
            raise InputError(f"a negative {role}", file=path, found=float(noise[good].min()), expected="> 0")
        power = {"ivar": 1, "variance": -1, "sigma": -2}[role]
        return np.asarray(np.where(good, np.where(good, noise, 1.0) ** power, 0.0))


def example(path: Path) -> Path:
    """Write one array of sixteen made-up galaxies of 20x20 pixels in three bands; return the file."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:20, :20] - 9.5
    size = rng.uniform(1.5, 4, (16, 1, 1, 1))
    images = 100 * np.exp(-np.hypot(x, y) / size) * rng.uniform(0.3, 1, (16, 3, 1, 1)) + rng.normal(
        0, 1, (16, 3, 20, 20)
    )
    path.mkdir(parents=True, exist_ok=True)
    file = path / "galaxies.npy"
    np.save(file, images.astype(np.float32))
    return file
