"""Model: network, task, contract and calibration: what is saved, and what refuses input that does not fit it.

A model is a folder::

    model.json            format, task, network, contract, provenance
    weights.safetensors   module; calibration.safetensors, domain.safetensors beside it
    seen.safetensors      ids and positions of the objects of the training, validation and calibration folds
    history.jsonl, run.json, CARD.md, baseline/ (a model of its own)
    checksums.json        sha256 of every file, written last

Loading executes nothing that the folder brings: names are looked up in the registry, arrays are safetensors. What a
user trusts is named by the user, never by the folder.
"""

from __future__ import annotations

import hashlib
import importlib
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
from deepsky.augment import dihedral
from deepsky.augment.dihedral import VIEWS
from deepsky.constants import MODEL_FORMAT
from deepsky.contract import Contract
from deepsky.errors import InputError
from deepsky.io import LOCK, TEMPORARY, atomic_write, read_json, sha256, write_json
from deepsky.metrics.shift import DomainGate
from deepsky.networks import Network
from deepsky.sample import Sample
from deepsky.seen import Seen
from deepsky.task import Arrays, Predictor, Task


@dataclass(frozen=True, eq=False)
class Model:
    """What was learnt, with what it may be used for.

    Attributes
    ----------
    module : Sample -> outputs, on the CPU, in evaluation mode.
    calibration : arrays that the task's `answer` uses; empty where not calibrated.
    domain : tells objects unlike those of the training fold, or None.
    provenance : seed, survey hash, folds, versions, time, dtype: JSON literals.
    baseline : the classical model fitted on the same training truth, or None.
    views : of an image whose answers are averaged: 1, its 4 turns, or 8 with flips.
    seen : the objects that it was trained, stopped and calibrated on, or None where that is not known.
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
    views: int = 1
    seen: Seen | None = None

    @property
    def prior(self) -> np.ndarray:
        """(classes,) shares of the classes that the probabilities assume: those of the calibration objects where the
        temperature shifted the classes to them, else of the training fold; (0,) for a task without classes."""
        return np.asarray(self.calibration.get("shares", getattr(self.task, "prior", ())), dtype=np.float64)

    # -- predicting ---------------------------------------------------------------------------------------
    @torch.no_grad()
    def outputs(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Outputs (n, outputs) and features (n, features) of a batch, float32, in the dtype of the calibration.

        Of several views the outputs are pooled as the task says, and the features are their mean.
        """
        if self.views == 1:
            return self._seen(sample)
        elements, alone = VIEWS[self.views], replace(sample, truth={})
        seen = [self._seen(dihedral.view(alone, np.full(len(sample), e))) for e in elements]
        outputs, features = ([one[i] for one in seen] for i in (0, 1))
        return self.task.pooled(outputs, elements), torch.stack(features).mean(0)

    def _seen(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Outputs and features of one view."""
        module = self.module.eval()
        assert isinstance(module, Predictor)
        kind = sample.key.device.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.contract.dtype == "bfloat16"):
            features = module.features(sample)
        features = features.float()
        return module.head(features), features

    def answer(self, outputs: Tensor, keys: np.ndarray, prior: np.ndarray | None = None) -> Arrays:
        """Catalogue columns of some objects, their probabilities under another `prior` of the classes where one is
        given; see `Task.answer`."""
        assert isinstance(self.module, Predictor)
        if prior is not None and "shares" in self.calibration:
            # the task corrects by new / training, and the probabilities ask for new / assumed
            prior = prior * np.asarray(getattr(self.task, "prior", ())) / self.prior
            prior = prior / prior.sum()
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
            "views": self.views,
        }

    @property
    def size(self) -> int:
        """Learnt numbers; of a classical family, those of its arrays."""
        learnt = sum(p.numel() for p in self.module.parameters())
        return learnt or sum(v.numel() for v in self.module.state_dict().values())

    @property
    def hash(self) -> str:
        """Of all that decides an answer (configuration, weights, calibration, domain): what a catalogue names."""
        made = hashlib.sha256(json.dumps(self.config(), sort_keys=True).encode())
        domain = {} if self.domain is None else self.domain.arrays()
        for arrays in (self.module.state_dict(), _tensors(self.calibration), _tensors(domain)):
            for name, value in sorted(arrays.items()):
                made.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                made.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return made.hexdigest()[:16]

    def save(self, path: str | Path) -> Model:
        """Write the model's folder; a reader never sees half of it.

        Raises
        ------
        InputError : something else already stands there, or a weight or a calibration is not a number.
        """
        path = Path(path)
        check_folder(path)
        # clone: safetensors refuses tensors that share memory, such as tied weights
        state = {k: v.detach().cpu().contiguous().clone() for k, v in self.module.state_dict().items()}
        calibration = _tensors(self.calibration)
        bad = [k for k, v in state.items() if not torch.isfinite(v).all()]
        bad += [k for k, v in calibration.items() if torch.isnan(v).any()]
        if bad:
            raise InputError("a weight is not finite; the model was not saved", file=path, keyword=bad[0])
        path.mkdir(parents=True, exist_ok=True)
        (path / "checksums.json").unlink(missing_ok=True)  # from here on the folder is unfinished, and says so
        atomic_write(path / "weights.safetensors", save_tensors(state))
        atomic_write(path / "calibration.safetensors", save_tensors(calibration))
        for name, held in (("domain", self.domain), ("seen", self.seen)):
            file = path / f"{name}.safetensors"
            if held is not None:
                atomic_write(file, save_tensors(_tensors(held.arrays())))
            else:
                file.unlink(missing_ok=True)
        described = {"format": MODEL_FORMAT, "deepsky": deepsky.__version__, "hash": self.hash, **self.config()}
        write_json(path / "model.json", {**described, "provenance": dict(self.provenance)})
        atomic_write(path / "history.jsonl", "".join(json.dumps(h) + "\n" for h in self.history))
        for name in ("run.json", "openings.json"):  # they go along with a copy
            if self.path is not None and self.path.resolve() != path.resolve() and (self.path / name).is_file():
                atomic_write(path / name, (self.path / name).read_bytes())
        from deepsky.card import card

        atomic_write(path / "CARD.md", card(self))
        if self.baseline is not None:
            self.baseline.save(path / "baseline")
        else:
            shutil.rmtree(path / "baseline", ignore_errors=True)
        for left in path.glob(f"{TEMPORARY}*"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        sums = {n: sha256(path / n) for n in CHECKED if (path / n).is_file()}
        write_json(path / "checksums.json", sums)
        return replace(self, path=path)

    def __repr__(self) -> str:
        targets = ", ".join(self.task.targets)
        return f"<Model {self.network.name} for {self.task.name} of {targets}: {self.size:,} parameters, {self.hash}>"


NEEDED = ("model.json", "weights.safetensors", "calibration.safetensors", "history.jsonl")
CHECKED = (*NEEDED, "domain.safetensors", "seen.safetensors", "run.json", "CARD.md", "baseline/checksums.json")
OWN_FILES = {*CHECKED, "checksums.json", "checkpoint.pt", "baseline", "openings.json", "report", LOCK}


def check_folder(path: Path) -> None:
    """Refuse a folder for a model that holds something else.

    Raises
    ------
    InputError : it is a file, or a folder with files that are not those of a model or of its training.
    """
    if path.exists() and not path.is_dir():
        raise InputError("a file stands where the model's folder should be", file=path, fix="choose another --to")
    if not path.exists() or (path / "model.json").exists() or (path / "run.json").exists():
        return
    others = sorted(p.name for p in path.iterdir() if p.name not in OWN_FILES and not p.name.startswith(TEMPORARY))
    if others:
        raise InputError("the folder holds something else", file=path, found=", ".join(others[:5]),
                         fix="choose a new folder for the model")  # fmt: skip


def load(path: str | Path, network: nn.Module | None = None, *, trust: str | None = None) -> Model:
    """Open a saved model.

    Parameters
    ----------
    network : the module to fill, for a model whose network was passed as an object.
    trust : instead of it, code that you trust: ``package.module:Name``, called without arguments, or the file of a
        network (``./mine.py``) for a model that was trained with one. It is imported, and so run.

    Raises
    ------
    InputError : no model, an unfinished or altered one, a newer format, a network that is not deepsky's, or weights
        that do not fit.
    """
    path = Path(path)
    data, sums = _read_config(path)
    try:
        contract = Contract.from_json(data["contract"])
        described, fitted = Network(**data["network"]), data["normalise"]
        task, provenance = tasks.from_config(data["task"]), dict(data["provenance"])
        views = int(data.get("views", 1))
        if views not in VIEWS:
            raise ValueError(f"{views} views")
        module = _module(task, described, fitted, contract, network, trust)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"[:200]
        raise InputError(
            "this does not describe a model", file=path / "model.json", found=found, fix="restore it from a copy"
        ) from error
    try:
        module.load_state_dict(_read_tensors(path / "weights.safetensors", finite=True), strict=True)
    except RuntimeError as error:
        raise InputError(
            "the weights do not fit the network",
            file=path / "weights.safetensors",
            found=str(error)[:300],
            expected=described.name,
        ) from error

    def arrays(name: str) -> Arrays | None:
        if name not in sums:  # a file that the checksums do not list is none of the model's
            return None
        return {k: v.numpy() for k, v in _read_tensors(path / name).items()}

    domain, seen = arrays("domain.safetensors"), arrays("seen.safetensors")
    history = [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]
    return Model(
        task=task,
        module=module.eval(),
        network=described,
        contract=contract,
        calibration=arrays("calibration.safetensors") or {},
        domain=None if domain is None else DomainGate.from_arrays(domain),
        provenance=provenance,
        history=tuple(history),
        path=path,
        views=views,
        seen=None if seen is None else Seen.from_arrays(seen),
        baseline=load(path / "baseline") if "baseline/checksums.json" in sums else None,
    )


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """``model.json`` and the checksums, every file held against them."""
    there = {n for n in ("model.json", "checksums.json", "run.json") if (path / n).is_file()}
    if not there:
        raise InputError(
            "not a model", file=path, expected="a folder with model.json", fix="deepsky train SURVEY --to MODEL"
        )
    if "checksums.json" not in there:
        raise InputError("the model was not finished", file=path, fix="run the same `deepsky train` again: it goes on")
    data, sums = read_json(path / "model.json"), read_json(path / "checksums.json")
    if not isinstance(data, dict) or not isinstance(sums, dict) or not isinstance(data.get("format"), int):
        raise InputError("this does not describe a model", file=path / "model.json", fix="restore it from a copy")
    if data["format"] > MODEL_FORMAT:
        raise InputError(
            "written by a newer deepsky",
            file=path,
            found=f"format {data['format']}",
            expected=f"{MODEL_FORMAT} or older",
            fix="pip install --upgrade deepsky",
        )
    for name in [*NEEDED, *(n for n in sums if n not in NEEDED)]:
        here = name in CHECKED and (path / name).is_file()
        found, expected = sha256(path / name) if here else "no file", str(sums.get(name, "no checksum"))
        if found != expected:
            raise InputError(
                "the file was changed after the model was saved",
                file=path / name,
                found=found[:16],
                expected=expected[:16],
                fix="restore it from a copy, or train again",
            )
    return data, sums


def _module(
    task: Task, described: Network, fitted: Any, contract: Contract, network: nn.Module | None, trust: str | None
) -> nn.Module:
    if fitted is None:
        from deepsky.classical import rebuild

        return rebuild(task, described, contract)
    normaliser = normalise.Normalise(**fitted)
    if network is None:
        network = _trusted(described, normaliser.channels, contract.size, trust)
    if not isinstance(getattr(network, "features", None), int):
        raise InputError("a module must say how many features it gives", found=type(network).__name__,
                         fix="give the module that was trained")  # fmt: skip
    made = task.module(normaliser, network)
    # as it was trained: another layout of the weights changes the last bits of the answers
    return made.to(memory_format=torch.channels_last) if normaliser.axes == 2 else made  # type: ignore[call-overload]


def _trusted(described: Network, channels: int, size: tuple[int, ...], trust: str | None) -> nn.Module:
    """The network of a saved model: deepsky's own by its name, any other only from the code that a user trusts."""
    family = described.name.partition(":")[0]
    if described.name == "object" and trust is not None:
        home, _, name = trust.partition(":")
        try:
            made = getattr(importlib.import_module(home), name)()
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise InputError("the trusted network cannot be made", found=f"{trust}: {error}",
                             expected="package.module:Name, a class that takes no arguments",
                             fix="ds.load(path, network=module)") from error  # fmt: skip
        if not isinstance(made, nn.Module):
            raise InputError("the trusted name is no network", found=f"{trust}: {type(made).__name__}")
        return made
    if described.name.endswith(".py"):
        if trust is None or not trust.endswith(".py"):
            raise InputError("this model's network is a file of its own, which loading would run",
                             found=described.name, fix=f"if you trust it: --trust {described.name}")  # fmt: skip
        return replace(described, name=trust).build(channels, size)
    if described.name != "object" and family not in registry.names("networks"):
        raise InputError("this model names a network that deepsky does not have", found=described.name,
                         known=registry.names("networks"))  # fmt: skip
    if family == "hf" and not described.settings.get("config"):
        raise InputError("this model names weights that lie elsewhere", found=described.name, fix="train again")
    return described.build(channels, size)


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}


def _read_tensors(path: Path, finite: bool = False) -> dict[str, Tensor]:
    """Arrays without NaN, and all finite if so asked (a threshold or a reach may be infinite)."""
    data = path.read_bytes()
    try:
        tensors: dict[str, Tensor] = load_tensors(data)
        names = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")], object_pairs_hook=_once)
    except (SafetensorError, ValueError) as error:  # safetensors takes the last of two arrays of one name
        raise InputError(
            "the file cannot be read", file=path, found=str(error), fix="restore it from a copy"
        ) from error
    assert set(tensors) == set(names) - {"__metadata__"}
    for name, value in tensors.items():
        if value.is_floating_point() and not (torch.isfinite(value) if finite else ~torch.isnan(value)).all():
            raise InputError("NaN in a saved array", file=path, keyword=name, fix="train again")
    return tensors


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found
