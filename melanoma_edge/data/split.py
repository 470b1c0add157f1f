"""The split: train, validation and test parts in which no lesion and no copy stands twice.

In: a selection and a recipe. Out: a part for each picture. The outer folds are grouped by lesion and
stratified by class; fold `recipe.fold` is the test part, and one inner fold of the rest validates.
"""

from __future__ import annotations

import hashlib
import warnings

import numpy as np

from melanoma_edge.contract import Recipe
from melanoma_edge.data.policy import Selection
from melanoma_edge.errors import BadInput

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = (TRAIN, VALIDATION, TEST)


def split(selection: Selection, recipe: Recipe) -> np.ndarray:
    """Return the part of each picture of `selection`, a str array; repeatable for the recipe's seed
    and independent of the order of files.

    Raises BadInput when a class has too few lesions to stand in all three parts.
    """
    labels = np.array([selection.classes.index(row.label) for row in selection.rows])
    groups = np.array(selection.groups)
    _refuse_few_groups(selection, labels, groups, recipe)
    outer = _folds(labels, groups, recipe.folds, recipe.seed)
    parts = np.full(len(labels), TRAIN, dtype="<U10")
    parts[outer == recipe.fold] = TEST
    rest = np.flatnonzero(outer != recipe.fold)
    inner = _folds(labels[rest], groups[rest], max(2, min(recipe.folds, _most_folds(labels[rest], groups[rest]))), recipe.seed + 1)
    parts[rest[inner == 0]] = VALIDATION
    for part in (TRAIN, VALIDATION, TEST):
        absent = [name for i, name in enumerate(selection.classes) if not np.any((parts == part) & (labels == i))]
        if absent and part != TEST:
            raise BadInput(
                f"the {part} part would hold no {', '.join(absent)}: too few lesions for {recipe.folds} folds; "
                "add pictures, lower folds or raise min_lesions"
            )
    return parts


def data_hash(selection: Selection, parts: np.ndarray) -> str:
    """Return the SHA-256 over file hash, class and part of every used picture, in hash order."""
    lines = sorted(f"{row.sha256} {part} {row.label}" for row, part in zip(selection.rows, parts))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each picture: grouped, stratified by class, shuffled by `seed`.

    Raises BadInput when there are more folds than can be made.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if folds > _most_folds(labels, groups):
        raise BadInput(f"there are too few lesions for {folds} folds: add pictures or lower folds")
    result = np.zeros(len(labels), int)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer pictures than folds is dealt with above
        for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
            result[held_out] = fold
    return result


def _most_folds(labels: np.ndarray, groups: np.ndarray) -> int:
    """Return how many folds can be made: a lesion for each, and of the largest class a picture for each."""
    return min(len(np.unique(groups)), int(np.bincount(labels).max()))


def _refuse_few_groups(selection: Selection, labels, groups, recipe: Recipe) -> None:
    for i, name in enumerate(selection.classes):
        count = len(set(groups[labels == i]))
        if count < 3:
            raise BadInput(
                f"class {name!r} has {count} lesion{'s' if count != 1 else ''}: expected at least 3 (one for each part); "
                "add pictures or raise min_lesions to leave it out"
            )
    if len(set(groups)) < recipe.folds:
        raise BadInput(f"there are {len(set(groups))} lesions for {recipe.folds} folds: add pictures or lower folds")
