import numpy as np
import pyarrow as pa
import pytest
import torch
from tests import made_up

from deepsky import labels
from deepsky.errors import InputError
from deepsky.survey import Survey


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return made_up.survey(tmp_path_factory.mktemp("survey") / "blobs", n=60)


def test_a_gather_gives_what_was_written_in_any_order(survey):
    made = made_up.blobs(30)
    where = {name: i for i, name in enumerate(survey.id)}
    at = [where[name] for name in made.id]
    read = survey.gather(at)
    assert read.id == made.id
    scale = (
        float(survey.schema.observations["image"].unit.split()[0])
        if " " in survey.schema.observations["image"].unit
        else 1.0
    )
    assert torch.allclose(read.observations["image"].flux * scale, made.observations["image"].flux, rtol=1e-6)
    assert torch.allclose(read.truth["e"].value, made.truth["e"].value)
    assert read.truth["e"].moves == "spin2"
    assert torch.equal(read.truth["shape"].value, made.truth["shape"].value)
    assert torch.equal(read.key, made.key)
    assert torch.equal(survey.gather(at[::-1]).observations["image"].flux, read.observations["image"].flux.flip(0))


def test_folds_hold_every_object_once(survey):
    parts = [survey.fold(n) for n in ("train", "valid", "calib", "test")]
    assert sorted(np.concatenate([p.rows for p in parts]).tolist()) == list(range(len(survey)))
    assert parts[0].whole is survey
    with pytest.raises(InputError, match="no object is in that fold"):
        survey.fold("training")


def test_tiles_cover_the_survey(survey):
    assert sum(len(survey.read(t)) for t in survey.tiles) == len(survey)
    few = survey.select(np.arange(5), "few")
    assert sum(len(few.in_tile(t)) for t in survey.tiles) == 5


def test_selections_by_expression(survey):
    wide = survey.where("width > 3 & shape == 'round'")
    assert len(wide) and (wide.column("width") > 3).all() and set(wide.column("shape")) == {"round"}
    with pytest.raises(InputError) as error:
        survey.where("widht > 3")
    assert "did you mean 'width'" in str(error.value)


def test_what_is_not_a_survey_is_refused(tmp_path, survey):
    with pytest.raises(InputError, match="not a native survey"):
        Survey.load(tmp_path)
    with pytest.raises(InputError, match="no such label or truth"):
        survey.gather([0], truth=["redshift"])


@pytest.mark.parametrize("name", ["index.parquet", "labels/0001.parquet"])
def test_an_altered_table_is_an_error_in_words_and_never_other_numbers(tmp_path, name):
    survey = made_up.survey(tmp_path / "s", n=64)
    labels.add(survey.path, pa.table({"id": survey.id, "mark": np.arange(64.0)}))
    before = Survey.load(survey.path).index
    file = survey.path / name
    whole, rng, caught = file.read_bytes(), np.random.default_rng(0), 0
    for at in rng.integers(4, len(whole) - 4, 60):
        bits = bytearray(whole)
        bits[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(bits)
        try:
            after = Survey.load(survey.path).index
        except InputError as error:
            caught += str(file) in str(error)
        else:  # in the footer: what it tells of encodings, statistics or the writer
            assert after.replace_schema_metadata(None).equals(before.replace_schema_metadata(None))
    assert caught > 30
    file.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="damaged"):
        Survey.load(survey.path)
    if name == "index.parquet":
        file.unlink()
        with pytest.raises(InputError, match="missing"):
            Survey.load(survey.path)
