"""Objects as pictures: asinh-stretched thumbnails, the galleries of a report, contact sheets."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from deepsky.io import atomic_write
from deepsky.report.plots import clean
from deepsky.sample import Image, Sample
from deepsky.schema import ImageSchema, Schema

if TYPE_CHECKING:
    from deepsky.evaluation import Report
    from deepsky.judging import Answers, Question

SIDE = 128  # pixels of a thumbnail at most
LEAST = 96  # of a picture on a contact sheet at least
SHEET, TEXT = (250, 250, 251), (40, 42, 48)
UNMEASURED = (82, 90, 112)
_LETTERS = "ugrizyYJHK"


@dataclass(frozen=True)
class Card:
    """One object of a gallery: its picture as a data URI ("" without one) and what is said of it, in plain text."""

    id: str
    picture: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Sheet:
    """A gallery with its title and caption."""

    title: str
    caption: str
    cards: tuple[Card, ...]


# -- pictures -------------------------------------------------------------------------------------------------
def pictures(image: Image) -> np.ndarray:
    """(n, y, x, 3) uint8 of a batch as it is looked at: colour for three bands or more (after Lupton+2004), else grey.

    Each band is divided by what is typical of it in this batch, so that colours can be compared between its objects;
    the asinh stretch follows each object's own sky and peak. Pixels without a measurement are slate blue. The last row
    of an array is on top, but for photographs (bands R, G, B or grey), which are shown as they are.
    """
    flux = np.asarray(image.flux.numpy(), dtype=np.float64)
    seen = np.asarray(image.measured.numpy(), dtype=bool) & np.isfinite(flux)
    photograph = image.bands in (("R", "G", "B"), ("grey",))
    if photograph:
        light = np.where(seen, flux, 0.0)
        rgb = np.broadcast_to(light, (len(light), 3, *light.shape[2:])) / (255.0 if light.max(initial=0) > 1.5 else 1.0)
    else:
        rgb = _stretched(flux, seen, colours(image.bands))
    made = (np.clip(np.moveaxis(rgb, 1, -1), 0, 1) * 255).round().astype(np.uint8)
    made[~seen.any(1)] = UNMEASURED
    return made if photograph else made[:, ::-1]


def colours(bands: Sequence[str]) -> list[list[int]]:
    """Which bands make red, green and blue, by wavelength where the names tell; all of them make grey below three."""
    n = len(bands)
    if n < 3:
        return [list(range(n))] * 3
    place = [_wavelength(b) for b in bands]
    order = sorted(range(n), key=lambda i: place[i]) if None not in place else list(range(n))  # type: ignore[arg-type, return-value]
    if n > 3 and bands[order[0]].lower().endswith("u"):
        order = order[1:]  # noise, mostly
    return [[order[-1]], [order[len(order) // 2]], [order[0]]]


def _wavelength(band: str) -> float | None:
    """Something that rises with wavelength: HST's numbers, or the place of the letter."""
    digits = "".join(c for c in band if c.isdigit())
    if band[:1] in "Ff" and len(digits) == 3:
        nm = float(digits)
        return nm if nm > 200 else nm * 10  # F160W is 1.6 micron
    letter = band.rsplit(".", 1)[-1].rsplit("_", 1)[-1]
    return float(_LETTERS.index(letter)) if len(letter) == 1 and letter in _LETTERS else None


def _stretched(flux: np.ndarray, seen: np.ndarray, mix: list[list[int]]) -> np.ndarray:
    """(n, 3, y, x) in 0 .. 1."""
    flux = np.where(seen, flux, np.nan)
    rim = np.zeros(flux.shape[-2:], bool)
    wide = max(1, min(rim.shape) // 10)
    rim[:wide], rim[-wide:], rim[:, :wide], rim[:, -wide:] = True, True, True, True
    sky = _middle(flux[..., rim])[..., None, None]
    x = np.where(seen, flux - sky, 0.0)
    peak = np.quantile(x, 0.995, axis=(-2, -1))
    typical = np.median(np.where(peak > 0, peak, 0), axis=0)
    x = x / np.where(typical > 0, typical, 1.0)[:, None, None]
    rgb = np.stack([x[:, m].mean(1) for m in mix], axis=1)
    light = rgb.mean(1)
    noise = 1.4826 * np.median(np.abs(light[:, rim]), axis=1)
    top = np.maximum(np.quantile(light, 0.998, axis=(1, 2)), 1e-12)[:, None, None]
    soft = np.clip(1.5 * noise[:, None, None], top / 150, top / 3)
    raised = np.maximum(light + 0.5 * soft, 0)
    curve = np.arcsinh(raised / soft) / np.arcsinh(top / soft + 0.5)
    # the colour of noise means nothing: it fades in where there is signal
    sure = (light**2 / (light**2 + (2 * soft) ** 2) * (light > 0))[:, None]
    ratio = np.maximum(rgb / np.maximum(light, 1e-12)[:, None], 0) ** 0.75  # full colours would be gaudy
    made = (1 + sure * (ratio - 1)) * curve[:, None]
    over = np.maximum(made.max(1, keepdims=True), 1.0)  # a burnt-out centre keeps its hue
    found: np.ndarray = made / over
    return found


def _middle(x: np.ndarray) -> np.ndarray:
    """Median over the last axis of what is measured; 0 where nothing is."""
    none = np.isnan(x).all(-1)
    found: np.ndarray = np.nanmedian(np.where(none[..., None], 0.0, x), axis=-1)
    return found


def thumbnail(picture: np.ndarray, side: int = SIDE) -> Pillow.Image:
    """(y, x, 3) uint8 as an image, at most `side` pixels wide and high."""
    made = Pillow.fromarray(np.ascontiguousarray(picture))
    return made if max(made.size) <= side else _scaled(made, side)


def _scaled(picture: Pillow.Image, side: int) -> Pillow.Image:
    """The larger side made `side` pixels long."""
    scale = side / max(picture.size)
    how = Pillow.Resampling.NEAREST if scale > 1 else Pillow.Resampling.BOX
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), how)


def data_uri(picture: np.ndarray) -> str:
    """A picture as a data URI."""
    out = io.BytesIO()
    thumbnail(picture).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def image_of(schema: Schema) -> str | None:
    """The name of the first image, or None."""
    return next((n for n, s in schema.observations.items() if isinstance(s, ImageSchema)), None)


def contact_sheet(
    sample: Sample, path: str | Path, n: int = 48, columns: int = 8, name: str | None = None, title: str = ""
) -> Path:
    """Write a PNG with the pictures and ids of the first `n` objects of a batch.

    Parameters
    ----------
    name : of the observation; by default the first image.
    title : a line above; what the images are is added to it.

    Raises
    ------
    ValueError : the sample holds no image.
    """
    images = {k: o for k, o in sample.observations.items() if isinstance(o, Image)}
    if not images:
        raise ValueError("the sample holds no image")
    image = images[name or next(iter(images))]
    made = [thumbnail(p) for p in pictures(Image(image.flux[:n], image.ivar[:n], bands=image.bands))]
    side = max(max(m.size) for m in made)
    side *= max(1, -(-LEAST // side))  # whole multiples: every pixel of a picture is equally wide
    made = [_scaled(m, side) for m in made]
    columns = min(columns, len(made))
    gap, line, head = 6, 15, 26 if title else 0
    rows = -(-len(made) // columns)
    size = (columns * (side + gap) + gap, head + rows * (side + gap + line) + gap)
    sheet = Pillow.new("RGB", size, SHEET)
    pen, font, large = ImageDraw.Draw(sheet), _font(10), _font(12)
    if title:
        words = f"{clean(title, 200)}; {_about(image)}"
        pen.text((gap, 6), _fitting(words, lambda t: pen.textlength(t, large) <= size[0] - 2 * gap), TEXT, large)
    ids = short([str(i) for i in sample.id[: len(made)]], lambda t: pen.textlength(t, font) <= side)
    for i, (picture, word) in enumerate(zip(made, ids, strict=True)):
        x, y = gap + i % columns * (side + gap), gap + head + i // columns * (side + gap + line)
        sheet.paste(picture, (x, y))
        pen.text((x, y + side + 1), word, TEXT, font)
    path = Path(path)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    atomic_write(path, out.getvalue())
    return path


def _font(size: int) -> ImageFont.FreeTypeFont:
    """That of the figures, which knows more letters than Pillow's own."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _about(image: Image) -> str:
    """Bands, pixels and scale in words."""
    y, x = image.flux.shape[-2:]
    scale = image.pixel_scale.double()
    known = bool(scale.isfinite().all()) and float(scale.max() - scale.min()) <= 1e-6 * float(scale.max())
    of = f" of {float(scale.max()):.4g} arcsec" if known else ""
    return f"{', '.join(image.bands)}; {x} × {y} pixels{of}"


def short(words: Sequence[str], fits: Callable[[str], bool]) -> list[str]:
    """Ids cut to what fits: without what all of them share at either end, and at the end that tells fewer apart."""
    words = [clean(w, 1000) for w in words]
    if all(fits(w) for w in words):
        return words
    start = _shared(words)
    end = _shared([w[start:][::-1] for w in words])
    while start and words[0][start - 1].isalnum():  # a number stays whole
        start -= 1
    while end and words[0][len(words[0]) - end].isalnum():
        end -= 1
    bare = [("…" if start else "") + w[start : len(w) - end] + ("…" if end else "") for w in words]
    heads = [_fitting(w, fits) for w in bare]
    tails = [_fitting(w[::-1], fits)[::-1] for w in bare]
    return heads if len(set(heads)) >= len(set(tails)) else tails


def _shared(words: Sequence[str]) -> int:
    """How many characters all begin with; 0 of one word."""
    low, high = min(words), max(words)
    same = (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)
    return next(same, len(low)) if len(words) > 1 else 0


def _fitting(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning that fits, with an ellipsis where it is cut."""
    if fits(text):
        return text
    while len(text) > 1 and not fits(text.rstrip("…") + "…"):
        text = text.rstrip("…")[:-1]
    return text.rstrip("…") + "…"


# -- the galleries of a report ----------------------------------------------------------------------------------
def sheets(report: Report, question: Question, most: int = 12) -> list[Sheet]:
    """Worst mistakes, most doubtful objects, a random sample; for a comparison first the objects that flip."""
    a = question.answers[question.first]
    picks = _worst(a, most) if a.kind != "values" else _farthest(a, most)
    if report.comparison and question.second is not None:
        picks = [_flips(a, question.answers[question.second], most), *picks]
    chance = np.sort(np.random.default_rng(0).permutation(len(a))[:most])
    picks.append(("A random sample", "Drawn without looking at the answers, for comparison.", chance))
    found = []
    for title, caption, rows in picks:
        if len(rows):
            found.append(Sheet(title, caption, _cards(report, question, rows)))
    return found


def _worst(a: Answers, most: int) -> list[tuple[str, str, np.ndarray]]:
    order = np.argsort(a.of_truth, kind="stable")
    wrong = order[a.decided[order] != a.truth[order]]
    count = int((a.decided != a.truth).sum())
    p = np.sort(np.stack([1 - a.scores, a.scores], 1) if a.kind == "binary" else a.scores, axis=1)
    doubt = np.argsort(p[:, -1] - p[:, -2], kind="stable")[:most]
    return [
        ("The worst mistakes", f"The lowest probability given to the true class, of {count:,} mistakes.", wrong[:most]),
        ("The most doubtful objects", "The two likeliest classes lie closest together.", doubt),
    ]


def _farthest(a: Answers, most: int) -> list[tuple[str, str, np.ndarray]]:
    worst = np.argsort(-np.abs(a.residual), kind="stable")[:most]
    made = [("The worst mistakes", "The largest distance between prediction and truth.", worst)]
    width = None
    if a.low is not None and a.high is not None:
        width = a.high - a.low
    elif a.quantiles is not None:
        width = a.quantiles[:, -1] - a.quantiles[:, 0]
    if width is not None:
        doubt = np.argsort(-width, kind="stable")[:most]
        made.append(("The most doubtful objects", "The widest intervals.", doubt))
    return made


def _flips(a: Answers, b: Answers, most: int) -> tuple[str, str, np.ndarray]:
    if a.kind == "values":
        order = np.argsort(-np.abs(a.scores - b.scores), kind="stable")[:most]
        return "Where the two differ most", "The largest distance between the two predictions.", order
    flip = np.flatnonzero(a.decided != b.decided)
    better = int((a.decided[flip] == a.truth[flip]).sum())
    worse = int((b.decided[flip] == b.truth[flip]).sum())
    order = flip[np.argsort(-np.abs(a.of_truth - b.of_truth)[flip], kind="stable")][:most]
    p = f" p is the probability of {clean(a.names[1], 24)}." if a.kind == "binary" else ""
    words = (
        f"{len(flip):,} objects get another class; the first is right for {better:,} of them, the second for "
        f"{worse:,}. Shown are those with the largest change of the probability of the true class.{p}"
    )
    return "The objects that flip", words, order


def _cards(report: Report, question: Question, rows: np.ndarray) -> tuple[Card, ...]:
    survey = report.survey
    at = question.rows[rows]
    name = image_of(survey.schema)
    uris = [""] * len(rows)
    if name is not None:
        image = survey.gather(at, truth=(), observations=(name,)).observation(name)
        assert isinstance(image, Image)
        uris = [data_uri(p) for p in pictures(image)]
    asked = {w: a for w, a in question.answers.items() if w != "constant"}
    made = []
    for i, row, uri in zip(at, rows, uris, strict=True):
        lines = [_truth(question.answers[question.first], int(row))]
        for who, a in asked.items():
            lines.append(_said(a, int(row), "" if who == question.first and who == "ours" else who))
        made.append(Card(clean(survey.id[i], 44), uri, tuple(lines)))
    return tuple(made)


def _truth(a: Answers, i: int) -> str:
    if a.kind == "values":
        return f"true: {_number(a.truth[i], _width(a, i))} {a.unit}".strip()
    return f"true: {clean(a.names[a.truth[i]], 24)}"


def _said(a: Answers, i: int, who: str) -> str:
    """The answer with its uncertainty."""
    start = f"{who}: " if who else ""
    if a.kind == "values":
        width = _width(a, i)
        ends = ""
        if a.low is not None and a.high is not None:
            ends = f" [{_number(a.low[i], width)}, {_number(a.high[i], width)}]"
        return f"{start or 'said: '}{_number(a.scores[i], width)}{ends}"
    if a.kind == "binary":
        return f"{start}p = {_share(a.scores[i])}" if who else f"p({clean(a.names[1], 12)}) = {_share(a.scores[i])}"
    top = int(a.scores[i].argmax())
    own = "" if top == a.truth[i] else f", {clean(a.names[a.truth[i]], 16)} {_share(a.of_truth[i])}"
    return f"{start or 'said: '}{clean(a.names[top], 16)} {_share(a.scores[i, top])}{own}"


def _width(a: Answers, i: int) -> float:
    """How wide the interval of an answer is; without one, how far answers lie from the truth."""
    if a.low is not None and a.high is not None:
        return float(a.high[i] - a.low[i])
    return float(np.median(np.abs(a.residual)))


def _number(x: float, width: float) -> str:
    """A number with two figures of its uncertainty."""
    if not (np.isfinite(x) and 1e-4 < width < 1e6):
        return f"{x:.3g}".replace("-", "−")
    digits = max(0, 1 - int(np.floor(np.log10(width))))
    return f"{round(x, digits) + 0.0:.{digits}f}".replace("-", "−")


def _share(p: float) -> str:
    return f"{p:.1g}" if 0 < p < 0.001 else f"{p:.3f}"
