"""A training run in a process of its own, to be killed: python -m tests.training_run SURVEY MODEL [steps]."""

import sys

import torch

from deepsky import tasks, training
from deepsky.survey import Survey

training.CHECKPOINT_SECONDS = 0.0  # a checkpoint after every step, so that a kill finds one in any state


def main() -> None:
    torch.set_num_threads(1)
    survey, model, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    training.train(
        tasks.Classify("shape"),
        Survey.load(survey),
        network="resnet",
        settings={"width": 8, "dropout": 0.2},
        steps=steps,
        batch=16,
        augment="dihedral,noise=0.3",
        seed=3,
        to=model,
        baseline=None,
        quiet=True,
    )


if __name__ == "__main__":
    main()
