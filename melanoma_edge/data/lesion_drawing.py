"""Drawing one lesion, class by class, in a frame of its own.

Lengths are in lesion radii, colours are sRGB in 0..255, masks and layers are float32 in 0..1. Every
structure is described by its size relative to the lesion, so a lesion looks alike at any resolution.
The classes share outlines, colours and structures on purpose: each parameter is drawn from ranges
that overlap with those of the look-alike classes, and the telling structure of a class is missing
from some of its lesions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

EXTENT = 1.7
"""A layer reaches from -EXTENT to EXTENT lesion radii in x and y."""

Colour = tuple[float, float, float]
Line = tuple[np.ndarray, float]
"""Points [n, 2] and a width."""

BLACK: Colour = (42, 32, 34)
DARK_BROWN: Colour = (88, 56, 42)
BROWN: Colour = (134, 88, 62)
LIGHT_BROWN: Colour = (176, 128, 94)
YELLOW: Colour = (222, 190, 130)
WHITE: Colour = (240, 222, 214)
PINK: Colour = (218, 150, 142)
RED: Colour = (188, 78, 74)
BLOOD: Colour = (126, 24, 34)
PURPLE: Colour = (92, 38, 74)
BLUE_GREY: Colour = (112, 110, 122)


def step(value: np.ndarray, softness: float) -> np.ndarray:
    """Return a smooth 0..1 step of `value` that is a half at 0 and rises over about `softness`."""
    t = np.clip(value / softness + 0.5, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def noise(rng: np.random.Generator, side: int, cells: float) -> np.ndarray:
    """Return smooth noise [side, side] of mean 0 and deviation 1 with about `cells` blobs a side."""
    lattice = rng.standard_normal((round(cells) + 3,) * 2, dtype=np.float32)
    box = (1, 1, 1 + cells, 1 + cells)
    field = np.asarray(Image.fromarray(lattice).resize((side, side), Image.Resampling.BICUBIC, box=box))
    # Interpolation averages neighbours, which makes the deviation smaller by about this factor.
    return (field - lattice.mean()) * (1.3 / lattice.std())


def tint(rng: np.random.Generator, colour: Colour) -> np.ndarray:
    """Return `colour` [3] in 0..1, varied in lightness and a little in each channel."""
    factor = 1.0 + rng.normal(0.0, 0.07) + rng.normal(0.0, 0.07 / 3, 3)
    return np.clip(np.asarray(colour) * factor / 255.0, 0.0, 1.0).astype(np.float32)


class Layer:
    """A transparent square in a lesion's frame, on which its structures are painted one by one."""

    def __init__(self, side: int, rng: np.random.Generator) -> None:
        self.side = side
        self.rng = rng
        axis = np.linspace(-EXTENT, EXTENT, side, dtype=np.float32)
        self.x, self.y = np.meshgrid(axis, axis)
        self.rgba = np.zeros((side, side, 4), np.float32)
        """Premultiplied by alpha."""

    def chance(self, probability: float) -> bool:
        """Return True with `probability`."""
        return self.rng.random() < probability

    def between(self, low: float, high: float) -> float:
        """Return a number from `low` to `high`, each as likely."""
        return float(self.rng.uniform(low, high))

    def count(self, low: int, high: int) -> int:
        """Return a whole number from `low` up to but not including `high`, each as likely."""
        return int(self.rng.integers(low, high))

    def either(self, *options: tuple[Colour, float]) -> Colour:
        """Return one of the colours of `options`, drawn with the probability that stands beside it."""
        colours, probabilities = zip(*options)
        return colours[self.rng.choice(len(colours), p=probabilities)]

    def noise(self, size: float) -> np.ndarray:
        """Return noise [side, side] with blobs of about `size` lesion radii."""
        return noise(self.rng, self.side, 2 * EXTENT / size)

    def paint(self, colour: Colour, mask: np.ndarray) -> None:
        """Lay a variation of `colour` over the layer where `mask` [side, side] says so."""
        mask = mask[..., None]
        self.rgba += mask * (np.append(tint(self.rng, colour), np.float32(1.0)) - self.rgba)

    def shade(self, field: np.ndarray) -> None:
        """Make what is painted lighter (positive) or darker by the factor 1 + `field` [side, side]."""
        self.rgba[..., :3] *= np.clip(1.0 + field, 0.0, None)[..., None]

    def outline(self, irregular: float, stretch: float, rough: float = 0.0) -> np.ndarray:
        """Return the depth [side, side] inside a random outline: 1 at the centre, 0 on it, then negative.

        `irregular` moves the outline by that share of the radius in a few lobes, `rough` in fine
        notches; `stretch` is the ratio of the axes.
        """
        order = np.arange(2, 8)[:, None]
        weight = self.rng.normal(0.0, 1.0, order.shape) / order**1.4
        turn = np.linspace(-np.pi, np.pi, 257)
        radius = 1.0 + irregular * 2.0 * (weight * np.cos(order * turn + self.rng.uniform(0, 2 * np.pi, order.shape))).sum(0)
        x, y = self.x * stretch**0.5, self.y / stretch**0.5
        rim = np.interp(np.arctan2(y, x), turn, np.clip(radius, 0.45, 1.4)).astype(np.float32)
        depth = 1.0 - np.hypot(x, y) / rim
        return depth + rough * self.noise(0.18) if rough else depth

    def blotch(self, size: float, cover: float, softness: float = 0.5) -> np.ndarray:
        """Return a mask [side, side] of soft blobs of `size` that cover about the share `cover`."""
        return step(self.noise(size) - 1.35 * (1.0 - 2.0 * cover), softness)

    def scatter(self, count: int, near: float = 0.0, far: float = 0.85) -> np.ndarray:
        """Return `count` points [count, 2] at `near` to `far` radii from the centre."""
        angle = self.rng.uniform(0, 2 * np.pi, count)
        distance = np.sqrt(self.rng.uniform(near**2, far**2, count))
        return np.stack([distance * np.cos(angle), distance * np.sin(angle)], 1)

    def spots(self, centres: np.ndarray, low: float, high: float) -> np.ndarray:
        """Return the mask [side, side] of ovals at `centres` [n, 2] with radii from `low` to `high`.

        Each has its own opacity; their edges are soft.
        """
        radii = self.rng.uniform(low, high, (len(centres), 2))
        radii[:, 1] = radii[:, 0] * self.rng.uniform(0.75, 1.25, len(centres))
        image, scale = self._canvas()
        pen = ImageDraw.Draw(image)
        for centre, radius in zip((centres + EXTENT) * scale, radii * scale):
            pen.ellipse([*(centre - radius), *(centre + radius)], fill=int(self.rng.integers(150, 256)))
        return ndimage.gaussian_filter(self._mask(image), 0.15 * low * scale, truncate=2.5)

    def strokes(self, lines: Iterable[Line]) -> np.ndarray:
        """Return the mask [side, side] of `lines`."""
        image, scale = self._canvas()
        pen = ImageDraw.Draw(image)
        for points, width in lines:
            corners = [tuple(point) for point in (points + EXTENT) * scale]
            pen.line(corners, fill=255, width=max(1, round(width * scale)), joint="curve")
        return self._mask(image)

    def bend(self) -> None:
        """Displace all that is painted a little, so that nothing keeps the shape of a ruler or compass."""
        scale = self.side / (2 * EXTENT)
        rows, columns = np.indices((self.side, self.side), np.float32)
        rows += scale * (0.04 * self.noise(0.7) + 0.008 * self.noise(0.13))
        columns += scale * (0.04 * self.noise(0.7) + 0.008 * self.noise(0.13))
        for channel in range(4):
            self.rgba[..., channel] = ndimage.map_coordinates(self.rgba[..., channel], (rows, columns), order=1)

    def _canvas(self) -> tuple[Image.Image, float]:
        """Return an empty mask at twice the resolution and its pixels per lesion radius."""
        return Image.new("L", (2 * self.side, 2 * self.side)), self.side / EXTENT

    def _mask(self, image: Image.Image) -> np.ndarray:
        """Return such a mask, averaged to the resolution of the layer, in 0..1."""
        return np.asarray(image.reduce(2), np.float32) / 255.0

    def network(self, period: float, wobble: float) -> np.ndarray:
        """Return a honeycomb [side, side] with cells of `period`: 1 on its lines, 0 in its holes.

        `wobble` bends it: 0.1 leaves a regular mesh, 0.5 an irregular one.
        """
        x = self.x + wobble * period * self.noise(0.5)
        y = self.y + wobble * period * self.noise(0.5)
        # Three waves at 120 degrees: their sum peaks on a triangular lattice and is low in between.
        angles = self.between(0, 2) + np.arange(3) * (2 * np.pi / 3)
        total = sum(np.cos((2 * np.pi / period) * (x * np.cos(angle) + y * np.sin(angle))) for angle in angles)
        return step(-0.2 - total, 2.0) * np.clip(0.75 + 0.3 * self.noise(0.6), 0.2, 1.0)

    def ridges(self, period: float, wobble: float) -> np.ndarray:
        """Return winding parallel lines [side, side] `period` apart, 1 on the lines."""
        angle = self.between(0, 2 * np.pi)
        along = self.x * np.cos(angle) + self.y * np.sin(angle) + wobble * self.noise(0.7)
        return (0.5 + 0.5 * np.cos((2 * np.pi / period) * along)) * np.clip(0.6 + 0.4 * self.noise(0.5), 0.0, 1.0)

    def branch(self, start: np.ndarray, angle: float, length: float, width: float, forks: int) -> list[Line]:
        """Return the lines of a vessel that starts at `start` [2] and forks `forks` times."""
        course = angle + np.cumsum(self.rng.normal(0.0, 0.3, 7))
        points = start + np.cumsum(np.stack([np.cos(course), np.sin(course)], 1) * (length / 7), 0)
        lines = [(np.concatenate([start[None], points]), width)]
        if forks:
            for side in (-1, 1):
                origin = points[self.count(2, 7)]
                turn = course[-1] + side * self.between(0.4, 0.9)
                lines += self.branch(origin, turn, length * self.between(0.5, 0.8), width * 0.7, forks - 1)
        return lines

    def vessels(self, count: int, width: float, forks: int) -> np.ndarray:
        """Return the mask [side, side] of `count` forking vessels that run from the rim inwards."""
        lines = []
        for start in self.scatter(count, 0.6, 1.05):
            inwards = float(np.arctan2(-start[1], -start[0]))
            lines += self.branch(start, inwards + self.between(-0.8, 0.8), 0.8, width, forks)
        return self.strokes(lines)

    def coils(self, count: int, near: float, far: float) -> np.ndarray:
        """Return the mask [side, side] of `count` small coiled vessels, `near` to `far` from the centre."""
        turn = np.linspace(0, 9.0, 14)[:, None]
        lines = []
        for centre in self.scatter(count, near, far):
            radius = self.between(0.03, 0.06)
            spiral = radius * (0.3 + turn / 9.0) * np.concatenate([np.cos(turn), np.sin(turn)], 1)
            lines.append((centre + spiral, 0.022))
        return self.strokes(lines)


def _actinic_keratosis(layer: Layer) -> None:
    between, chance = layer.between, layer.chance
    depth = layer.outline(between(0.08, 0.2), between(1.0, 1.5), 0.08)
    body = step(depth, between(0.5, 0.9))
    layer.paint(PINK if chance(0.45) else RED, body * between(0.4, 0.75))
    if chance(0.85):  # "strawberry": red mesh around pale follicles
        mesh = layer.network(between(0.2, 0.32), between(0.15, 0.4))
        layer.paint(RED, body * mesh * between(0.35, 0.7))
        layer.paint(YELLOW if chance(0.5) else WHITE, body * (1 - mesh) ** 3 * between(0.3, 0.7))
    if chance(0.35):
        layer.paint(LIGHT_BROWN, body * layer.blotch(0.7, 0.35) * between(0.3, 0.6))
    if chance(0.75):
        scale = layer.blotch(between(0.12, 0.3), between(0.12, 0.3), between(0.5, 1.0))
        layer.paint(WHITE, scale * body * between(0.4, 0.8))


def _basal_cell_carcinoma(layer: Layer) -> None:
    between, chance = layer.between, layer.chance
    depth = layer.outline(between(0.05, 0.2), between(1.0, 1.45), between(0.0, 0.04))
    body = step(depth, between(0.1, 0.5))
    layer.paint(PINK, body * between(0.5, 0.9))
    layer.paint(WHITE, body * layer.blotch(0.6, 0.35, 1.0) * between(0.2, 0.6))
    if chance(0.88):  # ovoid nests
        nests = layer.spots(layer.scatter(layer.count(2, 9), 0.15, 0.85), 0.07, 0.22)
        layer.paint(BLUE_GREY if chance(0.75) else BROWN, nests * between(0.5, 0.9))
    if chance(0.25):
        ulcer = step(layer.outline(0.2, 1.2) - between(0.6, 0.75), 0.15)
        layer.paint(BLOOD if chance(0.5) else RED, ulcer * between(0.5, 0.9))
    if chance(0.85):  # arborizing vessels
        tree = layer.vessels(layer.count(2, 6), between(0.03, 0.055), 2)
        layer.paint(RED if chance(0.6) else BLOOD, tree * between(0.5, 0.9))


def _dermatofibroma(layer: Layer) -> None:
    between, chance = layer.between, layer.chance
    depth = layer.outline(between(0.02, 0.1), between(1.0, 1.3))
    body = step(depth, between(0.35, 0.8))
    layer.paint(layer.either((LIGHT_BROWN, 0.6), (BROWN, 0.24), (PINK, 0.16)), body * between(0.5, 0.85))
    if chance(0.8):  # delicate network at the rim
        mesh = layer.network(between(0.13, 0.2), 0.15) * step(0.55 - depth, 0.3)
        layer.paint(BROWN, mesh * body * between(0.3, 0.65))
    if chance(0.88):  # scar-like centre
        centre = step(layer.outline(between(0.05, 0.2), between(1.0, 1.4)) - between(0.45, 0.7), between(0.2, 0.45))
        layer.paint(WHITE, centre * between(0.5, 0.95))
        if chance(0.4):
            layer.paint(PINK, centre * layer.blotch(0.3, 0.4) * 0.5)


def _melanoma(layer: Layer) -> None:
    between, chance = layer.between, layer.chance
    depth = layer.outline(between(0.08, 0.3), between(1.0, 1.5), between(0.0, 0.06))
    body = step(depth, between(0.1, 0.45))
    layer.paint(BROWN if chance(0.6) else DARK_BROWN, body * between(0.75, 0.97))
    if chance(0.7):
        mesh = layer.network(between(0.16, 0.26), between(0.3, 0.6)) * layer.blotch(0.9, 0.55)
        layer.paint(DARK_BROWN, mesh * body * between(0.4, 0.8))
    for colour, probability in ((BLACK, 0.8), (LIGHT_BROWN, 0.5), (RED, 0.3), (BLUE_GREY, 0.75), (WHITE, 0.3)):
        if chance(probability):
            blotch = layer.blotch(between(0.5, 1.0), between(0.15, 0.35), between(0.8, 1.6))
            layer.paint(colour, blotch * body * between(0.4, 0.85))
    if chance(0.55):  # streaks on a part of the rim
        lines = []
        for angle in between(0, 2 * np.pi) + layer.rng.uniform(0, between(1.0, 3.0), layer.count(8, 18)):
            ray = np.array([np.cos(angle), np.sin(angle)])
            lines.append((np.stack([ray * 0.7, ray * between(0.98, 1.25)]), between(0.03, 0.07)))
        layer.paint(DARK_BROWN, layer.strokes(lines) * between(0.5, 0.9))
    if chance(0.6):
        dots = layer.spots(layer.scatter(layer.count(6, 22), 0.2, 0.95), 0.02, 0.08)
        layer.paint(BLACK, dots * body * between(0.5, 0.9))


def _nevus(layer: Layer) -> None:
    between, chance = layer.between, layer.chance
    depth = layer.outline(between(0.02, 0.14), between(1.0, 1.4), between(0.0, 0.03))
    body = step(depth, between(0.12, 0.6))
    layer.paint(layer.either((BROWN, 0.7), (LIGHT_BROWN, 0.15), (DARK_BROWN, 0.15)), body * between(0.65, 0.95))
    layer.paint(DARK_BROWN if chance(0.75) else PINK, step(depth - between(0.3, 0.6), 0.7) * between(0.2, 0.6))
    if chance(0.65):
        layer.paint(DARK_BROWN, layer.network(between(0.13, 0.22), between(0.05, 0.25)) * body * between(0.4, 0.8))
    elif chance(0.8):
        globules = layer.spots(layer.scatter(layer.count(30, 70), 0.0, 0.92), 0.03, 0.06)
        layer.paint(DARK_BROWN, globules * body * between(0.4, 0.8))
    if chance(0.12):  # atypical
        layer.paint(BLACK if chance(0.5) else BLUE_GREY, body * layer.blotch(0.7, 0.25, 0.7) * between(0.3, 0.6))


def _pigmented_benign_keratosis(layer: Layer) -> None:
    between, chance = layer.between, layer.chance
    depth = layer.outline(between(0.05, 0.18), between(1.0, 1.5), between(0.0, 0.04))
    if chance(0.7):  # moth-eaten: bites out of the border
        bites = layer.spots(layer.scatter(layer.count(5, 12), 0.9, 1.1), 0.1, 0.22)
        depth = depth - between(0.3, 0.6) * bites
    body = step(depth, between(0.05, 0.16))
    layer.paint(LIGHT_BROWN if chance(0.7) else BROWN, body * between(0.55, 0.95))
    if chance(0.85):  # fingerprint
        ridges = layer.ridges(between(0.11, 0.18), between(0.06, 0.14))
        layer.paint(BROWN if chance(0.7) else DARK_BROWN, ridges * body * between(0.3, 0.7))
    if chance(0.4):
        layer.paint(BROWN, body * layer.blotch(0.6, 0.35, 0.8) * between(0.3, 0.6))
    if chance(0.2):
        layer.paint(WHITE, layer.spots(layer.scatter(layer.count(2, 6)), 0.03, 0.06) * between(0.4, 0.7))


def _seborrheic_keratosis(layer: Layer) -> None:
    between, chance = layer.between, layer.chance
    depth = layer.outline(between(0.03, 0.15), between(1.0, 1.5), between(0.0, 0.03))
    body = step(depth, between(0.05, 0.15))
    layer.paint(layer.either((BROWN, 0.5), (LIGHT_BROWN, 0.3), (DARK_BROWN, 0.2)), body * between(0.75, 0.98))
    second = layer.either((BLUE_GREY, 0.3), (YELLOW, 0.35), (DARK_BROWN, 0.35))
    layer.paint(second, body * layer.blotch(0.5, 0.4, 1.0) * between(0.2, 0.5))
    if chance(0.3):
        layer.paint(DARK_BROWN, layer.ridges(between(0.18, 0.3), between(0.1, 0.2)) * body * between(0.2, 0.5))
    layer.paint(BLACK, step(0.12 - np.abs(depth - 0.06), 0.1) * body * between(0.0, 0.3))  # raised rim
    if chance(0.85):  # milia-like cysts
        layer.paint(WHITE, layer.spots(layer.scatter(layer.count(5, 22)), 0.03, 0.08) * body * between(0.5, 0.9))
    if chance(0.85):  # comedo-like openings
        layer.paint(BLACK, layer.spots(layer.scatter(layer.count(5, 20)), 0.03, 0.1) * body * between(0.5, 0.9))


def _squamous_cell_carcinoma(layer: Layer) -> None:
    between, chance = layer.between, layer.chance
    depth = layer.outline(between(0.08, 0.22), between(1.0, 1.45), between(0.02, 0.07))
    body = step(depth, between(0.15, 0.6))
    layer.paint(RED if chance(0.6) else PINK, body * between(0.55, 0.9))
    masses = layer.blotch(between(0.35, 0.7), between(0.2, 0.45), between(0.6, 1.2))
    layer.paint(WHITE, masses * body * between(0.4, 0.8))
    if chance(0.75):
        layer.paint(RED if chance(0.4) else BLOOD, layer.coils(layer.count(16, 34), 0.45, 0.95) * between(0.5, 0.9))
    if chance(0.88):  # keratin
        plug = step(layer.outline(between(0.1, 0.25), between(1.0, 1.5), 0.05) - between(0.4, 0.65), between(0.1, 0.3))
        layer.paint(YELLOW, plug * between(0.6, 0.95))
        layer.shade(plug * 0.07 * layer.noise(0.12))
    if chance(0.65):  # blood spots
        layer.paint(BLOOD, layer.spots(layer.scatter(layer.count(3, 9), 0.0, 0.7), 0.03, 0.11) * between(0.6, 0.95))


def _vascular_lesion(layer: Layer) -> None:
    between, chance = layer.between, layer.chance
    depth = layer.outline(between(0.03, 0.16), between(1.0, 1.4))
    body = step(depth, between(0.06, 0.35))
    layer.paint(layer.either((RED, 0.6), (PURPLE, 0.2), (PINK, 0.2)), body * between(0.45, 0.9))
    if chance(0.9):  # lacunae
        for colour in (BLOOD, PURPLE if chance(0.6) else BLOOD):
            lacunae = layer.spots(layer.scatter(layer.count(6, 16), 0.0, 0.8), 0.1, 0.24)
            layer.paint(colour, lacunae * body * between(0.5, 0.9))
    if chance(0.3):
        layer.paint(BLACK, body * layer.blotch(0.6, 0.25, 0.6) * between(0.4, 0.8))
    if chance(0.35):
        layer.paint(WHITE, body * layer.blotch(0.7, 0.25, 0.9) * between(0.2, 0.5))


def _chance_findings(layer: Layer) -> None:
    """Add what any lesion may show, whatever its class: the reason why no single sign decides."""
    between, chance = layer.between, layer.chance
    inside = step(0.85 - np.hypot(layer.x, layer.y), 0.5)
    if chance(0.08):
        layer.paint(DARK_BROWN, layer.spots(layer.scatter(layer.count(3, 12)), 0.02, 0.07) * between(0.4, 0.8))
    if chance(0.08):
        layer.paint(WHITE, layer.spots(layer.scatter(layer.count(3, 10)), 0.02, 0.06) * between(0.4, 0.8))
    if chance(0.08):
        layer.paint(RED, layer.vessels(layer.count(1, 4), 0.025, 1) * between(0.3, 0.6))
    if chance(0.08):
        layer.paint(BROWN, layer.network(between(0.13, 0.24), between(0.1, 0.4)) * inside * between(0.2, 0.5))
    if chance(0.14):
        colour = layer.either((RED, 0.25), (WHITE, 0.25), (BROWN, 0.25), (BLUE_GREY, 0.25))
        layer.paint(colour, inside * layer.blotch(0.8, 0.3, 1.2) * between(0.2, 0.5))


DRAWERS: dict[str, Callable[[Layer], None]] = {
    "actinic keratosis": _actinic_keratosis,
    "basal cell carcinoma": _basal_cell_carcinoma,
    "dermatofibroma": _dermatofibroma,
    "melanoma": _melanoma,
    "nevus": _nevus,
    "pigmented benign keratosis": _pigmented_benign_keratosis,
    "seborrheic keratosis": _seborrheic_keratosis,
    "squamous cell carcinoma": _squamous_cell_carcinoma,
    "vascular lesion": _vascular_lesion,
}


def draw_lesion(class_name: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """Return a lesion as float32 [side, side, 4]: RGB premultiplied by alpha, and alpha, in 0..1."""
    layer = Layer(side, rng)
    DRAWERS[class_name](layer)
    _chance_findings(layer)
    layer.shade(0.05 * layer.noise(0.35) + 0.03 * layer.noise(0.08))
    layer.bend()
    # Nothing reaches the rim of the layer, or it would show as a straight cut in the photograph.
    layer.rgba *= step(0.94 - np.maximum(np.abs(layer.x), np.abs(layer.y)) / EXTENT, 0.08)[..., None]
    return layer.rgba
