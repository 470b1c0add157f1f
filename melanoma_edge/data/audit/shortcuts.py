"""Shortcuts: what is no part of a lesion and yet tells its class, so that a network may learn that instead.

In: the pictures after the policy, with the facts of their files. Out: a
:class:`~melanoma_edge.data.audit.model.Shortcut` for each family of features.

A random forest learns the class from one family alone, cross-validated by group. Its chance level comes from
permuting the classes of whole groups within each fold against the held-out predictions, without learning
anew (the test of independence between prediction and class; Ojala and Garriga, "Permutation Tests for Studying
Classifier Performance", JMLR 11, 2010, learn anew each time, which here would take a thousand times as long).
Because folds share training pictures that interval is a little too narrow, so a shortcut must also be large.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from melanoma_edge.data.audit.model import Shortcut
from melanoma_edge.data.index import Row

CAP = 20_000
"""Pictures at most: the classes' shares of it are equal."""
FOLDS, TREES, PERMUTATIONS, SEED = 5, 40, 1000, 7
MAX_DEPTH, MIN_LEAF = 10, 3
"""Of the forest's trees: enough for a few spikes in few features, too little to remember single pictures."""
ALPHA = 0.001
"""Not one of the thousand permutations does as well."""
MIN_GAIN = 0.1
"""A shortcut goes at least this share of the way from chance to always right."""


@dataclass(frozen=True)
class Family:
    """Features that belong together."""

    name: str
    title: str
    features: tuple[str, ...]
    values: Callable[[Row], tuple]
    """Numbers, or words, which are numbered in alphabetical order."""


FAMILIES = (
    Family("size", "image size", ("width", "height", "aspect"), lambda row: (row.facts.width, row.facts.height, row.facts.width / row.facts.height)),
    Family(
        "file_size", "file size", ("bytes", "bytes per pixel"), lambda row: (row.facts.bytes, row.facts.bytes / (row.facts.width * row.facts.height))
    ),
    Family("format", "file format", ("format", "mode"), lambda row: (row.facts.format, row.facts.mode)),
    Family(
        "border",
        "colour of the border",
        ("border red", "border green", "border blue"),
        lambda row: (row.facts.border_red, row.facts.border_green, row.facts.border_blue),
    ),
    Family("corners", "dark corners", ("dark corners",), lambda row: (row.facts.dark_corners,)),
    Family("camera", "camera data (EXIF)", ("camera", "orientation"), lambda row: (row.facts.camera, row.facts.orientation)),
)


def shortcuts(rows: Sequence[Row], groups: Sequence[int], refusal: str = "", cap: int = CAP) -> tuple[Shortcut, ...]:
    """Return how well each family of features tells the class of `rows`, in whose `groups` folds are not cut.

    At most `cap` pictures are used. `refusal` says why there are no usable pictures, if so.
    """
    known = [position for position, row in enumerate(rows) if row.facts is not None]
    reason = refusal
    if not reason and not known:
        reason = "nothing is known about the files"
    chosen = labels = mine = None
    if not reason:
        chosen = _chosen(rows, groups, known, cap)
        classes = {rows[position].label for position in chosen}
        if len(classes) < 2:
            reason = f"fewer than two classes have {FOLDS} independent lesions or patients"
        else:
            labels = np.unique([rows[position].label for position in chosen], return_inverse=True)
            numbers: dict[int, int] = {}  # in the order of the pictures, which does not depend on names either
            mine = np.array([numbers.setdefault(groups[position], len(numbers)) for position in chosen])
    if reason:
        return tuple(_not_tried(family, reason) for family in FAMILIES)
    folds = _folds(labels[1], mine)
    return tuple(_tried(family, [rows[position] for position in chosen], labels, mine, folds) for family in FAMILIES)


def _chosen(rows: Sequence[Row], groups: Sequence[int], known: list[int], cap: int) -> list[int]:
    """Return the pictures that are used, in an order that does not depend on their names: of each class the same number at most."""
    by_label: dict[str, list[int]] = {}
    for position in sorted(known, key=lambda position: (rows[position].sha256, rows[position].path)):
        by_label.setdefault(rows[position].label, []).append(position)
    by_label = {label: found for label, found in by_label.items() if len({groups[position] for position in found}) >= FOLDS}
    random = np.random.default_rng(SEED)
    chosen: list[int] = []
    share = cap // max(1, len(by_label))
    for label in sorted(by_label):
        found = by_label[label]
        chosen += found if len(found) <= share else [found[place] for place in np.sort(random.choice(len(found), share, replace=False))]
    return chosen


def _folds(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the fold of each picture."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = np.zeros(len(labels), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer pictures than folds is missing in some
        splitter = StratifiedGroupKFold(n_splits=FOLDS, shuffle=True, random_state=SEED)
        for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
            folds[held_out] = fold
    return folds


def _tried(family: Family, rows: list[Row], named: tuple[np.ndarray, np.ndarray], groups: np.ndarray, folds: np.ndarray) -> Shortcut:
    names, labels = named
    facts = dict(name=family.name, title=family.title, features=family.features, pictures=len(rows), groups=int(groups.max()) + 1)
    table = _numbers([family.values(row) for row in rows])
    if (table == table[0]).all():
        value = ", ".join(f"{feature} {value or 'none'}" for feature, value in zip(family.features, family.values(rows[0])))
        reason = f"constant ({value}): nothing to learn from"
        return Shortcut(
            **facts, verdict="constant", reason=reason, balanced_accuracy=None, chance=1 / len(names), chance_low=None, chance_high=None, p_value=None, recall={}
        )  # fmt: skip
    predicted = _predicted(table, labels, folds)
    recall = np.bincount(labels[predicted == labels], minlength=len(names)) / np.bincount(labels)
    reached, chance = float(recall.mean()), 1 / len(names)
    null = _permuted(predicted, labels, groups, folds)
    p_value = (1 + int((null >= reached - 1e-12).sum())) / (1 + len(null))
    low, high = np.quantile(null, (0.005, 0.995)).tolist()
    clear = p_value <= ALPHA
    verdict = "none" if not clear else "shortcut" if reached - chance >= MIN_GAIN * (1 - chance) else "weak"
    return Shortcut(
        **facts,
        verdict=verdict,
        reason="",
        balanced_accuracy=round(reached, 4),
        chance=round(chance, 4),
        chance_low=round(low, 4),
        chance_high=round(high, 4),
        p_value=round(p_value, 5),
        recall={str(name): round(float(value), 4) for name, value in zip(names, recall)},
    )


def _predicted(table: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the class of each picture as a forest says that learned from the other folds."""
    from sklearn.ensemble import RandomForestClassifier

    predicted = np.zeros_like(labels)
    for fold in np.unique(folds):
        held_out = folds == fold
        forest = RandomForestClassifier(
            TREES, max_depth=MAX_DEPTH, min_samples_leaf=MIN_LEAF, max_features=None, class_weight="balanced", random_state=SEED
        )
        forest.fit(table[~held_out], labels[~held_out])
        predicted[held_out] = forest.predict(table[held_out])
    return predicted


def _permuted(predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the balanced accuracy of `predicted` against classes permuted among the groups of each fold: [PERMUTATIONS].

    A group's class is the one that most of its pictures have.
    """
    classes, count = labels.max() + 1, groups.max() + 1
    said = np.zeros((count, classes))
    np.add.at(said, (groups, predicted), 1)
    truth = np.zeros((count, classes))
    np.add.at(truth, (groups, labels), 1)
    truth, sizes = truth.argmax(axis=1), said.sum(axis=1)
    fold_of = np.zeros(count, int)
    fold_of[groups] = folds
    members = [np.flatnonzero(fold_of == fold) for fold in np.unique(folds)]
    random = np.random.default_rng(SEED)
    found = np.zeros(PERMUTATIONS)
    for number in range(PERMUTATIONS):
        permuted = truth.copy()
        for mine in members:
            permuted[mine] = truth[random.permutation(mine)]
        right = np.bincount(permuted, said[np.arange(count), permuted], minlength=classes)
        total = np.bincount(permuted, sizes, minlength=classes)
        there = total > 0
        found[number] = (right[there] / total[there]).mean()
    return found


def _numbers(rows: list[tuple]) -> np.ndarray:
    """Return the features as numbers, float [rows, features]; words are numbered in alphabetical order."""
    columns = []
    for values in zip(*rows):
        if isinstance(values[0], str):
            order = {value: number for number, value in enumerate(sorted(set(values)))}
            values = [order[value] for value in values]
        columns.append(np.asarray(values, float))
    return np.stack(columns, axis=1)


def _not_tried(family: Family, reason: str) -> Shortcut:
    return Shortcut(
        name=family.name, title=family.title, features=family.features, verdict="not tried", reason=reason, balanced_accuracy=None, chance=None,
        chance_low=None, chance_high=None, p_value=None, recall={}, pictures=0, groups=0,
    )  # fmt: skip
