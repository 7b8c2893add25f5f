from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deepsky.simulators import _confusers as confusers
from deepsky.simulators import _features as features
from deepsky.simulators._random import Draws
from deepsky.simulators._surveys import SURVEYS, bands

AXIS = torch.linspace(-6, 6, 301)
FACE_ON = features.Plane(0.0, 0.0, 1.0, 0.0)


def polar():
    return torch.hypot(AXIS[None], AXIS[:, None]), torch.atan2(
        AXIS[:, None].expand(301, 301), AXIS[None].expand(301, 301)
    )


def test_a_ring_lies_at_its_radius():
    picture = features.ring(features.Plane(0.5, -0.4, 1.0, 0.0), AXIS, radius=2.0, width=0.2, harmonics=[])
    r = torch.hypot(AXIS[None] - 0.5, AXIS[:, None] + 0.4)
    assert float(picture.sum()) == pytest.approx(1.0)
    assert float((picture * r).sum()) == pytest.approx(2.0 + 0.2**2 / 2.0, abs=0.01)  # weighted by the circumference
    assert float((picture * (r - 2.0) ** 2).sum()) ** 0.5 == pytest.approx(0.2, abs=0.01)


def test_a_tilted_ring_is_an_ellipse():
    plane = features.Plane(0.0, 0.0, 0.5, math.pi / 3)
    picture = features.ring(plane, AXIS, radius=2.0, width=0.1, harmonics=[])
    xx, yy = float((picture * AXIS[None] ** 2).sum()), float((picture * AXIS[:, None] ** 2).sum())
    xy = float((picture * AXIS[None] * AXIS[:, None]).sum())
    assert 0.5 * math.atan2(2 * xy, xx - yy) == pytest.approx(math.pi / 3, abs=0.01)


def test_arms_wind_at_their_pitch():
    pitch = math.radians(20)
    picture = features.spiral(FACE_ON, AXIS, scale=1.0, arms=2, pitch=pitch, phase=0.3, tightness=6.0, knots=[])
    r, azimuth = polar()
    for radius in (0.8, 1.5, 2.5):
        near = (r - radius).abs() < 0.04
        second = torch.complex(
            (picture * torch.cos(2 * azimuth))[near].sum(), (picture * torch.sin(2 * azimuth))[near].sum()
        )
        expected = 2 * (math.log(radius) / math.tan(pitch) + 0.3)
        difference = math.remainder(float(second.angle()) - expected, 2 * math.pi)
        assert abs(difference) < 0.15
        first = torch.complex((picture * torch.cos(azimuth))[near].sum(), (picture * torch.sin(azimuth))[near].sum())
        assert first.abs() < 0.05 * second.abs()  # two arms alike


def test_knots_lie_on_the_arms():
    plane = features.Plane(0.3, 0.2, 0.6, 0.9)
    knot = (1.4, 0.0, 1.0)
    x, y = features._place(plane, 1.4, features._on_arm(knot, 2, 0.5, 0.2))
    with_knot = features.spiral(
        plane, AXIS, scale=1.0, arms=2, pitch=0.5, phase=0.2, tightness=4.0, knots=[(1.4, 0.0, 50.0)]
    )
    at = divmod(int(with_knot.argmax()), 301)
    assert (float(AXIS[at[1]]), float(AXIS[at[0]])) == pytest.approx((x, y), abs=0.05)
    bare = features.spiral(plane, AXIS, scale=1.0, arms=2, pitch=0.5, phase=0.2, tightness=4.0, knots=[])
    i, j = int((AXIS - y).abs().argmin()), int((AXIS - x).abs().argmin())
    assert float(bare[i, j]) > 3 * float(bare.mean())


def test_a_tail_starts_where_it_should_and_opens():
    picture = features.tail(FACE_ON, AXIS, radius=1.5, width=0.1, start=0.4, length=2.0, unwinding=0.5)
    r, azimuth = polar()
    early, late = (azimuth - 0.8).abs() < 0.1, (azimuth - 2.0).abs() < 0.1
    mean = [float((picture * r)[w].sum() / picture[w].sum()) for w in (early, late)]
    assert mean == pytest.approx([1.5 * (1 + 0.5 * 0.2), 1.5 * (1 + 0.5 * 0.8)], rel=0.03)
    assert float(picture[(azimuth < 0.2) & (azimuth > -2.0)].sum()) < 0.02
    assert float(picture[early].sum()) > float(picture[late].sum())


@pytest.mark.parametrize("function", [confusers.spirals, confusers.rings, confusers.mergers])
def test_confusers_hold_the_flux_of_their_magnitude(function):
    pytest.importorskip("galsim", reason="galsim is not installed")
    rows, u = np.arange(40), Draws(1).uniform(np.arange(40), confusers.DRAWS)
    r = bands("kids", ("r",))[0]
    smooth, made = function(rows, u, SURVEYS["kids"], r, np.zeros((40, 2)))
    total = np.zeros(40)
    np.add.at(total, smooth.owner, smooth.flux[:, 2])
    for one in made:
        total[one.owner] += one.flux[2]
        reach = one.reach + math.hypot(one.plane.x, one.plane.y)
        axis = torch.linspace(-2 * reach, 2 * reach, 241)
        picture = confusers.draw(one, axis)
        assert bool(torch.isfinite(picture).all()) and float(picture.min()) >= 0
        x, y = axis[None] - one.plane.x, axis[:, None] - one.plane.y
        inside = torch.hypot(x, y) < one.reach
        assert float(picture[inside].sum()) > 0.9  # what `reach` promises
    from deepsky.simulators._noise import magnitude

    np.testing.assert_allclose(magnitude(total), confusers._host(u)[0], atol=1e-6)
