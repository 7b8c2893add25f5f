"""Task: the question that a network answers: target, distribution, loss, catalogue columns, score.

A network turns an observation into a distribution of the truth; a task says which truth, and which family of
distributions. `training.train` knows nothing else of it than this file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from deepsky.errors import InputError
from deepsky.sample import Sample, Truth
from deepsky.survey import Survey

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Step:
    """One kind of update; the training loop runs a task's steps in turn.

    Attributes
    ----------
    loss : (module, batch, generator) -> (n,) loss of every object; every draw comes from the generator.
    parameters : prefix of the parameters that this step moves, "" for all.
    updates : how often a round runs it.
    after : called when the update is done, e.g. to move a teacher.
    """

    name: str
    loss: Callable[[nn.Module, Sample, torch.Generator], Tensor]
    parameters: str = ""
    updates: int = 1
    after: Callable[[nn.Module], None] | None = None


@dataclass(frozen=True)
class Score:
    """A figure on the validation fold: `better` says which way is better."""

    name: str
    value: float
    better: str = "lower"


@dataclass(frozen=True)
class Output:
    """A catalogue column that a task writes."""

    unit: str = ""
    ucd: str = ""
    description: str = ""


class Predictor(nn.Module):
    """Normalisation, network and head, in this order: Sample -> (n, outputs)."""

    def __init__(self, normalise: nn.Module, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.normalise, self.network, self.head = normalise, network, head

    def features(self, sample: Sample) -> Tensor:
        """(n, features) what the head sees."""
        x: Tensor = self.network(self.normalise(sample))
        return x

    def forward(self, sample: Sample) -> Tensor:
        """(n, outputs) parameters of the distribution, in float32 whatever the precision of the network."""
        features = self.features(sample)
        with torch.autocast(features.device.type, enabled=False):  # heads and losses stay in float32
            x: Tensor = self.head(features.float())
        return x


@dataclass(frozen=True)
class Task(ABC):
    """A question. Subclasses are frozen dataclasses whose fields are JSON literals: a saved model rebuilds its task
    from them."""

    name: ClassVar[str]
    targets: tuple[str, ...] = field(default=())

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that training reads: the targets, and what else a loss looks at."""
        return self.targets

    # -- what is learnt from the training fold before the first step --------------------------------------
    @abstractmethod
    def bind(self, survey: Survey) -> Self:
        """The task with what it needs of the training fold (classes, scales).

        Raises
        ------
        InputError : the target is missing, has one class only, is not finite, or cannot be turned with the image.
        """

    @abstractmethod
    def head(self, features: int) -> nn.Module:
        """A module (n, features) -> (n, outputs)."""

    def module(self, normalise: nn.Module, network: nn.Module) -> nn.Module:
        """The whole module; a task with several networks builds them here."""
        return Predictor(normalise, network, self.head(int(network.features)))  # type: ignore[arg-type]

    def steps(self) -> tuple[Step, ...]:
        """The updates of one round; by default one, of all parameters, on `loss`."""

        def loss(module: nn.Module, sample: Sample, generator: torch.Generator) -> Tensor:
            return self.loss(cast(nn.Module, module.head), module(sample), sample, generator)

        return (Step("loss", loss),)

    @abstractmethod
    def loss(
        self, head: nn.Module, outputs: Tensor, sample: Sample, generator: torch.Generator | None = None
    ) -> Tensor:
        """(n,) loss of every object; exactly zero, gradient included, for one without a label."""

    def declared(self, sample: Sample) -> Sample:
        """The batch with what the task itself declares of its truth, before it is augmented."""
        return sample

    # -- what is said of an object ------------------------------------------------------------------------
    @abstractmethod
    def labelled(self, sample: Sample) -> Tensor:
        """(n,) bool: which objects have a label."""

    @abstractmethod
    def score(self, head: nn.Module, outputs: Tensor, sample: Sample) -> Score:
        """The figure that early stopping and search look at, on the validation fold."""

    @abstractmethod
    def truth(self, truths: Mapping[str, Truth]) -> np.ndarray:
        """What a prediction is held against: class codes of this task, or values (n, targets)."""

    @abstractmethod
    def answer(
        self, head: nn.Module, outputs: Tensor, calibration: Arrays, keys: np.ndarray, prior: np.ndarray | None = None
    ) -> Arrays:
        """Catalogue columns by name; `keys` (n,) seed whatever has to be drawn for an object."""

    def children(self, head: nn.Module, outputs: Tensor, calibration: Arrays) -> tuple[np.ndarray, Arrays] | None:
        """Rows of a child table, for answers whose number varies (detections): the position (m,) in the batch of each
        row's object, and the columns (m, ...). None for a task that has none."""
        return None

    @abstractmethod
    def outputs(self) -> Mapping[str, Output]:
        """Unit, UCD and description of every column of `answer`."""

    def calibrate(self, head: nn.Module, outputs: Tensor, sample: Sample, level: float) -> Arrays | None:
        """Arrays that `answer` uses, fitted on objects that training never saw; None means not applicable."""
        return None

    # -- several views of one image -----------------------------------------------------------------------
    def check_views(self, turning: Mapping[str, str]) -> None:
        """Refuse to average over views of an image where `pooled` could not.

        Parameters
        ----------
        turning : the targets that turn with the image, and how; see `Truth.moves`.

        Raises
        ------
        InputError : there are such targets, or none at all.
        """
        if turning or not self.targets:
            found = ", ".join(f"{n}: {m}" for n, m in turning.items()) or "no target"
            raise InputError("this task cannot average its answers over views of an image", keyword=self.name,
                             found=found, fix="views=1")  # fmt: skip

    def pooled(self, outputs: Sequence[Tensor], elements: Sequence[int]) -> Tensor:
        """One answer from those to several views of an image, each (n, outputs) turned back by its element; see
        `augment.dihedral.view`. By default the mean, for answers that do not turn with the image."""
        return torch.stack(list(outputs)).mean(0)

    # -- saving -------------------------------------------------------------------------------------------
    def config(self) -> dict[str, Any]:
        """JSON literals from which `tasks.build` makes it again."""
        return {"task": self.name, **vars(self)}
