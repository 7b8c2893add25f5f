"""What a call of `train` means: which folds, which objects, which network, which augmentation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from deepsky import baselines, casting, registry
from deepsky.augment import Augmentation
from deepsky.augment._parts import pairs, period
from deepsky.augment.dihedral import VIEWS
from deepsky.errors import InputError
from deepsky.labels import turning
from deepsky.labels.sentinels import TAKEN
from deepsky.networks import Network
from deepsky.sample import Truth
from deepsky.survey import Survey
from deepsky.task import Task
from deepsky.tasks.classify import Classify
from deepsky.tasks.regress import Regress

_log = logging.getLogger("deepsky")


def folds(survey: Survey) -> dict[str, Survey]:
    """The folds by name, from a survey, from a selection that holds several, or from a training fold.

    Raises
    ------
    InputError : no folds, no training fold among them, or no validation fold.
    """
    if "fold" not in survey.index.column_names:
        raise InputError("this survey has no folds", file=survey.path, fix=f"deepsky split {survey.path}")
    here = set(map(str, survey.column("fold")))
    if "train" not in here:
        raise InputError(
            "training on objects of another fold",
            file=survey.path,
            found=", ".join(sorted(here)),
            expected="train",
            fix='pass the survey, or survey.fold("train")',
        )
    # a training fold alone takes its valid and calib from the whole; a selection of several folds has its own
    whole = survey.whole if survey.whole is not None and here == {"train"} else survey
    names = set(map(str, whole.column("fold")))
    train = survey if here == {"train"} else whole.fold("train")
    folds = {"train": train}
    folds.update({n: whole.fold(n) for n in ("valid", "calib") if n in names})
    if "valid" not in folds:
        raise InputError(
            "the survey has no validation fold",
            file=survey.path,
            found=", ".join(sorted(names)),
            expected="train, valid, calib, test",
            fix=f"deepsky split {survey.path}",
        )
    return folds


def checked(train: Callable[..., Any], call: dict[str, Any]) -> dict[str, Any]:
    """The call of `train`, once each argument is found to be of its type.

    Raises
    ------
    InputError : one that is not, by its name.
    """
    kinds = casting.kinds(train, "task", "survey", "network", "settings", "to", "quiet")
    for name, kind in kinds.items():
        casting.check(call[name], kind, name)
    return call


def is_classical(network: str) -> bool:
    """Whether the name is that of a classical family."""
    return network.partition(":")[0].replace("_", "-") in registry.names("baselines")


def named(network: str) -> str:
    """The name as `deepsky list` has it, of a network or a classical family: ``RandomForest`` is ``random-forest``.

    Raises
    ------
    InputError : neither is called so.
    """
    family, colon, variant = network.partition(":")
    if network.endswith(".py"):
        return network
    known = [*registry.names("networks"), *registry.names("baselines")]
    same = [n for n in known if _letters(n) == _letters(family)]
    if not same:
        raise InputError("no network and no classical family of this name", found=family, known=known)
    return f"{same[0]}{colon}{variant}"


def _letters(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def settings(network: str) -> dict[str, Any]:
    """The settings that a network or classical family has, by name, each with its type."""
    if not is_classical(network):
        return casting.kinds(registry.find("networks", network.partition(":")[0]).build, "channels", "size")
    name = network.partition(":")[0]
    own = casting.kinds(registry.find("baselines", name).fit)
    return {"features": str, "components": int} | {n: own[n] for n in baselines.settings(name)}


def check_settings(network: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a network or classical family, each of its type.

    Raises
    ------
    InputError : one that it does not have, or of another type.
    """
    known = settings(network)
    for key in given:
        if key not in known:
            what = "classical family" if is_classical(network) else "network"
            raise InputError(f"the {what} {network!r} has no such setting", found=key, known=known)
    if is_classical(network) and "," in str(given.get("features", "")):
        raise InputError("features are joined by +", keyword="features", found=given["features"],
                         expected=str(given["features"]).replace(",", "+"))  # fmt: skip
    return {key: casting.check(value, known[key], key) for key, value in given.items()}


def user_module(network: nn.Module) -> Network:
    if not isinstance(getattr(network, "features", None), int):
        raise InputError(
            "a module must say how many features it gives",
            found=type(network).__name__,
            fix="set module.features = N, where module(x) is (n, N)",
        )
    return Network("object", {"type": f"{type(network).__module__}:{type(network).__qualname__}"})


def augmentation(words: str, train: Survey, observation: str, task: Task) -> str:
    words = words.strip()
    if words.lower() in casting.NOTHING or (words == "auto" and train.schema.observations[observation].kind != "image"):
        return ""
    truths = _declared(train, task, task.reads)
    if words == "auto":
        words = _suitable(truths, train)
    if not words:
        return ""
    _check_angles(truths, train, words)
    _check_noise(train, words)
    # once on a real object: a target that forbids it, a missing PSF or pixel scale shows only then
    Augmentation.parse(words)(task.declared(train.gather(np.arange(1), truth=task.reads)), seed=0, epoch=0)
    return words


def _suitable(truths: Mapping[str, Truth], train: Survey) -> str:
    """The default augmentation without what a target forbids; that is said."""
    together = pairs(truths)
    lone = [n for n, t in truths.items() if t.moves in {"vector", "spin2"} and t.value.ndim == 1
            and n not in {*together, *together.values()}]  # fmt: skip
    fixed = [n for n, t in truths.items() if t.moves == "fixed"] + lone
    if fixed:
        _log.warning("%s: no turns or flips in training, since %s may turn with the image; if not, call the column "
                     "%s:scalar in the label table", train.path, ", ".join(fixed), fixed[0])  # fmt: skip
        return ""
    handed = [n for n, t in truths.items() if t.moves == "handed"]
    if handed:
        _log.warning("%s: no flips in training, since %s may change its sense in a mirror; if not, call the column "
                     "%s:scalar in the label table", train.path, ", ".join(handed), handed[0])  # fmt: skip
        return "dihedral(flips=False)"
    return "dihedral"


def _check_noise(train: Survey, words: str) -> None:
    """Refuse to add noise of which nobody knows how much that is."""
    steps = Augmentation.parse(words).reads_noise
    for name, rule in train.schema.observations.items():
        if steps and rule.kind == "image" and rule.noise == "unknown":
            fix = f"leave {', '.join(steps)} out, or ingest FITS cutouts with their noise (sigma, ivar or weight maps)"
            raise InputError(
                "this augmentation is measured by the noise of the images, which is not known", file=train.path,
                keyword=name, found=words, expected="ivar that is more than a mask",
                fix="psf(fwhm=..., restore=False)" if steps == ("psf",) else fix,
            )  # fmt: skip


def _check_angles(truths: Mapping[str, Truth], train: Survey, words: str) -> None:
    """Refuse angles that a turn would bring into another range than the one in which they are counted."""
    if not {name for name, _ in Augmentation.parse(words).steps} & {"dihedral", "rotation"}:
        return
    for name, truth in truths.items():
        if truth.moves in {"angle", "direction"}:
            full, values = period(name, truth), (train.whole or train).truth(name).value
            known = values[torch.isfinite(values)]
            if len(known) and not 0 <= float(known.min()) <= float(known.max()) <= full:
                raise InputError(
                    f"angles outside the range in which {'an axis' if truth.moves == 'angle' else 'a direction'} is "
                    "counted", file=train.path, keyword=name, found=f"{float(known.min()):g} to {float(known.max()):g}",
                    expected=f"0 to {full:g} {truth.unit}", fix="bring them into it in the label table"
                    + ("; moves=direction where the two ends differ" if truth.moves == "angle" else ""),
                )  # fmt: skip


def check_views(wanted: int, train: Survey, observation: str, task: Task, network: str | nn.Module) -> None:
    """Refuse a number of views of an image that a prediction cannot average.

    Raises
    ------
    InputError : no such number, no square images, a task or target that cannot be turned back, or a classical family.
    """
    if wanted not in VIEWS:
        raise InputError("a prediction averages over an image, its turns, or its turns and flips", keyword="views",
                         found=wanted, known=[str(n) for n in VIEWS])  # fmt: skip
    if wanted == 1:
        return
    if isinstance(network, str) and is_classical(network):
        raise InputError("a classical family sees each image once", keyword="views", found=wanted, fix="views=1")
    kept = train.schema.observations[observation]
    if kept.kind != "image" or kept.shape[-1] != kept.shape[-2]:
        raise InputError("only square images can be seen from several sides", keyword="views",
                         found=f"{observation}: {' x '.join(map(str, kept.shape))}", fix="views=1")  # fmt: skip
    augmentation("dihedral" if wanted == max(VIEWS) else "dihedral(flips=False)", train, observation, task)
    turning = _turning(train, task)
    for first, second in pairs(_declared(train, task, task.targets)).items():
        if task.targets.index(second) != task.targets.index(first) + 1:
            raise InputError("answers are turned back where the second component follows the first", keyword="views",
                             found=", ".join(task.targets), fix=f"--target {first},{second} in this order")  # fmt: skip
    task.check_views({n: m for n, m in turning.items() if m != "handed"})  # which the views leave as it is


def check_turning(network: nn.Module, train: Survey, task: Task) -> None:
    """Refuse to ask a network that gives the same for all turns of an image what turns with it.

    Raises
    ------
    InputError : such a target; the network could only ever answer its mean.
    """
    if not any(getattr(part, "invariant", False) for part in network.modules()):  # itself, or the one that it wraps
        return
    for name, turn in _turning(train, task).items():
        words = {"fixed": "may turn", "handed": "may change its sense"}.get(turn, "turns")
        raise InputError(
            f"the target {words} with the image, and this network gives the same for all turns of it", keyword=name,
            found=turn, fix="network=resnet; views=4 averages its predictions over turned images"
            + (f". Or say that it stays: {name}:scalar in the label table" if turn in {"fixed", "handed"} else ""),
        )  # fmt: skip


def _turning(train: Survey, task: Task) -> dict[str, str]:
    """The targets that are not known to stay when the image is turned or mirrored, and what is known of them."""
    return {name: t.moves for name, t in _declared(train, task, task.targets).items() if t.moves != "scalar"}


def _declared(train: Survey, task: Task, names: Sequence[str]) -> Mapping[str, Truth]:
    """The truth of one object, with what the task declares of it."""
    return task.declared(train.gather(np.arange(1), truth=names, observations=())).truth


def drawn(task: Task, balance: bool) -> Task:
    """The task, told when objects are to be drawn equally often from every class: its answers must not follow."""
    return replace(task, evenly=True) if balance and isinstance(task, Classify) else task


def _say_missing(train: Survey, task: Task) -> None:
    for name in task.reads:
        column = train.schema.columns[name]
        for part in column.parts or (name,):
            about = train.schema.columns.get(part, column).description
            if TAKEN in about:
                _log.warning("%s: %s: %s (if they are meant: %s:kept in the header of the label table)",
                             train.path, part, about, part)  # fmt: skip


def _say_angles(train: Survey, task: Task) -> None:
    for name, truth in _declared(train, task, task.targets).items():
        if isinstance(task, Regress) and turning.is_angle(truth.moves, truth.unit):
            _log.warning("%s: %s: %s", train.path, name, turning.PLAIN_ANGLE)


def labelled(folds: dict[str, Survey], task: Task) -> dict[str, Survey]:
    """The folds without the objects that have no label, so that no batch is spent on them.

    What the label table held instead of a value (-99) and is taken as missing, is said.

    Raises
    ------
    InputError : a training or validation fold in which no object has one.
    """
    if not task.targets:
        return folds
    if "train" in folds:
        _say_missing(folds["train"], task)
        _say_angles(folds["train"], task)
    found = {}
    for name, survey in folds.items():
        has = task.labelled(survey.gather(slice(None), truth=task.targets, observations=())).numpy()
        if not has.any() and name == "calib":  # then the validation fold serves alone
            continue
        if not has.any():
            raise InputError(
                "no object of this fold has a label", file=survey.path, keyword=name, fix=f"deepsky split {survey.path}"
            )
        found[name] = survey if has.all() else survey.select(has, "labelled")
    return found
