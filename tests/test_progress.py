"""Progress: the time left follows the pace, whether steps are batches or objects, and after a resumed start."""

from __future__ import annotations

import re

import pytest

from deepsky import progress
from deepsky.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def left(text: str) -> list[int | None]:
    """Seconds left of every line."""
    found = [re.search(r"(\d+):(\d\d) left", line) for line in text.splitlines()]
    return [None if f is None else 60 * int(f[1]) + int(f[2]) for f in found]


@pytest.mark.parametrize(("start", "each", "objects"), [(0, 1, 64), (500, 1, 64), (0, 256, 256), (2560, 256, 256)])
def test_time_left_at_an_even_pace(
    capsys: pytest.CaptureFixture[str], clock: list[float], start: int, each: int, objects: int
) -> None:
    total = start + 10 * each
    shown = Progress(total, seconds=0.0)
    for i in range(1, 11):
        clock[0] += 7.0
        shown.update(start + i * each, objects)
    text = capsys.readouterr().err
    assert left(text) == [None, *(7 * (10 - i) for i in range(2, 11))]
    assert f"{objects / 7:,.0f} objects/s" in text.splitlines()[-1]


def test_what_was_done_before_does_not_count_as_pace(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    shown = Progress(1000, seconds=0.0)
    for done in range(5):
        clock[0] += 10.0
        shown.update(shown.done + 100, 100)
        if done == 1:
            shown.skip(400)  # a tile of an earlier run
    assert left(capsys.readouterr().err) == [None, 80, 30, 20, 10]


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(2, quiet=True, seconds=0.0) as shown:
        shown.update(1, 5)
        shown.update(2, 5)
    assert capsys.readouterr().err == "" and shown.done == 2
