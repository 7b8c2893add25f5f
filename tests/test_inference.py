"""Predictions: one row an input, resumed to the same bytes, never mixed, honest about what was not measured."""

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests import made_up
from tests.conftest import ROOT

from deepsky import inference, store, tasks
from deepsky.card import card
from deepsky.catalogue import Catalogue
from deepsky.errors import Incomplete, InputError
from deepsky.inference import predict
from deepsky.io import lock_folder, sha256
from deepsky.model import Model
from deepsky.survey import Survey
from deepsky.training import train


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Some 260 objects in a dozen tiles."""
    return store.write([made_up.blobs(260)], tmp_path_factory.mktemp("inference") / "blobs", tile_bytes=100_000)


def trained(survey, task, path, **options):
    return train(task, survey, network="convnet", settings={"width": 4}, steps=60, batch=32, baseline=None, to=path,
                 quiet=True, **options)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Trained on three times as many round objects as long ones."""
    sample = made_up.blobs(700)
    kept = np.flatnonzero((np.arange(700) % 2 == 1) | (np.arange(700) % 6 == 0))
    folder = tmp_path_factory.mktemp("inference")
    return trained(
        store.write([sample[torch.from_numpy(kept)]], folder / "train"), tasks.Classify("shape"), folder / "model"
    )


def run(*words):
    command = [sys.executable, "-m", "tests.prediction_run", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip


def bytes_of(folder):
    return {p.name: sha256(p) for p in folder.glob("*.parquet")} | {"manifest": sha256(folder / "manifest.json")}


# -- killed and resumed -------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_killed_at_random_and_resumed_the_bytes_are_the_same(model, survey, tmp_path):
    whole = predict(model, survey, to=tmp_path / "whole", batch=7, quiet=True)
    assert len(survey.tiles) >= 8
    to, chance, kills = tmp_path / "killed", random.Random(4), 0
    for _ in range(8):
        before = len(list(to.glob("tiles/*.parquet")))
        with run("predict", model.path, survey.path, to, 0.15 if kills < 2 else 0) as process:
            if kills < 2:  # a moment after the first new tile, at random
                while process.poll() is None and len(list(to.glob("tiles/*.parquet"))) == before:
                    time.sleep(0.002)
                time.sleep(chance.uniform(0, 0.1))
                process.kill()
            words = process.communicate()[1]
        if process.returncode == 0:
            break
        assert process.returncode == -9, words
        kills += 1
        assert not (to / "manifest.json").exists()
        with pytest.raises(InputError, match="no finished catalogue"):
            Catalogue.read(to)
    assert kills == 2 and process.returncode == 0
    assert bytes_of(to) == bytes_of(tmp_path / "whole")
    assert sorted(Catalogue.read(to).column("id")) == sorted(whole.column("id"))


def test_what_is_done_is_not_done_again_and_what_is_missing_is(model, survey, tmp_path, monkeypatch):
    predict(model, survey, to=tmp_path / "c", quiet=True)
    first = bytes_of(tmp_path / "c")
    tiles = sorted((tmp_path / "c" / "tiles").glob("*.parquet"))
    stamps = {t: t.stat().st_mtime_ns for t in tiles}
    tiles[3].unlink()
    (tmp_path / "c" / "catalogue.parquet").unlink()
    (tmp_path / "c" / "tiles" / ".tmp-half").write_bytes(b"half a tile")
    made = []
    real = inference._tile
    monkeypatch.setattr(inference, "_tile", lambda *a: made.append(a[2]) or real(*a))
    predict(model, survey, to=tmp_path / "c", quiet=True)
    assert len(made) == 1 and bytes_of(tmp_path / "c") == first
    assert [t.stat().st_mtime_ns for t in tiles if t != tiles[3]] == [stamps[t] for t in tiles if t != tiles[3]]


def test_resuming_takes_the_threads_of_the_beginning_and_leaves_the_process_as_it_was(
    model, survey, tmp_path, monkeypatch
):
    predict(model, survey, to=tmp_path / "c", quiet=True)
    plan = json.loads((tmp_path / "c" / "plan.json").read_text())
    assert plan["threads"] == 1
    (tmp_path / "c" / "plan.json").write_text(json.dumps({**plan, "threads": 2}))
    next((tmp_path / "c" / "tiles").glob("*.parquet")).unlink()
    seen, real = [], inference._tile
    monkeypatch.setattr(inference, "_tile", lambda *a: seen.append(torch.get_num_threads()) or real(*a))
    predict(model, survey, to=tmp_path / "c", quiet=True)
    assert seen == [2] and torch.get_num_threads() == 1


# -- one row an input -----------------------------------------------------------------------------------------------
def test_every_input_has_exactly_one_row_in_the_order_of_the_survey(model, survey, tmp_path):
    for here in (survey, survey.fold("test"), survey.select(np.array([250, 3, 120]), "three")):
        held = predict(model, here, batch=11, quiet=True)
        written = predict(model, here, to=tmp_path / here.name, batch=11, quiet=True)
        assert sorted(held.column("id")) == sorted(here.id) and len(held) == len(here)
        assert held.names == written.names
        for name in held.names:
            np.testing.assert_array_equal(held.column(name), written.column(name), err_msg=name)
        position = {i: (r, d) for i, r, d in zip(here.id, here.column("ra"), here.column("dec"), strict=True)}
        assert all(
            position[i] == (r, d) for i, r, d in zip(*(held.column(c) for c in ("id", "ra", "dec")), strict=True)
        )


def test_batches_are_cut_from_the_first_row_of_each_tile(model, survey, monkeypatch):
    cuts, real = [], Survey.gather

    def gather(self, positions, **options):
        cuts.append(list(map(int, positions)))
        return real(self, positions, **options)

    monkeypatch.setattr(Survey, "gather", gather)
    predict(model, survey, batch=9, quiet=True)
    expected = [list(range(i, min(i + 9, t.start + t.count))) for t in survey.tiles
                for i in range(t.start, t.start + t.count, 9)]  # fmt: skip
    # the first look is at the noise of some objects of all tiles
    assert cuts[1:] == expected and any(len(c) < 9 for c in cuts[1:-1])


def test_an_empty_selection_is_an_empty_catalogue(model, survey, tmp_path):
    nothing = survey.select(np.zeros(0, np.int64), "nothing")
    assert len(predict(model, nothing, quiet=True)) == 0
    assert len(predict(model, nothing, to=tmp_path / "c", quiet=True)) == 0


# -- nothing is mixed -----------------------------------------------------------------------------------------------
def test_another_model_prior_survey_or_selection_is_not_mixed_in(model, survey, tmp_path):
    to = tmp_path / "c"
    predict(model, survey.fold("test"), to=to, quiet=True)
    before = bytes_of(to)
    other = replace(model, calibration={**model.calibration, "log_t": model.calibration["log_t"] + 1})
    same_number = survey.select(np.arange(len(survey.fold("test"))), "test")
    here = survey.fold("test")
    for changed, arguments in {
        "model": (other, here, {}),
        "prior": (model, here, {"prevalence": {"long": 0.01}}),
        "batch": (model, here, {"batch": 3}),
        "survey": (model, survey.fold("valid"), {}),
        "selection": (model, same_number, {}),
    }.items():
        with pytest.raises(InputError, match=f"a catalogue of another {changed}") as error:
            predict(*arguments[:2], to=to, quiet=True, **arguments[2])
        assert "--to" in str(error.value)
    assert bytes_of(to) == before
    changed_survey = store.write([made_up.blobs(260, seed=1)], tmp_path / "blobs", name="blobs").fold("test")
    with pytest.raises(InputError, match="a catalogue of another survey"):
        predict(model, changed_survey, to=to, quiet=True)


def test_a_call_that_made_no_tile_does_not_block_its_folder(model, survey, tmp_path, monkeypatch):
    def fails(*arguments):
        raise OSError("no memory")

    to = tmp_path / "c"
    with pytest.raises(InputError, match="batch is out of range"):
        predict(model, survey, to=to, batch=0)
    assert not to.exists()
    with monkeypatch.context() as broken, pytest.raises(OSError, match="no memory"):
        broken.setattr(inference, "_tile", fails)
        predict(model, survey, to=to, batch=4096, quiet=True)
    assert len(predict(model, survey, to=to, batch=64, quiet=True)) == len(survey)
    assert json.loads((to / "plan.json").read_text())["batch"] == 64
    with pytest.raises(InputError, match="another batch"):
        predict(model, survey, to=to, batch=32, quiet=True)


def test_a_folder_with_something_else_or_another_writer_is_refused(model, survey, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "catalogue.parquet").write_bytes(b"somebody's work")
    with pytest.raises(InputError, match="holds something else"):
        predict(model, survey, to=tmp_path / "full", quiet=True)
    assert (tmp_path / "full" / "catalogue.parquet").read_bytes() == b"somebody's work"
    with lock_folder(tmp_path / "busy"), pytest.raises(InputError, match="another process writes"):
        predict(model, survey, to=tmp_path / "busy", quiet=True)


def test_missing_and_foreign_tiles_are_named_and_work_remains(model, survey, tmp_path):
    to = tmp_path / "c"
    predict(model, survey, to=to, quiet=True)
    provenance = json.loads((to / "plan.json").read_text())
    parts = [(inference._file(to, t), survey.in_tile(t)) for t in survey.tiles]
    (to / "manifest.json").unlink()
    lost, swapped, other = (file for file, _ in parts[2:5])
    lost.unlink()
    swapped.write_bytes(other.read_bytes())
    with pytest.raises(Incomplete) as error:
        inference._finish(to, parts, survey, provenance)
    words = str(error.value)
    assert error.value.exit_code == 2
    assert f"missing: {lost.stem}" in words and f"other objects in: {swapped.stem}" in words and "same command" in words
    assert not (to / "manifest.json").exists()
    predict(model, survey, to=to, quiet=True)
    assert sorted(Catalogue.read(to).column("id")) == sorted(survey.id)


# -- what was not measured ----------------------------------------------------------------------------------------
def holes(path, blobs=24):
    """Objects: 0 whole, 1 without any measurement, 2 with one band, 3 with a corner missing."""
    sample = made_up.blobs(blobs)
    image = sample.observations["image"]
    ivar = image.ivar.expand(image.flux.shape).clone()
    ivar[1] = 0
    ivar[2, 1] = 0
    ivar[3, :, :6, :6] = 0
    return store.write([replace(sample, observations={"image": replace(image, ivar=ivar)})], path)


@pytest.mark.parametrize("question", ["classify", "regress", "multilabel"])
def test_an_object_without_a_measurement_has_no_answer_and_says_so(question, model, survey, tmp_path):
    if question == "regress":
        model = trained(survey, tasks.Regress("width"), tmp_path / "model")
    if question == "multilabel":
        long = (survey.column("shape") == "long").astype(float)
        from deepsky.schema import Column

        labels = survey.with_columns({"a": long, "b": 1 - long}, {n: Column(role="label") for n in "ab"})
        model = trained(labels, tasks.Classify(("a", "b"), multilabel=True), tmp_path / "model")
    here = holes(tmp_path / "holes")
    found = predict(model, here, quiet=True)
    order = [list(found.column("id")).index(f"blob-{i:05d}") for i in range(4)]
    flags = found.column("flags")[order]
    assert (flags & 16).tolist() == [0, 16, 0, 0] and (flags & 2).tolist() == [0, 2, 2, 0]
    for name in model.task.outputs():
        if name not in found.names:
            continue
        values, null = found._column(name)
        if values.dtype.kind == "f":
            gone = np.isnan(values).reshape(len(values), -1)
            assert gone[order[1]].all() and not np.delete(gone, order[1], 0).any(), name
        else:
            assert np.flatnonzero(null).tolist() == [order[1]], name
    assert np.isnan(found.column("in_domain")[order[1]]) and not flags[1] & 8


def test_flags_of_the_index_are_taken_over(model, survey):
    edge, saturated = np.zeros(len(survey)), np.full(len(survey), np.nan)
    edge[5], saturated[6] = 0.01, 0.001
    here = survey.with_columns({"edge": edge, "saturated": saturated}, {})
    flags = predict(model, here, quiet=True).column("flags")
    assert flags[5] & 1 and flags[6] & 4 and not (np.delete(flags, [5, 6]) & 5).any()


# -- the training domain --------------------------------------------------------------------------------------------
def test_objects_unlike_those_of_training_are_flagged_and_those_alike_are_not(model, tmp_path):
    sample = made_up.blobs(200, seed=7, first=50_000)
    image = sample.observations["image"]
    flux = image.flux.clone()
    grid = torch.arange(24.0)
    flux[:3] = 40 * ((grid[:, None] + grid) % 2)  # a chequerboard
    flux[3:6] = 30 * torch.rand(3, 2, 24, 24)
    flux[6:9] = -flux[6:9] * 30
    planted = store.write([replace(sample, observations={"image": replace(image, flux=flux)})], tmp_path / "planted")
    found = predict(model, planted, quiet=True)
    odd = np.isin(found.column("id"), [f"blob-{i:05d}" for i in range(50_000, 50_009)])
    outside = (found.column("flags") & 8) > 0
    assert outside[odd].all(), found.column("in_domain")[odd]
    assert outside[~odd].mean() < 0.01
    p, m = found.column("in_domain"), len(model.domain.reference)
    np.testing.assert_allclose(p[odd], 1 / (1 + m), rtol=1e-6)  # farther out than every held-out object
    assert abs(np.median(p[~odd]) - 0.5) < 0.2


# -- priors -----------------------------------------------------------------------------------------------------------
def test_a_stated_prevalence_gives_what_bayes_says(model, survey):
    plain = predict(model, survey, quiet=True)
    old = plain.provenance["prior"]
    assert plain.provenance["prior_from"] == "the calibration objects"
    new = {"long": 0.001, "round": 0.999}
    found = predict(model, survey, prevalence={"long": 0.001}, quiet=True)
    p, q = plain.column("p_long").astype(float), found.column("p_long").astype(float)
    odds = p / (1 - p) * (new["long"] / old["long"]) / (new["round"] / old["round"])
    np.testing.assert_allclose(q, odds / (1 + odds), rtol=2e-4, atol=1e-7)
    np.testing.assert_allclose(q + found.column("p_round"), 1, atol=1e-6)
    assert found.provenance["prior"] == pytest.approx(new) and found.provenance["prior_from"] == "prevalence as given"
    # the conformal sets were fitted under the old prior, and stay
    np.testing.assert_array_equal(found.column("in_set_long"), plain.column("in_set_long"))
    assert (found.column("class") == np.where(q > 0.5, "long", "round")).all()


@pytest.fixture(scope="module")
def other_shares(tmp_path_factory):
    """A survey in which one class is a little brighter, half of it in the training fold and a tenth in the others."""
    sample = made_up.blobs(9000, size=6, seed=5)
    image = sample.observations["image"]
    noise = torch.from_numpy(np.random.default_rng(6).normal(0, 1, tuple(image.flux.shape)).astype(np.float32))
    brighter = 0.15 * (torch.arange(9000) % 2 == 0).float()[:, None, None, None]  # even numbers are long
    faint = replace(sample, observations={"image": replace(image, flux=noise + brighter)})
    folds = np.array(["train"] * 3000 + ["valid"] * 500 + ["calib"] * 2500 + ["test"] * 3000)
    number = np.arange(9000)
    rare = (folds == "train") | (number % 2 == 1) | (number % 18 == 0)
    folder = tmp_path_factory.mktemp("shares")
    here = store.write([faint], folder / "faint")
    place = np.array([int(i.removeprefix("blob-")) for i in here.id])
    here = here.with_columns({"fold": folds[place]}, {}).select(rare[place], "rare")
    here = replace(here, whole=None, selection="")
    task = tasks.Classify("shape")
    return here, train(task, here, network="logistic", settings={"features": "pixels"}, quiet=True)


def test_the_stated_prior_is_that_of_the_objects_that_the_classes_were_shifted_to(other_shares):
    survey, model = other_shares
    share = (survey.fold("calib").column("shape") == "long").mean()
    assert dict(zip(model.task.classes, model.task.prior, strict=True))["long"] == pytest.approx(0.5, abs=0.03)
    assert share < 0.12
    found = predict(model, survey.fold("test"), quiet=True)
    assert found.provenance["prior"]["long"] == pytest.approx(share)
    assert found.provenance["prior_from"] == "the calibration objects"
    assert f"- long: {share:.4f}" in card(model) and "shares in the calibration objects" in card(model)
    plain = replace(model, calibration={})
    assert predict(plain, survey.fold("test"), quiet=True).provenance["prior_from"] == "the training fold"


@pytest.mark.parametrize("prevalence", [0.02, 0.1, 0.3, 0.6])
def test_with_a_true_prevalence_the_mean_probability_is_that_prevalence(other_shares, prevalence):
    survey, model = other_shares
    test = survey.fold("test")
    p = predict(model, test, prevalence={"long": prevalence}, quiet=True).column("p_long").astype(float)
    long = test.column("shape") == "long"
    assert p[~long].std() > 0.02  # the classes overlap: without a doubt any prior gives the right mean
    # objects of either class as often as the prevalence says
    w = np.where(long, prevalence / long.sum(), (1 - prevalence) / (~long).sum())
    rare = (survey.fold("calib").column("shape") == "long").sum() / 2  # on half of them the shift was fitted
    error = np.hypot(np.sqrt((w**2 * (p - long) ** 2).sum()), (w * p * (1 - p)).sum() / np.sqrt(rare))
    assert abs((w * p).sum() - prevalence) < 3 * error < 0.5 * prevalence


def test_classes_that_are_not_named_share_what_is_left_as_they_did():
    task = tasks.Classify("x", classes=("a", "b", "c"), prior=(0.5, 0.3, 0.2))

    def Held(task):
        return Model(task, None, None, None)

    np.testing.assert_allclose(inference._prior(Held(task), {"a": 0.1}), [0.1, 0.9 * 0.6, 0.9 * 0.4])
    np.testing.assert_allclose(inference._prior(Held(task), {"a": 0.2, "b": 0.2, "c": 0.6}), [0.2, 0.2, 0.6])
    for wrong in ({"a": 0.5, "b": 0.6}, {"a": 0.2, "b": 0.2, "c": 0.2}, {"a": 0.0}, {"a": 1.0}, {"d": 0.1}):
        with pytest.raises(InputError, match="prevalence|no such class"):
            inference._prior(Held(task), wrong)
    shifted = Model(task, None, None, None, calibration={"shares": np.array([0.2, 0.2, 0.6])})
    np.testing.assert_allclose(inference._prior(shifted, {"a": 0.1}), [0.1, 0.9 * 0.25, 0.9 * 0.75])
    labels = tasks.Classify(("a", "b"), multilabel=True, classes=("a", "b"), prior=(0.5, 0.3))
    np.testing.assert_allclose(inference._prior(Held(labels), {"a": 0.9}), [0.9, 0.3])
    with pytest.raises(InputError, match="a matter of classes"):
        inference._prior(Held(tasks.Regress("z")), {"a": 0.1})


def test_labels_that_do_not_exclude_each_other_are_corrected_one_by_one():
    task = tasks.Classify(("a", "b"), multilabel=True, classes=("a", "b"), prior=(0.5, 0.2))
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5]])
    plain = task.answer(torch.nn.Identity(), logits, {}, np.zeros(2))
    found = task.answer(torch.nn.Identity(), logits, {}, np.zeros(2), prior=np.array([0.1, 0.2]))
    p = plain["p_a"].astype(float)
    odds = p / (1 - p) * (0.1 / 0.9) / (0.5 / 0.5)
    np.testing.assert_allclose(found["p_a"], odds / (1 + odds), rtol=1e-5)
    np.testing.assert_allclose(found["p_b"], plain["p_b"], rtol=1e-6)


# -- what it costs ----------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_memory_does_not_grow_with_the_survey(tmp_path):
    found = {}
    for n in (2000, 20000):
        with run("memory", tmp_path, n) as process:
            out, words = process.communicate()
        assert process.returncode == 0, words
        found[n] = json.loads(out.splitlines()[-1])
        assert found[n]["rows"] == n and "wide" in found[n]["columns"]
    small, large = found[2000], found[20000]
    assert large["tiles"] >= 40 > 10 >= small["tiles"]
    assert pq.read_metadata(tmp_path / "catalogue-20000" / "catalogue.parquet").num_rows == 20000
    # the answers of the larger survey are 120 MB: they were not held (equal runs differ by 10 MB)
    assert large["peak"] - small["peak"] < 60e6, found
