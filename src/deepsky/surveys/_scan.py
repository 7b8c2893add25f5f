"""Which files lie in a folder, and what their folders and names say of the objects.

Folders are walked with ``os.scandir`` and at most one file is opened: a million other files cost about a second.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath

from deepsky.errors import InputError
from deepsky.gate import check_fits

KINDS = {
    "fits": (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz", ".fz", ".fits.bz2"),
    "image": (".jpg", ".jpeg", ".png", ".tif", ".tiff"),
    "npy": (".npy",),
}
PACKED = {".fits", ".fit", ".fts", ".npy", ".vot", ".xml", ".csv", ".tsv", ".txt", ".dat", ".cat", ".tbl", ".ecsv"}
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test", "valid": "valid", "val": "valid",
          "validation": "valid"}  # fmt: skip
MAX_CLASSES = 200
PREVIEWS = 5  # pictures a FITS image that may be its previews; of more, it is the FITS file that stands beside them
READERS = {"fits": ("FITS files", "fits-cutouts"), "image": ("pictures", "images"), "npy": ("NPY files", "npy")}
Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Files:
    """Files of one kind.

    Attributes
    ----------
    root : the folder that `names` are relative to.
    names : sorted POSIX paths.
    ignored : how many files of every other ending were passed over.
    """

    root: Path
    names: tuple[str, ...]
    ignored: Counter[str] = field(default_factory=Counter)

    def notes(self) -> tuple[str, ...]:
        """What was passed over, in words."""
        if not self.ignored:
            return ()
        told = [f"{self.ignored.total():,} other files ignored ({_words(self.ignored)})"]
        for kind, (what, reader) in READERS.items():
            n = sum(self.ignored[e] for e in KINDS[kind])
            if n:
                told.append(f"among them {n:,} {what}: reader={reader!r} (--set reader={reader}) takes them instead")
        return tuple(told)


def ending(name: str) -> str:
    """The lower-case ending of a file name, ``.fits.gz`` counted as one."""
    head, last = os.path.splitext(name.lower())
    if last not in (".gz", ".fz", ".bz2", ".xz"):
        return last
    inner = os.path.splitext(head)[1]
    return inner + last if inner in PACKED else last


def stem(name: str) -> str:
    """File name without folder and ending."""
    last = PurePosixPath(name).name
    cut = ending(last)
    return last[: -len(cut)] if cut else last


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Every file below `folder`, hidden ones and loops of links left out."""
    top = os.stat(folder)
    pending, seen = [str(folder)], {(top.st_dev, top.st_ino)}
    while pending:
        here = pending.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if not entry.is_dir():
                    yield entry
                    continue
                status = entry.stat()
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    pending.append(entry.path)


def find(path: Paths, kind: str) -> Files:
    """Files of one kind in a folder, of a glob pattern, of a list, or one file.

    Raises
    ------
    InputError : nothing is there, or nothing of this kind.
    """
    endings = KINDS[kind]
    if not isinstance(path, str | Path):
        return _relative([Path(p) for p in path], kind)
    if not os.path.exists(path) and glob.has_magic(str(path)):
        return _relative([Path(p) for p in sorted(glob.glob(str(path), recursive=True))], kind, str(path))
    root = Path(path)
    if root.is_file():
        return Files(root.parent, (root.name,))
    if not root.is_dir():
        raise InputError("there is no such file or folder", file=path)
    names, ignored, cut = [], Counter[str](), len(str(root)) + (not str(root).endswith(os.sep))
    for entry in walk(root):
        last = ending(entry.name)
        if last in endings:
            names.append(entry.path[cut:].replace(os.sep, "/"))
        else:
            ignored[last] += 1
    if not names:
        raise InputError(
            f"no {kind} file in this folder", file=root, found=_words(ignored), expected=", ".join(endings)
        )
    return Files(root, tuple(sorted(names)), ignored)


def _relative(paths: list[Path], kind: str, pattern: str = "") -> Files:
    """Files of a list, their names relative to the deepest common folder."""
    missing = [p for p in paths if not p.is_file()]
    if missing or not paths:
        raise InputError("no file matches" if not paths else f"{len(missing)} of the files do not exist",
                         file=missing[0] if missing else pattern, expected=", ".join(KINDS[kind]))  # fmt: skip
    root = Path(os.path.commonpath([p.parent.absolute() for p in paths]))
    return Files(root, tuple(sorted({p.absolute().relative_to(root).as_posix() for p in paths})))


def _words(ignored: Counter[str]) -> str:
    return ", ".join(f"{n:,} {e or 'without ending'}" for e, n in ignored.most_common(4)) or "an empty folder"


def dominant(path: Path, limit: int = 200_000) -> tuple[str, Path] | None:
    """The most frequent kind of file in a folder (or of one file) with an example of it; never raises.

    FITS images come before pictures, which lie beside them as previews. At most `limit` files of these kinds are looked
    at, and any number of others.
    """
    kind_of = {last: kind for kind, endings in KINDS.items() for last in endings}
    try:
        if not path.exists() or (path / "schema.json").is_file():
            return None
        found = [(path.name, str(path))] if path.is_file() else ((e.name, e.path) for e in walk(path))
        count: Counter[str] = Counter()
        example: dict[str, str] = {}
        known = ((kind_of[last], full) for name, full in found if (last := ending(name)) in kind_of)
        for kind, full in islice(known, limit):
            count[kind] += 1
            example[kind] = min(full, example.get(kind, full))
    except OSError:
        return None
    if not count:
        return None
    kind = max(count, key=lambda k: (count[k], k == "fits"))
    if kind == "image" and count["image"] <= PREVIEWS * count["fits"] and _holds_image(Path(example["fits"])):
        kind = "fits"
    return kind, Path(example[kind])


def _holds_image(path: Path) -> bool:
    """Whether a FITS file holds an image, and no table alone."""
    try:
        return any(sum(n > 1 for n in hdu.shape) >= 2 for hdu in check_fits(path).images())
    except InputError:
        return False


def unique_ids(names: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The stems of `names`; the paths without ending where stems repeat, with a note that says so."""
    stems = [stem(n) for n in names]
    repeats = len(stems) - len(set(stems))
    if not repeats:
        return stems, ()
    whole = [str(PurePosixPath(n).parent / s) if "/" in n else s for n, s in zip(names, stems, strict=True)]
    if len(set(whole)) < len(whole):  # a.jpg beside a.png
        whole = list(names)
    return whole, (
        f"{repeats:,} file names repeat in other folders: ids are paths, the file name is the column 'name'",
    )


def folder_columns(folders: Sequence[tuple[str, ...]]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """What the folders of the objects say: a published ``split`` and a ``class``.

    The class is the innermost level of folders that every object has, with 2 to 200 names of two objects or more on
    average.

    Returns
    -------
    columns : "split" and "class" where there are such levels.
    notes : what was decided.
    """
    columns: dict[str, list[str]] = {}
    notes: list[str] = []
    depth = min((len(f) for f in folders), default=0)
    for level in reversed(range(depth)):
        values = [f[level] for f in folders]
        different = set(values)
        if {v.lower() for v in different} <= SPLITS.keys():
            columns.setdefault("split", [SPLITS[v.lower()] for v in values])
        elif 2 <= len(different) <= min(MAX_CLASSES, len(folders) // 2) and "class" not in columns:
            columns["class"] = values
    if "class" in columns:
        sizes = Counter(columns["class"])
        notes.append("class from the folders: " + ", ".join(f"{k} {v:,}" for k, v in sizes.most_common(8)))
    if "split" in columns:
        notes.append("split from the folders: once ingested, deepsky split SURVEY --fold-column split")
    return columns, tuple(notes)


_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_POSITIONS = (
    re.compile(rf"(?<![a-z])ra[=_]?({_NUMBER})[^0-9a-z]{{0,3}}de?c?l?[=_]?({_NUMBER})", re.IGNORECASE),
    re.compile(r"(?<![\d.])(\d{1,3}\.\d{4,})[_, ]?([-+]?\d{1,2}\.\d{4,})(?!\d)"),
)
_IAU = re.compile(r"J(\d{2})(\d{2})(\d{2}(?:\.\d+)?)([-+])(\d{2})(\d{2})(\d{2}(?:\.\d+)?)")


def position_in_name(name: str) -> tuple[float, float] | None:
    """(ra, dec) [deg] that a file name carries: ``ra=..&dec=..``, two long decimals, or ``Jhhmmss.s+ddmmss.s``.

    >>> position_in_name("getjpeg@ra=53.91&dec=-0.9&scale=0.4")
    (53.91, -0.9)
    >>> position_in_name("SDSSJ120000.00-003000.0")
    (180.0, -0.5)
    """
    found = _IAU.search(name)
    if found:
        h, m, s, sign, d, dm, ds = found.groups()
        ra = 15 * (int(h) + int(m) / 60 + float(s) / 3600)
        dec = (int(d) + int(dm) / 60 + float(ds) / 3600) * (-1 if sign == "-" else 1)
        return (ra, dec) if ra < 360 and abs(dec) <= 90 else None
    for pattern in _POSITIONS:
        match = pattern.search(name)
        if match:
            ra, dec = float(match[1]), float(match[2])
            if 0 <= ra < 360 and abs(dec) <= 90:
                return ra, dec
    return None
