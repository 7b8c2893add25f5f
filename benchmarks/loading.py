"""Loading: shuffled training batches of 64 from a native survey.

10,000 images of 3 x 64 x 64 float32 with their inverse variances and labels, in the page cache. One repetition is one
epoch of the order that training uses. The peers: PyTorch's DataLoader (in one process, as ours) over one FITS file an
object, opened with astropy; and what the machine allows, `numpy.take` of the same rows from memory-mapped arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from torch.utils.data import DataLoader, Dataset

from benchmarks._measure import Row, interleaved
from benchmarks._sky import survey
from deepsky.augment import Augmentation
from deepsky.order import Order
from deepsky.plan import Settings
from deepsky.survey import Survey
from deepsky.tasks.classify import Classify

BATCH = 64


class _Files(Dataset[tuple[torch.Tensor, int]]):
    """One FITS file an object, as it is commonly written down."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int]) -> None:
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        with fits.open(self.paths[number]) as hdus:
            return torch.from_numpy(hdus[0].data.astype(np.float32)), self.labels[number]


def settings(batch: int = BATCH, seed: int = 0) -> Settings:
    """Those of a plain run."""
    return Settings(
        seed=seed, batch=batch, optimiser="adamw", lr=2e-3, weight_decay=0.02, momentum=0.9, l1=0, l2=0,
        schedule="cosine", warmup=0.05, ema=0.99, clip=1.0, patience=0, augment="", balance=False, level=0.9,
    )  # fmt: skip


def run(quick: bool, folder: Path) -> list[Row]:
    """Two rows: against a file an object, and against the memory map."""
    n, files, repeats = (2000, 500, 3) if quick else (10_000, 2000, 7)
    whole = survey(folder / "survey", n)
    task = Classify("shape").bind(whole)
    order, nothing, steps = Order(whole, settings(), task), Augmentation(), n // BATCH
    epoch = iter(range(10**6))

    def ours() -> None:
        first = next(epoch) * steps
        for step in range(first, first + steps):
            order.batch(step, nothing)

    loader = _loader(whole, folder / "files", files)

    def theirs() -> None:
        for _ in loader:
            pass

    rng = np.random.default_rng(0)
    flux, ivar = (_mapped(whole, name, folder) for name in ("image.flux", "image.ivar"))

    def bare() -> None:
        at = rng.permutation(n)
        for i in range(0, steps * BATCH, BATCH):
            rows = at[i : i + BATCH]
            np.take(flux, rows, axis=0), np.take(ivar, rows, axis=0)

    times = interleaved({"ours": ours, "files": theirs, "bare": bare}, repeats)
    share = files / (steps * BATCH)  # the files are fewer: the same number of objects for both
    scaled = times["files"].arm("DataLoader over one FITS file an object")
    scaled = type(scaled)(scaled.name, tuple(t / share for t in scaled.values), tuple(t / share for t in scaled.wall))
    mine, objects = times["ours"].arm("native survey, batches as training draws them"), steps * BATCH
    return [
        Row("shuffled training batches", "speed", mine, scaled, 10, objects=objects,
            note=f"the DataLoader read {files:,} files a repetition; its time is scaled to the same number of objects"),
        Row("shuffled training batches, share of the limit", "speed", mine,
            times["bare"].arm("numpy.take from memory maps of the same bytes"), 0.7, objects=objects),
    ]  # fmt: skip


def _loader(whole: Survey, folder: Path, count: int) -> DataLoader[tuple[torch.Tensor, int]]:
    folder.mkdir()
    sample = whole.gather(slice(0, count))
    paths = []
    for number, flux in enumerate(sample.observation("image").flux.numpy()):
        paths.append(folder / f"{number}.fits")
        fits.PrimaryHDU(flux).writeto(paths[-1])
    return DataLoader(_Files(paths, sample.truth["shape"].value.tolist()), batch_size=BATCH, shuffle=True)


def _mapped(whole: Survey, name: str, folder: Path) -> np.ndarray:
    """The same array in one file, whatever the tiles."""
    parts = [np.load(whole.path / "tiles" / t.name / f"{name}.npy", mmap_mode="r") for t in whole.tiles]
    np.save(folder / f"{name}.npy", np.concatenate(parts))
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
