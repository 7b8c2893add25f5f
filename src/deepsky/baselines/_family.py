"""What every classical family is: fitted arrays as buffers, and one layout of outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast, final

import torch
from torch import Tensor, nn

from deepsky.errors import InputError

Kind = Literal["classes", "multilabel", "values"]
Literals = Mapping[str, int | float | str]
FLOOR = 1e-6  # of a probability, so that its logarithm is finite
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "int32": torch.int32, "int64": torch.int64}


class Family(nn.Module, ABC):
    """Frozen arrays that map features to the parameters of a distribution.

    The outputs (float32) are, for "classes", the log-probability of every class; for "multilabel", the log-odds of
    every label; for "values", the values of all targets and then the logarithms of their standard deviations.
    """

    kind: Kind
    outputs: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(n, features), NaN where unknown -> (n, outputs), or (n, 2 * targets)."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """JSON literals from which, with the state, `from_config` makes it again."""


class Frozen(Family, ABC):
    """One fitted estimator. Of its buffers ``typical`` stands in for an unknown feature, ``centre`` and ``scale``
    standardise; for classes ``seen`` are the codes that the training truth held and ``prior`` their shares; for values
    ``sigma`` is the spread of the held-out residuals.

    Parameters
    ----------
    outputs : classes, or targets.
    arrays : the buffers.
    literals : numbers and words that `raw` needs. ``shrink`` is the share of the prior in the probabilities.
    """

    name: ClassVar[str]
    typical: Tensor
    centre: Tensor
    scale: Tensor
    seen: Tensor
    prior: Tensor
    sigma: Tensor

    def __init__(self, kind: Kind, outputs: int, arrays: Mapping[str, Tensor], literals: Literals) -> None:
        super().__init__()
        self.kind, self.outputs, self.literals = kind, outputs, dict(literals)
        for key, value in arrays.items():
            self.register_buffer(key, value.contiguous())

    @abstractmethod
    def raw(self, x: Tensor) -> Tensor:
        """(n, features) standardised -> (n, seen classes) probabilities, or (n, targets) values."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """See `Family`."""
        x = (torch.where(torch.isfinite(x), x, self.typical) - self.centre) / self.scale
        found = self.raw(x)
        if self.kind == "values":
            return torch.cat([found.float(), self.sigma.log().expand(len(x), -1)], 1)
        shrink = float(self.literals.get("shrink", 0.0))
        p = found.new_zeros(len(x), self.outputs)
        p[:, self.seen] = found * (1 - shrink) + self.prior.to(found.dtype) * shrink
        p = p.clamp(min=FLOOR)
        return (p / p.sum(1, keepdim=True)).log().float()

    def config(self) -> dict[str, Any]:
        """See `Family`."""
        arrays = {k: [str(v.dtype).removeprefix("torch."), *v.shape] for k, v in self.named_buffers()}
        return {
            "type": self.name,
            "kind": self.kind,
            "outputs": self.outputs,
            "arrays": arrays,
            "literals": self.literals,
        }


@final
class Columns(Family):
    """One member a label or target: one against the rest, or families that know only one value."""

    def __init__(self, kind: Kind, members: list[Family]) -> None:
        super().__init__()
        self.kind, self.outputs = kind, len(members)
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """See `Family`."""
        found = torch.stack([m(x) for m in self.members], 1)  # (n, member, 2)
        if self.kind == "multilabel":
            return found[..., 1] - found[..., 0]
        return found.transpose(1, 2).flatten(1)

    def config(self) -> dict[str, Any]:
        """See `Family`."""
        return {
            "type": "columns",
            "kind": self.kind,
            "members": [cast(Family, m).config() for m in self.members],
        }


@final
class Constant(Frozen):
    """The shares of the classes, or the mean, whatever is observed."""

    name = "constant"
    value: Tensor

    def raw(self, x: Tensor) -> Tensor:
        """See `Frozen.raw`."""
        return self.value.expand(len(x), -1)


def rebuild(config: Mapping[str, Any], *types: type[Frozen]) -> Family:
    """Make a family again from its `config`, its arrays empty: load the state into it.

    Raises
    ------
    InputError : a type or a kind of array that this family does not have.
    """
    if config["type"] == "columns":
        return Columns(config["kind"], [rebuild(c, *types) for c in config["members"]])
    choice: tuple[type[Frozen], ...] = (*types, Constant)
    known = {t.name: t for t in choice}
    if config["type"] not in known:
        raise InputError("not a member of this family", found=config["type"], known=known)
    arrays = {}
    for name, (dtype, *shape) in config["arrays"].items():
        if dtype not in _DTYPES:
            raise InputError("no such kind of array", found=dtype, known=_DTYPES)
        arrays[name] = torch.zeros(shape, dtype=_DTYPES[dtype])
    return known[config["type"]](config["kind"], config["outputs"], arrays, config["literals"])
