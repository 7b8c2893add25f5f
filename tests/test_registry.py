"""The registry: names follow files, nothing is imported to be described, errors list what is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deepsky import registry
from deepsky.errors import InputError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plural folder of our own in place of the package's."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "lens_ground.py").write_text('"""Strong lenses, from the ground.\n\nMore."""\nraise RuntimeError\n')
    (folder / "stars.py").write_text("x = 1\n")
    (folder / "_shared.py").write_text('"""A shared part."""\n')
    (folder / "__init__.py").write_text("")
    (folder / "big").mkdir()
    (folder / "big" / "__init__.py").write_text('"""A folder."""\n')
    (folder / "no_package").mkdir()
    monkeypatch.setattr(registry, "_HOME", tmp_path)
    return folder


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with entry points, as pip leaves it."""
    site = tmp_path / "site"
    (site / "skyplug").mkdir(parents=True)
    (site / "skyplug" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (site / "plainplug.py").write_text('"""A plain plugin."""\nANSWER = 42\n')
    (site / "skyplug" / "deep.py").write_text('"""A deep plugin."""\n')
    info = site / "skyplug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: skyplug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[deepsky.networks]\nplain-plug = plainplug\ndeep = skyplug.deep\nnumber = plainplug:ANSWER\n"
        "[deepsky.tasks]\nclassify = plainplug\n"
    )
    monkeypatch.syspath_prepend(site)
    registry._entry_points.cache_clear()
    yield site
    registry._entry_points.cache_clear()
    sys.modules.pop("plainplug", None)


def test_names_are_the_files_without_the_shared_parts(home: Path) -> None:
    assert registry.names("recipes") == ["big", "lens-ground", "stars"]
    assert registry.names("networks") == []  # a folder that is not there holds nothing


def test_summary_is_the_first_line_and_nothing_is_imported(home: Path) -> None:
    for name in ("lens-ground", "lens_ground"):  # its file raises when it is imported
        assert registry.summary("recipes", name) == "Strong lenses, from the ground."
    assert registry.summary("recipes", "stars") == ""
    assert registry.summary("recipes", "big") == "A folder."
    (home / "stars.py").write_text("def f(:\n")
    assert registry.summary("recipes", "stars").startswith("(cannot be read: ")


def test_dashes_and_underscores_name_the_same_module() -> None:
    found = registry.find("tasks", "classify")
    assert found.__name__ == "deepsky.tasks.classify"
    assert Path(str(found.__file__)) == registry.where("tasks", "classify")


def test_an_unknown_name_lists_the_known_and_the_near(home: Path) -> None:
    for ask in (registry.find, registry.summary, registry.where):
        with pytest.raises(InputError, match="(?s)known: big, lens-ground, stars.*did you mean 'lens-ground'") as error:
            ask("recipes", "lens-grond")
        assert "found: lens-grond" in str(error.value)
    for hostile in ("../recipes/stars", "_shared", "", "__init__", "os.path"):
        with pytest.raises(InputError, match="nothing of this name"):
            registry.find("recipes", hostile)
    with pytest.raises(InputError, match="(?s)no such kind.*known: surveys, tasks"):
        registry.names("survey")


def test_a_path_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my-recipe.py"
    path.write_text('"""Mine."""\nfrom dataclasses import dataclass\n\n@dataclass\nclass A:\n    x: "int" = 3\n')
    monkeypatch.chdir(tmp_path)
    module = registry.find("recipes", "./my-recipe.py")
    assert module.A().x == 3
    assert registry.find("recipes", str(path)) is module  # the same classes, however it is named
    assert registry.summary("recipes", "./my-recipe.py") == "Mine."
    path.write_text("X = 2\n")
    assert registry.find("recipes", "./my-recipe.py").X == 2  # an edit is seen


def test_a_path_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        registry.find("recipes", str(tmp_path / "none.py"))
    bad = tmp_path / "bad.py"
    bad.write_text("x = 1\ndef f(:\n")
    with pytest.raises(InputError, match=r"bad\.py: not Python: .*line 2"):
        registry.find("recipes", str(bad))
    bad.write_text("raise KeyError('its own')\n")
    with pytest.raises(KeyError, match="its own"):  # the user's own errors come through
        registry.find("recipes", str(bad))
    assert not [name for name in sys.modules if name.startswith("deepsky_file_bad")]


def test_plugins_are_found_and_described_without_import(plugins: Path) -> None:
    assert {"plain-plug", "deep", "number"} <= set(registry.names("networks"))
    assert registry.summary("networks", "plain_plug") == "A plain plugin."
    assert registry.summary("networks", "deep") == "A deep plugin."  # its package raises when it is imported
    assert "plainplug" not in sys.modules
    assert registry.find("networks", "plain_plug").ANSWER == 42
    with pytest.raises(InputError, match="must name a module"):
        registry.find("networks", "number")


def test_a_plugin_cannot_replace_a_built_in(plugins: Path) -> None:
    assert registry.where("tasks", "classify") == Path(str(registry.__file__)).parent / "tasks" / "classify.py"


def test_two_plugins_of_one_name_are_refused(plugins: Path) -> None:
    other = plugins / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[deepsky.networks]\nplain_plug = otherplug\n")
    registry._entry_points.cache_clear()
    with pytest.raises(InputError, match="several packages offer 'plain-plug'"):
        registry.find("networks", "plain-plug")


def test_describing_every_kind_is_fast_and_takes_no_torch() -> None:
    code = (
        "import sys, time; from deepsky import registry; start = time.process_time()\n"
        "[registry.summary(k, n) for k in registry.KINDS for n in registry.names(k)]\n"
        "print(time.process_time() - start, 'torch' in sys.modules)"
    )
    seconds, torch = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert torch == "False"
    assert float(seconds) < 2  # of one processor; a tenth of it is usual


def test_the_network_of_the_guide_works_as_it_is_printed(tmp_path: Path) -> None:
    import torch

    guide = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text()
    (tmp_path / "plain.py").write_text(guide.split("```python\n")[1].split("```")[0])
    assert registry.summary("networks", str(tmp_path / "plain.py")).startswith("Plain: ")
    network = registry.find("networks", str(tmp_path / "plain.py")).build(5, (21, 17), width=8)
    features = network(torch.randn(3, 5, 21, 17))
    assert features.shape == (3, network.features) == (3, 8)
    features.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
