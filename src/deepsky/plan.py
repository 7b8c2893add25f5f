"""Plan: what is decided before step 0 and written to ``run.json``, so that a resumed run never measures again."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

import deepsky
from deepsky import costs
from deepsky.errors import InputError
from deepsky.io import read_json, write_json
from deepsky.optimise import OPTIMISERS, SCHEDULES
from deepsky.sample import Sample
from deepsky.survey import Survey
from deepsky.task import Task

LOOKED_AT = 128 << 20  # bytes of the objects that normalisation, speed and ranges are measured on


@dataclass(frozen=True)
class Settings:
    """How to train; every default lives in `training.train`."""

    seed: int
    batch: int
    optimiser: str
    lr: float
    weight_decay: float
    momentum: float
    l1: float
    l2: float
    schedule: str
    warmup: float
    ema: float
    clip: float
    patience: int
    augment: str
    balance: bool
    level: float
    views: int = 1

    def __post_init__(self) -> None:
        for name, known in (("optimiser", OPTIMISERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise InputError(f"no such {name}", found=getattr(self, name), known=known)
        if self.patience < 0:
            raise InputError("patience counts looks at the validation fold", found=self.patience, expected="0 or more")
        for name, low, high in (
            ("batch", 1, 1e6),
            ("lr", 0, 100),
            ("weight_decay", 0, 10),
            ("l1", 0, 10),
            ("l2", 0, 10),
            ("ema", 0, 1),
            ("clip", 0, 1e9),
            ("level", 0.01, 0.9999),
            ("warmup", 0, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is out of range", found=value, expected=f"{low:g} to {high:g}")


@dataclass(frozen=True)
class Run:
    """A run as a file: the resolved call as literals, and what was measured turned into decisions.

    Attributes
    ----------
    call : the arguments of `train` as they were given, and the survey's folder: what `repeating.repeat` repeats.
    data : hashes of the objects of each fold and of the label values that were read: a new split or new labels leave
        `survey_hash` as it is.
    steps : in all; `every` is the number of steps between two looks at the validation fold.
    dtype : "float32" or "bfloat16"; `threads` of the processor, on which the last bits depend.
    """

    task: Mapping[str, Any]
    survey: str
    survey_hash: str
    selection: str
    objects: Mapping[str, int]
    data: Mapping[str, str]
    network: Mapping[str, Any]
    normalise: Mapping[str, Any]
    settings: Mapping[str, Any]
    steps: int
    every: int
    dtype: str
    threads: int
    seconds_a_step: float
    versions: Mapping[str, str] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write ``run.json``."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read ``run.json``."""
        data = read_json(path)
        known = list(cls.__dataclass_fields__)
        if not isinstance(data, dict) or set(data) - set(known):
            strange = sorted(set(data) - set(known)) if isinstance(data, dict) else [type(data).__name__]
            raise InputError("a run.json with unknown keys", file=path, found=", ".join(strange), known=known)
        missing = [name for name in known if name not in data and name not in {"versions", "call"}]
        if missing:
            raise InputError("a run.json without all its keys", file=path, expected=", ".join(missing))
        return cls(**data)


def literal(value: Any) -> Any:
    """As JSON would give it back, so that a call can be compared with the one in a file."""
    return json.loads(json.dumps(value))


def data(folds: Mapping[str, Survey], task: Task) -> dict[str, str]:
    """Hashes of the objects of each fold, and of the label values that a task reads of them."""
    found, values = {}, hashlib.blake2b(digest_size=8)
    for name, fold in folds.items():
        found[f"objects of {name}"] = hashlib.blake2b(fold.key.tobytes(), digest_size=8).hexdigest()
        for column in task.reads:
            if column in fold.schema.columns and fold.schema.columns[column].array:
                continue  # lies in the survey's folder, of which there is a hash
            truth = fold.truth(column)
            values.update(repr((name, column, truth.classes)).encode())
            for part in (truth.value, truth.sigma, truth.limit):
                values.update(b"" if part is None else part.contiguous().numpy().tobytes())
    return {**found, "label values": values.hexdigest()}


def check_data(old: Mapping[str, str], new: Mapping[str, str], file: Path) -> None:
    """Refuse to go on with, or to repeat, a run on other objects or labels than it had.

    Raises
    ------
    InputError : the folds or the labels are not those of then.
    """
    for name in sorted({*old, *new}, key=lambda n: (n == "label values", n)):
        if old.get(name) != new.get(name):
            raise InputError(
                f"the {name} are not those of that run: the survey was split again, or its labels changed",
                file=file,
                found=new.get(name, "none"),
                expected=old.get(name, "none"),
                fix="train into another folder (--to NEW), or split again and give the labels as it was then",
            )


def versions() -> dict[str, str]:
    """Of what decides the last bits of a result."""
    return {
        "deepsky": deepsky.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def precision(wanted: str, image: bool) -> str:
    """ "float32" or "bfloat16": chosen by the processor's flags, never by timing.

    Raises
    ------
    InputError : no such precision.
    """
    names = {"auto": "", "float32": "float32", "32": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16"}
    if wanted not in names:
        raise InputError("no such precision", found=wanted, known=names)
    if names[wanted]:
        return names[wanted]
    if not image:  # small matrices gain nothing and lose digits
        return "float32"
    if costs.device() == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if processor_flags() & {"avx512_bf16", "amx_bf16"} else "float32"


def processor_flags() -> set[str]:
    """What the processor says it can do; nothing where the system does not tell."""
    file = Path("/proc/cpuinfo")
    return set(file.read_text().split()) if file.exists() else set()


def spread(n: int, most: int) -> np.ndarray:
    """At most `most` positions, evenly spread over n."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def few(survey: Survey, most: int, least: int = 0) -> np.ndarray:
    """Positions of some objects to measure things on: at most `most`, and of `LOOKED_AT` bytes, but `least` or more."""
    size = sum(int(np.prod(o.shape)) * 4 for o in survey.schema.observations.values())
    return spread(len(survey), max(min(most, LOOKED_AT // max(size, 1)), least, 64))


@contextmanager
def threads() -> Iterator[None]:
    """Whatever number of threads is set inside, it is as before afterwards."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def seed(value: int) -> None:
    """Seed the processor's draws and, where one is used, the GPU's.

    `torch.manual_seed` also notes where it was called from, for a GPU that may come later, and takes 3 ms for it.
    """
    value &= 2**63 - 1
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(value)


def call(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of `train` as JSON literals."""
    kept = {k: v for k, v in arguments.items() if k not in {"task", "survey", "to", "quiet"}}
    if isinstance(kept["network"], nn.Module):
        kept["network"] = "object"
    return cast(dict[str, Any], literal({"survey": str(arguments["survey"].path), **kept}))


def begun(
    task: Task,
    folds: Mapping[str, Survey],
    network: Mapping[str, Any],
    fitted: Mapping[str, Any],
    settings: Mapping[str, Any],
    dtype: str,
    call: Mapping[str, Any],
) -> Run:
    """A run of which nothing has been measured yet."""
    train = folds["train"]
    return Run(
        task=task.config(),
        survey=train.name,
        survey_hash=train.hash,
        selection=train.selection,
        objects={n: len(f) for n, f in folds.items()},
        data=data(folds, task),
        network=network,
        normalise=fitted,
        settings=settings,
        steps=0,
        every=0,
        dtype=dtype,
        threads=torch.get_num_threads(),
        seconds_a_step=0.0,
        versions=versions(),
        call=call,
    )


def decide(
    begun: Run,
    task: Task,
    folds: Mapping[str, Survey],
    module: nn.Module,
    some: Sample,
    chosen: Settings,
    folder: Path | None,
) -> Run:
    """Turn what can be measured into decisions, or read what was decided when this run began.

    Raises
    ------
    InputError : an unfinished run of another call stands in the folder.
    TrainingError : a step does not fit into the memory.
    """
    epochs, steps, minutes = (begun.call[n] for n in LENGTH)
    for name, value in zip(LENGTH, (epochs, steps, minutes), strict=True):
        if value is not None and not 0 < value < 1e12:
            raise InputError(f"{name} is out of range", found=value, expected="more than 0")
    if folder is not None and (folder / "run.json").exists():
        old = Run.read(folder / "run.json")
        # before the first checkpoint nothing was trained that could be lost
        started = any((folder / name).exists() for name in ("checkpoint.pt", "model.json"))
        if started and (old.survey_hash, old.task.get("targets")) == (
            begun.survey_hash,
            literal(begun.task.get("targets")),
        ):
            check_data(old.data, begun.data, folder)
        other = _other(old, begun)
        if started and other is not None:
            name, expected, found = other
            raise InputError(
                f"an unfinished run with another {name} stands there",
                file=folder,
                found=found,
                expected=expected,
                fix="repeat that call, or choose another folder",
            )
        if other is None and old.data == begun.data:
            if old.threads != torch.get_num_threads():  # the last bits depend on it
                torch.set_num_threads(old.threads)
            return old
    batch = some[: chosen.batch]
    costs.check_memory(module, batch, chosen.batch)
    seconds = costs.seconds_a_step(task, module, batch, begun.dtype)
    per_epoch = max(1, len(folds["train"]) // chosen.batch)
    total = steps or (max(1, int(0.92 * 60 * minutes / seconds)) if minutes else max(1, round(epochs * per_epoch)))
    # look at the validation fold once an epoch, but between 8 and 60 times in all
    every = max(1, min(max(per_epoch, total // 60), max(1, total // 8)))
    made = replace(begun, steps=total, every=every, seconds_a_step=round(seconds, 6))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        made.write(folder / "run.json")
    return made


def _other(old: Run, new: Run) -> tuple[str, Any, Any] | None:
    """What the first difference between two calls is called, and its values in the old and the new one."""
    pairs = {n: (getattr(old, n), getattr(new, n)) for n in ("survey_hash", "selection")}
    for name in ("task", "objects", "network", "normalise", "settings"):  # key by key, so that the message is short
        a, b = (literal(getattr(run, name)) for run in (old, new))
        pairs |= {f"{name}: {key}": (a.get(key), b.get(key)) for key in sorted({*a, *b})}
    pairs |= {key: (old.call.get(key), literal(new.call.get(key))) for key in (*LENGTH, "baseline") if old.call}
    return next(((name, a, b) for name, (a, b) in pairs.items() if a != b), None)


LENGTH = ("epochs", "steps", "minutes")
