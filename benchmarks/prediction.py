"""Prediction: a saved model applied to a native survey of 4 x 64 x 64 images, reading and writing included.

Ours is `predict` to a folder: contract checked, tiles gathered, probabilities calibrated, conformal sets, p-values
under the training domain, flags, one file a tile, the joined catalogue, the manifest, everything synchronised to the
disk. For a network of a millisecond an object or more the limit is the bare forward pass of network and head, on
images that lie in memory, stretched and normalised; for a lighter one it is reading from the memory map,
normalisation and forward pass, softmax, and one Parquet file. All in the precision that the model was calibrated in.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from benchmarks._measure import Row, interleaved
from benchmarks._sky import survey
from deepsky import model as models
from deepsky.inference import predict
from deepsky.sample import Image, Sample
from deepsky.survey import Survey
from deepsky.tasks.classify import Classify
from deepsky.training import train

BATCH = 256
NETWORKS = (("resnet", "medium", 0.9), ("resnet", "small", 0.8))


def run(quick: bool, folder: Path) -> list[Row]:
    """One row a network."""
    n, repeats = (1024, 2) if quick else (6144, 5)
    whole = survey(folder / "survey", n, bands=4)
    rows = []
    for network, depth, target in NETWORKS:
        place = folder / depth
        train(Classify("shape"), whole, network=network, settings={"depth": depth}, steps=2, baseline=None, to=place,
              quiet=True)  # fmt: skip
        rows.append(_row(models.load(place), whole, target, repeats, folder, f"{network}, {depth}"))
    return rows


def _row(model: models.Model, whole: Survey, target: float, repeats: int, folder: Path, name: str) -> Row:
    to, n = folder / "catalogue", len(whole)

    def ours() -> None:
        shutil.rmtree(to, ignore_errors=True)
        predict(model, whole, to=to, batch=BATCH, quiet=True)

    heavy = target > 0.8
    bare = _forward(model, whole) if heavy else _bare(model, whole, folder / "bare.parquet")
    times = interleaved({"ours": ours, "bare": bare}, repeats)
    words = "bare forward pass, images in memory" if heavy else "reading, forward pass and writing done bare"
    each = 1e3 * median(times["bare"].cpu) / n
    if heavy and each < 1:
        words += " (lighter here than the millisecond an object that the target is for)"
    what, note = f"prediction, {each:.1f} ms an object", f"{model.contract.dtype}, batches of {BATCH}"
    mine = times["ours"].arm(f"deepsky.predict, {name}")
    return Row(what, "speed", mine, times["bare"].arm(words), target, objects=n, note=note)


def _ready(model: models.Model) -> nn.Module:
    return copy.deepcopy(model.module).to(memory_format=torch.channels_last).eval()


def _forward(model: models.Model, whole: Survey) -> Callable[[], None]:
    module = _ready(model)
    with torch.no_grad():
        images = module.normalise(whole.gather(slice(None), truth=()))

    @torch.no_grad()
    def forward() -> None:
        for i in range(0, len(images), BATCH):
            with torch.autocast("cpu", torch.bfloat16, enabled=model.contract.dtype == "bfloat16"):
                features = module.network(images[i : i + BATCH])
            module.head(features.float())

    return forward


def _bare(model: models.Model, whole: Survey, file: Path) -> Callable[[], None]:
    module = _ready(model)
    bands = whole.schema.observations["image"].bands  # type: ignore[union-attr]

    @torch.no_grad()
    def bare() -> None:
        tables = []
        for tile in whole.tiles:
            flux, ivar = (np.load(whole.path / "tiles" / tile.name / f"image.{x}.npy", "r") for x in ("flux", "ivar"))
            for i in range(0, tile.count, BATCH):
                some = [torch.from_numpy(np.array(a[i : i + BATCH])) for a in (flux, ivar)]
                n = len(some[0])
                image = Image(some[0], some[1].view(n, -1, 1, 1), bands=bands)
                nowhere = torch.empty(n, dtype=torch.float64)
                sample = Sample(("",) * n, torch.empty(n, dtype=torch.int64), nowhere, nowhere, {"image": image})
                with torch.autocast("cpu", torch.bfloat16, enabled=model.contract.dtype == "bfloat16"):
                    features = module.network(module.normalise(sample))
                p = torch.softmax(module.head(features.float()), 1).numpy()
                ids = whole.index["id"].slice(tile.start + i, n)
                tables.append(pa.table({"id": ids, "p_long": p[:, 0], "p_round": p[:, 1]}))
        pq.write_table(pa.concat_tables(tables), file)

    return bare
