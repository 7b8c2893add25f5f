"""Judging: against formulas, against the same figures one by one, and on samples whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit, ndtri
from tests import made_up
from tests.report import answered

from deepsky import judging
from deepsky.errors import InputError
from deepsky.judging import Answers, caveats, drawing, merit
from deepsky.judging.answering import is_redshift
from deepsky.metrics import calibration, classification, regression, tpr0
from deepsky.metrics.binning import quantile_bins
from deepsky.metrics.intervals import bootstrap, paired_difference
from deepsky.schema import Column
from deepsky.survey import Survey
from deepsky.tasks._densities import LEVELS
from deepsky.tasks.classify import Classify
from deepsky.tasks.regress import Regress

G = np.random.default_rng(0)
Y = (G.random(600) < 0.3).astype(np.int64)
GROUPS = np.arange(600) // 3
P = expit(2 * (2 * (Y - 0.5) + G.normal(size=600)))
WORSE = expit(1 * (1 * (Y - 0.5) + G.normal(size=600)))


def binary(p: np.ndarray = P) -> Answers:
    return Answers("binary", p, Y, ("no", "lens"))


def several(skill: float = 1.5) -> Answers:
    y = G.integers(0, 3, 500)
    e = np.exp(skill * np.eye(3)[y] + G.normal(size=(500, 3)))
    return Answers("classes", e / e.sum(1, keepdims=True), y, ("a", "b", "c"), member=e > 1)


def values(sigma: float = 0.2, claimed: float | None = None, n: int = 700) -> Answers:
    g = np.random.default_rng(3)
    y = g.normal(size=n)
    said = y + sigma * g.normal(size=n)
    q = said[:, None] + (claimed or sigma) * ndtri(np.array(LEVELS))
    reach = 1.645 * (claimed or sigma)
    return Answers("values", said, y, ("mass",), "dex", q, LEVELS, said - reach, said + reach, level=0.9)


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return answered.survey(tmp_path_factory.mktemp("judging") / "blobs", 200)


# -- questions ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("lens", "not"), 0), (("0", "1"), 1), (("galaxy", "star"), 1), (("a", "b"), 1), (("star", "lens"), 1),
        (("merger", "non-merger"), 0), (("lensed", "unlensed"), 0), (("barred", "unbarred"), 0), (("bar", "no bar"), 0),
        (("cluster", "field"), 0), (("artifact", "clean"), 0), (("False", "True"), 1), (("disc", "not_disc"), 0),
        (("lens", "nonlens"), 0), (("lens", "other"), 0), (("other", "ring"), 1), (("bogus", "real"), 1),
        (("dwarf", "normal"), 0), (("nova", "supernova"), 1), (("giant", "unicorn"), 1), (("merger", "None"), 0),
    ],
)  # fmt: skip
def test_the_positive_class(classes: tuple[str, ...], expected: int) -> None:
    for prior in ((), (0.5, 0.5)):
        assert judging.looked_for(classes, prior) == expected
        assert judging.looked_for(classes[::-1], prior) == (1 - expected if _told(classes) else 1)
    assert judging.looked_for(classes, given=classes[0]) == 0


def _told(classes: tuple[str, ...]) -> bool:
    """Whether the names say which class is looked for."""
    return classes not in {("galaxy", "star"), ("a", "b"), ("nova", "supernova"), ("giant", "unicorn")}


def test_where_no_name_tells_the_rarer_class_is_looked_for_and_a_given_one_is_obeyed() -> None:
    assert judging.looked_for(("QSO", "galaxy"), (0.03, 0.97)) == 0
    assert judging.looked_for(("galaxy", "star"), (0.4, 0.6)) == 0
    assert judging.looked_for(("lens", "other"), (0.9, 0.1)) == 0  # a name outweighs the shares
    assert judging.looked_for(("QSO", "galaxy"), (0.03, 0.97), "galaxy") == 1
    with pytest.raises(InputError, match="no such class") as error:
        judging.looked_for(("merger", "non-merger"), given="mergers")
    assert "did you mean 'merger'" in str(error.value)


def test_two_classes_put_the_positive_one_last(survey: Survey) -> None:
    words = np.where(survey.column("shape") == "long", "lens", "other").astype(object)
    column = {"what": Column("str", role="label", classes=("lens", "other"))}
    here = survey.with_columns({"what": pa.array(words.tolist())}, column)
    q = judging.known(Classify("what").bind(here), here)["what"]
    assert q.kind == "binary" and q.names == ("other", "lens") and q.columns == ("p_other", "p_lens")
    assert ((q.truth == 1) == (words == "lens")).all()


def test_labels_that_the_task_does_not_know_are_counted(survey: Survey) -> None:
    task = Classify("kind").bind(survey)
    words = survey.column("kind").copy()
    words[:7] = "ring"
    words[7:10] = None
    column = {"kind": Column("str", role="label", classes=("disk", "irregular", "ring", "spheroid"))}
    here = survey.with_columns({"kind": pa.array(words.tolist(), pa.string())}, column)
    q = judging.known(task, here)["kind"]
    assert q.strange == {"ring": 7}
    assert not q.has[:10].any() and q.has[10:].all()
    check = caveats.of_answers(several(), q, {}, {})["classes that the model does not know"]
    assert check.mark == "warn" and "ring (7)" in check.words


def test_columns_of_zeros_and_ones_are_binary_and_fractions_are_values(survey: Survey) -> None:
    n = len(survey)
    bits, shares = np.arange(n) % 2.0, np.linspace(0, 1, n)
    columns = {name: Column(role="label") for name in ("bar", "arm")}
    here = survey.with_columns({"bar": bits, "arm": shares}, columns)
    task = Classify(("bar", "arm"), multilabel=True).bind(here)
    q = judging.known(task, here)
    assert q["bar"].kind == "binary" and q["arm"].kind == "values"
    cat = answered.catalogue({"p_bar": np.full(n, 0.25), "p_arm": shares + 0.1}, here.id)
    at = np.arange(n)
    assert judging.answers(q["bar"], cat, at, at).scores[0] == 0.25
    a = judging.answers(q["arm"], cat, at, at)
    assert judging.figures(a)["bias"].value == pytest.approx(0.1)


def test_limits_are_no_values(survey: Survey) -> None:
    limit = np.zeros(len(survey))
    limit[:30] = 1
    column = {"depth": Column(unit="mag", role="label", limit="depth_limit")}
    here = survey.with_columns({"depth": np.linspace(1, 2, len(survey)), "depth_limit": limit}, column)
    q = judging.known(Regress("depth").bind(here), here)["depth"]
    assert q.censored == 30 and not q.has[:30].any() and q.has[30:].all()


# -- figures --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [binary, several, values])
@pytest.mark.parametrize("groups", [None, "groups"])
def test_all_figures_at_once_equal_each_alone(make: object, groups: object) -> None:
    first = make()  # type: ignore[operator]
    second = {"binary": lambda: binary(WORSE), "classes": lambda: first, "values": lambda: values(0.3)}[first.kind]()
    g = None if groups is None else (np.arange(len(first)) // 3)
    found, apart = judging.compared({"ours": first, "classical": second}, g, replicates=60)
    for name, (metric, arrays) in judging.table(first).items():
        biased = name in merit.BIASED
        alone = bootstrap(metric, *arrays, groups=g, replicates=60, biased=biased)
        assert str(found["ours"][name]) == str(alone), name
        assert len(found["ours"][name].definition) > 5
        way = judging.better(name)
        if way is None:
            assert name not in apart["classical"]
            continue
        other = judging.table(second)[name][1]
        options: Any = {"better": way, "replicates": 60, "biased": biased}
        if len(arrays) == 2:
            one = paired_difference(metric, arrays[0], other[0], arrays[1], g, **options)
        else:  # a figure of residuals or of single objects

            def alone_of(x: np.ndarray, _: np.ndarray, weight: object = None, metric: object = metric) -> object:
                return metric(x, weight=weight)  # type: ignore[operator]

            one = paired_difference(alone_of, arrays[0], other[0], arrays[0], g, **options)
        both = apart["classical"][name]
        assert both.verdict == one.verdict, name
        ends = [(d.estimate.value, d.estimate.low, d.estimate.high) for d in (both, one)]
        assert ends[0] == pytest.approx(ends[1], nan_ok=True), name


def test_figures_of_the_shared_curve_are_those_of_the_metrics() -> None:
    g = np.random.default_rng(5)
    y = (np.arange(merit.TPR_NEGATIVES + 900) < 900).astype(np.int64)
    s = np.round(g.normal(size=len(y)) + 3 * y, 1)  # with ties
    times = g.integers(0, 3, (2, len(y))).astype(float)
    t = judging.table(Answers("binary", expit(s), y, ("no", "lens")))
    for name, direct in {
        "AUROC": classification.auroc,
        "average precision": classification.average_precision,
        "TPR0": lambda p, y, weight: classification.tpr_at_false_positives(p, y, 0, weight),
        "TPR10": lambda p, y, weight: classification.tpr_at_false_positives(p, y, 10, weight),
        "TPR at FPR 0.0002": lambda p, y, weight: classification.tpr_at_fpr(p, y, 2e-4, weight),
        "TPR at FPR 0.01": lambda p, y, weight: classification.tpr_at_fpr(p, y, 0.01, weight),
    }.items():
        metric, arrays = t[name]
        for weight in (None, times):
            assert metric(*arrays, weight) == pytest.approx(direct(*arrays, weight=weight)), name


def test_a_better_system_is_ahead_and_the_other_behind() -> None:
    _, forth = judging.compared({"a": binary(), "b": binary(WORSE)}, None, replicates=200)
    _, back = judging.compared({"b": binary(WORSE), "a": binary()}, None, replicates=200)
    for name in ("AUROC", "log loss", "Brier"):
        assert forth["b"][name].verdict == "ahead" and back["a"][name].verdict == "behind"
    _, same = judging.compared({"a": binary(), "b": binary()}, None, replicates=50)
    assert {d.verdict for d in same["b"].values()} == {"equal"}


@pytest.mark.parametrize("few", [1, 9, 10])
def test_no_verdict_rests_on_a_handful_of_objects(few: int) -> None:
    g = np.random.default_rng(2)
    y = (np.arange(400) < few).astype(np.int64)
    right = Answers("binary", expit(8 * y - 4 + g.normal(size=400)), y, ("no", "rare"))
    wrong = Answers("binary", expit(4 - 8 * y + g.normal(size=400)), y, ("no", "rare"))
    _, apart = judging.compared({"a": right, "b": wrong}, None, replicates=50)
    words = f"too few to tell: {few} object{'' if few == 1 else 's'} of rare"
    assert {d.verdict for d in apart["b"].values()} == ({words} if few < 10 else {"ahead"})
    three = [
        Answers("classes", np.eye(3)[k], np.array([2] * few + [0, 1] * 100), ("a", "b", "rare"))
        for k in (np.array([2] * few + [0, 1] * 100), np.zeros(few + 200, np.int64))
    ]
    _, apart = judging.compared({"a": three[0], "b": three[1]}, None, replicates=50)
    assert apart["b"]["accuracy"].verdict == "ahead"  # of all objects
    assert apart["b"]["macro F1"].verdict == (words if few < 10 else "ahead")
    short = judging.subset(values(), np.arange(few))
    _, apart = judging.compared({"a": short, "b": short}, None, replicates=20)
    assert {d.verdict for d in apart["b"].values()} == {words.removesuffix(" of rare") if few < 10 else "equal"}


@pytest.mark.parametrize("miss", [0.0, 0.1])
def test_the_interval_of_a_distance_holds_what_samples_of_its_size_show(miss: float) -> None:
    g = np.random.default_rng(8)

    def sample(n: int = 150) -> Answers:
        p = g.uniform(0.2, 0.8, n)
        return Answers("binary", p, (g.random(n) < p + miss).astype(np.int64), ("no", "lens"))

    expected = np.mean([calibration.ece(a.scores, a.truth) for a in (sample() for _ in range(500))])
    found = [judging.compared({"": sample()}, None, replicates=150, only=("ECE",))[0][""]["ECE"] for _ in range(60)]
    assert all(0 <= e.low <= e.value <= e.high for e in found)
    assert np.mean([e.low <= expected <= e.high for e in found]) > 0.85
    posterior = judging.figures(judging.subset(values(), np.arange(80)), replicates=100)["PIT KS"]
    assert posterior.low < posterior.value < posterior.high
    a = sample()
    alone = bootstrap(calibration.ece, a.scores, a.truth, replicates=50, biased=True)
    both = judging.figures(a, replicates=50)["ECE"]
    assert (alone.low, alone.high) == (both.low, both.high)


def test_every_figure_has_a_direction_or_is_a_coverage() -> None:
    names = {n for a in (binary(), several(), values()) for n in judging.table(a)}
    assert {n for n in names if judging.better(n) is None} == {
        "coverage 68%", "coverage 95%", "conformal coverage",
    }  # fmt: skip
    lower = {n for n in names if judging.better(n) == "lower"}
    assert lower == {"log loss", "Brier", "ECE", "RMSE", "MAE", "CRPS", "PIT KS", "sigma_NMAD", "outliers"}


def test_tpr0_is_quoted_only_with_enough_negatives() -> None:
    g = np.random.default_rng(1)
    y = (np.arange(merit.TPR_NEGATIVES + 50) < 50).astype(np.int64)
    many = Answers("binary", g.random(len(y)), y, ("no", "lens"))
    assert {"TPR0", "TPR10", "TPR at FPR 0.0002"} <= set(judging.table(many))
    few = set(judging.table(binary()))
    assert not {"TPR0", "TPR10", "TPR at FPR 0.0002"} & few and "TPR at FPR 0.01" in few


def test_tpr0_has_the_interval_that_a_highest_negative_asks_for() -> None:
    g = np.random.default_rng(2)
    y = (np.arange(merit.TPR_NEGATIVES + 2000) < 2000).astype(np.int64)
    s = g.normal(size=len(y)) + 3.5 * y
    ours, theirs = (Answers("binary", expit(x), y, ("no", "lens")) for x in (s, s + g.normal(0, 0.3, len(y))))
    found, apart = judging.compared({"ours": ours, "theirs": theirs}, None, replicates=100, only=("TPR0",))
    own = tpr0.tpr0(expit(s), y, replicates=100)
    assert found["ours"]["TPR0"].json() == own.json() and own.low < own.value < own.high
    pair = tpr0.tpr0_difference(ours.scores, theirs.scores, y, replicates=100)
    assert apart["theirs"]["TPR0"].json() == pair.json()


def test_outliers_with_weights_are_those_of_the_sample_written_out() -> None:
    r = np.concatenate([G.normal(size=200), [30.0, -40.0]])
    times = np.random.default_rng(2).integers(0, 4, (5, len(r)))
    for row, found in zip(times, merit.outliers(r, weight=times), strict=True):
        x = np.repeat(r, row)
        far = np.abs(x - np.median(x)) > 5 * 1.4826 * np.median(np.abs(x - np.median(x)))
        assert found == pytest.approx(far.mean())


def test_redshifts_are_judged_by_dz() -> None:
    z = np.linspace(0.1, 3, 200)
    a = Answers("values", z + 0.2 * (1 + z), z, ("redshift",), redshift=True)
    t = judging.figures(a)
    assert t["bias"].value == pytest.approx(0.2) and t["outliers"].value == 1.0
    assert "0.15" in t["outliers"].definition


@pytest.mark.parametrize(("name", "unit", "values", "redshift"), [
    ("z", "", (0.1, 1.3, 7.0), True), ("Z_SPEC", "", (0.1, 0.2, 0.3), True), ("z", "mag", (0.1, 1.3, 7.0), False),
    ("z", "", (19.0, 21.5, 22.0), False), ("mass", "", (0.1, 0.2, 0.3), False), ("z", "", (), True),
])  # fmt: skip
def test_a_magnitude_in_the_band_z_is_no_redshift(
    name: str, unit: str, values: tuple[float, ...], redshift: bool
) -> None:
    assert is_redshift(name, unit, np.array(values)) == redshift


def test_the_constant_scores_what_its_formula_says() -> None:
    share = Y.mean()
    flat = judging.constant(binary(), {"no": 1 - share, "lens": share})
    f = judging.figures(flat)
    assert f["log loss"].value == pytest.approx(-share * np.log(share) - (1 - share) * np.log(1 - share))
    assert f["Brier"].value == pytest.approx(share * (1 - share))
    assert f["AUROC"].value == 0.5 and np.isnan(f["AUROC"].low)
    v = values()
    flat = judging.constant(v, {}, v.truth)
    assert judging.figures(flat)["MAE"].value == pytest.approx(np.abs(v.truth - np.median(v.truth)).mean())
    assert judging.figures(flat)["PIT KS"].value < 0.05  # the training distribution is calibrated


def test_right_posteriors_are_calibrated_and_narrow_ones_are_not() -> None:
    right, narrow = judging.figures(values()), judging.figures(values(claimed=0.1))
    assert right["coverage 68%"].low < 0.68 < right["coverage 68%"].high
    assert narrow["coverage 68%"].high < 0.6 and narrow["CRPS"].value > right["CRPS"].value
    cut = quantile_bins(values().truth, 3)
    flagged = judging.binned({"ours": values(claimed=0.1)}, cut, None, replicates=20)
    assert all({"coverage 68%", "conformal coverage"} <= set(b.miss) for b in flagged)
    assert not any(b.miss for b in judging.binned({"ours": values()}, cut, None, replicates=20))
    assert sum(b.n for b in flagged) == 700


def test_bins_hold_the_paired_change() -> None:
    cut = quantile_bins(np.arange(600.0), 3)
    made = judging.binned({"ours": binary(), "classical": binary(WORSE)}, cut, GROUPS, replicates=100)
    assert [b.paired["AUROC"].verdict for b in made] == ["ahead"] * 3
    b = made[1]
    alone = classification.auroc(P[cut[1].rows], Y[cut[1].rows])
    assert b.figures["ours"]["AUROC"].value == pytest.approx(alone)


@pytest.mark.parametrize("nothing", [np.nan, 0.0])
@pytest.mark.parametrize("code", [1, 0])
def test_a_column_of_one_class_is_held_against_all_of_the_other(survey: Survey, nothing: float, code: int) -> None:
    here = survey_of(len(Y), np.where(code == Y, np.arange(len(Y)), nothing), survey)
    everybody = {"ours": binary(), "classical": binary(WORSE)}
    made, name = judging.in_bins(everybody, here, "radius", np.arange(len(Y)), None, replicates=200)
    assert name == ("no", "lens")[code] and len(made) == int((code == Y).sum()) // 100
    others = P[code != Y]
    for b in made:
        mine = P[(code == Y) & (np.arange(len(Y)) >= b.low) & (np.arange(len(Y)) <= b.high)]
        assert (b.n, b.against) == (len(mine), len(others))
        above = (mine[:, None] > others).mean()  # no scores tie
        assert b.figures["ours"]["AUROC"].value == pytest.approx(above if code else 1 - above)
        assert b.figures["ours"]["AUROC"].low < b.figures["ours"]["AUROC"].value < b.figures["ours"]["AUROC"].high
        assert not {"purity", "log loss"} & set(b.figures["ours"])
        if code:
            assert b.figures["ours"]["completeness"].value == pytest.approx((mine >= 0.5).mean())
            at = np.sort(others)[-int(0.01 * len(others)) - 1]  # one score more than the rate allows
            assert b.figures["ours"]["TPR at FPR 0.01"].value == pytest.approx((mine > at).mean())
        else:
            assert "completeness" not in b.figures["ours"]  # that of all lenses, in every bin
        assert b.paired["AUROC"].first == b.figures["ours"]["AUROC"].value
    assert made[0].json()["against"] == len(others)


def test_which_class_has_a_column() -> None:
    a, n = binary(), len(Y)
    free = np.random.default_rng(5).random(n)
    assert judging.owner(a, free) is None and judging.owner(a, np.zeros(n)) is None
    assert judging.owner(a, np.where(Y == 1, free, np.nan)) == 1
    assert judging.owner(a, np.where(Y == 1, np.nan, free)) == 0
    assert judging.owner(a, np.where(Y == 1, free, np.where(free < 0.5, np.nan, 0.0))) == 1
    kinds = np.where(Y == 1, "lens", np.where(free < 0.5, "spiral", "ring")).astype(object)
    assert judging.owner(a, kinds) == 0
    assert judging.owner(a, np.where(Y == 1, kinds, None)) is None  # nobody has values that differ
    few = judging.subset(a, np.concatenate([np.flatnonzero(Y == 1), np.flatnonzero(Y == 0)[:3]]))
    assert judging.owner(few, np.where(few.truth == 1, free[: len(few)], 0.0)) is None  # three may agree by chance
    assert judging.owner(judging.subset(a, np.flatnonzero(Y == 1)), free[: Y.sum()]) is None
    assert judging.owner(several(), free[:500]) is None


def survey_of(n: int, radius: np.ndarray, survey: Survey) -> Survey:
    rows = np.arange(n) % len(survey)
    return survey.select(rows, "many").with_columns({"radius": radius}, {"radius": Column(unit="arcsec")})


# -- what is drawn ----------------------------------------------------------------------------------------------
def test_curves_equal_the_figures_at_their_points() -> None:
    made = drawing.ranked(binary(), GROUPS, 80)
    roc = made["roc"]
    for i in (1, 40, 120, 200):
        assert roc["tpr"][i] == pytest.approx(classification.tpr_at_fpr(P, Y, roc["fpr"][i]))
    assert all(lo <= t <= hi for lo, t, hi in zip(roc["low"], roc["tpr"], roc["high"], strict=True) if lo == lo)
    assert np.mean(np.isfinite(roc["low"])) > 0.9
    for f in made["follow-up"]["figures"]:
        exact = classification.expected_true(P, Y, f["listed"], drawing.SURVEY, f["prevalence"])
        assert f["true"]["value"] == pytest.approx(exact)
    one = made["follow-up"]["figures"][-7]
    assert one["prevalence"] == 1e-3 and one["listed"] == 3000

    def expected(s: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> object:
        return classification.expected_true(s, y, one["listed"], drawing.SURVEY, one["prevalence"], weight)

    alone = bootstrap(expected, P, Y, groups=GROUPS, replicates=80)
    assert (one["true"]["low"], one["true"]["high"]) == pytest.approx((alone.low, alone.high), nan_ok=True)


def test_purity_at_a_prevalence_follows_from_the_rates() -> None:
    for f in drawing.ranked(binary(), None, 20)["prevalence"]["figures"]:
        positives = np.sort(P[Y == 1])[::-1]
        t = positives[int(np.ceil(f["completeness"] * len(positives))) - 1]  # the highest threshold that complete
        p = f["prevalence"]
        tpr, fpr = (P[Y == 1] >= t).mean(), (P[Y == 0] >= t).mean()
        assert f["purity"]["value"] == pytest.approx(p * tpr / (p * tpr + (1 - p) * fpr))
        assert f["false positives"] == int((P[Y == 0] >= t).sum())


def test_one_class_only_draws_nothing_and_does_not_fail() -> None:
    one = Answers("binary", P, np.ones(600, np.int64), ("no", "lens"))
    made = judging.curves({"ours": one}, None)
    assert made["roc"]["ours"] == {} and made["follow-up"]["ours"] == {}
    assert np.isnan(judging.figures(one, replicates=20)["AUROC"].value)


def test_histogram_of_the_pit_and_coverage() -> None:
    made = judging.curves({"ours": values()}, None)
    pit = made["pit"]["ours"]
    assert sum(pit["counts"]) == 700
    inside = [pit["low"] <= c <= pit["high"] for c in pit["counts"]]
    assert np.mean(inside) >= 0.8  # 95% expected of right posteriors
    nominal, share = np.array(made["coverage"]["ours"]["nominal"]), np.array(made["coverage"]["ours"]["share"])
    assert np.abs(share[:, 0] - nominal).max() < 0.06
    bound = made["conformal"]["ours"]
    assert sum(bound["n"]) == 700 and np.average([s[0] for s in bound["share"]], weights=bound["n"]) == pytest.approx(
        judging.figures(values())["conformal coverage"].value
    )


def test_confusion_and_sets_count_every_object() -> None:
    a = several()
    made = judging.curves({"ours": a}, None, replicates=20)
    assert np.sum(made["confusion"]["ours"]["counts"]) == 500
    sets = made["conformal sets"]["ours"]
    assert sum(sets["sizes"]) == 500 and sum(s["n"] for s in sets["coverage"]) == 500
    got = np.diag(made["confusion"]["ours"]["counts"]).sum() / 500
    assert got == pytest.approx(judging.figures(a)["accuracy"].value)


def test_running_quantiles_ignore_what_is_not_measured() -> None:
    x = np.array([*np.linspace(0, 1, 200), np.nan])
    y = np.array([*np.linspace(0, 1, 200), 1e9])
    made = drawing.running(x, y)
    assert sum(made["n"]) == 200 and max(q[1] for q in made["quantiles"]) < 1
    assert regression.bias(y[:-1]) == pytest.approx(0.5)


# -- what to beware of ------------------------------------------------------------------------------------------
def test_another_prevalence_is_said(survey: Survey) -> None:
    q = judging.known(Classify("shape").bind(survey), survey)["shape"]
    a = Answers("binary", P, Y, q.names)
    alike = caveats.of_answers(a, q, {q.names[0]: 0.7, q.names[1]: 0.3}, {})["class prior"]
    other = caveats.of_answers(a, q, {q.names[0]: 0.99, q.names[1]: 0.01}, {})["class prior"]
    assert (alike.mark, other.mark) == ("", "warn") and "0.01" in other.words


def test_wrong_probabilities_and_intervals_are_said(survey: Survey) -> None:
    q = judging.known(Classify("shape").bind(survey), survey)["shape"]
    y = (np.arange(3000) % 2).astype(np.int64)
    p = expit(2 * (2 * (y - 0.5) + np.random.default_rng(1).normal(size=3000)))
    member = np.stack([np.ones(3000, bool), np.arange(3000) % 4 == 1], 1)  # "lens" is in half of its sets
    right = Answers("binary", p, y, ("no", "lens"), member=np.ones((3000, 2), bool), level=0.9)
    bold = Answers("binary", expit(3 * np.log(p / (1 - p))), y, ("no", "lens"), member=member, level=0.9)
    assert not {"calibration", "conformal sets"} & set(caveats.of_answers(right, q, {}, {}))
    found = caveats.of_answers(bold, q, {}, {})
    assert found["calibration"].mark == "warn" and "lens 50%" in found["conformal sets"].words
    assert "no " not in found["conformal sets"].words.split("for:")[1]
    v = judging.known(Regress("width").bind(survey), survey)["width"]
    assert "posterior" not in caveats.of_answers(values(), v, {}, {})
    assert "68%" in caveats.of_answers(values(claimed=0.1), v, {}, {})["posterior"].words


def test_objects_that_share_a_group_with_training_are_set_apart(tmp_path: Path) -> None:
    here = made_up.survey(tmp_path / "blobs", 120)
    test = here.fold("test")
    assert caveats.clean(test, np.arange(len(test))) is None  # nothing is shared
    group = here.column("group").copy()
    fold = here.column("fold").astype(str)
    leak = np.flatnonzero(fold == "test")[:4]
    group[leak] = group[np.flatnonzero(fold == "train")[:4]]
    leaking = here.with_columns({"group": pa.array(group)}, {})
    mask = caveats.clean(leaking.fold("test"), np.arange(len(test)))
    assert mask is not None and (~mask).sum() == 4
