"""Predictions in a process of their own, to be killed or measured: python -m tests.prediction_run WHAT ..."""

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from tests import made_up
from tests.tasks.other_tasks import Unlabelled
from torch import nn

from deepsky import inference, model, normalise, store
from deepsky.contract import Contract
from deepsky.networks import Network
from deepsky.survey import Survey
from deepsky.task import Output

WIDE = 1500  # numbers in the answer of each object: enough to be missed if they were kept


@dataclass(frozen=True)
class Wide(Unlabelled):
    """Answers with very many numbers for each object."""

    name: ClassVar[str] = "wide"

    def head(self, features):
        return nn.Identity()

    def score(self, head, outputs, sample):
        raise NotImplementedError

    def outputs(self):
        return {"wide": Output()}

    def answer(self, head, outputs, calibration, keys, prior=None):
        return {"wide": np.tile(outputs[:, :1].numpy(), (1, WIDE))}


class Flat(nn.Module):
    """The first pixels."""

    features = 4

    def forward(self, x):
        return x.flatten(1)[:, :4]


real = inference._tile


def predict(folder: str, survey: str, to: str, seconds: str) -> None:
    """A model over a survey, so many seconds a tile slower than need be, so that a kill finds it in any state."""

    def slowly(*arguments):
        found = real(*arguments)
        time.sleep(float(seconds))
        return found

    inference._tile = slowly
    inference.predict(model.load(folder), Survey.load(survey), to=to, batch=7, quiet=True)


def memory(folder: str, n: str) -> None:
    """Print the largest anonymous memory [bytes] that was held at the end of a tile, over `n` objects."""
    seen, place = [], Path(folder)

    def held(*arguments):
        found = real(*arguments)
        seen.append(1024 * int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)))
        return found

    inference._tile = held
    whole = int(n)
    batches = (made_up.blobs(500, size=8, first=i) for i in range(0, whole, 500))
    survey = store.write(batches, place / f"survey-{n}", tile_bytes=400_000)
    some = survey.gather(np.arange(64))
    task = Wide()
    module = task.module(normalise.fit([some], "image"), Flat())
    made = model.Model(task, module, Network("object"), Contract.of(survey, "image", some, "float32"))
    cat = inference.predict(made, survey, to=place / f"catalogue-{n}", quiet=True)
    found = {"peak": max(seen), "tiles": len(seen), "rows": len(cat), "columns": cat.names}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"predict": predict, "memory": memory}[sys.argv[1]](*sys.argv[2:])
