"""A labelled folder as arrays, with the pictures that a model was trained on told apart.

In: a folder of class folders, the classes and input size of a model, and what its training used. Out:
pictures, class numbers, groups, and an account of what could not be used.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melanoma_edge.contract import Recipe
from melanoma_edge.data import policy
from melanoma_edge.data.copies import fingerprints, resembling
from melanoma_edge.data.index import Progress, read_index
from melanoma_edge.data.listing import Listing
from melanoma_edge.errors import BadInput


FINGERPRINT = "like:"
"""What the keys begin with that are fingerprints."""


@dataclass(frozen=True)
class Labelled:
    """Pictures of a folder whose class the model knows."""

    pictures: np.ndarray
    """uint8 [n, size, size, 3]."""
    labels: np.ndarray
    """int [n], positions in the model's classes."""
    groups: np.ndarray
    """int [n]: same lesion or copy, same number."""
    paths: tuple[str, ...]
    seen: np.ndarray
    """bool [n]: the picture, a copy of it in the folder, or its lesion was used for training or calibration."""
    account: dict
    """Counts: used, seen_in_training, unknown_classes, unreadable, in_no_class_folder, left_out (conflicts and copies)."""
    hashes: tuple[str, ...] = ()
    """SHA-256 of each picture's file."""
    keys: tuple[frozenset[str], ...] = ()
    """What each picture is known again by (:func:`seen_keys`)."""
    listing: Listing | None = None
    """The data set that the pictures came from."""

    def unseen(self) -> "Labelled":
        """Return the pictures that training did not use."""
        keep = ~self.seen
        paths = tuple(path for path, kept in zip(self.paths, keep) if kept)
        return Labelled(self.pictures[keep], self.labels[keep], self.groups[keep], paths, self.seen[keep], self.account, listing=self.listing)


def load_labelled(
    data: Path,
    classes: tuple[str, ...],
    recipe: Recipe,
    seen: frozenset[str],
    *,
    size: int | None = None,
    metadata: Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Labelled:
    """Read the pictures below `data` under the recipe's data policy (conflicts, copies).

    They get the side `size`, else the recipe's. `seen` holds the keys (:func:`seen_keys`) of what training used. Raises BadInput when nothing is
    left that the model knows.
    """
    index = read_index(data, metadata=metadata, size=size or recipe.image_size, cache=cache, progress=progress)
    resolution = policy.resolve(index, recipe, classes)
    known = [position for position in sorted(resolution.labels) if resolution.labels[position] in classes]
    unknown = Counter(label for label in resolution.labels.values() if label not in classes)
    if not known:
        raise BadInput(
            f"{data} holds no picture of a class that the model knows (found {', '.join(sorted(unknown)) or 'none'}): "
            f"expected folders named {', '.join(classes)}"
        )
    groups = policy.connect(index)
    rows = [index.rows[position] for position in known]
    # A copy of a seen picture (re-encoded, resized, turned), or another photograph of its lesion, is no news to the model either.
    alike = resembling(index.thumbnails, index.wholes, {key.removeprefix(FINGERPRINT) for key in seen if key.startswith(FINGERPRINT)})
    seen_groups = {groups[position] for position, row in enumerate(index.rows) if alike[position] or seen & seen_keys(row.sha256, "|".join(policy.ids_of(row)))}
    was_seen = np.array([groups[position] in seen_groups for position in known])
    account = {
        "used": len(known),
        "seen_in_training": int(was_seen.sum()),
        "unknown_classes": dict(sorted(unknown.items())),
        "unreadable": [list(bad) for bad in index.bad],
        "in_no_class_folder": len(index.outside),
        "left_out": len(resolution.left_out),
        **{key: value for key, value in resolution.counts.items() if key in ("conflicting_groups", "relabelled_by_reference")},
    }
    return Labelled(
        pictures=index.pixels[known],
        labels=np.array([classes.index(resolution.labels[position]) for position in known]),
        groups=np.array([groups[position] for position in known]),
        paths=tuple(row.path for row in rows),
        seen=was_seen,
        account=account,
        hashes=tuple(row.sha256 for row in rows),
        keys=tuple(
            frozenset(seen_keys(row.sha256, "|".join(policy.ids_of(row)), fingerprint))
            for row, fingerprint in zip(rows, fingerprints(index.thumbnails[known], index.wholes[known]))
        ),
        listing=index.listing,
    )


def seen_keys(sha256: str, lesions: str, fingerprint: str = "") -> set[str]:
    """Return the keys under which a picture counts as seen: its file's hash, the ids of its lesion and patient (joined by
    "|"), hashed, and its fingerprint."""
    ids = {_hashed(lesion) for lesion in lesions.split("|") if lesion}
    return {sha256} | ids | {FINGERPRINT + text for text in fingerprint.split("|") if text}


@functools.lru_cache(maxsize=1 << 20)
def _hashed(lesion: str) -> str:
    return hashlib.sha256(f"lesion:{lesion}".encode()).hexdigest()
