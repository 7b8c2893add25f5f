"""Cross-validation: no model saw the group that it predicts, in any fold of any repeat; a stopped run goes on."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests import made_up
from torch import nn

from deepsky import crossval, store, tasks
from deepsky.catalogue import Catalogue
from deepsky.crossval import crossvalidate
from deepsky.errors import Incomplete, InputError
from deepsky.evaluation import evaluate
from deepsky.model import load

SHAPE = tasks.Classify("shape")


class Memory(nn.Module):
    """A network that remembers the first pixel of whatever it is trained on: there stands the object's group."""

    features = 2

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(2, 2), set()

    def forward(self, x):
        first = x[:, :, 0, 0]
        if self.training:
            self.seen |= {round(v, 3) for v in first[:, 0].tolist()}
        return self.linear(first)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Groups of three objects, their number in the first pixel."""
    sample = made_up.blobs(240)
    image = sample.observations["image"]
    flux = image.flux.clone()
    flux[:, :, 0, 0] = torch.arange(240)[:, None] // 3 * 1.0
    made = store.write([replace(sample, observations={"image": replace(image, flux=flux)})],
                       tmp_path_factory.mktemp("crossval") / "blobs")  # fmt: skip
    number = np.array([int(i[5:]) // 3 for i in made.id], np.uint64)
    return made.with_columns({"group": pa.array(number)}, {})


def quick(survey, **options):
    given = {"network": "mlp", "settings": {"hidden": (8,)}, "steps": 4, "baseline": None, "quiet": True, "batch": 32}
    return crossvalidate(SHAPE, survey, **{**given, **options})


@pytest.mark.parametrize("k", [2, 4])
def test_no_model_saw_the_group_that_it_predicts(survey, k, monkeypatch):
    looked = []

    def watched(model, part, **options):
        memory = model.module.network.seen

        def signs(here):
            x = model.module.normalise(here.gather(slice(None)))[:, 0, 0, 0]
            return {round(v, 3) for v in x.tolist()}

        whole = part.whole
        fold, group = whole.column("fold"), whole.column("group")
        assert (fold[np.isin(group, part.column("group"))] == "test").all()  # neither to stop nor to calibrate
        assert signs(whole.fold("train")) >= memory and len(memory) > 10  # it does remember
        assert not signs(part) & memory
        looked.append(set(part.id))
        return predict(model, part, **options)

    predict = crossval.predict
    monkeypatch.setattr(crossval, "predict", watched)
    network = Memory()
    made = quick(survey, k=k, network=network, settings=None, steps=60, stretch="linear", augment="none")
    assert len(looked) == k and sorted(i for ids in looked for i in ids) == sorted(survey.id)
    assert not network.seen  # a copy was trained, each time a fresh one
    assert sorted(made.column("id")) == sorted(survey.id)
    of = dict(zip(made.column("id"), made.column("cv_fold"), strict=True))
    for number in range(80):
        assert len({of[f"blob-{i:05d}"] for i in range(3 * number, 3 * number + 3)}) == 1


def test_every_fold_begins_with_the_same_network(survey, monkeypatch):
    """A module that goes on learning from fold to fold would have seen every object by the second."""
    starts = []

    def watched(task, here, *, network, **options):
        starts.append(torch.cat([p.detach().flatten().clone() for p in network.parameters()]))
        return train(task, here, network=network, **options)

    train = crossval.train
    monkeypatch.setattr(crossval, "train", watched)
    quick(survey, k=3, network=Memory(), settings=None)
    assert len(starts) == 3 and torch.equal(starts[0], starts[1]) and torch.equal(starts[0], starts[2])


def test_repeats_give_a_row_for_each_repeat_and_other_folds(survey):
    made = quick(survey, k=3, repeats=2)
    repeat, fold, ids = (made.column(n) for n in ("cv_repeat", "cv_fold", "id"))
    assert len(made) == 2 * len(survey)
    for r in (0, 1):
        assert sorted(ids[repeat == r]) == sorted(survey.id)
    first, second = (dict(zip(ids[repeat == r], fold[repeat == r], strict=True)) for r in (0, 1))
    assert 0.4 < np.mean([first[i] != second[i] for i in survey.id]) < 0.95
    assert made.provenance["repeats"] == 2 and len(made.provenance["models"]) == 6


def test_a_selection_is_cross_validated_as_it_is_and_not_widened(survey):
    half = survey.select(np.arange(0, 120), "half")
    made = quick(half, k=3)
    assert sorted(made.column("id")) == sorted(half.id) and made.provenance["objects"] == 120
    trained_on = quick(survey.fold("train"), k=3)
    assert sorted(trained_on.column("id")) == sorted(survey.fold("train").id)


def test_a_stopped_run_goes_on_and_ends_the_same(survey, tmp_path, monkeypatch):
    whole = quick(survey, k=3, to=tmp_path / "whole")
    calls, real = [], crossval.train

    def stopping(*arguments, **options):
        calls.append(options["to"].name)
        if len(calls) == 2:
            raise Incomplete("stopped by SIGTERM")
        return real(*arguments, **options)

    monkeypatch.setattr(crossval, "train", stopping)
    with pytest.raises(Incomplete):
        quick(survey, k=3, to=tmp_path / "stopped")
    with pytest.raises(InputError, match="no finished catalogue"):
        Catalogue.read(tmp_path / "stopped")
    made = quick(survey, k=3, to=tmp_path / "stopped")
    assert calls == ["fold-0", "fold-1", "fold-1", "fold-2"]
    for name in whole.names:
        np.testing.assert_array_equal(whole.column(name), made.column(name), err_msg=name)
    assert load(tmp_path / "stopped" / "fold-2").hash == made.provenance["models"][2]
    assert Catalogue.read(tmp_path / "stopped").provenance == whole.provenance


def test_a_users_network_is_resumed_too(survey, tmp_path):
    first = quick(survey, k=2, network=Memory(), settings=None, to=tmp_path / "c")
    (tmp_path / "c" / "manifest.json").unlink()
    again = quick(survey, k=2, network=Memory(), settings=None, to=tmp_path / "c")
    assert first.provenance["models"] == again.provenance["models"]


@pytest.mark.parametrize("changes", [{"k": 4}, {"seed": 5}, {"steps": 5}, {"repeats": 2}, {"network": "convnet"}])
def test_folds_of_another_call_are_never_mixed_in(survey, tmp_path_factory, changes):
    folder = tmp_path_factory.getbasetemp() / "one-crossval"
    if not folder.exists():
        quick(survey, k=3, to=folder)
    with pytest.raises(InputError, match="holds another cross-validation") as error:
        quick(survey, **{"k": 3, "to": folder, **changes})
    assert error.value.keyword in changes and "another folder" in str(error.value)


def test_another_selection_of_the_survey_or_a_full_folder_is_refused(survey, tmp_path):
    quick(survey, k=2, to=tmp_path / "c")
    other = {"labels": survey.with_columns({"shape": survey.index["shape"].take(np.arange(len(survey))[::-1])}, {}),
             "objects": survey.select(np.arange(200), "some"),
             "split": survey.with_columns({"group": pa.array(survey.column("group") // np.uint64(2))}, {})}  # fmt: skip
    for differs, now in other.items():
        with pytest.raises(InputError, match=f"keyword {differs}: the folder holds another cross-validation"):
            quick(now, k=2, to=tmp_path / "c")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("...")
    with pytest.raises(InputError, match="holds something else"):
        quick(survey, k=2, to=tmp_path / "thesis")


def test_too_few_folds_or_groups_are_refused(survey):
    for wrong in ({"k": 1}, {"k": 3, "repeats": 0}):
        with pytest.raises(InputError, match="two folds or more"):
            quick(survey, **wrong)
    one = survey.with_columns({"group": pa.array(np.arange(len(survey), dtype=np.uint64) % 3)}, {})
    with pytest.raises(InputError, match="as many groups as folds"):
        quick(one, k=5)


def test_few_groups_still_leave_objects_to_stop_by(survey):
    number = np.array([int(i[5:]) for i in survey.id], np.uint64)
    few = survey.with_columns({"group": pa.array(number // 2 % 4)}, {})
    numbers = crossval.groups.kfold(few, 4, seed=0)
    for fold in range(4):
        here = crossval._arranged(few, numbers, fold, 4)
        counts = {n: int((here.column("fold") == n).sum()) for n in ("train", "valid", "test")}
        assert min(counts.values()) > 0, counts
        groups = {n: set(here.fold(n).column("group")) for n in set(here.column("fold"))}
        assert sum(map(len, groups.values())) == len(set().union(*groups.values()))  # no group in two folds


def test_a_class_that_a_fold_never_saw_is_unknown_there(survey):
    """Four objects of a third class in two groups: some training folds do not hold them."""
    words = survey.column("shape").copy()
    words[[i for i, name in enumerate(survey.id) if name in {"blob-00000", "blob-00001", "blob-00003"}]] = "odd"
    column = replace(survey.schema.columns["shape"], classes=("long", "odd", "round"))
    made = quick(survey.with_columns({"shape": words}, {"shape": column}), k=2)
    assert "p_odd" in made.names and len(made) == len(survey)
    p = np.stack([made.column(f"p_{c}") for c in ("long", "odd", "round")])
    np.testing.assert_allclose(np.nansum(p, 0), 1, atol=1e-5)


def test_the_classical_baselines_answer_out_of_fold_too_and_both_are_judged(survey, tmp_path):
    made = quick(survey, k=2, baseline="logistic", to=tmp_path / "c")
    classical = Catalogue.read(tmp_path / "c" / "classical.parquet")
    assert sorted(classical.column("id")) == sorted(survey.id) and classical.provenance["network"] == "logistic"
    report = evaluate(made, survey, task=SHAPE, classical=classical, replicates=20)
    assert {"ours", "classical", "constant"} <= set(report.questions["shape"].figures)
    assert made.provenance["prior"] == pytest.approx({"long": 0.5, "round": 0.5}, abs=0.06)
    assert json.loads((tmp_path / "c" / "manifest.json").read_text())["rows"] == len(survey)


def test_sets_of_a_fold_that_was_not_calibrated_are_not_taken_for_empty(survey):
    """Half a column of conformal sets would read as sets that hold nothing."""
    few = survey.select(np.arange(70), "few")
    number = np.arange(70, dtype=np.uint64)
    few = few.with_columns({"group": pa.array(number)}, {})
    made = quick(few, k=2)
    counts = [(made.column("cv_fold") == f).sum() for f in (0, 1)]
    assert sum(counts) == 70 and not any(n.startswith("in_set_") for n in made.names)
    assert not np.isnan(made.column("p_long")).any()
    calibrated = quick(survey, k=4)
    assert "in_set_long" in calibrated.names
    assert not calibrated._column("in_set_long")[1].any()
