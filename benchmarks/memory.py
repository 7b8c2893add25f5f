"""Memory: the peak of `ingest` and of `predict` must not grow with the survey: ten times the objects, the same memory.

Each runs in a process of its own over 10,000 and over 100,000 images of 32 x 32 float32, ingested from one FITS file an
object in child processes; what is given is the largest resident set of that process or of any of its children. Of the
growth a part cannot be helped, since the index (names, positions, columns) is in memory: some hundred bytes an object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks._machine import ROOT
from benchmarks._measure import Arm, Row

SIZE = 32
GROWTH = 1.1
TILE_BYTES = 32 << 20  # several tiles for either size, or the fewer would be one small tile


def run(quick: bool, folder: Path) -> list[Row]:
    """One row for `ingest`, one for `predict`."""
    few, many = (1000, 4000) if quick else (10_000, 100_000)
    peaks: dict[str, dict[int, list[dict[str, float]]]] = {"ingest": {}, "predict": {}}
    for n in (few, many):
        write_files(folder / f"files-{n}", n)
        peaks["ingest"][n] = [_child("ingest", folder, n)]
    _child("train", folder, few)
    for n in (few, many):
        peaks["predict"][n] = [_child("predict", folder, n) for _ in range(1 if quick else 3)]
    return [_row(what, found, few, many) for what, found in peaks.items()]


def _row(what: str, found: dict[int, list[dict[str, float]]], few: int, many: int) -> Row:
    def arm(n: int) -> Arm:
        return Arm(f"{n:,} objects", tuple(round(f["peak"], 1) for f in found[n]))

    own = [max(f["anonymous"] for f in found[n]) for n in (few, many)]
    note = f"of it the process's own memory, without mapped files: {own[0]:.0f} and {own[1]:.0f} MB"
    return Row(f"peak memory of {what}", "cost", arm(many), arm(few), GROWTH, True, unit="MB", note=note)


def _child(what: str, folder: Path, n: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", what, str(folder), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_files(folder: Path, n: int) -> None:
    """One FITS file an object, written byte by byte: astropy would take ten times as long."""
    folder.mkdir()
    cards = ["SIMPLE  =                    T", "BITPIX  =                  -32", "NAXIS   =                    2",
             f"NAXIS1  = {SIZE:20d}", f"NAXIS2  = {SIZE:20d}", "END"]  # fmt: skip
    header = "".join(c.ljust(80) for c in cards).ljust(2880).encode()
    rng = np.random.default_rng(0)
    for number in range(n):
        flux = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
        flux[12:20, 12:20] += rng.uniform(1, 5)
        data = flux.astype(">f4").tobytes()
        (folder / f"{number:06d}.fits").write_bytes(header + data + bytes(-len(data) % 2880))


# -- in a process of its own --------------------------------------------------------------------------------------
@contextmanager
def _watched() -> Iterator[dict[str, float]]:
    """Note the largest resident set [MB] of this process and of each child, and the largest part that is its own.

    From /proc and not from getrusage: there a process begins with the peak of the one that started it.
    """
    found, stop = {"own": 0.0, "children": 0.0, "anonymous": 0.0}, threading.Event()
    me = os.getpid()

    def look() -> None:
        while not stop.wait(0.02):
            note()

    def note() -> None:
        found["own"] = max(found["own"], _status(me, "VmHWM"))
        found["anonymous"] = max(found["anonymous"], _status(me, "RssAnon"))
        for child in Path(f"/proc/{me}/task/{me}/children").read_text().split():
            found["children"] = max(found["children"], _status(int(child), "VmHWM"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        note()
        found["peak"] = max(found["own"], found["children"])


def _status(process: int, name: str) -> float:
    """A figure of /proc/PID/status [MB]; 0 for a process that has just ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    words = text.partition(f"{name}:")[2].split()
    return int(words[0]) / 1024 if words else 0.0


def _main(what: str, folder: Path, n: int) -> None:
    import torch

    torch.set_num_threads(1)
    began = time.process_time()
    if what == "ingest":
        from deepsky.ingestion import ingest

        with _watched() as found:
            ingest(folder / f"files-{n}", folder / f"survey-{n}", folds={"near_duplicates": False}, workers=1,
                   tile_bytes=TILE_BYTES, quiet=True)  # fmt: skip
    else:
        from deepsky import model
        from deepsky.inference import predict
        from deepsky.survey import Survey
        from deepsky.tasks.regress import Regress
        from deepsky.training import train

        survey = Survey.load(folder / f"survey-{n}")
        if what == "train":
            target = survey.with_columns({"brightness": survey.column("row").astype(float)}, {"brightness": _target()})
            train(Regress("brightness"), target, network="resnet", steps=2, baseline=None, to=folder / "model",
                  quiet=True)  # fmt: skip
            found = {}
        else:
            with _watched() as found:
                made = predict(model.load(folder / "model"), survey, to=folder / f"catalogue-{n}-{time.time_ns()}",
                               quiet=True)  # fmt: skip
            assert len(made) == n
    print(json.dumps({**found, "seconds": time.process_time() - began}))


def _target() -> object:
    from deepsky.schema import Column

    return Column(role="label")


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
