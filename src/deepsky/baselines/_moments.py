"""Adaptive moments (Bernstein & Jarvis 2002, Hirata & Seljak 2003): the Gaussian weight that fits the object itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deepsky.baselines._images import Pixels

NAMES = ("e1", "e2", "log_sigma", "rho4", "log_snr", "x", "y", "found")


@dataclass(frozen=True, eq=False)
class Moments:
    """Adaptive moments of n objects, each (n,); NaN where the iteration found nothing.

    Attributes
    ----------
    e1, e2 : distortion (a^2 - b^2) / (a^2 + b^2) in the pixel frame, e2 > 0 along the diagonal y = x.
    sigma : fourth root of the determinant of the weight's covariance [pixel].
    x, y : centre [pixel] from the image's centre.
    rho4 : weighted mean of the fourth power of the elliptical radius; 2 for a Gaussian.
    amplitude : flux of the Gaussian that fits best, in the unit of the image.
    converged : bool.
    """

    e1: Tensor
    e2: Tensor
    sigma: Tensor
    x: Tensor
    y: Tensor
    rho4: Tensor
    amplitude: Tensor
    converged: Tensor


def adaptive_moments(images: Tensor, guess: float = 3.0, iterations: int = 150, tolerance: float = 1e-5) -> Moments:
    """Moments under an elliptical Gaussian weight whose centre and covariance are those of the object.

    Parameters
    ----------
    images : (n, y, x), sky subtracted, the object near the middle. float64 images are measured in float64.
    guess : first sigma of the weight [pixel].
    iterations, tolerance : at most so many, until no number changes by more than this share of sigma.

    Notes
    -----
    The fixed point is the one of ``galsim.hsm.FindAdaptiveMom``: weighted centroid = centre, weighted covariance = half
    the weight's. Objects that are done leave the batch, so that a slow one does not hold up the rest. An object whose
    weight shrinks below 0.3 pixel, grows beyond the image, leaves it or has no flux is not found.
    """
    n, h, w = images.shape
    y = (torch.arange(h, dtype=images.dtype, device=images.device) - (h - 1) / 2)[:, None].expand(h, w).reshape(-1)
    x = (torch.arange(w, dtype=images.dtype, device=images.device) - (w - 1) / 2)[None, :].expand(h, w).reshape(-1)
    basis = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])
    flat = images.flatten(1)
    state = images.new_tensor([0.0, 0.0, guess**2, 0.0, guess**2]).repeat(n, 1)  # x, y, xx, xy, yy of the weight
    final = torch.full_like(state, torch.nan)
    done = torch.zeros(n, dtype=torch.bool, device=images.device)
    rows = torch.arange(n, device=images.device)
    size = min(h, w) / 2
    past: tuple[Tensor, Tensor] | None = None
    for k in range(iterations):
        plain = _step(flat, basis, state)
        new = _accelerated(state, plain, past)
        past = state, plain
        change = (plain - state).abs()
        scale = _sigma(state).clamp(min=1e-6)
        moved = torch.maximum(change[:, :2].amax(1) / scale, change[:, 2:].amax(1) / scale.square())
        sigma = _sigma(new)
        lost = ~((sigma > 0.3) & (sigma < size) & (new[:, :2].abs().amax(1) < size) & torch.isfinite(new).all(1))
        still = moved < tolerance
        state = new
        end = (still | lost) if k < iterations - 1 else torch.ones_like(still)
        if bool(end.any()):
            ready = end & still & ~lost
            final[rows[ready]] = state[ready]
            done[rows[ready]] = True
            rows, state, flat, past = rows[~end], state[~end], flat[~end], (past[0][~end], past[1][~end])
            if len(rows) == 0:
                break
    return _describe(images.flatten(1), basis, final, done)


def _sigma(state: Tensor) -> Tensor:
    det = state[:, 2] * state[:, 4] - state[:, 3] ** 2
    return torch.where((det > 0) & (state[:, 2] > 0), det.clamp(min=0) ** 0.25, 0.0)


def _quadratic(state: Tensor, basis: Tensor) -> Tensor:
    """(n, pixel) squared elliptical radius; a matrix product, since it is the inner loop."""
    cx, cy, xx, xy, yy = state.unbind(1)
    det = xx * yy - xy * xy
    a, b, c = yy / det, -xy / det, xx / det
    constant = a * cx * cx + 2 * b * cx * cy + c * cy * cy
    linear_x, linear_y = -2 * (a * cx + b * cy), -2 * (b * cx + c * cy)
    return torch.stack([constant, linear_x, linear_y, a, 2 * b, c], 1) @ basis


def _step(flat: Tensor, basis: Tensor, state: Tensor) -> Tensor:
    """Centre and covariance that the weighted moments ask for; a plain step halves the error of a Gaussian object."""
    # far out the weight stops at e^-25: what underflows is ten times as slow, and no pixel there counts
    weight = _quadratic(state, basis).clamp_(max=50.0).mul_(-0.5).exp_()
    sums = (flat * weight) @ basis.T
    light = sums[:, 0]
    light = torch.where(light > 0, light, torch.nan)
    cx, cy = state[:, 0], state[:, 1]
    mx, my = sums[:, 1] / light, sums[:, 2] / light
    xx = sums[:, 3] / light - 2 * cx * mx + cx * cx
    xy = sums[:, 4] / light - cx * my - cy * mx + cx * cy
    yy = sums[:, 5] / light - 2 * cy * my + cy * cy
    # the weight halves an offset too, so that twice the step to the centroid is the whole way
    return torch.stack([2 * mx - cx, 2 * my - cy, 2 * xx, 2 * xy, 2 * yy], 1)


def _accelerated(state: Tensor, plain: Tensor, past: tuple[Tensor, Tensor] | None) -> Tensor:
    """Anderson's mixing of the last two steps for the covariance, where it gives a sensible one."""
    if past is None:
        return plain
    before, after = past
    step, last = (plain - state)[:, 2:], (after - before)[:, 2:]
    turn = step - last
    share = (turn * step).sum(1, keepdim=True) / turn.square().sum(1, keepdim=True).clamp(min=1e-30)
    mixed = plain.clone()
    mixed[:, 2:] -= share * (plain - after)[:, 2:]
    ratio = _sigma(mixed) / _sigma(state).clamp(min=1e-6)
    return torch.where(((ratio > 0.6) & (ratio < 1.7))[:, None], mixed, plain)


def _describe(flat: Tensor, basis: Tensor, state: Tensor, done: Tensor) -> Moments:
    square = _quadratic(state, basis)
    light = flat * torch.exp(-0.5 * square)
    total = light.sum(1)
    cx, cy, xx, xy, yy = state.unbind(1)
    return Moments(
        e1=(xx - yy) / (xx + yy),
        e2=2 * xy / (xx + yy),
        sigma=torch.where(done, _sigma(state), torch.nan),
        x=cx,
        y=cy,
        rho4=(light * square.square()).sum(1) / total,
        amplitude=2 * total,
        converged=done,
    )


def values(pixels: Pixels) -> Tensor:
    """(n, 8) moments of the sum of all bands weighted by their inverse variance; lengths in pixels.

    What was not found is NaN, and ``found`` is 0.
    """
    m = adaptive_moments(pixels.detection)
    # the matched filter: amplitude over the noise under its own weight, sigma_sky sqrt(4 pi) sigma
    snr = (m.amplitude / (12.566370614**0.5 * m.sigma)).clamp(min=1e-3).log10()
    found = torch.stack([m.e1, m.e2, m.sigma.log10(), m.rho4, snr, m.x, m.y, m.converged.float()], 1)
    return found.masked_fill(pixels.missing.all(1)[:, None], torch.nan)


def names(bands: tuple[str, ...], size: tuple[int, int]) -> tuple[str, ...]:
    """Of the columns of `values`."""
    return tuple(f"moments.{n}" for n in NAMES)
