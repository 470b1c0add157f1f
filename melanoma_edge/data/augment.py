"""Augmentation, Augmentor style: each operation has a probability and a range of its own.

In: pictures as uint8 arrays and a pipeline. Out: changed copies. All geometric operations of a picture
are composed into one projective map and all colour operations into one affine colour map, so a picture
is resampled and rounded once each, however many operations it gets.
"""

from __future__ import annotations

import numpy as np

from melanoma_edge.contract import Augment, Operation

GREY = np.array([0.299, 0.587, 0.114])
"""Luma weights of ITU-R BT.601."""


def augment(picture: np.ndarray, pipeline: Augment, rng: np.random.Generator) -> np.ndarray:
    """Return an augmented copy of `picture` (uint8 [size, size, 3]), drawn from `rng`.

    Outside the picture its mirror image continues it, so no black corners appear.
    """
    import cv2

    size = picture.shape[0]
    geometry = geometric_map(pipeline, size, rng)
    if geometry is not None:
        picture = cv2.warpPerspective(
            picture, geometry, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
        )
    colour = colour_map(pipeline, np.asarray(cv2.mean(picture)[:3]), rng)
    if colour is not None:
        picture = cv2.transform(picture, colour)
    chance = rng.random(4)
    side = _strength(pipeline.erase, chance)
    if side is not None:
        picture = _erase(picture, max(1, round(side * size)), chance[2:])
    return np.array(picture, order="C")  # a copy even where nothing was applied


def geometric_map(pipeline: Augment, size: int, rng: np.random.Generator) -> np.ndarray | None:
    """Return the composed map from output to input pixel coordinates (float64 [3, 3]), None for none.

    Operations are composed about the picture's centre, in the order of the pipeline's fields.
    """
    # A row for each operation, drawn whether it is applied or not: the settings of one leave the others' draws alone.
    left_right, top_bottom, quarter, rotate, zoom, shift, shear, skew = rng.random((8, 4))
    maps = []
    if _strength(pipeline.flip_left_right, left_right) is not None:
        maps.append(np.diag([-1.0, 1.0, 1.0]))
    if _strength(pipeline.flip_top_bottom, top_bottom) is not None:
        maps.append(np.diag([1.0, -1.0, 1.0]))
    if _strength(pipeline.quarter_turn, quarter) is not None:
        maps.append(_rotation(90.0 * (1 + int(3 * quarter[2]))))
    if (angle := _strength(pipeline.rotate, rotate)) is not None:
        maps.append(_rotation(angle))
    if (factor := _strength(pipeline.zoom, zoom)) is not None:
        maps.append(np.diag([1 / factor, 1 / factor, 1.0]))
    if (across := _strength(pipeline.shift, shift)) is not None:
        down = _between(pipeline.shift, shift[2])
        maps.append(np.array([[1.0, 0, across * size], [0, 1.0, down * size], [0, 0, 1.0]]))
    if (degrees := _strength(pipeline.shear, shear)) is not None:
        slope = np.tan(np.radians(degrees))
        right, down = (slope, 0) if shear[2] < 0.5 else (0, slope)
        maps.append(np.array([[1.0, right, 0], [down, 1.0, 0], [0, 0, 1.0]]))
    if (share := _strength(pipeline.skew, skew)) is not None:
        # A plane tilted about a random axis: corners on one side move inwards by about `share`.
        direction = 2 * np.pi * skew[2]
        tilt = 2 * share / size
        maps.append(np.array([[1.0, 0, 0], [0, 1.0, 0], [tilt * np.cos(direction), tilt * np.sin(direction), 1.0]]))
    if not maps:
        return None
    centre = (size - 1) / 2
    to_centre = np.array([[1.0, 0, -centre], [0, 1.0, -centre], [0, 0, 1.0]])
    back = np.array([[1.0, 0, centre], [0, 1.0, centre], [0, 0, 1.0]])
    composed = to_centre
    for step in maps:
        composed = step @ composed
    return back @ composed


def colour_map(pipeline: Augment, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Return the composed colour map (float64 [3, 4]: out = m[:, :3] @ rgb + m[:, 3]), None for none.

    `mean` is the picture's mean colour (float64 [3], 0..255), about which contrast is changed.
    """
    brightness, contrast, saturation, hue, illuminant = rng.random((5, 5))
    matrix, offset, changed = np.eye(3), np.zeros(3), False

    def compose(step: np.ndarray, bias: np.ndarray | float = 0.0) -> None:
        nonlocal matrix, offset, changed
        matrix, offset, changed = step @ matrix, step @ offset + bias, True

    if (factor := _strength(pipeline.brightness, brightness)) is not None:
        compose(np.eye(3) * factor)
    if (factor := _strength(pipeline.contrast, contrast)) is not None:
        now = matrix @ mean + offset
        compose(np.eye(3) * factor, (1 - factor) * (GREY @ now))
    if (factor := _strength(pipeline.saturation, saturation)) is not None:
        compose(factor * np.eye(3) + (1 - factor) * np.tile(GREY, (3, 1)))
    if (angle := _strength(pipeline.hue, hue)) is not None:
        compose(_hue_rotation(angle))
    if (gain := _strength(pipeline.illuminant, illuminant)) is not None:
        compose(np.diag(1 + gain * (2 * illuminant[2:] - 1)))
    return np.column_stack([matrix, offset]) if changed else None


def _strength(operation: Operation, draws: np.ndarray) -> float | None:
    """Return how strongly an operation is applied, None for not at all, from two numbers in [0, 1)."""
    return _between(operation, draws[1]) if draws[0] < operation.probability else None


def _between(operation: Operation, position: float) -> float:
    return operation.low + position * (operation.high - operation.low)


def _rotation(degrees: float) -> np.ndarray:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])


def _hue_rotation(degrees: float) -> np.ndarray:
    """Return the rotation about the grey axis (Rodrigues): hue turns, greys stay."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return cosine * np.eye(3) + sine * cross + (1 - cosine) * np.outer(axis, axis)


def _erase(picture: np.ndarray, side: int, place: np.ndarray) -> np.ndarray:
    """Return a copy with a square of `side` pixels replaced by the picture's mean colour.

    `place` is two numbers in [0, 1): where the square lies between top and bottom, left and right.
    """
    import cv2

    top, left = (place * (max(0, len(picture) - side) + 1)).astype(int)
    picture = picture.copy()
    picture[top : top + side, left : left + side] = np.rint(cv2.mean(picture)[:3])
    return picture
