"""Classify: which class an object belongs to: one of several, several at once, or fractions of votes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Self

import numpy as np
import torch
from scipy.special import expit, logit
from torch import Tensor, nn
from torch.nn import functional as F

from deepsky.calibration import ConformalSet, Temperature, correct_prior
from deepsky.errors import InputError
from deepsky.sample import Sample, Truth
from deepsky.survey import Survey
from deepsky.task import Arrays, Output, Score, Task

_log = logging.getLogger("deepsky")
RARE = 1e-6  # least share of a class that a logarithm is taken of


@dataclass(frozen=True)
class Classify(Task):
    """A categorical distribution over classes.

    Parameters
    ----------
    targets : one label column with the class of every object; or several columns, one a class, that hold fractions
        (soft labels, brought to a sum of one) or, with `multilabel`, zeros and ones that do not exclude each other.
    multilabel : an object may belong to several classes: one Bernoulli distribution a class.
    weights : "balanced" gives each class the same weight in the loss, whatever its share in the training fold.
    evenly : objects are drawn equally often from every class; `train(balance=True)` sets it.
    smoothing : label smoothing in [0, 1).
    edges : rising numbers at which a numeric column is cut into classes: below the first, between, above the last; a
        value on an edge belongs above it. `classes` may name them.
    subclasses : a column that parts the classes further, e.g. what every confuser in a simulation is. The network
        learns to tell these apart and answers for the classes, whose probability is the sum over their subclasses;
        objects without a subclass teach their class. Only training needs the column.
    classes, prior : learnt from the training fold: names, and the share of each.
    kinds, parents, shares : likewise of the subclasses: names, the number of the class of each, and the share of each.

    Notes
    -----
    Weights and even drawing change what the loss looks at, not what the answers mean: the loss compares the truth with
    the logits less the logarithm of the prior, so that the logits themselves stay those of the training prior (logit
    adjustment, Menon+2021). Without it every rare class would be overestimated.
    """

    name: ClassVar[str] = "classify"
    targets: tuple[str, ...] | str = ()  # type: ignore[assignment]
    multilabel: bool = False
    weights: str = "none"
    smoothing: float = 0.0
    edges: tuple[float, ...] | float = ()
    subclasses: str = ""
    evenly: bool = False
    classes: tuple[str, ...] = ()
    prior: tuple[float, ...] = ()
    kinds: tuple[str, ...] = ()
    parents: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.targets, str):
            object.__setattr__(self, "targets", (self.targets,))
        if isinstance(self.edges, int | float):
            object.__setattr__(self, "edges", (float(self.edges),))
        if self.weights not in {"none", "balanced"}:
            raise InputError("no such class weights", found=self.weights, known=("none", "balanced"))
        if not 0 <= self.smoothing < 1:
            raise InputError("smoothing is a share", found=self.smoothing, expected="0 <= smoothing < 1")
        if self.multilabel and len(self.targets) < 2:
            raise InputError("several labels at once need several columns, one a class", found=self.targets)
        if self.edges and len(self.targets) > 1:
            raise InputError("edges cut one column", found=self.targets)
        if self.subclasses and len(self.targets) > 1:
            raise InputError("subclasses part the classes of one column", found=self.targets)

    @property
    def reads(self) -> tuple[str, ...]:
        """The targets, and the column of subclasses; see `Task.reads`."""
        assert isinstance(self.targets, tuple)
        return (*self.targets, self.subclasses) if self.subclasses else self.targets

    # -- binding ------------------------------------------------------------------------------------------
    def bind(self, survey: Survey) -> Self:
        """Learn the classes and their shares; see `Task.bind`."""
        truths = {name: survey.truth(name) for name in self.targets}
        if not truths:
            raise InputError("a classifier needs a target", fix="name a label column: --target COLUMN")
        if len(self.targets) > 1:
            for name, truth in truths.items():
                self._check_share(name, truth, survey)
            bound = replace(self, classes=tuple(self.targets))
        elif self.edges:
            bound = self._cut(survey, truths[self.targets[0]])
        else:
            bound = replace(self, classes=self._named(survey, truths[self.targets[0]]))
        bound = replace(bound, prior=_shares(bound.soft(truths)))
        return bound._parted(survey, truths) if self.subclasses else bound

    def _parted(self, survey: Survey, truths: Mapping[str, Truth]) -> Self:
        """Learn the subclasses, the class of each, and their shares."""
        codes = self._codes(truths[self.targets[0]]).numpy()
        words = [_word(v) for v in survey.column(self.subclasses)]
        belongs: dict[str, int] = {}
        for word, code in zip(words, codes.tolist(), strict=True):
            if word and code >= 0 and belongs.setdefault(word, code) != code:
                raise InputError("a subclass that belongs to two classes", file=survey.path, keyword=self.subclasses,
                                 found=f"{word!r} in {self.classes[belongs[word]]!r} and in {self.classes[code]!r}",
                                 fix="name a column that parts the classes, or leave subclasses out")  # fmt: skip
        # a class that nothing parts has itself as its only subclass
        belongs |= {f"{c}, all": i for i, c in enumerate(self.classes) if i not in belongs.values()}
        kinds = sorted(belongs, key=lambda k: (belongs[k], _natural(k)))
        parted = replace(self, kinds=tuple(kinds), parents=tuple(belongs[k] for k in kinds))
        known = {**truths, self.subclasses: survey.truth(self.subclasses)}
        return replace(parted, shares=_shares(parted.leaves(known)))

    def _check_share(self, name: str, truth: Truth, survey: Survey) -> None:
        value = truth.value.double()
        known = value[~torch.isnan(value)] if value.ndim == 1 else value
        strange = bool(truth.classes) or value.ndim != 1
        if strange or not len(known) or float(known.min()) < 0 or float(known.max()) > 1:
            word = f"text such as {truth.classes[0]!r}" if truth.classes else "no number"
            raise InputError(
                "fractions and multi-label columns hold numbers",
                file=survey.path,
                keyword=name,
                found=word if strange or not len(known) else f"{float(known.min()):g} to {float(known.max()):g}",
                expected="numbers from 0 to 1",
                fix="divide counts of votes by the number of votes",
            )

    def _named(self, survey: Survey, truth: Truth) -> tuple[str, ...]:
        """The classes of a label column, those of the training fold."""
        name = self.targets[0]
        if truth.value.ndim != 1:
            raise InputError("a class is one word or number for each object", file=survey.path, keyword=name,
                             found=f"shape {tuple(truth.value.shape)}")  # fmt: skip
        here = [w for v in survey.column(name) if (w := _word(v))]
        classes = tuple(sorted(set(here), key=_natural))
        if len(classes) < 2:
            raise InputError(
                "a classifier needs at least two classes",
                file=survey.path,
                keyword=name,
                found=f"only {classes[0]!r}" if classes else "no label at all",
                expected="two or more",
                fix="check the label table, or whether a fold took a whole class",
            )
        if len(classes) > max(50, len(here) // 5) or 2 * len(classes) > max(len(here), 4):
            raise InputError(
                "a class for nearly every object: this looks like a number or an id",
                file=survey.path,
                keyword=name,
                found=f"{len(classes)} classes in {len(here)} objects",
                fix="use --task regress for numbers, or name another column",
            )
        whole = survey.whole or survey
        others = sorted({w for v in whole.column(name) if (w := _word(v))} - set(classes), key=_natural)
        if others:
            _log.warning("%s: no object of the training fold has %s %s; such objects count as unlabelled",
                         survey.path, name, " or ".join(map(repr, others[:5])))  # fmt: skip
        return classes

    def _cut(self, survey: Survey, truth: Truth) -> Self:
        assert isinstance(self.edges, tuple)
        name, words = self.targets[0], [f"{e:g}" for e in self.edges]
        if truth.classes or truth.value.ndim != 1:
            raise InputError("only a column of numbers can be cut at edges", file=survey.path, keyword=name)
        if list(self.edges) != sorted(set(self.edges)):
            raise InputError("edges must rise", found=self.edges)
        inner = [f"{a} to {b}" for a, b in pairwise(words)]
        names = self.classes or (f"below {words[0]}", *inner, f"{words[-1]} and above")
        if len(names) != len(self.edges) + 1:
            raise InputError("one more class than edges", found=f"{len(names)} classes, {len(self.edges)} edges")
        bound = replace(self, classes=tuple(names))
        counts = torch.bincount(bound._codes(truth).clamp(min=-1) + 1, minlength=len(names) + 1)[1:]
        if int((counts > 0).sum()) < 2:
            raise InputError(
                "a classifier needs at least two classes",
                file=survey.path,
                keyword=name,
                found=", ".join(f"{n}: {int(c)}" for n, c in zip(names, counts, strict=True)),
                fix="choose other edges",
            )
        return bound

    def head(self, features: int) -> nn.Module:
        """A linear layer to the logits of the subclasses, or of the classes where nothing parts them."""
        return nn.Linear(features, len(self.kinds or self.classes))

    def logits(self, outputs: Tensor) -> Tensor:
        """(n, classes) from the head's outputs: of a class, the logarithm of the sum over its subclasses."""
        if not self.parents:
            return outputs
        parents = torch.tensor(self.parents, device=outputs.device)
        each = [torch.logsumexp(outputs[:, parents == c], -1) for c in range(len(self.classes))]
        return torch.stack(each, -1)

    # -- truth --------------------------------------------------------------------------------------------
    def soft(self, truths: Mapping[str, Truth]) -> Tensor:
        """(n, classes) target weights, NaN in the rows without a label."""
        if len(self.targets) > 1:
            given = torch.stack([truths[t].value.float() for t in self.targets], dim=-1)
            return given if self.multilabel else given / given.sum(-1, keepdim=True)  # 0 / 0: no vote, no label
        truth = truths[self.targets[0]]
        return _one_hot(self._codes(truth), len(self.classes))

    def leaves(self, truths: Mapping[str, Truth]) -> Tensor:
        """(n, outputs) target weights of what the head tells apart: of the subclasses, where these are known; NaN in
        the rows without a label. An object of unknown subclass shares them out as its class does."""
        soft = self.soft(truths)
        if not self.parents:
            return soft
        parents = torch.tensor(self.parents, device=soft.device)
        within = torch.tensor(self.shares or (1.0,) * len(self.kinds), device=soft.device)
        within = within / torch.zeros(len(self.classes), device=soft.device).index_add(0, parents, within)[parents]
        told = _one_hot(_matched(truths[self.subclasses], self.kinds), len(self.kinds))
        known = ~torch.isnan(told).any(-1) & ~torch.isnan(soft).any(-1)
        return torch.where(known[:, None], told, soft[:, parents] * within)

    def _codes(self, truth: Truth) -> Tensor:
        """(n,) codes of the classes, -1 without a label."""
        if not self.edges:
            return _matched(truth, self.classes)
        edges = torch.tensor(self.edges, dtype=truth.value.dtype, device=truth.value.device)
        found = torch.bucketize(truth.value, edges, right=True)
        return torch.where(torch.isfinite(truth.value), found, -1)

    def labelled(self, sample: Sample) -> Tensor:
        """(n,) which objects have a label."""
        return ~torch.isnan(self.soft(sample.truth)).any(-1)

    def truth(self, truths: Mapping[str, Truth]) -> np.ndarray:
        """(n,) int64 class codes, -1 without a label; (n, classes) fractions or zeros and ones for several targets."""
        if len(self.targets) > 1:
            return self.soft(truths).numpy()
        return self._codes(truths[self.targets[0]]).numpy()

    # -- loss ---------------------------------------------------------------------------------------------
    def loss(
        self, head: nn.Module, outputs: Tensor, sample: Sample, generator: torch.Generator | None = None
    ) -> Tensor:
        """(n,) cross-entropy [nat]."""
        soft = self.leaves(sample.truth).to(outputs.device)
        has = ~torch.isnan(soft).any(-1)
        soft = torch.where(has[:, None], soft, 0.0)
        prior = torch.tensor(self.prior, device=outputs.device).clamp(RARE, 1 - RARE)
        if self.parents:  # a subclass weighs as its class does
            prior = prior[torch.tensor(self.parents, device=outputs.device)]
        balanced = self.weights == "balanced"
        if self.multilabel:
            logits = outputs - torch.logit(prior) if balanced else outputs
            each = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
            return has * (each * (soft / prior + (1 - soft) / (1 - prior)) / 2 if balanced else each).sum(-1)
        logits = outputs - torch.log(prior) * (balanced + self.evenly) if balanced or self.evenly else outputs
        weight = 1 / (len(self.classes) * prior) if balanced else torch.ones_like(prior)
        soft = soft * (1 - self.smoothing) + self.smoothing / soft.shape[-1] * has[:, None]
        return -(soft * weight * F.log_softmax(logits, -1)).sum(-1)

    def score(self, head: nn.Module, outputs: Tensor, sample: Sample) -> Score:
        """Log loss [nat] of the classes of the labelled objects, unweighted."""
        plain = replace(self, weights="none", evenly=False, smoothing=0.0, subclasses="", kinds=(), parents=())
        has = self.labelled(sample).to(outputs.device)
        return Score("log loss", float(plain.loss(head, self.logits(outputs), sample)[has].mean()))

    # -- answers ------------------------------------------------------------------------------------------
    def distribution(self, outputs: Tensor) -> torch.distributions.Distribution:
        """Categorical over the classes, or one Bernoulli a class."""
        if self.multilabel:
            return torch.distributions.Bernoulli(logits=outputs)
        return torch.distributions.Categorical(logits=self.logits(outputs))

    def _probabilities(self, outputs: Tensor, calibration: Arrays, prior: np.ndarray | None) -> np.ndarray:
        logits = self.logits(outputs.double()).numpy()
        if self.multilabel:
            scale = np.exp(calibration["log_t"]) if "log_t" in calibration else 1.0
            if prior is None:
                return np.asarray(expit(logits / scale))
            old, new = (logit(np.clip(p, RARE, 1 - RARE)) for p in (np.asarray(self.prior), prior))
            return np.asarray(expit(logits / scale + new - old))
        temperature = Temperature.from_arrays(calibration) if "log_t" in calibration else Temperature(np.zeros(1))
        p = temperature.apply(logits)
        return p if prior is None else correct_prior(p, np.asarray(self.prior), prior)

    def answer(
        self, head: nn.Module, outputs: Tensor, calibration: Arrays, keys: np.ndarray, prior: np.ndarray | None = None
    ) -> Arrays:
        """``p_CLASS`` for every class, ``class`` (the likeliest), and the conformal set as ``in_set_CLASS``."""
        p = self._probabilities(outputs, calibration, prior)
        columns: dict[str, np.ndarray] = {f"p_{c}": p[:, i].astype(np.float32) for i, c in enumerate(self.classes)}
        if self.multilabel:
            columns |= {f"is_{c}": p[:, i] > 0.5 for i, c in enumerate(self.classes)}
            return columns
        columns["class"] = np.asarray(self.classes, dtype=object)[p.argmax(1)]
        if "threshold" in calibration:
            # the sets were fitted under the training prior: another prior changes p, not what is exchangeable
            fitted = self._probabilities(outputs, calibration, None)
            member = ConformalSet.from_arrays(calibration).apply(fitted)
            columns |= {f"in_set_{c}": member[:, i] for i, c in enumerate(self.classes)}
        return columns

    def outputs(self) -> Mapping[str, Output]:
        """Columns with UCDs; probabilities have no unit."""
        table = {
            f"p_{c}": Output(ucd="stat.probability;src.class", description=f"probability of {c}") for c in self.classes
        }
        if self.multilabel:
            return table | {
                f"is_{c}": Output(ucd="src.class", description=f"{c}: probability above 0.5") for c in self.classes
            }
        table["class"] = Output(ucd="src.class", description="the likeliest class")
        words = "{} is in the conformal set at the model's level"
        return table | {
            f"in_set_{c}": Output(ucd="meta.code;src.class", description=words.format(c)) for c in self.classes
        }

    def calibrate(self, head: nn.Module, outputs: Tensor, sample: Sample, level: float) -> Arrays | None:
        """A temperature on one half of the objects (by key), a conformal threshold on the other. Several labels at once
        have a temperature each; fractions of votes are left as they are."""
        has = self.labelled(sample).numpy()
        if has.sum() < 20 or (len(self.targets) > 1 and not self.multilabel):
            return None
        if self.multilabel:
            x, y = outputs.double().numpy()[has], self.soft(sample.truth).numpy()[has] > 0.5
            return {"log_t": np.array([Temperature.fit(x[:, i], y[:, i]).log_t[0] for i in range(len(self.classes))])}
        codes = self.truth(sample.truth)[has]
        logits = self.logits(outputs.double()).numpy()[has]
        half = (sample.key.numpy()[has].view(np.uint64) >> np.uint64(33)) % np.uint64(2) == 0
        if min(half.sum(), (~half).sum()) < 10:
            half = np.arange(len(codes)) % 2 == 0
        temperature = Temperature.fit(logits[half], codes[half])
        sets = ConformalSet.fit(temperature.apply(logits[~half]), codes[~half], level=level)
        return {**temperature.arrays(), **sets.arrays()}


def _one_hot(codes: Tensor, n: int) -> Tensor:
    """(m, n) float, NaN in the rows of a code -1."""
    return torch.where((codes >= 0)[:, None], F.one_hot(codes.clamp(min=0), n).float(), torch.nan)


def _shares(soft: Tensor) -> tuple[float, ...]:
    return tuple(round(float(s), 8) for s in torch.nanmean(soft, 0))


def _matched(truth: Truth, classes: tuple[str, ...]) -> Tensor:
    """(n,) places of the labels among `classes`, by their names; -1 for none of them."""
    places = {name: i for i, name in enumerate(classes)}
    if truth.classes:
        table = torch.tensor([*(places.get(c, -1) for c in truth.classes), -1])
        return table.to(truth.value.device)[truth.value]
    return torch.tensor([places.get(_word(v), -1) for v in truth.value.tolist()], device=truth.value.device)


def _word(value: object) -> str:
    """A label as text: 3.0 is "3", missing is ""."""
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _natural(word: str) -> tuple[int, float, str]:
    """Numbers by value and before words."""
    try:
        return (0, float(word), word)
    except ValueError:
        return (1, 0.0, word)
