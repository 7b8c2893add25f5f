"""Which augmentation a call means: what turns with the image is turned along, what nothing is known of forbids it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import made_up
from typer.testing import CliRunner

import deepsky as ds
from deepsky import resolve, tasks
from deepsky.augment import Augmentation
from deepsky.cli import app
from deepsky.errors import InputError
from deepsky.io import read_json
from deepsky.judging import counting
from deepsky.survey import Survey
from deepsky.training import train

QUICK = {"network": "mlp", "settings": {"hidden": (8,)}, "steps": 6, "batch": 32, "baseline": None, "quiet": True}


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return made_up.survey(tmp_path_factory.mktemp("blobs") / "s", n=120)


def labelled(survey: Survey, **columns: np.ndarray) -> Survey:
    return ds.open(survey, labels={"id": survey.id, **columns})


def shapes(survey: Survey) -> dict[str, np.ndarray]:
    """The truth of the blobs as a user would have it in a table."""
    e, at = (survey.truth(n).value.numpy() for n in ("e", "offset"))
    return {"my_e1": e[:, 0], "my_e2": e[:, 1], "my_dx": at[:, 0], "my_dy": at[:, 1]}


@pytest.mark.parametrize("targets", [("my_e", "my_dxy"), ("my_e1", "my_e2", "my_dx", "my_dy")])
def test_shapes_of_a_label_table_turn_as_a_simulation_s_do(survey: Survey, targets: tuple[str, ...]) -> None:
    here = labelled(survey, **shapes(survey))
    task = tasks.Regress(targets).bind(here.fold("train"))
    words = resolve.augmentation("auto", here.fold("train"), "image", task)
    assert words == "dihedral"
    plain = task.declared(here.gather(slice(None), truth=(*targets, "e", "offset")))
    made = Augmentation.parse(words)(plain, seed=0, epoch=0).truth
    assert not torch.equal(made["e"].value, plain.truth["e"].value)
    flat = torch.cat([made[t].value.reshape(len(survey), -1) for t in targets], -1)
    assert torch.equal(flat, torch.cat([made["e"].value, made["offset"].value], -1))
    model = train(tasks.Regress(targets), here, **{**QUICK, "views": 4})
    assert model.provenance["settings"]["augment"] == "dihedral"


def test_the_command_line_trains_with_turned_labels(survey: Survey, tmp_path: Path) -> None:
    """As a user types it, names and all, on a table of text."""
    plain = shapes(survey)
    angle = np.degrees(np.arctan2(plain["my_e2"], plain["my_e1"]) / 2) % 180
    rows = [f"{i},{a},{b},{p}" for i, a, b, p in zip(survey.id, plain["my_e1"], plain["my_e2"], angle, strict=True)]
    (tmp_path / "shapes.csv").write_text("\n".join(["id,g1,g2,PA_deg", *rows]) + "\n")
    quick = ["--task", "regress", "--network", "mlp", "--set", "steps=2", "--set", "baseline=None", "--quiet"]
    for number, asked in enumerate((["g1,g2"], ["g"], ["PA_deg", "--task-set", "moves=angle"])):
        to = tmp_path / str(number)
        call = [
            "train",
            str(survey.path),
            "--labels",
            str(tmp_path / "shapes.csv"),
            "--target",
            *asked,
            "--to",
            str(to),
        ]
        result = CliRunner().invoke(app, [*call, *quick], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert read_json(to / "run.json")["settings"]["augment"] == "dihedral"


def test_order_of_components_for_views(survey: Survey) -> None:
    here = labelled(survey, **shapes(survey))
    with pytest.raises(InputError, match="second component follows the first"):
        train(tasks.Regress(("my_e2", "my_e1")), here, **QUICK, views=4)


def test_what_cannot_be_learnt_is_left_out_and_said(survey: Survey, caplog: pytest.LogCaptureFixture) -> None:
    kind = np.where(survey.truth("shape").value.numpy() == 0, "CW", "CCW")
    pa = np.linspace(0, 179, len(survey))
    here = labelled(survey, sense=kind, P_CW=np.linspace(0, 1, len(survey)), pa=pa, e1=pa / 180, e2=pa / 180)
    told = here.fold("train")
    for task, words, note in (
        (tasks.Classify("sense"), "dihedral(flips=False)", "no flips in training, since sense"),
        (tasks.Regress("P_CW"), "dihedral(flips=False)", "no flips in training, since P_CW"),
        (tasks.Regress("pa"), "", "no turns or flips in training, since pa may turn"),
        (tasks.Regress("e1"), "", "no turns or flips in training, since e1 may turn"),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "deepsky"):
            assert resolve.augmentation("auto", told, "image", task.bind(told)) == words
        assert note in caplog.text and "in the label table" in caplog.text
    with pytest.raises(InputError, match="would mirror the image"):
        train(tasks.Classify("sense"), here, **QUICK, augment="dihedral")
    assert train(tasks.Classify("sense"), here, **QUICK, views=4).views == 4
    with pytest.raises(InputError, match="would mirror the image"):
        train(tasks.Classify("sense"), here, **QUICK, views=8)
    with pytest.raises(InputError, match="may change its sense"):
        train(tasks.Classify("sense"), here, **{**QUICK, "network": "dihedral:mlp", "settings": {}})


def test_sentinels_are_not_learnt_and_said(survey: Survey, caplog: pytest.LogCaptureFixture) -> None:
    z = np.linspace(0.1, 2, len(survey))
    here = labelled(survey, z=np.where(np.arange(len(survey)) % 7, z, -99.0))
    task = tasks.Regress("z").bind(here.fold("train"))
    assert task.centre[0] == pytest.approx(1.05, abs=0.3) and task.scale[0] < 1
    with caplog.at_level(logging.WARNING, "deepsky"):
        folds = resolve.labelled(resolve.folds(here), task)
    assert "z: values of -99 taken as missing (if they are meant: z:kept in the header" in caplog.text
    assert len(folds["train"]) < len(here.fold("train"))


@pytest.mark.parametrize(("column", "angle"), [("pa_deg:angle", True), ("pa_deg", True), ("jet_rad:direction", True),
                                               ("pa_deg:scalar", False), ("xc", False), ("radius", False)])  # fmt: skip
def test_a_regression_on_an_angle_says_that_it_is_a_plain_number(survey, caplog, column, angle) -> None:
    here = labelled(survey, **{column: np.linspace(0, 3, len(survey))})
    name = column.partition(":")[0]
    with caplog.at_level(logging.WARNING, "deepsky"):
        resolve.labelled(resolve.folds(here), tasks.Regress(name).bind(here.fold("train")))
    assert (f"{name}: an angle, learnt and judged as a plain number" in caplog.text) == angle
    told = counting.angles(tasks.Regress(name), here)
    assert (told is not None and told.mark == "warn" and name in told.words) == angle


def test_the_components_of_an_axis_turn_with_the_image(survey: Survey) -> None:
    a = np.linspace(0, 3, len(survey))
    here = labelled(survey, **{"pa_1:spin2": np.cos(2 * a), "pa_2:spin2": np.sin(2 * a),
                               "jet_x:vector": np.cos(a), "jet_y:vector": np.sin(a)})  # fmt: skip
    assert (here.schema.columns["pa"].moves, here.schema.columns["pa"].parts) == ("spin2", ("pa_1", "pa_2"))
    assert (here.schema.columns["jet"].moves, here.schema.columns["jet"].parts) == ("vector", ("jet_x", "jet_y"))


def test_angles_without_unit_or_out_of_range_are_refused_before_a_run_begins(survey: Survey, tmp_path: Path) -> None:
    ramp = np.linspace(0, 359, len(survey))
    for name, values, moves, words in (
        ("PA", ramp / 2, "angle", "needs a unit"),
        ("PA_deg", ramp, "angle", "outside the range in which an axis is counted"),
        ("PA_deg", ramp - 180, "direction", "outside the range in which a direction is counted"),
    ):
        here = labelled(survey, **{name: values})
        with pytest.raises(InputError, match=words):
            train(tasks.Regress(name, moves=moves), here, **QUICK, to=tmp_path / "model")
        assert not (tmp_path / "model").exists()
    train(tasks.Regress("PA_deg", moves="direction"), labelled(survey, PA_deg=ramp), **QUICK)


@pytest.mark.parametrize("words", ["noise=0.5", "dihedral,noise(magnitudes=1)", "noise(depth=2)", "background"])
def test_noise_that_is_not_known_is_not_added(survey: Survey, words: str, tmp_path: Path) -> None:
    task = tasks.Classify("shape")
    assert resolve.augmentation(words, survey.fold("train"), "image", task) == words
    image = replace(survey.schema.observations["image"], noise="unknown")
    masked = replace(survey, schema=replace(survey.schema, observations={"image": image}))
    with pytest.raises(InputError, match="noise of the images, which is not known") as error:
        train(task, masked, **QUICK, augment=words, to=tmp_path / "model")
    assert "leave" in str(error.value.fix) and not (tmp_path / "model").exists()
    assert resolve.augmentation("dihedral,shift=1", masked.fold("train"), "image", task) == "dihedral,shift=1"
    with pytest.raises(InputError, match="restore=False"):
        resolve.augmentation("psf(fwhm=1,current=0.7)", masked.fold("train"), "image", task)
    spared = "psf(fwhm=1,current=0.7,restore=False)"
    assert resolve.augmentation(spared, masked.fold("train"), "image", task) == spared
