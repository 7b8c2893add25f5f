"""NPY arrays: the order of the axes, big arrays that are never loaded whole, and what lies beside them."""

from __future__ import annotations

import pickle
import resource

import numpy as np
import pytest

from deepsky.errors import InputError
from deepsky.surveys import npy

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.normal(0, 1, shape).astype(np.float32)


def read(source):
    items = source.items()
    return items, source.read(items)


@pytest.mark.parametrize("axes", ["nbyx", "nyxb"])
@pytest.mark.parametrize("fortran", [False, True])
def test_one_big_array(tmp_path, axes, fortran):
    truth = noise(7, 3, 16, 20)
    stored = truth if axes == "nbyx" else truth.transpose(0, 2, 3, 1)
    np.save(tmp_path / "big.npy", np.asfortranarray(stored) if fortran else np.ascontiguousarray(stored))
    source = npy.open(tmp_path / "big.npy")
    assert any(n.startswith(f"axes {axes}") and "guessed" in n for n in source.schema.notes)
    items, block = read(source)
    assert items["id"].to_pylist()[:2] == ["big-0000000", "big-0000001"]
    np.testing.assert_array_equal(block.arrays["image.flux"], truth)
    part = source.read(items.take([5, 2]))
    np.testing.assert_array_equal(part.arrays["image.flux"], truth[[5, 2]])


def test_three_axes(tmp_path):
    np.save(tmp_path / "a.npy", noise(50, 16, 16))
    assert npy.open(tmp_path / "a.npy").schema.observations["image"].shape == (1, 16, 16)
    np.save(tmp_path / "b.npy", noise(16, 16, 3))
    assert npy.open(tmp_path / "b.npy").schema.observations["image"].shape == (3, 16, 16)
    np.save(tmp_path / "c.npy", noise(5, 16, 16))
    assert npy.open(tmp_path / "c.npy").items().num_rows == 1  # five bands
    assert npy.open(tmp_path / "c.npy", axes="nyx").items().num_rows == 5


@pytest.mark.parametrize(
    ("shape", "axes"), [((5, 3, 8, 8), None), ((9, 20, 20, 20), None), ((4, 4, 4), None), ((9, 20, 20), "nbyx")]
)
def test_axes_that_cannot_be_known(tmp_path, shape, axes):
    np.save(tmp_path / "a.npy", noise(*shape))
    with pytest.raises(InputError, match="axes"):
        npy.open(tmp_path / "a.npy", axes=axes)
    with pytest.raises(InputError, match="axes are named"):
        npy.open(tmp_path / "a.npy", axes="nbxq")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float16", "float32", ">f4", "float64", "int64", "bool"])
def test_types(tmp_path, dtype):
    values = RNG.integers(0, 2, (4, 3, 16, 16)).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    flux = read(npy.open(tmp_path / "a.npy"))[1].arrays["image.flux"]
    name = np.dtype(dtype).newbyteorder("=").name
    assert flux.dtype == (name if name in npy.KEPT else "float32")
    np.testing.assert_array_equal(flux, values)


def test_one_array_a_file(tmp_path):
    truth = {}
    for kind in ("star", "galaxy"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            truth[f"{kind}{i}"] = noise(16, 16, 3)
            np.save(tmp_path / kind / f"{kind}{i}.npy", truth[f"{kind}{i}"])
    source = npy.open(tmp_path, bands=["g", "r", "i"])
    assert source.schema.columns["class"].classes == ("galaxy", "star")
    _, block = read(source)
    for name, flux in zip(block.ids, block.arrays["image.flux"], strict=True):
        np.testing.assert_array_equal(flux, truth[name].transpose(2, 0, 1))


def test_what_lies_beside_a_big_array(tmp_path):
    flux, sigma = noise(6, 3, 16, 16), np.full((6, 3, 16, 16), 0.5)
    sigma[0, 0, 0, 0] = np.inf
    for name, values in {
        "images": flux,
        "sigma": sigma,
        "labels": np.array([0, 1, 1, 0, 2, 10]),
        "z": np.arange(6.0),
        "ids": np.arange(10, 16),
        "ra": np.arange(6.0),
        "dec": np.arange(6.0),
        "odd": np.arange(9),
    }.items():
        np.save(tmp_path / f"{name}.npy", values)
    source = npy.open(tmp_path)
    assert source.schema.columns["labels"].classes == ("0", "1", "2", "10")
    assert any("odd.npy has 9 values for 6 objects" in n for n in source.schema.notes)
    items, block = read(source)
    assert items["id"].to_pylist() == [str(i) for i in range(10, 16)]
    assert items["z"].to_pylist() == items["ra"].to_pylist() == list(range(6))
    ivar = block.arrays["image.ivar"]
    assert ivar[0, 0, 0, 0] == 0 and (ivar == 4).sum() == ivar.size - 1


def test_nan_sentinel_and_bad_objects(tmp_path):
    values = noise(5, 1, 16, 16)
    values[0, 0, 0, 0], values[1, 0, 3, 3] = np.nan, -999
    values[2], values[3] = np.nan, 7
    np.save(tmp_path / "a.npy", values)
    _, block = read(npy.open(tmp_path / "a.npy", sentinel=-999))
    assert block.ids == ("a-0000000", "a-0000001", "a-0000004")
    assert block.arrays["image.ivar"].sum() == 3 * 256 - 2 and np.isfinite(block.arrays["image.flux"]).all()
    reasons = [r.reason for r in block.rejected]
    assert "no measured pixel" in reasons[0] and "constant" in reasons[1]


def test_mixed_shapes(tmp_path):
    np.save(tmp_path / "a.npy", noise(20, 20))
    np.save(tmp_path / "b.npy", noise(16, 20))
    with pytest.raises(InputError, match="mixed shapes without a rule"):
        npy.open(tmp_path)
    _, block = read(npy.open(tmp_path, size=18))
    assert block.arrays["image.ivar"].sum((1, 2, 3)).tolist() == [18 * 18, 16 * 18]


def test_bad_files(tmp_path):
    np.save(tmp_path / "good.npy", noise(16, 16))
    for name, data in (("objects", None), ("cut", (tmp_path / "good.npy").read_bytes()[:500]), ("text", b"hello")):
        if data is None:
            np.save(tmp_path / f"{name}.npy", np.array([{}]), allow_pickle=True)
        else:
            (tmp_path / f"{name}.npy").write_bytes(data)
        with pytest.raises(InputError, match=f"{name}.npy"):
            npy.open(tmp_path / f"{name}.npy")
    np.save(tmp_path / "flat.npy", np.arange(5))
    with pytest.raises(InputError, match="no array of images"):
        npy.open(tmp_path / "flat.npy")


def test_a_broken_file_among_good_ones_is_set_aside(tmp_path):
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", noise(16, 16))
    (tmp_path / "2.npy").write_bytes((tmp_path / "1.npy").read_bytes()[:300])
    source = npy.open(tmp_path)
    _, block = read(source)
    assert block.ids == ("0", "1", "3") and "2.npy" in block.rejected[0].reason


def test_a_big_array_is_never_loaded(tmp_path):
    path = tmp_path / "big.npy"
    big = np.lib.format.open_memmap(path, "w+", np.float32, (60_000, 1, 64, 64))  # 1 GB on paper, holes on the disk
    big[::10_000] = noise(6, 1, 64, 64)
    del big
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = npy.open(path)
    block = source.read(source.items().take([0, 30_000]))
    assert len(block.ids) == 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_travel_and_claims(tmp_path):
    file = npy.example(tmp_path)
    assert npy.claims(file) and npy.claims(tmp_path)
    source = npy.open(file)
    items = source.items()
    there = pickle.loads(pickle.dumps(source)).read(items.slice(4, 3))
    np.testing.assert_array_equal(there.arrays["image.flux"], source.read(items).arrays["image.flux"][4:7])


def test_flat_rows_are_no_image(tmp_path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).integers(0, 255, (40, 784), dtype=np.uint8))
    with pytest.raises(InputError, match=r"flat images\?\n(.*\n)*.*reshape\(-1, 28, 28\)"):
        npy.open(tmp_path / "rows.npy")
    assert npy.open(tmp_path / "rows.npy", axes="yx").items().num_rows == 1


def test_the_unit_is_one_that_exists(tmp_path):
    np.save(tmp_path / "a.npy", noise(4, 3, 16, 20))
    image = npy.open(tmp_path / "a.npy", unit="uJy").schema.observations["image"]
    assert (image.unit, image.quantity) == ("uJy", "f_nu")
    with pytest.raises(InputError, match=r"no such unit\n(.*\n)*.*did you mean 'nJy'"):
        npy.open(tmp_path / "a.npy", unit="nJi")


def test_ids_beside_the_array_are_exact_or_refused(tmp_path):
    np.save(tmp_path / "a.npy", noise(4, 3, 16, 20))
    np.save(tmp_path / "ids.npy", np.arange(4.0))
    assert npy.open(tmp_path).items()["id"].to_pylist() == ["0", "1", "2", "3"]
    np.save(tmp_path / "ids.npy", np.full(4, 1.23766e18))
    with pytest.raises(InputError, match="rounded by a spreadsheet or a float64"):
        npy.open(tmp_path)
