"""Classical families as models like any other: features of the observation, and fitted arrays in place of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from deepsky import baselines
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
    """Flux and inverse variance -> (n, features), as the family of a classical predictor sees them."""

    def __init__(self, predictor: baselines.ClassicalPredictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, part: tuple[Tensor, Tensor]) -> Tensor:
        """(n, features), finite."""
        return self.predictor.features(part[0].float(), part[1].float())


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
    noise: Any = "unknown" if schema.noise == "unknown" else "measured"
    rows, truth = [], []
    for i in range(0, len(train), 512):
        sample = train.gather(slice(i, i + 512), truth=task.targets)
        flux, ivar = Pick(observation)(sample)
        rows.append(baselines.extract(features, flux.float(), ivar.float(), noise))
        truth.append(task.standard(sample)[0] if isinstance(task, Regress) else cast(Classify, task).soft(sample.truth))
    kind: Any = (
        "values" if isinstance(task, Regress) else "multilabel" if cast(Classify, task).multilabel else "classes"
    )
    if getattr(task, "weights", "none") == "balanced":
        given["balanced"] = True
    predictor = baselines.fit_on_features(
        name,
        features,
        torch.cat(rows),
        torch.cat(truth),
        shape=schema.shape,
        kind=kind,
        seed=seed,
        noise=noise,
        **given,
    )
    described = Network(name, {**given, "features": features, "predictor": predictor.config()})
    return _assembled(task, predictor, observation), described


def _assembled(task: Task, predictor: baselines.ClassicalPredictor, observation: str) -> Predictor:
    """The family becomes the head; it must not stand in the module twice."""
    family = predictor.family
    predictor.family = nn.Identity()  # type: ignore[assignment]
    head = Gaussian(family, len(task.names)) if isinstance(task, Regress) else family
    return Predictor(Pick(observation), Features(predictor), head).eval()


def rebuild(task: Task, described: Network, contract: Contract) -> nn.Module:
    """The module of a saved classical model, its arrays still empty."""
    predictor = baselines.ClassicalPredictor.from_config(described.settings["predictor"])
    return _assembled(task, predictor, contract.observation)
