"""Tables of every format: the same rows, ids to the last digit, positions in degrees, features with their errors."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table

from deepsky.errors import InputError
from deepsky.surveys import _columns, arrays, table
from deepsky.surveys.table import read, read_table

BIG = 1237648720693755912  # a float64 would round it


def made(n=5):
    rng = np.random.default_rng(0)
    out = QTable({"objID": np.arange(BIG, BIG + n)})
    out["ra"], out["dec"] = rng.uniform(0, 360, n) * u.deg, rng.uniform(-90, 90, n) * u.deg
    out["mag"] = rng.normal(20, 1, n) * u.mag
    out["class"] = ["GALAXY", "STAR", "STAR", "QSO", "GALAXY"][:n]
    return out


def as_csv(path, text):
    path.write_text(text)
    return path


WRITERS = {
    "csv": lambda t, p: Table(t).write(p, format="ascii.csv"),
    "tsv": lambda t, p: Table(t).write(p, format="ascii.tab"),
    "txt": lambda t, p: Table(t).write(p, format="ascii.commented_header"),
    "dat": lambda t, p: Table(t).write(p, format="ascii.basic", delimiter="|"),
    "ecsv": lambda t, p: t.write(p, format="ascii.ecsv"),
    "fits": lambda t, p: t.write(p),
    "vot": lambda t, p: Table(t).write(p, format="votable"),
    "parquet": lambda t, p: pq.write_table(pa.table({n: np.asarray(t[n]) for n in t.colnames}), p),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_holds_the_same_rows(tmp_path, kind):
    truth = made()
    path = tmp_path / f"table.{kind}"
    WRITERS[kind](truth, path)
    got, units = read_table(path)
    assert got.column_names == truth.colnames and table.claims(path)
    assert [str(i) for i in got["objID"].to_pylist()] == [str(i) for i in truth["objID"]]
    np.testing.assert_allclose(got["ra"], truth["ra"].value, rtol=1e-14)
    assert got["class"].to_pylist() == list(truth["class"])
    assert units == ({"ra": "deg", "dec": "deg", "mag": "mag"} if kind in ("ecsv", "fits", "vot") else {})
    source = table.open(path)
    assert source.items()["id"].to_pylist() == [str(BIG + i) for i in range(5)]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_compressed_text(tmp_path, pack):
    (tmp_path / "a.csv.gz").write_bytes(pack(b"id,x\na,1\nb,2\n"))
    assert read_table(tmp_path / "a.csv.gz")[0]["x"].to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        ("id;x;y\na;1,5;2\nb;2,5;3\n", ["id", "x", "y"], ["a", 1.5, 2]),  # decimal commas
        ("\ufeffid,x\na,1\n", ["id", "x"], ["a", 1]),  # a byte-order mark
        ("# made by hand\n# more\nid,x\na,1\n# in between\nb,2\n", ["id", "x"], ["a", 1]),
        ("# id x\n17 2.5\n18 3\n", ["id", "x"], ["17", 2.5]),
        ("  id    x\n  a  1\n  b   2\n", ["id", "x"], ["a", 1]),
        (',id,x\n0,"a, b",1\n1,c,2\n', ["index", "id", "x"], [0, "a, b", 1]),  # pandas with its index
        ("1.5,2\n3,4\n", ["c1", "c2"], [1.5, 2]),
        ("id,name\n007,é ü 星\n", ["id", "name"], ["007", "é ü 星"]),
        ("id,t\na,12:30:00\nb,12:30:05\n", ["id", "t"], ["a", "12:30:00"]),
        ("id,x\na,NaN\nb,--\nc,1\n", ["id", "x"], ["a", None]),
        ('id\tx\n"a b"\t1\n', ["id", "x"], ["a b", 1]),
    ],
)
def test_text(tmp_path, text, names, first):
    got, _ = read_table(as_csv(tmp_path / "a.csv", text))
    assert got.column_names == names
    assert [got[n][0].as_py() for n in names] == first


@pytest.mark.parametrize("long", [0, 1])  # the first bytes that are looked at end inside a letter, or behind it
def test_cyrillic_columns_and_labels(tmp_path, long):
    words = ["спираль", "эллипс"]
    rows = [f"галактика-{'ё' * 300}{'x' * long},{words[i % 2]},{i}" for i in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["имя,класс,величина", *rows]) + "\n", encoding="utf-8")
    got, _ = read_table(tmp_path / "a.csv")
    assert got.column_names == ["имя", "класс", "величина"] and got["класс"].to_pylist() == words * 20
    assert got["величина"].to_pylist() == list(range(40))


@pytest.mark.parametrize(
    ("encoding", "kind", "fix"),
    [("utf-16", "UTF-16 text", "iconv -f UTF-16 "), ("utf-16-le", "UTF-16 text", "iconv -f UTF-16 "),
     ("utf-16-be", "UTF-16 text", "iconv -f UTF-16 "), ("cp1251", "text that is not UTF-8", "iconv -f CP1251 ")],
)  # fmt: skip
def test_other_encodings_are_named_with_what_converts_them(tmp_path, encoding, kind, fix):
    text = "id,kind\na,b\n" if encoding[-1] == "e" else "имя,класс\nгалактика,спираль\n"
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match="no reader") as error:
        read_table(tmp_path / "a.csv")
    assert error.value.found == kind and fix in str(error.value.fix)


def test_latin_1(tmp_path):
    (tmp_path / "a.csv").write_bytes("id,x\nJosé,1\n".encode("latin-1"))
    assert read_table(tmp_path / "a.csv")[0]["id"].to_pylist() == ["José"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("# only a comment\n", "an empty table"),
        ("id,x\n", "no row"),
        ("id,x,x\na,1,2\n", "column names repeat"),
        ("id,x\na,1\nb,2,3\n", "rows that do not fit"),
        ("a\0b", "zero bytes|unknown binary"),
    ],
)
def test_bad_text_is_refused_with_the_file(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as caught:
        read_table(as_csv(tmp_path / "bad.csv", text))
    assert "bad.csv" in str(caught.value)


def test_bad_files_of_other_formats(tmp_path):
    fits.PrimaryHDU(np.ones((4, 4))).writeto(tmp_path / "image.fits")
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[])])]).writeto(
        tmp_path / "empty.fits"
    )
    (tmp_path / "cut.fits").write_bytes((tmp_path / "empty.fits").read_bytes()[:3000])
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    (tmp_path / "a.vot").write_text("<VOTABLE><RESOURCE>")
    for name, words in (("image", "no HDU of the file holds a table"), ("empty", "empty table"), ("cut", "END")):
        with pytest.raises(InputError, match=words):
            read_table(tmp_path / f"{name}.fits")
    for name in ("a.parquet", "a.vot"):
        with pytest.raises(InputError, match="not a sound"):
            read_table(tmp_path / name)
    with pytest.raises(InputError, match="there is no such table"):
        read_table(tmp_path / "none.csv")


def test_votable_text_in_a_column_of_numbers_is_refused(tmp_path):
    path = tmp_path / "a.vot"
    Table({"id": ["a", "b"], "x": [1.25, 2.0]}).write(path, format="votable")
    assert read_table(path)[0]["x"].to_pylist() == [1.25, 2.0]
    path.write_text(path.read_text().replace("1.25", "abc"))
    with pytest.raises(InputError, match="no numbers in a column of numbers"):
        read_table(path)


def test_masked_values_are_missing(tmp_path):
    t = Table({"id": [1, 2, 3], "k": MaskedColumn([7, 8, 9], mask=[False, True, False]), "x": [1.0, np.nan, 3.0]})
    for name in ("a.fits", "a.ecsv", "a.vot"):
        t.write(tmp_path / name, format={"fits": "fits", "ecsv": "ascii.ecsv", "vot": "votable"}[name[2:]])
        got, _ = read_table(tmp_path / name)
        assert got["k"].to_pylist() == [7, None, 9]
        source = table.open(tmp_path / name)
        block = source.read(source.items())
        np.testing.assert_array_equal(block.arrays["row.ivar"], [[1, 1], [0, 0], [1, 1]])


# -- ids and positions --------------------------------------------------------------------------------------------
def test_ids_through_a_float_are_refused(tmp_path):
    Table({"objid": np.array([BIG, BIG + 1], float), "x": [1.0, 2.0]}).write(tmp_path / "a.fits")
    as_csv(tmp_path / "b.csv", "objid,x\n1.24E+18,1\n1.24E+18,2\n")
    for name in ("a.fits", "b.csv"):
        with pytest.raises(InputError, match="rounded by a spreadsheet or a float64") as caught:
            table.open(tmp_path / name, id="objid")
        assert caught.value.keyword == "objid"
        source = table.open(tmp_path / name)
        assert source.items()["id"].to_pylist() == [f"{name[0]}-0000001", f"{name[0]}-0000002"]
        assert any("no use as ids" in n for n in source.schema.notes)


def test_another_column_may_hold_the_ids(tmp_path):
    path = as_csv(tmp_path / "a.csv", "id,ra,dec,name,a,b,x\nold,hot,1,n1,10,20,1\nold,cold,2,n2,11,21,2\n")
    items = table.open(path, id="name", ra="a", dec="b").items()
    assert (items["id"].to_pylist(), items["ra"].to_pylist()) == (["n1", "n2"], [10, 11])
    assert items["input_id"].to_pylist() == ["old", "old"] and items["input_ra"].to_pylist() == ["hot", "cold"]


def test_small_float_ids_lose_their_point(tmp_path):
    Table({"id": [17.0, 18.0], "x": [1.0, 2.0]}).write(tmp_path / "a.fits")
    assert table.open(tmp_path / "a.fits").items()["id"].to_pylist() == ["17", "18"]


def test_missing_ids_are_refused(tmp_path):
    with pytest.raises(InputError, match="rows without an id"):
        table.open(as_csv(tmp_path / "a.csv", "id,x\na,1\n,2\n"), id="id")


def test_capitals_do_not_matter_and_names_can_be_given(tmp_path):
    path = as_csv(tmp_path / "a.csv", "SOURCE_ID,RAJ2000,DEJ2000,q,r\n5,10,20,1,2\n6,11,21,3,4\n")
    items = table.open(path).items()
    assert (items["id"].to_pylist(), items["ra"].to_pylist()) == (["5", "6"], [10, 11])
    items = table.open(path, ra="q", dec="r").items()
    assert items["dec"].to_pylist() == [2, 4]
    with pytest.raises(InputError, match="known: SOURCE_ID"):
        table.open(path, id="nope")


def degrees(columns, units=(), **options):
    from deepsky.tables import with_units

    t = with_units(pa.table(columns), dict(units))
    return _columns.degrees(t, _columns.find_position(t), **options)


def test_right_ascensions_in_hours():
    n = 50
    ra, dec = np.linspace(0.1, 23.9, n), np.linspace(-80, 80, n)
    np.testing.assert_allclose(degrees({"ra": ra, "dec": dec}, {"ra": "hourangle"})[0], ra * 15)
    np.testing.assert_allclose(degrees({"ra": ra, "dec": dec}, ra_unit="hour")[0], ra * 15)
    np.testing.assert_allclose(degrees({"ra": ra, "dec": dec}, ra_unit="deg")[0], ra)
    with pytest.raises(InputError, match="seem to be hours"):
        degrees({"ra": ra, "dec": dec})
    np.testing.assert_allclose(degrees({"ra": ra / 24, "dec": dec})[0], ra / 24)  # a survey of one degree


def test_sexagesimal_and_radians():
    ra, dec = degrees({"RA": ["12:30:00", "00 00 04"], "Dec": ["-00:30:00", "+10 00 00"]})
    np.testing.assert_allclose(ra, [187.5, 1 / 60])
    np.testing.assert_allclose(dec, [-0.5, 10])
    ra, dec = degrees({"coord_ra": [np.pi], "coord_dec": [-np.pi / 4]}, {"coord_ra": "rad", "coord_dec": "rad"})
    np.testing.assert_allclose((ra[0], dec[0]), (180, -45))


def test_positions_beyond_the_sky():
    with pytest.raises(InputError, match="row 2: 10, 95"):
        degrees({"ra": [10.0, 10.0, 400.0], "dec": [0.0, 95.0, 0.0]})
    np.testing.assert_allclose(degrees({"ra": [-10.0], "dec": [0.0]})[0], 350)


@pytest.mark.parametrize("bad", [(10.0, 95.0), (400.0, 0.0), (np.inf, 0.0), (10.0, -np.inf), (np.nan, 95.0)])
def test_one_impossible_position_sets_its_object_aside(tmp_path, bad):
    from deepsky.ingestion import ingest

    ra, dec = degrees({"ra": [-10.0, bad[0], 20.0], "dec": [0.0, bad[1], 1.0]})
    np.testing.assert_array_equal((ra, dec), [[350, bad[0], 20], [0, bad[1], 1]])
    n = 20
    columns = {"id": [f"o{i}" for i in range(n)], "ra": np.arange(n) * 3.0, "dec": np.zeros(n), "x": np.arange(n) % 7}
    columns["ra"][4], columns["dec"][4] = bad
    Table(columns).write(tmp_path / "a.ecsv")
    survey = ingest(tmp_path / "a.ecsv", tmp_path / "s", quiet=True)
    assert set(survey.id) == set(columns["id"]) - {"o4"}
    rejected = pq.read_table(survey.path / "rejected.parquet").to_pylist()
    assert [r["id"] for r in rejected] == ["o4"] and "of " in rejected[0]["reason"]


def test_the_unit_in_brackets_behind_a_name():
    for unit, factor in (("deg", 1), ("hours", 15), ("rad", np.degrees(1))):
        ra, dec = degrees({f"RA [{unit}]": [1.5], f"Dec ({'rad' if unit == 'rad' else 'deg'})": [0.5]})
        np.testing.assert_allclose((ra[0], dec[0]), (1.5 * factor, np.degrees(0.5) if unit == "rad" else 0.5))


# -- features -----------------------------------------------------------------------------------------------------
def test_features_with_errors_nan_and_sentinels(tmp_path):
    path = as_csv(
        tmp_path / "a.csv",
        "id,mag_g,mag_g_err,mag_r,mag_r_err,class\na,20,0.1,19,0.2,star\nb,99,0.1,,0.2,star\nc,21,-99,18,0.5,x\n",
    )
    with pytest.raises(InputError, match="a negative error") as caught:
        table.open(path)
    assert caught.value.keyword == "mag_g_err"
    source = table.open(path, sentinel=[99, -99])
    row = source.schema.observations["row"]
    assert (row.names, row.noise) == (("mag_g", "mag_r"), "measured")
    block = source.read(source.items())
    np.testing.assert_allclose(block.arrays["row.ivar"], [[100, 25], [0, 0], [0, 4]], rtol=1e-6)
    np.testing.assert_allclose(block.arrays["row.flux"], [[20, 19], [0, 0], [0, 18]])
    column = source.schema.columns["class"]
    assert (column.role, column.classes) == ("label", ("star", "x"))
    part = source.read(source.items().slice(2, 1))
    assert part.ids == ("c",) and part.arrays["row.flux"][0, 1] == 18


def with_slips(**cells):
    """Sixty rows of numbers as text, two of them changed."""
    columns = {"id": [f"o{i}" for i in range(60)], "a": [f"{i / 7:.3f}" for i in range(60)],
               "b": [str(i) for i in range(60)], "kind": ["E", "S", "1"] * 20}  # fmt: skip
    for name, slips in cells.items():
        for row, word in slips.items():
            columns[name][row] = word
    return columns


def written(path, columns):
    return as_csv(path, "\n".join(",".join(row) for row in [list(columns), *zip(*columns.values(), strict=True)]))


@pytest.mark.parametrize("memory", [False, True])
def test_text_in_a_column_of_numbers_sets_its_object_aside(tmp_path, memory):
    columns = with_slips(a={16: "abc", 30: "12.5mag"}, b={16: "x"})
    source = arrays.open(pa.table(columns)) if memory else table.open(written(tmp_path / "a.csv", columns))
    assert source.schema.observations["row"].names == ("a", "b")
    lost = [(r.id, r.reason, r.file.rsplit(", ")[-1]) for r in source.rejected()]
    assert lost == [("o16", "column 'a' holds 'abc' and no number", "row 17"),
                    ("o30", "column 'a' holds '12.5mag' and no number", "row 31")]  # fmt: skip
    items = source.items()
    assert items["id"].to_pylist() == [f"o{i}" for i in range(60) if i not in (16, 30)]
    block = source.read(items)
    np.testing.assert_allclose(block.arrays["row.flux"][:, 1], [i for i in range(60) if i not in (16, 30)])
    assert block.ids == tuple(items["id"].to_pylist()) and (block.arrays["row.ivar"] == 1).all()
    assert any("text in a column of numbers" in n and "features=[...]" in n for n in source.schema.notes)


@pytest.mark.parametrize("memory", [False, True])
def test_words_for_a_missing_value_are_no_slips(tmp_path, memory):
    words = ["-", "NA", "nan", "null", "", " INDEF", "...", "inf"]
    columns = with_slips(a=dict(enumerate(words)), b={9: "+4.5", 10: "1e2"})
    source = arrays.open(pa.table(columns)) if memory else table.open(written(tmp_path / "a.csv", columns))
    assert source.rejected() == () and source.items().num_rows == 60
    block = source.read(source.items())
    assert (block.arrays["row.ivar"][:, 0] > 0).tolist() == [False] * 8 + [True] * 52
    assert block.arrays["row.flux"][9:11, 1].tolist() == [4.5, 100]


@pytest.mark.parametrize("memory", [False, True])
def test_features_that_are_chosen_decide_what_is_set_aside(tmp_path, memory):
    columns = with_slips(a={16: "abc"})

    def opened(**options):
        data = pa.table(columns) if memory else written(tmp_path / "a.csv", columns)
        return (arrays if memory else table).open(data, **options)

    assert opened(features=["b"]).rejected() == () and opened(features=["b"]).items()["a"][16].as_py() == "abc"
    assert [r.id for r in opened(features=["a"]).rejected()] == ["o16"]
    with pytest.raises(InputError, match=r"kind: a feature that is text\n.*row 1: 'E'"):
        opened(features=["kind"])
    columns["kind"] = ["1", "2", "E"] * 20
    assert any("'kind' is text and no feature: 67% of its cells are numbers (row 3: 'E')" in n
               for n in opened().schema.notes)  # fmt: skip


def test_errors_of_some_features_are_features(tmp_path):
    source = table.open(as_csv(tmp_path / "a.csv", "id,x,x_err,y\na,1,2,3\n"))
    row = source.schema.observations["row"]
    assert row.noise == "unknown" and row.names == ("x", "x_err", "y")
    chosen = table.open(tmp_path / "a.csv", features=["x"])
    assert chosen.schema.observations["row"].noise == "measured"
    with pytest.raises(InputError, match="no such column of numbers"):
        table.open(tmp_path / "a.csv", features=["z"])


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("u", "eu"),
        ("Vmag", "e_Vmag"),
        ("modelMag_g", "modelMagErr_g"),
        ("g_flux", "g_fluxErr"),
        ("MAG_AUTO", "MAGERR_AUTO"),
        ("z", "z_err"),
        ("x", None),
    ],
)
def test_names_of_errors(name, error):
    assert _columns.error_of(name, [name, "other", *([error] if error else [])]) == error


def test_values_that_look_like_not_measured_are_noted(tmp_path):
    rng = np.random.default_rng(0)
    mag = rng.normal(20, 1, 200)
    mag[:7] = 99
    pq.write_table(pa.table({"id": np.arange(200), "mag": mag}), tmp_path / "a.parquet")
    assert any("7 values are exactly 99" in n for n in table.open(tmp_path / "a.parquet").schema.notes)
    assert not any("exactly" in n for n in table.open(tmp_path / "a.parquet", sentinel=99).schema.notes)


def test_units_are_kept_and_no_features_is_an_error(tmp_path):
    source = table.open(table.example(tmp_path))
    assert source.schema.observations["row"].units == ("mag(AB)", "mag(AB)")
    with pytest.raises(InputError, match="no column of numbers is left"):
        table.open(as_csv(tmp_path / "b.csv", "id,name\na,b\n"))


def test_travel(tmp_path):
    source = table.open(table.example(tmp_path))
    items = source.items()
    there = pickle.loads(pickle.dumps(source)).read(items.slice(3, 2))
    np.testing.assert_array_equal(there.arrays["row.flux"], source.read(items).arrays["row.flux"][3:5])


# -- real tables --------------------------------------------------------------------------------------------------
def test_sdss17_ids_were_ruined(shared_data):
    path = shared_data / "sdss17" / "star_classification.csv"
    source = table.open(path)
    assert len(set(source.items()["id"].to_pylist())) == 9999
    assert any("'obj_ID' is no use as ids" in n for n in source.schema.notes)
    with pytest.raises(InputError, match=r"1 different values in 9,999 rows"):
        table.open(path, id="obj_ID")


def test_efigi_attributes(shared_data):
    got, _ = read_table(shared_data / "efigi" / "EFIGI_attributes.txt")
    assert got.shape == (4458, 52) and got.column_names[:2] == ["PGCname", "T"]
    assert got["T"].to_pylist()[:3] == [1, 0, -2]


def test_sextractor_catalogue(shared_data):
    got, units = read_table(shared_data / "sep" / "image.cat")
    assert got.num_rows == 65 and _columns.find_pixels(got) == ("X_IMAGE", "Y_IMAGE")
    assert got["X_IMAGE"][0].as_py() == 165.1449 and units["X_IMAGE"] == "pixel"
    assert got["FLAGS"].to_pylist()[2] == 24


def test_great3(shared_data):
    with fits.open(shared_data / "great3" / "real_galaxy_23.5_shapes.fits") as hdus:
        e1 = hdus[1].data["e1"].copy()
    got, _ = read_table(shared_data / "great3" / "real_galaxy_23.5_shapes.fits")
    np.testing.assert_array_equal(got["e1"], e1)


def test_plasticc_metadata(shared_data):
    source = table.open(shared_data / "plasticc" / "metadata.csv")
    assert source.schema.columns["target"].classes[:3] == ("6", "15", "16")
    names = source.schema.observations["row"].names
    assert not any(n.startswith("true_") for n in names)  # they would give the answer away


# -- odd tables ---------------------------------------------------------------------------------------------------
def test_members_of_a_packed_file_follow_one_another(tmp_path):
    whole = b"id,a\n" + b"".join(b"x%d,%d\n" % (i, i) for i in range(50))
    parts = [whole[:60], whole[60:]]
    for name, pack in (("t.csv.gz", gzip.compress), ("t.csv.bz2", bz2.compress), ("t.txt.xz", lzma.compress)):
        (tmp_path / name).write_bytes(b"".join(map(pack, parts)))
        assert table.claims(tmp_path / name)
        assert read(tmp_path / name)["a"].to_pylist() == list(range(50))
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(whole)[:-30])
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path / "cut.csv.gz")


def test_a_packed_votable(tmp_path):
    made = Table({"id": ["a", "b"], "x": [1.5, 2.5]})
    made.write(tmp_path / "t.vot", format="votable")
    (tmp_path / "t.xml.gz").write_bytes(gzip.compress((tmp_path / "t.vot").read_bytes()))
    assert read(tmp_path / "t.xml.gz")["x"].to_pylist() == [1.5, 2.5]


def test_votable_null_is_missing(tmp_path):
    Table({"x": [1.5, 777.0]}).write(tmp_path / "t.vot", format="votable")
    path = tmp_path / "t.vot"
    path.write_text(path.read_text().replace("777", "null"))
    assert read(path)["x"].to_pylist() == [1.5, None]


def test_columns_of_a_few_numbers_are_spread_and_long_ones_told(tmp_path):
    made = Table({"id": ["a", "b"], "flux": [[1.0, 2, 3], [4, 5, 6]], "flux_2": [7.0, 8], "long": np.zeros((2, 40)),
                  "words": [["x", "y"], ["z", "w"]]})  # fmt: skip
    made["flux"].unit = "nJy"
    made.write(tmp_path / "t.fits")
    source = table.open(tmp_path / "t.fits")
    row = source.schema.observations["row"]
    assert row.names == ("flux_1", "flux_2_", "flux_3", "flux_2") and row.units == ("nJy", "nJy", "nJy", "")
    np.testing.assert_array_equal(source.read(source.items()).arrays["row.flux"], [[1, 2, 3, 7], [4, 5, 6, 8]])
    assert any("long (40)" in n for n in source.schema.notes) and any("words" in n for n in source.schema.notes)


def test_fits_columns_without_names_or_with_odd_formats(tmp_path):
    hdu = fits.BinTableHDU(Table({"a": [1, 2], "b": [0.5, 1.5]}))
    hdu.header["TDISP2"] = "I12"
    hdu.writeto(tmp_path / "odd.fits")
    assert read(tmp_path / "odd.fits")["b"].to_pylist() == [0.5, 1.5]
    raw = bytearray((tmp_path / "odd.fits").read_bytes())
    for card in (b"TTYPE1  ", b"TTYPE2  "):
        raw[raw.index(card) : raw.index(card) + 8] = b"COMMENT "
    (tmp_path / "bare.fits").write_bytes(raw)
    assert read(tmp_path / "bare.fits").column_names == ["c1", "c2"]


def test_the_longest_table_of_several_is_read_and_told(tmp_path):
    hdus = [fits.PrimaryHDU(), *(fits.BinTableHDU(Table({"a": np.arange(n)})) for n in (3, 9, 5))]
    fits.HDUList(hdus).writeto(tmp_path / "t.fits")
    source = table.open(tmp_path / "t.fits")
    assert source.items().num_rows == 9 and any("of 3 tables HDU 2" in n for n in source.schema.notes)


def test_a_compressed_table_is_refused(tmp_path):
    hdu = fits.BinTableHDU(Table({"a": [1, 2]}))
    hdu.header["ZTABLE"] = True
    hdu.writeto(tmp_path / "t.fits")
    with pytest.raises(InputError, match="ZTABLE.*compressed table"):
        read(tmp_path / "t.fits")


@pytest.mark.parametrize("text", ["RAdeg,DEdeg", "_RAJ2000,_DEJ2000", "ALPHA_J2000,DELTA_J2000", "raMean,decMean",
                                  "RA_ICRS,DE_ICRS", "RAJ2000,DEJ2000", "_RA.icrs,_DE.icrs"])  # fmt: skip
def test_names_of_positions(tmp_path, text):
    (tmp_path / "t.csv").write_text(f"id,{text},mag\na,150.5,-2.25,20\nb,0.5,2,21\n")
    items = table.open(tmp_path / "t.csv").items()
    assert items["ra"].to_pylist() == [150.5, 0.5] and items["dec"].to_pylist() == [-2.25, 2]


def test_empty_tables_name_their_file(tmp_path):
    Table({"a": np.zeros(0)}).write(tmp_path / "t.vot", format="votable")
    with pytest.raises(InputError, match=r"t\.vot: an empty table"):
        read(tmp_path / "t.vot")


def test_numbers_that_name_something_are_no_features(tmp_path):
    (tmp_path / "t.csv").write_text(
        f"name,candid,alert,rfid,lum,mag\na,{BIG}.0,{BIG},1,1e44,20\nb,{BIG}.0,{BIG + 1},2,2e44,21\n"
    )
    source = table.open(tmp_path / "t.csv")
    assert source.schema.observations["row"].names == ("lum", "mag")
    assert source.items()["alert"].to_pylist() == [BIG, BIG + 1]


def test_names_with_blanks_and_units_in_brackets(tmp_path):
    for head in ("Right Ascension,Declination", "RA [deg],DEC [deg]", "ra (deg),dec (deg)"):
        (tmp_path / "t.csv").write_text(f"id,{head},mag\na,150.5,-2.25,20\n")
        assert table.open(tmp_path / "t.csv").items()["dec"].to_pylist() == [-2.25]
    (tmp_path / "t.csv").write_text("id,ra (hours),dec,mag\na,10.5,-2.25,20\n")
    assert table.open(tmp_path / "t.csv").items()["ra"].to_pylist() == [157.5]
    (tmp_path / "t.csv").write_text("id,ra (hms),dec,mag\na,10.5,-2.25,20\n")
    with pytest.raises(InputError, match="seem to be hours"):
        table.open(tmp_path / "t.csv")


def test_a_column_of_sky_positions(tmp_path):
    sky = SkyCoord([10.0, 20.0], [-5.0, 5.0], unit="deg").galactic
    QTable({"id": ["a", "b"], "where": sky, "mag": [20.0, 21.0]}).write(tmp_path / "t.ecsv")
    items = table.open(tmp_path / "t.ecsv").items()
    np.testing.assert_allclose(items["ra"], [10, 20])
    np.testing.assert_allclose(items["dec"], [-5, 5])
