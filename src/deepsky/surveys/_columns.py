"""Which columns of a table hold the ids, the position and the errors; with the traps refused: rounded ids, hours."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pcompute

from deepsky.errors import InputError
from deepsky.source import Rejected
from deepsky.surveys._sky import sexagesimal
from deepsky.surveys._text import IDS
from deepsky.tables import unit_of

POSITIONS = tuple(
    (pair.split()[0], pair.split()[1])
    for pair in (
        "ra dec", "ra decl", "ra de", "ra_deg dec_deg", "radeg decdeg", "radeg dedeg", "raj2000 dej2000",
        "raj2000 decj2000", "ra_j2000 dec_j2000", "_ra _de", "_ra.icrs _de.icrs", "ramean decmean", "rastack decstack",
        "_raj2000 _dej2000", "ra_icrs de_icrs", "raicrs deicrs", "alpha_j2000 delta_j2000",
        "alphawin_j2000 deltawin_j2000", "alpha delta", "right_ascension declination", "rightascension declination",
        "coord_ra coord_dec", "target_ra target_dec", "plug_ra plug_dec", "mean_ra mean_dec", "s_ra s_dec",
        "ra2000 dec2000", "ra_1 dec_1", "lon lat",
    )
)  # fmt: skip
PIXELS = (
    ("x", "y"),
    ("x_image", "y_image"),
    ("xwin_image", "ywin_image"),
    ("xcentroid", "ycentroid"),
    ("x_centroid", "y_centroid"),
    ("xcen", "ycen"),
    ("x_pix", "y_pix"),
    ("xpix", "ypix"),
)
_POWER = re.compile(r"[-+]?\d(?:\.\d+)?[eE]\+?\d{2}")
ICRS = "add columns ra and dec: astropy.coordinates.SkyCoord(l=..., b=..., unit='deg', frame='galactic').icrs"
NUMBERING = re.compile(r"fold|split|tile|key|group|row", re.IGNORECASE)  # names whose whole numbers measure nothing
MISSING = ("", "-", "--", "---", "?", ".", "..", "...", "na", "n/a", "n.a.", "nan", "-nan", "null", "none", "missing",
           "masked", "indef", "undef", "<na>", "inf", "-inf", "+inf")  # fmt: skip
NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
MOSTLY = 0.9  # a column of text of which more cells than that are numbers is one of numbers with mistakes
EXACT = 2**53  # the largest integer up to which a float64 holds every one


def matching(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of `wanted` that is a column; capitals, blanks and a unit in brackets aside.

    >>> matching(["Name", "Right Ascension", "DEC [deg]"], ["dec"])
    'DEC [deg]'
    """
    low = {_plain(n): n for n in reversed(names)} | {n.lower(): n for n in reversed(names)}
    return next((low[w] for w in wanted if w in low), None)


def _plain(name: str) -> str:
    return re.sub(r"\s*[\[(].*[\])]\s*\Z", "", name.lower()).strip().replace(" ", "_")


def find_id(table: pa.Table, name: str | None = None, file: object = None) -> str | None:
    """The column of ids: the one named, one of the usual names, or the first text column whose values never repeat.

    Raises
    ------
    InputError : there is no column of that name.
    """
    if name is not None:
        if name not in table.column_names:
            raise InputError("no such column", file=file, found=name, known=table.column_names)
        return name
    usual = matching(table.column_names, IDS)
    if usual is not None:
        return usual
    for column in table.column_names:
        if pa.types.is_string(table.schema.field(column).type):
            values = table[column]
            if values.null_count == 0 and len(values) > 1 and pcompute.count_distinct(values).as_py() == len(values):
                return str(column)
    return None


def ids(table: pa.Table, name: str, file: object = None) -> list[str]:
    """The ids of a column as text.

    Raises
    ------
    InputError : an id is missing, or they passed through a float or a spreadsheet and lost their last digits.
    """
    column = table[name]
    kind = table.schema.field(name).type
    missing = column.is_null(nan_is_null=pa.types.is_floating(kind)).to_numpy(zero_copy_only=False)
    if missing.any():
        raise InputError("rows without an id", file=file, keyword=name, expected="an id in every row",
                         found=f"{missing.sum():,} of {len(column):,}, the first is row {np.argmax(missing) + 1}",
                         fix="leave these rows out, or take the ids from elsewhere: id=NAME")  # fmt: skip
    if pa.types.is_floating(kind):
        values = column.to_numpy(zero_copy_only=False)
        exact = 2 ** (np.finfo(values.dtype).nmant + 1)  # the largest integer up to which the type holds every one
        lost = (np.abs(values) > exact) | (values != np.round(values))
        if lost.any():
            raise _rounded(file, name, f"{values[lost][0]:.17g} of type {values.dtype}")
        return [str(int(v)) for v in values]
    words = [str(v).strip() for v in column.to_pylist()]
    for word in words[:10_000]:
        if _POWER.fullmatch(word) and float(word) > EXACT:
            raise _rounded(file, name, f"{word!r}: {len(set(words)):,} different values in {len(words):,} rows")
    return words


def kept_as(name: str) -> str:
    """What a column is called in the listing of the objects, where some names have a meaning of their own.

    >>> kept_as("mag"), kept_as("id")
    ('mag', 'input_id')
    """
    return f"input_{name}" if name in {"id", "ra", "dec", "bytes"} else name


def _rounded(file: object, name: str, found: str) -> InputError:
    return InputError("ids that were rounded by a spreadsheet or a float64", file=file, keyword=name, found=found,
                      expected="all digits: int64 or text",
                      fix="take them from their origin again, or from elsewhere: id=NAME")  # fmt: skip


def find_position(
    table: pa.Table, ra: str | None = None, dec: str | None = None, file: object = None
) -> tuple[str, str] | None:
    """The columns of right ascension and declination.

    Raises
    ------
    InputError : a column of the name given does not exist.
    """
    if ra is not None or dec is not None:
        for name in (ra, dec):
            if name is None or name not in table.column_names:
                raise InputError("no such column of positions", file=file, found=name, known=table.column_names)
        told = galactic([str(ra), str(dec)])
        if told:
            raise other_frame(told, file)
        return str(ra), str(dec)
    return _pair(table, POSITIONS)


def galactic(names: Sequence[str]) -> str:
    """The first of the names that is that of a Galactic coordinate, "" if none is."""
    return next((n for n in names if re.match(r"_?(glon|glat|gal_?l(on|at)|l_?gal|b_?gal)\b", _plain(n))), "")


def other_frame(name: str, file: object) -> InputError:
    """The error for positions that are not equatorial."""
    return InputError("positions in Galactic coordinates", file=file, keyword=name, found="Galactic",
                      expected="right ascension and declination, ICRS",
                      fix=ICRS)  # fmt: skip


def find_pixels(table: pa.Table) -> tuple[str, str] | None:
    """The columns of pixel positions x and y."""
    return _pair(table, PIXELS)


def mended(
    table: pa.Table, taken: Collection[str | None], wanted: Sequence[str] | None, file: object = None
) -> tuple[pa.Table, dict[str, dict[int, str]], list[str]]:
    """Columns of text that are meant to be numbers as such; for each its cells that are none, by row; and notes.

    Parameters
    ----------
    taken : columns that are no features.
    wanted : the features a user chose; by default all columns may be features.

    Raises
    ------
    InputError : a feature that was chosen is text.
    """
    known: list[str] = table.column_names
    chosen = known if wanted is None else [n for w in wanted for n in (w, error_of(w, known)) if n in known]
    odd: dict[str, dict[int, str]] = {}
    notes = []
    for name in dict.fromkeys(n for n in chosen if n is not None and n not in taken):
        field = table.schema.field(name)
        if not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
            continue
        if wanted is None and name.lower() in IDS:
            continue
        words = pcompute.utf8_trim_whitespace(table[name])
        number = pcompute.match_substring_regex(words, NUMBER).fill_null(False)
        lost = pcompute.is_in(pcompute.utf8_lower(words), pa.array(MISSING)).fill_null(False)
        rest = pcompute.invert(pcompute.or_(pcompute.or_(number, lost), words.is_null())).to_numpy()
        rows, count = np.flatnonzero(rest), number.to_numpy().sum()
        first = f"row {rows[0] + 1}: {words[int(rows[0])].as_py()[:40]!r}" if len(rows) else ""
        if count > MOSTLY * (count + len(rows)):
            plain = pcompute.utf8_ltrim(pcompute.if_else(number, words, None), "+").cast(pa.float64())
            place = table.column_names.index(name)
            table = table.set_column(place, pa.field(name, pa.float64(), metadata=field.metadata), plain)
            odd[name] = {int(i): words[int(i)].as_py()[:40] for i in rows}
        elif wanted is not None and name in wanted:
            raise InputError("a feature that is text", file=file, keyword=name, found=first or "no number",
                             expected="numbers")  # fmt: skip
        elif count > len(rows):
            share = count / (count + len(rows))
            notes.append(f"column {name!r} is text and no feature: {share:.0%} of its cells are numbers ({first})")
    return table, odd, notes


def set_aside(
    odd: Mapping[str, Mapping[int, str]], chosen: Collection[str], ids: Sequence[str], file: object, notes: list[str]
) -> tuple[np.ndarray, tuple[Rejected, ...]]:
    """The rows to keep, and the others: those with a feature, or the error of one, that is no number."""
    reasons: dict[int, str] = {}
    for name in chosen:
        for row, word in odd.get(name, {}).items():
            reasons.setdefault(row, f"column {name!r} holds {word!r} and no number")
    if reasons:
        notes.append("objects with text in a column of numbers are set aside: mend the cells, or leave the column out: "
                     "features=[...]")  # fmt: skip
    keep = np.setdiff1d(np.arange(len(ids)), np.array(list(reasons), np.int64))
    return keep, tuple(Rejected(ids[row], why, f"{file}, row {row + 1}") for row, why in sorted(reasons.items()))


def _pair(table: pa.Table, pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    for one, other in pairs:
        found = matching(table.column_names, [one]), matching(table.column_names, [other])
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
    return None


def degrees(
    table: pa.Table,
    pair: tuple[str, str],
    *,
    ra_unit: str | None = None,
    file: object = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) float64 right ascension and declination [deg], NaN where missing.

    A few rows with an impossible position keep it, so that these objects can be set aside with their reason.

    Parameters
    ----------
    ra_unit : "deg", "hour" or "rad", in place of what the table says.

    Raises
    ------
    InputError : right ascensions in hours that nothing declares, text that is no angle, or most values beyond the sky.
    """
    ra, text = _angles(table, pair[0], hours=True, file=file)
    dec, _ = _angles(table, pair[1], hours=False, file=file)
    unit = (ra_unit or _unit(table, pair[0])).strip().lower()
    known = np.isfinite(ra)
    if text:
        pass
    elif unit in ("hour", "hours", "h", "hourangle", "hr"):
        ra = ra * 15
    elif unit in ("rad", "radian", "radians"):
        ra = np.degrees(ra)
    elif not unit and re.search(r"hour|_h$|hms", pair[0].lower()):
        raise _hours(file, pair[0], "its name")
    elif (
        not unit
        and known.sum() >= 20
        and 20 < np.ptp(ra[known]) <= 24
        and ra[known].min() >= 0
        and ra[known].max() <= 24
    ):
        raise _hours(file, pair[0], f"{ra[known].min():.3g} to {ra[known].max():.3g}")
    if _unit(table, pair[1]).strip().lower() in ("rad", "radian", "radians") or (unit == "rad" and ra_unit):
        dec = np.degrees(dec)
    bad = (ra < -180) | (ra > 360) | (np.abs(dec) > 90)
    if 2 * bad.sum() > (~np.isnan(ra) | ~np.isnan(dec)).sum():  # not some bad rows: another column, or another unit
        i = int(np.argmax(bad))
        raise InputError(
            "positions beyond the sky",
            file=file,
            keyword="/".join(pair),
            found=f"row {i + 1}: {ra[i]:g}, {dec[i]:g}",
            expected="0..360, -90..90 deg",
            fix="ra=..., dec=... if these are other columns",
        )
    return np.where(known & ~bad, np.where(known, ra, 0.0) % 360, ra), dec


def _unit(table: pa.Table, name: str) -> str:
    """The unit of an angle: as the table says, or in brackets behind the name."""
    found = re.search(r"[\[(]\s*(deg|degrees?|h|hr|hours?|hourangle|rad|radians?)\s*[\])]\s*\Z", name.lower())
    return unit_of(table, name) or (found[1] if found else "")


def _angles(table: pa.Table, name: str, *, hours: bool, file: object) -> tuple[np.ndarray, bool]:
    """Numbers of a column, and whether they were written as sexagesimal text (then in degrees already)."""
    column = table[name]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64), False
    out = np.full(len(column), np.nan)
    sexagesimal_text = False
    for i, word in enumerate(column.to_pylist()):
        if word is None:
            continue
        value = sexagesimal(word)
        sexagesimal_text |= value is not None
        try:
            out[i] = float(word) if value is None else value * (15 if hours else 1)
        except ValueError as error:
            raise InputError("a position that is no angle", file=file, keyword=name, found=f"row {i + 1}: {word!r}",
                             expected="degrees, or sexagesimal") from error  # fmt: skip
    return out, sexagesimal_text


def _hours(file: object, name: str, why: str) -> InputError:
    return InputError("right ascensions that seem to be hours", file=file, keyword=name, found=why, expected="degrees",
                      fix="ra_unit='hour' turns them into degrees; ra_unit='deg' if they are")  # fmt: skip


def error_of(name: str, names: Sequence[str]) -> str | None:
    """The column with the standard error of another: ``mag_err``, ``err_mag``, ``e_mag``, ``magErr_g``, ``eg``."""
    low = {n.lower(): n for n in names if n != name}
    base = name.lower()
    forms = [
        f"{base}_err",
        f"{base}_error",
        f"{base}err",
        f"{base}_sigma",
        f"{base}_unc",
        f"err_{base}",
        f"error_{base}",
        f"e_{base}",
        f"sigma_{base}",
        f"{base}_std",
        f"e{base}",
        f"{base}_e",
    ]
    head, _, tail = base.rpartition("_")
    if head:
        forms += [f"{head}err_{tail}", f"{head}_err_{tail}", f"{head}_error_{tail}", f"{head}_sigma_{tail}"]
    if base.startswith("mag_"):
        forms += [f"magerr_{base[4:]}", f"mag_err_{base[4:]}"]
    if base.startswith("flux_"):
        forms += [f"fluxerr_{base[5:]}"]
    return next((low[f] for f in forms if f in low), None)
