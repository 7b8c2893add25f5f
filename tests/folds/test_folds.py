"""Groups never cross folds, whatever the sky looks like; folds have their sizes; a published split is kept."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.folds import made

from deepsky import folds, labels
from deepsky.errors import InputError
from deepsky.folds import dividing
from deepsky.folds.groups import within
from deepsky.io import read_parquet, write_parquet
from deepsky.survey import Survey


def with_column(survey: Survey, name: str, values: object) -> Survey:
    """The survey with one more column in its index, on disk."""
    index = read_parquet(survey.path / "index.parquet").append_column(name, pa.array(values))
    write_parquet(survey.path / "index.parquet", index)
    return Survey.load(survey.path)


def separation(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """All separations [arcsec], by the slow formula of Vincenty."""
    from astropy.coordinates import angular_separation

    a, d = np.radians(ra), np.radians(dec)
    return np.degrees(angular_separation(a[:, None], d[:, None], a[None], d[None])) * 3600


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), radius=st.sampled_from([1.0, 30.0, 400.0]), pole=st.booleans())
def test_no_two_folds_within_the_radius_or_with_one_name(seed: int, radius: float, pole: bool) -> None:
    draw = np.random.default_rng(seed)
    n = 60
    centre = 89.9 if pole else draw.uniform(-80, 80)
    dec = np.clip(centre + draw.normal(0, 0.1, n), -90, 90)
    ra = draw.uniform(0, 360, n) if pole else (draw.uniform(-0.2, 0.2, n) % 360)
    night = draw.integers(0, 25, n)
    with TemporaryDirectory() as folder:
        survey = made.survey(Path(folder) / "s", ra=ra, dec=dec)
        survey = with_column(survey, "night", night)
        survey = folds.assign(survey, radius_arcsec=radius, group_column="night", seed=seed % 7)
        fold, group = survey.column("fold"), survey.column("group")
        near = separation(survey.column("ra"), survey.column("dec")) < radius * (1 - 1e-9)
        same = near | (survey.column("night")[:, None] == survey.column("night")[None])
        assert (fold[:, None] == fold[None])[same].all()
        assert (group[:, None] == group[None])[same].all()
        assert set(fold) <= {"train", "valid", "calib", "test"}
        assert folds.leaks(survey, radius_arcsec=radius, group_column="night").none


def test_groups_are_no_larger_than_they_must_be(tmp_path: Path) -> None:
    ra, dec = np.array([10, 10.0001, 10.0002, 20, 20.001, 30]), np.zeros(6)
    survey = made.survey(tmp_path / "s", ra=ra, dec=dec)
    found = folds.groups(survey, radius_arcsec=0.5)
    place = {float(r): g for r, g in zip(survey.column("ra"), found.group, strict=True)}
    assert place[10] == place[10.0001] == place[10.0002]  # a chain, although its ends are 0.72 arcsec apart
    assert len({place[10], place[20], place[20.001], place[30]}) == 4
    assert found.links["position"] == 2
    assert set(found.group) <= set(survey.key)


@pytest.mark.parametrize(
    "field",
    [
        np.where(np.arange(40) < 30, np.nan, np.arange(40) // 2),
        [None if i < 30 else i // 2 for i in range(40)],
        ["" if i < 15 else " " if i < 25 else None if i < 30 else f"f{i // 2}" for i in range(40)],
        pa.array(["" if i < 30 else f"f{i // 2}" for i in range(40)]).dictionary_encode(),
    ],
)
def test_a_missing_value_links_nothing(tmp_path: Path, field: object) -> None:
    survey = with_column(made.survey(tmp_path / "s", n=40), "field", field)
    group = folds.assign(survey, group_column="field").column("group")
    assert sorted(np.unique(group, return_counts=True)[1].tolist()) == [1] * 30 + [2] * 5


def test_positions_across_zero_and_the_pole(tmp_path: Path) -> None:
    ra, dec = np.array([359.9999, 0.0001, 0.0, 180.0, 90.0]), np.array([0.0, 0.0, 89.9999, 89.9999, 0.0])
    survey = made.survey(tmp_path / "s", ra=ra, dec=dec)
    pairs = {frozenset((float(survey.column("ra")[i]), float(survey.column("ra")[j]))) for i, j in within(survey, 1.0)}
    assert pairs == {frozenset((359.9999, 0.0001)), frozenset((0.0, 180.0))}


@pytest.mark.parametrize("n", [100, 997, 25_000])
def test_sizes_and_stability(n: int) -> None:
    group = np.random.default_rng(3).integers(0, 2**63, n).astype(np.uint64)
    strata = np.zeros(n, np.int64)
    shares = (0.6, 0.1, 0.1, 0.2)
    part = dividing.divide(group, strata, shares, 0)
    got = np.bincount(part, minlength=4) / n
    assert np.abs(got - shares).max() < (1.5 / n if n <= dividing.SMALL else 0.01)
    order = np.random.default_rng(4).permutation(n)
    assert (dividing.divide(group[order], strata, shares, 0) == part[order]).all()
    assert (dividing.divide(group, strata, shares, 1) != part).mean() > 0.3


def test_strata_are_balanced_and_a_rare_class_is_everywhere(tmp_path: Path) -> None:
    classes = np.array([0] * 300 + [1] * 80 + [2] * 10)
    survey = made.survey(tmp_path / "s", classes=classes)
    for name, share in zip(("train", "valid", "calib", "test"), (0.6, 0.1, 0.1, 0.2), strict=True):
        part = survey.fold(name)
        for kind, total in (("a", 300), ("b", 80), ("c", 10)):
            assert abs((part.column("kind") == kind).sum() - share * total) <= 1.0
    assert "folds balanced by 'kind'" in (survey.path / "folds.json").read_text()


def test_large_groups_and_strata_together() -> None:
    draw = np.random.default_rng(0)
    sizes = draw.integers(1, 12, 300)
    group = np.repeat(draw.integers(0, 2**63, 300), sizes).astype(np.uint64)
    strata = draw.integers(0, 3, len(group))
    part = dividing.divide(group, strata, (0.6, 0.1, 0.1, 0.2), 0)
    for g in np.unique(group):
        assert len(set(part[group == g])) == 1
    for s in range(3):
        got = np.bincount(part[strata == s], minlength=4) / (strata == s).sum()
        assert np.abs(got - (0.6, 0.1, 0.1, 0.2)).max() < 0.02


def test_new_labels_and_new_objects(tmp_path: Path) -> None:
    """The group is named by a key, so that it does not depend on the order of the objects."""
    survey = made.survey(tmp_path / "s", ra=np.array([5.0, 5.0, 9.0]), dec=np.zeros(3))
    other = made.survey(tmp_path / "t", ra=np.array([5.0, 5.0, 9.0, 11.0]), dec=np.zeros(4))
    one, two = (
        dict(zip(survey.id, survey.column("group"), strict=True)),
        dict(zip(other.id, other.column("group"), strict=True)),
    )
    assert all(two[i] == g for i, g in one.items())


def test_sky_blocks_keep_their_distance(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    ra, dec = draw.uniform(10, 12, 3000), draw.uniform(-1, 1, 3000)
    survey = made.survey(tmp_path / "s", ra=ra, dec=dec, size=2)
    survey = folds.assign(survey, block_deg=0.3, radius_arcsec=100.0, near_duplicates=False)
    fold = survey.column("fold")
    out = fold == folds.BUFFER
    assert 0.01 < out.mean() < 0.3
    near = separation(survey.column("ra")[~out], survey.column("dec")[~out]) < 100
    kept = fold[~out]
    assert (kept[:, None] == kept[None])[near].all()
    assert 30 < len(set(survey.column("group"))) < 120
    for name in ("train", "test"):
        assert len(survey.fold(name)) > 0


def test_overlapping_cutouts_fall_back_to_blocks(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    n = 1500
    ra, dec = draw.uniform(150, 151, n), draw.uniform(2, 3, n)
    survey = made.survey(tmp_path / "s", ra=ra, dec=dec, size=8, pixel_scale=30.0)  # 240 arcsec: one chain
    notes = (survey.path / "folds.json").read_text()
    assert "cutouts overlap into one chain" in notes and "sky blocks" in notes
    fold = survey.column("fold")
    kept = fold != folds.BUFFER
    near = separation(survey.column("ra")[kept], survey.column("dec")[kept]) < 240
    assert (fold[kept][:, None] == fold[kept][None])[near].all()
    assert (fold == "train").sum() > 0.1 * n and (fold == "test").sum() > 0.03 * n


def test_the_default_buffer_is_the_side_of_the_cutout(tmp_path: Path) -> None:
    ra, dec = np.array([10.0, 10.0 + 5 / 3600, 20.0, 30.0]), np.zeros(4)
    near = made.survey(tmp_path / "near", ra=ra, dec=dec, pixel_scale=1.0)  # 8 arcsec
    far = made.survey(tmp_path / "far", ra=ra, dec=dec, pixel_scale=0.2)  # 1.6 arcsec
    assert len(set(near.column("group"))) == 3 and len(set(far.column("group"))) == 4


def test_a_giant_group_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    survey = made.survey(tmp_path / "s", n=60)
    survey = with_column(survey, "field", ["one"] * 50 + [f"f{i}" for i in range(10)])
    with caplog.at_level(logging.WARNING, "deepsky"):
        folds.assign(survey, group_column="field")
    assert "one group holds 83%" in caplog.text


def test_near_duplicates_are_found_in_every_orientation(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    y, x = np.mgrid[:24, :24] - 11.5
    bright = 30 * np.exp(-((x / 3) ** 2 + (y / 5) ** 2) / 2)
    base = draw.normal(size=(40, 1, 24, 24)) + draw.uniform(0.5, 2, (40, 1, 1, 1)) * bright
    turned = [np.rot90(base[3], 1, (-2, -1)), np.rot90(base[4], 3, (-2, -1)), np.flip(base[5], (-1, -2))]
    noisy = base[6] + draw.normal(0, 0.02, base[6].shape)
    copies = [base[0], base[1] * 3 + 2, np.flip(base[2], -1), *turned, noisy]
    survey = made.survey(tmp_path / "s", flux=np.concatenate([base, np.stack(copies)]), folds={"near_duplicates": True})
    group = dict(zip(survey.id, survey.column("group"), strict=True))
    for i in range(len(copies)):
        assert group[f"o{i}"] == group[f"o{40 + i}"], i
    assert len(set(group.values())) == 40


def test_stars_of_one_shape_are_not_copies(tmp_path: Path) -> None:
    draw = np.random.default_rng(6)
    y, x = np.mgrid[:24, :24] - 11.5
    star = np.exp(-(x**2 + y**2) / 8)
    flux = draw.normal(size=(60, 1, 24, 24)) + draw.uniform(1000, 3000, (60, 1, 1, 1)) * star
    survey = made.survey(tmp_path / "s", flux=flux, folds={"near_duplicates": True})
    straight = np.corrcoef(flux[:2].reshape(2, -1))[0, 1]
    assert straight > 0.999  # by this alone they would be
    assert len(set(survey.column("group"))) == 60


def test_published_split_and_what_it_leaks(tmp_path: Path) -> None:
    draw = np.random.default_rng(7)
    flux = draw.normal(size=(100, 1, 16, 16))
    flux[90:95] = flux[:5]  # five test images are copies of training images
    ra = np.concatenate([np.arange(95.0), np.arange(5, 10) + 1e-5])  # and five others lie on training objects
    survey = made.survey(tmp_path / "s", flux=flux, ra=ra, dec=np.zeros(100))
    number = np.array([int(i[1:]) for i in survey.id])
    survey = with_column(survey, "split", np.where(number < 80, "Train", "TEST"))
    survey = folds.assign(survey, fold_column="split")
    fold = dict(zip(survey.id, survey.column("fold"), strict=True))
    assert all((fold[f"o{i}"] == "test") == (i >= 80) for i in range(100))
    assert {"valid", "calib"} <= set(fold.values())
    found = folds.leaks(survey)
    assert found.kinds["near-duplicate"].test == 5 and found.kinds["within 1 arcsec"].test == 5
    assert found.clean == 10 == folds.clean_test(survey).sum()
    assert folds.clean_test(survey.fold("test")).sum() == 10 and not found.none
    shown = str(found)
    assert "near-duplicate: 5 pairs across folds, 5 test objects" in shown
    assert "10 of 20 test objects share no group" in shown
    assert all({a, b} for a, f, b, g in found.kinds["near-duplicate"].examples if f != g)
    repaired = folds.leaks(folds.assign(survey))
    assert repaired.none and repaired.clean == repaired.objects["test"]


def test_a_label_called_fold_moves_nothing_until_it_is_asked_for(tmp_path: Path) -> None:
    survey = made.survey(tmp_path / "s", n=60)
    names = ["train", "test"] * 30
    labels.add(survey.path, {"id": [f"o{i}" for i in range(60)], "fold": names, "kind": ["a", "b", "c"] * 20})
    assert (Survey.load(survey.path).column("fold") == survey.column("fold")).all()
    again = folds.assign(survey.path)
    assert "folds balanced by 'kind'" in (survey.path / "folds.json").read_text()
    assert {"valid", "calib"} <= set(again.column("fold"))
    split = dict(zip(survey.id, folds.assign(survey.path, fold_column="fold").column("fold"), strict=True))
    assert all((split[f"o{i}"] == "test") == (name == "test") for i, name in enumerate(names))


def test_kfold(tmp_path: Path) -> None:
    survey = made.survey(tmp_path / "s", classes=np.arange(103) % 3)
    numbers = folds.kfold(survey, 5, seed=1)
    assert np.bincount(numbers).tolist() == sorted(np.bincount(numbers).tolist(), reverse=True) or len(numbers) == 103
    assert np.bincount(numbers, minlength=5).min() >= 20
    assert (folds.kfold(survey, 5, seed=1) == numbers).all() and (folds.kfold(survey, 5, seed=2) != numbers).any()
    many = folds.kfold(survey, 5, seed=1, repeats=3)
    assert many.shape == (3, 103) and (many[0] != many[1]).any()
    for kind in "abc":
        assert np.ptp(np.bincount(numbers[survey.column("kind") == kind], minlength=5)) <= 2
    with pytest.raises(InputError, match="as many groups as folds"):
        folds.kfold(survey, 200)


@pytest.mark.parametrize(
    ("options", "message", "found"),
    [
        ({"group_column": "nights"}, "no such column to group by", "nights"),
        ({"fold_column": "splits"}, "no such column with a split", "splits"),
        ({"stratify": "kinds"}, "no such label to stratify by", "kinds"),
        ({"fractions": (0.5, 0.5)}, "not fractions", (0.5, 0.5)),
        ({"fractions": {"train": 0.8, "tests": 0.2}}, "no such fold", "tests"),
        ({"block_deg": 1.0}, "needs positions", None),
    ],
)
def test_errors(tmp_path: Path, options: dict[str, object], message: str, found: object) -> None:
    survey = made.survey(tmp_path / "s", n=20)
    with pytest.raises(InputError, match=message) as error:
        folds.assign(survey, **options)
    assert error.value.found == found


def test_a_selection_and_unknown_words(tmp_path: Path) -> None:
    survey = made.survey(tmp_path / "s", n=20)
    with pytest.raises(InputError, match="whole survey"):
        folds.assign(survey.fold("train"))
    survey = with_column(survey, "split", ["train", "exam"] * 10)
    with pytest.raises(InputError, match="unknown words") as error:
        folds.assign(survey, fold_column="split")
    assert error.value.found == "exam" and error.value.keyword == "split"


def test_assign_is_atomic_and_keeps_the_rest(tmp_path: Path) -> None:
    survey = made.survey(tmp_path / "s", n=50)
    again = folds.assign(survey, seed=3)
    rest = [n for n in survey.index.column_names if n not in {"group", "fold", "ra", "dec"}]  # NaN is not NaN
    assert again.index.select(rest).equals(survey.index.select(rest)) and len(rest) > 3
    assert (again.column("fold") != survey.column("fold")).any() and again.hash == survey.hash
    assert not list(survey.path.glob(".tmp-*"))
