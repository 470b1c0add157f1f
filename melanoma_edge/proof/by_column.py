"""Figures by a column of metadata: the same model on women and men, by age, by site, by source.

In: what a table says of each picture, and the scores of any subset. Out: groups with their scores, and which figures rest on too few
lesions to say anything.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from melanoma_edge.contract import Scores
from melanoma_edge.errors import BadInput

MISSING = "not known"
"""The group of pictures of which the tables do not know it."""
MOST_VALUES = 10
"""A column of numbers with more different values is cut into bands."""
MOST_BANDS = 12
"""Bands are as narrow as these many allow, 1, 2 or 5 times a power of ten wide: ages fall in decades."""
MOST_GROUPS = 50
"""More are refused: such a column names pictures, not groups."""
LEAST_LESIONS = 20
"""A share of fewer lesions is too small to say: at one half, even the exact interval of 20 reaches from 0.27 to 0.73."""
LEAST_OF_CLASS = 5
"""A mean over classes is too small to say where one of them has fewer lesions: it would hang on the luck of a few."""


@dataclass(frozen=True)
class Grouping:
    """Pictures in groups."""

    names: tuple[str, ...]
    """The groups in order: numbers and bands rising, words in alphabetical order, MISSING last."""
    members: np.ndarray
    """int [pictures]: the position of each picture's group in `names`."""
    band: float | None
    """Width of the bands that a column of numbers was cut into; None where each value is a group."""


def group(values: Sequence[str], column: str) -> Grouping:
    """Return the groups of `values`, what stands in `column` for each picture ("" for not known). Raises BadInput for more than MOST_GROUPS."""
    there = sorted(set(values) - {""})
    numbers = [_number(value) for value in there]
    band = None
    if there and None not in numbers:
        width = band_width(numbers) if len(set(numbers)) > MOST_VALUES else None
        # 30 and 30.0 are one number; bands stand for all that is in them.
        place = {value: number if width is None else _floor(number, width) for value, number in zip(there, numbers)}
        name = {at: f"{at:.12g}" if width is None else f"{at * width:.12g} to under {(at + 1) * width:.12g}" for at in sorted(set(place.values()))}
        named, names, band = {value: name[at] for value, at in place.items()}, list(name.values()), width
    else:
        named, names = {value: value for value in there}, there
    if len(names) > MOST_GROUPS:
        raise BadInput(f"the column {column} holds {len(names)} different values: expected at most {MOST_GROUPS}; name one that puts pictures in groups with --by")
    if "" in values:
        names = [*names, MISSING]
    positions = {name: position for position, name in enumerate(names)}
    return Grouping(tuple(names), np.array([positions[named.get(value, MISSING)] for value in values], dtype=np.int64), band)


def band_width(numbers: Sequence[float]) -> float | None:
    """Return the smallest of 1, 2 or 5 times a power of ten that cuts `numbers` into at most MOST_BANDS bands; None where none does (they are beyond float64)."""
    low, high = min(numbers), max(numbers)
    if not math.isfinite(high - low) or (high - low) / MOST_BANDS <= 1e-300:
        return None
    power = math.floor(math.log10((high - low) / MOST_BANDS))
    for width in (factor * 10.0**exponent for exponent in (power, power + 1, power + 2) for factor in (1, 2, 5)):
        if _floor(high, width) - _floor(low, width) < MOST_BANDS:
            return width
    return None


def figures(grouping: Grouping, labels: np.ndarray, lesions: np.ndarray, positive: int | None, score: Callable[[np.ndarray], Scores]) -> list[dict]:
    """Return each group, ready for JSON: `group`, `missing`, `pictures`, `lesions`, `scores` and `too_small_for`, the names of scores that say nothing.

    `labels` and `lesions` are int [pictures], `positive` is the positive class among the labels; `score` gives the scores of the pictures of a mask.
    """
    found = []
    for position, name in enumerate(grouping.names):
        mine = grouping.members == position
        scores = score(mine)
        found.append(
            {
                "group": name,
                "missing": name == MISSING,
                "pictures": scores.pictures,
                "lesions": scores.lesions,
                "too_small_for": _too_small(scores, labels[mine], lesions[mine], positive),
                "scores": scores.model_dump(mode="json"),
            }
        )
    return found


def _too_small(scores: Scores, labels: np.ndarray, lesions: np.ndarray, positive: int | None) -> list[str]:
    """Return the names of the figures that rest on too few lesions."""
    named = [name for name in Scores.model_fields if getattr(getattr(scores, name), "value", None) is not None]
    if scores.lesions < LEAST_LESIONS:
        return named
    counts = Counter(label for label, _ in set(zip(labels.tolist(), lesions.tolist())))
    few = {"balanced_accuracy", "macro_f1", "macro_auc", "ece_at_priors"} if min(counts.values()) < LEAST_OF_CLASS else set()
    if positive is not None:
        sick, well = (len(set(lesions[mask].tolist())) for mask in (labels == positive, labels != positive))
        few |= {name for name in named if name.startswith("positive_specificity") and well < LEAST_LESIONS}
        few |= {name for name in named if name.startswith("positive_sensitivity_of") and sick < LEAST_LESIONS}
        few |= {name for name in named if (name == "positive_auc" or name.startswith("positive_sensitivity_at")) and min(sick, well) < LEAST_LESIONS}
    return [name for name in named if name in few]


def _floor(number: float, width: float) -> int:
    """Return in which band `number` lies; what rounding left just below an edge counts as on it."""
    return math.floor(round(number / width, 9))


def _number(value: str) -> float | None:
    """Return a finite number, None for anything else."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
