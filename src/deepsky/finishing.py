"""What follows the last step: calibration, the gate of the training domain, the classical baseline, the saved model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepsky import classical, plan, registry, resolve
from deepsky.contract import Contract
from deepsky.errors import InputError
from deepsky.io import lock_folder
from deepsky.metrics.shift import DomainGate
from deepsky.model import Model
from deepsky.networks import Network
from deepsky.networks._pretrained import weights
from deepsky.sample import Sample, stack
from deepsky.seen import Seen
from deepsky.survey import Survey
from deepsky.task import Arrays, Task

ENOUGH = 1000  # objects for calibration; below it the validation fold joins in, and the provenance says so
FEWEST = 40  # objects from which a training domain can be told
BASELINE_MOST = 20_000  # training objects for the classical baseline that goes along by default


def check_baseline(task: Task, baseline: str | None) -> None:
    """Refuse, before any work, a baseline that there is not.

    Raises
    ------
    InputError : an unknown family, or one for a task that no family answers.
    """
    if baseline in (None, "auto"):
        return
    assert baseline is not None
    if not resolve.is_classical(baseline):
        raise InputError("no such classical baseline", found=baseline, known=["auto", *registry.names("baselines")])
    if not classical.applies(task):
        raise InputError("no classical family answers this task", found=task.name, fix="baseline=None")


def finish(
    task: Task,
    module: nn.Module,
    described: Network,
    folds: Mapping[str, Survey],
    observation: str,
    run: plan.Run,
    history: list[dict[str, Any]],
    baseline: str | None,
    folder: Path | None,
    level: float,
) -> Model:
    """A calibrated model from trained weights, saved where a folder is given."""
    some = folds["train"].gather(plan.few(folds["train"], 2048), truth=task.targets)
    contract = Contract.of(folds["train"], observation, some, run.dtype)
    views = int(run.settings.get("views", 1))
    model = Model(task, module, described, contract, history=tuple(history), views=views)
    fitted, words = calibrated(model, folds, level)
    beside = None
    if baseline is not None and task.targets and classical.applies(task):
        name = classical.default(task) if baseline == "auto" else baseline
        few = dict(folds)
        few["train"] = folds["train"].select(plan.spread(len(folds["train"]), BASELINE_MOST), "baseline")
        beside = train_classical(task, few, observation, name, {}, seed=run.settings["seed"], level=level, to=None)
    provenance = _provenance(folds, run.settings, words) | {
        "steps": run.steps,
        "threads": run.threads,
        "seconds_a_step": run.seconds_a_step,
    }
    if started := weights(module):
        provenance["weights"] = started
    model = replace(model, calibration=fitted, domain=domain(model, folds), provenance=provenance, baseline=beside,
                    seen=Seen.of(folds))  # fmt: skip
    return model if folder is None else model.save(folder)


def train_classical(
    task: Task,
    folds: Mapping[str, Survey],
    observation: str,
    name: str,
    settings: Mapping[str, Any],
    *,
    seed: int,
    level: float,
    to: Path | None,
    run: plan.Run | None = None,
) -> Model:
    """A model whose network is a classical family, fitted on the same training truth; `run` is noted beside it."""
    module, described = classical.fit(task, folds["train"], observation, name, settings, seed)
    some = folds["train"].gather(plan.few(folds["train"], 2048), truth=task.targets)
    model = Model(task, module, described, Contract.of(folds["train"], observation, some, "float32"))
    fitted, words = calibrated(model, folds, level)
    provenance = _provenance(folds, {"seed": seed}, words)
    made = replace(model, calibration=fitted, domain=domain(model, folds), provenance=provenance, seen=Seen.of(folds))
    if to is None:
        return made
    with lock_folder(to):
        if run is not None:
            run.write(to / "run.json")
        return made.save(to)


def calibrated(model: Model, folds: Mapping[str, Survey], level: float) -> tuple[Arrays, str]:
    """The task's calibration arrays, and on which objects they were fitted."""
    used = [n for n in ("calib", "valid") if n in folds]
    if "calib" in folds and len(folds["calib"]) >= ENOUGH:
        used = ["calib"]
    parts = [run_over(model, folds[n]) for n in used]
    outputs = torch.cat([p[0] for p in parts])
    truth = stack([p[2] for p in parts])
    found = model.task.calibrate(model.module.head, outputs, truth, level)  # type: ignore[arg-type]
    if found is not None and len(found.get("shift", ())):  # from here on the classes have the shares of these objects
        codes = model.task.truth(truth.truth)
        counts = np.bincount(codes[codes >= 0], minlength=len(found["shift"])).astype(np.float64)
        counts = np.maximum(counts, 0.5)  # a class of which there is none here is rare, not impossible
        found = {**found, "shares": counts / counts.sum()}
    words = "not applicable" if found is None else f"{' + '.join(used)} ({len(outputs)} objects)"
    return found or {}, words


def domain(model: Model, folds: Mapping[str, Survey]) -> DomainGate | None:
    """The gate that tells objects unlike those of the training fold, its p-values set on the validation fold.

    None where there are too few objects to tell."""
    train = run_over(model, folds["train"], most=5000)[1].numpy()
    held = run_over(model, folds["valid"], most=5000)[1].numpy()
    if min(len(train), len(held)) < FEWEST or not (train.std(0) > 0).any():
        return None
    return DomainGate.fit(train, held)


def run_over(model: Model, survey: Survey, most: int = 20_000, batch: int = 256) -> tuple[Tensor, Tensor, Sample]:
    """Outputs, features and truth (without its observations) of at most `most` objects."""
    at = plan.spread(len(survey), most)
    outputs, features, truths = [], [], []
    for i in range(0, len(at), batch):
        sample = survey.gather(at[i : i + batch], truth=model.task.targets)
        out, seen = model.outputs(sample)
        outputs.append(out)
        features.append(seen)
        truths.append(replace(sample, observations={}))
    return torch.cat(outputs), torch.cat(features), stack(truths)


def _provenance(folds: Mapping[str, Survey], settings: Mapping[str, Any], calibration: str) -> dict[str, Any]:
    train = folds["train"]
    return {
        "survey": train.name,
        "survey_hash": train.hash,
        "simulation": not train.schema.real,
        "objects": {n: len(f) for n, f in folds.items()},
        "settings": dict(settings),
        "calibration": calibration,
        "versions": plan.versions(),
    }
