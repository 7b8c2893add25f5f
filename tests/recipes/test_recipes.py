"""Every recipe, at its tiny size, from data to result; and what its limit and its hash promise."""

import json
import shutil

import numpy as np
import pytest
import torch

import deepsky
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
    test = (
        recipe.find("morphology-real")
        .survey("tiny", next((recipe.cache() / "recipes").glob("morphology-real-tiny-*")))
        .fold("test")
    )
    assert result.ours["accuracy"].n == int(np.isfinite(test.column("T").astype(float)).sum()) < len(test)
    for who in ("5-fold", "5-fold, classical"):  # every galaxy that has a type answered by a model that never saw it
        assert result.further[who]["accuracy"].n > 4 * result.ours["accuracy"].n
    assert result.further["5-fold, classical"]["accuracy"].value > 0.7


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_trained_on_a_simulation_and_judged_on_real_sky(shared_data, tmp_path, monkeypatch):
    pytest.importorskip("sep", reason="sep finds the galaxies of the frame")
    monkeypatch.setenv("DEEPSKY_DATA", str(shared_data))
    result = recipe.run("lens-real-sky", size="tiny", to=tmp_path, quiet=True)
    held(result, tmp_path)
    checks = json.loads((tmp_path / "report.json").read_text())["checks"]
    assert checks["simulated or real"]["words"] == "judged on real data, trained on a simulation"
    assert checks["looks like the training sample"]["mark"]  # the shift is there, and the report shows it
    assert "p < 0.001" in checks["outside the training domain"]["words"]
    groups = checks["independent groups"]["groups"]
    assert groups > 80 and result.ours["AUROC"].n == 2 * groups == result.provenance["objects"]["test"]
    assert 0.99 < result.limit["AUROC"].value <= 1
    with_sky, at_home = reversed(result.further.values())
    assert with_sky["AUROC"].n == 2 * groups and at_home["AUROC"].n != 2 * groups
    place = next((recipe.cache() / "recipes").glob("lens-real-sky-tiny-*"))
    for half in (0, 1):  # no galaxy, and no pixel of one, stands on both sides
        from deepsky.recipes import lens_real_sky as real
        from deepsky.survey import Survey

        galaxies = real.only(Survey.load(place / "cutouts"), "galaxy")
        learnt = Survey.load(place / f"mixed-{half}").column("galaxy")
        learnt = np.unique(learnt[learnt < 1_000_000]).astype(int)
        judged = np.flatnonzero(real.halves(galaxies) == half)
        judged = judged[np.isin(judged, Survey.load(place / "real").column("galaxy"))]
        x, y = galaxies.column("x"), galaxies.column("y")
        apart = np.maximum(np.abs(x[learnt, None] - x[judged]), np.abs(y[learnt, None] - y[judged]))
        assert len(learnt) > 20 and len(judged) > 20 and apart.min() >= real.PIXELS


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
    from deepsky.simulators._limits import detection_auroc

    assert abs(auroc(ratio, lens) - detection_auroc(np.array([2.0]))) < 0.005


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


MINE = '''"""A recipe that is trained on one survey and judged on another."""
from tests import made_up
from deepsky import store, tasks, training
from deepsky.inference import predict
from deepsky.metrics import classification
from deepsky.metrics.intervals import bootstrap
from deepsky.recipe import Measure, Recipe
from deepsky.survey import Survey

TASK, AUROC = tasks.Classify("shape"), Measure("AUROC", classification.auroc, "higher", "area under the ROC curve")

def made(place, sample):  # what was made is found the next time
    return Survey.load(place) if place.exists() else store.write([sample], place, name="blobs")

def here(size, folder):
    return made(folder / "here", made_up.blobs(600, size=16))

def there(size, folder):
    return made(folder / "there", made_up.blobs(280, first=10_000, size=16, seed=5))

def classical(judged, size):
    assert judged.path.name == "there"
    return predict(training.train(TASK, Survey.load(judged.path.parent / "here"), network="constant"), judged)

def at_home(model, judged, size, folder):
    home = Survey.load(judged.path.parent / "here")
    return predict(model, home.fold("test"), quiet=True), home

def constant_at_home(model, judged, size, folder):
    home = Survey.load(judged.path.parent / "here")
    return predict(training.train(TASK, home, network="constant"), home.fold("test")), home

def again(model, judged, size, folder):
    return predict(model, judged, quiet=True), judged

RECIPE = Recipe(
    name="mine", question="?", data="blobs", real=False, task=TASK, survey=here, judged=there,
    training={s: {"network": "mlp", "settings": {"hidden": (8,)}, "steps": 30, "baseline": None} for s in ("tiny",)},
    measures=(AUROC,), scores=lambda c, s: c.column("p_round"), truth=lambda s: (s.column("shape") == "round") * 1,
    classical=classical, classical_name="none", limit=lambda s, size: {}, limit_name="none",
    further={"at home": at_home, "at home, classical": constant_at_home, "again": again},
)
'''


def test_what_is_judged_may_be_another_survey_than_what_is_learnt(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    result = recipe.run(str(tmp_path / "mine.py"), size="tiny", to=tmp_path / "run", quiet=True)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert result.provenance["objects"]["train"] > 300 > 100 > result.provenance["objects"]["test"] == report["objects"]
    assert report["checks"]["trained on"]["words"].startswith("no judged object was trained")
    assert "valid" in report["checks"]["looks like the training sample"]["words"]
    again, home = result.further["again"]["AUROC"], result.further["at home"]["AUROC"]
    assert again.value == result.ours["AUROC"].value and home.n > again.n
    assert result.further_paired["again"]["AUROC"].verdict == "equal"
    against = result.further_paired["at home"]["AUROC"]  # the constant of the same objects, not our answers elsewhere
    assert against.estimate.value == pytest.approx(home.value - 0.5) and against.estimate.n == home.n
    assert "at home, classical" not in result.further_paired
    kept = json.loads((tmp_path / "run" / "result.json").read_text())
    assert kept["further"]["at home"]["AUROC"]["value"] == home.value and "at home: AUROC" in str(result)


def test_the_models_of_an_edited_recipe_or_of_another_size_are_not_taken_for_its_own(tmp_path):
    from deepsky.errors import InputError

    mine, to = tmp_path / "mine.py", tmp_path / "run"
    text = MINE.replace("further={", "further={} and {").replace('for s in ("tiny",)', 'for s in ("tiny", "quick")')
    mine.write_text(text)
    first = recipe.run(str(mine), size="tiny", to=to, quiet=True)
    again = recipe.run(str(mine), size="tiny", to=to, quiet=True)  # its own model is not trained anew
    assert again.provenance["training_seconds"] == first.provenance["training_seconds"]
    with pytest.raises(InputError, match="another size"):
        recipe.run(str(mine), size="quick", to=to, quiet=True)
    mine.write_text(text.replace('"steps": 30', '"steps": 31'))
    with pytest.raises(InputError, match="changed since") as error:
        recipe.run(str(mine), size="tiny", to=to, quiet=True)
    assert "fix: delete the folder, or choose another: --to" in str(error.value)
    kept = recipe.key(recipe.find(str(mine)), str(mine))
    (to / "recipe.json").unlink()
    with pytest.raises(InputError, match="not noted"):
        recipe.run(str(mine), size="tiny", to=to, quiet=True)
    mine.write_text(text)
    named = to.rename(tmp_path / f"bench-mine-tiny-{recipe.key(recipe.find(str(mine)), str(mine))}")
    assert kept not in named.name
    assert (
        recipe.run(str(mine), size="tiny", to=named, quiet=True).provenance["training_seconds"]
        == (first.provenance["training_seconds"])
    )


def test_data_that_are_not_here_are_asked_for_before_anything_is_simulated(tmp_path, monkeypatch):
    from deepsky.errors import InputError
    from deepsky.recipes import lens_real_sky

    monkeypatch.setenv("DEEPSKY_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("DEEPSKY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lens_real_sky._lenses, "survey", lambda *a, **k: pytest.fail("it is simulated"))
    with pytest.raises(InputError, match="the data set is not here"):
        recipe.run("lens-real-sky", size="tiny", to=tmp_path / "run", quiet=True)


def test_an_unknown_recipe_or_size_names_the_known_ones():
    from deepsky.errors import InputError

    with pytest.raises(InputError, match="lens-ground"):
        recipe.run("lens-grund")
    with pytest.raises(InputError, match="no such size"):
        recipe.run("lens-ground", size="huge")
    with pytest.raises(InputError, match="at least one seed"):
        recipe.run("lens-ground", size="tiny", seeds=())
    assert torch.get_num_threads() == 1


def test_an_installed_package_carries_the_recorded_figures(tmp_path, monkeypatch):
    package = tmp_path / "lib" / "deepsky"
    (package / "results").mkdir(parents=True)
    (package / "results" / "lens-ground.json").write_text('{"ours": {}}')
    monkeypatch.setattr(deepsky, "__file__", str(package / "__init__.py"))
    assert recipe.recorded("lens-ground") == {"ours": {}} and recipe.recorded("lens-space") is None


def test_a_demonstration_starts_anew_after_one_of_another_size_and_removes_nothing_else(tmp_path):
    what, folder = {"recipe": "lens-ground", "size": "tiny", "key": "k"}, tmp_path / "demo"

    def left(note, *more):
        for name in ("model", "found", *more):
            (folder / name).mkdir(parents=True, exist_ok=True)
        if note is not None:
            (folder / "recipe.json").write_text(json.dumps(note))

    for note, more, gone in (
        (None, (), True), ({**what, "size": "quick"}, (), True), ({**what, "key": "old"}, (), True),
        (what, (), False), (None, ("mine",), False),
    ):  # fmt: skip
        left(note, *more)
        recipe._clear(folder, what)
        assert folder.exists() != gone
        shutil.rmtree(folder, ignore_errors=True)
    (folder / "photographs").mkdir(parents=True)
    recipe._clear(folder, what)
    assert (folder / "photographs").exists()
