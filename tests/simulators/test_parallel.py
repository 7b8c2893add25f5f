from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest
import torch

from deepsky.errors import InputError
from deepsky.registry import find, names, summary
from deepsky.sample import stack
from deepsky.simulators import _parallel, ellipticity
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


SCRIPT = """
from deepsky.simulators._parallel import simulate_many

print("started")
made = list(simulate_many("ellipticity", 6, seed=1, chunk=3, workers=2))
print(sum(len(s) for s in made), float(made[0].observations["image"].flux.sum()))
"""


def run(tmp_path, text):
    script = tmp_path / "mine.py"
    script.write_text(text)
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)


def test_a_script_needs_no_guard(tmp_path):
    done = run(tmp_path, SCRIPT)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()  # the workers do not run the script again
    assert first == "started" and second.split()[0] == "6"
    here = next(simulate_many("ellipticity", 6, seed=1, chunk=3))
    assert float(second.split()[1]) == float(here.observations["image"].flux.sum())


def test_a_simulator_in_a_script_is_refused_with_the_way_out(tmp_path):
    own = SCRIPT.replace('"ellipticity"', "mine").replace('print("started")', "def mine(n, seed, first): ...")
    done = run(tmp_path, own)
    assert done.returncode != 0 and "InputError: other processes cannot import what stands in a script" in done.stderr
    assert "fix: put it into a module of its own" in done.stderr and "mine" in done.stderr
    with pytest.raises(InputError, match="cannot reach other processes"):
        simulate_many(lambda n, seed, first: None, 4, seed=1, workers=2)


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def failing(n, seed, first, how):
    if how == "dies":
        os._exit(7)
    raise {"value": ValueError("no such sky"), "odd": Odd(1, 2), "input": InputError("bad", fix="mend it")}[how]


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("value", ValueError, "no such sky"),
        ("odd", RuntimeError, "Odd: 1 and 2"),
        ("input", InputError, "fix: mend it"),
    ],
)
def test_errors_travel_with_their_traceback(how, error, words):
    arrived = pickle.loads(pickle.dumps(_parallel._work(failing, 4, 1, 0, {"how": how}))).error
    assert type(arrived) is error and words in str(arrived) and "in failing" in arrived.__notes__[0]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("input", "bad\n  fix: mend it"),
        ("dies", "objects 4 to 7 could not be made in a worker\n  found: ends the worker process: exit code 7"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_raised_here(how, words):
    with pytest.raises(InputError, match=words):
        list(simulate_many(failing, 10, seed=1, first=4, chunk=4, workers=2, how=how))
