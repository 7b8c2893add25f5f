"""Any other network, looked through from eight sides: exactly invariant to rotation by 90 degrees and to flips.

``dihedral:resnet`` runs the eight flips and rotations of each image through one network and averages the features: its
parameters, and eight times its cost. With ``average="prediction"`` training sees one view of each image, as chosen by
the augmentation, and only a prediction averages all eight ("test-time augmentation"): training costs what it did.
``equivariant`` has the same invariance at the cost of a single pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from deepsky import registry
from deepsky.errors import InputError
from deepsky.networks import _blocks

AVERAGES: Final = {"always": True, "prediction": False}


class Dihedral(nn.Module):
    """The mean of a network's features over the eight views of a square image, or its four turns."""

    def __init__(self, network: nn.Module, features: int, always: bool, flips: bool) -> None:
        super().__init__()
        self.network, self.features, self.always, self.flips = network, features, always, flips

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, y, y) to (n, features), equal to rounding for all these views of x."""
        if self.training and not self.always:
            one: Tensor = self.network(x)
            return one
        sides = (x, x.flip(3)) if self.flips else (x,)
        views = [torch.rot90(side, turns, (2, 3)) for side in sides for turns in range(4)]
        seen: Tensor = self.network(torch.cat(views))
        return seen.reshape(len(views), len(x), -1).mean(0)


def build(
    channels: int,
    size: tuple[int, int],
    *,
    variant: str = "resnet",
    average: Literal["always", "prediction"] = "always",
    flips: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The network called `variant`, with its own `settings`, made invariant.

    Parameters
    ----------
    average : over the views "always", or at "prediction" alone; training then wants the augmentation "dihedral".
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
    return Dihedral(network, int(network.features), _blocks.choose("average", average, AVERAGES), flips)  # type: ignore[arg-type]
