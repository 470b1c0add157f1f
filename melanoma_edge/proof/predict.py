"""From photographs to calibrated probabilities: what the app will show.

In: a bundle and picture files. Out: one result a picture, in the order given. Files that cannot be read
are named and leave the others alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from melanoma_edge import NOTICE, calibration
from melanoma_edge.data import image
from melanoma_edge.errors import BadInput
from melanoma_edge.proof.subject import open_subject

DOMAIN = "The model has seen dermoscopic pictures only; plain phone photographs are outside of what it knows."
UNKNOWN_DOMAIN = "What the model was trained on is not known; pictures of another kind are outside of what it knows."


def predict(bundle: Path, pictures: Sequence[Path], *, artifact: str | None = None) -> dict:
    """Classify `pictures` with an artifact of `bundle` (or a network of a run).

    Returns `model`, `notice`, `domain` and `results`: for each picture its path and either `error`, or
    `class`, `probabilities` (calibrated, largest first), `positive` (whether the positive class
    reaches its threshold; null without one or the other) and `abstains`. Raises BadInput when no picture can be
    read.
    """
    model = open_subject(bundle, artifact)
    inputs, results = [], []
    for path in pictures:
        try:
            inputs.append(image.load(Path(path), model.size))
            results.append({"picture": str(path)})
        except image.UnreadableImage as error:
            results.append({"picture": str(path), "error": str(error)})
    if not inputs:
        raise BadInput(f"none of {len(results)} pictures can be read (first: {results[0]['error']})" if results else "no picture was given: name at least one")
    # Of a model of somebody else's without labelled pictures, no threshold could be fitted.
    positive = model.positive_class if model.training_known or model.decision.thresholds else None
    verdicts = iter(
        calibration.decide(
            model.logits(np.stack(inputs)), model.decision, model.classes, positive, model.training_priors, model.deployment_priors
        )
    )
    for result in results:
        if "error" not in result:
            verdict = next(verdicts)
            result |= {
                "class": verdict.top,
                "probabilities": dict(sorted(verdict.probabilities.items(), key=lambda item: -item[1])),
                "positive": verdict.positive,
                "abstains": verdict.abstains,
            }
    return {"model": model.name, "notice": NOTICE, "domain": DOMAIN if model.training_known else UNKNOWN_DOMAIN, "positive_class": model.positive_class, "results": results}
