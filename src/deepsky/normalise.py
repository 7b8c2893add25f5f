"""Normalisation: Sample -> tensor of order one, fitted on the training fold and stored in the model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepsky.errors import InputError
from deepsky.sample import Image, Observation, Row, Sample

BLOCK = 1 << 17  # numbers, half a megabyte
WIDTH = 2.5  # pixels
STRETCHES = ("auto", "asinh", "linear", "log")


class Normalise(nn.Module):
    """Stretch one observation, bring it to zero mean and unit variance a band, and fill what was not measured.

    Buffers hold what the training fold taught, one number a band or feature: the sky's sigma, the mean and the standard
    deviation after the stretch.

    Parameters
    ----------
    observation : name of the observation.
    stretch : "asinh" of flux over the sky's sigma (Lupton+1999), "log" of 1 + flux/sigma, "linear", or "auto": asinh
        where the noise is known or can be estimated from the pixels, linear for 8-bit pictures and rows.
    mask : append one channel a band that says what was measured.
    psf : append the PSF of every band, its peak one, cut or padded to the image: for shapes, and where seeing varies.
    detail : append what is fainter and smaller than the light around it: flux less its mean within a Gaussian of
        `WIDTH` pixels, over the sky's sigma, as asinh. The stretch alone makes an arc on a bright galaxy a change of a
        few per cent.
    """

    sigma: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        observation: str,
        stretch: str,
        channels: int,
        axes: int,
        mask: bool = False,
        psf: bool = False,
        detail: bool = False,
    ) -> None:
        super().__init__()
        self.observation, self.stretch, self.axes = observation, stretch, axes
        self.mask, self.psf, self.detail = mask, psf, detail
        self.channels = channels * (1 + mask + psf + detail)
        for name in ("sigma", "mean", "std"):
            self.register_buffer(name, torch.zeros(channels) if name == "mean" else torch.ones(channels))

    def config(self) -> dict[str, Any]:
        """JSON literals from which `Normalise(**config)` makes an unfitted one."""
        return {
            "observation": self.observation,
            "stretch": self.stretch,
            "channels": len(self.sigma),
            "axes": self.axes,
            "mask": self.mask,
            "psf": self.psf,
            "detail": self.detail,
        }

    def _stretched(self, flux: Tensor) -> Tensor:
        sigma = self.sigma.view(-1, *(1,) * self.axes)
        if self.stretch == "asinh":
            return _asinh(flux / sigma)
        if self.stretch == "log":
            return torch.sign(flux) * torch.log1p(torch.abs(flux) / sigma)
        return flux

    def _centred(self, flux: Tensor) -> Tensor:
        """Stretched, with zero mean and unit variance."""
        mean, std = (b.view(-1, *(1,) * self.axes) for b in (self.mean, self.std))
        if flux.requires_grad or flux.device.type != "cpu":
            return (self._stretched(flux) - mean) / std
        x = torch.empty_like(flux)  # a dozen passes, over as many objects at a time as stay in the processor's cache
        rows = max(1, BLOCK // max(1, flux[:1].numel()))
        for given, made in zip(torch.split(flux, rows), torch.split(x, rows), strict=True):
            torch.sub(self._stretched(given), mean, out=made).div_(std)
        return x

    def _detail(self, flux: Tensor, measured: Tensor, whole: bool) -> Tensor:
        """(n, band, y, x): flux less that around it, the mean taken over measured pixels alone."""
        seen = torch.ones((), dtype=flux.dtype, device=flux.device).expand(flux.shape[-2:])
        weight = seen if whole else measured.expand(flux.shape).to(flux.dtype)
        around = _blurred(flux) / _blurred(weight).clamp(min=1e-6)  # what was not measured is zero in flux already
        x = _asinh((flux - around).div_(self.sigma.view(-1, 1, 1)))
        return x if whole else x * weight

    def forward(self, sample: Sample) -> Tensor:
        """(n, channels, ...) float32."""
        part = sample.observation(self.observation)
        measured = part.ivar > 0
        whole = bool(measured.all())  # then there is nothing to fill: two passes over the pixels less
        flux = part.flux if whole else part.filled
        x = self._centred(flux)
        parts = [x if whole else torch.where(measured, x, 0.0)]
        if self.mask:
            parts.append(measured.expand(x.shape).to(x.dtype))
        if self.psf:
            parts.append(_psf(part, x.shape[-2:]))
        if self.detail:
            parts.append(self._detail(flux, measured, whole))
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _asinh(x: Tensor) -> Tensor:
    """asinh of a tensor that nobody else needs, as log1p(a + a**2 / (1 + sqrt(1 + a**2))), a = abs(x).

    `torch.asinh` works number by number on a processor, six times slower; the two differ by a unit in the last place.
    """
    if x.requires_grad:
        return torch.asinh(x)
    a = x.abs()
    root = torch.addcmul(torch.ones((), dtype=x.dtype, device=x.device), a, a).sqrt_().add_(1)
    root = torch.div(a, root, out=root)
    return torch.addcmul(a, a, root, out=a).log1p_().copysign_(x)


def _blurred(x: Tensor) -> Tensor:
    """(..., y, x) convolved with a Gaussian of `WIDTH` pixels, nothing beyond the edges.

    As two products with band matrices: seven times as fast as a convolution channel by channel on a processor. Not in
    half precision, in which a bright core is known to several sigma only.
    """
    with torch.autocast(x.device.type, enabled=False):
        return _band(x.shape[-2], x) @ (x @ _band(x.shape[-1], x))


def _band(n: int, like: Tensor) -> Tensor:
    """(n, n) symmetric matrix of the Gaussian, cut at 2.5 widths."""
    at = torch.arange(n, dtype=like.dtype, device=like.device)
    distance = (at[:, None] - at).abs()
    reach = math.ceil(2.5 * WIDTH)
    steps = torch.arange(-reach, reach + 1, dtype=like.dtype, device=like.device)
    total = torch.exp(-0.5 * (steps / WIDTH) ** 2).sum()
    return torch.exp(-0.5 * (distance / WIDTH) ** 2) * (distance <= reach) / total


def _psf(part: Observation, size: torch.Size) -> Tensor:
    """(n, band, y, x) PSF with its peak at one, cut or padded about its centre."""
    psf = part.psf if isinstance(part, Image) else None
    if psf is None:
        raise InputError("this model sees the PSF, and the survey has none", fix="ingest the PSF images too")
    psf = psf / psf.amax((-2, -1), keepdim=True).clamp(min=1e-30)
    spare = [s - p for s, p in zip(size, psf.shape[-2:], strict=True)]
    (top, left) = (s // 2 if s >= 0 else -(-s // 2) for s in spare)
    return nn.functional.pad(psf, (left, spare[1] - left, top, spare[0] - top))


CHANNELS = ("mask", "psf", "detail")


def fit(samples: list[Sample], observation: str, stretch: str = "auto", channels: str = "") -> Normalise:
    """Fit on some thousand objects of the training fold.

    Parameters
    ----------
    channels : further channels for the network, joined by commas: "mask", "psf", "detail". Rows always have their
        mask.

    Raises
    ------
    InputError : no such stretch or channel, nothing was measured in a band, or no PSF where one is asked for.
    """
    asked = {c.strip() for c in channels.split(",") if c.strip()}
    for name in asked - set(CHANNELS):
        raise InputError("no such channel", found=name, known=CHANNELS)
    if stretch not in STRETCHES:
        raise InputError("no such stretch", found=stretch, known=STRETCHES)
    parts = [s.observation(observation) for s in samples]
    first = parts[0]
    axes = 2 if isinstance(first, Image) else 0
    flux = torch.cat([torch.where(p.ivar > 0, p.flux, torch.nan) for p in parts]).transpose(0, 1).flatten(1)
    bands = first.bands if isinstance(first, Image) else first.names if isinstance(first, Row) else ()
    empty = torch.isnan(flux).all(1)
    if empty.any() and isinstance(first, Image):
        at = int(empty.nonzero()[0])
        raise InputError(
            "nothing was measured in this band", keyword=bands[at] if bands else str(at), fix="leave the band out"
        )
    sigma = _sigma(parts, flux, axes)
    if stretch == "auto":
        stretch = "asinh" if axes and _has_sky(flux, sigma) else "linear"
    mask = "mask" in asked or isinstance(first, Row)
    if "detail" in asked and not axes:
        raise InputError("the detail channel is for images", found=observation)
    made = Normalise(observation, stretch, len(flux), axes, mask=mask, psf="psf" in asked, detail="detail" in asked)
    if made.psf:
        _psf(first, first.flux.shape[-2:])
    made.sigma.copy_(sigma)
    x = made._stretched(flux.view(len(flux), *(-1, 1)[:axes])) if axes else flux
    x = x.reshape(len(flux), -1)
    mean = torch.nanmean(x, 1)
    std = torch.sqrt(torch.nanmean((x - mean[:, None]) ** 2, 1))
    made.mean.copy_(torch.nan_to_num(mean))
    # a constant band varies by rounding alone, which must not be blown up
    most = torch.nan_to_num(x).abs().amax(1)
    made.std.copy_(torch.where(torch.isfinite(std) & (std > 1e-6 * most), std, 1.0))
    return made


def _sigma(parts: list[Observation], flux: Tensor, axes: int) -> Tensor:
    """(bands,) the sky's sigma: from ivar where it is more than a mask, else from the differences of neighbours."""
    ivar = torch.cat([p.ivar.expand(p.flux.shape) for p in parts]).transpose(0, 1).flatten(1)
    mask_only = bool(((ivar == 0) | (ivar == 1)).all())
    found = []
    for f, w in zip(flux, ivar, strict=True):
        good = w > 0
        if not mask_only:
            found.append(float(torch.rsqrt(w[good]).median()) if good.any() else 1.0)
            continue
        step = (f[1:] - f[:-1])[torch.isfinite(f[1:]) & torch.isfinite(f[:-1])] if axes else f[torch.isfinite(f)]
        mad = float((step - step.median()).abs().median()) if len(step) else 0.0
        found.append(1.4826 * mad / (np.sqrt(2) if axes else 1.0) if mad > 0 else 1.0)
    return torch.tensor(found)


def _has_sky(flux: Tensor, sigma: Tensor) -> bool:
    """Whether there is a sky to scatter about: not for 8-bit pictures, which were stretched by their makers."""
    values = flux[torch.isfinite(flux)]
    whole = bool((values == values.round()).all()) and float(values.min()) >= 0 and float(values.max()) <= 255
    return not whole and bool((sigma > 0).all())
