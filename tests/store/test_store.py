"""What is written is what is read; a folder that was not finished is seen as such."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from deepsky import store
from deepsky.errors import InputError
from deepsky.io import blake_keys
from deepsky.sample import Image, Row, Sample, Truth
from deepsky.survey import Survey


def batch(n: int, first: int = 0, *, positions: bool = False, scale: float = 1.0, ivar: str = "band") -> Sample:
    """Random images in three bands, with a truth of every kind."""
    draw = np.random.default_rng(first)
    ids = tuple(f"s{first + i}" for i in range(n))
    nan = np.full(n, np.nan)
    ra, dec = (draw.uniform(0, 360, n), np.degrees(np.arcsin(draw.uniform(-1, 1, n)))) if positions else (nan, nan)
    flux = torch.from_numpy(draw.normal(0, scale, (n, 3, 8, 9)).astype(np.float32))
    shape = {"object": (n, 1, 1, 1), "band": (n, 3, 1, 1), "pixel": (n, 3, 8, 9)}[ivar]
    weight = torch.from_numpy(draw.uniform(0.5, 2, shape) / scale**2).float()
    image = Image(
        flux,
        weight,
        unit="nJy",
        bands=("g", "r", "i"),
        pixel_scale=torch.full((n,), 0.2),
        psf=torch.ones(n, 3, 5, 5) / 25,
    )
    return Sample(
        ids,
        torch.from_numpy(blake_keys(ids).view(np.int64)),
        torch.from_numpy(ra),
        torch.from_numpy(dec),
        {"image": image},
        {
            "lens": Truth(torch.from_numpy(draw.integers(0, 2, n))),
            "e": Truth(torch.from_numpy(draw.normal(0, 0.1, (n, 2))), moves="spin2"),
            "kind": Truth(torch.from_numpy(draw.integers(-1, 2, n)), classes=("spiral", "smooth")),
            "z": Truth(torch.from_numpy(draw.random(n)), sigma=torch.from_numpy(draw.random(n)), limit=torch.ones(n)),
            "clean": Truth(flux * 0.5, moves="image", unit="nJy"),
        },
    )


def batches(count: int, size: int = 50, **options: object) -> Iterator[Sample]:
    for i in range(count):
        yield batch(size, i * size, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("ivar", ["object", "band", "pixel"])
def test_round_trip(tmp_path: Path, ivar: str) -> None:
    survey = store.write(batches(4, ivar=ivar), tmp_path / "s", name="toy", tile_bytes=100_000)
    assert len(survey) == 200 and len(survey.tiles) > 1
    assert survey.schema.observations["image"].ivar == ivar
    back, given = survey.gather(np.arange(50, 100)), batch(50, 50, ivar=ivar)
    assert back.id == given.id and torch.equal(back.key, given.key)
    image, before = back.observations["image"], given.observations["image"]
    assert isinstance(image, Image) and isinstance(before, Image)
    assert torch.equal(image.flux, before.flux) and torch.equal(image.ivar, before.ivar)
    assert torch.equal(image.pixel_scale, before.pixel_scale) and image.unit == "nJy" and image.bands == before.bands
    assert image.psf is not None and torch.equal(image.psf, before.psf)
    for name, truth in given.truth.items():
        read = back.truth[name]
        assert read.moves == truth.moves and read.classes == truth.classes
        assert torch.equal(read.value.to(truth.value.dtype), truth.value), name
    assert torch.allclose(back.truth["z"].limit, torch.ones(50, dtype=torch.float64))
    assert back.truth["z"].sigma is not None


def test_any_order_across_tiles(tmp_path: Path) -> None:
    survey = store.write(batches(4), tmp_path / "s", tile_bytes=100_000)
    order = np.random.default_rng(0).permutation(len(survey))
    mixed, straight = survey.gather(order), survey.gather(slice(None))
    assert mixed.id == tuple(straight.id[i] for i in order)
    assert torch.equal(mixed.observations["image"].flux, straight.observations["image"].flux[order])


def test_positions_make_healpix_tiles(tmp_path: Path) -> None:
    from astropy import units as u
    from astropy_healpix import lonlat_to_healpix

    survey = store.write(batches(6, positions=True), tmp_path / "s", tile_bytes=60_000)
    assert len(survey.tiles) > 12
    for tile in survey.tiles:
        here = survey.select(survey.in_tile(tile), "tile")
        order, cell = (int(part.split("=")[1]) for part in tile.name.split("-"))
        found = lonlat_to_healpix(here.column("ra") * u.deg, here.column("dec") * u.deg, 2**order, order="nested")
        assert set(np.asarray(found)) == {cell}
    given = {i: f for b in batches(6, positions=True) for i, f in zip(b.id, b.observations["image"].flux, strict=True)}
    back = survey.gather(slice(None))
    assert all(torch.equal(f, given[i]) for i, f in zip(back.id, back.observations["image"].flux, strict=True))


def test_tiles_adapt_in_bytes() -> None:
    draw = np.random.default_rng(1)
    ra, dec = draw.normal(150, 0.5, 3000) % 360, draw.normal(2, 0.5, 3000)
    ra[:100] = np.nan
    cells = store.plan(ra, dec, np.full(3000, 1000), limit=200_000)
    assert sorted(np.concatenate([c.rows for c in cells])) == list(range(3000))
    assert max(len(c.rows) for c in cells) <= 200
    assert [c.name for c in cells if c.name.startswith("shard")] == ["shard-000000"]
    assert (
        len(store.plan(ra, dec, np.full(3000, 1000), limit=1 << 30)) == 2
    )  # the sky in one tile, and those without position
    one_place = store.plan(np.full(10, 5.0), np.full(10, 5.0), np.full(10, 100), limit=300)
    assert len(one_place) == 4 and len({c.name for c in one_place}) == 4


def test_units_are_scaled_so_that_float32_holds(tmp_path: Path) -> None:
    sample = batch(40, scale=1e-22, ivar="object")
    tiny = Sample(**{**sample.__dict__, "truth": {"clean": sample.truth["clean"]}})
    image = tiny.observations["image"]
    assert isinstance(image, Image)
    flux = image.flux.double()
    wide = Image(flux, torch.full((40, 1, 1, 1), 1e44, dtype=torch.float64), unit="W / m2", bands=image.bands)
    truth = Truth(flux, moves="image", unit="W / m2")
    survey = store.write(
        [Sample(tiny.id, tiny.key, tiny.ra, tiny.dec, {"image": wide}, {"clean": truth})], tmp_path / "s"
    )
    rule = survey.schema.observations["image"]
    assert rule.unit == "1e-22 W / m2" == survey.schema.columns["clean"].unit  # type: ignore[union-attr]
    back = survey.gather(slice(None))
    assert torch.allclose(back.observations["image"].flux.double() * 1e-22, flux, rtol=1e-6, atol=0)
    assert torch.allclose(back.observations["image"].ivar, torch.ones(1))
    assert torch.allclose(back.truth["clean"].value, back.observations["image"].flux)


def test_float16_keeps_three_digits_and_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    survey = store.write(batches(1, ivar="object"), tmp_path / "s", dtype="float16")
    assert np.load(survey.path / "tiles" / survey.tiles[0].name / "image.flux.npy").dtype == np.float16
    back = survey.gather(slice(None)).observations["image"].flux
    assert torch.allclose(back, batch(50).observations["image"].flux, rtol=1e-3, atol=1e-4)
    bright = batch(5)
    bright.observations["image"].flux[2, 0, 0, 0] = 1e6
    with pytest.raises(InputError, match="does not fit float16"):
        store.write([bright], tmp_path / "t", dtype="float16")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_no_inverse_variance_is_refused(tmp_path: Path, bad: float) -> None:
    sample = batch(5)
    sample.observations["image"].ivar[1, 1] = bad
    with pytest.raises(InputError, match="not an inverse variance"):
        store.write([sample], tmp_path / "s")
    assert not (tmp_path / "s" / "schema.json").exists()


def test_rows(tmp_path: Path) -> None:
    n, ids = 20, tuple(map(str, range(20)))
    row = Row(torch.rand(n, 4), torch.ones(n, 4), names=("u", "g", "r", "i"), units=("mag",) * 4)
    nan = torch.full((n,), float("nan"), dtype=torch.float64)
    sample = Sample(ids, torch.from_numpy(blake_keys(ids).view(np.int64)), nan, nan, {"row": row})
    back = store.write([sample], tmp_path / "s").gather(slice(None)).observations["row"]
    assert isinstance(back, Row) and back.names == row.names and back.units == row.units
    assert torch.equal(back.flux, row.flux) and torch.equal(back.ivar, row.ivar)


def test_checksums_find_a_flipped_bit(tmp_path: Path) -> None:
    survey = store.write(batches(2), tmp_path / "s")
    assert list(store.verify(survey)) == []
    path = survey.path / "tiles" / survey.tiles[0].name / "image.flux.npy"
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    assert list(store.verify(survey)) == [str(path)]


def test_unfinished_and_foreign_folders(tmp_path: Path) -> None:
    def broken() -> Iterator[Sample]:
        yield batch(10)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        store.write(broken(), tmp_path / "s")
    with pytest.raises(InputError, match="an unfinished survey"):
        Survey.load(tmp_path / "s")
    survey = store.write(batches(1), tmp_path / "s")  # written anew
    assert len(survey) == 50 and not (tmp_path / "s" / "plan.json").exists()
    with pytest.raises(InputError, match="there is a survey here already"):
        store.write(batches(1), tmp_path / "s")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        store.write(batches(1), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()
    with pytest.raises(InputError, match="no object"):
        store.write([], tmp_path / "none")


def test_bands_must_not_change(tmp_path: Path) -> None:
    other = batch(5, 5)
    image = other.observations["image"]
    assert isinstance(image, Image)
    swapped = Image(image.flux, image.ivar, unit=image.unit, bands=("i", "r", "g"), psf=image.psf)
    with pytest.raises(InputError) as error:
        store.write([batch(5), Sample(**{**other.__dict__, "observations": {"image": swapped}})], tmp_path / "s")
    assert error.value.found == ("i", "r", "g") and error.value.expected == ("g", "r", "i")


def test_bands_called_by_their_filter_get_short_names(tmp_path: Path) -> None:
    def called(first: int, names: tuple[str, ...]) -> Sample:
        sample = batch(5, first)
        image = sample.observations["image"]
        assert isinstance(image, Image)
        return Sample(**{**sample.__dict__, "truth": {}, "observations": {"image": Image(
            image.flux, image.ivar, unit="nJy", bands=names, pixel_scale=image.pixel_scale)}})  # fmt: skip

    ids = ("Paranal/OmegaCAM.g_SDSS", "LSST/LSST.r", "Euclid/VIS.vis")
    made = store.write([called(0, ids), called(5, ids)], tmp_path / "a")
    image = made.schema.observations["image"]
    assert image.bands == ("g", "r", "vis") and image.filters == ids
    assert made.gather([7]).observation("image").bands == ("g", "r", "vis")
    twice = ("LSST/LSST.g", "CTIO/DECam.g", "LSST/LSST.r")
    same = store.write([called(0, twice)], tmp_path / "b").schema.observations["image"]
    assert same.bands == twice and same.filters == ()  # short names would be one


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    one = store.write(batches(3, positions=True), tmp_path / "a", name="toy", tile_bytes=60_000)
    two = store.write(batches(3, positions=True), tmp_path / "b", name="toy", tile_bytes=60_000)
    files = [sorted(p.relative_to(s.path) for p in s.path.rglob("*") if p.is_file()) for s in (one, two)]
    assert files[0] == files[1]
    assert all((one.path / f).read_bytes() == (two.path / f).read_bytes() for f in files[0])
    assert one.hash == two.hash
    other = store.write([batch(50, 1)], tmp_path / "c")
    assert other.hash != one.hash


def test_newer_format_is_refused(tmp_path: Path) -> None:
    survey = store.write(batches(1), tmp_path / "s")
    data = json.loads((survey.path / "schema.json").read_text())
    (survey.path / "schema.json").write_text(json.dumps({**data, "format": 99}))
    with pytest.raises(InputError, match="newer"):
        Survey.load(survey.path)


def test_index_opens_elsewhere(tmp_path: Path) -> None:
    duckdb, pandas, polars = (pytest.importorskip(n) for n in ("duckdb", "pandas", "polars"))
    survey = store.write(batches(2, positions=True), tmp_path / "s", tile_bytes=60_000)
    path = str(survey.path / "index.parquet")
    frame, lazy = pandas.read_parquet(path), polars.read_parquet(path)
    query = f"SELECT count(*), count(DISTINCT id), max(dec), min(tile) FROM '{path}' WHERE fold = 'train'"
    with duckdb.connect() as base:
        count, different, top, tile = base.execute(query).fetchone()
    train = frame[frame["fold"] == "train"]
    assert count == different == len(train) == lazy.filter(polars.col("fold").cast(str) == "train").height > 0
    assert top == train["dec"].max() and tile in {t.name for t in survey.tiles}
    assert list(frame.columns[:8]) == ["id", "key", "ra", "dec", "tile", "row", "group", "fold"]
    assert pq.read_schema(path).field("key").type == "uint64"
