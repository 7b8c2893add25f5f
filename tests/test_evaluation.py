"""Evaluation: answers meet their truths by id, losses are called losses, and what must be known is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests import made_up
from tests.report import answered

from deepsky import store
from deepsky.catalogue import Catalogue
from deepsky.errors import InputError
from deepsky.evaluation import Report, compare, evaluate
from deepsky.inference import predict
from deepsky.io import blake_key
from deepsky.judging import PREVALENCES, Check
from deepsky.learning import learning_curve, parts
from deepsky.model import Model, load
from deepsky.sample import Sample
from deepsky.schema import Column
from deepsky.survey import Survey
from deepsky.tasks.classify import Classify
from deepsky.tasks.regress import Regress
from deepsky.training import train

SHAPE, WIDTH = Classify("shape"), Regress("width")


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return answered.survey(tmp_path_factory.mktemp("evaluation") / "blobs", 500)


def shuffled(c: Catalogue, seed: int = 0) -> Catalogue:
    return replace(c, held=c.table.take(np.random.default_rng(seed).permutation(len(c))))


def numbers(report: Report, who: str = "ours") -> dict[str, float]:
    q = next(iter(report.questions.values()))
    return {n: e.value for n, e in q.figures[who].items()}


# -- who is held against what -----------------------------------------------------------------------------------
def test_answers_meet_their_truths_by_id_whatever_the_order(survey: Survey) -> None:
    cat, beside = answered.binary(survey), answered.binary(survey, 1.0, seed=4)
    here = survey.select(np.random.default_rng(1).permutation(len(survey)), "shuffled")
    plain = evaluate(cat, survey, task=SHAPE, classical=beside, replicates=20)
    mixed = evaluate(shuffled(cat), here, task=SHAPE, classical=shuffled(beside, 2), replicates=20)
    for who in ("ours", "classical", "constant"):
        assert numbers(mixed, who) == pytest.approx(numbers(plain, who), nan_ok=True)
    wide = cat.table.set_column(0, "id", cat.table["id"].cast(pa.large_string()))
    assert numbers(evaluate(replace(cat, held=wide), survey, task=SHAPE, replicates=5)) == numbers(plain)
    ids = here.id[mixed.questions["shape"].rows]
    truth = survey.column("shape")[[list(survey.id).index(i) for i in ids]]
    assert ((mixed.questions["shape"].answers["ours"].truth == 1) == (truth == "round")).all()


def test_the_same_catalogue_twice_is_equal_and_a_worse_one_is_behind(survey: Survey) -> None:
    good, bad = answered.values(survey, 0.1), answered.values(survey, 0.3, seed=1)
    same = evaluate(good, survey, task=WIDTH, classical=shuffled(good), replicates=50).questions["width"]
    assert {d.verdict for d in same.paired.values()} == {"equal"}
    lost = evaluate(bad, survey, task=WIDTH, classical=good, replicates=100)
    assert {lost.questions["width"].paired[n].verdict for n in ("RMSE", "CRPS", "sigma_NMAD", "R2")} == {"behind"}
    assert "behind" in str(lost)
    over = lost.questions["width"].over_constant
    assert over["RMSE"].verdict == "ahead"


def test_what_has_no_answer_is_left_out_and_counted(survey: Survey) -> None:
    cat = answered.binary(survey)
    flags = np.zeros(len(cat), np.int16)
    flags[:5] = 16
    p = cat.column("p_long").copy()
    p[5:8] = np.nan
    table = cat.table.set_column(cat.names.index("flags"), "flags", pa.array(flags))
    table = table.set_column(cat.names.index("p_long"), "p_long", pa.array(p)).slice(0, 490)
    report = evaluate(replace(cat, held=table), survey, task=SHAPE, replicates=10)
    assert len(report.rows) == 500 - 5 - 3 - 10
    lost = report.checks["judged"].numbers["left out"]
    assert sorted(lost.values()) == [0, 0, 3, 15] and report.checks["judged"].mark == "warn"
    assert not set(survey.id[:8]) & set(survey.id[report.rows])


def test_of_a_repeated_cross_validation_the_first_repeat_is_judged(survey: Survey) -> None:
    first, second = answered.binary(survey, 2.0), answered.binary(survey, 0.2, seed=9)
    parts_ = []
    for repeat, c in enumerate((first, second)):
        both = c.table.append_column("cv_repeat", pa.array(np.full(len(c), repeat, np.int16)))
        parts_.append(both.append_column("cv_fold", pa.array(np.zeros(len(c), np.int16))))
    report = evaluate(replace(first, held=pa.concat_tables(parts_)), survey, task=SHAPE, replicates=10)
    assert numbers(report) == pytest.approx(numbers(evaluate(first, survey, task=SHAPE, replicates=10)))
    assert "cross-validation" in report.checks["shared between folds"].words

    over = report.checks["over repeats"]
    both = [numbers(evaluate(c, survey, task=SHAPE, replicates=5))["AUROC"] for c in (first, second)]
    assert over.numbers["repeats"] == 2 and over.numbers["figures"]["shape"]["ours"]["AUROC"] == pytest.approx(both)
    words = f"AUROC {np.mean(both):.4g} +- {np.std(both, ddof=1):.2g}"
    assert words in str(report) and "are those of the first repeat" in report._repr_html_()
    assert "over repeats" not in evaluate(first, survey, task=SHAPE, replicates=5).checks


def test_targets_that_are_wanting_are_counted_by_name(survey: Survey) -> None:
    mass = survey.column("width") * 2
    mass[np.arange(len(survey)) % 4 != 0] = np.nan
    here = survey.with_columns({"mass": mass}, {"mass": Column(role="label")})
    cat = answered.values(survey)
    folds = pa.array(np.zeros(len(cat), np.int16))
    table = cat.table.append_column("mass", pa.array(2 * cat.column("width"))).append_column("cv_fold", folds)
    report = evaluate(replace(cat, held=table), here, task=Regress(("width", "mass")), replicates=5)
    lost = report.checks["left out of training"]
    assert lost.numbers == {"used": 125, "of": 500, "lacking": {"mass": 375}} and lost.mark == "warn"
    assert "375 of 500 objects of the survey: 375 lack mass" in str(report)
    whole = replace(cat, held=table.set_column(table.column_names.index("mass"), "mass", table["width"]))
    assert "left out of training" not in evaluate(whole, here, task=WIDTH, replicates=5).checks


def test_a_truth_that_is_only_a_limit_is_named_once(survey: Survey) -> None:
    limit = np.where(np.arange(len(survey)) < 4, 1.0, 0.0)
    column = Column(unit="arcsec", role="label", limit="limit")
    here = survey.with_columns({"wide": survey.column("width"), "limit": limit}, {"wide": column})
    cat = answered.values(survey)
    held = cat.table.rename_columns([n.replace("width", "wide") for n in cat.table.column_names])
    report = evaluate(replace(cat, held=held), here, task=Regress("wide"), replicates=5)
    assert "left out: 4 with only a limit as truth" in str(report) and "no truth" not in str(report)
    assert report._repr_html_().count("limit") == 1


def test_an_empty_selection_is_called_empty(survey: Survey) -> None:
    with pytest.raises(InputError, match="there is no object to judge"):
        evaluate(answered.binary(survey), survey.where("width > 300"), task=SHAPE)


def _different(survey: Survey, c: Catalogue) -> None:
    model = _model(SHAPE.bind(survey))
    compare(model, _model(Classify("kind").bind(survey)), survey)


def _model(task: object) -> Model:
    return Model(task, None, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("does not say what it answers", lambda s, c: evaluate(c, s)),
        ("no such column", lambda s, c: evaluate(c, s, task=SHAPE, by=("colour",))),
        ("no such label", lambda s, c: evaluate(c, s, task=Classify("unknown"))),
        ("no such column in the catalogue", lambda s, c: evaluate(c, s, task=Classify("kind"))),
        ("answer different questions", _different),
    ],
)
def test_errors_say_what_is_wrong(survey: Survey, words: str, call: object) -> None:
    with pytest.raises(InputError, match=words):
        call(survey, answered.binary(survey))  # type: ignore[operator]


def test_strangers_and_unlabelled_objects_are_refused(survey: Survey) -> None:
    other = answered.catalogue({"p_long": [0.5], "p_round": [0.5]}, ["somebody else"])
    with pytest.raises(InputError, match="no object has both an answer and a truth"):
        evaluate(other, survey, task=SHAPE)
    nothing = survey.with_columns(
        {"shape": pa.nulls(len(survey), pa.string())}, {"shape": Column("str", role="label", classes=("long", "round"))}
    )
    with pytest.raises(InputError, match="no object has a truth"):
        evaluate(answered.binary(survey), nothing, task=SHAPE.bind(survey))


def test_completeness_and_purity_are_those_of_the_class_that_is_looked_for(survey: Survey) -> None:
    cat = answered.binary(survey, 1.0)
    names = ["merger" if w == "long" else "non-merger" for w in survey.column("shape")]
    column = Column("str", role="label", classes=("merger", "non-merger"))
    here = survey.with_columns({"what": pa.array(names)}, {"what": column})
    table = cat.table.rename_columns(
        [n.replace("round", "non-merger").replace("long", "merger") for n in cat.table.column_names]
    )
    said, yes = cat.column("p_long") >= 0.5, np.array(names) == "merger"
    task = Classify("what")
    report = evaluate(replace(cat, held=table), here, task=task, replicates=5)
    assert numbers(report)["completeness"] == pytest.approx(said[yes].mean())
    assert numbers(report)["purity"] == pytest.approx(yes[said].mean())
    assert "what, of merger" in str(report) and report.json()["questions"]["what"]["positive"] == "merger"
    other = evaluate(replace(cat, held=table), here, task=task, replicates=5, positive="non-merger")
    assert numbers(other)["completeness"] == pytest.approx((~said)[~yes].mean())
    assert "what, of non-merger" in str(other) and "of the class “non-merger”" in other._repr_html_()
    both = compare(replace(cat, held=table), replace(cat, held=table), here, task=task, replicates=5)
    assert both.questions["what"].answers["first"].names[1] == "merger"
    with pytest.raises(InputError, match="only one of two classes"):
        evaluate(answered.values(survey), survey, task=WIDTH, positive="merger")


def test_the_columns_of_the_printed_table_stay_apart(survey: Survey) -> None:
    near = answered.values(survey, 1e-6)
    report = str(evaluate(near, survey, task=WIDTH, classical=answered.values(survey), replicates=50))
    table = report.split("\n\n")[1].splitlines()
    starts = [table[0].index(word) for word in ("ours", "classical", "constant", "against")]
    for line in table[1:]:
        assert all(line[at - 1 : at] in ("", " ") for at in starts), line


# -- what is written ----------------------------------------------------------------------------------------------
def test_json_holds_every_figure_and_no_nan(survey: Survey, tmp_path: Path) -> None:
    report = evaluate(
        answered.binary(survey), survey, task=SHAPE, classical=answered.binary(survey, 1.0, seed=2), by=("mag",),
        to=tmp_path, replicates=20,
    )  # fmt: skip
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    data = json.loads(text)
    q = data["questions"]["shape"]
    assert set(q["figures"]) == {"ours", "classical", "constant"} and {"ECE", "Brier"} <= set(q["figures"]["ours"])
    assert [c["prevalence"] for c in q["curves"]["prevalence"]["ours"]["curves"]] == list(PREVALENCES)
    assert q["curves"]["follow-up"]["ours"]["figures"][0]["true"]["definition"].startswith("Expected true objects")
    assert q["paired"]["AUROC"]["verdict"] in {"ahead", "behind", "equal"}
    rows = q["bins"]["mag"]
    assert sum(r["n"] for r in rows) == 500 and rows[-1]["bin"] == "mag not measured"
    assert data["simulation"] is True and (tmp_path / "report.html").stat().st_size > 50_000
    assert str(report).endswith(str(tmp_path / "report.html"))


def test_the_usual_columns_are_binned_unasked(survey: Survey) -> None:
    report = evaluate(answered.values(survey), survey, task=WIDTH, replicates=10)
    assert list(report.questions["width"].bins) == ["mag"]


def test_both_scores_where_a_split_shares_groups(tmp_path: Path) -> None:
    here = answered.survey(tmp_path / "blobs", 300)
    group, fold = here.column("group").copy(), here.column("fold").astype(str)
    test = np.flatnonzero(fold == "test")
    leak = test[:20]
    group[leak] = group[np.flatnonzero(fold == "train")[:20]]
    leaking = here.with_columns({"group": pa.array(group)}, {})
    cat = answered.binary(leaking)
    # the shared objects are remembered: right with certainty
    p = cat.column("p_round").copy()
    p[leak] = here.column("shape")[leak] == "round"
    table = cat.table.set_column(cat.names.index("p_round"), "p_round", pa.array(p))
    table = table.set_column(cat.names.index("p_long"), "p_long", pa.array(1 - p))
    report = evaluate(replace(cat, held=table), leaking.fold("test"), task=SHAPE, replicates=20)
    q = report.questions["shape"]
    assert q.clean["ours"]["accuracy"].n == len(test) - 20
    assert q.clean["ours"]["accuracy"].value < q.figures["ours"]["accuracy"].value
    assert report.checks["shared between folds"].mark == "warn"
    assert "without what was seen or shares a group" in str(report)


def test_compare_two_catalogues(survey: Survey) -> None:
    good, bad = answered.binary(survey, 2.5), answered.binary(survey, 0.8, seed=3)
    report = compare(good, shuffled(bad), survey, task=SHAPE, by=("mag",), replicates=100)
    q = report.questions["shape"]
    assert report.comparison and (q.first, q.second) == ("first", "second")
    assert q.paired["AUROC"].verdict == "ahead" and "constant" not in q.figures
    assert q.bins["mag"][0].paired["AUROC"].verdict == "ahead"
    back = compare(bad, good, survey, task=SHAPE, replicates=100).questions["shape"]
    assert back.paired["AUROC"].verdict == "behind"
    assert back.paired["AUROC"].estimate.value == pytest.approx(-q.paired["AUROC"].estimate.value)


# -- end to end -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Survey]:
    folder = tmp_path_factory.mktemp("trained")
    here = made_up.survey(folder / "blobs", 300, size=16)
    train(SHAPE, here, network="mlp", steps=12, precision="float32", to=folder / "model", quiet=True)
    return load(folder / "model"), here


def test_a_model_end_to_end(trained: tuple[Model, Survey], tmp_path: Path) -> None:
    model, here = trained
    report = evaluate(model, here.fold("test"), to=tmp_path, replicates=30)
    q = report.questions["shape"]
    assert list(q.figures) == ["ours", "classical", "constant"] and len(q.rows) == len(here.fold("test"))
    assert report.names["ours"] == "mlp" and report.checks["trained on"].mark == ""
    assert "conformal coverage" in q.figures["ours"] and q.answers["ours"].level == 0.9
    assert report.provenance["trained on"] and report.provenance["model"] == model.hash
    assert len(report.history) >= 1 and "looks like the training sample" in report.checks
    counts = [report.checks["openings of the test fold"].numbers["count"]]
    counts.append(evaluate(model, here.fold("test"), replicates=5).checks["openings of the test fold"].numbers["count"])
    assert counts[1] == counts[0] + 1
    assert load(model.path).hash == model.hash  # type: ignore[arg-type]


def test_another_survey_is_held_against_the_training_survey(trained: tuple[Model, Survey], tmp_path: Path) -> None:
    model, _ = trained

    def shift(here: Survey, by: Model = model) -> Check:
        return evaluate(by, here, replicates=5).checks["looks like the training sample"]

    like = made_up.survey(tmp_path / "like", 200, size=16, seed=7)
    assert shift(like).mark == "" and "they look alike" in shift(like).words
    sample = made_up.blobs(200, size=16, seed=8)
    image = sample.observation("image")
    dim = replace(image, flux=0.3 * image.flux)  # fainter, at the same depth on paper
    other = store.write([replace(sample, observations={"image": dim})], tmp_path / "dim", name="dim")
    assert shift(other).mark == "strong" and "they differ" in shift(other).words
    assert "no longer lies where it was" in shift(other, replace(model, path=tmp_path)).words


def test_judging_the_training_fold_is_called_flattering(trained: tuple[Model, Survey]) -> None:
    model, here = trained
    seen = evaluate(model, here.fold("train"), replicates=5).checks
    assert seen["trained on"].mark == "strong" and "openings of the test fold" not in seen
    assert evaluate(model, here.fold("valid"), replicates=5).checks["trained on"].mark == "warn"


def elsewhere(sample: Sample, **changes: object) -> Sample:
    ids = changes.pop("ids", sample.id)
    key = torch.from_numpy(np.array([blake_key(i) for i in ids], np.uint64).view(np.int64))  # type: ignore[attr-defined]
    return replace(sample, id=ids, key=key, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("told_by", ["id", "place"])
def test_objects_that_were_trained_on_are_found_in_another_survey(
    trained: tuple[Model, Survey], told_by: str, tmp_path: Path
) -> None:
    model, here = trained
    old = here.gather(np.arange(len(here)))
    new = made_up.blobs(60, size=16, seed=9, first=9000)
    nowhere = torch.full((len(old),), torch.nan, dtype=torch.float64)
    ids = tuple(f"other-{i}" for i in range(len(old)))
    old = elsewhere(old, ids=ids, ra=old.ra + 1e-4) if told_by == "place" else elsewhere(old, ra=nowhere, dec=nowhere)
    other = store.write([old, new], tmp_path / "other", name="other")
    report = evaluate(model, other, replicates=5)
    counts = {n: len(here.fold(n)) for n in ("train", "valid", "calib")}
    check = report.checks["trained on"]
    assert (
        check.mark == "strong" and check.numbers["objects"] == counts and f"{counts['train']:,} of 360" in str(report)
    )
    rest = len(here.fold("test")) + len(new)
    assert report.questions["shape"].clean["ours"]["accuracy"].n == rest
    assert f"ours without what was seen or shares a group ({rest:,} objects)" in str(report)
    note = predict(model, other, quiet=True).provenance["unchecked"][-1]
    assert f"{sum(counts.values()):,} of 360 objects" in note
    south = torch.full((len(old),), -40.0, dtype=torch.float64)
    far = store.write([elsewhere(here.gather(np.arange(len(here))), dec=south)], tmp_path / "far", name="far")
    if told_by == "id":  # another object of the same name
        assert evaluate(model, far, replicates=5).checks["trained on"].mark == ""
    seen = here.fold("train").id
    only = here.select(np.isin(here.id, seen), "x").gather(np.arange(len(seen)))
    report = evaluate(model, store.write([only], tmp_path / "only", name="only"), replicates=5)
    assert "no other object to judge by" in report.checks["trained on"].words and not report.questions["shape"].clean
    assert "are among the judged ones" in report.checks["looks like the training sample"].words


def test_what_was_trained_on_is_known_after_a_new_split(trained: tuple[Model, Survey]) -> None:
    model, here = trained
    fold = here.column("fold").copy()
    old, new = (fold == "test").nonzero()[0], (fold == "train").nonzero()[0][:50]
    fold[old], fold[new] = "train", "test"
    again = here.with_columns({"fold": fold}, {})
    check = evaluate(model, again.fold("test"), replicates=5).checks["trained on"]
    assert check.mark == "strong" and check.numbers["objects"]["train"] == 50
    assert evaluate(model, again.fold("train").select(np.isin(again.fold("train").id, here.id[old]), "x"),
                    replicates=5).checks["trained on"].mark == ""  # fmt: skip


def test_both_models_of_a_comparison_are_looked_at(trained: tuple[Model, Survey]) -> None:
    model, here = trained
    fold = here.column("fold").copy()
    fold[fold == "test"], fold[fold == "train"] = "later", "test"
    fold[fold == "later"] = "train"
    other = here.with_columns({"fold": fold}, {})
    second = train(SHAPE, other, network="mlp", steps=12, seed=1, precision="float32", baseline=None, quiet=True)
    report = compare(model, second, here.fold("test"), replicates=5)
    assert report.checks["trained on (first)"].mark == "" and report.checks["trained on (second)"].mark == "strong"
    assert report.checks["openings of the test fold (first)"].numbers["count"] >= 1
    assert {f"looks like the training sample ({w})" for w in ("first", "second")} <= set(report.checks)
    assert "independent groups" in report.checks and "trained on (second): " in str(report)
    assert compare(second, model, here.fold("test"), replicates=5).checks["trained on (first)"].mark == "strong"


def test_learning_curve_is_nested_and_grows(trained: tuple[Model, Survey], tmp_path: Path) -> None:
    _, here = trained
    made = parts(SHAPE, here, (20, 0.5, 1.0), 0)
    sets = [set(p.id[p.column("fold") == "train"]) for p in made]
    assert sets[0] < sets[1] < sets[2] and len(sets[2]) == len(here.fold("train"))
    others = [set(p.id[p.column("fold") == "test"]) for p in made]
    assert others[0] == others[2] == set(here.fold("test").id)
    with pytest.raises(InputError, match="no such part"):
        parts(SHAPE, here, (10_000,), 0)
    options = {"network": "mlp", "steps": 4, "precision": "float32", "quiet": True, "replicates": 10}
    points = learning_curve(SHAPE, here, (30, 1.0), to=tmp_path, **options)  # type: ignore[arg-type]
    assert [p[0] for p in points] == [30, len(sets[2])]
    assert {"AUROC", "log loss"} <= set(points[0][1]) == set(points[0][2])
    again = learning_curve(SHAPE, here, (30,), to=tmp_path, **options)  # type: ignore[arg-type]
    assert again[0][1]["AUROC"].value == points[0][1]["AUROC"].value
    report = evaluate(answered.binary(here), here, task=SHAPE, learning_curve=points, replicates=5)
    assert report.json()["learning curve"][1]["n"] == len(sets[2])
