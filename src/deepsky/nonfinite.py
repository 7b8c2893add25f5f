"""Where a loss stopped being finite: which objects, and which layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deepsky.sample import Sample
from deepsky.task import Step


def explain(step: Step, module: nn.Module, sample: Sample, losses: Tensor, number: int) -> str:
    """Words for the error: the objects whose loss is not finite, and the first layer whose output is not."""
    bad = (~torch.isfinite(losses.detach())).nonzero()[:, 0].tolist()
    names = [sample.id[i] for i in (bad or range(len(sample)))]
    layer = _first_layer(step, module, sample)
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return (
        f"the loss {step.name!r} is not finite at step {number}\n"
        f"  found: {'in the objects' if bad else 'a gradient that is not finite, in the batch of'} {shown}\n"
        f"  found: it arose in {layer}\n"
        "  known: no weights of this step were kept\n"
        "  fix: a lower rate (--set lr=...), --set precision=float32, or look at these objects: deepsky look"
    )


def _first_layer(step: Step, module: nn.Module, sample: Sample) -> str:
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(f"layer {name!r} ({type(layer).__name__})")

        return hook

    hooks = [m.register_forward_hook(watch(n)) for n, m in module.named_modules() if n and not list(m.children())]
    try:
        with torch.no_grad():
            step.loss(module, sample, torch.Generator(sample.key.device).manual_seed(0))
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return found[0]
    weights = [n for n, p in module.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    return f"the gradient of {weights[0]!r}" if weights else "the loss itself"
