"""Made-up galaxies in noise for the benchmarks: cheap to make, and hard enough that accuracy has room to differ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from deepsky import store
from deepsky.io import blake_key
from deepsky.sample import Image, Sample, Truth
from deepsky.survey import Survey


def galaxies(n: int, *, size: int, bands: int, seed: int, first: int = 0, snr: float = 12.0) -> Sample:
    """Gaussian blobs, "long" or "round", at a signal-to-noise ratio where the two are confused now and then."""
    g = np.random.default_rng([seed, first])
    long = g.random(n) < 0.5
    e, phi = np.where(long, 0.35, 0.0), g.uniform(0, math.pi, n)
    width = g.uniform(1.8, 3.2, n)
    axis = np.arange(size, dtype=np.float32) - (size - 1) / 2
    x = axis[None, None, :] - g.uniform(-1, 1, n).astype(np.float32)[:, None, None]
    y = axis[None, :, None] - g.uniform(-1, 1, n).astype(np.float32)[:, None, None]
    e1, e2 = ((e * f(2 * phi)).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    r2 = ((1 - e1) * x**2 - 2 * e2 * x * y + (1 + e1) * y**2) / (width**2 * (1 - e**2))[:, None, None]
    blob = np.exp(-r2 / 2).astype(np.float32)
    blob *= (snr / np.sqrt((blob**2).sum((1, 2)) * bands))[:, None, None]
    flux = g.standard_normal((n, bands, size, size), dtype=np.float32) + blob[:, None]
    ids = tuple(f"{seed}-{first + i}" for i in range(n))
    return Sample(
        id=ids,
        key=torch.from_numpy(np.array([blake_key(i) for i in ids], dtype=np.uint64).view(np.int64)),
        ra=torch.full((n,), torch.nan, dtype=torch.float64),
        dec=torch.full((n,), torch.nan, dtype=torch.float64),
        observations={
            "image": Image(
                torch.from_numpy(flux),
                torch.ones(n, bands, 1, 1),
                unit="nJy",
                bands=tuple(f"band{i + 1}" for i in range(bands)),
                pixel_scale=torch.full((n,), 0.2),
            )
        },
        truth={"shape": Truth(torch.from_numpy((~long).astype(np.int64)), classes=("long", "round"))},
    )


def survey(path: Path, n: int, *, size: int = 64, bands: int = 3, seed: int = 0, snr: float = 12.0) -> Survey:
    """The galaxies as a native survey with folds, written piece by piece."""

    def pieces() -> Iterator[Sample]:
        for first in range(0, n, 1000):
            yield galaxies(min(1000, n - first), size=size, bands=bands, seed=seed, first=first, snr=snr)

    return store.write(pieces(), path, name="made-up galaxies")
