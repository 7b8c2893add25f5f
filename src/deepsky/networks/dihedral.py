"""Any other network, looked through from eight sides: exactly invariant to rotation by 90 degrees and to flips.

``dihedral:resnet`` runs the eight flips and rotations of each image through one network and averages the features: its
parameters, and eight times its cost, in training as in prediction. ``equivariant`` has the same invariance at the cost
of a single pass; `training.train` with ``views`` averages predictions alone.
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
    """The mean of a network's features over the eight views of a square image, or its four turns."""

    invariant = True

    def __init__(self, network: nn.Module, features: int, flips: bool) -> None:
        super().__init__()
        self.network, self.features, self.flips = network, features, flips

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, y, y) to (n, features), equal to rounding for all these views of x."""
        sides = (x, x.flip(3)) if self.flips else (x,)
        views = [torch.rot90(side, turns, (2, 3)) for side in sides for turns in range(4)]
        seen: Tensor = self.network(torch.cat(views))
        return seen.reshape(len(views), len(x), -1).mean(0)


def build(
    channels: int,
    size: tuple[int, int],
    *,
    variant: str = "resnet",
    flips: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The network called `variant`, with its own `settings`, made invariant.

    Parameters
    ----------
    flips : without them four turns are averaged, for half the time, or where the sense of spiral arms is asked for.

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
    return Dihedral(network, int(network.features), flips)  # type: ignore[arg-type]
