"""Pictures that people give with a model of theirs: to calibrate int8 on, and to fit and score decisions on.

In: a data set, or for calibration a plain folder of pictures. Out: network inputs, and a record of which files were used.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melanoma_edge.contract import Calibration, Fitting, Recipe
from melanoma_edge.data import representative
from melanoma_edge.data.cache import prepare
from melanoma_edge.data.copies import fingerprints
from melanoma_edge.data.decoding import Facts
from melanoma_edge.data.index import Progress
from melanoma_edge.data.sources import read_listing
from melanoma_edge.data.sources.files import list_files
from melanoma_edge.data.sources.folders import folder_names
from melanoma_edge.data.split import assign
from melanoma_edge.errors import BadInput
from melanoma_edge.proof.labelled import Labelled, load_labelled, seen_keys

SEED = 7
"""Of the draw of pictures to calibrate on."""


@dataclass(frozen=True)
class Drawn:
    """Pictures that were drawn to calibrate on."""

    inputs: np.ndarray
    """uint8 [n, size, size, 3]."""
    record: Calibration
    keys: frozenset[str]
    """What they are known again by."""


@dataclass(frozen=True)
class Halves:
    """Labelled pictures in two halves that share no lesion and no copy."""

    found: Labelled
    fitting: np.ndarray
    """bool [n]: decisions are fitted on these."""
    scoring: np.ndarray
    """bool [n]: scores are theirs."""
    record: Fitting

    @property
    def keys(self) -> frozenset[str]:
        """What the fitting half is known again by."""
        return frozenset().union(*(keys for keys, used in zip(self.found.keys, self.fitting) if used))


def draw_calibration(data: Path, size: int, *, cache: Path | None = None, progress: Progress | None = None) -> Drawn:
    """Draw pictures of `data`, classes in turn (:func:`melanoma_edge.data.representative.choose`).

    `data` is a data set of any kind, or a folder of pictures without classes. Names and order of files decide nothing.
    Raises BadInput where no picture can be read.
    """
    root, paths, labels = _listed(Path(data))
    prepared = prepare([root / path for path in paths], size=size, cache=cache, progress=progress)
    readable = [position for position, facts in enumerate(prepared.facts) if isinstance(facts, Facts)]
    if not readable:
        raise BadInput(f"{data} holds no readable picture to calibrate on ({len(paths)} files): expected pictures such as the model will see")
    chosen = representative.choose([prepared.facts[position].sha256 for position in readable], [labels[position] for position in readable], SEED)
    hashes = [prepared.facts[readable[row]].sha256 for row in chosen]
    names = [labels[readable[row]] for row in chosen]
    views = prepared.views[[readable[row] for row in chosen]]
    keys = frozenset(key for sha256, print_ in zip(hashes, fingerprints(views[:, 0], views[:, 1])) for key in seen_keys(sha256, "", print_))
    record = representative.record(hashes, names)
    if not any(names):
        record = record.model_copy(update={"per_class": {}})
    return Drawn(prepared.pixels[chosen], record, keys)


def load_halves(
    data: Path,
    classes: tuple[str, ...],
    policy: Recipe,
    size: int,
    calibrated: frozenset[str],
    *,
    metadata: Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Halves:
    """Read the labelled pictures of `data` and cut them into two halves by lesion and copies, evenly in every class.

    Fitted and scored on the same pictures, figures would flatter. Pictures that int8 was calibrated on (`calibrated`), with
    their copies, go to the fitting half. The cut follows from the files' contents. Raises BadInput where a half would be empty.
    """
    found = load_labelled(data, classes, policy, calibrated, size=size, metadata=metadata, cache=cache, progress=progress)
    _, groups = np.unique(found.groups, return_inverse=True)
    names = [""] * (groups.max() + 1)
    for group, sha256 in zip(groups, found.hashes):
        names[group] = min(names[group] or sha256, sha256)
    half = assign(found.labels, groups, names, 2, "fitting and scoring")
    fitting = (half == 0) | found.seen
    if not fitting.any() or fitting.all():
        raise BadInput(
            f"{data} holds {len(names)} lesions ({int(found.seen.sum())} of {len(groups)} pictures were calibrated on): expected enough for one half to fit decisions on and "
            "another to score; give more labelled pictures, or leave --data out"
        )
    counts = np.bincount(found.labels[fitting], minlength=len(classes))
    record = Fitting(
        pictures=int(fitting.sum()),
        per_class=dict(zip(classes, counts.tolist())),
        sha256=_together([sha256 for sha256, used in zip(found.hashes, fitting) if used]),
        held_back=int((~fitting).sum()),
    )
    return Halves(found, fitting, ~fitting, record)


def _listed(data: Path) -> tuple[Path, list[str], list[str]]:
    """Return (folder, paths, classes) of a data set; of a folder without classes, "" for each."""
    if data.is_dir():
        files = list_files(data)
        if files.pictures and not folder_names(files):
            try:
                listing = read_listing(data)
            except BadInput:
                return data, list(files.pictures), [""] * len(files.pictures)
            return listing.root, [entry.path for entry in listing.entries], [entry.label for entry in listing.entries]
    listing = read_listing(data)
    return listing.root, [entry.path for entry in listing.entries], [entry.label for entry in listing.entries]


def _together(hashes: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
