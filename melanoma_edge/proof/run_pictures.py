"""The pictures of a run that an export needs: those held out, and those that post-training quantization calibrates on.

In: a run and the folder of its pictures. Out: network inputs with what is known of them; every file is the one that the run was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from melanoma_edge.contract import Calibration
from melanoma_edge.data import image, representative
from melanoma_edge.data.split import TEST, TRAIN, VALIDATION
from melanoma_edge.errors import BadInput
from melanoma_edge.model import run as runs
from melanoma_edge.proof.verify import Pictures

Progress = Callable[[str], None]


def held_out(run: runs.Run, data: Path) -> Pictures:
    """Decode the run's validation and test pictures; raises BadInput where one is missing or changed."""
    rows = [*run.part(VALIDATION), *run.part(TEST)]
    unseen = np.array([row.part == TEST for row in rows])
    return Pictures(
        description=f"{held_out_parts(run)} pictures of {data.name}",
        inputs=_read(run, data, rows),
        names=tuple(row.path for row in rows),
        labels=np.array([run.facts.classes.index(row.label) for row in rows]),
        groups=np.array([row.group for row in rows]),
        unseen=unseen,
        account={"used": len(rows), "seen_in_training": int((~unseen).sum()), "unseen": int(unseen.sum())},
    )


def held_out_parts(run: runs.Run) -> str:
    """Return the names of the parts that :func:`held_out` reads, in words."""
    return "validation and test" if run.tested else "validation"


def representatives(run: runs.Run, data: Path, progress: Progress) -> tuple[np.ndarray, Calibration]:
    """Choose and decode the training pictures that post-training quantization calibrates on; raises as :func:`held_out` does."""
    rows = run.part(TRAIN)
    chosen = [rows[position] for position in representative.choose([row.sha256 for row in rows], [row.label for row in rows], run.recipe.seed)]
    progress(f"reading {len(chosen)} training pictures to calibrate on")
    known = representative.record([row.sha256 for row in chosen], [row.label for row in chosen])
    return representative.with_whole_range(_read(run, data, chosen)), known


def _read(run: runs.Run, data: Path, rows: Sequence[runs.SplitRow]) -> np.ndarray:
    """Decode pictures of the run, uint8 [n, size, size, 3]; raises BadInput where one is missing or changed."""
    inputs = []
    for row in rows:
        try:
            content = image.read(data / row.path)
            picture = image.open_picture(data / row.path, content).image
        except image.UnreadableImage as error:
            raise BadInput(f"{error}; the run {run.path} calibrates on it: restore it, or name the folder with --data DIR") from None
        if hashlib.sha256(content).hexdigest() != row.sha256:
            raise BadInput(f"{data / row.path} changed since the run was trained: restore it, or train again")
        inputs.append(image.square(picture, run.recipe.image_size))
    return np.stack(inputs)
