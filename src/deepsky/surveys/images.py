"""Folder of JPEG, PNG or TIFF images.

Pixels are stored as they are (8 or 16 bits, or float): no flux scale and no noise is known of them, and the report says
so. Row 0 of the picture, as a viewer shows it, is row 0 of the array.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa
from PIL import Image

from deepsky.errors import InputError
from deepsky.gate import check_image
from deepsky.schema import Column, ImageSchema, Role, Schema
from deepsky.source import Block, Rejected
from deepsky.surveys import _scan
from deepsky.surveys._png import sixteen_bits
from deepsky.surveys._scanned import AGREE, Scanned, as_size, block, one_shape, place, sample_rows

# what Pillow calls a picture -> how it is read, and what it is stored as
MODES = {"1": ("L", "uint8"), "L": ("L", "uint8"), "LA": ("L", "uint8"), "P": ("RGB", "uint8"), "RGB": ("RGB", "uint8"),
         "RGBA": ("RGB", "uint8"), "PA": ("RGB", "uint8"), "CMYK": ("RGB", "uint8"), "YCbCr": ("RGB", "uint8"),
         "I;16": ("I;16", "uint16"), "I;16B": ("I;16", "uint16"), "I;16L": ("I;16", "uint16"), "I": ("I", "int32"),
         "F": ("F", "float32"), "RGB;16": ("RGB;16", "uint16"), "RGBA;16": ("RGB;16", "uint16"),
         "LA;16": ("I;16", "uint16")}  # fmt: skip
ALPHA = {"LA", "RGBA", "PA", "LA;16", "RGBA;16"}
MASKS = re.compile(r"(?:masks?|segm|annot|ground_?truth|gt\Z)", re.IGNORECASE)  # folders of pictures of pictures
SIXTEEN = {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}  # by channels; Pillow would read them with 8 bits
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: a[::-1].swapaxes(0, 1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}  # fmt: skip
GREY = {"RGB": "L", "RGB;16": "I;16"}  # what may stand among colour


def claims(path: Path) -> bool:
    """A folder in which pictures are the most frequent files, or one picture."""
    found = _scan.dominant(path)
    return found is not None and found[0] == "image"


def open(
    path: _scan.Paths,
    *,
    size: int | tuple[int, int] | None = None,
    bands: Sequence[str] | None = None,
    pixel_scale: float | None = None,
    class_folders: bool = True,
    name: str = "",
) -> ImageFiles:
    """Understand a folder of pictures.

    Parameters
    ----------
    path : folder (with subfolders), glob pattern, list of files, or one file.
    size : (y, x) [pixel], or one number for both: every image is cropped or padded about its centre.
    bands : names in place of R, G, B or grey.
    pixel_scale : [arcsec]; pictures do not say it.
    class_folders : take the label ``class`` from the folders, where every object lies in one.
    name : of the survey, by default that of the folder.

    Raises
    ------
    InputError : nothing to read, shapes that differ while no size is given, or 8-bit among 16-bit pictures.
    """
    files, masks = _without_masks(_scan.find(path, "image"))
    look = sample_rows(len(files.names))
    seen: Counter[str] = Counter()
    told: Counter[str] = Counter()
    shapes = []
    for i in look:
        try:
            mode, shape, lost = _header(files.root / files.names[i])
        except InputError:
            continue  # set aside by `read`, where it can be counted
        seen[mode] += 1
        shapes.append(shape)
        told.update(lost)
    if not shapes:
        _header(files.root / files.names[0])
        raise InputError("no picture here can be read", file=files.root)
    mode, notes = _common(seen, files.root)
    notes = (*notes, *(f"{n:,} of {len(shapes):,} files: {what}" for what, n in told.items()))
    target = as_size(size) or one_shape(shapes, files.root)
    names = tuple(bands) if bands else (("R", "G", "B") if mode in GREY else ("grey",))
    if len(names) != (3 if mode in GREY else 1):
        raise InputError(
            "wrong number of bands", file=files.root, found=names, expected="R, G, B" if mode in GREY else "one"
        )
    padded = size is not None and bool((np.asarray(shapes) < target).any())
    ids, id_notes = _scan.unique_ids(files.names)
    listing: dict[str, list[str]] = {"id": ids, "_file": list(files.names)}
    columns: dict[str, Column] = {}
    if id_notes:
        listing["name"] = [_scan.stem(n) for n in files.names]
        columns["name"] = Column("string", description="file name; it repeats in other folders")
    folders, folder_notes = _scan.folder_columns([tuple(n.split("/")[:-1]) for n in files.names])
    for column, values in folders.items() if class_folders else ():
        role: Role = "label" if column == "class" else "scalar"
        listing[column] = values
        columns[column] = Column(
            "string", role=role, classes=tuple(sorted(set(values))), description="from the folders"
        )
    image = ImageSchema(names, target, pixel_scale=pixel_scale, ivar="pixel" if padded else "object",
                        dtype=next(d for m, d in MODES.values() if m == mode))  # fmt: skip
    schema = Schema(
        name or files.root.name, {"image": image}, columns, source=str(path), reader="images",
        notes=(*files.notes(), *masks, *id_notes, *(folder_notes if class_folders else ()), *notes,
               "pictures carry no noise and no flux scale: S/N is not known; row 0 is the first row of the file"),
    )  # fmt: skip
    return ImageFiles(str(path), schema, pa.table(listing), files.root, mode, size is not None)


def _without_masks(files: _scan.Files) -> tuple[_scan.Files, list[str]]:
    """The files without those in folders of masks beside the pictures that they belong to."""
    in_mask = [any(map(MASKS.match, n.split("/")[:-1])) for n in files.names]
    pictures = {_scan.stem(n) for n, mask in zip(files.names, in_mask, strict=True) if not mask}
    left = [n for n, mask in zip(files.names, in_mask, strict=True) if mask and _scan.stem(n) in pictures]
    if not left:
        return files, []
    names = sorted({n.rpartition("/")[0] for n in left})
    out = set(left)
    kept = tuple(n for n in files.names if n not in out)
    return replace(files, names=kept), [f"{len(left):,} masks were left out ({', '.join(names[:4])})"]


def _header(path: Path) -> tuple[str, tuple[int, int], list[str]]:
    """Mode and (y, x) of a picture, after the gate, and what will be lost of it."""
    layout = check_image(path)
    lost = [f"the first of {layout.pages} pages is read"] if layout.pages > 1 else []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                mode = picture.mode
                if layout.bits > 8 and mode in ("RGB", "RGBA", "LA"):
                    if layout.kind != "PNG":
                        raise InputError(f"colour of {layout.bits} bits in a {layout.kind} file", file=path,
                                         found=f"{layout.shape[2]} channels of {layout.bits} bits", expected="8 bits",
                                         fix="convert it to PNG of 16 bits, or to FITS")  # fmt: skip
                    mode = SIXTEEN[layout.shape[2]]
                shape = picture.height, picture.width
                if layout.kind == "JPEG" and _turn(picture) > 1:
                    lost.append("turned as its EXIF orientation says")
                    shape = shape[::-1] if _turn(picture) > 4 else shape
                return mode, shape, lost
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"not a picture that Pillow reads: {error}", file=path, fix="convert it to PNG or FITS"
        ) from error


def _turn(picture: Image.Image) -> int:
    """The EXIF orientation: 1 upright, 2 to 4 flipped or turned by 180 degrees, 5 to 8 turned by 90."""
    try:
        value = picture.getexif().get(274, 1)
    except Exception:  # damaged EXIF data are no reason to refuse the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _common(seen: Counter[str], root: Path) -> tuple[str, tuple[str, ...]]:
    """How all pictures are read: as 95% of them are, else colour if any is; and what was decided."""
    read: Counter[str] = Counter()
    for mode, n in seen.items():
        read[MODES[mode][0] if mode in MODES else mode] += n
    most = read.most_common(1)[0][0]
    other = {m: n for m, n in read.items() if m not in (most, GREY.get(most))}
    notes = []
    if other and sum(other.values()) <= (1 - AGREE) * read.total() and most in MODES:
        words = ", ".join(f"{n:,} {m}" for m, n in other.items())
        notes.append(f"pictures of another mode than {most} are set aside: {words}")
        read = Counter({m: n for m, n in read.items() if m not in other})
    unknown = [m for m in read if m not in MODES]
    if unknown:
        raise InputError("pictures of a mode that has no reader", file=root, found=", ".join(unknown), known=MODES,
                         fix="convert them to PNG or FITS")  # fmt: skip
    if seen.keys() & ALPHA:
        notes.append("transparency was dropped")
    for colour, grey in GREY.items():
        if set(read) == {grey, colour}:
            notes.append(f"{read[grey]} of {read.total()} pictures are grey: their values stand in all three bands")
            return colour, tuple(notes)
    if len(read) > 1:
        raise InputError("pictures of different depth", file=root, found=", ".join(f"{n} {m}" for m, n in read.items()),
                         expected="one kind", fix="put them into folders of their own")  # fmt: skip
    return next(iter(read)), tuple(notes)


@final
@dataclass(frozen=True, eq=False)
class ImageFiles(Scanned):
    """Pictures below `root`, all read in one `mode` of Pillow's; `resize` crops or pads them."""

    root: Path
    mode: str
    resize: bool

    def scan(self) -> tuple[pa.Table, tuple[Rejected, ...]]:
        """The listing with the positions that the file names carry."""
        image = self.schema.observations["image"]
        places = [_scan.position_in_name(name) or (np.nan, np.nan) for name in self.listing["_file"].to_pylist()]
        sky = np.asarray(places, dtype=np.float64).reshape(-1, 2)
        pixels = int(np.prod(image.shape))
        nbytes = pixels * np.dtype(image.dtype).itemsize + (pixels if image.ivar == "pixel" else 4)
        table = self.listing.append_column("ra", pa.array(sky[:, 0])).append_column("dec", pa.array(sky[:, 1]))
        return table.append_column("bytes", pa.array(np.full(len(sky), nbytes, np.int64))), ()

    def read(self, items: pa.Table) -> Block:
        """Decode the pictures of some rows; one that is broken, blank or of another shape is set aside."""
        image = self.schema.observations["image"]
        assert isinstance(image, ImageSchema)
        ids: list[str] = []
        rejected = []
        flux: list[np.ndarray] = []
        ivar: list[np.ndarray] = []
        for name, file in zip(items["id"].to_pylist(), items["_file"].to_pylist(), strict=True):
            try:
                pixels, seen = self._one(self.root / file, image)
            except InputError as error:
                rejected.append(Rejected(name, str(error), file))
                continue
            ids.append(name)
            flux.append(pixels)
            ivar.append(seen)
        none = np.zeros(0, np.float32) if image.ivar == "object" else np.zeros((0, *image.shape), np.uint8)
        empty = {"image.flux": np.zeros((0, *image.shape), image.dtype), "image.ivar": none}
        return block(ids, {"image.flux": flux, "image.ivar": ivar}, {}, rejected, empty)

    def _one(self, path: Path, image: ImageSchema) -> tuple[np.ndarray, np.ndarray]:
        """(band, y, x) pixels and their ivar in the schema's storage."""
        mode, shape, _ = _header(path)
        if mode not in MODES or MODES[mode][0] not in (self.mode, GREY.get(self.mode)):
            raise InputError("a picture of another mode", file=path, found=mode, expected=self.mode)
        raw = self._decoded(path, mode)
        pixels = np.ascontiguousarray(raw.transpose(2, 0, 1) if raw.ndim == 3 else raw[None], dtype=image.dtype)
        pixels = np.repeat(pixels, 3, axis=0) if self.mode in GREY and len(pixels) == 1 else pixels
        low, high = pixels.min(), pixels.max()
        if low == high:
            raise InputError("a constant picture", file=path, found=f"every value is {low}", expected="an image")
        if not np.isfinite(pixels).all():
            raise InputError("values that are not finite", file=path, found=f"{(~np.isfinite(pixels)).sum()} of them",
                             fix="pictures have no mask: write FITS")  # fmt: skip
        if shape != image.size and (
            not self.resize or (image.ivar == "object" and (np.array(shape) < image.size).any())
        ):
            raise InputError(
                "a picture of another shape", file=path, found=shape, expected=image.size, fix="give a size"
            )
        placed, inside = place(pixels, image.size)
        if image.ivar == "object":
            return placed, np.ones((), np.float32)
        seen = np.zeros(image.shape, np.uint8)
        seen[:, inside[0], inside[1]] = 1
        return placed, seen

    def _decoded(self, path: Path, mode: str) -> np.ndarray:
        """(y, x) or (y, x, channel) pixels."""
        if mode in SIXTEEN.values():
            return sixteen_bits(path)
        try:
            with Image.open(path) as picture:
                same = mode == self.mode or MODES[mode][0] == "I;16"
                raw = np.asarray(picture if same else picture.convert(self.mode))
                turn = _turn(picture) if picture.format == "JPEG" else 1
                return UPRIGHT[turn](raw)
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"the picture is broken: {error}", file=path, fix="download it again") from error


def example(path: Path) -> Path:
    """Write twelve made-up discs and rings of 24x24 pixels as PNG, in a folder a class; return the folder."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:24, :24] - 11.5
    for i in range(12):
        kind = ("disc", "ring")[i % 2]
        r = np.hypot(x, y * rng.uniform(1, 1.5))
        shape = np.exp(-r / 4) if kind == "disc" else np.exp(-0.5 * ((r - 6) / 1.5) ** 2)
        pixels = 20 + 200 * shape[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 4, (24, 24, 3))
        folder = path / "pictures" / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"object{i:02d}.png")
    return path / "pictures"
