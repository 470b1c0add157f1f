"""What a single model of a cross-validation comes to, in words: an application runs one, and its figures lie further off than the pooled ones' intervals.

In: a cross-validation, and artifacts of the model that quotes it. Out: sentences without markup.
"""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_edge.contract import Artifact, CrossValidation

FIGURES = {
    "balanced_accuracy": "balanced accuracy",
    "positive_sensitivity_of_decision": "{positive} sensitivity of the decision",
    "positive_specificity_of_decision": "its specificity",
    "ece": "ECE (these pictures' mix)",
}
"""What is said of them, by the names of the scores."""


def sentences(found: CrossValidation, artifacts: Sequence[Artifact] = ()) -> list[str]:
    """Return how far the single models of `found` lie apart, by their file for phones, and where the threshold of the same kind of file among `artifacts` lies beside theirs.

    Empty where `found` does not say it, as in files of earlier versions.
    """
    one, positive = found.of_phones(), found.positive_class
    ends = {words: one.figures[key] for key, words in FIGURES.items() if key in one.figures and one.figures[key].lowest is not None}
    if not ends:
        return []
    said = [f"{words.format(positive=positive)} {spread.lowest:.3f} to {spread.highest:.3f}" for words, spread in ends.items()]
    worst = one.most_called()
    if worst is not None:
        called = one.called_positive[worst]
        said.append(f"share of the pictures of {worst}, the class most often called {positive}, that are called so {called.lowest:.3f} to {called.highest:.3f}")
    apart = f"A single model varies more than these intervals: from the lowest of the {len(found.folds)} to the highest, by {one.name}, {'; '.join(said)}."
    twin = next((artifact for artifact in artifacts if (artifact.format, artifact.precision) == (one.format, one.precision)), None)
    if twin is None or twin.decision.threshold is None or one.thresholds is None:
        return [apart]
    return [apart, beside(twin.name, twin.decision.threshold.probability, one.thresholds, positive)]


def beside(name: str, threshold: float, theirs: Sequence[float], positive: str, *, whose: str = "This model's") -> str:
    """Return where the `threshold` of the file `name` (`whose`: words before it) lies beside `theirs`, of the models that the figures are of, and what to expect of it."""
    lower, listed = sum(other < threshold for other in theirs), ", ".join(f"{other:.3f}" for other in sorted(theirs))
    if 0 < lower < len(theirs):
        return f"{whose} {name} calls a picture {positive} from a probability of {threshold:.3f} on, theirs from {listed}."
    side, more = ("higher", "fewer") if lower else ("lower", "more")
    return (
        f"{whose} {name} calls a picture {positive} from a probability of {threshold:.3f} on, {side} than any of theirs ({listed}): expect it to call {more} pictures "
        f"{positive} than the figures above say."
    )
