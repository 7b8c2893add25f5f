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
        self.first: tuple[int, float] | None = None  # step and time of the first news: what was done before is unknown
        self.objects = self.done = self.skipped = 0
        self.words: dict[str, str] = {}

    def update(self, step: int, objects: int, *, loss: float | None = None, score: object = None) -> None:
        """Tell of `objects` more, at `step` of the total."""
        self.done = step
        if self.quiet:
            return
        now = time.monotonic()
        self.first = self.first or (step, now)
        self.objects += objects
        if loss is not None:
            self.words["loss"] = f"loss {loss:.4f}"
        if score is not None:
            self.words["score"] = f"valid {getattr(score, 'name', '')} {getattr(score, 'value', score):.4f}"
        if now - self.shown >= self.seconds or step >= self.total:
            self.shown = now
            self._show(step, now)

    def skip(self, steps: int) -> None:
        """Tell of `steps` that were done before."""
        self.done += steps
        self.skipped += steps if self.first else 0
        self.total = max(self.total, self.done)

    def _show(self, step: int, now: float) -> None:
        passed = max(now - self.start, 1e-9)
        words = [
            f"{self.what} {step:,}/{self.total:,}",
            *self.words.values(),
            f"{self.objects / passed:,.0f} objects/s",
        ]
        left = self._left(step, now)
        if left is not None:
            words.append(f"{int(left) // 60}:{int(left) % 60:02d} left")
        line = "  ".join(words)
        sys.stderr.write(f"\r{line:<100}" if self.live else f"{line}\n")
        sys.stderr.flush()

    def _left(self, step: int, now: float) -> float | None:
        """Seconds until the end at the pace since the first news; None before there is one."""
        first, since = self.first or (step, now)
        worked = step - first - self.skipped
        if step >= self.total:
            return 0.0
        return None if worked <= 0 else (now - since) / worked * (self.total - step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live and not self.quiet:
            sys.stderr.write("\n")
