"""Residual network with pre-activation (He+16), from two-core size to the depth of Lanusse+17.

========== =========== ============== =================================================================
depth      parameters  MFLOP, 4x64x64 what
========== =========== ============== =================================================================
small      0.69 M      53             strided stem, 3 stages of 2 basic blocks (32, 64, 128)
medium     2.8 M       279            strided stem, 4 stages of 2 basic blocks (32, 64, 128, 256)
lanusse    3.5 M       469            7x7 stem of 32 at full resolution, 5 stages of 3 bottlenecks, ELU
========== =========== ============== =================================================================

A multiplication with its addition counts as two FLOP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from deepsky.errors import InputError
from deepsky.networks import _blocks


@dataclass(frozen=True)
class Depth:
    """A preset: width of the first stage, blocks a stage, stem kernel and stride, stride of the first stage."""

    width: int
    stages: tuple[int, ...]
    kernel: int
    stem_stride: int
    first_stride: int
    bottleneck: bool
    activation: str
    initial: str


DEPTHS = {
    "small": Depth(32, (2, 2, 2), 3, 2, 2, False, "relu", "he"),
    "medium": Depth(32, (2, 2, 2, 2), 5, 2, 1, False, "relu", "he"),
    "lanusse": Depth(32, (3, 3, 3, 3, 3), 7, 1, 1, True, "elu", "he"),
}


class Block(nn.Module):
    """Norm, activation, convolution, twice or thrice; added to the input, or to a 1x1 layer where the shape changes."""

    def __init__(
        self,
        given: int,
        made: int,
        stride: int,
        *,
        bottleneck: bool,
        act: str,
        norm: str,
        dropout: float,
        squeeze: bool,
    ) -> None:
        super().__init__()
        inner = made // 2 if bottleneck else made
        self.before = _pre(given, norm, act)
        ready = given // _blocks.pieces(act)
        if bottleneck:
            self.path = nn.Sequential(
                nn.Conv2d(ready, inner, 1, stride, bias=False),
                *_pre(inner, norm, act),
                nn.Conv2d(inner // _blocks.pieces(act), inner, 3, padding=1, bias=False),
                *_pre(inner, norm, act),
                nn.Dropout(dropout),
                nn.Conv2d(inner // _blocks.pieces(act), made, 1),
            )
        else:
            self.path = nn.Sequential(
                nn.Conv2d(ready, inner, 3, stride, 1, bias=False),
                *_pre(inner, norm, act),
                nn.Dropout(dropout),
                nn.Conv2d(inner // _blocks.pieces(act), made, 3, padding=1),
            )
        if squeeze:
            self.path.append(_blocks.SqueezeExcite(made))
        self.shortcut = nn.Conv2d(ready, made, 1, stride, bias=False) if stride != 1 or given != made else None

    def forward(self, x: Tensor) -> Tensor:
        """(n, given, y, x) to (n, made, y / stride, x / stride)."""
        ready = self.before(x)
        y: Tensor = self.path(ready) + (x if self.shortcut is None else self.shortcut(ready))
        return y


def _pre(channels: int, norm: str, act: str) -> nn.Sequential:
    return nn.Sequential(_blocks.norm(norm, channels), _blocks.activation(act))


def build(
    channels: int,
    size: tuple[int, int],
    *,
    depth: Literal["small", "medium", "lanusse"] = "small",
    width: int = 0,
    stages: tuple[int, ...] = (),
    stem_stride: int = 0,
    activation: str = "",
    initial: str = "",
    norm: str = "batch",
    dropout: float = 0.0,
    squeeze: bool = False,
) -> nn.Module:
    """A residual network for images of `size` (y, x) pixels, 16 or more; a setting left at 0 or "" is that of `depth`.

    Parameters
    ----------
    depth : "small", "medium", or "lanusse", for a GPU: the layers of Lanusse+17 (arXiv:1703.02642), with the mean
        over all pixels at the end so that any size will do.
    width : channels of the first stage, doubled at every later one; even.
    stages : number of blocks in each stage; every stage but the first halves the resolution.
    stem_stride : of the first convolution.
    activation, initial, norm : by name, see `deepsky.networks._blocks`.
    dropout : share of the channels' values dropped inside each block while training.
    squeeze : add squeeze and excite to each block.

    Raises
    ------
    InputError : images too small, or an unknown or impossible setting.
    """
    _blocks.check_image(channels, size)
    preset = _blocks.choose("depth", depth, DEPTHS)
    width, act = width or preset.width, activation or preset.activation
    if width < 4 or width % 4:
        raise InputError("the width of a resnet is a positive multiple of 4", found=width)
    if not 0 <= dropout < 1:
        raise InputError("dropout is a share", found=dropout, expected="0 <= dropout < 1")
    made = width if preset.bottleneck else max(4, width * 3 // 4 // 4 * 4)
    layers: list[nn.Module] = [
        nn.Conv2d(channels, made, preset.kernel, stem_stride or preset.stem_stride, preset.kernel // 2, bias=False)
    ]
    for number, blocks in enumerate(stages or preset.stages):
        given, made = made, width * 2**number
        for block in range(blocks):
            stride = 1 if block else (2 if number else preset.first_stride)
            layers.append(
                Block(given if block == 0 else made, made, stride, bottleneck=preset.bottleneck, act=act, norm=norm,
                      dropout=dropout, squeeze=squeeze)
            )  # fmt: skip
    layers += [*_pre(made, norm, act), _blocks.Pool()]
    network = _blocks.Features(*layers, features=made // _blocks.pieces(act))
    return _blocks.initialise(network, initial or preset.initial)
