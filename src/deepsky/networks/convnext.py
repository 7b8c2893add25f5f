"""ConvNeXt-like network (Liu+22): depthwise 7x7, layer norm, inverted bottleneck; small enough for two cores.

0.72 M parameters and 52 MFLOP at 4x64x64 (a multiplication with its addition counts as two) at the default width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepsky.errors import InputError
from deepsky.networks import _blocks


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (n, channels, y, x), pixel by pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every pixel; the memory stays channels-last where it was."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Depthwise convolution, then two 1x1 layers with an activation between, scaled and added to the input."""

    def __init__(self, width: int, *, kernel: int, expand: int, act: str, scale: float) -> None:
        super().__init__()
        pieces = _blocks.pieces(act)
        self.path = nn.Sequential(
            nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width),
            ChannelNorm(width),
            nn.Conv2d(width, expand * width * pieces, 1),
            _blocks.activation(act),
            nn.Conv2d(expand * width, width, 1),
        )
        self.scale = nn.Parameter(torch.full((width, 1, 1), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, y, x) to the same shape."""
        y: Tensor = x + self.scale * self.path(x)
        return y


def build(
    channels: int,
    size: tuple[int, int],
    *,
    width: int = 40,
    stages: tuple[int, ...] = (2, 2, 2),
    patch: int = 4,
    kernel: int = 7,
    expand: int = 4,
    activation: str = "gelu",
    initial: str = "truncated",
    scale: float = 0.1,
) -> nn.Module:
    """A ConvNeXt-like network for images of `size` (y, x) pixels, 16 or more.

    Parameters
    ----------
    width : channels of the first stage, doubled at every later one.
    stages : number of blocks in each stage; every stage but the first halves the resolution.
    patch : side of the patches that the stem turns into one pixel each; the stem's kernels overlap by one pixel.
    kernel : side of the depthwise convolutions, odd.
    expand : how many times wider the inner layer of a block is.
    activation, initial : by name, see `deepsky.networks._blocks`.
    scale : start of the factor in front of each block (a shallow network needs no smaller one).

    Raises
    ------
    InputError : images too small, or an unknown or impossible setting.
    """
    y, x = _blocks.check_image(channels, size)
    if min(width, patch, expand) < 1 or kernel % 2 == 0 or min(y, x) < patch * 2 ** (len(stages) - 1):
        raise InputError("no ConvNeXt has these settings", found=f"{width=} {patch=} {kernel=} {expand=} {stages=}",
                         expected="positive numbers, an odd kernel, a pixel left after the last stage")  # fmt: skip
    layers: list[nn.Module] = [nn.Conv2d(channels, width, patch + 1, patch, patch // 2), ChannelNorm(width)]
    for number, blocks in enumerate(stages):
        made = width * 2**number
        if number:
            layers += [ChannelNorm(made // 2), nn.Conv2d(made // 2, made, 3, 2, 1)]
        layers += [Block(made, kernel=kernel, expand=expand, act=activation, scale=scale) for _ in range(blocks)]
    features = width * 2 ** (len(stages) - 1)
    layers += [_blocks.Pool(), nn.LayerNorm(features)]
    return _blocks.initialise(_blocks.Features(*layers, features=features), initial)
