"""check: what may be wrong with a native survey, before anything is trained on it."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from deepsky import folds as fold_rules
from deepsky import store
from deepsky.io import atomic_write, read_json
from deepsky.labels.cells import natural
from deepsky.quality import sky_words
from deepsky.report.gallery import SHEET, contact_sheet
from deepsky.report.plots import sky_map, style
from deepsky.sample import Image
from deepsky.schema import ImageSchema
from deepsky.survey import FOLDS, Survey

SOME = 3000  # objects that are read for outliers
VERIFIED = 2 << 30  # bytes up to which checksums are compared
FAR = 6.0  # robust standard deviations
SHOWN = 3  # lines of one kind, or labels, before they are only counted
DRAWN = 40  # objects of the picture
RARE = 20  # objects of a class in a fold, below which its figures mean little


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes
    ----------
    leaks : what the folds share, None without folds.
    classes : label -> fold -> class -> objects.
    quality : fractions over all objects: not measured, saturated, at an edge.
    outliers : (id, robust distance, the feature that is farthest), the farthest first.
    tiles : disagreements of tiles with the schema, and arrays whose bytes changed.
    cost : estimates for a pass over the training fold.
    problems : the findings that need a decision, in words.
    """

    survey: str
    objects: int
    tile_count: int
    nbytes: int
    real: bool
    leaks: fold_rules.Leaks | None
    classes: Mapping[str, Mapping[str, Mapping[str, int]]]
    quality: Mapping[str, Mapping[str, float]]
    outliers: tuple[tuple[str, float, str], ...]
    tiles: tuple[str, ...]
    cost: Mapping[str, float]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    picture: str = ""

    def json(self) -> dict[str, Any]:
        """As JSON literals."""
        return asdict(self)

    def __str__(self) -> str:
        kind = "real" if self.real else "simulated"
        lines = [
            f"{self.survey}: {self.objects:,} {kind} objects, {self.tile_count} tile{'s'[: self.tile_count != 1]}, "
            f"{self.nbytes / 1e6:,.1f} MB"
        ]
        lines += [
            "folds",
            *(f"  {line.strip()}" for line in str(self.leaks or "none").splitlines()[bool(self.leaks) :]),
        ]
        for label, by_fold in list(self.classes.items())[:SHOWN]:
            lines.append(f"classes of {label}")
            lines += [f"  {fold:<7}" + ", ".join(f"{c} {n:,}" for c, n in of.items()) for fold, of in by_fold.items()]
        if len(self.classes) > SHOWN:
            lines.append(f"classes of {len(self.classes) - SHOWN} more labels: in json()")
        lines += ["pixels"] * bool(self.quality)
        lines += [f"  {name}: {q['mean']:.2%} in the mean, more than half in {q['half']:,.0f} objects"
                  for name, q in self.quality.items()]  # fmt: skip
        if self.outliers:
            lines.append("outliers (robust standard deviations)")
            lines += [f"  {i}: {d:.0f} in {what}" for i, d, what in self.outliers[: 2 * SHOWN]]
        if self.cost:
            c = self.cost
            lines += ["cost", f"  one pass over {c['train']:,.0f} training objects: {c['seconds']:.1f} s of reading",
                      f"  {c['bytes'] / 1e6:,.0f} MB as float32; a batch of 64: {c['batch'] / 1e6:.1f} MB"]  # fmt: skip
        lines += [f"note: {n}" for n in _brief(self.notes)]
        lines += [f"PROBLEM: {p}" for p in _brief(self.problems)] or ["no problem was found"]
        if self.picture:
            lines.append(f"picture: {self.picture}")
        return "\n".join(lines)


def _brief(lines: Sequence[str]) -> list[str]:
    """Lines that begin alike, told apart by a label's name, as the first few and how many more there are."""
    found: dict[str, list[str]] = {}
    for line in lines:
        found.setdefault(re.sub(r"objects of .* in the fold|'.*'", "", line), []).append(line)
    brief: list[str] = []
    for same in found.values():
        brief += same[:SHOWN]
        if len(same) > SHOWN:
            brief.append(f"... and {len(same) - SHOWN} more like this")
    return brief


def check(survey: Survey | str | Path, *, to: str | Path | None = "check.png", verify: bool | None = None) -> Check:
    """Look for what spoils a training: leaks, duplicates, unmeasured pixels, outliers, rare classes, damaged tiles.

    Parameters
    ----------
    to : picture of objects and of the sky; None writes nothing.
    verify : compare every array with its checksum; by default where they hold less than 2 GB.

    Raises
    ------
    InputError : no native survey.
    """
    survey = survey if isinstance(survey, Survey) else Survey.load(survey)
    whole = survey.whole or survey
    nbytes = sum(p.stat().st_size for p in (whole.path / "tiles").rglob("*.npy"))
    tiles = _tiles(whole)
    if not tiles and (nbytes < VERIFIED if verify is None else verify):
        tiles = [f"{Path(p).relative_to(whole.path)} is missing or its bytes changed" for p in store.verify(whole)]
    if not tiles and store.fingerprint(whole) != whole.hash:
        tiles = ["schema.json, or the keys of the index, are not as they were when the survey was written"]
    leaks = fold_rules.leaks(whole) if "fold" in whole.index.column_names else None
    classes = _classes(survey)
    quality = _quality(survey)
    readable = not any("missing" in t or "instead" in t for t in tiles)
    outliers, empty = _outliers(survey) if readable else ((), [])
    problems = _problems(leaks, classes, quality, outliers, tiles) + empty + (_sky_words(survey) if readable else [])
    picture = str(_draw(survey, Path(to))) if to is not None and readable else ""
    folds = whole.path / "folds.json"
    notes = (*whole.schema.notes, *(read_json(folds)["notes"] if folds.exists() else ()))
    return Check(
        survey=survey.name, objects=len(survey), tile_count=len(whole.tiles), nbytes=nbytes, real=whole.schema.real,
        leaks=leaks, classes=classes, quality=quality, outliers=outliers, tiles=tuple(tiles),
        cost=_cost(survey) if readable else {}, problems=tuple(problems), notes=notes, picture=picture,
    )  # fmt: skip


def _tiles(survey: Survey) -> list[str]:
    """Arrays that are missing, or whose shape or type is not what schema and index say."""
    found = []
    kinds: dict[str, tuple[object, str]] = {}
    for tile in survey.tiles:
        folder = survey.path / "tiles" / tile.name
        names = [f"{n}.{part}" for n in survey.schema.observations for part in ("flux", "ivar")]
        names += [f"truth.{n}" for n, c in survey.schema.columns.items() if c.array]
        for name in names:
            path = folder / f"{name}.npy"
            if not path.exists():
                found.append(f"tiles/{tile.name}/{name}.npy is missing")
                continue
            array = np.load(path, mmap_mode="r")
            if len(array) != tile.count:
                found.append(f"tiles/{tile.name}/{name}.npy holds {len(array):,} objects instead of {tile.count:,}")
            if name.endswith(".flux"):
                rule = survey.schema.observations[name.removesuffix(".flux")]
                if array.shape[1:] != rule.shape or str(array.dtype) != rule.dtype:
                    found.append(f"tiles/{tile.name}/{name}.npy is {array.dtype} {array.shape[1:]} instead of "
                                 f"{rule.dtype} {rule.shape}")  # fmt: skip
            first = kinds.setdefault(name, (array.shape[1:], str(array.dtype)))
            if first != (array.shape[1:], str(array.dtype)):
                found.append(f"tiles/{tile.name}/{name}.npy differs from other tiles: {array.dtype} {array.shape[1:]} "
                             f"instead of {first[1]} {first[0]}")  # fmt: skip
    return list(dict.fromkeys(found))


def _classes(survey: Survey) -> dict[str, dict[str, dict[str, int]]]:
    """How many objects of each class lie in each fold; "(none)" has no label."""
    fold = survey.column("fold").astype(str) if "fold" in survey.index.column_names else np.full(len(survey), "all")
    out: dict[str, dict[str, dict[str, int]]] = {}
    order = [f for f in (*FOLDS, fold_rules.BUFFER, "all") if f in set(fold)]
    for name, column in survey.schema.columns.items():
        if column.array or column.role == "scalar" or name not in survey.index.column_names:
            continue
        words = np.asarray(["(none)" if v is None or v != v else f"{v:g}" if isinstance(v, float) else str(v)
                            for v in survey.column(name).tolist()], dtype=object)  # fmt: skip
        kinds = sorted(set(words) - {"(none)"}, key=natural)
        if (not column.classes and len(kinds) > 20) or _split(kinds):
            continue
        if "(none)" in set(words):
            kinds.append("(none)")
        out[name] = {f: {k: int(((fold == f) & (words == k)).sum()) for k in kinds} for f in order}
    return out


def _split(kinds: Sequence[str]) -> bool:
    """Whether words are those of a published split, and no classes."""
    return {k.lower() for k in kinds} <= {*FOLDS, "val", "validation", "calibration", "training", "testing"}


def _quality(survey: Survey) -> dict[str, dict[str, float]]:
    out = {}
    for name in ("unmeasured", "saturated", "edge"):
        if name in survey.index.column_names:
            values = survey.column(name).astype(np.float64)
            out[name] = {"mean": float(np.nanmean(values)), "half": float((values > 0.5).sum())}
    return out


def features(image: Image) -> tuple[np.ndarray, list[str]]:
    """(n, f) simple figures of images, for outliers: level, spread, extremes and concentration of each band."""
    flux, seen = image.filled.double().numpy(), image.measured.numpy()
    count = np.maximum(seen.sum(axis=(2, 3)), 1)
    mean = flux.sum(axis=(2, 3)) / count
    spread = np.sqrt((np.where(seen, flux - mean[..., None, None], 0.0) ** 2).sum(axis=(2, 3)) / count)
    low = np.where(seen, flux, np.inf).min(axis=(2, 3))
    high = np.where(seen, flux, -np.inf).max(axis=(2, 3))
    y, x = (slice(s // 4, s - s // 4) for s in flux.shape[2:])
    middle = flux[..., y, x].sum(axis=(2, 3)) / np.maximum(seen[..., y, x].sum(axis=(2, 3)), 1)
    scale = np.where(spread > 0, spread, 1.0)
    columns = {
        "mean": mean,
        "spread": spread,
        "minimum": low,
        "maximum": high,
        "centre over mean": (middle - mean) / scale,
    }
    names = [f"{what} of {band}" for what in columns for band in image.bands]
    values = np.concatenate(list(columns.values()), axis=1)
    return np.where(np.isfinite(values), values, np.nan), names


def _outliers(survey: Survey) -> tuple[tuple[tuple[str, float, str], ...], list[str]]:
    """Objects far from the rest in one of the features, after a stretch that makes long tails short.

    Bands that are empty in single objects are told in words.
    """
    image = next((n for n, o in survey.schema.observations.items() if isinstance(o, ImageSchema)), None)
    if image is None:
        return (), []
    at = np.unique(np.linspace(0, len(survey) - 1, min(SOME, len(survey))).astype(np.int64))
    parts = []
    names: list[str] = []
    for start in range(0, len(at), 256):
        part = survey.gather(at[start : start + 256], truth=(), observations=(image,)).observations[image]
        assert isinstance(part, Image)
        values, names = features(part)
        parts.append(values)
    table = np.concatenate(parts)
    empty = _empty(survey, at, table, names)
    if len(survey) < 20:
        return (), empty
    scale = 1.4826 * np.nanmedian(np.abs(table - np.nanmedian(table, axis=0)), axis=0)
    stretched = np.arcsinh((table - np.nanmedian(table, axis=0)) / np.where(scale > 0, scale, 1.0))
    width = 1.4826 * np.nanmedian(np.abs(stretched - np.nanmedian(stretched, axis=0)), axis=0)
    distance = np.abs(stretched - np.nanmedian(stretched, axis=0)) / np.where(width > 1e-9, width, np.inf)
    distance = np.nan_to_num(distance)
    worst = distance.max(axis=1)
    order = np.argsort(-worst)
    far = tuple((str(survey.id[at[i]]), round(float(worst[i]), 1), names[int(distance[i].argmax())])
                for i in order[:20] if worst[i] > FAR)  # fmt: skip
    return far, empty


def _empty(survey: Survey, at: np.ndarray, table: np.ndarray, names: Sequence[str]) -> list[str]:
    """Bands in which an object has no measured pixel, or one value only, in words."""
    found = []
    for band in (n.removeprefix("minimum of ") for n in names if n.startswith("minimum of ")):
        low, high = (table[:, names.index(f"{what} of {band}")] for what in ("minimum", "maximum"))
        dead = np.flatnonzero(~(high > low))  # NaN where nothing was measured
        if len(dead):
            found.append(f"band {band} is empty, not measured or of one value, in {len(dead):,} of the {len(at):,} "
                         f"objects that were read, first {survey.id[at[dead[0]]]}")  # fmt: skip
    return found


def _sky_words(survey: Survey) -> list[str]:
    """A sky that was not subtracted, in words; of float images."""
    found = []
    rows = np.unique(np.linspace(0, len(survey) - 1, min(256, len(survey))).astype(np.int64))
    for name, rule in survey.schema.observations.items():
        if isinstance(rule, ImageSchema) and rule.dtype.startswith("float"):
            part = survey.gather(rows, truth=(), observations=(name,)).observations[name]
            found += sky_words(part.flux.numpy(), part.measured.numpy(), rule.bands)
    return found


def _cost(survey: Survey) -> dict[str, float]:
    """Bytes and seconds of a pass over the training fold, measured on one random batch."""
    train = survey
    if "fold" in survey.index.column_names and (survey.column("fold").astype(str) == "train").any():
        train = survey.fold("train")
    rows = np.random.default_rng(0).integers(0, len(train), min(256, len(train)))
    train.gather(rows[:2], truth=())
    start = time.perf_counter()
    train.gather(rows, truth=())
    each = (time.perf_counter() - start) / len(rows)
    pixels = sum(int(np.prod(o.shape)) * (2 if o.ivar == "pixel" else 1) for o in survey.schema.observations.values())
    return {
        "train": len(train),
        "seconds": each * len(train),
        "bytes": 4.0 * pixels * len(train),
        "batch": 256.0 * pixels,
    }


FEW = {"train": "they can hardly be learnt", "valid": "when to stop is judged without them",
       "calib": "their probabilities are calibrated without them", "test": "their figures mean little"}  # fmt: skip


def _problems(
    leaks: fold_rules.Leaks | None,
    classes: Mapping[str, Mapping[str, Mapping[str, int]]],
    quality: Mapping[str, Mapping[str, float]],
    outliers: tuple[tuple[str, float, str], ...],
    tiles: list[str],
) -> list[str]:
    out = list(tiles[:10])
    if leaks is None:
        out.append("the survey has no folds: deepsky split SURVEY")
    elif not leaks.none:
        test = leaks.objects.get("test", 0)
        out.append(f"{test - leaks.clean:,} of {test:,} test objects are linked to other folds: deepsky split SURVEY")
    for label, by_fold in classes.items():
        total: dict[str, int] = {}
        for of in by_fold.values():
            for kind, n in of.items():
                total[kind] = total.get(kind, 0) + n
        named = {k: n for k, n in total.items() if k != "(none)" and n}
        if len(named) == 1:
            out.append(f"{label!r} has one class only: {next(iter(named))!r}")
        for fold, what in FEW.items():
            least = RARE if fold in {"train", "test"} else 1
            rare = [k for k in named if fold in by_fold and by_fold[fold].get(k, 0) < least]
            if len(named) > 1 and rare:
                many = f"fewer than {RARE}" if least > 1 else "no"
                out.append(f"{many} objects of {label} {', '.join(rare[:6])} in the fold {fold}: {what}")
    for name, q in quality.items():
        if q["half"]:
            out.append(f"{q['half']:,.0f} objects are {name} in more than half of their pixels")
    if outliers:
        out.append(f"{len(outliers)} outliers among the objects that were read, first {outliers[0][0]}: look at them")
    return out


# -- the picture ------------------------------------------------------------------------------------------
def _draw(survey: Survey, path: Path) -> Path:
    """Objects spread evenly over the survey, and beside them the sky, if there are positions."""
    parts: list[Pillow.Image] = []
    if any(isinstance(o, ImageSchema) for o in survey.schema.observations.values()):
        at = np.unique(np.linspace(0, len(survey) - 1, min(DRAWN, len(survey))).astype(np.int64))
        title = f"{survey.name}: {len(at):,} of {len(survey):,} objects"
        contact_sheet(survey.gather(at, truth=()), path, n=DRAWN, title=title)
        with Pillow.open(path) as sheet:
            parts.append(sheet.convert("RGB"))
    if (np.isfinite(survey.column("ra")) & np.isfinite(survey.column("dec"))).any():
        parts.append(_sky(survey))
    if not parts:
        return Path()
    page = Pillow.new("RGB", (sum(p.width for p in parts), max(p.height for p in parts)), SHEET)
    left = 0
    for part in parts:
        page.paste(part, (left, 0))
        left += part.width
    out = io.BytesIO()
    page.save(out, "PNG", optimize=True)
    atomic_write(path, out.getvalue())
    return path


def _sky(survey: Survey) -> Pillow.Image:
    """Where the objects lie, by fold."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    folds = survey.column("fold").astype(str) if "fold" in survey.index.column_names else None
    data = io.BytesIO()
    with style():
        figure = sky_map(survey.column("ra"), survey.column("dec"), folds)
        figure.set_facecolor("#{:02x}{:02x}{:02x}".format(*SHEET))
        FigureCanvasAgg(figure)
        figure.savefig(data, format="png", dpi=140)
    with Pillow.open(data) as made:
        return made.convert("RGB")
