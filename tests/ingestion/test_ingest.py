"""From a source to a native survey: resumable to the byte, bad objects set aside, bounded memory, nothing half done."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from tests.ingestion.sources import SIDE, made

from deepsky import store
from deepsky.errors import InputError, TrainingError
from deepsky.ingestion import clear_cache, find_reader, ingest, open, summary, understand
from deepsky.ingestion.chunk import MEASURED
from deepsky.ingestion.prepare import RESERVED
from deepsky.ingestion.run import gist_of, size_of
from deepsky.io import blake_keys
from deepsky.labels.matching import OWN
from deepsky.source import Rejected, Source
from deepsky.survey import Survey


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a survey by its path; the lock says only who held it."""
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def image_of(number: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(number).normal(size=(1, SIDE, SIDE))).float()


@pytest.mark.parametrize(("workers", "positions"), [(0, False), (0, True), (1, True)])
def test_what_goes_in_comes_out(tmp_path: Path, workers: int, positions: bool) -> None:
    survey = ingest(made(positions=positions), tmp_path / "s", workers=workers, quiet=True, tile_bytes=20_000)
    assert len(survey) == 60 and len(survey.tiles) > 2 and list(store.verify(survey)) == []
    batch = survey.gather(slice(None))
    for name, flux in zip(batch.id, batch.observations["image"].flux, strict=True):
        assert torch.equal(flux, image_of(int(name[1:])))
    assert np.allclose(survey.column("mag"), [int(i[1:]) * 0.1 for i in survey.id])
    assert {"unmeasured", "saturated", "edge", "phash", "crc", "group", "fold"} <= set(survey.index.column_names)
    assert (survey.path / "schema.json").exists() and not (survey.path / "plan.json").exists()


def test_workers_and_memory_change_nothing(tmp_path: Path) -> None:
    one = ingest(made(positions=True), tmp_path / "a", workers=0, quiet=True, tile_bytes=20_000)
    two = ingest(made(positions=True), tmp_path / "b", workers=2, quiet=True, tile_bytes=20_000, memory="1MB")
    a, b = files(one.path), files(two.path)
    assert a.keys() == b.keys() and all(a[k] == b[k] for k in a)


KILLED: dict[str, Any] = {"workers": 0, "quiet": True, "tile_bytes": 6000, "memory": 60_000}


def slow() -> Source:
    return made(n=80, nap=0.03, faults=((7, "constant"), (33, "refused")))


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    code = ("import sys; from deepsky.ingestion import ingest; from tests.ingestion.test_ingest import KILLED, slow;"
            "ingest(slow(), sys.argv[1], **KILLED)")  # fmt: skip
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}", "OMP_NUM_THREADS": "1"}
    seen = []
    for wanted in (2, 7):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "killed")], env=environment, cwd=root)
        tiles = tmp_path / "killed" / "tiles"
        until = time.monotonic() + 120  # a busy machine takes its time to start
        while time.monotonic() < until:
            done = [p for p in tiles.iterdir() if not p.name.startswith(".")] if tiles.is_dir() else []
            if len(done) >= wanted or process.poll() is not None:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(len(done))
        assert not (tmp_path / "killed" / "schema.json").exists()
        with pytest.raises(InputError, match="an unfinished survey"):
            Survey.load(tmp_path / "killed")
    assert 2 <= seen[0] < seen[1] < 14  # the second call went on where the first was killed
    for name in ("whole", "killed"):
        ingest(slow(), tmp_path / name, **KILLED)
    whole, killed = files(tmp_path / "whole"), files(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert [k for k in whole if whole[k] != killed[k]] == []


def test_a_simulation_is_declared_and_a_conversion_keeps_it(tmp_path: Path) -> None:
    real, simulated = (
        ingest(made(n=8), tmp_path / str(said), simulated=said, workers=0, quiet=True) for said in (0, 1)
    )
    assert real.schema.real and not simulated.schema.real
    assert not Survey.load(tmp_path / "1").schema.real
    assert not ingest(tmp_path / "1", tmp_path / "converted", workers=0, quiet=True).schema.real
    assert not ingest(tmp_path / "0", tmp_path / "declared", simulated=True, workers=0, quiet=True).schema.real


def test_one_bad_object_does_not_stop_the_rest(tmp_path: Path) -> None:
    kinds = ("nan", "negative", "infinite ivar", "constant", "empty", "refused", "lost", "huge")
    faults = tuple((5 * i + 2, kind) for i, kind in enumerate(kinds))
    survey = ingest(made(n=200, faults=faults), tmp_path / "s", workers=0, quiet=True)
    rejected = pd.read_parquet(survey.path / "rejected.parquet").set_index("id")
    assert len(survey) + len(rejected) == 200 and set(survey.id).isdisjoint(rejected.index)
    reasons = {dict(faults)[int(i[1:])]: r for i, r in rejected["reason"].items()}
    assert reasons.keys() == set(kinds) - {"nan"}
    assert reasons["negative"] == "ivar of image has negative values"
    assert reasons["infinite ivar"] == "ivar of image has infinite values"
    assert reasons["constant"] == "the image is constant" and reasons["empty"] == "no pixel was measured"
    assert "the header is odd" in reasons["refused"] and reasons["lost"] == "the reader did not return it"
    assert reasons["huge"] == "a flux of image does not fit float32"
    assert "7 objects were set aside: see rejected.parquet" in survey.schema.notes
    row = list(survey.id).index("m2")  # NaN pixels are not measured, and the object is kept
    part = survey.gather([row]).observations["image"]
    assert not part.measured[0, 0, :3].any() and part.measured[0, 0, 3:].all() and (part.flux[0, 0, :3] == 0).all()
    assert survey.column("unmeasured")[row] == pytest.approx(3 / SIDE)
    assert survey.column("edge")[row] == pytest.approx(3 / SIDE)


def test_a_crash_and_a_bug_of_a_reader_cost_one_object_each(tmp_path: Path) -> None:
    source = made(n=80, faults=((11, "crash"), (40, "raise")))
    survey = ingest(source, tmp_path / "s", workers=1, quiet=True)
    rejected = pd.read_parquet(survey.path / "rejected.parquet").set_index("id")["reason"]
    assert len(survey) == 78 and set(rejected.index) == {"m11", "m40"}
    assert "SIGSEGV" in rejected["m11"] and "this reader is broken" in rejected["m40"]


def test_too_many_bad_objects_stop_it(tmp_path: Path) -> None:
    source = made(n=100, faults=tuple((i, "constant" if i % 3 else "refused") for i in range(0, 30, 2)))
    with pytest.raises(InputError, match="too many objects cannot be used") as error:
        ingest(source, tmp_path / "s", workers=0, quiet=True)
    shown = str(error.value)
    assert "times: the image is constant" in shown and "the header is odd" in shown and "--max-rejected" in shown
    assert error.value.expected == "at most 5.0%" and error.value.file == "made up"
    assert not (tmp_path / "s" / "schema.json").exists()
    survey = ingest(source, tmp_path / "s", workers=0, quiet=True, max_rejected=0.5)
    assert len(survey) == 85


def test_labels_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="are of objects that are not there"):
        ingest(made(), tmp_path / "s", labels={"id": ["m1", "x"], "z": [1.0, 2.0]}, quiet=True)
    assert not (tmp_path / "s").exists()
    source = made(n=60, faults=((3, "constant"),))
    table = {"id": [f"m{i}" for i in range(60)], "kind": ["a", "b"] * 30}
    survey = ingest(source, tmp_path / "s", labels=table, workers=0, quiet=True)
    assert len(survey) == 59 and survey.schema.columns["kind"].classes == ("a", "b")
    assert "folds balanced by 'kind'" in (survey.path / "folds.json").read_text()
    kinds = dict(zip(survey.id, survey.column("kind"), strict=True))
    assert kinds["m4"] == "a" and kinds["m5"] == "b"


def test_labels_of_a_source_leave_keys_and_folds_alone(tmp_path: Path) -> None:
    n = 40
    draw = np.random.default_rng(0)
    arrays = {"images": draw.normal(size=(n, 6, 6)), "key": np.arange(n), "fold": np.full(n, "test")}
    survey = ingest(arrays, tmp_path / "s", quiet=True)
    assert set(survey.column("fold")) == {"train", "valid", "calib", "test"}
    assert (survey.key == blake_keys(survey.id.tolist())).all()
    assert sorted(survey.column("label_key").tolist()) == list(range(n))


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_labels_of_a_source_are_checked_before_anything_is_read(tmp_path: Path, bad: float) -> None:
    z = np.full(40, bad) if np.isnan(bad) else np.append(np.arange(39.0), bad)
    np.savez(tmp_path / "a.npz", images=np.random.default_rng(0).normal(size=(40, 6, 6)), z=z)
    with pytest.raises(InputError, match="not finite|no column holds a label") as error:
        ingest(tmp_path / "a.npz", tmp_path / "s", workers=0, quiet=True)
    assert str(error.value.file).endswith("a.npz") and error.value.keyword == "z"
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", [np.zeros(40, int), np.full(40, "E")])
def test_one_class_in_a_source_is_noted(tmp_path: Path, kind: np.ndarray) -> None:
    source = {"images": np.random.default_rng(0).normal(size=(40, 6, 6)), "label": kind}
    survey = ingest(source, tmp_path / "s", quiet=True)
    assert sum("'label' has one class only" in note for note in survey.schema.notes) == 1
    again = ingest(survey.path, tmp_path / "t", quiet=True)
    assert sum("'label' has one class only" in note for note in again.schema.notes) == 1


def test_every_column_that_a_survey_makes_is_none_of_a_label() -> None:
    assert {*RESERVED, *MEASURED, "id", "ra", "dec", "object_id"} - {"bytes"} <= OWN


@pytest.mark.parametrize("values", [["x"], [0, 1, 2, 3, 4], [0.0, 1.0], ["A", "B"]])
@pytest.mark.parametrize("file", [False, True])
def test_a_column_fold_that_holds_no_folds_is_kept_and_no_feature(
    tmp_path: Path, values: list[object], file: bool
) -> None:
    n = 40
    frame = pd.DataFrame({"id": [f"o{i}" for i in range(n)], "x": np.random.default_rng(0).normal(size=n)})
    frame["fold"] = [values[i % len(values)] for i in range(n)]
    frame.to_csv(tmp_path / "t.csv", index=False)
    survey = ingest(tmp_path / "t.csv" if file else frame, tmp_path / "s", quiet=True)
    assert survey.schema.observations["row"].names == ("x",)  # type: ignore[union-attr]
    assert set(survey.column("input_fold")) == set(values)
    assert set(survey.column("fold")) == {"train", "valid", "calib", "test"}
    assert any("the column 'fold' holds no folds" in note for note in survey.schema.notes)
    asked = ingest(frame, tmp_path / "asked", quiet=True, features=["fold"]) if values == [0.0, 1.0] else None
    assert asked is None or asked.schema.observations["row"].names == ("fold",)  # type: ignore[union-attr]


def test_a_column_fold_with_words_of_a_split(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [f"o{i}" for i in range(40)], "x": np.random.default_rng(0).normal(size=40)})
    frame["fold"] = ["train", "test"] * 20
    survey = ingest(frame, tmp_path / "s", quiet=True)
    assert ((survey.column("fold") == "test") == (survey.column("input_fold") == "test")).all()
    frame["fold"] = ["train", "tset"] * 20
    with pytest.raises(InputError, match="a split with unknown words") as error:
        ingest(frame, tmp_path / "t", quiet=True)
    assert error.value.found == "tset" and error.value.keyword == "fold" and not (tmp_path / "t").exists()


def test_fluxes_are_brought_to_order_one(tmp_path: Path) -> None:
    survey = ingest(made(scale=3e-21), tmp_path / "s", workers=0, quiet=True)
    rule = survey.schema.observations["image"]
    assert rule.unit == "1e-21 nJy"  # type: ignore[union-attr]
    part = survey.gather([0]).observations["image"]
    assert torch.allclose(part.flux[0], image_of(int(survey.id[0][1:])) * 3, rtol=1e-5)
    assert torch.allclose(part.ivar, torch.tensor(1 / 9.0))


def test_a_note_of_several_lines_stands_under_itself(tmp_path: Path) -> None:
    survey = ingest(made(n=5), tmp_path / "s", workers=0, quiet=True)
    told = replace(survey, schema=replace(survey.schema, notes=("the first: bad\n  found: 3",)))
    assert "\n  note       the first: bad\n               found: 3" in summary(told)


@pytest.mark.parametrize(
    ("option", "value"), [("max_rejected", 5), ("max_rejected", -0.1), ("workers", -1), ("tile_bytes", 0)]
)
def test_numbers_that_cannot_be_are_refused_before_any_work(tmp_path: Path, option: str, value: float) -> None:
    with pytest.raises(InputError) as error:
        ingest(tmp_path / "no-such-source", tmp_path / "s", quiet=True, **{option: value})  # type: ignore[arg-type]
    assert error.value.keyword == option and not (tmp_path / "s").exists()


def test_a_folder_in_use(tmp_path: Path) -> None:
    ingest(made(n=5), tmp_path / "s", workers=0, quiet=True)
    with pytest.raises(InputError, match="there is a survey here already"):
        ingest(made(n=5), tmp_path / "s", workers=0, quiet=True)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        ingest(made(n=5), tmp_path / "t", workers=0, quiet=True)
    for place in ("t/notes.txt", "t/notes.txt/s"):
        with pytest.raises(InputError, match="a file stands where") as error:
            ingest(made(n=5), tmp_path / place, workers=0, quiet=True)
        assert str(error.value.file) == str(tmp_path / "t" / "notes.txt")
    assert [p.name for p in (tmp_path / "t").iterdir()] == ["notes.txt"]  # and no lock beside it
    with pytest.raises(InputError, match="too many"):
        ingest(made(n=50, faults=tuple((i, "empty") for i in range(9))), tmp_path / "u", workers=0, quiet=True)
    with pytest.raises(InputError, match="unfinished survey of another call"):
        ingest(made(n=49), tmp_path / "u", workers=0, quiet=True)


def test_repeated_ids_and_impossible_positions(tmp_path: Path) -> None:
    n = 60
    source = {
        "images": np.random.default_rng(0).normal(size=(n, 6, 6)),
        "id": ["a", "a", "b"] + [f"c{i}" for i in range(n - 3)],
        "ra": np.append(np.linspace(-5, 300, n - 1), 400.0),
        "dec": np.append([99.0], np.zeros(n - 1)),
    }
    survey = ingest(source, tmp_path / "s", quiet=True, max_rejected=0.1)
    rejected = pd.read_parquet(survey.path / "rejected.parquet").set_index("id")["reason"].to_dict()
    assert rejected == {"a": "a declination of 99 deg", f"c{n - 4}": "a right ascension of 400 deg"}
    assert survey.column("ra").min() >= 0 and survey.column("ra").max() < 360
    source["dec"][0] = 0.0
    survey = ingest(source, tmp_path / "t", quiet=True)
    assert {"a", "a~2", "b"} <= set(survey.id)
    group = dict(zip(survey.id, survey.column("group"), strict=True))
    assert group["a"] == group["a~2"] != group["b"]
    assert any("share an id" in note for note in survey.schema.notes)


def test_options_and_readers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 4, 4)))
    with pytest.raises(InputError, match="no such option") as error:
        understand(tmp_path / "a.npz", bnads=("g",))
    assert error.value.found == "bnads" and "did you mean 'bands'" in str(error.value)
    with pytest.raises(InputError, match="there is no such file or folder") as error:
        understand(tmp_path / "a.npy")
    assert "did you mean 'a.npz'" in str(error.value)
    with pytest.raises(InputError, match="no file matches"):
        understand(str(tmp_path / "*.fits"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.md").write_text("x")
    with pytest.raises(InputError, match="no reader knows this") as error:
        understand(tmp_path / "empty")
    assert error.value.found == "a folder with readme.md" and "arrays (" in str(error.value)
    assert find_reader(tmp_path / "a.npz", {}) == "arrays"
    with pytest.raises(InputError, match="takes no options"):
        understand(made(), size=3)


@pytest.mark.parametrize(("words", "size"), [("1GB", 1 << 30), ("500 MB", 500 << 20), ("2g", 2 << 30), (77, 77)])
def test_sizes(words: str | int, size: int) -> None:
    assert size_of(words) == size


@pytest.mark.parametrize("words", ["much", "-1GB", "", "1.2.3GB"])
def test_bad_sizes(words: str) -> None:
    with pytest.raises(InputError, match="not a size of memory"):
        size_of(words)


def test_open_through_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSKY_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.npz"
    np.savez(path, images=np.random.default_rng(0).normal(size=(20, 6, 6)))
    one = open(path, workers=0, quiet=True)
    assert open(path, workers=0, quiet=True).path == one.path and open(one.path).path == one.path and open(one) is one
    assert open(path, size=4, workers=0, quiet=True).schema.observations["image"].size == (4, 4)  # type: ignore[union-attr]
    time.sleep(0.01)
    np.savez(path, images=np.random.default_rng(1).normal(size=(21, 6, 6)))
    assert len(open(path, workers=0, quiet=True)) == 21
    monkeypatch.setenv("DEEPSKY_CACHE_LIMIT", "1")
    kept = open(path, size=5, workers=0, quiet=True)
    assert [p.name for p in (tmp_path / "cache" / "surveys").iterdir()] == [kept.path.name]
    labelled = open(kept.path, labels={"id": kept.id.tolist(), "z": np.arange(21.0)})
    assert labelled.truth("z").value.shape == (21,) and "z" not in Survey.load(kept.path).schema.columns
    clear_cache()
    assert not (tmp_path / "cache" / "surveys").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_survey(tmp_path: Path) -> None:
    """Peak memory of 200 objects and of 2,200, with 44 MB more pixels, in processes of their own."""
    code = ("import sys, resource; from deepsky.ingestion import ingest; from tests.ingestion.sources import made;"
            "start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
            "ingest(made(n=int(sys.argv[2]), side=52), sys.argv[1], workers=0, quiet=True, memory='2MB',"
            "       tile_bytes=4_000_000, folds={'near_duplicates': False});"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)")  # fmt: skip
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}", "OMP_NUM_THREADS": "1"}
    grown = []
    for n in (200, 2200):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / str(n)), str(n)], env=environment, cwd=root,
                              capture_output=True, text=True, check=True)  # fmt: skip
        grown.append(int(done.stdout) / 1024)
    pixels = 2000 * 8 * 52**2 / 2**20
    assert grown[1] - grown[0] < 0.3 * pixels, grown  # the index grows, the pixels do not


def test_the_index_holds_no_labels_and_the_crc_fits(tmp_path: Path) -> None:
    survey = ingest(made(n=20), tmp_path / "s", labels={"id": ["m1"], "z": [1.0]}, workers=0, quiet=True)
    index = pq.read_table(survey.path / "index.parquet")
    assert "z" not in index.column_names and "z" in survey.index.column_names
    from zlib import crc32

    flux = np.load(survey.path / "tiles" / survey.tiles[0].name / "image.flux.npy")
    ivar = np.load(survey.path / "tiles" / survey.tiles[0].name / "image.ivar.npy")
    assert index["crc"][3].as_py() == crc32(ivar[3].tobytes(), crc32(flux[3].tobytes()))


def test_a_full_disk_leaves_whole_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepsky.store import tile

    whole = ingest(made(), tmp_path / "whole", workers=0, quiet=True, tile_bytes=20_000, memory=100_000)
    append, count = tile._Growing.append, []

    def full(self: Any, block: np.ndarray) -> None:
        count.append(1)
        if len(count) > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, block)

    monkeypatch.setattr(tile._Growing, "append", full)
    with pytest.raises(TrainingError, match="no room to write it"):
        ingest(made(), tmp_path / "s", workers=0, quiet=True, tile_bytes=20_000, memory=100_000)
    done = [p for p in (tmp_path / "s" / "tiles").iterdir() if not p.name.startswith(".")]
    assert 0 < len(done) < len(whole.tiles)
    monkeypatch.undo()
    survey = ingest(made(), tmp_path / "s", workers=0, quiet=True, tile_bytes=20_000, memory=100_000)
    assert files(survey.path) == files(whole.path)


def test_killed_while_tidying_up(tmp_path: Path) -> None:
    survey = ingest(made(n=5), tmp_path / "s", workers=0, quiet=True)
    before = files(survey.path)
    (survey.path / "plan.json").write_text("{}")
    assert len(ingest(made(n=5), tmp_path / "s", workers=0, quiet=True)) == 5 and files(survey.path) == before


def test_rows_whose_squares_would_leave_float32(tmp_path: Path) -> None:
    import pandas

    n = 30
    flux = np.random.default_rng(0).uniform(1, 9, n) * 1e-27
    frame = pandas.DataFrame({"id": np.arange(n), "line": flux, "line_err": flux / 10, "mag": 20.0, "mag_err": 0.1})
    survey = ingest(frame, tmp_path / "s", quiet=True)
    rule = survey.schema.observations["row"]
    assert rule.units in {("1e-26", ""), ("1e-27", "")}  # type: ignore[union-attr]
    part = survey.gather(np.argsort(survey.id.astype(int))).observations["row"]
    scale = float(rule.units[0])  # type: ignore[union-attr]
    assert np.allclose(part.flux[:, 0].numpy() * scale, flux, rtol=1e-6)
    assert np.allclose(1 / np.sqrt(part.ivar[:, 0].numpy()) * scale, flux / 10, rtol=1e-6)
    assert np.allclose(part.ivar[:, 1], 100)


@pytest.mark.parametrize(
    ("file", "error", "gist"),
    [
        ("a/17.fits", InputError("bad: worse", file="/data/a/17.fits", hdu=2, keyword="NAXIS"), "bad: worse"),
        ("17.fits", InputError("bad", file="17.fits", found="3, expected 4"), "bad (found: 3, expected 4)"),
        ("17.fits", InputError("a negative sigma: -1", file="/data/17_noise.fits"), "a negative sigma: -1"),
        ("a b: c.fits", InputError("bad", file="/data/a b: c.fits"), "bad"),
        ("a.npz, images[3]", InputError("bad: worse", file="/data/a.npz"), "bad: worse"),
        ("a.npz, images[3]", "pixels are lost: mend them", "pixels are lost: mend them"),
        ("", "the flux is 1.5: too much", "the flux is 1.5: too much"),
    ],
)  # fmt: skip
def test_a_reason_loses_its_file_and_nothing_else(file: str, error: InputError | str, gist: str) -> None:
    assert gist_of(Rejected("17", str(error), file)) == gist
