"""Whether a picture is good enough to be judged: blurred, badly exposed or too small.

In: a decoded picture. Out: measures, and warnings in words. A warning is a word to people and decides nothing: the picture is classified all the same.

Blur: the variance of the Laplacian, which measures fine detail (Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy: a comparative study"; of
the family that did best with Pertuz, Puig and Garcia 2013, "Analysis of focus measure operators for shape-from-focus") of the centre square at a fixed
side, so that the size of the file does not count: what is finer than that a network does not see either. Its root is
taken as a share of the mean grey value, so that the exposure does not count either. Exposure: the shares of clipped and of nearly black
pixels, as a camera's histogram shows them. Only the circle inside the square counts, for a dermatoscope's corners are black.

The thresholds were measured on the 1,931 dermoscopic pictures of the nine-class ISIC set, 180 pixels a side, and on worse copies of every fourth of them
(tests/test_quality.py measures them again). Warned of are, as they come, 8 as blurred and 4 as over-exposed (0.6 % together); and

- of copies blurred by a Gaussian of 0.5 / 0.75 / 1 / 1.5 % of the side 26 / 75 / 94 / 100 %, moved by 2 / 4 / 6 / 8 % of it 13 / 37 / 65 / 76 %;
- of copies 2 / 3 / 4 / 5 stops too dark (linear light halved so often) 0 / 22 / 96 / 100 %, 1 / 1.5 / 2 / 3 stops too bright 42 / 84 / 98 / 100 %.

So a slight blur, one in one direction and moderate darkness pass: no warning does not mean a good picture.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image

from melanoma_edge.data import image
from melanoma_edge.data.augment import GREY

SIDE = 128
"""Pixels to which the centre square is brought; pictures with a shorter side are too small to be judged."""
LEAST_SHARPNESS = 0.022
"""Less is blurred: of 250 good pictures one is said to be. More would catch slighter blur and warn of soft pictures more often."""
NEARLY_BLACK, MOST_BLACK = 64, 0.95
"""Under-exposed: more than this share of the pixels has a grey value below the first, which stands for 5 % of the light of white. A higher value would find
more (100: all that are 3 stops too dark) and take well-lit dark skin for a dark picture; of dark skin the measured pictures show hardly any, so nothing here
shows that it is spared."""
CLIPPED, MOST_CLIPPED = 250, 0.03
"""Over-exposed: more than this share of the pixels reach the first in all three channels, so what was there is lost. Reflections of a lamp are fewer."""


@dataclass(frozen=True)
class Quality:
    """What was measured of one picture."""

    side: int
    """Shorter side of the picture in pixels."""
    sharpness: float
    """Standard deviation of the Laplacian, as a share of the mean grey value."""
    dark: float
    """Share of pixels that are nearly black."""
    clipped: float
    """Share of pixels that are clipped to white."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the picture, in words; empty where nothing is."""
        if self.side < SIDE:
            return (f"small: {self.side} pixels on its shorter side, expected {SIDE} or more; blur cannot be told",)
        found = []
        if self.dark > MOST_BLACK:
            found.append(f"under-exposed: {self.dark:.0%} of it is nearly black")
        if self.clipped > MOST_CLIPPED:
            found.append(f"over-exposed: {self.clipped:.0%} of it is clipped to white")
        # Too dark or too bright a picture has little contrast left, which is no blur.
        if not found and self.sharpness < LEAST_SHARPNESS:
            found.append(f"blurred: sharpness {self.sharpness:.3f}, expected {LEAST_SHARPNESS:g} or more")
        return tuple(found)


def measure(picture: Image.Image) -> Quality:
    """Return the quality of a decoded RGB `picture` of any size."""
    pixels = image.square(picture, SIDE)
    inside, within = _circle()
    grey = pixels.astype(np.float64) @ GREY
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1]
    laplacian += grey[1:-1, :-2]
    laplacian += grey[1:-1, 2:]
    laplacian -= 4 * grey[1:-1, 1:-1]
    seen, clipped = grey.ravel()[inside], pixels >= CLIPPED
    return Quality(
        side=min(picture.size),
        sharpness=float(laplacian.ravel()[within].std() / max(seen.mean(), 1.0)),
        dark=float(np.count_nonzero(seen < NEARLY_BLACK) / len(inside)),
        # Few pictures have any pixel to look at here.
        clipped=float(np.count_nonzero(clipped.all(axis=2).ravel()[inside]) / len(inside)) if clipped.any() else 0.0,
    )


@functools.cache
def _circle() -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels lie in the circle, as positions in the flattened square, and which do so without its outermost rows and columns, in what is left."""
    rows, columns = np.indices((SIDE, SIDE)) + 0.5 - SIDE / 2
    inside = np.hypot(rows, columns) <= SIDE / 2
    return np.flatnonzero(inside), np.flatnonzero(inside[1:-1, 1:-1])
