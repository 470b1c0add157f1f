"""Where runs are when nobody says: runs/ below the current folder.

In: that folder. Out: the path of a new run, of the one to go on with, or of the drawn samples that training without data uses.
"""

from __future__ import annotations

from pathlib import Path

from melanoma_edge.contract import Recipe
from melanoma_edge.errors import BadInput
from melanoma_edge.model import run as runs
from melanoma_edge.model.workers import cluster

RUNS = Path("runs")


def next_run(recipe: Recipe, folder: Path = RUNS) -> Path:
    """Return the first free folder of the form runs/NAME-N."""
    number = 1
    while (folder / f"{recipe.name}-{number}").exists():
        number += 1
    return folder / f"{recipe.name}-{number}"


def newest_interrupted(folder: Path = RUNS) -> Path:
    """Return the interrupted run, or folder of folds, below `folder` that was worked on last; raises BadInput when there is none.

    For a worker that is not the chief, which reads no run, any path will do.
    """
    workers = cluster()
    if workers and workers.number:
        return folder / "of-the-chief"
    found = [file for name in (runs.RUN_FILE, runs.FOLDS_FILE) for file in Path(folder).glob(f"*/{name}")]
    found = [file for file in found if runs.says(file, '"state": "training"')]
    if not found:
        raise BadInput(f"there is no interrupted run below {folder}/: name it with --out, or start one with `melanoma-edge train`")
    return max(found, key=lambda file: file.stat().st_mtime).parent


def default_samples(folder: Path = RUNS, progress=lambda line: None) -> Path:
    """Return the folder of drawn samples that training without data uses, drawing them the first time."""
    from melanoma_edge.data.samples import write_samples

    target = Path(folder) / "samples"
    if not target.exists():
        progress(f"drawing samples into {target}")
        write_samples(target)
    return target
