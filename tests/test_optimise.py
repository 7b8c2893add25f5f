"""Optimisers, schedules, penalties and averages, held against their formulas."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from deepsky import optimise
from deepsky.errors import InputError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


# -- schedules ------------------------------------------------------------------------------------------------------
def test_a_warm_up_rises_in_a_line_and_ends_where_the_schedule_begins():
    for schedule in optimise.SCHEDULES:
        rates = [optimise.rate(schedule, s, 100, 10) for s in range(100)]
        np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
        assert rates[10] == pytest.approx(1.0)


def test_cosine_falls_by_half_a_cosine_to_zero():
    rates = np.array([optimise.rate("cosine", s, 110, 10) for s in range(110)])
    np.testing.assert_allclose(rates[10:], 0.5 * (1 + np.cos(np.pi * np.arange(100) / 100)))
    assert (np.diff(rates[10:]) < 0).all() and rates[-1] > 0
    assert optimise.rate("cosine", 110, 110, 10) == pytest.approx(0)
    assert optimise.rate("cosine", 60, 110, 10) == pytest.approx(0.5)


def test_plateau_takes_a_third_for_each_drop_and_constant_stays():
    assert [optimise.rate("plateau", 50, 100, 5, d) for d in range(3)] == pytest.approx([1, 1 / 3, 1 / 9])
    assert {optimise.rate("constant", s, 100, 0) for s in range(100)} == {1.0}


@pytest.mark.parametrize("schedule", optimise.SCHEDULES)
def test_a_run_of_one_step_has_a_rate(schedule):
    for warmup in (0, 1):
        assert 0 < optimise.rate(schedule, 0, 1, warmup) <= 1


# -- penalties --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.02), (0.3, 0.02)])
def test_the_penalty_and_its_gradient_are_those_of_the_elastic_net(l1, l2):
    """l1 sum |w| + l2 sum w^2 of the matrices; its gradient is l1 sign(w) + 2 l2 w."""
    made = network()
    made[4].weight.requires_grad_(False)
    found = optimise.penalty(made.parameters(), l1, l2)
    w = made[0].weight.detach().double().numpy()
    assert found.item() == pytest.approx(l1 * np.abs(w).sum() + l2 * (w**2).sum(), rel=1e-6)
    found.backward()
    np.testing.assert_allclose(made[0].weight.grad, l1 * np.sign(w) + 2 * l2 * w, rtol=1e-5)
    assert made[0].bias.grad is None and made[1].weight.grad is None and made[4].weight.grad is None


def test_no_penalty_is_no_tensor():
    assert optimise.penalty(network().parameters(), 0.0, 0.0) == 0.0


# -- optimisers -------------------------------------------------------------------------------------------------------
def plain(name, w, g, lr, decay, momentum):
    """Two steps with the same gradient, as the papers have them."""
    if name == "sgd":
        for _ in range(2):
            w = w - lr * (g + decay * w)
    if name == "momentum":  # Nesterov
        v = 0.0
        for _ in range(2):
            d = g + decay * w
            v = momentum * v + d
            w = w - lr * (d + momentum * v)
    if name == "rmsprop":
        s = 0.0
        for _ in range(2):
            d = g + decay * w
            s = 0.99 * s + 0.01 * d**2
            w = w - lr * d / (np.sqrt(s) + 1e-8)
    if name in {"adam", "adamw"}:
        m = v = 0.0
        for t in (1, 2):
            d = g + (decay * w if name == "adam" else 0)
            w = w * (1 - lr * decay) if name == "adamw" else w
            m, v = 0.9 * m + 0.1 * d, 0.999 * v + 0.001 * d**2
            w = w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


@pytest.mark.parametrize("name", optimise.OPTIMISERS)
def test_two_steps_of_every_optimiser_are_those_of_its_formula(name):
    made = nn.Linear(3, 2)
    w, b = made.weight.detach().double().numpy().copy(), made.bias.detach().double().numpy().copy()
    g = np.arange(6.0).reshape(2, 3) / 10 - 0.2
    o = optimise.optimiser(name, made, "", lr=0.05, decay=0.1, momentum=0.8)
    for _ in range(2):
        made.weight.grad, made.bias.grad = torch.from_numpy(g).float(), torch.from_numpy(g[:, 0]).float()
        o.step()
    np.testing.assert_allclose(made.weight.detach(), plain(name, w, g, 0.05, 0.1, 0.8), rtol=1e-4)
    # a bias is not drawn to zero
    np.testing.assert_allclose(made.bias.detach(), plain(name, b, g[:, 0], 0.05, 0.0, 0.8), rtol=1e-4)


def test_only_the_parameters_with_the_prefix_move():
    made = nn.ModuleDict({"network": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    frozen = copy.deepcopy(made["network"].state_dict())
    o = optimise.optimiser("sgd", made, "head", lr=1.0, decay=0.0, momentum=0.0)
    made["head"](made["network"](torch.ones(1, 2))).sum().backward()
    o.step()
    assert all(torch.equal(frozen[n], v) for n, v in made["network"].state_dict().items())
    assert made["head"].weight.grad.abs().sum() > 0
    with pytest.raises(InputError, match="no parameter to train has this name") as error:
        optimise.optimiser("sgd", made, "neck", lr=1.0, decay=0.0, momentum=0.0)
    assert "network, head" in str(error.value)
    with pytest.raises(InputError, match="no such optimiser"):
        optimise.optimiser("adamax", made, "", lr=1.0, decay=0.0, momentum=0.0)


# -- the moving average of the weights ----------------------------------------------------------------------------
def test_the_average_is_that_of_its_recurrence_and_counts_are_copied():
    made = network()
    moving = {n: v.clone() for n, v in made.state_dict().items()}
    expected = made[4].weight.detach().double().numpy().copy()
    g = np.random.default_rng(0)
    for step in range(40):
        with torch.no_grad():
            made[4].weight.copy_(torch.from_numpy(g.normal(size=(2, 12))))
            made[1].num_batches_tracked += 1
        optimise.average(moving, made.state_dict(), 0.9, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * made[4].weight.detach().double().numpy()
    np.testing.assert_allclose(moving["4.weight"], expected, rtol=1e-4, atol=1e-5)
    assert moving["1.num_batches_tracked"] == 40


def test_the_average_of_what_does_not_move_is_that():
    made = network()
    moving = {n: v.clone() for n, v in made.state_dict().items()}
    for step in range(5):
        optimise.average(moving, made.state_dict(), 0.99, step)
    assert all(torch.equal(v, moving[n]) for n, v in made.state_dict().items())


def test_averaged_weights_are_less_noisy_than_the_last_ones():
    """Noisy gradient descent on a parabola: the average has a smaller scatter about the minimum."""
    g = torch.Generator().manual_seed(0)
    last, mean = [], []
    for _ in range(40):
        made = nn.Linear(1, 1, bias=False)
        moving = {n: v.clone() for n, v in made.state_dict().items()}
        o = optimise.optimiser("sgd", made, "", lr=0.2, decay=0.0, momentum=0.0)
        for step in range(120):
            made.weight.grad = made.weight.detach() + torch.randn(1, 1, generator=g)
            o.step()
            optimise.average(moving, made.state_dict(), 0.95, step)
        last.append(made.weight.item())
        mean.append(moving["weight"].item())
    assert np.std(mean) < 0.75 * np.std(last) and abs(np.mean(mean)) < 4 * np.std(mean) / math.sqrt(40)
