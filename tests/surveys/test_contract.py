"""The contract of a reader, held against every file in ``surveys/`` by its own example."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest

from deepsky import registry
from deepsky.schema import ImageSchema, Schema
from deepsky.source import Source

READERS = registry.names("surveys")


@pytest.fixture(params=READERS)
def opened(request, tmp_path):
    module = registry.find("surveys", request.param)
    path = module.example(tmp_path)
    assert module.claims(path), "a reader claims its own example"
    return module.open(path)


def test_nothing_and_nonsense_are_not_claimed(tmp_path):
    (tmp_path / "notes.md").write_text("nothing here")
    (tmp_path / "empty").mkdir()
    for name in READERS:
        for path in (tmp_path / "notes.md", tmp_path / "empty", tmp_path / "nowhere"):
            assert not registry.find("surveys", name).claims(path), name


def test_the_list_of_objects(opened):
    assert isinstance(opened, Source)
    assert Schema.from_json(opened.schema.json()) == opened.schema
    items = opened.items()
    assert items.num_rows > 3
    types = {"id": pa.string(), "ra": pa.float64(), "dec": pa.float64(), "bytes": pa.int64()}
    assert {n: items.schema.field(n).type for n in types} == types
    ids = items["id"].to_pylist()
    assert all(ids) and len(set(ids)) == len(ids)
    public = {n for n in items.column_names if not n.startswith("_")} - {*types, "pixel_scale"}
    assert public <= set(opened.schema.columns), "every public column is described in the schema"


def test_what_is_read_is_what_the_schema_says(opened):
    items = opened.items()
    block = opened.read(items)
    assert set(block.ids) | {r.id for r in block.rejected} == set(items["id"].to_pylist())
    n = len(block.ids)
    for name, rule in opened.schema.observations.items():
        flux, ivar = block.arrays[f"{name}.flux"], block.arrays[f"{name}.ivar"]
        assert flux.shape == (n, *rule.shape) and flux.dtype.isnative
        storage = {"pixel": flux.shape, "band": flux.shape[:2], "object": (n,)}[rule.ivar]
        assert ivar.shape == storage
        assert np.isfinite(flux).all() and np.isfinite(ivar).all() and (ivar >= 0).all() and (ivar > 0).any()
        if rule.noise == "unknown":
            assert set(np.unique(ivar)) <= {0, 1}, "without known noise ivar is a mask"
        if isinstance(rule, ImageSchema):
            assert len(rule.filters) in (0, len(rule.bands))
    for values in block.columns.values():
        assert len(values) == n


def test_in_pieces_in_another_process_in_another_order(opened):
    items = opened.items()
    whole = opened.read(items)
    there = pickle.loads(pickle.dumps(opened)) if opened.guarded else opened
    order = np.random.default_rng(0).permutation(items.num_rows)
    rows = {name: i for i, name in enumerate(whole.ids)}
    for part in np.array_split(order, 3):
        block = there.read(items.take(part))
        at = [rows[name] for name in block.ids]
        for name, array in block.arrays.items():
            np.testing.assert_array_equal(array, whole.arrays[name][at])
    if opened.guarded:  # a tile whose every object was set aside
        empty = there.read(items.slice(0, 0))
        assert empty.ids == () and all(a.shape[1:] == whole.arrays[n].shape[1:] for n, a in empty.arrays.items())


def test_it_becomes_a_native_survey(opened, tmp_path):
    from deepsky.ingestion.run import ingest

    survey = ingest(opened, tmp_path / "native", workers=0, quiet=True)
    assert len(survey) == len(opened.read(opened.items()).ids)
    batch = survey.gather([0, 1])
    for name, part in batch.observations.items():
        assert part.flux.shape == (2, *survey.schema.observations[name].shape)
