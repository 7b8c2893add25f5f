"""What every image feature begins with: pixels without holes, the sky's sigma, zones and apertures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from deepsky.errors import InputError

Noise = Literal["measured", "unknown"]


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images as the features see them.

    Attributes
    ----------
    flux : (n, band, y, x) float32; an unmeasured pixel holds the mean of its nearest measured neighbours, an unmeasured
        band zeros.
    sigma : (n, band) noise of one sky pixel, in the unit of `flux`; 1 where a band was not measured.
    fraction : (n, band) share of measured pixels.
    """

    flux: Tensor
    sigma: Tensor
    fraction: Tensor

    @property
    def missing(self) -> Tensor:
        """(n, band) bool: nothing was measured in this band."""
        return self.fraction == 0

    @property
    def stretched(self) -> Tensor:
        """(n, band, y, x) asinh(flux / sigma): linear in the noise, logarithmic in the light."""
        return asinh(self.flux / self.sigma[..., None, None])

    @property
    def detection(self) -> Tensor:
        """(n, y, x) sum of the bands weighted by their inverse variance, in units of its noise."""
        weight = torch.where(self.missing, 0.0, 1.0 / self.sigma)
        total = weight.square().sum(1).clamp(min=1e-30).sqrt()
        scaled = self.flux * (weight / self.sigma.where(~self.missing, torch.ones_like(self.sigma)))[..., None, None]
        return scaled.sum(1) / total[:, None, None]


def prepare(flux: Tensor, ivar: Tensor, noise: Noise = "measured") -> Pixels:
    """Fill the holes and find the sky's noise.

    Parameters
    ----------
    flux : (n, band, y, x).
    ivar : broadcastable to `flux`, 0 where nothing was measured.
    noise : "measured": sigma is the root of the inverse of the mean ivar; "unknown": ivar is only a mask, and sigma
        comes from the median absolute difference of neighbouring pixels.

    Raises
    ------
    InputError : not a stack of images, or an `ivar` of a shape that does not fit.
    """
    if flux.ndim != 4:
        raise InputError("not a stack of images", found=tuple(flux.shape), expected="(n, band, y, x)")
    ivar = ivar[(None,) * (4 - ivar.ndim)]
    try:
        measured = (ivar > 0).expand(flux.shape)
    except RuntimeError as error:
        raise InputError(
            "ivar does not broadcast to flux", found=tuple(ivar.shape), expected=tuple(flux.shape)
        ) from error
    share = (ivar > 0).float().mean((-1, -2))  # before it is broadcast: cheap where ivar is one number a band
    fraction = share.expand(flux.shape[:2])
    filled = flux.float()
    holes = fraction.amin(1) < 1
    if bool(holes.any()):  # images without a hole are left as they are, whatever stands beside them in the batch
        filled = filled.clone()
        filled[holes] = _fill(torch.where(measured[holes], filled[holes], 0.0), measured[holes])
    if noise == "measured":
        mean = ivar.clamp(min=0).float().mean((-1, -2)) / share.clamp(min=1e-6)
        sigma = mean.clamp(min=1e-38).rsqrt().expand(fraction.shape)
    else:
        sigma = estimated_sigma(filled)
    return Pixels(filled, torch.where(fraction > 0, sigma, 1.0), fraction)


def _fill(flux: Tensor, measured: Tensor) -> Tensor:
    """Means over growing windows, until every hole of a measured band is filled."""
    n, b, y, x = flux.shape
    weight = measured.float().reshape(n * b, 1, y, x)
    light = flux.reshape(n * b, 1, y, x)
    found, window = torch.zeros_like(light), 3
    open_ = ~measured.reshape(n * b, 1, y, x)
    while window < 2 * max(y, x) + 2 and bool(open_.any()):
        pad = window // 2
        near = F.avg_pool2d(weight, window, 1, pad)
        mean = F.avg_pool2d(light, window, 1, pad) / near.clamp(min=1e-12)
        here = open_ & (near > 0.5 / window**2)
        found = torch.where(here, mean, found)
        open_ = open_ & ~here
        window = 2 * window + 1
    return torch.where(measured, flux, found.reshape(n, b, y, x))


def estimated_sigma(flux: Tensor) -> Tensor:
    """(n, band) sigma of a pixel from 1.4826 median|difference of neighbours| / sqrt(2).

    Never zero: at least a thousandth of the root mean square, or one for a constant image.
    """
    along, across = flux[..., 1:] - flux[..., :-1], flux[..., 1:, :] - flux[..., :-1, :]
    step = torch.cat([along.flatten(-2), across.flatten(-2)], -1).abs()
    sigma: Tensor = step.median(-1).values * (1.4826 / 2**0.5)
    rms = flux.flatten(-2).std(-1)
    return torch.where(rms > 0, torch.maximum(sigma, 1e-3 * rms), 1.0)


def asinh(x: Tensor) -> Tensor:
    """Inverse hyperbolic sine, five times as fast as torch's, to 1e-7 absolute."""
    size = x.abs()
    return torch.copysign((size + (size * size + 1).sqrt()).log(), x)


@lru_cache(maxsize=16)
def radius(y: int, x: int) -> tuple[Tensor, Tensor]:
    """Distance from the image's centre [pixel] and position angle from +x towards +y [rad], both (y, x).

    The angle of the very centre is NaN: it has none.
    """
    dy = torch.arange(y, dtype=torch.float32) - (y - 1) / 2
    dx = torch.arange(x, dtype=torch.float32) - (x - 1) / 2
    r = torch.hypot(dy[:, None], dx[None, :])
    return r, torch.atan2(dy[:, None], dx[None, :].expand(y, x)).masked_fill(r == 0, torch.nan)


@lru_cache(maxsize=16)
def apertures(y: int, x: int, shares: tuple[float, ...]) -> Tensor:
    """(apertures, y * x) the share of every pixel within circles of `shares` times half the image's shorter side."""
    r = radius(y, x)[0].reshape(1, -1)
    edges = torch.tensor(shares)[:, None] * min(y, x) / 2
    return (edges - r + 0.5).clamp(0, 1)  # a pixel is counted by how far it lies inside the edge


@lru_cache(maxsize=16)
def zones(y: int, x: int, count: int) -> Tensor:
    """(count, y * x) weights of the mean over rings whose widths grow outwards; every row sums to one.

    The corners belong to the last ring.
    """
    edges = torch.linspace(0, 1, count + 1)[1:-1] ** 1.5 * min(y, x) / 2
    ring = torch.bucketize(radius(y, x)[0].reshape(-1), edges)
    member = F.one_hot(ring, count).float().T.contiguous()
    return member / member.sum(1, keepdim=True).clamp(min=1)


def zone_names(prefix: str, bands: tuple[str, ...], count: int) -> tuple[str, ...]:
    """``prefix.band.zoneK`` in the order of a (band, zone) array."""
    return tuple(f"{prefix}.{b}.zone{k}" for b in bands for k in range(count))


def block_mean(images: Tensor, y: int, x: int) -> Tensor:
    """(..., y, x) means over blocks that cover the image, and never more of them than it has pixels."""
    *lead, height, width = images.shape
    if (height, width) == (y, x):
        return images
    found = F.adaptive_avg_pool2d(images.reshape(-1, 1, height, width), (min(y, height), min(x, width)))
    return found.reshape(*lead, *found.shape[-2:])
