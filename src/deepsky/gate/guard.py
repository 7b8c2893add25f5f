"""Running a reader over files from outside in child processes, so that a crash is one row and not the end."""

from __future__ import annotations

import os
import pickle  # noqa: TID251 - between a process and its own children only
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar, final

from deepsky.errors import InputError
from deepsky.gate.child import BROKEN, DONE, READY, call, file_of

T = TypeVar("T")

START_S = 300.0  # a worker imports the reader's module, from a slow disk perhaps
SMALL = 16384  # bytes; an item that the socket's buffer holds while its worker is busy may be sent ahead
QUICK_S = 0.1  # a job that took longer blocks the one queued behind it
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def processors() -> int:
    """How many processors this process may use, at most four: reading is bound by the disk beyond that."""
    return max(1, min(4, len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1))


def run_guarded(
    function: Callable[..., T],
    items: Iterable[Sequence[Any]],
    *,
    workers: int,
    memory_bytes: int | None = 4 << 30,
    timeout_s: float = 60.0,
    ahead: int = 32,
) -> Iterator[tuple[int, T | InputError]]:
    """Call `function(*item)` for every item in long-lived child processes; results come in the order of the items.

    An item that ends its worker (a crash, the memory limit, the time limit) is tried once more, alone in a fresh
    worker: what fails twice is the item's fault and becomes an `InputError`; the other items never notice. Any
    exception of the function becomes an `InputError` too.

    Parameters
    ----------
    function : importable from a module; the worker imports that module once.
    items : the positional arguments of each call; read as needed, so that they may be many.
    workers : number of child processes; 0 runs everything in this process, without limits.
    memory_bytes : address space a worker may take beyond its imports, maps of files included; None for no limit.
    timeout_s : seconds an item may take.
    ahead : items whose results may wait for an earlier one.

    Yields
    ------
    (number of the item, its result or an InputError).

    Raises
    ------
    ValueError : the function cannot be imported by a worker.
    RuntimeError : a worker cannot start.
    """
    if workers < 0 or timeout_s <= 0 or ahead < 1:
        raise ValueError(f"workers >= 0, timeout_s > 0, ahead >= 1: got {workers}, {timeout_s}, {ahead}")
    if workers == 0:
        return ((number, _in_process(function, item)) for number, item in enumerate(items))
    if getattr(function, "__module__", None) == "__main__":
        raise ValueError(f"{function!r} lives in a script: move it to a module that can be imported, or use workers=0")
    try:
        setup = pickle.dumps((function, memory_bytes, timeout_s))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"{function!r} cannot be imported by a worker: make it a top-level function") from error
    return _Run(setup, iter(items), workers, timeout_s, ahead).results()


def _in_process(function: Callable[..., T], item: Sequence[Any]) -> T | InputError:
    try:
        return call(function, item)  # type: ignore[no-any-return]
    except MemoryError:
        return InputError("reading needs more memory than there is", file=file_of(item), fix="leave the file out")


@final
@dataclass
class _Job:
    """One item on its way: its number, name and pickled arguments, and whether it ended a worker already."""

    number: int
    file: str
    data: bytes
    suspect: bool = False
    killed: bool = False  # by SIGKILL, the kernel's way to get memory back


@final
@dataclass
class _Worker:
    """A child process and the jobs sent to it; the first of them is the one it works on."""

    process: subprocess.Popen[bytes]
    connection: Connection
    deadline: float
    seconds: float = float("inf")  # that the last job took
    started: float = 0.0
    ready: bool = False
    jobs: deque[_Job] = field(default_factory=deque)

    def end(self) -> int:
        """Kill the process, leave no zombie, and return its exit code."""
        code = self.process.poll()
        self.connection.close()
        self.process.kill()
        self.process.wait()
        return self.process.returncode if code is None else code


@final
class _Run:
    """The state of one `run_guarded`."""

    def __init__(
        self, setup: bytes, items: Iterator[Sequence[Any]], workers: int, timeout_s: float, ahead: int
    ) -> None:
        self._setup, self._items, self._most, self._timeout, self._ahead = setup, items, workers, timeout_s, ahead
        self._crew: list[_Worker] = []
        self._jobs: deque[_Job] = deque()  # read and not yet sent, or queued behind one that ended their worker
        self._suspects: deque[_Job] = deque()
        self._done: dict[int, Any] = {}
        self._read = self._given = 0
        self._exhausted = False

    def results(self) -> Iterator[tuple[int, Any]]:
        try:
            while True:
                self._feed()
                if self._given in self._done:
                    yield self._given, self._done.pop(self._given)
                    self._given += 1
                elif self._exhausted and self._given == self._read:
                    return
                self._listen(0.0 if self._given in self._done else None)
        finally:  # the end, an error, Ctrl-C, or a consumer that stopped early
            for worker in self._crew:
                worker.end()

    def _fetch(self, count: int) -> None:
        """Have `count` jobs at hand, if the items and the window of waiting results allow."""
        while len(self._jobs) < count and not self._exhausted and self._read < self._given + self._ahead:
            try:
                item = tuple(next(self._items))
            except StopIteration:
                self._exhausted = True
                return
            data = pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
            self._jobs.append(_Job(self._read, file_of(item), data))
            self._read += 1

    def _feed(self) -> None:
        """Give every worker something to do; suspects go to fresh workers, one each."""
        # a job killed for memory is tried while nothing else runs, else its neighbours might get it killed again
        hush = any(job.killed for job in self._suspects)
        busy = any(worker.jobs for worker in self._crew)
        while self._suspects and len(self._crew) < self._most and not (hush and busy):
            self._hire(self._suspects.popleft())
            busy = True
        if self._suspects:
            self._retire_idle()
            return
        starting = sum(not worker.ready and not worker.jobs for worker in self._crew)
        room = self._most - len(self._crew)
        if room:
            self._fetch(starting + room)
            for _ in range(min(room, len(self._jobs) - starting)):
                self._hire(None)
        for depth in (1, 2):
            for worker in self._crew:
                self._fetch(1)
                if self._jobs and worker.ready and len(worker.jobs) < depth and self._may_queue(worker):
                    self._send(worker, self._jobs.popleft())

    def _may_queue(self, worker: _Worker) -> bool:
        """Whether the next job may be sent now: to an idle worker, or ahead to one whose jobs are quick and small."""
        if not worker.jobs:
            return True
        now, following = worker.jobs[0], self._jobs[0]
        return worker.seconds < QUICK_S and not now.suspect and max(len(now.data), len(following.data)) <= SMALL

    def _retire_idle(self) -> None:
        """End one idle worker where a suspect needs the place of a fresh one."""
        if len(self._crew) >= self._most:
            for worker in self._crew:
                if worker.ready and not worker.jobs:
                    self._crew.remove(worker)
                    worker.end()
                    return

    def _hire(self, suspect: _Job | None) -> None:
        ours, theirs = socket.socketpair()
        code = f"import sys; sys.path[:] = {sys.path!r}; from deepsky.gate.child import serve; serve({theirs.fileno()})"
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2,  # standard output belongs to results
                process_group=0,  # Ctrl-C is for the parent, which ends its workers
            )
        worker = _Worker(process, Connection(ours.detach()), time.monotonic() + START_S)
        self._crew.append(worker)
        if suspect is not None:
            worker.jobs.append(suspect)
        with suppress(OSError):  # if it died at once, `_listen` finds its connection closed
            worker.connection.send_bytes(self._setup)

    def _send(self, worker: _Worker, job: _Job) -> None:
        if not worker.jobs:
            self._start_clock(worker)
        worker.jobs.append(job)
        with suppress(OSError):  # if it died between two jobs, `_listen` finds its connection closed
            worker.connection.send_bytes(job.data)

    def _start_clock(self, worker: _Worker) -> None:
        worker.started = time.monotonic()
        worker.deadline = worker.started + self._timeout

    def _listen(self, patience: float | None) -> None:
        """Wait for answers, deaths and deadlines, and deal with them."""
        waited = [worker for worker in self._crew if worker.jobs or not worker.ready]
        if not waited:
            return
        if patience is None:
            patience = max(0.0, min(worker.deadline for worker in waited) - time.monotonic())
        heard = set(wait([worker.connection for worker in waited], patience))
        for worker in waited:
            if worker.connection in heard:
                self._hear(worker)
            elif time.monotonic() > worker.deadline:
                if not worker.ready:
                    raise RuntimeError(f"a worker did not start within {START_S:g} s")
                self._lost(worker, "time")

    def _hear(self, worker: _Worker) -> None:
        try:
            kind, result = pickle.loads(worker.connection.recv_bytes())  # noqa: S301
        except Exception:  # the end of the connection, or bytes that a worker gone astray has sent
            self._lost(worker, "")
            return
        if kind == BROKEN:
            raise RuntimeError(f"a worker cannot import the reader:\n{result}")
        if kind == READY:
            worker.ready = True
            if worker.jobs:
                self._send(worker, worker.jobs.popleft())
        elif kind == DONE:
            self._done[worker.jobs.popleft().number] = result
            worker.seconds = time.monotonic() - worker.started
            self._start_clock(worker)
        else:
            self._lost(worker, "memory")

    def _lost(self, worker: _Worker, reason: str) -> None:
        """A worker that is gone, or must go: blame the job it worked on, once it failed alone as well."""
        self._crew.remove(worker)
        code = worker.end() if reason else _exit_code(worker)
        if not worker.ready:
            raise RuntimeError(f"a worker ended while it started: {_name(code)}")
        if not worker.jobs:
            return
        job = worker.jobs.popleft()
        self._jobs.extendleft(reversed(worker.jobs))
        if job.suspect:
            self._done[job.number] = self._verdict(job, reason, code)
        else:
            job.suspect, job.killed = True, not reason and code == -signal.SIGKILL
            self._suspects.append(job)

    def _verdict(self, job: _Job, reason: str, code: int) -> InputError:
        if reason == "time" or code == -signal.SIGALRM:
            problem, found = "reading takes longer than the limit", f"more than {self._timeout:g} s, twice"
            expected, fix = f"at most {self._timeout:g} s", "raise timeout_s if the file is truly that slow to read"
        elif reason == "memory":
            problem, found = "reading needs more memory than the limit", "MemoryError, twice"
            expected, fix = "a reader within memory_bytes", "raise memory_bytes if the file is truly that large"
        else:
            problem, found = f"reading ends the worker process: {_name(code)}", f"{_name(code)}, twice"
            expected, fix = "a reader that survives", "the file is damaged: leave it out, or download or write it again"
        return InputError(problem, file=job.file, found=found, expected=expected, fix=fix)


def _exit_code(worker: _Worker) -> int:
    """The exit code of a process whose connection closed; it may need a moment to be gone."""
    with suppress(subprocess.TimeoutExpired):
        worker.process.wait(5.0)
    return worker.end()


def _name(code: int) -> str:
    """'SIGSEGV', or 'exit code 3'."""
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"
