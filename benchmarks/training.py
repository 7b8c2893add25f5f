"""Training: a residual network on 2,000 images of 4 x 64 x 64, batches of 64 with dihedral augmentation, AdamW.

"The loop" is deepsky's own, from the survey on the disk, with all that it does in each step: gather, augmentation,
normalisation, finite loss and gradients checked, clipping, moving average of the weights, looks at the validation
fold, history. The bare loop has its images in memory, stretched and normalised beforehand, and does forward, loss,
backward and AdamW, and looks at the validation fold as often; with the same precision and augmentation, or as it is
commonly begun: eager, float32, no augmentation.

Accuracy: deepsky in the precision that it chooses by itself against deepsky in float32, from the same three seeds, on
the test fold; the interval of the difference holds the scatter between the seeds and that between the objects.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import torch
from scipy.stats import t as t_distribution
from torch import Tensor, nn

from benchmarks._measure import Arm, Row, Times, interleaved, processor
from benchmarks._sky import survey
from benchmarks.loading import settings
from deepsky import normalise, plan, registry, training
from deepsky.augment import Augmentation
from deepsky.inference import predict
from deepsky.model import Model
from deepsky.order import Order
from deepsky.survey import Survey
from deepsky.tasks.classify import Classify

BATCH, NETWORK = 64, "resnet"


def run(quick: bool, folder: Path) -> list[Row]:
    """Share of the gather, the loop against bare loops, and what the precision costs in accuracy."""
    n, steps, repeats = (600, 12, 2) if quick else (2000, 180, 3)
    whole = survey(folder / "survey", n, bands=4)
    dtype = plan.precision("auto", image=True)
    rows = [_gather(whole, 5 if quick else 40, dtype)]
    ours = Times()

    def deepsky() -> None:
        with _timed_loop(ours):
            _train(whole, steps, 0, "auto")

    arms: dict[str, Callable[[], object]] = {
        "deepsky": deepsky,
        "same": _bare(whole, steps, dtype, channels_last=True, augmented=True),
        "plain": _bare(whole, steps, "float32", channels_last=False, augmented=False),
    }
    times = interleaved(arms, repeats)
    mine = Times(ours.cpu[1:], ours.wall[1:]).arm(f"deepsky's loop, {dtype}, channels last")
    words = f"{steps} steps; the whole call, with what is decided before the loop and calibrated after it, took "
    words += f"{median(times['deepsky'].cpu):.1f} s where the loop took {median(mine.values):.1f} s"
    same = times["same"].arm(f"bare PyTorch loop, {dtype}, channels last, dihedral, in memory")
    plain = times["plain"].arm("bare PyTorch loop, eager, float32, in memory")
    objects = steps * BATCH
    rows += [
        Row("training, share of the limit", "speed", mine, same, 0.95, objects=objects, note=words),
        Row("training, against a plain loop", "speed", mine, plain, 1.5, objects=objects),
    ]
    return [*rows, _accuracy(folder / "hard", quick, dtype)]


def _train(whole: Survey, steps: int, seed: int, precision: str) -> Model:
    return training.train(
        Classify("shape"), whole, network=NETWORK, steps=steps, batch=BATCH, seed=seed, precision=precision,
        augment="dihedral", baseline=None, quiet=True,
    )  # fmt: skip


@contextlib.contextmanager
def _timed_loop(times: Times) -> Iterator[None]:
    """Note what deepsky's loop takes, without what comes before and after it."""
    loop = training._loop

    def timed(*arguments: object) -> object:
        cpu, wall = processor(), time.perf_counter()
        made = loop(*arguments)  # type: ignore[arg-type]
        times.cpu.append(processor() - cpu)
        times.wall.append(time.perf_counter() - wall)
        return made

    with mock.patch.object(training, "_loop", timed):
        yield


def _gather(whole: Survey, count: int, dtype: str) -> Row:
    """What reading costs of a step: batches alone against steps alone (augmented, forward, backward, optimiser)."""
    task = Classify("shape").bind(whole.fold("train"))
    order, nothing = Order(whole.fold("train"), settings(BATCH), task), Augmentation()
    step = _bare(whole, count, dtype, channels_last=True, augmented=True)
    epoch = iter(range(0, 10**9, count))

    def gather() -> None:
        for number in next(epoch) + np.arange(count):
            order.batch(int(number), nothing)

    times = interleaved({"gather": gather, "step": step}, 3 if count < 10 else 5)
    peer = times["step"].arm(f"{count} training steps, {dtype}")
    return Row("the gather's share of a training step", "cost", times["gather"].arm(f"gather of {count} batches"),
               peer, 0.05, True, count * BATCH)  # fmt: skip


def _bare(whole: Survey, steps: int, dtype: str, *, channels_last: bool, augmented: bool) -> Callable[[], None]:
    """A loop as it is written down in a tutorial, on tensors in memory; a function that trains for `steps`."""
    train, valid = whole.fold("train"), whole.fold("valid")
    some = train.gather(slice(None))
    fitted = normalise.fit([some], "image")
    images, labels = fitted(some), some.truth["shape"].value
    held = valid.gather(slice(None))
    held_images, held_labels = fitted(held), held.truth["shape"].value
    looks = _looks(steps, len(train))

    def loop() -> None:
        torch.manual_seed(0)
        network = registry.find("networks", NETWORK).build(images.shape[1], tuple(images.shape[2:]))
        module = nn.Sequential(network, nn.Linear(network.features, 2))
        if channels_last:
            module = module.to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.02)
        order = torch.randperm(len(images))
        for step in range(steps):
            at = order[(step * BATCH) % (len(images) - BATCH) :][:BATCH]
            x, y = images[at], labels[at]
            if augmented:
                x = _dihedral(x)
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                out = module.train()(x)
            loss = nn.functional.cross_entropy(out.float(), y)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if (step + 1) % looks == 0 or step + 1 == steps:
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                    for i in range(0, len(held_images), 256):
                        out = module.eval()(held_images[i : i + 256])
                        nn.functional.cross_entropy(out.float(), held_labels[i : i + 256])

    return loop


def _looks(steps: int, objects: int) -> int:
    """Steps between two looks at the validation fold, as deepsky has them."""
    per_epoch = max(1, objects // BATCH)
    return max(1, min(max(per_epoch, steps // 60), max(1, steps // 8)))


def _dihedral(x: Tensor) -> Tensor:
    """Each image flipped and turned at random, as deepsky does."""
    element = torch.randint(8, (len(x),))
    made = torch.empty_like(x)
    for number in range(8):
        rows = element == number
        part = x[rows].flip(-1) if number >= 4 else x[rows]
        made[rows] = torch.rot90(part, number % 4, (-2, -1))
    return made


def _accuracy(folder: Path, quick: bool, dtype: str) -> Row:
    n, steps, seeds = (900, 30, 3) if quick else (6000, 300, 3)
    whole = survey(folder, n, size=32, bands=1, snr=35)
    test = whole.fold("test")
    truth = np.asarray(test.schema.columns["shape"].classes, object)[test.truth("shape").value.numpy()]
    right: dict[str, list[np.ndarray]] = {"auto": [], "float32": []}
    for seed in range(seeds):
        for precision, each in right.items():
            found = predict(_train(whole, steps, seed, precision), test, quiet=True).table
            each.append(np.asarray(found["class"].to_pylist(), object) == truth)
    difference = np.array(right["auto"], float) - np.array(right["float32"], float)  # (seed, object)
    low, high = _interval(difference)
    arms = [Arm(name, tuple(round(float(r.mean()), 5) for r in right[key]))
            for name, key in ((f"accuracy, {dtype}", "auto"), ("accuracy, float32", "float32"))]  # fmt: skip
    return Row("accuracy of the chosen precision", "interval", arms[0], arms[1], unit="", low=low, high=high,
               objects=len(truth), note=f"{seeds} seeds of {steps} steps, {len(truth):,} test objects")  # fmt: skip


def _interval(difference: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean of a (seed, object) difference: Student's t over seeds and the scatter of objects."""
    seeds, objects = difference.shape
    by_seed = t_distribution.ppf(0.975, seeds - 1) * difference.mean(1).std(ddof=1) / seeds**0.5
    by_object = 1.96 * difference.mean(0).std(ddof=1) / objects**0.5
    half = float(np.hypot(by_seed, by_object))
    return float(difference.mean()) - half, float(difference.mean()) + half
