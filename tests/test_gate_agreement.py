"""The gate against astropy on real files: read alike, or refused with a reason; never anything else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import gate_readers

from deepsky.errors import InputError
from deepsky.gate import FitsHdu, FitsLayout, check_fits, run_guarded

KINDS = {
    "PrimaryHDU": {"image", "empty"}, "ImageHDU": {"image", "empty"}, "CompImageHDU": {"compressed"},
    "BinTableHDU": {"table"}, "TableHDU": {"table"}, "GroupsHDU": {"groups", "empty"},
}  # fmt: skip
FITS_ENDINGS = (".fits", ".fit", ".fz", ".fits.gz", ".std")

Outcome = tuple[FitsLayout | InputError, Any]


@pytest.fixture(scope="module")
def outcomes(shared_data: Path) -> dict[Path, Outcome]:
    """{file: (the gate's layout or refusal, astropy's layout or failure)} for every file of the folders."""
    folders = ("fits-conformance", "kids-galaxies", "viking-frames")
    paths = [p for folder in folders for p in sorted((shared_data / folder).rglob("*")) if p.is_file()]
    if not paths:
        pytest.skip(f"none of {folders} in {shared_data}")
    reader = run_guarded(gate_readers.astropy_layout, [(str(p),) for p in paths], workers=1, timeout_s=60)
    return {path: (_ours(path), theirs) for path, (_, theirs) in zip(paths, reader, strict=True)}


def _ours(path: Path, *, checksums: bool = False) -> FitsLayout | InputError:
    try:
        return check_fits(path, checksums=checksums)
    except InputError as error:
        return error


def _both(outcomes: dict[Path, Outcome]) -> list[tuple[Path, FitsHdu, dict[str, Any]]]:
    pairs: list[tuple[Path, FitsHdu, dict[str, Any]]] = []
    for path, (ours, theirs) in outcomes.items():
        if isinstance(ours, FitsLayout) and not isinstance(theirs, InputError):
            assert len(ours.hdus) == len(theirs[0]), path
            pairs += [(path, *pair) for pair in zip(ours.hdus, theirs[0], strict=True)]
    return pairs


def test_every_hdu_has_astropys_kind_shape_and_offset(outcomes: dict[Path, Outcome]) -> None:
    pairs = _both(outcomes)
    assert len(pairs) > 300
    for path, ours, theirs in pairs:
        where = f"{path}, HDU {ours.index}"
        assert ours.kind in KINDS[theirs["kind"]], where
        assert (ours.offset, ours.name) == (theirs["offset"], theirs["name"].upper()), where
        if "bitpix" in theirs:
            assert ours.shape == theirs["shape"], where
            assert ours.dtype.itemsize * (-8 if ours.dtype.kind == "f" else 8) == theirs["bitpix"], where
        if "widths" in theirs:
            assert ours.shape == theirs["shape"] and ours.dtype.itemsize == theirs["row"], where
            fields = ours.dtype.fields or {}
            assert [fields[name][0].itemsize for name in ours.dtype.names or ()] == theirs["widths"], where


def test_what_astropy_cannot_open_the_gate_refuses(outcomes: dict[Path, Outcome]) -> None:
    theirs_failed = {path for path, (_, theirs) in outcomes.items() if isinstance(theirs, InputError)}
    ours_refused = {path for path, (ours, _) in outcomes.items() if isinstance(ours, InputError)}
    assert len(theirs_failed) > 50
    assert theirs_failed <= ours_refused
    # beyond astropy the gate refuses headers that were saved without their data
    assert {path.suffix for path in ours_refused - theirs_failed} <= {".hdr"}


def test_every_refusal_says_what_to_do(outcomes: dict[Path, Outcome]) -> None:
    for path, (ours, _) in outcomes.items():
        if isinstance(ours, InputError):
            assert ours.file == str(path) and ours.problem and ours.fix and ours.found is not None


def test_files_that_a_survey_published_are_accepted(outcomes: dict[Path, Outcome]) -> None:
    surveys = {
        p: ours for p, (ours, _) in outcomes.items() if p.name.endswith(FITS_ENDINGS) and "conformance" not in str(p)
    }
    assert len(surveys) > 100
    assert not [str(ours) for ours in surveys.values() if isinstance(ours, InputError)]


def test_checksums_fail_where_astropys_fail(outcomes: dict[Path, Outcome]) -> None:
    checked = 0
    for path, (ours, theirs) in outcomes.items():
        if isinstance(ours, InputError) or isinstance(theirs, InputError):
            continue
        if any({"DATASUM", "CHECKSUM"} & hdu.header.keys() for hdu in ours.hdus):
            checked += 1
            verdict = _ours(path, checksums=True)
            assert isinstance(verdict, FitsLayout) == theirs[1], f"{path}: {verdict}"
            assert isinstance(verdict, FitsLayout) or verdict.keyword in ("DATASUM", "CHECKSUM")
    assert checked > 5


def test_pixels_stand_where_the_layout_says(outcomes: dict[Path, Outcome]) -> None:
    """Mapped from offset, dtype and scale alone, the pixels equal astropy's."""
    chosen = [
        (path, hdu)
        for path, hdu, _ in _both(outcomes)
        if hdu.kind == "image" and "kids-galaxies" in str(path) and path.parent.name == "SDSS"
    ][:20]
    assert chosen
    tasks = [(str(path), hdu.index) for path, hdu in chosen]
    for (path, hdu), (_, theirs) in zip(
        chosen, run_guarded(gate_readers.astropy_pixels, tasks, workers=1), strict=True
    ):
        scale, zero = hdu.scale
        stored = np.fromfile(path, hdu.dtype, offset=hdu.offset, count=int(np.prod(hdu.shape))).reshape(hdu.shape)
        np.testing.assert_allclose(stored * scale + zero, theirs, rtol=1e-6)


def test_a_path_need_not_be_ascii(shared_data: Path, tmp_path: Path) -> None:
    source = next(iter(sorted((shared_data / "kids-galaxies").glob("*.fits"))), None)
    if source is None:
        pytest.skip("no kids-galaxies")
    path = tmp_path / "Galaxie é 星.fits"
    shutil.copy(source, path)
    assert check_fits(path).file == str(path)
