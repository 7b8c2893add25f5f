from __future__ import annotations

import pytest
import torch

from deepsky.errors import InputError
from deepsky.registry import find, names, summary
from deepsky.sample import stack
from deepsky.simulators import ellipticity
from deepsky.simulators._parallel import simulate_many

pytest.importorskip("galsim", reason="galsim is not installed")


def equal(a, b):
    pairs = [(a.key, b.key), (a.observations["image"].flux, b.observations["image"].flux)]
    pairs += [(truth.value, b.truth[name].value) for name, truth in a.truth.items()]
    return a.id == b.id and all(torch.equal(torch.nan_to_num(x), torch.nan_to_num(y)) for x, y in pairs)


def test_simulators_are_found_by_name():
    assert {"lenses", "ellipticity"} <= set(names("simulators"))
    assert all(not name.startswith("-") for name in names("simulators"))
    for name in ("lenses", "ellipticity"):
        assert summary("simulators", name) and callable(find("simulators", name).simulate)


@pytest.mark.parametrize("chunk", [7, 16, 100])
def test_chunks_change_nothing(chunk):
    whole = ellipticity.simulate(50, seed=1, first=3)
    pieces = list(simulate_many("ellipticity", 50, seed=1, first=3, chunk=chunk))
    assert [len(p) for p in pieces[:-1]] == [chunk] * (len(pieces) - 1)
    assert equal(stack(pieces), whole)


def test_workers_change_nothing():
    one = stack(list(simulate_many("lenses", 12, seed=5, chunk=3, survey="lsst", workers=1)))
    several = stack(list(simulate_many("lenses", 12, seed=5, chunk=3, survey="lsst", workers=2)))
    assert equal(one, several)
    assert several.observations["image"].bands == ("LSST/LSST.g",) and several.truth["kind"].classes[0] == "lens"


def test_a_function_serves_and_one_that_stops_early_is_closed():
    pieces = simulate_many(ellipticity.simulate, 10_000_000, seed=1, chunk=4)
    assert len(next(pieces)) == 4
    pieces.close()


def test_errors_come_before_the_work():
    with pytest.raises(InputError, match="nothing of this name"):
        simulate_many("lense", 4, seed=1)
    with pytest.raises(InputError, match="out of range"):
        simulate_many("lenses", 0, seed=1)
    with pytest.raises(InputError, match="no lens simulation of this survey"):
        list(simulate_many("lenses", 4, seed=1, survey="nowhere"))
