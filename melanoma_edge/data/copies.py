"""Copies that are not identical: the same picture re-encoded, resized, flipped or turned.

In: 16 x 16 grey thumbnails. Out: pairs of pictures that are so alike that they must not stand on
both sides of a split.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

MIN_CORRELATION = 0.98
MAX_MEAN_DIFFERENCE = 3.0
"""Largest mean absolute difference of two thumbnails, in grey levels, that still counts as a copy.
On the nine-class ISIC set (1,931 files) 1 to 3 find the same copies; at 4 the first pair of different
photographs of one lesion appears, at 8 the first pair of different lesions."""

BLOCK = 2048


def near_copies(thumbnails: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield pairs (i, j), i < j, of thumbnails (uint8 [n, 16, 16]) that are copies in any of the
    eight orientations of a square.

    Candidates come from one correlation per orientation (unit vectors, blockwise matrix products),
    and each candidate is then checked by its mean absolute difference.
    """
    side = thumbnails.shape[1]
    flat = thumbnails.reshape(len(thumbnails), side * side).astype(np.float32)
    units = _unit(flat)
    seen = set()
    for orientation in range(8):
        turned = np.rot90(thumbnails, orientation % 4, axes=(1, 2))
        if orientation >= 4:
            turned = turned[:, :, ::-1]
        turned = np.ascontiguousarray(turned).reshape(flat.shape).astype(np.float32)
        turned_units = _unit(turned)
        for start in range(0, len(flat), BLOCK):
            similar = units[start : start + BLOCK] @ turned_units.T > MIN_CORRELATION
            for i, j in zip(*np.nonzero(similar)):
                pair = (int(min(i + start, j)), int(max(i + start, j)))
                if pair[0] != pair[1] and pair not in seen and np.abs(flat[i + start] - turned[j]).mean() <= MAX_MEAN_DIFFERENCE:
                    seen.add(pair)
                    yield pair


def _unit(rows: np.ndarray) -> np.ndarray:
    """Return `rows` centred and scaled to length 1; constant rows (nothing to compare) become zero."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 8)  # contrast of half a grey level
