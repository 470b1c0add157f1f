"""The crop and the resize of docs/input-contract.md, written from it alone and without Pillow.

Slow and plain: `melanoma_edge.data.image.to_input` is held equal to it byte for byte.
"""

from __future__ import annotations

import numpy as np


def weights(length: int, size: int) -> list[tuple[int, list[int]]]:
    """Return, for each of `size` outputs, its first input and the 22-bit weights from there on."""
    scale = length / size
    reach = max(scale, 1.0)
    table = []
    for i in range(size):
        centre = (i + 0.5) * scale
        first = max(int(centre - reach + 0.5), 0)
        end = min(int(centre + reach + 0.5), length)
        triangle = [max(1.0 - abs((j - centre + 0.5) * (1.0 / reach)), 0.0) for j in range(first, end)]
        total = 0.0
        for weight in triangle:
            total += weight
        table.append((first, [int(0.5 + weight / total * (1 << 22)) for weight in triangle]))
    return table


def resize_first_axis(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resample the first axis of uint8 `pixels` to `size`."""
    if pixels.shape[0] == size:
        return pixels
    result = np.empty((size, *pixels.shape[1:]), np.uint8)
    for i, (first, row) in enumerate(weights(pixels.shape[0], size)):
        window = pixels[first : first + len(row)].astype(np.int32)
        total = (1 << 21) + np.tensordot(np.asarray(row, np.int32), window, axes=1)
        assert total.dtype == np.int32 and total.min() >= 0
        result[i] = np.minimum(total >> 22, 255)
    return result


def to_input(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the centre square of `pixels` resized to [size, size, 3]: columns first, then rows."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    across = resize_first_axis(square.transpose(1, 0, 2), size).transpose(1, 0, 2)
    return resize_first_axis(across, size)
