"""The model of folds.json: what all folds of a data set come to together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from melanoma_edge import NOTICE
from melanoma_edge.contract import Across, ClassName, Computation, Model, Recipe, Scores, Sha256

FOLDS_SCHEMA_VERSION = 1


class FoldRun(Model):
    """One fold: a complete run, trained without the pictures of its test part."""

    fold: int
    run: str
    """Folder of the run beside folds.json, for example `fold-0`."""
    pictures: dict[str, int]
    """Pictures of each part."""
    absent_from_test: tuple[ClassName, ...]
    """Classes without a picture in this fold's test part: they have fewer groups than there are folds."""
    data_sha256: Sha256
    """Over the hashes, labels and parts of all pictures used, as in the run."""
    weights: dict[str, Sha256]
    """SHA-256 of the run's weight files."""
    seconds: float
    """Wall time of its training."""
    scores: dict[Literal["float", "qat"], Scores]
    """On its own test part, as in the run."""


class FoldsFacts(Model):
    """folds.json: what all folds of a data set were made from, and have come to."""

    schema_version: Literal[1] = 1
    notice: str = NOTICE
    state: Literal["training", "complete"]
    command: str
    data: str
    """The data set as it was named, absolute: a folder or an index table."""
    metadata: str | None
    """The metadata CSV where one was named, absolute."""
    licences: tuple[str, ...]
    """The only licences that were asked for; empty for any."""
    data_sha256: Sha256
    """Over the hashes, labels and groups of all pictures used: from it and the recipe the parts of every fold follow."""
    recipe: Recipe
    """Of all folds; `fold` is 0 here and each fold's own number in its run."""
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)]
    pictures: int
    """Used, and so tested once each."""
    groups: int
    """Groups of them that are never split: patients, lesions, copies."""
    runs: tuple[FoldRun, ...]
    """The folds that are complete, in their order."""
    networks: dict[Literal["float", "qat"], Across]
    """Empty until all folds are complete."""
    conditions: dict[str, Any]
    """Versions, CPU and so on of the machine (see :mod:`melanoma_edge.host`)."""
    computation: Computation | None = None
    """How training was computed when it began (each run holds its own); null in folders of versions that did not write it."""
