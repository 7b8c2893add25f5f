"""A survey in a notebook: a gallery, what it holds, its folds, and where on the sky it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepsky.report import gallery, plots
from deepsky.report.page import template
from deepsky.report.plots import clean
from deepsky.sample import Image
from deepsky.schema import Column, ImageSchema, ObservationSchema

if TYPE_CHECKING:
    from deepsky.survey import Survey

SHOWN = 12
ON_THE_MAP = 20_000  # positions that are drawn
COLUMNS = 30  # columns that are listed


def survey_html(survey: Survey) -> str:
    """What `Survey._repr_html_` shows."""
    made: str = template("survey.html").render(
        name=clean(survey.name, 120),
        n=f"{len(survey):,}",
        kind="real data" if survey.schema.real else "simulation",
        source=clean(survey.schema.source, 200),
        tiles=len(survey.tiles),
        cards=_cards(survey),
        observations=[(clean(n), _described(s)) for n, s in survey.schema.observations.items()],
        columns=[(clean(n), *_column(n, c, survey)) for n, c in list(survey.schema.columns.items())[:COLUMNS]],
        more=max(0, len(survey.schema.columns) - COLUMNS),
        folds=_folds(survey),
        notes=[clean(n, 300) for n in survey.schema.notes],
        sky=_sky(survey),
    )
    return made


def _cards(survey: Survey) -> list[gallery.Card]:
    """Objects spread evenly over the survey, with their labels."""
    if not len(survey):
        return []
    at = np.unique(np.linspace(0, len(survey) - 1, min(len(survey), SHOWN)).astype(np.int64))
    here = survey.index.column_names
    labels = [n for n, c in survey.schema.columns.items() if (c.role == "label" or c.classes) and n in here][:2]
    uris = [""] * len(at)
    name = gallery.image_of(survey.schema)
    if name is not None:
        image = survey.gather(at, truth=(), observations=(name,)).observation(name)
        assert isinstance(image, Image)
        uris = [gallery.data_uri(p) for p in gallery.pictures(image)]
    return [
        gallery.Card(
            clean(survey.id[i], 40), uri, tuple(f"{clean(n, 16)}: {_value(survey.column(n)[i])}" for n in labels)
        )
        for i, uri in zip(at, uris, strict=True)
    ]


def _value(value: object) -> str:
    if value is None or value != value:
        return "none"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else clean(value, 24)


def _described(schema: ObservationSchema) -> str:
    noise = {"measured": "noise measured", "estimated": "noise estimated", "unknown": "noise not known"}[schema.noise]
    if isinstance(schema, ImageSchema):
        y, x = schema.size
        scale = (
            f'{schema.pixel_scale:g}" a pixel' if schema.pixel_scale is not None else "pixel scale varies or unknown"
        )
        unit = schema.unit or schema.quantity
        psf = ", with PSF" if schema.psf is not None else ""
        return f"image, {', '.join(map(clean, schema.bands))}; {y} × {x} pixels, {scale}; {clean(unit)}; {noise}{psf}"
    names = ", ".join(clean(plots.axis(n, u)) for n, u in list(zip(schema.names, schema.units, strict=True))[:8])
    more = f" and {len(schema.names) - 8} more" if len(schema.names) > 8 else ""
    return f"row of {len(schema.names)}: {names}{more}; {noise}"


def _column(name: str, column: Column, survey: Survey) -> tuple[str, str, str]:
    """Role, unit, and what stands in it."""
    role = column.role + ("" if column.moves == "scalar" else f", {column.moves}")
    if column.array:
        return role, clean(column.unit), "array"
    if column.parts:
        return role, clean(column.unit), ", ".join(map(clean, column.parts))
    if name not in survey.index.column_names:
        return role, clean(column.unit), ""
    values = survey.column(name)
    if values.dtype.kind in "iuf":
        x = values[np.isfinite(values.astype(np.float64))]
        if not len(x):
            return role, clean(column.unit), "no value"
        low, middle, high = np.quantile(x, (0, 0.5, 1))
        missing = f", {len(values) - len(x):,} without" if len(x) < len(values) else ""
        return role, clean(column.unit), f"{low:.4g} to {high:.4g}, median {middle:.4g}{missing}"
    words, counts = np.unique([str(v) for v in values if v is not None and v == v], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:6]
    text = ", ".join(f"{clean(words[i], 20)} {counts[i]:,}" for i in order)
    return role, clean(column.unit), text + (f" and {len(words) - 6} more" if len(words) > 6 else "")


def _folds(survey: Survey) -> list[tuple[str, str]]:
    if "fold" not in survey.index.column_names:
        return []
    names, codes = plots.in_order(survey.column("fold"))
    return [(clean(n), f"{int((codes == i).sum()):,}") for i, n in enumerate(names)]


def _sky(survey: Survey) -> str:
    ra, dec = survey.column("ra"), survey.column("dec")
    good = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if not len(good):
        return ""
    some = good[np.unique(np.linspace(0, len(good) - 1, min(len(good), ON_THE_MAP)).astype(np.int64))]
    folds = survey.column("fold")[some] if "fold" in survey.index.column_names else None
    return plots.sky(ra[some], dec[some], folds)
