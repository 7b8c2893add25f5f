"""Checkpoints: the whole state of a run in one file that is always whole."""

from __future__ import annotations

import hashlib
import io
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import torch

from deepsky.errors import InputError
from deepsky.io import atomic_write

HEAD = b"deepsky checkpoint "  # then the payload's SHA-256 and a line's end


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and literals) so that a kill at any moment leaves the last whole checkpoint."""
    held = io.BytesIO()
    torch.save(state, held)
    data = held.getbuffer()
    digest = hashlib.sha256(data).hexdigest().encode()

    def write(file: BinaryIO) -> None:
        file.write(HEAD + digest + b"\n")
        file.write(data)

    atomic_write(path, write)


def load(path: Path) -> dict[str, Any] | None:
    """The state, or None where there is no checkpoint; nothing in it is executed.

    Raises
    ------
    InputError : the file was altered, or cannot be read.
    """
    if not path.exists():
        return None
    fix = f"delete {path.name} to start this run again"
    head, _, data = path.read_bytes().partition(b"\n")
    found = hashlib.sha256(data).hexdigest()
    if head != HEAD + found.encode():  # torch reads an altered number without a word
        raise InputError("the checkpoint was altered after it was written", file=path, found=found[:16],
                         expected=head.removeprefix(HEAD)[:16].decode(errors="replace"), fix=fix)  # fmt: skip
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds, all of which mean the same here
        raise InputError("the checkpoint cannot be read", file=path, found=str(error)[:200], fix=fix) from error
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
