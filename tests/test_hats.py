"""A HATS catalogue of a survey opens in LSDB and in plain Parquet readers, pixels included."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.folds import made

from deepsky import labels
from deepsky.errors import InputError
from deepsky.hats import write_hats
from deepsky.survey import Survey

N = 300


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    draw = np.random.default_rng(0)
    ra, dec = draw.uniform(0, 360, N), np.degrees(np.arcsin(draw.uniform(-1, 1, N)))
    ra[:150], dec[:150] = 40 + draw.normal(0, 0.5, 150), 10 + draw.normal(0, 0.5, 150)
    ra[7] = np.nan
    found = made.survey(tmp_path_factory.mktemp("hats") / "s", ra=ra, dec=dec, n=N, pixel_scale=0.2)
    labels.add(found.path, {"id": found.id.tolist(), "kind": ["a", "b", "c"] * 100})
    return Survey.load(found.path)


def test_partitions_and_pixels(survey: Survey, tmp_path: Path) -> None:
    to = write_hats(survey, tmp_path / "cat", partition_bytes=8000)
    parts = sorted((to / "dataset").rglob("Npix=*.parquet"))
    assert len(parts) > 20
    seen = 0
    for path in parts:
        order, cell = int(path.parts[-3].split("=")[1]), int(path.stem.split("=")[1])
        table = pq.read_table(path)
        deep = table["_healpix_29"].to_numpy()
        assert (np.diff(deep) >= 0).all() and set(deep >> (2 * (29 - order))) == {cell}
        about = {k.decode(): json.loads(v) for k, v in table.schema.field("image_flux").metadata.items()}
        assert about["shape"] == [1, 8, 8] and about["bands"] == ["g"]
        for name, flux in zip(table["id"].to_pylist(), table["image_flux"].to_pylist(), strict=True):
            row = list(survey.id).index(name)
            expected = survey.gather([row]).observations["image"].flux[0].numpy()
            assert np.array_equal(np.frombuffer(flux, about["dtype"]).reshape(about["shape"]), expected)
        seen += table.num_rows
    assert seen == N - 1  # one object has no position
    lines = (to / "partition_info.csv").read_text().splitlines()
    assert len(lines) == len(parts) + 1 and lines[0] == "Norder,Npix"


def test_it_opens_in_lsdb(survey: Survey, tmp_path: Path) -> None:
    dask, lsdb = pytest.importorskip("dask"), pytest.importorskip("lsdb")
    to = write_hats(survey, tmp_path / "cat", partition_bytes=8000)
    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
        warnings.simplefilter("ignore")
        catalogue = lsdb.open_catalog(to, columns="all")
        frame = catalogue.compute()
        near = catalogue.cone_search(40, 10, 1800).compute()
        default = lsdb.open_catalog(to)
    assert len(frame) == len(catalogue) == N - 1 and set(frame["id"]) == set(
        survey.id[np.isfinite(survey.column("ra"))]
    )
    name, flux = frame["id"].iloc[3], frame["image_flux"].iloc[3]
    row = list(survey.id).index(name)
    assert np.array_equal(
        np.frombuffer(flux, "<f4").reshape(1, 8, 8), survey.gather([row]).observations["image"].flux[0].numpy()
    )
    ra, dec = survey.column("ra"), survey.column("dec")
    from astropy.coordinates import angular_separation

    distance = np.degrees(angular_separation(*map(np.radians, (ra, dec, 40.0, 10.0))))
    assert set(near["id"]) == set(survey.id[distance < 0.5]) and len(near) > 10
    assert "kind" in default.columns and "image_flux" not in default.columns
    assert dict(zip(frame["id"], frame["kind"], strict=True))[name] == survey.column("kind")[row]


def test_refusals(survey: Survey, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs positions"):
        write_hats(made.survey(tmp_path / "s", n=10), tmp_path / "cat")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        write_hats(survey, tmp_path / "full")
    assert not list(tmp_path.glob(".tmp*"))
