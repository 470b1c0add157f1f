"""Drawn pictures that show no lesion, to measure how often a model answers where it ought to say that it does not know.

In: a kind, a size and a number. Out: a picture. They reach from plain colours, which no skin photograph resembles, over
patterns and everyday things to bare skin, which resembles one but for the lesion. A random number generator draws them: rates on them
say how a model takes these pictures and stand for no share of what people photograph.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from melanoma_edge.data import samples
from melanoma_edge.data.lesion_drawing import noise
from melanoma_edge.errors import BadInput

PER_KIND = 8
"""Pictures of each kind in the set that rates are measured on."""
SEED = 20
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .,"


def pictures(size: int, per_kind: int = PER_KIND) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the set: uint8 [kinds * per_kind, size, size, 3], and the kind of each. Raises as :func:`draw` does."""
    kinds = tuple(kind for kind in KINDS for _ in range(per_kind))
    return np.stack([draw(kind, size, position % per_kind) for position, kind in enumerate(kinds)]), kinds


def draw(kind: str, size: int, number: int) -> np.ndarray:
    """Return the picture `number` (0, 1 ...) of a kind, uint8 [size, size, 3]; the arguments decide every pixel.

    Raises BadInput for an unknown kind and a size that samples cannot have.
    """
    if kind not in _DRAWERS:
        raise BadInput(f"no pictures without a lesion are called {kind!r}: expected one of {', '.join(KINDS)}; give one of these")
    samples.check_size(size)
    # Named by its kind, so that a picture stays what it is when kinds are added.
    rng = np.random.default_rng([SEED, zlib.crc32(kind.encode()), number])
    found = np.clip(_DRAWERS[kind](rng, size), 0.0, 1.0)
    return (found * 255.0 + 0.5).astype(np.uint8)


def _plain(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.broadcast_to(rng.uniform(0, 1, 3), (size, size, 3))


def _gradient(rng: np.random.Generator, size: int) -> np.ndarray:
    x, y = _axes(size)
    angle = rng.uniform(0, 2 * np.pi)
    along = (x * np.cos(angle) + y * np.sin(angle)) / 2**0.5 / 2 + 0.5
    return _between(along, rng)


def _noise(rng: np.random.Generator, size: int) -> np.ndarray:
    channels = 1 if rng.random() < 0.5 else 3
    return np.broadcast_to(rng.uniform(0, 1, (size, size, channels)), (size, size, 3))


def _clouds(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.stack([0.5 + 0.25 * noise(rng, size, rng.uniform(3, 12)) for _ in range(3)], -1)


def _stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    x, y = _axes(size)
    angle = rng.uniform(0, 2 * np.pi)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * np.pi * rng.uniform(2, 14))
    return _between((wave > 0).astype(np.float64), rng)


def _checkerboard(rng: np.random.Generator, size: int) -> np.ndarray:
    cell = max(1, round(size / rng.uniform(3, 20)))
    rows, columns = np.indices((size, size)) // cell
    return _between(((rows + columns) % 2).astype(np.float64), rng)


def _text(rng: np.random.Generator, size: int) -> np.ndarray:
    # The bitmap font, whose letters no version of a font library draws otherwise.
    font, lines = ImageFont.load_default_imagefont(), int(rng.integers(4, 14))
    page = Image.new("L", (12 * lines, 12 * lines))
    pen = ImageDraw.Draw(page)
    for line in range(lines):
        pen.text((2, 12 * line), "".join(rng.choice(list(LETTERS), 2 * lines)), fill=255, font=font)
    ink = np.asarray(page.resize((size, size), Image.Resampling.BILINEAR), np.float64)[..., np.newaxis] / 255
    paper, black = np.array([1.0, 0.98, 0.95]) * rng.uniform(0.8, 1.0), rng.uniform(0, 0.3)
    return paper + ink * (black - paper)


def _polka(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw discs in a lattice, so nothing like a single lesion in the middle."""
    cells = int(rng.integers(4, 9))

    def paint(pen: ImageDraw.ImageDraw, side: int) -> None:
        for row, column in np.ndindex(cells, cells):
            _disc(pen, ((column + 0.5) / cells, (row + 0.5) / cells), 0.3 / cells, side, _colour(rng))

    return _painted(rng, size, paint)


def _house(rng: np.random.Generator, size: int) -> np.ndarray:
    def paint(pen: ImageDraw.ImageDraw, side: int) -> None:
        horizon, left, right = rng.uniform(0.6, 0.75), rng.uniform(0.15, 0.3), rng.uniform(0.7, 0.85)
        eaves = rng.uniform(0.35, 0.5)
        _box(pen, (0, 0, 1, 1), side, (135, 190, 235))
        _box(pen, (0, horizon, 1, 1), side, (80, 150, 70))
        _disc(pen, (rng.uniform(0, 1), 0.12), 0.07, side, (250, 220, 90))
        _box(pen, (left, eaves, right, horizon + 0.1), side, _colour(rng))
        pen.polygon([(x * side, y * side) for x, y in ((left - 0.05, eaves), (right + 0.05, eaves), ((left + right) / 2, eaves - 0.22))], fill=(150, 60, 45))
        _box(pen, (left + 0.07, eaves + 0.08, left + 0.19, eaves + 0.2), side, (210, 235, 245))
        _box(pen, (right - 0.2, horizon - 0.12, right - 0.09, horizon + 0.1), side, (90, 60, 40))

    return _painted(rng, size, paint)


def _mug(rng: np.random.Generator, size: int) -> np.ndarray:
    def paint(pen: ImageDraw.ImageDraw, side: int) -> None:
        _box(pen, (0, 0, 1, 1), side, (225, 222, 215))
        _box(pen, (0, rng.uniform(0.6, 0.72), 1, 1), side, (150, 105, 70))
        colour, left = _colour(rng), rng.uniform(0.2, 0.35)
        pen.ellipse([(left + 0.28) * side, 0.38 * side, (left + 0.52) * side, 0.68 * side], outline=colour, width=max(1, side // 18))
        _box(pen, (left, 0.3, left + 0.38, 0.78), side, colour)
        pen.ellipse([left * side, 0.25 * side, (left + 0.38) * side, 0.36 * side], fill=(70, 42, 28), outline=colour, width=max(1, side // 60))

    return _painted(rng, size, paint)


def _car(rng: np.random.Generator, size: int) -> np.ndarray:
    def paint(pen: ImageDraw.ImageDraw, side: int) -> None:
        _box(pen, (0, 0, 1, 1), side, (170, 200, 225))
        _box(pen, (0, 0.62, 1, 1), side, (95, 95, 100))
        left, colour = rng.uniform(0.05, 0.2), _colour(rng)
        _box(pen, (left, 0.5, left + 0.7, 0.7), side, colour)
        pen.polygon([(x * side, y * side) for x, y in ((left + 0.12, 0.5), (left + 0.22, 0.35), (left + 0.5, 0.35), (left + 0.6, 0.5))], fill=colour)
        _box(pen, (left + 0.24, 0.38, left + 0.36, 0.49), side, (215, 235, 245))
        for wheel in (0.16, 0.54):
            _disc(pen, (left + wheel, 0.71), 0.075, side, (25, 25, 28))
            _disc(pen, (left + wheel, 0.71), 0.03, side, (180, 180, 185))

    return _painted(rng, size, paint)


def _face(rng: np.random.Generator, size: int) -> np.ndarray:
    def paint(pen: ImageDraw.ImageDraw, side: int) -> None:
        _box(pen, (0, 0, 1, 1), side, _colour(rng))
        x, y = rng.uniform(0.42, 0.58, 2)
        _disc(pen, (x, y), 0.36, side, tuple(np.round(np.array(samples.LIGHT_SKIN) * rng.uniform(0.6, 1.0)).astype(int).tolist()))
        pen.pieslice([(x - 0.38) * side, (y - 0.42) * side, (x + 0.38) * side, (y + 0.2) * side], 185, 355, fill=(70, 45, 30))
        for eye in (-0.13, 0.13):
            _disc(pen, (x + eye, y), 0.045, side, (250, 250, 250))
            _disc(pen, (x + eye, y), 0.02, side, (50, 80, 120))
        pen.arc([(x - 0.15) * side, (y - 0.02) * side, (x + 0.15) * side, (y + 0.22) * side], 20, 160, fill=(170, 70, 75), width=max(1, side // 40))

    return _painted(rng, size, paint)


def _bare_skin(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw skin as :mod:`melanoma_edge.data.samples` does, with its hairs and its light, and without a lesion."""
    return samples.exposed(samples.covered(samples.skin(size, rng.beta(1.3, 2.2), rng), rng), rng)


def _ruler_on_skin(rng: np.random.Generator, size: int) -> np.ndarray:
    skin = np.clip(samples.skin(size, rng.beta(1.3, 2.2), rng), 0, 1)
    strip = Image.fromarray((skin * 255).astype(np.uint8))
    pen, top = ImageDraw.Draw(strip), rng.uniform(0.1, 0.6)
    _box(pen, (0, top, 1, top + 0.28), size, (238, 238, 232))
    for mark in range(1, 25):
        _box(pen, (mark * 0.04, top, mark * 0.04 + 0.008, top + (0.12 if mark % 5 == 0 else 0.06)), size, (20, 20, 20))
    return samples.exposed(np.asarray(strip, np.float32) / 255, rng)


def _covered_lens(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw what a camera in a pocket sees: nearly black, with the grain of its sensor."""
    return rng.uniform(0.01, 0.06) + rng.uniform(0.005, 0.03) * rng.standard_normal((size, size, 3))


_DRAWERS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "plain colour": _plain,
    "gradient": _gradient,
    "noise": _noise,
    "clouds": _clouds,
    "stripes": _stripes,
    "checkerboard": _checkerboard,
    "dots": _polka,
    "text": _text,
    "house": _house,
    "mug": _mug,
    "car": _car,
    "face": _face,
    "bare skin": _bare_skin,
    "ruler on skin": _ruler_on_skin,
    "covered lens": _covered_lens,
}
KINDS: tuple[str, ...] = tuple(_DRAWERS)


def _axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of every pixel, each from -1 to 1."""
    axis = np.linspace(-1, 1, size)
    return axis[np.newaxis, :], axis[:, np.newaxis]


def _between(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `share` [size, size] in 0..1 as a mixture of two random colours."""
    first, second = rng.uniform(0, 1, (2, 3))
    return first + share[..., np.newaxis] * (second - first)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    return tuple(rng.integers(0, 256, 3).tolist())


def _painted(rng: np.random.Generator, size: int, paint: Callable[[ImageDraw.ImageDraw, int], object]) -> np.ndarray:
    """Return what `paint` draws at twice the resolution, averaged, with the grain of a sensor."""
    canvas = Image.new("RGB", (2 * size, 2 * size), _colour(rng))
    paint(ImageDraw.Draw(canvas), 2 * size)
    return np.asarray(canvas.reduce(2), np.float64) / 255 + rng.uniform(0, 0.03) * rng.standard_normal((size, size, 3))


def _box(pen: ImageDraw.ImageDraw, corners: tuple[float, float, float, float], side: int, colour: tuple[int, int, int]) -> None:
    pen.rectangle([corner * side for corner in corners], fill=colour)


def _disc(pen: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, side: int, colour: tuple[int, int, int]) -> None:
    x, y = centre
    pen.ellipse([(x - radius) * side, (y - radius) * side, (x + radius) * side, (y + radius) * side], fill=colour)
