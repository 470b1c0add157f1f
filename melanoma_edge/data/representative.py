"""The pictures on which post-training quantization measures how far activations reach.

In: file hashes and classes of training pictures. Out: which of them to take, and what the manifest says of
them. Contents and seed decide; names, order and machine do not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from melanoma_edge.contract import Calibration

PICTURES = 200
"""Enough on the nine-class ISIC set: with 200 of its 1,094 training pictures the ranges of the logits are those of them
all, and the logits as close to float32 (31.0 dB); with 8 the ranges are up to a third too narrow (25 to 31 dB)."""


def choose(hashes: Sequence[str], labels: Sequence[str], seed: int, count: int = PICTURES) -> list[int]:
    """Return the positions of at most `count` pictures, as many of each class as there are, in the order of their hashes.

    `hashes` are SHA-256 of files (a file that stands there twice is taken once at most), `labels` their classes.
    Classes take turns, so a small class gives all that it has and the others share the rest.
    """
    queues: dict[str, list[int]] = {label: [] for label in sorted(set(labels))}
    known = {sha256: position for position, sha256 in reversed(list(enumerate(hashes)))}
    for position in sorted(known.values(), key=lambda position: hashlib.sha256(f"{seed} {hashes[position]}".encode()).digest()):
        queues[labels[position]].append(position)
    turns = [queue[turn] for turn in range(count) for queue in queues.values() if turn < len(queue)]
    return sorted(turns[:count], key=hashes.__getitem__)


def record(hashes: Sequence[str], labels: Sequence[str]) -> Calibration:
    """Return what a manifest says of chosen pictures, given their file hashes and classes."""
    counts = Counter(labels)
    return Calibration(
        pictures=len(hashes),
        per_class={label: counts[label] for label in sorted(counts)},
        sha256=hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest(),
    )


def with_whole_range(pictures: np.ndarray) -> np.ndarray:
    """Return `pictures` (uint8 [n, size, size, 3]) so that 0 and 255 stand among their bytes.

    The input's range is then measured as [0, 255], which makes its scale 1 and its zero point 0 as the input
    contract wants it. Hardly any set of photographs lacks them; where one does, a byte in the corner of the first picture changes.
    """
    result = np.array(pictures)
    if result.min() > 0:
        result[0, 0, 0, 0] = 0
    if result.max() < 255:
        result[0, 0, 1, 0] = 255
    return result
