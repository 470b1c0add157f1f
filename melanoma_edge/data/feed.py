"""The training feed: augmented batches made by threads while the network computes.

In: pictures, labels, a recipe and an epoch. Out: batches in an order and with pixels that depend on the
recipe's seed, the epoch and nothing else, so an interrupted run goes on exactly where it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from melanoma_edge.contract import Recipe
from melanoma_edge.data.augment import augment
from melanoma_edge.data.rebalance import epoch_order

WORKERS = 2
"""OpenCV works without Python's lock; more threads than this only compete with the training step."""
AHEAD = 6
"""Batches in preparation: enough to ride out a slow one."""


def steps_per_epoch(labels: np.ndarray, recipe: Recipe) -> int:
    """Return the number of batches of an epoch; the last incomplete one is dropped unless it is the only one."""
    return max(1, len(epoch_order(labels, recipe, 0)) // recipe.batch_size)


def batches(pictures: np.ndarray, labels: np.ndarray, recipe: Recipe, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (uint8 [batch, size, size, 3], int64 [batch]) for one epoch.

    `pictures` is uint8 [n, size, size, 3] and `labels` int [n]: the training part, nothing else.
    """
    import cv2

    cv2.setNumThreads(1)  # the parallelism is ours: one picture a thread
    order = epoch_order(labels, recipe, epoch)
    size = min(recipe.batch_size, len(order))

    def make(step: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = order[step * size : (step + 1) * size]
        out = np.empty((len(chosen), *pictures.shape[1:]), np.uint8)
        for slot, position in enumerate(chosen):
            rng = np.random.default_rng([recipe.seed, 2, epoch, step * size + slot])
            out[slot] = augment(pictures[position], recipe.augment, rng)
        return out, labels[chosen].astype(np.int64)

    with ThreadPoolExecutor(WORKERS) as pool:
        waiting = deque()
        steps = len(order) // size
        for step in range(steps):
            waiting.append(pool.submit(make, step))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
