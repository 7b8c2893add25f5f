"""Densities over standardised targets z, as heads: features -> outputs -> a distribution of z."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import zuko
from torch import Tensor, nn
from torch.nn import functional as F

# Levels of the quantiles that a catalogue keeps: dense enough for PIT and CRPS, wide enough for 99% intervals.
LEVELS: tuple[float, ...] = (0.005, 0.01, 0.025, *(round(0.05 * i, 2) for i in range(1, 20)), 0.975, 0.99, 0.995)

SHIFT, FLOOR = 0.54, 1e-4  # of a mixture's sigmas: one at an output of zero, and never nothing


class Density(nn.Module, ABC):
    """A head whose outputs are the parameters of a density over z, (n, d)."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """(n, features) -> (n, outputs)."""

    @abstractmethod
    def log_prob(
        self, outputs: Tensor, z: Tensor, sigma: Tensor | None, limit: Tensor | None, g: torch.Generator
    ) -> Tensor:
        """(n,) log density of z, convolved with the truth's error `sigma` (n, d); where `limit` (n, d) is -1 or +1, the
        probability that the value lies below or above z."""

    @abstractmethod
    def quantiles(self, outputs: Tensor, levels: Tensor) -> Tensor:
        """(n, d, levels) quantiles of the marginal of every target."""


class Mixture(Density):
    """Gaussian mixture with diagonal components (a mixture density network, Bishop 1994)."""

    def __init__(self, features: int, targets: int, components: int) -> None:
        super().__init__()
        self.targets, self.components = targets, components
        self.linear = nn.Linear(features, components * (1 + 2 * targets))
        with torch.no_grad():  # spread the means, so that the components do not all start as one
            spread = torch.linspace(-1.5, 1.5, components) if components > 1 else torch.zeros(1)
            self.linear.bias.zero_()
            self.linear.bias[components : components * (1 + targets)] = spread.repeat_interleave(targets)

    def forward(self, features: Tensor) -> Tensor:
        """(n, components * (1 + 2 d)): log weights, means, log sigmas."""
        x: Tensor = self.linear(features)
        return x

    def parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights (n, k), means (n, k, d) and sigmas (n, k, d)."""
        return mixture_parts(outputs, self.targets)

    def log_prob(
        self, outputs: Tensor, z: Tensor, sigma: Tensor | None, limit: Tensor | None, g: torch.Generator
    ) -> Tensor:
        """See `Density.log_prob`; exact, and a NaN in z leaves that target out."""
        log_w, mean, scale = self.parts(outputs)
        if sigma is not None:
            scale = torch.sqrt(scale**2 + sigma[:, None, :] ** 2)
        known = ~torch.isnan(z)
        u = (torch.where(known, z, 0.0)[:, None, :] - mean) / scale
        each = -0.5 * u**2 - torch.log(scale) - 0.5 * math.log(2 * math.pi)
        if limit is not None:
            each = torch.where(limit[:, None, :] < 0, torch.special.log_ndtr(u), each)
            each = torch.where(limit[:, None, :] > 0, torch.special.log_ndtr(-u), each)
        return torch.logsumexp(log_w + torch.where(known[:, None, :], each, 0.0).sum(-1), -1)

    def quantiles(self, outputs: Tensor, levels: Tensor) -> Tensor:
        """See `Density.quantiles`; by bisection on the marginal's distribution function, to 2e-6 sigma."""
        log_w, mean, scale = self.parts(outputs)
        w = log_w.exp()[:, :, None, None]
        mean, scale = mean[..., None], scale[..., None]
        low = (mean - 6 * scale).amin(1).expand(-1, -1, len(levels)).clone()
        high = (mean + 6 * scale).amax(1).expand(-1, -1, len(levels)).clone()
        for _ in range(32):
            middle = (low + high) / 2
            below = (w * torch.special.ndtr((middle[:, None] - mean) / scale)).sum(1) < levels
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


def mixture_parts(outputs: Tensor, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log weights (n, k), means (n, k, d) and sigmas (n, k, d) of a mixture over d numbers, of any number of
    components: answers to several views of an image, put together, have more than the head gives."""
    k = outputs.shape[-1] // (1 + 2 * d)
    log_w = F.log_softmax(outputs[:, :k], -1)
    mean = outputs[:, k : k * (1 + d)].reshape(-1, k, d)
    return log_w, mean, F.softplus(outputs[:, k * (1 + d) :].reshape(-1, k, d) + SHIFT) + FLOOR


def mixture_outputs(log_w: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """(n, k * (1 + 2 d)): what `mixture_parts` takes apart."""
    over = (sigma - FLOOR).clamp(min=1e-6)
    raw = over + torch.log(-torch.expm1(-over)) - SHIFT  # the inverse of softplus, without overflow
    return torch.cat([log_w, mean.flatten(1), raw.flatten(1)], 1)


class Flow(Density):
    """Neural spline flow (Durkan+2019) conditioned on the features, from zuko."""

    draws, noise_draws = 256, 8

    def __init__(self, features: int, targets: int, transforms: int = 3, hidden: int = 64) -> None:
        super().__init__()
        self.targets = targets
        self.context = nn.Linear(features, hidden)
        self.flow = zuko.flows.NSF(targets, context=hidden, transforms=transforms, hidden_features=(hidden, hidden))

    def forward(self, features: Tensor) -> Tensor:
        """(n, hidden) the flow's context."""
        return F.silu(self.context(features))

    def log_prob(
        self, outputs: Tensor, z: Tensor, sigma: Tensor | None, limit: Tensor | None, g: torch.Generator
    ) -> Tensor:
        """See `Density.log_prob`; the convolution is a mean over `noise_draws` draws of the truth's error."""
        distribution, z = self.flow(outputs), torch.nan_to_num(z)
        if sigma is not None and bool((sigma > 0).any()):
            z = z + sigma * torch.randn((self.noise_draws, *z.shape), generator=g, device=z.device)
        found: Tensor = distribution.log_prob(z) if limit is None else self._censored(distribution, z, limit)
        return found if found.ndim == 1 else torch.logsumexp(found, 0) - math.log(self.noise_draws)

    def _censored(self, distribution: torch.distributions.Distribution, z: Tensor, limit: Tensor) -> Tensor:
        """One target only: there the transform is monotone and gives the distribution function itself."""
        u, ladj = distribution.transform.call_and_ladj(z)  # type: ignore[attr-defined]
        rising = torch.sign(self._slope(distribution, z))
        measured: Tensor = distribution.base.log_prob(u) + ladj  # type: ignore[attr-defined]
        side = -limit[:, 0] * rising[..., 0]
        return torch.where(limit[:, 0] == 0, measured, torch.special.log_ndtr(side * u[..., 0]))

    @staticmethod
    def _slope(distribution: torch.distributions.Distribution, z: Tensor) -> Tensor:
        edge = torch.full_like(z, 4.0)
        slope: Tensor = distribution.transform(edge) - distribution.transform(-edge)  # type: ignore[attr-defined]
        return slope

    def quantiles(self, outputs: Tensor, levels: Tensor) -> Tensor:
        """See `Density.quantiles`; one target by inverting the transform, several from `draws` samples."""
        distribution = self.flow(outputs)
        if self.targets == 1:
            base = torch.special.ndtri(levels)[:, None, None].expand(-1, len(outputs), 1)
            z: Tensor = distribution.transform.inv(base.to(outputs.dtype))
            return z.permute(1, 2, 0).sort(-1).values
        # The same draws for every object: its answer does not depend on what stands beside it in a batch. A Sobol
        # sequence fills the plane evenly: its quantiles scatter a third as much as those of independent draws.
        sobol = torch.quasirandom.SobolEngine(self.targets, scramble=True, seed=0)  # type: ignore[no-untyped-call]
        points = sobol.draw(self.draws)
        base = (
            torch.special.ndtri(points.clamp(1e-6, 1 - 1e-6)).to(outputs.device)[:, None].expand(-1, len(outputs), -1)
        )
        drawn: Tensor = distribution.transform.inv(base)
        return torch.quantile(drawn, levels.to(drawn.dtype), dim=0).permute(1, 2, 0)
