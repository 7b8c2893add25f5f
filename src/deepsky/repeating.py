"""Repeating: a training once more, as its ``run.json`` says."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from deepsky import plan, resolve, tasks, training
from deepsky.errors import InputError
from deepsky.model import Model
from deepsky.survey import Survey


def repeat(
    run: str | Path,
    *,
    to: str | Path | None = None,
    survey: Survey | None = None,
    network: nn.Module | None = None,
    quiet: bool = False,
) -> Model:
    """Train again as a ``run.json`` says: with the same versions on the same machine, the same model bit for bit.

    Parameters
    ----------
    run : the file, or the folder of a model that holds it.
    survey : by default read from the folder that it lay in then.
    network : as it was before training, for a run whose network was a module.

    Raises
    ------
    InputError : no such file, another survey or other labels than then, or a network that only its owner has.
    """
    file = Path(run) / "run.json" if Path(run).is_dir() else Path(run)
    noted = plan.Run.read(file)
    arguments = dict(noted.call)
    if not arguments:
        raise InputError("this run.json does not hold its call", file=file, fix="train anew")
    whole = Survey.load(arguments.pop("survey")) if survey is None else survey
    if whole.hash != noted.survey_hash or whole.fold("train").selection != noted.selection.removesuffix(", labelled"):
        raise InputError("this is not the survey of that run", file=whole.path, found=f"{whole.hash} ({whole.name})",
                         expected=f"{noted.survey_hash} ({noted.survey})")  # fmt: skip
    task = tasks.from_config(noted.task)
    same = resolve.drawn(task.bind(resolve.folds(whole)["train"]), bool(arguments["balance"]))
    if plan.literal(same.config()) != plan.literal(noted.task):
        raise InputError("the labels are not those of that run", file=whole.path, keyword=", ".join(task.targets),
                         fix="give the same labels as then")  # fmt: skip
    plan.check_data(noted.data, plan.data(resolve.labelled(resolve.folds(whole), same), same), file)
    if arguments["network"] == "object":
        if network is None:
            raise InputError("that run trained a network of its user's", found=noted.network["settings"].get("type"),
                             fix="repeat(file, network=module)")  # fmt: skip
        arguments["network"] = network
    if noted.steps:  # what was measured then is not measured again
        arguments |= {"steps": noted.steps, "minutes": None, "precision": noted.dtype}
    arguments.pop("survey", None)
    with plan.threads():
        torch.set_num_threads(noted.threads)
        return training.train(task, whole, to=to, quiet=quiet, **arguments)
