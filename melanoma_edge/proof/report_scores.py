"""The tables of scores in the report: of networks, of a cross-validation, of quantization after training beside that in training.

In: a :class:`~melanoma_edge.proof.report_data.Material`. Out: groups of rows that the template lays out, and the words for figures.
Figures keep the value that stands in their file; rounding is the template's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from melanoma_edge.contract import Interval, Scores
from melanoma_edge.convert.single_models import sentences
from melanoma_edge.proof.report_data import Material, Network

FIGURES = {
    "balanced_accuracy": ("Balanced accuracy", "share"),
    "accuracy": ("Accuracy", "share"),
    "macro_f1": ("Macro F1", "index"),
    "macro_auc": ("Macro AUC", "index"),
    "positive_auc": ("AUC of {positive}", "index"),
    "positive_sensitivity_at_90_specificity": ("Sensitivity for {positive} at 90 % specificity, best threshold on these pictures", "share"),
    "positive_sensitivity_at_80_specificity": ("Sensitivity for {positive} at 80 % specificity, best threshold on these pictures", "share"),
    "positive_sensitivity_of_decision": ("Sensitivity for {positive} at the fitted threshold{rule}", "share"),
    "positive_specificity_of_decision": ("Specificity for {positive} at the fitted threshold{rule}", "share"),
    "coverage_of_decision": ("Share answered; on the rest the model abstains", "share"),
    "accuracy_of_answers": ("Accuracy of what is answered", "share"),
    "ece": ("Calibration error (ECE), these pictures' mix of classes; lower is better", "index"),
    "ece_at_priors": ("Calibration error (ECE), deployment mix of classes; lower is better", "index"),
}
"""Score: (label, share for percent or index for 0..1)."""
BY_CLASS = {
    "recall": ("Recall of each class", "share"),
    "positive_auc_against": ("AUC of {positive} against one other class alone", "index"),
    "called_positive": ("Share of each other class that is called {positive} at the fitted threshold: false alarms", "share"),
}
"""Score by class: (heading, share or index)."""
LATER = ("ece_at_priors",)
"""Scores that files of earlier versions do not hold, and that do not stand in the report where none is held."""
MIXUPS = 7
LOSSES = {"balanced_accuracy": "balanced accuracy", "positive_sensitivity": "positive sensitivity", "positive_auc": "positive AUC"}


def name_of_test(material: Material) -> str:
    """Return what the pictures of the scores are called: of a model of somebody else's, nobody knows that they are a test."""
    return "Test part" if material.recipe else "Pictures held back"


def score_table(material: Material) -> list[dict[str, Any]]:
    """Return the groups of rows of the score table, a cell a network."""
    figures = [key for key in FIGURES if material.positive is not None or not key.startswith("positive")]
    rows = [
        {"key": key, "label": label_of(FIGURES[key][0], material), "kind": FIGURES[key][1], "cells": [_score(network, key) for network in material.networks]}
        for key in figures
        if key not in LATER or any(_score(network, key) for network in material.networks)
    ]
    if not material.tested:
        return []
    scores = [network.scores for network in material.networks]
    by_class = _by_class("", material.positive, scores, lambda figure, name: [_of_class(one, figure, name) for one in scores])
    return [{"title": "Whole test part" if material.recipe else name_of_test(material), "rows": rows}, *by_class]


def cross_validation(material: Material) -> dict[str, Any] | None:
    """Return the figures of the quoted cross-validation, a cell an artifact: pooled with its interval, mean and spread over folds. None where none is quoted.

    `columns` are its artifacts, `groups` of rows as in :func:`score_table`, `losses` the names of what int8 loses, `said` sentences about single models, `phone`
    the artifact for phones, `mixups` what it takes for another, `found` all of it.
    """
    found = material.quoted
    if found is None:
        return None
    figures = [key for key in FIGURES if found.positive_class is not None or not key.startswith("positive")]
    rows = [
        {"key": f"cross-validation/{key}", "label": label_of(FIGURES[key][0], material, of_others=True), "kind": FIGURES[key][1], "cells": [(getattr(one.pooled, key), one.figures.get(key)) for one in found.artifacts]}
        for key in figures
        if key not in LATER or any(getattr(one.pooled, key) for one in found.artifacts)
    ]
    pooled = [one.pooled for one in found.artifacts]

    def with_spread(figure: str, name: str) -> list[tuple]:
        return [(_of_class(one.pooled, figure, name), (getattr(one, figure, None) or {}).get(name)) for one in found.artifacts]

    by_class = _by_class("cross-validation/", found.positive_class, pooled, with_spread)
    phone = found.of_phones()
    return {
        "found": found,
        "columns": found.artifacts,
        "groups": [{"title": "All pictures", "rows": rows}, *by_class],
        "losses": LOSSES,
        "said": sentences(found, material.bundle.manifest.artifacts),
        "phone": phone,
        "mixups": mixups(np.array(phone.confusion), found.classes),
    }


def mixups(table: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the classes of `table` [truth, said] that are taken for another most often, by their share of the true class."""
    totals = table.sum(axis=1)
    found = [
        {"truth": names[row], "said": names[column], "count": int(count), "total": int(totals[row]), "share": float(count / totals[row])}
        for (row, column), count in np.ndenumerate(table)
        if row != column and count
    ]
    return sorted(found, key=lambda one: (-one["share"], -one["count"]))[:MIXUPS]


QUANTIZED = {
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy", "share"),
    "positive_auc": ("positive_auc", "AUC of {positive}", "index"),
    "positive_sensitivity": ("positive_sensitivity_of_decision", "Sensitivity for {positive} at the fitted threshold", "share"),
}
"""Loss of a comparison: (the score that it is a loss of, label, kind)."""
MADE = {"float32": "not rounded", "int8-ptq": "after training", "int8": "in training"}
"""Where an artifact's rounding came about, by its precision."""


def quantized(material: Material) -> dict[str, Any] | None:
    """Return float32, int8 quantized after training and int8 of quantization-aware training side by side; None where they are not compared.

    `columns` are (artifact, words); `comparisons` (label, comparison); `rows` a figure each: its value for every
    artifact and its loss in every comparison.
    """
    manifest = material.bundle.manifest if material.bundle else None
    if manifest is None or not manifest.comparisons:
        return None
    found = manifest.comparisons
    named = {manifest.artifact(name).precision: manifest.artifact(name) for one in found for name in (one.reference, one.candidate)}
    columns = [named[precision] for precision in MADE if precision in named]
    rows = [
        {
            "key": f"quantized/{loss}",
            "label": label_of(label, material),
            "kind": kind,
            "cells": [getattr(artifact.scores, score) if artifact.scores else None for artifact in columns],
            "losses": [one.losses[loss] for one in found],
        }
        for loss, (score, label, kind) in QUANTIZED.items()
        if material.positive or not loss.startswith("positive")
    ]
    calibration = named["int8-ptq"].calibration
    return {
        "columns": [(artifact, MADE[artifact.precision]) for artifact in columns],
        "comparisons": [(f"{manifest.artifact(one.candidate).precision} − {manifest.artifact(one.reference).precision}", one) for one in found],
        "rows": rows,
        "format": columns[0].format,
        "calibration": calibration,
    }


def changes(losses: dict[str, Interval]) -> list[str]:
    """Return losses (shares) as changes in points, in words."""
    return [f"{LOSSES.get(name, name)} {0 - loss.value * 100:+.1f}" for name, loss in losses.items() if loss.value is not None]


def _score(network: Network, key: str) -> Interval | None:
    return None if network.scores is None else getattr(network.scores, key)


def _by_class(prefix: str, positive: str | None, scores: Sequence[Scores | None], cells: Callable[[str, str], list]) -> list[dict[str, Any]]:
    """Return a group of rows for each figure of BY_CLASS that was measured; not of one class alone, which says what the figures of all pictures say.

    `prefix` begins the keys of the rows, `cells` gives those of a figure and a class.
    """
    groups = []
    for figure, (title, kind) in BY_CLASS.items():
        names = list(dict.fromkeys(name for one in scores if one is not None for name in getattr(one, figure) or ()))
        if len(names) > 1:
            rows = [{"key": f"{prefix}{figure}/{name}", "label": name, "kind": kind, "cells": cells(figure, name)} for name in names]
            groups.append({"title": title.format(positive=positive), "rows": rows})
    return groups


def _of_class(scores: Scores | None, figure: str, name: str) -> Interval | None:
    return None if scores is None else (getattr(scores, figure) or {}).get(name)


def label_of(label: str, material: Material, *, of_others: bool = False) -> str:
    """Return a label with its blanks filled; for figures `of_others` without the rule of this very model's threshold."""
    threshold = None if of_others else material.threshold
    return label.replace("{positive}", material.positive or "").replace("{rule}", f": {threshold.in_words()}" if threshold else "")
