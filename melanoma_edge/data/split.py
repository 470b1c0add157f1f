"""The split: train, validation and test parts in which no patient, no lesion and no copy stands twice.

In: a selection and a recipe. Out: a part for each picture. The outer folds are grouped (by patient, lesion
and copies) and stratified by class; fold `recipe.fold` is the test part, and one inner fold of the rest validates. A single fold is no
cut: then there is no test part, and the inner folds are those of everything.
The parts depend on what the files hold and on the seed: not on names, folders, the order of rows or the machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from melanoma_edge.contract import Recipe
from melanoma_edge.data.policy import MIN_UNITS, Selection
from melanoma_edge.errors import BadInput

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = (TRAIN, VALIDATION, TEST)
SHARE_UNIT = 2**62
"""Shares are counted in whole numbers of this, so that every machine computes the same."""


def split(selection: Selection, recipe: Recipe) -> np.ndarray:
    """Return the part of each picture of `selection`, a str array; repeatable for the recipe's seed
    and independent of the order of files.

    Raises BadInput when a class has too few groups to stand in the training and the validation part, and when
    there are too few for the folds. A class of fewer groups than folds is in no test part of some folds:
    see :func:`absent_from_test`. With `folds` 1 no picture is in the test part.
    """
    labels = np.array([selection.classes.index(row.label) for row in selection.rows])
    names, groups = _named_groups(selection)
    _refuse_few_groups(selection, labels, groups, recipe)
    outer = _outer(labels, groups, names, recipe)
    parts = np.full(len(labels), TRAIN, dtype="<U10")
    parts[outer == recipe.fold] = TEST
    parts[_inner(labels, groups, names, outer, recipe) == 0] = VALIDATION
    for part in (TRAIN, VALIDATION):
        absent = [name for i, name in enumerate(selection.classes) if not np.any((parts == part) & (labels == i))]
        if absent:
            raise BadInput(
                f"the {part} part would hold no {', '.join(absent)}: too few lesions for "
                + (f"{recipe.folds} folds; add pictures, lower folds or raise min_lesions" if recipe.folds > 1 else "it; add pictures or raise min_lesions")
            )
    return parts


def inner_folds(selection: Selection, recipe: Recipe) -> np.ndarray:
    """Return the inner fold of each picture of `selection`, int [n] in 0..validation_folds-1; -1 for the test part.

    Fold 0 is what :func:`split` makes the validation part; by the others, recipes are compared without the test part.
    """
    labels = np.array([selection.classes.index(row.label) for row in selection.rows])
    names, groups = _named_groups(selection)
    return _inner(labels, groups, names, _outer(labels, groups, names, recipe), recipe)


def absent_from_test(selection: Selection, parts: np.ndarray) -> list[str]:
    """Return the classes without a picture in the test part: those of fewer groups than folds can be. None where there is no test part."""
    there = {row.label for row, part in zip(selection.rows, parts) if part == TEST}
    return [name for name in selection.classes if name not in there] if there else []


def data_hash(selection: Selection, parts: np.ndarray) -> str:
    """Return the SHA-256 over file hash, class and part of every used picture, in hash order."""
    return _hash(selection.rows, parts)


def _hash(rows: Sequence, parts: Sequence[str]) -> str:
    lines = sorted(f"{row.sha256} {part} {row.label}" for row, part in zip(rows, parts))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def selection_hash(selection: Selection) -> str:
    """Return the SHA-256 over file hash, class and group of every used picture, in hash order: that from which any fold follows."""
    return grouped_hash(selection.rows, selection.groups)


def grouped_hash(rows: Sequence, groups: Sequence[int]) -> str:
    """Return the :func:`selection_hash` of `rows` (each with a `sha256` and a `label`) in these groups."""
    names, numbers = _named(rows, groups)
    return _hash(rows, [names[number] for number in numbers])


def assign(labels: np.ndarray, groups: np.ndarray, names: Sequence[str], folds: int, salt: str, *, first_fold_first: bool = False) -> np.ndarray:
    """Return the fold of each picture, int [n] in 0..folds-1, so that no group is in two and every class is spread evenly.

    `labels` and `groups` are int [n]; `names` names each group, and with `salt` decides the order among groups of
    about the same size. Each group goes where the sum over its classes of (its share of the class) x (the fold's share of the
    class) is smallest, which is the greedy descent on the sum of the squared shares; on a tie to the fold of the fewest
    pictures, or of the lowest number with `first_fold_first`. Groups of several classes go first, and large ones before small
    ones, as in scikit-learn's StratifiedGroupKFold (which weighs standard deviations, with NumPy calls for each
    group and fold: minutes for 300,000 groups).

    Bound: in any two folds, the pictures of a class differ by at most the larger of two numbers: its pictures in its
    largest group without another class, and its pictures in groups of several classes. For a group of one class goes to the fold that
    has fewest of that class (list scheduling; Graham 1966, "Bounds for certain multiprocessing anomalies"). Where there are
    as many groups as folds, no fold is empty (unless `first_fold_first`).
    """
    present, group_of = np.unique(groups, return_inverse=True)
    classes = int(labels.max(initial=0)) + 1
    counts = np.bincount(group_of * classes + labels, minlength=len(present) * classes).reshape(len(present), classes)
    unit = [SHARE_UNIT // max(1, total) ** 2 for total in counts.sum(axis=0).tolist()]
    several = (counts > 0).sum(axis=1) > 1
    sizes = counts.sum(axis=1).tolist()
    key = [hashlib.blake2b(f"{salt} {names[group]}".encode(), digest_size=16).digest() for group in present.tolist()]
    # Sizes within a factor of two count as the same: else the seed would decide nothing where all differ.
    order = sorted(range(len(present)), key=lambda group: (not several[group], -sizes[group].bit_length(), key[group]))
    held = [[0] * folds for _ in range(classes)]  # pictures of each class in each fold
    totals = [0] * folds
    largest, rows = counts.argmax(axis=1).tolist(), counts.tolist()
    fold_of = np.zeros(len(present), np.int64)
    numbers = range(folds)
    for group in order:
        if several[group]:
            own = [(held[label], count * unit[label]) for label, count in enumerate(rows[group]) if count]
            costs = [sum(column[fold] * weight for column, weight in own) for fold in numbers]
        else:
            costs = held[largest[group]]
        least = min(costs)
        fold = min((fold for fold in numbers if costs[fold] == least), key=(lambda fold: 0) if first_fold_first else totals.__getitem__)
        fold_of[group] = fold
        totals[fold] += sizes[group]
        for label, count in enumerate(rows[group]) if several[group] else ((largest[group], sizes[group]),):
            held[label][fold] += count
    return fold_of[group_of]


def _outer(labels: np.ndarray, groups: np.ndarray, names: list[str], recipe: Recipe) -> np.ndarray:
    """Return the outer fold of each picture; -1, which is no fold, for all of them where they are not cut."""
    return assign(labels, groups, names, recipe.folds, f"folds {recipe.seed}") if recipe.folds > 1 else np.full(len(labels), -1)


def _inner(labels: np.ndarray, groups: np.ndarray, names: list[str], outer: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return the inner fold of each picture, -1 for those of the outer fold that is the test part."""
    rest = np.flatnonzero(outer != recipe.fold)
    inner = np.full(len(labels), -1)
    # The first of the inner folds gets a group of every class, however few there are.
    inner[rest] = assign(labels[rest], groups[rest], names, recipe.validation_folds, f"validation {recipe.seed}", first_fold_first=True)
    return inner


def _named_groups(selection: Selection) -> tuple[list[str], np.ndarray]:
    """Return (the smallest file hash of each group, the number of each picture's group in that list)."""
    return _named(selection.rows, selection.groups)


def _named(rows: Sequence, given: Sequence[int]) -> tuple[list[str], np.ndarray]:
    numbers: dict[int, int] = {}
    groups = np.array([numbers.setdefault(group, len(numbers)) for group in given], np.int64)
    names = [""] * len(numbers)
    for group, row in zip(groups.tolist(), rows):
        if not names[group] or row.sha256 < names[group]:
            names[group] = row.sha256
    return names, groups


def _refuse_few_groups(selection: Selection, labels: np.ndarray, groups: np.ndarray, recipe: Recipe) -> None:
    counts = [len(np.unique(groups[labels == i])) for i in range(len(selection.classes))]
    many = "patients or lesions" if any(row.patient for row in selection.rows) else "lesions"
    for name, count in zip(selection.classes, counts):
        if count < MIN_UNITS:
            raise BadInput(
                f"class {name!r} has {count} {many if count != 1 else many.replace('s ', ' ').removesuffix('s')}: expected at least {MIN_UNITS} (one for each part); "
                "add pictures or raise min_lesions to leave it out"
            )
    total = len(np.unique(groups))
    if total < recipe.folds:
        raise BadInput(f"there are {total} {many} for {recipe.folds} folds: add pictures or lower folds")
    if max(counts) < recipe.folds:
        raise BadInput(f"there are too few {many} for {recipe.folds} folds (at most {max(counts)} of a class): add pictures or lower folds")
