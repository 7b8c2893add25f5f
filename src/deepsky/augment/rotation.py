"""Rotation by any angle.

Images and PSFs turn about their centres; corners that come from beyond the edge get ``ivar`` 0. Truth: scalars stay;
vectors turn; (e1, e2) turns by twice the angle; angles grow by it, modulo half a turn, directions modulo a full one;
boxes become the upright boxes around the turned ones; maps turn like images. A ``fixed`` column is refused, and so is a
limit on a single component.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from deepsky import random
from deepsky.augment import _fourier, _parts, _warp
from deepsky.errors import InputError
from deepsky.sample import Image, Sample


def apply(sample: Sample, *, seed: int, epoch: int, degrees: float = 180.0, interpolation: str = "fourier") -> Sample:
    """Turn each object by its own angle, from +x towards +y, uniform in -`degrees` to `degrees`.

    Parameters
    ----------
    degrees : the largest angle.
    interpolation : "fourier" (exact for images that sample their PSF, noise stays white) or "bilinear" (a third of the
        time; smooths object and noise).

    Raises
    ------
    InputError : a target whose behaviour is not declared, a setting out of range, or images that are not square for
        "fourier".
    """
    _parts.at_least(degrees, 0.0, "degrees", 180.0)
    _parts.images(sample)
    u = random.uniform(seed, epoch, sample.key, stream="rotation")
    return rotate(sample, torch.from_numpy((2 * u - 1) * math.radians(degrees)), interpolation=interpolation)


def rotate(sample: Sample, theta: Tensor, *, interpolation: str = "fourier") -> Sample:
    """Turn each object by `theta` (n,) [rad], from +x towards +y.

    Raises
    ------
    InputError : a target whose behaviour is not declared.
    """
    _warp.known(interpolation)
    images = _parts.images(sample)
    theta = theta.double()
    turn = _parts.Turn(theta.cos(), theta.sin(), torch.ones_like(theta))
    back = _parts.Turn(turn.cos, -turn.sin, turn.mirror).matrix()
    quarters = torch.round(theta / (math.pi / 2))
    rest = theta - quarters * (math.pi / 2)
    groups = _parts.groups((-quarters.long() % 4).numpy())  # one turn of rot90 is -90 degrees from +x towards +y

    def grid(x: Tensor) -> Tensor:
        return _warp.grid(back, torch.zeros(len(theta), 2), (x.shape[-2], x.shape[-1]))

    def move(x: Tensor, outside: str = "reflect") -> Tensor:
        if interpolation == "bilinear":
            return _warp.read(x, grid(x), outside="border" if outside == "reflect" else "zeros")
        if x.shape[-1] != x.shape[-2]:
            raise InputError("only square images turn in Fourier space", found=f"{x.shape[-2]} x {x.shape[-1]}",
                             fix="rotation(interpolation=bilinear), or ingest with --size N")  # fmt: skip
        return _fourier.turned(_parts.quarter_turned(x, groups), rest, outside)

    def image(old: Image) -> Image:
        made = _warp.moved(old, grid(old.flux), move)
        if old.psf is None:
            return made
        psf = move(old.psf.float(), "constant")
        lost = old.psf.sum((-2, -1), keepdim=True) / psf.sum((-2, -1), keepdim=True)
        return replace(made, psf=(psf * lost).to(old.psf.dtype))

    truth = _parts.turned(sample.truth, turn, lambda t: _warp.moved_map(t, grid(t.value), move), "rotation")
    return _parts.changed(sample, {name: image(old) for name, old in images.items()}, truth)
