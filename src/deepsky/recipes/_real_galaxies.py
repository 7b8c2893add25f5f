"""Galaxies of real frames: found, told from stars by size against magnitude, cut out, and kept apart by sky block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.optimize import curve_fit

from deepsky.errors import InputError, need
from deepsky.ingestion.run import ingest
from deepsky.survey import Survey
from deepsky.surveys import frames as reader
from deepsky.units import unit_factor

AB = 31.4  # magnitude of 1 nJy
DETECT = 3.0  # sigma above the sky
BETA = 3.5  # of the Moffat profile that the simulator draws for the ground


@dataclass(frozen=True, eq=False)
class Sources:
    """Sources of a frame: pixels `x`, `y` counted from 0, AB magnitude, and half-light radius [pixel]."""

    x: np.ndarray
    y: np.ndarray
    magnitude: np.ndarray
    half_light: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


def frame(path: Path, band: str, *, pixel_scale: float, zero_point: float) -> np.ndarray:
    """(y, x) [nJy] of a whole frame without coordinates, by the reader of frames."""
    options = {"bands": [band], "pixel_scale": pixel_scale, "zero_point": zero_point}
    one = {"id": ["frame"], "x": [0.0], "y": [0.0]}
    ny, nx = reader.open(path, catalogue=one, size=1, **options).frames[0].shape  # type: ignore[arg-type]
    middle = {"id": ["frame"], "x": [(nx - 1) / 2], "y": [(ny - 1) / 2]}
    source = reader.open(path, catalogue=middle, size=(ny, nx), **options)  # type: ignore[arg-type]
    return np.asarray(source.read(source.items()).arrays["image.flux"][0, 0], np.float32)


def detect(flux: np.ndarray) -> Sources:
    """Find the sources of a frame [nJy] with sep, above the noise of its sky.

    Raises
    ------
    MissingExtra : sep is not installed.
    """
    sep = need("sep", "shapes")
    sky = sep.Background(np.ascontiguousarray(flux), bw=128, bh=128)
    image = flux - sky.back()
    found = sep.extract(image, DETECT, err=sky.globalrms, minarea=5)
    found = found[(found["flux"] > 0) & np.isfinite(found["a"])]
    half, _ = sep.flux_radius(image, found["x"], found["y"], 6.0 * found["a"], 0.5)
    return Sources(found["x"], found["y"], AB - 2.5 * np.log10(found["flux"]), np.asarray(half))


def stellar_size(some: Sources, magnitudes: tuple[float, float]) -> float:
    """Half-light radius [pixel] of stars: where a quarter of the sources of these magnitudes lie most closely.

    Raises
    ------
    InputError : fewer than 20 sources.
    """
    low, high = magnitudes
    size = np.sort(some.half_light[(some.magnitude > low) & (some.magnitude < high) & (some.half_light > 0.5)])
    many = len(size) // 4
    if many < 5:
        raise InputError("too few sources to tell stars from galaxies", found=len(size), expected="20 or more")
    width = size[many:] - size[:-many]
    first = int(width.argmin())
    return float(np.median(size[first : first + many + 1]))


def galaxies(some: Sources, star: float, magnitudes: tuple[float, float]) -> np.ndarray:
    """(n,) which are galaxies of these magnitudes: larger than stars, and smaller than what fills a cutout."""
    low, high = magnitudes
    found: np.ndarray = (some.magnitude > low) & (some.magnitude < high)
    return found & (some.half_light > 1.2 * star) & (some.half_light < 4 * star)


def stars(some: Sources, star: float, magnitudes: tuple[float, float]) -> np.ndarray:
    """(n,) which are stars of these magnitudes."""
    low, high = magnitudes
    found: np.ndarray = (some.magnitude > low) & (some.magnitude < high)
    return found & (np.abs(some.half_light / star - 1) < 0.08)


def within(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], size: int) -> np.ndarray:
    """(n,) whether a cutout of `size` pixels lies wholly on the frame."""
    edge = size / 2 + 1
    found: np.ndarray = (x > edge) & (y > edge) & (x < shape[1] - 1 - edge) & (y < shape[0] - 1 - edge)
    return found


def block(x: np.ndarray, y: np.ndarray, side: float) -> np.ndarray:
    """(n,) 0 or 1: the colour of the sky block [pixel] in which a source lies, as on a chessboard."""
    found: np.ndarray = ((np.asarray(x) // side + np.asarray(y) // side) % 2).astype(np.int64)
    return found


def shares_pixels(x: np.ndarray, y: np.ndarray, others: tuple[np.ndarray, np.ndarray], size: int) -> np.ndarray:
    """(n,) whether a cutout of `size` pixels has pixels in common with a cutout of one of the others."""
    apart = np.maximum(np.abs(x[:, None] - others[0]), np.abs(y[:, None] - others[1]))
    found: np.ndarray = (apart < size + 1).any(1) if len(others[0]) else np.zeros(len(x), bool)
    return found


def blank(some: Sources, shape: tuple[int, int], size: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of at most `n` places whose middle third holds no source; a bright one keeps more of the sky away."""
    rng = np.random.default_rng(seed)
    x, y = (rng.uniform(0, side - 1, 8 * n) for side in shape[::-1])
    reach = size / 6 + np.clip(20 * (20 - some.magnitude), 0, 150)
    apart = np.hypot(x[:, None] - some.x, y[:, None] - some.y)
    good = np.flatnonzero(within(x, y, shape, size) & (apart > reach).all(1))[:n]
    return x[good], y[good]


def cut(path: Path, to: Path, table: pa.Table, bands: Sequence[str], size: int, *, pixel_scale: float,
        zero_point: float) -> Survey:  # fmt: skip
    """Ingest cutouts about the sources of `table` (id, x, y and more), with ivar from the scatter of the sky."""
    # one process: each would decode the frames for itself
    return ingest(path, to, catalogue=table, bands=list(bands), size=size, pixel_scale=pixel_scale,
                  zero_point=zero_point, folds={"near_duplicates": False}, workers=1, quiet=True)  # fmt: skip


def pixels(survey: Survey) -> tuple[np.ndarray, np.ndarray]:
    """(n, band, y, x) flux [nJy] and its inverse variance."""
    image = survey.gather(slice(None), truth=()).observation("image")
    factor = unit_factor(survey.schema.observations["image"].unit, "nJy")  # type: ignore[union-attr]
    return image.flux.numpy() * factor, image.ivar.expand(image.flux.shape).numpy() / factor**2


def aperture_magnitudes(survey: Survey, radius: float) -> np.ndarray:
    """(n, band) AB magnitudes within `radius` [pixel] of the middle of each cutout; faint ones end at one sigma."""
    flux, ivar = pixels(survey)
    axis = np.arange(flux.shape[-1]) - (flux.shape[-1] - 1) / 2
    inside = np.hypot(axis[None, :], axis[:, None]) < radius
    noise = np.sqrt((1 / np.maximum(ivar, 1e-30) * inside).sum((2, 3)))
    magnitudes: np.ndarray = AB - 2.5 * np.log10(np.maximum((flux * inside).sum((2, 3)), noise))
    return magnitudes


def seeing(survey: Survey) -> np.ndarray:
    """(band,) FWHM [pixel] of the PSF: median over the stars of `survey` of a Moffat profile fitted to each.

    Raises
    ------
    InputError : fewer than five stars are bright enough in a band.
    """
    flux, ivar = pixels(survey)
    side = min(21, flux.shape[-1] | 1)
    low = (flux.shape[-1] - side) // 2
    window = slice(low, low + side)
    start = np.stack([survey.column(n) for n in ("dx", "dy")], 1) + (flux.shape[-1] - 1) / 2 - low
    out = []
    for band, (f, w) in enumerate(zip(flux.swapaxes(0, 1), ivar.swapaxes(0, 1), strict=True)):
        found = []
        for image, weight, (x, y) in zip(f[:, window, window], w[:, window, window], start, strict=True):
            peak = float(image.max())
            if not (weight > 0).all() or peak * np.sqrt(weight.mean()) < 30:
                continue
            try:
                fit, _ = curve_fit(_moffat, np.arange(side), (image / peak).ravel(), [1.0, x, y, 3.0, 0.0], maxfev=400)
            except RuntimeError:  # no convergence: two stars in one
                continue
            found.append(abs(fit[3]))
        if len(found) < 5:
            raise InputError("too few stars to measure the seeing", file=survey.path, keyword=f"band {band}",
                             found=len(found))  # fmt: skip
        out.append(float(np.median(found)))
    return np.array(out)


def _moffat(axis: np.ndarray, peak: float, x: float, y: float, fwhm: float, sky: float) -> np.ndarray:
    """(pixels,) Moffat profile over a square of these rows and columns, averaged over each pixel by 3 x 3 points."""
    side = len(axis)
    fine = (np.arange(3 * side) - 1) / 3
    core = fwhm / (2 * np.sqrt(2 ** (1 / BETA) - 1))
    square = (fine[None, :] - x) ** 2 + (fine[:, None] - y) ** 2
    values = peak * (1 + square / core**2) ** -BETA
    coarse: np.ndarray = values.reshape(side, 3, side, 3).mean((1, 3))
    return (coarse + sky).ravel()
