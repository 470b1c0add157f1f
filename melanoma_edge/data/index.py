"""The index: one row for each readable picture of a data set, after every file was opened once.

In: a data set of any kind that :mod:`melanoma_edge.data.sources` lists. Out: rows, the files that could not
be read, views for finding copies and, where a size is asked for, the network's inputs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from melanoma_edge.data import image
from melanoma_edge.data.cache import Decode, pixel_hashes, prepare
from melanoma_edge.data.copies import Copies, components, near_copies
from melanoma_edge.data.decoding import Facts
from melanoma_edge.data.listing import Entry, Listing
from melanoma_edge.data.pictures import Pictures
from melanoma_edge.data.sources import read_listing
from melanoma_edge.errors import BadInput

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Row(Entry):
    """One readable picture: its line of the index table, and what its file holds."""

    sha256: str
    """Hash of the file's bytes."""
    content: str = ""
    """Hash of the first file that holds identical pixels; empty where no other file does."""
    facts: Facts | None = None
    """What the file holds; None for rows that were made up."""

    @property
    def pixels(self) -> str:
        """Hash that identical pictures share."""
        return self.content or self.sha256


@dataclass(frozen=True)
class Index:
    """All readable pictures of a data set, sorted by path."""

    root: Path
    rows: tuple[Row, ...]
    bad: tuple[tuple[str, str], ...]
    """(path, what is wrong) of the files that look like pictures and cannot be read."""
    thumbnails: np.ndarray
    """uint8 [rows, side, side]: the grey centre square, small, for finding copies."""
    pixels: Pictures | None
    """Network inputs [rows, size, size, 3] on disk, by the input contract, where a size was asked for."""
    outside: tuple[str, ...] = ()
    """Picture files that have no class; they were not opened."""
    wholes: np.ndarray | None = None
    """uint8 [rows, side, side]: the same of the whole picture, squeezed to a square."""
    faults: tuple[image.Fault, ...] = ()
    """Kind of defect of each of `bad`."""
    listing: Listing | None = None
    """What was listed before the pictures were opened."""

    @cached_property
    def copies(self) -> Copies:
        """Pictures that are copies of each other, identical ones among them."""
        return near_copies(self.thumbnails, self.wholes)


def read_index(
    root: Path,
    *,
    metadata: Path | None = None,
    licences: Sequence[str] = (),
    size: int | None = None,
    decode: Decode = "full",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Index:
    """Open every picture of the data set `root` and return the index; with `size`, the network's inputs too.

    `root` is a folder or an index table. Without `metadata`, `root`/metadata.csv is used where it is there: a
    split that does not know the lesions would leak. `cache` and `decode` are those of
    :func:`melanoma_edge.data.cache.prepare`. Raises BadInput when the data set is missing, not understood or
    holds no readable picture.
    """
    listing = read_listing(Path(root), metadata=metadata, licences=licences)
    files = [listing.root / entry.path for entry in listing.entries]
    prepared = prepare(files, size=size, decode=decode, cache=cache, progress=progress)
    rows, readable, bad, faults = [], [], [], []
    for position, (entry, facts) in enumerate(zip(listing.entries, prepared.facts)):
        if isinstance(facts, Facts):
            readable.append(position)
            rows.append(Row(**vars(entry), sha256=facts.sha256, facts=facts))
        else:
            bad.append((printable(entry.path), reason(facts, files[position])))
            faults.append(facts.fault)
    if not rows:
        first = f" (first: {bad[0][0]}: {bad[0][1]})" if bad else ""
        raise BadInput(f"{root} holds no readable picture ({len(bad)} unreadable files){first}: expected class folders with pictures")
    views = prepared.views[readable]
    index = Index(
        listing.root, tuple(rows), tuple(bad), views[:, 0], prepared.pixels, listing.outside, views[:, 1], tuple(faults), listing
    )  # fmt: skip
    return _with_contents(index, cache)


def printable(text: str) -> str:
    """Return a path as text that can be printed and written: bytes that are no UTF-8 are spelt out."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def reason(error: image.UnreadableImage, file: Path) -> str:
    """Return what is wrong with a file, without its path."""
    text = str(error)
    for shown in (str(file), repr(str(file))):
        text = text.removeprefix(f"{shown}: ")
    return text


def _with_contents(index: Index, cache: Path | None) -> Index:
    """Find files that differ and yet hold identical pixels (other tags, another container), and say so in their rows."""
    equal = index.copies.pairs[index.copies.differences == 0]
    alike = defaultdict(dict)  # {views and size: {hash of the file: position}}
    for position, group in enumerate(components(len(index.rows), equal)):
        row = index.rows[position]
        alike[group, row.facts.width, row.facts.height].setdefault(row.sha256, position)
    alike = [found for found in alike.values() if len(found) > 1]
    if not alike:
        return index
    pixels = pixel_hashes({sha256: index.root / index.rows[position].path for found in alike for sha256, position in found.items()}, cache=cache)
    first: dict[str, str] = {}
    content_of = {sha256: first.setdefault(pixels[sha256], sha256) for found in alike for sha256 in found if sha256 in pixels}
    rows = tuple(replace(row, content=content_of.get(row.sha256, "")) for row in index.rows)
    found = replace(index, rows=rows)
    found.__dict__["copies"] = index.copies  # searched for already
    return found
