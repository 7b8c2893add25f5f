"""Classical families as models like any other: features of the observation, and fitted arrays in place of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from deepsky import baselines, registry
from deepsky.contract import Contract
from deepsky.errors import InputError
from deepsky.model import Network
from deepsky.sample import Sample
from deepsky.schema import ObservationSchema
from deepsky.survey import Survey
from deepsky.task import Predictor, Task
from deepsky.tasks._densities import Mixture
from deepsky.tasks.classify import Classify
from deepsky.tasks.regress import Regress


class Pick(nn.Module):
    """Sample -> one observation, untouched: classical features normalise by themselves."""

    def __init__(self, observation: str) -> None:
        super().__init__()
        self.observation = observation

    def forward(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Flux and inverse variance."""
        part = sample.observation(self.observation)
        return part.flux, part.ivar


class Features(nn.Module):
    """Flux and inverse variance -> (n, features) by the names of `deepsky.baselines`."""

    def __init__(self, name: str, noise: str) -> None:
        super().__init__()
        self.name, self.noise = name, noise

    def forward(self, part: tuple[Tensor, Tensor]) -> Tensor:
        """(n, features); NaN for what could not be measured."""
        return baselines.extract(self.name, part[0].float(), part[1].float(), self.noise)


class Gaussian(Mixture):
    """Values and log sigmas of a family as a mixture of one Gaussian."""

    def __init__(self, family: nn.Module, targets: int) -> None:
        nn.Module.__init__(self)
        self.targets, self.components, self.family = targets, 1, family

    def forward(self, features: Tensor) -> Tensor:
        """(n, 1 + 2 targets), laid out as `Mixture` reads them."""
        found: Tensor = self.family(features)
        mean, sigma = found[:, : self.targets], found[:, self.targets :].exp().clamp(min=1e-3)
        return torch.cat([torch.zeros(len(found), 1), mean, torch.log(torch.expm1(sigma - 1e-4)) - 0.54], 1)


class Classical(Predictor):
    """Features, then a family; the features of the domain gate are finite, as a network's are."""

    def features(self, sample: Sample) -> Tensor:
        """(n, features)."""
        x: Tensor = self.network(self.normalise(sample))
        return x


def applies(task: Task) -> bool:
    """Whether classical families can answer this task."""
    return isinstance(task, Classify | Regress)


def default(task: Task) -> str:
    """The family that goes along with every network."""
    return "random-forest"


def default_features(schema: ObservationSchema) -> str:
    """Colours, shapes and gradients of an image, as far as its bands go; the numbers of a row."""
    if schema.kind == "row":
        return "row"
    return "colour+shape+hog" if schema.shape[0] > 1 else "shape+hog"


def fit(
    task: Task, train: Survey, observation: str, name: str, settings: Mapping[str, Any], seed: int
) -> tuple[Predictor, Network]:
    """Fit the family `name` on the training fold.

    Parameters
    ----------
    settings : of the family, and ``features``: names joined by "+".

    Raises
    ------
    InputError : a task that no classical family answers, or unknown features or settings.
    """
    if not applies(task):
        raise InputError("no classical family answers this task", found=task.name, known=("classify", "regress"))
    given = dict(settings)
    schema = train.schema.observations[observation]
    features = given.pop("features", default_features(schema))
    extract = Features(features, schema.noise)
    rows, truth = [], []
    for i in range(0, len(train), 512):
        sample = train.gather(slice(i, i + 512), truth=task.targets)
        rows.append(extract(Pick(observation)(sample)).numpy())
        truth.append(_target(task, sample))
    x, y = np.concatenate(rows), np.concatenate(truth)
    kind = "values" if isinstance(task, Regress) else "multilabel" if getattr(task, "multilabel", False) else "classes"
    weights = _weights(task, y)
    outputs = {"outputs": len(task.classes)} if isinstance(task, Classify) else {}
    family = registry.find("baselines", name).fit(x, y, kind=kind, weights=weights, seed=seed, **outputs, **given)
    described = Network(name, {**given, "features": features, "family": family.config()})
    return _assembled(task, extract, family, observation), described


def _target(task: Task, sample: Sample) -> np.ndarray:
    if isinstance(task, Regress):
        return task.standard(sample)[0].numpy()
    return task.truth(sample.truth)


def _weights(task: Task, y: np.ndarray) -> np.ndarray | None:
    if getattr(task, "weights", "none") != "balanced" or y.ndim != 1:
        return None
    share = np.bincount(y, minlength=int(y.max()) + 1) / len(y)
    found: np.ndarray = 1.0 / share[y]
    return found


def _assembled(task: Task, extract: Features, family: nn.Module, observation: str) -> Predictor:
    head = Gaussian(family, len(task.names)) if isinstance(task, Regress) else family
    return Classical(Pick(observation), extract, head).eval()


def rebuild(task: Task, described: Network, contract: Contract) -> nn.Module:
    """The module of a saved classical model, its arrays still empty."""
    settings = described.settings
    family = cast(nn.Module, registry.find("baselines", described.name).from_config(settings["family"]))
    return _assembled(task, Features(settings["features"], contract.schema.noise), family, contract.observation)
