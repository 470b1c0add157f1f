"""Mixing: two pictures of a batch in one, and a target that says how much of each.

In: augmented batches with their labels, and a recipe. Out: batches of which some pictures hold part of their neighbour, with targets.
Rows 0 and 1 of a batch are neighbours, 2 and 3, and so on; so several machines that share a batch mix as one alone
would. What is mixed depends on the recipe's seed, the epoch and the place in it, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from melanoma_edge.contract import Mix, Recipe
from melanoma_edge.data import feed
from melanoma_edge.data.augment import uniforms

STREAM = 2
"""Of the random numbers; augmentation has 0 and 1."""
NUMBERS = 8
"""Random numbers of each row: for mixup whether and how much, for cutmix whether, how much, and where (twice)."""


@dataclass(frozen=True)
class Mixture:
    """How much of its neighbour each of n rows gets."""

    blended: np.ndarray
    """float32 [n]: the neighbour's weight in every pixel; 0 for none."""
    box: np.ndarray
    """int [n, 4]: top, bottom, left and right of what comes from the neighbour alone; top is bottom for none."""
    share: np.ndarray
    """float32 [n]: what the neighbour's class counts in the target: its weight, or its part of the area."""


Apply = Callable[[np.ndarray, Mixture], object]
"""Mixes a whole batch: (uint8 [rows, size, size, 3], the mixture of its rows) -> a batch of the same kind."""


def batches(
    pictures: np.ndarray,
    labels: np.ndarray,
    classes: int,
    recipe: Recipe,
    epoch: int,
    finish: feed.Finish | None = None,
    rows: slice = slice(None),
    apply: Apply | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (uint8 [batch, size, size, 3], targets float32 [batch, classes]) for one epoch: the feed's batches, mixed as the recipe says.

    The other arguments are those of :func:`melanoma_edge.data.feed.batches`; where `finish` makes the pictures elsewhere, `apply` mixes them there.
    """
    size = feed.rows_per_batch(labels, recipe)
    start, stop, _ = rows.indices(size)
    first, last = start - start % 2, min(stop + stop % 2, size)  # neighbours of those at the ends
    mixes = recipe.mix.mixup.probability > 0 or recipe.mix.cutmix.probability > 0
    for step, (made, of) in enumerate(feed.batches(pictures, labels, recipe, epoch, finish, slice(first, last))):
        targets = np.eye(classes, dtype=np.float32)[of]
        if mixes:
            mixture = draw(recipe.mix, (recipe.seed, epoch), step * size + first, len(of), pictures.shape[1], paired=size - size % 2 - first)
            made = (apply or mix)(made, mixture)
            share = mixture.share[:, None]
            targets = (1 - share) * targets + share * targets[neighbours(len(of))]
        chosen = slice(start - first, stop - first)
        yield made[chosen], targets[chosen]


def neighbours(rows: int) -> np.ndarray:
    """Return the row that each of `rows` is mixed with (int [rows]); an odd last one has itself."""
    return np.minimum(np.arange(rows) ^ 1, rows - 1)


def draw(settings: Mix, key: tuple[int, int], first: int, count: int, size: int, *, paired: int | None = None) -> Mixture:
    """Draw for the samples `first` to `first + count - 1` of the sequence `key` (seed, epoch), for pictures of `size` pixels.

    Only the first `paired` of them have a neighbour. Mixup (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization") blends the whole picture, cutmix
    (Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features") takes a box of the picture's shape whose centre lies
    anywhere, cut off at the edges. Where both are drawn it is cutmix. Here the shares are drawn evenly from low to high instead of from a beta distribution.
    """
    numbers = uniforms(key, STREAM, first, count, NUMBERS)
    alone = np.arange(count) >= (count if paired is None else paired)
    cut = (numbers[:, 2] < settings.cutmix.probability) & ~alone
    blend = (numbers[:, 0] < settings.mixup.probability) & ~alone & ~cut
    blended = np.where(blend, settings.mixup.low + numbers[:, 1] * (settings.mixup.high - settings.mixup.low), 0.0)
    side = np.sqrt(settings.cutmix.low + numbers[:, 3] * (settings.cutmix.high - settings.cutmix.low)) * size
    ends = [np.clip(np.rint(numbers[:, place] * size + half * side / 2), 0, size) for place in (4, 5) for half in (-1, 1)]
    box = np.where(cut[:, None], np.column_stack(ends), 0).astype(int)
    area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2]) / size**2
    return Mixture(blended.astype(np.float32), box, np.where(cut, area, blended).astype(np.float32))


def mix(pictures: np.ndarray, mixture: Mixture) -> np.ndarray:
    """Return `pictures` (uint8 [rows, size, size, 3]) mixed, as a new array of the same kind; rounding to the nearest grey level."""
    out = pictures.copy()
    for row, other in enumerate(neighbours(len(pictures))):
        weight, (top, bottom, left, right) = mixture.blended[row], mixture.box[row]
        if weight > 0:
            out[row] = np.rint((1 - weight) * pictures[row].astype(np.float32) + weight * pictures[other].astype(np.float32))
        out[row, top:bottom, left:right] = pictures[other, top:bottom, left:right]
    return out
