"""Shape of the object in the middle: concentration, asymmetry, smoothness, Gini, M20, radii, moments.

Definitions: Conselice (2003) and Lotz, Primack & Madau (2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from deepsky.baselines._images import Pixels, block_mean, estimated_sigma

NAMES = (
    "concentration", "asymmetry", "smoothness", "gini", "m20", "log_r20", "log_r50", "log_r80", "log_petrosian",
    "e1", "e2", "e", "log_size", "offset", "log_snr", "surface", "log_area", "neighbours",
)  # fmt: skip
LARGEST = 128  # a larger image is averaged over blocks first
THRESHOLD = 1.5  # of a 3 x 3 mean, in sigma of one pixel: 4.5 sigma of the mean


@dataclass(frozen=True, eq=False)
class Shapes:
    """Measurements of n objects, each (n,); radii in pixels, NaN where nothing was found.

    Attributes
    ----------
    concentration : 5 log10(r80 / r20), of the flux within 1.5 Petrosian radii.
    asymmetry, smoothness : the background's own share taken off.
    gini, m20 : over the pixels as bright as the mean at the Petrosian radius.
    r20, r50, r80, petrosian : circular radii.
    e1, e2 : distortion (a^2 - b^2) / (a^2 + b^2) of the isophote's second moments, in the pixel frame.
    size : fourth root of the determinant of the second moments.
    x, y : centroid from the image's centre.
    snr, area : of the isophote: sum over its noise, and number of pixels.
    neighbours : share of the image that belongs to other objects, which the measurements leave out.
    """

    concentration: Tensor
    asymmetry: Tensor
    smoothness: Tensor
    gini: Tensor
    m20: Tensor
    r20: Tensor
    r50: Tensor
    r80: Tensor
    petrosian: Tensor
    e1: Tensor
    e2: Tensor
    size: Tensor
    x: Tensor
    y: Tensor
    snr: Tensor
    area: Tensor
    neighbours: Tensor


def values(pixels: Pixels) -> Tensor:
    """(n, 18) shapes of the sum of all bands, weighted by their inverse variance; radii relative to half the image."""
    images = pixels.detection
    shrink = -(-max(images.shape[-2:]) // LARGEST)
    images = block_mean(images, images.shape[1] // shrink, images.shape[2] // shrink)
    s = measure(images)
    half = min(images.shape[-2:]) / 2

    def log(t: Tensor) -> Tensor:
        return t.clamp(min=1e-3).log10()

    found = torch.stack(
        [s.concentration, s.asymmetry, s.smoothness, s.gini, s.m20, log(s.r20 / half), log(s.r50 / half),
         log(s.r80 / half), log(s.petrosian / half), s.e1, s.e2, torch.hypot(s.e1, s.e2), log(s.size / half),
         torch.hypot(s.x, s.y) / half, log(s.snr), log(s.snr / s.area.sqrt()), log(s.area / (4 * half**2)),
         s.neighbours], 1)  # fmt: skip
    return found.masked_fill(pixels.missing.all(1)[:, None], torch.nan)


def names(bands: tuple[str, ...], size: tuple[int, int]) -> tuple[str, ...]:
    """Of the columns of `values`."""
    return tuple(f"shape.{n}" for n in NAMES)


def measure(images: Tensor) -> Shapes:
    """Shapes of the objects in the middle of images (n, y, x), of any unit; the noise is estimated from each."""
    n, y, x = images.shape
    sigma = estimated_sigma(images[:, None])[:, 0]
    images = (images - _border(images)[:, None, None]) / sigma[:, None, None]
    mine, others = _segments(images)
    images = images.masked_fill(others, 0.0)
    yy = torch.arange(y, dtype=images.dtype, device=images.device)[:, None].expand(y, x).reshape(-1)
    xx = torch.arange(x, dtype=images.dtype, device=images.device)[None, :].expand(y, x).reshape(-1)
    flat, mask = images.flatten(1), mine.flatten(1)
    light = F.relu(flat) * mask  # without negative pixels, so that the moments are positive definite
    total = light.sum(1).clamp(min=1e-6)
    cx, cy = (light @ xx) / total, (light @ yy) / total
    dx, dy = xx - cx[:, None], yy - cy[:, None]
    qxx, qyy, qxy = ((light * q).sum(1) / total for q in (dx * dx, dy * dy, dx * dy))
    trace = (qxx + qyy).clamp(min=1e-6)
    r = torch.hypot(dx, dy)
    profile = _Profile(flat, r)
    petrosian = profile.petrosian()
    edge = 1.5 * petrosian
    inner = profile.flux(edge).clamp(min=1e-6)
    r20, r50, r80 = (profile.radius(share * inner, edge) for share in (0.2, 0.5, 0.8))
    gini, m20 = _gini_m20(images, flat, dx, dy, (qxx, qyy, qxy), profile, petrosian)
    area = mask.float().sum(1)
    return Shapes(
        concentration=5 * torch.log10(r80.clamp(min=1e-3) / r20.clamp(min=1e-3)),
        asymmetry=_asymmetry(images, others, r.reshape(n, y, x), edge),
        smoothness=_smoothness(images, others, r.reshape(n, y, x), petrosian),
        gini=gini,
        m20=m20,
        r20=r20,
        r50=r50,
        r80=r80,
        petrosian=petrosian,
        e1=(qxx - qyy) / trace,
        e2=2 * qxy / trace,
        size=(qxx * qyy - qxy**2).clamp(min=1e-6) ** 0.25,
        x=cx - (x - 1) / 2,
        y=cy - (y - 1) / 2,
        snr=(flat * mask).sum(1) / area.clamp(min=1).sqrt(),
        area=area,
        neighbours=others.flatten(1).float().mean(1),
    )


def _border(images: Tensor) -> Tensor:
    """(n,) the sky: median of a frame a sixteenth of the image wide."""
    y, x = images.shape[-2:]
    w = max(1, min(y, x) // 16)
    frame = torch.ones(y, x, dtype=torch.bool, device=images.device)
    frame[w:-w, w:-w] = False
    median: Tensor = images[:, frame].median(1).values
    return median


def _mean3(images: Tensor) -> Tensor:
    near = F.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = near[:, :-2] + near[:, 1:-1] + near[:, 2:]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def _segments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels of the object in the middle, and of all others: connected above the threshold, in a 3 x 3 mean.

    An object too faint to be found is a disc of an eighth of the image.
    """
    n, y, x = images.shape
    smooth = _mean3(images)
    above = smooth > THRESHOLD
    dy = torch.arange(y, device=images.device)[:, None] - (y - 1) / 2
    dx = torch.arange(x, device=images.device)[None, :] - (x - 1) / 2
    middle = torch.hypot(dy, dx) <= min(y, x) / 8 + 1
    peak = smooth.masked_fill(~middle, -torch.inf).flatten(1).argmax(1)
    seed = torch.zeros(n, y * x, dtype=torch.bool, device=images.device)
    seed[torch.arange(n, device=images.device), peak] = True
    mine = seed.reshape(n, y, x) & above
    allowed = above.to(images.dtype)
    grown, area = mine.to(images.dtype), mine.sum()
    for _ in range(y + x):  # grow by two pixels a step within what lies above, until nothing is added
        for _ in range(2):
            near = F.pad(grown, (1, 1, 1, 1))
            rows = torch.maximum(torch.maximum(near[:, :-2], near[:, 1:-1]), near[:, 2:])
            grown = torch.maximum(torch.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:]) * allowed
        if (new := (grown > 0).sum()) == area:
            break
        area = new
    mine = grown > 0
    mine = torch.where(mine.flatten(1).any(1)[:, None, None], mine, middle)
    return mine, above & ~mine


class _Profile:
    """Growth of the flux with radius, in steps of a pixel, linear in between."""

    def __init__(self, flux: Tensor, r: Tensor) -> None:
        steps = int(r.shape[1] ** 0.5 * 0.75)
        self.grid = torch.arange(steps + 1, device=flux.device, dtype=flux.dtype)
        # a pixel at distance r counts in circles of radius R by clamp(R - r + 1/2, 0, 1), as its share inside
        low = (r + 0.5).clamp(max=steps)
        bin_ = low.to(torch.int64)
        upper = low - bin_
        next_ = (bin_ + 1).clamp(max=steps)
        growth = flux.new_zeros(2, len(flux), steps + 1)
        for k, weight in enumerate((flux, torch.ones_like(flux))):
            growth[k].scatter_add_(1, bin_, weight * (1 - upper)).scatter_add_(1, next_, weight * upper)
        self.growth, self.area = growth.cumsum(-1)

    def _at(self, curve: Tensor, radius: Tensor) -> Tensor:
        place = radius.clamp(0, len(self.grid) - 1.001)
        low = place.to(torch.int64)
        share = place - low
        return curve.gather(1, low[:, None])[:, 0] * (1 - share) + curve.gather(1, low[:, None] + 1)[:, 0] * share

    def flux(self, radius: Tensor) -> Tensor:
        """(n,) within circles of these radii."""
        return self._at(self.growth, radius)

    def petrosian(self) -> Tensor:
        """(n,) first radius where the surface brightness on the circle falls to a fifth of the mean inside."""
        ring = (self.growth[:, 2:] - self.growth[:, :-2]) / (self.area[:, 2:] - self.area[:, :-2]).clamp(min=1e-6)
        mean = self.growth[:, 1:-1] / self.area[:, 1:-1].clamp(min=1e-6)
        ratio = torch.where(mean > 0, ring / mean.clamp(min=1e-12), 0.0)
        below = ratio < 0.2
        below[:, -1] = True
        first = below.float().argmax(1)
        before = (first - 1).clamp(min=0)
        high, low = ratio.gather(1, before[:, None])[:, 0], ratio.gather(1, first[:, None])[:, 0]
        share = torch.where(first > before, ((high - 0.2) / (high - low).clamp(min=1e-6)).clamp(0, 1), 1.0)
        return before + share + 1

    def radius(self, level: Tensor, edge: Tensor) -> Tensor:
        """(n,) first radius that holds `level`, at most `edge`."""
        reached = self.growth >= level[:, None]
        reached[:, -1] = True
        at = reached.float().argmax(1).clamp(min=1)
        high, low = self.growth.gather(1, at[:, None])[:, 0], self.growth.gather(1, at[:, None] - 1)[:, 0]
        share = ((level - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        return torch.minimum(at - 1 + share, edge)


def _turned(images: Tensor, cy: Tensor, cx: Tensor) -> Tensor:
    """(n, y, x) turned by half a turn about (cy, cx), bilinear, zero outside."""
    n, h, w = images.shape
    grid = images.new_empty(n, h, w, 2)  # in coordinates from -1 to 1 across the image
    for k, (centre, size) in enumerate(((cx, w), (cy, h))):
        at = (4 * centre[:, None] - 2 * torch.arange(size, device=images.device) + 1) / size - 1
        grid[..., k] = at[:, None, :] if k == 0 else at[:, :, None]
    found: Tensor = F.grid_sample(images[:, None], grid, align_corners=False, padding_mode="zeros").squeeze(1)
    return found


def _symmetric_centre(images: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) y and x of the point about which half a turn changes the image least, in the mean square.

    That is half the place of the peak of the image convolved with itself, refined by parabolas.
    """
    n, h, w = images.shape
    ly, lx = 2 * h, 2 * w
    spectrum = torch.fft.rfft2(images * inside, s=(ly, lx))
    own = torch.fft.irfft2(spectrum * spectrum, s=(ly, lx))
    peak = own.flatten(1).argmax(1)
    py, px = peak // lx, peak % lx
    rows = torch.arange(n, device=images.device)

    def vertex(low: Tensor, high: Tensor) -> Tensor:
        curve: Tensor = low + high - 2 * own[rows, py, px]
        top: Tensor = (low - high) / (2 * curve.clamp(max=-1e-12))
        return top.clamp(-0.5, 0.5)

    fy = vertex(own[rows, (py - 1) % ly, px], own[rows, (py + 1) % ly, px])
    fx = vertex(own[rows, py, (px - 1) % lx], own[rows, py, (px + 1) % lx])
    return (py + fy) / 2, (px + fx) / 2


def _asymmetry(images: Tensor, others: Tensor, r: Tensor, edge: Tensor) -> Tensor:
    """sum|I - I180| / sum|I| within `edge`, less the same of the sky; neighbours and their partners left out."""
    h, w = images.shape[-2:]
    aperture = r <= edge[:, None, None]
    cy, cx = _symmetric_centre(images, aperture)
    change = (images - _turned(images, cy, cx)).abs()
    least = (change * aperture).flatten(1).sum(1)
    for step in (1.0, 0.5, 0.25, 0.125):  # from the centre of least squares to that of least sum
        for ty, tx in ((cy + step, cx), (cy - step, cx), (cy, cx + step), (cy, cx - step)):
            trial = (images - _turned(images, ty, tx)).abs()
            value = (trial * aperture).flatten(1).sum(1)
            better = value < least
            cy, cx = torch.where(better, ty, cy), torch.where(better, tx, cx)
            least = torch.minimum(least, value)
    change = (images - _turned(images, cy, cx)).abs()
    good = _turned((~others).to(images.dtype), cy, cx) * (~others) > 0.999
    inside = (r <= edge[:, None, None]) & good
    sky = (r > edge[:, None, None]) & good
    count = sky.flatten(1).sum(1)
    # without enough sky: the mean of |N(0, s^2)|, with the variance that the interpolation leaves
    fx, fy = (2 * cx) % 1, (2 * cy) % 1
    left = (fx**2 + (1 - fx) ** 2) * (fy**2 + (1 - fy) ** 2)
    expected = (2 / torch.pi * (1 + left)).sqrt()
    level = torch.where(count > 0.05 * h * w, (change * sky).flatten(1).sum(1) / count.clamp(min=1), expected)
    light = (images.abs() * inside).flatten(1).sum(1).clamp(min=1e-6)
    return ((change * inside).flatten(1).sum(1) - level * inside.flatten(1).sum(1)) / light


def _boxed(images: Tensor, side: Tensor) -> Tensor:
    """Mean over a box of `side` pixels (n,), at least one and not always whole, a different one for every image.

    From the integral of the image, linear between pixels' edges: as cheap for a large box as for a small one.
    """
    n, h, w = images.shape
    integral = F.pad(images.double().cumsum(1).cumsum(2), (1, 0, 1, 0))

    def ends(length: int, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Edge before, share beyond it, and place, of (n, length) positions."""
        at = (torch.arange(length, device=images.device) + 0.5 + shift[:, None]).clamp(0, length)
        low = at.to(torch.int64).clamp(max=length - 1)
        return low, at - low, at

    y0, y1, x0, x1 = (ends(size, sign * side / 2) for size in (h, w) for sign in (-1, 1))

    def between(t: Tensor, axis: int, at: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        shape = (n, h, w + 1) if axis == 1 else (n, h, w)
        low, share = (a[..., None] if axis == 1 else a[:, None] for a in at[:2])
        before, after = (t.gather(axis, edge.expand(shape)) for edge in (low, low + 1))
        return torch.lerp(before, after, share.to(t.dtype).expand(shape))

    rows = between(integral, 1, y1) - between(integral, 1, y0)
    sums = between(rows, 2, x1) - between(rows, 2, x0)
    return (sums / ((y1[2] - y0[2])[..., None] * (x1[2] - x0[2])[:, None])).to(images.dtype)


def _smoothness(images: Tensor, others: Tensor, r: Tensor, petrosian: Tensor) -> Tensor:
    """Light above a box mean of a quarter Petrosian radius, between 0.25 and 1.5 of them, less that of the sky."""
    side = (0.25 * petrosian).clamp(min=1)
    above = F.relu(images - _boxed(images, side))
    scaled = r / petrosian[:, None, None]
    inside = (scaled > 0.25) & (scaled <= 1.5) & ~others
    sky = (scaled > 1.5) & ~others
    count = sky.flatten(1).sum(1)
    # without enough sky: the mean of the positive part of N(0, 1 - 1 / side^2)
    expected = ((1 - 1.0 / side**2) / (2 * torch.pi)).sqrt()
    measured = (above * sky).flatten(1).sum(1) / count.clamp(min=1)
    level = torch.where(count > 0.05 * r[0].numel(), measured, expected)
    light = (images * ((scaled <= 1.5) & ~others)).flatten(1).sum(1).clamp(min=1e-6)
    return ((above * inside).flatten(1).sum(1) - level * inside.flatten(1).sum(1)) / light


def _gini_m20(
    images: Tensor, flat: Tensor, dx: Tensor, dy: Tensor, moments: tuple[Any, ...], profile: _Profile, petrosian: Tensor
) -> tuple[Tensor, Tensor]:
    """Over pixels whose box mean is at least that on the ellipse of the object's moments at the Petrosian radius."""
    qxx, qyy, qxy = moments
    qxx, qyy = qxx + 1 / 12, qyy + 1 / 12  # at least one pixel's own
    det = (qxx * qyy - qxy**2).clamp(min=1e-4)
    # elliptical radius of the same area as a circle's
    square = qyy[:, None] * dx**2 - 2 * qxy[:, None] * dx * dy + qxx[:, None] * dy**2
    rho = (square / det.sqrt()[:, None]).clamp(min=0).sqrt()
    elliptical = _Profile(flat, rho).petrosian()
    smooth = _boxed(images, (0.2 * elliptical).clamp(min=1)).flatten(1)
    ring = (rho - elliptical[:, None]).abs() <= 0.5
    level = (smooth * ring).sum(1) / ring.sum(1).clamp(min=1)
    # beyond one and a half radii only noise reaches the level
    chosen = (smooth >= level[:, None]) & (rho <= 1.5 * elliptical[:, None])
    order = (flat.abs() * chosen).sort(1, descending=True)
    n = chosen.sum(1)
    rank = torch.arange(flat.shape[1], device=flat.device, dtype=flat.dtype)[None, :]
    total = order.values.sum(1).clamp(min=1e-6)
    # sorted upwards the weight of the i-th is 2 i - n - 1; downwards from j = 0 it is n - 1 - 2 j
    gini = ((n[:, None] - 1 - 2 * rank) * order.values).sum(1) / (total * (n - 1).clamp(min=1))
    light = (flat * chosen).gather(1, order.indices)
    far = (dx * dx + dy * dy).gather(1, order.indices)
    grown = light.cumsum(1)
    brightest = grown - light < 0.2 * grown[:, -1:]
    second = (light * far).sum(1).clamp(min=1e-6)
    m20 = ((light * far * brightest).sum(1).clamp(min=1e-6) / second).log10()
    return gini, m20
