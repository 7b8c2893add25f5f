"""What no estimator can beat: Cramer-Rao bounds of a galaxy's shape, and the bound that a prior adds.

Noise is Gaussian, white and known, so that the Fisher matrix is ``F = J J^T / sigma**2`` with the derivatives J of the
noiseless image. Ellipticities are (a - b)/(a + b).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from deepsky.errors import InputError
from deepsky.simulators import _render as render
from deepsky.simulators._profiles import Family, psf_transform, sersic_transform, sheared

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Galaxy:
    """A Sersic galaxy; lengths in arcsec."""

    flux: float = 1.0
    re: float = 0.5
    n: float = 1.0
    e1: float = 0.2
    e2: float = 0.1
    x: float = 0.0
    y: float = 0.0


PARAMETERS: Final = tuple(f.name for f in fields(Galaxy))
_STEPS: Final = {"flux": 1e-3, "re": 1e-3, "n": 1e-2, "e1": 1e-3, "e2": 1e-3, "x": 1e-3, "y": 1e-3}


def galaxy_image(
    galaxy: Galaxy, *, pixel_scale: float, fwhm: float, family: Family = "moffat", size: int = 64
) -> Tensor:
    """(size, size) noiseless image in double precision, flux per pixel; the profile's transform is not tabulated."""
    fine = render.samples_per_pixel(pixel_scale, fwhm, family)
    g = render.grid(size, pixel_scale, fine, padding=2.0, dtype=torch.float64)
    e1, e2 = torch.tensor([galaxy.e1]).double(), torch.tensor([galaxy.e2]).double()
    k = sheared(g.kx, g.ky, e1, e2)[0].clamp_min(1e-16).sqrt() * galaxy.re
    log_k, transform = sersic_transform(galaxy.n)
    value = np.interp(np.log(k.numpy()), log_k, transform, left=1.0)
    x, y = torch.tensor([galaxy.x]).double(), torch.tensor([galaxy.y]).double()
    spectrum = torch.from_numpy(value) * render.phase(g.kx, g.ky, x, y)[0] * galaxy.flux
    return render.stamp(g, spectrum * render.response(g, psf_transform(g.k2, fwhm, family)))


def fisher(
    image: Callable[[Floats], Floats], at: Sequence[float], steps: Sequence[float], sigma: float = 1.0
) -> Floats:
    """Fisher matrix of the parameters `at` by central differences.

    Parameters
    ----------
    image : from parameters (p,) to a noiseless image of any shape.
    steps : of each parameter.
    sigma : noise of a pixel.
    """
    point = np.asarray(at, dtype=np.float64)
    rows = []
    for i, step in enumerate(steps):
        up, down = point.copy(), point.copy()
        up[i] += step
        down[i] -= step
        rows.append((image(up) - image(down)).reshape(-1) / (2 * step))
    jacobian = np.array(rows) / sigma
    return np.asarray(jacobian @ jacobian.T)


def cramer_rao(information: Floats) -> Floats:
    """(p,) smallest standard deviations of unbiased estimators, all parameters free.

    Raises
    ------
    InputError : the matrix is singular: some parameters cannot be told apart.
    """
    scale = np.sqrt(np.diag(information))
    if not (np.isfinite(information).all() and (scale > 0).all()):
        raise InputError("a Fisher matrix without information on some parameter", found=np.diag(information).tolist())
    inverse = np.linalg.inv(information / np.outer(scale, scale))
    if (np.diag(inverse) <= 0).any():
        raise InputError("a singular Fisher matrix", found=f"condition {np.linalg.cond(information):.1e}")
    return np.asarray(np.sqrt(np.diag(inverse)) / scale)


def van_trees(information: Floats | float, prior_variance: Floats | float) -> Floats:
    """Smallest mean square error that any estimator reaches, averaged over a prior: ``1 / (F + 1/var)``.

    `information` is the Fisher information of the parameter with the others free, ``cramer_rao**-2``, averaged over
    the prior; a Gaussian prior reaches ``prior_variance`` in the second term, others have more information.
    """
    return np.asarray(1.0 / (np.asarray(information) + 1.0 / np.asarray(prior_variance)))


def galaxy_bounds(galaxy: Galaxy, snr: float, *, pixel_scale: float, fwhm: float, family: Family = "moffat",
                  size: int | None = None) -> dict[str, float]:  # fmt: skip
    """Cramer-Rao bounds of flux, re, n, e1, e2, x, y, all free, at a matched-filter signal-to-noise ratio.

    flux and re are relative errors, x and y in pixels. `size` is that of the stamp, by default 12 re or 10 FWHM.
    """
    if size is None:
        size = 2 * int(np.ceil(max(12 * galaxy.re, 10 * fwhm) / (2 * pixel_scale)))
    unit = replace(galaxy, flux=1.0)

    def image(p: Floats) -> Floats:
        return galaxy_image(Galaxy(*p.tolist()), pixel_scale=pixel_scale, fwhm=fwhm, family=family, size=size).numpy()

    at = [getattr(unit, name) for name in PARAMETERS]
    sigma = float(np.sqrt((image(np.array(at)) ** 2).sum())) / snr
    bound = dict(zip(PARAMETERS, cramer_rao(fisher(image, at, list(_STEPS.values()), sigma)).tolist(), strict=True))
    return bound | {"re": bound["re"] / galaxy.re, "x": bound["x"] / pixel_scale, "y": bound["y"] / pixel_scale}


# -- the ideal observer of arcs -------------------------------------------------------------------------------------
def detection_auroc(snr: Floats) -> float:
    """Area under the ROC curve of the likelihood ratio for lenses whose arcs have the signal-to-noise ratios `snr`.

    With the lens galaxy's light and the arcs known, the matched filter is N(0, 1) without arcs and N(snr, 1) with
    them, if each image is compared with itself without arcs; the mean of ``Phi(snr / sqrt(2))`` over the lenses.
    """
    return float(norm.cdf(np.asarray(snr) / np.sqrt(2)).mean())


def detection_tpr(snr: Floats, fpr: float) -> float:
    """Completeness of the likelihood ratio at a false positive rate: the mean of ``Phi(snr - Phi^-1(1 - fpr))``."""
    return float(norm.cdf(np.asarray(snr) - norm.isf(fpr)).mean())


def likelihood_ratio(arcs: Floats, residual: Floats, ivar: Floats) -> Floats:
    """(n,) matched filter ``sum(arcs residual ivar) / sqrt(sum(arcs**2 ivar))`` of images less all other light.

    Parameters
    ----------
    arcs, residual : (n, band, y, x); the arcs that would be there, and the image less galaxies.
    ivar : broadcasts to them.
    """
    weighted = arcs * ivar
    axes = tuple(range(1, arcs.ndim))
    return np.asarray((weighted * residual).sum(axes) / np.sqrt((weighted * arcs).sum(axes)))


def star_galaxy_auroc(snr: float, re: float, *, pixel_scale: float, fwhm: float, family: Family = "moffat") -> float:
    """Ideal observer of a star against a round exponential galaxy, amplitude and centre free.

    The part of the galaxy's image that a star of any flux and (slightly) other place cannot make has the norm d, in
    units of the noise; the statistic is N(0, 1) for stars and N(d, 1) for galaxies.
    """
    size = 2 * int(np.ceil(max(12 * re, 10 * fwhm) / (2 * pixel_scale)))

    def image(r: float, x: float = 0.0, y: float = 0.0) -> Floats:
        one = Galaxy(1.0, r, 1.0, 0.0, 0.0, x, y)
        return galaxy_image(one, pixel_scale=pixel_scale, fwhm=fwhm, family=family, size=size).numpy().reshape(-1)

    galaxy, step = image(re), 1e-3
    star = [
        image(1e-4),
        *((image(1e-4, *d) - image(1e-4, *(-v for v in d))) / (2 * step) for d in ((step, 0.0), (0.0, step))),
    ]
    basis = np.linalg.qr(np.array(star).T)[0]
    rest = galaxy - basis @ (basis.T @ galaxy)
    d = snr * float(np.linalg.norm(rest) / np.linalg.norm(galaxy))
    return float(norm.cdf(d / np.sqrt(2)))


def shear_bias_error(n: float, sigma_e: float, shear_rms: float = 0.0255) -> float:
    """Standard error of the multiplicative shear bias from `n` galaxies: ``sigma_e / (shear_rms sqrt(n))``."""
    return sigma_e / (shear_rms * float(np.sqrt(n)))


def annulus_rms(low: float, high: float) -> float:
    """Root mean square of one component of a shear that is uniform in an annulus."""
    moment = quad(lambda g: g**3, low, high)[0] / quad(lambda g: g, low, high)[0]
    return float(np.sqrt(0.5 * moment))
