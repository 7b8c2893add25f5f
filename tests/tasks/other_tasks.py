"""Three tasks of quite other kinds, some fifty lines each: they prove that the contract is wide enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from deepsky.task import Output, Predictor, Score, Step, Task


@dataclass(frozen=True)
class Unlabelled(Task):
    """What tasks without labels share."""

    targets: tuple[str, ...] = ()

    def bind(self, survey):
        return self

    def labelled(self, sample):
        return torch.ones(len(sample), dtype=torch.bool)

    def truth(self, truths):
        return np.zeros(0)

    def loss(self, head, outputs, sample, generator=None):
        raise NotImplementedError("this task has steps of its own")

    def outputs(self):
        return {"score": Output(description="of the task")}

    def answer(self, head, outputs, calibration, keys, prior=None):
        return {"score": outputs.float().mean(1).numpy()}


# -- a GAN: two steps, two groups of parameters ---------------------------------------------------------------
class Adversaries(Predictor):
    """The network, with a linear head, judges; a small generator draws."""

    def __init__(self, normalise, network, head, pixels):
        super().__init__(normalise, network, head)
        self.generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, pixels))

    def draw(self, n, shape, g):
        return self.generator(torch.randn(n, 8, generator=g)).reshape(n, *shape)

    def judge(self, x):
        return self.head(self.network(x).float())[:, 0]


@dataclass(frozen=True)
class Gan(Unlabelled):
    name: ClassVar[str] = "gan"
    pixels: int = 2 * 24 * 24

    def head(self, features):
        return nn.Linear(features, 1)

    def module(self, normalise, network):
        return Adversaries(normalise, network, self.head(network.features), self.pixels)

    def steps(self):
        def discriminate(module, sample, g):
            x = module.normalise(sample)
            fake = module.draw(len(x), x.shape[1:], g).detach()
            return F.softplus(-module.judge(x)) + F.softplus(module.judge(fake))

        def generate(module, sample, g):
            x = module.normalise(sample)
            return F.softplus(-module.judge(module.draw(len(x), x.shape[1:], g)))

        return (
            Step("discriminator", discriminate, "network", updates=2),
            Step("judge", discriminate, "head"),
            Step("generator", generate, "generator"),
        )

    def score(self, head, outputs, sample):
        return Score("judged real", float(outputs.sigmoid().mean()), "higher")


# -- a detector: a ragged truth, and a child table -----------------------------------------------------------
class Cells(nn.Module):
    """Features -> for each of cells x cells: confidence, x, y (in cells)."""

    def __init__(self, features, cells):
        super().__init__()
        self.linear = nn.Linear(features, cells * cells * 3)

    def forward(self, features):
        return self.linear(features)


@dataclass(frozen=True)
class Detect(Unlabelled):
    name: ClassVar[str] = "detect"
    targets: tuple[str, ...] = ("offset",)
    cells: int = 3
    size: int = 24

    def head(self, features):
        return Cells(features, self.cells)

    def _target(self, sample):
        at = (sample.truth["offset"].value.float() + self.size / 2) / self.size * self.cells
        cell = at.floor().long().clamp(0, self.cells - 1)
        return cell[:, 1] * self.cells + cell[:, 0], at - cell

    def loss(self, head, outputs, sample, generator=None):
        grid = outputs.reshape(len(outputs), -1, 3)
        number, inside = self._target(sample)
        rows = torch.arange(len(grid))
        found = F.one_hot(number, self.cells**2).float()
        place = (grid[rows, number, 1:] - inside).square().sum(-1)
        return F.binary_cross_entropy_with_logits(grid[..., 0], found, reduction="none").sum(-1) + place

    def score(self, head, outputs, sample):
        return Score("detection loss", float(self.loss(head, outputs, sample).mean()))

    def outputs(self):
        return {"n_sources": Output(description="number of detections")}

    def answer(self, head, outputs, calibration, keys, prior=None):
        confident = outputs.reshape(len(outputs), -1, 3)[..., 0] > 0
        return {"n_sources": confident.sum(1).numpy().astype(np.int32)}

    def children(self, head, outputs, calibration):
        grid = outputs.reshape(len(outputs), -1, 3)
        owner, cell = (grid[..., 0] > 0).nonzero(as_tuple=True)
        at = grid[owner, cell]
        corner = torch.stack([cell % self.cells, cell // self.cells], -1)
        x, y = ((at[:, 1:] + corner) * self.size / self.cells).T.numpy()
        return owner.numpy(), {"x": x, "y": y, "confidence": at[:, 0].sigmoid().numpy()}


# -- masked pre-training: no labels, the image itself is the target ------------------------------------------
@dataclass(frozen=True)
class Masked(Unlabelled):
    name: ClassVar[str] = "masked"
    pixels: int = 2 * 24 * 24
    share: float = 0.5

    def head(self, features):
        return nn.Linear(features, self.pixels)

    def steps(self):
        def loss(module, sample, g):
            x = module.normalise(sample)
            hidden = torch.rand(len(x), 1, *x.shape[2:], generator=g) < self.share
            guess = module.head(module.network(torch.where(hidden, 0.0, x)).float()).reshape(x.shape)
            return ((guess - x).square() * hidden).flatten(1).mean(1)

        return (Step("masked pixels", loss),)

    def score(self, head, outputs, sample):
        return Score("output spread", float(outputs.std()), "higher")
