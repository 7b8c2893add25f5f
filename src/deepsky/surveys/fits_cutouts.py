"""Folder of FITS cutouts.

One object a file, as a 2-D image, a cube of bands or several extensions; or several files an object, by band, with
noise, mask and PSF beside them; or many objects a file, one an HDU or one a plane. What the HDUs hold is known by the
names that the surveys use: SCI/ERR/DQ/WHT, IMAGE/MASK/VARIANCE, cubes with BANDS and invvar, ``17_sigma.fits``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.gate import check_fits, processors, run_guarded
from deepsky.schema import Schema
from deepsky.source import Block, Rejected
from deepsky.surveys import _scan
from deepsky.surveys._listing import FRACTIONS, Objects, columns_of, folder_notes, guess_note, kind, listed, rows
from deepsky.surveys._names import Slot, group, missing_notes
from deepsky.surveys._object import Object, Rules, measure, understand
from deepsky.surveys._plan import Plan, check_bits, decide
from deepsky.surveys._planes import named_planes, squeezed
from deepsky.surveys._planes import planes as planes_of
from deepsky.surveys._scanned import ALL, Scanned, block, sample_rows
from deepsky.surveys._sky import Position, angle_unit, pixel_scale, position, same_scale

PIECE = 500  # objects whose headers are looked at together
FRAME = 1024  # pixels: a larger image is a frame, which needs a source table


def claims(path: Path) -> bool:
    """A folder in which FITS images of less than 1024 pixels are the most frequent files, or one such file."""
    found = _scan.dominant(path)
    if found is None or found[0] != "fits":
        return False
    try:
        sides = [n for hdu in check_fits(found[1]).images() for n in squeezed(hdu.shape)]
    except InputError:
        return path.is_dir() or "image" in found[1].name  # broken: `open` says how
    return len(sides) >= 2 and max(sides) < FRAME


def open(
    path: _scan.Paths,
    *,
    bands: Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
    pattern: str | None = None,
    objects: Objects | None = None,
    planes: Mapping[str | int, str] | None = None,
    mask_bits: Sequence[str | int] | None = None,
    sentinel: float | Sequence[float] = (),
    saturation: float | None = None,
    pixel_scale: float | None = None,
    zero_point: float | None = None,
    unit: str | None = None,
    position: Position = "auto",
    class_folders: bool = True,
    name: str = "",
) -> FitsCutouts:
    """Understand a folder of FITS cutouts.

    Parameters
    ----------
    path : folder (with subfolders), glob pattern, list of files, or one file.
    bands : which bands, in which order; names for the planes of a cube that has none.
    size : (y, x) [pixel], or one number for both: every image is cropped or padded about its centre.
    pattern : how files make objects, e.g. ``{id}_{band}.fits`` or ``{id}{plane}.fits``; by default found.
    objects : one object a "file", an "hdu" or a "plane" of a cube.
    planes : EXTNAME or number of an HDU -> flux, ivar, variance, sigma, weight, mask or psf, in place of the rules.
    mask_bits : names (MP_ keywords) or values of the mask bits that mean "not measured", several with commas; by
        default those that HSC and LSST name so, else any bit.
    sentinel : values that mean "not measured", such as the lens challenge's 100.
    saturation : level in stored units, in place of the keyword SATURATE; saturated pixels have ivar 0.
    pixel_scale : [arcsec], in place of what the coordinates say.
    zero_point : AB magnitude of one stored unit, in place of what the header says; the flux becomes nJy.
    unit : of the flux, in place of nJy or what the header says times a power of ten.
    position : from "header" keywords, the centre by the "wcs", "none", or by the rules of both ("auto").
    class_folders : take the label ``class`` from the folders, where every object lies in one.
    name : of the survey, by default that of the folder.

    Raises
    ------
    InputError : nothing to read, shapes, units or pixel scales that differ without a rule, bands that no file has.
    """
    files = _scan.find(path, "fits")
    groups = group(files.names, pattern=pattern, bands=bands)
    rules = Rules(
        named=named_planes(planes, files.root), bands=tuple(bands) if bands else None,
        mask_bits=tuple(mask_bits) if mask_bits is not None else None,
        sentinel=tuple(sentinel) if isinstance(sentinel, Sequence) else (float(sentinel),),
        saturation=saturation, zero_point=zero_point, unit=unit, pixel_scale=pixel_scale,
        coordinates=position != "none",
    )  # fmt: skip
    listing, rules, list_notes = listed(files.root, groups, objects or kind(files, groups), rules)
    look = [_understood(files.root, groups.slots, listing, int(i), rules) for i in sample_rows(listing.num_rows)]
    known = [o for o in look if isinstance(o, Object)]
    if not known:
        raise next(e for e in look if isinstance(e, InputError))
    plan, notes = decide(known, rules, files.root, size)
    notes += check_bits([f for o in known for (role, _), f in o.more.items() if role == "mask"], rules.mask_bits)
    first = known[0].first
    columns, listing = columns_of(listing, groups, plan, class_folders)
    guess = guess_note(groups, pattern)
    schema = Schema(
        name or files.root.name, {"image": plan.image}, columns, source=str(path), reader="fits-cutouts",
        notes=(*files.notes(), *groups.notes, *missing_notes(groups, plan.image.bands), *guess, *list_notes,
               *folder_notes(groups, class_folders), *notes),
    )  # fmt: skip
    alone = tuple(Rejected(n, "a noise, mask or PSF file without an image", n) for n in groups.alone)
    angle = angle_unit(first.path, first.plane.header)
    return FitsCutouts(str(path), schema, listing, files.root, groups.slots, rules, plan, position, angle, alone)


@final
@dataclass(frozen=True, eq=False)
class FitsCutouts(Scanned):
    """FITS cutouts below `root`; see `open`."""

    root: Path
    slots: tuple[Slot, ...]
    rules: Rules
    plan: Plan
    where: Position
    angle: str
    alone: tuple[Rejected, ...]

    def scan(self) -> tuple[pa.Table, tuple[Rejected, ...]]:
        """The listing with positions and pixel scales from the headers; broken ones are set aside.

        Many files are shared out to child processes; wcslib, which unusual projections need, then works there too.
        """
        if self.listing.num_rows <= ALL:
            table, rejected = self.headers(self.listing)
            return table, (*self.alone, *rejected)
        pieces = [self.listing.slice(i, PIECE) for i in range(0, self.listing.num_rows, PIECE)]
        found = []
        for number, answer in _shared_out(self, pieces, processors()):
            if not isinstance(answer, InputError):
                found.append(answer)
                continue
            single = [pieces[number].slice(i, 1) for i in range(pieces[number].num_rows)]
            for one, (_, alone) in zip(single, _shared_out(self, single, 1), strict=True):
                bad = isinstance(alone, InputError)
                found.append((None, (Rejected(one["id"][0].as_py(), str(alone)),)) if bad else alone)
        table = pa.concat_tables([t for t, _ in found if t is not None])
        return table, (*self.alone, *(r for _, rejected in found for r in rejected))

    def headers(self, listing: pa.Table) -> tuple[pa.Table, tuple[Rejected, ...]]:
        """Some rows of the listing with what the headers of their files say."""
        keep, sky, scales = [], [], []
        rejected = []
        last: tuple[Path, Any] | None = None
        for row, (key, names, number, plane) in enumerate(rows(listing)):
            path = self.root / next(n for n in names if n)
            try:
                if last is None or last[0] != path:
                    last = path, check_fits(path)
                header, shape = self._first(last[1], number, plane)
                scale = self.rules.pixel_scale or pixel_scale(header, path) if self.where != "none" else math.nan
                here = position(header, shape, rule=self.where, unit=self.angle, file=path)
                if self.plan.image.pixel_scale is not None and not same_scale(
                    [scale, self.plan.image.pixel_scale], 0.02
                ):
                    raise InputError(
                        "another pixel scale than the other objects",
                        file=path,
                        keyword="CD1_1",
                        found=f"{scale:.4g} arcsec",
                        expected=f"{self.plan.image.pixel_scale:.4g} arcsec",
                        fix="ingest it as a survey of its own; pixel_scale=... if its coordinates are wrong",
                    )
            except InputError as error:
                rejected.append(Rejected(key, str(error), str(path.relative_to(self.root))))
                continue
            keep.append(row)
            sky.append(here)
            scales.append(scale)
        table = listing.take(pa.array(keep, pa.int64()))
        places = np.asarray(sky, np.float64).reshape(-1, 2)
        image = self.plan.image
        pixels = int(np.prod(image.shape))
        nbytes = pixels * (np.dtype(image.dtype).itemsize + (4 if self.plan.noise else 1))
        nbytes += 4 * len(image.bands) * int(np.prod(image.psf)) if image.psf else 0
        for column, array in {
            "ra": places[:, 0],
            "dec": places[:, 1],
            "bytes": np.full(len(keep), nbytes, np.int64),
        }.items():
            table = table.append_column(column, pa.array(array))
        if self.plan.varies:
            table = table.append_column("pixel_scale", pa.array(np.asarray(scales, np.float64)))
        return table, tuple(rejected)

    def _first(self, layout: Any, number: int, plane: int) -> tuple[Mapping[str, Any], tuple[int, int]]:
        """Header and shape of an object's first image."""
        named = {str(number): "flux"} if number >= 0 else self.rules.named
        found = planes_of(layout, named=named, bands=self.rules.bands, stack=self.rules.stack)
        chosen = next((p for p in found if p.role == "flux" and plane in (-1, p.index)), None)
        if chosen is None:
            raise InputError("no image in this file", file=layout.file)
        return chosen.header, chosen.shape

    def read(self, items: pa.Table) -> Block:
        """Read the objects of some rows; one that is broken, blank or does not fit is set aside."""
        image, plan = self.plan.image, self.plan
        names = ["image.flux", "image.ivar", *(["image.psf"] if image.psf else [])]
        arrays: dict[str, list[np.ndarray]] = {n: [] for n in names}
        columns: dict[str, list[float]] = {n: [] for n in FRACTIONS}
        ids, rejected = [], []
        for row, (key, files, _, _) in enumerate(rows(items)):
            this = _understood(self.root, self.slots, items, row, self.rules, sums=True)
            try:
                if isinstance(this, InputError):
                    raise this
                got = measure(
                    this, image.bands, image.size, self.rules, unit=plan.unit, noise=plan.noise,
                    dtype=image.dtype, resize=plan.resize, psf=image.psf,
                )  # fmt: skip
            except InputError as error:
                rejected.append(Rejected(key, str(error), next(n for n in files if n)))
                continue
            ids.append(key)
            for n, a in zip(names, (got.flux, got.ivar, got.psf), strict=False):
                if a is not None:
                    arrays[n].append(a)
            for n, value in got.columns.items():
                columns[n].append(value)
        empty = {n: np.zeros((0, *image.shape), image.dtype if n == "image.flux" else np.float32) for n in names}
        return block(ids, arrays, columns, rejected, empty)


def _headers(source: FitsCutouts, name: str, listing: pa.Table) -> tuple[pa.Table, tuple[Rejected, ...]]:
    """`FitsCutouts.headers` in a child process; `name` is what a message calls the rows."""
    return source.headers(listing)


def _shared_out(source: FitsCutouts, pieces: Sequence[pa.Table], workers: int) -> Iterator[tuple[int, Any]]:
    jobs = ((source, piece["id"][0].as_py(), piece) for piece in pieces)
    return run_guarded(_headers, jobs, workers=workers, timeout_s=600)


def _understood(
    root: Path, slots: Sequence[Slot], table: pa.Table, row: int, rules: Rules, *, sums: bool = False
) -> Object | InputError:
    """What an object consists of, or why it cannot be used."""
    paths = [(s, root / n) for s, n in zip(slots, table["_files"][row].as_py(), strict=True) if n]
    try:
        this = understand(paths, rules, (table["_hdu"][row].as_py(), table["_plane"][row].as_py()), sums=sums)
        this.scale(rules)
        this.calibrations(rules)
        return this
    except InputError as error:
        return error


def example(path: Path) -> Path:
    """Write six made-up galaxies in two bands, with their noise, as multi-extension files; return the folder."""
    from astropy.io import fits

    folder = path / "cutouts"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:24, :24] - 11.5
    for i in range(6):
        hdus = fits.HDUList([fits.PrimaryHDU()])
        hdus[0].header["RA"], hdus[0].header["DEC"] = 150 + 0.01 * i, 2.0
        for band in "gr":
            flux = 50 * np.exp(-np.hypot(x, y) / rng.uniform(2, 4)) + rng.normal(0, 1, x.shape)
            for role, values in (("SCI", flux), ("ERR", np.ones_like(flux))):
                hdu = fits.ImageHDU(values.astype(np.float32), name=f"{role}_{band}")
                hdu.header["BUNIT"] = "nJy"
                hdu.header.update(
                    {
                        "CTYPE1": "RA---TAN",
                        "CTYPE2": "DEC--TAN",
                        "CRVAL1": 150 + 0.01 * i,
                        "CRVAL2": 2.0,
                        "CRPIX1": 12.5,
                        "CRPIX2": 12.5,
                        "CDELT1": -0.2 / 3600,
                        "CDELT2": 0.2 / 3600,
                    }
                )
                hdus.append(hdu)
        hdus.writeto(folder / f"galaxy{i}.fits", overwrite=True)
    return folder
