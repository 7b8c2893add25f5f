"""Figures of classification against scikit-learn, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, softmax
from sklearn import metrics as sk

from deepsky.errors import InputError
from deepsky.metrics import classification as c


@pytest.fixture
def tied():
    """Scores on a coarse grid, so that most of them tie."""
    rng = np.random.default_rng(1)
    truth = rng.random(400) < 0.3
    return np.round(rng.normal(truth * 1.2, 1.0), 1), truth


def written_out(weight, *arrays):
    rows = np.repeat(np.arange(len(weight)), weight.astype(int))
    return [a[rows] for a in arrays]


def test_ranking_agrees_with_scikit_learn_with_ties(tied):
    scores, truth = tied
    assert len(np.unique(scores)) < 80
    assert c.auroc(scores, truth) == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-12)
    assert c.average_precision(scores, truth) == pytest.approx(sk.average_precision_score(truth, scores), abs=1e-12)
    made = c.curve(scores, truth)
    fpr, tpr, threshold = sk.roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(made.fpr, fpr)
    np.testing.assert_allclose(made.tpr, tpr)
    np.testing.assert_array_equal(made.threshold, threshold)
    purity, completeness, _ = sk.precision_recall_curve(truth, scores)
    np.testing.assert_allclose(made.purity[1:], purity[-2::-1])
    np.testing.assert_allclose(made.tpr[1:], completeness[-2::-1])
    assert np.isnan(made.purity[0])  # nothing selected has no purity


def test_auroc_is_the_chance_of_a_right_order_ties_half(tied):
    scores, truth = tied
    apart = scores[truth][:, None] - scores[~truth][None, :]
    assert c.auroc(scores, truth) == pytest.approx(np.mean((apart > 0) + 0.5 * (apart == 0)), abs=1e-12)


def test_auroc_of_two_gaussians_is_phi_of_d_over_root_two():
    rng = np.random.default_rng(0)
    n, d = 200_000, 1.3
    truth = np.arange(2 * n) < n
    value = c.auroc(rng.normal(d * truth, 1.0), truth)
    exact = ndtr(d / np.sqrt(2))
    assert abs(value - exact) < 4 * np.sqrt(exact * (1 - exact) / n)


def test_auroc_of_one_class_or_constant_scores():
    assert np.isnan(c.auroc([0.1, 0.2], [1, 1]))
    assert np.isnan(c.auroc([], []))
    assert c.auroc(np.zeros(10), np.arange(10) % 2) == 0.5


@pytest.mark.parametrize("count", [0, 1, 5, 10])
def test_tpr_at_false_positives_is_the_brute_force_maximum(tied, count):
    scores, truth = tied
    brute = 0.0
    for t in [*np.unique(scores), np.inf]:
        above = scores >= t
        if (above & ~truth).sum() < max(count, 1):
            brute = max(brute, (above & truth).sum() / truth.sum())
    assert c.tpr_at_false_positives(scores, truth, count) == pytest.approx(brute, abs=1e-12)


def test_tpr0_and_tpr10_by_hand():
    # falling scores: 3 true, 1 false, 2 true, 9 false, 1 true, 1 false
    truth = np.array([1] * 3 + [0] + [1] * 2 + [0] * 9 + [1] + [0])
    scores = -np.arange(len(truth), dtype=float)
    assert c.tpr_at_false_positives(scores, truth, 0) == 3 / 6
    assert c.tpr_at_false_positives(scores, truth, 10) == 5 / 6  # the tenth false positive stands before the sixth lens
    assert c.tpr_at_false_positives(scores, truth, 11) == 1.0
    scores[2] = scores[3]  # a lens that ties with the first false positive is lost
    assert c.tpr_at_false_positives(scores, truth, 0) == 2 / 6
    assert c.tpr_at_fpr(scores, truth, 1 / 11) == 5 / 6
    assert c.tpr_at_fpr(scores, truth, 0.0) == 2 / 6


def test_ten_of_fifty_thousand_is_a_rate_of_two_in_ten_thousand():
    truth = np.array([1] + [0] * 10 + [1] + [0] * 49_990)
    scores = -np.arange(len(truth), dtype=float)
    assert c.tpr_at_fpr(scores, truth, 2e-4) == 1.0  # rounding does not lose the tenth
    assert c.tpr_at_false_positives(scores, truth, 10) == 0.5


def test_at_a_threshold_agrees_with_scikit_learn(tied):
    scores, truth = tied
    picked = scores >= 0.7
    assert c.completeness(scores, truth, 0.7) == pytest.approx(sk.recall_score(truth, picked))
    assert c.purity(scores, truth, 0.7) == pytest.approx(sk.precision_score(truth, picked))
    assert c.f1(scores, truth, 0.7) == pytest.approx(sk.f1_score(truth, picked))
    assert np.isnan(c.purity(scores, truth, 99.0))
    efficiency, true, false = sk.recall_score(truth, picked), (picked & truth).sum(), (picked & ~truth).sum()
    assert c.fom_snpcc(scores, truth, 0.7) == pytest.approx(efficiency * true / (true + 3 * false))


def test_purity_at_prevalence_is_bayes_and_the_own_prevalence_changes_nothing(tied):
    scores, truth = tied
    assert c.purity_at_prevalence(scores, truth, 0.7, truth.mean()) == pytest.approx(c.purity(scores, truth, 0.7))
    # a made-up survey of the declared prevalence: every negative stands there 50 times
    w = np.where(truth, 1.0, 50.0)
    rare = truth.sum() / w.sum()
    assert c.purity_at_prevalence(scores, truth, 0.7, rare) == pytest.approx(c.purity(scores, truth, 0.7, weight=w))
    with pytest.raises(InputError, match="prevalence"):
        c.purity_at_prevalence(scores, truth, 0.7, 50)


def test_completeness_at_purity_is_the_brute_force_maximum(tied):
    scores, truth = tied
    brute = max(
        c.completeness(scores, truth, t)
        for t in np.unique(scores)
        if c.purity_at_prevalence(scores, truth, t, 0.05) >= 0.3
    )
    assert c.completeness_at_purity(scores, truth, 0.3, prevalence=0.05) == pytest.approx(brute)
    assert c.completeness_at_purity(scores, truth, 1.1) == 0.0


def test_expected_true_counts_the_list_itself_and_scales_to_a_survey():
    rng = np.random.default_rng(3)
    truth = rng.random(300) < 0.4
    scores = rng.normal(truth, 1.0)
    top = np.argsort(-scores)[:50]
    assert c.expected_true(scores, truth, 50) == pytest.approx(truth[top].sum())
    assert c.expected_true(scores, truth, 300) == pytest.approx(truth.sum())
    # a survey a hundred times as large, of the same prevalence
    assert c.expected_true(scores, truth, 5000, 30_000, truth.mean()) == pytest.approx(100 * truth[top].sum())
    # scores that say nothing: the list has the survey's prevalence
    assert c.expected_true(np.zeros(300), truth, 1000, 10**6, 0.001) == pytest.approx(1.0)
    with pytest.raises(InputError, match="follow-up"):
        c.expected_true(scores, truth, 301)


def test_expected_true_by_simulating_surveys():
    rng = np.random.default_rng(4)
    truth = np.arange(40_000) < 8_000
    scores = rng.normal(2.0 * truth, 1.0)
    found = []
    for _ in range(60):
        lens = np.concatenate([rng.choice(8_000, 50), rng.integers(8_000, 40_000, 4_950)])
        listed = lens[np.argsort(-scores[lens])[:100]]
        found.append(truth[listed].sum())
    mean, error = np.mean(found), np.std(found) / np.sqrt(len(found))
    assert c.expected_true(scores, truth, 100, 5_000, 0.01) == pytest.approx(mean, abs=4 * error)


def test_several_classes_agree_with_scikit_learn():
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 4, 500)
    p = softmax(rng.normal(0, 1, (500, 4)) + 1.5 * np.eye(4)[truth], axis=1)
    picked = p.argmax(1)
    np.testing.assert_array_equal(c.confusion(p, truth), sk.confusion_matrix(truth, picked))
    for ours, theirs in (
        (c.accuracy, sk.accuracy_score),
        (c.balanced_accuracy, sk.balanced_accuracy_score),
        (c.macro_f1, lambda t, q: sk.f1_score(t, q, average="macro")),
    ):
        assert ours(p, truth) == ours(picked, truth) == pytest.approx(theirs(truth, picked))
    assert c.log_loss(p, truth) == pytest.approx(sk.log_loss(truth, p))
    assert c.brier(p, truth) == pytest.approx(((p - np.eye(4)[truth]) ** 2).sum(1).mean())
    macro = c.macro_one_vs_rest(c.auroc)
    assert macro(p, truth) == pytest.approx(sk.roc_auc_score(truth, p, multi_class="ovr"))
    each = c.one_vs_rest(c.average_precision, p, truth)
    assert each == pytest.approx([sk.average_precision_score(truth == k, p[:, k]) for k in range(4)])
    assert "Area under the ROC" in macro.__doc__


def test_two_classes_give_the_same_as_one_column_and_as_two():
    rng = np.random.default_rng(6)
    p, truth = rng.random(200), rng.integers(0, 2, 200)
    two = np.stack([1 - p, p], axis=1)
    for figure, theirs in ((c.brier, sk.brier_score_loss), (c.log_loss, sk.log_loss)):
        assert figure(p, truth) == pytest.approx(figure(two, truth)) == pytest.approx(theirs(truth, p))
    assert c.accuracy(p, truth) == c.accuracy(two, truth) == c.accuracy(p >= 0.5, truth)


def test_a_class_that_does_not_occur_is_left_out_of_the_mean():
    truth, picked = np.array([0, 0, 2, 2]), np.array([0, 0, 2, 0])
    assert c.balanced_accuracy(picked, truth) == pytest.approx(0.75)
    assert c.macro_f1(picked, truth) == pytest.approx((0.8 + 2 / 3) / 2)
    assert c.confusion(picked, truth, classes=4).shape == (4, 4)


FIGURES = {
    "auroc": c.auroc,
    "average_precision": c.average_precision,
    "tpr0": lambda s, t, weight=None: c.tpr_at_false_positives(s, t, 0, weight),
    "tpr10": lambda s, t, weight=None: c.tpr_at_false_positives(s, t, 10, weight),
    "tpr_at_fpr": lambda s, t, weight=None: c.tpr_at_fpr(s, t, 0.1, weight),
    "completeness": c.completeness,
    "purity": c.purity,
    "purity_at_prevalence": lambda s, t, weight=None: c.purity_at_prevalence(s, t, 0.5, 0.01, weight),
    "completeness_at_purity": lambda s, t, weight=None: c.completeness_at_purity(s, t, 0.6, None, weight),
    "expected_true": lambda s, t, weight=None: c.expected_true(s, t, 30, weight=weight),
    "accuracy": c.accuracy,
    "balanced_accuracy": c.balanced_accuracy,
    "macro_f1": c.macro_f1,
    "f1": c.f1,
    "fom_snpcc": c.fom_snpcc,
    "brier": c.brier,
    "log_loss": c.log_loss,
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_weight_is_the_same_as_writing_the_object_out(name):
    rng = np.random.default_rng(7)
    truth = rng.random(150) < 0.4
    p = np.round(1 / (1 + np.exp(-rng.normal(2 * truth - 1, 1.5))), 2)
    times = rng.poisson(1.0, (6, 150)).astype(float)
    each = FIGURES[name](p, truth, weight=times)
    assert each.shape == (6,)
    assert each == pytest.approx([FIGURES[name](*written_out(w, p, truth)) for w in times], abs=1e-10)
    assert isinstance(FIGURES[name](p, truth), float)


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(InputError, match="scores is not finite for 1 of 2"):
        c.auroc([np.nan, 1.0], [0, 1])
    assert c.auroc([-np.inf, np.inf], [0, 1]) == 1.0  # a likelihood ratio may be infinite
    with pytest.raises(InputError, match="zeros and ones"):
        c.auroc([0.1, 0.2, 0.3], [0, 1, 2])
    with pytest.raises(InputError, match="different length"):
        c.auroc([0.1, 0.2], [0, 1, 1])
    with pytest.raises(InputError, match="without a label"):
        c.accuracy([0, 1], [0, -1])
    with pytest.raises(InputError, match="sum to 1"):
        c.brier(np.array([[0.5, 0.9]]), [1])
    with pytest.raises(InputError, match="codes"):
        c.accuracy(np.array(["a", "b"]), np.array(["a", "b"]))
    with pytest.raises(InputError, match="weight"):
        c.auroc([0.1, 0.2], [0, 1], weight=[1.0])
    with pytest.raises(InputError, match="not negative"):
        c.auroc([0.1, 0.2], [0, 1], weight=[1.0, -1.0])
