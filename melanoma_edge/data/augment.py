"""Augmentation as numbers, Augmentor style: each operation has a probability and a range of its own.

In: a pipeline and the place of some samples in an epoch. Out: for each sample one map of coordinates, one
map of colours and what is left (blur, JPEG, erasing), composed from all of its operations. No pixels are
touched here: :mod:`melanoma_edge.data.augment_pixels` does that on the processor and
`melanoma_edge.model.augment_ops` on a GPU, from the same numbers. So a picture is resampled once, however
many operations it gets, and no operation's draws depend on another's settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from melanoma_edge.contract import Augment

OPERATIONS = tuple(Augment.model_fields)
"""The rows of a sample's draws; a new operation goes to the end, so that the others keep their numbers."""
NUMBERS = 8
"""Random numbers of each operation: whether, how strongly (twice), and five more. Two counter steps of Philox 4x64."""
CELLS = 5
"""Cells of the elastic field along a side; it has CELLS + 3 nodes, one beyond each end for the cubic spline."""
GREY = np.array([0.299, 0.587, 0.114])
"""Luma weights of ITU-R BT.601."""

MIN_BLUR = 0.1
"""Standard deviation in pixels below which a Gaussian gives a neighbour less than 1e-21 of a pixel: nothing."""

STAY, TURN, AFFINE, PROJECTIVE, ELASTIC = range(5)
"""What the pixels of a sample need: nothing, flips and quarter turns (exact), or one interpolation."""


@dataclass(frozen=True)
class Drawn:
    """What was drawn for n samples; the same for any size of picture."""

    applied: np.ndarray
    """bool [n, operations]."""
    strength: np.ndarray
    """float64 [n, operations, 2], in each operation's own unit, also where it is not applied; the second is shift's downwards."""
    free: np.ndarray
    """float64 [n, operations, 5] in [0, 1): directions, places and other choices."""
    field: np.ndarray | None
    """float64 [n, 2, CELLS + 3, CELLS + 3] in [-1, 1): x and y of the elastic field's nodes; None without elastic."""

    def __len__(self) -> int:
        return len(self.applied)

    def without(self, samples: np.ndarray) -> Drawn:
        """Return the same draws with nothing applied to `samples` (bool [n])."""
        return Drawn(self.applied & ~samples[:, None], self.strength, self.free, self.field)


@dataclass(frozen=True)
class Composed:
    """The maps of n samples for pictures of one size. Positions are pixel centres: (0, 0) is the first pixel's."""

    height: int
    width: int
    kind: np.ndarray
    """int [n]: STAY, TURN, AFFINE, PROJECTIVE or ELASTIC."""
    flips: np.ndarray
    """bool [n, 2]: left-right, top-bottom."""
    turns: np.ndarray
    """int [n]: quarter turns; an odd number exchanges height and width."""
    geometry: np.ndarray
    """float64 [n, 3, 3]: homogeneous map from output to input positions (x, y, 1); elastic comes before it."""
    nodes: np.ndarray | None
    """float64 [n, 3, CELLS + 3, CELLS + 3]: homogeneous input positions of the spline's nodes ([.., row, column]):
    with elastic, an output position's spline value takes the place of its image under `geometry`."""
    reach: np.ndarray
    """int [n]: how many pixels beyond the picture's edge the geometry looks, at most; 0 for none."""
    coloured: np.ndarray
    """bool [n]: whether colours change at all."""
    pixel: np.ndarray
    """float64 [n, 3, 3]: what a pixel's colour is multiplied by ..."""
    mean: np.ndarray
    """float64 [n, 3, 3]: ... and, added to that, the mean colour of the moved picture. Nothing is clipped in between."""
    about_mean: np.ndarray
    """bool [n]: whether `mean` is needed."""
    blur: np.ndarray
    """float64 [n]: standard deviation in pixels; 0 for none."""
    quality: np.ndarray
    """int [n]: JPEG quality; 0 for none."""
    erase: np.ndarray
    """int [n, 3]: top, left and side of the erased square; side 0 for none."""

    def __len__(self) -> int:
        return len(self.kind)

    def part(self, samples: slice) -> Composed:
        """Return the maps of some of the samples."""
        arrays = {name: value[samples] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)


def draw(pipeline: Augment, key: Sequence[int], first: int, count: int) -> Drawn:
    """Draw for the samples `first` to `first + count - 1` of the sequence `key` (two numbers: seed, epoch).

    A counter-based generator (Philox 4x64-10; Salmon et al., 2011) gives each sample and operation numbers
    of its own: they depend on `key` and the sample's position, not on how samples are cut into batches nor on
    the settings of other operations.
    """
    numbers = uniforms(key, 0, first, count, len(OPERATIONS) * NUMBERS).reshape(count, len(OPERATIONS), NUMBERS)
    probability, low, high = np.array([[o.probability, o.low, o.high] for o in (getattr(pipeline, name) for name in OPERATIONS)]).T
    nodes = CELLS + 3
    field = uniforms(key, 1, first, count, 2 * nodes * nodes).reshape(count, 2, nodes, nodes) * 2 - 1 if pipeline.elastic.probability > 0 else None
    return Drawn(numbers[..., 0] < probability, low[:, None] + numbers[..., 1:3] * (high - low)[:, None], numbers[..., 3:], field)


def compose(drawn: Drawn, height: int, width: int) -> Composed:
    """Return the maps of all samples for pictures of `height` x `width` pixels.

    Operations are composed about the picture's centre. From the output to the picture they stand in this
    order: elastic, flips, quarter turns, rotate, skew, zoom, crop, shear, shift; a picture sees the reverse.
    Colours change in the order brightness, contrast, saturation, hue, illuminant, after the picture
    was moved. "The side" is the shorter one for elastic, blur and erase, the longer one for skew, and each
    axis' own for shift and crop.
    """
    count = len(drawn)
    applied = {name: drawn.applied[:, i] for i, name in enumerate(OPERATIONS)}
    free = {name: drawn.free[:, i] for i, name in enumerate(OPERATIONS)}

    def value(name: str, neutral: float) -> np.ndarray:
        return np.where(applied[name], drawn.strength[:, OPERATIONS.index(name), 0], neutral)

    flips = np.column_stack([applied["flip_left_right"], applied["flip_top_bottom"]])
    turns = np.where(applied["quarter_turn"], 1 + (3 * free["quarter_turn"][:, 0]).astype(int), 0)
    odd = turns % 2 == 1
    side = min(height, width)

    geometry = _identities(count)
    geometry[:, :2, 2] = -np.column_stack([np.where(odd, height - 1, width - 1), np.where(odd, width - 1, height - 1)]) / 2
    geometry[:, :2] *= np.where(flips, -1.0, 1.0)[..., None]
    if turns.any():
        geometry = _rotations(np.array([1.0, 0, -1, 0])[turns], np.array([0, 1.0, 0, -1])[turns]) @ geometry
    if applied["rotate"].any():
        angle = np.radians(value("rotate", 0.0))
        geometry = _rotations(np.cos(angle), np.sin(angle)) @ geometry
    if applied["skew"].any():
        # A plane tilted about a random axis: corners on one side move inwards by about the share.
        direction, tilt = 2 * np.pi * free["skew"][:, 0], 2 * value("skew", 0.0) / max(height, width)
        step = _identities(count)
        step[:, 2, 0], step[:, 2, 1] = tilt * np.cos(direction), tilt * np.sin(direction)
        geometry = step @ geometry
    kept = value("crop", 1.0)
    geometry[:, :2] *= (kept / value("zoom", 1.0))[:, None, None]
    step = _identities(count)
    if applied["crop"].any():
        step[:, :2, 2] = (free["crop"][:, :2] - 0.5) * (1 - kept)[:, None] * (width, height)
    if applied["shear"].any():
        slope, across = np.tan(np.radians(value("shear", 0.0))), free["shear"][:, 0] < 0.5
        shear = _identities(count)
        shear[:, 0, 1], shear[:, 1, 0] = np.where(across, slope, 0), np.where(across, 0, slope)
        step = shear @ step
    if applied["shift"].any():
        step[:, :2, 2] += np.where(applied["shift"][:, None], drawn.strength[:, OPERATIONS.index("shift")] * (width, height), 0.0)
    step[:, :2, 2] += (width - 1) / 2, (height - 1) / 2
    geometry = step @ geometry

    moved = np.logical_or.reduce([applied[name] for name in ("rotate", "zoom", "crop", "shift", "shear")])
    kind = np.where(flips.any(axis=1) | (turns > 0), TURN, STAY)
    kind = np.where(moved, AFFINE, kind)
    kind = np.where(applied["skew"], PROJECTIVE, kind)
    kind = np.where(applied["elastic"], ELASTIC, kind)
    nodes = None
    if drawn.field is not None:
        nodes = _nodes(geometry, drawn.field * (value("elastic", 0.0) * side)[:, None, None, None], odd, height, width)
    reach = _reach(geometry, nodes, kind, odd, height, width)

    pixel, mean = _colours(applied, value, free["illuminant"])
    square = np.where(applied["erase"], np.clip(np.rint(value("erase", 0.0) * side), 1, side), 0)
    room = np.column_stack([np.where(odd, width, height), np.where(odd, height, width)]) - square[:, None] + 1
    return Composed(
        height=height,
        width=width,
        kind=kind,
        flips=flips,
        turns=turns,
        geometry=geometry,
        nodes=nodes,
        reach=reach,
        coloured=np.logical_or.reduce([applied[name] for name in ("brightness", "contrast", "saturation", "hue", "illuminant")]),
        pixel=pixel,
        mean=mean,
        about_mean=applied["contrast"],
        blur=np.where(value("blur", 0.0) * side < MIN_BLUR, 0.0, value("blur", 0.0) * side),
        quality=np.rint(value("jpeg", 0.0)).astype(int),
        erase=np.column_stack([np.floor(free["erase"][:, :2] * room), square]).astype(int),
    )


@lru_cache(maxsize=64)
def spline(size: int) -> np.ndarray:
    """Return the weights (float32 [size, CELLS + 3]) of the nodes at each pixel of a side: uniform cubic B-splines.

    They add up to one and give nodes on a straight line back as that line, so a field of zero changes nothing.
    """
    place = (np.arange(size) + 0.5) / size * CELLS
    cell = np.minimum(place.astype(int), CELLS - 1)
    t = place - cell
    weights = np.zeros((size, CELLS + 3))
    for offset, weight in enumerate([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]):
        weights[np.arange(size), cell + offset] = weight / 6
    weights = weights.astype(np.float32)
    weights.flags.writeable = False
    return weights


def uniforms(key: Sequence[int], stream: int, first: int, count: int, each: int) -> np.ndarray:
    """Return float64 [count, each] in [0, 1): the same rows for the same `key`, `stream` and positions.

    `each` is a multiple of four, the numbers of one counter step.
    """
    start = first * (each // 4)
    counter = np.array([start % 2**64, start >> 64, 0, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64), counter=counter)).random((count, each))


def _nodes(geometry: np.ndarray, moves: np.ndarray, odd: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return where `geometry` sends the spline's nodes after they moved by `moves` pixels (see `Composed.nodes`)."""
    place = np.arange(-1, CELLS + 2) / CELLS
    across = np.where(odd, height, width)[:, None] * place - 0.5
    down = np.where(odd, width, height)[:, None] * place - 0.5
    x = across[:, None, :] + moves[:, 0]
    y = down[:, :, None] + moves[:, 1]
    positions = np.stack([x, y, np.ones_like(x)], axis=1).reshape(len(x), 3, -1)
    return (geometry @ positions).reshape(len(x), 3, *x.shape[1:])


def _reach(geometry: np.ndarray, nodes: np.ndarray | None, kind: np.ndarray, odd: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return `Composed.reach`: from the corners' images, or with elastic from the nodes', whose hull holds the spline."""
    right, bottom = np.where(odd, height, width) - 1.0, np.where(odd, width, height) - 1.0
    none, one = np.zeros(len(kind)), np.ones(len(kind))
    corners = np.array([[none, right, none, right], [none, none, bottom, bottom], [one, one, one, one]]).transpose(2, 0, 1)

    def beyond(images: np.ndarray) -> np.ndarray:
        x, y = images[:, 0] / images[:, 2], images[:, 1] / images[:, 2]
        far = np.max([-x, x - (width - 1), -y, y - (height - 1)], axis=(0, 2))
        return np.where(far > 0, np.ceil(far) + 1, 0)

    reach = beyond(geometry @ corners)
    if nodes is not None:
        reach = np.where(kind == ELASTIC, beyond(nodes.reshape(len(nodes), 3, -1)), reach)
    return reach.astype(int)


def _colours(applied: dict[str, np.ndarray], value, tints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (`Composed.pixel`, `Composed.mean`)."""
    pixel, mean = _identities(len(tints)), np.zeros((len(tints), 3, 3))
    luma, one = np.tile(GREY, (3, 1)), np.eye(3)
    pixel *= value("brightness", 1.0)[:, None, None]
    if applied["contrast"].any():
        factor = value("contrast", 1.0)[:, None, None]
        # The mean that contrast is changed about is the mean of what the pixels are by now.
        pixel, mean = factor * pixel, factor * mean + (1 - factor) * luma @ (pixel + mean)
    if applied["saturation"].any():
        factor = value("saturation", 1.0)[:, None, None]
        step = factor * one + (1 - factor) * luma
        pixel, mean = step @ pixel, step @ mean
    if applied["hue"].any():
        # Rotation about the grey axis (Rodrigues): hue turns, greys stay.
        angle = np.radians(value("hue", 0.0))[:, None, None]
        cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
        step = np.cos(angle) * one + np.sin(angle) * cross + (1 - np.cos(angle)) / 3
        pixel, mean = step @ pixel, step @ mean
    if applied["illuminant"].any():
        gains = 1 + value("illuminant", 0.0)[:, None] * (2 * tints[:, :3] - 1)
        pixel, mean = gains[..., None] * pixel, gains[..., None] * mean
    return pixel, mean


def _identities(count: int) -> np.ndarray:
    return np.broadcast_to(np.eye(3), (count, 3, 3)).copy()


def _rotations(cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    steps = _identities(len(cosine))
    steps[:, 0, 0], steps[:, 0, 1], steps[:, 1, 0], steps[:, 1, 1] = cosine, -sine, sine, cosine
    return steps
