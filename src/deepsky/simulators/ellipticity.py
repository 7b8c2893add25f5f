"""Ellipticities and shear: galaxies as in GREAT3 control-ground-constant, sheared, blurred, noisy, in pairs.

Constants from the challenge's own configuration (GalSim examples/great3/cgc.yaml, great3_reject.py; Mandelbaum+2014):
48 x 48 pixels of 0.2", Kolmogorov PSF, Gaussian noise, S/N 17 to 100, shear in an annulus, pairs turned by 90 degrees.
The galaxies are bulge + disk with the shapes and bulge fractions of COSMOS and not the COSMOS catalogue itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

from deepsky.errors import InputError, need
from deepsky.io import blake_keys
from deepsky.sample import Image, Sample, Truth, stack
from deepsky.simulators import _render as render
from deepsky.simulators._galaxies import bulge_fraction, cosmos_shapes
from deepsky.simulators._limits import cramer_rao
from deepsky.simulators._profiles import combine_shear, psf_transform, sersic, sheared
from deepsky.simulators._random import Draws, one_thread, tabulated
from deepsky.simulators._surveys import GREAT3_GROUND, Great3

Floats = NDArray[np.float64]
Pairs = Literal["rotated", "plusminus", "quadruple", "none"]
MEMBERS: Final = {"rotated": 2, "plusminus": 2, "quadruple": 4, "none": 1}

PSF_FWHM: Final = ((0.45, 0.0), (0.55, 20.0), (0.65, 17.0), (0.75, 13.0), (0.85, 9.0), (0.95, 0.0))  # density
PSF_E: Final = (0.01, 0.03)  # distortion
_FINE, _BLOCK = 2, 16  # objects drawn together, always the same ones, so that a pixel never depends on n or first
_SHARED, _OWN, _FIELD_STREAM, _NOISE = 20, 21, 22, 23  # streams
_SHARED_DRAWS, _OWN_DRAWS = 8, 2
_DILATE: Final = 0.6  # GREAT3 shrinks COSMOS galaxies to look like fainter ones
_FAINT: Final = 23.5  # magnitude of COSMOS galaxies that are seen at the lowest S/N


@dataclass(frozen=True, eq=False)
class _Drawn:
    """One block; a row an object. Ellipticities (a - b)/(a + b), lengths [arcsec]."""

    e: Tensor
    g: Tensor
    re: Tensor
    bulge: Tensor
    snr: Tensor
    offset: Tensor
    fwhm: Tensor
    psf_e: Tensor


def simulate(
    n: int,
    *,
    seed: int,
    survey: str = "great3-ground",
    first: int = 0,
    pairs: Pairs = "rotated",
    per_field: int | None = None,
    optics: bool = False,
    shear: tuple[float, float] | None = None,
    keep_noiseless: bool = False,
) -> Sample:
    """Simulate sheared galaxies.

    Objects 2 k and 2 k + 1 are a pair: one galaxy, PSF and flux. "rotated" turns the second by 90 degrees before the
    shear, so that the pair's mean intrinsic ellipticity is zero; "plusminus" gives the two the same galaxy, centre and
    noise, and the opposite shear (Pujol+2019), so that half their difference is the response. "quadruple" is that pair,
    and the pair again with galaxy, centre and noise all turned by 90 degrees, but neither PSF nor shear: intrinsic
    shapes and noise drop out of the mean of an estimator that treats x and y alike. "none" makes no pairs.

    Parameters
    ----------
    n, seed, first : objects `first` to ``first + n - 1`` of the sky `seed`; an object is the same whatever n and first.
    per_field : objects that share PSF and shear, by default one set of pairs; GREAT3 has 10,000.
    optics : blur also with the challenge's telescope: defocus of rms 0.36 wave and seven smaller aberrations, one
        draw a field (slow unless fields are large).
    shear : apply this shear (g1, g2) to all, instead of one drawn from the annulus 0.01 < |g| < 0.05.
    keep_noiseless : also give the truth "noiseless" (image).

    Returns
    -------
    Sample with "image" (noise of unit variance; with the PSF as it is seen through the pixel), and truths ellipticity
    (intrinsic), shear and sheared (the ellipticity after shear), psf_ellipticity (all spin-2 (a - b)/(a + b), reduced
    shear), snr_matched, flux, re (of the disk, before shear) and psf_fwhm [arcsec], bulge_fraction, centre [pixels] and
    pair.

    Raises
    ------
    InputError : an unknown survey or way of pairing, or a `per_field` that tears pairs apart.
    """
    if survey != "great3-ground":
        raise InputError("no ellipticity simulation of this survey", found=survey, known=["great3-ground"])
    if pairs not in MEMBERS:
        raise InputError("no such pairs", found=pairs, known=sorted(MEMBERS))
    least = max(2, MEMBERS[pairs])
    per_field = least if per_field is None else per_field
    if per_field < 1 or per_field % least or n < 1 or first < 0:
        raise InputError("numbers out of range", found=f"per_field={per_field}, n={n}, first={first}",
                         expected=f"a per_field that {least} divides, n > 0, first >= 0")  # fmt: skip
    draws = Draws(seed)
    pieces = []
    for block in range(first // _BLOCK, (first + n - 1) // _BLOCK + 1):
        start = block * _BLOCK
        with one_thread():
            piece = _block(np.arange(start, start + _BLOCK), draws, GREAT3_GROUND, pairs, per_field, optics, shear,
                           keep_noiseless)  # fmt: skip
        low, high = max(first - start, 0), min(first + n - start, _BLOCK)
        pieces.append(piece if high - low == _BLOCK else piece[low:high])
    return stack(pieces) if len(pieces) > 1 else pieces[0]


def limit(sample: Sample) -> Tensor:
    """(n, 2) Cramer-Rao bounds of the ellipticity after shear, from the truths of a simulated sample without optics.

    The standard deviation of an unbiased estimator that knows the PSF and that the galaxy is a bulge and a disk of one
    ellipticity; flux, size, bulge fraction and centre are free. `_limits.van_trees` adds a prior's information.
    """
    t = {name: truth.value.double() for name, truth in sample.truth.items()}
    branch = GREAT3_GROUND
    grid = render.grid(branch.size, branch.pixel_scale, _FINE, padding=4 / 3, dtype=torch.float64)
    at = torch.stack([t["sheared"][:, 0], t["sheared"][:, 1], t["flux"], t["re"], t["bulge_fraction"],
                      *(t["centre"] * branch.pixel_scale).T], 1)  # fmt: skip
    step = torch.tensor([1e-3, 1e-3, 1.0, 1e-3, 1e-3, 1e-3, 1e-3], dtype=torch.float64)
    out = torch.empty(len(at), 2, dtype=torch.float64)
    for i, point in enumerate(at):
        psf = psf_transform(
            sheared(grid.kx, grid.ky, *t["psf_ellipticity"][i, :, None]), t["psf_fwhm"][i], "kolmogorov"
        )
        around = torch.cat([point + torch.diag(step), point - torch.diag(step)])
        k2 = sheared(grid.kx, grid.ky, around[:, 0], around[:, 1])
        shape = _profile(k2, around[:, 3], around[:, 4]) * render.phase(grid.kx, grid.ky, around[:, 5], around[:, 6])
        images = render.stamp(grid, shape * render.response(grid, psf)).flatten(1) * around[:, 2:3]
        jacobian = (images[: len(step)] - images[len(step) :]) / (2 * step[:, None])
        bound = cramer_rao((jacobian @ jacobian.T).numpy())
        out[i] = torch.from_numpy(bound[:2])
    return out


def _draw(numbers: NDArray[np.int64], draws: Draws, branch: Great3, pairs: Pairs, per_field: int,
          shear: tuple[float, float] | None) -> _Drawn:  # fmt: skip
    pair, member = np.divmod(numbers, MEMBERS[pairs])
    turned = _turned(numbers, pairs)[:, None]
    field = numbers // per_field
    f = draws.uniform(field, 5, stream=_FIELD_STREAM)
    u = draws.uniform(pair, _SHARED_DRAWS, stream=_SHARED)
    own = draws.uniform(numbers if pairs == "rotated" else pair, _OWN_DRAWS, stream=_OWN)
    table = np.array(PSF_FWHM)
    fwhm = tabulated(f[:, 0], table[:, 0], table[:, 1])
    distortion = PSF_E[0] + (PSF_E[1] - PSF_E[0]) * f[:, 1]
    psf_e = _polar(distortion / (1 + np.sqrt(1 - distortion**2)), f[:, 2])
    low, high = branch.shear
    g = _polar(np.sqrt(low**2 + (high**2 - low**2) * f[:, 3]), f[:, 4])  # uniform in area
    if shear is not None:
        g = np.broadcast_to(np.array(shear, dtype=np.float64), g.shape)
    e = np.stack(cosmos_shapes(u[:, 0], u[:, 1]), 1)
    e = np.where(turned, -e, e)
    if pairs in ("plusminus", "quadruple"):
        g = np.where(member[:, None] % 2 == 1, -g, g)
    # counts 10**(0.3 m) are S/N**-1.75
    power, (least, most) = -0.75, branch.snr
    snr = (least**power + u[:, 2] * (most**power - least**power)) ** (1 / power)
    magnitude = _FAINT - 2.5 * np.log10(snr / least)
    re = _sizes(u[:, 3], _DILATE * 0.4 * 10 ** (-0.1 * (magnitude - 22.0)), fwhm, branch)
    offset = branch.offset * branch.pixel_scale * (2 * own - 1)
    if pairs == "quadruple":
        offset = np.where(turned, np.stack([-offset[:, 1], offset[:, 0]], 1), offset)
    values = (e, np.ascontiguousarray(g), re, bulge_fraction(u[:, 4]), snr, offset, fwhm, psf_e)
    return _Drawn(*(torch.from_numpy(v).float() for v in values))


def _turned(numbers: NDArray[np.int64], pairs: Pairs) -> NDArray[np.bool_]:
    """Which objects are turned by 90 degrees against the first of their set."""
    each = {"rotated": 1, "quadruple": 2}.get(pairs)
    return np.zeros(len(numbers), bool) if each is None else numbers // each % 2 == 1


def _polar(length: Floats, turn: Floats) -> Floats:
    return np.stack([length * np.cos(2 * np.pi * turn), length * np.sin(2 * np.pi * turn)], 1)


def _sizes(u: Floats, median: Floats, fwhm: Floats, branch: Great3) -> Floats:
    """Half-light radii, log-normal with 0.2 dex, resolved as GREAT3 demands and small enough for the stamp.

    For Gaussians the resolution is ``re**2 / (re**2 + (FWHM/2)**2)``; the challenge's adaptive moments differ a little.
    """
    least = np.sqrt(branch.resolution / (1 - branch.resolution)) * 0.5 * fwhm
    a = ndtr(np.log10(least / median) / 0.2)
    b = ndtr(np.log10(1.0 / median) / 0.2)
    return np.asarray(median * 10 ** (0.2 * ndtri(a + u * (b - a))))


def _block(numbers: NDArray[np.int64], draws: Draws, branch: Great3, pairs: Pairs, per_field: int, optics: bool,
           shear: tuple[float, float] | None, keep_noiseless: bool) -> Sample:  # fmt: skip
    d = _draw(numbers, draws, branch, pairs, per_field, shear)
    grid = render.grid(branch.size, branch.pixel_scale, _FINE, padding=4 / 3)
    psf = psf_transform(sheared(grid.kx, grid.ky, d.psf_e[:, 0], d.psf_e[:, 1]), d.fwhm.view(-1, 1, 1), "kolmogorov")
    if optics:
        psf = psf * torch.stack([_telescope(draws.seed, int(f), grid) for f in numbers // per_field])
    transfer = render.response(grid, psf)
    seen = torch.stack(combine_shear(d.e[:, 0], d.e[:, 1], d.g[:, 0], d.g[:, 1]), 1)
    shape = _galaxy(grid, d, seen)
    unit = render.stamp(grid, shape * render.phase(grid.kx, grid.ky, d.offset[:, 0], d.offset[:, 1]) * transfer)
    # the flux must not know the shear: it is set by the unsheared, centred galaxy
    turned = torch.from_numpy(_turned(numbers, pairs))
    plain = render.stamp(grid, _galaxy(grid, d, torch.where(turned[:, None], -d.e, d.e)) * transfer)
    flux = d.snr / plain.square().sum((-2, -1)).sqrt()
    noiseless = unit * flux.view(-1, 1, 1)
    same = numbers if pairs == "rotated" else numbers - numbers % MEMBERS[pairs]
    noise = torch.from_numpy(draws.normal(same, (branch.size, branch.size), stream=_NOISE))
    if pairs == "quadruple":
        noise = torch.where(turned[:, None, None], torch.rot90(noise, 1, (-1, -2)), noise)
    images = render.stamp(grid, transfer)
    truth = {
        "ellipticity": Truth(d.e, moves="spin2"),
        "shear": Truth(d.g, moves="spin2"),
        "sheared": Truth(seen, moves="spin2"),
        "psf_ellipticity": Truth(d.psf_e, moves="spin2"),
        "snr_matched": Truth(noiseless.square().sum((-2, -1)).sqrt()),
        "flux": Truth(flux),
        "re": Truth(d.re, unit="arcsec"),
        "psf_fwhm": Truth(d.fwhm, unit="arcsec"),
        "bulge_fraction": Truth(d.bulge),
        "centre": Truth(d.offset / branch.pixel_scale, moves="vector", unit="pix"),
        "pair": Truth(torch.from_numpy(numbers // MEMBERS[pairs])),
    }
    if keep_noiseless:
        truth["noiseless"] = Truth(noiseless[:, None], moves="image")
    return _sample(
        numbers, draws.seed, pairs, noiseless + noise, images / images.sum((-2, -1), keepdim=True), truth, branch
    )


def _galaxy(grid: render.Grid, d: _Drawn, e: Tensor) -> Tensor:
    """(c, rows, columns) transform of bulge (n = 4, half the disk's radius) and disk (n = 1) of one ellipticity."""
    return _profile(sheared(grid.kx, grid.ky, e[:, 0], e[:, 1]), d.re, d.bulge)


def _profile(k2: Tensor, re: Tensor, bulge: Tensor) -> Tensor:
    share, ones = bulge.view(-1, 1, 1), torch.ones_like(re)
    return share * sersic(k2, 0.5 * re, 4 * ones) + (1 - share) * sersic(k2, re, ones)


def _sample(numbers: NDArray[np.int64], seed: int, pairs: Pairs, flux: Tensor, psf: Tensor, truth: dict[str, Truth],
            branch: Great3) -> Sample:  # fmt: skip
    n = len(numbers)
    ids = tuple(f"ellipticity-{pairs}-{seed}-{i}" for i in numbers.tolist())
    image = Image(flux[:, None], torch.ones(n, 1, 1, 1), unit="", bands=("r",), psf=psf[:, None],
                  pixel_scale=torch.full((n,), branch.pixel_scale))  # fmt: skip
    nowhere = torch.full((n,), torch.nan, dtype=torch.float64)
    keys = torch.from_numpy(blake_keys(ids).view(np.int64).copy())
    return Sample(ids, keys, nowhere, nowhere.clone(), {"image": image}, truth)


@lru_cache(maxsize=32)
def _telescope(seed: int, field: int, grid: render.Grid) -> Tensor:
    """Transform of a field's telescope: the aberrations of cgc.yaml, centred and with a unit sum."""
    galsim: Any = need("galsim", "simulate")
    u = Draws(seed).uniform(np.array([field]), 10, stream=_FIELD_STREAM + 10)[0]
    names = ("defocus", "astig1", "astig2", "coma1", "coma2", "trefoil1", "trefoil2", "spher")
    waves = dict(zip(names, np.array([0.36] + [0.07] * 7) * ndtri(u[2:]), strict=True))
    psf = galsim.OpticalPSF(
        lam_over_diam=0.013 + 0.07 * u[0], obscuration=0.1 + 0.4 * u[1], suppress_warning=True, **waves
    )
    points, spacing = grid.period * grid.fine, grid.pixel_scale / grid.fine
    fine = psf.drawImage(nx=points, ny=points, scale=spacing, method="no_pixel").array
    picture = torch.from_numpy(np.fft.ifftshift(fine / fine.sum()).astype(np.float32))
    transform: Tensor = torch.fft.rfft2(picture)
    return transform
