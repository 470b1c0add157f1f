"""The tables of figures in a model card, and how a figure stands in one.

In: scores of artifacts. Out: lines of Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from melanoma_edge.contract import Artifact, CrossValidated, Interval, Scores, for_phones

Scored = Sequence[tuple[Artifact | CrossValidated, Scores]]
"""Artifacts and what they come to."""


def change_text(loss: Interval) -> str:
    """Return a loss (a share) as a change in points, with its interval, or "undefined"."""
    if loss.value is None:
        return "undefined"
    # 0 - x rather than -x, which would show a loss of nothing as -0.0.
    change = f"{(0 - loss.value) * 100:+.1f}"
    return change if loss.low is None else f"{change} ({(0 - loss.high) * 100:+.1f} to {(0 - loss.low) * 100:+.1f})"


def score_tables(positive: str | None, scored: Scored) -> list[str]:
    """Return a table with a row of figures for each artifact; below it, where it was measured, how the one for phones tells `positive` from each other class."""
    return [*_scores(positive, scored), *_against(positive, scored)]


def _scores(positive: str | None, scored: Scored) -> list[str]:
    positive = plain(positive or "positive class")
    at_priors = any(scores.ece_at_priors for _, scores in scored)  # earlier versions did not measure it
    calibration = ["ECE (these pictures' mix)", *(["ECE (deployment mix)"] if at_priors else [])]
    heads = ["artifact", "accuracy", "balanced accuracy", "macro AUC", f"{positive} AUC", f"{positive} sensitivity at 90 % specificity", *calibration, f"{positive} sensitivity / specificity of the decision"]
    rows = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for artifact, scores in scored:
        figures = (
            scores.accuracy,
            scores.balanced_accuracy,
            scores.macro_auc,
            scores.positive_auc,
            scores.positive_sensitivity_at_90_specificity,
            scores.ece,
            *([scores.ece_at_priors] if at_priors else []),
        )
        decided = (scores.positive_sensitivity_of_decision, scores.positive_specificity_of_decision)
        last = " / ".join(interval_text(figure) if figure else "undefined" for figure in decided)
        rows.append(f"| {artifact.name} | " + " | ".join(interval_text(figure) if figure else "-" for figure in figures) + f" | {last} |")
    if at_priors:
        rows += [
            "",
            "ECE is how far the probability of the top class lies from the share that is right, on average over 15 bins: on these pictures as they come, and with each class weighted to its "
            "share of the class priors that probabilities are corrected to (deployment mix). The temperature is fitted for the second mix; on the first, ECE is not 0 even where probabilities are perfect on the second.",
        ]
    return rows


def _against(positive: str | None, scored: Scored) -> list[str]:
    """Return the table of one class at a time; empty where it was not measured, and with two classes, where it would say the same again."""
    measured = [(artifact, scores) for artifact, scores in scored if len(scores.positive_auc_against or ()) > 1]
    if not measured:
        return []
    artifact = for_phones([artifact for artifact, _ in measured])
    scores = next(scores for one, scores in measured if one is artifact)
    called = scores.called_positive or {}
    rows = [
        f"| {plain(name)} | {scores.per_class[name]} | {interval_text(area)} | {interval_text(called[name]) if name in called else '-'} |"
        for name, area in scores.positive_auc_against.items()
    ]
    positive = plain(positive)
    return [
        "",
        f"By {artifact.name}, {positive} against one other class at a time: what the figures above owe to classes that are easily told from it.",
        "",
        f"| class | pictures | {positive} AUC against it alone | of its pictures called {positive} (fitted threshold) |",
        "|---|---|---|---|",
        *rows,
    ]


def interval_text(interval: Interval) -> str:
    """Return a figure and its interval as text, or "undefined"."""
    if interval.value is None:
        return "undefined"
    if interval.low is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def plain(text: str) -> str:
    """Return text from a table of somebody else's as a short line without Markdown in it."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", line if len(line) <= 200 else line[:199] + "…")
