"""The loop: resumed runs end bit for bit as if never stopped; what cannot go on says why."""

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests import made_up
from tests.conftest import ROOT
from torch import nn

from deepsky import costs, plan, tasks, training
from deepsky.errors import Incomplete, InputError, TrainingError
from deepsky.model import load
from deepsky.order import Order
from deepsky.training import train

STEPS = 30


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return made_up.survey(tmp_path_factory.mktemp("training") / "blobs", n=200)


def run(survey, model, steps=STEPS, **options):
    command = [sys.executable, "-m", "tests.training_run", str(survey.path), str(model), str(steps)]
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options
    )


def weights(model):
    return hashlib.sha256((model / "weights.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def uninterrupted(survey, tmp_path_factory):
    model = tmp_path_factory.mktemp("whole") / "model"
    with run(survey, model) as process:
        words = process.communicate()[1]
    assert process.returncode == 0, words
    return weights(model)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_ends_bit_for_bit_as_if_never_stopped(survey, uninterrupted, tmp_path, number):
    model, chance = tmp_path / "model", random.Random(int(number))
    kills = 0
    for _ in range(12):
        began, file = time.time(), model / "checkpoint.pt"
        with run(survey, model) as process:
            if kills < 3:  # wait for a checkpoint of this very process, then strike at random
                while process.poll() is None and not (file.exists() and file.stat().st_mtime > began):
                    time.sleep(0.01)
                time.sleep(chance.uniform(0, 0.3))
                process.send_signal(number)
            words = process.communicate()[1]
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL if number == signal.SIGKILL else "goes on from step" in words, (
            words
        )
        kills += 1
    assert kills >= 1 and process.returncode == 0
    assert weights(model) == uninterrupted
    assert load(model).task.classes == ("long", "round")
    assert not (model / "checkpoint.pt").exists()


def test_two_runs_with_one_seed_are_equal_and_another_seed_is_not(survey):
    def made(seed):
        model = train(tasks.Classify("shape"), survey, network="mlp", steps=5, seed=seed, baseline=None, quiet=True)
        return torch.cat([p.flatten() for p in model.module.parameters()])

    assert torch.equal(made(1), made(1)) and not torch.equal(made(1), made(2))


class Spoiled(nn.Module):
    """A network whose second layer divides by zero once it has seen a few batches."""

    features = 4

    def __init__(self):
        super().__init__()
        self.first, self.second, self.seen = nn.Linear(2 * 24 * 24, 4), nn.ReLU(), 0

    def forward(self, x):
        self.seen += self.training
        return self.second(self.first(x.flatten(1))) / (0.0 if self.seen > 8 else 1.0)


def test_a_nan_stops_the_run_and_names_objects_and_layer(survey, tmp_path):
    with pytest.raises(TrainingError) as error:
        train(
            tasks.Classify("shape"),
            survey,
            network=Spoiled(),
            steps=20,
            to=tmp_path / "model",
            baseline=None,
            quiet=True,
        )
    words = str(error.value)
    assert "not finite at step" in words and "blob-" in words and "layer 'head'" in words
    assert not (tmp_path / "model" / "weights.safetensors").exists()


def test_a_full_disk_keeps_the_last_checkpoint_and_says_so(survey, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    model, size = tmp_path / "model", []
    real = training.checkpoint.save

    def filling(path, state):
        real(path, state)
        size.append(path.stat().st_size)
        if len(size) == 3:  # from here on the kernel refuses files of this size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size[-1] // 2, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    monkeypatch.setattr(training.checkpoint, "save", filling)
    try:
        with pytest.raises(TrainingError) as error:
            train(tasks.Classify("shape"), survey, network="mlp", steps=9, to=model, baseline=None, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "fix" in str(error.value)
    held = training.checkpoint.load(model / "checkpoint.pt")
    assert held is not None and held["state"]["step"] == 3


def test_what_cannot_fit_into_memory_is_refused_with_a_batch_that_does(survey, monkeypatch):
    monkeypatch.setattr(costs, "memory_available", lambda: 40_000_000)
    with pytest.raises(TrainingError, match=r"--batch \d+"):
        train(tasks.Classify("shape"), survey, network="resnet", batch=120, steps=5, quiet=True)


def test_another_call_in_the_folder_of_an_unfinished_run_is_refused(survey, tmp_path):
    model = tmp_path / "model"
    with run(survey, model, steps=1000) as process:
        while process.poll() is None and not (model / "checkpoint.pt").exists():
            time.sleep(0.02)
        process.kill()
        process.communicate()
    with pytest.raises(InputError, match="an unfinished run with another"):
        train(tasks.Classify("shape"), survey, network="resnet", steps=1000, to=model, baseline=None, quiet=True)


def test_folds_and_labels_are_checked_before_anything_runs(survey):
    with pytest.raises(InputError, match="training on objects of another fold"):
        train(tasks.Classify("shape"), survey.fold("test"), quiet=True)
    with pytest.raises(InputError, match="no such label or truth"):
        train(tasks.Classify("redshift"), survey, quiet=True)
    with pytest.raises(InputError, match="at least two classes"):
        one = survey.with_columns({"shape": np.full(len(survey), "round", object)}, {})
        train(tasks.Classify("shape"), one, quiet=True)
    with pytest.raises(InputError, match="did you mean 'resnet'"):
        train(tasks.Classify("shape"), survey, network="resnett", quiet=True)
    with pytest.raises(InputError, match="no such optimiser"):
        train(tasks.Classify("shape"), survey, optimiser="adamm", quiet=True)


def test_objects_without_a_label_are_left_out_of_every_batch(survey):
    words = survey.column("shape").copy()
    words[::3] = None
    column = replace(survey.schema.columns["shape"], classes=("long", "round"))
    half = survey.with_columns({"shape": words}, {"shape": column})
    model = train(tasks.Classify("shape"), half, network="mlp", steps=4, baseline=None, quiet=True)
    kept = sum(w is not None for w in half.fold("train").column("shape"))
    assert model.provenance["objects"]["train"] == kept


def test_batches_are_a_function_of_seed_and_step(survey):
    task = tasks.Classify("shape").bind(survey)
    chosen = settings(seed=5, batch=16)
    first = Order(survey, chosen, task)
    ahead = [first.batch(i, training.Augmentation.parse("dihedral")).id for i in range(20)]
    again = Order(survey, chosen, task)
    assert again.batch(13, training.Augmentation.parse("dihedral")).id == ahead[13]
    epoch = [name for ids in ahead[: len(survey) // 16] for name in ids]
    assert len(epoch) == len(set(epoch))


def test_balanced_batches_draw_every_class_equally_often(survey):
    rare = survey.select(
        np.flatnonzero((survey.column("shape") == "round") | (np.arange(len(survey)) % 10 == 0)), "rare"
    )
    task = tasks.Classify("shape").bind(rare)
    order = Order(rare, settings(balance=True), task)
    drawn = rare.column("shape")[order.permutation(0)]
    assert (drawn == "long").sum() == (drawn == "round").sum()


def settings(**changes):
    made = {
        "seed": 0,
        "batch": 32,
        "optimiser": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.0,
        "momentum": 0.9,
        "l1": 0.0,
        "l2": 0.0,
        "schedule": "cosine",
        "warmup": 0.0,
        "ema": 0.0,
        "clip": 1.0,
        "patience": 0,
        "augment": "",
        "balance": False,
        "level": 0.9,
    }
    return plan.Settings(**{**made, **changes})


@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop", "adam", "adamw"])
def test_every_optimiser_and_penalty_lowers_the_loss(survey, name):
    model = train(tasks.Regress("width"), survey, network="mlp", optimiser=name, steps=60, batch=32, l1=1e-5, l2=1e-5,
                  schedule="plateau", ema=0.0, baseline=None, quiet=True)  # fmt: skip
    assert model.history[-1]["loss"] < model.history[0]["loss"]


def test_early_stopping_ends_before_the_last_step(survey):
    model = train(
        tasks.Classify("shape"), survey, network="mlp", steps=400, patience=2, lr=0.02, baseline=None, quiet=True
    )
    assert model.history[-1]["step"] < 400


def test_a_run_that_diverged_stops_at_the_next_look_and_says_what_to_change(survey):
    options = {"network": "mlp", "optimiser": "sgd", "warmup": 0.0, "baseline": None, "quiet": True}
    with pytest.raises(TrainingError, match="log loss of the validation fold is not finite") as error:
        train(tasks.Classify("shape"), survey, steps=8, lr=100.0, clip=0.0, ema=0.0, **options)
    words = str(error.value)
    assert "--set lr=10" in words and "--set clip=1" in words and "--set ema=0.99" in words
    mended = train(tasks.Classify("shape"), survey, steps=8, lr=10.0, clip=1.0, ema=0.99, **options)
    assert all(np.isfinite(h["log loss"]) for h in mended.history)


def test_a_stopped_run_without_a_folder_says_that_nothing_was_kept(survey, monkeypatch):
    def stopping(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    real = training._update
    monkeypatch.setattr(training, "_update", stopping)
    with pytest.raises(Incomplete, match="nothing was kept"):
        train(tasks.Classify("shape"), survey, network="mlp", steps=5, baseline=None, quiet=True)
