"""Classification: losses and probabilities against formulas; labels of every kind, and the ones that are refused."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests import made_up
from torch import nn
from torch.nn import functional as F

from deepsky import store, tasks
from deepsky.errors import InputError
from deepsky.evaluation import evaluate
from deepsky.inference import predict
from deepsky.model import load
from deepsky.sample import Truth
from deepsky.schema import Column
from deepsky.tasks.classify import _word
from deepsky.training import train

CLASSIFY = tasks.Classify


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return made_up.survey(tmp_path_factory.mktemp("classify") / "blobs", n=240)


def labelled(survey, **columns):
    """The survey with more label columns."""
    kinds = {}
    for name, values in columns.items():
        words = tuple(sorted({str(v) for v in values if v is not None})) if np.asarray(values).dtype == object else ()
        kinds[name] = Column("string" if words else "float64", role="label", classes=words)
    return survey.with_columns(columns, kinds)


def loss(task, outputs, truth, g=None):
    class Held:
        def __init__(self, truth):
            self.truth = truth

    return task.loss(nn.Identity(), outputs, Held(truth), g)


def bound(prior, **options):
    names = tuple("abcdef"[: len(prior)])
    given = {"targets": "x", "classes": names, "prior": tuple(prior), **options}
    return CLASSIFY(**given)


def codes(values, classes="abc"):
    return {"x": Truth(torch.tensor(values), classes=tuple(classes))}


LOGITS = torch.tensor([[0.2, -1.0, 2.0], [1.5, 0.0, -0.5], [-3.0, 0.4, 0.4], [0.0, 0.0, 0.0]], dtype=torch.float64)


# -- the loss -----------------------------------------------------------------------------------------------------
def test_the_loss_is_the_cross_entropy_and_zero_without_a_label():
    task = bound((0.2, 0.3, 0.5))
    outputs = LOGITS.clone().requires_grad_(True)
    found = loss(task, outputs, codes([2, 0, -1, 1]))
    expected = F.cross_entropy(LOGITS[[0, 1, 3]], torch.tensor([2, 0, 1]), reduction="none")
    torch.testing.assert_close(found[[0, 1, 3]].detach().double(), expected, rtol=1e-6, atol=1e-7)
    found.sum().backward()
    assert found[2] == 0 and (outputs.grad[2] == 0).all()
    torch.testing.assert_close(outputs.grad[0], torch.softmax(LOGITS[0], 0) - F.one_hot(torch.tensor(2), 3))


def test_label_smoothing_is_that_of_torch():
    found = loss(bound((0.2, 0.3, 0.5), smoothing=0.1), LOGITS, codes([2, 0, 1, 1]))
    expected = F.cross_entropy(LOGITS, torch.tensor([2, 0, 1, 1]), label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_fractions_of_votes_are_the_cross_entropy_with_their_distribution():
    votes = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.1, 0.1, 0.2], [0.0, 0.0, 0.0]])
    truth = {c: Truth(votes[:, i]) for i, c in enumerate("abc")}
    task = bound((0.2, 0.3, 0.5), targets=("a", "b", "c"))
    found = loss(task, LOGITS, truth).double()
    share = votes[:3] / votes[:3].sum(1, keepdim=True)
    expected = -(share.double() * torch.log_softmax(LOGITS[:3], 1)).sum(1)
    torch.testing.assert_close(found[:3], expected, rtol=1e-5, atol=1e-6)
    assert found[3] == 0  # nobody voted: no label
    assert task.labelled(type("S", (), {"truth": truth})).tolist() == [True, True, True, False]


def test_labels_that_do_not_exclude_each_other_have_a_bernoulli_loss_each():
    y = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [float("nan"), 0.0, 1.0]])
    truth = {c: Truth(y[:, i]) for i, c in enumerate("abc")}
    task = bound((0.2, 0.3, 0.5), targets=("a", "b", "c"), multilabel=True)
    found = loss(task, LOGITS, truth).double()
    expected = F.binary_cross_entropy_with_logits(LOGITS[:3], y[:3].double(), reduction="none").sum(1)
    torch.testing.assert_close(found[:3], expected, rtol=1e-5, atol=1e-6)
    assert found[3] == 0


# -- classes that weigh the same keep the prior of the training fold ------------------------------------------------
def minimum(task, truth, weights=None):
    """Logits (classes,) that minimise the mean loss of objects that all look alike."""
    z = torch.zeros(len(task.classes), requires_grad=True)
    o = torch.optim.LBFGS(
        [z], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )
    n = len(next(iter(truth.values())).value)
    w = torch.ones(n) if weights is None else weights

    def step():
        o.zero_grad()
        value = (loss(task, z.expand(n, -1), truth) * w).sum()
        value.backward()
        return value

    o.step(step)
    return z.detach()


@pytest.mark.parametrize(
    "options", [{}, {"weights": "balanced"}, {"evenly": True}, {"weights": "balanced", "evenly": True}]
)
def test_whatever_is_balanced_the_answer_is_the_share_in_the_training_fold(options):
    """Objects that cannot be told apart must get the prior as their probabilities, not one half each."""
    counts = torch.tensor([900, 90, 10])
    truth = codes(torch.repeat_interleave(torch.arange(3), counts).tolist())
    task = bound((0.9, 0.09, 0.01), **options)
    drawn = (1 / counts)[truth["x"].value] if options.get("evenly") else None  # each class drawn equally often
    found = torch.softmax(minimum(task, truth, drawn), 0)
    torch.testing.assert_close(found, torch.tensor([0.9, 0.09, 0.01]), rtol=2e-3, atol=1e-5)


def test_balanced_labels_keep_their_shares_too():
    y = torch.zeros(1000, 2)
    y[:30, 0], y[:600, 1] = 1, 1
    truth = {c: Truth(y[:, i]) for i, c in enumerate("ab")}
    task = bound((0.03, 0.6), targets=("a", "b"), multilabel=True, weights="balanced")
    torch.testing.assert_close(torch.sigmoid(minimum(task, truth)), torch.tensor([0.03, 0.6]), rtol=2e-3, atol=1e-5)


def test_balanced_weights_give_each_class_the_same_part_of_the_loss():
    """The gradient of a mistake on a rare class is as much larger as the class is rarer."""
    task = bound((0.9, 0.1), weights="balanced")
    z = (torch.log(torch.tensor(task.prior))).expand(2, 2).clone().requires_grad_(True)  # adjusted: 50 to 50
    each = loss(task, z, codes([0, 1], "ab"))
    first, second = (torch.autograd.grad(each[i], z, retain_graph=True)[0][i, 0].abs().item() for i in (0, 1))
    assert second / first == pytest.approx(9, rel=1e-5)
    plain = bound((0.9, 0.1))
    a, b = (loss(plain, z, codes([0, 1], "ab"))[i].item() for i in (0, 1))
    assert (a, b) == pytest.approx((-np.log(0.9), -np.log(0.1)), rel=1e-5)


def test_the_score_is_the_plain_log_loss_whatever_is_balanced():
    sample = type("S", (), {"truth": codes([2, 0, -1, 1])})
    scores = {bound((0.9, 0.05, 0.05), **o).score(nn.Identity(), LOGITS, sample).value
              for o in ({}, {"weights": "balanced", "smoothing": 0.3}, {"evenly": True})}  # fmt: skip
    expected = F.cross_entropy(LOGITS[[0, 1, 3]], torch.tensor([2, 0, 1])).item()
    assert len(scores) == 1 and scores.pop() == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"balance": True}, {"weights": "balanced"}, {"network": "logistic", "weights": "balanced"}]
)
def test_a_rare_class_is_not_overestimated_after_balanced_training(options, tmp_path):
    """One long blob in ten, and noise in which it is hard to see: the mean probability is still about one tenth."""
    sample = made_up.blobs(1500, size=12, bands=("r",))
    kept = np.flatnonzero((np.arange(1500) % 2 == 1) | (np.arange(1500) % 18 == 0))
    image = sample.observations["image"]
    noise = 12 * torch.randn(image.flux.shape, generator=torch.Generator().manual_seed(0))
    dim = replace(image, flux=image.flux + noise, ivar=image.ivar * 0 + 1 / 144)
    survey = store.write([replace(sample, observations={"image": dim})[torch.from_numpy(kept)]], tmp_path / "rare")
    given = {"network": "mlp", "settings": {"hidden": (16,)}, **options}
    weights = given.pop("weights", "none")
    if given["network"] == "logistic":
        given["settings"] = {"features": "shape"}
    model = train(
        CLASSIFY("shape", weights=weights), survey, steps=80, baseline=None, quiet=True, augment="none", **given
    )
    from deepsky.inference import predict

    test = survey.fold("test")
    p = predict(model, test, quiet=True).column("p_long")
    share = (test.column("shape") == "long").mean()
    assert abs(p.mean() - share) < 0.08, (p.mean(), share)  # uncorrected: about one half


# -- probabilities ------------------------------------------------------------------------------------------------
def answer(task, calibration=None, prior=None):
    return task.answer(nn.Identity(), LOGITS, calibration or {}, np.arange(4), prior)


def test_probabilities_are_the_softmax_at_the_fitted_temperature_and_sets_hold_what_is_likely():
    task = bound((0.2, 0.3, 0.5))
    plain = answer(task)
    expected = torch.softmax(LOGITS, 1).numpy()
    np.testing.assert_allclose(np.stack([plain[f"p_{c}"] for c in "abc"], 1), expected, rtol=1e-6)
    assert plain["class"].tolist() == ["c", "a", "b", "a"] and "in_set_a" not in plain
    calibration = {"log_t": np.array([np.log(2.0)]), "threshold": np.array([0.7]), "level": np.array([0.9]),
                   "set_score": np.array([0])}  # fmt: skip
    found = answer(task, calibration)
    warm = torch.softmax(LOGITS / 2, 1).numpy()
    np.testing.assert_allclose(np.stack([found[f"p_{c}"] for c in "abc"], 1), warm, rtol=1e-6)
    member = np.stack([found[f"in_set_{c}"] for c in "abc"], 1)
    np.testing.assert_array_equal(member, 1 - warm <= 0.7)


def test_conformal_sets_hold_the_true_class_as_often_as_stated():
    g = np.random.default_rng(0)
    n = 6000
    x = g.normal(size=n)
    logits = np.stack([2 * x, -x, 0.5 * x**2], 1)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = (p.cumsum(1) < g.random(n)[:, None]).sum(1)
    wrong = torch.from_numpy(3.0 * logits)  # much too sure of itself
    sample = made_up.blobs(n, size=1)
    sample = replace(sample, truth={"x": Truth(torch.from_numpy(y), classes=tuple("abc"))})
    task = bound((1 / 3,) * 3)
    half = slice(0, 3000)
    calibration = task.calibrate(nn.Identity(), wrong[half], sample[half], 0.8)
    assert np.exp(calibration["log_t"][0]) == pytest.approx(3.0, rel=0.1)
    found = task.answer(nn.Identity(), wrong[3000:], calibration, np.zeros(3000))
    member = np.stack([found[f"in_set_{c}"] for c in "abc"], 1)
    covered = member[np.arange(3000), y[3000:]].mean()
    assert covered == pytest.approx(0.8, abs=3 * np.sqrt(0.8 * 0.2 * (1 / 3000 + 1 / 1500)))
    stated = np.stack([found[f"p_{c}"] for c in "abc"], 1)
    np.testing.assert_allclose(stated, p[3000:], atol=0.04)


def test_labels_have_a_temperature_each():
    g = np.random.default_rng(1)
    n = 4000
    z = g.normal(size=(n, 2))
    y = (g.random((n, 2)) < 1 / (1 + np.exp(-z))).astype(np.float32)
    sample = made_up.blobs(n, size=1)
    sample = replace(sample, truth={c: Truth(torch.from_numpy(y[:, i])) for i, c in enumerate("ab")})
    task = bound((0.5, 0.5), targets=("a", "b"), multilabel=True)
    outputs = torch.from_numpy(z * [4.0, 0.5])
    calibration = task.calibrate(nn.Identity(), outputs, sample, 0.9)
    np.testing.assert_allclose(np.exp(calibration["log_t"]), [4.0, 0.5], rtol=0.15)
    found = task.answer(nn.Identity(), outputs, calibration, np.zeros(n))
    np.testing.assert_allclose(found["p_a"], 1 / (1 + np.exp(-z[:, 0])), atol=0.04)
    assert (found["is_b"] == (found["p_b"] > 0.5)).all()


def test_too_few_objects_and_fractions_are_not_calibrated():
    few = replace(made_up.blobs(19, size=1), truth=codes([0, 1, 2] * 6 + [0]))
    task = bound((0.2, 0.3, 0.5))
    assert task.calibrate(nn.Identity(), torch.zeros(19, 3), few, 0.9) is None
    votes = replace(made_up.blobs(60, size=1), truth={c: Truth(torch.full((60,), 1 / 3)) for c in "abc"})
    soft = bound((0.2, 0.3, 0.5), targets=("a", "b", "c"))
    assert soft.calibrate(nn.Identity(), torch.zeros(60, 3), votes, 0.9) is None


# -- which classes there are ----------------------------------------------------------------------------------------
def test_classes_are_sorted_as_people_sort_them_and_their_shares_are_learnt(survey):
    numbers = np.array([[10.0, 2.0, 1.0, np.nan][i % 4] for i in range(240)])
    task = CLASSIFY("n").bind(labelled(survey, n=numbers))
    assert task.classes == ("1", "2", "10") and task.prior == pytest.approx((1 / 3,) * 3)
    assert [_word(v) for v in (3.0, np.float32(3), 3, "3", None, float("nan"), np.float32("nan"), True)] == [
        "3", "3", "3", "3", "", "", "", "True"]  # fmt: skip


def test_codes_follow_the_names_and_not_the_order_of_another_survey(survey):
    words = np.array([["spiral", "elliptical", "merger", None][i % 4] for i in range(240)], object)
    here = labelled(survey, kind=words)
    task = CLASSIFY("kind").bind(here)
    assert task.classes == ("elliptical", "merger", "spiral")
    other = Truth(torch.tensor([0, 1, 2, -1]), classes=("spiral", "ring", "elliptical"))
    assert task.truth({"kind": other}).tolist() == [2, -1, 0, -1]
    assert task.truth({"kind": here.truth("kind")})[:4].tolist() == [2, 0, 1, -1]


def test_a_class_that_training_never_saw_is_said_and_counts_as_unlabelled(survey, caplog):
    fold = survey.column("fold")
    words = np.where(fold == "train", np.where(np.arange(240) % 2 == 0, "a", "b"), "c").astype(object)
    words[fold == "valid"] = "a"
    here = labelled(survey, kind=words)
    with caplog.at_level(logging.WARNING, logger="deepsky"):
        task = CLASSIFY("kind").bind(here.fold("train"))
    assert "no object of the training fold has kind 'c'" in caplog.text
    assert task.classes == ("a", "b")
    assert not task.labelled(here.fold("test").gather(slice(None), truth=("kind",), observations=())).any()


@pytest.mark.parametrize(("n", "many"), [(240, 240), (240, 100), (30, 30), (30, 16)])
def test_ids_as_labels_are_refused(survey, n, many):
    words = np.array([f"id{i % many}" for i in range(n)], object)
    with pytest.raises(InputError, match="looks like a number or an id") as error:
        CLASSIFY("name").bind(labelled(survey.select(np.arange(n), "some"), name=words))
    assert f"{many} classes in {n} objects" in str(error.value)


def test_many_classes_of_some_objects_each_are_no_ids(survey):
    words = np.array([f"type {i % 24}" for i in range(240)], object)
    assert len(CLASSIFY("kind").bind(labelled(survey, kind=words)).classes) == 24


def test_one_class_or_none_is_refused(survey):
    one = labelled(survey, kind=np.array(["spiral"] * 240, object))
    with pytest.raises(InputError, match="at least two classes") as error:
        CLASSIFY("kind").bind(one)
    assert "only 'spiral'" in str(error.value)
    none = labelled(survey, kind=np.array([None] * 239 + ["a"], object))
    with pytest.raises(InputError, match="at least two classes"):
        CLASSIFY("kind").bind(none)


# -- numbers cut into classes -----------------------------------------------------------------------------------------
def test_edges_cut_numbers_and_a_value_on_an_edge_belongs_above_it(survey):
    values = np.full(240, np.nan)
    values[:7] = [-1, 0, 0.5, 1, 1.5, 2, 1e9]
    here = labelled(survey, v=values)
    task = CLASSIFY("v", edges=(0, 1, 2)).bind(here)
    assert task.classes == ("below 0", "0 to 1", "1 to 2", "2 and above")
    truth = task.truth({"v": here.truth("v")})
    assert truth[:7].tolist() == [0, 1, 1, 2, 2, 3, 3] and (truth[7:] == -1).all()
    assert task.prior == pytest.approx((1 / 7, 2 / 7, 2 / 7, 2 / 7))
    named = CLASSIFY("v", edges=1, classes=("faint", "bright")).bind(here)
    assert named.classes == ("faint", "bright") and named.truth({"v": here.truth("v")})[:4].tolist() == [0, 0, 0, 1]


def test_edges_that_cut_nothing_are_refused(survey):
    here = labelled(survey, v=np.arange(240.0))
    for edges, words in (
        ((300.0,), "at least two classes"),
        ((2.0, 1.0), "edges must rise"),
        ((1.0, 1.0), "must rise"),
    ):
        with pytest.raises(InputError, match=words):
            CLASSIFY("v", edges=edges).bind(here)
    with pytest.raises(InputError, match="only a column of numbers"):
        CLASSIFY("shape", edges=(1.0,)).bind(survey)
    with pytest.raises(InputError, match="one more class than edges"):
        CLASSIFY("v", edges=(1.0,), classes=("a", "b", "c")).bind(here)


# -- subclasses -------------------------------------------------------------------------------------------------------
PARTED = {"subclasses": "kind", "kinds": ("x1", "x2", "y1"), "parents": (0, 0, 1), "shares": (0.1, 0.3, 0.6)}


def parted(survey):
    """Long blobs in two kinds by their angle, the kind of every tenth blob unknown; round ones in one."""
    shape, e = survey.column("shape").astype(str), survey.truth("e").value.numpy()
    kind = np.where(shape == "long", np.where(e[:, 0] > 0, "flat", "steep"), "circle").astype(object)
    kind[::10] = None
    return labelled(survey, kind=kind)


def test_the_loss_of_subclasses_is_their_cross_entropy_and_an_unknown_one_is_shared_out():
    task = bound((0.4, 0.6), **PARTED)
    truth = codes([0, 1, 0, -1], "ab") | {"kind": Truth(torch.tensor([1, 2, -1, 0]), classes=("x1", "x2", "y1"))}
    log_q = F.log_softmax(LOGITS, -1)
    expected = [-log_q[0, 1], -log_q[1, 2], -(0.25 * log_q[2, 0] + 0.75 * log_q[2, 1]), 0.0]
    assert loss(task, LOGITS, truth).tolist() == pytest.approx([float(v) for v in expected])
    balanced = loss(replace(task, weights="balanced"), LOGITS, truth)
    shifted = F.log_softmax(LOGITS - torch.log(torch.tensor([0.4, 0.4, 0.6])), -1)
    assert float(balanced[0]) == pytest.approx(float(-shifted[0, 1]) / (2 * 0.4))


def test_the_probability_of_a_class_is_the_sum_over_its_subclasses():
    task = bound((0.4, 0.6), **PARTED)
    q = torch.softmax(LOGITS, -1)
    columns = task.answer(nn.Identity(), LOGITS, {}, np.zeros(4, np.uint64))
    assert set(columns) == {"p_a", "p_b", "class"}
    np.testing.assert_allclose(columns["p_a"], q[:, 0] + q[:, 1], rtol=1e-6)
    assert task.distribution(LOGITS).probs[:, 1].tolist() == pytest.approx(q[:, 2].tolist())
    assert task.head(7)(torch.zeros(1, 7)).shape == (1, 3)


def test_subclasses_are_learnt_from_the_training_fold_and_only_there(survey, tmp_path):
    here = parted(survey)
    made = train(CLASSIFY("shape", subclasses="kind"), here, network="convnet", steps=30, to=tmp_path / "model",
                 quiet=True)  # fmt: skip
    assert made.task.kinds == ("flat", "steep", "circle") and made.task.parents == (0, 0, 1)
    assert sum(made.task.shares) == pytest.approx(1, abs=1e-6) and made.baseline is not None
    found = predict(load(tmp_path / "model"), survey.fold("test"), quiet=True)  # which knows nothing of kinds
    assert {"p_long", "p_round", "class", "in_set_long"} <= set(found.table.column_names)
    assert "p_flat" not in found.table.column_names
    report = evaluate(made, survey.fold("test"))  # the test for a shift reads it without them, too
    assert report.questions["shape"].figures["ours"]["AUROC"].n == len(survey.fold("test"))
    both = found.column("p_long") + found.column("p_round")
    np.testing.assert_allclose(both, 1, atol=1e-6)


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_classical_family_learns_subclasses_too(survey, weights):
    here = parted(survey)
    task = CLASSIFY("shape", subclasses="kind", weights=weights)
    model = train(task, here, network="logistic", quiet=True)
    sample = here.fold("test").gather(slice(None))
    p = model.task.distribution(model.outputs(sample)[0]).probs
    truth = model.task.truth(sample.truth)
    assert p.shape[1] == 2 and (p.argmax(1).numpy() == truth).mean() > 0.8


def test_a_class_that_nothing_parts_is_its_own_subclass_and_a_shared_one_is_refused(survey):
    kind = np.where(survey.column("shape").astype(str) == "long", "flat", None).astype(object)
    task = CLASSIFY("shape", subclasses="kind").bind(labelled(survey, kind=kind))
    assert task.kinds == ("flat", "round, all") and task.parents == (0, 1)
    assert task.shares == pytest.approx(task.prior)
    with pytest.raises(InputError, match="belongs to two classes"):
        CLASSIFY("shape", subclasses="kind").bind(labelled(survey, kind=np.array(["one"] * 240, dtype=object)))
    with pytest.raises(InputError, match="nothing"):
        CLASSIFY("shape", subclasses="nothing").bind(survey)
    with pytest.raises(InputError, match="of one column"):
        CLASSIFY(("a", "b"), subclasses="kind")


# -- columns of numbers -----------------------------------------------------------------------------------------------
def test_fractions_outside_zero_to_one_and_text_are_refused(survey):
    good = np.full(240, 0.5)
    for bad, words in (
        (np.full(240, 7.0), "7 to 7"),
        (np.full(240, -0.1), "-0.1"),
        (np.full(240, np.nan), "no number"),
    ):
        with pytest.raises(InputError, match="fractions and multi-label columns hold numbers") as error:
            CLASSIFY(("a", "b")).bind(labelled(survey, a=good, b=bad))
        assert words in str(error.value) and "keyword b" in str(error.value)
    with pytest.raises(InputError, match="text such as"):
        CLASSIFY(("a", "shape")).bind(labelled(survey, a=good))


def test_settings_that_make_no_sense_are_refused_at_once():
    for options, words in (
        ({"weights": "even"}, "no such class weights"), ({"smoothing": 1.0}, "smoothing is a share"),
        ({"multilabel": True}, "need several columns"), ({"targets": ("a", "b"), "edges": 2}, "edges cut one column"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            CLASSIFY(**{"targets": "x", **options})
    with pytest.raises(InputError, match="no such setting") as error:
        tasks.build("classify", target="x")
    assert "did you mean 'targets'" in str(error.value)
    with pytest.raises(InputError, match="did you mean 'classify'"):
        tasks.build("clasify")


def test_a_classifier_without_a_target_is_refused(survey):
    with pytest.raises(InputError, match="needs a target"):
        CLASSIFY().bind(survey)
