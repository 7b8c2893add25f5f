"""The contract of a task, held over every task of the folder and over three of quite other kinds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests import made_up
from tests.tasks.other_tasks import Detect, Gan, Masked
from torch import nn

from deepsky import normalise, registry, tasks
from deepsky.inference import predict
from deepsky.model import Predictor
from deepsky.training import train

QUESTIONS = {
    "classify": lambda: tasks.Classify("shape"),
    "classify balanced": lambda: tasks.Classify("shape", weights="balanced", smoothing=0.05),
    "regress": lambda: tasks.Regress(("e", "width"), log="width"),
    "regress gaussian": lambda: tasks.Regress("width", density="gaussian", limits=(("width", 1.0, 5.0),)),
    "regress flow": lambda: tasks.Regress("e", density="flow"),
    "gan": Gan,
    "detect": Detect,
    "masked": Masked,
}


class Small(nn.Module):
    """A network of one convolution, with a batch norm so that batch effects would show."""

    features = 16

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 16, 5, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    def forward(self, x):
        return self.body(x)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return made_up.survey(tmp_path_factory.mktemp("tasks") / "blobs", n=300)


@pytest.fixture(params=list(QUESTIONS))
def case(request, survey):
    task = QUESTIONS[request.param]().bind(survey)
    sample = survey.gather(slice(0, 24))
    torch.manual_seed(1)
    module = task.module(normalise.fit([sample], "image"), Small())
    return task, module, sample


def test_every_task_of_the_folder_is_tried():
    assert {name.split()[0] for name in QUESTIONS} >= set(registry.names("tasks"))


def test_losses_are_finite_and_reach_every_trainable_parameter(case):
    task, module, sample = case
    reached = set()
    for step in task.steps():
        module.zero_grad()
        loss = step.loss(module.train(), sample, torch.Generator().manual_seed(0))
        assert loss.shape == (len(sample),) and torch.isfinite(loss).all()
        loss.mean().backward()
        reached |= {
            n
            for n, p in module.named_parameters()
            if n.startswith(step.parameters) and p.grad is not None and p.grad.any()
        }
    assert reached == {n for n, _ in module.named_parameters()}


def test_batch_size_changes_nothing(case):
    task, module, sample = case
    module.eval()
    with torch.no_grad():
        whole = module(sample)
        parts = torch.cat([module(sample[:5]), module(sample[5:])])
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)
    keys = sample.key.numpy()
    together = task.answer(module.head, whole, {}, keys)
    apart = task.answer(module.head, whole[7:9], {}, keys[7:9])
    for name in together:
        if np.asarray(together[name]).dtype.kind == "f":
            np.testing.assert_allclose(together[name][7:9], apart[name], rtol=1e-4, atol=1e-5)


def test_values_under_zero_ivar_have_no_effect_at_all(case):
    _, module, sample = case
    image = sample.observations["image"]
    ivar = image.ivar.expand(image.flux.shape).clone()
    ivar[:, :, 4:9, 4:9] = 0
    outputs = []
    for value in (0.0, 1e9, float("nan")):
        flux = image.flux.clone()
        flux[:, :, 4:9, 4:9] = value
        here = replace(sample, observations={"image": replace(image, flux=flux, ivar=ivar)})
        with torch.no_grad():
            outputs.append(module.eval()(here))
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


def test_every_answer_is_described(case):
    task, module, sample = case
    with torch.no_grad():
        outputs = module.eval()(sample)
    calibration = task.calibrate(module.head, outputs, sample, 0.9) or {}
    answer = task.answer(module.head, outputs, calibration, sample.key.numpy())
    assert set(answer) <= set(task.outputs())
    assert all(len(v) == len(sample) for v in answer.values())


def test_a_task_is_rebuilt_from_its_config(case):
    task = case[0]
    if task.name in registry.names("tasks"):
        import json

        assert tasks.from_config(json.loads(json.dumps(task.config()))) == task


@pytest.mark.parametrize("name", ["classify", "regress", "gan", "detect", "masked"])
def test_the_loop_trains_and_predicts_every_kind_of_task(survey, name, tmp_path):
    model = train(
        QUESTIONS[name](), survey, network=Small(), steps=12, batch=32, baseline=None, quiet=True, precision="float32"
    )
    assert isinstance(model.module, Predictor) and len(model.history) >= 1
    catalogue = predict(model, survey.fold("test"), to=tmp_path / "catalogue", quiet=True)
    assert sorted(catalogue.column("id")) == sorted(survey.fold("test").id)
    if name == "detect":
        ids = set(catalogue.column("id"))
        assert catalogue.children is not None and set(catalogue.children["id"].to_pylist()) <= ids
        assert len(catalogue.children) == catalogue.column("n_sources").sum()


@pytest.mark.parametrize("name", ["classify", "regress"])
def test_a_trained_model_beats_the_constant(survey, name):
    model = train(QUESTIONS[name](), survey, network="convnet", steps=100, batch=32, baseline=None, quiet=True)
    first, best = model.history[0], min(h[_score(h)] for h in model.history)
    if name == "classify":
        assert best < 0.45  # the constant scores ln 2 = .693
    else:
        assert best < first[_score(first)] and best < 3.8  # three standard normal numbers: 3 x 1.419 = 4.26


def _score(line):
    return next(k for k in line if k in {"log loss", "-log p"})
