"""From photographs to calibrated probabilities: what the app will show.

In: a bundle and picture files. Out: one result a picture, in the order given. Files that cannot be read
are named and leave the others alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from melanoma_edge import NOTICE, calibration
from melanoma_edge.contract import Decision, Threshold
from melanoma_edge.data import image, quality
from melanoma_edge.errors import BadInput
from melanoma_edge.proof.subject import open_subject

DOMAIN = "The model has seen dermoscopic pictures only; plain phone photographs are outside of what it knows."
UNKNOWN_DOMAIN = "What the model was trained on is not known; pictures of another kind are outside of what it knows."


def predict(bundle: Path, pictures: Sequence[Path], *, artifact: str | None = None) -> dict:
    """Classify `pictures` with an artifact of `bundle` (or a network of a run).

    Returns `model`, `notice`, `domain`, `threshold` (the one in force, and in words which rule chose it; null without one), `abstention` (by
    what the model abstains, and where) and `results`: for each picture its path and either `error`, or
    `class`, `probabilities` (calibrated, largest first), `positive` (whether the positive class
    reaches its threshold; null without one or the other), `abstains` and `quality` (measures of the picture, and `warnings`,
    which decide nothing). Raises BadInput when no picture can be read.
    """
    model = open_subject(bundle, artifact)
    inputs, results = [], []
    for path in pictures:
        try:
            picture = image.open_picture(Path(path), image.read(Path(path))).image
            inputs.append(image.square(picture, model.size))
            measured = quality.measure(picture)
            results.append({"picture": str(path), "quality": {**asdict(measured), "warnings": list(measured.warnings)}})
        except image.UnreadableImage as error:
            results.append({"picture": str(path), "error": str(error)})
    if not inputs:
        raise BadInput(f"none of {len(results)} pictures can be read (first: {results[0]['error']})" if results else "no picture was given: name at least one")
    # Of a model of somebody else's without labelled pictures, no threshold could be fitted.
    positive = model.positive_class if model.training_known or model.decision.operating() else None
    verdicts = iter(
        calibration.decide(
            model.logits(np.stack(inputs)), model.decision, model.classes, positive, model.training_priors, model.deployment_priors
        )
    )
    for result in results:
        if "error" not in result:
            verdict = next(verdicts)
            shown = result.pop("quality")
            result |= {
                "class": verdict.top,
                "probabilities": dict(sorted(verdict.probabilities.items(), key=lambda item: -item[1])),
                "positive": verdict.positive,
                "abstains": verdict.abstains,
                "quality": shown,
            }
    return {
        "model": model.name,
        "notice": NOTICE,
        "domain": DOMAIN if model.training_known else UNKNOWN_DOMAIN,
        "positive_class": model.positive_class,
        **decided_by(model.decision),
        "results": results,
    }


def decided_by(decision: Decision) -> dict:
    """Return what decides, ready for JSON: `threshold`, the one in force with `in_words` which rule chose it, or None; and `abstention`."""
    threshold = decision.operating()
    return {"threshold": None if threshold is None else said(threshold), "abstention": decision.abstention.model_dump(mode="json")}


def said(threshold: Threshold) -> dict:
    """Return a threshold, ready for JSON, with `in_words` which rule chose it."""
    return {**threshold.model_dump(mode="json"), "in_words": threshold.in_words()}
