"""Frames: cutouts of 64 x 64 pixels from a frame of 4096 x 4096 float32 pixels with its WCS, by position on the sky.

Ours is the whole way from the file and the table of sources to arrays in native form: the look at the header before
any C code, every source placed by the WCS, flux and inverse variance (from the scatter of the sky, since the frame
brings none). Nothing is kept from one repetition to the next. The peers are loops of astropy: `Cutout2D` with the WCS
on the memory-mapped frame, and `.section` of the compressed HDU at pixels that are known already; both give flux alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.wcs import WCS

from benchmarks._measure import Row, Times, interleaved
from deepsky.ingestion.run import MOST
from deepsky.surveys import _cut, frames

SIZE = 64


def run(quick: bool, folder: Path) -> list[Row]:
    """Plain frames and Rice-compressed ones; of the latter also five times as many cutouts as a thousand."""
    side, count, repeats = (2048, 250, 3) if quick else (4096, 1000, 5)
    plain, rice, table = _made(folder, side, 5 * count)
    dense = Table({"id": table["id"], "ra": table["ra"], "dec": table["dec"]})
    sources, pixels = dense[:count], np.stack([table["y"], table["x"]], 1)[:count]
    pixels = np.round(pixels - (SIZE - 1) / 2).astype(int)

    def ours(file: Path, sources: Table = sources) -> int:
        for kept in (_cut._open, _cut._skies, _cut._norms):
            kept.clear()
        source = frames.open([str(file)], catalogue=sources, size=SIZE)
        items, made = source.items(), 0
        for first in range(0, len(items), MOST):  # in pieces, as `ingest` asks for them
            made += len(source.read(items.slice(first, MOST)).ids)
        assert made == len(sources)
        return made

    def cutouts() -> int:
        with fits.open(plain) as hdus:
            wcs, data = WCS(hdus[0].header), hdus[0].data
            made = [
                Cutout2D(data, SkyCoord(ra, dec, unit="deg"), SIZE, wcs, mode="partial", copy=True).data
                for ra, dec in zip(sources["ra"], sources["dec"], strict=True)
            ]
        return len(made)

    def sections() -> int:
        with fits.open(rice) as hdus:
            made = [hdus[1].section[y : y + SIZE, x : x + SIZE] for y, x in pixels]
        return len(made)

    def decoded() -> tuple[int, ...]:
        with fits.open(rice) as hdus:
            return np.asarray(hdus[1].data).shape  # type: ignore[no-any-return]

    flat = interleaved({"ours": lambda: ours(plain), "cutouts": cutouts}, repeats)
    # of two nearly equal times of a fifth of a second, many repetitions; the loop takes seconds
    whole = interleaved({"ours": lambda: ours(rice), "decoded": decoded}, 2 * repeats + 1)
    many = interleaved({"ours": lambda: ours(rice, dense), "decoded": decoded}, 2 * repeats + 1)
    parts = interleaved({"ours": lambda: ours(rice), "sections": sections}, 3)
    mine = "FITS frame and table to cutouts with ivar"

    def row(what: str, kind: str, times: dict[str, Times], peer: str, name: str, target: float, n: int = count) -> Row:
        return Row(what, kind, times["ours"].arm(mine), times[peer].arm(name), target, kind == "cost", n,
                   note=f"{n:,} sources on one frame of {side} x {side}")  # fmt: skip

    once = "decoding the frame once with astropy"
    return [
        row("cutouts of a plain frame", "speed", flat, "cutouts", "loop of astropy Cutout2D with WCS", 5),
        row("cutouts of a Rice frame, share of decoding", "cost", whole, "decoded", once, 1.1),
        row("many cutouts of a Rice frame, share of decoding", "cost", many, "decoded", once, 1.1, 5 * count),
        row("cutouts of a Rice frame", "speed", parts, "sections", "loop of astropy .section, file kept open", 5),
    ]


def _made(folder: Path, side: int, count: int) -> tuple[Path, Path, Table]:
    """A frame of stars in noise, plain and Rice-compressed (tiles of one row, as tools write by default)."""
    rng = np.random.default_rng(0)
    image = rng.normal(10, 1, (side, side)).astype(np.float32)
    x, y = rng.uniform(SIZE, side - SIZE, (2, count))
    rows, columns = np.mgrid[-8:9, -8:9]
    star = np.exp(-0.5 * (rows**2 + columns**2) / 2.0).astype(np.float32)
    for a, b in zip(np.round(x).astype(int), np.round(y).astype(int), strict=True):
        image[b - 8 : b + 9, a - 8 : a + 9] += rng.uniform(20, 200) * star
    middle = (side + 1) / 2
    header = fits.Header({
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": middle, "CRPIX2": middle,
        "CD1_1": -0.2 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.2 / 3600, "MAGZERO": 27.0, "FILTER": "r",
    })  # fmt: skip
    plain, rice = folder / "frame.fits", folder / "rice.fits"
    fits.PrimaryHDU(image, header).writeto(plain)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image, header, compression_type="RICE_1")]).writeto(rice)
    ra, dec = WCS(header).all_pix2world(x, y, 0)
    return plain, rice, Table({"id": [f"star{i}" for i in range(count)], "ra": ra, "dec": dec, "x": x, "y": y})
