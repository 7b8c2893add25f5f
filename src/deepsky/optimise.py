"""Optimisers, schedules, penalties and the moving average of weights: pure functions of the step where they can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from deepsky.errors import InputError

# foreach: all tensors in one call, a third faster. Not fused: those kernels walk through parameter and gradient as they
# lie in memory, and are silently wrong where only one of them is channels last.
_MAKE: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda p, lr, decay, momentum: torch.optim.SGD(p, lr=lr, weight_decay=decay),
    "momentum": lambda p, lr, decay, momentum: torch.optim.SGD(
        p, lr=lr, weight_decay=decay, momentum=momentum, nesterov=True
    ),
    "rmsprop": lambda p, lr, decay, momentum: torch.optim.RMSprop(p, lr=lr, weight_decay=decay),
    "adam": lambda p, lr, decay, momentum: torch.optim.Adam(p, lr=lr, weight_decay=decay, foreach=True),
    "adamw": lambda p, lr, decay, momentum: torch.optim.AdamW(p, lr=lr, weight_decay=decay, foreach=True),
}
OPTIMISERS = tuple(_MAKE)
SCHEDULES = ("cosine", "plateau", "constant")
RATES = {"sgd": 0.05, "momentum": 0.02, "rmsprop": 1e-3, "adam": 1e-3, "adamw": 2e-3}


def optimiser(name: str, module: nn.Module, prefix: str, lr: float, decay: float, momentum: float) -> Optimizer:
    """An optimiser of the parameters whose names start with `prefix`; biases and normalisation are not decayed.

    Raises
    ------
    InputError : no such optimiser, or no parameter of that name.
    """
    if name not in _MAKE:
        raise InputError("no such optimiser", found=name, known=_MAKE)
    chosen = [(n, p) for n, p in module.named_parameters() if n.startswith(prefix) and p.requires_grad]
    if not chosen:
        raise InputError(
            "no parameter to train has this name", found=prefix, known=[n for n, _ in module.named_children()]
        )
    matrices = [p for _, p in chosen if p.ndim > 1]
    others = [p for _, p in chosen if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return _MAKE[name]([g for g in groups if g["params"]], lr, decay, momentum)


def rate(schedule: str, step: int, steps: int, warmup: int, drops: int = 0) -> float:
    """Factor on the learning rate: a linear warm-up, then half a cosine to zero, or a third for every plateau."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    return (1 / 3) ** drops if schedule == "plateau" else 1.0


def penalty(parameters: Iterable[nn.Parameter], l1: float, l2: float) -> Tensor | float:
    """l1 * sum |w| + l2 * sum w**2 of the matrices; both together are the elastic net (Zou & Hastie 2005)."""
    if not (l1 or l2):
        return 0.0
    total: Tensor | float = 0.0
    for p in parameters:
        if p.ndim > 1 and p.requires_grad:
            total = total + l1 * p.abs().sum() + l2 * p.square().sum()
    return total


@torch.no_grad()
def average(moving: Mapping[str, Tensor], live: Mapping[str, Tensor], decay: float, step: int) -> None:
    """Move the average of weights in place; the decay grows with the step, so that early weights are forgotten.

    Parameters
    ----------
    moving, live : the averages, and the tensors of the module itself, as its ``state_dict`` names them.
    """
    weight = min(decay, (1 + step) / (10 + step))
    floats = [n for n, v in live.items() if v.is_floating_point()]
    torch._foreach_lerp_([moving[n] for n in floats], [live[n] for n in floats], 1 - weight)
    for name in live.keys() - floats:
        moving[name].copy_(live[name])


@torch.no_grad()
def put(live: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Write values into a module's own tensors; `load_state_dict` takes ten times as long to check them first."""
    for name, tensor in live.items():
        tensor.copy_(weights[name])
