"""PNG of 16 bits and several channels, which Pillow would cut down to 8 bits."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from deepsky.errors import InputError

CHANNELS = {2: 3, 4: 2, 6: 4}  # by colour type: RGB, grey with alpha, RGB with alpha
ROWS = 128  # whose filters are undone together
# first row and column, and the steps between them, of the seven passes of an interlaced picture
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def sixteen_bits(path: Path) -> np.ndarray:
    """(y, x, channel) uint16 pixels of a PNG that passed the gate; transparency is left out.

    Raises
    ------
    InputError : the pixels are damaged.
    """
    data = path.read_bytes()
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if bits != 16 or colour not in CHANNELS:
        raise ValueError(f"a PNG of {bits} bits and colour type {colour}")
    channels = CHANNELS[colour]
    passes = [(*p, *_sides(height, width, p)) for p in (ADAM7 if interlaced else ((0, 0, 1, 1),))]
    passes = [p for p in passes if p[4] and p[5]]  # of a small picture some passes are empty
    expected = sum(h * (1 + 2 * channels * w) for *_, h, w in passes)
    out = np.empty((height, width, channels), np.uint16)
    try:
        pixels = zlib.decompressobj().decompress(_compressed(data), expected)
        if len(pixels) < expected:
            raise ValueError(f"{len(pixels)} of {expected} bytes")
        at = 0
        for y, x, down, across, h, w in passes:
            lines = np.frombuffer(pixels, np.uint8, h * (1 + 2 * channels * w), at).reshape(h, -1)
            at += lines.size
            plain = _unfiltered(lines[:, 1:].reshape(h, w, 2 * channels), lines[:, 0])
            out[y::down, x::across] = plain.view(">u2")
    except (zlib.error, ValueError) as error:
        raise InputError(f"the picture is broken: {error}", file=path, fix="download it again") from error
    return out[..., :-1] if colour in (4, 6) else out


def _sides(height: int, width: int, grid: tuple[int, int, int, int]) -> tuple[int, int]:
    """Rows and columns of a pass."""
    y, x, down, across = grid
    return max(0, -(-(height - y) // down)), max(0, -(-(width - x) // across))


def _compressed(data: bytes) -> bytes:
    """The IDAT chunks, one after the other."""
    at, parts = 8, []
    while at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if name == b"IDAT":
            parts.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    return b"".join(parts)


def _unfiltered(lines: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """(y, x, byte) without the filters of the rows, 0 to 4 (W3C PNG, third edition, section 9)."""
    if (kinds > 4).any():
        raise ValueError(f"filter type {kinds.max()}")
    out = np.empty(lines.shape, np.uint8)
    above = np.zeros(lines.shape[1:], np.uint8)
    for first in range(0, len(lines), ROWS):
        rows = slice(first, first + ROWS)
        out[rows] = _some(lines[rows], kinds[rows], above)
        above = out[min(first + ROWS, len(lines)) - 1]
    return out


def _some(lines: np.ndarray, kinds: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Some rows, diagonal by diagonal: a pixel needs those to the left, above, and both, which lie on earlier ones.

    Parameters
    ----------
    above : (x, byte) the row before the first.
    """
    h, w, size = lines.shape
    y, x = np.arange(h)[:, None], np.arange(w)
    given = np.zeros((w + h - 1, h, size), np.int16)
    given[x + y, y] = lines
    done = np.zeros((w + h + 1, h + 1, size), np.int16)  # diagonal x + y at x + y + 2, row y at y + 1
    done[x + 1, 0] = above
    one, two, three, four = (kinds[:, None] == k for k in (1, 2, 3, 4))
    for d in range(w + h - 1):
        low, high = max(0, d - w + 1), min(h, d + 1)
        now = slice(low, high)
        left, up, corner = done[d + 1, low + 1 : high + 1], done[d + 1, now], done[d, now]
        a, b, c = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, up, corner))
        guess = one[now] * left + two[now] * up + three[now] * ((left + up) >> 1) + four[now] * paeth
        done[d + 2, low + 1 : high + 1] = (given[d, now] + guess) & 255
    return np.asarray(done[x + y + 2, y + 1], np.uint8)
