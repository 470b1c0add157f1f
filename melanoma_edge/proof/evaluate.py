"""Scores of a run or an artifact on a labelled folder, leak-free unless asked otherwise.

In: a run or bundle and a folder of class folders. Out: every figure with its 95 % bootstrap interval, coverage and risk, and the same figures by a
column of the pictures' metadata.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from melanoma_edge import NOTICE, calibration, metrics, selective
from melanoma_edge.contract import Scores
from melanoma_edge.data.index import Progress
from melanoma_edge.data.sources.columns import column_values
from melanoma_edge.errors import BadInput
from melanoma_edge.files import cache_folder
from melanoma_edge.proof import by_column
from melanoma_edge.proof.labelled import Labelled, load_labelled
from melanoma_edge.proof.predict import decided_by
from melanoma_edge.proof.subject import Subject, open_subject


def evaluate(
    subject: Path,
    data: Path,
    *,
    artifact: str | None = None,
    metadata: Path | None = None,
    by: str | None = None,
    include_seen: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> dict:
    """Score a run or bundle on the pictures below `data` (``data/<class>/*``).

    Pictures (and lesions, where known) that training or calibration used are left out and counted
    unless `include_seen`; `leak_free` is None where what training used is not known. Prepared pictures are kept in `cache`, as in training. Returns a dict with `model`, `scores` (see
    :class:`melanoma_edge.contract.Scores`; null where undefined), `threshold` and `abstention` (what decided, and which rule chose it),
    `coverage_risk` (by confidence and, of models that give logits, by energy: the area under the curve with its interval, and points of
    the curve), `non_lesions` (measured at export; null where it was not), `confusion`, `pictures` (the
    account of what was used) and `by`: null, or with `by`, the name of a column of the data set's tables, the figures of each group
    of pictures (:mod:`melanoma_edge.proof.by_column`). Raises BadInput when no picture is left to score and for a column that no table has.
    """
    model = open_subject(subject, artifact)
    found = load_labelled(data, model.classes, model.recipe, model.seen, size=model.size, metadata=metadata, cache=cache or cache_folder(), progress=progress)
    used = found if include_seen else found.unseen()
    if not len(used.labels):
        raise BadInput(
            f"all {len(found.labels)} pictures of {data} were used in training: expected pictures that the model has not "
            "seen; give others, or --include-seen to score them all the same"
        )
    grouping = None if by is None else _grouping(used, by)  # what is wrong with the column is said before the model runs
    logits = model.logits(used.pictures)
    probabilities = calibration.probabilities(logits, model.decision.temperature, model.training_priors, model.deployment_priors)

    priors = model.deployment_priors if model.training_known else None  # those of somebody else's model are uniform because nobody knows them

    def score(rows: np.ndarray) -> Scores:
        return metrics.scores(
            probabilities[rows], used.labels[rows], model.classes, model.positive_class, decision=model.decision, logits=logits[rows], groups=used.groups[rows],
            priors=priors,
        )  # fmt: skip

    return {
        "model": model.name,
        "notice": NOTICE,
        "classes": list(model.classes),
        "leak_free": None if not model.training_known else not include_seen or found.account["seen_in_training"] == 0,
        "scores": score(np.ones(len(used.labels), dtype=bool)).model_dump(mode="json"),
        **decided_by(model.decision),
        "coverage_risk": _coverage_risk(model, used, probabilities, logits),
        "non_lesions": None if model.non_lesions is None else model.non_lesions.model_dump(mode="json"),
        "confusion": metrics.confusion(probabilities.argmax(axis=1), used.labels, len(model.classes)).tolist(),
        "pictures": found.account,
        "by": None
        if grouping is None
        else {
            "column": by,
            "band": grouping.band,
            "least_lesions": by_column.LEAST_LESIONS,
            "least_of_class": by_column.LEAST_OF_CLASS,
            "groups": by_column.figures(grouping, used.labels, used.groups, metrics.position(model.positive_class, model.classes), score),
        },
    }


def _grouping(used: Labelled, column: str) -> by_column.Grouping:
    """Return the groups that a column of the data set's tables puts the pictures in."""
    values = column_values(used.listing, column)
    return by_column.group([values[path] for path in used.paths], column)


def _coverage_risk(model: Subject, used: Labelled, probabilities: np.ndarray, logits: np.ndarray) -> dict:
    """Return {method: area under the coverage-risk curve and some of its points}; null for the energy of a model that gives probabilities."""
    wrong, found = probabilities.argmax(axis=1) != used.labels, {}
    for method, sign in (("confidence", 1), ("energy", -1)):
        if method == "energy" and model.output == "probabilities":
            found[method] = None
            continue
        sure = calibration.certainty(method, probabilities, logits)
        points = selective.points(selective.coverage_risk(probabilities, used.labels, sure))
        found[method] = {
            "area": selective.area_with_interval(sure, wrong, used.groups).model_dump(mode="json"),
            "points": [{"threshold": sign * point.pop("certainty"), **point} for point in points],
        }
    return found
