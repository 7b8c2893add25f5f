from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deepsky.simulators import _arcs as arcs
from deepsky.simulators import _render as render
from deepsky.simulators._sie import Clumps, Lens, bin_cells, deflection, lensed, surface_brightness
from deepsky.simulators._surveys import bands


def lens(theta_e=1.2, q=0.7, angle=0.6, x=0.05, y=-0.03, shear1=0.02, shear2=-0.04, dtype=torch.float64):
    return Lens(*(torch.tensor(v, dtype=dtype) for v in (theta_e, q, angle, x, y, shear1, shear2)))


def clump(x=0.1, y=0.05, re=0.2, g1=0.1, g2=-0.05, flux=2.0, dtype=torch.float64):
    return Clumps(*(torch.tensor([v], dtype=dtype) for v in (x, y, re, g1, g2, flux)))


@pytest.fixture(scope="module")
def grid():
    axis = torch.linspace(-3, 3, 60, dtype=torch.float64) + 0.013
    return axis[None, :].expand(60, 60), axis[:, None].expand(60, 60)


@pytest.mark.parametrize("q", [0.35, 0.7, 0.98])
def test_deflection_is_that_of_caustics(grid, q):
    func = pytest.importorskip("caustics.lenses.func", reason="caustics is not installed")
    x, y = grid
    one = lens(q=q)
    ax, ay = deflection(one, x, y)
    sx, sy = func.reduced_deflection_angle_sie(one.x, one.y, one.q, one.angle, one.theta_e, x, y)
    ex, ey = one.shear1 * (x - one.x) + one.shear2 * (y - one.y), one.shear2 * (x - one.x) - one.shear1 * (y - one.y)
    assert float((ax - sx - ex).abs().max()) < 1e-5
    assert float((ay - sy - ey).abs().max()) < 1e-5
    single = deflection(lens(q=q, dtype=torch.float32), x.float(), y.float())
    assert float((single[0].double() - ax).abs().max()) < 2e-5


def test_a_round_lens_deflects_by_its_einstein_radius(grid):
    x, y = grid
    ax, ay = deflection(lens(q=1.0, x=0.0, y=0.0, shear1=0.0, shear2=0.0), x, y)
    assert (torch.hypot(ax, ay) - 1.2).abs().max() < 1e-4
    assert (ax * y - ay * x).abs().max() < 1e-3  # towards the centre


def test_the_critical_curve_has_the_area_of_the_einstein_radius():
    one = lens(q=0.6, shear1=0.0, shear2=0.0, x=0.0, y=0.0)
    axis = torch.linspace(-2.5, 2.5, 2001, dtype=torch.float64)
    x, y = axis[None, :].expand(2001, 2001), axis[:, None].expand(2001, 2001)
    ax, ay = deflection(one, x, y)
    step = float(axis[1] - axis[0])
    (axy, axx), (ayy, ayx) = torch.gradient(ax, spacing=step), torch.gradient(ay, spacing=step)
    determinant = (1 - axx) * (1 - ayy) - axy * ayx
    far = torch.hypot(x, y) > 0.1  # the centre itself is singular
    area = float(((determinant < 0) & far).sum()) * step**2 + math.pi * 0.1**2
    assert math.sqrt(area / math.pi) == pytest.approx(1.2, rel=0.01)
    assert float((axy - ayx).abs().median()) < 1e-6  # a gradient


def test_brightness_of_a_clump():
    axis = torch.linspace(-4, 4, 1600, dtype=torch.float64)
    source = clump(re=0.3, g1=0.3, g2=0.2)
    picture = surface_brightness(source, axis[None, :].expand(1600, 1600), axis[:, None].expand(1600, 1600))
    area = float(axis[1] - axis[0]) ** 2
    assert float(picture.sum()) * area == pytest.approx(2.0, rel=1e-3)
    x, y = axis - 0.1, axis - 0.05
    weight = picture / picture.sum()
    xx, yy = float((weight * x[None] ** 2).sum()), float((weight * y[:, None] ** 2).sum())
    xy = float((weight * x[None] * y[:, None]).sum())
    denominator = xx + yy + 2 * math.sqrt(xx * yy - xy**2)
    assert ((xx - yy) / denominator, 2 * xy / denominator) == pytest.approx((0.3, 0.2), abs=2e-3)


def test_magnification_of_a_point_behind_a_round_lens():
    # two images of total magnification 2 theta_E / beta; a small disk within the Einstein radius has nearly that
    one = lens(theta_e=1.0, q=1.0, x=0.0, y=0.0, shear1=0.0, shear2=0.0)
    source = clump(x=0.4, y=0.0, re=0.02, g1=0.0, g2=0.0, flux=1.0)
    axis = render.cell_axis(30, 40, 0.1, torch.float64)
    assert float(lensed(one, (source,), axis).sum()) == pytest.approx(5.0, rel=0.01)
    coarse = arcs.magnification(
        lens(theta_e=1.0, q=0.9999, x=0.0, y=0.0, shear1=0.0, shear2=0.0, dtype=torch.float32),
        (clump(x=0.4, y=0.0, re=0.15, g1=0.0, g2=0.0, flux=3.0, dtype=torch.float32),),
        beta=0.4, reach=0.6, centre=(0.4, 0.0),
    )  # fmt: skip
    assert float(coarse[0]) == pytest.approx(5.0, rel=0.1)


def test_rays_that_end_far_from_the_source_need_no_brightness():
    one, source = lens(dtype=torch.float32), clump(dtype=torch.float32)
    axis = render.cell_axis(41, 4, 0.2)
    fast = arcs.lensed_cells(one, (source,), (0.1, 0.05), 1.0, axis)
    slow = lensed(one, (source,), axis)
    assert float((fast - slow).abs().max() / slow.max()) < 2e-3
    assert float(fast.sum() / slow.sum()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("survey", "names"), [("kids", ("u", "r")), ("euclid", None)])
def test_four_rays_a_pixel_are_enough(survey, names):
    """The smallest clumps of the population, on the caustic: 4 rays a pixel's side against 16."""
    b = bands(survey, names)
    one = lens(theta_e=0.9, q=0.75, dtype=torch.float32)
    groups = (
        clump(0.12, 0.08, 0.1, flux=1.0, dtype=torch.float32),
        clump(-0.05, 0.2, 0.1, flux=1.0, dtype=torch.float32),
    )
    pictures = [arcs.draw(one, groups, beta=0.2, reach=0.8, centre=(0.05, 0.1), bands=b, oversample=k) for k in (4, 16)]
    difference = (pictures[0].images - pictures[1].images).abs().amax((-2, -1)) / pictures[1].images.amax((-2, -1))
    assert float(difference.max()) < 0.01
    np.testing.assert_allclose(pictures[0].magnification, pictures[1].magnification, rtol=0.01)


def test_arcs_in_a_box_are_arcs_in_the_stamp():
    b, one = bands("kids", ("u", "r")), lens(theta_e=0.8, dtype=torch.float32)
    source = clump(0.1, 0.05, 0.15, flux=1.0, dtype=torch.float32)
    box = arcs.draw(one, (source,), beta=0.15, reach=0.9, centre=(0.1, 0.05), bands=b, oversample=4)
    for size in (101, 31):  # larger and smaller than the box
        stamp = torch.zeros(2, size, size)
        arcs.paste(stamp, box.images[0])
        g = render.grid(101, 0.2)
        cells = bin_cells(lensed(one, (source,), render.cell_axis(101, 4, 0.2)), 2)
        whole = render.stamp(g, render.cells_spectrum(g, cells, 2)[0] * render.band_response(g, b))
        low = (101 - size) // 2
        whole = whole[:, low : low + size, low : low + size]
        assert float((stamp - whole).abs().max() / whole.max()) < 5e-3


@pytest.mark.parametrize("odd", [0, 1])
def test_a_box_has_the_centre_of_its_stamp(odd):
    b = bands("kids", ("r",))
    one = lens(theta_e=0.8, q=0.999, x=0.0, y=0.0, shear1=0.0, shear2=0.0, dtype=torch.float32)
    ring = arcs.draw(one, (clump(0.0, 0.0, 0.1, 0.0, 0.0, 1.0, torch.float32),), beta=0.0, reach=0.5, centre=(0.0, 0.0),
                     bands=b, oversample=4, odd=odd).images[0, 0]  # fmt: skip
    assert ring.shape[-1] % 2 == odd
    assert float((ring - ring.flip(0, 1)).abs().max() / ring.max()) < 1e-3
