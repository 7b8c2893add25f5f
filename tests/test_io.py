"""Atomic writing, strict JSON, stable hashes, locks."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepsky.errors import InputError, TrainingError
from deepsky.io import (
    atomic_write,
    blake_key,
    blake_keys,
    lock_folder,
    read_json,
    sha256,
    sha256_tree,
    stable_uint,
    write_json,
)


def _run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


# -- atomic writing -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("data", [b"\x00new\n", "n\u00e9w\n", lambda file: np.save(file, np.arange(3))])
def test_writes_what_is_given_and_leaves_nothing_else(tmp_path: Path, data: object) -> None:
    path = tmp_path / "deep" / "file"
    atomic_write(path, b"old")
    atomic_write(path, data)  # type: ignore[arg-type]
    expected = data.encode() if isinstance(data, str) else data
    if callable(data):
        buffer = io.BytesIO()
        data(buffer)
        expected = buffer.getvalue()
    assert path.read_bytes() == expected
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    atomic_write(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == plain.stat().st_mode  # a catalogue is for colleagues to read


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt(), OSError(errno.EIO, "broken disk")])
def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(type(error)) as caught:
        atomic_write(path, fail)
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path, number: int) -> None:
    path = tmp_path / "checkpoint"

    def full(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(TrainingError, match="(?s)checkpoint: no room.*nothing was written.*fix: free space"):
        atomic_write(path, full)
    path.write_bytes(b"old")
    with pytest.raises(TrainingError, match="the file that was there before is unchanged"):
        atomic_write(path, full)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_a_limit_of_the_system_itself(tmp_path: Path) -> None:
    """The kernel refuses the bytes, as it does on a full disk."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = """
import resource, signal, sys
from deepsky.io import atomic_write
from deepsky.errors import TrainingError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    atomic_write(sys.argv[1], bytes(200_000))
except TrainingError as error:
    print("refused:", error)
"""
    done = _run(code, path)
    assert "refused:" in done.stdout and "unchanged" in done.stdout, done.stderr
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_kill_9_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = """
import os, signal, sys
from deepsky.io import atomic_write
def die(file):
    file.write(b"half"); file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
atomic_write(sys.argv[1], die)
"""
    assert _run(code, path).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    before = sha256_tree(tmp_path, exclude=["nothing"])
    for left in tmp_path.glob(".tmp-*"):
        left.unlink()
    assert sha256_tree(tmp_path) == before  # what a kill leaves behind is no content


# -- JSON -----------------------------------------------------------------------------------------------------
literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None)
@given(data=literals)
def test_json_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    path = tmp_path_factory.getbasetemp() / "data.json"
    try:
        write_json(path, data)
    except UnicodeEncodeError:  # a lone surrogate is no text
        assert "\\ud" in ascii(data)
        return
    assert read_json(path) == data


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": {"d": (1, 2), "c": "\u00e9"}})
    write_json(tmp_path / "b", {"a": {"c": "\u00e9", "d": [1, 2]}, "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numpy_and_paths_become_plain(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"i": np.int64(3), "f": np.float32(0.5), "a": np.eye(2), "b": np.bool_(True), "p": tmp_path})
    assert read_json(path) == {"i": 3, "f": 0.5, "a": [[1, 0], [0, 1]], "b": True, "p": str(tmp_path)}


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"a": [0, {"loss": float("nan")}]}, r"\$\.a\[1\]\.loss"),
        ({"x": float("-inf")}, r"\$\.x"),
        ({"x": np.array([1, np.nan])}, r"\$\.x\[1\]"),
        ({"a": {1: 2, "1": 3}}, r"\$\.a"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_its_place(tmp_path: Path, data: object, place: str) -> None:
    with pytest.raises(InputError, match=place):
        write_json(tmp_path / "x.json", data)
    assert not list(tmp_path.iterdir())


def test_what_json_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n "b": }', "line 2 column 7"),
        (b'{"a": {"x": 1, "x": 2}}', "'x' stands twice"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": 1e999}', "1e999 is not a finite number"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b"", "not a JSON file"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_json_names_the_file_and_the_fault(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"(?s)model\.json: .*{message}"):
        read_json(path)


def test_json_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json")
    with pytest.raises(InputError, match="a folder where"):
        read_json(tmp_path)


# -- hashes ---------------------------------------------------------------------------------------------------
def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1


def test_the_hash_of_a_tree_sees_names_and_bytes_alone(tmp_path: Path) -> None:
    def tree(name: str, files: dict[str, str]) -> Path:
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / name

    one = tree("one", {"a": "1", "b/c": "2"})
    two = tree("two", {"b/c": "2", "a": "1"})
    os.utime(two / "a", (0, 0))
    same = sha256_tree(one)
    assert sha256_tree(two) == same
    assert sha256_tree(tree("three", {"a": "2", "b/c": "1"})) != same  # contents exchanged
    assert sha256_tree(tree("four", {"a": "1", "b": "2"})) != same  # a file moved
    assert sha256_tree(tree("five", {"a": "1", "b/c": "2", "d": ""})) != same  # an empty file counts

    tree("two", {"log.txt": "x", "b/labels/x/y": "z"})
    assert sha256_tree(two, exclude=["*.txt", "labels"]) == same
    assert sha256_tree(two, exclude=["*.txt"]) != same
    with lock_folder(two):
        assert sha256_tree(two, exclude=["log.txt", "b/labels"]) == same


def test_keys_are_blake2b_and_the_same_one_by_one(tmp_path: Path) -> None:
    ids = ["NGC 224", "", "M\u00e9chain 1", "x" * 1000, os.fsdecode(b"bad\xff")]
    keys = blake_keys(ids)
    assert keys.dtype == np.uint64
    assert [int(k) for k in keys] == [blake_key(i) for i in ids]
    assert int(keys[0]) == int.from_bytes(hashlib.blake2b(b"NGC 224", digest_size=8).digest(), "little")
    assert blake_keys([]).shape == (0,)
    assert np.array_equal(blake_keys(np.array(ids[:3])), keys[:3])


def test_keys_do_not_follow_pythons_hash() -> None:
    code = "from deepsky.io import *; print(blake_key('a'), stable_uint(0, 'a'))"
    runs = {
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True,
                       text=True, check=True).stdout for seed in ("1", "2")
    }  # fmt: skip
    assert runs == {f"{blake_key('a')} {stable_uint(0, 'a')}\n"}


def test_a_stable_number_depends_on_every_part_its_type_and_place() -> None:
    different = [
        (0,),
        (1,),
        (-1,),
        ("0",),
        (b"0",),
        (0, ""),
        ("", 0),
        (0, "ab"),
        ("ab", 0),
        ("a", "b"),
        ("ab",),
        (2**70,),
        (),
    ]
    numbers = [stable_uint(*parts) for parts in different]
    assert len(set(numbers)) == len(different)
    assert all(0 <= n < 2**64 for n in numbers)
    assert stable_uint(np.int64(7), "x") == stable_uint(7, "x")
    for wrong in (1.0, True, None):
        with pytest.raises(TypeError):
            stable_uint(wrong)  # type: ignore[arg-type]


def test_stable_numbers_fill_their_range() -> None:
    """Uniform: the mean of 4,000 lies within five sigma of the middle, and every bit is set half of the time."""
    numbers = np.array([stable_uint(0, i) for i in range(4000)], dtype=np.uint64)
    assert abs(numbers.astype(float).mean() / 2**64 - 0.5) < 5 / np.sqrt(12 * 4000)
    bits = np.unpackbits(numbers.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert np.all(np.abs(bits - 0.5) < 5 * 0.5 / np.sqrt(4000))


# -- one writer a folder --------------------------------------------------------------------------------------
def test_two_writers_in_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with lock_folder(folder):
        with pytest.raises(InputError, match=f"(?s)another process writes.*process {os.getpid()} on "):
            with lock_folder(folder):
                pytest.fail("two writers")
        with lock_folder(tmp_path / "other"):
            pass
    with lock_folder(folder):  # free again
        pass


def test_an_error_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock_folder(tmp_path):
        raise KeyError
    with lock_folder(tmp_path):
        pass


def test_a_killed_writer_does_not_block_the_next(tmp_path: Path) -> None:
    code = """
import sys, time
from deepsky.io import lock_folder
with lock_folder(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == "locked\n"
            with pytest.raises(InputError, match=f"process {child.pid} on "):
                with lock_folder(tmp_path):
                    pytest.fail("two writers")
        finally:
            child.kill()
            child.wait()
    with lock_folder(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")


def test_json_reading_agrees_with_the_standard_library(tmp_path: Path) -> None:
    text = '{"a": [1, 2.5, -3e-4, "x\\u00e9", null, true], "b": {}}'
    (tmp_path / "x").write_text(text)
    assert read_json(tmp_path / "x") == json.loads(text)
