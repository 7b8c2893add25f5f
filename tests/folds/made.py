"""Surveys of small random images for the tests of folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from deepsky import store
from deepsky.io import blake_keys
from deepsky.sample import Image, Sample, Truth
from deepsky.survey import Survey


def survey(
    to: Path,
    *,
    ra: np.ndarray | None = None,
    dec: np.ndarray | None = None,
    flux: np.ndarray | None = None,
    ivar: np.ndarray | None = None,
    classes: np.ndarray | None = None,
    n: int = 100,
    size: int = 8,
    pixel_scale: float = float("nan"),
    seed: int = 0,
    folds: dict[str, object] | None = None,
) -> Survey:
    """Objects with noise for pixels, and with what is given."""
    draw = np.random.default_rng(seed)
    given = [x for x in (ra, flux, classes) if x is not None]
    n = len(given[0]) if given else n
    flux = draw.normal(size=(n, 1, size, size)) if flux is None else flux
    ids = tuple(f"o{i}" for i in range(n))
    nan = np.full(n, np.nan)
    truth = {} if classes is None else {"kind": Truth(torch.from_numpy(classes), classes=("a", "b", "c"))}
    sample = Sample(
        ids,
        torch.from_numpy(blake_keys(ids).view(np.int64)),
        torch.from_numpy(nan if ra is None else np.asarray(ra, np.float64)),
        torch.from_numpy(nan if dec is None else np.asarray(dec, np.float64)),
        {
            "image": Image(
                torch.from_numpy(flux).float(),
                torch.ones(n, 1, 1, 1) if ivar is None else torch.from_numpy(ivar).float(),
                bands=tuple("grizy"[: flux.shape[1]]),
                pixel_scale=torch.full((n,), pixel_scale),
            )
        },
        truth,
    )
    return store.write([sample], to, folds=folds or {})  # type: ignore[arg-type]
