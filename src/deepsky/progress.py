"""Progress on stderr: step, loss, score, objects a second, time left; lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self


class Progress:
    """Shows how far a loop has come; `quiet` shows nothing."""

    def __init__(self, total: int, quiet: bool = False, what: str = "training", seconds: float = 5.0) -> None:
        self.total, self.quiet, self.what = total, quiet, what
        self.live = sys.stderr.isatty()
        self.seconds = 0.2 if self.live else seconds
        self.start = self.shown = time.monotonic()
        self.first: int | None = None
        self.objects = self.done = 0
        self.words: dict[str, str] = {}

    def update(self, step: int, objects: int, *, loss: float | None = None, score: object = None) -> None:
        """Tell of `objects` more, at `step` of the total."""
        self.done = step
        if self.quiet:
            return
        self.first = step - 1 if self.first is None else self.first
        self.objects += objects
        if loss is not None:
            self.words["loss"] = f"loss {loss:.4f}"
        if score is not None:
            self.words["score"] = f"valid {getattr(score, 'name', '')} {getattr(score, 'value', score):.4f}"
        now = time.monotonic()
        if now - self.shown >= self.seconds or step >= self.total:
            self.shown = now
            self._show(step, now)

    def skip(self, steps: int) -> None:
        """Tell of `steps` that were done before."""
        self.done += steps
        self.total = max(self.total, self.done)

    def _show(self, step: int, now: float) -> None:
        passed = max(now - self.start, 1e-9)
        left = passed / max(1, step - (self.first or 0)) * (self.total - step)
        line = f"{self.what} {step:,}/{self.total:,}  " + "  ".join(self.words.values())
        line += f"  {self.objects / passed:,.0f} objects/s  {int(left) // 60}:{int(left) % 60:02d} left"
        sys.stderr.write(f"\r{line:<100}" if self.live else f"{line}\n")
        sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live and not self.quiet:
            sys.stderr.write("\n")
