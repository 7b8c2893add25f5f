"""The worker's side of `run_guarded`: a loop in a process of its own, with limits on memory and time."""

from __future__ import annotations

import errno
import os
import pickle  # noqa: TID251 - between a process and its own children only
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from deepsky.errors import InputError

GRACE = 2.0  # seconds after which a worker ends itself, should its parent be gone

READY, DONE, MEMORY, BROKEN = "ready", "done", "memory", "broken"


def file_of(item: Sequence[Any]) -> str:
    """What a message calls a work item: its first path, else the item itself, shortened."""
    for part in item:
        if isinstance(part, str | os.PathLike):
            return os.fspath(part)
    text = repr(tuple(item))
    return text if len(text) <= 80 else text[:77] + "..."


def call(function: Callable[..., Any], item: Sequence[Any]) -> Any:
    """The function's result, or an `InputError` in place of any exception but MemoryError and KeyboardInterrupt."""
    try:
        return function(*item)
    except InputError as error:
        return error
    except (MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError from error
        last = traceback.extract_tb(error.__traceback__)[-1]
        refused = InputError(
            f"reading failed: {type(error).__name__}: {error}",
            file=file_of(item),
            found=f"raised in {last.name}, {Path(last.filename).name}:{last.lineno}",
        )
        refused.add_note("".join(traceback.format_exception(error)))
        return refused


def serve(descriptor: int) -> None:
    """Answer work items until the parent closes the connection.

    Parameters
    ----------
    descriptor : of the socket to the parent. The first message is (function, memory_bytes, timeout_s).
    """
    connection = Connection(descriptor)
    try:
        try:
            function, memory_bytes, timeout_s = pickle.loads(connection.recv_bytes())  # noqa: S301
            _limit_memory(memory_bytes)
        except (EOFError, OSError):
            raise
        except BaseException:
            connection.send_bytes(pickle.dumps((BROKEN, traceback.format_exc())))
            return
        connection.send_bytes(pickle.dumps((READY, None)))
        while True:
            item = connection.recv_bytes()
            # the alarm's default action ends the process even inside C code, and without the parent's help
            signal.setitimer(signal.ITIMER_REAL, timeout_s + GRACE)
            answer = _answer(function, item)
            signal.setitimer(signal.ITIMER_REAL, 0)  # before sending: a parent may be slow to listen
            connection.send_bytes(answer)
    except (EOFError, OSError):
        return


def _answer(function: Callable[..., Any], data: bytes) -> bytes:
    try:
        item = pickle.loads(data)  # noqa: S301
        result = call(function, item)
        try:
            return pickle.dumps((DONE, result), protocol=pickle.HIGHEST_PROTOCOL)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            problem = f"the result cannot travel between processes: {type(error).__name__}: {error}"
            return pickle.dumps((DONE, InputError(problem, file=file_of(item))))
    except MemoryError:
        return pickle.dumps((MEMORY, None))


def _limit_memory(memory_bytes: int | None) -> None:
    """Allow `memory_bytes` of address space beyond what the imports have taken already."""
    if memory_bytes is None:
        return
    import resource  # not on Windows

    used = 0
    if (pages := Path("/proc/self/statm")).exists():
        used = int(pages.read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used + memory_bytes
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
