"""Finds a thing by its file name: one file in a plural folder is one instance, and there is no list to edit.

The first line of a file's docstring describes it. A file whose name begins with an underscore is a shared part. Other
packages add to a kind by an entry point in the group ``deepsky.KIND``; a path to a ``.py`` file is a name too.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from types import ModuleType

from deepsky.errors import InputError

KINDS = ("surveys", "tasks", "networks", "metrics", "simulators", "recipes", "baselines", "augment")
_HOME = Path(__file__).parent


def names(kind: str) -> list[str]:
    """All names of a kind, sorted: ``lens-ground`` is the file ``lens_ground.py``.

    Raises
    ------
    InputError : no such kind.
    """
    return sorted({*_files(kind), *_plugins(kind)})


def find(kind: str, name: str) -> ModuleType:
    """Import the module called `name`, with dashes or underscores, or the file at the path `name` (``./mine.py``).

    Raises
    ------
    InputError : no such name or file (the known names are listed), or a file that is not Python.
    """
    if name.endswith(".py"):
        return _load(where(kind, name))
    plain = _dashed(name)
    if plain in _files(kind):
        return importlib.import_module(f"deepsky.{kind}.{plain.replace('-', '_')}")
    module = _plugin(kind, name).load()
    if not isinstance(module, ModuleType):
        raise InputError(f"a plugin of deepsky.{kind} must name a module", found=_plugin(kind, name).value)
    return module


def summary(kind: str, name: str) -> str:
    """The first line of a module's docstring, read without importing it; "" if there is none.

    Raises
    ------
    InputError : no such kind or name.
    """
    try:
        text = ast.get_docstring(ast.parse(where(kind, name).read_bytes())) or ""
    except (OSError, SyntaxError, ValueError) as error:
        return f"(cannot be read: {error})"
    return text.partition("\n")[0].strip()


def where(kind: str, name: str) -> Path:
    """The file that `find` would import.

    Raises
    ------
    InputError : no such kind, name or file.
    """
    if name.endswith(".py"):
        _check(kind)
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise InputError("no such file", file=name, known=names(kind))
        return path
    return _files(kind).get(_dashed(name)) or _locate(_plugin(kind, name))


# -- files of this package ------------------------------------------------------------------------------------
def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise InputError("no such kind", found=kind, known=KINDS)


def _files(kind: str) -> dict[str, Path]:
    _check(kind)
    folder = _HOME / kind
    found = [*folder.glob("*.py"), *(p.parent for p in folder.glob("*/__init__.py"))]
    return {_dashed(p.stem): p if p.suffix else p / "__init__.py" for p in found if not p.name.startswith("_")}


# -- a file of the user's -------------------------------------------------------------------------------------
def _load(path: Path) -> ModuleType:
    # The name follows path and content: loading twice gives the same classes, an edited file gives new ones.
    digest = hashlib.blake2b(str(path).encode() + b"\0" + path.read_bytes(), digest_size=6).hexdigest()
    name = f"deepsky_file_{path.stem}_{digest}".replace("-", "_")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError("not a Python file", file=path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, SyntaxError):
            raise InputError(f"not Python: {error.msg}, line {error.lineno}", file=path) from error
        raise
    return module


# -- plugins --------------------------------------------------------------------------------------------------
@cache  # it reads the metadata of every installed package
def _entry_points(kind: str) -> EntryPoints:
    return entry_points(group=f"deepsky.{kind}")


def _plugins(kind: str) -> dict[str, list[EntryPoint]]:
    own, found = _files(kind), dict[str, list[EntryPoint]]()
    for plugin in _entry_points(kind):
        if _dashed(plugin.name) not in own:  # a plugin cannot take the place of a built-in
            found.setdefault(_dashed(plugin.name), []).append(plugin)
    return found


def _plugin(kind: str, name: str) -> EntryPoint:
    plugins = _plugins(kind).get(_dashed(name), [])
    if not plugins:
        raise InputError(f"nothing of this name among the {kind}", found=name, known=names(kind))
    if len({plugin.value for plugin in plugins}) > 1:
        raise InputError(f"several packages offer {name!r} among the {kind}",
                         found=", ".join(plugin.value for plugin in plugins), fix="uninstall all but one")  # fmt: skip
    return plugins[0]


def _locate(plugin: EntryPoint) -> Path:
    # find_spec would import the packages above a dotted name, so only its first part is asked for
    top, *parts = plugin.module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise InputError(f"the plugin {plugin.name!r} names a module that is not installed", found=plugin.module)
    path = Path(spec.origin)
    for part in parts:
        path = path.parent / part
        path = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    return path
