"""Full FITS frames and a source table: cutouts by their coordinates.

A source is cut out of the frame of each band on which it lies furthest from the edge. The pixels are those of the
frame, moved by whole pixels and never turned; what is left of the position stands in the columns ``dx`` and ``dy``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.gate import check_fits
from deepsky.schema import Column, ImageSchema, Noise, Schema
from deepsky.source import Block, Rejected
from deepsky.surveys import _scan
from deepsky.surveys._cut import Cut, corners, cut, distinct, groups_of, joined
from deepsky.surveys._filters import svo
from deepsky.surveys._frames import Frame, assign, collect, on_grid, one_scale
from deepsky.surveys._names import group, rank
from deepsky.surveys._object import Rules
from deepsky.surveys._plan import check_bits, coadded
from deepsky.surveys._planes import named_planes, squeezed, stored
from deepsky.surveys._resample import onto
from deepsky.surveys._scanned import Scanned, as_size
from deepsky.surveys._sources import Wanted, elsewhere, scalars_of, sources_of
from deepsky.surveys._tables import read
from deepsky.tables import as_table, is_path

OFFSETS = {
    "dx": Column("float32", unit="pix", description="of the source from the middle of the cutout"),
    "dy": Column("float32", unit="pix", description="of the source from the middle of the cutout"),
    "saturated": Column("float32", description="fraction of saturated pixels; their ivar is 0"),
}


def claims(path: Path) -> bool:
    """A folder in which FITS files with images are the most frequent ones, or one such file."""
    found = _scan.dominant(path)
    if found is None or found[0] != "fits":
        return False
    try:
        images = [h for h in check_fits(found[1]).hdus if h.kind in ("image", "compressed")]
        return any(len(squeezed(h.shape)) >= 2 for h in images)
    except InputError:
        return path.is_dir()


def open(
    path: _scan.Paths,
    *,
    catalogue: Any = None,
    size: int | tuple[int, int] = 64,
    bands: Sequence[str] | None = None,
    pattern: str | None = None,
    resample: bool = False,
    id: str | None = None,
    ra: str | None = None,
    dec: str | None = None,
    ra_unit: str | None = None,
    pixel_origin: int | None = None,
    planes: Mapping[str | int, str] | None = None,
    mask_bits: Sequence[str | int] | None = None,
    sentinel: float | Sequence[float] = (),
    saturation: float | None = None,
    pixel_scale: float | None = None,
    zero_point: float | None = None,
    unit: str | None = None,
    name: str = "",
) -> FrameCutouts:
    """Understand frames and a source table.

    Parameters
    ----------
    path : folder, glob pattern or list of frames, with weight, variance and mask frames beside them.
    catalogue : table of sources (path, DataFrame, astropy Table) with positions, or with pixels x and y where there is
        one frame a band, all on one grid (without coordinates in the headers, ra and dec stay unknown); by default the
        one table that lies in the folder.
    size : (y, x) [pixel] of the cutouts, or one number for both.
    bands : which bands, in which order.
    pattern : how the files of a pointing are named, e.g. ``{id}_{band}.fits``; by default found from the names.
    resample : bring bands of another pixel scale or grid onto that of the first band, flux conserved.
    id, ra, dec, ra_unit : columns of the table, and the unit of the right ascension.
    pixel_origin : number of the first pixel in columns such as ``x``: by default 1 for SExtractor's, else 0.
    planes, mask_bits, sentinel, saturation, pixel_scale, zero_point, unit : see `deepsky.surveys.fits_cutouts.open`.
    name : of the survey, by default that of the folder.

    Raises
    ------
    InputError : no frame or table, no positions, frames without coordinates, pixel scales or units that differ.
    """
    if catalogue is None:
        catalogue = _beside(path)
    if catalogue is None:
        raise InputError(
            "full frames need a table of sources",
            file=path,
            keyword="catalogue",
            expected="a table with id, ra and dec",
            fix="catalogue='sources.fits' (--catalogue sources.fits)",
        )
    files = _scan.find(path, "fits")
    rules = Rules(
        named=named_planes(planes, files.root), bands=tuple(bands) if bands else None,
        mask_bits=tuple(mask_bits) if mask_bits is not None else None,
        sentinel=tuple(sentinel) if isinstance(sentinel, Sequence) else (float(sentinel),),
        saturation=saturation, zero_point=zero_point, unit=unit, pixel_scale=pixel_scale,
    )  # fmt: skip
    frames, notes = collect(files.root, group(files.names, pattern=pattern, bands=bands), rules)
    order = _bands(frames, bands, files.root)
    frames = [f for f in frames if f.band in order]
    notes += check_bits([f.more["mask"] for f in frames if "mask" in f.more], rules.mask_bits)
    image, more = _image(frames, order, as_size(size) or (64, 64), resample, files.root)
    table = as_table(read(catalogue) if is_path(catalogue) else catalogue)
    where = str(catalogue) if is_path(catalogue) else "catalogue"
    sources, told = sources_of(table, frames, Wanted(id, ra, dec, ra_unit, pixel_origin), where)
    columns, scalars = scalars_of(table, sources.used)
    schema = Schema(
        name or files.root.name, {"image": image}, {**OFFSETS, **columns}, source=str(path), reader="frames",
        notes=(*files.notes(), *notes, *more, *told),
    )  # fmt: skip
    listing = {"id": pa.array(sources.ids, pa.string()), "ra": sources.ra, "dec": sources.dec, **scalars}
    if sources.x is not None:
        listing |= {"_px": sources.x, "_py": sources.y}
    return FrameCutouts(str(path), schema, pa.table(listing), tuple(frames), rules, resample)


def _beside(path: _scan.Paths) -> Path | None:
    """The only table in a folder of frames."""
    if not isinstance(path, str | Path) or not Path(path).is_dir():
        return None
    tables = [p for p in Path(path).iterdir() if _scan.ending(p.name) in (".csv", ".ecsv", ".vot", ".parquet", ".cat")]
    return tables[0] if len(tables) == 1 else None


def _bands(frames: Sequence[Frame], wanted: Sequence[str] | None, file: object) -> tuple[str, ...]:
    seen = sorted({f.band for f in frames}, key=rank)
    for band in wanted or ():
        if band not in seen:
            raise InputError("a band that no frame has", file=file, keyword="FILTER", found=band, known=seen)
    return tuple(wanted or seen)


def _image(
    frames: Sequence[Frame], bands: tuple[str, ...], size: tuple[int, int], resample: bool, file: object
) -> tuple[ImageSchema, list[str]]:
    """What the cutouts will be, and the decisions in words."""
    scale = one_scale(frames, bands, resample=resample, file=file)
    units = Counter(f.known.unit for f in frames)
    if len(units) > 1:
        raise InputError("frames in different units", file=file, keyword="BUNIT", expected="one unit",
                         found=", ".join(f"{n} in {u or 'none'}" for u, n in units.items()),
                         fix="zero_point=... if all have one")  # fmt: skip
    roles = Counter(f.noise for f in frames)
    exact = all(r in ("ivar", "variance", "sigma") for r in roles)
    kind: Noise = "measured" if exact else "estimated"
    known = frames[0].known
    notes = [f"{len(frames)} frames in {', '.join(bands)}; flux: {known.why} -> {known.unit or 'no unit'}"]
    if not exact:
        bare = roles[""]
        notes.append(
            f"noise from the scatter of the sky in cells of 256 pixels for {bare} of {len(frames)} frames; areas "
            "of exact zeros are blank in them"
            if bare
            else "noise from the weights, scaled to the scatter of the sky"
        )
    if any(f.flux.layout.hdus[f.flux.plane.hdu].lossy for f in frames):
        notes.append("lossy compression: the pixels were quantised before they came here")
    if not resample and len(bands) > 1 and any(f.report is not None for f in frames):
        notes.append("every band is cut by its own coordinates: bands agree to half a pixel")
    kinds = {stored(f.flux.layout.hdus[f.flux.plane.hdu]) for f in frames}
    keep = len(kinds) == 1 and not resample and all(f.known.factor == 1 for f in frames)
    dtype = kinds.pop() if keep else None
    first = {b: next(f for f in frames if f.band == b) for b in bands}
    image = ImageSchema(
        bands,
        size,
        unit=frames[0].known.unit,
        quantity=frames[0].known.quantity,
        pixel_scale=scale,
        noise=kind,
        ivar="pixel",
        dtype=str(dtype or np.dtype("float32")),
        filters=tuple(svo(f.flux.plane.header, b, f.flux.path.name) for b, f in first.items()),
        correlated=resample or coadded(frames[0].flux.plane.header),
    )
    return image, notes


@final
@dataclass(frozen=True, eq=False)
class FrameCutouts(Scanned):
    """Cutouts of `frames`; the list of sources has their pixels where these are not placed by the sky."""

    frames: tuple[Frame, ...]
    rules: Rules
    resample: bool

    @property
    def image(self) -> ImageSchema:
        """What the cutouts are."""
        image = self.schema.observations["image"]
        assert isinstance(image, ImageSchema)
        return image

    def scan(self) -> tuple[pa.Table, tuple[Rejected, ...]]:
        """The sources that lie on a frame, those of one frame together; the others are set aside."""
        ra, dec = (self.listing[n].to_numpy() for n in ("ra", "dec"))
        pixels = self._pixels()
        by_band = [[(i, f) for i, f in enumerate(self.frames) if f.band == b] for b in self.image.bands]
        falls = [assign(mine, ra, dec) if pixels is None else on_grid(mine, *pixels) for mine in by_band]
        frame = np.stack([f.frame for f in falls], axis=1)
        x, y = (np.stack([getattr(f, n) for f in falls], axis=1) for n in ("x", "y"))
        lies = np.asarray(frame[:, 0] >= 0 if self.resample else (frame >= 0).any(axis=1))
        if pixels is None and not lies.any() and np.isfinite(ra + dec).any():
            raise elsewhere(by_band[0], ra, dec, self.path)
        first = (frame >= 0).argmax(axis=1)
        rows = np.arange(len(first))
        order = np.lexsort((y[rows, first], *frame.T[::-1]))
        keep = order[lies[order]]
        y0, x0 = corners(x[keep, first[keep]], y[keep, first[keep]], self.image.size)
        table = self.listing.take(keep)
        size = self.image.size
        nbytes = int(np.prod(self.image.shape)) * (np.dtype(self.image.dtype).itemsize + 4)
        added: dict[str, Any] = {
            "dx": (x[keep, first[keep]] - x0 - (size[1] - 1) / 2).astype(np.float32),
            "dy": (y[keep, first[keep]] - y0 - (size[0] - 1) / 2).astype(np.float32),
            "bytes": np.full(len(keep), nbytes, np.int64),
            "_frame": pa.FixedSizeListArray.from_arrays(pa.array(frame[keep].ravel()), frame.shape[1]),
            "_x": pa.FixedSizeListArray.from_arrays(pa.array(x[keep].ravel()), frame.shape[1]),
            "_y": pa.FixedSizeListArray.from_arrays(pa.array(y[keep].ravel()), frame.shape[1]),
        }
        for name, values in added.items():
            table = table.append_column(name, pa.array(values) if isinstance(values, np.ndarray) else values)
        return table, tuple(self._outside(np.flatnonzero(~lies), ra, dec))

    def _pixels(self) -> tuple[np.ndarray, np.ndarray] | None:
        if "_px" not in self.listing.column_names:
            return None
        return self.listing["_px"].to_numpy(), self.listing["_py"].to_numpy()

    def _outside(self, rows: np.ndarray, ra: np.ndarray, dec: np.ndarray) -> list[Rejected]:
        ids, pixels, out = self.listing["id"].take(rows).to_pylist(), self._pixels(), []
        for key, i in zip(ids, rows, strict=True):
            one, other = (ra[i], dec[i]) if pixels is None else (pixels[0][i], pixels[1][i])
            place = f"{one:.6f}, {other:.6f} deg" if pixels is None else f"pixel {one:g}, {other:g}"
            known = math.isfinite(one) and math.isfinite(other)
            out.append(Rejected(key, f"outside every frame\n  at: {place}" if known else "no position", self.path))
        return out

    def read(self, items: pa.Table) -> Block:
        """Cut out the sources of some rows; one without a measured pixel is set aside."""
        n, bands, size = items.num_rows, self.image.bands, self.image.size
        frame, x, y = (_grid(items[c], len(bands)) for c in ("_frame", "_x", "_y"))
        shape = (n, len(bands), *size)
        flux: np.ndarray | None = None
        ivar: np.ndarray | None = None
        full, empty = np.zeros(n), np.ones(n, bool)
        problems: dict[int, str] = {}
        for b in range(len(bands)):
            for rows in groups_of(frame[:, b]):
                number = int(frame[rows[0], b])
                if number < 0:
                    continue
                try:
                    got = self._band(b, number, rows, frame, x, y)
                except InputError as error:
                    problems |= {int(i): str(error) for i in rows}
                    continue
                at: slice | np.ndarray = slice(None) if len(rows) == n else rows  # all in order: no index to follow
                wide = np.float64 if got.ivar.dtype != np.float32 and got.ivar.max(initial=0) > 1e37 else np.float32
                if len(bands) == 1 and len(rows) == n:  # all of one frame: its windows are the block
                    flux = got.flux.astype(self.image.dtype, copy=False)[:, None]
                    ivar = np.ascontiguousarray(got.ivar, wide)[:, None]
                else:
                    flux = np.zeros(shape, self.image.dtype) if flux is None else flux
                    ivar = (
                        np.zeros(shape, wide) if ivar is None else ivar.astype(np.result_type(ivar, wide), copy=False)
                    )
                    flux[at, b], ivar[at, b] = got.flux, got.ivar
                empty[at] &= ~(distinct(got.ivar) > 0).any(axis=(1, 2))
                if got.saturated is not None:
                    full[at] += got.saturated.mean(axis=(1, 2)) / len(bands)
        ids = items["id"].to_pylist()
        file = {int(i): str(self.frames[int(frame[i].max())].flux.path) for i in np.flatnonzero(empty)}
        bad = {
            int(i): problems.get(int(i), "no measured pixel: blank, masked or saturated") for i in np.flatnonzero(empty)
        }
        keep = np.flatnonzero(~empty)
        arrays = {
            "image.flux": np.zeros(shape, self.image.dtype) if flux is None else flux,
            "image.ivar": np.zeros(shape, np.float32) if ivar is None else ivar,
        }
        return Block(
            tuple(ids[i] for i in keep),
            arrays if len(keep) == n else {k: v[keep] for k, v in arrays.items()},
            {"saturated": full[keep].astype(np.float32)},
            tuple(Rejected(ids[i], reason, file[i]) for i, reason in bad.items()),
        )

    def _band(self, b: int, number: int, rows: np.ndarray, frame: np.ndarray, x: np.ndarray, y: np.ndarray) -> Cut:
        here, size = self.frames[number], self.image.size
        if not self.resample or b == 0:
            return cut(here, *corners(x[rows, b], y[rows, b], size), size, self.rules)
        y0, x0 = corners(x[rows, 0], y[rows, 0], size)
        first = frame[rows, 0]
        parts = [
            (k, onto(here, self.frames[int(first[k[0]])], y0[k], x0[k], size, self.rules)) for k in groups_of(first)
        ]
        return joined([c for _, c in parts], np.argsort(np.concatenate([k for k, _ in parts])))


def _grid(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """(n, band) values of a fixed-size list; missing ones are NaN."""
    flat = column.combine_chunks().flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(-1, width)


def example(path: Path) -> Path:
    """Write two made-up frames of forty stars, with their table of sources beside them; return the folder."""
    from astropy.io import fits
    from astropy.table import Table

    folder = path / "frames"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(4)
    x, y = rng.uniform(20, 236, (2, 40))
    rows, cols = np.mgrid[:256, :256]
    header = fits.Header({
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 128.5, "CRPIX2": 128.5,
        "CDELT1": -0.2 / 3600, "CDELT2": 0.2 / 3600, "MAGZERO": 27.0,
    })  # fmt: skip
    for band in "gr":
        image = rng.normal(10, 1, (256, 256))
        for a, b in zip(x, y, strict=True):
            image += rng.uniform(20, 200) * np.exp(-0.5 * ((cols - a) ** 2 + (rows - b) ** 2) / 2.0)
        header["FILTER"] = band
        fits.PrimaryHDU(image.astype(np.float32), header).writeto(folder / f"field_{band}.fits", overwrite=True)
    from astropy.wcs import WCS

    ra, dec = WCS(header).all_pix2world(x, y, 0)
    Table({"id": [f"star{i}" for i in range(40)], "ra": ra, "dec": dec}).write(folder / "sources.csv", overwrite=True)
    return folder
