"""Noiseless stamps of many objects: Sersic components through their transforms, features on cells."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from deepsky.simulators import _arcs as arcs
from deepsky.simulators import _render as render
from deepsky.simulators._confusers import Feature, draw
from deepsky.simulators._galaxies import Components
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
    start = np.searchsorted(components.owner, np.arange(n + 1))
    for i in range(n):
        if start[i] < start[i + 1]:
            spectrum = _spectrum(g, components, np.arange(start[i], start[i + 1]), len(bands))
            out[i] = render.stamp(g, spectrum.mul_(transfer))
    for feature in features:
        arcs.paste(out[feature.owner], _feature(feature, bands, size))
    return out


def _spectrum(g: render.Grid, c: Components, rows: np.ndarray, bands: int) -> Tensor:
    """(band, rows, columns) transform of one object's components."""
    shape = (len(g.ky), g.kx.shape[1])
    total = torch.zeros(bands, 2 * shape[0] * shape[1])
    step = max(1, _AT_ONCE // (shape[0] * shape[1]))
    plain = c.n[rows] == 1.0  # exponentials have a closed form, so they go together
    for group in (rows[plain], rows[~plain]):
        for first in range(0, len(group), step):
            r = group[first : first + step]
            re, n, g1, g2, x, y = (torch.from_numpy(v[r]).float() for v in (c.re, c.n, c.g1, c.g2, c.x, c.y))
            spectrum = render.sersic_spectrum(g, re, n, g1, g2, x, y)
            weights = torch.from_numpy(np.ascontiguousarray(c.flux[r].T)).float()
            total.addmm_(weights, torch.view_as_real(spectrum).reshape(len(r), -1))
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
