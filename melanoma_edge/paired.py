"""What one model loses against another on the same pictures, each figure with its 95 % interval.

In: probabilities of two models, labels and lesions. Out: differences, reference minus candidate. Both models see the same resamples,
and no interval ends before the limits that so many lesions allow (:mod:`melanoma_edge.exact`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melanoma_edge import exact
from melanoma_edge.contract import Decision, Interval
from melanoma_edge.errors import BadInput
from melanoma_edge.metrics import answered_by, checked, position, truth_and_hits
from melanoma_edge.ranking import Ranking, area_under
from melanoma_edge.resampling import Weighted, intervals, mean_of_defined, optional, ratio, units_of


def paired_losses(
    reference: np.ndarray,
    candidate: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    positive_class: str | None,
    *,
    reference_threshold: float | np.ndarray | None,
    candidate_threshold: float | np.ndarray | None,
    groups: np.ndarray | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return what `candidate` [N, K] loses against `reference` [N, K] on the same pictures.

    The keys are `balanced_accuracy`, `positive_sensitivity` (each model at its own probability
    threshold, or each picture at its own, [N], where several models answered: out-of-fold predictions) and `positive_auc`; each value is reference minus candidate, so above zero is a loss.
    Both models see the same resamples, of lesions where `groups` are given. A figure is undefined
    (None) without a positive class, without pictures of it or, for the sensitivity, without a
    threshold. Errors are as in :func:`melanoma_edge.metrics.scores`.

    Few pictures prove little, which resampling does not see: one lesion lost of one would be lost for certain. So
    no interval ends before the limits that the counts of lost and gained lesions allow (:func:`melanoma_edge.exact.matched`):
    for the sensitivity those of the positive class, for balanced accuracy those of each class beside the others as they were
    found, and of all classes together in which none was lost, or gained. An AUC changes a little with every picture, and resampling
    sees that; its interval reaches as far as those limits on a side to which nothing has moved.
    """
    positive = position(positive_class, classes)
    reference, labels = checked(reference, labels, len(classes), "the reference's probabilities")
    candidate, labels = checked(candidate, labels, len(classes), "the candidate's probabilities")
    for threshold in (reference_threshold, candidate_threshold):
        if threshold is not None and np.shape(threshold) not in ((), (len(labels),)):
            raise BadInput(f"found {np.size(threshold)} thresholds for {len(labels)} pictures: expected one, or one for each; pass them in the pictures' order")
    before, after = _gate_figures(reference, labels, positive, reference_threshold), _gate_figures(candidate, labels, positive, candidate_threshold)

    def losses(weights: np.ndarray) -> dict[str, np.ndarray]:
        kept = after(weights)
        return {name: values - kept[name] for name, values in before(weights).items()}

    units = units_of(groups, len(labels))
    found = intervals(losses, units, replicates, seed)
    right = [(probabilities.argmax(axis=1) == labels).astype(np.float64) for probabilities in (reference, candidate)]
    found["balanced_accuracy"] = _widened(found["balanced_accuracy"], *_limits_of_mean(right[0] - right[1], labels, units))
    is_positive = labels == positive
    if found["positive_sensitivity"].low is not None:
        called = [(p[:, positive] >= threshold).astype(np.float64) for p, threshold in ((reference, reference_threshold), (candidate, candidate_threshold))]
        moved = _moved(called[0] - called[1], is_positive, units)
        found["positive_sensitivity"] = _widened(found["positive_sensitivity"], *exact.matched(*moved))
    if found["positive_auc"].low is not None:
        below = [_placements(probabilities[:, positive], is_positive) for probabilities in (reference, candidate)]
        lost, gained, lesions = _moved(below[0] - below[1], is_positive, units)
        fewer = min(lesions, len(np.unique(units[~is_positive])))
        low, high = exact.matched(lost * fewer / lesions, gained * fewer / lesions, fewer)
        area = found["positive_auc"]
        found["positive_auc"] = _widened(area, area.low if gained else low, area.high if lost else high)
    return found


def paired_decisions(
    reference: np.ndarray,
    candidate: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    positive_class: str | None,
    *,
    decisions: tuple[Decision, Decision],
    logits: tuple[np.ndarray, np.ndarray] | None = None,
    groups: np.ndarray | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return what `candidate` [N, K] loses beside sensitivity, each model under its own of `decisions` (reference's, candidate's).

    The keys are `positive_specificity`, undefined without a positive class or a threshold in force of either, and `coverage`, the share of
    pictures on which the model does not abstain (by energy only with both models' `logits` [N, K]). Signs, intervals and errors are as in :func:`paired_losses`.
    """
    positive = position(positive_class, classes)
    reference, labels = checked(reference, labels, len(classes), "the reference's probabilities")
    candidate, labels = checked(candidate, labels, len(classes), "the candidate's probabilities")
    units, undefined = units_of(groups, len(labels)), np.full(len(labels), np.nan)
    thresholds = [decision.operating() for decision in decisions]
    fit = positive is not None and None not in thresholds
    kept = [p[:, positive] < threshold.probability for p, threshold in zip((reference, candidate), thresholds)] if fit else [undefined, undefined]
    answered = [answered_by(p, [decision], own) for p, decision, own in zip((reference, candidate), decisions, logits or (None, None))]
    every = np.ones(len(labels), dtype=bool)
    asked = (("positive_specificity", kept, labels != positive), ("coverage", answered, every))
    return {name: lost_share(*both, members, units, replicates=replicates, seed=seed) for name, both, members in asked}


def lost_share(before: np.ndarray, after: np.ndarray, members: np.ndarray, units: np.ndarray, *, replicates: int = 1000, seed: int = 0) -> Interval:
    """Return of which share of the pictures `members` (bool [N]) something holds `before`, less that of which it holds `after` (both [N], bool or 0 and 1; NaN where it is undefined).

    `units` [N] are the lesions that are drawn (:func:`melanoma_edge.resampling.units_of`); the interval does not end before the limits that so many lesions allow.
    """
    change = before.astype(np.float64) - after.astype(np.float64)
    share = intervals(lambda weights: {"share": ratio(weights @ (change * members), weights @ members)}, units, replicates, seed)["share"]
    return share if share.low is None else _widened(share, *exact.matched(*_moved(change, members, units)))


def recall_change(reference: np.ndarray, candidate: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, float | None]:
    """Return the recall of each class under `candidate` [N, K] minus that under `reference` [N, K].

    Below zero the candidate is worse; None where the class has no pictures. Raises as :func:`melanoma_edge.metrics.scores` does.
    """
    position(None, classes)
    truth, hits = truth_and_hits(*checked(candidate, labels, len(classes), "the candidate's probabilities"))
    _, reference_hits = truth_and_hits(*checked(reference, labels, len(classes), "the reference's probabilities"))
    change = ratio((hits - reference_hits).sum(axis=0), truth.sum(axis=0))
    return {name: optional(value) for name, value in zip(classes, change, strict=True)}


def _gate_figures(probabilities: np.ndarray, labels: np.ndarray, positive: int | None, threshold: float | np.ndarray | None) -> Weighted:
    """Return the three figures of :func:`paired_losses` for one model."""
    is_positive = labels == positive if positive is not None else np.zeros(len(labels), dtype=bool)
    score = probabilities[:, positive or 0]
    found = is_positive * np.where(score >= threshold, 1.0, 0.0) if threshold is not None else np.full(len(labels), np.nan)
    ranking = Ranking(score, is_positive)
    truth, hits = truth_and_hits(probabilities, labels)

    def figures(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "balanced_accuracy": mean_of_defined(ratio(weights @ hits, weights @ truth)),
            "positive_sensitivity": ratio(weights @ found, weights @ is_positive),
            "positive_auc": area_under(*ranking.curve(weights)),
        }

    return figures


def _widened(found: Interval, low: float, high: float) -> Interval:
    """Return the interval, if there is one, reaching at least from `low` to `high`."""
    return found if found.low is None else Interval(value=found.value, low=min(found.low, low), high=max(found.high, high))


def _moved(change: np.ndarray, members: np.ndarray, units: np.ndarray) -> tuple[float, float, int]:
    """Return how many lesions of the pictures `members` [N] are lost and gained, and how many there are.

    `change` [N] is 1 where the reference is right and the candidate is not, -1 where the reverse holds. A lesion with several pictures
    counts by their mean.
    """
    names, lesion = np.unique(units[members], return_inverse=True)
    mean = np.bincount(lesion, change[members]) / np.bincount(lesion)
    return float(mean[mean > 0].sum()), float(-mean[mean < 0].sum()), len(names)


def _limits_of_mean(change: np.ndarray, labels: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """Return the limits of the mean loss over the classes that lesions allow, from each picture's `change` (:func:`_moved`)."""
    moved = [_moved(change, labels == label, units) for label in np.unique(labels)]
    total = sum((lost - gained) / lesions for lost, gained, lesions in moved)
    # One class at its limit beside the others as they were found: the farthest of these.
    limits = [np.array(exact.matched(*one)) - (one[0] - one[1]) / one[2] for one in moved]
    alone = total + min(limit[0] for limit in limits), total + max(limit[1] for limit in limits)

    def together(gained: int) -> float:
        """Return the sum of losses if none was lost anywhere, most of it unseen where none was gained either."""
        none = [one[2] for one in moved if not one[gained]]
        unseen = len(none) * exact.none_of_each(none) if none else 0.0
        return unseen - sum(one[gained] / one[2] for one in moved)

    low, high = min(alone[0], -together(0)), max(alone[1], together(1))
    return low / len(moved), high / len(moved)


def _placements(score: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    """Return the share of the negatives that each picture's `score` lies above, ties as halves: the AUC is its mean over the positives."""
    negatives = np.sort(score[~is_positive])
    return (np.searchsorted(negatives, score, "left") + np.searchsorted(negatives, score, "right")) / (2 * len(negatives))
