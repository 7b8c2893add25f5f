"""Folders of pictures: what is understood, what is refused, and real ones."""

from __future__ import annotations

import pickle
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from deepsky.errors import InputError
from deepsky.surveys import images


def tiff_of_sixteen_bits(w=4, h=3):
    """A TIFF of RGB with 16 bits, which Pillow writes none of."""
    data = bytes(range(w * h * 6))
    tags = {256: w, 257: h, 258: 122, 259: 1, 262: 2, 273: 128, 277: 3, 278: h, 279: len(data)}
    out = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    for tag, value in tags.items():
        out += struct.pack("<HHII", tag, 3 if tag in (258,) else 4, 3 if tag == 258 else 1, value)
    return out + bytes(4) + struct.pack("<HHH", 16, 16, 16) + data


def picture(path, shape=(8, 10, 3), dtype=np.uint8, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    Image.fromarray(pixels).save(path)
    return pixels


def test_pixels_are_stored_as_they_are(tmp_path):
    truth = [picture(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    source = images.open(tmp_path)
    schema = source.schema.observations["image"]
    assert (schema.bands, schema.size, schema.dtype, schema.noise) == (("R", "G", "B"), (8, 10), "uint8", "unknown")
    block = source.read(source.items())
    assert block.ids == ("0", "1", "2")
    np.testing.assert_array_equal(block.arrays["image.flux"], np.stack(truth).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(block.arrays["image.ivar"], np.ones(3))


def test_sixteen_bits_stay_sixteen_bits(tmp_path):
    truth = picture(tmp_path / "a.tif", (5, 6), np.uint16)
    block = (source := images.open(tmp_path)).read(source.items())
    assert block.arrays["image.flux"].dtype == np.uint16
    np.testing.assert_array_equal(block.arrays["image.flux"][0, 0], truth)


def test_float_tiff(tmp_path):
    truth = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    Image.fromarray(truth).save(tmp_path / "a.tif")
    block = (source := images.open(tmp_path)).read(source.items())
    np.testing.assert_array_equal(block.arrays["image.flux"][0, 0], truth)


def test_grey_among_colour_stands_in_all_bands_and_is_noted(tmp_path):
    picture(tmp_path / "a.png")
    grey = picture(tmp_path / "b.png", (8, 10))
    source = images.open(tmp_path)
    assert any("1 of 2 pictures are grey" in n for n in source.schema.notes)
    block = source.read(source.items())
    np.testing.assert_array_equal(block.arrays["image.flux"][1], np.stack([grey] * 3))


def test_different_depths_are_refused(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", (8, 10), np.uint16)
    with pytest.raises(InputError, match="different depth"):
        images.open(tmp_path)


def test_mixed_shapes_need_a_size(tmp_path):
    for i in range(3):
        picture(tmp_path / f"{i}.png", (8, 8, 3))
    small = picture(tmp_path / "small.png", (4, 5, 3))
    with pytest.raises(InputError, match=r"mixed shapes without a rule\n  found: 3 of 8x8, 1 of 4x5"):
        images.open(tmp_path)
    source = images.open(tmp_path, size=7)
    block = source.read(source.items())
    assert block.arrays["image.flux"].shape == (4, 3, 7, 7)
    ivar = block.arrays["image.ivar"]
    assert ivar[:3].all() and ivar[3].sum() == 3 * 4 * 5  # padding is not measured
    flux = block.arrays["image.flux"][3]
    np.testing.assert_array_equal(flux[ivar[3] > 0], small.transpose(2, 0, 1).ravel())


@pytest.mark.parametrize(
    ("usual", "stray", "kind", "words"),
    [((8, 10, 3), (9, 9, 3), np.uint8, "another shape"), ((8, 10), (8, 10), np.uint16, "another mode"),
     ((8, 10), (8, 10, 3), np.uint8, "another mode"), ((8, 10, 3), (8, 10), np.uint16, "another mode")],
)  # fmt: skip
def test_one_stray_picture_is_set_aside_and_changes_nothing(tmp_path, usual, stray, kind, words):
    for i in range(24):
        picture(tmp_path / f"{i:02d}.png", usual)
    alone = images.open(tmp_path).schema.observations["image"]
    picture(tmp_path / "stray.png", stray, kind)
    source = images.open(tmp_path)
    assert source.schema.observations["image"] == alone
    block = source.read(source.items())
    assert len(block.ids) == 24 and [r.id for r in block.rejected] == ["stray"]
    assert words in block.rejected[0].reason


def test_classes_and_split_from_folders(tmp_path):
    for split in ("train", "test"):
        for kind in ("star", "galaxy"):
            for i in range(3):
                picture(tmp_path / split / kind / f"{split}{kind}{i}.png")
    source = images.open(tmp_path)
    column = source.schema.columns["class"]
    assert (column.role, column.classes) == ("label", ("galaxy", "star"))
    items = source.items().to_pydict()
    assert all(f"{s}{c}" in i for i, s, c in zip(items["id"], items["split"], items["class"], strict=True))
    assert "class" not in images.open(tmp_path, class_folders=False).schema.columns


def test_repeated_names_become_paths(tmp_path):
    for folder in ("train/a", "train/b", "a", "b"):
        picture(tmp_path / folder / "1.png")
        picture(tmp_path / folder / "2.png")
    items = images.open(tmp_path).items().to_pydict()
    assert len(set(items["id"])) == 8 and "train/a/1" in items["id"]
    assert set(items["name"]) == {"1", "2"}


def test_position_in_the_name(tmp_path):
    picture(tmp_path / "get@ra=53.91021&dec=-0.9279&scale=0.jpg")
    picture(tmp_path / "J120000.00-003000.0.jpg")
    picture(tmp_path / "ngc1300.jpg")
    items = images.open(tmp_path).items().to_pydict()
    found = dict(zip(items["id"], zip(items["ra"], items["dec"], strict=True), strict=True))
    assert found["get@ra=53.91021&dec=-0.9279&scale=0"] == (53.91021, -0.9279)
    assert found["J120000.00-003000.0"] == pytest.approx((180.0, -0.5))
    assert np.isnan(found["ngc1300"]).all()


def test_bad_pictures_are_set_aside_with_their_reason(tmp_path):
    for i in range(3):
        picture(tmp_path / f"good{i}.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("<html>not found</html>")
    whole = (tmp_path / "good0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.full((8, 10, 3), 7, np.uint8)).save(tmp_path / "flat.png")
    source = images.open(tmp_path)
    block = source.read(source.items())
    assert set(block.ids) == {"good0", "good1", "good2"}
    reasons = {r.id: r.reason for r in block.rejected}
    assert set(reasons) == {"empty", "text", "cut", "flat"}
    assert "empty" in reasons["empty"] and "constant" in reasons["flat"] and "HTML" in reasons["text"]
    assert all(f"{i}.png" in reasons[i] for i in reasons)


def test_nothing_to_read_says_what_lies_there(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"1 \.txt"):
        images.open(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        images.open(tmp_path / "nowhere")


def test_unicode_names_and_other_files(tmp_path):
    picture(tmp_path / "ギャラクシー é.png")
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / "._hidden.png").write_bytes(b"junk")
    source = images.open(tmp_path)
    assert source.items()["id"].to_pylist() == ["ギャラクシー é"]
    assert any("1 other files ignored (1 .txt)" in n for n in source.schema.notes)


def test_glob_and_list(tmp_path):
    for i in range(3):
        picture(tmp_path / f"a{i}.png")
        picture(tmp_path / f"b{i}.png")
    assert len(images.open(str(tmp_path / "a*.png")).items()) == 3
    assert images.open([tmp_path / "b1.png"]).items()["id"].to_pylist() == ["b1"]


def test_a_source_travels_without_its_list(tmp_path):
    source = images.open(images.example(tmp_path))
    items = source.items()
    there = pickle.loads(pickle.dumps(source))
    assert there.listing.num_rows == 0
    for name, array in there.read(items.slice(2, 3)).arrays.items():
        np.testing.assert_array_equal(array, source.read(items).arrays[name][2:5])


def test_claims(tmp_path):
    folder = images.example(tmp_path)
    assert images.claims(folder)
    assert not images.claims(tmp_path / "nowhere")
    (folder / "schema.json").write_text("{}")
    assert not images.claims(folder)


def test_efigi(shared_data):
    source = images.open(shared_data / "efigi")
    items = source.items()
    assert items.num_rows == 4504
    block = source.read(items.slice(0, 20))
    assert block.arrays["image.flux"].shape == (20, 3, 88, 88) and not block.rejected
    truth = np.asarray(Image.open(shared_data / "efigi" / f"{block.ids[7]}.jpg")).transpose(2, 0, 1)
    np.testing.assert_array_equal(block.arrays["image.flux"][7], truth)


def test_star_galaxy(shared_data):
    source = images.open(shared_data / "star-galaxy")
    items = source.items()
    counts = {v["values"]: v["counts"] for v in items["class"].value_counts().to_pylist()}
    assert counts == {"star": 3044, "galaxy": 942}
    assert set(items["split"].to_pylist()) == {"train", "test"}


def test_sdss_cutouts_carry_their_positions(shared_data):
    items = images.open(shared_data / "sdss-cutouts").items()
    ra, dec = items["ra"].to_numpy(), items["dec"].to_numpy()
    assert items.num_rows == 1200 and np.isfinite(ra).all() and np.isfinite(dec).all()
    assert ra.min() >= 0 and ra.max() < 360 and np.abs(dec).max() < 90


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_followed(tmp_path, turn):
    pixels = np.add.outer(np.arange(16) * 9, np.arange(24) * 4).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = turn
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    source = images.open(tmp_path)
    with Image.open(tmp_path / "a.jpg") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert source.schema.observations["image"].size == expected.shape
    assert any("EXIF" in n for n in source.schema.notes) == (turn > 1)
    np.testing.assert_array_equal(source.read(source.items()).arrays["image.flux"][0, 0], expected)


def test_sixteen_bit_colour_in_tiff_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of_sixteen_bits())
    with pytest.raises(InputError, match="16 bits in a TIFF file.*\n(.*\n)*.*PNG of 16 bits"):
        images.open(path)


def test_only_the_first_page_is_noted(tmp_path):
    pages = [Image.fromarray(picture(tmp_path / "x" / "a.png", seed=i)) for i in range(3)]
    (tmp_path / "t").mkdir()
    pages[0].save(tmp_path / "t" / "a.tif", save_all=True, append_images=pages[1:])
    assert any("the first of 3 pages is read" in n for n in images.open(tmp_path / "t").schema.notes)


def test_masks_beside_the_pictures_are_left_out(tmp_path):
    for i in range(4):
        picture(tmp_path / "JPEGImages" / f"{i}.png", seed=i)
        picture(tmp_path / "SegmentationClass" / f"{i}.png", (8, 10), seed=i)
    source = images.open(tmp_path)
    assert source.items()["id"].to_pylist() == ["0", "1", "2", "3"]
    assert any("4 masks were left out (SegmentationClass)" in n for n in source.schema.notes)
    assert images.open(tmp_path / "SegmentationClass").items().num_rows == 4  # asked for, they are pictures


def test_a_class_called_masked_is_a_class(tmp_path):
    for i in range(4):
        picture(tmp_path / ("masked" if i % 2 else "clear") / f"{i}.png", seed=i)
    assert images.open(tmp_path).items()["class"].to_pylist() == ["clear", "clear", "masked", "masked"]
