"""The figures of a model on a set of pictures, each with its 95 % bootstrap interval.

Every figure has one definition, weighted: a picture of weight 2 counts as if it stood there twice.
Weights of ones give the value itself; the bootstrap gives each replicate's weights, so value and
interval cannot drift apart (:mod:`melanoma_edge.resampling`). The bootstrap sees no doubt where all resamples say the same; there,
limits come from :mod:`melanoma_edge.exact`. Two models on the same pictures are compared in :mod:`melanoma_edge.paired`.

The predicted class is the one of the highest probability, the first of them on a tie. A figure that
the pictures do not define (the recall of a class without pictures) is None, never zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melanoma_edge import calibration, exact
from melanoma_edge.contract import Decision, Interval, Scores
from melanoma_edge.errors import BadInput
from melanoma_edge.ranking import Ranking, area_under, sensitivity_at
from melanoma_edge.resampling import Weighted, intervals, mean_of_defined, ratio, units_of

ECE_BINS = 15


def scores(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    positive_class: str | None,
    *,
    decision: Decision | Sequence[Decision] | None = None,
    logits: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    priors: np.ndarray | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Scores:
    """Return every figure of `probabilities` [N, K] against the class indices `labels` [N].

    accuracy; balanced_accuracy and macro_f1, the means of recall and F1 over the classes that stand
    in the labels; recall of each class; macro_auc, the mean one-vs-rest AUC over the classes that
    are some but not all of the labels; positive_auc, and positive_auc_against each other class alone, by the pictures of these
    two; the highest sensitivity for the positive class over all thresholds whose specificity is at least 80 % or 90 %, on these very pictures; and ece,
    the calibration error of the top class in 15 equal-width bins. With `decision`, also what its threshold in
    force (called_positive: on each class but the positive one alone) and its abstention, both fitted elsewhere, come to on these pictures; there is one for all, or one for each
    picture where several models answered (out-of-fold predictions). A decision that abstains by energy needs the `logits` [N, K] of the
    pictures.

    Given `priors`, numbers above 0 in the order of the classes, also ece_at_priors: the same error with the pictures weighted so that each class has
    its share of `priors`. Classes without pictures are left out and the rest divided by its sum, in each replicate anew. Given the deployment priors, that is
    the mix in which :func:`melanoma_edge.calibration.fit_temperature` weighs validation pictures (it minimizes their log-loss, not this error); ece is of the mix
    that the pictures come in, and is not 0 there even where the probabilities are perfect at `priors`.

    `groups` [N] names the lesion of each picture; without it each picture counts as a lesion of its
    own. Intervals are the 2.5 % and 97.5 % percentiles of the replicates in which the figure is
    defined; low and high are None when those are fewer than half, or when there is one lesion only.
    Resampling adds noise to ece and so moves its interval upwards: it can lie above the value; that of ece_at_priors all
    the more so where few pictures of a class stand for a large share. An
    accuracy, recall or sensitivity of 0 or 1 is the same in every resample, which would look certain:
    its interval is Clopper and Pearson's (1934) for as many trials as there are lesions. So are a mean over the classes and an
    AUC of 1: they reach down to what that many lesions leave possible (:func:`melanoma_edge.exact.none_of_each`).

    Raises BadInput for wrong shapes, NaN, values that are not probabilities and priors that are not above 0.
    """
    probabilities, labels = checked(probabilities, labels, len(classes))
    positive = position(positive_class, classes)
    units = units_of(groups, len(labels))
    figures = Figures(probabilities, labels, positive, None if priors is None else _checked_priors(priors, len(classes)))
    decisions = [decision] if isinstance(decision, Decision) else list(decision or ())
    if len(decisions) not in (0, 1, len(labels)):
        raise BadInput(f"found {len(decisions)} decisions for {len(labels)} pictures: expected one, or one for each; pass them in the pictures' order")
    answered = answered_by(probabilities, decisions, logits) if decisions else None
    decided = _decided(probabilities, labels, positive, decisions, answered) if decisions else lambda weights: {}
    found = intervals(lambda weights: figures(weights) | decided(weights), units, replicates, seed)
    proportions = _proportions(labels, len(classes), positive)
    if decisions:
        proportions["accuracy_of_answers"] = answered
    for name, members in proportions.items():
        if name in found:
            found[name] = _not_certain(found[name], exact.none_of(len(np.unique(units[members]))))
    for name, bound in _bounds_of_means(labels, units, positive).items():
        found[name] = _not_certain(found[name], bound)
    counts = np.bincount(labels, minlength=len(classes))

    def of_each(figure: str) -> dict[str, Interval]:
        return {name: found.pop(f"{figure} {index}") for index, name in enumerate(classes) if f"{figure} {index}" in found}

    return Scores(
        pictures=len(labels),
        lesions=len(np.unique(units)),
        per_class={name: int(count) for name, count in zip(classes, counts, strict=True)},
        positive_class=positive_class,
        recall=of_each("recall"),
        positive_auc_against=of_each("auc against") or None,
        called_positive=of_each("called") or None,
        bootstrap={"replicates": replicates, "seed": seed, "unit": "picture" if groups is None else "lesion"},
        **found,
    )


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
    positives, negatives = Ranking(scores, is_positive).curve(np.ones((1, len(scores))))
    return negatives[0] / negatives[0, -1], positives[0] / positives[0, -1]


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = ECE_BINS) -> dict[str, np.ndarray]:
    """Return `confidence`, `accuracy` (means; NaN in an empty bin) and `count` of each of `bins` bins.

    Pictures are binned by the probability of their top class; the bins are equally wide and hold
    their upper edge. These are the bins that the ece is summed over.
    """
    probabilities, labels = checked(probabilities, labels, None)
    bin_of, confidence, correct = _binned(probabilities, labels, bins)
    count = np.bincount(bin_of, minlength=bins)
    return {
        "confidence": ratio(np.bincount(bin_of, confidence, bins), count),
        "accuracy": ratio(np.bincount(bin_of, correct, bins), count),
        "count": count,
    }


def calibration_error(bins: dict[str, np.ndarray]) -> float:
    """Return the ece of what :func:`reliability` returned: the mean distance of confidence and accuracy, weighted by count."""
    known = bins["count"] > 0
    return float(bins["count"][known] @ np.abs(bins["confidence"] - bins["accuracy"])[known] / bins["count"].sum())


class Figures:
    """Every figure of one model on one set of pictures, as a function of the pictures' weights."""

    def __init__(self, probabilities: np.ndarray, labels: np.ndarray, positive: int | None, priors: np.ndarray | None = None) -> None:
        """Sort and encode once what all replicates share; `positive` is the positive class's index, `priors` [K] are numbers above 0."""
        self._classes = range(probabilities.shape[1])
        bin_of, confidence, self._correct = _binned(probabilities, labels, ECE_BINS)
        self._truth, self._hits = truth_and_hits(probabilities, labels)
        self._predicted = np.eye(len(self._classes))[probabilities.argmax(axis=1)]
        self._gap = np.eye(ECE_BINS)[bin_of] * (confidence - self._correct)[:, np.newaxis]
        self._rankings = [Ranking(probabilities[:, index], labels == index) for index in self._classes]
        self._positive = positive
        self._against: dict[int, tuple[np.ndarray, Ranking]] = {}
        for other in () if positive is None else self._classes:
            if other != positive:
                of_both = np.flatnonzero((labels == positive) | (labels == other))
                self._against[other] = of_both, Ranking(probabilities[of_both, positive], labels[of_both] == positive)
        self._labels, self._priors = labels, priors

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return the figures [replicates] for `weights` [replicates, N], NaN where undefined."""
        total = weights.sum(axis=1)
        support = weights @ self._truth
        hits = weights @ self._hits
        recall = ratio(hits, support)
        f1 = np.where(support > 0, ratio(2 * hits, support + weights @ self._predicted), np.nan)
        auc = np.full(support.shape, np.nan)
        positive = dict.fromkeys(
            ("positive_auc", "positive_sensitivity_at_80_specificity", "positive_sensitivity_at_90_specificity"), np.full(len(weights), np.nan)
        )
        for index, ranking in enumerate(self._rankings):
            curve = ranking.curve(weights)
            auc[:, index] = area_under(*curve)
            if index == self._positive:
                positive["positive_auc"] = auc[:, index]
                positive["positive_sensitivity_at_80_specificity"] = sensitivity_at(*curve, 0.8)
                positive["positive_sensitivity_at_90_specificity"] = sensitivity_at(*curve, 0.9)
        return {
            "accuracy": weights @ self._correct / total,
            "balanced_accuracy": mean_of_defined(recall),
            "macro_f1": mean_of_defined(f1),
            "macro_auc": mean_of_defined(auc),
            "ece": np.abs(weights @ self._gap).sum(axis=1) / total,
            **({} if self._priors is None else {"ece_at_priors": self._at_priors(weights, support)}),
            **positive,
            **{f"auc against {other}": area_under(*ranking.curve(weights[:, of_both])) for other, (of_both, ranking) in self._against.items()},
            **{f"recall {index}": recall[:, index] for index in self._classes},
        }

    def _at_priors(self, weights: np.ndarray, support: np.ndarray) -> np.ndarray:
        """Return the ece [replicates] where the classes, of which `support` [replicates, K] is there, have their shares of the priors."""
        shares = np.where(support > 0, self._priors, 0.0)
        shares /= shares.sum(axis=1, keepdims=True)
        balanced = np.divide(shares, support, out=np.zeros_like(shares), where=support > 0)[:, self._labels]
        balanced *= weights
        return np.abs(balanced @ self._gap).sum(axis=1)


def _decided(probabilities: np.ndarray, labels: np.ndarray, positive: int | None, decisions: Sequence[Decision], answers: np.ndarray) -> Weighted:
    """Return what the decisions' thresholds in force and their abstention come to, as a function of weights; `answers` bool [N] is who got one."""
    answered = answers.astype(np.float64)
    right = answered * (probabilities.argmax(axis=1) == labels)
    in_force = [decision.operating() for decision in decisions]

    def figures(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = {
            "coverage_of_decision": weights @ answered / weights.sum(axis=1),
            "accuracy_of_answers": ratio(weights @ right, weights @ answered),
        }
        if positive is not None and None not in in_force:
            thresholds = np.array([threshold.probability for threshold in in_force])
            called, is_positive = probabilities[:, positive] >= thresholds, labels == positive
            found["positive_sensitivity_of_decision"] = ratio(weights @ (called & is_positive), weights @ is_positive)
            found["positive_specificity_of_decision"] = ratio(weights @ (~called & ~is_positive), weights @ ~is_positive)
            for other in range(probabilities.shape[1]):
                if other != positive:
                    found[f"called {other}"] = ratio(weights @ (called & (labels == other)), weights @ (labels == other))
        return found

    return figures


def answered_by(probabilities: np.ndarray, decisions: Sequence[Decision], logits: np.ndarray | None = None) -> np.ndarray:
    """Return on which pictures the model does not abstain, by one decision or each picture's own: bool [N].

    Raises BadInput where a decision abstains by energy and there are no `logits` [N, K].
    """
    if len(decisions) == 1:
        return calibration.answers(decisions[0].abstention, probabilities, logits)
    answered = np.zeros(len(probabilities), dtype=bool)
    for abstention in dict.fromkeys(decision.abstention for decision in decisions):
        mine = np.array([decision.abstention == abstention for decision in decisions])
        answered[mine] = calibration.answers(abstention, probabilities[mine], None if logits is None else logits[mine])
    return answered


def _proportions(labels: np.ndarray, k: int, positive: int | None) -> dict[str, np.ndarray]:
    """Return the figures that are shares of pictures, and of which ones: bool [N] each."""
    every = np.ones(len(labels), dtype=bool)
    members = {"accuracy": every, "coverage_of_decision": every, **{f"recall {index}": labels == index for index in range(k)}}
    if positive is not None:
        members |= {f"positive_sensitivity_at_{percent}_specificity": labels == positive for percent in (80, 90)}
        members |= {"positive_sensitivity_of_decision": labels == positive, "positive_specificity_of_decision": labels != positive}
        members |= {f"called {index}": labels == index for index in range(k) if index != positive}
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
    lesions = {int(label): (len(np.unique(units[labels == label])), len(np.unique(units[labels != label]))) for label in np.unique(labels)}
    recalled = exact.none_of_each([mine for mine, _ in lesions.values()])
    bounds = {"balanced_accuracy": recalled, "macro_f1": recalled}
    if len(lesions) > 1:
        bounds["macro_auc"] = exact.none_of_each([min(both) for both in lesions.values()])
        if positive in lesions:
            bounds["positive_auc"] = exact.none_of(min(lesions[positive]))
            bounds |= {f"auc against {other}": exact.none_of(min(lesions[positive][0], mine)) for other, (mine, _) in lesions.items() if other != positive}
    return bounds


def _binned(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each picture's bin, its top class's probability, and 1.0 where that class is right."""
    confidence = probabilities.max(axis=1)
    inner_edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    return np.digitize(confidence, inner_edges, right=True), confidence, (probabilities.argmax(axis=1) == labels).astype(np.float64)


def truth_and_hits(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels as one-hot rows [N, K], and the same with the rows of wrong answers zero."""
    truth = np.eye(probabilities.shape[1])[labels]
    return truth, truth * (probabilities.argmax(axis=1) == labels)[:, np.newaxis]


def position(positive_class: str | None, classes: Sequence[str]) -> int | None:
    """Return the index of the positive class among `classes`, which must differ from each other."""
    if len(set(classes)) != len(classes):
        raise BadInput(f"found classes {list(classes)}: expected different names; remove the repetition")
    if positive_class is not None and positive_class not in classes:
        raise BadInput(f"found positive class {positive_class!r}: expected one of {', '.join(classes)}; correct its name")
    return None if positive_class is None else list(classes).index(positive_class)


def checked(
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


def _checked_priors(given: np.ndarray, k: int) -> np.ndarray:
    """Return `given` in float64 if it is a finite number above 0 for each of k classes."""
    priors = np.asarray(given, dtype=np.float64)
    if priors.shape != (k,) or not np.isfinite(priors).all() or (priors <= 0).any():
        raise BadInput(f"found priors {priors.tolist()}: expected {k} numbers above 0; give every class a share")
    return priors


def _checked_labels(given: np.ndarray, pictures: int, k: int, name: str = "labels") -> np.ndarray:
    """Return `given` in int64 if it is one class index in 0..k-1 for each picture."""
    labels = np.asarray(given)
    if labels.shape != (pictures,) or labels.dtype.kind not in "iu":
        raise BadInput(f"found {name} of shape {labels.shape} and type {labels.dtype}: expected {pictures} whole numbers; pass one a picture")
    if pictures and (labels.min() < 0 or labels.max() >= k):
        raise BadInput(f"found {name} from {labels.min()} to {labels.max()}: expected 0 to {k - 1}; check the order of the classes")
    return labels.astype(np.int64)
