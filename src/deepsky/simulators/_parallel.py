"""A simulation in chunks, in several processes: the same sky whatever the number of workers or the size of a chunk."""

from __future__ import annotations

import pickle  # noqa: TID251 - between a process and its own children only
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch

from deepsky.errors import InputError
from deepsky.gate import run_guarded
from deepsky.registry import find
from deepsky.sample import Sample

Simulator = Callable[..., Sample]
LONGEST = 7 * 86400.0  # seconds that a chunk may take


def simulate_many(simulator: str | Simulator, n: int, *, seed: int, workers: int = 1, chunk: int = 512, first: int = 0,
                  **arguments: Any) -> Iterator[Sample]:  # fmt: skip
    """Simulate `n` objects in chunks, in order.

    Parameters
    ----------
    simulator : its name ("lenses"), or a function of a module with its arguments, which other processes can import.
    seed, first : objects `first` to ``first + n - 1`` of the sky `seed`.
    workers : processes, each with one thread; 1 is this process. At most two chunks a worker are ever held. A script
        that asks for several needs no ``if __name__ == "__main__":``.
    chunk : objects that are made and handed over together.
    arguments : of the simulator.

    Raises
    ------
    InputError : no such simulator, numbers out of range, or, for several workers, a simulator that they cannot import;
        and whatever the simulator raises.
    """
    if n < 1 or workers < 1 or chunk < 1:
        raise InputError("numbers out of range", found=f"n={n}, workers={workers}, chunk={chunk}", expected="1 or more")
    if isinstance(simulator, str):
        find("simulators", simulator)  # a name that is not known fails here and not in a worker
    if workers > 1:
        _portable(simulator, arguments)
    pieces = [(start, min(chunk, first + n - start)) for start in range(first, first + n, chunk)]
    return _run(simulator, pieces, seed, workers, arguments)


def _run(simulator: str | Simulator, pieces: list[tuple[int, int]], seed: int, workers: int,
         arguments: dict[str, Any]) -> Iterator[Sample]:  # fmt: skip
    if workers == 1:
        for start, count in pieces:
            yield _call(simulator, count, seed, start, arguments)
        return
    items = ((simulator, count, seed, start, arguments) for start, count in pieces)
    # these workers never import the script that asked for them, as those of multiprocessing do: it needs no guard
    made: Any = run_guarded(
        _work, items, workers=min(workers, len(pieces)), memory_bytes=None, timeout_s=LONGEST, ahead=2 * workers
    )
    pool = ThreadPoolExecutor(1)  # workers are heard and given their next piece while the caller uses this one
    try:
        coming = pool.submit(next, made, None)
        while (answer := coming.result()) is not None:
            coming = pool.submit(next, made, None)
            number, result = answer
            if isinstance(result, InputError):  # of the worker itself: what a simulator raises is a `_Raised`
                start, count = pieces[number]
                raise InputError(
                    f"objects {start} to {start + count - 1} could not be made in a worker",
                    found=result.problem.removeprefix("reading "),
                    fix="fewer workers or a smaller chunk, if memory ran out; workers=1 shows where it happens",
                )
            if isinstance(result, _Raised):
                raise result.error
            yield _tensors(result)
    finally:
        pool.shutdown()
        made.close()


@dataclass(frozen=True)
class _Raised:
    """What a simulator raised in a worker."""

    error: Exception


def _call(simulator: str | Simulator, n: int, seed: int, first: int, arguments: dict[str, Any]) -> Sample:
    function = find("simulators", simulator).simulate if isinstance(simulator, str) else simulator
    made: Sample = function(n, seed=seed, first=first, **arguments)
    return made


def _work(simulator: str | Simulator, n: int, seed: int, first: int, arguments: dict[str, Any]) -> Sample | _Raised:
    try:
        return _arrays(_call(simulator, n, seed, first, arguments))
    except Exception as error:
        return _Raised(_travelling(error))


def _travelling(error: Exception) -> Exception:
    """An error as the parent will raise it, with the worker's traceback as a note."""
    lines = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:  # one that asks for other arguments than it passes on
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in a worker:\n{lines}")
    return error


def _portable(simulator: str | Simulator, arguments: dict[str, Any]) -> None:
    """Refuse what another process cannot import."""
    fix = "put it into a module of its own and import it from there, or use workers=1"
    try:
        data = pickle.dumps((simulator, arguments))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError("a simulator or its arguments cannot reach other processes", found=error, fix=fix) from error
    if b"__main__" in data:
        name = getattr(simulator, "__name__", repr(simulator))
        raise InputError("other processes cannot import what stands in a script or a notebook", found=name, fix=fix)


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
