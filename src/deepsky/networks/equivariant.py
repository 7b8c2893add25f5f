"""Group-equivariant residual network (Cohen+16): invariant to 90 degree turns and flips at the cost of a single pass.

Every filter acts in its eight orientations, so that a turned image gives turned feature maps, and the mean over pixels
and orientations does not change at all. 0.15 M parameters and 114 MFLOP at 4x64x64 (a multiplication with its addition
counts as two) at the default width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepsky.errors import InputError
from deepsky.networks import _blocks


def _act(g: int, x: Tensor) -> Tensor:
    """Element g = 4 m + r of the group on the last two axes: a flip for m = 1, then r turns by 90 degrees."""
    return torch.rot90(x.flip(-1) if g >= 4 else x, g % 4, (-2, -1))


def _table() -> Tensor:
    """(8, 8): [g, h] is the element inverse(g) h, found by acting on a small array that tells all eight apart."""
    probe = torch.arange(9).reshape(3, 3)
    views = [_act(g, probe) for g in range(8)]
    find = {tuple(v.flatten().tolist()): g for g, v in enumerate(views)}
    inverse = [next(k for k in range(8) if torch.equal(_act(k, v), probe)) for v in views]
    rows = [[_act(inverse[g], views[h]) for h in range(8)] for g in range(8)]
    return torch.tensor([[find[tuple(v.flatten().tolist())] for v in row] for row in rows])


TABLE = _table()


class GroupConv(nn.Module):
    """Convolution from `given` fields of `orientations` (1 for an image, else 8) to `made` fields of 8 orientations."""

    def __init__(self, given: int, made: int, kernel: int, orientations: int) -> None:
        super().__init__()
        self.given, self.made, self.orientations = given, made, orientations
        self.weight = nn.Parameter(torch.empty(made, given * orientations, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def filters(self) -> Tensor:
        """(made * 8, given * orientations, k, k): the filters in all eight orientations."""
        w = self.weight.reshape(self.made, self.given, self.orientations, *self.weight.shape[2:])
        turned = [_act(g, w if self.orientations == 1 else w[:, :, TABLE[g]]) for g in range(8)]
        return torch.stack(turned, 1).flatten(0, 1).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(n, given * orientations, y, x) to (n, made * 8, y, x)."""
        return F.conv2d(x, self.filters(), padding=self.weight.shape[-1] // 2)


class GroupNorm(nn.Module):
    """Batch norm of each field, all its orientations alike."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(fields)

    def forward(self, x: Tensor) -> Tensor:
        """(n, fields * 8, y, x) to the same shape."""
        n, c, *pixels = x.shape
        y: Tensor = self.norm(x.reshape(n, c // 8, 8, *pixels))
        return y.reshape(x.shape)


class Halve(nn.Module):
    """Mean over 2x2 pixels, or over 3x3 with stride 2 where a side is odd: both grids turn into themselves."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, y) to (n, c, y / 2, y / 2), rounded up."""
        if x.shape[-1] % 2 == 0:
            return F.avg_pool2d(x, 2)
        return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)


class Block(nn.Module):
    """Norm, activation and group convolution, twice, added to the input."""

    def __init__(self, given: int, made: int, act: str) -> None:
        super().__init__()
        self.path = nn.Sequential(
            GroupNorm(given), _blocks.activation(act), GroupConv(given, made, 3, 8),
            GroupNorm(made), _blocks.activation(act), GroupConv(made, made, 3, 8),
        )  # fmt: skip
        self.shortcut = GroupConv(given, made, 1, 8) if given != made else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, given * 8, y, x) to (n, made * 8, y, x)."""
        y: Tensor = self.path(x) + self.shortcut(x)
        return y


class Mean(nn.Module):
    """Mean over pixels and orientations."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, fields * 8, y, x) to (n, fields)."""
        return x.mean((2, 3)).reshape(len(x), -1, 8).mean(2)


def build(
    channels: int,
    size: tuple[int, int],
    *,
    width: int = 4,
    stages: tuple[int, ...] = (1, 1, 1),
    kernel: int = 5,
    activation: str = "relu",
) -> nn.Module:
    """A network for square images of `size` pixels, 16 or more, whose features no 90 degree turn or flip changes.

    Parameters
    ----------
    width : fields of the stem (each of 8 channels), doubled at every stage.
    stages : number of residual blocks in each stage; every stage halves the resolution first.
    kernel : side of the stem's filters, odd.
    activation : by name; not ``maxout``, which would mix orientations.

    Raises
    ------
    InputError : images too small or not square, or an unknown or impossible setting.
    """
    y, x = _blocks.check_image(channels, size)
    if y != x:
        raise InputError("only square images turn into themselves", found=f"{y} x {x}", expected=f"{min(y, x)} square")
    if kernel % 2 == 0 or width < 1 or activation == "maxout":
        raise InputError("no equivariant network has these settings", found=f"{width=} {kernel=} {activation=}",
                         expected="a positive width, an odd kernel, an activation that keeps the channels")  # fmt: skip
    layers: list[nn.Module] = [GroupConv(channels, width, kernel, 1), Halve()]
    made = width
    for number, blocks in enumerate(stages):
        given, made = made, width * 2 ** (number + 1)
        layers.append(Halve())
        layers += [Block(given if block == 0 else made, made, activation) for block in range(blocks)]
    layers += [GroupNorm(made), _blocks.activation(activation), Mean()]
    network = _blocks.Features(*layers, features=made)
    network.invariant = True  # type: ignore[assignment]
    return network
