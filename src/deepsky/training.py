"""train: one visible loop. Resolve and refuse first, decide second, then step by step, and calibrate at the end."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import lightning_fabric
import numpy as np
import torch
from torch import Tensor, nn

from deepsky import checkpoint, costs, finishing, normalise, optimise, plan, resolve
from deepsky.augment import Augmentation
from deepsky.errors import Incomplete, InputError, TrainingError
from deepsky.io import lock_folder, stable_uint
from deepsky.model import Model, check_folder
from deepsky.networks import Network
from deepsky.nonfinite import explain
from deepsky.order import Order
from deepsky.progress import Progress
from deepsky.sample import Sample
from deepsky.survey import Survey
from deepsky.task import Score, Step, Task

CHECKPOINT_SECONDS = 60.0
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells the precision of every run on stderr


def train(
    task: Task,
    survey: Survey,
    *,
    network: str | nn.Module = "resnet",
    settings: Mapping[str, Any] | None = None,
    to: str | Path | None = None,
    seed: int = 0,
    epochs: float = 30,
    steps: int | None = None,
    minutes: float | None = None,
    batch: int = 64,
    optimiser: str = "adamw",
    lr: float | None = None,
    weight_decay: float = 0.02,
    momentum: float = 0.9,
    l1: float = 0.0,
    l2: float = 0.0,
    schedule: str = "cosine",
    warmup: float = 0.05,
    ema: float = 0.99,
    clip: float = 1.0,
    patience: int = 0,
    augment: str = "auto",
    stretch: str = "auto",
    channels: str = "",
    balance: bool = False,
    precision: str = "auto",
    views: int = 1,
    level: float = 0.9,
    baseline: str | None = "auto",
    observation: str | None = None,
    quiet: bool = False,
) -> Model:
    """Train a model for `task` on the training fold of `survey`.

    Parameters
    ----------
    survey : a survey with folds, or its training fold. Early stopping looks at the fold "valid", calibration at
        "calib"; the fold "test" is never touched.
    network : a name (``deepsky list``), a classical family such as "random-forest", or any torch module that maps
        (n, channels, ...) to (n, features); a copy of it is trained.
    settings : of the network, by name.
    to : the model's folder. With it a stopped run goes on, and ends bit for bit as if it had never stopped.
    epochs, steps, minutes : how long; `steps` goes before `minutes`, `minutes` before `epochs`.
    lr : learning rate; by default what suits the optimiser.
    weight_decay, l1, l2 : decoupled decay (of adamw), and penalties on the loss.
    schedule : "cosine", "plateau" or "constant", after a linear warm-up of that fraction of the steps.
    ema : decay of the moving average of the weights that is validated and saved; 0 switches it off.
    patience : stop after that many looks at the validation fold without a better score; 0 never.
    augment : "auto", "none", or names with settings such as "dihedral,shift=1,noise=0.2".
    stretch, channels : see `deepsky.normalise.fit`; "mask", "psf" and "detail" are further channels for the network.
    balance : draw every class equally often.
    precision : "auto" (bfloat16 where the processor has it), "float32" or "bfloat16".
    views : a prediction averages the answers to so many views of an image, each turned back: 1, 4 (its turns by 90
        degrees) or 8 (and flips). Training costs what it did, a prediction so many times as much.
    level : of the conformal sets or intervals.
    baseline : the classical model fitted beside it: "auto", a name, or None.

    Returns
    -------
    Model : with the weights of the best validation score, calibrated.

    Raises
    ------
    InputError : before any long work, when something does not fit.
    TrainingError : too little memory, a loss that is not finite, a full disk.
    Incomplete : stopped by a signal; the same call goes on.
    """
    call = resolve.checked(train, plan.call(locals()))
    if isinstance(network, str):
        network = resolve.named(network)
        settings = resolve.check_settings(network, settings or {})
    folds = resolve.folds(survey)
    observation = observation or next(iter(survey.schema.observations))
    if observation not in survey.schema.observations:
        raise InputError("no such observation", found=observation, known=survey.schema.observations)
    folder = None if to is None else Path(to)
    if folder is not None and (folder / "checksums.json").exists():
        raise InputError(
            "a finished model already stands there", file=folder, fix="choose another folder, or delete it"
        )
    if folder is not None:
        check_folder(folder)
    task = resolve.drawn(task.bind(folds["train"]), balance)
    folds = resolve.labelled(folds, task)
    resolve.check_views(views, folds["train"], observation, task, network)
    if isinstance(network, str) and resolve.is_classical(network):
        noted = plan.begun(
            task, folds, {"name": network, "settings": settings or {}}, {}, {"seed": seed}, "float32", call
        )
        return finishing.train_classical(
            task, folds, observation, network, settings or {}, seed=seed, level=level, to=folder, run=noted
        )
    finishing.check_baseline(task, baseline)
    chosen = plan.Settings(
        seed=seed,
        batch=min(batch, len(folds["train"])),
        optimiser=optimiser,
        lr=optimise.RATES.get(optimiser, 1e-3) if lr is None else lr,
        weight_decay=weight_decay,
        momentum=momentum,
        l1=l1,
        l2=l2,
        schedule=schedule,
        warmup=warmup,
        ema=ema,
        clip=clip,
        patience=patience,
        balance=balance,
        level=level,
        views=views,
        augment=resolve.augmentation(augment, folds["train"], observation, task),
    )
    described = Network(network, settings or {}) if isinstance(network, str) else resolve.user_module(network)
    some = folds["train"].gather(plan.few(folds["train"], 4096, chosen.batch), truth=task.reads)
    fitted = normalise.fit([some], observation, stretch, channels)
    plan.seed(stable_uint(seed, "build"))
    size = tuple(some.observation(observation).flux.shape[2:])
    built = described.build(fitted.channels, size) if isinstance(network, str) else copy.deepcopy(network)
    described = described.settled(built)
    resolve.check_turning(built, folds["train"], task)
    module = task.module(fitted, built)
    dtype = plan.precision(precision, image=fitted.axes == 2)
    begun = plan.begun(task, folds, asdict(described), fitted.config(), asdict(chosen), dtype, call)
    with nullcontext() if folder is None else lock_folder(folder), plan.threads():
        run = plan.decide(begun, task, folds, module, some, chosen, folder)
        best, history = _loop(run, task, module, folds, chosen, folder, quiet)
        module.cpu().load_state_dict(best)
        made = finishing.finish(
            task, module.eval(), described, folds, observation, run, history, baseline, folder, level
        )
        if folder is not None:
            (folder / "checkpoint.pt").unlink(missing_ok=True)
    return made


def _loop(
    run: plan.Run,
    task: Task,
    module: nn.Module,
    folds: dict[str, Survey],
    chosen: plan.Settings,
    folder: Path | None,
    quiet: bool,
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The loop: from the last checkpoint, if there is one, to the best weights and the history."""
    fabric = lightning_fabric.Fabric(
        accelerator=costs.device(), devices=1, precision="bf16-mixed" if run.dtype == "bfloat16" else "32-true"
    )
    module = fabric.to_device(module)
    if run.normalise["axes"] == 2:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kinds = task.steps()
    optimisers = [
        optimise.optimiser(chosen.optimiser, module, k.parameters, chosen.lr, _decay(chosen), chosen.momentum)
        for k in kinds
    ]
    moving = {n: v.clone() for n, v in module.state_dict().items()}
    state: dict[str, Any] = {
        "step": 0,
        "best": None,
        "best_state": None,
        "waits": 0,
        "drops": 0,
        "history": [],
        "losses": [],
        "seconds": 0.0,
    }
    file = None if folder is None else folder / "checkpoint.pt"
    held = checkpoint.load(file) if file else None
    if held is not None:
        module.load_state_dict(held["module"])
        moving = {n: v.to(fabric.device) for n, v in held["moving"].items()}
        for o, saved in zip(optimisers, held["optimisers"], strict=True):
            o.load_state_dict(saved)
        state = held["state"]
    train, valid = folds["train"], folds["valid"].select(plan.spread(len(folds["valid"]), 5000), "validation")
    live = module.state_dict()  # the module's own tensors: every later change is made in place
    augment = Augmentation.parse(run.settings["augment"])
    order = Order(train, chosen, task)
    warm = round(chosen.warmup * run.steps)
    began, written = time.monotonic() - state["seconds"], time.monotonic()
    losses: list[float] = state["losses"]
    module.train()  # once, and after each look at the validation fold: going through all layers takes time
    with checkpoint.signals() as stop, Progress(run.steps, quiet) as progress:
        # asked before the step, so that a run which was stopped just when it was done does not go on
        while state["step"] < run.steps and not 0 < chosen.patience <= state["waits"]:
            step = state["step"]
            sample = order.batch(step, augment).to(fabric.device)
            plan.seed(stable_uint(chosen.seed, "step", step))  # dropout
            factor = optimise.rate(chosen.schedule, step, run.steps, warm, state["drops"])
            for kind, o in zip(kinds, optimisers, strict=True):
                for group in o.param_groups:
                    group["lr"] = chosen.lr * factor
                for update in range(kind.updates):
                    seed = stable_uint(chosen.seed, kind.name, step, update) >> 1
                    g = torch.Generator(fabric.device).manual_seed(seed)
                    losses.append(_update(kind, o, module, sample, g, fabric, chosen, step))
            if chosen.ema:
                optimise.average(moving, live, chosen.ema, step)
            state["step"] = step + 1
            progress.update(state["step"], len(sample), loss=losses[-1])
            if state["step"] % run.every == 0 or state["step"] == run.steps:
                weights = moving if chosen.ema else module.state_dict()
                score = _look(task, module, weights, valid, fabric)
                state["seconds"] = time.monotonic() - began
                _record(state, score, weights, losses, run, train, factor * chosen.lr)
                losses.clear()
                progress.update(state["step"], 0, score=score)
            if file and (stop.wanted or time.monotonic() - written > CHECKPOINT_SECONDS):
                state["seconds"] = time.monotonic() - began
                _write(file, module, moving, optimisers, state, step + 1)
                written = time.monotonic()
            if stop.wanted:
                where = (
                    f"; the same command goes on from step {state['step']}" if file else "; nothing was kept (no --to)"
                )
                raise Incomplete(f"stopped by {stop.wanted} at step {state['step']} of {run.steps}{where}")
    return {n: v.cpu() for n, v in state["best_state"].items()}, state["history"]


def _update(
    kind: Step,
    o: Any,
    module: nn.Module,
    sample: Sample,
    g: torch.Generator,
    fabric: Any,
    chosen: plan.Settings,
    step: int,
) -> float:
    """One step of one optimiser; the loss, or an error before any weight could be spoiled."""
    with fabric.autocast():
        each = kind.loss(module, sample, g)
    loss = each.mean() + optimise.penalty(module.parameters(), chosen.l1, chosen.l2)
    o.zero_grad()
    fabric.backward(loss)
    norm = nn.utils.clip_grad_norm_([p for q in o.param_groups for p in q["params"]], chosen.clip or math.inf)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise TrainingError(explain(kind, module, sample, each, step))
    o.step()
    if kind.after is not None:
        kind.after(module)
    return float(loss.detach())


def _decay(chosen: plan.Settings) -> float:
    return chosen.weight_decay if chosen.optimiser == "adamw" else 0.0


def _write(
    file: Path, module: nn.Module, moving: dict[str, Tensor], optimisers: list[Any], state: dict[str, Any], step: int
) -> None:
    held = {
        "module": module.state_dict(),
        "moving": moving,
        "optimisers": [o.state_dict() for o in optimisers],
        "state": state,
    }
    try:
        checkpoint.save(file, held)
    except OSError as error:
        raise TrainingError(
            f"{file}: the checkpoint of step {step} could not be written: {error}\n  known: the one before it is "
            "whole\n  fix: free some space and run the same command again"
        ) from error


@torch.no_grad()
def _look(task: Task, module: nn.Module, weights: Mapping[str, Tensor], valid: Survey, fabric: Any) -> Score:
    """The score on the validation fold with these weights; the module keeps its own."""
    live = module.state_dict()
    own = {n: v.clone() for n, v in live.items()}
    optimise.put(live, weights)
    module.eval()
    scores, counts = [], []
    for i in range(0, len(valid), 256):
        sample = valid.gather(slice(i, i + 256), truth=task.reads).to(fabric.device)
        with fabric.autocast():
            outputs = module(sample)
        scores.append(task.score(cast(nn.Module, module.head), outputs, sample))
        counts.append(len(sample))
    optimise.put(live, own)
    module.train()
    value = sum(s.value * n for s, n in zip(scores, counts, strict=True)) / sum(counts)
    return replace(scores[0], value=value)


def _record(
    state: dict[str, Any],
    score: Score,
    weights: Mapping[str, Tensor],
    losses: list[float],
    run: plan.Run,
    train: Survey,
    lr: float,
) -> None:
    if not math.isfinite(score.value):
        raise TrainingError(
            f"step {state['step']}: the {score.name} of the validation fold is not finite; the run diverged\n"
            f"  found: {score.value} with a learning rate of {lr:.3g}\n  fix: train into a new folder with a lower one "
            f"(--set lr={run.settings['lr'] / 10:.2g}), gradients clipped (--set clip=1) and averaged weights "
            "(--set ema=0.99)"
        )
    sign = 1 if score.better == "lower" else -1
    better = state["best"] is None or sign * score.value < sign * state["best"]
    if better:
        state["best"] = score.value
        state["best_state"] = {n: v.detach().clone() for n, v in weights.items()}
    state["waits"] = 0 if better else state["waits"] + 1
    if state["waits"] and state["waits"] % 3 == 0:
        state["drops"] += 1  # of the plateau schedule
    seen = state["step"] * run.settings["batch"] / len(train)
    state["history"].append(
        {
            "step": state["step"],
            "epoch": round(seen, 4),
            "loss": float(np.mean(losses)) if losses else None,
            score.name: score.value,
            "lr": lr,
            "seconds": round(state["seconds"], 3),
        }
    )
