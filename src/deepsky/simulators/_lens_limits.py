"""Cramer-Rao bounds of a lens: Einstein radius, ellipticity and centre, with the source's parameters free."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepsky.simulators import _render as render
from deepsky.simulators._limits import cramer_rao, fisher
from deepsky.simulators._profiles import Family, psf_transform
from deepsky.simulators._sie import Clumps, Lens, bin_cells, lensed

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LensedSource:
    """A SIE lens and an exponential source; lengths in arcsec, ellipticities (a - b)/(a + b).

    Attributes
    ----------
    theta_e, e1, e2, x, y : of the lens; the five whose bounds are wanted.
    source_x, source_y, source_re, source_e1, source_e2, flux : of the source; the six nuisances.
    """

    theta_e: float = 1.0
    e1: float = 0.15
    e2: float = 0.1
    x: float = 0.0
    y: float = 0.0
    source_x: float = 0.1
    source_y: float = 0.05
    source_re: float = 0.15
    source_e1: float = 0.1
    source_e2: float = 0.0
    flux: float = 1.0


LENS_PARAMETERS: Final = ("theta_e", "e1", "e2", "x", "y")
_STEP: Final = 2e-4


def lens_image(system: LensedSource, *, pixel_scale: float, fwhm: float, size: int, family: Family = "moffat",
               oversample: int = 4) -> Tensor:  # fmt: skip
    """(size, size) noiseless arcs, flux per pixel, in double precision."""
    p = {f.name: torch.tensor(getattr(system, f.name), dtype=torch.float64) for f in fields(system)}
    g = torch.sqrt(p["e1"] ** 2 + p["e2"] ** 2)
    zero = torch.zeros((), dtype=torch.float64)
    angle = 0.5 * torch.atan2(p["e2"], p["e1"])
    lens = Lens(p["theta_e"], (1 - g) / (1 + g), angle, p["x"], p["y"], zero, zero)
    source = Clumps(
        *(p[name][None] for name in ("source_x", "source_y", "source_re", "source_e1", "source_e2", "flux"))
    )
    fine = render.samples_per_pixel(pixel_scale, fwhm, family)
    grid = render.grid(size, pixel_scale, fine, padding=1.2, dtype=torch.float64)
    per_pixel = 2 * fine
    factor = max(1, -(-oversample // per_pixel))
    axis = render.cell_axis(size, per_pixel * factor, pixel_scale, torch.float64)
    cells = bin_cells(lensed(lens, (source,), axis), factor)
    spectrum = render.cells_spectrum(grid, cells, per_pixel)[0]
    return render.stamp(grid, spectrum * render.response(grid, psf_transform(grid.k2, fwhm, family)))


def lens_bounds(system: LensedSource, *, pixel_scale: float, fwhm: float, size: int, noise_over_peak: float,
                family: Family = "moffat", oversample: int = 4) -> dict[str, float]:  # fmt: skip
    """Bounds of the lens's five parameters with the source's six free, and the arcs' "snr".

    Parameters
    ----------
    noise_over_peak : noise of a pixel in units of the arcs' brightest pixel.
    """

    def image(p: Floats) -> Floats:
        return lens_image(LensedSource(*p.tolist()), pixel_scale=pixel_scale, fwhm=fwhm, size=size, family=family,
                          oversample=oversample).numpy()  # fmt: skip

    truth = image(np.array(astuple(system)))
    sigma = noise_over_peak * float(truth.max())
    bound = cramer_rao(fisher(image, astuple(system), [_STEP] * len(astuple(system)), sigma))
    out = dict(zip(LENS_PARAMETERS, bound.tolist(), strict=False))
    return out | {"snr": float(np.sqrt((truth**2).sum())) / sigma}
