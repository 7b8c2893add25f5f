"""Augmentation: whole batches turned, shifted, blurred and degraded, and their truth moved along.

One file, one augmentation, found by its name. Each has ``apply(sample, *, seed, epoch, ...) -> Sample``. Draws come
from (seed, epoch, object), so an object's fate does not depend on the batch it is in. One that takes ``ivar`` for that
of a noise says ``NOISE = True``: it is refused where the noise is not known.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch

from deepsky import casting, registry
from deepsky.errors import InputError
from deepsky.sample import Image, Sample

_ITEM = re.compile(r"\s*([A-Za-z][\w-]*)\s*(?:=\s*([^,()=]+?)|\(([^()]*)\))?\s*(?:,|$)")


@dataclass(frozen=True)
class Augmentation:
    """Augmentations in a row, each a name and its settings; called with a batch, it applies them from left to right.

    Examples
    --------
    >>> print(Augmentation.parse("dihedral, shift=1.5, noise(magnitudes=0.5)"))
    dihedral,shift=1.5,noise(magnitudes=0.5)
    """

    steps: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    @classmethod
    def parse(cls, words: str) -> Self:
        """Read ``name``, ``name=value`` (of its first setting) or ``name(setting=value, ...)``, joined by commas.

        An empty text, or "none" or "no", is no augmentation. Settings are tried out on a made-up object.

        Raises
        ------
        InputError : words that cannot be read, an unknown name or setting, a value out of range, a name twice.
        """
        steps: list[tuple[str, Mapping[str, Any]]] = []
        rest = "" if words.strip().lower() in casting.NOTHING else words.strip()
        while rest:
            item = _ITEM.match(rest)
            if item is None:
                raise InputError("this augmentation cannot be read", found=rest,
                                 expected="dihedral,shift=1,noise(magnitudes=0.5)")  # fmt: skip
            name, first, settings = item.groups()
            if name not in registry.names("augment"):
                raise InputError("unknown augmentation", found=name, known=registry.names("augment"))
            if name in dict(steps):
                raise InputError("an augmentation is named twice", found=name)
            steps.append((name, _settings(name, first, settings)))
            rest = rest[item.end() :]
        made = cls(tuple(steps))
        made(_try_out(), seed=0, epoch=0)
        return made

    def __call__(self, sample: Sample, *, seed: int, epoch: int) -> Sample:
        """Augment a batch.

        Raises
        ------
        InputError : a target whose behaviour is not declared, or a batch that lacks what an augmentation needs.
        """
        for name, settings in self.steps:
            sample = registry.find("augment", name).apply(sample, seed=seed, epoch=epoch, **settings)
        return sample

    @property
    def reads_noise(self) -> tuple[str, ...]:
        """The steps that take ``ivar`` for that of a noise, and mean nothing where it is only a mask."""
        return tuple(n for n, settings in self.steps if _reads_noise(n) and settings.get("restore", True))

    def __str__(self) -> str:
        return ",".join(_written(name, settings) for name, settings in self.steps)


def _reads_noise(name: str) -> bool:
    """Whether an augmentation says so; psf only does to put noise back (`restore`)."""
    return bool(getattr(registry.find("augment", name), "NOISE", False))


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    signature = inspect.signature(registry.find("augment", name).apply, eval_str=True)
    return {k: p for k, p in signature.parameters.items() if k not in {"sample", "seed", "epoch"}}


def _settings(name: str, first: str | None, rest: str | None) -> dict[str, Any]:
    known = _parameters(name)
    pairs = [("", first)] if first is not None else []
    pairs += [
        (key.strip(), value) for key, _, value in (p.partition("=") for p in (rest or "").split(",") if p.strip())
    ]
    made: dict[str, Any] = {}
    for key, value in pairs:
        key = key if first is None else next(iter(known), "")
        if key not in known or key in made or value is None or not value.strip():
            raise InputError(f"the augmentation {name!r} has no such setting, or has it twice or without a value",
                             found=f"{key}={value or ''}", known=known)  # fmt: skip
        made[key] = casting.read(value, known[key].annotation, f"{name}({key})")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in made:
            raise InputError(f"the augmentation {name!r} needs a value", keyword=key, expected=f"{name}=VALUE")
    return made


def _written(name: str, settings: Mapping[str, Any]) -> str:
    if not settings:
        return name
    if list(settings) == [next(iter(_parameters(name)))]:
        return f"{name}={next(iter(settings.values()))}"
    return f"{name}({', '.join(f'{key}={value}' for key, value in settings.items())})"


def _try_out() -> Sample:
    """A batch of one small object that has all that an augmentation may ask for."""
    psf = torch.ones(1, 1, 3, 3) / 9
    image = Image(torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 1, 1), bands=("r",), pixel_scale=torch.ones(1), psf=psf)
    nowhere = torch.zeros(1, dtype=torch.float64)
    return Sample(("",), torch.zeros(1, dtype=torch.int64), nowhere, nowhere, {"image": image})
