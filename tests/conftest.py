"""Fixtures for all tests: the data beside the project, a fixed seed, and a guard over global state."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded: one thread, so that runs agree to the bit
os.environ.setdefault("MPLBACKEND", "Agg")

import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: children would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: ``DEEPSKY_SHARED_DATA``, or ``../shared/data`` beside the project. Read only."""
    folder = Path(os.environ.get("DEEPSKY_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set DEEPSKY_SHARED_DATA to the folder that holds them")
    return folder


def _global_state() -> dict[str, Any]:
    state: dict[str, Any] = {"folder": os.getcwd(), "numpy errors": np.geterr()}
    torch: Any = sys.modules.get("torch")  # not imported here: many tests do without it
    if torch is None:
        return state | {
            "default dtype": "torch.float32", "default device": "cpu", "threads": 1, "gradients": True,
            "deterministic algorithms": False, "matmul precision": "highest",
        }  # fmt: skip
    return state | {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
    }


@pytest.fixture(autouse=True)
def _untouched_global_state() -> Iterator[None]:
    """Every test starts from the same seeds, and fails if it leaves the process changed."""
    random.seed(0)
    np.random.seed(0)  # the global generators, in case something draws from them
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    before = _global_state()
    yield
    after = _global_state()
    changed = [f"{name}: {before[name]} -> {after[name]}" for name in before if before[name] != after[name]]
    assert not changed, f"the test left global state changed: {'; '.join(changed)}"
