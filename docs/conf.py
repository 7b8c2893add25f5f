"""Sphinx settings. The pages of the reference are made from the tree of modules, so that no list needs an edit."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import deepsky
from deepsky import registry

HERE = Path(__file__).parent
SOURCE = Path(deepsky.__file__).parent

project = "deepsky"
author = "the deepsky developers"
project_copyright = "2026, the deepsky developers"
version = release = deepsky.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"deepsky {release}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["style.css"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
default_role = "code"  # `name` in a docstring is code
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
# a name that a package passes on is described where it is defined, and only there
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
suppress_warnings = ["ref.python"]  # names that two modules share (Source, Column): the link goes to one of them


# -- pages of the reference -----------------------------------------------------------------------------------
def _modules() -> dict[str, list[str]]:
    """Public modules by page: a file has a page, a folder with all its files has one."""
    pages: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts and not any(part.startswith("_") for part in parts):
            pages.setdefault(parts[0], []).append(".".join(("deepsky", *parts)))
    return pages


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _write(path: Path, lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:  # unchanged pages are not built again
        path.write_text(text, encoding="utf-8")


def _make_reference() -> None:
    folder = HERE / "api"
    folder.mkdir(exist_ok=True)
    pages = _modules()
    for page, modules in pages.items():
        lines = [f"# deepsky.{page}", ""]
        for module in sorted(modules):
            lines += [f"## {module}", ""] if len(modules) > 1 else []
            lines += ["```{eval-rst}", f".. automodule:: {module}", "```", ""]
        _write(folder / f"{page}.md", lines)
    for old in folder.glob("*.md"):
        if old.stem not in pages and old.stem != "names":
            old.unlink()
    lines = ["| kind | name | what it is |", "|---|---|---|"]
    for kind in registry.KINDS:
        for name in registry.names(kind):
            lines.append(f"| {kind} | `{name}` | {registry.summary(kind, name).replace('|', chr(92) + '|')} |")
    public = ["| name | module | what the module is |", "|---|---|---|"]
    for name, module in deepsky._CONTENTS.items():
        stem = module.partition(".")[2]
        path = SOURCE / f"{stem}.py"
        path = path if path.is_file() else SOURCE / stem / "__init__.py"
        if path.is_file():
            public.append(f"| `ds.{name}` | [`{module}`](api/{stem}.md) | {_first_line(path)} |")
    _write(HERE / "api" / "names.txt", lines)
    _write(HERE / "api" / "public.txt", public)


# -- docstrings -----------------------------------------------------------------------------------------------
_FIELDS = {"Parameters", "Attributes", "Raises", "Returns", "Yields", "Other Parameters", "Warns", "Warnings"}
_CODE = re.compile(r"(``.+?``|`[^`]+`)")


def _spread(lines: list[str]) -> list[str]:
    """``name : text`` on one line, as the docstrings here have it, to numpydoc's two lines (types are annotations)."""
    out: list[str] = []
    inside = False
    for number, line in enumerate(lines):
        below = lines[number + 1] if number + 1 < len(lines) else ""
        if line and set(below) == {"-"}:
            inside = line.strip() in _FIELDS
        field = re.match(r"(\S.*?) : (.+)$", line) if inside else None
        out += [field[1], f"    {field[2]}"] if field else [line]
    return out


def _drawn(lines: list[str]) -> list[str]:
    """An indented block that nothing introduces is a drawing or an example, and is left as it stands."""
    out: list[str] = []
    for number, line in enumerate(lines):
        above = next((text for text in reversed(lines[:number]) if text.strip()), "")
        begins = line.startswith("    ") and number > 0 and not lines[number - 1].strip()
        introduced = above.startswith((" ", "- ", "..")) or above.rstrip().endswith("::")
        if begins and above and not introduced:
            out += ["::", ""]
        out.append(line)
    return out


def _plain(lines: list[str]) -> list[str]:
    """Signs that mean something to reStructuredText and nothing to us (``|e|``, ``*``, ``fit_``) are left as signs."""
    out: list[str] = []
    literal: int | None = None  # the indent of the line that ended in "::"
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        if literal is None and not line.lstrip().startswith((">>>", "..", "...")) and set(line) != {"-"}:
            parts = _CODE.split(line)
            parts[::2] = [re.sub(r"(?<!\\)([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
            line = "".join(parts)
            if line.rstrip().endswith("::"):
                literal = indent
        out.append(line)
    return out


def _clean(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = _plain(_drawn(_spread(lines)))


def setup(app: object) -> None:
    """Called by Sphinx."""
    _make_reference()
    app.connect("autodoc-process-docstring", _clean, priority=100)  # before napoleon, which is at 500
