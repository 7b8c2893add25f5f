"""What a look at some FITS objects decides for their survey: bands, size, unit, noise, type."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepsky.errors import InputError
from deepsky.schema import ImageSchema, Noise
from deepsky.surveys._filters import svo
from deepsky.surveys._names import rank
from deepsky.surveys._object import Found, Object, Rules, exact_type, made_up
from deepsky.surveys._planes import bad_bits
from deepsky.surveys._scanned import AGREE, as_size, one_shape
from deepsky.surveys._sky import same_scale


@dataclass(frozen=True)
class Plan:
    """What was decided from a look at some objects."""

    image: ImageSchema
    unit: str
    noise: str
    resize: bool
    varies: bool


def decide(
    known: Sequence[Object], rules: Rules, root: Path, size: int | tuple[int, int] | None
) -> tuple[Plan, list[str]]:
    """Bands, size, pixel scale, unit, noise and type of the survey, as 95% of the objects have them.

    The few that differ have no say in the rest: they are set aside when they are read.

    Raises
    ------
    InputError : a chosen band is in no file, or shapes differ while no size is given.
    """
    bands = band_order(known, rules.bands, root)
    known = [o for o in known if any(b in o.flux for b in bands)]
    target = as_size(size) or one_shape([f.plane.shape for o in known for b, f in o.flux.items() if b in bands], root)
    if size is None:
        known = [o for o in known if all(f.plane.shape == target for b, f in o.flux.items() if b in bands)] or known
    scales = [o.scale(rules) for o in known]
    scale = _one(scales)
    if scale is not None:
        known = [o for o, s in zip(known, scales, strict=True) if same_scale([s, scale])]
    calibrations = [c for o in known for c in o.calibrations(rules).values()]
    units = Counter((c.unit, c.quantity, c.why) for c in calibrations)
    unit, quantity, why = units.most_common(1)[0][0]
    notes = [f"flux: {why} -> {unit or 'no unit'}"]
    others = sum(n for (u, _, _), n in units.items() if u != unit)
    if others:
        notes.append(f"{others} of {units.total()} images are in another unit than {unit or '(none)'}: set aside")
    others = sum(not set(o.flux) <= set(bands) for o in known)
    if others and rules.bands is None:
        more = dict.fromkeys(b for o in known for b in o.flux if b not in bands)
        notes.append(f"{others:,} of {len(known):,} objects have other bands too ({', '.join(more)}): left out")
    varies = scale is None and bool(np.isfinite(scales).any())
    if varies:
        notes.append(f"pixel scales of {np.nanmin(scales):.4g} to {np.nanmax(scales):.4g} arcsec: column pixel_scale")
    for band in bands:
        missing = sum(band not in o.flux for o in known)
        if missing and len({f.path for o in known for f in o.flux.values()}) == len(known):
            notes.append(f"{missing:,} of {len(known):,} objects have no band {band}: ivar 0 there")
    found = Counter(o.noise() for o in known)
    role, many = max(((r, n) for r, n in found.items() if r), key=lambda pair: pair[1], default=("", 0))
    noise = role if many >= found[""] else ""
    if role and not noise:
        notes.append(f"only {many:,} of {len(known):,} objects have noise ({role}): left out")
    kind: Noise = "estimated" if noise == "weight" else "measured" if noise else "unknown"
    notes.append({"measured": f"noise from the {noise} planes", "unknown": "no noise: ivar is a mask",
                  "estimated": "noise from the weights, scaled to the scatter of the sky"}[kind])  # fmt: skip
    exact = {exact_type(o) for o in known}
    raw = len(exact) == 1 and None not in exact and all(c.factor == 1 for c in calibrations)
    dtype = exact.pop() if raw and not rules.sentinel else None
    psfs = [f.plane.shape for o in known for (r, _), f in o.more.items() if r == "psf"]
    all_have = all(any(r == "psf" for r, _ in o.more) for o in known)
    psf = (max(p[0] for p in psfs), max(p[1] for p in psfs)) if psfs and all_have else None
    if psfs and not all_have:
        notes.append("only some objects have a PSF: left out")
    if any(f.layout.hdus[f.plane.hdu].lossy for o in known for f in o.flux.values()):
        notes.append("lossy compression: the pixels were quantised before they came here")
    header = known[0].first.plane.header
    speaks = [(b, known[0].flux.get(b, known[0].first)) for b in bands]
    image = ImageSchema(
        bands, target, unit=unit, quantity=quantity, noise=kind, ivar="pixel",
        pixel_scale=scale, dtype=str(dtype or np.dtype("float32")), psf=psf, correlated=coadded(header),
        filters=tuple(svo(f.plane.header, b, f.path.name) for b, f in speaks),
    )  # fmt: skip
    return Plan(image, unit, noise, size is not None, varies), notes


def band_order(objects: Sequence[Object], bands: Sequence[str] | None, file: object) -> tuple[str, ...]:
    """The axis of bands of a survey: as chosen, as the files have it, or from blue to red.

    A band that 95% of the objects lack is none of the survey's, nor is one without a name where most have names.

    Raises
    ------
    InputError : a chosen band is in no file.
    """
    seen = list(dict.fromkeys(b for o in objects for b in o.flux))
    if bands is not None:
        missing = [b for b in bands if b not in seen]
        if missing:
            raise InputError("a band that no file has", file=file, keyword="FILTER", found=missing[0],
                             known=[b or "(no name)" for b in seen])  # fmt: skip
        return tuple(bands)
    named = Counter(not any(map(made_up, o.flux)) for o in objects)
    count = Counter(b for o in objects for b in o.flux)
    usual = [b for b in seen if len(objects) - count[b] < AGREE * len(objects)] or seen
    usual = [b for b in usual if made_up(b) == (named[False] > named[True])] or usual
    cubes = all(len({f.path for f in o.flux.values()}) == 1 for o in objects)
    if cubes and len({o.first.path for o in objects}) == len(objects):
        orders = Counter(tuple(b for b in o.flux if b in usual) for o in objects)
        first, n = orders.most_common(1)[0]
        if n >= AGREE * len(objects) and len(first) == len(usual):
            return first
    return tuple(sorted(usual, key=rank))


def check_bits(masks: Sequence[Found], chosen: Sequence[str | int] | None) -> tuple[str, ...]:
    """What to say of the mask bits that were chosen: before anything is read.

    Raises
    ------
    InputError : a name that none of the masks knows.
    """
    problems = []
    for mask in masks:
        try:
            bad_bits(mask.plane.header, chosen, mask.path)
        except InputError as error:
            problems.append(error)
    if masks and len(problems) == len(masks):
        raise problems[0]
    return ("mask_bits change nothing: no mask was found",) if chosen and not masks else ()


def _one(scales: Sequence[float]) -> float | None:
    """The pixel scale of all, or of 95% of those who say it; None where more differ or none is known."""
    told = [s for s in scales if math.isfinite(s)]
    if not told:
        return None
    middle = float(np.median(told))
    near = told if same_scale(told) else [s for s in told if same_scale([s, middle])]
    return float(f"{np.median(near):.6g}") if len(near) >= AGREE * len(told) else None


def coadded(header: Mapping[str, Any]) -> bool:
    """Neighbouring pixels share noise: made by SWarp or drizzle, or a coadd of the Legacy Surveys."""
    return ("swarp" in str(header.get("SOFTNAME", "")).lower() or "NDRIZIM" in header
            or str(header.get("SURVEY", "")).lower().startswith("legacysurvey"))  # fmt: skip
