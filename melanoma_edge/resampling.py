"""Figures with intervals from resamples: of weighted pictures by whole lesions, of times by whole processes.

In: figures as a function of weights, and the lesion of each picture. Out: each figure with its 95 % bootstrap interval. Several
pictures of a lesion are not independent, so whole lesions are drawn where they are known (Field and Welsh 2007, "Bootstrapping
clustered data").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from melanoma_edge.contract import Interval
from melanoma_edge.errors import BadInput

CHUNK_ENTRIES = 2**17
"""Replicates are worked on in chunks of about this many weights (1 MiB), which bounds the memory."""

Weighted = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From weights [replicates, pictures] to figures [replicates], NaN where undefined."""


def bootstrap_weights(groups: np.ndarray, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Yield, in chunks [some, N], how often each picture stands in each of `replicates` resamples.

    A resample draws as many groups as there are, with replacement, and takes all pictures of each.
    The same groups, replicates and seed give the same weights.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK_ENTRIES // len(group_of))
    for start in range(0, replicates, rows):
        count = min(rows, replicates - start)
        drawn = generator.integers(0, len(names), size=(count, len(names)))
        drawn += np.arange(count)[:, np.newaxis] * len(names)
        times = np.bincount(drawn.ravel(), minlength=count * len(names)).reshape(count, len(names))
        yield times.astype(np.float64)[:, group_of]


def intervals(figures: Weighted, units: np.ndarray, replicates: int, seed: int) -> dict[str, Interval]:
    """Return each figure for weights of ones, with its interval over the bootstrap of `units`."""
    point = figures(np.ones((1, len(units))))
    resampled = bootstrap_weights(units, replicates, seed) if len(np.unique(units)) > 1 else ()
    parts = [figures(weights) for weights in resampled]
    found = {}
    for name, value in point.items():
        replicated = np.concatenate([value[:0], *(part[name] for part in parts)])
        defined = replicated[~np.isnan(replicated)]
        low = high = None
        if not np.isnan(value[0]) and len(defined) > 0 and 2 * len(defined) >= replicates:
            low, high = (float(bound) for bound in np.quantile(defined, (0.025, 0.975)))
        found[name] = Interval(value=optional(value[0]), low=low, high=high)
    return found


def medians_drawn_again(processes: Sequence[np.ndarray], replicates: int, generator: np.random.Generator) -> np.ndarray:
    """Return `replicates` medians, float64, of measurements that were made in several processes: `processes` are drawn first, then as many measurements of each as it has.

    What a process was given by the system stays with it, so that its measurements agree better than those of two processes do: a two-stage
    bootstrap (Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8).
    """
    chosen = generator.integers(0, len(processes), (replicates, len(processes)))
    again = [rounds[generator.integers(0, len(rounds), (replicates, len(processes), len(rounds)))] for rounds in processes]
    return np.array([np.median(np.concatenate([again[process][number, place] for place, process in enumerate(row)])) for number, row in enumerate(chosen)])


def units_of(groups: np.ndarray | None, pictures: int) -> np.ndarray:
    """Return the unit to resample of each picture: its group, or the picture itself."""
    units = np.arange(pictures) if groups is None else np.asarray(groups)
    if units.shape != (pictures,):
        raise BadInput(f"found groups of shape {units.shape}: expected one for each of {pictures} pictures; pass them in the pictures' order")
    if (units != units).any():
        raise BadInput("found NaN among the groups: expected a lesion for every picture; give single pictures names of their own")
    return units


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, NaN where the denominator is zero."""
    undefined = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Return each row's mean over the entries that are not NaN; NaN where all are."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def optional(value: float) -> float | None:
    """Return the value, None for NaN."""
    return None if np.isnan(value) else float(value)
