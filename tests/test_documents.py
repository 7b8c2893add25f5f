"""The commands and the Python of README and guide, as they stand there, on made-up files of the kind they speak of."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.wcs import WCS
from tests import made_up

from deepsky import cli

ROOT = Path(__file__).parents[1]
SIZE, SIDE, APART = 64, 14, 72  # pixels of a cutout, sources along a side of the frame, pixels between them
ELSEWHERE = ("demo", "run lens-real-sky", "finder", "--bands u,g,r,i")  # what needs other data has tests of its own


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """``frames/`` with ``sources.fits``, ``cutouts/`` of the same sources, and three tables of labels."""
    place = tmp_path_factory.mktemp("documents")
    sample = made_up.blobs(SIDE**2, size=SIZE, bands=("r",))
    frame = np.random.default_rng(3).normal(0, made_up.SIGMA, (SIDE * APART, SIDE * APART)).astype(np.float32)
    grid = APART * np.indices((SIDE, SIDE)).reshape(2, -1) + APART // 2
    for (y, x), flux in zip(grid.T, sample.observations["image"].flux[:, 0].numpy(), strict=True):
        frame[y - SIZE // 2 : y + SIZE // 2, x - SIZE // 2 : x + SIZE // 2] = flux
    wcs = WCS(naxis=2)
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cdelt = (1, 1), (150, 2), (-0.2 / 3600, 0.2 / 3600)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    about = {"BUNIT": "nJy", "FILTER": "r"}
    for folder in ("frames", "cutouts"):
        (place / folder).mkdir()
    fits.PrimaryHDU(frame, fits.Header({**wcs.to_header(), **about})).writeto(place / "frames" / "field.fits")
    ra, dec = wcs.all_pix2world(grid[1], grid[0], 0)
    Table({"id": list(sample.id), "ra": ra, "dec": dec}).write(place / "sources.fits")
    for name, y, x in zip(sample.id, *grid, strict=True):
        cut = Cutout2D(frame, (int(x), int(y)), SIZE, wcs)
        fits.PrimaryHDU(cut.data, fits.Header({**cut.wcs.to_header(), **about})).writeto(
            place / "cutouts" / f"{name}.fits"
        )
    kind = np.array(["lens", "spiral"])[sample.truth["shape"].value.numpy()]
    n = np.arange(len(kind))
    table = Table({"id": list(sample.id), "morphology": kind, "redshift": sample.truth["width"].value.numpy() / 10,
                   "mag": 20 + n / 100, "fwhm": 0.7 + n % 7 / 10, "night": n // 5,
                   "published": np.array(["train", "train", "val", "test"])[n % 4]})  # fmt: skip
    table.write(place / "labels.csv")
    table["id", "morphology"][:30].write(place / "more_labels.csv")
    e1, e2 = sample.truth["e"].value.numpy().T
    Table({"id": list(sample.id), "e1": e1, "e2": e2}).write(place / "shapes.csv")
    return place


def run(line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """One command as it is typed, in this process."""
    monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    assert code == 0, f"{line}\n{err}"
    return out


@pytest.mark.slow
@pytest.mark.parametrize("document", ["README.md", "docs/guide.md"])
def test_every_command_runs_in_the_order_in_which_it_stands(document, place, tmp_path, capsys, monkeypatch):
    for item in place.iterdir():
        (tmp_path / item.name).symlink_to(item)
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks(document, "bash") for line in block.splitlines() if line.startswith("deepsky ")]
    lines = [line for line in lines if not any(word in line for word in ELSEWHERE)]
    assert len(lines) >= 7
    for line in lines:
        line = line.replace("--minutes 10", "--minutes 0.05")  # nothing else is changed
        if line.startswith("deepsky predict model/ survey/") and not Path("survey").exists():
            run("deepsky ingest 'frames/*.fits' --catalogue sources.fits --size 64 --to survey/", capsys, monkeypatch)
        if "--to galaxies/" in line and Path("galaxies").exists():  # two ways to begin
            line = line.replace("galaxies/", "galaxies-2/")
        run(line, capsys, monkeypatch)
    assert Path("model/report/report.html").stat().st_size > 10_000
    written = next(Path("catalogue").glob("*.fits"))
    assert 0 <= Table.read(written)["p_lens"].max() <= 1


@pytest.mark.slow
def test_the_python_of_the_readme(place, tmp_path, monkeypatch):
    for item in place.iterdir():
        (tmp_path / item.name).symlink_to(item)
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("README.md", "python")
    space: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), space)
    assert len(Table.read("morphology.fits")) == SIDE**2 and Path("report/report.html").exists()
