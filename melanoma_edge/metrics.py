"""The figures of a model on a set of pictures, each with its 95 % bootstrap interval.

Every figure has one definition, weighted: a picture of weight 2 counts as if it stood there twice.
Weights of ones give the value itself; the bootstrap gives each replicate's weights, so value and
interval cannot drift apart. Several pictures of a lesion are not independent, so the bootstrap
draws whole lesions where they are known (Field and Welsh 2007, "Bootstrapping clustered data"). It sees no
doubt where all resamples say the same; there, and between two models on the same lesions, limits come from :mod:`melanoma_edge.exact`.

The predicted class is the one of the highest probability, the first of them on a tie. A figure that
the pictures do not define (the recall of a class without pictures) is None, never zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from melanoma_edge import exact
from melanoma_edge.contract import Decision, Interval, Scores
from melanoma_edge.errors import BadInput

ECE_BINS = 15
CHUNK_ENTRIES = 2**17
"""Replicates are worked on in chunks of about this many weights (1 MiB), which bounds the memory."""

Weighted = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From weights [replicates, pictures] to figures [replicates], NaN where undefined."""


def scores(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    positive_class: str | None,
    *,
    decision: Decision | Sequence[Decision] | None = None,
    groups: np.ndarray | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Scores:
    """Return every figure of `probabilities` [N, K] against the class indices `labels` [N].

    accuracy; balanced_accuracy and macro_f1, the means of recall and F1 over the classes that stand
    in the labels; recall of each class; macro_auc, the mean one-vs-rest AUC over the classes that
    are some but not all of the labels; positive_auc; the highest sensitivity for the positive class
    over all thresholds whose specificity is at least 80 % or 90 %, on these very pictures; and ece,
    the calibration error of the top class in 15 equal-width bins. With `decision`, also what its threshold in
    force and its abstention, both fitted elsewhere, come to on these pictures; there is one for all, or one for each
    picture where several models answered (out-of-fold predictions).

    `groups` [N] names the lesion of each picture; without it each picture counts as a lesion of its
    own. Intervals are the 2.5 % and 97.5 % percentiles of the replicates in which the figure is
    defined; low and high are None when those are fewer than half, or when there is one lesion only.
    Resampling adds noise to ece and so moves its interval upwards: it can lie above the value. An
    accuracy, recall or sensitivity of 0 or 1 is the same in every resample, which would look certain:
    its interval is Clopper and Pearson's (1934) for as many trials as there are lesions. So are a mean over the classes and an
    AUC of 1: they reach down to what that many lesions leave possible (:func:`melanoma_edge.exact.none_of_each`).

    Raises BadInput for wrong shapes, NaN and values that are not probabilities.
    """
    probabilities, labels = _checked(probabilities, labels, len(classes))
    positive = _position(positive_class, classes)
    units = _units(groups, len(labels))
    figures = Figures(probabilities, labels, positive)
    decisions = [decision] if isinstance(decision, Decision) else list(decision or ())
    if len(decisions) not in (0, 1, len(labels)):
        raise BadInput(f"found {len(decisions)} decisions for {len(labels)} pictures: expected one, or one for each; pass them in the pictures' order")
    decided = _decided(probabilities, labels, positive, decisions) if decisions else lambda weights: {}
    intervals = _intervals(lambda weights: figures(weights) | decided(weights), units, replicates, seed)
    proportions = _proportions(labels, len(classes), positive)
    if decisions:
        proportions["accuracy_of_answers"] = _answered(probabilities, decisions)
    for name, members in proportions.items():
        if name in intervals:
            intervals[name] = _not_certain(intervals[name], exact.none_of(len(np.unique(units[members]))))
    for name, bound in _bounds_of_means(labels, units, positive).items():
        intervals[name] = _not_certain(intervals[name], bound)
    counts = np.bincount(labels, minlength=len(classes))
    return Scores(
        pictures=len(labels),
        lesions=len(np.unique(units)),
        per_class={name: int(count) for name, count in zip(classes, counts, strict=True)},
        positive_class=positive_class,
        recall={name: intervals.pop(f"recall {index}") for index, name in enumerate(classes)},
        bootstrap={"replicates": replicates, "seed": seed, "unit": "picture" if groups is None else "lesion"},
        **intervals,
    )


def paired_losses(
    reference: np.ndarray,
    candidate: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    positive_class: str | None,
    *,
    reference_threshold: float | None,
    candidate_threshold: float | None,
    groups: np.ndarray | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return what `candidate` [N, K] loses against `reference` [N, K] on the same pictures.

    The keys are `balanced_accuracy`, `positive_sensitivity` (each model at its own probability
    threshold) and `positive_auc`; each value is reference minus candidate, so above zero is a loss.
    Both models see the same resamples, of lesions where `groups` are given. A figure is undefined
    (None) without a positive class, without pictures of it or, for the sensitivity, without a
    threshold. Errors are as in :func:`scores`.

    Few pictures prove little, which resampling does not see: one lesion lost of one would be lost for certain. So
    no interval ends before the limits that the counts of lost and gained lesions allow (:func:`melanoma_edge.exact.matched`):
    for the sensitivity those of the positive class, for balanced accuracy those of each class beside the others as they were
    found, and of all classes together in which none was lost, or gained. An AUC changes a little with every picture, and resampling
    sees that; its interval reaches as far as those limits on a side to which nothing has moved.
    """
    positive = _position(positive_class, classes)
    reference, labels = _checked(reference, labels, len(classes), "the reference's probabilities")
    candidate, labels = _checked(candidate, labels, len(classes), "the candidate's probabilities")
    before, after = _gate_figures(reference, labels, positive, reference_threshold), _gate_figures(candidate, labels, positive, candidate_threshold)

    def losses(weights: np.ndarray) -> dict[str, np.ndarray]:
        kept = after(weights)
        return {name: values - kept[name] for name, values in before(weights).items()}

    units = _units(groups, len(labels))
    intervals = _intervals(losses, units, replicates, seed)
    right = [(probabilities.argmax(axis=1) == labels).astype(np.float64) for probabilities in (reference, candidate)]
    intervals["balanced_accuracy"] = _widened(intervals["balanced_accuracy"], *_limits_of_mean(right[0] - right[1], labels, units))
    is_positive = labels == positive
    if intervals["positive_sensitivity"].low is not None:
        called = [(p[:, positive] >= threshold).astype(np.float64) for p, threshold in ((reference, reference_threshold), (candidate, candidate_threshold))]
        moved = _moved(called[0] - called[1], is_positive, units)
        intervals["positive_sensitivity"] = _widened(intervals["positive_sensitivity"], *exact.matched(*moved))
    if intervals["positive_auc"].low is not None:
        below = [_placements(probabilities[:, positive], is_positive) for probabilities in (reference, candidate)]
        lost, gained, lesions = _moved(below[0] - below[1], is_positive, units)
        fewer = min(lesions, len(np.unique(units[~is_positive])))
        low, high = exact.matched(lost * fewer / lesions, gained * fewer / lesions, fewer)
        found = intervals["positive_auc"]
        intervals["positive_auc"] = _widened(found, found.low if gained else low, found.high if lost else high)
    return intervals


def paired_decisions(
    reference: np.ndarray,
    candidate: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    positive_class: str | None,
    *,
    decisions: tuple[Decision, Decision],
    groups: np.ndarray | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return what `candidate` [N, K] loses beside sensitivity, each model under its own of `decisions` (reference's, candidate's).

    The keys are `positive_specificity`, undefined without a positive class or a threshold in force of either, and `coverage`, the share of
    pictures on which the model does not abstain. Signs, intervals and errors are as in :func:`paired_losses`.
    """
    positive = _position(positive_class, classes)
    reference, labels = _checked(reference, labels, len(classes), "the reference's probabilities")
    candidate, labels = _checked(candidate, labels, len(classes), "the candidate's probabilities")
    units, undefined = _units(groups, len(labels)), np.full(len(labels), np.nan)
    thresholds = [decision.operating() for decision in decisions]
    fit = positive is not None and None not in thresholds
    kept = [p[:, positive] < threshold.probability for p, threshold in zip((reference, candidate), thresholds)] if fit else [undefined, undefined]
    answered = [_answered(p, [decision]) for p, decision in zip((reference, candidate), decisions)]
    every = np.ones(len(labels), dtype=bool)
    found = {}
    for name, (before, after), members in (("positive_specificity", kept, labels != positive), ("coverage", answered, every)):
        change = before.astype(np.float64) - after.astype(np.float64)
        [share] = _intervals(lambda weights: {name: _ratio(weights @ (change * members), weights @ members)}, units, replicates, seed).values()
        found[name] = share if share.low is None else _widened(share, *exact.matched(*_moved(change, members, units)))
    return found


def recall_change(reference: np.ndarray, candidate: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, float | None]:
    """Return the recall of each class under `candidate` [N, K] minus that under `reference` [N, K].

    Below zero the candidate is worse; None where the class has no pictures. Raises as `scores` does.
    """
    _position(None, classes)
    truth, hits = _truth_and_hits(*_checked(candidate, labels, len(classes), "the candidate's probabilities"))
    _, reference_hits = _truth_and_hits(*_checked(reference, labels, len(classes), "the reference's probabilities"))
    change = _ratio((hits - reference_hits).sum(axis=0), truth.sum(axis=0))
    return {name: _optional(value) for name, value in zip(classes, change, strict=True)}


def confusion(predicted: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Return how many pictures of each class (rows) were given each class (columns): int [k, k]."""
    predicted = _checked_labels(predicted, len(labels), k, "predicted classes")
    return np.bincount(_checked_labels(labels, len(labels), k) * k + predicted, minlength=k * k).reshape(k, k)


def roc_curve_points(scores: np.ndarray, is_positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (false, true) positive rates at every distinct threshold, from (0, 0) to (1, 1).

    Raises BadInput for NaN and when positives or negatives are missing, for then there is no curve.
    """
    scores, is_positive = np.asarray(scores, dtype=np.float64), np.asarray(is_positive, dtype=bool)
    if scores.ndim != 1 or scores.shape != is_positive.shape:
        raise BadInput(f"found scores of shape {scores.shape} and truths of shape {is_positive.shape}: expected [N] and [N]; pass one each a picture")
    if not np.isfinite(scores).all():
        raise BadInput("found NaN or infinity among the scores: expected finite numbers; check the model's outputs")
    if is_positive.all() or not is_positive.any():
        raise BadInput(f"found {is_positive.sum()} positives among {len(scores)} pictures: expected positives and negatives; leave the curve out")
    positives, negatives = _Ranking(scores, is_positive).curve(np.ones((1, len(scores))))
    return negatives[0] / negatives[0, -1], positives[0] / positives[0, -1]


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = ECE_BINS) -> dict[str, np.ndarray]:
    """Return `confidence`, `accuracy` (means; NaN in an empty bin) and `count` of each of `bins` bins.

    Pictures are binned by the probability of their top class; the bins are equally wide and hold
    their upper edge. These are the bins that the ece is summed over.
    """
    probabilities, labels = _checked(probabilities, labels, None)
    bin_of, confidence, correct = _binned(probabilities, labels, bins)
    count = np.bincount(bin_of, minlength=bins)
    return {
        "confidence": _ratio(np.bincount(bin_of, confidence, bins), count),
        "accuracy": _ratio(np.bincount(bin_of, correct, bins), count),
        "count": count,
    }


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


class Figures:
    """Every figure of one model on one set of pictures, as a function of the pictures' weights."""

    def __init__(self, probabilities: np.ndarray, labels: np.ndarray, positive: int | None) -> None:
        """Sort and encode once what all replicates share; `positive` is the positive class's index."""
        self._classes = range(probabilities.shape[1])
        bin_of, confidence, self._correct = _binned(probabilities, labels, ECE_BINS)
        self._truth, self._hits = _truth_and_hits(probabilities, labels)
        self._predicted = np.eye(len(self._classes))[probabilities.argmax(axis=1)]
        self._gap = np.eye(ECE_BINS)[bin_of] * (confidence - self._correct)[:, np.newaxis]
        self._rankings = [_Ranking(probabilities[:, index], labels == index) for index in self._classes]
        self._positive = positive

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return the figures [replicates] for `weights` [replicates, N], NaN where undefined."""
        total = weights.sum(axis=1)
        support = weights @ self._truth
        hits = weights @ self._hits
        recall = _ratio(hits, support)
        f1 = np.where(support > 0, _ratio(2 * hits, support + weights @ self._predicted), np.nan)
        auc = np.full(support.shape, np.nan)
        positive = dict.fromkeys(
            ("positive_auc", "positive_sensitivity_at_80_specificity", "positive_sensitivity_at_90_specificity"), np.full(len(weights), np.nan)
        )
        for index, ranking in enumerate(self._rankings):
            curve = ranking.curve(weights)
            auc[:, index] = _auc(*curve)
            if index == self._positive:
                positive["positive_auc"] = auc[:, index]
                positive["positive_sensitivity_at_80_specificity"] = _sensitivity_at(*curve, 0.8)
                positive["positive_sensitivity_at_90_specificity"] = _sensitivity_at(*curve, 0.9)
        return {
            "accuracy": weights @ self._correct / total,
            "balanced_accuracy": _mean_of_defined(recall),
            "macro_f1": _mean_of_defined(f1),
            "macro_auc": _mean_of_defined(auc),
            "ece": np.abs(weights @ self._gap).sum(axis=1) / total,
            **positive,
            **{f"recall {index}": recall[:, index] for index in self._classes},
        }


def _decided(probabilities: np.ndarray, labels: np.ndarray, positive: int | None, decisions: Sequence[Decision]) -> Weighted:
    """Return what the decisions' thresholds in force and their abstention come to, as a function of weights."""
    answered = _answered(probabilities, decisions).astype(np.float64)
    right = answered * (probabilities.argmax(axis=1) == labels)
    in_force = [decision.operating() for decision in decisions]

    def figures(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = {
            "coverage_of_decision": weights @ answered / weights.sum(axis=1),
            "accuracy_of_answers": _ratio(weights @ right, weights @ answered),
        }
        if positive is not None and None not in in_force:
            thresholds = np.array([threshold.probability for threshold in in_force])
            called, is_positive = probabilities[:, positive] >= thresholds, labels == positive
            found["positive_sensitivity_of_decision"] = _ratio(weights @ (called & is_positive), weights @ is_positive)
            found["positive_specificity_of_decision"] = _ratio(weights @ (~called & ~is_positive), weights @ ~is_positive)
        return found

    return figures


def _answered(probabilities: np.ndarray, decisions: Sequence[Decision]) -> np.ndarray:
    """Return on which pictures the model does not abstain, by one decision or each picture's own: bool [N]."""
    return probabilities.max(axis=1) >= np.array([decision.abstention.probability for decision in decisions])


class _Ranking:
    """Pictures in falling order of their scores, with equal scores passed at one threshold."""

    def __init__(self, scores: np.ndarray, is_positive: np.ndarray) -> None:
        self._order = np.argsort(-scores, kind="stable")
        self._is_positive = is_positive[self._order].astype(np.float64)
        self._last = np.append(np.flatnonzero(np.diff(scores[self._order])), len(scores) - 1)

    def curve(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of (positives, negatives) at or above each threshold [replicates, 1 + T]."""
        ranked = weights[:, self._order]
        passed = np.cumsum(ranked, axis=1)[:, self._last]
        ranked *= self._is_positive
        positives = np.cumsum(ranked, axis=1)[:, self._last]
        none = np.zeros((len(weights), 1))
        return np.hstack([none, positives]), np.hstack([none, passed - positives])


def _auc(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Return the area under each curve of :meth:`_Ranking.curve`; half for ties."""
    area = np.einsum("rt,rt->r", np.diff(negatives, axis=1), positives[:, 1:] + positives[:, :-1]) / 2
    return _ratio(area, positives[:, -1] * negatives[:, -1])


def _sensitivity_at(positives: np.ndarray, negatives: np.ndarray, specificity: float) -> np.ndarray:
    """Return the highest sensitivity on each curve where the specificity is at least `specificity`."""
    reached = _ratio(negatives[:, -1:] - negatives, negatives[:, -1:]) >= specificity
    lowest = np.maximum(reached.sum(axis=1) - 1, 0)  # specificity only falls along a curve
    sensitivity = _ratio(positives[np.arange(len(lowest)), lowest], positives[:, -1])
    return np.where(negatives[:, -1] > 0, sensitivity, np.nan)


def _gate_figures(probabilities: np.ndarray, labels: np.ndarray, positive: int | None, threshold: float | None) -> Weighted:
    """Return the three figures of :func:`paired_losses` for one model."""
    is_positive = labels == positive if positive is not None else np.zeros(len(labels), dtype=bool)
    score = probabilities[:, positive or 0]
    found = is_positive * np.where(score >= threshold, 1.0, 0.0) if threshold is not None else np.full(len(labels), np.nan)
    ranking = _Ranking(score, is_positive)
    truth, hits = _truth_and_hits(probabilities, labels)

    def figures(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "balanced_accuracy": _mean_of_defined(_ratio(weights @ hits, weights @ truth)),
            "positive_sensitivity": _ratio(weights @ found, weights @ is_positive),
            "positive_auc": _auc(*ranking.curve(weights)),
        }

    return figures


def _intervals(figures: Weighted, units: np.ndarray, replicates: int, seed: int) -> dict[str, Interval]:
    """Return each figure for weights of ones, with its interval over the bootstrap of `units`."""
    point = figures(np.ones((1, len(units))))
    resampled = bootstrap_weights(units, replicates, seed) if len(np.unique(units)) > 1 else ()
    parts = [figures(weights) for weights in resampled]
    intervals = {}
    for name, value in point.items():
        replicated = np.concatenate([value[:0], *(part[name] for part in parts)])
        defined = replicated[~np.isnan(replicated)]
        low = high = None
        if not np.isnan(value[0]) and len(defined) > 0 and 2 * len(defined) >= replicates:
            low, high = (float(bound) for bound in np.quantile(defined, (0.025, 0.975)))
        intervals[name] = Interval(value=_optional(value[0]), low=low, high=high)
    return intervals


def _proportions(labels: np.ndarray, k: int, positive: int | None) -> dict[str, np.ndarray]:
    """Return the figures that are shares of pictures, and of which ones: bool [N] each."""
    every = np.ones(len(labels), dtype=bool)
    members = {"accuracy": every, "coverage_of_decision": every, **{f"recall {index}": labels == index for index in range(k)}}
    if positive is not None:
        members |= {f"positive_sensitivity_at_{percent}_specificity": labels == positive for percent in (80, 90)}
        members |= {"positive_sensitivity_of_decision": labels == positive, "positive_specificity_of_decision": labels != positive}
    return members


def _not_certain(interval: Interval, bound: float) -> Interval:
    """Return the interval, reaching from 0 up to `bound`, or from 1 as far down, where every resample found none or all."""
    if interval.low is None or interval.low != interval.high or interval.value not in (0.0, 1.0):
        return interval
    return Interval(value=1.0, low=1 - bound, high=1.0) if interval.value else Interval(value=0.0, low=0.0, high=bound)


def _bounds_of_means(labels: np.ndarray, units: np.ndarray, positive: int | None) -> dict[str, float]:
    """Return how far means over the classes and AUCs may lie from a perfect 1 with so many lesions.

    An AUC is that of the class's lesions among the others: the fewer of both bound it.
    """
    lesions = {label: (len(np.unique(units[labels == label])), len(np.unique(units[labels != label]))) for label in np.unique(labels)}
    recalled = exact.none_of_each([mine for mine, _ in lesions.values()])
    bounds = {"balanced_accuracy": recalled, "macro_f1": recalled}
    if len(lesions) > 1:
        bounds["macro_auc"] = exact.none_of_each([min(both) for both in lesions.values()])
        if positive in lesions:
            bounds["positive_auc"] = exact.none_of(min(lesions[positive]))
    return bounds


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


def _binned(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each picture's bin, its top class's probability, and 1.0 where that class is right."""
    confidence = probabilities.max(axis=1)
    inner_edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    return np.digitize(confidence, inner_edges, right=True), confidence, (probabilities.argmax(axis=1) == labels).astype(np.float64)


def _truth_and_hits(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels as one-hot rows [N, K], and the same with the rows of wrong answers zero."""
    truth = np.eye(probabilities.shape[1])[labels]
    return truth, truth * (probabilities.argmax(axis=1) == labels)[:, np.newaxis]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, NaN where the denominator is zero."""
    undefined = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Return each row's mean over the entries that are not NaN; NaN where all are."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def _optional(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _position(positive_class: str | None, classes: Sequence[str]) -> int | None:
    """Return the index of the positive class among `classes`, which must differ from each other."""
    if len(set(classes)) != len(classes):
        raise BadInput(f"found classes {list(classes)}: expected different names; remove the repetition")
    if positive_class is not None and positive_class not in classes:
        raise BadInput(f"found positive class {positive_class!r}: expected one of {', '.join(classes)}; correct its name")
    return None if positive_class is None else list(classes).index(positive_class)


def _units(groups: np.ndarray | None, pictures: int) -> np.ndarray:
    """Return the unit to resample of each picture: its group, or the picture itself."""
    units = np.arange(pictures) if groups is None else np.asarray(groups)
    if units.shape != (pictures,):
        raise BadInput(f"found groups of shape {units.shape}: expected one for each of {pictures} pictures; pass them in the pictures' order")
    if (units != units).any():
        raise BadInput("found NaN among the groups: expected a lesion for every picture; give single pictures names of their own")
    return units


def _checked(
    probabilities: np.ndarray, labels: np.ndarray, k: int | None, name: str = "probabilities"
) -> tuple[np.ndarray, np.ndarray]:
    """Return both in float64 and int64 if they are distributions [N, K] (any K for None) and classes [N]."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or 0 in probabilities.shape or k not in (None, probabilities.shape[1]):
        raise BadInput(f"found {name} of shape {probabilities.shape}: expected [pictures, {k or 'classes'}]; pass a row for at least one picture")
    if not np.isfinite(probabilities).all():
        raise BadInput(f"found NaN or infinity among {name}: expected finite numbers; check the model's outputs")
    if probabilities.min() < 0 or np.abs(probabilities.sum(axis=1) - 1).max() > 1e-3:
        raise BadInput(f"found {name} that are negative or do not add up to 1: expected a distribution a row; apply the softmax first")
    return probabilities, _checked_labels(labels, *probabilities.shape)


def _checked_labels(given: np.ndarray, pictures: int, k: int, name: str = "labels") -> np.ndarray:
    """Return `given` in int64 if it is one class index in 0..k-1 for each picture."""
    labels = np.asarray(given)
    if labels.shape != (pictures,) or labels.dtype.kind not in "iu":
        raise BadInput(f"found {name} of shape {labels.shape} and type {labels.dtype}: expected {pictures} whole numbers; pass one a picture")
    if pictures and (labels.min() < 0 or labels.max() >= k):
        raise BadInput(f"found {name} from {labels.min()} to {labels.max()}: expected 0 to {k - 1}; check the order of the classes")
    return labels.astype(np.int64)
