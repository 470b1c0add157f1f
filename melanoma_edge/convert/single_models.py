"""What a single model of a cross-validation comes to, in words: an application runs one, and pooled figures hide how far they lie apart.

In: a cross-validation, and artifacts of the model that quotes it. Out: sentences without markup.
"""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_edge.contract import Artifact, CrossValidation, Spread, Threshold

FIGURES = {
    "balanced_accuracy": "balanced accuracy",
    "positive_sensitivity_of_decision": "{positive} sensitivity of the decision",
    "positive_specificity_of_decision": "its specificity",
}
"""What is said of them, by the names of the scores. Not the calibration error: fewer pictures show a larger one, whatever the model."""


def sentences(found: CrossValidation, artifacts: Sequence[Artifact] = ()) -> list[str]:
    """Return how far the single models of `found` lie apart, by their file for phones, and where the threshold of the same kind of file among `artifacts` lies beside theirs.

    Empty where `found` does not say it, as in files of earlier versions.
    """
    one, positive = found.of_phones(), found.positive_class
    said = [f"{words.format(positive=positive)} {_ends(spread, found)}" for key, words in FIGURES.items() if (spread := one.figures.get(key)) and spread.lowest is not None]
    worst = one.most_called()
    if said and worst is not None and len(found.classes) > 2:  # with two, the specificity has said it
        said.append(f"share of the pictures of {worst}, the class most often called {positive}, that are called so {_ends(one.called_positive[worst], found)}")
    if not said:
        return []
    pictures = round(found.pictures / len(found.folds))
    apart = (
        f"Single models, from the lowest to the highest of the {len(found.folds)}, each judged on the about {pictures} pictures of its own fold, by which chance alone spreads them, too "
        f"({one.name}): {'; '.join(said)}."
    )
    twin = next((artifact for artifact in artifacts if (artifact.format, artifact.precision) == (one.format, one.precision)), None)
    if twin is None or twin.decision.threshold is None or one.thresholds is None:
        return [apart]
    return list(filter(None, (apart, beside(twin.name, twin.decision.threshold, one.thresholds, positive))))


def beside(name: str, threshold: Threshold, theirs: Sequence[Threshold], positive: str, *, whose: str = "This model's") -> str | None:
    """Return what the `threshold` of the file `name` (`whose`: words before it) costs on its validation part beside what `theirs` cost on their own, and what to expect of that.

    Thresholds themselves tell nothing across models, for each has probabilities of its own sharpness. None where the costs are not known.
    """
    cost = "specificity" if threshold.rule == "sensitivity" else "sensitivity"
    own, *others = (getattr(one, f"validation_{cost}") for one in (threshold, *theirs))
    if own is None or None in others:
        return None
    values = [other.value for other in others]
    limits = f" ({own.low:.3f} to {own.high:.3f})" if own.low is not None else ""
    said = f"{whose} {name} has a {cost} of {own.value:.3f}{limits} for {positive} on its validation part, at the threshold in force; the models of these figures {min(values):.3f} to {max(values):.3f} on theirs"
    if min(values) <= own.value <= max(values):
        return f"{said}."
    errors = f"{positive} calls on other pictures" if cost == "specificity" else f"misses of {positive}"
    return f"{said}: expect {'more' if own.value < min(values) else 'fewer'} {errors} than those figures say."


def _ends(spread: Spread, found: CrossValidation) -> str:
    """Return the ends of a figure over folds, and in how many it is defined where that is not all."""
    return f"{spread.lowest:.3f} to {spread.highest:.3f}{f' (of {spread.folds})' if spread.folds < len(found.folds) else ''}"
