"""Augmentation alone against Augmentor 0.2.12, from the same pictures in memory, with two threads each.

Eight operations, each applied to every picture: rotation, flip, zoom, shear, skew, brightness, contrast and colour
(saturation). Ours is the training feed without a network behind it. Augmentor lives in an environment of its own
that this program makes, and interpolates bilinearly too (it is told to: its own bicubic is measured beside it).
Elastic distortion is measured apart. Rounds of all in turn, so that a noisy machine disturbs them alike; a ratio
is one of a round's. Target: at least three times Augmentor's pictures a second.

Run: python benchmarks/augment_speed.py [ROUNDS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np

from melanoma_edge.contract import Augment, Operation, Recipe
from melanoma_edge.data import feed
from melanoma_edge.data.samples import CLASSES, draw

SIZE, PICTURES, THREADS = 180, 256, 2

EIGHT = Augment(
    rotate=Operation(probability=1.0, low=-25.0, high=25.0),
    flip_left_right=Operation(probability=1.0),
    zoom=Operation(probability=1.0, low=1.1, high=1.5),
    shear=Operation(probability=1.0, low=-15.0, high=15.0),
    skew=Operation(probability=1.0, low=0.0, high=0.2),
    brightness=Operation(probability=1.0, low=0.75, high=1.25),
    contrast=Operation(probability=1.0, low=0.75, high=1.25),
    saturation=Operation(probability=1.0, low=0.75, high=1.25),
)
PIPELINES = {"eight operations": EIGHT, "elastic": Augment(elastic=Operation(probability=1.0, low=0.0, high=0.08))}

THEIRS = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from PIL import Image
import Augmentor

def eight():
    p = Augmentor.Pipeline()
    p.rotate(1, max_left_rotation=25, max_right_rotation=25)
    p.flip_left_right(1)
    p.zoom(1, min_factor=1.1, max_factor=1.5)
    p.shear(1, max_shear_left=15, max_shear_right=15)
    p.skew(1, magnitude=0.2)
    p.random_brightness(1, min_factor=0.75, max_factor=1.25)
    p.random_contrast(1, min_factor=0.75, max_factor=1.25)
    p.random_color(1, min_factor=0.75, max_factor=1.25)
    return p

def elastic():
    p = Augmentor.Pipeline()
    p.random_distortion(1, grid_width=5, grid_height=5, magnitude=8)
    return p

pictures = np.load(sys.argv[1])
pipelines = {"eight operations": eight(), "elastic": elastic()}
bicubic = Image.BICUBIC
with ThreadPoolExecutor(int(sys.argv[2])) as pool:
    for line in sys.stdin:
        name, interpolation = line.strip().split(",")
        Image.BICUBIC = Image.BILINEAR if interpolation == "bilinear" else bicubic
        started = time.perf_counter()
        shapes = {changed.shape for changed in pool.map(pipelines[name]._execute_with_array, pictures)}
        print(len(pictures) / (time.perf_counter() - started), *shapes, sep=";", flush=True)
"""


def main(rounds: int = 10) -> None:
    python = common.augmentor()
    pictures = np.stack([draw(CLASSES[i % len(CLASSES)], SIZE, i) for i in range(PICTURES)])
    feed.WORKERS = THREADS
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "pictures.npy", pictures)
        command = [python, "-c", THEIRS, Path(folder) / "pictures.npy", str(THREADS)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:

            def theirs(name: str, interpolation: str) -> float:
                other.stdin.write(f"{name},{interpolation}\n")
                other.stdin.flush()
                speed, shape = other.stdout.readline().strip().split(";")
                assert shape == str((SIZE, SIZE, 3)), shape
                return float(speed)

            speeds: dict[str, dict[str, list[float]]] = {name: {"ours": [], "augmentor": [], "augmentor, bicubic": []} for name in PIPELINES}
            for number in range(rounds + 1):
                for name, found in speeds.items():
                    row = _ours(pictures, name, number), theirs(name, "bilinear"), theirs(name, "bicubic")
                    if number:  # the first round warms up
                        for values, speed in zip(found.values(), row):
                            values.append(speed)
            other.stdin.close()
    figures = {"size": SIZE, "pictures_a_round": PICTURES, "rounds": rounds, "threads": THREADS, "augmentor": common.AUGMENTOR[0]}
    for name, found in speeds.items():
        key = name.replace(" ", "_")
        ratios = [ours / theirs for ours, theirs in zip(found["ours"], found["augmentor"])]
        figures |= {
            f"{key}_images_per_second": {who: round(statistics.median(values), 1) for who, values in found.items()},
            f"{key}_ratio_median": round(statistics.median(ratios), 2),
            f"{key}_ratios": [round(ratio, 2) for ratio in ratios],
        }
    common.write("augment_speed", figures, {"eight_operations_ratio_median": ">= 3"})


def _ours(pictures: np.ndarray, name: str, epoch: int) -> float:
    recipe = Recipe(name="speed", rebalance="none", image_size=SIZE, batch_size=32, augment=PIPELINES[name])
    labels = np.arange(len(pictures)) % len(CLASSES)
    started = time.perf_counter()
    done = sum(len(batch) for batch, _ in feed.batches(pictures, labels, recipe, epoch))
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:2]))
