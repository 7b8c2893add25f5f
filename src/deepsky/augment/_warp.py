"""Shared parts of the augmentations: images, inverse variances and maps moved to other pixels.

``ivar`` is interpolated as it is. A pixel that anything unmeasured, or beyond the edge, has a share in is unmeasured
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from deepsky.errors import InputError
from deepsky.sample import Image, Truth

WHOLE = 1 - 1e-3  # a share of measured pixels above this is one, but for rounding
INTERPOLATIONS = ("fourier", "bilinear")
Move = Callable[[Tensor], Tensor]


def known(interpolation: str) -> None:
    """Check the name of an interpolation.

    Raises
    ------
    InputError : there is none of that name.
    """
    if interpolation not in INTERPOLATIONS:
        raise InputError("unknown interpolation", found=interpolation, known=INTERPOLATIONS)


def grid(inverse: Tensor, offset: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, y, x, 2) where each new pixel lies in the old image, in the coordinates of torch's ``grid_sample``.

    Parameters
    ----------
    inverse : (n, 2, 2) from new (x, y) to old, both in pixels from the centre.
    offset : (n, 2) added to the old position [pixels].
    size : (y, x) of the image.
    """
    height, width = size
    unit = torch.tensor([2 / width, 2 / height], dtype=torch.float64)
    to = unit[:, None] * inverse.double() / unit  # the same map, between coordinates that reach from -1 to 1
    affine = torch.cat([to, (unit * offset.double())[:, :, None]], 2).float()
    return F.affine_grid(affine, [len(affine), 1, height, width], align_corners=False)


def read(x: Tensor, where: Tensor, mode: str = "bilinear", *, outside: str = "zeros") -> Tensor:
    """(n, c, y, x) read at `where`, in float32."""
    return F.grid_sample(x.float(), where.to(x.device), mode=mode, padding_mode=outside, align_corners=False)


def linear(where: Tensor) -> Move:
    """A move by bilinear interpolation, which smooths what it moves."""
    return lambda x: read(x, where, outside="border")


def moved(image: Image, where: Tensor, move: Move) -> Image:
    """An image with its fluxes moved by `move` and its inverse variances read at `where`; its PSF stays."""
    flux = move(filled(image.flux, image.measured)).to(image.flux.dtype)
    full = image.ivar.expand(*image.ivar.shape[:-2], *image.flux.shape[-2:])
    measured = read((full > 0).float(), where) > WHOLE
    values = image.ivar if image.ivar.shape[-2:] == (1, 1) else read(full, where)
    return replace(image, flux=flux, ivar=torch.where(measured, values, 0.0).to(image.ivar.dtype))


def moved_map(truth: Truth, where: Tensor, move: Move) -> Truth:
    """A truth that is an image, moved; codes to the nearest pixel. From beyond the edge comes -1 or NaN."""
    value = truth.value
    limit = None if truth.limit is None else read(truth.limit, where, "nearest").round().to(truth.limit.dtype)
    if not value.is_floating_point():
        inside = read(torch.ones_like(value, dtype=torch.float32), where, "nearest") > 0
        codes = read(value, where, "nearest").round().to(value.dtype)
        return replace(truth, value=torch.where(inside, codes, -1), limit=limit)
    inside = read(value.isfinite().float(), where) > WHOLE
    sigma = truth.sigma
    if sigma is not None:
        sigma = torch.where(inside, read(sigma, where), torch.nan).to(sigma.dtype)
    now = torch.where(inside, move(filled(value, value.isfinite())), torch.nan).to(value.dtype)
    return replace(truth, value=now, sigma=sigma, limit=limit)


def filled(values: Tensor, measured: Tensor) -> Tensor:
    """`values` with holes closed by the mean of the measured pixels around them (zero where there are none).

    What stands there afterwards stays unmeasured; it only must not ring into its neighbours.
    """
    if bool(measured.all()):
        return values.float()
    known_ones, weight = torch.where(measured, values, 0.0).float(), measured.float()
    near, seen = (F.avg_pool2d(v, 5, 1, 2) for v in (known_ones, weight))
    return torch.where(measured, known_ones, torch.where(seen > 0, near / seen.clamp(min=1e-6), 0.0))
