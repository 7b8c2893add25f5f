"""Noiseless stamps of many objects: Sersic components through their transforms, features on cells."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepsky.simulators import _arcs as arcs
from deepsky.simulators import _render as render
from deepsky.simulators._confusers import Feature, draw
from deepsky.simulators._galaxies import Components
from deepsky.simulators._profiles import shear_coefficients
from deepsky.simulators._surveys import Band

_AT_ONCE = 65536  # numbers: more do not fit the processor's cache


def stamp_grid(size: int, bands: tuple[Band, ...], least: float = 18.0) -> render.Grid:
    """The grid of a stamp, repeating after 1.4 times its side or `least` arcsec, whichever is more."""
    scale = bands[0].pixel_scale
    fine = max(render.samples_per_pixel(scale, b.psf_fwhm, b.psf) for b in bands)
    return render.grid(size, scale, fine, padding=max(1.4, least / (size * scale)))


def images(n: int, size: int, bands: tuple[Band, ...], components: Components, features: list[Feature]) -> Tensor:
    """(n, band, size, size) noiseless flux [nJy], components sorted by owner.

    One object is drawn after the other, so that its pixels do not depend on the company it is drawn in.
    """
    g = stamp_grid(size, bands)
    out = torch.zeros(n, len(bands), size, size)
    transfer = render.band_response(g, bands)
    table, plain = _table(components), components.n == 1.0  # exponentials have a closed form, so they go together
    start = np.searchsorted(components.owner, np.arange(n + 1))
    for i in range(n):
        rows = np.arange(start[i], start[i + 1])
        if len(rows):
            groups = (rows[plain[rows]], rows[~plain[rows]])
            out[i] = render.stamp(g, _spectrum(g, table, groups, len(bands)).mul_(transfer))
    for feature in features:
        arcs.paste(out[feature.owner], _feature(feature, bands, size))
    return out


def _table(c: Components) -> Tensor:
    """(c, 7 + band) what a transform takes: shear coefficients, re, n, x, y, fluxes."""
    columns = [torch.from_numpy(v) for v in (c.re, c.n, c.x, c.y)]
    shear = shear_coefficients(torch.from_numpy(c.g1), torch.from_numpy(c.g2))
    return torch.cat([shear, torch.stack(columns, 1), torch.from_numpy(c.flux)], 1).float()


def _spectrum(g: render.Grid, table: Tensor, groups: tuple[NDArray[np.int64], ...], bands: int) -> Tensor:
    """(band, rows, columns) transform of one object's components."""
    shape = (len(g.ky), g.kx.shape[1])
    total = torch.zeros(bands, 2 * shape[0] * shape[1])
    step = max(1, _AT_ONCE // (shape[0] * shape[1]))
    for group in groups:
        for first in range(0, len(group), step):
            part = table[torch.from_numpy(group[first : first + step])]
            re, n, x, y = part[:, 3:7].unbind(1)
            spectrum = render.sersic_of(g, part[:, :3], re, n, x, y)
            total.addmm_(part[:, 7:].T, torch.view_as_real(spectrum).reshape(len(part), -1))
    return torch.view_as_complex(total.view(bands, *shape, 2))


def _feature(feature: Feature, bands: tuple[Band, ...], size: int) -> Tensor:
    """(band, m, m) flux of a feature in a box around the stamp's centre [nJy]."""
    plane = feature.plane
    radius = min(feature.reach + math.hypot(plane.x, plane.y), 0.75 * size * bands[0].pixel_scale)
    g, per_pixel = arcs.box(arcs.half_width(radius, bands[0].pixel_scale), size % 2, bands)
    half = arcs.half_width(radius, bands[0].pixel_scale)
    axis = render.cell_axis(2 * half + size % 2, per_pixel, g.pixel_scale)
    spectrum = render.cells_spectrum(g, draw(feature, axis), per_pixel)
    flux = torch.from_numpy(feature.flux).float().view(-1, 1, 1)
    return render.stamp(g, spectrum * render.band_response(g, bands) * flux)
