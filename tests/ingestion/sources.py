"""Sources for the tests of ingest: made-up images, with whatever is wrong with them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.schema import Column, ImageSchema, Schema
from deepsky.source import Block, Rejected, Source

SIDE = 12


@final
@dataclass(frozen=True, eq=False)
class Made(Source):
    """`n` images that follow from their number alone.

    Attributes
    ----------
    faults : number of the object -> what is wrong with it ("nan", "negative", "constant", "empty", "infinite ivar",
        "crash", "refused", "raise", "lost", "huge").
    """

    guarded: ClassVar[bool] = True
    n: int = 60
    faults: tuple[tuple[int, str], ...] = ()
    positions: bool = False
    nap: float = 0.0
    scale: float = 1.0
    side: int = SIDE

    def items(self) -> pa.Table:
        """Every object."""
        number = np.arange(self.n)
        draw = np.random.default_rng(1)
        ra = draw.uniform(0, 360, self.n) if self.positions else np.full(self.n, np.nan)
        dec = np.degrees(np.arcsin(draw.uniform(-1, 1, self.n))) if self.positions else ra
        nbytes = np.full(self.n, 8 * self.side**2)
        return pa.table({"id": [f"m{i}" for i in number], "ra": ra, "dec": dec, "bytes": nbytes, "mag": number * 0.1,
                         "_number": number})  # fmt: skip

    def read(self, items: pa.Table) -> Block:
        """Noise, with the faults."""
        faults = dict(self.faults)
        time.sleep(self.nap)
        ids, flux, ivar, bad = [], [], [], []
        for name, number in zip(items["id"].to_pylist(), items["_number"].to_pylist(), strict=True):
            fault = faults.get(number, "")
            if fault == "crash":
                os.kill(os.getpid(), 11)
            if fault == "raise":
                raise ValueError("this reader is broken")
            if fault == "refused":
                bad.append(
                    Rejected(name, str(InputError("the header is odd", file=f"{name}.fits", found="XTENSION")), name)
                )
                continue
            if fault == "lost":
                continue
            image = np.random.default_rng(number).normal(size=(1, self.side, self.side)) * self.scale
            weight = np.full(image.shape, 1.0 / self.scale**2)
            if fault == "nan":
                image[0, :3] = np.nan
            if fault == "negative":
                weight[0, 0, 0] = -1
            if fault == "infinite ivar":
                weight[0, 0, 0] = np.inf
            if fault == "constant":
                image[:] = 7.0
            if fault == "empty":
                weight[:] = 0
            if fault == "huge":
                image[0, 0, 0] = 1e39 * self.scale
            ids.append(name)
            flux.append(image)
            ivar.append(weight)
        shape = (0, 1, self.side, self.side)
        arrays = {"image.flux": np.stack(flux) if flux else np.zeros(shape),
                  "image.ivar": np.stack(ivar) if ivar else np.zeros(shape)}  # fmt: skip
        return Block(tuple(ids), arrays, rejected=tuple(bad))


def made(side: int = SIDE, **options: object) -> Made:
    """A source with its schema."""
    image = ImageSchema(("g",), (side, side), unit="nJy", noise="measured", ivar="pixel", pixel_scale=0.2)
    return Made("made up", Schema("made", {"image": image}, {"mag": Column("float64", "mag")}), side=side, **options)  # type: ignore[arg-type]
