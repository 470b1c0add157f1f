"""Scores of a run or an artifact on a labelled folder, leak-free unless asked otherwise.

In: a run or bundle and a folder of class folders. Out: every figure with its 95 % bootstrap interval.
"""

from __future__ import annotations

from pathlib import Path

from melanoma_edge import NOTICE, calibration, metrics
from melanoma_edge.data.index import Progress
from melanoma_edge.errors import BadInput
from melanoma_edge.files import cache_folder
from melanoma_edge.proof.labelled import load_labelled
from melanoma_edge.proof.subject import open_subject


def evaluate(
    subject: Path,
    data: Path,
    *,
    artifact: str | None = None,
    metadata: Path | None = None,
    include_seen: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> dict:
    """Score a run or bundle on the pictures below `data` (``data/<class>/*``).

    Pictures (and lesions, where known) that training or calibration used are left out and counted
    unless `include_seen`; `leak_free` is None where what training used is not known. Prepared pictures are kept in `cache`, as in training. Returns a dict with `model`, `scores` (see
    :class:`melanoma_edge.contract.Scores`; null where undefined), `confusion` and `pictures` (the
    account of what was used). Raises BadInput when no picture is left to score.
    """
    model = open_subject(subject, artifact)
    found = load_labelled(data, model.classes, model.recipe, model.seen, size=model.size, metadata=metadata, cache=cache or cache_folder(), progress=progress)
    used = found if include_seen else found.unseen()
    if not len(used.labels):
        raise BadInput(
            f"all {len(found.labels)} pictures of {data} were used in training: expected pictures that the model has not "
            "seen; give others, or --include-seen to score them all the same"
        )
    probabilities = calibration.probabilities(
        model.logits(used.pictures), model.decision.temperature, model.training_priors, model.deployment_priors
    )
    scores = metrics.scores(probabilities, used.labels, model.classes, model.positive_class, decision=model.decision, groups=used.groups)
    return {
        "model": model.name,
        "notice": NOTICE,
        "classes": list(model.classes),
        "leak_free": None if not model.training_known else not include_seen or found.account["seen_in_training"] == 0,
        "scores": scores.model_dump(mode="json"),
        "confusion": metrics.confusion(probabilities.argmax(axis=1), used.labels, len(model.classes)).tolist(),
        "pictures": found.account,
    }
