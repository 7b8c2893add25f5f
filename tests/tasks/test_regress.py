"""Regression: densities against scipy, quadrature and draws; transforms, limits, errors of the truth, coverage."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from tests import made_up
from torch import nn

from deepsky import tasks
from deepsky.errors import InputError
from deepsky.sample import Truth
from deepsky.schema import Column
from deepsky.tasks._densities import LEVELS, Flow, Mixture
from deepsky.training import train

REGRESS = tasks.Regress
G = torch.Generator


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return made_up.survey(tmp_path_factory.mktemp("regress") / "blobs", n=240)


def numbered(survey, *, sigma="", limit="", **columns):
    kinds = {
        n: Column(role="label", sigma=sigma, limit=limit) if n not in {sigma, limit} else Column() for n in columns
    }
    return survey.with_columns(columns, kinds)


def samples(**truth):
    n = len(next(iter(truth.values())).value)
    return replace(made_up.blobs(n, size=1), truth=truth)


# -- the mixture against scipy ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def mixture():
    """Four objects, three components, two targets: the head, its outputs, and what they mean in float64."""
    torch.manual_seed(3)
    head = Mixture(5, 2, 3)
    outputs = torch.randn(4, 3 * 5) * 0.8
    log_w, mean, scale = (t.double().numpy() for t in head.parts(outputs))
    return head, outputs, np.exp(log_w), mean, scale


Z = np.array([[0.3, -1.0], [2.0, 0.0], [-8.0, 9.0], [0.0, 0.5]])


def log_prob(head, outputs, z, sigma=None, limit=None):
    given = [None if v is None else torch.tensor(v, dtype=torch.float32) for v in (z, sigma, limit)]
    return head.log_prob(outputs, *given, G().manual_seed(0)).detach().double().numpy()


def test_parts_of_a_mixture_are_weights_means_and_positive_sigmas(mixture):
    head, outputs, w, _, scale = mixture
    np.testing.assert_allclose(w.sum(1), 1, rtol=1e-6)
    raw = outputs[:, 3 + 6 :].reshape(4, 3, 2).double().numpy()
    np.testing.assert_allclose(scale, np.log1p(np.exp(raw + 0.54)) + 1e-4, rtol=1e-5)
    assert head(torch.randn(7, 5)).shape == (7, 15)


def test_the_density_of_a_mixture_is_that_of_scipy(mixture):
    head, outputs, w, mean, scale = mixture
    expected = np.log((w * stats.norm(mean, scale).pdf(Z[:, None]).prod(-1)).sum(1))
    np.testing.assert_allclose(log_prob(head, outputs, Z), expected, rtol=1e-4)


def test_an_error_of_the_truth_convolves_the_density(mixture):
    """Held against quadrature over the unknown true value, target by target."""
    head, outputs, w, mean, scale = mixture
    sigma = np.array([[0.5, 2.0], [0.0, 0.1], [1.0, 1.0], [3.0, 0.0]])
    expected = []
    for i in range(4):
        parts = np.ones(3)
        for j in range(2):
            for k in range(3):
                if sigma[i, j] == 0:
                    parts[k] *= stats.norm(mean[i, k, j], scale[i, k, j]).pdf(Z[i, j])
                    continue
                t = np.linspace(-40, 40, 160_001)
                y = stats.norm(mean[i, k, j], scale[i, k, j]).pdf(t) * stats.norm(Z[i, j], sigma[i, j]).pdf(t)
                parts[k] *= integrate.trapezoid(y, t)
        expected.append(np.log((w[i] * parts).sum()))
    np.testing.assert_allclose(log_prob(head, outputs, Z, sigma), expected, rtol=1e-4)


def test_a_limit_is_the_probability_beyond_it(mixture):
    head, outputs, w, mean, scale = mixture
    limit = np.array([[-1, 0], [0, 1], [1, -1], [-1, 1]])
    sigma = np.array([[0.3, 0.0], [0.0, 1.5], [0.0, 0.0], [0.0, 0.2]])
    total = np.sqrt(scale**2 + sigma[:, None] ** 2)
    one = stats.norm(mean, total)
    each = np.where(limit[:, None] < 0, one.logcdf(Z[:, None]),
                    np.where(limit[:, None] > 0, one.logsf(Z[:, None]), one.logpdf(Z[:, None])))  # fmt: skip
    from scipy.special import logsumexp

    expected = logsumexp(np.log(w) + each.sum(-1), axis=1)
    np.testing.assert_allclose(log_prob(head, outputs, Z, sigma, limit), expected, rtol=2e-4, atol=2e-7)


def test_a_target_that_is_not_known_is_left_out(mixture):
    head, outputs, w, mean, scale = mixture
    z = Z.copy()
    z[:, 1] = np.nan
    expected = np.log((w * stats.norm(mean[..., 0], scale[..., 0]).pdf(z[:, :1])).sum(1))
    np.testing.assert_allclose(log_prob(head, outputs, z), expected, rtol=1e-4)


def test_quantiles_of_a_mixture_are_the_roots_of_its_distribution(mixture):
    head, outputs, w, mean, scale = mixture
    found = head.quantiles(outputs, torch.tensor(LEVELS)).double().numpy()
    assert found.shape == (4, 2, len(LEVELS))
    for i in range(4):
        for j in range(2):
            for level, q in zip(LEVELS[::4], found[i, j, ::4], strict=True):
                one = stats.norm(mean[i, :, j], scale[i, :, j])
                root = optimize.brentq(lambda t, d=one, p=level, v=w[i]: (v * d.cdf(t)).sum() - p, -60, 60)
                assert q == pytest.approx(root, abs=2e-5 * max(1, abs(root)))


def test_means_of_a_mixture_do_not_begin_as_one():
    head = Mixture(4, 2, 5)
    _, mean, _ = head.parts(head(torch.zeros(1, 4)))
    np.testing.assert_allclose(mean[0, :, 0].detach(), np.linspace(-1.5, 1.5, 5), atol=1e-6)
    np.testing.assert_allclose(mean[0, :, 1].detach(), np.linspace(-1.5, 1.5, 5), atol=1e-6)


# -- the flow ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def flow():
    """A flow of one target with random weights: far from a Gaussian."""
    torch.manual_seed(5)
    head = Flow(4, 1)
    with torch.no_grad():
        for p in head.parameters():
            p.mul_(2.0)
    return head.eval(), head(torch.randn(3, 4)).detach()


def densities(head, outputs, t):
    with torch.no_grad():
        flat = head.flow(outputs[:, None]).log_prob(
            torch.from_numpy(t)[None, :, None].float().expand(len(outputs), -1, -1)
        )
    return flat.exp().double().numpy()


def test_the_density_of_a_flow_integrates_to_one_and_its_quantiles_split_it(flow):
    head, outputs = flow
    t = np.linspace(-12, 12, 48_001)
    p = densities(head, outputs, t)
    np.testing.assert_allclose(integrate.trapezoid(p, t), 1, atol=2e-3)
    cdf = integrate.cumulative_trapezoid(p, t, initial=0)
    with torch.no_grad():
        q = head.quantiles(outputs, torch.tensor(LEVELS))[:, 0].double().numpy()
    for i in range(3):
        np.testing.assert_allclose(np.interp(q[i], t, cdf[i]), LEVELS, atol=3e-3)
    assert (np.diff(q, axis=1) > 0).all() and np.ptp(q[:, 12]) > 0.05


@pytest.mark.parametrize("side", [-1, 1])
def test_a_limit_under_a_flow_is_the_probability_beyond_it(flow, side):
    head, outputs = flow
    t = np.linspace(-12, 12, 48_001)
    cdf = integrate.cumulative_trapezoid(densities(head, outputs, t), t, initial=0)
    z = np.array([[-0.5], [0.2], [1.1]])
    below = np.array([np.interp(z[i, 0], t, cdf[i]) for i in range(3)])
    found = np.exp(log_prob(head, outputs, z, limit=np.full((3, 1), side)))
    np.testing.assert_allclose(found, below if side < 0 else 1 - below, atol=3e-3)
    measured = log_prob(head, outputs, z, limit=np.zeros((3, 1)))
    np.testing.assert_allclose(measured, log_prob(head, outputs, z), rtol=1e-5)


@pytest.mark.parametrize("limit", [0, -1])
def test_an_error_of_the_truth_convolves_a_flow_on_average(flow, limit, monkeypatch):
    head, outputs = flow
    monkeypatch.setattr(Flow, "noise_draws", 20_000)
    z, sigma = np.array([[-0.5], [0.2], [1.1]]), np.array([[0.4], [0.0], [1.0]])
    t = np.linspace(-12, 12, 24_001)
    p = densities(head, outputs, t)
    values = integrate.cumulative_trapezoid(p, t, initial=0) if limit else p
    kernel = [stats.norm(z[i, 0], max(sigma[i, 0], 1e-9)).pdf(t) for i in range(3)]
    expected = [integrate.trapezoid(values[i] * kernel[i], t) for i in range(3)]
    expected[1] = values[1][np.searchsorted(t, 0.2)]
    found = np.exp(log_prob(head, outputs, z, sigma, np.full((3, 1), limit) if limit else None))
    np.testing.assert_allclose(found, expected, rtol=0.04)


def test_quantiles_of_several_targets_are_those_of_many_draws_and_blind_to_the_batch():
    torch.manual_seed(1)
    head = Flow(3, 2).eval()
    with torch.no_grad():
        outputs = head(torch.randn(4, 3))
        found = head.quantiles(outputs, torch.tensor(LEVELS))
        one = head.quantiles(outputs[2:3], torch.tensor(LEVELS))
        drawn = head.flow(outputs).sample((20_000,))
    assert torch.allclose(found[2:3], one, atol=1e-5)
    expected = torch.quantile(drawn[:, :, :], torch.tensor(LEVELS), dim=0).permute(1, 2, 0)
    spread = (expected[..., -4] - expected[..., 3])[..., None]
    inner = slice(3, -3)  # 256 draws tell the middle
    assert ((found - expected).abs() / spread)[..., inner].max() < 0.03


def test_many_objects_are_asked_for_in_blocks():
    """torch.quantile refuses more than 16 million numbers, fewer than a calibration fold can have."""
    task = bound(
        targets=("a", "b"), names=("a", "b"), units=("", ""), centre=(0.0,) * 2, scale=(1.0,) * 2, density="flow"
    )

    class Watched(Flow):
        def quantiles(self, outputs, levels):
            assert len(outputs) * self.draws * self.targets < 2**24
            return outputs[:, :1, None] * levels + torch.zeros(1, 2, 1)

    outputs = torch.arange(100_000.0)[:, None].expand(-1, 64)
    q = task._quantiles(Watched(3, 2), outputs)
    assert q.shape == (100_000, 2, len(LEVELS)) and q[70_000, 1, 12] == 35_000


# -- transforms ------------------------------------------------------------------------------------------------------
def bound(**options):
    given = {
        "targets": "t",
        "names": ("t",),
        "units": ("Mpc",),
        "centre": (0.7,),
        "scale": (1.9,),
        "density": "gaussian",
    }
    return REGRESS(**{**given, **options})


TRANSFORMS = {
    "none": ({}, lambda y: y, np.ones_like),
    "log": ({"log": "t"}, np.log, lambda y: 1 / y),
    "limits": ({"limits": ("t", 0.0, 5.0)}, lambda y: np.log(y / (5 - y)), lambda y: 5 / (y * (5 - y))),
}


@pytest.mark.parametrize("case", TRANSFORMS)
def test_truth_is_transformed_standardised_and_its_error_carried_along(case):
    options, inner, slope = TRANSFORMS[case]
    y, sigma = np.array([0.1, 1.0, 2.5, 4.9]), np.array([0.01, 0.1, 0.2, 0.003])
    task = bound(**options)
    truth = Truth(torch.from_numpy(y), sigma=torch.from_numpy(sigma), limit=torch.tensor([0.0, -1.0, 1.0, 0.0]))
    z, s, limit = task.standard(samples(t=truth))
    np.testing.assert_allclose(z[:, 0], (inner(y) - 0.7) / 1.9, rtol=1e-5)
    np.testing.assert_allclose(s[:, 0], sigma * slope(y) / 1.9, rtol=1e-5)
    assert limit[:, 0].tolist() == [0, -1, 1, 0]
    back = task._outer(z.numpy()[:, :, None].astype(np.float64))
    np.testing.assert_allclose(back[:, 0, 0], y, rtol=1e-5)


@pytest.mark.parametrize("case", TRANSFORMS)
def test_quantiles_of_the_answer_are_those_of_the_transformed_posterior(case):
    options, inner, _ = TRANSFORMS[case]
    task = bound(**options)
    head = task.head(3)
    outputs = torch.tensor([[0.0, -0.3, 0.2], [0.0, 0.4, -1.0]])
    _, mean, scale = (t[:, 0].double().numpy() for t in head.parts(outputs))
    found = task.answer(head, outputs, {}, np.zeros(2))
    posterior = stats.norm(0.7 + 1.9 * mean, 1.9 * scale)  # of the transformed value
    for name, level in (("t", 0.5), ("t_p16", 0.16), ("t_p84", 0.84)):
        np.testing.assert_allclose(inner(found[name]), posterior.ppf(level)[:, 0], rtol=2e-3, atol=2e-3)
    q = found["t_quantiles"].astype(np.float64)
    np.testing.assert_allclose(inner(q), posterior.ppf(np.array(LEVELS)[None]), rtol=3e-3, atol=3e-3)
    if case == "limits":
        assert (q > 0).all() and (q < 5).all()
    assert set(found) <= set(task.outputs()) and task.outputs()["t"].unit == "Mpc"


def test_several_numbers_are_laid_out_in_order(survey):
    task = REGRESS(("e", "width"), log="width").bind(survey)
    parts = survey.schema.columns["e"].parts
    assert task.names == (*parts, "width") and task.units[2] == "pix"
    y = survey.truth("width").value.numpy()
    assert task.centre[2] == pytest.approx(np.log(y).mean()) and task.scale[2] == pytest.approx(np.log(y).std())
    z = task.standard(survey.gather(slice(None)))[0].numpy()
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-5)


def test_the_loss_is_the_negative_log_density_and_zero_without_a_value():
    task = bound()
    head = task.head(3)
    outputs = torch.tensor([[0.0, -0.3, 0.2], [0.0, 0.4, -1.0]], requires_grad=True)
    sample = samples(t=Truth(torch.tensor([2.0, float("nan")], dtype=torch.float64)))
    found = task.loss(head, outputs, sample)
    _, mean, scale = (t[0, 0].double() for t in head.parts(outputs.detach()))
    expected = -stats.norm(mean, scale).logpdf((2.0 - 0.7) / 1.9)
    assert found[0].item() == pytest.approx(expected[0], rel=1e-5) and found[1] == 0
    found.sum().backward()
    assert (outputs.grad[1] == 0).all() and (outputs.grad[0] != 0).any()
    assert task.labelled(sample).tolist() == [True, False]
    assert task.score(head, outputs.detach(), sample).value == pytest.approx(expected[0], rel=1e-5)


# -- what is learnt from errors and limits --------------------------------------------------------------------------
def fitted(density, truth, steps=400):
    """The posterior of objects that all look alike: its quantiles are those of the population."""
    torch.manual_seed(0)
    task = bound(centre=(0.0,), scale=(1.0,), density=density)
    head = task.head(1)
    o = torch.optim.Adam(head.parameters(), lr=0.03)
    sample, g, x = samples(t=truth), G().manual_seed(0), torch.ones(len(truth.value), 1)
    for _ in range(steps):
        o.zero_grad()
        task.loss(head, head(x), sample, g).mean().backward()
        o.step()
    return task.answer(head, head(x[:1]).detach(), {}, np.zeros(1))


def test_noise_of_the_truth_is_taken_out_of_the_posterior():
    """Values of scatter 1 measured with errors of 1.5: without them the posterior would be 1.8 wide."""
    g = np.random.default_rng(0)
    y, sigma = g.normal(0.4, 1, 1500), np.full(1500, 1.5)
    measured = torch.from_numpy(y + g.normal(size=1500) * sigma)
    found = fitted("gaussian", Truth(measured, sigma=torch.from_numpy(sigma)))
    wide = fitted("gaussian", Truth(measured))
    half = [float(f["t_p84"][0] - f["t_p16"][0]) / 1.9889 for f in (found, wide)]
    assert half[0] == pytest.approx(1.0, abs=0.15) and half[1] == pytest.approx(1.8, abs=0.1)
    assert found["t"][0] == pytest.approx(0.4, abs=0.12)


@pytest.mark.parametrize("density", ["gaussian", "flow"])
def test_upper_limits_do_not_pull_the_posterior_up(density):
    """Values below the detection limit are known as limits only: taken for values they would cut the lower half off."""
    g = np.random.default_rng(0)
    y = g.normal(0, 1, 1200)
    seen = np.maximum(y, 0.3)
    limit = np.where(y < 0.3, -1.0, 0.0)
    found = fitted(
        density, Truth(torch.from_numpy(seen), limit=torch.from_numpy(limit)), 150 if density == "flow" else 400
    )
    naive = fitted("gaussian", Truth(torch.from_numpy(seen)))
    assert found["t_p84"][0] == pytest.approx(1.0, abs=0.12)
    if density == "gaussian":  # a flow is free where nothing was measured
        assert found["t"][0] == pytest.approx(0.0, abs=0.12) and found["t_p16"][0] == pytest.approx(-1.0, abs=0.2)
    else:
        below = np.interp(0.3, found["t_quantiles"][0].astype(float), LEVELS)
        assert below == pytest.approx(stats.norm.cdf(0.3), abs=0.06)
    assert naive["t"][0] > 0.5


# -- conformal intervals ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("level", [0.68, 0.9])
def test_conformal_intervals_cover_as_often_as_stated_although_the_posterior_is_wrong(level):
    g = np.random.default_rng(2)
    n = 8000
    centre, y = g.normal(size=n), np.zeros((n, 2))
    y[:, 0] = centre + g.standard_t(3, n)  # wider tails and scatter than the posterior says
    y[:, 1] = centre + 0.2 * g.normal(size=n)  # narrower
    task = bound(targets=("a", "b"), names=("a", "b"), units=("", ""), centre=(0.0,) * 2, scale=(1.0,) * 2)
    head = task.head(1)
    raw = np.log(np.expm1(0.5 - 1e-4)) - 0.54  # sigma 0.5 of both
    outputs = torch.from_numpy(np.stack([np.zeros(n), centre, centre, *[np.full(n, raw)] * 2], 1)).float()
    sample = samples(a=Truth(torch.from_numpy(y[:, 0])), b=Truth(torch.from_numpy(y[:, 1])))
    calibration = task.calibrate(head, outputs[:4000], sample[:4000], level)
    found = task.answer(head, outputs[4000:], calibration, np.zeros(4000))
    for i, name in enumerate("ab"):
        inside = (found[f"{name}_lo"] <= y[4000:, i]) & (y[4000:, i] <= found[f"{name}_hi"])
        assert inside.mean() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 2000)), name
    assert np.mean(found["a_hi"] - found["a_lo"]) > 3 * np.mean(found["b_hi"] - found["b_lo"])


def test_too_few_objects_are_not_calibrated_and_get_no_interval():
    task = bound()
    head = task.head(1)
    sample = samples(t=Truth(torch.randn(19, dtype=torch.float64)))
    assert task.calibrate(head, torch.zeros(19, 3), sample, 0.9) is None
    assert "t_lo" not in task.answer(head, torch.zeros(2, 3), {}, np.zeros(2))


# -- what is refused before anything runs ---------------------------------------------------------------------------
def test_values_that_cannot_be_learnt_are_refused_by_name(survey):
    good, fold = np.linspace(1, 2, 240), survey.column("fold")
    cases = (
        ({}, np.full(240, 3.0), "every object has the same value"),
        ({}, np.where(np.arange(240) == 5, np.inf, good), "infinite values"),
        ({}, np.full(240, np.nan), "fewer than two objects"),
        ({"log": "v"}, good - 1, "a logarithm needs positive values"),
        ({"limits": ("v", 1.5, 3)}, good, "outside the declared limits"),
    )
    for options, values, words in cases:
        with pytest.raises(InputError, match=words) as error:
            REGRESS("v", **options).bind(numbered(survey, v=values))
        assert "keyword v" in str(error.value)
    # a bad value in another fold would only show when that fold is looked at
    hidden = np.where(np.arange(240) == np.flatnonzero(fold == "test")[0], -1.0, good)
    with pytest.raises(InputError, match="a logarithm needs positive values"):
        REGRESS("v", log="v").bind(numbered(survey, v=hidden).fold("train"))
    with pytest.raises(InputError, match="a regression needs numbers"):
        REGRESS("shape").bind(survey)
    with pytest.raises(InputError, match="needs a target"):
        REGRESS().bind(survey)


def test_errors_and_limits_of_the_truth_are_checked(survey):
    good, ones = np.linspace(1, 2, 240), np.ones(240)
    for sigma in (-ones, np.full(240, np.inf)):
        with pytest.raises(InputError, match="no standard deviations"):
            REGRESS("v").bind(numbered(survey, v=good, s=sigma, sigma="s"))
    with pytest.raises(InputError, match="limits are told by"):
        REGRESS("v").bind(numbered(survey, v=good, f=2 * ones, limit="f"))
    several = numbered(survey, v=good, u=good**2, f=ones, limit="f")
    with pytest.raises(InputError, match="a flow of several numbers cannot use limits"):
        REGRESS(("v", "u"), density="flow").bind(several)
    assert REGRESS(("v", "u")).bind(several).names == ("v", "u")


def test_settings_that_make_no_sense_are_refused_at_once(survey):
    for options, words in (
        ({"density": "kde"}, "no such density"), ({"components": 0}, "one component or more"),
        ({"moves": "spin3"}, "no such behaviour"), ({"limits": (("z", 5, 1),)}, "a low and a high end"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            REGRESS("z", **options)
    with pytest.raises(InputError, match="something that is no target"):
        REGRESS("width", log="size").bind(survey)
    with pytest.raises(InputError, match="a prevalence is a matter of classes"):
        bound().answer(bound().head(1), torch.zeros(1, 3), {}, np.zeros(1), prior=np.ones(2))


@pytest.mark.slow
def test_censored_truth_does_not_bias_a_classical_family(survey):
    """Limits are left out of its training: taken for values they would pull every prediction up."""
    width = survey.column("width")
    seen, limit = np.where(width < 2.75, 9.0, width), np.where(width < 2.75, -1.0, 0.0)
    here = numbered(survey, v=seen, f=limit, limit="f")
    model = train(REGRESS("v"), here, network="knn", settings={"features": "shape"}, quiet=True)
    from deepsky.inference import predict

    assert predict(model, here, quiet=True).column("v").max() < 4.0


def test_a_gaussian_head_of_a_family_says_what_the_family_says():
    from deepsky.classical import Gaussian

    class Family(nn.Module):
        def forward(self, features):
            return features

    told = torch.tensor([[0.3, -2.0, np.log(0.5), np.log(1e-9)], [1.0, 5.0, np.log(300.0), 0.0]]).float()
    head = Gaussian(Family(), 2)
    _, mean, scale = head.parts(head(told))
    torch.testing.assert_close(mean[:, 0], told[:, :2])
    torch.testing.assert_close(scale[:, 0], torch.tensor([[0.5, 1e-3], [300.0, 1.0]]), rtol=1e-4, atol=1e-6)
