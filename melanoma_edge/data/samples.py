"""`melanoma-edge samples`: a drawn nine-class set of dermoscopy-like pictures.

They come from a random number generator, not from a patient, so they may be used and passed on
freely: for demonstrations, tests and golden pictures. What a network reaches on them says that
the tools work and nothing about skin.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from melanoma_edge.data.classes import CLASSES
from melanoma_edge.data.lesion_drawing import DRAWERS, EXTENT, draw_lesion, noise
from melanoma_edge.errors import BadInput
from melanoma_edge.files import new_folder, write_text

COLUMNS = ("image_id", "lesion_id", "reference_diagnosis", "reference_source", "copyright_license", "attribution")
"""Of metadata.csv; the last two are called as in the ISIC Archive's."""
SOURCE, LICENCE, ATTRIBUTION = "drawn", "CC-0", "melanoma-edge samples"

MIN_SIZE, MAX_SIZE = 32, 1024

LIGHT_SKIN = (236, 200, 184)
DARK_SKIN = (176, 128, 102)
HAIR = (50, 36, 30)


def write_samples(
    out: Path,
    *,
    per_class: int = 60,
    size: int = 160,
    seed: int = 7,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Draw `per_class` pictures of each class, `size` pixels square, into the new folder `out`.

    One folder a class, `metadata.csv` and a two-line `README.txt`. Every fifth lesion is
    photographed twice, under one lesion id. `progress` gets the pictures written and their total.
    Returns the counts of classes, pictures, lesions and lesions photographed twice. Raises BadInput
    for arguments out of range and for an `out` that exists, unless `force`.
    """
    if per_class < 1:
        raise BadInput(f"{per_class} pictures a class: expected 1 or more; give another --per-class")
    check_size(size)
    if seed < 0:
        raise BadInput(f"the seed is {seed}: expected 0 or more; give another --seed")
    rows: list[tuple[str, ...]] = []
    lesions = 0
    with new_folder(out, force=force, mark="README.txt") as folder:
        for class_index, name in enumerate(CLASSES):
            (folder / name).mkdir()
            for lesion, photograph in _photographs(per_class):
                lesions += photograph == 0
                row = (f"SAMPLE_{len(rows):06d}", f"LESION_{lesions - 1:05d}", name, SOURCE, LICENCE, ATTRIBUTION)
                picture = draw(name, size, (seed, class_index, lesion), photograph=photograph)
                Image.fromarray(picture).save(folder / name / f"{row[0]}.png", compress_level=4)
                rows.append(row)
                if progress is not None:
                    progress(len(rows), per_class * len(CLASSES))
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([COLUMNS, *rows])
        write_text(folder / "metadata.csv", table.getvalue())
        write_text(
            folder / "README.txt",
            f"Drawn by melanoma-edge samples (seed {seed}): no photograph, no patient; says nothing about skin.\n"
            "Public domain: CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/\n",
        )
    return {"classes": len(CLASSES), "pictures": len(rows), "lesions": lesions, "lesions_photographed_twice": len(rows) - lesions}


def draw(class_name: str, size: int, seed: int | Sequence[int], *, photograph: int = 0) -> np.ndarray:
    """Return a picture uint8 [size, size, 3] of a lesion of `class_name`; the arguments decide every pixel.

    `seed` decides the lesion and the tone of the skin around it. `photograph` numbers the
    photographs of that lesion, which differ in position, rotation, light and hairs. Raises
    BadInput for an unknown class and a size out of range.
    """
    if class_name not in DRAWERS:
        raise BadInput(f"no class is called {class_name!r}: expected one of {', '.join(CLASSES)}; give one of these")
    check_size(size)
    keys = (0, 1 + photograph)
    lesion_rng, photo_rng = (np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,))) for key in keys)
    tone = lesion_rng.beta(1.3, 2.2)
    lesion = _placed(draw_lesion(class_name, size, lesion_rng), photo_rng)
    picture = skin(size, tone, photo_rng)
    picture = picture * (1.0 - lesion[..., 3:]) + lesion[..., :3]
    # The grain of the skin goes on through the lesion.
    picture *= 1.0 + 0.018 * noise(photo_rng, size, 55)[..., None]
    picture = covered(picture, photo_rng)
    blur = size / 160 * photo_rng.uniform(0.2, 0.9)
    picture = exposed(ndimage.gaussian_filter(picture, (blur, blur, 0), truncate=3.0), photo_rng)
    return (np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _photographs(count: int) -> Iterator[tuple[int, int]]:
    """Yield `count` pairs of lesion and photograph; of every five lesions, one has two photographs."""
    for index in range(count):
        five, place = divmod(index, 6)
        yield 5 * five + (0, 1, 1, 2, 3, 4)[place], int(place == 2)


def check_size(size: int) -> None:
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise BadInput(f"pictures of {size} pixels: expected {MIN_SIZE} to {MAX_SIZE}; give another --size")


def skin(size: int, tone: float, rng: np.random.Generator) -> np.ndarray:
    """Return bare skin float32 [size, size, 3] in 0..1; `tone` goes from light (0) to dark (1)."""
    colour = (np.array(LIGHT_SKIN) * (1 - tone) + np.array(DARK_SKIN) * tone + rng.normal(0, 5, 3)) / 255.0
    # The zero crossings of noise are connected lines, like the furrows of skin.
    furrows = np.abs(noise(rng, size, 22)) + np.abs(noise(rng, size, 22))
    light = 1.0 + 0.02 * noise(rng, size, 5) + 0.012 * np.minimum(furrows, 2.0)
    redness = rng.uniform(0.005, 0.03) * noise(rng, size, 9)
    return (light[..., None] * colour * (1.0 - redness[..., None] * np.array([0.2, 1.0, 0.9]))).astype(np.float32)


def _placed(layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the lesion layer [size, size, 4] turned, scaled and moved to its place in the photograph."""
    size = len(layer)
    radius = rng.uniform(0.22, 0.38)  # of the lesion, as a share of the picture's side
    angle = rng.uniform(0, 2 * np.pi)
    left, top = (0.5 + rng.uniform(-0.09, 0.09, 2)) * size
    # The transform goes from a pixel of the photograph to one of the layer.
    cosine, sine = np.array([np.cos(angle), np.sin(angle)]) / (2 * EXTENT * radius)
    matrix = (cosine, sine, size / 2 - cosine * left - sine * top, -sine, cosine, size / 2 + sine * left - cosine * top)
    channels = [Image.fromarray(channel) for channel in np.ascontiguousarray(np.moveaxis(layer, -1, 0))]
    placed = [c.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR) for c in channels]
    return np.stack([np.asarray(channel) for channel in placed], -1)


def covered(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `picture` [size, size, 3] with hairs, a ruler and gas bubbles over it, each now and then."""
    side = 2 * len(picture)
    thin = side / 160
    dark, bright = (Image.new("L", (side, side)) for _ in range(2))
    if rng.random() < 0.45:
        pen = ImageDraw.Draw(dark)
        direction = rng.uniform(0, 2 * np.pi)
        t = np.linspace(0, 1, 12)[:, None]
        for _ in range(rng.integers(1, 14)):
            start = rng.uniform(0, 1, 2)
            angle = direction + rng.normal(0, 0.6)
            run = rng.uniform(0.3, 0.9) * np.array([np.cos(angle), np.sin(angle)])
            bow = rng.normal(0, 0.5) * np.array([-run[1], run[0]])
            curve = (start + (t - 0.5) * run + t * (1 - t) * bow) * side
            width = max(1, round(thin * rng.uniform(0.6, 1.4)))
            pen.line([tuple(point) for point in curve], fill=int(rng.integers(150, 255)), width=width, joint="curve")
    if rng.random() < 0.08:
        pen = ImageDraw.Draw(dark)
        for mark in range(30):
            x, length = (0.03 + mark * 0.033) * side, (0.035 if mark % 5 else 0.06) * side
            pen.line([(x, side - length), (x, side)], fill=200, width=max(1, round(thin)))
    if rng.random() < 0.15:
        pen = ImageDraw.Draw(bright)
        for x, y, radius in rng.uniform((0, 0, 0.01), (1, 1, 0.04), (rng.integers(1, 7), 3)) * side:
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], outline=110, width=max(1, round(thin)))
            pen.ellipse([x - radius * 0.6, y - radius * 0.6, x - radius * 0.1, y - radius * 0.1], fill=200)
    hair = np.array(HAIR, np.float32) / 255.0 * np.float32(rng.uniform(0.6, 1.5))
    for cover, colour in ((dark, hair), (bright, np.float32(1.0))):
        mask = np.asarray(cover.reduce(2), np.float32)[..., None] / 255.0
        picture = picture + mask * (colour - picture)
    return picture


def exposed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `picture` [size, size, 3] under uneven light, through a dermatoscope, on a noisy sensor."""
    axis = np.linspace(-1, 1, len(picture), dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    distance = np.hypot(x, y)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1.0 + rng.uniform(0, 0.12) * (x * np.cos(angle) + y * np.sin(angle)) - rng.uniform(0, 0.14) * distance**2
    if rng.random() < 0.25:  # the round field of a dermatoscope
        light = light * np.clip((rng.uniform(1.0, 1.25) - distance) / 0.06, 0.03, 1.0)
    gain = rng.normal(1.0, 0.07) * (1.0 + rng.normal(0, 0.035, 3))
    grain = rng.uniform(0.004, 0.018) * rng.standard_normal(picture.shape, dtype=np.float32)
    return picture * light[..., None] * gain.astype(np.float32) + grain
