"""Made-up answers of made-up objects: catalogues for tests of judging and of the pages, with no training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import expit, ndtri
from tests import made_up

from deepsky.catalogue import Catalogue
from deepsky.survey import Survey
from deepsky.tasks._densities import LEVELS


def survey(path: Path, n: int = 400, **options: Any) -> Survey:
    """The blobs, with a magnitude and three classes beside their own two."""
    here = made_up.survey(path, n, **options)
    g = np.random.default_rng(1)
    from deepsky.schema import Column

    mag = 20 + 4 * g.random(n)
    mag[: n // 50] = np.nan
    three = np.array(["disk", "irregular", "spheroid"], dtype=object)[g.choice(3, n, p=(0.5, 0.1, 0.4))]
    return here.with_columns(
        {"mag": mag, "kind": pa.array(three.tolist(), pa.string())},
        {
            "mag": Column(unit="mag"),
            "kind": Column("str", role="label", classes=("disk", "irregular", "spheroid")),
        },
    )


def catalogue(columns: Mapping[str, Any], ids: Any, **provenance: Any) -> Catalogue:
    """A catalogue held in memory."""
    made: dict[str, Any] = {"id": pa.array([str(i) for i in ids], pa.string())}
    for name, values in columns.items():
        x = np.asarray(values)
        made[name] = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1]) if x.ndim == 2 else pa.array(x)
    n = len(made["id"])
    made.setdefault("flags", pa.array(np.zeros(n, np.int16)))
    made.setdefault("in_domain", pa.array(np.linspace(0.001, 1, n).astype(np.float32)))
    return Catalogue({}, {"network": "made-up", "model": "0" * 16, **provenance}, held=pa.table(made))


def binary(here: Survey, skill: float = 2.0, seed: int = 0, **provenance: Any) -> Catalogue:
    """Calibrated probabilities of "long" and "round" with conformal sets."""
    g = np.random.default_rng(seed)
    y = (here.column("shape") == "long").astype(float)
    p = expit(skill * (skill * (y - 0.5) + g.normal(size=len(y))))
    sets = {"in_set_long": p > 0.2, "in_set_round": 1 - p > 0.2}
    return catalogue({"p_long": p, "p_round": 1 - p, **sets}, here.id, prior={"long": 0.5, "round": 0.5}, **provenance)


def classes(here: Survey, skill: float = 1.5, seed: int = 0) -> Catalogue:
    """Probabilities of three classes."""
    g = np.random.default_rng(seed)
    names = ("disk", "irregular", "spheroid")
    y = np.array([names.index(v) for v in here.column("kind")])
    logit = g.normal(size=(len(y), 3)) + skill * np.eye(3)[y] + np.log((0.5, 0.1, 0.4))
    p = np.exp(logit) / np.exp(logit).sum(1, keepdims=True)
    sets = {f"in_set_{n}": p[:, i] > 0.15 for i, n in enumerate(names)}
    return catalogue({**{f"p_{n}": p[:, i] for i, n in enumerate(names)}, **sets}, here.id)


def values(here: Survey, sigma: float = 0.15, seed: int = 0) -> Catalogue:
    """Gaussian posteriors of the width, of the right breadth."""
    g = np.random.default_rng(seed)
    y = here.column("width")
    said = y + sigma * g.normal(size=len(y))
    q = said[:, None] + sigma * ndtri(np.array(LEVELS))
    return catalogue({"width": said, "width_quantiles": q, "width_lo": said - 1.64 * sigma,
                      "width_hi": said + 1.64 * sigma}, here.id)  # fmt: skip
