"""What a lens finder mistakes for a lens: spirals, ring galaxies, mergers, chance neighbours of an elliptical."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deepsky.simulators import _colours as colours
from deepsky.simulators import _features as features
from deepsky.simulators._galaxies import Components, axis_ratio_shear, cosmos_shapes, fluxes, size
from deepsky.simulators._random import magnitudes, truncated_normal
from deepsky.simulators._surveys import Band

Floats = NDArray[np.float64]

DRAWS: Final = 64
COMPANIONS: Final = 4


@dataclass(frozen=True, eq=False)
class Feature:
    """An arm, ring or tail of one object.

    Attributes
    ----------
    owner : row of the object.
    shape : which of `_features`.
    plane : where it lies.
    numbers : arguments of the function in `_features`.
    reach : radius that holds it [arcsec].
    flux : (band,) [nJy].
    """

    owner: int
    shape: Literal["spiral", "ring", "tail"]
    plane: features.Plane
    numbers: dict[str, object]
    reach: float
    flux: Floats


def draw(feature: Feature, axis: Tensor) -> Tensor:
    """The picture of a feature on cells, of unit flux."""
    functions: dict[str, Callable[..., Tensor]] = {
        "spiral": features.spiral, "ring": features.ring, "tail": features.tail
    }  # fmt: skip
    return functions[feature.shape](feature.plane, axis, **feature.numbers)


def _host(u: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Magnitude (that of lens galaxies), redshift, axis ratio and angle of a confuser."""
    magnitude = truncated_normal(u[:, 0], 19.6, 1.1, 17.0, 22.0)
    z = truncated_normal(u[:, 1], 0.3, 0.15, 0.05, 0.8)
    return magnitude, z, 0.35 + 0.65 * u[:, 2], np.pi * u[:, 3]


def spirals(rows: NDArray[np.int64], u: Floats, bands: tuple[Band, ...], reference: Band,
            centre: Floats) -> tuple[Components, list[Feature]]:  # fmt: skip
    """Spirals with a red bulge, a disk, and two to four bluer arms that hold 30 to 75% of the disk's light."""
    magnitude, z, q, angle = _host(u)
    scale = size(u[:, 4], magnitude, slope=0.1) / 1.678 * 1.35
    bulge, arm_share = 0.05 + 0.35 * u[:, 5] ** 2, 0.30 + 0.45 * u[:, 6]
    total = fluxes(np.full(len(u), colours.SCD), z, magnitude, bands, reference)
    red = fluxes(np.full(len(u), colours.E), z, magnitude - 2.5 * np.log10(bulge), bands, reference)
    disk = total * ((1 - bulge) * (1 - arm_share))[:, None]
    blue = fluxes(colours.SCD + u[:, 7], z, magnitude - 2.5 * np.log10((1 - bulge) * arm_share), bands, reference)
    g1, g2 = axis_ratio_shear(q, angle)
    round1, round2 = axis_ratio_shear(1 - 0.5 * (1 - q), angle)
    x, y = centre.T
    twice = np.concatenate
    # re of the disk is that of the circle of equal area
    smooth = Components(twice([rows, rows]), twice([1.678 * scale * np.sqrt(q), 0.25 * 1.678 * scale]),
                        np.repeat([1.0, 2.5], len(u)), twice([g1, round1]), twice([g2, round2]), twice([x, x]),
                        twice([y, y]), twice([disk, red]))  # fmt: skip
    arms = []
    for i, row in enumerate(rows.tolist()):
        count = 2 if u[i, 8] < 0.6 else 3 if u[i, 8] < 0.8 else 4
        pitch = math.radians(13 + 20 * u[i, 9]) * (1 if u[i, 10] < 0.5 else -1)
        knots = [(0.8 + 2.2 * a, b, 0.6 * c) for a, b, c in u[i, 14 : 14 + 3 * features.KNOTS].reshape(-1, 3).tolist()]
        numbers: dict[str, object] = {"scale": float(scale[i]), "arms": count, "pitch": pitch, "knots": knots,
                                      "phase": 2 * math.pi * float(u[i, 11]),
                                      "tightness": 1.0 + 3.0 * float(u[i, 12])}  # fmt: skip
        plane = features.Plane(float(x[i]), float(y[i]), float(q[i]), float(angle[i]))
        arms.append(Feature(row, "spiral", plane, numbers, 5.0 * float(scale[i]), blue[i]))
    return smooth, arms


def rings(rows: NDArray[np.int64], u: Floats, bands: tuple[Band, ...], reference: Band,
          centre: Floats) -> tuple[Components, list[Feature]]:  # fmt: skip
    """Ring galaxies: a red core within a blue, lumpy ring of 0.6 to 3 arcsec that holds 15 to 60% of the light."""
    magnitude, z, q, angle = _host(u)
    q = 0.6 + 0.4 * (q - 0.35) / 0.65
    share = 0.15 + 0.45 * u[:, 4]
    radius = 0.6 * 5.0 ** u[:, 5]
    core = fluxes(0.4 * u[:, 6], z, magnitude - 2.5 * np.log10(1 - share), bands, reference)
    blue = fluxes(colours.SBC + 2 * u[:, 7], z, magnitude - 2.5 * np.log10(share), bands, reference)
    core_q = 1 - 0.6 * (1 - q)
    g1, g2 = axis_ratio_shear(core_q, angle + 0.5 * (u[:, 8] - 0.5))
    re = np.minimum(size(u[:, 9], magnitude, slope=0.1) * 0.7, 0.6 * radius)
    x, y = centre.T
    smooth = Components(rows, re, 1.5 + 2.5 * u[:, 10], g1, g2, x, y, core)
    out = []
    for i, row in enumerate(rows.tolist()):
        h = u[i, 14 : 14 + 2 * features.HARMONICS].reshape(-1, 2)
        lumps = [(1.2 * float(a) / m, 2 * math.pi * float(p)) for m, (a, p) in enumerate(h, start=1)]
        width = float(radius[i] * (0.08 + 0.2 * u[i, 11]))
        # rings are offset from their core
        shift = 0.15 * radius[i] * (u[i, 12:14] - 0.5)
        plane = features.Plane(float(x[i] + shift[0]), float(y[i] + shift[1]), float(q[i]), float(angle[i]))
        numbers: dict[str, object] = {"radius": float(radius[i]), "width": width, "harmonics": lumps}
        out.append(Feature(row, "ring", plane, numbers, float(radius[i]) + 3.5 * width, blue[i]))
    return smooth, out


def mergers(rows: NDArray[np.int64], u: Floats, bands: tuple[Band, ...], reference: Band,
            centre: Floats) -> tuple[Components, list[Feature]]:  # fmt: skip
    """Two galaxies 0.4 to 3 arcsec apart, mass ratio 1 to 10, with one or two tidal tails that bend like arcs."""
    magnitude, z, q, angle = _host(u)
    ratio, apart, where = 10 ** (-u[:, 4]), 0.4 * 7.5 ** u[:, 5], 2 * np.pi * u[:, 6]
    tidal = 0.08 + 0.3 * u[:, 7]
    share = np.stack([1 / (1 + ratio), ratio / (1 + ratio)], 1) * (1 - tidal)[:, None]
    re0 = size(u[:, 8], magnitude, slope=0.1)
    g1, g2 = axis_ratio_shear(q, angle)
    f1, f2 = cosmos_shapes(u[:, 9], u[:, 10])
    n = np.where(u[:, 11:13] < 0.5, 1.0, 3.0)
    kind = 2.0 * u[:, 13:15]
    x, y = centre.T
    x2, y2 = x + apart * np.cos(where), y + apart * np.sin(where)
    light = [fluxes(kind[:, j], z, magnitude - 2.5 * np.log10(share[:, j]), bands, reference) for j in (0, 1)]
    pair = np.concatenate
    smooth = Components(pair([rows, rows]), pair([0.8 * re0, 0.8 * re0 * ratio**0.5]),
                        n.T.reshape(-1), pair([g1, f1]), pair([g2, f2]), pair([x, x2]), pair([y, y2]),
                        pair(light))  # fmt: skip
    stars = fluxes(colours.SBC + u[:, 15], z, magnitude - 2.5 * np.log10(tidal), bands, reference)
    tails = []
    for i, row in enumerate(rows.tolist()):
        count = 1 if u[i, 16] < 0.4 else 2
        for t in range(count):
            d = u[i, 20 + 5 * t : 25 + 5 * t].tolist()
            middle = (float(x[i]), float(y[i])) if t == 0 else (float(x2[i]), float(y2[i]))
            radius = float(max(0.5, apart[i]) * (0.7 + 0.6 * d[0]))
            length, unwinding = math.radians(60 + 150 * d[1]), 0.1 + 0.6 * d[2]
            numbers: dict[str, object] = {"radius": radius, "width": 0.08 * radius + 0.08 + 0.1 * d[3],
                                          "start": 2 * math.pi * d[4], "length": length,
                                          "unwinding": unwinding}  # fmt: skip
            plane = features.Plane(*middle, 0.7 + 0.3 * d[3], float(angle[i]))
            reach = radius * (1 + unwinding) + 1.0 + (0.0 if t == 0 else float(apart[i]))
            tails.append(Feature(row, "tail", plane, numbers, reach, stars[i] / count))
    return smooth, tails


def companions(rows: NDArray[np.int64], u: Floats, bands: tuple[Band, ...], reference: Band, centre: Floats,
               faint: float) -> Components:  # fmt: skip
    """One to four blue galaxies 0.6 to 3.5 arcsec from a galaxy, as bright as arcs: they mimic multiple images."""
    count = 1 + np.floor(COMPANIONS * u[:, 0]).astype(np.int64)
    d = u[:, 1 : 1 + COMPANIONS * 8].reshape(len(u), COMPANIONS, 8)
    i, slot = np.nonzero(np.arange(COMPANIONS)[None] < count[:, None])
    d = d[i, slot]
    magnitude = magnitudes(d[:, 0], 20.5, faint, 0.3)
    distance, where = 0.6 + 2.9 * np.sqrt(d[:, 1]), 2 * np.pi * d[:, 2]
    g1, g2 = cosmos_shapes(d[:, 3], d[:, 4])
    light = fluxes(1.0 + 2.0 * d[:, 5], 0.2 + 1.5 * d[:, 6], magnitude, bands, reference)
    return Components(rows[i], 0.1 * 4.0 ** d[:, 7], np.ones(len(d)), g1, g2,
                      centre[i, 0] + distance * np.cos(where), centre[i, 1] + distance * np.sin(where),
                      light)  # fmt: skip
