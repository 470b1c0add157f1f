"""Coverage and risk: how often a model is wrong on the pictures that it answers, as it answers fewer of them.

In: probabilities, labels, and how sure the model is of each picture (:func:`melanoma_edge.calibration.certainty`, by confidence or energy).
Out: the curve as arrays, the area under it with its interval, a few points for people.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melanoma_edge.contract import Interval
from melanoma_edge.errors import BadInput
from melanoma_edge.metrics import checked
from melanoma_edge.resampling import intervals, mean_of_defined, ratio, units_of

COVERAGES = tuple(round(tenths / 10, 1) for tenths in range(1, 11))
"""The shares of pictures at which a curve is told in figures."""


def coverage_risk(probabilities: np.ndarray, labels: np.ndarray, certainty: np.ndarray) -> dict[str, np.ndarray]:
    """Return the coverage-risk curve, float64 [T] each: one point for each different certainty, the surest first.

    `coverage`: share of all pictures that are at least as sure, rising to 1. `risk`: share wrong among them (the selective risk of El-Yaniv and
    Wiener 2010, drawn over coverage by Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural Networks").
    `balanced_error`: the mean, over the classes that stand among them, of the share wrong in each; where coverage is low some
    classes have gone, and `classes` counts those left. `certainty`: the score itself. Equally sure pictures are answered together.

    `probabilities` [N, K] decide which class is the answer, `labels` [N] which is right, `certainty` [N] is the higher the surer. Raises BadInput for
    wrong shapes, NaN and values that are not probabilities.
    """
    probabilities, labels = checked(probabilities, labels, None)
    sure = _certainties(certainty, len(labels))
    order = np.argsort(-sure, kind="stable")
    last = _last_of_ties(sure[order])
    right = (probabilities.argmax(axis=1) == labels)[order].astype(np.float64)
    truth = np.eye(probabilities.shape[1])[labels[order]]
    answered, hits = np.cumsum(truth, axis=0)[last], np.cumsum(truth * right[:, np.newaxis], axis=0)[last]
    return {
        "coverage": (last + 1) / len(sure),
        "risk": 1 - np.cumsum(right)[last] / (last + 1),
        "balanced_error": 1 - mean_of_defined(ratio(hits, answered)),
        "classes": (answered > 0).sum(axis=1).astype(np.float64),
        "certainty": sure[order][last],
    }


def area_under_risk(certainty: np.ndarray, wrong: np.ndarray) -> float:
    """Return the area under the coverage-risk curve (AURC): the mean of the selective risk over answering 1, 2 ... N pictures; lower is better.

    Geifman, Uziel and El-Yaniv 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", for the curve of Geifman and El-Yaniv
    2017. Equally sure pictures count as answered in random order, so the order in which they are given changes nothing: a score that
    tells nothing has the error rate as its area. `certainty` [N] is the higher the surer, `wrong` bool [N]. Raises BadInput for wrong shapes and NaN.
    """
    sure, wrong = _certainties(certainty, len(wrong)), np.asarray(wrong, dtype=bool)
    order = np.argsort(-sure, kind="stable")
    last = _last_of_ties(sure[order])
    answered = np.arange(1, len(sure) + 1)
    # Within a tie, errors are expected to come in evenly.
    errors = np.interp(answered, np.append(0, last + 1), np.append(0, np.cumsum(wrong[order])[last]))
    return float((errors / answered).mean())


def area_with_interval(certainty: np.ndarray, wrong: np.ndarray, groups: np.ndarray | None = None, *, replicates: int = 1000, seed: int = 0) -> Interval:
    """Return :func:`area_under_risk` with its 95 % bootstrap interval over lesions (`groups` [N]; each picture one without). Raises as that does."""
    sure, wrong = _certainties(certainty, len(wrong)), np.asarray(wrong, dtype=bool)

    def areas(weights: np.ndarray) -> dict[str, np.ndarray]:
        drawn = (np.repeat(np.arange(len(wrong)), row.astype(np.int64)) for row in weights)
        return {"area": np.array([area_under_risk(sure[rows], wrong[rows]) for rows in drawn])}

    return intervals(areas, units_of(groups, len(wrong)), replicates, seed)["area"]


def points(curve: dict[str, np.ndarray], coverages: Sequence[float] = COVERAGES) -> list[dict[str, float]]:
    """Return the points of a curve of :func:`coverage_risk` at which at least so many pictures are answered, by name of its arrays.

    On ties more are answered, and `coverage` says how many.
    """
    places = [int(np.argmax(curve["coverage"] >= coverage)) for coverage in coverages]
    return [{name: float(values[place]) for name, values in curve.items()} for place in places]


def _certainties(given: np.ndarray, pictures: int) -> np.ndarray:
    """Return `given` in float64 if it is a finite number for each picture."""
    found = np.asarray(given, dtype=np.float64)
    if found.shape != (pictures,) or not pictures or not np.isfinite(found).all():
        raise BadInput(
            f"found certainties of shape {found.shape}, or NaN among them, for {pictures} pictures: expected a finite number for each; check the model's outputs"
        )
    return found


def _last_of_ties(falling: np.ndarray) -> np.ndarray:
    """Return the last position of each run of equal values."""
    return np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
