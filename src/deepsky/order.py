"""Order: which objects come when, a function of (seed, step) alone: a resumed run sees what it would have seen."""

from __future__ import annotations

import numpy as np

from deepsky.augment import Augmentation
from deepsky.errors import InputError
from deepsky.plan import Settings
from deepsky.sample import Sample
from deepsky.survey import Survey
from deepsky.task import Task

WINDOW_BYTES = 4 << 30  # objects are shuffled inside windows of tiles of about this size, so that reading stays local


class Order:
    """The order of one run's batches."""

    def __init__(self, survey: Survey, chosen: Settings, task: Task) -> None:
        self.survey, self.seed, self.batch_size, self.task = survey, chosen.seed, chosen.batch, task
        self.per_epoch = max(1, len(survey) // chosen.batch)
        self.epoch, self.at = -1, np.zeros(0, dtype=np.int64)
        self.groups = self._classes() if chosen.balance else None
        size = sum(int(np.prod(o.shape)) * np.dtype(o.dtype).itemsize for o in survey.schema.observations.values())
        self.window = max(1, WINDOW_BYTES // max(1, size))

    def _classes(self) -> list[np.ndarray]:
        codes = self.task.truth({t: self.survey.truth(t) for t in self.task.targets})
        if codes.ndim != 1 or codes.dtype.kind != "i":
            raise InputError(
                "only classes can be balanced", found=", ".join(self.task.targets), fix="leave balance out"
            )
        return [np.flatnonzero(codes == c) for c in np.unique(codes[codes >= 0])]

    def permutation(self, epoch: int) -> np.ndarray:
        """(n,) positions: tiles in random order, and objects shuffled inside windows of neighbouring tiles."""
        g = np.random.Generator(np.random.Philox(key=[self.seed & (2**63 - 1), epoch]))
        if self.groups is not None:
            most = max(len(c) for c in self.groups)
            return g.permutation(np.concatenate([np.resize(g.permutation(c), most) for c in self.groups]))
        if len(self.survey) <= self.window:
            return g.permutation(len(self.survey))
        held = [p for t in self.survey.tiles if len(p := self.survey.in_tile(t))]
        joined = np.concatenate([held[i] for i in g.permutation(len(held))])
        return np.concatenate([g.permutation(joined[i : i + self.window]) for i in range(0, len(joined), self.window)])

    def batch(self, step: int, augment: Augmentation) -> Sample:
        """The batch of one step, augmented by draws keyed by (seed, epoch, object)."""
        if self.groups is not None:
            self.per_epoch = max(1, max(len(c) for c in self.groups) * len(self.groups) // self.batch_size)
        epoch, number = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            self.epoch, self.at = epoch, self.permutation(epoch)
        # which objects is random, their order in the batch means nothing: sorted, each tile is read in one go
        at = np.sort(self.at[number * self.batch_size : (number + 1) * self.batch_size])
        plain = self.task.declared(self.survey.gather(at, truth=self.task.reads))
        sample: Sample = augment(plain, seed=self.seed, epoch=epoch)
        return sample
