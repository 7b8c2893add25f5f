"""Pictures: what is not measured shows, which way is up, which band is red; sheets and notebook views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from tests import made_up
from tests.report import answered

from deepsky.report import gallery, plots
from deepsky.sample import Image
from deepsky.survey import Survey


def image(flux: np.ndarray, bands: tuple[str, ...], ivar: np.ndarray | None = None) -> Image:
    weight = np.ones_like(flux) if ivar is None else ivar
    return Image(torch.from_numpy(flux.astype(np.float32)), torch.from_numpy(weight.astype(np.float32)), bands=bands)


def sky(n: int, bands: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, bands, size, size))


def test_the_last_row_is_on_top_but_not_of_a_photograph() -> None:
    flux = sky(1, 1)
    flux[..., -4:, 10:20] += 200
    assert gallery.pictures(image(flux, ("r",)))[0, :4, 10:20].min() > 200
    photo = np.zeros((1, 3, 32, 32))
    photo[..., :4, :] = 255
    assert gallery.pictures(image(photo, ("R", "G", "B")))[0, :4].min() == 255


def test_unmeasured_pixels_have_their_own_colour_and_no_value_of_theirs_acts() -> None:
    flux, ivar = sky(2, 3), np.ones((2, 3, 32, 32))
    flux[:, :, 12:20, 12:20] += 50
    ivar[0, :, :5, :5] = 0
    ivar[1] = 0
    plain = gallery.pictures(image(flux, ("g", "r", "i"), ivar))
    flux[ivar == 0] = np.nan
    wild = gallery.pictures(image(flux, ("g", "r", "i"), ivar))
    assert (plain == wild).all()
    assert (plain[0, -5:, :5] == gallery.UNMEASURED).all() and (plain[1] == gallery.UNMEASURED).all()
    assert not (plain[0, :20] == gallery.UNMEASURED).all(-1).any()


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (("g", "r", "i"), (2, 1, 0)),
        (("i", "r", "g"), (0, 1, 2)),
        (("u", "g", "r", "i"), (3, 2, 1)),
        (("F160W", "F606W", "F814W"), (0, 2, 1)),
        (("hsc_g", "hsc_r", "hsc_z"), (2, 1, 0)),
        (("first", "second", "third"), (2, 1, 0)),
    ],
)
def test_red_green_and_blue_follow_the_wavelength(bands: tuple[str, ...], expected: tuple[int, int, int]) -> None:
    assert [c[0] for c in gallery.colours(bands)] == list(expected)


def test_what_shines_in_the_red_band_is_red() -> None:
    flux = sky(3, 3)
    for i in range(3):
        flux[i, :, 12:20, 12:20] += 20
        flux[i, i, 12:20, 12:20] += 80
    made = gallery.pictures(image(flux, ("g", "r", "i")))[:, 14:18, 14:18].mean((1, 2))
    assert made.argmax(1).tolist() == [2, 1, 0]


def test_grey_below_three_bands_and_noise_without_colour() -> None:
    made = gallery.pictures(image(sky(2, 2), ("g", "r")))
    assert (made[..., 0] == made[..., 2]).all()
    flux = sky(1, 3)
    flux[..., 14:18, 14:18] += 300
    faint = gallery.pictures(image(flux, ("g", "r", "i")))[0, :6].astype(int)
    assert np.ptp(faint, axis=-1).mean() < 25


def test_constant_and_empty_images_are_drawn() -> None:
    for flux in (np.zeros((2, 3, 8, 8)), np.full((2, 1, 8, 8), 5.0), -np.ones((1, 3, 8, 8))):
        made = gallery.pictures(image(flux, ("g", "r", "i")[: flux.shape[1]]))
        assert made.shape == (len(flux), 8, 8, 3)


def test_a_contact_sheet_holds_every_object(tmp_path: Path) -> None:
    sample = made_up.blobs(10, size=20)
    file = gallery.contact_sheet(sample, tmp_path / "sheet.png", n=7, columns=3)
    sheet = np.asarray(Pillow.open(file))
    side = 100  # five times as wide: pixels stay squares
    assert sheet.shape == (3 * (side + 21) + 6, 3 * (side + 6) + 6, 3)
    corners = [(6 + i // 3 * (side + 21) + 50, 6 + i % 3 * (side + 6) + 50) for i in range(9)]
    titled = np.asarray(Pillow.open(gallery.contact_sheet(sample, tmp_path / "two.png", n=7, columns=3, title="blobs")))
    assert (titled[26:] == sheet).all() and titled[:26].min() < 100, "a line of text, and the same below"
    bright = [sheet[y - 4 : y + 4, x - 4 : x + 4].mean() for y, x in corners]
    assert min(bright[:7]) > 60 and all(b > 248 for b in bright[7:]), "seven blobs, then paper"
    with pytest.raises(ValueError, match="no image"):
        gallery.contact_sheet(sample.__class__(sample.id, sample.key, sample.ra, sample.dec, {}), tmp_path / "none.png")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["a-1", "b-2"], ["a-1", "b-2"]),  # they fit
        (["field-kids-101-7", "field-kids-101-12"], ["…7", "…12"]),
        (["ra=1.25&dec=-3.5&scale=0", "ra=10.5&dec=-3.5&scale=0"], ["…1.25…", "…10.5…"]),
        ([f"{i}-of-a-long-name" for i in (1, 2)], ["1…", "2…"]),
        (["x1234567890-aa1", "x1234567890-ab2", "y1234567890-aa3"], ["…890-aa1", "…890-ab2", "…890-aa3"]),
        (["onlyonebutlong"], ["onlyone…"]),
    ],
)
def test_ids_are_cut_to_what_tells_them_apart(ids: list[str], expected: list[str]) -> None:
    assert gallery.short(ids, lambda t: len(t) <= 8) == expected


def test_galleries_hold_the_right_objects(tmp_path: Path) -> None:
    from deepsky.evaluation import compare, evaluate
    from deepsky.tasks.classify import Classify

    here = answered.survey(tmp_path / "blobs", 200, size=16)
    cat, other = answered.binary(here), answered.binary(here, 0.8, seed=4)
    report = evaluate(cat, here, task=Classify("shape"), replicates=5)
    q = report.questions["shape"]
    a = q.answers["ours"]
    worst, doubt, chance = gallery.sheets(report, q)
    wrong = {here.id[i] for i in q.rows[a.decided != a.truth]}
    assert {c.id for c in worst.cards} <= wrong and worst.cards[0].id == here.id[q.rows[a.of_truth.argmin()]]
    assert doubt.cards[0].id == here.id[q.rows[np.abs(a.scores - 0.5).argmin()]]
    assert len(chance.cards) == 12 and chance.cards == gallery.sheets(report, q)[2].cards
    assert all(c.picture.startswith("data:image/png;base64,") for c in worst.cards)
    both = compare(cat, other, here, task=Classify("shape"), replicates=5)
    flips = gallery.sheets(both, both.questions["shape"])[0]
    b = both.questions["shape"].answers["second"]
    flipped = {here.id[i] for i in q.rows[a.decided != b.decided]}
    assert {c.id for c in flips.cards} <= flipped and f"{len(flipped)} objects" in flips.caption


# -- a survey in a notebook -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return answered.survey(tmp_path_factory.mktemp("notebook") / "blobs", 150, size=16)


def test_a_survey_shows_what_it_holds(survey: Survey) -> None:
    html = survey._repr_html_()
    assert html.count("<img") == 12 and "150 objects" in html and "16 × 16 pixels" in html
    for fold in ("train", "valid", "calib", "test"):
        assert f"{fold} {int((survey.column('fold') == fold).sum())}" in html
    assert "3 without" in html and "declination [deg]" in html and "<script" not in html
    assert "0 objects" in survey.select([], "none")._repr_html_()


def test_the_map_of_the_sky_knows_that_it_is_round() -> None:
    g = np.random.default_rng(0)
    across = plots.sky((g.normal(0, 0.5, 50)) % 360, g.normal(0, 0.5, 50))
    labels = [float(t) for t in _texts(across) if t.replace(".", "").isdigit()]
    assert any(v > 358 for v in labels) and any(v < 2 for v in labels) and max(labels) < 360
    assert "300°" in _texts(plots.sky(g.uniform(0, 360, 50), g.uniform(-60, 60, 50)))


def _texts(svg: str) -> list[str]:
    import xml.etree.ElementTree as ET

    return [t.text or "" for t in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
