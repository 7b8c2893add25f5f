"""Checkpoints: the whole state of a run in one file that is always whole."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from deepsky.errors import InputError
from deepsky.io import atomic_write


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and literals) so that a kill at any moment leaves the last whole checkpoint."""
    held = io.BytesIO()
    torch.save(state, held)
    atomic_write(path, held.getvalue())


def load(path: Path) -> dict[str, Any] | None:
    """The state, or None where there is no checkpoint; nothing in it is executed.

    Raises
    ------
    InputError : the file cannot be read.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds, all of which mean the same here
        raise InputError(
            "the checkpoint cannot be read",
            file=path,
            found=str(error)[:200],
            fix=f"delete {path.name} to start this run again",
        ) from error
    return state


@dataclass
class Stop:
    """Set when the run was asked to stop: `wanted` holds the signal's name."""

    wanted: str = ""


@contextmanager
def signals() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into a wish, so that the step ends and a checkpoint is written; a second SIGINT
    stops at once."""
    stop, before = Stop(), {}

    def wish(number: int, frame: FrameType | None) -> None:
        if stop.wanted and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.wanted = signal.Signals(number).name

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, wish)
    except ValueError:  # not in the main thread: whoever runs us there handles signals
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
