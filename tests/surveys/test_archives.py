"""Tables of archives in text: IPAC, MRT and CDS, with their units, missing values and positions in parts."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table

from deepsky.errors import InputError
from deepsky.surveys import table as reader
from deepsky.surveys._tables import read, read_table

RA = np.array([10.5, 0.0001, 359.9])
DEC = np.array([-1.25, -45.0, 89.0])
CDS = """\
J/ApJ/000/00   Made up                                   (Nobody, 2024)
================================================================================
Byte-by-byte Description of file: stars.dat other*.dat
--------------------------------------------------------------------------------
   Bytes Format Units   Label     Explanations
--------------------------------------------------------------------------------
   1-  4 A4    ---     Name      Name
   6-  7 I2    h       RAh       Right ascension, hours
   9- 10 I2    min     RAm       minutes
  12- 15 F4.1  s       RAs       seconds
      17 A1    ---     DE-       Sign
  18- 19 I2    deg     DEd       Declination, degrees
  21- 22 I2    arcmin  DEm       minutes
  24- 28 F5.2  mag     Vmag      ?=99.99 Magnitude
--------------------------------------------------------------------------------
(End)                                              Nobody [Nowhere]  01-Jan-2024
"""
STARS = "a001 10 30 00.0 -00 30 12.50\nb002 23 59 60.0 +45 15 99.99\n"


def made():
    mag = MaskedColumn([20.5, 21.25, 0.0], mask=[False, False, True], unit=u.mag)
    return Table({"id": ["a1", "b2", "c3"], "ra": RA * u.deg, "dec": DEC * u.deg, "mag": mag, "n": [1, 20, 300]})


@pytest.mark.parametrize("name", ["t.tbl", "t.txt", "t.ipac", "t.dat"])
def test_ipac(tmp_path, name):
    made().write(tmp_path / name, format="ascii.ipac")
    table, units = read_table(tmp_path / name)
    assert table["id"].to_pylist() == ["a1", "b2", "c3"] and table["n"].to_pylist() == [1, 20, 300]
    np.testing.assert_allclose(table["ra"], RA)
    assert table["mag"].to_pylist() == [20.5, 21.25, None]
    assert units == {"ra": "deg", "dec": "deg", "mag": "mag"}


def test_ipac_as_a_survey_of_rows(tmp_path):
    made().write(tmp_path / "t.tbl", format="ascii.ipac")
    assert reader.claims(tmp_path / "t.tbl")
    source = reader.open(tmp_path / "t.tbl")
    assert source.schema.observations["row"].names == ("mag", "n")
    np.testing.assert_allclose(source.items()["dec"], DEC)
    np.testing.assert_array_equal(source.read(source.items()).arrays["row.ivar"][:, 0], [1, 1, 0])


def test_a_table_in_bars_is_no_ipac(tmp_path):
    (tmp_path / "t.txt").write_text("| a | b |\n| 1 | 2 |\n| 3 | 4 |\n")
    table = read(tmp_path / "t.txt")
    assert table["a"].to_pylist() == [1, 3] and table["b"].to_pylist() == [2, 4]


@pytest.mark.parametrize("name", ["t.mrt", "apj_mrt.txt"])
def test_mrt_with_a_position_in_parts(tmp_path, name):
    table = made()
    table["where"] = SkyCoord(table["ra"], table["dec"])
    table.remove_columns(["ra", "dec"])
    table.write(tmp_path / name, format="ascii.mrt")
    assert "RAh" in (tmp_path / name).read_text()
    got, units = read_table(tmp_path / name)
    np.testing.assert_allclose(got["ra"], RA, atol=1e-6)
    np.testing.assert_allclose(got["dec"], DEC, atol=1e-6)
    assert not {"RAh", "DE-", "DEs"} & set(got.column_names) and units["ra"] == "deg"
    assert got["mag"].to_pylist() == [20.5, 21.25, None]


@pytest.mark.parametrize("name", ["stars.dat", "other1.dat", "stars.dat.gz"])
def test_cds_table_with_its_readme_beside_it(tmp_path, name):
    (tmp_path / "ReadMe").write_text(CDS)
    (tmp_path / name).write_bytes(gzip.compress(STARS.encode()) if name.endswith("gz") else STARS.encode())
    table = read(tmp_path / name)
    assert table["Name"].to_pylist() == ["a001", "b002"] and table["Vmag"].to_pylist() == [12.5, None]
    np.testing.assert_allclose(table["ra"], [157.5, 360.0])
    np.testing.assert_allclose(table["dec"], [-0.5, 45.25])  # the sign of -00 30 is kept


def test_a_readme_is_no_table(tmp_path):
    (tmp_path / "ReadMe").write_text(CDS)
    with pytest.raises(InputError, match="description of tables"):
        read(tmp_path / "ReadMe")
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")  # of which the ReadMe says nothing
    assert read(tmp_path / "mine.csv")["b"].to_pylist() == [2]


@pytest.mark.parametrize(("name", "spoil"), [("stars.dat", STARS.replace("12.50", "ab.cd")), ("stars.dat", "\n")])
def test_rows_that_do_not_fit_are_refused(tmp_path, name, spoil):
    (tmp_path / "ReadMe").write_text(CDS)
    (tmp_path / name).write_text(spoil)
    with pytest.raises(InputError, match=r"does not fit its description|empty table"):
        read(tmp_path / name)


def test_text_in_quotes_between_blanks(tmp_path):
    (tmp_path / "t.txt").write_text('name mag\n"NGC 1" 12.5\n"NGC 22" 13.5\n')
    table = read(tmp_path / "t.txt")
    assert table["name"].to_pylist() == ["NGC 1", "NGC 22"] and table["mag"].to_pylist() == [12.5, 13.5]
