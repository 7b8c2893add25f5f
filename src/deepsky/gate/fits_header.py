"""FITS header cards read in pure Python: keyword -> value, and which keywords are repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from deepsky.gate.source import Place, Stream

BLOCK = 2880
CARD = 80

Value = bool | int | float | complex | str | None

_INTEGER = re.compile(r"[+-]?[0-9]+\Z")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[EeDd][+-]?[0-9]+)?\Z")
_COMPLEX = re.compile(r"\(([^,()]+),([^,()]+)\)\Z")
_NOT_FINITE = frozenset(("NAN", "+NAN", "-NAN", "INF", "+INF", "-INF", "INFINITY", "+INFINITY", "-INFINITY"))
_COMMENTARY = frozenset(("", "COMMENT", "HISTORY"))

_STRUCTURE = re.compile(
    r"(?:SIMPLE|XTENSION|BITPIX|NAXIS[0-9]*|PCOUNT|GCOUNT|GROUPS|TFIELDS|TFORM[0-9]+|TBCOL[0-9]+|THEAP"
    r"|ZIMAGE|ZCMPTYPE|ZBITPIX|ZNAXIS[0-9]*|ZTILE[0-9]+)\Z"
)
_MEANING = re.compile(
    r"(?:BSCALE|BZERO|BLANK|CTYPE[0-9]+|CRVAL[0-9]+|CRPIX[0-9]+|CDELT[0-9]+|CUNIT[0-9]+|CROTA[0-9]+"
    r"|CD[0-9]+_[0-9]+|PC[0-9]+_[0-9]+|TTYPE[0-9]+|TSCAL[0-9]+|TZERO[0-9]+)\Z"
)


@final
@dataclass
class Header:
    """The cards of one HDU: first value of each keyword, and the pairs that a keyword takes when it is repeated."""

    values: dict[str, Value] = field(default_factory=dict)
    repeated: dict[str, tuple[Value, Value]] = field(default_factory=dict)
    raw: bytes = b""


def parse_value(text: str) -> Value:
    """The value field of a card (everything after '= '), without its comment.

    Text, logical, integer, real (E or D exponent), complex; None where the field is empty. An unquoted NaN or Inf,
    which the standard forbids, becomes that float, so that a check can find it; anything else stays as text.
    """
    text = text.lstrip()
    if text[:1] == "'":
        end = text.find("'", 1)
        while end != -1 and text[end + 1 : end + 2] == "'":  # a doubled quote is one quote
            end = text.find("'", end + 2)
        return (text[1:] if end == -1 else text[1:end]).replace("''", "'").rstrip()
    word = text.partition("/")[0].strip()
    if word == "T":
        return True
    if word == "F":
        return False
    return _number(word)


def _number(word: str) -> Value:
    if _INTEGER.match(word):
        return int(word)
    if _FLOAT.match(word):
        return float(word.replace("D", "E").replace("d", "e"))
    if not word:
        return None
    if word.upper() in _NOT_FINITE:
        return float(word)
    if pair := _COMPLEX.match(word):
        real, imaginary = _number(pair[1].strip()), _number(pair[2].strip())
        if isinstance(real, int | float) and isinstance(imaginary, int | float):
            return complex(real, imaginary)
    return word


def read_header(stream: Stream, place: Place, max_blocks: int, first: bytes = b"") -> Header:
    """Read blocks of 36 cards up to END.

    Parameters
    ----------
    stream : stands behind `first`.
    max_blocks : blocks of 2880 bytes after which END must have come.
    first : the header's first block, where it was read already.

    Raises
    ------
    InputError : no END, or a keyword of structure repeated.
    """
    header, blocks = Header(), []
    for number in range(max_blocks):
        block = first if number == 0 and first else stream.read(BLOCK)
        blocks.append(block)
        done = _read_block(block.decode("latin-1"), header)
        if done:
            break
        if len(block) < BLOCK:
            raise place.refuse(
                "the header has no END card before the file ends",
                keyword="END",
                found=f"the file ends {sum(map(len, blocks))} bytes into this header",
                expected="a card END that closes the header",
                fix="the file is truncated or no FITS file: download or write it again",
            )
    else:
        raise place.refuse(
            "the header has no END card within the limit",
            keyword="END",
            found=f"{max_blocks} blocks of {BLOCK} bytes without END",
            expected="a card END that closes the header",
            fix="raise max_header_blocks if the header is truly that long, else write the file again",
        )
    header.raw = blocks[0] if len(blocks) == 1 else b"".join(blocks)
    if len(header.raw) % BLOCK:
        raise place.refuse(
            "the header's last block is cut off",
            keyword="END",
            found=f"{len(header.raw)} bytes",
            expected=f"a multiple of {BLOCK} bytes",
            fix="the file is truncated: download or write it again",
        )
    if header.repeated:
        _check_repeated(header, place)
    return header


def _read_block(text: str, header: Header) -> bool:
    """Add one block's cards; True when END was among them."""
    values = header.values
    for start in range(0, len(text) - CARD + 1, CARD):
        keyword = text[start : start + 8].rstrip()
        if text[start + 8 : start + 10] == "= ":
            keyword = keyword.upper()
            value = parse_value(text[start + 10 : start + CARD])
        elif keyword == "END":
            return True
        elif keyword == "HIERARCH" and "=" in text[start : start + CARD]:
            name, _, rest = text[start + 8 : start + CARD].partition("=")
            keyword, value = name.strip().upper(), parse_value(rest)
        elif keyword == "CONTINUE":
            _extend(values, parse_value(text[start + 8 : start + CARD]))
            continue
        else:
            continue
        if keyword in values:
            header.repeated.setdefault(keyword, (values[keyword], value))
        elif keyword not in _COMMENTARY:
            values[keyword] = value
    return False


def _extend(values: dict[str, Value], more: Value) -> None:
    """The long-string convention: a text that ends in & goes on in the CONTINUE card that follows."""
    if values and isinstance(more, str):
        keyword = next(reversed(values))
        start = values[keyword]
        if isinstance(start, str) and start.endswith("&"):
            values[keyword] = start[:-1] + more


def _check_repeated(header: Header, place: Place) -> None:
    for keyword, (first, second) in header.repeated.items():
        differs = first is not second and first != second
        if _STRUCTURE.match(keyword) or (differs and _MEANING.match(keyword)):
            raise place.refuse(
                "a keyword that must be unique is repeated",
                keyword=keyword,
                found=f"{show(first)} and {show(second)}",
                expected="one card",
                fix=f"delete the wrong {keyword} card",
            )


def show(value: object) -> str:
    """A header value as it reads in a message: text in quotes, logicals as T and F, a missing card by name."""
    if isinstance(value, bool):
        return "T" if value else "F"
    return "no value" if value is None else repr(value)


def integer(
    header: Mapping[str, Value],
    keyword: str,
    place: Place,
    *,
    low: int = 0,
    high: int | None = None,
    default: int | None = None,
) -> int:
    """An integer keyword in [low, high], or an `InputError` that names it."""
    value = header.get(keyword, default) if keyword in header else default
    if high is None:
        span = f"an integer >= {low}"
    else:
        span = str(low) if low == high else f"an integer from {low} to {high}"
    if value is None:
        found = "an empty card" if keyword in header else "no such card"
        raise place.refuse("a mandatory keyword is missing", keyword=keyword, found=found, expected=span)
    if type(value) is not int:
        raise place.refuse("the value is not an integer", keyword=keyword, found=show(value), expected=span)
    if value < low or (high is not None and value > high):
        raise place.refuse("the value is out of range", keyword=keyword, found=value, expected=span)
    return value
