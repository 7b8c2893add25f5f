"""The shape of the project: small files, imports that only point down, nothing heavy at import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

import deepsky
from deepsky import registry

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "deepsky"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(p.relative_to(SOURCE)) for p in FILES]
each_file = pytest.mark.parametrize("path", FILES, ids=NAMES)


def _nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))


def _body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines below signature and docstring: long lists of arguments and their description make nothing hard to read."""
    first = function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0]
    return (function.end_lineno or 0) - first.lineno + 1


@each_file
def test_files_and_functions_are_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, "a file holds one thing: split it"
    functions = [n for n in _nodes(path) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert not [f"{f.name} ({_body(f)} lines)" for f in functions if _body(f) > 80]


def test_every_folder_is_a_package() -> None:
    """Without ``__init__.py`` the checks of imports and types pass over a folder in silence."""
    assert not sorted({str(p.parent.relative_to(SOURCE)) for p in FILES if not (p.parent / "__init__.py").exists()})


@each_file
def test_every_module_says_what_it_is(path: Path) -> None:
    """The first line of the docstring, which `deepsky list` prints."""
    if path.name.startswith("_") and path.name != "__init__.py" and path.parent != SOURCE:
        return  # shared parts may be silent
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not tree.body:
        return  # an empty __init__.py
    line = (ast.get_docstring(tree) or "").partition("\n")[0]
    assert len(line.strip()) >= 10, "begin the file with a docstring whose first line describes it"


def test_the_registry_describes_everything() -> None:
    for kind in registry.KINDS:
        for name in registry.names(kind):
            assert registry.summary(kind, name), f"{kind}/{name} has no description"


@each_file
def test_a_thing_is_tested_by_type_and_not_by_attribute(path: Path) -> None:
    calls = [n for n in _nodes(path) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    assert not [f"line {c.lineno}" for c in calls if isinstance(c.func, ast.Name) and c.func.id == "hasattr"]


@each_file
def test_astropys_file_formats_have_two_homes(path: Path) -> None:
    """Formats are settled at the door: readers in ``surveys/``, the writer in ``catalogue.py``."""
    place = path.relative_to(SOURCE).as_posix()
    if place.startswith("surveys/") or place in {"catalogue.py", "gate.py"} or place.startswith("gate/"):
        return
    imported = {n.module or "" for n in _nodes(path) if isinstance(n, ast.ImportFrom)}
    imported |= {f"{n.module}.{a.name}" for n in _nodes(path) if isinstance(n, ast.ImportFrom) for a in n.names}
    imported |= {a.name for n in _nodes(path) if isinstance(n, ast.Import) for a in n.names}
    assert not [name for name in imported if name == "astropy.io" or name.startswith("astropy.io.")]


# -- imports --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("deepsky", cache_dir=None, exclude_type_checking_imports=True)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_files_of_a_plural_folder_do_not_import_each_other(graph: grimp.ImportGraph, kind: str) -> None:
    """Only shared parts (leading underscore) are imported inside a folder, and these import no public file.

    import-linter's independence contract has no way to leave out the shared parts, so it is checked here; all
    other rules of import stand in pyproject.toml.
    """
    folder = f"deepsky.{kind}"
    if folder not in graph.modules:
        pytest.skip(f"there is no folder {kind} yet")
    own = {m for m in graph.modules if m.startswith(f"{folder}.")}

    def instance(module: str) -> str:  # a file, or a folder with all that is in it
        return ".".join(module.split(".")[:3])

    broken = [
        f"{importer} -> {imported}"
        for importer in sorted(own)
        for imported in sorted(graph.find_modules_directly_imported_by(importer) & own)
        if instance(importer) != instance(imported) and not instance(imported).split(".")[-1].startswith("_")
    ]
    assert not broken


def test_importing_deepsky_is_cheap() -> None:
    heavy = ("torch", "astropy", "sklearn", "scipy", "numpy", "matplotlib", "pyarrow", "pandas")
    code = (
        "import sys, time; start = time.process_time(); import deepsky; dir(deepsky); deepsky.__version__\n"
        f"print(time.process_time() - start, *[m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *loaded = done.stdout.split()
    assert not loaded
    assert float(seconds) < 0.3  # of one processor


def test_asking_for_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        deepsky.nothing  # noqa: B018


# -- metadata -------------------------------------------------------------------------------------------------
def test_the_version_is_the_same_everywhere() -> None:
    citation = re.search(r"^version: *\"?([\w.]+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    changes = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation is not None and changes is not None
    assert deepsky.__version__ == citation[1] == changes[1]


def test_the_lock_pins_every_requirement_inside_its_range() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [s.partition("#")[0].strip() for s in (ROOT / "requirements.lock").read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if line)  # fails on anything but name==version
    locked = {canonicalize_name(name): version for name, version in pins.items()}
    extras = project["optional-dependencies"]
    free = {"hf", "timm"}  # not in `all`: not locked
    wanted = [*project["dependencies"], *(r for name in extras if name not in free for r in extras[name])]
    for line in wanted:
        requirement = Requirement(line)
        if requirement.name != "deepsky":
            version = locked.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement.name} is not in requirements.lock: make lock"
            assert requirement.specifier.contains(version, prereleases=True), f"{line}: the lock has {version}"
    assert "+" not in locked["torch"], "a local build of torch cannot be installed elsewhere"


def test_nothing_that_is_imported_is_missing_from_the_requirements() -> None:
    """`pip install .` gives a working core: whatever a module imports at its top is a required dependency."""
    provided = {"sklearn": "scikit-learn", "PIL": "pillow", "lightning_fabric": "lightning-fabric"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {re.split(r"[<>=!~\[; ]", line)[0].lower() for line in project["dependencies"]}
    missing = set()
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in (n.split(".")[0] for n in names):
                package = provided.get(name, name.replace("_", "-")).lower()
                if name not in sys.stdlib_module_names | {"deepsky"} and package not in required:
                    missing.add(f"{path.relative_to(SOURCE)}: {name}")
    assert not missing, "import optional packages inside the function, with errors.need(module, extra)"


# -- the tests themselves -------------------------------------------------------------------------------------
def test_tests_run_on_one_thread() -> None:
    import torch

    assert torch.get_num_threads() == 1


def test_a_test_that_changes_the_process_fails(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(
        "import os, numpy as np, torch\n"
        "def test_innocent(): torch.ones(1)\n"
        "def test_dtype(): torch.set_default_dtype(torch.float64)\n"
        "def test_threads(): torch.set_num_threads(2)\n"
        "def test_gradients(): torch.set_grad_enabled(False)\n"
        "def test_numpy(): np.seterr(all='raise')\n"
        "def test_folder(tmp_path): os.chdir(tmp_path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(tmp_path),
         "-c", "/dev/null", str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert "6 passed, 5 errors" in done.stdout, done.stdout
    assert "default dtype: torch.float32 -> torch.float64" in done.stdout
