"""The balanced accuracy of the networks that were trained on the same folds, ours, the default one of earlier bundles, and the others'.

In: the cross-validations of ours, the folds' runs, and what peers_training.py left. Out: figures of the test parts of all folds pooled, each picture answered by a network
that saw neither it nor its lesion; None where not all folds are trained. int8 of the others is quantized after training, on the pictures that an export would take, and run in LiteRT.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
import peer_networks
import peers_training

from melanoma_edge import calibration, metrics
from melanoma_edge.contract import CrossValidation, Scores
from melanoma_edge.data.split import TEST, VALIDATION, grouped_hash
from melanoma_edge.errors import BadInput
from melanoma_edge.files import explained, read_json
from melanoma_edge.model import run as runs
from melanoma_edge.proof.quoted import FREE, read_cross_validation

SHOWN = ("balanced_accuracy", "accuracy", "macro_auc", "positive_auc")


def ours(found: CrossValidation) -> dict:
    """Return what the TFLite files of ours come to over all folds."""
    rows = {precision: figures(found.artifact(f"{found.recipe.name}-{precision}.tflite").pooled) for precision in ("float32", "int8")}
    return {"folds": len(found.folds), "of": len(found.folds), "why_not": None, **rows}


def before(path: Path, found: CrossValidation) -> dict:
    """Return the same of the default network of earlier bundles, whose cross-validation stands in the file `path`; of none where more than the network differs from `found`."""
    earlier = read_cross_validation(path)
    if earlier.data_sha256 != found.data_sha256:
        return untrained("trained on other pictures")
    mine, theirs = found.recipe.model_dump(), earlier.recipe.model_dump()
    changed = [key for key in theirs if key not in (*FREE, "network") and theirs[key] != mine[key]]
    return untrained(f"trained by another recipe ({', '.join(changed)})") if changed else ours(earlier)


def figures(scores: Scores) -> dict:
    """Return the figures that are published of a network's scores, with their intervals over resampled lesions."""
    return {"pictures": scores.pictures, "lesions": scores.lesions} | {name: interval.model_dump() for name in SHOWN if (interval := getattr(scores, name)) is not None}


def untrained(why_not: str) -> dict:
    return {"folds": 0, "of": 0, "why_not": why_not, "float32": None, "int8": None}


def trained(network: str, kept: Path, folds: Path, data: Path, found: CrossValidation, folder: Path, *, quick: bool, progress: Callable[[str], None]) -> dict:
    """Return what `network` comes to on the folds whose trainings are below `kept`; its int8 files go into `folder`.

    With `quick`, the folds that there are count. Raises BadInput where the folds are of other pictures than `found`, which ours come from, and where the
    network was trained by other settings than these folds have.
    """
    opened = {int(path.name.removeprefix("fold-")): path for path in sorted(folds.glob("fold-*"))}
    places = {fold: peers_training.place(kept, network, fold) for fold in opened}
    done = [fold for fold, place in places.items() if (place / peers_training.FIGURES).is_file()]
    if not done or (len(done) < len(opened) and not quick):
        begun = f": {len(done)} of {len(opened)} folds" if any(place.is_dir() for place in places.values()) else ""
        return untrained(f"not trained{begun}") | {"folds": len(done), "of": len(opened)}
    answers: dict[str, list] = {"float32": [], "int8": []}
    for fold in done:
        run = runs.open_run(opened[fold])
        if grouped_hash(run.split, [row.group for row in run.split]) != found.data_sha256:
            raise BadInput(f"{opened[fold]} is of other pictures than the cross-validation of ours: name the one of these folds with --cross-validation, or other --folds")
        if read_json(places[fold] / "training.json", "a training") != peers_training.settings(run, network, quick=quick):
            raise BadInput(f"{places[fold]} was trained with other settings, or on other folds: train it again, or name other --folds or --runs")
        progress(f"{network}, fold {fold}: int8 after training")
        answers["float32"].append(answered(run, runs.read_tensors(places[fold] / peers_training.LOGITS)))
        answers["int8"].append(answered(run, common.apart(quantized_logits, run, network, places[fold], data, folder)))
    first = runs.open_run(opened[done[0]])
    from melanoma_edge.model.folds import across

    pooled = {precision: across(each, first.facts.classes, first.recipe.positive_class or None).pooled for precision, each in answers.items()}
    return {"folds": len(done), "of": len(opened), "why_not": None, **{precision: figures(scores) for precision, scores in pooled.items()}}


def answered(run: runs.Run, logits: dict[str, np.ndarray]):
    """Return what `logits` {part: float32 [n, classes]} of a fold's validation and test part come to, decided as those of our own networks are (:class:`Answers`)."""
    from melanoma_edge.model.folds import Answers

    (validation, lesions), (labels, groups), (training, deployment) = run.truth(VALIDATION), run.truth(TEST), run.priors()
    if any(len(logits[part]) != len(of) for part, of in ((VALIDATION, validation), (TEST, labels))):
        raise BadInput(f"the logits of a training on {run.path} do not fit its split: train it again")
    decision = run.fit_decision(logits[VALIDATION], validation, lesions)
    probabilities = calibration.probabilities(logits[TEST], decision.temperature, training, deployment)
    scores = metrics.scores(
        probabilities, labels, run.facts.classes, run.recipe.positive_class or None, decision=decision, logits=logits[TEST], groups=groups, priors=deployment
    )  # fmt: skip
    return Answers(decision, scores, probabilities, logits[TEST], labels, groups, deployment)


def quantized_logits(run: runs.Run, network: str, place: Path, data: Path, folder: Path) -> dict[str, np.ndarray]:
    """Return what the network that was trained on a fold says as int8 TFLite in LiteRT: {part: float32 [n, classes]}."""
    from melanoma_edge.model.tensorflow import require

    require()
    from melanoma_edge.convert import tflite
    from melanoma_edge.convert.tflite_entry import quicken
    from melanoma_edge.proof.run_pictures import held_out, representatives
    from melanoma_edge.runtimes.process import run_logits

    model = peer_networks.published(network, run.recipe.image_size, len(run.facts.classes), batch=1)
    weights = peers_training.weights_file(place, peers_training.NETWORK)
    runs.assign(model.weights, runs.read_tensors(weights), str(weights))
    pictures, _ = representatives(run, data, lambda line: None)
    file = folder / f"{place.name}-int8-ptq.tflite"
    content = quicken(tflite.convert(model, "int8-ptq", pictures))
    with explained(file):
        file.write_bytes(content)
    shown = held_out(run, data)
    logits = run_logits("litert", file, shown.inputs)
    return {VALIDATION: logits[~shown.unseen], TEST: logits[shown.unseen]}
