"""Labels join by id and position, contradictions are refused, versions are kept, folds never move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table
from tests.folds import made

from deepsky import labels
from deepsky.errors import InputError
from deepsky.labels import sentinels, turning
from deepsky.labels.ids import bare, plain
from deepsky.labels.matching import OWN
from deepsky.schema import Column
from deepsky.survey import Survey

N = 12
IDS = [f"o{i}" for i in range(N)]


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    ra = 10.0 + np.arange(N) / 100
    return made.survey(tmp_path / "s", ra=ra, dec=np.full(N, -5.0))


def objects(ids: list[str], **columns: object) -> pa.Table:
    return pa.table({"id": pa.array(ids), **columns})


def value_of(survey: Survey, name: str) -> dict[str, object]:
    return dict(zip(survey.id, survey.column(name).tolist(), strict=True))


# -- joining ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ids", "given", "note"),
    [
        (["a", "b", "c"], ["c", "a", "b"], None),
        (["17", "8", "3"], [3, 17, 8], None),
        (["17", "8", "3"], [3.0, 17.0, 8.0], None),
        (["17", "8", "3"], ["0003", "17", "008"], "without leading zeros"),
        (["001", "002", "010"], ["10.0", "1.0", "2.0"], "without leading zeros"),
        (["001", "002", "010"], [10.0, 1.0, 2.0], "without leading zeros"),
        (["x/1", "x/2", "x/3"], ["3.fits", "1.fits", "2.fits"], "without folder and ending"),
        (["g1", "g2", "g3"], ["cut/g3.fits.gz", "cut/g1.fits.gz", "cut/g2.fits.gz"], "without folder and ending"),
        (["PGC1", "PGC2", "PGC3"], ["pgc3.png", "pgc1.png", "pgc2.png"], "in lower case"),
        (["galáxia", "Ω Cen", "b"], ["b", "gala\u0301xia", "Ω Cen"], None),
    ],
)  # fmt: skip
def test_ids_in_many_forms(ids: list[str], given: list[object], note: str | None) -> None:
    found = labels.match({"name": given, "value": [1.0, 2.0, 3.0]}, objects(ids))
    got = dict(zip(found.table["id"].to_pylist(), found.table["value"].to_pylist(), strict=True))
    fit = {bare(plain(i)): i for i in ids}
    assert got == {fit[bare(plain(g))]: repr(v) for g, v in zip(given, [1.0, 2.0, 3.0], strict=True)}
    assert "3 objects labelled by column 'name'" in found.notes
    assert note is None or any(note in n for n in found.notes)


def test_the_column_that_fits_is_found(survey: Survey) -> None:
    table = {"number": np.arange(N), "galaxy": IDS, "type": ["E", "S"] * 6}
    assert set(labels.match(table, survey.index).columns) == {"number", "type"}
    with pytest.raises(InputError, match="no label is of an object") as error:
        labels.match(table, survey.index, id_column="number")
    assert error.value.keyword == "number" and "o0" in str(error.value.expected)
    with pytest.raises(InputError, match="no such column of ids"):
        labels.match(table, survey.index, id_column="galaxi")


def numbered(n: int = 40) -> tuple[list[str], dict[str, list[object]]]:
    """Ids of files that are numbered, and a table whose rank is another order of the same numbers."""
    rank = np.random.default_rng(0).permutation(n) + 1
    return [f"{i + 1:03d}" for i in range(n)], {"rank": rank.tolist(), "cls": ["E", "S"] * (n // 2)}


@pytest.mark.parametrize("extra", [{}, {"id": [f"NGC {i}" for i in range(40)]}])
@pytest.mark.parametrize("text", [False, True])
def test_running_numbers_are_no_ids_unless_they_are_named(extra: dict[str, list[object]], text: bool) -> None:
    ids, table = numbered()
    if text:
        table["rank"] = [str(r) for r in table["rank"]]
    with pytest.raises(InputError, match="which column holds the ids is not plain") as error:
        labels.match({**extra, **table}, objects(ids))
    assert error.value.keyword == "rank" and "--id-column rank" in str(error.value.fix)
    assert "40 of 40 ids of 'rank': whole numbers" in str(error.value.found)
    found = labels.match({**extra, **table}, objects(ids), id_column="rank")
    got = dict(zip(found.table["id"].to_pylist(), found.table["value"].to_pylist(), strict=True))
    assert found.table.num_rows == 40 * (1 + len(extra)) and set(got) == set(ids)


def test_file_names_are_ids_under_any_name_unless_a_usual_one_is_there() -> None:
    ids, table = numbered()
    table["cutout"] = [f"cut/{i}.fits" for i in ids]
    found = labels.match(table, objects(ids))
    assert "40 objects labelled by column 'cutout'" in found.notes and set(found.columns) == {"rank", "cls"}
    half = [c if i % 2 else f"cut/z{i}.fits" for i, c in enumerate(table["cutout"])]
    with pytest.raises(InputError, match="no label is of an object"):
        labels.match({**table, "rank": table["cls"], "cutout": half}, objects(ids))
    with pytest.raises(InputError, match="which column holds the ids is not plain") as error:
        labels.match({"Object ID": [f"NGC {i}" for i in ids], **table}, objects(ids), extra="ignore")
    assert error.value.keyword == "cutout" and "none of 'Object ID'" in str(error.value.found)


def test_two_columns_of_ids_that_disagree() -> None:
    ids, table = numbered()
    both = {"id": table["rank"], "filename": [f"{i}.fits" for i in ids], "cls": table["cls"]}
    with pytest.raises(InputError, match="name different objects") as error:
        labels.match(both, objects(ids))
    assert "--id-column" in str(error.value.fix) and "row 1:" in str(error.value.found)
    assert "40 objects labelled by column 'id'" in labels.match(both, objects(ids), id_column="id").notes
    agree = {**both, "id": [int(i) for i in ids]}
    assert labels.match(agree, objects(ids)).table["id"].to_pylist()[:2] == ids[:2]


def test_every_kind_of_table_in_memory(survey: Survey) -> None:
    columns = {"id": IDS, "z": np.linspace(0, 1, N), "type": ["E", "S"] * 6}
    frame, records = pd.DataFrame(columns), np.rec.fromarrays(list(columns.values()), names="id,z,type")
    kinds = [columns, frame, Table(columns), pa.table(columns), records, frame.set_index("id")]
    found = [labels.match(k, survey.index) for k in kinds]
    assert all(f.table.equals(found[0].table) for f in found)
    assert found[0].columns["type"].classes == ("E", "S") and found[0].columns["z"].dtype == "float64"
    united = Table({"id": IDS, "mass": np.ones(N) * u.M_sun})
    assert labels.match(united, survey.index).columns["mass"].unit == "solMass"


def test_files(survey: Survey, tmp_path: Path) -> None:
    table = Table({"id": IDS, "z": np.linspace(0, 1, N), "type": ["E", "S"] * 6})
    for name, kind in (("l.csv", "ascii.csv"), ("l.ecsv", "ascii.ecsv"), ("l.fits", "fits"), ("l.vot", "votable")):
        table.write(tmp_path / name, format=kind)
        found = labels.match(tmp_path / name, survey.index)
        assert dict(zip(found.table["id"].to_pylist(), found.table["value"].to_pylist(), strict=False))["o3"] in {
            "S",
            repr(3 / 11),
        }
        assert set(found.columns) == {"z", "type"}
    (tmp_path / "empty.csv").write_text("id,z\n")
    with pytest.raises(InputError, match="empty") as error:
        labels.match(tmp_path / "empty.csv", survey.index)
    assert "empty.csv" in str(error.value.file)


def test_by_position_one_to_one(survey: Survey) -> None:
    ra, dec = survey.column("ra"), survey.column("dec")
    off = 0.3 / 3600
    table = {"RAJ2000": np.append(ra[:5] + off, [ra[0] - 2 * off, 200.0]), "DEJ2000": np.append(dec[:5], [dec[0], 0.0]),
             "z": np.arange(7.0)}  # fmt: skip
    found = labels.match(table, survey.index)
    assert dict(zip(found.table["id"].to_pylist(), found.table["value"].to_pylist(), strict=True)) == {
        str(i): repr(float(k)) for k, i in enumerate(survey.id[:5])
    }
    notes = " ".join(found.notes)
    assert "5 objects labelled by position within 1 arcsec" in notes and "1 labels are ambiguous" in notes
    assert "1 labels have no object within 1 arcsec" in notes
    with pytest.raises(InputError, match="no label lies near an object"):
        labels.match(table, survey.index, radius_arcsec=0.01)
    with pytest.raises(InputError, match="no positions"):
        labels.match({"id": IDS, "z": np.arange(N)}, survey.index, radius_arcsec=1.0)


def placed(survey: Survey) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
    ra, dec = survey.column("ra"), survey.column("dec")
    return ra, dec, {str(i): repr(float(k)) for k, i in enumerate(survey.id)}


@pytest.mark.parametrize(
    ("names", "ra", "dec"),
    [
        (("RA [deg]", "DEC [deg]"), 1.0, 1.0),
        (("Right Ascension", "Declination"), 1.0, 1.0),
        (("RAmean", "DECmean"), 1.0, 1.0),
        (("ra [hour]", "dec [deg]"), 1 / 15, 1.0),
        (("ra (rad)", "dec (rad)"), np.pi / 180, np.pi / 180),
    ],
)
def test_positions_are_found_as_in_tables_of_objects(
    survey: Survey, names: tuple[str, str], ra: float, dec: float
) -> None:
    a, d, truth = placed(survey)
    found = labels.match({names[0]: a * ra, names[1]: d * dec, "z": np.arange(1.0 * N)}, survey.index)
    assert dict(zip(found.table["id"].to_pylist(), found.table["value"].to_pylist(), strict=True)) == truth
    assert set(found.columns) == {"z"}


def test_sexagesimal_positions_and_impossible_ones(survey: Survey, tmp_path: Path) -> None:
    a, d, truth = placed(survey)
    sky = SkyCoord(a, d, unit="deg")
    words = [sky.ra.to_string(u.hour, sep=":", precision=4), sky.dec.to_string(u.deg, sep=":", precision=3)]
    table = Table({"RA": words[0], "DEC": words[1], "z": np.arange(1.0 * N)})
    table.write(tmp_path / "l.csv")
    found = labels.match(tmp_path / "l.csv", survey.index)
    assert dict(zip(found.table["id"].to_pylist(), found.table["value"].to_pylist(), strict=True)) == truth
    d = np.where(np.arange(N) == 3, 95.0, d)
    found = labels.match({"ra": a, "dec": d, "z": np.arange(1.0 * N)}, survey.index)
    assert set(found.table["id"].to_pylist()) == set(truth) - {str(survey.id[3])}
    assert "1 labels have no object within 1 arcsec" in found.notes


def test_units_that_nothing_declares_are_an_error_with_a_fix_that_works(survey: Survey, tmp_path: Path) -> None:
    a, d, _ = placed(survey)
    with pytest.raises(InputError, match="no label lies near an object") as error:
        labels.match({"ra": np.radians(a), "dec": np.radians(d), "z": np.arange(N)}, survey.index)
    assert "'ra [rad]' and 'dec [rad]'" in str(error.value.fix)
    wide = made.survey(tmp_path / "wide", ra=np.linspace(1.0, 23.0, 30), dec=np.zeros(30))  # degrees, not hours
    table = {"ra": wide.column("ra"), "dec": wide.column("dec"), "z": np.arange(30.0)}
    with pytest.raises(InputError, match="seem to be hours") as error:
        labels.match(table, wide.index)
    assert "'ra [deg]' and 'dec [deg]'" in str(error.value.fix)
    sure = {"ra [deg]": table["ra"], "dec [deg]": table["dec"], "z": table["z"]}
    assert labels.match(sure, wide.index).table.num_rows == 30


def test_positions_of_odd_names_are_told(survey: Survey) -> None:
    table = {"id": IDS, "alpha": np.ones(N), "delta": np.ones(N), "z": np.arange(N)}
    found = labels.match(table, survey.index)
    assert set(found.columns) == {"z"} and "'alpha' and 'delta' are positions, and no labels" in found.notes


# -- what can be wrong ------------------------------------------------------------------------------------
def test_labels_of_unknown_objects(survey: Survey) -> None:
    table = {"id": [*IDS, "x1", "x2", "x3", "x4", "x5", "x6"], "z": np.arange(N + 6.0)}
    with pytest.raises(InputError, match="6 of 18 labels are of objects that are not there") as error:
        labels.match(table, survey.index)
    assert error.value.found == "x1, x2, x3, x4, x5, ..." and "--extra-labels ignore" in str(error.value.fix)
    found = labels.match(table, survey.index, extra="ignore")
    assert found.table.num_rows == N and any("6 of 18" in n for n in found.notes)
    assert labels.match(table, survey.index, also_known=[f"x{i}" for i in range(1, 7)]).table.num_rows == N
    with pytest.raises(InputError, match="no such treatment"):
        labels.match(table, survey.index, extra="maybe")


def test_objects_without_labels_are_counted(survey: Survey) -> None:
    found = labels.match({"id": IDS[:4], "z": np.arange(4.0)}, survey.index)
    assert "8 of 12 objects have no label 'z'" in found.notes


def test_contradictions_and_repetitions(survey: Survey) -> None:
    twice = {"id": ["o1", "o2", "o2", "o3", "o3"], "type": ["E", "E", "S", "S", "S"]}
    with pytest.raises(InputError, match="1 objects have contradicting labels") as error:
        labels.match(twice, survey.index)
    assert error.value.found == "o2: E and S" and error.value.keyword == "type" and "labeller" in str(error.value.fix)
    same = {"id": ["o1", "o3", "o3"], "type": ["E", "S", "S"]}
    found = labels.match(same, survey.index)
    assert found.table.num_rows == 2 and "1 rows of 'type' repeat a label" in found.notes
    several = labels.match({**twice, "labeller": ["ann", "ann", "bob", "ann", "bob"]}, survey.index)
    assert several.table.num_rows == 5
    with pytest.raises(InputError, match="from one labeller"):
        labels.match({**twice, "labeller": ["ann"] * 5}, survey.index)
    later = labels.match({**twice, "date": ["2020-01-01", "2020-01-01", "2021-01-01", "", ""]}, survey.index)
    assert dict(zip(later.table["id"].to_pylist(), later.table["value"].to_pylist(), strict=True))["o2"] == "S"


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinite_labels(survey: Survey, bad: float) -> None:
    with pytest.raises(InputError, match="not finite") as error:
        labels.match({"id": IDS, "z": np.append(np.arange(N - 1.0), bad)}, survey.index)
    assert error.value.keyword == "z" and error.value.found == "1 infinite values"


def test_missing_and_masked_cells_are_no_labels(survey: Survey, tmp_path: Path) -> None:
    table = Table({"id": IDS})
    table["z"] = MaskedColumn(np.arange(N, dtype=float), mask=[True] * 3 + [False] * 9)
    table["t"] = MaskedColumn(np.arange(N), mask=[False] * 10 + [True] * 2)
    table["kind"] = ["E", "", "S"] * 4
    table["z"][5] = np.nan
    found = labels.match(table, survey.index)
    assert {"4 cells of 'z' are empty, masked or NaN: no label", "2 cells of 't' are empty, masked or NaN: no label",
            "4 cells of 'kind' are empty, masked or NaN: no label"} <= set(found.notes)  # fmt: skip
    labels.write(survey.path, found)
    read = Survey.load(survey.path)
    z = value_of(read, "z")
    assert np.isnan([z["o0"], z["o5"]]).all() and z["o7"] == 7.0
    t = value_of(read, "t")
    assert np.isnan(t["o11"]) and t["o9"] == 9
    assert value_of(read, "kind")["o1"] is None
    codes = read.truth("kind").value
    assert set(codes[[i for i, n in enumerate(read.id) if n in {"o1", "o4", "o7", "o10"}]].tolist()) == {-1}


@pytest.mark.parametrize(
    ("values", "hidden"),
    [
        ([-99.0, -99.0, 0.1, 0.5, 0.3, 0.9, 0.2], {-99.0: 2}),
        ([-99.0, -99.0, 99.0, 99.0, 18.1, 24.5, 20.3, 21.9, 22.2], {-99.0: 2, 99.0: 2}),
        ([-9999, -9999, 1, 2, 3, 4, 5], {-9999.0: 2}),
        ([-1.0, -1.0, 0.1, 0.5, 0.3, 0.9, 0.2], {-1.0: 2}),
        ([-1.0, -1.0, -0.2, 0.5, 0.3, 0.9, 0.2], {}),  # a logarithm
        ([-1, -1, 0, 1, 2, 3, 4, 5], {}),  # a class
        ([-99.0, 0.1, 0.5, 0.3, 0.9, 0.2], {}),  # once: an outlier, which is not ours to hide
        ([99.0, 99.0, 80.0, 91.0, 95.0, 99.5, 120.0], {}),
        ([-99.0, -99.0, -60.0, 10.0, 35.0, 70.0, 3.0], {}),
        ([0.0, 0.0, 0.0, 5.0, 1e4, 3.0, 8.0], {}),
        ([-99.0] * 6, {}),
    ],
)
def test_numbers_that_mean_no_value(values: list[float], hidden: dict[float, int]) -> None:
    assert sentinels.found(np.array(values, float)) == hidden
    table, ids = {"id": IDS[: len(values)], "z": values}, objects(IDS[: len(values)])
    made = labels.match(table, ids)
    kept = {float(v) for v in made.table["value"].to_pylist()}
    assert kept == set(values) - set(hidden) and len(made.table) == len(values) - sum(hidden.values())
    assert sum("taken as missing (if they are meant: z:kept in the header)" in n for n in made.notes) == len(hidden)
    assert len(labels.match({"id": table["id"], "z:kept": values}, ids).table) == len(values)
    own = labels.from_columns(table, {"z": Column(role="label")}, "z.npz")
    told = [n for n in own.notes if sentinels.TAKEN in n]
    assert len(own.table) == len(made.table) and len(told) == len(hidden)
    assert len(labels.from_columns(table, {"z": Column(role="label")}, "z.npz", declared=True).table) == len(values)


def test_nothing_but_missing(survey: Survey) -> None:
    with pytest.raises(InputError, match="no column holds a label"):
        labels.match({"id": IDS, "z": np.full(N, np.nan)}, survey.index)
    with pytest.raises(InputError, match="empty table"):
        labels.match({"id": [], "z": []}, survey.index)
    with pytest.raises(InputError, match="without a column of labels"):
        labels.match({"id": IDS, "ra": np.zeros(N), "dec": np.zeros(N)}, survey.index)
    with pytest.raises(InputError, match="not a table"):
        labels.match(3.0, survey.index)


@pytest.mark.parametrize(
    ("value", "words"), [("E", "one class only ('E')"), (1, "one class only ('1')"), (0.5, "one value only ('0.5')")]
)
def test_one_class_is_noted(survey: Survey, value: object, words: str) -> None:
    table = {"id": IDS, "kind": [value] * N, "z": np.arange(N), "z_err": np.full(N, 0.1)}
    found = labels.match(table, survey.index)
    told = [n for n in found.notes if " only (" in n]
    assert told == [f"'kind' has {words}: nothing can be learnt from these labels alone"]


@pytest.mark.parametrize("many", [True, False])
def test_the_cell_that_is_no_number_is_named(survey: Survey, tmp_path: Path, many: bool) -> None:
    n = 40
    mag = [f"{20 + i / 7:.3f}" if many else str(i % 2) for i in range(n)]
    mag[16] = "abc"
    wide = made.survey(tmp_path / "wide", n=n)
    lines = [f"o{i},{m},{'remark' if i % 3 else '7'} {i}" for i, m in enumerate(mag)][::-1]
    (tmp_path / "l.csv").write_text("\n".join(["id,mag,comment", "o999,1.0,x", *lines]))
    found = labels.match(tmp_path / "l.csv", wide.index, extra="ignore")
    told = [note for note in found.notes if "is text and no numbers" in note]
    assert told == ["'mag' is text and no numbers because of 1 of 40 cells: row 25 holds 'abc'"]


def test_ids_survive_beyond_the_digits_of_a_float() -> None:
    big = 1237648720693755912
    found = labels.match({"objid": np.array([big, big + 1]), "z": [1.0, 2.0]}, objects([str(big + 1), str(big)]))
    assert found.table["id"].to_pylist() == [str(big), str(big + 1)]


# -- the layer --------------------------------------------------------------------------------------------
def test_the_note_of_an_angle_says_how_to_declare_it(survey: Survey) -> None:
    found = labels.match({"id": IDS, "PA_deg": np.arange(N) * 15.0, "xc": np.arange(N) * 1.0}, survey.index)
    [angle] = [n for n in found.notes if n.startswith("'PA_deg'")]
    [place] = [n for n in found.notes if n.startswith("'xc'")]
    assert "an axis: PA_deg:angle; with two ends: PA_deg:direction" in angle and "axis" not in place
    declared = labels.match({"id": IDS, "PA_deg:angle": np.arange(N) * 15.0}, survey.index)
    assert declared.columns["PA_deg"].moves == "angle" and declared.columns["PA_deg"].unit == "deg"


def test_what_the_versions_say_together(survey: Survey) -> None:
    labels.add(survey.path, {"id": IDS, "type": ["E", "S"] * 6, "z": np.arange(N) / 10}, labeller="one")
    assert labels.agreed(survey.path) == ()
    labels.add(survey.path, {"id": ["o0", "o1", "o2"], "type": ["S", "S", "S"], "z": [0.5, 0.5, 0.5]}, labeller="two")
    [words] = labels.agreed(survey.path)
    assert words.startswith("all versions together: 10 of 12 objects have a label 'type'; 2 more have contradicting")
    labels.add(survey.path, {"id": ["o0", "o2"], "type": ["E", "E"]}, labeller="three")
    assert labels.agreed(survey.path) == ("all versions together: 12 of 12 objects have a label 'type'",)


def test_versions_and_relabelling(survey: Survey) -> None:
    before = survey.column("fold").copy()
    assert labels.add(survey.path, {"id": IDS, "type": ["E", "S"] * 6, "n": np.arange(N)}, date="2020-01-01") == 1
    first = Survey.load(survey.path)
    assert first.schema.columns["type"].classes == ("E", "S") and first.schema.columns["type"].role == "label"
    assert first.column("n").dtype == np.int64 and value_of(first, "n")["o7"] == 7
    assert labels.add(survey.path, {"id": ["o0", "o2"], "type": ["merger", "S"]}) == 2
    second = Survey.load(survey.path)
    got = value_of(second, "type")
    assert got["o0"] == "merger" and got["o2"] == "S" and got["o1"] == "S" and got["o4"] == "E"
    assert second.schema.columns["type"].classes == ("E", "S", "merger")
    assert (second.column("fold") == before).all() and second.hash == survey.hash
    assert labels.versions(survey.path) == [1, 2]
    assert "10 of 12 objects have no label 'type'" in labels.notes(survey.path, 2)
    table = pq.read_table(survey.path / "labels" / "0001.parquet")
    assert table.column_names == ["id", "name", "value", "labeller", "date", "confidence"]
    assert set(table["date"].to_pylist()) == {"2020-01-01"}
    truth = second.gather(slice(None)).truth["type"]
    assert truth.classes == ("E", "S", "merger") and truth.value.dtype == torch.int64


@pytest.mark.parametrize("name", sorted(OWN))
def test_no_label_takes_the_place_of_a_column_of_the_survey(survey: Survey, name: str) -> None:
    labels.add(survey.path, {"object": IDS, name: ["test"] * N, "z": np.arange(N)})
    read = Survey.load(survey.path)
    assert read.index.select(survey.index.column_names).equals(survey.index)
    assert (read.key == survey.key).all() and (read.id == survey.id).all()
    assert set(value_of(read, f"label_{name}").values()) == {"test"} and value_of(read, "z")["o7"] == 7
    assert any(f"the label is called 'label_{name}'" in n for n in labels.notes(survey.path, 1))
    with pytest.raises(InputError, match="two labels of one name"):
        labels.match({"object": IDS, name: ["test"] * N, f"label_{name}": ["a"] * N}, survey.index)


@pytest.mark.parametrize(("header", "given", "mean", "scatter"), [
    ("pa_deg:angle", (1.0, 179.0), 0.0, np.sqrt(2)), ("pa_deg:angle", (80.0, 90.0), 85.0, np.sqrt(50)),
    ("jet_deg:direction", (350.0, 20.0), 5.0, np.sqrt(450)), ("jet_deg:direction", (10.0, 190.0), np.nan, np.nan),
    ("pa_rad:angle", (0.1, 0.3), 0.2, np.sqrt(0.02)),
])  # fmt: skip
def test_angles_of_several_labellers_have_their_mean_on_the_circle(survey, header, given, mean, scatter) -> None:
    for who, angle in zip(("ann", "bob"), given, strict=True):
        labels.add(survey.path, {"id": IDS[:1], header: [angle]}, labeller=who)
    labels.add(survey.path, {"id": IDS[1:2], header: [given[1]]}, labeller="bob")
    name, read = header.partition(":")[0], Survey.load(survey.path)
    assert np.isclose(np.cos(np.deg2rad(value_of(read, name)["o0"] - mean)), 1, atol=1e-9) or np.isnan(mean)
    assert np.isnan(value_of(read, name)["o0"]) == np.isnan(mean)
    assert value_of(read, f"{name}_scatter")["o0"] == pytest.approx(scatter, nan_ok=True)
    assert value_of(read, name)["o1"] == given[1]  # a single label stays as it was given


def test_several_labellers(survey: Survey) -> None:
    for who, kinds, z in (("ann", ["E", "E", "S"], 1.0), ("bob", ["E", "S", "S"], 2.0), ("cleo", ["S", "E", "S"], 3.0)):
        labels.add(survey.path, {"id": IDS[:3], "type": kinds, "z": [z, z, 5.0]}, labeller=who)
    read = Survey.load(survey.path)
    assert [value_of(read, "type")[i] for i in IDS[:4]] == ["E", "E", "S", None]
    assert [value_of(read, "type_votes")[i] for i in IDS[:4]] == [3, 3, 3, 0]
    assert (
        value_of(read, "type_agreement")["o0"] == pytest.approx(2 / 3) and value_of(read, "type_agreement")["o2"] == 1
    )
    assert value_of(read, "z")["o0"] == 2.0 and value_of(read, "z_scatter")["o0"] == pytest.approx(
        np.std([1, 2, 3], ddof=1)
    )
    assert value_of(read, "z_scatter")["o2"] == 0.0 and np.isnan(value_of(read, "z")["o5"])
    assert read.schema.columns["z_scatter"].role == "scalar"
    labels.add(survey.path, {"id": ["o0"], "type": ["S"]}, labeller="bob")  # bob changes his mind
    assert value_of(Survey.load(survey.path), "type")["o0"] == "S"
    labels.add(survey.path, {"id": ["o0"], "type": ["E"], "confidence": [0.0]}, labeller="cleo")
    assert value_of(Survey.load(survey.path), "type")["o0"] is None  # ann and bob disagree: a tie


def test_errors_and_limits_of_a_label(survey: Survey) -> None:
    table = {"id": IDS, "z": np.arange(N, dtype=float), "z_err": np.full(N, 0.1), "z_limit": np.zeros(N, np.int8)}
    labels.add(survey.path, table)
    read = Survey.load(survey.path)
    truth = read.gather([0, 1]).truth
    assert set(truth) == {"z"}
    assert truth["z"].sigma is not None and torch.allclose(truth["z"].sigma, torch.full((2,), 0.1, dtype=torch.float64))
    assert truth["z"].limit is not None and truth["z"].limit.tolist() == [0.0, 0.0]


def test_what_may_turn_with_the_image_is_not_called_a_scalar(survey: Survey) -> None:
    found = labels.match({"id": IDS, "pa": np.arange(N, dtype=float), "paint": np.arange(N, dtype=float)}, survey.index)
    assert found.columns["pa"].moves == "fixed" and found.columns["paint"].moves == "scalar"
    assert any("'pa' may turn" in n for n in found.notes)


@pytest.mark.parametrize(
    ("names", "moves"),
    [
        ("PA pa_deg bar_pa disk_pa posAng angle orient jet_angle theta e_1 e2 eps1 shear1 g1 x y xc x0 dx XWIN_IMAGE "
         "row col y_peak MXX PAdeg direction", "fixed"),
        ("P_CW P_ACW spin spin_direction handed chirality winding n.clockwise pitch_angle", "handed"),
        ("color colour row_id spine panstarrs_id parallax paper z redshift T mag_g mag_y i_y x_ray_flux winding_tight "
         "column_density inclination phase_angle ang_size e g ellipticity mass gamma chi2 type1 n_e half_light_rad",
         "scalar"),
    ],
)  # fmt: skip
def test_names_tell_what_turns(survey: Survey, names: str, moves: str) -> None:
    assert {n: turning.of_numbers(n) for n in names.split()} == dict.fromkeys(names.split(), moves)
    name = names.split()[1]
    assert labels.match({"id": IDS, name: np.linspace(0, 3, N)}, survey.index).columns[name].moves == moves


@pytest.mark.parametrize(
    ("name", "classes", "moves"),
    [
        ("kind", ["CW", "CCW"], "handed"),
        ("kind", ["clockwise", "anti-clockwise"], "handed"),
        ("kind", ["right-handed", "left-handed"], "handed"),
        ("kind", ["S-wise", "Z-wise"], "handed"),
        ("arms", ["S", "Z"], "handed"),
        ("spin", ["pro", "retro"], "handed"),
        ("side", ["left", "right"], "fixed"),
        ("type", ["S", "E"], "scalar"),
        ("winding", ["tight", "loose"], "scalar"),
        ("x", ["lens", "other"], "scalar"),
    ],
)
def test_classes_tell_what_a_mirror_changes(survey: Survey, name: str, classes: list[str], moves: str) -> None:
    table = {"id": IDS, name: classes * 6}
    found = labels.match(table, survey.index)
    assert found.columns[name].moves == moves
    assert any(f"{name}:scalar in the header" in n for n in found.notes) == (moves != "scalar")
    kept = labels.match({"id": IDS, f"{name}:scalar": classes * 6}, survey.index)
    assert kept.columns[name].moves == "scalar" and kept.columns[name].classes == found.columns[name].classes


def test_labels_that_a_reader_found_are_judged_too() -> None:
    """Folders called CW and CCW, say; a native survey knows better."""
    own, column = {"id": IDS, "class": ["CW", "CCW"] * 6}, {"class": Column("string", role="label")}
    assert labels.from_columns(own, column, "x.npz").columns["class"].moves == "handed"
    assert labels.from_columns(own, column, "x.npz", declared=True).columns["class"].moves == "scalar"


def test_classes_are_judged_again_when_versions_are_joined(survey: Survey) -> None:
    labels.add(survey.path, {"id": IDS, "kind": ["CW", "CCW"] * 6})
    labels.add(survey.path, {"id": IDS[:2], "kind": ["none", "CW"]})
    labels.add(survey.path, {"id": IDS[2:4], "kind": ["none", "none"]})  # whose classes say nothing
    read = Survey.load(survey.path)
    assert read.truth("kind").moves == "handed" and read.truth("kind").classes == ("CCW", "CW", "none")
    labels.add(survey.path, {"id": IDS, "kind:scalar": ["CW", "CCW"] * 6})
    assert Survey.load(survey.path).truth("kind").moves == "scalar"


def test_headers_declare(survey: Survey) -> None:
    table = {"id": IDS, "pa: angle": np.arange(N), "jet:direction": np.arange(N), "z:fixed": np.arange(N)}
    found = labels.match(table, survey.index)
    assert {n: c.moves for n, c in found.columns.items()} == {"pa": "angle", "jet": "direction", "z": "fixed"}
    assert set(found.table["name"].to_pylist()) == {"pa", "jet", "z"}
    for bad, words in ((["pa", "pa:angle"], "two columns of one name"), (["pa:angle:scalar"], "two things of one"),
                       (["e1:spin2"], "two components")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            labels.match({"id": IDS, **{n: np.linspace(0, 1, N) for n in bad}}, survey.index)
    with pytest.raises(InputError, match="text does not turn"):
        labels.match({"id": IDS, "kind:angle": ["a", "b"] * 6}, survey.index)


def test_components_are_joined(survey: Survey) -> None:
    g = np.random.default_rng(1)
    e, step = g.uniform(-0.5, 0.5, (2, N)), g.normal(size=(2, N))
    table = {"id": IDS, "e1": e[0], "e2": e[1], "e1_err": np.full(N, 0.1), "e2_err": np.full(N, 0.2), "dx": step[0],
             "dy": step[1], "g1": g.uniform(18, 22, N), "g2": g.uniform(18, 22, N)}  # fmt: skip
    labels.add(survey.path, table)
    read = Survey.load(survey.path)
    found = {n: (c.moves, c.parts, c.role) for n, c in read.schema.columns.items()}
    assert found["e"] == ("spin2", ("e1", "e2"), "label") and found["e1"] == ("spin2", (), "scalar")
    assert found["dxy"] == ("vector", ("dx", "dy"), "label") and "g" not in found  # magnitudes are no shear
    assert found["g1"] == ("fixed", (), "label")
    rows = [IDS.index(i) for i in read.id]
    truth = read.truth("e")
    assert np.allclose(truth.value.numpy(), e.T[rows]) and truth.sigma is not None
    assert np.allclose(truth.sigma.numpy(), [[0.1, 0.2]] * N)
    assert any("'e1' and 'e2' are the components of 'e'" in n for n in labels.notes(survey.path, 1))
    apart = labels.match({"id": IDS, "e1:fixed": e[0], "e2:fixed": e[1]}, survey.index).columns
    assert {n: c.moves for n, c in apart.items()} == {"e1": "fixed", "e2": "fixed"}
    taken = labels.match({"id": IDS, "e1": e[0], "e2": e[1], "e": np.hypot(*e)}, survey.index).columns
    assert not taken["e"].parts and taken["e1"].moves == "fixed"


def test_text_and_several_numbers_a_row(survey: Survey) -> None:
    table = {"id": IDS, "votes": np.arange(2.0 * N).reshape(N, 2), "comment": [f"remark {i}" for i in range(N)]}
    found = labels.match(table, survey.index)
    assert found.columns["comment"].role == "scalar" and not found.columns["comment"].classes
    labels.write(survey.path, found)
    read = Survey.load(survey.path)
    assert value_of(read, "votes_1")["o3"] == 7.0 and value_of(read, "comment")["o3"] == "remark 3"
    assert set(read.gather([0]).truth) == {"votes_0", "votes_1"}


def test_numeric_classes_stay_numbers_and_booleans_become_ones(survey: Survey) -> None:
    labels.add(survey.path, {"id": IDS, "t": np.arange(N) % 3, "lens": np.arange(N) % 2 == 0})
    read = Survey.load(survey.path)
    assert read.column("t").dtype == np.int64 and set(read.column("lens").tolist()) == {0, 1}
    assert read.schema.columns["t"].classes == ()


def test_only_native_surveys_take_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="added to a native survey"):
        labels.add(tmp_path, {"id": IDS, "z": np.arange(N)})
