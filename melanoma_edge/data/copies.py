"""Copies that are not identical: the same picture re-encoded, resized, flipped or turned.

In: 16 x 16 grey thumbnails. Out: pairs of pictures that are so alike that they must not stand on
both sides of a split; fingerprints, by which a copy is known again where the picture itself is not at hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

MIN_CORRELATION = 0.98
MAX_MEAN_DIFFERENCE = 3.0
"""Largest mean absolute difference of two thumbnails, in grey levels, that still counts as a copy.
On the nine-class ISIC set (1,931 files) 1 to 3 find the same copies; at 4 the first pair of different
photographs of one lesion appears, at 8 the first pair of different lesions."""

BLOCK = 2048

FINGERPRINT_SIDE, FINGERPRINT_STEP = 8, 16
"""A fingerprint is 8 x 8 grey values in steps of 16 grey levels: enough to know a copy, too little to show a lesion."""
MAX_FINGERPRINT_DIFFERENCE = 1.75
"""Largest mean absolute difference, in grey levels, of a copy. On the nine-class ISIC set, copies as JPEG of
quality 50 to 95, down to a third of the size and turned, differ by 1.5 at most; the two most alike pictures
of test and training part by 2.5."""


def near_copies(thumbnails: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield pairs (i, j), i < j, of thumbnails (uint8 [n, 16, 16]) that are copies in any of the
    eight orientations of a square.

    Candidates come from one correlation per orientation (unit vectors, blockwise matrix products),
    and each candidate is then checked by its mean absolute difference.
    """
    flat = thumbnails.reshape(len(thumbnails), thumbnails.shape[1] ** 2).astype(np.float32)
    units = _unit(flat)
    seen = set()
    for turned in _orientations(thumbnails):
        turned = turned.reshape(flat.shape).astype(np.float32)
        turned_units = _unit(turned)
        for start in range(0, len(flat), BLOCK):
            similar = units[start : start + BLOCK] @ turned_units.T > MIN_CORRELATION
            for i, j in zip(*np.nonzero(similar)):
                pair = (int(min(i + start, j)), int(max(i + start, j)))
                if pair[0] != pair[1] and pair not in seen and np.abs(flat[i + start] - turned[j]).mean() <= MAX_MEAN_DIFFERENCE:
                    seen.add(pair)
                    yield pair


def fingerprints(thumbnails: np.ndarray) -> list[str]:
    """Return the fingerprint of each thumbnail (uint8 [n, 16, 16]): 64 hex digits, one a grey value, row by row."""
    return ["".join(f"{value:x}" for value in row) for row in _coarse(thumbnails)]


def resembling(thumbnails: np.ndarray, known: Collection[str]) -> np.ndarray:
    """Return which thumbnails (uint8 [n, 16, 16]) have one of the fingerprints `known` in any orientation: bool [n].

    What is no fingerprint among `known` is passed over, and so are flat pictures, in which there is nothing to compare.
    """
    digits = [text for text in known if len(text) == FINGERPRINT_SIDE**2 and len(set(text)) > 1 and set(text) <= set("0123456789abcdef")]
    found = np.zeros(len(thumbnails), dtype=bool)
    if not digits or not len(thumbnails):
        return found
    theirs = np.array([[int(digit, 16) for digit in text] for text in digits], np.int16)
    theirs = theirs[np.argsort(theirs.sum(axis=1), kind="stable")]
    totals = theirs.sum(axis=1)
    reach = MAX_FINGERPRINT_DIFFERENCE / FINGERPRINT_STEP * FINGERPRINT_SIDE**2
    for turned in _orientations(thumbnails):
        for position, ours in enumerate(_coarse(turned)):
            if not found[position] and np.ptp(ours):
                # The sums of two pictures differ by no more than the pictures do.
                low, high = np.searchsorted(totals, (ours.sum() - reach, ours.sum() + reach + 1))
                found[position] = (np.abs(theirs[low:high] - ours).sum(axis=1) <= reach).any()
    return found


def _coarse(thumbnails: np.ndarray) -> np.ndarray:
    """Return the fingerprints' values, int16 [n, 64] of 0..15."""
    block = thumbnails.shape[1] // FINGERPRINT_SIDE
    grey = thumbnails.reshape(-1, FINGERPRINT_SIDE, block, FINGERPRINT_SIDE, block).mean(axis=(2, 4))
    return np.floor(grey / FINGERPRINT_STEP + 0.5).clip(0, 15).astype(np.int16).reshape(-1, FINGERPRINT_SIDE**2)


def _orientations(thumbnails: np.ndarray) -> Iterator[np.ndarray]:
    """Yield `thumbnails` [n, side, side] turned and mirrored in all eight ways."""
    for turns in range(4):
        turned = np.ascontiguousarray(np.rot90(thumbnails, turns, axes=(1, 2)))
        yield turned
        yield np.ascontiguousarray(turned[:, :, ::-1])


def _unit(rows: np.ndarray) -> np.ndarray:
    """Return `rows` centred and scaled to length 1; constant rows (nothing to compare) become zero."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 8)  # contrast of half a grey level
