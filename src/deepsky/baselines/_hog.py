"""Histograms of oriented gradients (Dalal & Triggs 2005), over a whole batch at once."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from deepsky.baselines._images import Pixels

ORIENTATIONS, CELLS, BLOCK = 8, 6, 2


def hog(
    images: Tensor,
    orientations: int = 9,
    cell: int = 8,
    block: int = 3,
    norm: Literal["L2-Hys", "none"] = "L2-Hys",
) -> Tensor:
    """Histograms of the gradient's direction (without sign) in cells, normalised in overlapping blocks.

    Parameters
    ----------
    images : (n, y, x), or (n, channel, y, x): then every pixel's gradient is that of its steepest channel.
    orientations : bins over 180 degrees.
    cell, block : a cell's side [pixel], and a block's [cell].
    norm : "L2-Hys" (clipped at 0.2 and normalised again), or "none".

    Returns
    -------
    (n, block rows, block columns, block, block, orientations), equal to ``skimage.feature.hog`` with
    ``feature_vector=False``.
    """
    gy, gx, strength = _gradient(images)
    rows, columns = gy.shape[-2] // cell, gy.shape[-1] // cell
    inside = (..., slice(0, rows * cell), slice(0, columns * cell))
    gy, gx, strength = gy[inside], gx[inside], strength[inside]
    # half a turn is added below the x axis; a remainder would be slow
    turns = torch.atan2(gy, gx) / math.pi
    turns = turns + (turns < 0)
    bin_ = (turns * orientations).to(torch.int64)
    bin_ = bin_ * (bin_ < orientations)  # exactly half a turn is the first bin again
    n = len(images)
    at = torch.arange(rows).repeat_interleave(cell)[:, None] * columns + torch.arange(columns).repeat_interleave(cell)
    index = bin_ + (at * orientations).to(bin_.device)
    cells = torch.zeros(n, rows * columns * orientations, device=images.device)
    cells.scatter_add_(1, index.flatten(1), strength.flatten(1))
    cells = (cells / cell**2).reshape(n, rows, columns, orientations)
    blocks = cells.unfold(1, block, 1).unfold(2, block, 1).permute(0, 1, 2, 4, 5, 3)
    if norm == "none":
        return blocks
    return _hysteresis(blocks)


def _gradient(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Central differences, zero on the border, and their length; of the steepest channel, the first of equals."""
    if images.ndim == 3:
        images = images[:, None]
    for k in range(images.shape[1]):
        gy, gx, square = _differences(images[:, k])
        if k == 0:
            best_y, best_x, best = gy, gx, square
            continue
        # by multiplication: torch.where is ten times as slow on a processor, and the result is the same
        steeper = (square > best).to(best.dtype)
        flatter = 1 - steeper
        best_y = (best_y * flatter).addcmul_(gy, steeper)
        best_x = (best_x * flatter).addcmul_(gx, steeper)
        best = torch.maximum(best, square)
    return best_y, best_x, best.sqrt()


def _differences(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gy, gx = torch.zeros_like(image), torch.zeros_like(image)
    gy[:, 1:-1] = image[:, 2:] - image[:, :-2]
    gx[:, :, 1:-1] = image[:, :, 2:] - image[:, :, :-2]
    return gy, gx, torch.addcmul(gy * gy, gx, gx)


def _hysteresis(blocks: Tensor) -> Tensor:
    across = (-1, -2, -3)
    found = blocks / (blocks.square().sum(across, keepdim=True) + 1e-10).sqrt()
    found = found.clamp(max=0.2)
    return found / (found.square().sum(across, keepdim=True) + 1e-10).sqrt()


def _cell(y: int, x: int) -> int:
    return max(2, min(y, x) // CELLS)


def values(pixels: Pixels) -> Tensor:
    """(n, features) of the stretched image, the steepest band at every pixel."""
    found = hog(pixels.stretched, ORIENTATIONS, _cell(*pixels.flux.shape[-2:]), BLOCK).flatten(1)
    return found.masked_fill(pixels.missing.all(1)[:, None], torch.nan)


def names(bands: tuple[str, ...], size: tuple[int, int]) -> tuple[str, ...]:
    """Of the columns of `values`."""
    rows, columns = (s // _cell(*size) - BLOCK + 1 for s in size)
    return tuple(
        f"hog.{j}.{i}.{v}.{u}.{o}"
        for j in range(rows)
        for i in range(columns)
        for v in range(BLOCK)
        for u in range(BLOCK)
        for o in range(ORIENTATIONS)
    )
