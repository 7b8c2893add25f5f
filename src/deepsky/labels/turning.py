"""How a label moves when the image is turned or mirrored, judged from its name, its classes, or its header.

A header may say it: ``jet:direction`` is the column ``jet``, declared a direction. Else names and classes are looked
at, by whole words. A false alarm costs some augmentation, a label that turns unnoticed the whole training: in doubt a
column counts as one that may turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from deepsky.errors import InputError
from deepsky.units import FULL_TURN

if TYPE_CHECKING:  # readers in child processes need no torch
    from deepsky.sample import Moves

DECLARED = ("scalar", "vector", "spin2", "angle", "direction", "handed", "fixed")
KEPT = "kept"  # in a header: values such as -99 are meant
_HEADER = re.compile(rf"\s*(\S.*?)\s*((?::\s*(?:{'|'.join((*DECLARED, KEPT))})\s*)+)")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_DEGREES = re.compile(r"(?<=[A-Za-z0-9])_?(deg(rees?)?|radians?)$", re.IGNORECASE)

ANGLES = {"pa", "posang", "posangle", "theta", "phi", "ang", "angle", "orient", "orientation", "azimuth", "rot",
          "rotation", "direction"}  # fmt: skip
COMPONENTS = {"e", "eps", "epsilon", "ell", "ellip", "ellipticity", "g", "gamma", "shear"}
MOMENTS = {f"{a}{b}" for a in ("", "i", "m", "c", "q") for b in ("xx", "yy", "xy")}
PLACE = re.compile(r"[dv]?[xy](c|cen|cent|center|centre|pos|win|peak|off|offset|shift|pix|pixel|min|max|image)?")
ROWS = {"row", "col", "column"}
PLACES = ROWS | {"pix", "pixel", "cen", "center", "centre", "centroid", "peak", "image", "min", "max", "pos", "c", "d"}
HANDED = {"cw", "ccw", "acw", "clockwise", "anticlockwise", "counterclockwise", "handed", "handedness", "lefthanded",
          "righthanded", "chirality", "winding", "spin", "pitch", "swise", "zwise"}  # fmt: skip
WISE = {("s", "wise"), ("z", "wise")}
SIDES = {"left", "right", "up", "down", "top", "bottom", "horizontal", "vertical", "north", "south", "east", "west"}

# beside these a word means something else: the size of an angle, a colour, an X-ray flux, arms wound tightly
BRIGHTNESS = {"mag", "flux", "lum", "luminosity", "band", "color", "colour", "ray", "rays", "mags", "fluxes"}
NO_ANGLE = BRIGHTNESS | {"inc", "incl", "inclination", "opening", "viewing", "phase", "hour", "solar", "zenith",
            "solid", "size", "sep", "separation", "dist", "distance", "diam", "diameter", "radius", "ein", "einstein",
            "velocity", "vel", "period", "speed", "rate", "measure", "curve", "pitch"}  # fmt: skip
TIGHT = {"tight", "medium", "loose"}
BANDS = set("ugrizyjhk")


PLAIN_ANGLE = (
    "an angle, learnt and judged as a plain number: answers near the ends of its range, which are the same angle, are "
    "wrong by up to half of it. Its components are sound: cos and sin of twice the angle of an axis, called "
    "NAME_1:spin2 and NAME_2:spin2 in the label table; of a direction cos and sin, NAME_x:vector and NAME_y:vector"
)


def is_angle(moves: str, unit: str) -> bool:
    """Whether a label is declared an angle, or may turn with the image and has a unit of angles."""
    return moves in {"angle", "direction"} or (moves == "fixed" and unit in FULL_TURN)


@dataclass(frozen=True)
class Header:
    """A column's name, and what its header declares of it: how it moves ("" for nothing), and that all is meant."""

    name: str
    moves: str = ""
    kept: bool = False


def header(text: str) -> Header:
    """Read the header of a label column.

    Raises
    ------
    InputError : two declarations that contradict each other.

    >>> header("jet:direction"), header("z:kept").kept
    (Header(name='jet', moves='direction', kept=False), True)
    """
    found = _HEADER.fullmatch(text)
    if found is None:
        return Header(text)
    told = [w.strip() for w in found[2].split(":")[1:]]
    moves = [w for w in told if w != KEPT]
    if len(set(moves)) > 1:
        raise InputError("a header declares two things of one label", found=text, expected="one of them")
    return Header(found[1], moves[0] if moves else "", KEPT in told)


def words(name: str) -> list[str]:
    """The words of a name, in lower case: split at whatever is no letter, at numbers, and where capitals begin.

    >>> words("posAng_J2000"), words("XWIN_IMAGE"), words("PAdeg")
    (['pos', 'ang', 'j', '2000'], ['xwin', 'image'], ['pa', 'deg'])
    """
    return [w.lower() for w in _WORD.findall(_DEGREES.sub(r"_\1", name))]


def unit(name: str) -> str:
    """The unit that a name ends with: "deg", "rad" or "".

    >>> unit("PA_deg"), unit("half_light_rad"), unit("theta_rad")
    ('deg', '', 'rad')
    """
    found = _DEGREES.search(name)
    if found is not None:
        return "deg" if found[1].lower().startswith("deg") else "rad"
    split = words(name)
    return "rad" if split[-1:] == ["rad"] and ANGLES & set(split) else ""


def of_numbers(name: str) -> Moves:
    """How numbers of that name move: "fixed" where they may turn, "handed" where only a mirror would change them."""
    split = words(name)
    there = set(split)
    if there & ANGLES - {"direction"} and not there & NO_ANGLE:
        return "fixed"
    if _handed(split):
        return "handed"
    if "direction" in there or (there & MOMENTS and not there & BRIGHTNESS):
        return "fixed"
    steps = set(pairwise(split))
    if any(a in COMPONENTS and b in {"1", "2"} for a, b in steps) and not there & BRIGHTNESS:
        return "fixed"
    if there & ROWS and all(w in PLACES or w.isdigit() for w in split):
        return "fixed"
    colour = len(split) > 1 and there <= BANDS
    candidates = [*split[:1], *split[-1:], *(a for a, b in steps if b in PLACES or b.isdigit())]
    place = any(PLACE.fullmatch(w) for w in candidates)
    return "fixed" if place and not colour and not there & BRIGHTNESS else "scalar"


def of_classes(name: str, classes: Iterable[str]) -> Moves:
    """How text labels move: by the sense in which something turns, in the name or the classes; by sides."""
    known = [words(c) for c in classes]
    if any(TIGHT & set(w) for w in known) and "winding" in words(name):
        return "scalar"
    single = {w[0] for w in known if len(w) == 1}
    if _handed(words(name)) or any(_handed(w) for w in known) or single == {"s", "z"}:
        return "handed"
    return "fixed" if len(single & SIDES) > 1 else "scalar"


def _handed(split: list[str]) -> bool:
    there = set(split)
    if there & TIGHT and "winding" in there:  # how tightly the arms are wound
        return False
    return bool(there & HANDED or WISE & set(pairwise(split)))


# -- components that belong together --------------------------------------------------------------------------
_SPIN2 = re.compile(r"((?:\w+_)?(?:e|eps|epsilon|ell|ellip|ellipticity|g|gamma|shear))_?1", re.IGNORECASE)
_VECTOR = re.compile(r"((?:\w+_)?)d(x)|(\w*(?:offset|shift))_(x)", re.IGNORECASE)


def pairs(names: Iterable[str], declared: Mapping[str, str]) -> dict[str, tuple[Moves, str, str]]:
    """Names of two components each, as (how they move, first, second) by the name that they have together.

    >>> pairs(["e1", "e2", "dx", "dy"], {})
    {'e': ('spin2', 'e1', 'e2'), 'dxy': ('vector', 'dx', 'dy')}
    """
    here = list(names)
    found: dict[str, tuple[Moves, str, str]] = {}
    for first in here:
        spin, step = _SPIN2.fullmatch(first), _VECTOR.fullmatch(first)
        told = declared.get(first, "")
        if told not in {"", "spin2", "vector"}:
            continue
        if (told in {"", "spin2"} and spin) or (told == "spin2" and first.endswith("1")):
            moves, second, both = "spin2", first[:-1] + "2", spin[1] if spin else first[:-1].rstrip("_") or first
        elif (told in {"", "vector"} and step) or (told == "vector" and first[-1] in "xX"):
            last = "y" if first[-1] == "x" else "Y"
            moves, second = "vector", first[:-1] + last
            both = step[3] if step and step[3] else first + last.lower() if step else first[:-1].rstrip("_") or "xy"
        else:
            continue
        if second in here and declared.get(second, "") == told and both not in here:
            found[both] = (cast("Moves", moves), first, second)
    return found
