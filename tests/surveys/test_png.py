"""PNG with 16 bits a channel: every filter, colour type and order of rows, against an encoder of the standard."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deepsky.errors import InputError
from deepsky.surveys import images
from deepsky.surveys._png import ADAM7, ROWS, sixteen_bits

COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}


def paeth(a, b, c):
    p = a + b - c
    return min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]


def filtered(rows, kinds):
    """Lines of a picture (y, x, byte) as the standard writes them, byte by byte."""
    h, w, size = rows.shape
    flat, out = rows.reshape(h, w * size).astype(int), b""
    for y in range(h):
        line = bytes([kinds[y]])
        for i in range(w * size):
            a = flat[y, i - size] if i >= size else 0
            b = flat[y - 1, i] if y else 0
            c = flat[y - 1, i - size] if y and i >= size else 0
            line += bytes([(flat[y, i] - (0, a, b, (a + b) // 2, paeth(a, b, c))[kinds[y]]) & 255])
        out += line
    return out


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write(path, pixels, kinds=None, *, interlaced=False, cut=0):
    h, w, channels = pixels.shape
    rng, body = np.random.default_rng(0), b""
    for y, x, down, across in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        part = np.ascontiguousarray(pixels[y::down, x::across].astype(">u2"))
        if part.size:
            rows = part.view(np.uint8).reshape(*part.shape[:2], 2 * channels)
            body += filtered(rows, rng.integers(0, 5, len(rows)) if kinds is None else kinds)
    packed = zlib.compress(body)
    packed = packed[: len(packed) - cut]
    header = struct.pack(">IIBBBBB", w, h, 16, COLOUR[channels], 0, 0, int(interlaced))
    one, two = packed[: len(packed) // 2], packed[len(packed) // 2 :]
    parts = [(b"IHDR", header), (b"tEXt", b"a\0b"), (b"IDAT", one), (b"IDAT", two), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts))
    return path


def pixels(*shape, seed=0):
    smooth = np.add.outer(np.arange(shape[0]) * 700, np.arange(shape[1]) * 900)[..., None]
    return ((smooth + np.random.default_rng(seed).integers(0, 4000, shape)) % 65536).astype(np.uint16)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("sides", [(1, 1), (3, 2), (5, 9), (ROWS + 3, 4)])
def test_pixels_come_back(tmp_path, sides, channels, interlaced):
    truth = pixels(*sides, channels)
    got = sixteen_bits(write(tmp_path / "a.png", truth, interlaced=interlaced))
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, truth[..., : channels - 1 if channels in (2, 4) else 3])


@pytest.mark.parametrize("kind", range(5))
def test_each_filter_alone(tmp_path, kind):
    truth = pixels(12, 7, 3)
    np.testing.assert_array_equal(sixteen_bits(write(tmp_path / "a.png", truth, [kind] * 12)), truth)


def test_the_high_bytes_are_those_that_pillow_reads(tmp_path):
    path = write(tmp_path / "a.png", pixels(20, 30, 3), interlaced=True)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(sixteen_bits(path) >> 8, np.asarray(picture))


def test_sixteen_bit_colour_is_a_survey_of_sixteen_bits(tmp_path):
    truth = [pixels(9, 8, n, seed=n) for n in (3, 4, 3)]
    for i, t in enumerate(truth):
        write(tmp_path / f"{i}.png", t)
    Image.fromarray(pixels(9, 8, 1)[..., 0]).save(tmp_path / "3.png")  # grey of 16 bits among it
    source = images.open(tmp_path)
    schema = source.schema.observations["image"]
    assert (schema.dtype, schema.bands) == ("uint16", ("R", "G", "B"))
    assert any("transparency" in n for n in source.schema.notes)
    assert any("1 of 4 pictures are grey" in n for n in source.schema.notes)
    flux = source.read(source.items()).arrays["image.flux"]
    for i in range(3):
        np.testing.assert_array_equal(flux[i], truth[i][..., :3].transpose(2, 0, 1))
    np.testing.assert_array_equal(flux[3], np.repeat(pixels(9, 8, 1).transpose(2, 0, 1), 3, 0))


def test_grey_with_transparency_stays_grey(tmp_path):
    truth = pixels(9, 8, 2)
    write(tmp_path / "a.png", truth)
    source = images.open(tmp_path)
    assert source.schema.observations["image"].bands == ("grey",)
    np.testing.assert_array_equal(source.read(source.items()).arrays["image.flux"][0, 0], truth[..., 0])


def test_damaged_pixels_are_set_aside(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.png", pixels(9, 8, 3, seed=i), cut=40 * (i == 1))
    source = images.open(tmp_path)
    block = source.read(source.items())
    assert block.ids == ("0", "2")
    assert "broken" in block.rejected[0].reason
    with pytest.raises(InputError, match="broken: filter type 9"):
        path = tmp_path / "bad.png"
        header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                         + chunk(b"IDAT", zlib.compress(b"\x09" + bytes(6))) + chunk(b"IEND", b""))  # fmt: skip
        sixteen_bits(path)
