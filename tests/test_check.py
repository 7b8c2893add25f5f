"""What `check` finds in surveys in which something is wrong, and that it finds nothing in a sound one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image as Pillow
from tests.folds import made

from deepsky import folds, labels
from deepsky.check import check, features
from deepsky.io import read_json, read_parquet, write_json, write_parquet
from deepsky.sample import Image
from deepsky.survey import Survey


def sound(to: Path, n: int = 400) -> Survey:
    draw = np.random.default_rng(0)
    return made.survey(to, ra=draw.uniform(0, 360, n), dec=draw.uniform(-80, 80, n), n=n)


def test_a_sound_survey(tmp_path: Path) -> None:
    survey = sound(tmp_path / "s")
    labels.add(survey.path, {"id": survey.id.tolist(), "kind": np.where(np.arange(400) % 2, "a", "b")})
    found = check(survey.path, to=tmp_path / "check.png")
    assert found.problems == () and "no problem was found" in str(found)
    total = sum(n for of in found.classes["kind"].values() for n in of.values())
    assert total == 400 and set(found.classes["kind"]) == {"train", "valid", "calib", "test"}
    with Pillow.open(found.picture) as picture:
        assert picture.width > 1000  # the objects, and the sky beside them
    assert found.cost["train"] == 240 and found.cost["bytes"] == 240 * 4 * 64
    assert json.dumps(found.json())


def test_leaks_and_rare_classes(tmp_path: Path) -> None:
    survey = sound(tmp_path / "s", 100)
    index = read_parquet(survey.path / "index.parquet")
    rows = np.arange(100)
    ra = np.where(rows == 99, index["ra"].to_numpy()[0], index["ra"].to_numpy())
    dec = np.where(rows == 99, index["dec"].to_numpy()[0], index["dec"].to_numpy())
    split = np.where(rows < 50, "train", "test")
    for name, values in (("ra", ra), ("dec", dec)):
        index = index.set_column(index.column_names.index(name), name, pa.array(values))
    write_parquet(survey.path / "index.parquet", index.append_column("split", pa.array(split)))
    folds.assign(survey.path, fold_column="split")
    labels.add(survey.path, {"id": survey.id.tolist(), "kind": ["common"] * 98 + ["rare"] * 2, "one": ["x"] * 100})
    found = check(survey.path, to=None)
    words = " | ".join(found.problems)
    assert "1 of 50 test objects are linked to other folds" in words
    assert "fewer than 20 objects of kind rare in the fold test: their figures mean little" in words
    assert "fewer than 20 objects of kind rare in the fold train: they can hardly be learnt" in words
    assert "no objects of kind rare in the fold valid: when to stop is judged without them" in words
    assert "'one' has one class only: 'x'" in words
    assert found.leaks is not None and found.leaks.kinds["within 1 arcsec"].test == 1


def test_damaged_tiles(tmp_path: Path) -> None:
    survey = sound(tmp_path / "s", 60)
    path = next((survey.path / "tiles").rglob("image.flux.npy"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + b"\x01" + whole[-4:])
    assert "image.flux.npy is missing or its bytes changed" in check(survey.path, to=None).problems[0]
    assert check(survey.path, to=None, verify=False).tiles == ()
    np.save(path, np.zeros((60, 1, 8, 9), np.float32))
    assert "float32 (1, 8, 9) instead of float32 (1, 8, 8)" in check(survey.path, to=None).problems[0]
    np.save(path, np.zeros((59, 1, 8, 8), np.float32))
    assert "holds 59 objects instead of 60" in check(survey.path, to=None).problems[0]
    path.unlink()
    found = check(survey.path, to=tmp_path / "x.png")
    assert "image.flux.npy is missing" in found.problems[0] and found.picture == ""


def test_a_unit_that_was_changed_by_hand(tmp_path: Path) -> None:
    survey = sound(tmp_path / "s", 60)
    assert check(survey.path, to=None).tiles == ()
    data = read_json(survey.path / "schema.json")
    next(iter(data["observations"].values()))["unit"] = "mJy"
    write_json(survey.path / "schema.json", data)
    assert "schema.json, or the keys of the index" in check(survey.path, to=None).problems[0]


def test_outliers(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    flux = draw.normal(size=(300, 1, 8, 8))
    flux[17] *= 1e5
    flux[203, 0, 4, 4] = 1e7
    survey = made.survey(tmp_path / "s", flux=flux)
    found = check(survey.path, to=None)
    assert {i for i, _, _ in found.outliers} == {"o17", "o203"}
    assert all(d > 6 for _, d, _ in found.outliers) and "2 outliers" in " ".join(found.problems)


def test_bands_that_are_empty_in_single_objects(tmp_path: Path) -> None:
    flux = np.random.default_rng(1).normal(size=(60, 2, 8, 8))
    ivar = np.ones_like(flux)
    flux[31, 1] = 3.0
    ivar[17, 1] = 0
    survey = made.survey(tmp_path / "s", flux=flux, ivar=ivar)
    found = " ".join(check(survey.path, to=None).problems)
    assert "band r is empty, not measured or of one value, in 2 of the 60 objects that were read, first o17" in found
    assert "band g" not in found


def test_features_leave_out_what_was_not_measured() -> None:
    flux = torch.arange(32.0).reshape(2, 1, 4, 4)
    ivar = torch.ones_like(flux)
    values, names = features(Image(flux, ivar, bands=("g",)))
    assert dict(zip(names, values[0], strict=True))["mean of g"] == pytest.approx(7.5)
    ivar[0, 0, 0] = 0
    flux[0, 0, 0] = 1e9
    values, _ = features(Image(flux, ivar, bands=("g",)))
    assert values[0][0] == pytest.approx(np.arange(4, 16).mean()) and values[0][3] == 15


def test_without_folds_and_without_positions(tmp_path: Path) -> None:
    survey = made.survey(tmp_path / "s", n=50)
    index = read_parquet(survey.path / "index.parquet").drop_columns(["fold", "group"])
    write_parquet(survey.path / "index.parquet", index)
    found = check(survey.path, to=tmp_path / "c.png")
    assert any("has no folds" in p for p in found.problems) and found.leaks is None
    with Pillow.open(found.picture) as picture:
        assert picture.width < 900


def test_what_is_said_of_many_labels_stays_short(tmp_path: Path) -> None:
    survey = sound(tmp_path / "s", 200)
    rare = ["rare"] + ["common"] * 149 + [None] * 50
    split = np.where(np.arange(200) % 5, "train", "test")
    labels.add(survey.path, {"id": survey.id.tolist(), "split": split, **{f"label{i}": rare for i in range(40)}})
    found = check(survey.path, to=None)
    assert len(found.classes) == 40 and "split" not in found.classes, "a published split is no label"
    assert len(found.problems) >= 40 and any("label39" in p for p in found.json()["problems"])
    lines = str(found).splitlines()
    assert len(lines) < 45 and sum("in the fold test" in line for line in lines) == 3
    assert any("... and 37 more like this" in line for line in lines) and "37 more labels" in str(found)
