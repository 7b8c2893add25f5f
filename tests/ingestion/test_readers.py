"""Every reader: its example is claimed, understood, ingested, and comes out of the native survey as it was read."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u

from deepsky import registry
from deepsky.errors import InputError
from deepsky.ingestion import find_reader, ingest, understand
from deepsky.ingestion.readers import _settled
from deepsky.source import Source
from deepsky.surveys import _scan
from deepsky.units import unit_factor

NAMES = registry.names("surveys")


def example(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """What to open; a reader of frames may return a folder that holds a source table."""
    made = registry.find("surveys", name).example(folder)
    if "catalogue" not in inspect.signature(registry.find("surveys", name).open).parameters:
        return made, {}
    table = sorted(folder.rglob("*.csv")) + sorted(folder.rglob("*.ecsv")) + sorted(folder.rglob("*.parquet"))
    return made, {"catalogue": table[0]} if table else {}


def everything(source: Source) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, object]]]:
    """All arrays of a source by id, and its items by id, read at once in this process."""
    items = source.items()
    block = source.read(items)
    arrays = {i: {n: np.asarray(a[k]) for n, a in block.arrays.items()} for k, i in enumerate(block.ids)}
    return arrays, {row["id"]: row for row in items.to_pylist()}


@pytest.mark.parametrize("name", NAMES)
def test_the_reader_of_an_example_is_found(name: str, tmp_path: Path) -> None:
    path, options = example(name, tmp_path)
    assert find_reader(path, options) == name


@pytest.mark.parametrize("name", NAMES)
def test_what_was_read_comes_out_of_the_survey(name: str, tmp_path: Path) -> None:
    path, options = example(name, tmp_path)
    source = understand(path, reader=name, **options)
    arrays, items = everything(source)
    survey = ingest(path, tmp_path / "native", reader=name, workers=0, quiet=True, **options)
    assert set(survey.id) == set(arrays) and len(survey) > 3
    assert survey.schema.reader == name
    batch = survey.gather(slice(None))
    for row, key in enumerate(survey.id):
        for part, rule in survey.schema.observations.items():
            old = source.schema.observations[part]
            factor = unit_factor(getattr(old, "unit", ""), getattr(rule, "unit", ""))
            read = batch.observations[part]
            ivar = arrays[key][f"{part}.ivar"]
            seen = np.broadcast_to(ivar.reshape(*ivar.shape, *(1,) * (len(rule.shape) - ivar.ndim)) > 0, rule.shape)
            flux = np.where(seen, arrays[key][f"{part}.flux"], 0.0) * factor
            assert np.array_equal(read.measured[row].numpy(), seen & np.isfinite(arrays[key][f"{part}.flux"]))
            assert np.allclose(read.filled[row].numpy(), np.nan_to_num(flux), rtol=1e-5, atol=1e-30)
        for column in ("ra", "dec"):
            assert survey.column(column)[row] == pytest.approx(items[key][column], nan_ok=True)
    assert (survey.path / "folds.json").exists() and set(survey.column("fold")) <= {"train", "valid", "calib", "test"}


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("mask_bits", "BAD", ("BAD",)), ("mask_bits", "BAD, SAT", ("BAD", "SAT")), ("mask_bits", 4096, (4096,)),
        ("mask_bits", ["BAD", 16], ("BAD", 16)), ("bands", "g,r", ("g", "r")), ("bands", "gri", ("gri",)),
        ("bands", np.array(["g", "r"]), ("g", "r")), ("sentinel", "100", 100.0), ("sentinel", "1,-99", (1.0, -99.0)),
        ("sentinel", 7, 7), ("size", "64,48", (64, 48)), ("size", "64", 64), ("size", [64, 48], (64, 48)),
        ("size", None, None), ("planes", {0: "flux", 1: "ivar"}, {0: "flux", 1: "ivar"}),
        ("unit", u.uJy, "uJy"), ("mask_bits", "16,BAD", (16, "BAD")), ("class_folders", "no", False),
        ("position", "wcs", "wcs"), ("objects", "hdu", "hdu"), ("class_folders", False, False),
    ],
)  # fmt: skip
def test_options_are_brought_to_their_types(option: str, value: Any, expected: Any) -> None:
    found = _settled(registry.find("surveys", "fits-cutouts").open, {option: value}, "here")[option]
    assert found == expected and type(found) is type(expected)
    if isinstance(expected, tuple):
        assert [type(v) for v in found] == [type(v) for v in expected] or option == "bands"


def test_a_table_of_sources_may_be_called_anything() -> None:
    for value in ("17", "none", Path("1.csv")):
        assert _settled(registry.find("surveys", "frames").open, {"catalogue": value}, "here") == {"catalogue": value}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("position", "zzz", "known: auto, header, wcs, none"), ("objects", "zzz", "known: file, hdu, plane"),
        ("pixel_scale", -1, "expected: more than 0"), ("pixel_scale", float("nan"), "more than 0"),
        ("pixel_scale", "wide", "expected: a number"), ("size", 0, "more than 0"),
        ("size", "64,64,3", "whole number,whole number"), ("size", True, "a whole number"),
        ("size", 6.5, "a whole number"), ("zero_point", float("inf"), "a number"),
        ("class_folders", "perhaps", "true or false"), ("planes", "SCI", "a dict"), ("sentinel", "x", "a number"),
        ("planes", {"0": "fluxx"}, "known: flux, ivar"), ("unit", ["nJy"], "text"), ("name", 17, "text"),
    ],
)  # fmt: skip
def test_values_that_an_option_cannot_have_are_refused(option: str, value: Any, words: str, tmp_path: Path) -> None:
    path, _ = example("fits-cutouts", tmp_path)
    with pytest.raises(InputError, match=words) as error:
        understand(path, **{option: value})
    assert error.value.keyword == option


def test_files_are_ingested_before_they_are_converted_to_a_model(tmp_path: Path) -> None:
    path, _ = example("fits-cutouts", tmp_path)
    with pytest.raises(InputError, match="only a native survey is converted") as error:
        understand(path, like=tmp_path / "model")
    assert f"deepsky ingest SURVEY --like {tmp_path / 'model'} --to NEW" in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_names_the_known_ones(name: str, tmp_path: Path) -> None:
    path, options = example(name, tmp_path)
    with pytest.raises(InputError, match="no such option") as error:
        understand(path, reader=name, **options, colour="blue")
    assert error.value.found == "colour" and "known: " in str(error.value)


@pytest.mark.parametrize(
    ("fits_files", "pictures", "reader"),
    [(20, 40, "fits-cutouts"), (20, 10, "fits-cutouts"), (2, 40, "images"), (0, 3, "images"), (3, 0, "fits-cutouts")],
)
def test_fits_images_come_before_their_previews(tmp_path: Path, fits_files: int, pictures: int, reader: str) -> None:
    from astropy.io import fits
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(fits_files):
        fits.PrimaryHDU(rng.normal(0, 1, (16, 16)).astype(np.float32)).writeto(tmp_path / f"o{i}.fits")
    for i in range(pictures):
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(tmp_path / f"o{i}.png")
    source = understand(tmp_path)
    assert source.schema.reader == reader
    assert source.items().num_rows == (fits_files if reader == "fits-cutouts" else pictures)
    other = ("pictures", pictures, "images") if reader == "fits-cutouts" else ("FITS files", fits_files, "fits-cutouts")
    told = [n for n in source.schema.notes if f"{other[1]} {other[0]}: reader={other[2]!r}" in n]
    assert len(told) == (other[1] > 0)
    if other[1]:
        assert understand(tmp_path, reader=other[2]).items().num_rows == other[1]


def test_a_table_beside_pictures_is_no_survey_of_fits_images(tmp_path: Path) -> None:
    from astropy.table import Table
    from PIL import Image

    Table({"id": [1, 2]}).write(tmp_path / "catalogue.fits")
    for i in range(2):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (16, 16), np.uint8)).save(tmp_path / f"o{i}.png")
    assert find_reader(tmp_path, {}) == "images"


def test_any_number_of_other_files_hides_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from astropy.io import fits

    monkeypatch.setattr(_scan.dominant, "__defaults__", (10,))
    (tmp_path / "below").mkdir()
    for i in range(3):
        fits.PrimaryHDU(np.eye(16, dtype=np.float32)).writeto(tmp_path / "below" / f"o{i}.fits")
    for i in range(50):
        (tmp_path / f"{i}.log").touch()
    assert find_reader(tmp_path, {}) == "fits-cutouts"


def test_a_fits_file_that_no_reader_claims_is_explained(tmp_path: Path) -> None:
    from astropy.io import fits

    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    with pytest.raises(InputError, match=r"no HDU.*\n.*0 PRIMARY: empty"):
        understand(tmp_path / "empty.fits")
    (tmp_path / "page.fits").write_bytes(b"<!DOCTYPE html><html>404</html>" * 200)
    with pytest.raises(InputError, match="not a FITS file"):
        understand(tmp_path / "page.fits")
    (tmp_path / "a.bin").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match=r"no reader knows this\n.*100 bytes: zero bytes only"):
        understand(tmp_path / "a.bin")
