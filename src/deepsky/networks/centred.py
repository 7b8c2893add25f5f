"""Any other network, told where the middle of the image is.

``centred:resnet`` sees one channel more, the distance from the middle: 0.69 M parameters and 53.9 MFLOP at 4x64x64. A
network that ends in a mean over pixels finds a shape wherever it lies; which of several objects is meant is a matter of
place, of which padding alone tells it something. After CoordConv (Liu+2018, arXiv:1807.03247), with the radius alone,
which no turn or flip changes. For cutouts whose object stands in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deepsky.errors import InputError
from deepsky.networks import Network, _blocks


class Centred(nn.Module):
    """A network that sees its image and the radius."""

    def __init__(self, network: nn.Module, features: int) -> None:
        super().__init__()
        self.network, self.features = network, features

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, y, x) to (n, features)."""
        away = radius(x).expand(len(x), 1, *x.shape[2:])
        made: Tensor = self.network(torch.cat([x, away], 1))
        return made


def radius(like: Tensor) -> Tensor:
    """(y, x) distance from the middle, 1 at the middle of the shorter sides."""
    y, x = (torch.arange(n, dtype=like.dtype, device=like.device) - (n - 1) / 2 for n in like.shape[2:])
    return torch.hypot(y[:, None], x) * (2 / min(like.shape[2:]))


def build(
    channels: int, size: tuple[int, int], *, variant: str = "resnet", settings: Mapping[str, Any] | None = None
) -> nn.Module:
    """The network called `variant`, with its own `settings`, for images of `size` (y, x) pixels.

    Raises
    ------
    InputError : an unknown network or setting, or this one inside itself.
    """
    _blocks.check_image(channels, size)
    if variant.partition(":")[0] == "centred":
        raise InputError("a centred network cannot hold another", found=f"centred:{variant}")
    network = Network(variant, settings or {}).build(channels + 1, size)
    return Centred(network, int(network.features))  # type: ignore[arg-type]
