"""A sky with known shapes: Gaussians behind Gaussian PSFs, and their shapes measured back from the pixels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from deepsky.sample import Image, Sample, Truth

SCALE = 0.2  # arcsec a pixel
PSF_SIGMA = (2.0, 2.4)  # pixels, for each band
NOISE = 1e-5  # of a pixel, against peaks of order one: shapes are measured, not noise


def gaussian(size: tuple[int, int], centre: Tensor, covariance: Tensor) -> Tensor:
    """(n, y, x) Gaussians of peak 1; centre (n, 2) and covariance (n, 2, 2) in pixels from the centre of the stamp."""
    y, x = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in size)
    at = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), -1)[None] - centre[:, None, None]
    return torch.exp(-0.5 * torch.einsum("nyxi,nij,nyxj->nyx", at, torch.linalg.inv(covariance), at))


def covariance(e: Tensor, radius: float = 3.0) -> Tensor:
    """(n, 2, 2) of an object whose ellipticity is (Cxx - Cyy, 2 Cxy) / (Cxx + Cyy)."""
    e1, e2 = e.unbind(-1)
    rows = torch.stack([torch.stack([1 + e1, e2], -1), torch.stack([e2, 1 - e1], -1)], -2)
    return radius**2 * rows


def sky(n: int = 24, size: tuple[int, int] = (48, 48), psf_size: tuple[int, int] = (25, 25)) -> Sample:
    """A batch of two-band images without holes, with every kind of truth that moves."""
    g = torch.Generator().manual_seed(11)
    xy = (torch.rand(n, 2, generator=g, dtype=torch.float64) - 0.5) * 6
    modulus, phi = (
        torch.rand(n, generator=g, dtype=torch.float64) * 0.4 + 0.1,
        torch.rand(n, generator=g).double() * math.pi,
    )
    e = modulus[:, None] * torch.stack([(2 * phi).cos(), (2 * phi).sin()], -1)
    seeing = [torch.eye(2, dtype=torch.float64).expand(n, 2, 2) * s**2 for s in PSF_SIGMA]
    flux = torch.stack([gaussian(size, xy, covariance(e) + p) for p in seeing], 1)
    psf = torch.stack([gaussian(psf_size, torch.zeros(n, 2), p) for p in seeing], 1)
    image = Image(
        flux.float(), torch.full((n, 2, 1, 1), NOISE**-2), unit="nJy", bands=("g", "r"),
        pixel_scale=torch.full((n,), SCALE), psf=(psf / psf.sum((-2, -1), keepdim=True)).float(),
    )  # fmt: skip
    half = torch.tensor([2.0, 1.0], dtype=torch.float64)
    truth = {
        "e": Truth(e.float(), moves="spin2"),
        "xy": Truth(xy.float(), moves="vector", unit="pix"),
        "phi": Truth(phi.float(), moves="angle", unit="rad"),
        "light": Truth(flux.float(), moves="image", unit="nJy"),
        "z": Truth(torch.rand(n, generator=g), moves="scalar"),
        "box": Truth(torch.cat([xy - half, xy + half], -1)[:, None].float(), moves="boxes"),
    }
    keys = torch.from_numpy(np.random.default_rng(5).integers(-(2**63), 2**63, n))
    nowhere = torch.full((n,), math.nan, dtype=torch.float64)
    return Sample(tuple(f"o{i}" for i in range(n)), keys, nowhere, nowhere, {"image": image}, truth)


def with_image(sample: Sample, **changes: Tensor | None) -> Sample:
    """The same batch with parts of its image replaced."""
    image = sample.observations["image"]
    assert isinstance(image, Image)
    return replace(sample, observations={"image": replace(image, **changes)})


def image_of(sample: Sample) -> Image:
    image = sample.observations["image"]
    assert isinstance(image, Image)
    return image


def fitted(flux: Tensor, measured: Tensor, above: float = 0.15) -> tuple[Tensor, Tensor]:
    """Centre (n, 2) and covariance (n, 2, 2) of Gaussians, by least squares on the logarithm of measured pixels.

    The logarithm of a Gaussian is a parabola, so six numbers describe it exactly, whatever pixels are missing.
    """
    n, height, width = flux.shape
    y, x = (torch.arange(k, dtype=torch.float64) - (k - 1) / 2 for k in (height, width))
    y, x = (v.reshape(-1) for v in torch.broadcast_tensors(y[:, None], x[None, :]))
    basis = torch.stack([torch.ones_like(x), x, y, x * x, 2 * x * y, y * y], -1)
    f, m = flux.double().reshape(n, -1), measured.reshape(n, -1)
    used = m & (f > above * torch.where(m, f, 0.0).amax(1, keepdim=True))
    assert int(used.sum(1).min()) >= 30, "too few pixels to measure a shape"
    w = torch.where(used, f, 0.0)
    solved = torch.linalg.lstsq(
        basis * w[..., None], (torch.where(used, f, 1.0).log() * w)[..., None], driver="gelsd"
    ).solution[..., 0]
    inverse = -2 * torch.stack([solved[:, [3, 4]], solved[:, [4, 5]]], -2)
    cov = torch.linalg.inv(inverse)
    return torch.einsum("nij,nj->ni", cov, solved[:, 1:3]), cov


def shape(sample: Sample, band: int) -> tuple[Tensor, Tensor]:
    """Positions (n, 2) and ellipticities (n, 2) of the objects behind the PSF, measured from the pixels of a band."""
    image = image_of(sample)
    assert image.psf is not None
    xy, cov = fitted(image.flux[:, band], image.measured[:, band])
    _, seeing = fitted(image.psf[:, band], torch.ones_like(image.psf[:, band], dtype=torch.bool))
    c = cov - seeing
    trace = c[:, 0, 0] + c[:, 1, 1]
    return xy, torch.stack([(c[:, 0, 0] - c[:, 1, 1]) / trace, 2 * c[:, 0, 1] / trace], -1)
