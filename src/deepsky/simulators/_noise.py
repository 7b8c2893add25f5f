"""From a noiseless sky in nJy to what a detector returns: photon noise of sky and source, dark current, read noise.

All is done in electrons of the whole exposure and handed back in nJy (AB zero point 31.4) with the sky subtracted.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepsky.errors import InputError
from deepsky.simulators._random import NOISE, POISSON, Draws, Integers
from deepsky.simulators._surveys import NJY_ZERO_POINT, Band

Variance = Literal["background", "total"]


def njy(magnitude: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Flux of an AB magnitude [nJy]."""
    return np.asarray(np.power(10.0, 0.4 * (NJY_ZERO_POINT - np.asarray(magnitude))))


def magnitude(flux: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """AB magnitude of a flux [nJy]; NaN where it is not positive."""
    f = np.asarray(flux, dtype=np.float64)
    return np.asarray(NJY_ZERO_POINT - 2.5 * np.log10(np.where(f > 0, f, np.nan)))


def electrons(flux: Tensor, bands: tuple[Band, ...]) -> Tensor:
    """Electrons of the whole exposure from nJy; `flux` is (..., band, y, x)."""
    return flux * _scale(bands, flux)


def background_ivar(n: int, bands: tuple[Band, ...]) -> Tensor:
    """(n, band, 1, 1) inverse variance of a pixel of blank sky [nJy**-2]."""
    ivar = torch.tensor([band.sigma**-2 for band in bands], dtype=torch.float64).float()
    return ivar.view(1, -1, 1, 1).repeat(n, 1, 1, 1)


def observe(
    flux: Tensor,
    bands: tuple[Band, ...],
    draws: Draws,
    numbers: Integers,
    *,
    variance: Variance = "background",
    exact: bool = False,
    background: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Observe a noiseless sky.

    Parameters
    ----------
    flux : (n, band, y, x) noiseless, sky-subtracted [nJy].
    bands : of the axis, with their constants.
    draws, numbers : the random numbers, and (n,) which objects these are.
    variance : what `ivar` says: of the background alone, (n, band, 1, 1), or with the source's photons, per pixel.
    exact : draw the photons from Poisson's distribution instead of the normal one, which a sky of more than about
        50 electrons a pixel allows (four times faster).
    background : real sky (flux, ivar) [nJy], (n, band, y, x) and what broadcasts to it: the light is painted onto it
        with its own photon noise alone, and no other sky is added.

    Returns
    -------
    flux, ivar : observed [nJy], [nJy**-2].

    Raises
    ------
    InputError : a background of another shape.
    """
    scale = _scale(bands, flux)
    light = (flux * scale).clamp_min(0.0)
    if background is not None:
        return _paint(flux, light, scale, draws, numbers, background, variance)
    if exact:
        return _counted(flux, light, scale, bands, draws, numbers, variance)
    blank = torch.tensor([band.background_variance for band in bands]).to(flux).view(-1, 1, 1)
    noise = torch.from_numpy(draws.normal(numbers, tuple(flux.shape[1:]), stream=NOISE)).to(flux)
    total = light.add_(blank)
    observed = noise.mul_(total.sqrt()).div_(scale).add_(flux)
    if variance == "total":
        return observed, scale**2 / total
    return observed, background_ivar(len(flux), bands)


def _counted(flux: Tensor, light: Tensor, scale: Tensor, bands: tuple[Band, ...], draws: Draws, numbers: Integers,
             variance: Variance) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Photons counted one by one, read noise added to the sum of the exposures."""
    photons = torch.tensor([b.sky_electrons + b.dark * b.total_exposure for b in bands], dtype=torch.float64)
    mean = light.double() + photons.view(-1, 1, 1)
    counts = torch.from_numpy(draws.poisson(numbers, mean.numpy(), stream=POISSON))
    read = torch.tensor([b.n_exposures * b.read_noise**2 for b in bands]).view(-1, 1, 1)
    noise = torch.from_numpy(draws.normal(numbers, tuple(flux.shape[1:]), stream=NOISE))
    observed = (counts - photons.float().view(-1, 1, 1) + noise * read.sqrt()) / scale
    if variance == "total":
        return observed, scale**2 / (mean.float() + read)
    return observed, background_ivar(len(flux), bands)


def _paint(flux: Tensor, light: Tensor, scale: Tensor, draws: Draws, numbers: Integers,
           background: tuple[Tensor, Tensor], variance: Variance) -> tuple[Tensor, Tensor]:  # fmt: skip
    sky, ivar = background
    if sky.shape != flux.shape:
        raise InputError("a background of another shape", found=tuple(sky.shape), expected=tuple(flux.shape))
    noise = torch.from_numpy(draws.normal(numbers, tuple(flux.shape[1:]), stream=NOISE)).to(flux)
    observed = sky + flux + noise * light.sqrt() / scale
    if variance == "total":
        ivar = torch.where(ivar > 0, 1 / (1 / ivar.clamp_min(1e-30) + light / scale**2), 0.0)
    return observed, ivar


def _scale(bands: tuple[Band, ...], like: Tensor) -> Tensor:
    return torch.tensor([band.electrons_per_njy for band in bands]).to(like).view(-1, 1, 1)
