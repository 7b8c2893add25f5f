"""Worse seeing: images smoothed to a broader PSF, with the noise that an exposure in such seeing would have.

Fluxes and PSF are convolved with a Gaussian. That smooths the noise too, so the part of the noise that it takes away is
put back, with the complementary power spectrum: white noise stays white and keeps its variance, and ``ivar`` stays
right. (``restore=False`` leaves the noise smooth and correlated, under an unchanged ``ivar``.) Truth stays as it is:
it is that of the object, not of its image.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from deepsky import random
from deepsky.augment import _fourier, _parts, _warp
from deepsky.errors import InputError
from deepsky.sample import Image, Sample

NOISE = True
SIGMA = 1 / math.sqrt(8 * math.log(2))  # of a Gaussian, in units of its FWHM


def apply(sample: Sample, *, seed: int, epoch: int, fwhm: float, current: float = 0.0, restore: bool = True) -> Sample:
    """Broaden each object's PSF to its own width, uniform between what it is and `fwhm`, in every band alike.

    Parameters
    ----------
    fwhm : the broadest PSF, full width at half maximum [arcsec]; a band that is broader already stays as it is.
    current : FWHM of the images as they are [arcsec], for those without a PSF; else it is measured from the PSF, as
        that of the Gaussian with the same noise-equivalent area.
    restore : put back the noise that smoothing takes away.

    Raises
    ------
    InputError : an unknown pixel scale, neither a PSF nor `current`, or a setting out of range.
    """
    _parts.at_least(fwhm, 0.0, "fwhm")
    _parts.at_least(current, 0.0, "current")
    images = _parts.images(sample)
    u = torch.from_numpy(random.uniform(seed, epoch, sample.key, stream="psf")).float()
    changes = {}
    for name, image in images.items():
        now = _width(image, name, current)
        target = now + u[:, None].to(now) * (fwhm / image.pixel_scale[:, None] - now).clamp(min=0)
        sigma = SIGMA * (target.square() - now.square()).clamp(min=0).sqrt()
        noise = random.normal(seed, epoch, sample.key, image.flux.shape[1:], f"psf/{name}") if restore else None
        changes[name] = broaden(image, sigma, None if noise is None else torch.from_numpy(noise).to(sigma.device))
    return _parts.changed(sample, changes)


def broaden(image: Image, sigma: Tensor, noise: Tensor | None = None) -> Image:
    """Convolve each object and band with a Gaussian of `sigma` (n, band) pixels; `noise` is white, of unit variance."""
    size = (image.flux.shape[-2], image.flux.shape[-1])
    flux = _fourier.smoothed(_warp.filled(image.flux, image.measured), sigma, (size[0] // 4, size[1] // 4))
    if noise is not None:
        taken = (1 - _fourier.response(size, sigma).square()).clamp(min=0).sqrt()
        put_back = torch.fft.irfft2(torch.fft.rfft2(noise) * taken, s=size)
        flux = flux + put_back * torch.where(image.ivar > 0, image.ivar, torch.inf).rsqrt()
    if bool((sigma == 0).any()):  # untouched to the last bit
        flux = torch.where((sigma > 0)[..., None, None], flux, image.flux)
    psf = image.psf
    if psf is not None:
        moved = _fourier.smoothed(psf, sigma, (psf.shape[-2] // 2, psf.shape[-1] // 2), "constant")
        moved = moved * (psf.sum((-2, -1), keepdim=True) / moved.sum((-2, -1), keepdim=True))
        psf = torch.where((sigma > 0)[..., None, None], moved.to(psf.dtype), psf)
    return replace(image, flux=flux.to(image.flux.dtype), psf=psf)


def _width(image: Image, name: str, current: float) -> Tensor:
    """(n, band) FWHM [pixels]."""
    if not bool(image.pixel_scale.isfinite().all()):
        raise InputError("a PSF in arcsec needs the pixel scale", keyword=name, found="pixel_scale nan",
                         expected="arcsec a pixel", fix="give it when the survey is ingested")  # fmt: skip
    if image.psf is not None:
        share = image.psf / image.psf.sum((-2, -1), keepdim=True)
        return 1 / (SIGMA * (4 * math.pi * share.square().sum((-2, -1))).sqrt())
    if current == 0:
        raise InputError(
            "these images have no PSF to broaden", keyword=name, fix="psf(fwhm=..., current=...) in arcsec"
        )
    return (current / image.pixel_scale[:, None]).expand(image.flux.shape[:2])
