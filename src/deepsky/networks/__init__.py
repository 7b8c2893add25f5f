"""Networks: an observation, as a tensor, to features.

One file, one family, found by its name. Each has one public ``build(channels, size, *, ...)`` that returns a plain
module: ``forward`` maps (n, channels, y, x), or (n, channels) for rows, to (n, features), and ``features`` says how
many those are. Heads, and whatever turns features into a distribution, belong to tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from torch import nn

from deepsky import casting, registry
from deepsky.errors import InputError


@dataclass(frozen=True)
class Network:
    """A network by name with its settings, JSON literals; `name` "object" is a module that a user passed."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def build(self, channels: int, size: tuple[int, ...]) -> nn.Module:
        """Make it, unfitted.

        Raises
        ------
        InputError : an unknown network or setting, or one that only its owner can rebuild.
        """
        if self.name == "object":
            raise InputError(
                "this model's network is not one of deepsky's",
                found=self.settings.get("type"),
                fix="ds.load(path, network=module) with the same class, or --trust package.module:Name",
            )
        name, _, variant = self.name.partition(":")
        builder = registry.find("networks", name).build
        settings = {**self.settings, "variant": variant} if variant else dict(self.settings)
        known = casting.kinds(builder, "channels", "size")
        if variant and "variant" not in known:
            meant = next((f" --network-set {key}={variant}" for key, kind in known.items()
                          if variant in get_args(kind)), "")  # fmt: skip
            raise InputError(f"the network {name!r} has no variants", found=self.name, fix=f"--network {name}{meant}")
        for key in settings:
            if key not in known:
                raise InputError(f"the network {name!r} has no such setting", found=key, known=known)
        made: nn.Module = builder(channels, size, **settings)
        return made

    def settled(self, built: nn.Module) -> Network:
        """With the settings that rebuild a pretrained network without asking its hub again."""
        found = getattr(built, "settings", None)
        return replace(self, settings=dict(found)) if self.name.partition(":")[0] in {"hf", "timm"} and found else self
