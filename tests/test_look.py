"""What `look` says of a source, and that it takes no longer for a large one."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image as Pillow
from tests.ingestion.sources import made

from deepsky import registry
from deepsky.errors import InputError
from deepsky.look import look


@pytest.mark.parametrize("name", registry.names("surveys"))
def test_every_example(name: str, tmp_path: Path) -> None:
    path = registry.find("surveys", name).example(tmp_path)
    seen = look(path, reader=name, to=tmp_path / "look.png", guarded=False)
    assert seen.reader == name and seen.good == seen.read > 3 and not seen.rejected
    text = str(seen)
    assert f"{seen.objects:,} objects" in text and f"{seen.read:,} of them: {seen.good:,} good" in text
    images = [o for o in seen.observations.values() if o.kind == "image"]
    if images:
        with Pillow.open(seen.picture) as picture:
            assert min(picture.size) > 50
        assert all(band in text for band in images[0].bands)  # type: ignore[union-attr]
    assert seen.json()["objects"] == seen.objects


def test_labels_positions_and_values(tmp_path: Path) -> None:
    n = 50
    flux = np.random.default_rng(0).normal(5, 1, (n, 8, 8))
    source = {"images": flux, "ra": np.linspace(-1, 1, n) % 360, "dec": np.zeros(n)}
    table = {"id": [f"{i:04d}" for i in range(n)], "kind": ["a"] * 40 + ["b"] * 10, "z": np.linspace(0, 2, n)}
    seen = look(source, labels=table, to=None, guarded=False)
    assert seen.labels["kind"] == "a 40, b 10" and seen.labels["z"] == "50 numbers, 0 to 2, median 1"
    assert "ra -1.0000 to 1.0000" in seen.positions and seen.picture == ""
    low, middle, high = (float(v) for v in seen.values["image"].split("band ")[1].split(" / "))
    assert middle == pytest.approx(np.median(flux), rel=0.01) and low < middle < high


def test_labels_by_position_fit_cutouts_whose_headers_hold_it(tmp_path: Path) -> None:
    n = 12
    ra, dec = 150 + np.arange(n) / 100, np.full(n, 2.0)
    for i in range(n):
        words = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra[i], "CRVAL2": dec[i], "CRPIX1": 8.5,
                 "CRPIX2": 8.5, "CD1_1": -1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-4}  # fmt: skip
        flux = np.random.default_rng(i).normal(size=(16, 16)).astype(np.float32)
        fits.PrimaryHDU(flux, fits.Header(words)).writeto(tmp_path / f"gal{i}.fits")
    table = {"ra": ra, "dec": dec, "morph": ["E", "S"] * (n // 2)}
    seen = look(tmp_path, labels=table, to=None, guarded=False)
    assert seen.labels["morph"] == "E 6, S 6" and any("position" in note for note in seen.notes)
    with pytest.raises(InputError, match="no label is of an object"):
        look(tmp_path, labels={"id": ["x"], "morph": ["E"]}, to=None, guarded=False)


def test_bad_objects_and_sentinels(tmp_path: Path) -> None:
    faults = ((3, "constant"), (5, "constant"), (7, "refused"))
    seen = look(made(n=40, faults=faults), to=None, guarded=False)
    assert seen.read == 40 and seen.good == 37
    assert seen.rejected[0][:2] == (2, "the image is constant")
    assert "2 times: the image is constant" in str(seen)
    flux = np.random.default_rng(0).normal(size=(20, 8, 8))
    flux[:6, :3] = 100.0
    assert any("6 of 20 images have their extreme, 100" in n and "sentinel=100" in n
               for n in look(flux, to=None).notes)  # fmt: skip
    with pytest.raises(InputError, match="none of the objects that were read can be used") as error:
        look(made(n=9, faults=tuple((i, "empty") for i in range(9))), to=None, guarded=False)
    assert error.value.found == "9 times: no pixel was measured"


def test_a_large_folder_takes_no_longer(tmp_path: Path) -> None:
    """Only some of the files are opened: a file that would be refused lies beyond those."""
    folder = tmp_path / "many"
    folder.mkdir()
    small = np.random.default_rng(0).integers(0, 255, (6, 6), dtype=np.uint8)
    Pillow.fromarray(small).save(tmp_path / "one.png")
    data = (tmp_path / "one.png").read_bytes()
    for i in range(3000):
        (folder / f"{i:05d}.png").write_bytes(data)
    start = time.process_time()
    seen = look(folder, to=None, guarded=False)
    assert seen.objects == 3000 and seen.read <= 96
    assert time.process_time() - start < 3
