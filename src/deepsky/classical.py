"""Classical families as models like any other: features of the observation, and fitted arrays in place of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from deepsky import baselines, registry
from deepsky.contract import Contract
from deepsky.errors import InputError
from deepsky.networks import Network
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
        mean, sigma = found[:, : self.targets], found[:, self.targets :].exp().clamp(1e-3, 1e6) - 1e-4
        inverse = sigma + torch.log(-torch.expm1(-sigma))  # of softplus; expm1(sigma) would overflow
        return torch.cat([torch.zeros(len(found), 1), mean, inverse - 0.54], 1)


class Unbalanced(nn.Module):
    """Logits of a family that was fitted with every class weighing the same, brought back to the training prior."""

    def __init__(self, family: nn.Module, task: Classify) -> None:
        super().__init__()
        self.family, prior = family, torch.tensor(task.shares or task.prior).clamp(1e-6, 1 - 1e-6)
        self.register_buffer("shift", torch.logit(prior) if task.multilabel else torch.log(prior))

    def forward(self, features: Tensor) -> Tensor:
        """(n, classes or subclasses) logits."""
        found: Tensor = self.family(features) + self.get_buffer("shift")
        return found


def applies(task: Task) -> bool:
    """Whether classical families can answer this task."""
    return isinstance(task, Classify | Regress)


def default(task: Task) -> str:
    """The family that goes along with every network."""
    return "random-forest"


def default_features(schema: ObservationSchema) -> str:
    """Colours, shapes and edges of an image, as far as its bands go; the numbers of a row."""
    if schema.kind == "row":
        return "row"
    return "colour+shape+edges" if schema.shape[0] > 1 else "shape+edges"


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
        sample = train.gather(slice(i, i + 512), truth=task.reads)
        flux, ivar = Pick(observation)(sample)
        rows.append(baselines.extract(features, flux.float(), ivar.float(), noise))
        truth.append(
            _measured(task, sample) if isinstance(task, Regress) else cast(Classify, task).leaves(sample.truth)
        )
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


def _measured(task: Regress, sample: Sample) -> Tensor:
    """(n, numbers) standardised truth; NaN where only a limit is known, which no family can use."""
    z, _, limit = task.standard(sample)
    return z if limit is None else torch.where(limit == 0, z, torch.nan)


def _assembled(task: Task, predictor: baselines.ClassicalPredictor, observation: str) -> Predictor:
    """The family becomes the head; it must not stand in the module twice."""
    family = predictor.family
    predictor.family = nn.Identity()  # type: ignore[assignment]
    head: nn.Module = Gaussian(family, len(task.names)) if isinstance(task, Regress) else family
    if isinstance(task, Classify) and task.weights == "balanced":
        head = Unbalanced(family, task)
    return Predictor(Pick(observation), Features(predictor), head).eval()


def rebuild(task: Task, described: Network, contract: Contract) -> nn.Module:
    """The module of a saved classical model, its arrays still empty.

    Raises
    ------
    InputError : a family that deepsky does not have.
    """
    config = described.settings["predictor"]
    if config["name"] not in registry.names("baselines"):
        raise InputError(
            "this model names a family that deepsky does not have",
            found=config["name"],
            known=registry.names("baselines"),
        )
    predictor = baselines.ClassicalPredictor.from_config(config)
    return _assembled(task, predictor, contract.observation)
