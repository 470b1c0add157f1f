"""Rebalancing: which training pictures an epoch shows, and how often.

In: the classes of the training part and a recipe. Out: positions for an epoch. As in Augmentor, every
class gives the same number of samples an epoch, each then augmented on its own; unlike the usual
notebook, this happens after the split, in memory, and on the training part only.
"""

from __future__ import annotations

import numpy as np

from melanoma_edge.contract import Recipe


def epoch_order(labels: np.ndarray, recipe: Recipe, epoch: int) -> np.ndarray:
    """Return the positions (int [samples]) to show in `epoch`, shuffled; the same for the same
    recipe seed, epoch and labels.

    With `samples_per_class` N, each class gives N positions: every picture floor(N / size) times and
    a random remainder once more. With 0, every picture once.
    """
    rng = np.random.default_rng([recipe.seed, 1, epoch])
    if recipe.samples_per_class == 0:
        return rng.permutation(len(labels))
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        whole, remainder = divmod(recipe.samples_per_class, len(members))
        chosen += [np.tile(members, whole), rng.permutation(members)[:remainder]]
    return rng.permutation(np.concatenate(chosen))


def training_priors(labels: np.ndarray, classes: int, recipe: Recipe) -> np.ndarray:
    """Return the class frequencies (float64 [classes]) that training sees under the recipe."""
    if recipe.samples_per_class:
        return np.full(classes, 1 / classes)
    return np.bincount(labels, minlength=classes) / len(labels)
