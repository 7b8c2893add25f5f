"""Plain convolutional network: VGG-like (Simonyan+14) or AlexNet-like (Krizhevsky+12), scaled to cutouts.

========== =========== ============== ====================================================================
variant    parameters  MFLOP, 4x64x64 what
========== =========== ============== ====================================================================
vgg        0.29 M      108            pairs of 3x3 convolutions (16, 32, 64, 128), halved after each pair
alexnet    0.50 M      99             11x11 stride 4, 5x5, three 3x3 convolutions, max pooling
========== =========== ============== ====================================================================
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from deepsky.errors import InputError
from deepsky.networks import _blocks

# (channels in widths, kernel, stride, halve afterwards)
VARIANTS: dict[str, tuple[tuple[int, int, int, bool], ...]] = {
    "vgg": tuple((2**n, 3, 1, last) for n in range(4) for last in (False, True)),
    "alexnet": ((2, 11, 4, False), (6, 5, 1, True), (8, 3, 1, False), (8, 3, 1, False), (8, 3, 1, True)),
}


def build(
    channels: int,
    size: tuple[int, int],
    *,
    variant: Literal["vgg", "alexnet"] = "vgg",
    width: int = 16,
    dense: tuple[int, ...] = (),
    activation: str = "relu",
    initial: str = "he",
    norm: str = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """A convolutional network without shortcuts, for images of `size` (y, x) pixels, 16 or more.

    Parameters
    ----------
    variant : "vgg" or "alexnet".
    width : channels of the first layer of "vgg" (the others are multiples of it); even.
    dense : widths of fully connected layers behind the pooled features, as both papers had them.
    activation, initial, norm : by name, see `deepsky.networks._blocks`.
    dropout : share of the values dropped before each fully connected layer, and before the features are returned.

    Raises
    ------
    InputError : images too small, or an unknown or impossible setting.
    """
    _blocks.check_image(channels, size)
    if width < 2 or width % 2:
        raise InputError("the width of a convnet is a positive even number", found=width)
    if not 0 <= dropout < 1:
        raise InputError("dropout is a share", found=dropout, expected="0 <= dropout < 1")
    pieces = _blocks.pieces(activation)
    layers: list[nn.Module] = []
    given = channels
    for times, kernel, stride, halve in _blocks.choose("variant", variant, VARIANTS):
        made = width * times
        layers.append(nn.Conv2d(given, made * pieces, kernel, stride, kernel // 2, bias=norm == "none"))
        layers += [_blocks.norm(norm, made * pieces), _blocks.activation(activation)]
        if halve:
            layers.append(nn.MaxPool2d(2))
        given = made
    layers.append(_blocks.Pool())
    for made in dense:
        layers += [nn.Dropout(dropout), nn.Linear(given, made * pieces), _blocks.activation(activation)]
        given = made
    layers.append(nn.Dropout(dropout))
    return _blocks.initialise(_blocks.Features(*layers, features=given), initial)
