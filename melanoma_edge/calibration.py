"""From logits to decisions: temperature, priors, thresholds, abstention.

Everything is fitted on one artifact's own logits of the validation part and applied by
:func:`decide`, the one implementation of a decision in Python; docs/decisions.md says it for every language.
All arithmetic is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from melanoma_edge import exact
from melanoma_edge.contract import Abstention, Decision, Interval, Manifest, Recipe, Threshold
from melanoma_edge.errors import BadInput

TEMPERATURES = (0.05, 20.0)
"""The range in which the temperature is sought."""
LEAST_PROBABILITY = 2.0**-24
"""What smaller probabilities of a model's output count as before their logarithm is taken: half the distance between 1 and the next float32."""
SPECIFICITIES = (0.8, 0.9)
"""The specificities that every decision has a threshold for, to look at."""
ENERGY_TEMPERATURE = 1.0
"""Of the energy score. Liu et al. find that larger ones tell less and take 1, which needs no fitting."""

Method = Literal["confidence", "energy"]
Rule = tuple[Literal["sensitivity", "specificity"], float]
"""What a threshold keeps on the validation part, and how much of it."""


@dataclass(frozen=True)
class Verdict:
    """What the model says about one picture."""

    probabilities: dict[str, float]
    """Of each class, calibrated and corrected to the deployment priors; in the model's class order."""
    top: str
    """The most probable class, the first of them on a tie."""
    positive: bool | None
    """Whether the positive class reaches its threshold; None where there is no positive class."""
    abstains: bool
    """Whether the model says that it does not know; the other fields hold what it would have said."""


def as_logits(outputs: np.ndarray, kind: str) -> np.ndarray:
    """Return a model's outputs [..., K] as logits: themselves, or the logarithms of `kind` "probabilities" (at least LEAST_PROBABILITY), float32.

    The softmax of the logarithms gives back the probabilities. Raises BadInput for negative ones.
    """
    if kind == "logits":
        return outputs
    if (np.asarray(outputs) < -1e-3).any():
        raise BadInput("found negative numbers where the model is said to give probabilities: export it again with --output logits")
    return np.log(np.maximum(np.asarray(outputs, dtype=np.float64), LEAST_PROBABILITY)).astype(np.float32)


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the log-probabilities of `logits` [..., K] divided by `temperature`, in float64.

    Raises BadInput for NaN, infinity and a temperature that is not above zero.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise BadInput("found NaN or infinity among the logits: expected finite numbers; check the picture and the model file")
    if not temperature > 0:
        raise BadInput(f"found temperature {temperature}: expected a number above 0; fit the decision again")
    shifted = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities of `logits` [..., K] divided by `temperature`. Raises as `log_softmax` does."""
    return np.exp(log_softmax(logits, temperature))


def correct_priors(probabilities: np.ndarray, training: np.ndarray, deployment: np.ndarray) -> np.ndarray:
    """Return `probabilities` [..., K] moved from the `training` to the `deployment` class priors [K].

    The formula is p * deployment / training, renormalized (Saerens, Latinne and Decaestecker 2002,
    "Adjusting the outputs of a classifier to new a priori probabilities", equation 2.4).

    Raises BadInput for NaN, rows that are no distribution, and priors that are not K numbers above zero.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if not (np.isfinite(probabilities) & (probabilities >= 0)).all() or not probabilities.any(axis=-1).all():
        raise BadInput("found NaN, infinite or negative probabilities or a row of zeros: expected distributions; check the model's outputs")
    weighted = probabilities * _prior_ratio(training, deployment, probabilities.shape[-1])
    return weighted / weighted.sum(axis=-1, keepdims=True)


def probabilities(logits: np.ndarray, temperature: float, training: np.ndarray, deployment: np.ndarray) -> np.ndarray:
    """Return the probabilities that decisions rest on: softmax at `temperature`, then the priors corrected."""
    return correct_priors(softmax(logits, temperature), training, deployment)


def priors_of(manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """Return the class shares (in training, in deployment) of a bundle, float64 [K] each, in the order of its classes."""
    training, deployment = (np.array([shares[name] for name in manifest.classes]) for shares in (manifest.priors.training, manifest.priors.deployment))
    return training, deployment


def stated_priors(recipe: Recipe, classes: Sequence[str]) -> np.ndarray | None:
    """Return the class shares in deployment that a recipe states, float64 [K] in the order of `classes`, adding up to 1; None where it names a rule.

    Raises BadInput where it states them for other classes.
    """
    stated = recipe.deployment_prior
    if isinstance(stated, str):
        return None
    unknown, missing = [name for name in stated if name not in classes], [name for name in classes if name not in stated]
    if unknown or missing:
        found = [f"names {', '.join(map(repr, unknown))}" if unknown else "", f"gives no share to {', '.join(map(repr, missing))}" if missing else ""]
        raise BadInput(
            f"deployment_prior {' and '.join(filter(None, found))}: expected a share for each of the classes ({', '.join(classes)}) and no other; "
            "correct the table, or write deployment_prior = \"balanced\""
        )
    shares = np.array([stated[name] for name in classes], dtype=np.float64)
    return shares / shares.sum()


def fit_temperature(logits: np.ndarray, labels: np.ndarray, training: np.ndarray, deployment: np.ndarray) -> float:
    """Return the temperature that gives `labels` [N] the highest likelihood under :func:`probabilities`.

    Pictures are weighted so that the classes found have the shares of `deployment`, for that is the
    population that the probabilities are corrected to.

    Temperature scaling after Guo et al. 2017, "On Calibration of Modern Neural Networks". The mean
    log-loss is convex in 1/temperature, so it has one minimum, which is sought between 0.05 and 20;
    logits that are always right end at the lower end, or where their loss is already zero. Where
    nothing beats 1, it is 1.

    Raises BadInput for NaN, wrong shapes and an empty validation part.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 2 or 0 in logits.shape or labels.shape != logits.shape[:1] or labels.dtype.kind not in "iu":
        raise BadInput(
            f"found logits of shape {logits.shape} and labels of shape {labels.shape} and type {labels.dtype}: "
            "expected [N, K] and [N] whole numbers, N at least 1; check the validation part"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise BadInput(f"found labels from {labels.min()} to {labels.max()}: expected 0 to {logits.shape[1] - 1}; check the order of the classes")
    log_ratio = np.log(_prior_ratio(training, deployment, logits.shape[1]))

    weights = (np.asarray(deployment) / np.maximum(np.bincount(labels, minlength=logits.shape[1]), 1))[labels]
    weights /= weights.sum()

    def loss(log_temperature: float) -> float:
        corrected = log_softmax(log_softmax(logits, np.exp(log_temperature)) + log_ratio)
        return -float(weights @ corrected[np.arange(len(labels)), labels])

    best = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(best.x)) if best.fun < loss(0.0) else 1.0


def energy(logits: np.ndarray, temperature: float = ENERGY_TEMPERATURE) -> np.ndarray:
    """Return the energy [...] of `logits` [..., K]: -T log(sum(exp(logits / T))), low for what is like the training pictures.

    Liu et al. 2020, "Energy-based Out-of-distribution Detection", equation 4. Unlike probabilities it changes when all logits rise
    together, so logarithms of probabilities have none: theirs is 0. Raises BadInput for NaN, infinity and a temperature that is not above zero.
    """
    logits = np.asarray(logits, dtype=np.float64)
    top = logits.max(axis=-1)
    # log_softmax of the top class is top / T less the logarithm of the sum, so nothing overflows.
    return temperature * log_softmax(logits, temperature).max(axis=-1) - top


def certainty(method: Method, probabilities: np.ndarray, logits: np.ndarray | None = None, temperature: float = ENERGY_TEMPERATURE) -> np.ndarray:
    """Return how sure a model is of each picture, float64 [N], the surer the higher: the top probability, or the energy with its sign turned.

    `probabilities` [N, K] are those that decisions rest on, `logits` [N, K] the artifact's own. Raises BadInput where `energy` is
    asked for without logits.
    """
    if method == "confidence":
        return np.asarray(probabilities, dtype=np.float64).max(axis=1)
    if logits is None or np.shape(logits) != np.shape(probabilities):
        raise BadInput(f"found logits of shape {np.shape(logits)} for probabilities of shape {np.shape(probabilities)}: the energy needs the artifact's own logits")
    return -energy(logits, temperature)


def answers(abstention: Abstention, probabilities: np.ndarray, logits: np.ndarray | None = None) -> np.ndarray:
    """Return on which pictures a model does not abstain: bool [N]. Arguments and errors are those of :func:`certainty`."""
    sure = certainty(abstention.method, probabilities, logits, abstention.temperature or ENERGY_TEMPERATURE)
    return sure >= (-abstention.threshold if abstention.method == "energy" else abstention.threshold)


def fit_threshold(probs_positive: np.ndarray, is_positive: np.ndarray, rule: Rule, lesions: np.ndarray | None = None) -> Threshold:
    """Return the threshold that keeps what `rule` asks for on the validation part, with what it comes to there.

    ("sensitivity", target): the highest threshold that at least the share `target` of the positives reaches, so the one that costs the
    least specificity. It is a positive's probability. Without positives a sensitivity means nothing: the threshold is 0.5.
    ("specificity", target): the lowest threshold that at least the share `target` of the others stays below. It is one of the
    probabilities found; when even the highest of them is shared by too many negatives, it is the next number above it, and nothing there
    is positive. Without negatives it is 0.5.

    Intervals are exact ones for as many lesions as `lesions` [N] names (:func:`melanoma_edge.exact.share`); without, each picture
    counts as one. What the pictures do not define is None. Raises BadInput for NaN, shapes that differ and a target outside 0..1.
    """
    probs_positive, is_positive = np.asarray(probs_positive, dtype=np.float64), np.asarray(is_positive, dtype=bool)
    if probs_positive.ndim != 1 or probs_positive.shape != is_positive.shape or not np.isfinite(probs_positive).all():
        raise BadInput(
            f"found probabilities of shape {probs_positive.shape} for truths of shape {is_positive.shape}, or NaN among them: "
            "expected [N] finite numbers and [N]; check the model's outputs"
        )
    kind, target = rule
    if not 0 <= target <= 1:
        raise BadInput(f"found {kind} {target}: expected a share from 0 to 1; correct it in the recipe")
    lesions = np.arange(len(probs_positive)) if lesions is None else np.asarray(lesions)
    if lesions.shape != probs_positive.shape:
        raise BadInput(f"found lesions of shape {lesions.shape} for {len(probs_positive)} pictures: expected one for each; pass them in the pictures' order")
    probability = _highest_with(probs_positive[is_positive], target) if kind == "sensitivity" else _lowest_with(probs_positive, is_positive, target)
    called = probs_positive >= probability
    return Threshold(
        rule=kind,
        target=float(target),
        probability=probability,
        validation_sensitivity=_share(called[is_positive], lesions[is_positive]),
        validation_specificity=_share(~called[~is_positive], lesions[~is_positive]),
    )


def _highest_with(positives: np.ndarray, sensitivity: float) -> float:
    """Return the highest threshold that at least this share of `positives` reaches."""
    if not len(positives):
        return 0.5
    falling = -np.sort(-positives)
    # Counted as shares, not as sensitivity * count, which rounding would move.
    return float(falling[np.argmax(np.arange(1, len(falling) + 1) / len(falling) >= sensitivity)])


def _lowest_with(probs_positive: np.ndarray, is_positive: np.ndarray, specificity: float) -> float:
    """Return the lowest threshold that at least this share of the negatives stays below."""
    candidates, negatives = np.unique(probs_positive), np.sort(probs_positive[~is_positive])
    if not len(negatives):
        return 0.5
    kept = candidates[np.searchsorted(negatives, candidates, side="left") / len(negatives) >= specificity]
    return float(kept[0]) if len(kept) else float(np.nextafter(candidates[-1], np.inf))


def _called(reached: np.ndarray, labels: np.ndarray, classes: Sequence[str], positive: int, lesions: np.ndarray | None) -> dict[str, Interval]:
    """Return the share of `reached` [N] in each class but the `positive` one, of those that have pictures."""
    lesions = np.arange(len(labels)) if lesions is None else np.asarray(lesions)
    shares = {name: _share(reached[labels == index], lesions[labels == index]) for index, name in enumerate(classes) if index != positive}
    return {name: share for name, share in shares.items() if share is not None}


def _share(successes: np.ndarray, lesions: np.ndarray) -> Interval | None:
    """Return the share of `successes` with its interval; None without any picture."""
    if not len(successes):
        return None
    low, high = exact.share(successes, lesions)
    return Interval(value=float(successes.mean()), low=low, high=high)


def fit_abstention(certainties: np.ndarray, coverage: float, method: Method = "confidence") -> Abstention:
    """Return the strictest threshold at which at least `coverage` of the pictures get an answer.

    It is one of `certainties` [N] (:func:`certainty` by `method`, at its default temperature) on the validation part; on ties more than
    `coverage` are answered. `coverage` is recorded as it was asked for.

    Raises BadInput for NaN, no pictures and a coverage outside (0, 1].
    """
    falling = -np.sort(-np.asarray(certainties, dtype=np.float64))
    if falling.ndim != 1 or len(falling) == 0 or not np.isfinite(falling).all():
        what = "top probabilities" if method == "confidence" else "energies"
        raise BadInput(f"found {what} of shape {falling.shape}, or NaN among them: expected [N] finite numbers; check the model's outputs")
    if not 0 < coverage <= 1:
        raise BadInput(f"found coverage {coverage}: expected a share above 0 and at most 1; correct it in the recipe")
    answered = np.arange(1, len(falling) + 1) / len(falling)
    threshold = float(falling[np.argmax(answered >= coverage)])
    if method == "energy":
        return Abstention(method="energy", coverage=float(coverage), threshold=-threshold, answered="at most", temperature=ENERGY_TEMPERATURE)
    return Abstention(coverage=float(coverage), threshold=threshold)


def fit_decision(
    logits: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    positive_class: str | None,
    training: np.ndarray,
    deployment: np.ndarray,
    *,
    coverage: float,
    operating: Rule,
    abstention: Method = "confidence",
    lesions: np.ndarray | None = None,
) -> Decision:
    """Fit temperature, thresholds and abstention on an artifact's `logits` [N, K] of the validation part.

    The threshold in force is the one that keeps `operating`; beside it stand those for the specificities 0.8 and 0.9, and none at all
    without a positive class. `lesions` [N] names the lesion of each picture, for the intervals. Raises BadInput as the parts do.
    """
    _check_classes(logits, classes, positive_class)
    temperature = fit_temperature(logits, labels, training, deployment)
    fitted = probabilities(logits, temperature, training, deployment)
    threshold, others = None, ()
    if positive_class is not None:
        positive = list(classes).index(positive_class)
        rules = dict.fromkeys((operating, *(("specificity", specificity) for specificity in SPECIFICITIES)))
        threshold, *others = (fit_threshold(fitted[:, positive], np.asarray(labels) == positive, rule, lesions) for rule in rules)
        called = _called(fitted[:, positive] >= threshold.probability, np.asarray(labels), classes, positive, lesions)
        threshold = threshold.model_copy(update={"validation_called": called})
    return Decision(
        temperature=temperature,
        threshold=threshold,
        other_thresholds=tuple(others),
        abstention=fit_abstention(certainty(abstention, fitted, logits), coverage, abstention),
    )


def rule_of(recipe: Recipe) -> Rule:
    """Return what the threshold in force keeps by a recipe."""
    if recipe.operating_sensitivity is not None:
        return "sensitivity", recipe.operating_sensitivity
    return "specificity", recipe.operating_specificity


def unfitted() -> Decision:
    """Return the decision of a model for which nothing could be fitted: its own probabilities, no threshold, an answer to everything."""
    return Decision(temperature=1.0, threshold=None, abstention=Abstention(coverage=1.0, threshold=0.0))


def decide(
    logits: np.ndarray,
    decision: Decision,
    classes: Sequence[str],
    positive_class: str | None,
    training: np.ndarray,
    deployment: np.ndarray,
) -> list[Verdict]:
    """Return the verdict on each row of `logits` [N, K].

    Raises BadInput for NaN, wrong shapes, and a positive class for which `decision` has no threshold.
    """
    _check_classes(logits, classes, positive_class)
    threshold = decision.operating()
    if positive_class is not None and threshold is None:
        raise BadInput(f"the decision has no threshold for {positive_class}: expected one; fit the decision again")
    found = probabilities(logits, decision.temperature, training, deployment)
    verdicts = []
    for row, answered in zip(found, answers(decision.abstention, found, logits).tolist()):
        named = dict(zip(classes, row.tolist(), strict=True))
        top = max(named, key=named.__getitem__)
        positive = None if positive_class is None else named[positive_class] >= threshold.probability
        verdicts.append(Verdict(named, top, positive, not answered))
    return verdicts


def _prior_ratio(training: np.ndarray, deployment: np.ndarray, k: int) -> np.ndarray:
    """Return deployment / training [k] of priors that are k finite numbers above zero."""
    checked = []
    for name, given in (("training", training), ("deployment", deployment)):
        priors = np.asarray(given, dtype=np.float64)
        if priors.shape != (k,) or not np.isfinite(priors).all() or (priors <= 0).any():
            raise BadInput(f"found {name} priors {priors.tolist()}: expected {k} numbers above 0; give every class a share")
        checked.append(priors)
    return checked[1] / checked[0]


def _check_classes(logits: np.ndarray, classes: Sequence[str], positive_class: str | None) -> None:
    """Refuse logits that are not [N, K] for K different classes, and a positive class not among them."""
    shape = np.shape(logits)
    if len(shape) != 2 or shape[1] != len(classes) or len(set(classes)) != len(classes):
        raise BadInput(f"found logits of shape {shape}: expected a column for each of {len(classes)} different classes; check the model's outputs")
    if positive_class is not None and positive_class not in classes:
        raise BadInput(f"found positive class {positive_class!r}: expected one of {', '.join(classes)}; correct its name")
