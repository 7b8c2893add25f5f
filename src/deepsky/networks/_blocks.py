"""Shared parts of the networks: activations and initialisations by name, norms, checks of size, squeeze and excite.

Batch normalisation is the default norm of the convolutional families: in evaluation it is a fixed scale and offset, so
that neither batch size nor the other objects of a batch change an answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from deepsky.errors import InputError

T = TypeVar("T")
SMALLEST = 16  # pixels: below it the strided stages of every family here are left with nothing to look at


class Maxout(nn.Module):
    """The larger of each pair of neighbouring channels (Goodfellow+13): (n, 2c, ...) to (n, c, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        """Take the maximum over pairs of channels."""
        return torch.maximum(x[:, ::2], x[:, 1::2])


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "maxout": Maxout,
    "identity": nn.Identity,
}

INITIALS: dict[str, Callable[[Tensor], Any]] = {
    "he": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "xavier": nn.init.xavier_uniform_,
    "orthogonal": nn.init.orthogonal_,
    "lecun": lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear"),
    "truncated": lambda w: nn.init.trunc_normal_(w, std=0.02),
    "small": lambda w: nn.init.normal_(w, std=1e-3),
    "large": lambda w: nn.init.normal_(w, std=1.0),
}

NORMS = ("batch", "group", "none")


def activation(name: str) -> nn.Module:
    """A new activation; ``maxout`` halves the number of channels (see `pieces`).

    Raises
    ------
    InputError : no activation has that name.
    """
    return choose("activation", name, ACTIVATIONS)()


def pieces(name: str) -> int:
    """How many channels the activation called `name` needs for one that it gives: 2 for maxout, else 1."""
    return 2 if name == "maxout" else 1


def initialise(module: nn.Module, name: str) -> nn.Module:
    """Draw the weights of every linear and convolutional layer anew; biases become zero. Returns `module`.

    ``he`` (He+15), ``xavier`` (Glorot+10), ``orthogonal`` (Saxe+13), ``lecun`` and ``truncated`` are for use; ``small``
    (sigma 0.001) and ``large`` (sigma 1) show what a poor start does.

    Raises
    ------
    InputError : no initialisation has that name.
    """
    draw = choose("initialisation", name, INITIALS)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def norm(name: str, channels: int) -> nn.Module:
    """A norm over (n, channels, y, x): ``batch``, ``group`` (8 channels a group where that divides them) or ``none``.

    Raises
    ------
    InputError : no norm has that name.
    """
    choose("norm", name, dict.fromkeys(NORMS, 0))
    if name == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels) if name == "batch" else nn.GroupNorm(max(1, channels // 8), channels)


class SqueezeExcite(nn.Module):
    """Scale every channel by a number in (0, 1) that the means of all channels decide (Hu+18)."""

    def __init__(self, channels: int, *, shrink: int = 4) -> None:
        super().__init__()
        hidden = max(4, channels // shrink)
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, y, x) to the same shape."""
        scale: Tensor = self.gate(x.mean((2, 3)))
        return x * scale[:, :, None, None]


class Pool(nn.Module):
    """Mean over the pixels: (n, channels, y, x) to (n, channels), whatever y and x."""

    def forward(self, x: Tensor) -> Tensor:
        """Average over y and x."""
        return x.mean((2, 3))


class Features(nn.Sequential):
    """Layers in a row that say how many features they end with."""

    def __init__(self, *layers: nn.Module, features: int) -> None:
        super().__init__(*layers)
        self.features = features


def check_image(channels: int, size: tuple[int, ...]) -> tuple[int, int]:
    """The (y, x) of `size`, when there are channels and pixels enough.

    Raises
    ------
    InputError : no channel, not two sides, or a side under 16 pixels.
    """
    if channels < 1:
        raise InputError("a network needs at least one channel", found=channels, expected="1 or more")
    if len(size) != 2 or min(size) < SMALLEST:
        raise InputError(
            "the images are too small for this network",
            found=" x ".join(map(str, size)) or "a row",
            expected=f"{SMALLEST} x {SMALLEST} pixels or more",
            fix="take network mlp, which accepts rows and images of any size",
        )
    return size[0], size[1]


def choose(what: str, name: str, known: dict[str, T]) -> T:
    """The entry of `known` called `name`.

    Raises
    ------
    InputError : there is none; the message lists those that there are.
    """
    if name not in known:
        raise InputError(f"unknown {what}", found=name, known=known)
    return known[name]


def settings(build: Callable[..., nn.Module]) -> list[str]:
    """Names of the settings that a network's ``build`` accepts."""
    return [n for n, p in inspect.signature(build).parameters.items() if p.kind is p.KEYWORD_ONLY]


def cost(network: nn.Module, channels: int, size: tuple[int, ...]) -> tuple[int, float]:
    """Number of parameters, and MFLOP (two for a multiplication and its addition) of one forward pass of one object."""
    from torch.utils.flop_counter import FlopCounterMode

    training = network.training
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.zeros(1, channels, *size))
    network.train(training)
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() / 1e6
