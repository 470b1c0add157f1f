"""How much of what is no lesion a model answers all the same.

In: an artifact's logits of its validation pictures and of the drawn pictures of :mod:`melanoma_edge.data.non_lesions`. Out: rates
for the manifest, by confidence and by energy, each at a threshold of its own for the same coverage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from melanoma_edge import calibration
from melanoma_edge.contract import Decision, NonLesionRate, NonLesions


def non_lesion_rates(
    decision: Decision, validation: np.ndarray, drawn: np.ndarray, kinds: Sequence[str], training: np.ndarray, deployment: np.ndarray, *, output: str = "logits"
) -> NonLesions:
    """Return how many of the `drawn` pictures (logits [n, K], of these `kinds` [n]) are answered.

    Thresholds are fitted on the `validation` logits [m, K] at the coverage of `decision`; that of its own method is the one in
    force. For an `output` of probabilities, whose logits are made from them, there is no energy. Raises as :func:`melanoma_edge.calibration.certainty` does.
    """
    rates = []
    known, found = (calibration.probabilities(logits, decision.temperature, training, deployment) for logits in (validation, drawn))
    for method in ("confidence", "energy") if output == "logits" else ("confidence",):
        fitted = decision.abstention
        if fitted.method != method:
            fitted = calibration.fit_abstention(calibration.certainty(method, known, validation), fitted.coverage, method)
        counted = Counter(kind for kind, answered in zip(kinds, calibration.answers(fitted, found, drawn)) if answered)
        rates.append(
            NonLesionRate(method=method, threshold=fitted.threshold, answered=counted.total(), per_kind={kind: counted[kind] for kind in dict.fromkeys(kinds)})
        )
    return NonLesions(pictures=len(kinds), per_kind=dict(Counter(kinds)), rates=tuple(rates))
