"""Preparing a data set: every picture decoded once into the cache, before training needs it.

In: a data set. Out: the filled cache, and an account of what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from melanoma_edge.contract import Recipe
from melanoma_edge.data import cache as caches
from melanoma_edge.data.decoding import Facts
from melanoma_edge.data.index import Progress, printable, reason
from melanoma_edge.data.sources import read_listing
from melanoma_edge.errors import BadInput
from melanoma_edge.files import cache_folder


def prepare_data(
    data: Path,
    *,
    size: int,
    decode: caches.Decode = "full",
    workers: int | None = None,
    metadata: Path | None = None,
    licences: Sequence[str] = (),
    cache: Path | None = None,
    progress: Progress | None = None,
) -> dict:
    """Decode every picture of the data set `data` for a network input of `size` pixels and return an account.

    What the cache holds already is not decoded again. Raises BadInput for a data set that is not understood, a size
    that no recipe can have and fewer than one worker.
    """
    low, high = (getattr(bound, name) for bound, name in zip(Recipe.model_fields["image_size"].metadata, ("ge", "le")))
    if not low <= size <= high:
        raise BadInput(f"the size is {size} pixels: expected {low} to {high}; give another --size")
    if workers is not None and workers < 1:
        raise BadInput(f"{workers} workers: expected 1 or more; give another --workers")
    folder = Path(cache) if cache else cache_folder()
    listing = read_listing(Path(data), metadata=metadata, licences=licences)
    files = [listing.root / entry.path for entry in listing.entries]
    prepared = caches.prepare(files, size=size, decode=decode, cache=folder, workers=workers, progress=progress)
    readable = [facts for facts in prepared.facts if isinstance(facts, Facts)]
    return {
        "cache": str(folder),
        "size": size,
        "decode": decode,
        "files": len(files),
        "pictures": len(readable),
        "bytes": len({facts.sha256 for facts in readable}) * size * size * 3,
        "decoded": prepared.decoded,
        "known": len(files) - prepared.decoded - (len(files) - len(readable)),
        "unreadable": [
            [printable(entry.path), reason(error, file)]
            for entry, error, file in zip(listing.entries, prepared.facts, files)
            if not isinstance(error, Facts)
        ],
    }
