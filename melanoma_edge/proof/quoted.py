"""A cross-validation that is quoted: reading one, and holding it to the run that it is to speak for.

In: a cross-validation.json and a run. Out: what it holds, or one line that says why it says nothing of that run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from melanoma_edge import recipes
from melanoma_edge.contract import CROSS_VALIDATION_SCHEMA_VERSION, CrossValidation
from melanoma_edge.data.split import grouped_hash
from melanoma_edge.errors import BadInput
from melanoma_edge.files import read_json
from melanoma_edge.model import run as runs

FREE = ("name", "description", "folds", "fold")
"""Keys of a recipe that do not change what is learnt from a picture: its names, and which part of the data is held back."""


def read_cross_validation(path: Path) -> CrossValidation:
    """Return what the file `path` holds; raises BadInput when it is none, damaged or of a newer schema version."""
    raw = read_json(path, "what `melanoma-edge export` writes for a folder of folds")
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > CROSS_VALIDATION_SCHEMA_VERSION:
        raise BadInput(f"{path} has schema version {version}: this melanoma-edge reads up to {CROSS_VALIDATION_SCHEMA_VERSION}; upgrade with `pip install --upgrade melanoma-edge`")
    try:
        return CrossValidation.model_validate_json(json.dumps(raw))
    except (ValidationError, ValueError) as error:
        why = recipes.explain(error) if isinstance(error, ValidationError) else str(error)
        raise BadInput(f"{path} is not valid: {why}; export the folds again") from None


def refuse_other(found: CrossValidation, path: Path, run: runs.Run) -> None:
    """Raise BadInput where the cross-validation `found` in the file `path` says nothing of `run`: another recipe, other classes or other pictures."""
    ours, theirs = run.recipe.model_dump(), found.recipe.model_dump()
    for key in ours:
        if key not in FREE and ours[key] != theirs[key]:
            where = [key]
            if key != "deployment_prior" and isinstance(ours[key], dict):  # that one is a word or a table, of whatever classes: it is told as a whole
                where.append(next(name for name in ours[key] if ours[key][name] != theirs[key][name]))
            raise BadInput(f"{path} is of another recipe than the run {run.path}: {_differs(where, theirs, ours)}; cross-validate the run's own recipe with `melanoma-edge train --folds`")
    if found.classes != run.facts.classes:
        raise BadInput(f"{path} is of other classes than the run {run.path} ({', '.join(found.classes)}; the run: {', '.join(run.facts.classes)}): cross-validate on the same pictures")
    if found.data_sha256 != (ours_sha256 := grouped_hash(run.split, [row.group for row in run.split])):
        raise BadInput(f"{path} is of other pictures than the run {run.path} (selection hash {found.data_sha256[:12]}..., the run's {ours_sha256[:12]}...): cross-validate on the same pictures")


def _differs(where: Sequence[str], theirs: Mapping, ours: Mapping) -> str:
    """Return in words how a key of two recipes differs, that at the end of the path `where`."""
    values = []
    for recipe in (theirs, ours):
        for part in where:
            recipe = recipe[part]
        operation = isinstance(recipe, dict) and len(where) > 1
        values.append(", ".join(f"{name} {value:g}" for name, value in recipe.items()) if operation else repr(recipe))
    return f"its {'.'.join(where)} is {values[0]}, the run's {values[1]}"
