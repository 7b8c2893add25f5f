"""Conversions of native surveys: bands, units, size and pixel scale, with flux, noise, folds and labels kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deepsky import labels, store
from deepsky.errors import InputError
from deepsky.ingestion import ingest
from deepsky.io import blake_keys
from deepsky.sample import Image, Row, Sample, Truth
from deepsky.survey import Survey
from deepsky.surveys import _convert, native

N, SIDE = 30, 24


def made(to: Path, *, scales: np.ndarray | None = None, ivar: str = "band") -> Survey:
    """Round Gaussians at known places, with their noiseless image, centre, box and a PSF."""
    draw = np.random.default_rng(0)
    ids = tuple(f"g{i}" for i in range(N))
    x0, y0 = draw.uniform(-3, 3, (2, N))
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    profile = np.exp(-((x - x0[:, None, None]) ** 2 + (y - y0[:, None, None]) ** 2) / (2 * 2.5**2))
    clean = profile[:, None] * np.array([1.0, 2.0, 3.0])[None, :, None, None] * 100
    sigma = np.array([0.5, 1.0, 2.0])
    flux = clean + draw.normal(size=clean.shape) * sigma[None, :, None, None]
    weight = np.broadcast_to((sigma**-2)[None, :, None, None], (N, 3, 1, 1)).copy()
    if ivar == "pixel":
        weight = np.broadcast_to(weight, clean.shape).copy()
        weight[:, :, :5] = 0
    py, px = np.mgrid[:9, :9] - 4
    psf = np.exp(-(px**2 + py**2) / 4)
    scale = np.full(N, 0.2) if scales is None else scales
    middle = np.stack([x0, y0], -1)
    boxes = np.concatenate([middle - 4, middle + 4], -1)[:, None] + (SIDE - 1) / 2
    sample = Sample(
        ids, torch.from_numpy(blake_keys(ids).view(np.int64)),
        torch.from_numpy(10.0 + np.arange(N)), torch.zeros(N, dtype=torch.float64),
        {"image": Image(torch.from_numpy(flux).float(), torch.from_numpy(weight).float(), unit="nJy",
                        bands=("g", "r", "i"), pixel_scale=torch.from_numpy(scale).float(),
                        psf=torch.from_numpy(np.broadcast_to(psf / psf.sum(), (N, 3, 9, 9)).copy()).float())},
        {"clean": Truth(torch.from_numpy(clean), moves="image", unit="nJy"),
         "centre": Truth(torch.from_numpy(middle), moves="vector"),
         "box": Truth(torch.from_numpy(boxes), moves="boxes")},
    )  # fmt: skip
    survey = store.write([sample], to)
    labels.add(to, {"id": ids, "kind": ["a", "b", "c"] * 10})
    return Survey.load(survey.path)


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    return made(tmp_path / "old")


def centroid(images: torch.Tensor) -> torch.Tensor:
    """(n, 2) of (n, y, x), from the middle of the image."""
    y, x = torch.meshgrid(*(torch.arange(s) - (s - 1) / 2 for s in images.shape[-2:]), indexing="ij")
    total = images.sum((-1, -2))
    return torch.stack([(images * x).sum((-1, -2)) / total, (images * y).sum((-1, -2)) / total], -1)


def test_bands_are_taken_by_name(survey: Survey, tmp_path: Path) -> None:
    new = ingest(survey.path, tmp_path / "new", bands=("i", "g"), quiet=True)
    image, old = new.gather(slice(None)).observations["image"], survey.gather(slice(None)).observations["image"]
    assert isinstance(image, Image) and image.bands == ("i", "g")
    assert torch.equal(image.flux, old.flux[:, [2, 0]]) and torch.equal(image.ivar, old.ivar[:, [2, 0]])
    assert torch.equal(new.truth("clean").value, survey.truth("clean").value[:, [2, 0]])
    with pytest.raises(InputError, match="bands are missing") as error:
        ingest(survey.path, tmp_path / "no", bands=("g", "z"), quiet=True)
    assert error.value.found == "z" and "known: g, r, i" in str(error.value)


def test_folds_groups_and_labels_are_kept(survey: Survey, tmp_path: Path) -> None:
    new = ingest(survey.path, tmp_path / "new", size=16, quiet=True)
    assert new.id.tolist() == survey.id.tolist()
    assert new.column("fold").tolist() == survey.column("fold").tolist()
    assert new.column("kind").tolist() == survey.column("kind").tolist() and new.schema.columns["kind"].role == "label"
    assert new.truth("kind").classes == ("a", "b", "c")


@pytest.mark.parametrize("size", [16, 15, 30, (20, 26)])
def test_crop_and_pad(survey: Survey, tmp_path: Path, size: int | tuple[int, int]) -> None:
    new = ingest(survey.path, tmp_path / "new", size=size, quiet=True)
    y, x = (size, size) if isinstance(size, int) else size
    batch = new.gather(slice(None))
    image = batch.observations["image"]
    assert image.flux.shape == (N, 3, y, x)
    shown = image.measured[:, 0].sum((-1, -2))
    assert (shown == min(y, SIDE) * min(x, SIDE)).all()
    clean = batch.truth["clean"].value[:, 0].double()
    if min(y, x) >= 20:
        assert torch.allclose(centroid(clean), batch.truth["centre"].value, atol=0.2)
    peak = clean.flatten(1).argmax(1)
    at = torch.stack([peak % x, peak // x], -1)
    box = batch.truth["box"].value[:, 0]
    assert ((at > box[:, :2]) & (at < box[:, 2:])).all()
    inside = batch.truth["centre"].value + torch.tensor([(x - 1) / 2, (y - 1) / 2])
    assert torch.allclose((box[:, :2] + box[:, 2:]).double() / 2, inside, atol=1e-5)


def test_units_convert_and_the_wrong_ones_are_refused(survey: Survey, tmp_path: Path) -> None:
    new = ingest(survey.path, tmp_path / "new", unit="uJy", quiet=True)
    image, old = new.gather(slice(None)).observations["image"], survey.gather(slice(None)).observations["image"]
    assert image.unit == "uJy"
    assert torch.allclose(image.flux, old.flux / 1000, rtol=1e-6) and torch.allclose(
        image.ivar, old.ivar * 1e6, rtol=1e-6
    )
    assert new.schema.columns["clean"].unit == "uJy"
    assert torch.allclose(new.truth("clean").value, survey.truth("clean").value / 1000, rtol=1e-5)
    with pytest.raises(InputError, match="does not convert") as error:
        ingest(survey.path, tmp_path / "no", unit="adu", quiet=True)
    assert error.value.found == "nJy" and error.value.expected == "adu"


@pytest.mark.parametrize("scale", [0.4, 0.31, 0.1])
def test_pixel_scale(survey: Survey, tmp_path: Path, scale: float) -> None:
    new = ingest(survey.path, tmp_path / "new", pixel_scale=scale, quiet=True)
    batch, old = new.gather(slice(None)), survey.gather(slice(None))
    image, before = batch.observations["image"], old.observations["image"]
    assert isinstance(image, Image) and isinstance(before, Image)
    assert torch.allclose(image.pixel_scale, torch.tensor(scale))
    total, clean = before.flux.sum((-1, -2)), old.truth["clean"].value.sum((-1, -2))
    new_clean = batch.truth["clean"].value.double()
    assert torch.allclose(new_clean.sum((-1, -2)).float(), clean, rtol=0.02)
    if scale in (0.4, 0.1):  # the whole field is kept
        assert torch.allclose(image.flux.sum((-1, -2)), total, rtol=1e-4)
    assert torch.allclose(centroid(new_clean[:, 0]), batch.truth["centre"].value, atol=0.1)
    assert image.psf is not None and torch.allclose(image.psf.sum((-1, -2)), torch.ones(N, 3), atol=1e-5)
    residual = (image.flux - batch.truth["clean"].value) * image.ivar.sqrt()
    assert abs(float(residual[image.measured].std()) - 1) < (0.05 if scale > 0.2 else 0.6)
    assert new.schema.observations["image"].correlated is True  # type: ignore[union-attr]


def test_a_scale_that_varies_becomes_one(tmp_path: Path) -> None:
    scales = np.where(np.arange(N) % 2, 0.2, 0.4)
    survey = made(tmp_path / "old", scales=scales)
    assert survey.schema.observations["image"].pixel_scale is None  # type: ignore[union-attr]
    new = ingest(survey.path, tmp_path / "new", pixel_scale=0.4, size=12, quiet=True)
    assert "pixel_scale" not in new.index.column_names
    coarse = survey.column("pixel_scale") > 0.3
    image, before = (s.gather(slice(None)).observations["image"].flux for s in (new, survey))
    assert torch.allclose(image[coarse], before[coarse][:, :, 6:18, 6:18], rtol=1e-5, atol=1e-4)
    assert torch.allclose(image[~coarse].sum((-1, -2)), before[~coarse].sum((-1, -2)), rtol=1e-4)


def test_unmeasured_pixels_stay_so(tmp_path: Path) -> None:
    survey = made(tmp_path / "old", ivar="pixel")
    new = ingest(survey.path, tmp_path / "new", pixel_scale=0.4, quiet=True)
    seen = new.gather(slice(None)).observations["image"].measured
    assert not seen[:, :, :2].any() and seen[:, :, 3:].all()  # five of 24 rows were lost: two of 12, and a half


def test_area_weights_against_a_direct_sum() -> None:
    draw = np.random.default_rng(1)
    flux = draw.normal(size=(2, 1, 12, 10))
    ivar = draw.uniform(0.5, 2, flux.shape)
    out, weight = _convert.resample(flux, ivar, 2.0, (6, 5))
    blocks = flux.reshape(2, 1, 6, 2, 5, 2)
    assert np.allclose(out, blocks.sum((3, 5)))
    assert np.allclose(1 / weight, (1 / ivar).reshape(2, 1, 6, 2, 5, 2).sum((3, 5)))
    level, noise = _convert.resample(flux, ivar, 2.0, (6, 5), mean=True)
    assert np.allclose(level, blocks.mean((3, 5))) and np.allclose(noise, weight * 16)
    rows = _convert.overlaps(11, 7, 1.37)
    assert np.allclose(rows.sum(0)[1:-1], 1) or rows.sum(0).max() <= 1 + 1e-12
    assert np.allclose(_convert.overlaps(9, 9, 1.0), np.eye(9))
    assert np.allclose(rows, rows[::-1, ::-1])  # about one centre


def test_like_a_model_and_like_a_survey(survey: Survey, tmp_path: Path) -> None:
    contract = {"observation": "image", "schema": {
        "bands": ["r", "g"], "size": [10, 10], "unit": "uJy", "quantity": "f_nu", "pixel_scale": 0.4,
        "noise": "measured", "ivar": "band", "dtype": "float32", "filters": [], "psf": None, "correlated": False,
        "kind": "image"}}  # fmt: skip
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text(json.dumps({"format": 1, "contract": contract}))
    new = ingest(survey.path, tmp_path / "new", like=tmp_path / "model", quiet=True)
    rule = new.schema.observations["image"]
    assert (rule.bands, rule.size, rule.unit, rule.pixel_scale) == (("r", "g"), (10, 10), "uJy", 0.4)  # type: ignore[union-attr]
    again = ingest(survey.path, tmp_path / "again", like=new.path, quiet=True)
    assert torch.equal(again.gather([3]).observations["image"].flux, new.gather([3]).observations["image"].flux)
    with pytest.raises(InputError, match="neither a model nor a survey"):
        native.open(survey.path, like=tmp_path)


def test_selection_and_rows(survey: Survey, tmp_path: Path) -> None:
    few = ingest(survey.path, tmp_path / "few", where="ra < 15", quiet=True)
    assert len(few) == 5
    row = Row(torch.rand(N, 3), torch.ones(N, 3), names=("u", "g", "r"), units=("mag",) * 3)
    ids = tuple(map(str, range(N)))
    nan = torch.full((N,), float("nan"), dtype=torch.float64)
    old = store.write(
        [Sample(ids, torch.from_numpy(blake_keys(ids).view(np.int64)), nan, nan, {"row": row})], tmp_path / "rows"
    )
    new = ingest(old.path, tmp_path / "new", bands=("r", "u"), quiet=True)
    back = new.gather(slice(None)).observations["row"]
    assert isinstance(back, Row) and back.names == ("r", "u") and torch.equal(back.flux, row.flux[:, [2, 0]])
    with pytest.raises(InputError, match="rows have no such property"):
        native.open(old.path, size=3)


def test_unknown_scale(tmp_path: Path) -> None:
    survey = made(tmp_path / "old", scales=np.full(N, np.nan))
    with pytest.raises(InputError, match="pixel scale of this survey is not known"):
        native.open(survey.path, pixel_scale=0.3)
    with pytest.raises(InputError, match="no such option") as error:
        ingest(survey.path, tmp_path / "new", pixelscale=0.3)
    assert error.value.found == "pixelscale" and "did you mean 'pixel_scale'" in str(error.value)
