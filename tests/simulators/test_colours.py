from __future__ import annotations

import numpy as np
import pytest

from deepsky.errors import InputError
from deepsky.simulators import _colours as colours
from deepsky.simulators._surveys import SURVEYS, bands

galsim = pytest.importorskip("galsim", reason="galsim is not installed")
LSST = SURVEYS["lsst"]


@pytest.mark.parametrize("kind", [0, 2])
@pytest.mark.parametrize("z", [0.0, 0.3, 0.98])
def test_colours_are_galsims(kind, z):
    spectrum = galsim.SED(f"CWW_{colours.TYPES[kind]}_ext_more.sed", wave_type="Ang", flux_type="flambda").atRedshift(z)
    theirs = []
    for name in "ugrizy":
        curve = galsim.Bandpass(f"LSST_{name}.dat", wave_type="nm").withZeropoint("AB")
        theirs.append(spectrum.calculateMagnitude(curve))
    mine = colours.offsets(np.array([float(kind)]), np.array([z]), LSST)[0]
    np.testing.assert_allclose(mine - mine[3], np.array(theirs) - theirs[3], atol=0.015)


def test_k_correction_of_a_flat_spectrum_and_of_a_power_law(monkeypatch):
    # f_nu constant: AB magnitudes are equal in all bands and move by -2.5 log(1 + z)
    wave = np.geomspace(100, 30000, 3000)
    for slope in (0.0, 1.0):  # f_nu ~ nu**-slope
        monkeypatch.setattr(colours, "spectrum", lambda _, s=slope: (wave, wave ** (s - 2.0)))
        expected = -2.5 * np.log10(1 + 0.5) * (1 - slope)
        got = colours._ab("E", "r", 0.5) - colours._ab("E", "r", 0.0)
        assert got == pytest.approx(expected, abs=2e-3)
    assert colours._ab("E", "g", 0.0) - colours._ab("E", "r", 0.0) > 0.2  # the power law is red


def test_types_are_ordered_and_read_between():
    z = np.full(4, 0.4)
    g, r = bands("lsst", ("g",)), bands("lsst", ("r",))[0]
    flux = colours.relative_flux(np.array([0.0, 1.0, 2.0, 3.0]), z, g, r)[:, 0]
    assert (np.diff(flux) > 0).all()  # bluer from E to Im
    middle = colours.offsets(np.array([0.5]), z[:1], LSST)
    ends = colours.offsets(np.array([0.0, 1.0]), z[:2], LSST)
    np.testing.assert_allclose(middle[0], ends.mean(0), atol=1e-9)
    assert (colours.relative_flux(np.array([1.0]), z[:1], (r,), r) == 1).all()


def test_a_survey_s_own_bands():
    z = np.array([0.5])
    vis = colours.offsets(np.zeros(1), z, bands("euclid"))[0, 0]
    r, i, zz = colours.offsets(np.zeros(1), z, bands("lsst", ("r", "i", "z")))[0]
    assert zz < vis < r and abs(vis - (r + i) / 2) < 0.35
    assert np.isfinite(colours.offsets(np.zeros(1), z, SURVEYS["cosmos"] + SURVEYS["candels"])).all()
    with pytest.raises(InputError, match="no throughput for this band"):
        colours.throughput("Ks")


def test_hydrogen_dims_only_what_is_blue_of_lyman_alpha():
    wave = np.array([3500.0, 4500.0, 4900.0])
    assert (colours.absorption(wave, 0.5) == 1).all()
    at_three = colours.absorption(wave, 3.0)  # Lyman alpha at 4863 A, the edge at 3647 A
    assert at_three[0] < at_three[1] < at_three[2] == 1
    assert 0.6 < at_three[1] < 0.75  # mean transmission of the forest at z = 3 is about 0.68
