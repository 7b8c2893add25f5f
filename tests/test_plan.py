"""Plans, runs as files, checkpoints: what was decided is kept, compared, repeated, and refused when altered."""

import json
import signal
import threading
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from tests import made_up
from torch import nn

from deepsky import checkpoint, costs, plan, registry, tasks
from deepsky.errors import InputError, TrainingError
from deepsky.io import read_json, write_json
from deepsky.model import load
from deepsky.plan import Run
from deepsky.repeating import repeat
from deepsky.training import train

SHAPE = tasks.Classify("shape")


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return made_up.survey(tmp_path_factory.mktemp("plan") / "blobs", n=260)


def quick(survey, **options):
    given = {"network": "mlp", "settings": {"hidden": (8,)}, "steps": 6, "batch": 32, "baseline": None}
    return train(options.pop("task", SHAPE), survey, **{**given, **options}, quiet=True)


SETTINGS = {
    "seed": 0, "batch": 32, "optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.0, "momentum": 0.9, "l1": 0.0,
    "l2": 0.0, "schedule": "cosine", "warmup": 0.0, "ema": 0.0, "clip": 1.0, "patience": 0, "augment": "",
    "balance": False, "level": 0.9,
}  # fmt: skip


# -- memory ----------------------------------------------------------------------------------------------------------
class Wide(nn.Module):
    """Keeps a known number of bytes for each object: 50 maps of 100 x 100 float32 from one convolution."""

    features = 50

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 50, 1)

    def forward(self, x):
        return self.conv(nn.functional.interpolate(x, 100)).mean((2, 3))


def module_of(survey, network):
    from deepsky import normalise

    sample = survey.gather(slice(0, 32))
    return SHAPE.bind(survey).module(normalise.fit([sample], "image"), network), sample


def test_the_estimate_counts_what_layers_hand_on_and_four_times_the_weights(survey):
    module, sample = module_of(survey, Wide())
    weights = sum(p.numel() for p in module.parameters()) * 4
    one = costs.memory_needed(module, sample, 1)
    assert one == pytest.approx(4 * weights + 2 * 50 * 100 * 100 * 4, rel=0.05)
    assert costs.memory_needed(module, sample, 64) - 4 * weights == pytest.approx(64 * (one - 4 * weights), rel=1e-6)
    assert module.training


def test_what_does_not_fit_is_refused_with_a_batch_that_does(survey, monkeypatch):
    module, sample = module_of(survey, Wide())
    needed = costs.memory_needed(module, sample, 64)
    monkeypatch.setattr(costs, "memory_available", lambda: needed // 2)
    with pytest.raises(TrainingError, match=r"GB are free") as error:
        costs.check_memory(module, sample, 64)
    batch = int(str(error.value).split("--batch ")[1])
    assert 16 < batch < 32 and costs.check_memory(module, sample, batch) < needed / 2
    monkeypatch.setattr(costs, "memory_available", lambda: 1000)
    with pytest.raises(TrainingError, match="a smaller network or smaller images"):
        costs.check_memory(module, sample, 64)


def test_memory_that_is_free_is_told_by_the_system():
    import psutil

    free = costs.memory_available()
    assert 0 < free <= psutil.virtual_memory().total
    assert free == pytest.approx(psutil.virtual_memory().available, rel=0.3) or free < psutil.virtual_memory().available


# -- precision -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("flags", "expected"), [
    ({"avx512f", "avx2"}, "float32"), ({"avx512_bf16"}, "bfloat16"), ({"amx_bf16", "avx2"}, "bfloat16"),
    (set(), "float32"),
])  # fmt: skip
def test_precision_follows_the_processors_flags(flags, expected, monkeypatch):
    monkeypatch.setattr(plan, "processor_flags", lambda: flags)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert plan.precision("auto", image=True) == expected
    assert plan.precision("auto", image=False) == "float32"  # rows gain nothing
    assert plan.precision("bf16", image=False) == "bfloat16" and plan.precision("32", image=True) == "float32"
    with pytest.raises(InputError, match="no such precision"):
        plan.precision("float16", image=True)


def test_flags_are_whole_words():
    assert "avx512_bf16x" not in plan.processor_flags() or "avx512_bf16" not in plan.processor_flags()
    assert isinstance(plan.processor_flags(), set)


def test_a_precision_is_kept_in_the_contract_and_used_for_the_answers(survey):
    model = quick(survey, network="convnet", settings={"width": 4}, precision="bfloat16")
    assert model.contract.dtype == "bfloat16"
    sample = survey.gather(slice(0, 16))
    low, _ = model.outputs(sample)
    high, _ = replace(model, contract=replace(model.contract, dtype="float32")).outputs(sample)
    assert not torch.equal(low, high) and low.dtype == torch.float32
    torch.testing.assert_close(low, high, rtol=0.1, atol=0.1)


# -- settings --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("wrong", [
    {"batch": 0}, {"lr": -1.0}, {"ema": 1.5}, {"level": 1.0}, {"warmup": 2.0}, {"patience": -1}, {"schedule": "step"},
    {"optimiser": "lion"}, {"l1": float("nan")},
])  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    plan.Settings(**SETTINGS)
    with pytest.raises(InputError, match="out of range|no such|counts looks") as error:
        plan.Settings(**{**SETTINGS, **wrong})
    assert str(next(iter(wrong.values()))) in str(error.value)


@pytest.mark.parametrize("wrong", [{"steps": -3}, {"steps": 0}, {"steps": None, "minutes": -1.0},
                                   {"steps": None, "epochs": 0.0},
                                   {"steps": None, "epochs": float("nan")}])  # fmt: skip
def test_a_length_that_is_none_is_refused(survey, wrong):
    with pytest.raises(InputError, match="out of range"):
        quick(survey, **wrong)


def test_a_baseline_that_there_is_not_is_refused_before_the_training(survey, monkeypatch):
    monkeypatch.setattr(plan, "decide", lambda *a: pytest.fail("the training began"))
    with pytest.raises(InputError, match="no such classical baseline") as error:
        quick(survey, baseline="random-forrest")
    assert "random-forest" in str(error.value)


def test_length_and_looks_follow_from_steps_epochs_or_minutes(survey, tmp_path):
    def run(**options):
        run.count = getattr(run, "count", 0) + 1
        to = tmp_path / str(run.count)
        quick(survey, to=to, **{"steps": None, "epochs": 0.1, **options})
        return Run.read(to / "run.json")

    train_fold = len(survey.fold("train"))
    per_epoch = train_fold // 32
    assert run(steps=9).steps == 9 and run(epochs=2).steps == 2 * per_epoch
    timed = run(minutes=0.004)
    assert timed.steps == max(1, int(0.92 * 60 * 0.004 / timed.seconds_a_step)) or timed.seconds_a_step < 1e-4
    assert run(steps=5, minutes=100, epochs=100).steps == 5
    for found in (run(steps=9), run(steps=40)):
        assert 1 <= found.every <= max(1, found.steps // 8)


def test_the_time_budget_is_kept(survey, tmp_path):
    import time

    began = time.monotonic()
    model = quick(survey, steps=None, minutes=0.02, to=tmp_path / "model", network="convnet", settings={"width": 8})
    seconds = model.history[-1]["seconds"]
    assert 0.1 < seconds < 30 and time.monotonic() - began < 200  # 1.2 seconds, on a machine that others use too


def test_a_call_that_never_took_a_step_does_not_block_its_folder(survey, tmp_path):
    wrong = {"task": tasks.Regress("width"), "to": tmp_path / "m"}
    with pytest.raises(InputError, match="only classes can be balanced"):
        quick(survey, **wrong, balance=True)
    assert (tmp_path / "m" / "run.json").exists() and not (tmp_path / "m" / "checkpoint.pt").exists()
    assert quick(survey, **wrong).provenance["settings"]["balance"] is False
    assert Run.read(tmp_path / "m" / "run.json").call["balance"] is False


# -- a run is a file -------------------------------------------------------------------------------------------------
def test_a_run_is_read_as_it_was_written(survey, tmp_path):
    quick(survey, to=tmp_path / "model", task=tasks.Regress(("e", "width"), log="width"), augment="dihedral,shift=1")
    run = Run.read(tmp_path / "model" / "run.json")
    run.write(tmp_path / "again.json")
    assert plan.literal(asdict(Run.read(tmp_path / "again.json"))) == plan.literal(asdict(run))
    assert run.steps == 6 and run.settings["augment"] == "dihedral,shift=1" and run.threads == 1
    assert run.call["survey"] == str(survey.path) and run.call["settings"] == {"hidden": [8]}
    assert run.survey_hash == survey.hash and set(run.versions) >= {"deepsky", "torch", "numpy", "python"}
    assert tasks.from_config(run.task).names[-1] == "width"


def test_a_run_with_unknown_or_missing_keys_is_refused(survey, tmp_path):
    quick(survey, to=tmp_path / "model")
    good = read_json(tmp_path / "model" / "run.json")
    for data, words in (
        ({**good, "setings": 1}, "unknown keys"),
        ({"task": {}}, "without all its keys"),
        ([1], "unknown keys"),
    ):
        write_json(tmp_path / "run.json", data)
        with pytest.raises(InputError, match=words):
            Run.read(tmp_path / "run.json")
    write_json(tmp_path / "run.json", {**good, "setings": 1})
    with pytest.raises(InputError) as error:
        Run.read(tmp_path / "run.json")
    assert "setings" in str(error.value) and "settings" in str(error.value)


CASES = {
    "by steps": {"steps": 6, "baseline": "logistic", "augment": "dihedral"},
    "by time": {"steps": None, "minutes": 0.003, "seed": 7, "stretch": "linear", "channels": "mask"},
    "balanced": {"steps": 6, "balance": True, "l1": 1e-4, "ema": 0.0, "patience": 1},
    "classical": {"network": "random-forest", "settings": {"features": "shape", "trees": 5}, "seed": 4},
    "convolution": {"network": "convnet", "settings": {"width": 4, "dropout": 0.3}, "epochs": 1, "steps": None},
}


@pytest.mark.parametrize("case", CASES)
def test_a_repeated_run_gives_the_same_model(survey, case, tmp_path):
    first = quick(survey, to=tmp_path / "first", **CASES[case])
    again = repeat(tmp_path / "first" / "run.json", to=tmp_path / "again", quiet=True)
    assert again.hash == first.hash
    for name in ("weights", "calibration", "domain"):
        file = f"{name}.safetensors"
        if (tmp_path / "first" / file).exists():
            assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    baselines = [None if m.baseline is None else m.baseline.hash for m in (first, again)]
    assert baselines[0] == baselines[1]


def test_a_repetition_takes_the_threads_of_then_and_leaves_the_process_as_it_was(survey, tmp_path, monkeypatch):
    quick(survey, to=tmp_path / "first")
    data = read_json(tmp_path / "first" / "run.json")
    write_json(tmp_path / "run.json", {**data, "threads": 2})
    seen, real = [], plan.decide
    monkeypatch.setattr(plan, "decide", lambda *a: seen.append(torch.get_num_threads()) or real(*a))
    repeat(tmp_path / "run.json", to=tmp_path / "again", quiet=True)
    assert seen == [2] and torch.get_num_threads() == 1


def test_a_repetition_refuses_what_is_not_as_it_was(survey, tmp_path):
    quick(survey, to=tmp_path / "first")
    file = tmp_path / "first" / "run.json"
    other = made_up.survey(tmp_path / "other", n=260, seed=1)
    with pytest.raises(InputError, match="not the survey of that run"):
        repeat(file, to=tmp_path / "x", survey=other, quiet=True)
    words = survey.column("shape").copy()
    words[:40] = "round"
    relabelled = survey.with_columns({"shape": words}, {})
    with pytest.raises(InputError, match="the labels are not those"):
        repeat(file, to=tmp_path / "x", survey=relabelled, quiet=True)
    data = read_json(file)
    del data["call"]
    write_json(tmp_path / "old.json", data)
    with pytest.raises(InputError, match="does not hold its call"):
        repeat(tmp_path / "old.json", to=tmp_path / "x", quiet=True)
    assert not (tmp_path / "x").exists()


def test_a_users_module_is_repeated_with_the_module(survey, tmp_path):
    class Own(nn.Module):
        features = 3

        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.layer = nn.Linear(2 * 24 * 24, 3)

        def forward(self, x):
            return self.layer(x.flatten(1))

    network = Own()
    before = network.layer.weight.detach().clone()
    first = quick(survey, network=network, settings=None, to=tmp_path / "first")
    assert torch.equal(network.layer.weight, before)  # a copy was trained
    with pytest.raises(InputError, match="a network of its user's"):
        repeat(tmp_path / "first", to=tmp_path / "again", quiet=True)
    again = repeat(tmp_path / "first", to=tmp_path / "again", network=network, quiet=True)
    assert again.hash == first.hash
    assert load(tmp_path / "again", network=Own()).hash == first.hash


# -- the same call ---------------------------------------------------------------------------------------------------
def test_an_unfinished_run_of_another_call_is_named_key_by_key(survey, tmp_path):
    quick(survey, to=tmp_path / "model")
    model = tmp_path / "model"
    (model / "checksums.json").unlink()  # as if it had been stopped
    for changes, words in (({"lr": 0.5}, "another settings: lr"), ({"steps": 7}, "another steps"),
                           ({"settings": {"hidden": (9,)}}, "another network: settings"),
                           ({"seed": 3}, "settings: seed"),
                           ({"baseline": "knn"}, "another baseline")):  # fmt: skip
        with pytest.raises(InputError, match=words) as error:
            quick(survey, to=model, **changes)
        assert len(str(error.value)) < 600
    assert quick(survey, to=model).path == model  # the same call goes on


def changed(survey, what):
    """The survey after a new split, or after new labels that change neither counts nor shares."""
    if what == "label values":
        shape = survey.column("shape").copy()
        train = survey.column("fold") == "train"
        for word, other in (("long", "round"), ("round", "long")):
            shape[np.flatnonzero(train & (survey.column("shape") == word))[0]] = other
        return survey.with_columns({"shape": shape}, {})
    fold = survey.column("fold").copy()
    for word in ("long", "round"):
        here = survey.column("shape") == word
        one, two = (np.flatnonzero(here & (fold == name))[0] for name in ("train", "test"))
        fold[one], fold[two] = "test", "train"
    return survey.with_columns({"fold": fold}, {})


@pytest.mark.parametrize("what", ["objects of train", "label values"])
def test_a_run_neither_goes_on_nor_is_repeated_on_other_folds_or_labels(survey, what, tmp_path):
    options = {"network": "convnet", "settings": {"width": 4}, "stretch": "linear"}
    first = quick(survey, to=tmp_path / "model", **options)
    other = changed(survey, what)
    assert other.hash == survey.hash and len(other.fold("train")) == len(survey.fold("train"))
    with pytest.raises(InputError, match=f"the {what} are not those of that run") as error:
        repeat(tmp_path / "model", to=tmp_path / "x", survey=other, quiet=True)
    assert "--to NEW" in str(error.value) and not (tmp_path / "x").exists()
    assert repeat(tmp_path / "model", to=tmp_path / "again", survey=survey, quiet=True).hash == first.hash
    (tmp_path / "model" / "checksums.json").unlink()  # as if it had been stopped
    with pytest.raises(InputError, match=f"the {what} are not those of that run"):
        quick(other, to=tmp_path / "model", **options)
    assert quick(survey, to=tmp_path / "model", **options).hash == first.hash


# -- checkpoints -----------------------------------------------------------------------------------------------------
STATE = {"module": {"w": torch.arange(6.0)}, "state": {"step": 3, "best": None, "history": [{"loss": 0.5}]}}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    checkpoint.save(tmp_path / "c.pt", STATE)
    found = checkpoint.load(tmp_path / "c.pt")
    assert torch.equal(found["module"]["w"], STATE["module"]["w"]) and found["state"] == STATE["state"]
    assert checkpoint.load(tmp_path / "none.pt") is None


@pytest.mark.parametrize("where", [0.02, 0.3, 0.6, 0.95])
def test_an_altered_checkpoint_is_refused_wherever_it_was_altered(tmp_path, where):
    file = tmp_path / "c.pt"
    checkpoint.save(file, STATE)
    data = bytearray(file.read_bytes())
    data[int(where * len(data))] ^= 4
    file.write_bytes(data)
    with pytest.raises(InputError, match="altered after it was written") as error:
        checkpoint.load(file)
    assert "delete c.pt" in str(error.value)
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="altered after it was written"):
        checkpoint.load(file)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    import hashlib
    import io

    class Trap:
        def __reduce__(self):
            return (exec, (f"import pathlib; pathlib.Path({str(tmp_path / 'mark')!r}).touch()",))

    held = io.BytesIO()
    torch.save({"state": Trap()}, held)
    data = held.getvalue()
    (tmp_path / "c.pt").write_bytes(checkpoint.HEAD + hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.load(tmp_path / "c.pt")
    assert not (tmp_path / "mark").exists()


def test_the_first_signal_is_a_wish_and_the_second_stops_at_once():
    import os

    before = signal.getsignal(signal.SIGINT)
    with checkpoint.signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wanted == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    found = []

    def elsewhere():
        with checkpoint.signals() as stop:  # signals belong to the main thread alone
            found.append(stop.wanted)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [""] and signal.getsignal(signal.SIGINT) is before


# -- what is looked at -----------------------------------------------------------------------------------------------
def test_few_objects_are_spread_evenly_and_bounded_in_bytes(survey, monkeypatch):
    assert plan.spread(10, 100).tolist() == list(range(10))
    assert plan.spread(1000, 5).tolist() == [0, 249, 499, 749, 999]
    assert len(plan.few(survey, 100)) == 100
    monkeypatch.setattr(plan, "LOOKED_AT", 80 * 2 * 24 * 24 * 4)
    assert len(plan.few(survey, 4096)) == 80 and len(plan.few(survey, 4096, least=200)) == 200
    assert np.ptp(plan.few(survey, 4096)) == len(survey) - 1


def test_every_classical_family_writes_its_run_too(survey, tmp_path):
    quick(survey, network="constant", settings={}, to=tmp_path / "model")
    run = Run.read(tmp_path / "model" / "run.json")
    assert run.steps == 0 and run.network["name"] == "constant" and "constant" in registry.names("baselines")
    assert json.loads((tmp_path / "model" / "checksums.json").read_text())["run.json"]


# -- which folds ------------------------------------------------------------------------------------------------------
def test_a_selection_trains_stops_and_calibrates_on_its_own_objects(survey):
    """A model for wide objects must not be calibrated on narrow ones."""
    wide = survey.where("width > 2.5")
    model = quick(wide)
    expected = {n: int((wide.column("fold") == n).sum()) for n in ("train", "valid", "calib")}
    assert model.provenance["objects"] == expected
    alone = quick(survey.fold("train"))  # a training fold alone takes the others from the whole
    assert alone.provenance["objects"]["valid"] == len(survey.fold("valid"))
    for wrong in (survey.fold("test"), survey.fold("valid")):
        with pytest.raises(InputError, match="training on objects of another fold"):
            quick(wrong)
