"""Finding the reader of a source, and letting it look without reading pixels."""

from __future__ import annotations

import glob
import inspect
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from astropy.units import UnitBase

from deepsky import casting, registry
from deepsky.errors import InputError
from deepsky.gate import check_fits, sniff
from deepsky.gate.source import fix_for
from deepsky.source import Source
from deepsky.tables import is_path

IN_MEMORY = "arrays"


def understand(source: Any, *, reader: str | None = None, catalogue: Any = None, **options: Any) -> Source:
    """Find the reader of a source and let it look, without reading pixels.

    Raises
    ------
    InputError : nothing is there, no reader knows it, an option is not one of the reader's, or has no such value.
    """
    if isinstance(source, Source):
        if options:
            raise InputError("a source that is open takes no options", found=", ".join(options))
        return source
    if catalogue is not None:
        options["catalogue"] = catalogue
    name = reader if reader is not None else find_reader(source, options)
    module = registry.find("surveys", name)
    known = known_options(module)
    if options.get("like") is not None and "like" not in known:
        how = f"deepsky ingest SURVEY --like {shlex.quote(str(options['like']))} --to NEW"
        raise InputError("only a native survey is converted to what a model was trained on", file=_words(source),
                         found=f"a source of the reader {name!r}", expected="a folder with schema.json",
                         fix=f"deepsky ingest SOURCE --to SURVEY, then {how}")  # fmt: skip
    for option in options:
        if option not in known:
            raise InputError(f"the reader {name!r} has no such option", file=_words(source), found=option, known=known)
    made = module.open(source, **_settled(module.open, options, _words(source)))
    if not isinstance(made, Source):
        raise InputError(f"the reader {name!r} did not return a Source", found=type(made).__name__)
    return made


def _settled(call: Callable[..., Any], options: Mapping[str, Any], file: object) -> dict[str, Any]:
    """Options in the types that a reader's ``open`` gives them; a text is one word, or several with commas.

    Raises
    ------
    InputError : a value of another type, a choice that there is not, a pixel scale or size that is not positive.
    """
    kinds, out = casting.kinds(call), dict(options)
    if isinstance(out.get("unit"), UnitBase):
        out["unit"] = out["unit"].to_string()
    for name, value in out.items():
        kind = kinds.get(name, Any)
        if value is not None and kind is not Any:  # a table, which may be a path
            out[name] = (casting.read if isinstance(value, str) else casting.check)(value, kind, name, file)
    for name, least in (("pixel_scale", 0.0), ("size", 0.0), ("zero_point", -math.inf)):
        value = out.get(name)
        if value is not None and not np.all((np.asarray(value) > least) & np.isfinite(value)):
            raise InputError("an option is out of its range", file=file, keyword=name, found=options[name],
                             expected="more than 0" if least == 0 else "a number")  # fmt: skip
    return out


def known_options(module: ModuleType) -> list[str]:
    """Options of a reader's ``open``, without the source."""
    return list(inspect.signature(module.open).parameters)[1:]


def find_reader(source: Any, options: Mapping[str, Any]) -> str:
    """The name of the reader that claims a source.

    With a source table (`catalogue`) only readers that cut out of full frames are asked.

    Raises
    ------
    InputError : nothing is there, or no reader claims it.
    """
    if not is_path(source) and not is_list_of_paths(source):
        return IN_MEMORY
    first = _first(source)
    names = registry.names("surveys")
    claims = []
    for name in names:
        module = registry.find("surveys", name)
        if "catalogue" in options and "catalogue" not in known_options(module):
            continue
        if module.claims(first):
            claims.append(name)
    if not claims:
        _look_inside(first)
        lines = [f"{n} ({registry.summary('surveys', n).rstrip('.')})" for n in names]
        fix = fix_for(_kind(first), "FITS") if first.is_file() else ""
        if not fix or fix.startswith("give a"):
            fix = "name a reader: --set reader=NAME, or convert the source to one of these"
        raise InputError("no reader knows this", file=_words(source), found=_content(first), known=lines, fix=fix)
    return claims[0]


def _look_inside(path: Path) -> None:
    """Say what is wrong with a FITS file that no reader claims."""
    if not path.is_file() or not (re.search(r"\.(?:fits?|fts)(?:\.\w+)?$", path.name.lower()) or _kind(path) == "FITS"):
        return
    layout = check_fits(path)
    kinds = ", ".join(f"{h.index} {h.name or '(no name)'}: {h.kind} {h.shape or ''}".rstrip() for h in layout.hdus)
    raise InputError("no HDU of the file holds an image or a table that can be read", file=path, found=kinds,
                     expected="an image of two axes or more, a tile-compressed image, or a table",
                     fix="name it .fits" if not re.search(r"\.(?:fits?|fts)", path.name.lower()) else None)  # fmt: skip


def _kind(path: Path) -> str:
    """What a file is by its first bytes."""
    with path.open("rb") as file:
        return sniff(file.read(1024))


def is_list_of_paths(source: Any) -> bool:
    return isinstance(source, Sequence) and len(source) > 0 and all(is_path(s) for s in source)


def _first(source: Any) -> Path:
    """The path by which a source is recognised: itself, or the first file of a pattern or list."""
    if not is_path(source):
        return Path(source[0])
    path = Path(os.path.expanduser(source))
    if path.exists():
        return path
    if ":" in str(source) and not str(source).startswith("/"):  # hats:..., a scheme that a reader knows
        return Path(source)
    if glob.has_magic(str(source)):
        found = sorted(glob.glob(str(path), recursive=True))
        if found:
            return Path(found[0])
        raise InputError("no file matches", file=source)
    names = [p.name for p in islice(path.parent.iterdir(), 10_000)] if path.parent.is_dir() else []
    near = get_close_matches(path.name, names, 5) or None
    raise InputError("there is no such file or folder", file=source, found=path.name if near else None, known=near)


def _words(source: Any) -> str:
    if is_path(source):
        return str(source)
    return f"{len(source)} files" if is_list_of_paths(source) else type(source).__name__


def _content(path: Path) -> str:
    if path.is_dir():
        some = sorted(os.listdir(path))[:5]
        return f"a folder with {', '.join(some)}" if some else "an empty folder"
    return f"a file of {path.stat().st_size:,} bytes: {_kind(path)}" if path.is_file() else str(path)
