"""The report's pictures: what the network got right and wrong on the test part, and where it found its answer.

In: a run and what its network says about the test part. Out: a few pictures of each kind, as data: URIs. A picture is shown
only where its file is still that of the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_edge import calibration
from melanoma_edge.data import image
from melanoma_edge.model import run as runs
from melanoma_edge.proof import page
from melanoma_edge.proof.report_data import Gap, TestPart

EXAMPLES = 8
"""Pictures of each kind, right and wrong."""
SIDE = 300
"""Of an example, in pixels."""
VEIL = 0.55
"""How much of a picture's own colours the map covers."""


@dataclass(frozen=True)
class Example:
    """One picture of the test part, and what the network says about it."""

    path: str
    truth: str
    predicted: str
    probability: float
    truth_probability: float
    abstains: bool
    picture: str | None
    """data: URI; None where the picture is not to be had."""
    attention: str | None
    """data: URI of the same picture under its map of what spoke for the answer; None where there is no map or picture."""
    missing: str | None


def gather(run: runs.Run, test: TestPart, progress: Callable[[str], None]) -> dict:
    """Return the pictures that the network got right and wrong, and why pictures or maps are missing."""
    progress("reading examples")
    sure = test.probabilities.max(axis=1)
    correct = test.predicted == test.labels
    wrong = sorted(np.flatnonzero(~correct), key=lambda i: (-sure[i], test.rows[i].path))[:EXAMPLES]
    folder = Path(run.facts.root)
    here = folder.is_dir()
    maps = _maps(run, test)

    def shown(chosen) -> list[Example]:
        return [_example(test, i, folder if here else None, None if isinstance(maps, Gap) else maps[i]) for i in chosen]

    return {
        "gone": None if here else f"The pictures are not shown: the data folder {folder} is not here. Their paths and probabilities are.",
        "maps": maps if isinstance(maps, Gap) else None,
        "right": shown(_typical(test, sure, correct)),
        "wrong": shown(wrong),
        "mistakes": int((~correct).sum()),
        "pictures": len(test.rows),
    }


def overlay(pixels: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Return `pixels` (uint8 [side, side, 3]) in grey under `attention` (uint8 [rows, columns]) in colour, uint8 of the same shape.

    Dark violet is 0, yellow 255 (matplotlib's inferno, whose lightness rises evenly); the cells are smoothed into each other.
    """
    from matplotlib import colormaps

    side = (pixels.shape[1], pixels.shape[0])
    smooth = np.asarray(Image.fromarray(attention).resize(side, Image.Resampling.BICUBIC))
    grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float64)[..., None]
    return np.rint((1 - VEIL) * grey + VEIL * colormaps["inferno"](smooth, bytes=True)[..., :3]).astype(np.uint8)


def _maps(run: runs.Run, test: TestPart) -> np.ndarray | Gap:
    """Return the map of each picture of the test part (uint8 [n, rows, columns])."""
    maps = run.saliency().get(test.which)
    if maps is None or maps.ndim != 3 or len(maps) != len(test.rows):
        return Gap(f"What spoke for each answer is not shown: the run holds no maps of its test part ({runs.SALIENCY_FILE}); training writes them")
    return maps


def _typical(test: TestPart, sure: np.ndarray, correct: np.ndarray) -> list[int]:
    """Return up to EXAMPLES correct pictures, classes in turn, those of middling confidence first."""
    queues = []
    for index in range(len(test.classes)):
        mine = np.flatnonzero(correct & (test.labels == index))
        middle = np.median(sure[mine]) if len(mine) else 0.0
        queues.append(sorted(mine, key=lambda i: (abs(sure[i] - middle), test.rows[i].path)))
    turns = [queue[turn] for turn in range(EXAMPLES) for queue in queues if turn < len(queue)]
    return turns[:EXAMPLES]


def _example(test: TestPart, index: int, folder: Path | None, attention: np.ndarray | None) -> Example:
    """Return one picture with its truth and prediction; it is shown only when its file is that of the run."""
    row = test.rows[index]
    picture = veiled = missing = None
    if folder is not None:
        try:
            content = image.read(folder / row.path)
            if hashlib.sha256(content).hexdigest() == row.sha256:
                pixels = image.square(image.open_picture(folder / row.path, content).image, SIDE)
                picture = page.shown(pixels, SIDE)
                veiled = None if attention is None else page.shown(overlay(pixels, attention), SIDE)
            else:
                missing = "changed since the run was trained"
        except image.UnreadableImage:
            missing = "not here, or not readable"
    sure = test.probabilities[index]
    top = int(test.predicted[index])
    abstains = not calibration.answers(test.decision.abstention, test.probabilities[[index]], test.logits[[index]])[0]
    truth = float(sure[test.labels[index]])
    return Example(row.path, row.label, test.classes[top], float(sure[top]), truth, abstains, picture, veiled, missing or "not here")
