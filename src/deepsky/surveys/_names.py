"""What file names say: which files belong to one object, in which band, and which are noise, masks or PSFs.

Words of a name are parted by ``_ - .`` and blanks. A word is taken for a band only where that brings several files
together, so that ``galaxy_r_12.fits`` alone keeps its name.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from deepsky.errors import InputError
from deepsky.surveys._scan import stem

Role = Literal["flux", "sigma", "variance", "ivar", "weight", "mask", "psf", "other", ""]

ROLES: dict[str, Role] = {
    **dict.fromkeys(("sci", "image", "images", "img", "flux", "fitim", "data", "science", "coadd"), "flux"),
    **dict.fromkeys(
        ("sigma", "sig", "err", "error", "rms", "noise", "unc", "uncert", "uncertainty", "stddev"), "sigma"
    ),
    **dict.fromkeys(("var", "variance"), "variance"),
    **dict.fromkeys(("ivar", "invvar", "ivm"), "ivar"),
    **dict.fromkeys(("wht", "wgt", "weight", "weights", "wt", "exp", "exposure"), "weight"),
    **dict.fromkeys(("mask", "masks", "msk", "mskim", "dq", "flag", "flags", "bpm"), "mask"),
    **dict.fromkeys(("psf", "psfs", "psfim", "kernel"), "psf"),
    **dict.fromkeys(
        (
            "seg",
            "segm",
            "segim",
            "segmap",
            "segmentation",
            "model",
            "resid",
            "residual",
            "chi2",
            "maskbits",
            "ctx",
            "depth",
            "galdepth",
            "nexp",
            "psfsize",
            "area",
            "wmap",
            "con",
            "blobmodel",
            "catalog",
            "cat",
            "back",
            "bkg",
            "background",
        ),
        "other",
    ),
}
# bands and their wavelengths [micron]: from blue to red is the order of the axis where no other is given
MICRONS = {
    "FUV": 0.15,
    "UVW2": 0.2,
    "UVM2": 0.22,
    "NUV": 0.23,
    "UVW1": 0.26,
    "u": 0.36,
    "U": 0.361,
    "B": 0.44,
    "g": 0.48,
    "G": 0.481,
    "V": 0.55,
    "r": 0.62,
    "R": 0.621,
    "VIS": 0.72,
    "i": 0.75,
    "I": 0.751,
    "Z": 0.88,
    "z": 0.89,
    "y": 0.97,
    "Y": 1.02,
    "J": 1.25,
    "H": 1.63,
    "K": 2.2,
    "Ks": 2.15,
    "W1": 3.4,
    "W2": 4.6,
    "W3": 12.0,
    "W4": 22.0,
}
_WEBB = {200, 210, 250, 277, 300, 335, 356, 360, 410, 430, 444, 460, 480, 560, 770, 1000, 1130, 1280, 1500, 1800, 2100,
         2550}  # fmt: skip
_BAND = re.compile(rf"(?:{'|'.join(MICRONS)}|[Ff]\d{{3,4}}(?:W|LP|M|N|X|w|lp|m|n|x)2?|VT|NISP[YJH])\Z")
_WORDS = re.compile(r"[^_\-.\s]+")
_GLUED = re.compile(r"(.*\d)([A-Za-z]+)\Z")


def is_band(word: str) -> bool:
    """Whether a word is the name of a band: ``g``, ``Ks``, ``F160W``."""
    return bool(_BAND.match(word)) or word.lower() == "vis"


def rank(band: str) -> tuple[float, str]:
    """Sorts bands by wavelength [micron], as far as their names tell.

    >>> sorted(["Ks", "g", "F160W", "F814W", "u"], key=rank)
    ['u', 'g', 'F814W', 'F160W', 'Ks']
    """
    space = re.match(r"[Ff](\d{3,4})", band)
    if space:  # F814W is 0.814 micron, F160W (no optical filter is so blue) 1.60, F444W (Webb's) 4.44
        number = int(space[1])
        return number / (100 if number < 200 or number in _WEBB else 1000), band
    return next((m for name, m in MICRONS.items() if name == band or name == band.upper() == "VIS"), 1e3), band


def role_of(words: Iterable[str]) -> Role:
    """What an HDU or a file holds by the words of its name; "" if they do not say."""
    found: Role = ""
    for word in words:
        role = ROLES.get(word.lower(), "")
        if role and (not found or found == "flux"):
            found = role
    return found


def words(name: str) -> list[str]:
    """The words of a name."""
    return _WORDS.findall(name)


@dataclass(frozen=True)
class Slot:
    """One of the files that make an object."""

    band: str
    role: Role


@dataclass(frozen=True)
class Groups:
    """Files brought together to objects.

    Attributes
    ----------
    ids : names of the objects.
    slots : the kinds of file an object can have.
    files : for every object, the file in each slot or None.
    folders : for every object, its folders without those that tell bands or kinds of file.
    notes : what was decided.
    alone : files that belong to no object (a mask without an image).
    """

    ids: tuple[str, ...]
    slots: tuple[Slot, ...]
    files: tuple[tuple[str | None, ...], ...]
    folders: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


def missing_notes(groups: Groups, bands: Sequence[str]) -> tuple[str, ...]:
    """How many objects have no file in one of a survey's bands."""
    flux = [(i, s.band) for i, s in enumerate(groups.slots) if s.role == "flux"]
    if len(flux) < 2:
        return ()
    missing = {b or "(none)": sum(mine[i] is None for mine in groups.files) for i, b in flux if b in bands or not b}
    many = len(groups.files)
    return tuple(f"{n:,} of {many:,} objects have no file in band {b}: ivar 0 there" for b, n in missing.items() if n)


@dataclass(frozen=True, slots=True)  # there may be a million of them
class _File:
    name: str
    folders: tuple[str, ...]
    key: str
    band: str
    role: Role


def group(names: Sequence[str], *, pattern: str | None = None, bands: Sequence[str] | None = None) -> Groups:
    """Bring files together to objects by their names.

    Parameters
    ----------
    names : paths relative to the folder.
    pattern : such as ``{id}_{band}.fits`` or ``{id}{plane}.fits``; by default found from the names.
    bands : those that ``{band}`` can be; one that differs from a file's by capitals alone is another word for it.

    Raises
    ------
    InputError : no file matches `pattern`, or two files are the same part of one object.
    """
    if pattern is not None:
        files = _matched(names, pattern, bands)
        return _assemble(files, len(names) - len(files), explicit=True)
    return _spelt(_found(names), tuple(bands or ()))


def _spelt(groups: Groups, bands: tuple[str, ...]) -> Groups:
    """The bands as the user spells them: ``u`` for the ``U`` of a file, where no file has ``u``."""
    have, wanted = {s.band for s in groups.slots}, {b.lower(): b for b in bands}
    if len(wanted) < len(bands):
        return groups
    other = {b: wanted[b.lower()] for b in have if b not in bands and wanted.get(b.lower(), b) not in have}
    if not other or len(set(other.values())) < len(other):
        return groups
    slots = tuple(replace(s, band=other.get(s.band, s.band)) for s in groups.slots)
    return replace(groups, slots=slots, notes=(*groups.notes, f"bands {', '.join(other)} of the files are called "
                                               f"{', '.join(other.values())}, as asked"))  # fmt: skip


def _found(names: Sequence[str]) -> Groups:
    """Objects as far as names alone tell."""
    split = [_parts(n) for n in names]
    best: list[_File] = []
    most = 0
    for pick in (0, -1):  # the band is the first or the last word that could be one
        trial = [_read(n, f, s, pick) for n, f, s in split]
        trial = _from_folders(trial)
        joined = _joined(trial)
        if joined > most:
            best, most = trial, joined
    if most == 0:
        best = _from_folders([_File(n, f, s, "", "") for n, f, s in split])
    if _joined(best) == 0 and len({f.role for f in best}) <= 1:
        constant = _constant(split)
        best = [_File(n, f, s, constant, "") for n, f, s in split]
    return _assemble(best, 0, explicit=False)


def _parts(name: str) -> tuple[str, tuple[str, ...], str]:
    *folders, _ = name.split("/")
    return name, tuple(folders), stem(name)


def _read(name: str, folders: tuple[str, ...], text: str, pick: int) -> _File:
    """Take the band and the role out of a stem."""
    role: Role = ""
    found = list(_WORDS.finditer(text))
    for match in reversed(found):
        role = ROLES.get(match[0].lower(), "")
        if role:
            text = _without(text, match.start(), match.end())
            break
    else:
        glued = _GLUED.match(text)
        if glued and glued[2].lower() in ROLES:
            role, text = ROLES[glued[2].lower()], glued[1]
    candidates = [m for m in _WORDS.finditer(text) if is_band(m[0])]
    band = ""
    if candidates:
        match = candidates[pick]
        band, text = _spelling(match[0], text), _without(text, match.start(), match.end())
    return _File(name, folders, text, band, role)


def _spelling(band: str, text: str) -> str:
    """The name of a band in ``HSC-I``, which is i: capitals elsewhere are Johnson's."""
    return band.lower() if band in "GRIZ" and f"HSC-{band}" in text else band


def _without(text: str, start: int, stop: int) -> str:
    """Drop a word and the mark before it (behind it where it comes first)."""
    if start > 0:
        return text[: start - 1] + text[stop:]
    return text[stop + 1 :]


def _joined(files: Sequence[_File]) -> int:
    """How many objects of several files there are; 0 if one part occurs twice."""
    parts = Counter((f.folders, f.key, f.band, f.role or "flux") for f in files)
    if parts and parts.most_common(1)[0][1] > 1:
        return 0
    objects = Counter((f.folders, f.key) for f in files)
    return sum(n > 1 for n in objects.values())


def _from_folders(files: list[_File]) -> list[_File]:
    """Drop the levels of folders that only repeat the band, or take band and role from them; depth by depth."""
    depths = sorted({len(f.folders) for f in files})
    if len(depths) > 1:
        return [f for depth in depths for f in _from_folders([f for f in files if len(f.folders) == depth])]
    for level in reversed(range(depths[0] if depths else 0)):
        seen: dict[str, set[str]] = defaultdict(set)
        for f in files:
            seen[f.band].add(f.folders[level])
        names = {f.folders[level] for f in files}
        repeats = len(seen) > 1 and all(len(v) == 1 for v in seen.values()) and len(names) == len(seen)
        if repeats and "" not in seen:
            files = [_dropped(f, level) for f in files]
            continue
        tells_band = len(names) > 1 and set(seen) == {""} and all(any(map(is_band, words(n))) for n in names)
        roles = {ROLES.get(n.lower(), "") for n in names}
        tells_role = len(roles) > 1 and "" not in roles and "flux" in roles
        if tells_band or tells_role:
            trial = [_dropped(f, level, tells_band) for f in files]
            if _joined(trial):
                files = trial
    return files


def _dropped(f: _File, level: int, band: bool | None = None) -> _File:
    name = f.folders[level]
    rest = f.folders[:level] + f.folders[level + 1 :]
    if band is None:
        return _File(f.name, rest, f.key, f.band, f.role)
    if band:
        told = next(w for w in reversed(words(name)) if is_band(w))
        return _File(f.name, rest, f.key, _spelling(told, name), f.role)
    return _File(f.name, rest, f.key, f.band, ROLES[name.lower()])


def _constant(split: Sequence[tuple[str, tuple[str, ...], str]]) -> str:
    """The one band word that all names carry, "" if there is none."""
    common: set[str] = set.intersection(*({w for w in words(s) if is_band(w)} for _, _, s in split)) if split else set()
    return _spelling(common.pop(), split[0][2]) if len(common) == 1 and len(split) > 1 else ""


def _matched(names: Sequence[str], pattern: str, bands: Sequence[str] | None) -> list[_File]:
    """Files that match a pattern of the user's."""
    fields = set(re.findall(r"{(\w+)}", pattern))
    unknown = fields - {"id", "band", "plane", "class", "any"}
    if unknown or "id" not in fields:
        raise InputError(
            "a pattern names the parts of a file name",
            keyword="pattern",
            found=pattern,
            expected="{id}, and {band}, {plane} or {any} where they occur, e.g. {id}_{band}.fits",
        )
    group_of: dict[str, str] = {
        "id": r"(?P<id>[^/]+)", "class": r"(?P<class>[^/]+)", "any": r"[^/]*",
        "band": f"(?P<band>{'|'.join(map(re.escape, sorted(bands, key=len, reverse=True))) if bands else '[^/]+?'})",
        "plane": f"(?P<plane>{'|'.join(sorted(ROLES, key=len, reverse=True))}|)",
    }  # fmt: skip
    text = "".join(group_of[p[1:-1]] if p[:1] == "{" else re.escape(p) for p in re.split(r"({\w+})", pattern) if p)
    search: Callable[[str], re.Match[str] | None] = re.compile(rf"(?:.*/)?{text}\Z").match
    files = []
    for name in names:
        match = search(name)
        if match:
            got = match.groupdict()
            folders = tuple(name.split("/")[:-1])
            keep = folders[: len(folders) - pattern.count("/")] + ((got["class"],) if "class" in got else ())
            role = ROLES.get((got.get("plane") or "").lower(), "")
            files.append(_File(name, keep, got["id"], _spelling(got.get("band") or "", name), role))
    if not files:
        raise InputError("no file matches the pattern", keyword="pattern", found=pattern, expected=f"e.g. {names[0]}")
    return files


def _assemble(files: Sequence[_File], unmatched: int, *, explicit: bool) -> Groups:
    """Objects from files whose parts are known."""
    notes = [f"{unmatched:,} files do not match the pattern and were left out"] if unmatched else []
    if not any((f.role or "flux") == "flux" for f in files):  # a folder of nothing but PSFs: they are the objects
        files = [_File(f.name, f.folders, stem(f.name), "", "") for f in files]
    objects: dict[tuple[tuple[str, ...], str], dict[Slot, str]] = {}
    for f in files:
        role = f.role or "flux"
        slot = Slot(f.band, role)
        mine = objects.setdefault((f.folders, f.key), {})
        if slot in mine:
            if explicit:
                raise InputError("two files are the same part of one object", file=f.name, found=mine[slot],
                                 fix="a pattern that tells them apart")  # fmt: skip
            objects[(f.folders, stem(f.name))] = {slot: f.name}
        else:
            mine[slot] = f.name
    whole = {k: v for k, v in objects.items() if any(s.role == "flux" for s in v)}
    alone = tuple(n for k, v in objects.items() if k not in whole for s, n in v.items() if s.role != "other")
    other = Counter(s.role for v in objects.values() for s in v)["other"]
    if other:
        notes.append(f"{other:,} files of segmentation, models or depth were left out")
    slots = sorted(
        {s for v in whole.values() for s in v if s.role != "other"},
        key=lambda s: (s.role != "flux", s.role, rank(s.band)),
    )
    keys = list(whole)
    ids, more = _ids(keys)
    table = tuple(tuple(whole[k].get(s) for s in slots) for k in keys)
    return Groups(tuple(ids), tuple(slots), table, tuple(k[0] for k in keys), (*notes, *more), alone)


def _ids(keys: Sequence[tuple[tuple[str, ...], str]]) -> tuple[list[str], list[str]]:
    short = [key for _, key in keys]
    repeats = len(short) - len(set(short))
    if not repeats and all(short):
        return short, []
    note = f"{repeats:,} file names repeat in other folders: ids are paths" if repeats else ""
    return ["/".join((*folders, key)) or "object" for folders, key in keys], [note] if note else []
