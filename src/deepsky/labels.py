"""Labels: a layer of its own beside the observations, versioned, joined when a survey is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from deepsky.schema import Column


def joined(path: Path, ids: pa.ChunkedArray) -> tuple[dict[str, np.ndarray], dict[str, Column]]:
    """The label columns of a survey, aligned with `ids`."""
    return {}, {}
