"""Every recipe, at its tiny size, from data to result; and what its limit and its hash promise."""

import json

import numpy as np
import pytest
import torch

from deepsky import recipe, registry
from deepsky.recipes import _lenses

ALL = registry.names("recipes")
RUN = ("ellipticity", "lens-lsst")  # the other lens recipes are the same code; `deepsky demo` runs one of them


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    import os

    before = os.environ.get("DEEPSKY_CACHE")
    os.environ["DEEPSKY_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["DEEPSKY_CACHE"]
    else:
        os.environ["DEEPSKY_CACHE"] = before


def held(result, folder):
    """What every result must have."""
    assert set(result.ours) == set(result.classical) == set(result.paired) != set()
    assert all(np.isfinite(e.value) for e in result.ours.values())
    kept = json.loads((folder / "result.json").read_text())
    assert kept["provenance"]["key"] == recipe.key(recipe.find(result.recipe)) and kept["provenance"]["fold"] == "test"
    assert (folder / "report.html").stat().st_size > 10_000 and (folder / "catalogue" / "manifest.json").exists()
    words = str(result)
    assert "a first look, not the figure that counts" in words
    assert ("simulation" in words) != result.real


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_a_simulated_recipe_runs_from_sky_to_result(name, tmp_path):
    result = recipe.run(name, size="tiny", to=tmp_path, quiet=True)
    held(result, tmp_path)
    assert set(result.limit) & set(result.ours)
    for measure, given in result.published.items():
        assert not given["same_data"], measure
        assert f"[{given['value']:g}]" in str(result) or measure not in result.ours


@pytest.mark.slow
def test_morphology_on_real_images(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSKY_DATA", str(shared_data))
    result = recipe.run("morphology-real", size="tiny", to=tmp_path, quiet=True)
    held(result, tmp_path)
    assert result.classical["accuracy"].value > 0.7 and 0.7 < result.limit["accuracy"].value <= 1


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_is_whole(name):
    found = recipe.find(name)
    assert found.name == name and set(found.training) == set(recipe.SIZES)
    measures = {m.name for m in found.measures}
    assert {p.measure for p in found.published} <= measures
    assert all(m.better in {"higher", "lower", "zero"} and m.definition for m in found.measures)
    assert registry.summary("recipes", name)


def test_the_lens_limit_is_the_closed_form(tmp_path):
    class Sky:
        def column(self, name):
            return {
                "snr_arc": np.where(np.arange(40_000) % 2, 2.0, 0.0),
                "is_lens": np.where(np.arange(40_000) % 2, "lens", "other"),
            }[name]

    ratio, lens = _lenses.limit_scores(Sky())
    from deepsky.metrics.classification import auroc

    assert abs(auroc(ratio, lens) - _lenses.expected_auroc(np.array([2.0]))) < 0.005


def test_a_key_follows_the_files_that_make_a_result(monkeypatch, tmp_path):
    found = recipe.find("lens-lsst")
    assert recipe.key(found) == recipe.key(found) != recipe.key(recipe.find("lens-ground"))
    from dataclasses import replace

    assert recipe.key(replace(found, sources=(*found.sources, "normalise"))) != recipe.key(found)


def test_a_key_follows_code_and_nothing_else(tmp_path):
    first, second, third = (tmp_path / f"{n}.py" for n in "abc")
    first.write_text('"""Doc."""\n\nX = "# no comment"  # a comment\n\ndef f():\n    """More."""\n    return X\n')
    second.write_text('"""Other\n\nwords."""\nX = "# no comment"\ndef f():\n    # why\n    return X\n')
    third.write_text('X = "# a comment"\ndef f():\n    return X\n')
    assert recipe.code_of(first) == recipe.code_of(second) != recipe.code_of(third)


def test_an_unknown_recipe_or_size_names_the_known_ones():
    from deepsky.errors import InputError

    with pytest.raises(InputError, match="lens-ground"):
        recipe.run("lens-grund")
    with pytest.raises(InputError, match="no such size"):
        recipe.run("lens-ground", size="huge")
    assert torch.get_num_threads() == 1
