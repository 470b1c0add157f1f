"""The golden set: drawn pictures with which any device can show that it computes the same.

In: a folder and an input size. Out: PNG files of several shapes, so that crop and resize are tried
too, and what the input contract makes of them. They are drawn, never photographs of patients.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_edge.convert.bundle import GoldenPicture
from melanoma_edge.data import image, samples

SHAPES = ((160, 160), (150, 200), (200, 150), (97, 131), (240, 180), (180, 240))
"""(height, width) of the drawn pictures in turn: square, wide, tall and odd."""
SEED = 20_240_607


def write_golden(folder: Path, size: int) -> tuple[list[GoldenPicture], np.ndarray]:
    """Write the golden pictures below `folder`/golden and return them with their network inputs.

    One drawn picture of each class of the samples, one black, one white and one of noise; inputs are
    uint8 [pictures, size, size, 3].
    """
    (folder / "golden").mkdir()
    pictures, inputs = [], []
    for number, pixels in enumerate(_draw()):
        name = f"golden/{number:02d}.png"
        Image.fromarray(pixels).save(folder / name, optimize=True)
        network_input = image.load(folder / name, size)
        pictures.append(GoldenPicture(file=name, input_sha256=input_hash(network_input)))
        inputs.append(network_input)
    return pictures, np.stack(inputs)


def input_hash(network_input: np.ndarray) -> str:
    """Return the SHA-256 over the raw bytes of a network input, uint8 [size, size, 3]."""
    return hashlib.sha256(np.ascontiguousarray(network_input).tobytes()).hexdigest()


def _draw():
    for number, name in enumerate(samples.CLASSES):
        height, width = SHAPES[number % len(SHAPES)]
        square = samples.draw(name, max(height, width), (SEED, number))
        yield np.ascontiguousarray(square[:height, :width])
    yield np.zeros((64, 64, 3), np.uint8)
    yield np.full((64, 64, 3), 255, np.uint8)
    yield np.random.default_rng(SEED).integers(0, 256, (64, 96, 3)).astype(np.uint8)
