"""Where and from what a figure comes: processor, memory, versions, commit, date."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "numpy", "astropy", "pyarrow", "lightning-fabric", "scikit-learn", "galsim", "lenstronomy")


def machine() -> dict[str, Any]:
    """Processor, cores and memory."""
    found: dict[str, str] = {}
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    flags = set(found.get("flags", "").split())
    return {
        "processor": found.get("model name", platform.processor() or platform.machine()),
        "family": f"{found.get('cpu family', '?')}.{found.get('model', '?')}",
        "instructions": [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags],
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of deepsky, Python and what the speed rests on; "not installed" where it is not."""
    found = {"deepsky": version("deepsky"), "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> dict[str, Any]:
    """The commit of the working tree, and whether files that are under version control differ from it."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    name = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=all", "--", "src", "benchmarks", "pyproject.toml")
    dirty = None if changed is None else any("benchmarks/results/" not in line for line in changed.splitlines())
    return {"commit": name or "unknown", "dirty": dirty}


def origin(command: str) -> dict[str, Any]:
    """All of it, with the command that repeats the measurement."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"command": command, **commit(), "date": today, "machine": machine(), "versions": versions()}


def words(made: dict[str, Any]) -> str:
    """An origin in one sentence."""
    m, v = made["machine"], made["versions"]
    state = " with uncommitted changes" if made["dirty"] else "" if made["dirty"] is False else " in an unknown state"
    parts = ", ".join(f"{name} {version}" for name, version in v.items() if version != "not installed")
    flags = " ".join(m["instructions"])
    return (
        f"`{made['command']}` on {made['date']}, commit {made['commit'][:10]}{state}; {m['processor']} (family "
        f"{m['family']}, {flags}), {m['cores']} cores, {m['memory_gb']} GB, {m['system']}; {parts}."
    )
