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
    side = _strength(pipeline.erase, rng)
    if side is not None:
        picture = _erase(picture, max(1, round(side * size)), rng)
    return np.array(picture, order="C")  # a copy even where nothing was applied


def geometric_map(pipeline: Augment, size: int, rng: np.random.Generator) -> np.ndarray | None:
    """Return the composed map from output to input pixel coordinates (float64 [3, 3]), None for none.

    Operations are composed about the picture's centre, in the order of the pipeline's fields.
    """
    maps = []
    if _strength(pipeline.flip_left_right, rng) is not None:
        maps.append(np.diag([-1.0, 1.0, 1.0]))
    if _strength(pipeline.flip_top_bottom, rng) is not None:
        maps.append(np.diag([1.0, -1.0, 1.0]))
    if _strength(pipeline.quarter_turn, rng) is not None:
        maps.append(_rotation(90.0 * rng.integers(1, 4)))
    if (angle := _strength(pipeline.rotate, rng)) is not None:
        maps.append(_rotation(angle))
    if (factor := _strength(pipeline.zoom, rng)) is not None:
        maps.append(np.diag([1 / factor, 1 / factor, 1.0]))
    if (shift := _strength(pipeline.shift, rng)) is not None:
        other = rng.uniform(pipeline.shift.low, pipeline.shift.high)
        maps.append(np.array([[1.0, 0, shift * size], [0, 1.0, other * size], [0, 0, 1.0]]))
    if (shear := _strength(pipeline.shear, rng)) is not None:
        slope = np.tan(np.radians(shear))
        across = rng.random() < 0.5
        maps.append(np.array([[1.0, slope if across else 0, 0], [0 if across else slope, 1.0, 0], [0, 0, 1.0]]))
    if (skew := _strength(pipeline.skew, rng)) is not None:
        # A plane tilted about a random axis: corners on one side move inwards by about `skew`.
        direction = rng.uniform(0, 2 * np.pi)
        tilt = 2 * skew / size
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
    matrix, offset, changed = np.eye(3), np.zeros(3), False

    def compose(step: np.ndarray, bias: np.ndarray | float = 0.0) -> None:
        nonlocal matrix, offset, changed
        matrix, offset, changed = step @ matrix, step @ offset + bias, True

    if (factor := _strength(pipeline.brightness, rng)) is not None:
        compose(np.eye(3) * factor)
    if (factor := _strength(pipeline.contrast, rng)) is not None:
        now = matrix @ mean + offset
        compose(np.eye(3) * factor, (1 - factor) * (GREY @ now))
    if (factor := _strength(pipeline.saturation, rng)) is not None:
        compose(factor * np.eye(3) + (1 - factor) * np.tile(GREY, (3, 1)))
    if (angle := _strength(pipeline.hue, rng)) is not None:
        compose(_hue_rotation(angle))
    if (gain := _strength(pipeline.illuminant, rng)) is not None:
        compose(np.diag(1 + gain * rng.uniform(-1, 1, 3)))
    return np.column_stack([matrix, offset]) if changed else None


def _strength(operation: Operation, rng: np.random.Generator) -> float | None:
    """Draw whether and how strongly an operation is applied; None for not at all.

    The same number of draws is made either way, so one operation's settings leave the others' alone.
    """
    chance, position = rng.random(2)
    return operation.low + position * (operation.high - operation.low) if chance < operation.probability else None


def _rotation(degrees: float) -> np.ndarray:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])


def _hue_rotation(degrees: float) -> np.ndarray:
    """Return the rotation about the grey axis (Rodrigues): hue turns, greys stay."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return cosine * np.eye(3) + sine * cross + (1 - cosine) * np.outer(axis, axis)


def _erase(picture: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Return a copy with a square of `side` pixels replaced by the picture's mean colour."""
    size = picture.shape[0]
    top, left = rng.integers(0, max(1, size - side + 1), 2)
    picture = picture.copy()
    picture[top : top + side, left : left + side] = picture.reshape(-1, 3).mean(axis=0)
    return picture
