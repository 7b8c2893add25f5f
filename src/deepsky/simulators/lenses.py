"""Strong lenses and their confusers: elliptical galaxies alone, spirals, rings, mergers, chance neighbours.

Constants: the lens and source populations of `_lens_population`, survey constants of `_surveys`. In the manner of
Metcalf+2019 (A&A 625 A119): KiDS u g r i of 101 x 101 pixels of 0.2", Euclid VIS of 101 x 101 of 0.1"; and of
Lanusse+2018: LSST g of 45 x 45 of 0.2".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepsky.errors import InputError
from deepsky.io import blake_keys
from deepsky.sample import Image, Sample, Truth, stack
from deepsky.simulators import _arcs as arcs
from deepsky.simulators import _confusers as confusers
from deepsky.simulators import _lens_population as population
from deepsky.simulators import _scene as scene
from deepsky.simulators._galaxies import FIELD_DRAWS, Components, axis_ratio_shear, field, join
from deepsky.simulators._noise import magnitude as brightness
from deepsky.simulators._noise import njy, observe
from deepsky.simulators._paint import Cutouts, take
from deepsky.simulators._random import FIELD, PARAMETERS, Draws, magnitudes, one_thread
from deepsky.simulators._render import psf_stamps
from deepsky.simulators._surveys import Band, bands, depth

KINDS: Final = ("lens", "galaxy", "spiral", "ring", "merger", "neighbours")
# of what is no lens: a third the same galaxy without a source, the rest in equal parts
_NEGATIVES: Final = (1 / 3, 1 / 6, 1 / 6, 1 / 6, 1 / 6)
_KIND, _CONFUSER = 4, 5  # streams
_CHUNK: Final = 64
_ATTEMPTS: Final = 1000
_PSF_SIZE: Final = 25


@dataclass(frozen=True)
class Setup:
    """What is observed: bands of a survey, pixels a side, and the band in which magnitudes are drawn.

    Raises
    ------
    InputError : no band, or bands of different pixel scales.
    """

    bands: tuple[Band, ...]
    size: int
    reference: Band

    def __post_init__(self) -> None:
        scales = sorted({band.pixel_scale for band in self.bands})
        if len(scales) != 1 or self.size < 1:
            raise InputError("a stamp needs bands of one pixel scale, and pixels", found=f"{scales}, size {self.size}")


def _setup(survey: str, names: tuple[str, ...], size: int, reference: str) -> Setup:
    return Setup(bands(survey, names), size, bands(survey, (reference,))[0])


SETUPS: Final[Mapping[str, Setup]] = MappingProxyType(
    {
        "kids": _setup("kids", ("u", "g", "r", "i"), 101, "r"),
        "euclid": _setup("euclid", ("vis",), 101, "vis"),
        "lsst": _setup("lsst-single", ("g",), 45, "r"),
        "lsst-stack": _setup("lsst", ("g",), 45, "r"),
    }
)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A system that counts as a lens: its noiseless arcs (band, m, m), where they are wanted, and what they measure."""

    arcs: Tensor | None
    snr: float
    magnification: float
    magnitude: float


def simulate(
    n: int,
    *,
    seed: int,
    survey: str | Setup = "kids",
    first: int = 0,
    size: int | None = None,
    lens_fraction: float = 0.5,
    theta_e: tuple[float, float] = population.THETA_E,
    min_magnification: float = 2.0,
    min_arc_snr: float = 5.0,
    oversample: int = 4,
    keep_noiseless: bool = False,
    background: Cutouts | None = None,
    deflector: Cutouts | None = None,
) -> Sample:
    """Simulate lenses and what resembles them; for more than memory holds, see `_parallel.simulate_many`.

    A system counts as a lens, and its galaxy as a galaxy of the kind that lenses, where the source is magnified more
    than `min_magnification` and a source of magnitude 22 to 27 can reach `min_arc_snr`; its magnitude then follows
    counts 10**(0.3 m) among those that do. Other kinds: "galaxy" is a lens galaxy without source, "neighbours" one
    with blue galaxies around it; spirals, rings and mergers stand alone. All have unrelated galaxies in the field.

    Parameters
    ----------
    n, seed, first : objects `first` to ``first + n - 1`` of the sky `seed`; an object is the same whatever n and first.
    survey : "kids", "euclid", "lsst" (one exposure), "lsst-stack" (ten years), or a `Setup`.
    size : pixels a side, by default the survey's.
    lens_fraction : expected share of lenses.
    theta_e : least and largest Einstein radius [arcsec].
    min_arc_snr : matched-filter signal-to-noise ratio of the arcs in all bands, against background noise.
    oversample : rays a pixel's side at least.
    keep_noiseless : also give the truths "arcs" and "noiseless" (images: the arcs alone, and everything) [nJy].
    background : real sky to paint onto, instead of simulated noise and field; see `_paint.take`. What arcs reach is
        still reckoned with the survey's constants.
    deflector : real galaxies with their sky to paint arcs onto, instead of simulated galaxies, field and noise; what
        is no lens is then such a galaxy as it is.

    Returns
    -------
    Sample with "image" [nJy], and truths is_lens, kind, theta_e [arcsec], ellipticity (of the mass, (a - b)/(a + b),
    spin-2), shear (spin-2), centre (of the lens, pixels), z_lens, z_source, velocity_dispersion [km/s], snr_arc (0
    where there are no arcs), magnification, source_magnitude; NaN for what an object has not.

    Raises
    ------
    InputError : an unknown survey, both `background` and `deflector`, or real cutouts of another shape.
    """
    setup = survey if isinstance(survey, Setup) else _known(survey)
    if size is not None:
        setup = Setup(setup.bands, size, setup.reference)
    if background is not None and deflector is not None:
        raise InputError("give a background or a deflector", found="both")
    if n < 1 or first < 0 or not 0 <= lens_fraction <= 1:
        raise InputError("numbers out of range", found=f"n={n}, first={first}, lens_fraction={lens_fraction}")
    draws = Draws(seed)
    name = survey if isinstance(survey, str) else "custom"
    selection = population.Selection(theta_e, min_magnification, min_arc_snr, oversample)
    with one_thread():
        pieces = [
            _simulate(np.arange(low, min(low + _CHUNK, first + n)), draws, setup, name, lens_fraction, selection,
                      keep_noiseless, background, deflector)
            for low in range(first, first + n, _CHUNK)
        ]  # fmt: skip
    return stack(pieces) if len(pieces) > 1 else pieces[0]


def _known(survey: str) -> Setup:
    if survey not in SETUPS:
        raise InputError("no lens simulation of this survey", found=survey, known=SETUPS)
    return SETUPS[survey]


def _simulate(numbers: NDArray[np.int64], draws: Draws, setup: Setup, name: str, lens_fraction: float,
              selection: population.Selection, keep_noiseless: bool, background: Cutouts | None,
              deflector: Cutouts | None) -> Sample:  # fmt: skip
    n, size = len(numbers), setup.size
    kind = _kinds(draws.uniform(numbers, 1, stream=_KIND)[:, 0], lens_fraction, deflector is not None)
    with_galaxy = np.flatnonzero(np.isin(kind, (0, 1, 5)))
    made, seen = _systems(numbers[with_galaxy], kind[with_galaxy] == 0, draws, setup, selection)
    light = torch.zeros(n, len(setup.bands), size, size)
    for row, one in zip(with_galaxy.tolist(), seen, strict=True):
        if one.arcs is not None:
            arcs.paste(light[row], one.arcs)
    lensed = light.clone() if keep_noiseless else None
    if deflector is None:
        parts, features = _sky(numbers, draws, setup, kind, with_galaxy, made, background is None)
        light += scene.images(n, size, setup.bands, parts, features)
    real = background if background is not None else deflector
    under = None if real is None else take(real, numbers, draws, light.shape[1:])
    flux, ivar = observe(light, setup.bands, draws, numbers, background=under)
    truth = _truth(kind, with_galaxy, made, seen, setup.bands[0].pixel_scale)
    if lensed is not None:
        truth |= {
            "arcs": Truth(lensed, moves="image", unit="nJy"),
            "noiseless": Truth(light, moves="image", unit="nJy"),
        }
    ids = tuple(f"lenses-{name}-{draws.seed}-{i}" for i in numbers.tolist())
    scales = torch.full((n,), setup.bands[0].pixel_scale)
    psf = psf_stamps(setup.bands, _PSF_SIZE).expand(n, -1, -1, -1)
    image = Image(flux, ivar, unit="nJy", bands=tuple(b.svo for b in setup.bands), pixel_scale=scales, psf=psf)
    nowhere = torch.full((n,), torch.nan, dtype=torch.float64)
    keys = torch.from_numpy(blake_keys(ids).view(np.int64).copy())
    return Sample(ids, keys, nowhere, nowhere.clone(), {"image": image}, truth)


def _kinds(u: NDArray[np.float64], lens_fraction: float, real: bool) -> NDArray[np.int64]:
    """Index into `KINDS` of each object."""
    if real:
        return np.where(u < lens_fraction, 0, 1)
    edges = lens_fraction + (1 - lens_fraction) * np.cumsum((0.0, *_NEGATIVES[:-1]))
    return np.searchsorted(edges, u, side="right").astype(np.int64)


def _systems(numbers: NDArray[np.int64], wanted: NDArray[np.bool_], draws: Draws, setup: Setup,
             selection: population.Selection) -> tuple[population.Systems, list[_Seen]]:  # fmt: skip
    """Draw systems until each is one: its Einstein radius in range, its source magnified, its arcs bright enough.

    Galaxies that are shown without their source are chosen by the same magnification, found with fewer rays.
    """
    pending = np.arange(len(numbers))
    parts, order, seen = list[population.Systems](), list[int](), dict[int, _Seen]()
    jitter = 0.5 * setup.bands[0].pixel_scale
    for attempt in range(_ATTEMPTS):
        u = draws.uniform(numbers[pending], population.SYSTEM_DRAWS, stream=PARAMETERS, attempt=attempt)
        made = population.systems(u, setup.bands, setup.reference, jitter)
        fits = (made.theta_e >= selection.theta_e[0]) & (made.theta_e <= selection.theta_e[1])
        for i in np.flatnonzero(fits).tolist():
            one = _see(made, i, setup, selection, bool(wanted[pending[i]]))
            fits[i] = one is not None
            if one is not None:
                seen[int(pending[i])] = one
        parts.append(made.rows(fits))
        order += pending[fits].tolist()
        pending = pending[~fits]
        if not len(pending):
            break
    else:
        raise InputError("no such lens after many attempts", found=str(selection),
                         fix="ask for less: a wider theta_e, a lower magnification or arc S/N")  # fmt: skip
    joined = population.join_systems(parts, np.argsort(np.array(order, dtype=np.int64)))
    return joined, [seen[i] for i in range(len(numbers))]


def _see(made: population.Systems, i: int, setup: Setup, selection: population.Selection, wanted: bool) -> _Seen | None:
    """Look at a system; None where it is not magnified or cannot be bright enough. A picture only where wanted."""
    groups, lens = made.source(i), made.lens(i)
    beta, reach = float(np.hypot(*made.beta[i])), made.reach(i)
    centre = (float(made.x[i] + made.beta[i, 0]), float(made.y[i] + made.beta[i, 1]))
    colour = np.stack([made.host[i], made.knots[i]])[: len(groups)]  # (group, band)
    share = colour.sum(1) / colour.sum()  # the magnification is that of the flux in all bands
    if not wanted:
        found = arcs.magnification(lens, groups, beta=beta, reach=reach, centre=centre)
        value = float((found.numpy() * share).sum())
        return _Seen(None, 0.0, value, np.nan) if value > selection.magnification else None
    drawn = arcs.draw(lens, groups, beta=beta, reach=reach, centre=centre, bands=setup.bands,
                      oversample=selection.oversample, odd=setup.size % 2)  # fmt: skip
    value = float((drawn.magnification.numpy() * share).sum())
    if value <= selection.magnification:
        return None
    picture = torch.einsum("gb,gbyx->byx", torch.from_numpy(colour).float(), drawn.images)
    sigma = torch.tensor([b.sigma for b in setup.bands]).view(-1, 1, 1)
    unit_snr = float((picture / sigma).square().sum().sqrt())  # of 1 nJy in the reference band
    bright, faint = population.SOURCE_MAGNITUDES
    if selection.arc_snr > 0:
        faint = min(faint, float(brightness(selection.arc_snr / unit_snr)))
    if faint <= bright:
        return None
    magnitude = float(magnitudes(made.magnitude_u[i : i + 1], bright, faint)[0])
    flux = float(njy(magnitude))
    return _Seen(picture * flux, unit_snr * flux, value, magnitude)


def _sky(
    numbers: NDArray[np.int64],
    draws: Draws,
    setup: Setup,
    kind: NDArray[np.int64],
    with_galaxy: NDArray[np.int64],
    made: population.Systems,
    with_field: bool,
) -> tuple[Components, list[confusers.Feature]]:
    """All light but the arcs."""
    limit = _field_limit(setup.reference)
    side = setup.size * setup.bands[0].pixel_scale
    parts = list(_lens_light(with_galaxy, made))
    if with_field:
        u = draws.uniform(numbers, FIELD_DRAWS, stream=FIELD)
        parts.append(field(u, setup.bands, setup.reference, side, limit))
    features: list[confusers.Feature] = []
    u = draws.uniform(numbers, confusers.DRAWS, stream=_CONFUSER)
    centre = setup.bands[0].pixel_scale * (u[:, -2:] - 0.5)
    for code, function in ((2, confusers.spirals), (3, confusers.rings), (4, confusers.mergers)):
        rows = np.flatnonzero(kind == code)
        if len(rows):
            smooth, more = function(rows, u[rows], setup.bands, setup.reference, centre[rows])
            parts.append(smooth)
            features += more
    rows = np.flatnonzero(kind == 5)
    if len(rows):
        parts.append(confusers.companions(rows, u[rows], setup.bands, setup.reference, centre[rows], limit))
    return join(parts), features


def _field_limit(band: Band) -> float:
    """Magnitude of a galaxy of 0.6 arcsec that stands out at a signal-to-noise ratio of 7."""
    return depth(replace(band, psf_fwhm=float(np.hypot(band.psf_fwhm, 0.6))), 7.0)


def _lens_light(rows: NDArray[np.int64], made: population.Systems) -> Iterator[Components]:
    galaxy = made.galaxy
    if len(rows):
        g1, g2 = axis_ratio_shear(galaxy.q, galaxy.angle)
        yield Components(rows, galaxy.re, np.full(len(rows), 4.0), g1, g2, made.x, made.y, galaxy.flux)


def _truth(kind: NDArray[np.int64], with_galaxy: NDArray[np.int64], made: population.Systems, seen: list[_Seen],
           pixel_scale: float) -> dict[str, Truth]:  # fmt: skip
    n, is_lens = len(kind), kind == 0
    mine = kind[with_galaxy] == 0

    def column(values: NDArray[np.float64], empty: float = np.nan) -> Tensor:
        out = np.full((n, *values.shape[1:]), empty, dtype=np.float32)
        out[is_lens] = values[mine]
        return torch.from_numpy(out)

    shear = np.stack([made.shear1, made.shear2], 1)
    centre = np.stack([made.x, made.y], 1) / pixel_scale
    return {
        "is_lens": Truth(torch.from_numpy(is_lens.astype(np.int64)), classes=("other", "lens")),
        "kind": Truth(torch.from_numpy(kind), classes=KINDS),
        "theta_e": Truth(column(made.theta_e), unit="arcsec"),
        "ellipticity": Truth(column(population.mass_ellipticity(made)), moves="spin2"),
        "shear": Truth(column(shear), moves="spin2"),
        "centre": Truth(column(centre), moves="vector", unit="pix"),
        "z_lens": Truth(column(made.galaxy.z)),
        "z_source": Truth(column(made.z_source)),
        "velocity_dispersion": Truth(column(made.galaxy.sigma), unit="km/s"),
        "snr_arc": Truth(column(np.array([s.snr for s in seen], dtype=np.float64), 0.0)),
        "magnification": Truth(column(np.array([s.magnification for s in seen], dtype=np.float64))),
        "source_magnitude": Truth(column(np.array([s.magnitude for s in seen], dtype=np.float64)), unit="mag(AB)"),
    }
