"""Any other network, shown each image's asymmetry beside it: the difference from the same image turned by 180 degrees.

``asymmetry:resnet`` sees twice the channels: 0.69 M parameters and 55 MFLOP at 4x64x64. The light of an undisturbed
galaxy is the same on both sides of its centre and drops out of the difference; arcs, companions, dust lanes and tidal
tails stay. It is the A of the CAS system (Abraham+1996, ApJS 107, 1; Conselice+2000, ApJ 529, 886) pixel by pixel. No
convolution can form it, since it compares what lies far apart. For cutouts whose object stands in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deepsky.errors import InputError
from deepsky.networks import Network, _blocks


class Asymmetry(nn.Module):
    """A network that sees its image, and the image less its half turn."""

    def __init__(self, network: nn.Module, features: int) -> None:
        super().__init__()
        self.network, self.features = network, features

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, y, x) to (n, features)."""
        made: Tensor = self.network(torch.cat([x, x - x.flip(2, 3)], 1))
        return made


def build(
    channels: int, size: tuple[int, int], *, variant: str = "resnet", settings: Mapping[str, Any] | None = None
) -> nn.Module:
    """The network called `variant`, with its own `settings`, for images of `size` (y, x) pixels.

    Raises
    ------
    InputError : an unknown network or setting, or this one inside itself.
    """
    _blocks.check_image(channels, size)
    if variant.partition(":")[0] == "asymmetry":
        raise InputError("an asymmetry network cannot hold another", found=f"asymmetry:{variant}")
    network = Network(variant, settings or {}).build(2 * channels, size)
    return Asymmetry(network, int(network.features))  # type: ignore[arg-type]
