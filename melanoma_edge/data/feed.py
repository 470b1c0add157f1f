"""The training feed: augmented batches made by threads while the network computes.

In: pictures, labels, a recipe and an epoch. Out: batches in an order and with pixels that depend on the
recipe's seed, the epoch and nothing else, so an interrupted run goes on exactly where it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from melanoma_edge.contract import Recipe
from melanoma_edge.data.augment import Composed, compose, draw
from melanoma_edge.data.augment_pixels import augment, require
from melanoma_edge.data.rebalance import epoch_order

WORKERS = 2
"""OpenCV works without Python's lock; more threads than this only compete with the training step."""
AHEAD = 6
"""Batches in preparation: enough to ride out a slow one."""
BLOCK = 256
"""Samples drawn at once: NumPy's calls cost the same for few samples as for many."""

Finish = Callable[[np.ndarray, Composed], object]
"""Augments a whole batch elsewhere: (uint8 [batch, size, size, 3], its maps) -> a batch of the same kind."""


def steps_per_epoch(labels: np.ndarray, recipe: Recipe) -> int:
    """Return the number of batches of an epoch; the last incomplete one is dropped unless it is the only one."""
    return max(1, len(epoch_order(labels, recipe, 0)) // recipe.batch_size)


def rows_per_batch(labels: np.ndarray, recipe: Recipe) -> int:
    """Return the number of samples in every batch: the recipe's, or all of an epoch where they are fewer."""
    return min(recipe.batch_size, len(epoch_order(labels, recipe, 0)))


def batches(
    pictures: np.ndarray, labels: np.ndarray, recipe: Recipe, epoch: int, finish: Finish | None = None, rows: slice = slice(None)
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (uint8 [batch, size, size, 3], int64 [batch]) for one epoch.

    With `rows`, only those of each batch are made and yielded: what one of several machines computes.

    `pictures` (uint8 [n, size, size, 3], read one at a time) and `labels` (int [n]) are the training part, nothing
    else. With `finish` the pictures are augmented by it, in the caller's thread, instead of by the feed's own: all
    but those that are compressed as JPEG, which the feed augments itself and hands over with nothing left to do.
    """
    require()
    order = epoch_order(labels, recipe, epoch)
    size = min(recipe.batch_size, len(order))
    steps = len(order) // size
    start, stop, _ = rows.indices(size)
    together = max(1, BLOCK // size)
    shape = pictures.shape[1:]

    def maps_of(block: int) -> tuple[Composed, Composed | None]:
        """Return the maps of a block of batches: those for the feed and, where there is `finish`, those for it."""
        first = block * together * size
        drawn = draw(recipe.augment, (recipe.seed, epoch), first, min(together * size, steps * size - first))
        maps = compose(drawn, *shape[:2])
        return maps, None if finish is None else compose(drawn.without(maps.quality > 0), *shape[:2])

    def make(step: int, block: Future) -> tuple[np.ndarray, np.ndarray, Composed | None]:
        chosen = order[step * size + start : step * size + stop]
        own, rest = block.result()
        first = step % together * size + start
        out = np.empty((len(chosen), *shape), np.uint8)
        for slot, position in enumerate(chosen):
            picture = np.ascontiguousarray(pictures[int(position)])
            if finish is None or own.quality[first + slot] > 0:
                augment(picture, own, first + slot, out[slot])
            else:
                out[slot] = picture
        return out, labels[chosen].astype(np.int64), None if rest is None else rest.part(slice(first, first + len(chosen)))

    def hand_over(made: Future) -> tuple[np.ndarray, np.ndarray]:
        batch, classes, rest = made.result()
        return (batch if finish is None else finish(batch, rest)), classes

    with ThreadPoolExecutor(WORKERS) as pool:
        waiting: deque[Future] = deque()
        for step in range(steps):
            if step % together == 0:
                block = pool.submit(maps_of, step // together)
            waiting.append(pool.submit(make, step, block))
            if len(waiting) > AHEAD:
                yield hand_over(waiting.popleft())
        while waiting:
            yield hand_over(waiting.popleft())
