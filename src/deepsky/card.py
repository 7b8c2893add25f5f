"""The model's card: one page of Markdown that says what the model is for, and for what it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepsky.schema import ImageSchema
from deepsky.survey import FOLDS

NO_DOMAIN = "a training domain needs 40 training and 40 validation objects whose features differ"

if TYPE_CHECKING:
    from deepsky.model import Model


def card(model: Model) -> str:
    """The card of a model, from what is stored in it."""
    task, contract, provenance = model.task, model.contract, model.provenance
    objects = provenance.get("objects", {})
    kind = "a simulation" if not contract.real else "real data"
    lines = [
        f"# {', '.join(task.targets) or task.name} from {contract.observation}",
        "",
        f"A {model.network.name} that answers `{task.name}`, trained on {kind}: {contract.survey}.",
        "",
        "| | |",
        "|---|---|",
        f"| model | `{model.hash}` |",
        f"| parameters | {model.size:,} |",
        *(f"| objects, {fold} | {objects[fold]:,} |" for fold in FOLDS if fold in objects),
        f"| calibrated on | {provenance.get('calibration', 'not calibrated')} |",
        f"| precision | {contract.dtype} |",
        *([f"| began with the weights of | {provenance['weights']} |"] if "weights" in provenance else []),
        *([f"| views of an image, averaged | {model.views} |"] if model.views > 1 else []),
        f"| versions | {', '.join(f'{k} {v}' for k, v in sorted(provenance.get('versions', {}).items()))} |",
    ]
    schema = contract.schema
    if isinstance(schema, ImageSchema):
        names = [
            f"{b} ({f})" if f else b
            for b, f in zip(schema.bands, schema.filters or [""] * len(schema.bands), strict=True)
        ]
        scale = f'{schema.pixel_scale}" a pixel' if schema.pixel_scale else "pixel scale not known"
        lines += [
            "",
            "## Input",
            "",
            f"- bands: {', '.join(names)}",
            f"- {schema.size[0]} x {schema.size[1]} pixels, {scale}",
            f"- unit: {schema.unit or 'none'} ({schema.quantity}), noise {schema.noise}",
        ]
        lines += [f'- PSF FWHM, {b}: {m:.2f}" ({lo:.2f} to {hi:.2f})' for b, (lo, m, hi) in contract.psf_fwhm.items()]
        lines += [
            f"- sky noise, {b}: {m:.3g} ({lo:.3g} to {hi:.3g}) a pixel" for b, (lo, m, hi) in contract.depth.items()
        ]
    classes = getattr(task, "classes", ())
    if classes:
        whose = "calibration objects" if "shares" in model.calibration else "training fold"
        lines += ["", "## Classes and the prior that probabilities assume", ""]
        lines += [f"- {c}: {p:.4f}" for c, p in zip(classes, model.prior, strict=True)]
        lines += ["", f"These are the shares in the {whose}."]
        lines += ["State the prevalence of your own survey with `deepsky predict --prevalence CLASS=VALUE`."]
    marks = "the column `in_domain` marks them"
    if model.domain is None:
        marks = f"nothing marks them, and the column `in_domain` is empty, since {NO_DOMAIN}"
    lines += [
        "",
        "## What it is not for",
        "",
        "- input whose bands, pixel scale, unit or size differ: it is refused;",
        f"- objects unlike those it was trained on: {marks}.",
    ]
    if not contract.real:
        lines.append("- real data without a test on real data: it was trained on a simulation only.")
    if contract.schema.noise == "unknown":
        lines.append("- figures by S/N: the training survey does not know its noise.")
    return "\n".join(lines) + "\n"
