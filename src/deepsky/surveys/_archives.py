"""Tables as archives hand them out in text: IPAC, and the machine-readable tables of AAS journals and of CDS."""

from __future__ import annotations

import re
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from deepsky.errors import InputError
from deepsky.tables import as_table, with_units

_DESCRIBED = re.compile(r"^\s*Byte-by-byte Description of file:?\s*(.*?)\s*$", re.MULTILINE | re.IGNORECASE)
_HOURS, _DEGREES = ("RAh", "RAm", "RAs"), ("DEd", "DEm", "DEs")


def kind_of(text: str) -> str:
    """ "ipac", "mrt" (which CDS tables with their own description are, too) or "" for any other text."""
    if _DESCRIBED.search(text[:200_000]):
        return "mrt"
    lines = (line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("\\"))
    first = next(lines, "")
    if not (first.startswith("|") and first.endswith("|") and len(first) > 2):
        return ""
    body = next((line for line in lines if not line.startswith("|")), "")
    return "ipac" if body.startswith(" ") or (not body and text.startswith("\\")) else ""


def described(path: Path) -> Path | None:
    """The ReadMe beside a table of CDS that says what its columns are, None where there is none."""
    readme = path.parent / "ReadMe"
    if not readme.is_file() or readme == path:
        return None
    try:
        text = readme.read_text("utf-8", "replace")
    except OSError:
        return None
    files = {word for m in _DESCRIBED.finditer(text) for word in m[1].split()}
    name = path.name.removesuffix(".gz")
    return readme if any(fnmatch(name, pattern) for pattern in files) else None


def read(text: str, kind: str, path: Path, readme: Path | None = None) -> pa.Table:
    """Read one of them; right ascension and declination in parts become ``ra`` and ``dec`` in degrees.

    Raises
    ------
    InputError : the table does not fit its description, or has no rows.
    """
    from astropy.table import Table

    many = _DESCRIBED.findall(text)
    if readme is None and kind == "mrt" and (len(many) > 1 or "(End)" in text.rstrip().rpartition("\n")[2]):
        raise InputError("a description of tables, and not a table", file=path, found=", ".join(many),
                         fix="give one of these files; the ReadMe beside it is found")  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if readme is None:
                made = Table.read(text.splitlines(), format=f"ascii.{kind}")
            else:  # the name tells which table of the description it is
                made = Table.read(str(path), format="ascii.cds", readme=str(readme))
    except Exception as error:
        name = "CDS" if readme else kind.upper()
        raise InputError(f"the table does not fit its description ({name}): {str(error)[:200]}", file=path,
                         fix="download it again, or save it as CSV") from error  # fmt: skip
    if len(made) == 0 or not text.strip():
        raise InputError("an empty table", file=path, found=f"{len(made.colnames)} columns and no row")
    return _positions(as_table(made), made, path)


def _positions(table: pa.Table, made: Any, path: Path) -> pa.Table:
    """The table with ra and dec [deg] in place of hours, minutes, seconds, and their like."""
    names = set(table.column_names)
    if _HOURS[0] not in names or _DEGREES[0] not in names or {n.lower() for n in names} & {"ra", "dec"}:
        return table
    ra, dec = 15 * _sum(made, _HOURS, path), _sum(made, _DEGREES, path)
    if "DE-" in names:
        negative = np.array([str(v).strip() == "-" for v in made["DE-"]])
        dec = np.where(negative, -dec, dec)
    used = [n for n in (*_HOURS, *_DEGREES, "DE-") if n in names]
    table = table.drop_columns(used).append_column("ra", pa.array(ra)).append_column("dec", pa.array(dec))
    return with_units(table, {"ra": "deg", "dec": "deg"})


def _sum(made: Any, names: tuple[str, ...], path: Path) -> np.ndarray:
    """Whole, minutes and seconds as one number; NaN where the first is missing."""
    total = np.zeros(len(made))
    for power, name in enumerate(names):
        if name in made.colnames:
            if made[name].dtype.kind not in "iuf":
                raise InputError("a part of a position that is no number", file=path, keyword=name,
                                 found=str(made[name][0]))  # fmt: skip
            part = np.ma.filled(np.ma.asarray(made[name]).astype(np.float64), np.nan if power == 0 else 0)
            total += part / 60**power
    return total
