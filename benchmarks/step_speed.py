"""How fast training steps are: on one batch that is there already, and end to end with the feed, in turn.

In: a step, and where its batches come from. Out: pictures a second of each round, both ways.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

WARM_UP = 5
"""Steps before the first that is timed."""


def fresh_teachers(recipe, classes: int) -> list:
    """Return as many untrained networks as the recipe has teachers: what they cost a step does not depend on what they know."""
    from melanoma_edge.model import network
    from melanoma_edge.model.teachers import names_of

    teachers = [network.build(recipe, classes) for _ in names_of(recipe)]
    for teacher in teachers:
        teacher.trainable = False
    return teachers


def measure(step: Callable, batches_of: Callable[[int], Iterator], batch: tuple, seed, rows: int, steps: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return (pictures a second of the bare step, those end to end), one of each a round of `steps` steps of `rows` pictures.

    `step` takes pictures, targets and `seed`; `batch` is one of them on the device; ``batches_of(epoch)`` yields those of an epoch.
    """
    for _ in range(WARM_UP):
        step(*batch, seed)
    alone, together = [], []
    for number in range(rounds):
        started = time.perf_counter()
        for _ in range(steps):
            step(*batch, seed)
        alone.append(steps * rows / (time.perf_counter() - started))
        feeding = _endless(batches_of, number)
        step(*next(feeding), seed)
        started = time.perf_counter()
        for _ in range(steps):
            step(*next(feeding), seed)
        together.append(steps * rows / (time.perf_counter() - started))
        feeding.close()
    return alone, together


def _endless(batches_of: Callable[[int], Iterator], number: int) -> Iterator:
    """Yield batches of one epoch after the other: small sets have few."""
    while True:
        yield from batches_of(number)
        number += 1
