"""Arrays and tables in memory and in files: whichever way they lie, the same survey comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from astropy import units as u
from astropy.table import QTable, Table
from astropy.utils.masked import Masked

from deepsky.errors import InputError
from deepsky.ingestion import ingest, open
from deepsky.look import look
from deepsky.sample import Image, Row
from deepsky.survey import Survey
from deepsky.surveys import arrays

N = 40
DRAW = np.random.default_rng(0)
FLUX = DRAW.normal(size=(N, 3, 12, 14)).astype(np.float32)
KIND = np.arange(N) % 2


def made(source: Any, to: Path, **options: Any) -> Survey:
    return ingest(source, to / "survey", quiet=True, workers=0, **options)


def image(survey: Survey) -> Image:
    part = survey.gather(np.argsort(survey.id)).observations["image"]
    assert isinstance(part, Image)
    return part


WAYS = {
    "array": lambda p: FLUX,
    "bands last": lambda p: FLUX.transpose(0, 2, 3, 1),
    "dict": lambda p: {"images": FLUX, "label": KIND},
    "big endian": lambda p: {"images": FLUX.astype(">f4"), "labels": KIND.astype(">i8")},
    "double": lambda p: {"X": FLUX.astype(np.float64), "y": KIND},
    "astropy": lambda p: Table({"image": FLUX, "label": KIND}),
    "npy": lambda p: (np.save(p / "a.npy", FLUX), p / "a.npy")[1],
    "npz": lambda p: (np.savez(p / "a.npz", images=FLUX, labels=KIND), p / "a.npz")[1],
    "npz compressed": lambda p: (np.savez_compressed(p / "a.npz", images=FLUX, labels=KIND), p / "a.npz")[1],
    "npz fortran": lambda p: (np.savez(p / "a.npz", images=np.asfortranarray(FLUX), labels=KIND), p / "a.npz")[1],
    "hdf5": lambda p: hdf5(p / "a.h5", {"images": FLUX, "ans": KIND}),
    "hdf5 groups": lambda p: hdf5(p / "a.h5", {"train/x/images": FLUX, "train/x/ans": KIND}),
}


def hdf5(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, chunks=True)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_images(way: str, tmp_path: Path) -> None:
    survey = made(WAYS[way](tmp_path), tmp_path)
    part = image(survey)
    assert len(survey) == N and part.flux.shape == (N, 3, 12, 14)
    assert torch.equal(part.flux, torch.from_numpy(FLUX)) and (part.ivar == 1).all()
    assert survey.schema.observations["image"].noise == "unknown"
    if "label" in survey.index.column_names:
        assert survey.column("label")[np.argsort(survey.id)].tolist() == KIND.tolist()
        assert survey.schema.columns["label"].role == "label"
    else:
        assert way in {"array", "bands last", "npy"}


def test_files_are_read_in_child_processes(tmp_path: Path) -> None:
    for way in ("npz", "hdf5"):
        survey = ingest(WAYS[way](tmp_path), tmp_path / way, quiet=True, workers=1)
        assert torch.equal(image(survey).flux, torch.from_numpy(FLUX))


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "float16", "float32"])
def test_the_type_of_the_source_is_stored(kind: str, tmp_path: Path) -> None:
    values = (DRAW.normal(size=(N, 8, 8)) * 40 + 100).astype(kind)
    survey = made(values, tmp_path)
    tile = next((survey.path / "tiles").iterdir())
    assert np.load(tile / "image.flux.npy").dtype == kind
    assert torch.equal(image(survey).flux[:, 0], torch.from_numpy(values.astype(np.float32)))


def test_train_and_test_arrays_are_joined(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "cifar.npz", x_train=FLUX[:30], y_train=KIND[:30, None], x_test=FLUX[30:], y_test=KIND[30:, None]
    )
    survey = made(tmp_path / "cifar.npz", tmp_path, folds={"fold_column": "split"})
    assert torch.equal(image(survey).flux, torch.from_numpy(FLUX))
    order = np.argsort(survey.id)
    assert survey.column("label")[order].tolist() == KIND.tolist()
    assert (survey.column("fold")[order] == "test").tolist() == [False] * 30 + [True] * 10


def test_one_picture_is_the_same_survey_as_npy_and_as_npz(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (20, 16, 16, 3), np.uint8)
    np.save(tmp_path / "a.npy", pictures)
    np.savez(tmp_path / "b.npz", images=pictures, filenames=np.array([f"g{i}.jpg" for i in range(20)]))
    one, two = look(tmp_path / "a.npy", to=None), look(tmp_path / "b.npz", to=None)
    rule = one.observations["image"]
    assert rule == two.observations["image"] and rule.bands == ("R", "G", "B") and rule.quantity == "relative"
    assert arrays.open(tmp_path / "b.npz").items()["id"].to_pylist() == [f"g{i}.jpg" for i in range(20)]


def test_ids_positions_names_and_one_hot(tmp_path: Path) -> None:
    source = {"images": FLUX, "name": np.array([f"g{i}".encode() for i in range(N)]), "ra": np.arange(N) * 1.0,
              "dec": np.zeros(N), "labels": np.eye(2)[KIND], "class_names": np.array(["spiral", "elliptical"]),
              "redshift": np.linspace(0, 1, N), "pxscale": np.full(N, 0.3)}  # fmt: skip
    survey = made(source, tmp_path)
    row = {i: k for k, i in enumerate(survey.id)}["g7"]
    assert survey.column("ra")[row] == 7.0 and survey.column("label")[row] == "elliptical"
    assert survey.schema.columns["label"].classes == ("elliptical", "spiral")
    assert survey.column("redshift")[row] == pytest.approx(7 / 39)
    assert torch.allclose(survey.gather([row]).observations["image"].pixel_scale, torch.tensor(0.3))  # type: ignore[attr-defined]
    assert any("one-hot" in n for n in survey.schema.notes)


@pytest.mark.parametrize("name", ["ivar", "sigma", "variance"])
def test_noise(name: str, tmp_path: Path) -> None:
    sigma = DRAW.uniform(0.5, 2, FLUX.shape)
    expected = sigma**-2
    given = {"ivar": sigma**-2, "sigma": sigma, "variance": sigma**2}[name]
    given[3, 1, 2, 2] = 0
    mask = np.zeros(FLUX.shape[0:1] + FLUX.shape[2:], bool)
    mask[5, 4] = True
    survey = made({"flux": FLUX, name: given, "mask": mask}, tmp_path)
    expected[3, 1, 2, 2] = 0
    expected[5, :, 4] = 0
    assert np.allclose(image(survey).ivar.numpy(), expected, rtol=1e-6)
    assert survey.schema.observations["image"].noise == "measured"


def test_a_negative_error_sets_the_object_aside(tmp_path: Path) -> None:
    sigma = np.ones_like(FLUX)
    sigma[4, 0, 0, 0] = -1
    survey = made({"flux": FLUX, "sigma": sigma}, tmp_path)
    assert len(survey) == N - 1 and "0004" not in survey.id
    reason = pd.read_parquet(survey.path / "rejected.parquet").iloc[0]
    assert reason["id"] == "0004" and reason["reason"] == "ivar of image has NaN values"


def test_masked_arrays_sentinels_and_nan(tmp_path: Path) -> None:
    hidden = np.zeros(FLUX.shape, bool)
    hidden[1, 0, :3] = True
    survey = made(np.ma.MaskedArray(FLUX, hidden), tmp_path / "a")
    assert torch.equal(image(survey).measured, torch.from_numpy(~hidden))
    marked = FLUX.copy()
    marked[hidden] = 100
    assert torch.equal(image(made(marked, tmp_path / "b", sentinel=100)).measured, torch.from_numpy(~hidden))
    marked[hidden] = np.nan
    part = image(made(marked, tmp_path / "c"))
    assert torch.equal(part.measured, torch.from_numpy(~hidden)) and torch.isfinite(part.flux).all()


LATE = {
    "memory": lambda p, a: a,
    "npz": lambda p, a: (np.savez(p / "a.npz", images=a), p / "a.npz")[1],
    "hdf5": lambda p, a: hdf5(p / "a.h5", {"images": a}),
}


@pytest.mark.parametrize("way", LATE)
def test_a_late_nan_is_a_pixel_that_was_not_measured(way: str, tmp_path: Path) -> None:
    many = np.random.default_rng(1).normal(size=(300, 6, 6)).astype(np.float32)
    many[100:142, 2, 2] = np.nan  # most of them not among those that are looked at first
    survey = made(LATE[way](tmp_path, many), tmp_path)
    assert len(survey) == 300 and not (survey.path / "rejected.parquet").exists()
    assert torch.equal(image(survey).measured[:, 0], torch.from_numpy(np.isfinite(many)))


@pytest.mark.parametrize("way", LATE)
def test_what_is_set_aside_names_array_and_row(way: str, tmp_path: Path) -> None:
    many = np.random.default_rng(1).normal(size=(60, 6, 6)).astype(np.float32)
    many[17], many[31] = np.nan, 3
    source = LATE[way](tmp_path, many)
    survey = made(source, tmp_path, max_rejected=0.1)
    where = "a ndarray in memory" if way == "memory" else str(source)
    assert pd.read_parquet(survey.path / "rejected.parquet").to_dict("records") == [
        {"id": "0017", "file": f"{where}, images[17]", "reason": "no pixel was measured"},
        {"id": "0031", "file": f"{where}, images[31]", "reason": "the image is constant"},
    ]
    seen = str(look(source, to=None, guarded=False))
    assert "1 times: no pixel was measured" in seen and "images[17]" in seen
    with pytest.raises(InputError, match=r"First: .*images\[17\]"):
        made(source, tmp_path / "strict", max_rejected=0.01)


def test_what_is_set_aside_names_the_row_of_a_table(tmp_path: Path) -> None:
    mag = np.arange(60.0)
    mag[17] = np.nan
    survey = made(pd.DataFrame({"id": np.arange(60) + 100, "mag": mag}), tmp_path)
    lost = pd.read_parquet(survey.path / "rejected.parquet").iloc[0]
    assert (lost["id"], lost["file"]) == ("117", "a DataFrame in memory, row 18")


def test_crop_pad_psf_and_flat(tmp_path: Path) -> None:
    y, x = np.mgrid[:5, :5] - 2
    psf = np.exp(-(x**2 + y**2) / 2)
    survey = made({"images": FLUX, "psf": np.broadcast_to(psf, (N, 5, 5))}, tmp_path / "a", size=16)
    part = image(survey)
    assert part.flux.shape == (N, 3, 16, 16) and int(part.measured[0, 0].sum()) == 12 * 14
    assert part.psf is not None and part.psf.shape == (N, 3, 5, 5)
    assert torch.allclose(part.psf.sum((-1, -2)), torch.ones(N, 3), atol=1e-6)
    flat = made({"data": FLUX.reshape(N, -1)}, tmp_path / "b", shape=(3, 12, 14))
    assert torch.equal(image(flat).flux, torch.from_numpy(FLUX))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"images": FLUX, "labels": KIND[:-1]}, "differ in number"),
        ({"a": FLUX, "b": FLUX}, "several arrays could be the images"),
        ({"images": np.zeros((5, 4, 4, 4))}, "bands first or bands last"),
        ({"images": np.zeros((5, 3, 8, 8, 2))}, "too many axes"),
        ({"images": FLUX.astype(complex)}, "objects or complex"),
        ({"images": np.zeros((0, 8, 8))}, "without objects"),
        ({"images": FLUX, "ivar": np.ones((N, 5, 5))}, "'ivar' does not fit"),
        ({"images": FLUX, "labels": KIND, "class_names": np.array(["a"])}, "class codes and class names"),
        ({"images": FLUX[0], "filters": np.array(["g", "r", "i"])}, "one object in several bands"),
        (3.5, "empty|objects|array|table"),
    ],
)
def test_errors(source: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        made(source, tmp_path)
    assert not (tmp_path / "survey" / "schema.json").exists()


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=FLUX)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError) as error:
        made(path, tmp_path)
    assert "a.npz" in str(error.value)
    (tmp_path / "b.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    with pytest.raises(InputError, match="cannot be read"):
        made(tmp_path / "b.h5", tmp_path)
    np.save(tmp_path / "c.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError):
        made(tmp_path / "c.npy", tmp_path)


def test_rows_from_every_table(tmp_path: Path) -> None:
    columns = {"objid": np.arange(N) + 10**17, "ra": np.arange(N) * 1.0, "dec": np.zeros(N), "g": DRAW.normal(20, 1, N),
               "r": DRAW.normal(19, 1, N), "g_err": np.full(N, 0.1), "r_err": np.full(N, 0.2),
               "class": np.array(["STAR", "QSO"])[KIND]}  # fmt: skip
    columns["g"][5] = np.nan
    sources = {"frame": pd.DataFrame(columns), "table": Table(columns), "hdf5": hdf5(tmp_path / "t.h5", {
        k: v.astype("S") if v.dtype.kind == "U" else v for k, v in columns.items()})}  # fmt: skip
    for name, source in sources.items():
        survey = made(source, tmp_path / name)
        part = survey.gather(np.argsort(survey.id)).observations["row"]
        assert isinstance(part, Row) and part.names == ("g", "r"), name
        assert part.ivar[5, 0] == 0 and torch.allclose(part.ivar[6], torch.tensor([100.0, 25.0]))
        assert torch.allclose(part.flux[:, 1], torch.from_numpy(columns["r"]).float())
        assert survey.id[np.argsort(survey.id)][0] == str(10**17) and set(survey.column("class")) == {"STAR", "QSO"}
    with pytest.raises(InputError, match="no such column") as error:
        made(pd.DataFrame(columns), tmp_path / "x", features=["gg"])
    assert error.value.found == "gg" and error.value.keyword == "features"


def test_open_keeps_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSKY_CACHE", str(tmp_path / "cache"))
    one, two = open(FLUX, quiet=True), open(FLUX.copy(), quiet=True)
    assert one.path == two.path and torch.equal(image(one).flux, torch.from_numpy(FLUX))
    assert open(FLUX + 1, quiet=True).path != one.path
    labelled = open(FLUX, labels={"id": [f"{i:04d}" for i in range(N)], "kind": ["a", "b"] * 20}, quiet=True)
    assert labelled.schema.columns["kind"].classes == ("a", "b")


def test_records_beside_images_are_left_out_and_told(tmp_path):
    catalogue = np.zeros(5, [("x", float), ("y", float)])
    np.savez(tmp_path / "a.npz", images=np.random.default_rng(0).normal(size=(5, 8, 8)), catalogue=catalogue)
    source = arrays.open(tmp_path / "a.npz")
    assert source.items().num_rows == 5
    assert "array 'catalogue' of records was left out" in source.schema.notes
    with pytest.raises(InputError, match="records"):
        arrays.open(tmp_path / "a.npz", images="catalogue")
    np.savez(tmp_path / "b.npz", catalogue=catalogue)
    with pytest.raises(InputError, match="records"):
        arrays.open(tmp_path / "b.npz")


# -- units --------------------------------------------------------------------------------------------------------
def with_unit(unit: str) -> Table:
    made = Table({"image": FLUX})
    made["image"].unit = unit
    return made


@pytest.mark.parametrize(
    ("source", "options", "unit", "quantity"),
    [
        (with_unit("nJy"), {}, "nJy", "f_nu"),
        (FLUX * u.uJy, {}, "uJy", "f_nu"),
        (FLUX * u.uJy, {"unit": "uJy"}, "uJy", "f_nu"),
        ({"image": FLUX * u.mJy}, {}, "mJy", "f_nu"),
        ([f * u.nJy for f in FLUX], {}, "nJy", "f_nu"),
        (QTable({"image": FLUX * u.Jy}), {}, "Jy", "f_nu"),
        (QTable({"image": Masked(FLUX * u.Jy, mask=FLUX > 0)}), {}, "Jy", "f_nu"),
        (FLUX, {"unit": "nJy"}, "nJy", "f_nu"),
        (FLUX, {"unit": u.nJy}, "nJy", "f_nu"),
        (FLUX, {"unit": "nanomaggies"}, "3631 nJy", "f_nu"),
        (with_unit("nanomaggies"), {}, "3631 nJy", "f_nu"),
        (FLUX, {"unit": "erg / (s cm2 Angstrom)"}, "erg / (Angstrom s cm2)", "f_lambda"),
        (FLUX, {"unit": "DN"}, "DN", "counts"),
        (FLUX, {"unit": "K"}, "K", "relative"),
        (FLUX, {}, "", "relative"),
        (FLUX.astype("int16"), {}, "", "counts"),
        (FLUX.astype("int16"), {"unit": "nJy"}, "nJy", "f_nu"),
    ],
)
def test_units_and_quantities(source: Any, options: dict[str, Any], unit: str, quantity: str) -> None:
    made = arrays.open(source, **options)
    rule = made.schema.observations["image"]
    assert (rule.unit, rule.quantity) == (unit, quantity)
    block = made.read(made.items())  # and the values stay as they are
    seen = block.arrays["image.ivar"] > 0 if block.arrays["image.ivar"].ndim == 4 else np.ones(FLUX.shape, bool)
    expected = FLUX if rule.dtype == "float32" else FLUX.astype("int16")
    assert type(block.arrays["image.flux"]) is np.ndarray and seen.any()
    np.testing.assert_array_equal(block.arrays["image.flux"][seen], expected[seen])


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (FLUX, {"unit": "nJi"}, r"no such unit\n(.*\n)*.*did you mean 'nJy'"),
        (FLUX, {"unit": "mag"}, "magnitudes"),
        (FLUX * u.mag, {}, "magnitudes"),
        (FLUX * u.uJy, {"unit": "nJy"}, r"another unit\n.*uJy"),
        ([FLUX[0] * u.nJy, FLUX[1] * u.uJy], {}, "different units"),
        ({"x_train": FLUX * u.nJy, "x_test": FLUX * u.uJy}, {}, "differ in unit"),
        ({"image": FLUX * u.nJy, "sigma": FLUX * u.uJy}, {}, r"sigma is in another unit(.*\n)*.*to\('nJy'\)"),
        ({"image": FLUX * u.nJy, "variance": FLUX * u.nJy}, {}, "variance is in another unit"),
        ({"image": FLUX, "ivar": FLUX * u.uJy**-2}, {"unit": "nJy"}, "ivar is in another unit"),
    ],
)
def test_units_that_do_not_fit(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        arrays.open(source, **options)


def test_errors_in_the_unit_of_the_images_and_units_nobody_knows() -> None:
    source = arrays.open({"image": FLUX * u.nJy, "ivar": np.abs(FLUX) * u.nJy**-2})
    assert source.schema.observations["image"].noise == "measured"
    odd = arrays.open(with_unit("furlong per fortnight"))
    assert odd.schema.observations["image"].unit == "" and any("furlong" in n for n in odd.schema.notes)


@pytest.mark.parametrize(("attribute", "value", "unit"), [
    ("units", "uJy", "uJy"), ("unit", b"nJy", "nJy"), ("BUNIT", np.array(["nanomaggy"], dtype=object), "3631 nJy"),
    ("units", 3.0, ""), ("comment", "nJy", ""),
])  # fmt: skip
def test_units_in_the_attributes_of_hdf5(tmp_path: Path, attribute: str, value: Any, unit: str) -> None:
    path = hdf5(tmp_path / "a.h5", {"images": FLUX, "z": np.arange(N), "ra": np.arange(N), "dec": np.arange(N)})
    with h5py.File(path, "a") as file:
        file["images"].attrs[attribute] = value
    assert arrays.open(path).schema.observations["image"].unit == unit


def test_a_unit_that_nobody_knows_gives_way_to_the_one_that_is_given(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", {"images": FLUX})
    with h5py.File(path, "a") as file:
        file["images"].attrs["units"] = "flux units of the survey"
    found = arrays.open(path)
    assert found.schema.observations["image"].unit == "" and "none that astropy knows" in " ".join(found.schema.notes)
    given = arrays.open(path, unit="nJy")
    assert given.schema.observations["image"].unit == "nJy" and not any("astropy" in n for n in given.schema.notes)


def test_units_of_rows_in_a_dict() -> None:
    rows = arrays.open({"mag": np.arange(5.0) * u.mag, "size": np.arange(5.0) * u.arcsec, "n": np.arange(5.0)})
    assert rows.schema.observations["row"].units == ("mag", "arcsec", "")


def test_the_same_numbers_in_another_unit_are_another_survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSKY_CACHE", str(tmp_path))
    units = [open(s, quiet=True).schema.observations["image"].unit for s in (FLUX, FLUX * u.nJy, FLUX * u.uJy)]
    assert units == ["", "nJy", "uJy"]


# -- images in the cells of a table -------------------------------------------------------------------------------
CELLS = {
    "pandas": lambda f, z: pd.DataFrame({"id": range(N), "image": list(f), "z": z}),
    "pandas lists": lambda f, z: pd.DataFrame({"id": range(N), "image": [v.tolist() for v in f], "z": z}),
    "polars": lambda f, z: pl.DataFrame({"id": range(N), "image": f, "z": z}),
    "arrow": lambda f, z: pa.table({"id": range(N), "image": f.tolist(), "z": z}),
}


@pytest.mark.parametrize("kind", CELLS)
def test_images_in_the_cells_of_a_table(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSKY_CACHE", str(tmp_path / "cache"))
    z = np.linspace(0, 1, N)
    survey = open(CELLS[kind](FLUX, z), quiet=True)
    order = np.argsort([int(i) for i in survey.id])
    part = survey.gather(order).observations["image"]
    assert torch.equal(part.flux, torch.from_numpy(FLUX)) and np.allclose(survey.column("z")[order], z)
    other = FLUX.copy()
    other[7, 1, 5, 5] += 1  # deep inside, where words about an array leave its values out
    assert open(CELLS[kind](other, z), quiet=True).path != survey.path
    assert open(CELLS[kind](FLUX, z), quiet=True).path == survey.path


def test_cells_that_are_no_images() -> None:
    frame = CELLS["pandas"](FLUX, np.zeros(N))
    frame.at[3, "image"] = FLUX[3, :, :5]
    with pytest.raises(InputError, match=r"different shapes\n.*39 of \(3, 12, 14\), 1 of \(3, 5, 14\)"):
        arrays.open(frame)
    frame.at[3, "image"] = None
    with pytest.raises(InputError, match="holds no array\n.*row 4: None"):
        arrays.open(frame)
    frame["image"] = [f.ravel() for f in FLUX]
    with pytest.raises(InputError, match="may be flat images"):
        arrays.open(frame)
    source = arrays.open(frame, shape=FLUX.shape[1:])
    np.testing.assert_array_equal(source.read(source.items()).arrays["image.flux"], FLUX)
    told = arrays.open(frame.rename(columns={"image": "spectrum"})).schema.notes
    assert "columns of lists were left out: spectrum" in told


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((FLUX, KIND), r"different shapes\n(.*\n)*.*'images': \.\.\., 'labels': "),
        ([FLUX[0], FLUX[1, :, :5]], r"different shapes\n.*\(3, 12, 14\), 1 of \(3, 5, 14\)"),
        ([FLUX[0], None], "holds no array"),
    ],
)
def test_lists_that_are_no_array(source: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSKY_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=message):
        open(source, quiet=True)


# -- ids and positions --------------------------------------------------------------------------------------------
BIG = 1237648720693755912  # a float64 would round it
AS_ROWS = {"images": lambda d: {"images": FLUX, **d}, "rows": lambda d: {"x": np.arange(N) / 7.0, **d},
           "frame": lambda d: pd.DataFrame({"x": np.arange(N) / 7.0, **d})}  # fmt: skip


@pytest.mark.parametrize("way", AS_ROWS)
@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (np.arange(N) + BIG, [str(BIG + i) for i in range(N)]),
        (np.arange(N, dtype=np.float64), [str(i) for i in range(N)]),
        (np.arange(N, dtype=np.float32), [str(i) for i in range(N)]),
        (np.array([f"g{i}" for i in range(N)]), [f"g{i}" for i in range(N)]),
        (np.full(N, 1.23766e18), "rounded by a spreadsheet or a float64\n.*found: 1.23766e\\+18|1237660000000000000"),
        (np.arange(N, dtype=np.float32) + 2.0**25, "rounded by a spreadsheet or a float64\n.*float32"),
        (np.where(np.arange(N) == 3, 3.5, np.arange(N)), "rounded by a spreadsheet or a float64\n.*found: 3.5 of"),
        (np.where(np.arange(N) == 7, np.nan, np.arange(N)), "rows without an id\n.*1 of 40, the first is row 8"),
    ],
)
def test_ids_are_exact_or_refused(way: str, ids: np.ndarray, expected: list[str] | str) -> None:
    if isinstance(expected, list):
        assert arrays.open(AS_ROWS[way]({"id": ids})).items()["id"].to_pylist() == expected
        return
    with pytest.raises(InputError, match=expected):
        arrays.open(AS_ROWS[way]({"id": ids}))
    for second in ({"other": np.arange(N) + 100, "id": ids}, {"id": ids, "other": np.arange(N) + 100}):
        source = arrays.open(AS_ROWS[way](second), id="other")  # the fix of the message
        assert source.items()["id"].to_pylist()[:2] == ["100", "101"]
        assert "id" not in source.schema.columns and "input_id" in source.schema.columns
        if way != "images":
            assert source.schema.observations["row"].names == ("x",)


def test_positions_in_other_units_and_under_other_names() -> None:
    ra, dec = np.linspace(0.1, 359, N), np.linspace(-80, 80, N)
    for made in (
        arrays.open({"images": FLUX, "ra": ra / 15 * u.hourangle, "dec": np.radians(dec) * u.rad}),
        arrays.open({"images": FLUX, "ra": ra / 15, "dec": dec}, ra_unit="hour"),
        arrays.open({"images": FLUX, "RAJ2000": ra, "DEJ2000": dec}, ra="RAJ2000", dec="DEJ2000"),
        arrays.open({"mag": ra, "RA2": ra / 15, "DE2": dec}, ra="RA2", dec="DE2", ra_unit="hour"),
    ):
        np.testing.assert_allclose(made.items()["ra"], ra)
        np.testing.assert_allclose(made.items()["dec"], dec)
    for source in ({"images": FLUX, "ra": ra / 15, "dec": dec}, {"mag": ra, "ra": ra / 15, "dec": dec}):
        with pytest.raises(InputError, match="seem to be hours"):
            arrays.open(source)
    with pytest.raises(InputError, match="no such array"):
        arrays.open({"images": FLUX, "ra": ra, "dec": dec}, id="objid")
    with pytest.raises(InputError, match="not one value an object"):
        arrays.open({"images": FLUX, "ra": ra, "dec": dec, "pair": np.zeros((N, 2))}, id="pair")


def test_an_impossible_position_sets_one_object_aside(tmp_path: Path) -> None:
    dec = np.zeros(N)
    dec[5] = -99
    survey = made({"images": FLUX, "ra": np.arange(N) * 1.0, "dec": dec}, tmp_path)
    assert len(survey) == N - 1
    assert pd.read_parquet(survey.path / "rejected.parquet")["reason"][0] == "a declination of -99 deg"


# -- odd arrays ---------------------------------------------------------------------------------------------------
ROWS = np.random.default_rng(7).integers(0, 256, (20, 3072), dtype=np.uint8)


def test_flat_rows_need_a_shape(tmp_path):
    np.savez(tmp_path / "a.npz", data=ROWS, labels=np.arange(20) % 2, label_names=np.array([b"cat", b"dog"]))
    with pytest.raises(InputError, match=r"flat images\n.*(.*\n)*.*shape=3,32,32"):
        arrays.open(tmp_path / "a.npz")
    source = arrays.open(tmp_path / "a.npz", shape=(3, 32, 32))
    np.testing.assert_array_equal(source.read(source.items()).arrays["image.flux"], ROWS.reshape(-1, 3, 32, 32))
    assert source.items()["label"].to_pylist()[:2] == ["cat", "dog"]


def test_features_of_one_array(tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 4))
    np.savez(tmp_path / "a.npz", X_train=values[:20], X_test=values[20:], y_train=np.arange(20) % 3,
             y_test=np.arange(10) % 3, note=np.array(["a", "b"]))  # fmt: skip
    source = arrays.open(tmp_path / "a.npz")
    row = source.schema.observations["row"]
    assert row.names == ("X_1", "X_2", "X_3", "X_4")
    np.testing.assert_allclose(source.read(source.items()).arrays["row.flux"], values)
    assert source.schema.columns["y"].role == "label"
    assert source.items()["split"].to_pylist() == ["train"] * 20 + ["test"] * 10
    assert "array 'note' (2,) was left out" in source.schema.notes


def test_one_array_an_object_is_refused(tmp_path):
    for make in ("obj{}", "gal{}/image"):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for i in range(5):
                file[make.format(i)] = np.random.default_rng(i).normal(size=(12, 12))
        with pytest.raises(InputError, match=r"one array an object\n.*5 arrays \(12, 12\)"):
            arrays.open(tmp_path / "a.h5")


def test_one_image_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((12, 12)))
    with pytest.raises(InputError, match="one image, and not several"):
        arrays.open(tmp_path / "a.npz")


def test_objects_on_the_last_axis(tmp_path):
    np.savez(tmp_path / "a.npz", X=ROWS.reshape(20, 32, 32, 3).transpose(1, 2, 3, 0), y=np.arange(20))
    with pytest.raises(InputError, match=r"last axis\n(.*\n)*.*moveaxis"):
        arrays.open(tmp_path / "a.npz")


def test_lists_of_different_length_in_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("images", (3,), dtype=h5py.vlen_dtype(np.float32))
        for i in range(3):
            made[i] = np.ones(3 + i)
    with pytest.raises(InputError, match=r"lists or references"):
        arrays.open(tmp_path / "a.h5")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("rows", [False, True])
def test_a_damaged_npz_is_not_read(tmp_path, save, rows):
    values = np.random.default_rng(0).normal(size=(50, 16) if rows else (50, 16, 16))
    save(tmp_path / "a.npz", **{"X" if rows else "images": values})
    whole = bytearray((tmp_path / "a.npz").read_bytes())
    whole[3000] ^= 255
    (tmp_path / "a.npz").write_bytes(whole)
    with pytest.raises(InputError, match="damaged after it was saved"):
        ingest(tmp_path / "a.npz", tmp_path / "s", quiet=True, workers=0)
    assert not (tmp_path / "s" / "schema.json").exists()


def test_hdf5_text_and_damage(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["labels"] = np.random.default_rng(0).normal(size=(4, 9, 9)), ["a", "b", "a", "ü"]
        file["version"] = "1"
    assert arrays.open(tmp_path / "a.h5").items()["label"].to_pylist() == ["a", "b", "a", "ü"]
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:1500])
    with pytest.raises(InputError, match="cannot be read"):
        arrays.open(tmp_path / "b.h5")
