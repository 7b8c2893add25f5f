"""Simulators: objects a second against a plain loop over GalSim, one thread each.

Ellipticity: the same 48 x 48 galaxies (bulge + disk, sheared, Kolmogorov PSF, pixel, noise) drawn by GalSim one after
another from the parameters that ours says are true; before anything is timed the noiseless images of both must agree.
Lenses: GalSim has no lensing, so that its loop draws less than ours: in four bands of 101 x 101 pixels the lens galaxy
and one unlensed source, with noise, where ours traces rays through the lens, rejects what is not magnified and fills
the field with unrelated galaxies and confusers. Lenstronomy is timed only where it is installed; it is no requirement.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import Row, interleaved
from deepsky.errors import need
from deepsky.sample import Sample
from deepsky.simulators import ellipticity, lenses


def run(quick: bool, folder: Path) -> list[Row]:
    """Two rows; neither has a target."""
    galsim: Any = need("galsim", "simulate")
    n, few, repeats = (64, 16, 2) if quick else (512, 128, 5)
    made = ellipticity.simulate(n, seed=1, keep_noiseless=True)
    _check(galsim, made[:16])
    shapes = interleaved({
        "ours": lambda: ellipticity.simulate(n, seed=1),
        "loop": lambda: [_galaxy(galsim, made, i, noise=i) for i in range(n)],
    }, repeats)  # fmt: skip
    some = lenses.simulate(few, seed=1, lens_fraction=1.0)
    arcs = interleaved({
        "ours": lambda: lenses.simulate(few, seed=1, lens_fraction=1.0),
        "loop": lambda: [_unlensed(galsim, some, i) for i in range(few)],
    }, repeats)  # fmt: skip
    rows = [
        Row("simulator ellipticity, 48 x 48", "speed", shapes["ours"].arm("deepsky.simulators.ellipticity"),
            shapes["loop"].arm("GalSim loop, the same galaxies"), objects=n),
        Row("simulator lenses, 4 x 101 x 101", "speed", arcs["ours"].arm("deepsky.simulators.lenses, all lenses"),
            arcs["loop"].arm("GalSim loop without lensing: galaxy and source alone"), objects=few,
            note="" if importlib.util.find_spec("lenstronomy") else "lenstronomy is not installed: not compared"),
    ]  # fmt: skip
    return rows


def _galaxy(galsim: Any, made: Sample, i: int, noise: int | None = None) -> np.ndarray:
    t = {name: truth.value[i].double().numpy() for name, truth in made.truth.items() if name != "noiseless"}
    share, re, (g1, g2) = float(t["bulge_fraction"]), float(t["re"]), t["sheared"]
    parts = [galsim.Exponential(half_light_radius=re, flux=1 - share)]
    if share > 0:
        parts.append(galsim.Sersic(4, half_light_radius=0.5 * re, flux=share))
    galaxy = galsim.Add(parts).shear(g1=g1, g2=g2).shift(*(t["centre"] * 0.2))
    p1, p2 = t["psf_ellipticity"]
    seen = galsim.Convolve(galaxy, galsim.Kolmogorov(fwhm=float(t["psf_fwhm"])).shear(g1=p1, g2=p2))
    image = seen.drawImage(nx=48, ny=48, scale=0.2)
    image *= 1000.0
    if noise is not None:
        image.addNoise(galsim.GaussianNoise(galsim.BaseDeviate(noise + 1), sigma=1.0))
    array: np.ndarray = image.array
    return array


def _check(galsim: Any, made: Sample) -> None:
    """Both draw the same: else their speeds say nothing."""
    for i in range(len(made)):
        ours = made.truth["noiseless"].value[i, 0].double().numpy()
        theirs = _galaxy(galsim, made, i).astype(float)
        theirs *= (ours * theirs).sum() / (theirs**2).sum()
        off = float(np.abs(ours - theirs).max() / ours.max())
        if off > 0.02:
            raise RuntimeError(f"the galaxies of ours and of GalSim differ by {off:.1%} of the peak")


def _unlensed(galsim: Any, made: Sample, i: int) -> list[np.ndarray]:
    rng, out = np.random.default_rng(i), []
    x, y = (0.2 * made.truth["centre"].value[i]).tolist()
    for band in range(made.observation("image").flux.shape[1]):
        psf = galsim.Moffat(beta=3.5, fwhm=0.7)
        lens = galsim.DeVaucouleurs(half_light_radius=rng.uniform(0.8, 2.0)).shear(g1=0.1, g2=0.05).shift(x, y)
        source = galsim.Exponential(half_light_radius=rng.uniform(0.1, 0.4)).shift(*rng.uniform(-2, 2, 2))
        image = galsim.Convolve(galsim.Add([lens, source]), psf).drawImage(nx=101, ny=101, scale=0.2)
        image.addNoise(galsim.GaussianNoise(galsim.BaseDeviate(10 * i + band + 1), sigma=0.01))
        out.append(image.array)
    return out
