"""Real cutouts to paint onto: which one an object gets, and how it is turned, follows from (seed, number) alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from deepsky.errors import InputError
from deepsky.simulators._random import Draws

CHOICE: Final = 10  # stream
Pair = tuple[ArrayLike, ArrayLike]
Cutouts = Pair | Callable[[NDArray[np.int64]], Pair]


def take(real: Cutouts, numbers: NDArray[np.int64], draws: Draws, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Real flux and inverse variance for objects.

    Parameters
    ----------
    real : (flux, ivar) in nJy with flux (m, band, y, x) and an ivar that broadcasts to it, of which every object takes
        one by chance, turned and mirrored by chance; or a function from object numbers to (flux, ivar) of those.
    shape : (band, y, x) that a cutout must have.

    Raises
    ------
    InputError : cutouts of another shape, or values that are not finite where ivar is not zero.
    """
    if callable(real):
        flux, ivar = (torch.as_tensor(np.asarray(part), dtype=torch.float32) for part in real(numbers))
    else:
        flux, ivar = (torch.as_tensor(np.asarray(part), dtype=torch.float32) for part in real)
        u = draws.uniform(numbers, 2, stream=CHOICE)
        _check(flux, shape)
        which = torch.from_numpy(np.floor(u[:, 0] * len(flux)).astype(np.int64))
        turn = np.floor(8 * u[:, 1]).astype(np.int64).tolist()
        whole = ivar.expand(flux.shape) if ivar.ndim == flux.ndim and len(ivar) == 1 else ivar
        flux = torch.stack([_turned(flux[w], t) for w, t in zip(which.tolist(), turn, strict=True)])
        ivar = torch.stack([_turned(whole[w], t) for w, t in zip(which.tolist(), turn, strict=True)])
    _check(flux, shape, len(numbers))
    bad = ~torch.isfinite(flux) & (ivar > 0)
    if bool(bad.any()):
        raise InputError("real cutouts with values that are not finite", found=f"{int(bad.sum())} pixels",
                         fix="set their ivar to 0")  # fmt: skip
    return torch.nan_to_num(flux, nan=0.0, posinf=0.0, neginf=0.0), ivar


def _check(flux: Tensor, shape: Sequence[int], n: int | None = None) -> None:
    if flux.ndim != 4 or tuple(flux.shape[1:]) != tuple(shape) or (n is not None and len(flux) != n):
        expected = f"({'m' if n is None else n}, {', '.join(map(str, shape))})"
        raise InputError("real cutouts of another shape", found=tuple(flux.shape), expected=expected)


def _turned(image: Tensor, turn: int) -> Tensor:
    turned = torch.rot90(image, turn % 4, (-2, -1))
    return turned.flip(-1) if turn >= 4 else turned
