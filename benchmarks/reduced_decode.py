"""What a reduced JPEG decode changes: pixels of the network's input, and answers of a trained network.

Test pictures of a run are enlarged to the sizes of photographs (3:4, sensor noise added, JPEG at quality 90), decoded
whole and reduced, and both inputs are compared and classified by the run's int8 TFLite artifact. Enlarged pictures have
less fine structure than photographs, which the noise makes up for only in part: a measurement on real large
photographs is still to be made by who has them.

Run: python benchmarks/reduced_decode.py BUNDLE RUN [PICTURES]
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import common
import numpy as np
from PIL import Image

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.data import image
from melanoma_edge.data.cache import REDUCED_FACTOR
from melanoma_edge.data.split import TEST
from melanoma_edge.model.run import open_run
from melanoma_edge.runtimes import process

WIDTHS = (1000, 2000, 4000)


def main(bundle: str, run: str, count: int = 120) -> None:
    opened, found = open_bundle(Path(bundle)), open_run(Path(run))
    artifact = next(a for a in opened.manifest.artifacts if (a.format, a.precision) == ("tflite", "int8"))
    size = found.recipe.image_size
    rows = found.part(TEST)[:: max(1, len(found.part(TEST)) // count)][:count]
    figures = {"pictures": len(rows), "size": size, "artifact": artifact.name, "sizes": {}}
    for width in WIDTHS:
        inputs = {"full": [], "reduced": []}
        for number, row in enumerate(rows):
            content = photograph(image.decode(Path(found.facts.root) / row.path), width, number)
            for way, at_least in (("full", None), ("reduced", REDUCED_FACTOR * size)):
                inputs[way].append(image.square(image.open_picture(Path(row.path), content, at_least=at_least).image, size))
        whole, reduced = (np.stack(inputs[way]) for way in ("full", "reduced"))
        apart = np.abs(whole.astype(int) - reduced)
        answers = [process.run_logits("litert", opened.path / artifact.path, pictures) for pictures in (whole, reduced)]
        truth = np.array([found.facts.classes.index(row.label) for row in rows])
        figures["sizes"][f"{width} x {width * 3 // 4}"] = {
            "pixels_that_differ": round(float((apart > 0).mean()), 4),
            "mean_difference": round(float(apart.mean()), 3),
            "p99_difference": float(np.percentile(apart, 99)),
            "max_difference": int(apart.max()),
            "top1_flips": int((answers[0].argmax(1) != answers[1].argmax(1)).sum()),
            "right_full": int((answers[0].argmax(1) == truth).sum()),
            "right_reduced": int((answers[1].argmax(1) == truth).sum()),
        }
    common.write("reduced_decode", figures)


def photograph(pixels: np.ndarray, width: int, seed: int) -> bytes:
    """Return a picture as a JPEG of `width` pixels, as a camera might have taken it."""
    height = width * 3 // 4
    square = Image.fromarray(pixels).resize((height, height), Image.Resampling.BICUBIC)
    wide = np.asarray(_beside(square, width), np.float32)
    noise = np.random.default_rng(seed).normal(0, 3, (*wide.shape[:2], 1))
    buffer = io.BytesIO()
    Image.fromarray((wide + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _beside(square: Image.Image, width: int) -> Image.Image:
    """Return `square` in the middle of a picture of `width` pixels, its mirror image on both sides."""
    side, margin = square.size[0], (width - square.size[0]) // 2
    wide = Image.new("RGB", (width, side))
    mirrored = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    wide.paste(mirrored, (margin - side, 0))
    wide.paste(mirrored, (margin + side, 0))
    wide.paste(square, (margin, 0))
    return wide


if __name__ == "__main__":
    main(*sys.argv[1:3], *(int(value) for value in sys.argv[3:4]))
