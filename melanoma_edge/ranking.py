"""Curves over all thresholds on a score: what lies at or above each of them, the area below, the sensitivity at a specificity.

In: scores of pictures, which of them are positive, and weights of pictures. Out: a figure for each row of weights.
"""

from __future__ import annotations

import numpy as np

from melanoma_edge.resampling import ratio


class Ranking:
    """Pictures in falling order of their scores, with equal scores passed at one threshold."""

    def __init__(self, scores: np.ndarray, is_positive: np.ndarray) -> None:
        self._order = np.argsort(-scores, kind="stable")
        self._is_positive = is_positive[self._order].astype(np.float64)
        self._last = np.append(np.flatnonzero(np.diff(scores[self._order])), len(scores) - 1)[: len(scores)]  # none of no pictures

    def curve(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of (positives, negatives) at or above each threshold [replicates, 1 + T]."""
        ranked = weights[:, self._order]
        passed = np.cumsum(ranked, axis=1)[:, self._last]
        ranked *= self._is_positive
        positives = np.cumsum(ranked, axis=1)[:, self._last]
        none = np.zeros((len(weights), 1))
        return np.hstack([none, positives]), np.hstack([none, passed - positives])


def area_under(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Return the area under each curve of :meth:`Ranking.curve`; half for ties."""
    area = np.einsum("rt,rt->r", np.diff(negatives, axis=1), positives[:, 1:] + positives[:, :-1]) / 2
    return ratio(area, positives[:, -1] * negatives[:, -1])


def sensitivity_at(positives: np.ndarray, negatives: np.ndarray, specificity: float) -> np.ndarray:
    """Return the highest sensitivity on each curve where the specificity is at least `specificity`."""
    reached = ratio(negatives[:, -1:] - negatives, negatives[:, -1:]) >= specificity
    lowest = np.maximum(reached.sum(axis=1) - 1, 0)  # specificity only falls along a curve
    sensitivity = ratio(positives[np.arange(len(lowest)), lowest], positives[:, -1])
    return np.where(negatives[:, -1] > 0, sensitivity, np.nan)
