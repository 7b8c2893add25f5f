from __future__ import annotations

import numpy as np
from astropy.cosmology import FlatLambdaCDM

from deepsky.simulators import _cosmology as cosmology

REFERENCE = FlatLambdaCDM(H0=70, Om0=0.3, Tcmb0=0)
Z = np.array([0.01, 0.1, 0.237, 0.5, 1.0, 1.618, 3.0, 6.5])


def test_distances_are_astropys():
    np.testing.assert_allclose(cosmology.comoving(Z), REFERENCE.comoving_distance(Z).value, rtol=1e-8)
    np.testing.assert_allclose(cosmology.angular(Z), REFERENCE.angular_diameter_distance(Z).value, rtol=1e-8)
    np.testing.assert_allclose(cosmology.distance_modulus(Z), REFERENCE.distmod(Z).value, atol=1e-7)
    kpc = REFERENCE.kpc_proper_per_arcmin(Z).value / 60
    np.testing.assert_allclose(cosmology.arcsec_of(np.full(len(Z), 5.0), Z), 5 / kpc, rtol=1e-7)


def test_distance_between_two_redshifts_is_astropys():
    near = np.array([0.1, 0.3, 0.9])
    far = np.array([0.35, 2.0, 3.0])
    between = REFERENCE.comoving_transverse_distance(far).value - REFERENCE.comoving_transverse_distance(near).value
    np.testing.assert_allclose(cosmology.angular(far, near), between / (1 + far), rtol=1e-8)


def test_einstein_radius():
    # 1 arcsec is 4 pi (186.2 km/s / c)**2 for a source at infinity: 28.8" (sigma / 1000 km/s)**2
    sigma = np.array([186.2, 300.0, 300.0])
    theta = cosmology.einstein_radius(sigma, np.array([1e-6, 0.5, 0.5]), np.array([5.0, 2.0, 0.4]))
    assert abs(theta[0] - 1.0) < 2e-3
    ratio = cosmology.angular(2.0, 0.5) / cosmology.angular(2.0)
    assert abs(theta[1] - 28.78 * 0.09 * ratio) < 5e-3
    assert theta[2] == 0.0  # a source in front is not lensed
