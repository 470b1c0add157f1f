"""Rebalancing: which training pictures an epoch shows, how often, and what each counts in the loss.

In: the classes of the training part and a recipe. Out: positions for an epoch, weights of the classes, and the
class frequencies that the loss then effectively sees. Unlike the usual notebook, this happens after the split,
in memory, and on the training part only.
"""

from __future__ import annotations

import numpy as np

from melanoma_edge.contract import Recipe


def epoch_order(labels: np.ndarray, recipe: Recipe, epoch: int) -> np.ndarray:
    """Return the positions (int [samples]) to show in `epoch`, shuffled; the same for the same
    recipe seed, epoch and labels.

    `augmentor`: each class gives `samples_per_class` positions, every picture floor(N / size) times and a random
    remainder once more. `balanced`: as many positions as there are labels, each one's class drawn evenly
    among the classes that there are, and of a class no picture again before all had their turn.
    `class_weight` and `none`: every picture once.
    """
    rng = np.random.default_rng([recipe.seed, 1, epoch])
    if recipe.rebalance in ("class_weight", "none"):
        return rng.permutation(len(labels))
    present = np.unique(labels)
    if recipe.rebalance == "augmentor":
        chosen = [draw_from(np.flatnonzero(labels == label), recipe.samples_per_class, rng) for label in present]
        return rng.permutation(np.concatenate(chosen))
    drawn = present[rng.integers(len(present), size=len(labels))]
    order = np.empty(len(labels), int)
    for label in present:
        slots = np.flatnonzero(drawn == label)
        order[slots] = _in_turns(np.flatnonzero(labels == label), len(slots), rng)
    return order


def draw_from(members: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` of `members` (int [n]): each one floor(count / n) times and a random remainder once more."""
    whole, remainder = divmod(count, len(members))
    return np.concatenate([np.tile(members, whole), rng.permutation(members)[:remainder]])


def class_weights(labels: np.ndarray, classes: int, recipe: Recipe) -> np.ndarray:
    """Return what a picture of each class counts in the loss (float32 [classes]).

    n / (classes * n of the class) with `class_weight`, so that it is one on average; else one for all.
    """
    if recipe.rebalance != "class_weight":
        return np.ones(classes, np.float32)
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32)


def training_priors(labels: np.ndarray, classes: int, recipe: Recipe) -> np.ndarray:
    """Return the class frequencies (float64 [classes]) that the loss effectively sees under the recipe.

    Probabilities are corrected from these to the deployment priors.
    """
    if recipe.rebalance == "none":
        return np.bincount(labels, minlength=classes) / len(labels)
    return np.full(classes, 1 / classes)


def _in_turns(members: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` of `members`, in rounds of all of them, each round shuffled anew."""
    rounds = -(-count // len(members))
    return np.concatenate([rng.permutation(members) for _ in range(rounds)] or [members[:0]])[:count]
