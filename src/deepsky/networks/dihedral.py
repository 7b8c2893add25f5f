"""Any other network, looked through from eight sides: exactly invariant to rotation by 90 degrees and to flips.

``dihedral:resnet`` runs the eight flips and rotations of each image through one network and averages the features: its
parameters, and eight times its cost. ``equivariant`` has the same invariance at the cost of a single pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deepsky import registry
from deepsky.errors import InputError
from deepsky.networks import _blocks


class Dihedral(nn.Module):
    """The mean of a network's features over the eight views of a square image."""

    def __init__(self, network: nn.Module, features: int) -> None:
        super().__init__()
        self.network, self.features = network, features

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, y, y) to (n, features), equal to rounding for all eight views of x."""
        views = [torch.rot90(side, turns, (2, 3)) for side in (x, x.flip(3)) for turns in range(4)]
        seen: Tensor = self.network(torch.cat(views))
        return seen.reshape(8, len(x), -1).mean(0)


def build(
    channels: int, size: tuple[int, int], *, variant: str = "resnet", settings: Mapping[str, Any] | None = None
) -> nn.Module:
    """The network called `variant`, with its own `settings`, made invariant.

    Raises
    ------
    InputError : images that are not square, or an unknown network or setting.
    """
    y, x = _blocks.check_image(channels, size)
    if y != x:
        raise InputError("only square images look the same from eight sides", found=f"{y} x {x}")
    name, _, rest = variant.partition(":")
    if name == "dihedral":
        raise InputError("a dihedral network cannot hold another", found=f"dihedral:{variant}")
    given = {**(settings or {}), **({"variant": rest} if rest else {})}
    builder = registry.find("networks", name).build
    known = _blocks.settings(builder)
    for key in given:
        if key not in known:
            raise InputError(f"the network {name!r} has no such setting", found=key, known=known)
    network: nn.Module = builder(channels, size, **given)
    return Dihedral(network, int(network.features))  # type: ignore[arg-type]
