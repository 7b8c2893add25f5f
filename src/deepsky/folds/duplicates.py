"""Near-duplicates: images with nearly the same pixels, in any of the eight orientations.

Candidates have perceptual hashes that differ in few bits; the pixels themselves decide.
"""

from __future__ import annotations

import numpy as np

from deepsky.quality import orient, orientations, perceptual_hash, shrunk
from deepsky.schema import ImageSchema
from deepsky.survey import Survey

VERIFIED = 100_000  # objects up to which the pixels decide; above, equal hashes do
NEAR = 6  # bits
CORRELATION = 0.999
FAINT = 0.3
ALIKE = 0.99  # correlation of the images averaged over LARGE x LARGE pixels
LARGE = 16
MOST = 200_000  # pairs that are compared pixel by pixel
BACK = {4: 4, 5: 6, 6: 5, 7: 7}  # the orientation that undoes one that swaps the axes
CROWD = 100  # objects of one part of the hash above which each is compared with the nearest in order only
BESIDE = 16
BATCH = 32 << 20  # bytes of pixels that are compared at a time


def near_duplicates(survey: Survey) -> tuple[np.ndarray, list[str]]:
    """(m, 2) pairs of objects with nearly the same pixels, and notes.

    Two images are the same when their pixels correlate by more than 0.999 (up to an offset and a factor for each band)
    and their faint halves agree in the noise: bright stars look alike, but their backgrounds do not.
    """
    image = next((n for n, o in survey.schema.observations.items() if isinstance(o, ImageSchema)), None)
    empty = np.zeros((0, 2), np.int64)
    if image is None or len(survey) < 2:
        return empty, []
    hashes = (
        survey.column("phash").astype(np.uint64) if "phash" in survey.index.column_names else _hashes(survey, image)
    )
    more: list[str] = []
    large = len(survey) > VERIFIED
    pairs, turns = candidates(hashes, 0 if large else NEAR)
    if not large:
        same = _copies(survey, pairs, turns)
        rest = np.flatnonzero(~same)
        rest = rest[_alike(survey, image, pairs[rest], turns[rest])]
        if len(rest) > MOST:
            more.append(f"{len(rest):,} pairs of images look alike, of which {MOST:,} were compared pixel by pixel")
            bits = np.bitwise_count(hashes[pairs[rest, 0]] ^ hashes[pairs[rest, 1]])
            rest = rest[np.argsort(bits, kind="stable")[:MOST]]
        same[rest] = _verified(survey, image, pairs[rest], turns[rest])
        pairs = pairs[same]
    notes = [f"{len(pairs):,} pairs of near-duplicate images"] if len(pairs) else []
    notes += more
    if large:
        notes.append("near-duplicates by their hashes alone, in a survey of this size")
    return pairs, notes


def _hashes(survey: Survey, image: str) -> np.ndarray:
    out = np.zeros(len(survey), np.uint64)
    for start in range(0, len(survey), 1024):
        rows = np.arange(start, min(start + 1024, len(survey)))
        part = survey.gather(rows, truth=(), observations=(image,)).observations[image]
        out[rows] = perceptual_hash(part.flux.numpy(), part.measured.numpy())
    return out


def _copies(survey: Survey, pairs: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """(m,) bool: candidates with equal checksums need no look at the pixels."""
    if "crc" not in survey.index.column_names:
        return np.zeros(len(pairs), bool)
    crc = survey.column("crc")
    return np.asarray((crc[pairs[:, 0]] == crc[pairs[:, 1]]) & (turns == 0))


def _alike(survey: Survey, image: str, pairs: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """(m,) bool: candidates that agree when averaged over large pixels; cheap, for a survey of simple shapes."""
    if len(pairs) == 0:
        return np.zeros(0, bool)
    rows, at = np.unique(pairs, return_inverse=True)
    at = at.reshape(pairs.shape)
    small = np.zeros((len(rows), LARGE, LARGE), np.float32)
    for start in range(0, len(rows), 512):
        part = survey.gather(rows[start : start + 512], truth=(), observations=(image,)).observations[image]
        small[start : start + 512] = shrunk(part.flux.numpy(), part.measured.numpy(), LARGE)
    out = np.zeros(len(pairs), bool)
    for turn in np.unique(turns):
        for chunk in np.array_split(np.flatnonzero(turns == turn), max(1, (turns == turn).sum() // 20_000)):
            a, b = small[at[chunk, 0]], small[at[chunk, 1]]
            out[chunk] = np.einsum("nyx,nyx->n", a, orient(b, turn)) > ALIKE
            if turn >= 4:
                out[chunk] |= np.einsum("nyx,nyx->n", a, orient(b, BACK[int(turn)])) > ALIKE
    return out


def candidates(hashes: np.ndarray, near: int = NEAR) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (m, 2) of hashes that differ in at most `near` bits, and (m,) the orientation of the second that fits.

    A hash is cut into three parts, one of which must agree: every pair within two bits is found, most within `near`.
    """
    turned = orientations(hashes)
    masks = [sum(1 << bit for bit in range(part, 64, 3)) for part in range(3)] if near else [2**64 - 1]
    pairs: list[np.ndarray] = []
    turns: list[np.ndarray] = []
    for number in range(8):
        found = [_joined(hashes, turned[number], mask, near) for mask in masks]
        both = np.unique(np.concatenate(found), axis=0)
        pairs.append(both)
        turns.append(np.full(len(both), number))
    all_pairs, all_turns = np.concatenate(pairs), np.concatenate(turns)
    return all_pairs, all_turns


def _joined(left: np.ndarray, right: np.ndarray, mask: int, near: int) -> np.ndarray:
    """Pairs i < j with `left[i]` near `right[j]` that agree in the bits of the mask."""
    n = len(left)
    whole = np.concatenate([left, right])
    key = whole & np.uint64(mask)
    order = np.lexsort((whole, key))
    starts = np.flatnonzero(np.append(True, np.diff(key[order]) != 0))
    ends = np.append(starts[1:], 2 * n)
    size = np.repeat(ends - starts, ends - starts)
    end_of = np.repeat(ends, ends - starts)
    found = []
    positions = np.arange(2 * n)
    for step in range(1, int(min(CROWD, (ends - starts).max(initial=1)))):
        at = positions[: 2 * n - step]
        reach = np.where(size[at] > CROWD, BESIDE, CROWD)
        at = at[(at + step < end_of[at]) & (step <= reach)]
        if len(at) == 0:
            break
        a, b = order[at], order[at + step]
        a, b = np.minimum(a, b), np.maximum(a, b)
        cross = (a < n) & (b >= n)  # one of each side
        i, j = a[cross], b[cross] - n
        low, high = np.minimum(i, j), np.maximum(i, j)
        keep = low < high
        i, j, low, high = i[keep], j[keep], low[keep], high[keep]
        bits = np.bitwise_count(left[i] ^ right[j])
        close = bits <= near
        found.append(np.stack([low[close], high[close]], axis=-1))
    return np.concatenate([np.zeros((0, 2), np.int64), *found])


def _verified(survey: Survey, image: str, pairs: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """(m,) bool: which candidates have the same pixels."""
    rule = survey.schema.observations[image]
    batch = max(1, BATCH // (8 * int(np.prod(rule.shape))))
    same = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), batch):
        here = slice(start, start + batch)
        first, second = (survey.gather(pairs[here, k], (), (image,)).observations[image] for k in (0, 1))
        a, b = first.flux.numpy(), second.flux.numpy()
        seen_a, seen_b = first.measured.numpy(), second.measured.numpy()
        for turn in np.unique(turns[here]):
            if turn >= 4 and a.shape[-1] != a.shape[-2]:
                continue
            rows = np.flatnonzero(turns[here] == turn)
            # a flip back and forth is the same; a rotation by 90 degrees either way is tried
            same[start + rows] = same_pixels(a[rows], seen_a[rows], orient(b[rows], turn), orient(seen_b[rows], turn))
            if turn >= 4:
                other = BACK[int(turn)]
                again = same_pixels(a[rows], seen_a[rows], orient(b[rows], other), orient(seen_b[rows], other))
                same[start + rows] |= again
    return same


def same_pixels(a: np.ndarray, seen_a: np.ndarray, b: np.ndarray, seen_b: np.ndarray) -> np.ndarray:
    """(m,) bool: whether images (m, band, y, x) are copies, up to an offset and a factor."""
    both = seen_a & seen_b
    enough = both.mean(axis=(1, 2, 3)) > 0.25
    whole = _correlation(a, b, both)
    brightness = np.where(both, a, 0).sum(axis=1) / np.maximum(both.sum(axis=1), 1)
    faint = (brightness <= np.median(brightness, axis=(1, 2), keepdims=True))[:, None]
    steps = [x[..., 1:] - x[..., :-1] for x in (a, b)]
    still = np.broadcast_to(faint, a.shape)[..., 1:] & np.broadcast_to(faint, a.shape)[..., :-1]
    background = _correlation(steps[0], steps[1], both[..., 1:] & both[..., :-1] & still)
    return np.asarray(enough & (whole > CORRELATION) & ~(background < FAINT))  # NaN: a background without noise


def _correlation(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(m,) correlation over the pixels of the mask, each band about its mean; NaN where one of the two is constant."""
    count = np.maximum(mask.sum(axis=(2, 3), keepdims=True), 1)

    def centred(x: np.ndarray) -> np.ndarray:
        x = np.where(mask, x, 0).astype(np.float64)
        return np.where(mask, x - x.sum(axis=(2, 3), keepdims=True) / count, 0.0)

    x, y = centred(a), centred(b)
    product = (x * y).sum(axis=(1, 2, 3))
    norm = np.sqrt((x**2).sum(axis=(1, 2, 3)) * (y**2).sum(axis=(1, 2, 3)))
    return np.asarray(np.where(norm > 0, product / np.where(norm > 0, norm, 1.0), np.nan))
