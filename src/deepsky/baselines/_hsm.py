"""GalSim's HSM, one object at a time, for benchmarks only: adaptive moments, regaussianisation.

Hirata & Seljak (2003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsky.errors import InputError, need

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HsmShapes:
    """What HSM found, each (n,), NaN where it failed.

    Attributes
    ----------
    e1, e2 : distortion (a^2 - b^2) / (a^2 + b^2) in the pixel frame; of the observed image, or corrected for the PSF.
    sigma : size of the adaptive weight of the observed image [pixel].
    x, y : centre from the image's centre [pixel].
    rho4 : weighted mean of the fourth power of the elliptical radius.
    sigma_e : HSM's own error of e1 and e2 (regaussianisation only, else NaN).
    resolution : 0 unresolved, 1 far larger than the PSF (regaussianisation only, else NaN).
    error : HSM's message, "" where it succeeded.
    """

    e1: Array
    e2: Array
    sigma: Array
    x: Array
    y: Array
    rho4: Array
    sigma_e: Array
    resolution: Array
    error: NDArray[Any]


def hsm_moments(images: NDArray[Any], guess: float = 3.0) -> HsmShapes:
    """Adaptive moments of images (n, y, x) without correction; `guess` is a first sigma [pixel].

    Raises
    ------
    MissingExtra : GalSim is not installed.
    """
    galsim = need("galsim", "simulate")

    def one(i: int, image: Any) -> Any:
        return galsim.hsm.FindAdaptiveMom(image, guess_sig=guess, strict=False)

    return _each(images, one, lambda s: (s.observed_e1, s.observed_e2, np.nan, np.nan))


def hsm_regauss(
    images: NDArray[Any], psf: NDArray[Any], sky_sigma: NDArray[Any] | float, guess: float = 3.0
) -> HsmShapes:
    """Shapes corrected for the PSF by regaussianisation.

    Parameters
    ----------
    images : (n, y, x), sky subtracted.
    psf : (py, px) of all, or (n, py, px), on the same pixels.
    sky_sigma : noise of a pixel, one number or (n,): of use for `sigma_e` only.

    Returns
    -------
    The mean of e over a population is 2 R g under a shear g, with the responsivity R = 1 - rms(e)^2.

    Raises
    ------
    MissingExtra : GalSim is not installed.
    InputError : PSFs that do not fit the images.
    """
    galsim = need("galsim", "simulate")
    psf = np.asarray(psf, np.float64)
    if psf.ndim not in (2, 3) or (psf.ndim == 3 and len(psf) != len(images)):
        expected = f"(y, x) or ({len(images)}, y, x)"
        raise InputError("PSFs that do not fit the images", found=psf.shape, expected=expected)
    noise = np.broadcast_to(np.asarray(sky_sigma, np.float64), (len(images),))
    shared = galsim.Image(np.ascontiguousarray(psf), scale=1.0) if psf.ndim == 2 else None

    def one(i: int, image: Any) -> Any:
        kernel = shared if shared is not None else galsim.Image(np.ascontiguousarray(psf[i]), scale=1.0)
        return galsim.hsm.EstimateShear(
            image, kernel, sky_var=float(noise[i]) ** 2, shear_est="REGAUSS", guess_sig_gal=guess, strict=False
        )

    return _each(images, one, lambda s: (s.corrected_e1, s.corrected_e2, s.corrected_shape_err, s.resolution_factor))


def _each(images: NDArray[Any], one: Any, shape: Any) -> HsmShapes:
    galsim = need("galsim", "simulate")
    n, h, w = images.shape
    numbers, errors = np.full((8, n), np.nan), np.full(n, "", dtype=object)
    for i in range(n):
        found = one(i, galsim.Image(np.ascontiguousarray(images[i], dtype=np.float64), scale=1.0))
        errors[i] = found.error_message
        if found.error_message:
            continue
        first, second, error, resolved = shape(found)
        centre = found.moments_centroid  # the first pixel is 1
        numbers[:, i] = (first, second, found.moments_sigma, centre.x - (w + 1) / 2, centre.y - (h + 1) / 2,
                         found.moments_rho4, error, resolved)  # fmt: skip
    e1, e2, sigma, x, y, rho4, sigma_e, resolution = numbers
    return HsmShapes(e1, e2, sigma, x, y, rho4, sigma_e, resolution, errors)
