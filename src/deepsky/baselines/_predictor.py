"""Features and family as one module: images or rows in, a distribution out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from deepsky import registry
from deepsky.baselines._family import Family
from deepsky.baselines._features import extract
from deepsky.errors import ContractError


@final
class ClassicalPredictor(nn.Module):
    """(flux, ivar) -> the outputs of a classical family, from features by name.

    Attributes
    ----------
    name : of the family; `features_name` of the features.
    shape : of one observation, (band, y, x) or (feature,).
    noise : "unknown" if ivar is only a mask.
    components : principal components that the family sees, or 0 for the features themselves.
    width : number of features.
    """

    typical: Tensor
    centre: Tensor
    scale: Tensor
    basis: Tensor

    def __init__(
        self,
        name: str,
        features_name: str,
        shape: tuple[int, ...],
        noise: str,
        arrays: Mapping[str, Tensor],
        family: Family,
    ) -> None:
        super().__init__()
        self.name, self.features_name, self.shape, self.noise = name, features_name, shape, noise
        self.width, self.components = len(arrays["typical"]), len(arrays["basis"])
        for key, value in arrays.items():
            self.register_buffer(key, value)
        self.family = family

    @torch.no_grad()
    def features(self, flux: Tensor, ivar: Tensor) -> Tensor:
        """(n, features) finite: what was not measured is the mean of the training objects; or their components.

        Raises
        ------
        ContractError : observations of another shape than those of the training objects.
        """
        if tuple(flux.shape[1:]) != self.shape:
            raise ContractError(
                "observations of another shape than the features were fitted on",
                found=tuple(flux.shape[1:]),
                expected=self.shape,
            )
        found = extract(self.features_name, flux, ivar, self.noise)  # type: ignore[arg-type]
        return project(found, dict(self.named_buffers(recurse=False)))

    @torch.no_grad()
    def forward(self, flux: Tensor, ivar: Tensor) -> Tensor:
        """(n, outputs): see `deepsky.baselines._family.Family`."""
        return cast(Tensor, self.family(self.features(flux, ivar)))

    def config(self) -> dict[str, Any]:
        """JSON literals from which, with the state, `from_config` makes it again."""
        return {
            "name": self.name,
            "features": self.features_name,
            "shape": list(self.shape),
            "noise": self.noise,
            "width": self.width,
            "components": self.components,
            "family": self.family.config(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ClassicalPredictor:
        """Make it again, its arrays empty: load the state into it.

        Raises
        ------
        InputError : a family that is not known.
        """
        width, components = config["width"], config["components"]
        family = registry.find("baselines", config["name"]).from_config(config["family"])
        shape = tuple(config["shape"])
        return cls(config["name"], config["features"], shape, config["noise"], empty(width, components), family)


def empty(width: int, components: int) -> dict[str, Tensor]:
    """The buffers before they are filled."""
    return {
        "typical": torch.zeros(width),
        "centre": torch.zeros(width if components else 0),
        "scale": torch.ones(width if components else 0),
        "basis": torch.zeros(components, width if components else 0),
    }


def project(found: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
    """Extracted features as a family sees them: finite, and as components where there are any."""
    found = torch.where(torch.isfinite(found), found, arrays["typical"])
    return ((found - arrays["centre"]) / arrays["scale"]) @ arrays["basis"].T if len(arrays["basis"]) else found


def fitted(found: Tensor, components: int) -> dict[str, Tensor]:
    """Means that stand in for what was not measured, and principal components of the standardised features."""
    known = torch.isfinite(found)
    count = known.sum(0).clamp(min=1)
    typical = (torch.where(known, found, 0.0).double().sum(0) / count).float()
    filled = torch.where(known, found, typical)
    arrays = empty(found.shape[1], min(components, found.shape[1], len(found)))
    arrays["typical"] = typical
    if components:
        scale = filled.double().std(0, correction=0).float()
        arrays["centre"], arrays["scale"] = typical.clone(), torch.where(scale > 0, scale, 1.0)
        z = ((filled - typical) / arrays["scale"]).double()
        vectors = torch.linalg.eigh(z.T @ z / len(z)).eigenvectors.flip(1).T
        arrays["basis"] = vectors[: len(arrays["basis"])].float().contiguous()
    return arrays
