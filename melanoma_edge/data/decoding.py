"""Decoding one picture file to what is kept of it, in bounded memory however many threads do so.

In: a file's bytes. Out: what it holds (:class:`Facts`), two small grey views for finding copies, and the network's
input. Keeping that is :mod:`melanoma_edge.data.cache`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melanoma_edge.data import image

VIEW = 32
"""Side of the grey views in pixels."""
PIXELS_IN_FLIGHT = 200_000_000
"""Full-size pixels that are decoded at once, over all threads: about 1.4 GB at most. One picture always passes."""
PILLOW_BLOCKS = 128
"""Memory blocks (of 16 MB) that Pillow keeps for its next picture while a cache is filled. Without, each goes back to the
C library, which keeps it for the thread that used it (several GB with many threads) or makes the system clear it anew."""
NEARLY_BLACK = 32
"""Grey values below this are the dark field around what a dermatoscope shows."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one file holds."""

    sha256: str
    """Of the file's bytes."""
    bytes: int
    width: int
    height: int
    """Full size in pixels, upright."""
    format: str
    """`JPEG`, `PNG` ...: by the content, whatever the name says."""
    mode: str
    """Pillow's name of the pixels: `RGB`, `L`, `CMYK` ..."""
    orientation: int
    """EXIF orientation, 1 for upright."""
    camera: str
    """Maker and model by EXIF."""
    border_red: float
    border_green: float
    border_blue: float
    """Mean colour of the outermost sixteenth of the picture on each side, 0..255."""
    dark_corners: float
    """Share of the four corners (an eighth of each side) that is nearly black: the round field of a dermatoscope."""


@dataclass(frozen=True)
class Decoded:
    """What is kept of one file."""

    facts: Facts
    views: np.ndarray
    """uint8 [2, VIEW, VIEW]: centre square and whole picture, grey."""
    input: np.ndarray | None
    """uint8 [size, size, 3], by the input contract, where a size was asked for."""


class Budget:
    """Lets threads decode as long as their pictures together have at most `limit` pixels; a single one always passes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used, self.changed = limit, 0, threading.Condition()

    @contextlib.contextmanager
    def lease(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that waits until so many pixels may be decoded; they are given back when the block ends."""
        taken = 0

        def take(pixels: int) -> None:
            nonlocal taken
            with self.changed:
                self.changed.wait_for(lambda: self.used == 0 or self.used + pixels <= self.limit)
                self.used += pixels
                taken += pixels

        try:
            yield take
        finally:
            with self.changed:
                self.used -= taken
                self.changed.notify_all()


@contextlib.contextmanager
def blocks_kept() -> Iterator[None]:
    """Make Pillow keep memory for its next picture, until the block ends."""
    core = image.Image.core
    if not hasattr(core, "set_blocks_max"):  # the settings have no public names (PILLOW_BLOCKS_MAX is read when Pillow is imported)
        yield
        return
    before = core.get_blocks_max()
    core.set_blocks_max(max(before, PILLOW_BLOCKS))
    try:
        yield
    finally:
        core.set_blocks_max(before)
        core.clear_cache(before)


def content_of(path: Path) -> bytes:
    """Return the bytes of a picture file; raises UnreadableImage where it is none, or its name is no text that can be written."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        error = image.UnreadableImage("its name is not UTF-8; expected one that is: rename it")
        error.fault = "no access"
        raise error from None
    return image.read(path)


def decode_file(path: Path, content: bytes, sha256: str, size: int | None, at_least: int | None, budget: Budget) -> Decoded:
    """Decode one file and derive all that is kept of it."""
    with budget.lease() as admit:
        picture = image.open_picture(path, content, at_least=at_least, admit=admit)
        # Box averages by a whole factor cost little; the views are made from those.
        factor = max(1, min(picture.image.size) // (4 * VIEW))
        small = picture.image.reduce(factor) if factor > 1 else picture.image
        whole = np.asarray(small.resize((VIEW, VIEW), image.Image.Resampling.BILINEAR))
        views = np.stack([image.square(small, VIEW), whole]).mean(axis=3).round().astype(np.uint8)
        network_input = image.square(picture.image, size) if size else None
        described = (picture.width, picture.height, picture.format, picture.mode, picture.orientation, picture.camera)
        del picture, small
    edge, corner = VIEW // 16, VIEW // 8
    inside = np.zeros((VIEW, VIEW), bool)
    inside[edge:-edge, edge:-edge] = True
    border = whole[~inside].mean(axis=0).round(2).tolist()
    corners = np.concatenate([views[1][rows, columns].ravel() for rows in _ends(corner) for columns in _ends(corner)])
    facts = Facts(sha256, len(content), *described, *border, round(float((corners < NEARLY_BLACK).mean()), 4))
    return Decoded(facts, views, network_input)


def _ends(length: int) -> tuple[slice, slice]:
    return slice(0, length), slice(-length, None)
