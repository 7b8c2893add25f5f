"""Model: network, task, contract and calibration: what is saved, and what refuses input that does not fit it.

A model is a folder::

    model.json            format, task, network, contract, provenance
    weights.safetensors   module; calibration.safetensors, domain.safetensors beside it
    history.jsonl, run.json, CARD.md, baseline/ (a model of its own)
    checksums.json        sha256 of every file, written last

Loading executes nothing: names are looked up in the registry, arrays are safetensors.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import deepsky
from deepsky import normalise, registry, tasks
from deepsky.constants import MODEL_FORMAT
from deepsky.contract import Contract
from deepsky.errors import InputError
from deepsky.io import LOCK, atomic_write, read_json, sha256, write_json
from deepsky.metrics.shift import DomainGate
from deepsky.sample import Sample
from deepsky.task import Arrays, Predictor, Task


@dataclass(frozen=True)
class Network:
    """A network by name with its settings, JSON literals; `name` "object" is a module that a user passed."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def build(self, channels: int, size: tuple[int, ...]) -> nn.Module:
        """Make it, unfitted.

        Raises
        ------
        InputError : an unknown network or setting, or one that only its owner can rebuild.
        """
        if self.name == "object":
            raise InputError(
                "this model's network is not one of deepsky's",
                found=self.settings.get("type"),
                fix="ds.load(path, network=module) with the same class",
            )
        name, _, variant = self.name.partition(":")
        builder = registry.find("networks", name).build
        settings = {**self.settings, "variant": variant} if variant else dict(self.settings)
        known = [p for p in _parameters(builder) if p not in {"channels", "size"}]
        for key in settings:
            if key not in known:
                raise InputError(f"the network {name!r} has no such setting", found=key, known=known)
        made: nn.Module = builder(channels, size, **settings)
        return made

    def settled(self, built: nn.Module) -> Network:
        """With the settings that rebuild a pretrained network without asking its hub again."""
        found = getattr(built, "settings", None)
        return replace(self, settings=dict(found)) if self.name.partition(":")[0] in {"hf", "timm"} and found else self


def _parameters(function: Any) -> list[str]:
    import inspect

    return list(inspect.signature(function).parameters)


@dataclass(frozen=True, eq=False)
class Model:
    """What was learnt, with what it may be used for.

    Attributes
    ----------
    module : Sample -> outputs, on the CPU, in evaluation mode.
    calibration : arrays that the task's `answer` uses; empty where not calibrated.
    domain : tells objects unlike those of the training fold, or None.
    provenance : seed, survey hash, folds, versions, time, dtype, hashes of the training ids: JSON literals.
    baseline : the classical model fitted on the same training truth, or None.
    """

    task: Task
    module: nn.Module
    network: Network
    contract: Contract
    calibration: Arrays = field(default_factory=dict)
    domain: DomainGate | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    baseline: Model | None = None
    path: Path | None = None

    # -- predicting ---------------------------------------------------------------------------------------
    @torch.no_grad()
    def outputs(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Outputs (n, outputs) and features (n, features) of a batch, float32, in the dtype of the calibration."""
        module = self.module.eval()
        assert isinstance(module, Predictor)
        kind = sample.key.device.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.contract.dtype == "bfloat16"):
            features = module.features(sample)
        features = features.float()
        return module.head(features), features

    def answer(self, outputs: Tensor, keys: np.ndarray, prior: np.ndarray | None = None) -> Arrays:
        """Catalogue columns of some objects; see `Task.answer`."""
        assert isinstance(self.module, Predictor)
        return self.task.answer(self.module.head, outputs, self.calibration, keys, prior)

    def children(self, outputs: Tensor) -> tuple[np.ndarray, Arrays] | None:
        """Rows of the child table; see `Task.children`."""
        assert isinstance(self.module, Predictor)
        return self.task.children(self.module.head, outputs, self.calibration)

    # -- saving -------------------------------------------------------------------------------------------
    def config(self) -> dict[str, Any]:
        """Task, network and contract as JSON literals."""
        normaliser = self.module.normalise
        return {
            "task": self.task.config(),
            "network": asdict(self.network),
            "normalise": normaliser.config() if isinstance(normaliser, normalise.Normalise) else None,
            "contract": self.contract.json(),
        }

    @property
    def hash(self) -> str:
        """Of the weights, calibration and configuration: what a catalogue names."""
        made = hashlib.sha256(json.dumps(self.config(), sort_keys=True).encode())
        for arrays in (self.module.state_dict(), _tensors(self.calibration)):
            for name, value in sorted(arrays.items()):
                made.update(name.encode() + value.contiguous().numpy().tobytes())
        return made.hexdigest()[:16]

    def save(self, path: str | Path) -> Model:
        """Write the model's folder; a reader never sees half of it.

        Raises
        ------
        InputError : something else already stands there, or a weight is not finite.
        """
        path = Path(path)
        if (
            path.exists()
            and not (path / "model.json").exists()
            and any(p.name not in OWN_FILES for p in path.iterdir())
        ):
            raise InputError("the folder holds something else", file=path, fix="choose a new folder for the model")
        state = {k: v.contiguous() for k, v in self.module.state_dict().items()}
        for name, value in state.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise InputError("a weight is not finite; the model was not saved", file=path, keyword=name)
        path.mkdir(parents=True, exist_ok=True)
        (path / "checksums.json").unlink(missing_ok=True)  # from here on the folder is unfinished, and says so
        atomic_write(path / "weights.safetensors", save_tensors(state))
        atomic_write(path / "calibration.safetensors", save_tensors(_tensors(self.calibration)))
        if self.domain is not None:
            atomic_write(path / "domain.safetensors", save_tensors(_tensors(self.domain.arrays())))
        write_json(
            path / "model.json",
            {
                "format": MODEL_FORMAT,
                "deepsky": deepsky.__version__,
                "hash": self.hash,
                **self.config(),
                "provenance": dict(self.provenance),
            },
        )
        atomic_write(path / "history.jsonl", "".join(json.dumps(h) + "\n" for h in self.history))
        from deepsky.card import card

        atomic_write(path / "CARD.md", card(self))
        if self.baseline is not None:
            self.baseline.save(path / "baseline")
        else:
            shutil.rmtree(path / "baseline", ignore_errors=True)
        sums = {n: sha256(path / n) for n in CHECKED if (path / n).is_file()}
        write_json(path / "checksums.json", sums)
        return replace(self, path=path)

    def __repr__(self) -> str:
        size = sum(p.numel() for p in self.module.parameters())
        targets = ", ".join(self.task.targets)
        return f"<Model {self.network.name} for {self.task.name} of {targets}: {size:,} parameters, {self.hash}>"


CHECKED = (
    "model.json",
    "weights.safetensors",
    "calibration.safetensors",
    "domain.safetensors",
    "history.jsonl",
    "run.json",
    "CARD.md",
)
OWN_FILES = {*CHECKED, "checksums.json", "checkpoint.pt", "baseline", "openings.json", "report", LOCK}


def load(path: str | Path, network: nn.Module | None = None) -> Model:
    """Open a saved model.

    Parameters
    ----------
    network : the module to fill, for a model whose network was passed as an object.

    Raises
    ------
    InputError : no model, an unfinished or altered one, a newer format, or weights that do not fit.
    """
    path = Path(path)
    if not (path / "model.json").is_file():
        raise InputError(
            "not a model", file=path, expected="a folder with model.json", fix="deepsky train SURVEY --to MODEL"
        )
    if not (path / "checksums.json").is_file():
        raise InputError("the model was not finished", file=path, fix="run the same `deepsky train` again: it goes on")
    for name, expected in read_json(path / "checksums.json").items():
        found = sha256(path / name) if (path / name).is_file() else "no file"
        if found != expected:
            raise InputError(
                "the file was changed after the model was saved",
                file=path / name,
                found=found[:16],
                expected=expected[:16],
                fix="restore it from a copy, or train again",
            )
    data = read_json(path / "model.json")
    if data["format"] > MODEL_FORMAT:
        raise InputError(
            "written by a newer deepsky",
            file=path,
            found=f"format {data['format']}",
            expected=f"{MODEL_FORMAT} or older",
            fix="pip install --upgrade deepsky",
        )
    contract = Contract.from_json(data["contract"])
    task, described = tasks.from_config(data["task"]), Network(**data["network"])
    module = _module(task, described, data["normalise"], contract, network)
    state = _read_tensors(path / "weights.safetensors")
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InputError(
            "the weights do not fit the network",
            file=path / "weights.safetensors",
            found=str(error)[:300],
            expected=described.name,
        ) from error
    domain = path / "domain.safetensors"
    history = [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]
    return Model(
        task=task,
        module=module.eval(),
        network=described,
        contract=contract,
        calibration={k: v.numpy() for k, v in _read_tensors(path / "calibration.safetensors").items()},
        domain=DomainGate.from_arrays({k: v.numpy() for k, v in _read_tensors(domain).items()})
        if domain.exists()
        else None,
        provenance=data["provenance"],
        history=tuple(history),
        path=path,
        baseline=load(path / "baseline") if (path / "baseline").is_dir() else None,
    )


def _module(task: Task, described: Network, fitted: Any, contract: Contract, network: nn.Module | None) -> nn.Module:
    if fitted is None:
        from deepsky.classical import rebuild

        return rebuild(task, described, contract)
    normaliser = normalise.Normalise(**fitted)
    built = network if network is not None else described.build(normaliser.channels, contract.size)
    return task.module(normaliser, built)


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_tensors(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise InputError(
            "the file cannot be read", file=path, found=str(error), fix="restore it from a copy"
        ) from error
    for name, value in tensors.items():
        if value.is_floating_point() and torch.isnan(value).any():
            raise InputError("NaN in a saved array", file=path, keyword=name, fix="train again")
    return tensors
