"""Catalogues: what was written is what is read back, with units, UCDs and provenance, in every format."""

import json
import re
import sys
import tomllib
import warnings
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse, validate
from astropy.io.votable.ucd import check_ucd
from astropy.table import Table

from deepsky import registry, tasks
from deepsky.catalogue import BASE, FLAGS, Catalogue, Meta, described, fits_names
from deepsky.errors import InputError, MissingExtra

PROVENANCE = {
    "model": "0123456789abcdef", "deepsky": "0.1.0", "objects": 4, "simulation": True, "survey": "blobs[mag < 22]",
    "prior": {"long": 0.25, "round": 0.75}, "unchecked": ["filters of g, r: compared by name only"] * 3,
}  # fmt: skip
META = {
    **BASE,
    "p_long": Meta(ucd="stat.probability;src.class", description="probability of long"),
    "class": Meta(ucd="src.class", description="the likeliest class"),
    "in_set_long": Meta(ucd="meta.code;src.class", description="in the conformal set"),
    "width": Meta("arcsec", "stat.value;stat.median", "median of the posterior"),
    "width_quantiles": Meta("arcsec", "stat.value", "quantiles"),
    "n_sources": Meta(description="number of detections"),
}


def table() -> pa.Table:
    """Four objects: one with a name beyond ASCII, one without a position, one where nothing was measured."""
    q = np.arange(12, dtype=np.float32).reshape(4, 3)
    q[3] = np.nan
    return pa.table({
        "id": ["a", "NGC 224é", "c & <d>", "nothing"],
        "ra": [10.0, 359.999999999, np.nan, 3.0],
        "dec": [-89.5, 0.0, np.nan, 3.0],
        "p_long": pa.array(np.array([0.1, 0.2, 0.9, np.nan], np.float32)),
        "class": ["round", "round", "long", None],
        "in_set_long": pa.array([False, True, True, None]),
        "width": [1.5, 2.5, 1e-30, np.nan],
        "width_quantiles": pa.FixedSizeListArray.from_arrays(pa.array(q.reshape(-1)), 3),
        "n_sources": pa.array([1, 2, 0, None], pa.int32()),
        "in_domain": pa.array(np.array([0.5, 0.0005, 0.1, np.nan], np.float32)),
        "flags": pa.array(np.array([0, 8, 1, 18], np.int16)),
    })  # fmt: skip


@pytest.fixture
def catalogue():
    return Catalogue(META, PROVENANCE, held=table())


@pytest.fixture
def with_children(catalogue):
    rows = pa.table(
        {"id": ["a", "NGC 224é", "NGC 224é"], "number": pa.array([0, 0, 1], pa.int32()), "x": [1.0, 2.0, 3.0]}
    )
    return Catalogue({**META, "x": Meta("pix")}, PROVENANCE, held=table(), children=rows)


def plain(name):
    return {"id": ["a", "NGC 224é", "c & <d>", "nothing"], "class": ["round", "round", "long", ""],
            "in_set_long": [False, True, True, False], "n_sources": [1, 2, 0, 0]}[name]  # fmt: skip


# -- columns ----------------------------------------------------------------------------------------------------
def test_columns_have_their_natural_types_and_no_nulls(catalogue):
    for name in ("id", "class", "in_set_long", "n_sources"):
        assert catalogue.column(name).tolist() == plain(name)
    assert catalogue.column("in_set_long").dtype == bool and catalogue.column("n_sources").dtype == np.int32
    q = catalogue.column("width_quantiles")
    assert q.shape == (4, 3) and q.dtype == np.float32 and q[1].tolist() == [3, 4, 5] and np.isnan(q[3]).all()
    with pytest.raises(InputError, match="no such column") as error:
        catalogue.column("p_lon")
    assert "did you mean 'p_long'" in str(error.value)


def test_lists_of_a_slice_and_of_several_chunks_are_read_right(catalogue):
    whole = catalogue.column("width_quantiles")
    sliced = Catalogue(META, held=table().slice(1, 2))
    np.testing.assert_array_equal(sliced.column("width_quantiles"), whole[1:3])
    twice = Catalogue(META, held=pa.concat_tables([table(), table().slice(2)]))
    np.testing.assert_array_equal(twice.column("width_quantiles"), np.concatenate([whole, whole[2:]]))
    nulls = pa.array([[1.0, 2.0], None, [5.0, 6.0]], pa.list_(pa.float64(), 2))
    found = Catalogue({}, held=pa.table({"x": nulls})).column("x")
    np.testing.assert_array_equal(found, [[1, 2], [np.nan, np.nan], [5, 6]])


def test_one_column_is_read_without_the_others(catalogue, tmp_path):
    back = Catalogue.read(catalogue.write(tmp_path / "x.parquet"))
    assert len(back) == 4 and back.names == catalogue.names
    assert back.column("p_long")[2] == np.float32(0.9)
    assert "table" not in vars(back)  # the whole table was never held
    assert back.table.num_rows == 4 and back.column("class").tolist() == plain("class")


# -- round trips --------------------------------------------------------------------------------------------------
def test_parquet_keeps_everything(catalogue, tmp_path):
    file = catalogue.write(tmp_path / "deep" / "x.parquet")
    back = Catalogue.read(file)
    assert back.meta == META and back.provenance == PROVENANCE
    told = described(table(), META, PROVENANCE).schema
    assert [(f.name, f.metadata) for f in back.table.schema] == [(f.name, f.metadata) for f in told]
    assert back.table.schema.metadata == told.metadata
    for name in back.names:
        np.testing.assert_array_equal(back.column(name), catalogue.column(name))
    field = pq.read_schema(file).field("width")
    assert json.loads(field.metadata[b"deepsky"]) == {"unit": "arcsec", "ucd": META["width"].ucd,
                                                      "description": META["width"].description}  # fmt: skip
    import pandas

    frame = pandas.read_parquet(file)
    assert frame["id"].tolist() == plain("id") and frame["class"].isna().tolist() == [False] * 3 + [True]


def check_numbers(read, catalogue):
    for name in ("ra", "dec", "p_long", "width", "width_quantiles", "in_domain", "flags"):
        np.testing.assert_array_equal(np.ma.filled(np.ma.asarray(read[name]), np.nan) if read[name].dtype.kind == "f"
                                      else np.asarray(read[name]), catalogue.column(name), err_msg=name)  # fmt: skip


def test_fits_round_trip_with_units_and_ucds(catalogue, tmp_path):
    file = catalogue.write(tmp_path / "x.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = Table.read(file)
    check_numbers(read, catalogue)
    assert read["ra"].unit == "deg" and read["width"].unit == "arcsec" and read["width_quantiles"].unit == "arcsec"
    assert np.asarray(read["id"]).astype(str).tolist() == ["a", r"NGC 224\xe9", "c & <d>", "nothing"]
    assert read["in_set_long"].tolist() == plain("in_set_long") and read["n_sources"].tolist() == plain("n_sources")
    with fits.open(file) as hdus:
        hdus.verify("exception")
        header = hdus["OBJECTS"].header
        number = {header[f"TTYPE{i}"]: i for i in range(1, header["TFIELDS"] + 1)}
        for name, meta in META.items():
            assert header.get(f"TUCD{number[name]}", "") == meta.ucd
            assert header.get(f"TCOMM{number[name]}", "") == meta.description
        assert json.loads(header["DEEPSKY"]) == PROVENANCE and header["MODEL"] == PROVENANCE["model"]


def test_fits_holds_classes_beyond_ascii_and_names_that_differ_only_in_case(tmp_path):
    names = ["p_Spirale à barre", "p_Spirale a barre", "p_SA", "p_Sa", "p_sa_2", "p_Hα", "p_Ηα", "p_星", "p_x"]
    columns = {n: np.full(3, i, np.float32) for i, n in enumerate(names)}
    made = Catalogue({n: Meta("µas", description=f"of {n}") for n in names}, PROVENANCE,
                     held=pa.table({"id": ["a", "b", "c"], **columns}))  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = made.write(tmp_path / "x.fits")
    told = ["p_Spirale a barre_2", "p_Spirale a barre", "p_SA", "p_Sa_2", "p_sa_2_2", "p_Halpha", "p_Etaalpha",
            "p_u661f", "p_x"]  # fmt: skip
    assert list(fits_names(names).values()) == told
    with fits.open(file) as hdus:
        hdus.verify("exception")
        header, data = hdus["OBJECTS"].header, hdus["OBJECTS"].data
        for i, name in enumerate(names):
            told = fits_names(names)[name]
            assert header[f"TTYPE{i + 2}"] == told and (data[told] == i).all()  # astropy too ignores case
            kept = header.get(f"TORIG{i + 2}", told)
            assert kept.encode("ascii").decode("unicode_escape") == name
    back = Catalogue.read(made.write(tmp_path / "x.parquet"))
    assert back.names == ["id", *names]


def test_votable_is_valid_and_round_trips(catalogue, tmp_path):
    file = catalogue.write(tmp_path / "x.vot")
    words = StringIO()
    validate(str(file), output=words)  # every warning and violation of the standard that astropy knows
    assert "found no violations" in words.getvalue(), words.getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = parse(file, verify="exception")
    one = found.get_first_table()
    assert one.nrows == 4
    for field in one.fields:
        meta = META[field.name]
        assert (field.ucd or "") == meta.ucd and (str(field.unit) if field.unit else "") == meta.unit
        assert " ".join((field.description or "").split()) == meta.description
    assert {f.name: f.datatype for f in one.fields}["in_set_long"] == "boolean"
    read = one.to_table()
    check_numbers(read, catalogue)
    assert read["id"].tolist() == plain("id")
    assert read["in_set_long"].tolist() == [False, True, True, None]
    assert read["n_sources"].tolist()[:3] == [1, 2, 0]
    infos = {i.name: i.value for i in found.resources[0].infos}
    assert infos["model"] == PROVENANCE["model"] and json.loads(infos["prior"]) == PROVENANCE["prior"]
    assert {f.name: f.ref for f in one.fields if f.ref} == {"ra": "icrs", "dec": "icrs"}


def test_ecsv_round_trip_with_units_and_ucds(catalogue, tmp_path):
    read = Table.read(catalogue.write(tmp_path / "x.ecsv"))
    check_numbers(read, catalogue)
    assert read["id"].tolist() == plain("id") and read["width"].unit == "arcsec"
    assert read["class"].tolist() == ["round", "round", "long", None]
    assert read["in_set_long"].tolist() == [False, True, True, None]
    assert read["width"].meta["ucd"] == META["width"].ucd and read["width"].description == META["width"].description
    assert read.meta["model"] == PROVENANCE["model"] and json.loads(read.meta["prior"]) == PROVENANCE["prior"]


def test_csv_round_trip_with_lists_as_columns_in_their_place(catalogue, tmp_path):
    import pandas

    read = pandas.read_csv(catalogue.write(tmp_path / "x.csv"))
    at = read.columns.get_loc("width")
    assert list(read.columns[at : at + 5]) == ["width", "width_quantiles_0", "width_quantiles_1", "width_quantiles_2",
                                               "n_sources"]  # fmt: skip
    assert read["id"].tolist() == plain("id") and read["ra"][1] == 359.999999999 and read["width"][2] == 1e-30
    np.testing.assert_allclose(read["width_quantiles_2"][:3], [2, 5, 8])
    assert read.loc[3, ["p_long", "class", "in_set_long", "n_sources"]].isna().all()


def test_an_ending_that_is_no_format_is_refused_and_nothing_written(catalogue, tmp_path):
    with pytest.raises(InputError, match="no such catalogue format") as error:
        catalogue.write(tmp_path / "new" / "x.hdf5")
    assert ".fits" in str(error.value) and not (tmp_path / "new").exists()


def test_an_empty_catalogue_is_written_in_every_format(tmp_path):
    empty = Catalogue(META, PROVENANCE, held=table().slice(0, 0))
    for ending in ("parquet", "fits", "vot", "ecsv", "csv"):
        assert empty.write(tmp_path / f"x.{ending}").stat().st_size > 0
    assert len(Table.read(tmp_path / "x.fits")) == 0 and len(Catalogue.read(tmp_path / "x.parquet")) == 0


# -- child tables -------------------------------------------------------------------------------------------------
def test_children_go_along_into_every_format(with_children, tmp_path):
    files = {e: with_children.write(tmp_path / f"x.{e}") for e in ("parquet", "fits", "vot", "ecsv", "csv")}
    assert Catalogue.read(files["parquet"]).children.to_pydict()["x"] == [1.0, 2.0, 3.0]
    with fits.open(files["fits"]) as hdus:
        assert [h.name for h in hdus] == ["PRIMARY", "OBJECTS", "CHILDREN"]
        assert hdus["CHILDREN"].data["number"].tolist() == [0, 0, 1] and hdus["CHILDREN"].columns["x"].unit == "pix"
    second = list(parse(files["vot"], verify="exception").iter_tables())[1]
    assert second.name == "children" and second.to_table()["x"].tolist() == [1.0, 2.0, 3.0]
    assert Table.read(tmp_path / "x.children.ecsv")["id"].tolist() == ["a", "NGC 224é", "NGC 224é"]
    assert (tmp_path / "x.children.csv").read_text().count("\n") == 4


def test_a_strange_file_called_children_is_not_taken_along(catalogue, tmp_path):
    catalogue.write(tmp_path / "children.parquet")
    assert Catalogue.read(catalogue.write(tmp_path / "x.parquet")).children is None


# -- views --------------------------------------------------------------------------------------------------------
def test_views_in_astropy_and_pandas_show_what_is_missing(catalogue):
    view = catalogue.to_table()
    assert view["class"].mask.tolist() == [False, False, False, True] and view["in_set_long"].mask[3]
    assert view["ra"].unit == "deg" and view["width_quantiles"].shape == (4, 3)
    assert view["width"].quantity.to("arcmin")[0].value == pytest.approx(1.5 / 60)
    assert json.loads(view.meta["prior"]) == PROVENANCE["prior"]
    frame = catalogue.to_pandas()
    assert frame["class"].isna().tolist() == [False, False, False, True] and len(frame.columns) == len(catalogue.names)


def test_a_notebook_shows_the_first_rows_and_escapes_what_stands_in_them(catalogue):
    shown = catalogue._repr_html_()
    assert "&lt;Catalogue: 4 objects" in shown and "c &amp; &lt;d&gt;" in shown and "<d>" not in shown


def test_without_pandas_a_notebook_shows_the_same_and_a_frame_names_its_extra(catalogue, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed
    wide = Catalogue(META, PROVENANCE, held=pa.table({f"c{i}": [i / 3] for i in range(40)}))
    cells = re.findall("<t[dh]>(.*?)</t[dh]>", wide._repr_html_())
    names = [*(f"c{i}" for i in range(7)), "...", *(f"c{i}" for i in range(33, 40))]
    assert cells[:15] == names and cells[15:18] == ["0", "0.333333", "0.666667"] and len(cells) == 30
    shown = catalogue._repr_html_()
    assert "<td>NGC 224é</td>" in shown and "<td>[0, 1, 2]</td>" in shown and shown.count("<tr>") == 5
    with pytest.raises(MissingExtra, match=r"deepsky\[pandas\]"):
        catalogue.to_pandas()
    extras = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert any(line.startswith("pandas") for line in extras["optional-dependencies"]["pandas"])


# -- reading ------------------------------------------------------------------------------------------------------
def test_reading_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="no such catalogue"):
        Catalogue.read(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes(b"no parquet at all, but long enough to look at")
    with pytest.raises(InputError, match="not a Parquet file"):
        Catalogue.read(tmp_path / "x.parquet")
    (tmp_path / "tiles").mkdir()
    pq.write_table(table(), tmp_path / "tiles" / "a.parquet")
    with pytest.raises(InputError, match="no finished catalogue") as error:
        Catalogue.read(tmp_path)
    assert "1 tiles of a prediction" in str(error.value) and "deepsky predict" in str(error.value)


def test_any_parquet_file_is_a_catalogue(tmp_path):
    pq.write_table(table(), tmp_path / "x.parquet")
    back = Catalogue.read(tmp_path / "x.parquet")
    assert back.column("id").tolist() == plain("id") and back.meta["ra"] == Meta()


# -- words ----------------------------------------------------------------------------------------------------------
BOUND = [
    tasks.Classify("x", classes=("a", "b"), prior=(0.5, 0.5)),
    tasks.Classify(("a", "b"), multilabel=True, classes=("a", "b"), prior=(0.5, 0.5)),
    tasks.Regress("z", names=("z",), units=("",), centre=(0.0,), scale=(1.0,)),
]


def test_every_ucd_is_one_of_the_standard_words():
    assert {t.name for t in BOUND} == set(registry.names("tasks"))
    metas = [*BASE.values(), *(o for t in BOUND for o in t.outputs().values())]
    for meta in metas:
        assert not meta.ucd or check_ucd(meta.ucd, check_controlled_vocabulary=True), meta.ucd
    assert all(bit & (bit - 1) == 0 for bit in FLAGS) and all(str(b) in BASE["flags"].description for b in FLAGS)
