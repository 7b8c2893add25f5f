"""Start: how long a user waits for nothing: `import deepsky`, and the whole of `deepsky --help`.

Each repetition is a new process with the files in the page cache. Of the import its own seconds are counted, without
those of the interpreter; of the command all.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks._measure import Arm, Row, processor

IMPORT = """
import time
cpu, wall = time.process_time(), time.perf_counter()
import deepsky
dir(deepsky)
print(time.process_time() - cpu, time.perf_counter() - wall)
"""
HELP = [sys.executable, "-m", "deepsky", "--help"]


def run(quick: bool, folder: Path) -> list[Row]:
    """Two rows in seconds."""
    repeats = 3 if quick else 11
    imports, helps = [], []
    for _ in range(repeats + 1):
        done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
        cpu, wall = map(float, done.stdout.split())
        imports.append((cpu, wall))
        cpu, wall = processor(), time.perf_counter()
        done = subprocess.run(HELP, capture_output=True, text=True, check=True)
        helps.append((processor() - cpu, time.perf_counter() - wall))
        assert "predict" in done.stdout
    return [
        Row("import deepsky", "value", _arm("import", imports), target=0.3, at_most=True),
        Row("deepsky --help", "value", _arm("the whole process", helps), target=0.5, at_most=True),
    ]


def _arm(name: str, times: list[tuple[float, float]]) -> Arm:
    counted = times[1:]  # the first fills the page cache
    return Arm(name, tuple(round(t[0], 4) for t in counted), tuple(round(t[1], 4) for t in counted))
