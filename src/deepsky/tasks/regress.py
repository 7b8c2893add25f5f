"""Regress: a full posterior of one or several numbers, as a Gaussian mixture or a neural spline flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn

from deepsky.augment import dihedral
from deepsky.calibration import ConformalPIT
from deepsky.errors import InputError
from deepsky.metrics.distributions import pit_quantiles, quantile_at
from deepsky.sample import MOVES, Moves, Sample, Truth
from deepsky.survey import Survey
from deepsky.task import Arrays, Output, Score, Task
from deepsky.tasks._densities import LEVELS, Density, Flow, Mixture, mixture_outputs, mixture_parts

SPINS = {"vector": 1, "spin2": 2}


@dataclass(frozen=True)
class Regress(Task):
    """A posterior over numbers.

    Parameters
    ----------
    targets : truth or label columns; a truth with several components (e.g. an ellipticity) counts as several numbers.
    density : "mixture" of `components` Gaussians, "gaussian" (a mixture of one), or "flow" (neural spline flow).
    log : names of the targets whose logarithm is learnt; they must be positive.
    limits : ((name, low, high), ...) of targets that cannot leave a range; learnt through a logit.
    moves : how undeclared label columns turn with the image: "scalar" for a redshift, "spin2", "vector", ...
    names, units, centre, scale, turns : learnt from the training fold: one of each a number.

    Notes
    -----
    Truth with errors: the density is convolved with them. Censored truth (a limit): the probability beyond it.
    """

    name: ClassVar[str] = "regress"
    targets: tuple[str, ...] | str = ()  # type: ignore[assignment]
    density: str = "mixture"
    components: int = 5
    log: tuple[str, ...] | str = ()
    limits: tuple[tuple[str, float, float], ...] = ()
    moves: Moves | str = ""
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    centre: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    turns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("targets", "log"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))
        first: object = next(iter(self.limits), ())
        if isinstance(first, str):  # one target alone: ("z", 0, 5)
            object.__setattr__(self, "limits", (self.limits,))
        known = ("mixture", "gaussian", "flow")
        if self.density not in known:
            raise InputError("no such density", found=self.density, known=known)
        if self.components < 1:
            raise InputError("a mixture has one component or more", found=self.components)
        if self.moves and self.moves not in MOVES:
            raise InputError("no such behaviour under rotation", found=self.moves, known=MOVES)
        for limit in self.limits:
            if len(limit) != 3 or not float(limit[1]) < float(limit[2]):
                raise InputError("a limit is a name, a low and a high end", found=limit, expected="(name, low, high)")

    # -- binding ------------------------------------------------------------------------------------------
    def bind(self, survey: Survey) -> Self:
        """Learn names, units, centre and scale of the numbers; see `Task.bind`."""
        truths = {t: survey.truth(t) for t in self.targets}
        if not truths:
            raise InputError("a regression needs a target", fix="name a column of numbers: --target COLUMN")
        names: list[str] = []
        units: list[str] = []
        turns: list[str] = []
        for target, truth in truths.items():
            if truth.classes:
                raise InputError(
                    "a regression needs numbers",
                    file=survey.path,
                    keyword=target,
                    found=f"text such as {truth.classes[0]!r}",
                    fix="use --task classify",
                )
            parts = survey.schema.columns[target].parts or (target,)
            if truth.value.reshape(len(truth.value), -1).shape[1] != len(parts):
                raise InputError("a regression answers numbers, not arrays", file=survey.path, keyword=target,
                                 found=f"{tuple(truth.value.shape[1:])} for each object")  # fmt: skip
            names += parts
            units += [truth.unit] * len(parts)
            turns += [self.moves if self.moves and truth.moves == "fixed" else truth.moves] * len(parts)
        for name in [*self.log, *(n for n, _, _ in self.limits)]:
            if name not in names:
                raise InputError("log or limits of something that is no target", found=name, known=names)
        bound = replace(self, names=tuple(names), units=tuple(units), turns=tuple(turns),
                        centre=(0.0,) * len(names), scale=(1.0,) * len(names))  # fmt: skip
        whole = survey.whole or survey  # a bad value in another fold would only show hours later
        values, sigma, limit = _values({t: whole.truth(t) for t in self.targets}, self.targets)
        for i, name in enumerate(names):
            self._check(name, values[:, i].numpy(), survey)
            self._check_errors(name, sigma, limit, i, survey)
        y = _values(truths, self.targets)[0].numpy()
        u = bound._inner(torch.from_numpy(y)).numpy()
        centre, scale = np.nanmean(u, 0), np.nanstd(u, 0)
        if not (scale > 0).all():
            name = names[int(np.argmin(scale))]
            raise InputError(
                "every object has the same value", file=survey.path, keyword=name, found=y[0, names.index(name)]
            )
        return replace(bound, centre=tuple(map(float, centre)), scale=tuple(map(float, scale)))

    def _check(self, name: str, y: np.ndarray, survey: Survey) -> None:
        finite = y[np.isfinite(y)]
        if len(finite) < 2:
            raise InputError("fewer than two objects have a value", file=survey.path, keyword=name, found=len(finite))
        if np.isinf(y).any():
            raise InputError("infinite values", file=survey.path, keyword=name, found=int(np.isinf(y).sum()))
        if name in self.log and finite.min() <= 0:
            raise InputError(
                "a logarithm needs positive values", file=survey.path, keyword=name, found=float(finite.min())
            )
        for _, low, high in (x for x in self.limits if x[0] == name):
            if finite.min() < low or finite.max() > high:
                raise InputError(
                    "values outside the declared limits",
                    file=survey.path,
                    keyword=name,
                    found=f"{finite.min():g} to {finite.max():g}",
                    expected=f"{low:g} to {high:g}",
                )

    def _check_errors(self, name: str, sigma: Tensor | None, limit: Tensor | None, i: int, survey: Survey) -> None:
        given: dict[str, Any] = {"file": survey.path, "keyword": name}
        if sigma is not None and bool((torch.isinf(sigma[:, i]) | (sigma[:, i] < 0)).any()):
            raise InputError("errors that are no standard deviations", expected="finite, 0 or more", **given)
        codes = np.zeros(1) if limit is None else np.unique(np.nan_to_num(limit[:, i].numpy()))
        if not np.isin(codes, (-1, 0, 1)).all():
            words = "limits are told by -1 (below), 0 (measured) and +1 (above)"
            raise InputError(words, found=codes[:5].tolist(), **given)
        if self.density == "flow" and len(self.names or self.targets) > 1 and limit is not None and limit.any():
            raise InputError("a flow of several numbers cannot use limits", fix='density="mixture"', **given)

    def head(self, features: int) -> Density:
        """A density over the standardised numbers."""
        if self.density == "flow":
            return Flow(features, len(self.names))
        return Mixture(features, len(self.names), 1 if self.density == "gaussian" else self.components)

    # -- y (physical) <-> z (standardised) ----------------------------------------------------------------
    def _inner(self, y: Tensor) -> Tensor:
        columns = list(y.unbind(-1))
        for i, name in enumerate(self.names):
            if name in self.log:
                columns[i] = torch.log(columns[i])
            for _, low, high in (x for x in self.limits if x[0] == name):
                columns[i] = torch.logit((columns[i] - low) / (high - low), eps=1e-5)
        return torch.stack(columns, -1)

    def _outer(self, z: np.ndarray) -> np.ndarray:
        """(n, d, levels) z -> y; every transform rises, so quantiles stay quantiles."""
        return np.stack([self._one(i, z[:, i]) for i in range(len(self.names))], axis=1)

    def _one(self, i: int, z: np.ndarray) -> np.ndarray:
        """Values of number i, of any shape, z -> y."""
        u: np.ndarray = z * self.scale[i] + self.centre[i]
        name = self.names[i]
        if name in self.log:
            u = np.exp(u)
        for _, low, high in (x for x in self.limits if x[0] == name):
            u = low + (high - low) * expit(u)
        return u

    def _slope(self, y: Tensor) -> Tensor:
        """(n, d) dz/dy, by which an error of the truth is carried over."""
        slope = torch.ones_like(y)
        for i, name in enumerate(self.names):
            if name in self.log:
                slope[:, i] = 1 / y[:, i]
            for _, low, high in (x for x in self.limits if x[0] == name):
                f = ((y[:, i] - low) / (high - low)).clamp(1e-5, 1 - 1e-5)
                slope[:, i] = 1 / (f * (1 - f) * (high - low))
        return slope / torch.tensor(self.scale, dtype=y.dtype)

    def standard(self, sample: Sample) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(n, numbers) standardised truth, its error and its limits."""
        y, sigma, limit = _values(sample.truth, self.targets)
        y = y.cpu()
        scale, centre = torch.tensor(self.scale, dtype=y.dtype), torch.tensor(self.centre, dtype=y.dtype)
        z = (self._inner(y) - centre) / scale
        return z.float(), None if sigma is None else (sigma.cpu() * self._slope(y)).float(), limit

    def declared(self, sample: Sample) -> Sample:
        """The batch with `moves` for truths that the survey leaves undeclared."""
        if not self.moves:
            return sample
        moves = cast(Moves, self.moves)
        told = {n: replace(t, moves=moves) if t.moves == "fixed" else t for n, t in sample.truth.items()}
        return replace(sample, truth=told)

    # -- contract -----------------------------------------------------------------------------------------
    def labelled(self, sample: Sample) -> Tensor:
        """(n,) which objects have every number."""
        return ~torch.isnan(_values(sample.truth, self.targets)[0]).any(-1)

    def truth(self, truths: Mapping[str, Truth]) -> np.ndarray:
        """(n, numbers) float64 values."""
        found: np.ndarray = _values(truths, self.targets)[0].numpy()
        return found

    def loss(
        self, head: nn.Module, outputs: Tensor, sample: Sample, generator: torch.Generator | None = None
    ) -> Tensor:
        """(n,) negative log density of the standardised truth [nat]."""
        assert isinstance(head, Density)
        z, sigma, limit = self.standard(sample)
        has = (~torch.isnan(z)).any(-1)
        device, g = outputs.device, generator or torch.Generator().manual_seed(0)
        sigma, limit = (None if t is None else torch.nan_to_num(t).to(device) for t in (sigma, limit))
        if self.density == "flow":  # a flow has no marginal to fall back on: it needs every number
            has = (~torch.isnan(z)).all(-1)
            if limit is not None and len(self.names) > 1:
                raise InputError("a flow of several numbers cannot use limits", fix='density="mixture"')
        return -head.log_prob(outputs, z.to(device), sigma, limit, g) * has.to(device)

    def score(self, head: nn.Module, outputs: Tensor, sample: Sample) -> Score:
        """Negative log density [nat] of the standardised truth, over objects that have one."""
        has = self.labelled(sample).to(outputs.device)
        return Score("-log p", float(self.loss(head, outputs, sample)[has].mean()))

    def _quantiles(self, head: nn.Module, outputs: Tensor) -> np.ndarray:
        """(n, d, LEVELS) of the standardised numbers."""
        assert isinstance(head, Density)
        levels = torch.tensor(LEVELS, device=outputs.device)
        with torch.no_grad():  # in blocks: a quantile of many draws takes memory
            z = torch.cat([head.quantiles(part, levels) for part in torch.split(outputs.float(), 512)])
        found: np.ndarray = np.sort(z.double().cpu().numpy(), axis=-1)  # bisection ends within rounding
        return found

    def answer(
        self, head: nn.Module, outputs: Tensor, calibration: Arrays, keys: np.ndarray, prior: np.ndarray | None = None
    ) -> Arrays:
        """For every number t: ``t`` (median), ``t_p16``, ``t_p84``, ``t_quantiles`` at `LEVELS`, and, once calibrated,
        the conformal interval ``t_lo``, ``t_hi``."""
        if prior is not None:
            raise InputError(
                "a prevalence is a matter of classes", found=prior, fix="leave prevalence out for a regression"
            )
        z = self._quantiles(head, outputs)
        ends = ConformalPIT.from_arrays(calibration).levels() if "reach" in calibration else None
        columns: dict[str, np.ndarray] = {}
        y = self._outer(z)
        for i, name in enumerate(self.names):
            # levels between the stored ones: before the transform, where a posterior is closest to a Gaussian
            at = (0.5, 0.16, 0.84, *(() if ends is None else ends[i]))
            middle, low, high, *interval = self._one(i, quantile_at(LEVELS, z[:, i], at)).T
            columns |= {name: middle, f"{name}_p16": low, f"{name}_p84": high}
            columns[f"{name}_quantiles"] = y[:, i].astype(np.float32)
            if interval:
                columns |= {f"{name}_lo": interval[0], f"{name}_hi": interval[1]}
        return columns

    # -- several views of one image -----------------------------------------------------------------------
    def check_views(self, turning: Mapping[str, str]) -> None:
        """Mixtures can be pooled, of numbers that stay, of vectors and of ellipticities; see `Task.check_views`."""
        if self.density == "flow":
            raise InputError("the answers of a flow cannot be averaged over views of an image", keyword="views",
                             fix='density="mixture", or views=1')  # fmt: skip
        for name, turn in turning.items():
            if turn not in SPINS:
                raise InputError("an answer that cannot be turned back with the image", keyword=name, found=turn,
                                 expected=", ".join(["scalar", *SPINS]), fix="views=1")  # fmt: skip
        bent = {*self.log, *(name for name, _, _ in self.limits)}
        for name, turn in zip(self.names, self.turns, strict=True):
            if turn in SPINS and name in bent:
                raise InputError("what is learnt through a logarithm or between limits cannot be turned back",
                                 keyword=name, found=turn, fix="views=1")  # fmt: skip

    def pooled(self, outputs: Sequence[Tensor], elements: Sequence[int]) -> Tensor:
        """The mixture of all views' mixtures, each turned back."""
        centre, scale = (torch.tensor(v, dtype=outputs[0].dtype, device=outputs[0].device)
                         for v in (self.centre, self.scale))  # fmt: skip
        parts = []
        for made, element in zip(outputs, elements, strict=True):
            log_w, mean, sigma = mixture_parts(made, len(self.names))
            back = self._back(element).to(scale)
            mean = ((mean * scale + centre) @ back.T - centre) / scale
            parts.append((log_w, mean, (sigma * scale) @ back.abs().T / scale))
        log_w, mean, sigma = (torch.cat(list(part), 1) for part in zip(*parts, strict=True))
        return mixture_outputs(log_w, mean, sigma)

    def _back(self, element: int) -> Tensor:
        """(d, d) what turns the numbers back from a view of the image; turns by 90 degrees swap and change signs."""
        turn = dihedral.turn_of(np.array([element]))
        matrix, at = torch.eye(len(self.names), dtype=torch.float64), 0
        while at < len(self.names):
            spin = SPINS.get(self.turns[at], 0)
            if spin:
                matrix[at : at + 2, at : at + 2] = turn.matrix(spin)[0].T  # orthogonal: its transpose undoes it
            at += 2 if spin else 1
        return matrix

    def outputs(self) -> Mapping[str, Output]:
        """Columns with the units of the truth."""
        table = {}
        for name, unit in zip(self.names, self.units, strict=True):
            table[name] = Output(unit, "stat.value;stat.median", f"median of the posterior of {name}")
            table[f"{name}_p16"] = Output(unit, "stat.value;stat.min", "16% quantile")
            table[f"{name}_p84"] = Output(unit, "stat.value;stat.max", "84% quantile")
            table[f"{name}_quantiles"] = Output(unit, "stat.value", f"quantiles at {', '.join(map(str, LEVELS))}")
            table[f"{name}_lo"] = Output(unit, "stat.confidenceLevel;stat.min", "low end of the conformal interval")
            table[f"{name}_hi"] = Output(unit, "stat.confidenceLevel;stat.max", "high end of the conformal interval")
        return table

    def calibrate(self, head: nn.Module, outputs: Tensor, sample: Sample, level: float) -> Arrays | None:
        """How far, in normal scores of the posterior, a central interval must reach to hold `level` of new objects
        for every number (split conformal prediction on the PIT)."""
        has = self.labelled(sample).numpy()
        if has.sum() < 20:
            return None
        q = self._quantiles(head, outputs[torch.from_numpy(has)])
        z = self.standard(sample)[0].double().numpy()[has]
        u = np.stack([pit_quantiles(LEVELS, q[:, i], z[:, i]) for i in range(len(self.names))], axis=1)
        return ConformalPIT.fit(u, level).arrays()


def _values(truths: Mapping[str, Truth], targets: tuple[str, ...] | str) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Values, errors and limits (n, d) of all targets, in their order."""

    def joined(name: str) -> Tensor | None:
        parts = [(truths[t], getattr(truths[t], name)) for t in targets]
        if all(p is None for _, p in parts):
            return None
        each = [torch.zeros_like(t.value) if p is None else p for t, p in parts]
        return torch.cat([p.reshape(len(p), -1).double() for p in each], dim=1)

    values = joined("value")
    assert values is not None
    return values, joined("sigma"), joined("limit")
