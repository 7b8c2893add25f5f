"""Reading in child processes: crashes, hangs and memory become one refusal each, and nothing else is disturbed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import gate_readers

from deepsky.errors import InputError
from deepsky.gate import run_guarded
from deepsky.gate.child import GRACE

FIVE = [(n,) for n in range(5)]


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    """Neither running nor a zombie."""
    yield
    assert _children() == []


def _children() -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and (b"deepsky.gate.child" in command or fields[0] == "Z"):
            found.append(f"{stat.parent.name} {fields[0]}")
    return found


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    assert list(run_guarded(gate_readers.double, FIVE, workers=workers)) == [(n, 2 * n) for n in range(5)]
    assert list(run_guarded(gate_readers.double, [], workers=workers)) == []


def test_order_is_kept_when_items_finish_out_of_order() -> None:
    items = [(0, 0.3), *((n, 0.0) for n in range(1, 8))]
    assert [r for _, r in run_guarded(gate_readers.slowly, items, workers=2)] == list(range(8))


def test_workers_live_long_and_have_one_thread() -> None:
    used = {pid for _, (_, pid) in run_guarded(gate_readers.process_of, [(n,) for n in range(50)], workers=2)}
    assert 1 <= len(used) <= 2 and os.getpid() not in used
    assert list(run_guarded(gate_readers.threads, [()], workers=1)) == [(0, ("1", "1"))]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("segfault", "SIGSEGV"),
        ("null", "SIGSEGV"),
        ("abort", "SIGABRT"),
        ("killed", "SIGKILL"),
        ("exit", "exit code 3"),
    ],
)
def test_a_crash_is_one_refusal(kind: str, name: str, tmp_path: Path) -> None:
    log = tmp_path / "tries"
    items = [("fine", ""), (kind, str(log)), ("fine", ""), ("fine", "")]
    results = [r for _, r in run_guarded(gate_readers.ill, items, workers=2)]
    assert [r for r in results if isinstance(r, str)] == ["fine"] * 3
    error = results[1]
    assert isinstance(error, InputError)
    assert error.problem == f"reading ends the worker process: {name}" and error.found == f"{name}, twice"
    assert error.file == kind and error.expected and error.fix
    tries = log.read_text().split()
    assert len(tries) == 2 and len(set(tries)) == 2  # once more, in a fresh process


def test_bad_luck_is_told_from_poison(tmp_path: Path) -> None:
    log = tmp_path / "tries"
    results = list(run_guarded(gate_readers.ill, [("fine", ""), ("once", str(log)), ("fine", "")], workers=2))
    assert results == [(0, "fine"), (1, "fine"), (2, "fine")]
    assert len(set(log.read_text().split())) == 2


def test_a_hang_ends_at_the_time_limit() -> None:
    start = time.monotonic()
    items = [("fine",), ("hang",), ("fine",)]
    results = [r for _, r in run_guarded(gate_readers.ill, items, workers=1, timeout_s=1.5)]
    assert results[0] == results[2] == "fine"
    error = results[1]
    assert isinstance(error, InputError)
    assert (error.found, error.expected) == ("more than 1.5 s, twice", "at most 1.5 s")
    assert 3.0 < time.monotonic() - start < 300  # it would hang for an hour


def test_a_slow_consumer_costs_no_item() -> None:
    """The clock is the worker's: results that wait for the caller are not late."""
    results = []
    for _, result in run_guarded(gate_readers.slowly, [(n, 0.01) for n in range(3)], workers=1, timeout_s=1.5):
        results.append(result)
        time.sleep(1.7)
    assert results == [0, 1, 2]


def test_a_memory_hog_ends_at_the_memory_limit() -> None:
    items = [("memory",), ("fine",)]
    first, second = (r for _, r in run_guarded(gate_readers.ill, items, workers=1, memory_bytes=1 << 28))
    assert isinstance(first, InputError) and second == "fine"
    assert first.problem == "reading needs more memory than the limit"
    assert first.found == "MemoryError, twice" and "memory_bytes" in str(first.fix)


@pytest.mark.parametrize("workers", [0, 1])
def test_any_exception_is_a_refusal_that_says_where(workers: int) -> None:
    items = [("raise",), ("leave",), ("fine",)]
    first, second, third = (r for _, r in run_guarded(gate_readers.ill, items, workers=workers))
    assert isinstance(first, InputError) and isinstance(second, InputError) and third == "fine"
    assert first.problem == "reading failed: ZeroDivisionError: one by nothing" and first.file == "raise"
    assert str(first.found).startswith("raised in ill, gate_readers.py:")
    assert "Traceback" in first.__notes__[0]
    assert second.problem == "reading failed: SystemExit: 4"


def test_a_result_that_cannot_travel_is_a_refusal() -> None:
    ((_, error),) = run_guarded(gate_readers.ill, [("unpicklable",)], workers=1)
    assert isinstance(error, InputError) and "cannot travel between processes" in error.problem


def test_large_items_and_results_pass() -> None:
    items = [("x" * 3_000_000,) for _ in range(6)]
    assert [r for _, r in run_guarded(gate_readers.ill, items, workers=2)] == [item[0] for item in items]


def test_items_are_read_as_needed() -> None:
    read: list[int] = []

    def endless() -> Iterator[tuple[int]]:
        for n in range(10**9):
            read.append(n)
            yield (n,)

    results = run_guarded(gate_readers.double, endless(), workers=2, ahead=8)
    assert [next(results)[1] for _ in range(20)] == [2 * n for n in range(20)]
    assert len(read) <= 20 + 8
    results.close()  # type: ignore[attr-defined]
    assert _children() == []


def test_many_suspects_do_not_starve_one_another() -> None:
    items = [("killed",), ("segfault",), ("killed",), ("fine",), ("exit",), ("fine",)]
    results = [r for _, r in run_guarded(gate_readers.ill, items, workers=2)]
    assert [isinstance(r, InputError) for r in results] == [True, True, True, False, True, False]


def test_what_a_reader_prints_stays_off_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(run_guarded(gate_readers.ill, [("print",)], workers=1)) == [(0, "print")]
    assert capfd.readouterr() == ("", "noise\n")


@pytest.mark.parametrize(
    ("function", "message"),
    [(lambda: 0, "top-level"), (type("F", (), {"__module__": "__main__"}), "lives in a script")],
)
def test_a_function_that_no_worker_can_import_is_refused_at_once(function: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_guarded(function, [()], workers=1)


def test_a_module_that_cannot_be_imported_is_no_fault_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "reader_that_breaks.py"
    module.write_text("def read():\n    return 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import reader_that_breaks  # type: ignore[import-not-found]

    module.write_text("raise OverflowError('broken')\n" + "#" * 100)
    with pytest.raises(RuntimeError, match="OverflowError: broken"):
        list(run_guarded(reader_that_breaks.read, [()], workers=1))


SCRIPT = """
from deepsky.gate import run_guarded
from tests import gate_readers
for number, result in run_guarded(gate_readers.slowly, [(n, 3600.0 if n else 0.0) for n in range(4)], workers=2,
                                  timeout_s=TIMEOUT):
    print("first", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the workers are looked for in /proc")
@pytest.mark.parametrize(("sign", "timeout"), [(signal.SIGINT, 60.0), (signal.SIGKILL, 0.5)])
def test_nothing_survives_the_parent(sign: signal.Signals, timeout: float) -> None:
    """On Ctrl-C the workers end at once; those of a killed parent at their time limit. No `__main__` guard needed."""
    code = SCRIPT.replace("TIMEOUT", str(timeout))
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[1], stdout=-1, stderr=-1, text=True
    ) as script:
        assert script.stdout is not None and script.stderr is not None
        assert script.stdout.readline() == "first\n"
        workers = _workers_of(script.pid)
        assert workers
        script.send_signal(sign)
        assert script.wait(60) != 0
        deadline = time.monotonic() + (0.0 if sign == signal.SIGINT else timeout + GRACE + 60)
        while alive := [pid for pid in workers if _is_alive(pid)]:
            assert time.monotonic() < deadline, f"alive: {alive}"
            time.sleep(0.1)
        assert ("KeyboardInterrupt" in script.stderr.read()) == (sign == signal.SIGINT)


def _workers_of(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
