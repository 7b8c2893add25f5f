"""The picture in the README: simulated KiDS cutouts, lenses above and what resembles them below.

python docs/picture.py docs/figures/lenses.jpg
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np

from deepsky.simulators import lenses

ROWS, COLUMNS = (("lens", 2), ("galaxy", 1), ("spiral", 1), ("ring", 1)), 8


def rgb(flux: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """(y, x, 3) from i, r, g by an asinh stretch of the mean that keeps colours (Lupton+2004)."""
    bands = np.stack([flux[i] / sigma[2] * factor for i, factor in ((3, 0.75), (2, 1.0), (1, 1.7))], -1)
    mean = bands.mean(-1, keepdims=True)
    stretched = bands * np.arcsinh(mean.clip(0) / 3) / 3.4 / np.maximum(mean, 1e-6) + 0.05
    return stretched.clip(0, 1)


def main(path: str) -> None:
    sample = lenses.simulate(400, seed=2026, survey="kids", theta_e=(0.9, 2.4), size=81)
    image = sample.observations["image"]
    kind = np.array(sample.truth["kind"].classes)[sample.truth["kind"].value.numpy()]
    snr = np.nan_to_num(sample.truth["snr_arc"].value.numpy())
    sigma = image.ivar[0, :, 0, 0].rsqrt().numpy()
    chosen = []
    for name, rows in ROWS:
        here = np.flatnonzero(kind == name)
        chosen += list(here[np.argsort(-snr[here])][: rows * COLUMNS] if name == "lens" else here[: rows * COLUMNS])
    figure, axes = plt.subplots(len(chosen) // COLUMNS, COLUMNS, figsize=(11, 7), facecolor="black")
    for axis, i in zip(axes.flat, chosen, strict=True):
        axis.imshow(rgb(image.flux[i].numpy(), sigma), origin="lower")
        axis.axis("off")
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0.02)
    figure.savefig(path, dpi=90, pil_kwargs={"quality": 88} if path.endswith(".jpg") else {})


if __name__ == "__main__":
    main(sys.argv[1])
