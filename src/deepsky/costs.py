"""Costs: the device of a training, and the memory and time that a step takes there, found out before it starts."""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepsky.errors import TrainingError
from deepsky.sample import Sample
from deepsky.task import Task


def device() -> str:
    """ "cuda" where there is one, else "cpu": other accelerators have no float64, in which positions are kept."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def memory_available() -> int:
    """Bytes that this process may still take: what is free, or what its control group allows if that is less; with a
    GPU, what is free on it."""
    if device() == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    found = []
    info = Path("/proc/meminfo")
    if info.exists():
        words = dict(line.split(":") for line in info.read_text().splitlines())
        found.append(int(words["MemAvailable"].split()[0]) * 1024)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip() != "max":
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found) if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_needed(module: nn.Module, sample: Sample, batch: int) -> int:
    """Bytes a training step takes: four times the weights, and twice what the layers hand on for a batch."""
    seen = [0]

    def count(layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not list(layer.children()):
            seen[0] += output.numel() * 4

    hooks = [m.register_forward_hook(count) for m in module.modules()]
    few = sample[: min(2, len(sample))]
    with torch.no_grad():
        module.eval()(few)
    for hook in hooks:
        hook.remove()
    module.train()
    weights = sum(p.numel() for p in module.parameters()) * 4 * 4
    return weights + 2 * seen[0] * batch // len(few)


def check_memory(module: nn.Module, sample: Sample, batch: int) -> int:
    """The estimate of `memory_needed` [bytes].

    Raises
    ------
    TrainingError : it cannot fit; the message names a batch that does.
    """
    needed, free = memory_needed(module, sample, batch), memory_available()
    if needed > 0.9 * free:
        one = memory_needed(module, sample, 1)
        fits = max(1, int(batch * 0.8 * free / needed))
        raise TrainingError(
            f"a step would take about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free\n  fix: "
            + (
                f"--batch {fits}"
                if one < 0.9 * free
                else "a smaller network or smaller images (deepsky ingest --size N)"
            )
        )
    return needed


def seconds_a_step(task: Task, module: nn.Module, sample: Sample, dtype: str) -> float:
    """Measured on a copy, so that the run itself is untouched: the median of three after one to warm up."""
    kind, steps = device(), task.steps()
    twin, here, times = copy.deepcopy(module).to(kind).train(), sample.to(kind), []
    for _ in range(4):
        start = time.perf_counter()
        for step in steps:
            for _ in range(step.updates):
                with torch.autocast(kind, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
                    loss = step.loss(twin, here, torch.Generator(kind).manual_seed(0)).mean()
                loss.backward()  # type: ignore[no-untyped-call]
        if kind == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))
