"""A small made-up survey for tests: round and elongated blobs in noise, with every kind of truth."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from deepsky import store
from deepsky.io import blake_key
from deepsky.sample import Image, Sample, Truth
from deepsky.survey import Survey

SIGMA = 0.5


def blobs(
    n: int = 120, *, size: int = 24, bands: tuple[str, ...] = ("g", "r"), seed: int = 0, first: int = 0
) -> Sample:
    """Gaussian blobs: class "long" (|e| > .3) or "round", ellipticity, position and size as truth."""
    g = np.random.default_rng([seed, first])
    flux = g.uniform(60, 200, n)
    width = g.uniform(2.0, 3.5, n)
    long = np.arange(first, first + n) % 2 == 0
    e, phi = np.where(long, g.uniform(0.4, 0.6, n), g.uniform(0, 0.1, n)), g.uniform(0, math.pi, n)
    e1, e2 = e * np.cos(2 * phi), e * np.sin(2 * phi)
    dx, dy = g.uniform(-1, 1, n), g.uniform(-1, 1, n)
    axis = np.arange(size) - (size - 1) / 2
    x = axis[None, None, :] - dx[:, None, None]
    y = axis[None, :, None] - dy[:, None, None]
    c, s = (width**2)[:, None, None], (1 - e**2)[:, None, None]
    r2 = ((1 - e1[:, None, None]) * x**2 - 2 * e2[:, None, None] * x * y + (1 + e1[:, None, None]) * y**2) / (c * s)
    blob = flux[:, None, None] / (2 * math.pi * width**2)[:, None, None] * np.exp(-r2 / 2)
    image = np.stack([blob * (1 + 0.2 * i) for i in range(len(bands))], 1) + g.normal(
        0, SIGMA, (n, len(bands), size, size)
    )
    ids = tuple(f"blob-{first + i:05d}" for i in range(n))
    grid = torch.arange(first, first + n, dtype=torch.float64)
    return Sample(
        id=ids,
        key=torch.from_numpy(np.array([blake_key(i) for i in ids], dtype=np.uint64).view(np.int64)),
        ra=150.0 + 0.01 * (grid % 40),
        dec=2.0 + 0.01 * torch.div(grid, 40, rounding_mode="floor"),
        observations={
            "image": Image(
                torch.from_numpy(image.astype(np.float32)),
                torch.full((n, len(bands), 1, 1), 1 / SIGMA**2),
                unit="nJy",
                bands=bands,
                pixel_scale=torch.full((n,), 0.2),
            )
        },
        truth={
            "shape": Truth(torch.from_numpy((~long).astype(np.int64)), classes=("long", "round")),
            "e": Truth(torch.from_numpy(np.stack([e1, e2], -1)), moves="spin2"),
            "width": Truth(torch.from_numpy(width), unit="pix"),
            "offset": Truth(torch.from_numpy(np.stack([dx, dy], -1)), moves="vector", unit="pix"),
        },
    )


def survey(path: Path, n: int = 240, **options: object) -> Survey:
    """The blobs as a native survey with folds."""
    half = [blobs(n // 2, first=0, **options), blobs(n - n // 2, first=n // 2, **options)]  # type: ignore[arg-type]
    return store.write(half, path, name="blobs")
