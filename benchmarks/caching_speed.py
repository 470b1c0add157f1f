"""Filling the cache from 12-megapixel JPEGs, against plain Pillow opening and resizing them in one process.

500 files of 4000 x 3000 pixels (25 scenes of drawn lesions with sensor noise, each under 20 hashes) are read in five
rounds by each way in turn: Pillow's open and resize in a loop (and open, convert to RGB and resize, as most programs have it); the cache with its full decode (the input
contract, hashing, views for the search for copies and writing to disk included); and the cache with its reduced
decode. Targets on 2 cores: 1.8 and 4 times Pillow's pictures a second.

Run: python benchmarks/caching_speed.py [FILES]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
from PIL import Image

from melanoma_edge.data.cache import prepare
from melanoma_edge.data.samples import CLASSES, draw

WIDTH, HEIGHT, SIZE, SCENES, ROUNDS = 4000, 3000, 180, 25, 5


def main(count: int = 500) -> None:
    with tempfile.TemporaryDirectory(prefix="melanoma-edge-") as folder:
        files = write_photographs(Path(folder), count)
        each = count // ROUNDS
        seconds: dict[str, list[float]] = {"pillow": [], "pillow_convert": [], "full": [], "reduced": []}
        plain(files[:2])
        for number in range(ROUNDS):
            chunk = files[number * each : (number + 1) * each]
            for way, run in (("pillow", plain), ("pillow_convert", converted), ("full", cached("full", folder, number)), ("reduced", cached("reduced", folder, number))):
                started = time.perf_counter()
                run(chunk)
                seconds[way].append(time.perf_counter() - started)
        megabytes = sum(file.stat().st_size for file in files) / count / 1e6
    rates = {way: each * ROUNDS / sum(spent) for way, spent in seconds.items()}
    ratios = {way: [plain_ / mine for plain_, mine in zip(seconds["pillow"], seconds[way])] for way in ("full", "reduced")}
    over_convert = statistics.median(plain_ / mine for plain_, mine in zip(seconds["pillow_convert"], seconds["full"]))
    figures = {
        "files": each * ROUNDS,
        "megapixels": WIDTH * HEIGHT / 1e6,
        "megabytes_a_file": round(megabytes, 2),
        "size": SIZE,
        **{f"{way}_pictures_per_second": round(rate, 1) for way, rate in rates.items()},
        **{f"{way}_to_pillow": round(statistics.median(found), 2) for way, found in ratios.items()},
        "full_to_pillow_convert": round(over_convert, 2),
        **{f"{way}_to_pillow_rounds": [round(ratio, 2) for ratio in found] for way, found in ratios.items()},
    }
    common.write("caching_speed", figures, {"full_to_pillow": ">= 1.8", "reduced_to_pillow": ">= 4"})


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Write `count` JPEGs of 12 megapixels that all have other bytes, and return their paths."""
    rng = np.random.default_rng(1)
    grain = rng.normal(0, 3, (HEIGHT, WIDTH, 1)).astype(np.float32)
    files = []
    for scene in range(min(SCENES, count)):
        small = Image.fromarray(draw(CLASSES[scene % len(CLASSES)], 1024, (3, scene)))
        picture = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32) + np.roll(grain, scene * 97, axis=1)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / "scene.jpg", quality=90)
        content = (folder / "scene.jpg").read_bytes()
        for number in range(scene, count, SCENES):
            files.append(folder / f"{number:04d}.jpg")
            files[-1].write_bytes(content + number.to_bytes(2, "big"))  # what follows the picture is not decoded
    return sorted(files)


def plain(files: list[Path]) -> None:
    for file in files:
        with Image.open(file) as picture:
            np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def converted(files: list[Path]) -> None:
    for file in files:
        with Image.open(file) as picture:
            np.asarray(picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def cached(decode, folder: str, number: int):
    return lambda files: prepare(files, size=SIZE, decode=decode, cache=Path(folder) / f"cache-{decode}-{number}", workers=2)


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:2]))
