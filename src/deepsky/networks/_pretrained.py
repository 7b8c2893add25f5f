"""Shared parts of the networks that come from other packages: freezing, adapting to channels, a torchvision guard."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepsky.errors import InputError

log = logging.getLogger("deepsky.networks")
_kept: list[torch.library.Library] = []  # a library's operators go when it does


class Pretrained(nn.Module):
    """A network from another package: (n, channels, y, x) to (n, features).

    Attributes
    ----------
    features : number of features.
    frozen : its weights never move, and neither do the statistics of its batch norms.
    settings : JSON literals with which the same ``build`` makes the architecture again, without weights and network.
    licence : of the weights it started from, "" for none.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        size: tuple[int, int],
        *,
        frozen: bool,
        settings: Mapping[str, Any],
        licence: str,
    ) -> None:
        super().__init__()
        self.network, self.frozen, self.settings, self.licence = network, frozen, dict(settings), licence
        accepts = inspect.signature(network.forward).parameters
        self.extra = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in accepts else {}
        self.features = self._probe(channels, size)
        if frozen:
            self.requires_grad_(False)
        self.train(True)

    def _probe(self, channels: int, size: tuple[int, int]) -> int:
        """Run it once: how many features, and which parameters serve nothing (mask tokens, unused heads)?"""
        self.eval()
        seen = self(torch.zeros(1, channels, *size))
        seen.float().square().sum().backward()
        for p in self.parameters():
            if p.grad is None:
                p.requires_grad_(False)
            p.grad = None
        return int(seen.shape[1])

    def train(self, mode: bool = True) -> Pretrained:
        """Switch to training, all but a frozen network."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, y, x) to (n, features)."""
        seen = self.network(x, **self.extra)
        if not isinstance(seen, Tensor):
            pooled = seen.get("pooler_output")
            seen = seen["last_hidden_state"] if pooled is None else pooled
        found: Tensor = seen
        if found.ndim == 4:  # a map
            return found.mean((2, 3))
        return found.mean(1) if found.ndim == 3 else found  # tokens, or pooled already


def adapt(network: nn.Module, channels: int) -> None:
    """Let a network made for three colours take `channels`: each sees the mean filter, and responses keep their size.

    Raises
    ------
    InputError : there is no convolution on three channels to adapt.
    """
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3), None)
    if first is None or first.groups != 1:
        raise InputError("this network has no first convolution on three channels", found=type(network).__name__)
    if channels != 3:
        mean = first.weight.detach().mean(1, keepdim=True) * (3 / channels)
        first.weight = nn.Parameter(mean.repeat(1, channels, 1, 1))
        first.in_channels = channels
    for module in network.modules():  # those who compare it with their input
        if getattr(module, "num_channels", None) == 3:
            setattr(module, "num_channels", channels)  # noqa: B010  an int, whatever a module says of itself


def guard_torchvision() -> None:
    """Keep a torchvision built for CUDA from breaking its users on a torch that is not.

    Such a torchvision fails at import, for want of two operators that its compiled part would have brought; declaring
    them is enough for everything but the operators themselves. A torchvision that fits torch is left alone.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or "torchvision" in sys.modules or torch.version.cuda is not None or _kept:
        return
    version = Path(found.origin).with_name("version.py")
    if version.is_file() and "+cu" in version.read_text(encoding="utf-8"):
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
        _kept.append(library)


def show(variant: str, licence: str) -> None:
    """Say under which licence the weights are that a network starts from: on stderr, unless a program listens."""
    log.warning("weights of %s: licence %s", variant, licence)


def weights(module: nn.Module) -> str:
    """The weights from elsewhere that a module started from and their licence, in words; "" for none."""
    found = [m for m in module.modules() if isinstance(m, Pretrained) and m.licence]
    return ", ".join(f"{m.settings.get('variant', 'weights')}: licence {m.licence}" for m in found)
