"""A simulation in chunks, in several processes: the same sky whatever the number of workers or the size of a chunk."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch

from deepsky.errors import InputError
from deepsky.registry import find
from deepsky.sample import Sample

Simulator = Callable[..., Sample]


def simulate_many(simulator: str | Simulator, n: int, *, seed: int, workers: int = 1, chunk: int = 512, first: int = 0,
                  **arguments: Any) -> Iterator[Sample]:  # fmt: skip
    """Simulate `n` objects in chunks, in order.

    Parameters
    ----------
    simulator : its name ("lenses"), or a function of a module with its arguments, which other processes can import.
    seed, first : objects `first` to ``first + n - 1`` of the sky `seed`.
    workers : processes, each with one thread; 1 is this process. At most two chunks a worker are ever held.
    chunk : objects that are made and handed over together.
    arguments : of the simulator.

    Raises
    ------
    InputError : no such simulator, or numbers out of range; and whatever the simulator raises.
    """
    if n < 1 or workers < 1 or chunk < 1:
        raise InputError("numbers out of range", found=f"n={n}, workers={workers}, chunk={chunk}", expected="1 or more")
    if isinstance(simulator, str):
        find("simulators", simulator)  # a name that is not known fails here and not in a worker
    pieces = [(start, min(chunk, first + n - start)) for start in range(first, first + n, chunk)]
    return _run(simulator, pieces, seed, workers, arguments)


def _run(simulator: str | Simulator, pieces: list[tuple[int, int]], seed: int, workers: int,
         arguments: dict[str, Any]) -> Iterator[Sample]:  # fmt: skip
    if workers == 1:
        for start, count in pieces:
            yield _call(simulator, count, seed, start, arguments)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(pieces)), mp_context=context, initializer=_one_thread) as pool:
        waiting: deque[Future[Sample]] = deque()
        try:
            for start, count in pieces:
                waiting.append(pool.submit(_work, simulator, count, seed, start, arguments))
                if len(waiting) >= 2 * workers:
                    yield _tensors(waiting.popleft().result())
            while waiting:
                yield _tensors(waiting.popleft().result())
        finally:
            for left in waiting:
                left.cancel()


def _one_thread() -> None:
    torch.set_num_threads(1)


def _call(simulator: str | Simulator, n: int, seed: int, first: int, arguments: dict[str, Any]) -> Sample:
    function = find("simulators", simulator).simulate if isinstance(simulator, str) else simulator
    made: Sample = function(n, seed=seed, first=first, **arguments)
    return made


def _work(simulator: str | Simulator, n: int, seed: int, first: int, arguments: dict[str, Any]) -> Sample:
    return _arrays(_call(simulator, n, seed, first, arguments))


# Tensors would travel through shared memory, whose file handles run out; arrays travel through the pipe.
def _arrays(sample: Sample) -> Sample:
    made: Sample = _convert(sample, torch.Tensor, lambda t: t.numpy())
    return made


def _tensors(sample: Sample) -> Sample:
    made: Sample = _convert(sample, np.ndarray, torch.from_numpy)
    return made


def _convert(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, dict):
        return {name: _convert(part, kind, change) for name, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _convert(getattr(value, f.name), kind, change) for f in fields(value)})
    return value
